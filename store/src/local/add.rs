//! Adding files and trees of the file system: many in one batch, and without reading what was added before and has not
//! changed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

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

impl LocalStore {
    /// Adds files and trees, each under the path that follows from its content.
    ///
    /// What was added before is known again by its looks, as far as they can be trusted, and not read then. All of a batch
    /// becomes durable and valid at once.
    pub fn add_paths(&self, sources: &[Source], method: Method, algorithm: Algorithm) -> Added {
        let prepare = |share: &[Source]| {
            let mut parents = Parents::default();
            share.iter().map(|source| self.prepare(&mut parents, source, method, algorithm)).collect::<Vec<_>>()
        };
        let prepared: Vec<_> = match sources {
            // No pool of threads for one.
            [_] => prepare(sources),
            _ => sources.par_chunks(SHARE).flat_map_iter(prepare).collect(),
        };
        let (mut order, mut batch, mut error) = (Vec::new(), Vec::new(), None);
        for one in prepared {
            match one {
                Ok(Prepared::Known(info)) => order.push(Some(info)),
                Ok(Prepared::New(object)) => {
                    order.push(None);
                    batch.push(object.registration(None));
                }
                Err(reason) => {
                    error = Some(reason);
                    break;
                }
            }
        }
        match self.register(batch) {
            Ok(infos) => {
                let mut infos = infos.into_iter();
                Added { infos: order.into_iter().filter_map(|known| known.or_else(|| infos.next())).collect(), error }
            }
            Err(reason) => Added { infos: Vec::new(), error: Some(reason.into()) },
        }
    }

    fn prepare(
        &self,
        parents: &mut Parents,
        source: &Source,
        method: Method,
        algorithm: Algorithm,
    ) -> Result<Prepared, AddFixedError> {
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

    fn as_source(&self, staged: Staged, name: &str) -> Result<Prepared, AddFixedError> {
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
