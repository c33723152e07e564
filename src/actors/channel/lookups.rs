//! What must be looked for in the journal before it can be decided: whether a message came before, by its full id (B6);
//! what became of a reply that memory knows no more (B4, B7); who sent the message that a customer answers (B7).
//!
//! What the channel still holds in memory is compared at once. Else the record is read off the Arbiter, where need be
//! after the runs were asked for it; meanwhile a second copy waits for the first, and so does all that the same
//! connection asks later of this channel, acknowledgements apart. Others go on.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::{Arc, PoisonError};

use super::replay::look;
use super::{ChannelActor, LookedAt};
use crate::actors::asking::{Ask, Asked, Permits};
use crate::actors::batch::BatchEntry;
use crate::actors::outlet::Outlet;
use crate::actors::port::{Answered, Refusal};
use crate::domain::aside::{LaidAside, RunId, Shelf, record_in};
use crate::domain::channel::Received;
use crate::domain::command::{Inbound, LookedUp};
use crate::domain::delivery::ConnectionId;
use crate::domain::event::{Event, Record};
use crate::domain::fingerprint::Fingerprint;
use crate::domain::ids::{ChannelId, MessageId, Offset, Timestamp};
use crate::domain::outbox::recalling::{Recall, Recalled};
use crate::domain::recent_ids::Suspect;
use crate::domain::senders::Suspects;
use crate::journal::{Entry, Journal, ReadError, RunError, StreamId, payload};

/// What waits.
#[derive(Debug)]
struct Waiting {
    origin: Option<Arc<Outlet>>,
    asked: Asked,
}

impl Waiting {
    fn new(origin: Option<&Arc<Outlet>>, asked: Asked) -> Self {
        Self { origin: origin.cloned(), asked }
    }

    fn connection(&self) -> Option<ConnectionId> {
        self.origin.as_ref().map(|outlet| outlet.connection())
    }
}

/// What is to be looked for.
#[derive(Debug, Clone)]
enum Look {
    /// A record of the same message.
    Repeat(MessageId, Suspect),
    /// What became of a reply.
    Reply(Recall),
    /// Who sent the message that it answers.
    Sender(Suspects),
}

/// What a look has shown.
#[derive(Debug)]
pub(super) enum Looked {
    /// The record that has the same message id, if one does.
    Repeat(Option<Offset>),
    /// What became of the reply; nothing can be said of it while the disk refuses.
    Reply(Result<Recalled, RunError>),
    /// The channel that sent the message, and what its run says of it.
    Sender(Option<(ChannelId, Vec<u8>)>),
}

/// What is looked at, and those behind it. Bounded by the requests in flight of all connections.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    /// The first is being looked at; those behind it may need no look.
    waiting: VecDeque<(Waiting, Option<Look>)>,
    /// Room that they take up.
    permits: Vec<Arc<Permits>>,
}

impl Lookups {
    fn blocks(&self, connection: Option<ConnectionId>, ask: &Ask) -> bool {
        let message_id = message_id_in(ask);
        self.waiting.iter().any(|(other, _)| {
            other.connection() == connection
                || (message_id.is_some() && message_id_in(&other.asked.ask) == message_id)
        })
    }
}

/// The customer's message that is asked about.
fn message_id_in(ask: &Ask) -> Option<&MessageId> {
    match ask {
        Ask::Inbound(inbound) => Some(&inbound.message.message_id),
        _ => None,
    }
}

impl ChannelActor {
    /// Decides what is asked, or has it wait for a look at the journal, its own or an earlier one's.
    pub(super) fn ask_in_turn(&mut self, origin: Option<&Arc<Outlet>>, asked: Asked, now: Timestamp) {
        let connection = origin.map(|outlet| outlet.connection());
        let must_wait = !self.lookups.waiting.is_empty()
            && !matches!(asked.ask, Ask::Ack(_))
            && self.lookups.blocks(connection, &asked.ask);
        if must_wait {
            self.lookups.waiting.push_back((Waiting::new(origin, asked), None));
        } else if let Some((waiting, look)) = self.settle(origin, asked, false, now) {
            let idle = self.lookups.waiting.is_empty();
            self.lookups.waiting.push_back((waiting, Some(look)));
            if idle {
                self.look_at_first();
            }
        }
    }

    /// Decides and answers, unless a look at the journal is needed: then says for what.
    fn settle(
        &mut self,
        origin: Option<&Arc<Outlet>>,
        asked: Asked,
        is_sender_known: bool,
        now: Timestamp,
    ) -> Option<(Waiting, Look)> {
        let Asked { ask: Ask::Inbound(mut inbound), reply_to } = asked else {
            if let Some(recall) = self.recall(&asked.ask) {
                return Some((Waiting::new(origin, asked), Look::Reply(recall)));
            }
            self.ask_now(origin, asked, now);
            return None;
        };
        let waits = |inbound, reply_to| Waiting::new(origin, Asked { ask: Ask::Inbound(inbound), reply_to });
        if !is_sender_known && let Some(suspects) = self.name_sender(&mut inbound) {
            return Some((waits(inbound, reply_to), Look::Sender(suspects)));
        }
        let decided = loop {
            match self.receive(inbound, now) {
                Ok(Received::Answered(answer)) => break Ok(answer),
                Ok(Received::Suspected { inbound: mut suspected, at }) => {
                    let here = match at {
                        Suspect::At(offset) => Some(offset).zip(self.message_id_here(offset)),
                        Suspect::In(..) => None,
                    };
                    suspected.looked_up = match here {
                        Some((at, known)) if known == suspected.message.message_id => LookedUp::Same(at),
                        Some(_) => LookedUp::Different,
                        None => {
                            let message_id = suspected.message.message_id.clone();
                            return Some((waits(suspected, reply_to), Look::Repeat(message_id, at)));
                        }
                    };
                    inbound = suspected;
                }
                Err(rejection) => break Err(rejection),
            }
        };
        let answered = self.answered(decided);
        self.hold(origin, reply_to, answered);
        None
    }

    /// What must be known of a reply before it is decided about it.
    fn recall(&self, ask: &Ask) -> Option<Recall> {
        match ask {
            Ask::Command(command) => self.channel.recall(command),
            Ask::Fate { service, reply_id, .. } | Ask::Withdraw { service, reply_id, .. } => {
                self.channel.outbox().recall_named(service, reply_id)
            }
            Ask::Outcome { reply, .. } => self.channel.outbox().recall_reply(*reply),
            _ => None,
        }
    }

    /// Who sent the message that it answers: only where its content has something for him alone (B7). Gives where to
    /// look, if that may lie in runs.
    fn name_sender(&self, inbound: &mut Inbound) -> Option<Suspects> {
        let refers_to = inbound.message.refers_to.as_ref()?;
        if !inbound.message.content.is_redactable() {
            return None;
        }
        let senders = self.number.senders.lock().unwrap_or_else(PoisonError::into_inner);
        match senders.find(refers_to) {
            Some(sender) => inbound.sender = Some(sender.service),
            None => return senders.suspects(refers_to),
        }
        None
    }

    /// The message id of a record that is still in memory.
    fn message_id_here(&self, offset: Offset) -> Option<MessageId> {
        let flying = self.flights.iter().chain([&self.open]).flat_map(|flight| flight.entries.iter());
        let mut in_flight = flying.filter_map(|entry| match entry {
            BatchEntry::Record(record) if record.offset == offset => Some(record),
            _ => None,
        });
        let recent = self.recent.record(offset);
        message_id_of(recent.or_else(|| in_flight.next_back())?)
    }

    fn look_at_first(&self) {
        let Some((_, Some(wanted))) = self.lookups.waiting.front() else { return };
        let wanted = wanted.clone();
        let (stream, me) = (StreamId::from(self.channel.id()), self.me.clone());
        self.shared.readers.read(move |journal| {
            let looked = match wanted {
                Look::Repeat(message_id, suspect) => {
                    Looked::Repeat(find_repeat(journal, stream, suspect, &message_id))
                }
                Look::Reply(recall) => Looked::Reply(look(journal, stream, &recall)),
                Look::Sender(suspects) => Looked::Sender(find_sender(journal, suspects)),
            };
            let _ = me.try_send(LookedAt(looked));
        });
    }

    /// The first that waits was looked at: it is decided, and all that may follow it.
    pub(super) fn looked_at(&mut self, looked: Looked) {
        let now = super::now();
        let Some((first, _)) = self.lookups.waiting.pop_front() else { return };
        if let Some((first, look)) = self.settle_looked_at(first, looked, now) {
            self.lookups.waiting.push_front((first, Some(look)));
            return self.look_at_first();
        }
        for (Waiting { origin, asked }, _) in std::mem::take(&mut self.lookups.waiting) {
            if self.shared.halt.is_halted() {
                self.hold(origin.as_ref(), asked.reply_to, Answered::Refused(Refusal::Unavailable));
            } else {
                self.ask_in_turn(origin.as_ref(), asked, now);
            }
        }
        let permits = std::mem::take(&mut self.lookups.permits);
        if self.lookups.waiting.is_empty() {
            for permits in permits {
                self.keep_permits(permits);
            }
        } else {
            self.lookups.permits = permits;
        }
    }

    /// Decides and answers what was looked at; gives it back where something else must be looked for.
    fn settle_looked_at(
        &mut self,
        first: Waiting,
        looked: Looked,
        now: Timestamp,
    ) -> Option<(Waiting, Look)> {
        let Waiting { origin, mut asked } = first;
        let origin = origin.as_ref();
        let is_halted = self.shared.halt.is_halted();
        match (looked, &mut asked.ask) {
            (Looked::Repeat(found), Ask::Inbound(inbound)) if !is_halted => {
                inbound.looked_up = found.map_or(LookedUp::Different, LookedUp::Same);
                self.settle(origin, asked, true, now)
            }
            (Looked::Sender(found), Ask::Inbound(inbound)) if !is_halted => {
                let senders = self.number.senders.lock().unwrap_or_else(PoisonError::into_inner);
                inbound.sender = found.and_then(|(channel, value)| senders.service_in(channel, &value));
                drop(senders);
                self.settle(origin, asked, true, now)
            }
            (Looked::Reply(Ok(recalled)), _) if !is_halted => {
                self.channel.outbox_mut().recalled(recalled);
                self.ask_now(origin, asked, now);
                self.channel.outbox_mut().forget_recalled();
                None
            }
            (looked, _) => {
                if let Looked::Reply(Err(error)) = looked {
                    tracing::error!(
                        channel = %self.channel.id(),
                        error = &error as &dyn Error,
                        "what was laid aside can not be looked up now: who asks is to come again"
                    );
                }
                self.hold(origin, asked.reply_to, Answered::Refused(Refusal::Unavailable));
                None
            }
        }
    }

    /// What of the channel's memory lies in runs from now on.
    pub(super) fn lay_aside(&mut self, laid: Vec<(Shelf, LaidAside)>) {
        for (shelf, laid) in laid {
            if shelf == Shelf::Sent {
                let mut senders = self.number.senders.lock().unwrap_or_else(PoisonError::into_inner);
                senders.lay_aside(self.channel.id(), laid.clone());
            }
            self.channel.lay_aside(shelf, laid);
        }
    }

    /// Ids have left memory: it goes back off the Arbiter, and then `waits`.
    pub(super) fn free_ids(&mut self, waits: Arc<()>) {
        self.note_levels();
        let discarded = self.channel.take_discarded();
        let senders = Arc::clone(&self.number.senders);
        self.shared.readers.read(move |_| {
            let of_senders = senders.lock().unwrap_or_else(PoisonError::into_inner).take_discarded();
            drop((discarded, of_senders, waits));
        });
    }

    /// Whether something waits for a look; then the room of a batch stays taken until it is decided.
    pub(super) fn keep_for_lookups(&mut self, permits: &Arc<Permits>) {
        if !self.lookups.waiting.is_empty() {
            self.lookups.permits.push(Arc::clone(permits));
        }
    }
}

/// The record of the same message, if one that is suspected has the same full id. Blocks.
fn find_repeat(
    journal: &dyn Journal,
    stream: StreamId,
    suspect: Suspect,
    message_id: &MessageId,
) -> Option<Offset> {
    let is_it = |at: &Offset| is_same(journal, stream, *at, message_id);
    match suspect {
        Suspect::At(record) => Some(record).filter(is_it),
        Suspect::In(id, runs) => runs.into_iter().find_map(|run| {
            let value = find_in_run(journal, stream, run, id);
            value.as_deref().and_then(record_in).filter(is_it)
        }),
    }
}

/// The channel that sent a message, and what its run says of it. Blocks.
fn find_sender(journal: &dyn Journal, Suspects { key, runs }: Suspects) -> Option<(ChannelId, Vec<u8>)> {
    runs.into_iter().find_map(|(channel, runs)| {
        let stream = StreamId::from(channel);
        let value = runs.into_iter().find_map(|run| find_in_run(journal, stream, run, key));
        value.map(|value| (channel, value))
    })
}

/// What a run has for a key; nothing, where it can not be read.
fn find_in_run(journal: &dyn Journal, stream: StreamId, run: RunId, key: Fingerprint) -> Option<Vec<u8>> {
    journal.find_in_run(stream, run, key).unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn Error, "ids can not be looked up: they count as unseen");
        None
    })
}

/// Whether the record there is of the message with this full id. Blocks.
fn is_same(journal: &dyn Journal, stream: StreamId, at: Offset, message_id: &MessageId) -> bool {
    match journal.read_one(stream, at) {
        Ok(Entry::Record(raw)) => payload::decode_record(&raw)
            .ok()
            .and_then(|record| message_id_of(&record))
            .is_some_and(|known| known == *message_id),
        // The record is history that is gone; 128 keyed bits and the time of the message say that it is the same.
        Err(ReadError::NotFound { .. }) => at < journal.first(stream),
        // What can not be read can not confirm a suspicion.
        Ok(Entry::Corrupt(_)) | Err(_) => false,
    }
}

fn message_id_of(record: &Record) -> Option<MessageId> {
    match &record.event {
        Event::Message(message) => Some(message.message_id.clone()),
        _ => None,
    }
}
