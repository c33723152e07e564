//! The journal's written contract, held by every engine: one suite, run for the engine in memory, for the embedded one on
//! a simulated disk and for the embedded one in a real directory. Each test is a generic function over the engine.

#![cfg(feature = "broker")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is a test's report"
)]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sharedline::domain::ids::{ConversationId, Offset, Timestamp};
use sharedline::journal::disk::RealDisk;
use sharedline::journal::memory::MemoryJournal;
use sharedline::journal::sim_disk::SimDisk;
use sharedline::journal::{
    Block, BlockBuilder, Completed, CompletionSink, Durability, EmbeddedJournal, Entry, Head, Journal,
    Options, Outcome, RawRecord, ReadError, RecordMeta, Sink, StreamId,
};

/// How long a test waits for an answer before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);
const STREAM: StreamId = StreamId(7);

/// An engine, and what keeps its store.
struct Engine {
    journal: Arc<dyn Journal>,
    _directory: Option<tempfile::TempDir>,
}

fn in_memory() -> Engine {
    Engine { journal: Arc::new(MemoryJournal::new()), _directory: None }
}

fn options() -> Options {
    Options { segment_bytes: 64 << 10, ..Options::default() }
}

fn on_simulated_disk() -> Engine {
    let opened = EmbeddedJournal::open(Arc::new(SimDisk::new(1)), &options()).unwrap();
    Engine { journal: Arc::new(opened.journal), _directory: None }
}

fn on_simulated_disk_before_sync() -> Engine {
    let options = Options { before_sync: true, ..options() };
    let opened = EmbeddedJournal::open(Arc::new(SimDisk::new(1)), &options).unwrap();
    Engine { journal: Arc::new(opened.journal), _directory: None }
}

fn in_a_directory() -> Engine {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::at(&directory.path().join("data")).unwrap());
    let opened = EmbeddedJournal::open(disk, &options()).unwrap();
    Engine { journal: Arc::new(opened.journal), _directory: Some(directory) }
}

/// A sink that passes answers on, and counts how often it was called.
#[derive(Debug)]
struct Answers {
    to: Mutex<Sender<Completed>>,
}

impl CompletionSink for Answers {
    fn complete(&self, finished: &mut Vec<Completed>) {
        assert!(!finished.is_empty(), "called for nothing");
        for done in finished.drain(..) {
            // Who has ended no longer listens.
            let _ = self.to.lock().unwrap().send(done);
        }
    }
}

fn sink() -> (Sink, Receiver<Completed>) {
    let (to, answers) = channel();
    (Arc::new(Answers { to: Mutex::new(to) }), answers)
}

fn answer(answers: &Receiver<Completed>) -> Completed {
    answers.recv_timeout(PATIENCE).expect("an answer")
}

fn head(offset: u64) -> Head {
    Head { offset: Offset(offset), token: 0 }
}

fn payload(offset: u64) -> Vec<u8> {
    format!("record {offset} {}", "x".repeat(usize::try_from(offset % 50).unwrap())).into_bytes()
}

fn meta(offset: u64) -> RecordMeta {
    RecordMeta {
        conversation: (!offset.is_multiple_of(3)).then_some(ConversationId(offset % 3)),
        previous: Offset(offset.saturating_sub(3)),
        at: Timestamp(1000 + offset),
        kind: 2,
    }
}

fn block(stream: StreamId, offsets: std::ops::RangeInclusive<u64>) -> Block {
    let mut builder = BlockBuilder::new(stream);
    for offset in offsets {
        builder.push(Offset(offset), meta(offset), |out| out.extend_from_slice(&payload(offset))).unwrap();
    }
    builder.take().unwrap()
}

fn is_record(entry: &Entry, offset: u64) {
    let Entry::Record(record) = entry else { panic!("{entry:?}") };
    let wanted = RawRecord {
        offset: Offset(offset),
        conversation: meta(offset).conversation,
        previous: meta(offset).previous,
        at: meta(offset).at,
        kind: 2,
        payload: payload(offset).into(),
    };
    assert_eq!(*record, wanted);
}

/// Appends blocks of `each` records until `last`, with all appends under way at once, and waits for the answers.
fn fill(engine: &Engine, stream: StreamId, last: u64, each: u64) {
    let (sink, answers) = sink();
    let mut expected = engine.journal.head(stream);
    let mut appends = 0;
    while expected.offset.0 < last {
        let to = (expected.offset.0 + each).min(last);
        let block = block(stream, expected.offset.0 + 1..=to);
        engine.journal.append(stream, expected, block, Durability::Configured, &sink);
        expected = head(to);
        appends += 1;
    }
    for _ in 0..appends {
        assert!(matches!(answer(&answers).outcome, Outcome::Durable(_)));
    }
}

fn what_was_appended_reads_back(engine: &Engine) {
    fill(engine, STREAM, 2000, 7);
    let mut next = Offset(1);
    let mut seen = 0;
    loop {
        let batch = engine.journal.read(STREAM, next, 3000).unwrap();
        assert_eq!(batch.first, Offset(1));
        if batch.entries.is_empty() {
            break;
        }
        let bytes: usize = batch.entries.iter().map(|_| 48 + 20).sum();
        assert!(bytes < 6000, "{bytes} bytes for a read of about 3000");
        for entry in &batch.entries {
            seen += 1;
            is_record(entry, seen);
        }
        next = batch.next;
    }
    assert_eq!((seen, next), (2000, Offset(2001)));
    for offset in [1, 6, 7, 8, 1999, 2000] {
        is_record(&engine.journal.read_one(STREAM, Offset(offset)).unwrap(), offset);
        let batch = engine.journal.read(STREAM, Offset(offset), 1).unwrap();
        assert_eq!(batch.entries.len(), 1, "one record at least, however small the limit");
        is_record(&batch.entries[0], offset);
    }
}

fn answers_come_once_and_in_order_per_stream(engine: &Engine) {
    let (sink, answers) = sink();
    let streams: Vec<StreamId> = (1..=5).map(StreamId).collect();
    for round in 0..100 {
        for stream in &streams {
            let block = block(*stream, round * 2 + 1..=round * 2 + 2);
            engine.journal.append(*stream, head(round * 2), block, Durability::Configured, &sink);
        }
    }
    let mut last = [0; 6];
    for _ in 0..500 {
        let done = answer(&answers);
        let stream = usize::try_from(done.stream.0).unwrap();
        last[stream] += 2;
        assert_eq!(done.outcome, Outcome::Durable(head(last[stream])));
    }
    assert_eq!(last, [0, 200, 200, 200, 200, 200]);
    engine.journal.close().unwrap();
    assert!(answers.try_recv().is_err(), "answered more than once");
}

fn each_sink_gets_its_own_answers(engine: &Engine) {
    let (one, ones) = sink();
    let (other, others) = sink();
    for round in 0..50 {
        engine.journal.append(
            StreamId(1),
            head(round),
            block(StreamId(1), round + 1..=round + 1),
            Durability::Synced,
            &one,
        );
        engine.journal.append(
            StreamId(2),
            head(round),
            block(StreamId(2), round + 1..=round + 1),
            Durability::Synced,
            &other,
        );
    }
    for _ in 0..50 {
        assert_eq!(answer(&ones).stream, StreamId(1));
        assert_eq!(answer(&others).stream, StreamId(2));
    }
}

fn an_append_behind_another_end_is_fenced(engine: &Engine) {
    fill(engine, STREAM, 10, 5);
    let (sink, answers) = sink();
    for (expected, first) in [(9, 10), (9, 11), (11, 12), (10, 10), (0, 1)] {
        engine.journal.append(
            STREAM,
            head(expected),
            block(STREAM, first..=first),
            Durability::Configured,
            &sink,
        );
        assert_eq!(answer(&answers).outcome, Outcome::Fenced(head(10)), "{expected}, {first}");
    }
    assert_eq!(engine.journal.head(STREAM), head(10));
    // A fenced append under way fences those that were built on it.
    engine.journal.append(STREAM, head(9), block(STREAM, 11..=11), Durability::Configured, &sink);
    engine.journal.append(STREAM, head(11), block(STREAM, 12..=12), Durability::Configured, &sink);
    assert_eq!(answer(&answers).outcome, Outcome::Fenced(head(10)));
    assert_eq!(answer(&answers).outcome, Outcome::Fenced(head(10)));
    engine.journal.append(STREAM, head(10), block(STREAM, 11..=13), Durability::Configured, &sink);
    assert_eq!(answer(&answers).outcome, Outcome::Durable(head(13)));
}

fn a_block_may_begin_behind_a_hole(engine: &Engine) {
    fill(engine, STREAM, 3, 3);
    let (sink, answers) = sink();
    engine.journal.append(STREAM, head(3), block(STREAM, 100..=102), Durability::Configured, &sink);
    assert_eq!(answer(&answers).outcome, Outcome::Durable(head(102)));
    let batch = engine.journal.read(STREAM, Offset(1), 1 << 20).unwrap();
    let offsets: Vec<u64> = batch.entries.iter().map(|entry| entry.offset().0).collect();
    assert_eq!(offsets, [1, 2, 3, 100, 101, 102]);
    let batch = engine.journal.read(STREAM, Offset(50), 1 << 20).unwrap();
    assert_eq!(batch.entries[0].offset(), Offset(100));
    assert!(matches!(engine.journal.read_one(STREAM, Offset(50)), Err(ReadError::NotFound { .. })));
}

fn an_unknown_stream_is_empty(engine: &Engine) {
    assert_eq!(engine.journal.head(StreamId(99)), Head::default());
    let batch = engine.journal.read(StreamId(99), Offset(5), 100).unwrap();
    assert_eq!((batch.entries.len(), batch.next, batch.first), (0, Offset(5), Offset(1)));
    assert!(matches!(engine.journal.read_one(StreamId(99), Offset(1)), Err(ReadError::NotFound { .. })));
    assert!(engine.journal.streams().is_empty());
}

fn streams_are_apart(engine: &Engine) {
    fill(engine, StreamId(1), 30, 4);
    fill(engine, StreamId(2), 20, 9);
    let mut streams = engine.journal.streams();
    streams.sort_by_key(|(stream, _)| *stream);
    assert_eq!(streams, [(StreamId(1), head(30)), (StreamId(2), head(20))]);
    let batch = engine.journal.read(StreamId(2), Offset(1), 1 << 20).unwrap();
    assert_eq!(batch.entries.len(), 20);
}

/// Trims and deletions are orders without an answer; a synced append behind them shows that they are done.
fn settle(engine: &Engine) {
    let (sink, answers) = sink();
    let expected = engine.journal.head(StreamId(1000));
    let next = expected.offset.0 + 1;
    engine.journal.append(
        StreamId(1000),
        expected,
        block(StreamId(1000), next..=next),
        Durability::Synced,
        &sink,
    );
    assert!(matches!(answer(&answers).outcome, Outcome::Durable(_)));
}

fn trimmed_records_are_gone_and_the_rest_stays(engine: &Engine) {
    fill(engine, STREAM, 100, 8);
    engine.journal.trim(STREAM, Offset(43));
    settle(engine);
    let batch = engine.journal.read(STREAM, Offset(1), 1 << 20).unwrap();
    assert_eq!((batch.first, batch.entries.len()), (Offset(43), 58));
    is_record(&batch.entries[0], 43);
    assert!(matches!(engine.journal.read_one(STREAM, Offset(42)), Err(ReadError::NotFound { .. })));
    is_record(&engine.journal.read_one(STREAM, Offset(43)).unwrap(), 43);
    // A trim never goes back, and never past the end.
    engine.journal.trim(STREAM, Offset(5));
    engine.journal.trim(STREAM, Offset(1_000_000));
    settle(engine);
    assert_eq!(engine.journal.head(STREAM), head(100));
    let batch = engine.journal.read(STREAM, Offset(1), 1 << 20).unwrap();
    assert_eq!((batch.first, batch.entries.len()), (Offset(101), 0));
    fill(engine, STREAM, 102, 1);
    is_record(&engine.journal.read_one(STREAM, Offset(101)).unwrap(), 101);
}

fn a_deleted_stream_is_gone_and_stays_so(engine: &Engine) {
    fill(engine, STREAM, 20, 3);
    fill(engine, StreamId(8), 5, 5);
    engine.journal.delete(STREAM);
    settle(engine);
    assert!(!engine.journal.streams().iter().any(|(stream, _)| *stream == STREAM));
    assert!(engine.journal.read(STREAM, Offset(1), 1 << 20).unwrap().entries.is_empty());
    let (sink, answers) = sink();
    engine.journal.append(STREAM, head(20), block(STREAM, 21..=21), Durability::Configured, &sink);
    assert!(matches!(answer(&answers).outcome, Outcome::Fenced(_)));
    is_record(&engine.journal.read_one(StreamId(8), Offset(5)).unwrap(), 5);
}

fn a_large_record_goes_through(engine: &Engine) {
    let mut builder = BlockBuilder::new(STREAM);
    let large = vec![b'x'; 1_000_000];
    builder.push(Offset(1), meta(1), |out| out.extend_from_slice(&large)).unwrap();
    let (sink, answers) = sink();
    engine.journal.append(STREAM, Head::default(), builder.take().unwrap(), Durability::Configured, &sink);
    assert_eq!(answer(&answers).outcome, Outcome::Durable(head(1)));
    fill(engine, STREAM, 50, 7);
    let Entry::Record(record) = engine.journal.read_one(STREAM, Offset(1)).unwrap() else {
        panic!("corrupt")
    };
    assert_eq!(record.payload, large);
    is_record(&engine.journal.read_one(STREAM, Offset(50)).unwrap(), 50);
}

fn closing_finishes_what_was_appended_and_then_nothing_is_taken(engine: &Engine) {
    let (sink, answers) = sink();
    for offset in 1..=200 {
        engine.journal.append(
            STREAM,
            head(offset - 1),
            block(STREAM, offset..=offset),
            Durability::Configured,
            &sink,
        );
    }
    engine.journal.close().unwrap();
    engine.journal.close().unwrap();
    for offset in 1..=200 {
        assert_eq!(answer(&answers).outcome, Outcome::Durable(head(offset)));
    }
    engine.journal.append(STREAM, head(200), block(STREAM, 201..=201), Durability::Configured, &sink);
    assert_eq!(answer(&answers).outcome, Outcome::Halted);
    assert!(engine.journal.halted().is_none(), "closing is no halt");
    assert_eq!(engine.journal.queued_bytes(), 0);
}

macro_rules! suite {
    ($($engine:ident),*; $tests:tt) => { $(suite!(@ $engine $tests);)* };
    (@ $engine:ident [$($test:ident),* $(,)?]) => {
        mod $engine {
            $(#[test] fn $test() { super::$test(&super::$engine()); })*
        }
    };
}

suite!(in_memory, on_simulated_disk, on_simulated_disk_before_sync, in_a_directory; [
    what_was_appended_reads_back,
    answers_come_once_and_in_order_per_stream,
    each_sink_gets_its_own_answers,
    an_append_behind_another_end_is_fenced,
    a_block_may_begin_behind_a_hole,
    an_unknown_stream_is_empty,
    streams_are_apart,
    trimmed_records_are_gone_and_the_rest_stays,
    a_deleted_stream_is_gone_and_stays_so,
    a_large_record_goes_through,
    closing_finishes_what_was_appended_and_then_nothing_is_taken,
]);
