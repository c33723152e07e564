//! What each segment holds, as far as retention must know: its size, and when its records were recorded.
//!
//! **Invariant:** a segment up to `dropped` is not read any more, whether its file is still there or not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StreamId;
use super::index::BlockRef;
use super::sealed::Sealed;
use crate::domain::ids::Timestamp;

/// How long history stays, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// For so long at least, in milliseconds since it was recorded; gone after twice that time.
    pub keep_ms: u64,
    /// So many bytes of segments at most; the oldest go first.
    pub bytes_max: u64,
}

/// What is to be done for retention, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    /// The segment in use holds what is too old: go over to the next.
    pub rotate: bool,
    /// A base is wanted: what is to go is not covered yet, or the log has grown.
    pub base: bool,
    /// Segments up to this number may go.
    pub retire: Option<u64>,
}

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Where its last commit ends.
    pub(super) end: u64,
    /// When its first and its last record were recorded; none while it has none.
    pub(super) recorded: Option<(Timestamp, Timestamp)>,
}

#[derive(Debug, Default)]
struct State {
    stats: BTreeMap<u64, Stat>,
    /// Segments up to this one were given up.
    dropped: u64,
    /// The blocks of each segment that is not settled yet: cut at its end, its index beside it.
    unsettled: BTreeMap<u64, Vec<(StreamId, BlockRef)>>,
    /// How many were given up since the start, and what was written in them, in bytes.
    retired: (u64, u64),
}

/// All segments of the log.
#[derive(Debug, Default)]
pub(super) struct Segments(Mutex<State>);

/// A base is written when the log behind the one before has grown by so many times its size …
const BASE_GROWTH: u64 = 4;
/// … but not for less than this, in bytes: a base folds every record once more, which is a third of what taking it in
/// has cost; and a start that folds so much is still ready within its five seconds.
const BASE_GROWTH_BYTES_MIN: u64 = 512 << 20;

impl Segments {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment has begun.
    pub(super) fn began(&self, segment: u64, end: u64) {
        let mut state = self.lock();
        state.stats.entry(segment).or_insert(Stat { end, recorded: None });
        state.unsettled.entry(segment).or_default();
    }

    /// A commit that ends there was written, with these blocks; its records were recorded between these times.
    pub(super) fn wrote(
        &self,
        segment: u64,
        end: u64,
        recorded: Option<(Timestamp, Timestamp)>,
        blocks: impl IntoIterator<Item = (StreamId, BlockRef)>,
    ) {
        let mut state = self.lock();
        state.unsettled.entry(segment).or_default().extend(blocks);
        let stat = state.stats.entry(segment).or_insert(Stat { end, recorded: None });
        stat.end = stat.end.max(end);
        stat.recorded = match (stat.recorded, recorded) {
            (Some((first, last)), Some((from, to))) => Some((first.min(from), last.max(to))),
            (before, now) => now.or(before),
        };
    }

    /// The segment in use.
    pub(super) fn active(&self) -> u64 {
        self.lock().stats.keys().next_back().copied().unwrap_or(0)
    }

    /// Up to which segment all were given up.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Segments up to `through` were given up; gives those that were there.
    pub(super) fn drop_through(&self, through: u64) {
        let mut state = self.lock();
        state.dropped = state.dropped.max(through);
        let first = state.dropped + 1;
        let kept = state.stats.split_off(&first);
        let gone = std::mem::replace(&mut state.stats, kept);
        state.retired.0 += gone.len() as u64;
        state.retired.1 += gone.values().map(|stat| stat.end).sum::<u64>();
        let dropped = state.dropped;
        state.unsettled.retain(|segment, _| *segment > dropped);
    }

    /// A segment is as its index says, and settled.
    pub(super) fn is_settled(&self, sealed: &Sealed) {
        let mut state = self.lock();
        state.stats.insert(sealed.number, Stat { end: sealed.end, recorded: sealed.recorded });
        state.unsettled.remove(&sealed.number);
    }

    /// A sealed segment that is not settled yet; whoever takes it settles it, or gives it back.
    pub(super) fn take_unsettled(&self) -> Option<Sealed> {
        let mut state = self.lock();
        let active = state.stats.keys().next_back().copied().unwrap_or(0);
        let number = state.unsettled.keys().next().copied().filter(|number| *number < active)?;
        let blocks = state.unsettled.remove(&number)?;
        let Stat { end, recorded } = state.stats.get(&number).copied()?;
        Some(Sealed { number, end, recorded, blocks })
    }

    /// It could not be settled.
    pub(super) fn give_back(&self, sealed: Sealed) {
        self.lock().unsettled.insert(sealed.number, sealed.blocks);
    }

    /// How many there are and what is written in them, in bytes.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let state = self.lock();
        (state.stats.len() as u64, state.stats.values().map(|stat| stat.end).sum())
    }

    /// The same of those that were given up since the start.
    pub(super) fn retired(&self) -> (u64, u64) {
        self.lock().retired
    }

    /// What is to be done now. `covered` and `base_bytes` are the installed base's; `base_is_stale` says that it holds
    /// replies that it may not hold any longer.
    pub(super) fn due(&self, now: Timestamp, retention: &Retention, covered: u64, base_bytes: u64) -> Due {
        let state = self.lock();
        let Some((active, in_use)) = state.stats.last_key_value() else { return Due::default() };
        let before = Timestamp(now.0.saturating_sub(retention.keep_ms));
        let is_old = |recorded: Timestamp| recorded < before;
        let mut bytes: u64 = state.stats.values().map(|stat| stat.end).sum();
        let rotate = in_use.recorded.is_some_and(|(first, _)| is_old(first))
            || (in_use.recorded.is_some() && in_use.end > retention.bytes_max);
        let (mut wanted, mut retire) = (None, None);
        for (segment, stat) in state.stats.range(..*active) {
            let goes = bytes > retention.bytes_max || stat.recorded.is_none_or(|(_, last)| is_old(last));
            if !goes {
                break;
            }
            bytes -= stat.end;
            wanted = Some(*segment);
            if *segment <= covered {
                retire = Some(*segment);
            }
        }
        let grown: u64 = state.stats.range(covered + 1..).map(|(_, stat)| stat.end).sum();
        let base = wanted > retire || grown > (BASE_GROWTH * base_bytes).max(BASE_GROWTH_BYTES_MIN);
        Due { rotate, base, retire }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn segments(stats: &[(u64, u64, u64)]) -> Segments {
        let segments = Segments::default();
        for (number, (end, first, last)) in (1..).zip(stats) {
            segments.wrote(number, *end, Some((Timestamp(*first), Timestamp(*last))), []);
        }
        segments
    }

    fn keep(keep_ms: u64, bytes_max: u64) -> Retention {
        Retention { keep_ms, bytes_max }
    }

    #[test]
    fn a_segment_goes_when_its_last_record_is_too_old_and_a_base_covers_it() {
        let all = segments(&[(100, 0, HOUR), (100, HOUR, 2 * HOUR), (100, 2 * HOUR, 3 * HOUR)]);
        let due = |now, covered| all.due(Timestamp(now), &keep(HOUR, 1_000), covered, 0);
        assert_eq!(due(2 * HOUR, 0), Due::default());
        assert_eq!(due(2 * HOUR + 1, 0), Due { base: true, ..Due::default() });
        assert_eq!(due(2 * HOUR + 1, 2), Due { retire: Some(1), ..Due::default() });
        assert_eq!(due(3 * HOUR + 1, 1), Due { rotate: true, base: true, retire: Some(1) });
    }

    #[test]
    fn the_oldest_go_when_there_is_too_much() {
        let all = segments(&[(100, 0, 1), (100, 1, 2), (100, 2, 3)]);
        let due = |bytes_max, covered| all.due(Timestamp(3), &keep(HOUR, bytes_max), covered, 0);
        assert_eq!(due(300, 3), Due::default());
        assert_eq!(due(250, 3), Due { retire: Some(1), ..Due::default() });
        assert_eq!(due(120, 2), Due { retire: Some(2), ..Due::default() });
        assert_eq!(due(99, 2), Due { rotate: true, retire: Some(2), base: false });
    }

    #[test]
    fn a_clock_that_went_back_drops_nothing() {
        let all = segments(&[(100, HOUR, HOUR), (100, HOUR, HOUR)]);
        assert_eq!(all.due(Timestamp(0), &keep(1_000, 1_000), 9, 0), Due::default());
    }

    #[test]
    fn sealed_segments_are_settled_once() {
        let all = segments(&[(100, 0, 1), (90, 1, 2), (80, 2, 3)]);
        let next = || all.take_unsettled().map(|sealed| (sealed.number, sealed.end));
        assert_eq!((next(), next(), next()), (Some((1, 100)), Some((2, 90)), None));
        all.wrote(4, 70, None, []);
        let third = all.take_unsettled().unwrap();
        assert_eq!(next(), None);
        all.give_back(third);
        assert_eq!((next(), next()), (Some((3, 80)), None));
        all.drop_through(2);
        assert_eq!((all.dropped(), all.active(), all.sizes(), all.retired()), (2, 4, (2, 150), (2, 190)));
    }
}
