//! `token new`: a random token, and what the configuration needs of it.

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
    },
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let Verb::New { json: as_json } = arguments.verb;
    let token = fresh().map_err(Failure::io)?;
    let hash = TokenHash::of(&token);
    if as_json {
        out::line(&json!({"token": token, "sha256": hash.to_string()}).to_string());
    } else {
        out::line(&format!("token   {token}"));
        out::line(&format!("sha256  {hash}"));
    }
    Ok(())
}

/// A new random token.
pub(super) fn fresh() -> std::io::Result<String> {
    let mut raw = [0; TOKEN_BYTES];
    getrandom::fill(&mut raw).map_err(std::io::Error::other)?;
    Ok(raw.iter().fold(TOKEN_PREFIX.to_owned(), |token, byte| format!("{token}{byte:02x}")))
}
