//! Pick-ups: agents take conversations and let them go again, one decision after another in the channel.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use serde_json::json;
use tokio::time::timeout;

use super::measured::{Latency, Measured};
use super::options::Against;
use super::report::{Bar, f64_of, grouped, with};
use super::subscriber::STUCK_AFTER;
use super::target::{Needs, Target};
use crate::cli::out;
use crate::client::Connection;
use crate::domain::event::{Agent, Customer};
use crate::domain::ids::{ChannelId, ConversationId, CustomerName, Timestamp};
use crate::wire::frame::Encoding;
use crate::wire::message::requests::{
    Ack, CreateChannel, Inbound, ListConversations, PickUp, Release, Roster,
};
use crate::wire::message::{Delivery, RawContent, Request, Response, ServerBody};

/// Conversations that agents take turns with.
const CONVERSATIONS: u64 = 100;
/// Agents who take them.
const AGENTS: u64 = 20;
/// Requests in flight.
const IN_FLIGHT: usize = 512;
/// The service's window.
const WINDOW: u32 = 4_096;
/// Deliveries between two acknowledgements.
const ACK_EVERY: u64 = 512;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How many pick-ups.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    #[command(flatten)]
    against: Against,
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let needs = Needs { numbers: 1, services: 1, window: WINDOW };
    let target = Target::prepare(&arguments.against, needs).await?;
    let measured = measure(arguments, &target).await;
    let ended = target.end().await;
    let measured = measured?;
    ended?;
    if arguments.against.json {
        let durability = arguments.against.own_durability();
        let more =
            json!({"bench": "pick-ups", "durability": durability, "messages_asked": arguments.messages});
        out::line(&with(measured.json(), more).to_string());
        return Ok(());
    }
    out::line(&format!(
        "{} pick-ups a second ({} in {:.2} s)",
        grouped(measured.per_second()),
        grouped(f64_of(measured.done)),
        measured.took.as_secs_f64()
    ));
    if let Some(usage) = &measured.usage {
        out::line(&format!("  a million pick-ups: {}", usage.per_million(measured.done).text()));
    }
    out::line(&format!("  latency through a full pipeline: {}", measured.latency.text()));
    Ok(())
}

async fn measure(arguments: &Arguments, target: &Target) -> anyhow::Result<Measured> {
    let name = target.services.first().context("no service is named")?;
    let number = target.numbers.first().context("no number is named")?;
    let mut service = target.service(name, Encoding::Binary).await?;
    let create = CreateChannel { number: number.parse()?, backfill: false };
    let channel = match ask(&mut service, create.into()).await? {
        Response::Channel(channel) => channel.seen.channel,
        other => bail!("the number can not be used: {other:?}"),
    };
    let agent =
        |at: u64| Ok(Agent { agent: format!("agent-{at}").parse()?, name: "Agent".into(), lead: false });
    let agents = (0..AGENTS).map(agent).collect::<anyhow::Result<_>>()?;
    ask(&mut service, Roster { agents, replace: true, remove: Vec::new() }.into()).await?;
    let mut gateway = target.gateway(Encoding::Binary).await?;
    for at in 0..CONVERSATIONS {
        let inbound = Inbound {
            number: number.parse()?,
            message_id: format!("p.{}.{at}", std::process::id()).parse()?,
            customer: Customer {
                wa_id: Some(CustomerName::read(&format!("1650{at:09}"))?),
                ..Customer::default()
            },
            at: Timestamp(0),
            content: RawContent(Bytes::from_static(br#"{"type":"text","text":{"body":"hi"}}"#)),
            refers_to: None,
        };
        ask(&mut gateway, inbound.into()).await?;
    }
    let list = ListConversations { channel, after: None, limit: None, claimed: None, unanswered: None };
    let conversations = match ask(&mut service, list.into()).await? {
        Response::Conversations(found) => {
            found.conversations.iter().map(|entry| entry.conversation).collect::<Vec<_>>()
        }
        other => bail!("conversations can not be listed: {other:?}"),
    };
    take_turns(arguments, target, service, channel, &conversations).await
}

async fn take_turns(
    arguments: &Arguments,
    target: &Target,
    service: Connection,
    channel: ChannelId,
    conversations: &[ConversationId],
) -> anyhow::Result<Measured> {
    let Connection { mut sender, mut receiver, .. } = service;
    let shown = Arc::new(AtomicU64::new(0));
    let bar = Bar::follow(arguments.messages, "pick-ups", Arc::clone(&shown));
    let mut latency = Latency::new()?;
    let mut under_way: HashMap<u64, Instant> = HashMap::new();
    let (mut asked, mut picked, mut unacknowledged) = (0, 0, 0);
    let mut batch = Vec::new();
    let before = target.usage();
    let begun = Instant::now();
    while picked < arguments.messages {
        while asked < arguments.messages && under_way.len() + 1 < IN_FLIGHT {
            let at = usize::try_from(asked).unwrap_or_default() % conversations.len().max(1);
            let conversation = *conversations.get(at).context("there is no conversation")?;
            let agent: crate::domain::ids::AgentId = format!("agent-{}", asked % AGENTS).parse()?;
            let pick_up = PickUp { channel, conversation, agent: agent.clone(), confirm: None };
            under_way.insert(sender.put(&Request::PickUp(pick_up))?, Instant::now());
            let release = Release { channel, conversation, agent, force: false, holder: None };
            sender.put(&Request::Release(release))?;
            asked += 1;
        }
        sender.flush().await?;
        timeout(STUCK_AFTER, receiver.next_batch(&mut batch))
            .await
            .context("nothing was answered for a while")??;
        for message in batch.drain(..) {
            match message.body {
                ServerBody::Response(Response::PickedUp(_)) => {
                    picked += 1;
                    if let Some(since) = under_way.remove(&message.id) {
                        latency.record(since.elapsed());
                    }
                }
                ServerBody::Response(Response::Ok(_)) => {}
                ServerBody::Response(other) => bail!("a pick-up was answered otherwise: {other:?}"),
                ServerBody::Delivery(Delivery::Claim(claim)) => {
                    unacknowledged += 1;
                    if unacknowledged >= ACK_EVERY {
                        unacknowledged = 0;
                        sender.put(&Request::Ack(Ack { channel, offset: claim.offset }))?;
                    }
                }
                ServerBody::Delivery(_) => {}
            }
        }
        shown.store(picked, Ordering::Relaxed);
    }
    let took = begun.elapsed();
    let usage = before.and_then(|before| Some(target.usage()? - before));
    drop(bar);
    Ok(Measured { published: asked, done: picked, took, usage, latency })
}

async fn ask(connection: &mut Connection, request: Request) -> anyhow::Result<Response> {
    let id = connection.sender.put(&request)?;
    connection.sender.flush().await?;
    loop {
        let message = timeout(STUCK_AFTER, connection.receiver.next()).await.context("no answer came")??;
        if let ServerBody::Response(response) = message.body
            && message.id == id
        {
            return Ok(response);
        }
    }
}
