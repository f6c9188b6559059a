//! Debian's archives: which packages a suite has, who signed that, and what packages need.

pub mod apt;
pub(crate) mod deb822;
pub(crate) mod index;
pub(crate) mod packages;
pub(crate) mod release;
pub(crate) mod resolve;
pub(crate) mod signature;
pub(crate) mod version;

pub use index::SuiteError;
pub use resolve::ResolveError;
