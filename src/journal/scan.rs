//! Reading a log as it lies on the disk: segments, their chain, their commits, and where the newest one ends. Changes
//! nothing but the index that it fills; [`super::recovery`] decides what becomes of it.

use std::collections::BTreeMap;

use super::block::{BLOCK_HEADER_BYTES, BlockHeader, padded};
use super::commit::{COMMIT_HEADER_BYTES, COMMIT_MAGIC, CommitHeader};
use super::disk::{Disk, DiskFile};
use super::index::{BlockRef, Index};
use super::record::RecordHeader;
use super::sealed::Sealed;
use super::segment::{
    CONTENT_START, HEADER_COPIES, HeaderFault, Position, SEGMENT_HEADER_BYTES, SegmentHeader, file_name,
    number_in, seed,
};
use super::segments::Segments;
use super::store::{self, OpenError, damaged, failed, read_start};
use super::{StreamId, control};

/// Something that was found damaged and that the store could be opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub place: String,
    /// Where in it.
    pub position: u64,
    /// What is wrong.
    pub what: &'static str,
}

/// One segment of the chain.
pub(super) struct Link {
    pub(super) header: SegmentHeader,
    /// Where the log goes over to the next segment, and the number of the last commit before that; none for the newest.
    end: Option<(u64, u64)>,
}

impl Link {
    /// Where the log goes over to the next segment; none for the newest.
    pub(super) fn end(&self) -> Option<u64> {
        self.end.map(|(end, _)| end)
    }

    /// How many leaps the store had made when what lies at `position` was first written.
    fn leaps_at(&self, position: u64) -> u32 {
        let is_rewritten = position < self.header.written_through;
        if is_rewritten { self.header.leaps_of_rewritten } else { self.header.leaps }
    }
}

/// What is known of the end of the newest segment.
pub(super) struct Tail {
    /// Commits past the last proof, with the place of their bodies.
    pub(super) unproven: Vec<CommitHeader>,
    /// Where the proven part ends.
    pub(super) end: Position,
    /// The number of the last commit before that.
    pub(super) last_commit: u64,
    /// Whether the segment holds a block before that.
    pub(super) has_blocks: bool,
    pub(super) clean: bool,
}

/// Reads the log of one store.
pub(super) struct Scan<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) store: u128,
    /// Whether the store is being made: nothing can be expected of its files.
    pub(super) new: bool,
    /// Takes every valid commit of the newest segment for synced; for the test of the tests.
    pub(super) trusting: bool,
    pub(super) index: Index,
    pub(super) segments: Segments,
    pub(super) found: Vec<Found>,
}

impl Scan<'_> {
    /// All segments by number, with their headers.
    pub(super) fn segments(&mut self, names: &[String]) -> Result<BTreeMap<u64, Link>, OpenError> {
        let mut segments = BTreeMap::new();
        for (name, number) in names.iter().filter_map(|name| Some((name, number_in(name)?))) {
            let file = self.disk.open(name).map_err(|error| failed(self.disk, "open", name, error))?;
            // In a store that is still being made nothing can be expected of a file.
            match self.header(name, number, &*file) {
                Ok(header) => segments.insert(number, Link { header, end: None }),
                Err(OpenError::Damaged { .. }) if self.new => {
                    return Err(store::format_is_missing(self.disk));
                }
                Err(error) => return Err(error),
            };
        }
        Ok(segments)
    }

    /// Reads a segment's header from whichever copy is whole.
    fn header(&mut self, name: &str, number: u64, file: &dyn DiskFile) -> Result<SegmentHeader, OpenError> {
        let length = file.length().map_err(|error| failed(self.disk, "open", name, error))?;
        if length < CONTENT_START {
            return Err(damaged(self.disk, name, length, "it is shorter than its headers"));
        }
        let mut header = None;
        for copy in HEADER_COPIES {
            let mut raw = [0; SEGMENT_HEADER_BYTES];
            file.read_at(&mut raw, copy).map_err(|error| failed(self.disk, "read", name, error))?;
            match SegmentHeader::read(&raw) {
                Ok(read) => {
                    header.get_or_insert(read);
                }
                Err(HeaderFault::Newer(found)) => {
                    return Err(OpenError::Newer { place: self.disk.place(name), found: u64::from(found) });
                }
                Err(HeaderFault::Damaged) => self.report(name, copy, "one of the segment's two headers"),
            }
        }
        let header = header.ok_or_else(|| damaged(self.disk, name, 0, "both of the segment's headers"))?;
        if header.number != number || header.before.segment >= number {
            return Err(damaged(self.disk, name, 0, "the segment has another's number"));
        }
        if header.store != self.store && !self.new {
            return Err(damaged(self.disk, name, 0, "the segment belongs to another store"));
        }
        Ok(header)
    }

    /// Takes the log out of the segments, oldest first; what stays behind is no part of it. It may begin behind segments
    /// that were given up: [`Scan::begins_where_it_may`] says so, once the log is read.
    pub(super) fn chain(&self, segments: &mut BTreeMap<u64, Link>) -> Vec<Link> {
        let mut chain: Vec<Link> = Vec::new();
        let mut next = segments.keys().next_back().copied();
        while let Some(number) = next {
            let Some(mut link) = segments.remove(&number) else { break };
            link.end = chain.last().map(|newer| (newer.header.before.byte, newer.header.last_commit));
            next = Some(link.header.before.segment).filter(|number| *number != 0);
            chain.push(link);
        }
        chain.reverse();
        chain
    }

    /// Whether what lies before the first segment of the chain was given up. `base` is what the base says was.
    pub(super) fn begins_where_it_may(&self, before: u64, base: u64) -> Result<(), OpenError> {
        if before > self.segments.dropped().max(base) {
            return Err(damaged(self.disk, &file_name(before), 0, "the segment is missing"));
        }
        Ok(())
    }

    pub(super) fn content(&self, link: &Link) -> Result<Vec<u8>, OpenError> {
        let name = file_name(link.header.number);
        let file = self.disk.open(&name).map_err(|error| failed(self.disk, "open", &name, error))?;
        let length = file.length().map_err(|error| failed(self.disk, "open", &name, error))?;
        let wanted = link.end.map_or(length, |(end, _)| end);
        if length < wanted {
            return Err(damaged(self.disk, &name, length, "the segment ends before its end"));
        }
        read_start(self.disk, &*file, &name, wanted)
    }

    /// Takes in a segment whose end is known: everything in it was synced. What lies beside it says what it holds; if
    /// that is gone or damaged, the segment itself does.
    pub(super) fn sealed(&mut self, link: &Link) -> Result<(), OpenError> {
        let sealed = Sealed::find(self.disk, self.store, link.header.number);
        match sealed.filter(|sealed| Some(sealed.end) == link.end()) {
            Some(sealed) => self.listed(link, &sealed),
            None => self.read_sealed(link),
        }
    }

    /// Takes in what a segment's index says. Damage in the segment is found when it is read.
    fn listed(&mut self, link: &Link, sealed: &Sealed) -> Result<(), OpenError> {
        let name = file_name(sealed.number);
        let open = |error| failed(self.disk, "open", &name, error);
        let file = self.disk.open(&name).map_err(open)?;
        let length = file.length().map_err(open)?;
        if length < sealed.end {
            return Err(damaged(self.disk, &name, length, "the segment ends before its end"));
        }
        for (stream, block) in &sealed.blocks {
            let place = u64::from(block.position);
            if *stream == StreamId::CONTROL {
                let mut raw = vec![0; block.bytes as usize];
                file.read_at(&mut raw, place).map_err(|error| failed(self.disk, "read", &name, error))?;
                self.obey(&name, place, &raw)?;
            }
            self.stand(&name, *stream, *block, link.leaps_at(place))?;
        }
        self.segments.is_settled(sealed);
        Ok(())
    }

    /// Checks all of a segment whose end is known.
    fn read_sealed(&mut self, link: &Link) -> Result<(), OpenError> {
        let content = self.content(link)?;
        let name = file_name(link.header.number);
        let seed = seed(self.store, link.header.number);
        let mut position = CONTENT_START;
        let mut number = link.header.last_commit;
        while position < content.len() as u64 {
            let commit = commit_at(&content, position, seed, number + 1)
                .ok_or_else(|| damaged(self.disk, &name, position, "a commit's header"))?;
            self.proven(link, &content, &commit, seed)?;
            position = commit.end();
            number = commit.number;
        }
        match link.end {
            Some(end) if end != (position, number) => {
                Err(damaged(self.disk, &name, position, "the segment does not end where the next one says"))
            }
            _ => Ok(()),
        }
    }

    /// Takes in a commit that was synced; damage in it is corruption.
    fn proven(
        &mut self,
        link: &Link,
        content: &[u8],
        commit: &CommitHeader,
        seed: u32,
    ) -> Result<(), OpenError> {
        let name = file_name(link.header.number);
        let body = body_of(content, commit);
        if !commit.covers(body, seed) {
            self.report(&name, commit.position, "a commit's checksum");
        }
        let leaps = link.leaps_at(commit.position);
        self.take_in(link.header.number, commit.position, body, commit.blocks, leaps)
    }

    /// Finds the end of the newest segment.
    pub(super) fn tail(&mut self, link: &Link, content: &[u8]) -> Result<Tail, OpenError> {
        let name = file_name(link.header.number);
        let seed = seed(self.store, link.header.number);
        let mut commits: Vec<CommitHeader> = Vec::new();
        let mut proven = link.header.written_through;
        let mut position = CONTENT_START;
        let mut number = link.header.last_commit;
        let mut whole = true;
        while whole {
            let commit = commit_at(content, position, seed, number + 1);
            if let Some(commit) = &commit
                && commit.synced_through.segment == link.header.number
            {
                proven = proven.max(commit.synced_through.byte);
            }
            match commit {
                Some(commit)
                    if commit.covers(body_of(content, &commit), seed)
                        || self.is_proven(link, content, position) =>
                {
                    position = commit.end();
                    number = commit.number;
                    commits.push(commit);
                }
                None if self.is_proven(link, content, position) => {
                    return Err(damaged(self.disk, &name, position, "a commit's header"));
                }
                _ => whole = false,
            }
        }
        let clean = commits.last().is_some_and(|last| last.closing && last.position == proven);
        if self.trusting {
            proven = position;
        }
        let mut tail = Tail {
            unproven: Vec::new(),
            end: Position { segment: link.header.number, byte: proven },
            last_commit: link.header.last_commit,
            has_blocks: false,
            clean,
        };
        for commit in commits {
            if commit.position >= proven {
                tail.unproven.push(commit);
                continue;
            }
            self.proven(link, content, &commit, seed)?;
            tail.last_commit = commit.number;
            tail.has_blocks |= commit.blocks > 0;
        }
        Ok(tail)
    }

    /// Whether what stands at `position` of the newest segment is known to have been synced.
    fn is_proven(&self, link: &Link, content: &[u8], position: u64) -> bool {
        if position < link.header.written_through {
            return true;
        }
        let place = Position { segment: link.header.number, byte: position };
        let seed = seed(self.store, link.header.number);
        let from = usize::try_from(position).unwrap_or(usize::MAX);
        let later = content.get(from..).unwrap_or_default().chunks_exact(COMMIT_MAGIC.len()).enumerate();
        let begins = later
            .filter(|(_, bytes)| *bytes == COMMIT_MAGIC)
            .map(|(index, _)| from + index * COMMIT_MAGIC.len());
        begins
            .filter_map(|at| CommitHeader::read(content.get(at..)?, at as u64, seed))
            .any(|commit| commit.synced_through > place)
    }

    /// Puts the blocks of a commit whose header stands at `position` of `segment` into the index.
    pub(super) fn take_in(
        &mut self,
        segment: u64,
        position: u64,
        body: &[u8],
        blocks: u32,
        leaps: u32,
    ) -> Result<(), OpenError> {
        let name = file_name(segment);
        let start = position + COMMIT_HEADER_BYTES as u64;
        let mut at = 0;
        let mut recorded = None;
        let mut placed = Vec::with_capacity(blocks as usize);
        for _ in 0..blocks {
            let place = start + at as u64;
            let header = body.get(at..).and_then(BlockHeader::read);
            let header = header.ok_or_else(|| damaged(self.disk, &name, place, "a block's header"))?;
            let raw = body.get(at..at + header.bytes());
            let raw = raw.ok_or_else(|| damaged(self.disk, &name, place, "a block's length"))?;
            if header.stream == StreamId::CONTROL {
                self.obey(&name, place, raw)?;
            } else if let Some(record) = raw.get(BLOCK_HEADER_BYTES..).and_then(RecordHeader::read) {
                let (from, to) = recorded.unwrap_or((record.at, record.at));
                recorded = Some((from.min(record.at), to.max(record.at)));
            }
            let block = BlockRef::found(&header, segment, place)
                .ok_or_else(|| damaged(self.disk, &name, place, "a segment's number or length"))?;
            self.stand(&name, header.stream, block, leaps)?;
            placed.push((header.stream, block));
            at += padded(header.bytes());
        }
        if at == body.len() {
            self.segments.wrote(segment, start + at as u64, recorded, placed);
            Ok(())
        } else {
            Err(damaged(self.disk, &name, start + at as u64, "a commit's length"))
        }
    }

    /// Puts a block into the index.
    fn stand(&self, name: &str, stream: StreamId, block: BlockRef, leaps: u32) -> Result<(), OpenError> {
        let mut streams = self.index.write();
        let known = streams.entry(stream).or_default();
        if !known.can_stand(block.first) {
            return Err(damaged(self.disk, name, u64::from(block.position), "a block's offset"));
        }
        known.done(block, leaps);
        Ok(())
    }

    /// Obeys the orders in a block of the journal's own.
    fn obey(&self, name: &str, place: u64, raw: &[u8]) -> Result<(), OpenError> {
        let orders = control::read(raw.get(BLOCK_HEADER_BYTES..).unwrap_or_default());
        let orders = orders.ok_or_else(|| damaged(self.disk, name, place, "the journal's own record"))?;
        control::obey(&self.index, &self.segments, &orders);
        Ok(())
    }

    fn report(&mut self, name: &str, position: u64, what: &'static str) {
        self.found.push(Found { place: self.disk.place(name), position, what });
    }
}

/// The commit at `position`, if there is one with that number.
fn commit_at(content: &[u8], position: u64, seed: u32, number: u64) -> Option<CommitHeader> {
    let bytes = content.get(usize::try_from(position).ok()?..)?;
    let commit = CommitHeader::read(bytes, position, seed)?;
    (commit.number == number && commit.end() <= content.len() as u64).then_some(commit)
}

/// The blocks of a commit that lies in `content`.
pub(super) fn body_of<'a>(content: &'a [u8], commit: &CommitHeader) -> &'a [u8] {
    let end = usize::try_from(commit.end()).unwrap_or(usize::MAX);
    content.get(end.saturating_sub(commit.body_bytes as usize)..end).unwrap_or_default()
}
