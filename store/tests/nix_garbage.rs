//! Which of random graphs of derivations and outputs live and which are dead, by us and by the `nix-store` of the machine,
//! where there is one.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ampoule_store::content_address::{ContentAddress, Method, References};
use ampoule_store::hash::Sha256Digest;
use ampoule_store::local::{DerivationRow, LocalStore, OutputsOf, Policy, Registration};
use ampoule_store::path::{StoreDir, StorePath};

const GRAPHS: u64 = 4;
const DERIVATIONS: usize = 24;
const SOURCES: usize = 12;

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit
    }

    fn some(&mut self, from: &[StorePath], most: usize) -> BTreeSet<StorePath> {
        let count = if from.is_empty() { 0 } else { self.below(most + 1) };
        (0..count).map(|_| from[self.below(from.len())].clone()).collect()
    }
}

/// What is in both stores. Outputs are of fixed-output derivations, whose paths follow from nothing else.
#[derive(Default)]
struct Graph {
    objects: BTreeMap<StorePath, (BTreeSet<StorePath>, Option<StorePath>)>,
    derivations: BTreeMap<StorePath, (Vec<u8>, BTreeSet<StorePath>)>,
    outputs: BTreeMap<StorePath, StorePath>,
    /// References first.
    order: Vec<StorePath>,
}

impl Graph {
    fn random(random: &mut Random) -> Self {
        let mut graph = Self::default();
        let (mut objects, mut derivations): (Vec<StorePath>, Vec<StorePath>) = Default::default();
        for number in 0..SOURCES {
            let path = fixed(&format!("source-{number}"), random);
            graph.add_object(&path, random.some(&objects, 2), None);
            objects.push(path);
        }
        let sources = objects.clone();
        for number in 0..DERIVATIONS {
            let output = fixed(&format!("output-{number}"), random);
            let (inputs, files) = (random.some(&derivations, 3), random.some(&sources, 2));
            let derivation = graph.add_derivation(output.name(), &output, &inputs, &files);
            // Some are not built; of some nobody knows who built them.
            if random.below(4) > 0 {
                // Of a deriver that does not state the output Nix says one thing or the other, as it comes by.
                let deriver = (random.below(4) > 0).then(|| derivation.clone());
                graph.add_object(&output, random.some(&objects, 3), deriver);
                objects.push(output);
            }
            derivations.push(derivation);
        }
        graph
    }

    fn add_object(&mut self, path: &StorePath, references: BTreeSet<StorePath>, deriver: Option<StorePath>) {
        self.objects.insert(path.clone(), (references, deriver));
        self.order.push(path.clone());
    }

    fn add_derivation(
        &mut self,
        name: &str,
        output: &Fixed,
        inputs: &BTreeSet<StorePath>,
        files: &BTreeSet<StorePath>,
    ) -> StorePath {
        let store_dir = StoreDir::default();
        let quoted = |path: &StorePath| format!("\"{}\"", store_dir.display(path));
        let inputs_text: Vec<String> = inputs.iter().map(|input| format!("({},[\"out\"])", quoted(input))).collect();
        let files_text: Vec<String> = files.iter().map(quoted).collect();
        let shown = store_dir.display(output);
        let hash = digest(output.name()).to_hex();
        let text = format!(
            "Derive([(\"out\",\"{shown}\",\"sha256\",\"{hash}\")],[{}],[{}],\"x86_64-linux\",\"/bin/sh\",[],[(\"name\",\"{name}\"),(\"out\",\"{shown}\")])",
            inputs_text.join(","),
            files_text.join(","),
        );
        let references: BTreeSet<StorePath> = inputs.union(files).cloned().collect();
        let path = store_dir.text_path(&format!("{name}.drv"), text.as_bytes(), &references).unwrap();
        self.derivations.insert(path.clone(), (text.into_bytes(), references));
        self.outputs.insert(path.clone(), output.clone());
        self.order.push(path.clone());
        path
    }

    fn all(&self) -> BTreeSet<StorePath> {
        self.objects.keys().chain(self.derivations.keys()).cloned().collect()
    }
}

type Fixed = StorePath;

fn digest(name: &str) -> Sha256Digest {
    Sha256Digest::of(name.as_bytes())
}

/// The path of a file whose hash follows from its name.
fn fixed(name: &str, random: &mut Random) -> Fixed {
    let name = format!("{name}-{}", random.below(1000));
    let address = ContentAddress { method: Method::Flat, hash: digest(&name).into() };
    StoreDir::default().content_addressed_path(&name, &address, &References::default()).unwrap()
}

/// A private store of the machine's Nix with this graph; `None`, and a word about it, if there is no Nix.
struct Nix(tempfile::TempDir);

impl Nix {
    fn with(graph: &Graph) -> Option<Self> {
        if Command::new("nix-store").arg("--version").output().is_err() {
            let reason = format_args!("skipped: nix-store is not installed\n");
            let _ = std::io::stderr().write_fmt(reason);
            return None;
        }
        let nix = Self(tempfile::tempdir().unwrap());
        let store_dir = StoreDir::default();
        fs::create_dir_all(nix.inside("nix/store")).unwrap();
        let mut rows = String::new();
        for path in &graph.order {
            let (text, references, deriver) = match graph.objects.get(path) {
                Some((references, deriver)) => (&b""[..], references, deriver.as_ref()),
                None => (&graph.derivations[path].0[..], &graph.derivations[path].1, None),
            };
            fs::write(nix.inside("nix/store").join(path.base_name()), text).unwrap();
            let deriver = deriver.map_or_else(String::new, |deriver| store_dir.display(deriver));
            let head = [store_dir.display(path), Sha256Digest::ZERO.to_hex(), "100".to_owned(), deriver];
            rows.push_str(&format!("{}\n{}\n", head.join("\n"), references.len()));
            references.iter().for_each(|reference| rows.push_str(&format!("{}\n", store_dir.display(reference))));
        }
        let mut load = nix.command(&["--load-db"]).stdin(Stdio::piped()).spawn().unwrap();
        load.stdin.take().unwrap().write_all(rows.as_bytes()).unwrap();
        assert!(load.wait().unwrap().success());
        Some(nix)
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.0.path().join("root").join(path)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let home = self.0.path();
        let mut command = Command::new("nix-store");
        command.args(arguments).env("HOME", home).env("NIX_CONF_DIR", home.join("etc"));
        command.env("NIX_STORE_DIR", "/nix/store");
        command.env("NIX_REMOTE", format!("local?root={}", home.join("root").display()));
        command
    }

    fn set_roots(&self, roots: &BTreeSet<StorePath>) {
        let directory = self.inside("nix/var/nix/gcroots/random");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        for root in roots {
            symlink(StoreDir::default().display(root), directory.join(root.base_name())).unwrap();
        }
    }

    /// What `--print-live`, `--print-dead` or `--print-roots` says, as far as it is about this graph.
    fn says(
        &self,
        question: &str,
        keep_derivations: bool,
        keep_outputs: bool,
        all: &BTreeSet<StorePath>,
    ) -> BTreeSet<StorePath> {
        let options = [("keep-derivations", keep_derivations), ("keep-outputs", keep_outputs)];
        let mut command = self.command(&["--gc", question]);
        for (name, value) in options {
            command.args(["--option", name, if value { "true" } else { "false" }]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let last = text.lines().filter_map(|line| line.rsplit("/nix/store/").next());
        last.filter_map(|name| StorePath::parse_base_name(name).ok()).filter(|path| all.contains(path)).collect()
    }
}

/// Our store with this graph, its processes gone.
fn ours(home: &std::path::Path, graph: &Graph) -> LocalStore {
    let open = || LocalStore::open(home, StoreDir::default()).unwrap();
    let store = open();
    let registration =
        |path: &StorePath, (references, deriver): &(BTreeSet<StorePath>, Option<StorePath>)| Registration {
            staged: store.stage_bytes(b"").unwrap(),
            path: path.clone(),
            references: references.clone(),
            deriver: deriver.clone(),
            content_address: None,
        };
    store.register(graph.objects.iter().map(|(path, object)| registration(path, object)).collect()).unwrap();
    let row = |(path, (aterm, references)): (&StorePath, &(Vec<u8>, BTreeSet<StorePath>))| DerivationRow {
        path: path.clone(),
        aterm: aterm.clone(),
        references: references.clone(),
    };
    store.add_derivations(&graph.derivations.iter().map(row).collect::<Vec<_>>()).unwrap();
    drop(store);
    open()
}

#[test]
fn what_lives_and_what_is_dead_is_what_nix_says() {
    let (mut dead, mut live) = (0, 0);
    for seed in 1..=GRAPHS {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let graph = Graph::random(&mut random);
        let Some(nix) = Nix::with(&graph) else { return };
        let home = tempfile::tempdir().unwrap();
        let all = graph.all();
        let roots = random.some(&all.iter().cloned().collect::<Vec<_>>(), 5);
        nix.set_roots(&roots);
        let store = ours(home.path(), &graph);
        if !roots.is_empty() {
            store.add_root("random", &roots.iter().cloned().collect::<Vec<_>>()).unwrap();
        }
        // What sets a root protects it.
        drop(store);
        let store = LocalStore::open(home.path(), StoreDir::default()).unwrap();
        let kept: BTreeSet<StorePath> = store.roots().unwrap().into_iter().flat_map(|root| root.paths).collect();
        assert_eq!(nix.says("--print-roots", true, false, &all), kept, "seed {seed}");
        let outputs = |derivation: &StorePath, _: &[u8]| vec![graph.outputs[derivation].clone()];
        for (keep_derivations, outputs_too) in [(true, false), (false, false), (false, true), (true, true)] {
            let keep_outputs: Option<&OutputsOf<'_>> = if outputs_too { Some(&outputs) } else { None };
            let policy = Policy { keep_derivations, keep_outputs, ..Policy::default() };
            let garbage = store.find_garbage(&policy).unwrap();
            let objects = garbage.objects.iter().map(|object| object.path.clone());
            let found: BTreeSet<StorePath> = objects.chain(garbage.derivations).collect();
            let case =
                format!("seed {seed}, keep derivations {keep_derivations}, outputs {outputs_too}, roots {roots:?}");
            let theirs = nix.says("--print-dead", keep_derivations, outputs_too, &all);
            let only = |a: &BTreeSet<StorePath>, b: &BTreeSet<StorePath>| a.difference(b).cloned().collect::<Vec<_>>();
            let none: [StorePath; 0] = [];
            assert_eq!((only(&theirs, &found), only(&found, &theirs)), (none.to_vec(), none.to_vec()), "{case}");
            let rest: BTreeSet<StorePath> = all.difference(&found).cloned().collect();
            assert_eq!(nix.says("--print-live", keep_derivations, outputs_too, &all), rest, "{case}");
            (dead, live) = (dead + found.len(), live + rest.len());
        }
    }
    assert!(dead > 50 && live > 50, "{dead} dead and {live} live say little");
}
