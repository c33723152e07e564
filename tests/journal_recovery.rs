//! What recovery promises, point by point: the embedded engine on a simulated disk, with the damage done by hand.
//!
//! `journal_simulation` plays chance; here stands what must come out of each single case, with its file and position.

#![cfg(feature = "broker")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sharedline::domain::ids::{Offset, Timestamp};
use sharedline::journal::disk::{Disk, RealDisk};
use sharedline::journal::sim_disk::{Fault, SimDisk};
use sharedline::journal::{
    BlockBuilder, Completed, CompletionSink, Durability, EmbeddedJournal, Entry, Head, Journal, LEAP,
    OpenError, Opened, Options, Outcome, RecordMeta, Sink, StreamId,
};

const STREAM: StreamId = StreamId(7);
/// Where the log begins in a segment, in bytes: the format's own figure.
const CONTENT_START: u64 = 8192;
/// Size of a commit's header, in bytes: the format's own figure.
const COMMIT_HEADER: u64 = 64;

fn options() -> Options {
    Options { segment_bytes: 16 << 10, threads: false, ..Options::default() }
}

fn before_sync() -> Options {
    Options { before_sync: true, ..options() }
}

fn open(disk: &SimDisk, options: &Options) -> Opened {
    try_open(disk, options).unwrap()
}

fn try_open(disk: &SimDisk, options: &Options) -> Result<Opened, OpenError> {
    EmbeddedJournal::open(Arc::new(disk.clone()), options)
}

#[derive(Debug, Default)]
struct Answers(Mutex<Vec<Completed>>);

impl CompletionSink for Answers {
    fn complete(&self, finished: &mut Vec<Completed>) {
        self.0.lock().unwrap().append(finished);
    }
}

/// Appends one record in a commit of its own.
fn append_with(
    journal: &EmbeddedJournal,
    stream: StreamId,
    payload: &[u8],
    durability: Durability,
) -> Outcome {
    let expected = journal.head(stream);
    let mut builder = BlockBuilder::new(stream);
    let meta = RecordMeta { conversation: None, previous: Offset::ZERO, at: Timestamp(1), kind: 2 };
    builder.push(expected.offset.next(), meta, |out| out.extend_from_slice(payload)).unwrap();
    let answers = Arc::new(Answers::default());
    let sink: Sink = Arc::clone(&answers) as Sink;
    journal.append(stream, expected, builder.take().unwrap(), durability, &sink);
    journal.turn();
    let done = answers.0.lock().unwrap().remove(0);
    done.outcome
}

fn append(journal: &EmbeddedJournal, payload: &[u8]) {
    assert!(matches!(append_with(journal, STREAM, payload, Durability::Configured), Outcome::Durable(_)));
}

fn payloads(journal: &EmbeddedJournal) -> Vec<Vec<u8>> {
    let batch = journal.read(STREAM, Offset(1), 1 << 20).unwrap();
    let payload = |entry: &Entry| match entry {
        Entry::Record(record) => record.payload.to_vec(),
        Entry::Corrupt(damage) => panic!("{damage:?}"),
    };
    batch.entries.iter().map(payload).collect()
}

/// The newest segment: its name and what it holds.
fn newest(disk: &SimDisk) -> (String, Vec<u8>) {
    let files = disk.snapshot();
    files.into_iter().rfind(|(name, _)| name.ends_with(".segment")).unwrap()
}

fn segments(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    disk.snapshot().into_iter().filter(|(name, _)| name.ends_with(".segment")).collect()
}

/// Where commits begin in a segment, by their magic and their length.
fn commits(bytes: &[u8]) -> Vec<u64> {
    let mut at = usize::try_from(CONTENT_START).unwrap();
    let mut begins = Vec::new();
    while bytes.len() > at + 64 && bytes[at..].starts_with(b"\xffSLCMT\xff\x01") {
        begins.push(at as u64);
        at += 64 + u32::from_le_bytes(bytes[at + 16..at + 20].try_into().unwrap()) as usize;
    }
    begins
}

#[test]
fn a_second_process_is_refused_until_the_first_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::at(directory.path()).unwrap());
    let first = EmbeddedJournal::open(Arc::clone(&disk), &options()).unwrap();
    let second = EmbeddedJournal::open(Arc::clone(&disk), &options());
    assert!(matches!(second, Err(OpenError::Locked { .. })), "{second:?}");
    first.journal.close().unwrap();
    EmbeddedJournal::open(disk, &options()).unwrap();
}

#[test]
fn a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::at(directory.path()).unwrap());
    EmbeddedJournal::open(Arc::clone(&disk), &options()).unwrap().journal.close().unwrap();
    std::fs::write(directory.path().join("FORMAT"), "sharedline journal\nformat 7\n").unwrap();
    let refused = EmbeddedJournal::open(disk, &options());
    assert!(matches!(refused, Err(OpenError::Newer { found: 7, .. })), "{refused:?}");
}

#[test]
fn keys_and_records_outlive_a_restart() {
    let disk = SimDisk::new(1);
    let first = open(&disk, &options());
    assert!(first.new && !first.unclean);
    append(&first.journal, b"one");
    first.journal.close().unwrap();
    drop(first.journal);
    let second = open(&disk, &options());
    assert!(!second.new && !second.unclean && second.found.is_empty());
    assert_eq!(first.keys, second.keys);
    assert_eq!(payloads(&second.journal), [b"one"]);
}

#[test]
fn a_torn_last_commit_is_cut_off() {
    for torn in 0..200 {
        let disk = SimDisk::new(1);
        let opened = open(&disk, &options());
        append(&opened.journal, b"kept");
        append(&opened.journal, &[b'x'; 100]);
        drop(opened);
        disk.kill();
        let (name, bytes) = newest(&disk);
        let last = *commits(&bytes).last().unwrap();
        let file = disk.open(&name).unwrap();
        file.write_at(&[0; 300], last + torn).unwrap();
        let opened = open(&disk, &options());
        assert!(opened.unclean && opened.found.is_empty());
        assert_eq!(payloads(&opened.journal), [b"kept"], "torn at {torn}");
        append(&opened.journal, b"next");
        assert_eq!(payloads(&opened.journal).len(), 2);
    }
}

#[test]
fn damage_that_a_later_commit_proves_to_have_been_synced_is_no_torn_tail() {
    let disk = SimDisk::new(1);
    let opened = open(&disk, &options());
    for payload in [b"one", b"two", b"six"] {
        append(&opened.journal, payload);
    }
    drop(opened);
    disk.kill();
    let (name, bytes) = newest(&disk);
    let second = commits(&bytes)[1];
    // The header of the second commit: nobody knows what was in it.
    disk.flip(&name, second + 9, 3);
    match try_open(&disk, &options()) {
        Err(OpenError::Damaged { place, position, .. }) => {
            assert_eq!((place.contains(&name), position), (true, second))
        }
        other => panic!("{other:?}"),
    }
    disk.flip(&name, second + 9, 3);
    // Its record's payload: it can be told whose it is, so the store opens, and the record is found corrupt.
    disk.flip(&name, second + COMMIT_HEADER + 40 + 48 + 1, 3);
    let opened = open(&disk, &options());
    assert_eq!(opened.found.iter().map(|found| found.position).collect::<Vec<_>>(), [second]);
    let entries = opened.journal.read(STREAM, Offset(1), 1 << 20).unwrap().entries;
    let Entry::Corrupt(damage) = &entries[1] else { panic!("{entries:?}") };
    assert_eq!(
        (damage.from, damage.to, damage.position),
        (Offset(2), Offset(2), second + COMMIT_HEADER + 40)
    );
    assert!(damage.place.contains(&name));
    assert!(matches!(&entries[0], Entry::Record(record) if record.payload == "one"));
    assert!(matches!(&entries[2], Entry::Record(record) if record.payload == "six"));
    assert!(matches!(opened.journal.read_one(STREAM, Offset(2)).unwrap(), Entry::Corrupt(_)));
}

#[test]
fn the_last_commit_is_proven_within_a_moment_and_at_a_clean_stop() {
    for end in ["rest", "close"] {
        let disk = SimDisk::new(1);
        let opened = open(&disk, &options());
        append(&opened.journal, b"one");
        match end {
            "rest" => opened.journal.rest(),
            _ => opened.journal.close().unwrap(),
        }
        drop(opened);
        disk.kill();
        let (name, bytes) = newest(&disk);
        disk.flip(&name, commits(&bytes)[0] + 8, 0);
        assert!(matches!(try_open(&disk, &options()), Err(OpenError::Damaged { .. })), "{end}");
    }
    // The writer's thread does it by itself.
    let disk = SimDisk::new(1);
    let opened = open(&disk, &Options { threads: true, ..options() });
    append_from_thread(&opened.journal);
    let deadline = Instant::now() + Duration::from_secs(20);
    while commits(&newest(&disk).1).len() < 2 {
        assert!(Instant::now() < deadline, "no proof was written");
        std::thread::yield_now();
    }
}

/// Appends one record to an engine with threads, and waits for the answer.
fn append_from_thread(journal: &EmbeddedJournal) {
    let mut builder = BlockBuilder::new(STREAM);
    let meta = RecordMeta { conversation: None, previous: Offset::ZERO, at: Timestamp(1), kind: 2 };
    builder.push(Offset(1), meta, |out| out.push(1)).unwrap();
    let answers = Arc::new(Answers::default());
    let sink: Sink = Arc::clone(&answers) as Sink;
    journal.append(STREAM, Head::default(), builder.take().unwrap(), Durability::Configured, &sink);
    let deadline = Instant::now() + Duration::from_secs(20);
    while answers.0.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "no answer");
        std::thread::yield_now();
    }
}

#[test]
fn what_lies_past_the_last_proof_is_written_anew_before_it_is_served() {
    let disk = SimDisk::new(1);
    let opened = open(&disk, &options());
    append(&opened.journal, b"one");
    append(&opened.journal, b"two");
    drop(opened);
    disk.kill();
    let (old, bytes) = newest(&disk);
    let proven = commits(&bytes)[1];
    let opened = open(&disk, &options());
    assert!(opened.unclean);
    let files = segments(&disk);
    let (new, content) = files.iter().next_back().unwrap();
    assert_ne!(*new, old);
    assert_eq!(files[&old].len() as u64, proven, "the old segment is cut at the end that the new one names");
    assert_eq!(u64::from_le_bytes(content[48..56].try_into().unwrap()), proven);
    assert_eq!(commits(content), [CONTENT_START]);
    // All of it is on the platter.
    disk.cut_power();
    drop(opened);
    assert_eq!(payloads(&open(&disk, &options()).journal), [b"one", b"two"]);
}

#[test]
fn what_a_failed_sync_left_in_the_cache_is_served_only_once_it_is_written_anew() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let opened = open(&disk, &options());
        append(&opened.journal, b"one");
        disk.fail_at(1, Fault::Error);
        assert_eq!(append_with(&opened.journal, STREAM, b"two", Durability::Configured), Outcome::Halted);
        drop(opened);
        disk.kill();
        let opened = open(&disk, &options());
        assert_eq!(payloads(&opened.journal), [b"one", b"two"], "the cache still shows it");
        append(&opened.journal, b"six");
        drop(opened);
        disk.cut_power();
        assert_eq!(payloads(&open(&disk, &options()).journal), [b"one", b"two", b"six"], "seed {seed}");
    }
}

#[test]
fn a_failed_write_or_sync_halts_and_is_never_tried_again() {
    for operation in [0, 1] {
        let disk = SimDisk::new(1);
        let opened = open(&disk, &options());
        append(&opened.journal, b"one");
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        opened.journal.on_halt(Box::new(move |halt| tell.lock().unwrap().push(halt.operation)));
        assert!(opened.journal.halted().is_none());
        disk.fail_at(operation, Fault::Error);
        assert_eq!(append_with(&opened.journal, STREAM, b"two", Durability::Configured), Outcome::Halted);
        let wanted = ["write", "sync"][usize::try_from(operation).unwrap()];
        assert_eq!(*told.lock().unwrap(), [wanted]);
        let operations = disk.operations();
        assert_eq!(append_with(&opened.journal, STREAM, b"two", Durability::Synced), Outcome::Halted);
        opened.journal.rest();
        assert_eq!(opened.journal.close().unwrap_err().operation, wanted);
        assert_eq!(disk.operations(), operations, "nothing is written any more");
        assert_eq!(payloads(&opened.journal), [b"one"], "reading goes on");
        // Who comes late is told at once.
        let tell = Arc::clone(&told);
        opened.journal.on_halt(Box::new(move |halt| tell.lock().unwrap().push(halt.operation)));
        assert_eq!(told.lock().unwrap().len(), 2);
    }
}

#[test]
fn a_message_that_holds_the_bytes_of_a_commit_header_changes_nothing() {
    let disk = SimDisk::new(1);
    let opened = open(&disk, &options());
    append(&opened.journal, b"one");
    // A real header, copied from the store itself, at each alignment, and the header as it would be in its new place.
    let (_, bytes) = newest(&disk);
    let start = usize::try_from(CONTENT_START).unwrap();
    let header = &bytes[start..start + 64];
    let mut payload = Vec::new();
    for pad in 0..8 {
        payload.resize(payload.len() + pad, b'-');
        payload.extend_from_slice(header);
    }
    append(&opened.journal, &payload);
    drop(opened);
    disk.kill();
    // The message is torn, so that recovery looks for proofs behind the tear and finds the copies.
    let (name, bytes) = newest(&disk);
    let last = *commits(&bytes).last().unwrap();
    disk.flip(&name, last + 3, 0);
    let opened = open(&disk, &options());
    assert!(opened.found.is_empty());
    assert_eq!(payloads(&opened.journal), [b"one"]);
    // And whole it is a message like any other.
    append(&opened.journal, &payload);
    drop(opened);
    disk.kill();
    assert_eq!(payloads(&open(&disk, &options()).journal), [b"one".to_vec(), payload]);
}

#[test]
fn after_an_unclean_stop_offsets_leap_where_answers_come_before_the_sync() {
    let disk = SimDisk::new(3);
    let opened = open(&disk, &before_sync());
    append(&opened.journal, b"one");
    opened.journal.rest();
    append(&opened.journal, b"lost");
    drop(opened);
    disk.cut_power();
    let opened = open(&disk, &before_sync());
    let recovered = payloads(&opened.journal).len() as u64;
    assert_eq!(opened.journal.head(STREAM).offset, Offset(recovered + LEAP));
    append(&opened.journal, b"two");
    assert_eq!(opened.journal.head(STREAM).offset, Offset(recovered + LEAP + 1));
    opened.journal.close().unwrap();
    drop(opened);
    // A clean stop leaps no further, in either mode; nor does a stream that appended nothing fall back.
    for options in [options(), before_sync()] {
        disk.kill();
        let opened = open(&disk, &options);
        assert_eq!(opened.journal.head(STREAM).offset, Offset(recovered + LEAP + 1));
        opened.journal.close().unwrap();
    }
}

#[test]
fn a_leap_stays_though_nothing_was_appended_since() {
    let disk = SimDisk::new(3);
    let opened = open(&disk, &before_sync());
    append(&opened.journal, b"one");
    append(&opened.journal, b"two");
    drop(opened);
    disk.kill();
    for _ in 0..3 {
        let opened = open(&disk, &before_sync());
        assert_eq!(opened.journal.head(STREAM).offset, Offset(2 + LEAP));
        opened.journal.close().unwrap();
        drop(opened);
        disk.kill();
    }
}

#[test]
fn where_answers_wait_for_the_sync_offsets_never_leap() {
    let disk = SimDisk::new(3);
    let opened = open(&disk, &options());
    append(&opened.journal, b"one");
    drop(opened);
    disk.cut_power();
    assert_eq!(open(&disk, &options()).journal.head(STREAM).offset, Offset(1));
}

#[test]
fn what_asks_for_a_sync_is_synced_in_every_mode() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let opened = open(&disk, &before_sync());
        append(&opened.journal, b"one");
        append(&opened.journal, b"two");
        append_with(&opened.journal, STREAM, b"six", Durability::Synced);
        drop(opened);
        disk.cut_power();
        assert_eq!(payloads(&open(&disk, &before_sync()).journal), [b"one", b"two", b"six"], "seed {seed}");
    }
}

#[test]
fn starting_again_and_again_leaves_no_trail_of_segments() {
    let disk = SimDisk::new(1);
    let opened = open(&disk, &options());
    append(&opened.journal, b"one");
    drop(opened);
    for round in 0..20 {
        disk.kill();
        let opened = open(&disk, &options());
        assert_eq!(payloads(&opened.journal), [b"one"]);
        if round % 2 == 0 {
            opened.journal.close().unwrap();
        }
    }
    assert!(segments(&disk).len() <= 2, "{:?}", segments(&disk).keys());
    assert!(disk.snapshot().keys().all(|name| !name.ends_with(".tmp")));
}

#[test]
fn a_missing_segment_is_named() {
    let disk = SimDisk::new(1);
    let opened = open(&disk, &options());
    for _ in 0..40 {
        append(&opened.journal, &[b'x'; 900]);
    }
    opened.journal.close().unwrap();
    drop(opened);
    let names: Vec<String> = segments(&disk).into_keys().collect();
    assert!(names.len() >= 4);
    disk.kill();
    disk.remove(&names[1]).unwrap();
    match try_open(&disk, &options()) {
        Err(OpenError::Damaged { place, .. }) => assert!(place.contains(&names[1])),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_that_lost_its_format_file_is_not_made_anew() {
    let disk = SimDisk::new(1);
    let opened = open(&disk, &options());
    append(&opened.journal, b"one");
    opened.journal.close().unwrap();
    drop(opened);
    disk.kill();
    disk.remove("FORMAT").unwrap();
    match try_open(&disk, &options()) {
        Err(OpenError::Damaged { place, .. }) => assert!(place.contains("FORMAT")),
        other => panic!("{other:?}"),
    }
    assert!(!segments(&disk).is_empty());
}

#[test]
fn a_store_whose_making_was_interrupted_is_made_anew() {
    for operation in 0.. {
        let disk = SimDisk::new(operation);
        disk.fail_at(operation, Fault::Stop);
        let made = try_open(&disk, &options()).is_ok();
        disk.cut_power();
        let opened = open(&disk, &options());
        append(&opened.journal, b"one");
        if made {
            assert!(operation > 8, "the making was not interrupted at all");
            return;
        }
    }
}

#[test]
fn a_start_reads_no_sealed_segment_whose_index_is_whole() {
    let disk = SimDisk::new(1);
    let opened = open(&disk, &options());
    append(&opened.journal, b"one");
    append(&opened.journal, b"two");
    opened.journal.rotate();
    opened.journal.turn();
    append(&opened.journal, b"three");
    opened.journal.sweep().unwrap();
    opened.journal.close().unwrap();
    drop(opened);
    disk.kill();
    let store = disk.snapshot();
    let (segment, bytes) = store.iter().find(|(name, _)| name.ends_with(".segment")).unwrap();
    let index = store.keys().find(|name| name.ends_with(".index")).unwrap();
    // The first record's payload: the index says whose it is, the reader finds it.
    let at = commits(bytes)[0] + COMMIT_HEADER + 40 + 48 + 1;
    disk.flip(segment, at, 0);
    let served = |opened: &Opened| {
        let entries = opened.journal.read(STREAM, Offset(1), 1 << 20).unwrap().entries;
        entries.iter().map(|entry| matches!(entry, Entry::Record(_))).collect::<Vec<_>>()
    };
    let opened = open(&disk, &options());
    assert!(opened.found.is_empty(), "{:?}", opened.found);
    assert_eq!(served(&opened), [false, true, true]);
    drop(opened);
    disk.kill();
    disk.remove(index).unwrap();
    let opened = open(&disk, &options());
    assert!(!opened.found.is_empty(), "without its index the segment is read");
    assert_eq!(served(&opened), [false, true, true]);
    opened.journal.sweep().unwrap();
    assert!(disk.snapshot().contains_key(index), "it is made anew");
}

#[test]
fn no_flipped_byte_of_a_store_changes_what_is_served() {
    let disk = SimDisk::new(1);
    let opened = open(&disk, &Options { segment_bytes: 9 << 10, ..options() });
    let wanted: Vec<Vec<u8>> = (0..12_u8).map(|index| vec![b'a' + index; 30]).collect();
    for payload in &wanted {
        append(&opened.journal, payload);
    }
    opened.journal.close().unwrap();
    drop(opened);
    disk.kill();
    let store = disk.snapshot();
    let (mut refused, mut corrupt, mut harmless) = (0, 0, 0);
    for (name, bytes) in &store {
        for byte in 0..bytes.len() as u64 {
            // A store of its own for each byte, because opening changes it.
            let disk = SimDisk::new(byte);
            for (name, bytes) in &store {
                disk.create(name).unwrap().write_at(bytes, 0).unwrap();
            }
            disk.flip(name, byte, u8::try_from(byte % 8).unwrap());
            match try_open(&disk, &options()) {
                Err(OpenError::Damaged { place, .. } | OpenError::Newer { place, .. }) => {
                    assert!(place.contains(name), "byte {byte} of {name}: {place}");
                    refused += 1;
                }
                Err(error) => panic!("byte {byte} of {name}: {error}"),
                Ok(opened) => {
                    let mut seen = 0;
                    let mut bad = 0;
                    for entry in opened.journal.read(STREAM, Offset(1), 1 << 20).unwrap().entries {
                        seen += entry.last().0 - entry.offset().0 + 1;
                        match entry {
                            Entry::Record(record) => {
                                assert_eq!(
                                    record.payload,
                                    wanted[usize::try_from(record.offset.0 - 1).unwrap()]
                                );
                            }
                            Entry::Corrupt(damage) => {
                                assert!(damage.place.contains(name.as_str()));
                                bad += 1;
                            }
                        }
                    }
                    assert_eq!(seen, 12, "byte {byte} of {name}: records are missing");
                    assert!(bad == 0 || !opened.found.is_empty());
                    if bad > 0 { corrupt += 1 } else { harmless += 1 }
                }
            }
        }
    }
    println!("{refused} refused, {corrupt} corrupt, {harmless} without effect");
    assert!(
        refused > 500 && corrupt > 500,
        "{refused} refused, {corrupt} corrupt, {harmless} without effect"
    );
}

#[test]
fn one_record_is_served_whatever_lies_beside_it_in_its_block_and_never_where_it_is_damaged_itself() {
    let disk = SimDisk::new(1);
    let opened = open(&disk, &options());
    let mut builder = BlockBuilder::new(STREAM);
    let meta = RecordMeta { conversation: None, previous: Offset::ZERO, at: Timestamp(1), kind: 2 };
    for offset in 1..=5 {
        builder.push(Offset(offset), meta, |out| out.resize(out.len() + 30, 7)).unwrap();
    }
    let sink: Sink = Arc::new(Answers::default()) as Sink;
    opened.journal.append(STREAM, Head::default(), builder.take().unwrap(), Durability::Configured, &sink);
    opened.journal.turn();
    let (name, bytes) = newest(&disk);
    let record_at = |offset: u64| commits(&bytes)[0] + COMMIT_HEADER + 40 + (offset - 1) * (48 + 30);
    let served = || {
        (1..=5).map(|offset| match opened.journal.read_one(STREAM, Offset(offset)).unwrap() {
            Entry::Record(record) => {
                assert_eq!((record.offset, &record.payload[..]), (Offset(offset), &[7; 30][..]));
                (offset, offset)
            }
            Entry::Corrupt(damage) => (damage.from.0 * 100, damage.to.0 * 100),
        })
    };
    // A payload: that record alone is lost, and counted when it is asked for, not before.
    disk.flip(&name, record_at(2) + 48 + 5, 3);
    assert!(served().eq([(1, 1), (200, 200), (3, 3), (4, 4), (5, 5)]));
    assert_eq!(opened.journal.observed().corrupt_reads, 1);
    // A header: where those behind it begin, nobody can say.
    disk.flip(&name, record_at(4) + 9, 3);
    assert!(served().eq([(1, 1), (200, 200), (3, 3), (400, 500), (400, 500)]));
    let read = opened.journal.read(STREAM, Offset(3), 1 << 20).unwrap().entries;
    assert_eq!(
        read.iter().map(|entry| (entry.offset().0, entry.last().0)).collect::<Vec<_>>(),
        [(3, 3), (4, 5)]
    );
}

#[test]
fn a_writer_that_panics_halts_the_engine_and_leaves_nobody_waiting() {
    #[derive(Debug)]
    struct Defect;
    impl CompletionSink for Defect {
        fn complete(&self, _: &mut Vec<Completed>) {
            panic!("a defect, as this test wants it");
        }
    }
    let disk = SimDisk::new(1);
    let opened = open(&disk, &Options { threads: true, ..options() });
    let halted = Arc::new(Mutex::new(false));
    let tell = Arc::clone(&halted);
    opened.journal.on_halt(Box::new(move |_| *tell.lock().unwrap() = true));
    let block = |stream: StreamId| {
        let mut builder = BlockBuilder::new(stream);
        let meta = RecordMeta { conversation: None, previous: Offset::ZERO, at: Timestamp(1), kind: 2 };
        builder.push(Offset(1), meta, |out| out.push(1)).unwrap();
        builder.take().unwrap()
    };
    let defect: Sink = Arc::new(Defect);
    opened.journal.append(STREAM, Head::default(), block(STREAM), Durability::Configured, &defect);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !*halted.lock().unwrap() {
        assert!(Instant::now() < deadline, "nobody was told");
        std::thread::yield_now();
    }
    let answers = Arc::new(Answers::default());
    let sink: Sink = Arc::clone(&answers) as Sink;
    opened.journal.append(StreamId(8), Head::default(), block(StreamId(8)), Durability::Configured, &sink);
    while answers.0.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "no answer");
        std::thread::yield_now();
    }
    assert_eq!(answers.0.lock().unwrap()[0].outcome, Outcome::Halted);
    opened.journal.close().unwrap_err();
}
