//! Random derivations, made by us and by the `nix-instantiate` of the machine, where there is one.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stderr)]

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use ampoule_derivations::derivation::{Derivation, DerivationBuilder, ModuloHashes};
use ampoule_derivations::placeholder;
use ampoule_store::content_address::{ContentAddress, Method};
use ampoule_store::hash::{Algorithm, Hash};
use ampoule_store::path::{StoreDir, StorePath};
use serde_json::json;

/// A small generator of numbers, so that a failing seed can be tried again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 20).unwrap() % limit
    }

    fn text(&mut self) -> String {
        const PIECES: [&str; 10] = ["a", "Z", "\"", "\\", "\n", "\t", "\r", " ${x}", "é", "/"];
        (0..self.below(6)).map(|_| PIECES[self.below(PIECES.len())]).collect()
    }
}

/// The same derivations in both languages.
#[derive(Default)]
struct Session {
    expression: String,
    made: Vec<(StorePath, Derivation)>,
    hashes: ModuloHashes,
}

/// A string of Nix's language.
fn quote(text: &str) -> String {
    let mut quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    quoted = quoted.replace('\t', "\\t").replace('\r', "\\r").replace("${", "\\${");
    format!("\"{quoted}\"")
}

impl Session {
    fn add(&mut self, numbers: &mut Numbers) {
        let index = self.made.len();
        let name = format!("d{index}");
        let mut builder = DerivationBuilder::new(&name, "x86_64-linux", "/bin/sh");
        let mut nix =
            format!("d{index} = derivation {{ name = \"{name}\"; system = \"x86_64-linux\"; builder = \"/bin/sh\";");
        if numbers.below(3) > 0 {
            let argument = numbers.text();
            write!(nix, " args = [ {} ];", quote(&argument)).unwrap();
            builder = builder.arg(argument);
        }
        let mut attributes = serde_json::Map::new();
        let structured = numbers.below(4) == 0;
        for variable in ["a", "b_", "Z"].into_iter().take(numbers.below(4)) {
            let mut value = numbers.text();
            let mut quoted = quote(&value);
            if index > 0 && numbers.below(2) == 0 {
                let dependency = numbers.below(index);
                let (path, derivation) = &self.made[dependency];
                let outputs: Vec<_> = derivation.outputs.keys().collect();
                let output = outputs[numbers.below(outputs.len())];
                let known = derivation.output_path(&StoreDir::default(), output).unwrap();
                let reference = match known {
                    Some(path) => StoreDir::default().display(&path),
                    None => placeholder::upstream(path, output),
                };
                quoted = format!("({quoted} + \"${{d{dependency}.{output}}}\")");
                value.push_str(&reference);
                builder = builder.input_derivation(path.clone(), output);
            }
            write!(nix, " {variable} = {quoted};").unwrap();
            if structured {
                attributes.insert(variable.to_owned(), json!([value, true]));
                nix = nix.replace(&format!(" {variable} = {quoted};"), &format!(" {variable} = [ {quoted} true ];"));
            } else {
                builder = builder.env(variable, value);
            }
        }
        builder = self.finish(builder, &mut nix, numbers);
        if structured {
            nix.push_str(" __structuredAttrs = true;");
            builder = builder.structured_attributes(attributes);
        }
        writeln!(self.expression, "{nix} }};").unwrap();
        self.made.push(builder.instantiate(&StoreDir::default(), &mut self.hashes).unwrap());
    }

    /// Chooses the kind and names of the outputs.
    fn finish(&self, builder: DerivationBuilder, nix: &mut String, numbers: &mut Numbers) -> DerivationBuilder {
        let algorithm = [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512][numbers.below(3)];
        let (method, mode) = [(Method::Flat, "flat"), (Method::Nar, "recursive")][numbers.below(2)];
        let kind = numbers.below(4);
        if kind == 0 {
            let hash = Hash::of(algorithm, numbers.text().as_bytes());
            let hex = hash.to_hex();
            write!(nix, " outputHash = \"{hex}\"; outputHashAlgo = \"{algorithm}\"; outputHashMode = \"{mode}\";")
                .unwrap();
            return builder.fixed(ContentAddress { method, hash });
        }
        let mut builder = builder;
        let outputs = [None, Some(&["out"][..]), Some(&["out", "dev"]), Some(&["dev", "bin", "out"])][numbers.below(4)];
        if let Some(outputs) = outputs {
            write!(nix, " outputs = [ \"{}\" ];", outputs.join("\" \"")).unwrap();
            builder = builder.outputs(outputs);
        }
        if kind == 1 {
            write!(nix, " __contentAddressed = true; outputHashAlgo = \"{algorithm}\"; outputHashMode = \"{mode}\";")
                .unwrap();
            return builder.floating(method, algorithm);
        }
        builder
    }
}

/// Has the machine's Nix instantiate all derivations of the expression; `None`, and a word about it, when there is none.
fn nix_paths(session: &Session) -> Option<Vec<String>> {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("etc")).unwrap();
    fs::write(home.path().join("etc/nix.conf"), "experimental-features = ca-derivations\n").unwrap();
    let list: String = (0..session.made.len()).fold(String::new(), |list, index| list + &format!(" d{index}"));
    let expression = home.path().join("all.nix");
    fs::write(&expression, format!("let\n{}in [{list} ]\n", session.expression)).unwrap();
    let run = Command::new("nix-instantiate")
        .arg(&expression)
        .env("HOME", home.path())
        .env("NIX_CONF_DIR", home.path().join("etc"))
        .env("NIX_STATE_DIR", home.path().join("var"))
        .env("NIX_LOG_DIR", home.path().join("log"))
        .env("NIX_STORE_DIR", "/nix/store")
        .env("NIX_REMOTE", format!("local?root={}", home.path().join("root").display()))
        .output();
    let Ok(output) = run else {
        let _ =
            std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: nix-store is not installed\n"));
        return None;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{}", session.expression);
    // Where the first output is not `out`, its name follows.
    let lines = String::from_utf8(output.stdout).unwrap();
    Some(lines.lines().map(|line| line.split('!').next().unwrap().to_owned()).collect())
}

#[test]
fn instantiation_is_nixs() {
    let mut session = Session::default();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for _ in 0..300 {
        session.add(&mut numbers);
    }
    let Some(theirs) = nix_paths(&session) else { return };
    let ours: Vec<_> = session.made.iter().map(|(path, _)| StoreDir::default().display(path)).collect();
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let line = session.expression.lines().nth(index);
        assert_eq!(ours, theirs, "{line:?}");
    }
    assert_eq!(ours.len(), theirs.len());
}
