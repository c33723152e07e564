//! The durable, ordered record of every channel: the trait that its engines implement, and its written contract.
//!
//! **The unit of append is a block**: one stream's batch of records with its first offset, appended whole or not at
//! all. A *stream* is one channel or one portal; its actor is its only appender.
//!
//! ```text
//!  channel's actor ── BlockBuilder ──▶ Block ── append ──▶ queue ──▶ writer thread ── one write, one sync ──▶ disk
//!        ▲                                                              │
//!        └──────────────── CompletionSink, once a commit ◀──────────────┘        reading threads ── read ──▶ disk
//! ```
//!
//! # The contract, for every engine
//! - **Append.** [`Journal::append`] returns at once. Its outcome is told to its sink, exactly once; for one stream in
//!   the order of the appends. `Durable` means that the block is in the journal whole and will be there after a crash,
//!   in the sense of its [`Durability`]. What is not answered `Durable` may or may not be there afterwards, but a block
//!   is never there in part, and never without all blocks of its stream before it.
//! - **Fence.** `expected` is the end of the stream as the appender knows it, appends under way included. If the stream
//!   ends elsewhere, or the block does not begin behind that end, nothing is appended: `Fenced`.
//! - **Offsets** rise. Inside a block there is no hole; between two blocks there may be one, after a crash in the mode
//!   that acknowledges before the sync: there [`Journal::head`] has already leapt past all that may have been handed
//!   out, and the next block begins behind it like any other.
//! - **Read.** Serves only what is done, never what might still be lost in the sense of its durability, and never a
//!   byte whose checksum does not match: such a record is reported as [`Entry::Corrupt`], in its place.
//! - **Runs.** A state in a base may name runs: ids that it does not hold itself. Each is whole and durable before its base
//!   is, and stays for as long as the installed base names it. One that is damaged or missing is an error where it is
//!   asked for, never a wrong answer, and nothing else fails for it.
//! - **Halt.** After a failed write or sync an engine never appends again and never tries again: everything under way
//!   and all that comes later is answered `Halted`. Reading goes on.
//!
//! # Layout
//! | on disk | `segment` › `commit` › [`block`] › [`record`] › [`payload`] (of `codec`'s shapes); `control`: the engine's own records; `store`: `FORMAT` and `keys` |
//! | a base | [`base`], [`state`]: the state of all streams, so that segments may go · `segments`: when they may · `sealed`: what one holds, beside it · `runs`: ids that have left memory · `aside`: what can not be folded |
//! | the embedded engine | [`engine`]: the trait · `queue` › `writer` › `log`: appending · `index`, `reader`, `files`: reading · `recovery`, `scan`: opening · `verify`: every byte · `spare`: work behind the writer's back · `room`: whether there is any · `observed`: what it counts of itself |
//! | beneath | [`disk`]: the one trait for files, and the real one · [`sim_disk`]: one that fails |
//! | beside | [`memory`]: the engine of tests |

mod aside;
pub mod base;
pub mod block;
mod codec;
mod commit;
mod control;
pub mod disk;
pub mod engine;
mod files;
mod index;
mod log;
pub mod memory;
mod observed;
pub mod payload;
mod queue;
mod reader;
pub mod record;
mod recovery;
mod room;
mod runs;
#[doc(hidden)]
pub mod sabotage;
mod scan;
mod sealed;
mod segment;
mod segments;
pub mod sim_disk;
mod spare;
pub mod state;
mod store;
mod verify;
mod writer;

use std::fmt;
use std::io;
use std::sync::Arc;

use siphasher::sip128::SipHasher24;

use crate::domain::aside::RunId;
use crate::domain::filter::Filter;
use crate::domain::fingerprint::Fingerprint;
use crate::domain::ids::{ChannelId, Offset, PortalId, Timestamp};

pub use base::{BaseWriter, Kept, SavedError, SavedState};
pub use block::{Block, BlockBuilder, RecordMeta};
pub use engine::{EmbeddedJournal, Opened, Options};
pub use log::{SEGMENT_BYTES, SEGMENT_BYTES_MAX, UNSYNCED_BYTES_MAX};
pub use observed::{DURATION_BOUNDS_SECONDS, Durations, Observed};
pub use record::{Damage, Entry, RawRecord};
pub use runs::{RunError, RunOf};
pub use scan::Found;
pub use segment::{FORMAT, LEAP};
pub use segments::{Due, Retention};
pub use store::{Keys, OpenError};
pub use verify::{Verified, verify};

/// One channel's or one portal's part of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u128);

impl StreamId {
    /// The engine's own: trims and deletions. Nobody else appends to it.
    pub const CONTROL: Self = Self(0);

    /// The stream of a portal: its rosters and the directory of its channels. The same in every run.
    #[must_use]
    pub fn of_portal(portal: &PortalId) -> Self {
        // A fixed key: the name must come out the same for ever, and portals are named by the operator alone.
        let hasher = SipHasher24::new_with_keys(0x7368_6172_6564_6c69, 0x6e65_2e70_6f72_7461);
        Self(hasher.hash(portal.as_str().as_bytes()).as_u128())
    }
}

impl From<ChannelId> for StreamId {
    fn from(channel: ChannelId) -> Self {
        Self(channel.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The end of a stream: its last offset, and an engine's own mark of it (for a fence).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The last offset; zero for an empty stream. The next block begins behind it.
    pub offset: Offset,
    /// The engine's own.
    pub token: u64,
}

/// When an append counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As the engine is configured: after a sync, or once the operating system has it.
    Configured,
    /// After a sync in every mode: nothing may happen before it is on disk (a reply's `handed`).
    Synced,
}

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable; this is the stream's new end.
    Durable(Head),
    /// Somebody else has appended since `expected`; nothing was appended.
    Fenced(Head),
    /// It may or may not have been appended.
    Unknown,
    /// The engine has failed, or was closed, and will never append again.
    Halted,
}

/// A finished append.
#[derive(Debug, Clone)]
pub struct Completed {
    /// Whose.
    pub stream: StreamId,
    /// What became of it.
    pub outcome: Outcome,
}

/// Where finished appends are told: called once per commit with all of them that belong to this sink, in order per
/// stream, from the engine's own thread (from the appender's, once the engine is closed). Must not block.
pub trait CompletionSink: Send + Sync + fmt::Debug {
    /// Takes what is finished. The vector may be drained and is reused.
    fn complete(&self, finished: &mut Vec<Completed>);
}

/// A shared sink. Two appends have the same sink if it is the same allocation.
pub type Sink = Arc<dyn CompletionSink>;

/// What a read found.
#[derive(Debug, Clone, Default)]
pub struct ReadBatch {
    /// The records, by rising offset.
    pub entries: Vec<Entry>,
    /// Where to read on.
    pub next: Offset,
    /// The first offset that was not trimmed: what lies between the offset asked for and this one is gone.
    pub first: Offset,
}

/// Why a read failed. The stream may still be appended to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The stream has no record with this offset (any more).
    #[error("stream {stream} has no record at offset {offset}")]
    NotFound {
        /// The stream.
        stream: StreamId,
        /// The offset asked for.
        offset: Offset,
    },
    /// The disk refused.
    #[error("read of {place} at byte {position}")]
    Io {
        /// The file.
        place: String,
        /// Where in it.
        position: u64,
        /// Why.
        #[source]
        error: Arc<io::Error>,
    },
}

/// Why an engine has stopped appending, for good.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the journal has halted: {operation} of {place} failed")]
pub struct Halt {
    /// What it was doing.
    pub operation: &'static str,
    /// With which file.
    pub place: String,
    /// Why that failed.
    #[source]
    pub error: Arc<io::Error>,
}

/// Called once, with the reason, when an engine halts.
pub type HaltWatch = Box<dyn FnOnce(&Halt) + Send>;

/// A durable, ordered record of streams. The module's documentation has the contract.
pub trait Journal: Send + Sync + fmt::Debug {
    /// Appends a block whose first offset lies behind `expected`; returns at once. The outcome goes to `sink`.
    fn append(&self, stream: StreamId, expected: Head, block: Block, durability: Durability, sink: &Sink);

    /// Whether a stream may have only one append under way, because `expected` needs the token of the one before.
    fn one_append_in_flight(&self) -> bool {
        false
    }

    /// Reads records from `from` on, in all about `max_bytes` of them, one at least if there is one. Blocks.
    ///
    /// # Errors
    /// When the disk refuses. A record with a wrong checksum is no error but an [`Entry::Corrupt`].
    fn read(&self, stream: StreamId, from: Offset, max_bytes: usize) -> Result<ReadBatch, ReadError>;

    /// Reads the record at `offset`. Blocks.
    ///
    /// # Errors
    /// When there is no such record (any more), or the disk refuses.
    fn read_one(&self, stream: StreamId, offset: Offset) -> Result<Entry, ReadError>;

    /// All streams that have records or had some, with their ends.
    fn streams(&self) -> Vec<(StreamId, Head)>;

    /// The end of a stream: what is done, not what is under way.
    fn head(&self, stream: StreamId) -> Head;

    /// Gives up the records before `before`. They are no longer read; the engine frees their room when it can.
    fn trim(&self, stream: StreamId, before: Offset);

    /// Gives up a whole stream. Its id is not used again.
    fn delete(&self, stream: StreamId);

    /// The first offset of a stream that is still there; behind its end if none is.
    fn first(&self, stream: StreamId) -> Offset;

    /// A stream's state from the newest base, where that has one. Blocks.
    ///
    /// # Errors
    /// When it is damaged, the stream was quarantined, or the disk refuses.
    fn saved(&self, stream: StreamId) -> Result<Option<SavedState>, SavedError> {
        let _ = stream;
        Ok(None)
    }

    /// A record that the newest base keeps beside the stream's state. Blocks.
    ///
    /// # Errors
    /// When there is none, or the disk refuses.
    fn kept(&self, stream: StreamId, offset: Offset) -> Result<Entry, ReadError> {
        Err(ReadError::NotFound { stream, offset })
    }

    /// What may be in a stream's run, which its state names. Blocks.
    ///
    /// # Errors
    /// When it is missing or damaged, or the disk refuses: its rows count as unseen.
    fn run_filter(&self, stream: StreamId, run: RunId) -> Result<Filter, RunError> {
        let _ = stream;
        Err(RunError::Missing { place: run.to_string() })
    }

    /// The value that a stream's run has for a key; none where it does not have the key. Blocks.
    ///
    /// # Errors
    /// When that part is missing or damaged, or the disk refuses: the key counts as unseen.
    fn find_in_run(
        &self,
        stream: StreamId,
        run: RunId,
        key: Fingerprint,
    ) -> Result<Option<Vec<u8>>, RunError> {
        let _ = (stream, key);
        Err(RunError::Missing { place: run.to_string() })
    }

    /// What retention asks for now: nothing, of an engine that keeps all.
    fn due(&self, now: Timestamp, retention: &Retention) -> Due {
        let _ = (now, retention);
        Due::default()
    }

    /// Asks to go over to a new segment, so that what was written so far can go as a whole.
    fn rotate(&self) {}

    /// Writes and installs a base: `sections` writes those of all streams. Blocks.
    ///
    /// # Errors
    /// When the disk refuses; then the base before stays.
    fn write_base(&self, sections: &mut dyn FnMut(&mut BaseWriter<'_>) -> io::Result<()>) -> io::Result<()> {
        let _ = sections;
        Ok(())
    }

    /// Copies what can be read of a stream's records to a file of their own, as they are, before retention takes them.
    /// For a stream whose state can not be had; what was set aside once stays as it is. Blocks.
    ///
    /// # Errors
    /// When the disk refuses.
    fn set_aside(&self, stream: StreamId) -> io::Result<()> {
        let _ = stream;
        Ok(())
    }

    /// Gives up the segments up to one that [`Due::retire`] named.
    fn retire(&self, through: u64) {
        let _ = through;
    }

    /// Removes files that are not needed any more. Blocks.
    ///
    /// # Errors
    /// When the disk refuses; it can be tried again.
    fn sweep(&self) -> io::Result<()> {
        Ok(())
    }

    /// Streams that keep the engine from freeing room, with the offset before which they should be trimmed.
    fn pressure(&self) -> Vec<(StreamId, Offset)>;

    /// Whether there is room for new work. Without, what ends work (acknowledgements, outcomes, leaving) may still be
    /// appended.
    fn has_room(&self) -> bool {
        true
    }

    /// Bytes appended and not yet finished: what an appender bounds itself by.
    fn queued_bytes(&self) -> usize;

    /// The engine at this moment, for whoever observes it; nothing, of one that counts nothing.
    fn observed(&self) -> Observed {
        Observed::default()
    }

    /// Why the engine has halted, if it has.
    fn halted(&self) -> Option<Halt>;

    /// Calls `watch` when the engine halts; at once if it has halted already. Closing is no halt.
    fn on_halt(&self, watch: HaltWatch);

    /// Finishes what was appended, makes it durable in every mode and appends no more. A second call does nothing.
    ///
    /// # Errors
    /// When the engine has halted, before or meanwhile.
    fn close(&self) -> Result<(), Halt>;
}
