//! Keeps the journal small for years: the one thread that writes bases and lets history go when its time has come.
//!
//! ```text
//!  journal.due ─▶ rotate ─▶ base: each stream's saved state + its records since, folded here ─▶ retire ─▶ sweep
//!                                                                                                │
//!                                                         every channel's actor ◀── Trimmed ─────┘
//! ```
//!
//! The states are folded anew from the base before and the records behind it, never taken from the actors: no Arbiter
//! waits for a base, and what a start will read is what was checked by reading it.
//!
//! Message ids of a day that are many are laid aside with the base: written to a run, which the base names; the
//! channel's actor is told once that base is installed, and gives their memory back. So is what is known of replies, once
//! its period is over. Where all of it together takes more than `dedup_bytes_max`, a base is written for that alone, and
//! smaller lots and the period of today go, too; what is still too much after it is forgotten before its time, the oldest
//! first, counted and logged.
//!
//! **Invariants:** a stream that can not be folded is set aside and keeps nobody else's history from going; an error of
//! the disk is logged and tried again, since nothing of what is acknowledged depends on this thread.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::channel::replay::{Quarantine, replay_with};
use super::channel::{DropIds, LaidAside, Trimmed};
use super::clock::now;
use super::observed::ids_bytes;
use super::portal::fold_portal;
use super::shared::Shared;
use crate::domain::aside::{self, Movable, Shelf};
use crate::domain::channel::{Channel, Rests};
use crate::domain::content::Content;
use crate::domain::event::{ClearTo, Customer, Event, Message, Record};
use crate::domain::fingerprint::Key;
use crate::domain::ids::{ChannelId, ConversationId, MessageId, Offset, Timestamp};
use crate::domain::portal::{Portal, PortalRules};
use crate::domain::senders::Senders;
use crate::journal::payload::{self, kind};
use crate::journal::state::{self, Place};
use crate::journal::{BaseWriter, Entry, Kept, RawRecord, Retention, RunOf, StreamId};

/// How often the journal is looked at: the eighth part of what is kept, within these bounds. The upper one keeps well
/// within the ten seconds that history may outstay twice its time, and follows a log that grows by a segment a second.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Ids of a period that are laid aside with a base, in a run of their own: 1 MiB of memory, and 400 KiB of every base.
/// No fewer, or there would be too many files …
const RUN_IDS_MIN: usize = 16_384;
/// … but so few where all ids together take too much memory.
const PRESSED_RUN_IDS_MIN: usize = 1_024;
/// Where ids are forgotten before their time, this part of the limit more goes than must, so that it is not done again
/// at each look.
const DROP_SHARE: u64 = 16;

/// What ends the thread's sleep.
enum Wake {
    /// It is to look now, and to say when it has.
    Look(mpsc::Sender<()>),
    Stop,
}

/// The thread.
#[derive(Debug)]
pub(super) struct Keeper {
    stopping: Arc<AtomicBool>,
    wake: mpsc::Sender<Wake>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Keeper {
    /// Starts it.
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let (wake, woken) = mpsc::channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let mut work = Keeping {
            shared: Arc::clone(shared),
            stopping: Arc::clone(&stopping),
            based_at: now(),
            keeps_passing: true,
            relieved: false,
            waits: Arc::default(),
        };
        let thread = thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            loop {
                let Retention { keep_ms, .. } = work.shared.settings().limits.retention;
                let every = Duration::from_millis(keep_ms / 8).clamp(LOOK_EVERY.0, LOOK_EVERY.1);
                let asked = match woken.recv_timeout(every) {
                    Ok(Wake::Look(done)) => Some(done),
                    Err(RecvTimeoutError::Timeout) => None,
                    Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                };
                if let Err(error) = work.look()
                    && !work.is_stopping()
                {
                    tracing::warn!(%error, "history can not be let go now; it is tried again");
                }
                if let Some(done) = asked {
                    // Who asked may have gone.
                    let _ = done.send(());
                }
            }
        })?;
        Ok(Self { stopping, wake, thread: Mutex::new(Some(thread)) })
    }

    /// Looks at once, whatever the time. Blocks until it has.
    pub(super) fn look(&self) {
        let (done, looked) = mpsc::channel();
        if self.wake.send(Wake::Look(done)).is_ok() {
            // It fails when the thread has ended meanwhile.
            let _ = looked.recv();
        }
    }

    /// Ends it; a base that it is at is given up. Blocks.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // It fails when the thread has ended already.
        let _ = self.wake.send(Wake::Stop);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic there has been reported by the panic hook; nothing acknowledged depends on it.
            let _ = thread.join();
        }
    }
}

struct Keeping {
    shared: Arc<Shared>,
    stopping: Arc<AtomicBool>,
    /// When the last base was written; of one from before this start nobody knows.
    based_at: Timestamp,
    /// Whether that base keeps what must go in time: a whole reply with its outcome, a note of whose a thread is when it
    /// lapses.
    keeps_passing: bool,
    /// Whether a base was written because ids take too much memory, and they were not fewer since.
    relieved: bool,
    /// Channels' actors hold it, too, while they were told of ids and have not come to it.
    waits: Arc<()>,
}

impl Keeping {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn look(&mut self) -> io::Result<()> {
        let retention = self.shared.settings().limits.retention;
        let journal = Arc::clone(&self.shared.journal);
        if journal.halted().is_some() {
            return Ok(());
        }
        let due = journal.due(now(), &retention);
        let is_stale = self.keeps_passing && now().since_ms(self.based_at) > retention.keep_ms;
        if due.rotate {
            journal.rotate();
        }
        // Else what the actors were told has not freed its memory yet. Looked at before that is counted.
        let is_settled = Arc::strong_count(&self.waits) == 1;
        fence(Ordering::Acquire);
        let held = ids_bytes(&self.shared);
        let most = self.shared.settings().limits.dedup_bytes_max;
        let is_pressed = held > most && is_settled;
        if is_pressed && self.relieved {
            self.drop_ids(held, most);
        }
        let relieves = is_pressed && !self.relieved;
        self.relieved = relieves || (self.relieved && !is_settled);
        if due.base || is_stale || relieves {
            let written = self.write_base(is_pressed);
            // One that can not be written frees nothing; that passes, so twice as much is borne before ids go.
            if relieves {
                self.relieved = written.is_ok() || held > 2 * most;
            }
            written?;
        }
        if let Some(through) = due.retire {
            journal.retire(through);
        }
        journal.sweep()?;
        self.tell_trimmed();
        Ok(())
    }

    /// Tells the channels of which the first records are gone.
    fn tell_trimmed(&self) {
        for entry in &self.shared.registry.channels {
            let first = self.shared.journal.first(StreamId::from(entry.id));
            if entry.sight.trimmed_to(first)
                && let Some(addr) = &entry.addr
            {
                let _ = addr.try_send(Trimmed(first));
            }
        }
    }

    /// Ids take too much memory, and nothing is left of them that may be laid aside: each channel and each number gives
    /// its share of the oldest, but for those that have less than half of what they have on average.
    fn drop_ids(&self, held: u64, most: u64) {
        let excess = (held - most).saturating_add(most / DROP_SHARE);
        let registry = &self.shared.registry;
        let holders = (registry.channels.len() + registry.numbers.len()) as u64;
        let share = |bytes: u64| {
            if bytes.saturating_mul(2 * holders) < held {
                return 0;
            }
            let share = u128::from(excess) * u128::from(bytes) / u128::from(held.max(1));
            usize::try_from(share).unwrap_or(usize::MAX)
        };
        tracing::warn!(
            bytes = held,
            limit = most,
            "ids take too much memory: the oldest are forgotten before their time"
        );
        for entry in &registry.channels {
            let bytes = share(entry.sight.levels.ids_bytes.load(Ordering::Relaxed));
            if let Some(addr) = entry.addr.as_ref().filter(|_| bytes > 0) {
                let _ = addr.try_send(DropIds { bytes, waits: Arc::clone(&self.waits) });
            }
        }
        for number in &registry.numbers {
            let mut senders = number.senders.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = share(senders.bytes() as u64);
            if bytes > 0 {
                self.shared.counters.dropped_ids(senders.drop_oldest(bytes));
            }
        }
    }

    /// Writes a base, and lays ids aside where a period of a channel has many.
    fn write_base(&mut self, is_pressed: bool) -> io::Result<()> {
        let started = now();
        let (shared, stopping) = (&self.shared, &*self.stopping);
        let settings = shared.settings();
        let mut saving = Saving { shared, stopping, is_pressed, laid: Vec::new(), keeps_passing: false };
        shared.journal.write_base(&mut |base| {
            // It is called again where the first try found no room.
            (saving.laid, saving.keeps_passing) = (Vec::new(), false);
            for portal in settings.portals.values() {
                saving.portal(&portal.rules, base)?;
            }
            // Streams of portals that stand in the configuration no longer.
            for (stream, _) in shared.journal.streams() {
                if !base.has(stream) {
                    base.carry_over(stream)?;
                }
            }
            Ok(())
        })?;
        let Saving { laid, keeps_passing, .. } = saving;
        for (channel, laid) in laid {
            // Only now: a run that no installed base names may be gone at the next start.
            if let Some(addr) = shared.registry.channels.get(&channel).and_then(|entry| entry.addr.clone()) {
                let _ = addr.try_send(LaidAside { laid, waits: Arc::clone(&self.waits) });
            }
        }
        self.based_at = started;
        self.keeps_passing = keeps_passing;
        tracing::debug!(ms = now().since_ms(started), "a base is written");
        Ok(())
    }
}

/// A base that is being written.
struct Saving<'a> {
    shared: &'a Arc<Shared>,
    stopping: &'a AtomicBool,
    /// Whether ids take too much memory.
    is_pressed: bool,
    /// What was laid aside, for the channels' actors.
    laid: Vec<(ChannelId, Vec<(Shelf, aside::LaidAside)>)>,
    /// Whether something is kept for a channel that must go in time.
    keeps_passing: bool,
}

impl Saving<'_> {
    /// Saves a portal and its channels.
    fn portal(&mut self, rules: &PortalRules, base: &mut BaseWriter<'_>) -> io::Result<()> {
        let stream = StreamId::of_portal(&rules.portal);
        let mut portal = Portal::new(rules.clone());
        let (ever, as_of) = match fold_portal(self.shared, &mut portal) {
            Ok(folded) => folded,
            // At the next start it is refused with the place of the damage.
            Err(error) => return Err(io::Error::other(error)),
        };
        for (channel, place) in &ever {
            self.channel(*channel, place, base)?;
        }
        base.section(stream, as_of, &state::save_portal(&portal, &ever), &Kept::default())
    }

    /// Saves a channel.
    fn channel(&mut self, id: ChannelId, place: &Place, base: &mut BaseWriter<'_>) -> io::Result<()> {
        let (shared, stopping) = (self.shared, self.stopping);
        let stream = StreamId::from(id);
        let Some(number) = shared.registry.numbers.get(&place.0).map(|found| Arc::clone(found.value()))
        else {
            return Ok(());
        };
        let new = Channel::new(id, place.0.clone(), place.1.clone(), shared.keys, number.send_ttl_ms());
        let senders = Senders::new(Key::new(shared.keys.fingerprint), id);
        let mut customers = Customers::default();
        let folded = replay_with(&*shared.journal, new, senders, &mut |channel, raw, record| {
            customers.applied(channel, raw, record);
            !stopping.load(Ordering::Acquire)
        });
        let (mut channel, mut senders) = match folded {
            Ok(folded) => folded,
            Err(Quarantine::Read(error)) => return Err(io::Error::other(error)),
            Err(Quarantine::Run(error)) => return Err(io::Error::other(error)),
            Err(Quarantine::Stopped) => return Err(io::ErrorKind::Interrupted.into()),
            Err(error) => {
                tracing::error!(channel = %id, error = &error as &dyn std::error::Error, "a channel is set aside");
                shared.journal.set_aside(stream)?;
                base.quarantine(stream);
                return Ok(());
            }
        };
        // In no record, as for the channel's actor: what is too old is not looked at anyway, a run of it can go,
        // and so can a note of whose a thread is.
        let now = now();
        channel.forget(now);
        senders.forget(now);
        self.lay_aside(&mut channel, &mut senders, now, base)?;
        let (kept, keeps_replies) = rests(shared, &channel, customers, base)?;
        self.keeps_passing |= keeps_replies || channel.threads_len() > 0;
        base.section(stream, channel.head(), &state::save_channel(&channel, &senders), &kept)?;
        let runs = Shelf::ALL.into_iter().flat_map(|shelf| channel.aside(shelf).iter());
        runs.for_each(|laid| base.names_run(stream, laid.run));
        Ok(())
    }

    /// Writes ids into runs, for a state that names them in their stead.
    fn lay_aside(
        &mut self,
        channel: &mut Channel,
        senders: &mut Senders,
        now: Timestamp,
        base: &mut BaseWriter<'_>,
    ) -> io::Result<()> {
        let mut all = Vec::new();
        let ids_min = if self.is_pressed { PRESSED_RUN_IDS_MIN } else { RUN_IDS_MIN };
        // Replies are looked for without their time, in every run: only whole periods go, while there is room for others.
        let whole = (!self.is_pressed).then_some(now);
        for shelf in Shelf::ALL {
            let periods = match shelf {
                Shelf::Sent => senders.movable_periods(ids_min, whole),
                _ => channel.movable_periods(shelf, ids_min, whole),
            };
            for period in periods {
                let movable = match shelf {
                    Shelf::Sent => senders.movable(period),
                    _ => channel.movable(shelf, period),
                };
                let movable = movable.filter(|_| base.has_room_for_runs());
                let Some(Movable { about, rows }) = movable else { break };
                let stream = StreamId::from(channel.id());
                let (run, filter) =
                    base.run(&RunOf { stream, from: about.from, to: about.to, rows: &rows })?;
                // All that was folded: what came since is in memory of the channel's actor alone.
                let last = channel.head();
                let laid = aside::LaidAside { run, last, filter: Some(filter), ..about };
                if shelf == Shelf::Sent {
                    senders.lay_aside(laid.clone());
                }
                channel.lay_aside(shelf, laid.clone());
                all.push((shelf, laid));
            }
        }
        if !all.is_empty() {
            self.laid.push((channel.id(), all));
        }
        Ok(())
    }
}

/// The last record of each conversation that names its customer, as the fold comes by.
#[derive(Default)]
struct Customers(HashMap<ConversationId, (Meta, Customer)>);

/// A record without what it says.
#[derive(Clone, Copy)]
struct Meta {
    offset: Offset,
    previous: Offset,
    at: Timestamp,
}

impl Customers {
    fn applied(&mut self, channel: &Channel, raw: &RawRecord, record: &Record) {
        let customer = match &record.event {
            Event::Message(message) => &message.customer,
            Event::Reply(reply) => &reply.to,
            _ => return,
        };
        let Some(conversation) = record.conversation else { return };
        if channel.customer_at(conversation) == record.offset {
            let meta = Meta { offset: raw.offset, previous: raw.previous, at: raw.at };
            self.0.insert(conversation, (meta, customer.clone()));
        }
    }

    /// The records, with nothing in them but the customers' ids.
    fn without_history(self) -> impl Iterator<Item = RawRecord> {
        self.0
            .into_iter()
            .map(|(conversation, (meta, customer))| without_history(conversation, meta, customer))
    }
}

/// The record with nothing in it but the customer's ids.
fn without_history(conversation: ConversationId, meta: Meta, customer: Customer) -> RawRecord {
    let event = Event::from(Message {
        message_id: MessageId::trusted(""),
        customer: Customer { name: None, ..customer },
        formerly: Vec::new(),
        sent_at: Timestamp::default(),
        content: Content::checked(bytes::Bytes::new(), 0..0, &[]),
        refers_to: None,
        clear_to: ClearTo::Everyone,
        contact: None,
    });
    let mut bytes = Vec::new();
    payload::encode(&event, &mut bytes);
    RawRecord {
        offset: meta.offset,
        conversation: Some(conversation),
        previous: meta.previous,
        at: meta.at,
        kind: kind::MESSAGE,
        payload: bytes.into(),
    }
}

/// The records that a channel's state rests on; and whether whole replies are among them.
fn rests(
    shared: &Shared,
    channel: &Channel,
    customers: Customers,
    base: &BaseWriter<'_>,
) -> io::Result<(Kept, bool)> {
    let stream = StreamId::from(channel.id());
    let mut whole = BTreeSet::new();
    let mut wanted = BTreeSet::new();
    for rests in channel.rests() {
        match rests {
            Rests::OnCustomer(offset) => drop(wanted.insert(offset)),
            Rests::OnReply(offset) => drop(whole.insert(offset)),
        }
    }
    let mut records = BTreeMap::new();
    base.kept_before(stream, &mut |record| {
        if wanted.contains(&record.offset) || whole.contains(&record.offset) {
            records.insert(record.offset, record);
        }
    })?;
    let named = customers.without_history().filter(|record| wanted.contains(&record.offset));
    records.extend(named.map(|record| (record.offset, record)));
    for offset in &whole {
        // One that the base before kept whole is there; what the fold came by is not whole.
        match shared.journal.read_one(stream, *offset) {
            Ok(Entry::Record(record)) => drop(records.insert(*offset, record)),
            Ok(Entry::Corrupt(_)) => {}
            Err(_) if records.contains_key(offset) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    let mut kept = Kept::default();
    for record in records.values() {
        kept.push(record, &record.payload);
    }
    Ok((kept, !whole.is_empty()))
}
