//! A broker with its HTTP server, and a WebSocket client written from RFC 6455 alone, so that it can do all that is wrong.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use sharedline::actors::broker::Setup;
use sharedline::actors::{Broker, Limits};
use sharedline::domain::portal::Plan;
use sharedline::journal::Options;
use sharedline::net::http::{self, Check, Health, Server};
use sharedline::net::websocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world;

pub(crate) const WITHIN: Duration = Duration::from_secs(20);
pub(crate) const NUMBER: &str = "+15550783881";
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const TEXT_BEGINS: u8 = 0x01;
pub(crate) const GOES_ON: u8 = 0x00;
pub(crate) const ENDS: u8 = 0x80;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

struct Fine;

impl Health for Fine {
    async fn checks(&self) -> Vec<Check> {
        Vec::new()
    }
}

pub(crate) struct Stage {
    pub(crate) _directory: tempfile::TempDir,
    pub(crate) broker: Broker,
    pub(crate) server: Server,
}

impl Stage {
    pub(crate) fn set() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let portal = world::portal("acme", Plan::Bundle, &["crm", "desk"], &[(NUMBER, None)]);
        let limits = Limits { ack_timeout: Duration::from_secs(3), ..Limits::default() };
        let setup = Setup { portals: vec![portal], limits };
        let broker = world::start(directory.path(), &Options::default(), setup);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let routes = websocket::routes(broker.clone());
        let server = http::run(listener, http::Limits::default(), Arc::new(Fine), routes).unwrap();
        Self { _directory: directory, broker, server }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The head of what an upgrade with these further headers is answered.
    pub(crate) async fn upgrade(&self, headers: &str) -> (String, Socket) {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        let host = self.address();
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(WITHIN, stream.read_u8()).await.unwrap().unwrap());
        }
        (String::from_utf8(head).unwrap(), Socket { stream })
    }

    pub(crate) async fn connect(&self) -> Socket {
        let (head, socket) = self.upgrade("").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // The example of RFC 6455 §1.3.
        assert!(
            head.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{head}"
        );
        socket
    }

    pub(crate) async fn greeted(&self, service: &str) -> Socket {
        let mut socket = self.connect().await;
        socket.send(TEXT, hello(service).as_bytes()).await;
        socket.says(r#"{"type":"welcome","id":1,"#).await;
        socket
    }
}

pub(crate) fn hello(service: &str) -> String {
    format!(
        r#"{{"type":"hello","id":1,"version":1,"portal":"acme","service":"{service}","token":"{service}","adapter":"a"}}"#
    )
}

pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | u8::try_from(short).unwrap()),
        middle @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
}

impl Socket {
    pub(crate) async fn send(&mut self, first: u8, payload: &[u8]) {
        self.stream.write_all(&masked(first, payload)).await.unwrap();
    }

    /// The next frame: its first byte and its payload; nothing after the end.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        timeout(WITHIN, self.stream.read_exact(&mut head)).await.unwrap().ok()?;
        let length = match head[1] {
            126 => u64::from(self.stream.read_u16().await.unwrap()),
            127 => self.stream.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((head[0], payload))
    }

    pub(crate) async fn says(&mut self, begin: &str) {
        let (first, payload) = self.next().await.unwrap();
        let text = String::from_utf8_lossy(&payload);
        assert!(first == TEXT && text.starts_with(begin), "{first:#x} {text}, not {begin}");
    }

    pub(crate) async fn is_refused(&mut self, code: &str) {
        self.says(&format!(r#"{{"type":"error","code":"{code}""#)).await;
    }

    pub(crate) async fn still_talks(&mut self) {
        self.send(TEXT, br#"{"type":"ping","id":77}"#).await;
        self.says(r#"{"type":"pong","id":77}"#).await;
    }

    pub(crate) async fn ends_with(mut self, error: &str, code: u16) {
        self.is_refused(error).await;
        assert_eq!(self.next().await, Some((CLOSE, code.to_be_bytes().to_vec())));
        assert_eq!(self.next().await, None);
    }
}
