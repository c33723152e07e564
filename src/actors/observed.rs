//! The broker at one moment, for whoever observes it: counts, levels and limits.
//!
//! Read from atomics and from the registry; no actor is asked, so a look waits for nobody and nobody waits for it. What
//! it gives names portals, numbers, services and adapters, and neither a customer nor an agent.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::broker::Broker;
use super::clock;
use super::counters::Counts;
use super::outlet::IN_FLIGHT_MAX;
use super::registry::{ChannelEntry, Deliver, SessionEntry, SessionKey};
use super::shared::{Limits, PROCESS_BYTES_MAX, Shared};
use crate::domain::command::ChannelState;
use crate::domain::outbox::{OPEN_REPLIES_MAX, UNRESOLVED_MAX};
use crate::journal;
pub use crate::journal::{DURATION_BOUNDS_SECONDS, Durations};

/// Most lags that one look gives; further ones are counted in [`Observed::lags_left_out`].
pub const LAGS_MAX: usize = 10_000;

/// What a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It shares its service's deliveries.
    Share,
    /// It watches.
    Watch,
    /// It gets no deliveries.
    None,
    /// A gateway's.
    Gateway,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Share, Self::Watch, Self::None, Self::Gateway];

    /// In a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Watch => "watch",
            Self::None => "none",
            Self::Gateway => "gateway",
        }
    }

    pub(super) fn of(session: &SessionEntry) -> Self {
        match (&session.deliver, session.outlet.service()) {
            (_, None) => Self::Gateway,
            (Deliver::Share, _) => Self::Share,
            (Deliver::Watch(_), _) => Self::Watch,
            (Deliver::None, _) => Self::None,
        }
    }
}

/// How far a service is behind in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The portal.
    pub portal: String,
    /// The channel's number.
    pub number: String,
    /// The service.
    pub service: String,
    /// Durable records that its adapters have neither acknowledged nor passed.
    pub records: u64,
}

/// Channels and what they have, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Channels {
    /// Somebody is subscribed.
    pub active: u64,
    /// Nobody is, but somebody has a record.
    pub dormant: u64,
    /// Nobody has a record.
    pub closed: u64,
    /// Their state can not be had from the journal.
    pub quarantined: u64,
    /// Conversations.
    pub conversations: u64,
    /// Claims that hold.
    pub claims: u64,
    /// Conversations with a note of whose their thread is.
    pub threads: u64,
    /// Replies that wait to be handed to their gateway.
    pub replies_waiting: u64,
    /// Replies that are handed and have no outcome.
    pub replies_handed: u64,
    /// Messages of which statuses wait.
    pub statuses_parked: u64,
}

/// The broker at one moment.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Since when it runs.
    pub uptime: Duration,
    /// Whether nothing is acknowledged any more.
    pub is_halted: bool,
    /// By how much the wall clock has leapt, in milliseconds.
    pub clock_leap_ms: i64,
    /// What has happened since the start.
    pub counts: Counts,
    /// How many sessions there are of each kind.
    pub sessions: Vec<(Kind, u64)>,
    /// Requests that are not answered and written.
    pub in_flight: u64,
    /// The limit of that for one connection.
    pub in_flight_max: u64,
    /// Deliveries that are not acknowledged.
    pub unacknowledged: u64,
    /// Bytes of requests that are not durable.
    pub request_bytes: u64,
    /// The limit of that.
    pub request_bytes_max: u64,
    /// Channels.
    pub channels: Channels,
    /// The limit of replies without outcome, for one channel.
    pub replies_open_max: u64,
    /// Replies that TCP gateways have and that have no outcome.
    pub gateway_replies: u64,
    /// The limit of that for one gateway.
    pub gateway_replies_max: u64,
    /// Lags, at most [`LAGS_MAX`].
    pub lags: Vec<Lag>,
    /// Lags that are not given.
    pub lags_left_out: u64,
    /// Reads of history that wait or are at work.
    pub reads: u64,
    /// Bytes appended to the journal and not answered.
    pub journal_queued_bytes: u64,
    /// Whether the journal has room for new work.
    pub journal_has_room: bool,
    /// The journal's engine.
    pub journal: journal::Observed,
    /// What ids take in memory, in bytes.
    pub ids_bytes: u64,
    /// The limit of that.
    pub ids_bytes_max: u64,
    /// How long history is kept.
    pub retention: Duration,
    /// How much history is kept, in bytes.
    pub retention_bytes: u64,
}

/// A session, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSeen {
    /// Its name, as its greeting gave it.
    pub session: String,
    /// The portal.
    pub portal: String,
    /// What it is.
    pub kind: Kind,
    /// The service; none of a gateway's.
    pub service: Option<String>,
    /// The adapter's name, where it has one.
    pub adapter: Option<String>,
    /// The window, as granted.
    pub window: u32,
    /// Deliveries that are not acknowledged.
    pub unacknowledged: u32,
    /// Requests that are not answered and written.
    pub in_flight: u64,
}

impl Broker {
    /// The broker at this moment. Waits for no actor.
    #[must_use]
    pub fn observed(&self) -> Observed {
        let shared = &self.inner.shared;
        let Limits { retention, dedup_bytes_max, .. } = shared.settings().limits.clone();
        let mut seen = Observed {
            uptime: shared.started.elapsed(),
            is_halted: shared.halt.is_halted(),
            clock_leap_ms: clock::leap_ms(),
            counts: shared.counters.counts(),
            sessions: Kind::ALL.map(|kind| (kind, 0)).to_vec(),
            in_flight_max: IN_FLIGHT_MAX as u64,
            request_bytes: (PROCESS_BYTES_MAX as usize)
                .saturating_sub(shared.process_bytes.available_permits()) as u64,
            request_bytes_max: u64::from(PROCESS_BYTES_MAX),
            replies_open_max: OPEN_REPLIES_MAX as u64,
            gateway_replies_max: UNRESOLVED_MAX as u64,
            reads: shared.readers.unfinished() as u64,
            journal_queued_bytes: shared.journal.queued_bytes() as u64,
            journal_has_room: shared.journal.has_room(),
            journal: shared.journal.observed(),
            ids_bytes: ids_bytes(shared),
            ids_bytes_max: dedup_bytes_max,
            retention: Duration::from_millis(retention.keep_ms),
            retention_bytes: retention.bytes_max,
            ..Observed::default()
        };
        for gateway in &shared.registry.gateways {
            seen.gateway_replies += gateway.budget().taken() as u64;
        }
        for session in &shared.registry.sessions {
            seen.take_session(session.value());
        }
        // Copied out first: the registry is not held while the channels are looked at.
        let channels: Vec<ChannelEntry> =
            shared.registry.channels.iter().map(|entry| entry.value().clone()).collect();
        for entry in &channels {
            seen.take_channel(entry);
        }
        seen
    }

    /// Every session, in the order in which they began.
    #[must_use]
    pub fn sessions_seen(&self) -> Vec<SessionSeen> {
        let registry = &self.inner.shared.registry;
        let mut seen: Vec<(u64, SessionSeen)> = (registry.sessions.iter())
            .map(|entry| (entry.value().outlet.connection().0, session_seen(entry.key(), entry.value())))
            .collect();
        seen.sort_unstable_by_key(|(connection, _)| *connection);
        seen.into_iter().map(|(_, seen)| seen).collect()
    }
}

/// What ids take in memory, in bytes: those of channels, as their actors last noted it, and who sent what.
pub(super) fn ids_bytes(shared: &Shared) -> u64 {
    let of_channel = |entry: &ChannelEntry| entry.sight.levels.ids_bytes.load(Ordering::Relaxed);
    let of_channels: u64 = shared.registry.channels.iter().map(|entry| of_channel(entry.value())).sum();
    let numbers = shared.registry.numbers.iter();
    let of_senders: usize = numbers.map(|number| number.value().senders_bytes()).sum();
    of_channels + of_senders as u64
}

impl Observed {
    fn take_session(&mut self, session: &SessionEntry) {
        let kind = Kind::of(session);
        if let Some((_, count)) = self.sessions.iter_mut().find(|(known, _)| *known == kind) {
            *count += 1;
        }
        self.in_flight += session.outlet.requests_in_flight() as u64;
        self.unacknowledged += u64::from(session.outlet.credit().outstanding());
    }

    fn take_channel(&mut self, entry: &ChannelEntry) {
        let channels = &mut self.channels;
        if entry.addr.is_none() {
            channels.quarantined += 1;
            return;
        }
        match entry.sight.seen().state {
            ChannelState::Active => channels.active += 1,
            ChannelState::Dormant => channels.dormant += 1,
            // One that was not made in the end has no record.
            ChannelState::Closed if entry.sight.head().0 == 0 => return,
            ChannelState::Closed => channels.closed += 1,
        }
        let levels = &entry.sight.levels;
        channels.conversations += levels.conversations.load(Ordering::Relaxed);
        channels.claims += levels.claims.load(Ordering::Relaxed);
        channels.threads += levels.threads.load(Ordering::Relaxed);
        channels.replies_waiting += levels.waiting.load(Ordering::Relaxed);
        channels.replies_handed += levels.handed.load(Ordering::Relaxed);
        channels.statuses_parked += levels.parked.load(Ordering::Relaxed);
        for (service, records) in entry.sight.lags() {
            if self.lags.len() == LAGS_MAX {
                self.lags_left_out += 1;
                continue;
            }
            let (portal, number) = (entry.portal.to_string(), entry.number.to_string());
            self.lags.push(Lag { portal, number, service: service.to_string(), records });
        }
    }
}

fn session_seen(key: &SessionKey, session: &SessionEntry) -> SessionSeen {
    let adapter = match key {
        SessionKey::Adapter(_, _, adapter) => Some(adapter.to_string()),
        SessionKey::Single(..) => None,
    };
    SessionSeen {
        session: format!("s-{}", session.outlet.connection().0),
        portal: session.portal.to_string(),
        kind: Kind::of(session),
        service: session.outlet.service().map(ToString::to_string),
        adapter,
        window: session.outlet.credit().window(),
        unacknowledged: session.outlet.credit().outstanding(),
        in_flight: session.outlet.requests_in_flight() as u64,
    }
}
