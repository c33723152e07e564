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

use actix::{Addr, Arbiter, ArbiterHandle, System};
use tokio::sync::Semaphore;

use super::channel::Settle;
use super::counters::Counters;
use super::homes::Homes;
use super::keeper::Keeper;
use super::port::{EndReason, Outgoing};
pub use super::portal::{Breaks, PortalError};
use super::portal::{PortalActor, check_unowned};
use super::reader::Readers;
use super::registry::{GatewayLink, NumberEntry, Registry};
use super::sender::Sender;
pub use super::session::{ConnectError, Connected, Hello, Session};
use super::settings::Settings;
use super::shared::{HaltSwitch, Halted, Limits, PROCESS_BYTES_MAX, Shared};
pub use super::submission::{Submission, Submitted};
use crate::domain::channel::Keys;
use crate::domain::fingerprint::Key;
use crate::domain::ids::{GatewayId, Number, ServiceId};
use crate::domain::portal::PortalRules;
use crate::domain::senders::NumberSenders;
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
/// has halted or stopped refuses it as [`Unavailable`](super::port::Refusal::Unavailable).
#[derive(Clone)]
pub struct Broker {
    pub(super) inner: Arc<Inner>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("halted", &self.inner.shared.halt).finish_non_exhaustive()
    }
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

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
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
