//! What compilers, interpreters and archivers leak. They are this machine's own, copied into a root file system.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Blamed, Offender, Same, try_all};
use crate::harness::Workspace;

const fn leak(
    class: &'static str,
    needs: &'static str,
    script: &'static str,
    culprits: &'static [&'static str],
) -> Offender {
    Offender { class, needs, script, expected: Blamed(culprits) }
}

const fn innocent(class: &'static str, needs: &'static str, script: &'static str) -> Offender {
    Offender { class, needs, script, expected: Same }
}

const OFFENDERS: [Offender; 40] = [
    leak("date-macro", "gcc", "echo 'const char *d = __DATE__;' > a.c; gcc -c a.c -o $out", &["date"]),
    leak("time-macro", "gcc", "echo 'const char *d = __TIME__;' > a.c; gcc -c a.c -o $out", &["date"]),
    leak("timestamp-macro", "gcc", "echo 'const char *d = __TIMESTAMP__;' > a.c; gcc -c a.c -o $out", &["file-times"]),
    leak("time-in-a-static-archive", "ar", "echo x > member; ar crU $out member", &["file-times"]),
    leak(
        "owner-and-inode-free-archive",
        "ar",
        "echo x > member; ar crU $out member; ar t $out > /dev/null",
        &["file-times"],
    ),
    leak("name-and-time-in-gzip", "gzip", "echo x > member; gzip member; cp member.gz $out", &["file-times"]),
    leak("time-in-zip", "zip", "mkdir d; echo x > d/member; zip -qr $out.zip d; mv $out.zip $out", &["file-times"]),
    leak("time-in-gnu-tar", "tar", "mkdir d; echo x > d/member; tar cf $out d", &["file-times"]),
    leak(
        "order-in-gnu-tar",
        "tar",
        "mkdir d; for n in c a b; do echo > d/$n; done; tar cf $out --mtime=@1 d",
        &["directory-order"],
    ),
    leak(
        "order-in-zip",
        "zip",
        "mkdir d; for n in c a b; do echo > d/$n; done; touch -d @500000000 d d/*; TZ=UTC zip -qXr $out.zip d; mv $out.zip $out",
        &["directory-order"],
    ),
    leak(
        "time-in-pyc",
        "python3",
        "echo 'x = 1' > a.py; python3 -c \"import py_compile; py_compile.compile('a.py', cfile='a.pyc')\"; cp a.pyc $out",
        &["file-times"],
    ),
    leak("order-of-a-set", "python3", "python3 -c \"print({c for c in 'abcdefghij'})\" > $out", &["random"]),
    leak("hash-of-a-string", "python3", "python3 -c \"print(hash('a'))\" > $out", &["random"]),
    leak("uuid-of-python", "python3", "python3 -c \"import uuid; print(uuid.uuid4())\" > $out", &["random"]),
    leak("random-of-python", "python3", "python3 -c \"import random; print(random.random())\" > $out", &["random"]),
    leak(
        "temporary-name-of-python",
        "python3",
        "python3 -c \"import tempfile; print(tempfile.mkdtemp())\" > $out",
        &["random"],
    ),
    leak(
        "unsorted-listdir",
        "python3",
        "mkdir d; for n in c a b; do echo > d/$n; done; python3 -c \"import os; print(os.listdir('d'))\" > $out",
        &["directory-order"],
    ),
    leak(
        "unsorted-glob",
        "python3",
        "mkdir d; for n in c a b; do echo > d/$n; done; python3 -c \"import glob; print(glob.glob('d/*'))\" > $out",
        &["directory-order"],
    ),
    leak(
        "unsorted-walk",
        "python3",
        "python3 -c \"import os; print([n for _, _, n in os.walk('$tree')])\" > $out",
        &["directory-order"],
    ),
    leak("address-of-an-object", "python3", "python3 -c \"print(object())\" > $out", &["addresses"]),
    leak("date-of-python", "python3", "python3 -c \"import datetime; print(datetime.date.today())\" > $out", &["date"]),
    leak("time-of-python", "python3", "python3 -c \"import time; print(int(time.time()))\" > $out", &["date"]),
    leak(
        "platform-of-python",
        "python3",
        "python3 -c \"import platform; print(platform.release())\" > $out",
        &["kernel"],
    ),
    leak("processors-of-python", "python3", "python3 -c \"import os; print(os.cpu_count())\" > $out", &["processors"]),
    leak(
        "process-number-of-python",
        "python3",
        "python3 -c \"import os; print(os.getpid())\" > $out",
        &["process-numbers"],
    ),
    leak(
        "order-of-a-hash",
        "perl",
        "perl -e 'my %h = map { $_ => 1 } qw(a b c d e f g h); print join \",\", keys %h' > $out",
        &["random"],
    ),
    leak("time-of-perl", "perl", "perl -e 'print scalar localtime' > $out", &["date"]),
    leak(
        "compiled-pointer",
        "gcc",
        "printf '#include <stdio.h>\\nint main(void) { printf(\"%%p\\\\n\", (void *)main); return 0; }\\n' > a.c; gcc -pie -fPIE a.c -o a; ./a > $out",
        &["addresses"],
    ),
    leak(
        "stack-pointer",
        "gcc",
        "printf '#include <stdio.h>\\nint main(void) { int x; printf(\"%%p\\\\n\", (void *)&x); return 0; }\\n' > a.c; gcc a.c -o a; ./a > $out",
        &["addresses"],
    ),
    leak(
        "heap-pointer",
        "gcc",
        "printf '#include <stdio.h>\\n#include <stdlib.h>\\nint main(void) { printf(\"%%p\\\\n\", malloc(10)); return 0; }\\n' > a.c; gcc a.c -o a; ./a > $out",
        &["addresses"],
    ),
    leak(
        "uninitialised-memory",
        "gcc",
        "printf '#include <stdio.h>\\nint main(void) { volatile unsigned long x[64]; for (int i = 0; i < 64; i++) printf(\"%%lx\\\\n\", x[i]); return 0; }\\n' > a.c; gcc -O0 a.c -o a; ./a > $out",
        &["addresses", "random", "addresses+random", "random+addresses", "itself"],
    ),
    leak(
        "bytes-from-the-kernel",
        "gcc",
        "printf '#include <stdio.h>\\n#include <sys/auxv.h>\\nint main(void) { unsigned char *r = (unsigned char *)getauxval(AT_RANDOM); for (int i = 0; i < 16; i++) printf(\"%%02x\", r[i]); return 0; }\\n' > a.c; gcc a.c -o a; ./a > $out",
        &["random"],
    ),
    leak(
        "static-date",
        "gcc",
        "printf '#include <stdio.h>\\n#include <time.h>\\nint main(void) { printf(\"%%ld\\\\n\", (long)time(0)); return 0; }\\n' > a.c; gcc -static a.c -o a; ./a > $out",
        &["date"],
    ),
    leak(
        "static-uname",
        "gcc",
        "printf '#include <stdio.h>\\n#include <sys/utsname.h>\\nint main(void) { struct utsname u; uname(&u); puts(u.release); return 0; }\\n' > a.c; gcc -static a.c -o a; ./a > $out",
        &["kernel"],
    ),
    leak(
        "memory-of-sysinfo",
        "gcc",
        "printf '#include <stdio.h>\\n#include <sys/sysinfo.h>\\nint main(void) { struct sysinfo s; sysinfo(&s); printf(\"%%lu\\\\n\", s.totalram); return 0; }\\n' > a.c; gcc a.c -o a; ./a > $out",
        &["memory"],
    ),
    leak(
        "features-of-the-loader",
        "python3",
        "/lib64/ld-linux-x86-64.so.2 --help | grep -E 'v[234]|supported' > $out",
        &["processor-features"],
    ),
    leak(
        "missing-dependency",
        "make",
        "printf 'all: a b\\na:\\n\\tsleep 0.05; echo first > shared\\nb:\\n\\techo second >> shared\\n' > Makefile; make -s -j$NIX_BUILD_CORES all; cp shared $out",
        &["jobs", "scheduling", "itself", "processors"],
    ),
    leak("go-date", "go", "leaks date > $out", &["date"]),
    leak("go-random", "go", "leaks random > $out", &["random"]),
    leak("go-kernel", "go", "leaks kernel > $out", &["kernel"]),
];

const INNOCENT: [Offender; 13] = [
    innocent(
        "c-program",
        "gcc",
        "printf '#include <stdio.h>\\nint main(void) { puts(__FILE__); return 0; }\\n' > a.c; gcc -g -O2 a.c -o $out",
    ),
    innocent(
        "static-c-program",
        "gcc",
        "printf '#include <stdio.h>\\nint main(void) { puts(__FILE__); return 0; }\\n' > a.c; gcc -static -g a.c -o $out",
    ),
    innocent("build-id", "gcc", "echo 'int x;' > a.c; gcc -shared -fPIC -Wl,--build-id a.c -o $out"),
    innocent("static-archive", "gcc", "echo 'int x;' > a.c; gcc -c a.c; ar crD $out a.o"),
    innocent(
        "source-date-epoch",
        "gcc",
        "export SOURCE_DATE_EPOCH=1; echo 'const char *d = __DATE__ __TIME__;' > a.c; gcc -c a.c -o $out",
    ),
    innocent("gzip-without-a-name", "gzip", "echo x > member; gzip -n member; cp member.gz $out"),
    innocent(
        "canonical-tar",
        "tar",
        "mkdir d; for n in c a b; do echo > d/$n; done; tar cf $out --sort=name --mtime=@1 d",
    ),
    innocent(
        "copied-times",
        "tar",
        "mkdir d; echo x > d/a; touch -d @1000 d/a; cp -p d/a b; test $(stat -c %Y b) = 1000; cp -a d e; stat -c %Y e/a > $out",
    ),
    innocent(
        "checked-pyc",
        "python3",
        "echo 'x = 1' > a.py; python3 -c \"import py_compile; py_compile.compile('a.py', cfile='a.pyc', invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)\"; cp a.pyc $out",
    ),
    innocent(
        "sorted-listdir",
        "python3",
        "mkdir d; for n in c a b; do echo > d/$n; done; python3 -c \"import os; print(sorted(os.listdir('d')))\" > $out",
    ),
    innocent(
        "python-threads",
        "python3",
        "python3 -c \"
import threading, time
done = threading.Condition()
with done: done.wait(timeout=0.2)
t = threading.Thread(target=time.sleep, args=(0.1,)); t.start(); t.join()
print('ok')\" > $out",
    ),
    innocent(
        "make-is-incremental",
        "make",
        "printf 'b: a\\n\\techo made >> log; cp a b\\n' > Makefile; echo 1 > a; make -s b; make -s b; sleep 0.02; echo 2 > a; make -s b; test $(wc -l < log) = 2; cp b $out",
    ),
    innocent("go-program", "go", "leaks nothing > $out"),
];

/// Programs that every script may use.
const BASE: [&str; 24] = [
    "bash", "cat", "chmod", "cp", "date", "find", "grep", "head", "ls", "mkdir", "mktemp", "mv", "rm", "sed", "seq",
    "sleep", "sort", "stat", "tar", "test", "touch", "uname", "wc", "env",
];
const GO_PROGRAM: &str = r#"package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"crypto/rand"
)

func main() {
	switch os.Args[1] {
	case "date":
		fmt.Println(time.Now().Unix())
	case "random":
		b := make([]byte, 8)
		rand.Read(b)
		fmt.Println(b)
	case "kernel":
		var u syscall.Utsname
		syscall.Uname(&u)
		fmt.Println(u.Release)
	default:
		c := make(chan int)
		go func() { time.Sleep(20 * time.Millisecond); c <- 1 }()
		fmt.Println(<-c)
	}
}
"#;

/// A root file system made of this machine's programs.
struct Root {
    directory: PathBuf,
    has: BTreeSet<&'static str>,
}

impl Root {
    /// Copies what is there. `None`, with the reason on standard error, if not even the basics are.
    fn make(directory: PathBuf) -> Option<Self> {
        let mut root = Self { directory, has: BTreeSet::new() };
        fs::create_dir_all(root.directory.join("usr/bin")).unwrap();
        for name in ["bin", "lib", "lib64", "sbin"] {
            let _ = std::os::unix::fs::symlink(format!("usr/{name}"), root.directory.join(name));
        }
        let missing: Vec<&str> = BASE.into_iter().filter(|program| !root.add_program(program)).collect();
        if !missing.is_empty() || !Path::new("/usr/lib64").exists() && !Path::new("/lib64").exists() {
            skip(&format!("no usable programs on this machine: {missing:?}"));
            return None;
        }
        std::os::unix::fs::symlink("bash", root.directory.join("usr/bin/sh")).unwrap();
        for tool in ["gzip", "zip", "ar", "make", "perl"] {
            let found = root.add_program(tool);
            root.note(tool, found);
        }
        root.note("tar", true);
        let found = root.add_python();
        root.note("python3", found);
        let found = root.add_gcc();
        root.note("gcc", found);
        let found = root.add_go();
        root.note("go", found);
        Some(root)
    }

    fn note(&mut self, tool: &'static str, found: bool) {
        if found {
            self.has.insert(tool);
        } else {
            skip(&format!("classes of leaks that need `{tool}`, which is not installed or not as expected"));
        }
    }

    /// Copies `/usr/bin/NAME` and the libraries it loads.
    fn add_program(&self, name: &str) -> bool {
        let program = PathBuf::from("/usr/bin").join(name);
        program.exists() && self.add_file(&program)
    }

    fn add_file(&self, file: &Path) -> bool {
        let listed = Command::new("ldd").arg(file).output().map(|output| output.stdout).unwrap_or_default();
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
        libraries.chain([file.to_owned()]).all(|file| {
            let merged = if file.starts_with("/usr") { file.clone() } else { join("/usr", &file) };
            let target = join(&self.directory, &merged);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            target.exists() || fs::canonicalize(&file).and_then(|real| fs::copy(real, &target)).is_ok()
        })
    }

    /// Copies a directory, without what these patterns match.
    fn add_tree(&self, tree: &str, without: &[&str]) -> bool {
        let mut command = Command::new("tar");
        command.args(["c", "-h", "-C", "/"]).args(without.iter().map(|pattern| format!("--exclude={pattern}")));
        let packed = command.arg(tree.trim_start_matches('/')).output();
        let Ok(packed) = packed else { return false };
        let mut unpack = Command::new("tar");
        unpack.args(["x", "-C"]).arg(&self.directory).stdin(std::process::Stdio::piped());
        let Ok(mut child) = unpack.spawn() else { return false };
        child.stdin.take().unwrap().write_all(&packed.stdout).is_ok()
            && child.wait().is_ok_and(|status| status.success())
    }

    fn add_python(&self) -> bool {
        let ask = "import sys, sysconfig; print(sysconfig.get_path('stdlib'))";
        let said = Command::new("/usr/bin/python3").args(["-c", ask]).output();
        let Ok(said) = said else { return false };
        let library = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        library.starts_with("/usr/lib/python3")
            && self.add_program("python3")
            && self.add_tree(
                &library,
                &["test", "tests", "idlelib", "dist-packages", "config-*", "__pycache__", "tkinter"],
            )
    }

    fn add_gcc(&self) -> bool {
        let ask = |argument: &str| {
            let said = Command::new("/usr/bin/gcc").arg(argument).output().ok()?;
            Some(String::from_utf8_lossy(&said.stdout).trim().to_owned())
        };
        let (Some(compiler), Some(start)) = (ask("-print-prog-name=cc1"), ask("-print-file-name=crt1.o")) else {
            return false;
        };
        let (compiler, start) = (PathBuf::from(compiler), PathBuf::from(start));
        if !compiler.starts_with("/usr/lib") || !start.starts_with("/") {
            return false;
        }
        let own = compiler.parent().unwrap();
        let Ok(libraries) = fs::canonicalize(start.parent().unwrap()) else { return false };
        let programs = ["gcc", "as", "ld", "ar", "ranlib"].iter().all(|program| self.add_program(program));
        let passes = ["cc1", "collect2"].iter().all(|program| self.add_file(&own.join(program)));
        let excluded =
            ["cc1plus", "lto1", "lto-wrapper", "plugin", "*.a.bak", "libasan*", "libtsan*", "libubsan*", "liblsan*"];
        let parts = fs::read_dir(&libraries).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.ends_with(".o")
                || matches!(
                    &*name,
                    "libc.so" | "libc.a" | "libc_nonshared.a" | "libc.so.6" | "libgcc_s.so.1" | "libm.so.6"
                )
        });
        let parts = parts.into_iter().all(|path| self.add_file(&path));
        programs
            && passes
            && parts
            && self.add_tree(own.to_str().unwrap(), &excluded)
            && self.add_tree("/usr/include", &["c++", "python*"])
    }

    /// Builds a program that leaks, with the Go of this machine.
    fn add_go(&self) -> bool {
        let source = self.directory.with_extension("go");
        fs::create_dir_all(&source).unwrap();
        fs::write(source.join("leaks.go"), GO_PROGRAM).unwrap();
        let mut command = Command::new("go");
        command.args(["build", "-o"]).arg(self.directory.join("usr/bin/leaks")).arg("leaks.go").current_dir(&source);
        // No network, and a cache that later runs of this test use too.
        command.env("GOFLAGS", "-mod=mod").env("GOPROXY", "off").env("CGO_ENABLED", "0");
        command.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache"));
        command.output().is_ok_and(|output| output.status.success())
    }

    /// Packs it, and gives the recipe that unpacks it and defines `build`.
    fn header(&self, archives: &Path) -> String {
        fs::create_dir_all(archives).unwrap();
        let archive = archives.join("host-tools.tar");
        let packed = Command::new("tar").arg("cf").arg(&archive).arg("-C").arg(&self.directory).arg(".").status();
        assert!(packed.unwrap().success());
        let sum = Command::new("sha256sum").arg(&archive).output().unwrap().stdout;
        let sum = String::from_utf8(sum).unwrap()[..64].to_owned();
        format!(
            r#"load("@prelude//:fetch.star", "fetch")
archive = fetch(name = "host-tools.tar", urls = ["https://index.example/host-tools.tar"], sha256 = "{sum}")
root = derivation(name = "root", system = "x86_64-linux", builder = "builtin:unpack-v1", env = {{"src": archive}}, target = False)
def run(name, script, **kwargs):
    return derivation(name = name, system = "x86_64-linux", builder = "/bin/sh", args = ["-euc", "PATH=/usr/bin\n" + script], rootfs = root, **kwargs)
tree = run(name = "tree", script = "mkdir $out; for name in b a d c; do echo > $out/$name; done", target = False)
def build(name, script):
    return run(name = name, script = script, env = {{"tree": tree}})
"#
        )
    }
}

fn join(base: impl AsRef<Path>, absolute: &Path) -> PathBuf {
    base.as_ref().join(absolute.strip_prefix("/").unwrap())
}

fn skip(reason: &str) {
    let _ = std::io::stderr().write_fmt(format_args!("skipped: {reason}\n"));
}

#[test]
fn leaks_of_compilers_interpreters_and_archivers_are_caught() {
    let workspace = Workspace::new();
    let Some(root) = Root::make(workspace.path().join("host")) else { return };
    let archives = workspace.path().join("archives");
    let header = root.header(&archives);
    let from = archives.to_str().unwrap();
    let arguments = ["--offline", "--from", from, "--cores", "2"];
    let all = OFFENDERS.iter().chain(&INNOCENT).filter(|offender| root.has.contains(offender.needs));
    try_all(&workspace, &header, &all.collect::<Vec<_>>(), &arguments);
}
