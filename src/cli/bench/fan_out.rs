//! Fan-out: a gateway's messages, each to every subscriber, as fast as they are taken or on a schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::target::Target;
use super::{Arguments, Measured, histogram, progress};
use crate::client::{Connection, Receiver, Sender, position};
use crate::domain::event::Customer;
use crate::domain::ids::{CustomerName, Timestamp};
use crate::wire::frame::Encoding;
use crate::wire::message::requests::{Ack, CreateChannel, Inbound};
use crate::wire::message::{Delivery, RawContent, Request, Response, ServerBody};

/// Requests that the gateway has in flight: as many as the broker reads.
const IN_FLIGHT: usize = 1_024;
/// How many requests are sent in one go, at most.
const SEND_AT_ONCE: u64 = 64;
/// How long nothing may happen before the run counts as failed.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// How often the bar moves.
const SHOW_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(arguments: &Arguments, target: &Target) -> anyhow::Result<Measured> {
    let mut subscribers = Vec::new();
    for name in &target.services {
        let mut connection = target.service(name).await?;
        let create = CreateChannel { number: target.number.parse()?, backfill: false };
        connection.sender.put(&Request::CreateChannel(create))?;
        connection.sender.flush().await?;
        created(&mut connection).await?;
        subscribers.push(connection);
    }
    let gateway = target.gateway().await?;
    let messages = arguments.messages;
    let bar = progress(messages * subscribers.len() as u64, "deliveries");
    let delivered = Arc::new(AtomicU64::new(0));
    let cpu_before = target.cpu();
    let begun = Instant::now();
    let mut receiving = JoinSet::new();
    let count = subscribers.len() as u64;
    for Connection { sender, receiver, .. } in subscribers {
        let delivered = Arc::clone(&delivered);
        let ack_every = u64::from(arguments.window / 4).max(1);
        let encoding = target.encoding();
        receiving.spawn(subscribe(sender, receiver, encoding, (messages, ack_every), begun, delivered));
    }
    let sending = tokio::spawn(produce(gateway, Plan::of(arguments, target)?, begun));
    let showing = {
        let (bar, delivered) = (bar.clone(), Arc::clone(&delivered));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SHOW_EVERY).await;
                bar.set_position(delivered.load(Ordering::Relaxed));
            }
        })
    };
    let mut latency = histogram()?;
    while let Some(received) = receiving.join_next().await {
        latency.add(received??)?;
    }
    let took = begun.elapsed();
    let cpu = cpu_before.and_then(|before| Some(target.cpu()? - before));
    showing.abort();
    bar.finish_and_clear();
    sending.await??;
    Ok(Measured { what: "deliveries", done: messages * count, took, cpu, latency_us: latency })
}

async fn created(connection: &mut Connection) -> anyhow::Result<()> {
    loop {
        match connection.receiver.next().await?.body {
            ServerBody::Response(Response::Channel(_)) => return Ok(()),
            ServerBody::Response(other) => bail!("the number can not be used: {other:?}"),
            ServerBody::Delivery(_) => {}
        }
    }
}

/// What is sent.
struct Plan {
    messages: u64,
    customers: u64,
    number: String,
    content: Bytes,
    rate: Option<u64>,
}

impl Plan {
    fn of(arguments: &Arguments, target: &Target) -> anyhow::Result<Self> {
        let frame = r#"{"type":"text","text":{"body":""}}"#.len();
        let body = "x".repeat(arguments.size.saturating_sub(frame));
        Ok(Self {
            messages: arguments.messages,
            customers: arguments.customers.clamp(1, 1_000_000_000),
            number: target.number.clone(),
            content: Bytes::from(format!(r#"{{"type":"text","text":{{"body":"{body}"}}}}"#)),
            rate: arguments.rate,
        })
    }

    /// When a message is due, from the beginning; at once without a schedule.
    fn due(&self, at: u64) -> Option<Duration> {
        self.rate.map(|rate| Duration::from_nanos(at.saturating_mul(1_000_000_000) / rate.max(1)))
    }

    /// Message number `at`; its id says when it was due.
    fn message(&self, at: u64, due: Duration, wall_ms: u64) -> anyhow::Result<Request> {
        let customer = CustomerName::read(&format!("1650{:09}", at % self.customers))?;
        Ok(Request::Inbound(Inbound {
            number: self.number.parse()?,
            message_id: format!("b.{}.{at}", due.as_nanos()).parse()?,
            customer: Customer { wa_id: Some(customer), ..Customer::default() },
            at: Timestamp(wall_ms),
            content: RawContent(self.content.clone()),
            refers_to: None,
        }))
    }
}

fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

async fn produce(gateway: Connection, plan: Plan, begun: Instant) -> anyhow::Result<()> {
    let Connection { mut sender, mut receiver, .. } = gateway;
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let answered = {
        let (room, messages) = (Arc::clone(&room), plan.messages);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            let mut answered = 0;
            while answered < messages {
                receiver.next_batch(&mut batch).await?;
                for message in batch.drain(..) {
                    match message.body {
                        ServerBody::Response(Response::InboundAccepted(accepted))
                            if accepted.channels == 1 =>
                        {
                            answered += 1;
                            room.add_permits(1);
                        }
                        other => bail!("a message was not taken: {other:?}"),
                    }
                }
            }
            Ok::<_, anyhow::Error>(())
        })
    };
    let mut at = 0;
    while at < plan.messages {
        let first =
            timeout(STUCK_AFTER, room.acquire()).await.context("no message was answered for a while")??;
        first.forget();
        let wall_ms = wall_ms();
        for more in 0..SEND_AT_ONCE {
            let due = plan.due(at);
            if let Some(due) = due
                && begun.elapsed() < due
            {
                if more > 0 {
                    room.add_permits(1);
                    break;
                }
                tokio::time::sleep_until((begun + due).into()).await;
            }
            let counts_from = due.unwrap_or_else(|| begun.elapsed());
            sender.put(&plan.message(at, counts_from, wall_ms)?)?;
            at += 1;
            if at == plan.messages {
                break;
            }
            match room.try_acquire() {
                Ok(next) if more + 1 < SEND_AT_ONCE => next.forget(),
                _ => break,
            }
        }
        sender.flush().await?;
    }
    answered.await?
}

/// Receives until every message is here, acknowledges on the way, and gives the latencies that it looked at: of the last
/// message of each read.
async fn subscribe(
    mut sender: Sender,
    mut receiver: Receiver,
    encoding: Encoding,
    (messages, ack_every): (u64, u64),
    begun: Instant,
    delivered: Arc<AtomicU64>,
) -> anyhow::Result<Histogram<u64>> {
    let mut latency = histogram()?;
    let (mut here, mut acknowledged) = (0, 0);
    let mut frames = Vec::new();
    while here < messages {
        timeout(STUCK_AFTER, receiver.next_frames(&mut frames))
            .await
            .context("nothing was delivered for a while")??;
        let count = frames.iter().filter(|frame| is_message(encoding, frame)).count() as u64;
        here += count;
        delivered.fetch_add(count, Ordering::Relaxed);
        let last = frames.iter().rev().find(|frame| is_message(encoding, frame)).cloned();
        frames.clear();
        let Some(last) = last else { continue };
        let ServerBody::Delivery(delivery) = receiver.decode(&last)?.body else { continue };
        if let Delivery::Message(message) = &delivery
            && let Some(due) = message.message_id.as_str().split('.').nth(1).and_then(|due| due.parse().ok())
        {
            let waited = begun.elapsed().saturating_sub(Duration::from_nanos(due));
            latency.saturating_record(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX).max(1));
        }
        if (here - acknowledged >= ack_every || here == messages)
            && let Some((channel, offset)) = position(&delivery)
        {
            acknowledged = here;
            sender.put(&Request::Ack(Ack { channel, offset }))?;
            sender.flush().await?;
        }
    }
    Ok(latency)
}

/// Whether a frame is a customer's message, by its first bytes: the generator must be lighter than the broker.
fn is_message(encoding: Encoding, frame: &Bytes) -> bool {
    /// The number of `message` among what the broker sends, behind the id 0.
    const MESSAGE: [u8; 2] = [0, 13];
    match encoding {
        Encoding::JsonLines => frame.starts_with(br#"{"type":"message""#),
        Encoding::Binary => frame.starts_with(&MESSAGE),
    }
}
