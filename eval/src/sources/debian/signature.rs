//! Whether a suite's release was signed by a key the machine trusts. The judge is `gpgv`.

#![expect(clippy::disallowed_methods, reason = "gpgv is a program that reads and writes files")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use data_encoding::BASE64;

use super::apt::{self, SignedBy};
use crate::sources::machine::Machine;

/// Why a signature is not believed.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The program that checks signatures is absent.
    #[error("its signature cannot be checked: there is no `gpgv` in PATH (install it, or allow unsigned archives)")]
    NoGpgv,
    /// There is no key to check against.
    #[error("its signature cannot be checked: no keyring is configured{}", paths_text(.0))]
    NoKeyring(Vec<PathBuf>),
    /// The signature is missing, wrong, expired, or by another key.
    #[error("its signature is not valid for the configured keys: {0}")]
    Invalid(String),
    /// Temporary files or the program itself failed.
    #[error("its signature cannot be checked: {0}")]
    Io(#[from] std::io::Error),
}

fn paths_text(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    if names.is_empty() { String::new() } else { format!(" (not readable: {})", names.join(", ")) }
}

/// The text that a trusted key signed, out of a clear-signed document.
pub(crate) fn verify(document: &[u8], signed_by: &SignedBy, machine: &Machine) -> Result<String, SignatureError> {
    let gpgv = machine.program("gpgv").ok_or(SignatureError::NoGpgv)?;
    let directory = tempfile::tempdir()?;
    let keyrings = collect_keyrings(signed_by, machine, directory.path())?;
    let (signed, plain) = (directory.path().join("signed"), directory.path().join("plain"));
    std::fs::write(&signed, document)?;
    let mut command = Command::new(gpgv);
    // An empty home keeps the user's own keys out of it.
    command.env_clear().env("LC_ALL", "C").arg("--homedir").arg(directory.path()).args(["--status-fd", "1"]);
    for keyring in &keyrings {
        command.arg("--keyring").arg(keyring);
    }
    command.arg("--output").arg(&plain).arg(&signed).stdin(Stdio::null());
    let output = command.output()?;
    let status = String::from_utf8_lossy(&output.stdout);
    judge(&status, signed_by).map_err(|reason| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let detail = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        SignatureError::Invalid(if detail.is_empty() { reason } else { format!("{reason} ({detail})") })
    })?;
    // Only what gpgv says was signed is ever read: text around a signature proves nothing.
    let text = std::fs::read(&plain)?;
    String::from_utf8(text).map_err(|_| SignatureError::Invalid("the signed text is not UTF-8".to_owned()))
}

/// The document's text without any check of who wrote it, for users who said that they want that.
pub(crate) fn unverified(document: &[u8]) -> String {
    let text = String::from_utf8_lossy(document);
    let Some((_, rest)) = text.split_once("-----BEGIN PGP SIGNED MESSAGE-----") else { return text.into_owned() };
    let body = rest.split_once("\n\n").map_or(rest, |(_, body)| body);
    let body = body.split_once("-----BEGIN PGP SIGNATURE-----").map_or(body, |(body, _)| body);
    let unescaped = body.lines().map(|line| line.strip_prefix("- ").unwrap_or(line));
    unescaped.flat_map(|line| [line, "\n"]).collect()
}

/// Reads gpgv's machine-readable answer: one good signature by a fitting key is needed, and no bad one.
fn judge(status: &str, signed_by: &SignedBy) -> Result<(), String> {
    let mut good = false;
    let mut valid = false;
    let mut refused = Vec::new();
    for line in status.lines() {
        let mut words = line.strip_prefix("[GNUPG:] ").unwrap_or_default().split_whitespace();
        match words.next() {
            Some("GOODSIG") => good = true,
            Some("NEWSIG") => good = false,
            Some("VALIDSIG") if good => {
                let (first, last) = (words.next().unwrap_or_default(), words.next_back().unwrap_or_default());
                valid |= match signed_by {
                    SignedBy::Fingerprints(wanted) => wanted.iter().any(|w| w == first || w == last),
                    _ => true,
                };
            }
            Some("BADSIG") => return Err("the text was changed after it was signed".to_owned()),
            Some(problem @ ("EXPSIG" | "EXPKEYSIG" | "REVKEYSIG" | "NO_PUBKEY" | "ERRSIG")) => {
                refused.push(format!("{problem} {}", words.next().unwrap_or_default()));
            }
            _ => {}
        }
    }
    match valid {
        true => Ok(()),
        false if refused.is_empty() => Err("there is no signature by a configured key".to_owned()),
        false => Err(refused.join(", ")),
    }
}

/// Keyring files that gpgv can read. Armoured ones are decoded into `directory`.
fn collect_keyrings(signed_by: &SignedBy, machine: &Machine, directory: &Path) -> Result<Vec<PathBuf>, SignatureError> {
    let wanted = match signed_by {
        SignedBy::Files(files) => files.clone(),
        SignedBy::Machine | SignedBy::Fingerprints(_) => apt::machine_keyrings(machine),
        SignedBy::Inline(text) => {
            let key = dearmour(text).ok_or_else(|| SignatureError::NoKeyring(Vec::new()))?;
            let path = directory.join("inline.gpg");
            std::fs::write(&path, key)?;
            return Ok(vec![path]);
        }
    };
    let mut keyrings = Vec::new();
    for (number, path) in wanted.iter().enumerate() {
        let Ok(bytes) = std::fs::read(path) else { continue };
        // gpgv takes a file without a slash in its name for one of its home directory; these are all absolute.
        match std::str::from_utf8(&bytes).ok().filter(|text| text.contains("-----BEGIN PGP")).and_then(dearmour) {
            Some(key) => {
                let decoded = directory.join(format!("{number}.gpg"));
                std::fs::write(&decoded, key)?;
                keyrings.push(decoded);
            }
            None if bytes.is_empty() => {}
            None => keyrings.push(path.clone()),
        }
    }
    if keyrings.is_empty() { Err(SignatureError::NoKeyring(wanted)) } else { Ok(keyrings) }
}

/// The bytes of an armoured key (RFC 9580, 6.2). Its checksum is passed over, as that standard allows.
fn dearmour(text: &str) -> Option<Vec<u8>> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK"))?;
    // Headers end at the first empty line.
    let body = lines.skip_while(|line| !line.is_empty());
    let data: String = body.take_while(|line| !line.starts_with('=') && !line.starts_with('-')).collect();
    BASE64.decode(data.as_bytes()).ok().filter(|bytes| !bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINGERPRINT: &str = "AAAA";

    fn accepts(status: &str, signed_by: &SignedBy) -> bool {
        let lines: String = status.lines().map(|line| format!("[GNUPG:] {}\n", line.trim())).collect();
        judge(&lines, signed_by).is_ok()
    }

    #[test]
    fn one_good_signature_and_no_bad_one() {
        let good = "NEWSIG\nGOODSIG 1 name\nVALIDSIG BBBB 2026-01-01 1 0 4 0 1 8 01 AAAA";
        let missing = "NEWSIG\nERRSIG 2 1 8 01 1 9\nNO_PUBKEY 2";
        assert!(accepts(good, &SignedBy::Machine));
        assert!(accepts(&format!("{missing}\n{good}"), &SignedBy::Machine));
        assert!(accepts(&format!("{good}\n{missing}"), &SignedBy::Machine));
        assert!(!accepts(missing, &SignedBy::Machine));
        assert!(!accepts("", &SignedBy::Machine));
        assert!(!accepts(&format!("{good}\nNEWSIG\nBADSIG 3 name"), &SignedBy::Machine));
        assert!(!accepts(&good.replace("GOODSIG", "EXPKEYSIG"), &SignedBy::Machine));
        assert!(!accepts(&good.replace("GOODSIG", "REVKEYSIG"), &SignedBy::Machine));
    }

    #[test]
    fn fingerprints_are_of_the_key_or_its_primary() {
        let good = "GOODSIG 1 name\nVALIDSIG BBBB 2026-01-01 1 0 4 0 1 8 01 AAAA";
        for (wanted, expected) in [(FINGERPRINT, true), ("BBBB", true), ("CCCC", false)] {
            assert_eq!(accepts(good, &SignedBy::Fingerprints(vec![wanted.into()])), expected, "{wanted}");
        }
    }

    #[test]
    fn armour() {
        let block = "-----BEGIN PGP PUBLIC KEY BLOCK-----\nVersion: x\n\nAAEC\nAwQF\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n";
        assert_eq!(dearmour(block).unwrap(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(dearmour(&block.replace("AAEC", "A?EC")), None);
        assert_eq!(dearmour("x"), None);
    }

    #[test]
    fn text_of_a_clear_signed_document() {
        let document =
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nA: 1\n- -x\n-----BEGIN PGP SIGNATURE-----\n\nxx\n";
        assert_eq!(unverified(document.as_bytes()), "A: 1\n-x\n");
        assert_eq!(unverified(b"A: 1\n"), "A: 1\n");
    }
}
