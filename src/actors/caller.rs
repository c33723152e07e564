//! A service, as callers in this process speak for it: with no connection, or with one that no token was asked for.
//!
//! For programs that embed the broker and for the parts of it that are nobody's socket. **Invariant:** a
//! [`Caller`] does not ask who uses it; whoever hands one out has checked that, by [`Broker::is_token_of`] or otherwise.

use std::sync::Arc;

use actix::Addr;
use tokio::sync::oneshot;

use super::adapter::Peer;
use super::asking::{Ask, Asked, ReplyTo, Work};
use super::broker::{Broker, ConnectError, Connected, Hello};
use super::port::{Answered, Refusal};
use super::portal::{Create, PortalActor};
use super::registry::Deliver;
use super::settings::digest;
use super::shared::{PROCESS_BYTES_MAX, Shared};
use crate::domain::channel::Standing;
use crate::domain::command::{ChannelSeen, StandingChange, StandingCommand};
use crate::domain::event::Actor;
use crate::domain::ids::{AdapterId, ChannelId, Number, PortalId, ServiceId};
use crate::domain::portal::Plan;

/// A service of a portal, without a connection.
#[derive(Clone)]
pub struct Caller {
    broker: Broker,
    shared: Arc<Shared>,
    portal: PortalId,
    portal_actor: Addr<PortalActor>,
    service: ServiceId,
    is_isolated: bool,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("portal", &self.portal).field("service", &self.service).finish()
    }
}

impl Broker {
    /// Whether a token is the service's, by what the configuration says now.
    #[must_use]
    pub fn is_token_of(&self, portal: &PortalId, service: &ServiceId, token: &str) -> bool {
        let peer = Peer::Service(service.clone());
        self.shared().settings().admit(portal, &peer, &digest(token)).is_some()
    }

    /// Lets a part of this process in that needs no token: whoever calls this vouches for it. It is never `stalled`.
    ///
    /// # Errors
    /// When there is no such portal, service or gateway, or the broker takes nobody.
    pub(crate) fn connect_within(&self, hello: Hello) -> Result<Connected, ConnectError> {
        if !self.shared().settings().has(&hello.portal, &hello.peer) {
            return Err(ConnectError::Unauthenticated);
        }
        self.let_in(hello, None, true)
    }

    /// A service of a portal; nothing where there is no such service.
    #[must_use]
    pub fn caller(&self, portal: &PortalId, service: &ServiceId) -> Option<Caller> {
        let settings = self.shared().settings();
        let setup = settings.portals.get(portal)?;
        setup.rules.services.iter().find(|rules| rules.service == *service)?;
        let shared = Arc::clone(self.shared());
        let portal_actor = shared.registry.portals.get(portal)?.value().clone();
        Some(Caller {
            broker: self.clone(),
            shared,
            portal: portal.clone(),
            portal_actor,
            service: service.clone(),
            is_isolated: setup.rules.plan == Plan::Isolated,
        })
    }
}

impl Caller {
    /// The portal.
    #[must_use]
    pub fn portal(&self) -> &PortalId {
        &self.portal
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &ServiceId {
        &self.service
    }

    /// The open channel of a number that the service may know of, and its standing there.
    #[must_use]
    pub fn channel(&self, number: &Number) -> Option<(ChannelSeen, Standing)> {
        let known = Arc::clone(self.shared.registry.numbers.get(number)?.value());
        let open = known.open();
        let entry = open.iter().find(|entry| entry.is_for(&self.portal, Some(&self.service)))?;
        Some((entry.sight.seen(), entry.sight.standing(&self.service)))
    }

    /// Whether every service of the portal has a channel of its own.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.is_isolated
    }

    /// The number of a channel that the service may know of.
    #[must_use]
    pub fn number_of(&self, channel: ChannelId) -> Option<Number> {
        let entry = self.shared.registry.channels.get(&channel)?;
        entry.is_for(&self.portal, Some(&self.service)).then(|| entry.number.clone())
    }

    /// Whether somebody could take a reply for this number now.
    #[must_use]
    pub fn has_gateway(&self, number: &Number) -> bool {
        let number = self.shared.registry.numbers.get(number).map(|number| Arc::clone(number.value()));
        number.and_then(|number| number.link()).is_some_and(|link| link.is_connected())
    }

    /// Asks something of a channel, and waits for its answer. `bytes` is what it takes up until it is durable. Cancelled,
    /// what is asked goes on.
    pub async fn ask(&self, channel: ChannelId, ask: Ask, bytes: usize) -> Answered {
        let entry = self.shared.registry.channels.get(&channel).map(|entry| entry.value().clone());
        let Some(entry) = entry.filter(|entry| entry.is_for(&self.portal, Some(&self.service))) else {
            return Answered::Refused(Refusal::NotFound);
        };
        // One that is quarantined has no actor.
        let Some(addr) = entry.addr else { return Answered::Refused(Refusal::Unavailable) };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, PROCESS_BYTES_MAX);
        let Ok(room) = Arc::clone(&self.shared.process_bytes).acquire_many_owned(bytes).await else {
            return Answered::Refused(Refusal::Unavailable);
        };
        let (answer, answered) = oneshot::channel();
        let asked = vec![Asked { ask, reply_to: ReplyTo::Caller(answer) }];
        if addr.try_send(Work { origin: None, asked, permits: None }).is_err() {
            return Answered::Refused(Refusal::Unavailable);
        }
        let answered = answered.await.unwrap_or(Answered::Refused(Refusal::Unavailable));
        drop(room);
        answered
    }

    /// Creates the number in the service, or activates it where the service has only left. Cancelled, it is done all the
    /// same.
    pub async fn create(&self, number: &Number) -> Answered {
        let standing = StandingCommand {
            service: self.service.clone(),
            by: Actor::Service(self.service.clone()),
            change: StandingChange::Create,
            backfill: false,
        };
        let (answer, answered) = oneshot::channel();
        let create = Create {
            number: number.clone(),
            only: self.is_isolated.then(|| self.service.clone()),
            origin: None,
            asked: Asked { ask: Ask::Standing(standing), reply_to: ReplyTo::Caller(answer) },
        };
        let known = self.shared.registry.numbers.get(number).map(|number| Arc::clone(number.value()));
        if known.is_none_or(|number| number.portal != self.portal) {
            return Answered::Refused(Refusal::NotFound);
        }
        if self.portal_actor.try_send(create).is_err() {
            return Answered::Refused(Refusal::Unavailable);
        }
        answered.await.unwrap_or(Answered::Refused(Refusal::Unavailable))
    }

    /// Opens a connection of the service. It is never `stalled`: who has it waits for others, and says so by not
    /// acknowledging.
    ///
    /// # Errors
    /// When the broker takes nobody.
    pub fn connect(
        &self,
        adapter: AdapterId,
        window: u32,
        deliver: Deliver,
    ) -> Result<Connected, ConnectError> {
        let hello = Hello {
            portal: self.portal.clone(),
            peer: Peer::Service(self.service.clone()),
            token: String::new(),
            adapter: Some(adapter),
            window,
            deliver,
        };
        self.broker.let_in(hello, None, false)
    }
}
