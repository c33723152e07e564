//! Checks of a gateway: it is handed replies and says what became of them, and brings what its customers write.
//!
//! What its network does nobody can see from here. So it is run with one whose customers say what they were told: whatever
//! it is handed comes back as a customer's message.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::checks::{QUIET, TOLERANCE};
use super::manners::Manner;
use super::stand_in::StandIn;
use crate::domain::ids::{ConversationId, CustomerName, Offset, ReplyId};
use crate::wire::message::requests::{Inbound, Sent};
use crate::wire::message::responses::{self, Error};
use crate::wire::message::{Delivery, ErrorCode, RawContent, Response, deliveries};

/// Every check, and what a gateway does that passes it.
pub(super) const CHECKS: &[(&str, &str)] = &[
    ("sends", "answers a `send` with one `sent` of its channel and offset"),
    ("burst", "a hundred replies at once are all told of"),
    ("lost_answer", "a `sent` without an answer is told again on the next connection"),
    ("brings", "brings what a customer writes, once"),
    (
        "inbound_again",
        "an `inbound` without an answer comes again with the same message_id, time and content",
    ),
    ("later", "`overloaded` is waited out, and the same inbound comes again"),
    ("refusal", "a refusal for good is taken, and the message not brought again and again"),
    ("split_bytes", "a reply that comes byte by byte is one reply"),
    ("unknown", "unknown messages and members are passed over"),
    ("goaway", "after goaway it comes back, and not before retry_after_ms"),
    ("back_off", "it comes back at growing distances"),
    ("heartbeat", "it pings as often as it promises"),
    ("replaced", "when a newer connection has taken over it stays away"),
];
/// Replies of a burst.
const BURST: usize = 100;
/// How long `overloaded` asks to wait.
const LATER: Duration = Duration::from_millis(600);

/// A message that was brought.
struct Brought {
    inbound: Inbound,
    /// When, each time.
    at: Vec<Instant>,
}

/// What was seen of a gateway.
#[derive(Default)]
pub(super) struct Network {
    /// Replies that were handed over, and how often each was told of.
    handed: BTreeMap<Offset, usize>,
    /// Those whose `sent` was answered.
    answered: BTreeSet<Offset>,
    brought: Vec<Brought>,
    /// How what is brought is answered, one after the other; then it is accepted.
    manners: VecDeque<Manner>,
    /// The connection ends in place of the answer to the next `sent`.
    drops_sent: bool,
}

impl Network {
    /// A reply is handed over.
    pub(super) fn handed(&mut self, offset: Offset) {
        self.handed.entry(offset).or_default();
    }

    /// Replies of which nothing was told.
    pub(super) fn untold(&self) -> Vec<Offset> {
        self.handed.iter().filter(|(_, told)| **told == 0).map(|(offset, _)| *offset).collect()
    }
}

impl StandIn {
    pub(super) async fn check_gateway(&mut self, name: &str) -> Option<String> {
        match name {
            "sends" => self.sends().await,
            "burst" => self.hands_many().await,
            "lost_answer" => self.loses_an_answer().await,
            "brings" => self.is_brought(&[]).await,
            "inbound_again" => self.is_brought(&[Manner::Drop]).await,
            "later" => self.is_brought(&[Manner::Later(LATER)]).await,
            "refusal" => self.is_brought(&[Manner::Refuse(ErrorCode::NotFound)]).await,
            "split_bytes" => self.splits_bytes().await,
            "unknown" => self.says_unknown_things().await,
            "goaway" => self.goes_away().await,
            "back_off" => self.turns_away().await,
            "heartbeat" => self.waits_for_pings().await,
            "replaced" => self.replaces().await,
            other => Some(format!("there is no check {other}")),
        }
    }

    /// A service's reply, for the gateway.
    pub(super) fn reply_to_send(&mut self) -> Delivery {
        self.last += 1;
        let offset = Offset(self.last);
        deliveries::Send {
            channel: self.channel,
            offset,
            conversation: ConversationId(offset.0),
            to: CustomerName::trusted(&format!("1650555{:04}", offset.0)),
            reply_id: ReplyId::trusted(&format!("conformance-{offset}")),
            content: RawContent::text(&format!("Grüße № {offset} \"quoted\"")),
        }
        .into()
    }

    async fn sends(&mut self) -> Option<String> {
        let not_judged = self.answers().await;
        self.watch(QUIET).await;
        not_judged
    }

    async fn hands_many(&mut self) -> Option<String> {
        let mut frames = Vec::new();
        for _ in 0..BURST {
            let reply = self.reply_to_send();
            frames.extend_from_slice(&self.frame(&reply, false));
        }
        self.write(&frames).await;
        self.settle().await;
        None
    }

    async fn loses_an_answer(&mut self) -> Option<String> {
        self.network.as_mut()?.drops_sent = true;
        let reply = self.reply_to_send();
        self.deliver(&reply, false).await;
        self.settle().await;
        let offset = Offset(self.last);
        let told =
            |stand_in: &Self| stand_in.network.as_ref().is_some_and(|of| of.answered.contains(&offset));
        let is_told = self.until(self.patience, told).await;
        (!is_told && self.ledger.faults.is_empty())
            .then(|| "it does not tell again: a reply whose `sent` was lost stays `unknown`".to_owned())
    }

    /// Hands a reply over, and looks at how what its customer says to it is brought.
    async fn is_brought(&mut self, manners: &[Manner]) -> Option<String> {
        // What earlier checks made customers say is brought first.
        self.watch(QUIET).await;
        let before = self.network.as_ref()?.brought.len();
        self.network.as_mut()?.manners.extend(manners.iter().cloned());
        let reply = self.reply_to_send();
        self.deliver(&reply, false).await;
        self.settle().await;
        let times = if manners.is_empty() || matches!(manners, [Manner::Refuse(_)]) { 1 } else { 2 };
        let brought = move |stand_in: &Self| {
            stand_in.network.as_ref().and_then(|of| of.brought.get(before)).map_or(0, |one| one.at.len())
        };
        self.until(self.patience, |stand_in| brought(stand_in) >= times).await;
        self.watch(QUIET).await;
        let came = brought(self);
        self.network.as_mut()?.manners.clear();
        if came == 0 {
            return Some("it brings nothing: run it so that customers say what they are told".to_owned());
        }
        if came < times {
            self.ledger.fault("what had no answer, or was to come later, was not brought again");
        } else if came > times {
            self.ledger.fault(format!("brought a message {came} times that was answered"));
        }
        let at = self.network.as_ref()?.brought.get(before).map(|one| one.at.clone()).unwrap_or_default();
        if let ([Manner::Later(after)], [first, second, ..]) = (manners, at.as_slice())
            && second.duration_since(*first) + TOLERANCE < *after
        {
            let waited = second.duration_since(*first).as_millis();
            self.ledger.fault(format!("came again after {waited} ms, asked for {}", after.as_millis()));
        }
        None
    }

    /// A gateway tells what became of a reply.
    pub(super) async fn take_sent(&mut self, id: u64, sent: &Sent) {
        let is_here = sent.channel == self.channel;
        let Some(network) = &mut self.network else { return };
        match network.handed.get_mut(&sent.offset).filter(|_| is_here) {
            None => self.ledger.fault("told of a reply that it was never handed"),
            Some(_) if network.answered.contains(&sent.offset) => {
                self.ledger.fault(format!("told twice of reply {}, though that was answered", sent.offset));
            }
            Some(told) => *told += 1,
        }
        if std::mem::take(&mut network.drops_sent) {
            return self.drop_link();
        }
        network.answered.insert(sent.offset);
        self.say(id, &Response::Ok(responses::Ok {})).await;
    }

    /// A gateway brings a customer's message.
    pub(super) async fn take_inbound(&mut self, id: u64, inbound: Inbound) {
        let Some(network) = &mut self.network else { return };
        let known = network.brought.iter_mut().find(|one| one.inbound.message_id == inbound.message_id);
        match known {
            Some(known) => {
                known.at.push(Instant::now());
                let of = |inbound: &Inbound| -> (u64, Bytes) { (inbound.at.0, inbound.content.0.clone()) };
                if of(&known.inbound) != of(&inbound) || known.inbound.customer != inbound.customer {
                    self.ledger.fault("a message_id came again with another time, customer or content");
                }
            }
            None => network.brought.push(Brought { inbound, at: vec![Instant::now()] }),
        }
        let response = match network.manners.pop_front() {
            Some(Manner::Drop | Manner::Hold | Manner::Warn(_)) => return self.drop_link(),
            Some(Manner::Later(after)) => {
                let error = Error::new(ErrorCode::Overloaded, "too much is under way");
                let retry_after_ms = u64::try_from(after.as_millis()).ok();
                Response::Error(Error { retry_after_ms, ..error })
            }
            Some(Manner::Refuse(code)) => Response::Error(Error::new(code, "not here, and for good")),
            None => Response::InboundAccepted(responses::InboundAccepted { channels: 1, duplicate: false }),
        };
        self.say(id, &response).await;
    }
}
