//! The JSON encoding: one object a message, with its `type`.
//!
//! A message is read in two steps: its outermost members are found, as slices of the line, then each field reads its
//! own. So `type` and `id` may stand anywhere, content stays the bytes that it was, and nothing unknown is looked at.
//!
//! **Invariants:** a line that is written holds no byte below 0x20. A member that is read must not stand twice, since
//! readers disagree about which of the two counts. What is kept while a message is read is its members, a few bytes for
//! each byte of the line, and gone with the reader.

use std::borrow::Cow;
use std::fmt::Display;

use bytes::{Bytes, BytesMut};

use crate::domain::ids::{ChannelId, ConversationId, ID_BYTES_MAX, IdError, Offset};

use super::field::{Fault, Reader, Writer};
use super::members::{Member, elements_of, members_of};
use super::staged::Staged;

/// What a message has before its content, in bytes, at most as a rule.
const STAGED_BYTES: usize = 384;

/// Writes values behind what `out` holds.
pub(super) struct JsonWriter<'b> {
    out: Staged<'b, STAGED_BYTES>,
}

impl<'b> JsonWriter<'b> {
    #[inline]
    pub(super) fn new(out: &'b mut BytesMut) -> Self {
        Self { out: Staged::new(out) }
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        self.out.push(bytes);
    }

    /// A comma, unless an object or a list has just begun.
    #[inline]
    fn part(&mut self) {
        if !matches!(self.out.last(), Some(b'{' | b'[')) {
            self.push(b",");
        }
    }

    /// The hexadecimal digits of an id's bytes, behind a prefix.
    fn hexadecimal<const BYTES: usize>(&mut self, prefix: &[u8], id: [u8; BYTES]) {
        let mut text = [[0_u8; 2]; BYTES];
        for (pair, byte) in text.iter_mut().zip(id) {
            *pair = digits(byte);
        }
        self.push(b"\"");
        self.push(prefix);
        self.push(text.as_flattened());
        self.push(b"\"");
    }

    fn escaped(&mut self, bytes: &[u8]) {
        // Without an early end, the look at all bytes is one of vectors.
        if bytes.iter().fold(true, |all, byte| all & is_plain(*byte)) {
            return self.push(bytes);
        }
        let mut written = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if is_plain(*byte) {
                continue;
            }
            self.push(bytes.get(written..at).unwrap_or_default());
            written = at + 1;
            match byte {
                b'"' => self.push(b"\\\""),
                b'\\' => self.push(b"\\\\"),
                b'\n' => self.push(b"\\n"),
                b'\r' => self.push(b"\\r"),
                b'\t' => self.push(b"\\t"),
                _ => {
                    self.push(b"\\u00");
                    self.push(&digits(*byte));
                }
            }
        }
        self.push(bytes.get(written..).unwrap_or_default());
    }
}

/// A byte's two hexadecimal digits.
#[inline]
fn digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [byte >> 4, byte & 0xf].map(|half| DIGITS.get(usize::from(half)).copied().unwrap_or_default())
}

/// Whether a byte stands in a JSON string as it is.
#[inline]
fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

impl Writer for JsonWriter<'_> {
    #[inline]
    fn name(&mut self, name: &str) {
        self.part();
        self.push(b"\"");
        self.push(name.as_bytes());
        self.push(b"\":");
    }

    #[inline]
    fn present(&mut self, name: &str) {
        self.name(name);
    }

    fn absent(&mut self) {}

    fn null(&mut self, name: &str) {
        self.name(name);
        self.push(b"null");
    }

    fn choice(&mut self, _: u32) {}

    fn boolean(&mut self, value: bool) {
        self.push(if value { b"true" } else { b"false" });
    }

    fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.name(name);
            self.boolean(true);
        }
    }

    fn number(&mut self, value: u64) {
        // 20 digits hold every u64.
        let mut text = [0_u8; 20];
        let mut rest = value;
        let mut count = 0;
        for digit in text.iter_mut().rev() {
            // A remainder of ten fits a byte.
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            count += 1;
            if rest == 0 {
                break;
            }
        }
        self.push(text.get(20 - count..).unwrap_or_default());
    }

    #[inline]
    fn text(&mut self, text: &[u8]) {
        self.push(b"\"");
        self.escaped(text);
        self.push(b"\"");
    }

    fn channel(&mut self, id: ChannelId) {
        self.hexadecimal(b"ch-", id.0.to_be_bytes());
    }

    fn conversation(&mut self, id: ConversationId) {
        self.hexadecimal(b"cv-", id.0.to_be_bytes());
    }

    fn raw(&mut self, json: &[u8]) {
        if json.iter().fold(true, |all, byte| all & (*byte >= 0x20)) {
            return self.push(json);
        }
        // Content that the broker has checked has no such byte; a client's may be laid out over lines. In JSON it
        // stands between tokens only, where a blank says the same.
        let on_one_line: Vec<u8> = json.iter().map(|byte| (*byte).max(b' ')).collect();
        self.push(&on_one_line);
    }

    fn word(&mut self, _: u32, word: &str) {
        self.push(b"\"");
        self.push(word.as_bytes());
        self.push(b"\"");
    }

    fn begin_list(&mut self, _: usize) {
        self.push(b"[");
    }

    #[inline]
    fn element(&mut self) {
        self.part();
    }

    fn end_list(&mut self) {
        self.push(b"]");
    }

    fn begin_object(&mut self) {
        self.push(b"{");
    }

    fn end_object(&mut self) {
        self.push(b"}");
    }

    #[inline]
    fn begin_variant(&mut self, _: u32, name: &str) {
        self.push(b"{\"type\":\"");
        self.push(name.as_bytes());
        self.push(b"\"");
    }

    fn positions(&mut self, name: &str, positions: &[(ChannelId, Offset)]) {
        if positions.is_empty() {
            return;
        }
        self.name(name);
        self.begin_object();
        for (channel, offset) in positions {
            self.part();
            self.channel(*channel);
            self.push(b":");
            self.number(offset.0);
        }
        self.end_object();
    }

    fn encoded(&mut self, bytes: &[u8]) {
        self.push(bytes);
    }
}

/// Reads the members of one object at a time; at first those of the message.
pub(super) struct JsonReader<'a> {
    frame: &'a Bytes,
    members: Vec<Member<'a>>,
    /// Where the next name asked for stands, if members come in the order of the fields.
    next: usize,
    /// The value that is being read, and the field that it belongs to.
    value: &'a str,
    field: &'static str,
    /// The first field with an id that this broker never gave out.
    foreign: Option<&'static str>,
}

impl<'a> JsonReader<'a> {
    /// Finds the members of a message.
    pub(super) fn new(frame: &'a Bytes) -> Result<Self, Fault> {
        let text = simdutf8::basic::from_utf8(frame).map_err(|_| Fault::Bad("not UTF-8".to_owned()))?;
        let members = members_of(text).map_err(|problem| Fault::Bad(problem.in_a_message()))?;
        Ok(Self { frame, members, next: 0, value: "", field: "type", foreign: None })
    }

    /// The first field with an id that this broker never gave out.
    pub(super) fn foreign(&self) -> Option<&'static str> {
        self.foreign
    }

    /// The message's `id`: nothing, where it has none or null.
    pub(super) fn id(&mut self) -> Result<Option<u64>, Fault> {
        if self.optional("id")? { self.number().map(Some) } else { Ok(None) }
    }

    /// The message's `type`, unescaped.
    pub(super) fn type_name(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.name("type")?;
        self.text()
    }

    /// Whether the message has a member of this name that is not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.name == name && member.value != "null")
    }

    /// Where the message's members begin to be read anew, because it may be another variant.
    pub(super) fn rewind(&mut self) {
        self.next = 0;
        self.foreign = None;
        for member in &mut self.members {
            member.is_taken = false;
        }
        for name in ["id", "type"] {
            if let Some(member) = self.members.iter_mut().find(|member| member.name == name) {
                member.is_taken = true;
            }
        }
    }

    /// Looks at what nobody has asked for: a second value of something that was read is refused.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        let taken = self.members.iter().filter(|member| member.is_taken).count();
        if taken == self.members.len() {
            return Ok(());
        }
        let taken: Vec<&str> =
            self.members.iter().filter(|member| member.is_taken).map(|member| &*member.name).collect();
        let mut others = self.members.iter().filter(|member| !member.is_taken);
        if others.any(|other| taken.contains(&&*other.name)) {
            return Err(Fault::Bad("a field stands twice".to_owned()));
        }
        Ok(())
    }

    /// Goes to the member of this name, if it is there and not null.
    fn seek(&mut self, name: &'static str) -> bool {
        self.field = name;
        let expected = self.members.get(self.next).filter(|member| member.name == name).map(|_| self.next);
        let found = expected.or_else(|| self.members.iter().position(|member| member.name == name));
        let Some((at, member)) = found.and_then(|at| Some((at, self.members.get_mut(at)?))) else {
            return false;
        };
        member.is_taken = true;
        self.value = member.value;
        self.next = at + 1;
        member.value != "null"
    }

    fn id_text<T: std::str::FromStr<Err = IdError>>(&mut self, never_given: T) -> Result<T, Fault> {
        let text = self.text()?;
        match text.parse() {
            Ok(id) => Ok(id),
            Err(_) if is_id(&text) => {
                self.foreign = self.foreign.or(Some(self.field));
                Ok(never_given)
            }
            Err(error) => Err(self.refuse(error)),
        }
    }
}

/// Whether a text could be an id of somebody's.
fn is_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    !text.is_empty() && text.len() <= ID_BYTES_MAX && text.bytes().all(plain)
}

impl<'a> Reader<'a> for JsonReader<'a> {
    fn name(&mut self, name: &'static str) -> Result<(), Fault> {
        if self.seek(name) { Ok(()) } else { Err(self.refuse("is missing")) }
    }

    fn optional(&mut self, name: &'static str) -> Result<bool, Fault> {
        Ok(self.seek(name))
    }

    fn defaulted(&mut self, name: &'static str) -> Result<bool, Fault> {
        Ok(self.seek(name))
    }

    fn choice(&mut self, alternatives: &[&'static str]) -> Result<usize, Fault> {
        let mut there = alternatives.iter().enumerate().filter(|(_, name)| self.has(name));
        match (there.next(), there.next()) {
            (Some((alternative, _)), None) => Ok(alternative),
            _ => Err(Fault::Bad(format!("exactly one of `{}` must be there", alternatives.join("`, `")))),
        }
    }

    fn boolean(&mut self) -> Result<bool, Fault> {
        match self.value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.refuse("must be true or false")),
        }
    }

    fn number(&mut self) -> Result<u64, Fault> {
        self.value.parse().map_err(|_| self.refuse("must be a whole number from 0 to 2^64 − 1"))
    }

    fn small_number(&mut self) -> Result<u32, Fault> {
        self.value.parse().map_err(|_| self.refuse("must be a whole number from 0 to 2^32 − 1"))
    }

    fn text(&mut self) -> Result<Cow<'a, str>, Fault> {
        let inner = self.value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match inner {
            Some(inner) if memchr::memchr(b'\\', inner.as_bytes()).is_none() => Ok(Cow::Borrowed(inner)),
            Some(_) => serde_json::from_str(self.value)
                .map(Cow::Owned)
                .map_err(|_| self.refuse("has an escape that is no character")),
            None => Err(self.refuse("must be a string")),
        }
    }

    fn channel(&mut self) -> Result<ChannelId, Fault> {
        self.id_text(ChannelId(0))
    }

    fn conversation(&mut self) -> Result<ConversationId, Fault> {
        self.id_text(ConversationId(0))
    }

    fn raw(&mut self) -> Result<Bytes, Fault> {
        Ok(self.frame.slice_ref(self.value.as_bytes()))
    }

    fn word(&mut self, words: &[&'static str]) -> Result<usize, Fault> {
        let text = self.text()?;
        words
            .iter()
            .position(|word| *word == text)
            .ok_or_else(|| self.refuse(format_args!("must be one of {}", words.join(", "))))
    }

    fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        let (field, mut read) = (self.field, Vec::new());
        for element in elements_of(self.value).map_err(|()| self.refuse("must be a list"))? {
            (self.field, self.value) = (field, element);
            read.push(each(self)?);
        }
        Ok(read)
    }

    fn object<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        let field = self.field;
        let members = members_of(self.value).map_err(|_| self.refuse("must be an object"))?;
        let outer = std::mem::replace(&mut self.members, members);
        let next = std::mem::take(&mut self.next);
        let read = inner(self).and_then(|read| self.finish().map(|()| read));
        (self.members, self.next, self.field) = (outer, next, field);
        read
    }

    fn variant<T>(
        &mut self,
        names: &[(&'static str, u32)],
        mut inner: impl FnMut(u32, &mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.object(|from| {
            let name = from.type_name()?;
            let number = names.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
            let number = number.ok_or_else(|| from.refuse("is not known"))?;
            inner(number, from)
        })
    }

    fn positions(&mut self, name: &'static str) -> Result<Vec<(ChannelId, Offset)>, Fault> {
        if !self.seek(name) {
            return Ok(Vec::new());
        }
        let members = members_of(self.value).map_err(|_| self.refuse("must be an object"))?;
        let mut positions = Vec::with_capacity(members.len());
        for member in members {
            self.value = member.value;
            let offset = Offset(self.number()?);
            match member.name.parse() {
                Ok(channel) => positions.push((channel, offset)),
                // Where a channel that never was stands is nothing to begin at.
                Err(_) if is_id(&member.name) => {}
                Err(error) => return Err(self.refuse(error)),
            }
        }
        Ok(positions)
    }

    fn refuse(&self, problem: impl Display) -> Fault {
        Fault::value(self.field, problem)
    }
}
