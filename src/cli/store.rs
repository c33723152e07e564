//! `store verify`: every byte of a stopped broker's journal.

use std::sync::Arc;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Configured, Failure, Outcome, out};
use crate::journal::disk::{Disk, RealDisk};
use crate::journal::{Verified, verify};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check every record of a stopped broker's journal, and name what is damaged by file and place.
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    configured: Configured,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let Verb::Verify(arguments) = &arguments.verb;
    let directory = arguments.configured.load()?.data_dir;
    // Looking must not make what is not there.
    if let Err(error) = std::fs::metadata(&directory) {
        let what = format!("the data directory {} can not be read", directory.display());
        return Err(Failure::io(anyhow::Error::new(error).context(what)));
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::at(&directory).map_err(Failure::io)?);
    let verified = verify(&disk).map_err(Failure::io)?;
    report(&verified, arguments.json);
    match verified.found.len() {
        0 => Ok(()),
        damaged => Err(Failure::failed(anyhow!("the journal is damaged in {damaged} places"))),
    }
}

fn report(verified: &Verified, as_json: bool) {
    let Verified { found, segments, records, streams, bytes } = verified;
    if as_json {
        let damage: Vec<_> = found
            .iter()
            .map(|found| json!({"file": found.place, "byte": found.position, "what": found.what}))
            .collect();
        let report = json!({
            "whole": found.is_empty(), "damage": damage,
            "segments": segments, "records": records, "streams": streams, "bytes": bytes,
        });
        out::line(&report.to_string());
        return;
    }
    for found in found {
        out::line(&format!("{}, byte {}: {}", found.place, found.position, found.what));
    }
    out::line(&format!(
        "{records} records of {streams} streams in {segments} segments, {bytes} bytes in all"
    ));
    if found.is_empty() {
        out::line("nothing is damaged");
    }
}
