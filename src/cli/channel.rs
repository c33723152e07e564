//! `channel`: the channels of a running broker, and what an operator changes in them on behalf of a service.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::operator::{Asking, with_query};
use super::shown::{text, texts};
use super::{Outcome, out};
use crate::domain::ids::{ChannelId, Number, PortalId, ServiceId};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The channels that are not closed.
    List(List),
    /// One channel.
    Show(Show),
    /// Create a number in a service: makes the channel, or joins it.
    Create(Create),
    /// Bring a service back to the channel's list.
    Activate(Come),
    /// Take a service out of the list; its record stays.
    Deactivate(Go),
    /// Take a service out and forget its record.
    Delete(Go),
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    asking: Asking,
    /// Only this portal's.
    #[arg(long)]
    portal: Option<PortalId>,
    /// Behind this one.
    #[arg(long, value_name = "CHANNEL")]
    after: Option<ChannelId>,
    /// At most so many.
    #[arg(long)]
    limit: Option<u32>,
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    asking: Asking,
    /// Which.
    channel: ChannelId,
}

#[derive(Debug, Args)]
struct Create {
    #[command(flatten)]
    asking: Asking,
    /// The portal.
    #[arg(long)]
    portal: PortalId,
    /// On behalf of which service.
    #[arg(long)]
    service: ServiceId,
    /// The number.
    #[arg(long)]
    number: Number,
    /// Deliver what retention still has, too.
    #[arg(long)]
    backfill: bool,
}

#[derive(Debug, Args)]
struct Come {
    #[command(flatten)]
    asking: Asking,
    /// Which.
    channel: ChannelId,
    /// On behalf of which service.
    #[arg(long)]
    service: ServiceId,
    /// Deliver what it missed, too.
    #[arg(long)]
    backfill: bool,
}

#[derive(Debug, Args)]
struct Go {
    #[command(flatten)]
    asking: Asking,
    /// Which.
    channel: ChannelId,
    /// On behalf of which service.
    #[arg(long)]
    service: ServiceId,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.verb {
        Verb::List(List { asking, portal, after, limit }) => {
            let parameters = [
                ("portal", portal.as_ref().map(ToString::to_string)),
                ("after", after.map(|after| after.to_string())),
                ("limit", limit.map(|limit| limit.to_string())),
            ];
            asking.get(&with_query("/channels".to_owned(), &parameters), show_list)
        }
        Verb::Show(Show { asking, channel }) => asking.get(&format!("/channels/{channel}"), show_one),
        Verb::Create(Create { asking, portal, service, number, backfill }) => {
            let body = json!({
                "portal": portal.as_str(), "service": service.as_str(), "number": number.as_str(),
                "backfill": backfill,
            });
            asking.post("/channels", &body, show_change)
        }
        Verb::Activate(Come { asking, channel, service, backfill }) => {
            let body = json!({"service": service.as_str(), "backfill": backfill});
            asking.post(&format!("/channels/{channel}/activate"), &body, show_change)
        }
        Verb::Deactivate(go) => leave(go, "deactivate"),
        Verb::Delete(go) => leave(go, "delete"),
    }
}

fn leave(go: &Go, how: &str) -> Outcome {
    let Go { asking, channel, service } = go;
    asking.post(&format!("/channels/{channel}/{how}"), &json!({"service": service.as_str()}), show_change)
}

fn show_list(answer: &Value) {
    for channel in answer.get("channels").and_then(Value::as_array).into_iter().flatten() {
        let (portal, parent) = (text(channel, "portal"), text(channel, "parent"));
        let (number, state) = (text(channel, "number"), text(channel, "state"));
        let subscribers = texts(channel, "subscribers");
        let id = text(channel, "channel");
        out::line(&format!(
            "{id}  {portal}  {number}  {state:7}  parent {parent}  subscribers {subscribers}"
        ));
    }
    if let Some(next) = answer.get("next").and_then(Value::as_str) {
        out::note(&format!("there are more: --after {next}"));
    }
}

fn show_one(channel: &Value) {
    for (what, is) in [
        ("channel", text(channel, "channel")),
        ("portal", text(channel, "portal")),
        ("number", text(channel, "number")),
        ("state", text(channel, "state")),
        ("parent", text(channel, "parent")),
        ("subscribers", texts(channel, "subscribers")),
        ("inactive", texts(channel, "inactive")),
        ("head", channel.get("head").map_or_else(String::new, Value::to_string)),
    ] {
        out::line(&format!("{what:12} {is}"));
    }
    if let Some(settings) = channel.get("settings").and_then(Value::as_object) {
        for (setting, value) in settings {
            out::line(&format!("{setting:12} {value}"));
        }
    }
    if channel.get("quarantined") == Some(&Value::Bool(true)) {
        out::line("quarantined: its state can not be had from the journal, and it answers nothing");
    }
}

fn show_change(channel: &Value) {
    let is = |name: &str| channel.get(name) == Some(&Value::Bool(true));
    let what = if is("created") {
        "created"
    } else if is("joined") {
        "joined"
    } else if is("changed") {
        "changed"
    } else {
        "unchanged"
    };
    let (id, state) = (text(channel, "channel"), text(channel, "state"));
    let (parent, subscribers) = (text(channel, "parent"), texts(channel, "subscribers"));
    out::line(&format!("{what}: {id}  {state}  parent {parent}  subscribers {subscribers}"));
}
