//! Compares a wheel with what was expected of it.

use super::contents::Contents;
use super::metadata::WheelFile;
use super::{Expectation, WheelError};
use crate::elf::Machine;
use crate::glob::name_matches;
use crate::wheel_tag::{WheelName, WheelTag};

/// File name and `WHEEL` must agree, and the interpreter must be able to take the wheel.
pub(super) fn tags(name: &WheelName, wheel: &WheelFile, expected: &Expectation) -> Result<(), WheelError> {
    let tags = name.tags();
    if tags != wheel.tags {
        let wheel: Vec<_> = wheel.tags.iter().map(WheelTag::to_string).collect();
        return Err(WheelError::TagsDisagree { file_name: name.tag_part(), wheel: wheel.join(" ") });
    }
    if tags.iter().any(|tag| tag.suits(expected.python, expected.platform)) {
        return Ok(());
    }
    let (python, platform) = (expected.python, expected.platform);
    Err(WheelError::Unsuitable { found: name.tag_part(), python, platform })
}

/// Native code must be there if and only if it is expected, and be for the right machine and interpreter.
pub(super) fn native(name: &WheelName, contents: &Contents, expected: &Expectation) -> Result<(), WheelError> {
    let machine = Machine::of(expected.platform);
    if let Some((path, elf)) = contents.elf.iter().find(|(_, elf)| elf.machine != machine) {
        return Err(WheelError::Machine { path: path.clone(), found: elf.machine, expected: machine });
    }
    match (contents.elf.keys().next(), expected.native) {
        (None, true) => return Err(WheelError::Pure { tag: name.tag_part() }),
        (Some(path), false) => return Err(WheelError::Native { path: path.clone() }),
        (Some(path), true) if name.platforms.iter().any(|platform| platform == "any") => {
            return Err(WheelError::TaggedAny { tag: name.tag_part(), path: path.clone() });
        }
        _ => {}
    }
    contents.elf.keys().try_for_each(|path| extension(path, name, expected))
}

/// The interpreter in the name of an extension module: `x.cpython-311-x86_64-linux-gnu.so`.
fn extension(path: &str, name: &WheelName, expected: &Expectation) -> Result<(), WheelError> {
    let parts: Vec<&str> = path.rsplit('/').next().unwrap_or(path).split('.').collect();
    let [.., found, "so"] = parts[..] else { return Ok(()) };
    if !found.starts_with("cpython-") {
        return Ok(());
    }
    let own = interface(expected);
    let stable = name.abis.iter().all(|abi| abi == "abi3");
    if found == own && !stable {
        return Ok(());
    }
    let wanted = if stable { "`abi3`, as the wheel is tagged".to_owned() } else { format!("`{own}`") };
    Err(WheelError::Extension { path: path.to_owned(), found: found.to_owned(), expected: wanted })
}

/// What an interpreter adds to the names of its extension modules: `cpython-311-x86_64-linux-gnu`.
fn interface(expected: &Expectation) -> String {
    format!("cpython-3{}-{}", expected.python.minor(), expected.platform.gnu_triplet())
}

/// Each expected module must be there, in Python or native.
pub(super) fn modules(contents: &Contents, expected: &Expectation) -> Result<(), WheelError> {
    for module in &expected.modules {
        let path = module.replace('.', "/");
        let native = format!(".{}.so", interface(expected));
        let endings = [&native, ".abi3.so", ".so", ".py", "/__init__.py"];
        let candidates: Vec<String> = endings.iter().map(|ending| format!("{path}{ending}")).collect();
        let roots = contents.roots();
        let present =
            |candidate: &String| roots.iter().any(|root| contents.files.contains_key(&format!("{root}{candidate}")));
        if !candidates.iter().any(present) {
            let shown: Vec<_> = candidates.iter().map(|candidate| format!("`{candidate}`")).collect();
            return Err(WheelError::Module { module: module.clone(), candidates: shown.join(", ") });
        }
    }
    Ok(())
}

/// The computed tag must be the expected one.
pub(super) fn expected_tag(name: &WheelName, expected: &Expectation, reason: &str) -> Result<(), WheelError> {
    match &expected.tag {
        Some(tag) if !name_matches(tag.as_bytes(), name.tag_part().as_bytes()) => {
            Err(WheelError::Tag { found: name.tag_part(), expected: tag.clone(), reason: reason.to_owned() })
        }
        _ => Ok(()),
    }
}
