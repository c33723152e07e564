//! `verify` names every flipped byte of a store, and nothing in one that is whole.
//!
//! The store has all that there can be: segments that were sealed, cut and given up, one in use, a base with states and
//! kept records, runs of ids that it names, and more than one stream.

#![cfg(feature = "broker")]
#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sharedline::domain::aside::Rows;
use sharedline::domain::fingerprint::Fingerprint;
use sharedline::domain::ids::{ConversationId, Offset, Timestamp};
use sharedline::journal::disk::Disk;
use sharedline::journal::sim_disk::SimDisk;
use sharedline::journal::{
    BlockBuilder, Completed, CompletionSink, Durability, EmbeddedJournal, Entry, Journal, Kept, OpenError,
    Options, Outcome, RecordMeta, Retention, RunOf, Sink, StreamId, Verified, verify,
};

const STREAMS: [StreamId; 2] = [StreamId(7), StreamId(8)];

#[derive(Debug, Default)]
struct Answers(Mutex<Vec<Completed>>);

impl CompletionSink for Answers {
    fn complete(&self, finished: &mut Vec<Completed>) {
        self.0.lock().unwrap().append(finished);
    }
}

/// Appends a block of three records.
fn append(journal: &EmbeddedJournal, stream: StreamId) {
    let expected = journal.head(stream);
    let mut builder = BlockBuilder::new(stream);
    let mut offset = expected.offset;
    for _ in 0..3 {
        let previous = offset;
        offset = offset.next();
        let conversation = Some(ConversationId(1));
        let meta = RecordMeta { conversation, previous, at: Timestamp(offset.0), kind: 2 };
        builder.push(offset, meta, |out| out.extend_from_slice(&[b'x'; 50])).unwrap();
    }
    let answers = Arc::new(Answers::default());
    let sink: Sink = Arc::clone(&answers) as Sink;
    journal.append(stream, expected, builder.take().unwrap(), Durability::Configured, &sink);
    journal.turn();
    assert!(matches!(answers.0.lock().unwrap().remove(0).outcome, Outcome::Durable(_)));
}

fn store() -> BTreeMap<String, Vec<u8>> {
    let disk = SimDisk::new(1);
    let options = Options { segment_bytes: 9 << 10, threads: false, ..Options::default() };
    let journal = EmbeddedJournal::open(Arc::new(disk.clone()), &options).unwrap().journal;
    for _ in 0..4 {
        STREAMS.iter().for_each(|stream| append(&journal, *stream));
    }
    journal.rotate();
    journal.turn();
    journal
        .write_base(&mut |base| {
            for stream in STREAMS {
                let mut kept = Kept::default();
                for offset in [2, 3, 5] {
                    let Entry::Record(record) = journal.read_one(stream, Offset(offset)).unwrap() else {
                        panic!("a record of a whole store");
                    };
                    kept.push(&record, &record.payload);
                }
                base.section(stream, journal.head(stream).offset, b"the state", &kept)?;
                let ids = (1..200).map(|n| (Fingerprint::from_u128(n << 120), Offset(7))).collect();
                let rows = Rows::of_records(ids);
                let of = RunOf { stream, from: Timestamp(1), to: Timestamp(9), rows: &rows };
                let (run, _) = base.run(&of)?;
                base.names_run(stream, run);
            }
            Ok(())
        })
        .unwrap();
    STREAMS.iter().for_each(|stream| append(&journal, *stream));
    let retention = Retention { keep_ms: 4, bytes_max: 1 << 20 };
    journal.retire(journal.due(Timestamp(12), &retention).retire.unwrap());
    journal.turn();
    journal.sweep().unwrap();
    journal.close().unwrap();
    drop(journal);
    disk.kill();
    disk.snapshot()
}

fn disk_with(store: &BTreeMap<String, Vec<u8>>) -> SimDisk {
    let disk = SimDisk::new(1);
    for (name, bytes) in store {
        disk.create(name).unwrap().write_at(bytes, 0).unwrap();
    }
    disk
}

fn verified(disk: &SimDisk) -> Result<Verified, OpenError> {
    verify(&(Arc::new(disk.clone()) as Arc<dyn Disk>))
}

#[test]
fn a_whole_store_is_found_whole_and_each_flipped_byte_is_named() {
    let store = store();
    assert!(store.keys().any(|name| name.ends_with(".base")));
    assert!(store.keys().any(|name| name.ends_with(".index")));
    assert_eq!(store.keys().filter(|name| name.ends_with(".run")).count(), 2);
    assert!(store.keys().filter(|name| name.ends_with(".segment")).count() >= 2);
    let disk = disk_with(&store);
    let whole = verified(&disk).unwrap();
    assert_eq!(whole.found, []);
    assert!(whole.records >= 12 && whole.streams == 3, "{whole:?}");
    for (name, bytes) in &store {
        for byte in 0..bytes.len() as u64 {
            let bit = u8::try_from(byte % 8).unwrap();
            disk.flip(name, byte, bit);
            match verified(&disk) {
                Ok(looked) => assert!(
                    looked.found.iter().any(|found| found.place.contains(name.as_str())),
                    "byte {byte} of {name}: {:?}",
                    looked.found
                ),
                Err(OpenError::Newer { place, .. }) => assert!(place.contains(name.as_str())),
                Err(error) => panic!("byte {byte} of {name}: {error}"),
            }
            disk.flip(name, byte, bit);
        }
    }
    assert_eq!(verified(&disk).unwrap(), whole, "looking changes nothing");
}

#[test]
fn a_missing_segment_and_a_missing_store_are_named() {
    let store = store();
    let mut segments = store.keys().filter(|name| name.ends_with(".segment"));
    let first = segments.next().unwrap();
    let disk = disk_with(&store);
    disk.remove(first).unwrap();
    let found = verified(&disk).unwrap().found;
    assert!(found.iter().any(|found| found.place.contains(first.as_str())), "{found:?}");
    assert!(matches!(verified(&SimDisk::new(2)), Err(OpenError::Io { .. })));
}

#[test]
fn a_missing_run_is_named_and_stops_nothing_and_one_that_no_base_names_goes_at_the_next_start() {
    let store = store();
    let runs: Vec<&String> = store.keys().filter(|name| name.ends_with(".run")).collect();
    let disk = disk_with(&store);
    disk.rename(runs[0], "00000000000fffff.run").unwrap();
    let found = verified(&disk).unwrap().found;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].place.contains(runs[0].as_str()), "{found:?}");
    let options = Options { threads: false, ..Options::default() };
    let opened = EmbeddedJournal::open(Arc::new(disk.clone()), &options).unwrap();
    assert_eq!(opened.found, []);
    let left: Vec<String> = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".run")).collect();
    assert_eq!(left, [runs[1].as_str()]);
}
