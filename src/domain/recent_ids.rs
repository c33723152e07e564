//! Which customers' messages a channel has had, by WhatsApp's id, for 8 days (B6).
//!
//! Meta repeats a message for 7 days, with the same time; so ids are kept by the message's own time, whatever the
//! retention. What is found here is a suspicion: the owner compares the full id with the record's before it drops
//! anything. Two ids with one fingerprint (1 in 2^128) are told apart by that; only the newer of them stays known.

use super::aged::{AgedMap, DAY_MS, Keep};
use super::fingerprint::Fingerprint;
use super::ids::{Offset, Timestamp};
use super::saved::{Put, Saved, Take, Unreadable};

/// How long a message's id is known, in milliseconds: 8 days, one more than Meta repeats for.
pub const RECENT_MS: u64 = 8 * DAY_MS;
/// Ids in a bucket before it is sealed and another one begun: about 10 MiB.
pub const SEALED_IDS: usize = 262_144;

/// Most ids that a channel knows: 48 messages a second for 8 days, in about 1.2 GiB. Beyond that the oldest are forgotten
/// before their time.
pub const RECENT_IDS_MAX: usize = 1 << 25;

const KEEP_RECENT: Keep = Keep {
    keep_ms: RECENT_MS,
    period_ms: DAY_MS,
    bucket_entries_max: SEALED_IDS,
    entries_max: RECENT_IDS_MAX,
};

/// The message ids of a channel's last 8 days. Empty, it holds no memory.
#[derive(Debug, Clone, PartialEq)]
pub struct RecentIds(AgedMap<Fingerprint, Offset>);

impl RecentIds {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(AgedMap::new(KEEP_RECENT))
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

impl Saved for RecentIds {
    fn save(&self, out: &mut dyn Put) {
        self.0.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        AgedMap::restore(KEEP_RECENT, from).map(Self)
    }
}

impl Default for RecentIds {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fingerprint::Key;
    use super::super::ids::MessageId;
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn id(n: u64) -> Fingerprint {
        Key::new([9; 16]).message_id(&MessageId::trusted(&format!("wamid.{n}")))
    }

    #[test]
    fn a_repeat_is_suspected_for_8_days_by_the_messages_own_time_and_then_taken_as_new() {
        let mut ids = RecentIds::new();
        // Meta repeats it for the first time when it is 6 days old already.
        let sent_at = Timestamp(NOW.0 - 6 * DAY_MS);
        ids.insert(id(1), sent_at, NOW, Offset(5));
        assert_eq!(ids.suspects(id(1), sent_at, NOW.plus_ms(2 * DAY_MS)), Some(Offset(5)));
        assert_eq!(ids.suspects(id(1), sent_at, NOW.plus_ms(2 * DAY_MS + 1)), None);
        assert_eq!(ids.suspects(id(2), sent_at, NOW), None);
        // The same id with another time is another message's: a repeat carries the same time.
        assert_eq!(ids.suspects(id(1), NOW, NOW), None);
        ids.insert(id(3), Timestamp(NOW.0 - RECENT_MS - 1), NOW, Offset(6));
        assert_eq!(ids.len(), 1, "what is too old is not taken");
    }

    #[test]
    fn a_time_that_lies_ahead_is_found_again_and_keeps_nothing_for_ever() {
        let mut ids = RecentIds::new();
        let ahead = NOW.plus_ms(100_000 * DAY_MS);
        ids.insert(id(1), ahead, NOW, Offset(5));
        assert_eq!(ids.suspects(id(1), ahead, NOW.plus_ms(7 * DAY_MS)), Some(Offset(5)));
        ids.forget(NOW.plus_ms(9 * DAY_MS + 1));
        assert!(ids.is_empty());
        ids.insert(id(2), Timestamp(u64::MAX), NOW.plus_ms(10 * DAY_MS), Offset(6));
        assert_eq!(ids.suspects(id(2), Timestamp(u64::MAX), NOW.plus_ms(10 * DAY_MS)), Some(Offset(6)));
    }

    #[test]
    fn a_message_told_late_is_found_among_younger_ones_and_goes_by_its_own_age() {
        let mut ids = RecentIds::new();
        for n in 0..1_000 {
            ids.insert(id(n), NOW.plus_ms(n), NOW.plus_ms(n), Offset(n + 1));
        }
        let late = Timestamp(NOW.0 - 7 * DAY_MS);
        ids.insert(id(5_000), late, NOW.plus_ms(1_000), Offset(1_001));
        assert_eq!(ids.suspects(id(5_000), late, NOW.plus_ms(1_000)), Some(Offset(1_001)));
        ids.forget(NOW.plus_ms(2 * DAY_MS));
        assert_eq!(ids.len(), 1_000, "a late one is dropped and keeps no younger one");
    }

    #[test]
    fn ten_thousand_channels_with_a_message_each_are_small() {
        // An entry's own room is some 200 bytes; empty, there is none.
        assert!(size_of::<RecentIds>() <= 128);
    }
}
