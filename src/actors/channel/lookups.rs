//! Message ids that must be compared with the full id in the journal before a message counts as a repeat (B6).
//!
//! What the channel still holds in memory is compared at once. Else the record is read off the Arbiter, where need be
//! after the runs were asked for it; meanwhile a second copy waits for the first, and so does all that the same
//! connection sends later to this channel. Others go on.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{ChannelActor, LookedAt};
use crate::actors::asking::{Permits, ReplyTo};
use crate::actors::batch::BatchEntry;
use crate::actors::outlet::Outlet;
use crate::actors::port::{Answered, Refusal};
use crate::domain::channel::Received;
use crate::domain::command::{Inbound, LookedUp};
use crate::domain::delivery::ConnectionId;
use crate::domain::event::{Event, Record};
use crate::domain::ids::{MessageId, Offset, Timestamp};
use crate::domain::recent_ids::Suspect;
use crate::journal::{Entry, Journal, ReadError, StreamId, payload};

/// A customer's message that waits.
#[derive(Debug)]
struct WaitingInbound {
    origin: Option<Arc<Outlet>>,
    inbound: Inbound,
    reply_to: ReplyTo,
}

impl WaitingInbound {
    fn connection(&self) -> Option<ConnectionId> {
        self.origin.as_ref().map(|outlet| outlet.connection())
    }
}

/// The message that is looked at, and those behind it. Bounded by the requests in flight of all connections.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    /// The first is being looked at; those behind it may not be suspected of anything yet.
    waiting: VecDeque<(WaitingInbound, Option<Suspect>)>,
    /// Room that they take up.
    permits: Vec<Arc<Permits>>,
}

impl Lookups {
    fn blocks(&self, connection: Option<ConnectionId>, message_id: &MessageId) -> bool {
        self.waiting.iter().any(|(other, _)| {
            other.connection() == connection || other.inbound.message.message_id == *message_id
        })
    }
}

impl ChannelActor {
    /// A customer's message arrives.
    pub(super) fn inbound(
        &mut self,
        origin: Option<&Arc<Outlet>>,
        inbound: Inbound,
        reply_to: ReplyTo,
        now: Timestamp,
    ) {
        let connection = origin.map(|outlet| outlet.connection());
        let arrived = WaitingInbound { origin: origin.cloned(), inbound, reply_to };
        if !self.lookups.waiting.is_empty()
            && self.lookups.blocks(connection, &arrived.inbound.message.message_id)
        {
            self.lookups.waiting.push_back((arrived, None));
            return;
        }
        if let Some((arrived, suspect)) = self.settle_inbound(arrived, now) {
            let idle = self.lookups.waiting.is_empty();
            self.lookups.waiting.push_back((arrived, Some(suspect)));
            if idle {
                self.look_at_first();
            }
        }
    }

    /// Decides and answers, unless a look at the journal is needed: then gives it back, with where to look.
    fn settle_inbound(
        &mut self,
        arrived: WaitingInbound,
        now: Timestamp,
    ) -> Option<(WaitingInbound, Suspect)> {
        let WaitingInbound { origin, mut inbound, reply_to } = arrived;
        self.name_sender(&mut inbound);
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
                        None => return Some((WaitingInbound { origin, inbound: suspected, reply_to }, at)),
                    };
                    inbound = suspected;
                }
                Err(rejection) => break Err(rejection),
            }
        };
        let answered = self.answered(decided);
        self.hold(origin.as_ref(), reply_to, answered);
        None
    }

    /// Who sent the message that it answers: only where its content has something for him alone (B7).
    fn name_sender(&self, inbound: &mut Inbound) {
        if inbound.message.content.is_redactable()
            && let Some(refers_to) = &inbound.message.refers_to
        {
            let senders = self.number.senders.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            inbound.sender = senders.find(refers_to).map(|sender| sender.service);
        }
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
        let Some((first, Some(suspect))) = self.lookups.waiting.front() else { return };
        let (message_id, suspect) = (first.inbound.message.message_id.clone(), suspect.clone());
        let (stream, me) = (StreamId::from(self.channel.id()), self.me.clone());
        self.shared.readers.read(move |journal| {
            let found = match suspect {
                Suspect::At(record) => Some(record).filter(|at| is_same(journal, stream, *at, &message_id)),
                Suspect::In(id, runs) => runs.into_iter().find_map(|run| {
                    let record = journal.find_in_run(stream, run, id);
                    let record = record.unwrap_or_else(|error| {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "ids can not be looked up: they count as unseen"
                        );
                        None
                    });
                    record.filter(|at| is_same(journal, stream, *at, &message_id))
                }),
            };
            let _ = me.try_send(LookedAt { message_id, found });
        });
    }

    /// The first that waits was looked at: it is decided, and all that may follow it.
    pub(super) fn looked_at(&mut self, message_id: &MessageId, found: Option<Offset>) {
        let now = super::now();
        let Some((mut first, _)) = self.lookups.waiting.pop_front() else { return };
        debug_assert_eq!(first.inbound.message.message_id, *message_id, "one look at a time, in order");
        first.inbound.looked_up = found.map_or(LookedUp::Different, LookedUp::Same);
        if self.shared.halt.is_halted() {
            super::asks::answer(
                first.origin.as_ref(),
                first.reply_to,
                Answered::Refused(Refusal::Unavailable),
            );
        } else {
            self.settle_inbound(first, now);
        }
        for (waiting, _) in std::mem::take(&mut self.lookups.waiting) {
            self.inbound(
                waiting.origin.as_ref().map(Arc::clone).as_ref(),
                waiting.inbound,
                waiting.reply_to,
                now,
            );
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

    /// Ids have left memory: it goes back off the Arbiter, and then `waits`.
    pub(super) fn free_ids(&mut self, waits: Arc<()>) {
        self.note_levels();
        let discarded = self.channel.take_discarded_ids();
        self.shared.readers.read(move |_| drop((discarded, waits)));
    }

    /// Whether messages wait for a look; then the room of a batch stays taken until they are decided.
    pub(super) fn keep_for_lookups(&mut self, permits: &Arc<Permits>) {
        if !self.lookups.waiting.is_empty() {
            self.lookups.permits.push(Arc::clone(permits));
        }
    }
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
