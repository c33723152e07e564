//! What the actors say, in the protocol's words.

use std::sync::Arc;

use bytes::BytesMut;

use crate::actors::batch::{BatchEntry, GapReason};
use crate::actors::port::{Answered, EndReason, Refusal, Timeline};
use crate::domain::command::{ChannelSeen, ConversationSeen, Rejection, ThreadSeen};
use crate::domain::event::Customer;
use crate::domain::ids::ChannelId;
use crate::domain::view::{Viewer, view};
use crate::wire::codec::EncodeError;
use crate::wire::delivery::{GapSeen, TimelineWriter};
use crate::wire::frame::Encoding;
use crate::wire::message::responses::{self, Error};
use crate::wire::message::{
    self, ConversationEntry, ErrorCode, Flag, Holder, Name, PROTOCOL_VERSION, Private, Response,
    ThreadOwnership,
};

/// What the broker calls itself.
const SERVER: &str = concat!("sharedline/", env!("CARGO_PKG_VERSION"));

pub(super) fn greeting(connection: u64, window: u32, channels: Vec<ChannelSeen>, more: bool) -> Response {
    Response::Welcome(responses::Welcome {
        session: Arc::from(format!("s-{connection}")),
        server: Arc::from(SERVER),
        version: PROTOCOL_VERSION,
        window,
        channels,
        more: Flag(more),
    })
}

/// An answer; nothing for an opened conversation, which [`write_conversation`] writes.
pub(super) fn response(answered: Answered) -> Result<Response, Box<Timeline>> {
    Ok(match answered {
        Answered::Conversation(timeline) => return Err(timeline),
        Answered::Ok => Response::Ok(responses::Ok {}),
        Answered::Pong => Response::Pong(responses::Pong {}),
        Answered::Channel { seen, created, joined, changed } => {
            Response::Channel(responses::Channel { seen: *seen, created, joined, changed })
        }
        Answered::Channels { channels, next } => Response::Channels(responses::Channels { channels, next }),
        Answered::Conversations { conversations, next } => {
            let entry = |(seen, customer): (ConversationSeen, Customer)| ConversationEntry {
                conversation: seen.conversation,
                customer,
                head: seen.head,
                window: seen.window,
                claims: seen.claims,
                unanswered: seen.unanswered,
            };
            let conversations = conversations.into_iter().map(entry).collect();
            Response::Conversations(responses::Conversations { conversations, next })
        }
        Answered::PickedUp => Response::PickedUp(responses::PickedUp {}),
        Answered::Warned(warned) => Response::Warning(responses::Warning {
            warnings: warned.warnings,
            confirm: Private(warned.confirm),
        }),
        Answered::Accepted { offset, conversation, reply_id, duplicate } => {
            Response::Accepted(responses::Accepted { offset, conversation, reply_id, duplicate })
        }
        Answered::Taken { channels, duplicate } => {
            Response::InboundAccepted(responses::InboundAccepted { channels, duplicate })
        }
        Answered::Thread { conversation, thread } => {
            let (owner, since, until, metadata) = match thread {
                ThreadSeen::Nobody => (ThreadOwnership::Nobody, None, None, None),
                ThreadSeen::Another => (ThreadOwnership::Another, None, None, None),
                ThreadSeen::Own { since, until, metadata } => {
                    (ThreadOwnership::Own, Some(since), Some(until), metadata.map(Private))
                }
            };
            Response::Thread(responses::Thread { conversation, owner, since, until, metadata })
        }
        // Asked in this process alone.
        Answered::Fate(_) | Answered::Names(_) | Answered::Whom(_) => {
            Response::Error(Error::new(ErrorCode::Internal, "an answer to something that can not be asked"))
        }
        Answered::Refused(refusal) => Response::Error(refused(refusal)),
    })
}

/// Writes an opened conversation: as much of its timeline as one message holds, the newest entries first taken.
pub(super) fn write_conversation(
    encoding: Encoding,
    id: u64,
    timeline: Timeline,
    viewer: &Viewer<'_>,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let Timeline { channel, opened, customer, entries, more } = timeline;
    let (warnings, confirm) = match opened.warned {
        Some(warned) => (warned.warnings, Some(Private(warned.confirm))),
        None => (Vec::new(), None),
    };
    let mut response = responses::Conversation {
        conversation: opened.conversation,
        head: opened.head,
        customer,
        window: opened.window,
        claims: opened.claims,
        warnings,
        confirm,
        timeline: Vec::new(),
        more,
    };
    let mut writer = TimelineWriter::new(encoding, id, &response);
    for entry in entries.iter().rev() {
        let has_room = match entry {
            BatchEntry::Record(record) => match view(record, viewer) {
                Some((_, seen)) => writer.push(channel, record, &seen)?,
                None => true,
            },
            BatchEntry::Gap { .. } => gap(channel, entry).is_none_or(|gap| writer.push_gap(&gap)),
        };
        if !has_room {
            response.more = true;
            break;
        }
    }
    writer.finish(id, &response, out)
}

/// A gap, as the protocol says it.
pub(super) fn gap(channel: ChannelId, entry: &BatchEntry) -> Option<GapSeen> {
    let BatchEntry::Gap { from, to, at, reason } = entry else { return None };
    let reason = match reason {
        GapReason::Retention => message::GapReason::Retention,
        GapReason::Corrupt => message::GapReason::Corrupt,
    };
    Some(GapSeen { channel, at: *at, from: *from, to: *to, reason })
}

/// A refusal, as the protocol says it.
pub(super) fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Rejected(rejection) => rejected(rejection),
        Refusal::NotFound => Error::new(ErrorCode::NotFound, "not found"),
        Refusal::NumberTaken => Error::new(ErrorCode::NumberTaken, "the number belongs to another portal"),
        Refusal::Forbidden => Error::new(ErrorCode::Forbidden, "this session may not ask that"),
        Refusal::ChannelClosed => Error::new(ErrorCode::ChannelClosed, "the channel is closed"),
        Refusal::Unavailable => Error::new(ErrorCode::Unavailable, "the broker can not do it at present"),
        Refusal::BadMessage(text) => Error::new(ErrorCode::BadMessage, &text),
        Refusal::TooLarge(text) => Error::new(ErrorCode::TooLarge, &text),
        Refusal::UnknownType => Error::new(ErrorCode::UnknownType, "no such type of message"),
        Refusal::Overloaded { retry_after_ms } => {
            let mut error = Error::new(ErrorCode::Overloaded, "there is too much under way");
            error.retry_after_ms = Some(retry_after_ms);
            error
        }
    }
}

/// When to come again after a channel had as many replies under way as it can have, in milliseconds.
const RETRY_REPLIES_AFTER_MS: u64 = 1_000;

fn rejected(rejection: Rejection) -> Error {
    let code = match &rejection {
        Rejection::BadMessage(_) | Rejection::TooManyHolders => ErrorCode::BadMessage,
        Rejection::NotFound => ErrorCode::NotFound,
        Rejection::ChannelClosed => ErrorCode::ChannelClosed,
        Rejection::NotSubscribed => ErrorCode::NotSubscribed,
        Rejection::NotParent => ErrorCode::NotParent,
        Rejection::ServiceNotEligible => ErrorCode::ServiceNotEligible,
        Rejection::UnknownAgent => ErrorCode::UnknownAgent,
        Rejection::WindowClosed => ErrorCode::WindowClosed,
        Rejection::Claimed { .. } => ErrorCode::Claimed,
        Rejection::NotClaimed => ErrorCode::NotClaimed,
        Rejection::Forbidden => ErrorCode::Forbidden,
        Rejection::StaleConfirm => ErrorCode::StaleConfirm,
        Rejection::Conflict => ErrorCode::Conflict,
        Rejection::TooManyReplies => ErrorCode::Overloaded,
    };
    let mut error = Error::new(code, &rejection.to_string());
    match rejection {
        Rejection::Claimed { holder, name } => {
            error.holder = Some(Holder { agent: holder, name: name.map(Name) });
        }
        Rejection::TooManyReplies => error.retry_after_ms = Some(RETRY_REPLIES_AFTER_MS),
        _ => {}
    }
    error
}

/// Why the broker ends a connection; nothing to say where it stops in an orderly way.
pub(super) fn ended(reason: EndReason) -> Option<Error> {
    Some(match reason {
        EndReason::Replaced => {
            Error::new(ErrorCode::Replaced, "a newer connection of this name has taken over")
        }
        EndReason::Stalled => Error::new(ErrorCode::Stalled, "deliveries were not acknowledged in time"),
        EndReason::Timeout => Error::new(ErrorCode::Timeout, "the promised ping did not come"),
        EndReason::Revoked => Error::new(ErrorCode::Revoked, "the token is not valid any more"),
        EndReason::Shutdown => return None,
    })
}
