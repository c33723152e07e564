//! `bench restart`: how long a broker takes from its start to its first 200 on `/readyz`, after SIGKILL, on a full journal.
//!
//! The journal's bytes are those of its files up to the zeros at their ends: what is made ahead does not count. The
//! journal was just written, so the start reads it from the system's memory, not from the disk.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::journal_bytes::journal_bytes;
use super::load::Load;
use super::options::Against;
use super::producer::Plan;
use super::report::{MIB, f64_of, grouped, ratio};
use super::target::{Needs, Target};
use crate::cli::out;
use crate::client::Connection;
use crate::wire::frame::Encoding;

/// Each subscriber's window.
const WINDOW: u32 = 4_096;
/// Messages of the first piece, which says how many bytes each takes.
const FIRST_PIECE: u64 = 10_000;
/// Most messages of a piece.
const PIECE_MAX: u64 = 500_000;
/// How often `/readyz` is asked, and for how long.
const ASK_EVERY: Duration = Duration::from_millis(2);
const READY_WITHIN: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How large a journal: `64MiB`, `1GiB`.
    #[arg(long, default_value = "1GiB", value_parser = size)]
    journal_bytes: u64,
    /// How often the broker is killed and started on it.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Bytes of a message's content.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// How many services subscribe.
    #[arg(long, default_value_t = 3)]
    subscribers: usize,
    /// How many customers write.
    #[arg(long, default_value_t = 100_000)]
    customers: u64,
    #[command(flatten)]
    against: Against,
}

fn size(text: &str) -> Result<u64, String> {
    crate::config::bytes_of(text).ok_or_else(|| "accepted is a size: 4096, 64KiB, 1GiB".to_owned())
}

/// What was measured.
struct Restarts {
    journal_bytes: u64,
    messages: u64,
    /// How long each start took.
    took: Vec<Duration>,
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.against.tcp.is_some() {
        bail!("a running broker is not killed: this takes a broker of its own");
    }
    let needs = Needs { numbers: 1, services: arguments.subscribers.max(1), window: WINDOW };
    let mut target = Target::prepare(&arguments.against, needs).await?;
    let measured = measure(arguments, &mut target).await;
    let ended = target.end().await;
    let measured = measured?;
    ended?;
    report(arguments, &measured);
    Ok(())
}

async fn measure(arguments: &Arguments, target: &mut Target) -> anyhow::Result<Restarts> {
    let messages = fill(arguments, target).await?;
    let mut took = Vec::new();
    let mut bytes = 0;
    for _ in 0..arguments.rounds.max(1) {
        target.kill().await?;
        bytes = journal_bytes(target.data_dir()?)?;
        let begun = Instant::now();
        let http = target.start_again().await?.http;
        ready(http).await?;
        took.push(begun.elapsed());
        is_whole(target, messages).await?;
    }
    Ok(Restarts { journal_bytes: bytes, messages, took })
}

/// Publishes until the journal is as large as wanted, and gives how many messages that were.
async fn fill(arguments: &Arguments, target: &Target) -> anyhow::Result<u64> {
    let mut load = Load::open(target, Encoding::Binary).await?;
    let mut plan = Plan::new(FIRST_PIECE, arguments.customers, &target.numbers, arguments.size)?;
    let mut messages = 0;
    loop {
        load.run(target, plan.clone()).await?;
        messages += plan.messages;
        let bytes = journal_bytes(target.data_dir()?)?;
        let missing = arguments.journal_bytes.saturating_sub(bytes);
        if missing == 0 {
            return Ok(messages);
        }
        let each = (bytes / messages).max(1);
        plan.messages = missing.div_ceil(each).clamp(1, PIECE_MAX);
    }
}

/// Waits until `/readyz` answers 200.
async fn ready(http: SocketAddr) -> anyhow::Result<()> {
    let asking = async {
        while !is_ready(http).await {
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    timeout(READY_WITHIN, asking).await.context("the broker does not get ready")
}

async fn is_ready(http: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(http).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: broker\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with(b"HTTP/1.1 200 "))
    };
    ask.await.unwrap_or_default()
}

/// Checks that the channel still has every message.
async fn is_whole(target: &Target, messages: u64) -> anyhow::Result<()> {
    let service = target.services.first().context("there is no service")?;
    let Connection { welcome, .. } = target.service(service, Encoding::Binary).await?;
    let head = welcome.channels.first().context("the channel is gone")?.head.0;
    if head < messages {
        bail!("the channel's last offset is {head} after {messages} acknowledged messages");
    }
    Ok(())
}

fn report(arguments: &Arguments, measured: &Restarts) {
    let Restarts { journal_bytes, messages, took } = measured;
    let mut seconds: Vec<f64> = took.iter().map(Duration::as_secs_f64).collect();
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(seconds.len() / 2).copied().unwrap_or_default();
    let per_second = ratio(f64_of(*journal_bytes), median);
    if arguments.against.json {
        let report = json!({
            "bench": "restart", "durability": arguments.against.durability.word(),
            "journal_bytes": journal_bytes, "messages": messages, "customers": arguments.customers,
            "journal_bytes_asked": arguments.journal_bytes, "rounds": arguments.rounds, "size": arguments.size,
            "subscribers": arguments.subscribers,
            "ready_seconds": median, "ready_seconds_each": seconds, "bytes_per_second": per_second,
        });
        out::line(&report.to_string());
        return;
    }
    let each: Vec<String> = seconds.iter().map(|seconds| format!("{seconds:.3}")).collect();
    out::line(&format!(
        "ready {median:.3} s after its start (median of {} s): a journal of {:.1} MiB with {} messages of {} customers, \
         {:.0} MiB a second",
        each.join(", "),
        f64_of(*journal_bytes) / MIB,
        grouped(f64_of(*messages)),
        grouped(f64_of(arguments.customers)),
        per_second / MIB
    ));
    out::line(
        "after SIGKILL, the journal in the system's memory; every acknowledged message was there each time",
    );
}
