//! A broker with peers, and an HTTP server beside it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use sharedline::actors::Broker;
use sharedline::admin::metrics::{self, Beside};
use sharedline::net::http::{self, Check, Health, Server};
use sharedline::wire::frame::Encoding;

use crate::stage::{Stage, Tallied};

/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(20);

struct AlwaysReady;

impl Health for AlwaysReady {
    async fn checks(&self) -> Vec<Check> {
        Vec::new()
    }
}

/// What is beside the broker, as a test says.
#[derive(Debug)]
struct Stub;

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

    fn webhook_bodies_bytes(&self) -> (u64, u64) {
        (11, 64 << 20)
    }
}

/// A stage with an HTTP server.
pub(crate) struct House {
    pub(crate) stage: Stage,
    server: Server,
}

impl House {
    pub(crate) fn open() -> Self {
        let stage = Stage::set(Encoding::JsonLines, &Tallied::default());
        let server = serve(stage.broker());
        Self { stage, server }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// `GET`, and the answer's status, head and body.
    pub(crate) fn get(&self, path: &str) -> Answer {
        request(self.address(), "GET", path, &[], "")
    }
}

fn serve(broker: &Broker) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let routes = metrics::routes(broker.clone(), Arc::new(Stub));
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
