//! Splits what a connection reads into messages, without reading itself: JSON lines, or frames after `SLN1`.
//!
//! It stands before every decoder and knows nothing of what a message says. The first byte tells the encoding.
//!
//! ```text
//! JSON lines   {"type": … }\n{"type": … }\n …
//! binary       S L N 1 | length: u32, big-endian | length bytes | length | …
//! ```
//!
//! Invariants: no message over the limit in force is ever returned, and one is refused as soon as its length shows,
//! before its bytes are here. A refusal takes nothing out of the buffer, so it is given again; it ends the connection.

use bytes::{Buf, Bytes, BytesMut};

/// Longest line or frame before `hello`, in bytes (contract: 4 KiB): strangers cost no more memory than that.
pub const FRAME_BYTES_MAX_BEFORE_HELLO: usize = 4 << 10;
/// Longest line (without its `\n`) or frame (without its length) after `hello`, in bytes (contract: 1 MiB).
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// What a client of the binary encoding sends first, once.
pub const BINARY_PREFACE: [u8; 4] = *b"SLN1";
/// Bytes that a frame's length takes.
pub const FRAME_HEAD_BYTES: usize = 4;

/// How a connection writes its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// One JSON object a line.
    JsonLines,
    /// Length and bincode.
    Binary,
}

/// Why a connection's bytes cannot be split any further; each ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte is neither `{` nor `S`.
    #[error("first byte {byte:#04x} begins no known encoding")]
    UnknownEncoding {
        /// The byte.
        byte: u8,
    },
    /// It began with `S` but not with [`BINARY_PREFACE`].
    #[error("preface is not `SLN1`")]
    BadPreface,
    /// A line or frame over the limit in force: `too_large`.
    #[error("line or frame is over the limit of {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The connection ended within a preface, line or frame.
    #[error("connection ended within a line or frame, after {bytes} bytes of it")]
    Truncated {
        /// What was there of it.
        bytes: usize,
    },
}

/// Splits one connection's bytes.
#[derive(Debug)]
pub struct Splitter {
    /// Unknown until the first byte, for binary until the whole preface, is here.
    encoding: Option<Encoding>,
    /// The limit in force.
    limit: usize,
    /// How much of the buffer is known to hold no line end, so that no byte is searched twice.
    searched: usize,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new()
    }
}

impl Splitter {
    /// Begins a connection: encoding unknown, limit [`FRAME_BYTES_MAX_BEFORE_HELLO`].
    #[must_use]
    pub fn new() -> Self {
        Self { encoding: None, limit: FRAME_BYTES_MAX_BEFORE_HELLO, searched: 0 }
    }

    /// Begins a connection that carries JSON alone, whatever its first byte: text frames of a WebSocket, each with a
    /// line end behind it.
    #[must_use]
    pub fn of_text_frames() -> Self {
        Self { encoding: Some(Encoding::JsonLines), limit: FRAME_BYTES_MAX_BEFORE_HELLO, searched: 0 }
    }

    /// Begins at a client: what the broker sends is in the encoding that the client has chosen, and has no preface.
    #[must_use]
    pub fn of_server(encoding: Encoding) -> Self {
        Self { encoding: Some(encoding), limit: FRAME_BYTES_MAX, searched: 0 }
    }

    /// From here, because `hello` was accepted, the limit is [`FRAME_BYTES_MAX`].
    pub fn accept_hello(&mut self) {
        self.limit = FRAME_BYTES_MAX;
    }

    /// The encoding, once it is known: the broker answers in the same.
    #[must_use]
    pub fn encoding(&self) -> Option<Encoding> {
        self.encoding
    }

    /// Takes the next message out of `buffer`, without its line end or length; nothing, while it is not all here.
    ///
    /// The caller appends to one and the same buffer what it reads, and takes nothing out of it itself. A line may
    /// be empty or no JSON, a frame may be empty: that is for the decoder to say.
    ///
    /// # Errors
    /// When the bytes begin no known encoding, or the next message is over the limit.
    pub fn next_message(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let encoding = match self.encoding {
            Some(encoding) => encoding,
            None => {
                let Some(encoding) = recognise(buffer)? else { return Ok(None) };
                *self.encoding.insert(encoding)
            }
        };
        match encoding {
            Encoding::JsonLines => self.next_line(buffer),
            Encoding::Binary => self.next_frame(buffer),
        }
    }

    /// Tells, at the end of the connection, whether it ended between messages.
    ///
    /// # Errors
    /// When `buffer`, after [`Self::next_message`] gave nothing more, still holds part of one.
    pub fn finish(&self, buffer: &BytesMut) -> Result<(), FrameError> {
        if buffer.is_empty() { Ok(()) } else { Err(FrameError::Truncated { bytes: buffer.len() }) }
    }

    fn next_line(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let fresh = buffer.get(self.searched..).unwrap_or_default();
        let Some(found) = memchr::memchr(b'\n', fresh) else {
            if buffer.len() > self.limit {
                return Err(FrameError::TooLong { limit: self.limit });
            }
            self.searched = buffer.len();
            return Ok(None);
        };
        let length = self.searched + found;
        if length > self.limit {
            return Err(FrameError::TooLong { limit: self.limit });
        }
        self.searched = 0;
        let line = buffer.split_to(length).freeze();
        buffer.advance(1);
        Ok(Some(line))
    }

    fn next_frame(&self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Some(head) = buffer.first_chunk::<FRAME_HEAD_BYTES>() else { return Ok(None) };
        let too_long = FrameError::TooLong { limit: self.limit };
        let length = usize::try_from(u32::from_be_bytes(*head)).map_err(|_| too_long)?;
        if length > self.limit {
            return Err(too_long);
        }
        if buffer.len() - FRAME_HEAD_BYTES < length {
            return Ok(None);
        }
        buffer.advance(FRAME_HEAD_BYTES);
        Ok(Some(buffer.split_to(length).freeze()))
    }
}

/// Tells the encoding by the first byte, and takes the preface out once it is all here.
fn recognise(buffer: &mut BytesMut) -> Result<Option<Encoding>, FrameError> {
    match buffer.first() {
        None => Ok(None),
        Some(b'{') => Ok(Some(Encoding::JsonLines)),
        Some(b'S') => {
            let here = buffer.len().min(BINARY_PREFACE.len());
            if buffer.get(..here) != BINARY_PREFACE.get(..here) {
                return Err(FrameError::BadPreface);
            }
            if here < BINARY_PREFACE.len() {
                return Ok(None);
            }
            buffer.advance(here);
            Ok(Some(Encoding::Binary))
        }
        Some(&byte) => Err(FrameError::UnknownEncoding { byte }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
    }

    fn split(splitter: &mut Splitter, buffer: &mut BytesMut) -> Vec<Bytes> {
        std::iter::from_fn(|| splitter.next_message(buffer).unwrap()).collect()
    }

    #[test]
    fn the_first_byte_tells_the_encoding() {
        let mut lines = Splitter::new();
        assert_eq!(lines.encoding(), None);
        let mut buffer = BytesMut::from("{\"a\":1}\r\n\nnot json\n{");
        assert_eq!(split(&mut lines, &mut buffer), ["{\"a\":1}\r", "", "not json"]);
        assert_eq!(lines.encoding(), Some(Encoding::JsonLines));
        assert_eq!(lines.finish(&buffer), Err(FrameError::Truncated { bytes: 1 }));

        let mut binary = Splitter::new();
        let mut buffer = BytesMut::from(&b"SLN1\x00\x00\x00\x02a\n\x00\x00\x00\x00\x00\x00\x00\x01b"[..]);
        assert_eq!(split(&mut binary, &mut buffer), ["a\n", "", "b"]);
        assert_eq!(binary.encoding(), Some(Encoding::Binary));
        assert_eq!(binary.finish(&buffer), Ok(()));
    }

    #[test]
    fn other_first_bytes_are_refused_again_and_again() {
        for (bytes, error) in [
            (&b"GET / HTTP/1.1\r\n"[..], FrameError::UnknownEncoding { byte: b'G' }),
            (b"\n{}\n", FrameError::UnknownEncoding { byte: b'\n' }),
            (b"SLN2", FrameError::BadPreface),
            (b"SX", FrameError::BadPreface),
        ] {
            let (mut splitter, mut buffer) = (Splitter::new(), BytesMut::from(bytes));
            assert_eq!(splitter.next_message(&mut buffer), Err(error));
            assert_eq!(splitter.next_message(&mut buffer), Err(error));
        }
    }

    #[test]
    fn a_message_passes_at_the_limit_and_not_past_it() {
        for (limit, is_greeted) in [(FRAME_BYTES_MAX_BEFORE_HELLO, false), (FRAME_BYTES_MAX, true)] {
            let splitter = || {
                let mut splitter = Splitter::new();
                if is_greeted {
                    splitter.accept_hello();
                }
                splitter
            };
            let long = vec![b'{'; limit];
            let mut line = BytesMut::from(&[&long[..], b"\n"].concat()[..]);
            assert_eq!(splitter().next_message(&mut line).unwrap().unwrap(), long);
            let mut framed = BytesMut::from(&[&b"SLN1"[..], &frame(&long)].concat()[..]);
            assert_eq!(splitter().next_message(&mut framed).unwrap().unwrap(), long);

            let error = FrameError::TooLong { limit };
            let mut ended = BytesMut::from(&[&long[..], b"{\n"].concat()[..]);
            assert_eq!(splitter().next_message(&mut ended), Err(error));
            let mut endless = BytesMut::from(&[&long[..], b"{"].concat()[..]);
            assert_eq!(splitter().next_message(&mut endless), Err(error));
            let head = u32::try_from(limit + 1).unwrap().to_be_bytes();
            let mut head_alone = BytesMut::from(&[&b"SLN1"[..], &head].concat()[..]);
            assert_eq!(splitter().next_message(&mut head_alone), Err(error));
            assert_eq!(head_alone, head[..]);
        }
        let mut most = BytesMut::from(&b"SLN1\xff\xff\xff\xff"[..]);
        let error = FrameError::TooLong { limit: FRAME_BYTES_MAX_BEFORE_HELLO };
        assert_eq!(Splitter::new().next_message(&mut most), Err(error));
    }

    #[test]
    fn the_limit_rises_between_two_messages_of_one_read() {
        let mut splitter = Splitter::new();
        let long = "x".repeat(FRAME_BYTES_MAX_BEFORE_HELLO + 1);
        let mut buffer = BytesMut::from(format!("{{}}\n{long}\n").as_bytes());
        assert_eq!(splitter.next_message(&mut buffer).unwrap().unwrap(), "{}");
        assert!(splitter.next_message(&mut buffer).is_err());
        splitter.accept_hello();
        assert_eq!(splitter.next_message(&mut buffer).unwrap().unwrap(), long);
    }

    #[test]
    fn an_end_at_any_byte_of_a_message_is_told() {
        for whole in [[&b"SLN1"[..], &frame(b"abc")].concat(), b"{\"a\":1}\n".to_vec()] {
            for end in 1..whole.len() {
                let (mut splitter, mut buffer) = (Splitter::new(), BytesMut::from(&whole[..end]));
                assert_eq!(splitter.next_message(&mut buffer), Ok(None));
                // After the preface alone nothing of a message is here.
                let left = if whole.starts_with(b"S") && end >= 4 { end - 4 } else { end };
                let told = if left == 0 { Ok(()) } else { Err(FrameError::Truncated { bytes: left }) };
                assert_eq!(splitter.finish(&buffer), told);
            }
        }
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_read(
            bodies in vec(vec(any::<u8>().prop_filter("no line end", |byte| *byte != b'\n'), 0..40), 1..8),
            reads in vec(1_usize..30, 1..8),
            is_binary in any::<bool>(),
        ) {
            let (bodies, bytes) = if is_binary {
                let frames: Vec<_> = bodies.iter().map(|body| frame(body)).collect();
                (bodies, [&b"SLN1"[..], &frames.concat()].concat())
            } else {
                let lines: Vec<_> = bodies.iter().map(|body| [&b"{"[..], body].concat()).collect();
                let bytes = lines.iter().flat_map(|line| [&line[..], b"\n"].concat()).collect();
                (lines, bytes)
            };
            let (mut splitter, mut buffer, mut messages) = (Splitter::new(), BytesMut::new(), Vec::new());
            let mut rest = &bytes[..];
            for read in reads.iter().cycle() {
                let (now, later) = rest.split_at((*read).min(rest.len()));
                buffer.extend_from_slice(now);
                messages.extend(split(&mut splitter, &mut buffer));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(messages, bodies);
            prop_assert_eq!(splitter.finish(&buffer), Ok(()));
        }
    }
}
