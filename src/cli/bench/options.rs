//! What every kind of load takes: which broker, how it acknowledges, how the report is written.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::wire::frame::Encoding;

/// When a record counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Durability {
    Fsync,
    Os,
}

impl Durability {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
        }
    }
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Encodings {
    Json,
    Binary,
    /// One after the other, in turn.
    Both,
}

impl Encodings {
    pub(super) fn each(self) -> &'static [Encoding] {
        match self {
            Self::Json => &[Encoding::JsonLines],
            Self::Binary => &[Encoding::Binary],
            Self::Both => &[Encoding::Binary, Encoding::JsonLines],
        }
    }
}

/// The option's word for an encoding.
pub(super) fn encoding_word(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::JsonLines => "json",
        Encoding::Binary => "binary",
    }
}

/// Which broker, and how the report is written.
#[derive(Debug, Clone, Args)]
pub(super) struct Against {
    /// When the own broker acknowledges.
    #[arg(long, value_enum, default_value = "fsync")]
    pub(super) durability: Durability,
    /// Where the own broker's journal, and the relay's file, lie; else in the system's temporary directory.
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// A running broker instead of an own one.
    #[arg(long, value_name = "ADDR", requires_all = ["portal", "number", "gateway", "service", "tokens"])]
    pub(super) tcp: Option<SocketAddr>,
    /// The running broker's portal.
    #[arg(long)]
    pub(super) portal: Option<String>,
    /// Its number, which nobody else writes to; named again for each that is used.
    #[arg(long)]
    pub(super) number: Vec<String>,
    /// Its gateway.
    #[arg(long)]
    pub(super) gateway: Option<String>,
    /// Its services; named again for each.
    #[arg(long)]
    pub(super) service: Vec<String>,
    /// A directory with a file for each service's and the gateway's token, named as they are.
    #[arg(long, value_name = "DIR")]
    pub(super) tokens: Option<PathBuf>,
    /// The running broker's process on this machine, for its processor time and its memory.
    #[arg(long, requires = "tcp")]
    pub(super) pid: Option<u32>,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

impl Against {
    /// When the own broker acknowledges; nothing of one that was there.
    pub(super) fn own_durability(&self) -> Option<&'static str> {
        self.tcp.is_none().then(|| self.durability.word())
    }
}
