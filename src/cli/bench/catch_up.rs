//! `bench catch-up`, and `bench growth --by backlog`: a subscriber that catches up on what it has missed while live traffic
//! goes on.
//!
//! ```text
//!  all join ─▶ the last one leaves ─▶ a backlog is published ─▶ live traffic alone ─▶ the last one comes back ─▶ it has as
//!                                                               └── measured ─┘      └── measured ─────── many as the first
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::load::{Load, new_run};
use super::measured::{Latency, Measured};
use super::options::Against;
use super::producer::{Plan, publish_until};
use super::report::{Bar, f64_of, grouped, ratio, with};
use super::schedule::Schedule;
use super::subscriber::{Run, Subscriber};
use super::target::{Needs, Target};
use crate::cli::out;
use crate::wire::frame::Encoding;

/// Each subscriber's window.
const WINDOW: u32 = 4_096;
/// Customers who write.
const CUSTOMERS: u64 = 10_000;
/// How long live traffic is measured alone, in seconds.
const ALONE_S: u64 = 3;
/// How often it is looked whether live traffic is under way.
const LOOK_EVERY: Duration = Duration::from_millis(1);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How many messages the late subscriber has missed.
    #[arg(long, default_value_t = 300_000)]
    backlog: u64,
    /// Messages a second that go on live meanwhile.
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// Bytes of a message's content.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// How many services subscribe, the late one among them: two at least.
    #[arg(long, default_value_t = 3)]
    subscribers: usize,
    #[command(flatten)]
    against: Against,
}

/// How the late subscriber fared, and the others meanwhile.
#[derive(Debug)]
pub(super) struct CaughtUp {
    pub(super) took: Duration,
    /// Deliveries to the late subscriber.
    delivered: u64,
    /// Latencies of the others, from when each message was due.
    pub(super) live: Latency,
}

impl CaughtUp {
    pub(super) fn per_second(&self) -> f64 {
        ratio(f64_of(self.delivered), self.took.as_secs_f64())
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "seconds": self.took.as_secs_f64(),
            "deliveries": self.delivered,
            "per_second": self.per_second(),
            "live_latency_us": self.live.json(),
        })
    }
}

/// The verb of its own: with the live traffic alone before it, to compare.
pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let needs = Needs { numbers: 1, services: arguments.subscribers.max(2), window: WINDOW };
    let target = Target::prepare(&arguments.against, needs).await?;
    let measured = async {
        let plan = Plan::new(0, CUSTOMERS, &target.numbers, arguments.size)?;
        let mut load = Away::open(&target).await?;
        load.publish_backlog(&target, &plan, arguments.backlog).await?;
        let alone = load.live_alone(&target, &plan, arguments.rate).await?;
        let (all, caught_up) = load.catch_up(&target, plan, arguments.rate).await?;
        Ok::<_, anyhow::Error>((alone, all, caught_up))
    }
    .await;
    let ended = target.end().await;
    let (alone, all, caught_up) = measured?;
    ended?;
    report(arguments, &alone, &all, &caught_up);
    Ok(())
}

/// Gives what all subscribers got while the late one caught up, and how that one fared.
pub(super) async fn along(
    target: &Target,
    plan: Plan,
    backlog: u64,
    rate: u64,
) -> anyhow::Result<(Measured, CaughtUp)> {
    let mut load = Away::open(target).await?;
    load.publish_backlog(target, &plan, backlog).await?;
    load.catch_up(target, plan, rate).await
}

/// A load whose last subscriber is away.
struct Away {
    load: Load,
    service: String,
    /// What was published since it left.
    missed: u64,
}

impl Away {
    async fn open(target: &Target) -> anyhow::Result<Self> {
        let mut load = Load::open(target, Encoding::Binary).await?;
        let service = target.services.last().context("there is no service")?.clone();
        drop(load.subscribers.pop());
        Ok(Self { load, service, missed: 0 })
    }

    async fn publish_backlog(&mut self, target: &Target, plan: &Plan, messages: u64) -> anyhow::Result<()> {
        self.load.run(target, Plan { messages, ..plan.clone() }).await?;
        self.missed += messages;
        Ok(())
    }

    /// Measures the live traffic while nobody catches up.
    async fn live_alone(&mut self, target: &Target, plan: &Plan, rate: u64) -> anyhow::Result<Measured> {
        let messages = rate * ALONE_S;
        let schedule = Schedule::of(Some(rate));
        let measured = self.load.run(target, Plan { messages, schedule, ..plan.clone() }).await?;
        self.missed += messages;
        Ok(measured)
    }

    async fn catch_up(
        mut self,
        target: &Target,
        plan: Plan,
        rate: u64,
    ) -> anyhow::Result<(Measured, CaughtUp)> {
        let gateway = self.load.gateway.take().context("the gateway is gone")?;
        let going_on = Arc::new(Plan { messages: u64::MAX, schedule: Schedule::of(Some(rate)), ..plan });
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (say_over, is_over) = watch::channel(false);
        let (of_first, of_others) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let run = Arc::new(new_run());
        let mut live_ones = JoinSet::new();
        for (at, subscriber) in self.load.subscribers.drain(..).enumerate() {
            let counter = if at == 0 { &of_first } else { &of_others };
            live_ones.spawn(go_on(subscriber, Arc::clone(&run), Arc::clone(counter), is_over.clone()));
        }
        let sending = tokio::spawn(publish_until(
            gateway,
            going_on,
            Arc::clone(&run),
            Arc::clone(&stop),
            Arc::clone(&published),
        ));

        // Live traffic is under way before anybody catches up, however soon that is done.
        while of_first.load(Ordering::Relaxed) == 0 {
            if let Some(ended) = live_ones.try_join_next() {
                ended??;
                bail!("a subscriber has ended before anything came");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let live = || of_first.load(Ordering::Relaxed) + of_others.load(Ordering::Relaxed);
        let (begun, live_before) = (Instant::now(), live());
        let published_before = published.load(Ordering::Relaxed);
        let before = target.usage();
        let mut late = Subscriber::open(target, &self.service, Encoding::Binary).await?;
        let shown = Arc::new(AtomicU64::new(0));
        let bar = Bar::follow(self.missed, "catching up", Arc::clone(&shown));
        let mut latency = Latency::new()?;
        let mut delivered = 0;
        while delivered < self.missed + of_first.load(Ordering::Relaxed) {
            delivered += late.take(&run, &mut latency).await?;
            shown.store(delivered, Ordering::Relaxed);
        }
        let took = begun.elapsed();
        let done = delivered + live() - live_before;
        let usage = before.and_then(|before| Some(target.usage()? - before));
        let published = published.load(Ordering::Relaxed) - published_before;
        drop(bar);
        stop.store(true, Ordering::Relaxed);
        // The others may be gone already only if they have failed, which their end says.
        let _ = say_over.send(true);
        late.acknowledge().await?;
        sending.await??;
        let mut of_live = Latency::new()?;
        while let Some(ended) = live_ones.join_next().await {
            of_live.add(&ended??);
        }
        let measured = Measured { published, done, took, usage, latency: of_live.clone() };
        Ok((measured, CaughtUp { took, delivered, live: of_live }))
    }
}

/// Takes live traffic until it is over.
async fn go_on(
    mut subscriber: Subscriber,
    run: Arc<Run>,
    delivered: Arc<AtomicU64>,
    mut is_over: watch::Receiver<bool>,
) -> anyhow::Result<Latency> {
    subscriber.look_at_all(true);
    let mut latency = Latency::new()?;
    loop {
        tokio::select! {
            _ = is_over.changed() => break,
            taken = subscriber.take(&run, &mut latency) => {
                delivered.fetch_add(taken?, Ordering::Relaxed);
            }
        }
    }
    subscriber.acknowledge().await?;
    Ok(latency)
}

fn report(arguments: &Arguments, alone: &Measured, all: &Measured, caught_up: &CaughtUp) {
    let Arguments { backlog, rate, size, subscribers, against } = arguments;
    let subscribers = (*subscribers).max(2);
    let over_alone = |share: f64| ratio(f64_of(caught_up.live.at(share)), f64_of(alone.latency.at(share)));
    if against.json {
        let more = json!({
            "bench": "catch-up",
            "durability": against.own_durability(),
            "backlog": backlog, "rate": rate, "size": size, "subscribers": subscribers,
            "catch_up": caught_up.json(),
            "live_alone_latency_us": alone.latency.json(),
            "live_p50_over_alone": over_alone(0.5),
            "live_p99_over_alone": over_alone(0.99),
        });
        out::line(&with(all.json(), more).to_string());
        return;
    }
    out::line(&format!(
        "caught up in {:.2} s: {} deliveries, {} a second, while {rate} messages a second went on live",
        caught_up.took.as_secs_f64(),
        grouped(f64_of(caught_up.delivered)),
        grouped(caught_up.per_second())
    ));
    if let Some(usage) = &all.usage {
        out::line(&format!(
            "  a million deliveries, live ones among them: {}",
            usage.per_million(all.done).text()
        ));
    }
    out::line(&format!("  live meanwhile: {}", caught_up.live.text()));
    out::line(&format!("  live alone:     {}", alone.latency.text()));
    out::line(&format!(
        "  p50 {:.2} times, p99 {:.2} times what it was alone",
        over_alone(0.5),
        over_alone(0.99)
    ));
}
