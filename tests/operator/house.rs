//! A broker with peers, and an HTTP server beside it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use sharedline::actors::Broker;
use sharedline::actors::operator::Told;
use sharedline::admin::api::{self, CALLS_MAX, Desk, Said, Words};
use sharedline::admin::metrics::{self, Beside};
use sharedline::console;
use sharedline::domain::view::Viewer;
use sharedline::net::http::{self, Check, Health, Server};
use sharedline::net::in_json::in_json;
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::ErrorCode;

use crate::stage::{Stage, Tallied};

/// The operator's.
pub(crate) const TOKEN: &str = "the operator's token";
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(20);

struct AlwaysReady;

impl Health for AlwaysReady {
    async fn checks(&self) -> Vec<Check> {
        Vec::new()
    }
}

/// What is beside the broker, as a test says.
struct Stub(Arc<Desk>);

impl std::fmt::Debug for Stub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stub")
    }
}

impl Beside for Stub {
    fn connections(&self) -> (u64, u64) {
        (3, 20_000)
    }

    fn webhook_responses(&self) -> Vec<(u16, u64)> {
        vec![(200, 7), (401, 1)]
    }

    fn webhook_updates(&self) -> Vec<(&'static str, u64)> {
        vec![("message", 5)]
    }

    fn admin_calls(&self) -> (u64, u64) {
        (self.0.calls() as u64, CALLS_MAX as u64)
    }

    fn admin_responses(&self) -> Vec<(u16, u64)> {
        self.0.answers()
    }

    fn webhook_bodies_bytes(&self) -> (u64, u64) {
        (11, 64 << 20)
    }
}

/// The protocol's words.
struct Protocol;

impl Words for Protocol {
    fn say(&self, told: Told) -> Said {
        let viewer = told.viewer.as_ref().map(|(service, masking)| Viewer { service, masking: *masking });
        let (error, json) = in_json(told.answered, viewer.as_ref());
        Said { json, error: error.map(ErrorCode::as_str) }
    }
}

/// A stage with an HTTP server.
pub(crate) struct House {
    pub(crate) stage: Stage,
    server: Server,
}

impl House {
    pub(crate) fn open() -> Self {
        Self::with(Some(TOKEN))
    }

    /// One whose configuration has this token for operators.
    pub(crate) fn with(token: Option<&str>) -> Self {
        let stage = Stage::set(Encoding::JsonLines, &Tallied::default());
        let server = serve(stage.broker(), token);
        Self { stage, server }
    }

    /// Asks the admin API with the operator's token.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let token = format!("Bearer {TOKEN}");
        let path = format!("{}{path}", api::PREFIX);
        let answer = request(self.address(), method, &path, &[("authorization", &token)], body);
        assert!(answer.head.contains("content-type: application/json"), "{path}: {answer:?}");
        (answer.status, serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{path}: {answer:?}")))
    }

    pub(crate) fn look(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, "")
    }

    pub(crate) fn tell(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("POST", path, &body.to_string())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// `GET`, and the answer's status, head and body.
    pub(crate) fn get(&self, path: &str) -> Answer {
        request(self.address(), "GET", path, &[], "")
    }
}

fn serve(broker: &Broker, token: Option<&str>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let token = token.map(|token| Sha256::digest(token).into());
    let desk = Desk::new(broker.clone(), token, Protocol);
    let scrapes = metrics::routes(broker.clone(), Arc::new(Stub(Arc::clone(&desk))));
    let (calls, page) = (api::routes(desk), console::routes());
    let routes = move |config: &mut actix_web::web::ServiceConfig| {
        scrapes(config);
        calls(config);
        page(config);
    };
    http::run(listener, http::Limits::default(), Arc::new(AlwaysReady), routes).unwrap()
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}
