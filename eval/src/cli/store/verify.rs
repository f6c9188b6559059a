//! `ampoule store verify`: whether objects still are what they were.

#![expect(clippy::disallowed_methods, reason = "the clock says what was verified lately")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ampoule_store::local::{Finding, VerifyOptions};
use serde_json::json;

use crate::cli::context::open_to_collect;
use crate::cli::subject::store_path;
use crate::cli::{Common, Failure, output};

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// Store paths [default: everything in the store]
    paths: Vec<String>,
    /// Leave out what was found whole in the last days
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u64>,
    /// Read at most so many bytes in a second
    #[arg(long, value_name = "BYTES")]
    rate: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let store = open_to_collect(common)?;
    let paths = arguments.paths.iter().map(|path| store_path(store.store_dir(), path));
    let paths = paths.collect::<Result<std::collections::BTreeSet<_>, _>>()?;
    if let Some(unknown) = paths.iter().find(|path| !matches!(store.registered(path), Ok(Some(_)))) {
        return Err(Failure::new(format!("`{unknown}` is not registered in the store `{}`", store.home().display())));
    }
    let options = VerifyOptions {
        trusted_since: arguments.older_than.map(days_ago),
        only: (!paths.is_empty()).then_some(paths),
        bytes_per_second: arguments.rate,
    };
    let verified = store.verify_some(&options)?;
    store.renew_reserve();
    let findings = &verified.findings;
    if arguments.json {
        output::json(&json!({
            "findings": findings.iter().map(describe).collect::<Vec<_>>(),
            "objects": verified.objects,
            "bytes": verified.bytes,
            "trusted": verified.trusted,
        }))?;
    } else {
        for finding in findings {
            output::line(&describe(finding))?;
        }
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} things are wrong with the store `{}`", store.home().display()))
            .hint("`ampoule store repair --all` replaces broken objects; `ampoule store delete` removes what is not registered")),
    }
}

fn days_ago(days: u64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let then = now.saturating_sub(Duration::from_secs(days.saturating_mul(24 * 3600)));
    i64::try_from(then.as_secs()).unwrap_or(i64::MAX)
}

/// What was found, with its causes.
pub(super) fn describe(finding: &Finding) -> String {
    let mut text = finding.to_string();
    let mut cause = std::error::Error::source(finding);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
