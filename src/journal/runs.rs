//! A run: ids of one stream that left memory, sorted, in a file that never changes.
//!
//! ```text
//!  byte 0     88                                                                   end
//!       ┌────────┬────────┬────────┬────────┬─ ─ ─┬────────┐
//!       │ header │ filter │ page   │ page   │  …  │ page   │
//!       └────────┴────────┴────────┴────────┴─ ─ ─┴────────┘
//!  the header
//!  byte 0       8        12       16        32       48    56    64      72     80       84
//!       ┌───────┬────────┬────────┬─────────┬────────┬─────┬─────┬───────┬──────┬────────┬────────────┐
//!       │ magic │ format │ filter │ store   │ stream │ run │ ids │ from  │ to   │ CRC of │ CRC32C of  │
//!       │       │ u32    │ bytes  │ id u128 │ u128   │ u64 │ u64 │ u64   │ u64  │ filter │ bytes 0–83 │
//!       └───────┴────────┴────────┴─────────┴────────┴─────┴─────┴───────┴──────┴────────┴────────────┘
//!  the filter: as in `domain::filter`, words of 4 bytes
//!  a page:     up to 170 of (id u128, offset u64), ascending by the id │ CRC32C
//! ```
//!
//! Numbers are little-endian; `from` and `to` are the messages' own times. All checksums are seeded with the store's id
//! and the run's number. An id takes 25.5 bytes: 24 in its page, 1.5 in the filter.
//!
//! A base names the runs of each stream: who opens the store removes all others, which a crash has left between a run
//! and its base. No number is used twice by what any base may name.
//!
//! **Invariants.** A run is written to a temporary file, synced, read back whole, and only then gets its name; the
//! directory is synced before the base that names it gets its own. A damaged page costs its ids, which then count as
//! unseen, and nothing else.

use std::io;
use std::sync::Arc;

use super::StreamId;
use super::disk::{Disk, DiskFile};
use super::record::{u32_at, u64_at, u128_at};
use super::scan::Found;
use super::store::UNFINISHED;
use crate::domain::filter::Filter;
use crate::domain::fingerprint::Fingerprint;
use crate::domain::ids::{Offset, Timestamp};
use crate::domain::recent_ids::RunId;

const MAGIC: [u8; 8] = *b"\xffSLRUN\xff\x01";
const FORMAT: u32 = 1;
const SUFFIX: &str = ".run";
const HEADER_BYTES: usize = 88;
const HEADER_CHECKED: usize = 84;
/// Ids in a page: one read of 4 KiB.
const PAGE_IDS: usize = 170;
const ID_BYTES: usize = 24;
const CRC_BYTES: usize = 4;
const PAGE_BYTES: usize = PAGE_IDS * ID_BYTES + CRC_BYTES;
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

/// Why a run, or a part of it, can not be had. Its ids count as unseen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// There is no such file.
    #[error("the ids in {place} are missing")]
    Missing {
        /// The file.
        place: String,
    },
    /// A checksum does not match, or it is another stream's.
    #[error("the ids in {place} are damaged at byte {position}")]
    Damaged {
        /// The file.
        place: String,
        /// Where in it.
        position: u64,
    },
    /// The disk refused.
    #[error("the ids in {place} can not be read")]
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
    /// Whose ids.
    pub stream: StreamId,
    /// The earliest of their own times.
    pub from: Timestamp,
    /// The latest of their own times.
    pub to: Timestamp,
    /// Each once with its record, ascending.
    pub ids: &'a [(Fingerprint, Offset)],
}

/// Writes a run, and gives its filter. Its name is sure to stay only once the directory is synced.
pub(super) fn write(
    disk: &dyn Disk,
    store: u128,
    run: RunId,
    of: &RunOf<'_>,
    sync: bool,
) -> io::Result<Filter> {
    debug_assert!(of.ids.is_sorted_by(|one, next| one.0 < next.0), "each id once, ascending");
    // No file has this name: the number is a new one.
    let unfinished = unfinished(run);
    let filter = Filter::of(of.ids.iter().map(|(id, _)| *id), of.ids.len());
    let file = disk.create(&unfinished)?;
    let put = || {
        let seed = seed(store, run);
        let mut buffer = Vec::with_capacity(WRITE_BYTES + PAGE_BYTES);
        let mut raw = Vec::with_capacity(filter.bytes());
        filter.write(&mut raw);
        let header = Header {
            stream: of.stream,
            ids: of.ids.len() as u64,
            from: of.from,
            to: of.to,
            filter_bytes: u32::try_from(raw.len()).map_err(io::Error::other)?,
            filter_crc: crc32c::crc32c_append(seed, &raw),
        };
        buffer.extend_from_slice(&header.to_bytes(store, run, seed));
        buffer.extend_from_slice(&raw);
        let mut position = 0;
        for page in of.ids.chunks(PAGE_IDS) {
            let start = buffer.len();
            for (id, offset) in page {
                buffer.extend_from_slice(&id.as_u128().to_le_bytes());
                buffer.extend_from_slice(&offset.0.to_le_bytes());
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

#[derive(Debug, Clone, Copy)]
struct Header {
    stream: StreamId,
    ids: u64,
    from: Timestamp,
    to: Timestamp,
    filter_bytes: u32,
    filter_crc: u32,
}

impl Header {
    fn to_bytes(self, store: u128, run: RunId, seed: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.filter_bytes.to_le_bytes());
        bytes[16..32].copy_from_slice(&store.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.stream.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&run.0.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.ids.to_le_bytes());
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
            && u32_at(raw, 8) == FORMAT
            && u128_at(raw, 16) == store
            && u64_at(raw, 48) == run.0;
        ours.then(|| Self {
            stream: StreamId(u128_at(raw, 32)),
            ids: u64_at(raw, 56),
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

    /// The record that an id comes from; none where the run does not have it.
    pub(super) fn find(&self, id: Fingerprint) -> Result<Option<Offset>, RunError> {
        let (mut low, mut high) = (0, self.pages());
        while low < high {
            let middle = low.midpoint(high);
            let page = self.page(middle)?;
            let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(None) };
            if id < first.0 {
                high = middle;
            } else if id > last.0 {
                low = middle + 1;
            } else {
                let found = page.binary_search_by_key(&id, |(known, _)| *known).ok();
                return Ok(found.and_then(|at| page.get(at)).map(|(_, offset)| *offset));
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
            let ids = match self.page(page) {
                Ok(ids) => ids,
                Err(RunError::Damaged { position, .. }) => {
                    report(position, "a page of a run");
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !ids.iter().all(|(id, _)| before.replace(*id).is_none_or(|before| before < *id)) {
                report(self.page_at(page), "the ids of a run are not in order");
            }
        }
        let length = self.file.length().map_err(|error| self.refused(error))?;
        if length != self.end() {
            report(length.min(self.end()), "a run that does not end where it should");
        }
        Ok(())
    }

    fn pages(&self) -> u64 {
        self.header.ids.div_ceil(PAGE_IDS as u64)
    }

    fn page_at(&self, page: u64) -> u64 {
        let pages_at = HEADER_BYTES as u64 + u64::from(self.header.filter_bytes);
        pages_at.saturating_add(page.saturating_mul(PAGE_BYTES as u64))
    }

    fn end(&self) -> u64 {
        self.page_at(0) + self.header.ids * ID_BYTES as u64 + self.pages() * CRC_BYTES as u64
    }

    fn page(&self, page: u64) -> Result<Vec<(Fingerprint, Offset)>, RunError> {
        let left = self.header.ids.saturating_sub(page.saturating_mul(PAGE_IDS as u64));
        let ids = usize::try_from(left).unwrap_or(PAGE_IDS).min(PAGE_IDS) * ID_BYTES;
        let mut raw = vec![0; ids + CRC_BYTES];
        let position = self.page_at(page);
        let whole = self.fill(&mut raw, position)?
            && crc32c::crc32c_append(self.seed, raw.get(..ids).unwrap_or_default()) == u32_at(&raw, ids);
        if !whole {
            return Err(self.damaged(position));
        }
        let ids = raw.get(..ids).unwrap_or_default().chunks_exact(ID_BYTES);
        Ok(ids.map(|raw| (Fingerprint::from_u128(u128_at(raw, 0)), Offset(u64_at(raw, 16)))).collect())
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
    use crate::domain::fingerprint::Key;
    use crate::domain::ids::MessageId;
    use crate::journal::sim_disk::SimDisk;

    const STORE: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;
    const STREAM: StreamId = StreamId(u128::MAX - 1);
    const RUN: RunId = RunId(3 << 16 | 2);

    fn id(n: u64) -> Fingerprint {
        Key::new([9; 16]).message_id(&MessageId::trusted(&format!("wamid.{n}")))
    }

    /// A disk with one run of ids 0 to `count`, each from the record of the next offset.
    fn written(count: u64) -> (SimDisk, Filter) {
        let disk = SimDisk::new(1);
        let mut ids: Vec<_> = (0..count).map(|n| (id(n), Offset(n + 1))).collect();
        ids.sort_unstable();
        let of = RunOf { stream: STREAM, from: Timestamp(5), to: Timestamp(6), ids: &ids };
        let filter = write(&disk, STORE, RUN, &of, true).unwrap();
        (disk, filter)
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
                assert_eq!(run.find(id(n)).unwrap(), Some(Offset(n + 1)), "id {n} of {count}");
            }
            for n in count..count + 500 {
                assert_eq!(run.find(id(n)).unwrap(), None);
            }
            assert_eq!(found(&disk), []);
            assert!(disk.list().unwrap().iter().eq([&file_name(RUN)]), "nothing unfinished is left");
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
                match open(&disk).and_then(|run| run.find(id(n))) {
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
