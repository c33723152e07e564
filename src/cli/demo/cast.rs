//! Who plays: the services' adapters, and what the customers write.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::stage::{PORTAL, SERVICES, Stage};
use super::whatsapp::WhatsApp;
use crate::client::{Client, ClientError, Event, Events, Options, position};
use crate::domain::ids::{ChannelId, Offset};
use crate::gateway::simulated::Customer;
use crate::wire::frame::Encoding;
use crate::wire::message::requests::Hello;
use crate::wire::message::{Delivery, Private, Request, Response, Who};

/// How long anything that must happen may take.
const WITHIN: Duration = Duration::from_secs(20);
/// How long to wait before asking again while the broker is away.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// The window of each adapter.
const WINDOW: u32 = 1_024;

/// What one connection has seen, in order.
#[derive(Debug, Default)]
struct Log {
    seen: Mutex<Vec<Delivery>>,
    grown: Notify,
}

/// One adapter.
#[derive(Debug)]
pub(super) struct Player {
    pub(super) name: &'static str,
    pub(super) client: Client,
    log: Arc<Log>,
    /// How much of the log the story has looked at.
    looked_at: usize,
}

impl Player {
    async fn enter(stage: &Stage, name: &'static str, who: Who) -> anyhow::Result<(Self, Events)> {
        let token = Private::from(stage.token(name));
        let greeting = Hello::of(PORTAL.parse()?, who, Some(format!("{name}-demo").parse()?));
        let hello = Hello { token, window: WINDOW, ..greeting };
        let options = Options { address: stage.tcp, encoding: Encoding::Binary, hello };
        let (client, _, events) =
            Client::connect(options).await.with_context(|| format!("{name} can not connect"))?;
        Ok((Self { name, client, log: Arc::default(), looked_at: 0 }, events))
    }

    /// Asks, and gives the answer; a refusal is an answer too. While the broker is away it asks again: what the story
    /// asks then may safely be asked twice.
    pub(super) async fn ask(&self, request: impl Into<Request>) -> anyhow::Result<Response> {
        let request = request.into();
        let until = Instant::now() + WITHIN;
        loop {
            match self.client.request(request.clone()).await {
                Ok(response) => return Ok(response),
                Err(ClientError::Refused(error)) => return Ok(Response::Error(*error)),
                Err(ClientError::Lost) if Instant::now() < until => tokio::time::sleep(ASK_AGAIN_AFTER).await,
                Err(error) => return Err(error).with_context(|| format!("{} asked in vain", self.name)),
            }
        }
    }

    /// What was seen since the last look, once there are `count` deliveries more.
    pub(super) async fn next(&mut self, count: usize) -> anyhow::Result<Vec<Delivery>> {
        let until = Instant::now() + WITHIN;
        loop {
            let grown = self.log.grown.notified();
            let found: Vec<Delivery> = {
                let seen = self.log.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.iter().skip(self.looked_at).take(count).cloned().collect()
            };
            if found.len() == count {
                self.looked_at += count;
                return Ok(found);
            }
            if timeout_at(until, grown).await.is_err() {
                bail!("{} was to see {count} deliveries and saw {}: {found:?}", self.name, found.len());
            }
        }
    }

    /// All that was seen since the last look.
    pub(super) fn rest(&mut self) -> Vec<Delivery> {
        let seen = self.log.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found: Vec<Delivery> = seen.iter().skip(self.looked_at).cloned().collect();
        self.looked_at = seen.len();
        found
    }

    /// Waits until all that was seen, ever, is as wanted.
    pub(super) async fn until(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&[Delivery]) -> bool,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + WITHIN;
        loop {
            let grown = self.log.grown.notified();
            if is_so(&self.log.seen.lock().unwrap_or_else(PoisonError::into_inner)) {
                return Ok(());
            }
            if timeout_at(until, grown).await.is_err() {
                bail!("{} never saw {what}", self.name);
            }
        }
    }

    /// Waits for something to come after the last look.
    pub(super) async fn grown(&self) {
        loop {
            let grown = self.log.grown.notified();
            if self.log.seen.lock().unwrap_or_else(PoisonError::into_inner).len() > self.looked_at {
                return;
            }
            grown.await;
        }
    }
}

/// Everybody.
pub(super) struct Cast {
    pub(super) services: Vec<Player>,
    pub(super) channel: Option<ChannelId>,
    messages: u32,
}

impl Cast {
    pub(super) async fn gather(stage: &Stage) -> anyhow::Result<Self> {
        let mut services = Vec::new();
        for name in SERVICES {
            let (player, events) = Player::enter(stage, name, Who::Service(name.parse()?)).await?;
            let (log, client) = (Arc::clone(&player.log), player.client.clone());
            tokio::spawn(listen(log, client, events));
            services.push(player);
        }
        Ok(Self { services, channel: None, messages: 0 })
    }

    pub(super) fn service(&mut self, name: &str) -> anyhow::Result<&mut Player> {
        let found = self.services.iter_mut().find(|player| player.name == name);
        found.with_context(|| format!("no such service in the story: {name}"))
    }

    pub(super) fn channel(&self) -> anyhow::Result<ChannelId> {
        self.channel.context("the channel was not created")
    }

    /// A text of a customer's, as Meta's webhook would bring it; perhaps as an answer to a message on his phone.
    pub(super) fn text_webhook(
        &mut self,
        whatsapp: &WhatsApp,
        (wa_id, name): (&str, &str),
        text: &str,
        answers: Option<&str>,
    ) -> Webhook {
        self.messages += 1;
        let message_id = format!("wamid.DEMO{:08}", self.messages);
        let customer = Customer { wa_id: Some(wa_id), user_id: None, name };
        let mut body = whatsapp.webhooks.text(customer, &message_id, text);
        if let Some(answered) = answers
            && let Some(message) = body.pointer_mut("/entry/0/changes/0/value/messages/0")
        {
            message["context"] =
                serde_json::json!({"from": whatsapp.webhooks.display_phone_number, "id": answered});
        }
        Webhook { message_id, body }
    }
}

/// A body that Meta would send.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    pub(super) message_id: String,
    pub(super) body: serde_json::Value,
}

/// Keeps what comes, and acknowledges it.
async fn listen(log: Arc<Log>, client: Client, mut events: Events) {
    while let Some(event) = events.next().await {
        let Event::Delivery(delivery) = event else { continue };
        let position = position(&delivery);
        log.seen.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
        log.grown.notify_waiters();
        if let Some((channel, offset)) = position {
            // Lost with the connection, it comes again.
            let _ = client.ack(channel, offset).await;
        }
    }
}

/// By offset, what each service saw.
pub(super) type Rows = BTreeMap<Offset, BTreeMap<&'static str, String>>;
