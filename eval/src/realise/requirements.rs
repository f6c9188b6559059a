//! What a derivation asks of the machine that builds it, and whether this one has it.

use ampoule_derivations::derivation::Derivation;

use super::LimitOverrides;
use super::attributes::{AttributeError, Attributes};
use super::outcome::Failure;
use crate::sandbox::Limits;

/// What `requiredSystemFeatures` may ask for: root file systems, which are ours, and what every machine of Nix claims.
const FEATURES: [&str; 5] = ["benchmark", "big-parallel", "ca-derivations", "nixos-test", "rootfs"];

/// Whether this machine builds the derivation; if not, why.
pub(super) fn check_requirements(derivation: &Derivation) -> Result<(), Failure> {
    let own = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    if derivation.system != own {
        let message = format!("it is to be built on `{}`, and this machine is `{own}`", derivation.system);
        return Err(Failure::machine(message));
    }
    let attributes = Attributes::of(derivation).map_err(unreadable)?;
    check_features(&attributes)?;
    if attributes.flag("__noChroot", false).map_err(unreadable)? {
        let message = "it has `__noChroot` set, and nothing is built outside of the sandbox here";
        return Err(Failure::machine(message).hint("make what it needs an input, and remove `__noChroot`"));
    }
    if attributes.flag("__impure", false).map_err(unreadable)? {
        let message = "it has `__impure` set, and nothing with changing results is built here";
        return Err(Failure::machine(message).hint("pin what it fetches by a hash: a derivation with `outputHash`"));
    }
    Ok(())
}

/// Whether the derivation may come from a cache.
pub(super) fn allows_substitutes(derivation: &Derivation) -> bool {
    Attributes::of(derivation).and_then(|attributes| attributes.flag("allowSubstitutes", true)).unwrap_or(true)
}

/// How much the derivation may use: what the caller insists on, else what it says itself, else the usual.
pub(super) fn limits(
    attributes: &Attributes<'_>,
    usual: &Limits,
    insisted: &LimitOverrides,
) -> Result<Limits, Failure> {
    let limit = |insisted: Option<u64>, name: &str, usual: u64| {
        let limit = match insisted {
            Some(limit) => limit,
            None => attributes.number(name).map_err(unreadable)?.unwrap_or(usual),
        };
        // As in Nix.
        Ok(if limit == 0 { u64::MAX } else { limit })
    };
    Ok(Limits {
        timeout_seconds: limit(insisted.timeout_seconds, "__timeout", usual.timeout_seconds)?,
        silence_seconds: limit(insisted.silence_seconds, "__maxSilentTime", usual.silence_seconds)?,
        log_bytes: limit(insisted.log_bytes, "__maxLogSize", usual.log_bytes)?,
        ..usual.clone()
    })
}

fn check_features(attributes: &Attributes<'_>) -> Result<(), Failure> {
    let required = attributes.strings("requiredSystemFeatures").map_err(unreadable)?.unwrap_or_default();
    let missing: Vec<&str> =
        required.iter().map(String::as_str).filter(|feature| !FEATURES.contains(feature)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "it requires the system features `{}`, and this machine has `{}`",
        missing.join("`, `"),
        FEATURES.join("`, `")
    );
    Err(Failure::machine(message))
}

fn unreadable(error: AttributeError) -> Failure {
    Failure::build(error.to_string())
}

#[cfg(test)]
mod tests {
    use ampoule_derivations::derivation::{DerivationBuilder, ModuloHashes};
    use ampoule_store::path::StoreDir;

    use super::*;

    fn refused(builder: DerivationBuilder) -> String {
        let (_, derivation) = builder.instantiate(&StoreDir::default(), &mut ModuloHashes::new()).unwrap();
        check_requirements(&derivation).map_or_else(|failure| failure.message, |()| String::new())
    }

    #[test]
    fn limits_come_from_the_caller_then_the_derivation_then_the_usual_ones() {
        let builder = DerivationBuilder::new("x", "x", "x").env("__timeout", "5").env("__maxSilentTime", "0");
        let (_, derivation) = builder.instantiate(&StoreDir::default(), &mut ModuloHashes::new()).unwrap();
        let attributes = Attributes::of(&derivation).unwrap();
        let usual = Limits { timeout_seconds: 60, silence_seconds: 60, log_bytes: 60, ..Limits::default() };
        let given = |insisted| limits(&attributes, &usual, &insisted).unwrap();
        let own = given(LimitOverrides::default());
        assert_eq!((own.timeout_seconds, own.silence_seconds, own.log_bytes), (5, u64::MAX, 60));
        let insisted = given(LimitOverrides { timeout_seconds: Some(7), silence_seconds: Some(8), log_bytes: Some(0) });
        assert_eq!((insisted.timeout_seconds, insisted.silence_seconds, insisted.log_bytes), (7, 8, u64::MAX));
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        let own = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        let plain = || DerivationBuilder::new("x", &own, "/bin/sh");
        assert_eq!(refused(plain().env("requiredSystemFeatures", "big-parallel rootfs").env("__noChroot", "")), "");
        for (builder, word) in [
            (plain().env("requiredSystemFeatures", "big-parallel kvm"), "`kvm`"),
            (plain().env("__noChroot", "1"), "`__noChroot`"),
            (plain().env("__impure", "1"), "`__impure`"),
            (DerivationBuilder::new("x", "sparc-solaris", "/bin/sh"), "`sparc-solaris`"),
        ] {
            assert!(refused(builder).contains(word), "{word}");
        }
        let json = serde_json::json!({ "requiredSystemFeatures": ["uid-range"] });
        let structured = plain().structured_attributes(json.as_object().unwrap().clone());
        assert!(refused(structured).contains("`uid-range`"));
    }
}
