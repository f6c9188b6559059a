//! Derivations for people and scripts: the JSON of `nix show-derivation`.

use ampoule_store::path::StoreDir;
use serde_json::{Map, Value, json};

use crate::derivation::{Derivation, Output};

/// The derivation as `nix show-derivation` of Nix 2.8 shows it (`nix derivation show` until its format 3).
///
/// Bytes that are not UTF-8 become U+FFFD, so this is no way to keep a derivation; [`aterm`](crate::aterm) is.
#[must_use]
pub fn to_json(derivation: &Derivation, store_dir: &StoreDir) -> Value {
    let outputs: Map<_, _> =
        derivation.outputs.keys().map(|name| (name.clone(), output(derivation, store_dir, name))).collect();
    let inputs: Map<_, _> =
        derivation.input_derivations.iter().map(|(path, outputs)| (store_dir.display(path), json!(outputs))).collect();
    let sources: Vec<_> = derivation.input_sources.iter().map(|path| store_dir.display(path)).collect();
    let args: Vec<_> = derivation.args.iter().map(|argument| lossy(argument)).collect();
    let env: Map<_, _> = derivation.env.iter().map(|(name, value)| (lossy(name), lossy(value).into())).collect();
    json!({
        "args": args,
        "builder": derivation.builder,
        "env": env,
        "inputDrvs": inputs,
        "inputSrcs": sources,
        "outputs": outputs,
        "system": derivation.system,
    })
}

fn output(derivation: &Derivation, store_dir: &StoreDir, name: &str) -> Value {
    let mut fields = Map::new();
    if let Ok(Some(path)) = derivation.output_path(store_dir, name) {
        fields.insert("path".to_owned(), store_dir.display(&path).into());
    }
    match &derivation.outputs[name] {
        Output::Fixed(address) => {
            fields.insert("hash".to_owned(), address.hash.to_hex().into());
            fields.insert("hashAlgo".to_owned(), address.method_algorithm().into());
        }
        Output::Floating { method, algorithm } => {
            fields.insert("hashAlgo".to_owned(), format!("{}{algorithm}", method.prefix()).into());
        }
        Output::InputAddressed(_) | Output::Deferred => {}
    }
    Value::Object(fields)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
