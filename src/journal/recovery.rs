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
//! 5. What lies before the log may have been given up; then the newest whole base must cover it, and says where every
//!    stream ends.
//!
//! A crash anywhere in here leaves either the old end of the log or the new one, both whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Options;
use super::base::{self, Base};
use super::commit::{CommitBuilder, CommitHeader};
use super::disk::{Disk, DiskLock};
use super::files::Files;
use super::index::Index;
use super::log::{Active, LogSettings, install};
use super::room::Room;
use super::runs;
use super::sabotage::Sabotage;
use super::scan::{Found, Link, Scan, Tail, body_of};
use super::segment::{CONTENT_START, Position, SegmentHeader, file_name, seed};
use super::segments::Segments;
use super::spare::Helper;
use super::store::{self, Keys, OpenError, Store, UNFINISHED, damaged, failed};

/// A store that is ready.
pub(super) struct Recovered {
    pub(super) active: Active,
    pub(super) settings: LogSettings,
    pub(super) index: Index,
    pub(super) segments: Segments,
    pub(super) base: Option<Base>,
    pub(super) files: Arc<Files>,
    pub(super) helper: Helper,
    pub(super) room: Arc<Room>,
    pub(super) keys: Keys,
    pub(super) lock: DiskLock,
    pub(super) new: bool,
    pub(super) unclean: bool,
    pub(super) found: Vec<Found>,
}

/// Opens the store on `disk`; makes one where there is none.
pub(super) fn recover(disk: &Arc<dyn Disk>, options: &Options) -> Result<Recovered, OpenError> {
    let lock = disk.lock().map_err(|error| failed(&**disk, "lock", "", error))?;
    let lock = lock.ok_or_else(|| OpenError::Locked { place: disk.place("") })?;
    // What a process before this one changed in the directory is made to stay before anything is concluded from it.
    disk.sync_directory().map_err(|error| failed(&**disk, "sync", "", error))?;
    let mut names = disk.list().map_err(|error| failed(&**disk, "list", "", error))?;
    for unfinished in names.extract_if(.., |name| name.ends_with(UNFINISHED)) {
        remove(&**disk, &unfinished)?;
    }
    let store = store::open(&**disk, &names)?;
    let recovery = Recovery { disk: &**disk, options, store: &store };
    let mut scan = Scan {
        disk: &**disk,
        store: store.id,
        new: store.new,
        trusting: options.sabotage == Some(Sabotage::Rewriting),
        index: Index::default(),
        segments: Segments::default(),
        found: Vec::new(),
    };
    let room = Arc::new(Room::default());
    let helper = Helper::new(Arc::clone(disk), options.segment_bytes, Arc::clone(&room), options.threads)
        .map_err(|error| failed(&**disk, "start a thread", "", error))?;
    let (active, state, base) = recovery.run(&mut scan, &names, &helper)?;
    scan.segments.began(active.number, active.position);
    let files = Arc::new(Files::new(Arc::clone(disk)));
    files.opened(active.number, &active.file);
    if store.new {
        store::finish(&**disk, &store)?;
    }
    let settings = LogSettings {
        store: store.id,
        segment_bytes: options.segment_bytes,
        before_sync: options.before_sync,
        leaps: state.leaps,
        sabotage: options.sabotage,
        stats: Arc::default(),
    };
    let Scan { index, segments, found, .. } = scan;
    let (keys, new, unclean) = (store.keys, store.new, state.unclean);
    Ok(Recovered {
        active,
        settings,
        index,
        segments,
        base,
        files,
        helper,
        room,
        keys,
        lock,
        new,
        unclean,
        found,
    })
}

fn remove(disk: &dyn Disk, name: &str) -> Result<(), OpenError> {
    disk.remove(name).map_err(|error| failed(disk, "remove", name, error))
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    options: &'a Options,
    store: &'a Store,
}

impl Recovery<'_> {
    fn run(
        &self,
        scan: &mut Scan<'_>,
        names: &[String],
        helper: &Helper,
    ) -> Result<(Active, Continuation, Option<Base>), OpenError> {
        let mut segments = scan.segments(names)?;
        if self.store.new {
            self.discard_unfinished_store(scan, &mut segments)?;
        } else if segments.is_empty() {
            return Err(damaged(self.disk, &file_name(1), 0, "all segments are missing"));
        }
        let newest_number = segments.keys().next_back().copied().unwrap_or(0);
        // While the log is read, the segment in which it goes on is filled.
        helper.prepare_spare();
        let mut chain = scan.chain(&mut segments);
        let before = chain.first().map_or(0, |link| link.header.before.segment);
        let newest = chain.pop();
        for link in &chain {
            scan.sealed(link)?;
            self.cut(link)?;
        }
        let (state, content) = match &newest {
            None => (Continuation::beginning(), Vec::new()),
            Some(newest) => {
                let content = scan.content(newest)?;
                let tail = scan.tail(newest, &content)?;
                (Continuation::after(newest, tail, newest_number), content)
            }
        };
        let active = self.go_on(scan, &state, &content, helper)?;
        // Only now: what is written anew may say what was given up.
        let base = self.base(scan, names)?;
        scan.begins_where_it_may(before, base.as_ref().map_or(0, |base| base.dropped))?;
        if let Some(base) = &base {
            scan.segments.drop_through(base.dropped);
            let mut streams = scan.index.write();
            for (stream, end) in base.ends() {
                streams.entry(stream).or_default().known_before(&end);
            }
        }
        for name in names {
            // What a crash has left between a run and the base that was to name it.
            let orphan =
                runs::number_in(name).filter(|run| !base.as_ref().is_some_and(|base| base.has_run(*run)));
            if orphan.is_some() {
                remove(self.disk, name)?;
            }
        }
        scan.index.leap(state.leaps);
        if let Some(newest) = newest {
            self.tidy(&newest, &state, segments.into_keys().collect())?;
        }
        Ok((active, state, base))
    }

    /// The newest base that is whole. What it covers may be gone, so without one that covers it the store is refused.
    fn base(&self, scan: &mut Scan<'_>, names: &[String]) -> Result<Option<Base>, OpenError> {
        let mut generations: Vec<u64> = names.iter().filter_map(|name| base::generation_in(name)).collect();
        generations.sort_unstable();
        let newest = generations.last().copied();
        let mut chosen = None;
        while let (None, Some(generation)) = (&chosen, generations.pop()) {
            let opened = Base::open(self.disk, self.store.id, generation, &mut scan.found);
            chosen = opened
                .map_err(|error| failed(self.disk, "read", &base::file_name(generation), error))?
                .filter(|base| base.covered >= scan.segments.dropped());
        }
        match newest {
            Some(newest) if chosen.is_none() && scan.segments.dropped() > 0 => Err(damaged(
                self.disk,
                &base::file_name(newest),
                0,
                "no base is whole, and what it covered is gone",
            )),
            None if scan.segments.dropped() > 0 => Err(damaged(
                self.disk,
                &base::file_name(1),
                0,
                "the base is missing, and what it covered is gone",
            )),
            _ => Ok(chosen),
        }
    }

    /// A store whose making was interrupted has at most one segment, with nothing in it; it is made anew.
    fn discard_unfinished_store(
        &self,
        scan: &Scan<'_>,
        segments: &mut BTreeMap<u64, Link>,
    ) -> Result<(), OpenError> {
        for (number, link) in std::mem::take(segments) {
            let content = scan.content(&link)?;
            let log = content.get(usize::try_from(CONTENT_START).unwrap_or(0)..).unwrap_or_default();
            if number != 1 || log.iter().any(|byte| *byte != 0) {
                return Err(store::format_is_missing(self.disk));
            }
            remove(self.disk, &file_name(number))?;
        }
        Ok(())
    }

    /// Makes the segment in which the log goes on, with what is written anew.
    fn go_on(
        &self,
        scan: &mut Scan<'_>,
        state: &Continuation,
        content: &[u8],
        helper: &Helper,
    ) -> Result<Active, OpenError> {
        let name = file_name(state.number);
        let fail = |error| failed(self.disk, "make a segment", &name, error);
        let anew: u64 = state.anew.iter().map(|commit| commit.end() - commit.position).sum();
        let size = self.options.segment_bytes.max(CONTENT_START + anew);
        let spare = helper.take_spare(size, || true).map_err(fail)?;
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
        let file = install(self.disk, spare, header, sync_directory).map_err(fail)?;
        for (position, commit) in moved {
            scan.take_in(
                state.number,
                position,
                body_of(content, commit),
                commit.blocks,
                state.leaps_before,
            )?;
        }
        Ok(Active { number: state.number, file, size, position, commit: number })
    }

    /// Cuts a segment at the end that the next one names: what lies behind it is no part of the log.
    fn cut(&self, link: &Link) -> Result<(), OpenError> {
        let Some(end) = link.end() else { return Ok(()) };
        self.cut_at(link.header.number, end)
    }

    fn cut_at(&self, number: u64, end: u64) -> Result<(), OpenError> {
        let name = file_name(number);
        let cut = || {
            let file = self.disk.open(&name)?;
            if file.length()? > end {
                file.set_length(end)?;
                file.sync()?;
            }
            Ok(())
        };
        cut().map_err(|error| failed(self.disk, "cut", &name, error))
    }

    /// Cuts the old segment at the end that the new one names, and removes what is no part of the log.
    fn tidy(&self, newest: &Link, state: &Continuation, mut gone: Vec<u64>) -> Result<(), OpenError> {
        if state.before.segment == newest.header.number {
            self.cut_at(newest.header.number, state.before.byte)?;
        } else {
            gone.push(newest.header.number);
        }
        for number in gone {
            remove(self.disk, &file_name(number))?;
        }
        Ok(())
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
    fn beginning() -> Self {
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
    fn after(newest: &Link, tail: Tail, newest_number: u64) -> Self {
        let header = &newest.header;
        // A segment without a block is left out of the chain, so that a broker that is started again and again leaves no
        // trail of empty segments.
        let (before, last_commit) =
            if tail.has_blocks { (tail.end, tail.last_commit) } else { (header.before, header.last_commit) };
        let unclean = !tail.clean;
        Self {
            number: newest_number + 1,
            before,
            last_commit,
            anew: tail.unproven.into_iter().filter(|commit| commit.blocks > 0).collect(),
            leaps_before: header.leaps,
            leaps: header.leaps + u32::from(unclean && header.before_sync),
            unclean,
        }
    }
}
