//! The few shapes that payloads are made of: numbers, texts, bytes. Hand-written, so that the journal's format belongs
//! to nobody else and changes only when a kind of record does.
//!
//! ```text
//!  number   LEB128: seven bits a byte, lowest first, bit 7 set on all but the last; never longer than need be
//!  id128    16 bytes, little-endian
//!  text     number of bytes, UTF-8
//!  bytes    number of bytes, the bytes; read back as a slice of the buffer, never copied
//! ```

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::saved::{Put, Take, Unreadable};

/// Why a payload can not be read. Its checksum matched, so this is a newer broker's record or a defect, not damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The kind is none that this version knows.
    #[error("records of kind {0} are unknown to this version")]
    UnknownKind(u16),
    /// The payload ends too early.
    #[error("the payload ends within {0}")]
    Truncated(&'static str),
    /// The payload goes on behind its last field.
    #[error("the payload has {0} bytes too many")]
    Trailing(usize),
    /// A field has a value that it can not have.
    #[error("{0} has a value that it can not have")]
    Value(&'static str),
}

pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

pub(super) fn put_id128(out: &mut Vec<u8>, id: u128) {
    out.extend_from_slice(&id.to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// Reads a payload from front to back.
pub(super) struct Reader<'a> {
    whole: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(whole: &'a Bytes) -> Self {
        Self { whole, at: 0 }
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, PayloadError> {
        let byte = *self.whole.get(self.at).ok_or(PayloadError::Truncated(what))?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn number(&mut self, what: &'static str) -> Result<u64, PayloadError> {
        let mut number = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(PayloadError::Value(what));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                // One number has one spelling, so that a record has one as well.
                let padded = byte == 0 && shift > 0;
                return if padded { Err(PayloadError::Value(what)) } else { Ok(number) };
            }
        }
        Err(PayloadError::Value(what))
    }

    pub(super) fn number32(&mut self, what: &'static str) -> Result<u32, PayloadError> {
        u32::try_from(self.number(what)?).map_err(|_| PayloadError::Value(what))
    }

    pub(super) fn id128(&mut self, what: &'static str) -> Result<u128, PayloadError> {
        let raw = self.slice(16, what)?;
        raw.first_chunk().map(|raw| u128::from_le_bytes(*raw)).ok_or(PayloadError::Truncated(what))
    }

    /// How many of something follow. What follows has a byte each at least, so more than that are refused before
    /// anything is set aside for them.
    pub(super) fn count(&mut self, what: &'static str) -> Result<usize, PayloadError> {
        let count = usize::try_from(self.number(what)?).map_err(|_| PayloadError::Value(what))?;
        if count > self.whole.len() - self.at { Err(PayloadError::Truncated(what)) } else { Ok(count) }
    }

    pub(super) fn bytes(&mut self, what: &'static str) -> Result<Bytes, PayloadError> {
        let length = self.count(what)?;
        let from = self.at;
        self.at += length;
        Ok(self.whole.slice(from..self.at))
    }

    pub(super) fn text(&mut self, what: &'static str) -> Result<&'a str, PayloadError> {
        let length = self.count(what)?;
        std::str::from_utf8(self.slice(length, what)?).map_err(|_| PayloadError::Value(what))
    }

    pub(super) fn shared_text(&mut self, what: &'static str) -> Result<Arc<str>, PayloadError> {
        self.text(what).map(Arc::from)
    }

    /// Ends the reading.
    pub(super) fn end(self) -> Result<(), PayloadError> {
        match self.whole.len() - self.at {
            0 => Ok(()),
            left => Err(PayloadError::Trailing(left)),
        }
    }

    fn slice(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], PayloadError> {
        let slice = self.whole.get(self.at..self.at + length).ok_or(PayloadError::Truncated(what))?;
        self.at += length;
        Ok(slice)
    }
}

impl Put for Vec<u8> {
    fn number(&mut self, number: u64) {
        put_number(self, number);
    }

    fn wide(&mut self, number: u128) {
        put_id128(self, number);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        put_bytes(self, bytes);
    }
}

impl Take for Reader<'_> {
    fn number(&mut self) -> Result<u64, Unreadable> {
        Reader::number(self, "").map_err(|_| Unreadable("a number"))
    }

    fn wide(&mut self) -> Result<u128, Unreadable> {
        self.id128("").map_err(|_| Unreadable("a wide number"))
    }

    fn count(&mut self) -> Result<usize, Unreadable> {
        Reader::count(self, "").map_err(|_| Unreadable("a count"))
    }

    fn text(&mut self) -> Result<&str, Unreadable> {
        Reader::text(self, "").map_err(|_| Unreadable("a text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_spelling_and_the_whole_range() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            let bytes = Bytes::from(out);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.number("n"), Ok(number));
            assert_eq!(reader.end(), Ok(()));
        }
        for wrong in
            [&[0x80, 0x00][..], &[0xff; 10], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]]
        {
            let bytes = Bytes::copy_from_slice(wrong);
            assert_eq!(Reader::new(&bytes).number("n"), Err(PayloadError::Value("n")));
        }
    }

    #[test]
    fn a_length_past_the_end_is_refused_before_anything_is_set_aside() {
        let mut out = Vec::new();
        put_number(&mut out, u64::MAX / 2);
        let bytes = Bytes::from(out);
        assert_eq!(Reader::new(&bytes).bytes("b"), Err(PayloadError::Truncated("b")));
        assert_eq!(Reader::new(&bytes).text("t"), Err(PayloadError::Truncated("t")));
    }
}
