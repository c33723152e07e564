//! Which connection has which conversation, while a service has two connections or more, or a lag.
//!
//! A conversation has an owner while one of its deliveries there is unacknowledged, or while some of it is held for
//! that connection; else it is free, and who is next offered it is chosen anew.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use super::connection::{Connection, Delivery};
use super::{ConnectionId, HELD_CONVERSATIONS_MAX, Placement, Windows};
use crate::domain::ids::{ConversationId, Offset};

/// One conversation that is with a connection.
#[derive(Debug)]
pub(super) struct Owned {
    owner: ConnectionId,
    /// Deliveries on that connection that are not acknowledged.
    unacknowledged: u32,
    /// The first offset of it that the lag cursor has not delivered, while some of it is held.
    held_from: Option<Offset>,
}

impl Owned {
    /// The lag cursor has delivered the record at `offset`.
    pub(super) fn delivered_late(&mut self, offset: Offset) {
        self.unacknowledged += 1;
        self.held_from = Some(offset.next());
    }
}

/// Conversation ids are scattered when they are made, and the map's size is bounded: hashing them again buys nothing.
#[derive(Debug, Default)]
pub(super) struct AsScattered(u64);

impl Hasher for AsScattered {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

/// Which connection has which conversation.
#[derive(Debug)]
pub(super) struct Owners {
    conversations: HashMap<ConversationId, Owned, BuildHasherDefault<AsScattered>>,
    /// How many of them are held.
    held: usize,
    /// Where the search for the connection with the fewest begins, so that equals take turns.
    turn: usize,
}

impl Owners {
    /// The owners as the outstanding deliveries say, when a second connection comes.
    pub(super) fn of(connections: &mut [Connection]) -> Self {
        let mut owners = Self { conversations: HashMap::default(), held: 0, turn: 0 };
        for connection in connections {
            let others = owners.conversations.len();
            for delivery in connection.deliveries() {
                let owned = owners.conversations.entry(delivery.conversation).or_insert(Owned {
                    owner: connection.id,
                    unacknowledged: 0,
                    held_from: None,
                });
                owned.unacknowledged += 1;
            }
            connection.conversations = u32::try_from(owners.conversations.len() - others).unwrap_or(u32::MAX);
        }
        owners
    }

    /// Places a record that the service's cursor has reached.
    pub(super) fn place<W: Windows + ?Sized>(
        &mut self,
        delivery: Delivery,
        connections: &mut [Connection],
        windows: &mut W,
    ) -> Placement {
        let entry = match self.conversations.entry(delivery.conversation) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                let Some(at) =
                    fewest(connections, self.turn, |other| other.lag.is_none() && windows.has_room(other.id))
                else {
                    return Placement::Full;
                };
                let Some(chosen) = connections.get_mut(at) else { return Placement::Full };
                if !windows.take(chosen.id, delivery.bytes) {
                    return Placement::Full;
                }
                self.turn = at + 1;
                entry.insert(Owned { owner: chosen.id, unacknowledged: 1, held_from: None });
                chosen.conversations += 1;
                chosen.push(delivery);
                return Placement::To(chosen.id);
            }
        };
        let owned = entry.into_mut();
        let Some(owner) = connections.iter_mut().find(|other| other.id == owned.owner) else {
            return Placement::Full;
        };
        if owned.held_from.is_some() {
            return Placement::Held;
        }
        if windows.take(owner.id, delivery.bytes) {
            owned.unacknowledged += 1;
            owner.push(delivery);
            return Placement::To(owner.id);
        }
        if self.held >= HELD_CONVERSATIONS_MAX {
            return Placement::Full;
        }
        self.held += 1;
        hold(owned, owner, delivery.conversation, delivery.offset);
        Placement::Held
    }

    /// The conversation, where it is held for this connection and its record at `offset` has not been delivered.
    pub(super) fn held_by(
        &mut self,
        id: ConnectionId,
        conversation: ConversationId,
        offset: Offset,
    ) -> Option<&mut Owned> {
        self.conversations
            .get_mut(&conversation)
            .filter(|owned| owned.owner == id && owned.held_from.is_some_and(|from| from <= offset))
    }

    /// One delivery of the conversation is acknowledged; true where that sets it free.
    pub(super) fn acknowledged(&mut self, conversation: ConversationId) -> bool {
        let Entry::Occupied(mut entry) = self.conversations.entry(conversation) else { return false };
        let owned = entry.get_mut();
        owned.unacknowledged = owned.unacknowledged.saturating_sub(1);
        let free = owned.unacknowledged == 0 && owned.held_from.is_none();
        if free {
            entry.remove();
        }
        free
    }

    /// The lag cursor of this connection has met the service's cursor: nothing is held for it any more.
    pub(super) fn end_lag(&mut self, connection: &mut Connection) {
        connection.lag = None;
        for conversation in std::mem::take(&mut connection.held) {
            let Entry::Occupied(mut entry) = self.conversations.entry(conversation) else { continue };
            let owned = entry.get_mut();
            if owned.owner != connection.id || owned.held_from.take().is_none() {
                continue;
            }
            self.held -= 1;
            if owned.unacknowledged == 0 {
                entry.remove();
                connection.conversations = connection.conversations.saturating_sub(1);
            }
        }
    }

    /// The service's cursor goes to `from`: what is held from later on is held from there.
    pub(super) fn hold_from_at_most(&mut self, from: Offset) {
        for owned in self.conversations.values_mut() {
            owned.held_from = owned.held_from.map(|held_from| held_from.min(from));
        }
    }

    /// Gives the conversations of an ended connection to the others, each held from its first offset that was not
    /// acknowledged; `next` is where the service's cursor stands. Returns from where the service's cursor must offer again what is beyond the limit.
    pub(super) fn pass_on<W: Windows + ?Sized>(
        &mut self,
        ended: &Connection,
        next: Offset,
        connections: &mut [Connection],
        windows: &W,
    ) -> Option<Offset> {
        let ready: Vec<ConnectionId> = connections
            .iter()
            .filter(|other| other.lag.is_none() && windows.has_room(other.id))
            .map(|other| other.id)
            .collect();
        for delivery in ended.deliveries() {
            let Some(owned) = self.conversations.get_mut(&delivery.conversation) else { continue };
            // After a restart a later delivery may have a lower offset.
            let from = owned.held_from.map_or(delivery.offset, |from| from.min(delivery.offset));
            *owned = Owned { owner: ended.id, unacknowledged: 0, held_from: Some(from) };
        }
        self.held -= ended.held.len();
        let mut beyond_limit: Option<Offset> = None;
        let delivered = ended.deliveries().map(|delivery| delivery.conversation);
        for conversation in delivered.chain(ended.held.iter().copied()) {
            let Entry::Occupied(mut entry) = self.conversations.entry(conversation) else { continue };
            let owned = entry.get_mut();
            let (true, Some(from)) = (owned.owner == ended.id, owned.held_from) else { continue };
            let chosen =
                fewest(connections, self.turn, |other| ready.is_empty() || ready.contains(&other.id));
            match chosen.and_then(|at| connections.get_mut(at)) {
                // After a restart the service's cursor may come to all of it: nobody need hold it.
                _ if from >= next => drop(entry.remove()),
                Some(heir) if self.held < HELD_CONVERSATIONS_MAX => {
                    self.held += 1;
                    owned.owner = heir.id;
                    heir.conversations += 1;
                    hold(owned, heir, conversation, from);
                }
                _ => {
                    beyond_limit = Some(beyond_limit.map_or(from, |least| least.min(from)));
                    entry.remove();
                }
            }
        }
        beyond_limit
    }

    /// Each conversation that has an owner, with its owner, its unacknowledged deliveries, and whether it is held.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (ConversationId, ConnectionId, u32, bool)> + '_ {
        self.conversations.iter().map(|(conversation, owned)| {
            (*conversation, owned.owner, owned.unacknowledged, owned.held_from.is_some())
        })
    }

    /// How many conversations are counted as held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held
    }
}

/// Holds a conversation for its owner from `from` on.
fn hold(owned: &mut Owned, owner: &mut Connection, conversation: ConversationId, from: Offset) {
    owned.held_from = Some(from);
    owner.held.push(conversation);
    owner.lag = Some(owner.lag.map_or(from, |lag| lag.min(from)));
}

/// Where the connection stands that has the fewest conversations among those that `may` take one; of equals the first
/// at or after `turn`.
fn fewest(connections: &[Connection], turn: usize, may: impl Fn(&Connection) -> bool) -> Option<usize> {
    let count = connections.len().max(1);
    let turn = turn % count;
    connections
        .iter()
        .enumerate()
        .filter(|(_, connection)| may(connection))
        .min_by_key(|(at, connection)| (connection.conversations, (at + count - turn) % count))
        .map(|(at, _)| at)
}
