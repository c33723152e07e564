//! Writes whatever is ready to leave, in as few writes as it takes.
//!
//! What looks the same to everybody is encoded once per batch and encoding, by whoever comes first, and written from
//! there; everything else is encoded straight from its record into this connection's buffer.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::answers::{ended, gap, refused, response, write_conversation};
use super::carrier::Writing;
use super::inlet::IDLE_AFTER;
use super::pieces::Pieces;
use crate::actors::batch::{Batch, BatchEntry, Frames, Slice};
use crate::actors::outlet::Outlet;
use crate::actors::port::{Answered, Outgoing, PresenceTold};
use crate::domain::ids::ServiceId;
use crate::domain::presence::{PresenceSeen, PresentAgent};
use crate::domain::view::{Form, Viewer, view};
use crate::wire::codec::{EncodeError, encode_inbound_accepted, encode_owned_delivery, encode_response};
use crate::wire::delivery::{encode_delivery, encode_gap, encode_presence};
use crate::wire::frame::Encoding;
use crate::wire::message::responses::{Error, Goaway, InboundAccepted};
use crate::wire::message::{Delivery, ErrorCode, RawContent, Response, deliveries};

/// How much is gathered before it is written, in bytes.
const WRITE_BYTES: usize = 256 << 10;

/// The writing side of one connection.
pub(super) struct Writer {
    write: Writing,
    encoding: Encoding,
    outlet: Arc<Outlet>,
    /// The service that sees what is delivered; none for a gateway.
    viewer: Option<ServiceId>,
    /// What is written needs no acknowledgement.
    is_watch: bool,
    out: Pieces,
    taken: Vec<Outgoing>,
    /// What has gathered, for when it is written.
    answers: usize,
    watched: (u32, u64),
}

/// What a message means for the connection.
enum After {
    GoOn,
    End,
}

impl Writer {
    pub(super) fn new(
        write: Writing,
        encoding: Encoding,
        outlet: Arc<Outlet>,
        viewer: Option<ServiceId>,
        is_watch: bool,
    ) -> Self {
        Self {
            write,
            encoding,
            outlet,
            viewer,
            is_watch,
            out: Pieces::default(),
            taken: Vec::new(),
            answers: 0,
            watched: (0, 0),
        }
    }

    /// Puts the answer to `hello` before everything else.
    pub(super) fn greet(&mut self, id: u64, greeting: &Response) -> Result<(), EncodeError> {
        encode_response(self.encoding, id, greeting, self.out.own())
    }

    /// Writes until the connection ends, from either side.
    pub(super) async fn run(&mut self) {
        // A peer that is gone needs no words.
        let _ = self.write_all_ready().await;
        let _ = self.write.shutdown().await;
    }

    async fn write_all_ready(&mut self) -> io::Result<()> {
        self.flush().await?;
        loop {
            let mut taken = std::mem::take(&mut self.taken);
            if !self.outlet.take(&mut taken) {
                self.taken = taken;
                if self.outlet.is_ended() && !self.outlet.take(&mut self.taken) {
                    return Ok(());
                }
                if self.taken.is_empty() && timeout(IDLE_AFTER, self.outlet.ready()).await.is_err() {
                    // A connection that is silent keeps no room.
                    (self.out, self.taken) = Default::default();
                    self.outlet.ready().await;
                }
                continue;
            }
            for outgoing in taken.drain(..) {
                if matches!(self.put(outgoing), After::End) {
                    return self.flush().await;
                }
                if self.out.len() >= WRITE_BYTES {
                    self.flush().await?;
                }
            }
            self.taken = taken;
            self.flush().await?;
        }
    }

    /// Writes what has gathered, and lets what that frees go. Cancelled, the connection is not to be written any more.
    async fn flush(&mut self) -> io::Result<()> {
        self.out.close();
        if self.out.has_remaining() {
            self.write.write_all_buf(&mut self.out).await?;
            // TLS may still hold some of it back.
            self.write.flush().await?;
        }
        let answers = std::mem::take(&mut self.answers);
        if answers > 0 {
            self.outlet.requests_end(answers);
        }
        let (deliveries, bytes) = std::mem::take(&mut self.watched);
        if deliveries > 0 {
            self.outlet.written(deliveries, bytes);
        }
        Ok(())
    }

    fn put(&mut self, outgoing: Outgoing) -> After {
        match outgoing {
            Outgoing::Answers(answers) => {
                for (id, answered) in answers {
                    self.answers += 1;
                    self.put_answer(id, answered);
                }
            }
            Outgoing::Deliveries(slice) => self.put_slice(&slice),
            Outgoing::Presence(told) => self.put_presence(&told),
            Outgoing::Send(send) => {
                let delivery = Delivery::Send(deliveries::Send {
                    channel: send.channel,
                    offset: send.offset,
                    conversation: send.conversation,
                    to: send.to,
                    reply_id: send.reply_id,
                    content: RawContent(send.content),
                });
                let written = encode_owned_delivery(self.encoding, &delivery, self.out.own());
                self.report(written);
            }
            Outgoing::Goaway { retry_after_ms } => {
                self.put_error_or(0, &Response::Goaway(Goaway { retry_after_ms }))
            }
            Outgoing::End(reason) => {
                if let Some(error) = ended(reason) {
                    self.put_error_or(0, &Response::Error(error));
                }
                return After::End;
            }
            Outgoing::Fail(refusal) => {
                self.put_error_or(0, &Response::Error(refused(refusal)));
                return After::End;
            }
        }
        After::GoOn
    }

    fn put_answer(&mut self, id: u64, answered: Answered) {
        if let Answered::Taken { channels, duplicate } = answered {
            let accepted = InboundAccepted { channels, duplicate };
            let written = encode_inbound_accepted(self.encoding, id, &accepted, self.out.own());
            return self.report(written);
        }
        match response(answered) {
            Ok(response) => self.put_error_or(id, &response),
            Err(timeline) => {
                let Some(service) = &self.viewer else { return };
                let viewer = Viewer { service, masking: self.outlet.masking() };
                let written = write_conversation(self.encoding, id, *timeline, &viewer, self.out.own());
                if written.is_err() {
                    self.put_too_long(id);
                }
            }
        }
    }

    /// Puts a response, or says that it does not fit in a message.
    fn put_error_or(&mut self, id: u64, response: &Response) {
        if let Response::Error(error) = response {
            self.outlet.told_error(error.code.as_str());
        }
        if encode_response(self.encoding, id, response, self.out.own()).is_err() {
            self.put_too_long(id);
        }
    }

    fn put_too_long(&mut self, id: u64) {
        let error = Error::new(ErrorCode::TooLarge, "the answer does not fit in one message; ask for less");
        self.outlet.told_error(error.code.as_str());
        let written = encode_response(self.encoding, id, &Response::Error(error), self.out.own());
        self.report(written);
    }

    fn put_presence(&mut self, told: &PresenceTold) {
        let own = told.agent.as_ref().map(|(agent, name)| PresentAgent { agent, name: name.as_ref() });
        let seen = PresenceSeen { doing: told.doing, own };
        let (channel, conversation, at) = (told.channel, told.conversation, told.at);
        let written = encode_presence(self.encoding, channel, conversation, at, &seen, self.out.own());
        self.report(written);
    }

    fn put_slice(&mut self, slice: &Slice) {
        let Some(service) = &self.viewer else { return };
        let viewer = Viewer { service, masking: self.outlet.masking() };
        let batch = &slice.batch;
        let encoding = self.encoding;
        let Some(frames) = batch.frames(slot(encoding), |batch| common_frames(encoding, batch, &viewer))
        else {
            return;
        };
        let end_of = |at: usize| frames.ends.get(at).copied().unwrap_or(0) as usize;
        let start_of = |at: usize| at.checked_sub(1).map_or(0, end_of);
        // Where the frames begin that are to be written in one go.
        let mut from = start_of(slice.first);
        for (at, entry) in slice.entries().iter().enumerate().map(|(at, entry)| (slice.first + at, entry)) {
            if end_of(at) > start_of(at) {
                continue;
            }
            self.out.share(&frames.bytes, frames.bytes.get(from..start_of(at)).unwrap_or_default());
            from = end_of(at);
            let written = match entry {
                BatchEntry::Record(record) => match view(record, &viewer) {
                    Some((_, seen)) => {
                        encode_delivery(encoding, batch.channel(), record, &seen, self.out.own())
                    }
                    None => Ok(()),
                },
                BatchEntry::Gap { .. } => match gap(batch.channel(), entry) {
                    Some(gap) => encode_gap(encoding, &gap, self.out.own()),
                    None => Ok(()),
                },
            };
            if let Err(error) = written {
                tracing::error!(%error, channel = %batch.channel(), offset = entry.offset().0, "a delivery can not be written");
            }
        }
        let end = slice.end.checked_sub(1).map_or(0, end_of);
        self.out.share(&frames.bytes, frames.bytes.get(from..end).unwrap_or_default());
        if self.is_watch {
            let (deliveries, bytes) = slice.weight();
            self.watched.0 += deliveries;
            self.watched.1 += bytes;
        }
    }

    fn report(&self, written: Result<(), EncodeError>) {
        if let Err(error) = written {
            tracing::error!(%error, "a message can not be written");
        }
    }
}

/// Where a batch keeps the frames of an encoding.
fn slot(encoding: Encoding) -> usize {
    match encoding {
        Encoding::JsonLines => 0,
        Encoding::Binary => 1,
    }
}

/// The frames of a batch that look the same to everybody; whoever looks, those are the same.
fn common_frames(encoding: Encoding, batch: &Batch, viewer: &Viewer<'_>) -> Frames {
    let mut bytes = BytesMut::with_capacity(batch.weight());
    let mut ends = Vec::with_capacity(batch.entries().len());
    for entry in batch.entries() {
        if let BatchEntry::Record(record) = entry
            && let Some((Form::Common, seen)) = view(record, viewer)
        {
            // One that can not be written leaves nothing, and is tried again and reported by who wants it.
            let _ = encode_delivery(encoding, batch.channel(), record, &seen, &mut bytes);
        }
        ends.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    }
    Frames { bytes: bytes.freeze(), ends }
}
