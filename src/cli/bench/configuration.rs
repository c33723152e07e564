//! The own broker's configuration: as many numbers and services as a load asks for, and their tokens.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::options::Durability;
use crate::cli::token;
use crate::config::TokenHash;

/// The own broker's portal and gateway.
pub(super) const PORTAL: &str = "bench";
pub(super) const GATEWAY: &str = "load";

/// What was written.
pub(super) struct Written {
    /// The configuration's file.
    pub(super) file: PathBuf,
    /// A directory with each token, in a file named as its service or gateway.
    pub(super) tokens: PathBuf,
    /// Where the broker puts its journal.
    pub(super) data_dir: PathBuf,
    pub(super) numbers: Vec<String>,
    pub(super) services: Vec<String>,
}

/// Writes a configuration with so many numbers and services into `directory`.
pub(super) fn write(
    directory: &Path,
    durability: Durability,
    numbers: usize,
    services: usize,
) -> anyhow::Result<Written> {
    let numbers: Vec<String> = (0..numbers.max(1)).map(|at| format!("+1555{at:07}")).collect();
    let services: Vec<String> = (1..=services.max(1)).map(|at| format!("service-{at}")).collect();
    let tokens = directory.join("tokens");
    std::fs::create_dir_all(&tokens)?;
    let data_dir = directory.join("data");
    // All that connects comes from this address, a storm too.
    let mut text = format!(
        "data_dir = {data_dir:?}\n[tcp]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [journal]\ndurability = \"{}\"\n[limits]\npeer_connections_per_second = 0\n[[portals]]\nid = \"{PORTAL}\"\n",
        durability.word()
    );
    let named = services.iter().map(|service| ("services", service.as_str()));
    for (kind, name) in named.chain([("gateways", GATEWAY)]) {
        let token = token::fresh()?;
        std::fs::write(tokens.join(name), &token)?;
        let hash = TokenHash::of(&token);
        write!(text, "[[portals.{kind}]]\nid = \"{name}\"\ntoken_sha256 = \"{hash}\"\n")?;
    }
    for number in &numbers {
        write!(text, "[[portals.numbers]]\nnumber = \"{number}\"\n")?;
    }
    let file = directory.join("bench.toml");
    std::fs::write(&file, text)?;
    Ok(Written { file, tokens, data_dir, numbers, services })
}
