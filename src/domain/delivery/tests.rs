//! Shows what delivery promises: a naive world that remembers everything (every record, who was sent what in which
//! order, what was acknowledged) plays channel, sessions and adapters against the cursor, step by random step, and
//! looks at every single delivery. What needs an exact situation has a test of its own below.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// The credit of the world's connections.
#[derive(Debug, Default)]
struct Credit(BTreeMap<ConnectionId, (u32, i64)>);

impl Credit {
    fn open(deliveries: u32, ids: &[u64]) -> Self {
        Self(ids.iter().map(|id| (ConnectionId(*id), (deliveries, i64::from(deliveries) * 1_000))).collect())
    }
}

impl Windows for Credit {
    fn take(&mut self, connection: ConnectionId, bytes: u32) -> bool {
        let has_room = self.has_room(connection);
        if let Some((deliveries, left)) = self.0.get_mut(&connection).filter(|_| has_room) {
            *deliveries -= 1;
            *left -= i64::from(bytes);
        }
        has_room
    }

    fn has_room(&self, connection: ConnectionId) -> bool {
        self.0.get(&connection).is_some_and(|(deliveries, bytes)| *deliveries > 0 && *bytes > 0)
    }

    fn give_back(&mut self, connection: ConnectionId, deliveries: u32, bytes: u64) {
        let (left, bytes_left) = self.0.get_mut(&connection).expect("a known connection");
        *left += deliveries;
        *bytes_left += i64::try_from(bytes).expect("small");
    }
}

/// What a record of the world's channel is to the service.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Unseen,
    Of(u64),
    ToAll,
    Merged(u64),
}

#[derive(Debug, Clone)]
enum Step {
    Append(Kind),
    /// Offer up to so many items, one by one or as a batch.
    Offer(usize, bool),
    /// Offer up to so many records to one of the lag cursors that have room.
    OfferLagging(usize, usize),
    /// One connection acknowledges one of the deliveries outstanding there.
    Ack(usize, usize),
    /// One connection acknowledges any offset at all.
    AckAny(usize, u64),
    Connect(u32, i64),
    Disconnect(usize),
    /// The service joins again and asks for what lies so far behind the cursor.
    Restart(u64),
}

/// A connection, as an adapter sees it.
#[derive(Debug, Default)]
struct Adapter {
    /// Its window, in deliveries and bytes.
    window: (u32, i64),
    /// What was sent and not acknowledged, in order.
    outstanding: Vec<Item>,
    /// The last offset of each conversation that was ever sent on it.
    last: BTreeMap<ConversationId, Offset>,
}

struct World {
    log: Vec<Kind>,
    cursor: ServiceCursor,
    credit: Credit,
    adapters: BTreeMap<ConnectionId, Adapter>,
    acknowledged: BTreeSet<Offset>,
    ended: u64,
}

fn is_broadcast(item: &Item) -> bool {
    item.to_all || item.conversation.is_none()
}

impl World {
    fn new() -> Self {
        Self {
            log: Vec::new(),
            cursor: ServiceCursor::new(Offset::ZERO),
            credit: Credit::default(),
            adapters: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            ended: 0,
        }
    }

    fn head(&self) -> Offset {
        Offset(self.log.len() as u64)
    }

    fn item(&self, offset: Offset) -> Option<Item> {
        let (conversation, to_all) = match *self.log.get(usize::try_from(offset.0 - 1).unwrap())? {
            Kind::Unseen => return None,
            Kind::Of(conversation) => (Some(ConversationId(conversation)), false),
            Kind::ToAll => (None, false),
            Kind::Merged(conversation) => (Some(ConversationId(conversation)), true),
        };
        Some(Item { offset, conversation, bytes: 1 + u32::try_from(offset.0 % 7).unwrap(), to_all })
    }

    fn items(&self, from: Offset, through: Offset) -> Vec<Item> {
        (from.0..=through.0).filter_map(|offset| self.item(Offset(offset))).collect()
    }

    fn id(&self, nth: usize) -> Option<ConnectionId> {
        self.adapters.keys().nth(nth % self.adapters.len().max(1)).copied()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append(kind) => self.log.push(kind),
            Step::Offer(most, batch) => self.offer(most, batch),
            Step::OfferLagging(nth, most) => self.offer_lagging(nth, most),
            Step::Ack(nth, which) => {
                let Some(id) = self.id(nth) else { return };
                let outstanding = &self.adapters[&id].outstanding;
                if !outstanding.is_empty() {
                    self.ack(id, outstanding[which % outstanding.len()].offset);
                }
            }
            Step::AckAny(nth, offset) => {
                if let Some(id) = self.id(nth) {
                    self.ack(id, Offset(offset));
                }
            }
            Step::Connect(deliveries, bytes) => self.connect(deliveries, bytes),
            Step::Disconnect(nth) => {
                let Some(id) = self.id(nth) else { return };
                self.cursor.disconnect(id, &mut self.credit);
                let window = self.adapters.remove(&id).expect("it was connected").window;
                assert_eq!(self.credit.0.remove(&id), Some(window), "all room was given back");
                if self.adapters.is_empty() {
                    // All that is kept of a service without connections is its position; the rest comes again.
                    let next = self.cursor.next();
                    assert_eq!(self.cursor.acknowledged(), next.before());
                    self.acknowledged.retain(|offset| *offset < next);
                }
            }
            Step::Restart(behind) => {
                let from = Offset(self.cursor.next().0.saturating_sub(behind).max(1));
                self.cursor.restart_at(from);
                self.acknowledged.retain(|offset| *offset < from);
                for adapter in self.adapters.values_mut() {
                    adapter.last.values_mut().for_each(|last| *last = (*last).min(from.before()));
                }
            }
        }
        self.check();
    }

    fn connect(&mut self, deliveries: u32, bytes: i64) {
        if self.adapters.len() >= 5 {
            return;
        }
        self.ended += 1;
        let id = ConnectionId(self.ended);
        self.credit.0.insert(id, (deliveries, bytes));
        let due: Vec<Offset> = self
            .items(Offset(1), self.cursor.next().before())
            .iter()
            .filter(|item| is_broadcast(item) && !self.acknowledged.contains(&item.offset))
            .map(|item| item.offset)
            .collect();
        assert_eq!(self.cursor.connect(id), due, "just the unacknowledged broadcasts come again");
        let mut adapter = Adapter { window: (deliveries, bytes), ..Adapter::default() };
        adapter.outstanding.extend(due.iter().filter_map(|offset| self.item(*offset)));
        self.adapters.insert(id, adapter);
    }

    fn offer(&mut self, most: usize, batch: bool) {
        let mut items = self.items(self.cursor.next(), self.head());
        if items.is_empty() {
            self.cursor.pass_to(self.head());
            return;
        }
        items.truncate(most);
        if batch {
            let mut runs = Vec::new();
            let placed = self.cursor.offer_run(&items, &mut self.credit, &mut runs);
            let places: Vec<Placement> =
                runs.iter().flat_map(|run| std::iter::repeat_n(run.placement, run.items)).collect();
            assert_eq!(places.len(), placed);
            for (item, placement) in items.iter().zip(places) {
                self.placed(item, placement);
            }
            return;
        }
        for item in &items {
            let placement = self.cursor.offer(item, &mut self.credit);
            if placement == Placement::Full {
                assert!(self.cursor.next() <= item.offset, "the cursor stays");
                return;
            }
            self.placed(item, placement);
        }
    }

    fn offer_lagging(&mut self, nth: usize, most: usize) {
        let lags: Vec<_> = self.cursor.lags(&self.credit).collect();
        if lags.is_empty() {
            return;
        }
        let (id, from) = lags[nth % lags.len()];
        assert!(from < self.cursor.next());
        let items = self.items(from, self.cursor.next().before());
        for item in items.iter().take(most) {
            match self.cursor.offer_lagging(id, item, &mut self.credit) {
                Placement::To(to) => {
                    assert_eq!(to, id);
                    self.sent(id, item);
                }
                Placement::ToAll => panic!("a lag cursor delivers no broadcast"),
                Placement::Held => {}
                Placement::Full => return,
            }
        }
        if items.len() <= most {
            self.cursor.lag_pass_to(id, self.cursor.next().before());
        }
    }

    fn placed(&mut self, item: &Item, placement: Placement) {
        match placement {
            Placement::To(id) => self.sent(id, item),
            Placement::ToAll => {
                assert!(is_broadcast(item));
                self.acknowledged.remove(&item.offset);
                for adapter in self.adapters.values_mut() {
                    adapter.outstanding.push(*item);
                }
            }
            Placement::Held => assert!(!is_broadcast(item)),
            Placement::Full => panic!("full is not placed"),
        }
    }

    /// Looks at one delivery: who else has the conversation, and whether what came before it was delivered.
    fn sent(&mut self, id: ConnectionId, item: &Item) {
        let conversation = item.conversation.expect("a broadcast goes to all");
        assert!(!item.to_all);
        for (other, adapter) in &self.adapters {
            let elsewhere =
                adapter.outstanding.iter().any(|out| !out.to_all && out.conversation == Some(conversation));
            assert!(*other == id || !elsewhere, "{conversation} is with {other:?} and {id:?}");
        }
        for earlier in self.items(Offset(1), item.offset.before()) {
            let same = earlier.conversation == Some(conversation) && !earlier.to_all;
            let here = self.adapters[&id].outstanding.iter().any(|out| out.offset == earlier.offset);
            assert!(
                !same || here || self.acknowledged.contains(&earlier.offset),
                "{} of {conversation} before {}",
                item.offset,
                earlier.offset
            );
        }
        let adapter = self.adapters.get_mut(&id).expect("only to who is connected");
        let last = adapter.last.insert(conversation, item.offset);
        assert!(last < Some(item.offset), "offsets rise within a conversation");
        adapter.outstanding.push(*item);
    }

    fn ack(&mut self, id: ConnectionId, offset: Offset) {
        let adapter = self.adapters.get_mut(&id).expect("connected");
        let at = adapter.outstanding.iter().position(|item| item.offset == offset);
        assert_eq!(self.cursor.ack(id, offset, &mut self.credit), at.is_some());
        if let Some(at) = at {
            self.acknowledged.extend(adapter.outstanding.drain(..=at).map(|item| item.offset));
        }
    }

    /// What holds between any two steps.
    fn check(&self) {
        for item in self.items(Offset(1), self.cursor.acknowledged()) {
            assert!(self.acknowledged.contains(&item.offset), "{} counts as acknowledged", item.offset);
        }
        let lagging = self.cursor.connections.iter().any(|connection| connection.lag.is_some());
        let needed = self.cursor.connections.len() > 1 || lagging;
        assert_eq!(self.cursor.owners.is_some(), needed, "owners are kept only while there is a choice");
        let mut unacknowledged: BTreeMap<ConversationId, (ConnectionId, u32)> = BTreeMap::new();
        for (id, adapter) in &self.adapters {
            let counted: Vec<&Item> = adapter.outstanding.iter().filter(|item| !is_broadcast(item)).collect();
            assert_eq!(self.cursor.unacknowledged(*id) as usize, counted.len());
            for item in counted {
                unacknowledged.entry(item.conversation.unwrap()).or_insert((*id, 0)).1 += 1;
            }
        }
        let Some(owners) = &self.cursor.owners else { return };
        assert_eq!(owners.held(), owners.all().filter(|(.., held)| *held).count());
        for (conversation, owner, count, held) in owners.all() {
            assert!(count > 0 || held, "{conversation} is kept for nothing");
            assert_eq!(unacknowledged.remove(&conversation).unwrap_or((owner, 0)), (owner, count));
        }
        assert_eq!(unacknowledged, BTreeMap::new(), "what is unacknowledged has an owner");
        for connection in &self.cursor.connections {
            let own: Vec<_> = owners.all().filter(|(_, owner, ..)| *owner == connection.id).collect();
            assert_eq!(own.len(), connection.conversations as usize);
            assert_eq!(own.iter().filter(|(.., held)| *held).count(), connection.held.len());
        }
    }

    /// Offers all that can be offered, and looks at who waits: nothing but what a full connection has, or, where all
    /// are full, what has no connection.
    fn settle(&mut self) {
        loop {
            let before = (self.cursor.next(), self.cursor.lags(&self.credit).collect::<Vec<_>>());
            self.offer(usize::MAX, true);
            for nth in 0..self.adapters.len() {
                self.offer_lagging(nth, usize::MAX);
            }
            if before == (self.cursor.next(), self.cursor.lags(&self.credit).collect::<Vec<_>>()) {
                break;
            }
        }
        self.check();
        assert_eq!(self.cursor.lags(&self.credit).count(), 0, "a lag cursor with room goes on to its end");
        let room = |id: &ConnectionId| self.credit.has_room(*id);
        if self.cursor.next() <= self.head() {
            assert!(!self.adapters.keys().any(room), "the cursor waits only while nobody has room");
        }
        for item in self.items(Offset(1), self.cursor.next().before()) {
            let delivered = self.acknowledged.contains(&item.offset)
                || self.adapters.values().any(|a| a.outstanding.iter().any(|out| out.offset == item.offset));
            if !delivered {
                let owners = self.cursor.owners.as_ref().expect("somebody has it");
                let owner = owners.all().find(|(conversation, ..)| Some(*conversation) == item.conversation);
                assert!(!room(&owner.expect("held for somebody").1), "{} waits for nothing", item.offset);
            }
        }
    }

    /// Everybody takes and acknowledges everything.
    fn finish(&mut self) {
        if self.adapters.is_empty() {
            self.connect(3, 20);
        }
        while self.cursor.acknowledged() < self.head() {
            let before = (self.acknowledged.len(), self.cursor.next());
            self.settle();
            let mut taken = 0;
            for nth in 0..self.adapters.len() {
                let id = self.id(nth).unwrap();
                // Of what was delivered twice, each is acknowledged.
                while let Some(last) = self.adapters[&id].outstanding.last() {
                    self.ack(id, last.offset);
                    taken += 1;
                }
                self.check();
            }
            let after = (self.acknowledged.len(), self.cursor.next());
            let done = self.cursor.acknowledged() == self.head();
            assert!(done || taken > 0 || before != after, "it goes on until all is acknowledged");
        }
        self.settle();
        for item in self.items(Offset(1), self.head()) {
            assert!(self.acknowledged.contains(&item.offset), "{} was never delivered", item.offset);
        }
        assert!(self.cursor.connections.iter().all(|connection| connection.lag.is_none()));
        assert!(self.cursor.owners.as_ref().is_none_or(|owners| owners.all().count() == 0));
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        1 => Just(Kind::Unseen),
        12 => (0_u64..7).prop_map(Kind::Of),
        1 => Just(Kind::ToAll),
        1 => (0_u64..7).prop_map(Kind::Merged),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => kinds().prop_map(Step::Append),
        5 => (1_usize..6, any::<bool>()).prop_map(|(most, batch)| Step::Offer(most, batch)),
        4 => (0_usize..5, 1_usize..6).prop_map(|(nth, most)| Step::OfferLagging(nth, most)),
        4 => (0_usize..5, 0_usize..12).prop_map(|(nth, which)| Step::Ack(nth, which)),
        1 => (0_usize..5, 0_u64..80).prop_map(|(nth, offset)| Step::AckAny(nth, offset)),
        2 => (1_u32..6, 1_i64..30).prop_map(|(deliveries, bytes)| Step::Connect(deliveries, bytes)),
        1 => (0_usize..5).prop_map(Step::Disconnect),
    ]
}

fn run(plan: &[Step], settle_at: usize) {
    let mut world = World::new();
    for (at, step) in plan.iter().enumerate() {
        world.step(step);
        if at == settle_at {
            world.settle();
        }
    }
    world.settle();
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_record_comes_in_order_to_one_connection_at_a_time_until_acknowledged(
        plan in proptest::collection::vec(steps(), 0..120),
        settle_at in 0_usize..120,
    ) {
        run(&plan, settle_at);
    }

    #[test]
    fn a_service_that_joins_again_gets_all_from_there_on(
        plan in proptest::collection::vec(
            prop_oneof![24 => steps(), 1 => (0_u64..40).prop_map(Step::Restart)],
            0..120,
        ),
        settle_at in 0_usize..120,
    ) {
        run(&plan, settle_at);
    }
}

fn message(offset: u64, conversation: u64) -> Item {
    Item { offset: Offset(offset), conversation: Some(ConversationId(conversation)), bytes: 1, to_all: false }
}

fn broadcast(offset: u64) -> Item {
    Item { offset: Offset(offset), conversation: None, bytes: 1, to_all: true }
}

const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);
const C: ConnectionId = ConnectionId(3);

fn connected(ids: &[ConnectionId]) -> ServiceCursor {
    let mut cursor = ServiceCursor::new(Offset::ZERO);
    for id in ids {
        assert_eq!(cursor.connect(*id), []);
    }
    cursor
}

#[test]
fn a_full_connection_holds_up_only_the_conversations_that_it_has() {
    let mut credit = Credit::open(2, &[1, 2]);
    let mut cursor = connected(&[A]);
    assert_eq!(cursor.offer(&message(1, 10), &mut credit), Placement::To(A));
    assert_eq!(cursor.offer(&message(2, 10), &mut credit), Placement::To(A));
    assert_eq!(cursor.offer(&message(3, 10), &mut credit), Placement::Full);
    assert_eq!(cursor.next(), Offset(3));
    assert_eq!(cursor.offer(&message(2, 10), &mut credit), Placement::Held, "placed before");
    cursor.connect(B);
    assert_eq!(cursor.offer(&message(3, 10), &mut credit), Placement::Held);
    assert_eq!(cursor.offer(&message(4, 11), &mut credit), Placement::To(B));
    assert_eq!(cursor.offer(&message(5, 10), &mut credit), Placement::Held);
    assert_eq!(cursor.lags(&credit).count(), 0, "no room yet");
    assert!(cursor.ack(A, Offset(1), &mut credit));
    assert_eq!(cursor.lags(&credit).collect::<Vec<_>>(), [(A, Offset(3))]);
    assert_eq!(cursor.acknowledged(), Offset(1));
    // Room again, but the conversation's earlier records come first.
    assert_eq!(cursor.offer(&message(6, 10), &mut credit), Placement::Held);
    assert_eq!(cursor.offer_lagging(A, &message(3, 10), &mut credit), Placement::To(A));
    assert_eq!(cursor.offer_lagging(A, &message(4, 11), &mut credit), Placement::Held);
    assert_eq!(cursor.offer_lagging(A, &message(5, 10), &mut credit), Placement::Full);
    assert!(cursor.ack(A, Offset(3), &mut credit));
    assert_eq!(cursor.offer_lagging(A, &message(5, 10), &mut credit), Placement::To(A));
    assert_eq!(cursor.offer_lagging(A, &message(6, 10), &mut credit), Placement::To(A));
    assert_eq!(
        cursor.connections.iter().filter_map(|connection| connection.lag).count(),
        0,
        "the lag has ended"
    );
    assert_eq!((cursor.unacknowledged(A), cursor.unacknowledged(B)), (2, 1));
    assert!(cursor.ack(B, Offset(4), &mut credit));
    assert_eq!(cursor.acknowledged(), Offset(4));
}

#[test]
fn nothing_new_goes_to_a_connection_that_lags() {
    let mut credit = Credit::open(1, &[1]);
    credit.0.extend(Credit::open(9, &[2]).0);
    let mut cursor = connected(&[A, B]);
    assert_eq!(cursor.offer(&message(1, 10), &mut credit), Placement::To(A));
    for offset in 2..=4 {
        assert_eq!(cursor.offer(&message(offset, offset), &mut credit), Placement::To(B));
    }
    assert_eq!(cursor.offer(&message(5, 10), &mut credit), Placement::Held);
    assert!(cursor.ack(A, Offset(1), &mut credit));
    assert!(credit.has_room(A), "and it has the fewest");
    assert_eq!(cursor.offer(&message(6, 11), &mut credit), Placement::To(B));
    assert_eq!(cursor.offer_lagging(A, &message(7, 10), &mut credit), Placement::Held, "past the cursor");
    assert_eq!(cursor.lag(A), None);
    assert_eq!(cursor.offer(&message(7, 12), &mut credit), Placement::To(A));
}

#[test]
fn a_conversation_changes_hands_only_when_nothing_of_it_is_unacknowledged() {
    let mut credit = Credit::open(10, &[1, 2]);
    let mut cursor = connected(&[A]);
    for offset in 1..=3 {
        cursor.offer(&message(offset, offset), &mut credit);
    }
    cursor.connect(B);
    assert_eq!(cursor.offer(&message(4, 1), &mut credit), Placement::To(A), "it is with A");
    assert!(cursor.ack(A, Offset(1), &mut credit));
    assert_eq!(cursor.offer(&message(5, 1), &mut credit), Placement::To(A), "offset 4 is still out");
    assert!(cursor.ack(A, Offset(5), &mut credit));
    assert_eq!(cursor.offer(&message(6, 2), &mut credit), Placement::To(A), "a tie");
    assert_eq!(cursor.offer(&message(7, 1), &mut credit), Placement::To(B), "the newcomer has fewer");
}

#[test]
fn what_an_ended_connection_had_passes_on_from_its_first_unacknowledged() {
    let mut credit = Credit::open(10, &[1, 2]);
    let mut cursor = connected(&[A, B]);
    assert_eq!(cursor.offer(&message(1, 1), &mut credit), Placement::To(A));
    assert_eq!(cursor.offer(&message(2, 2), &mut credit), Placement::To(B));
    assert_eq!(cursor.offer(&message(3, 1), &mut credit), Placement::To(A));
    assert!(cursor.ack(A, Offset(1), &mut credit));
    assert!(cursor.ack(B, Offset(2), &mut credit));
    cursor.disconnect(A, &mut credit);
    assert_eq!(credit.0[&A].0, 10);
    assert_eq!((cursor.next(), cursor.acknowledged()), (Offset(4), Offset(2)));
    assert_eq!(cursor.offer(&message(4, 1), &mut credit), Placement::Held);
    assert_eq!(cursor.lags(&credit).collect::<Vec<_>>(), [(B, Offset(3))]);
    assert_eq!(cursor.offer_lagging(B, &message(3, 1), &mut credit), Placement::To(B));
    assert_eq!(cursor.offer_lagging(B, &message(4, 1), &mut credit), Placement::To(B));
    assert!(cursor.owners.is_none(), "B is alone and nothing lags");
    cursor.disconnect(B, &mut credit);
    assert_eq!(cursor.next(), Offset(3), "nobody is left: the cursor goes back");
    assert_eq!(cursor.offer(&message(3, 1), &mut credit), Placement::Full);
}

#[test]
fn a_broadcast_counts_nowhere_and_comes_again_until_something_later_is_acknowledged() {
    let mut credit = Credit::open(1, &[1, 2, 3]);
    let mut cursor = connected(&[A, B]);
    assert_eq!(cursor.offer(&broadcast(1), &mut credit), Placement::ToAll);
    assert_eq!(cursor.offer(&message(2, 7), &mut credit), Placement::To(A));
    assert_eq!(cursor.offer(&broadcast(3), &mut credit), Placement::ToAll);
    assert_eq!((cursor.unacknowledged(A), cursor.unacknowledged(B)), (1, 0));
    assert_eq!(cursor.connect(C), [Offset(1), Offset(3)]);
    assert!(cursor.ack(A, Offset(2), &mut credit), "covers the broadcast before it");
    assert_eq!(cursor.acknowledged(), Offset(2));
    assert!(cursor.ack(C, Offset(3), &mut credit), "it was sent there too");
    assert!(!cursor.ack(C, Offset(3), &mut credit), "no longer outstanding");
    assert_eq!(cursor.acknowledged(), Offset(3));
    assert_eq!(cursor.connect(ConnectionId(4)), []);
    assert!(cursor.ack(B, Offset(1), &mut credit), "outstanding there still, and harmless");
}

#[test]
fn broadcasts_that_nobody_acknowledges_are_bounded() {
    let mut credit = Credit::open(1, &[1]);
    let mut cursor = connected(&[A]);
    let most = BROADCASTS_MAX as u64;
    for offset in 1..=most {
        assert_eq!(cursor.offer(&broadcast(offset), &mut credit), Placement::ToAll);
    }
    assert_eq!(cursor.offer(&broadcast(most + 1), &mut credit), Placement::Full);
    assert!(cursor.ack(A, Offset(1), &mut credit));
    assert_eq!(cursor.offer(&broadcast(most + 1), &mut credit), Placement::ToAll);
}

#[test]
fn a_connection_that_leaves_acknowledging_to_another_keeps_no_list_of_it() {
    let mut credit = Credit::open(1, &[1, 2]);
    let mut cursor = connected(&[A, B]);
    let last = 5 * BROADCASTS_MAX as u64;
    for offset in 1..=last {
        assert_eq!(cursor.offer(&broadcast(offset), &mut credit), Placement::ToAll);
        assert!(cursor.ack(A, Offset(offset), &mut credit));
    }
    for connection in &cursor.connections {
        assert!(connection.outstanding_broadcasts() <= 2 * BROADCASTS_MAX);
    }
    assert!(cursor.ack(B, Offset(last), &mut credit));
    assert_eq!(cursor.acknowledged(), Offset(last));
}

#[test]
fn what_is_kept_stays_within_the_windows() {
    let window: u32 = 50;
    let mut credit = Credit::open(window, &[1, 2]);
    credit.0.extend(Credit::open(2 * window, &[3]).0);
    let mut cursor = connected(&[A, B, C]);
    let (mut sent_to_b, mut sent_to_c) = (VecDeque::new(), VecDeque::new());
    // A never acknowledges, B slowly, C soon; 20,000 records in 1,000 conversations.
    for offset in 1..=20_000_u64 {
        let placement = cursor.offer(&message(offset, offset * 7919 % 1_000), &mut credit);
        match placement {
            Placement::To(B) => sent_to_b.push_back(Offset(offset)),
            Placement::To(C) => sent_to_c.push_back(Offset(offset)),
            _ => {}
        }
        if let Some(due) = sent_to_b.pop_front_if(|_| offset % 40 == 0) {
            assert!(cursor.ack(B, due, &mut credit));
        }
        if let Some(due) = sent_to_c.pop_front_if(|sent| sent.0 + 80 <= offset) {
            assert!(cursor.ack(C, due, &mut credit));
        }
        let owners = cursor.owners.as_ref().expect("three connections");
        assert_ne!(placement, Placement::Full, "C has room");
        assert!(owners.all().count() <= 4 * window as usize);
        assert!(owners.held() <= 2 * window as usize);
        for connection in &cursor.connections {
            assert!(connection.outstanding_deliveries() <= 2 * window);
            assert!(connection.held.len() <= window as usize);
        }
    }
    assert!(cursor.owners.as_ref().is_some_and(|owners| owners.held() > window as usize), "both lag");
}

#[test]
fn more_held_conversations_than_the_limit_come_again_from_the_first_of_the_rest() {
    let most = HELD_CONVERSATIONS_MAX as u64;
    let mut credit = Credit::open(u32::MAX, &[1]);
    credit.0.insert(B, (0, 0));
    let mut cursor = connected(&[A, B]);
    for offset in 1..=most + 10 {
        assert_eq!(cursor.offer(&message(offset, offset), &mut credit), Placement::To(A));
    }
    cursor.disconnect(A, &mut credit);
    let owners = cursor.owners.as_ref().expect("B lags");
    assert_eq!((owners.held(), owners.all().count()), (HELD_CONVERSATIONS_MAX, HELD_CONVERSATIONS_MAX));
    assert_eq!(cursor.acknowledged(), Offset::ZERO);
    let beyond = cursor.next();
    assert_eq!(beyond, Offset(most + 1), "all that is not held comes again");
    credit.0.insert(B, (u32::MAX, i64::MAX));
    let mut delivered = BTreeSet::new();
    for offset in 1..beyond.0 {
        if cursor.offer_lagging(B, &message(offset, offset), &mut credit) == Placement::To(B) {
            delivered.insert(offset);
        }
    }
    for offset in beyond.0..=most + 10 {
        if cursor.offer(&message(offset, offset), &mut credit) == Placement::To(B) {
            delivered.insert(offset);
        }
    }
    assert_eq!(delivered.len() as u64, most + 10);
}

#[test]
fn of_two_deliveries_of_one_offset_the_earlier_is_acknowledged_first() {
    let mut credit = Credit::open(100, &[1]);
    let mut cursor = connected(&[A]);
    for offset in 50..=51 {
        cursor.offer(&message(offset, 1), &mut credit);
    }
    cursor.restart_at(Offset(1));
    for offset in 1..=51 {
        assert_eq!(cursor.offer(&message(offset, 1), &mut credit), Placement::To(A));
    }
    assert_eq!(cursor.unacknowledged(A), 53);
    assert!(cursor.ack(A, Offset(50), &mut credit));
    assert_eq!((cursor.unacknowledged(A), cursor.acknowledged()), (52, Offset::ZERO));
    assert!(cursor.ack(A, Offset(50), &mut credit));
    assert_eq!((cursor.unacknowledged(A), cursor.acknowledged()), (1, Offset(50)));
    assert!(!cursor.ack(A, Offset(50), &mut credit));
}
