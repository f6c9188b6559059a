//! What is added to the stores: the same bytes on every machine.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Numbers that do not repeat, nor compress.
#[derive(Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        buffer.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]));
    }
}

/// A tree of small files, a hundred to a directory, of 1.6 kB on average; one in ten is executable.
pub(crate) fn small_files(root: &Path, count: usize) {
    let mut noise = Noise::new(count as u64);
    let mut content = [0; 3200];
    for number in 0..count {
        let directory = root.join(format!("directory-{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&directory).expect("a directory");
        }
        let length = (noise.next() % content.len() as u64) as usize;
        noise.fill(&mut content[..length]);
        let path = directory.join(format!("file-{number}"));
        fs::write(&path, &content[..length]).expect("a file");
        if number % 10 == 0 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is there");
        }
    }
}

/// A file of noise.
pub(crate) fn large_file(path: &Path, mebibytes: usize) {
    let (mut noise, mut buffer) = (Noise::new(1), vec![0; 1 << 20]);
    let mut file = File::create(path).expect("a file");
    for _ in 0..mebibytes {
        noise.fill(&mut buffer);
        file.write_all(&buffer).expect("the disk has room");
    }
}

/// So many files of one line, in one directory; their paths.
pub(crate) fn lines(root: &Path, count: usize) -> Vec<String> {
    fs::create_dir_all(root).expect("a directory");
    let file = |number| {
        let path = root.join(format!("object-{number}"));
        fs::write(&path, format!("the content of object {number}\n")).expect("a file");
        path.display().to_string()
    };
    (0..count).map(file).collect()
}

/// Removes a tree in which directories may be read-only.
pub(crate) fn remove(root: &Path) {
    // What a store holds may not be written; root does not mind.
    if fs::remove_dir_all(root).is_ok() {
        return;
    }
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let _ = fs::set_permissions(&directory, fs::Permissions::from_mode(0o700));
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        directories.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
    }
    let _ = fs::remove_dir_all(root);
}
