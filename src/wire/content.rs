//! The check of a message object, once, at the edge: what comes in is bytes, what goes out is [`Content`].
//!
//! Invariants: what passes is one JSON object in UTF-8 with a string `type`, within the limits, and holds no byte
//! below 0x20, so that it fits a JSON line as it is. What its redaction leaves is again such an object. A name that
//! decides something must not stand twice, since readers disagree about which of the two counts; of names that are
//! cut, every one is. Names are compared after unescaping. No error shows what the content says.

use std::borrow::Cow;
use std::ops::Range;
use std::str::Utf8Error;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::content::{CARRIED_BYTES_MAX, CONTENT_BYTES_MAX, CONTENT_DEPTH_MAX, Carried, Content};
use crate::domain::ids::MessageId;
use crate::wire::{outermost, redaction};

/// Names that the gateway gives a reply, and that a service therefore may not.
const ADDRESS_NAMES: [&str; 4] = ["to", "recipient", "recipient_type", "messaging_product"];
/// What a service wrote for itself and gets back in the statuses.
const CALLBACK_DATA: &str = "biz_opaque_callback_data";

/// What is taken out of a status object: a receipt has fields of its own for it, and what the request said of itself is
/// between who sent it and WhatsApp.
pub const OF_STATUS: [&str; 4] = ["id", "status", "timestamp", CALLBACK_DATA];

/// A customer's message object that passed.
#[derive(Debug)]
pub struct CheckedInbound {
    /// The object, with what a redacted copy leaves out.
    pub content: Content,
    /// The message that it answers, reacts to, edits or takes back; none, too, where it is no message id.
    pub refers_to: Option<MessageId>,
}

/// A reply's message object that passed.
#[derive(Debug)]
pub struct CheckedReply {
    /// The object, without the callback data. Nothing in it is cut: who may not see all of it sees none (R19).
    pub content: Content,
    /// The value of `biz_opaque_callback_data`, unescaped.
    pub callback_data: Option<Bytes>,
}

/// Why a message object was refused.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Over [`CONTENT_BYTES_MAX`]: `too_large`. All but this and the next is `bad_message`.
    #[error("content of {bytes} bytes is over the limit of {CONTENT_BYTES_MAX}")]
    TooLarge {
        /// Its size as it came.
        bytes: usize,
    },
    /// The other members of a status over [`CARRIED_BYTES_MAX`]: `too_large`.
    #[error("details of {bytes} bytes are over the limit of {CARRIED_BYTES_MAX}")]
    DetailsTooLarge {
        /// Their size.
        bytes: usize,
    },
    /// Nested deeper than [`CONTENT_DEPTH_MAX`].
    #[error("content is nested deeper than {CONTENT_DEPTH_MAX}")]
    TooDeep,
    /// Not UTF-8.
    #[error("content is not utf-8")]
    NotUtf8(#[source] Utf8Error),
    /// Not JSON, or one of its names cannot be unescaped.
    #[error("content is not json")]
    NotJson(#[source] serde_json::Error),
    /// JSON, perhaps, but no object.
    #[error("content is not an object")]
    NotObject,
    /// No `type`, or one that is not a string.
    #[error("content has no string `type`")]
    NoType,
    /// The value of `type` is written with escapes; WhatsApp's types need none.
    #[error("the `type` of content is written with escapes")]
    EscapedType,
    /// A name that decides something stands twice.
    #[error("content has `{name}` more than once")]
    Repeated {
        /// Which one.
        name: &'static str,
    },
    /// A reply brings what the gateway adds.
    #[error("content of a reply must not have `{name}`")]
    Addressed {
        /// Which one.
        name: &'static str,
    },
    /// The callback data are not a string.
    #[error("`{CALLBACK_DATA}` is not a string")]
    CallbackData,
}

impl ContentError {
    /// Whether the answer is `too_large` instead of `bad_message`.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::DetailsTooLarge { .. })
    }
}

/// Checks what a customer wrote or did.
///
/// # Errors
/// When it is not a message object within the limits.
pub fn check_inbound(raw: &Bytes) -> Result<CheckedInbound, ContentError> {
    let formed = Formed::of(raw)?;
    let text = formed.text();
    let mut found = Found::default();
    found.read(text)?;
    let kind = found.kind(text)?;
    let refers_to = found.refers_to(text)?;
    let mut cuts = Vec::new();
    if found.may_be_redactable {
        let found = redaction::cuts(text, redaction::WRITTEN_FOR_MACHINES).map_err(ContentError::NotJson)?;
        cuts = found.iter().map(stored).collect::<Result<Vec<_>, _>>()?;
    }
    let content = Content::checked(formed.bytes(), kind, &cuts);
    Ok(CheckedInbound { content, refers_to })
}

/// Checks the value of a webhook change that is neither message nor status: any object within the limits. It has no
/// `type` of WhatsApp's, so its kind is empty.
///
/// # Errors
/// When it is no object, or over a limit.
pub fn check_notice(raw: &Bytes) -> Result<Content, ContentError> {
    let formed = Formed::shallow(raw)?;
    for_each_member(formed.text(), |_, _| ()).map_err(ContentError::NotJson)?;
    Ok(Content::checked(formed.bytes(), 0..0, &[]))
}

/// Checks the other members of WhatsApp's status object; those of [`OF_STATUS`] are taken out. Nothing, where none is left.
///
/// # Errors
/// When it is no object, or over a limit.
pub fn check_details(raw: &Bytes) -> Result<Option<Carried>, ContentError> {
    let formed = Formed::shallow(raw)?;
    let rules = OF_STATUS.map(|name| (name, redaction::Rule::Cut));
    let cuts = redaction::cuts(formed.text(), &rules).map_err(ContentError::NotJson)?;
    let rest = redaction::without(formed.text(), &cuts);
    // Every member has a name.
    if !rest.contains('"') {
        return Ok(None);
    }
    if rest.len() > CARRIED_BYTES_MAX {
        return Err(ContentError::DetailsTooLarge { bytes: rest.len() });
    }
    Ok(Some(Carried::checked(Bytes::from(rest))))
}

/// Checks what a service wants sent, and takes its callback data out.
///
/// # Errors
/// When it is not a message object within the limits, or has what only the gateway may add.
pub fn check_reply(raw: &Bytes) -> Result<CheckedReply, ContentError> {
    let formed = Formed::of(raw)?;
    let text = formed.text();
    let mut found = Found::default();
    found.read(text)?;
    if let Some(name) = found.addressed {
        return Err(ContentError::Addressed { name });
    }
    let kind = found.kind(text)?;
    let Some(callback_data) = &found.callback_data else {
        return Ok(CheckedReply {
            content: Content::checked(formed.bytes(), kind, &[]),
            callback_data: None,
        });
    };
    let callback_data: String =
        serde_json::from_str(piece(text, callback_data)).map_err(|_| ContentError::CallbackData)?;
    let cuts =
        redaction::cuts(text, &[(CALLBACK_DATA, redaction::Rule::Cut)]).map_err(ContentError::NotJson)?;
    let rest = redaction::without(text, &cuts);
    let mut left = Found::default();
    left.read(&rest)?;
    let kind = left.kind(&rest)?;
    Ok(CheckedReply {
        content: Content::checked(Bytes::from(rest), kind, &[]),
        callback_data: Some(Bytes::from(callback_data)),
    })
}

/// One member of an object at a time: its name unescaped, and where its value stands in `text`.
///
/// # Errors
/// When `text` is not one JSON object, or a name cannot be unescaped.
pub(super) fn for_each_member(
    text: &str,
    each: impl FnMut(&str, Range<usize>),
) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    serde::Deserializer::deserialize_map(&mut reader, Members { text, each })?;
    reader.end()
}

/// What stands in `range`; nothing, if it is no range of `text`.
pub(super) fn piece<'t>(text: &'t str, range: &Range<usize>) -> &'t str {
    text.get(range.clone()).unwrap_or_default()
}

/// A name, borrowed where it holds no escape.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct Members<'t, F> {
    /// What the values are slices of.
    text: &'t str,
    each: F,
}

impl<'de, F: FnMut(&str, Range<usize>)> serde::de::Visitor<'de> for Members<'de, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            let value = map.next_value::<&'de RawValue>()?.get();
            // A borrowed raw value is a slice of the text, so its address tells where it stands.
            let start = value.as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
            (self.each)(&name, start..start + value.len());
        }
        Ok(())
    }
}

/// What one pass over the outermost names finds.
#[derive(Default)]
struct Found {
    kind: Option<Range<usize>>,
    context: Option<Range<usize>>,
    reaction: Option<Range<usize>>,
    edit: Option<Range<usize>>,
    revoke: Option<Range<usize>>,
    callback_data: Option<Range<usize>>,
    /// A name that a reply may not have.
    addressed: Option<&'static str>,
    /// There is a name under which services write for machines.
    may_be_redactable: bool,
    /// A name that decides something and stands twice.
    repeated: Option<&'static str>,
}

impl Found {
    /// Looks through `text`. What it says is nested no deeper than it may.
    fn read(&mut self, text: &str) -> Result<(), ContentError> {
        if outermost::members(text, |name, value| self.note(name, value)).is_none() {
            // Rare, or no JSON: read slowly, and refused with a reason.
            check_depth(text)?;
            *self = Self::default();
            for_each_member(text, |name, value| self.note(name, value)).map_err(ContentError::NotJson)?;
        }
        match self.repeated {
            Some(name) => Err(ContentError::Repeated { name }),
            None => Ok(()),
        }
    }

    fn note(&mut self, name: &str, value: Range<usize>) {
        let (slot, name) = match name {
            "type" => (&mut self.kind, "type"),
            "context" => (&mut self.context, "context"),
            "reaction" => (&mut self.reaction, "reaction"),
            "edit" => (&mut self.edit, "edit"),
            "revoke" => (&mut self.revoke, "revoke"),
            CALLBACK_DATA => (&mut self.callback_data, CALLBACK_DATA),
            other => {
                self.may_be_redactable |=
                    redaction::WRITTEN_FOR_MACHINES.iter().any(|(name, _)| *name == other);
                if let Some(name) = ADDRESS_NAMES.iter().find(|name| **name == other) {
                    self.addressed = Some(name);
                }
                return;
            }
        };
        if slot.replace(value).is_some() {
            self.repeated = Some(name);
        }
    }

    /// The message that it answers, reacts to, edits or takes back.
    fn refers_to(&self, text: &str) -> Result<Option<MessageId>, ContentError> {
        for (range, outer, name) in [
            (&self.context, "context", "id"),
            (&self.reaction, "reaction", "message_id"),
            (&self.edit, "edit", "original_message_id"),
            (&self.revoke, "revoke", "original_message_id"),
        ] {
            if let Some(range) = range
                && let Some(id) = referred(text, range, outer, name)?
            {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Where the value of `type` stands, without its quotes.
    fn kind(&self, text: &str) -> Result<Range<u32>, ContentError> {
        let range = self.kind.as_ref().ok_or(ContentError::NoType)?;
        let value = piece(text, range);
        let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let inner = inner.ok_or(ContentError::NoType)?;
        if inner.contains('\\') {
            return Err(ContentError::EscapedType);
        }
        stored(&(range.start + 1..range.start + 1 + inner.len()))
    }
}

/// The message id `name` in the object that stands in `range`, if it is one.
fn referred(
    text: &str,
    range: &Range<usize>,
    outer: &'static str,
    name: &str,
) -> Result<Option<MessageId>, ContentError> {
    let object = piece(text, range);
    if !object.starts_with('{') {
        return Ok(None);
    }
    let mut values = Vec::new();
    for_each_member(object, |member, value| {
        if member == name {
            values.push(value);
        }
    })
    .map_err(ContentError::NotJson)?;
    match values.as_slice() {
        [] => Ok(None),
        [value] => {
            let id = serde_json::from_str::<Cow<'_, str>>(piece(object, value)).ok();
            Ok(id.and_then(|id| id.parse().ok()))
        }
        _ => Err(ContentError::Repeated { name: outer }),
    }
}

/// What came, as far as it is checked without reading it: within the limit of its size, without white space around it,
/// and with none in it where some is below 0x20.
struct Formed<'r> {
    raw: &'r Bytes,
    text: Cow<'r, str>,
}

impl<'r> Formed<'r> {
    fn of(raw: &'r Bytes) -> Result<Self, ContentError> {
        Ok(Self { raw, text: well_formed(raw)? })
    }

    /// As [`of`](Self::of), and nested no deeper than it may: for what [`Found`] does not look through.
    fn shallow(raw: &'r Bytes) -> Result<Self, ContentError> {
        let formed = Self::of(raw)?;
        check_depth(formed.text())?;
        Ok(formed)
    }

    fn text(&self) -> &str {
        &self.text
    }

    fn bytes(self) -> Bytes {
        match self.text {
            Cow::Borrowed(text) => self.raw.slice_ref(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        }
    }
}

fn well_formed(raw: &Bytes) -> Result<Cow<'_, str>, ContentError> {
    if raw.len() > CONTENT_BYTES_MAX {
        return Err(ContentError::TooLarge { bytes: raw.len() });
    }
    let text = utf8(raw)?;
    let is_bare = raw.first() == Some(&b'{') && raw.last() == Some(&b'}');
    let text = if is_bare { text } else { text.trim_matches([' ', '\t', '\n', '\r']) };
    if !text.starts_with('{') {
        return Err(ContentError::NotObject);
    }
    // Without an early end, so that it runs over many bytes at once: nearly always there is none.
    if !text.bytes().fold(false, |found, byte| found | (byte < 0x20)) {
        return Ok(Cow::Borrowed(text));
    }
    check_depth(text)?;
    // Checked before it is compacted: without its white space, `1 2` would pass as a number.
    for_each_member(text, |_, _| ()).map_err(ContentError::NotJson)?;
    let compacted = String::from_utf8(compacted(text));
    compacted.map(Cow::Owned).map_err(|error| ContentError::NotUtf8(error.utf8_error()))
}

/// The fast check does not say where it failed; what is refused is read again, for the reason.
fn utf8(bytes: &[u8]) -> Result<&str, ContentError> {
    simdutf8::basic::from_utf8(bytes).or_else(|_| std::str::from_utf8(bytes)).map_err(ContentError::NotUtf8)
}

/// Tells bytes within strings from bytes between tokens, in text that is JSON or will be refused later.
#[derive(Default)]
struct Quotes {
    in_string: bool,
    escaped: bool,
}

impl Quotes {
    /// Whether `byte`, the next one, stands outside of strings.
    fn is_outside(&mut self, byte: u8) -> bool {
        if !self.in_string {
            self.in_string = byte == b'"';
            return !self.in_string;
        }
        if self.escaped {
            self.escaped = false;
        } else if byte == b'\\' {
            self.escaped = true;
        } else if byte == b'"' {
            self.in_string = false;
        }
        false
    }
}

fn check_depth(text: &str) -> Result<(), ContentError> {
    if is_too_deep(text) { Err(ContentError::TooDeep) } else { Ok(()) }
}

fn is_too_deep(text: &str) -> bool {
    // What opens less often than that, in strings or out of them, can not be nested deeper.
    if memchr::memchr2_iter(b'{', b'[', text.as_bytes()).take(CONTENT_DEPTH_MAX + 1).count()
        <= CONTENT_DEPTH_MAX
    {
        return false;
    }
    let mut quotes = Quotes::default();
    let mut depth = 0_usize;
    for byte in text.bytes().filter(|byte| quotes.is_outside(*byte)) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > CONTENT_DEPTH_MAX {
            return true;
        }
    }
    false
}

fn compacted(text: &str) -> Vec<u8> {
    let mut quotes = Quotes::default();
    text.bytes()
        .filter(|byte| !(quotes.is_outside(*byte) && matches!(byte, b' ' | b'\t' | b'\n' | b'\r')))
        .collect()
}

/// A range as content keeps it. Content is far shorter than 4 GiB, so this fails for none.
fn stored(range: &Range<usize>) -> Result<Range<u32>, ContentError> {
    let place = |at: usize| u32::try_from(at).map_err(|_| ContentError::TooLarge { bytes: at });
    Ok(place(range.start)?..place(range.end)?)
}

#[cfg(test)]
mod tests;
