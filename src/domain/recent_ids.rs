//! Which customers' messages a channel has had, by WhatsApp's id, for 8 days (B6).
//!
//! Meta repeats a message for 7 days, with the same time; so ids are kept by the message's own time, whatever the
//! retention. What is found here is a suspicion: the owner compares the full id with the record's before it drops
//! anything. Two ids with one fingerprint (1 in 2^128) are told apart by that; only the newer of them stays known.
//!
//! ```text
//!  insert ─▶ in memory, 32 bytes an id ──lay_aside──▶ a run on disk; here its times and a filter, 1.5 bytes an id
//!                      │                                        │
//!                 Suspect::At(record)                  Suspect::In(runs): to be looked for there
//! ```
//!
//! **Invariants:** the ids of a period that come from records up to [`LaidAside::last`] are in its runs, all others in
//! memory; which of the two it is changes no answer. A run that can not be read has no filter: its ids count as unseen.

use super::aged::{AgedMap, DAY_MS, Keep};
use super::aside::{Aside, LaidAside, Movable, Rows, RunId};
use super::buckets::BucketMap;
use super::fingerprint::Fingerprint;
use super::ids::{Offset, Timestamp};
use super::saved::{Put, Saved, Take, Unreadable};

/// How long a message's id is known, in milliseconds: 8 days, one more than Meta repeats for.
pub const RECENT_MS: u64 = 8 * DAY_MS;
/// Ids in a bucket before it is sealed and another one begun: about 2 MiB. One that lies half in a run is gone through
/// on an Arbiter, in a millisecond.
pub const SEALED_IDS: usize = 65_536;
/// What an id takes in memory, in bytes (measured).
pub const ID_BYTES: usize = 32;

/// Most ids that a channel holds in memory, in about 1 GiB: only where none can be laid aside. Beyond that the oldest
/// are forgotten before their time.
pub const RECENT_IDS_MAX: usize = 1 << 25;

const KEEP_RECENT: Keep = Keep {
    keep_ms: RECENT_MS,
    period_ms: DAY_MS,
    bucket_entries_max: SEALED_IDS,
    entries_max: RECENT_IDS_MAX,
};

/// What may be the same message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suspect {
    /// The record there.
    At(Offset),
    /// A record that one of these runs names for the id, or none; the newest run comes first.
    In(Fingerprint, Vec<RunId>),
}

/// The message ids of a channel's last 8 days. Empty, it holds no memory.
#[derive(Debug, Clone, PartialEq)]
pub struct RecentIds {
    here: AgedMap<Fingerprint, Offset>,
    aside: Aside,
}

impl RecentIds {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { here: AgedMap::new(KEEP_RECENT), aside: Aside::new() }
    }

    /// How many it holds in memory.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.here.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.here.is_empty() && self.aside.is_empty()
    }

    /// What it takes in memory, in bytes, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.here.len() * ID_BYTES + self.aside.bytes()
    }

    /// What lies in runs.
    #[must_use]
    pub const fn aside(&self) -> &Aside {
        &self.aside
    }

    /// The same, where filters become known.
    pub const fn aside_mut(&mut self) -> &mut Aside {
        &mut self.aside
    }

    /// Remembers the message at `offset`: its id, its own time, and the broker's time when it was recorded.
    pub fn insert(&mut self, id: Fingerprint, sent_at: Timestamp, recorded_at: Timestamp, offset: Offset) {
        if recorded_at.since_ms(sent_at) <= RECENT_MS {
            self.here.insert_from(offset, id, sent_at, recorded_at, offset);
        }
    }

    /// The record that may be the same message. None for a message older than 8 days: it is taken as new.
    #[must_use]
    pub fn suspects(&self, id: Fingerprint, sent_at: Timestamp, now: Timestamp) -> Option<Suspect> {
        if now.since_ms(sent_at) > RECENT_MS {
            return None;
        }
        if let Some(record) = self.here.get_at(&id, sent_at) {
            return Some(Suspect::At(*record));
        }
        let period = self.aside.of_period(self.here.period_of(sent_at));
        let may_have = |laid: &&LaidAside| (laid.from..=laid.to).contains(&sent_at) && laid.may_have(id);
        let runs: Vec<RunId> = period.rev().filter(may_have).map(|laid| laid.run).collect();
        (!runs.is_empty()).then_some(Suspect::In(id, runs))
    }

    /// Drops what is older than 8 days.
    pub fn forget(&mut self, now: Timestamp) {
        let before = self.here.oldest_kept();
        self.here.forget(now);
        let oldest_kept = self.here.oldest_kept();
        if oldest_kept > before {
            self.aside.forget(oldest_kept);
        }
    }

    /// The periods that have so many ids in memory at least.
    pub fn movable_periods(&self, ids_min: usize) -> impl Iterator<Item = u64> {
        self.here.periods(ids_min.max(1))
    }

    /// What may be laid aside of a period: all its ids in memory. Looks at each.
    #[must_use]
    pub fn movable(&self, period: u64) -> Option<Movable> {
        let found = self.here.period(period)?;
        let rows = Rows::of_records(found.entries.iter().map(|(id, record)| (**id, **record)).collect());
        Some(Movable::of(period, &found, rows))
    }

    /// The ids of a period that come from records up to `laid.last` lie in its run from now on, or in one before.
    pub fn lay_aside(&mut self, laid: LaidAside) {
        self.here.drop_through(laid.period, laid.last, |record| *record);
        if laid.newest >= self.here.oldest_kept() {
            self.aside.push(laid);
        }
    }

    /// What was dropped and still takes memory: for who can let go of it elsewhere, at once.
    #[must_use]
    pub fn take_discarded(&mut self) -> Vec<BucketMap<Fingerprint, Offset>> {
        self.here.take_discarded()
    }

    /// Forgets the oldest before their time: a bucket, or what is known of a run. Gives how many ids these were, none
    /// where it knows none.
    pub fn drop_oldest(&mut self) -> usize {
        match (self.here.oldest(), self.aside.oldest()) {
            (Some(here), aside) if aside.is_none_or(|(newest, _)| here <= newest) => self.here.drop_oldest(),
            (_, Some((_, run))) => self.aside.drop_run(run),
            _ => 0,
        }
    }
}

impl Saved for RecentIds {
    fn save(&self, out: &mut dyn Put) {
        self.here.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let mut here = AgedMap::restore(KEEP_RECENT, from)?;
        here.come_from(|record| *record);
        Ok(Self { here, ..Self::new() })
    }
}

impl Default for RecentIds {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::aside::record_in;
    use super::super::filter::Filter;
    use super::super::fingerprint::Key;
    use super::super::ids::MessageId;
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn id(n: u64) -> Fingerprint {
        Key::new([9; 16]).message_id(&MessageId::trusted(&format!("wamid.{n}")))
    }

    fn at(offset: u64) -> Option<Suspect> {
        Some(Suspect::At(Offset(offset)))
    }

    #[test]
    fn a_repeat_is_suspected_for_8_days_by_the_messages_own_time_and_then_taken_as_new() {
        let mut ids = RecentIds::new();
        // Meta repeats it for the first time when it is 6 days old already.
        let sent_at = Timestamp(NOW.0 - 6 * DAY_MS);
        ids.insert(id(1), sent_at, NOW, Offset(5));
        assert_eq!(ids.suspects(id(1), sent_at, NOW.plus_ms(2 * DAY_MS)), at(5));
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
        assert_eq!(ids.suspects(id(1), ahead, NOW.plus_ms(7 * DAY_MS)), at(5));
        ids.forget(NOW.plus_ms(9 * DAY_MS + 1));
        assert!(ids.is_empty());
        ids.insert(id(2), Timestamp(u64::MAX), NOW.plus_ms(10 * DAY_MS), Offset(6));
        assert_eq!(ids.suspects(id(2), Timestamp(u64::MAX), NOW.plus_ms(10 * DAY_MS)), at(6));
    }

    #[test]
    fn a_message_told_late_is_found_among_younger_ones_and_goes_by_its_own_age() {
        let mut ids = RecentIds::new();
        for n in 0..1_000 {
            ids.insert(id(n), NOW.plus_ms(n), NOW.plus_ms(n), Offset(n + 1));
        }
        let late = Timestamp(NOW.0 - 7 * DAY_MS);
        ids.insert(id(5_000), late, NOW.plus_ms(1_000), Offset(1_001));
        assert_eq!(ids.suspects(id(5_000), late, NOW.plus_ms(1_000)), at(1_001));
        ids.forget(NOW.plus_ms(2 * DAY_MS));
        assert_eq!(ids.len(), 1_000, "a late one is dropped and keeps no younger one");
    }

    fn all_movable(ids: &RecentIds) -> Vec<Movable> {
        ids.movable_periods(1).filter_map(|period| ids.movable(period)).collect()
    }

    /// Lays all that may be aside into runs, numbered on from `next`; gives them.
    fn lay_all_aside(ids: &mut RecentIds, next: u64) -> Vec<(RunId, Rows)> {
        let movable = all_movable(ids);
        (next..)
            .zip(movable)
            .map(|(run, Movable { about, rows })| {
                let filter = Some(Filter::of(rows.keys().iter().copied(), rows.len()));
                ids.lay_aside(LaidAside { run: RunId(run), filter, ..about });
                (RunId(run), rows)
            })
            .collect()
    }

    #[test]
    fn what_lies_in_a_run_is_suspected_there_for_8_days_and_then_forgotten() {
        let mut ids = RecentIds::new();
        for n in 0..1_000 {
            ids.insert(id(n), NOW.plus_ms(n), NOW.plus_ms(n), Offset(n + 1));
        }
        let before = ids.bytes();
        let runs = lay_all_aside(&mut ids, 7);
        assert_eq!((runs.len(), ids.len()), (1, 0));
        assert!(ids.bytes() * 20 < before, "{} bytes of {before}", ids.bytes());
        let then = NOW.plus_ms(RECENT_MS);
        assert_eq!(ids.suspects(id(0), NOW, then), Some(Suspect::In(id(0), vec![RunId(7)])));
        assert_eq!(ids.suspects(id(0), NOW, then.plus_ms(1)), None);
        assert_eq!(ids.suspects(id(999), NOW, then), Some(Suspect::In(id(999), vec![RunId(7)])));
        assert_eq!(ids.suspects(id(0), NOW.plus_ms(1_000), then), None, "a time that the run does not have");
        ids.aside_mut().set_filter(RunId(7), None);
        assert_eq!(ids.suspects(id(0), NOW, then), None, "what can not be read counts as unseen");
        ids.forget(NOW.plus_ms(10 * DAY_MS));
        assert!(ids.is_empty() && ids.bytes() == 0);
    }

    #[test]
    fn what_came_since_the_run_was_written_stays_in_memory() {
        let (mut live, mut folded) = (RecentIds::new(), RecentIds::new());
        for n in 0..150_000 {
            live.insert(id(n), NOW.plus_ms(n), NOW.plus_ms(n), Offset(n + 1));
            if n < 100_000 {
                folded.insert(id(n), NOW.plus_ms(n), NOW.plus_ms(n), Offset(n + 1));
            }
        }
        for Movable { about, .. } in all_movable(&folded) {
            live.lay_aside(LaidAside { run: RunId(1), ..about });
        }
        assert_eq!(live.len(), 50_000);
        for n in 0..150_000 {
            let wanted = if n < 100_000 { None } else { at(n + 1) };
            assert_eq!(live.suspects(id(n), NOW.plus_ms(n), NOW.plus_ms(200_000)), wanted, "id {n}");
        }
    }

    #[test]
    fn where_nothing_else_helps_the_oldest_go_first_in_memory_or_in_a_run() {
        let mut ids = RecentIds::new();
        let day = |n: u64| NOW.plus_ms(n * DAY_MS);
        for n in 0..3 {
            ids.insert(id(n), day(n), day(n), Offset(n + 1));
        }
        lay_all_aside(&mut ids, 1);
        for n in 3..5 {
            ids.insert(id(n), day(n), day(n), Offset(n + 1));
        }
        for n in 0..5 {
            assert!(ids.suspects(id(n), day(n), day(5)).is_some());
            assert_eq!(ids.drop_oldest(), 1);
            assert_eq!(ids.suspects(id(n), day(n), day(5)), None);
        }
        assert_eq!((ids.drop_oldest(), ids.bytes()), (0, 0));
    }

    proptest! {
        #[test]
        fn laying_aside_changes_no_answer(
            steps in prop::collection::vec(
                (0..9 * 24_u64, 0..3_u64, 0..10 * 3_600_000_u64, 0..8_u8), 1..120),
        ) {
            let (mut ids, mut plain) = (RecentIds::new(), RecentIds::new());
            let mut runs = BTreeMap::new();
            let mut now = NOW;
            let mut told: Vec<(u64, Timestamp, Timestamp)> = Vec::new();
            for (offset, (hours_old, hours_ahead, waited_ms, what)) in (1..).zip(steps) {
                now = now.plus_ms(waited_ms);
                let sent_at = Timestamp(now.0 - hours_old * 3_600_000).plus_ms(hours_ahead * 3_600_000);
                ids.insert(id(offset), sent_at, now, Offset(offset));
                plain.insert(id(offset), sent_at, now, Offset(offset));
                told.push((offset, sent_at, now));
                match what {
                    0 => runs.extend(lay_all_aside(&mut ids, offset * 1_000)),
                    1 => ids.forget(now),
                    _ => {}
                }
                for (n, sent_at, told_at) in &told {
                    let found = match ids.suspects(id(*n), *sent_at, now) {
                        Some(Suspect::At(record)) => Some(record),
                        Some(Suspect::In(id, suspected)) => suspected.iter().find_map(|run| {
                            let rows: &Rows = &runs[run];
                            rows.iter().find(|(known, _)| *known == id).and_then(|(_, value)| record_in(value))
                        }),
                        None => None,
                    };
                    let wanted = match plain.suspects(id(*n), *sent_at, now) {
                        Some(Suspect::At(record)) => Some(record),
                        other => { prop_assert_eq!(other, None); None }
                    };
                    if now.since_ms(*told_at.min(sent_at)) <= RECENT_MS {
                        prop_assert_eq!(found, wanted, "{} of {:?}", n, sent_at);
                    }
                }
            }
        }
    }

    #[test]
    fn ten_thousand_channels_with_a_message_each_are_small() {
        // An entry's own room is some 200 bytes; empty, there is none.
        assert!(size_of::<RecentIds>() <= 128);
    }
}
