//! Replies that this process sends itself: the broker's end of the built-in gateway, for one number.
//!
//! As with a gateway over TCP, what comes out of [`Sender::next`] was handed durably before, once; whoever takes it says
//! what became of it. What is not said in time, or not before the process ends, is `unknown`.

use std::sync::Arc;
use std::time::Duration;

use super::asking::{Ask, Asked, ReplyTo, Work};
use super::channel::GatewayNews;
use super::clock::now;
use super::outlet::Outlet;
use super::port::{EndReason, Outgoing, SendNow};
use super::registry::{GatewayLink, Generation};
use super::shared::Shared;
use crate::domain::command::SendOutcome;
use crate::domain::event::StatusError;
use crate::domain::ids::Number;
use crate::domain::view::Masking;

/// What waits after WhatsApp has refused something for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// The customer's conversation, for so long.
    Customer(Duration),
    /// Everything of the number, for so long.
    Number(Duration),
}

/// What became of a reply that was to be sent.
#[derive(Debug, Clone)]
pub enum Told {
    /// This, for good or until a status says more.
    Outcome(SendOutcome),
    /// It was not sent and is to be tried again.
    Again(StatusError, Pause),
}

/// The way out of one number. A newer one of the same number takes over.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    number: Number,
    outlet: Arc<Outlet>,
    link: Arc<GatewayLink>,
    generation: Generation,
}

impl Sender {
    /// Connects the number's link, where it is one for this process.
    pub(super) fn connect(shared: &Arc<Shared>, number: &Number) -> Option<Self> {
        let entry = shared.registry.numbers.get(number).map(|entry| Arc::clone(entry.value()))?;
        let link = entry.link().filter(|link| link.is_built_in())?;
        let counters = Arc::clone(&shared.counters);
        let outlet = Outlet::new(shared.registry.next_connection(), None, Masking::Broker, 1, counters);
        let (generation, lost) = link.connect(&outlet, None);
        let sender = Self { shared: Arc::clone(shared), number: number.clone(), outlet, link, generation };
        sender.tell_portal(lost);
        Some(sender)
    }

    /// The channels learn that there is a connection, or that one is lost.
    fn tell_portal(&self, lost: Option<Generation>) {
        let registry = &self.shared.registry;
        let portal = registry.numbers.get(&self.number).map(|entry| entry.portal.clone());
        let actor =
            portal.and_then(|portal| registry.portals.get(&portal).map(|actor| actor.value().clone()));
        if let Some(actor) = actor {
            // A closed mailbox means that the broker stops.
            let _ = actor.try_send(GatewayNews { lost });
        }
    }

    /// Whether what the number sends still comes out here.
    #[must_use]
    pub fn is_current(&self) -> bool {
        let entry = self.shared.registry.numbers.get(&self.number).map(|entry| Arc::clone(entry.value()));
        let link = entry.and_then(|entry| entry.link());
        link.is_some_and(|link| Arc::ptr_eq(&link, &self.link)) && self.link.is_current(self.generation)
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> &Number {
        &self.number
    }

    /// Waits for replies and moves them into `into`; false once there will be none any more. Cancel safe.
    pub async fn next(&self, into: &mut Vec<SendNow>) -> bool {
        let mut taken = Vec::new();
        loop {
            self.outlet.take(&mut taken);
            into.extend(taken.drain(..).filter_map(|outgoing| match outgoing {
                Outgoing::Send(send) => Some(send),
                _ => None,
            }));
            if !into.is_empty() {
                return true;
            }
            if self.outlet.is_ended() {
                return false;
            }
            self.outlet.ready().await;
        }
    }

    /// Says what became of a reply.
    pub fn tell(&self, send: &SendNow, told: Told) {
        let reply = send.offset;
        let ask = match told {
            Told::Outcome(outcome) => {
                if !matches!(outcome, SendOutcome::Unknown) {
                    self.link.budget().passed(now());
                }
                Ask::Outcome { reply, outcome: Box::new(outcome) }
            }
            Told::Again(error, pause) => Ask::Again { reply, error, pause },
        };
        let entry = self.shared.registry.channels.get(&send.channel).map(|entry| entry.value().clone());
        if let Some(addr) = entry.and_then(|entry| entry.addr) {
            let asked = vec![Asked { ask, reply_to: ReplyTo::Nobody }];
            // A closed mailbox means that the broker stops: the reply becomes `unknown` at the next start.
            let _ = addr.try_send(Work { origin: None, asked, permits: None });
        }
    }

    /// Nothing of the number is handed over for so long; then one reply goes ahead.
    pub fn pause(&self, wait: Duration) {
        let until = now().plus_ms(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self.link.budget().pause(until);
    }

    /// Takes nothing new; what was handed before still comes out.
    pub fn close(&self) {
        self.link.close();
    }

    /// How many replies were handed over and have no outcome.
    #[must_use]
    pub fn unresolved(&self) -> usize {
        self.link.budget().taken()
    }
}

/// What it had and has not told of is `unknown`.
impl Drop for Sender {
    fn drop(&mut self) {
        self.outlet.end(EndReason::Shutdown);
        if self.link.disconnect(self.generation) {
            self.tell_portal(Some(self.generation));
        }
    }
}
