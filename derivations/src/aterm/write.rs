//! Derivations to text.

use ampoule_store::path::StoreDir;

use crate::derivation::{Derivation, Output};

/// The text of a derivation.
#[must_use]
pub fn write(derivation: &Derivation, store_dir: &StoreDir) -> Vec<u8> {
    let inputs = derivation.input_derivations.iter().map(|(path, outputs)| (store_dir.display(path), outputs));
    write_modulo(derivation, store_dir, false, inputs)
}

/// The text with these inputs, by path or by hash, sorted. When `masked`, output paths and the variables named like outputs are empty.
pub(crate) fn write_modulo<O: IntoIterator<Item: AsRef<str>>>(
    derivation: &Derivation,
    store_dir: &StoreDir,
    masked: bool,
    inputs: impl IntoIterator<Item = (impl AsRef<str>, O)>,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(2048);
    text.extend_from_slice(b"Derive(");
    list(&mut text, &derivation.outputs, |text, (name, output)| {
        let [path, algorithm, hash] = output_fields(derivation, store_dir, masked, name, output);
        tuple(text, &[name, &path, &algorithm, &hash]);
    });
    text.push(b',');
    list(&mut text, inputs, |text, (input, outputs)| {
        text.push(b'(');
        string(text, input.as_ref().as_bytes());
        text.push(b',');
        list(text, outputs, |text, output| string(text, output.as_ref().as_bytes()));
        text.push(b')');
    });
    text.push(b',');
    list(&mut text, &derivation.input_sources, |text, path| string(text, store_dir.display(path).as_bytes()));
    text.push(b',');
    string(&mut text, derivation.system.as_bytes());
    text.push(b',');
    string(&mut text, derivation.builder.as_bytes());
    text.push(b',');
    list(&mut text, &derivation.args, |text, argument| string(text, argument));
    text.push(b',');
    list(&mut text, &derivation.env, |text, (name, value)| {
        let masked = masked && std::str::from_utf8(name).is_ok_and(|name| derivation.outputs.contains_key(name));
        text.push(b'(');
        string(text, name);
        text.push(b',');
        string(text, if masked { b"" } else { value });
        text.push(b')');
    });
    text.push(b')');
    text
}

fn output_fields(
    derivation: &Derivation,
    store_dir: &StoreDir,
    masked: bool,
    name: &str,
    output: &Output,
) -> [String; 3] {
    let path = || match derivation.output_path(store_dir, name) {
        Ok(Some(path)) if !masked => store_dir.display(&path),
        _ => String::new(),
    };
    match output {
        Output::InputAddressed(_) => [path(), String::new(), String::new()],
        Output::Fixed(address) => [path(), address.method_algorithm(), address.hash.to_hex()],
        Output::Floating { method, algorithm } => {
            [String::new(), format!("{}{algorithm}", method.prefix()), String::new()]
        }
        Output::Deferred => [const { String::new() }; 3],
    }
}

fn list<T>(text: &mut Vec<u8>, items: impl IntoIterator<Item = T>, mut item: impl FnMut(&mut Vec<u8>, T)) {
    text.push(b'[');
    for (index, value) in items.into_iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        item(text, value);
    }
    text.push(b']');
}

fn tuple(text: &mut Vec<u8>, fields: &[&str]) {
    text.push(b'(');
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        string(text, field.as_bytes());
    }
    text.push(b')');
}

fn string(text: &mut Vec<u8>, value: &[u8]) {
    text.push(b'"');
    let mut rest = value;
    // Most strings need no escapes, so that they are copied whole.
    while let Some((at, escaped)) = rest.iter().enumerate().find_map(|(at, byte)| Some((at, escape(*byte)?))) {
        text.extend_from_slice(&rest[..at]);
        text.extend_from_slice(escaped);
        rest = &rest[at + 1..];
    }
    text.extend_from_slice(rest);
    text.push(b'"');
}

fn escape(byte: u8) -> Option<&'static [u8]> {
    match byte {
        b'"' => Some(b"\\\""),
        b'\\' => Some(b"\\\\"),
        b'\n' => Some(b"\\n"),
        b'\r' => Some(b"\\r"),
        b'\t' => Some(b"\\t"),
        _ => None,
    }
}
