//! Where the tests play: the broker's process, the simulated Graph API, adapters of services.

use std::fs::{self, OpenOptions};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sharedline::client::{Client, ClientError, Event, Events, Options, position};
use sharedline::config::TokenHash;
use sharedline::domain::event::{Agent, Status};
use sharedline::domain::ids::{ChannelId, CustomerName};
use sharedline::gateway::graph::choose_crypto;
use sharedline::gateway::simulated::{Graph, Seen, Settings, StatusNews, Webhooks};
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{CreateChannel, Hello, Reply, Roster};
use sharedline::wire::message::{
    Addressee, DeliverMode, Delivery, Positions, RawContent, Request, Response, Who, responses,
};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::serving::Serving;

pub(crate) const NUMBER: &str = "+15550783881";
pub(crate) const PHONE_NUMBER_ID: &str = "106540352242922";
pub(crate) const ACCESS_TOKEN: &str = "EAAJB-the-access-token";
const SECRET: &str = "the app's secret";
/// How long anything that must happen may take.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// What differs between tests.
pub(crate) struct Setup {
    pub(crate) messages_per_second: u32,
    pub(crate) services: &'static [&'static str],
    /// What each of them weighs; 1 where there is none.
    pub(crate) weights: &'static [u32],
    pub(crate) plan: &'static str,
    /// How much the broker logs.
    pub(crate) log: &'static str,
    /// Where the Graph API is, if not where the stage starts one.
    pub(crate) graph_port: u16,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            messages_per_second: 80,
            services: &["crm", "desk"],
            weights: &[],
            plan: "bundle",
            log: "info",
            graph_port: 0,
        }
    }
}

pub(crate) struct Stage {
    directory: TempDir,
    pub(crate) graph: Graph,
    pub(crate) webhooks: Webhooks,
    http: reqwest::Client,
    pub(crate) tcp: SocketAddr,
    broker: Option<Serving>,
    log_filter: &'static str,
}

pub(crate) fn graph_settings() -> Settings {
    Settings { phone_number_id: PHONE_NUMBER_ID.to_owned(), access_token: ACCESS_TOKEN.to_owned() }
}

pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().local_addr().unwrap()
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        choose_crypto();
        let graph = Graph::start(0, graph_settings()).await.unwrap();
        let port = if setup.graph_port == 0 { graph.address().port() } else { setup.graph_port };
        let (tcp, http) = (free_address(), free_address());
        let webhooks = Webhooks {
            url: format!("http://{http}/webhooks/whatsapp"),
            app_secret: SECRET.to_owned(),
            phone_number_id: PHONE_NUMBER_ID.to_owned(),
            display_phone_number: NUMBER[1..].to_owned(),
        };
        let directory = tempfile::tempdir().unwrap();
        let services: String = setup
            .services
            .iter()
            .zip(setup.weights.iter().chain(std::iter::repeat(&1)))
            .map(|(name, weight)| {
                let hash = TokenHash::of(name);
                format!(
                    "[[portals.services]]\nid = \"{name}\"\ntoken_sha256 = \"{hash}\"\nweight = {weight}\n"
                )
            })
            .collect();
        let text = format!(
            "data_dir = {:?}\n[tcp]\nlisten = \"{tcp}\"\n[http]\nlisten = \"{http}\"\n\
             [whatsapp]\napp_secret = \"{SECRET}\"\naccess_token = \"{ACCESS_TOKEN}\"\n\
             graph_url = \"http://127.0.0.1:{port}/v23.0\"\n[[portals]]\nid = \"acme\"\nplan = \"{}\"\n{services}\
             [[portals.numbers]]\nnumber = \"{NUMBER}\"\nphone_number_id = \"{PHONE_NUMBER_ID}\"\n\
             messages_per_second = {}\n",
            directory.path().join("data"),
            setup.plan,
            setup.messages_per_second
        );
        fs::write(directory.path().join("sharedline.toml"), text).unwrap();
        // A connection to a process that was killed is of no use to the next.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let mut stage = Self { directory, graph, webhooks, http, tcp, broker: None, log_filter: setup.log };
        stage.start();
        stage
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("broker.log")
    }

    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub(crate) fn start(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let config = self.directory.path().join("sharedline.toml");
        self.broker = Some(Serving::start(&config, self.log_filter, log));
    }

    /// Puts something else into the configuration, and lets the broker read it anew.
    pub(crate) async fn reload(&self, changes: &[(&str, &str)]) {
        self.reload_to("the configuration is reloaded", changes).await;
    }

    /// The same, where it must be refused.
    pub(crate) async fn reload_refused(&self, changes: &[(&str, &str)]) {
        self.reload_to("the reload is refused", changes).await;
    }

    async fn reload_to(&self, said: &str, changes: &[(&str, &str)]) {
        let file = self.directory.path().join("sharedline.toml");
        let mut text = fs::read_to_string(&file).unwrap();
        for (before, now) in changes {
            assert!(text.contains(before), "{before:?} is not in {text}");
            text = text.replace(before, now);
        }
        fs::write(&file, text).unwrap();
        let times = self.log_text().matches(said).count();
        self.broker.as_ref().unwrap().signal("-HUP");
        let reloaded = async {
            while self.log_text().matches(said).count() == times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(WITHIN, reloaded).await.is_ok(), "no reload: {}", self.log_text());
    }

    /// SIGKILL, as a power cut would end the process.
    pub(crate) fn kill(&mut self) {
        self.broker.take().unwrap().kill();
    }

    /// SIGTERM; the process must end well.
    pub(crate) async fn terminate(&mut self) {
        let mut broker = self.broker.take().unwrap();
        let code = tokio::task::spawn_blocking(move || broker.terminate()).await.unwrap();
        assert_eq!(code, 0, "{}", self.log_text());
    }

    /// Posts a text over the Cloud API facade; gives the status, and the error's code if there is one.
    pub(crate) async fn post_text(&self, token: &str, to: &str, text: &str) -> (u16, Option<u64>) {
        let address = self.webhooks.url.trim_end_matches("/webhooks/whatsapp");
        let body = json!({"messaging_product": "whatsapp", "to": to, "type": "text", "text": {"body": text}});
        let post = self.http.post(format!("{address}/v23.0/{PHONE_NUMBER_ID}/messages")).bearer_auth(token);
        let answer =
            post.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        let status = answer.status().as_u16();
        let said: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        (status, said["error"]["code"].as_u64())
    }

    pub(crate) async fn post(&self, webhook: &Value) {
        assert_eq!(self.webhooks.post(&self.http, webhook).await.unwrap(), 200);
    }

    /// A status, as Meta sends it of a message that it took; without callback data: by the message's id alone.
    pub(crate) async fn status(&self, seen: &Seen, status: &str, with_callback: bool) {
        let callback_data = seen.callback_data().filter(|_| with_callback);
        let message_id = seen.message_id().unwrap();
        let error = (status == "failed").then_some(131_026);
        let news = StatusNews { message_id, status, recipient: &seen.to, callback_data, error };
        self.post(&self.webhooks.status(news)).await;
    }

    /// Waits until the Graph API has seen what is wanted.
    pub(crate) async fn until_seen(&self, what: &str, is_so: impl FnMut(&[Seen]) -> bool) {
        if timeout(WITHIN, self.graph.until(is_so)).await.is_err() {
            panic!("the Graph API never saw {what}: {:?}\n{}", self.graph.seen(), self.log_text());
        }
    }

    /// Waits until the broker's log says this.
    pub(crate) async fn until_logged(&self, line: &str) {
        let wait = async {
            while !self.log_text().contains(line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(WITHIN, wait).await.is_ok(), "{line:?} is not in the log: {}", self.log_text());
    }

    /// Requests to this customer, in order.
    pub(crate) fn seen_by(&self, customer: &str) -> Vec<Seen> {
        self.graph.seen().into_iter().filter(|seen| seen.to == customer).collect()
    }

    /// Every request was as Meta wants it, and nobody got anything twice.
    pub(crate) fn end(mut self) {
        assert_eq!(self.graph.wrongs(), []);
        let mut taken: Vec<String> = (self.graph.seen().iter())
            .filter(|seen| seen.message_id().is_some())
            .map(|seen| seen.callback_data().unwrap().to_owned())
            .collect();
        let all = taken.len();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), all, "a customer got a reply twice");
        if self.broker.is_some() {
            self.kill();
        }
    }
}

#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Delivery>>,
    grown: Notify,
}

/// An adapter of a service, which has created the number and has one agent, Ann.
pub(crate) struct Adapter {
    client: Client,
    log: Arc<Log>,
    pub(crate) channel: ChannelId,
}

/// How far a reply is, and the code of its error.
pub(crate) type Receipts = Vec<(Status, Option<String>)>;

impl Adapter {
    pub(crate) async fn enter(stage: &Stage, name: &str) -> Self {
        let hello = Hello {
            version: 1,
            who: Who::Service(name.parse().unwrap()),
            portal: "acme".parse().unwrap(),
            token: name.into(),
            adapter: Some("test".parse().unwrap()),
            window: 4_096,
            deliver: DeliverMode::Share,
            from: Positions::default(),
            heartbeat_ms: None,
        };
        let options = Options { address: stage.tcp, encoding: Encoding::Binary, hello };
        let (client, _, events) = Client::connect(options).await.unwrap();
        let log = Arc::new(Log::default());
        tokio::spawn(listen(Arc::clone(&log), client.clone(), events));
        let create = CreateChannel { number: NUMBER.parse().unwrap(), backfill: false };
        let Response::Channel(created) = client.request(create).await.unwrap() else { panic!("no channel") };
        let ann = Agent { agent: "ann".parse().unwrap(), name: "Ann".into(), lead: false };
        let roster = Roster { agents: vec![ann], replace: true, remove: Vec::new() };
        client.request(roster).await.unwrap();
        Self { client, log, channel: created.seen.channel }
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Asks again while the broker is away.
    pub(crate) async fn ask(&self, request: impl Into<Request>) -> Result<Response, ClientError> {
        let request = request.into();
        loop {
            match self.client.request(request.clone()).await {
                Err(ClientError::Lost) => tokio::time::sleep(Duration::from_millis(10)).await,
                answer => return answer,
            }
        }
    }

    pub(crate) fn reply_of(&self, to: &str, agent: Option<&str>, reply_id: &str, content: &Value) -> Reply {
        Reply {
            channel: self.channel,
            to: Addressee::Customer(CustomerName::read(to).unwrap()),
            agent: agent.map(|agent| agent.parse().unwrap()),
            reply_id: reply_id.parse().unwrap(),
            content: RawContent(content.to_string().into()),
            seen: None,
            confirm: None,
        }
    }

    pub(crate) async fn reply(&self, to: &str, reply_id: &str, content: &Value) -> responses::Accepted {
        let reply = self.reply_of(to, Some("ann"), reply_id, content);
        match timeout(WITHIN, self.ask(reply)).await.unwrap().unwrap() {
            Response::Accepted(accepted) => accepted,
            other => panic!("{reply_id}: {other:?}"),
        }
    }

    /// A text of Ann's.
    pub(crate) async fn text(&self, to: &str, reply_id: &str) -> responses::Accepted {
        self.reply(to, reply_id, &json!({"type": "text", "text": {"body": reply_id}})).await
    }

    pub(crate) fn seen(&self) -> Vec<Delivery> {
        self.log.seen.lock().unwrap().clone()
    }

    /// What was told of a reply; each once, however often it was delivered.
    pub(crate) fn receipts(&self, reply_id: &str) -> Receipts {
        let mut receipts = Vec::new();
        let mut offsets = Vec::new();
        for delivery in self.seen() {
            if let Some(receipt) = delivery.receipt()
                && receipt.reply_id.as_str() == reply_id
                && !offsets.contains(&receipt.offset)
            {
                offsets.push(receipt.offset);
                receipts.push((receipt.status, receipt.error.map(|error| error.code.to_string())));
            }
        }
        receipts
    }

    pub(crate) async fn until(&self, stage: &Stage, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let wait = async {
            loop {
                let grown = self.log.grown.notified();
                if is_so(self) {
                    return;
                }
                grown.await;
            }
        };
        if timeout(WITHIN, wait).await.is_err() {
            panic!("never: {what}; told was {:?}\n{}", self.seen(), stage.log_text());
        }
    }

    /// Waits until a reply has come exactly this far, on this way.
    pub(crate) async fn until_told(&self, stage: &Stage, reply_id: &str, way: &[Status]) {
        let is_so = |adapter: &Self| {
            let receipts = adapter.receipts(reply_id);
            receipts.iter().map(|(status, _)| *status).collect::<Vec<_>>() == way
        };
        self.until(stage, &format!("{reply_id}: {way:?}"), is_so).await;
    }
}

async fn listen(log: Arc<Log>, client: Client, mut events: Events) {
    while let Some(event) = events.next().await {
        let Event::Delivery(delivery) = event else { continue };
        let position = position(&delivery);
        log.seen.lock().unwrap().push(delivery);
        log.grown.notify_waiters();
        if let Some((channel, offset)) = position {
            let _ = client.ack(channel, offset).await;
        }
    }
}
