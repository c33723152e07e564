//! What is left of a request's body, and the body of a refusal, which keeps it.
//!
//! A chunked body that is dropped is read to its end by the server, which a hostile sender never reaches; one that is
//! held until the answer is written makes the server close the connection.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BodyStream, MessageBody};
use actix_web::web::{Bytes, Payload};

use super::reply::Refused;

/// What is left of a request's body.
pub(super) struct Unread(Pin<Box<BodyStream<Payload>>>);

impl Unread {
    pub(super) fn new(payload: Payload) -> Self {
        Self(Box::pin(BodyStream::new(payload)))
    }

    /// Reads all of it, if that is no more than `max` bytes.
    pub(super) async fn read(&mut self, max: usize) -> Result<Bytes, Refused> {
        let mut body = Vec::new();
        while let Some(chunk) = poll_fn(|context| self.0.as_mut().poll_next(context)).await {
            let chunk = chunk.map_err(|_| Refused::bad("the body broke off"))?;
            if body.len() + chunk.len() > max {
                return Err(Refused::too_large(max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }
}

/// The body of a refusal.
pub(super) struct RefusalBody {
    text: Option<Bytes>,
    _unread: Unread,
}

impl RefusalBody {
    pub(super) fn new(text: String, unread: Unread) -> Self {
        Self { text: Some(text.into()), _unread: unread }
    }
}

impl MessageBody for RefusalBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.text.as_ref().map_or(0, |text| text.len() as u64))
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(self.text.take().map(Ok))
    }
}
