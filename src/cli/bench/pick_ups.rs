//! Pick-ups: agents take conversations and let them go again, one decision after another in the channel.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::time::timeout;

use super::target::Target;
use super::{Arguments, Measured, histogram, progress};
use crate::client::Connection;
use crate::domain::event::{Agent, Customer};
use crate::domain::ids::{ChannelId, ConversationId, CustomerName, Timestamp};
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
/// How long nothing may happen before the run counts as failed.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// Deliveries between two acknowledgements.
const ACK_EVERY: u64 = 512;

pub(super) async fn run(arguments: &Arguments, target: &Target) -> anyhow::Result<Measured> {
    let name = target.services.first().context("no service is named")?;
    let mut service = target.service(name).await?;
    let create = CreateChannel { number: target.number.parse()?, backfill: false };
    let channel = match ask(&mut service, create.into()).await? {
        Response::Channel(channel) => channel.seen.channel,
        other => bail!("the number can not be used: {other:?}"),
    };
    let agent =
        |at: u64| Ok(Agent { agent: format!("agent-{at}").parse()?, name: "Agent".into(), lead: false });
    let agents = (0..AGENTS).map(agent).collect::<anyhow::Result<_>>()?;
    ask(&mut service, Roster { agents, replace: true, remove: Vec::new() }.into()).await?;
    let mut gateway = target.gateway().await?;
    for at in 0..CONVERSATIONS {
        let inbound = Inbound {
            number: target.number.parse()?,
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
    let bar = progress(arguments.messages, "pick-ups");
    let mut latency = histogram()?;
    let mut under_way: HashMap<u64, Instant> = HashMap::new();
    let (mut asked, mut picked, mut unacknowledged) = (0, 0, 0);
    let mut batch = Vec::new();
    let cpu_before = target.cpu();
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
                        let waited = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                        latency.saturating_record(waited.max(1));
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
        bar.set_position(picked);
    }
    let took = begun.elapsed();
    let cpu = cpu_before.and_then(|before| Some(target.cpu()? - before));
    bar.finish_and_clear();
    Ok(Measured { what: "pick-ups", done: picked, took, cpu, latency_us: latency })
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
