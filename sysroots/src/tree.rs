//! A tree of files under construction, in memory.
//!
//! Archives are never applied to a directory: their entries are first placed here, where a symbolic link is a value and
//! cannot lead a write astray, and the finished tree is written once by [`crate::write`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::spool::File;
use crate::tree_path::{MAX_DEPTH, PathError, TreePath, printable};

/// Most links followed while one path is resolved, as in Linux.
const MAX_HOPS: usize = 40;
/// Most entries of one tree.
const MAX_NODES: usize = 4_000_000;
/// Longest target of a symbolic link, in bytes.
const MAX_TARGET: usize = 4095;

/// Where an entry came from, for messages: a package, an archive, a recipe.
pub type Origin = Arc<str>;

/// What a link that points above the root or starts with a slash means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// The tree will be shown as `/`: such links start at its root, as in a changed root directory.
    Rooted,
    /// The tree is a part of something: such links lead out of it and are refused.
    Contained,
}

/// An entry's place in the tree's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

/// What one entry is.
#[derive(Clone, Debug)]
pub enum Node {
    /// A directory and its entries by name.
    Directory(BTreeMap<Vec<u8>, NodeId>),
    /// A regular file.
    File(File),
    /// A symbolic link and its target, verbatim.
    Symlink(Vec<u8>),
}

impl Node {
    fn kind(&self) -> Kind {
        match self {
            Node::Directory(_) => Kind::Directory,
            Node::File(_) => Kind::File,
            Node::Symlink(_) => Kind::Symlink,
        }
    }
}

/// A kind of entry, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kind::Directory => "a directory",
            Kind::File => "a file",
            Kind::Symlink => "a symbolic link",
        })
    }
}

/// Something to put at a path.
#[derive(Clone, Debug)]
pub enum Item {
    /// A directory; one that exists already is kept.
    Directory,
    /// A regular file.
    File(File),
    /// A symbolic link with this target.
    Symlink(Vec<u8>),
}

impl Item {
    fn kind(&self) -> Kind {
        match self {
            Item::Directory => Kind::Directory,
            Item::File(_) => Kind::File,
            Item::Symlink(_) => Kind::Symlink,
        }
    }
}

/// What [`Tree::insert`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Nothing was there; the item is now.
    New(NodeId),
    /// An entry of the same kind was there and stays. For two files the caller decides whether they agree.
    Existing(NodeId),
}

/// Why an entry could not be placed.
#[derive(Debug, Error)]
pub enum TreeError {
    /// The path itself is not acceptable.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Two sources want different things at one path.
    #[error("`{path}` is {earlier_kind} of {earlier} and {later_kind} of {later}")]
    Conflict {
        /// The path.
        path: String,
        /// What is there.
        earlier_kind: Kind,
        /// Who brought it.
        earlier: Origin,
        /// What was to be put there.
        later_kind: Kind,
        /// Who brings it.
        later: Origin,
    },
    /// A path leads through something that is not a directory.
    #[error("`{path}` of {origin} leads through `{name}`, which is not a directory")]
    NotADirectory {
        /// The path.
        path: String,
        /// The name in it.
        name: String,
        /// Who brings the path.
        origin: Origin,
    },
    /// A path leads through a link to nowhere.
    #[error("`{path}` of {origin} leads through a symbolic link to nowhere")]
    Dangling {
        /// The path.
        path: String,
        /// Who brings the path.
        origin: Origin,
    },
    /// A path leads through links without end.
    #[error("`{path}` of {origin} leads through too many symbolic links")]
    Loop {
        /// The path.
        path: String,
        /// Who brings the path.
        origin: Origin,
    },
    /// A link leads out of the tree.
    #[error("the symbolic link `{path}` -> `{target}` of {origin} leads out of the tree")]
    Escape {
        /// The path of the link, or the path that leads through it.
        path: String,
        /// Where it points.
        target: String,
        /// Who brings it.
        origin: Origin,
    },
    /// A link's target is empty, too long, or has a NUL byte.
    #[error("the symbolic link `{path}` of {origin} has no usable target")]
    Target {
        /// The path of the link.
        path: String,
        /// Who brings it.
        origin: Origin,
    },
    /// There are too many entries.
    #[error("{origin} has too many entries")]
    TooMany {
        /// Who brings the entry that is one too many.
        origin: Origin,
    },
}

/// A tree of files under construction.
#[derive(Debug)]
pub struct Tree {
    bounds: Bounds,
    root: NodeId,
    nodes: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    node: Node,
    /// The directory that holds this; the root holds itself.
    parent: NodeId,
    origin: Origin,
}

/// Where a walk along a path ended.
enum Reached {
    Node(NodeId),
    /// `directory` exists and has no entry called the first of the names left.
    Missing {
        directory: NodeId,
        left: Vec<Vec<u8>>,
    },
}

/// Why a walk along a path failed; becomes a [`TreeError`] once the path's owner is known.
enum Stop {
    NotADirectory(Vec<u8>),
    Dangling,
    Loop,
    Escape(Vec<u8>),
}

impl Tree {
    /// A tree with nothing but its root directory.
    pub fn new(bounds: Bounds) -> Self {
        let root = NodeId(0);
        let entry = Entry { node: Node::Directory(BTreeMap::new()), parent: root, origin: Origin::from("the tree") };
        Tree { bounds, root, nodes: vec![entry] }
    }

    /// The root directory.
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// An entry.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0].node
    }

    /// Where an entry came from.
    pub fn origin(&self, id: NodeId) -> &Origin {
        &self.nodes[id.0].origin
    }

    /// Puts an item at a path, making directories that are missing on the way. Links on the way are followed inside the
    /// tree. An entry of the same kind that is there already stays, and so does a link to a directory where a directory
    /// is to be.
    pub fn insert(&mut self, path: &TreePath, item: Item, origin: &Origin) -> Result<Inserted, TreeError> {
        if let Item::Symlink(target) = &item
            && (target.is_empty() || target.len() > MAX_TARGET || target.contains(&0))
        {
            return Err(TreeError::Target { path: path.to_string(), origin: origin.clone() });
        }
        let Some((parents, name)) = path.split_last() else {
            return match item {
                Item::Directory => Ok(Inserted::Existing(self.root)),
                item => Err(self.conflict(path, self.root, item.kind(), origin)),
            };
        };
        let directory = self.make_directories(&parents, path, origin)?;
        let Some(existing) = self.child(directory, name) else {
            let id = match item {
                Item::Directory => self.allocate(Node::Directory(BTreeMap::new()), directory, origin)?,
                Item::File(file) => self.allocate(Node::File(file), directory, origin)?,
                Item::Symlink(target) => self.allocate(Node::Symlink(target), directory, origin)?,
            };
            self.attach(directory, name, id);
            return Ok(Inserted::New(id));
        };
        let later_kind = item.kind();
        let agrees = match (&item, self.node(existing)) {
            (Item::Directory, Node::Directory(_)) | (Item::File(_), Node::File(_)) => true,
            (Item::Symlink(wanted), Node::Symlink(present)) => wanted == present,
            (Item::Directory, Node::Symlink(_)) => {
                return match self.walk(directory, [name.to_vec()].into(), true) {
                    Ok(Reached::Node(id)) if self.is_directory(id) => Ok(Inserted::Existing(id)),
                    _ => Err(self.conflict(path, existing, Kind::Directory, origin)),
                };
            }
            _ => false,
        };
        if agrees { Ok(Inserted::Existing(existing)) } else { Err(self.conflict(path, existing, later_kind, origin)) }
    }

    /// Puts a file or link at a path, in place of whatever file or link is there.
    pub fn replace(&mut self, path: &TreePath, item: Item, origin: &Origin) -> Result<(), TreeError> {
        if let Some(existing) = self.find(path, origin)?
            && !self.is_directory(existing)
        {
            self.remove(path, origin)?;
        }
        match self.insert(path, item, origin)? {
            Inserted::New(_) => Ok(()),
            Inserted::Existing(id) => Err(self.conflict(path, id, Kind::File, origin)),
        }
    }

    /// Takes the file, link or directory at a path out of the tree. Returns whether there was one.
    pub fn remove(&mut self, path: &TreePath, origin: &Origin) -> Result<bool, TreeError> {
        let Some((parents, name)) = path.split_last() else { return Ok(false) };
        let Some(directory) = self.follow(&parents, origin)? else { return Ok(false) };
        match &mut self.nodes[directory.0].node {
            Node::Directory(entries) => Ok(entries.remove(name).is_some()),
            _ => Ok(false),
        }
    }

    /// The entry at a path. Links on the way are followed, one at the end is not.
    pub fn find(&self, path: &TreePath, origin: &Origin) -> Result<Option<NodeId>, TreeError> {
        self.resolve(path, false, origin)
    }

    /// The entry that a path leads to when all links are followed.
    pub fn follow(&self, path: &TreePath, origin: &Origin) -> Result<Option<NodeId>, TreeError> {
        self.resolve(path, true, origin)
    }

    /// The same tree seen from its only entry, which must be a directory; `None` if there are more or none.
    pub fn descend(&mut self) -> Option<&[u8]> {
        let Node::Directory(entries) = self.node(self.root) else { return None };
        let [(_, child)] = entries.iter().collect::<Vec<_>>()[..] else { return None };
        let child = *child;
        if !self.is_directory(child) {
            return None;
        }
        let above = self.root;
        self.root = child;
        self.nodes[child.0].parent = child;
        let Node::Directory(entries) = self.node(above) else { return None };
        entries.keys().next().map(Vec::as_slice)
    }

    /// Checks that no link leads out of the tree. Links to nowhere inside it are as good as anywhere else.
    pub fn check_links(&self) -> Result<(), TreeError> {
        let mut pending = vec![(self.root, Vec::new())];
        while let Some((directory, path)) = pending.pop() {
            let Node::Directory(entries) = self.node(directory) else { continue };
            for (name, child) in entries {
                let mut child_path = path.clone();
                child_path.push(name.clone());
                match self.node(*child) {
                    Node::Directory(_) => pending.push((*child, child_path)),
                    Node::File(_) => {}
                    Node::Symlink(target) => self.check_link(directory, name, &child_path, target, *child)?,
                }
            }
        }
        Ok(())
    }

    /// Every path and its entry, parents before children, sorted by name within a directory.
    pub fn entries(&self) -> Vec<(Vec<u8>, NodeId)> {
        let mut found = Vec::new();
        let mut pending = vec![(Vec::new(), self.root)];
        while let Some((path, id)) = pending.pop() {
            if let Node::Directory(entries) = self.node(id) {
                for (name, child) in entries.iter().rev() {
                    let child_path = if path.is_empty() { name.clone() } else { [&path[..], name].join(&b'/') };
                    pending.push((child_path, *child));
                }
            }
            if id != self.root {
                found.push((path, id));
            }
        }
        found
    }

    fn check_link(
        &self,
        directory: NodeId,
        name: &[u8],
        path: &[Vec<u8>],
        target: &[u8],
        id: NodeId,
    ) -> Result<(), TreeError> {
        match self.walk(directory, [name.to_vec()].into(), true) {
            Err(Stop::Escape(_)) => Err(self.escape(path, target, id)),
            // What is missing today decides nothing, so a link to nowhere is judged by its words.
            Err(Stop::Dangling) if climbs_out(path.len() - 1, target) => Err(self.escape(path, target, id)),
            Ok(_) | Err(Stop::NotADirectory(_) | Stop::Dangling | Stop::Loop) => Ok(()),
        }
    }

    fn escape(&self, path: &[Vec<u8>], target: &[u8], id: NodeId) -> TreeError {
        let (path, target) = (printable(&path.join(&b'/')), printable(target));
        TreeError::Escape { path, target, origin: self.origin(id).clone() }
    }

    fn make_directories(&mut self, parents: &TreePath, path: &TreePath, origin: &Origin) -> Result<NodeId, TreeError> {
        let reached = self
            .walk(self.root, parents.names().to_vec().into(), true)
            .map_err(|stop| self.explain(stop, path, origin))?;
        let (mut directory, left) = match reached {
            Reached::Node(id) => (id, Vec::new()),
            Reached::Missing { directory, left } => (directory, left),
        };
        if !self.is_directory(directory) {
            let name = parents.names().last().map(|name| printable(name)).unwrap_or_default();
            return Err(TreeError::NotADirectory { path: path.to_string(), name, origin: origin.clone() });
        }
        if self.depth(directory) + left.len() + 1 > MAX_DEPTH {
            return Err(PathError::TooLong(path.to_string()).into());
        }
        for name in left {
            let child = self.allocate(Node::Directory(BTreeMap::new()), directory, origin)?;
            self.attach(directory, &name, child);
            directory = child;
        }
        Ok(directory)
    }

    fn resolve(&self, path: &TreePath, follow_last: bool, origin: &Origin) -> Result<Option<NodeId>, TreeError> {
        match self.walk(self.root, path.names().to_vec().into(), follow_last) {
            Ok(Reached::Node(id)) => Ok(Some(id)),
            Ok(Reached::Missing { .. }) | Err(Stop::Dangling | Stop::NotADirectory(_)) => Ok(None),
            Err(stop) => Err(self.explain(stop, path, origin)),
        }
    }

    /// Follows names from a directory, through links, never out of the tree.
    fn walk(&self, start: NodeId, mut left: VecDeque<Vec<u8>>, follow_last: bool) -> Result<Reached, Stop> {
        let mut current = start;
        let mut hops = 0;
        // How many of the names in front come from links: what is missing there must not be made.
        let mut from_links = 0usize;
        while let Some(name) = left.pop_front() {
            let linked = from_links > 0;
            from_links = from_links.saturating_sub(1);
            let Node::Directory(entries) = self.node(current) else { return Err(Stop::NotADirectory(name)) };
            match &name[..] {
                b"" | b"." => continue,
                b".." if current == self.root && self.bounds == Bounds::Contained => {
                    return Err(Stop::Escape(name));
                }
                b".." => {
                    current = self.nodes[current.0].parent;
                    continue;
                }
                _ => {}
            }
            let Some(&child) = entries.get(&name) else {
                if linked {
                    return Err(Stop::Dangling);
                }
                left.push_front(name);
                return Ok(Reached::Missing { directory: current, left: left.into() });
            };
            let Node::Symlink(target) = self.node(child) else {
                current = child;
                continue;
            };
            if left.is_empty() && !follow_last {
                return Ok(Reached::Node(child));
            }
            hops += 1;
            if hops > MAX_HOPS {
                return Err(Stop::Loop);
            }
            if target.first() == Some(&b'/') {
                if self.bounds == Bounds::Contained {
                    return Err(Stop::Escape(target.clone()));
                }
                current = self.root;
            }
            for step in target.split(|byte| *byte == b'/').rev() {
                left.push_front(step.to_vec());
                from_links += 1;
            }
        }
        Ok(Reached::Node(current))
    }

    fn explain(&self, stop: Stop, path: &TreePath, origin: &Origin) -> TreeError {
        let (path, origin) = (path.to_string(), origin.clone());
        match stop {
            Stop::NotADirectory(name) => TreeError::NotADirectory { path, name: printable(&name), origin },
            Stop::Dangling => TreeError::Dangling { path, origin },
            Stop::Loop => TreeError::Loop { path, origin },
            Stop::Escape(target) => TreeError::Escape { path, target: printable(&target), origin },
        }
    }

    fn conflict(&self, path: &TreePath, existing: NodeId, later_kind: Kind, later: &Origin) -> TreeError {
        TreeError::Conflict {
            path: path.to_string(),
            earlier_kind: self.node(existing).kind(),
            earlier: self.origin(existing).clone(),
            later_kind,
            later: later.clone(),
        }
    }

    fn depth(&self, mut directory: NodeId) -> usize {
        let mut depth = 0;
        while directory != self.root && depth <= MAX_DEPTH {
            directory = self.nodes[directory.0].parent;
            depth += 1;
        }
        depth
    }

    fn allocate(&mut self, node: Node, parent: NodeId, origin: &Origin) -> Result<NodeId, TreeError> {
        if self.nodes.len() >= MAX_NODES {
            return Err(TreeError::TooMany { origin: origin.clone() });
        }
        self.nodes.push(Entry { node, parent, origin: origin.clone() });
        Ok(NodeId(self.nodes.len() - 1))
    }

    fn attach(&mut self, directory: NodeId, name: &[u8], child: NodeId) {
        if let Node::Directory(entries) = &mut self.nodes[directory.0].node {
            entries.insert(name.to_vec(), child);
        }
    }

    fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        match self.node(directory) {
            Node::Directory(entries) => entries.get(name).copied(),
            _ => None,
        }
    }

    /// Whether an entry is a directory.
    pub fn is_directory(&self, id: NodeId) -> bool {
        matches!(self.node(id), Node::Directory(_))
    }
}

/// Whether a relative link in a directory `depth` levels below the root climbs above it, read as words alone.
fn climbs_out(mut depth: usize, target: &[u8]) -> bool {
    for step in target.split(|byte| *byte == b'/') {
        match step {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests;
