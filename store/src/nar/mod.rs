//! Nix archives (NAR): the canonical bytes of a file system object, and what its hash is taken over.
//!
//! A NAR knows regular files with one bit (executable by their owner), symbolic links and directories sorted by the bytes of
//! their names; names are any bytes but `/` and NUL. Times, owners, other mode bits, hard links and extended attributes are not
//! in it. The specification is in `docs/formats/nar.md`.
//!
//! [`dump`] and [`dump_at`] read the file system, [`restore`] writes to it, [`Encoder`] and [`Decoder`] are the two halves
//! without it. Nothing here recurses: depth costs memory for names only, and a bounded number of file descriptors.

mod decode;
mod directories;
mod dump;
mod encode;
mod listing;
mod restore;
mod wire;

pub use decode::{DecodeError, Decoder, Event};
pub use directories::{DIRECTORY, DirectoryStack};
pub use dump::{DumpError, NarHash, dump, dump_at, nar_hash, nar_hash_at};
pub use encode::{EncodeError, Encoder, regular_file};
pub(crate) use listing::{LISTING_LENGTH, Listed, Listing};
pub(crate) use restore::restore_object;
pub use restore::{RestoreError, restore};
pub use wire::{NAME_LENGTH_LIMIT, TARGET_LENGTH_LIMIT, is_valid_name};
