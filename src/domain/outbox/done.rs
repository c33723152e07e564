//! Replies that have an outcome: by id for 8 days (B4), by offset and by message for 30 (B7).
//!
//! Ages count from the outcome: what is open is not here, and is never dropped.

use super::name::Name;
use super::{Facts, ServiceNumber};
use crate::domain::aged::{AgedMap, DAY_MS, Keep};
use crate::domain::event::Status;
use crate::domain::fingerprint::Fingerprint;
use crate::domain::ids::{ConversationId, Offset, Timestamp};
use crate::domain::saved::{Put, Saved, Take, Unreadable, saved};
use crate::domain::senders::{KEEP_SENT, REMEMBERED_IN_BUCKET_MAX, REMEMBERED_MAX};

/// How long a reply id stays in use after the reply's outcome, in milliseconds: 8 days (B4).
pub const REPLY_IDS_MS: u64 = 8 * DAY_MS;

/// Six periods at most are looked into, and an id stays in use for 2 days more.
const KEEP_IDS: Keep = Keep {
    keep_ms: REPLY_IDS_MS,
    period_ms: 2 * DAY_MS,
    bucket_entries_max: REMEMBERED_IN_BUCKET_MAX,
    entries_max: REMEMBERED_MAX,
};

/// What a reply takes in memory, in bytes (measured): its offset, what is known of it, and its id, which lies apart where
/// it is long and no UUID.
const OUTCOME_BYTES: usize = 88;
/// What it takes in memory to find a reply by its id, or by its message, in bytes (measured).
const FOUND_BY_BYTES: usize = 32;

/// A reply with an outcome.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    service: ServiceNumber,
    name: Name,
    conversation: ConversationId,
    digest: Fingerprint,
    /// How far it has come; never `Accepted`.
    pub(super) status: Status,
    /// Where the outcome stands in the journal.
    pub(super) outcome: Offset,
    /// Whether WhatsApp's id of the message is known.
    pub(super) named: bool,
}

impl Outcome {
    pub(super) fn new(facts: &Facts, status: Status, outcome: Offset, named: bool) -> Self {
        let Facts { service, reply_id, conversation, digest } = facts;
        Self {
            service: *service,
            name: Name::from(reply_id),
            conversation: *conversation,
            digest: *digest,
            status,
            outcome,
            named,
        }
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            service: self.service,
            reply_id: self.name.id(),
            conversation: self.conversation,
            digest: self.digest,
        }
    }
}

/// Replies with an outcome.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Done {
    ids: AgedMap<Fingerprint, Offset>,
    replies: AgedMap<Offset, Outcome>,
    messages: AgedMap<Fingerprint, Offset>,
}

impl Done {
    pub(super) fn get(&self, reply: Offset) -> Option<&Outcome> {
        self.replies.get(&reply)
    }

    pub(super) fn get_mut(&mut self, reply: Offset) -> Option<&mut Outcome> {
        self.replies.get_mut(&reply)
    }

    pub(super) fn offset_of(&self, id: &Fingerprint) -> Option<Offset> {
        self.ids.get(id).copied()
    }

    pub(super) fn reply_of(&self, message: &Fingerprint) -> Option<Offset> {
        self.messages.get(message).copied()
    }

    /// A reply has its first outcome.
    pub(super) fn insert(&mut self, id: Fingerprint, reply: Offset, outcome: Outcome, at: Timestamp) {
        self.ids.insert(id, at, at, reply);
        self.replies.insert(reply, at, at, outcome);
    }

    /// WhatsApp's id of a reply's message has become known.
    pub(super) fn name(&mut self, message: Fingerprint, reply: Offset, at: Timestamp) {
        self.messages.insert(message, at, at, reply);
    }

    /// What it takes in memory, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        (self.ids.len() + self.messages.len()) * FOUND_BY_BYTES + self.replies.len() * OUTCOME_BYTES
    }

    /// Forgets a bucket of the oldest before its time; gives how many entries it had.
    pub(super) fn drop_oldest(&mut self) -> usize {
        let [ids, replies, messages] = [self.ids.oldest(), self.replies.oldest(), self.messages.oldest()];
        let oldest = [ids, replies, messages].into_iter().flatten().min();
        match oldest {
            None => 0,
            oldest if oldest == replies => self.replies.drop_oldest(),
            oldest if oldest == messages => self.messages.drop_oldest(),
            _ => self.ids.drop_oldest(),
        }
    }

    pub(super) fn forget(&mut self, now: Timestamp) {
        self.ids.forget(now);
        self.replies.forget(now);
        self.messages.forget(now);
    }
}

saved!(Outcome { service, name, conversation, digest, status, outcome, named });

impl Saved for Done {
    fn save(&self, out: &mut dyn Put) {
        self.ids.save(out);
        self.replies.save(out);
        self.messages.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        Ok(Self {
            ids: AgedMap::restore(KEEP_IDS, from)?,
            replies: AgedMap::restore(KEEP_SENT, from)?,
            messages: AgedMap::restore(KEEP_SENT, from)?,
        })
    }
}

impl Default for Done {
    fn default() -> Self {
        Self {
            ids: AgedMap::new(KEEP_IDS),
            replies: AgedMap::new(KEEP_SENT),
            messages: AgedMap::new(KEEP_SENT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_a_reply_is_as_small_as_it_is_counted() {
        // Beside the entries there are two bytes a slot, and room for an eighth more of them at most.
        assert_eq!(size_of::<(Offset, Outcome)>(), 72);
        assert_eq!(size_of::<(Fingerprint, Offset)>(), 24);
    }
}
