//! The journal's promise under everything that a disk can do: thousands of seeded runs on the simulated disk.
//!
//! A run lives several lives. In each the store is opened, checked against what was promised so far, and worked with
//! until it is closed, killed, or the power fails; operations fail, the machine stops in the midst of one (also while it
//! recovers), the disk is full, bits flip, and messages hold the bytes of the log's own headers. After every opening:
//!
//! - **nothing acknowledged is lost**, in the sense of its durability, and what was once served is served for ever;
//! - **nothing corrupt is served**, and no offset ever means two things;
//! - **every store opens, or names the damage** where a bit was flipped;
//! - **what retention took is in the state**: a stream's saved state and the records behind it fold to what all of its
//!   records would, however the writing of a base, the dropping of segments and the sweeping of files was interrupted;
//! - **a sealed segment's index is a cache**: one that is gone or damaged changes nothing and is no damage;
//! - **what a state says of its runs is true**: each id that it has laid aside is found there, with its record and no
//!   other, or the run is named as damaged or missing where it was; no opened store has a run that no state names.
//!
//! The campaign is tested itself: with each thing left out that the promise rests on, it must find a broken promise.
//!
//! `SHAREDLINE_SEEDS=100000 cargo nextest run --test journal_simulation` runs a longer campaign;
//! `SHAREDLINE_SEED=17 …` runs one seed of it and prints what happens.

#![cfg(feature = "broker")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is a test's report"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use sharedline::domain::aside::{Rows, RunId};
use sharedline::domain::fingerprint::Fingerprint;
use sharedline::domain::ids::{ConversationId, Offset, Timestamp};
use sharedline::journal::disk::Disk;
use sharedline::journal::sabotage::Sabotage;
use sharedline::journal::sim_disk::{Fault, Random, SimDisk};
use sharedline::journal::{
    BaseWriter, BlockBuilder, Completed, CompletionSink, Durability, EmbeddedJournal, Entry, Head, Journal,
    Kept, OpenError, Options, Outcome, RecordMeta, Retention, RunError, RunOf, Sink, StreamId,
};

/// Runs of the campaign in `./test`, of all kinds together.
const SEEDS: u64 = 6000;
/// What `./test` must not run fewer than.
const SEEDS_MIN: u64 = 5000;
/// One run in so many is run twice and must come out the same.
const REPEATED: u64 = 50;
/// Within so many runs the campaign must find out what was left out.
const SABOTAGED_SEEDS_MAX: u64 = 500;
/// Segments so small that a run fills several, in bytes.
const SEGMENT_BYTES: u64 = 14 << 10;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Broken(String);

macro_rules! broken {
    ($($text:tt)*) => { return Err(Broken(format!($($text)*))) };
}

/// How a run's store works, and what is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Answers after the sync; operations fail, the power too.
    Synced,
    /// Answers before the sync; operations fail, the power too.
    BeforeSync,
    /// Answers after the sync; bits flip.
    Flipped,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Synced, Self::BeforeSync, Self::Flipped];

    fn of(seed: u64) -> Self {
        Self::ALL[usize::try_from(seed).unwrap() % Self::ALL.len()]
    }
}

/// What was promised of one stream.
#[derive(Debug, Default)]
struct Promised {
    /// Each payload that was ever appended at an offset.
    tried: BTreeMap<u64, BTreeSet<Vec<u8>>>,
    /// Blocks of this life that are not answered yet.
    pending: VecDeque<Vec<(u64, Vec<u8>)>>,
    /// What was acknowledged or served: the offset means this for ever.
    fixed: BTreeMap<u64, Vec<u8>>,
    /// Acknowledged, and lost if the power fails now.
    unsafe_yet: BTreeSet<u64>,
    /// What a power failure has taken although it was acknowledged; allowed before the sync alone.
    forgiven: BTreeSet<u64>,
    /// The highest offset before which records may be gone, from the journal and from any state.
    trimmed: u64,
    /// The highest offset before which records may be gone from the journal, being in a saved state.
    retired: u64,
    deleted: bool,
}

#[derive(Debug, Default)]
struct Answers(Mutex<Vec<Completed>>);

impl CompletionSink for Answers {
    fn complete(&self, finished: &mut Vec<Completed>) {
        self.0.lock().unwrap().append(finished);
    }
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Killed,
    PowerCut,
}

struct Run {
    random: Random,
    disk: SimDisk,
    options: Options,
    kind: Kind,
    promised: BTreeMap<u128, Promised>,
    streams: Vec<u128>,
    appends: u64,
    flipped: bool,
    /// Runs that were damaged or taken away on purpose.
    damaged_runs: BTreeSet<RunId>,
    story: Story,
}

/// What happened, to compare two runs and to show one.
#[derive(Default)]
struct Story {
    hash: u32,
    show: bool,
}

impl Story {
    fn tell(&mut self, what: fmt::Arguments<'_>) {
        let text = what.to_string();
        self.hash = crc32c::crc32c_append(self.hash, text.as_bytes());
        if self.show {
            println!("{text}");
        }
    }
}

fn run(seed: u64, sabotage: Option<Sabotage>, show: bool) -> (u32, Result<(), Broken>) {
    let kind = Kind::of(seed);
    let options = Options {
        before_sync: kind == Kind::BeforeSync,
        segment_bytes: SEGMENT_BYTES,
        threads: false,
        sabotage,
    };
    let mut run = Run {
        random: Random(seed ^ 0x5eed),
        disk: SimDisk::new(seed),
        options,
        kind,
        promised: BTreeMap::new(),
        streams: vec![1, 2, 3],
        appends: 0,
        flipped: false,
        damaged_runs: BTreeSet::new(),
        story: Story { hash: 0, show },
    };
    let result = run.live();
    (run.story.hash, result)
}

impl Run {
    fn live(&mut self) -> Result<(), Broken> {
        let lives = 2 + self.random.below(5);
        for life in 0..lives {
            let Some(journal) = self.open(life)? else { return Ok(()) };
            let end = self.work(&journal)?;
            self.end(journal, end)?;
        }
        let Some(journal) = self.open(lives)? else { return Ok(()) };
        drop(journal);
        Ok(())
    }

    /// Opens the store, over a few crashes perhaps, and checks all that was promised. None if damage was named.
    fn open(&mut self, life: u64) -> Result<Option<EmbeddedJournal>, Broken> {
        for _ in 0..self.random.below(4) {
            if self.kind == Kind::Flipped {
                break;
            }
            let fault = [Fault::Stop, Fault::Error, Fault::Full][self.random.below_usize(3)];
            let after = self.random.below(24);
            self.disk.fail_at(after, fault);
            let opened = EmbeddedJournal::open(Arc::new(self.disk.clone()), &self.options);
            self.story
                .tell(format_args!("life {life}: open with {fault:?} after {after}: {}", opened.is_ok()));
            if let Err(error) = &opened
                && !matches!(error, OpenError::Io { .. })
            {
                broken!("a failing disk was taken for {error}");
            }
            drop(opened);
            let cut = self.random.chance(1, 2);
            self.crash(cut);
        }
        match EmbeddedJournal::open(Arc::new(self.disk.clone()), &self.options) {
            Ok(opened) => {
                self.story.tell(format_args!(
                    "life {life}: opened, unclean {}, found {:?}",
                    opened.unclean, opened.found
                ));
                if !self.flipped && !opened.found.is_empty() {
                    broken!("damage where none was done: {:?}", opened.found);
                }
                self.check_all(&opened.journal)?;
                self.check_orphans(&opened.journal)?;
                // All that a store opens with was synced before.
                for promised in self.promised.values_mut() {
                    promised.unsafe_yet.clear();
                    promised.pending.clear();
                }
                Ok(Some(opened.journal))
            }
            Err(OpenError::Damaged { place, position, what }) if self.flipped => {
                self.story.tell(format_args!("life {life}: {place} at {position}: {what}"));
                Ok(None)
            }
            // A flipped bit of the FORMAT file may make it name a newer format, which is named as well.
            Err(OpenError::Newer { .. }) if self.flipped => Ok(None),
            Err(error) => broken!("refused though nothing was damaged: {error} ({error:?})"),
        }
    }

    fn crash(&mut self, power: bool) {
        if self.random.chance(1, 3) {
            self.damage_an_index();
        }
        if self.random.chance(1, 6) {
            self.damage_a_run();
        }
        if !power {
            self.disk.kill();
            return;
        }
        self.disk.cut_power();
        for promised in self.promised.values_mut() {
            let lost = std::mem::take(&mut promised.unsafe_yet);
            promised.forgiven.extend(lost);
        }
    }

    fn end(&mut self, journal: EmbeddedJournal, end: End) -> Result<(), Broken> {
        self.story.tell(format_args!("{end:?}"));
        if end == End::Closed {
            let closed = journal.close();
            self.story.tell(format_args!("closed: {}", closed.is_ok()));
            if closed.is_ok() {
                self.all_is_safe();
                self.disk.kill();
                drop(journal);
                if self.kind == Kind::Flipped && self.random.chance(1, 2) {
                    self.flip();
                } else if self.random.chance(1, 3) {
                    self.crash(true);
                }
                return Ok(());
            }
        }
        drop(journal);
        self.crash(end == End::PowerCut);
        Ok(())
    }

    /// Uses the store until something ends it.
    fn work(&mut self, journal: &EmbeddedJournal) -> Result<End, Broken> {
        if self.kind != Kind::Flipped && self.random.chance(2, 3) {
            let fault = [Fault::Stop, Fault::Error, Fault::Full][self.random.below_usize(3)];
            self.disk.fail_at(self.random.below(80), fault);
        }
        let answers = Arc::new(Answers::default());
        let sink: Sink = Arc::clone(&answers) as Sink;
        let ends: Vec<Head> = self.streams.iter().map(|id| journal.head(StreamId(*id))).collect();
        let mut ends: BTreeMap<u128, Head> = self.streams.iter().copied().zip(ends).collect();
        for _ in 0..5 + self.random.below(30) {
            let mut synced = false;
            for _ in 0..1 + self.random.below(4) {
                synced |= self.append(journal, &mut ends, &sink);
            }
            self.give_up_something(journal, &mut ends);
            if self.random.chance(1, 4) {
                self.keep_it_small(journal);
            }
            journal.turn();
            let halted = self.take_answers(&answers, synced)?;
            if halted {
                if journal.halted().is_none() {
                    broken!("an append was halted and the engine was not");
                }
                return Ok(if self.random.chance(1, 2) { End::Killed } else { End::PowerCut });
            }
            if self.random.chance(1, 4) {
                self.story.tell(format_args!("rest"));
                journal.rest();
                if journal.halted().is_none() {
                    self.all_is_safe();
                }
                if self.kind == Kind::Flipped && self.random.chance(1, 3) {
                    self.flip();
                }
            }
            if self.random.chance(1, 5) {
                self.check_all(journal)?;
            }
        }
        if self.kind == Kind::Flipped {
            // Before a flip everything must be proven, else damage to the last commit is taken for a torn tail.
            return Ok(End::Closed);
        }
        Ok([End::Closed, End::Killed, End::PowerCut][self.random.below_usize(3)])
    }

    /// Appends a block to some stream; returns whether it asked for a sync.
    fn append(&mut self, journal: &EmbeddedJournal, ends: &mut BTreeMap<u128, Head>, sink: &Sink) -> bool {
        let stream = self.streams[self.random.below_usize(self.streams.len())];
        let expected = ends[&stream];
        let mut builder = BlockBuilder::new(StreamId(stream));
        let mut block = Vec::new();
        let mut offset = expected.offset;
        for _ in 0..1 + self.random.below(4) {
            offset = offset.next();
            let payload = self.payload(stream, offset);
            let conversation = offset.0.is_multiple_of(2).then_some(ConversationId(offset.0 / 10));
            let meta =
                RecordMeta { conversation, previous: offset.before(), at: Timestamp(offset.0), kind: 2 };
            builder.push(offset, meta, |out| out.extend_from_slice(&payload)).unwrap();
            let promised = self.promised.entry(stream).or_default();
            promised.tried.entry(offset.0).or_default().insert(payload.clone());
            block.push((offset.0, payload));
        }
        self.promised.entry(stream).or_default().pending.push_back(block);
        let durability = if self.random.chance(1, 6) { Durability::Synced } else { Durability::Configured };
        let first = expected.offset.next();
        self.story.tell(format_args!("append {first} to {offset} of stream {stream}, {durability:?}"));
        journal.append(StreamId(stream), expected, builder.take().unwrap(), durability, sink);
        ends.insert(stream, Head { offset, token: 0 });
        durability == Durability::Synced
    }

    /// A payload that no other append has; now and then with the log's own headers in it, at every alignment.
    fn payload(&mut self, stream: u128, offset: Offset) -> Vec<u8> {
        self.appends += 1;
        let mut payload = format!("{stream} {offset} {}", self.appends).into_bytes();
        if self.random.chance(1, 20) {
            let files = self.disk.snapshot();
            let newest = files.iter().rfind(|(name, _)| name.ends_with(".segment"));
            let headers: Vec<u8> = newest
                .and_then(|(_, bytes)| bytes.get(8192..8192 + 64).map(<[u8]>::to_vec))
                .unwrap_or_default();
            for pad in 0..8 {
                payload.resize(payload.len() + pad, b'-');
                payload.extend_from_slice(&headers);
            }
        } else {
            let length = [0, 20, 200, 700][self.random.below_usize(4)];
            payload.extend_from_slice(&[b'x'; 700][..length]);
        }
        payload
    }

    /// Does what the broker's keeper does, each step or not.
    fn keep_it_small(&mut self, journal: &EmbeddedJournal) {
        if self.random.chance(1, 2) {
            self.story.tell(format_args!("rotate"));
            journal.rotate();
            journal.turn();
        }
        let now = self.streams.iter().map(|id| journal.head(StreamId(*id)).offset.0).max().unwrap_or(0);
        let retention = Retention {
            keep_ms: self.random.below(200),
            bytes_max: (10 << 10) + self.random.below(60 << 10),
        };
        let due = journal.due(Timestamp(now), &retention);
        if due.base || self.random.chance(1, 3) {
            let written = journal.write_base(&mut |base| write_sections(journal, base));
            self.story.tell(format_args!("base: {}", written.is_ok()));
        }
        if let Some(through) = journal.due(Timestamp(now), &retention).retire {
            self.story.tell(format_args!("retire through {through}"));
            for (stream, promised) in &mut self.promised {
                promised.retired = journal.head(StreamId(*stream)).offset.next().0.max(promised.retired);
            }
            journal.retire(through);
            if self.random.chance(3, 4) {
                journal.turn();
            }
        }
        if self.random.chance(2, 3) {
            let swept = journal.sweep();
            self.story.tell(format_args!("swept: {}", swept.is_ok()));
        }
    }

    fn give_up_something(&mut self, journal: &EmbeddedJournal, ends: &mut BTreeMap<u128, Head>) {
        if self.random.chance(1, 25) {
            let stream = self.streams[self.random.below_usize(self.streams.len())];
            let done = journal.head(StreamId(stream)).offset;
            let before = Offset(self.random.below(done.0.saturating_add(2)));
            self.story.tell(format_args!("trim stream {stream} before {before}"));
            journal.trim(StreamId(stream), before);
            let promised = self.promised.entry(stream).or_default();
            promised.trimmed = promised.trimmed.max(before.0);
        }
        if self.random.chance(1, 120) {
            let index = self.random.below_usize(self.streams.len());
            let stream = self.streams[index];
            self.story.tell(format_args!("delete stream {stream}"));
            journal.delete(StreamId(stream));
            self.promised.entry(stream).or_default().deleted = true;
            self.streams[index] = stream + 3;
            ends.insert(stream + 3, journal.head(StreamId(stream + 3)));
        }
    }

    /// Notes what was promised; returns whether the engine has halted.
    fn take_answers(&mut self, answers: &Answers, synced: bool) -> Result<bool, Broken> {
        let mut halted = false;
        for done in answers.0.lock().unwrap().drain(..) {
            self.story.tell(format_args!("answer {done:?}"));
            let promised = self.promised.entry(done.stream.0).or_default();
            match done.outcome {
                Outcome::Durable(head) => promised.acknowledge(head.offset.0, self.kind)?,
                Outcome::Halted => halted = true,
                Outcome::Fenced(_) | Outcome::Unknown => {
                    broken!("an append in order was answered {:?}", done.outcome)
                }
            }
        }
        if synced && !halted {
            self.all_is_safe();
        }
        Ok(halted)
    }

    fn all_is_safe(&mut self) {
        for promised in self.promised.values_mut() {
            promised.unsafe_yet.clear();
        }
    }

    /// Takes the index of some sealed segment away, or flips a bit of it.
    fn damage_an_index(&mut self) {
        self.damage_one(".index");
    }

    /// Takes a run away, or flips a bit of it.
    fn damage_a_run(&mut self) {
        let damaged = self.damage_one(".run");
        self.damaged_runs.extend(damaged.as_deref().and_then(run_of));
    }

    /// Takes a file whose name ends so away, or flips a bit of it; gives its name, if there is one.
    fn damage_one(&mut self, end: &str) -> Option<String> {
        self.disk.kill();
        let files = self.disk.snapshot();
        let mut files: Vec<_> = files.into_iter().filter(|(name, _)| name.ends_with(end)).collect();
        if files.is_empty() {
            return None;
        }
        let (name, bytes) = files.swap_remove(self.random.below_usize(files.len()));
        if bytes.is_empty() || self.random.chance(1, 2) {
            self.story.tell(format_args!("lose {name}"));
            self.disk.remove(&name).unwrap();
        } else {
            let byte = self.random.below(bytes.len() as u64);
            self.story.tell(format_args!("flip byte {byte} of {name}"));
            self.disk.flip(&name, byte, 3);
        }
        Some(name)
    }

    /// No run is left that no state names.
    fn check_orphans(&self, journal: &EmbeddedJournal) -> Result<(), Broken> {
        let mut named = BTreeSet::new();
        for stream in self.promised.keys() {
            match journal.saved(StreamId(*stream)) {
                Ok(Some(saved)) => named.extend(read_saved(&saved.state).1.iter().map(|aside| aside.run)),
                Ok(None) => {}
                Err(_) if self.flipped => return Ok(()),
                Err(error) => broken!("stream {stream}: {error}"),
            }
        }
        match self.disk.snapshot().keys().filter_map(|name| run_of(name)).find(|run| !named.contains(run)) {
            Some(run) => broken!("run {run} is there and no state names it"),
            None => Ok(()),
        }
    }

    /// What a state says of its runs is true.
    fn check_aside(
        &self,
        journal: &EmbeddedJournal,
        stream: u128,
        state: &State,
        aside: &[Aside],
    ) -> Result<(), Broken> {
        for Aside { run, first, last } in aside {
            let may_fail = self.flipped || self.damaged_runs.contains(run);
            let filter = match journal.run_filter(StreamId(stream), *run) {
                Ok(filter) => Some(filter),
                Err(RunError::Damaged { .. } | RunError::Missing { .. }) if may_fail => None,
                Err(error) => broken!("stream {stream}: {error}, though nothing was done to it"),
            };
            for (offset, crc) in state.range(first..=last) {
                let id = id_of(stream, *offset, *crc);
                if filter.as_ref().is_some_and(|filter| !filter.may_have(id)) {
                    broken!("stream {stream}: the filter of run {run} does not know record {offset}");
                }
                match journal.find_in_run(StreamId(stream), *run, id) {
                    Ok(Some(found)) if found == run_value(stream, *offset) => {}
                    Ok(found) => broken!("stream {stream}: run {run} says {found:?} for record {offset}"),
                    Err(RunError::Damaged { .. } | RunError::Missing { .. }) if may_fail => {}
                    Err(error) => broken!("stream {stream}: record {offset}: {error}"),
                }
            }
            if let Ok(Some(found)) = journal.find_in_run(StreamId(stream), *run, id_of(stream, 0, 0)) {
                broken!("stream {stream}: run {run} says {found:?} for an id that it never had");
            }
        }
        Ok(())
    }

    /// Flips a bit of some file, mostly where there is something.
    fn flip(&mut self) {
        let files = self.disk.snapshot();
        let (name, bytes) = files.iter().nth(self.random.below_usize(files.len())).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let end = if self.random.chance(1, 10) { bytes.len() } else { used };
        let from = if end > 8192 && self.random.chance(9, 10) { 8192 } else { 0 };
        let byte = from + self.random.below_usize(end - from);
        let bit = u8::try_from(self.random.below(8)).unwrap();
        self.story.tell(format_args!("flip bit {bit} of byte {byte} of {name}"));
        self.disk.flip(name, byte as u64, bit);
        self.flipped = true;
    }

    /// Reads everything and holds it against what was promised.
    fn check_all(&mut self, journal: &EmbeddedJournal) -> Result<(), Broken> {
        let streams: Vec<u128> = self.promised.keys().copied().collect();
        for stream in streams {
            self.check(journal, stream)?;
        }
        Ok(())
    }

    fn check(&mut self, journal: &EmbeddedJournal, stream: u128) -> Result<(), Broken> {
        let max_bytes = [1, 500, 5000, 1 << 20][self.random.below_usize(4)];
        let flipped = self.flipped;
        let promised = self.promised.get_mut(&stream).unwrap();
        let mut corrupt: Vec<(u64, u64)> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next = Offset(1);
        loop {
            let batch = match journal.read(StreamId(stream), next, max_bytes) {
                Ok(batch) => batch,
                Err(error) => broken!("stream {stream} can not be read: {error} ({error:?})"),
            };
            let gone = promised.trimmed.max(promised.retired).max(1);
            let mut kept = promised.fixed.range(gone..batch.first.0.max(gone)).map(|(offset, _)| offset);
            if !promised.deleted && kept.any(|offset| !promised.forgiven.contains(offset)) {
                broken!("stream {stream} begins at {}, given up before {gone}", batch.first);
            }
            if batch.entries.is_empty() {
                break;
            }
            for entry in &batch.entries {
                if entry.offset() < next {
                    broken!("stream {stream}: offset {} comes after {next}", entry.offset());
                }
                match entry {
                    Entry::Record(record) => {
                        promised.serve(record.offset.0, &record.payload)?;
                        seen.insert(record.offset.0);
                    }
                    Entry::Corrupt(damage) if flipped => corrupt.push((damage.from.0, damage.to.0)),
                    Entry::Corrupt(damage) => broken!("corrupt though nothing was damaged: {damage:?}"),
                }
                next = entry.last().next();
            }
        }
        let head = journal.head(StreamId(stream)).offset.0;
        if promised.deleted {
            return Ok(());
        }
        let first = journal.first(StreamId(stream)).0.max(promised.trimmed);
        for offset in promised.fixed.keys().filter(|offset| **offset >= first) {
            let named = corrupt.iter().any(|(from, to)| (from..=to).contains(&offset));
            if !seen.contains(offset) && !named && !promised.forgiven.contains(offset) {
                broken!("stream {stream}: record {offset} was acknowledged and is lost");
            }
        }
        match fold(journal, StreamId(stream)) {
            Err(_) if flipped => {}
            Err(error) => broken!("stream {stream} can not be folded: {error}"),
            Ok((state, aside)) => {
                promised.check_state(stream, &state)?;
                self.check_aside(journal, stream, &state, &aside)?;
            }
        }
        let promised = &self.promised[&stream];
        for (offset, payload) in &promised.fixed {
            match journal.kept(StreamId(stream), Offset(*offset)) {
                Ok(Entry::Record(record)) if record.payload[..] == payload[..] => {}
                Ok(Entry::Record(_)) => broken!("stream {stream}: record {offset} was kept as another"),
                Ok(Entry::Corrupt(_)) if flipped => {}
                Ok(Entry::Corrupt(damage)) => broken!("kept and corrupt: {damage:?}"),
                Err(_) if offset % KEPT_EVERY != 0 || flipped => {}
                Err(_) if *offset >= journal.first(StreamId(stream)).0 => {}
                Err(_) if *offset < promised.trimmed || promised.forgiven.contains(offset) => {}
                Err(error) => broken!("stream {stream}: record {offset} is gone and was not kept: {error}"),
            }
        }
        match promised.fixed.keys().next_back() {
            Some(last) if *last > head => {
                broken!("stream {stream} ends at {head}, though {last} was handed out")
            }
            _ => Ok(()),
        }
    }
}

/// What the simulation takes for a stream's state: a checksum of each record that was folded, by offset.
type State = BTreeMap<u64, u32>;

/// The ids of records that lie in a run: which run, and from and to which record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Aside {
    run: RunId,
    first: u64,
    last: u64,
}

/// What the simulation takes for a record's id.
fn id_of(stream: u128, offset: u64, crc: u32) -> Fingerprint {
    let spread = stream.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) ^ u128::from(offset) << 64;
    Fingerprint::from_u128(spread.wrapping_mul(0xda94_2042_e4dd_58b5_94d0_49bb_1331_11eb) ^ u128::from(crc))
}

/// The run whose file is called so.
fn run_of(name: &str) -> Option<RunId> {
    u64::from_str_radix(name.strip_suffix(".run")?, 16).ok().map(RunId)
}

/// Runs of a stream; those before are given up, as if all in them were past due.
const RUNS_KEPT: usize = 3;
/// Ids that are laid aside together.
const RUN_IDS_MIN: usize = 4;

/// A saved state: how many runs, each with its number, first and last record; then offset and checksum of each record.
fn read_saved(saved: &[u8]) -> (State, Vec<Aside>) {
    let number = |raw: &[u8]| u64::from_le_bytes(raw[..8].try_into().unwrap());
    let (aside, state) = saved[8..].split_at(24 * usize::try_from(number(saved)).unwrap());
    let aside = aside.chunks_exact(24);
    let aside = aside.map(|raw| Aside {
        run: RunId(number(raw)),
        first: number(&raw[8..]),
        last: number(&raw[16..]),
    });
    let state = state.chunks_exact(12);
    let state = state.map(|raw| (number(raw), u32::from_le_bytes(raw[8..].try_into().unwrap())));
    (state.collect(), aside.collect())
}

fn write_saved(state: &State, aside: &[Aside]) -> Vec<u8> {
    let mut saved = (aside.len() as u64).to_le_bytes().to_vec();
    for Aside { run, first, last } in aside {
        [run.0, *first, *last].iter().for_each(|number| saved.extend_from_slice(&number.to_le_bytes()));
    }
    for (offset, crc) in state {
        saved.extend_from_slice(&offset.to_le_bytes());
        saved.extend_from_slice(&crc.to_le_bytes());
    }
    saved
}

/// A stream's state from the newest base and the records behind it, as the broker folds it, and what it has in runs.
fn fold(journal: &EmbeddedJournal, stream: StreamId) -> Result<(State, Vec<Aside>), String> {
    let (mut state, mut aside) = (State::new(), Vec::new());
    let mut next = Offset(1);
    if let Some(saved) = journal.saved(stream).map_err(|error| error.to_string())? {
        next = saved.as_of.next();
        (state, aside) = read_saved(&saved.state);
    }
    loop {
        let batch = journal.read(stream, next, 5_000).map_err(|error| error.to_string())?;
        for entry in &batch.entries {
            match entry {
                Entry::Record(record) => {
                    state.insert(record.offset.0, crc32c::crc32c(&record.payload));
                }
                Entry::Corrupt(damage) => return Err(format!("{damage:?}")),
            }
        }
        if batch.next <= next {
            return Ok((state, aside));
        }
        next = batch.next;
    }
}

/// One record in so many is kept beside the state.
const KEPT_EVERY: u64 = 7;

/// What a run says of a record: values are of one width or the other, by the stream.
fn run_value(stream: u128, offset: u64) -> Vec<u8> {
    let copies = if stream.is_multiple_of(2) { 1 } else { 8 };
    offset.to_le_bytes().repeat(copies)
}

fn write_sections(journal: &EmbeddedJournal, base: &mut BaseWriter<'_>) -> std::io::Result<()> {
    for (stream, _) in journal.streams() {
        let (state, mut aside) = match fold(journal, stream) {
            Ok(folded) => folded,
            Err(_) => {
                base.quarantine(stream);
                continue;
            }
        };
        let mut records = BTreeMap::new();
        base.kept_before(stream, &mut |record| drop(records.insert(record.offset, record)))?;
        for offset in state.keys().filter(|offset| **offset % KEPT_EVERY == 0) {
            if let Ok(Entry::Record(record)) = journal.read_one(stream, Offset(*offset)) {
                records.insert(record.offset, record);
            }
        }
        let mut kept = Kept::default();
        records.values().for_each(|record| kept.push(record, &record.payload));
        let as_of = state.keys().next_back().copied().map_or(Offset::ZERO, Offset);
        let first = aside.last().map_or(0, |aside| aside.last + 1);
        let mut ids: Vec<_> =
            state.range(first..).map(|(offset, crc)| (id_of(stream.0, *offset, *crc), *offset)).collect();
        if ids.len() >= RUN_IDS_MIN {
            ids.sort_unstable();
            let mut rows = Rows::new(run_value(stream.0, 0).len(), ids.len());
            ids.iter().for_each(|(id, offset)| rows.push(*id, &run_value(stream.0, *offset)));
            let of = RunOf { stream, from: Timestamp(first), to: Timestamp(as_of.0), rows: &rows };
            let (run, _) = base.run(&of)?;
            aside.push(Aside { run, first, last: as_of.0 });
        }
        let aside = aside.split_off(aside.len().saturating_sub(RUNS_KEPT));
        aside.iter().for_each(|aside| base.names_run(stream, aside.run));
        base.section(stream, as_of, &write_saved(&state, &aside), &kept)?;
    }
    Ok(())
}

impl Promised {
    /// All that was acknowledged is in the state, and nothing that was never appended.
    fn check_state(&self, stream: u128, state: &State) -> Result<(), Broken> {
        for (offset, payload) in &self.fixed {
            let folded = state.get(offset);
            if folded.is_none() && *offset >= self.trimmed && !self.forgiven.contains(offset) {
                broken!("stream {stream}: record {offset} was acknowledged and is not in the state");
            }
            if folded.is_some_and(|crc| *crc != crc32c::crc32c(payload)) {
                broken!("stream {stream}: record {offset} is another in the state");
            }
        }
        for (offset, crc) in state {
            let was_tried = |payload: &Vec<u8>| crc32c::crc32c(payload) == *crc;
            if !self.tried.get(offset).is_some_and(|tried| tried.iter().any(was_tried)) {
                broken!("stream {stream}: the state holds a record {offset} that was never appended");
            }
        }
        Ok(())
    }

    /// The oldest block that waits was acknowledged; it ends at `last`.
    fn acknowledge(&mut self, last: u64, kind: Kind) -> Result<(), Broken> {
        let block = self.pending.pop_front().unwrap_or_default();
        if block.last().is_none_or(|(offset, _)| *offset != last) {
            broken!("the answer for {last} has come in place of another");
        }
        for (offset, payload) in block {
            if kind == Kind::BeforeSync {
                self.unsafe_yet.insert(offset);
            }
            self.fixed.insert(offset, payload);
        }
        Ok(())
    }

    /// A record was served: from now on its offset means this.
    fn serve(&mut self, offset: u64, payload: &[u8]) -> Result<(), Broken> {
        if !self.tried.get(&offset).is_some_and(|tried| tried.contains(payload)) {
            broken!("record {offset} was served with a payload that was never appended");
        }
        match self.fixed.get(&offset) {
            Some(fixed) if fixed != payload => broken!("record {offset} has become another"),
            Some(_) => {}
            None => {
                self.fixed.insert(offset, payload.to_vec());
            }
        }
        // What was lost once and is served again must stay from now on.
        self.forgiven.remove(&offset);
        Ok(())
    }
}

fn number_from_environment(name: &str) -> Option<u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the length of the campaign is no configuration of the broker"
    )]
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Runs the campaign of one kind, or the one seed that was asked for.
fn campaign(kind: Kind) {
    if let Some(seed) = number_from_environment("SHAREDLINE_SEED") {
        if Kind::of(seed) == kind {
            assert_eq!(run(seed, None, true).1, Ok(()), "seed {seed}");
        }
        return;
    }
    let seeds = number_from_environment("SHAREDLINE_SEEDS").unwrap_or(SEEDS);
    let mut ran = 0;
    for seed in (0..seeds).filter(|seed| Kind::of(*seed) == kind) {
        let (story, result) = run(seed, None, false);
        assert_eq!(result, Ok(()), "seed {seed}");
        ran += 1;
        if ran % REPEATED == 0 {
            assert_eq!(run(seed, None, false).0, story, "seed {seed} does not repeat");
        }
    }
    println!("{kind:?}: {ran} seeds ran");
    assert!(ran * Kind::ALL.len() as u64 >= SEEDS_MIN, "only {ran} seeds ran");
}

#[test]
fn nothing_is_lost_where_answers_wait_for_the_sync() {
    campaign(Kind::Synced);
}

#[test]
fn nothing_is_lost_but_by_the_power_where_answers_come_before_the_sync() {
    campaign(Kind::BeforeSync);
}

#[test]
fn nothing_corrupt_is_served_and_all_damage_is_named() {
    campaign(Kind::Flipped);
}

/// The first seed at which the campaign finds that something was left out.
fn first_red(sabotage: Sabotage) -> Option<(u64, Broken)> {
    (0..SABOTAGED_SEEDS_MAX)
        .find_map(|seed| run(seed, Some(sabotage), false).1.err().map(|broken| (seed, broken)))
}

fn goes_red(sabotage: Sabotage) {
    let found = first_red(sabotage);
    println!("{sabotage:?} left out: {found:?}");
    assert!(found.is_some(), "the campaign does not notice that {sabotage:?} was left out");
}

#[test]
fn the_campaign_notices_a_left_out_sync_of_the_data() {
    goes_red(Sabotage::DataSync);
}

#[test]
fn the_campaign_notices_a_left_out_sync_of_the_directory() {
    goes_red(Sabotage::DirectorySync);
}

#[test]
fn the_campaign_notices_a_left_out_check_of_a_record() {
    goes_red(Sabotage::RecordCheck);
}

#[test]
fn the_campaign_notices_that_what_lies_past_the_last_proof_was_not_rewritten() {
    goes_red(Sabotage::Rewriting);
}

#[test]
fn the_campaign_notices_a_run_that_was_not_synced_before_its_base() {
    goes_red(Sabotage::RunSync);
}

#[test]
fn the_campaign_notices_answers_that_do_not_wait() {
    goes_red(Sabotage::Holding);
}
