use super::*;
use crate::tree::Bounds;

/// Applies a patch to files given as `(path, content)`, and returns the files that come out.
fn check(files: &[(&str, &str)], patch: &str) -> Result<Vec<(String, String)>, String> {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::create(&directory.path().join("out")).unwrap();
    let mut tree = Tree::new(Bounds::Contained);
    let origin = Origin::from("a test");
    for (path, content) in files {
        let path = TreePath::parse(path.as_bytes()).unwrap();
        tree.insert(&path, Item::File(File::from_bytes(content.as_bytes(), false)), &origin).unwrap();
    }
    let patch = Patch::parse("x.patch", patch.as_bytes()).map_err(|error| error.to_string())?;
    patch.apply(&mut tree, &spool).map_err(|error| error.to_string())?;
    let file = |(path, id): (Vec<u8>, _)| match tree.node(id) {
        Node::File(file) => {
            let mark = if file.executable() { "*" } else { "" };
            let content = String::from_utf8(spool.read(file, 1 << 20).unwrap()).unwrap();
            Some((format!("{}{mark}", String::from_utf8(path).unwrap()), content))
        }
        _ => None,
    };
    Ok(tree.entries().into_iter().filter_map(file).collect())
}

fn owned(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(path, content)| (path.to_string(), content.to_string())).collect()
}

const CHANGE: &str = "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n";

#[test]
fn a_change_applies() {
    assert_eq!(check(&[("f", "one\ntwo\nthree\n")], CHANGE).unwrap(), owned(&[("f", "one\nTWO\nthree\n")]));
}

#[test]
fn a_change_that_moved_applies_and_one_that_changed_does_not() {
    let moved = "new\nnew\none\ntwo\nthree\nend\n";
    assert_eq!(check(&[("f", moved)], CHANGE).unwrap(), owned(&[("f", &moved.replace("two", "TWO"))]));
    for changed in ["one\ntwo\nthree", "one\n two\nthree\n", "one\r\ntwo\r\nthree\r\n", "", "one\ntwo\n"] {
        assert!(check(&[("f", changed)], CHANGE).unwrap_err().contains("hunk 1 of `f` (line 1)"), "{changed:?}");
    }
}

#[test]
fn the_nearest_place_is_taken_and_hunks_stay_in_order() {
    let lines = "x\na\nx\nb\nx\n";
    let patch = "--- a/f\n+++ b/f\n@@ -4,1 +4,1 @@\n-x\n+X\n@@ -5,1 +5,2 @@\n-x\n+Y\n+Z\n";
    assert_eq!(check(&[("f", lines)], patch).unwrap(), owned(&[("f", "x\na\nX\nb\nY\nZ\n")]));
}

#[test]
fn files_are_made_deleted_and_renamed() {
    let made =
        "diff --git a/d/n b/d/n\nnew file mode 100755\nindex 0..1\n--- /dev/null\n+++ b/d/n\n@@ -0,0 +1 @@\n+hi\n";
    assert_eq!(check(&[], made).unwrap(), owned(&[("d/n*", "hi\n")]));
    assert!(check(&[("d/n", "")], made).unwrap_err().contains("exists"));
    let deleted = "--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-hi\n";
    assert_eq!(check(&[("f", "hi\n")], deleted).unwrap(), owned(&[]));
    assert!(check(&[("f", "hi\nmore\n")], deleted).unwrap_err().contains("leaves lines"));
    let renamed = "diff --git a/f b/g\nsimilarity index 50%\nrename from f\nrename to g\n--- a/f\n+++ b/g\n@@ -1 +1 @@\n-hi\n+ho\n";
    assert_eq!(check(&[("f", "hi\n")], renamed).unwrap(), owned(&[("g", "ho\n")]));
    let plain = "diff --git a/f b/d/g\nsimilarity index 100%\nrename from f\nrename to d/g\n";
    assert_eq!(check(&[("f", "hi\n")], plain).unwrap(), owned(&[("d/g", "hi\n")]));
    let mode = "diff --git a/f b/f\nold mode 100644\nnew mode 100755\n";
    assert_eq!(check(&[("f", "hi\n")], mode).unwrap(), owned(&[("f*", "hi\n")]));
    let empty = "diff --git a/e b/e\nnew file mode 100644\nindex 000..000\n";
    assert_eq!(check(&[], empty).unwrap(), owned(&[("e", "")]));
}

#[test]
fn files_that_diff_n_dates_at_the_beginning_of_time_are_made_and_deleted() {
    let (none, some) = ("1969-12-31 19:00:00.000000000 -0500", "2026-01-01 00:00:00.000000000 +0000");
    let made = format!("--- a/n\t{none}\n+++ b/n\t{some}\n@@ -0,0 +1 @@\n+hi\n");
    assert_eq!(check(&[], &made).unwrap(), owned(&[("n", "hi\n")]));
    let deleted = format!("--- a/n\t{some}\n+++ b/n\t{none}\n@@ -1 +0,0 @@\n-hi\n");
    assert_eq!(check(&[("n", "hi\n")], &deleted).unwrap(), []);
    let old = format!("--- a/n\t{none}\n+++ b/n\t{some}\n@@ -1 +1 @@\n-hi\n+ho\n");
    assert_eq!(check(&[("n", "hi\n")], &old).unwrap(), owned(&[("n", "ho\n")]));
}

#[test]
fn ends_without_a_newline_count() {
    let patch = "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-one\n\\ No newline at end of file\n+two\n";
    assert_eq!(check(&[("f", "one")], patch).unwrap(), owned(&[("f", "two\n")]));
    assert!(check(&[("f", "one\n")], patch).is_err());
}

#[test]
fn mail_around_a_patch_is_passed_over() {
    let mail = format!("From 0 Mon\nSubject: x\n\nWhy.\n---\n f | 2 +-\n\n{CHANGE}-- \n2.39.5\n\n");
    assert_eq!(check(&[("f", "one\ntwo\nthree\n")], &mail).unwrap(), owned(&[("f", "one\nTWO\nthree\n")]));
}

#[test]
fn several_files_and_stripped_trailing_spaces() {
    let patch = "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n-a\n+b\n\ndiff -ru x/g y/g\n--- x/g\t2020-01-01\n+++ y/g\t2021-01-01\n@@ -1 +1,2 @@\n a\n+b\n";
    let expected = owned(&[("f", "b\n\n"), ("g", "a\nb\n")]);
    assert_eq!(check(&[("f", "a\n\n"), ("g", "a\n")], patch).unwrap(), expected);
}

#[test]
fn what_is_not_a_sound_patch_is_refused() {
    let hunk = "@@ -1 +1 @@\n-a\n+b\n";
    for (reason, patch) in [
        ("changes nothing", String::new()),
        ("changes nothing", "just text\n".to_owned()),
        ("unexpected", hunk.to_owned()),
        ("`..`", format!("--- a/../../f\n+++ b/../../f\n{hunk}")),
        ("absolute", format!("--- /etc/passwd\n+++ /etc/passwd\n{hunk}")),
        ("broken file name", format!("--- f\n+++ f\n{hunk}")),
        ("two names", format!("--- a/f\n+++ b/g\n{hunk}")),
        ("quotes", format!("--- \"a/f\"\n+++ \"b/f\"\n{hunk}")),
        ("promises", "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n+c\n".to_owned()),
        ("promises", "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n-a\n+b\n".to_owned()),
        ("promises", "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\nb\n".to_owned()),
        ("header", "--- a/f\n+++ b/f\n@@ -1 @@\n".to_owned()),
        ("header", "--- a/f\n+++ b/f\n@@ -x +1 @@\n".to_owned()),
        ("binary", "diff --git a/f b/f\nindex 0..1\nGIT binary patch\n".to_owned()),
        ("symbolic link", "diff --git a/f b/f\nnew file mode 120000\n".to_owned()),
        ("copies", "diff --git a/f b/g\ncopy from f\ncopy to g\n".to_owned()),
        ("no file `missing`", format!("--- a/missing\n+++ b/missing\n{hunk}")),
    ] {
        let error = check(&[("f", "a\n")], &patch).unwrap_err();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    }
}

#[test]
fn no_cut_or_changed_byte_panics() {
    let patch =
        "diff --git a/f b/f\nindex 1..2 100644\n--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@ x\n one\n-two\n+TWO\n three\n";
    for index in 0..patch.len() {
        drop(Patch::parse("x", &patch.as_bytes()[..index]));
        for value in [b'0', b'9', b'-', b'\n', b'@', 0xff] {
            let mut broken = patch.as_bytes().to_vec();
            broken[index] = value;
            drop(Patch::parse("x", &broken));
        }
    }
    let huge = format!("--- a/f\n+++ b/f\n@@ -{0} +{0} @@\n-a\n+b\n", u64::MAX);
    assert!(check(&[("f", "a\n")], &huge).is_err());
    assert!(check(&[("f", "a\n")], &huge.replace(&u64::MAX.to_string(), "4294967295")).is_ok());
}
