//! Customers' messages: repeats, one conversation per customer whatever his names, the window, what is for whom
//! (R12, B6–B8, B12).
//!
//! This is the hot path: one look-up of the message id, one of the customer, and no allocation beside the draft.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::claiming::{Claim, ServiceIndex};
use super::conversations::{Conversation, Index, Names};
use super::threads::released;
use super::{Channel, Draft, Known, Turn};
use crate::domain::command::{Answer, ChannelState, Inbound, LookedUp, Rejection, Window};
use crate::domain::content::Content;
use crate::domain::event::{Actor, ClaimAction, ClearTo, Event, Merged, Message, Notice, Record};
use crate::domain::ids::{ConversationId, Offset, Timestamp};
use crate::domain::recent_ids::Suspect;

/// The customer-service window, in milliseconds from the customer's newest message (WhatsApp: 24 hours).
pub const WINDOW_MS: u64 = 24 * 3_600_000;

/// Drafts kept free for a merge itself and for what it follows from, while ends of claims are recorded.
const ROOM_FOR_MERGE: usize = 32;

/// What becomes of a customer's message.
#[derive(Debug, Clone)]
pub enum Received {
    /// It is decided.
    Answered(Answer),
    /// It may be one that was recorded: to be given again when the full ids were compared.
    Suspected {
        /// As it was given.
        inbound: Inbound,
        /// Where to look.
        at: Suspect,
    },
}

impl Channel {
    /// Decides on a customer's message and takes it over; a suspected repeat comes back, to be looked up (B6).
    pub(super) fn decide_inbound(
        &self,
        turn: &mut Turn<'_>,
        inbound: Inbound,
    ) -> Result<Received, Rejection> {
        let answer = Received::Answered;
        let Some(parent) = self.parent.as_ref().filter(|_| self.state() == ChannelState::Active) else {
            return Ok(answer(Answer::NotTaken));
        };
        let message = &inbound.message;
        if message.customer.id().is_none() {
            return Err(Rejection::BadMessage("a message names its customer"));
        }
        match inbound.looked_up {
            LookedUp::Same(offset) => return Ok(answer(Answer::Message { offset, duplicate: true })),
            LookedUp::Different | LookedUp::NotYet => {}
        }
        let message_id = self.fingerprints.message_id(&message.message_id);
        if inbound.looked_up == LookedUp::NotYet
            && let Some(at) = self.message_ids.suspects(message_id, message.sent_at, turn.now)
        {
            return Ok(Received::Suspected { inbound, at });
        }
        let names = Names::of(&self.fingerprints, &message.customer, &message.formerly);
        let known = Known { message_id, names: names.mix() };
        let conversation = self.conversation_with(turn, &names);
        let mut message = inbound.message;
        message.clear_to = if message.content.is_redactable() {
            ClearTo::Only(inbound.sender.unwrap_or_else(|| parent.clone()))
        } else {
            ClearTo::Everyone
        };
        let offset = turn.next_offset();
        let event = Event::Message(message);
        turn.out.push(Draft { conversation: Some(conversation), event, known: Some(known) });
        Ok(answer(Answer::Message { offset, duplicate: false }))
    }

    /// The conversation with the customer of these names. Those that prove to be his as well become part of the
    /// oldest; if there is none, one begins with the next draft.
    pub(super) fn conversation_with(&self, turn: &mut Turn<'_>, names: &Names<'_>) -> ConversationId {
        let mut younger = Vec::new();
        let oldest = self.conversations.find_names(names, &mut younger);
        let Some((older, entry)) = oldest.and_then(|index| Some((index, self.conversations.get(index)?)))
        else {
            return ConversationId::derive(self.id, turn.next_offset());
        };
        if !younger.is_empty() {
            self.record_merges(turn, older, entry, &younger);
        }
        entry.id
    }

    /// Records that conversations become part of an older one. Where one service holds both, the younger's claim is
    /// released before, and so is a note of whose the younger's thread is where the older has one: all of those in one decision, as far as it has room; the fold ends the rest without a record.
    fn record_merges(&self, turn: &mut Turn<'_>, older: Index, entry: &Conversation, younger: &[Index]) {
        let mut holding = BTreeSet::new();
        self.record_ended_in(turn, entry, &mut holding);
        let mut is_noted = self.note_held(entry, turn.now).is_some();
        for index in younger.iter().filter(|index| **index != older) {
            let Some(gone) = self.conversations.get(*index) else { continue };
            let mut moving = BTreeSet::new();
            self.record_ended_in(turn, gone, &mut moving);
            for claim in gone.claims().iter().filter(|claim| holding.contains(&claim.service)) {
                if self.is_held(turn, claim) && turn.room() > ROOM_FOR_MERGE {
                    self.record_end(turn, gone.id, claim, ClaimAction::Released);
                }
            }
            holding.append(&mut moving);
            if let Some((_, owner)) = self.note_held(gone, turn.now) {
                if is_noted && turn.room() > ROOM_FOR_MERGE {
                    turn.record(Some(gone.id), released(Actor::Broker, None, owner));
                }
                is_noted = true;
            }
            turn.record(Some(entry.id), Event::Merged(Merged { from: gone.id }));
        }
    }

    /// Records the claims there that have ended, and notes which services hold it.
    fn record_ended_in(
        &self,
        turn: &mut Turn<'_>,
        entry: &Conversation,
        holding: &mut BTreeSet<ServiceIndex>,
    ) {
        for claim in entry.claims() {
            if self.is_held(turn, claim) {
                holding.insert(claim.service);
            } else if turn.room() > ROOM_FOR_MERGE {
                let action = self.ended(turn.portal, claim, turn.now).unwrap_or(ClaimAction::Released);
                self.record_end(turn, entry.id, claim, action);
            }
        }
    }

    fn is_held(&self, turn: &Turn<'_>, claim: &Claim) -> bool {
        self.ended(turn.portal, claim, turn.now).is_none()
    }

    pub(super) fn decide_notice(&self, turn: &mut Turn<'_>, field: &Arc<str>, content: &Content) -> Answer {
        let Some(parent) = self.parent.clone().filter(|_| self.state() == ChannelState::Active) else {
            return Answer::NotTaken;
        };
        turn.record(None, Event::from(Notice { field: Arc::clone(field), content: content.clone(), parent }));
        Answer::Done
    }

    /// The window of a conversation, or of one that nobody has begun yet (B8).
    ///
    /// Of a customer of whom nothing was seen since the channel became active it is unknown for as long as he may
    /// have written before; then it is closed, since the last message that can have been missed.
    pub(super) fn window_of(&self, entry: Option<&Conversation>, now: Timestamp) -> Window {
        let Some((active_from, active_at)) = self.active_since else { return Window::Unknown };
        let settled_at = active_at.plus_ms(WINDOW_MS);
        let seen = entry.filter(|entry| entry.last_message > Offset::ZERO);
        let ends = seen.map_or(settled_at, |entry| entry.newest_sent_at.plus_ms(WINDOW_MS));
        let is_fresh = seen.is_some_and(|entry| entry.last_message > active_from);
        if !is_fresh && now < settled_at {
            Window::Unknown
        } else if now < ends {
            Window::Open(ends)
        } else {
            Window::Closed(ends)
        }
    }

    pub(super) fn apply_message(
        &mut self,
        record: &Record,
        index: Index,
        message: &Message,
        known: Option<Known>,
    ) {
        let message_id = known.map(|known| known.message_id);
        let message_id = message_id.unwrap_or_else(|| self.fingerprints.message_id(&message.message_id));
        self.message_ids.insert(message_id, message.sent_at, record.at, record.offset);
        if known.is_none_or(|known| !self.conversations.is_tied(known.names, index)) {
            let names = Names::of(&self.fingerprints, &message.customer, &message.formerly);
            self.conversations.tie(&names, index);
        }
        let note = self.take_note(index, record.at);
        if let Some(entry) = self.conversations.get_mut(index) {
            entry.written(message.sent_at, record.offset);
            entry.named(&message.customer, !message.formerly.is_empty(), record.offset);
        }
        self.put_note(index, note);
    }

    pub(super) fn apply_merged(&mut self, record: &Record, older: Index, merged: &Merged) {
        let Some(younger) = self.conversations.find(merged.from) else { return };
        let held: BTreeSet<ServiceIndex> = self
            .conversations
            .get(older)
            .map(|entry| entry.claims().iter().map(|claim| claim.service).collect())
            .unwrap_or_default();
        let notes = [older.min(younger), older.max(younger)].map(|index| self.take_note(index, record.at));
        let merged = self.conversations.merge(older, younger, record.offset);
        self.put_note(older.min(younger), notes.into_iter().flatten().next());
        let Some(claims) = merged else { return };
        for claim in claims {
            let Some(slot) = self.services.get_mut(claim.service) else { continue };
            let ended = slot.claims.remove(&claim, younger);
            if !held.contains(&claim.service) {
                self.put_claim(older, claim, ended);
            }
        }
        if let Some(entry) = self.conversations.get_mut(older) {
            entry.head = record.offset;
        }
    }
}
