//! Looks at every byte of a stopped broker's store, and names what is damaged. Changes nothing.
//!
//! Opening a store judges only what it must; here nothing is left out: both headers of each segment and the zeros about
//! them, every commit, block and record, the zeros behind the last one, the index beside it, the base with all that it
//! keeps, and the runs of ids that it names.
//!
//! **A limit that stays:** damage to the last commit of a process that was killed within moments of it looks like the
//! torn end of a write. Both are named.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::StreamId;
use super::base::{self, Base};
use super::block::{BLOCK_HEADER_BYTES, BlockHeader, padded};
use super::commit::{COMMIT_HEADER_BYTES, COMMIT_MAGIC, CommitHeader};
use super::disk::Disk;
use super::index::{BlockRef, Index};
use super::record::{RECORD_HEADER_BYTES, RecordHeader};
use super::runs;
use super::scan::{Found, Link, Scan, body_of};
use super::sealed::{self, Sealed};
use super::segment::{CONTENT_START, HEADER_COPIES, SEGMENT_HEADER_BYTES, file_name, number_in, seed};
use super::segments::Segments;
use super::store::{self, OpenError, failed};

/// What was looked at, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// What is damaged, by file and place.
    pub found: Vec<Found>,
    /// Segments of the log.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Streams that they belong to.
    pub streams: u64,
    /// Bytes in all files.
    pub bytes: u64,
}

/// Verifies the store on `disk`.
///
/// # Errors
/// When there is none, another process has it, a newer version wrote it, or the disk refuses.
pub fn verify(disk: &Arc<dyn Disk>) -> Result<Verified, OpenError> {
    let disk = &**disk;
    let mut names = disk.list().map_err(|error| failed(disk, "list", "", error))?;
    names.retain(|name| !name.ends_with(store::UNFINISHED));
    names.sort_unstable();
    if !names.iter().any(|name| name == store::FORMAT_FILE || number_in(name).is_some()) {
        return Err(failed(disk, "open", store::FORMAT_FILE, std::io::ErrorKind::NotFound.into()));
    }
    let lock = disk.lock().map_err(|error| failed(disk, "lock", "", error))?;
    let _lock = lock.ok_or_else(|| OpenError::Locked { place: disk.place("") })?;
    let mut verified = Verified::default();
    let id = match store::read(disk) {
        Ok(id) => id,
        Err(OpenError::Damaged { place, position, what }) => {
            verified.found.push(Found { place, position, what });
            return Ok(verified);
        }
        Err(error) => return Err(error),
    };
    if let Err(error) = store::read_keys(disk) {
        verified.report_or_end(error)?;
    }
    let mut walk =
        Walk { disk, store: id, verified, streams: BTreeMap::new(), dropped: 0, blocks: Vec::new() };
    walk.segments(&names)?;
    walk.bases(&names)?;
    for name in &names {
        let file = disk.open(name).map_err(|error| failed(disk, "open", name, error))?;
        walk.verified.bytes += file.length().map_err(|error| failed(disk, "open", name, error))?;
    }
    let Walk { mut verified, streams, .. } = walk;
    verified.streams = streams.len() as u64;
    verified.found.sort_by(|one, other| (&one.place, one.position).cmp(&(&other.place, other.position)));
    verified.found.dedup();
    Ok(verified)
}

impl Verified {
    fn report_or_end(&mut self, error: OpenError) -> Result<(), OpenError> {
        match error {
            OpenError::Damaged { place, position, what } => {
                self.found.push(Found { place, position, what });
                Ok(())
            }
            error => Err(error),
        }
    }
}

struct Walk<'a> {
    disk: &'a dyn Disk,
    store: u128,
    verified: Verified,
    /// Each stream's last offset so far.
    streams: BTreeMap<StreamId, u64>,
    /// Segments up to this one were given up.
    dropped: u64,
    /// The blocks of the segment that is looked at, as its index should list them.
    blocks: Vec<(StreamId, BlockRef)>,
}

impl Walk<'_> {
    fn report(&mut self, name: &str, position: u64, what: &'static str) {
        self.verified.found.push(Found { place: self.disk.place(name), position, what });
    }

    fn segments(&mut self, names: &[String]) -> Result<(), OpenError> {
        let mut links = BTreeMap::new();
        for name in names.iter().filter(|name| number_in(name).is_some()) {
            let mut scan = Scan {
                disk: self.disk,
                store: self.store,
                new: false,
                trusting: false,
                index: Index::default(),
                segments: Segments::default(),
                found: Vec::new(),
            };
            match scan.segments(std::slice::from_ref(name)) {
                Ok(found) => links.extend(found),
                Err(error) => self.verified.report_or_end(error)?,
            }
            self.verified.found.append(&mut scan.found);
        }
        let scan = Scan {
            disk: self.disk,
            store: self.store,
            new: false,
            trusting: false,
            index: Index::default(),
            segments: Segments::default(),
            found: Vec::new(),
        };
        let chain = scan.chain(&mut links);
        for link in &chain {
            self.segment(link)?;
        }
        if let Some(first) = chain.first()
            && first.header.before.segment > self.dropped
        {
            let missing = first.header.before.segment;
            if !self.base_says_dropped(names, missing)? {
                self.report(&file_name(missing), 0, "the segment is missing");
            }
        }
        Ok(())
    }

    fn base_says_dropped(&self, names: &[String], missing: u64) -> Result<bool, OpenError> {
        for generation in names.iter().filter_map(|name| base::generation_in(name)) {
            let name = base::file_name(generation);
            let opened = Base::open(self.disk, self.store, generation, &mut Vec::new());
            let opened = opened.map_err(|error| failed(self.disk, "read", &name, error))?;
            if opened.is_some_and(|base| base.dropped >= missing) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn segment(&mut self, link: &Link) -> Result<(), OpenError> {
        self.verified.segments += 1;
        let name = file_name(link.header.number);
        let file = self.disk.open(&name).map_err(|error| failed(self.disk, "open", &name, error))?;
        let length = file.length().map_err(|error| failed(self.disk, "open", &name, error))?;
        let content = store::read_start(self.disk, &*file, &name, length)?;
        self.zeros_about_headers(&name, &content);
        let (end, is_last) = match link.end() {
            Some(end) => (end, false),
            None => (length, true),
        };
        if end > length {
            self.report(&name, length, "the segment ends before its end");
        }
        let end = end.min(length);
        let seed = seed(self.store, link.header.number);
        let before = self.verified.found.len();
        self.blocks.clear();
        let mut position = CONTENT_START;
        while position < end {
            let at = usize::try_from(position).unwrap_or(usize::MAX);
            let commit = content.get(at..).and_then(|bytes| CommitHeader::read(bytes, position, seed));
            match commit.filter(|commit| commit.end() <= end) {
                Some(commit) => {
                    self.commit(&name, &content, &commit, seed);
                    position = commit.end();
                }
                None => match next_commit(&content, at + COMMIT_MAGIC.len(), seed) {
                    Some(next) => {
                        self.report(&name, position, "a commit's header, or what stands in its place");
                        position = next;
                    }
                    None if is_last => break,
                    None => {
                        self.report(&name, position, "a commit's header");
                        break;
                    }
                },
            }
        }
        let rest = content.get(usize::try_from(position).unwrap_or(usize::MAX)..).unwrap_or_default();
        if let Some(at) = rest.iter().position(|byte| *byte != 0) {
            self.report(&name, position + at as u64, "something behind the last commit");
        }
        let is_whole = self.verified.found.len() == before;
        self.index_beside(link, is_whole);
        Ok(())
    }

    /// Looks at the index beside a segment, if there is one, and whether it lists what the segment holds.
    fn index_beside(&mut self, link: &Link, segment_is_whole: bool) {
        let number = link.header.number;
        let name = sealed::file_name(number);
        if self.disk.open(&name).is_err() {
            return;
        }
        let lists = |sealed: &Sealed| Some(sealed.end) == link.end() && sealed.blocks == self.blocks;
        match Sealed::find(self.disk, self.store, number) {
            Some(sealed) if !segment_is_whole || lists(&sealed) => {}
            _ => self.report(&name, 0, "the segment's index; it is made anew at the next start"),
        }
    }

    fn zeros_about_headers(&mut self, name: &str, content: &[u8]) {
        for copy in HEADER_COPIES {
            let from = usize::try_from(copy).unwrap_or(usize::MAX).saturating_add(SEGMENT_HEADER_BYTES);
            let to = from - SEGMENT_HEADER_BYTES + 4096;
            let slack = content.get(from..to).unwrap_or_default();
            if let Some(at) = slack.iter().position(|byte| *byte != 0) {
                self.report(name, (from + at) as u64, "something behind one of the segment's two headers");
            }
        }
    }

    fn commit(&mut self, name: &str, content: &[u8], commit: &CommitHeader, seed: u32) {
        let body = body_of(content, commit);
        let before = self.verified.found.len();
        let start = commit.position + COMMIT_HEADER_BYTES as u64;
        let mut at = 0;
        for _ in 0..commit.blocks {
            let place = start + at as u64;
            let header = body.get(at..).and_then(BlockHeader::read);
            let Some((header, block)) =
                header.and_then(|header| Some((header, body.get(at..at + header.bytes())?)))
            else {
                self.report(name, place, "a block's header");
                break;
            };
            self.block(name, place, header, block);
            at += padded(header.bytes());
        }
        if !commit.covers(body, seed) && self.verified.found.len() == before {
            self.report(name, commit.position, "a commit's checksum");
        }
    }

    fn block(&mut self, name: &str, place: u64, header: BlockHeader, block: &[u8]) {
        let listed = number_in(name).and_then(|number| BlockRef::found(&header, number, place));
        self.blocks.extend(listed.map(|block| (header.stream, block)));
        let last = self.streams.entry(header.stream).or_default();
        if header.first.0 <= *last {
            self.report(name, place, "a block's offset");
            return;
        }
        *last = header.first.0 + u64::from(header.records) - 1;
        let mut at = BLOCK_HEADER_BYTES;
        for offset in (header.first.0..).take(header.records as usize) {
            let place = place + at as u64;
            let record = block.get(at..).and_then(RecordHeader::read);
            let Some(record) = record.filter(|record| record.offset.0 == offset) else {
                self.report(name, place, "a record's header");
                return;
            };
            let from = at + RECORD_HEADER_BYTES;
            let payload = block.get(from..from + record.payload_bytes as usize);
            if payload.is_none_or(|payload| crc32c::crc32c(payload) != record.payload_crc) {
                self.report(name, place, "a record");
            }
            self.verified.records += 1;
            at = from + record.payload_bytes as usize;
        }
        if header.stream == StreamId::CONTROL
            && let Some(through) = super::control::dropped_through(block.get(BLOCK_HEADER_BYTES..))
        {
            self.dropped = self.dropped.max(through);
        }
    }

    fn bases(&mut self, names: &[String]) -> Result<(), OpenError> {
        let mut newest = None;
        for generation in names.iter().filter_map(|name| base::generation_in(name)) {
            let name = base::file_name(generation);
            let mut found = Vec::new();
            let opened = Base::open(self.disk, self.store, generation, &mut found);
            let opened = opened.map_err(|error| failed(self.disk, "read", &name, error))?;
            if let Some(base) = opened {
                base.verify(&mut found)
                    .map_err(|error| failed(self.disk, "read", &name, std::io::Error::other(error)))?;
                newest = Some(base);
            }
            self.verified.found.append(&mut found);
        }
        newest.map_or(Ok(()), |base| self.runs(&base))
    }

    /// Looks at the runs that the base names. Others are what a crash has left; the next start removes them.
    fn runs(&mut self, base: &Base) -> Result<(), OpenError> {
        for (stream, run) in base.runs() {
            let name = runs::file_name(run);
            runs::verify(self.disk, self.store, stream, run, &mut self.verified.found)
                .map_err(|error| failed(self.disk, "read", &name, std::io::Error::other(error)))?;
        }
        Ok(())
    }
}

/// Where the next commit begins whose header is whole.
fn next_commit(content: &[u8], from: usize, seed: u32) -> Option<u64> {
    let from = from.next_multiple_of(COMMIT_MAGIC.len());
    let words = content.get(from..).unwrap_or_default().chunks_exact(COMMIT_MAGIC.len()).enumerate();
    let begins = words.filter(|(_, bytes)| *bytes == COMMIT_MAGIC);
    let mut begins = begins.map(|(index, _)| from + index * COMMIT_MAGIC.len());
    begins
        .find(|at| content.get(*at..).and_then(|bytes| CommitHeader::read(bytes, *at as u64, seed)).is_some())
        .map(|at| at as u64)
}
