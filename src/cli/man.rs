//! `man DIR`: the manual pages, one for each verb, made from the same text as `--help`. For packages; hidden.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::{Cli, Failure, Outcome};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where the pages are put.
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let at = |error: std::io::Error| {
        Failure::io(anyhow::Error::new(error).context(arguments.directory.display().to_string()))
    };
    std::fs::create_dir_all(&arguments.directory).map_err(at)?;
    clap_mangen::generate_to(Cli::command(), &arguments.directory).map_err(at)
}
