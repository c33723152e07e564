//! The embedded engine: the journal in one directory of this machine.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::aside;
use super::base::{self, Base, BaseWriter, SavedError, SavedState};
use super::control::Order;
use super::disk::{Disk, DiskLock};
use super::index::Index;
use super::log::{Log, SEGMENT_BYTES, SEGMENT_BYTES_MAX};
use super::observed::{Observed, Stats};
use super::queue::{Append, Queue, Request};
use super::reader::Reader;
use super::recovery::recover;
use super::room::Room;
use super::runs::{self, Run, RunError};
use super::sabotage::Sabotage;
use super::scan::Found;
use super::sealed;
use super::sealed::Sealed;
use super::segment;
use super::segments::{Due, Retention, Segments};
use super::spare::{SpareHandle, is_full};
use super::store::{Keys, OpenError, UNFINISHED};
use super::writer::{Status, Writer};
use super::{
    Block, Completed, Durability, Entry, Halt, HaltWatch, Head, Journal, Outcome, ReadBatch, ReadError, Sink,
    StreamId,
};
use crate::domain::aside::RunId;
use crate::domain::filter::Filter;
use crate::domain::fingerprint::Fingerprint;
use crate::domain::ids::{Offset, Timestamp};

/// How the embedded engine works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether an append is done once the operating system has it, and synced later (`durability = "os"`).
    pub before_sync: bool,
    /// Size of a segment, in bytes; at most [`SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
    /// Whether the engine has threads of its own. Without, nothing happens but in [`EmbeddedJournal::turn`].
    pub threads: bool,
    /// What to leave out, in the test of the tests.
    #[doc(hidden)]
    pub sabotage: Option<Sabotage>,
}

impl Default for Options {
    fn default() -> Self {
        Self { before_sync: false, segment_bytes: SEGMENT_BYTES, threads: true, sabotage: None }
    }
}

/// An open store.
#[derive(Debug)]
pub struct Opened {
    /// The journal.
    pub journal: EmbeddedJournal,
    /// The store's own keys.
    pub keys: Keys,
    /// Whether the store was made just now.
    pub new: bool,
    /// Whether the process before did not end it cleanly.
    pub unclean: bool,
    /// What was found damaged. Records among it are reported again where they are read.
    pub found: Vec<Found>,
}

/// The journal in one directory.
#[derive(Debug)]
pub struct EmbeddedJournal {
    queue: Arc<Queue>,
    status: Arc<Status>,
    index: Arc<Index>,
    segments: Arc<Segments>,
    base: RwLock<Option<Arc<Base>>>,
    disk: Arc<dyn Disk>,
    store: u128,
    /// The last dropped segment, the base and the segment in use when files were swept last.
    swept: Mutex<(u64, u64, u64)>,
    room: Arc<Room>,
    spare: SpareHandle,
    stats: Arc<Stats>,
    /// Damaged places that were found when it was opened.
    damage_found: u64,
    /// Off only for the test of the tests.
    sync_runs: bool,
    reader: Reader,
    driver: Driver,
    lock: Mutex<Option<Lock>>,
}

/// Who runs the writer.
#[derive(Debug)]
enum Driver {
    Thread(Mutex<Option<JoinHandle<()>>>),
    ByHand(Mutex<Option<Box<Writer>>>),
}

struct Lock(#[expect(dead_code, reason = "held until it is dropped")] DiskLock);

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<lock>")
    }
}

impl EmbeddedJournal {
    /// Opens the store on `disk`, and makes one where there is none.
    ///
    /// # Errors
    /// When another process has it, a newer version wrote it, it is damaged in a way that nobody can attribute, or the
    /// disk refuses.
    pub fn open(disk: Arc<dyn Disk>, options: &Options) -> Result<Opened, OpenError> {
        let options =
            &Options { segment_bytes: options.segment_bytes.min(SEGMENT_BYTES_MAX), ..options.clone() };
        let recovered = recover(&disk, options)?;
        let (index, segments) = (Arc::new(recovered.index), Arc::new(recovered.segments));
        let store = recovered.settings.store;
        let (queue, status) = (Arc::new(Queue::default()), Arc::new(Status::default()));
        let files = recovered.files;
        let (room, spare) = (recovered.room, recovered.helper.handle());
        let stats = Arc::clone(&recovered.settings.stats);
        let left = recovered.active.size.saturating_sub(recovered.active.position);
        stats.room_bytes.store(left, Ordering::Relaxed);
        let log = Log::new(
            Arc::clone(&disk),
            Arc::clone(&files),
            recovered.settings,
            recovered.active,
            recovered.helper,
        );
        let (for_index, for_segments) = (Arc::clone(&index), Arc::clone(&segments));
        let writer = Writer::new(log, for_index, for_segments, Arc::clone(&queue), Arc::clone(&status));
        let driver = if options.threads {
            let guard =
                PanicGuard { status: Arc::clone(&status), queue: Arc::clone(&queue), place: disk.place("") };
            let run = move || {
                let _guard = guard;
                writer.run();
            };
            let thread = thread::Builder::new().name("journal-writer".to_owned()).spawn(run);
            let thread = thread.map_err(|error| OpenError::Io {
                operation: "start a thread",
                place: disk.place(""),
                error: Arc::new(error),
            })?;
            Driver::Thread(Mutex::new(Some(thread)))
        } else {
            Driver::ByHand(Mutex::new(Some(Box::new(writer))))
        };
        let check_payloads = options.sabotage != Some(Sabotage::RecordCheck);
        let of_reader = Arc::clone(&stats);
        let reader = Reader { index: Arc::clone(&index), files, check_payloads, stats: of_reader };
        let damage_found = recovered.found.len() as u64;
        let lock = Mutex::new(Some(Lock(recovered.lock)));
        let swept = Mutex::default();
        let base = RwLock::new(recovered.base.map(Arc::new));
        let journal = Self {
            queue,
            status,
            index,
            segments,
            base,
            disk,
            store,
            swept,
            room,
            spare,
            stats,
            damage_found,
            sync_runs: options.sabotage != Some(Sabotage::RunSync),
            reader,
            driver,
            lock,
        };
        let (keys, new, unclean, found) = (recovered.keys, recovered.new, recovered.unclean, recovered.found);
        Ok(Opened { journal, keys, new, unclean, found })
    }

    /// Without threads: commits what was appended since, and answers it, on this thread.
    pub fn turn(&self) {
        if let Driver::ByHand(writer) = &self.driver
            && let Some(writer) = &mut *writer.lock().unwrap_or_else(PoisonError::into_inner)
        {
            writer.turn();
        }
    }

    /// Without threads: does what the writer does when nothing has come for a while.
    pub fn rest(&self) {
        if let Driver::ByHand(writer) = &self.driver
            && let Some(writer) = &mut *writer.lock().unwrap_or_else(PoisonError::into_inner)
            && writer.wants_proof()
        {
            writer.prove(false);
        }
    }

    fn base(&self) -> Option<Arc<Base>> {
        self.base.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Cuts a sealed segment at its end (what lies behind it are zeros that were not needed), and puts its index beside
    /// it.
    fn settle(&self, sealed: &Sealed) -> io::Result<()> {
        let file = self.reader.files.get(sealed.number)?;
        if file.length()? > sealed.end {
            file.set_length(sealed.end)?;
        }
        sealed.put(&*self.disk, self.store)
    }

    /// A run that can not be had is counted each time that it is met.
    fn count_damage<T>(&self, read: Result<T, RunError>) -> Result<T, RunError> {
        if read.is_err() {
            self.stats.corrupt_reads.fetch_add(1, Ordering::Relaxed);
        }
        read
    }

    /// Removes what a failed try has left: it takes room that others need. The next try and the next start do so as well.
    fn remove_leftovers(&self, generation: u64) {
        let _ = self.disk.remove(&base::unfinished(generation));
        let Ok(names) = self.disk.list() else { return };
        // It may have its name already, and be found by the next start; then its runs must be there.
        if names.contains(&base::file_name(generation)) {
            return;
        }
        for name in &names {
            let run = runs::number_in(name.strip_suffix(UNFINISHED).unwrap_or(name));
            if run.is_some_and(|run| runs::is_of(run, generation)) {
                let _ = self.disk.remove(name);
            }
        }
    }

    fn push(&self, request: Request) {
        if let Some(request) = self.queue.push(request) {
            answer_halted(&request);
        }
    }
}

fn answer_halted(request: &Request) {
    if let Request::Append(append) = request {
        append.sink.complete(&mut vec![Completed { stream: append.stream, outcome: Outcome::Halted }]);
    }
}

/// A panic of the writer, which would be a defect of it or of a sink, must not leave appenders waiting for ever.
struct PanicGuard {
    status: Arc<Status>,
    queue: Arc<Queue>,
    place: String,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            let error = Arc::new(io::Error::other("the writer panicked"));
            self.status.halt(Halt { operation: "append", place: std::mem::take(&mut self.place), error });
            self.queue.close();
            let mut waiting = Vec::new();
            self.queue.take(&mut waiting);
            waiting.iter().for_each(answer_halted);
        }
    }
}

impl Journal for EmbeddedJournal {
    fn append(&self, stream: StreamId, expected: Head, block: Block, durability: Durability, sink: &Sink) {
        let sink = Arc::clone(sink);
        self.push(Request::Append(Append { stream, expected, block, durability, sink }));
    }

    fn read(&self, stream: StreamId, from: Offset, max_bytes: usize) -> Result<ReadBatch, ReadError> {
        self.reader.read(stream, from, max_bytes)
    }

    fn read_one(&self, stream: StreamId, offset: Offset) -> Result<Entry, ReadError> {
        self.reader.read_one(stream, offset)
    }

    fn streams(&self) -> Vec<(StreamId, Head)> {
        self.index.streams()
    }

    fn head(&self, stream: StreamId) -> Head {
        self.index.head(stream)
    }

    fn trim(&self, stream: StreamId, before: Offset) {
        let end = self.index.head(stream).offset.next();
        self.push(Request::Order(Order::Trim(stream, before.min(end))));
    }

    fn delete(&self, stream: StreamId) {
        self.push(Request::Order(Order::Delete(stream)));
    }

    fn first(&self, stream: StreamId) -> Offset {
        self.index.first(stream)
    }

    fn saved(&self, stream: StreamId) -> Result<Option<SavedState>, SavedError> {
        self.base().map_or(Ok(None), |base| base.state(stream))
    }

    fn kept(&self, stream: StreamId, offset: Offset) -> Result<Entry, ReadError> {
        let kept = self.base().map_or(Ok(None), |base| base.kept(stream, offset))?;
        kept.ok_or(ReadError::NotFound { stream, offset })
    }

    fn run_filter(&self, stream: StreamId, run: RunId) -> Result<Filter, RunError> {
        let filter = Run::open(&*self.disk, self.store, stream, run).and_then(|run| run.filter());
        self.count_damage(filter)
    }

    fn find_in_run(
        &self,
        stream: StreamId,
        run: RunId,
        key: Fingerprint,
    ) -> Result<Option<Vec<u8>>, RunError> {
        let found = Run::open(&*self.disk, self.store, stream, run).and_then(|run| run.find(key));
        self.count_damage(found)
    }

    fn due(&self, now: Timestamp, retention: &Retention) -> Due {
        let base = self.base();
        let (covered, bytes) = base.map_or((0, 0), |base| (base.covered, base.bytes));
        self.segments.due(now, retention, covered, bytes)
    }

    fn rotate(&self) {
        // Without a writer there is nothing to go over from.
        let _ = self.queue.push(Request::Rotate);
    }

    fn write_base(&self, sections: &mut dyn FnMut(&mut BaseWriter<'_>) -> io::Result<()>) -> io::Result<()> {
        // What is done by now, in all segments before the one in use, is in the states that are saved from now on.
        let covered = self.segments.active().saturating_sub(1);
        let started = Instant::now();
        let before = self.base();
        let generation = before.as_ref().map_or(1, |base| base.generation + 1);
        let mut write = || {
            let (disk, before) = (&*self.disk, before.as_deref());
            let mut writer =
                BaseWriter::begin(disk, self.store, generation, covered, before, self.sync_runs)?;
            sections(&mut writer)?;
            writer.finish(self.index.ends(), self.segments.dropped())
        };
        let mut installed = write();
        if installed.as_ref().is_err_and(is_full) && self.spare.lend() {
            self.remove_leftovers(generation);
            installed = write();
        }
        if installed.is_err() {
            self.remove_leftovers(generation);
            self.stats.base_failures.fetch_add(1, Ordering::Relaxed);
        }
        let installed = installed?;
        self.stats.bases.took(started.elapsed());
        *self.base.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(installed));
        Ok(())
    }

    fn set_aside(&self, stream: StreamId) -> io::Result<()> {
        aside::set_aside(&*self.disk, &self.reader, stream)
    }

    fn retire(&self, through: u64) {
        self.push(Request::Order(Order::Drop(through)));
    }

    fn sweep(&self) -> io::Result<()> {
        let dropped = self.segments.dropped();
        self.reader.files.close_through(dropped);
        let base = self.base();
        let current = base.as_ref().map_or(0, |base| base.generation);
        let now = (dropped, current, self.segments.active());
        if *self.swept.lock().unwrap_or_else(PoisonError::into_inner) == now {
            return Ok(());
        }
        let is_gone = |name: &String| {
            segment::number_in(name)
                .or_else(|| sealed::number_in(name))
                .is_some_and(|number| number <= dropped)
                || base::generation_in(name).is_some_and(|generation| generation < current)
                // A later base that could not be installed may yet be found by the next start.
                || base.as_ref().is_some_and(|base| {
                    runs::number_in(name).is_some_and(|run| !runs::is_later(run, current) && !base.has_run(run))
                })
        };
        let mut gone: Vec<String> = self.disk.list()?.into_iter().filter(is_gone).collect();
        // The oldest first, so that what is left is never a log with a hole.
        gone.sort_unstable();
        for name in &gone {
            self.disk.remove(name)?;
        }
        if !gone.is_empty() {
            self.disk.sync_directory()?;
        }
        while let Some(sealed) = self.segments.take_unsettled() {
            if let Err(error) = self.settle(&sealed) {
                self.segments.give_back(sealed);
                return Err(error);
            }
        }
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(())
    }

    fn pressure(&self) -> Vec<(StreamId, Offset)> {
        Vec::new()
    }

    fn has_room(&self) -> bool {
        self.room.admits()
    }

    fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    fn observed(&self) -> Observed {
        let (segments, segments_bytes) = self.segments.sizes();
        let (retired_segments, retired_bytes) = self.segments.retired();
        let stats = &self.stats;
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        Observed {
            commits: stats.commits.durations(),
            committed_bytes: of(&stats.committed_bytes),
            committed_records: of(&stats.committed_records),
            segments,
            segments_bytes,
            retired_segments,
            retired_bytes,
            bases: stats.bases.durations(),
            base_failures: of(&stats.base_failures),
            base_bytes: self.base().map_or(0, |base| base.bytes),
            runs: self.base().map_or(0, |base| base.runs().count() as u64),
            room_bytes: of(&stats.room_bytes) + self.spare.bytes(),
            corrupt_reads: of(&stats.corrupt_reads),
            damage_found: self.damage_found,
        }
    }

    fn halted(&self) -> Option<Halt> {
        self.status.halted()
    }

    fn on_halt(&self, watch: HaltWatch) {
        self.status.watch(watch);
    }

    fn close(&self) -> Result<(), Halt> {
        self.queue.close();
        match &self.driver {
            Driver::Thread(thread) => {
                if let Some(thread) = thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    // A panic there has halted the engine, which is said below.
                    let _ = thread.join();
                }
            }
            Driver::ByHand(writer) => {
                if let Some(mut writer) = writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    writer.turn();
                    writer.prove(true);
                }
            }
        }
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.halted().map_or(Ok(()), Err)
    }
}

impl Drop for EmbeddedJournal {
    /// With threads, dropping is closing. Without, it is what a crash is: nothing more is written.
    fn drop(&mut self) {
        if matches!(self.driver, Driver::Thread(_)) {
            // Who wants to know closes.
            let _ = self.close();
        }
    }
}
