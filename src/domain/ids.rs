//! The names of things: newtypes that cannot be mixed up and that check themselves when they are made.
//!
//! Owns the limits of every id. What a person could be recognised by (customers' ids, agents) hides itself in
//! `Debug`; `expose()` can be searched for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::text::Text;

/// Longest portal, service, gateway or adapter id, in bytes (contract: ids 1–64 of `[A-Za-z0-9._:-]`).
pub const ID_BYTES_MAX: usize = 64;
/// Longest agent or reply id, in bytes (contract: 1–128 bytes).
pub const AGENT_ID_BYTES_MAX: usize = 128;
/// Longest display name of an agent or a customer, in bytes (contract: 256).
pub const NAME_BYTES_MAX: usize = 256;
/// Longest message id, in bytes. Meta's `wamid.` ids are about 60 bytes long; the rest is room.
pub const MESSAGE_ID_BYTES_MAX: usize = 256;
/// Longest name of a customer, in bytes: a `user_id` is two letters, an optional `ENT.` and up to 128 characters.
pub const CUSTOMER_NAME_BYTES_MAX: usize = 192;

/// Why a text is no id of the wanted sort.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It is empty or too long.
    #[error("{what} must have 1 to {max} bytes, has {len}")]
    Length {
        /// Which sort of id.
        what: &'static str,
        /// The longest allowed, in bytes.
        max: usize,
        /// The length given, in bytes.
        len: usize,
    },
    /// It has a character that its sort does not allow.
    #[error("{what} has a character that is not allowed: {allowed}")]
    Character {
        /// Which sort of id.
        what: &'static str,
        /// What is allowed, for people.
        allowed: &'static str,
    },
}

fn check_length(what: &'static str, text: &str, max: usize) -> Result<(), IdError> {
    if text.is_empty() || text.len() > max {
        return Err(IdError::Length { what, max, len: text.len() });
    }
    Ok(())
}

fn check_plain(what: &'static str, text: &str) -> Result<(), IdError> {
    check_length(what, text, ID_BYTES_MAX)?;
    if !PLAIN.has_all(text.as_bytes()) {
        return Err(IdError::Character { what, allowed: "[A-Za-z0-9._:-]" });
    }
    Ok(())
}

fn check_printable(what: &'static str, text: &str, max: usize) -> Result<(), IdError> {
    check_length(what, text, max)?;
    // Most are ASCII: a look at their bytes takes a tenth of the time.
    if !is_printable_ascii(text.as_bytes()) && text.chars().any(char::is_control) {
        return Err(IdError::Character { what, allowed: "no control characters" });
    }
    Ok(())
}

/// Bytes that a text may have: one look into a table for each of its bytes, since ids are read for every message.
struct Allowed([bool; 256]);

const ALPHANUMERIC: [(u8, u8); 3] = [(b'0', b'9'), (b'A', b'Z'), (b'a', b'z')];
static PLAIN: Allowed = Allowed::of(&ALPHANUMERIC, b"._:-");
static IN_CUSTOMER_NAMES: Allowed = Allowed::of(&ALPHANUMERIC, b"._-");
static DIGITS: Allowed = Allowed::of(&[(b'0', b'9')], b"");

impl Allowed {
    /// Those in ranges, which have both their ends, and some more.
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses what lies outside")]
    const fn of(ranges: &[(u8, u8)], more: &[u8]) -> Self {
        let mut bytes = [false; 256];
        let mut at = 0;
        while at < ranges.len() {
            let (mut byte, last) = ranges[at];
            while byte <= last {
                bytes[byte as usize] = true;
                byte += 1;
            }
            at += 1;
        }
        at = 0;
        while at < more.len() {
            bytes[more[at] as usize] = true;
            at += 1;
        }
        Self(bytes)
    }

    fn has_all(&self, text: &[u8]) -> bool {
        text.iter().fold(true, |all, byte| all & self.0.get(usize::from(*byte)).copied().unwrap_or(false))
    }
}

/// Many bytes at once: without an early end.
fn is_printable_ascii(text: &[u8]) -> bool {
    text.iter().fold(true, |all, byte| all & (byte.wrapping_sub(b' ') <= b'~' - b' '))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident($kept:ty), $check:expr, $debug:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($kept);

        impl $name {
            /// The text, for wire and journal; not for logs where the type hides itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text in UTF-8: for the hot path, where a text kept in its place is not looked through again.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }

            /// Takes a text that was checked when it was written to the journal.
            #[must_use]
            pub fn trusted(text: &str) -> Self {
                Self(<$kept>::from(text))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> Result<(), IdError> = $check;
                check(text)?;
                Ok(Self(<$kept>::from(text)))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let debug: fn(&str, &mut fmt::Formatter<'_>) -> fmt::Result = $debug;
                debug(&self.0, f)
            }
        }
    };
}

fn shown(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(text)
}

fn hidden(_: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("<hidden>")
}

/// What stands in a debug text in place of something that must not be printed.
pub(crate) struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

text_id!(
    /// One customer organisation; nothing ever crosses from one portal to another.
    PortalId(Arc<str>), |t| check_plain("portal id", t), shown
);
text_id!(
    /// A product of a portal that joins a number.
    ServiceId(Arc<str>), |t| check_plain("service id", t), shown
);
text_id!(
    /// A program that connects the broker to WhatsApp.
    GatewayId(Arc<str>), |t| check_plain("gateway id", t), shown
);
text_id!(
    /// One process of a service: unique within it.
    AdapterId(Arc<str>), |t| check_plain("adapter name", t), shown
);
text_id!(
    /// A person who works in one or more services of a portal: the same id in two services is the same person.
    AgentId(Arc<str>), |t| check_printable("agent id", t, AGENT_ID_BYTES_MAX), hidden
);
text_id!(
    /// A reply's name, chosen by its service and unique for it in one channel for 8 days (B4).
    ReplyId(Arc<str>), |t| check_printable("reply id", t, AGENT_ID_BYTES_MAX), shown
);
text_id!(
    /// WhatsApp's id of a message.
    MessageId(Text<MESSAGE_ID_ROOM>), |t| check_printable("message id", t, MESSAGE_ID_BYTES_MAX), shown
);
text_id!(
    /// One of a customer's names: a `user_id` (it contains a dot) or a `wa_id` (digits, no `+`).
    CustomerName(Text<CUSTOMER_NAME_ROOM>), check_customer_name, hidden
);

impl MessageId {
    /// Takes what is ASCII, as nearly all of them are, without looking through it as a text; nothing, where it is not, or
    /// is no message id.
    #[must_use]
    pub fn of_ascii(bytes: &[u8]) -> Option<Self> {
        let fits = (1..=MESSAGE_ID_BYTES_MAX).contains(&bytes.len());
        (fits && is_printable_ascii(bytes)).then(|| Text::of_checked(bytes).map(Self))?
    }
}

/// What the `reply_id` of a reply written on the phone begins with (B17); services may not use it.
pub const ECHO_PREFIX: &str = "echo:";

fn check_customer_name(text: &str) -> Result<(), IdError> {
    check_length("customer id", text, CUSTOMER_NAME_BYTES_MAX)?;
    if !IN_CUSTOMER_NAMES.has_all(text.as_bytes()) {
        return Err(IdError::Character { what: "customer id", allowed: "[A-Za-z0-9._-]" });
    }
    Ok(())
}

/// Room of a message id in its place, in bytes: the usual ones fit, so that a message's ids cost no allocation.
const MESSAGE_ID_ROOM: usize = 78;
/// Room of a customer's name in its place, in bytes: a `wa_id` has up to 15, a usual `user_id` 23.
const CUSTOMER_NAME_ROOM: usize = 30;

impl CustomerName {
    /// Reads a customer's name as others write it: a leading `+` is dropped.
    ///
    /// # Errors
    /// When what is left is empty, too long or has other characters than letters, digits, `.`, `_` and `-`.
    pub fn read(text: &str) -> Result<Self, IdError> {
        text.strip_prefix('+').unwrap_or(text).parse()
    }

    /// As [`read`](Self::read), of bytes that need not be a text; nothing, where they are no customer's name.
    #[must_use]
    pub fn of_ascii(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(b"+").unwrap_or(bytes);
        let fits = (1..=CUSTOMER_NAME_BYTES_MAX).contains(&bytes.len());
        (fits && IN_CUSTOMER_NAMES.has_all(bytes)).then(|| Text::of_checked(bytes).map(Self))?
    }

    /// Whether this is a business-scoped `user_id`: those contain a dot, a `wa_id` never does.
    #[must_use]
    pub fn is_user_id(&self) -> bool {
        // A search made for long texts takes longer than the few bytes.
        self.as_bytes().iter().fold(false, |found, byte| found | (*byte == b'.'))
    }
}

/// A WhatsApp Business number in E.164, with its `+`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number(Text<NUMBER_BYTES_MAX>);

/// Longest number, in bytes: its `+` and 15 digits (E.164).
const NUMBER_BYTES_MAX: usize = 16;

impl Number {
    /// The text, `+` and digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Takes a text that was checked when it was written to the journal.
    #[must_use]
    pub fn trusted(text: &str) -> Self {
        Self(Text::from(text))
    }

    /// Takes bytes that need not be a text; nothing, where they are no number.
    #[must_use]
    pub fn of_ascii(bytes: &[u8]) -> Option<Self> {
        let digits = bytes.strip_prefix(b"+")?;
        let is_number = (7..=15).contains(&digits.len()) && DIGITS.has_all(digits);
        is_number.then(|| Text::of_checked(bytes).map(Self))?
    }
}

impl FromStr for Number {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let allowed = "+ and 7 to 15 digits (E.164)";
        Self::of_ascii(text.as_bytes()).ok_or(IdError::Character { what: "number", allowed })
    }
}

/// A business number is the portal's own and public; it may stand in the operator's log.
impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! shown_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
shown_as_text!(PortalId, ServiceId, GatewayId, AdapterId, Number);

/// A channel's id: random, so that nobody guesses one, and never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub u128);

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ch-{:032x}", self.0)
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChannelId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        hex_after(text, "ch-", 32)
            .and_then(|hex| u128::from_str_radix(hex, 16).ok())
            .map(Self)
            .ok_or(IdError::Character { what: "channel id", allowed: "ch- and 32 hexadecimal digits" })
    }
}

/// A conversation's id: opaque, holds no number, never changes, unique in its channel and scattered over channels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationId(pub u64);

impl ConversationId {
    /// The id of the conversation that begins with the record at `first` of `channel`.
    ///
    /// For one channel this is a bijection of the offset, so two conversations never share an id.
    #[must_use]
    pub fn derive(channel: ChannelId, first: Offset) -> Self {
        let seed = (channel.0 >> 64) as u64;
        // The finaliser of splitmix64: each step can be undone, so the whole is a bijection.
        let mut mixed = first.0.wrapping_add(seed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(mixed ^ (mixed >> 31))
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cv-{:016x}", self.0)
    }
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ConversationId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        hex_after(text, "cv-", 16)
            .and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .map(Self)
            .ok_or(IdError::Character { what: "conversation id", allowed: "cv- and 16 hexadecimal digits" })
    }
}

fn hex_after<'a>(text: &'a str, prefix: &str, digits: usize) -> Option<&'a str> {
    let hex = text.strip_prefix(prefix)?;
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (hex.len() == digits && hex.bytes().all(lower_hex)).then_some(hex)
}

/// A position in a channel's part of the journal; the first record has 1, and 0 is before them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// Before the first record.
    pub const ZERO: Self = Self(0);

    /// The offset behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The offset before this one; zero has none and stays.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A moment, in milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This moment and `later_ms` milliseconds; stays in range.
    #[must_use]
    pub fn plus_ms(self, later_ms: u64) -> Self {
        Self(self.0.saturating_add(later_ms))
    }

    /// How many milliseconds lie between `earlier` and this moment; 0 if it is not earlier.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_refuse_what_the_contract_refuses() {
        assert!("crm".parse::<ServiceId>().is_ok());
        assert!("a.b_c:d-9".parse::<ServiceId>().is_ok());
        assert_eq!(
            "".parse::<ServiceId>(),
            Err(IdError::Length { what: "service id", max: ID_BYTES_MAX, len: 0 })
        );
        assert!("x".repeat(64).parse::<ServiceId>().is_ok());
        assert!("x".repeat(65).parse::<ServiceId>().is_err());
        assert!("a b".parse::<ServiceId>().is_err());
        assert!("ä".parse::<ServiceId>().is_err());
        assert!("x".repeat(128).parse::<AgentId>().is_ok());
        assert!("x".repeat(129).parse::<AgentId>().is_err());
        assert!("a\u{1b}[31m".parse::<AgentId>().is_err());
    }

    proptest! {
        /// What is taken by its bytes is what is taken as a text, and nothing that is ASCII is left to the text.
        #[test]
        fn bytes_are_taken_as_their_text_is(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..24),
                "\\+?[0-9]{6,17}".prop_map(String::into_bytes),
                "\\+?[A-Za-z0-9._-]{0,40}.?".prop_map(String::into_bytes),
                "[ -~]{70,90}|[ -~]{250,260}|[a-z.]{185,200}".prop_map(String::into_bytes),
            ],
        ) {
            let text = std::str::from_utf8(&bytes).ok().filter(|text| text.is_ascii());
            let of = |id: Option<MessageId>| id.map(|id| id.as_str().to_owned());
            prop_assert_eq!(of(MessageId::of_ascii(&bytes)), of(text.and_then(|text| text.parse().ok())));
            prop_assert_eq!(CustomerName::of_ascii(&bytes), text.and_then(|text| CustomerName::read(text).ok()));
            let digits = text.and_then(|text| text.strip_prefix('+'));
            let is_number = digits.is_some_and(|digits| {
                (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
            });
            prop_assert_eq!(Number::of_ascii(&bytes), text.filter(|_| is_number).map(Number::trusted));
        }
    }

    #[test]
    fn numbers_are_e164() {
        assert!("+15550783881".parse::<Number>().is_ok());
        for wrong in ["15550783881", "+", "+1", "+1555078388112345", "+1555o783881"] {
            assert!(wrong.parse::<Number>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_person_could_be_recognised_by_hides_itself() {
        let agent: AgentId = "ann".parse().unwrap();
        let customer = CustomerName::read("+16505551234").unwrap();
        assert_eq!(format!("{agent:?} {customer:?}"), "<hidden> <hidden>");
        assert_eq!(customer.as_str(), "16505551234");
        assert!(!customer.is_user_id());
        assert!(CustomerName::read("US.13491208655302741918").unwrap().is_user_id());
    }

    #[test]
    fn generated_ids_read_back_and_never_meet_in_a_channel() {
        let channel = ChannelId(0x1234_5678_9abc_def0_1111_2222_3333_4444);
        assert_eq!(channel.to_string().parse(), Ok(channel));
        let mut seen = std::collections::BTreeSet::new();
        for offset in 1..10_000 {
            let id = ConversationId::derive(channel, Offset(offset));
            assert_eq!(id.to_string().parse(), Ok(id));
            assert!(seen.insert(id));
        }
        assert_ne!(
            ConversationId::derive(channel, Offset(1)),
            ConversationId::derive(ChannelId(7 << 64), Offset(1))
        );
    }
}
