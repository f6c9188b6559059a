//! What commands that work with binary caches share.

#![expect(clippy::disallowed_methods, reason = "key files are read")]

use std::path::Path;
use std::time::Duration;

use ampoule_store::cache::{Substituters, Trust};
use ampoule_store::local::LocalStore;
use ampoule_store::signature::{PublicKey, SecretKey, TrustedKeys};

use super::Failure;
use crate::caches::{CacheSettings, Caches};
use crate::reporter::{Event, Reporter};
use crate::sources::Machine;

/// The caches of the command line and of the configuration. One that cannot be reached is left out, with a warning.
pub(super) fn open_substituters(
    store: &LocalStore,
    addresses: &[String],
    keys: &[PublicKey],
    reporter: &dyn Reporter,
) -> Result<Substituters, Failure> {
    let machine = Machine::current();
    let settings = CacheSettings::load(&machine)?;
    let mut addresses: Vec<&String> = addresses.iter().chain(&settings.substituters).collect();
    addresses.dedup();
    if addresses.is_empty() {
        return Ok(Substituters::none());
    }
    let caches = remembering_caches(store, &machine, &settings)?;
    let mut open = Vec::new();
    for address in addresses {
        match caches.open(address) {
            Ok(cache) => open.push(cache),
            Err(error) => {
                let reason = crate::realise::chain(&error);
                reporter.report(Event::Warning(format!("the cache `{address}` is not asked: {reason}")));
            }
        }
    }
    let trusted: TrustedKeys = keys.iter().chain(&settings.trusted_keys).cloned().collect();
    Ok(Substituters::new(open, Trust::Keys(trusted)))
}

/// Opens caches, of whose servers it is remembered what they do not have.
pub(super) fn remembering_caches(
    store: &LocalStore,
    machine: &Machine,
    settings: &CacheSettings,
) -> Result<Caches, Failure> {
    let holds = Duration::from_secs(settings.absent_seconds);
    Ok(Caches::new(machine, store.store_dir().clone())?.remembering(store.home().join("absent"), holds))
}

/// The keys of the command line and of the configuration.
pub(super) fn trusted_keys(keys: &[PublicKey]) -> Result<TrustedKeys, Failure> {
    let settings = CacheSettings::load(&Machine::current())?;
    Ok(keys.iter().cloned().chain(settings.trusted_keys).collect())
}

/// Reads a secret key's file.
pub(super) fn read_key(path: &Path) -> Result<SecretKey, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read the key `{}`: {error}", path.display())))?;
    text.parse().map_err(|error| Failure::from_error(&error).context(format!("`{}`", path.display())))
}
