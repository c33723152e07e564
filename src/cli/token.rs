//! `token new`: a random token, and what the configuration needs of it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Outcome, out};
use crate::config::TokenHash;

/// Random bytes of a token: 256 bits, so that nobody guesses one.
const TOKEN_BYTES: usize = 32;
/// What every token begins with, so that one that leaks is recognised.
const TOKEN_PREFIX: &str = "sl_";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print a new random token, and its SHA-256 for the configuration.
    New {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// Write NAME.token and NAME.sha256, for the owner alone, instead of printing them; no file is written over.
        #[arg(long, value_name = "NAME", conflicts_with = "json")]
        save: Option<PathBuf>,
    },
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let Verb::New { json: as_json, save } = &arguments.verb;
    let token = fresh().map_err(Failure::io)?;
    let hash = TokenHash::of(&token);
    if let Some(name) = save {
        write(name, "sha256", &hash.to_string())?;
        write(name, "token", &token)?;
        out::line(&format!(
            "{0}.token is for who connects, {0}.sha256 for the configuration",
            name.display()
        ));
    } else if *as_json {
        out::line(&json!({"token": token, "sha256": hash.to_string()}).to_string());
    } else {
        out::line(&format!("token   {token}"));
        out::line(&format!("sha256  {hash}"));
    }
    Ok(())
}

fn write(name: &Path, what: &str, text: &str) -> Outcome {
    let mut path = name.as_os_str().to_owned();
    path.push(format!(".{what}"));
    let path = PathBuf::from(path);
    let failed = |error| Failure::io(anyhow::Error::new(error).context(path.display().to_string()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    writeln!(file, "{text}").map_err(failed)
}

/// A new random token.
pub(super) fn fresh() -> std::io::Result<String> {
    let mut raw = [0; TOKEN_BYTES];
    getrandom::fill(&mut raw).map_err(std::io::Error::other)?;
    Ok(raw.iter().fold(TOKEN_PREFIX.to_owned(), |token, byte| format!("{token}{byte:02x}")))
}
