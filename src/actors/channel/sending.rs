//! The outbox and its gateway, and what must be set right at start: which reply is handed over when, and what is known of it while it has no outcome.
//!
//! ```text
//! next_to_hand ─▶ Handed (synced) ─▶ ConversationActor, from memory or ─▶ GatewayLink::send ─▶ HandedOver
//!      ▲     (Budget::ask: places, rates, turns)      the journal              │ no connection
//!      └────────────────── put_back ◀──────────────────────────────────────────┘
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{ChannelActor, Command, GatewayNews, HandOverOutcome, HandedOver};
use crate::actors::clock::now;
use crate::actors::registry::{GatewayLink, Generation};
use crate::actors::sender::Pause;
use crate::domain::command::{SendOutcome, StandingChange, StandingCommand};
use crate::domain::event::{Actor, Event, Record, StatusError};
use crate::domain::ids::{ChannelId, ConversationId, Offset, Timestamp};
use crate::domain::outbox::WITHDRAWN;
use crate::domain::outbox::budget::{Asking, Say};

/// Most replies handed over in one go; the rest follow when these are durable.
const HAND_AT_ONCE_MAX: usize = 64;

/// A channel's gateway, and what it was handed.
#[derive(Debug)]
pub(super) struct Sending {
    link: Option<Arc<GatewayLink>>,
    /// Replies without outcome.
    handed: HashMap<Offset, HandedTo>,
    /// Places that outcomes have freed, each of its gateway.
    freed: Vec<Arc<GatewayLink>>,
    /// The gateway whose budget has the channel wait.
    waits_for: Option<Arc<GatewayLink>>,
    /// When the number may send again, where it may not now.
    later: Option<Timestamp>,
}

/// Who has a reply.
#[derive(Debug)]
struct HandedTo {
    /// The gateway whose place it has; a reload may have given the number another one since.
    link: Arc<GatewayLink>,
    /// Which of its connections; none before it left.
    connection: Option<Generation>,
}

impl Sending {
    pub(super) fn new(link: Option<Arc<GatewayLink>>) -> Self {
        Self { link, handed: HashMap::new(), freed: Vec::new(), waits_for: None, later: None }
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
        self.channel.outbox_mut().set_weights(self.portal.weights());
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
            let named = link.budget().give_back(1, now());
            self.wake(&named);
        }
        if self.channel.outbox().waiting_len() == 0 || self.shared.halt.is_halted() {
            return self.leave();
        }
        let Some(link) = self.sending.link.clone().filter(|link| link.is_connected()) else {
            return self.leave();
        };
        if link.is_built_in() {
            link.budget().set_channels(self.number.sharing());
        }
        let now = now();
        // Those that rest make way for others, which are looked at next.
        while self.hand_over(&link, now) {}
    }

    /// The channel has nothing to hand over now: it keeps no other waiting.
    fn leave(&mut self) {
        if let Some(link) = self.sending.waits_for.take() {
            let named = link.budget().leave(self.channel.id(), now());
            self.wake(&named);
        }
    }

    /// Hands over what may be handed over of the next replies; says whether some of them rest, and no more.
    fn hand_over(&mut self, link: &Arc<GatewayLink>, now: Timestamp) -> bool {
        let next = self.channel.outbox().next_to_hand(HAND_AT_ONCE_MAX);
        if next.is_empty() {
            self.leave();
        }
        let mut rested = false;
        for reply in next {
            let Some((conversation, weight)) = self.asks_for(reply) else { continue };
            let asking = Asking { channel: self.channel.id(), conversation, weight };
            let said = link.budget().ask(&asking, now);
            match said {
                Say::Go => self.sending.waits_for = None,
                Say::Pair(until) => {
                    self.channel.outbox_mut().rest(reply, until);
                    rested = true;
                    continue;
                }
                Say::Number(until) => self.sending.later = Some(until),
                Say::Full => {}
            }
            if said != Say::Go {
                self.sending.waits_for = Some(Arc::clone(link));
                return false;
            }
            let before = self.channel.head();
            // A rejection says that it may not leave any more; it stands in a record already.
            let decided = self.decide(&Command::Hand { reply }, now);
            if decided.is_ok() && self.channel.head() > before {
                let handed = HandedTo { link: Arc::clone(link), connection: None };
                self.sending.handed.insert(reply, handed);
            } else {
                let named = link.budget().give_back(1, now);
                self.wake(&named);
            }
        }
        rested
    }

    /// By what a reply asks: its conversation, and what its service weighs.
    fn asks_for(&self, reply: Offset) -> Option<(ConversationId, u32)> {
        let outbox = self.channel.outbox();
        let reply = outbox.reply(reply)?;
        Some((reply.conversation, outbox.weight(reply.service)))
    }

    /// Channels that the gateway has a place for now.
    fn wake(&self, named: &[ChannelId]) {
        for channel in named.iter().filter(|channel| **channel != self.channel.id()) {
            let addr = self.shared.registry.channels.get(channel).and_then(|entry| entry.addr.clone());
            if let Some(addr) = addr {
                // A closed mailbox means that the broker stops.
                let _ = addr.try_send(GatewayNews { lost: None });
            }
        }
    }

    /// WhatsApp has refused an attempt for now: the reply waits again, and so does what it is about.
    pub(super) fn send_again(&mut self, reply: Offset, error: StatusError, pause: Pause, now: Timestamp) {
        let after = |wait: Duration| now.plus_ms(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        match (pause, &self.sending.link) {
            (Pause::Customer(wait), link) => {
                self.channel.outbox_mut().rest(reply, after(wait));
                if let Some((link, (conversation, _))) = link.as_ref().zip(self.asks_for(reply)) {
                    link.budget().rest(conversation, after(wait));
                }
            }
            (Pause::Number(wait), Some(link)) => link.budget().pause(after(wait)),
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
