//! Trees on disk, from golden vectors and from seeds.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde_json::Value;

/// The golden vectors of this kind, made with Nix 2.8.
pub fn vectors(kind: &str) -> Vec<Value> {
    let text = include_str!("../../../tests/vectors/nix/nix-vectors.json");
    let all: Value = serde_json::from_str(text).unwrap();
    let chosen: Vec<_> = all["vectors"].as_array().unwrap().iter().filter(|v| v["kind"] == kind).cloned().collect();
    assert!(!chosen.is_empty(), "no vectors of kind {kind}");
    chosen
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string"))
}

pub fn base64(value: &Value) -> Vec<u8> {
    BASE64.decode(text(value).as_bytes()).unwrap()
}

/// Makes the tree that a vector describes, and returns its path.
pub fn plant(vector: &Value, parent: &Path) -> PathBuf {
    let root = parent.join(text(&vector["input"]["name"]));
    let entries = vector["input"]["entries"].as_array().unwrap();
    for entry in entries {
        let path = place(&root, entry);
        match text(&entry["type"]) {
            "dir" => fs::create_dir(&path).unwrap(),
            "symlink" => std::os::unix::fs::symlink(text(&entry["target"]), &path).unwrap(),
            "file" => fs::write(&path, contents(entry)).unwrap(),
            other => panic!("unknown type {other}"),
        }
    }
    // Modes last, and from the inside: they may forbid what comes before.
    for entry in entries.iter().rev().filter(|entry| entry["type"] != "symlink") {
        let mode = match (entry["mode"].as_str(), entry["executable"].as_bool()) {
            (Some(mode), _) => u32::from_str_radix(mode, 8).unwrap(),
            (None, Some(true)) => 0o755,
            (None, Some(false)) => 0o644,
            (None, None) => continue,
        };
        fs::set_permissions(place(&root, entry), fs::Permissions::from_mode(mode)).unwrap();
    }
    root
}

fn place(root: &Path, entry: &Value) -> PathBuf {
    let path = match entry.get("path_b64") {
        Some(bytes) => base64(bytes),
        None => text(&entry["path"]).as_bytes().to_vec(),
    };
    if path.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(&path)) }
}

fn contents(entry: &Value) -> Vec<u8> {
    match (entry.get("text"), entry.get("b64"), entry.get("repeat_b64")) {
        (Some(contents), ..) => text(contents).as_bytes().to_vec(),
        (_, Some(contents), _) => base64(contents),
        (.., Some(unit)) => {
            let mut contents = base64(unit).repeat(usize::try_from(entry["times"].as_u64().unwrap()).unwrap());
            contents.extend(entry.get("suffix_b64").map(base64).unwrap_or_default());
            contents
        }
        _ => panic!("{entry} has no contents"),
    }
}

/// A small generator of numbers, so that a failing seed can be tried again.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    pub fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

/// Makes a tree of a few dozen entries at `path`, whose names share prefixes and are not always UTF-8.
pub fn grow(numbers: &mut Numbers, path: &Path, depth: u64) {
    match numbers.below(if depth == 0 { 8 } else { 12 }) {
        0 => std::os::unix::fs::symlink(OsStr::from_bytes(b"../target\xff"), path).unwrap(),
        1..8 => {
            let length = [0, 1, 7, 8, 9, 100, 5000, 70_000][usize::try_from(numbers.below(8)).unwrap()];
            fs::write(path, numbers.bytes(length)).unwrap();
            let mode = [0o644, 0o755, 0o444, 0o744, 0o654][usize::try_from(numbers.below(5)).unwrap()];
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        _ => {
            fs::create_dir(path).unwrap();
            for _ in 0..numbers.below(9) {
                let units = [&b"a"[..], b"A", b"-", b".", b"\xff", b"\xc3\xa9", b" ", b"~", b"0"];
                let length = 1 + numbers.below(4);
                let pick = |_| units[usize::try_from(numbers.below(9)).unwrap()];
                let name = (0..length).map(pick).collect::<Vec<_>>().concat();
                let below = path.join(OsStr::from_bytes(&name));
                if !matches!(&name[..], b"." | b"..") && !below.exists() && !below.is_symlink() {
                    grow(numbers, &below, depth - 1);
                }
            }
        }
    }
}
