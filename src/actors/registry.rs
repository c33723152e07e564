//! Who is where: channels, numbers, sessions, gateways, in dashmaps that every thread may read.
//!
//! Holds addresses and shared observable state, no rules. No guard of a map is held across an `.await`.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Addr, Recipient};
use dashmap::DashMap;

use super::adapter::{Peer, ServiceAdapterActor, Stop};
use super::channel::ChannelActor;
use super::outlet::Outlet;
use super::port::{EndReason, Outgoing, SendNow};
use super::portal::PortalActor;
use crate::domain::channel::Standing;
use crate::domain::command::{ChannelSeen, ChannelState};
use crate::domain::delivery::ConnectionId;
use crate::domain::ids::{AdapterId, ChannelId, GatewayId, Number, Offset, PortalId, ServiceId};
use crate::domain::outbox::UNRESOLVED_MAX;
use crate::domain::outbox::budget::Budget;
use crate::domain::senders::NumberSenders;

/// Most replies of one number that the built-in gateway has under way: three seconds' worth at the default rate, and
/// far fewer sockets than a process may have.
const IN_FLIGHT_MAX: usize = 256;

/// What a channel is, as far as it is durable: for lists, for `welcome`, for whoever observes the broker.
#[derive(Debug)]
pub(super) struct ChannelSight {
    head: AtomicU64,
    /// The first offset that is still there.
    first: AtomicU64,
    seen: Mutex<(ChannelSeen, Arc<BTreeMap<ServiceId, Standing>>)>,
    pub(super) levels: Levels,
    /// How far each subscriber has acknowledged or passed.
    progress: Mutex<BTreeMap<ServiceId, Arc<AtomicU64>>>,
}

/// How much of what a channel has, as its actor last noted it.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// Replies that wait to be handed to the gateway.
    pub(super) waiting: AtomicU64,
    /// Replies that are handed and have no outcome.
    pub(super) handed: AtomicU64,
    /// Messages of which statuses wait.
    pub(super) parked: AtomicU64,
    pub(super) conversations: AtomicU64,
    pub(super) claims: AtomicU64,
    pub(super) threads: AtomicU64,
    /// What its ids take in memory, in bytes.
    pub(super) ids_bytes: AtomicU64,
}

impl ChannelSight {
    pub(super) fn new(seen: ChannelSeen, standings: BTreeMap<ServiceId, Standing>) -> Self {
        let head = AtomicU64::new(seen.head.0);
        Self {
            head,
            first: AtomicU64::new(1),
            seen: Mutex::new((seen, Arc::new(standings))),
            levels: Levels::default(),
            progress: Mutex::default(),
        }
    }

    /// Notes the first offset that is still there; says whether it has moved.
    pub(super) fn trimmed_to(&self, first: Offset) -> bool {
        self.first.fetch_max(first.0, Ordering::AcqRel) < first.0
    }

    pub(super) fn set_head(&self, head: Offset) {
        self.head.store(head.0, Ordering::Release);
    }

    pub(super) fn set(&self, seen: ChannelSeen, standings: BTreeMap<ServiceId, Standing>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = (seen, Arc::new(standings));
    }

    /// The channel.
    #[must_use]
    pub(super) fn seen(&self) -> ChannelSeen {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        seen.head = Offset(self.head.load(Ordering::Acquire));
        seen
    }

    fn is_closed(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).0.state == ChannelState::Closed
    }

    /// The last durable offset.
    pub(super) fn head(&self) -> Offset {
        Offset(self.head.load(Ordering::Acquire))
    }

    /// Where a service's progress is noted.
    pub(super) fn progress_of(&self, service: &ServiceId) -> Arc<AtomicU64> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(progress.entry(service.clone()).or_default())
    }

    /// These are the subscribers now: the progress of others is forgotten.
    pub(super) fn keep_progress(&self, subscribers: &[ServiceId]) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.retain(|service, _| subscribers.contains(service));
    }

    /// How far each subscriber is behind, in records.
    pub(super) fn lags(&self) -> Vec<(ServiceId, u64)> {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        // The head last: what was acknowledged before it was read lies below it.
        let noted: Vec<(ServiceId, u64)> =
            progress.iter().map(|(service, at)| (service.clone(), at.load(Ordering::Relaxed))).collect();
        let head = self.head().0;
        noted.into_iter().map(|(service, at)| (service, head.saturating_sub(at))).collect()
    }

    /// The services that have left its list and may come back.
    pub(super) fn inactive(&self) -> Vec<ServiceId> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let inactive = seen.1.iter().filter(|(_, standing)| **standing == Standing::Inactive);
        inactive.map(|(service, _)| service.clone()).collect()
    }

    /// A service's standing in it.
    #[must_use]
    pub(super) fn standing(&self, service: &ServiceId) -> Standing {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.1.get(service).copied().unwrap_or_default()
    }
}

/// A channel, for who sends to it.
#[derive(Debug, Clone)]
pub(super) struct ChannelEntry {
    pub(super) id: ChannelId,
    pub(super) portal: PortalId,
    pub(super) number: Number,
    /// Its one service on plan `isolated`.
    pub(super) only: Option<ServiceId>,
    /// None: it is quarantined.
    pub(super) addr: Option<Addr<ChannelActor>>,
    pub(super) sight: Arc<ChannelSight>,
}

impl ChannelEntry {
    /// Whether a service of the portal may know of it (R10).
    pub(super) fn is_for(&self, portal: &PortalId, service: Option<&ServiceId>) -> bool {
        let own = match (&self.only, service) {
            (Some(only), Some(service)) => only == service,
            _ => true,
        };
        self.portal == *portal && own
    }
}

/// A number's open channels, and who sent which of its messages.
#[derive(Debug)]
pub(super) struct NumberEntry {
    pub(super) portal: PortalId,
    way: Mutex<Way>,
    pub(super) senders: Arc<Mutex<NumberSenders>>,
    pub(super) channels: Mutex<Arc<[ChannelEntry]>>,
}

/// How a number's replies leave, as the configuration says; a reload may change it.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// Its gateway, if that is one over TCP.
    pub(super) link: Option<Arc<GatewayLink>>,
    /// Gateways that it had before a reload: what they were handed, they may still answer for. At most as many as its
    /// portal has had.
    former: Vec<Arc<GatewayLink>>,
    pub(super) send_ttl_ms: u64,
}

impl NumberEntry {
    pub(super) fn new(portal: PortalId, senders: Arc<Mutex<NumberSenders>>) -> Self {
        Self { portal, way: Mutex::default(), senders, channels: Mutex::new(Arc::from([])) }
    }

    /// What it takes in memory to know who sent what, in bytes.
    pub(super) fn senders_bytes(&self) -> usize {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).bytes()
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the configuration says.
    pub(super) fn set_way(&self, link: Option<Arc<GatewayLink>>, send_ttl_ms: u64) {
        let mut way = self.way();
        way.send_ttl_ms = send_ttl_ms;
        let before = mem::replace(&mut way.link, link);
        if let Some(before) = before
            && !way.has(&before)
        {
            way.former.push(before);
        }
    }

    /// Its gateway, if that is one over TCP.
    pub(super) fn link(&self) -> Option<Arc<GatewayLink>> {
        self.way().link.clone()
    }

    pub(super) fn send_ttl_ms(&self) -> u64 {
        self.way().send_ttl_ms
    }

    /// Whether the gateway is the number's, or was: then what it says of a reply counts.
    pub(super) fn answers_for(&self, link: &Arc<GatewayLink>) -> bool {
        self.way().has(link)
    }

    /// How many channels send from it: one, but on plan `isolated`.
    pub(super) fn sharing(&self) -> usize {
        self.open().iter().filter(|entry| !entry.sight.is_closed()).count()
    }

    pub(super) fn open(&self) -> Arc<[ChannelEntry]> {
        Arc::clone(&self.channels.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Way {
    fn has(&self, link: &Arc<GatewayLink>) -> bool {
        self.link.iter().chain(&self.former).any(|known| Arc::ptr_eq(known, link))
    }
}

/// What a session is known by: one at a time for each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum SessionKey {
    Adapter(PortalId, ServiceId, AdapterId),
    /// A connection that replaces nobody.
    Single(PortalId, ConnectionId),
}

/// A session, for who ends it or delivers to it.
#[derive(Debug, Clone)]
pub(super) struct SessionEntry {
    pub(super) portal: PortalId,
    /// Who it is, and the digest of what proved it: a reload may take either away.
    pub(super) peer: Peer,
    /// None: it is a part of this process.
    pub(super) token: Option<[u8; 32]>,
    /// An embedding program has it: a stop does not wait until it is gone.
    pub(super) is_within: bool,
    pub(super) actor: Addr<ServiceAdapterActor>,
    pub(super) outlet: Arc<Outlet>,
    /// What the channels deliver to it.
    pub(super) deliver: Deliver,
}

/// How a session is delivered to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deliver {
    /// It shares its service's deliveries.
    Share,
    /// It gets none.
    None,
    /// It sees all that its service sees, from these offsets or the head, and acknowledges nothing.
    Watch(BTreeMap<ChannelId, Offset>),
}

impl SessionEntry {
    pub(super) fn stop(&self, reason: EndReason) {
        self.outlet.end(reason);
        let _ = self.actor.try_send(Stop);
    }
}

/// Which of a gateway's connections: unlike every other, also of another gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Generation(pub u64);

#[derive(Debug, Default)]
struct Link {
    generation: Generation,
    /// The connection; without an actor where it is one of this process's own.
    connected: Option<(Arc<Outlet>, Option<Recipient<Stop>>)>,
    /// It takes nothing new any more, but goes on with what it has.
    closing: bool,
}

/// The way to one gateway, whatever connection it has just now: one over TCP, or the one that is built in, which has a
/// link for each of its numbers.
pub(super) struct GatewayLink {
    link: Mutex<Link>,
    is_built_in: bool,
    /// What it may be handed, over all its channels (B14).
    budget: Mutex<Budget>,
}

impl fmt::Debug for GatewayLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayLink").field("is_built_in", &self.is_built_in).finish_non_exhaustive()
    }
}

impl GatewayLink {
    /// That of a TCP gateway.
    pub(super) fn new() -> Self {
        Self::with(Budget::new(UNRESOLVED_MAX))
    }

    /// That of a number which the built-in gateway sends for, so many messages a second.
    pub(super) fn built_in(messages_per_second: u32) -> Self {
        Self::with(Budget::of_number(IN_FLIGHT_MAX, messages_per_second))
    }

    fn with(budget: Budget) -> Self {
        let is_built_in = budget.is_of_number();
        Self { link: Mutex::default(), is_built_in, budget: Mutex::new(budget) }
    }

    /// Looks at what it may be handed, or changes it.
    pub(super) fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection takes over; gives its generation, and the one before, which is ended.
    pub(super) fn connect(
        &self,
        outlet: &Arc<Outlet>,
        stop: Option<Recipient<Stop>>,
    ) -> (Generation, Option<Generation>) {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let before = link.generation;
        link.generation = Generation(outlet.connection().0);
        link.closing = false;
        let older = link.connected.replace((Arc::clone(outlet), stop));
        let generation = link.generation;
        drop(link);
        let replaced = older.map(|(older, stop)| {
            older.end(EndReason::Replaced);
            if let Some(stop) = stop {
                let _ = stop.try_send(Stop);
            }
            before
        });
        (generation, replaced)
    }

    /// A connection is gone; says whether it was the current one.
    pub(super) fn disconnect(&self, generation: Generation) -> bool {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let current = link.generation == generation && link.connected.is_some();
        if current {
            link.connected = None;
        }
        current
    }

    /// Whether this process sends for it itself.
    pub(super) fn is_built_in(&self) -> bool {
        self.is_built_in
    }

    /// The connection takes nothing new any more.
    pub(super) fn close(&self) {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
    }

    /// Whether there is a connection that takes replies.
    pub(super) fn is_connected(&self) -> bool {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        !link.closing && link.connected.as_ref().is_some_and(|(outlet, _)| !outlet.is_ended())
    }

    /// Whether this connection still is the one.
    pub(super) fn is_current(&self, generation: Generation) -> bool {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.generation == generation && link.connected.is_some()
    }

    /// Hands a reply over; gives the connection that has it, or none where there is no connection.
    pub(super) fn send(&self, send: SendNow) -> Option<Generation> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let (outlet, _) = link.connected.as_ref()?;
        if outlet.is_ended() {
            return None;
        }
        outlet.put(Outgoing::Send(send));
        Some(link.generation)
    }
}

/// Who is where.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) portals: DashMap<PortalId, Addr<PortalActor>>,
    pub(super) channels: DashMap<ChannelId, ChannelEntry>,
    pub(super) numbers: DashMap<Number, Arc<NumberEntry>>,
    pub(super) sessions: DashMap<SessionKey, SessionEntry>,
    pub(super) gateways: DashMap<(PortalId, GatewayId), Arc<GatewayLink>>,
    connections: AtomicU64,
}

impl Registry {
    /// A connection's id; never given out twice.
    pub(super) fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Lists a channel, and its number's way to it while it is open.
    pub(super) fn enter(&self, entry: &ChannelEntry) {
        self.channels.insert(entry.id, entry.clone());
        if let Some(number) = self.numbers.get(&entry.number) {
            let mut channels = number.channels.lock().unwrap_or_else(PoisonError::into_inner);
            let others = channels.iter().filter(|other| other.id != entry.id && other.only != entry.only);
            *channels = others.cloned().chain([entry.clone()]).collect();
        }
    }

    /// The channels of a portal that a service may know of.
    pub(super) fn channels_of(&self, portal: &PortalId, service: Option<&ServiceId>) -> Vec<ChannelEntry> {
        let mut found: Vec<ChannelEntry> = (self.channels.iter())
            .filter(|entry| entry.is_for(portal, service))
            .map(|entry| entry.value().clone())
            .collect();
        found.sort_unstable_by_key(|entry| entry.id);
        found
    }

    /// The sessions of a portal.
    pub(super) fn sessions_of(&self, portal: &PortalId) -> Vec<SessionEntry> {
        let found = self.sessions.iter().filter(|session| session.portal == *portal);
        found.map(|session| session.value().clone()).collect()
    }
}
