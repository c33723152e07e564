//! `conversation`: what a named service would see of a running broker's conversations, and the operator's hand on its
//! claims.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::operator::{Asking, with_query};
use super::shown::{clean, text, time};
use super::{Outcome, out};
use crate::domain::ids::{AgentId, ChannelId, ConversationId, ServiceId};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// A channel's conversations with their claims, as a service would list them.
    List(List),
    /// One conversation with its claims and its timeline, as a service would see it.
    Show(Show),
    /// End a claim of a service, whoever holds it.
    Release(Release),
    /// Hand a claim of a service to another of its agents.
    Transfer(Transfer),
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    asking: Asking,
    /// The channel.
    channel: ChannelId,
    /// Through whose eyes: others' replies and claims are masked.
    #[arg(long = "as", value_name = "SERVICE")]
    viewer: ServiceId,
    /// Behind this one.
    #[arg(long, value_name = "CONVERSATION")]
    after: Option<ConversationId>,
    /// At most so many.
    #[arg(long)]
    limit: Option<u32>,
    /// Only those held in any service, or in none.
    #[arg(long, value_name = "BOOL")]
    claimed: Option<bool>,
    /// Only those without a reply since the customer's newest message, or with one.
    #[arg(long, value_name = "BOOL")]
    unanswered: Option<bool>,
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    asking: Asking,
    /// The channel.
    channel: ChannelId,
    /// Which.
    conversation: ConversationId,
    /// Through whose eyes: others' replies and claims are masked.
    #[arg(long = "as", value_name = "SERVICE")]
    viewer: ServiceId,
    /// At most so many entries of the timeline.
    #[arg(long)]
    limit: Option<u32>,
    /// Only what lies before this offset.
    #[arg(long, value_name = "OFFSET")]
    before: Option<u64>,
}

#[derive(Debug, Args)]
struct Release {
    #[command(flatten)]
    asking: Asking,
    /// The channel.
    channel: ChannelId,
    /// Which.
    conversation: ConversationId,
    /// The service within which the claim holds.
    #[arg(long)]
    service: ServiceId,
    /// The agent who holds it.
    #[arg(long, value_name = "AGENT")]
    holder: AgentId,
}

#[derive(Debug, Args)]
struct Transfer {
    #[command(flatten)]
    claim: Release,
    /// The agent of the same service who gets it.
    #[arg(long, value_name = "AGENT")]
    to: AgentId,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.verb {
        Verb::List(List { asking, channel, viewer, after, limit, claimed, unanswered }) => {
            let parameters = [
                ("as", Some(viewer.to_string())),
                ("after", after.map(|after| after.to_string())),
                ("limit", limit.map(|limit| limit.to_string())),
                ("claimed", claimed.map(|claimed| claimed.to_string())),
                ("unanswered", unanswered.map(|unanswered| unanswered.to_string())),
            ];
            asking.get(&with_query(format!("/channels/{channel}/conversations"), &parameters), show_list)
        }
        Verb::Show(Show { asking, channel, conversation, viewer, limit, before }) => {
            let parameters = [
                ("as", Some(viewer.to_string())),
                ("limit", limit.map(|limit| limit.to_string())),
                ("before", before.map(|before| before.to_string())),
            ];
            let path = format!("/channels/{channel}/conversations/{conversation}");
            asking.get(&with_query(path, &parameters), show_one)
        }
        Verb::Release(claim) => {
            let body = json!({"service": claim.service.as_str(), "holder": claim.holder.as_str()});
            claim.asking.post(&path_of(claim, "release"), &body, |_| out::line("released"))
        }
        Verb::Transfer(Transfer { claim, to }) => {
            let body = json!({
                "service": claim.service.as_str(), "holder": claim.holder.as_str(), "to": to.as_str(),
            });
            claim.asking.post(&path_of(claim, "transfer"), &body, |_| out::line("transferred"))
        }
    }
}

fn path_of(claim: &Release, what: &str) -> String {
    format!("/channels/{}/conversations/{}/{what}", claim.channel, claim.conversation)
}

fn show_list(answer: &Value) {
    for one in answer.get("conversations").and_then(Value::as_array).into_iter().flatten() {
        let unanswered = one.get("unanswered") == Some(&Value::Bool(true));
        out::line(&format!(
            "{}  {}  window {:7}  {:10}  held by {}{}",
            text(one, "conversation"),
            customer(one),
            text(one, "window"),
            if unanswered { "unanswered" } else { "answered" },
            claims(one),
            match thread(one) {
                Some(thread) => format!("  thread: {thread}"),
                None => String::new(),
            },
        ));
    }
    if let Some(next) = answer.get("next").and_then(Value::as_str) {
        out::note(&format!("there are more: --after {next}"));
    }
}

fn show_one(answer: &Value) {
    for (what, is) in [
        ("conversation", text(answer, "conversation")),
        ("customer", customer(answer)),
        ("window", text(answer, "window")),
        ("held by", claims(answer)),
        ("thread", thread(answer).unwrap_or_else(|| "nobody's".to_owned())),
    ] {
        out::line(&format!("{what:12} {is}"));
    }
    if answer.get("more") == Some(&Value::Bool(true)) {
        out::line("…");
    }
    for entry in answer.get("timeline").and_then(Value::as_array).into_iter().flatten() {
        let at = entry.get("at").and_then(Value::as_u64).map_or_else(String::new, time);
        let offset = entry.get("offset").and_then(Value::as_u64).unwrap_or_default();
        let line = format!("{offset:>8}  {at}  {:12}  {}", text(entry, "type"), said(entry));
        out::line(line.trim_end());
    }
}

fn customer(of: &Value) -> String {
    let Some(customer) = of.get("customer") else { return "-".to_owned() };
    match customer.get("name").and_then(Value::as_str) {
        Some(name) => format!("{} ({})", text(customer, "id"), clean(name)),
        None => text(customer, "id"),
    }
}

/// Who holds it, as far as the service may know.
fn claims(of: &Value) -> String {
    let one = |claim: &Value| match claim.get("agent") {
        Some(_) => format!("{} in {}", text(claim, "agent"), text(claim, "service")),
        None => "somebody elsewhere".to_owned(),
    };
    let all: Vec<String> =
        of.get("claims").and_then(Value::as_array).into_iter().flatten().map(one).collect();
    if all.is_empty() { "nobody".to_owned() } else { all.join(", ") }
}

/// Whose the thread is, as far as the service may know; nothing where it is nobody's.
fn thread(of: &Value) -> Option<String> {
    let thread = of.get("thread")?;
    let at = |name: &str| thread.get(name).and_then(Value::as_u64).map_or_else(String::new, time);
    match thread.get("owner").and_then(Value::as_str)? {
        "self" => {
            let metadata = thread.get("metadata").map(|_| format!(" ({})", text(thread, "metadata")));
            Some(format!("its own until {}{}", at("until"), metadata.unwrap_or_default()))
        }
        "another" => Some("another service's".to_owned()),
        _ => None,
    }
}

/// What an entry of a timeline says. Content is shown as JSON, which holds no control character.
fn said(entry: &Value) -> String {
    let field = |name: &str| entry.get(name).map(|_| text(entry, name));
    let content = entry.get("content").map(|content| clean(&content.to_string()));
    let parts = [field("action"), field("status"), field("agent"), field("service"), content];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}
