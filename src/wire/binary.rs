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
use bincode::de::read::{Reader as _, SliceReader};
use bincode::de::{BorrowDecode, Decode, Decoder, DecoderImpl};
use bincode::enc::{Encode, Encoder, EncoderImpl};
use bytes::{Bytes, BytesMut};

use crate::domain::ids::{ChannelId, ConversationId, Offset};

use super::field::{Fault, Reader, Writer};
use super::staged::Staged;

/// Appends to a buffer, which never fails.
struct Sink<'b>(Staged<'b>);

impl bincode::enc::write::Writer for Sink<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.push(bytes);
        Ok(())
    }
}

/// Writes values behind what `out` holds.
pub(super) struct BinaryWriter<'b> {
    encoder: EncoderImpl<Sink<'b>, Configuration>,
}

impl<'b> BinaryWriter<'b> {
    pub(super) fn new(out: &'b mut BytesMut) -> Self {
        Self { encoder: EncoderImpl::new(Sink(Staged::new(out)), bincode::config::standard()) }
    }

    #[inline]
    fn encode<T: Encode + ?Sized>(&mut self, value: &T) {
        let written = value.encode(&mut self.encoder);
        debug_assert!(written.is_ok(), "neither the sink nor a number, text or list of bytes can fail");
    }
}

impl Writer for BinaryWriter<'_> {
    fn name(&mut self, _: &str) {}

    #[inline]
    fn present(&mut self, _: &str) {
        self.encode(&1_u8);
    }

    #[inline]
    fn absent(&mut self) {
        self.encode(&0_u8);
    }

    fn null(&mut self, _: &str) {
        self.absent();
    }

    fn choice(&mut self, number: u32) {
        self.encode(&number);
    }

    #[inline]
    fn boolean(&mut self, value: bool) {
        self.encode(&value);
    }

    #[inline]
    fn flag(&mut self, _: &str, value: bool) {
        self.encode(&value);
    }

    #[inline]
    fn number(&mut self, value: u64) {
        self.encode(&value);
    }

    #[inline]
    fn text(&mut self, text: &[u8]) {
        self.encode(text);
    }

    #[inline]
    fn channel(&mut self, id: ChannelId) {
        self.encode(&id.0);
    }

    #[inline]
    fn conversation(&mut self, id: ConversationId) {
        self.encode(&id.0);
    }

    #[inline]
    fn raw(&mut self, json: &[u8]) {
        self.encode(json);
    }

    fn word(&mut self, number: u32, _: &str) {
        self.encode(&number);
    }

    fn begin_list(&mut self, length: usize) {
        self.encode(&(length as u64));
    }

    fn element(&mut self) {}

    fn end_list(&mut self) {}

    fn begin_object(&mut self) {}

    fn end_object(&mut self) {}

    fn begin_variant(&mut self, number: u32, _: &str) {
        self.encode(&number);
    }

    fn positions(&mut self, _: &str, positions: &[(ChannelId, Offset)]) {
        self.begin_list(positions.len());
        for (channel, offset) in positions {
            self.channel(*channel);
            self.number(offset.0);
        }
    }

    fn encoded(&mut self, bytes: &[u8]) {
        self.encoder.writer().0.push(bytes);
    }
}

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

    fn borrow<T: BorrowDecode<'a, ()>>(&mut self) -> Result<T, Fault> {
        T::borrow_decode(&mut self.decoder).map_err(|_| Fault::Broken(self.field))
    }
}

impl<'a> Reader<'a> for BinaryReader<'a> {
    fn name(&mut self, name: &'static str) -> Result<(), Fault> {
        self.field = name;
        Ok(())
    }

    fn optional(&mut self, name: &'static str) -> Result<bool, Fault> {
        self.field = name;
        match self.decode::<u8>()? {
            0 => Ok(false),
            1 => Ok(true),
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

    fn number(&mut self) -> Result<u64, Fault> {
        self.decode()
    }

    fn small_number(&mut self) -> Result<u32, Fault> {
        self.decode()
    }

    fn text(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.borrow::<&'a str>().map(Cow::Borrowed)
    }

    fn channel(&mut self) -> Result<ChannelId, Fault> {
        self.decode().map(ChannelId)
    }

    fn conversation(&mut self) -> Result<ConversationId, Fault> {
        self.decode().map(ConversationId)
    }

    fn raw(&mut self) -> Result<Bytes, Fault> {
        let slice = self.borrow::<&'a [u8]>()?;
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
