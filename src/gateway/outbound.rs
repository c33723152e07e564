//! The built-in gateway's way out: takes each number's replies as they are handed over, posts them, and tells the broker
//! what became of them.
//!
//! ```text
//! Sender::next ─▶ Graph::post ─▶ sent, failed, unknown ─▶ Sender::tell
//!                      └─ refused for now ─▶ wait (back-off, jitter, Retry-After) ─▶ Sender::tell: again
//! ```
//! Where several in a row come to nothing that one can know, WhatsApp is in trouble: the number waits then too, and one
//! reply goes ahead at a time, so that an outage does not make a whole queue `unknown`.
//!
//! One conversation's replies come out one at a time, so each is posted as soon as it comes, beside those of others:
//! who waits for an answer holds up nobody else.
//!
//! A reload exchanges what a number is sent with; what is under way ends as it began.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::graph::Graph;
use super::graph::answer::{Limit, Posted};
use super::graph::sends::Account;
use crate::actors::port::SendNow;
use crate::actors::sender::{Pause, Sender, Told};
use crate::domain::command::SendOutcome;
use crate::domain::event::StatusError;
use crate::domain::ids::{ChannelId, ConversationId, Number};

/// Most conversations whose refusals are counted; beyond, the counts begin anew.
const COUNTED_MAX: usize = 65_536;
/// Longest `Retry-After` that is believed: an hour, after which a new attempt does no harm.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// How long a number that this process sends for no longer may wait for the answers to what it has posted: as long as one
/// may take.
const RETIRED_WITHIN: Duration = Duration::from_secs(30);
/// How often an ending gateway looks whether all has its outcome.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The first wait after a refusal, by what was refused, the factor from each to the next, and the longest.
fn back_off(limit: Limit) -> (Duration, u32, Duration) {
    let s = Duration::from_secs;
    match limit {
        // Meta's own advice: 4^n seconds.
        Limit::Pair => (s(4), 4, s(256)),
        Limit::Throughput | Limit::Unreachable => (s(1), 2, s(60)),
        Limit::Calls => (s(5), 2, s(300)),
        // It is lifted when Meta sees fewer complaints, which takes minutes at least.
        Limit::Spam => (s(30), 2, s(900)),
    }
}

/// How long to wait after so many refusals in a row: more each time, at least what Meta asks for, and up to half as much
/// again by `jitter` (0 to 255), so that not all come back at once.
fn wait(limit: Limit, refusals: u32, retry_after: Option<Duration>, jitter: u8) -> Duration {
    let (first, factor, most) = back_off(limit);
    let grown = first.saturating_mul(factor.saturating_pow(refusals.saturating_sub(1).min(16)));
    let least = grown.min(most).max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX));
    least + least.mul_f64(f64::from(jitter) / 512.0)
}

/// How many in a row come to nothing before the number waits.
const UNKNOWNS_MAX: u32 = 3;
/// The first wait then, and the longest, each twice the one before: short, since one reply is lost each time.
const UNKNOWN_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// How long to wait after so many in a row; not at all where they are few.
fn wait_after_unknown(unknowns: u32) -> Option<Duration> {
    let over = unknowns.checked_sub(UNKNOWNS_MAX)?;
    Some(UNKNOWN_WAIT.0.saturating_mul(2_u32.saturating_pow(over)).min(UNKNOWN_WAIT.1))
}

fn jitter() -> u8 {
    let mut byte = [0];
    // Without randomness all wait as long as they must, and no longer.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

/// How often in a row something was refused.
#[derive(Debug, Default)]
struct Refusals {
    /// Of the number, and how many of its pauses there have been: those that were posted before one count once.
    number: u32,
    pauses: u64,
    /// How many in a row came to nothing that one can know.
    unknowns: u32,
    customers: HashMap<(ChannelId, ConversationId), u32>,
}

impl Refusals {
    fn pause(&mut self, send: &SendNow, began: u64, limit: Limit, retry_after: Option<Duration>) -> Pause {
        if limit == Limit::Pair {
            if self.customers.len() >= COUNTED_MAX {
                self.customers.clear();
            }
            let refusals = self.customers.entry((send.channel, send.conversation)).or_default();
            *refusals += 1;
            return Pause::Customer(wait(limit, *refusals, retry_after, jitter()));
        }
        if began == self.pauses {
            self.number = self.number.saturating_add(1);
            self.pauses += 1;
        }
        Pause::Number(wait(limit, self.number, retry_after, jitter()))
    }

    /// Nobody can know what became of it; gives how long the number waits, if it does.
    fn unknown(&mut self, began: u64) -> Option<Duration> {
        if began != self.pauses {
            return None;
        }
        self.unknowns = self.unknowns.saturating_add(1);
        let wait = wait_after_unknown(self.unknowns)?;
        self.pauses += 1;
        Some(wait)
    }

    fn passed(&mut self, send: &SendNow, began: u64) {
        self.unknowns = 0;
        self.customers.remove(&(send.channel, send.conversation));
        if began == self.pauses {
            self.number = 0;
        }
    }
}

/// With what a number is sent.
#[derive(Debug, Clone)]
pub struct Means {
    /// The Graph API.
    pub graph: Graph,
    /// The number there.
    pub account: Account,
}

/// One number's way out.
struct Line {
    sender: Sender,
    means: RwLock<Arc<Means>>,
    refusals: Mutex<Refusals>,
}

impl Line {
    fn refusals(&self) -> std::sync::MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn post(&self, send: SendNow) {
        let began = self.refusals().pauses;
        let means = Arc::clone(&self.means.read().unwrap_or_else(PoisonError::into_inner));
        let told = match means.graph.post(&means.account, &send).await {
            Posted::Sent(message_id) => {
                self.refusals().passed(&send, began);
                Told::Outcome(SendOutcome::Sent(message_id))
            }
            Posted::Refused(error) => {
                self.refusals().passed(&send, began);
                tracing::warn!(number = %self.sender.number(), channel = %send.channel, offset = send.offset.0,
                    code = %error.code, "a reply was refused");
                Told::Outcome(SendOutcome::Failed(error))
            }
            Posted::Again { error, limit, retry_after } => {
                let pause = self.refusals().pause(&send, began, limit, retry_after);
                tracing::warn!(number = %self.sender.number(), code = %error.code, ?pause, "replies wait");
                Told::Again(error, pause)
            }
            Posted::Unknown => {
                tracing::warn!(number = %self.sender.number(), channel = %send.channel, offset = send.offset.0,
                    "nobody can know whether a reply was sent");
                let wait = self.refusals().unknown(began);
                if let Some(wait) = wait {
                    tracing::warn!(number = %self.sender.number(), ?wait, "the number waits");
                    self.sender.pause(wait);
                }
                Told::Outcome(SendOutcome::Unknown)
            }
        };
        self.sender.tell(&send, told);
    }

    /// Posts what comes until it is told to end; then what was handed and not posted waits again.
    async fn run(self: Arc<Self>, mut ending: watch::Receiver<Option<Instant>>) {
        let mut posts = JoinSet::new();
        let mut sends = Vec::new();
        let until = loop {
            tokio::select! {
                more = self.sender.next(&mut sends) => {
                    for send in sends.drain(..) {
                        let line = Arc::clone(&self);
                        posts.spawn(async move { line.post(send).await });
                    }
                    if !more {
                        return;
                    }
                }
                Some(_) = posts.join_next(), if !posts.is_empty() => {}
                Ok(until) = ending.wait_for(Option::is_some) => break until.unwrap_or_else(Instant::now),
            }
        };
        self.sender.close();
        tokio::select! {
            () = self.finish(&mut posts) => {}
            () = sleep_until(until) => {}
        }
    }

    async fn finish(&self, posts: &mut JoinSet<()>) {
        let mut sends = Vec::new();
        while self.sender.unresolved() > 0 {
            tokio::select! {
                _ = self.sender.next(&mut sends) => {}
                Some(_) = posts.join_next(), if !posts.is_empty() => {}
                () = sleep(LOOK_EVERY) => {}
            }
            for send in sends.drain(..) {
                let title = Some(Arc::from("the broker stops"));
                let error = StatusError { code: Arc::from("131016"), title, details: None };
                self.sender.tell(&send, Told::Again(error, Pause::Customer(Duration::ZERO)));
            }
        }
    }
}

/// The way out of every number that this process sends for.
#[derive(Debug, Default)]
pub struct Outbound {
    lines: BTreeMap<Number, Running>,
    ending: JoinSet<()>,
}

/// A line, for who exchanges what it sends with, or ends it.
struct Running {
    line: Arc<Line>,
    end: watch::Sender<Option<Instant>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("line", &self.line.sender).finish_non_exhaustive()
    }
}

impl Outbound {
    /// Sends for these numbers from now on, on the current runtime: lines that there are go on, new ones begin with the
    /// sender that `connect` gives, and those of other numbers end when what they have posted is answered.
    pub fn set(
        &mut self,
        numbers: impl IntoIterator<Item = (Number, Means)>,
        connect: impl Fn(&Number) -> Option<Sender>,
    ) {
        // Those that have ended by themselves.
        while self.ending.try_join_next().is_some() {}
        let mut before = std::mem::take(&mut self.lines);
        for (number, means) in numbers {
            let running = before.remove(&number).filter(|running| running.line.sender.is_current());
            if let Some(running) = running {
                *running.line.means.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(means);
                self.lines.insert(number, running);
            } else if let Some(sender) = connect(&number) {
                let means = RwLock::new(Arc::new(means));
                let line = Arc::new(Line { sender, means, refusals: Mutex::default() });
                let (end, ending) = watch::channel(None);
                self.ending.spawn(Arc::clone(&line).run(ending));
                self.lines.insert(number, Running { line, end });
            }
        }
        let until = Instant::now() + RETIRED_WITHIN;
        for retired in before.into_values() {
            retired.end.send_replace(Some(until));
        }
    }

    /// Hands nothing more over and waits for the answers to what was posted, for `limit` at most. What has none by then
    /// is `unknown`.
    pub async fn stop(mut self, limit: Duration) {
        for running in std::mem::take(&mut self.lines).into_values() {
            running.end.send_replace(Some(Instant::now() + limit));
        }
        let ended = async { while self.ending.join_next().await.is_some() {} };
        // One that a reload has retired may have more time of its own.
        let _ = tokio::time::timeout(limit + LOOK_EVERY, ended).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_longer_than_the_one_before_and_at_least_what_meta_asks_for() {
        for limit in [Limit::Pair, Limit::Throughput, Limit::Spam, Limit::Calls, Limit::Unreachable] {
            let (first, _, most) = back_off(limit);
            assert_eq!(wait(limit, 1, None, 0), first);
            assert_eq!(wait(limit, 100, None, 0), most);
            let waits: Vec<Duration> = (1..20).map(|refusals| wait(limit, refusals, None, 0)).collect();
            assert!(waits.is_sorted());
            let asked = Duration::from_secs(1_000);
            assert_eq!(wait(limit, 1, Some(asked), 0), asked);
            assert!(wait(limit, 1, Some(asked), 255) > asked);
        }
        let unknown: Vec<_> = (1..=9).map(|n| wait_after_unknown(n).map(|wait| wait.as_secs())).collect();
        assert_eq!(unknown[..2], [None, None]);
        assert_eq!(unknown[2..], [1, 2, 4, 8, 10, 10, 10].map(Some));
        let pair: Vec<u64> = (1..=4).map(|n| wait(Limit::Pair, n, None, 0).as_secs()).collect();
        assert_eq!(pair, [4, 16, 64, 256]);
    }
}
