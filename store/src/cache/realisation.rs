//! Realisations in a cache: which object an output of a derivation became, `build-trace-v2/<derivation>/<output>.doi`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::path::{PathError, StorePath, check_name};
use crate::signature::{KeyError, SecretKey, Signature};

/// The directory they are in.
pub(super) const DIRECTORY: &str = "build-trace-v2";

/// Which object an output of a derivation became, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realisation {
    /// The derivation.
    pub derivation: StorePath,
    /// The output's name.
    pub output: String,
    /// The object.
    pub path: StorePath,
    /// Who vouches for it.
    pub signatures: BTreeSet<Signature>,
}

/// Why a text is no realisation.
#[derive(Debug, thiserror::Error)]
pub enum RealisationError {
    /// It is not JSON of the expected shape.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The object's path is none.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A signature is none.
    #[error(transparent)]
    Signature(#[from] KeyError),
}

#[derive(Serialize, Deserialize)]
struct Text {
    #[serde(rename = "outPath")]
    path: String,
    #[serde(default)]
    signatures: Vec<String>,
}

impl Realisation {
    /// Reads the file of this output.
    ///
    /// # Errors
    /// When it is not of the expected form.
    pub fn parse(derivation: &StorePath, output: &str, text: &[u8]) -> Result<Self, RealisationError> {
        let text: Text = serde_json::from_slice(text)?;
        let signatures = text.signatures.iter().map(|one| one.parse()).collect::<Result<_, KeyError>>()?;
        let path = StorePath::parse_base_name(&text.path)?;
        Ok(Self { derivation: derivation.clone(), output: output.to_owned(), path, signatures })
    }

    /// The file's text.
    #[must_use]
    pub fn write(&self) -> String {
        let signatures: Vec<String> = self.signatures.iter().map(ToString::to_string).collect();
        json!({ "outPath": self.path.base_name(), "signatures": signatures }).to_string()
    }

    /// What signatures are made of.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let key = json!({ "drvPath": self.derivation.base_name(), "outputName": self.output });
        json!({ "key": key, "value": { "outPath": self.path.base_name() } }).to_string()
    }

    /// The same with one more signature.
    #[must_use]
    pub fn signed(mut self, key: &SecretKey) -> Self {
        self.signatures.insert(key.sign(self.fingerprint().as_bytes()));
        self
    }

    /// The file's name in a cache; `None` if the output has a name that no output can have.
    #[must_use]
    pub fn file_name(&self) -> Option<String> {
        file_name(&self.derivation, &self.output)
    }
}

pub(super) fn file_name(derivation: &StorePath, output: &str) -> Option<String> {
    check_name(output).is_ok().then(|| format!("{DIRECTORY}/{derivation}/{output}.doi"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_signatures_hold() {
        let derivation = StorePath::new(&[1; 20], "a.drv").unwrap();
        let path = StorePath::new(&[2; 20], "a").unwrap();
        let key = SecretKey::from_seed("k", &[3; 32]).unwrap();
        let plain =
            Realisation { derivation: derivation.clone(), output: "out".to_owned(), path, signatures: [].into() };
        let expected = format!(
            r#"{{"key":{{"drvPath":"{derivation}","outputName":"out"}},"value":{{"outPath":"{}"}}}}"#,
            plain.path
        );
        assert_eq!(plain.fingerprint(), expected);
        let signed = plain.signed(&key);
        let trusted = [key.public()].into_iter().collect::<crate::signature::TrustedKeys>();
        assert!(trusted.verify(signed.fingerprint().as_bytes(), &signed.signatures));
        assert_eq!(Realisation::parse(&derivation, "out", signed.write().as_bytes()).unwrap(), signed);
        for bad in ["", "{}", "[]", r#"{"outPath":"x"}"#, r#"{"outPath":"../x"}"#] {
            assert!(Realisation::parse(&derivation, "out", bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in ["../x", "a/b", "", ".."] {
            assert_eq!(file_name(&derivation, bad), None);
        }
    }
}
