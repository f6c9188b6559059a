//! Sources: what registries know, the lock, and the bytes.
//!
//! A recipe names what it wants ([`SourceRequest`](ampoule_derivations::source::SourceRequest)); [`lock::update`] asks
//! this machine's [`Registries`] which file that is and pins it; [`fetch::Fetcher`] brings pinned files here. Where
//! registries lie is never written in this program: it is what the user's own clients are configured to use.
//!
//! **Effects**: configuration files, environment, `pip` and `gpgv` as programs, network, the downloads directory.

pub mod credentials;
pub mod debian;
pub mod directories;
pub mod download;
pub mod fetch;
pub mod foreign;
mod forward_proxy;
mod html;
pub mod http;
pub mod intern;
pub mod lock;
pub mod machine;
pub mod own;
mod percent;
pub mod pip;
mod pypi;
pub mod registries;
mod version;

pub use download::Downloads;
pub use fetch::{FetchAllError, FetchError, FetchOptions, Fetched, Fetcher};
pub use lock::{LockError, LockOptions, Update};
pub use machine::Machine;
pub use registries::Registries;

#[cfg(test)]
mod tests;
