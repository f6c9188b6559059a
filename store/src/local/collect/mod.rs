//! Deleting what nobody needs any more, while others use the store.
//!
//! What is reachable from a root or from what a living process has protected stays. The graph is read once; then the dead
//! go in batches. Before each batch, with everybody kept from protecting anything for that moment, the roots are read
//! again: what became reachable since is spared, and the rows of the rest are deleted in one transaction. Only then do the
//! files go. Whatever stops a collection leaves a store that is whole.

#[cfg(test)]
mod beside;
mod compact;
mod graph;
mod leftovers;
mod load;
mod prune;
mod running;
mod sweep;
mod usage;

use std::collections::BTreeSet;
use std::path::Path;

use super::failure::{DatabaseError, FileError};
use super::query::QueryError;
use super::roots::{RootError, RootKind};
use super::{LocalStore, OpenError, reserve};
use crate::path::{StoreDir, StorePath};

use self::graph::{Graph, Liveness};

pub use self::sweep::{DeleteDeadError, DeleteOptions};

/// A transaction that deletes much reads and writes pages in no order; those that do not fit are read again and again.
const CACHE: &str = "PRAGMA cache_size = -16384";

/// Finds the outputs that a derivation's bytes state beforehand.
pub type OutputsOf<'a> = dyn Fn(&StorePath, &[u8]) -> Vec<StorePath> + 'a;

/// What stays beside what roots reach, and when to stop.
#[derive(Clone, Copy)]
pub struct Policy<'a> {
    /// Whether the derivations that made live objects stay, with everything those refer to.
    pub keep_derivations: bool,
    /// Whether the outputs of live derivations stay; if so, how to find those that are known beforehand.
    pub keep_outputs: Option<&'a OutputsOf<'a>>,
    /// Objects registered at this time or later stay, in Unix seconds.
    pub registered_before: Option<i64>,
    /// Stop when objects with archives of so many bytes are gone.
    pub enough_bytes: Option<u64>,
    /// Whether the logs of derivations that are deleted go too.
    pub delete_logs: bool,
}

impl Default for Policy<'_> {
    /// As Nix by default: derivations of live objects stay, outputs of live derivations do not.
    fn default() -> Self {
        Self {
            keep_derivations: true,
            keep_outputs: None,
            registered_before: None,
            enough_bytes: None,
            delete_logs: false,
        }
    }
}

/// An object that is dead, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadObject {
    /// Its path.
    pub path: StorePath,
    /// The size of its archive, in bytes.
    pub nar_size: u64,
    /// When it was registered, in Unix seconds.
    pub registered_at: i64,
}

/// What a collection would delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Objects, in the order in which they would go.
    pub objects: Vec<DeadObject>,
    /// Derivations.
    pub derivations: Vec<StorePath>,
    /// Links that keep nothing any more.
    pub stale_links: Vec<String>,
    /// How many objects stay.
    pub live_objects: u64,
    /// The sizes of their archives together, in bytes.
    pub live_bytes: u64,
    /// How much room on disk the dead objects take that nothing else shares, in bytes.
    pub disk_bytes: u64,
}

/// What a collection deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects.
    pub objects: Vec<DeadObject>,
    /// Derivations.
    pub derivations: Vec<StorePath>,
    /// Links that kept nothing any more, and are forgotten.
    pub stale_links: Vec<String>,
    /// Things in the store's directory that were never registered.
    pub leftovers: u64,
    /// Build logs.
    pub logs: u64,
    /// Downloads that nobody went on with.
    pub downloads: u64,
    /// Records of builds and checks that speak of nothing that is left.
    pub records: u64,
    /// How much more room the file system has than before, in bytes, whatever else was written meanwhile.
    pub disk_bytes: u64,
    /// How many bytes the database's file lost.
    pub database_bytes: u64,
}

/// Why a collection stopped. What it deleted until then is gone, and the store is whole.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// What is to be kept cannot be told.
    #[error("cannot tell what is to be kept, so nothing is deleted")]
    Root(#[from] RootError),
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A file cannot be handled.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database refuses.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl LocalStore {
    /// Opens a store whose disk may be full, to delete from it or look after it: then it gives its reserve back to the file
    /// system first.
    ///
    /// # Errors
    /// As for [`LocalStore::open`].
    pub fn open_to_collect(home: &Path, store_dir: StoreDir) -> Result<Self, OpenError> {
        let release = || reserve::release(home).map_err(|source| OpenError::File { home: home.to_owned(), source });
        if reserve::is_needed(home) {
            release()?;
        }
        Self::open(home, store_dir.clone()).or_else(|_| {
            // A quota is full, perhaps, of which the file system does not tell.
            release()?;
            Self::open(home, store_dir)
        })
    }

    /// Makes the reserve again, if there is room for it by now.
    pub fn renew_reserve(&self) {
        reserve::make(&self.layout.home);
    }

    /// Finds what [`LocalStore::collect_garbage`] would delete now.
    ///
    /// # Errors
    /// When the roots or the store cannot be read.
    pub fn find_garbage(&self, policy: &Policy<'_>) -> Result<Garbage, CollectError> {
        let (graph, live) = self.survey(policy)?;
        let mut garbage = Garbage { stale_links: self.stale_links()?, ..Garbage::default() };
        for position in self.chosen(&graph, &live, policy).into_iter().flatten() {
            let node = graph.at(position);
            garbage.objects.extend(dead_object(&graph, position));
            garbage.derivations.extend(node.is_derivation.then(|| node.path.clone()));
        }
        garbage.disk_bytes = self.disk_usage(garbage.objects.iter().map(|object| &object.path))?;
        for object in (0..).zip(&graph.nodes).filter(|(position, _)| live.is_live(*position)) {
            if let Some(object) = object.1.object {
                garbage.live_objects += 1;
                garbage.live_bytes += object.nar_size;
            }
        }
        Ok(garbage)
    }

    /// Deletes what neither roots nor living processes reach, as the policy says. `progress` is told how many objects are
    /// gone and how many are to go.
    ///
    /// Waits while another process collects. Others may use the store meanwhile.
    ///
    /// # Errors
    /// When the roots cannot be read, or files or rows cannot be deleted.
    pub fn collect_garbage(
        &self,
        policy: &Policy<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Collected, CollectError> {
        let _only = self.layout.become_collector()?;
        let room = self.free_bytes();
        // Those of processes that died are in nobody's way, but may be large.
        let _ = self.layout.remove_leftovers();
        let _ = self.database.attempt(|connection| connection.execute_batch(CACHE));
        let mut collected = Collected { stale_links: self.prune_links()?, ..Collected::default() };
        let (graph, live) = self.survey(policy)?;
        let order = self.chosen(&graph, &live, policy);
        self.sweep(&graph, live, policy, &order, &mut collected, progress)?;
        collected.leftovers = self.remove_unregistered()?;
        if policy.delete_logs {
            collected.logs = self.delete_logs(&collected.derivations)?;
        }
        self.prune(&mut collected)?;
        collected.database_bytes = self.compact_database();
        collected.disk_bytes = self.free_bytes().saturating_sub(room);
        reserve::make(&self.layout.home);
        Ok(collected)
    }

    /// Reads the graph, and finds what lives.
    fn survey(&self, policy: &Policy<'_>) -> Result<(Graph, Liveness), CollectError> {
        // Roots after the graph: whoever protects something later is found before the batch that would delete it.
        let graph = self.load_graph(policy)?;
        let mut live = Liveness::none(&graph);
        for path in self.all_roots()?.into_iter().chain(self.running_roots()) {
            if let Some(position) = graph.position(&path) {
                live.mark(&graph, position);
            }
        }
        if let Some(cut) = policy.registered_before {
            for (position, node) in (0..).zip(&graph.nodes) {
                if node.object.is_some_and(|object| object.registered_at >= cut) {
                    live.mark(&graph, position);
                }
            }
        }
        Ok((graph, live))
    }

    /// What roots and living processes keep.
    fn all_roots(&self) -> Result<BTreeSet<StorePath>, CollectError> {
        let mut roots = self.layout.temporary_roots()?;
        roots.extend(self.roots()?.into_iter().flat_map(|root| root.paths));
        Ok(roots)
    }

    /// The dead that the policy lets go, in order.
    fn chosen(&self, graph: &Graph, live: &Liveness, policy: &Policy<'_>) -> Vec<Vec<u32>> {
        let mut order = live.dead_in_order(graph);
        if let Some(enough) = policy.enough_bytes {
            let mut bytes = 0;
            let size = |position: &u32| graph.at(*position).object.map_or(0, |object| object.nar_size);
            let needed = order.iter().take_while(|group| {
                let more = bytes < enough;
                bytes += group.iter().map(size).sum::<u64>();
                more
            });
            let needed = needed.count();
            order.truncate(needed);
        }
        order
    }

    fn stale_links(&self) -> Result<Vec<String>, CollectError> {
        let stale = self.roots()?.into_iter().filter(|root| root.kind == RootKind::Link && root.paths.is_empty());
        Ok(stale.map(|root| root.name).collect())
    }

    /// Forgets links that are gone or lead elsewhere.
    fn prune_links(&self) -> Result<Vec<String>, CollectError> {
        // Nobody makes a link while this is held.
        let _held = self.layout.hold_roots()?;
        let stale = self.stale_links()?;
        for name in &stale {
            self.unlink_root(name)?;
        }
        Ok(stale)
    }
}

fn dead_object(graph: &Graph, position: u32) -> Option<DeadObject> {
    let node = graph.at(position);
    node.object.map(|object| DeadObject {
        path: node.path.clone(),
        nar_size: object.nar_size,
        registered_at: object.registered_at,
    })
}

#[cfg(test)]
mod tests;
