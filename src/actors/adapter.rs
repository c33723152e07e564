//! The actor of one connection: of a service's adapter, or of a gateway.
//!
//! It routes what the connection asks, one message per batch and channel, watches that deliveries are acknowledged in
//! time, and tells the channels when the connection has gone. What leaves goes past it, straight into the
//! connection's [`Outlet`].

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler};
use tokio::sync::Semaphore;

use super::asking::{Ask, Asked, Gather, Permits, ReplyTo, Work};
use super::channel::{Attach, ChannelActor, Detach, GatewayNews};
use super::outlet::Outlet;
use super::port::{Answered, EndReason, Refusal};
use super::portal::{ChangeRoster, Create, PortalActor};
use super::registry::{ChannelEntry, Deliver, GatewayLink, Generation, NumberEntry, SessionKey};
use super::shared::{MAILBOX_MESSAGES_MAX, Shared};
use crate::domain::channel::{LIST_MAX, Standing};
use crate::domain::command::{Command, Inbound, StandingChange, StandingCommand, StatusCommand, StatusOf};
use crate::domain::event::{Actor as By, RosterChange};
use crate::domain::ids::{ChannelId, GatewayId, Number, PortalId, ServiceId};
use crate::domain::portal::{NumberRefusal, Plan};

/// How often a connection is looked after, at least; more often where `ack_timeout` is shorter than a few of these.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most channels in one answer, and in `welcome` (contract: 500).
pub const CHANNELS_MAX: usize = 500;

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// An adapter of a service.
    Service(ServiceId),
    /// A gateway.
    Gateway(GatewayId),
}

/// What a connection asks, checked and in the domain's words. What is large is boxed.
#[derive(Debug)]
pub enum Request {
    /// Something of a channel.
    Of(ChannelId, Ask),
    /// A change of standing in a channel.
    Standing {
        /// The channel.
        channel: ChannelId,
        /// What is asked.
        change: StandingChange,
        /// Whether it asks for what retention still has.
        backfill: bool,
    },
    /// Create the number in the service.
    Create {
        /// The number.
        number: Number,
        /// Whether it asks for what retention still has.
        backfill: bool,
    },
    /// The service names its agents.
    Roster(RosterChange),
    /// The channels in which the service has a record.
    ListChannels {
        /// Behind this one.
        after: Option<ChannelId>,
        /// At most so many.
        limit: usize,
    },
    /// A gateway brings a customer's message.
    Inbound {
        /// To which number.
        number: Number,
        /// The message.
        inbound: Inbound,
    },
    /// A gateway brings a status.
    Status {
        /// Of which number.
        number: Number,
        /// Of a reply in this channel; else by the message's id.
        channel: Option<ChannelId>,
        /// The status.
        status: Box<StatusCommand>,
    },
}

/// What one read of a connection brought, in order, with the ids of the requests (0: unanswered).
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct Requests {
    pub(super) requests: Vec<(u64, Request)>,
    pub(super) permits: Arc<Permits>,
}

/// The session is listed: its channels deliver to it from now on.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct Begin;

/// The connection is gone, or is to go.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct Stop;

/// What a connection's actor is made of.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) portal: PortalId,
    pub(super) portal_actor: Addr<PortalActor>,
    pub(super) peer: Peer,
    pub(super) outlet: Arc<Outlet>,
    pub(super) deliver: Deliver,
    pub(super) key: SessionKey,
    /// Of a gateway's connection that gets `send`.
    pub(super) link: Option<Arc<GatewayLink>>,
    /// It is in this process and waits for others: what it leaves unacknowledged ends nothing.
    pub(super) is_patient: bool,
}

/// The actor of one connection.
pub(super) struct ServiceAdapterActor {
    parts: Parts,
    generation: Option<Generation>,
    /// When credit was last seen to come back, and how often it had by then.
    alive: (u64, Instant),
}

/// Requests of one batch for one channel.
struct Routed {
    entry: ChannelEntry,
    asked: Vec<Asked>,
}

/// The requests that one read brought, on their way.
struct Routing {
    routed: Vec<Routed>,
    /// Where each channel stands in `routed`.
    places: HashMap<ChannelId, usize>,
    /// How many there are at most: what the first channel's list is made for. Mostly there is no other.
    requests: usize,
    /// The number that was looked up last, with its open channels: mostly there is one.
    number: Option<(Number, Arc<[ChannelEntry]>)>,
}

impl Routing {
    fn of(&mut self, channel: ChannelId) -> Option<&mut Routed> {
        let at = match self.routed.last() {
            Some(last) if last.entry.id == channel => self.routed.len() - 1,
            _ => *self.places.get(&channel)?,
        };
        self.routed.get_mut(at)
    }

    fn put(&mut self, entry: &ChannelEntry, asked: Asked) -> Result<(), Refusal> {
        if entry.addr.is_none() {
            return Err(Refusal::Unavailable);
        }
        match self.of(entry.id) {
            Some(routed) => routed.asked.push(asked),
            None => {
                let mut all = Vec::with_capacity(if self.routed.is_empty() { self.requests } else { 1 });
                all.push(asked);
                self.places.insert(entry.id, self.routed.len());
                self.routed.push(Routed { entry: entry.clone(), asked: all });
            }
        }
        Ok(())
    }
}

impl ServiceAdapterActor {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts, generation: None, alive: (0, Instant::now()) }
    }

    /// From here on the connection is delivered to.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        if let Some(link) = &self.parts.link {
            let (generation, lost) = link.connect(&self.parts.outlet, Some(ctx.address().recipient()));
            self.generation = Some(generation);
            let _ = self.parts.portal_actor.try_send(GatewayNews { lost });
        }
        if self.parts.deliver != Deliver::None && self.service().is_some() {
            for channel in self.my_channels() {
                let (outlet, deliver) = (Arc::clone(&self.parts.outlet), self.parts.deliver.clone());
                let _ = channel.try_send(Attach { outlet, deliver });
            }
        }
    }

    fn refuse(&self, id: u64, refusal: Refusal) {
        if id != 0 {
            self.parts.outlet.answer(id, Answered::Refused(refusal));
        }
    }

    fn service(&self) -> Option<&ServiceId> {
        match &self.parts.peer {
            Peer::Service(service) => Some(service),
            Peer::Gateway(_) => None,
        }
    }

    /// The one service that a channel of this service is for, where the portal's plan is `isolated` (R10).
    fn only(&self) -> Option<ServiceId> {
        let plan = self.parts.shared.settings().plan(&self.parts.portal);
        self.service().filter(|_| plan == Some(Plan::Isolated)).cloned()
    }

    fn channel(&self, channel: ChannelId, batch: &mut Routing) -> Option<ChannelEntry> {
        if let Some(routed) = batch.of(channel) {
            return Some(routed.entry.clone());
        }
        let entry = self.parts.shared.registry.channels.get(&channel)?.value().clone();
        entry.is_for(&self.parts.portal, self.service()).then_some(entry)
    }

    /// The number, where the portal may use it (B1).
    fn number(&self, number: &Number) -> Result<Arc<NumberEntry>, Refusal> {
        let settings = self.parts.shared.settings();
        settings.numbers.admit(&self.parts.portal, number).map_err(|refusal| match refusal {
            NumberRefusal::Taken => Refusal::NumberTaken,
            NumberRefusal::NotFound => Refusal::NotFound,
        })?;
        let found = self.parts.shared.registry.numbers.get(number).map(|found| Arc::clone(found.value()));
        found.ok_or(Refusal::NotFound)
    }

    fn route(&self, id: u64, request: Request, batch: &mut Routing) {
        let routed = match (request, &self.parts.peer) {
            (Request::Inbound { number, inbound }, Peer::Gateway(_)) => {
                self.route_inbound(id, &number, inbound, batch)
            }
            (Request::Status { number, channel, status }, Peer::Gateway(_)) => {
                self.route_status(id, &number, channel, *status, batch)
            }
            (Request::Of(channel, ask @ Ask::Outcome { .. }), Peer::Gateway(_)) => {
                self.route_outcome(id, channel, ask, batch)
            }
            (Request::Inbound { .. } | Request::Status { .. } | Request::Of(_, Ask::Outcome { .. }), _)
            | (_, Peer::Gateway(_)) => Err(Refusal::Forbidden),
            (Request::Of(channel, ask), Peer::Service(_)) => self.route_to(id, channel, ask, batch),
            (Request::Standing { channel, change, backfill }, Peer::Service(service)) => {
                let by = By::Service(service.clone());
                let standing = StandingCommand { service: service.clone(), by, change, backfill };
                self.route_to(id, channel, Ask::Standing(standing), batch)
            }
            (Request::Create { number, backfill }, Peer::Service(service)) => {
                self.create(id, number, service, backfill)
            }
            (Request::Roster(change), Peer::Service(_)) => {
                let origin = Some(Arc::clone(&self.parts.outlet));
                let change = ChangeRoster { change, origin, reply_to: ReplyTo::Session(id) };
                self.parts.portal_actor.try_send(change).map_err(|_| Refusal::Unavailable)
            }
            (Request::ListChannels { after, limit }, Peer::Service(service)) => {
                let (channels, next) = self.list_channels(service, after, limit);
                self.parts.outlet.answer(id, Answered::Channels { channels, next });
                Ok(())
            }
        };
        if let Err(refusal) = routed {
            self.refuse(id, refusal);
        }
    }

    fn route_to(&self, id: u64, channel: ChannelId, ask: Ask, batch: &mut Routing) -> Result<(), Refusal> {
        let asked = Asked { ask, reply_to: if id == 0 { ReplyTo::Nobody } else { ReplyTo::Session(id) } };
        if let Some(routed) = batch.of(channel) {
            routed.asked.push(asked);
            return Ok(());
        }
        let entry = self.channel(channel, batch).ok_or(Refusal::NotFound)?;
        batch.put(&entry, asked)
    }

    fn create(&self, id: u64, number: Number, service: &ServiceId, backfill: bool) -> Result<(), Refusal> {
        self.number(&number)?;
        let standing = StandingCommand {
            service: service.clone(),
            by: By::Service(service.clone()),
            change: StandingChange::Create,
            backfill,
        };
        let create = Create {
            number,
            only: self.only(),
            origin: Some(Arc::clone(&self.parts.outlet)),
            asked: Asked { ask: Ask::Standing(standing), reply_to: ReplyTo::Session(id) },
        };
        self.parts.portal_actor.try_send(create).map_err(|_| Refusal::Unavailable)
    }

    fn route_inbound(
        &self,
        id: u64,
        number: &Number,
        inbound: Inbound,
        batch: &mut Routing,
    ) -> Result<(), Refusal> {
        let open = match &batch.number {
            Some((known, open)) if known == number => Arc::clone(open),
            _ => {
                let open = self.number(number).map_err(|_| Refusal::NotFound)?.open();
                batch.number = Some((number.clone(), Arc::clone(&open)));
                open
            }
        };
        if let [only] = &*open {
            let ask = Ask::Inbound(inbound);
            return batch.put(only, Asked { ask, reply_to: ReplyTo::Session(id) });
        }
        self.put_all(id, &open, true, &Command::Inbound(inbound), batch);
        Ok(())
    }

    /// Asks every channel the same, and answers when all have. `messages`: they answer that they have taken it.
    fn put_all(
        &self,
        id: u64,
        open: &[ChannelEntry],
        messages: bool,
        command: &Command,
        batch: &mut Routing,
    ) {
        if messages && open.is_empty() {
            self.parts.shared.counters.unrouted();
        }
        let gather = Gather::for_session(open.len(), messages, Arc::clone(&self.parts.outlet), id);
        for entry in open {
            let asked =
                Asked { ask: Ask::from(command.clone()), reply_to: ReplyTo::Part(Arc::clone(&gather)) };
            if let Err(refusal) = batch.put(entry, asked) {
                gather.part(Answered::Refused(refusal));
            }
        }
    }

    fn route_status(
        &self,
        id: u64,
        number: &Number,
        channel: Option<ChannelId>,
        status: StatusCommand,
        batch: &mut Routing,
    ) -> Result<(), Refusal> {
        let known = self.number(number).map_err(|_| Refusal::NotFound)?;
        let channel = channel.or_else(|| sender_of(&known, &status));
        if let Some(channel) = channel {
            let entry = self.channel(channel, batch).filter(|entry| entry.number == *number);
            let ask = Ask::from(Command::Status(status));
            let reply_to = ReplyTo::Session(id);
            return batch.put(&entry.ok_or(Refusal::NotFound)?, Asked { ask, reply_to });
        }
        self.put_all(id, &known.open(), false, &Command::Status(status), batch);
        Ok(())
    }

    /// What became of a reply is told by the gateway of the reply's number, and by no other.
    fn route_outcome(
        &self,
        id: u64,
        channel: ChannelId,
        ask: Ask,
        batch: &mut Routing,
    ) -> Result<(), Refusal> {
        let entry = self.channel(channel, batch).ok_or(Refusal::NotFound)?;
        let number = self.number(&entry.number)?;
        let Peer::Gateway(gateway) = &self.parts.peer else { return Err(Refusal::Forbidden) };
        let own = self.parts.shared.registry.gateways.get(&(self.parts.portal.clone(), gateway.clone()));
        if !own.is_some_and(|own| number.answers_for(own.value())) {
            return Err(Refusal::Forbidden);
        }
        batch.put(&entry, Asked { ask, reply_to: ReplyTo::Session(id) })
    }

    fn list_channels(
        &self,
        service: &ServiceId,
        after: Option<ChannelId>,
        limit: usize,
    ) -> (Vec<crate::domain::command::ChannelSeen>, Option<ChannelId>) {
        let limit = limit.clamp(1, CHANNELS_MAX);
        let mut channels = recorded(&self.parts.shared, &self.parts.portal, service, after);
        let next =
            if channels.len() > limit { channels.get(limit - 1).map(|seen| seen.channel) } else { None };
        channels.truncate(limit);
        (channels, next)
    }

    fn my_channels(&self) -> Vec<Addr<ChannelActor>> {
        let channels = self.parts.shared.registry.channels_of(&self.parts.portal, self.service());
        channels.into_iter().filter_map(|entry| entry.addr).collect()
    }

    /// Ends a connection that leaves its deliveries unacknowledged for too long.
    fn look_after(&mut self) {
        let credit = self.parts.outlet.credit();
        let returns = credit.returns();
        // Only who shares has anything to acknowledge: what a watcher has not read yet waits for him.
        let is_idle =
            credit.outstanding() == 0 || self.parts.deliver != Deliver::Share || self.parts.is_patient;
        // One that is not read because of its own requests can not acknowledge.
        let is_paused = !self.parts.outlet.has_request_room();
        if is_idle || is_paused || returns != self.alive.0 {
            self.alive = (returns, Instant::now());
        } else if self.alive.1.elapsed() >= self.parts.shared.settings().limits.ack_timeout {
            self.parts.outlet.end(EndReason::Stalled);
        }
    }
}

/// The channels in which the service has a record, behind `after`.
pub(super) fn recorded(
    shared: &Shared,
    portal: &PortalId,
    service: &ServiceId,
    after: Option<ChannelId>,
) -> Vec<crate::domain::command::ChannelSeen> {
    let channels = shared.registry.channels_of(portal, Some(service));
    let behind = channels.iter().filter(|entry| after.is_none_or(|after| entry.id > after));
    let recorded = behind.filter(|entry| entry.sight.standing(service) != Standing::None);
    recorded.map(|entry| entry.sight.seen()).collect()
}

/// The channel whose reply the status is about, where that is known.
fn sender_of(number: &NumberEntry, status: &StatusCommand) -> Option<ChannelId> {
    let StatusOf::Message(message_id) = &status.of else { return None };
    let senders = number.senders.lock().unwrap_or_else(PoisonError::into_inner);
    senders.find(message_id).map(|sender| sender.channel)
}

impl Actor for ServiceAdapterActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // What bounds the mailbox: the requests in flight.
        ctx.set_mailbox_capacity(MAILBOX_MESSAGES_MAX);
        let every = LOOK_EVERY
            .min(self.parts.shared.settings().limits.ack_timeout / 4)
            .max(Duration::from_millis(10));
        ctx.run_interval(every, |actor, _| actor.look_after());
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.parts.outlet.close();
        let registry = &self.parts.shared.registry;
        let connection = self.parts.outlet.connection();
        registry.sessions.remove_if(&self.parts.key, |_, entry| entry.outlet.connection() == connection);
        for channel in self.my_channels() {
            let _ = channel.try_send(Detach(connection));
        }
        if let (Some(link), Some(generation)) = (&self.parts.link, self.generation)
            && link.disconnect(generation)
        {
            let _ = self.parts.portal_actor.try_send(GatewayNews { lost: Some(generation) });
        }
    }
}

impl Handler<Begin> for ServiceAdapterActor {
    type Result = ();

    fn handle(&mut self, _: Begin, ctx: &mut Self::Context) {
        self.begin(ctx);
    }
}

impl Handler<Requests> for ServiceAdapterActor {
    type Result = ();

    fn handle(&mut self, batch: Requests, _: &mut Self::Context) {
        if self.parts.outlet.is_void() {
            return;
        }
        let requests = batch.requests.len();
        let mut routing = Routing { routed: Vec::new(), places: HashMap::new(), requests, number: None };
        for (id, request) in batch.requests {
            self.route(id, request, &mut routing);
        }
        for Routed { entry, asked } in routing.routed {
            let Some(addr) = entry.addr else { continue };
            let origin = Some(Arc::clone(&self.parts.outlet));
            // A closed mailbox means that the broker has halted; the connection is about to end.
            let _ = addr.try_send(Work { origin, asked, permits: Some(Arc::clone(&batch.permits)) });
        }
    }
}

impl Handler<Stop> for ServiceAdapterActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// Most conversations or channels that a list is asked for.
#[must_use]
pub fn list_limit(asked: Option<u64>, most: usize) -> usize {
    asked.and_then(|asked| usize::try_from(asked).ok()).unwrap_or(most).clamp(1, most)
}

/// Most conversations in one list.
pub const CONVERSATIONS_MAX: usize = LIST_MAX;

/// A session's own share of the process's room, as permits.
pub(super) fn session_bytes() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(super::shared::SESSION_BYTES_MAX as usize))
}
