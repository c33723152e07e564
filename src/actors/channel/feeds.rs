//! Who gets which durable record: connections come and go, acknowledge, and what their cursors want is offered or read.
//!
//! The cursors themselves are in `cursors`. A backlog is read off the Arbiter, one at a time for each cursor's owner.

use std::sync::Arc;

use super::cursors::{Feed, Reading, Scope, Watcher, put_slices, refresh};
use super::{Attach, ChannelActor, PresenceChanged};
use crate::actors::batch::{Batch, BatchEntry, GapReason};
use crate::actors::clock::now;
use crate::actors::outlet::Outlet;
use crate::actors::port::{Outgoing, PresenceTold};
use crate::actors::reader::READ_BYTES;
use crate::actors::registry::Deliver;
use crate::domain::delivery::ConnectionId;
use crate::domain::ids::{ChannelId, Offset};
use crate::domain::presence::PresenceSeen;
use crate::journal::{Entry, Journal, ReadError, StreamId, payload};

/// A backlog was read.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct FoundBacklog {
    whose: Reading,
    /// None: the disk refused; it is asked again when something else happens.
    batch: Option<Arc<Batch>>,
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
                let progress = self.entry.sight.progress_of(&scope.service);
                self.feeds.push(Feed::new(scope, self.channel.head(), progress));
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
            let entry = match journal.read_one(StreamId::from(channel), offset) {
                Ok(entry) => batch_entry(entry),
                Err(ReadError::NotFound { .. }) => {
                    BatchEntry::Gap { from: offset, to: offset, at: now(), reason: GapReason::Retention }
                }
                Err(_) => return,
            };
            let batch = Arc::new(Batch::new(channel, offset, offset, vec![entry]));
            put_slices(&outlet, &batch, &[0]);
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

    /// How services receive others' replies may have changed; what their connections are told follows by itself.
    pub(super) fn refresh_masking(&mut self) {
        let Self { feeds, watchers, portal, .. } = self;
        let scopes = feeds.iter_mut().map(|feed| &mut feed.scope);
        for scope in scopes.chain(watchers.iter_mut().map(|watcher| &mut watcher.scope)) {
            scope.masking = portal.service(&scope.service).map(|rules| rules.masking).unwrap_or_default();
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
