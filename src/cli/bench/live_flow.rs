//! A flow that goes on beside a storm: one number, one service, a schedule.
//!
//! It has a thread and a runtime of its own, so that its latency is the broker's and the machine's, and not that of a
//! generator which is busy with a thousand adapters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::load::new_run;
use super::measured::{Latency, Waits};
use super::producer::{Plan, publish_until};
use super::report::{f64_of, ratio};
use super::schedule::Schedule;
use super::subscriber::Subscriber;
use super::target::Door;
use crate::cli::out;
use crate::wire::frame::Encoding;
use crate::wire::message::DeliverMode;

/// A delivery: when it was due, and when it came.
#[derive(Debug, Clone, Copy)]
struct Delivered {
    due: Instant,
    came: Instant,
}

/// Each of them; some ten thousand in a run.
#[derive(Debug, Default)]
struct All(Vec<Delivered>);

impl Waits for All {
    fn record(&mut self, waited: Duration) {
        let came = Instant::now();
        self.0.push(Delivered { due: came.checked_sub(waited).unwrap_or(came), came });
    }
}

/// A storm, from when it broke to when it was over.
pub(super) type Storm = (Instant, Instant);

/// How the flow went.
pub(super) struct Went {
    published: u64,
    alone: Latency,
    beside: Latency,
}

impl Went {
    /// What waited while there was a storm counts to it, whenever it came.
    fn of(published: u64, all: &All, storms: &[Storm]) -> anyhow::Result<Self> {
        let (mut alone, mut beside) = (Latency::new()?, Latency::new()?);
        for Delivered { due, came } in &all.0 {
            let latency = if storms.iter().any(|(broke, over)| due <= over && came >= broke) {
                &mut beside
            } else if storms.iter().all(|(broke, _)| came < broke) {
                &mut alone
            } else {
                continue;
            };
            latency.record(*came - *due);
        }
        ensure!(alone.count() > 0 && beside.count() > 0, "the live flow stood still");
        Ok(Self { published, alone, beside })
    }

    /// How many times as late as alone so large a share was.
    fn over_alone(&self, share: f64) -> f64 {
        ratio(f64_of(self.beside.at(share)), f64_of(self.alone.at(share)))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "published": self.published,
            "alone_latency_us": self.alone.json(),
            "storm_latency_us": self.beside.json(),
            "p50_over_alone": self.over_alone(0.5),
            "p99_over_alone": self.over_alone(0.99),
        })
    }

    pub(super) fn print(&self) {
        out::line(&format!("the live flow alone:  {}", self.alone.text()));
        out::line(&format!("  during the storms:  {}", self.beside.text()));
        out::line(&format!(
            "  p50 {:.2} times, p99 {:.2} times what it was alone",
            self.over_alone(0.5),
            self.over_alone(0.99)
        ));
    }
}

/// A flow under way.
pub(super) struct LiveFlow {
    say_over: watch::Sender<bool>,
    went: oneshot::Receiver<anyhow::Result<(u64, All)>>,
}

impl LiveFlow {
    /// Starts it, and waits until it flows.
    pub(super) async fn start(door: Door, service: String, plan: Plan, rate: u64) -> anyhow::Result<Self> {
        let (say_over, is_over) = watch::channel(false);
        let (tell, went) = oneshot::channel();
        let (say_ready, ready) = oneshot::channel();
        let plan = Plan { schedule: Schedule::of(Some(rate)), ..plan };
        let flow = Flow { door, service, plan, is_over, ready: say_ready };
        std::thread::Builder::new().name("live-flow".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // Nobody listens only if the run has failed elsewhere.
            let _ = tell
                .send(runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(flow.go())));
        })?;
        let flow = Self { say_over, went };
        match ready.await {
            Ok(()) => Ok(flow),
            Err(_) => {
                flow.went.await.context("the live flow's thread ended")??;
                bail!("the live flow ended before it flowed")
            }
        }
    }

    /// Ends it, and says how it went before the storms and during them.
    pub(super) async fn end(self, storms: &[Storm]) -> anyhow::Result<Went> {
        // It may be gone already only if it has failed, which its end says.
        let _ = self.say_over.send(true);
        let (published, all) = self.went.await.context("the live flow's thread ended")??;
        Went::of(published, &all, storms)
    }
}

struct Flow {
    door: Door,
    service: String,
    plan: Plan,
    is_over: watch::Receiver<bool>,
    ready: oneshot::Sender<()>,
}

impl Flow {
    async fn go(self) -> anyhow::Result<(u64, All)> {
        let Self { door, service, plan, mut is_over, ready } = self;
        let numbers: Vec<String> = plan.numbers.iter().map(ToString::to_string).collect();
        let connection = door.service(&service, Encoding::Binary).await?;
        let mut subscriber = Subscriber::of(connection, Encoding::Binary);
        subscriber.join(&numbers).await?;
        subscriber.settle().await?;
        subscriber.look_at_all(true);
        let gateway = door.gateway(Encoding::Binary, DeliverMode::None).await?;
        let run = Arc::new(new_run());
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let sending = tokio::spawn(publish_until(
            gateway,
            Arc::new(plan),
            Arc::clone(&run),
            Arc::clone(&stop),
            Arc::clone(&published),
        ));
        // Nobody waits only if the run has failed elsewhere.
        let _ = ready.send(());
        let mut all = All::default();
        loop {
            tokio::select! {
                _ = is_over.changed() => break,
                taken = subscriber.take(&run, &mut all) => drop(taken?),
            }
        }
        stop.store(true, Ordering::Relaxed);
        subscriber.acknowledge().await?;
        sending.await??;
        Ok((published.load(Ordering::Relaxed), all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_while_there_was_a_storm_counts_to_it_whenever_it_came() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let storms = [(at(100), at(200)), (at(500), at(600))];
        let of = |(due, came)| Delivered { due: at(due), came: at(came) };
        // Alone, into the first storm, out of it, across all of the second, and between them.
        let all = All([(10, 20), (90, 110), (150, 400), (490, 700), (410, 420)].map(of).to_vec());
        let went = Went::of(5, &all, &storms).unwrap();
        assert_eq!((went.alone.count(), went.beside.count()), (1, 3));
        assert!(went.beside.at(1.0) >= 250_000 && went.over_alone(0.5) > 1.0);
        assert!(Went::of(5, &All(all.0.get(..1).unwrap().to_vec()), &storms).is_err(), "it stood still");
    }
}
