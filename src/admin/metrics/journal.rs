//! The rows about the journal.

use super::table::{Kind, Metric, Sample, Unit, Value, count, exact, flag, level};
use crate::actors::observed::{DURATION_BOUNDS_SECONDS, Durations};

pub(super) static METRICS: &[Metric] = &[
    Metric {
        name: "journal_commit",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "How long commits took: the write, and the sync where answers wait for it. Their number is its count.",
        read: |seen| durations(&seen.broker.journal.commits),
    },
    Metric {
        name: "journal_committed",
        kind: Kind::Counter,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Bytes in commits.",
        read: |seen| count(seen.broker.journal.committed_bytes),
    },
    Metric {
        name: "journal_committed_records",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Records in commits.",
        read: |seen| count(seen.broker.journal.committed_records),
    },
    Metric {
        name: "journal_queued",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Bytes appended and not answered. The permits of requests bound them.",
        read: |seen| level(seen.broker.journal_queued_bytes),
    },
    Metric {
        name: "journal_reads",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Reads of history that wait or are at work.",
        read: |seen| level(seen.broker.reads),
    },
    Metric {
        name: "journal_segments",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Segments of the log.",
        read: |seen| level(seen.broker.journal.segments),
    },
    Metric {
        name: "journal_size",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "What is written in the segments of the log.",
        read: |seen| level(seen.broker.journal.segments_bytes),
    },
    Metric {
        name: "journal_room",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "What may still be written without asking the disk for more: in the segment in use and the spare one.",
        read: |seen| level(seen.broker.journal.room_bytes),
    },
    Metric {
        name: "journal_has_room",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "1 while new work is taken; 0 while the disk is full.",
        read: |seen| flag(seen.broker.journal_has_room),
    },
    Metric {
        name: "journal_retention",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "How long history is kept.",
        read: |seen| exact(seen.broker.retention.as_secs_f64()),
    },
    Metric {
        name: "journal_retention_limit",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "How much history is kept.",
        read: |seen| level(seen.broker.retention_bytes),
    },
    Metric {
        name: "journal_retired_segments",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Segments that retention has given up.",
        read: |seen| count(seen.broker.journal.retired_segments),
    },
    Metric {
        name: "journal_retired",
        kind: Kind::Counter,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "What was written in the segments that retention has given up.",
        read: |seen| count(seen.broker.journal.retired_bytes),
    },
    Metric {
        name: "journal_base",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "How long bases took that were installed. Their number is its count.",
        read: |seen| durations(&seen.broker.journal.bases),
    },
    Metric {
        name: "journal_base_failures",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Bases that could not be written, or were given up at a stop.",
        read: |seen| count(seen.broker.journal.base_failures),
    },
    Metric {
        name: "journal_base_size",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Size of the newest base.",
        read: |seen| level(seen.broker.journal.base_bytes),
    },
    Metric {
        name: "journal_corrupt_reads",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Damaged records that reads came upon; the same one counts each time.",
        read: |seen| count(seen.broker.journal.corrupt_reads),
    },
    Metric {
        name: "journal_damage_found",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Damaged places that were found when the journal was opened.",
        read: |seen| level(seen.broker.journal.damage_found),
    },
];

fn durations(found: &Durations) -> Vec<Sample> {
    let bounds = DURATION_BOUNDS_SECONDS.into_iter().chain([f64::INFINITY]);
    // An engine that counts nothing has buckets all the same, and nothing in them.
    let counts = found.counts.iter().copied().chain(std::iter::repeat(0));
    let value = Value::Durations { sum_seconds: found.sum_seconds, buckets: bounds.zip(counts).collect() };
    vec![Sample { labels: Vec::new(), value }]
}
