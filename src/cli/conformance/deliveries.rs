//! What customers and the other services do: deliveries, each with an offset of its own.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::json;

use super::stand_in::StandIn;
use crate::domain::event::{ClaimAction, Customer, MembershipAction, Status, ThreadAction};
use crate::domain::ids::{ConversationId, CustomerName, MessageId, Offset, ReplyId, Timestamp};
use crate::domain::presence::Doing;
use crate::wire::message::{Delivery, Flag, GapReason, Parent, RawContent, deliveries};

impl StandIn {
    fn next_offset(&mut self) -> Offset {
        self.last += 1;
        Offset(self.last)
    }

    /// A new customer's first message, with letters of more than one byte.
    pub(super) fn message(&mut self) -> (ConversationId, Delivery) {
        let offset = self.next_offset();
        let conversation = ConversationId(offset.0);
        let name = CustomerName::trusted(&format!("1650555{:04}", offset.0));
        let text = format!("Grüße № {offset} \u{1f44b} \"quoted\" \\ {}", "words ".repeat(8));
        let content = json!({"type": "text", "text": {"body": text}}).to_string();
        let message = deliveries::Message {
            channel: self.channel,
            offset,
            conversation,
            at: now(),
            message_id: MessageId::trusted(&format!("wamid.conformance.{offset}")),
            customer: Customer { wa_id: Some(name), name: Some("Zoë".into()), ..Customer::default() },
            content: RawContent(Bytes::from(content)),
            redacted: Flag(false),
            contact: None,
        };
        (conversation, Delivery::Message(message))
    }

    /// One of each of the other deliveries, none of which wants a reply.
    pub(super) fn others(&mut self) -> Vec<Delivery> {
        let (channel, conversation, at) = (self.channel, ConversationId(self.last + 1), now());
        let service = self.channel_seen().parent;
        let subscribers: Arc<[_]> = service.clone().into_iter().collect();
        let mut all: Vec<Delivery> = Vec::new();
        let offset = self.next_offset();
        let (kind, content) = (None, None);
        all.push(
            deliveries::MaskedReply { channel, offset, conversation, at, service: None, kind, content }
                .into(),
        );
        let offset = self.next_offset();
        let action = ClaimAction::PickedUp;
        all.push(
            deliveries::Claim { channel, offset, conversation, at, action, own: false, agent: None }.into(),
        );
        all.push(
            deliveries::Presence {
                channel,
                conversation,
                at,
                doing: Doing::Writing,
                own: false,
                agent: None,
                name: None,
            }
            .into(),
        );
        let offset = self.next_offset();
        let reply_id = ReplyId::trusted("of-an-earlier-time");
        let (message_id, status, error) = (None, Status::Delivered, None);
        all.push(
            deliveries::Receipt { channel, offset, conversation, at, reply_id, message_id, status, error }
                .into(),
        );
        let offset = self.next_offset();
        let reply_id = ReplyId::trusted("of-an-earlier-time");
        let (message_id, status, error) = (None, Status::Read, None);
        let details = RawContent(Bytes::from_static(br#"{"pricing":{"billable":true}}"#));
        all.push(
            deliveries::DetailedReceipt {
                channel,
                offset,
                conversation,
                at,
                reply_id,
                message_id,
                status,
                error,
                details,
            }
            .into(),
        );
        let offset = self.next_offset();
        let content = RawContent(Bytes::from_static(br#"{"event":"ACCOUNT_UPDATE"}"#));
        all.push(deliveries::Notice { channel, offset, at, field: "account_update".into(), content }.into());
        let (from, offset) = (self.next_offset(), self.next_offset());
        let reason = GapReason::Retention;
        all.push(deliveries::Gap { channel, offset, at, from, to: offset, reason }.into());
        let offset = self.next_offset();
        let (action, own, was_own) = (ThreadAction::Passed, false, true);
        let (agent, until, metadata) = (None, None, None);
        all.push(
            deliveries::Thread {
                channel,
                offset,
                conversation,
                at,
                action,
                own,
                was_own,
                agent,
                until,
                metadata,
            }
            .into(),
        );
        let offset = self.next_offset();
        let from = ConversationId(u64::MAX);
        all.push(deliveries::ConversationMerged { channel, offset, conversation, at, from }.into());
        if let Some(service) = service {
            let offset = self.next_offset();
            let (action, parent) = (MembershipAction::Configured, Parent(Some(service.clone())));
            all.push(
                deliveries::Membership { channel, offset, at, action, service, parent, subscribers }.into(),
            );
        }
        all
    }
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
