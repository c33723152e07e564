//! A run: rows of one stream that left memory, sorted by their keys, in a file that never changes.
//!
//! ```text
//!  byte 0     88                                                                   end
//!       ┌────────┬────────┬────────┬────────┬─ ─ ─┬────────┐
//!       │ header │ filter │ page   │ page   │  …  │ page   │
//!       └────────┴────────┴────────┴────────┴─ ─ ─┴────────┘
//!  the header
//!  byte 0       8        12       16        32       48    56    64      72     80       84
//!       ┌───────┬────────┬────────┬─────────┬────────┬─────┬──────┬───────┬──────┬────────┬────────────┐
//!       │ magic │ format │ filter │ store   │ stream │ run │ rows │ from  │ to   │ CRC of │ CRC32C of  │
//!       │       │ 2×u16  │ bytes  │ id u128 │ u128   │ u64 │ u64  │ u64   │ u64  │ filter │ bytes 0–83 │
//!       └───────┴────────┴────────┴─────────┴────────┴─────┴──────┴───────┴──────┴────────┴────────────┘
//!  the format: 1 and 0 where every value is the offset of a record, u64; else 2 and the bytes of each value
//!  the filter: as in `domain::filter`, words of 4 bytes
//!  a page:     as many of (key u128, value) as there is room for in 4,080 bytes, ascending by the key │ CRC32C
//! ```
//!
//! Numbers are little-endian; `from` and `to` are the rows' own times. All checksums are seeded with the store's id
//! and the run's number. A message's id takes 25.5 bytes: 24 in its page, 1.5 in the filter.
//!
//! A base names the runs of each stream: who opens the store removes all others, which a crash has left between a run
//! and its base. No number is used twice by what any base may name.
//!
//! **Invariants.** A run is written to a temporary file, synced, read back whole, and only then gets its name; the
//! directory is synced before the base that names it gets its own. A damaged page costs its rows, which then count as
//! unseen, and nothing else.

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;

use super::StreamId;
use super::disk::{Disk, DiskFile};
use super::record::{u16_at, u32_at, u64_at, u128_at};
use super::scan::Found;
use super::store::UNFINISHED;
use crate::domain::aside::{Rows, RunId};
use crate::domain::filter::Filter;
use crate::domain::fingerprint::Fingerprint;
use crate::domain::ids::Timestamp;

const MAGIC: [u8; 8] = *b"\xffSLRUN\xff\x01";
const FORMAT: u16 = 1;
const FORMAT_WITH_VALUES: u16 = 2;
const SUFFIX: &str = ".run";
const HEADER_BYTES: usize = 88;
const HEADER_CHECKED: usize = 84;
/// Room for rows in a page: with its checksum one read of 4 KiB. A row alone may take more.
const PAGE_ROOM: usize = 4_080;
const KEY_BYTES: usize = 16;
/// A value that is the offset of a record.
const RECORD_BYTES: u16 = 8;
const CRC_BYTES: usize = 4;
/// What is written at a time, in bytes.
const WRITE_BYTES: usize = 1 << 20;
/// Most runs that are written for one base; what else may be laid aside waits for the next.
pub(super) const RUNS_OF_BASE_MAX: u64 = 1 << 16;

/// The number of the first run that is written for a base: higher than any that a base before it names, and than any
/// whose file is there, since a base that could not be installed may yet be found by the next start.
pub(super) fn first_number(generation: u64, names: &[String]) -> RunId {
    let highest =
        names.iter().filter_map(|name| number_in(name.strip_suffix(UNFINISHED).unwrap_or(name))).max();
    let first = generation.saturating_mul(RUNS_OF_BASE_MAX);
    RunId(highest.map_or(first, |highest| first.max(highest.0.saturating_add(1))))
}

/// Whether a run may have been written for a base of a later generation than this.
pub(super) fn is_later(run: RunId, generation: u64) -> bool {
    run.0 / RUNS_OF_BASE_MAX > generation
}

/// Whether a run was written for the base of this generation.
pub(super) fn is_of(run: RunId, generation: u64) -> bool {
    run.0 / RUNS_OF_BASE_MAX == generation
}

/// The name of a run's file.
pub(super) fn file_name(run: RunId) -> String {
    format!("{run}{SUFFIX}")
}

/// What it is called until it is whole.
pub(super) fn unfinished(run: RunId) -> String {
    format!("{}{UNFINISHED}", file_name(run))
}

/// The run's number in such a name; none if it is another file's.
pub(super) fn number_in(name: &str) -> Option<RunId> {
    let run = RunId(u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?);
    (file_name(run) == name).then_some(run)
}

fn seed(store: u128, run: RunId) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&store.to_le_bytes()), &run.0.to_be_bytes())
}

/// Why a run, or a part of it, can not be had. Its rows count as unseen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// There is no such file.
    #[error("what was laid aside in {place} is missing")]
    Missing {
        /// The file.
        place: String,
    },
    /// A checksum does not match, or it is another stream's.
    #[error("what was laid aside in {place} is damaged at byte {position}")]
    Damaged {
        /// The file.
        place: String,
        /// Where in it.
        position: u64,
    },
    /// The disk refused.
    #[error("what was laid aside in {place} can not be read")]
    Io {
        /// The file.
        place: String,
        /// Why.
        #[source]
        error: Arc<io::Error>,
    },
}

/// What a run is made of.
#[derive(Debug, Clone, Copy)]
pub struct RunOf<'a> {
    /// Whose rows.
    pub stream: StreamId,
    /// The earliest of their own times.
    pub from: Timestamp,
    /// The latest of their own times.
    pub to: Timestamp,
    /// The rows.
    pub rows: &'a Rows,
}

/// Writes a run, and gives its filter. Its name is sure to stay only once the directory is synced.
pub(super) fn write(
    disk: &dyn Disk,
    store: u128,
    run: RunId,
    of: &RunOf<'_>,
    sync: bool,
) -> io::Result<Filter> {
    // No file has this name: the number is a new one.
    let unfinished = unfinished(run);
    let filter = Filter::of(of.rows.keys().iter().copied(), of.rows.len());
    let file = disk.create(&unfinished)?;
    let put = || {
        let seed = seed(store, run);
        let shape = Shape { value_bytes: u16::try_from(of.rows.value_bytes()).map_err(io::Error::other)? };
        let mut buffer = Vec::with_capacity(WRITE_BYTES + shape.page_bytes());
        let mut raw = Vec::with_capacity(filter.bytes());
        filter.write(&mut raw);
        let header = Header {
            stream: of.stream,
            shape,
            rows: of.rows.len() as u64,
            from: of.from,
            to: of.to,
            filter_bytes: u32::try_from(raw.len()).map_err(io::Error::other)?,
            filter_crc: crc32c::crc32c_append(seed, &raw),
        };
        buffer.extend_from_slice(&header.to_bytes(store, run, seed));
        buffer.extend_from_slice(&raw);
        let mut position = 0;
        let mut rows = of.rows.iter();
        while rows.len() > 0 {
            let start = buffer.len();
            for (key, value) in rows.by_ref().take(shape.page_rows()) {
                buffer.extend_from_slice(&key.as_u128().to_le_bytes());
                buffer.extend_from_slice(value);
            }
            let crc = crc32c::crc32c_append(seed, buffer.get(start..).unwrap_or_default());
            buffer.extend_from_slice(&crc.to_le_bytes());
            if buffer.len() >= WRITE_BYTES {
                file.write_at(&buffer, position)?;
                position += buffer.len() as u64;
                buffer.clear();
            }
        }
        file.write_at(&buffer, position)?;
        if sync {
            file.sync()?;
        }
        let mut found = Vec::new();
        let place = disk.place(&file_name(run));
        match Run::read(Arc::clone(&file), place, store, of.stream, run) {
            Ok(read) => read.verify(&mut found).map_err(io::Error::other)?,
            Err(error) => return Err(io::Error::other(error)),
        }
        if !found.is_empty() {
            return Err(io::Error::other("a run reads back damaged"));
        }
        disk.rename(&unfinished, &file_name(run))
    };
    if let Err(error) = put() {
        // It takes room that others need; a start removes it as well.
        let _ = disk.remove(&unfinished);
        return Err(error);
    }
    Ok(filter)
}

/// How rows lie in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    value_bytes: u16,
}

impl Shape {
    const fn row_bytes(self) -> usize {
        KEY_BYTES + self.value_bytes as usize
    }

    /// Rows in a whole page.
    fn page_rows(self) -> usize {
        (PAGE_ROOM / self.row_bytes()).max(1)
    }

    /// A whole page.
    fn page_bytes(self) -> usize {
        self.page_rows() * self.row_bytes() + CRC_BYTES
    }

    /// As the header says it: records in the format that is older than other values.
    const fn format(self) -> (u16, u16) {
        match self.value_bytes {
            RECORD_BYTES => (FORMAT, 0),
            value_bytes => (FORMAT_WITH_VALUES, value_bytes),
        }
    }

    const fn of(format: (u16, u16)) -> Option<Self> {
        match format {
            (FORMAT, 0) => Some(Self { value_bytes: RECORD_BYTES }),
            (FORMAT_WITH_VALUES, value_bytes) => Some(Self { value_bytes }),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Header {
    stream: StreamId,
    shape: Shape,
    rows: u64,
    from: Timestamp,
    to: Timestamp,
    filter_bytes: u32,
    filter_crc: u32,
}

impl Header {
    fn to_bytes(self, store: u128, run: RunId, seed: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        let (format, value_bytes) = self.shape.format();
        bytes[8..10].copy_from_slice(&format.to_le_bytes());
        bytes[10..12].copy_from_slice(&value_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.filter_bytes.to_le_bytes());
        bytes[16..32].copy_from_slice(&store.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.stream.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&run.0.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.rows.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.from.0.to_le_bytes());
        bytes[72..80].copy_from_slice(&self.to.0.to_le_bytes());
        bytes[80..84].copy_from_slice(&self.filter_crc.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &bytes[..HEADER_CHECKED]);
        bytes[84..88].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn read(raw: &[u8; HEADER_BYTES], store: u128, run: RunId, seed: u32) -> Option<Self> {
        let ours = raw[..8] == MAGIC
            && crc32c::crc32c_append(seed, &raw[..HEADER_CHECKED]) == u32_at(raw, HEADER_CHECKED)
            && u128_at(raw, 16) == store
            && u64_at(raw, 48) == run.0;
        let shape = Shape::of((u16_at(raw, 8), u16_at(raw, 10))).filter(|_| ours);
        shape.map(|shape| Self {
            stream: StreamId(u128_at(raw, 32)),
            shape,
            rows: u64_at(raw, 56),
            from: Timestamp(u64_at(raw, 64)),
            to: Timestamp(u64_at(raw, 72)),
            filter_bytes: u32_at(raw, 12),
            filter_crc: u32_at(raw, 80),
        })
    }
}

/// An open run.
#[derive(Debug)]
pub(super) struct Run {
    file: Arc<dyn DiskFile>,
    place: String,
    seed: u32,
    header: Header,
}

impl Run {
    /// Opens a stream's run.
    pub(super) fn open(disk: &dyn Disk, store: u128, stream: StreamId, run: RunId) -> Result<Self, RunError> {
        let name = file_name(run);
        let place = disk.place(&name);
        match disk.open(&name) {
            Ok(file) => Self::read(file, place, store, stream, run),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(RunError::Missing { place }),
            Err(error) => Err(RunError::Io { place, error: Arc::new(error) }),
        }
    }

    fn read(
        file: Arc<dyn DiskFile>,
        place: String,
        store: u128,
        stream: StreamId,
        run: RunId,
    ) -> Result<Self, RunError> {
        let seed = seed(store, run);
        let mut raw = [0; HEADER_BYTES];
        let whole = fill(&*file, &place, &mut raw, 0)?;
        let header = whole.then(|| Header::read(&raw, store, run, seed)).flatten();
        match header.filter(|header| header.stream == stream) {
            Some(header) => Ok(Self { file, place, seed, header }),
            None => Err(RunError::Damaged { place, position: 0 }),
        }
    }

    /// What may be in it.
    pub(super) fn filter(&self) -> Result<Filter, RunError> {
        let mut raw = vec![0; self.header.filter_bytes as usize];
        let whole = self.fill(&mut raw, HEADER_BYTES as u64)?
            && crc32c::crc32c_append(self.seed, &raw) == self.header.filter_crc;
        let filter = whole.then(|| Filter::read(&raw)).flatten();
        filter.ok_or_else(|| self.damaged(HEADER_BYTES as u64))
    }

    /// The value of a key; none where the run does not have it.
    pub(super) fn find(&self, key: Fingerprint) -> Result<Option<Vec<u8>>, RunError> {
        let (mut low, mut high) = (0, self.pages());
        while low < high {
            let middle = low.midpoint(high);
            let page = self.page(middle)?;
            let (Some(first), Some(last)) = (page.key(0), page.key(page.len().saturating_sub(1))) else {
                return Ok(None);
            };
            if key < first {
                high = middle;
            } else if key > last {
                low = middle + 1;
            } else {
                return Ok(page.find(key).map(<[u8]>::to_vec));
            }
        }
        Ok(None)
    }

    /// Checks every byte; names what does not check out.
    pub(super) fn verify(&self, found: &mut Vec<Found>) -> Result<(), RunError> {
        let mut report = |position, what| found.push(Found { place: self.place.clone(), position, what });
        match self.filter() {
            Ok(_) => {}
            Err(RunError::Damaged { position, .. }) => report(position, "a run's filter"),
            Err(error) => return Err(error),
        }
        let mut before = None;
        for page in 0..self.pages() {
            let rows = match self.page(page) {
                Ok(rows) => rows,
                Err(RunError::Damaged { position, .. }) => {
                    report(position, "a page of a run");
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !rows.keys().all(|key| before.replace(key).is_none_or(|before| before < key)) {
                report(self.page_at(page), "the rows of a run are not in order");
            }
        }
        let length = self.file.length().map_err(|error| self.refused(error))?;
        if length != self.end() {
            report(length.min(self.end()), "a run that does not end where it should");
        }
        Ok(())
    }

    fn pages(&self) -> u64 {
        self.header.rows.div_ceil(self.header.shape.page_rows() as u64)
    }

    fn page_at(&self, page: u64) -> u64 {
        let pages_at = HEADER_BYTES as u64 + u64::from(self.header.filter_bytes);
        pages_at.saturating_add(page.saturating_mul(self.header.shape.page_bytes() as u64))
    }

    fn end(&self) -> u64 {
        let rows = self.header.rows.saturating_mul(self.header.shape.row_bytes() as u64);
        self.page_at(0).saturating_add(rows).saturating_add(self.pages().saturating_mul(CRC_BYTES as u64))
    }

    fn page(&self, page: u64) -> Result<Page, RunError> {
        let shape = self.header.shape;
        let left = self.header.rows.saturating_sub(page.saturating_mul(shape.page_rows() as u64));
        let rows = usize::try_from(left).unwrap_or(usize::MAX).min(shape.page_rows());
        let bytes = rows * shape.row_bytes();
        let mut raw = vec![0; bytes + CRC_BYTES];
        let position = self.page_at(page);
        let whole = self.fill(&mut raw, position)?
            && crc32c::crc32c_append(self.seed, raw.get(..bytes).unwrap_or_default()) == u32_at(&raw, bytes);
        if !whole {
            return Err(self.damaged(position));
        }
        raw.truncate(bytes);
        Ok(Page { raw, row_bytes: shape.row_bytes() })
    }

    fn fill(&self, bytes: &mut [u8], position: u64) -> Result<bool, RunError> {
        fill(&*self.file, &self.place, bytes, position)
    }

    fn damaged(&self, position: u64) -> RunError {
        RunError::Damaged { place: self.place.clone(), position }
    }

    fn refused(&self, error: io::Error) -> RunError {
        RunError::Io { place: self.place.clone(), error: Arc::new(error) }
    }
}

/// The rows of a page.
struct Page {
    raw: Vec<u8>,
    row_bytes: usize,
}

impl Page {
    fn len(&self) -> usize {
        self.raw.len() / self.row_bytes
    }

    fn row(&self, at: usize) -> Option<&[u8]> {
        self.raw.get(at * self.row_bytes..(at + 1) * self.row_bytes)
    }

    fn key(&self, at: usize) -> Option<Fingerprint> {
        self.row(at).map(|row| Fingerprint::from_u128(u128_at(row, 0)))
    }

    fn keys(&self) -> impl Iterator<Item = Fingerprint> {
        (0..self.len()).filter_map(|at| self.key(at))
    }

    /// The value of a key.
    fn find(&self, key: Fingerprint) -> Option<&[u8]> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle)?.cmp(&key) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return self.row(middle)?.get(KEY_BYTES..),
            }
        }
        None
    }
}

/// Fills `bytes`; says whether the file has so many.
fn fill(file: &dyn DiskFile, place: &str, bytes: &mut [u8], position: u64) -> Result<bool, RunError> {
    match file.read_at(bytes, position) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(RunError::Io { place: place.to_owned(), error: Arc::new(error) }),
    }
}

/// Looks at every byte of a run that a base names; names what is damaged, or that it is missing.
pub(super) fn verify(
    disk: &dyn Disk,
    store: u128,
    stream: StreamId,
    run: RunId,
    found: &mut Vec<Found>,
) -> Result<(), RunError> {
    match Run::open(disk, store, stream, run).and_then(|run| run.verify(found)) {
        Err(RunError::Missing { place }) => {
            found.push(Found { place, position: 0, what: "a run is missing" })
        }
        Err(RunError::Damaged { place, position }) => {
            found.push(Found { place, position, what: "a run's header" });
        }
        verified => return verified,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::aside::record_in;
    use crate::domain::fingerprint::Key;
    use crate::domain::ids::{MessageId, Offset};
    use crate::journal::sim_disk::SimDisk;

    const STORE: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;
    const STREAM: StreamId = StreamId(u128::MAX - 1);
    const RUN: RunId = RunId(3 << 16 | 2);

    fn id(n: u64) -> Fingerprint {
        Key::new([9; 16]).message_id(&MessageId::trusted(&format!("wamid.{n}")))
    }

    /// A disk with a run of these rows.
    fn with(rows: &Rows) -> (SimDisk, Filter) {
        let disk = SimDisk::new(1);
        let of = RunOf { stream: STREAM, from: Timestamp(5), to: Timestamp(6), rows };
        let filter = write(&disk, STORE, RUN, &of, true).unwrap();
        (disk, filter)
    }

    /// A disk with one run of ids 0 to `count`, each from the record of the next offset.
    fn written(count: u64) -> (SimDisk, Filter) {
        with(&Rows::of_records((0..count).map(|n| (id(n), Offset(n + 1))).collect()))
    }

    fn record(run: &Run, n: u64) -> Result<Option<Offset>, RunError> {
        run.find(id(n)).map(|value| value.as_deref().and_then(record_in))
    }

    fn open(disk: &SimDisk) -> Result<Run, RunError> {
        Run::open(disk, STORE, STREAM, RUN)
    }

    fn found(disk: &SimDisk) -> Vec<Found> {
        let mut found = Vec::new();
        verify(disk, STORE, STREAM, RUN, &mut found).unwrap();
        found
    }

    #[test]
    fn every_id_is_found_with_its_record_and_no_other_is() {
        for count in [0, 1, 169, 170, 171, 5_000] {
            let (disk, filter) = written(count);
            let run = open(&disk).unwrap();
            assert_eq!(run.filter().unwrap(), filter);
            for n in 0..count {
                assert_eq!(record(&run, n).unwrap(), Some(Offset(n + 1)), "id {n} of {count}");
            }
            for n in count..count + 500 {
                assert_eq!(record(&run, n).unwrap(), None);
            }
            assert_eq!(found(&disk), []);
            assert!(disk.list().unwrap().iter().eq([&file_name(RUN)]), "nothing unfinished is left");
        }
    }

    #[test]
    fn values_of_every_width_are_found_and_their_flipped_bytes_named() {
        for width in [0, 1, 12, 62, 300, 5_000] {
            let value = |n: u8| vec![n | 1; width];
            let mut keys: Vec<(Fingerprint, u8)> = (0..150).map(|n| (id(n.into()), n)).collect();
            keys.sort_unstable();
            let mut rows = Rows::new(width, 150);
            keys.iter().for_each(|(key, n)| rows.push(*key, &value(*n)));
            let (disk, _) = with(&rows);
            let run = open(&disk).unwrap();
            for n in 0..150 {
                assert_eq!(run.find(id(n.into())).unwrap(), Some(value(n)), "{n} of values of {width} bytes");
            }
            assert_eq!(run.find(id(150)).unwrap(), None);
            assert_eq!(found(&disk), []);
            let name = file_name(RUN);
            let bytes = disk.snapshot()[&name].len() as u64;
            for byte in (0..bytes).step_by(if width > 62 { 997 } else { 7 }) {
                disk.flip(&name, byte, 3);
                assert!(!found(&disk).is_empty(), "byte {byte}");
                disk.flip(&name, byte, 3);
            }
        }
    }

    #[test]
    fn an_id_takes_25_and_a_half_bytes_on_disk() {
        let (disk, filter) = written(100_000);
        let bytes = disk.snapshot()[&file_name(RUN)].len();
        assert_eq!((bytes * 100 / 100_000, filter.bytes() * 100 / 100_000), (2_552, 150));
    }

    #[test]
    fn every_flipped_byte_is_named_and_no_wrong_record_is_found() {
        let (disk, _) = written(200);
        let name = file_name(RUN);
        let bytes = disk.snapshot()[&name].len() as u64;
        for byte in 0..bytes {
            disk.flip(&name, byte, u8::try_from(byte % 8).unwrap());
            assert!(!found(&disk).is_empty(), "byte {byte}");
            for n in [0, 50, 199] {
                match open(&disk).and_then(|run| record(&run, n)) {
                    Ok(Some(record)) => assert_eq!(record, Offset(n + 1), "byte {byte}"),
                    Ok(None) => panic!("byte {byte} hides id {n} without a word"),
                    Err(RunError::Damaged { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            disk.flip(&name, byte, u8::try_from(byte % 8).unwrap());
        }
        assert_eq!(found(&disk), []);
    }

    #[test]
    fn one_that_is_cut_or_goes_on_or_is_gone_or_is_anothers_is_named() {
        let (disk, _) = written(200);
        let name = file_name(RUN);
        let file = disk.open(&name).unwrap();
        let bytes = file.length().unwrap();
        file.set_length(bytes + 1).unwrap();
        assert_eq!(found(&disk).len(), 1);
        for end in [0, 87, 88, 200, bytes - 1] {
            file.set_length(end).unwrap();
            assert!(!found(&disk).is_empty(), "cut at {end}");
        }
        let (disk, _) = written(200);
        for (store, stream, run) in
            [(STORE + 1, STREAM, RUN), (STORE, StreamId(1), RUN), (STORE, STREAM, RunId(9))]
        {
            let (disk, _) = written(200);
            if run != RUN {
                disk.rename(&file_name(RUN), &file_name(run)).unwrap();
            }
            assert!(matches!(Run::open(&disk, store, stream, run), Err(RunError::Damaged { .. })));
        }
        disk.remove(&name).unwrap();
        assert!(matches!(open(&disk), Err(RunError::Missing { .. })));
        assert_eq!(found(&disk).len(), 1);
    }

    #[test]
    fn numbers_and_file_names_are_read_strictly() {
        assert_eq!(number_in(&file_name(RunId(0xabc))), Some(RunId(0xabc)));
        for wrong in ["1.run", "0000000000000ABC.run", "0000000000000001.run.tmp", "0000000000000001.base"] {
            assert_eq!(number_in(wrong), None, "{wrong}");
        }
        assert!(is_of(RUN, 3) && !is_of(RUN, 2));
        assert!(is_later(RUN, 2) && !is_later(RUN, 3));
        assert_eq!(first_number(3, &[]), RunId(3 << 16));
        assert_eq!(first_number(3, &[file_name(RUN), file_name(RunId(1 << 16))]), RunId(RUN.0 + 1));
        assert_eq!(first_number(4, &[unfinished(RUN)]), RunId(4 << 16));
    }
}
