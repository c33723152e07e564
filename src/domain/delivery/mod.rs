//! Which connection of one service gets which record of one channel, and how far the service has acknowledged.
//!
//! Stands between the channel, which offers the records that the service may see in the order of their offsets, and
//! the sessions, which are told where each goes. One cursor per service assigns. What it meets goes to the connection
//! that has the conversation, else to the one that has the fewest and has room. A connection without room holds up
//! the conversations that it has and no others: they are *held* for it, and a *lag cursor* of its own reads them
//! again, each from its first held offset, until it meets the service's cursor. When a connection ends, its
//! conversations pass on in the same way, each from its first unacknowledged offset.
//!
//! # Layout
//! - `mod.rs`: [`ServiceCursor`]: what is offered, where it goes, what is acknowledged;
//! - `connection.rs`: what is outstanding on one connection, in order of delivery;
//! - `owners.rs`: which connection has which conversation. Exists only while there are two connections or more, or
//!   a lag: with one connection there is nothing to choose, and a delivery costs one push on a queue.
//!
//! # Invariants
//! - A conversation is with one connection at a time. It changes hands only when that connection ends, or when none
//!   of its deliveries there is unacknowledged and none is held.
//! - Every record from [`ServiceCursor::acknowledged`] on is outstanding, held, or not yet offered: at least once.
//! - A broadcast that nobody has acknowledged is outstanding on every connection.
//! - What is kept is bounded by the windows, [`BROADCASTS_MAX`] and [`HELD_CONVERSATIONS_MAX`].

mod connection;
mod owners;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use self::connection::{Connection, Delivery};
use self::owners::Owners;
use super::ids::{ConversationId, Offset};

/// Most broadcasts that may be unacknowledged by a service in one channel.
///
/// They count against no window, so they need a limit of their own. Any acknowledgement covers all broadcasts before
/// it; a service that leaves this many gets nothing more of the channel until it acknowledges something. A connection
/// keeps at most twice as many.
pub const BROADCASTS_MAX: usize = 16_384;

/// Most conversations of one service in one channel that may be held for connections that lag: four windows of the
/// largest size (65,536).
///
/// Conversations are held only for who has them, so the windows bound them, but for connections that end again and
/// again while another takes nothing. What exceeds the limit is not remembered by conversation: the service's cursor
/// goes back to it, and some records come twice.
pub const HELD_CONVERSATIONS_MAX: usize = 262_144;

/// One connection of a service that shares its deliveries; never used again after it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One record that the service may see, as far as its way matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Where it stands in the channel.
    pub offset: Offset,
    /// The conversation it belongs to; none makes it a broadcast.
    pub conversation: Option<ConversationId>,
    /// What it counts in a window, in bytes.
    pub bytes: u32,
    /// A broadcast though it belongs to a conversation (`conversation_merged`).
    pub to_all: bool,
}

/// Where an offered record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// To this connection.
    To(ConnectionId),
    /// To every connection of the service.
    ToAll,
    /// To nobody now: skip it. A lag cursor will read it again if it is due.
    Held,
    /// It waits: offer it again when there is room.
    Full,
}

/// Consecutive items of a batch that go to the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where they go; never [`Placement::Full`].
    pub placement: Placement,
    /// How many they are.
    pub items: usize,
}

/// The credit of every connection, in deliveries and bytes; shared with the other channels of that connection.
pub trait Windows {
    /// Takes room for one delivery of `bytes`; false, and nothing taken, where there is none. Succeeds whenever
    /// [`Windows::has_room`] says so: the last delivery may exceed the bytes, else a large one would wait for ever.
    fn take(&mut self, connection: ConnectionId, bytes: u32) -> bool;
    /// Takes room for one delivery after the other, as far as there is any; gives for how many.
    fn take_run(&mut self, connection: ConnectionId, items: &[Item]) -> usize {
        items.iter().take_while(|item| self.take(connection, item.bytes)).count()
    }
    /// Whether the connection can take one more delivery.
    fn has_room(&self, connection: ConnectionId) -> bool;
    /// Gives back the room of acknowledged deliveries.
    fn give_back(&mut self, connection: ConnectionId, deliveries: u32, bytes: u64);
}

/// The cursor of one service in one channel, and what its connections have not acknowledged.
#[derive(Debug)]
pub struct ServiceCursor {
    /// The first offset not yet placed.
    next: Offset,
    /// The `share` connections, in the order in which they came.
    connections: Vec<Connection>,
    /// Which of them has which conversation; none while there is nothing to choose and nothing held.
    owners: Option<Owners>,
    /// Broadcasts that were placed and that no connection has acknowledged; ascending.
    broadcasts: VecDeque<Offset>,
}

impl ServiceCursor {
    /// The cursor of a service that has acknowledged all up to `acknowledged`, without connections.
    #[must_use]
    pub fn new(acknowledged: Offset) -> Self {
        Self { next: acknowledged.next(), connections: Vec::new(), owners: None, broadcasts: VecDeque::new() }
    }

    /// Adds a connection and returns the broadcasts that come again on it, before anything else: those that no
    /// connection has acknowledged. Other records wait for the next offer.
    pub fn connect(&mut self, id: ConnectionId) -> Vec<Offset> {
        debug_assert!(self.connections.iter().all(|other| other.id != id), "a connection id is used once");
        let mut connection = Connection::new(id);
        for offset in &self.broadcasts {
            connection.push_broadcast(*offset);
        }
        self.connections.push(connection);
        if self.connections.len() > 1 && self.owners.is_none() {
            self.owners = Some(Owners::of(&mut self.connections));
        }
        self.broadcasts.iter().copied().collect()
    }

    /// Ends a connection. Its conversations pass on to the others, each from its first unacknowledged offset; where
    /// there is no other, the cursor goes back to the first of them.
    pub fn disconnect<W: Windows + ?Sized>(&mut self, id: ConnectionId, windows: &mut W) {
        let Some(at) = self.connections.iter().position(|connection| connection.id == id) else { return };
        let first_unacknowledged = self.first_unacknowledged();
        let ended = self.connections.remove(at);
        let (deliveries, bytes) = ended.outstanding();
        if deliveries > 0 {
            windows.give_back(id, deliveries, bytes);
        }
        if self.connections.is_empty() {
            self.next = first_unacknowledged;
            self.broadcasts.clear();
            self.owners = None;
        } else {
            let beyond_limit = self
                .owners
                .as_mut()
                .and_then(|owners| owners.pass_on(&ended, self.next, &mut self.connections, windows));
            if let Some(from) = beyond_limit {
                self.restart_at(from);
            }
            self.forget_owners_if_alone();
        }
    }

    /// The first offset not yet placed by the service's cursor: what to offer next.
    ///
    /// It goes back when the last connection ends and when the service restarts. A read that was asked for before
    /// that and begins further on is to be thrown away, else what lies between is lost.
    #[must_use]
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Offers the next record that the service may see. [`Placement::Full`] leaves the cursor where it is; all else
    /// moves it past the record. What lies before the cursor was placed already and is [`Placement::Held`].
    pub fn offer<W: Windows + ?Sized>(&mut self, item: &Item, windows: &mut W) -> Placement {
        if item.offset < self.next {
            return Placement::Held;
        }
        let placement = match item.conversation {
            Some(conversation) if !item.to_all => {
                let delivery = Delivery { offset: item.offset, conversation, bytes: item.bytes };
                self.place(delivery, windows)
            }
            _ => self.place_everywhere(item.offset),
        };
        if placement != Placement::Full {
            self.next = item.offset.next();
        }
        placement
    }

    /// Offers a batch, in order of offsets, as far as there is room; adds where they go to `runs` and returns how many
    /// were placed. Fewer than all means that the next one is [`Placement::Full`].
    pub fn offer_run<W: Windows + ?Sized>(
        &mut self,
        items: &[Item],
        windows: &mut W,
        runs: &mut Vec<Run>,
    ) -> usize {
        let mut current: Option<Run> = None;
        let mut placed = 0;
        while let Some(rest) = items.get(placed..).filter(|rest| !rest.is_empty()) {
            let (placement, many) = self.offer_some(rest, windows);
            if placement == Placement::Full {
                break;
            }
            placed += many;
            match &mut current {
                Some(run) if run.placement == placement => run.items += many,
                _ => runs.extend(current.replace(Run { placement, items: many })),
            }
        }
        runs.extend(current);
        placed
    }

    /// Offers the first of some items, and those behind it with it where that is certain to change nothing: where there
    /// is one connection alone, and nothing to choose. Gives where they go, and how many they are.
    fn offer_some<W: Windows + ?Sized>(&mut self, items: &[Item], windows: &mut W) -> (Placement, usize) {
        let Some(first) = items.first() else { return (Placement::Full, 0) };
        // Looked at before the others are: else each of many would have all behind it counted.
        let is_alone = self.owners.is_none() && self.connections.len() == 1 && first.offset >= self.next;
        let is_counted = |item: &&Item| is_alone && item.conversation.is_some() && !item.to_all;
        let run = items.iter().take_while(is_counted).count();
        let ([only], 1..) = (self.connections.as_mut_slice(), run) else {
            return (self.offer(first, windows), 1);
        };
        let taken = windows.take_run(only.id, items.get(..run).unwrap_or_default());
        let taken = items.get(..taken).unwrap_or_default();
        let Some(last) = taken.last() else { return (Placement::Full, 0) };
        only.push_run(taken);
        self.next = last.offset.next();
        (Placement::To(only.id), taken.len())
    }

    /// Moves the cursor past `offset`: nothing from the cursor up to there is visible to this service.
    pub fn pass_to(&mut self, offset: Offset) {
        self.next = self.next.max(offset.next());
    }

    /// The lag cursors whose connections have room, and from where each must be offered what lies before
    /// [`ServiceCursor::next`].
    ///
    /// Such a place goes back when another connection ends. A read that was asked for before that and begins further
    /// on than [`ServiceCursor::lag`] is to be thrown away, else what lies between is lost.
    pub fn lags<'a, W: Windows + ?Sized>(
        &'a self,
        windows: &'a W,
    ) -> impl Iterator<Item = (ConnectionId, Offset)> + 'a {
        self.connections
            .iter()
            .filter_map(|connection| connection.lag.map(|next| (connection.id, next)))
            .filter(|(id, _)| windows.has_room(*id))
    }

    /// From where the lag cursor of a connection must be offered, if it has one.
    #[must_use]
    pub fn lag(&self, id: ConnectionId) -> Option<Offset> {
        self.connections.iter().find(|connection| connection.id == id).and_then(|connection| connection.lag)
    }

    /// Offers a record to the lag cursor of a connection, in order of offsets. [`Placement::Held`]: skip it, it is not
    /// this connection's or was delivered already; [`Placement::Full`] leaves the lag cursor where it is.
    pub fn offer_lagging<W: Windows + ?Sized>(
        &mut self,
        id: ConnectionId,
        item: &Item,
        windows: &mut W,
    ) -> Placement {
        let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) else {
            return Placement::Held;
        };
        let due = item.offset < self.next && !item.to_all && connection.lag.is_some();
        let owned = match (item.conversation, &mut self.owners) {
            (Some(conversation), Some(owners)) if due => owners.held_by(id, conversation, item.offset),
            _ => None,
        };
        let placement = match (owned, item.conversation) {
            (Some(owned), Some(conversation)) => {
                if !windows.take(id, item.bytes) {
                    return Placement::Full;
                }
                owned.delivered_late(item.offset);
                connection.push(Delivery { offset: item.offset, conversation, bytes: item.bytes });
                Placement::To(id)
            }
            _ => Placement::Held,
        };
        self.lag_pass_to(id, item.offset);
        placement
    }

    /// Moves a lag cursor past `offset`. It ends where it meets the service's cursor.
    pub fn lag_pass_to(&mut self, id: ConnectionId, offset: Offset) {
        let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) else {
            return;
        };
        let Some(lag) = connection.lag else { return };
        let lag = lag.max(offset.next());
        connection.lag = Some(lag);
        if lag >= self.next {
            if let Some(owners) = &mut self.owners {
                owners.end_lag(connection);
            }
            self.forget_owners_if_alone();
        }
    }

    /// Takes an acknowledgement: of the delivery of `offset` on this connection, and of all that was delivered on it
    /// before. False, and nothing changed, where it is not outstanding there. Where one offset is outstanding twice
    /// (after a [`ServiceCursor::restart_at`]), the earlier delivery is meant.
    pub fn ack<W: Windows + ?Sized>(&mut self, id: ConnectionId, offset: Offset, windows: &mut W) -> bool {
        let Some(at) = self.connections.iter().position(|connection| connection.id == id) else {
            return false;
        };
        let Some(connection) = self.connections.get_mut(at) else { return false };
        let Some(covered) = connection.covered_by(offset) else { return false };
        let owners = &mut self.owners;
        let mut free = 0;
        let (deliveries, bytes) = connection.release(covered, |delivery| {
            if let Some(owners) = owners.as_mut() {
                free += u32::from(owners.acknowledged(delivery.conversation));
            }
        });
        connection.conversations = connection.conversations.saturating_sub(free);
        for broadcast in connection.release_broadcasts(covered) {
            if let Ok(found) = self.broadcasts.binary_search(&broadcast) {
                self.broadcasts.remove(found);
            }
        }
        if deliveries > 0 {
            windows.give_back(id, deliveries, bytes);
        }
        true
    }

    /// The service's durable position: all that lies up to here needs no delivery any more.
    #[must_use]
    pub fn acknowledged(&self) -> Offset {
        self.first_unacknowledged().before()
    }

    /// Begins again at `from`, forwards or back, when the service (re)joins. All that it may see from there on is
    /// offered, though some of it may have been delivered before; what is outstanding or held from before `from`
    /// stays so. Never forwards past what is still due to it.
    pub fn restart_at(&mut self, from: Offset) {
        self.next = from;
        self.broadcasts.retain(|offset| *offset < from);
        let Some(owners) = &mut self.owners else { return };
        owners.hold_from_at_most(from);
        for connection in &mut self.connections {
            if connection.lag.is_some_and(|lag| lag >= from) {
                owners.end_lag(connection);
            }
        }
        self.forget_owners_if_alone();
    }

    /// How many deliveries that count against its window a connection has not acknowledged in this channel; while
    /// there are any, the connection must acknowledge in time (`stalled`).
    #[must_use]
    pub fn unacknowledged(&self, id: ConnectionId) -> u32 {
        self.connections
            .iter()
            .find(|connection| connection.id == id)
            .map_or(0, |connection| connection.outstanding_deliveries())
    }

    /// The connections, in the order in which they came.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.connections.iter().map(|connection| connection.id)
    }

    fn place<W: Windows + ?Sized>(&mut self, delivery: Delivery, windows: &mut W) -> Placement {
        if let Some(owners) = &mut self.owners {
            return owners.place(delivery, &mut self.connections, windows);
        }
        match self.connections.first_mut() {
            Some(only) if windows.take(only.id, delivery.bytes) => {
                only.push(delivery);
                Placement::To(only.id)
            }
            _ => Placement::Full,
        }
    }

    fn place_everywhere(&mut self, offset: Offset) -> Placement {
        if self.connections.is_empty() || self.broadcasts.len() >= BROADCASTS_MAX {
            return Placement::Full;
        }
        for connection in &mut self.connections {
            if connection.outstanding_broadcasts() >= 2 * BROADCASTS_MAX {
                // The other connections acknowledge and this one does not: what they have acknowledged needs no
                // second acknowledgement.
                connection.forget_broadcasts_but(&self.broadcasts);
            }
            connection.push_broadcast(offset);
        }
        self.broadcasts.push_back(offset);
        Placement::ToAll
    }

    /// The first offset that still needs a delivery or an acknowledgement.
    fn first_unacknowledged(&self) -> Offset {
        let of_connections = self
            .connections
            .iter()
            .flat_map(|connection| connection.first_unacknowledged().into_iter().chain(connection.lag));
        of_connections.chain(self.broadcasts.front().copied()).fold(self.next, Offset::min)
    }

    /// With one connection and nothing held there is nothing to choose.
    fn forget_owners_if_alone(&mut self) {
        if let [only] = self.connections.as_mut_slice()
            && only.lag.is_none()
        {
            only.conversations = 0;
            self.owners = None;
        }
    }
}
