//! What the actors count: relaxed atomics, bumped once a batch, in one place.
//!
//! Whoever has a batch in hand counts it in plain integers and adds the sums; nobody takes a lock to count, and nothing
//! is decided by what is counted. Levels (how much of something there is) are not here: see `observed`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::batch::BatchEntry;
use super::port::Answered;
use crate::domain::event::{ClaimAction, Event, Status, ThreadAction};

/// The codes of errors that a peer may be told, as the contract spells them.
pub const ERROR_CODES: [&str; 25] = [
    "bad_message",
    "channel_closed",
    "claimed",
    "conflict",
    "forbidden",
    "internal",
    "not_claimed",
    "not_found",
    "not_parent",
    "not_subscribed",
    "number_taken",
    "overloaded",
    "replaced",
    "revoked",
    "service_not_eligible",
    "stale_confirm",
    "stalled",
    "timeout",
    "too_large",
    "unauthenticated",
    "unavailable",
    "unknown_agent",
    "unknown_type",
    "unsupported_version",
    "window_closed",
];
/// How far a message may have come, by its place in [`Counters::receipts`].
const STATUSES: [Status; 7] = [
    Status::Accepted,
    Status::Unknown,
    Status::Sent,
    Status::Delivered,
    Status::Read,
    Status::Played,
    Status::Failed,
];
/// What may happen to a claim, by its place in [`Counters::claims`].
const CLAIM_ACTIONS: [ClaimAction; 4] =
    [ClaimAction::PickedUp, ClaimAction::Released, ClaimAction::Transferred, ClaimAction::Expired];

/// What may happen to a note of whose a thread is, by its place in [`Counters::threads`].
const THREAD_ACTIONS: [ThreadAction; 3] = [ThreadAction::Taken, ThreadAction::Passed, ThreadAction::Released];

/// What has happened since the start. Holds nothing of anybody.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    deliveries: AtomicU64,
    acknowledged: AtomicU64,
    messages: AtomicU64,
    repeated_messages: AtomicU64,
    unrouted_messages: AtomicU64,
    replies: AtomicU64,
    repeated_replies: AtomicU64,
    handed: AtomicU64,
    receipts: [AtomicU64; STATUSES.len()],
    claims: [AtomicU64; CLAIM_ACTIONS.len()],
    threads: [AtomicU64; THREAD_ACTIONS.len()],
    warnings: AtomicU64,
    dropped_ids: AtomicU64,
    errors: [AtomicU64; ERROR_CODES.len()],
}

/// The counts at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests that were asked.
    pub requests: u64,
    /// Deliveries that were given to connections, repeats included.
    pub deliveries: u64,
    /// Deliveries that were acknowledged, or passed on when their connection ended.
    pub acknowledged: u64,
    /// Customers' messages that are durable, in each channel.
    pub messages: u64,
    /// Customers' messages that a channel had already.
    pub repeated_messages: u64,
    /// Customers' messages for a number without an active channel.
    pub unrouted_messages: u64,
    /// Replies that are durable.
    pub replies: u64,
    /// Replies that were known by their id.
    pub repeated_replies: u64,
    /// Attempts to send that are durable.
    pub handed: u64,
    /// News of replies, by how far they came.
    pub receipts: Vec<(&'static str, u64)>,
    /// Changes of claims, by what happened.
    pub claims: Vec<(&'static str, u64)>,
    /// Changes of whose threads are, by what happened.
    pub threads: Vec<(&'static str, u64)>,
    /// Answers that warned.
    pub warnings: u64,
    /// Ids that were forgotten before their time, because they took too much memory.
    pub dropped_ids: u64,
    /// Errors that peers were told, by their code.
    pub errors: Vec<(&'static str, u64)>,
}

fn add(counter: &AtomicU64, more: u64) {
    if more > 0 {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

fn add_all(counters: &[AtomicU64], more: &[u64]) {
    counters.iter().zip(more).for_each(|(counter, more)| add(counter, *more));
}

fn bump(counts: &mut [u64], place: Option<usize>) {
    if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
        *count += 1;
    }
}

impl Counters {
    pub(super) fn asked(&self, requests: usize) {
        add(&self.requests, requests as u64);
    }

    pub(super) fn delivered(&self, deliveries: usize) {
        add(&self.deliveries, deliveries as u64);
    }

    pub(super) fn acknowledged(&self, deliveries: u32) {
        add(&self.acknowledged, u64::from(deliveries));
    }

    /// A message came for a number without an open channel.
    pub(super) fn unrouted(&self) {
        add(&self.unrouted_messages, 1);
    }

    /// Ids were forgotten before their time.
    pub(super) fn dropped_ids(&self, ids: usize) {
        add(&self.dropped_ids, ids as u64);
    }

    /// A peer was told this error.
    pub(super) fn error(&self, code: &str) {
        if let Some(counter) = ERROR_CODES.iter().position(|known| *known == code) {
            add_all(self.errors.get(counter..=counter).unwrap_or_default(), &[1]);
        }
    }

    /// A block is durable.
    pub(super) fn landed(&self, entries: &[BatchEntry]) {
        let (mut messages, mut replies, mut handed) = (0, 0, 0);
        let (mut receipts, mut claims) = ([0; STATUSES.len()], [0; CLAIM_ACTIONS.len()]);
        let mut threads = [0; THREAD_ACTIONS.len()];
        for entry in entries {
            let BatchEntry::Record(record) = entry else { continue };
            match &record.event {
                Event::Message(_) => messages += 1,
                Event::Reply(_) => replies += 1,
                Event::Handed(_) => handed += 1,
                Event::Receipt(receipt) => {
                    bump(&mut receipts, STATUSES.iter().position(|status| *status == receipt.status));
                }
                Event::Claim(change) => {
                    bump(&mut claims, CLAIM_ACTIONS.iter().position(|action| *action == change.action));
                }
                Event::Thread(change) => {
                    bump(&mut threads, THREAD_ACTIONS.iter().position(|action| *action == change.action));
                }
                _ => {}
            }
        }
        add(&self.messages, messages);
        add(&self.replies, replies);
        add(&self.handed, handed);
        add_all(&self.receipts, &receipts);
        add_all(&self.claims, &claims);
        add_all(&self.threads, &threads);
    }

    /// Answers leave.
    pub(super) fn answered<'a>(&self, answers: impl IntoIterator<Item = &'a Answered>) {
        let (mut repeated, mut unrouted, mut repeated_replies, mut warnings) = (0, 0, 0, 0);
        for answer in answers {
            match answer {
                Answered::Taken { channels: 0, .. } => unrouted += 1,
                Answered::Taken { duplicate: true, .. } => repeated += 1,
                Answered::Accepted { duplicate: true, .. } => repeated_replies += 1,
                Answered::Warned(_) => warnings += 1,
                _ => {}
            }
        }
        add(&self.repeated_messages, repeated);
        add(&self.unrouted_messages, unrouted);
        add(&self.repeated_replies, repeated_replies);
        add(&self.warnings, warnings);
    }

    pub(super) fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let receipts = STATUSES.iter().zip(&self.receipts).map(|(status, n)| (status.as_str(), of(n)));
        let claims = CLAIM_ACTIONS.iter().zip(&self.claims).map(|(action, n)| (action.as_str(), of(n)));
        let threads = THREAD_ACTIONS.iter().zip(&self.threads).map(|(action, n)| (action.as_str(), of(n)));
        Counts {
            requests: of(&self.requests),
            deliveries: of(&self.deliveries),
            acknowledged: of(&self.acknowledged),
            messages: of(&self.messages),
            repeated_messages: of(&self.repeated_messages),
            unrouted_messages: of(&self.unrouted_messages),
            replies: of(&self.replies),
            repeated_replies: of(&self.repeated_replies),
            handed: of(&self.handed),
            receipts: receipts.collect(),
            claims: claims.collect(),
            threads: threads.collect(),
            warnings: of(&self.warnings),
            dropped_ids: of(&self.dropped_ids),
            errors: ERROR_CODES.iter().zip(&self.errors).map(|(code, n)| (*code, of(n))).collect(),
        }
    }
}
