//! The same load as the broker's, on a relay: one producer, as many subscribers, frames as long, the same schedule.
//!
//! ```text
//!  byte  0              8
//!        ┌──────────────┬──────────────┐
//!        │ when it was  │ anything     │   a frame; all of a run are of one length
//!        │ due, ns u64  │              │
//!        └──────────────┴──────────────┘
//! ```

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::measured::{Latency, Measured};
use super::relay::{READ_BYTES, READY};
use super::schedule::{Schedule, run_producer};
use super::subscriber::STUCK_AFTER;
use super::usage::Usage;

/// What a delivery has beside its content, in bytes, about: the relay's frames are as long as the broker's.
const FRAME_FIELDS_BYTES: usize = 120;
/// How many frames the producer writes at once, at most: as the broker's.
const FRAMES_AT_ONCE: u64 = 64;

/// What is relayed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relayed {
    pub(super) messages: u64,
    /// Bytes of a message's content.
    pub(super) size: usize,
    pub(super) subscribers: usize,
    pub(super) schedule: Schedule,
}

/// Runs the load on a relay's process of its own, which syncs to a file in `syncs_in` if there is one.
pub(super) async fn run(relayed: Relayed, syncs_in: Option<&Path>) -> anyhow::Result<Measured> {
    let (mut child, address) = start(relayed.subscribers, syncs_in).await?;
    let producer = TcpStream::connect(address).await?;
    producer.set_nodelay(true)?;
    let frame_bytes = relayed.size + FRAME_FIELDS_BYTES;
    let mut subscribers = Vec::new();
    for _ in 0..relayed.subscribers {
        subscribers.push(TcpStream::connect(address).await?);
    }
    let (mut reads, writes) = producer.into_split();
    timeout(STUCK_AFTER, reads.read_exact(&mut [0; READY.len()]))
        .await
        .context("the relay is not ready")??;
    let used = || child.id().and_then(Usage::of);
    let before = used();
    let begun = Instant::now();
    let mut receiving = JoinSet::new();
    for subscriber in subscribers {
        receiving.spawn(receive(subscriber, relayed, frame_bytes, begun));
    }
    let schedule = relayed.schedule;
    let sending = tokio::spawn(run_producer(schedule, send(writes, relayed, frame_bytes, begun)));
    let mut latency = Latency::new()?;
    while let Some(received) = receiving.join_next().await {
        latency.add(&received??);
    }
    let took = begun.elapsed();
    let usage = before.and_then(|before| Some(used()? - before));
    // The relay ends when its producer does.
    drop((sending.await??, reads));
    timeout(STUCK_AFTER, child.wait()).await.context("the relay does not end")??;
    let done = relayed.messages * relayed.subscribers as u64;
    Ok(Measured { published: relayed.messages, done, took, usage, latency })
}

async fn start(subscribers: usize, syncs_in: Option<&Path>) -> anyhow::Result<(Child, SocketAddr)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "relay", "--subscribers", &subscribers.to_string()]);
    if let Some(directory) = syncs_in {
        command.arg("--file").arg(directory.join("relay"));
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true).spawn()?;
    let stdout = child.stdout.take().context("the relay has no output")?;
    let line = BufReader::new(stdout).lines().next_line().await?.context("the relay ended")?;
    Ok((child, line.parse()?))
}

async fn send(
    mut to: OwnedWriteHalf,
    relayed: Relayed,
    frame_bytes: usize,
    begun: Instant,
) -> anyhow::Result<OwnedWriteHalf> {
    let mut frames = vec![b'x'; frame_bytes * usize::try_from(FRAMES_AT_ONCE)?];
    let mut at = 0;
    while at < relayed.messages {
        let most = FRAMES_AT_ONCE.min(relayed.messages - at);
        let due = relayed.schedule.wait(at, most, begun);
        let now = begun.elapsed();
        let bytes = frame_bytes * usize::try_from(due)?;
        let frames = frames.get_mut(..bytes).context("more frames than there is room for")?;
        for (frame, at) in frames.chunks_exact_mut(frame_bytes).zip(at..) {
            let due_ns = u64::try_from(relayed.schedule.due(at).unwrap_or(now).as_nanos())?;
            if let Some(field) = frame.first_chunk_mut() {
                *field = due_ns.to_le_bytes();
            }
        }
        to.write_all(frames).await?;
        at += due;
    }
    Ok(to)
}

/// Takes every frame. It looks at the first and the last of each read, or at all on a schedule, as the broker's do.
async fn receive(
    mut from: TcpStream,
    relayed: Relayed,
    frame_bytes: usize,
    begun: Instant,
) -> anyhow::Result<Latency> {
    let mut latency = Latency::new()?;
    let mut buffer = vec![0; READ_BYTES + frame_bytes];
    // Bytes of a frame whose rest has not come yet.
    let mut kept = 0;
    let mut left = relayed.messages;
    while left > 0 {
        let room = buffer.get_mut(kept..).context("a frame is longer than the buffer")?;
        let read = timeout(STUCK_AFTER, from.read(room)).await.context("the relay is stuck")??;
        if read == 0 {
            bail!("the relay ended early");
        }
        let here = kept + read;
        let frames = buffer.get(..here).unwrap_or_default().chunks_exact(frame_bytes);
        let count = frames.len();
        let mut look = |frame: &[u8]| {
            if let Some(due) = frame.first_chunk() {
                let due = Duration::from_nanos(u64::from_le_bytes(*due));
                latency.record(begun.elapsed().saturating_sub(due));
            }
        };
        if relayed.schedule.is_paced() {
            frames.for_each(look);
        } else {
            let ends = [(count > 1).then(|| frames.clone().next()).flatten(), frames.clone().next_back()];
            ends.into_iter().flatten().for_each(&mut look);
        }
        left = left.saturating_sub(count as u64);
        kept = here - count * frame_bytes;
        buffer.copy_within(here - kept..here, 0);
    }
    Ok(latency)
}
