//! Meta's webhooks over real sockets: what is signed comes in whole and byte for byte, what is not leaves no trace.
//!
//! The broker behind it is a recording [`Intake`], so that a test sees exactly what was submitted, and can hold the
//! answer back to see that 200 waits for it. `payloads/` holds one webhook a file, in the shapes that Meta documents;
//! what is expected of each is worked out from the file by a reader of its own (`serde_json::Value`), not by the code
//! under test.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail as its test does"
)]

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::Value;
use sharedline::domain::command::StatusOf;
use sharedline::domain::content::{CARRIED_BYTES_MAX, CONTACT_BYTES_MAX};
use sharedline::domain::event::Status;
use sharedline::domain::ids::{ChannelId, Offset};
use sharedline::gateway::intent::Intent;
use sharedline::gateway::numbers::{Numbers, WebhookNumber};
use sharedline::gateway::signature::sign;
use sharedline::gateway::translate::{LeftOut, Part, Reason, translate};
use sharedline::gateway::webhook::{BODIES_BYTES_MAX, BODY_BYTES_MAX, Patience, Settings, Webhook, routes};
use sharedline::gateway::{Fate, Intake, News, Route, Unavailable, Update};
use sharedline::net::http::{Check, Health, Limits, Server, run};
use tokio::sync::watch;

const SECRET: &[u8] = b"the app's secret";
const OWN_SECRET: &[u8] = b"another app's secret";
const VERIFY_TOKEN: &str = "a token of ours";
const NUMBER: &str = "+15550783881";
const PHONE_NUMBER_ID: &str = "106540352242922";
const ACCOUNT: &str = "215589313241560883";
const OWN_NUMBER: &str = "+15550783999";
const OWN_PHONE_NUMBER_ID: &str = "106540352242999";
/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

// ---------------------------------------------------------------------------------------------- the broker's stand-in

/// What the recording broker does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Records,
    Holds,
    IsHalted,
    HasNoChannel,
}

struct Recorder {
    updates: Mutex<Vec<Update>>,
    mood: watch::Sender<Mood>,
}

impl Recorder {
    fn new() -> Arc<Self> {
        Arc::new(Self { updates: Mutex::new(Vec::new()), mood: watch::channel(Mood::Records).0 })
    }

    fn taken(&self) -> Vec<Update> {
        self.updates.lock().unwrap().clone()
    }
}

struct Port(Arc<Recorder>);

impl Intake for Port {
    async fn take(&self, updates: Vec<Update>) -> Result<Vec<Fate>, Unavailable> {
        let many = updates.len();
        self.0.updates.lock().unwrap().extend(updates);
        let mut mood = self.0.mood.subscribe();
        let mood = *mood.wait_for(|mood| *mood != Mood::Holds).await.unwrap();
        match mood {
            Mood::IsHalted => Err(Unavailable),
            Mood::HasNoChannel => Ok(vec![Fate::Nowhere; many]),
            _ => Ok(vec![Fate::Recorded; many]),
        }
    }
}

impl Health for Recorder {
    async fn checks(&self) -> Vec<Check> {
        let halted = *self.mood.borrow() == Mood::IsHalted;
        vec![
            Check { name: "broker", failing: None },
            Check { name: "journal", failing: halted.then(|| "the disk is full".to_owned()) },
        ]
    }
}

struct Stand {
    server: Server,
    hook: Arc<Webhook<Port>>,
    recorder: Arc<Recorder>,
}

fn numbers() -> Numbers {
    let number = |number: &str, id: &str, secret: Option<&[u8]>| WebhookNumber {
        to: Route { portal: "acme".parse().unwrap(), number: number.parse().unwrap() },
        phone_number_id: Some(id.to_owned()),
        waba_id: Some(ACCOUNT.to_owned()),
        app_secret: secret.map(<[u8]>::to_vec),
    };
    Numbers::new(
        Some(SECRET),
        [number(NUMBER, PHONE_NUMBER_ID, None), number(OWN_NUMBER, OWN_PHONE_NUMBER_ID, Some(OWN_SECRET))],
    )
}

fn settings() -> Settings {
    Settings { numbers: numbers(), verify_token: Some(VERIFY_TOKEN.to_owned()) }
}

fn stand() -> Stand {
    stand_with(Patience::default(), Limits::default())
}

fn stand_with(patience: Patience, limits: Limits) -> Stand {
    let recorder = Recorder::new();
    let hook = Webhook::new(Port(Arc::clone(&recorder)), settings(), patience);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = run(listener, limits, Arc::clone(&recorder), routes(Arc::clone(&hook))).unwrap();
    Stand { server, hook, recorder }
}

impl Stand {
    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn count(&self, name: &str) -> u64 {
        self.hook.counters().all().find(|(counter, _)| *counter == name).expect(name).1
    }

    fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let length = body.len().to_string();
        let mut all = vec![("content-length", length.as_str())];
        all.extend_from_slice(headers);
        request(self.address(), "POST", "/webhooks/whatsapp", &all, body)
    }

    fn post_signed(&self, body: &[u8]) -> Answer {
        self.post(&[("x-hub-signature-256", &sign(SECRET, body))], body)
    }

    fn get(&self, path: &str) -> Answer {
        request(self.address(), "GET", path, &[], b"")
    }
}

// --------------------------------------------------------------------------------------------------- HTTP by hand

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn connect(address: SocketAddr) -> TcpStream {
    connect_from(1, address)
}

/// From another address of this machine's loopback net.
fn connect_from(last: u8, address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = connect(address);
    stream.write_all(head(method, path, headers).as_bytes()).unwrap();
    // Who is refused early sees his connection closed under his hands; the answer is there all the same.
    let _ = stream.write_all(body);
    answer(&mut stream)
}

fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head
}

/// What the server says until it closes the connection, which it must within [`PATIENCE`].
fn answer(stream: &mut TcpStream) -> Answer {
    let text = read_to_close(stream);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn read_to_close(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut some = [0; 4096];
    loop {
        match stream.read(&mut some) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&some[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the connection was not closed: {error}"),
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come to hold");
        std::thread::yield_now();
    }
}

// ------------------------------------------------------------------------------------------------------ payloads

fn payload(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/payloads").join(format!("{name}.json"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn payload_names() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/payloads");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// The values under `field: messages` of a webhook.
fn values(webhook: &Value) -> Vec<&Value> {
    let entries = webhook["entry"].as_array().unwrap().iter();
    let changes = entries.filter_map(|entry| entry["changes"].as_array()).flatten();
    changes.filter(|change| change["field"] == "messages").map(|change| &change["value"]).collect()
}

fn array<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn content_of(update: &Update) -> Value {
    match &update.news {
        News::Message(message) => serde_json::from_slice(message.message.content.expose()).unwrap(),
        News::Notice { content, .. } => serde_json::from_slice(content.expose()).unwrap(),
        News::Echo(echo) => serde_json::from_slice(echo.content.expose()).unwrap(),
        News::Status(_) | News::OfReply { .. } => panic!("a status has no content"),
    }
}

#[test]
fn every_type_of_message_that_meta_documents_comes_in_whole() {
    let stand = stand();
    let mut kinds = BTreeSet::new();
    for name in payload_names().iter().filter(|name| *name != "batch") {
        let body = payload(name);
        let webhook: Value = serde_json::from_slice(&body).unwrap();
        for value in values(&webhook) {
            for message in array(value, "messages") {
                let before = stand.recorder.taken().len();
                assert_eq!(stand.post_signed(&body).status, 200, "{name}");
                let taken = stand.recorder.taken();
                assert_eq!(taken.len(), before + 1, "{name}");
                let update = taken.last().unwrap();
                assert_eq!(update.to.number.as_str(), NUMBER);
                let News::Message(inbound) = &update.news else { panic!("{name} is no message") };

                let mut expected = message.clone();
                let fields = expected.as_object_mut().unwrap();
                assert_eq!(
                    Value::from(inbound.message.message_id.as_str()),
                    fields.remove("id").unwrap(),
                    "{name}"
                );
                let seconds = fields.remove("timestamp").unwrap().as_str().unwrap().parse::<u64>().unwrap();
                assert_eq!(inbound.message.sent_at.0, seconds * 1000, "{name}");
                fields.remove("from");
                fields.remove("from_user_id");
                assert_eq!(content_of(update), expected, "{name}");
                assert_eq!(inbound.message.content.kind(), message["type"].as_str().unwrap(), "{name}");
                let context = message["context"]["id"].as_str();
                assert_eq!(
                    inbound.message.refers_to.as_ref().map(|id| id.as_str()),
                    context.or(refers_to(message)),
                    "{name}"
                );

                if let Some(contact) = array(value, "contacts").first() {
                    assert_eq!(
                        inbound.message.customer.name.as_deref(),
                        contact["profile"]["name"].as_str(),
                        "{name}"
                    );
                    assert_eq!(
                        inbound.message.customer.wa_id.as_ref().map(|id| id.as_str()),
                        contact["wa_id"].as_str()
                    );
                    assert_eq!(
                        inbound.message.customer.user_id.as_ref().map(|id| id.as_str()),
                        contact["user_id"].as_str()
                    );
                    assert!(inbound.message.formerly.is_empty(), "{name}");
                }
                kinds.insert(message["type"].as_str().unwrap().to_owned());
            }
        }
    }
    let documented = [
        "audio",
        "button",
        "contacts",
        "document",
        "edit",
        "hologram",
        "image",
        "interactive",
        "location",
        "order",
        "reaction",
        "request_welcome",
        "revoke",
        "sticker",
        "system",
        "text",
        "unsupported",
        "video",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), documented);
    assert_eq!(stand.count("malformed") + stand.count("refused"), 0);
}

/// What a message without `context` refers to.
fn refers_to(message: &Value) -> Option<&str> {
    match message["type"].as_str()? {
        "reaction" => message["reaction"]["message_id"].as_str(),
        kind @ ("edit" | "revoke") => message[kind]["original_message_id"].as_str(),
        _ => None,
    }
}

#[test]
fn a_customer_is_known_by_all_names_that_come_together() {
    let stand = stand();
    let customer_of = |name: &str| {
        assert_eq!(stand.post_signed(&payload(name)).status, 200);
        match stand.recorder.taken().pop().unwrap().news {
            News::Message(inbound) => inbound,
            other => panic!("{other:?}"),
        }
    };
    let phone = customer_of("text").message.customer;
    assert_eq!(phone.id().unwrap().as_str(), "12025550173");
    assert_eq!(phone.user_id, None);
    let both = customer_of("text_with_user_id").message.customer;
    assert_eq!(both.user_id.unwrap().as_str(), "US.24070915863320114477");
    assert_eq!(both.wa_id.unwrap().as_str(), "12025550173");
    let hidden = customer_of("text_user_id_only").message.customer;
    assert_eq!(hidden.id().unwrap().as_str(), "US.24070915863320114477");
    assert_eq!(hidden.wa_id, None);
}

#[test]
fn a_change_of_number_or_user_id_says_who_the_customer_was() {
    let stand = stand();
    let names_of = |name: &str| {
        assert_eq!(stand.post_signed(&payload(name)).status, 200);
        let News::Message(inbound) = stand.recorder.taken().pop().unwrap().news else { panic!("no message") };
        let text = |name: &Option<sharedline::domain::ids::CustomerName>| {
            name.as_ref().map(|n| n.as_str().to_owned())
        };
        let formerly: Vec<String> =
            inbound.message.formerly.iter().map(|name| name.as_str().to_owned()).collect();
        (text(&inbound.message.customer.wa_id), text(&inbound.message.customer.user_id), formerly)
    };
    assert_eq!(
        names_of("system_user_changed_number"),
        (Some("12025550199".to_owned()), None, vec!["12025550173".to_owned()])
    );
    assert_eq!(
        names_of("system_user_changed_user_id"),
        (
            Some("12025550199".to_owned()),
            Some("US.55500011122233344455".to_owned()),
            vec!["12025550173".to_owned(), "US.24070915863320114477".to_owned()]
        )
    );
}

#[test]
fn every_status_comes_in_with_its_error() {
    let stand = stand();
    let kinds = [
        ("status_sent", Status::Sent),
        ("status_delivered", Status::Delivered),
        ("status_read", Status::Read),
        ("status_played", Status::Played),
        ("status_failed", Status::Failed),
    ];
    for (name, expected) in kinds {
        let body = payload(name);
        assert_eq!(stand.post_signed(&body).status, 200);
        let webhook: Value = serde_json::from_slice(&body).unwrap();
        let raw = &values(&webhook)[0]["statuses"][0];
        let News::Status(status) = stand.recorder.taken().pop().unwrap().news else { panic!("{name}") };
        assert_eq!(status.status, expected);
        assert!(matches!(&status.of, StatusOf::Message(id) if id.as_str() == raw["id"].as_str().unwrap()));
        assert_eq!((status.status_at.0 / 1000).to_string(), raw["timestamp"].as_str().unwrap());
        let error = &raw["errors"][0];
        assert_eq!(
            status.error.as_ref().map(|error| error.code.to_string()),
            error["code"].as_u64().map(|code| code.to_string())
        );
        let (title, details) = status.error.map_or((None, None), |error| (error.title, error.details));
        assert_eq!(title.as_deref(), error["title"].as_str());
        assert_eq!(details.as_deref(), error["error_data"]["details"].as_str());
    }
    assert_eq!(stand.count("statuses"), 5);
}

#[test]
fn other_changes_are_notices_for_the_number_that_they_name() {
    let stand = stand();
    let cases = [
        ("notice_account_errors", "messages"),
        ("notice_quality", "phone_number_quality_update"),
        ("notice_user_preferences", "user_preferences"),
        ("notice_history", "history"),
        ("notice_app_state", "smb_app_state_sync"),
        ("notice_handover", "messaging_handovers"),
        ("notice_standby", "standby"),
    ];
    for (name, expected) in cases {
        let body = payload(name);
        assert_eq!(stand.post_signed(&body).status, 200);
        let update = stand.recorder.taken().pop().unwrap();
        let News::Notice { field, .. } = &update.news else { panic!("{name}") };
        assert_eq!(&**field, expected);
        let webhook: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(content_of(&update), webhook["entry"][0]["changes"][0]["value"], "{name}");
    }
}

#[test]
fn changes_of_an_account_are_notices_for_each_number_of_it_that_who_signed_speaks_for() {
    let stand = stand();
    let names = payload_names();
    let of_account: Vec<&String> = names.iter().filter(|name| name.starts_with("account_")).collect();
    assert!(of_account.len() > 5);
    for name in of_account {
        let body = payload(name);
        for (secret, number) in [(SECRET, NUMBER), (OWN_SECRET, OWN_NUMBER)] {
            let before = stand.recorder.taken().len();
            assert_eq!(stand.post(&[("x-hub-signature-256", &sign(secret, &body))], &body).status, 200);
            let taken = stand.recorder.taken();
            assert_eq!(taken.len(), before + 1, "{name}");
            assert_eq!(taken[before].to.number.as_str(), number, "{name}");
            let webhook: Value = serde_json::from_slice(&body).unwrap();
            let change = &webhook["entry"][0]["changes"][0];
            assert_eq!(content_of(&taken[before]), change["value"], "{name}");
            let News::Notice { field, .. } = &taken[before].news else { panic!("{name}") };
            assert_eq!(&**field, change["field"], "{name}");
        }
    }
    let before = stand.recorder.taken().len();
    let foreign =
        String::from_utf8(payload("account_template_status")).unwrap().replace(ACCOUNT, "215589313241560000");
    assert_eq!(stand.post_signed(foreign.as_bytes()).status, 200);
    assert_eq!((stand.recorder.taken().len(), stand.count("unknown_number")), (before, 1));
}

#[test]
fn what_was_written_on_the_phone_comes_in_with_whom_it_went_to() {
    let stand = stand();
    assert_eq!(stand.post_signed(&payload("smb_echo")).status, 200);
    let update = stand.recorder.taken().pop().unwrap();
    let News::Echo(echo) = &update.news else { panic!("{update:?}") };
    assert_eq!(echo.message_id.as_str(), "wamid.HBgLMTIwMjU1NTAxNzMVAgASGBQzQUI0028QUZGRUVE");
    assert_eq!(echo.to.wa_id.as_ref().map(|name| name.as_str()), Some("12025550173"));
    let content = serde_json::json!({"type": "text", "text": {"body": "Written on the phone"}});
    assert_eq!(content_of(&update), content, "nothing that addresses it");
    let written = serde_json::from_slice::<Value>(&payload("smb_echo")).unwrap();
    let seconds = &written["entry"][0]["changes"][0]["value"]["message_echoes"][0]["timestamp"];
    let sent_at = echo.sent_at.map(|at| (at.0 / 1_000).to_string());
    assert_eq!(sent_at.as_deref(), seconds.as_str(), "when it was written");
    assert_eq!(stand.count("echoes"), 1);
    assert!(stand.hook.counters().updates().contains(&("echo", 1)), "and the metrics show it");
    // By his user id, and nobody at all.
    let mut webhook: Value = serde_json::from_slice(&payload("smb_echo")).unwrap();
    let to =
        webhook.pointer_mut("/entry/0/changes/0/value/message_echoes/0").unwrap().as_object_mut().unwrap();
    to.remove("to");
    assert_eq!(stand.post_signed(webhook.to_string().as_bytes()).status, 200);
    assert_eq!(stand.count("malformed"), 1);
    let to =
        webhook.pointer_mut("/entry/0/changes/0/value/message_echoes/0").unwrap().as_object_mut().unwrap();
    to.remove("timestamp");
    to.insert("to_user_id".to_owned(), "US.24070915863320114477".into());
    assert_eq!(stand.post_signed(webhook.to_string().as_bytes()).status, 200);
    let News::Echo(echo) = stand.recorder.taken().pop().unwrap().news else { panic!("no echo") };
    assert_eq!(echo.to.user_id.as_ref().map(|name| name.as_str()), Some("US.24070915863320114477"));
    assert_eq!(echo.sent_at, None, "one that says not when is taken");
}

#[test]
fn a_status_that_brings_our_callback_data_names_the_reply_and_others_data_is_nobodys() {
    let stand = stand();
    let intent = Intent { channel: ChannelId(7), reply: Offset(9) };
    for (data, is_ours) in [(intent.to_callback_data(), true), ("a service's own".to_owned(), false)] {
        let mut webhook: Value = serde_json::from_slice(&payload("status_delivered")).unwrap();
        let status = webhook.pointer_mut("/entry/0/changes/0/value/statuses/0").unwrap();
        status.as_object_mut().unwrap().insert("biz_opaque_callback_data".to_owned(), data.clone().into());
        let id = status["id"].as_str().unwrap().to_owned();
        assert_eq!(stand.post_signed(webhook.to_string().as_bytes()).status, 200);
        let news = stand.recorder.taken().pop().unwrap().news;
        assert!(!format!("{news:?}").contains(&data), "it goes no further");
        match news {
            News::OfReply { intent: read, message_id, status } if is_ours => {
                assert_eq!((read, message_id.as_str()), (intent, id.as_str()));
                assert_eq!(status.status, Status::Delivered);
            }
            News::Status(status) if !is_ours => assert_eq!(status.status, Status::Delivered),
            other => panic!("{data}: {other:?}"),
        }
    }
}

#[test]
fn one_wrong_update_costs_only_itself() {
    let stand = stand();
    assert_eq!(stand.post_signed(&payload("batch")).status, 200);
    let taken = stand.recorder.taken();
    let texts: Vec<String> = taken
        .iter()
        .filter(|update| matches!(update.news, News::Message(_)))
        .map(|update| content_of(update)["text"]["body"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts, ["first", "second", "third", "fourth"]);
    let News::Message(second) = &taken[1].news else { panic!("order") };
    assert_eq!(second.message.customer.name.as_deref(), Some("Bo Lindqvist"));
    assert_eq!(second.message.customer.id().unwrap().as_str(), "46700000001");
    let statuses: Vec<Status> = taken
        .iter()
        .filter_map(|update| match &update.news {
            News::Status(status) => Some(status.status),
            _ => None,
        })
        .collect();
    assert_eq!(statuses, [Status::Sent, Status::Read]);
    // A message without id, one that is no object, a change without value, an entry without changes.
    assert_eq!(stand.count("malformed"), 4);
    assert_eq!((stand.count("unsupported"), stand.count("unknown_number")), (1, 1));
    assert_eq!(stand.count("taken"), 1);
}

#[test]
fn content_is_the_message_byte_for_byte_without_the_envelope() {
    let stand = stand();
    let body = br#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages","value":
      {"messaging_product":"whatsapp","metadata":{"phone_number_id":"106540352242922"},"contacts":[],"messages":[
      {"errors": [ ] , "from":"12025550173","text":{"body":"caf\u00e9 \/ \ud83d\udc4b" , "n":1.50e+3},"id":"wamid.1",
       "unkn\u006fwn":[-0.0,12345678901234567890123],"timestamp":1790000000,"type":"text"}]}}]}]}"#;
    assert_eq!(stand.post_signed(body).status, 200);
    let News::Message(message) = stand.recorder.taken().pop().unwrap().news else { panic!("no message") };
    let content = std::str::from_utf8(message.message.content.expose()).unwrap();
    let expected = r#"{"errors":[ ],"text":{"body":"caf\u00e9 \/ \ud83d\udc4b" , "n":1.50e+3},"unkn\u006fwn":[-0.0,12345678901234567890123],"type":"text"}"#;
    assert_eq!(content, expected);
    assert_eq!(message.message.sent_at.0, 1_790_000_000_000);
}

/// A JSON value without white space outside strings, in some spelling that a re-serialiser would change.
fn raw_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        "\"([a-zA-Z0-9 ä€😀/]|\\\\u00[0-7][0-9a-f]|\\\\/|\\\\n|\\\\\"){0,12}\"",
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec(("[a-z]{1,6}", inner), 0..4).prop_map(|all| {
                let fields: Vec<String> =
                    all.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn whatever_keys_a_message_has_all_but_the_envelope_survive(
        before in prop::collection::vec(("x[a-zA-Z_ é]{0,8}", raw_json()), 0..5),
        after in prop::collection::vec(("y[a-zA-Z_ é]{0,8}", raw_json()), 0..5),
    ) {
        let join = |fields: &[(String, String)]| -> Vec<String> {
            fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect()
        };
        let mut kept = join(&before);
        kept.push("\"type\":\"text\"".to_owned());
        kept.extend(join(&after));
        let mut all = join(&before);
        all.push("\"id\":\"wamid.7\",\"type\":\"text\",\"from\":\"12025550173\"".to_owned());
        all.extend(join(&after));
        all.push("\"from_user_id\":\"US.1\",\"timestamp\":\"1790000000\"".to_owned());
        let body = format!(
            "{{\"object\":\"whatsapp_business_account\",\"entry\":[{{\"changes\":[{{\"field\":\"messages\",\"value\":\
             {{\"metadata\":{{\"phone_number_id\":\"{PHONE_NUMBER_ID}\"}},\"messages\":[{{{}}}]}}}}]}}]}}",
            all.join(",")
        );
        let numbers = numbers();
        let signature = sign(SECRET, body.as_bytes());
        let matched = numbers.secrets().check(Some(signature.as_bytes()), body.as_bytes()).unwrap();
        let mut updates = translate(body.as_bytes(), &numbers, &matched).unwrap();
        prop_assert_eq!(updates.len(), 1);
        let update = updates.pop().unwrap().unwrap();
        let News::Message(message) = update.news else { panic!("no message") };
        let content = std::str::from_utf8(message.message.content.expose()).unwrap();
        prop_assert_eq!(content, format!("{{{}}}", kept.join(",")));
    }
}

// ------------------------------------------------------------------------------------------------------ signatures

#[test]
fn what_is_not_signed_right_is_401_and_leaves_nothing() {
    let stand = stand();
    let body = payload("text");
    let right = sign(SECRET, &body);
    let hex = right.strip_prefix("sha256=").unwrap().to_owned();
    let again = serde_json::to_vec(&serde_json::from_slice::<Value>(&body).unwrap()).unwrap();
    let mut flipped = body.clone();
    *flipped.iter_mut().rfind(|byte| **byte == b'?').unwrap() = b'!';
    type Case<'c> = (&'c str, Vec<(&'c str, String)>, &'c [u8]);
    let wrong: Vec<Case<'_>> = vec![
        ("missing", vec![], &body),
        ("empty", vec![("x-hub-signature-256", String::new())], &body),
        ("of another secret", vec![("x-hub-signature-256", sign(b"guess", &body))], &body),
        ("upper-case digits", vec![("x-hub-signature-256", format!("sha256={}", hex.to_uppercase()))], &body),
        ("upper-case scheme", vec![("x-hub-signature-256", format!("SHA256={hex}"))], &body),
        ("without scheme", vec![("x-hub-signature-256", hex.clone())], &body),
        ("truncated", vec![("x-hub-signature-256", right[..right.len() - 2].to_owned())], &body),
        ("too long", vec![("x-hub-signature-256", format!("{right}00"))], &body),
        ("sha1 in its place", vec![("x-hub-signature-256", format!("sha1={}", &hex[..40]))], &body),
        ("sha1 header only", vec![("x-hub-signature", format!("sha1={}", &hex[..40]))], &body),
        (
            "twice",
            vec![("x-hub-signature-256", right.clone()), ("x-hub-signature-256", right.clone())],
            &body,
        ),
        ("over the same JSON written anew", vec![("x-hub-signature-256", sign(SECRET, &again))], &body),
        ("of the original over JSON written anew", vec![("x-hub-signature-256", right.clone())], &again),
        ("with one byte changed", vec![("x-hub-signature-256", right.clone())], &flipped),
        ("with nothing in it", vec![("x-hub-signature-256", right.clone())], b""),
    ];
    for (what, headers, sent) in &wrong {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = stand.post(&headers, sent);
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
    }
    assert_eq!(stand.recorder.taken().len(), 0);
    assert_eq!(stand.count("unsigned"), wrong.len() as u64);
    assert_eq!(stand.post(&[("x-hub-signature-256", &right)], &body).status, 200);
    assert_eq!(stand.recorder.taken().len(), 1);
}

#[test]
fn a_number_believes_only_its_own_secret() {
    let stand = stand();
    let own = String::from_utf8(payload("text")).unwrap().replace(PHONE_NUMBER_ID, OWN_PHONE_NUMBER_ID);
    assert_eq!(stand.post_signed(own.as_bytes()).status, 200);
    assert_eq!((stand.count("unknown_number"), stand.recorder.taken().len()), (1, 0));
    let signature = sign(OWN_SECRET, own.as_bytes());
    assert_eq!(stand.post(&[("x-hub-signature-256", &signature)], own.as_bytes()).status, 200);
    assert_eq!(stand.recorder.taken().pop().unwrap().to.number.as_str(), "+15550783999");
    let others = payload("text");
    let signature = sign(OWN_SECRET, &others);
    assert_eq!(stand.post(&[("x-hub-signature-256", &signature)], &others).status, 200);
    assert_eq!((stand.count("unknown_number"), stand.recorder.taken().len()), (2, 1));
}

#[test]
fn the_signature_is_over_the_bytes_however_they_come() {
    let stand = stand();
    let plain = String::from_utf8(payload("text")).unwrap();
    let odd = plain.replace("blue", "bl\\u00fce").replace("\": ", "\"  :\t ");
    let body = odd.as_bytes();
    assert_eq!(stand.post_signed(body).status, 200);
    let News::Message(message) = stand.recorder.taken().pop().unwrap().news else { panic!("no message") };
    assert!(std::str::from_utf8(message.message.content.expose()).unwrap().contains("bl\\u00fce"));

    // Chunked, one byte a chunk, a few chunks a segment.
    let signature = sign(SECRET, body);
    let mut stream = connect(stand.address());
    let headers = [("transfer-encoding", "chunked"), ("x-hub-signature-256", signature.as_str())];
    stream.write_all(head("POST", "/webhooks/whatsapp", &headers).as_bytes()).unwrap();
    for some in body.chunks(7) {
        let chunks: Vec<u8> =
            some.iter().flat_map(|byte| [b"1\r\n", &[*byte][..], b"\r\n"].concat()).collect();
        stream.write_all(&chunks).unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(answer(&mut stream).status, 200);
    assert_eq!(stand.count("messages"), 2);
}

#[test]
fn every_secret_that_the_configuration_gets_counts_from_then_on() {
    let stand = stand();
    let body = payload("text");
    let signature = sign(b"the next secret", &body);
    assert_eq!(stand.post(&[("x-hub-signature-256", &signature)], &body).status, 401);
    let number = WebhookNumber {
        to: Route { portal: "acme".parse().unwrap(), number: NUMBER.parse().unwrap() },
        phone_number_id: Some(PHONE_NUMBER_ID.to_owned()),
        waba_id: None,
        app_secret: None,
    };
    let numbers = Numbers::new(Some(b"the next secret"), [number]);
    stand.hook.reload(Settings { numbers, verify_token: None });
    assert_eq!(stand.post(&[("x-hub-signature-256", &signature)], &body).status, 200);
    assert_eq!(stand.post_signed(&body).status, 401);
    assert_eq!(stand.get(&verification("subscribe", VERIFY_TOKEN)).status, 403);
}

// ---------------------------------------------------------------------------------------------------------- limits

/// A webhook of about `bytes` with a thousand messages.
fn big_webhook(bytes: usize) -> Vec<u8> {
    let each = bytes / 1000 - 110;
    let messages: Vec<String> = (0..1000)
        .map(|i| {
            format!(
                "{{\"from\":\"12025550173\",\"id\":\"wamid.{i}\",\"timestamp\":\"1790000000\",\"type\":\"text\",\
                 \"text\":{{\"body\":\"{}\"}}}}",
                "x".repeat(each)
            )
        })
        .collect();
    format!(
        "{{\"object\":\"whatsapp_business_account\",\"entry\":[{{\"id\":\"1\",\"changes\":[{{\"field\":\"messages\",\
         \"value\":{{\"metadata\":{{\"phone_number_id\":\"{PHONE_NUMBER_ID}\"}},\"messages\":[{}]}}}}]}}]}}",
        messages.join(",")
    )
    .into_bytes()
}

#[test]
fn a_signed_body_of_2_9_mb_and_a_thousand_updates_is_taken() {
    let stand = stand();
    let body = big_webhook(2_900_000);
    assert!((2_800_000..2_950_000).contains(&body.len()), "{}", body.len());
    assert_eq!(stand.post_signed(&body).status, 200);
    let ids: Vec<String> = stand
        .recorder
        .taken()
        .iter()
        .map(|update| match &update.news {
            News::Message(message) => message.message.message_id.as_str().to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, (0..1000).map(|i| format!("wamid.{i}")).collect::<Vec<_>>());
}

#[test]
fn a_body_of_3_mib_is_read_and_one_byte_more_is_413() {
    let stand = stand();
    let mut body = payload("text");
    body.resize(BODY_BYTES_MAX, b' ');
    assert_eq!(stand.post_signed(&body).status, 200);
    body.push(b' ');
    assert_eq!(stand.post_signed(&body).status, 413);

    // The same without a word about its length.
    let signature = sign(SECRET, &body);
    let mut stream = connect(stand.address());
    let headers = [("transfer-encoding", "chunked"), ("x-hub-signature-256", signature.as_str())];
    stream.write_all(head("POST", "/webhooks/whatsapp", &headers).as_bytes()).unwrap();
    let _ = stream.write_all(format!("{:x}\r\n", body.len()).as_bytes());
    let _ = stream.write_all(&body);
    let _ = stream.write_all(b"\r\n0\r\n\r\n");
    assert_eq!(answer(&mut stream).status, 413);
    assert_eq!((stand.count("too_large"), stand.recorder.taken().len()), (2, 1));
}

#[test]
fn who_never_stops_sending_is_cut_off() {
    let stand = stand();
    let mut stream = connect(stand.address());
    stream
        .write_all(head("POST", "/webhooks/whatsapp", &[("transfer-encoding", "chunked")]).as_bytes())
        .unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    let start = Instant::now();
    while stream.write_all(&chunk).is_ok() {
        assert!(start.elapsed() < PATIENCE, "it is still being read");
    }
    assert_eq!(stand.count("too_large"), 1);
}

#[test]
fn an_encoded_body_is_415_whatever_is_in_it() {
    let stand = stand();
    let body = payload("text");
    let signature = sign(SECRET, &body);
    for encoding in ["gzip", "br", "zstd", "deflate", "identity, gzip"] {
        let answer =
            stand.post(&[("content-encoding", encoding), ("x-hub-signature-256", &signature)], &body);
        assert_eq!(answer.status, 415, "{encoding}");
    }
    assert_eq!(stand.recorder.taken().len(), 0);
    assert_eq!(stand.count("encoded"), 5);
    let answer = stand.post(&[("content-encoding", "identity"), ("x-hub-signature-256", &signature)], &body);
    assert_eq!(answer.status, 200);
}

#[test]
fn who_dribbles_is_ended_and_others_go_on() {
    let soon = Duration::from_millis(1000);
    let stand = stand_with(
        Patience { body_within: soon, ..Patience::default() },
        Limits { head_within: soon, ..Limits::default() },
    );
    let mut in_head = connect(stand.address());
    in_head.write_all(b"POST /webhooks/whatsapp HTTP/1.1\r\nhost: loc").unwrap();
    let mut in_body = connect(stand.address());
    let length = [("content-length", "100000"), ("x-hub-signature-256", "sha256=00")];
    in_body.write_all(head("POST", "/webhooks/whatsapp", &length).as_bytes()).unwrap();
    in_body.write_all(b"{").unwrap();
    let mut in_chunks = connect(stand.address());
    in_chunks
        .write_all(head("POST", "/webhooks/whatsapp", &[("transfer-encoding", "chunked")]).as_bytes())
        .unwrap();
    let start = Instant::now();
    let mut ended = false;
    while !ended {
        assert!(start.elapsed() < PATIENCE, "a dribbling sender is not ended");
        ended = in_chunks.write_all(b"1\r\nx\r\n").is_err();
        assert_eq!(stand.post_signed(&payload("text")).status, 200);
    }
    assert_eq!(answer(&mut in_body).status, 408);
    let cut = read_to_close(&mut in_head);
    assert!(cut.is_empty() || cut.starts_with("HTTP/1.1 408"), "{cut}");
    assert_eq!(stand.count("too_slow"), 2);
}

#[test]
fn all_bodies_together_are_bounded_and_what_was_held_is_given_back() {
    let stand = stand();
    let mut held: Vec<TcpStream> = Vec::new();
    let full = BODIES_BYTES_MAX / BODY_BYTES_MAX + 1;
    let length = BODY_BYTES_MAX.to_string();
    let body = vec![b' '; BODY_BYTES_MAX - 1];
    let mut refused = 0;
    for n in 0..full {
        let mut stream = connect_from(11 + u8::try_from(n % 8).unwrap(), stand.address());
        stream
            .write_all(head("POST", "/webhooks/whatsapp", &[("content-length", &length)]).as_bytes())
            .unwrap();
        if stream.write_all(&body).is_err() {
            refused += 1;
        }
        held.push(stream);
    }
    until("one is refused", || stand.count("overloaded") >= 1);
    assert!(refused <= 1);
    drop(held);
    until("what was held is given back", || stand.post_signed(&payload("text")).status == 200);
}

#[test]
fn bodies_from_one_address_leave_room_for_those_of_others() {
    let stand = stand();
    let length = BODY_BYTES_MAX.to_string();
    let body = vec![b' '; BODY_BYTES_MAX - 1];
    let mut held: Vec<TcpStream> = Vec::new();
    // As many as would be too many in all.
    for _ in 0..=BODIES_BYTES_MAX / BODY_BYTES_MAX {
        let mut stream = connect_from(11, stand.address());
        let head = head("POST", "/webhooks/whatsapp", &[("content-length", &length)]);
        stream.write_all(head.as_bytes()).unwrap();
        let _ = stream.write_all(&body);
        held.push(stream);
    }
    until("further ones are refused", || stand.count("overloaded") >= 1);
    // A largest one of another address comes through, signed, while those stand there.
    let own = [payload("text"), vec![b' '; BODY_BYTES_MAX - payload("text").len()]].concat();
    assert_eq!(stand.post_signed(&own).status, 200);
    drop(held);
}

// --------------------------------------------------------------------------------------------- what the journal says

#[test]
fn the_answer_waits_until_everything_is_durable() {
    let stand = stand();
    stand.recorder.mood.send_replace(Mood::Holds);
    let address = stand.address();
    let poster = std::thread::spawn(move || {
        let body = payload("batch");
        let headers =
            [("content-length", body.len().to_string()), ("x-hub-signature-256", sign(SECRET, &body))];
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        request(address, "POST", "/webhooks/whatsapp", &headers, &body)
    });
    until("it is submitted as one batch", || stand.recorder.taken().len() == 6);
    assert!(!poster.is_finished());
    assert_eq!(stand.count("taken"), 0);
    stand.recorder.mood.send_replace(Mood::Records);
    assert_eq!(poster.join().unwrap().status, 200);
}

#[test]
fn what_the_journal_cannot_take_is_503() {
    let stand = stand();
    stand.recorder.mood.send_replace(Mood::IsHalted);
    assert_eq!(stand.post_signed(&payload("text")).status, 503);
    assert_eq!((stand.count("unavailable"), stand.count("taken")), (1, 0));
    stand.recorder.mood.send_replace(Mood::Records);
    assert_eq!(stand.post_signed(&payload("text")).status, 200);
}

#[test]
fn a_journal_that_says_nothing_is_503_after_a_while() {
    let patience = Patience { taken_within: Duration::from_millis(100), ..Patience::default() };
    let stand = stand_with(patience, Limits::default());
    stand.recorder.mood.send_replace(Mood::Holds);
    assert_eq!(stand.post_signed(&payload("text")).status, 503);
}

#[test]
fn what_has_nowhere_to_go_is_counted_and_answered_200() {
    let stand = stand();
    stand.recorder.mood.send_replace(Mood::HasNoChannel);
    assert_eq!(stand.post_signed(&payload("text")).status, 200);
    assert_eq!((stand.count("nowhere"), stand.count("messages")), (1, 0));
}

#[test]
fn a_signed_body_that_is_no_object_is_400_and_an_empty_webhook_is_200() {
    let stand = stand();
    for body in [b"".as_slice(), b"[]", b"nonsense", b"{\"object\":", b"{\"object\":\"\xff\"}"] {
        assert_eq!(stand.post_signed(body).status, 400);
    }
    assert_eq!(stand.count("not_an_object"), 5);
    for body in
        [r#"{"object":"whatsapp_business_account","entry":[]}"#, r#"{"object":"page","entry":[]}"#, "{}"]
    {
        assert_eq!(stand.post_signed(body.as_bytes()).status, 200, "{body}");
    }
    assert_eq!(stand.recorder.taken().len(), 0);
}

#[test]
fn content_over_its_limits_is_left_out_and_the_rest_taken() {
    let numbers = numbers();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    for (extra, expected) in [(deep, Part::Message), (large, Part::Message)] {
        let body = format!(
            "{{\"object\":\"whatsapp_business_account\",\"entry\":[{{\"changes\":[{{\"field\":\"messages\",\"value\":\
             {{\"metadata\":{{\"phone_number_id\":\"{PHONE_NUMBER_ID}\"}},\"messages\":[\
             {{\"id\":\"a\",\"from\":\"1\",\"timestamp\":\"1\",\"type\":\"text\",\"x\":{extra}}},\
             {{\"id\":\"b\",\"from\":\"1\",\"timestamp\":\"1\",\"type\":\"text\"}}]}}}}]}}]}}"
        );
        let signature = sign(SECRET, body.as_bytes());
        let matched = numbers.secrets().check(Some(signature.as_bytes()), body.as_bytes()).unwrap();
        let updates = translate(body.as_bytes(), &numbers, &matched).unwrap();
        let left_out = updates[0].as_ref().unwrap_err();
        assert_eq!(left_out.part, expected);
        assert!(matches!(left_out.reason, Reason::OverLimit(_)), "{left_out:?}");
        assert!(updates[1].is_ok());
    }
}

/// What a webhook with this status object comes to.
fn of_status(status: &str) -> Vec<Result<Update, LeftOut>> {
    let numbers = numbers();
    let body = format!(
        "{{\"object\":\"whatsapp_business_account\",\"entry\":[{{\"changes\":[{{\"field\":\"messages\",\"value\":\
         {{\"metadata\":{{\"phone_number_id\":\"{PHONE_NUMBER_ID}\"}},\"statuses\":[{status}]}}}}]}}]}}"
    );
    let signature = sign(SECRET, body.as_bytes());
    let matched = numbers.secrets().check(Some(signature.as_bytes()), body.as_bytes()).unwrap();
    translate(body.as_bytes(), &numbers, &matched).unwrap()
}

fn carried(update: &Result<Update, LeftOut>) -> Option<String> {
    let Ok(Update { news: News::Status(status), .. }) = update else { panic!("{update:?}") };
    let carried = status.carried.as_ref()?;
    Some(String::from_utf8(carried.expose().to_vec()).unwrap())
}

#[test]
fn what_a_status_says_besides_is_carried_byte_for_byte() {
    let besides = r#""recipient_id":"1","pricing":{"of":1.50,"big":12345678901234567890},"errors":[{"code":1},{"code":2}],"new":"\u00e9 \/""#;
    let told = of_status(&format!(
        r#"{{"id":"a","status":"read",{besides},"timestamp":"1","biz_opaque_callback_data":"of who sent it"}}"#
    ));
    assert_eq!(told.len(), 1);
    assert_eq!(carried(&told[0]), Some(format!("{{{besides}}}")));
    assert_eq!(carried(&of_status(r#"{"id":"a","status":"read","timestamp":"1"}"#)[0]), None);
}

#[test]
fn where_that_is_over_its_limit_the_status_is_taken_without_it_and_that_is_counted() {
    let of = |bytes: usize| {
        let text = "x".repeat(bytes - r#"{"n":""}"#.len());
        of_status(&format!(r#"{{"id":"a","status":"read","timestamp":"1","n":"{text}"}}"#))
    };
    assert_eq!(carried(&of(CARRIED_BYTES_MAX)[0]).unwrap().len(), CARRIED_BYTES_MAX);
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let deep = of_status(&format!(r#"{{"id":"a","status":"read","timestamp":"1","n":{deep}}}"#));
    for told in [of(CARRIED_BYTES_MAX + 1), deep] {
        assert_eq!(carried(&told[0]), None);
        let left_out = told[1].as_ref().unwrap_err();
        assert!(matches!((left_out.part, left_out.reason), (Part::StatusDetails, Reason::OverLimit(_))));
        assert_eq!(told.len(), 2);
    }
}

/// What a webhook with these contacts and these messages or statuses comes to.
fn beside(contacts: &str, key: &str, elements: &str) -> Vec<Result<Update, LeftOut>> {
    let numbers = numbers();
    let body = format!(
        "{{\"object\":\"whatsapp_business_account\",\"entry\":[{{\"changes\":[{{\"field\":\"messages\",\"value\":\
         {{\"metadata\":{{\"phone_number_id\":\"{PHONE_NUMBER_ID}\"}},\"contacts\":[{contacts}],\"{key}\":[{elements}]}}}}]}}]}}"
    );
    let signature = sign(SECRET, body.as_bytes());
    let matched = numbers.secrets().check(Some(signature.as_bytes()), body.as_bytes()).unwrap();
    translate(body.as_bytes(), &numbers, &matched).unwrap()
}

fn contact_of(update: &Result<Update, LeftOut>) -> Option<String> {
    let Ok(Update { news: News::Message(inbound), .. }) = update else { panic!("{update:?}") };
    let contact = inbound.message.contact.as_ref()?;
    Some(String::from_utf8(contact.expose().to_vec()).unwrap())
}

const TEXT: &str = r#"{"from":"1","id":"a","timestamp":"1","type":"text","text":{"body":"Hi"}}"#;

#[test]
fn what_a_contact_says_besides_goes_with_its_message_byte_for_byte() {
    let of = |contact: &str| beside(contact, "messages", TEXT);
    for (contact, besides) in [
        (
            r#"{"new":1.50,"profile":{"user\u006eame":"eve.e", "name":"Eve","n":"\u00e9 \/"},"wa_id":"1","user_id":"US.1","parent_user_id":"US.ENT.1"}"#,
            Some(
                r#"{"new":1.50,"profile":{"user\u006eame":"eve.e","n":"\u00e9 \/"},"parent_user_id":"US.ENT.1"}"#,
            ),
        ),
        (r#"{"wa_id":"1","profile":{"name":"Eve"},"new":[null]}"#, Some(r#"{"new":[null]}"#)),
        (r#"{"wa_id":"1","profile":{"name":"Eve"}}"#, None),
        (r#"{"wa_id":"1","profile":null}"#, None),
        (r#"{"wa_id":"2","new":"another's"}"#, None),
    ] {
        let told = of(contact);
        assert_eq!((told.len(), contact_of(&told[0])), (1, besides.map(str::to_owned)), "{contact}");
    }
}

#[test]
fn where_a_contact_is_over_its_limit_the_message_is_taken_without_it_and_that_is_counted() {
    let of = |bytes: usize| {
        let text = "x".repeat(bytes - r#"{"n":""}"#.len());
        beside(&format!(r#"{{"wa_id":"1","n":"{text}"}}"#), "messages", TEXT)
    };
    assert_eq!(contact_of(&of(CONTACT_BYTES_MAX)[0]).unwrap().len(), CONTACT_BYTES_MAX);
    let told = of(CONTACT_BYTES_MAX + 1);
    assert_eq!((told.len(), contact_of(&told[0])), (2, None));
    let left_out = told[1].as_ref().unwrap_err();
    assert!(matches!((left_out.part, left_out.reason), (Part::Contact, Reason::OverLimit(_))));
}

#[test]
fn what_is_said_of_a_customer_beside_a_status_goes_with_it() {
    let contact = r#"{"wa_id":"1","user_id":"US.1","profile":{"name":"Eve","username":"eve.e"}}"#;
    let of = |contact: &str, besides: &str| {
        let status = format!(r#"{{"id":"a","status":"read","timestamp":"1"{besides}}}"#);
        carried(&beside(contact, "statuses", &status)[0])
    };
    for recipient in [r#""recipient_id":"1""#, r#""recipient_user_id":"US.1""#] {
        assert_eq!(
            of(contact, &format!(",{recipient}")),
            Some(format!(r#"{{{recipient},"contacts":[{{"profile":{{"username":"eve.e"}}}}]}}"#))
        );
    }
    let another = r#","recipient_id":"2""#;
    assert_eq!(of(contact, another).unwrap(), r#"{"recipient_id":"2"}"#, "it is of somebody else");
    let plain = r#"{"wa_id":"1","profile":{"name":"Eve"}}"#;
    assert_eq!(of(plain, r#","recipient_id":"1""#).unwrap(), r#"{"recipient_id":"1"}"#);
    let own = r#","recipient_id":"1","contacts":[{"wa_id":"1"}]"#;
    assert_eq!(of(contact, own), Some(format!("{{{}}}", &own[1..])), "its own stay as they are");
}

// ---------------------------------------------------------------------------------------- verification and health

fn verification(mode: &str, token: &str) -> String {
    let token = token.replace(' ', "%20").replace('\'', "%27");
    format!("/webhooks/whatsapp?hub.mode={mode}&hub.challenge=1158201444&hub.verify_token={token}")
}

#[test]
fn meta_is_given_its_challenge_back_for_the_right_token() {
    let stand = stand();
    let answer = stand.get(&verification("subscribe", VERIFY_TOKEN));
    assert_eq!((answer.status, answer.body.as_str()), (200, "1158201444"));
    assert_eq!(stand.get(&verification("subscribe", "a token of theirs")).status, 403);
    assert_eq!(stand.get(&verification("subscribe", "")).status, 403);
    assert_eq!(stand.get(&verification("unsubscribe", VERIFY_TOKEN)).status, 400);
    for missing in [
        "/webhooks/whatsapp",
        "/webhooks/whatsapp?hub.mode=subscribe&hub.challenge=1",
        "/webhooks/whatsapp?hub.mode=subscribe&hub.verify_token=a%20token%20of%20ours",
        "/webhooks/whatsapp?hub.challenge=1&hub.verify_token=a%20token%20of%20ours",
    ] {
        assert_eq!(stand.get(missing).status, 400, "{missing}");
    }
    assert!(!stand.get(&verification("subscribe", "wrong")).body.contains("1158201444"));
}

#[test]
fn readiness_says_why_not() {
    let stand = stand();
    assert_eq!(stand.get("/livez").status, 200);
    let ready = stand.get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    assert_eq!(stand.get("/readyz?verbose").body, "broker: ok\njournal: ok\nready\n");
    stand.recorder.mood.send_replace(Mood::IsHalted);
    let not = stand.get("/readyz");
    assert_eq!((not.status, not.body.as_str()), (503, "not ready: journal: the disk is full\n"));
    assert_eq!(stand.get("/readyz?verbose").body, "broker: ok\nnot ready: journal: the disk is full\n");
    assert_eq!(stand.get("/livez").status, 200);
}

#[test]
fn where_there_is_nothing_it_says_so_in_words() {
    let stand = stand();
    let nothing = stand.get("/nowhere");
    assert_eq!((nothing.status, nothing.body.as_str()), (404, "there is nothing here\n"));
    let wrong = request(stand.address(), "DELETE", "/webhooks/whatsapp", &[], b"");
    assert_eq!((wrong.status, wrong.body.as_str()), (405, "this method is not allowed here\n"));
    assert!(
        wrong.head.contains("allow: get, post") || wrong.head.contains("allow: post, get"),
        "{}",
        wrong.head
    );
}

#[test]
fn a_drain_finishes_what_was_accepted_and_takes_no_more() {
    let Stand { server, recorder, hook } = stand();
    recorder.mood.send_replace(Mood::Holds);
    let address = server.address();
    let body = payload("text");
    let poster = std::thread::spawn(move || {
        let headers =
            [("content-length", body.len().to_string()), ("x-hub-signature-256", sign(SECRET, &body))];
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        request(address, "POST", "/webhooks/whatsapp", &headers, &body)
    });
    until("it is submitted", || recorder.taken().len() == 1);
    let drained = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(server.drain())
    });
    until("it takes no more", || TcpStream::connect(address).is_err());
    assert!(!poster.is_finished());
    recorder.mood.send_replace(Mood::Records);
    assert_eq!(poster.join().unwrap().status, 200);
    drained.join().unwrap().unwrap();
    assert_eq!(hook.counters().taken.load(std::sync::atomic::Ordering::Relaxed), 1);
}
