//! The gateway under load: publishes customers' messages, at once or when they are due, and takes the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::schedule::Schedule;
use super::subscriber::{Run, STUCK_AFTER};
use crate::client::{Connection, Receiver, Sender};
use crate::domain::event::Customer;
use crate::domain::ids::{CustomerName, Number, Timestamp};
use crate::wire::message::requests::Inbound;
use crate::wire::message::{RawContent, Request, Response, ServerBody};

/// Requests that the gateway has in flight: as many as the broker reads.
const IN_FLIGHT: usize = 1_024;
/// How many requests are sent in one go, at most.
const SEND_AT_ONCE: u64 = 64;

/// What is published.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) messages: u64,
    /// Customers of each number, who write in turn.
    pub(super) customers: u64,
    /// The number that their names begin with.
    pub(super) first_customer: u64,
    /// Numbers that are written to in turn.
    pub(super) numbers: Vec<Number>,
    pub(super) content: Bytes,
    pub(super) schedule: Schedule,
}

impl Plan {
    pub(super) fn new(
        messages: u64,
        customers: u64,
        numbers: &[String],
        size: usize,
    ) -> anyhow::Result<Self> {
        let frame = r#"{"type":"text","text":{"body":""}}"#.len();
        let body = "x".repeat(size.saturating_sub(frame));
        let numbers: Vec<Number> = numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
        Ok(Self {
            messages,
            customers: customers.max(1),
            first_customer: 0,
            numbers,
            content: Bytes::from(format!(r#"{{"type":"text","text":{{"body":"{body}"}}}}"#)),
            schedule: Schedule::of(None),
        })
    }

    /// Message number `at`; its id says when it was due, or that it was sent now where nothing says when.
    fn message(&self, at: u64, run: &Run, wall_ms: u64) -> anyhow::Result<Request> {
        let due = self.schedule.due(at).unwrap_or_else(|| run.begun.elapsed());
        let numbers = self.numbers.len().max(1) as u64;
        let number = usize::try_from(at % numbers).ok().and_then(|at| self.numbers.get(at));
        let customer = self.first_customer + at / numbers % self.customers;
        let customer = CustomerName::read(&format!("1650{customer:09}"))?;
        Ok(Request::Inbound(Inbound {
            number: number.context("there is no number to write to")?.clone(),
            message_id: run.id(due, at).parse()?,
            customer: Customer { wa_id: Some(customer), ..Customer::default() },
            at: Timestamp(wall_ms),
            content: RawContent(self.content.clone()),
            refers_to: None,
        }))
    }
}

pub(super) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Publishes the plan's messages, and waits until each is answered.
pub(super) async fn publish(
    gateway: Connection,
    plan: Arc<Plan>,
    run: Arc<Run>,
) -> anyhow::Result<Connection> {
    let Connection { welcome, sender, receiver } = gateway;
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let answered = tokio::spawn(take_answers(receiver, plan.messages, Arc::clone(&room)));
    let (schedule, sending) = (plan.schedule, Sending { sender, plan, run, room });
    let sender = super::schedule::run_producer(schedule, sending.send()).await?;
    Ok(Connection { welcome, sender, receiver: answered.await?? })
}

/// Publishes until it is told to stop, and counts in `published`; what is not answered by then is left.
pub(super) async fn publish_until(
    gateway: Connection,
    plan: Arc<Plan>,
    run: Arc<Run>,
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let Connection { sender, receiver, .. } = gateway;
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let answered = tokio::spawn(take_answers(receiver, u64::MAX, Arc::clone(&room)));
    let (schedule, sending) = (plan.schedule, Sending { sender, plan, run, room });
    let sent = super::schedule::run_producer(schedule, async move {
        let (mut sending, mut at) = (sending, 0);
        while !stop.load(Ordering::Relaxed) {
            at += sending.send_some(at).await?;
            published.store(at, Ordering::Relaxed);
        }
        Ok(())
    })
    .await;
    answered.abort();
    sent
}

/// Takes so many answers; each makes room for another request.
async fn take_answers(mut receiver: Receiver, many: u64, room: Arc<Semaphore>) -> anyhow::Result<Receiver> {
    let mut batch = Vec::new();
    let mut answered = 0;
    while answered < many {
        receiver.next_batch(&mut batch).await?;
        let count = batch.len();
        for message in batch.drain(..) {
            match message.body {
                ServerBody::Response(Response::InboundAccepted(accepted)) if accepted.channels == 1 => {}
                other => bail!("a message was not taken: {other:?}"),
            }
        }
        answered += count as u64;
        room.add_permits(count);
    }
    Ok(receiver)
}

struct Sending {
    sender: Sender,
    plan: Arc<Plan>,
    run: Arc<Run>,
    room: Arc<Semaphore>,
}

impl Sending {
    async fn send(mut self) -> anyhow::Result<Sender> {
        let mut at = 0;
        while at < self.plan.messages {
            at += self.send_some(at).await?;
        }
        Ok(self.sender)
    }

    /// Sends what is due from number `at` on, and gives how many it were: one at least.
    async fn send_some(&mut self, at: u64) -> anyhow::Result<u64> {
        let most = SEND_AT_ONCE.min(self.plan.messages - at);
        let due = self.plan.schedule.wait(at, most, self.run.begun);
        let stuck = "no message was answered for a while";
        timeout(STUCK_AFTER, self.room.acquire()).await.context(stuck)??.forget();
        let wall_ms = wall_ms();
        let mut sent = 0;
        loop {
            self.sender.put(&self.plan.message(at + sent, &self.run, wall_ms)?)?;
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
