//! How the stand-in answers: as a broker would, but for what a check wants otherwise.

use std::time::Duration;

use tokio::time::Instant;

use super::ledger::{Answer, conversation_of};
use super::stand_in::StandIn;
use crate::client::position;
use crate::domain::channel::WINDOW_MS;
use crate::domain::command::{Warning, WarningCode, Window};
use crate::domain::ids::{ConversationId, Offset};
use crate::wire::message::requests::{Open, PickUp, Reply};
use crate::wire::message::responses::{self, Error};
use crate::wire::message::{Addressee, ErrorCode, Private, Request, Response, ThreadOwnership, ThreadVerb};

/// R18's sentence for an agent without access.
const WARNING: &str = "Another agent has picked up this conversation in another service. You can still choose to pick it up here.";

/// How a reply is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Manner {
    /// Not before it is let go.
    Hold,
    /// The connection ends in place of the answer.
    Drop,
    /// With a warning that has this confirmation.
    Warn(String),
    /// With `overloaded`, and when to come again.
    Later(Duration),
    /// With an error that is for good.
    Refuse(ErrorCode),
}

impl StandIn {
    /// Answers a request.
    pub(super) async fn answer(&mut self, id: u64, request: Request) {
        let response = match request {
            Request::Ping(_) => Response::Pong(responses::Pong {}),
            Request::Inbound(inbound) if self.network.is_some() => {
                return self.take_inbound(id, inbound).await;
            }
            Request::Sent(sent) if self.network.is_some() => return self.take_sent(id, &sent).await,
            Request::Status(_) if self.network.is_some() => Response::Ok(responses::Ok {}),
            _ if self.network.is_some() => {
                self.ledger.fault("a gateway asked what only a service's adapter may");
                Response::Error(Error::new(ErrorCode::Forbidden, "this is for services"))
            }
            Request::Ack(ack) => {
                if ack.channel == self.channel {
                    self.ledger.acknowledged(ack.offset);
                } else {
                    self.ledger.fault("acknowledged something of a channel that it was never told of");
                }
                return;
            }
            Request::Reply(reply) => return self.answer_reply(id, &reply).await,
            Request::PickUp(pick_up) => self.answer_pick_up(&pick_up),
            Request::Open(open) => self.answer_open(&open),
            Request::Transfer(_) => Response::PickedUp(responses::PickedUp {}),
            Request::Roster(_) | Request::Release(_) | Request::Presence(_) => Response::Ok(responses::Ok {}),
            Request::ThreadControl(control) => thread_answer(&control.of, Some(control.action)),
            Request::ThreadOwner(owner) => thread_answer(&owner.of, None),
            Request::CreateChannel(create) => {
                self.number = Some(create.number);
                self.channel_answer(Some(false), Some(true), None)
            }
            Request::ActivateChannel(_) | Request::ConfigureChannel(_) => {
                self.channel_answer(None, None, Some(false))
            }
            Request::GetChannel(_) => self.channel_answer(None, None, None),
            Request::ListChannels(_) => {
                Response::Channels(responses::Channels { channels: vec![self.channel_seen()], next: None })
            }
            Request::ListConversations(_) => {
                Response::Conversations(responses::Conversations { conversations: Vec::new(), next: None })
            }
            Request::Hello(_) => {
                Response::Error(Error::new(ErrorCode::BadMessage, "hello comes once, first"))
            }
            Request::DeactivateChannel(_) | Request::DeleteChannel(_) => {
                self.ledger.fault("left the channel while it was judged");
                self.channel_answer(None, None, Some(true))
            }
            Request::Inbound(_) | Request::Status(_) | Request::Sent(_) => {
                self.ledger.fault("a service's adapter asked what only gateways may");
                Response::Error(Error::new(ErrorCode::Forbidden, "this is for gateways"))
            }
        };
        self.say(id, &response).await;
    }

    fn channel_answer(&self, created: Option<bool>, joined: Option<bool>, changed: Option<bool>) -> Response {
        Response::Channel(responses::Channel { seen: self.channel_seen(), created, joined, changed })
    }

    fn answer_pick_up(&mut self, pick_up: &PickUp) -> Response {
        self.pick_ups += 1;
        let (conversation, confirm) = (pick_up.conversation, pick_up.confirm.as_ref().map(Private::expose));
        if self.ledger.confirmed(conversation, "pick_up", confirm) {
            self.pick_up_warnings.remove(&conversation);
        }
        match self.pick_up_warnings.remove(&conversation) {
            Some(confirm) => {
                self.ledger.warned(conversation, "pick_up", &confirm);
                warning(&confirm, WarningCode::PickedUpElsewhere)
            }
            None => Response::PickedUp(responses::PickedUp {}),
        }
    }

    fn answer_open(&self, open: &Open) -> Response {
        let of_it =
            self.ledger.sent.iter().filter(|sent| conversation_of(&sent.delivery) == Some(open.conversation));
        let timeline: Vec<_> = of_it.map(|sent| sent.delivery.clone()).collect();
        let Some(crate::wire::message::Delivery::Message(first)) = timeline.first() else {
            return Response::Error(Error::new(ErrorCode::NotFound, "there is no such conversation"));
        };
        let (customer, at) = (first.customer.clone(), first.at);
        let head = timeline.last().and_then(position).map_or(Offset(0), |(_, offset)| offset);
        Response::Conversation(responses::Conversation {
            conversation: open.conversation,
            head,
            customer,
            window: Window::Open(at.plus_ms(WINDOW_MS)),
            claims: Vec::new(),
            warnings: Vec::new(),
            confirm: None,
            timeline,
            more: false,
        })
    }

    async fn answer_reply(&mut self, id: u64, reply: &Reply) {
        let Some(place) = self.ledger.asked(reply, Instant::now()) else {
            let error = Error::new(ErrorCode::NotFound, "there is no such conversation");
            return self.say(id, &Response::Error(error)).await;
        };
        let Some((conversation, earlier)) =
            self.ledger.asked.get(place).map(|asked| (asked.conversation, asked.answer))
        else {
            return;
        };
        if let Answer::Accepted(offset) = earlier {
            return self.say(id, &accepted(conversation, reply, offset, true)).await;
        }
        self.ledger.confirmed(conversation, "reply", reply.confirm.as_ref().map(Private::expose));
        let manner = self.manners.get_mut(&conversation).and_then(std::collections::VecDeque::pop_front);
        let (answer, response) = match manner {
            Some(Manner::Hold) => return self.held.push((id, place)),
            Some(Manner::Drop) => return self.drop_link(),
            Some(Manner::Warn(confirm)) => {
                self.ledger.warned(conversation, "reply", &confirm);
                (Answer::Warned, warning(&confirm, WarningCode::RepliedElsewhere))
            }
            Some(Manner::Later(after)) => {
                let error = Error::new(ErrorCode::Overloaded, "too much is under way");
                let retry_after_ms = Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
                (Answer::Later, Response::Error(Error { retry_after_ms, ..error }))
            }
            Some(Manner::Refuse(code)) => {
                (Answer::Refused, Response::Error(Error::new(code, "not for this reply, and for good")))
            }
            None => {
                self.last += 1;
                let offset = Offset(self.last);
                (Answer::Accepted(offset), accepted(conversation, reply, offset, false))
            }
        };
        self.ledger.answered(place, answer);
        self.say(id, &response).await;
    }

    /// Accepts what was held back, the last first: answers may come in any order.
    pub(super) async fn let_go(&mut self) {
        for (id, place) in std::mem::take(&mut self.held).into_iter().rev() {
            self.last += 1;
            let offset = Offset(self.last);
            let Some(asked) = self.ledger.asked.get(place) else { continue };
            let (conversation, reply_id) = (asked.conversation, asked.reply_id.parse());
            let Ok(reply_id) = reply_id else { continue };
            self.ledger.answered(place, Answer::Accepted(offset));
            let accepted = responses::Accepted { offset, conversation, reply_id, duplicate: false };
            self.say(id, &Response::Accepted(accepted)).await;
        }
    }
}

/// As if it were noted; nothing is remembered of it, since nothing else asks for it.
fn thread_answer(of: &Addressee, verb: Option<ThreadVerb>) -> Response {
    let Addressee::Conversation(conversation) = *of else {
        return Response::Error(Error::new(ErrorCode::NotFound, "there is no such conversation"));
    };
    let owner = match verb {
        Some(ThreadVerb::Take) => ThreadOwnership::Own,
        Some(ThreadVerb::Pass) => ThreadOwnership::Another,
        Some(ThreadVerb::Release) | None => ThreadOwnership::Nobody,
    };
    let since = (owner == ThreadOwnership::Own).then(super::deliveries::now);
    let until = since.map(|since| since.plus_ms(WINDOW_MS));
    Response::Thread(responses::Thread { conversation, owner, since, until, metadata: None })
}

fn warning(confirm: &str, code: WarningCode) -> Response {
    let warning = Warning { code, text: WARNING.into(), agent: None, name: None, service: None };
    Response::Warning(responses::Warning { warnings: vec![warning], confirm: Private::from(confirm) })
}

fn accepted(conversation: ConversationId, reply: &Reply, offset: Offset, duplicate: bool) -> Response {
    let reply_id = reply.reply_id.clone();
    Response::Accepted(responses::Accepted { offset, conversation, reply_id, duplicate })
}
