//! What every test of the facade stands on: the process, a gateway over TCP, and servers that play callback URLs.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sharedline::config::TokenHash;
use sharedline::gateway::graph::choose_crypto;
use sharedline::gateway::signature::sign;
use sharedline::gateway::simulated::{Graph, Seen, Settings};
use tempfile::TempDir;

use crate::serving::Serving;

pub(crate) const NUMBER: &str = "+15550783881";
pub(crate) const ID: &str = "106540352242922";
pub(crate) const SECRET: &str = "the bot's own secret";
pub(crate) const CUSTOMER: &str = "16505551234";
pub(crate) const WAIT: Duration = Duration::from_secs(30);

/// The process, killed when the test ends.
pub(crate) struct Broker {
    process: Serving,
    pub(crate) tcp: SocketAddr,
    pub(crate) http: SocketAddr,
    config: PathBuf,
    directory: Arc<TempDir>,
}

/// The keys of a service beside its id and token: `webhook = …`.
pub(crate) type Services<'a> = &'a [(&'a str, String)];

pub(crate) fn webhook(server: &Callback) -> String {
    format!("webhook = {{ url = \"http://{}/hook\", app_secret = \"{SECRET}\" }}", server.address)
}

impl Broker {
    pub(crate) fn start(services: Services<'_>) -> Self {
        Self::start_with(services, "")
    }

    pub(crate) fn start_with(services: Services<'_>, more: &str) -> Self {
        Self::start_planned(services, more, "bundle")
    }

    pub(crate) fn start_planned(services: Services<'_>, more: &str, plan: &str) -> Self {
        Self::start_through("whatsapp", services, more, plan)
    }

    /// With the built-in gateway, which sends to this Graph API.
    pub(crate) fn start_builtin(services: Services<'_>, graph_url: &str) -> Self {
        Self::start_through("builtin", services, &format!("graph_url = \"{graph_url}\"\n"), "bundle")
    }

    fn start_through(gateway: &str, services: Services<'_>, more: &str, plan: &str) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let hash = |token: &str| TokenHash::of(token).to_string();
        let mut text = format!(
            "data_dir = {:?}\n[tcp]\nlisten = \"127.0.0.1:0\"\nack_timeout = \"2s\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
             [whatsapp]\napp_secret = \"meta's secret\"\n{more}\n[[portals]]\nid = \"acme\"\nplan = \"{plan}\"\n",
            directory.path().join("data")
        );
        for (id, keys) in services {
            let _ = writeln!(
                text,
                "[[portals.services]]\nid = \"{id}\"\ntoken_sha256 = \"{}\"\n{keys}",
                hash(id)
            );
        }
        let _ = write!(
            text,
            "[[portals.gateways]]\nid = \"whatsapp\"\ntoken_sha256 = \"{}\"\n\
             [[portals.numbers]]\nnumber = \"{NUMBER}\"\nphone_number_id = \"{ID}\"\nwaba_id = \"102290129340398\"\n\
             gateway = \"{gateway}\"\naccess_token = \"the-numbers-own-token\"\nmessages_per_second = 1000\n\
             [[portals]]\nid = \"other\"\n[[portals.services]]\nid = \"spy\"\ntoken_sha256 = \"{}\"\n",
            hash("whatsapp"),
            hash("spy"),
        );
        let config = directory.path().join("sharedline.toml");
        fs::write(&config, text).unwrap();
        Self::run(config, directory)
    }

    fn run(config: PathBuf, directory: Arc<TempDir>) -> Self {
        let log =
            fs::OpenOptions::new().create(true).append(true).open(config.with_extension("log")).unwrap();
        let process = Serving::start(&config, "trace", log);
        Self { tcp: process.tcp, http: process.http, process, config, directory }
    }

    /// Asks it to stop, waits until it has, and starts it again on the same data; gives how long it took to stop.
    pub(crate) fn stop_and_restart(mut self) -> (Self, Duration) {
        let began = Instant::now();
        assert_eq!(self.process.terminate(), 0, "{}", self.log());
        let took = began.elapsed();
        (Self::run(self.config.clone(), Arc::clone(&self.directory)), took)
    }

    /// Kills it at once, and starts it again on the same data.
    pub(crate) fn kill_and_restart(self) -> Self {
        let Self { process, config, directory, .. } = self;
        process.kill();
        Self::run(config, directory)
    }

    /// Gives a service another token, and lets the broker read its configuration anew.
    pub(crate) fn change_token(&self, before: &str, now: &str) {
        self.reload(&TokenHash::of(before).to_string(), &TokenHash::of(now).to_string());
    }

    /// Puts something else into the configuration, and lets the broker read it anew.
    pub(crate) fn reload(&self, before: &str, now: &str) {
        const DONE: &str = "the configuration is reloaded";
        let text = fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(before), "{before:?} is not in {text}");
        fs::write(&self.config, text.replace(before, now)).unwrap();
        let times = self.log().matches(DONE).count();
        self.process.signal("-HUP");
        let until = Instant::now() + WAIT;
        while self.log().matches(DONE).count() == times {
            assert!(Instant::now() < until, "{}", self.log());
            pause(10);
        }
    }

    pub(crate) fn log(&self) -> String {
        log_of(&self.config)
    }

    /// How many media lie on disk.
    pub(crate) fn media_kept(&self) -> usize {
        fs::read_dir(self.directory.path().join("data/media")).unwrap().count()
    }

    /// Posts to an edge of the number, with a service's token; gives status and body.
    pub(crate) fn post(&self, token: &str, edge: &str, body: &Value) -> (u16, Value) {
        let path = format!("/v23.0/{ID}/{edge}");
        let token = format!("Bearer {token}");
        self.request("POST", &path, &[("authorization", &token)], body.to_string().as_bytes())
    }

    pub(crate) fn post_as(&self, token: &str, key: &str, body: &Value) -> (u16, Value) {
        let path = format!("/v23.0/{ID}/messages");
        let token = format!("Bearer {token}");
        let headers = [("authorization", token.as_str()), ("idempotency-key", key)];
        self.request("POST", &path, &headers, body.to_string().as_bytes())
    }

    /// Brings a webhook of Meta's; it must be taken.
    pub(crate) fn webhook(&self, body: &Value) {
        let body = body.to_string();
        let signature = sign(b"meta's secret", body.as_bytes());
        let headers = [("x-hub-signature-256", signature.as_str())];
        let answer = http(self.http, "POST", "/webhooks/whatsapp", &headers, body.as_bytes());
        assert_eq!(answer.0, 200, "{body}");
    }

    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, Value) {
        let (status, _, body) = http(self.http, method, path, headers, body);
        let value = serde_json::from_slice(&body);
        (status, value.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned())))
    }
}

fn log_of(config: &Path) -> String {
    fs::read_to_string(config.with_extension("log")).unwrap()
}

/// One request over a connection of its own: status, head, body.
pub(crate) fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).unwrap();
    // A server that refuses may stop reading.
    let _ = stream.write_all(body);
    let (head, body) = read_message(&mut BufReader::new(stream)).expect("an answer");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, body)
}

/// A head and its body, of a request or an answer; nothing where the connection ends.
pub(crate) fn read_message(from: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let mut body = Vec::new();
    if let Some(length) = header("content-length") {
        body.resize(length.parse().ok()?, 0);
        from.read_exact(&mut body).ok()?;
    } else if header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            from.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            from.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    Some((head, body))
}

// ------------------------------------------------------------------------------------------------ connections over TCP

/// A connection that speaks JSON lines.
pub(crate) struct Lines {
    stream: BufReader<TcpStream>,
    next_id: u64,
    /// What came while an answer was waited for.
    kept: VecDeque<Value>,
}

impl Lines {
    pub(crate) fn service(broker: &Broker, id: &str) -> Self {
        let hello = json!({ "service": id, "token": id, "adapter": "test", "deliver": "watch" });
        Self::open(broker, hello)
    }

    /// A gateway's connection that only brings things.
    pub(crate) fn bringer(broker: &Broker) -> Self {
        Self::open(broker, json!({ "gateway": "whatsapp", "token": "whatsapp", "deliver": "none" }))
    }

    fn open(broker: &Broker, mut hello: Value) -> Self {
        let stream = TcpStream::connect(broker.tcp).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let mut lines = Self { stream: BufReader::new(stream), next_id: 0, kept: VecDeque::new() };
        for (key, value) in [("type", json!("hello")), ("version", json!(1)), ("portal", json!("acme"))] {
            hello[key] = value;
        }
        let welcome = lines.ask(hello);
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        lines
    }

    pub(crate) fn write(&mut self, value: &Value) {
        self.stream.get_mut().write_all(format!("{value}\n").as_bytes()).unwrap();
    }

    pub(crate) fn next(&mut self) -> Option<Value> {
        self.kept.pop_front().or_else(|| self.read())
    }

    fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        (self.stream.read_line(&mut line).ok()? > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    pub(crate) fn ask(&mut self, mut request: Value) -> Value {
        self.next_id += 1;
        request["id"] = json!(self.next_id);
        self.write(&request);
        loop {
            let said = self.read().expect("an answer");
            if said["id"] == json!(self.next_id) {
                return said;
            }
            self.kept.push_back(said);
        }
    }

    pub(crate) fn create(&mut self) -> String {
        let channel = self.ask(json!({ "type": "create_channel", "number": NUMBER, "backfill": false }));
        assert_eq!(channel["type"], "channel", "{channel}");
        channel["channel"].as_str().unwrap().to_owned()
    }

    pub(crate) fn subscribers(&mut self, channel: &str) -> Vec<String> {
        let seen = self.ask(json!({ "type": "get_channel", "channel": channel }));
        seen["subscribers"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    /// Waits until so many services are in the channel.
    pub(crate) fn until_joined(&mut self, channel: &str, services: usize) {
        let until = Instant::now() + WAIT;
        while self.subscribers(channel).len() < services {
            assert!(Instant::now() < until, "somebody has not joined");
            pause(20);
        }
    }

    /// Reads deliveries until one is of that type.
    pub(crate) fn delivered(&mut self, kind: &str) -> Value {
        loop {
            let said = self.next().expect("a delivery");
            if said["type"] == kind {
                return said;
            }
        }
    }

    pub(crate) fn inbound(&mut self, message_id: &str, from: &str, content: Value) {
        self.inbound_at(message_id, from, content, now_ms());
    }

    pub(crate) fn inbound_at(&mut self, message_id: &str, from: &str, content: Value, at: u64) {
        let refers_to = content["context"]["id"].clone();
        let taken = self.ask(json!({
            "type": "inbound", "number": NUMBER, "message_id": message_id, "at": at, "content": content,
            "customer": { "id": from, "name": "Pablo" }, "refers_to": refers_to,
        }));
        assert_eq!((&taken["type"], &taken["channels"]), (&json!("accepted"), &json!(1)), "{taken}");
    }

    pub(crate) fn text(&mut self, message_id: &str, from: &str, text: &str) {
        self.inbound(message_id, from, json!({ "type": "text", "text": { "body": text } }));
    }

    pub(crate) fn status(&mut self, message_id: &str, status: &str) {
        let told = self.ask(json!({
            "type": "status", "number": NUMBER, "message_id": message_id, "status": status, "at": now_ms(),
        }));
        assert_eq!(told["type"], "ok", "{told}");
    }
}

/// Waits without doing anything.
#[expect(clippy::disallowed_methods, reason = "a test's own thread, which stops nobody")]
pub(crate) fn pause(for_ms: u64) {
    thread::sleep(Duration::from_millis(for_ms));
}

pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// What the gateway does with a reply: what it says became of it, or nothing at all.
pub(crate) type Script = fn(&Value) -> Option<Value>;

/// It is sent, under an id that says which reply it was.
pub(crate) fn sent(send: &Value) -> Option<Value> {
    Some(json!({ "message_id": format!("wamid.{}", send["reply_id"].as_str().unwrap()) }))
}

/// A gateway over TCP, and what it was handed.
pub(crate) struct Gateway {
    sends: Arc<Mutex<Vec<Value>>>,
    stream: TcpStream,
}

impl Gateway {
    pub(crate) fn start(broker: &Broker, script: Script) -> Self {
        let mut lines = Lines::open(broker, json!({ "gateway": "whatsapp", "token": "whatsapp" }));
        let stream = lines.stream.get_ref().try_clone().unwrap();
        stream.set_read_timeout(None).unwrap();
        let sends = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sends);
        thread::spawn(move || {
            let mut id = 1_000;
            while let Some(said) = lines.next() {
                if said["type"] == "send" {
                    seen.lock().unwrap().push(said.clone());
                    if let Some(mut answer) = script(&said) {
                        id += 1;
                        answer["type"] = json!("sent");
                        answer["id"] = json!(id);
                        answer["channel"] = said["channel"].clone();
                        answer["offset"] = said["offset"].clone();
                        lines.write(&answer);
                    }
                }
            }
        });
        Self { sends, stream }
    }

    pub(crate) fn sends(&self) -> Vec<Value> {
        self.sends.lock().unwrap().clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

// ------------------------------------------------------------------------------------------------------------ WhatsApp

/// The simulated Graph API, on a thread of its own that ends with it.
pub(crate) struct WhatsApp {
    pub(crate) graph: Graph,
    _alive: tokio::sync::oneshot::Sender<()>,
}

impl WhatsApp {
    pub(crate) fn start() -> Self {
        choose_crypto();
        let settings =
            Settings { phone_number_id: ID.to_owned(), access_token: "the-numbers-own-token".to_owned() };
        let (started, graph) = mpsc::channel();
        let (alive, ended) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || {
            runtime.block_on(async {
                started.send(Graph::start(0, settings).await.unwrap()).unwrap();
                let _: Result<(), _> = ended.await;
            });
        });
        Self { graph: graph.recv().unwrap(), _alive: alive }
    }

    /// What it has seen, once there are so many messages.
    pub(crate) fn seen(&self, count: usize) -> Vec<Seen> {
        let until = Instant::now() + WAIT;
        while self.graph.seen().len() < count {
            assert!(Instant::now() < until, "{count} messages were to come: {:?}", self.graph.seen());
            pause(5);
        }
        self.graph.seen()
    }
}

// --------------------------------------------------------------------------------------------------- callback servers

/// One POST that a callback URL got.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// What it was answered.
    pub(crate) answered: u16,
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The one change that it tells.
    pub(crate) fn change(&self) -> Value {
        let value = self.json();
        assert_eq!(value["object"], "whatsapp_business_account");
        assert_eq!(value["entry"].as_array().unwrap().len(), 1);
        let changes = value["entry"][0]["changes"].as_array().unwrap();
        assert_eq!(changes.len(), 1, "one update a POST");
        changes[0].clone()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

/// What the server answers to a body; `0` is never.
pub(crate) type Answers = dyn Fn(&Value) -> u16 + Send + Sync;

/// A real HTTP server that plays a service's callback URL.
pub(crate) struct Callback {
    pub(crate) address: SocketAddr,
    told: Arc<(Mutex<Vec<Told>>, Condvar)>,
    answers: Arc<Mutex<Arc<Answers>>>,
    closed: mpsc::Sender<()>,
}

impl Callback {
    pub(crate) fn start(answers: impl Fn(&Value) -> u16 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let answers: Arc<Mutex<Arc<Answers>>> = Arc::new(Mutex::new(Arc::new(answers)));
        let (closed, _) = mpsc::channel();
        let (log, script) = (Arc::clone(&told), Arc::clone(&answers));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                thread::spawn(move || serve(stream, &log, &script));
            }
        });
        Self { address, told, answers, closed }
    }

    pub(crate) fn answer_with(&self, answers: impl Fn(&Value) -> u16 + Send + Sync + 'static) {
        *self.answers.lock().unwrap() = Arc::new(answers);
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.0.lock().unwrap().clone()
    }

    /// Waits until what was told holds, and gives it.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&[Told]) -> bool) -> Vec<Told> {
        let until = Instant::now() + WAIT;
        let mut told = self.told.0.lock().unwrap();
        while !holds(&told) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{what} did not come: {:?}",
                told.iter().map(Told::json).collect::<Vec<_>>()
            );
            told = self.told.1.wait_timeout(told, left).unwrap().0;
        }
        told.clone()
    }

    /// Waits for so many POSTs that were answered 200, and gives their changes.
    pub(crate) fn taken(&self, count: usize) -> Vec<Value> {
        let is_taken = |told: &&Told| told.answered == 200;
        let told = self.until("enough", |told| told.iter().filter(is_taken).count() >= count);
        told.iter().filter(is_taken).map(Told::change).collect()
    }
}

fn serve(stream: TcpStream, log: &(Mutex<Vec<Told>>, Condvar), script: &Mutex<Arc<Answers>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some((head, body)) = read_message(&mut reader) {
        let answers = Arc::clone(&script.lock().unwrap());
        let answered = answers(&serde_json::from_slice(&body).unwrap());
        log.0.lock().unwrap().push(Told { head, body, answered });
        log.1.notify_all();
        if answered == 0 {
            // Never: the connection stays open and says nothing.
            let _ = reader.read(&mut [0; 1]);
            return;
        }
        let answer = format!("HTTP/1.1 {answered} x\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// How often each body was told.
pub(crate) fn by_body(told: &[Told]) -> HashMap<Vec<u8>, usize> {
    let mut counts = HashMap::new();
    for told in told {
        *counts.entry(told.body.clone()).or_insert(0) += 1;
    }
    counts
}

static UNIQUE: AtomicU64 = AtomicU64::new(1);

/// A number that no other part of the test has.
pub(crate) fn unique() -> u64 {
    UNIQUE.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn text_to(to: &str, body: &str) -> Value {
    json!({
        "messaging_product": "whatsapp", "recipient_type": "individual", "to": to, "type": "text",
        "text": { "body": body, "preview_url": false },
    })
}
