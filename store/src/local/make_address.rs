//! Names that follow from content: for outputs built under a provisional path, for fetched files, for sources and texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;

use rustix::fs::{Mode, OFlags};

use super::LocalStore;
use super::copy::{Access, Kind, StageError};
use super::failure::FileError;
use super::query::QueryError;
use super::register::{RegisterError, Registration};
use super::rewrite::Rewriter;
use super::stage::Staged;
use crate::content_address::{ContentAddress, ContentPathError, Method, References};
use crate::hash::{Algorithm, Hash, Hasher, Sha256Digest};
use crate::nar::DumpError;
use crate::path::{PathError, StorePath};
use crate::path_info::PathInfo;
use crate::reference_scan::HashModulo;

/// A staged object and the path that follows from its content.
#[derive(Debug)]
pub struct Addressed {
    /// The object, which speaks of itself by its final path.
    pub staged: Staged,
    /// The final path.
    pub path: StorePath,
    /// The content the path was computed from.
    pub content_address: ContentAddress,
    /// What it refers to.
    pub references: References,
}

impl Addressed {
    /// What is needed to register it.
    #[must_use]
    pub fn registration(self, deriver: Option<StorePath>) -> Registration {
        let mut references = self.references.others;
        if self.references.self_reference {
            references.insert(self.path.clone());
        }
        Registration {
            staged: self.staged,
            path: self.path,
            references,
            deriver,
            content_address: Some(self.content_address),
        }
    }
}

/// Why a staged object has no content-addressed path.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The name or the references are not allowed.
    #[error(transparent)]
    Path(#[from] ContentPathError),
    /// Only a regular file that is not executable has a flat hash.
    #[error("`{name}` is hashed as a file, and must be a regular file that is not executable")]
    NotFlat {
        /// The object's name.
        name: String,
    },
    /// File names hold the object's own hash, and the order of its directories' entries depends on that hash.
    #[error(
        "the order of the entries of `{path}` depends on its own path, so that its path cannot follow from its content"
    )]
    UnstableOrder {
        /// The path it would have had.
        path: StorePath,
    },
    /// The staged object cannot be read.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// The staged object cannot be read or rewritten.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A file cannot be handled.
    #[error(transparent)]
    File(#[from] FileError),
}

/// That content is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hash mismatch for `{name}`: expected {expected}, got {actual}", expected = expected.to_sri(), actual = actual.to_sri())]
pub struct HashMismatch {
    /// The object's name.
    pub name: String,
    /// The hash that was asked for.
    pub expected: Hash,
    /// The hash of what there is.
    pub actual: Hash,
}

/// Why a fixed output was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddFixedError {
    /// The content is not what it should be.
    #[error(transparent)]
    Mismatch(Box<HashMismatch>),
    /// The content has no such address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The content cannot be staged.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// It cannot be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

impl From<PathError> for AddFixedError {
    fn from(error: PathError) -> Self {
        AddressError::from(ContentPathError::from(error)).into()
    }
}

impl LocalStore {
    /// Finds the path of an output that was built under the provisional path `scratch`: Nix's floating `r:sha256` form.
    ///
    /// The object must have been staged with `scratch` as its own path. If it speaks of itself, its content is copied once
    /// more, with the hash part of `scratch` replaced by the final one in contents, names and link targets.
    ///
    /// # Errors
    /// When the name is not allowed, the copy fails, or names that hold the hash part make the path impossible.
    pub fn into_content_addressed(
        &self,
        staged: Staged,
        name: &str,
        scratch: &StorePath,
    ) -> Result<Addressed, AddressError> {
        let others = staged.references().clone();
        let references = References { others, self_reference: staged.self_reference() };
        if !references.self_reference {
            let content_address = ContentAddress::nar_sha256(staged.nar_hash());
            let path = self.store_dir.content_addressed_path(name, &content_address, &references)?;
            return Ok(Addressed { staged, path, content_address, references });
        }
        let content_address = ContentAddress { method: Method::Nar, hash: hash_modulo(&staged, scratch)? };
        let path = self.store_dir.content_addressed_path(name, &content_address, &references)?;
        let rewriter = Rewriter::new([(scratch, &path)]);
        let staged = self.stage_copy(staged.place(), Access::AsTheyAre, &rewriter, &references.others, Some(&path))?;
        // What verifies the path later knows the final names only.
        if hash_modulo(&staged, &path)? != content_address.hash {
            return Err(AddressError::UnstableOrder { path });
        }
        Ok(Addressed { staged, path, content_address, references })
    }

    /// Replaces paths that a staged object refers to by others: the provisional paths of its sibling outputs by their final ones.
    ///
    /// `own` is the object's own provisional path, as it was when it was staged.
    ///
    /// # Errors
    /// When the object cannot be copied.
    pub fn rewrite_references(
        &self,
        staged: Staged,
        replacements: &BTreeMap<StorePath, StorePath>,
        own: Option<&StorePath>,
    ) -> Result<Staged, StageError> {
        if !staged.references().iter().any(|path| replacements.contains_key(path)) {
            return Ok(staged);
        }
        let replaced = |path: &StorePath| replacements.get(path).unwrap_or(path).clone();
        let candidates: BTreeSet<StorePath> = staged.references().iter().map(replaced).collect();
        self.stage_copy(staged.place(), Access::AsTheyAre, &Rewriter::new(replacements), &candidates, own)
    }

    /// The hash of a staged object's content.
    ///
    /// # Errors
    /// When it cannot be read, or is no plain regular file while `method` is not [`Method::Nar`].
    pub fn content_hash(
        &self,
        staged: &Staged,
        name: &str,
        method: Method,
        algorithm: Algorithm,
    ) -> Result<Hash, AddressError> {
        match (method, algorithm) {
            (Method::Nar, Algorithm::Sha256) => Ok(staged.nar_hash().into()),
            (Method::Nar, _) => {
                let mut hasher = Hasher::new(algorithm);
                let (directory, entry) = staged.place();
                crate::nar::dump_at(directory, entry, &mut hasher)?;
                Ok(hasher.finish())
            }
            _ if staged.kind() != (Kind::Regular { executable: false }) => {
                Err(AddressError::NotFlat { name: name.to_owned() })
            }
            _ => {
                let mut hasher = Hasher::new(algorithm);
                hash_file(staged, &mut hasher).map_err(|source| FileError::new("read", staged.path(), source))?;
                Ok(hasher.finish())
            }
        }
    }

    /// Checks that a staged object has the expected hash, and finds its path.
    ///
    /// # Errors
    /// When the hash is another, the object refers to anything, or it has no flat hash while one is asked for.
    pub fn into_fixed(
        &self,
        staged: Staged,
        name: &str,
        expected: &Hash,
        method: Method,
    ) -> Result<Addressed, AddFixedError> {
        let actual = self.content_hash(&staged, name, method, expected.algorithm())?;
        if actual != *expected {
            let mismatch = HashMismatch { name: name.to_owned(), expected: expected.clone(), actual };
            return Err(AddFixedError::Mismatch(Box::new(mismatch)));
        }
        let content_address = ContentAddress { method, hash: actual };
        let others = staged.references().clone();
        let references = References { others, self_reference: staged.self_reference() };
        if !references.is_empty() {
            let error = ContentPathError::References { name: name.to_owned(), address: content_address };
            return Err(AddressError::from(error).into());
        }
        let path =
            self.store_dir.content_addressed_path(name, &content_address, &references).map_err(AddressError::from)?;
        Ok(Addressed { staged, path, content_address, references })
    }

    /// Adds what was fetched, if it has the expected hash.
    ///
    /// # Errors
    /// As for [`LocalStore::into_fixed`] and [`LocalStore::register`].
    pub fn add_fixed(
        &self,
        staged: Staged,
        name: &str,
        expected: &Hash,
        method: Method,
    ) -> Result<PathInfo, AddFixedError> {
        self.register_one(self.into_fixed(staged, name, expected, method)?)
    }

    /// Adds a staged tree as a source: its path follows from its archive's hash, and it refers to nothing.
    ///
    /// # Errors
    /// As for [`LocalStore::into_fixed`] and [`LocalStore::register`].
    pub fn add_source(&self, staged: Staged, name: &str) -> Result<PathInfo, AddFixedError> {
        let hash = staged.nar_hash().into();
        self.add_fixed(staged, name, &hash, Method::Nar)
    }

    /// Finds the path of a text with these references, and stages it.
    ///
    /// # Errors
    /// When the name is not allowed or the file cannot be written.
    pub fn stage_text(
        &self,
        name: &str,
        content: &[u8],
        references: &BTreeSet<StorePath>,
    ) -> Result<Addressed, AddFixedError> {
        let path = self.store_dir.text_path(name, content, references)?;
        let hash = Sha256Digest::of(content).into();
        Ok(Addressed {
            staged: self.stage_bytes(content)?,
            path,
            content_address: ContentAddress { method: Method::Text, hash },
            references: References { others: references.clone(), self_reference: false },
        })
    }

    /// Adds a text with these references, unless it is there.
    ///
    /// # Errors
    /// When the name is not allowed, a reference is missing, or the file cannot be written.
    pub fn add_text(
        &self,
        name: &str,
        content: &[u8],
        references: &BTreeSet<StorePath>,
    ) -> Result<PathInfo, AddFixedError> {
        let path = self.store_dir.text_path(name, content, references)?;
        match self.path_info(&path)? {
            Some(info) => Ok(info),
            None => self.register_one(self.stage_text(name, content, references)?),
        }
    }

    fn register_one(&self, object: Addressed) -> Result<PathInfo, AddFixedError> {
        let mut infos = self.register(vec![object.registration(None)])?;
        Ok(infos.pop().expect("one info for one registration"))
    }
}

/// The SHA-256 of a staged object's archive with the hash part of `own` blanked out.
pub(super) fn hash_modulo(staged: &Staged, own: &StorePath) -> Result<Hash, DumpError> {
    let mut hasher = HashModulo::new(Algorithm::Sha256, own);
    let (directory, entry) = staged.place();
    crate::nar::dump_at(directory, entry, &mut hasher)?;
    Ok(hasher.finish().0)
}

fn hash_file(staged: &Staged, hasher: &mut Hasher) -> io::Result<u64> {
    let (directory, entry) = staged.place();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    io::copy(&mut File::from(rustix::fs::openat(directory, entry, flags, Mode::empty())?), hasher)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::super::fixture::{Home, path};
    use super::*;

    /// Stages a file as an output that was built under `own`.
    fn stage(store: &LocalStore, tree: &Path, candidates: &[StorePath], own: &StorePath) -> Staged {
        let parent = fs::File::open(tree.parent().unwrap()).unwrap();
        let candidates = candidates.iter().cloned().collect();
        store.stage_from_fd(parent.as_fd(), tree.file_name().unwrap(), &candidates, Some(own), u64::MAX).unwrap()
    }

    fn store_path(text: &str) -> StorePath {
        text.strip_prefix("/nix/store/").unwrap_or(text).parse().unwrap()
    }

    /// What Nix's `make-content-addressed` made of its own builds.
    #[test]
    fn rewritten_objects_are_those_of_nix() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/nix/nix-vectors.json");
        let vectors: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let mut checked = 0;
        for vector in vectors["vectors"].as_array().unwrap() {
            if vector["kind"] != "make-content-addressed" {
                continue;
            }
            for (from, made) in vector["expect"].as_object().unwrap() {
                check_vector(&store_path(from), made);
                checked += 1;
            }
        }
        assert!(checked >= 3, "only {checked} vectors found");
    }

    fn check_vector(scratch: &StorePath, made: &serde_json::Value) {
        let home = Home::new();
        let store = home.open();
        let info = &made["info"];
        let path = store_path(made["to"].as_str().unwrap());
        let references = info["references"].as_array().unwrap();
        let references: BTreeSet<_> = references.iter().map(|path| store_path(path.as_str().unwrap())).collect();
        // Go back to what was built: the same content, speaking of itself by the provisional path.
        let nar = data_encoding::BASE64.decode(info["nar_b64"].as_str().unwrap().as_bytes()).unwrap();
        let nar = replace(nar, path.hash_part().as_bytes(), scratch.hash_part().as_bytes());
        let sources = home.sources();
        let parent = fs::File::open(&sources).unwrap();
        crate::nar::restore(&nar[..], parent.as_fd(), std::ffi::OsStr::new("built")).unwrap();
        let candidates: Vec<_> = references.iter().filter(|reference| **reference != path).cloned().collect();
        let staged = stage(&store, &sources.join("built"), &candidates, scratch);
        let addressed = store.into_content_addressed(staged, path.name(), scratch).unwrap();
        assert_eq!(addressed.path, path);
        assert_eq!(addressed.content_address.to_string(), info["ca"]);
        assert_eq!(addressed.staged.nar_hash().to_sri(), info["narHash"]);
        assert_eq!(addressed.staged.nar_size(), info["narSize"].as_u64().unwrap());
        assert_eq!(addressed.registration(None).references, references);
    }

    fn replace(mut bytes: Vec<u8>, old: &[u8], new: &[u8]) -> Vec<u8> {
        for at in 0..bytes.len().saturating_sub(old.len() - 1) {
            if bytes[at..at + old.len()] == *old {
                bytes[at..at + old.len()].copy_from_slice(new);
            }
        }
        bytes
    }

    /// Nix's floating outputs `out` and `dev`, of which the first refers to the second.
    #[test]
    fn outputs_that_refer_to_each_other_are_those_of_nix() {
        let home = Home::new();
        let store = home.open();
        let (out, dev) = (path(1, "ca-multi"), path(2, "ca-multi-dev"));
        let sources = home.sources();
        fs::write(sources.join("dev"), "dev\n").unwrap();
        fs::write(sources.join("out"), format!("/nix/store/{dev}\n")).unwrap();
        let siblings = [out.clone(), dev.clone()];
        let staged_dev = stage(&store, &sources.join("dev"), &siblings, &dev);
        let staged_out = stage(&store, &sources.join("out"), &siblings, &out);
        let made_dev = store.into_content_addressed(staged_dev, dev.name(), &dev).unwrap();
        assert_eq!(made_dev.path, store_path("cz0j8k79m7nlx4kdy1hhn7ww0rni4glx-ca-multi-dev"));
        let replacements = BTreeMap::from([(dev, made_dev.path.clone())]);
        let staged_out = store.rewrite_references(staged_out, &replacements, Some(&out)).unwrap();
        let made_out = store.into_content_addressed(staged_out, out.name(), &out).unwrap();
        assert_eq!(made_out.path, store_path("vx8bbzi9y923smmi3aslj42pvcc4ml3l-ca-multi"));
        assert_eq!(made_out.references.others, [made_dev.path.clone()].into());
        store.register(vec![made_out.registration(None), made_dev.registration(None)]).unwrap();
    }

    #[test]
    fn an_object_speaks_of_itself_by_its_final_path_everywhere() {
        let home = Home::new();
        let store = home.open();
        let scratch = path(1, "self");
        let tree = home.sources().join("tree");
        let own = scratch.hash_part();
        fs::create_dir_all(tree.join(format!("lib/x{own}"))).unwrap();
        // Longer than one chunk, with the hash part across its edge.
        let content = format!("{}{scratch}{}{own}", "-".repeat(256 * 1024 - 16), "+".repeat(300 * 1024));
        fs::write(tree.join("lib/large"), &content).unwrap();
        symlink(format!("/nix/store/{scratch}/lib"), tree.join("link")).unwrap();
        let staged = stage(&store, &tree, &[], &scratch);
        let made = store.into_content_addressed(staged, "self", &scratch).unwrap();
        let (final_path, hash) = (made.path.clone(), made.content_address.hash.clone());
        let info = store.register(vec![made.registration(None)]).unwrap().remove(0);
        assert_eq!(info.references, [final_path.clone()].into());
        let there = store.physical_path(&final_path);
        let expected = content.replace(own, final_path.hash_part());
        assert!(fs::read_to_string(there.join("lib/large")).unwrap() == expected);
        assert!(there.join(format!("lib/x{}", final_path.hash_part())).is_dir());
        assert_eq!(fs::read_link(there.join("link")).unwrap(), Path::new(&format!("/nix/store/{final_path}/lib")));
        assert_eq!(crate::nar::nar_hash(&there).unwrap().sha256, info.nar_hash);
        // The path can be verified from the registered object alone.
        let mut hasher = HashModulo::new(Algorithm::Sha256, &final_path);
        crate::nar::dump(&there, &mut hasher).unwrap();
        assert_eq!(hasher.finish().0, hash);
        // The provisional path leaves no trace in the result.
        let tree_again = home.sources().join("again");
        let other = path(7, "self");
        fs::create_dir_all(tree_again.join(format!("lib/x{}", other.hash_part()))).unwrap();
        fs::write(tree_again.join("lib/large"), content.replace(own, other.hash_part())).unwrap();
        symlink(format!("/nix/store/{other}/lib"), tree_again.join("link")).unwrap();
        let staged = stage(&store, &tree_again, &[], &other);
        assert_eq!(store.into_content_addressed(staged, "self", &other).unwrap().path, final_path);
        assert!(home.staged_names().is_empty());
    }

    #[test]
    fn an_order_that_depends_on_the_path_is_refused() {
        let home = Home::new();
        let store = home.open();
        let mut refused = 0;
        // The order among the names decides between two final paths; some neighbours tell them apart.
        for neighbour in ["4", "8", "d", "h", "n", "r", "v"] {
            for scratch in [path(0x00, "self"), path(0xff, "self")] {
                let tree = home.sources().join(format!("{neighbour}-{scratch}"));
                fs::create_dir(&tree).unwrap();
                fs::write(tree.join(scratch.hash_part()), "").unwrap();
                fs::write(tree.join(neighbour), "").unwrap();
                let staged = stage(&store, &tree, &[], &scratch);
                let is_first = |path: &StorePath| path.hash_part() < neighbour;
                match store.into_content_addressed(staged, "self", &scratch) {
                    Ok(made) => assert_eq!(is_first(&made.path), is_first(&scratch)),
                    Err(AddressError::UnstableOrder { path }) => {
                        assert_ne!(is_first(&path), is_first(&scratch));
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!((1..14).contains(&refused), "{refused} of 14 refused");
        assert!(home.staged_names().is_empty());
    }

    #[test]
    fn fixed_outputs_have_the_paths_of_nix() {
        let home = Home::new();
        let store = home.open();
        // A floating output with a flat hash has the path of the fixed output with that hash.
        let staged = store.stage_bytes(b"hello\n").unwrap();
        let hash = store.content_hash(&staged, "ca-flat-sha512", Method::Flat, Algorithm::Sha512).unwrap();
        let info = store.add_fixed(staged, "ca-flat-sha512", &hash, Method::Flat).unwrap();
        assert_eq!(info.path, store_path("v314llj0biysw6dq9gqfbxz9p7j5j1kx-ca-flat-sha512"));
        let staged = store.stage_bytes(b"hello\n").unwrap();
        let info = store.add_source(staged, "ca-hello").unwrap();
        assert_eq!(info.path, store_path("x3d82a54wxkyc5qrw4nsf2l243a6g687-ca-hello"));
        let address = "fixed:r:sha256:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw";
        assert_eq!(info.content_address.unwrap().to_string(), address);
        let text = store.add_text("builder.sh", b"echo\n", &BTreeSet::new()).unwrap();
        assert_eq!(store.add_text("builder.sh", b"echo\n", &BTreeSet::new()).unwrap(), text);
    }

    #[test]
    fn other_content_than_expected_is_refused_with_both_hashes() {
        let home = Home::new();
        let store = home.open();
        let expected = Hash::of(Algorithm::Sha256, b"expected");
        let staged = store.stage_bytes(b"actual").unwrap();
        let error = store.add_fixed(staged, "x", &expected, Method::Flat).unwrap_err();
        let actual = Hash::of(Algorithm::Sha256, b"actual");
        let message = format!("hash mismatch for `x`: expected {}, got {}", expected.to_sri(), actual.to_sri());
        assert_eq!(error.to_string(), message);
        assert!(home.staged_names().is_empty());
    }

    #[test]
    fn a_flat_hash_takes_a_plain_file() {
        let home = Home::new();
        let store = home.open();
        let hash = Hash::of(Algorithm::Sha256, b"x");
        let executable = store.stage_file(&mut &b"x"[..], true).unwrap();
        let error = store.add_fixed(executable, "x", &hash, Method::Flat).unwrap_err();
        assert!(matches!(error, AddFixedError::Address(AddressError::NotFlat { .. })), "{error}");
        let directory = store.stage_from_path(&home.sources()).unwrap();
        store.add_fixed(directory, "x", &hash, Method::Flat).unwrap_err();
    }

    #[test]
    fn a_fixed_output_refers_to_nothing() {
        let home = Home::new();
        let store = home.open();
        let other = path(3, "other");
        let file = home.sources().join("file");
        fs::write(&file, other.to_string()).unwrap();
        let staged = stage(&store, &file, std::slice::from_ref(&other), &path(1, "x"));
        let hash = staged.nar_hash().into();
        let error = store.add_fixed(staged, "x", &hash, Method::Nar).unwrap_err();
        let AddFixedError::Address(AddressError::Path(error)) = error else { panic!("{error}") };
        assert!(matches!(error, ContentPathError::References { .. }), "{error}");
    }
}
