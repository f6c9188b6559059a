//! `ampoule store optimise`: identical files share their bytes.

use ampoule_store::local::{Intent, Optimised};
use serde_json::json;

use crate::cli::context::open_store;
use crate::cli::subject::store_path;
use crate::cli::{Common, Failure, output};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Files share by reflink where the file system can, else by hard link. Executable files never share with others.
What was looked at once is not read again.")]
pub(in crate::cli) struct Arguments {
    /// Store paths [default: everything that was not looked at yet]
    paths: Vec<String>,
    /// Say what would be saved, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let store = open_store(common)?;
    let paths = arguments.paths.iter().map(|path| store_path(store.store_dir(), path));
    let paths = paths.collect::<Result<Vec<_>, _>>()?;
    let only = (!paths.is_empty()).then_some(&paths[..]);
    let intent = if arguments.dry_run { Intent::Count } else { Intent::Share };
    let optimised = store.optimise(only, intent)?;
    if arguments.json {
        let Optimised { objects, files, shared, saved_bytes, refused } = optimised;
        return output::json(&json!({
            "objects": objects,
            "files": files,
            "shared": shared,
            "savedBytes": saved_bytes,
            "refused": refused,
        }));
    }
    let (verb, Optimised { files, shared, saved_bytes, refused, .. }) =
        (if arguments.dry_run { "would share" } else { "share" }, optimised);
    output::line(&format!(
        "{shared} of {files} new files {verb} the bytes of others, which saves {saved_bytes} bytes"
    ))?;
    if refused > 0 {
        output::message(&format!("{refused} files could not share: see `ampoule store verify`\n"));
    }
    Ok(())
}
