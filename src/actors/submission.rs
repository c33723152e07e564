//! What comes in without a connection: customers' messages, statuses and notices that webhooks bring.

use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use super::asking::{Ask, Asked, ReplyTo, Work};
use super::broker::Broker;
use super::port::{Answered, Refusal};
use crate::domain::command::{Command, Echo, Inbound, SendOutcome, StatusCommand, StatusOf};
use crate::domain::content::Content;
use crate::domain::ids::{ChannelId, MessageId, Number, Offset};

/// What becomes of a customer's message, a status or a notice that did not come over a connection.
#[derive(Debug)]
pub struct Submitted(Vec<oneshot::Receiver<Answered>>);

/// What is submitted for the channels of one number.
#[derive(Debug, Clone)]
pub enum Submission {
    /// A customer wrote.
    Message(Inbound),
    /// A message came further on its way.
    Status(StatusCommand),
    /// A message came further on its way, and WhatsApp says by which reply it was sent.
    OfReply {
        /// The reply's channel.
        channel: ChannelId,
        /// Where it stands.
        reply: Offset,
        /// The message that it became.
        message_id: MessageId,
        /// What a status of that message says.
        status: StatusCommand,
    },
    /// Somebody replied on the phone.
    Echo(Echo),
    /// A webhook change for the parent.
    Notice {
        /// The webhook's field.
        field: Arc<str>,
        /// The change's value.
        content: Content,
    },
}

impl Submitted {
    /// What each channel said, in the order of the channels; `Unavailable` for one that will not say anything. Cancelled,
    /// what was submitted is done all the same.
    pub async fn answers(self) -> Vec<Answered> {
        let mut answers = Vec::with_capacity(self.0.len());
        for waiting in self.0 {
            answers.push(waiting.await.unwrap_or(Answered::Refused(Refusal::Unavailable)));
        }
        answers
    }
}

impl Broker {
    /// Submits something for every channel of a number; none where no portal has the number. Does not wait: who submits
    /// bounds how much he has under way, or [joins](Self::join) as a gateway, which does.
    #[must_use]
    pub fn submit(&self, number: &Number, submission: &Submission) -> Option<Submitted> {
        let known = Arc::clone(self.inner.shared.registry.numbers.get(number)?.value());
        let mut channels: Vec<_> = known.open().to_vec();
        if let Submission::OfReply { channel, .. } = submission {
            // Only where it is a reply of this number; else it is a status like any other.
            let of_number =
                self.inner.shared.registry.channels.get(channel).map(|entry| entry.value().clone());
            if let Some(entry) = of_number.filter(|entry| entry.number == *number) {
                channels = vec![entry];
            }
        }
        if let Submission::Status(StatusCommand { of: StatusOf::Message(message_id), .. }) = submission {
            let sender = known.senders.lock().unwrap_or_else(PoisonError::into_inner).find(message_id);
            let sender = sender.and_then(|sender| {
                self.inner.shared.registry.channels.get(&sender.channel).map(|entry| entry.value().clone())
            });
            channels = sender.map_or(channels, |entry| vec![entry]);
        }
        if channels.is_empty() && matches!(submission, Submission::Message(_)) {
            self.inner.shared.counters.unrouted();
        }
        let mut waiting = Vec::with_capacity(channels.len());
        for entry in channels {
            let command = match submission {
                Submission::Message(inbound) => Command::Inbound(inbound.clone()),
                Submission::Status(status) | Submission::OfReply { status, .. } => {
                    Command::Status(status.clone())
                }
                Submission::Echo(echo) => Command::Echo(echo.clone()),
                Submission::Notice { field, content } => {
                    Command::Notice { field: Arc::clone(field), content: content.clone() }
                }
            };
            let (answer, answered) = oneshot::channel();
            waiting.push(answered);
            let mut asked = vec![Asked { ask: Ask::from(command), reply_to: ReplyTo::Caller(answer) }];
            if let Submission::OfReply { channel, reply, message_id, .. } = submission
                && *channel == entry.id
            {
                // First that it was sent at all, which may be news after an answer that was lost.
                let outcome = Box::new(SendOutcome::Sent(message_id.clone()));
                asked.insert(
                    0,
                    Asked { ask: Ask::Outcome { reply: *reply, outcome }, reply_to: ReplyTo::Nobody },
                );
            }
            if let Some(addr) = &entry.addr {
                let _ = addr.try_send(Work { origin: None, asked, permits: None });
            }
        }
        Some(Submitted(waiting))
    }
}
