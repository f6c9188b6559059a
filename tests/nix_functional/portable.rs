//! Derivations that we and stock Nix both build: their builder is an input, so that it runs in either sandbox.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use serde_json::Value;

use super::stock::Stock;
use crate::harness::{Ran, Workspace};

const PROGRAMS: [&str; 15] =
    ["cat", "chmod", "cp", "date", "env", "grep", "head", "kill", "ln", "mkdir", "rm", "sed", "sh", "sleep", "sort"];

/// What recipes have beside their own: `sh(name, script, ...)`, input-addressed unless told otherwise, with all programs.
const PRELUDE: &str = r#"
tools = derivation(
    name = "tools",
    system = "x86_64-linux",
    builder = "/bin/sh",
    output_hash = "TOOLS",
    output_hash_mode = "recursive",
    target = False,
)

def sh(name, script, content_addressed = False, **kwargs):
    return derivation(
        name = name,
        system = "x86_64-linux",
        builder = "%s/bin/sh" % tools,
        args = ["-euc", "PATH=%s/bin\n%s" % (tools, script)],
        content_addressed = content_addressed,
        **kwargs
    )
"#;

/// A workspace with such derivations, and stock Nix with what they need.
pub struct Portable {
    pub workspace: Workspace,
    pub stock: Stock,
}

/// What became of a derivation at both.
pub struct Both {
    pub ours: Ran,
    pub theirs: Ran,
}

impl Portable {
    /// `None`, and said on standard error, without a shell or without Nix.
    pub fn with(recipe: &str) -> Option<Self> {
        let workspace = Workspace::with_tools("")?;
        let stock = Stock::beside(&workspace)?;
        let tools = workspace.path().join("tools");
        fs::create_dir_all(tools.join("bin")).unwrap();
        let busybox = workspace.ok(&["build", "--quiet", "//tools:busybox"]).path().join("usr/bin/busybox");
        fs::copy(busybox, tools.join("bin/busybox")).unwrap();
        fs::set_permissions(tools.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
        for program in PROGRAMS {
            symlink("busybox", tools.join("bin").join(program)).unwrap();
        }
        let tools = tools.to_str().unwrap();
        let added = workspace.ok(&["store", "add", tools]).text().to_owned();
        let prelude = PRELUDE.replace("TOOLS", workspace.ok(&["store", "hash", tools]).text());
        workspace.write("BUILD.star", &format!("{prelude}{recipe}"));
        stock.take(&workspace, &[&added]);
        Some(Self { workspace, stock })
    }

    /// The logical paths of the target's outputs, by name; those that are known beforehand.
    pub fn outputs(&self, label: &str) -> BTreeMap<String, String> {
        let shown = self.workspace.ok(&["show", "--json", label]).json();
        let derivation = shown.as_object().unwrap().values().next().unwrap();
        let outputs = derivation["outputs"].as_object().unwrap().iter();
        outputs.filter_map(|(name, output)| Some((name.clone(), output["path"].as_str()?.to_owned()))).collect()
    }

    /// Builds a target with both, in this order.
    pub fn build(&self, label: &str, options: &[&str], their_options: &[&str]) -> Both {
        let ours = self.workspace.run(&[&["build", "--cores", "2", label], options].concat());
        let derivation = self.derivation(label);
        self.stock.take(&self.workspace, &[&derivation]);
        let theirs = self.stock.run("nix-store", &[&["--realise", &derivation], their_options].concat());
        Both { ours, theirs }
    }

    /// The logical path of the target's derivation, which is written as a file.
    pub fn derivation(&self, label: &str) -> String {
        let written = self.workspace.ok(&["show", "--write", label]).path();
        format!("/nix/store/{}", written.file_name().unwrap().to_str().unwrap())
    }

    /// Builds a target with both, and insists that all its outputs are the same, byte for byte.
    pub fn same(&self, label: &str) -> BTreeMap<String, PathBuf> {
        let Both { ours, theirs } = self.build(label, &[], &[]);
        assert_eq!(ours.code, 0, "{label}: {}", ours.stderr);
        assert_eq!(theirs.code, 0, "{label}: {}", theirs.stderr);
        let realised: Vec<&str> = theirs.stdout.lines().collect();
        let known = self.outputs(label);
        let outputs = if known.is_empty() {
            realised.iter().map(|path| ((*path).to_owned(), (*path).to_owned())).collect()
        } else {
            known
        };
        outputs.into_iter().map(|(name, path)| (name, self.same_object(&path))).collect()
    }

    /// Insists that an object is the same in both stores.
    pub fn same_object(&self, path: &str) -> PathBuf {
        let info = self.workspace.ok(&["store", "info", "--json", path]).json()[path].clone();
        let on_disk = PathBuf::from(info["onDisk"].as_str().unwrap());
        let dumped = crate::store::dump(&self.workspace, on_disk.to_str().unwrap());
        if dumped != self.stock.dump(path) {
            let theirs = self.stock.on_disk(path);
            panic!("{path} differs:\n{}\nstock Nix:\n{}", contents(&on_disk), contents(&theirs));
        }
        let references = self.stock.store(&["--query", "--references", path]);
        let mut theirs: Vec<&str> = references.lines().collect();
        theirs.sort_unstable();
        let ours: Vec<&str> = info["references"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
        assert_eq!(ours, theirs, "{path}");
        on_disk
    }
}

/// All files below a path, as text.
pub fn contents(path: &std::path::Path) -> String {
    let mut text = String::new();
    let mut pending = vec![path.to_owned()];
    while let Some(next) = pending.pop() {
        match fs::read_dir(&next) {
            Ok(entries) => pending.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => {
                let content = fs::read(&next).unwrap_or_default();
                text.push_str(&format!("--- {}\n{}\n", next.display(), String::from_utf8_lossy(&content)));
            }
        }
    }
    text
}
