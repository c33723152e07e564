//! Writing a base: section by section, then what it lists; synced, read back, installed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::{
    Base, FORMAT, FORMAT_WITH_RUNS, HEADER_BYTES, Header, Listed, PAGE_ENTRIES, PAGE_ENTRY_BYTES, Place,
    StreamEnd, file_name, seed, unfinished, write_entry,
};
use crate::domain::aside::RunId;
use crate::domain::filter::Filter;
use crate::domain::ids::Offset;
use crate::journal::StreamId;
use crate::journal::disk::{Disk, DiskFile};
use crate::journal::record::{Entry, RawRecord, RecordHeader};
use crate::journal::runs::{self, RunOf};

/// What is written at a time, in bytes.
const WRITE_BYTES: usize = 1 << 20;

/// The records that a state rests on, to be kept beside it.
#[derive(Debug, Default)]
pub struct Kept {
    /// Each with its place in `bytes`.
    places: Vec<(Offset, u64)>,
    bytes: Vec<u8>,
}

impl Kept {
    /// Adds a record, whole or with another payload in place of its own. By rising offset.
    pub fn push(&mut self, record: &RawRecord, payload: &[u8]) {
        self.places.push((record.offset, self.bytes.len() as u64));
        let header = RecordHeader {
            offset: record.offset,
            conversation: record.conversation,
            previous: record.previous,
            at: record.at,
            kind: record.kind,
            payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            payload_crc: crc32c::crc32c(payload),
        };
        self.bytes.extend_from_slice(&header.to_bytes());
        self.bytes.extend_from_slice(payload);
    }

    /// The records, one behind the other.
    pub(in crate::journal) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// Writes a base, section by section.
#[derive(Debug)]
pub struct BaseWriter<'a> {
    disk: &'a dyn Disk,
    file: Arc<dyn DiskFile>,
    store: u128,
    generation: u64,
    covered: u64,
    seed: u32,
    position: u64,
    buffer: Vec<u8>,
    streams: BTreeMap<StreamId, Listed>,
    before: Option<&'a Base>,
    /// The runs that the states name.
    runs: BTreeSet<(StreamId, RunId)>,
    /// The number of the first run that is written for this base, and how many were.
    first_run: RunId,
    runs_written: u64,
    /// Off only for the test of the tests.
    sync_runs: bool,
}

impl<'a> BaseWriter<'a> {
    /// Begins the base that follows `before` and covers the segments up to `covered`.
    pub(in crate::journal) fn begin(
        disk: &'a dyn Disk,
        store: u128,
        generation: u64,
        covered: u64,
        before: Option<&'a Base>,
        sync_runs: bool,
    ) -> io::Result<Self> {
        let unfinished = unfinished(generation);
        // One that a failed try has left behind.
        let names = disk.list()?;
        if names.contains(&unfinished) {
            disk.remove(&unfinished)?;
        }
        let file = disk.create(&unfinished)?;
        Ok(Self {
            disk,
            file,
            store,
            generation,
            covered,
            seed: seed(store, generation),
            position: HEADER_BYTES as u64,
            buffer: Vec::new(),
            streams: BTreeMap::new(),
            before,
            runs: BTreeSet::new(),
            first_run: runs::first_number(generation, &names),
            runs_written: 0,
            sync_runs,
        })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.position)?;
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn at(&self) -> u64 {
        self.position + self.buffer.len() as u64
    }

    /// Writes a stream's state, as it is behind the record at `as_of`.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn section(&mut self, stream: StreamId, as_of: Offset, state: &[u8], kept: &Kept) -> io::Result<()> {
        let place = Place {
            position: self.at(),
            state_bytes: state.len() as u64,
            state_crc: crc32c::crc32c_append(self.seed, state),
            kept: u32::try_from(kept.len()).unwrap_or(u32::MAX),
            kept_bytes: kept.bytes.len() as u64,
        };
        self.put(state)?;
        self.put(&kept.bytes)?;
        for page in kept.places.chunks(PAGE_ENTRIES) {
            let mut raw = Vec::with_capacity(page.len() * PAGE_ENTRY_BYTES + 4);
            for (offset, at) in page {
                raw.extend_from_slice(&offset.0.to_le_bytes());
                raw.extend_from_slice(&(place.kept_at() + at).to_le_bytes());
            }
            raw.extend_from_slice(&crc32c::crc32c_append(self.seed, &raw).to_le_bytes());
            self.put(&raw)?;
        }
        let section = Some(place);
        self.streams.insert(stream, Listed { as_of, section, ..Listed::default() });
        Ok(())
    }

    /// Writes rows into a run of their own, for a state that is to name it ([`names_run`](Self::names_run)); gives its
    /// number, and what may be in it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn run(&mut self, of: &RunOf<'_>) -> io::Result<(RunId, Filter)> {
        let run = RunId(self.first_run.0.saturating_add(self.runs_written));
        let filter = runs::write(self.disk, self.store, run, of, self.sync_runs)?;
        self.runs_written += 1;
        Ok((run, filter))
    }

    /// The stream's state names this run: it stays for as long as bases say so.
    pub fn names_run(&mut self, stream: StreamId, run: RunId) {
        self.runs.insert((stream, run));
    }

    /// Whether more runs may be written for this base.
    #[must_use]
    pub fn has_room_for_runs(&self) -> bool {
        self.runs_written < runs::RUNS_OF_BASE_MAX
    }

    /// Sets a stream aside: its state can not be had, now or later.
    pub fn quarantine(&mut self, stream: StreamId) {
        self.streams.insert(stream, Listed { quarantined: true, ..Listed::default() });
    }

    /// Takes a stream's section over from the base before, where that is whole; says whether it is.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn carry_over(&mut self, stream: StreamId) -> io::Result<bool> {
        let Some(before) = self.before else { return Ok(false) };
        let Some(section) = before.streams.get(&stream).and_then(|listed| listed.section) else {
            return Ok(false);
        };
        let Ok(Some(saved)) = before.state(stream) else { return Ok(false) };
        let mut kept = Kept::default();
        for page in 0..section.pages() {
            let Ok(Some(entries)) = before.page(&section, page) else { return Ok(false) };
            for (offset, place) in entries {
                let Ok(Entry::Record(record)) = before.kept_at(offset, place) else { return Ok(false) };
                kept.push(&record, &record.payload);
            }
        }
        self.section(stream, saved.as_of, &saved.state, &kept)?;
        self.runs.extend(before.runs().filter(|(whose, _)| *whose == stream));
        Ok(true)
    }

    /// Shows the records that the base before keeps of a stream, by rising offset.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn kept_before(&self, stream: StreamId, one: &mut dyn FnMut(RawRecord)) -> io::Result<()> {
        let Some(before) = self.before else { return Ok(()) };
        let Some(section) = before.streams.get(&stream).and_then(|listed| listed.section) else {
            return Ok(());
        };
        for page in 0..section.pages() {
            let entries = before.page(&section, page).map_err(io::Error::other)?;
            for (offset, place) in entries.unwrap_or_default() {
                // What is damaged is named where it is asked for, and by a verification.
                if let Entry::Record(record) = before.kept_at(offset, place).map_err(io::Error::other)? {
                    one(record);
                }
            }
        }
        Ok(())
    }

    /// Whether something was written of a stream.
    #[must_use]
    pub fn has(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Ends it: `ends` is what the journal knows of every stream. Synced, read back, installed.
    pub(in crate::journal) fn finish(
        mut self,
        ends: impl IntoIterator<Item = (StreamId, StreamEnd)>,
        dropped: u64,
    ) -> io::Result<Base> {
        for (stream, end) in ends {
            self.streams.entry(stream).or_default().end = end;
        }
        let mut directory = dropped.to_le_bytes().to_vec();
        if !self.runs.is_empty() {
            directory.extend_from_slice(&(self.runs.len() as u64).to_le_bytes());
            for (stream, run) in &self.runs {
                directory.extend_from_slice(&stream.0.to_le_bytes());
                directory.extend_from_slice(&run.0.to_le_bytes());
            }
        }
        for (stream, listed) in &self.streams {
            write_entry(*stream, listed, &mut directory);
        }
        let header = Header {
            format: if self.runs.is_empty() { FORMAT } else { FORMAT_WITH_RUNS },
            covered: self.covered,
            directory_at: self.at(),
            directory_bytes: u32::try_from(directory.len()).map_err(io::Error::other)?,
            directory_crc: crc32c::crc32c_append(self.seed, &directory),
        };
        let header = header.to_bytes(self.store, self.generation, self.seed);
        self.put(&directory)?;
        self.put(&directory)?;
        self.put(&header)?;
        self.flush()?;
        self.file.write_at(&header, 0)?;
        self.file.sync()?;
        let mut found = Vec::new();
        let place = self.disk.place(&file_name(self.generation));
        let base = Base::read(Arc::clone(&self.file), place, self.store, self.generation, &mut found)?;
        let base = base.ok_or_else(|| io::Error::other("the base reads back damaged"))?;
        base.verify(&mut found).map_err(io::Error::other)?;
        if !found.is_empty() {
            return Err(io::Error::other("the base reads back damaged"));
        }
        if self.runs_written > 0 && self.sync_runs {
            // Its runs have their names for good before it has its own.
            self.disk.sync_directory()?;
        }
        self.disk.rename(&unfinished(self.generation), &file_name(self.generation))?;
        self.disk.sync_directory()?;
        Ok(base)
    }
}
