//! From the journal's writer back to the actors: one wake-up of an Arbiter a commit, whatever the number of channels.
//!
//! The writer's thread puts finished appends into a [`Completions`]; a task on the Arbiter hands each stream's on to
//! its owner.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use actix::Recipient;
use tokio::sync::Notify;

use crate::journal::{Completed, CompletionSink, Outcome, Sink, StreamId};

/// What became of one append of the stream that the actor owns; in order.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct Appended(pub(super) Outcome);

/// Finished appends of the streams whose owners live on one Arbiter.
#[derive(Debug, Default)]
pub(super) struct Completions {
    finished: Mutex<Vec<Completed>>,
    ready: Notify,
    owners: Mutex<HashMap<StreamId, Recipient<Appended>>>,
}

impl CompletionSink for Completions {
    fn complete(&self, finished: &mut Vec<Completed>) {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).append(finished);
        self.ready.notify_one();
    }
}

impl Completions {
    /// As the journal wants it.
    pub(super) fn sink(self: &Arc<Self>) -> Sink {
        Arc::clone(self) as Sink
    }

    /// From now on the stream's appends are told to `owner`.
    pub(super) fn own(&self, stream: StreamId, owner: Recipient<Appended>) {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(stream, owner);
    }

    /// Hands on what is finished, for as long as the Arbiter runs.
    pub(super) async fn hand_on(self: Arc<Self>) {
        let mut finished = Vec::new();
        loop {
            self.ready.notified().await;
            mem::swap(&mut finished, &mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner));
            let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
            for completed in finished.drain(..) {
                if let Some(owner) = owners.get(&completed.stream) {
                    // An owner's mailbox has no limit; a closed one belongs to an actor that has stopped.
                    let _ = owner.try_send(Appended(completed.outcome));
                }
            }
        }
    }
}
