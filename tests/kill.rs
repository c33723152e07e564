//! SIGKILL, again and again, of the real process under load; every acknowledgement is checked by a process of its own.
//!
//! The driver starts `sharedline serve`, loads it over TCP and by signed webhooks, writes each acknowledgement into a log
//! before anything else, and kills the broker in the midst of it. After every restart a second process (this test's own
//! program, told by its environment) reads the log and asks the broker, as a watcher of the whole channel: each message
//! that was acknowledged is there, each accepted reply at its offset, each granted and each released claim; no offset
//! holds anything but what it held before; no reply was handed to the gateway twice.
//!
//! `SHAREDLINE_KILLS` and `SHAREDLINE_SEED` make it a campaign.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test's helpers fail as its test does"
)]

#[path = "world/serving.rs"]
mod serving;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sharedline::client::{Connection, position};
use sharedline::config::TokenHash;
use sharedline::domain::event::{Agent, Customer};
use sharedline::domain::ids::{ChannelId, ConversationId, CustomerName, MessageId, Offset, Timestamp};
use sharedline::gateway::signature::{SIGNATURE_HEADER, sign};
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{
    Ack, CreateChannel, Hello, Inbound, ListConversations, PickUp, Release, Reply, Roster, Sent,
};
use sharedline::wire::message::{
    Addressee, DeliverMode, Delivery, Positions, RawContent, Request, Response, SentOutcome, ServerBody, Who,
};
use tokio::task::JoinSet;

use self::serving::Serving;

const NUMBER: &str = "+15550783881";
const PHONE_NUMBER_ID: &str = "106540352242922";
const SECRET: &str = "the app's secret";
const WITHIN: Duration = Duration::from_secs(60);
/// Kills in a full test, and acknowledgements that must have been checked by then.
const KILLS: usize = 30;
const ACKNOWLEDGEMENTS_MIN: usize = 10_000;
/// How many acknowledgements a round gathers before its kill, at least.
const ACKNOWLEDGEMENTS_PER_ROUND: usize = 400;
/// Requests in flight of each loader.
const IN_FLIGHT: usize = 64;
const CUSTOMERS: usize = 50;

// ---------------------------------------------------------------------------------------------------- the broker

fn serve(config: &Path) -> Serving {
    let log = OpenOptions::new().create(true).append(true).open(config.with_extension("log")).unwrap();
    Serving::start(config, "info", log)
}

fn configuration(directory: &Path, durability: &str) -> PathBuf {
    let hash = |token: &str| TokenHash::of(token).to_string();
    // One Arbiter in one mode, several in the other: both are what machines have.
    let arbiters = if durability == "os" { 3 } else { 1 };
    let text = format!(
        "data_dir = {:?}\n[tcp]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [limits]\narbiters = {arbiters}\n[journal]\ndurability = \"{durability}\"\n[whatsapp]\napp_secret = \"{SECRET}\"\n\
         [[portals]]\nid = \"acme\"\n\
         [[portals.services]]\nid = \"crm\"\ntoken_sha256 = \"{}\"\n\
         [[portals.services]]\nid = \"desk\"\ntoken_sha256 = \"{}\"\n\
         [[portals.gateways]]\nid = \"whatsapp\"\ntoken_sha256 = \"{}\"\n\
         [[portals.numbers]]\nnumber = \"{NUMBER}\"\nphone_number_id = \"{PHONE_NUMBER_ID}\"\ngateway = \"whatsapp\"\n",
        directory.join("data"),
        hash("crm"),
        hash("desk"),
        hash("whatsapp"),
    );
    let path = directory.join("sharedline.toml");
    fs::write(&path, text).unwrap();
    path
}

async fn connect(
    tcp: SocketAddr,
    who: &str,
    name: &str,
    deliver: DeliverMode,
    from: Positions,
) -> Connection {
    let hello = Hello {
        version: 1,
        who: if who == "whatsapp" {
            Who::Gateway(who.parse().unwrap())
        } else {
            Who::Service(who.parse().unwrap())
        },
        portal: "acme".parse().unwrap(),
        token: who.into(),
        adapter: Some(name.parse().unwrap()),
        window: 4_096,
        deliver,
        from,
        heartbeat_ms: None,
    };
    Connection::open(tcp, Encoding::Binary, hello).await.unwrap()
}

async fn ask(connection: &mut Connection, request: impl Into<Request>) -> Response {
    let id = connection.sender.put(&request.into()).unwrap();
    connection.sender.flush().await.unwrap();
    loop {
        let message = tokio::time::timeout(WITHIN, connection.receiver.next()).await.unwrap().unwrap();
        if let ServerBody::Response(response) = message.body
            && message.id == id
        {
            return response;
        }
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn inbound(message_id: &str, customer: usize) -> Inbound {
    let wa_id = CustomerName::read(&format!("1650555{customer:04}")).unwrap();
    Inbound {
        number: NUMBER.parse().unwrap(),
        message_id: message_id.parse().unwrap(),
        customer: Customer { wa_id: Some(wa_id), ..Customer::default() },
        at: Timestamp(now_ms()),
        content: RawContent(Bytes::from_static(br#"{"type":"text","text":{"body":"hello"}}"#)),
        refers_to: None,
    }
}

// ------------------------------------------------------------------------------------------------------ the log

/// What was acknowledged, a line each, written before anything is made of it.
#[derive(Clone)]
struct Log {
    file: Arc<Mutex<File>>,
    acknowledged: Arc<AtomicUsize>,
}

impl Log {
    fn at(path: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        Self { file: Arc::new(Mutex::new(file)), acknowledged: Arc::default() }
    }

    fn write(&self, line: &str) {
        self.file.lock().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn acknowledged(&self, line: &str) {
        self.write(line);
        self.acknowledged.fetch_add(1, Ordering::AcqRel);
    }
}

/// What a delivery is, in a word that tells it from every other.
fn identity(delivery: &Delivery) -> Option<String> {
    Some(match delivery {
        Delivery::Message(message) => format!("message:{}", message.message_id.as_str()),
        Delivery::Reply(reply) => format!("reply:{}", reply.reply_id.as_str()),
        Delivery::MaskedReply(_) => "masked".to_owned(),
        Delivery::Claim(claim) => {
            let agent = claim.agent.as_ref().map_or("", |agent| agent.as_str());
            format!("claim:{}:{}:{agent}", claim.action.as_str(), claim.conversation)
        }
        Delivery::Receipt(receipt) => {
            format!("receipt:{}:{}", receipt.reply_id.as_str(), receipt.status.as_str())
        }
        Delivery::Membership(change) => format!("membership:{}:{}", change.service, change.action.as_str()),
        _ => return None,
    })
}

// ----------------------------------------------------------------------------------------------------- the load

/// Loads the broker until it is gone.
fn load(
    broker: &Serving,
    round: usize,
    channel: ChannelId,
    conversations: &[ConversationId],
    log: &Log,
) -> JoinSet<()> {
    let mut set = JoinSet::new();
    let (tcp, http) = (broker.tcp, broker.http);
    set.spawn(customers(tcp, round, log.clone()));
    set.spawn(webhooks(http, round, log.clone()));
    set.spawn(replies(tcp, round, channel, log.clone()));
    set.spawn(gateway(tcp, log.clone()));
    set.spawn(agents(tcp, channel, conversations.to_vec(), log.clone()));
    set.spawn(subscriber(tcp, log.clone()));
    set
}

async fn customers(tcp: SocketAddr, round: usize, log: Log) {
    let Connection { mut sender, mut receiver, .. } =
        connect(tcp, "whatsapp", "customers", DeliverMode::None, Positions::default()).await;
    let mut asked: HashMap<u64, String> = HashMap::new();
    let mut next = 0;
    loop {
        while asked.len() < IN_FLIGHT {
            let id = format!("wamid.t.{round}.{next}");
            asked.insert(sender.put(&inbound(&id, next % CUSTOMERS).into()).unwrap(), id);
            next += 1;
        }
        if sender.flush().await.is_err() {
            return;
        }
        let Ok(message) = receiver.next().await else { return };
        if let (Some(id), ServerBody::Response(Response::InboundAccepted(accepted))) =
            (asked.remove(&message.id), &message.body)
        {
            assert_eq!(accepted.channels, 1);
            log.acknowledged(&format!("message {id}"));
        }
    }
}

async fn webhooks(http: SocketAddr, round: usize, log: Log) {
    sharedline::gateway::graph::choose_crypto();
    let client = reqwest::Client::new();
    let mut set = JoinSet::new();
    for lane in 0..4 {
        let (client, log) = (client.clone(), log.clone());
        set.spawn(async move {
            for at in 0.. {
                let id = format!("wamid.w.{round}.{lane}.{at}");
                let body = serde_json::json!({
                    "object": "whatsapp_business_account",
                    "entry": [{"id": "1", "changes": [{"field": "messages", "value": {
                        "messaging_product": "whatsapp",
                        "metadata": {"display_phone_number": &NUMBER[1..], "phone_number_id": PHONE_NUMBER_ID},
                        "contacts": [{"profile": {"name": "Crowd"}, "wa_id": format!("1650556{lane:04}")}],
                        "messages": [{"from": format!("1650556{lane:04}"), "id": id, "type": "text",
                            "timestamp": (now_ms() / 1_000).to_string(), "text": {"body": "hello"}}],
                    }}]}],
                })
                .to_string();
                let request = client
                    .post(format!("http://{http}/webhooks/whatsapp"))
                    .header(SIGNATURE_HEADER, sign(SECRET.as_bytes(), body.as_bytes()))
                    .body(body);
                match request.send().await {
                    Ok(response) if response.status() == 200 => log.acknowledged(&format!("message {id}")),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
    }
    while set.join_next().await.is_some() {}
}

fn reply(channel: ChannelId, reply_id: &str, customer: usize) -> Reply {
    Reply {
        channel,
        to: Addressee::Customer(CustomerName::read(&format!("1650557{customer:04}")).unwrap()),
        agent: None,
        reply_id: reply_id.parse().unwrap(),
        content: RawContent(Bytes::from_static(br#"{"type":"template","template":{"name":"hello"}}"#)),
        seen: None,
        confirm: None,
    }
}

async fn replies(tcp: SocketAddr, round: usize, channel: ChannelId, log: Log) {
    let Connection { mut sender, mut receiver, .. } =
        connect(tcp, "crm", "replies", DeliverMode::None, Positions::default()).await;
    let mut asked: HashMap<u64, String> = HashMap::new();
    let mut next = 0;
    loop {
        while asked.len() < 16 {
            let id = format!("r.{round}.{next}");
            asked.insert(sender.put(&reply(channel, &id, next % CUSTOMERS).into()).unwrap(), id);
            next += 1;
        }
        if sender.flush().await.is_err() {
            return;
        }
        let Ok(message) = receiver.next().await else { return };
        if let (Some(id), ServerBody::Response(Response::Accepted(accepted))) =
            (asked.remove(&message.id), &message.body)
        {
            log.acknowledged(&format!("reply {id} {}", accepted.offset));
        }
    }
}

async fn gateway(tcp: SocketAddr, log: Log) {
    let mut connection = connect(tcp, "whatsapp", "gateway", DeliverMode::Share, Positions::default()).await;
    let mut asked: HashMap<u64, Offset> = HashMap::new();
    loop {
        let Ok(message) = connection.receiver.next().await else { return };
        match message.body {
            ServerBody::Delivery(Delivery::Send(send)) => {
                log.write(&format!("send {}", send.offset));
                let outcome = SentOutcome::Sent(MessageId::trusted(&format!("wamid.o.{}", send.offset)));
                let sent = Sent { channel: send.channel, offset: send.offset, outcome };
                asked.insert(connection.sender.put(&sent.into()).unwrap(), send.offset);
                if connection.sender.flush().await.is_err() {
                    return;
                }
            }
            ServerBody::Response(Response::Ok(_)) => {
                if let Some(offset) = asked.remove(&message.id) {
                    log.acknowledged(&format!("sent {offset}"));
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn agents(tcp: SocketAddr, channel: ChannelId, conversations: Vec<ConversationId>, log: Log) {
    let Connection { mut sender, mut receiver, .. } =
        connect(tcp, "crm", "agents", DeliverMode::None, Positions::default()).await;
    for at in 0.. {
        let conversation = conversations[at % conversations.len()];
        let agent: sharedline::domain::ids::AgentId = "ann".parse().unwrap();
        let pick_up = PickUp { channel, conversation, agent: agent.clone(), confirm: None };
        let release = Release { channel, conversation, agent, force: false, holder: None };
        let (first, second) = (sender.put(&pick_up.into()).unwrap(), sender.put(&release.into()).unwrap());
        if sender.flush().await.is_err() {
            return;
        }
        for _ in 0..2 {
            let Ok(message) = receiver.next().await else { return };
            match message.body {
                ServerBody::Response(Response::PickedUp(_)) if message.id == first => {
                    log.acknowledged(&format!("picked_up {conversation} ann"));
                }
                ServerBody::Response(Response::Ok(_)) if message.id == second => {
                    log.acknowledged(&format!("released {conversation} ann"));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Desk's adapter: writes down what it was delivered, then acknowledges it.
async fn subscriber(tcp: SocketAddr, log: Log) {
    let mut connection = connect(tcp, "desk", "subscriber", DeliverMode::Share, Positions::default()).await;
    let mut batch = Vec::new();
    loop {
        if connection.receiver.next_batch(&mut batch).await.is_err() {
            return;
        }
        let mut last = None;
        for message in batch.drain(..) {
            let ServerBody::Delivery(delivery) = message.body else { continue };
            if let (Some(identity), Some((channel, offset))) = (identity(&delivery), position(&delivery)) {
                log.write(&format!("delivered {offset} {identity}"));
                last = Some((channel, offset));
            }
        }
        if let Some((channel, offset)) = last {
            connection.sender.put(&Ack { channel, offset }.into()).unwrap();
            if connection.sender.flush().await.is_err() {
                return;
            }
        }
    }
}

// -------------------------------------------------------------------------------------------------- the checker

/// Everything that a service sees of the channel, by offset, up to a message that is written now.
async fn all_seen_by(
    tcp: SocketAddr,
    service: &str,
    channel: ChannelId,
    mark: &str,
) -> BTreeMap<Offset, String> {
    let from = Positions(vec![(channel, Offset(1))]);
    let mut watcher = connect(tcp, service, "checker", DeliverMode::Watch, from).await;
    let mut gateway = connect(tcp, "whatsapp", "mark", DeliverMode::None, Positions::default()).await;
    assert!(matches!(ask(&mut gateway, inbound(mark, 9_999)).await, Response::InboundAccepted(_)));
    let (end, mut seen) = (format!("message:{mark}"), BTreeMap::new());
    loop {
        let message =
            tokio::time::timeout(WITHIN, watcher.receiver.next()).await.expect("the mark comes").unwrap();
        let ServerBody::Delivery(delivery) = message.body else { continue };
        let (Some(identity), Some((_, offset))) = (identity(&delivery), position(&delivery)) else {
            continue;
        };
        let is_end = identity == end;
        if let Some(before) = seen.insert(offset, identity.clone()) {
            assert_eq!(before, identity, "two events at offset {offset}");
        }
        if is_end {
            return seen;
        }
    }
}

/// The second process: reads the log, asks the broker, and prints how many acknowledgements it has checked.
async fn check(log: &Path, tcp: SocketAddr, channel: ChannelId, mark: &str) -> usize {
    let by_crm = all_seen_by(tcp, "crm", channel, &format!("{mark}.c")).await;
    let by_desk = all_seen_by(tcp, "desk", channel, &format!("{mark}.d")).await;
    let identities: BTreeSet<&str> = by_crm.values().map(String::as_str).collect();
    let mut claims: BTreeMap<String, usize> = BTreeMap::new();
    for identity in by_crm.values().filter(|identity| identity.starts_with("claim:")) {
        *claims.entry(identity.clone()).or_default() += 1;
    }
    let mut acknowledged: BTreeMap<String, usize> = BTreeMap::new();
    let mut handed = BTreeSet::new();
    let mut checked = 0;
    for line in BufReader::new(File::open(log).unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        match *words.as_slice() {
            ["message", id] => {
                assert!(
                    identities.contains(format!("message:{id}").as_str()),
                    "message {id} was acknowledged and is lost"
                );
            }
            ["reply", id, offset] => {
                let at = by_crm.get(&Offset(offset.parse().unwrap()));
                assert_eq!(at, Some(&format!("reply:{id}")), "reply {id} was accepted at {offset}");
            }
            [action @ ("picked_up" | "released"), conversation, agent] => {
                *acknowledged.entry(format!("claim:{action}:{conversation}:{agent}")).or_default() += 1;
            }
            ["sent", offset] => {
                let reply = by_crm
                    .get(&Offset(offset.parse().unwrap()))
                    .and_then(|reply| reply.strip_prefix("reply:"));
                let receipt = format!("receipt:{}:sent", reply.expect("what was sent is a reply"));
                assert!(
                    identities.contains(receipt.as_str()),
                    "the sending of {offset} was acknowledged and is lost"
                );
            }
            ["send", offset] => {
                assert!(handed.insert(offset.to_owned()), "reply {offset} was handed over twice")
            }
            ["delivered", offset, identity] => {
                let now = by_desk.get(&Offset(offset.parse().unwrap()));
                assert_eq!(
                    now.map(String::as_str),
                    Some(identity),
                    "what was delivered at {offset} has changed"
                );
            }
            _ => panic!("{line}"),
        }
        checked += usize::from(!matches!(words[0], "send" | "delivered"));
    }
    for (claim, times) in acknowledged {
        assert!(
            claims.get(&claim).is_some_and(|found| *found >= times),
            "{claim} was granted {times} times: {:?}",
            claims.get(&claim)
        );
    }
    checked
}

/// Runs as the second process when the environment says so.
#[tokio::test]
async fn the_checker_of_acknowledgements() {
    let Some(arguments) = std::env::vars_os().find(|(name, _)| name == "SHAREDLINE_CHECK") else {
        // By itself it checks that it would notice: a log with an acknowledgement that never was.
        let directory = tempfile::tempdir().unwrap();
        let config = configuration(directory.path(), "os");
        let broker = serve(&config);
        let channel = prepare(broker.tcp).await.0;
        for wrong in ["message wamid.never", "reply r.never 1", "picked_up cv-0000000000000001 ann"] {
            let log = directory.path().join("log");
            fs::write(&log, format!("{wrong}\n")).unwrap();
            assert!(!run_checker(&log, broker.tcp, channel, &format!("mark.{}", wrong.len())).0, "{wrong}");
        }
        return broker.kill();
    };
    let arguments = arguments.1.into_string().unwrap();
    let words: Vec<&str> = arguments.split('|').collect();
    let checked =
        check(Path::new(words[0]), words[1].parse().unwrap(), words[2].parse().unwrap(), words[3]).await;
    println!("checked {checked}");
}

/// Whether the second process is content, and how many acknowledgements it has checked.
fn run_checker(log: &Path, tcp: SocketAddr, channel: ChannelId, mark: &str) -> (bool, usize) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_checker_of_acknowledgements", "--nocapture"])
        .env("SHAREDLINE_CHECK", format!("{}|{tcp}|{channel}|{mark}", log.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let checked = said.lines().find_map(|line| line.strip_prefix("checked ")?.parse().ok());
    if !output.status.success() {
        println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    (output.status.success() && checked.is_some(), checked.unwrap_or(0))
}

// --------------------------------------------------------------------------------------------------- the driver

async fn prepare(tcp: SocketAddr) -> (ChannelId, Vec<ConversationId>) {
    let mut channel = None;
    for service in ["crm", "desk"] {
        let mut connection = connect(tcp, service, "prepare", DeliverMode::None, Positions::default()).await;
        let create = CreateChannel { number: NUMBER.parse().unwrap(), backfill: false };
        let Response::Channel(created) = ask(&mut connection, create).await else { panic!() };
        channel = Some(created.seen.channel);
        let agents = vec![Agent { agent: "ann".parse().unwrap(), name: "Ann".into(), lead: false }];
        ask(&mut connection, Roster { agents, replace: true, remove: Vec::new() }).await;
    }
    let mut gateway = connect(tcp, "whatsapp", "prepare", DeliverMode::None, Positions::default()).await;
    for customer in 0..8 {
        ask(&mut gateway, inbound(&format!("wamid.first.{customer}"), 5_000 + customer)).await;
    }
    let mut crm = connect(tcp, "crm", "prepare", DeliverMode::None, Positions::default()).await;
    let channel = channel.unwrap();
    let list = ListConversations { channel, after: None, limit: None, claimed: None, unanswered: None };
    let Response::Conversations(found) = ask(&mut crm, list).await else { panic!() };
    (channel, found.conversations.iter().map(|entry| entry.conversation).collect())
}

fn number_of(variable: &str, default: u64) -> u64 {
    let found = std::env::vars_os().find(|(name, _)| name == variable);
    found.map_or(default, |(_, value)| value.into_string().unwrap().parse().unwrap())
}

async fn kill_again_and_again(durability: &str, kills: usize) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let (config, log_path) = (configuration(directory.path(), durability), directory.path().join("log"));
    let mut random = number_of("SHAREDLINE_SEED", now_ms());
    println!("seed {random}");
    let log = Log::at(&log_path);
    let mut broker = serve(&config);
    let (channel, conversations) = prepare(broker.tcp).await;
    let mut checked = 0;
    for round in 0..kills {
        let before = log.acknowledged.load(Ordering::Acquire);
        let mut loading = load(&broker, round, channel, &conversations, &log);
        let until = tokio::time::Instant::now() + WITHIN;
        while log.acknowledged.load(Ordering::Acquire) < before + ACKNOWLEDGEMENTS_PER_ROUND {
            assert!(tokio::time::Instant::now() < until, "round {round} gets no acknowledgements");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // A moment more, so that kills fall anywhere: xorshift, so that a seed tells them all.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        tokio::time::sleep(Duration::from_micros(random % 100_000)).await;
        broker.kill();
        while let Some(ended) = loading.join_next().await {
            ended.unwrap();
        }
        broker = serve(&config);
        let (is_content, now) = run_checker(&log_path, broker.tcp, channel, &format!("mark.{round}"));
        assert!(is_content, "after kill {round} something acknowledged is lost");
        assert!(now >= checked + ACKNOWLEDGEMENTS_PER_ROUND, "kill {round}: {now} after {checked}");
        checked = now;
    }
    finish(&broker, channel, &log, &log_path).await;
    broker.kill();
    checked
}

/// After the last kill: desk gets all that it was never delivered, and every accepted reply is sent or `unknown`.
async fn finish(broker: &Serving, channel: ChannelId, log: &Log, log_path: &Path) {
    let mut last = JoinSet::new();
    last.spawn(subscriber(broker.tcp, log.clone()));
    last.spawn(gateway(broker.tcp, log.clone()));
    let until = tokio::time::Instant::now() + WITHIN;
    for attempt in 0.. {
        let by_desk = all_seen_by(broker.tcp, "desk", channel, &format!("mark.end.{attempt}")).await;
        let by_crm = all_seen_by(broker.tcp, "crm", channel, &format!("mark.fate.{attempt}")).await;
        let text = fs::read_to_string(log_path).unwrap();
        let delivered: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("delivered ")?.split(' ').next()).collect();
        let missing =
            by_desk.keys().filter(|offset| !delivered.contains(offset.to_string().as_str())).count();
        let fates: BTreeSet<&str> = by_crm
            .values()
            .filter_map(|identity| identity.strip_prefix("receipt:")?.split(':').next())
            .collect();
        let open = by_crm
            .values()
            .filter_map(|identity| identity.strip_prefix("reply:"))
            .filter(|id| !fates.contains(id));
        let open = open.count();
        // The marks of this attempt may still be on their way.
        if missing <= 2 && open == 0 {
            return;
        }
        assert!(
            tokio::time::Instant::now() < until,
            "{missing} never reached desk, {open} replies have no fate"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_however_often_the_process_is_killed() {
    let kills = usize::try_from(number_of("SHAREDLINE_KILLS", KILLS as u64)).unwrap();
    let checked = kill_again_and_again("fsync", kills).await;
    println!("{kills} kills, {checked} acknowledgements checked");
    assert!(kills >= KILLS && checked >= ACKNOWLEDGEMENTS_MIN, "{kills} kills, {checked} acknowledgements");
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_the_operating_system_has() {
    let checked = kill_again_and_again("os", 5).await;
    assert!(checked >= 5 * ACKNOWLEDGEMENTS_PER_ROUND);
}
