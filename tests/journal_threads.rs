//! The journal's promise with all its threads: appenders, the writer, its helper, and a disk that fails under them.
//!
//! `journal_simulation` turns the writer by hand, so that a run repeats; here the threads run as they do in production,
//! and what is checked afterwards is the same: whatever was acknowledged is there, whole and in order.

#![cfg(feature = "broker")]
#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sharedline::domain::ids::{Offset, Timestamp};
use sharedline::journal::sim_disk::{Fault, Random, SimDisk};
use sharedline::journal::{
    BlockBuilder, Completed, CompletionSink, Durability, EmbeddedJournal, Entry, Head, Journal, Options,
    Outcome, RecordMeta, Sink, StreamId,
};

/// Runs of each mode; each has several lives.
const SEEDS: u64 = 60;
const LIVES: u64 = 4;
/// Appenders at work at once, each with a stream of its own.
const APPENDERS: u64 = 3;
/// Appends that an appender has under way.
const UNDER_WAY: u64 = 16;
/// How long an answer may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Answers(Mutex<Sender<Outcome>>);

impl CompletionSink for Answers {
    fn complete(&self, finished: &mut Vec<Completed>) {
        for done in finished.drain(..) {
            // An appender that has ended listens no more.
            let _ = self.0.lock().unwrap().send(done.outcome);
        }
    }
}

fn payload(stream: u64, offset: u64) -> Vec<u8> {
    format!("{stream} {offset} {}", "x".repeat(usize::try_from(offset * 7 % 300).unwrap())).into_bytes()
}

/// Appends until the engine halts or `blocks` are done; returns the last offset that was acknowledged, and the last that
/// was with a sync asked for.
fn append(journal: &dyn Journal, stream: u64, blocks: u64, seed: u64) -> (u64, u64) {
    let (to, answers) = channel();
    let sink: Sink = Arc::new(Answers(Mutex::new(to)));
    let mut random = Random(seed);
    let mut expected = journal.head(StreamId(u128::from(stream)));
    let mut under_way = std::collections::VecDeque::new();
    let (mut acknowledged, mut synced) = (0, 0);
    let mut appended = 0;
    loop {
        let wait = under_way.len() as u64 == UNDER_WAY || (appended == blocks && !under_way.is_empty());
        if wait {
            match answers.recv_timeout(PATIENCE).unwrap() {
                Outcome::Durable(head) => {
                    let (last, durability) = under_way.pop_front().unwrap();
                    assert_eq!(head.offset, last, "answers come in order");
                    acknowledged = last.0;
                    if durability == Durability::Synced {
                        synced = last.0;
                    }
                }
                Outcome::Halted => return (acknowledged, synced),
                other => panic!("{other:?}"),
            }
            continue;
        }
        if appended == blocks {
            return (acknowledged, synced);
        }
        let mut builder = BlockBuilder::new(StreamId(u128::from(stream)));
        let mut offset = expected.offset;
        for _ in 0..1 + random.below(5) {
            offset = offset.next();
            let meta = RecordMeta { conversation: None, previous: Offset::ZERO, at: Timestamp(1), kind: 2 };
            builder.push(offset, meta, |out| out.extend_from_slice(&payload(stream, offset.0))).unwrap();
        }
        let durability = if random.chance(1, 10) { Durability::Synced } else { Durability::Configured };
        journal.append(StreamId(u128::from(stream)), expected, builder.take().unwrap(), durability, &sink);
        under_way.push_back((offset, durability));
        expected = Head { offset, token: 0 };
        appended += 1;
    }
}

/// Reads a stream; returns its offsets. Every payload must be the one that belongs to its offset.
fn read(journal: &dyn Journal, stream: u64) -> Vec<u64> {
    let mut offsets = Vec::new();
    let mut next = Offset(1);
    loop {
        let batch = journal.read(StreamId(u128::from(stream)), next, 4000).unwrap();
        if batch.entries.is_empty() {
            return offsets;
        }
        for entry in batch.entries {
            let Entry::Record(record) = entry else { panic!("{entry:?}") };
            assert_eq!(record.payload, payload(stream, record.offset.0));
            offsets.push(record.offset.0);
        }
        next = batch.next;
    }
}

/// Lives with appenders at work until something fails; returns how many records were acknowledged in all.
fn live(seed: u64, before_sync: bool) -> u64 {
    let disk = SimDisk::new(seed);
    let mut random = Random(seed);
    let options = Options { before_sync, segment_bytes: 40 << 10, ..Options::default() };
    // What must be there, whatever happens: the last offset of each stream.
    let mut promised = vec![0; usize::try_from(APPENDERS).unwrap()];
    let mut count = 0;
    for life in 0..LIVES {
        let journal = EmbeddedJournal::open(Arc::new(disk.clone()), &options).unwrap().journal;
        for (stream, promised) in promised.iter().enumerate() {
            let offsets = read(&journal, stream as u64 + 1);
            assert!(offsets.is_sorted());
            assert!(
                *promised == 0 || offsets.binary_search(promised).is_ok(),
                "seed {seed}, life {life}, stream {}: {promised} was acknowledged and is lost",
                stream + 1
            );
            count += offsets.len() as u64;
        }
        if random.chance(3, 4) {
            let fault = if random.chance(1, 2) { Fault::Stop } else { Fault::Error };
            disk.fail_at(random.below(120), fault);
        }
        let blocks = 20 + random.below(150);
        let ends: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let appenders: Vec<_> = (1..=APPENDERS)
                .map(|stream| {
                    let journal = &journal;
                    scope.spawn(move || append(journal, stream, blocks, seed * 31 + stream))
                })
                .collect();
            appenders.into_iter().map(|appender| appender.join().unwrap()).collect()
        });
        let power = random.chance(1, 2);
        let closed = random.chance(1, 3) && journal.close().is_ok();
        // The disk stops before the engine's threads end: else dropping it would be a clean stop.
        disk.fail_at(0, Fault::Stop);
        drop(journal);
        for (promised, (acknowledged, synced)) in promised.iter_mut().zip(ends) {
            let kept = if power && before_sync && !closed { synced } else { acknowledged };
            *promised = kept.max(*promised);
        }
        if power { disk.cut_power() } else { disk.kill() }
    }
    count
}

#[test]
fn threads_keep_the_promise_where_answers_wait_for_the_sync() {
    let count: u64 = (0..SEEDS).map(|seed| live(seed, false)).sum();
    assert!(count > SEEDS * 100, "only {count} records were read back");
}

#[test]
fn threads_keep_the_promise_where_answers_come_before_the_sync() {
    let count: u64 = (0..SEEDS).map(|seed| live(seed, true)).sum();
    assert!(count > SEEDS * 100, "only {count} records were read back");
}
