//! Replies that have an outcome: by id for 8 days (B4), by offset and by message for 30 (B7).
//!
//! Ages count from the outcome: what is open is not here, and is never dropped. What is many lies in runs (see `aside`):
//! then it is looked for there before a decision that needs it, and what was found is here while that is made.
//!
//! **Invariant:** what is in memory is newer than what lies in a run of it.

use super::name::Name;
use super::{Facts, ServiceNumber};
use crate::domain::aged::{AgedMap, DAY_MS, Keep};
use crate::domain::aside::{Aside, LaidAside, Movable, Rows, RunId, Shelf};
use crate::domain::buckets::BucketMap;
use crate::domain::event::Status;
use crate::domain::fingerprint::Fingerprint;
use crate::domain::ids::{ConversationId, Offset, ReplyId, Timestamp};
use crate::domain::saved::{Put, Saved, Take, Unreadable, saved};
use crate::domain::senders::{KEEP_SENT, REMEMBERED_IN_BUCKET_MAX, REMEMBERED_MAX};

/// How long a reply id stays in use after the reply's outcome, in milliseconds: 8 days (B4).
pub const REPLY_IDS_MS: u64 = 8 * DAY_MS;

/// Six periods at most are looked into, and an id stays in use for 2 days more.
const KEEP_IDS: Keep = Keep {
    keep_ms: REPLY_IDS_MS,
    period_ms: 2 * DAY_MS,
    bucket_entries_max: REMEMBERED_IN_BUCKET_MAX,
    entries_max: REMEMBERED_MAX,
};

/// What a reply takes in memory, in bytes (measured): its offset, what is known of it, and its id, which lies apart where
/// it is long and no UUID.
const OUTCOME_BYTES: usize = 96;
/// What it takes in memory to find a reply by its id, or by its message, in bytes (measured).
const FOUND_BY_BYTES: usize = 32;

/// A reply with an outcome.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    service: ServiceNumber,
    name: Name,
    conversation: ConversationId,
    digest: Fingerprint,
    /// How far it has come; never `Accepted`.
    pub(super) status: Status,
    /// Where the outcome stands in the journal.
    pub(super) outcome: Offset,
    /// Whether WhatsApp's id of the message is known.
    pub(super) named: bool,
    /// The record that changed it last; zero where that is in the state that it was restored from.
    changed: Offset,
}

/// Equal when they say the same, whatever said it.
impl PartialEq for Outcome {
    fn eq(&self, other: &Self) -> bool {
        let said = |outcome: &Self| (outcome.status, outcome.outcome, outcome.named);
        self.facts() == other.facts() && said(self) == said(other)
    }
}

impl Outcome {
    pub(super) fn new(facts: &Facts, status: Status, outcome: Offset, named: bool) -> Self {
        let Facts { service, reply_id, conversation, digest } = facts;
        Self {
            service: *service,
            name: Name::from(reply_id),
            conversation: *conversation,
            digest: *digest,
            status,
            outcome,
            named,
            changed: outcome,
        }
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            service: self.service,
            reply_id: self.name.id(),
            conversation: self.conversation,
            digest: self.digest,
        }
    }
}

/// What a look into runs has brought, for one decision.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Recalled {
    /// The reply with this id.
    pub(super) id: Option<(Fingerprint, Offset)>,
    /// The reply that this message was.
    pub(super) message: Option<(Fingerprint, Offset)>,
    /// What became of a reply, and the run that says so.
    pub(super) outcome: Option<(Offset, RunId, Outcome)>,
}

/// Replies with an outcome.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Done {
    ids: AgedMap<Fingerprint, Offset>,
    replies: AgedMap<Offset, Outcome>,
    messages: AgedMap<Fingerprint, Offset>,
    ids_aside: Aside,
    replies_aside: Aside,
    messages_aside: Aside,
    recalled: Recalled,
}

/// What was dropped and still takes memory: ids and messages, and replies.
type Discarded = (Vec<BucketMap<Fingerprint, Offset>>, Vec<BucketMap<Offset, Outcome>>);

impl Done {
    pub(super) fn get(&self, reply: Offset) -> Option<&Outcome> {
        let recalled = self.recalled.outcome.as_ref().filter(|(offset, ..)| *offset == reply);
        self.replies.get(&reply).or_else(|| recalled.map(|(.., outcome)| outcome))
    }

    /// The same, for a record that changes it.
    pub(super) fn change(&mut self, reply: Offset, record: Offset, at: Timestamp) -> Option<&mut Outcome> {
        if self.replies.get(&reply).is_none()
            && let Some((offset, run, outcome)) = self.recalled.outcome.take_if(|(found, ..)| *found == reply)
            && let Some(laid) = self.replies_aside.get(run)
        {
            // As old as the newest of its run, which is of the same period.
            self.replies.insert_from(record, offset, laid.newest, at, outcome);
        }
        let outcome = self.replies.change(&reply, record)?;
        outcome.changed = record;
        Some(outcome)
    }

    pub(super) fn offset_of(&self, id: &Fingerprint) -> Option<Offset> {
        let recalled = self.recalled.id.filter(|(known, _)| known == id);
        self.ids.get(id).copied().or(recalled.map(|(_, offset)| offset))
    }

    pub(super) fn reply_of(&self, message: &Fingerprint) -> Option<Offset> {
        let recalled = self.recalled.message.filter(|(known, _)| known == message);
        self.messages.get(message).copied().or(recalled.map(|(_, offset)| offset))
    }

    /// A reply has its first outcome, by the record there.
    pub(super) fn insert(&mut self, id: Fingerprint, reply: Offset, outcome: Outcome, at: Timestamp) {
        let record = outcome.outcome;
        self.ids.insert_from(record, id, at, at, reply);
        self.replies.insert_from(record, reply, at, at, outcome);
    }

    /// WhatsApp's id of a reply's message has become known, by this record.
    pub(super) fn name(&mut self, message: Fingerprint, reply: Offset, record: Offset, at: Timestamp) {
        self.messages.insert_from(record, message, at, at, reply);
    }

    /// What it takes in memory, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        let here =
            (self.ids.len() + self.messages.len()) * FOUND_BY_BYTES + self.replies.len() * OUTCOME_BYTES;
        here + self.ids_aside.bytes() + self.replies_aside.bytes() + self.messages_aside.bytes()
    }

    /// Forgets the oldest before its time: a bucket, or what is known of a run; gives how many entries these were.
    pub(super) fn drop_oldest(&mut self) -> usize {
        let here = [self.ids.oldest(), self.replies.oldest(), self.messages.oldest()];
        let aside = [&self.ids_aside, &self.replies_aside, &self.messages_aside].map(Aside::oldest);
        let oldest_here = here.into_iter().flatten().min();
        let oldest_aside = aside.into_iter().flatten().min();
        match (oldest_here, oldest_aside) {
            (None, None) => 0,
            (here, Some((newest, run))) if here.is_none_or(|here| newest < here) => {
                let all = [&mut self.ids_aside, &mut self.replies_aside, &mut self.messages_aside];
                all.into_iter().map(|aside| aside.drop_run(run)).sum()
            }
            (oldest, _) if oldest == self.replies.oldest() => self.replies.drop_oldest(),
            (oldest, _) if oldest == self.messages.oldest() => self.messages.drop_oldest(),
            _ => self.ids.drop_oldest(),
        }
    }

    pub(super) fn forget(&mut self, now: Timestamp) {
        let before = self.replies.oldest_kept();
        self.ids.forget(now);
        self.replies.forget(now);
        self.messages.forget(now);
        // All of them in the same steps.
        if self.replies.oldest_kept() > before {
            self.ids_aside.forget(self.ids.oldest_kept());
            self.replies_aside.forget(self.replies.oldest_kept());
            self.messages_aside.forget(self.messages.oldest_kept());
        }
    }

    /// What is remembered in runs of a shelf; none of customers' messages.
    pub(super) const fn aside(&self, shelf: Shelf) -> Option<&Aside> {
        match shelf {
            Shelf::MessageIds => None,
            Shelf::ReplyIds => Some(&self.ids_aside),
            Shelf::Outcomes => Some(&self.replies_aside),
            Shelf::Sent => Some(&self.messages_aside),
        }
    }

    /// The same, where filters become known.
    pub(super) const fn aside_mut(&mut self, shelf: Shelf) -> Option<&mut Aside> {
        match shelf {
            Shelf::MessageIds => None,
            Shelf::ReplyIds => Some(&mut self.ids_aside),
            Shelf::Outcomes => Some(&mut self.replies_aside),
            Shelf::Sent => Some(&mut self.messages_aside),
        }
    }

    /// Whether something of it lies in runs.
    pub(super) fn has_aside(&self) -> bool {
        !(self.ids_aside.is_empty() && self.replies_aside.is_empty() && self.messages_aside.is_empty())
    }

    /// The runs, and what may be in each, that may say what became of a reply that is not in memory; the newest first.
    pub(super) fn outcomes_aside(&self) -> impl Iterator<Item = &LaidAside> {
        self.replies_aside.iter().rev()
    }

    pub(super) fn is_here(&self, reply: Offset) -> bool {
        self.replies.get(&reply).is_some()
    }

    pub(super) fn set_recalled(&mut self, recalled: Recalled) {
        self.recalled = recalled;
    }

    /// The periods of a shelf that have so many entries in memory at least.
    pub(super) fn movable_periods(&self, shelf: Shelf, entries_min: usize) -> Vec<u64> {
        match shelf {
            Shelf::ReplyIds => self.ids.periods(entries_min).collect(),
            Shelf::Outcomes => self.replies.periods(entries_min).collect(),
            // Those of customers' messages are the channel's, and whose a message was is its senders'.
            Shelf::MessageIds | Shelf::Sent => Vec::new(),
        }
    }

    /// The period of a shelf that a time is in; none where it is not here that its rows are made.
    pub(super) const fn period_of(&self, shelf: Shelf, at: Timestamp) -> Option<u64> {
        match shelf {
            Shelf::ReplyIds => Some(self.ids.period_of(at)),
            Shelf::Outcomes => Some(self.replies.period_of(at)),
            Shelf::MessageIds | Shelf::Sent => None,
        }
    }

    /// What may be laid aside of a period. Looks at each entry.
    pub(super) fn movable(&self, shelf: Shelf, period: u64) -> Option<Movable> {
        match shelf {
            Shelf::ReplyIds => {
                let found = self.ids.period(period)?;
                let entries = found.entries.iter().map(|(id, reply)| (**id, **reply)).collect();
                Some(Movable::of(period, &found, Rows::of_records(entries)))
            }
            Shelf::Outcomes => {
                let found = self.replies.period(period)?;
                Some(Movable::of(period, &found, outcome_rows(&found.entries)))
            }
            Shelf::MessageIds | Shelf::Sent => None,
        }
    }

    /// What comes from records up to `laid.last` in a period lies in this run from now on, or in one before.
    pub(super) fn lay_aside(&mut self, shelf: Shelf, laid: LaidAside) {
        let (period, last) = (laid.period, laid.last);
        let oldest_kept = match shelf {
            Shelf::MessageIds => return,
            Shelf::ReplyIds => {
                self.ids.drop_whole_through(period, last);
                self.ids.oldest_kept()
            }
            Shelf::Outcomes => {
                self.replies.drop_through(period, last, |outcome| outcome.changed);
                self.replies.oldest_kept()
            }
            Shelf::Sent => {
                self.messages.drop_whole_through(period, last);
                self.messages.oldest_kept()
            }
        };
        if laid.newest >= oldest_kept
            && let Some(aside) = self.aside_mut(shelf)
        {
            aside.push(laid);
        }
    }

    /// What was dropped and still takes memory.
    pub(super) fn take_discarded(&mut self) -> Discarded {
        let ids = [self.ids.take_discarded(), self.messages.take_discarded()].concat();
        (ids, self.replies.take_discarded())
    }
}

/// A reply as the key of a row: offsets lie close together, and a filter wants keys that are far apart.
pub(super) const fn outcome_key(reply: Offset) -> Fingerprint {
    // Odd, so that no two offsets meet.
    const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    Fingerprint::from_u128((reply.0 as u128).wrapping_mul(SPREAD))
}

fn outcome_rows(entries: &[(&Offset, &Outcome)]) -> Rows {
    let widest = entries.iter().map(|(_, outcome)| outcome.row_bytes()).max().unwrap_or(0);
    let mut sorted: Vec<_> =
        entries.iter().map(|(reply, outcome)| (outcome_key(**reply), *outcome)).collect();
    sorted.sort_unstable_by_key(|(key, _)| *key);
    let mut rows = Rows::new(widest, sorted.len());
    let mut row = Vec::with_capacity(widest);
    for (key, outcome) in sorted {
        row.clear();
        outcome.write_row(&mut row);
        rows.push(key, &row);
    }
    rows
}

/// A reply with an outcome as the value of a row, numbers little-endian:
///
/// ```text
///  byte 0         4              12       28        36       37      38        40
///       ┌─────────┬──────────────┬────────┬─────────┬────────┬───────┬─────────┬─ ─ ─
///       │ service │ conversation │ digest │ outcome │ status │ named │ bytes of│ reply id, then zeros
///       │ u32     │ u64          │ u128   │ u64     │        │       │ id u16  │
///       └─────────┴──────────────┴────────┴─────────┴────────┴───────┴─────────┴─ ─ ─
/// ```
impl Outcome {
    const FIXED_BYTES: usize = 40;

    fn row_bytes(&self) -> usize {
        Self::FIXED_BYTES + self.name.len()
    }

    fn write_row(&self, row: &mut Vec<u8>) {
        let name = self.name.id();
        row.extend_from_slice(&self.service.to_le_bytes());
        row.extend_from_slice(&self.conversation.0.to_le_bytes());
        row.extend_from_slice(&self.digest.as_u128().to_le_bytes());
        row.extend_from_slice(&self.outcome.0.to_le_bytes());
        row.extend_from_slice(&[self.status.number(), u8::from(self.named)]);
        row.extend_from_slice(&u16::try_from(self.name.len()).unwrap_or(u16::MAX).to_le_bytes());
        row.extend_from_slice(name.as_bytes());
    }

    /// Reads it back. None where it can not be one.
    pub(super) fn in_row(row: &[u8]) -> Option<Self> {
        let (service, row) = row.split_first_chunk()?;
        let (conversation, row) = row.split_first_chunk()?;
        let (digest, row) = row.split_first_chunk()?;
        let (outcome, row) = row.split_first_chunk()?;
        let ([status, named], row) = row.split_first_chunk()?;
        let (length, row) = row.split_first_chunk()?;
        let name = std::str::from_utf8(row.get(..usize::from(u16::from_le_bytes(*length)))?).ok()?;
        Some(Self {
            service: ServiceNumber::from_le_bytes(*service),
            name: Name::from(&ReplyId::trusted(name)),
            conversation: ConversationId(u64::from_le_bytes(*conversation)),
            digest: Fingerprint::from_u128(u128::from_le_bytes(*digest)),
            status: Status::from_number(u64::from(*status)).filter(|status| *status != Status::Accepted)?,
            outcome: Offset(u64::from_le_bytes(*outcome)),
            named: *named != 0,
            changed: Offset::ZERO,
        })
    }
}

saved!(SavedOutcome { service, name, conversation, digest, status, outcome, named });

/// What is saved of an [`Outcome`]: all of a state that is restored was changed before it.
struct SavedOutcome {
    service: ServiceNumber,
    name: Name,
    conversation: ConversationId,
    digest: Fingerprint,
    status: Status,
    outcome: Offset,
    named: bool,
}

impl Saved for Outcome {
    fn save(&self, out: &mut dyn Put) {
        let Self { service, name, conversation, digest, status, outcome, named, changed: _ } = self.clone();
        SavedOutcome { service, name, conversation, digest, status, outcome, named }.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let SavedOutcome { service, name, conversation, digest, status, outcome, named } =
            SavedOutcome::restore(from)?;
        let changed = Offset::ZERO;
        Ok(Self { service, name, conversation, digest, status, outcome, named, changed })
    }
}

impl Saved for Done {
    fn save(&self, out: &mut dyn Put) {
        self.ids.save(out);
        self.replies.save(out);
        self.messages.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        Ok(Self {
            ids: AgedMap::restore(KEEP_IDS, from)?,
            replies: AgedMap::restore(KEEP_SENT, from)?,
            messages: AgedMap::restore(KEEP_SENT, from)?,
            ..Self::default()
        })
    }
}

impl Default for Done {
    fn default() -> Self {
        Self {
            ids: AgedMap::new(KEEP_IDS),
            replies: AgedMap::new(KEEP_SENT),
            messages: AgedMap::new(KEEP_SENT),
            ids_aside: Aside::new(),
            replies_aside: Aside::new(),
            messages_aside: Aside::new(),
            recalled: Recalled::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_what_it_was_to_the_byte() {
        let facts = Facts {
            service: 3,
            reply_id: ReplyId::trusted("order-4711"),
            conversation: ConversationId(0x0102_0304_0506_0708),
            digest: Fingerprint::from_u128(0x1112_1314_1516_1718_191a_1b1c_1d1e_1f20),
        };
        let outcome = Outcome::new(&facts, Status::Delivered, Offset(0x2122), true);
        let mut row = Vec::new();
        outcome.write_row(&mut row);
        let wanted = [
            &[3, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1][..],
            &[0x20, 0x1f, 0x1e, 0x1d, 0x1c, 0x1b, 0x1a, 0x19, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11],
            &[0x22, 0x21, 0, 0, 0, 0, 0, 0, 3, 1, 10, 0],
            b"order-4711",
        ];
        assert_eq!(row, wanted.concat());
        assert_eq!(row.len(), outcome.row_bytes());
        for padded in [row.clone(), [&row[..], &[0; 30]].concat()] {
            assert_eq!(Outcome::in_row(&padded), Some(outcome.clone()));
        }
        for end in 0..row.len() {
            assert_eq!(Outcome::in_row(&row[..end]), None, "cut at {end}");
        }
        for (byte, wrong) in [(36, 0), (36, 7), (40, 0xff)] {
            let mut row = row.clone();
            row[byte] = wrong;
            assert_eq!(Outcome::in_row(&row), None, "byte {byte}");
        }
        assert_eq!(outcome_key(Offset(1)).as_u128(), 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    }

    #[test]
    fn what_is_remembered_of_a_reply_is_as_small_as_it_is_counted() {
        // Beside the entries there are two bytes a slot, and room for an eighth more of them at most.
        assert_eq!(size_of::<(Offset, Outcome)>(), 80);
        assert_eq!(size_of::<(Fingerprint, Offset)>(), 24);
    }
}
