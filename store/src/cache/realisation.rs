//! Realisations in a cache: which object an output of a derivation became, `build-trace-v2/<derivation>/<output>.doi`.
//!
//! Nix before 2.35 has `realisations/sha256:<hash>!<output>.doi` instead, the hash being the derivation's modulo its inputs, and
//! signs another text. That form is only read.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::hash::Sha256Digest;
use crate::path::{PathError, StorePath, check_name};
use crate::signature::{KeyError, SecretKey, Signature};

/// The directory they are in.
pub(super) const DIRECTORY: &str = "build-trace-v2";
/// The directory of the older form.
const OLDER_DIRECTORY: &str = "realisations";

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
    /// It speaks of another output.
    #[error("it speaks of `{}`", .0.escape_debug())]
    OtherOutput(String),
}

/// The older form. What a derivation's inputs became is signed with it.
#[derive(Serialize, Deserialize)]
struct OlderText {
    #[serde(rename = "dependentRealisations", default)]
    inputs: BTreeMap<String, String>,
    id: String,
    #[serde(rename = "outPath")]
    path: String,
    #[serde(default, skip_serializing)]
    signatures: Vec<String>,
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

    /// Reads the older form, and gives with it the text that is signed.
    pub(super) fn parse_older(
        derivation: &StorePath,
        modulo: &Sha256Digest,
        output: &str,
        text: &[u8],
    ) -> Result<(Self, String), RealisationError> {
        let text: OlderText = serde_json::from_slice(text)?;
        if text.id != older_name(modulo, output) {
            return Err(RealisationError::OtherOutput(text.id));
        }
        let signatures = text.signatures.iter().map(|one| one.parse()).collect::<Result<_, KeyError>>()?;
        let path = StorePath::parse_base_name(&text.path)?;
        // The fields are declared in the order in which Nix writes them: sorted.
        let signed = serde_json::to_string(&text)?;
        Ok((Self { derivation: derivation.clone(), output: output.to_owned(), path, signatures }, signed))
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

/// The older form's file; `None` if the output has a name that no output can have.
pub(super) fn older_file_name(modulo: &Sha256Digest, output: &str) -> Option<String> {
    check_name(output).is_ok().then(|| format!("{OLDER_DIRECTORY}/{}.doi", older_name(modulo, output)))
}

fn older_name(modulo: &Sha256Digest, output: &str) -> String {
    format!("sha256:{}!{output}", modulo.to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By Nix 2.8.
    const OLDER: &str = concat!(
        r#"{"dependentRealisations":{"sha256:c42c9ba98b429c28c549dfdb28a201d6ef251f43aeb1818c9f0939ad9fabe315!out":"#,
        r#""6r2iy86mpsrlyhz18a9ydvsf3qsybjw2-one"},"#,
        r#""id":"sha256:060246452516bc4a7edf1a70221f1de82cdea68d81db93988a5febc79605afb9!out","#,
        r#""outPath":"1j89jv8w08sfn4binszzfpbylkf2v1yn-two","signatures":"#,
        r#"["k-1:vLRseuf4kC1ttXNivl8qVIiRAqcEYaelTMqrTFktPL0YsYeYLFPE+6vgfA2tyQp186ypYi8NfxKJKSYrl+j7DA=="]}"#
    );
    const OLDER_HASH: &str = "060246452516bc4a7edf1a70221f1de82cdea68d81db93988a5febc79605afb9";
    const OLDER_DERIVATION: &str = "s1fj8fm6x7k4nqn63sh15y86pz6fnqhg-two.drv";
    const OLDER_KEY: &str = "k-1:Xp6Uv3rcJEgLCX9JxIAljzdTCaitGjvjmQg5IG4qhD0=";

    #[test]
    fn the_older_form_is_read_as_nix_wrote_and_signed_it() {
        let hash: Sha256Digest = OLDER_HASH.parse().unwrap();
        let derivation = StorePath::parse_base_name(OLDER_DERIVATION).unwrap();
        let (read, signed) = Realisation::parse_older(&derivation, &hash, "out", OLDER.as_bytes()).unwrap();
        let trusted = [OLDER_KEY.parse().unwrap()].into_iter().collect::<crate::signature::TrustedKeys>();
        assert!(trusted.verify(signed.as_bytes(), &read.signatures));
        assert_eq!(read.path.name(), "two");
        let changed = OLDER.replace("-one", "-eno");
        let (read, signed) = Realisation::parse_older(&derivation, &hash, "out", changed.as_bytes()).unwrap();
        assert!(!trusted.verify(signed.as_bytes(), &read.signatures));
        Realisation::parse_older(&derivation, &hash, "dev", OLDER.as_bytes()).unwrap_err();
        let name = older_file_name(&hash, "out").unwrap();
        assert_eq!(name, format!("realisations/sha256:{OLDER_HASH}!out.doi"));
        assert_eq!(older_file_name(&hash, "../out"), None);
    }

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
