//! The binary encoding: bincode 2, `standard()`, value by value.
//!
//! ```text
//! message   id | variant's number | fields, one behind the other, without names
//! integer   up to 250 one byte; else 251, 252, 253 or 254 and 2, 4, 8 or 16 bytes, little-endian
//! text      length | bytes          list   length | elements          optional   0, or 1 and the value
//! ```
//!
//! **Invariants:** nothing is allocated for a length before its bytes are seen to be there; texts and content are
//! slices of the frame. After the first fault nothing more is read.

use std::borrow::Cow;
use std::fmt::Display;

use bincode::config::Configuration;
use bincode::de::read::{BorrowReader as _, Reader as _, SliceReader};
use bincode::de::{BorrowDecoder as _, Decode, Decoder, DecoderImpl};
use bytes::{Bytes, BytesMut};

use crate::domain::ids::{ChannelId, ConversationId, Offset};

use super::field::{Fault, Reader, Writer};
use super::staged::Staged;

/// What a message has before its content, in bytes, at most as a rule.
const STAGED_BYTES: usize = 192;

/// Writes values behind what `out` holds, as bincode would: a test compares them.
pub(super) struct BinaryWriter<'b>(Staged<'b, STAGED_BYTES>);

impl<'b> BinaryWriter<'b> {
    #[inline]
    pub(super) fn new(out: &'b mut BytesMut) -> Self {
        Self(Staged::new(out))
    }

    #[inline]
    fn byte(&mut self, value: u8) {
        self.0.push(&[value]);
    }

    #[inline]
    fn integer(&mut self, value: u64) {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        match value {
            0..=250 => self.0.push(&[a]),
            251..=0xffff => self.0.push(&[251, a, b]),
            0x1_0000..=0xffff_ffff => self.0.push(&[252, a, b, c, d]),
            _ => self.0.push(&[253, a, b, c, d, e, f, g, h]),
        }
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.integer(bytes.len() as u64);
        self.0.push(bytes);
    }
}

impl Writer for BinaryWriter<'_> {
    fn name(&mut self, _: &str) {}

    #[inline]
    fn present(&mut self, _: &str) {
        self.byte(1);
    }

    #[inline]
    fn absent(&mut self) {
        self.byte(0);
    }

    fn null(&mut self, _: &str) {
        self.absent();
    }

    fn choice(&mut self, number: u32) {
        self.integer(u64::from(number));
    }

    #[inline]
    fn boolean(&mut self, value: bool) {
        self.byte(u8::from(value));
    }

    #[inline]
    fn flag(&mut self, _: &str, value: bool) {
        self.byte(u8::from(value));
    }

    #[inline]
    fn number(&mut self, value: u64) {
        self.integer(value);
    }

    #[inline]
    fn text(&mut self, text: &[u8]) {
        self.bytes(text);
    }

    #[inline]
    fn channel(&mut self, id: ChannelId) {
        match u64::try_from(id.0) {
            Ok(small) => self.integer(small),
            Err(_) => {
                self.byte(254);
                self.0.push(&id.0.to_le_bytes());
            }
        }
    }

    #[inline]
    fn conversation(&mut self, id: ConversationId) {
        self.integer(id.0);
    }

    #[inline]
    fn raw(&mut self, json: &[u8]) {
        self.bytes(json);
    }

    fn word(&mut self, number: u32, _: &str) {
        self.integer(u64::from(number));
    }

    fn begin_list(&mut self, length: usize) {
        self.integer(length as u64);
    }

    fn element(&mut self) {}

    fn end_list(&mut self) {}

    fn begin_object(&mut self) {}

    fn end_object(&mut self) {}

    fn begin_variant(&mut self, number: u32, _: &str) {
        self.integer(u64::from(number));
    }

    fn positions(&mut self, _: &str, positions: &[(ChannelId, Offset)]) {
        self.begin_list(positions.len());
        for (channel, offset) in positions {
            self.channel(*channel);
            self.number(offset.0);
        }
    }

    fn encoded(&mut self, bytes: &[u8]) {
        self.0.push(bytes);
    }
}

/// The largest number that has no byte before it which says how many follow.
const ONE_BYTE_MAX: u8 = 250;

/// Reads the values of one frame.
pub(super) struct BinaryReader<'a> {
    frame: &'a Bytes,
    decoder: DecoderImpl<SliceReader<'a>, Configuration, ()>,
    /// The field that is being read.
    field: &'static str,
}

impl<'a> BinaryReader<'a> {
    pub(super) fn new(frame: &'a Bytes) -> Self {
        let decoder = DecoderImpl::new(SliceReader::new(frame), bincode::config::standard(), ());
        Self { frame, decoder, field: "id" }
    }

    /// The variant's number of the message that follows.
    pub(super) fn variant_number(&mut self) -> Result<u32, Fault> {
        self.field = "variant";
        self.decode()
    }

    /// Whether bytes are left.
    pub(super) fn has_more(&mut self) -> bool {
        self.decoder.reader().peek_read(1).is_some()
    }

    fn decode<T: Decode<()>>(&mut self) -> Result<T, Fault> {
        T::decode(&mut self.decoder).map_err(|_| Fault::Broken(self.field))
    }

    /// A number of one byte, as most are; nothing, and nothing read, where it has more.
    #[inline]
    fn small(&mut self) -> Option<u8> {
        let number = *self.decoder.reader().peek_read(1)?.first().filter(|byte| **byte <= ONE_BYTE_MAX)?;
        self.decoder.reader().consume(1);
        Some(number)
    }

    /// Bytes behind their length.
    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(self.number()?).map_err(|_| Fault::Broken(self.field))?;
        self.decoder.borrow_reader().take_bytes(length).map_err(|_| Fault::Broken(self.field))
    }
}

impl<'a> Reader<'a> for BinaryReader<'a> {
    fn name(&mut self, name: &'static str) -> Result<(), Fault> {
        self.field = name;
        Ok(())
    }

    #[inline]
    fn optional(&mut self, name: &'static str) -> Result<bool, Fault> {
        self.field = name;
        match self.small() {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            _ => Err(Fault::Broken(name)),
        }
    }

    fn defaulted(&mut self, name: &'static str) -> Result<bool, Fault> {
        self.field = name;
        Ok(true)
    }

    fn choice(&mut self, alternatives: &[&'static str]) -> Result<usize, Fault> {
        self.field = alternatives.first().copied().unwrap_or_default();
        let number = self.decode::<u32>()? as usize;
        if number < alternatives.len() { Ok(number) } else { Err(self.refuse("no such alternative")) }
    }

    fn boolean(&mut self) -> Result<bool, Fault> {
        self.decode()
    }

    #[inline]
    fn number(&mut self) -> Result<u64, Fault> {
        match self.small() {
            Some(number) => Ok(u64::from(number)),
            None => self.decode(),
        }
    }

    fn small_number(&mut self) -> Result<u32, Fault> {
        self.decode()
    }

    fn text(&mut self) -> Result<Cow<'a, str>, Fault> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Fault::Broken(self.field))
    }

    #[inline]
    fn id<T>(&mut self, ascii: impl FnOnce(&[u8]) -> Option<T>) -> Result<Result<T, Cow<'a, str>>, Fault> {
        let bytes = self.bytes()?;
        match ascii(bytes) {
            Some(id) => Ok(Ok(id)),
            None => std::str::from_utf8(bytes)
                .map(|text| Err(Cow::Borrowed(text)))
                .map_err(|_| Fault::Broken(self.field)),
        }
    }

    fn channel(&mut self) -> Result<ChannelId, Fault> {
        self.decode().map(ChannelId)
    }

    fn conversation(&mut self) -> Result<ConversationId, Fault> {
        self.decode().map(ConversationId)
    }

    fn raw(&mut self) -> Result<Bytes, Fault> {
        let slice = self.bytes()?;
        Ok(self.frame.slice_ref(slice))
    }

    fn word(&mut self, words: &[&'static str]) -> Result<usize, Fault> {
        let number = self.decode::<u32>()? as usize;
        if number < words.len() { Ok(number) } else { Err(self.refuse("no such word")) }
    }

    fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        let length = self.decode::<u64>()?;
        // Grows with what is read: a length alone allocates nothing.
        let mut elements = Vec::new();
        for _ in 0..length {
            elements.push(each(self)?);
        }
        Ok(elements)
    }

    fn object<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        inner(self)
    }

    fn variant<T>(
        &mut self,
        _: &[(&'static str, u32)],
        mut inner: impl FnMut(u32, &mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let number = self.variant_number()?;
        inner(number, self)
    }

    fn positions(&mut self, name: &'static str) -> Result<Vec<(ChannelId, Offset)>, Fault> {
        self.field = name;
        self.list(|from| Ok((from.channel()?, Offset(from.number()?))))
    }

    fn refuse(&self, problem: impl Display) -> Fault {
        Fault::value(self.field, problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BinaryWriter<'_>)) -> Vec<u8> {
        let mut out = BytesMut::new();
        let mut to = BinaryWriter::new(&mut out);
        write(&mut to);
        drop(to);
        out.to_vec()
    }

    fn by_bincode(value: impl bincode::enc::Encode) -> Vec<u8> {
        bincode::encode_to_vec(value, bincode::config::standard()).unwrap()
    }

    #[test]
    fn values_are_written_as_bincode_writes_them() {
        for shift in 0..64 {
            for near in [-6, -5, -1, 0, 1] {
                let value = (1_u64 << shift).wrapping_add_signed(near);
                assert_eq!(written(|to| to.number(value)), by_bincode(value), "{value}");
                assert_eq!(written(|to| to.conversation(ConversationId(value))), by_bincode(value));
                for id in [u128::from(value), u128::from(value) << 64 | 7] {
                    assert_eq!(written(|to| to.channel(ChannelId(id))), by_bincode(id), "{id}");
                }
            }
        }
        for length in [0, 1, 250, 251, 252, 600, 70_000] {
            let text = "x".repeat(length);
            assert_eq!(written(|to| to.text(text.as_bytes())), by_bincode(text.as_str()), "{length}");
            assert_eq!(written(|to| to.raw(text.as_bytes())), by_bincode(text.as_bytes()), "{length}");
            assert_eq!(written(|to| to.begin_list(length)), by_bincode(length as u64));
        }
        for value in [true, false] {
            assert_eq!(written(|to| to.boolean(value)), by_bincode(value));
            assert_eq!(written(|to| to.flag("", value)), by_bincode(value));
        }
        for number in [0_u32, 3, 250, 251, 100_000] {
            let wanted = by_bincode(number);
            assert_eq!(written(|to| to.choice(number)), wanted);
            assert_eq!(written(|to| to.word(number, "")), wanted);
            assert_eq!(written(|to| to.begin_variant(number, "")), wanted);
        }
        assert_eq!(written(|to| to.present("")), by_bincode(Some(())));
        assert_eq!(written(|to| to.absent()), by_bincode(None::<()>));
    }
}
