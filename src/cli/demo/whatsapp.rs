//! WhatsApp, as far as the story needs it: a simulated Graph API that the broker's built-in gateway sends to, and the
//! phones behind it, which tell how far each message has come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::stage::{NUMBER, PHONE_NUMBER_ID};
use crate::gateway::simulated::{Customer, Graph, Seen, Settings, StatusNews, Webhooks};

/// How long anything that must happen may take.
const WITHIN: Duration = Duration::from_secs(20);
/// How long Meta waits before it repeats a webhook that was not taken.
const REPEAT_AFTER: Duration = Duration::from_millis(50);
/// What each phone tells of a message, in order.
const STATUSES: [&str; 3] = ["sent", "delivered", "read"];
/// What a customer answers.
const ANSWER: &str = "Thank you, got it!";

/// The simulated WhatsApp.
pub(super) struct WhatsApp {
    pub(super) graph: Arc<Graph>,
    pub(super) webhooks: Webhooks,
    client: reqwest::Client,
    phones: Option<tokio::task::JoinHandle<()>>,
    /// Whether customers answer what they are sent.
    are_answering: Arc<AtomicBool>,
}

impl WhatsApp {
    /// Starts it on a free port.
    pub(super) async fn start(
        webhook_url: String,
        app_secret: &str,
        access_token: &str,
    ) -> anyhow::Result<Self> {
        let settings =
            Settings { phone_number_id: PHONE_NUMBER_ID.to_owned(), access_token: access_token.to_owned() };
        let graph = Graph::start(0, settings).await.context("starting the simulated Graph API")?;
        let webhooks = Webhooks {
            url: webhook_url,
            app_secret: app_secret.to_owned(),
            phone_number_id: PHONE_NUMBER_ID.to_owned(),
            display_phone_number: NUMBER.trim_start_matches('+').to_owned(),
        };
        // A connection to a broker that was killed is of no use.
        let client = reqwest::Client::builder().timeout(WITHIN).pool_max_idle_per_host(0).build()?;
        let are_answering = Arc::default();
        Ok(Self { graph: Arc::new(graph), webhooks, client, phones: None, are_answering })
    }

    /// From now on each message that is taken is delivered and read.
    pub(super) fn switch_phones_on(&mut self) {
        let (graph, webhooks, client) = (Arc::clone(&self.graph), self.webhooks.clone(), self.client.clone());
        let are_answering = Arc::clone(&self.are_answering);
        self.phones = Some(tokio::spawn(async move {
            let mut told = 0;
            loop {
                graph.until(|seen| seen.len() > told).await;
                let fresh: Vec<Seen> = graph.seen().into_iter().skip(told).collect();
                told += fresh.len();
                for seen in fresh {
                    let answers = are_answering.load(Ordering::Acquire);
                    tokio::spawn(tell(webhooks.clone(), client.clone(), seen, answers));
                }
            }
        }));
    }

    /// From now on the customer answers each message, once he has read it.
    pub(super) fn let_customers_answer(&self) {
        self.are_answering.store(true, Ordering::Release);
    }

    /// Posts a webhook; says whether the broker has taken it (200). An error: nobody answered.
    pub(super) fn post(&self, webhook: Value) -> impl Future<Output = anyhow::Result<bool>> + use<> {
        let (webhooks, client) = (self.webhooks.clone(), self.client.clone());
        async move { Ok(webhooks.post(&client, &webhook).await? == 200) }
    }

    /// What lies on a customer's phone, once there are so many.
    pub(super) async fn phone(&self, wa_id: &str, count: usize) -> anyhow::Result<Vec<Seen>> {
        let of = |seen: &[Seen]| -> Vec<Seen> {
            seen.iter().filter(|seen| seen.to == wa_id && seen.message_id().is_some()).cloned().collect()
        };
        let there = self.graph.until(|seen| of(seen).len() >= count);
        let in_time = timeout_at(Instant::now() + WITHIN, there).await.is_ok();
        anyhow::ensure!(in_time, "the customer was to get {count} messages: {:?}", of(&self.graph.seen()));
        Ok(of(&self.graph.seen()))
    }

    /// How often each reply was taken, by the callback data that the gateway gave it.
    pub(super) fn taken(&self) -> BTreeMap<String, usize> {
        let mut taken = BTreeMap::new();
        for seen in self.graph.seen() {
            if seen.message_id().is_some() {
                *taken.entry(seen.callback_data().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
        taken
    }
}

impl Drop for WhatsApp {
    fn drop(&mut self) {
        if let Some(phones) = &self.phones {
            phones.abort();
        }
    }
}

/// A phone tells how far a message has come, and perhaps its owner answers; Meta repeats each webhook until it is taken.
async fn tell(webhooks: Webhooks, client: reqwest::Client, seen: Seen, answers: bool) {
    let Some(message_id) = seen.message_id() else { return };
    let status = |status| {
        let callback_data = seen.callback_data();
        webhooks.status(StatusNews { message_id, status, recipient: &seen.to, callback_data, error: None })
    };
    let customer = Customer { wa_id: Some(&seen.to), user_id: None, name: "Customer" };
    let answer = answers.then(|| webhooks.text(customer, &format!("{message_id}.answer"), ANSWER));
    let until = Instant::now() + WITHIN;
    for webhook in STATUSES.into_iter().map(status).chain(answer) {
        while !matches!(webhooks.post(&client, &webhook).await, Ok(200)) {
            if Instant::now() > until {
                return;
            }
            tokio::time::sleep(REPEAT_AFTER).await;
        }
    }
}
