//! Text frames to lines.
//!
//! A frame's length is looked at as soon as it shows: the library's parser would gather all of it first.
//!
//! **Invariants:** before `hello` one frame is read at a time, so that the limit that `hello` lifts holds for none behind
//! it; nothing is read while an answer to a frame of the WebSocket itself waits to be sent, so that a peer that asks for
//! many and reads none costs no memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_http::ws::{CloseCode, OpCode, Parser};
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use super::pipe::Shared;
use crate::net::carrier::Fault;
use crate::wire::codec::encode_response;
use crate::wire::frame::{Encoding, FRAME_BYTES_MAX, FRAME_BYTES_MAX_BEFORE_HELLO};
use crate::wire::message::responses::Error;
use crate::wire::message::{ErrorCode, Response};

/// How much is turned into lines at once, in bytes.
const LINES_BYTES: usize = 64 << 10;
/// Longest payload of a ping, a pong or a closing frame (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: u64 = 125;
/// What a binary frame is answered.
const NO_BINARY: &str = "binary frames carry nothing here; send the JSON messages in text frames";

/// The message that has begun and not ended, where one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    Text,
    Binary,
}

/// The reading side of a WebSocket.
pub(in crate::net) struct Reading {
    /// What the HTTP server's thread has read; ends with the connection.
    payload: mpsc::Receiver<Bytes>,
    pipe: Shared,
    raw: BytesMut,
    lines: BytesMut,
    within: Within,
    /// Longest frame, in bytes.
    limit: usize,
    /// Nothing more comes, or nothing more is understood.
    is_over: bool,
    is_deaf: bool,
}

impl Reading {
    pub(super) fn new(payload: mpsc::Receiver<Bytes>, pipe: Shared) -> Self {
        Self {
            payload,
            pipe,
            raw: BytesMut::new(),
            lines: BytesMut::new(),
            within: Within::Nothing,
            limit: FRAME_BYTES_MAX_BEFORE_HELLO,
            is_over: false,
            is_deaf: false,
        }
    }

    pub(in crate::net) fn accept_hello(&mut self) {
        self.limit = FRAME_BYTES_MAX;
    }

    fn is_greeted(&self) -> bool {
        self.limit == FRAME_BYTES_MAX
    }

    /// Turns the frames that are here into lines; says whether there are any.
    fn take_frames(&mut self) -> Result<bool, Fault> {
        while self.lines.len() < LINES_BYTES {
            let Some(length) = announced(&self.raw) else { break };
            if length > self.limit as u64 {
                return Err(Fault::TooLong { limit: self.limit });
            }
            let parsed = Parser::parse(&mut self.raw, true, self.limit).map_err(|_| Fault::Broken)?;
            let Some((is_last, code, payload)) = parsed else { break };
            self.take(is_last, code, payload.as_deref().unwrap_or_default())?;
            if self.is_over || !self.is_greeted() && !self.lines.is_empty() {
                break;
            }
        }
        Ok(!self.lines.is_empty())
    }

    fn take(&mut self, is_last: bool, code: OpCode, payload: &[u8]) -> Result<(), Fault> {
        let is_control = matches!(code, OpCode::Ping | OpCode::Pong | OpCode::Close);
        if is_control && (!is_last || payload.len() as u64 > CONTROL_BYTES_MAX) {
            return Err(Fault::Broken);
        }
        match (code, self.within) {
            (OpCode::Ping, _) => self.pipe.lock().put_own(payload, OpCode::Pong),
            (OpCode::Pong, _) => {}
            (OpCode::Close, _) => self.is_over = true,
            (OpCode::Text, Within::Nothing) | (OpCode::Continue, Within::Text) => {
                self.put_line(is_last, payload);
            }
            (OpCode::Binary, Within::Nothing) => {
                self.within = if is_last { Within::Nothing } else { Within::Binary };
                self.refuse_binary();
            }
            (OpCode::Continue, Within::Binary) => {
                self.within = if is_last { Within::Nothing } else { Within::Binary };
            }
            _ => return Err(Fault::Broken),
        }
        Ok(())
    }

    fn put_line(&mut self, is_last: bool, payload: &[u8]) {
        let begin = self.lines.len();
        self.lines.extend_from_slice(payload);
        for byte in self.lines.iter_mut().skip(begin).filter(|byte| **byte == b'\n') {
            *byte = b'\r';
        }
        if is_last {
            self.lines.extend_from_slice(b"\n");
        }
        self.within = if is_last { Within::Nothing } else { Within::Text };
    }

    fn refuse_binary(&mut self) {
        let error = Response::Error(Error::new(ErrorCode::BadMessage, NO_BINARY));
        let mut line = BytesMut::new();
        // So short an answer always fits.
        if encode_response(Encoding::JsonLines, 0, &error, &mut line).is_ok() {
            line.truncate(line.len().saturating_sub(1));
            self.pipe.lock().put_own(&line, OpCode::Text);
        }
    }

    /// From here on all that comes is thrown away.
    fn fail(&mut self, fault: Fault) -> io::Error {
        self.is_deaf = true;
        self.raw = BytesMut::new();
        let code = match fault {
            Fault::TooLong { .. } => CloseCode::Size,
            Fault::Broken => CloseCode::Protocol,
        };
        self.pipe.lock().close_with(code);
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }
}

/// The length that the frame at the beginning has, once it shows.
fn announced(raw: &[u8]) -> Option<u64> {
    match raw.get(1)? & 0x7f {
        126 => raw.get(2..4)?.first_chunk().map(|length| u64::from(u16::from_be_bytes(*length))),
        127 => raw.get(2..10)?.first_chunk().map(|length| u64::from_be_bytes(*length)),
        short => Some(u64::from(short)),
    }
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.lines.is_empty() {
                let length = self.lines.len().min(into.remaining());
                into.put_slice(self.lines.get(..length).unwrap_or_default());
                self.lines.advance(length);
                return Poll::Ready(Ok(()));
            }
            if self.is_over || self.pipe.lock().is_gone() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.pipe.lock().poll_own_sent(context));
            if !self.is_deaf {
                match self.take_frames() {
                    Ok(true) => continue,
                    Ok(false) if self.is_over => continue,
                    Ok(false) => {}
                    Err(fault) => return Poll::Ready(Err(self.fail(fault))),
                }
            }
            if self.raw.is_empty() && self.raw.capacity() > LINES_BYTES {
                // One large message does not keep its room for ever.
                (self.raw, self.lines) = Default::default();
            }
            match ready!(self.payload.poll_recv(context)) {
                Some(bytes) if self.is_deaf => drop(bytes),
                Some(bytes) => self.raw.extend_from_slice(&bytes),
                // Lost, or closed without a closing frame.
                None => self.is_over = true,
            }
        }
    }
}
