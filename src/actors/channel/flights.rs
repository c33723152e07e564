//! Blocks on their way to the journal, what is held until they are durable, and what happens then.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, PoisonError};

use super::asks::{Held, HeldWhat, answer};
use super::{ChannelActor, ConversationId};
use crate::actors::asking::Permits;
use crate::actors::batch::{Batch, BatchEntry};
use crate::actors::conversation::HandOver;
use crate::actors::port::Outgoing;
use crate::actors::portal::Closed;
use crate::domain::channel::Standing;
use crate::domain::command::{ChannelSeen, ChannelState};
use crate::domain::event::Event;
use crate::domain::ids::{Offset, ServiceId};
use crate::journal::{Durability, Head, StreamId};

/// One block, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub(super) entries: Vec<BatchEntry>,
    /// Answers that were decided on it, in order.
    pub(super) held: Vec<Held>,
    pub(super) permits: Vec<Arc<Permits>>,
    /// What the channel is after it, where it changes that.
    pub(super) sight: Option<(ChannelSeen, BTreeMap<ServiceId, Standing>)>,
    /// It must be synced in every mode.
    pub(super) synced: bool,
}

impl Flight {
    /// Takes an entry. The first one makes room for as many as the flight before had: about as many come.
    pub(super) fn push(&mut self, entry: BatchEntry, before: Option<&Self>) {
        if let Some(before) = before.filter(|_| self.entries.is_empty()) {
            self.entries.reserve(before.entries.len());
        }
        self.entries.push(entry);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl ChannelActor {
    /// Keeps a batch's room taken until what was decided of it is durable.
    pub(super) fn keep_permits(&mut self, permits: Arc<Permits>) {
        if !self.open.is_empty() {
            self.open.permits.push(permits);
        } else if let Some(last) = self.flights.back_mut() {
            last.permits.push(permits);
        }
    }

    /// What waits for the record that was decided last; what nothing holds leaves soon.
    pub(super) fn held(&mut self) -> &mut Vec<Held> {
        if !self.open.is_empty() {
            &mut self.open.held
        } else if let Some(last) = self.flights.back_mut() {
            &mut last.held
        } else {
            &mut self.released
        }
    }

    /// Appends what was decided.
    pub(super) fn seal(&mut self) {
        let Some(block) = self.builder.take() else { return };
        let flight = mem::take(&mut self.open);
        if let Some(Held::Answers { answers, .. }) = flight.held.last() {
            self.answers_before = answers.len();
        }
        let durability = if flight.synced { Durability::Synced } else { Durability::Configured };
        let expected = Head { offset: self.appended, token: 0 };
        self.appended = block.last();
        self.flights.push_back(flight);
        let stream = StreamId::from(self.channel.id());
        self.shared.journal.append(stream, expected, block, durability, &self.completions.sink());
    }

    /// All up to `head` is durable: its effects leave, in order.
    pub(super) fn land(&mut self, head: Offset) {
        while let Some(flight) = self.flights.front() {
            let last = flight.entries.last().map_or(Offset::ZERO, BatchEntry::offset);
            if last > head {
                break;
            }
            if let Some(flight) = self.flights.pop_front() {
                self.land_one(flight, last);
            }
        }
        self.pump_all();
        self.note_progress();
    }

    fn land_one(&mut self, flight: Flight, last: Offset) {
        let first = self.durable.next();
        self.durable = last;
        self.shared.counters.landed(&flight.entries);
        self.remember_senders(&flight.entries);
        self.entry.sight.set_head(last);
        let mut closed = false;
        if let Some((seen, standings)) = flight.sight {
            closed = seen.state == ChannelState::Closed;
            self.entry.sight.set(seen, standings);
        }
        let handed: Vec<_> = flight.entries.iter().filter_map(handed).collect();
        let batch = Arc::new(Batch::new(self.channel.id(), first, last, flight.entries));
        self.recent.push(batch);
        self.release(flight.held);
        for (conversation, reply) in handed {
            let gateway = self.sending.link_of(reply);
            let customer_at = self.customer_at(conversation);
            let here = [reply, customer_at].map(|at| self.recent.covering(at).map(Arc::clone));
            let job = HandOver { reply, customer_at, here, gateway };
            self.tell_conversation(conversation, job);
        }
        if closed {
            // A closed mailbox means that the broker stops; at start the portal finds the closed channel again.
            let _ = self.portal_actor.try_send(Closed(self.channel.id()));
        }
    }

    fn customer_at(&self, conversation: ConversationId) -> Offset {
        let found = self.channel.conversation(conversation, crate::actors::clock::now());
        found.map_or(Offset::ZERO, |now| now.customer_at)
    }

    fn remember_senders(&self, entries: &[BatchEntry]) {
        let names_a_message = |event: &Event| match event {
            Event::Receipt(receipt) => receipt.message_id.is_some(),
            Event::Reply(reply) => reply.echo_of.is_some(),
            _ => false,
        };
        for entry in entries {
            if let BatchEntry::Record(record) = entry
                && names_a_message(&record.event)
            {
                let mut senders = self.number.senders.lock().unwrap_or_else(PoisonError::into_inner);
                senders.apply(self.channel.id(), record);
            }
        }
    }

    /// What nothing holds leaves.
    pub(super) fn release_free(&mut self) {
        if !self.released.is_empty() {
            let released = mem::take(&mut self.released);
            self.release(released);
        }
    }

    /// Lets answers go, in order.
    fn release(&mut self, held: Vec<Held>) {
        self.count_answers(&held);
        for held in held {
            match held {
                Held::Answers { to, answers } => to.put(Outgoing::Answers(answers)),
                Held::Answer { origin, reply_to, answered } => answer(origin.as_ref(), reply_to, answered),
                Held::Reading { origin, reply_to, what } => match what {
                    HeldWhat::Open(open) => self.read_timeline(origin, reply_to, open),
                    HeldWhat::List(list) => self.read_customers(origin, reply_to, list),
                    HeldWhat::Fate(fate) => self.read_fate(origin, reply_to, fate),
                    HeldWhat::Whom(whom) => self.read_whom(origin, reply_to, whom),
                },
            }
        }
    }

    /// Nothing more will be durable: what is held is refused, its effects never happen.
    pub(super) fn abandon(&mut self) {
        self.fates.abandon();
        let open = mem::take(&mut self.open);
        for flight in mem::take(&mut self.flights).into_iter().chain([open]) {
            flight.held.into_iter().for_each(Held::refuse);
        }
    }
}

fn handed(entry: &BatchEntry) -> Option<(ConversationId, Offset)> {
    match entry {
        BatchEntry::Record(record) => match &record.event {
            Event::Handed(handed) => record.conversation.map(|conversation| (conversation, handed.reply)),
            _ => None,
        },
        BatchEntry::Gap { .. } => None,
    }
}
