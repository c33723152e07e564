//! Lines to text frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use super::pipe::Shared;

/// The writing side of a WebSocket. What is written are whole lines in the end, however they are cut.
pub(in crate::net) struct Writing {
    pipe: Shared,
    /// The beginning of a line whose end was not written yet.
    begun: BytesMut,
}

impl Writing {
    pub(super) fn new(pipe: Shared) -> Self {
        Self { pipe, begun: BytesMut::new() }
    }
}

impl AsyncWrite for Writing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { pipe, begun } = &mut *self;
        let mut pipe = pipe.lock();
        ready!(pipe.poll_room(context));
        if pipe.is_gone() || pipe.is_closing() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            if begun.is_empty() {
                pipe.put_text(line);
            } else {
                begun.extend_from_slice(line);
                pipe.put_text(begun);
                begun.clear();
            }
            rest = after.get(1..).unwrap_or_default();
        }
        begun.extend_from_slice(rest);
        pipe.wake_body();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.lock().close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.pipe.lock().finish();
    }
}
