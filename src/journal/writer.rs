//! The one writer: fences, commits, syncs, publishes, answers. All that may make somebody believe that something is
//! durable happens here, in this order.
//!
//! **Invariant:** an append is answered `Durable`, and its block enters the index, only behind the sync that covers it
//! (or behind the write, where answers do not wait for the sync). After a failure nothing is written and everything is
//! answered `Halted`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::block::BlockBuilder;
use super::control::{self, Order};
use super::index::{BlockRef, Index};
use super::log::{Log, Written};
use super::queue::{Append, GATHER_MAX, GATHER_RECORDS_MIN, Queue, Request, Work};
use super::sabotage::Sabotage;
use super::segments::Segments;
use super::{Block, Completed, Durability, Halt, HaltWatch, Head, Outcome, Sink, StreamId};
use crate::domain::ids::{Offset, Timestamp};

/// What one commit holds at most, in bytes, unless one block is larger: what one sync carries in a third of a
/// millisecond, so that nobody waits for a long one.
const COMMIT_BYTES_MAX: usize = 1 << 20;

/// Where answers do not wait for the sync: what is written is synced so often at least, as long as anything is written.
const SYNC_EACH: Duration = Duration::from_secs(1);

/// Whether the engine has halted, for all to see.
#[derive(Default)]
pub(super) struct Status {
    has_halted: AtomicBool,
    halt: Mutex<(Option<Halt>, Vec<HaltWatch>)>,
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Status").field("has_halted", &self.has_halted).finish_non_exhaustive()
    }
}

impl Status {
    pub(super) fn halted(&self) -> Option<Halt> {
        if !self.has_halted.load(Ordering::Acquire) {
            return None;
        }
        self.halt.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    pub(super) fn watch(&self, watch: HaltWatch) {
        let mut state = self.halt.lock().unwrap_or_else(PoisonError::into_inner);
        match state.0.clone() {
            None => state.1.push(watch),
            Some(halt) => {
                drop(state);
                watch(&halt);
            }
        }
    }

    pub(super) fn halt(&self, halt: Halt) {
        let mut state = self.halt.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some() {
            return;
        }
        state.0 = Some(halt.clone());
        let watches = std::mem::take(&mut state.1);
        drop(state);
        self.has_halted.store(true, Ordering::Release);
        for watch in watches {
            watch(&halt);
        }
    }
}

/// The writer. A thread runs it, or a simulation turn by turn.
#[derive(Debug)]
pub(super) struct Writer {
    /// None once it has failed.
    log: Option<Log>,
    index: Arc<Index>,
    segments: Arc<Segments>,
    queue: Arc<Queue>,
    status: Arc<Status>,
    control: BlockBuilder,
    /// What the commit under way will answer.
    answers: Answers,
    /// Blocks of the commit under way, with where in it they begin.
    placed: Vec<(StreamId, usize, BlockRef)>,
    orders: Vec<Order>,
    /// When the first and the last of its records were decided.
    recorded: Option<(Timestamp, Timestamp)>,
    rotates: bool,
    last_records: u32,
    last_done: Instant,
    /// When a sync was last begun behind the writer's back; none without threads, where no clock decides anything.
    last_sync: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        log: Log,
        index: Arc<Index>,
        segments: Arc<Segments>,
        queue: Arc<Queue>,
        status: Arc<Status>,
    ) -> Self {
        Self {
            log: Some(log),
            index,
            segments,
            queue,
            status,
            control: BlockBuilder::new(StreamId::CONTROL),
            answers: Answers::default(),
            placed: Vec::new(),
            orders: Vec::new(),
            recorded: None,
            rotates: false,
            last_records: 0,
            last_done: Instant::now(),
            last_sync: None,
        }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut requests = Vec::new();
        self.last_sync = Some(Instant::now());
        loop {
            let gather_until = (self.last_records >= GATHER_RECORDS_MIN).then(|| self.last_done + GATHER_MAX);
            match self.queue.wait(&mut requests, gather_until, self.wants_proof()) {
                Work::Commit => self.commit_all(&mut requests),
                Work::Prove => self.prove(false),
                Work::Close => {
                    self.prove(true);
                    return;
                }
            }
        }
    }

    /// Commits what is in the queue now.
    pub(super) fn turn(&mut self) {
        let mut requests = Vec::new();
        self.queue.take(&mut requests);
        self.commit_all(&mut requests);
    }

    /// Whether the last commit is not proven yet.
    pub(super) fn wants_proof(&self) -> bool {
        self.log.as_ref().is_some_and(|log| !log.is_proven())
    }

    /// Writes and syncs a commit without blocks, whose header says that all before it is synced.
    pub(super) fn prove(&mut self, closing: bool) {
        let Some(log) = &mut self.log else { return };
        let queue = Arc::clone(&self.queue);
        let mut prove = || {
            if !log.is_synced() {
                log.sync()?;
            }
            log.begin();
            let written = log.write(closing, || queue.is_closed())?;
            log.sync()?;
            Ok(written)
        };
        match prove() {
            Ok(written) => self.segments.wrote(written.segment, written.end, None, []),
            Err(halt) => self.fail(halt),
        }
        self.last_records = 0;
    }

    /// Commits requests in their order, in as many commits as they need.
    fn commit_all(&mut self, requests: &mut Vec<Request>) {
        let mut rest = requests.drain(..).peekable();
        while rest.peek().is_some() {
            let mut bytes = 0;
            self.begin();
            while let Some(request) =
                rest.next_if(|request| bytes == 0 || bytes + size(request) <= COMMIT_BYTES_MAX)
            {
                bytes += size(&request);
                self.admit(request);
            }
            self.commit();
            self.queue.answered(bytes);
        }
    }

    fn begin(&mut self) {
        self.last_records = 0;
        self.placed.clear();
        self.orders.clear();
        self.recorded = None;
        if let Some(log) = &mut self.log {
            log.begin();
        }
    }

    /// Puts a request into the commit, unless it is fenced.
    fn admit(&mut self, request: Request) {
        match request {
            Request::Append(append) => self.admit_append(append),
            Request::Order(order) => self.admit_order(order),
            Request::Rotate => self.rotates = true,
        }
    }

    fn admit_append(&mut self, append: Append) {
        let Append { stream, expected, block, durability, sink } = append;
        if self.log.is_none() {
            self.answers.add(&sink, stream, Outcome::Halted, durability);
            return;
        }
        let outcome = {
            let mut streams = self.index.write();
            let known = streams.entry(stream).or_default();
            if block.stream() == stream && known.may_follow(expected, block.first()) {
                // Where answers do not wait, a power cut may lose records, but never that there was a stream: else the
                // offsets of its first ones would be given out twice, since an unknown stream can not leap.
                self.answers.want_sync |= known.appended == Offset::ZERO;
                known.appended = block.last();
                Outcome::Durable(Head { offset: block.last(), token: 0 })
            } else {
                Outcome::Fenced(Head { offset: known.appended, token: 0 })
            }
        };
        if matches!(outcome, Outcome::Durable(_)) {
            let (from, to) = self.recorded.unwrap_or((block.at(), block.at()));
            self.recorded = Some((from.min(block.at()), to.max(block.at())));
            self.place(&block);
        }
        self.answers.add(&sink, stream, outcome, durability);
    }

    fn admit_order(&mut self, order: Order) {
        // Files are removed as soon as it is obeyed.
        self.answers.want_sync |= matches!(order, Order::Drop(_));
        let offset = {
            let mut streams = self.index.write();
            if let Order::Delete(stream) = order {
                streams.entry(stream).or_default().refuse_appends();
            }
            let control = streams.entry(StreamId::CONTROL).or_default();
            control.appended = control.appended.next();
            control.appended
        };
        // An order is far smaller than a record may be.
        if let Ok(Some(block)) = control::lay_out(&mut self.control, offset, order) {
            self.place(&block);
            self.orders.push(order);
        }
    }

    fn place(&mut self, block: &Block) {
        let Some(log) = &mut self.log else { return };
        let at = log.add(block);
        self.last_records = self.last_records.saturating_add(block.records());
        let place = BlockRef {
            first: block.first(),
            segment: 0,
            position: 0,
            // A block is bounded by BLOCK_BYTES_LIMIT.
            bytes: u32::try_from(block.as_bytes().len()).unwrap_or(u32::MAX),
            records: block.records(),
        };
        self.placed.push((block.stream(), at, place));
    }

    /// Writes, syncs, publishes and answers the commit.
    fn commit(&mut self) {
        if self.sabotaged(Sabotage::Holding) {
            self.answers.give();
        }
        match self.write() {
            Ok(Some(written)) => self.publish(written),
            Ok(None) => {}
            Err(halt) => {
                self.answers.halted();
                self.fail(halt);
            }
        }
        self.last_done = Instant::now();
        self.answers.give();
        if std::mem::take(&mut self.rotates) {
            self.rotate();
        }
    }

    /// Goes over to the next segment, if this one has anything.
    fn rotate(&mut self) {
        let Some(log) = &mut self.log else { return };
        match log.go_over() {
            Ok(Some((number, start))) => self.segments.began(number, start),
            Ok(None) => {}
            Err(halt) => self.fail(halt),
        }
    }

    fn write(&mut self) -> Result<Option<Written>, Halt> {
        let Some(log) = &mut self.log else { return Ok(None) };
        if self.placed.is_empty() {
            return Ok(None);
        }
        let written = log.write(false, || self.queue.is_closed())?;
        if log.before_sync() && !self.answers.want_sync {
            let due = self.last_sync.is_some_and(|last| last.elapsed() >= SYNC_EACH);
            if log.sync_behind(due)? && self.last_sync.is_some() {
                self.last_sync = Some(Instant::now());
            }
        } else {
            log.sync()?;
        }
        Ok(Some(written))
    }

    /// Lets readers see the commit.
    fn publish(&mut self, written: Written) {
        let leaps = self.log.as_ref().map_or(0, Log::leaps);
        // A segment is bounded by SEGMENT_BYTES_MAX, and nobody makes four billion of them.
        let segment = u32::try_from(written.segment).unwrap_or(u32::MAX);
        let start = u32::try_from(written.position).unwrap_or(u32::MAX);
        let mut streams = self.index.write();
        for (stream, at, block) in &mut self.placed {
            let position = start.saturating_add(u32::try_from(*at).unwrap_or(u32::MAX));
            *block = BlockRef { segment, position, ..*block };
            streams.entry(*stream).or_default().done(*block, leaps);
        }
        drop(streams);
        let blocks = self.placed.drain(..).map(|(stream, _, block)| (stream, block));
        self.segments.wrote(written.segment, written.end, self.recorded, blocks);
        control::obey(&self.index, &self.segments, &self.orders);
    }

    fn fail(&mut self, halt: Halt) {
        self.log = None;
        self.status.halt(halt);
    }

    fn sabotaged(&self, what: Sabotage) -> bool {
        self.log.as_ref().is_some_and(|log| log.sabotage() == Some(what))
    }
}

fn size(request: &Request) -> usize {
    match request {
        Request::Append(append) => append.block.as_bytes().len(),
        Request::Order(_) | Request::Rotate => 0,
    }
}

/// Answers of one commit, by sink.
#[derive(Debug, Default)]
struct Answers {
    groups: Vec<(Sink, Vec<Completed>)>,
    want_sync: bool,
}

impl Answers {
    fn add(&mut self, sink: &Sink, stream: StreamId, outcome: Outcome, durability: Durability) {
        self.want_sync |= durability == Durability::Synced;
        let done = Completed { stream, outcome };
        match self.groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, sink)) {
            Some((_, group)) => group.push(done),
            None => self.groups.push((Arc::clone(sink), vec![done])),
        }
    }

    /// Turns what would have been durable into what it is after a failure.
    fn halted(&mut self) {
        for (_, group) in &mut self.groups {
            for done in group {
                if matches!(done.outcome, Outcome::Durable(_)) {
                    done.outcome = Outcome::Halted;
                }
            }
        }
    }

    fn give(&mut self) {
        self.want_sync = false;
        // Who is gone takes no more answers.
        self.groups.retain(|(sink, group)| !group.is_empty() || Arc::strong_count(sink) > 1);
        for (sink, group) in self.groups.iter_mut().filter(|(_, group)| !group.is_empty()) {
            sink.complete(group);
            group.clear();
        }
    }
}
