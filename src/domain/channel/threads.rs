//! Thread ownership, as advice: a note on a conversation that services take, pass and release (B18).
//!
//! A note ends by itself 24 hours after the customer's last message, and with its owner's leaving. Neither is recorded:
//! whether a note holds is asked of the time and of the owner's standing, and one that a later message of the customer
//! finds lapsed goes before it could hold again.
//!
//! **Invariants:** a note stands in its conversation and in [`Noted`], or in neither; nothing else in the channel asks
//! for it, so it refuses nothing and changes no claim.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::claiming::ServiceIndex;
use super::conversations::{Conversation, Conversations, Index};
use super::inbound::WINDOW_MS;
use super::{Channel, Standing, Turn};
use crate::domain::command::{Addressee, Answer, Rejection, ThreadAsked, ThreadCommand, ThreadSeen};
use crate::domain::event::{Actor, Event, Record, ThreadAction, ThreadChange};
use crate::domain::ids::{AgentId, ConversationId, Offset, ServiceId, Timestamp};
use crate::domain::saved::saved;

/// Most characters that are handed on with a thread (Meta's limit for `metadata`).
pub const METADATA_CHARS_MAX: usize = 2000;

/// Whose a conversation's thread is.
#[derive(Clone, PartialEq)]
pub(super) struct Note {
    service: ServiceIndex,
    /// The record that made it: it does not outlive a later leaving of its owner.
    offset: Offset,
    since: Timestamp,
    metadata: Option<Arc<str>>,
}

/// What is handed on may say of the customer what nobody else is to read.
impl std::fmt::Debug for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Note")
            .field("service", &self.service)
            .field("offset", &self.offset)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

saved!(Note { service, offset, since, metadata });

/// The conversations with a note, the one that lapses first in front.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Noted(BTreeSet<(Timestamp, Index)>);

impl Noted {
    /// Those of a state that was read back.
    pub(super) fn of(conversations: &Conversations) -> Self {
        let noted = conversations.iter().filter(|(_, entry)| entry.note().is_some());
        Self(noted.map(|(index, entry)| (until(entry), index)).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// When a note of this conversation lapses. For who never wrote that was long ago.
fn until(entry: &Conversation) -> Timestamp {
    entry.newest_sent_at.plus_ms(WINDOW_MS)
}

/// What says that a thread is nobody's any more.
pub(super) fn released(by: Actor, agent: Option<AgentId>, owner: &ServiceId) -> Event {
    Event::from(ThreadChange {
        action: ThreadAction::Released,
        by,
        agent,
        owner: None,
        previous: Some(owner.clone()),
        until: None,
        metadata: None,
    })
}

impl Channel {
    pub(super) fn decide_thread(
        &self,
        turn: &mut Turn<'_>,
        command: &ThreadCommand,
    ) -> Result<Answer, Rejection> {
        let ThreadCommand { service, of, agent, asked } = command;
        if let ThreadAsked::Take { metadata: Some(metadata) }
        | ThreadAsked::Pass { metadata: Some(metadata), .. } = asked
            && metadata.chars().count() > METADATA_CHARS_MAX
        {
            return Err(Rejection::BadMessage("metadata has at most 2000 characters"));
        }
        let entry = self.thread_of(service, of)?;
        if agent.as_ref().is_some_and(|agent| turn.portal.agent(service, agent).is_none()) {
            return Err(Rejection::UnknownAgent);
        }
        let by = Actor::Service(service.clone());
        let held = self.note_held(entry, turn.now);
        let answer = |thread| Ok(Answer::Thread { conversation: entry.id, thread });
        let (owner, metadata) = match asked {
            ThreadAsked::Release => {
                let Some((_, owner)) = held.filter(|(_, owner)| *owner == service) else {
                    return answer(self.thread_seen(entry, service, turn.now));
                };
                turn.record(Some(entry.id), released(by, agent.clone(), owner));
                return answer(ThreadSeen::Nobody);
            }
            ThreadAsked::Take { metadata } => (service, metadata),
            ThreadAsked::Pass { to, metadata } if self.is_subscribed(to) => (to, metadata),
            ThreadAsked::Pass { .. } => return Err(Rejection::NotFound),
        };
        let says_nothing_new =
            held.is_some_and(|(note, of)| of == owner && (metadata.is_none() || *metadata == note.metadata));
        let until = until(entry);
        if says_nothing_new || until <= turn.now {
            return answer(self.thread_seen(entry, service, turn.now));
        }
        let action = if owner == service { ThreadAction::Taken } else { ThreadAction::Passed };
        let change = ThreadChange {
            action,
            by,
            agent: agent.clone(),
            owner: Some(owner.clone()),
            previous: held.map(|(_, owner)| owner.clone()),
            until: Some(until),
            metadata: metadata.clone(),
        };
        turn.record(Some(entry.id), Event::from(change));
        answer(if owner == service {
            ThreadSeen::Own { since: turn.now, until, metadata: metadata.clone() }
        } else {
            ThreadSeen::Another
        })
    }

    /// Whose a conversation's thread is, as a service may see it. Changes nothing.
    ///
    /// # Errors
    /// When there is no such conversation, or the service is not subscribed.
    pub fn thread(
        &self,
        service: &ServiceId,
        of: &Addressee,
        now: Timestamp,
    ) -> Result<(ConversationId, ThreadSeen), Rejection> {
        let entry = self.thread_of(service, of)?;
        Ok((entry.id, self.thread_seen(entry, service, now)))
    }

    fn thread_of(&self, service: &ServiceId, of: &Addressee) -> Result<&Conversation, Rejection> {
        self.check_subscribed(service)?;
        self.addressed(of).ok_or(Rejection::NotFound)
    }

    /// Of another's note nothing but that there is one.
    pub(super) fn thread_seen(
        &self,
        entry: &Conversation,
        service: &ServiceId,
        now: Timestamp,
    ) -> ThreadSeen {
        match self.note_held(entry, now) {
            None => ThreadSeen::Nobody,
            Some((note, owner)) if owner == service => {
                ThreadSeen::Own { since: note.since, until: until(entry), metadata: note.metadata.clone() }
            }
            Some(_) => ThreadSeen::Another,
        }
    }

    /// A conversation's note and whose it is, if it holds.
    pub(super) fn note_held<'a>(
        &'a self,
        entry: &'a Conversation,
        now: Timestamp,
    ) -> Option<(&'a Note, &'a ServiceId)> {
        let note = entry.note()?;
        let owner = self.services.get(note.service)?;
        let stayed = owner.standing == Standing::Subscribed && note.offset > owner.left_at;
        (stayed && now < until(entry)).then_some((note, &owner.id))
    }

    /// Takes a note out of its conversation; gives it if it held at that time.
    pub(super) fn take_note(&mut self, index: Index, at: Timestamp) -> Option<Note> {
        let entry = self.conversations.get(index)?;
        entry.note()?;
        let held = self.note_held(entry, at).is_some();
        self.noted.0.remove(&(until(entry), index));
        self.conversations.get_mut(index)?.take_note().filter(|_| held)
    }

    /// Puts a note into a conversation that has none.
    pub(super) fn put_note(&mut self, index: Index, note: Option<Note>) {
        let (Some(note), Some(entry)) = (note, self.conversations.get_mut(index)) else { return };
        self.noted.0.insert((until(entry), index));
        entry.set_note(note);
    }

    pub(super) fn apply_thread(&mut self, record: &Record, index: Index, change: &ThreadChange) {
        self.take_note(index, record.at);
        let Some(service) = change.owner.as_ref().and_then(|owner| self.services.enter(owner)) else {
            return;
        };
        let note =
            Note { service, offset: record.offset, since: record.at, metadata: change.metadata.clone() };
        self.put_note(index, Some(note));
    }

    /// Drops the notes that have lapsed: they do not hold any more.
    pub(super) fn forget_threads(&mut self, now: Timestamp) {
        while let Some((_, index)) = self.noted.0.first().copied().filter(|(until, _)| *until <= now) {
            self.noted.0.pop_first();
            if let Some(entry) = self.conversations.get_mut(index) {
                entry.take_note();
            }
        }
    }
}
