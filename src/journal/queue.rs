//! What waits for the writer. Appenders push and go on; the writer takes all that has gathered, by swapping vectors.
//!
//! **The rule of gathering.** The writer commits at once when it is idle. When the last commit held
//! [`GATHER_RECORDS_MIN`] records or more, the next waits until [`GATHER_BYTES`] or [`GATHER_RECORDS`] have gathered, or
//! [`GATHER_MAX`] has passed since the last sync returned: a few large commits cost a third of many small ones.
//!
//! Bounded by its users: each takes a permit for the bytes that it appends, and [`Queue::bytes`] says what is there.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::control::Order;
use super::{Block, Durability, Head, Sink, StreamId};

/// A commit with so many records shows that more are coming: the next one gathers.
pub(super) const GATHER_RECORDS_MIN: u32 = 64;
/// Enough gathered, in records.
const GATHER_RECORDS: usize = 1024;
/// Enough gathered, in bytes (measured: 0.13–0.19 µs of CPU a record at this size against 0.4–0.7 µs at 44 KiB).
const GATHER_BYTES: usize = 256 << 10;
/// How long a commit waits for others at most, counted from the return of the last sync.
pub(super) const GATHER_MAX: Duration = Duration::from_micros(300);
/// How long after a commit a proof of it is written, if nothing follows.
pub(super) const QUIET: Duration = Duration::from_millis(10);

/// What the writer is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// Append a block.
    Append(Append),
    /// Give something up.
    Order(Order),
    /// Go over to the next segment.
    Rotate,
}

/// One append.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) stream: StreamId,
    pub(super) expected: Head,
    pub(super) block: Block,
    pub(super) durability: Durability,
    pub(super) sink: Sink,
}

/// What the writer is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Commit what was taken.
    Commit,
    /// Nothing has come for [`QUIET`]: prove the last commit.
    Prove,
    /// Everything is taken: end.
    Close,
}

/// The queue before the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    /// Bytes pushed and not yet answered.
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Request>,
    records: usize,
    bytes: usize,
    closed: bool,
    sleep: Sleep,
}

/// What the writer sleeps for.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum Sleep {
    #[default]
    Awake,
    /// Anything wakes it.
    Any,
    /// Enough for a large commit wakes it.
    Enough,
}

impl Queue {
    /// Hands a request to the writer; gives it back if there is none any more.
    pub(super) fn push(&self, request: Request) -> Option<Request> {
        let (records, bytes) = match &request {
            Request::Append(append) => (append.block.records() as usize, append.block.as_bytes().len()),
            Request::Order(_) | Request::Rotate => (1, 0),
        };
        let mut state = self.lock();
        if state.closed {
            return Some(request);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        state.requests.push(request);
        state.records += records;
        state.bytes += bytes;
        let wake = match state.sleep {
            Sleep::Awake => false,
            Sleep::Any => true,
            Sleep::Enough => state.is_enough(),
        };
        if wake {
            state.sleep = Sleep::Awake;
            drop(state);
            self.wake.notify_one();
        }
        None
    }

    /// Bytes pushed and not yet answered.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notes that so many bytes were answered.
    pub(super) fn answered(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes no more; the writer ends once it has taken what is there.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Whether it takes no more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Takes what is there, without waiting.
    pub(super) fn take(&self, into: &mut Vec<Request>) {
        self.lock().take(into);
    }

    /// Waits for work. `gather_until` is set while the rule of gathering holds, `prove` while the last commit is not
    /// proven. `into` is empty.
    pub(super) fn wait(&self, into: &mut Vec<Request>, gather_until: Option<Instant>, prove: bool) -> Work {
        let mut state = self.lock();
        while let Some(left) = gather_until.and_then(|until| until.checked_duration_since(Instant::now()))
            && !state.is_enough()
            && !state.closed
        {
            state.sleep = Sleep::Enough;
            state = self.sleep(state, left);
        }
        let quiet_at = prove.then(|| Instant::now() + QUIET);
        loop {
            if !state.requests.is_empty() {
                state.take(into);
                return Work::Commit;
            }
            if state.closed {
                return Work::Close;
            }
            state.sleep = Sleep::Any;
            state = match quiet_at {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => match at.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => self.sleep(state, left),
                    _ => {
                        state.sleep = Sleep::Awake;
                        return Work::Prove;
                    }
                },
            };
        }
    }

    fn sleep<'a>(&self, state: MutexGuard<'a, State>, at_most: Duration) -> MutexGuard<'a, State> {
        let (mut state, _) = self.wake.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner);
        state.sleep = Sleep::Awake;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_enough(&self) -> bool {
        self.records >= GATHER_RECORDS || self.bytes >= GATHER_BYTES
    }

    fn take(&mut self, into: &mut Vec<Request>) {
        mem::swap(&mut self.requests, into);
        self.records = 0;
        self.bytes = 0;
        self.sleep = Sleep::Awake;
    }
}
