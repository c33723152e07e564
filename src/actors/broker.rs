//! The broker as a library: starts the actors on Arbiters of its own, and is the way in for sockets, webhooks and
//! embedding programs alike.
//!
//! **Invariants:** the handle works from any thread and any runtime. The library never ends the process: when the
//! journal fails, nothing more is acknowledged and [`Broker::halted`] resolves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, Arbiter, ArbiterHandle, System};
use tokio::sync::{Semaphore, oneshot};

use super::adapter::{
    Begin, CHANNELS_MAX, Parts, Peer, Request, Requests, ServiceAdapterActor, Stop, recorded, session_bytes,
};
use super::asking::{Ask, Asked, Permits, ReplyTo, Work};
use super::channel::Settle;
use super::counters::Counters;
use super::homes::Homes;
use super::keeper::Keeper;
use super::outlet::Outlet;
use super::port::{Answered, EndReason, Outgoing, Refusal};
pub use super::portal::{Breaks, PortalError};
use super::portal::{PortalActor, check_unowned};
use super::reader::Readers;
use super::registry::{Deliver, GatewayLink, NumberEntry, Registry, SessionEntry, SessionKey};
use super::sender::Sender;
use super::settings::{Settings, digest};
use super::shared::{HaltSwitch, Halted, Limits, PROCESS_BYTES_MAX, SESSION_BYTES_MAX, Shared};
use crate::domain::channel::Keys;
use crate::domain::command::{ChannelSeen, Command, Echo, Inbound, SendOutcome, StatusCommand, StatusOf};
use crate::domain::content::Content;
use crate::domain::delivery::ConnectionId;
use crate::domain::fingerprint::Key;
use crate::domain::ids::{AdapterId, ChannelId, GatewayId, MessageId, Number, Offset, PortalId, ServiceId};
use crate::domain::portal::PortalRules;
use crate::domain::senders::NumberSenders;
use crate::domain::view::Masking;
use crate::journal::{self, Journal, StreamId};

/// How long a draining broker looks between two checks whether all is durable.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(5);

/// A number of a portal.
#[derive(Debug, Clone)]
pub struct NumberSetup {
    /// The number.
    pub number: Number,
    /// The TCP gateway that its replies leave through; without one and without `built_in` they wait.
    pub gateway: Option<GatewayId>,
    /// This process sends its replies itself ([`Broker::sender`]), so many messages a second.
    pub built_in: Option<u32>,
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
    /// The operating system gives no random bytes.
    #[error("there are no random bytes to be had")]
    Random(#[source] std::io::Error),
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
        self.outlet.asked(requests.len());
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

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) homes: Arc<Homes>,
    /// One reload at a time.
    pub(super) reloading: tokio::sync::Mutex<()>,
    /// What can not change under way.
    pub(super) arbiters: usize,
    pub(super) recent_bytes_max: usize,
    system: System,
    keeper: Arc<Keeper>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Who lets the last handle go without [`Broker::stop`] ends the broker as a kill would, but that what was decided is
/// still written: the journal is closed, and its directory free, when the drop is over; soon after, where an Arbiter drops
/// it, which can not wait.
impl Drop for Inner {
    fn drop(&mut self) {
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let (shared, homes) = (Arc::clone(&self.shared), Arc::clone(&self.homes));
        let (keeper, system) = (Arc::clone(&self.keeper), self.system.clone());
        let end = move || {
            keeper.stop();
            // A halt has been reported; nothing more can be done about it here.
            let _ = shared.journal.close();
            homes.stop();
            system.stop();
            let _ = thread.join();
        };
        // An Arbiter can not wait for its own thread.
        if Arbiter::try_current().is_some() {
            drop(thread::spawn(end));
        } else {
            end();
        }
    }
}

/// A running broker: a handle to share. Clones are the same broker, and may be used from any thread and any runtime.
///
/// Programs that embed it [`start`](Self::start) it, [`join`](Self::join) it as services and gateways do, wait for
/// [`halted`](Self::halted) beside their other work, and [`stop`](Self::stop) it in the end. What is below that,
/// [`connect`](Self::connect), [`submit`](Self::submit), [`sender`](Self::sender), [`caller`](Self::caller), is what
/// listener, webhooks, built-in gateway and Cloud API facade are made with: it bounds nothing by itself, and a broker that
/// has halted or stopped refuses it as [`Unavailable`](Refusal::Unavailable).
#[derive(Clone)]
pub struct Broker {
    pub(super) inner: Arc<Inner>,
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
    /// A message came further on its way, and WhatsApp says by which reply it was sent.
    OfReply {
        /// The reply's channel.
        channel: ChannelId,
        /// Where it stands.
        reply: Offset,
        /// The message that it became.
        message_id: MessageId,
        /// What a status of that message says.
        status: StatusCommand,
    },
    /// Somebody replied on the phone.
    Echo(Echo),
    /// A webhook change for the parent.
    Notice {
        /// The webhook's field.
        field: Arc<str>,
        /// The change's value.
        content: Content,
    },
}

impl Broker {
    /// Starts a broker on a journal that is open already, one in memory for instance; [`Broker::start`] opens the one that
    /// a configuration names. Blocks while it reads.
    ///
    /// # Errors
    /// When the configuration contradicts itself, or a portal can not be read.
    pub fn start_on(
        journal: Arc<dyn Journal>,
        keys: &journal::Keys,
        setup: Setup,
    ) -> Result<Self, StartError> {
        let settings = Arc::new(Settings::new(setup).map_err(StartError::NumberTwice)?);
        let halt = HaltSwitch::new();
        let watch = halt.clone();
        journal.on_halt(Box::new(move |reason| watch.halt(format!("{reason}: {}", reason.error))));
        let readers = Readers::start(&journal).map_err(StartError::Thread)?;
        let [confirm, _] = split(keys.confirm);
        let shared = Arc::new(Shared {
            registry: Registry::default(),
            journal,
            readers,
            keys: Keys { fingerprint: keys.fingerprint, confirm, digest: keys.digest },
            settings: RwLock::new(Arc::clone(&settings)),
            halt,
            process_bytes: Arc::new(Semaphore::new(PROCESS_BYTES_MAX as usize)),
            draining: tokio::sync::watch::Sender::new(false),
            counters: Arc::new(Counters::default()),
            started: Instant::now(),
        });
        for portal in settings.portals.values() {
            enter_numbers(&shared, portal);
        }
        let Limits { arbiters, recent_bytes_max, .. } = settings.limits;
        let (ready, started) = mpsc::channel();
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("broker".to_owned())
            .spawn(move || run(&of_thread, &settings, &ready))
            .map_err(StartError::Thread)?;
        let (homes, system) = started.recv().map_err(|_| StartError::Panic)??;
        let keeper = Arc::new(Keeper::start(&shared).map_err(StartError::Thread)?);
        let reloading = tokio::sync::Mutex::default();
        let thread = Mutex::new(Some(thread));
        let inner = Inner { shared, homes, reloading, arbiters, recent_bytes_max, system, keeper, thread };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Lets a connection in, where its token is the peer's. An older one of the same name is ended.
    ///
    /// # Errors
    /// When portal, peer and token do not belong together, or the broker takes nobody.
    pub fn connect(&self, hello: Hello) -> Result<Connected, ConnectError> {
        let token = digest(&hello.token);
        let settings = self.inner.shared.settings();
        settings.admit(&hello.portal, &hello.peer, &token).ok_or(ConnectError::Unauthenticated)?;
        self.let_in(hello, Some(token), false)
    }

    /// Lets a connection in that was admitted: by its token, or without one as a part of this process, which is never ended
    /// as stalled. `is_within`: whoever has it may not look at it any more, so that a stop does not wait for it.
    pub(super) fn let_in(
        &self,
        mut hello: Hello,
        token: Option<TokenSha256>,
        is_within: bool,
    ) -> Result<Connected, ConnectError> {
        let shared = &self.inner.shared;
        let settings = shared.settings();
        if shared.halt.is_halted() || *shared.draining.borrow() {
            return Err(ConnectError::Unavailable);
        }
        let portal_actor =
            shared.registry.portals.get(&hello.portal).ok_or(ConnectError::Unavailable)?.value().clone();
        let connection = shared.registry.next_connection();
        let (service, masking) = match &hello.peer {
            Peer::Service(service) => (Some(service.clone()), settings.masking(&hello.portal, service)),
            Peer::Gateway(_) => (None, Masking::Broker),
        };
        if let Deliver::Watch(from) = &mut hello.deliver {
            // The head is that of now: what is recorded after `welcome` is seen, however late a channel hears of it.
            for entry in shared.registry.channels_of(&hello.portal, service.as_ref()) {
                from.entry(entry.id).or_insert(entry.sight.head().next());
            }
        }
        let outlet =
            Outlet::new(connection, service.clone(), masking, hello.window, Arc::clone(&shared.counters));
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
            portal: hello.portal.clone(),
            portal_actor,
            peer: hello.peer.clone(),
            outlet: Arc::clone(&outlet),
            deliver: hello.deliver.clone(),
            key: key.clone(),
            link,
            is_patient: token.is_none(),
        };
        // A session's actor lives with its socket; one without lives here, whatever its caller's own thread is.
        let own = Arbiter::try_current().filter(|_| token.is_some());
        let home = own.unwrap_or_else(|| self.inner.homes.least_loaded().0);
        let actor = ServiceAdapterActor::start_in_arbiter(&home, move |_| ServiceAdapterActor::new(parts));
        let entry = SessionEntry {
            portal: hello.portal.clone(),
            peer: hello.peer,
            token,
            is_within,
            actor: actor.clone(),
            outlet: Arc::clone(&outlet),
            deliver: hello.deliver,
        };
        if let Some(older) = shared.registry.sessions.insert(key, entry.clone()) {
            older.stop(EndReason::Replaced);
        }
        // A reload that came meanwhile has not found it in the list.
        entry.follow(&shared.settings());
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

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Submits something for every channel of a number; none where no portal has the number. Does not wait: who submits
    /// bounds how much he has under way, or [joins](Self::join) as a gateway, which does.
    #[must_use]
    pub fn submit(&self, number: &Number, submission: &Submission) -> Option<Submitted> {
        let known = Arc::clone(self.inner.shared.registry.numbers.get(number)?.value());
        let mut channels: Vec<_> = known.open().to_vec();
        if let Submission::OfReply { channel, .. } = submission {
            // Only where it is a reply of this number; else it is a status like any other.
            let of_number =
                self.inner.shared.registry.channels.get(channel).map(|entry| entry.value().clone());
            if let Some(entry) = of_number.filter(|entry| entry.number == *number) {
                channels = vec![entry];
            }
        }
        if let Submission::Status(StatusCommand { of: StatusOf::Message(message_id), .. }) = submission {
            let sender = known.senders.lock().unwrap_or_else(PoisonError::into_inner).find(message_id);
            let sender = sender.and_then(|sender| {
                self.inner.shared.registry.channels.get(&sender.channel).map(|entry| entry.value().clone())
            });
            channels = sender.map_or(channels, |entry| vec![entry]);
        }
        if channels.is_empty() && matches!(submission, Submission::Message(_)) {
            self.inner.shared.counters.unrouted();
        }
        let mut waiting = Vec::with_capacity(channels.len());
        for entry in channels {
            let command = match submission {
                Submission::Message(inbound) => Command::Inbound(inbound.clone()),
                Submission::Status(status) | Submission::OfReply { status, .. } => {
                    Command::Status(status.clone())
                }
                Submission::Echo(echo) => Command::Echo(echo.clone()),
                Submission::Notice { field, content } => {
                    Command::Notice { field: Arc::clone(field), content: content.clone() }
                }
            };
            let (answer, answered) = oneshot::channel();
            waiting.push(answered);
            let mut asked = vec![Asked { ask: Ask::from(command), reply_to: ReplyTo::Caller(answer) }];
            if let Submission::OfReply { channel, reply, message_id, .. } = submission
                && *channel == entry.id
            {
                // First that it was sent at all, which may be news after an answer that was lost.
                let outcome = Box::new(SendOutcome::Sent(message_id.clone()));
                asked.insert(
                    0,
                    Asked { ask: Ask::Outcome { reply: *reply, outcome }, reply_to: ReplyTo::Nobody },
                );
            }
            if let Some(addr) = &entry.addr {
                let _ = addr.try_send(Work { origin: None, asked, permits: None });
            }
        }
        Some(Submitted(waiting))
    }

    /// The way out of a number that this process sends for; none where a TCP gateway does, or nobody.
    #[must_use]
    pub fn sender(&self, number: &Number) -> Option<Sender> {
        Sender::connect(&self.inner.shared, number)
    }

    /// Resolves with the reason when the broker acknowledges nothing any more, at once if it does not already; never for
    /// one that is stopped in order. The process goes on: what to do about it is the program's. Cancel safe.
    ///
    /// ```
    /// # use sharedline::{actors::Broker, config::Config};
    /// # use std::time::Duration;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # runtime.block_on(async {
    /// # let directory = tempfile::tempdir()?;
    /// # let broker = Broker::start(&format!("data_dir = {:?}", directory.path()).parse::<Config>()?)?;
    /// # let work = async {};
    /// tokio::select! {
    ///     reason = broker.halted() => eprintln!("{reason}; what was acknowledged is safe"),
    ///     () = work => {}
    /// }
    /// # broker.stop(Duration::from_secs(10)).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn halted(&self) -> Halted {
        self.inner.shared.halt.halted().await
    }

    /// Why the broker acknowledges nothing any more, if it does not.
    #[must_use]
    pub fn halt_reason(&self) -> Option<Halted> {
        self.inner.shared.halt.reason()
    }

    /// Counts an error that a peer was told before it was let in, by its code.
    pub fn told_error(&self, code: &str) {
        self.inner.shared.counters.error(code);
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

    /// Lets nobody in any more, finishes what connections have asked, and ends them all, within `limit`. What is
    /// submitted without a connection is taken all the same. Cancelled, the next call goes on with it. Who has
    /// [joined](Self::join) within the process is told, and not waited for.
    pub async fn end_sessions(&self, limit: Duration) {
        let shared = &self.inner.shared;
        let until = Instant::now() + limit;
        shared.draining.send_replace(true);
        self.settle(until).await;
        for session in &shared.registry.sessions {
            session.outlet.end(EndReason::Shutdown);
        }
        let is_awaited = || shared.registry.sessions.iter().any(|session| !session.is_within);
        while is_awaited() && Instant::now() < until {
            tokio::time::sleep(DRAIN_LOOK_EVERY).await;
        }
    }

    /// Finishes what was accepted, records what was acknowledged, ends every connection, closes the journal and stops
    /// the actors. What is not done by `limit` is cut off; nothing acknowledged is lost by that. A second call finds
    /// nothing left to do. Needs a tokio runtime with its timer. Not cancel safe: cancelled, the broker takes no
    /// connections any more and is stopped by the next call, or when its last handle is dropped.
    ///
    /// ```
    /// # use sharedline::{actors::Broker, config::Config};
    /// # use std::time::Duration;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # runtime.block_on(async {
    /// # let directory = tempfile::tempdir()?;
    /// # let config = format!("data_dir = {:?}", directory.path()).parse::<Config>()?;
    /// let broker = Broker::start(&config)?;
    /// broker.stop(Duration::from_secs(10)).await?;
    /// let again = Broker::start(&config)?; // the directory is free, and everything is there
    /// # again.stop(Duration::from_secs(10)).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the broker has halted, before or meanwhile.
    pub async fn stop(&self, limit: Duration) -> Result<(), Halted> {
        let shared = &self.inner.shared;
        let until = Instant::now() + limit;
        self.end_sessions(limit).await;
        self.settle(until).await;
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

    fn portals(&self) -> Vec<Addr<PortalActor>> {
        self.inner.shared.registry.portals.iter().map(|portal| portal.value().clone()).collect()
    }

    /// Waits until all that was decided is durable. Twice: what becomes durable may be followed by more.
    async fn settle(&self, until: Instant) {
        let shared = &self.inner.shared;
        let (under_way, mut settled) = tokio::sync::mpsc::channel(1);
        for portal in self.portals() {
            let _ = portal.try_send(Settle { _under_way: under_way.clone() });
        }
        drop(under_way);
        // Nothing is ever sent: it ends when every channel has let go of it.
        let _ = tokio::time::timeout(until.saturating_duration_since(Instant::now()), settled.recv()).await;
        for _ in 0..2 {
            tokio::time::sleep(DRAIN_LOOK_EVERY).await;
            while shared.journal.queued_bytes() > 0 && Instant::now() < until && !shared.halt.is_halted() {
                tokio::time::sleep(DRAIN_LOOK_EVERY).await;
            }
        }
    }
}

impl Submitted {
    /// What each channel said, in the order of the channels; `Unavailable` for one that will not say anything. Cancelled,
    /// what was submitted is done all the same.
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

/// Lists a portal's numbers and gateways; those that are there already stay, and follow what the portal says now.
pub(super) fn enter_numbers(shared: &Shared, portal: &PortalSetup) {
    let id = &portal.rules.portal;
    for gateway in portal.gateway_tokens.keys() {
        let link = shared.registry.gateways.entry((id.clone(), gateway.clone()));
        link.or_insert_with(|| Arc::new(GatewayLink::new()));
    }
    for number in &portal.numbers {
        let over_tcp = number.gateway.as_ref().and_then(|gateway| {
            shared.registry.gateways.get(&(id.clone(), gateway.clone())).map(|link| Arc::clone(link.value()))
        });
        let known = shared.registry.numbers.get(&number.number).map(|known| Arc::clone(known.value()));
        // The built-in gateway keeps its way, and what it has handed over, across a reload.
        let built_in = known.as_ref().and_then(|known| known.link()).filter(|link| link.is_built_in());
        let link = match number.built_in {
            Some(messages_per_second) => {
                let new = || Arc::new(GatewayLink::built_in(messages_per_second));
                let link = built_in.unwrap_or_else(new);
                link.budget().set_rate(messages_per_second);
                Some(link)
            }
            None => over_tcp,
        };
        let entry = match known {
            Some(known) if known.portal == *id => known,
            // Who sent which message of the number is the number's, whosever it is.
            Some(other) => Arc::new(NumberEntry::new(id.clone(), Arc::clone(&other.senders))),
            None => {
                let senders = NumberSenders::new(Key::new(shared.keys.fingerprint));
                Arc::new(NumberEntry::new(id.clone(), Arc::new(Mutex::new(senders))))
            }
        };
        entry.set_way(link, number.send_ttl_ms);
        shared.registry.numbers.insert(number.number.clone(), entry);
    }
}

type Ready = mpsc::Sender<Result<(Arc<Homes>, System), StartError>>;

/// The system's thread: reads the portals, starts the actors, runs them.
fn run(shared: &Arc<Shared>, settings: &Settings, ready: &Ready) {
    let runner = System::new();
    let started = runner.block_on(async {
        let owned: BTreeSet<StreamId> = settings.portals.keys().map(StreamId::of_portal).collect();
        for (stream, _) in shared.journal.streams() {
            if !owned.contains(&stream) {
                check_unowned(shared, stream)?;
            }
        }
        let homes = Arc::new(Homes::start(settings.limits.arbiters));
        for portal in settings.portals.values() {
            PortalActor::recover(shared, &homes, portal)?.start(shared);
        }
        Ok((homes, System::current()))
    });
    let is_started = started.is_ok();
    let _ = ready.send(started);
    if is_started && runner.run().is_err() {
        shared.halt.halt("the actors' system ended badly");
    }
}
