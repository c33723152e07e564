//! The outbox and its gateway, and what must be set right at start: which reply is handed over when, and what is known of it while it has no outcome.
//!
//! ```text
//! next_to_hand ─▶ Handed (synced) ─▶ ConversationActor reads it ─▶ GatewayLink::send ─▶ HandedOver
//!      ▲     (GatewayLink::take: places, rates)                       │ no connection
//!      └────────────────── put_back ◀─────────────────────────────────┘
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{ChannelActor, Command, GatewayNews, HandOverOutcome, HandedOver};
use crate::actors::clock::now;
use crate::actors::registry::{GatewayLink, Generation, Right};
use crate::actors::sender::Pause;
use crate::domain::command::{SendOutcome, StandingChange, StandingCommand};
use crate::domain::event::{Actor, Event, Record, StatusError};
use crate::domain::ids::{Offset, Timestamp};
use crate::domain::outbox::WITHDRAWN;

/// Most replies handed over in one go; the rest follow when these are durable.
const HAND_AT_ONCE_MAX: usize = 64;

/// A channel's gateway, and what it was handed.
#[derive(Debug)]
pub(super) struct Sending {
    link: Option<Arc<GatewayLink>>,
    /// Replies without outcome.
    handed: HashMap<Offset, HandedTo>,
    /// Rights to hand over that outcomes have freed, each of its gateway.
    freed: Vec<Arc<GatewayLink>>,
    /// When the number may send again, where it may not now.
    later: Option<Timestamp>,
}

/// Who has a reply.
#[derive(Debug)]
struct HandedTo {
    /// The gateway whose right it has; a reload may have given the number another one since.
    link: Arc<GatewayLink>,
    /// Which of its connections; none before it left.
    connection: Option<Generation>,
}

impl Sending {
    pub(super) fn new(link: Option<Arc<GatewayLink>>) -> Self {
        Self { link, handed: HashMap::new(), freed: Vec::new(), later: None }
    }

    /// The gateway that a reply was decided to be handed to.
    pub(super) fn link_of(&self, reply: Offset) -> Option<Arc<GatewayLink>> {
        self.handed.get(&reply).map(|handed| Arc::clone(&handed.link))
    }

    /// When the number may send again, where it may not now; it is asked once.
    pub(super) fn take_later(&mut self) -> Option<Timestamp> {
        self.later.take()
    }

    /// Looks at what was decided: an outcome, or a closed attempt, frees a place.
    pub(super) fn decided(&mut self, record: &Record) {
        if let Event::Receipt(receipt) = &record.event
            && let Some(handed) = self.handed.remove(&receipt.reply)
        {
            self.freed.push(handed.link);
        }
    }
}

impl ChannelActor {
    /// What a process before this one had handed over has no outcome any more that anybody could know.
    pub(super) fn recover(&mut self) {
        let now = now();
        while self.channel.outbox().handed_len() > 0 && !self.shared.halt.is_halted() {
            self.drafts.clear();
            let max = crate::domain::channel::DRAFTS_MAX;
            self.channel.outbox().lose_handed(max, now, &mut self.drafts);
            if self.drafts.is_empty() {
                break;
            }
            self.record(now);
        }
        self.deactivate_vanished(now);
        self.tick(now);
    }

    /// Another configuration holds: who is gone leaves, and what waits goes the way that the number has now.
    pub(super) fn reloaded(&mut self) {
        let now = now();
        self.sending.link = self.number.link();
        self.channel.outbox_mut().set_send_ttl(self.number.send_ttl_ms());
        self.deactivate_vanished(now);
        self.refresh_masking();
        self.tick(now);
    }

    /// A service that the configuration does not have any more leaves the list; its record stays.
    fn deactivate_vanished(&mut self, now: Timestamp) {
        let subscribers = Arc::clone(self.channel.subscribers());
        for service in subscribers.iter() {
            if self.portal.service(service).is_some() {
                continue;
            }
            let standing = StandingCommand {
                service: service.clone(),
                by: Actor::Operator,
                change: StandingChange::Deactivate,
                backfill: false,
            };
            let _ = self.decide(&Command::Standing(standing), now);
        }
    }

    /// Hands over what may be handed over.
    pub(super) fn pump_outbox(&mut self) {
        for link in std::mem::take(&mut self.sending.freed) {
            if link.give_back(1) {
                self.wake_siblings();
            }
        }
        let Some(link) = self.sending.link.clone() else { return };
        let waits = self.channel.outbox().waiting_len() > 0;
        if !waits || self.shared.halt.is_halted() || !link.is_connected() {
            if !waits {
                link.leave(self.channel.id());
            }
            return;
        }
        let now = now();
        // Those that rest make way for others, which are looked at next.
        while self.hand_over(&link, now) {}
    }

    /// Hands over what may be handed over of the next replies; says whether some of them rest, and no more.
    fn hand_over(&mut self, link: &Arc<GatewayLink>, now: Timestamp) -> bool {
        let mut rested = false;
        for reply in self.channel.outbox().next_to_hand(HAND_AT_ONCE_MAX) {
            let Some(conversation) = self.channel.outbox().reply(reply).map(|reply| reply.conversation)
            else {
                continue;
            };
            match link.take(self.channel.id(), conversation, now) {
                Right::Taken => {}
                Right::Rest(until) => {
                    self.channel.outbox_mut().rest(reply, until);
                    rested = true;
                    continue;
                }
                Right::Later(until) => {
                    self.sending.later = Some(until);
                    return false;
                }
                Right::Full => return false,
            }
            let before = self.channel.head();
            // A rejection says that it may not leave any more; it stands in a record already.
            let decided = self.decide(&Command::Hand { reply }, now);
            if decided.is_ok() && self.channel.head() > before {
                let handed = HandedTo { link: Arc::clone(link), connection: None };
                self.sending.handed.insert(reply, handed);
            } else {
                link.give_back(1);
            }
        }
        rested
    }

    /// The gateway has room again: its other channels may go on.
    fn wake_siblings(&self) {
        for entry in self.shared.registry.channels_of(&self.entry.portal, None) {
            if let Some(addr) = entry.addr.filter(|_| entry.id != self.entry.id) {
                let _ = addr.try_send(GatewayNews { lost: None });
            }
        }
    }

    /// WhatsApp has refused an attempt for now: the reply waits again, and so does what it is about.
    pub(super) fn send_again(&mut self, reply: Offset, error: StatusError, pause: Pause, now: Timestamp) {
        let after = |wait: Duration| now.plus_ms(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        match (pause, &self.sending.link) {
            (Pause::Customer(wait), _) => self.channel.outbox_mut().rest(reply, after(wait)),
            (Pause::Number(wait), Some(link)) => link.pause(after(wait)),
            (Pause::Number(_), None) => {}
        }
        let _ = self.decide(&Command::Outcome { reply, outcome: SendOutcome::Again(error) }, now);
    }

    /// A reply has left, or could not.
    pub(super) fn handed_over(&mut self, handed: HandedOver) {
        let HandedOver { reply, outcome } = handed;
        let Some(handed) = self.sending.handed.get_mut(&reply) else { return };
        match outcome {
            HandOverOutcome::Left(generation) => {
                handed.connection = Some(generation);
                // The news of the loss may have come before this.
                if !handed.link.is_current(generation) {
                    self.lose_sends(generation);
                }
            }
            HandOverOutcome::NoConnection => {
                self.sending.freed.extend(self.sending.handed.remove(&reply).map(|handed| handed.link));
                self.channel.outbox_mut().put_back(reply);
            }
            HandOverOutcome::Unreadable => {
                let title = Some(Arc::from("the reply can not be read from the journal"));
                let error = StatusError { code: Arc::from(WITHDRAWN), title, details: None };
                let _ = self.decide(&Command::Outcome { reply, outcome: SendOutcome::Failed(error) }, now());
            }
        }
    }

    /// A connection of the gateway is lost: what it had is `unknown`.
    pub(super) fn lose_sends(&mut self, lost: Generation) {
        let now = now();
        let mut replies: Vec<Offset> = self
            .sending
            .handed
            .iter()
            .filter(|(_, to)| to.connection == Some(lost))
            .map(|(reply, _)| *reply)
            .collect();
        replies.sort_unstable();
        for reply in replies {
            let _ = self.decide(&Command::Outcome { reply, outcome: SendOutcome::Unknown }, now);
        }
    }
}
