//! Values: store paths, archives, and the local store that holds them.

pub mod base32;
pub mod content_address;
pub mod export;
pub mod hash;
pub mod local;
pub mod nar;
pub mod path;
pub mod path_info;
pub mod reference_scan;
