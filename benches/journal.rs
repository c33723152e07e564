//! How many records a second the embedded journal takes, at commits of some sizes, synced before the answer or not, and
//! what that costs in CPU. `cargo bench --bench journal [DIRECTORY]`; the directory decides which disk is measured.
//!
//! *One at a time*: a commit's worth of records is appended, in blocks as a channel lays them out, and the next follows
//! when it is answered. *Under way*: up to 4,096 records are appended and not answered, as a busy channel does.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a program that prints figures for people, and ends where anything is wrong"
)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use sharedline::domain::ids::{ConversationId, Offset, Timestamp};
use sharedline::journal::disk::RealDisk;
use sharedline::journal::{
    BlockBuilder, Completed, CompletionSink, Durability, EmbeddedJournal, Head, Journal, Options, Outcome,
    RecordMeta, Sink, StreamId,
};

/// Size of a payload, in bytes.
const PAYLOAD_BYTES: usize = 256;
/// How long each figure is measured.
const DURATION: Duration = Duration::from_secs(3);
/// Records appended and not answered, where they are under way.
const UNDER_WAY: u64 = 4096;

#[derive(Debug)]
struct Answers(Sender<u64>);

impl CompletionSink for Answers {
    fn complete(&self, finished: &mut Vec<Completed>) {
        for done in finished.drain(..) {
            let Outcome::Durable(head) = done.outcome else { panic!("{done:?}") };
            self.0.send(head.offset.0).expect("the bench listens to the end");
        }
    }
}

struct Channel {
    journal: Arc<dyn Journal>,
    builder: BlockBuilder,
    head: Head,
    sink: Sink,
    answers: Receiver<u64>,
    answered: u64,
    payload: Vec<u8>,
}

impl Channel {
    fn new(journal: Arc<dyn Journal>) -> Self {
        let (to, answers) = channel();
        let head = journal.head(StreamId(1));
        Self {
            journal,
            builder: BlockBuilder::new(StreamId(1)),
            head,
            sink: Arc::new(Answers(to)),
            answers,
            answered: head.offset.0,
            payload: vec![b'x'; PAYLOAD_BYTES],
        }
    }

    fn append(&mut self, records: u64) {
        let mut expected = self.head;
        for _ in 0..records {
            if !self.builder.has_room(1, PAYLOAD_BYTES) {
                self.flush(&mut expected);
            }
            self.head.offset = self.head.offset.next();
            let meta = RecordMeta {
                conversation: Some(ConversationId(self.head.offset.0 % 1000)),
                previous: Offset(self.head.offset.0.saturating_sub(1000)),
                at: Timestamp(1),
                kind: 2,
            };
            let payload = &self.payload;
            self.builder.push(self.head.offset, meta, |out| out.extend_from_slice(payload)).unwrap();
        }
        self.flush(&mut expected);
    }

    fn flush(&mut self, expected: &mut Head) {
        if let Some(block) = self.builder.take() {
            let last = Head { offset: block.last(), token: 0 };
            self.journal.append(StreamId(1), *expected, block, Durability::Configured, &self.sink);
            *expected = last;
        }
    }

    fn wait_for(&mut self, offset: u64) {
        while self.answered < offset {
            self.answered = self.answers.recv().expect("the engine answers");
        }
    }
}

/// CPU time of the writer, of its helper, and of the whole process.
fn cpu() -> [Duration; 3] {
    let of = |path: &std::path::Path| {
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        // A tick is 10 ms wherever Linux shows one to programs.
        (
            stat.contains("journal-writer"),
            stat.contains("journal-helper"),
            Duration::from_millis((ticks(11) + ticks(12)) * 10),
        )
    };
    let mut times = [Duration::ZERO; 3];
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let (writer, helper, time) = of(&task.unwrap().path().join("stat"));
        if writer {
            times[0] += time;
        } else if helper {
            times[1] += time;
        }
    }
    times[2] = of(std::path::Path::new("/proc/self/stat")).2;
    times
}

fn measure(directory: &std::path::Path, before_sync: bool, records: u64, under_way: bool) {
    let store = directory.join(format!("journal-bench-{}", std::process::id()));
    let disk = Arc::new(RealDisk::at(&store).unwrap());
    let opened = EmbeddedJournal::open(disk, &Options { before_sync, ..Options::default() }).unwrap();
    let mut channel = Channel::new(Arc::new(opened.journal));
    channel.append(1000);
    channel.wait_for(1000);
    let (begin, cpu_before) = (Instant::now(), cpu());
    let mut delays = Vec::new();
    while begin.elapsed() < DURATION {
        let sent = Instant::now();
        channel.append(records);
        let waits_for =
            if under_way { channel.head.offset.0.saturating_sub(UNDER_WAY) } else { channel.head.offset.0 };
        channel.wait_for(waits_for);
        delays.push(sent.elapsed());
    }
    channel.wait_for(channel.head.offset.0);
    let (time, cpu_after) = (begin.elapsed(), cpu());
    let count = (channel.head.offset.0 - 1000) as f64;
    let per_million = |index: usize| (cpu_after[index] - cpu_before[index]).as_secs_f64() / count * 1e6;
    delays.sort_unstable();
    println!(
        "{:<6} {:<13} {records:>5} records {:>7.2} M records/s; CPU s per million: {:>6.2} (writer {:>5.2}, zeros {:>5.2}); \
         p50 {:>5} µs, p99 {:>5} µs, longest {:>6} µs",
        if before_sync { "os" } else { "fsync" },
        if under_way { "under way" } else { "one at a time" },
        count / time.as_secs_f64() / 1e6,
        per_million(2),
        per_million(0),
        per_million(1),
        delays[delays.len() / 2].as_micros(),
        delays[delays.len() * 99 / 100].as_micros(),
        delays[delays.len() - 1].as_micros(),
    );
    read_back(&*channel.journal, channel.head.offset);
    drop(channel);
    let begin = Instant::now();
    let disk = Arc::new(RealDisk::at(&store).unwrap());
    drop(EmbeddedJournal::open(disk, &Options::default()).unwrap());
    println!("{:20} open and close again: {} ms", "", begin.elapsed().as_millis());
    std::fs::remove_dir_all(&store).unwrap();
}

/// Reads all records once, 256 KiB at a time, as catching up does; they are still in the operating system's cache.
fn read_back(journal: &dyn Journal, last: Offset) {
    let begin = Instant::now();
    let mut next = Offset(1);
    let mut count = 0_u64;
    while next <= last {
        let batch = journal.read(StreamId(1), next, 256 << 10).unwrap();
        count += batch.entries.len() as u64;
        next = batch.next;
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64() / 1e6;
    println!("{:20} read back: {:.1} M records, {rate:.2} M records/s", "", count as f64 / 1e6);
}

fn main() {
    let directory = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let directory = directory.map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    for before_sync in [false, true] {
        for records in [1, 64, 256, 1024] {
            measure(&directory, before_sync, records, false);
        }
        for records in [64, 256] {
            measure(&directory, before_sync, records, true);
        }
    }
}
