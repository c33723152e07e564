//! What left memory for a run on disk, and what stays of it here: whose period it is, and what may be in it.
//!
//! A *run* is a file of rows that never changes: sorted keys, each with a value. A channel lays four sorts of what it
//! remembers aside, each on a [`Shelf`] of its own.
//!
//! ```text
//!  in memory ──Movable──▶ a run on disk, written with a base that names it
//!                │
//!                └──LaidAside──▶ here: its times and a filter, 1.5 bytes a row
//! ```
//!
//! **Invariants:** a run is on one shelf, in one period of it. One that can not be read has no filter, and what is in
//! it counts as unseen.

use std::collections::BTreeMap;
use std::fmt;

use super::aged::Period;
use super::filter::Filter;
use super::fingerprint::Fingerprint;
use super::ids::{Offset, Timestamp};
use super::saved::{Put, Saved, Take, Unreadable, restore_all, saved};

/// The number of a run. Never used twice by what a state names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a run is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shelf {
    /// Which record a customer's message is, by WhatsApp's id (B6).
    MessageIds,
    /// Which record a reply with an outcome is, by its id (B4).
    ReplyIds,
    /// What became of a reply, by its record.
    Outcomes,
    /// Which reply a message was and whose, by WhatsApp's id (B7).
    Sent,
}

impl Shelf {
    /// All of them, in the order in which a state names them.
    pub const ALL: [Self; 4] = [Self::MessageIds, Self::ReplyIds, Self::Outcomes, Self::Sent];
}

/// Rows of one period that lie in a run.
#[derive(Debug, Clone, PartialEq)]
pub struct LaidAside {
    /// Which run.
    pub run: RunId,
    /// The number of the period.
    pub period: u64,
    /// The earliest of the rows' own times.
    pub from: Timestamp,
    /// The latest of the rows' own times.
    pub to: Timestamp,
    /// The latest of what the rows' ages count from.
    pub newest: Timestamp,
    /// All of the period that comes from records up to this one lies here or in a run before.
    pub last: Offset,
    /// How many rows there are.
    pub rows: u64,
    /// What may be in it; none while that is not known, or where it can not be read.
    pub filter: Option<Filter>,
}

/// Rows of one period that may be laid aside.
#[derive(Debug, Clone, PartialEq)]
pub struct Movable {
    /// What would be known of them.
    pub about: LaidAside,
    /// What the run is made of.
    pub rows: Rows,
}

impl Movable {
    /// The rows of a period; what they stand for, and in which run, is for whoever writes it to say.
    pub(super) fn of<K, V>(number: u64, period: &Period<'_, K, V>, rows: Rows) -> Self {
        let Period { from, to, newest, last, .. } = *period;
        let count = rows.len() as u64;
        let about =
            LaidAside { run: RunId(0), period: number, from, to, newest, last, rows: count, filter: None };
        Self { about, rows }
    }
}

/// Keys, ascending and each once, with a value each; all values take as many bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    keys: Vec<Fingerprint>,
    value_bytes: usize,
    values: Vec<u8>,
}

impl Rows {
    /// None yet; there will be about so many.
    #[must_use]
    pub fn new(value_bytes: usize, about: usize) -> Self {
        Self { keys: Vec::with_capacity(about), value_bytes, values: Vec::with_capacity(about * value_bytes) }
    }

    /// Those of message ids, or of anything that names a record: of two with one key the newer record's.
    #[must_use]
    pub fn of_records(mut entries: Vec<(Fingerprint, Offset)>) -> Self {
        entries.sort_unstable_by_key(|(key, record)| (*key, std::cmp::Reverse(*record)));
        let mut rows = Self::new(size_of::<u64>(), entries.len());
        for (key, record) in entries {
            rows.push(key, &record.0.to_le_bytes());
        }
        rows
    }

    /// Adds one, unless it has the key of the last one. A shorter value is filled up with zeros; none is longer.
    pub fn push(&mut self, key: Fingerprint, value: &[u8]) {
        debug_assert!(value.len() <= self.value_bytes, "the widest value was measured");
        debug_assert!(self.keys.last().is_none_or(|last| *last <= key), "by rising key");
        if self.keys.last() != Some(&key) {
            self.keys.push(key);
            self.values.extend_from_slice(value);
            self.values.resize(self.keys.len() * self.value_bytes, 0);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What each value takes, in bytes.
    #[must_use]
    pub const fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// The keys, ascending.
    #[must_use]
    pub fn keys(&self) -> &[Fingerprint] {
        &self.keys
    }

    /// The rows, by rising key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Fingerprint, &[u8])> {
        let value = |at: usize| self.values.get(at * self.value_bytes..(at + 1) * self.value_bytes);
        self.keys.iter().enumerate().map(move |(at, key)| (*key, value(at).unwrap_or_default()))
    }
}

/// The record that a value begins with.
#[must_use]
pub fn record_in(value: &[u8]) -> Option<Offset> {
    value.first_chunk().map(|bytes| Offset(u64::from_le_bytes(*bytes)))
}

/// What a shelf's runs are. Empty, it holds no memory.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Aside {
    /// By the number of the period, in the order in which they were laid aside; no list is empty.
    periods: BTreeMap<u64, Vec<LaidAside>>,
    /// What that takes in memory, in bytes.
    bytes: usize,
}

impl Aside {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { periods: BTreeMap::new(), bytes: 0 }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.periods.is_empty()
    }

    /// What it takes in memory, in bytes, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of it, by period and age.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &LaidAside> {
        self.periods.values().flatten()
    }

    /// Those of a period, by age.
    pub fn of_period(&self, period: u64) -> impl DoubleEndedIterator<Item = &LaidAside> {
        self.periods.get(&period).into_iter().flatten()
    }

    /// The runs that may have a key, the newest first.
    #[must_use]
    pub fn holders(&self, key: Fingerprint) -> Vec<RunId> {
        self.iter().rev().filter(|laid| laid.may_have(key)).map(|laid| laid.run).collect()
    }

    /// What is known of a run.
    #[must_use]
    pub fn get(&self, run: RunId) -> Option<&LaidAside> {
        self.iter().find(|laid| laid.run == run)
    }

    /// Adds a run.
    pub fn push(&mut self, laid: LaidAside) {
        self.periods.entry(laid.period).or_default().push(laid);
        self.measure();
    }

    /// Drops the runs all of whose rows' ages count from before this.
    pub fn forget(&mut self, oldest_kept: Timestamp) {
        self.retain(|laid| laid.newest >= oldest_kept);
    }

    /// What may be in a run has become known; nothing, where the run can not be read.
    pub fn set_filter(&mut self, run: RunId, filter: Option<Filter>) {
        if let Some(laid) = self.periods.values_mut().flatten().find(|laid| laid.run == run) {
            laid.filter = filter;
            self.measure();
        }
    }

    /// The run whose rows are the oldest, and from when the newest of them is.
    #[must_use]
    pub fn oldest(&self) -> Option<(Timestamp, RunId)> {
        self.iter().map(|laid| (laid.newest, laid.run)).min()
    }

    /// Forgets what is known of a run; gives how many rows it has.
    pub fn drop_run(&mut self, run: RunId) -> usize {
        let mut rows = 0;
        self.retain(|laid| {
            if laid.run == run {
                rows += laid.rows;
            }
            laid.run != run
        });
        usize::try_from(rows).unwrap_or(usize::MAX)
    }

    fn retain(&mut self, mut stays: impl FnMut(&LaidAside) -> bool) {
        self.periods.retain(|_, period| {
            period.retain(&mut stays);
            !period.is_empty()
        });
        self.measure();
    }

    fn measure(&mut self) {
        let bytes = |laid: &LaidAside| size_of::<LaidAside>() + laid.filter.as_ref().map_or(0, Filter::bytes);
        self.bytes = self.iter().map(bytes).sum();
    }

    /// Writes it down, but for the filters: they lie in the runs.
    pub fn save(&self, out: &mut dyn Put) {
        out.number(self.iter().count() as u64);
        self.iter().for_each(|laid| laid.save(out));
    }

    /// Reads it back; no filter is known yet.
    ///
    /// # Errors
    /// When it is none.
    pub fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let mut aside = Self::new();
        for laid in restore_all(from) {
            aside.push(laid?);
        }
        Ok(aside)
    }
}

impl LaidAside {
    /// Whether the run may have a key.
    #[must_use]
    pub fn may_have(&self, key: Fingerprint) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.may_have(key))
    }
}

saved!(Laid { run, period, from, to, newest, last, rows });

/// What is saved of a [`LaidAside`].
struct Laid {
    run: u64,
    period: u64,
    from: Timestamp,
    to: Timestamp,
    newest: Timestamp,
    last: Offset,
    rows: u64,
}

impl Saved for LaidAside {
    fn save(&self, out: &mut dyn Put) {
        let Self { run, period, from, to, newest, last, rows, filter: _ } = *self;
        Laid { run: run.0, period, from, to, newest, last, rows }.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let Laid { run, period, from, to, newest, last, rows } = Laid::restore(from)?;
        Ok(Self { run: RunId(run), period, from, to, newest, last, rows, filter: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u128) -> Fingerprint {
        Fingerprint::from_u128(n)
    }

    #[test]
    fn rows_are_by_rising_key_each_once_with_the_newer_record_and_all_as_wide() {
        let rows = Rows::of_records(vec![(key(2), Offset(7)), (key(1), Offset(3)), (key(2), Offset(9))]);
        let found: Vec<_> = rows.iter().map(|(key, value)| (key, record_in(value))).collect();
        assert_eq!(found, [(key(1), Some(Offset(3))), (key(2), Some(Offset(9)))]);
        let mut rows = Rows::new(3, 2);
        rows.push(key(1), b"a");
        rows.push(key(2), b"abc");
        assert!(rows.iter().eq([(key(1), &b"a\0\0"[..]), (key(2), b"abc")]));
        assert_eq!(record_in(b"short"), None);
    }

    #[test]
    fn the_newest_run_of_those_that_may_have_a_key_comes_first() {
        let laid = |run, period, newest, keys: &[u128]| LaidAside {
            run: RunId(run),
            period,
            from: Timestamp(0),
            to: Timestamp(0),
            newest: Timestamp(newest),
            last: Offset(0),
            rows: keys.len() as u64,
            filter: Some(Filter::of(keys.iter().map(|n| key(*n)), keys.len())),
        };
        let mut aside = Aside::new();
        aside.push(laid(4, 2, 20, &[1 << 90]));
        aside.push(laid(5, 1, 10, &[1 << 90, 3]));
        aside.push(laid(6, 2, 21, &[1 << 90, 3, 4]));
        assert_eq!(aside.holders(key(1 << 90)), [RunId(6), RunId(4), RunId(5)]);
        assert_eq!(aside.oldest(), Some((Timestamp(10), RunId(5))));
        aside.set_filter(RunId(6), None);
        assert_eq!(
            aside.holders(key(1 << 90)),
            [RunId(4), RunId(5)],
            "what can not be read counts as unseen"
        );
        aside.forget(Timestamp(20));
        assert_eq!(aside.holders(key(1 << 90)), [RunId(4)]);
        assert_eq!((aside.drop_run(RunId(6)), aside.drop_run(RunId(4))), (3, 1));
        assert!(aside.is_empty() && aside.bytes() == 0);
    }
}
