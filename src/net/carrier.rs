//! What carries a session's bytes: a TCP socket, with TLS or without, or the text frames of a WebSocket that read and write like one.
//!
//! A session reads and writes JSON lines or frames and does not know which of them it has. What is written is to be flushed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::server::TlsStream;

use super::websocket;
use crate::actors::port::Refusal;

/// The reading side.
pub(super) enum Reading {
    Tcp(OwnedReadHalf),
    Tls(ReadHalf<TlsStream<TcpStream>>),
    WebSocket(websocket::Reading),
}

/// The writing side. Dropped, the connection ends once all that was written is sent.
pub(super) enum Writing {
    Tcp(OwnedWriteHalf),
    Tls(WriteHalf<TlsStream<TcpStream>>),
    WebSocket(websocket::Writing),
}

/// Why a carrier can not be read any further, though its peer is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("a message is over the limit of {limit} bytes")]
    TooLong { limit: usize },
    #[error("the WebSocket's frames break its protocol")]
    Broken,
}

impl Reading {
    /// From here, because `hello` was accepted, messages may be long.
    pub(super) fn accept_hello(&mut self) {
        match self {
            Self::Tcp(_) | Self::Tls(_) => {}
            Self::WebSocket(reading) => reading.accept_hello(),
        }
    }
}

/// What to tell a peer whose carrier can not be read any further; nothing where it is gone.
pub(super) fn refusal(error: &io::Error) -> Option<Refusal> {
    let fault = error.get_ref()?.downcast_ref::<Fault>()?;
    let text = Arc::from(fault.to_string());
    Some(match fault {
        Fault::TooLong { .. } => Refusal::TooLarge(text),
        Fault::Broken => Refusal::BadMessage(text),
    })
}

impl AsyncRead for Reading {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(context, into),
            Self::Tls(half) => Pin::new(half).poll_read(context, into),
            Self::WebSocket(reading) => Pin::new(reading).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Writing {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write(context, bytes),
            Self::Tls(half) => Pin::new(half).poll_write(context, bytes),
            Self::WebSocket(writing) => Pin::new(writing).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write_vectored(context, pieces),
            Self::Tls(half) => Pin::new(half).poll_write_vectored(context, pieces),
            Self::WebSocket(writing) => Pin::new(writing).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(half) => half.is_write_vectored(),
            Self::Tls(half) => half.is_write_vectored(),
            Self::WebSocket(writing) => writing.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_flush(context),
            Self::Tls(half) => Pin::new(half).poll_flush(context),
            Self::WebSocket(writing) => Pin::new(writing).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(context),
            Self::Tls(half) => Pin::new(half).poll_shutdown(context),
            Self::WebSocket(writing) => Pin::new(writing).poll_shutdown(context),
        }
    }
}
