//! A portal at start: its own stream, every channel of it, and whether the configuration still fits what exists.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError};

use actix::{Actor, AsyncContext};

use super::{Folded, Place, PortalActor};
use crate::actors::broker::PortalSetup;
use crate::actors::channel::replay::replay;
use crate::actors::homes::Homes;
use crate::actors::reader::READ_BYTES;
use crate::actors::registry::{ChannelEntry, ChannelSight};
use crate::actors::shared::Shared;
use crate::domain::channel::Channel;
use crate::domain::event::PortalEvent;
use crate::domain::ids::{ChannelId, Number, Offset, PortalId, ServiceId};
use crate::domain::portal::{Plan, Portal};
use crate::domain::saved::Unreadable;
use crate::journal::{BlockBuilder, Entry, ReadError, SavedError, StreamId, payload, state};

/// Why a portal can not be started.
#[derive(Debug, thiserror::Error)]
pub enum PortalError {
    /// Its stream can not be read.
    #[error("the journal of portal {portal} can not be read")]
    Read {
        /// Which portal.
        portal: PortalId,
        /// Why.
        #[source]
        error: ReadError,
    },
    /// Its directory is damaged: nobody knows its channels.
    #[error("the journal of portal {portal} is damaged at {place}, byte {position}")]
    Damaged {
        /// Which portal.
        portal: PortalId,
        /// The file.
        place: String,
        /// Where in it.
        position: u64,
    },
    /// Its saved state is damaged.
    #[error("the saved state of portal {portal} can not be had")]
    Saved {
        /// Which portal.
        portal: PortalId,
        /// Why.
        #[source]
        error: SavedError,
    },
    /// Its saved state is whole and yet not understood.
    #[error("the saved state of portal {portal} can not be read")]
    State {
        /// Which portal.
        portal: PortalId,
        /// Why.
        #[source]
        error: Unreadable,
    },
    /// The configuration breaks what exists.
    #[error(transparent)]
    Breaks(#[from] Breaks),
    /// A record is whole and yet not understood.
    #[error("record {offset} of portal {portal} can not be read")]
    Payload {
        /// Which portal.
        portal: PortalId,
        /// Which record.
        offset: Offset,
        /// Why.
        #[source]
        error: payload::PayloadError,
    },
}

/// What a configuration must not take away from channels that exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Breaks {
    /// A number with a channel has vanished.
    #[error("number {number} has a channel in portal {portal} and stands no longer in its configuration")]
    NumberGone {
        /// Whose it was.
        portal: PortalId,
        /// Which.
        number: Number,
    },
    /// The plan has changed under channels.
    #[error("the plan of portal {portal} has changed, and number {number} has a channel of the other plan")]
    PlanChanged {
        /// Whose.
        portal: PortalId,
        /// Which number.
        number: Number,
    },
    /// A portal with channels has vanished.
    #[error("number {number} has a channel in a portal that stands no longer in the configuration")]
    PortalGone {
        /// Which number.
        number: Number,
    },
}

/// Whether the portal's open channels fit a configuration; none: the portal stands in it no longer.
pub(super) fn check_kept(portal: &Portal, setup: Option<&PortalSetup>) -> Result<(), Breaks> {
    portal.open_channels().try_for_each(|(_, number, only)| check_place(number, only, portal.id(), setup))
}

/// Whether a channel of this number, for all of the portal's services or for one alone, fits a configuration.
pub(super) fn check_place(
    number: &Number,
    only: Option<&ServiceId>,
    portal: &PortalId,
    setup: Option<&PortalSetup>,
) -> Result<(), Breaks> {
    let (portal, number) = (portal.clone(), number.clone());
    let Some(setup) = setup else { return Err(Breaks::PortalGone { number }) };
    if setup.numbers.iter().all(|ours| ours.number != number) {
        return Err(Breaks::NumberGone { portal, number });
    }
    if only.is_some() != (setup.rules.plan == Plan::Isolated) {
        return Err(Breaks::PlanChanged { portal, number });
    }
    Ok(())
}

/// Whether a stream that no configured portal owns is that of a portal with open channels.
pub(in crate::actors) fn check_unowned(shared: &Shared, stream: StreamId) -> Result<(), PortalError> {
    let mut open = BTreeMap::new();
    let mut from = Offset(1);
    // One record tells a channel's stream from a portal's.
    let mut bytes = 1;
    loop {
        // A stream that can not be read, or is a channel's, says nothing of portals.
        let Ok(found) = shared.journal.read(stream, from, bytes) else { return Ok(()) };
        bytes = READ_BYTES;
        for entry in found.entries {
            let Entry::Record(raw) = entry else { return Ok(()) };
            match payload::decode_portal(raw.kind, &raw.payload) {
                Ok(PortalEvent::ChannelOpened { channel, number, .. }) => drop(open.insert(channel, number)),
                Ok(PortalEvent::ChannelClosed { channel }) => drop(open.remove(&channel)),
                Ok(PortalEvent::Roster(_)) => {}
                Err(_) => return Ok(()),
            }
        }
        if found.next <= from {
            break;
        }
        from = found.next;
    }
    match open.into_values().next() {
        Some(number) => Err(Breaks::PortalGone { number }.into()),
        None => Ok(()),
    }
}

/// A portal and its channels, folded and not started yet.
pub(in crate::actors) struct Recovered {
    actor: PortalActor,
    channels: Vec<Folded>,
}

impl Recovered {
    /// Starts and lists it. On the thread where portals live.
    pub(in crate::actors) fn start(self, shared: &Shared) {
        let Self { mut actor, channels } = self;
        let id = actor.id.clone();
        let addr = <PortalActor as Actor>::create(move |ctx| {
            actor.start_folded(channels, &ctx.address());
            actor
        });
        shared.registry.portals.insert(id, addr);
    }
}

impl PortalActor {
    /// Folds the portal's stream and every channel of it; blocks while it reads.
    ///
    /// # Errors
    /// When the portal's own stream can not be read. A channel that can not is quarantined.
    pub(in crate::actors) fn recover(
        shared: &Arc<Shared>,
        homes: &Arc<Homes>,
        setup: &PortalSetup,
    ) -> Result<Recovered, PortalError> {
        let id = setup.rules.portal.clone();
        let stream = StreamId::of_portal(&id);
        let mut portal = Portal::new(setup.rules.clone());
        let (ever, _) = fold_portal(shared, &mut portal)?;
        check_kept(&portal, Some(setup))?;
        let channels = ever
            .iter()
            .filter_map(|(channel, place)| fold_channel(shared, &portal, *channel, place))
            .collect();
        let head = shared.journal.head(stream).offset;
        let actor = Self {
            shared: Arc::clone(shared),
            homes: Arc::clone(homes),
            completions: homes.first(),
            id,
            durable: Arc::new(portal.for_channels()),
            portal,
            head,
            builder: BlockBuilder::new(stream),
            flights: VecDeque::new(),
            waiting: HashMap::new(),
            setup: Some(Arc::new(setup.clone())),
            pending: None,
        };
        Ok(Recovered { actor, channels })
    }
}

/// Folds a portal's stream, from the newest base on, into a portal before its first record; gives every channel that it
/// ever opened, and the last offset that was folded.
pub(in crate::actors) fn fold_portal(
    shared: &Shared,
    portal: &mut Portal,
) -> Result<(Vec<(ChannelId, Place)>, Offset), PortalError> {
    let id = portal.id().clone();
    let stream = StreamId::of_portal(&id);
    let mut ever = Vec::new();
    let mut from = Offset(1);
    let saved = shared.journal.saved(stream);
    if let Some(saved) = saved.map_err(|error| PortalError::Saved { portal: id.clone(), error })? {
        ever = state::restore_portal(&saved.state, portal)
            .map_err(|error| PortalError::State { portal: id.clone(), error })?;
        from = saved.as_of.next();
    }
    loop {
        let read = shared.journal.read(stream, from, READ_BYTES);
        let found = read.map_err(|error| PortalError::Read { portal: id.clone(), error })?;
        for entry in found.entries {
            let raw = match entry {
                Entry::Record(raw) => raw,
                Entry::Corrupt(damage) => {
                    let (place, position) = (damage.place, damage.position);
                    return Err(PortalError::Damaged { portal: id, place, position });
                }
            };
            let event = payload::decode_portal(raw.kind, &raw.payload)
                .map_err(|error| PortalError::Payload { portal: id.clone(), offset: raw.offset, error })?;
            portal.apply(&event);
            if let PortalEvent::ChannelOpened { channel, number, service } = event {
                ever.push((channel, (number, service)));
            }
        }
        if found.next <= from {
            break;
        }
        from = found.next;
    }
    Ok((ever, from.before()))
}

/// One channel's state; none in the pair where it is quarantined, nothing where its number is not configured any more.
fn fold_channel(
    shared: &Arc<Shared>,
    portal: &Portal,
    id: ChannelId,
    (number, only): &Place,
) -> Option<Folded> {
    let known = shared.registry.numbers.get(number).map(|found| Arc::clone(found.value()))?;
    let folded = replay(&*shared.journal, id, (number, &known), only.clone(), shared.keys);
    let channel = match folded {
        Ok((channel, senders)) => {
            known.senders.lock().unwrap_or_else(PoisonError::into_inner).absorb(senders);
            Some(channel)
        }
        Err(error) => {
            tracing::error!(channel = %id, error = &error as &dyn std::error::Error, "a channel is quarantined");
            None
        }
    };
    let empty = || Channel::new(id, number.clone(), only.clone(), shared.keys, known.send_ttl_ms());
    let state = channel.as_ref().map_or_else(|| empty().seen(), Channel::seen);
    let standing = |service: &ServiceId| channel.as_ref().map(|channel| channel.standing(service));
    let services = portal.services().map(|rules| rules.service.clone());
    let standings =
        services.map(|service| (service.clone(), standing(&service).unwrap_or_default())).collect();
    let sight = Arc::new(ChannelSight::new(state, standings));
    let entry = ChannelEntry {
        id,
        portal: portal.id().clone(),
        number: number.clone(),
        only: only.clone(),
        addr: None,
        sight,
    };
    Some((entry, channel))
}
