//! Statuses that came before their message was known, for 60 seconds (B7).
//!
//! Bounded: a number whose messages others send too gets statuses that nobody here will ever ask for. Usually one is
//! early by milliseconds, so when there is no more room the oldest goes.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::domain::buckets::BucketMap;
use crate::domain::content::Carried;
use crate::domain::event::{PARKED_MS, Status, StatusError, StatusParked};
use crate::domain::fingerprint::Fingerprint;
use crate::domain::ids::{MessageId, Timestamp};
use crate::domain::saved::{Put, Saved, Take, Unreadable, restore_all, save_all, saved};

/// Most statuses that wait: what 80 foreign messages a second bring in a minute (three each), and some room. With
/// one more, the oldest is dropped.
pub const PARKED_MAX: usize = 16_384;
/// Most that waits of what those statuses say besides, in bytes: some hundreds each. One that would go beyond waits
/// without.
pub const PARKED_CARRIED_BYTES_MAX: usize = 4 << 20;

/// A status that waits for its message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Early {
    /// Of which message: confirms the fingerprint.
    message_id: MessageId,
    pub(super) status: Status,
    pub(super) error: Option<StatusError>,
    pub(super) status_at: Timestamp,
    pub(super) carried: Option<Carried>,
    recorded_at: Timestamp,
}

impl Early {
    fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.recorded_at.plus_ms(PARKED_MS)
    }

    fn carried_bytes(&self) -> usize {
        Carried::size_of(self.carried.as_ref())
    }
}

/// What is carried is marked beside the error: one that carries nothing is saved as it was before there was such.
impl Saved for Early {
    fn save(&self, out: &mut dyn Put) {
        self.message_id.save(out);
        self.status.save(out);
        out.number(u64::from(self.error.is_some()) | u64::from(self.carried.is_some()) << 1);
        if let Some(error) = &self.error {
            error.save(out);
        }
        self.status_at.save(out);
        self.recorded_at.save(out);
        if let Some(carried) = &self.carried {
            out.bytes(carried.expose());
        }
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let message_id = Saved::restore(from)?;
        let status = Saved::restore(from)?;
        let marks = from.number()?;
        if marks > 3 {
            return Err(Unreadable("an early status has marks that are none"));
        }
        let error = if marks & 1 != 0 { Some(Saved::restore(from)?) } else { None };
        let status_at = Saved::restore(from)?;
        let recorded_at = Saved::restore(from)?;
        let carried =
            if marks & 2 != 0 { Some(Carried::checked(Bytes::from(from.text()?.to_owned()))) } else { None };
        Ok(Self { message_id, status, error, status_at, carried, recorded_at })
    }
}

saved!(StatusError { code, title, details });

/// The statuses that wait, each message's in the order of coming.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Parked {
    by_message: BucketMap<Fingerprint, Vec<Early>>,
    /// Each that was parked and has not lapsed, oldest first; some have been taken meanwhile.
    order: VecDeque<(Timestamp, Fingerprint)>,
    /// What they carry together, in bytes.
    carried_bytes: usize,
}

impl Saved for Parked {
    fn save(&self, out: &mut dyn Put) {
        self.by_message.save(out);
        save_all(self.order.len(), self.order.iter(), out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let by_message: BucketMap<Fingerprint, Vec<Early>> = Saved::restore(from)?;
        let order = restore_all(from).collect::<Result<_, _>>()?;
        let carried_bytes = by_message.iter().flat_map(|(_, early)| early).map(Early::carried_bytes).sum();
        Ok(Self { by_message, order, carried_bytes })
    }
}

impl Parked {
    /// Of how many messages statuses wait.
    pub(super) fn len(&self) -> usize {
        self.by_message.len()
    }

    #[cfg(test)]
    pub(super) fn carried_bytes(&self) -> usize {
        self.carried_bytes
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
        let room = PARKED_CARRIED_BYTES_MAX.saturating_sub(self.carried_bytes);
        let early = Early {
            message_id: parked.message_id.clone(),
            status: parked.status,
            error: parked.error.clone(),
            status_at: parked.status_at,
            // A copy of its own: a part of the record would keep the whole block in memory.
            carried: parked
                .carried
                .as_ref()
                .filter(|carried| carried.expose().len() <= room)
                .map(|carried| Carried::checked(Bytes::copy_from_slice(carried.expose()))),
            recorded_at,
        };
        self.carried_bytes += early.carried_bytes();
        self.by_message.get_or_insert_with(message, Vec::new).push(early);
    }

    /// The message is known: nothing waits for it any more.
    pub(super) fn take(&mut self, message: &Fingerprint) {
        let taken = self.by_message.remove(message).unwrap_or_default();
        self.carried_bytes -= taken.iter().map(Early::carried_bytes).sum::<usize>();
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
            self.carried_bytes -= early.remove(0).carried_bytes();
        }
        if early.is_empty() {
            self.by_message.remove(&message);
        }
    }
}
