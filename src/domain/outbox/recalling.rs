//! Replies whose outcome lies in runs on disk: what must be looked for before a decision, and what was found.
//!
//! ```text
//!  recall_named, recall_message, recall_reply ─▶ Recall ─look─▶ Recalled ─▶ recalled ─▶ decide, apply ─▶ forget_recalled
//!                                                  │ by whoever can read runs
//! ```
//!
//! **Invariant:** a decision on what was recalled is the one that would be made had nothing been laid aside. A run
//! that can not be read has no filter, and is not looked into: what it has counts as unseen.

use super::Outbox;
use super::done::{Outcome, Recalled as Found, outcome_key};
use crate::domain::aside::{Aside, LaidAside, Movable, RunId, Shelf, record_in};
use crate::domain::filter::Filter;
use crate::domain::fingerprint::Fingerprint;
use crate::domain::ids::{MessageId, Offset, ReplyId, ServiceId, Timestamp};

/// What must be looked for in runs.
#[derive(Debug, Clone)]
pub struct Recall {
    by: By,
    /// Where the reply is found by its id or its message, the newest run first.
    runs: Vec<RunId>,
    /// Where it is found what became of it, the newest run first.
    outcomes: Vec<(RunId, Filter)>,
}

/// What of the reply is known.
#[derive(Debug, Clone, Copy)]
enum By {
    Id(Fingerprint),
    Message(Fingerprint),
    Record(Offset),
}

/// What was found, for the next decision.
#[derive(Debug, Default)]
pub struct Recalled(Found);

impl Recall {
    /// Looks: `find` gives the value that a run has for a key.
    ///
    /// # Errors
    /// The first that `find` gives.
    pub fn look<E>(
        &self,
        mut find: impl FnMut(RunId, Fingerprint) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Recalled, E> {
        let mut found = Found::default();
        let reply = match self.by {
            By::Record(reply) => Some(reply),
            By::Id(key) | By::Message(key) => {
                let mut reply = None;
                for run in &self.runs {
                    reply = find(*run, key)?.as_deref().and_then(record_in);
                    if reply.is_some() {
                        break;
                    }
                }
                let known = reply.map(|reply| (key, reply));
                match self.by {
                    By::Id(_) => found.id = known,
                    _ => found.message = known,
                }
                reply
            }
        };
        let Some(reply) = reply else { return Ok(Recalled(found)) };
        let key = outcome_key(reply);
        for (run, _) in self.outcomes.iter().filter(|(_, filter)| filter.may_have(key)) {
            if let Some(outcome) = find(*run, key)?.as_deref().and_then(Outcome::in_row) {
                found.outcome = Some((reply, *run, outcome));
                break;
            }
        }
        Ok(Recalled(found))
    }
}

impl Outbox {
    /// What must be looked for before it is decided about the reply of this name; nothing, where all is in memory.
    #[must_use]
    pub fn recall_named(&self, service: &ServiceId, reply_id: &ReplyId) -> Option<Recall> {
        if !self.done.has_aside() {
            return None;
        }
        let key = self.fingerprints.reply_id(service, reply_id);
        match self.offset_by(&key) {
            Some(reply) => self.recall_reply(reply),
            None => self.recall_by(By::Id(key), Shelf::ReplyIds, key),
        }
    }

    /// The same about the reply that a message was.
    #[must_use]
    pub fn recall_message(&self, message_id: &MessageId) -> Option<Recall> {
        if !self.done.has_aside() {
            return None;
        }
        let key = self.fingerprints.message_id(message_id);
        match self.done.reply_of(&key) {
            Some(reply) => self.recall_reply(reply),
            None => self.recall_by(By::Message(key), Shelf::Sent, key),
        }
    }

    /// The same about the reply of a record.
    #[must_use]
    pub fn recall_reply(&self, reply: Offset) -> Option<Recall> {
        let is_here = !self.done.has_aside() || self.open.contains_key(&reply) || self.done.is_here(reply);
        let key = outcome_key(reply);
        if is_here || !self.done.outcomes_aside().any(|laid| laid.may_have(key)) {
            return None;
        }
        Some(Recall { by: By::Record(reply), runs: Vec::new(), outcomes: self.outcomes() })
    }

    fn recall_by(&self, by: By, shelf: Shelf, key: Fingerprint) -> Option<Recall> {
        let runs = self.done.aside(shelf)?.holders(key);
        (!runs.is_empty()).then(|| Recall { by, runs, outcomes: self.outcomes() })
    }

    fn outcomes(&self) -> Vec<(RunId, Filter)> {
        let laid = self.done.outcomes_aside();
        laid.filter_map(|laid| Some((laid.run, laid.filter.clone()?))).collect()
    }

    /// What was found holds until [`forget_recalled`](Self::forget_recalled): for the one decision, and its records.
    pub fn recalled(&mut self, Recalled(found): Recalled) {
        self.done.set_recalled(found);
    }

    /// The decision is made.
    pub fn forget_recalled(&mut self) {
        self.done.set_recalled(Found::default());
    }

    /// What lies in runs of a shelf; nothing, where it is not of replies.
    #[must_use]
    pub const fn aside(&self, shelf: Shelf) -> Option<&Aside> {
        self.done.aside(shelf)
    }

    /// The same, where filters become known.
    pub const fn aside_mut(&mut self, shelf: Shelf) -> Option<&mut Aside> {
        self.done.aside_mut(shelf)
    }

    /// The periods of a shelf that have so many entries in memory at least; of a time before that of `now` only, where
    /// that is given: who has no time of his own is looked for in every run, so each should be of a whole period.
    #[must_use]
    pub fn movable_periods(&self, shelf: Shelf, entries_min: usize, now: Option<Timestamp>) -> Vec<u64> {
        let before = now.and_then(|now| self.done.period_of(shelf, now));
        let mut periods = self.done.movable_periods(shelf, entries_min);
        periods.retain(|period| before.is_none_or(|before| *period < before));
        periods
    }

    /// What may be laid aside of a period of a shelf. Looks at each entry.
    #[must_use]
    pub fn movable(&self, shelf: Shelf, period: u64) -> Option<Movable> {
        self.done.movable(shelf, period)
    }

    /// What comes from records up to `laid.last` in a period of a shelf lies in this run from now on, or in one before.
    pub fn lay_aside(&mut self, shelf: Shelf, laid: LaidAside) {
        self.done.lay_aside(shelf, laid);
    }

    /// What was dropped and still takes memory: for who can let go of it elsewhere, at once.
    #[must_use]
    pub fn take_discarded(&mut self) -> impl Send + use<> {
        self.done.take_discarded()
    }
}
