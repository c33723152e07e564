//! Statuses that came before their message was known, for 60 seconds (B7).
//!
//! Bounded: a number whose messages others send too gets statuses that nobody here will ever ask for. Usually one is
//! early by milliseconds, so when there is no more room the oldest goes.

use std::collections::VecDeque;

use crate::domain::buckets::BucketMap;
use crate::domain::event::{PARKED_MS, Status, StatusError, StatusParked};
use crate::domain::fingerprint::Fingerprint;
use crate::domain::ids::{MessageId, Timestamp};
use crate::domain::saved::{Put, Saved, Take, Unreadable, restore_all, save_all, saved};

/// Most statuses that wait: what 80 foreign messages a second bring in a minute (three each), and some room. With
/// one more, the oldest is dropped.
pub const PARKED_MAX: usize = 16_384;

/// A status that waits for its message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Early {
    /// Of which message: confirms the fingerprint.
    message_id: MessageId,
    pub(super) status: Status,
    pub(super) error: Option<StatusError>,
    pub(super) status_at: Timestamp,
    recorded_at: Timestamp,
}

impl Early {
    fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.recorded_at.plus_ms(PARKED_MS)
    }
}

saved!(Early { message_id, status, error, status_at, recorded_at });
saved!(StatusError { code, title, details });

/// The statuses that wait, each message's in the order of coming.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Parked {
    by_message: BucketMap<Fingerprint, Vec<Early>>,
    /// Each that was parked and has not lapsed, oldest first; some have been taken meanwhile.
    order: VecDeque<(Timestamp, Fingerprint)>,
}

impl Saved for Parked {
    fn save(&self, out: &mut dyn Put) {
        self.by_message.save(out);
        save_all(self.order.len(), self.order.iter(), out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let by_message = Saved::restore(from)?;
        let order = restore_all(from).collect::<Result<_, _>>()?;
        Ok(Self { by_message, order })
    }
}

impl Parked {
    /// Of how many messages statuses wait.
    pub(super) fn len(&self) -> usize {
        self.by_message.len()
    }

    /// Whether a status would say something that those that wait for the same message do not.
    pub(super) fn is_news(
        &self,
        message: &Fingerprint,
        message_id: &MessageId,
        status: Status,
        now: Timestamp,
    ) -> bool {
        let mut come_to = Status::Accepted;
        for early in self.fresh(message, message_id, now) {
            if come_to.may_become(early.status) {
                come_to = early.status;
            }
        }
        come_to.may_become(status)
    }

    /// The statuses of a message that have not lapsed, in the order of coming.
    pub(super) fn fresh<'a>(
        &'a self,
        message: &Fingerprint,
        message_id: &'a MessageId,
        now: Timestamp,
    ) -> impl Iterator<Item = &'a Early> {
        let early = self.by_message.get(message).map_or(&[][..], Vec::as_slice);
        early.iter().filter(move |early| early.is_fresh(now) && early.message_id == *message_id)
    }

    pub(super) fn insert(&mut self, message: Fingerprint, parked: &StatusParked, recorded_at: Timestamp) {
        self.forget(recorded_at);
        if self.order.len() >= PARKED_MAX {
            self.drop_oldest();
        }
        self.order.push_back((recorded_at, message));
        self.by_message.get_or_insert_with(message, Vec::new).push(Early {
            message_id: parked.message_id.clone(),
            status: parked.status,
            error: parked.error.clone(),
            status_at: parked.status_at,
            recorded_at,
        });
    }

    /// The message is known: nothing waits for it any more.
    pub(super) fn take(&mut self, message: &Fingerprint) {
        self.by_message.remove(message);
    }

    pub(super) fn forget(&mut self, now: Timestamp) {
        while self.order.front().is_some_and(|(recorded_at, _)| now >= recorded_at.plus_ms(PARKED_MS)) {
            self.drop_oldest();
        }
    }

    /// When the oldest lapses.
    pub(super) fn next_lapse(&self) -> Option<Timestamp> {
        self.order.front().map(|(recorded_at, _)| recorded_at.plus_ms(PARKED_MS))
    }

    fn drop_oldest(&mut self) {
        let Some((recorded_at, message)) = self.order.pop_front() else { return };
        let Some(early) = self.by_message.get_mut(&message) else { return };
        // What was taken has left its place in the order behind; what was parked since is younger.
        if early.first().is_some_and(|first| first.recorded_at == recorded_at) {
            early.remove(0);
        }
        if early.is_empty() {
            self.by_message.remove(&message);
        }
    }
}
