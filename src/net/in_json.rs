//! An answer of the actors as one JSON object, in the protocol's words, for who asks over HTTP.
//!
//! The same functions write it that write a session's answers, so what a conversation shows is what
//! [`view`](crate::domain::view::view) lets the viewer see, here as there.

use bytes::{Bytes, BytesMut};

use super::answers::{response, write_conversation};
use crate::actors::port::Answered;
use crate::domain::view::Viewer;
use crate::wire::codec::{EncodeError, encode_response};
use crate::wire::frame::Encoding;
use crate::wire::message::responses::Error;
use crate::wire::message::{ErrorCode, Response};

/// The object, and the code of the error that it is, if it is one. `viewer` is whose eyes a conversation is written
/// for; without one none is written.
#[must_use]
pub fn in_json(answered: Answered, viewer: Option<&Viewer<'_>>) -> (Option<ErrorCode>, Bytes) {
    let mut out = BytesMut::new();
    let (code, written) = match (response(answered), viewer) {
        (Ok(response), _) => {
            (code_of(&response), encode_response(Encoding::JsonLines, 0, &response, &mut out))
        }
        (Err(timeline), Some(viewer)) => {
            (None, write_conversation(Encoding::JsonLines, 0, *timeline, viewer, &mut out))
        }
        (Err(_), None) => return put_error(ErrorCode::Internal, "nobody looks"),
    };
    match written {
        Ok(()) => (code, line(out)),
        Err(EncodeError::TooLong { .. }) => {
            put_error(ErrorCode::TooLarge, "the answer does not fit in one message; ask for less")
        }
        Err(EncodeError::NoConversation) => put_error(ErrorCode::Internal, "the answer can not be written"),
    }
}

fn code_of(response: &Response) -> Option<ErrorCode> {
    match response {
        Response::Error(error) => Some(error.code),
        _ => None,
    }
}

fn put_error(code: ErrorCode, text: &str) -> (Option<ErrorCode>, Bytes) {
    let mut out = BytesMut::new();
    let error = Response::Error(Error::new(code, text));
    // An error of a sentence always fits.
    let _ = encode_response(Encoding::JsonLines, 0, &error, &mut out);
    (Some(code), line(out))
}

/// Without the end of the line.
fn line(mut out: BytesMut) -> Bytes {
    if out.last() == Some(&b'\n') {
        out.truncate(out.len() - 1);
    }
    out.freeze()
}
