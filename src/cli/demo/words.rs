//! The story's words: requests in few of them, and deliveries as they are shown.

use anyhow::bail;

use super::cast::{Cast, Player, Rows};
use super::screen::Screen;
use super::stage::SERVICES;
use crate::client::position;
use crate::domain::event::Agent;
use crate::domain::ids::{AgentId, ChannelId, ConversationId, Offset};
use crate::wire::frame::Encoding;
use crate::wire::message::requests::{ListConversations, Reply};
use crate::wire::message::{Addressee, Delivery, RawContent, Response, deliveries, responses};

pub(super) fn agent(name: &str) -> anyhow::Result<Agent> {
    let id: AgentId = name.to_lowercase().parse()?;
    Ok(Agent { agent: id, name: name.into(), lead: false })
}

pub(super) fn list(channel: ChannelId) -> ListConversations {
    ListConversations { channel, after: None, limit: None, claimed: None, unanswered: None }
}

pub(super) fn text_reply(
    channel: ChannelId,
    conversation: ConversationId,
    agent: Option<&str>,
    reply_id: &str,
    text: &str,
    seen: Option<Offset>,
) -> anyhow::Result<Reply> {
    let content = serde_json::json!({"type": "text", "text": {"body": text}});
    Ok(Reply {
        channel,
        to: Addressee::Conversation(conversation),
        agent: agent.map(str::parse).transpose()?,
        reply_id: reply_id.parse()?,
        content: RawContent(content.to_string().into()),
        seen,
        confirm: None,
    })
}

pub(super) fn channel_of(response: Response) -> anyhow::Result<responses::Channel> {
    match response {
        Response::Channel(channel) => Ok(channel),
        other => bail!("not a channel: {other:?}"),
    }
}

pub(super) fn accepted_of(response: Response) -> anyhow::Result<responses::Accepted> {
    match response {
        Response::Accepted(accepted) => Ok(accepted),
        other => bail!("not accepted: {other:?}"),
    }
}

pub(super) fn message_id(delivery: &Delivery) -> Option<&str> {
    match delivery {
        Delivery::Message(message) => Some(message.message_id.as_str()),
        _ => None,
    }
}

/// What deliveries hold, hidden texts included, to look for what must not be there.
pub(super) fn exposed(deliveries: &[Delivery]) -> Vec<String> {
    let mut lines = Vec::new();
    for delivery in deliveries {
        let mut out = bytes::BytesMut::new();
        if crate::wire::codec::encode_owned_delivery(Encoding::JsonLines, delivery, &mut out).is_ok() {
            lines.push(String::from_utf8_lossy(&out).into_owned());
        }
    }
    lines
}

/// What each service saw since the last look: so many deliveries each.
pub(super) async fn look(cast: &mut Cast, counts: &[usize]) -> anyhow::Result<Rows> {
    let mut rows = Rows::new();
    for (player, count) in cast.services.iter_mut().zip(counts) {
        let seen = player.next(*count).await?;
        note(&mut rows, player.name, &seen);
    }
    Ok(rows)
}

pub(super) fn show_rest(screen: &Screen, cast: &mut Cast) {
    let mut rows = Rows::new();
    for player in &mut cast.services {
        let seen = Player::rest(player);
        note(&mut rows, player.name, &seen);
    }
    if !rows.is_empty() {
        screen.table(&rows);
    }
}

pub(super) fn static_name(name: &str) -> &'static str {
    SERVICES.into_iter().find(|known| *known == name).unwrap_or("?")
}

pub(super) fn note(rows: &mut Rows, name: &'static str, seen: &[Delivery]) {
    for delivery in seen {
        if let Some((_, offset)) = position(delivery) {
            rows.entry(offset).or_default().insert(name, word(delivery));
        }
    }
}

/// A delivery in a few words.
fn word(delivery: &Delivery) -> String {
    match delivery {
        Delivery::Message(message) => format!("{}: {}", who(message), text_of(&message.content)),
        Delivery::Reply(reply) => format!("own reply: {}", text_of(&reply.content)),
        Delivery::MaskedReply(_) => "a reply in another service".to_owned(),
        Delivery::Claim(claim) => {
            format!("{}{}", if claim.own { "own claim " } else { "elsewhere " }, claim.action.as_str())
        }
        Delivery::Receipt(receipt) => format!("receipt: {}", receipt.status.as_str()),
        Delivery::DetailedReceipt(receipt) => format!("receipt: {}", receipt.status.as_str()),
        Delivery::Membership(change) => format!("{}: {}", change.service, change.action.as_str()),
        Delivery::ConversationMerged(_) => "two conversations are one".to_owned(),
        Delivery::Notice(notice) => format!("notice: {}", notice.field),
        Delivery::Gap(gap) => format!("lost: {} to {}", gap.from, gap.to),
        Delivery::Thread(thread) => {
            format!("{} thread {}", if thread.own { "own" } else { "elsewhere" }, thread.action.as_str())
        }
        Delivery::Presence(_) | Delivery::Send(_) => String::new(),
    }
}

fn who(message: &deliveries::Message) -> String {
    let name = message.customer.name.as_ref().map(|name| name.to_string());
    name.or_else(|| message.customer.id().map(|id| id.as_str().to_owned())).unwrap_or_default()
}

fn text_of(content: &RawContent) -> String {
    let value: serde_json::Value = serde_json::from_slice(&content.0).unwrap_or_default();
    let text = value.pointer("/text/body").and_then(|text| text.as_str());
    let kind = value.get("type").and_then(|kind| kind.as_str()).unwrap_or("?");
    text.map_or_else(|| format!("({kind})"), str::to_owned)
}
