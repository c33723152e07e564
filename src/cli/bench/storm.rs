//! `bench storm`: adapters that all connect at once, are all cut off at once, and all come back at once.
//!
//! ```text
//!  live flow     ══ one number, one service ══ alone ═╪═ storm ═╪═ pause ═╪═ storm ═ …     (`live_flow`, a thread of its own)
//!  the adapters                                       ├─ hello ─▶ welcome ─▶ first delivery ─┤ cut, all at once, and again
//! ```
//!
//! The adapters' number has one message for each of them, which nobody acknowledges, and each has a window of one. So
//! every adapter is handed exactly one, which is checked, and they come again after each cut. Times count from when the storm broke, so
//! that of the last one is how long all of it took; the generator's own work is in them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::live_flow::{LiveFlow, Went};
use super::load::new_run;
use super::measured::Latency;
use super::options::Against;
use super::producer::{Plan, publish};
use super::report::{Bar, MIB, f64_of, grouped, ratio};
use super::subscriber::{STUCK_AFTER, Subscriber};
use super::target::{Door, Needs, Target};
use crate::cli::out;
use crate::client::Connection;
use crate::wire::frame::Encoding;
use crate::wire::message::{DeliverMode, Delivery, ServerBody};

/// The window of who fills the number, and of the live flow.
const WINDOW: u32 = 4_096;
/// The adapters' window: each is handed one message.
const WINDOW_IN_STORM: u32 = 1;
/// Bytes of a message's content.
const SIZE: usize = 256;
/// How long the live flow is measured alone, and how long it has for itself between storms.
const ALONE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How many adapters.
    #[arg(long, default_value_t = 1_000)]
    adapters: u64,
    /// How many services they are of.
    #[arg(long, default_value_t = 10)]
    services: usize,
    /// How often they are cut off and come back.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Messages a second of the live flow beside them.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    #[command(flatten)]
    against: Against,
}

/// What storms of a kind came to.
struct Storms {
    connects: u64,
    /// Until each storm's last welcome, all of them together.
    took: Duration,
    to_welcome: Latency,
    to_delivery: Latency,
}

impl Storms {
    fn none() -> anyhow::Result<Self> {
        Ok(Self {
            connects: 0,
            took: Duration::ZERO,
            to_welcome: Latency::new()?,
            to_delivery: Latency::new()?,
        })
    }

    fn per_second(&self) -> f64 {
        ratio(f64_of(self.connects), self.took.as_secs_f64())
    }

    fn json(&self) -> Value {
        json!({
            "connects": self.connects,
            "seconds": self.took.as_secs_f64(),
            "per_second": self.per_second(),
            "welcome_us": self.to_welcome.json(),
            "first_delivery_us": self.to_delivery.json(),
        })
    }

    fn print(&self, what: &str) {
        out::line(&format!(
            "{what}: {} connects a second ({} in {:.2} s)",
            grouped(self.per_second()),
            grouped(f64_of(self.connects)),
            self.took.as_secs_f64()
        ));
        out::line(&format!("  to welcome:        {}", self.to_welcome.text()));
        out::line(&format!("  to first delivery: {}", self.to_delivery.text()));
    }
}

/// The broker's memory, where its process is known.
#[derive(Default)]
struct Memory {
    before: Option<u64>,
    connected: Option<u64>,
    after: Option<u64>,
}

struct Found {
    first: Storms,
    again: Storms,
    memory: Memory,
    live: Went,
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // The live flow has a number and a service of its own, the last ones.
    let needs = Needs { numbers: 2, services: arguments.services.max(1) + 1, window: WINDOW };
    let target = Target::prepare(&arguments.against, needs).await?;
    let found = measure(arguments, &target).await;
    let ended = target.end().await;
    let found = found?;
    ended?;
    report(arguments, &found);
    Ok(())
}

async fn measure(arguments: &Arguments, target: &Target) -> anyhow::Result<Found> {
    let (number_of_live, number) = target.numbers.split_last().context("there is no number")?;
    let (service_of_live, services) = target.services.split_last().context("there is no service")?;
    let adapters = arguments.adapters.max(1);
    fill(target, number, services, adapters.div_ceil(services.len() as u64)).await?;
    let door = target.door();
    let plan = Plan::new(u64::MAX, 1_000, std::slice::from_ref(number_of_live), SIZE)?;
    let live = LiveFlow::start(door.clone(), service_of_live.clone(), plan, arguments.rate).await?;
    tokio::time::sleep(ALONE).await;

    let resident = || target.resident_bytes().ok();
    let mut memory = Memory { before: resident(), ..Memory::default() };
    let (mut first, mut again) = (Storms::none()?, Storms::none()?);
    let door = door.with_window(WINDOW_IN_STORM);
    let (mut connected, mut when) = (Vec::new(), Vec::new());
    for round in 0..=arguments.rounds {
        let broke = Instant::now();
        let storms = if round == 0 { &mut first } else { &mut again };
        // Nobody says good-bye.
        drop(std::mem::take(&mut connected));
        connected = storm(&door, services, adapters, storms).await?;
        when.push((broke, Instant::now()));
        memory.connected = memory.connected.max(resident());
        tokio::time::sleep(PAUSE).await;
    }
    drop(connected);
    tokio::time::sleep(PAUSE).await;
    memory.after = resident();
    Ok(Found { first, again, memory, live: live.end(&when).await? })
}

/// Lets every service have the number, and puts so many messages into it that nobody acknowledges.
async fn fill(target: &Target, number: &[String], services: &[String], messages: u64) -> anyhow::Result<()> {
    let mut joined = Vec::new();
    for service in services {
        let mut subscriber = Subscriber::open(target, service, Encoding::Binary).await?;
        subscriber.join(number).await?;
        joined.push(subscriber);
    }
    for subscriber in &mut joined {
        subscriber.settle().await?;
    }
    drop(joined);
    let plan = Plan::new(messages, messages, number, SIZE)?;
    let gateway = target.gateway(Encoding::Binary).await?;
    publish(gateway, Arc::new(plan), Arc::new(new_run())).await?;
    Ok(())
}

/// Connects all adapters at once, and waits until each has its first message.
async fn storm(
    door: &Door,
    services: &[String],
    adapters: u64,
    storms: &mut Storms,
) -> anyhow::Result<Vec<Connection>> {
    let here = Arc::new(AtomicU64::new(0));
    let bar = Bar::follow(adapters, "adapters", Arc::clone(&here));
    let begun = Instant::now();
    let mut coming = JoinSet::new();
    for (at, service) in (0..adapters).zip(services.iter().cycle()) {
        let (door, service) = (door.clone(), service.clone());
        coming.spawn(timeout(STUCK_AFTER, async move {
            let name = format!("storm-{at}");
            let mut connection = door.adapter(&service, &name, Encoding::Binary, DeliverMode::Share).await?;
            let welcomed = begun.elapsed();
            loop {
                if let ServerBody::Delivery(Delivery::Message(message)) =
                    connection.receiver.next().await?.body
                {
                    let delivered = begun.elapsed();
                    return Ok::<_, anyhow::Error>((
                        connection,
                        welcomed,
                        delivered,
                        (service, message.offset),
                    ));
                }
            }
        }));
    }
    let (mut connected, mut handed, mut last) = (Vec::new(), HashSet::new(), Duration::ZERO);
    while let Some(came) = coming.join_next().await {
        let (connection, welcomed, delivered, message) =
            came?.context("an adapter did not get its first message in time")??;
        here.fetch_add(1, Ordering::Relaxed);
        storms.to_welcome.record(welcomed);
        storms.to_delivery.record(delivered);
        last = last.max(welcomed);
        ensure!(handed.insert(message), "two adapters of a service were handed the same message");
        connected.push(connection);
    }
    drop(bar);
    storms.connects += adapters;
    storms.took += last;
    Ok(connected)
}

fn report(arguments: &Arguments, found: &Found) {
    let Found { first, again, memory, live } = found;
    let Arguments { adapters, services, rounds, rate, against } = arguments;
    if against.json {
        let report = json!({
            "bench": "storm",
            "durability": against.own_durability(),
            "adapters": adapters, "services": services, "rounds": rounds, "rate": rate,
            "first": first.json(),
            "again": again.json(),
            "rss_before_bytes": memory.before,
            "rss_connected_bytes": memory.connected,
            "rss_after_bytes": memory.after,
            "live": live.json(),
        });
        out::line(&report.to_string());
        return;
    }
    first.print("all at once");
    if again.connects > 0 {
        again.print("cut off and again");
    }
    if let (Some(before), Some(connected), Some(after)) = (memory.before, memory.connected, memory.after) {
        let [before, connected, after] = [before, connected, after].map(|bytes| f64_of(bytes) / MIB);
        out::line(&format!(
            "memory (RSS): {before:.1} MiB before, {connected:.1} MiB with all connected, {after:.1} MiB after"
        ));
    }
    live.print();
}
