//! This machine's limit: a process that takes bytes from one connection and writes them to several, and nothing else.
//!
//! A *bare* relay does only that. A *syncing* relay appends what it reads to a file and syncs it before it passes it on:
//! a commit for all that came meanwhile, as the broker's journal makes them. This is the process; its load is
//! [`super::relay_load`].

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::cli::lifeline::Lifeline;
use crate::cli::out;

/// What the relay reads at once, in bytes: the largest commit of the journal.
pub(super) const READ_BYTES: usize = 1 << 20;
/// What the relay says to its producer when all are connected.
pub(super) const READY: [u8; 1] = *b"!";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How many connections it writes to.
    #[arg(long)]
    subscribers: usize,
    /// Where it appends and syncs first.
    #[arg(long)]
    file: Option<PathBuf>,
}

/// Relays until the producer ends, or who has started it.
pub(super) async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let mut lifeline = Lifeline::of_stdin()?;
    tokio::select! {
        relayed = relay(arguments) => relayed,
        () = lifeline.broken() => Ok(()),
    }
}

/// The first connection is the producer's, the others are the subscribers'.
async fn relay(arguments: &Arguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    if !out::try_line(&listener.local_addr()?.to_string()) {
        bail!("nobody reads where the relay listens");
    }
    let (mut producer, _) = listener.accept().await?;
    let mut to = Vec::new();
    for _ in 0..arguments.subscribers {
        let (subscriber, _) = listener.accept().await?;
        subscriber.set_nodelay(true)?;
        to.push(subscriber);
    }
    producer.write_all(&READY).await?;
    let mut file = arguments.file.as_ref().map(std::fs::File::create).transpose()?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = producer.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        if let Some(file) = &mut file {
            file.write_all(bytes)?;
            file.sync_data()?;
        }
        for subscriber in &mut to {
            subscriber.write_all(bytes).await?;
        }
    }
}
