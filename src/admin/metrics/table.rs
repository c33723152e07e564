//! Every metric once: its name, type, unit, labels and meaning, and how its value is read.
//!
//! `docs/metrics.md` and the dashboard are held to this table by tests.

use prometheus_client::metrics::MetricType;

use super::{Beside, journal, process, traffic};
use crate::actors::observed::Observed;

/// What a scrape reads the values from.
pub struct Seen<'a> {
    /// The broker.
    pub(super) broker: Observed,
    /// What is beside it.
    pub(super) beside: &'a dyn Beside,
}

/// What kind of metric it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How long something took, in buckets.
    Histogram,
    /// A fact in labels.
    Info,
}

impl Kind {
    /// As OpenMetrics spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    pub(super) fn of_library(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
            Self::Info => MetricType::Info,
        }
    }
}

/// What a value counts, where its name says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// As OpenMetrics spells it, and as a metric's name ends.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }

    pub(super) fn of_library(self) -> prometheus_client::registry::Unit {
        match self {
            Self::Bytes => prometheus_client::registry::Unit::Bytes,
            Self::Seconds => prometheus_client::registry::Unit::Seconds,
        }
    }
}

/// A value under some labels.
pub(super) struct Sample {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: Value,
}

/// A value.
pub(super) enum Value {
    /// Of a counter.
    Count(u64),
    /// Of a gauge.
    Level(f64),
    /// Of a histogram: how many lie at or below each bound and above the one before.
    Durations { sum_seconds: f64, buckets: Vec<(f64, u64)> },
    /// The labels are all that it says.
    Info,
}

/// One metric.
pub struct Metric {
    /// Its name, without the prefix, the unit and what its type adds.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it counts.
    pub unit: Option<Unit>,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
    /// Reads its samples.
    pub(super) read: fn(&Seen<'_>) -> Vec<Sample>,
}

impl Metric {
    /// The name of its family, as `# TYPE` says it.
    #[must_use]
    pub fn family(&self) -> String {
        let unit = self.unit.map_or(String::new(), |unit| format!("_{}", unit.as_str()));
        format!("{}_{}{unit}", super::PREFIX, self.name)
    }

    /// The names of its samples, as queries say them.
    #[must_use]
    pub fn samples(&self) -> Vec<String> {
        let endings: &[&str] = match self.kind {
            Kind::Counter => &["_total"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            Kind::Info => &["_info"],
        };
        endings.iter().map(|ending| format!("{}{ending}", self.family())).collect()
    }
}

/// Every metric, in the order in which they are shown.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    process::METRICS.iter().chain(traffic::METRICS).chain(journal::METRICS)
}

pub(super) fn count(value: u64) -> Vec<Sample> {
    vec![Sample { labels: Vec::new(), value: Value::Count(value) }]
}

#[expect(clippy::cast_precision_loss, reason = "levels far below 2^53 stay exact, and no level needs more")]
pub(super) fn level(value: u64) -> Vec<Sample> {
    vec![Sample { labels: Vec::new(), value: Value::Level(value as f64) }]
}

pub(super) fn exact(value: f64) -> Vec<Sample> {
    vec![Sample { labels: Vec::new(), value: Value::Level(value) }]
}

pub(super) fn flag(value: bool) -> Vec<Sample> {
    level(u64::from(value))
}

/// A counter for each value of one label.
pub(super) fn counts<T: ToString>(
    label: &'static str,
    values: impl IntoIterator<Item = (T, u64)>,
) -> Vec<Sample> {
    let one =
        |(of, value): (T, u64)| Sample { labels: vec![(label, of.to_string())], value: Value::Count(value) };
    values.into_iter().map(one).collect()
}

/// A gauge for each value of one label.
#[expect(clippy::cast_precision_loss, reason = "levels far below 2^53 stay exact, and no level needs more")]
pub(super) fn levels(
    label: &'static str,
    values: impl IntoIterator<Item = (&'static str, u64)>,
) -> Vec<Sample> {
    let one = |(of, value): (&str, u64)| Sample {
        labels: vec![(label, of.to_owned())],
        value: Value::Level(value as f64),
    };
    values.into_iter().map(one).collect()
}
