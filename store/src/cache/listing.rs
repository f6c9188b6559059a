//! `<hash part>.ls`: what an object holds and where in its archive, so that others can look without fetching it.
#![expect(clippy::disallowed_methods, reason = "looks at the tree that is listed")]

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::json;

/// The length of a token of so many bytes.
const fn token(length: u64) -> u64 {
    8 + length.div_ceil(8) * 8
}

/// The length of constant tokens, one after the other.
fn tokens(words: &[&str]) -> u64 {
    words.iter().map(|word| token(word.len() as u64)).sum()
}

/// Writes the listing of a tree as JSON, with the offsets that files have in its archive.
///
/// # Errors
/// When the tree cannot be read, or a name or link target is not UTF-8, which JSON cannot hold.
pub fn write_listing(tree: &Path, sink: &mut dyn Write) -> io::Result<()> {
    let mut offset = tokens(&["nix-archive-1"]);
    sink.write_all(b"{\"version\":1,\"root\":")?;
    let mut levels: Vec<Level> = Vec::new();
    let mut current = Some(tree.to_owned());
    loop {
        if let Some(path) = current.take()
            && let Some(level) = node(path, &mut offset, sink)?
        {
            levels.push(level);
        }
        let Some(level) = levels.last_mut() else { break };
        match level.names.next() {
            Some(name) => {
                let text = text(name.as_bytes())?;
                let comma = if std::mem::replace(&mut level.begun, true) { "," } else { "" };
                write!(sink, "{comma}{}:", json!(text))?;
                offset += tokens(&["entry", "(", "name", "node"]) + token(name.as_bytes().len() as u64);
                current = Some(level.path.join(&name));
            }
            None => {
                sink.write_all(b"}}")?;
                // The directory's own end, and that of the entry it is.
                offset += tokens(&[")"]);
                levels.pop();
                offset += if levels.is_empty() { 0 } else { tokens(&[")"]) };
            }
        }
    }
    sink.write_all(b"}")
}

/// A directory whose entries are being written.
struct Level {
    path: PathBuf,
    names: std::vec::IntoIter<OsString>,
    begun: bool,
}

/// Writes a file or link, or the start of a directory, whose level is given back.
fn node(path: PathBuf, offset: &mut u64, sink: &mut dyn Write) -> io::Result<Option<Level>> {
    let metadata = fs::symlink_metadata(&path)?;
    *offset += tokens(&["(", "type"]);
    if metadata.is_dir() {
        *offset += tokens(&["directory"]);
        sink.write_all(b"{\"type\":\"directory\",\"entries\":{")?;
        let mut names = fs::read_dir(&path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        return Ok(Some(Level { path, names: names.into_iter(), begun: false }));
    }
    let record = if metadata.is_symlink() {
        let target = fs::read_link(&path)?;
        let target = target.as_os_str().as_bytes();
        *offset += tokens(&["symlink", "target"]) + token(target.len() as u64);
        json!({ "type": "symlink", "target": text(target)? })
    } else {
        let executable = metadata.mode() & 0o100 != 0;
        *offset += tokens(&["regular", "contents"]) + if executable { tokens(&["executable", ""]) } else { 0 } + 8;
        let mut record = json!({ "type": "regular", "size": metadata.len(), "narOffset": *offset });
        if executable {
            record["executable"] = true.into();
        }
        *offset += token(metadata.len()) - 8;
        record
    };
    // The node's end, and that of the entry it is.
    *offset += tokens(&[")", ")"]);
    write!(sink, "{record}")?;
    Ok(None)
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_those_of_the_archive() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        fs::create_dir_all(tree.join("a/empty")).unwrap();
        fs::write(tree.join("a/one"), "first content").unwrap();
        fs::write(tree.join("b"), "second").unwrap();
        fs::set_permissions(tree.join("b"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("b\"", tree.join("c")).unwrap();
        fs::write(tree.join("d"), "third").unwrap();
        let mut archive = Vec::new();
        crate::nar::dump(&tree, &mut archive).unwrap();
        let mut text = Vec::new();
        write_listing(&tree, &mut text).unwrap();
        let listing: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(listing["version"], 1);
        let entries = &listing["root"]["entries"];
        let check = |entry: &serde_json::Value, content: &str| {
            let offset = usize::try_from(entry["narOffset"].as_u64().unwrap()).unwrap();
            assert_eq!(&archive[offset..offset + content.len()], content.as_bytes());
            assert_eq!(entry["size"], content.len());
        };
        check(&entries["a"]["entries"]["one"], "first content");
        check(&entries["b"], "second");
        check(&entries["d"], "third");
        assert_eq!(entries["b"]["executable"], true);
        assert_eq!(entries["c"], json!({ "type": "symlink", "target": "b\"" }));
        assert_eq!(entries["a"]["entries"]["empty"], json!({ "type": "directory", "entries": {} }));
    }
}
