//! What the cases work with: an engine, a small root tree made from the host's own programs, and specs.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ampoule_eval::sandbox::{
    Builder, Bytes, Conditions, Embedded, Engine, EngineError, Exit, Input, Limits, Outcome, Root, Spec,
};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};

pub(crate) const OUT: &str = "/nix/store/00000000000000000000000000000000-out";

/// Programs of the host that scripts in the sandbox use.
const PROGRAMS: [&str; 21] = [
    "sh", "cat", "chmod", "date", "env", "head", "id", "ln", "ls", "mkdir", "mktemp", "nproc", "od", "readlink", "rm",
    "sleep", "sort", "touch", "true", "uname", "setsid",
];

pub(crate) struct Workshop {
    pub(crate) engine: Embedded,
    tree: OnceLock<PathBuf>,
    directory: tempfile::TempDir,
}

/// A finished run and its log.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) outcome: Outcome,
    pub(crate) log: String,
}

impl Workshop {
    /// Works in a new directory below `base`.
    pub(crate) fn open(engine: Embedded, base: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("sandbox-cases").tempdir_in(base).unwrap();
        Self { engine, tree: OnceLock::new(), directory }
    }

    /// A new path for a case's own files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A tree with a shell and a few programs, and with none of the mount points a sandbox needs.
    pub(crate) fn tree(&self) -> &Path {
        self.tree.get_or_init(|| {
            let tree = self.path("tree");
            let mut files = BTreeSet::new();
            for name in PROGRAMS {
                let program = ["/usr/bin", "/bin"].map(|directory| Path::new(directory).join(name));
                let program = program.into_iter().find(|path| path.exists()).expect("the host has this program");
                let libraries = Command::new("ldd").arg(&program).output().unwrap().stdout;
                let libraries = String::from_utf8(libraries).unwrap();
                files.extend(libraries.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
                files.insert(Path::new("/usr/bin").join(name));
            }
            for file in files {
                let merged = if file.starts_with("/usr") { file.clone() } else { join("/usr", &file) };
                let target = join(&tree, &merged);
                fs::create_dir_all(target.parent().unwrap()).unwrap();
                fs::copy(fs::canonicalize(&file).unwrap(), target).unwrap();
            }
            for name in ["bin", "lib", "lib64"] {
                std::os::unix::fs::symlink(format!("usr/{name}"), tree.join(name)).unwrap();
            }
            fs::create_dir(tree.join("etc")).unwrap();
            fs::write(tree.join("etc/passwd"), "of the tree").unwrap();
            fs::write(tree.join("etc/marker"), "of the tree").unwrap();
            tree
        })
    }

    /// A spec that calls one of the builtins of these tests.
    pub(crate) fn builtin(&self, name: &str) -> Spec {
        Spec {
            root: Root::Empty,
            inputs: Vec::new(),
            store_dir: "/nix/store".into(),
            builder: Builder::Builtin { name: name.into(), out: OUT.into() },
            env: [("out", OUT)].map(|(key, value)| (Bytes::from(key), Bytes::from(value))).into(),
            build_files: Default::default(),
            limits: Limits { timeout_seconds: 60, output_bytes: 64 << 20, ..Limits::default() },
            conditions: Conditions::default(),
            disk: None,
        }
    }

    /// A spec that runs a program of the tree.
    pub(crate) fn exec(&self, program: &str, args: &[&str]) -> Spec {
        let args = args.iter().map(|argument| Bytes::from(*argument)).collect();
        let env = [("out", OUT), ("PATH", "/bin")].map(|(key, value)| (Bytes::from(key), Bytes::from(value)));
        Spec {
            root: Root::Tree(self.tree().to_owned()),
            builder: Builder::Exec { program: program.into(), args },
            env: env.into(),
            ..self.builtin("")
        }
    }

    /// A spec that runs a shell script.
    pub(crate) fn script(&self, script: &str) -> Spec {
        self.exec("/bin/sh", &["-euc", script])
    }

    pub(crate) fn run(&self, spec: &Spec) -> Result<Finished, EngineError> {
        let mut log = Vec::new();
        let outcome = self.engine.run(spec, &mut log)?;
        Ok(Finished { outcome, log: String::from_utf8_lossy(&log).into_owned() })
    }

    /// Runs what has to succeed; its log.
    pub(crate) fn succeed(&self, spec: &Spec) -> Finished {
        let finished = self.run(spec).unwrap_or_else(|error| panic!("{error}\nhint: {:?}", error.hint()));
        assert_eq!(finished.outcome.exit, Exit::Code(0), "log:\n{}", finished.log);
        finished
    }

    /// Runs what has to end in this way.
    pub(crate) fn end(&self, spec: &Spec, exit: Exit) -> Finished {
        let finished = self.run(spec).unwrap_or_else(|error| panic!("{error}\nhint: {:?}", error.hint()));
        assert_eq!(finished.outcome.exit, exit, "log:\n{}", finished.log);
        finished
    }

    /// Makes an input of these files.
    pub(crate) fn input(&self, name: &str, files: &[(&str, &str)]) -> Input {
        let source = self.path(name);
        fs::create_dir_all(&source).unwrap();
        for (path, content) in files {
            fs::create_dir_all(source.join(path).parent().unwrap()).unwrap();
            fs::write(source.join(path), content).unwrap();
        }
        Input { source, target: format!("/nix/store/11111111111111111111111111111111-{name}") }
    }
}

fn join(base: impl AsRef<Path>, absolute: &Path) -> PathBuf {
    base.as_ref().join(absolute.strip_prefix("/").unwrap())
}

impl Finished {
    /// The content of a file of the output.
    pub(crate) fn output(&self, path: &str) -> String {
        let name = OUT.rsplit('/').next().unwrap();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = if path.is_empty() { name.to_owned() } else { format!("{name}/{path}") };
        let file = openat(self.outcome.store.as_fd(), place.as_str(), flags, Mode::empty()).unwrap();
        let mut content = String::new();
        fs::File::from(file).read_to_string(&mut content).unwrap();
        content
    }

    /// The mode of an entry of the store directory.
    pub(crate) fn mode(&self, path: &str) -> Option<u32> {
        statat(self.outcome.store.as_fd(), path, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_mode)
    }
}

/// Numbers of the host's processes whose command line has this in it.
pub(crate) fn processes_with(marker: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_process = name.bytes().all(|byte| byte.is_ascii_digit());
        let line = if is_process { fs::read(entry.path().join("cmdline")).unwrap_or_default() } else { Vec::new() };
        if line.windows(marker.len()).any(|window| window == marker.as_bytes()) {
            found.push(name);
        }
    }
    found
}
