//! Messages to bytes and back, in either encoding: what sessions and clients call.
//!
//! Stands behind [`frame`](crate::wire::frame), which splits what is read into messages. What is written is a whole
//! line with its `\n`, or a whole frame with its length, put behind what the buffer holds.
//!
//! **Invariants:** a message over [`FRAME_BYTES_MAX`] is never written: the buffer is then as it was. A refusal carries
//! the request's id wherever it could be read, and no byte of a value.

use bytes::{Bytes, BytesMut};

use super::binary::{BinaryReader, BinaryWriter};
use super::field::{Fault, Fields, Reader, Writer};
use super::frame::{Encoding, FRAME_BYTES_MAX, FRAME_HEAD_BYTES};
use super::json::{JsonReader, JsonWriter};
use super::message::requests::Inbound;
use super::message::{
    Delivery, ErrorCode, PROTOCOL_VERSION, Request, Response, ServerBody, ServerMessage, responses,
};
use super::shorten::shorter;

/// Largest id of a request: the largest whole number that every JSON reader keeps exact.
pub const REQUEST_ID_MAX: u64 = (1 << 53) - 1;

/// Why a request cannot be read; the answer to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// The request's id, 0 where it has none or it could not be read.
    pub id: u64,
    /// `bad_message`, `unknown_type`, `unsupported_version`, or `not_found` where an id is named that the broker never
    /// gave out.
    pub code: ErrorCode,
    /// For people; names the field and its limit, never its value.
    pub text: String,
    /// Whether the connection ends: only binary has broken frames.
    pub ends_connection: bool,
}

impl Refused {
    /// The error that answers the request.
    #[must_use]
    pub fn error(&self) -> responses::Error {
        let versions = (self.code == ErrorCode::UnsupportedVersion).then(|| vec![PROTOCOL_VERSION]);
        responses::Error { versions, ..responses::Error::new(self.code, &self.text) }
    }
}

/// Why a client cannot read what the broker sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A message of a later version; it may be passed over.
    #[error("message of an unknown type")]
    UnknownType,
    /// It does not say what its type asks for.
    #[error("message cannot be read: {0}")]
    Bad(String),
}

/// Why a message cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It would be longer than a line or frame may be.
    #[error("message of {bytes} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLong {
        /// What it would have, without its line end or length.
        bytes: usize,
    },
    /// A record belongs to no conversation, and what is shown of it needs one.
    #[error("record belongs to no conversation")]
    NoConversation,
}

/// Reads a request. The id is 0 for `ack`, which has none.
///
/// # Errors
/// When it is no request; [`Refused`] is what to answer.
pub fn decode_request(encoding: Encoding, frame: &Bytes) -> Result<(u64, Request), Refused> {
    decode_request_into(encoding, frame, Request::Inbound, |request| request)
}

/// Reads a request as [`decode_request`] does, and gives what is made of it. A customer's message is large and comes more
/// often than all others together: it is handed over by itself, so that it is not moved about in a [`Request`]. What was
/// made is dropped where the request proves to be none.
///
/// # Errors
/// When it is no request; [`Refused`] is what to answer.
pub fn decode_request_into<T>(
    encoding: Encoding,
    frame: &Bytes,
    inbound: impl FnOnce(Inbound) -> T,
    other: impl FnOnce(Request) -> T,
) -> Result<(u64, T), Refused> {
    let made = Made { inbound, other };
    match encoding {
        Encoding::JsonLines => decode_json_request(frame, made),
        Encoding::Binary => decode_binary_request(frame, made),
    }
}

/// What is made of a request.
struct Made<I, O> {
    inbound: I,
    other: O,
}

impl<T, I: FnOnce(Inbound) -> T, O: FnOnce(Request) -> T> Made<I, O> {
    /// Of the request with this number; nothing, where there is none.
    fn take<'a, R: Reader<'a>>(self, number: u32, from: &mut R) -> Option<Result<T, Fault>> {
        if number == Request::INBOUND {
            return Some(Inbound::take_fields(from, false).map(self.inbound));
        }
        Request::take_fields(number, from).map(|read| read.map(self.other))
    }
}

/// Reads what the broker sent.
///
/// # Errors
/// When it is of an unknown type, or no message.
pub fn decode_server(encoding: Encoding, frame: &Bytes) -> Result<ServerMessage, DecodeError> {
    match encoding {
        Encoding::JsonLines => decode_json_server(frame),
        Encoding::Binary => decode_binary_server(frame),
    }
}

/// Writes a request; `id` is left out of an `ack`.
///
/// # Errors
/// When it would be too long; `out` is then as it was.
pub fn encode_request(
    encoding: Encoding,
    id: u64,
    request: &Request,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let id = if matches!(request, Request::Ack(_)) { 0 } else { id };
    write(encoding, id, request, out)
}

/// Writes a response; `id` is 0 for an error that ends the connection, and for `goaway`.
///
/// A list that would be too long is cut, and says that there is more; of too many claims and warnings the last go.
///
/// # Errors
/// When it would be too long all the same; `out` is then as it was.
pub fn encode_response(
    encoding: Encoding,
    id: u64,
    response: &Response,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let Err(mut refused) = write(encoding, id, response, out) else { return Ok(()) };
    let mut cut = shorter(response);
    while let Some(response) = cut {
        match write(encoding, id, &response, out) {
            Ok(()) => return Ok(()),
            Err(error) => refused = error,
        }
        cut = shorter(&response);
    }
    Err(refused)
}

/// Writes the answer to a customer's message, of which there are as many as messages, as [`encode_response`] would.
///
/// # Errors
/// Never in fact: it is far below the limit.
pub fn encode_inbound_accepted(
    encoding: Encoding,
    id: u64,
    accepted: &responses::InboundAccepted,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    write(encoding, id, accepted, out)
}

/// Writes a delivery that is at hand as a value; [`delivery`](crate::wire::delivery) writes those that are not.
///
/// # Errors
/// When it would be too long; `out` is then as it was.
pub fn encode_owned_delivery(
    encoding: Encoding,
    delivery: &Delivery,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    write(encoding, 0, delivery, out)
}

/// Writes a message, with its line end or length.
pub(super) fn write<M: Fields>(
    encoding: Encoding,
    id: u64,
    message: &M,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let begin = out.len();
    match encoding {
        Encoding::JsonLines => {
            let (number, name) = message.variant();
            let mut to = JsonWriter::new(out);
            to.begin_variant(number, name);
            if id != 0 {
                to.name("id");
                to.number(id);
            }
            message.put_fields(&mut to);
            to.end_object();
            drop(to);
            check_length(begin, 0, out)?;
            out.extend_from_slice(b"\n");
        }
        Encoding::Binary => {
            out.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
            let (number, _) = message.variant();
            let mut to = BinaryWriter::new(out);
            to.number(id);
            to.begin_variant(number, "");
            message.put_fields(&mut to);
            drop(to);
            let length = check_length(begin, FRAME_HEAD_BYTES, out)?;
            if let Some(head) = out.get_mut(begin..begin + FRAME_HEAD_BYTES) {
                head.copy_from_slice(&length.to_be_bytes());
            }
        }
    }
    Ok(())
}

/// The length of the message behind `begin` and its head; takes all of it out again where that is too long.
fn check_length(begin: usize, head: usize, out: &mut BytesMut) -> Result<u32, EncodeError> {
    let bytes = out.len() - begin - head;
    match u32::try_from(bytes) {
        Ok(length) if bytes <= FRAME_BYTES_MAX => Ok(length),
        _ => {
            out.truncate(begin);
            Err(EncodeError::TooLong { bytes })
        }
    }
}

fn decode_json_request<T>(
    frame: &Bytes,
    made: Made<impl FnOnce(Inbound) -> T, impl FnOnce(Request) -> T>,
) -> Result<(u64, T), Refused> {
    let mut from = JsonReader::new(frame).map_err(|fault| refused(0, fault))?;
    let id = from.id().ok().flatten().filter(|id| (1..=REQUEST_ID_MAX).contains(id));
    let known_id = id.unwrap_or(0);
    let name = from.type_name().map_err(|fault| refused(known_id, fault))?;
    let mut known = Request::NAMES.iter().rev().filter(|(known, _)| *known == name);
    let Some((_, number)) = known.find(|(_, number)| may_be(*number, Request::LATER, &from)) else {
        return Err(unknown_type(known_id));
    };
    let is_ack = *number == Request::ACK;
    let id = if is_ack { 0 } else { id.ok_or_else(bad_id)? };
    if *number == Request::HELLO {
        check_version(id, &mut from)?;
        from.rewind();
    }
    let made = made
        .take(*number, &mut from)
        .ok_or_else(|| unknown_type(id))?
        .and_then(|made| from.finish().map(|()| made))
        .map_err(|fault| refused(id, fault))?;
    // Nothing is outstanding in a channel that never was, and nothing to be watched; an `ack` is never answered.
    match from.foreign() {
        Some(field) if !is_ack => Err(refused(id, Fault::Foreign(field))),
        _ => Ok((id, made)),
    }
}

fn decode_binary_request<T>(
    frame: &Bytes,
    made: Made<impl FnOnce(Inbound) -> T, impl FnOnce(Request) -> T>,
) -> Result<(u64, T), Refused> {
    let mut from = BinaryReader::new(frame);
    let id = from.number().map_err(|fault| refused(0, fault))?;
    let is_id = (1..=REQUEST_ID_MAX).contains(&id);
    let known_id = if is_id { id } else { 0 };
    let number = from.variant_number().map_err(|fault| refused(known_id, fault))?;
    let is_ack = number == Request::ACK;
    let known_id = if is_ack { 0 } else { known_id };
    if number == Request::HELLO {
        let mut ahead = BinaryReader::new(frame);
        let _ = (ahead.number(), ahead.variant_number());
        check_version(known_id, &mut ahead)?;
    }
    let made = made
        .take(number, &mut from)
        .ok_or_else(|| unknown_type(known_id))?
        .map_err(|fault| refused(known_id, fault))?;
    if from.has_more() {
        return Err(refused(known_id, trailing()));
    }
    if is_id || is_ack { Ok((known_id, made)) } else { Err(bad_id()) }
}

fn decode_json_server(frame: &Bytes) -> Result<ServerMessage, DecodeError> {
    let mut from = JsonReader::new(frame).map_err(bad)?;
    let id = from.id().map_err(bad)?.unwrap_or(0);
    let name = from.type_name().map_err(bad)?;
    let mut first_fault = None;
    // Of two deliveries of one name the newer has what the older has, and more.
    let known = Response::NAMES.iter().chain(Delivery::NAMES.iter().rev());
    for (_, number) in known.filter(|(known, _)| *known == name) {
        if !may_be(*number, Response::LATER, &from) || !may_be(*number, Delivery::LATER, &from) {
            continue;
        }
        from.rewind();
        let read = take_server(*number, &mut from).ok_or(DecodeError::UnknownType)?;
        let read = read.and_then(|body| from.finish().map(|()| body)).and_then(|body| match from.foreign() {
            Some(field) => Err(Fault::Foreign(field)),
            None => Ok(body),
        });
        match read {
            Ok(body) => return Ok(ServerMessage { id, body }),
            Err(fault) => first_fault = first_fault.or(Some(fault)),
        }
    }
    Err(first_fault.map_or(DecodeError::UnknownType, bad))
}

/// Whether a message in JSON has the field that makes it the variant with this number, where that is a later one.
fn may_be(number: u32, later: &[(u32, &'static str)], from: &JsonReader<'_>) -> bool {
    let field = later.iter().find(|(later, _)| *later == number);
    field.is_none_or(|(_, field)| from.has(field))
}

fn decode_binary_server(frame: &Bytes) -> Result<ServerMessage, DecodeError> {
    let mut from = BinaryReader::new(frame);
    let id = from.number().map_err(bad)?;
    let number = from.variant_number().map_err(bad)?;
    let body = take_server(number, &mut from).ok_or(DecodeError::UnknownType)?.map_err(bad)?;
    if from.has_more() {
        return Err(bad(trailing()));
    }
    Ok(ServerMessage { id, body })
}

/// Responses and deliveries share one numbering.
fn take_server<'a, R: Reader<'a>>(number: u32, from: &mut R) -> Option<Result<ServerBody, Fault>> {
    match Response::take_fields(number, from) {
        Some(read) => Some(read.map(ServerBody::Response)),
        None => Delivery::take_fields(number, from).map(|read| read.map(ServerBody::Delivery)),
    }
}

/// Refuses the `hello` of another version before its other fields are read: they may be others.
fn check_version<'a, R: Reader<'a>>(id: u64, from: &mut R) -> Result<(), Refused> {
    match from.name("version").and_then(|()| from.small_number()) {
        Ok(version) if version != PROTOCOL_VERSION => {
            let text = format!("the broker speaks version {PROTOCOL_VERSION}");
            Err(Refused { id, code: ErrorCode::UnsupportedVersion, text, ends_connection: false })
        }
        _ => Ok(()),
    }
}

fn trailing() -> Fault {
    Fault::Bad("bytes follow the message's last field".to_owned())
}

fn unknown_type(id: u64) -> Refused {
    let text = "the broker knows no message of this type".to_owned();
    Refused { id, code: ErrorCode::UnknownType, text, ends_connection: false }
}

fn bad_id() -> Refused {
    refused(0, Fault::value("id", format_args!("must be a whole number from 1 to {REQUEST_ID_MAX}")))
}

fn refused(id: u64, fault: Fault) -> Refused {
    let (code, ends_connection) = match fault {
        Fault::Broken(_) => (ErrorCode::BadMessage, true),
        Fault::Bad(_) => (ErrorCode::BadMessage, false),
        Fault::Foreign(_) => (ErrorCode::NotFound, false),
    };
    Refused { id, code, text: fault.to_string(), ends_connection }
}

fn bad(fault: Fault) -> DecodeError {
    DecodeError::Bad(fault.to_string())
}
