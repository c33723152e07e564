//! WebSocket at `/v1/ws`, frame by frame: who may connect, what a frame may be, and what one that reads nothing costs.
//!
//! A client written from RFC 6455 alone, so that it can do all that is wrong. That the messages are those of TCP is shown
//! by the scenarios, which run over WebSocket too.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: a panic is its report")]

mod world;

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

const WITHIN: Duration = Duration::from_secs(20);
const NUMBER: &str = "+15550783881";
const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

struct Fine;

impl Health for Fine {
    async fn checks(&self) -> Vec<Check> {
        Vec::new()
    }
}

struct Stage {
    _directory: tempfile::TempDir,
    broker: Broker,
    server: Server,
}

impl Stage {
    fn set() -> Self {
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

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The head of what an upgrade with these further headers is answered.
    async fn upgrade(&self, headers: &str) -> (String, Socket) {
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

    async fn connect(&self) -> Socket {
        let (head, socket) = self.upgrade("").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // The example of RFC 6455 §1.3.
        assert!(
            head.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{head}"
        );
        socket
    }

    async fn greeted(&self, service: &str) -> Socket {
        let mut socket = self.connect().await;
        socket.send(TEXT, hello(service).as_bytes()).await;
        socket.says(r#"{"type":"welcome","id":1,"#).await;
        socket
    }
}

fn hello(service: &str) -> String {
    format!(
        r#"{{"type":"hello","id":1,"version":1,"portal":"acme","service":"{service}","token":"{service}","adapter":"a"}}"#
    )
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
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

struct Socket {
    stream: TcpStream,
}

impl Socket {
    async fn send(&mut self, first: u8, payload: &[u8]) {
        self.stream.write_all(&masked(first, payload)).await.unwrap();
    }

    /// The next frame: its first byte and its payload; nothing after the end.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        timeout(WITHIN, self.stream.read_exact(&mut head)).await.unwrap().ok()?;
        let length = match head[1] {
            126 => u64::from(self.stream.read_u16().await.unwrap()),
            127 => self.stream.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.unwrap();
        Some((head[0], payload))
    }

    async fn says(&mut self, begin: &str) {
        let (first, payload) = self.next().await.unwrap();
        let text = String::from_utf8_lossy(&payload);
        assert!(first == TEXT && text.starts_with(begin), "{first:#x} {text}, not {begin}");
    }

    async fn is_refused(&mut self, code: &str) {
        self.says(&format!(r#"{{"type":"error","code":"{code}""#)).await;
    }

    async fn still_talks(&mut self) {
        self.send(TEXT, br#"{"type":"ping","id":77}"#).await;
        self.says(r#"{"type":"pong","id":77}"#).await;
    }

    async fn ends_with(mut self, error: &str, code: u16) {
        self.is_refused(error).await;
        assert_eq!(self.next().await, Some((CLOSE, code.to_be_bytes().to_vec())));
        assert_eq!(self.next().await, None);
    }
}

#[tokio::test]
async fn a_page_of_another_origin_may_not_connect() {
    let stage = Stage::set();
    let host = stage.address();
    for origin in [format!("http://{host}"), format!("HTTPS://{host}")] {
        let (head, _) = stage.upgrade(&format!("Origin: {origin}\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{origin}: {head}");
    }
    let port = host.port();
    let two = format!("http://{host}\r\nOrigin: http://elsewhere.example");
    for origin in
        ["http://elsewhere.example", "null", &format!("http://localhost:{port}"), "http://127.0.0.1", &two]
    {
        let (head, _) = stage.upgrade(&format!("Origin: {origin}\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{origin}: {head}");
    }
}

#[tokio::test]
async fn what_is_no_upgrade_is_told_so() {
    let stage = Stage::set();
    let at = format!("http://{}/v1/ws", stage.address());
    let answer = reqwest::get(&at).await.unwrap();
    assert_eq!(answer.status().as_u16(), 400);
    let answer = reqwest::Client::new().post(&at).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 405);
}

#[tokio::test]
async fn a_binary_frame_is_refused_and_the_connection_goes_on() {
    let stage = Stage::set();
    let mut socket = stage.connect().await;
    socket.send(BINARY, b"SLN1").await;
    socket.is_refused("bad_message").await;
    socket.send(TEXT, hello("crm").as_bytes()).await;
    socket.says(r#"{"type":"welcome""#).await;
    // In fragments it is still one message, and refused once.
    socket.send(0x02, b"a").await;
    socket.send(GOES_ON, b"b").await;
    socket.send(ENDS, b"c").await;
    socket.is_refused("bad_message").await;
    socket.still_talks().await;
}

#[tokio::test]
async fn a_message_is_a_frame_whatever_line_ends_are_in_it() {
    let stage = Stage::set();
    let mut socket = stage.greeted("crm").await;
    socket.send(TEXT, b"{\n\"type\":\n\"ping\",\r\n\"id\":5}\n").await;
    socket.says(r#"{"type":"pong","id":5}"#).await;
    // Within a text a line end is as wrong as in any JSON.
    socket.send(TEXT, b"{\"type\":\"ping\",\"id\":6,\"x\":\"a\nb\"}").await;
    socket.is_refused("bad_message").await;
    for bad in [&b""[..], b"no json", b"[]", b"\xff\xfe"] {
        socket.send(TEXT, bad).await;
        socket.is_refused("bad_message").await;
    }
    socket.still_talks().await;
}

#[tokio::test]
async fn pings_are_answered_even_within_a_message() {
    let stage = Stage::set();
    let mut socket = stage.greeted("crm").await;
    socket.send(TEXT_BEGINS, br#"{"type":"#).await;
    socket.send(PING, b"are you there").await;
    assert_eq!(socket.next().await, Some((PONG, b"are you there".to_vec())));
    socket.send(PONG, b"nobody asked").await;
    socket.send(GOES_ON, br#""ping","#).await;
    socket.send(ENDS, br#""id":9}"#).await;
    socket.says(r#"{"type":"pong","id":9}"#).await;
}

#[tokio::test]
async fn a_close_is_answered_by_a_close_after_what_was_asked() {
    let stage = Stage::set();
    let mut socket = stage.greeted("crm").await;
    socket.send(TEXT, br#"{"type":"ping","id":5}"#).await;
    socket.send(CLOSE, &1000_u16.to_be_bytes()).await;
    socket.says(r#"{"type":"pong","id":5}"#).await;
    assert_eq!(socket.next().await, Some((CLOSE, 1000_u16.to_be_bytes().to_vec())));
    assert_eq!(socket.next().await, None);
}

#[tokio::test]
async fn a_frame_that_is_too_long_is_refused_by_its_head_alone() {
    let stage = Stage::set();
    let mut strange = stage.connect().await;
    strange.stream.write_all(&masked(TEXT, &[b' '; 4_097])[..8]).await.unwrap();
    strange.ends_with("too_large", 1009).await;
    for length in [(1 << 20) + 1, 1 << 40, u64::MAX] {
        let mut socket = stage.greeted("crm").await;
        let head = [&[TEXT, 0xff][..], &u64::to_be_bytes(length)].concat();
        socket.stream.write_all(&head).await.unwrap();
        socket.ends_with("too_large", 1009).await;
    }
    // In fragments, as soon as they are too long together.
    let mut socket = stage.greeted("crm").await;
    for first in [TEXT_BEGINS, GOES_ON, GOES_ON] {
        socket.send(first, &vec![b' '; 400_000]).await;
    }
    socket.is_refused("too_large").await;
}

#[tokio::test]
async fn what_follows_hello_at_once_may_be_long() {
    let stage = Stage::set();
    let mut socket = stage.connect().await;
    let long = format!(r#"{{"type":"ping","id":2,"x":"{}"}}"#, "x".repeat(500_000));
    let both = [masked(TEXT, hello("crm").as_bytes()), masked(TEXT, long.as_bytes())].concat();
    socket.stream.write_all(&both).await.unwrap();
    socket.says(r#"{"type":"welcome""#).await;
    socket.says(r#"{"type":"pong","id":2}"#).await;
}

#[tokio::test]
async fn frames_that_break_the_websocket_end_it() {
    let stage = Stage::set();
    let unmasked = [&[TEXT, 23][..], br#"{"type":"ping","id":77}"#].concat();
    let long_ping = masked(PING, &[0; 126]);
    let split_ping = masked(0x09, b"x");
    for broken in [
        unmasked,
        masked(ENDS, b"nothing has begun"),
        masked(0x83, b"no such frame"),
        masked(TEXT | 0x40, b"reserved"),
        long_ping,
        split_ping,
        [masked(TEXT_BEGINS, b"a"), masked(TEXT, b"b")].concat(),
    ] {
        let mut socket = stage.greeted("crm").await;
        socket.stream.write_all(&broken).await.unwrap();
        socket.ends_with("bad_message", 1002).await;
    }
}

#[tokio::test]
async fn who_asks_for_pongs_and_reads_none_is_read_no_more() {
    let stage = Stage::set();
    let mut socket = stage.greeted("crm").await;
    let pings = masked(PING, &[7; 125]).repeat(1_000);
    // Two sockets' buffers hold some megabytes; a broker that kept the pongs would take all of this.
    let flood = async {
        for _ in 0..1_000 {
            socket.stream.write_all(&pings).await.unwrap();
        }
    };
    assert!(timeout(Duration::from_secs(10), flood).await.is_err(), "131 MB of pings were taken");
    stage.greeted("desk").await.still_talks().await;
}

#[tokio::test]
async fn who_reads_no_deliveries_delays_nobody_and_is_ended() {
    let stage = Stage::set();
    let mut stuck = stage.greeted("crm").await;
    let mut other = stage.greeted("desk").await;
    for socket in [&mut stuck, &mut other] {
        socket
            .send(TEXT, format!(r#"{{"type":"create_channel","id":2,"number":"{NUMBER}"}}"#).as_bytes())
            .await;
        while !String::from_utf8(socket.next().await.unwrap().1).unwrap().starts_with(r#"{"type":"channel""#)
        {
        }
    }
    let mut gateway = stage.connect().await;
    let hello = hello("whatsapp").replace("service", "gateway");
    gateway.send(TEXT, hello.as_bytes()).await;
    gateway.says(r#"{"type":"welcome""#).await;
    let filler = "x".repeat(64_000);
    let mut delivered = 0;
    for id in 10..110 {
        let inbound = format!(
            r#"{{"type":"inbound","id":{id},"number":"{NUMBER}","message_id":"wamid.{id}","at":1772000000123,"customer":{{"id":"16505551234"}},"content":{{"type":"text","text":{{"body":"{filler}"}}}}}}"#
        );
        gateway.send(TEXT, inbound.as_bytes()).await;
        gateway.says(r#"{"type":"accepted""#).await;
        while delivered <= id - 10 {
            let text = String::from_utf8(other.next().await.unwrap().1).unwrap();
            if text.starts_with(r#"{"type":"message""#) {
                delivered += 1;
            }
            if let Some((channel, offset)) = position(&text) {
                let ack = format!(r#"{{"type":"ack","channel":"{channel}","offset":{offset}}}"#);
                other.send(TEXT, ack.as_bytes()).await;
            }
        }
    }
    // Behind what it could have read stands why it was ended.
    let mut last = Vec::new();
    while let Some((first, payload)) = stuck.next().await {
        if first == TEXT {
            last = payload;
        }
    }
    assert!(String::from_utf8(last).unwrap().contains(r#""code":"stalled""#));
}

fn position(text: &str) -> Option<(String, u64)> {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    Some((value["channel"].as_str()?.to_owned(), value["offset"].as_u64()?))
}

#[tokio::test]
async fn a_stop_says_goaway_and_ends_websockets_before_http() {
    let stage = Stage::set();
    let mut socket = stage.greeted("crm").await;
    stage.broker.say_goaway(Duration::from_millis(100));
    socket.says(r#"{"type":"goaway","retry_after_ms":"#).await;
    let ended = async {
        stage.broker.end_sessions(WITHIN).await;
        stage.server.drain().await.unwrap();
        stage.broker.stop(WITHIN).await.unwrap();
    };
    let read = async {
        assert_eq!(socket.next().await, Some((CLOSE, 1000_u16.to_be_bytes().to_vec())));
        assert_eq!(socket.next().await, None);
    };
    timeout(Duration::from_secs(10), async { tokio::join!(ended, read) }).await.unwrap();
}
