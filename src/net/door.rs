//! The door of the HTTP listener: what a connection passes before a byte of HTTP is read.
//!
//! ```text
//! room in all? ─▶ accept ─▶ room for its address? ─▶ TLS, where that is spoken ─▶ the HTTP library
//! ```
//!
//! # Invariants
//! - One address never has all connections: whoever floods the port keeps neither WhatsApp nor the operator out. It is
//!   their number that is limited and not their rate, which WhatsApp's own webhooks would have, too.
//! - Who speaks plain text to a port with TLS is ended at its first byte, and named in the log once a minute.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::listener::{ACCEPT_REST, Settings, set_options, without_tls};
use super::peers::{Held, Peers};
use super::stream::{HANDSHAKES_MAX, shake_hands};

/// A socket, with TLS or without.
pub(super) type Io = Either<TcpStream, TlsStream<TcpStream>>;

/// The door of one listener.
pub(super) struct Door {
    room: Arc<Semaphore>,
    connections_max: u32,
    peers: Arc<Peers>,
    tls: Option<TlsAcceptor>,
    handshakes: Semaphore,
    sockets: Settings,
}

/// One that was let in, until it is dropped.
pub(super) struct Place {
    _room: OwnedSemaphorePermit,
    _held: Held,
}

impl Door {
    pub(super) fn new(
        connections_max: usize,
        peers: Arc<Peers>,
        tls: Option<TlsAcceptor>,
        sockets: Settings,
    ) -> Self {
        let connections_max = u32::try_from(connections_max).unwrap_or(u32::MAX);
        Self {
            room: Arc::new(Semaphore::new(connections_max as usize)),
            connections_max,
            peers,
            tls,
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            sockets,
        }
    }

    /// The next connection that may come in. While there are too many in all, they wait in the listener's queue. Cancel
    /// safe.
    pub(super) async fn next(&self, listener: &TcpListener) -> (TcpStream, SocketAddr, Place) {
        loop {
            // It is never closed.
            let Ok(room) = Arc::clone(&self.room).acquire_owned().await else { continue };
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or a peer that left at once: the next one may succeed.
                    tracing::warn!(%error, "an HTTP connection was not accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            };
            if let Err(error) = set_options(&stream, &self.sockets) {
                tracing::debug!(%error, "a connection's options can not be set");
            }
            if let Some(held) = self.peers.hold(from.ip()) {
                return (stream, from, Place { _room: room, _held: held });
            }
        }
    }

    /// What the connection is spoken over; nothing where its peer does not speak TLS and should.
    pub(super) async fn open(&self, stream: TcpStream, from: SocketAddr) -> Option<Io> {
        let Some(acceptor) = &self.tls else { return Some(Either::Left(stream)) };
        match shake_hands(stream, acceptor, &self.handshakes).await {
            Ok(stream) => Some(Either::Right(stream)),
            Err(error) => {
                without_tls(from.ip(), &error, &self.peers);
                None
            }
        }
    }

    /// Waits until every connection has ended, for so long at most.
    pub(super) async fn emptied(&self, within: Duration) {
        let _ = timeout(within, self.room.acquire_many(self.connections_max)).await;
    }
}
