//! What a channel remembers of ids, seen by whoever keeps it small: what may lie in runs on disk, how much memory the
//! rest takes, and what goes before its time where nothing else helps.
//!
//! **Invariant:** none of it is in a record, and laying aside changes no answer.

use super::Channel;
use crate::domain::buckets::BucketMap;
use crate::domain::filter::Filter;
use crate::domain::fingerprint::Fingerprint;
use crate::domain::ids::Offset;
use crate::domain::recent_ids::{LaidAside, Movable, RunId};
use crate::domain::saved::{Put, Take, Unreadable};

impl Channel {
    /// The periods that have so many message ids in memory at least.
    pub fn movable_periods(&self, ids_min: usize) -> impl Iterator<Item = u64> {
        self.message_ids.movable_periods(ids_min)
    }

    /// Message ids that may be laid aside: all of a period that are in memory. Looks at each.
    #[must_use]
    pub fn movable_ids(&self, period: u64) -> Option<Movable> {
        self.message_ids.movable(period)
    }

    /// The message ids of a period up to a record lie in a run from now on.
    pub fn lay_ids_aside(&mut self, laid: LaidAside) {
        self.message_ids.lay_aside(laid);
    }

    /// Message ids that were dropped and still take memory: for who can let go of them elsewhere, at once.
    #[must_use]
    pub fn take_discarded_ids(&mut self) -> Vec<BucketMap<Fingerprint, Offset>> {
        self.message_ids.take_discarded()
    }

    /// What lies in runs.
    pub fn ids_aside(&self) -> impl Iterator<Item = &LaidAside> {
        self.message_ids.aside()
    }

    /// What may be in a run has become known; nothing, where the run can not be read.
    pub fn set_ids_filter(&mut self, run: RunId, filter: Option<Filter>) {
        self.message_ids.set_filter(run, filter);
    }

    /// What its ids take in memory, in bytes, about: of messages, and of replies with an outcome.
    #[must_use]
    pub fn ids_bytes(&self) -> usize {
        self.message_ids.bytes() + self.outbox.remembered_bytes()
    }

    /// Forgets the oldest ids before their time, until `bytes` of memory are free; says how many it forgot.
    pub fn drop_oldest_ids(&mut self, bytes: usize) -> usize {
        let until = self.ids_bytes().saturating_sub(bytes);
        let mut dropped = 0;
        while self.ids_bytes() > until {
            // From what takes more.
            let gone = if self.message_ids.bytes() >= self.outbox.remembered_bytes() {
                self.message_ids.drop_oldest()
            } else {
                self.outbox.drop_oldest_remembered()
            };
            if gone == 0 {
                break;
            }
            dropped += gone;
        }
        dropped
    }

    /// Writes down what [`save`](Self::save) does not: what lies in runs.
    pub fn save_aside(&self, out: &mut dyn Put) {
        self.message_ids.save_aside(out);
    }

    /// Reads that back into a channel that was restored. No filter is known yet.
    ///
    /// # Errors
    /// When it is none.
    pub fn restore_aside(&mut self, from: &mut dyn Take) -> Result<(), Unreadable> {
        self.message_ids.restore_aside(from)
    }
}
