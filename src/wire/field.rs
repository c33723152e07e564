//! How values become fields of a message, whatever the encoding: what a value writes, and what it reads.
//!
//! Stands between the messages, which list their fields, and the encodings, which know how a number or a text looks.
//! A value says once in which order its parts stand; both encodings and the protocol document follow it.
//!
//! **Invariants:** what [`Put`] writes, [`Take`] reads as the same value. No [`Fault`] shows a value that was read.

use std::borrow::Cow;
use std::fmt::Display;

use bytes::Bytes;

use crate::domain::ids::{ChannelId, ConversationId, Offset};

/// Why a message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The bytes themselves do not hold together; only binary can be so broken.
    #[error("broken frame: `{0}` cannot be decoded")]
    Broken(&'static str),
    /// A field is missing or has a value that cannot be. For people; names the field and the limit, not the value.
    #[error("{0}")]
    Bad(String),
    /// An id that this broker never gave out, in a field of this name.
    #[error("`{0}`: there is no such thing")]
    Foreign(&'static str),
}

impl Fault {
    /// A field has a value that cannot be.
    pub(super) fn value(field: &str, problem: impl Display) -> Self {
        Self::Bad(format!("`{field}`: {problem}"))
    }
}

/// Puts values behind each other in one encoding.
pub(super) trait Writer {
    /// A member follows.
    fn name(&mut self, name: &str);
    /// An optional member follows.
    fn present(&mut self, name: &str);
    /// An optional member is left out.
    fn absent(&mut self);
    /// A member that is there and has no value.
    fn null(&mut self, name: &str);
    /// Members of the alternative with this number follow.
    fn choice(&mut self, number: u32);
    /// A truth.
    fn boolean(&mut self, value: bool);
    /// A member that JSON leaves out where it is false.
    fn flag(&mut self, name: &str, value: bool);
    /// A number.
    fn number(&mut self, value: u64);
    /// A text, in UTF-8.
    fn text(&mut self, text: &[u8]);
    /// A channel's id.
    fn channel(&mut self, id: ChannelId);
    /// A conversation's id.
    fn conversation(&mut self, id: ConversationId);
    /// JSON that stays as it is.
    fn raw(&mut self, json: &[u8]);
    /// One of a fixed set of words.
    fn word(&mut self, number: u32, word: &str);
    /// A list of so many elements follows.
    fn begin_list(&mut self, length: usize);
    /// An element of a list follows.
    fn element(&mut self);
    /// The list ends.
    fn end_list(&mut self);
    /// An object follows.
    fn begin_object(&mut self);
    /// The object ends.
    fn end_object(&mut self);
    /// An object that is one of several messages follows.
    fn begin_variant(&mut self, number: u32, name: &str);
    /// An optional member from channel to offset, left out where it has none.
    fn positions(&mut self, name: &str, positions: &[(ChannelId, Offset)]);
    /// Bytes that are in this encoding already.
    fn encoded(&mut self, bytes: &[u8]);
}

/// Takes values from one encoding; `'a` is the life of the frame.
pub(super) trait Reader<'a>: Sized {
    /// Goes to a member that must be there.
    fn name(&mut self, name: &'static str) -> Result<(), Fault>;
    /// Goes to a member, or tells that it was left out or is null.
    fn optional(&mut self, name: &'static str) -> Result<bool, Fault>;
    /// Goes to a member that only JSON may leave out.
    fn defaulted(&mut self, name: &'static str) -> Result<bool, Fault>;
    /// Which of the alternatives, each known by its first member, is there.
    fn choice(&mut self, alternatives: &[&'static str]) -> Result<usize, Fault>;
    /// A truth.
    fn boolean(&mut self) -> Result<bool, Fault>;
    /// A number.
    fn number(&mut self) -> Result<u64, Fault>;
    /// A number that fits 32 bits.
    fn small_number(&mut self) -> Result<u32, Fault>;
    /// A text.
    fn text(&mut self) -> Result<Cow<'a, str>, Fault>;
    /// A text that is an id: what `ascii` makes of its bytes, which need not be looked through as a text then; else the
    /// text.
    fn id<T>(&mut self, ascii: impl FnOnce(&[u8]) -> Option<T>) -> Result<Result<T, Cow<'a, str>>, Fault> {
        let text = self.text()?;
        Ok(ascii(text.as_bytes()).ok_or(text))
    }
    /// A channel's id; 0, and a note for the end, where it is one that this broker never gave out.
    fn channel(&mut self) -> Result<ChannelId, Fault>;
    /// A conversation's id, likewise.
    fn conversation(&mut self) -> Result<ConversationId, Fault>;
    /// JSON as it came.
    fn raw(&mut self) -> Result<Bytes, Fault>;
    /// Which of the words, by its place among them.
    fn word(&mut self, words: &[&'static str]) -> Result<usize, Fault>;
    /// The elements of a list.
    fn list<T>(&mut self, each: impl FnMut(&mut Self) -> Result<T, Fault>) -> Result<Vec<T>, Fault>;
    /// The members of an object.
    fn object<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault>;
    /// An object that is one of several messages: its variant's number, by its `type`, and its members.
    fn variant<T>(
        &mut self,
        names: &[(&'static str, u32)],
        inner: impl FnMut(u32, &mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault>;
    /// An optional member from channel to offset.
    fn positions(&mut self, name: &'static str) -> Result<Vec<(ChannelId, Offset)>, Fault>;
    /// What is wrong with the field that was read last.
    fn refuse(&self, problem: impl Display) -> Fault;
}

/// Can be written.
pub(super) trait Put {
    /// Writes the value where one value stands.
    fn put<W: Writer>(&self, to: &mut W);

    /// Writes it as a member of a message or object; some types are several members.
    fn put_as<W: Writer>(&self, name: &str, to: &mut W) {
        to.name(name);
        self.put(to);
    }
}

/// A message that can be written: which variant it is, and its fields.
pub(super) trait Fields {
    /// The variant's number and its name in JSON.
    fn variant(&self) -> (u32, &'static str);

    /// Writes the fields in their order.
    fn put_fields<W: Writer>(&self, to: &mut W);
}

/// Can be read.
pub(super) trait Take: Sized {
    /// The type's name in the protocol document.
    fn kind() -> String;

    /// Reads the value where one value stands.
    fn take<'a, R: Reader<'a>>(from: &mut R) -> Result<Self, Fault>;

    /// Reads it as a member of a message or object.
    fn take_as<'a, R: Reader<'a>>(name: &'static str, from: &mut R) -> Result<Self, Fault> {
        from.name(name)?;
        Self::take(from)
    }
}

impl<T: Put + ?Sized> Put for &T {
    fn put<W: Writer>(&self, to: &mut W) {
        (**self).put(to);
    }

    fn put_as<W: Writer>(&self, name: &str, to: &mut W) {
        (**self).put_as(name, to);
    }
}

/// Only ever a member; a list holds no optional elements.
impl<T: Put> Put for Option<T> {
    fn put<W: Writer>(&self, to: &mut W) {
        if let Some(value) = self {
            value.put(to);
        }
    }

    fn put_as<W: Writer>(&self, name: &str, to: &mut W) {
        match self {
            Some(value) => {
                to.present(name);
                value.put(to);
            }
            None => to.absent(),
        }
    }
}

impl<T: Take> Take for Option<T> {
    fn kind() -> String {
        format!("{}?", T::kind())
    }

    fn take<'a, R: Reader<'a>>(from: &mut R) -> Result<Self, Fault> {
        T::take(from).map(Some)
    }

    fn take_as<'a, R: Reader<'a>>(name: &'static str, from: &mut R) -> Result<Self, Fault> {
        if from.optional(name)? { T::take(from).map(Some) } else { Ok(None) }
    }
}

impl<T: Put> Put for [T] {
    fn put<W: Writer>(&self, to: &mut W) {
        to.begin_list(self.len());
        for value in self {
            to.element();
            value.put(to);
        }
        to.end_list();
    }
}

impl<T: Put> Put for Vec<T> {
    fn put<W: Writer>(&self, to: &mut W) {
        self.as_slice().put(to);
    }
}

impl<T: Take> Take for Vec<T> {
    fn kind() -> String {
        format!("[{}]", T::kind())
    }

    fn take<'a, R: Reader<'a>>(from: &mut R) -> Result<Self, Fault> {
        from.list(T::take)
    }
}
