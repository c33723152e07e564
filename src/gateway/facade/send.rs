//! A message on its way: accepted as a reply of the service, waited for, and given up when it takes too long.
//!
//! ```text
//! Reply ─▶ accepted ─▶ Fate (waits) ─▶ sent: its id · failed: Meta's code · unknown: 131000
//!                         │ 10 s
//!                         └─▶ Withdraw ─▶ not handed: failed for good, 130429 / 131056 / 131016 · handed: unknown, 131000
//! ```
//!
//! **Invariant:** what was answered with an error that invites to try again is never sent after all.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::Asking;
use super::errors::GraphError;
use super::message::Send;
use crate::actors::Ask;
use crate::actors::port::{Answered, ReplyFate};
use crate::domain::channel::Standing;
use crate::domain::command::{Addressee, Command, ReplyCommand};
use crate::domain::event::{Receipt, Status, StatusError};
use crate::domain::ids::{ChannelId, ConversationId, CustomerName, ReplyId};
use crate::domain::outbox::{CHANNEL_CLOSED, EXPIRED, WITHDRAWN};

/// How names begin that the broker gives, where a service gave none.
pub(super) const OWN_NAMES: &str = "api:";
/// How long a request waits for Meta's answer (contract: 10 s).
pub const SENT_WITHIN: Duration = Duration::from_secs(10);
/// Why a reply was not handed in time; stands in its receipt, so that a repeat gets the same answer.
const NO_GATEWAY: &str = "no gateway was connected in time";
const BEHIND_ANOTHER: &str = "another reply to the same customer was not done in time";
const INTERRUPTED: &str = "the request was interrupted";
const TOO_MUCH: &str = "the number had too much to send in time";

/// Sends a message and answers as Meta would.
pub(super) async fn send(
    asking: &Asking,
    wanted: Send,
    reply_id: ReplyId,
    within: Duration,
) -> Result<Value, GraphError> {
    let until = Instant::now() + within;
    let channel = channel_of(asking).await?;
    let is_template = wanted.content.content.kind() == "template";
    let reply = ReplyCommand {
        service: asking.caller.service().clone(),
        agent: None,
        to: Addressee::Customer(wanted.to.clone()),
        reply_id: reply_id.clone(),
        content: wanted.content.content,
        callback_data: wanted.content.callback_data,
        seen: None,
        confirm: None,
    };
    let ask = Ask::from(Command::Reply(reply));
    let conversation = match asking.caller.ask(channel, ask, wanted.bytes).await {
        Answered::Accepted { conversation, .. } => conversation,
        Answered::Refused(refusal) => return Err(refusal.into()),
        _ => return Err(GraphError::unknown_outcome("the broker gave no answer to a reply")),
    };
    let waiting = asking.caller.ask(channel, fate(asking, &reply_id, true), 1);
    let fate = match timeout_at(until, waiting).await {
        Ok(Answered::Fate(fate)) => *fate,
        Ok(_) => return Err(GraphError::unavailable("the broker can not say what became of the message")),
        Err(_) => give_up(asking, channel, &reply_id).await?,
    };
    let message_id = outcome(fate)?;
    let mut message = json!({ "id": message_id });
    if let (true, Some(fields)) = (is_template, message.as_object_mut()) {
        fields.insert("message_status".to_owned(), json!("accepted"));
    }
    let contact = contact(asking, channel, conversation, &wanted.to, wanted.input).await;
    Ok(json!({ "messaging_product": "whatsapp", "contacts": [contact], "messages": [message] }))
}

/// Takes back what requests to a process before this one had under way: nobody waits for it any more, and who asked has
/// no name to ask again by. To be called before anything can be handed to a gateway.
pub(super) async fn take_back_orphans(asking: &Asking) {
    let Some((seen, _)) = asking.caller.channel(&asking.number.number) else { return };
    let service = asking.caller.service();
    let names = Ask::OpenNames { service: service.clone(), prefix: OWN_NAMES };
    let Answered::Names(names) = asking.caller.ask(seen.channel, names, 1).await else { return };
    for reply_id in names {
        let withdraw = Ask::Withdraw { service: service.clone(), reply_id, why: INTERRUPTED.into() };
        if !matches!(asking.caller.ask(seen.channel, withdraw, 1).await, Answered::Fate(_)) {
            tracing::error!(%service, "a message of an interrupted request can not be taken back");
        }
    }
}

/// The channel of the number. A service that never had a record there joins: a program written for the Cloud API has no
/// word of its own for it.
async fn channel_of(asking: &Asking) -> Result<ChannelId, GraphError> {
    match asking.caller.channel(&asking.number.number) {
        Some((seen, standing)) if standing != Standing::None => Ok(seen.channel),
        _ => match asking.caller.create(&asking.number.number).await {
            Answered::Channel { seen, .. } => Ok(seen.channel),
            Answered::Refused(refusal) => Err(refusal.into()),
            _ => Err(GraphError::unavailable("the broker gave no answer")),
        },
    }
}

fn fate(asking: &Asking, reply_id: &ReplyId, wait: bool) -> Ask {
    Ask::Fate { service: asking.caller.service().clone(), reply_id: reply_id.clone(), wait }
}

/// It has taken too long: what was not handed is taken back for good.
async fn give_up(asking: &Asking, channel: ChannelId, reply_id: &ReplyId) -> Result<ReplyFate, GraphError> {
    let lost = || GraphError::unknown_outcome("it can not be known whether the message was sent");
    let caller = &asking.caller;
    let Answered::Fate(now) = caller.ask(channel, fate(asking, reply_id, false), 1).await else {
        return Err(lost());
    };
    let why = match (caller.has_gateway(&asking.number.number), now.is_behind) {
        (false, _) => NO_GATEWAY,
        (true, true) => BEHIND_ANOTHER,
        (true, false) => TOO_MUCH,
    };
    let service = caller.service().clone();
    let withdraw = Ask::Withdraw { service, reply_id: reply_id.clone(), why: why.into() };
    match caller.ask(channel, withdraw, 1).await {
        Answered::Fate(fate) => Ok(*fate),
        _ => Err(lost()),
    }
}

/// WhatsApp's id of the message, or the error that stands for what became of it.
fn outcome(fate: ReplyFate) -> Result<String, GraphError> {
    let unknown = || GraphError::unknown_outcome("it can not be known whether the message was sent");
    let Some(Receipt { status, message_id, error, .. }) = fate.outcome.map(|receipt| *receipt) else {
        return Err(match fate.status {
            Status::Accepted | Status::Unknown => unknown(),
            Status::Failed => {
                GraphError::unknown_outcome("the message was not sent; why is not kept any more")
            }
            _ => GraphError::unknown_outcome("the message was sent; its id is not kept any more"),
        });
    };
    match (status, message_id, error) {
        (Status::Failed, _, error) => Err(failed(error)),
        (Status::Accepted | Status::Unknown, _, _) => Err(unknown()),
        (_, Some(id), _) => Ok(id.as_str().to_owned()),
        (_, None, _) => {
            Err(GraphError::unknown_outcome("the message was sent under an id that is not known"))
        }
    }
}

fn failed(error: Option<StatusError>) -> GraphError {
    let Some(StatusError { code, title, details }) = error else {
        return GraphError::unknown_outcome("the message was not sent");
    };
    let title = title.as_deref();
    match &*code {
        WITHDRAWN if title == Some(NO_GATEWAY) => GraphError::unavailable(NO_GATEWAY),
        WITHDRAWN if title == Some(BEHIND_ANOTHER) => {
            GraphError::new(131_056, "Pair rate limit hit").with(BEHIND_ANOTHER)
        }
        WITHDRAWN if title == Some(TOO_MUCH) => GraphError::new(130_429, "Rate limit hit").with(TOO_MUCH),
        EXPIRED => GraphError::unavailable("it waited for its gateway for too long"),
        CHANNEL_CLOSED => GraphError::no_object(),
        code => {
            let message = title.unwrap_or("the message was not sent").to_owned();
            let error = GraphError::new(code.parse().unwrap_or(131_000), message);
            match details {
                Some(details) => error.with(&*details),
                None => error,
            }
        }
    }
}

/// Whom it went to, as the request named him and as WhatsApp does.
async fn contact(
    asking: &Asking,
    channel: ChannelId,
    conversation: ConversationId,
    to: &CustomerName,
    input: String,
) -> Value {
    if !to.is_user_id() {
        return json!({ "input": input, "wa_id": to.as_str() });
    }
    let service = asking.caller.service().clone();
    let whom = Ask::Whom { service, conversation, reply: None };
    let wa_id = match asking.caller.ask(channel, whom, 1).await {
        Answered::Whom(whom) => whom.customer.wa_id,
        _ => None,
    };
    match wa_id {
        Some(wa_id) => json!({ "input": input, "wa_id": wa_id.as_str(), "user_id": to.as_str() }),
        None => json!({ "input": input, "user_id": to.as_str() }),
    }
}
