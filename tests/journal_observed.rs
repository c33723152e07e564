//! What the embedded engine counts of itself, beside what was done to it.

#![cfg(feature = "broker")]
#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

use std::io;
use std::sync::Arc;

use sharedline::domain::ids::{Offset, Timestamp};
use sharedline::journal::sim_disk::SimDisk;
use sharedline::journal::{
    BaseWriter, Block, BlockBuilder, Completed, CompletionSink, Durability, EmbeddedJournal, Entry, Head,
    Journal, Kept, Observed, Options, RecordMeta, Sink, StreamId,
};

const STREAM: StreamId = StreamId(7);

/// Nobody waits for answers: without threads a turn has given them.
#[derive(Debug)]
struct Nobody;

impl CompletionSink for Nobody {
    fn complete(&self, finished: &mut Vec<Completed>) {
        finished.clear();
    }
}

fn options(before_sync: bool) -> Options {
    Options { segment_bytes: 64 << 10, threads: false, before_sync, ..Options::default() }
}

fn open(disk: &SimDisk, before_sync: bool) -> EmbeddedJournal {
    EmbeddedJournal::open(Arc::new(disk.clone()), &options(before_sync)).unwrap().journal
}

fn block(offsets: std::ops::RangeInclusive<u64>) -> Block {
    let mut builder = BlockBuilder::new(STREAM);
    for offset in offsets {
        let meta = RecordMeta { conversation: None, previous: Offset::ZERO, at: Timestamp(offset), kind: 2 };
        builder.push(Offset(offset), meta, |out| out.extend_from_slice(b"the payload of a record")).unwrap();
    }
    builder.take().unwrap()
}

fn append(journal: &EmbeddedJournal, offsets: std::ops::RangeInclusive<u64>) {
    let expected = Head { offset: Offset(offsets.start() - 1), token: 0 };
    let sink: Sink = Arc::new(Nobody);
    journal.append(STREAM, expected, block(offsets), Durability::Configured, &sink);
    journal.turn();
}

fn sections(base: &mut BaseWriter<'_>) -> io::Result<()> {
    base.section(STREAM, Offset(20), b"its state", &Kept::default())
}

#[test]
fn a_commit_is_counted_with_its_time_its_bytes_and_its_records_and_takes_as_much_room() {
    for before_sync in [false, true] {
        let journal = open(&SimDisk::new(1), before_sync);
        let before = journal.observed();
        assert_eq!((before.commits.count(), before.committed_records), (0, 0));
        append(&journal, 1..=10);
        append(&journal, 11..=12);
        let after = journal.observed();
        assert_eq!((after.commits.count(), after.committed_records), (2, 12));
        assert!(after.committed_bytes > 12 * 23, "{after:?}");
        assert_eq!(before.room_bytes - after.room_bytes, after.committed_bytes);
        assert_eq!(after.segments_bytes - before.segments_bytes, after.committed_bytes);
        // What proves a commit is none.
        journal.rest();
        assert_eq!(journal.observed().commits, after.commits);
    }
}

#[test]
fn bases_and_what_retention_gives_up_are_counted() {
    let journal = open(&SimDisk::new(1), false);
    append(&journal, 1..=20);
    let full = journal.observed();
    journal.rotate();
    journal.turn();
    assert_eq!(journal.observed().segments, full.segments + 1);
    assert!(journal.write_base(&mut |_| Err(io::ErrorKind::StorageFull.into())).is_err());
    journal.write_base(&mut sections).unwrap();
    let based = journal.observed();
    assert_eq!((based.bases.count(), based.base_failures), (1, 1));
    assert!(based.base_bytes > 0 && full.base_bytes == 0);
    journal.retire(1);
    journal.turn();
    let Observed { segments, segments_bytes, retired_segments, retired_bytes, .. } = journal.observed();
    assert_eq!((segments, retired_segments, retired_bytes), (full.segments, 1, full.segments_bytes));
    assert!(segments_bytes > 0 && segments_bytes < full.segments_bytes, "{segments_bytes}");
}

#[test]
fn damage_is_counted_where_it_is_found_and_each_time_that_it_is_read() {
    let disk = SimDisk::new(1);
    let journal = open(&disk, false);
    append(&journal, 1..=3);
    journal.close().unwrap();
    drop(journal);
    let (name, bytes) = disk.snapshot().into_iter().find(|(name, _)| name.ends_with(".segment")).unwrap();
    let at = bytes.windows(11).position(|window| window == b"the payload").unwrap();
    disk.flip(&name, at as u64, 0);
    let journal = open(&disk, false);
    assert_eq!((journal.observed().damage_found, journal.observed().corrupt_reads), (1, 0));
    for times in 1..=2 {
        let read = journal.read(STREAM, Offset(1), 1 << 20).unwrap();
        assert!(matches!(read.entries[0], Entry::Corrupt(_)), "{:?}", read.entries);
        assert_eq!(journal.observed().corrupt_reads, times);
    }
}
