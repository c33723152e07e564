//! A subscriber that catches up on a backlog while live traffic goes on: for `bench growth --by backlog`.
//!
//! ```text
//!  all join ─▶ the last one leaves ─▶ a backlog is published ─▶ live traffic begins, the last one comes back ─▶ it has as
//!                                                               └── measured ────────── many as the first one ◀┘
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::load::{Load, new_run};
use super::measured::{Latency, Measured};
use super::producer::{Plan, publish_until};
use super::report::{Bar, f64_of, ratio};
use super::schedule::Schedule;
use super::subscriber::{Run, Subscriber};
use super::target::Target;
use crate::wire::frame::Encoding;

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

/// Gives what all subscribers got while the late one caught up, and how that one fared.
pub(super) async fn run(
    target: &Target,
    plan: Plan,
    backlog: u64,
    rate: u64,
) -> anyhow::Result<(Measured, CaughtUp)> {
    let mut load = Load::open(target, Encoding::Binary).await?;
    let service = target.services.last().context("there is no service")?;
    drop(load.subscribers.pop());
    load.run(target, Plan { messages: backlog, ..plan.clone() }).await?;

    let gateway = load.gateway.take().context("the gateway is gone")?;
    let live = Arc::new(Plan { messages: u64::MAX, schedule: Schedule::of(Some(rate)), ..plan });
    let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (say_over, is_over) = watch::channel(false);
    let (of_first, of_others) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let before = target.usage();
    let run = Arc::new(new_run());
    let mut live_ones = JoinSet::new();
    for (at, subscriber) in load.subscribers.drain(..).enumerate() {
        let counter = if at == 0 { &of_first } else { &of_others };
        live_ones.spawn(go_on(subscriber, Arc::clone(&run), Arc::clone(counter), is_over.clone()));
    }
    let sending = tokio::spawn(publish_until(
        gateway,
        live,
        Arc::clone(&run),
        Arc::clone(&stop),
        Arc::clone(&published),
    ));

    let mut late = Subscriber::open(target, service, Encoding::Binary).await?;
    let shown = Arc::new(AtomicU64::new(0));
    let bar = Bar::follow(backlog, "catching up", Arc::clone(&shown));
    let mut latency = Latency::new()?;
    let mut delivered = 0;
    while delivered < backlog + of_first.load(Ordering::Relaxed) {
        delivered += late.take(&run, &mut latency).await?;
        shown.store(delivered, Ordering::Relaxed);
    }
    let took = run.begun.elapsed();
    let done = delivered + of_first.load(Ordering::Relaxed) + of_others.load(Ordering::Relaxed);
    let usage = before.and_then(|before| Some(target.usage()? - before));
    let published = published.load(Ordering::Relaxed);
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
