//! Values: store paths, archives, and the local store that holds them.
//!
//! - [`StorePath`](path::StorePath) names an object, in a [`StoreDir`](path::StoreDir), which says where paths logically lie;
//! - [`Hash`](hash::Hash) and [`Sha256Digest`](hash::Sha256Digest) are digests, in [base 16, 32 and 64](base32);
//! - [`ContentAddress`](content_address::ContentAddress) and [`References`](content_address::References) give a path to content;
//! - [`nar`] is the canonical form of a file system object, which hashes are taken over;
//! - [`ReferenceScanner`](reference_scan::ReferenceScanner) finds which store paths an object refers to;
//! - [`PathInfo`](path_info::PathInfo) is what is known of an object, and [`local`] the store that keeps objects;
//! - [`cache`] reads and writes binary caches, whose words are [`narinfo`] and [`signature`];
//! - [`export`] moves objects to a stock Nix, [`import`] from one, and [`registrations`] is what either knows of them.
//!
//! **Effects**: [`local`] owns a directory of the file system, [`cache`] writes one; [`nar`] reads and writes the trees it is told to. The rest is functions on values.
//!
//! **Uses**: no other room.
//!
//! **Invariants**: every format is Nix's, byte for byte (`docs/formats/`). Decoders of foreign bytes are total: bounded, without recursion,
//! and strict enough that what they accept is canonical. A value of a type is valid: it was checked when it was made.
//!
//! **Not here**: what derivations mean, how anything is built, and any network.
//!
//! Start reading at [`path`].
//!
//! ```
//! use ampoule_store::content_address::{ContentAddress, References};
//! use ampoule_store::hash::Sha256Digest;
//! use ampoule_store::path::StoreDir;
//!
//! let store_dir = StoreDir::default();
//! let address = ContentAddress::flat_sha256(Sha256Digest::of(b"abc"));
//! let path = store_dir.content_addressed_path("foo-1.0.tar.gz", &address, &References::default())?;
//! assert_eq!(store_dir.display(&path), "/nix/store/nc12jzpw7y95ib3wbndfnymn6lpa0jp1-foo-1.0.tar.gz");
//! # Ok::<(), ampoule_store::content_address::ContentPathError>(())
//! ```

pub mod base32;
pub mod cache;
pub mod content_address;
pub mod export;
pub mod hash;
pub mod import;
pub mod local;
pub mod nar;
pub mod narinfo;
pub mod path;
pub mod path_info;
pub mod reference_scan;
pub mod registrations;
pub mod signature;
