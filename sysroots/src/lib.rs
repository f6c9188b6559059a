//! Arguments: platforms, wheel tags, archives and Debian packages as trees.

pub mod ar;
pub mod compression;
pub mod deb;
pub mod debian_tree;
pub mod elf;
pub mod glob;
pub mod limits;
pub mod manylinux;
pub mod patch;
pub mod platform;
pub mod python_name;
pub mod python_path;
pub mod spool;
pub mod tar_reader;
pub mod tree;
pub mod tree_path;
pub mod unpack;
pub mod wheel;
pub mod wheel_tag;
pub mod write;
pub mod zip_reader;
pub mod zip_writer;
