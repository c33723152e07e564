//! The durable, ordered record of every channel: the trait that its engines implement, and its written contract.
//!
//! **The unit of append is a block**: one stream's batch of records with its first offset, appended whole or not at
//! all. A *stream* is one channel or one portal; its actor is its only appender.

use std::sync::Arc;

use crate::domain::ids::Offset;

/// One channel's or one portal's part of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u128);

/// The end of a stream: its last offset, and an engine's own mark of it (for a fence).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The last offset; zero for an empty stream.
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
    /// The engine has failed and will never append again.
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
/// stream, from the engine's own thread. Must not block.
pub trait CompletionSink: Send + Sync + std::fmt::Debug {
    /// Takes what is finished. The vector may be drained and is reused.
    fn complete(&self, finished: &mut Vec<Completed>);
}

/// A shared sink.
pub type Sink = Arc<dyn CompletionSink>;
