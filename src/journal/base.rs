//! A base: the state of every stream at one offset each, in one file, so that the segments before it may go.
//!
//! ```text
//!  byte 0        64                                                              end − 64
//!       ┌────────┬───────────┬───────────┬─ ─ ─┬───────────┬───────────┬─────────┐
//!       │ header │ section   │ section   │  …  │ directory │ directory │ header  │
//!       │        │           │           │     │           │ again     │ again   │
//!       └────────┴───────────┴───────────┴─ ─ ─┴───────────┴───────────┴─────────┘
//!  the header
//!  byte 0       8        12      16        32          40        48          56      60
//!       ┌───────┬────────┬───────┬─────────┬───────────┬─────────┬───────────┬───────┬─────────────┐
//!       │ magic │ format │ CRC of│ store   │ generation│ covered │ directory │ its   │ CRC32C of   │
//!       │       │ u32    │ direc.│ id u128 │ u64       │ u64     │ at u64    │ bytes │ bytes 0–59  │
//!       └───────┴────────┴───────┴─────────┴───────────┴─────────┴───────────┴───────┴─────────────┘
//!  a section: state │ kept records, as in `record` │ pages of the kept records' places
//!  a page:    up to 64 of (offset u64, position u64), ascending │ CRC32C
//!  the directory: dropped through u64, in format 2 the runs, then an entry for each stream, ascending
//!  the runs: how many u64, then (stream u128, run u64) of each, ascending
//!  byte 0        16      24      32       36       40         48        56        60       64       72
//!       ┌────────┬───────┬───────┬────────┬────────┬──────────┬─────────┬─────────┬────────┬────────┐
//!       │ stream │ as of │ first │ leaps  │ flags  │ section  │ bytes   │ CRC of  │ kept   │ bytes  │
//!       │ u128   │ u64   │ u64   │ u32    │ u32    │ at u64   │ of its  │ its     │ records│ of the │
//!       │        │       │       │        │        │          │ state   │ state   │ u32    │ kept   │
//!       └────────┴───────┴───────┴────────┴────────┴──────────┴─────────┴─────────┴────────┴────────┘
//! ```
//!
//! `covered`: segments up to this number hold nothing that the state behind this base still needs. `dropped through`:
//! segments up to this number were given up. Flags: bit 0 deleted, 1 has a section, 2 quarantined. All checksums are
//! seeded with the store's id and the generation. A base that names no runs is written in format 1.
//!
//! **Invariants.** A base is no cache: it is written to a temporary file, synced, read back whole, and only then gets
//! its name; the one before stays until then. A damaged section costs its stream, a damaged record itself, and nothing
//! else.

mod writing;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{Disk, DiskFile};
use super::record::{Damage, Entry, RECORD_HEADER_BYTES, RawRecord, RecordHeader, u32_at, u64_at, u128_at};
use super::scan::Found;
use super::store::UNFINISHED;
use super::{ReadError, StreamId};
use crate::domain::aside::RunId;
use crate::domain::ids::Offset;

pub use self::writing::{BaseWriter, Kept};

const MAGIC: [u8; 8] = *b"\xffSLBAS\xff\x01";
const FORMAT: u32 = 1;
const FORMAT_WITH_RUNS: u32 = 2;
const SUFFIX: &str = ".base";
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 80;
const RUN_BYTES: usize = 24;
/// Kept records in a page of their places: a read of 1 KiB finds one.
const PAGE_ENTRIES: usize = 64;
const PAGE_ENTRY_BYTES: usize = 16;

const DELETED: u32 = 1;
const HAS_SECTION: u32 = 2;
const QUARANTINED: u32 = 4;

/// The name of a base's file.
pub(super) fn file_name(generation: u64) -> String {
    format!("{generation:016x}{SUFFIX}")
}

/// The generation in a base's file name; none if it is no base's.
pub(super) fn generation_in(name: &str) -> Option<u64> {
    let generation = u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?;
    (file_name(generation) == name).then_some(generation)
}

/// What it is called until it is whole.
pub(super) fn unfinished(generation: u64) -> String {
    format!("{}{UNFINISHED}", file_name(generation))
}

fn seed(store: u128, generation: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&store.to_le_bytes()), &generation.to_be_bytes())
}

/// What the journal itself must know of a stream whose records are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct StreamEnd {
    /// Its end; the next block begins behind it.
    pub(super) head: Offset,
    /// The first that was not trimmed.
    pub(super) first: Offset,
    pub(super) leaps: u32,
    pub(super) deleted: bool,
}

/// Where a section lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    position: u64,
    state_bytes: u64,
    state_crc: u32,
    kept: u32,
    kept_bytes: u64,
}

impl Place {
    fn kept_at(&self) -> u64 {
        self.position + self.state_bytes
    }

    fn pages_at(&self) -> u64 {
        self.kept_at() + self.kept_bytes
    }

    fn pages(&self) -> usize {
        (self.kept as usize).div_ceil(PAGE_ENTRIES)
    }

    /// The bytes of one page, checksum included.
    fn page(&self, page: usize) -> (u64, usize) {
        let before = page * (PAGE_ENTRIES * PAGE_ENTRY_BYTES + 4);
        let entries = (self.kept as usize - page * PAGE_ENTRIES).min(PAGE_ENTRIES);
        (self.pages_at() + before as u64, entries * PAGE_ENTRY_BYTES + 4)
    }

    fn end(&self) -> u64 {
        self.pages_at() + self.kept as u64 * PAGE_ENTRY_BYTES as u64 + 4 * self.pages() as u64
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Listed {
    end: StreamEnd,
    /// What the state stands for.
    as_of: Offset,
    section: Option<Place>,
    quarantined: bool,
}

/// A stream's state.
#[derive(Debug, Clone)]
pub struct SavedState {
    /// The last offset that is in it.
    pub as_of: Offset,
    /// As whoever saved it wrote it.
    pub state: Bytes,
}

/// Why a stream's state can not be had from the base.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SavedError {
    /// Its checksum does not match.
    #[error("the saved state is damaged ({place}, byte {position})")]
    Damaged {
        /// The file.
        place: String,
        /// Where in it.
        position: u64,
    },
    /// The stream's records could not be folded when the base was written; they were set aside.
    #[error("the stream was quarantined before")]
    Quarantined,
    /// The disk refused.
    #[error("the saved state can not be read")]
    Read(#[from] ReadError),
}

/// An installed base.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) generation: u64,
    /// Segments up to this number hold nothing that is still needed for a state.
    pub(super) covered: u64,
    /// Segments up to this number were given up.
    pub(super) dropped: u64,
    /// Its size, in bytes.
    pub(super) bytes: u64,
    directory_at: u64,
    file: Arc<dyn DiskFile>,
    place: String,
    seed: u32,
    streams: BTreeMap<StreamId, Listed>,
    /// The runs that the states name, and whose they are.
    runs: BTreeMap<RunId, StreamId>,
}

impl Base {
    /// Opens the base of a generation. None if it is none of this store: neither copy of header or directory is whole.
    pub(super) fn open(
        disk: &dyn Disk,
        store: u128,
        generation: u64,
        found: &mut Vec<Found>,
    ) -> io::Result<Option<Self>> {
        let name = file_name(generation);
        let file = disk.open(&name)?;
        Self::read(file, disk.place(&name), store, generation, found)
    }

    fn read(
        file: Arc<dyn DiskFile>,
        place: String,
        store: u128,
        generation: u64,
        found: &mut Vec<Found>,
    ) -> io::Result<Option<Self>> {
        let seed = seed(store, generation);
        let bytes = file.length()?;
        let mut report = |position, what| found.push(Found { place: place.clone(), position, what });
        if bytes < 2 * HEADER_BYTES as u64 {
            report(bytes, "a base that ends too early");
            return Ok(None);
        }
        let mut header = None;
        for at in [0, bytes - HEADER_BYTES as u64] {
            let mut raw = [0; HEADER_BYTES];
            file.read_at(&mut raw, at)?;
            match Header::read(&raw, store, generation, seed) {
                Some(read) => header = header.or(Some(read)),
                None => report(at, "one of a base's two headers"),
            }
        }
        let Some(header) = header else { return Ok(None) };
        let length = header.directory_bytes as usize;
        let mut directory = None;
        for at in [header.directory_at, header.directory_at + u64::from(header.directory_bytes)] {
            let mut raw = vec![0; length];
            let whole = match file.read_at(&mut raw, at) {
                Ok(()) => crc32c::crc32c_append(seed, &raw) == header.directory_crc,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
                Err(error) => return Err(error),
            };
            if whole {
                directory = directory.or(Some(raw));
            } else {
                report(at, "one of a base's two directories");
            }
        }
        let Some(directory) = directory else { return Ok(None) };
        let (runs, entries) = header.parts(&directory);
        let runs = runs.chunks_exact(RUN_BYTES);
        let runs = runs.map(|raw| (RunId(u64_at(raw, 16)), StreamId(u128_at(raw, 0)))).collect();
        let streams = entries.chunks_exact(ENTRY_BYTES).map(read_entry).collect();
        let Header { covered, directory_at, .. } = header;
        if directory_at + 2 * length as u64 + HEADER_BYTES as u64 != bytes {
            report(bytes, "a base that does not end where it should");
        }
        let dropped = u64_at(&directory, 0);
        Ok(Some(Self { generation, covered, dropped, bytes, directory_at, file, place, seed, streams, runs }))
    }

    /// What is known of every stream.
    pub(super) fn ends(&self) -> impl Iterator<Item = (StreamId, StreamEnd)> {
        self.streams.iter().map(|(stream, listed)| (*stream, listed.end))
    }

    /// The runs that the states name, and whose they are.
    pub(super) fn runs(&self) -> impl Iterator<Item = (StreamId, RunId)> {
        self.runs.iter().map(|(run, stream)| (*stream, *run))
    }

    /// Whether a state names the run.
    pub(super) fn has_run(&self, run: RunId) -> bool {
        self.runs.contains_key(&run)
    }

    /// A stream's state.
    pub(super) fn state(&self, stream: StreamId) -> Result<Option<SavedState>, SavedError> {
        let Some(listed) = self.streams.get(&stream) else { return Ok(None) };
        if listed.quarantined {
            return Err(SavedError::Quarantined);
        }
        let Some(section) = listed.section else { return Ok(None) };
        let mut state = vec![0; usize::try_from(section.state_bytes).unwrap_or(0)];
        let whole = self.fill(&mut state, section.position)?
            && crc32c::crc32c_append(self.seed, &state) == section.state_crc;
        if !whole {
            return Err(SavedError::Damaged { place: self.place.clone(), position: section.position });
        }
        Ok(Some(SavedState { as_of: listed.as_of, state: Bytes::from(state) }))
    }

    /// Fills `bytes`; says whether the file has so many.
    fn fill(&self, bytes: &mut [u8], position: u64) -> Result<bool, ReadError> {
        match self.file.read_at(bytes, position) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(ReadError::Io { place: self.place.clone(), position, error: Arc::new(error) }),
        }
    }

    /// One page of the places of a stream's kept records; none where its checksum does not match.
    fn page(&self, section: &Place, page: usize) -> Result<Option<Vec<(Offset, u64)>>, ReadError> {
        let (at, length) = section.page(page);
        let mut raw = vec![0; length];
        let entries = length - 4;
        if !self.fill(&mut raw, at)?
            || crc32c::crc32c_append(self.seed, raw.get(..entries).unwrap_or_default())
                != u32_at(&raw, entries)
        {
            return Ok(None);
        }
        let entries = raw.get(..entries).unwrap_or_default().chunks_exact(PAGE_ENTRY_BYTES);
        Ok(Some(entries.map(|entry| (Offset(u64_at(entry, 0)), u64_at(entry, 8))).collect()))
    }

    /// A record that the base keeps.
    pub(super) fn kept(&self, stream: StreamId, offset: Offset) -> Result<Option<Entry>, ReadError> {
        let Some(section) = self.streams.get(&stream).and_then(|listed| listed.section) else {
            return Ok(None);
        };
        let (mut low, mut high) = (0, section.pages());
        while low < high {
            let middle = low.midpoint(high);
            let Some(page) = self.page(&section, middle)? else {
                return Ok(Some(self.damage(offset, section.page(middle).0)));
            };
            let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(None) };
            if offset < first.0 {
                high = middle;
            } else if offset > last.0 {
                low = middle + 1;
            } else {
                let found = page.binary_search_by_key(&offset, |entry| entry.0).ok();
                let position = found.and_then(|at| page.get(at)).map(|entry| entry.1);
                return position.map(|position| self.kept_at(offset, position)).transpose();
            }
        }
        Ok(None)
    }

    fn kept_at(&self, offset: Offset, position: u64) -> Result<Entry, ReadError> {
        let mut raw = [0; RECORD_HEADER_BYTES];
        if !self.fill(&mut raw, position)? {
            return Ok(self.damage(offset, position));
        }
        let Some(header) = RecordHeader::read(&raw).filter(|header| header.offset == offset) else {
            return Ok(self.damage(offset, position));
        };
        let mut payload = vec![0; header.payload_bytes as usize];
        let whole = self.fill(&mut payload, position + RECORD_HEADER_BYTES as u64)?
            && crc32c::crc32c(&payload) == header.payload_crc;
        if !whole {
            return Ok(self.damage(offset, position));
        }
        Ok(Entry::Record(RawRecord::new(header, Bytes::from(payload))))
    }

    fn damage(&self, offset: Offset, position: u64) -> Entry {
        let place = self.place.clone();
        Entry::Corrupt(Damage { from: offset, to: offset, place, position, chain: None })
    }

    /// Checks every byte; names what does not check out.
    pub(super) fn verify(&self, found: &mut Vec<Found>) -> Result<(), ReadError> {
        let mut report = |position, what| found.push(Found { place: self.place.clone(), position, what });
        let mut position = HEADER_BYTES as u64;
        let mut sections: Vec<_> = self.streams.iter().collect();
        sections.sort_unstable_by_key(|(_, listed)| listed.section.map(|section| section.position));
        for (stream, listed) in sections {
            let Some(section) = listed.section else { continue };
            if section.position != position {
                report(position, "a base's section is not where it should be");
            }
            if matches!(self.state(*stream), Err(SavedError::Damaged { .. })) {
                report(section.position, "a saved state");
            }
            let mut at = section.kept_at();
            for page in 0..section.pages() {
                let Some(entries) = self.page(&section, page)? else {
                    report(section.page(page).0, "a page of a base");
                    continue;
                };
                for (offset, place) in entries {
                    if place != at {
                        report(place, "a kept record is not where it should be");
                    }
                    match self.kept_at(offset, place)? {
                        Entry::Record(record) => {
                            at = place + (RECORD_HEADER_BYTES + record.payload.len()) as u64;
                        }
                        Entry::Corrupt(_) => report(place, "a kept record"),
                    }
                }
            }
            position = section.end();
        }
        if position != self.directory_at {
            report(position, "a base's directory is not where it should be");
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Header {
    format: u32,
    covered: u64,
    directory_at: u64,
    directory_bytes: u32,
    directory_crc: u32,
}

impl Header {
    fn to_bytes(self, store: u128, generation: u64, seed: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.format.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.directory_crc.to_le_bytes());
        bytes[16..32].copy_from_slice(&store.to_le_bytes());
        bytes[32..40].copy_from_slice(&generation.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.covered.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.directory_at.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.directory_bytes.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn read(raw: &[u8; HEADER_BYTES], store: u128, generation: u64, seed: u32) -> Option<Self> {
        let ours = raw[..8] == MAGIC
            && crc32c::crc32c_append(seed, &raw[..60]) == u32_at(raw, 60)
            && [FORMAT, FORMAT_WITH_RUNS].contains(&u32_at(raw, 8))
            && raw[16..32] == store.to_le_bytes()
            && u64_at(raw, 32) == generation;
        ours.then(|| Self {
            format: u32_at(raw, 8),
            directory_crc: u32_at(raw, 12),
            covered: u64_at(raw, 40),
            directory_at: u64_at(raw, 48),
            directory_bytes: u32_at(raw, 56),
        })
    }

    /// What a whole directory lists: the runs, and the streams.
    fn parts<'a>(&self, directory: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let rest = directory.get(8..).unwrap_or_default();
        if self.format == FORMAT {
            return (&[], rest);
        }
        let runs = usize::try_from(u64_at(directory, 8)).unwrap_or(usize::MAX).saturating_mul(RUN_BYTES);
        rest.get(8..).and_then(|rest| rest.split_at_checked(runs)).unwrap_or_default()
    }
}

fn read_entry(raw: &[u8]) -> (StreamId, Listed) {
    let stream = StreamId(u128_at(raw, 0));
    let flags = u32_at(raw, 36);
    let end = StreamEnd {
        head: Offset(u64_at(raw, 72)),
        first: Offset(u64_at(raw, 24)),
        leaps: u32_at(raw, 32),
        deleted: flags & DELETED != 0,
    };
    let section = (flags & HAS_SECTION != 0).then(|| Place {
        position: u64_at(raw, 40),
        state_bytes: u64_at(raw, 48),
        state_crc: u32_at(raw, 56),
        kept: u32_at(raw, 60),
        kept_bytes: u64_at(raw, 64),
    });
    let as_of = Offset(u64_at(raw, 16));
    (stream, Listed { end, as_of, section, quarantined: flags & QUARANTINED != 0 })
}

fn write_entry(stream: StreamId, listed: &Listed, out: &mut Vec<u8>) {
    let Listed { end, as_of, section, quarantined } = listed;
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let flags =
        flag(end.deleted, DELETED) | flag(section.is_some(), HAS_SECTION) | flag(*quarantined, QUARANTINED);
    let section = section.unwrap_or_default();
    out.extend_from_slice(&stream.0.to_le_bytes());
    out.extend_from_slice(&as_of.0.to_le_bytes());
    out.extend_from_slice(&end.first.0.to_le_bytes());
    out.extend_from_slice(&end.leaps.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&section.position.to_le_bytes());
    out.extend_from_slice(&section.state_bytes.to_le_bytes());
    out.extend_from_slice(&section.state_crc.to_le_bytes());
    out.extend_from_slice(&section.kept.to_le_bytes());
    out.extend_from_slice(&section.kept_bytes.to_le_bytes());
    out.extend_from_slice(&end.head.0.to_le_bytes());
}
