//! The broker's clock: the one place of `actors` that asks the operating system what time it is.
//!
//! Time decides what expires and what is dropped for good, so a wall clock that leaps (a wrong NTP server, an operator's
//! slip, a machine that was suspended) must not decide at once. The clock follows the wall only while that agrees with
//! the monotonic clock; a leap is acted on when it has stood for an hour. Until then time goes on evenly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::domain::ids::Timestamp;

/// By how much wall clock and monotonic clock may differ between two looks before it is a leap, in milliseconds: more
/// than any correction that a well-kept clock makes, less than any time that something is kept.
const LEAP_MS: u64 = 60_000;
/// How long a leap must stand before it is followed.
const LEAP_STANDS_FOR: Duration = Duration::from_secs(3_600);

/// Where a simulation has set the clock; 0 while none does.
static SIMULATED_MS: AtomicU64 = AtomicU64::new(0);

/// From now on, and in the whole process, it is what a simulation says, and no other clock is asked.
#[doc(hidden)]
pub fn simulate(now: Timestamp) {
    SIMULATED_MS.store(now.0, Ordering::Release);
}

static CLOCK: OnceLock<(Instant, Mutex<Clock>)> = OnceLock::new();

/// By how much the wall clock has leapt ahead of the broker's (behind: negative), in milliseconds; zero while they agree.
pub(super) fn leap_ms() -> i64 {
    let clock = CLOCK.get().map(|(_, clock)| clock.lock().unwrap_or_else(PoisonError::into_inner));
    clock.and_then(|clock| clock.leap).map_or(0, |(ahead, _)| i64::try_from(ahead).unwrap_or(i64::MAX))
}

/// Now, by the broker's clock.
pub(super) fn now() -> Timestamp {
    let simulated = SIMULATED_MS.load(Ordering::Acquire);
    if simulated > 0 {
        return Timestamp(simulated);
    }
    let wall = || Timestamp::from(SystemTime::now());
    let (start, clock) = CLOCK.get_or_init(|| (Instant::now(), Mutex::new(Clock::new(wall()))));
    let mut clock = clock.lock().unwrap_or_else(PoisonError::into_inner);
    clock.read(wall(), start.elapsed())
}

/// A time of the system's, in whole milliseconds; what lies before 1970 is 1970.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// What is known of the two clocks. It is told both; it asks nobody.
#[derive(Debug)]
struct Clock {
    /// The last reading that was agreed on: what time it was, and by the monotonic clock when.
    agreed: (Timestamp, Duration),
    /// A leap that has not stood long enough: by how much the wall is ahead (or behind), and since when.
    leap: Option<(i128, Duration)>,
}

impl Clock {
    /// Begins where the wall clock is; the monotonic clock begins at zero.
    const fn new(wall: Timestamp) -> Self {
        Self { agreed: (wall, Duration::ZERO), leap: None }
    }

    /// What time it is, when the clocks say this.
    fn read(&mut self, wall: Timestamp, monotonic: Duration) -> Timestamp {
        let passed = monotonic.saturating_sub(self.agreed.1);
        let even = self.agreed.0.plus_ms(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
        let ahead = i128::from(wall.0) - i128::from(even.0);
        if ahead.unsigned_abs() <= u128::from(LEAP_MS) {
            if self.leap.take().is_some() {
                tracing::info!("the wall clock agrees with the monotonic clock again");
            }
            return self.agree(wall, monotonic);
        }
        match self.leap {
            // The same leap still, give or take what a clock is corrected by.
            Some((before, since)) if (ahead - before).unsigned_abs() <= u128::from(LEAP_MS) => {
                if monotonic.saturating_sub(since) < LEAP_STANDS_FOR {
                    return even;
                }
                tracing::warn!(ahead_ms = %ahead, "the wall clock's leap has stood for an hour and is followed");
                self.leap = None;
                self.agree(wall, monotonic)
            }
            _ => {
                tracing::warn!(
                    wall_ms = wall.0,
                    expected_ms = even.0,
                    "the wall clock has leapt; nothing is dropped or ended by it unless it stands for an hour"
                );
                self.leap = Some((ahead, monotonic));
                even
            }
        }
    }

    fn agree(&mut self, wall: Timestamp, monotonic: Duration) -> Timestamp {
        self.agreed = (wall, monotonic);
        wall
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp(1_700_000_000_000);
    const MINUTE: u64 = 60_000;
    const YEAR: u64 = 365 * 24 * 60 * MINUTE;

    /// Reads every minute for so many minutes; `wall` says what the wall clock shows after so many milliseconds.
    fn read_for(clock: &mut Clock, minutes: std::ops::Range<u64>, wall: impl Fn(u64) -> u64) -> Timestamp {
        let mut last = START;
        for minute in minutes {
            let passed = minute * MINUTE;
            last = clock.read(Timestamp(wall(passed)), Duration::from_millis(passed));
        }
        last
    }

    #[test]
    fn a_leap_moves_nothing_until_it_has_stood_for_an_hour() {
        for leap in [YEAR as i64, -(YEAR as i64), 61_000, -61_000] {
            let mut clock = Clock::new(START);
            read_for(&mut clock, 0..10, |passed| START.0 + passed);
            let leapt = |passed: u64| (START.0 + passed).saturating_add_signed(leap);
            let during = read_for(&mut clock, 10..70, leapt);
            assert_eq!(during, START.plus_ms(69 * MINUTE), "59 minutes after a leap of {leap} ms");
            let after = read_for(&mut clock, 70..72, leapt);
            assert_eq!(after.0, leapt(71 * MINUTE), "an hour after a leap of {leap} ms");
        }
    }

    #[test]
    fn a_leap_that_is_taken_back_leaves_no_trace() {
        let mut clock = Clock::new(START);
        read_for(&mut clock, 0..59, |passed| START.0 + passed + YEAR);
        assert_eq!(read_for(&mut clock, 59..60, |passed| START.0 + passed), START.plus_ms(59 * MINUTE));
        // The next one must stand for an hour of its own.
        let again = read_for(&mut clock, 60..119, |passed| START.0 + passed + YEAR);
        assert_eq!(again, START.plus_ms(118 * MINUTE));
    }

    #[test]
    fn a_machine_that_was_suspended_has_leapt() {
        let mut clock = Clock::new(START);
        clock.read(START.plus_ms(MINUTE), Duration::from_millis(MINUTE));
        let woken = clock.read(START.plus_ms(YEAR), Duration::from_millis(MINUTE + 5));
        assert_eq!(woken, START.plus_ms(MINUTE + 5));
    }

    proptest! {
        #[test]
        fn small_corrections_are_followed_and_the_clock_never_strays_from_what_both_say(
            steps in prop::collection::vec((1_u64..100_000, -30_000_i64..30_000), 1..100),
        ) {
            let mut clock = Clock::new(START);
            let (mut passed, mut off) = (0, 0_i64);
            for (step, correction) in steps {
                passed += step;
                off = correction;
                let wall = (START.0 + passed).saturating_add_signed(off);
                prop_assert_eq!(clock.read(Timestamp(wall), Duration::from_millis(passed)).0, wall);
            }
            prop_assert!(off.unsigned_abs() < LEAP_MS);
        }
    }
}
