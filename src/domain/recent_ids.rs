//! Which customers' messages a channel has had, by WhatsApp's id, for 8 days (B6).
//!
//! Meta repeats a message for 7 days, with the same time; so ids are kept by the message's own time, whatever the
//! retention. What is found here is a suspicion: the owner compares the full id with the record's before it drops
//! anything. Two ids with one fingerprint (1 in 2^128) are told apart by that; only the newer of them stays known.

use super::aged::{AgedMap, DAY_MS, Keep};
use super::fingerprint::Fingerprint;
use super::ids::{Offset, Timestamp};

/// How long a message's id is known, in milliseconds: 8 days, one more than Meta repeats for.
pub const RECENT_MS: u64 = 8 * DAY_MS;
/// Ids in a bucket before it is sealed and another one begun: about 10 MiB.
pub const SEALED_IDS: usize = 262_144;

/// The message ids of a channel's last 8 days. Empty, it holds no memory.
#[derive(Debug, Clone, PartialEq)]
pub struct RecentIds(AgedMap<Fingerprint, Offset>);

impl RecentIds {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(AgedMap::new(Keep { keep_ms: RECENT_MS, period_ms: DAY_MS, bucket_entries_max: SEALED_IDS }))
    }

    /// How many it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Remembers the message at `offset`: its id, its own time, and the broker's time when it was recorded.
    pub fn insert(&mut self, id: Fingerprint, sent_at: Timestamp, recorded_at: Timestamp, offset: Offset) {
        if recorded_at.since_ms(sent_at) <= RECENT_MS {
            self.0.insert(id, sent_at, recorded_at, offset);
        }
    }

    /// The record that may be the same message. None for a message older than 8 days: it is taken as new.
    #[must_use]
    pub fn suspects(&self, id: Fingerprint, sent_at: Timestamp, now: Timestamp) -> Option<Offset> {
        if now.since_ms(sent_at) > RECENT_MS {
            return None;
        }
        self.0.get_at(&id, sent_at).copied()
    }

    /// Drops what is older than 8 days.
    pub fn forget(&mut self, now: Timestamp) {
        self.0.forget(now);
    }
}

impl Default for RecentIds {
    fn default() -> Self {
        Self::new()
    }
}
