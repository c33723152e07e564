//! Conversations, as a named service would see them, and its claims.

use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, read};
use super::reply::{Outcome, told, told_with};
use crate::actors::operator::{ClaimOf, Page, ThreadSeen};
use crate::actors::port::Answered;

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
    let threads: Vec<Value> = match &found.answered {
        Answered::Conversations { conversations, .. } => {
            conversations.iter().map(|(seen, _)| thread_of(&seen.thread)).collect()
        }
        _ => Vec::new(),
    };
    told_with(call.desk(), found, |value| {
        let listed = value.get_mut("conversations").and_then(Value::as_array_mut);
        for (one, thread) in listed.into_iter().flatten().zip(threads) {
            put_thread(one, thread);
        }
    })
}

pub(super) async fn show(call: Call) -> Outcome {
    let query = call.query(&["as", "limit", "before"])?;
    let (limit, before): (_, Option<u64>) = (query.find("limit")?, query.find("before")?);
    let (channel, conversation) = (call.part("channel")?, call.part("conversation")?);
    let found = call.broker().conversation_as(channel, conversation, query.get("as")?, limit, before).await;
    let thread = match &found.answered {
        Answered::Conversation(timeline) => thread_of(&timeline.opened.thread),
        _ => Value::Null,
    };
    told_with(call.desk(), found, |value| put_thread(value, thread))
}

/// Whose a conversation's thread is, as the named service may see it. The protocol's answers have no room for it: there
/// it is asked for by itself.
fn thread_of(thread: &ThreadSeen) -> Value {
    let (owner, own) = match thread {
        ThreadSeen::Nobody => ("none", None),
        ThreadSeen::Another => ("another", None),
        ThreadSeen::Own { since, until, metadata } => ("self", Some((since, until, metadata))),
    };
    let mut told = json!({ "owner": owner });
    if let (Some(fields), Some((since, until, metadata))) = (told.as_object_mut(), own) {
        fields.insert("since".to_owned(), since.0.into());
        fields.insert("until".to_owned(), until.0.into());
        if let Some(metadata) = metadata {
            fields.insert("metadata".to_owned(), json!(&**metadata));
        }
    }
    told
}

fn put_thread(conversation: &mut Value, thread: Value) {
    if let Some(fields) = conversation.as_object_mut() {
        fields.insert("thread".to_owned(), thread);
    }
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
