//! One of those who use the store: what it does, and what it may then rely on.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use crate::harness::{Ran, tools_files};

use super::shop::{OBJECTS, Object, Shop, TARGETS, dump, expected};

/// Why something that others may delete at any time was not there.
const ABSENT: [&str; 4] = ["is not valid", "is not in the store", "is not registered", "no store object"];
/// Why something is not deleted.
const NEEDED: [&str; 4] = ["keeps it", "refers to it", "in use", "is not valid"];

/// Pseudo-random numbers (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % limit as u64) as usize
    }
}

pub struct Worker<'a> {
    shop: &'a Shop,
    place: u64,
    numbers: Numbers,
    /// What it rooted by name.
    rooted: BTreeMap<String, usize>,
    /// What its link points to.
    linked: Option<usize>,
    /// An object of its own, rooted, that goes bad now and then.
    victim: (String, PathBuf),
}

impl<'a> Worker<'a> {
    pub fn new(shop: &'a Shop, place: u64, seed: u64) -> Self {
        let mut numbers = Numbers((seed << 8 | place).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        numbers.below(2);
        let source = shop.workspace.path().join(format!("sources/victim-{place}"));
        fs::write(&source, format!("victim {place}\n").repeat(300)).unwrap();
        let mut worker =
            Self { shop, place, numbers, rooted: BTreeMap::new(), linked: None, victim: (String::new(), source) };
        worker.victim.0 = loop {
            let path = worker.ok("add", &["store", "add", worker.victim.1.to_str().unwrap()]).text().to_owned();
            if worker.allowed("root", &["store", "roots", "add", &format!("victim-{place}"), &path], &ABSENT) {
                break path;
            }
        };
        worker.ok("push", &["copy", "--to", shop.cache(), &worker.victim.0]);
        worker
    }

    pub fn do_something(&mut self) {
        match self.numbers.below(24) {
            0..=3 => self.add(),
            4..=6 => self.build(),
            7..=8 => self.collect(),
            9 => self.verify(),
            10 => drop(self.ok("optimise", &["store", "optimise"])),
            11..=12 => self.delete(),
            13..=14 => self.repair(),
            15..=16 => self.root(),
            17 => self.unroot(),
            18..=19 => self.look(),
            20 => self.push(),
            21 => self.pull(),
            22 => self.ask(),
            _ => self.export_and_import(),
        }
        if let Some(target) = self.linked {
            self.check_link(target);
        }
    }

    fn run(&self, what: &'static str, arguments: &[&str]) -> Ran {
        self.shop.run(what, arguments, Stdio::null()).0
    }

    fn ok(&self, what: &'static str, arguments: &[&str]) -> Ran {
        let ran = self.run(what, arguments);
        if ran.code == 0 { ran } else { self.shop.fail(arguments, &ran) }
    }

    /// Runs what may fail for one of these reasons only, and tells whether it worked.
    fn allowed(&self, what: &'static str, arguments: &[&str], reasons: &[&str]) -> bool {
        let ran = self.run(what, arguments);
        if ran.code != 0 && !(ran.code == 1 && reasons.iter().any(|reason| ran.stderr.contains(reason))) {
            self.shop.fail(arguments, &ran);
        }
        ran.code == 0
    }

    fn object(&mut self) -> &'a Object {
        &self.shop.objects[self.numbers.below(OBJECTS)]
    }

    fn add(&mut self) {
        let object = self.object();
        let optimise: &[&str] = if self.numbers.below(3) == 0 { &["--optimise"] } else { &[] };
        let added = self.ok("add", &[&["store", "add", object.source.to_str().unwrap()], optimise].concat());
        assert_eq!(added.text(), object.path);
    }

    fn link(&self) -> PathBuf {
        self.shop.links().join(self.place.to_string())
    }

    fn build(&mut self) {
        if !self.shop.has_tools {
            return;
        }
        let target = self.numbers.below(TARGETS);
        let (label, link, from) = (format!("//:t{target}"), self.link(), tools_files().to_str().unwrap());
        let check: &[&str] = if self.numbers.below(4) == 0 { &["--check"] } else { &[] };
        let arguments = ["build", "--offline", "--from", from, "-o", link.to_str().unwrap(), &label];
        // While it is made, the link points to neither for sure.
        self.linked = None;
        self.ok("build", &[&arguments, check].concat());
        self.linked = Some(target);
    }

    fn check_link(&self, target: usize) {
        let link = self.link();
        let found = fs::read_to_string(&link);
        assert_eq!(found.ok().as_deref(), Some(&*expected(target)), "{} -> {:?}", link.display(), fs::read_link(&link));
    }

    fn collect(&mut self) {
        let policy: &[&str] = match self.numbers.below(5) {
            0 => &["--dry-run"],
            1 => &["--max-free", "5000"],
            2 => &["--delete-logs", "--keep-derivations=false"],
            3 => &["--keep-outputs"],
            _ => &[],
        };
        self.ok("gc", &[&["gc"], policy].concat());
    }

    /// Nothing is wrong but what was spoilt on purpose.
    fn verify(&self) {
        let ran = self.run("verify", &["store", "verify"]);
        if ran.stdout.lines().any(|line| !line.contains("-victim-")) || (ran.code != 0 && ran.stdout.is_empty()) {
            self.shop.fail(&["store", "verify"], &ran);
        }
    }

    fn delete(&mut self) {
        let path = match self.linked.filter(|_| self.numbers.below(4) == 0) {
            Some(_) => {
                let target = fs::read_link(self.link()).unwrap();
                format!("/nix/store/{}", target.file_name().unwrap().to_str().unwrap())
            }
            None => self.object().path.clone(),
        };
        self.allowed("delete", &["store", "delete", &path], &NEEDED);
    }

    fn repair(&mut self) {
        let (path, source) = (self.victim.0.clone(), self.victim.1.to_str().unwrap().to_owned());
        let file = self.shop.workspace.home().join("store").join(path.rsplit('/').next().unwrap());
        // Others may be repairing it at this moment, but nobody takes it away.
        let _ = fs::set_permissions(&file, fs::Permissions::from_mode(0o644));
        let spoilt = format!("spoilt {}\n", self.place).repeat(1 + self.numbers.below(900));
        fs::write(&file, spoilt).unwrap();
        match self.numbers.below(2) {
            0 => drop(self.ok("repair", &["store", "repair", &path, "--from", &source])),
            _ => {
                let arguments = ["store", "repair", "--all", "--substituter", self.shop.cache()];
                let ran = self.ok("repair", &arguments);
                if ran.stdout.lines().any(|line| !line.contains("-victim-")) {
                    self.shop.fail(&arguments, &ran);
                }
            }
        }
        assert_eq!(fs::read(&file).unwrap(), fs::read(&source).unwrap(), "{path}");
    }

    fn root(&mut self) {
        let number = self.numbers.below(OBJECTS);
        let name = format!("root-{}-{}", self.place, self.numbers.below(2));
        self.rooted.remove(&name);
        let arguments = ["store", "roots", "add", &name, &self.shop.objects[number].path];
        if self.allowed("root", &arguments, &ABSENT) {
            self.rooted.insert(name, number);
        }
    }

    fn unroot(&mut self) {
        if let Some((name, _)) = self.rooted.pop_first() {
            self.allowed("unroot", &["store", "roots", "remove", &name], &["there is no root"]);
        }
    }

    /// What is there is right, and what is rooted is there.
    fn look(&mut self) {
        let number = self.rooted.values().next().copied();
        let number = number.filter(|_| self.numbers.below(2) == 0);
        let object = &self.shop.objects[number.unwrap_or_else(|| self.numbers.below(OBJECTS))];
        let arguments = ["store", "dump", &object.path];
        let (ran, archive) = self.shop.run("dump", &arguments, Stdio::null());
        let is_absent = number.is_none() && ran.code == 1 && ABSENT.iter().any(|reason| ran.stderr.contains(reason));
        if !is_absent && (ran.code != 0 || archive != object.archive) {
            self.shop.fail(&arguments, &ran);
        }
    }

    fn push(&mut self) {
        let object = self.object();
        if self.allowed("push", &["copy", "--to", self.shop.cache(), &object.path], &ABSENT) {
            object.publish();
        }
    }

    fn pull(&mut self) {
        let object = self.object();
        if object.is_published() {
            self.ok("pull", &["copy", "--from", self.shop.cache(), &object.path]);
        }
    }

    fn ask(&mut self) {
        let object = self.object();
        let question = ["info", "closure", "referrers", "ls"][self.numbers.below(4)];
        self.allowed("ask", &["store", question, &object.path], &ABSENT);
    }

    fn export_and_import(&mut self) {
        let object = self.object();
        let arguments = ["store", "export", &object.path];
        let (ran, stream) = self.shop.run("export", &arguments, Stdio::null());
        if ran.code != 0 {
            if !ABSENT.iter().any(|reason| ran.stderr.contains(reason)) {
                self.shop.fail(&arguments, &ran);
            }
            return;
        }
        let file = self.shop.workspace.path().join(format!("stream-{}", self.place));
        fs::write(&file, stream).unwrap();
        let (ran, _) = self.shop.run("import", &["store", "import"], File::open(&file).unwrap().into());
        if ran.code != 0 || ran.text() != object.path {
            self.shop.fail(&["store", "import"], &ran);
        }
    }
}

impl Drop for Worker<'_> {
    /// What it rooted is still there at the end.
    fn drop(&mut self) {
        if std::thread::panicking() || self.shop.is_over() {
            return;
        }
        for number in self.rooted.values() {
            let object = &self.shop.objects[*number];
            assert_eq!(dump(&self.shop.workspace, &object.path), (0, object.archive.clone()), "{}", object.path);
        }
    }
}
