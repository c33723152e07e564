//! `bench replies`: what agents write, all the way to the gateway and back.
//!
//! ```text
//!  agents ── reply ─▶ broker ── accepted ─▶ agents          one connection a service, which only asks
//!                       │
//!                       ├────── send ─────▶ gateway         the bench plays it, and answers at once
//!                       │ ◀──── sent ──────    │
//!                       └────── receipt ──▶ adapter         another connection a service, which takes and acknowledges
//! ```
//!
//! A reply's id says when it was due, so each of the three can tell how long it took to get there. A service has a window
//! of replies without a receipt; with `--rate` they are due on a schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::load::new_run;
use super::measured::{Latency, Measured};
use super::options::Against;
use super::producer::{Plan, publish};
use super::report::{Bar, f64_of, grouped, with};
use super::schedule::{Schedule, run_producer};
use super::subscriber::{Run, STUCK_AFTER};
use super::target::{Needs, Target};
use crate::cli::out;
use crate::client::{Connection, Receiver, Sender, position};
use crate::domain::event::{Agent, Status};
use crate::domain::ids::{AgentId, ChannelId, ConversationId};
use crate::wire::frame::Encoding;
use crate::wire::message::requests::{Ack, CreateChannel, Reply, Roster, Sent};
use crate::wire::message::{
    Addressee, DeliverMode, Delivery, RawContent, Request, Response, SentOutcome, ServerBody,
};

/// Each connection's window of deliveries.
const WINDOW: u32 = 4_096;
/// Deliveries between two acknowledgements: a quarter of it.
const ACK_EVERY: u64 = 1_024;
/// Agents of each service, who reply in turn.
const AGENTS: u64 = 20;
/// Most replies of a service without a receipt: as many requests as the broker reads of a connection.
const UNDER_WAY_MAX: usize = 1_024;
/// How many replies are sent in one go, at most.
const SEND_AT_ONCE: u64 = 64;
/// Bytes of a customer's message.
const SIZE: usize = 64;
/// A warm-up, which is not counted: one in so many replies.
const WARM_UP_PART: u64 = 5;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How many replies, of all services together.
    #[arg(long, default_value_t = 100_000)]
    replies: u64,
    /// How many services reply, each in turn with the others in every conversation.
    #[arg(long, default_value_t = 3)]
    services: usize,
    /// How many conversations they reply in; in each one reply leaves after the other.
    #[arg(long, default_value_t = 1_000)]
    conversations: u64,
    /// How many replies of each service are under way: asked, and without a receipt.
    #[arg(long, default_value_t = 256)]
    window: usize,
    /// Replies a second of all services together, on a schedule; else as many as are taken.
    #[arg(long)]
    rate: Option<u64>,
    /// Bytes of a reply's content.
    #[arg(long, default_value_t = 256)]
    size: usize,
    #[command(flatten)]
    against: Against,
}

/// What was measured; the latency of `all` is that to the receipt.
struct Found {
    all: Measured,
    to_accepted: Latency,
    to_gateway: Latency,
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let needs = Needs { numbers: 1, services: arguments.services.max(1), window: WINDOW };
    let target = Target::prepare(&arguments.against, needs).await?;
    let found = measure(arguments, &target).await;
    let ended = target.end().await;
    let found = found?;
    ended?;
    report(arguments, &found);
    Ok(())
}

async fn measure(arguments: &Arguments, target: &Target) -> anyhow::Result<Found> {
    let mut desks = Vec::new();
    for service in &target.services {
        desks.push(Desk::open(target, service).await?);
    }
    let gateway = target.door().gateway(Encoding::Binary, DeliverMode::Share).await?;
    let plan = Plan::new(arguments.conversations.max(1), arguments.conversations, &target.numbers, SIZE)?;
    let mut gateway = publish(gateway, Arc::new(plan), Arc::new(new_run())).await?;
    let conversations = Arc::new(learn(&mut desks, arguments.conversations.max(1)).await?);
    let warm_up = (arguments.replies / WARM_UP_PART).max(1);
    let content = Plan::new(0, 1, &target.numbers, arguments.size)?.content;
    let work = |replies, rate| Work {
        replies,
        services: target.services.len() as u64,
        schedule: Schedule::of(rate),
        window: arguments.window.clamp(1, UNDER_WAY_MAX),
        conversations: Arc::clone(&conversations),
        content: content.clone(),
    };
    let (_, desks, gateway_again) = go(target, desks, gateway, work(warm_up, None)).await?;
    gateway = gateway_again;
    let (found, ..) = go(target, desks, gateway, work(arguments.replies.max(1), arguments.rate)).await?;
    Ok(found)
}

/// What is to be replied.
#[derive(Clone)]
struct Work {
    /// Of all services together.
    replies: u64,
    services: u64,
    schedule: Schedule,
    /// Replies of each service without a receipt.
    window: usize,
    conversations: Arc<Vec<(ChannelId, ConversationId)>>,
    content: Bytes,
}

impl Work {
    /// How many replies are the share of service number `at`.
    fn share(&self, at: u64) -> u64 {
        self.replies / self.services + u64::from(at < self.replies % self.services)
    }

    /// When the replies of service number `at` are due: in turn with the others'.
    fn schedule(&self, at: u64) -> Schedule {
        self.schedule.turn(at, self.services)
    }

    /// Reply number `of_service` of service number `at`.
    fn reply(&self, at: u64, of_service: u64, run: &Run) -> anyhow::Result<Reply> {
        let number = of_service * self.services + at;
        let due = self.schedule(at).due(of_service).unwrap_or_else(|| run.begun.elapsed());
        // The services are far apart in the same round of conversations.
        let apart = self.conversations.len() as u64 * at / self.services;
        let turn = (of_service + apart) % (self.conversations.len() as u64).max(1);
        let (channel, conversation) =
            *self.conversations.get(usize::try_from(turn)?).context("there is no conversation")?;
        Ok(Reply {
            channel,
            to: Addressee::Conversation(conversation),
            agent: Some(agent(at, of_service % AGENTS)?),
            reply_id: run.id(due, number).parse()?,
            content: RawContent(self.content.clone()),
            seen: None,
            confirm: None,
        })
    }
}

fn agent(service: u64, at: u64) -> anyhow::Result<AgentId> {
    Ok(format!("agent-{service}-{at}").parse()?)
}

/// A service's two connections: one that only asks, and one that takes what is delivered.
struct Desk {
    asks: Connection,
    takes: Takes,
}

/// What takes and acknowledges what a service is handed.
struct Takes {
    sender: Sender,
    receiver: Receiver,
    /// Deliveries since the last acknowledgement.
    waiting: u64,
}

impl Takes {
    /// Counts a delivery, and acknowledges it with all before it when there are enough.
    async fn note(&mut self, delivery: &Delivery) -> anyhow::Result<()> {
        self.waiting += 1;
        if self.waiting >= ACK_EVERY
            && let Some((channel, offset)) = position(delivery)
        {
            self.waiting = 0;
            self.sender.put(&Request::Ack(Ack { channel, offset }))?;
            self.sender.flush().await?;
        }
        Ok(())
    }
}

impl Desk {
    async fn open(target: &Target, service: &str) -> anyhow::Result<Self> {
        let none = DeliverMode::None;
        let mut asks =
            target.adapter(service, &format!("bench-{service}-asks"), Encoding::Binary, none).await?;
        let number = target.numbers.first().context("there is no number")?.parse()?;
        match ask(&mut asks, CreateChannel { number, backfill: false }.into()).await? {
            Response::Channel(_) => {}
            other => bail!("the number can not be used: {other:?}"),
        }
        let at = target.services.iter().position(|known| known == service).unwrap_or_default() as u64;
        let agents = (0..AGENTS)
            .map(|number| Ok(Agent { agent: agent(at, number)?, name: "Agent".into(), lead: false }))
            .collect::<anyhow::Result<_>>()?;
        match ask(&mut asks, Roster { agents, replace: true, remove: Vec::new() }.into()).await? {
            Response::Ok(_) => {}
            other => bail!("the agents can not be named: {other:?}"),
        }
        let Connection { sender, receiver, .. } = target.service(service, Encoding::Binary).await?;
        Ok(Self { asks, takes: Takes { sender, receiver, waiting: 0 } })
    }
}

async fn ask(connection: &mut Connection, request: Request) -> anyhow::Result<Response> {
    connection.sender.put(&request)?;
    connection.sender.flush().await?;
    match timeout(STUCK_AFTER, connection.receiver.next()).await.context("no answer came")??.body {
        ServerBody::Response(response) => Ok(response),
        ServerBody::Delivery(_) => bail!("a connection that only asks was handed something"),
    }
}

/// Takes the customers' messages, and gives their conversations.
async fn learn(desks: &mut [Desk], many: u64) -> anyhow::Result<Vec<(ChannelId, ConversationId)>> {
    let mut of_first = Vec::new();
    for (at, desk) in desks.iter_mut().enumerate() {
        let mut seen = 0;
        while seen < many {
            let message = timeout(STUCK_AFTER, desk.takes.receiver.next())
                .await
                .context("a customer's message did not come")??;
            let ServerBody::Delivery(delivery) = message.body else { continue };
            if let Delivery::Message(message) = &delivery {
                seen += 1;
                if at == 0 {
                    of_first.push((message.channel, message.conversation));
                }
            }
            desk.takes.note(&delivery).await?;
        }
    }
    Ok(of_first)
}

/// Lets every service reply, until each reply has its receipt.
async fn go(
    target: &Target,
    desks: Vec<Desk>,
    gateway: Connection,
    work: Work,
) -> anyhow::Result<(Found, Vec<Desk>, Connection)> {
    let done = Arc::new(AtomicU64::new(0));
    let bar = Bar::follow(work.replies, "replies", Arc::clone(&done));
    let run = Arc::new(new_run());
    let before = target.usage();
    let sends = tokio::spawn(play_gateway(gateway, work.replies, Arc::clone(&run)));
    let mut services = JoinSet::new();
    for (at, desk) in (0..).zip(desks) {
        services.spawn(serve(desk, at, work.clone(), Arc::clone(&run), Arc::clone(&done)));
    }
    let (mut to_accepted, mut to_receipt) = (Latency::new()?, Latency::new()?);
    let (mut desks, mut last) = (Vec::new(), run.begun);
    while let Some(served) = services.join_next().await {
        let served = served??;
        to_accepted.add(&served.to_accepted);
        to_receipt.add(&served.to_receipt);
        last = last.max(served.ended);
        desks.push((served.at, served.desk));
    }
    let (gateway, to_gateway) = sends.await??;
    let usage = before.and_then(|before| Some(target.usage()? - before));
    drop(bar);
    // Each has its own agents, so they stay in their order.
    desks.sort_by_key(|(at, _)| *at);
    let desks = desks.into_iter().map(|(_, desk)| desk).collect();
    let (published, done) = (work.replies, done.load(Ordering::Relaxed));
    let all = Measured { published, done, took: last - run.begun, usage, latency: to_receipt };
    Ok((Found { all, to_accepted, to_gateway }, desks, gateway))
}

/// Takes every `send` and says that it was sent, until all are through.
async fn play_gateway(
    gateway: Connection,
    replies: u64,
    run: Arc<Run>,
) -> anyhow::Result<(Connection, Latency)> {
    let Connection { welcome, mut sender, mut receiver } = gateway;
    let mut latency = Latency::new()?;
    let (mut sent, mut answered) = (0, 0);
    let mut batch = Vec::new();
    while answered < replies {
        let stuck = "nothing came to the gateway for a while: is it the number's own?";
        timeout(STUCK_AFTER, receiver.next_batch(&mut batch)).await.context(stuck)??;
        for message in batch.drain(..) {
            match message.body {
                ServerBody::Delivery(Delivery::Send(send)) => {
                    latency
                        .record(run.waited(send.reply_id.as_str()).context("a reply of nobody's was sent")?);
                    let outcome = SentOutcome::Sent(format!("w.{}.{sent}", run.name).parse()?);
                    sender.put(&Request::Sent(Sent {
                        channel: send.channel,
                        offset: send.offset,
                        outcome,
                    }))?;
                    sent += 1;
                }
                ServerBody::Response(Response::Ok(_)) => answered += 1,
                other => bail!("the gateway was told otherwise: {other:?}"),
            }
        }
        sender.flush().await?;
    }
    Ok((Connection { welcome, sender, receiver }, latency))
}

/// What a service's run came to.
struct Served {
    at: u64,
    desk: Desk,
    to_accepted: Latency,
    to_receipt: Latency,
    ended: Instant,
}

async fn serve(
    desk: Desk,
    at: u64,
    work: Work,
    run: Arc<Run>,
    done: Arc<AtomicU64>,
) -> anyhow::Result<Served> {
    let Desk { asks, mut takes } = desk;
    let Connection { welcome, sender, receiver } = asks;
    let share = work.share(at);
    let room = Arc::new(Semaphore::new(work.window));
    let accepted = tokio::spawn(take_answers(receiver, share, Arc::clone(&run)));
    let asking = Asking { sender, at, share, work, run: Arc::clone(&run), room: Arc::clone(&room) };
    let asked = tokio::spawn(run_producer(asking.work.schedule, asking.send()));
    let mut to_receipt = Latency::new()?;
    let mut batch = Vec::new();
    let mut received = 0;
    while received < share {
        timeout(STUCK_AFTER, takes.receiver.next_batch(&mut batch))
            .await
            .context("no receipt came for a while")??;
        let mut came = 0;
        for message in batch.drain(..) {
            let ServerBody::Delivery(delivery) = message.body else { continue };
            if let Some(receipt) = delivery.receipt()
                && let Some(waited) = run.waited(receipt.reply_id.as_str())
            {
                if receipt.status != Status::Sent {
                    bail!("a reply was not sent: {receipt:?}");
                }
                to_receipt.record(waited);
                came += 1;
            }
            takes.note(&delivery).await?;
        }
        received += came as u64;
        done.fetch_add(came as u64, Ordering::Relaxed);
        room.add_permits(came);
    }
    let ended = Instant::now();
    let (receiver, to_accepted) = accepted.await??;
    let asks = Connection { welcome, sender: asked.await??, receiver };
    Ok(Served { at, desk: Desk { asks, takes }, to_accepted, to_receipt, ended })
}

/// Takes so many answers, each of which must have accepted a reply.
async fn take_answers(
    mut receiver: Receiver,
    many: u64,
    run: Arc<Run>,
) -> anyhow::Result<(Receiver, Latency)> {
    let mut latency = Latency::new()?;
    let mut batch = Vec::new();
    let mut answered = 0;
    while answered < many {
        timeout(STUCK_AFTER, receiver.next_batch(&mut batch))
            .await
            .context("no reply was answered for a while")??;
        for message in batch.drain(..) {
            match message.body {
                ServerBody::Response(Response::Accepted(accepted)) if !accepted.duplicate => {
                    let waited = run.waited(accepted.reply_id.as_str());
                    latency.record(waited.context("a reply of nobody's was accepted")?);
                    answered += 1;
                }
                other => bail!("a reply was answered otherwise: {other:?}"),
            }
        }
    }
    Ok((receiver, latency))
}

/// What sends a service's replies.
struct Asking {
    sender: Sender,
    at: u64,
    share: u64,
    work: Work,
    run: Arc<Run>,
    /// For replies without a receipt.
    room: Arc<Semaphore>,
}

impl Asking {
    async fn send(mut self) -> anyhow::Result<Sender> {
        let mut sent = 0;
        while sent < self.share {
            sent += self.send_some(sent).await?;
        }
        Ok(self.sender)
    }

    /// Sends what is due from the service's reply number `from` on, and gives how many they were: one at least.
    async fn send_some(&mut self, from: u64) -> anyhow::Result<u64> {
        let most = SEND_AT_ONCE.min(self.share - from);
        let due = self.work.schedule(self.at).wait(from, most, self.run.begun);
        let stuck = "no reply got its receipt for a while";
        timeout(STUCK_AFTER, self.room.acquire()).await.context(stuck)??.forget();
        let mut sent = 0;
        loop {
            self.sender.put(&Request::Reply(self.work.reply(self.at, from + sent, &self.run)?))?;
            sent += 1;
            match self.room.try_acquire() {
                Ok(next) if sent < due => next.forget(),
                // A permit that is not forgotten goes back.
                _ => break,
            }
        }
        self.sender.flush().await?;
        Ok(sent)
    }
}

fn report(arguments: &Arguments, found: &Found) {
    let Found { all, to_accepted, to_gateway } = found;
    let Arguments { replies, services, conversations, window, rate, size, against } = arguments;
    if against.json {
        let more = json!({
            "bench": "replies",
            "durability": against.own_durability(),
            "replies": replies, "services": services, "conversations": conversations,
            "window": window, "rate": rate, "size": size,
            "to_accepted_us": to_accepted.json(),
            "to_gateway_us": to_gateway.json(),
        });
        out::line(&with(all.json(), more).to_string());
        return;
    }
    out::line(&format!(
        "{} replies a second ({} in {:.2} s)",
        grouped(all.per_second()),
        grouped(f64_of(all.done)),
        all.took.as_secs_f64()
    ));
    if let Some(usage) = &all.usage {
        out::line(&format!("  a million replies: {}", usage.per_million(all.done).text()));
    }
    let way = if rate.is_some() { "from when each was due" } else { "through a full pipeline" };
    out::line(&format!("  latency {way}:"));
    for (name, latency) in
        [("accepted  ", to_accepted), ("at gateway", to_gateway), ("receipt   ", &all.latency)]
    {
        out::line(&format!("    {name}  {}", latency.text()));
    }
}
