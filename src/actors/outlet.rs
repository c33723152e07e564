//! An outlet: the broker's end of one connection. Actors put answers and deliveries in; whoever has the connection (a
//! socket's writer, an embedding program) takes them out in one go with [`Outlet::take`].
//!
//! Nothing in here waits: a delivery is put in only where the connection's [`Credit`] has room for it.
//!
//! **Invariants:** what lies in an outlet is bounded: answers by the requests in flight, deliveries by the window,
//! presence by [`PRESENCE_QUEUED_MAX`]. After its end an outlet takes nothing more.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::Addr;
use tokio::sync::Notify;

use super::channel::{ChannelActor, Pump};
use super::counters::Counters;
use super::port::{Answered, EndReason, Outgoing, Refusal};
use crate::domain::delivery::{ConnectionId, Item};
use crate::domain::ids::ServiceId;
use crate::domain::view::Masking;

/// Most requests of one connection that are not answered yet; then the broker stops reading (contract: 1,024).
pub const IN_FLIGHT_MAX: usize = 1_024;
/// Most deliveries in a window (contract: 65,536).
pub const WINDOW_MAX: u32 = 65_536;
/// Most unacknowledged bytes of a connection (contract: 16 MiB).
pub const WINDOW_BYTES_MAX: i64 = 16 << 20;
/// Most changes of presence that wait for one connection; further ones are dropped, since they lapse anyway.
pub const PRESENCE_QUEUED_MAX: usize = 1_024;

/// How many deliveries and bytes a connection may still be given; shared by all channels that deliver to it.
#[derive(Debug)]
pub struct Credit {
    deliveries: AtomicU32,
    bytes: AtomicI64,
    window: u32,
    /// Channels that found no room and wait.
    starved: Mutex<Vec<Addr<ChannelActor>>>,
    /// Whether there is one, so that the lock is taken for nothing else.
    is_starved: AtomicBool,
    /// How often anything was given back: the sign of life that `stalled` looks at.
    returns: AtomicU64,
}

impl Credit {
    fn new(window: u32) -> Self {
        Self {
            deliveries: AtomicU32::new(window),
            bytes: AtomicI64::new(WINDOW_BYTES_MAX),
            window,
            starved: Mutex::default(),
            is_starved: AtomicBool::new(false),
            returns: AtomicU64::new(0),
        }
    }

    /// Whether another delivery fits. The last one may exceed the bytes, else a large one would wait for ever.
    pub(super) fn has_room(&self) -> bool {
        self.deliveries.load(Ordering::SeqCst) > 0 && self.bytes.load(Ordering::SeqCst) > 0
    }

    pub(super) fn take(&self, bytes: u32) -> bool {
        if self.bytes.load(Ordering::Acquire) <= 0 {
            return false;
        }
        let less = |left: u32| left.checked_sub(1);
        let taken = self.deliveries.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok();
        if taken {
            self.bytes.fetch_sub(i64::from(bytes), Ordering::AcqRel);
        }
        taken
    }

    /// Takes room for one delivery after the other, as far as there is any; gives for how many.
    pub(super) fn take_run(&self, items: &[Item]) -> usize {
        let wanted = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let less = |left: u32| left.checked_sub(wanted.min(left));
        let left = self.deliveries.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).unwrap_or(0);
        let granted = wanted.min(left);
        let mut taken = 0;
        let less = |left: i64| {
            let (count, after) = fitting(items.get(..granted as usize).unwrap_or_default(), left);
            taken = count;
            (count > 0).then_some(after)
        };
        // Without room for any it changes nothing.
        let _ = self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        if taken < granted {
            self.deliveries.fetch_add(granted - taken, Ordering::SeqCst);
        }
        taken as usize
    }

    pub(super) fn give_back(&self, deliveries: u32, bytes: u64) {
        self.deliveries.fetch_add(deliveries, Ordering::SeqCst);
        self.bytes.fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::SeqCst);
        self.returns.fetch_add(1, Ordering::AcqRel);
    }

    /// The channel is woken when there is room again.
    fn starve(&self, channel: &Addr<ChannelActor>) {
        let mut starved = self.starved.lock().unwrap_or_else(PoisonError::into_inner);
        if !starved.contains(channel) {
            starved.push(channel.clone());
        }
        // In one order with the credit, for every thread: either this channel sees what is given back after this, or who
        // gives it back sees this.
        self.is_starved.store(true, Ordering::SeqCst);
    }

    fn take_starved(&self) -> Vec<Addr<ChannelActor>> {
        if !self.is_starved.load(Ordering::SeqCst) || !self.is_starved.swap(false, Ordering::SeqCst) {
            return Vec::new();
        }
        std::mem::take(&mut *self.starved.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Deliveries given out and not given back.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.window.saturating_sub(self.deliveries.load(Ordering::Acquire))
    }

    /// How often credit was given back.
    #[must_use]
    pub fn returns(&self) -> u64 {
        self.returns.load(Ordering::Acquire)
    }

    /// The window, as granted.
    #[must_use]
    pub fn window(&self) -> u32 {
        self.window
    }
}

/// How many of the items fit into what is left, in bytes, and what is left then: the last one may exceed it.
fn fitting(items: &[Item], mut left: i64) -> (u32, i64) {
    let mut count = 0;
    for item in items {
        if left <= 0 {
            break;
        }
        left -= i64::from(item.bytes);
        count += 1;
    }
    (count, left)
}

/// What waits to leave, and whether anything more may.
#[derive(Debug, Default)]
struct Waiting {
    queue: Vec<Outgoing>,
    presence: usize,
    ended: bool,
}

/// The broker's end of one connection.
pub struct Outlet {
    connection: ConnectionId,
    service: Option<ServiceId>,
    /// Whether its service is trusted to mask for itself; a reload may change it.
    masks_itself: AtomicBool,
    credit: Credit,
    waiting: Mutex<Waiting>,
    ready: Notify,
    in_flight: AtomicUsize,
    room: Notify,
    ending: Notify,
    /// Nothing that this connection asked for counts any more (it was replaced or revoked).
    void: AtomicBool,
    counters: Arc<Counters>,
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("connection", &self.connection).field("credit", &self.credit).finish()
    }
}

impl Outlet {
    /// The outlet of a connection for a service (none: a gateway's), with a window between 1 and [`WINDOW_MAX`].
    #[must_use]
    pub(super) fn new(
        connection: ConnectionId,
        service: Option<ServiceId>,
        masking: Masking,
        window: u32,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            connection,
            service,
            masks_itself: AtomicBool::new(masking == Masking::Service),
            credit: Credit::new(window.clamp(1, WINDOW_MAX)),
            waiting: Mutex::default(),
            ready: Notify::new(),
            in_flight: AtomicUsize::new(0),
            room: Notify::new(),
            ending: Notify::new(),
            void: AtomicBool::new(false),
            counters,
        })
    }

    /// Which connection it is.
    #[must_use]
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// The service that sees what is delivered; none for a gateway.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceId> {
        self.service.as_ref()
    }

    /// How that service receives others' replies.
    #[must_use]
    pub fn masking(&self) -> Masking {
        if self.masks_itself.load(Ordering::Acquire) { Masking::Service } else { Masking::Broker }
    }

    pub(super) fn set_masking(&self, masking: Masking) {
        self.masks_itself.store(masking == Masking::Service, Ordering::Release);
    }

    /// The connection's credit.
    #[must_use]
    pub fn credit(&self) -> &Credit {
        &self.credit
    }

    /// Puts something in. After the end it is dropped.
    pub(super) fn put(&self, outgoing: Outgoing) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.ended {
            return;
        }
        match &outgoing {
            Outgoing::Presence(_) if waiting.presence >= PRESENCE_QUEUED_MAX => return,
            Outgoing::Presence(_) => waiting.presence += 1,
            Outgoing::End(_) | Outgoing::Fail(_) => waiting.ended = true,
            Outgoing::Deliveries(slice) => self.counters.delivered(slice.end.saturating_sub(slice.first)),
            _ => {}
        }
        let is_last = waiting.ended;
        waiting.queue.push(outgoing);
        drop(waiting);
        self.ready.notify_one();
        if is_last {
            self.ending.notify_one();
        }
    }

    /// Gives credit back for what was acknowledged, or goes to another connection.
    pub(super) fn given_back(&self, deliveries: u32, bytes: u64) {
        self.credit.give_back(deliveries, bytes);
        self.counters.acknowledged(deliveries);
    }

    /// Counts requests that are asked.
    pub(super) fn asked(&self, requests: usize) {
        self.counters.asked(requests);
    }

    /// Counts an error that the peer is told, by its code.
    pub fn told_error(&self, code: &str) {
        self.counters.error(code);
    }

    /// Answers one request that the session itself could answer.
    pub fn answer(&self, id: u64, answered: Answered) {
        self.put(Outgoing::Answers(vec![(id, answered)]));
    }

    /// Ends the connection. `void`: nothing that it asked for and that is not decided yet counts any more.
    pub fn end(&self, reason: EndReason) {
        if matches!(reason, EndReason::Replaced | EndReason::Revoked) {
            self.void.store(true, Ordering::Release);
        }
        self.put(Outgoing::End(reason));
    }

    /// Ends the connection, because what the peer sends can not be read any further.
    pub fn fail(&self, refusal: Refusal) {
        self.put(Outgoing::Fail(refusal));
    }

    pub(super) fn is_void(&self) -> bool {
        self.void.load(Ordering::Acquire)
    }

    /// The connection is gone, or is to go: drops what waits, but for the word on why, and takes nothing more.
    pub fn close(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.ended = true;
        waiting.queue.retain(|outgoing| matches!(outgoing, Outgoing::End(_) | Outgoing::Fail(_)));
        drop(waiting);
        self.ready.notify_one();
        self.room.notify_one();
        self.ending.notify_one();
    }

    /// Moves all that waits to leave into `into`; says whether there was anything. Does not wait.
    pub fn take(&self, into: &mut Vec<Outgoing>) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.presence = 0;
        into.append(&mut waiting.queue);
        !into.is_empty()
    }

    /// Resolves when there may be something to take, or the outlet was closed. Cancel safe.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Whether nothing will ever be put in again.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).ended
    }

    /// Resolves when nothing will ever be put in again. For one task. Cancel safe.
    pub async fn ended(&self) {
        while !self.is_ended() {
            self.ending.notified().await;
        }
    }

    /// Deliveries to who acknowledges nothing (`watch`) have been written: gives their credit back.
    pub fn written(&self, deliveries: u32, bytes: u64) {
        self.credit.give_back(deliveries, bytes);
        self.wake_starved();
    }

    /// Lets the channels that found no room know that there is some.
    pub(super) fn wake_starved(&self) {
        for channel in self.credit.take_starved() {
            // A closed mailbox means that the broker stops.
            let _ = channel.try_send(Pump(self.connection));
        }
    }

    /// The channel found no room: it is woken when there is some, at once if that has come meanwhile.
    pub(super) fn starve(&self, channel: &Addr<ChannelActor>) {
        self.credit.starve(channel);
        if self.credit.has_room() {
            self.wake_starved();
        }
    }

    /// Counts requests that are now in flight.
    pub fn requests_begin(&self, requests: usize) {
        self.in_flight.fetch_add(requests, Ordering::AcqRel);
    }

    /// Counts requests that are answered and written.
    pub fn requests_end(&self, requests: usize) {
        let before = self.in_flight.fetch_sub(requests, Ordering::AcqRel);
        if before >= IN_FLIGHT_MAX && before - requests < IN_FLIGHT_MAX {
            self.room.notify_one();
        }
    }

    /// Requests that are not answered and written yet.
    #[must_use]
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Whether the connection may be read: fewer than [`IN_FLIGHT_MAX`] requests in flight.
    #[must_use]
    pub fn has_request_room(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) < IN_FLIGHT_MAX
    }

    /// Resolves when a request may be read, or the outlet was closed. Cancel safe.
    pub async fn request_room(&self) {
        while !self.has_request_room() && !self.is_ended() {
            self.room.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::Offset;

    proptest! {
        #[test]
        fn a_run_takes_what_one_delivery_after_the_other_would(
            window in 1_u32..40,
            runs in prop::collection::vec(prop::collection::vec(1_u32..3 << 20, 0..30), 1..6),
            given_back in 0_u32..30,
        ) {
            let (whole, single) = (Credit::new(window), Credit::new(window));
            for sizes in runs {
                let items: Vec<Item> = sizes
                    .iter()
                    .map(|bytes| Item { offset: Offset(1), conversation: None, bytes: *bytes, to_all: false })
                    .collect();
                let one_by_one = sizes.iter().take_while(|bytes| single.take(**bytes)).count();
                prop_assert_eq!(whole.take_run(&items), one_by_one);
                let left = |credit: &Credit| (credit.outstanding(), credit.bytes.load(Ordering::SeqCst), credit.has_room());
                prop_assert_eq!(left(&whole), left(&single));
                let back = given_back.min(single.outstanding());
                whole.give_back(back, 1 << 20);
                single.give_back(back, 1 << 20);
            }
        }
    }
}
