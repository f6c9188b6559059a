//! Making the files of a copy: gathered in batches that a second thread writes while the first reads and hashes.
//!
//! For small files most of the time goes into making them, so whichever thread is free does that. For a large file most
//! goes into hashing, so then the second thread copies and the first does nothing but hash. A small tree never sees a
//! second thread.

use std::ffi::CStr;
use std::mem;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use rustix::fs::{Advice, Mode, OFlags};
use rustix::io::Errno;

use super::copy::{Trouble, set_times, write_all};
use super::rewrite::Rewriter;
use crate::path::HASH_PART_LENGTH;

/// The bytes of file content handled at once.
pub(super) const CHUNK: usize = 256 * 1024;
/// The most files, and directories they are in, of a batch. The second keeps few descriptors open.
const FILES: usize = 256;
const FOLDERS: usize = 32;
/// The batches that may wait for the second thread, and the chunks on their way back from it.
const WAITING: usize = 3;
const CHUNKS: usize = 16;
/// From this size on a file is worth a thread.
const LARGE: u64 = 1 << 20;

/// What went wrong first, in any thread.
#[derive(Debug, Default)]
pub(super) struct Faults {
    first: Mutex<Option<(Trouble, Option<PathBuf>)>>,
    any: AtomicBool,
}

impl Faults {
    fn put(&self, trouble: Trouble, path: Option<PathBuf>) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert((trouble, path));
        self.any.store(true, Ordering::Release);
    }

    /// The first fault, and the path of the copy it is about, as far as that is known.
    pub(super) fn take(&self) -> Option<(Trouble, Option<PathBuf>)> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A directory of the copy that still gets files. Whoever is the last to have it finishes it, once it was left.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    is_root: bool,
    is_left: AtomicBool,
    faults: Arc<Faults>,
}

impl Folder {
    pub(super) fn new(directory: BorrowedFd<'_>, is_root: bool, faults: &Arc<Faults>) -> rustix::io::Result<Self> {
        let fd = rustix::io::fcntl_dupfd_cloexec(directory, 0)?;
        Ok(Self { fd, is_root, is_left: AtomicBool::new(false), faults: Arc::clone(faults) })
    }

    /// Says that nothing more is put into it.
    pub(super) fn leave(self: Arc<Self>) {
        self.is_left.store(true, Ordering::Release);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_left.load(Ordering::Acquire)
            && let Err(source) = finish_directory(self.fd.as_fd(), self.is_root)
        {
            self.faults.put(Trouble::Failed("finish the copy of", source), place_of(&self.fd, c"."));
        }
    }
}

/// Gives a directory that has all its entries its final form. The root of a tree stays writable, because moving a
/// directory elsewhere takes the right to write it.
pub(super) fn finish_directory(directory: BorrowedFd<'_>, is_root: bool) -> rustix::io::Result<()> {
    let mode = if is_root { 0o755 } else { 0o555 };
    rustix::fs::fchmod(directory, Mode::from_raw_mode(mode)).and_then(|()| set_times(directory))
}

/// Where a file of the copy is, for messages.
fn place_of(directory: &OwnedFd, name: &CStr) -> Option<PathBuf> {
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStringExt;
    let link = rustix::fs::readlink(format!("/proc/self/fd/{}", directory.as_raw_fd()), Vec::new()).ok()?;
    let directory = PathBuf::from(std::ffi::OsString::from_vec(link.into_bytes()));
    Some(directory.join(std::ffi::OsString::from_vec(name.to_bytes().to_vec())))
}

/// Files that are read and not yet written.
#[derive(Debug, Default)]
struct Batch {
    folders: Vec<Arc<Folder>>,
    files: Vec<Pending>,
    /// Each with a NUL after it.
    names: Vec<u8>,
    /// Grows as needed; so many bytes are used.
    content: Vec<u8>,
    used: usize,
}

#[derive(Debug)]
struct Pending {
    folder: usize,
    name: Range<usize>,
    content: Range<usize>,
    executable: bool,
}

impl Batch {
    /// Makes the files and is empty again.
    fn write(&mut self, modes_are_kept: bool, faults: &Faults) {
        for file in &self.files {
            let name = CStr::from_bytes_with_nul(&self.names[file.name.clone()]).expect("stored with its NUL");
            let folder = &self.folders[file.folder];
            let content = &self.content[file.content.clone()];
            let made = create(folder.fd.as_fd(), name, file.executable).and_then(|output| {
                write_all(&output, content).map_err(Trouble::failed("write the copy of"))?;
                finish_file(&output, file.executable, modes_are_kept)
            });
            if let Err(trouble) = made {
                faults.put(trouble, place_of(&folder.fd, name));
                break;
            }
        }
        self.files.clear();
        self.names.clear();
        self.used = 0;
        // Last, since this may finish directories.
        self.folders.clear();
    }
}

/// Makes a file of the copy, which must not exist.
pub(super) fn create(directory: BorrowedFd<'_>, name: &CStr, executable: bool) -> Result<OwnedFd, Trouble> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, file_mode(executable)).map_err(Trouble::failed("create the copy of"))
}

/// Gives a file its final mode and time.
pub(super) fn finish_file(file: &OwnedFd, executable: bool, modes_are_kept: bool) -> Result<(), Trouble> {
    let mode = || if modes_are_kept { Ok(()) } else { rustix::fs::fchmod(file, file_mode(executable)) };
    mode().and_then(|()| set_times(file.as_fd())).map_err(Trouble::failed("finish the copy of"))
}

fn file_mode(executable: bool) -> Mode {
    Mode::from_raw_mode(if executable { 0o555 } else { 0o444 })
}

/// After so many bytes of a large file, the disk is told to begin writing them.
const WRITE_BACK: u64 = 8 << 20;

/// A file that is copied piece by piece. The last bytes of each piece wait for the next one while a hash part may go on
/// there.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
    pub(super) rewriter: &'a Rewriter,
    /// The bytes that are still to be read, if the file is as long as it was.
    pub(super) unread: u64,
    pub(super) held: Vec<u8>,
}

impl Stream<'_> {
    /// Copies the next piece and leaves it in `chunk`; `false` after the last one.
    fn step(&mut self, chunk: &mut Vec<u8>) -> Result<bool, Trouble> {
        let withheld = if self.rewriter.is_empty() { 0 } else { HASH_PART_LENGTH - 1 };
        let held = self.held.len();
        // One byte more than there should be tells that there are no more; so small files need but a small buffer.
        let length = usize::try_from(self.unread).map_or(CHUNK, |unread| CHUNK.min(held + unread + 1));
        chunk.resize(length, 0);
        chunk[..held].copy_from_slice(&self.held);
        let wanted = length - held;
        let read = read_some(&self.input, &mut chunk[held..]).map_err(Trouble::failed("read"))?;
        self.unread = self.unread.checked_sub(read as u64).ok_or(Trouble::Changed)?;
        let is_end = read == 0 || (read < wanted && self.unread == 0);
        let filled = held + read;
        self.rewriter.rewrite(&mut chunk[..filled]);
        let ready = filled - if is_end { 0 } else { withheld.min(filled) };
        self.held.clear();
        self.held.extend_from_slice(&chunk[ready..filled]);
        chunk.truncate(ready);
        write_all(&self.output, chunk).map_err(Trouble::failed("write the copy of"))?;
        if is_end && self.unread > 0 { Err(Trouble::Changed) } else { Ok(!is_end) }
    }

    /// Copies all of it in this thread.
    fn run(mut self, mut take: impl FnMut(&[u8]) -> Result<(), Trouble>) -> Result<OwnedFd, Trouble> {
        let mut chunk = Vec::new();
        loop {
            let goes_on = self.step(&mut chunk)?;
            take(&chunk)?;
            if !goes_on {
                return Ok(self.output);
            }
        }
    }
}

pub(super) fn read_some(input: &OwnedFd, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    rustix::io::retry_on_intr(|| rustix::io::read(input, &mut *buffer))
}

/// What the second thread is given.
enum Job<'env> {
    Files(Batch),
    Stream { stream: Stream<'env>, pieces: SyncSender<Piece>, spare: Receiver<Vec<u8>> },
}

/// What comes back of a stream.
enum Piece {
    Content(Vec<u8>),
    End(Result<OwnedFd, Trouble>),
}

/// Where the first thread leaves files.
pub(super) struct Deposit<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    faults: Arc<Faults>,
    modes_are_kept: bool,
    batch: Batch,
    helper: Option<Helper<'scope, 'env>>,
}

struct Helper<'scope, 'env> {
    jobs: SyncSender<Job<'env>>,
    empty: Receiver<Batch>,
    thread: ScopedJoinHandle<'scope, ()>,
}

impl<'scope, 'env> Deposit<'scope, 'env> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, modes_are_kept: bool) -> Self {
        Self { scope, faults: Arc::default(), modes_are_kept, batch: Batch::default(), helper: None }
    }

    pub(super) const fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// Room for a file of so many bytes and one more, which must be fewer than [`CHUNK`].
    pub(super) fn room(&mut self, size: usize) -> Result<&mut [u8], Trouble> {
        let batch = &self.batch;
        if size >= CHUNK - batch.used || batch.files.len() >= FILES || batch.folders.len() >= FOLDERS {
            self.flush();
            if self.faults.any.load(Ordering::Acquire) {
                // Only stops this thread: what is reported is the fault itself.
                return Err(Trouble::Failed("write the copy of", Errno::CANCELED));
            }
        }
        let Batch { content, used, .. } = &mut self.batch;
        let end = *used + size + 1;
        if content.len() < end {
            content.resize(end.max(CHUNK.min(content.len() * 2)), 0);
        }
        Ok(&mut content[*used..end])
    }

    /// Puts a file in a directory, with the content that lies in the room.
    pub(super) fn put(&mut self, folder: Arc<Folder>, name: &CStr, executable: bool, size: usize) {
        let batch = &mut self.batch;
        if batch.folders.last().is_none_or(|last| !Arc::ptr_eq(last, &folder)) {
            batch.folders.push(folder);
        }
        let start = batch.names.len();
        batch.names.extend_from_slice(name.to_bytes_with_nul());
        batch.files.push(Pending {
            folder: batch.folders.len() - 1,
            name: start..batch.names.len(),
            content: batch.used..batch.used + size,
            executable,
        });
        batch.used += size;
    }

    /// Copies a file of any size; `take` is given its content.
    pub(super) fn stream(
        &mut self,
        stream: Stream<'env>,
        executable: bool,
        mut take: impl FnMut(&[u8]) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let output = if stream.unread < LARGE { stream.run(take)? } else { self.stream_apart(stream, &mut take)? };
        finish_file(&output, executable, self.modes_are_kept)
    }

    fn stream_apart(
        &mut self,
        stream: Stream<'env>,
        take: &mut impl FnMut(&[u8]) -> Result<(), Trouble>,
    ) -> Result<OwnedFd, Trouble> {
        let (pieces, arriving) = sync_channel(CHUNKS);
        let (spent, spare) = sync_channel(CHUNKS);
        (0..CHUNKS).for_each(|_| drop(spent.try_send(Vec::with_capacity(CHUNK))));
        let job = Job::Stream { stream, pieces, spare };
        self.helper().jobs.send(job).map_err(|_| Trouble::Failed("copy", Errno::PIPE))?;
        for piece in arriving {
            match piece {
                Piece::Content(chunk) => {
                    take(&chunk)?;
                    let _ = spent.try_send(chunk);
                }
                Piece::End(result) => return result,
            }
        }
        Err(Trouble::Failed("copy", Errno::PIPE))
    }

    /// Has the batch written: by the second thread, or by this one if that has enough to do.
    fn flush(&mut self) {
        let (modes_are_kept, faults) = (self.modes_are_kept, Arc::clone(&self.faults));
        let batch = mem::take(&mut self.batch);
        let helper = self.helper();
        self.batch = match helper.jobs.try_send(Job::Files(batch)) {
            Ok(()) => helper.empty.try_recv().unwrap_or_default(),
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => {
                let Job::Files(mut batch) = job else { unreachable!("it was a batch that was sent") };
                batch.write(modes_are_kept, &faults);
                batch
            }
        };
    }

    /// Writes what is left and waits for the second thread.
    pub(super) fn finish(mut self) {
        self.batch.write(self.modes_are_kept, &self.faults);
        if let Some(Helper { jobs, thread, .. }) = self.helper.take() {
            drop(jobs);
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }

    fn helper(&mut self) -> &Helper<'scope, 'env> {
        let Self { scope, faults, modes_are_kept, helper, .. } = self;
        helper.get_or_insert_with(|| {
            let (jobs, given) = sync_channel(WAITING);
            let (emptied, empty) = sync_channel(WAITING + 1);
            let (faults, modes_are_kept) = (Arc::clone(faults), *modes_are_kept);
            let thread = scope.spawn(move || work(&given, &emptied, modes_are_kept, &faults));
            Helper { jobs, empty, thread }
        })
    }
}

/// What the second thread does.
fn work(given: &Receiver<Job<'_>>, emptied: &SyncSender<Batch>, modes_are_kept: bool, faults: &Faults) {
    for job in given {
        match job {
            Job::Files(mut batch) => {
                batch.write(modes_are_kept, faults);
                let _ = emptied.try_send(batch);
            }
            Job::Stream { mut stream, pieces, spare } => {
                let copied = copy_apart(&mut stream, &pieces, &spare);
                let _ = pieces.send(Piece::End(copied.map(|()| stream.output)));
            }
        }
    }
}

fn copy_apart(stream: &mut Stream<'_>, pieces: &SyncSender<Piece>, spare: &Receiver<Vec<u8>>) -> Result<(), Trouble> {
    let (mut begun, mut written) = (0, 0_u64);
    // An end of the channel means that the first thread gave up.
    while let Ok(mut chunk) = spare.recv() {
        let goes_on = stream.step(&mut chunk)?;
        written += chunk.len() as u64;
        if written - begun >= WRITE_BACK {
            // Lets the disk begin, so that the barrier finds little left to wait for. That is only an advice.
            let _ = rustix::fs::fadvise(&stream.output, begun, NonZeroU64::new(written - begun), Advice::DontNeed);
            begun = written;
        }
        if pieces.send(Piece::Content(chunk)).is_err() || !goes_on {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs::{self, File};
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::super::fixture::{Home, stage};
    use super::*;

    fn modes_and_times(root: &Path) {
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                let mode = if metadata.is_dir() { 0o40555 } else { 0o100_444 };
                assert_eq!((metadata.mode(), metadata.mtime()), (mode, 1), "{}", entry.path().display());
                if metadata.is_dir() {
                    directories.push(entry.path());
                }
            }
        }
    }

    /// More files and directories than batches take, and files of every size between them: each must be there, and each
    /// directory finished after its last file, by whichever thread.
    #[test]
    fn a_tree_of_many_batches_is_whole() {
        let home = Home::new();
        let store = home.open();
        let tree = home.sources().join("tree");
        for directory in 0..120 {
            let path = tree.join(format!("{directory}/inner"));
            fs::create_dir_all(&path).unwrap();
            for file in 0..directory % 13 {
                fs::write(path.join(file.to_string()), vec![b'x'; file * 100]).unwrap();
                fs::write(tree.join(format!("{directory}/{file}")), "beside").unwrap();
            }
        }
        for (number, size) in [CHUNK / 2 - 1, CHUNK / 2, CHUNK, 3 << 20, (LARGE + 1) as usize].into_iter().enumerate() {
            fs::write(tree.join(format!("{}/large", number * 20)), vec![b'y'; size]).unwrap();
        }
        fs::create_dir(tree.join("flat")).unwrap();
        for file in 0..FILES * 6 {
            fs::write(tree.join(format!("flat/{file}")), file.to_string()).unwrap();
        }
        let staged = stage(&store, &tree).unwrap();
        let expected = crate::nar::nar_hash(&tree).unwrap();
        assert_eq!((staged.nar_hash(), staged.nar_size()), (expected.sha256, expected.size));
        assert_eq!(crate::nar::nar_hash(&staged.path()).unwrap(), expected);
        modes_and_times(&staged.path());
    }

    #[test]
    fn a_deep_tree_with_files_is_whole() {
        let home = Home::new();
        let tree = home.sources().join("tree");
        let deep: std::path::PathBuf = std::iter::repeat_n("d", 300).collect();
        fs::create_dir_all(tree.join(&deep)).unwrap();
        for above in deep.ancestors() {
            fs::write(tree.join(above).join("a"), "before").unwrap();
            fs::write(tree.join(above).join("z"), "after").unwrap();
        }
        let staged = stage(&home.open(), &tree).unwrap();
        assert_eq!(crate::nar::nar_hash(&staged.path()).unwrap(), crate::nar::nar_hash(&tree).unwrap());
        modes_and_times(&staged.path());
    }

    #[test]
    fn the_first_fault_is_kept_and_stops_the_copy() {
        let directory = tempfile::tempdir().unwrap();
        let target = File::open(directory.path()).unwrap();
        let faults = std::thread::scope(|scope| {
            let mut deposit = Deposit::new(scope, true);
            let faults = Arc::clone(deposit.faults());
            let folder = Arc::new(Folder::new(target.as_fd(), false, &faults).unwrap());
            for _ in 0..2 {
                deposit.room(0).unwrap();
                deposit.put(Arc::clone(&folder), c"twice", false, 0);
            }
            folder.leave();
            let stopped = (0..FILES * 100).find_map(|number| {
                let folder = Arc::new(Folder::new(target.as_fd(), false, &faults).unwrap());
                let name = std::ffi::CString::new(number.to_string()).unwrap();
                deposit.room(0).map(drop).map(|()| deposit.put(folder, &name, false, 0)).err()
            });
            assert!(matches!(stopped, Some(Trouble::Failed(_, Errno::CANCELED))));
            deposit.finish();
            faults
        });
        let (trouble, place) = faults.take().unwrap();
        assert!(matches!(trouble, Trouble::Failed("create the copy of", Errno::EXIST)), "{trouble:?}");
        assert!(place.unwrap().ends_with("twice"));
    }
}
