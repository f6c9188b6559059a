//! Removing much at once. A file system may wait for its disk at every file that goes, so that more threads than there
//! are processors are of use; names go one after the other all the same, but what they named goes beside them.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType};

use super::descent::{Descent, Entry, open_directory};
use super::failure::FileError;
use super::remove::remove_tree;

/// The most threads. More are of no use to a disk, and their stacks cost memory.
const THREADS: usize = 16;
/// Fewer things than this for each thread are not worth starting it.
const FEW: usize = 16;
/// How many entries of a directory are one job.
const JOB_ENTRIES: usize = 64;

/// Does something with each item, in several threads if they are many. Goes on after a failure; one of them is returned.
pub(super) fn for_each<'a, T: Sync, E: Send>(
    items: &'a [T],
    run: impl Fn(&'a T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let threads = THREADS.min(items.len() / FEW);
    if threads < 2 {
        return items.iter().map(run).fold(Ok(()), Result::and);
    }
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(Ok(()));
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = run(item) {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // What cannot be started is not needed.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Removes whatever these names are in `parent`, with all it holds. Nothing there is no error.
pub(super) fn remove_trees(parent: BorrowedFd<'_>, names: &[OsString]) -> Result<(), FileError> {
    if names.len() >= 2 * FEW {
        return for_each(names, |name| remove_tree(parent, name));
    }
    for name in names {
        thin_out(parent, name);
    }
    names.iter().map(|name| remove_tree(parent, name)).fold(Ok(()), Result::and)
}

/// Entries of a directory that are not directories, as far as is known.
struct Job {
    directory: Arc<OwnedFd>,
    entries: Vec<Entry>,
}

/// Removes the files of a large tree, as far as that is easy: whoever removes the rest finds what is in the way.
fn thin_out(parent: BorrowedFd<'_>, name: &OsStr) {
    let Ok(top) = open_directory(parent, name) else { return };
    std::thread::scope(|scope| {
        let (jobs, receiver) = sync_channel::<Job>(2 * THREADS);
        let receiver = Arc::new(Mutex::new(receiver));
        let start = || {
            let receiver = Arc::clone(&receiver);
            std::thread::Builder::new().spawn_scoped(scope, move || remove_jobs(&receiver)).is_ok()
        };
        let _ = Walk { jobs, start, threads: 0, seen: 0 }.through(name, top);
    });
}

fn remove_jobs(receiver: &Mutex<Receiver<Job>>) {
    loop {
        let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        remove_entries(&job.directory, &job.entries);
    }
}

fn remove_entries(directory: &OwnedFd, entries: &[Entry]) {
    for entry in entries {
        let _ = rustix::fs::unlinkat(directory, entry.name(), AtFlags::empty());
    }
}

/// Goes through a tree and makes jobs of the files in it.
struct Walk<S> {
    jobs: SyncSender<Job>,
    start: S,
    threads: usize,
    seen: usize,
}

impl<S: FnMut() -> bool> Walk<S> {
    fn through(mut self, name: &OsStr, top: OwnedFd) -> std::io::Result<()> {
        let mut descent = Descent::default();
        let mut pending = vec![self.read(&top)?];
        descent.push(name, top)?;
        while let Some(directories) = pending.last_mut() {
            let Some(inner) = directories.pop() else {
                pending.pop();
                descent.pop()?;
                continue;
            };
            let here = descent.fd().expect("one directory is entered for each list of those in it");
            // Without permission to read it, it is left to who can change that.
            if let Ok(directory) = open_directory(here, inner.name()) {
                pending.push(self.read(&directory)?);
                descent.push(inner.name(), directory)?;
            }
        }
        Ok(())
    }

    /// Has the files in a directory removed, and returns the directories in it.
    fn read(&mut self, directory: &OwnedFd) -> std::io::Result<Vec<Entry>> {
        let mut directories = Vec::new();
        let mut entries = Vec::new();
        let mut shared = None;
        for entry in Dir::read_from(directory.as_fd())? {
            let entry = entry?;
            let found = Entry { name: entry.file_name().to_owned(), kind: entry.file_type() };
            match (found.name.to_bytes(), found.kind) {
                (b"." | b"..", _) => {}
                (_, FileType::Directory) => directories.push(found),
                _ => entries.push(found),
            }
            if entries.len() == JOB_ENTRIES {
                self.give(directory, &mut shared, std::mem::take(&mut entries))?;
            }
        }
        self.give(directory, &mut shared, entries)?;
        Ok(directories)
    }

    fn give(
        &mut self,
        directory: &OwnedFd,
        shared: &mut Option<Arc<OwnedFd>>,
        entries: Vec<Entry>,
    ) -> std::io::Result<()> {
        self.seen += entries.len();
        // Threads come as there is work for them: most trees are small.
        if self.threads < THREADS && self.seen > JOB_ENTRIES * (self.threads + 1) && (self.start)() {
            self.threads += 1;
        }
        if self.threads == 0 {
            remove_entries(directory, &entries);
            return Ok(());
        }
        let directory = match shared {
            Some(directory) => directory,
            None => shared.insert(Arc::new(directory.try_clone()?)),
        };
        let _ = self.jobs.send(Job { directory: Arc::clone(directory), entries });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    /// A tree with this many directories, each with this many files and a link out of it.
    fn make(root: &Path, directories: usize, files: usize) {
        for directory in 0..directories {
            let directory = root.join(format!("{}/{directory}", directory % 7));
            fs::create_dir_all(&directory).unwrap();
            symlink("/etc", directory.join("link")).unwrap();
            for file in 0..files {
                fs::write(directory.join(file.to_string()), "x").unwrap();
            }
        }
    }

    #[test]
    fn many_trees_and_large_ones_go_and_what_is_beside_them_stays() {
        let home = tempfile::tempdir().unwrap();
        for (trees, directories, files) in [(1, 40, 100), (3, 1, 2000), (100, 1, 3), (1, 300, 2), (0, 0, 0)] {
            fs::write(home.path().join("kept"), "kept").unwrap();
            let names: Vec<OsString> = (0..trees).map(|tree| format!("tree{tree}").into()).collect();
            for name in &names {
                make(&home.path().join(name), directories, files);
            }
            if let Some(name) = names.first() {
                // What nobody may write to is no obstacle.
                fs::set_permissions(home.path().join(name).join("0/0"), fs::Permissions::from_mode(0o555)).unwrap();
            }
            let parent = fs::File::open(home.path()).unwrap();
            remove_trees(parent.as_fd(), &names).unwrap();
            assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_fails_is_told_and_the_rest_is_done() {
        let done = AtomicUsize::new(0);
        let run = |number: &usize| {
            done.fetch_add(1, Ordering::Relaxed);
            if *number == 7 { Err("seven") } else { Ok(()) }
        };
        for count in [10, 1000] {
            done.store(0, Ordering::Relaxed);
            assert_eq!(for_each(&(0..count).collect::<Vec<_>>(), run), Err("seven"));
            assert_eq!(done.load(Ordering::Relaxed), count);
        }
    }
}
