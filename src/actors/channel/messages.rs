//! What a channel's actor is told, beside requests: connections, the portal, gateways, timers, its conversations.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::lookups::Looked;
use crate::actors::asking::Asked;
use crate::actors::outlet::Outlet;
use crate::actors::registry::{Deliver, Generation};
use crate::domain::aside::{self, Shelf};
use crate::domain::delivery::ConnectionId;
use crate::domain::ids::{ConversationId, Offset, ServiceId};
use crate::domain::portal::Portal;
use crate::domain::presence::PresenceChange;

/// A connection wants what its service is delivered here.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Attach {
    pub(in crate::actors) outlet: Arc<Outlet>,
    pub(in crate::actors) deliver: Deliver,
}

/// A connection is gone.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Detach(pub(in crate::actors) ConnectionId);

/// A connection has credit again.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Pump(pub(in crate::actors) ConnectionId);

/// The first records are gone, up to before this offset.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Trimmed(pub(in crate::actors) Offset);

/// The portal has changed: rosters, rules.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct PortalChanged {
    pub(in crate::actors) portal: Arc<Portal>,
    /// Whose roster changed, and who waits for this channel to answer for it.
    pub(in crate::actors) roster: Option<(ServiceId, Asked)>,
    /// Whether the configuration was read anew: services, rules and the way of its replies may have changed.
    pub(in crate::actors) is_reload: bool,
}

/// The channel's gateway is connected, or has room again; or one of its connections is lost.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct GatewayNews {
    pub(in crate::actors) lost: Option<Generation>,
}

/// Records what was acknowledged and appends all that waits.
#[derive(Debug, Clone, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Settle {
    /// Dropped when that is on its way.
    pub(in crate::actors) _under_way: mpsc::Sender<()>,
}

/// Appends what has gathered while the mailbox was emptied.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct Flush;

/// A timer of this actor has run out.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct Wake;

/// What the first that waits was looked for has been looked for.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct LookedAt(pub(super) Looked);

/// What of the channel's memory lies in runs, durably, and on which shelf.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct LaidAside {
    pub(in crate::actors) laid: Vec<(Shelf, aside::LaidAside)>,
    /// Held until their memory is free.
    pub(in crate::actors) waits: Arc<()>,
}

/// Ids take too much memory, and no more of them can be laid aside: so many bytes of the oldest are to go.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct DropIds {
    pub(in crate::actors) bytes: usize,
    /// Held until they are gone.
    pub(in crate::actors) waits: Arc<()>,
}

/// What agents do in a conversation has changed.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct PresenceChanged {
    pub(in crate::actors) conversation: ConversationId,
    pub(in crate::actors) changes: Vec<PresenceChange>,
}

/// A conversation's actor has nothing to do any more, after so many messages.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Idle {
    pub(in crate::actors) conversation: ConversationId,
    pub(in crate::actors) handled: u64,
}

/// What became of the hand-over of a reply.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct HandedOver {
    pub(in crate::actors) reply: Offset,
    pub(in crate::actors) outcome: HandOverOutcome,
}

/// How a hand-over went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::actors) enum HandOverOutcome {
    /// This connection has it.
    Left(Generation),
    /// There was no connection: it surely was not sent.
    NoConnection,
    /// It can not be read from the journal: it can never be sent.
    Unreadable,
}
