//! When messages are due, and how a producer waits for that.
//!
//! A runtime's timer is exact to a millisecond; on a schedule of thousands of messages a second that alone would be the
//! latency. So a paced producer has a thread of its own and sleeps there, which is exact to some 60 µs.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::oneshot;

/// Messages a second, or as fast as they are taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    per_second: Option<u64>,
    /// Of all that is due, the first that is this producer's, and each so many after it.
    first: u64,
    every: u64,
}

impl Schedule {
    pub(super) fn of(per_second: Option<u64>) -> Self {
        Self { per_second: per_second.map(|rate| rate.max(1)), first: 0, every: 1 }
    }

    /// The part of producer number `at` of so many, who take turns.
    pub(super) fn turn(self, at: u64, of: u64) -> Self {
        Self { first: at, every: of.max(1), ..self }
    }

    pub(super) fn is_paced(self) -> bool {
        self.per_second.is_some()
    }

    /// When message number `at` is due, from the beginning; nothing without a schedule.
    pub(super) fn due(self, at: u64) -> Option<Duration> {
        let rate = u128::from(self.per_second?);
        let at = u128::from(self.first) + u128::from(at) * u128::from(self.every);
        let ns = at * 1_000_000_000 / rate;
        Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
    }

    /// How many messages from number `at` on are due by now, `most` at most; waits until there is one.
    pub(super) fn wait(self, at: u64, most: u64, begun: Instant) -> u64 {
        loop {
            let Some(due) = self.due(at) else { return most };
            let now = begun.elapsed();
            if now >= due {
                let more = (1..most).take_while(|more| self.due(at + more).is_some_and(|due| due <= now));
                return 1 + u64::try_from(more.count()).unwrap_or_default();
            }
            sleep(due - now);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread belongs to the paced producer alone")]
fn sleep(how_long: Duration) {
    std::thread::sleep(how_long);
}

/// Runs a producer: a paced one on a thread of its own, where it may sleep.
pub(super) async fn run_producer<T: Send + 'static>(
    schedule: Schedule,
    producer: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    if !schedule.is_paced() {
        return tokio::spawn(producer).await?;
    }
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name("producer".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        // Nobody listens only if the run has failed elsewhere.
        let _ =
            tell.send(runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(producer)));
    })?;
    told.await.context("the producer's thread ended")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_by_the_schedule_whenever_they_are_sent() {
        let schedule = Schedule::of(Some(1_000));
        assert_eq!(schedule.due(1_500), Some(Duration::from_millis(1_500)));
        let begun = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        assert_eq!(schedule.wait(0, 64, begun), 64, "all that are late go at once");
        // More than one where the machine has slept longer.
        assert!(schedule.wait(11_000, 64, begun) >= 1, "the first that is due is waited for");
        assert!(begun.elapsed() >= Duration::from_secs(11));
        let third = schedule.turn(2, 3);
        assert_eq!(third.due(1), Some(Duration::from_millis(5)), "0 to 4 are before it, 3 of them others'");
        let none = Schedule::of(None);
        assert_eq!((none.due(5), none.wait(5, 64, begun)), (None, 64));
    }
}
