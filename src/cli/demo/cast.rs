//! Who plays: the services' adapters, the gateway that stands for WhatsApp, and the customer behind it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::StatusCode;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::stage::{GATEWAY, NUMBER, PHONE_NUMBER_ID, PORTAL, SERVICES, Stage};
use crate::client::{Client, ClientError, Event, Events, Options, position};
use crate::domain::ids::{ChannelId, Offset};
use crate::gateway::signature::{SIGNATURE_HEADER, sign};
use crate::wire::frame::Encoding;
use crate::wire::message::requests::{Hello, Sent};
use crate::wire::message::{
    DeliverMode, Delivery, Positions, Private, Request, Response, SentOutcome, Who, deliveries,
};

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

/// One adapter, or the gateway.
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
        let hello = Hello {
            version: 1,
            who,
            portal: PORTAL.parse()?,
            token: Private::from(stage.token(name)),
            adapter: Some(format!("{name}-demo").parse()?),
            window: WINDOW,
            deliver: DeliverMode::Share,
            from: Positions::default(),
            heartbeat_ms: None,
        };
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
    pub(super) gateway: Player,
    customer: reqwest::Client,
    webhook_url: String,
    app_secret: String,
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
        let (gateway, events) = Player::enter(stage, GATEWAY, Who::Gateway(GATEWAY.parse()?)).await?;
        tokio::spawn(pretend_to_be_whatsapp(Arc::clone(&gateway.log), gateway.client.clone(), events));
        Ok(Self {
            services,
            gateway,
            customer: reqwest::Client::builder().timeout(WITHIN).build()?,
            webhook_url: format!("http://{}/webhooks/whatsapp", stage.http),
            app_secret: stage.app_secret.clone(),
            channel: None,
            messages: 0,
        })
    }

    pub(super) fn service(&mut self, name: &str) -> anyhow::Result<&mut Player> {
        let found = self.services.iter_mut().find(|player| player.name == name);
        found.with_context(|| format!("no such service in the story: {name}"))
    }

    pub(super) fn channel(&self) -> anyhow::Result<ChannelId> {
        self.channel.context("the channel was not created")
    }

    /// A text of the customer's, as Meta's webhook would bring it.
    pub(super) fn text_webhook(&mut self, wa_id: &str, name: &str, text: &str) -> Webhook {
        self.messages += 1;
        let message_id = format!("wamid.DEMO{:08}", self.messages);
        let body = json!({
            "object": "whatsapp_business_account",
            "entry": [{"id": "102290129340398", "changes": [{"field": "messages", "value": {
                "messaging_product": "whatsapp",
                "metadata": {"display_phone_number": NUMBER.trim_start_matches('+'), "phone_number_id": PHONE_NUMBER_ID},
                "contacts": [{"profile": {"name": name}, "wa_id": wa_id}],
                "messages": [{
                    "from": wa_id, "id": message_id, "timestamp": now_s().to_string(),
                    "type": "text", "text": {"body": text},
                }],
            }}]}],
        });
        Webhook { message_id, body: body.to_string() }
    }

    /// A status of Meta's.
    pub(super) fn status_webhook(&self, message_id: &str, wa_id: &str, status: &str) -> Webhook {
        let body = json!({
            "object": "whatsapp_business_account",
            "entry": [{"id": "102290129340398", "changes": [{"field": "messages", "value": {
                "messaging_product": "whatsapp",
                "metadata": {"display_phone_number": NUMBER.trim_start_matches('+'), "phone_number_id": PHONE_NUMBER_ID},
                "statuses": [{
                    "id": message_id, "status": status, "timestamp": now_s().to_string(), "recipient_id": wa_id,
                }],
            }}]}],
        });
        Webhook { message_id: message_id.to_owned(), body: body.to_string() }
    }

    /// Posts a webhook, signed; says whether the broker has taken it (200). An error: nobody answered.
    pub(super) fn post(&self, webhook: &Webhook) -> impl Future<Output = anyhow::Result<bool>> + use<> {
        let signature = sign(self.app_secret.as_bytes(), webhook.body.as_bytes());
        let request = self
            .customer
            .post(&self.webhook_url)
            .header(SIGNATURE_HEADER, signature)
            .header("content-type", "application/json")
            .body(webhook.body.clone());
        async move { Ok(request.send().await?.status() == StatusCode::OK) }
    }
}

/// A body that Meta would send.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    pub(super) message_id: String,
    body: String,
}

fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
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

/// Takes what is to be sent, and says that it was sent.
async fn pretend_to_be_whatsapp(log: Arc<Log>, client: Client, mut events: Events) {
    while let Some(event) = events.next().await {
        let Event::Delivery(Delivery::Send(send)) = event else { continue };
        let sent = Sent {
            channel: send.channel,
            offset: send.offset,
            outcome: SentOutcome::Sent(message_id_of(&send)),
        };
        log.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Delivery::Send(send));
        log.grown.notify_waiters();
        let client = client.clone();
        tokio::spawn(async move { client.request(sent).await.is_ok() });
    }
}

/// WhatsApp's id of a message that was sent.
pub(super) fn message_id_of(send: &deliveries::Send) -> crate::domain::ids::MessageId {
    crate::domain::ids::MessageId::trusted(&format!("wamid.OUT{:08}", send.offset.0))
}

/// By offset, what each service saw.
pub(super) type Rows = BTreeMap<Offset, BTreeMap<&'static str, String>>;
