//! This machine's limit: a process that takes bytes from one connection and writes them to several, and nothing else.
//!
//! The same topology as the broker under fan-out, frames of the same size, in a process of its own. Where the broker
//! acknowledges after the sync, the relay too appends what it reads to a file and syncs it before it passes it on.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Arguments, Durability, rate};
use crate::cli::out;

/// What the relay reads at once, in bytes: what the journal gathers for one commit.
const READ_BYTES: usize = 256 << 10;
/// What a delivery has beside its content, in bytes, about: the relay's frames are as long as the broker's.
const FRAME_FIELDS_BYTES: usize = 120;
/// How many frames the relay's producer writes at once.
const FRAMES_AT_ONCE: u64 = 64;
/// How long nothing may come.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// The relay's process: the first connection is the producer's, the others are the subscribers'.
pub(super) async fn serve(subscribers: usize, file: Option<&Path>) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    if !out::try_line(&listener.local_addr()?.to_string()) {
        bail!("nobody reads where the relay listens");
    }
    let (mut producer, _) = listener.accept().await?;
    let mut to = Vec::new();
    for _ in 0..subscribers {
        let (subscriber, _) = listener.accept().await?;
        subscriber.set_nodelay(true)?;
        to.push(subscriber);
    }
    // Ready: all are here.
    producer.write_all(b"!").await?;
    let mut file = file.map(std::fs::File::create).transpose()?;
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

/// Relays as many deliveries as the broker made, and gives how many a second.
pub(super) async fn run(arguments: &Arguments, deliveries: u64, directory: &Path) -> anyhow::Result<f64> {
    let subscribers = arguments.subscribers.max(1);
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "relay", "--subscribers", &subscribers.to_string()]);
    if arguments.durability == Durability::Fsync {
        command.arg("--relay-file").arg(directory.join("relay"));
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let stdout = child.stdout.take().context("the relay has no output")?;
    let line = BufReader::new(stdout).lines().next_line().await?.context("the relay ended")?;
    let address: SocketAddr = line.parse()?;
    let mut producer = TcpStream::connect(address).await?;
    producer.set_nodelay(true)?;
    let frame = arguments.size + FRAME_FIELDS_BYTES;
    let messages = deliveries / subscribers as u64;
    let bytes_each = messages * frame as u64;
    let mut receiving = JoinSet::new();
    for _ in 0..subscribers {
        let mut subscriber = TcpStream::connect(address).await?;
        receiving.spawn(async move {
            let mut buffer = vec![0; READ_BYTES];
            let mut here = 0;
            while here < bytes_each {
                let read = timeout(STUCK_AFTER, subscriber.read(&mut buffer))
                    .await
                    .context("the relay is stuck")??;
                if read == 0 {
                    bail!("the relay ended early");
                }
                here += read as u64;
            }
            Ok(())
        });
    }
    let mut ready = [0];
    producer.read_exact(&mut ready).await?;
    let begun = Instant::now();
    let chunk = vec![b'x'; frame * usize::try_from(FRAMES_AT_ONCE).unwrap_or(1)];
    let sending = tokio::spawn(async move {
        let mut left = bytes_each;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            producer.write_all(chunk.get(..now).unwrap_or_default()).await?;
            left -= now as u64;
        }
        Ok::<_, anyhow::Error>(producer)
    });
    while let Some(received) = receiving.join_next().await {
        received??;
    }
    let took = begun.elapsed();
    drop(sending.await??);
    child.wait().await?;
    Ok(rate(messages * subscribers as u64, took))
}
