//! Frames on their way out: from the session's writer, and from the reader where the WebSocket itself wants an answer,
//! to the body that the HTTP server sends.
//!
//! Writer and reader live on an Arbiter, the body on the HTTP server's thread. **Invariant:** the pipe holds [`OUT_BYTES_MAX`] bytes and one write at most; beyond
//! that the writer waits, and where frames of the reader's own wait, the reader reads nothing.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use actix_http::ws::{CloseCode, CloseReason, OpCode, Parser};
use actix_web::body::{BodySize, MessageBody};
use bytes::{Bytes, BytesMut};

/// How much waits to be taken by the HTTP server before the writer waits, in bytes: one of its own fillings.
pub(super) const OUT_BYTES_MAX: usize = 64 << 10;

/// The pipe, for all three.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Pipe>>);

impl Shared {
    /// Held for a moment, never while anything is waited for.
    pub(super) fn lock(&self) -> MutexGuard<'_, Pipe> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Pipe {
    out: BytesMut,
    /// Answers to frames of the WebSocket itself lie in `out`.
    has_own: bool,
    is_closing: bool,
    code: CloseCode,
    /// The session is over: the body ends after `out`.
    is_over: bool,
    /// The connection is lost: nothing is taken any more.
    is_gone: bool,
    writer: Option<Waker>,
    reader: Option<Waker>,
    body: Option<Waker>,
}

pub(super) fn pipe() -> (Shared, Body) {
    let pipe = Shared(Arc::new(Mutex::new(Pipe {
        out: BytesMut::new(),
        has_own: false,
        is_closing: false,
        code: CloseCode::Normal,
        is_over: false,
        is_gone: false,
        writer: None,
        reader: None,
        body: None,
    })));
    (pipe.clone(), Body(pipe))
}

impl Pipe {
    /// Puts a text frame.
    pub(super) fn put_text(&mut self, text: &[u8]) {
        Parser::write_message(&mut self.out, text, OpCode::Text, true, false);
    }

    /// Puts what the reader answers by itself. After the closing frame nothing goes out.
    pub(super) fn put_own(&mut self, payload: &[u8], code: OpCode) {
        if !self.is_closing {
            Parser::write_message(&mut self.out, payload, code, true, false);
            self.has_own = true;
            self.wake_body();
        }
    }

    /// What the closing frame will say.
    pub(super) fn close_with(&mut self, code: CloseCode) {
        self.code = code;
    }

    /// Puts the closing frame, once.
    pub(super) fn close(&mut self) {
        if !std::mem::replace(&mut self.is_closing, true) {
            let reason = CloseReason { code: self.code, description: None };
            Parser::write_close(&mut self.out, Some(reason), false);
            self.wake_body();
        }
    }

    /// Ends the body.
    pub(super) fn finish(&mut self) {
        self.close();
        self.is_over = true;
        self.wake_body();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether there is room for the writer; else it is woken.
    pub(super) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.out.len() < OUT_BYTES_MAX || self.is_gone {
            return Poll::Ready(());
        }
        self.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Whether the reader's own frames are sent; else it is woken.
    pub(super) fn poll_own_sent(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.has_own || self.is_gone {
            return Poll::Ready(());
        }
        self.reader = Some(context.waker().clone());
        Poll::Pending
    }

    pub(super) fn wake_body(&mut self) {
        wake(&mut self.body);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// What the HTTP server sends after the upgrade.
pub(super) struct Body(Shared);

impl MessageBody for Body {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let mut pipe = self.0.lock();
        if pipe.out.is_empty() {
            if pipe.is_over {
                return Poll::Ready(None);
            }
            pipe.body = Some(context.waker().clone());
            return Poll::Pending;
        }
        let out = pipe.out.split().freeze();
        pipe.has_own = false;
        wake(&mut pipe.writer);
        wake(&mut pipe.reader);
        Poll::Ready(Some(Ok(out)))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut pipe = self.0.lock();
        pipe.is_gone = true;
        pipe.out = BytesMut::new();
        wake(&mut pipe.writer);
        wake(&mut pipe.reader);
    }
}
