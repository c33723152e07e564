//! A broker on real sockets and a real journal, peers that connect to it, and a tally of all that crossed the wire.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use sharedline::actors::broker::{PortalSetup, Setup};
use sharedline::actors::{Broker, Limits};
use sharedline::client::{ClientError, Connection, Receiver, Sender, position};
use sharedline::domain::event::{Agent, Customer};
use sharedline::domain::ids::{AgentId, ChannelId, ConversationId, CustomerName, Offset, Timestamp};
use sharedline::domain::portal::{PickUpRule, Plan, RosterSource};
use sharedline::domain::view::Masking;
use sharedline::journal::{Options, Retention};
use sharedline::net::listener::{Listener, Settings};
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{
    Ack, CreateChannel, Hello, Inbound, ListConversations, Open, PickUp, Reply, Roster, Sent,
};
use sharedline::wire::message::responses::{self, Error};
use sharedline::wire::message::{
    Addressee, DeliverMode, Delivery, ErrorCode, Positions, RawContent, Request, Response, SentOutcome,
    ServerBody, Who, deliveries,
};

use crate::bridge::Bridge;
use crate::world;

/// How long anything that must happen may take.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);
/// The number that most scenarios share.
pub(crate) const NUMBER: &str = "+15550783881";
/// A number of the same portal whose replies have no gateway.
pub(crate) const MUTE_NUMBER: &str = "+15550783882";
/// A number whose replies wait for no more than a moment, and for nobody.
pub(crate) const HASTY_NUMBER: &str = "+15550783885";
/// The number of the portal on plan `isolated`.
pub(crate) const SOLO_NUMBER: &str = "+15550783883";
/// The customer of most scenarios.
pub(crate) const MARIA: &str = "16505551234";

/// What crossed the wire so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Peers come over a WebSocket.
    pub(crate) over_websocket: bool,
    pub(crate) requests: BTreeSet<&'static str>,
    /// Responses and deliveries by number, since two responses share a name.
    pub(crate) messages: BTreeSet<u32>,
    pub(crate) errors: BTreeSet<&'static str>,
}

pub(crate) type Tallied = Arc<Mutex<Tally>>;

/// A portal with two gateways, where services differ by their names.
fn portal(id: &str, plan: Plan, services: &[&str], numbers: &[(&str, Option<&str>)]) -> PortalSetup {
    let mut portal = world::portal(id, plan, services, numbers);
    for service in &mut portal.rules.services {
        match service.service.as_str() {
            "salesiq" => service.pick_up = PickUpRule::Takeover,
            "chat" => (service.pick_up, service.masking) = (PickUpRule::Open, Masking::Service),
            "timed" => service.claim_ttl_ms = Some(1_000),
            _ => {}
        }
    }
    for number in portal.numbers.iter_mut().filter(|number| number.number.as_str() == HASTY_NUMBER) {
        number.send_ttl_ms = 300;
    }
    if id == "fixed" {
        let ann = Agent { agent: "ann".parse().unwrap(), name: "Ann".into(), lead: false };
        portal.rules.rosters = RosterSource::Config;
        portal.rules.fixed_rosters =
            services.iter().map(|id| (id.parse().unwrap(), vec![ann.clone()])).collect();
    }
    portal.gateway_tokens.insert("second".parse().unwrap(), vec![Sha256::digest(b"second").into()]);
    portal
}

/// JSON has one Arbiter, binary three: both are what machines have.
fn setup(limits: &Limits, encoding: Encoding) -> Setup {
    let arbiters = if encoding == Encoding::Binary { 3 } else { 1 };
    let all = ["crm", "desk", "salesiq", "chat", "timed", "books"];
    Setup {
        portals: vec![
            portal(
                "acme",
                Plan::Bundle,
                &all,
                &[(NUMBER, Some("whatsapp")), (MUTE_NUMBER, None), (HASTY_NUMBER, None)],
            ),
            portal("solo", Plan::Isolated, &["crm", "desk"], &[(SOLO_NUMBER, Some("whatsapp"))]),
            portal("fixed", Plan::Bundle, &["crm"], &[("+15550783884", None)]),
        ],
        limits: Limits { arbiters, ..limits.clone() },
    }
}

/// A broker, and how peers talk to it.
pub(crate) struct Stage {
    directory: tempfile::TempDir,
    running: Option<(Broker, Listener)>,
    bridge: Option<Bridge>,
    limits: Limits,
    pub(crate) encoding: Encoding,
    tally: Tallied,
}

impl Stage {
    pub(crate) fn set(encoding: Encoding, tally: &Tallied) -> Self {
        Self::with_ack_timeout(encoding, tally, Duration::from_secs(60))
    }

    pub(crate) fn with_ack_timeout(encoding: Encoding, tally: &Tallied, ack_timeout: Duration) -> Self {
        Self::with(encoding, tally, Limits { ack_timeout, ..Limits::default() })
    }

    /// One that keeps history for so long.
    pub(crate) fn keeping(encoding: Encoding, tally: &Tallied, keep_ms: u64) -> Self {
        let retention = Retention { keep_ms, ..Limits::default().retention };
        Self::with(encoding, tally, Limits { retention, ..Limits::default() })
    }

    fn with(encoding: Encoding, tally: &Tallied, limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { recent_bytes_max: 1 << 20, ..limits };
        let mut stage =
            Self { directory, running: None, bridge: None, limits, encoding, tally: Arc::clone(tally) };
        stage.start();
        stage
    }

    /// The data directory.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Whether a text stands in any file of the data directory.
    pub(crate) fn holds(&self, text: &str) -> bool {
        self.holds_in(text, "")
    }

    /// Whether a text stands in a file whose name ends so.
    pub(crate) fn holds_in(&self, text: &str, end: &str) -> bool {
        let stands_in = |bytes: &[u8]| memchr::memmem::find(bytes, text.as_bytes()).is_some();
        loop {
            let files = self.files(end);
            let read: Vec<_> = files.iter().filter_map(|path| std::fs::read(path).ok()).collect();
            if read.iter().any(|bytes| stands_in(bytes)) {
                return true;
            }
            // What was exchanged meanwhile, as a base is, may have held it on both sides of the look.
            if read.len() == files.len() && self.files(end) == files {
                return false;
            }
        }
    }

    /// Whether there is a file whose name ends so.
    pub(crate) fn has_file(&self, end: &str) -> bool {
        !self.files(end).is_empty()
    }

    fn files(&self, end: &str) -> Vec<std::path::PathBuf> {
        let files = std::fs::read_dir(self.directory()).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(end)).collect();
        files.sort_unstable();
        files
    }

    fn start(&mut self) {
        let setup = setup(&self.limits, self.encoding);
        let broker = world::start(self.directory(), &Options::default(), setup);
        let settings = Settings { ack_timeout: self.limits.ack_timeout };
        let listener = Listener::start("127.0.0.1:0".parse().unwrap(), &broker, settings).unwrap();
        self.bridge = self.is_over_websocket().then(|| Bridge::start(&broker));
        self.running = Some((broker, listener));
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        let tcp = self.running.as_ref().unwrap().1.address();
        self.bridge.as_ref().map_or(tcp, |bridge| bridge.address)
    }

    /// Whether peers come over a WebSocket.
    pub(crate) fn is_over_websocket(&self) -> bool {
        self.tally.lock().unwrap().over_websocket
    }

    pub(crate) fn broker(&self) -> &Broker {
        &self.running.as_ref().unwrap().0
    }

    /// Changes a byte of the journal's files, once, where this text stands.
    pub(crate) fn damage(&self, text: &str) {
        for entry in std::fs::read_dir(self.directory()).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
                bytes[at] ^= 1;
                std::fs::write(&path, bytes).unwrap();
                return;
            }
        }
        panic!("{text} stands nowhere");
    }

    /// Stops the broker, after `goaway`.
    pub(crate) async fn stop(&mut self) {
        let (broker, listener) = self.running.take().unwrap();
        listener.close();
        broker.say_goaway(Duration::from_millis(100));
        broker.stop(WITHIN).await.unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start();
    }

    pub(crate) fn restart_stopped(&mut self) {
        self.start();
    }

    pub(crate) fn hello(&self, portal: &str, who: &str, adapter: &str) -> Hello {
        let is_gateway = matches!(who, "whatsapp" | "second");
        Hello {
            version: 1,
            who: if is_gateway {
                Who::Gateway(who.parse().unwrap())
            } else {
                Who::Service(who.parse().unwrap())
            },
            portal: portal.parse().unwrap(),
            token: who.into(),
            adapter: Some(adapter.parse().unwrap()),
            window: 1_024,
            deliver: DeliverMode::Share,
            from: Positions::default(),
            heartbeat_ms: None,
        }
    }

    pub(crate) async fn open(&self, hello: Hello) -> Result<Peer, Box<Error>> {
        note(&self.tally, |tally| {
            tally.requests.insert("hello");
        });
        match Connection::open(self.address(), self.encoding, hello).await {
            Ok(Connection { welcome, sender, receiver }) => {
                let mut peer = Peer {
                    welcome: welcome.clone(),
                    sender,
                    receiver,
                    delivered: VecDeque::new(),
                    answers: HashMap::new(),
                    over: None,
                    goaway: None,
                    tally: Arc::clone(&self.tally),
                };
                let channels: Vec<ChannelId> = welcome.channels.iter().map(|seen| seen.channel).collect();
                peer.tally_message(&ServerBody::Response(Response::Welcome(welcome)));
                for channel in channels {
                    // With this answer the channel knows of the connection; until then another one gets what comes.
                    peer.ask(sharedline::wire::message::requests::GetChannel { channel }).await;
                }
                Ok(peer)
            }
            Err(ClientError::Refused(error)) => {
                note(&self.tally, |tally| {
                    tally.errors.insert(error.code.as_str());
                    tally.messages.insert(Response::Error((*error).clone()).number());
                });
                Err(error)
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    pub(crate) async fn service(&self, service: &str) -> Peer {
        self.open(self.hello("acme", service, "one")).await.unwrap()
    }

    pub(crate) async fn gateway(&self) -> Peer {
        self.open(self.hello("acme", "whatsapp", "gateway")).await.unwrap()
    }

    /// Services that share the number, each with agents; what that delivered is acknowledged.
    pub(crate) async fn sharing(&self, services: &[&str]) -> (Vec<Peer>, ChannelId) {
        let mut peers = Vec::new();
        let mut channel = None;
        for service in services {
            let mut peer = self.service(service).await;
            peer.roster(&["ann", "bob"]).await;
            channel = Some(peer.create(NUMBER).await.seen.channel);
            peers.push(peer);
        }
        for (at, peer) in peers.iter_mut().enumerate() {
            for _ in at..services.len() {
                let joined = peer.next().await;
                peer.ack(&joined).await;
            }
            // With this answer the acknowledgements are taken.
            assert!(peer.settled(channel.unwrap()).await.is_empty());
        }
        (peers, channel.unwrap())
    }
}

fn note(tally: &Tallied, takes: impl FnOnce(&mut Tally)) {
    takes(&mut tally.lock().unwrap());
}

/// A connection, and what came over it.
pub(crate) struct Peer {
    pub(crate) welcome: responses::Welcome,
    sender: Sender,
    receiver: Receiver,
    delivered: VecDeque<Delivery>,
    answers: HashMap<u64, Response>,
    /// The error that ended it, if one came.
    over: Option<Error>,
    goaway: Option<u64>,
    tally: Tallied,
}

impl Peer {
    fn tally_message(&mut self, body: &ServerBody) {
        note(&self.tally, |tally| match body {
            ServerBody::Response(response) => {
                tally.messages.insert(response.number());
                if let Response::Error(error) = response {
                    tally.errors.insert(error.code.as_str());
                }
            }
            ServerBody::Delivery(delivery) => {
                tally.messages.insert(delivery.number());
            }
        });
    }

    /// Takes one message in; false when the connection is over.
    async fn take(&mut self) -> bool {
        let received =
            tokio::time::timeout(WITHIN, self.receiver.next()).await.expect("something comes in time");
        let Ok(message) = received else { return false };
        self.tally_message(&message.body);
        match message.body {
            ServerBody::Response(Response::Error(error)) if message.id == 0 => self.over = Some(error),
            ServerBody::Response(Response::Goaway(goaway)) => self.goaway = Some(goaway.retry_after_ms),
            ServerBody::Response(response) => drop(self.answers.insert(message.id, response)),
            ServerBody::Delivery(delivery) => self.delivered.push_back(delivery),
        }
        true
    }

    pub(crate) async fn put(&mut self, request: impl Into<Request>) -> u64 {
        let request = request.into();
        note(&self.tally, |tally| {
            tally.requests.insert(request.name());
        });
        let id = self.sender.put(&request).unwrap();
        self.sender.flush().await.unwrap();
        id
    }

    pub(crate) async fn answer(&mut self, id: u64) -> Response {
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
            assert!(self.take().await, "the connection ended before the answer: {:?}", self.over);
        }
    }

    pub(crate) async fn ask(&mut self, request: impl Into<Request>) -> Response {
        let id = self.put(request).await;
        self.answer(id).await
    }

    /// Asks, and gives the code of the refusal.
    pub(crate) async fn refused(&mut self, request: impl Into<Request>) -> ErrorCode {
        match self.ask(request).await {
            Response::Error(error) => error.code,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(crate) async fn ok(&mut self, request: impl Into<Request>) {
        let answer = self.ask(request).await;
        assert!(matches!(answer, Response::Ok(_)), "{answer:?}");
    }

    /// The next delivery.
    pub(crate) async fn next(&mut self) -> Delivery {
        while self.delivered.is_empty() {
            assert!(self.take().await, "the connection ended: {:?}", self.over);
        }
        self.delivered.pop_front().unwrap()
    }

    /// The next deliveries, in words.
    pub(crate) async fn words(&mut self, count: usize) -> Vec<String> {
        let mut words = Vec::new();
        for _ in 0..count {
            words.push(word(&self.next().await));
        }
        words
    }

    /// The next delivery, which must be a customer's message.
    pub(crate) async fn message(&mut self) -> deliveries::Message {
        match self.next().await {
            Delivery::Message(message) => message,
            other => panic!("{other:?}"),
        }
    }

    /// All deliveries that were decided before now: an answer comes behind them.
    pub(crate) async fn settled(&mut self, channel: ChannelId) -> Vec<Delivery> {
        self.ask(sharedline::wire::message::requests::GetChannel { channel }).await;
        self.delivered.drain(..).collect()
    }

    /// The words of all deliveries up to this one.
    pub(crate) async fn settled_until(&mut self, last: &str) -> Vec<String> {
        let mut words = Vec::new();
        while words.last().is_none_or(|word| word != last) {
            words.push(word(&self.next().await));
        }
        words
    }

    pub(crate) async fn ack(&mut self, delivery: &Delivery) {
        let (channel, offset) = position(delivery).unwrap();
        self.put(Ack { channel, offset }).await;
    }

    /// Waits for the connection's end, and gives why.
    pub(crate) async fn end(mut self) -> Option<ErrorCode> {
        while self.take().await {}
        self.over.map(|error| error.code)
    }

    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        self.goaway
    }

    pub(crate) async fn goaway(&mut self) -> u64 {
        while self.goaway.is_none() {
            assert!(self.take().await, "the connection ended before goaway");
        }
        self.retry_after_ms().unwrap()
    }

    // ------------------------------------------------------------------------------------------ in few words

    pub(crate) async fn create(&mut self, number: &str) -> responses::Channel {
        channel(self.ask(CreateChannel { number: number.parse().unwrap(), backfill: false }).await)
    }

    pub(crate) async fn roster(&mut self, agents: &[&str]) {
        let agent = |id: &&str| Agent {
            agent: id.parse().unwrap(),
            name: name_of(id).as_str().into(),
            lead: id.starts_with("lead"),
        };
        let agents = agents.iter().map(agent).collect();
        self.ok(Roster { agents, replace: true, remove: Vec::new() }).await;
    }

    pub(crate) async fn inbound(&mut self, message_id: &str, content: &str) -> Response {
        self.ask(inbound(message_id, MARIA, content)).await
    }

    /// A customer's text, which every active channel takes.
    pub(crate) async fn text(&mut self, message_id: &str, text: &str) {
        let answer = self.inbound(message_id, &text_content(text)).await;
        assert!(
            matches!(&answer, Response::InboundAccepted(accepted) if accepted.channels > 0),
            "{message_id}: {answer:?}"
        );
    }

    pub(crate) async fn conversation(&mut self, channel: ChannelId) -> ConversationId {
        let list = ListConversations { channel, after: None, limit: None, claimed: None, unanswered: None };
        match self.ask(list).await {
            Response::Conversations(found) => found.conversations[0].conversation,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn open_conversation(
        &mut self,
        channel: ChannelId,
        conversation: ConversationId,
        agent: &str,
    ) -> responses::Conversation {
        let open = Open { channel, conversation, agent: agent.parse().unwrap(), limit: 200, before: None };
        match self.ask(open).await {
            Response::Conversation(opened) => opened,
            other => panic!("{other:?}"),
        }
    }

    /// The gateway's next `send`.
    pub(crate) async fn send(&mut self) -> deliveries::Send {
        match self.next().await {
            Delivery::Send(send) => send,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn sent(&mut self, send: &deliveries::Send, message_id: &str) {
        let outcome = SentOutcome::Sent(message_id.parse().unwrap());
        self.ok(Sent { channel: send.channel, offset: send.offset, outcome }).await;
    }
}

/// What the roster calls an agent.
pub(crate) fn name_of(id: &str) -> String {
    let mut letters = id.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

pub(crate) fn text_content(text: &str) -> String {
    format!(r#"{{"type":"text","text":{{"body":"{text}"}}}}"#)
}

pub(crate) fn inbound(message_id: &str, from: &str, content: &str) -> Inbound {
    let name = CustomerName::read(from).unwrap();
    let customer = if name.is_user_id() {
        Customer { user_id: Some(name), ..Customer::default() }
    } else {
        Customer { wa_id: Some(name), ..Customer::default() }
    };
    Inbound {
        number: NUMBER.parse().unwrap(),
        message_id: message_id.parse().unwrap(),
        customer,
        at: Timestamp(now_ms()),
        content: RawContent(Bytes::from(content.to_owned())),
        refers_to: None,
    }
}

/// When every message of this process was written: a repeat carries the same time.
pub(crate) fn now_ms() -> u64 {
    static NOW_MS: OnceLock<u64> = OnceLock::new();
    *NOW_MS.get_or_init(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(since.as_millis()).unwrap()
    })
}

pub(crate) fn reply(channel: ChannelId, conversation: ConversationId, reply_id: &str) -> Reply {
    Reply {
        channel,
        to: Addressee::Conversation(conversation),
        agent: None,
        reply_id: reply_id.parse().unwrap(),
        content: RawContent(Bytes::from(text_content("secret-of-the-sender"))),
        seen: None,
        confirm: None,
    }
}

pub(crate) fn by(agent: &str, reply: Reply) -> Reply {
    Reply { agent: Some(agent.parse::<AgentId>().unwrap()), ..reply }
}

pub(crate) fn pick_up(channel: ChannelId, conversation: ConversationId, agent: &str) -> PickUp {
    PickUp { channel, conversation, agent: agent.parse().unwrap(), confirm: None }
}

pub(crate) fn channel(response: Response) -> responses::Channel {
    match response {
        Response::Channel(channel) => channel,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn accepted(response: Response) -> responses::Accepted {
    match response {
        Response::Accepted(accepted) => accepted,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn warned(response: Response) -> responses::Warning {
    match response {
        Response::Warning(warning) => warning,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn error(response: Response) -> Error {
    match response {
        Response::Error(error) => error,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn offset(delivery: &Delivery) -> Offset {
    position(delivery).unwrap().1
}

/// A delivery in a few words.
pub(crate) fn word(delivery: &Delivery) -> String {
    let text = |content: &RawContent| String::from_utf8(content.0.to_vec()).unwrap();
    match delivery {
        Delivery::Message(message) => format!("message {}", message.message_id.as_str()),
        Delivery::Reply(reply) => format!("reply {}", reply.reply_id.as_str()),
        Delivery::MaskedReply(masked) => match &masked.content {
            Some(content) => format!("masked with {}", text(content)),
            None => "masked".to_owned(),
        },
        Delivery::Claim(claim) => {
            format!("{}{}", claim.action.as_str(), if claim.own { " own" } else { "" })
        }
        Delivery::Receipt(receipt) => {
            format!("receipt {} {}", receipt.reply_id.as_str(), receipt.status.as_str())
        }
        Delivery::DetailedReceipt(receipt) => {
            let details = text(&receipt.details);
            format!("receipt {} {} {details}", receipt.reply_id.as_str(), receipt.status.as_str())
        }
        Delivery::Presence(presence) => {
            format!("presence {}{}", presence.doing.as_str(), if presence.own { " own" } else { "" })
        }
        Delivery::ConversationMerged(_) => "merged".to_owned(),
        Delivery::Notice(notice) => format!("notice {}", notice.field),
        Delivery::Gap(gap) => format!("gap {} {}", gap.from, gap.to),
        Delivery::Membership(membership) => {
            format!("{} {}", membership.service, membership.action.as_str())
        }
        Delivery::Thread(thread) => {
            let (own, was_own) =
                (if thread.own { " own" } else { "" }, if thread.was_own { " lost" } else { "" });
            format!("thread {}{own}{was_own}", thread.action.as_str())
        }
        Delivery::Send(send) => format!("send {}", send.reply_id.as_str()),
    }
}
