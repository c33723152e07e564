//! Channels: list, show, and what is changed on behalf of a named service.

use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, read};
use super::reply::{Outcome, Refused, told, told_with};
use crate::actors::operator::{ChannelListed, StandingChange, Told};
use crate::actors::port::Answered;

/// A service that is to have a number.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    portal: String,
    service: String,
    number: String,
    #[serde(default)]
    backfill: bool,
}

/// A service that comes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Come {
    service: String,
    #[serde(default)]
    backfill: bool,
}

/// A service that goes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Go {
    service: String,
}

pub(super) async fn list(call: Call) -> Outcome {
    let query = call.query(&["portal", "after", "limit"])?;
    let portal = query.find("portal")?;
    let (listed, next) =
        call.broker().channels_listed(portal.as_ref(), query.find("after")?, query.find("limit")?);
    let channels = listed.iter().map(|listed| listed.seen.clone()).collect();
    let answered = Answered::Channels { channels, next };
    told_with(call.desk(), Told { answered, viewer: None }, |value| {
        let channels = value.get_mut("channels").and_then(Value::as_array_mut);
        for (channel, listed) in channels.into_iter().flatten().zip(&listed) {
            for_operators(channel, listed);
        }
    })
}

pub(super) async fn show(call: Call) -> Outcome {
    call.query(&[])?;
    let listed = call.broker().channel_listed(call.part("channel")?).ok_or_else(Refused::not_found)?;
    let seen = Box::new(listed.seen.clone());
    let answered = Answered::Channel { seen, created: None, joined: None, changed: None };
    told_with(call.desk(), Told { answered, viewer: None }, |value| for_operators(value, &listed))
}

/// What only operators see of a channel.
fn for_operators(channel: &mut Value, listed: &ChannelListed) {
    if let Some(fields) = channel.as_object_mut() {
        fields.insert("portal".to_owned(), json!(listed.portal));
        fields.insert("inactive".to_owned(), json!(listed.inactive));
        fields.insert("quarantined".to_owned(), json!(listed.is_quarantined));
    }
}

pub(super) async fn create(call: Call) -> Outcome {
    call.query(&[])?;
    let Create { portal, service, number, backfill } = call.body()?;
    let (service, number) = (read("service", &service)?, read("number", &number)?);
    let created = call.broker().create_for(&read("portal", &portal)?, service, number, backfill).await;
    told(call.desk(), created)
}

pub(super) async fn activate(call: Call) -> Outcome {
    let Come { service, backfill } = call.body()?;
    change(call, &service, StandingChange::Activate, backfill).await
}

pub(super) async fn deactivate(call: Call) -> Outcome {
    let Go { service } = call.body()?;
    change(call, &service, StandingChange::Deactivate, false).await
}

pub(super) async fn delete(call: Call) -> Outcome {
    let Go { service } = call.body()?;
    change(call, &service, StandingChange::Delete, false).await
}

async fn change(call: Call, service: &str, change: StandingChange, backfill: bool) -> Outcome {
    call.query(&[])?;
    let service = read("service", service)?;
    let changed = call.broker().stand_for(call.part("channel")?, service, change, backfill).await;
    told(call.desk(), changed)
}
