//! What running programs use, whoever started them: their programs, libraries, open files, working directories and
//! environments. They are looked up once, when a collection begins, as stock Nix does.
#![expect(clippy::disallowed_methods, reason = "what runs is in /proc")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::super::LocalStore;
use crate::path::{HASH_PART_LENGTH, StorePath};

/// What is read of one file of a process; maps of 100,000 libraries are shorter.
const FILE_BYTES: u64 = 16 << 20;
/// Names longer than this are no store path's.
const NAME_BYTES: usize = HASH_PART_LENGTH + 1 + 211;

impl LocalStore {
    /// The objects that running processes use, as far as this user may see. Processes that end meanwhile use nothing.
    pub(super) fn running_roots(&self) -> BTreeSet<StorePath> {
        // As the kernel writes it in links, by no other name.
        let home = fs::canonicalize(&self.layout.home).unwrap_or_else(|_| self.layout.home.clone());
        let prefixes = [home.join("store").into_os_string().into_vec(), self.store_dir.as_str().as_bytes().to_vec()];
        let mut roots = BTreeSet::new();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            if process.file_name().as_bytes().iter().all(u8::is_ascii_digit) {
                look_at(&process.path(), &prefixes, &mut roots);
            }
        }
        roots
    }
}

/// Adds what one process uses. Whatever cannot be read is another user's, or gone.
fn look_at(process: &Path, prefixes: &[Vec<u8>], roots: &mut BTreeSet<StorePath>) {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    let links = ["exe", "cwd", "root"].map(|name| process.join(name));
    for target in links.into_iter().chain(descriptors).filter_map(|link| fs::read_link(link).ok()) {
        find(target.as_os_str().as_bytes(), prefixes, roots);
    }
    for name in ["maps", "environ"] {
        let mut text = Vec::new();
        // What was read before a failure counts too.
        let _ = File::open(process.join(name)).and_then(|file| file.take(FILE_BYTES).read_to_end(&mut text));
        find(&text, prefixes, roots);
    }
}

/// Adds the store paths below one of the prefixes that a text speaks of.
fn find(text: &[u8], prefixes: &[Vec<u8>], roots: &mut BTreeSet<StorePath>) {
    for prefix in prefixes {
        let mut rest = text;
        while let Some(at) = position(rest, prefix) {
            rest = &rest[at + prefix.len()..];
            let Some(name) = rest.strip_prefix(b"/") else { continue };
            let length = name.iter().take(NAME_BYTES).take_while(|byte| is_name_byte(**byte)).count();
            let path = std::str::from_utf8(&name[..length]).ok().and_then(|name| StorePath::parse_base_name(name).ok());
            roots.extend(path);
        }
    }
}

fn position(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|byte| *byte == first) {
        if text[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_' | b'?' | b'=')
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::super::super::fixture::{Home, file, path, register};
    use super::super::Policy;
    use super::*;

    #[test]
    fn paths_are_found_wherever_they_end() {
        let [a, b, c] = [1, 2, 3].map(|digit| path(digit, "p-1.0"));
        let text = format!(
            "PATH=/nix/store/{a}/bin:/nix/store/{b}:/nix/store\0x=/nix/store/.links /home/store/{c} (deleted)\n/nix/store/"
        );
        let mut roots = BTreeSet::new();
        find(text.as_bytes(), &[b"/nix/store".to_vec(), b"/home/store".to_vec()], &mut roots);
        assert_eq!(roots, [a, b, c].into());
        find(b"", &[b"/nix/store".to_vec()], &mut roots);
        find(b"/nix/stor", &[b"/nix/store".to_vec()], &mut roots);
        assert_eq!(roots.len(), 3);
    }

    fn stop(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_runs_keeps_its_program_its_files_and_what_its_environment_names() {
        let home = Home::new();
        let store = home.open();
        let [program, input, named, dead] = [11, 12, 13, 14].map(|digit| path(digit, "running"));
        for object in [&program, &input, &named, &dead] {
            register(&store, file(&store, object, "", &[]));
        }
        drop(store);
        // A copy of a program in the place of an object; only what lies there matters.
        let place = home.open().physical_path(&program);
        fs::remove_file(&place).unwrap();
        fs::copy("/bin/sleep", &place).unwrap();
        let store = home.open();
        let child = Command::new(&place)
            .arg0("sleep")
            .arg("1000")
            .env("X", format!("a:/nix/store/{named}/bin"))
            .stdin(File::open(store.physical_path(&input)).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let dead_now = || {
            let garbage = store.find_garbage(&Policy::default()).unwrap();
            garbage.objects.into_iter().map(|object| object.path).collect::<BTreeSet<_>>()
        };
        let found = dead_now();
        let refused = store.delete_dead(std::slice::from_ref(&input));
        stop(child);
        assert_eq!(found, [dead.clone()].into());
        assert!(refused.unwrap_err().to_string().contains("a running program"));
        assert_eq!(dead_now(), [program, input, named, dead].into());
    }
}
