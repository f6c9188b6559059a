//! Deletes in batches: rows in one transaction, then the files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{OptionalExtension, Transaction};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::super::LocalStore;
use super::super::database::Refused;
use super::super::failure::{DatabaseError, FileError};
use super::super::lock::acquire_objects;
use super::super::relations::Direction;
use super::super::remove_many::{for_each, remove_trees};
use super::graph::{Graph, Liveness};
use super::{CollectError, Collected, DeadObject, Policy, dead_object};
use crate::path::StorePath;

/// How many objects and derivations go in one transaction.
const BATCH: usize = 16384;
/// Files up to this size are removed at once; what takes longer is done when no lock is held.
const QUICK_BYTES: u64 = 1 << 20;
/// How long those who register objects are kept waiting for files to go: what is left then is moved out of their way.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why an object was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteDeadError {
    /// Something reaches it.
    #[error("`{path}` cannot be deleted, because {kept_by} keeps it")]
    Alive {
        /// The object.
        path: StorePath,
        /// What keeps it: a root, or a running process.
        kept_by: String,
    },
    /// It cannot be told whether something reaches it.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// It cannot be deleted.
    #[error(transparent)]
    Delete(#[from] super::super::DeleteError),
}

/// What to delete beside the objects that were named, and what to leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Everything they refer to, too.
    pub recursive: bool,
    /// What has to stay is left where it is, instead of being a reason to delete nothing.
    pub skip_live: bool,
}

/// Why the rows of a batch were not deleted.
enum BatchError {
    /// Objects that are not dead refer to these by now.
    Needed(Vec<StorePath>),
    Database(DatabaseError),
}

impl From<DatabaseError> for BatchError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

/// A collection under way.
struct Sweep<'a> {
    graph: &'a Graph,
    live: Liveness,
    policy: &'a Policy<'a>,
    /// Roots that are younger than the graph, and have been followed.
    followed: BTreeSet<StorePath>,
}

impl LocalStore {
    /// Deletes objects as [`LocalStore::delete`] does, unless a root or a living process keeps one of them.
    ///
    /// # Errors
    /// When something keeps one, or what is not to be deleted refers to one; then none is deleted.
    pub fn delete_dead(&self, paths: &[StorePath]) -> Result<(), DeleteDeadError> {
        self.delete_dead_with(paths, DeleteOptions::default()).map(drop)
    }

    /// As [`LocalStore::delete_dead`], with what they refer to or without what has to stay, as the options say. Returns what
    /// was deleted.
    ///
    /// # Errors
    /// When something that is to be deleted has to stay; then nothing is deleted.
    pub fn delete_dead_with(
        &self,
        paths: &[StorePath],
        options: DeleteOptions,
    ) -> Result<BTreeSet<StorePath>, DeleteDeadError> {
        let collect = |error: FileError| DeleteDeadError::from(CollectError::from(error));
        let _only = self.layout.become_collector().map_err(collect)?;
        // Rows and roots must not change between the question and the answer, so that this is held until the end. It is
        // only ever a few objects.
        let _held = self.layout.hold_roots().map_err(collect)?;
        let mut wanted: BTreeSet<StorePath> = paths.iter().cloned().collect();
        if options.recursive {
            wanted.extend(self.reachable(paths, Direction::References).map_err(CollectError::from)?);
        }
        let mut sources: Vec<(String, BTreeSet<StorePath>)> = Vec::new();
        let roots = self.roots().map_err(CollectError::from)?;
        sources.extend(roots.into_iter().map(|root| (format!("the root `{}`", root.name), root.paths)));
        sources.push(("a running process".to_owned(), self.layout.temporary_roots().map_err(collect)?));
        sources.push(("a running program".to_owned(), self.running_roots()));
        for (kept_by, roots) in sources {
            let roots: Vec<StorePath> = roots.into_iter().collect();
            let reached = self.reachable(&roots, Direction::References).map_err(CollectError::from)?;
            if options.skip_live {
                wanted.retain(|path| !reached.contains(path));
            } else if let Some(path) = wanted.iter().find(|path| reached.contains(*path)) {
                return Err(DeleteDeadError::Alive { path: path.clone(), kept_by });
            }
        }
        if options.skip_live {
            self.spare_needed(&mut wanted)?;
        }
        let paths: Vec<StorePath> = wanted.iter().cloned().collect();
        let deleted = self.valid_paths(&paths).map_err(CollectError::from)?;
        self.delete(&paths)?;
        Ok(deleted)
    }

    /// Takes out what objects refer to that are not to be deleted.
    fn spare_needed(&self, wanted: &mut BTreeSet<StorePath>) -> Result<(), CollectError> {
        let mut pending: Vec<StorePath> = wanted.iter().cloned().collect();
        while let Some(path) = pending.pop() {
            if !wanted.contains(&path) {
                continue;
            }
            let referrers = self.neighbours(&path, Direction::Referrers)?;
            if referrers.iter().any(|referrer| !wanted.contains(referrer)) {
                wanted.remove(&path);
                // These have a referrer that stays now.
                pending.extend(self.neighbours(&path, Direction::References)?);
            }
        }
        Ok(())
    }

    pub(super) fn sweep(
        &self,
        graph: &Graph,
        live: Liveness,
        policy: &Policy<'_>,
        order: &[Vec<u32>],
        collected: &mut Collected,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), CollectError> {
        let total = order.iter().flatten().filter(|position| graph.at(**position).object.is_some()).count() as u64;
        let mut sweep = Sweep { graph, live, policy, followed: BTreeSet::new() };
        let mut groups = order.iter().peekable();
        while groups.peek().is_some() {
            let mut batch: Vec<u32> = Vec::new();
            while let Some(group) = groups.next_if(|group| batch.is_empty() || batch.len() + group.len() <= BATCH) {
                batch.extend(group);
            }
            self.sweep_in_parts(&mut sweep, batch, collected)?;
            progress(collected.objects.len() as u64, total);
        }
        Ok(())
    }

    /// Deletes a batch, in smaller ones if the disk has no room for a transaction of that size.
    fn sweep_in_parts(
        &self,
        sweep: &mut Sweep<'_>,
        batch: Vec<u32>,
        collected: &mut Collected,
    ) -> Result<(), CollectError> {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            match self.sweep_batch(sweep, &part, collected) {
                Err(CollectError::Database(error)) if error.is_disk_full() && part.len() > 1 => {
                    let rest = part.split_off(part.len().div_ceil(8));
                    parts.extend([rest, part]);
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn sweep_batch(&self, sweep: &mut Sweep<'_>, batch: &[u32], collected: &mut Collected) -> Result<(), CollectError> {
        let graph = sweep.graph;
        let objects = batch.iter().map(|position| graph.at(*position)).filter(|node| node.object.is_some());
        let session = self.session()?;
        // First these, which their holders keep for long; nobody who holds one waits for the roots' lock.
        let locks = acquire_objects(&self.layout.object_locks, objects.map(|node| &node.path))?;
        let held = self.layout.hold_roots()?;
        let gone = self.delete_rows(sweep, batch)?;
        drop(held);
        let mut objects = Vec::with_capacity(gone.len());
        for position in &gone {
            let node = graph.at(*position);
            collected.derivations.extend(node.is_derivation.then(|| node.path.clone()));
            objects.extend(dead_object(graph, *position));
        }
        let mut moved: Vec<OsString> = Vec::new();
        for object in self.remove_quickly(&objects) {
            let name = session.new_name();
            if self.move_out(&object.path, (session.fd(), &name))? {
                moved.push(name);
            }
        }
        drop(locks);
        collected.objects.extend(objects);
        remove_trees(session.fd(), &moved)?;
        Ok(())
    }

    /// Removes those objects that are small files, for a while, and returns the others.
    fn remove_quickly<'a>(&self, objects: &'a [DeadObject]) -> Vec<&'a DeadObject> {
        let until = Instant::now() + PATIENCE;
        let others = Mutex::new(Vec::new());
        let _: Result<(), ()> = for_each(objects, |object| {
            if object.nar_size <= QUICK_BYTES && Instant::now() < until {
                match rustix::fs::unlinkat(&self.layout.store, object.path.base_name(), AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => return Ok(()),
                    // A directory, or something that the slower way explains better.
                    Err(_) => {}
                }
            }
            others.lock().unwrap_or_else(PoisonError::into_inner).push(object);
            Ok(())
        });
        others.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes the rows of what is still dead, and says of what.
    fn delete_rows(&self, sweep: &mut Sweep<'_>, batch: &[u32]) -> Result<Vec<u32>, CollectError> {
        let roots = self.all_roots()?;
        self.revive(sweep, roots)?;
        loop {
            let dead: Vec<u32> = batch.iter().copied().filter(|position| !sweep.live.is_live(*position)).collect();
            let deleted =
                self.database.write("delete garbage", |transaction| delete_nodes(transaction, sweep.graph, &dead));
            match deleted {
                Ok(()) => return Ok(dead),
                Err(BatchError::Needed(paths)) => self.revive(sweep, paths.into_iter().collect())?,
                Err(BatchError::Database(error)) => return Err(error.into()),
            }
        }
    }

    /// Spares what these reach, also by way of what was registered after the graph was read.
    fn revive(&self, sweep: &mut Sweep<'_>, roots: BTreeSet<StorePath>) -> Result<(), CollectError> {
        let mut pending: Vec<StorePath> = roots.into_iter().collect();
        while let Some(path) = pending.pop() {
            match sweep.graph.position(&path) {
                Some(position) => sweep.live.mark(sweep.graph, position),
                None if sweep.followed.insert(path.clone()) => {
                    pending.extend(self.neighbours(&path, Direction::References)?);
                    if sweep.policy.keep_derivations {
                        pending.extend(self.realised_as(&path)?.into_iter().map(|(derivation, _)| derivation));
                    }
                }
                None => {}
            }
        }
        Ok(())
    }
}

fn delete_nodes(transaction: &Transaction<'_>, graph: &Graph, dead: &[u32]) -> Result<(), Refused<BatchError>> {
    // By name, not by the number it had when the graph was read: numbers are used again.
    let mut find = transaction.prepare_cached("SELECT id FROM objects WHERE path = ?1")?;
    let mut forget = transaction.prepare_cached("DELETE FROM object_references WHERE referrer = ?1")?;
    let mut forget_derivation = transaction.prepare_cached("DELETE FROM derivations WHERE path = ?1")?;
    let mut objects: BTreeMap<i64, &StorePath> = BTreeMap::new();
    for node in dead.iter().map(|position| graph.at(*position)) {
        if node.is_derivation {
            forget_derivation.execute([node.path.base_name()])?;
        }
        if node.object.is_some()
            && let Some(id) = find.query_row([node.path.base_name()], |row| row.get(0)).optional()?
        {
            forget.execute([id])?;
            objects.insert(id, &node.path);
        }
    }
    let mut needed = Vec::new();
    let mut referrer = transaction.prepare_cached("SELECT 1 FROM object_references WHERE reference = ?1")?;
    for (id, path) in &objects {
        if referrer.exists([id])? {
            needed.push((*path).clone());
        }
    }
    if !needed.is_empty() {
        return Err(Refused::Because(BatchError::Needed(needed)));
    }
    let mut delete = transaction.prepare_cached("DELETE FROM objects WHERE id = ?1")?;
    for id in objects.keys() {
        delete.execute([id])?;
    }
    Ok(())
}
