//! The grammar of unified diffs, with the extended headers that `git` writes.

use thiserror::Error;

use super::{FilePatch, Hunk};
use crate::tree_path::{PathError, TreePath};

/// Longest patch, in bytes.
const MAX_PATCH: usize = 64 << 20;

/// What is wrong with a line of a patch.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    /// There is nothing to change.
    #[error("it changes nothing")]
    Empty,
    /// It is far too long.
    #[error("it is too long")]
    TooLong,
    /// A hunk's header makes no sense.
    #[error("broken hunk header")]
    HunkHeader,
    /// A hunk has lines of another kind, or more or fewer than its header says.
    #[error("the hunk does not have the lines that its header promises")]
    HunkBody,
    /// A hunk or header stands where none can.
    #[error("unexpected line")]
    Unexpected,
    /// A file name cannot be read.
    #[error("broken file name")]
    Name,
    /// A file name leads elsewhere.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The two names of one file differ.
    #[error("the file has two names, and the patch does not say that it is renamed")]
    TwoNames,
    /// A form of change that is not supported.
    #[error("{0}, which is not supported")]
    Unsupported(&'static str),
}

type Failure = (usize, ParseError);

/// The changes of a patch in order, or the number of the line that is wrong.
pub(super) fn parse(text: &[u8]) -> Result<Vec<FilePatch>, Failure> {
    if text.len() > MAX_PATCH {
        return Err((1, ParseError::TooLong));
    }
    let lines = text.split_inclusive(|byte| *byte == b'\n').collect();
    let mut parser = Parser { lines, next: 0 };
    let mut files = Vec::new();
    while let Some(line) = parser.peek() {
        if line.starts_with(b"diff --git ") || line.starts_with(b"--- ") && parser.at_names() {
            let file = parser.file();
            files.push(file.map_err(|error| (parser.next.max(1), error))?);
        } else if line.starts_with(b"@@ ") || line.starts_with(b"GIT binary patch") {
            return Err((parser.next + 1, ParseError::Unexpected));
        } else {
            parser.next += 1;
        }
    }
    if files.is_empty() { Err((parser.lines.len().max(1), ParseError::Empty)) } else { Ok(files) }
}

struct Parser<'a> {
    lines: Vec<&'a [u8]>,
    next: usize,
}

/// What `git` says about a file before its hunks.
#[derive(Default)]
struct Headers {
    old: Option<TreePath>,
    new: Option<TreePath>,
    created: bool,
    deleted: bool,
    renamed: bool,
    executable: Option<bool>,
    /// `diff -N` gives a file that is not there, before or after, the date at which time began.
    undated: [bool; 2],
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a [u8]> {
        self.lines.get(self.next).copied()
    }

    fn at_names(&self) -> bool {
        self.lines.get(self.next + 1).is_some_and(|line| line.starts_with(b"+++ "))
    }

    fn file(&mut self) -> Result<FilePatch, ParseError> {
        let mut headers = Headers::default();
        let mut git = false;
        while let Some(line) = self.peek().filter(|line| !line.starts_with(b"--- ") && !line.starts_with(b"@@ ")) {
            if git && line.starts_with(b"diff --git ") || !self.git_header(line, &mut headers)? {
                break;
            }
            git = true;
            self.next += 1;
        }
        if self.peek().is_some_and(|line| line.starts_with(b"--- ")) && self.at_names() {
            self.names(&mut headers)?;
        }
        let mut hunks = Vec::new();
        while self.peek().is_some_and(|line| line.starts_with(b"@@ ")) {
            hunks.push(self.hunk()?);
        }
        if headers.old.is_none() && headers.new.is_none() {
            return Err(ParseError::Name);
        }
        if !headers.renamed && headers.old.is_some() && headers.new.is_some() && headers.old != headers.new {
            return Err(ParseError::TwoNames);
        }
        let [no_old, no_new] = headers.undated;
        headers.created |= no_old && !hunks.is_empty() && hunks.iter().all(|hunk| hunk.old.is_empty());
        headers.deleted |= no_new && !hunks.is_empty() && hunks.iter().all(|hunk| hunk.new.is_empty());
        let old = headers.old.filter(|_| !headers.created);
        let new = headers.new.filter(|_| !headers.deleted);
        Ok(FilePatch { old, new, executable: headers.executable, hunks })
    }

    /// Takes in one extended header. `false` means that the line is none.
    fn git_header(&self, line: &[u8], headers: &mut Headers) -> Result<bool, ParseError> {
        let text = line.trim_ascii_end();
        let after = |prefix: &[u8]| text.strip_prefix(prefix);
        if let Some(names) = after(b"diff --git ") {
            let name = same_names(names).map(|name| name_of(name, 1)).transpose()?;
            (headers.old, headers.new) = (name.clone(), name);
        } else if let Some(mode) = after(b"new file mode ") {
            (headers.created, headers.executable) = (true, Some(executable(mode)?));
        } else if let Some(mode) = after(b"deleted file mode ") {
            executable(mode)?;
            headers.deleted = true;
        } else if let Some(mode) = after(b"new mode ") {
            headers.executable = Some(executable(mode)?);
        } else if let Some(name) = after(b"rename from ") {
            (headers.renamed, headers.old) = (true, Some(name_of(name, 0)?));
        } else if let Some(name) = after(b"rename to ") {
            (headers.renamed, headers.new) = (true, Some(name_of(name, 0)?));
        } else if after(b"copy from ").is_some() {
            return Err(ParseError::Unsupported("it copies a file"));
        } else if after(b"GIT binary patch").is_some() || after(b"Binary files ").is_some() {
            return Err(ParseError::Unsupported("it changes a binary file"));
        } else {
            let known: [&[u8]; 4] = [b"old mode ", b"similarity index ", b"dissimilarity index ", b"index "];
            return Ok(known.iter().any(|prefix| text.starts_with(prefix)));
        }
        Ok(true)
    }

    fn names(&mut self, headers: &mut Headers) -> Result<(), ParseError> {
        let lines = [self.lines[self.next], self.lines[self.next + 1]];
        headers.undated = lines.map(is_undated);
        let [old, new] = lines.map(|line| name_field(&line[4..]));
        self.next += 2;
        headers.created |= old == b"/dev/null";
        headers.deleted |= new == b"/dev/null";
        let renamed = headers.renamed;
        let take = |name: &[u8], slot: &mut Option<TreePath>| -> Result<(), ParseError> {
            if name == b"/dev/null" {
                *slot = None;
                return Ok(());
            }
            let path = name_of(name, 1)?;
            if renamed && slot.as_ref() != Some(&path) {
                return Err(ParseError::TwoNames);
            }
            *slot = Some(path);
            Ok(())
        };
        take(old, &mut headers.old)?;
        take(new, &mut headers.new)
    }

    fn hunk(&mut self) -> Result<Hunk, ParseError> {
        let header = self.lines[self.next];
        self.next += 1;
        let ((old_start, old_count), (_, new_count)) = hunk_header(header).ok_or(ParseError::HunkHeader)?;
        let (mut old, mut new) = (Vec::new(), Vec::new());
        while old.len() < old_count || new.len() < new_count {
            let line = self.peek().ok_or(ParseError::HunkBody)?;
            self.next += 1;
            let (in_old, in_new, body) = match line {
                [b' ', body @ ..] => (true, true, body),
                [b'-', body @ ..] => (true, false, body),
                [b'+', body @ ..] => (false, true, body),
                // Mail and editors take trailing spaces away.
                b"\n" => (true, true, line),
                _ => return Err(ParseError::HunkBody),
            };
            let mut body = body.to_vec();
            if self.peek().is_some_and(|line| line.starts_with(b"\\ ")) {
                self.next += 1;
                body.pop_if(|byte| *byte == b'\n');
            }
            if in_old {
                old.push(body.clone());
            }
            if in_new {
                new.push(body);
            }
        }
        let signature = |line: &[u8]| line.starts_with(b"-- ") || line.starts_with(b"--- ");
        let more =
            |line: &[u8]| matches!(line.first(), Some(b' ' | b'+')) || line.starts_with(b"-") && !signature(line);
        if old.len() != old_count || new.len() != new_count || self.peek().is_some_and(more) {
            return Err(ParseError::HunkBody);
        }
        // An insertion without context names the line it comes after.
        let position =
            if old_count == 0 { old_start } else { old_start.checked_sub(1).ok_or(ParseError::HunkHeader)? };
        Ok(Hunk { position, old, new })
    }
}

/// `@@ -start[,count] +start[,count] @@`
fn hunk_header(line: &[u8]) -> Option<((usize, usize), (usize, usize))> {
    let text = std::str::from_utf8(line.strip_prefix(b"@@ -")?.split(|byte| *byte == b'@').next()?).ok()?;
    let (old, new) = text.trim_end().split_once(" +")?;
    let range = |text: &str| -> Option<(usize, usize)> {
        let number = |text: &str| {
            let number: u32 = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())??;
            usize::try_from(number).ok()
        };
        let (start, count) = text.split_once(',').unwrap_or((text, "1"));
        Some((number(start)?, number(count)?))
    };
    line.strip_prefix(b"@@ -")?.windows(3).any(|part| part == b" @@").then_some(())?;
    Some((range(old)?, range(new)?))
}

/// Whether the date after a name is that at which time began, in whatever time zone.
fn is_undated(line: &[u8]) -> bool {
    let date = line.iter().position(|byte| *byte == b'\t').map_or(&b""[..], |tab| &line[tab + 1..]);
    date.starts_with(b"1970-01-01 ") || date.starts_with(b"1969-12-31 ")
}

/// The name in a `---` or `+++` line, without the time that `diff` writes after a tab.
fn name_field(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == b'\t').next().unwrap_or(field).trim_ascii_end()
}

fn name_of(name: &[u8], strip: usize) -> Result<TreePath, ParseError> {
    if name.starts_with(b"\"") {
        return Err(ParseError::Unsupported("a file name is in quotes"));
    }
    let path = TreePath::parse(name)?.without_leading(strip).ok_or(ParseError::Name)?;
    if path.is_root() { Err(ParseError::Name) } else { Ok(path) }
}

/// The name in `a/name b/name`, if it is one name twice.
fn same_names(names: &[u8]) -> Option<&[u8]> {
    let middle = names.len() / 2;
    let (first, second) = (names.get(..middle)?, names.get(middle + 1..)?);
    let bare = |name: &'_ [u8]| name.iter().position(|byte| *byte == b'/').map(|slash| slash + 1);
    let same = names.get(middle) == Some(&b' ') && first.get(bare(first)?..) == second.get(bare(second)?..);
    same.then_some(first)
}

fn executable(mode: &[u8]) -> Result<bool, ParseError> {
    match mode {
        b"100644" | b"100664" => Ok(false),
        b"100755" | b"100775" => Ok(true),
        b"120000" => Err(ParseError::Unsupported("it changes a symbolic link")),
        _ => Err(ParseError::Unsupported("it changes something that is not a file")),
    }
}
