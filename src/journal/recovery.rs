//! Opening a store: finds the log, tells a torn tail from corruption, and makes sure that what is served will stay.
//!
//! 1. The log is the chain of segments from the newest along `segment before`. Files that are no segment yet are removed.
//! 2. Every commit of the chain is checked. A bad region is **corruption if and only if it is proven to have been
//!    synced**: by the segment that follows, by the segment's own `written through`, or by a later commit whose `synced
//!    through` lies beyond it. Otherwise it is a torn tail, and the log ends before it.
//! 3. Corruption inside a block that says whose it is opens the store and is reported; the records are found corrupt when
//!    they are read. Where nobody can say whose it is, the store is refused, with file and position.
//! 4. The log goes on in a new segment. Valid commits beyond the last proof are written anew into it and synced before
//!    anything of them is served, because a sync that failed may have left them in the cache alone. The new segment's
//!    name is what makes it part of the log; only then is the old one cut at the end that the new header names.
//!
//! A crash anywhere in here leaves either the old end of the log or the new one, both whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::block::{BLOCK_HEADER_BYTES, BlockHeader, padded};
use super::commit::{COMMIT_HEADER_BYTES, COMMIT_MAGIC, CommitBuilder, CommitHeader};
use super::control;
use super::disk::{Disk, DiskFile, DiskLock};
use super::files::Files;
use super::index::{BlockRef, Index};
use super::log::{Active, LogSettings, install};
use super::sabotage::Sabotage;
use super::segment::{
    CONTENT_START, HEADER_COPIES, HeaderFault, Position, SEGMENT_HEADER_BYTES, SegmentHeader, file_name,
    number_in, seed,
};
use super::spare::Helper;
use super::store::{self, Keys, OpenError, Store, UNFINISHED, damaged, failed, read_start};
use super::{Options, StreamId};

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

/// A store that is ready.
pub(super) struct Recovered {
    pub(super) active: Active,
    pub(super) settings: LogSettings,
    pub(super) index: Index,
    pub(super) files: Arc<Files>,
    pub(super) helper: Helper,
    pub(super) keys: Keys,
    pub(super) lock: DiskLock,
    pub(super) new: bool,
    pub(super) unclean: bool,
    pub(super) found: Vec<Found>,
}

/// One segment of the chain.
struct Link {
    header: SegmentHeader,
    file: Arc<dyn DiskFile>,
    /// Where the log goes over to the next segment, and the number of the last commit before that; none for the newest.
    end: Option<(u64, u64)>,
}

/// What is known of the end of the newest segment.
struct Tail {
    /// Commits past the last proof, with the place of their bodies.
    unproven: Vec<CommitHeader>,
    /// Where the proven part ends.
    end: Position,
    /// The number of the last commit before that.
    last_commit: u64,
    /// Whether the segment holds a block before that.
    has_blocks: bool,
    clean: bool,
}

pub(super) fn recover(disk: &Arc<dyn Disk>, options: &Options) -> Result<Recovered, OpenError> {
    let lock = disk.lock().map_err(|error| failed(&**disk, "lock", "", error))?;
    let lock = lock.ok_or_else(|| OpenError::Locked { place: disk.place("") })?;
    // What a process before this one changed in the directory is made to stay before anything is concluded from it.
    disk.sync_directory().map_err(|error| failed(&**disk, "sync", "", error))?;
    let mut names = disk.list().map_err(|error| failed(&**disk, "list", "", error))?;
    for unfinished in names.extract_if(.., |name| name.ends_with(UNFINISHED)) {
        disk.remove(&unfinished).map_err(|error| failed(&**disk, "remove", &unfinished, error))?;
    }
    let store = store::open(&**disk, &names)?;
    let files = Arc::new(Files::new(Arc::clone(disk)));
    let recovery = Recovery { disk, options, store: &store, index: Index::default(), found: Vec::new() };
    let done = recovery.run(&names, &files)?;
    if store.new {
        store::finish(&**disk, &store)?;
    }
    let Done { active, settings, index, helper, unclean, found } = done;
    let (keys, new) = (store.keys, store.new);
    Ok(Recovered { active, settings, index, files, helper, keys, lock, new, unclean, found })
}

struct Recovery<'a> {
    disk: &'a Arc<dyn Disk>,
    options: &'a Options,
    store: &'a Store,
    index: Index,
    found: Vec<Found>,
}

struct Done {
    active: Active,
    settings: LogSettings,
    index: Index,
    helper: Helper,
    unclean: bool,
    found: Vec<Found>,
}

impl Recovery<'_> {
    fn run(mut self, names: &[String], files: &Files) -> Result<Done, OpenError> {
        let mut segments = self.segments(names)?;
        if self.store.new {
            self.discard_unfinished_store(&mut segments)?;
        } else if segments.is_empty() {
            return Err(damaged(&**self.disk, &file_name(1), 0, "all segments are missing"));
        }
        let newest_number = segments.keys().next_back().copied().unwrap_or(0);
        let mut chain = self.chain(&mut segments)?;
        let newest = chain.pop();
        for link in &chain {
            self.sealed(link)?;
        }
        let mut state = Continuation::new(self.options);
        let mut content = Vec::new();
        if let Some(newest) = &newest {
            content = self.content(newest)?;
            let tail = self.tail(newest, &content)?;
            state.after(newest, tail, newest_number);
        }
        let helper = Helper::new(Arc::clone(self.disk), self.options.segment_bytes, self.options.threads)
            .map_err(|error| failed(&**self.disk, "start a thread", "", error))?;
        let active = self.go_on(&state, &content, &helper)?;
        files.opened(active.number, &active.file);
        self.index.leap(state.leaps);
        if let Some(newest) = newest {
            self.tidy(&newest, &state, segments.into_keys().collect())?;
        }
        let settings = LogSettings {
            store: self.store.id,
            segment_bytes: self.options.segment_bytes,
            before_sync: self.options.before_sync,
            leaps: state.leaps,
            sabotage: self.options.sabotage,
        };
        let Self { index, found, .. } = self;
        Ok(Done { active, settings, index, helper, unclean: state.unclean, found })
    }

    /// All segments by number, with their headers.
    fn segments(&mut self, names: &[String]) -> Result<BTreeMap<u64, Link>, OpenError> {
        let mut segments = BTreeMap::new();
        for (name, number) in names.iter().filter_map(|name| Some((name, number_in(name)?))) {
            let file = self.disk.open(name).map_err(|error| failed(&**self.disk, "open", name, error))?;
            // In a store that is still being made nothing can be expected of a file.
            match self.header(name, number, &*file) {
                Ok(header) => segments.insert(number, Link { header, file, end: None }),
                Err(OpenError::Damaged { .. }) if self.store.new => {
                    return Err(store::format_is_missing(&**self.disk));
                }
                Err(error) => return Err(error),
            };
        }
        Ok(segments)
    }

    /// Reads a segment's header from whichever copy is whole.
    fn header(&mut self, name: &str, number: u64, file: &dyn DiskFile) -> Result<SegmentHeader, OpenError> {
        let length = file.length().map_err(|error| failed(&**self.disk, "open", name, error))?;
        if length < CONTENT_START {
            return Err(damaged(&**self.disk, name, length, "it is shorter than its headers"));
        }
        let mut header = None;
        for copy in HEADER_COPIES {
            let mut raw = [0; SEGMENT_HEADER_BYTES];
            file.read_at(&mut raw, copy).map_err(|error| failed(&**self.disk, "read", name, error))?;
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
        let header = header.ok_or_else(|| damaged(&**self.disk, name, 0, "both of the segment's headers"))?;
        if header.number != number || header.before.segment >= number {
            return Err(damaged(&**self.disk, name, 0, "the segment has another's number"));
        }
        if header.store != self.store.id && !self.store.new {
            return Err(damaged(&**self.disk, name, 0, "the segment belongs to another store"));
        }
        Ok(header)
    }

    /// A store whose making was interrupted has at most one segment, with nothing in it; it is made anew.
    fn discard_unfinished_store(&self, segments: &mut BTreeMap<u64, Link>) -> Result<(), OpenError> {
        for (number, link) in std::mem::take(segments) {
            let name = file_name(number);
            let written = self
                .content(&link)?
                .iter()
                .skip(usize::try_from(CONTENT_START).unwrap_or(0))
                .any(|byte| *byte != 0);
            if number != 1 || written {
                return Err(store::format_is_missing(&**self.disk));
            }
            self.disk.remove(&name).map_err(|error| failed(&**self.disk, "remove", &name, error))?;
        }
        Ok(())
    }

    /// Takes the log out of the segments, oldest first; what stays behind is no part of it.
    fn chain(&self, segments: &mut BTreeMap<u64, Link>) -> Result<Vec<Link>, OpenError> {
        let mut chain: Vec<Link> = Vec::new();
        let mut next = segments.keys().next_back().copied();
        while let Some(number) = next {
            let Some(mut link) = segments.remove(&number) else {
                return Err(damaged(&**self.disk, &file_name(number), 0, "the segment is missing"));
            };
            link.end = chain.last().map(|newer| (newer.header.before.byte, newer.header.last_commit));
            next = Some(link.header.before.segment).filter(|number| *number != 0);
            chain.push(link);
        }
        chain.reverse();
        Ok(chain)
    }

    fn content(&self, link: &Link) -> Result<Vec<u8>, OpenError> {
        let name = file_name(link.header.number);
        let length = link.file.length().map_err(|error| failed(&**self.disk, "open", &name, error))?;
        let wanted = link.end.map_or(length, |(end, _)| end);
        if length < wanted {
            return Err(damaged(&**self.disk, &name, length, "the segment ends before its end"));
        }
        read_start(&**self.disk, &*link.file, &name, wanted)
    }

    /// Checks a segment whose end is known: everything in it was synced.
    fn sealed(&mut self, link: &Link) -> Result<(), OpenError> {
        let content = self.content(link)?;
        let name = file_name(link.header.number);
        let seed = seed(self.store.id, link.header.number);
        let mut position = CONTENT_START;
        let mut number = link.header.last_commit;
        while position < content.len() as u64 {
            let commit = commit_at(&content, position, seed, number + 1)
                .ok_or_else(|| damaged(&**self.disk, &name, position, "a commit's header"))?;
            self.proven(link, &content, &commit, seed)?;
            position = commit.end();
            number = commit.number;
        }
        match link.end {
            Some(end) if end != (position, number) => Err(damaged(
                &**self.disk,
                &name,
                position,
                "the segment does not end where the next one says",
            )),
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
        let rewritten = commit.position < link.header.written_through;
        let leaps = if rewritten { link.header.leaps_of_rewritten } else { link.header.leaps };
        self.take_in(link.header.number, commit.position, body, commit.blocks, leaps)
    }

    /// Finds the end of the newest segment.
    fn tail(&mut self, link: &Link, content: &[u8]) -> Result<Tail, OpenError> {
        let name = file_name(link.header.number);
        let seed = seed(self.store.id, link.header.number);
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
                    return Err(damaged(&**self.disk, &name, position, "a commit's header"));
                }
                _ => whole = false,
            }
        }
        let clean = commits.last().is_some_and(|last| last.closing && last.position == proven);
        if self.options.sabotage == Some(Sabotage::Rewriting) {
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
        let seed = seed(self.store.id, link.header.number);
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
    fn take_in(
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
        for _ in 0..blocks {
            let place = start + at as u64;
            let header = body.get(at..).and_then(BlockHeader::read);
            let header = header.ok_or_else(|| damaged(&**self.disk, &name, place, "a block's header"))?;
            let raw = body.get(at..at + header.bytes());
            let raw = raw.ok_or_else(|| damaged(&**self.disk, &name, place, "a block's length"))?;
            if header.stream == StreamId::CONTROL {
                let orders = control::read(raw.get(BLOCK_HEADER_BYTES..).unwrap_or_default());
                let orders =
                    orders.ok_or_else(|| damaged(&**self.disk, &name, place, "the journal's own record"))?;
                control::obey(&self.index, &orders);
            }
            let (Ok(segment), Ok(position)) = (u32::try_from(segment), u32::try_from(place)) else {
                return Err(damaged(&**self.disk, &name, place, "a segment's number or length"));
            };
            let block = BlockRef {
                first: header.first,
                segment,
                position,
                bytes: u32::try_from(header.bytes()).unwrap_or(u32::MAX),
                records: header.records,
            };
            let mut streams = self.index.write();
            let stream = streams.entry(header.stream).or_default();
            if !stream.can_stand(&header) {
                return Err(damaged(&**self.disk, &name, place, "a block's offset"));
            }
            stream.done(block, leaps);
            at += padded(header.bytes());
        }
        if at == body.len() {
            Ok(())
        } else {
            Err(damaged(&**self.disk, &name, start + at as u64, "a commit's length"))
        }
    }

    /// Makes the segment in which the log goes on, with what is written anew.
    fn go_on(&mut self, state: &Continuation, content: &[u8], helper: &Helper) -> Result<Active, OpenError> {
        let name = file_name(state.number);
        let fail = |error| failed(&**self.disk, "make a segment", &name, error);
        let anew: u64 = state.anew.iter().map(|commit| commit.end() - commit.position).sum();
        let size = self.options.segment_bytes.max(CONTENT_START + anew);
        let spare = helper.take_spare(size).map_err(fail)?;
        let seed = seed(self.store.id, state.number);
        let mut builder = CommitBuilder::default();
        let mut position = CONTENT_START;
        let mut number = state.last_commit;
        let mut moved = Vec::new();
        for commit in &state.anew {
            number += 1;
            builder.begin();
            builder.add_body(body_of(content, commit), commit);
            let bytes = builder.finish(number, position, state.before, false, seed);
            spare.file.write_at(bytes, position).map_err(fail)?;
            moved.push((position, commit));
            position += bytes.len() as u64;
        }
        let header = SegmentHeader {
            store: self.store.id,
            number: state.number,
            before: state.before,
            last_commit: state.last_commit,
            written_through: position,
            before_sync: self.options.before_sync,
            leaps: state.leaps,
            leaps_of_rewritten: state.leaps_before,
            features: 0,
        };
        // Its content is synced before its header: whoever sees the header may rely on the content.
        spare.file.sync().map_err(fail)?;
        let sync_directory = self.options.sabotage != Some(Sabotage::DirectorySync);
        let size = spare.size;
        let file = install(&**self.disk, spare, header, sync_directory).map_err(fail)?;
        for (position, commit) in moved {
            self.take_in(
                state.number,
                position,
                body_of(content, commit),
                commit.blocks,
                state.leaps_before,
            )?;
        }
        Ok(Active { number: state.number, file, size, position, commit: number })
    }

    /// Cuts the old segment at the end that the new one names, and removes what is no part of the log.
    fn tidy(&self, newest: &Link, state: &Continuation, mut gone: Vec<u64>) -> Result<(), OpenError> {
        let name = file_name(newest.header.number);
        if state.before.segment == newest.header.number {
            let cut = newest.file.length().and_then(|length| {
                if length > state.before.byte {
                    newest.file.set_length(state.before.byte)?;
                    newest.file.sync()?;
                }
                Ok(())
            });
            cut.map_err(|error| failed(&**self.disk, "cut", &name, error))?;
        } else {
            gone.push(newest.header.number);
        }
        for number in gone {
            let name = file_name(number);
            self.disk.remove(&name).map_err(|error| failed(&**self.disk, "remove", &name, error))?;
        }
        Ok(())
    }

    fn report(&mut self, name: &str, position: u64, what: &'static str) {
        self.found.push(Found { place: self.disk.place(name), position, what });
    }
}

/// How the log goes on.
struct Continuation {
    number: u64,
    before: Position,
    last_commit: u64,
    /// What is written anew.
    anew: Vec<CommitHeader>,
    leaps_before: u32,
    leaps: u32,
    unclean: bool,
}

impl Continuation {
    /// A new log.
    fn new(_: &Options) -> Self {
        Self {
            number: 1,
            before: Position::default(),
            last_commit: 0,
            anew: Vec::new(),
            leaps_before: 0,
            leaps: 0,
            unclean: false,
        }
    }

    /// A log that goes on from `newest`.
    fn after(&mut self, newest: &Link, tail: Tail, newest_number: u64) {
        let header = &newest.header;
        self.number = newest_number + 1;
        // A segment without a block is left out of the chain, so that a broker that is started again and again leaves no
        // trail of empty segments.
        (self.before, self.last_commit) =
            if tail.has_blocks { (tail.end, tail.last_commit) } else { (header.before, header.last_commit) };
        self.anew = tail.unproven;
        self.anew.retain(|commit| commit.blocks > 0);
        self.unclean = !tail.clean;
        self.leaps_before = header.leaps;
        self.leaps = header.leaps + u32::from(self.unclean && header.before_sync);
    }
}

/// The commit at `position`, if there is one with that number.
fn commit_at(content: &[u8], position: u64, seed: u32, number: u64) -> Option<CommitHeader> {
    let bytes = content.get(usize::try_from(position).ok()?..)?;
    let commit = CommitHeader::read(bytes, position, seed)?;
    (commit.number == number && commit.end() <= content.len() as u64).then_some(commit)
}

/// The blocks of a commit that lies in `content`.
fn body_of<'a>(content: &'a [u8], commit: &CommitHeader) -> &'a [u8] {
    let end = usize::try_from(commit.end()).unwrap_or(usize::MAX);
    content.get(end.saturating_sub(commit.body_bytes as usize)..end).unwrap_or_default()
}
