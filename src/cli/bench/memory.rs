//! `bench memory`: what an idle connection and an idle conversation keep in the broker's memory.
//!
//! Counted is what of the process is in memory (RSS), so with the allocator's slack and with whatever the broker keeps
//! for a connection or a conversation anywhere. Not counted are the system's socket buffers.
//!
//! A message's id is known for days, whoever wrote it. So the same number of messages is published twice, each time to a
//! broker of its own: all by one customer, and each by another. What the second takes more is the conversations'.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::load::Load;
use super::options::Against;
use super::producer::{Plan, wall_ms};
use super::report::{Bar, MIB, f64_of, grouped, ratio, with};
use super::target::{Needs, Target};
use crate::cli::out;
use crate::wire::frame::Encoding;
use crate::wire::message::DeliverMode;

/// Each connection's window: what an adapter gets that does not ask for another.
const WINDOW: u32 = crate::wire::message::WINDOW_DEFAULT;
/// Bytes of a message's content.
const SIZE: usize = 64;
/// Messages before the first look, so that what the broker takes once is there.
const WARM_UP: u64 = 20_000;
/// Connections before the first look, as a part of those that are counted: for the same reason.
const FIRST_CONNECTIONS_PART: u64 = 10;
/// How often memory is looked at until it stands still, and for how long at most.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOKS_MAX: usize = 40;
/// Memory stands still when two looks differ by less than one part in so many.
const STILL_PART: u64 = 1_000;

/// Of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Of {
    Connections,
    Conversations,
    Both,
}

/// What idle connections are handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Deliver {
    Share,
    None,
}

impl Deliver {
    fn word(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::None => "none",
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Of what.
    #[arg(long, value_enum, default_value = "both")]
    of: Of,
    /// How many adapters connect and do nothing.
    #[arg(long, default_value_t = 1_000)]
    connections: u64,
    /// What they say in `hello`.
    #[arg(long, value_enum, default_value = "share")]
    deliver: Deliver,
    /// How many customers write once.
    #[arg(long, default_value_t = 1_000_000)]
    conversations: u64,
    /// How many services subscribe.
    #[arg(long, default_value_t = 3)]
    subscribers: usize,
    #[command(flatten)]
    against: Against,
}

/// How memory grew.
struct Growth {
    count: u64,
    before_bytes: u64,
    after_bytes: u64,
}

impl Growth {
    /// It may have shrunk.
    fn bytes(&self) -> f64 {
        f64_of(self.after_bytes) - f64_of(self.before_bytes)
    }

    fn bytes_each(&self) -> f64 {
        ratio(self.bytes(), f64_of(self.count))
    }

    fn json(&self) -> Value {
        let Self { count, before_bytes, after_bytes } = self;
        json!({"count": count, "rss_before_bytes": before_bytes, "rss_after_bytes": after_bytes})
    }
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { connections, deliver, conversations, subscribers, .. } = arguments;
    let mut report = json!({
        "bench": "memory", "durability": arguments.against.own_durability(), "connections": connections, "deliver": deliver.word(), "conversations": conversations,
        "subscribers": subscribers, "connection": null, "conversation": null,
    });
    let mut lines = Vec::new();
    if arguments.of != Of::Conversations {
        let growth = on_target(arguments, Kind::Connections).await?;
        let connection = with(growth.json(), json!({"bytes_each": growth.bytes_each()}));
        report = with(report, json!({"connection": connection}));
        lines.push(format!(
            "an idle connection: {} bytes ({} adapters connected: RSS from {:.1} to {:.1} MiB)",
            grouped(growth.bytes_each()),
            grouped(f64_of(growth.count)),
            f64_of(growth.before_bytes) / MIB,
            f64_of(growth.after_bytes) / MIB
        ));
    }
    if arguments.of != Of::Connections {
        let one = on_target(arguments, Kind::Messages { of_one: true }).await?;
        let many = on_target(arguments, Kind::Messages { of_one: false }).await?;
        let each = ratio(many.bytes() - one.bytes(), f64_of(many.count));
        let conversation = json!({
            "bytes_each": each, "message_bytes_each": one.bytes_each(),
            "one_customer": one.json(), "a_customer_each": many.json(),
        });
        report = with(report, json!({"conversation": conversation}));
        lines.push(format!(
            "an idle conversation: {} bytes ({} messages of as many customers: RSS up {:.1} MiB; as many of one \
             customer: up {:.1} MiB)",
            grouped(each),
            grouped(f64_of(many.count)),
            many.bytes() / MIB,
            one.bytes() / MIB
        ));
        lines.push(format!("a message that is known by its id: {} bytes", grouped(one.bytes_each())));
    }
    if arguments.against.json {
        out::line(&report.to_string());
    } else {
        lines.iter().for_each(|line| out::line(line));
        out::line(
            "counted: the broker's memory (RSS) with the allocator's slack; not the system's socket buffers",
        );
    }
    Ok(())
}

/// What makes memory grow.
#[derive(Clone, Copy)]
enum Kind {
    Connections,
    Messages { of_one: bool },
}

async fn on_target(arguments: &Arguments, kind: Kind) -> anyhow::Result<Growth> {
    let needs = Needs { numbers: 1, services: arguments.subscribers.max(1), window: WINDOW };
    let target = Target::prepare(&arguments.against, needs).await?;
    let growth = match kind {
        Kind::Connections => connections(arguments, &target).await,
        Kind::Messages { of_one } => messages(arguments, &target, of_one).await,
    };
    let ended = target.end().await;
    let growth = growth?;
    ended?;
    Ok(growth)
}

async fn connections(arguments: &Arguments, target: &Target) -> anyhow::Result<Growth> {
    let load = Load::open(target, Encoding::Binary).await?;
    let deliver = match arguments.deliver {
        Deliver::Share => DeliverMode::Share,
        Deliver::None => DeliverMode::None,
    };
    let service = target.services.first().context("there is no service")?;
    let first = arguments.connections.div_ceil(FIRST_CONNECTIONS_PART);
    let opened = Arc::new(AtomicU64::new(0));
    let bar = Bar::follow(first + arguments.connections, "connections", Arc::clone(&opened));
    let mut idle = Vec::new();
    let mut before_bytes = still(target).await?;
    for at in 0..first + arguments.connections {
        if at == first {
            before_bytes = still(target).await?;
        }
        idle.push(target.adapter(service, &format!("idle-{at}"), Encoding::Binary, deliver).await?);
        opened.store(at + 1, Ordering::Relaxed);
    }
    let after_bytes = still(target).await?;
    drop((bar, idle, load));
    Ok(Growth { count: arguments.connections, before_bytes, after_bytes })
}

async fn messages(arguments: &Arguments, target: &Target, of_one: bool) -> anyhow::Result<Growth> {
    let mut load = Load::open(target, Encoding::Binary).await?;
    warm_up(&mut load, target).await?;
    let before_bytes = still(target).await?;
    let count = arguments.conversations.max(1);
    let mut plan = Plan::new(count, if of_one { 1 } else { count }, &target.numbers, SIZE)?;
    // On a broker that ran before, these are others than before.
    plan.first_customer = if of_one { 0 } else { 1 + wall_ms() / 1_000 % 1_000 * 1_000_000 };
    load.run(target, plan).await?;
    let after_bytes = still(target).await?;
    Ok(Growth { count, before_bytes, after_bytes })
}

async fn warm_up(load: &mut Load, target: &Target) -> anyhow::Result<()> {
    load.run(target, Plan::new(WARM_UP, 1, &target.numbers, SIZE)?).await?;
    Ok(())
}

/// The broker's memory when it stands still, in bytes.
async fn still(target: &Target) -> anyhow::Result<u64> {
    let mut last = target.resident_bytes()?;
    for _ in 0..LOOKS_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = target.resident_bytes()?;
        if now.abs_diff(last) <= now / STILL_PART {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}
