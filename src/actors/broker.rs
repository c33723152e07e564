//! The broker as a library: starts the actors on Arbiters of its own, and is the way in for sockets, webhooks and
//! embedding programs alike.
//!
//! **Invariants:** the handle works from any thread and any runtime. The library never ends the process: when the
//! journal fails, nothing more is acknowledged and [`Broker::halted`] resolves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, Arbiter, ArbiterHandle, AsyncContext, System};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, oneshot};

use super::adapter::{
    Begin, CHANNELS_MAX, Parts, Peer, Request, Requests, ServiceAdapterActor, Stop, recorded, session_bytes,
};
use super::asking::{Ask, Asked, Permits, ReplyTo, Work};
use super::channel::Settle;
use super::homes::Homes;
use super::keeper::Keeper;
use super::outlet::Outlet;
use super::port::{Answered, EndReason, Outgoing, Refusal};
pub use super::portal::{Breaks, PortalError};
use super::portal::{PortalActor, check_unowned};
use super::reader::Readers;
use super::registry::{Deliver, GatewayLink, NumberEntry, Registry, SessionEntry, SessionKey};
use super::shared::{HaltSwitch, Halted, Limits, PROCESS_BYTES_MAX, SESSION_BYTES_MAX, Shared};
use crate::domain::channel::Keys;
use crate::domain::command::{ChannelSeen, Command, Inbound, StatusCommand, StatusOf};
use crate::domain::content::Content;
use crate::domain::delivery::ConnectionId;
use crate::domain::fingerprint::Key;
use crate::domain::ids::{AdapterId, GatewayId, Number, PortalId, ServiceId};
use crate::domain::portal::{Numbers, Plan, PortalRules};
use crate::domain::senders::Senders;
use crate::domain::view::Masking;
use crate::journal::{self, Journal, StreamId};

/// How long a draining broker looks between two checks whether all is durable.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(5);

/// A number of a portal.
#[derive(Debug, Clone)]
pub struct NumberSetup {
    /// The number.
    pub number: Number,
    /// The TCP gateway that its replies leave through; none: they wait.
    pub gateway: Option<GatewayId>,
    /// How long a reply waits for its gateway, in milliseconds.
    pub send_ttl_ms: u64,
}

/// The SHA-256 of a token.
pub type TokenSha256 = [u8; 32];

/// A portal.
#[derive(Debug, Clone)]
pub struct PortalSetup {
    /// Its rules.
    pub rules: PortalRules,
    /// Its numbers.
    pub numbers: Vec<NumberSetup>,
    /// The tokens of each service.
    pub service_tokens: BTreeMap<ServiceId, Vec<TokenSha256>>,
    /// The tokens of each gateway over TCP.
    pub gateway_tokens: BTreeMap<GatewayId, Vec<TokenSha256>>,
}

/// What a broker is started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its portals.
    pub portals: Vec<PortalSetup>,
    /// Limits that the actors hold.
    pub limits: Limits,
}

/// Why a broker was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A number stands in two portals.
    #[error("number {0} belongs to two portals")]
    NumberTwice(Number),
    /// A portal can not be read from the journal.
    #[error("a portal can not be started")]
    Portal(#[from] PortalError),
    /// The operating system gives no thread.
    #[error("a thread can not be started")]
    Thread(#[source] std::io::Error),
    /// The starting thread panicked.
    #[error("starting panicked")]
    Panic,
}

/// Who wants to connect.
#[derive(Clone)]
pub struct Hello {
    /// The portal.
    pub portal: PortalId,
    /// What the other end says that it is.
    pub peer: Peer,
    /// What proves it.
    pub token: String,
    /// Its name; a second connection of that name replaces the first. Gateways need none.
    pub adapter: Option<AdapterId>,
    /// The window that it wants.
    pub window: u32,
    /// What it wants delivered.
    pub deliver: Deliver,
}

/// A token is a secret.
impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("portal", &self.portal)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Why nobody is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No such portal, service or gateway, or another's token; which of them is not told.
    #[error("portal, name and token do not belong together")]
    Unauthenticated,
    /// The broker has halted or is stopping.
    #[error("the broker takes no connections now")]
    Unavailable,
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Connected {
    /// The connection, for requests.
    pub session: Session,
    /// The channels in which the service has a record, at most [`CHANNELS_MAX`].
    pub channels: Vec<ChannelSeen>,
    /// Whether there are more.
    pub more: bool,
}

/// The way in of one connection; what leaves is in its [`Outlet`]. When it is dropped the connection has ended.
pub struct Session {
    outlet: Arc<Outlet>,
    actor: Addr<ServiceAdapterActor>,
    process_bytes: Arc<Semaphore>,
    own_bytes: Arc<Semaphore>,
    draining: tokio::sync::watch::Receiver<bool>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("outlet", &self.outlet).finish_non_exhaustive()
    }
}

impl Session {
    /// Where what leaves over the connection is taken out.
    #[must_use]
    pub fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    /// Resolves when the broker is about to stop: then the connection is not read any more.
    pub async fn draining(&self) {
        let mut draining = self.draining.clone();
        // Ends with an error when the broker is gone, which is later still.
        let _ = draining.wait_for(|draining| *draining).await;
    }

    /// Asks what one read of the connection brought: `bytes` in all. Waits while the process or this connection has
    /// too much under way that is not durable; then the connection is not read. Cancelled, nothing is asked.
    ///
    /// # Errors
    /// When the broker is gone.
    pub async fn ask(&self, requests: Vec<(u64, Request)>, bytes: usize) -> Result<(), Halted> {
        let gone = || Halted(Arc::from("the broker is gone"));
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, SESSION_BYTES_MAX);
        let process = Arc::clone(&self.process_bytes).acquire_many_owned(bytes).await.map_err(|_| gone())?;
        let own = Arc::clone(&self.own_bytes).acquire_many_owned(bytes).await.map_err(|_| gone())?;
        let permits = Arc::new(Permits { _process: process, _session: own });
        self.actor.try_send(Requests { requests, permits }).map_err(|_| gone())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.outlet.close();
        let _ = self.actor.try_send(Stop);
    }
}

/// Whose token is whose.
#[derive(Debug)]
struct Identities {
    portals: BTreeMap<PortalId, PortalSetup>,
}

impl Identities {
    fn admit(&self, hello: &Hello) -> Option<&PortalSetup> {
        let portal = self.portals.get(&hello.portal)?;
        let known = match &hello.peer {
            Peer::Service(service) => portal.service_tokens.get(service)?,
            Peer::Gateway(gateway) => portal.gateway_tokens.get(gateway)?,
        };
        let given = Sha256::digest(hello.token.as_bytes());
        // Every one is compared, so that the time says nothing.
        let found =
            known.iter().fold(subtle::Choice::from(0), |found, token| found | given.ct_eq(&token[..]));
        bool::from(found).then_some(portal)
    }
}

struct Inner {
    shared: Arc<Shared>,
    homes: Arc<Homes>,
    numbers: Arc<Numbers>,
    identities: Identities,
    system: System,
    keeper: Keeper,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A running broker.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("halted", &self.inner.shared.halt).finish_non_exhaustive()
    }
}

/// What becomes of a customer's message, a status or a notice that did not come over a connection.
#[derive(Debug)]
pub struct Submitted(Vec<oneshot::Receiver<Answered>>);

/// What is submitted for the channels of one number.
#[derive(Debug, Clone)]
pub enum Submission {
    /// A customer wrote.
    Message(Inbound),
    /// A message came further on its way.
    Status(StatusCommand),
    /// A webhook change for the parent.
    Notice {
        /// The webhook's field.
        field: Arc<str>,
        /// The change's value.
        content: Content,
    },
}

impl Broker {
    /// Starts a broker on an open journal: reads it, and runs until it is stopped. Blocks while it reads.
    ///
    /// # Errors
    /// When the configuration contradicts itself, or a portal can not be read.
    pub fn start(journal: Arc<dyn Journal>, keys: &journal::Keys, setup: Setup) -> Result<Self, StartError> {
        let all = setup.portals.iter().flat_map(|portal| {
            portal.numbers.iter().map(|number| (number.number.clone(), portal.rules.portal.clone()))
        });
        let numbers = Arc::new(Numbers::new(all).map_err(StartError::NumberTwice)?);
        let halt = HaltSwitch::new();
        let watch = halt.clone();
        journal.on_halt(Box::new(move |reason| watch.halt(reason.to_string())));
        let readers = Readers::start(&journal).map_err(StartError::Thread)?;
        let [confirm, _] = split(keys.confirm);
        let shared = Arc::new(Shared {
            registry: Registry::default(),
            journal,
            readers,
            keys: Keys { fingerprint: keys.fingerprint, confirm, digest: keys.digest },
            limits: setup.limits,
            halt,
            process_bytes: Arc::new(Semaphore::new(PROCESS_BYTES_MAX as usize)),
            draining: tokio::sync::watch::Sender::new(false),
        });
        for portal in &setup.portals {
            enter_numbers(&shared, portal);
        }
        let (ready, started) = mpsc::channel();
        let rules: Vec<PortalRules> = setup.portals.iter().map(|portal| portal.rules.clone()).collect();
        let of_keeper = rules.clone();
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("broker".to_owned())
            .spawn(move || run(&of_thread, rules, &ready))
            .map_err(StartError::Thread)?;
        let (homes, system) = started.recv().map_err(|_| StartError::Panic)??;
        let keeper = Keeper::start(&shared, of_keeper).map_err(StartError::Thread)?;
        let identities = Identities {
            portals: setup.portals.into_iter().map(|portal| (portal.rules.portal.clone(), portal)).collect(),
        };
        let thread = Mutex::new(Some(thread));
        Ok(Self { inner: Arc::new(Inner { shared, homes, numbers, identities, system, keeper, thread }) })
    }

    /// Lets a connection in, where its token is the peer's. An older one of the same name is ended.
    ///
    /// # Errors
    /// When portal, peer and token do not belong together, or the broker takes nobody.
    pub fn connect(&self, hello: Hello) -> Result<Connected, ConnectError> {
        self.inner.identities.admit(&hello).ok_or(ConnectError::Unauthenticated)?;
        self.let_in(hello, false)
    }

    /// Lets a connection in that was admitted. `is_patient`: it is never ended as stalled.
    pub(super) fn let_in(&self, mut hello: Hello, is_patient: bool) -> Result<Connected, ConnectError> {
        let shared = &self.inner.shared;
        let portal = self.setup_of(&hello.portal).ok_or(ConnectError::Unauthenticated)?;
        if shared.halt.is_halted() {
            return Err(ConnectError::Unavailable);
        }
        let portal_actor =
            shared.registry.portals.get(&hello.portal).ok_or(ConnectError::Unavailable)?.value().clone();
        let connection = shared.registry.next_connection();
        let (service, masking) = match &hello.peer {
            Peer::Service(service) => {
                let rules = portal.rules.services.iter().find(|rules| rules.service == *service);
                (Some(service.clone()), rules.map(|rules| rules.masking).unwrap_or_default())
            }
            Peer::Gateway(_) => (None, Masking::Broker),
        };
        if let Deliver::Watch(from) = &mut hello.deliver {
            // The head is that of now: what is recorded after `welcome` is seen, however late a channel hears of it.
            for entry in shared.registry.channels_of(&hello.portal, service.as_ref()) {
                from.entry(entry.id).or_insert(entry.sight.head().next());
            }
        }
        let outlet = Outlet::new(connection, service.clone(), masking, hello.window);
        let key = session_key(&hello, connection);
        let link = match &hello.peer {
            Peer::Gateway(gateway) if hello.deliver != Deliver::None => {
                let link = shared.registry.gateways.get(&(hello.portal.clone(), gateway.clone()));
                link.map(|link| Arc::clone(link.value()))
            }
            _ => None,
        };
        let parts = Parts {
            shared: Arc::clone(shared),
            numbers: Arc::clone(&self.inner.numbers),
            portal: hello.portal.clone(),
            portal_actor,
            peer: hello.peer,
            is_isolated: portal.rules.plan == Plan::Isolated,
            outlet: Arc::clone(&outlet),
            deliver: hello.deliver.clone(),
            key: key.clone(),
            link,
            is_patient,
        };
        let home = Arbiter::try_current().unwrap_or_else(|| self.inner.homes.least_loaded().0);
        let actor = ServiceAdapterActor::start_in_arbiter(&home, move |_| ServiceAdapterActor::new(parts));
        let entry = SessionEntry {
            portal: hello.portal.clone(),
            actor: actor.clone(),
            outlet: Arc::clone(&outlet),
            deliver: hello.deliver,
        };
        if let Some(older) = shared.registry.sessions.insert(key, entry) {
            older.stop(EndReason::Replaced);
        }
        // Only now that it is listed: a channel that is made meanwhile finds it in the list, one that is there is found
        // by the actor. Being attached twice changes nothing.
        let _ = actor.try_send(Begin);
        let mut channels = service
            .as_ref()
            .map(|service| recorded(shared, &hello.portal, service, None))
            .unwrap_or_default();
        let more = channels.len() > CHANNELS_MAX;
        channels.truncate(CHANNELS_MAX);
        let session = Session {
            outlet,
            actor,
            process_bytes: Arc::clone(&shared.process_bytes),
            own_bytes: session_bytes(),
            draining: shared.draining.subscribe(),
        };
        Ok(Connected { session, channels, more })
    }

    pub(super) fn setup_of(&self, portal: &PortalId) -> Option<&PortalSetup> {
        self.inner.identities.portals.get(portal)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Submits something for every channel of a number; none where no portal has the number.
    #[must_use]
    pub fn submit(&self, number: &Number, submission: &Submission) -> Option<Submitted> {
        let known = Arc::clone(self.inner.shared.registry.numbers.get(number)?.value());
        let mut channels: Vec<_> = known.open().to_vec();
        if let Submission::Status(StatusCommand { of: StatusOf::Message(message_id), .. }) = submission {
            let sender = known.senders.lock().unwrap_or_else(PoisonError::into_inner).find(message_id);
            let sender = sender.and_then(|sender| {
                self.inner.shared.registry.channels.get(&sender.channel).map(|entry| entry.value().clone())
            });
            channels = sender.map_or(channels, |entry| vec![entry]);
        }
        let mut waiting = Vec::with_capacity(channels.len());
        for entry in channels {
            let command = match submission {
                Submission::Message(inbound) => Command::Inbound(inbound.clone()),
                Submission::Status(status) => Command::Status(status.clone()),
                Submission::Notice { field, content } => {
                    Command::Notice { field: Arc::clone(field), content: content.clone() }
                }
            };
            let (answer, answered) = oneshot::channel();
            waiting.push(answered);
            let asked = vec![Asked { ask: Ask::Command(command), reply_to: ReplyTo::Caller(answer) }];
            if let Some(addr) = &entry.addr {
                let _ = addr.try_send(Work { origin: None, asked, permits: None });
            }
        }
        Some(Submitted(waiting))
    }

    /// Resolves with the reason when the broker acknowledges nothing any more; at once if it does not already.
    pub async fn halted(&self) -> Halted {
        self.inner.shared.halt.halted().await
    }

    /// Why the broker acknowledges nothing any more, if it does not.
    #[must_use]
    pub fn halt_reason(&self) -> Option<Halted> {
        self.inner.shared.halt.reason()
    }

    /// The Arbiters, for tasks of who serves connections.
    #[must_use]
    pub fn arbiters(&self) -> Vec<ArbiterHandle> {
        self.inner.homes.arbiters()
    }

    /// Tells every connection that the broker is about to stop, and when to come again: between one and two times
    /// `retry_after`, each its own, so that not all come at once.
    pub fn say_goaway(&self, retry_after: Duration) {
        let base = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        for session in &self.inner.shared.registry.sessions {
            let connection = session.outlet.connection().0;
            let jitter = connection.wrapping_mul(0x9e37_79b9_7f4a_7c15) % base.max(1);
            session.outlet.put(Outgoing::Goaway { retry_after_ms: base.saturating_add(jitter) });
        }
    }

    /// Finishes what was accepted, records what was acknowledged, ends every connection, closes the journal and stops
    /// the actors. What is not done by `limit` is cut off; nothing acknowledged is lost by that.
    ///
    /// # Errors
    /// When the broker has halted, before or meanwhile.
    pub async fn stop(&self, limit: Duration) -> Result<(), Halted> {
        let shared = &self.inner.shared;
        let until = Instant::now() + limit;
        let portals: Vec<_> = shared.registry.portals.iter().map(|portal| portal.value().clone()).collect();
        shared.draining.send_replace(true);
        self.settle(&portals, until).await;
        for session in &shared.registry.sessions {
            session.outlet.end(EndReason::Shutdown);
        }
        while !shared.registry.sessions.is_empty() && Instant::now() < until {
            tokio::time::sleep(DRAIN_LOOK_EVERY).await;
        }
        self.settle(&portals, until).await;
        let journal = Arc::clone(&shared.journal);
        let inner = Arc::clone(&self.inner);
        let close = move || {
            inner.keeper.stop();
            journal.close()
        };
        let closed = tokio::task::spawn_blocking(close).await;
        self.inner.homes.stop();
        self.inner.system.stop();
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        match (closed, shared.halt.reason()) {
            (_, Some(reason)) => Err(reason),
            (Ok(Ok(())), None) => Ok(()),
            (Ok(Err(halt)), None) => Err(Halted(Arc::from(halt.to_string()))),
            (Err(_), None) => Err(Halted(Arc::from("closing the journal panicked"))),
        }
    }
}

impl Broker {
    /// Lets history go whose time has come, at once instead of at the next turn; for simulations, whose time runs faster
    /// than that. Blocks.
    #[doc(hidden)]
    pub fn keep_history(&self) {
        self.inner.keeper.look();
    }

    /// Waits until all that was decided is durable. Twice: what becomes durable may be followed by more.
    async fn settle(&self, portals: &[Addr<PortalActor>], until: Instant) {
        let shared = &self.inner.shared;
        for portal in portals {
            let _ = portal.try_send(Settle);
        }
        for _ in 0..2 {
            tokio::time::sleep(DRAIN_LOOK_EVERY).await;
            while shared.journal.queued_bytes() > 0 && Instant::now() < until && !shared.halt.is_halted() {
                tokio::time::sleep(DRAIN_LOOK_EVERY).await;
            }
        }
    }
}

impl Submitted {
    /// What each channel said, in the order of the channels; `Unavailable` for one that will not say anything.
    pub async fn answers(self) -> Vec<Answered> {
        let mut answers = Vec::with_capacity(self.0.len());
        for waiting in self.0 {
            answers.push(waiting.await.unwrap_or(Answered::Refused(Refusal::Unavailable)));
        }
        answers
    }
}

fn session_key(hello: &Hello, connection: ConnectionId) -> SessionKey {
    match (&hello.peer, &hello.adapter) {
        (Peer::Service(service), Some(adapter)) => {
            SessionKey::Adapter(hello.portal.clone(), service.clone(), adapter.clone())
        }
        // A gateway's connections replace one another by its link.
        _ => SessionKey::Single(hello.portal.clone(), connection),
    }
}

fn split(key: [u8; 32]) -> [[u8; 16]; 2] {
    let mut halves = [[0; 16]; 2];
    for (half, bytes) in halves.iter_mut().zip(key.chunks_exact(16)) {
        half.copy_from_slice(bytes);
    }
    halves
}

fn enter_numbers(shared: &Shared, portal: &PortalSetup) {
    let id = &portal.rules.portal;
    for gateway in portal.gateway_tokens.keys() {
        shared.registry.gateways.insert((id.clone(), gateway.clone()), Arc::new(GatewayLink::new()));
    }
    for number in &portal.numbers {
        let link = number.gateway.as_ref().and_then(|gateway| {
            shared.registry.gateways.get(&(id.clone(), gateway.clone())).map(|link| Arc::clone(link.value()))
        });
        let entry = NumberEntry {
            portal: id.clone(),
            link,
            send_ttl_ms: number.send_ttl_ms,
            senders: Arc::new(Mutex::new(Senders::new(Key::new(shared.keys.fingerprint)))),
            channels: Mutex::new(Arc::from([])),
        };
        shared.registry.numbers.insert(number.number.clone(), Arc::new(entry));
    }
}

type Ready = mpsc::Sender<Result<(Arc<Homes>, System), StartError>>;

/// The system's thread: reads the portals, starts the actors, runs them.
fn run(shared: &Arc<Shared>, portals: Vec<PortalRules>, ready: &Ready) {
    let runner = System::new();
    let started = runner.block_on(async {
        let owned: BTreeSet<StreamId> =
            portals.iter().map(|rules| StreamId::of_portal(&rules.portal)).collect();
        for (stream, _) in shared.journal.streams() {
            if !owned.contains(&stream) {
                check_unowned(shared, stream)?;
            }
        }
        let homes = Arc::new(Homes::start(shared.limits.arbiters));
        for rules in portals {
            let id = rules.portal.clone();
            let (mut actor, folded) = PortalActor::recover(shared, &homes, rules)?;
            let addr = PortalActor::create(move |ctx| {
                actor.start_folded(folded, &ctx.address());
                actor
            });
            shared.registry.portals.insert(id, addr);
        }
        Ok((homes, System::current()))
    });
    let is_started = started.is_ok();
    let _ = ready.send(started);
    if is_started && runner.run().is_err() {
        shared.halt.halt("the actors' system ended badly");
    }
}
