//! The body of a request as it comes, and the answer to one that is not read to its end.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BodyStream, MessageBody};
use actix_web::web;
use bytes::Bytes;

/// What is left of a request's body.
pub(super) struct UnreadBody(Pin<Box<BodyStream<web::Payload>>>);

impl UnreadBody {
    pub(super) fn new(payload: web::Payload) -> Self {
        Self(Box::pin(BodyStream::new(payload)))
    }

    /// The next piece; nothing at the end, an error where it ends early.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, ()>> {
        poll_fn(|context| self.0.as_mut().poll_next(context)).await.map(|chunk| chunk.map_err(drop))
    }
}

/// The body of a refusal. It keeps what is unread of the request, because a chunked request body that is dropped is
/// read to its end, which a hostile sender never reaches; one that is held makes the server close the connection.
pub(super) struct RefusalBody {
    text: Option<Bytes>,
    _unread: UnreadBody,
}

impl RefusalBody {
    pub(super) fn new(text: impl Into<Bytes>, unread: UnreadBody) -> Self {
        Self { text: Some(text.into()), _unread: unread }
    }
}

impl MessageBody for RefusalBody {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.text.as_ref().map_or(0, |text| text.len() as u64))
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(self.text.take().map(Ok))
    }
}
