//! Conversations, as a named service would see them, and its claims.

use serde::Deserialize;

use super::call::{Call, read};
use super::reply::{Outcome, told};
use crate::actors::operator::{ClaimOf, Page};

/// A claim that is to end.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    service: String,
    holder: String,
}

/// A claim that goes to another agent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    service: String,
    holder: String,
    to: String,
}

pub(super) async fn list(call: Call) -> Outcome {
    let query = call.query(&["as", "after", "limit", "claimed", "unanswered"])?;
    let page = Page {
        after: query.find("after")?,
        limit: query.find("limit")?,
        claimed: query.find("claimed")?,
        unanswered: query.find("unanswered")?,
    };
    let found = call.broker().conversations_as(call.part("channel")?, query.get("as")?, page).await;
    told(call.desk(), found)
}

pub(super) async fn show(call: Call) -> Outcome {
    let query = call.query(&["as", "limit", "before"])?;
    let (limit, before): (_, Option<u64>) = (query.find("limit")?, query.find("before")?);
    let (channel, conversation) = (call.part("channel")?, call.part("conversation")?);
    let found = call.broker().conversation_as(channel, conversation, query.get("as")?, limit, before).await;
    told(call.desk(), found)
}

pub(super) async fn release(call: Call) -> Outcome {
    call.query(&[])?;
    let Release { service, holder } = call.body()?;
    let claim = ClaimOf { service: read("service", &service)?, holder: read("holder", &holder)? };
    let (channel, conversation) = (call.part("channel")?, call.part("conversation")?);
    let released = call.broker().release_for(channel, conversation, claim).await;
    told(call.desk(), released)
}

pub(super) async fn transfer(call: Call) -> Outcome {
    call.query(&[])?;
    let Transfer { service, holder, to } = call.body()?;
    let claim = ClaimOf { service: read("service", &service)?, holder: read("holder", &holder)? };
    let (channel, conversation) = (call.part("channel")?, call.part("conversation")?);
    let given = call.broker().transfer_for(channel, conversation, claim, read("to", &to)?).await;
    told(call.desk(), given)
}
