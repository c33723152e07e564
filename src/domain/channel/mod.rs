//! A channel: one number in one portal, shared by its subscribers. Decides everything that is journaled of it.
//!
//! `decide` reads, and says in drafts what would happen; the owner numbers them from `head().next()` on and gives
//! each to `apply` at once; nothing leaves the broker before they are durable. The state is the fold of the records:
//! a channel that is replayed equals the one that lived.
//!
//! # Layout
//! - [`mod@self`]: the state, `decide`, `apply`, what can be asked of the state
//! - `standing`: joining and leaving, the parent, from where deliveries go on
//! - `inbound`: customers' messages, repeats, names that prove to be one
//! - `picking`: open, pick up, release, transfer, expiry, follow-ups
//! - `replying`: replies, echoes, and what the outbox decides
//! - `listing`: conversations in lists
//!
//! **Invariants:** `apply` is total; a decision is at most [`DRAFTS_MAX`] drafts and takes effect as a whole; what
//! follows from one for many conversations is in the fold at once, its records follow by [`Command::Tick`].

use std::sync::Arc;

use super::command::{Answer, ChannelSeen, ChannelState, Command, ConversationSeen, Rejection, Window};
use super::event::{Event, Record, Settings};
use super::ids::{ChannelId, ConversationId, Number, Offset, ServiceId, Timestamp};
use super::portal::Portal;

/// Most drafts of one decision: they lie in one block of the journal, so that a crash leaves all or nothing.
pub const DRAFTS_MAX: usize = 256;

/// The keys of a channel's fingerprints and confirmations, made outside and kept beside the journal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Of customers' names, message ids and reply ids.
    pub fingerprint: [u8; 16],
    /// Of confirmations.
    pub confirm: [u8; 16],
    /// Of replies' contents.
    pub digest: [u8; 16],
}

/// A key is a secret.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<keys>")
    }
}

/// What is to be recorded; the owner gives it offset and time.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The conversation it belongs to; none for what concerns the whole channel.
    pub conversation: Option<ConversationId>,
    /// What happened.
    pub event: Event,
}

/// A service's standing in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Standing {
    /// It has no record.
    #[default]
    None,
    /// It is in the list.
    Subscribed,
    /// It has left the list, its record is kept.
    Inactive,
}

/// A part of the channel that a service is delivered (B13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// What lies behind this offset.
    pub after: Offset,
    /// Up to here, this one included; without end while the service is subscribed.
    pub through: Option<Offset>,
    /// Whether receipts in it are delivered: not those of a time when the service was away.
    pub receipts: bool,
}

/// What a service is delivered of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliverySpan {
    /// Ascending, apart; without what is acknowledged as a whole.
    pub stretches: Vec<Stretch>,
    /// What its adapters have acknowledged: what lies up to here needs no delivery.
    pub acknowledged: Offset,
}

/// A conversation, for who starts its actor or reads its timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationNow {
    /// Its id; the older one's where the id asked for has become part of it (B12).
    pub conversation: ConversationId,
    /// Its last offset.
    pub head: Offset,
    /// The customer's newest names are in the record at this offset.
    pub customer_at: Offset,
    /// The 24-hour window.
    pub window: Window,
    /// The younger ones that became part of it, each with its last offset: their records are shown by offset in it.
    pub merged: Vec<(ConversationId, Offset)>,
}

/// Which conversations a list shall have.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// The service that asks.
    pub service: ServiceId,
    /// Behind this one.
    pub after: Option<ConversationId>,
    /// At most so many.
    pub limit: usize,
    /// Only those held in any service, or in none.
    pub claimed: Option<bool>,
    /// Only those without, or with, a reply since the customer's newest message.
    pub unanswered: Option<bool>,
}

/// One number in one portal.
#[derive(Debug, Clone)]
pub struct Channel {
    id: ChannelId,
    number: Number,
    only: Option<ServiceId>,
    keys: Keys,
    send_ttl_ms: u64,
    head: Offset,
}

impl Channel {
    /// A channel before its first record. `only` is its one service on plan `isolated`.
    #[must_use]
    pub fn new(id: ChannelId, number: Number, only: Option<ServiceId>, keys: Keys, send_ttl_ms: u64) -> Self {
        Self { id, number, only, keys, send_ttl_ms, head: Offset::ZERO }
    }

    /// Says what a command does: the answer, and in `out` what is to be recorded. Changes nothing.
    ///
    /// # Errors
    /// Why it is refused; then `out` is as it was.
    pub fn decide(
        &self,
        _portal: &Portal,
        _command: &Command,
        _now: Timestamp,
        _out: &mut Vec<Draft>,
    ) -> Result<Answer, Rejection> {
        Err(Rejection::NotFound)
    }

    /// Takes a record into the state. Total: a record that does not fit changes nothing but the head.
    pub fn apply(&mut self, record: &Record) {
        self.head = record.offset;
    }

    /// When [`Command::Tick`] is due next: a claim's expiry, a reply's, or at once for follow-ups.
    #[must_use]
    pub fn next_deadline(&self, _portal: &Portal) -> Option<Timestamp> {
        None
    }

    /// Whether records follow from what was decided before: `Tick` until there are none. A roster change is answered
    /// only after that.
    #[must_use]
    pub fn has_follow_up(&self, _portal: &Portal) -> bool {
        false
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// The last offset given out.
    #[must_use]
    pub fn head(&self) -> Offset {
        self.head
    }

    /// Whether it has no record yet: it is not there before its first one.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.head == Offset::ZERO
    }

    /// Whether somebody is subscribed, inactive, or nobody has a record (a new one too).
    #[must_use]
    pub fn state(&self) -> ChannelState {
        ChannelState::Closed
    }

    /// What it is, for whoever may ask.
    #[must_use]
    pub fn seen(&self) -> ChannelSeen {
        ChannelSeen {
            channel: self.id,
            number: self.number.clone(),
            state: self.state(),
            parent: self.parent().cloned(),
            subscribers: Arc::clone(self.subscribers()),
            settings: self.settings(),
            head: self.head,
        }
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings::default()
    }

    /// A service's standing.
    #[must_use]
    pub fn standing(&self, _service: &ServiceId) -> Standing {
        Standing::None
    }

    /// Whether the service is in the list.
    #[must_use]
    pub fn is_subscribed(&self, service: &ServiceId) -> bool {
        self.standing(service) == Standing::Subscribed
    }

    /// The list, in order.
    #[must_use]
    pub fn subscribers(&self) -> &Arc<[ServiceId]> {
        static NOBODY: std::sync::LazyLock<Arc<[ServiceId]>> = std::sync::LazyLock::new(|| Arc::from([]));
        &NOBODY
    }

    /// The subscriber that manages it.
    #[must_use]
    pub fn parent(&self) -> Option<&ServiceId> {
        None
    }

    /// What the service is delivered: empty where it never was subscribed.
    #[must_use]
    pub fn delivery_span(&self, _service: &ServiceId) -> DeliverySpan {
        DeliverySpan::default()
    }

    /// A conversation, by its id or by that of a younger one that became part of it.
    #[must_use]
    pub fn conversation(&self, _id: ConversationId, _now: Timestamp) -> Option<ConversationNow> {
        None
    }

    /// The last offset of a conversation, zero if there is none: where the chain of its records goes on.
    #[must_use]
    pub fn conversation_head(&self, _id: ConversationId) -> Offset {
        Offset::ZERO
    }

    /// Conversations in the order in which they began, and the `after` of the next call if there may be more.
    ///
    /// A call looks at a bounded number of conversations, so it may give fewer than `limit` though there are more.
    #[must_use]
    pub fn list_conversations(
        &self,
        _portal: &Portal,
        _query: &ListQuery,
        _now: Timestamp,
    ) -> (Vec<ConversationSeen>, Option<ConversationId>) {
        (Vec::new(), None)
    }
}
