//! Arguments: what derivations are built for and from. Archives and Debian packages as trees, wheels as they must be.
//!
//! - [`platform::Platform`] and [`platform::PythonVersion`]: what things are built for, by every name it has.
//! - [`tree::Tree`]: files under construction, in memory; [`write::write`] puts them on disk once.
//! - [`spool::Spool`]: where the bodies of those files wait.
//! - [`unpack`]: source archives, with [`patch::Patch`]es; [`debian_tree`]: packages merged into a root file system.
//! - [`wheel::Wheel`]: what a build backend left, verified and made canonical; [`wheel_tag::WheelName`],
//!   [`manylinux::judge`] and [`elf::Elf`] say what it runs on.
//! - [`python_path`]: wheels laid out for use in a build.
//!
//! **Effects.** [`spool`] and [`mod@write`] make a directory that did not exist, relative to descriptors they opened;
//! [`debian_tree`] and [`python_path`] read the files they are given. The rest is functions on values.
//!
//! **Uses.** `derivations` and `store` for values; `object` to read ELF files, and decoders of gzip, xz and Zstandard.
//!
//! **Invariants.** No archive, however made, causes a panic, a write outside of the new directory, or more output than
//! [`limits::Limits`] allow: paths are resolved in the model, where a symbolic link is a value. What two readers could
//! understand differently is refused. What comes out depends neither on the number of threads nor on the order in
//! which a directory is read. The bytes of a canonical wheel follow from names, contents and execute bits alone.
//!
//! **Not here.** Fetching, container images, running anything of what is unpacked, libc variants other than GNU's.
//!
//! Start reading at [`tree`], then [`unpack`].
//!
//! ```
//! use ampoule_sysroots::platform::Platform;
//! use ampoule_sysroots::wheel_tag::WheelName;
//!
//! let wheel = WheelName::parse("MarkupSafe-2.1.5-cp311-cp311-manylinux_2_17_aarch64.whl").unwrap();
//! assert_eq!(wheel.name, "markupsafe");
//! let tag = wheel.tags().pop_first().unwrap();
//! assert!(tag.suits("cp311".parse().unwrap(), Platform::LinuxArm64));
//! ```

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
