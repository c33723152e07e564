//! What a run measured, and how runs are put together.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::report::{f64_of, ratio};
use super::usage::Usage;

/// The longest latency that is told apart, in microseconds: a minute.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What a run measured.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    /// Messages that were published, or pick-ups that were asked for.
    pub(super) published: u64,
    /// What became of them: deliveries, or pick-ups again.
    pub(super) done: u64,
    pub(super) took: Duration,
    /// What the process under load used, where it is known.
    pub(super) usage: Option<Usage>,
    pub(super) latency: Latency,
}

impl Measured {
    pub(super) fn per_second(&self) -> f64 {
        ratio(f64_of(self.done), self.took.as_secs_f64())
    }

    pub(super) fn published_per_second(&self) -> f64 {
        ratio(f64_of(self.published), self.took.as_secs_f64())
    }

    /// Processor time a million of what was done, in seconds.
    pub(super) fn cpu_s_per_million(&self) -> Option<f64> {
        Some(self.usage?.cpu().as_secs_f64() * 1e6 / f64_of(self.done.max(1)))
    }

    /// Takes in another run of the same kind.
    pub(super) fn add(&mut self, more: &Self) {
        self.published += more.published;
        self.done += more.done;
        self.took += more.took;
        self.usage = self.usage.zip(more.usage).map(|(usage, more)| usage + more);
        self.latency.add(&more.latency);
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "published": self.published,
            "done": self.done,
            "seconds": self.took.as_secs_f64(),
            "per_second": self.per_second(),
            "published_per_second": self.published_per_second(),
            "used_per_million": self.usage.map(|usage| usage.per_million(self.done).json()),
            "latency_us": self.latency.json(),
        })
    }
}

/// Runs of one kind, one after the other.
pub(super) fn sum(runs: &[Measured]) -> Option<Measured> {
    let (first, more) = runs.split_first()?;
    let mut sum = first.clone();
    more.iter().for_each(|run| sum.add(run));
    Some(sum)
}

/// What takes how late deliveries came, as they come.
pub(super) trait Waits {
    /// One came so late, just now.
    fn record(&mut self, waited: Duration);
}

impl Waits for Latency {
    fn record(&mut self, waited: Duration) {
        Latency::record(self, waited);
    }
}

/// Latencies, from a microsecond to a minute, three digits exact.
#[derive(Debug, Clone)]
pub(super) struct Latency(Histogram<u64>);

impl Latency {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?))
    }

    pub(super) fn record(&mut self, waited: Duration) {
        self.0.saturating_record(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub(super) fn add(&mut self, more: &Self) {
        // Both have the same bounds, so it does not fail.
        let _ = self.0.add(&more.0);
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// In microseconds: what a share of all, from 0 to 1, did not exceed.
    pub(super) fn at(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "p50": self.at(0.5), "p90": self.at(0.9), "p99": self.at(0.99), "p999": self.at(0.999),
            "max": self.0.max(), "samples": self.0.len(),
        })
    }

    pub(super) fn text(&self) -> String {
        format!(
            "p50 {} µs, p99 {} µs, p99.9 {} µs, most {} µs ({} samples)",
            self.at(0.5),
            self.at(0.99),
            self.at(0.999),
            self.0.max(),
            self.0.len()
        )
    }
}
