//! A load: a gateway that publishes, and subscribers who each take all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use tokio::task::JoinSet;

use super::measured::{Latency, Measured};
use super::producer::{Plan, publish, wall_ms};
use super::report::Bar;
use super::subscriber::{Run, Subscriber};
use super::target::Target;
use crate::client::Connection;
use crate::wire::frame::Encoding;

/// Tells the runs of one process apart.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// Connections that are ready for any number of runs.
pub(super) struct Load {
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) gateway: Option<Connection>,
}

impl Load {
    /// Connects every service and the gateway, and lets each service have every number.
    pub(super) async fn open(target: &Target, encoding: Encoding) -> anyhow::Result<Self> {
        let mut subscribers = Vec::new();
        for service in &target.services {
            let mut subscriber = Subscriber::open(target, service, encoding).await?;
            subscriber.join(&target.numbers).await?;
            subscribers.push(subscriber);
        }
        for subscriber in &mut subscribers {
            subscriber.settle().await?;
        }
        Ok(Self { subscribers, gateway: Some(target.gateway(encoding).await?) })
    }

    /// Publishes the plan's messages, and waits until every subscriber has each of them.
    pub(super) async fn run(&mut self, target: &Target, plan: Plan) -> anyhow::Result<Measured> {
        let gateway = self.gateway.take().context("a run before this one has failed")?;
        let plan = Arc::new(plan);
        let delivered = Arc::new(AtomicU64::new(0));
        let subscribers = self.subscribers.len() as u64;
        let bar = Bar::follow(plan.messages * subscribers, "deliveries", Arc::clone(&delivered));
        let run = Arc::new(new_run());
        let before = target.usage();
        let mut receiving = JoinSet::new();
        for mut subscriber in self.subscribers.drain(..) {
            subscriber.look_at_all(plan.schedule.is_paced() || plan.numbers.len() > 1);
            receiving.spawn(receive(subscriber, plan.messages, Arc::clone(&run), Arc::clone(&delivered)));
        }
        let sending = tokio::spawn(publish(gateway, Arc::clone(&plan), Arc::clone(&run)));
        let mut latency = Latency::new()?;
        let mut last = run.begun;
        while let Some(received) = receiving.join_next().await {
            let (subscriber, its_latency, ended) = received??;
            last = last.max(ended);
            latency.add(&its_latency);
            self.subscribers.push(subscriber);
        }
        self.gateway = Some(sending.await??);
        let usage = before.and_then(|before| Some(target.usage()? - before));
        drop(bar);
        let done = plan.messages * subscribers;
        Ok(Measured { published: plan.messages, done, took: last - run.begun, usage, latency })
    }
}

/// A run that begins now; its name is nobody else's.
pub(super) fn new_run() -> Run {
    let of_process = RUNS.fetch_add(1, Ordering::Relaxed);
    Run { name: format!("{:x}-{:x}-{of_process}", wall_ms(), std::process::id()), begun: Instant::now() }
}

async fn receive(
    mut subscriber: Subscriber,
    messages: u64,
    run: Arc<Run>,
    delivered: Arc<AtomicU64>,
) -> anyhow::Result<(Subscriber, Latency, Instant)> {
    let mut latency = Latency::new()?;
    let mut here = 0;
    while here < messages {
        let more = subscriber.take(&run, &mut latency).await?;
        here += more;
        delivered.fetch_add(more, Ordering::Relaxed);
    }
    let ended = Instant::now();
    subscriber.acknowledge().await?;
    Ok((subscriber, latency, ended))
}
