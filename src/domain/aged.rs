//! What is remembered for a time and then dropped in whole pieces: the store below message ids, reply ids and senders.
//!
//! Entries lie in periods by a time of their own, each period in buckets with a range of times. Nothing is ever
//! searched for what is too old: a period's buckets go as a whole, and their memory goes back a little at a time.
//!
//! **Invariants:** an entry stays for `keep_ms` after the earlier of its own time and its recording, and for at most
//! `keep_ms` + `period_ms` + [`FORGET_STEP_MS`] of a clock that goes on (one whose own time lies ahead may stay as long
//! as others of that time come, and then with its one bucket only). What is there is decided by what was inserted
//! and by the last `forget` alone, so a replay comes to the same state; but for what the owner lets go before its time
//! (`drop_oldest`) and what it keeps elsewhere (`drop_through`, `drop_whole_through`), of which no record tells.

use std::collections::BTreeMap;

use super::buckets::{BucketMap, Spread};
use super::ids::{Offset, Timestamp};
use super::saved::{Put, Saved, Take, Unreadable, restore_all};

/// How often old buckets are looked for, in milliseconds: an hour, little beside the days for which they stay.
pub const FORGET_STEP_MS: u64 = 3_600_000;
/// Inner buckets whose memory goes back at a time: with 24-byte keys and values about a quarter of a MiB.
const SHED_BUCKETS: usize = 4;

/// One day, in milliseconds.
pub const DAY_MS: u64 = 86_400_000;

/// How long entries stay, and in what pieces they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// How long an entry stays at least, in milliseconds.
    pub keep_ms: u64,
    /// The stretch of time whose entries lie together, in milliseconds; not 0. A search without a time looks into
    /// each, so there should be few; memory goes back by them, so they should be short.
    pub period_ms: u64,
    /// Most entries of a bucket before it is sealed and another one begun.
    pub bucket_entries_max: usize,
    /// Most entries of all, within one bucket's: what would go beyond makes the oldest bucket go before its time.
    pub entries_max: usize,
}

/// A map whose entries are dropped by age.
#[derive(Debug, Clone)]
pub struct AgedMap<K: Spread, V> {
    keep: Keep,
    /// By the number of the period; no list is empty.
    periods: BTreeMap<u64, Vec<Bucket<K, V>>>,
    /// The newest time that anything was forgotten at, in steps.
    forgotten_step: u64,
    /// How many entries there are in all periods.
    len: usize,
    /// Dropped already; their memory is going back.
    discarded: Vec<BucketMap<K, V>>,
}

#[derive(Debug, Clone)]
struct Bucket<K: Spread, V> {
    /// The earliest of its entries' own times.
    from: Timestamp,
    /// The latest of its entries' own times.
    to: Timestamp,
    /// The latest of what its entries' ages count from.
    newest: Timestamp,
    /// The last record that one of its entries comes from, where that was said since it was restored.
    last: Offset,
    entries: BucketMap<K, V>,
}

/// All entries of a period, and from when they are.
pub struct Period<'a, K, V> {
    /// The earliest of the entries' own times.
    pub from: Timestamp,
    /// The latest of the entries' own times.
    pub to: Timestamp,
    /// The latest of what the entries' ages count from.
    pub newest: Timestamp,
    /// The last record that one of the entries comes from.
    pub last: Offset,
    /// The entries, those inserted first before the others, else in no order that means anything.
    pub entries: Vec<(&'a K, &'a V)>,
}

impl<K: Spread, V> AgedMap<K, V> {
    /// An empty map, which holds no memory.
    #[must_use]
    pub const fn new(keep: Keep) -> Self {
        Self { keep, periods: BTreeMap::new(), forgotten_step: 0, len: 0, discarded: Vec::new() }
    }

    /// How many entries it has; a key inserted at different times counts more than once.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.periods.is_empty()
    }

    /// Remembers a value under a key, by the entry's own time. One that is too old already is not taken.
    ///
    /// A key may be in several periods; the newest period's value is found. A time of its own that lies ahead of
    /// `recorded_at` keeps an entry no longer.
    pub fn insert(&mut self, key: K, own: Timestamp, recorded_at: Timestamp, value: V) {
        self.insert_from(Offset::ZERO, key, own, recorded_at, value);
    }

    /// The same, and from which record it comes; records come by rising offset.
    pub fn insert_from(&mut self, record: Offset, key: K, own: Timestamp, recorded_at: Timestamp, value: V) {
        self.forget(recorded_at);
        let counted = own.min(recorded_at);
        if self.is_gone(counted) {
            return;
        }
        let period = own.0 / self.keep.period_ms;
        let last = self.periods.get(&period).and_then(|buckets| buckets.last());
        if last.is_none_or(|last| last.entries.len() >= self.keep.bucket_entries_max) {
            if self.len >= self.keep.entries_max {
                self.drop_oldest();
            }
            let buckets = self.periods.entry(period).or_default();
            buckets.reserve_exact(1);
            buckets.push(Bucket {
                from: own,
                to: own,
                newest: counted,
                last: record,
                entries: BucketMap::new(),
            });
        }
        let Some(bucket) = self.periods.get_mut(&period).and_then(|buckets| buckets.last_mut()) else {
            return;
        };
        bucket.from = bucket.from.min(own);
        bucket.to = bucket.to.max(own);
        bucket.newest = bucket.newest.max(counted);
        bucket.last = record;
        let before = bucket.entries.insert(key, value);
        self.len += usize::from(before.is_none());
    }

    /// The value of a key whose own time is known: only buckets whose range covers it are looked into.
    #[must_use]
    pub fn get_at(&self, key: &K, own: Timestamp) -> Option<&V> {
        let buckets = self.periods.get(&(own.0 / self.keep.period_ms))?;
        buckets
            .iter()
            .rev()
            .filter(|bucket| (bucket.from..=bucket.to).contains(&own))
            .find_map(|bucket| bucket.entries.get(key))
    }

    /// The value of a key, the newest period's first.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.buckets().find_map(|bucket| bucket.entries.get(key))
    }

    /// The value of a key, to be changed by a record. Its age stays what it was.
    pub fn change(&mut self, key: &K, record: Offset) -> Option<&mut V> {
        let mut buckets = self.periods.values_mut().rev().flat_map(|buckets| buckets.iter_mut().rev());
        let bucket = buckets.find(|bucket| bucket.entries.get(key).is_some())?;
        bucket.last = bucket.last.max(record);
        bucket.entries.get_mut(key)
    }

    /// Drops what has stayed long enough, and gives back some memory of what was dropped. Cheap when there is nothing
    /// to do; going back in time does nothing.
    pub fn forget(&mut self, now: Timestamp) {
        if let Some(discarded) = self.discarded.last_mut()
            && !discarded.shed(SHED_BUCKETS)
        {
            self.discarded.pop();
        }
        let step = now.0 / FORGET_STEP_MS;
        if step <= self.forgotten_step {
            return;
        }
        self.forgotten_step = step;
        let before = oldest_kept(step, self.keep.keep_ms);
        let (discarded, len) = (&mut self.discarded, &mut self.len);
        self.periods.retain(|_, buckets| {
            for bucket in buckets.extract_if(.., |bucket| bucket.newest < before) {
                *len -= bucket.entries.len();
                discarded.push(bucket.entries);
            }
            !buckets.is_empty()
        });
    }

    /// Entries whose age counts from before this are too old, as far as somebody has asked to forget.
    #[must_use]
    pub fn oldest_kept(&self) -> Timestamp {
        oldest_kept(self.forgotten_step, self.keep.keep_ms)
    }

    /// The period that an entry of this time of its own lies in.
    #[must_use]
    pub const fn period_of(&self, own: Timestamp) -> u64 {
        own.0 / self.keep.period_ms
    }

    /// The age of its oldest bucket counts from this; none where it is empty.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.periods.values().next()?.first().map(|bucket| bucket.newest)
    }

    /// The numbers of the periods that have so many entries at least.
    pub fn periods(&self, entries_min: usize) -> impl Iterator<Item = u64> {
        let entries = |buckets: &[Bucket<K, V>]| buckets.iter().map(|bucket| bucket.entries.len()).sum();
        let sizes = self.periods.iter().map(move |(number, buckets)| (*number, entries(buckets)));
        sizes.filter(move |(_, entries): &(u64, usize)| *entries >= entries_min).map(|(number, _)| number)
    }

    /// All that it has of a period. Looks at each.
    #[must_use]
    pub fn period(&self, number: u64) -> Option<Period<'_, K, V>> {
        let buckets = self.periods.get(&number)?;
        Some(Period {
            from: buckets.iter().map(|bucket| bucket.from).min()?,
            to: buckets.iter().map(|bucket| bucket.to).max()?,
            newest: buckets.iter().map(|bucket| bucket.newest).max()?,
            last: buckets.iter().map(|bucket| bucket.last).max()?,
            entries: buckets.iter().flat_map(|bucket| bucket.entries.iter()).collect(),
        })
    }

    /// Drops a period's entries that come from records up to `last`; `record_of` says from which an entry comes, or was
    /// changed by. Buckets of such alone go as they are; only others are gone through.
    pub fn drop_through(&mut self, period: u64, last: Offset, record_of: impl Fn(&V) -> Offset)
    where
        V: Clone,
    {
        self.drop_whole_through(period, last);
        for bucket in self.periods.get_mut(&period).into_iter().flatten() {
            let mut left = BucketMap::new();
            for (key, value) in bucket.entries.iter().filter(|(_, value)| record_of(value) > last) {
                left.insert(*key, value.clone());
            }
            if left.len() < bucket.entries.len() {
                self.len -= bucket.entries.len() - left.len();
                self.discarded.push(std::mem::replace(&mut bucket.entries, left));
            }
        }
    }

    /// Drops a period's buckets all of whose entries come from records up to `last`.
    pub fn drop_whole_through(&mut self, period: u64, last: Offset) {
        let Some(buckets) = self.periods.get_mut(&period) else { return };
        for bucket in buckets.extract_if(.., |bucket| bucket.last <= last) {
            self.len -= bucket.entries.len();
            self.discarded.push(bucket.entries);
        }
        if buckets.is_empty() {
            self.periods.remove(&period);
        }
    }

    /// What was dropped and still takes memory: for who can let go of it elsewhere, at once.
    #[must_use]
    pub fn take_discarded(&mut self) -> Vec<BucketMap<K, V>> {
        std::mem::take(&mut self.discarded)
    }

    /// Drops the oldest bucket before its time; gives how many entries it had.
    pub fn drop_oldest(&mut self) -> usize {
        let Some(mut oldest) = self.periods.first_entry() else { return 0 };
        let entries = oldest.get_mut().remove(0).entries;
        if oldest.get().is_empty() {
            oldest.remove();
        }
        let dropped = entries.len();
        self.len -= dropped;
        self.discarded.push(entries);
        dropped
    }

    /// Takes over the entries of a map that keeps things as long, each value changed by `change`.
    pub fn absorb(&mut self, other: Self, mut change: impl FnMut(V) -> V)
    where
        V: Clone,
    {
        for (period, buckets) in other.periods {
            let ours = self.periods.entry(period).or_default();
            for bucket in buckets {
                let mut entries = BucketMap::new();
                for (key, value) in bucket.entries.iter() {
                    entries.insert(*key, change(value.clone()));
                }
                self.len += entries.len();
                // Behind the one that fills: that one stays the last.
                ours.insert(0, Bucket { entries, ..bucket });
            }
        }
    }

    /// Writes it down, but for how long it keeps things.
    pub fn save(&self, out: &mut dyn Put)
    where
        K: Saved,
        V: Saved,
    {
        out.number(self.forgotten_step);
        out.number(self.periods.len() as u64);
        for (period, buckets) in &self.periods {
            out.number(*period);
            buckets.save(out);
        }
    }

    /// Reads back what was saved of a map that kept things as long.
    ///
    /// # Errors
    /// When it is none.
    pub fn restore(keep: Keep, from: &mut dyn Take) -> Result<Self, Unreadable>
    where
        K: Saved,
        V: Saved,
    {
        let forgotten_step = from.number()?;
        let periods: BTreeMap<u64, Vec<Bucket<K, V>>> = restore_all(from).collect::<Result<_, _>>()?;
        let len = periods.values().flatten().map(|bucket| bucket.entries.len()).sum();
        Ok(Self { keep, periods, forgotten_step, len, discarded: Vec::new() })
    }

    /// Says from which records the entries come, of a map that was restored: that is not saved.
    pub fn come_from(&mut self, record_of: impl Fn(&V) -> Offset) {
        for bucket in self.periods.values_mut().flatten() {
            bucket.last = bucket.entries.iter().map(|(_, value)| record_of(value)).max().unwrap_or_default();
        }
    }

    fn is_gone(&self, counted: Timestamp) -> bool {
        counted < oldest_kept(self.forgotten_step, self.keep.keep_ms)
    }

    fn buckets(&self) -> impl Iterator<Item = &Bucket<K, V>> {
        self.periods.values().rev().flat_map(|buckets| buckets.iter().rev())
    }
}

impl<K: Spread + Saved, V: Saved> Saved for Bucket<K, V> {
    fn save(&self, out: &mut dyn Put) {
        self.from.save(out);
        self.to.save(out);
        self.newest.save(out);
        self.entries.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        Ok(Self {
            from: Saved::restore(from)?,
            to: Saved::restore(from)?,
            newest: Saved::restore(from)?,
            last: Offset::ZERO,
            entries: Saved::restore(from)?,
        })
    }
}

/// Whole steps, so that it does not matter when within one somebody asked to forget.
fn oldest_kept(step: u64, keep_ms: u64) -> Timestamp {
    Timestamp((step * FORGET_STEP_MS).saturating_sub(keep_ms))
}

/// Equal when they hold the same for as long.
impl<K: Spread, V: PartialEq> PartialEq for Bucket<K, V> {
    fn eq(&self, other: &Self) -> bool {
        (self.from, self.to, self.newest) == (other.from, other.to, other.newest)
            && self.entries == other.entries
    }
}

/// Equal when they remember the same; how much memory has gone back does not count.
impl<K: Spread, V: PartialEq> PartialEq for AgedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.keep == other.keep && self.periods == other.periods
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEEP: Keep =
        Keep { keep_ms: 8 * DAY_MS, period_ms: DAY_MS, bucket_entries_max: 10, entries_max: usize::MAX };
    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    #[test]
    fn buckets_are_sealed_when_full_and_only_those_of_the_time_are_looked_into() {
        let mut map = AgedMap::new(KEEP);
        let start = Timestamp(NOW.0 / DAY_MS * DAY_MS);
        for n in 0..35 {
            map.insert(n, start.plus_ms(n), start.plus_ms(n), n);
        }
        let sizes: Vec<usize> = map.buckets().map(|bucket| bucket.entries.len()).collect();
        assert_eq!(sizes, [5, 10, 10, 10]);
        assert_eq!(map.get_at(&3, start.plus_ms(3)), Some(&3));
        assert_eq!(map.get_at(&3, start.plus_ms(12)), None, "another bucket's time");
        assert_eq!(map.get(&3), Some(&3));
        *map.change(&3, Offset(1)).unwrap() = 99;
        assert_eq!(map.get(&3), Some(&99));
    }

    #[test]
    fn the_memory_of_what_is_dropped_goes_back_a_little_at_a_time() {
        let mut map = AgedMap::new(Keep { bucket_entries_max: usize::MAX, ..KEEP });
        for n in 0..60_000_u64 {
            map.insert(n, NOW, NOW, n);
        }
        map.forget(NOW.plus_ms(10 * DAY_MS));
        assert!(map.is_empty() && !map.discarded.is_empty());
        let mut turns = 0;
        while !map.discarded.is_empty() {
            map.forget(NOW.plus_ms(10 * DAY_MS));
            turns += 1;
        }
        assert!(turns > 60_000 / (SHED_BUCKETS * super::super::buckets::BUCKET_ENTRIES_MAX));
    }

    #[test]
    fn there_are_never_more_than_the_most_and_one_bucket_and_the_oldest_go_first() {
        let mut map = AgedMap::new(Keep { entries_max: 100, ..KEEP });
        let mut most = 0;
        for n in 0..2_000_u64 {
            let at = NOW.plus_ms(n * 3_600_000 / 20);
            map.insert(n, at, at, n);
            most = most.max(map.len());
        }
        assert!((100..=110).contains(&most), "{most}");
        assert!((1_950..2_000).all(|n| map.get(&n) == Some(&n)));
        assert!((0..1_890).all(|n| map.get(&n).is_none()));
    }

    proptest! {
        #[test]
        fn an_entry_stays_as_long_as_promised_and_not_much_longer(
            steps in prop::collection::vec((0..30_u64, 0..30_u64, 0..20 * 3_600_000_u64, any::<bool>()), 1..150),
        ) {
            let mut map = AgedMap::new(KEEP);
            let mut without = AgedMap::new(KEEP);
            let mut model: Vec<(u64, Timestamp, Timestamp)> = Vec::new();
            let mut now = NOW;
            for (key, (hours_old, hours_ahead, waited_ms, asks)) in steps.into_iter().enumerate() {
                now = now.plus_ms(waited_ms);
                let own = Timestamp(now.0 - hours_old * 3_600_000).plus_ms(hours_ahead * 3_600_000);
                let key = key as u64;
                map.insert(key, own, now, key);
                without.insert(key, own, now, key);
                model.push((key, own, own.min(now)));
                if asks {
                    map.forget(now);
                }
            }
            // Whoever asked to forget, and when, the state is that of the entries and the last time.
            map.forget(now);
            without.forget(now);
            prop_assert!(map == without);
            for (key, own, counted) in model {
                let age = now.since_ms(counted);
                if age <= KEEP.keep_ms {
                    prop_assert_eq!(map.get_at(&key, own), Some(&key));
                }
                if own == counted && age > KEEP.keep_ms + KEEP.period_ms + FORGET_STEP_MS {
                    prop_assert_eq!(map.get(&key), None);
                }
            }
        }
    }
}
