//! What is done behind the writer's back: the next segment is made ahead of need, and, where answers do not wait for it,
//! the sync.
//!
//! A segment is filled with zeros when it is made, because a sync then has nothing to do but its data (112 µs for 44 KiB
//! against 180). Under a load that fills one within moments it is only reserved: there commits are large, a sync of one
//! costs as much either way, and the zeros would be a second write of every byte (40 ms of processor time for 64 MiB, and
//! a stop of all syncs while the disk takes them).
//!
//! One thread does both, a step at a time, so that neither holds up the other. Without threads (a simulation) both are
//! done where they are asked for.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::disk::{Disk, DiskFile};
use super::room::Room;
use super::segment::Position;
use super::store::UNFINISHED;

/// Zeros written at a time, in bytes.
const FILL_BYTES: usize = 1 << 20;

/// Size of a segment that a full disk may still have room for, in bytes: a thousand outcomes.
const SMALL_BYTES: u64 = 1 << 20;
/// A segment that fills within this time is followed by one that is only reserved.
const FILLS_FAST: Duration = Duration::from_secs(30);
/// After a segment could not be made, it is tried again so often.
const RETRY_AFTER: Duration = Duration::from_secs(1);

static ZEROS: [u8; FILL_BYTES] = [0; FILL_BYTES];

/// A file of zeros that is no segment yet.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) name: String,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) size: u64,
}

/// Does work behind the writer's back.
#[derive(Debug)]
pub(super) struct Helper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    size: u64,
    room: Arc<Room>,
    /// Numbers the names of spares, so that two never meet.
    made: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    spare: Ahead,
    sync: Sync,
    stop: bool,
    /// When a spare was taken last.
    taken: Option<Instant>,
    /// Whether segments fill so fast that the next one is only reserved.
    fills_fast: bool,
}

/// The spare segment's state.
#[derive(Debug, Default)]
enum Ahead {
    #[default]
    NotWanted,
    Wanted,
    Making,
    Ready(Spare),
    /// None could be made; it is tried again at that time.
    Failed(Instant),
}

/// The state of the sync behind the writer's back.
#[derive(Debug, Default)]
enum Sync {
    #[default]
    None,
    Wanted(Arc<dyn DiskFile>, Position),
    Running,
    Finished(io::Result<Position>),
}

impl Helper {
    /// A helper that makes segments of `size` bytes; with a thread of its own, or doing all when asked.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        size: u64,
        room: Arc<Room>,
        with_thread: bool,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            disk,
            size,
            room,
            made: AtomicU64::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread = if with_thread {
            let shared = Arc::clone(&shared);
            let builder = thread::Builder::new().name("journal-helper".to_owned());
            Some(builder.spawn(move || shared.run())?)
        } else {
            None
        };
        Ok(Self { shared, thread })
    }

    /// Asks for a spare segment, if there is none.
    pub(super) fn prepare_spare(&self) {
        if self.thread.is_none() {
            return;
        }
        let mut state = self.shared.lock();
        if matches!(state.spare, Ahead::NotWanted) {
            state.spare = Ahead::Wanted;
            self.shared.changed.notify_all();
        }
    }

    /// Takes the spare segment, or makes one that has `size` bytes at least. Where the disk has no room for a whole one,
    /// a small one is made, for what ends work; where it has none even for that, waits until it has, or `is_closing`. Any
    /// other failure of the disk is one at once.
    pub(super) fn take_spare(&self, size: u64, is_closing: impl Fn() -> bool) -> io::Result<Spare> {
        let whole = size.max(self.shared.size);
        if self.thread.is_none() || whole > self.shared.size {
            return self.shared.make(whole, false, || true);
        }
        let mut state = self.shared.lock();
        loop {
            match std::mem::take(&mut state.spare) {
                Ahead::Ready(spare) => {
                    let before = state.taken.replace(Instant::now());
                    state.fills_fast = before.is_some_and(|before| before.elapsed() < FILLS_FAST);
                    return Ok(spare);
                }
                Ahead::NotWanted => state.spare = Ahead::Wanted,
                Ahead::Failed(again) => {
                    state.spare = Ahead::Failed(again);
                    drop(state);
                    match self.shared.make(size.max(SMALL_BYTES).min(whole), false, || true) {
                        Ok(small) => return Ok(small),
                        Err(error) if !is_full(&error) || is_closing() => return Err(error),
                        Err(_) => {}
                    }
                    state = self.shared.lock();
                }
                other => state.spare = other,
            }
            self.shared.changed.notify_all();
            let waited = self.shared.changed.wait_timeout(state, RETRY_AFTER);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether a segment can be taken without waiting for the disk.
    pub(super) fn has_spare(&self) -> bool {
        self.thread.is_none() || matches!(self.shared.lock().spare, Ahead::Ready(_))
    }

    /// What else may give the spare up.
    pub(super) fn handle(&self) -> SpareHandle {
        SpareHandle(Arc::clone(&self.shared))
    }

    /// Begins to sync what the file has up to `end`; false if the sync before is still under way.
    pub(super) fn begin_sync(&self, file: &Arc<dyn DiskFile>, end: Position) -> bool {
        let mut state = self.shared.lock();
        if !matches!(state.sync, Sync::None) {
            return false;
        }
        if self.thread.is_some() {
            state.sync = Sync::Wanted(Arc::clone(file), end);
            self.shared.changed.notify_all();
        } else {
            state.sync = Sync::Finished(file.sync().map(|()| end));
        }
        true
    }

    /// Ends the sync that was begun: waits for it if it runs, forgets it if it does not yet. What became of it.
    pub(super) fn end_sync(&self) -> Option<io::Result<Position>> {
        let mut state = self.shared.lock();
        while matches!(state.sync, Sync::Running) {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match std::mem::take(&mut state.sync) {
            Sync::Finished(result) => Some(result),
            _ => None,
        }
    }

    /// What became of the sync that was begun, once it is finished.
    pub(super) fn finished_sync(&self) -> Option<io::Result<Position>> {
        let mut state = self.shared.lock();
        match std::mem::take(&mut state.sync) {
            Sync::Finished(result) => Some(result),
            other => {
                state.sync = other;
                None
            }
        }
    }
}

/// Whether there was no room, which may come back, and not a failure of the disk.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Gives the spare up where the disk is needed for something that frees more of it.
#[derive(Debug)]
pub(super) struct SpareHandle(Arc<Shared>);

impl SpareHandle {
    /// Bytes of the spare segment; none while there is none.
    pub(super) fn bytes(&self) -> u64 {
        match &self.0.lock().spare {
            Ahead::Ready(spare) => spare.size,
            _ => 0,
        }
    }

    /// Removes the spare, if one is ready; it is made again after a moment, and until then no new work is let in.
    pub(super) fn lend(&self) -> bool {
        let mut state = self.0.lock();
        let Ahead::Ready(spare) = &state.spare else { return false };
        // Should it stay, the next start removes it.
        let _ = self.0.disk.remove(&spare.name);
        state.spare = Ahead::Failed(Instant::now() + RETRY_AFTER);
        self.0.room.spare_has_failed();
        self.0.changed.notify_all();
        true
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook; nothing is left to do about it here.
            let _ = thread.join();
        }
        if let Ahead::Ready(spare) = std::mem::take(&mut self.shared.lock().spare) {
            // The next start removes it as well.
            let _ = self.shared.disk.remove(&spare.name);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.stop {
            if matches!(state.sync, Sync::Wanted(..)) {
                state = self.sync(state);
            } else if matches!(state.spare, Ahead::Wanted) {
                state.spare = Ahead::Making;
                let only_reserve = state.fills_fast;
                drop(state);
                let made = self.make(self.size, only_reserve, || self.between_steps());
                state = self.lock();
                state.spare = match made {
                    Ok(spare) => {
                        self.room.spare_is_ready();
                        Ahead::Ready(spare)
                    }
                    Err(_) => {
                        self.room.spare_has_failed();
                        Ahead::Failed(Instant::now() + RETRY_AFTER)
                    }
                };
                self.changed.notify_all();
            } else if let Ahead::Failed(again) = state.spare {
                match again.checked_duration_since(Instant::now()) {
                    Some(left) => {
                        let waited = self.changed.wait_timeout(state, left);
                        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                    }
                    None => state.spare = Ahead::Wanted,
                }
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Serves a sync that waits; false if the helper is to stop.
    fn between_steps(&self) -> bool {
        let state = self.lock();
        if state.stop {
            return false;
        }
        drop(self.sync(state));
        true
    }

    fn sync<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        match std::mem::take(&mut state.sync) {
            Sync::Wanted(file, end) => {
                state.sync = Sync::Running;
                drop(state);
                let result = file.sync().map(|()| end);
                state = self.lock();
                state.sync = Sync::Finished(result);
                self.changed.notify_all();
            }
            other => state.sync = other,
        }
        state
    }

    /// Makes a file of `size` zeros, written or only reserved; asks `go_on` between steps.
    fn make(&self, size: u64, only_reserve: bool, go_on: impl Fn() -> bool) -> io::Result<Spare> {
        let name = format!("spare-{}{UNFINISHED}", self.made.fetch_add(1, Ordering::Relaxed));
        let file = self.disk.create(&name)?;
        let fill = || {
            if only_reserve {
                match file.reserve(size) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                    reserved => return reserved.and_then(|()| file.sync()),
                }
            }
            let mut filled = 0;
            while filled < size {
                let step = usize::try_from(size - filled).unwrap_or(FILL_BYTES).min(FILL_BYTES);
                file.write_at(ZEROS.get(..step).unwrap_or_default(), filled)?;
                filled += step as u64;
                if !go_on() {
                    return Err(io::Error::from(io::ErrorKind::Interrupted));
                }
            }
            // Once, at the end (measured under full load: commits of 256 records have a 99th percentile of 0.9 ms with it,
            // of 5 to 10 ms with a sync for each 1 or 4 MiB, because each of those holds up a commit's own).
            file.sync()
        };
        match fill() {
            Ok(()) => Ok(Spare { name, file, size }),
            Err(error) => {
                // It is removed at the next start if not now.
                let _ = self.disk.remove(&name);
                Err(error)
            }
        }
    }
}
