//! Adding files and trees of the file system: many in one batch, and without reading what was added before and has not
//! changed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Stat};

use super::LocalStore;
use super::copy::StageError;
use super::failure::FileError;
use super::look::Look;
use super::make_address::{AddFixedError, AddressError, Addressed};
use super::register::{RegisterError, now};
use super::seen::Subject;
use super::stage::{Staged, open_parent, split};
use crate::content_address::{ContentAddress, Method, References};
use crate::hash::Algorithm;
use crate::nar::NarHash;
use crate::path_info::PathInfo;

/// So many become durable and valid at once; meanwhile the next ones are prepared.
const BATCH: usize = 2_500;
/// So many are prepared in one go by one thread.
const SHARE: usize = 64;
/// Files below this size are read as fast as they are recognised.
const RECOGNISED_SIZE: i64 = 64 << 10;

/// Something to be added.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it is; a link is added as a link.
    pub path: PathBuf,
    /// What the object is to be called.
    pub name: String,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Added {
    /// What was added or there already, in the order given: all, or those before the first that could not be.
    pub infos: Vec<PathInfo>,
    /// Why the next one was not added. Then those after it were not, either.
    pub error: Option<AddFixedError>,
}

/// Something that is ready to be registered, or is valid already.
enum Prepared {
    Known(PathInfo),
    New(Box<Addressed>),
}

type Outcome = Result<Prepared, AddFixedError>;

impl LocalStore {
    /// Adds files and trees, each under the path that follows from its content.
    ///
    /// What was added before is known again by its looks, as far as they can be trusted, and not read then. Thousands
    /// become durable and valid at once.
    pub fn add_paths(&self, sources: &[Source], method: Method, algorithm: Algorithm) -> Added {
        let mut added = Added { infos: Vec::new(), error: None };
        if let [source] = sources {
            // No threads for one.
            let prepared = self.prepare(&mut Parents::default(), source, method, algorithm);
            self.register_prepared(vec![prepared], &mut added);
            return added;
        }
        std::thread::scope(|scope| {
            let (ready, arriving) = sync_channel::<Vec<_>>(1);
            let (registering, added) = (self, &mut added);
            scope.spawn(move || {
                // Dropping its end of the channel tells the other that there is no point in going on.
                let mut batches = arriving.into_iter();
                while added.error.is_none()
                    && let Some(batch) = batches.next()
                {
                    registering.register_prepared(batch, added);
                }
            });
            for batch in sources.chunks(BATCH) {
                if ready.send(self.prepare_batch(batch, method, algorithm)).is_err() {
                    break;
                }
            }
        });
        added
    }

    fn prepare_batch(&self, batch: &[Source], method: Method, algorithm: Algorithm) -> Vec<Outcome> {
        let prepare = |share: &[Source]| {
            let mut parents = Parents::default();
            share.iter().map(|source| self.prepare(&mut parents, source, method, algorithm)).collect::<Vec<_>>()
        };
        batch.par_chunks(SHARE).flat_map_iter(prepare).collect()
    }

    /// Registers all of a batch up to the first failure.
    fn register_prepared(&self, prepared: Vec<Outcome>, added: &mut Added) {
        let (mut order, mut batch) = (Vec::new(), Vec::new());
        for one in prepared {
            match one {
                Ok(Prepared::Known(info)) => order.push(Some(info)),
                Ok(Prepared::New(object)) => {
                    order.push(None);
                    batch.push(object.registration(None));
                }
                Err(reason) => {
                    added.error = Some(reason);
                    break;
                }
            }
        }
        match self.register(batch) {
            Ok(infos) => {
                let mut infos = infos.into_iter();
                added.infos.extend(order.into_iter().filter_map(|known| known.or_else(|| infos.next())));
            }
            Err(reason) => added.error = Some(reason.into()),
        }
    }

    fn prepare(&self, parents: &mut Parents, source: &Source, method: Method, algorithm: Algorithm) -> Outcome {
        let (parent, name) = split(&source.path);
        let parent = parents.open(parent).map_err(StageError::from)?.as_fd();
        if (method, algorithm) != (Method::Nar, Algorithm::Sha256) {
            let staged = self.stage_from_path(&source.path)?;
            let hash = self.content_hash(&staged, &source.name, method, algorithm)?;
            return Ok(Prepared::New(Box::new(self.into_fixed(staged, &source.name, &hash, method)?)));
        }
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| StageError::from(FileError::new("look at", name, error)))?;
        let subject = Subject { parent, name, stat: &stat };
        if !is_recognisable(&stat) {
            let staged = self.stage_from((parent, name), None)?;
            return self.as_source(staged, &source.name);
        }
        if let Some(nar) = self.recognise(&subject, now())
            && let Some(info) = self.valid_source(nar, &source.name)?
        {
            return Ok(Prepared::Known(info));
        }
        let mut look = Look::new(now());
        let staged = self.stage_from((parent, name), Some(&mut look))?;
        let nar = NarHash { sha256: staged.nar_hash(), size: staged.nar_size() };
        self.remember(&subject, look, nar);
        self.as_source(staged, &source.name)
    }

    /// What the store knows about the source with this archive and name, if it is valid. It stays so.
    pub(super) fn valid_source(&self, nar: NarHash, name: &str) -> Result<Option<PathInfo>, AddFixedError> {
        let address = ContentAddress::nar_sha256(nar.sha256);
        let path = self
            .store_dir
            .content_addressed_path(name, &address, &References::default())
            .map_err(AddressError::from)?;
        self.protect([&path]).map_err(RegisterError::from)?;
        let info = self.path_info(&path)?;
        Ok(info.filter(|info| (info.nar_hash, info.nar_size) == (nar.sha256, nar.size)))
    }

    fn as_source(&self, staged: Staged, name: &str) -> Outcome {
        let hash = staged.nar_hash().into();
        Ok(Prepared::New(Box::new(self.into_fixed(staged, name, &hash, Method::Nar)?)))
    }
}

/// Whether looking for a record of it can pay.
fn is_recognisable(stat: &Stat) -> bool {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => true,
        FileType::RegularFile => stat.st_size >= RECOGNISED_SIZE,
        _ => false,
    }
}

/// The directory that was opened last: of what is added at once, most is in one.
#[derive(Default)]
struct Parents {
    last: Option<(PathBuf, OwnedFd)>,
}

impl Parents {
    fn open(&mut self, path: &Path) -> Result<&OwnedFd, FileError> {
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            self.last = Some((path.to_owned(), open_parent(path)?));
        }
        Ok(&self.last.as_ref().expect("it was just put there").1)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs;

    use super::super::fixture::Home;
    use super::*;

    fn sources(home: &Home, count: usize) -> Vec<Source> {
        let source = |number: usize| {
            let path = home.sources().join(number.to_string());
            fs::write(&path, format!("content {number}")).unwrap();
            Source { path, name: format!("file-{number}") }
        };
        (0..count).map(source).collect()
    }

    fn add(store: &LocalStore, sources: &[Source]) -> Added {
        store.add_paths(sources, Method::Nar, Algorithm::Sha256)
    }

    #[test]
    fn many_are_added_in_order_as_if_one_by_one() {
        let home = Home::new();
        let store = home.open();
        let sources = sources(&home, BATCH + 100);
        let added = add(&store, &sources);
        assert!(added.error.is_none());
        assert_eq!(added.infos.len(), sources.len());
        for number in [0, 1, SHARE, BATCH - 1, BATCH, BATCH + 99] {
            let staged = store.stage_from_path(&sources[number].path).unwrap();
            assert_eq!(store.add_source(staged, &sources[number].name).unwrap(), added.infos[number]);
        }
        assert_eq!(add(&store, &sources).infos, added.infos);
        assert!(home.staged_names().is_empty());
    }

    #[test]
    fn what_comes_before_the_first_failure_is_added() {
        let home = Home::new();
        let store = home.open();
        for missing in [3, BATCH + 3] {
            let sources = sources(&home, BATCH * 3);
            fs::remove_file(&sources[missing].path).unwrap();
            let added = add(&store, &sources);
            assert_eq!(added.infos.len(), missing);
            assert_eq!(added.error.unwrap().to_string(), format!("cannot look at `{missing}`"));
            assert!(added.infos.iter().all(|info| store.is_valid(&info.path).unwrap()));
        }
        assert!(home.staged_names().is_empty());
    }

    #[test]
    fn one_content_under_two_names_and_twice() {
        let home = Home::new();
        let store = home.open();
        let one = sources(&home, 1).remove(0);
        let other = Source { name: "other".to_owned(), ..one.clone() };
        let infos = add(&store, &[one.clone(), other, one]).infos;
        assert_eq!(infos[0], infos[2]);
        assert_eq!(infos[0].nar_hash, infos[1].nar_hash);
        assert_ne!(infos[0].path, infos[1].path);
    }
}
