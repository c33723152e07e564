//! Accepts connections of adapters and gateways, and gives each a session on one of the broker's Arbiters.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use actix::ArbiterHandle;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::peers::{PeerLimits, Peers};
use super::session;
use super::stream::{self, HANDSHAKES_MAX, HandshakeError};
use super::tls::Identity;
use crate::actors::Broker;
use crate::wire::frame::Splitter;

/// Most connections at once. One costs a few KiB while it is silent.
pub const CONNECTIONS_MAX: usize = 20_000;
/// How long an idle connection is left alone before it is probed.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// How long between two probes.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered probes before the connection counts as dead.
pub const KEEPALIVE_PROBES: u32 = 3;
/// What is added to `ack_timeout` for how long sent bytes may stay unacknowledged by the peer's TCP (contract: 30 s).
pub const USER_TIMEOUT_MORE: Duration = Duration::from_secs(30);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4_096;
/// How long accepting rests after the system refused one more socket.
pub(super) const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What connections of a listener have in common.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long deliveries may stay unacknowledged.
    pub ack_timeout: Duration,
}

/// A bound listener that accepts until it is closed.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    close: watch::Sender<bool>,
    open: Arc<AtomicUsize>,
    settings: Arc<RwLock<Settings>>,
    peers: Arc<Peers>,
}

/// What a listener that is open to the world has on top.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Speaks TLS, and nothing else.
    pub tls: Option<Identity>,
    /// What one source address may do.
    pub peers: PeerLimits,
}

impl Listener {
    /// Binds `address` and accepts from now on.
    ///
    /// # Errors
    /// When the address can not be bound.
    pub fn start(address: SocketAddr, broker: &Broker, settings: Settings) -> io::Result<Self> {
        Self::start_guarded(address, broker, settings, Guard::default())
    }

    /// The same, guarded.
    ///
    /// # Errors
    /// When the address can not be bound.
    pub fn start_guarded(
        address: SocketAddr,
        broker: &Broker,
        settings: Settings,
        guard: Guard,
    ) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener: std::net::TcpListener = socket.into();
        let address = listener.local_addr()?;
        let (close, closed) = watch::channel(false);
        let open = Arc::new(AtomicUsize::new(0));
        let homes = broker.arbiters();
        let Some(first) = homes.first().cloned() else { return Err(io::Error::other("no arbiter")) };
        let settings = Arc::new(RwLock::new(settings));
        let peers = Arc::new(Peers::new(guard.peers));
        let accepting = Accepting {
            broker: broker.clone(),
            settings: Arc::clone(&settings),
            homes,
            open: Arc::clone(&open),
            closed,
            peers: Arc::clone(&peers),
            tls: guard.tls.map(|identity| TlsAcceptor::from(Arc::clone(identity.config()))),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        };
        if !first.spawn_fn(move || drop(actix::spawn(accepting.run(listener)))) {
            return Err(io::Error::other("the broker has stopped"));
        }
        Ok(Self { address, close, open, settings, peers })
    }

    /// Where it listens; with the port that the system chose, if it was asked to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Exchanges the settings, for connections that come from now on.
    pub fn set(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// What it knows of source addresses, for who lets the same peers in another way.
    #[must_use]
    pub fn peers(&self) -> Arc<Peers> {
        Arc::clone(&self.peers)
    }

    /// Exchanges what one source address may do; where that changes, every address begins anew.
    pub fn set_peers(&self, limits: PeerLimits) {
        self.peers.set(limits);
    }

    /// Accepts nobody any more; connections go on.
    pub fn close(&self) {
        self.close.send_replace(true);
    }
}

struct Accepting {
    broker: Broker,
    settings: Arc<RwLock<Settings>>,
    homes: Vec<ArbiterHandle>,
    open: Arc<AtomicUsize>,
    closed: watch::Receiver<bool>,
    peers: Arc<Peers>,
    tls: Option<TlsAcceptor>,
    handshakes: Arc<Semaphore>,
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Accepting {
    async fn run(mut self, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the listener can not be used");
                return;
            }
        };
        let mut turn = 0;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = self.closed.wait_for(|closed| *closed) => return,
            };
            match accepted {
                Ok((stream, from)) => {
                    turn += 1;
                    self.begin(stream, from.ip(), turn);
                }
                Err(error) => {
                    // Out of descriptors, or a peer that left at once: the next one may succeed.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn begin(&self, stream: TcpStream, from: IpAddr, turn: usize) {
        if !self.peers.lets_in(from) {
            return;
        }
        if self.open.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS_MAX {
            self.open.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(limit = CONNECTIONS_MAX, "a connection was refused: there are too many");
            return;
        }
        let counted = Counted(Arc::clone(&self.open));
        let settings = *self.settings.read().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = set_options(&stream, &settings) {
            tracing::debug!(%error, "a connection's options can not be set");
            return;
        }
        let (broker, peers, tls) = (self.broker.clone(), Arc::clone(&self.peers), self.tls.clone());
        let handshakes = Arc::clone(&self.handshakes);
        // A listener has one Arbiter at least.
        let Some(home) = self.homes.get(turn % self.homes.len().max(1)) else { return };
        let Ok(stream) = stream.into_std() else { return };
        home.spawn_fn(move || {
            actix::spawn(async move {
                let _counted = counted;
                let Ok(stream) = TcpStream::from_std(stream) else { return };
                let carried = match tls {
                    None => Ok(stream::plain(stream)),
                    Some(acceptor) => stream::tls(stream, &acceptor, &handshakes).await,
                };
                let (read, write) = match carried {
                    Ok(carried) => carried,
                    Err(error) => return without_tls(from, &error, &peers),
                };
                let whose = Some((&*peers, from));
                session::run(read, write, Splitter::new(), &Rc::new(broker), whose).await;
            });
        });
    }
}

/// A connection of which nothing becomes. Who only looks whether the port is there has done nothing wrong.
pub(super) fn without_tls(from: IpAddr, error: &HandshakeError, peers: &Peers) {
    if matches!(error, HandshakeError::Gone) {
        return;
    }
    let now = Instant::now();
    if peers.is_news(from, now) {
        tracing::warn!(%from, %error, "a connection was ended before its hello");
    }
    peers.failed(from, now);
}

/// Sets what every connection of ours has, over HTTP too: no delay, keep-alive, a limit for bytes that nobody takes.
pub(super) fn set_options(stream: &TcpStream, settings: &Settings) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(settings.ack_timeout + USER_TIMEOUT_MORE))
}
