//! Connections: who is let in, and the way in that he gets.

use std::fmt;
use std::sync::Arc;

use actix::{Actor, Addr, Arbiter};
use tokio::sync::Semaphore;

use super::adapter::{
    Begin, CHANNELS_MAX, Parts, Peer, Request, Requests, ServiceAdapterActor, Stop, recorded, session_bytes,
};
use super::asking::Permits;
use super::broker::{Broker, TokenSha256};
use super::outlet::Outlet;
use super::port::EndReason;
use super::registry::{Deliver, SessionEntry, SessionKey};
use super::settings::digest;
use super::shared::{Halted, SESSION_BYTES_MAX};
use crate::domain::command::ChannelSeen;
use crate::domain::delivery::ConnectionId;
use crate::domain::ids::{AdapterId, PortalId};
use crate::domain::view::Masking;

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

impl Broker {
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
