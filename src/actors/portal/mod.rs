//! The actor of one portal: the only appender of its stream (rosters, the directory of its channels).
//!
//! It gives out channels' ids, one request after another, so that a number never gets a second channel however many
//! ask at once (R2), and starts the channels' actors. A roster is answered when every channel of the portal has
//! answered for it.
//!
//! At start it is made by `recovery`, from its own stream and those of its channels; `reloading` gives it another
//! configuration under way.
//!
//! **Invariants:** a channel's actor is started when its id is durable; channels are told of a portal's state only when
//! that state is durable. A panic in here halts the broker.

mod recovery;
mod reloading;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context, Handler};

use crate::actors::asking::{Ask, Asked, Gather, ReplyTo, Work};
use crate::actors::broker::PortalSetup;
use crate::actors::channel::asks::answer;
use crate::actors::channel::{Attach, ChannelActor, GatewayNews, Parts, PortalChanged, Settle};
use crate::actors::clock::now;
use crate::actors::completion::{Appended, Completions};
use crate::actors::homes::Homes;
use crate::actors::outlet::Outlet;
use crate::actors::port::{Answered, Refusal};
use crate::actors::registry::{ChannelEntry, ChannelSight};
use crate::actors::shared::{MAILBOX_MESSAGES_MAX, Shared};
use crate::domain::channel::Channel;
use crate::domain::command::ChannelState;
use crate::domain::event::{PortalEvent, RosterChange};
use crate::domain::ids::{ChannelId, Number, Offset, PortalId, ServiceId};
use crate::domain::portal::Portal;
use crate::journal::{BlockBuilder, Durability, Head, Outcome, RecordMeta, StreamId, payload};

use self::recovery::check_place;
pub use self::recovery::{Breaks, PortalError};
pub(in crate::actors) use self::recovery::{Recovered, check_unowned, fold_portal};
pub(in crate::actors) use self::reloading::{Apply, Prepare, Withdraw};

/// A service names its agents.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct ChangeRoster {
    pub(in crate::actors) change: RosterChange,
    pub(in crate::actors) origin: Option<Arc<Outlet>>,
    pub(in crate::actors) reply_to: ReplyTo,
}

/// A service wants a channel for a number. `asked` goes to that channel.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Create {
    pub(in crate::actors) number: Number,
    pub(in crate::actors) only: Option<ServiceId>,
    pub(in crate::actors) origin: Option<Arc<Outlet>>,
    pub(in crate::actors) asked: Asked,
}

/// A create met a closed channel: its number gets a new one.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Recreate {
    pub(in crate::actors) closed: ChannelId,
    pub(in crate::actors) number: Number,
    pub(in crate::actors) only: Option<ServiceId>,
    pub(in crate::actors) origin: Option<Arc<Outlet>>,
    pub(in crate::actors) asked: Asked,
}

/// A channel is closed, durably.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Closed(pub(in crate::actors) ChannelId);

/// Where a channel is, or will be.
type Place = (Number, Option<ServiceId>);

/// A create, and who asked for it.
type Waiting = (Option<Arc<Outlet>>, Asked);

/// A channel that was folded; without its state where it is quarantined.
type Folded = (ChannelEntry, Option<Channel>);

/// What happens when a block of the portal's stream is durable.
#[derive(Debug)]
enum Effect {
    /// Every channel takes the roster over, then who asked is answered.
    Roster { service: ServiceId, origin: Option<Arc<Outlet>>, reply_to: ReplyTo },
    /// The channel's actor starts, and gets what waits for it.
    Open { channel: ChannelId, place: Place },
    /// Nothing.
    None,
}

#[derive(Debug)]
struct Flight {
    last: Offset,
    /// The portal after it, as far as channels have to know it.
    portal: Arc<Portal>,
    effect: Effect,
}

/// The actor of one portal.
pub(in crate::actors) struct PortalActor {
    shared: Arc<Shared>,
    homes: Arc<Homes>,
    completions: Arc<Completions>,
    id: PortalId,
    /// With what is decided but not durable yet.
    portal: Portal,
    /// What the channels know; one and the same until a roster changes.
    durable: Arc<Portal>,
    head: Offset,
    builder: BlockBuilder,
    flights: VecDeque<Flight>,
    /// Creates that wait until their channel's id is durable.
    waiting: HashMap<Place, Vec<Waiting>>,
    /// What the configuration says of it; none while it does not stand in it.
    setup: Option<Arc<PortalSetup>>,
    /// What a reload that is being prepared will say: no channel is opened that would not fit it.
    pending: Option<Option<Arc<PortalSetup>>>,
}

impl PortalActor {
    /// Starts the actors of channels that were folded.
    pub(in crate::actors) fn start_folded(&mut self, folded: Vec<Folded>, me: &Addr<Self>) {
        for (mut entry, channel) in folded {
            if let Some(channel) = channel {
                // What was closed when the process died, without the portal's word on it.
                let repair = !channel.is_new() && channel.state() == ChannelState::Closed;
                entry.addr = self.start_channel(&entry, channel, me);
                if repair {
                    self.close(entry.id);
                }
            }
            self.shared.registry.enter(&entry);
        }
    }

    fn start_channel(
        &self,
        entry: &ChannelEntry,
        channel: Channel,
        me: &Addr<Self>,
    ) -> Option<Addr<ChannelActor>> {
        let number = Arc::clone(self.shared.registry.numbers.get(&entry.number)?.value());
        let (home, completions) = self.homes.least_loaded();
        let parts = Parts {
            shared: Arc::clone(&self.shared),
            completions,
            channel,
            entry: entry.clone(),
            portal: Arc::clone(&self.durable),
            portal_actor: me.clone(),
            number,
        };
        Some(ChannelActor::start_in_arbiter(&home, move |ctx| ChannelActor::new(parts, ctx.address())))
    }

    /// Records an event; `effect` follows when it is durable. False where it does not fit in a record.
    fn record(&mut self, event: &PortalEvent, effect: Effect) -> Result<(), Effect> {
        let offset = self.head.next();
        let meta = RecordMeta {
            conversation: None,
            previous: Offset::ZERO,
            at: now(),
            kind: payload::portal_kind_of(event),
        };
        if self.builder.push(offset, meta, |out| payload::encode_portal(event, out)).is_err() {
            return Err(effect);
        }
        self.portal.apply(event);
        let expected = Head { offset: self.head, token: 0 };
        self.head = offset;
        let portal = match event {
            PortalEvent::Roster(_) => Arc::new(self.portal.for_channels()),
            PortalEvent::ChannelOpened { .. } | PortalEvent::ChannelClosed { .. } => {
                Arc::clone(self.flights.back().map_or(&self.durable, |flight| &flight.portal))
            }
        };
        self.flights.push_back(Flight { last: offset, portal, effect });
        if let Some(block) = self.builder.take() {
            let stream = StreamId::of_portal(&self.id);
            self.shared.journal.append(
                stream,
                expected,
                block,
                Durability::Configured,
                &self.completions.sink(),
            );
        }
        Ok(())
    }

    fn close(&mut self, channel: ChannelId) {
        if let Some(event) = self.portal.decide_closed(channel) {
            // A record of an id always fits.
            let _ = self.record(&event, Effect::None);
        }
    }

    fn create(&mut self, place: Place, origin: Option<Arc<Outlet>>, asked: Asked) {
        if let Some(waiting) = self.waiting.get_mut(&place) {
            waiting.push((origin, asked));
            return;
        }
        if let Some(open) = self.portal.open_channel(&place.0, place.1.as_ref()) {
            self.pass_on(open, origin, vec![asked]);
            return;
        }
        if let Some(refusal) = self.misfit(&place) {
            answer(origin.as_ref(), asked.reply_to, Answered::Refused(refusal));
            return;
        }
        let mut raw = [0; 16];
        if getrandom::fill(&mut raw).is_err() {
            answer(origin.as_ref(), asked.reply_to, Answered::Refused(Refusal::Unavailable));
            return;
        }
        let fresh = ChannelId(u128::from_be_bytes(raw));
        if let Some(event) = self.portal.decide_open(&place.0, place.1.as_ref(), fresh)
            && self.record(&event, Effect::Open { channel: fresh, place: place.clone() }).is_ok()
        {
            self.waiting.insert(place, vec![(origin, asked)]);
        } else {
            answer(origin.as_ref(), asked.reply_to, Answered::Refused(Refusal::Unavailable));
        }
    }

    fn pass_on(&self, channel: ChannelId, origin: Option<Arc<Outlet>>, asked: Vec<Asked>) {
        let addr = self.shared.registry.channels.get(&channel).and_then(|entry| entry.addr.clone());
        match addr {
            Some(addr) => {
                let _ = addr.try_send(Work { origin, asked, permits: None });
            }
            None => {
                for asked in asked {
                    answer(origin.as_ref(), asked.reply_to, Answered::Refused(Refusal::Unavailable));
                }
            }
        }
    }

    fn land(&mut self, head: Offset, me: &Addr<Self>) {
        while self.flights.front().is_some_and(|flight| flight.last <= head) {
            let Some(flight) = self.flights.pop_front() else { break };
            self.durable = flight.portal;
            match flight.effect {
                Effect::Roster { service, origin, reply_to } => {
                    self.spread_roster(&service, origin, reply_to)
                }
                Effect::Open { channel, place } => self.open(channel, place, me),
                Effect::None => self.spread(false),
            }
        }
    }

    fn channels(&self) -> Vec<Addr<ChannelActor>> {
        let channels = self.shared.registry.channels_of(&self.id, None);
        channels.into_iter().filter_map(|entry| entry.addr).collect()
    }

    fn spread(&self, is_reload: bool) {
        for channel in self.channels() {
            let _ = channel.try_send(PortalChanged {
                portal: Arc::clone(&self.durable),
                roster: None,
                is_reload,
            });
        }
    }

    /// Every channel takes the roster over; when all have, who asked is answered.
    fn spread_roster(&self, service: &ServiceId, origin: Option<Arc<Outlet>>, reply_to: ReplyTo) {
        let channels = self.channels();
        let gather = match (origin, reply_to) {
            (Some(outlet), ReplyTo::Session(id)) => Gather::for_session(channels.len(), false, outlet, id),
            (_, ReplyTo::Caller(caller)) => Gather::for_caller(channels.len(), false, caller),
            _ => return self.spread(false),
        };
        for channel in channels {
            let asked = Asked { ask: Ask::Get, reply_to: ReplyTo::Part(Arc::clone(&gather)) };
            let roster = Some((service.clone(), asked));
            let told = channel.try_send(PortalChanged {
                portal: Arc::clone(&self.durable),
                roster,
                is_reload: false,
            });
            if told.is_err() {
                gather.part(Answered::Refused(Refusal::Unavailable));
            }
        }
    }

    /// A channel's id is durable: its actor starts, every session is attached, and what waits goes to it.
    fn open(&mut self, channel: ChannelId, place: Place, me: &Addr<Self>) {
        let waiting = self.waiting.remove(&place).unwrap_or_default();
        let (number, only) = place;
        let Some(entry) = self.shared.registry.numbers.get(&number).map(|found| Arc::clone(found.value()))
        else {
            return;
        };
        let state =
            Channel::new(channel, number.clone(), only.clone(), self.shared.keys, entry.send_ttl_ms());
        let sight = Arc::new(ChannelSight::new(state.seen(), BTreeMap::new()));
        let mut listed =
            ChannelEntry { id: channel, portal: self.id.clone(), number, only, addr: None, sight };
        listed.addr = self.start_channel(&listed, state, me);
        self.shared.registry.enter(&listed);
        if let Some(addr) = &listed.addr {
            for session in self.shared.registry.sessions_of(&self.id) {
                if listed.is_for(&self.id, session.outlet.service()) {
                    let _ = addr.try_send(Attach { outlet: session.outlet, deliver: session.deliver });
                }
            }
        }
        for (origin, asked) in waiting {
            self.pass_on(channel, origin, vec![asked]);
        }
    }

    /// Nothing more will be durable: what waits is refused.
    fn abandon(&mut self) {
        for flight in mem::take(&mut self.flights) {
            if let Effect::Roster { origin, reply_to, .. } = flight.effect {
                answer(origin.as_ref(), reply_to, Answered::Refused(Refusal::Unavailable));
            }
        }
        for (origin, asked) in mem::take(&mut self.waiting).into_values().flatten() {
            answer(origin.as_ref(), asked.reply_to, Answered::Refused(Refusal::Unavailable));
        }
    }
}

impl Actor for PortalActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // What is asked of it comes from sessions, which have at most 1,024 requests in flight each.
        ctx.set_mailbox_capacity(MAILBOX_MESSAGES_MAX);
        self.completions.own(StreamId::of_portal(&self.id), ctx.address().recipient());
    }
}

impl Drop for PortalActor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.halt.halt(format!("the actor of portal {} panicked", self.id));
        }
    }
}

impl Handler<Appended> for PortalActor {
    type Result = ();

    fn handle(&mut self, Appended(outcome): Appended, ctx: &mut Self::Context) {
        match outcome {
            Outcome::Durable(head) => self.land(head.offset, &ctx.address()),
            Outcome::Halted => self.abandon(),
            Outcome::Fenced(_) | Outcome::Unknown => {
                self.shared.halt.halt(format!("portal {} was appended to by another owner", self.id));
                self.abandon();
            }
        }
    }
}

impl Handler<ChangeRoster> for PortalActor {
    type Result = ();

    fn handle(&mut self, asked: ChangeRoster, _: &mut Self::Context) {
        let ChangeRoster { change, origin, reply_to } = asked;
        if self.shared.halt.is_halted() || !self.shared.journal.has_room() {
            answer(origin.as_ref(), reply_to, Answered::Refused(Refusal::Unavailable));
            return;
        }
        match self.portal.decide_roster(&change) {
            Ok(event) => {
                let effect = Effect::Roster { service: change.service, origin, reply_to };
                if let Err(Effect::Roster { origin, reply_to, .. }) = self.record(&event, effect) {
                    let refusal = Refusal::Rejected(crate::domain::command::Rejection::BadMessage(
                        "the roster does not fit in one record: name fewer agents at once",
                    ));
                    answer(origin.as_ref(), reply_to, Answered::Refused(refusal));
                }
            }
            Err(rejection) => answer(origin.as_ref(), reply_to, Answered::Refused(rejection.into())),
        }
    }
}

impl Handler<Create> for PortalActor {
    type Result = ();

    fn handle(&mut self, create: Create, _: &mut Self::Context) {
        let Create { number, only, origin, asked } = create;
        if self.shared.halt.is_halted() || !self.shared.journal.has_room() {
            answer(origin.as_ref(), asked.reply_to, Answered::Refused(Refusal::Unavailable));
            return;
        }
        self.create((number, only), origin, asked);
    }
}

impl Handler<Recreate> for PortalActor {
    type Result = ();

    fn handle(&mut self, again: Recreate, _: &mut Self::Context) {
        let Recreate { closed, number, only, origin, asked } = again;
        if self.shared.halt.is_halted() {
            answer(origin.as_ref(), asked.reply_to, Answered::Refused(Refusal::Unavailable));
            return;
        }
        self.close(closed);
        self.create((number, only), origin, asked);
    }
}

impl Handler<Closed> for PortalActor {
    type Result = ();

    fn handle(&mut self, Closed(channel): Closed, _: &mut Self::Context) {
        self.close(channel);
    }
}

impl Handler<GatewayNews> for PortalActor {
    type Result = ();

    fn handle(&mut self, news: GatewayNews, _: &mut Self::Context) {
        for channel in self.channels() {
            let _ = channel.try_send(GatewayNews { lost: news.lost });
        }
    }
}

impl Handler<Settle> for PortalActor {
    type Result = ();

    fn handle(&mut self, settle: Settle, _: &mut Self::Context) {
        for channel in self.channels() {
            let _ = channel.try_send(settle.clone());
        }
    }
}
