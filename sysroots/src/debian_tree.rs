//! Merges Debian packages into one root file system, without running anything of theirs.
#![expect(clippy::disallowed_methods, reason = "opens packages")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use thiserror::Error;

use crate::deb::{self, Deb, DebError, Entry};
use crate::glob::{Glob, GlobError};
use crate::limits::Limits;
use crate::spool::{File, Spool, SpoolError};
use crate::tree::{Bounds, Inserted, Item, Node, Origin, Tree, TreeError};
use crate::tree_path::{PathError, TreePath};
use crate::write::{WriteError, write};

/// Top directories that are links into `usr` in every merged root.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// Those that are only made when a package needs them.
const MERGED_IF_USED: [&str; 3] = ["lib32", "libx32", "libo32"];
/// Directories that a root file system must have for things to be mounted on or written to.
const STANDARD: [&str; 7] = ["build", "dev", "etc", "nix/store", "proc", "root", "tmp"];
/// Where a link may lead although nothing is there yet.
const FILLED_LATER: [&str; 7] = ["build", "dev", "nix", "proc", "run", "sys", "tmp"];

/// What goes into a root file system besides the packages' own files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Additions {
    /// Symbolic links by path, for example what `update-alternatives` would make. They replace a package's file.
    pub links: BTreeMap<String, String>,
    /// Files by path. Content that starts with `#!` may be executed. They take the place of a package's file.
    pub files: BTreeMap<String, String>,
    /// Patterns of paths to leave out of the packages; a path counts both as packaged (`lib/x`) and as merged
    /// (`usr/lib/x`).
    pub drop: Vec<String>,
}

/// Why packages could not be merged.
#[derive(Debug, Error)]
pub enum DebianTreeError {
    /// A pattern of paths to leave out makes no sense.
    #[error(transparent)]
    Drop(#[from] GlobError),
    /// A package cannot be opened.
    #[error("cannot open the package `{}`", path.display())]
    Open {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A package cannot be read.
    #[error("cannot unpack the package `{}`: {source}", path.display())]
    Package {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: DebError,
    },
    /// Two packages install different files at one path.
    #[error("`{path}` is in {first} and, with other contents, in {second}")]
    Conflict {
        /// The path.
        path: String,
        /// The earlier package.
        first: Origin,
        /// The later package.
        second: Origin,
    },
    /// An entry cannot be placed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A path of a link or file to add is refused.
    #[error("cannot add to the tree: {0}")]
    Path(#[from] PathError),
    /// A link to add points to nothing.
    #[error("the added link `{path}` -> `{target}` points to nothing in the tree")]
    DanglingLink {
        /// Its path.
        path: String,
        /// Where it points.
        target: String,
    },
    /// Two files could not be compared.
    #[error("cannot compare `{path}` of two packages")]
    Compare {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory could not be made.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The tree could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Merges packages, in order, into the new directory `into`. Up to `threads` packages are read at a time; what comes
/// out does not depend on it.
pub fn build(
    packages: &[PathBuf],
    additions: &Additions,
    into: &Path,
    threads: usize,
    limits: &Limits,
) -> Result<(), DebianTreeError> {
    let drop = additions.drop.iter().map(|pattern| Glob::parse(pattern)).collect::<Result<Vec<_>, _>>()?;
    let spool = Spool::create(into)?;
    let debs = read_all(packages, &spool, threads, limits)?;
    let mut merge = Merge { tree: Tree::new(Bounds::Rooted), spool: &spool, drop, extra: BTreeSet::new() };
    merge.skeleton()?;
    for deb in debs {
        merge.package(deb)?;
    }
    merge.additions(additions)?;
    let tree = merge.tree;
    Ok(write(&tree, spool)?)
}

/// Reads packages side by side, the largest first. The first error in the order of the packages is the one reported.
fn read_all(packages: &[PathBuf], spool: &Spool, threads: usize, limits: &Limits) -> Result<Vec<Deb>, DebianTreeError> {
    let mut files = Vec::new();
    for (index, path) in packages.iter().enumerate() {
        let opened = std::fs::File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) = opened.map_err(|source| DebianTreeError::Open { path: path.clone(), source })?;
        files.push((size, index, file));
    }
    files.sort_by_key(|(size, index, _)| (std::cmp::Reverse(*size), *index));
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some((_, index, file)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let deb = deb::read(io::BufReader::with_capacity(256 * 1024, file), spool, limits);
            done.lock().expect("no thread panics while it holds the lock").insert(*index, deb);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, packages.len().max(1)) {
            // Where no thread can be had, this one does the work alone.
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let done = done.into_inner().expect("no thread panics while it holds the lock");
    let named = |(index, deb): (usize, Result<Deb, DebError>)| {
        deb.map_err(|source| DebianTreeError::Package { path: packages[index].clone(), source })
    };
    done.into_iter().map(named).collect()
}

struct Merge<'a> {
    tree: Tree,
    spool: &'a Spool,
    drop: Vec<Glob>,
    /// The top directories beyond [`MERGED`] that are in use.
    extra: BTreeSet<&'static str>,
}

impl Merge<'_> {
    fn skeleton(&mut self) -> Result<(), DebianTreeError> {
        let origin = Origin::from("the root's skeleton");
        for name in MERGED {
            self.merged_link(name, &origin)?;
        }
        for name in STANDARD {
            self.tree.insert(&TreePath::parse_rooted(name)?, Item::Directory, &origin)?;
        }
        Ok(())
    }

    fn merged_link(&mut self, name: &str, origin: &Origin) -> Result<(), DebianTreeError> {
        let target = format!("usr/{name}");
        self.tree.insert(&TreePath::parse_rooted(&target)?, Item::Directory, origin)?;
        self.tree.insert(&TreePath::parse_rooted(name)?, Item::Symlink(target.into_bytes()), origin)?;
        Ok(())
    }

    fn package(&mut self, deb: Deb) -> Result<(), DebianTreeError> {
        let origin = Origin::from(format!("the package `{}:{}`", deb.control.package, deb.control.architecture));
        for (path, entry) in deb.entries {
            let own_path = path.clone();
            let path = self.merged_path(path, &entry, &origin)?;
            if self.drop.iter().any(|glob| glob.matches(path.names()) || glob.matches(own_path.names())) {
                continue;
            }
            match entry {
                Entry::Directory => drop(self.tree.insert(&path, Item::Directory, &origin)?),
                Entry::Symlink(target) => drop(self.tree.insert(&path, Item::Symlink(target), &origin)?),
                Entry::File(file) => self.file(&path, file, &origin)?,
            }
        }
        Ok(())
    }

    /// Where a path lies once the top directories are merged into `usr`.
    fn merged_path(&mut self, path: TreePath, entry: &Entry, origin: &Origin) -> Result<TreePath, DebianTreeError> {
        let named =
            |names: &'static [&str], name: &[u8]| names.iter().copied().find(|merged| merged.as_bytes() == name);
        let in_usr = match path.names() {
            [top, name, ..] if top == b"usr" => named(&MERGED_IF_USED, name),
            [top, ..] => named(&MERGED_IF_USED, top),
            [] => None,
        };
        if let Some(name) = in_usr
            && self.extra.insert(name)
        {
            self.merged_link(name, origin)?;
        }
        let link_itself = path.names().len() == 1 && matches!(entry, Entry::Symlink(_));
        match path.names().first() {
            Some(top) if !link_itself && (named(&MERGED, top).is_some() || named(&MERGED_IF_USED, top).is_some()) => {
                Ok(TreePath::parse(b"usr")?.join(&path)?)
            }
            _ => Ok(path),
        }
    }

    fn file(&mut self, path: &TreePath, file: File, origin: &Origin) -> Result<(), DebianTreeError> {
        let Inserted::Existing(id) = self.tree.insert(path, Item::File(file.clone()), origin)? else { return Ok(()) };
        let Node::File(existing) = self.tree.node(id) else { return Ok(()) };
        let same = self.spool.same(existing, &file);
        if same.map_err(|source| DebianTreeError::Compare { path: path.to_string(), source })? {
            return Ok(());
        }
        let (first, second) = (self.tree.origin(id).clone(), origin.clone());
        Err(DebianTreeError::Conflict { path: path.to_string(), first, second })
    }

    fn additions(&mut self, additions: &Additions) -> Result<(), DebianTreeError> {
        let origin = Origin::from("the recipe");
        for (path, content) in &additions.files {
            let file = File::from_bytes(content.as_bytes(), content.starts_with("#!"));
            self.tree.replace(&TreePath::parse_rooted(path)?, Item::File(file), &origin)?;
        }
        for (path, target) in &additions.links {
            let item = Item::Symlink(target.clone().into_bytes());
            self.tree.replace(&TreePath::parse_rooted(path)?, item, &origin)?;
        }
        for (path, target) in &additions.links {
            let first = target.strip_prefix('/').and_then(|target| target.split('/').next());
            let later = first.is_some_and(|first| FILLED_LATER.contains(&first));
            if !later && self.tree.follow(&TreePath::parse_rooted(path)?, &origin)?.is_none() {
                return Err(DebianTreeError::DanglingLink { path: path.clone(), target: target.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
