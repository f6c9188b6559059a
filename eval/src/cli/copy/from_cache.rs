//! From a binary cache into the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use ampoule_store::cache::{Cache, Substituters, Trust};
use ampoule_store::local::LocalStore;
use ampoule_store::path::StorePath;

use super::{Arguments, Copied};
use crate::caches::{Caches, Modulo, realisation_record};
use crate::cli::caches::trusted_keys;
use crate::cli::subject::{Subjects, store_path};
use crate::cli::{Common, Failure, output};
use crate::sources::Machine;

pub(super) fn copy(
    common: &Common,
    arguments: &Arguments,
    local: &Arc<LocalStore>,
    address: &str,
) -> Result<Copied, Failure> {
    if arguments.no_closure {
        return Err(Failure::new("an object cannot be in the store without what it refers to")
            .hint("leave out `--no-closure`")
            .code(2));
    }
    let cache = Caches::new(&Machine::current(), local.store_dir().clone())?.open(address)?;
    let trust = match arguments.no_check_signatures {
        true => Trust::Everything,
        false => Trust::Keys(trusted_keys(&arguments.trusted_key)?),
    };
    let (mut outputs, mut paths) = (Vec::new(), BTreeSet::new());
    if arguments.all {
        for hash_part in cache.hash_parts()? {
            paths.extend(cache.narinfo_by_hash_part(&hash_part)?.map(|info| info.path.clone()));
        }
        outputs = believed(&cache, &trust)?;
    }
    let address = cache.address().to_owned();
    let substituters = Substituters::new(vec![cache], trust);
    if !arguments.all {
        select(common, arguments, local, &substituters, &mut paths, &mut outputs)?;
    }
    let paths: Vec<StorePath> = paths.into_iter().collect();
    let objects = substituters.substitute(local, &paths)?.objects;
    let mut copied = Copied { paths: objects.into_iter().map(|(path, _)| path).collect(), realisations: 0 };
    for (derivation, output, path) in outputs {
        if local.is_valid(&path)? && local.realisation(&derivation, &output)?.is_none() {
            local.record_realisation(&realisation_record(local, &derivation, &output, &path, &address)?)?;
            copied.realisations += 1;
        }
    }
    Ok(copied)
}

/// An output of a derivation, and what it became.
type Output = (StorePath, String, StorePath);

/// Everything the cache says of outputs that may be believed.
fn believed(cache: &Cache, trust: &Trust) -> Result<Vec<Output>, Failure> {
    let all = cache.realisations()?;
    let count = all.len();
    let believed = all.into_iter().filter(|one| trust.accepts(one.fingerprint().as_bytes(), &one.signatures));
    let believed: Vec<_> = believed.map(|one| (one.derivation, one.output, one.path)).collect();
    if believed.len() < count {
        output::message(&format!(
            "{} statements about outputs are not signed by a trusted key and not believed: those outputs will be built again\n",
            count - believed.len()
        ));
    }
    Ok(believed)
}

/// What the arguments name: paths as they are, and what outputs of labels are said to be.
fn select(
    common: &Common,
    arguments: &Arguments,
    local: &Arc<LocalStore>,
    substituters: &Substituters,
    paths: &mut BTreeSet<StorePath>,
    outputs: &mut Vec<Output>,
) -> Result<(), Failure> {
    let (labels, stored): (Vec<String>, Vec<String>) =
        arguments.subjects.iter().cloned().partition(|subject| super::selection::is_label(subject));
    for path in &stored {
        paths.insert(store_path(local.store_dir(), path)?);
    }
    if labels.is_empty() {
        return Ok(());
    }
    let subjects = Subjects::find(common, &labels, || Ok(Arc::clone(local)))?;
    let modulo = Modulo::new(&subjects.derivations);
    for subject in &subjects.chosen {
        let derivation = &subjects.derivations[&subject.derivation];
        let known = derivation.output_path(local.store_dir(), &subject.output)?;
        let hash = || modulo.hash(derivation, local.store_dir());
        let told = || {
            let told = substituters.realisation(&subject.derivation, &subject.output, &hash);
            told.map(|(realisation, _)| realisation.path)
        };
        let path = known.or_else(told).ok_or_else(|| {
            Failure::new(format!("the cache does not say what `{}` became", subject.label))
                .hint("or nobody who is trusted signed it: see `--trusted-key`")
        })?;
        outputs.push((subject.derivation.clone(), subject.output.clone(), path.clone()));
        paths.insert(path);
    }
    Ok(())
}
