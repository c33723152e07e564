//! The end of the log: the segment in use, and how a commit gets onto the disk. No thread, no queue; the writer drives
//! it, and recovery makes it.
//!
//! **Invariants.** Commit n+1 is written only after the sync of n, or, where answers do not wait for the sync, at most
//! [`UNSYNCED_BYTES_MAX`] later. After a failure nothing is written any more: [`Log`] is then of no use, and the writer
//! drops it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::commit::CommitBuilder;
use super::disk::{Disk, DiskFile};
use super::files::Files;
use super::observed::Stats;
use super::sabotage::Sabotage;
use super::segment::{CONTENT_START, HEADER_COPIES, Position, SegmentHeader, file_name, seed};
use super::spare::{Helper, Spare};
use super::{Block, Halt};

/// Size of a segment unless configured otherwise, in bytes: large enough that making one is rare, small enough that
/// dropping one frees little at a time.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Largest segment that can be configured, in bytes: places in a segment are kept as 32-bit numbers.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Where answers do not wait for the sync: what may have been written and not synced, in bytes. A power cut loses at
/// most this and one commit.
pub const UNSYNCED_BYTES_MAX: u64 = 64 << 20;
/// Where answers do not wait for the sync: syncs that are begun behind the writer's back while a segment fills, so that
/// little is left to wait for at its end.
const SYNCS_PER_SEGMENT: u64 = 8;

/// What does not change while a store is open.
#[derive(Debug, Clone)]
pub(super) struct LogSettings {
    pub(super) store: u128,
    pub(super) segment_bytes: u64,
    /// Whether answers come before the sync.
    pub(super) before_sync: bool,
    pub(super) leaps: u32,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) stats: Arc<Stats>,
}

/// A segment that is open for writing.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) number: u64,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) size: u64,
    /// Where the next commit goes.
    pub(super) position: u64,
    /// The number of the last commit.
    pub(super) commit: u64,
}

/// The end of the log.
#[derive(Debug)]
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    files: Arc<Files>,
    settings: LogSettings,
    active: Active,
    /// All before this place is synced.
    synced: Position,
    /// What the newest commit's header says of it.
    proven: Position,
    /// The end of the newest commit that has blocks.
    content_end: Position,
    builder: CommitBuilder,
    helper: Helper,
    /// Up to where the sync that was last begun reaches.
    syncing: u64,
    /// Records of the commit that is made.
    records: u64,
    /// The commit that was written and is not counted yet: when that began, its bytes and records.
    counting: Option<(Instant, u64, u64)>,
}

/// Where a commit was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) segment: u64,
    pub(super) position: u64,
    /// Where it ends.
    pub(super) end: u64,
}

impl Log {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        files: Arc<Files>,
        settings: LogSettings,
        active: Active,
        helper: Helper,
    ) -> Self {
        let synced = Position { segment: active.number, byte: active.position };
        helper.prepare_spare();
        Self {
            disk,
            files,
            settings,
            active,
            synced,
            // What the segment's header says: `written through`.
            proven: synced,
            content_end: synced,
            builder: CommitBuilder::default(),
            helper,
            syncing: 0,
            records: 0,
            counting: None,
        }
    }

    pub(super) fn before_sync(&self) -> bool {
        self.settings.before_sync
    }

    pub(super) fn leaps(&self) -> u32 {
        self.settings.leaps
    }

    pub(super) fn sabotage(&self) -> Option<Sabotage> {
        self.settings.sabotage
    }

    /// Begins a commit.
    pub(super) fn begin(&mut self) {
        self.records = 0;
        self.builder.begin();
    }

    /// Adds a block to the commit; returns where in it the block begins.
    pub(super) fn add(&mut self, block: &Block) -> usize {
        self.records += u64::from(block.records());
        self.builder.add(block)
    }

    /// Writes the commit.
    pub(super) fn write(&mut self, closing: bool, is_closing: impl Fn() -> bool) -> Result<Written, Halt> {
        let bytes = self.builder.bytes() as u64;
        let begun = Instant::now();
        if self.active.position + bytes > self.active.size {
            self.rotate(bytes, is_closing)?;
        }
        self.note_background_sync()?;
        let number = self.active.commit + 1;
        let position = self.active.position;
        let seed = seed(self.settings.store, self.active.number);
        let commit = self.builder.finish(number, position, self.synced, closing, seed);
        if let Err(error) = self.active.file.write_at(commit, position) {
            return Err(self.halt("write", error));
        }
        self.active.position += bytes;
        self.active.commit = number;
        self.proven = self.synced;
        if self.builder.has_blocks() {
            self.content_end = self.end();
            self.counting = Some((begun, bytes, self.records));
        }
        let left = self.active.size - self.active.position;
        self.settings.stats.room_bytes.store(left, Ordering::Relaxed);
        Ok(Written { segment: self.active.number, position, end: self.active.position })
    }

    /// Makes all that was written stay.
    pub(super) fn sync(&mut self) -> Result<(), Halt> {
        // A failure is told once, to whichever sync comes first: one behind the writer's back may have taken it.
        self.take_over(self.helper.end_sync())?;
        if self.settings.sabotage != Some(Sabotage::DataSync) {
            self.active.file.sync().map_err(|error| self.halt("sync", error))?;
        }
        self.synced = self.end();
        self.count();
        Ok(())
    }

    /// Counts the commit that was written: its answers may be given.
    fn count(&mut self) {
        if let Some((begun, bytes, records)) = self.counting.take() {
            self.settings.stats.committed(begun.elapsed(), bytes, records);
        }
    }

    /// Where answers do not wait for the sync: keeps what is not synced within its bound, without waiting where it can.
    /// A sync that is `due` by the clock is begun however little there is. Returns whether one was begun.
    pub(super) fn sync_behind(&mut self, due: bool) -> Result<bool, Halt> {
        self.note_background_sync()?;
        let unsynced = self.active.position - self.synced_here();
        if unsynced > UNSYNCED_BYTES_MAX.min(self.settings.segment_bytes) {
            return self.sync().map(|()| true);
        }
        let enough = self.settings.segment_bytes / SYNCS_PER_SEGMENT;
        let due = due || self.active.position - self.syncing.max(self.synced_here()) >= enough;
        let begun = due && self.helper.begin_sync(&self.active.file, self.end());
        if begun {
            self.syncing = self.active.position;
        }
        self.count();
        Ok(begun)
    }

    /// Goes over to the next segment; not from one that holds nothing, nor while none is ready. Its number, and where its content begins.
    pub(super) fn go_over(&mut self) -> Result<Option<(u64, u64)>, Halt> {
        // It is asked again; what waits for the disk would hold up everybody.
        if self.active.position == CONTENT_START || !self.helper.has_spare() {
            return Ok(None);
        }
        self.rotate(0, || true)?;
        Ok(Some((self.active.number, self.active.position)))
    }

    /// Whether a header on disk says of all blocks that they are synced.
    pub(super) fn is_proven(&self) -> bool {
        self.proven >= self.content_end
    }

    /// Whether all that was written is synced.
    pub(super) fn is_synced(&self) -> bool {
        self.synced >= self.end()
    }

    fn end(&self) -> Position {
        Position { segment: self.active.number, byte: self.active.position }
    }

    fn synced_here(&self) -> u64 {
        if self.synced.segment == self.active.number { self.synced.byte } else { CONTENT_START }
    }

    /// Takes over what a sync behind the writer's back has achieved.
    fn note_background_sync(&mut self) -> Result<(), Halt> {
        self.take_over(self.helper.finished_sync())
    }

    fn take_over(&mut self, finished: Option<io::Result<Position>>) -> Result<(), Halt> {
        match finished {
            Some(Ok(through)) => {
                self.synced = self.synced.max(through);
                Ok(())
            }
            Some(Err(error)) => Err(self.halt("sync", error)),
            None => Ok(()),
        }
    }

    /// Goes over to the next segment, made for a commit of `bytes` at least. What was written before is synced first,
    /// because the new header says so.
    fn rotate(&mut self, bytes: u64, is_closing: impl Fn() -> bool) -> Result<(), Halt> {
        if self.synced != self.end() {
            self.sync()?;
        }
        let number = self.active.number + 1;
        let spare = self.helper.take_spare(CONTENT_START + bytes, is_closing);
        let spare = spare.map_err(|error| self.halt("make a segment", error))?;
        let size = spare.size;
        let header = SegmentHeader {
            store: self.settings.store,
            number,
            before: self.end(),
            last_commit: self.active.commit,
            written_through: CONTENT_START,
            before_sync: self.settings.before_sync,
            leaps: self.settings.leaps,
            leaps_of_rewritten: self.settings.leaps,
            features: 0,
        };
        let without_directory = self.settings.sabotage == Some(Sabotage::DirectorySync);
        let file = install(&*self.disk, spare, header, !without_directory);
        let file = file.map_err(|error| self.halt("make a segment", error))?;
        self.files.opened(number, &file);
        self.active = Active { number, file, size, position: CONTENT_START, commit: self.active.commit };
        self.synced = self.end();
        self.proven = self.synced;
        self.syncing = 0;
        self.helper.prepare_spare();
        Ok(())
    }

    fn halt(&self, operation: &'static str, error: io::Error) -> Halt {
        Halt { operation, place: self.disk.place(&file_name(self.active.number)), error: Arc::new(error) }
    }
}

/// Makes a segment of a file that has its content: the header is written and synced, then the file gets its name.
pub(super) fn install(
    disk: &dyn Disk,
    spare: Spare,
    header: SegmentHeader,
    sync_directory: bool,
) -> io::Result<Arc<dyn DiskFile>> {
    for copy in HEADER_COPIES {
        spare.file.write_at(&header.to_bytes(), copy)?;
    }
    spare.file.sync()?;
    disk.rename(&spare.name, &file_name(header.number))?;
    if sync_directory {
        disk.sync_directory()?;
    }
    Ok(spare.file)
}
