//! What the engine counts of itself, for whoever observes the broker. Nothing is decided by it.
//!
//! **Invariant:** counting costs a commit a few relaxed atomics and never a lock; looking at the counts holds nothing up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets that durations are counted in, in seconds: from a sync on a fast disk to a base of many
/// gigabytes.
pub const DURATION_BOUNDS_SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// How long something took, each time it was done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Durations {
    /// How many lie at or below each of [`DURATION_BOUNDS_SECONDS`] and above the one before; the last: above all.
    pub counts: Vec<u64>,
    /// All together, in seconds.
    pub sum_seconds: f64,
}

impl Durations {
    /// How often it was done.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// An engine at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// How long each commit took that had blocks: its write, and its sync where answers wait for that.
    pub commits: Durations,
    /// Bytes in those commits.
    pub committed_bytes: u64,
    /// Records in those commits.
    pub committed_records: u64,
    /// Segments of the log.
    pub segments: u64,
    /// What is written in them, in bytes.
    pub segments_bytes: u64,
    /// Segments that retention has given up.
    pub retired_segments: u64,
    /// What was written in those, in bytes.
    pub retired_bytes: u64,
    /// How long each base took that was installed.
    pub bases: Durations,
    /// Bases that could not be written, or were given up.
    pub base_failures: u64,
    /// Size of the base that is installed, in bytes.
    pub base_bytes: u64,
    /// Runs of ids that this base names.
    pub runs: u64,
    /// What may still be written without asking the disk for more: in the segment in use and in the spare one, in bytes.
    pub room_bytes: u64,
    /// Damaged records, and runs of ids, that reads came upon; the same one counts each time.
    pub corrupt_reads: u64,
    /// Damaged places that were found when the store was opened.
    pub damage_found: u64,
}

/// Durations as they are counted.
#[derive(Debug, Default)]
pub(super) struct Timing {
    counts: [AtomicU64; DURATION_BOUNDS_SECONDS.len() + 1],
    sum_ns: AtomicU64,
}

impl Timing {
    /// Counts one.
    pub(super) fn took(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = DURATION_BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub(super) fn durations(&self) -> Durations {
        let ns = Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed));
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Durations { counts, sum_seconds: ns.as_secs_f64() }
    }
}

/// What the embedded engine counts.
#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) commits: Timing,
    pub(super) committed_bytes: AtomicU64,
    pub(super) committed_records: AtomicU64,
    pub(super) bases: Timing,
    pub(super) base_failures: AtomicU64,
    /// Bytes that the segment in use has left.
    pub(super) room_bytes: AtomicU64,
    pub(super) corrupt_reads: AtomicU64,
}

impl Stats {
    /// Counts a commit that is written and, where answers wait for that, synced.
    pub(super) fn committed(&self, took: Duration, bytes: u64, records: u64) {
        self.commits.took(took);
        self.committed_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.committed_records.fetch_add(records, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_once_where_it_belongs() {
        let timing = Timing::default();
        for ms in [0, 1, 2, 100_000] {
            timing.took(Duration::from_millis(ms));
        }
        let found = timing.durations();
        assert_eq!(found.count(), 4);
        assert_eq!(found.counts.len(), DURATION_BOUNDS_SECONDS.len() + 1);
        // A bound belongs to its own bucket, and what is above all bounds to the last.
        assert_eq!((found.counts[0], found.counts[3], found.counts[4], found.counts[16]), (1, 1, 1, 1));
        assert!((found.sum_seconds - 100.003).abs() < 1e-9, "{}", found.sum_seconds);
    }
}
