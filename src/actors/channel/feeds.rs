//! Who gets which durable record: one [`Feed`] for each service with `share` connections, one [`Watcher`] for each
//! connection that watches.
//!
//! Both are cursors over the same two sources: the recent batches in memory, and backlogs read from the journal off
//! the Arbiter, one at a time for each cursor. A cursor that finds no credit stays where it is.
//!
//! **Invariant:** a slow connection holds nothing here but its window and at most one backlog batch of its service.

use std::sync::Arc;

use actix::Addr;

use super::{Attach, ChannelActor, PresenceChanged};
use crate::actors::batch::{Batch, BatchEntry, GapReason, Recent, Slice};
use crate::actors::clock::now;
use crate::actors::outlet::Outlet;
use crate::actors::port::{Outgoing, PresenceTold};
use crate::actors::reader::READ_BYTES;
use crate::actors::registry::Deliver;
use crate::domain::channel::{Channel, DeliverySpan};
use crate::domain::delivery::{ConnectionId, Item, Placement, Run, ServiceCursor, Windows};
use crate::domain::event::Event;
use crate::domain::ids::{ChannelId, Offset, ServiceId};
use crate::domain::presence::PresenceSeen;
use crate::domain::view::{Masking, Viewer, view};
use crate::journal::{Entry, Journal, StreamId, payload};

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

/// A backlog was read.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct FoundBacklog {
    whose: Reading,
    /// None: the disk refused; it is asked again when something else happens.
    batch: Option<Arc<Batch>>,
}

/// The connections of one service.
#[derive(Debug, Default)]
struct Members(Vec<Arc<Outlet>>);

impl Members {
    fn find(&self, id: ConnectionId) -> Option<&Arc<Outlet>> {
        self.0.iter().find(|outlet| outlet.connection() == id)
    }
}

impl Windows for Members {
    fn take(&mut self, connection: ConnectionId, bytes: u32) -> bool {
        self.find(connection).is_some_and(|outlet| outlet.credit().take(bytes))
    }

    fn has_room(&self, connection: ConnectionId) -> bool {
        self.find(connection).is_some_and(|outlet| outlet.credit().has_room())
    }

    fn give_back(&mut self, connection: ConnectionId, deliveries: u32, bytes: u64) {
        if let Some(outlet) = self.find(connection) {
            outlet.credit().give_back(deliveries, bytes);
        }
    }
}

/// What a service is delivered of the channel, and where each cursor may go on.
#[derive(Debug)]
struct Scope {
    service: ServiceId,
    masking: Masking,
    span: DeliverySpan,
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
    scope: Scope,
    cursor: ServiceCursor,
    members: Members,
    backlog: Option<Arc<Batch>>,
    reading: Option<Reading>,
    /// What was last recorded as acknowledged, or found so.
    recorded: Offset,
    news: bool,
}

impl Feed {
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
    scope: Scope,
    outlet: Arc<Outlet>,
    next: Offset,
    backlog: Option<Arc<Batch>>,
    reading: bool,
}

/// What a cursor needs of the channel's actor, beside itself.
struct Sources<'a> {
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
    fn pump(&mut self, sources: &mut Sources<'_>) -> Option<(Reading, Offset)> {
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
    fn pump(&mut self, sources: &mut Sources<'_>) -> Option<(Reading, Offset)> {
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
fn put_slices(outlet: &Outlet, batch: &Arc<Batch>, entries: &[usize]) {
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

impl ChannelActor {
    fn scope(&self, outlet: &Outlet) -> Option<Scope> {
        let service = outlet.service()?.clone();
        let span = self.channel.delivery_span(&service);
        Some(Scope { service, masking: outlet.masking(), span })
    }

    pub(super) fn attach(&mut self, attach: Attach) {
        let Attach { outlet, deliver } = attach;
        let Some(scope) = self.scope(&outlet) else { return };
        let id = outlet.connection();
        match deliver {
            Deliver::None => {}
            Deliver::Watch(from) => {
                if self.watchers.iter().any(|watcher| watcher.outlet.connection() == id) {
                    return;
                }
                let next = from.get(&self.channel.id()).copied().unwrap_or(self.durable.next());
                self.watchers.push(Watcher { scope, outlet, next, backlog: None, reading: false });
            }
            Deliver::Share => self.attach_share(scope, outlet),
        }
        self.pump_all();
    }

    fn attach_share(&mut self, scope: Scope, outlet: Arc<Outlet>) {
        let id = outlet.connection();
        let at = match self.feeds.iter().position(|feed| feed.scope.service == scope.service) {
            Some(at) => at,
            None => {
                let recorded = scope.span.acknowledged;
                let cursor = ServiceCursor::new(recorded.min(self.channel.head()));
                let members = Members::default();
                self.feeds.push(Feed {
                    scope,
                    cursor,
                    members,
                    backlog: None,
                    reading: None,
                    recorded,
                    news: false,
                });
                self.feeds.len() - 1
            }
        };
        let Some(feed) = self.feeds.get_mut(at) else { return };
        if feed.members.find(id).is_some() {
            return;
        }
        feed.members.0.push(Arc::clone(&outlet));
        let again = feed.cursor.connect(id);
        for offset in again {
            self.deliver_again(&outlet, offset);
        }
    }

    /// A broadcast that nobody has acknowledged comes again on a new connection.
    fn deliver_again(&self, outlet: &Arc<Outlet>, offset: Offset) {
        if let Some(batch) = self.recent.covering(offset) {
            put_slices(outlet, batch, &[batch.index_of(offset)]);
            return;
        }
        let (channel, outlet) = (self.channel.id(), Arc::clone(outlet));
        self.shared.readers.read(move |journal| {
            if let Ok(entry) = journal.read_one(StreamId::from(channel), offset) {
                let batch = Arc::new(Batch::new(channel, offset, offset, vec![batch_entry(entry)]));
                put_slices(&outlet, &batch, &[0]);
            }
        });
    }

    pub(super) fn detach(&mut self, id: ConnectionId) {
        self.watchers.retain(|watcher| watcher.outlet.connection() != id);
        let feeds = self.feeds.iter_mut();
        let Some(feed) = feeds.into_iter().find(|feed| feed.members.find(id).is_some()) else { return };
        feed.cursor.disconnect(id, &mut feed.members);
        feed.members.0.retain(|outlet| outlet.connection() != id);
        feed.news = true;
        if feed.members.0.is_empty() {
            self.record_acks();
            self.feeds.retain(|feed| !feed.members.0.is_empty());
        } else {
            self.pump_all();
        }
    }

    pub(super) fn ack(&mut self, outlet: &Arc<Outlet>, offset: Offset) {
        let id = outlet.connection();
        let Some(at) = self.feeds.iter().position(|feed| feed.members.find(id).is_some()) else { return };
        if let Some(feed) = self.feeds.get_mut(at)
            && feed.cursor.ack(id, offset, &mut feed.members)
        {
            feed.news = true;
            self.pump_feed(at);
            outlet.wake_starved();
        }
    }

    /// Offers what is durable to every cursor.
    pub(super) fn pump_all(&mut self) {
        for at in 0..self.feeds.len() {
            self.pump_feed(at);
        }
        for at in 0..self.watchers.len() {
            self.pump_watcher(at);
        }
    }

    pub(super) fn pump_connection(&mut self, id: ConnectionId) {
        if let Some(at) = self.feeds.iter().position(|feed| feed.members.find(id).is_some()) {
            self.pump_feed(at);
        }
        if let Some(at) = self.watchers.iter().position(|watcher| watcher.outlet.connection() == id) {
            self.pump_watcher(at);
        }
    }

    fn pump_feed(&mut self, at: usize) {
        let Self { me, feeds, recent, durable, scratch, .. } = self;
        let mut sources = scratch.over(me, recent, *durable);
        let wanted = feeds.get_mut(at).and_then(|feed| feed.pump(&mut sources));
        self.read_backlog(wanted);
    }

    fn pump_watcher(&mut self, at: usize) {
        let Self { me, watchers, recent, durable, scratch, .. } = self;
        let mut sources = scratch.over(me, recent, *durable);
        let wanted = watchers.get_mut(at).and_then(|watcher| watcher.pump(&mut sources));
        self.read_backlog(wanted);
    }

    fn read_backlog(&self, wanted: Option<(Reading, Offset)>) {
        let Some((whose, from)) = wanted else { return };
        let (channel, durable, me) = (self.channel.id(), self.durable, self.me.clone());
        self.shared.readers.read(move |journal| {
            let batch = read_batch(journal, channel, from, durable);
            let _ = me.try_send(FoundBacklog { whose, batch });
        });
    }

    pub(super) fn take_backlog(&mut self, found: FoundBacklog) {
        let FoundBacklog { whose, batch } = found;
        match &whose {
            Reading::Service(service) | Reading::Lag(service, _) => {
                let Some(at) = self.feeds.iter().position(|feed| feed.scope.service == *service) else {
                    return;
                };
                let Some(feed) = self.feeds.get_mut(at) else { return };
                if feed.reading.as_ref() != Some(&whose) {
                    return;
                }
                feed.reading = None;
                let Some(batch) = batch else { return };
                feed.backlog = Some(batch);
                self.pump_feed(at);
            }
            Reading::Watch(id) => {
                let Some(at) = self.watchers.iter().position(|watcher| watcher.outlet.connection() == *id)
                else {
                    return;
                };
                let Some(watcher) = self.watchers.get_mut(at) else { return };
                watcher.reading = false;
                let Some(batch) = batch else { return };
                watcher.backlog = Some(batch);
                self.pump_watcher(at);
            }
        }
    }

    /// Somebody joined or left: what each service is delivered may have changed.
    pub(super) fn refresh_spans(&mut self) {
        for feed in &mut self.feeds {
            refresh(&self.channel, &mut feed.scope, &mut feed.cursor);
        }
        for watcher in &mut self.watchers {
            watcher.scope.span = self.channel.delivery_span(&watcher.scope.service);
        }
    }

    /// Tells every connection what an agent does, as far as its service may know.
    pub(super) fn tell_presence(&mut self, changed: &PresenceChanged) {
        let at = now();
        let outlets = self.feeds.iter().flat_map(|feed| feed.members.0.iter());
        let outlets = outlets.chain(self.watchers.iter().map(|watcher| &watcher.outlet));
        for outlet in outlets {
            let Some(service) = outlet.service().filter(|service| self.channel.is_subscribed(service)) else {
                continue;
            };
            for change in &changed.changes {
                if let Some(PresenceSeen { doing, own }) = change.seen_by(service) {
                    let agent = own.map(|own| (own.agent.clone(), own.name.cloned()));
                    outlet.put(Outgoing::Presence(PresenceTold {
                        channel: self.channel.id(),
                        conversation: changed.conversation,
                        doing,
                        agent,
                        at,
                    }));
                }
            }
        }
    }
}

/// Takes over what a service is delivered now; begins again where it lies further back than the cursor.
fn refresh(channel: &Channel, scope: &mut Scope, cursor: &mut ServiceCursor) {
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

/// Reads a backlog and makes it a batch, damage as gaps.
fn read_batch(
    journal: &dyn Journal,
    channel: ChannelId,
    from: Offset,
    durable: Offset,
) -> Option<Arc<Batch>> {
    let found = match journal.read(StreamId::from(channel), from, READ_BYTES) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%channel, %error, "a backlog could not be read");
            return None;
        }
    };
    let mut entries = Vec::with_capacity(found.entries.len() + 1);
    if found.first > from {
        entries.push(BatchEntry::Gap {
            from,
            to: found.first.before(),
            at: now(),
            reason: GapReason::Retention,
        });
    }
    entries.extend(found.entries.into_iter().map(batch_entry));
    // Nothing there up to the end: those offsets were never given out.
    let through = if found.next > from { found.next.before() } else { durable };
    Some(Arc::new(Batch::new(channel, from, through, entries)))
}

fn batch_entry(entry: Entry) -> BatchEntry {
    match entry {
        Entry::Record(raw) => match payload::decode_record(&raw) {
            Ok(record) => BatchEntry::Record(record),
            Err(_) => {
                BatchEntry::Gap { from: raw.offset, to: raw.offset, at: now(), reason: GapReason::Corrupt }
            }
        },
        Entry::Corrupt(damage) => {
            BatchEntry::Gap { from: damage.from, to: damage.to, at: now(), reason: GapReason::Corrupt }
        }
    }
}

/// Lists that every pump reuses.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    offer: Offer,
    runs: Vec<Run>,
}

impl Scratch {
    fn over<'a>(
        &'a mut self,
        me: &'a Addr<ChannelActor>,
        recent: &'a Recent,
        durable: Offset,
    ) -> Sources<'a> {
        Sources { me, recent, durable, offer: &mut self.offer, runs: &mut self.runs }
    }
}
