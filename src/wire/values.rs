//! How the domain's values stand in a message: which of them are texts, words, objects, or several members.
//!
//! The one place that spells words and numbers them. A word or an object that was published keeps its numbers and the
//! order of its parts.

use std::str::FromStr;
use std::sync::Arc;

use crate::domain::command::{ChannelSeen, ChannelState, ClaimSeen, Warning, WarningCode, Window};
use crate::domain::event::{
    Agent, ClaimAction, Customer, MembershipAction, Settings, Status, StatusError, ThreadAction,
};
use crate::domain::ids::{
    AdapterId, AgentId, ChannelId, ConversationId, CustomerName, GatewayId, MessageId, NAME_BYTES_MAX,
    Number, Offset, PortalId, ReplyId, ServiceId, Timestamp,
};
use crate::domain::presence::Doing;

use super::field::{Fault, Put, Reader, Take, Writer};
use super::message::{
    Addressee, ConversationEntry, DeliverMode, ErrorCode, Flag, GapReason, Holder, Name, Parent, Positions,
    Private, RawContent, SentOutcome, StatusOf, ThreadOwnership, ThreadVerb, Who,
};

macro_rules! text_ids {
    ($($type:ident $kind:literal $read:path $(, $ascii:path)?;)*) => {$(
        impl Put for $type {
            fn put<W: Writer>(&self, to: &mut W) {
                to.text(self.as_bytes());
            }
        }

        impl Take for $type {
            fn kind() -> String {
                $kind.to_owned()
            }

            fn take<'a, R: Reader<'a>>(from: &mut R) -> Result<Self, Fault> {
                let text = text_of!(from $(, $ascii)?);
                $read(&text).map_err(|error| from.refuse(error))
            }
        }
    )*};
}
/// The text of an id, or a return with what its bytes alone make.
macro_rules! text_of {
    ($from:ident) => {
        $from.text()?
    };
    ($from:ident, $ascii:path) => {
        match $from.id($ascii)? {
            Ok(id) => return Ok(id),
            Err(text) => text,
        }
    };
}
text_ids! {
    PortalId "portal id" PortalId::from_str;
    ServiceId "service id" ServiceId::from_str;
    GatewayId "gateway id" GatewayId::from_str;
    AdapterId "adapter name" AdapterId::from_str;
    AgentId "agent id" AgentId::from_str;
    ReplyId "reply id" ReplyId::from_str;
    MessageId "message id" MessageId::from_str, MessageId::of_ascii;
    CustomerName "customer id" CustomerName::read, CustomerName::of_ascii;
    Number "number" Number::from_str, Number::of_ascii;
}

macro_rules! words {
    ($($type:ident $kind:literal { $($number:literal $variant:ident $word:literal),* $(,)? })*) => {$(
        impl Put for $type {
            fn put<W: Writer>(&self, to: &mut W) {
                match self { $( Self::$variant => to.word($number, $word), )* }
            }
        }

        impl Take for $type {
            fn kind() -> String {
                $kind.to_owned()
            }

            fn take<'a, R: Reader<'a>>(from: &mut R) -> Result<Self, Fault> {
                match from.word(&[$($word),*])? {
                    $( $number => Ok(Self::$variant), )*
                    _ => Err(from.refuse("unknown word")),
                }
            }
        }
    )*

        const WORDS: &[(&str, &[(u32, &str)])] = &[
            $( ($kind, &[$( ($number, $word) ),*]), )*
            ("window state", &[(0, WINDOW_WORDS[0]), (1, WINDOW_WORDS[1]), (2, WINDOW_WORDS[2])]),
        ];
    };
}
words! {
    DeliverMode "deliver mode" { 0 Share "share", 1 None "none", 2 Watch "watch" }
    Doing "doing" { 0 Gone "gone", 1 Looking "looking", 2 Writing "writing" }
    Status "status" {
        0 Accepted "accepted", 1 Unknown "unknown", 2 Sent "sent", 3 Delivered "delivered", 4 Read "read",
        5 Played "played", 6 Failed "failed",
    }
    ChannelState "channel state" { 0 Active "active", 1 Dormant "dormant", 2 Closed "closed" }
    WarningCode "warning code" {
        0 PickedUpElsewhere "picked_up_elsewhere", 1 RepliedElsewhere "replied_elsewhere",
        2 ClaimedByOther "claimed_by_other",
    }
    ClaimAction "claim action" {
        0 PickedUp "picked_up", 1 Released "released", 2 Transferred "transferred", 3 Expired "expired",
    }
    MembershipAction "membership action" {
        0 Subscribed "subscribed", 1 Deactivated "deactivated", 2 Activated "activated", 3 Deleted "deleted",
        4 ParentChanged "parent_changed", 5 Configured "configured",
    }
    ThreadVerb "thread verb" { 0 Take "take", 1 Pass "pass", 2 Release "release" }
    ThreadAction "thread action" { 0 Taken "taken", 1 Passed "passed", 2 Released "released" }
    ThreadOwnership "thread owner" { 0 Nobody "none", 1 Another "another", 2 Own "self" }
    GapReason "gap reason" { 0 Retention "retention", 1 Corrupt "corrupt", 2 Erased "erased" }
    ErrorCode "error code" {
        0 BadMessage "bad_message", 1 UnknownType "unknown_type", 2 TooLarge "too_large",
        3 UnsupportedVersion "unsupported_version", 4 Unauthenticated "unauthenticated", 5 Forbidden "forbidden",
        6 NotFound "not_found", 7 NumberTaken "number_taken", 8 ServiceNotEligible "service_not_eligible",
        9 NotSubscribed "not_subscribed", 10 NotParent "not_parent", 11 Claimed "claimed",
        12 NotClaimed "not_claimed", 13 UnknownAgent "unknown_agent", 14 StaleConfirm "stale_confirm",
        15 Conflict "conflict", 16 WindowClosed "window_closed", 17 ChannelClosed "channel_closed",
        18 Overloaded "overloaded", 19 Unavailable "unavailable", 20 Internal "internal", 21 Replaced "replaced",
        22 Stalled "stalled", 23 Timeout "timeout", 24 Revoked "revoked",
    }
}

/// Every set of words, as the protocol document lists it: its name, then its words by number.
#[must_use]
pub fn word_sets() -> &'static [(&'static str, &'static [(u32, &'static str)])] {
    WORDS
}

impl ErrorCode {
    /// As the protocol spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let words = WORDS.iter().find(|(kind, _)| *kind == "error code").map_or(&[][..], |(_, words)| words);
        words.get(self as usize).map_or("internal", |(_, word)| word)
    }
}

macro_rules! one_value {
    ($($type:ty, $kind:literal, |$value:ident, $to:ident| $put:expr, |$from:ident| $take:expr;)*) => {$(
        impl Put for $type {
            fn put<W: Writer>(&self, $to: &mut W) {
                let $value = self;
                $put;
            }
        }

        impl Take for $type {
            fn kind() -> String {
                $kind.to_owned()
            }

            fn take<'a, R: Reader<'a>>($from: &mut R) -> Result<Self, Fault> {
                $take
            }
        }
    )*};
}
one_value! {
    bool, "bool", |value, to| to.boolean(*value), |from| from.boolean();
    u32, "u32", |value, to| to.number(u64::from(*value)), |from| from.small_number();
    u64, "u64", |value, to| to.number(*value), |from| from.number();
    Offset, "offset", |value, to| to.number(value.0), |from| from.number().map(Offset);
    Timestamp, "time", |value, to| to.number(value.0), |from| from.number().map(Timestamp);
    ChannelId, "channel id", |value, to| to.channel(*value), |from| from.channel();
    ConversationId, "conversation id", |value, to| to.conversation(*value), |from| from.conversation();
    Arc<str>, "text", |value, to| to.text(value.as_bytes()), |from| Ok(Arc::from(from.text()?.as_ref()));
    Private, "text", |value, to| to.text(value.expose().as_bytes()), |from| Ok(Self::from(from.text()?.as_ref()));
    Name, "name", |value, to| to.text(value.expose().as_bytes()), |from| take_name(from).map(Self);
    RawContent, "content", |value, to| to.raw(&value.0), |from| from.raw().map(Self);
}

impl Put for str {
    fn put<W: Writer>(&self, to: &mut W) {
        to.text(self.as_bytes());
    }
}

/// JSON that was checked, borrowed.
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl Put for Raw<'_> {
    fn put<W: Writer>(&self, to: &mut W) {
        to.raw(self.0);
    }
}

fn take_name<'a, R: Reader<'a>>(from: &mut R) -> Result<Arc<str>, Fault> {
    let text = from.text()?;
    if text.len() > NAME_BYTES_MAX {
        return Err(
            from.refuse(format_args!("a name has at most {NAME_BYTES_MAX} bytes, this has {}", text.len()))
        );
    }
    Ok(Arc::from(text.as_ref()))
}

impl<T: Put> Put for Arc<[T]> {
    fn put<W: Writer>(&self, to: &mut W) {
        self.as_ref().put(to);
    }
}

impl<T: Take> Take for Arc<[T]> {
    fn kind() -> String {
        Vec::<T>::kind()
    }

    fn take<'a, R: Reader<'a>>(from: &mut R) -> Result<Self, Fault> {
        Vec::take(from).map(Self::from)
    }
}

/// An object with these members, in this order, some of them other types than the domain has for them.
macro_rules! objects {
    ($($type:ident $kind:literal { $($field:ident $(as $wrapper:ident)? $(= $default:expr)?),* $(,)? })*) => {$(
        impl Put for $type {
            fn put<W: Writer>(&self, to: &mut W) {
                to.begin_object();
                $( put_member!(self.$field, stringify!($field), to $(, $wrapper)?); )*
                to.end_object();
            }
        }

        impl Take for $type {
            fn kind() -> String {
                $kind.to_owned()
            }

            fn take<'a, R: Reader<'a>>(from: &mut R) -> Result<Self, Fault> {
                from.object(|from| Ok(Self {
                    $( $field: take_member!(from, stringify!($field) $(, as $wrapper)? $(, or $default)?), )*
                }))
            }
        }
    )*};
}
macro_rules! put_member {
    ($value:expr, $name:expr, $to:ident) => {
        $value.put_as($name, $to)
    };
    ($value:expr, $name:expr, $to:ident, MaybeName) => {
        $value.as_deref().put_as($name, $to)
    };
    ($value:expr, $name:expr, $to:ident, PlainName) => {
        (*$value).put_as($name, $to)
    };
}
macro_rules! take_member {
    ($from:ident, $name:expr) => {
        Take::take_as($name, $from)?
    };
    ($from:ident, $name:expr, or $default:expr) => {
        if $from.defaulted($name)? { Take::take($from)? } else { $default }
    };
    ($from:ident, $name:expr, as MaybeName) => {
        Option::<Name>::take_as($name, $from)?.map(|name| name.0)
    };
    ($from:ident, $name:expr, as PlainName) => {
        Name::take_as($name, $from)?.0
    };
}
pub(super) use take_member;
objects! {
    Agent "agent" { agent, name as PlainName, lead = false }
    Settings "settings" { reveal_service, reveal_kind }
    StatusError "status error" { code, title, details }
    ClaimSeen "claim" { own, service, agent, name as MaybeName, since }
    Warning "warning" { code, text, agent, name as MaybeName, service }
    Holder "holder" { agent, name }
    ConversationEntry "conversation entry" { conversation, customer, head, window, claims, unanswered }
}

/// In JSON, `id` is the `user_id` if known, else the `wa_id`, and `phone` the `wa_id`.
impl Put for Customer {
    fn put<W: Writer>(&self, to: &mut W) {
        to.begin_object();
        match self.id() {
            Some(id) => id.put_as("id", to),
            None => "".put_as("id", to),
        }
        self.wa_id.put_as("phone", to);
        self.name.as_deref().put_as("name", to);
        to.end_object();
    }
}

impl Take for Customer {
    fn kind() -> String {
        "customer".to_owned()
    }

    fn take<'a, R: Reader<'a>>(from: &mut R) -> Result<Self, Fault> {
        from.object(|from| {
            let id = CustomerName::take_as("id", from)?;
            let phone = take_phone(&id, from)?;
            if phone.as_ref().is_some_and(CustomerName::is_user_id) {
                return Err(from.refuse("a phone's id contains no dot"));
            }
            let name = Option::<Name>::take_as("name", from)?.map(|name| name.0);
            if id.is_user_id() {
                return Ok(Self { user_id: Some(id), wa_id: phone, name });
            }
            if phone.is_some_and(|phone| phone != id) {
                return Err(Fault::value(
                    "phone",
                    "differs from an `id` without a dot, which is a phone's too",
                ));
            }
            Ok(Self { user_id: None, wa_id: Some(id), name })
        })
    }
}

/// A customer's `phone`: one that is spelled as the `id` is, as with all who have no other, is not looked through again.
fn take_phone<'a, R: Reader<'a>>(id: &CustomerName, from: &mut R) -> Result<Option<CustomerName>, Fault> {
    if !from.optional("phone")? {
        return Ok(None);
    }
    let of_bytes = |bytes: &[u8]| {
        if bytes == id.as_bytes() { Some(id.clone()) } else { CustomerName::of_ascii(bytes) }
    };
    let phone = from.id(of_bytes)?;
    phone.or_else(|text| CustomerName::read(&text).map_err(|error| from.refuse(error))).map(Some)
}

/// An object in lists; beside the other members where it is a member itself.
impl Put for ChannelSeen {
    fn put<W: Writer>(&self, to: &mut W) {
        to.begin_object();
        self.put_as("", to);
        to.end_object();
    }

    fn put_as<W: Writer>(&self, _: &str, to: &mut W) {
        self.channel.put_as("channel", to);
        self.number.put_as("number", to);
        self.state.put_as("state", to);
        put_parent(self.parent.as_ref(), "parent", to);
        self.subscribers.put_as("subscribers", to);
        self.settings.put_as("settings", to);
        self.head.put_as("head", to);
    }
}

impl Take for ChannelSeen {
    fn kind() -> String {
        "channel".to_owned()
    }

    fn take<'a, R: Reader<'a>>(from: &mut R) -> Result<Self, Fault> {
        from.object(|from| Self::take_as("", from))
    }

    fn take_as<'a, R: Reader<'a>>(_: &'static str, from: &mut R) -> Result<Self, Fault> {
        Ok(Self {
            channel: Take::take_as("channel", from)?,
            number: Take::take_as("number", from)?,
            state: Take::take_as("state", from)?,
            parent: Parent::take_as("parent", from)?.0,
            subscribers: Take::take_as("subscribers", from)?,
            settings: Take::take_as("settings", from)?,
            head: Take::take_as("head", from)?,
        })
    }
}

/// Writes a parent: null in JSON, where there is none.
pub(super) fn put_parent<W: Writer>(parent: Option<&ServiceId>, name: &str, to: &mut W) {
    match parent {
        Some(service) => {
            to.present(name);
            service.put(to);
        }
        None => to.null(name),
    }
}

/// Implements the value's place of a type that is several members: an object of them.
macro_rules! members {
    ($($type:ident $kind:literal |$value:ident, $name:ident, $to:ident| $put:expr, |$take_name:ident, $from:ident| $take:expr;)*) => {$(
        impl Put for $type {
            fn put<W: Writer>(&self, to: &mut W) {
                to.begin_object();
                self.put_as($kind, to);
                to.end_object();
            }

            fn put_as<W: Writer>(&self, $name: &str, $to: &mut W) {
                let $value = self;
                $put;
            }
        }

        impl Take for $type {
            fn kind() -> String {
                $kind.to_owned()
            }

            fn take<'a, R: Reader<'a>>(from: &mut R) -> Result<Self, Fault> {
                from.object(|from| Self::take_as($kind, from))
            }

            fn take_as<'a, R: Reader<'a>>($take_name: &'static str, $from: &mut R) -> Result<Self, Fault> {
                $take
            }
        }
    )*};
}
members! {
    Parent "parent"
        |value, name, to| put_parent(value.0.as_ref(), name, to),
        |name, from| if from.optional(name)? { Take::take(from).map(Some).map(Self) } else { Ok(Self(None)) };
    Flag "flag"
        |value, name, to| to.flag(name, value.0),
        |name, from| if from.defaulted(name)? { from.boolean().map(Self) } else { Ok(Self(false)) };
    Positions "positions"
        |value, name, to| to.positions(name, &value.0),
        |name, from| from.positions(name).map(Self);
    Window "window"
        |value, _name, to| put_window(*value, to),
        |_name, from| take_window(from);
    Who "who"
        |value, _name, to| match value {
            Self::Service(service) => choose(0, "service", service, to),
            Self::Gateway(gateway) => choose(1, "gateway", gateway, to),
        },
        |_name, from| match from.choice(&["service", "gateway"])? {
            0 => Take::take_as("service", from).map(Self::Service),
            _ => Take::take_as("gateway", from).map(Self::Gateway),
        };
    Addressee "addressee"
        |value, _name, to| match value {
            Self::Conversation(conversation) => choose(0, "conversation", conversation, to),
            Self::Customer(customer) => choose(1, "to", customer, to),
        },
        |_name, from| match from.choice(&["conversation", "to"])? {
            0 => Take::take_as("conversation", from).map(Self::Conversation),
            _ => Take::take_as("to", from).map(Self::Customer),
        };
    StatusOf "status of"
        |value, _name, to| match value {
            Self::Reply { channel, offset } => {
                choose(0, "channel", channel, to);
                offset.put_as("offset", to);
            }
            Self::Message(message_id) => choose(1, "message_id", message_id, to),
        },
        |_name, from| match from.choice(&["channel", "message_id"])? {
            0 => Ok(Self::Reply {
                channel: Take::take_as("channel", from)?,
                offset: Take::take_as("offset", from)?,
            }),
            _ => Take::take_as("message_id", from).map(Self::Message),
        };
    SentOutcome "sent outcome"
        |value, _name, to| match value {
            Self::Sent(message_id) => choose(0, "message_id", message_id, to),
            Self::Error { error, definite } => {
                choose(1, "error", error, to);
                definite.put_as("definite", to);
            }
        },
        |_name, from| match from.choice(&["message_id", "error"])? {
            0 => Take::take_as("message_id", from).map(Self::Sent),
            _ => Ok(Self::Error {
                error: Take::take_as("error", from)?,
                definite: Take::take_as("definite", from)?,
            }),
        };
}

fn choose<W: Writer>(number: u32, name: &str, value: &impl Put, to: &mut W) {
    to.choice(number);
    value.put_as(name, to);
}

/// The words of a window's state, by number.
const WINDOW_WORDS: [&str; 3] = ["unknown", "open", "closed"];

fn put_window<W: Writer>(window: Window, to: &mut W) {
    let [unknown, open, closed] = WINDOW_WORDS;
    let (number, word, expires_at) = match window {
        Window::Unknown => (0, unknown, None),
        Window::Open(until) => (1, open, Some(until)),
        Window::Closed(since) => (2, closed, Some(since)),
    };
    to.name("window");
    to.word(number, word);
    expires_at.put_as("window_expires_at", to);
}

fn take_window<'a, R: Reader<'a>>(from: &mut R) -> Result<Window, Fault> {
    from.name("window")?;
    let word = from.word(&WINDOW_WORDS)?;
    let expires_at = Option::<Timestamp>::take_as("window_expires_at", from)?;
    match (word, expires_at) {
        (0, None) => Ok(Window::Unknown),
        (1, Some(until)) => Ok(Window::Open(until)),
        (2, Some(since)) => Ok(Window::Closed(since)),
        _ => Err(Fault::value("window_expires_at", "is there exactly when `window` is not `unknown`")),
    }
}
