//! The cursors over a channel's durable records: one [`Feed`] for each service with `share` connections, one [`Watcher`]
//! for each connection that watches.
//!
//! Both read from the same two sources: the recent batches in memory, and the one backlog batch that was last read for
//! them. A cursor that finds no credit stays where it is; one that finds no batch says what is to be read.
//!
//! **Invariant:** a slow connection holds nothing here but its window and at most one backlog batch of its service.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use actix::Addr;

use super::ChannelActor;
use crate::actors::batch::{Batch, BatchEntry, Recent, Slice};
use crate::actors::outlet::Outlet;
use crate::actors::port::Outgoing;
use crate::domain::channel::{Channel, DeliverySpan};
use crate::domain::delivery::{ConnectionId, Item, Placement, Run, ServiceCursor, Windows};
use crate::domain::event::Event;
use crate::domain::ids::{Offset, ServiceId};
use crate::domain::view::{Masking, Viewer, view};

/// Which cursor a backlog is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    /// A service's own.
    Service(ServiceId),
    /// That of a connection of a service that lags.
    Lag(ServiceId, ConnectionId),
    /// That of a connection that watches.
    Watch(ConnectionId),
}

/// The connections of one service.
#[derive(Debug, Default)]
pub(super) struct Members(pub(super) Vec<Arc<Outlet>>);

impl Members {
    pub(super) fn find(&self, id: ConnectionId) -> Option<&Arc<Outlet>> {
        self.0.iter().find(|outlet| outlet.connection() == id)
    }
}

impl Windows for Members {
    fn take(&mut self, connection: ConnectionId, bytes: u32) -> bool {
        self.find(connection).is_some_and(|outlet| outlet.credit().take(bytes))
    }

    fn take_run(&mut self, connection: ConnectionId, items: &[Item]) -> usize {
        self.find(connection).map_or(0, |outlet| outlet.credit().take_run(items))
    }

    fn has_room(&self, connection: ConnectionId) -> bool {
        self.find(connection).is_some_and(|outlet| outlet.credit().has_room())
    }

    fn give_back(&mut self, connection: ConnectionId, deliveries: u32, bytes: u64) {
        if let Some(outlet) = self.find(connection) {
            outlet.given_back(deliveries, bytes);
        }
    }
}

/// What a service is delivered of the channel, and where each cursor may go on.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) service: ServiceId,
    pub(super) masking: Masking,
    pub(super) span: DeliverySpan,
}

/// Where a cursor finds itself in its service's stretches.
enum Place {
    /// Inside: up to here it may go.
    Inside { through: Offset, receipts: bool },
    /// Before the next one, which begins here.
    Before(Offset),
    /// Behind the last one.
    Behind,
}

impl Scope {
    fn place(&self, at: Offset) -> Place {
        for stretch in &self.span.stretches {
            if at <= stretch.after {
                return Place::Before(stretch.after.next());
            }
            let through = stretch.through.unwrap_or(Offset(u64::MAX));
            if at <= through {
                return Place::Inside { through, receipts: stretch.receipts };
            }
        }
        Place::Behind
    }

    /// The entry as an item for a cursor, where the service may see it.
    fn item(&self, entry: &BatchEntry, receipts: bool) -> Option<Item> {
        let to_all = match entry {
            BatchEntry::Record(record) => {
                if matches!(record.event, Event::Receipt(_)) && !receipts {
                    return None;
                }
                match &record.event {
                    Event::Message(_) => false,
                    event => {
                        let viewer = Viewer { service: &self.service, masking: self.masking };
                        view(record, &viewer)?;
                        // The leaver is not told who becomes the parent after him.
                        matches!(event, Event::Merged(_))
                    }
                }
            }
            BatchEntry::Gap { .. } => true,
        };
        let (offset, conversation) = (entry.offset(), entry.conversation());
        Some(Item { offset, conversation, bytes: entry.weight(), to_all })
    }
}

/// Part of a batch that a cursor may be offered: the items, and which entries they are.
#[derive(Debug, Default)]
struct Offer {
    items: Vec<Item>,
    entries: Vec<usize>,
}

impl Offer {
    /// Collects what lies in `batch` from `from` to `through`.
    fn collect(&mut self, scope: &Scope, batch: &Batch, from: Offset, through: Offset, receipts: bool) {
        self.items.clear();
        self.entries.clear();
        for (index, entry) in batch.entries().iter().enumerate().skip(batch.index_of(from)) {
            if entry.offset() > through {
                break;
            }
            if let Some(item) = scope.item(entry, receipts) {
                self.items.push(item);
                self.entries.push(index);
            }
        }
    }
}

/// The deliveries of one service.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) scope: Scope,
    pub(super) cursor: ServiceCursor,
    pub(super) members: Members,
    /// The backlog batch that was last read for one of its cursors.
    pub(super) backlog: Option<Arc<Batch>>,
    /// For which of them a read is under way.
    pub(super) reading: Option<Reading>,
    /// What was last recorded as acknowledged, or found so.
    recorded: Offset,
    /// Whether more may be acknowledged than is recorded.
    pub(super) news: bool,
    /// How far it has got, for all to see.
    pub(super) progress: Arc<AtomicU64>,
}

impl Feed {
    /// Without connections yet, from what is acknowledged; never behind the channel's end.
    pub(super) fn new(scope: Scope, head: Offset, progress: Arc<AtomicU64>) -> Self {
        let recorded = scope.span.acknowledged;
        let cursor = ServiceCursor::new(recorded.min(head));
        let members = Members::default();
        Self { scope, cursor, members, backlog: None, reading: None, recorded, news: false, progress }
    }

    pub(super) fn service(&self) -> &ServiceId {
        &self.scope.service
    }

    /// Whether more is acknowledged than is recorded.
    pub(super) fn has_news(&self) -> bool {
        self.news
    }

    /// What is to be recorded as acknowledged.
    pub(super) fn take_news(&mut self) -> Option<Offset> {
        self.news = false;
        let through = self.cursor.acknowledged();
        if through <= self.recorded {
            return None;
        }
        self.recorded = through;
        Some(through)
    }
}

/// A connection that sees all that its service sees, and acknowledges nothing.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) scope: Scope,
    pub(super) outlet: Arc<Outlet>,
    pub(super) next: Offset,
    /// The backlog batch that was last read for it.
    pub(super) backlog: Option<Arc<Batch>>,
    /// Whether a read is under way.
    pub(super) reading: bool,
}

/// What a cursor needs of the channel's actor, beside itself.
pub(super) struct Sources<'a> {
    me: &'a Addr<ChannelActor>,
    recent: &'a Recent,
    durable: Offset,
    offer: &'a mut Offer,
    runs: &'a mut Vec<Run>,
}

impl Sources<'_> {
    /// The batch that covers `at`, in memory or as the backlog that was read.
    fn batch<'a>(&'a self, backlog: Option<&'a Arc<Batch>>, at: Offset) -> Option<Arc<Batch>> {
        if at >= self.recent.from() {
            return self.recent.covering(at).cloned();
        }
        backlog.filter(|batch| batch.from() <= at && at <= batch.through()).cloned()
    }
}

impl Feed {
    /// Offers what is durable, as far as there is room; says what is to be read.
    pub(super) fn pump(&mut self, sources: &mut Sources<'_>) -> Option<(Reading, Offset)> {
        let main = self.pump_main(sources);
        let lag = self.pump_lags(sources);
        let wanted = main.or(lag)?;
        if self.reading.is_some() {
            return None;
        }
        self.reading = Some(wanted.0.clone());
        Some(wanted)
    }

    fn pump_main(&mut self, sources: &mut Sources<'_>) -> Option<(Reading, Offset)> {
        if self.members.0.is_empty() {
            return None;
        }
        loop {
            let at = self.cursor.next();
            if at > sources.durable {
                return None;
            }
            let (through, receipts) = match self.scope.place(at) {
                Place::Inside { through, receipts } => (through, receipts),
                Place::Before(start) => {
                    self.cursor.pass_to(start.before());
                    continue;
                }
                Place::Behind => return None,
            };
            let Some(batch) = sources.batch(self.backlog.as_ref(), at) else {
                return Some((Reading::Service(self.scope.service.clone()), at));
            };
            sources.offer.collect(&self.scope, &batch, at, through, receipts);
            sources.runs.clear();
            let placed = self.cursor.offer_run(&sources.offer.items, &mut self.members, sources.runs);
            self.deliver(&batch, sources);
            if placed < sources.offer.items.len() {
                for outlet in self.members.0.iter().filter(|outlet| !outlet.credit().has_room()) {
                    outlet.starve(sources.me);
                }
                return None;
            }
            self.cursor.pass_to(batch.through().min(through));
        }
    }

    /// Puts the runs that were placed into the outlets.
    fn deliver(&self, batch: &Arc<Batch>, sources: &Sources<'_>) {
        let mut at = 0;
        for run in sources.runs.iter() {
            let entries = sources.offer.entries.get(at..at + run.items).unwrap_or_default();
            at += run.items;
            match run.placement {
                Placement::To(id) => {
                    if let Some(outlet) = self.members.find(id) {
                        put_slices(outlet, batch, entries);
                    }
                }
                Placement::ToAll => {
                    for outlet in &self.members.0 {
                        put_slices(outlet, batch, entries);
                    }
                }
                Placement::Held | Placement::Full => {}
            }
        }
    }

    fn pump_lags(&mut self, sources: &mut Sources<'_>) -> Option<(Reading, Offset)> {
        let lags: Vec<_> = self.cursor.lags(&self.members).collect();
        let mut wanted = None;
        for (id, _) in lags {
            let found = self.pump_lag(id, sources);
            wanted = wanted.or(found);
        }
        wanted
    }

    fn pump_lag(&mut self, id: ConnectionId, sources: &mut Sources<'_>) -> Option<(Reading, Offset)> {
        while let Some(at) = self.cursor.lag(id) {
            let end = self.cursor.next().before();
            if at > end {
                self.cursor.lag_pass_to(id, at);
                return None;
            }
            let (through, receipts) = match self.scope.place(at) {
                Place::Inside { through, receipts } => (through.min(end), receipts),
                Place::Before(start) => {
                    self.cursor.lag_pass_to(id, start.before());
                    continue;
                }
                Place::Behind => {
                    self.cursor.lag_pass_to(id, end);
                    continue;
                }
            };
            let Some(batch) = sources.batch(self.backlog.as_ref(), at) else {
                return Some((Reading::Lag(self.scope.service.clone(), id), at));
            };
            sources.offer.collect(&self.scope, &batch, at, through, receipts);
            let outlet = self.members.find(id).cloned();
            for (item, entry) in sources.offer.items.iter().zip(&sources.offer.entries) {
                match self.cursor.offer_lagging(id, item, &mut self.members) {
                    Placement::To(_) => {
                        if let Some(outlet) = &outlet {
                            put_slices(outlet, &batch, std::slice::from_ref(entry));
                        }
                    }
                    Placement::Full => {
                        if let Some(outlet) = &outlet {
                            outlet.starve(sources.me);
                        }
                        return None;
                    }
                    Placement::Held | Placement::ToAll => {}
                }
            }
            self.cursor.lag_pass_to(id, batch.through().min(through));
        }
        None
    }
}

impl Watcher {
    pub(super) fn pump(&mut self, sources: &mut Sources<'_>) -> Option<(Reading, Offset)> {
        loop {
            if self.next > sources.durable {
                return None;
            }
            let (through, receipts) = match self.scope.place(self.next) {
                Place::Inside { through, receipts } => (through, receipts),
                Place::Before(start) => {
                    self.next = start;
                    continue;
                }
                Place::Behind => return None,
            };
            let Some(batch) = sources.batch(self.backlog.as_ref(), self.next) else {
                if self.reading {
                    return None;
                }
                self.reading = true;
                return Some((Reading::Watch(self.outlet.connection()), self.next));
            };
            sources.offer.collect(&self.scope, &batch, self.next, through, receipts);
            let taken =
                sources.offer.items.iter().take_while(|item| self.outlet.credit().take(item.bytes)).count();
            put_slices(&self.outlet, &batch, sources.offer.entries.get(..taken).unwrap_or_default());
            if let Some(full) = sources.offer.items.get(taken) {
                self.next = full.offset;
                self.outlet.starve(sources.me);
                return None;
            }
            self.next = batch.through().min(through).next();
        }
    }
}

/// Puts entries of a batch into an outlet, those that stand side by side as one slice.
pub(super) fn put_slices(outlet: &Outlet, batch: &Arc<Batch>, entries: &[usize]) {
    for run in entries.chunk_by(|one, other| one + 1 == *other) {
        if let (Some(first), Some(last)) = (run.first(), run.last()) {
            outlet.put(Outgoing::Deliveries(Slice {
                batch: Arc::clone(batch),
                first: *first,
                end: last + 1,
            }));
        }
    }
}

/// Takes over what a service is delivered now; begins again where it lies further back than the cursor.
pub(super) fn refresh(channel: &Channel, scope: &mut Scope, cursor: &mut ServiceCursor) {
    let span = channel.delivery_span(&scope.service);
    if span == scope.span {
        return;
    }
    let known =
        scope.span.stretches.iter().any(|old| span.stretches.iter().any(|new| new.after == old.after));
    if let Some(first) = span.stretches.first()
        && !known
        && first.after.next() < cursor.next()
    {
        cursor.restart_at(first.after.next().max(span.acknowledged.next()));
    }
    scope.span = span;
}

/// Lists that every pump reuses.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    offer: Offer,
    runs: Vec<Run>,
}

impl Scratch {
    pub(super) fn over<'a>(
        &'a mut self,
        me: &'a Addr<ChannelActor>,
        recent: &'a Recent,
        durable: Offset,
    ) -> Sources<'a> {
        Sources { me, recent, durable, offer: &mut self.offer, runs: &mut self.runs }
    }
}
