//! Programs that a wheel declares instead of shipping: the lists `console_scripts` and `gui_scripts` of
//! `entry_points.txt`. (Entry points specification of the Python packaging guide.)

use thiserror::Error;

/// Why a list of entry points cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EntryPointError {
    /// It is not UTF-8.
    #[error("entry_points.txt is not UTF-8")]
    Encoding,
    /// A line makes no sense.
    #[error("entry_points.txt: `{0}` is not `name = module:function`")]
    Line(String),
}

/// The programs, by name, each with the text of its file.
pub(super) fn programs(text: &str, interpreter: &str) -> Result<Vec<(String, String)>, EntryPointError> {
    let mut programs = Vec::new();
    let mut wanted = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            wanted = matches!(section.trim(), "console_scripts" | "gui_scripts");
        } else if wanted {
            let program = program(line, interpreter).ok_or_else(|| EntryPointError::Line(line.to_owned()))?;
            programs.push(program);
        }
    }
    Ok(programs)
}

fn program(line: &str, interpreter: &str) -> Option<(String, String)> {
    let (name, target) = line.split_once('=')?;
    // What is in brackets names optional requirements, which are no concern of a program that is there.
    let target = target.split('[').next()?;
    let (module, function) = target.split_once(':')?;
    let (name, module, function) = (name.trim(), module.trim(), function.trim());
    if !is_file_name(name) || !is_dotted(module) || !is_dotted(function) {
        return None;
    }
    let imported = function.split('.').next()?;
    let text = format!(
        "#!{interpreter}\nimport sys\nfrom {module} import {imported}\n\
         if __name__ == \"__main__\":\n    sys.exit({function}())\n"
    );
    Some((name.to_owned(), text))
}

fn is_file_name(name: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+ ".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.len() < 200 && name.bytes().all(sound)
}

fn is_dotted(text: &str) -> bool {
    let identifier = |part: &str| {
        !part.is_empty()
            && !part.starts_with(|character: char| character.is_ascii_digit())
            && part.chars().all(|character| character == '_' || character.is_alphanumeric())
    };
    text.split('.').all(identifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_both_lists_are_found() {
        let text = "[console_scripts]\na = pkg.cli:main\n# no\nb-c=pkg:App.run [extra]\n\n[other]\nx = y\n[gui_scripts]\ng = pkg:g\n";
        let found = programs(text, "/bin/py").unwrap();
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b-c", "g"]);
        assert_eq!(
            found[1].1,
            "#!/bin/py\nimport sys\nfrom pkg import App\nif __name__ == \"__main__\":\n    sys.exit(App.run())\n"
        );
    }

    #[test]
    fn what_is_no_entry_point_is_refused() {
        for wrong in
            ["a", "a = b", "a/b = c:d", ".. = c:d", "a = b:c();import os", "a = b c:d", "a = :d", "= b:c", "a = b:"]
        {
            let text = format!("[console_scripts]\n{wrong}\n");
            assert!(programs(&text, "/bin/py").is_err(), "{wrong}");
        }
    }
}
