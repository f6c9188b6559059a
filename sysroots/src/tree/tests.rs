use super::*;
use crate::tree_path::TreePath;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn origin() -> Origin {
    Origin::from("a test")
}

/// Builds a tree from `name/`, `name -> target` and plain names.
fn build(bounds: Bounds, entries: &[&str]) -> Result<Tree, TreeError> {
    let mut tree = Tree::new(bounds);
    for entry in entries {
        let (name, item) = match entry.split_once(" -> ") {
            Some((name, target)) => (name, Item::Symlink(target.as_bytes().to_vec())),
            None if entry.ends_with('/') => (*entry, Item::Directory),
            None => (*entry, Item::File(File::from_bytes(*b"body", false))),
        };
        tree.insert(&path(name), item, &origin())?;
    }
    Ok(tree)
}

fn names(tree: &Tree) -> Vec<String> {
    tree.entries().iter().map(|(path, _)| printable(path)).collect()
}

#[test]
fn missing_directories_are_made() {
    let tree = build(Bounds::Contained, &["a/b/c", "a/d"]).unwrap();
    assert_eq!(names(&tree), ["a", "a/b", "a/b/c", "a/d"]);
}

#[test]
fn entries_go_through_links_inside_the_tree() {
    for target in ["usr/lib", "./usr//lib/", "usr/../usr/lib", "other"] {
        let link = format!("lib -> {target}");
        let tree = build(Bounds::Contained, &["usr/lib/", "other -> usr/lib", &link, "lib/", "lib/x"]).unwrap();
        assert_eq!(names(&tree), ["lib", "other", "usr", "usr/lib", "usr/lib/x"], "{target}");
    }
}

#[test]
fn a_root_holds_links_that_start_or_climb_above_it() {
    for target in ["/usr/lib", "../../usr/lib", "/../usr/lib"] {
        let link = format!("lib -> {target}");
        let tree = build(Bounds::Rooted, &["usr/lib/", &link, "lib/x"]).unwrap();
        assert_eq!(names(&tree), ["lib", "usr", "usr/lib", "usr/lib/x"], "{target}");
        tree.check_links().unwrap();
    }
}

#[test]
fn nothing_leads_out_of_a_contained_tree() {
    for target in ["..", "../x", "/", "/etc", "a/../../x", "a/../..", "missing/../../x", "b"] {
        let link = format!("link -> {target}");
        let tree = build(Bounds::Contained, &["a/", "b -> ../..", &link]).unwrap();
        assert!(matches!(tree.check_links(), Err(TreeError::Escape { .. })), "{target}");
        let through = build(Bounds::Contained, &["a/", "b -> ../..", &link, "link/x"]);
        assert!(through.is_err(), "{target}");
    }
    build(Bounds::Contained, &["a/b/l -> ../../c", "n -> nowhere"]).unwrap().check_links().unwrap();
}

#[test]
fn loops_and_files_on_the_way_are_errors() {
    assert!(matches!(build(Bounds::Rooted, &["a -> b", "b -> a", "a/x"]), Err(TreeError::Loop { .. })));
    assert!(matches!(build(Bounds::Rooted, &["a -> a/a", "a/x"]), Err(TreeError::Loop { .. })));
    assert!(matches!(build(Bounds::Rooted, &["f", "f/x"]), Err(TreeError::NotADirectory { .. })));
    assert!(matches!(build(Bounds::Rooted, &["f", "f/x/y"]), Err(TreeError::NotADirectory { .. })));
    assert!(matches!(build(Bounds::Rooted, &["l -> gone", "l/x"]), Err(TreeError::Dangling { .. })));
    assert!(matches!(build(Bounds::Rooted, &["a/", "l -> a/gone", "l/x/y"]), Err(TreeError::Dangling { .. })));
}

#[test]
fn different_kinds_at_one_path_conflict() {
    for entries in [
        ["x/", "x"],
        ["x", "x/"],
        ["x -> y", "x"],
        ["x", "x -> y"],
        ["x/", "x -> y"],
        ["x -> y", "x -> z"],
        ["x -> gone", "x/"],
    ] {
        assert!(matches!(build(Bounds::Rooted, &entries), Err(TreeError::Conflict { .. })), "{entries:?}");
    }
    for entries in [["x/", "x/"], ["x -> y", "x -> y"], ["x", "x"]] {
        build(Bounds::Rooted, &entries).unwrap();
    }
}

#[test]
fn a_link_cannot_be_nothing() {
    assert!(matches!(build(Bounds::Rooted, &["x -> "]), Err(TreeError::Target { .. })));
    assert!(matches!(build(Bounds::Rooted, &["x -> a\0b"]), Err(TreeError::Target { .. })));
}

#[test]
fn descending_needs_one_directory_and_moves_the_root() {
    let mut tree = build(Bounds::Contained, &["top/a", "top/up -> ../b"]).unwrap();
    tree.check_links().unwrap();
    assert_eq!(tree.descend(), Some(&b"top"[..]));
    assert_eq!(names(&tree), ["a", "up"]);
    assert!(matches!(tree.check_links(), Err(TreeError::Escape { .. })));
    assert_eq!(build(Bounds::Contained, &["a/", "b"]).unwrap().descend(), None);
    assert_eq!(build(Bounds::Contained, &["a"]).unwrap().descend(), None);
    assert_eq!(build(Bounds::Contained, &[]).unwrap().descend(), None);
}

#[test]
fn depth_is_bounded_through_links_too() {
    let deep = "d/".repeat(100);
    let through = format!("l/{}x", "e/".repeat(50));
    let link = format!("l -> {deep}");
    assert!(matches!(build(Bounds::Contained, &[&deep, &link, &through]), Err(TreeError::Path(_))));
}

#[test]
fn replacing_and_removing_leave_directories_alone() {
    let mut tree = build(Bounds::Rooted, &["d/", "f"]).unwrap();
    let item = || Item::File(File::from_bytes(*b"new", true));
    tree.replace(&path("f"), item(), &origin()).unwrap();
    tree.replace(&path("d/g"), item(), &origin()).unwrap();
    assert!(tree.replace(&path("d"), item(), &origin()).is_err());
    assert!(tree.remove(&path("f"), &origin()).unwrap());
    assert!(!tree.remove(&path("f"), &origin()).unwrap());
    assert_eq!(names(&tree), ["d", "d/g"]);
}
