//! Binary caches and signatures.

use std::fs;
use std::path::{Path, PathBuf};

use super::Case;
use super::stock::Stock;
use crate::caches::Served;
use crate::harness::Workspace;
use crate::store::{dump, write_tree};

pub const CASES: &[Case] = &[
    Case {
        number: 35,
        name: "binary-cache",
        covers: "copies both ways, in every compression that either writes; missing, broken and unsigned files are refused by both alike; what is wanted twice is downloaded once",
        tests: &[
            "tests/nix_functional/caches.rs::broken_caches_are_refused_by_both",
            "tests/nix_functional/caches.rs::archives_of_every_kind_are_read",
            "tests/nix_functional/caches.rs::what_nix_built_need_not_be_built",
            "tests/nix_functional/caches.rs::our_server_is_a_cache_to_nix",
            "tests/caches.rs::objects_go_through_directories_servers_and_homes",
            "tests/caches.rs::hostile_servers_are_refused_and_nothing_is_registered",
            "tests/transfers.rs::processes_that_want_the_same_fetch_it_once",
            "tests/transfers.rs::downloads_that_break_off_go_on_where_they_were",
        ],
        left_out: "",
    },
    Case {
        number: 36,
        name: "signing",
        covers: "each accepts the other's signatures, made on building or later; another key counts for nothing; what proves itself needs none; copies refuse the rest unless told otherwise",
        tests: &[
            "tests/nix_functional/caches.rs::signatures_of_both_count_for_both",
            "tests/caches.rs::keys_sign_and_signatures_are_verified",
            "tests/caches.rs::stock_nix_reads_what_we_write_and_we_what_it_writes",
        ],
        left_out: "",
    },
    Case {
        number: 37,
        name: "substitute-with-invalid-ca, multiple-outputs-substitute-failure",
        covers: "a content address that is another's, and one broken output of two: nothing false is registered, and the build is done instead",
        tests: &[
            "tests/nix_functional/caches.rs::a_false_content_address_is_refused_by_both",
            "tests/nix_functional/caches.rs::one_broken_output_of_two_is_built_instead",
            "store/src/cache/tests.rs::content_that_is_not_the_addresss_is_refused",
            "store/src/cache/tests.rs::false_announcements_are_refused",
        ],
        left_out: "",
    },
];

/// Two objects, the second of which refers to the first; neither proves itself.
const EXPRESSION: &str = r#"
let
  build = name: text: derivation {
    inherit name;
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [ "-c" "echo ${text} > $out" ];
  };
in build "upper" "refers to ${build "lower" "lower"}"
"#;

fn narinfo(cache: &Path, path: &str) -> PathBuf {
    cache.join(format!("{}.narinfo", &path["/nix/store/".len()..][..32]))
}

fn field(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
}

/// Changes a field of an object's narinfo, or leaves it out.
fn change(cache: &Path, path: &str, name: &str, value: Option<&str>) {
    let file = narinfo(cache, path);
    let text = fs::read_to_string(&file).unwrap();
    let start = format!("{name}: ");
    let changed = text.lines().filter_map(|line| match line.starts_with(&start) {
        true => value.map(|value| format!("{start}{value}\n")),
        false => Some(format!("{line}\n")),
    });
    fs::write(&file, changed.collect::<String>()).unwrap();
}

fn archive(cache: &Path, path: &str) -> PathBuf {
    cache.join(field(&fs::read_to_string(narinfo(cache, path)).unwrap(), "URL"))
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Both fetch an object from a cache, each into a new store; whether each has it in the end.
fn fetched(place: &str, path: &str, key: &str) -> [bool; 2] {
    let ours = Workspace::new();
    let ran = ours.run(&["copy", "--from", place, "--trusted-key", key, path]);
    let has = ours.run(&["store", "info", path]).code == 0;
    assert_eq!(ran.code == 0, has, "{}", ran.stderr);
    ours.verify_store();
    let stock = Stock::beside(&ours).unwrap();
    let place = if place.contains("://") { place.to_owned() } else { format!("file://{place}") };
    let options = ["--option", "substituters", &place, "--option", "trusted-public-keys", key];
    let ran = stock.run("nix-store", &[&["--realise", path], &options[..]].concat());
    assert_eq!(ran.code == 0, stock.has(path), "{}", ran.stderr);
    if has && ran.code == 0 {
        assert!(dump(&ours, path) == stock.dump(path));
    }
    [has, ran.code == 0]
}

/// Does this to the cache and to the path of its second object.
type Damage = fn(&Path, &str);

#[test]
fn broken_caches_are_refused_by_both() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let key = stock.sign_with("theirs-1");
    let upper = stock.build(EXPRESSION).remove(0);
    let cache = workspace.path().join("cache");
    stock.ok("nix", &["copy", "--to", &format!("file://{}?compression=xz", cache.display()), &upper]);
    assert_eq!(fetched(cache.to_str().unwrap(), &upper, &key), [true, true]);
    let other = workspace.ok(&["key", "generate", "other-1", workspace.path().join("other").to_str().unwrap()]);
    assert_eq!(fetched(cache.to_str().unwrap(), &upper, other.text()), [false, false], "another key");
    let damages: [(&str, Damage); 10] = [
        ("no narinfo", |cache, path| fs::remove_file(narinfo(cache, path)).unwrap()),
        ("no archive", |cache, path| fs::remove_file(archive(cache, path)).unwrap()),
        ("an empty archive", |cache, path| fs::write(archive(cache, path), "").unwrap()),
        ("half an archive", |cache, path| {
            let bytes = fs::read(archive(cache, path)).unwrap();
            fs::write(archive(cache, path), &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("another's archive", |cache, path| {
            let others = fs::read_dir(cache.join("nar")).unwrap().map(|entry| entry.unwrap().path());
            let own = archive(cache, path);
            fs::copy(others.into_iter().find(|file| *file != own).unwrap(), own).unwrap();
        }),
        ("no signature", |cache, path| change(cache, path, "Sig", None)),
        ("another hash", |cache, path| {
            change(cache, path, "NarHash", Some("sha256:0000000000000000000000000000000000000000000000000000"));
        }),
        ("another size", |cache, path| change(cache, path, "NarSize", Some("12345"))),
        ("other references", |cache, path| change(cache, path, "References", Some(""))),
        ("nonsense", |cache, path| fs::write(narinfo(cache, path), "nonsense").unwrap()),
    ];
    for (what, damage) in damages {
        let broken = workspace.path().join("broken");
        copy_tree(&cache, &broken);
        damage(&broken, &upper);
        assert_eq!(fetched(broken.to_str().unwrap(), &upper, &key), [false, false], "{what}");
        fs::remove_dir_all(&broken).unwrap();
    }
}

#[test]
fn archives_of_every_kind_are_read() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let tree = workspace.path().join("tree");
    write_tree(&tree);
    let path = stock.store(&["--add", tree.to_str().unwrap()]);
    let key = workspace.ok(&["key", "generate", "k-1", workspace.path().join("key").to_str().unwrap()]);
    for compression in ["none", "xz", "bzip2", "gzip", "zstd", "br"] {
        let cache = workspace.path().join(compression);
        stock.ok("nix", &["copy", "--to", &format!("file://{}?compression={compression}", cache.display()), &path]);
        assert_eq!(fetched(cache.to_str().unwrap(), &path, key.text()), [true, true], "{compression}");
        let bytes = fs::read(archive(&cache, &path)).unwrap();
        fs::write(archive(&cache, &path), &bytes[..bytes.len() - 9]).unwrap();
        // Stock Nix waits for ever for the rest of a Brotli stream.
        Workspace::new().fails(1, &["copy", "--from", cache.to_str().unwrap(), &path]);
        fs::write(archive(&cache, &path), bytes).unwrap();
        if compression == "bzip2" {
            change(&cache, &path, "Compression", None);
            assert_eq!(fetched(cache.to_str().unwrap(), &path, key.text()), [true, true], "nothing said is bzip2");
        }
    }
}

/// There is no `/bin/sh` in our sandbox, so that these cannot be built here.
const FLOATING: &str = r#"
SH = "/bin/sh"
lower = derivation(name = "lower", system = "x86_64-linux", builder = SH, args = ["-c", "echo lower > $out"])
derivation(
    name = "upper",
    system = "x86_64-linux",
    builder = SH,
    args = ["-c", "echo %s > $out; echo $out > $doc" % lower],
    outputs = ["out", "doc"],
)
"#;

#[test]
fn what_nix_built_need_not_be_built() {
    let workspace = Workspace::with(FLOATING);
    let Some(stock) = Stock::beside(&workspace) else { return };
    let key = stock.sign_with("theirs-1");
    let written = workspace.ok(&["show", "--write", "//:upper"]).path();
    let derivation = format!("/nix/store/{}", written.file_name().unwrap().to_str().unwrap());
    stock.take(&workspace, &[&derivation]);
    let outputs = stock.store(&["--realise", &derivation]);
    let cache = format!("file://{}", workspace.path().join("cache").display());
    stock.ok("nix", &["copy", "--to", &cache, &derivation]);
    assert!(fs::read_dir(workspace.path().join("cache/realisations")).unwrap().count() >= 2);

    let build = |workspace: &Workspace, more: &[&str]| {
        workspace.run(&[&["build", "//:upper", "--substituter", &cache], more].concat())
    };
    assert_eq!(build(&workspace, &[]).code, 100, "nobody vouches for it");
    let ran = build(&workspace, &["--trusted-key", &key]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.says(&["from a cache"]);
    let built = ran.text().rsplit('/').next().unwrap().to_owned();
    assert!(outputs.lines().any(|path| path.ends_with(&built)), "{built} {outputs}");
    for path in outputs.lines() {
        assert!(dump(&workspace, path) == stock.dump(path));
    }
    workspace.verify_store();
    // By the label, too.
    let other = Workspace::with(FLOATING);
    other.ok(&["copy", "--from", &cache, "--trusted-key", &key, "//:upper"]);
    assert_eq!(
        other.ok(&["build", "//:upper", "--trusted-key", &key, "--substituter", &cache]).text().rsplit('/').next(),
        Some(&*built)
    );
}

#[test]
fn our_server_is_a_cache_to_nix() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let tree = workspace.path().join("tree");
    write_tree(&tree);
    let path = workspace.ok(&["store", "add", tree.to_str().unwrap()]).text().to_owned();
    let file = workspace.path().join("key").to_str().unwrap().to_owned();
    let key = workspace.ok(&["key", "generate", "ours-1", &file]).text().to_owned();
    for (arguments, below) in [(&[][..], ""), (&[], "/zstd"), (&["--compression", "zstd"], ""), (&[], "/none")] {
        let served = Served::start(&workspace, &[&["--key", &file], arguments].concat());
        let place = format!("{}{below}", served.address);
        let info = stock.ok("nix", &["path-info", "--store", &place, "--json", "--sigs", &path]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        let ours = workspace.ok(&["store", "info", "--json", &path]).json()[&path].clone();
        for field in ["path", "narSize", "narHash", "ca"] {
            assert_eq!(info[0][field], ours[field], "{field}");
        }
        assert!(info[0]["signatures"][0].as_str().unwrap().starts_with("ours-1:"), "{info}");
        stock.store(&["--query", "--requisites", "--store", &place, &path]);
        let verify = ["store", "verify", "--store", &place, "--sigs-needed", "1", "--trusted-public-keys", &key, &path];
        stock.ok("nix", &verify);
        assert_eq!(fetched(&place, &path, &key), [true, true], "{below}");
        let root = Stock::at(&workspace.path().join(format!("client-{}", below.len() + 10 * arguments.len()))).unwrap();
        root.ok("nix", &["copy", "--from", &place, "--no-check-sigs", &path]);
        assert!(root.dump(&path) == dump(&workspace, &path));
        let listed = stock.ok("nix", &["store", "ls", "--store", &place, "--recursive", "--json", &path]);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed["entries"]["program"]["executable"], true, "{listed}");
        assert_eq!(stock.ok("nix", &["store", "cat", "--store", &place, &format!("{path}/b/file")]), "content");
    }
}

#[test]
fn signatures_of_both_count_for_both() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let theirs = stock.sign_with("theirs-1");
    let upper = stock.build(EXPRESSION).remove(0);
    let source = workspace.path().join("source");
    fs::write(&source, "source\n").unwrap();
    let source = stock.store(&["--add", source.to_str().unwrap()]);
    // Signed on building: accepted here, by its key only.
    let cache = format!("file://{}", workspace.path().join("cache").display());
    stock.ok("nix", &["copy", "--to", &cache, &upper, &source]);
    let ours = Workspace::new();
    let file = ours.path().join("key").to_str().unwrap().to_owned();
    let public = ours.ok(&["key", "generate", "ours-1", &file]).text().to_owned();
    ours.fails(1, &["copy", "--from", &cache, &upper]).says(&["no trusted key signed"]);
    ours.fails(1, &["copy", "--from", &cache, "--trusted-key", &public, &upper]);
    ours.ok(&["copy", "--from", &cache, &source]);
    ours.ok(&["copy", "--from", &cache, "--trusted-key", &theirs, &upper]);
    ours.ok(&["store", "verify-signatures", "--trusted-key", &theirs]);
    let unsigned = ours.fails(1, &["store", "verify-signatures", "--trusted-key", &public]).stdout;
    assert!(unsigned.contains(&upper) && !unsigned.contains(&source), "{unsigned}");
    // Signed by us as well: accepted there.
    ours.ok(&["store", "sign", "--key", &file, "--closure", &upper]);
    ours.ok(&["store", "verify-signatures", "--trusted-key", &public]);
    let directory = ours.path().join("cache");
    ours.ok(&["copy", "--to", directory.to_str().unwrap(), &upper]);
    let info = fs::read_to_string(narinfo(&directory, &upper)).unwrap();
    assert!(info.contains("\nSig: ours-1:") && info.contains("\nSig: theirs-1:"), "{info}");
    for (key, expected) in [(&public, true), (&theirs, true)] {
        assert_eq!(fetched(directory.to_str().unwrap(), &upper, key), [expected; 2]);
    }
    // Nobody's word is taken only when that is asked for.
    change(&directory, &upper, "Sig", None);
    change(&directory, &upper, "Sig", None);
    let trusting = Workspace::new();
    trusting.fails(1, &["copy", "--from", directory.to_str().unwrap(), "--trusted-key", &public, &upper]);
    trusting.ok(&["copy", "--from", directory.to_str().unwrap(), "--no-check-sigs", &upper]);
    let other = Stock::beside(&trusting).unwrap();
    let place = format!("file://{}", directory.display());
    assert_ne!(other.run("nix", &["copy", "--from", &place, &upper]).code, 0);
    other.ok("nix", &["copy", "--from", &place, "--no-check-sigs", &upper]);
}

#[test]
fn a_false_content_address_is_refused_by_both() {
    let workspace = Workspace::new();
    let Some(_) = Stock::beside(&workspace) else { return };
    let add = |name: &str, content: &str| {
        let file = workspace.path().join(name);
        fs::write(&file, content).unwrap();
        workspace.ok(&["store", "add", file.to_str().unwrap()]).text().to_owned()
    };
    let (path, other) = (add("one", "one\n"), add("two", "two\n"));
    let key = workspace.ok(&["key", "generate", "k-1", workspace.path().join("key").to_str().unwrap()]);
    let cache = workspace.path().join("cache");
    let place = cache.to_str().unwrap();
    workspace.ok(&["copy", "--to", place, &path, &other]);
    // Proves itself, unsigned.
    assert_eq!(fetched(place, &path, key.text()), [true, true]);
    let text = fs::read_to_string(narinfo(&cache, &path)).unwrap();
    let others = fs::read_to_string(narinfo(&cache, &other)).unwrap();
    // The address of something else.
    change(&cache, &path, "CA", Some(&field(&others, "CA")));
    assert_eq!(fetched(place, &path, key.text()), [false, false]);
    change(&cache, &path, "CA", None);
    assert_eq!(fetched(place, &path, key.text()), [false, false]);
    // Its own address, but the content of something else.
    fs::write(narinfo(&cache, &path), &text).unwrap();
    for name in ["URL", "FileHash", "FileSize", "NarHash", "NarSize"] {
        change(&cache, &path, name, Some(&field(&others, name)));
    }
    assert_eq!(fetched(place, &path, key.text()), [false, false]);
}

const TWO_OUTPUTS: &str = r#"
sh(name = "two", script = "echo out > $out; echo $out > $doc", outputs = ["out", "doc"])
"#;

#[test]
fn one_broken_output_of_two_is_built_instead() {
    let (Some(one), Some(two)) = (Workspace::with_tools(TWO_OUTPUTS), Workspace::with_tools(TWO_OUTPUTS)) else {
        return;
    };
    let file = one.path().join("key").to_str().unwrap().to_owned();
    let key = one.ok(&["key", "generate", "k-1", &file]).text().to_owned();
    let built = one.ok(&["build", "--json", "//:two"]).json();
    let derivation = built["targets"][0]["derivation"].as_str().unwrap().to_owned();
    let outputs = one.ok(&["store", "outputs", &derivation]);
    let paths: Vec<&str> = outputs.stdout.lines().collect();
    assert_eq!(paths.len(), 2);
    let cache = one.path().join("cache");
    one.ok(&["copy", "--to", cache.to_str().unwrap(), "--key", &file, "--all"]);
    for broken in &paths {
        let place = one.path().join("broken");
        copy_tree(&cache, &place);
        fs::write(archive(&place, broken), "nonsense").unwrap();
        let arguments = ["build", "//:two", "--substituter", place.to_str().unwrap(), "--trusted-key", &key];
        two.ok(&arguments).says(&["built"]).is_silent_about(&["two: from a cache"]);
        two.verify_store();
        for path in &paths {
            assert!(dump(&two, path) == dump(&one, path));
        }
        two.ok(&[&["store", "delete"], &paths[..]].concat());
        fs::remove_dir_all(&place).unwrap();
    }
}
