//! The engine of tests: the contract without a disk. What is appended is done at once, on the appender's own thread,
//! unless it was told to hold its answers.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::block::BLOCK_HEADER_BYTES;
use super::record::{RECORD_HEADER_BYTES, RecordHeader};
use super::{
    Block, Completed, Durability, Entry, Halt, HaltWatch, Head, Journal, Outcome, RawRecord, ReadBatch,
    ReadError, Sink, StreamId,
};
use crate::domain::ids::Offset;

/// A journal in memory.
#[derive(Default)]
pub struct MemoryJournal(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    streams: BTreeMap<StreamId, Stream>,
    /// Appends whose answers are held.
    held: Option<Vec<(Sink, Completed)>>,
    /// How long what they append is.
    held_bytes: usize,
    halt: Option<Halt>,
    watches: Vec<HaltWatch>,
    closed: bool,
}

#[derive(Default)]
struct Stream {
    records: BTreeMap<Offset, RawRecord>,
    head: Head,
    /// The last offset whose answer was given: what may be read.
    done: Offset,
    first: Offset,
    deleted: bool,
}

impl MemoryJournal {
    /// An empty journal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on appends wait, as they would for a disk, until [`release`](Self::release).
    pub fn hold(&self) {
        self.lock().held.get_or_insert_default();
    }

    /// Answers all that waits, and holds nothing any more.
    pub fn release(&self) {
        let held = {
            let mut memory = self.lock();
            memory.held_bytes = 0;
            memory.held.take().unwrap_or_default()
        };
        self.answer(held);
    }

    /// Fails as a disk would: what waits and all that comes later is answered `Halted`.
    pub fn fail(&self) {
        let halt = Halt {
            operation: "write",
            place: "memory".to_owned(),
            error: Arc::new(io::Error::other("told to fail")),
        };
        let (held, watches) = {
            let mut memory = self.lock();
            if memory.halt.is_some() {
                return;
            }
            memory.halt = Some(halt.clone());
            memory.held_bytes = 0;
            (memory.held.take().unwrap_or_default(), std::mem::take(&mut memory.watches))
        };
        let lost = held
            .into_iter()
            .map(|(sink, done)| (sink, Completed { outcome: Outcome::Halted, ..done }))
            .collect();
        self.answer(lost);
        for watch in watches {
            watch(&halt);
        }
    }

    fn answer(&self, finished: Vec<(Sink, Completed)>) {
        let mut groups: Vec<(Sink, Vec<Completed>)> = Vec::new();
        {
            let mut memory = self.lock();
            for (sink, done) in finished {
                if let (Outcome::Durable(head), Some(stream)) =
                    (&done.outcome, memory.streams.get_mut(&done.stream))
                {
                    stream.done = stream.done.max(head.offset);
                }
                match groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &sink)) {
                    Some((_, group)) => group.push(done),
                    None => groups.push((sink, vec![done])),
                }
            }
        }
        for (sink, mut group) in groups {
            sink.complete(&mut group);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryJournal").field("streams", &self.lock().streams.len()).finish()
    }
}

impl Journal for MemoryJournal {
    fn append(&self, stream: StreamId, expected: Head, block: Block, _: Durability, sink: &Sink) {
        let done = {
            let mut memory = self.lock();
            let outcome = if memory.halt.is_some() || memory.closed {
                Outcome::Halted
            } else {
                memory.streams.entry(stream).or_default().append(expected, &block)
            };
            let done = Completed { stream, outcome };
            let bytes = block.as_bytes().len();
            match &mut memory.held {
                Some(held) => {
                    held.push((Arc::clone(sink), done));
                    memory.held_bytes += bytes;
                    return;
                }
                None => (Arc::clone(sink), done),
            }
        };
        self.answer(vec![done]);
    }

    fn read(&self, stream: StreamId, from: Offset, max_bytes: usize) -> Result<ReadBatch, ReadError> {
        let memory = self.lock();
        let Some(stream) = memory.streams.get(&stream) else {
            return Ok(ReadBatch { entries: Vec::new(), next: from, first: Offset(1) });
        };
        let mut batch = ReadBatch { entries: Vec::new(), next: from, first: stream.first.max(Offset(1)) };
        let mut bytes = 0;
        for record in stream.records.range(from.max(batch.first)..).map(|(_, record)| record) {
            bytes += RECORD_HEADER_BYTES + record.payload.len();
            if record.offset > stream.done || (bytes > max_bytes && !batch.entries.is_empty()) {
                break;
            }
            batch.next = record.offset.next();
            batch.entries.push(Entry::Record(record.clone()));
        }
        Ok(batch)
    }

    fn read_one(&self, stream: StreamId, offset: Offset) -> Result<Entry, ReadError> {
        let memory = self.lock();
        memory
            .streams
            .get(&stream)
            .filter(|found| offset >= found.first && offset <= found.done)
            .and_then(|found| found.records.get(&offset))
            .map(|record| Entry::Record(record.clone()))
            .ok_or(ReadError::NotFound { stream, offset })
    }

    fn streams(&self) -> Vec<(StreamId, Head)> {
        let memory = self.lock();
        let alive = memory.streams.iter().filter(|(_, stream)| !stream.deleted);
        alive.map(|(id, stream)| (*id, Head { offset: stream.done, token: 0 })).collect()
    }

    fn first(&self, stream: StreamId) -> Offset {
        self.lock().streams.get(&stream).map_or(Offset(1), |stream| stream.first.max(Offset(1)))
    }

    fn head(&self, stream: StreamId) -> Head {
        let done = self.lock().streams.get(&stream).map_or(Offset::ZERO, |found| found.done);
        Head { offset: done, token: 0 }
    }

    fn trim(&self, stream: StreamId, before: Offset) {
        if let Some(found) = self.lock().streams.get_mut(&stream) {
            found.first = found.first.max(before.min(found.done.next()));
            found.records = found.records.split_off(&found.first);
        }
    }

    fn delete(&self, stream: StreamId) {
        if let Some(found) = self.lock().streams.get_mut(&stream) {
            found.records.clear();
            found.first = found.head.offset.next();
            found.deleted = true;
        }
    }

    fn pressure(&self) -> Vec<(StreamId, Offset)> {
        Vec::new()
    }

    fn queued_bytes(&self) -> usize {
        self.lock().held_bytes
    }

    fn halted(&self) -> Option<Halt> {
        self.lock().halt.clone()
    }

    fn on_halt(&self, watch: HaltWatch) {
        let halt = {
            let mut memory = self.lock();
            match memory.halt.clone() {
                None => {
                    memory.watches.push(watch);
                    return;
                }
                Some(halt) => halt,
            }
        };
        watch(&halt);
    }

    fn close(&self) -> Result<(), Halt> {
        self.release();
        let mut memory = self.lock();
        memory.closed = true;
        memory.halt.clone().map_or(Ok(()), Err)
    }
}

impl Stream {
    fn append(&mut self, expected: Head, block: &Block) -> Outcome {
        if self.deleted || expected != self.head || block.first() <= self.head.offset {
            return Outcome::Fenced(self.head);
        }
        let mut rest = Bytes::copy_from_slice(block.as_bytes()).slice(BLOCK_HEADER_BYTES..);
        while let Some(header) = RecordHeader::read(&rest) {
            let end = RECORD_HEADER_BYTES + header.payload_bytes as usize;
            let payload = rest.slice(RECORD_HEADER_BYTES..end);
            self.records.insert(header.offset, RawRecord::new(header, payload));
            rest = rest.slice(end..);
        }
        self.head.offset = block.last();
        Outcome::Durable(self.head)
    }
}
