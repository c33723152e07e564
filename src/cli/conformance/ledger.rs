//! What was delivered, asked and acknowledged, and what of it is wrong whatever is being checked.
//!
//! No socket and no clock: times are arguments. **Invariant:** nothing is called wrong that the protocol allows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::ids::{ConversationId, Offset};
use crate::wire::message::requests::Reply;
use crate::wire::message::{Addressee, Delivery};

/// Most things that are said to be wrong in one check; more of the same help nobody.
const FAULTS_MAX: usize = 8;

/// A delivery that wants an acknowledgement.
pub(super) struct Sent {
    pub(super) offset: Offset,
    pub(super) delivery: Delivery,
    /// Nothing is left to be done before it may be acknowledged.
    pub(super) is_done: bool,
    pub(super) is_acked: bool,
}

/// How a reply was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Not at all, so far or for ever.
    None,
    Accepted(Offset),
    Warned,
    Later,
    Refused,
}

/// A reply that was asked for, by its name.
pub(super) struct Asked {
    pub(super) conversation: ConversationId,
    pub(super) reply_id: String,
    content: Bytes,
    /// When it was asked, each time.
    pub(super) at: Vec<Instant>,
    pub(super) answer: Answer,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) sent: Vec<Sent>,
    /// What was delivered on this connection and is not acknowledged, in order, as places in `sent`.
    outstanding: Vec<usize>,
    pub(super) asked: Vec<Asked>,
    /// Confirmations that were given, and where.
    given: BTreeSet<(ConversationId, String)>,
    /// The confirmation that the next reply or pick-up must bring.
    awaited: BTreeMap<(ConversationId, &'static str), String>,
    pub(super) faults: Vec<String>,
}

impl Ledger {
    pub(super) fn fault(&mut self, text: impl Into<String>) {
        let text = text.into();
        if self.faults.len() < FAULTS_MAX && !self.faults.contains(&text) {
            self.faults.push(text);
        }
    }

    /// A connection has begun: nothing is outstanding on it.
    pub(super) fn begin_connection(&mut self) {
        self.outstanding.clear();
    }

    /// Something is delivered, for the first time or again.
    pub(super) fn delivered(&mut self, offset: Offset, delivery: &Delivery, is_done: bool) {
        let place = self.sent.iter().position(|sent| sent.offset == offset).unwrap_or(self.sent.len());
        match self.sent.get_mut(place) {
            Some(again) => again.is_acked = false,
            None => self.sent.push(Sent { offset, delivery: delivery.clone(), is_done, is_acked: false }),
        }
        self.outstanding.push(place);
    }

    /// What would come again on a new connection.
    pub(super) fn unacknowledged(&self) -> Vec<Delivery> {
        self.sent.iter().filter(|sent| !sent.is_acked).map(|sent| sent.delivery.clone()).collect()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.sent.iter().all(|sent| sent.is_acked)
    }

    pub(super) fn acknowledged(&mut self, offset: Offset) {
        let is_it = |place: &usize| self.sent.get(*place).is_some_and(|sent| sent.offset == offset);
        let Some(last) = self.outstanding.iter().position(is_it) else {
            // One of an older connection does nothing, and may come.
            if !self.sent.iter().any(|sent| sent.offset == offset) {
                self.fault(format!("acknowledged offset {offset}, which was never delivered"));
            }
            return;
        };
        for place in self.outstanding.drain(..=last).collect::<Vec<_>>() {
            let Some(sent) = self.sent.get_mut(place) else { continue };
            sent.is_acked = true;
            if !sent.is_done {
                let of = sent.offset;
                let text = if of == offset {
                    format!("acknowledged message {of} before its reply was accepted")
                } else {
                    format!("the ack of {offset} covers message {of}, whose reply was not accepted yet")
                };
                self.fault(text);
            }
        }
    }

    /// A reply is asked for; gives its place. What is wrong with its name is said here.
    pub(super) fn asked(&mut self, reply: &Reply, at: Instant) -> Option<usize> {
        let Addressee::Conversation(conversation) = reply.to else {
            self.fault(
                "a reply began a conversation with `to` instead of answering the one that the message is in",
            );
            return None;
        };
        let reply_id = reply.reply_id.as_str();
        if let Some(place) = self.asked.iter().position(|asked| asked.reply_id == reply_id) {
            let asked = self.asked.get_mut(place)?;
            asked.at.push(at);
            let is_same = asked.conversation == conversation && asked.content == reply.content.0;
            if !is_same {
                self.fault(format!(
                    "reply_id {reply_id} came again with another conversation or content (`conflict`)"
                ));
            }
            return Some(place);
        }
        let earlier = self.asked.iter().rev().find(|asked| asked.conversation == conversation);
        match earlier.map(|earlier| (earlier.answer, earlier.reply_id.clone())) {
            None => {}
            Some((Answer::Accepted(_), earlier)) => {
                self.fault(format!(
                    "replied to a message twice: reply_id {earlier} was accepted, then came {reply_id}"
                ));
            }
            Some((Answer::Refused, _)) => {}
            Some((_, earlier)) => {
                self.fault(format!(
                    "tried reply_id {earlier} again under a new name, {reply_id}: the customer may get both"
                ));
            }
        }
        let content = reply.content.0.clone();
        let asked = Asked {
            conversation,
            reply_id: reply_id.to_owned(),
            content,
            at: vec![at],
            answer: Answer::None,
        };
        self.asked.push(asked);
        Some(self.asked.len() - 1)
    }

    /// A reply has an answer.
    pub(super) fn answered(&mut self, place: usize, answer: Answer) {
        let Some(asked) = self.asked.get_mut(place) else { return };
        asked.answer = answer;
        if matches!(answer, Answer::Accepted(_) | Answer::Refused) {
            let conversation = asked.conversation;
            let of = |sent: &&mut Sent| conversation_of(&sent.delivery) == Some(conversation);
            self.sent.iter_mut().filter(of).for_each(|sent| sent.is_done = true);
        }
    }

    /// A warning was given with this confirmation.
    pub(super) fn warned(&mut self, conversation: ConversationId, what: &'static str, confirm: &str) {
        self.given.insert((conversation, confirm.to_owned()));
        self.awaited.insert((conversation, what), confirm.to_owned());
    }

    /// Something is asked with or without a confirmation; says whether it confirms what was warned of.
    pub(super) fn confirmed(
        &mut self,
        conversation: ConversationId,
        what: &'static str,
        confirm: Option<&str>,
    ) -> bool {
        if let Some(confirm) = confirm
            && !self.given.contains(&(conversation, confirm.to_owned()))
        {
            self.fault(format!("a {what} brought a `confirm` that no warning of this conversation gave"));
        }
        let Some(awaited) = self.awaited.remove(&(conversation, what)) else { return false };
        match confirm {
            None => self.fault(format!("ignored a warning: the {what} came again without its `confirm`")),
            Some(confirm) if confirm != awaited => {
                self.fault(format!(
                    "a {what} came with the `confirm` of an earlier warning, not of the last"
                ));
            }
            Some(_) => return true,
        }
        false
    }

    /// The reply to this conversation's message, if one was asked for.
    pub(super) fn reply_in(&self, conversation: ConversationId) -> Option<&Asked> {
        self.asked.iter().rev().find(|asked| asked.conversation == conversation)
    }
}

/// The conversation of a customer's message.
pub(super) fn conversation_of(delivery: &Delivery) -> Option<ConversationId> {
    match delivery {
        Delivery::Message(message) => Some(message.conversation),
        _ => None,
    }
}
