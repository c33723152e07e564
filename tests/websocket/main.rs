//! WebSocket at `/v1/ws`, frame by frame: who may connect, what a frame may be, and what one that reads nothing costs.
//!
//! That the messages are those of TCP is shown by the scenarios, which run over WebSocket too.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: a panic is its report")]

mod stage;
#[path = "../world/mod.rs"]
mod world;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use self::stage::*;

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
    sharedline::gateway::graph::choose_crypto();
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
    for id in 10..310 {
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
    // It is ended, with what it was given in between; who comes late to read may find the end cut off.
    let mut given = 0;
    while let Some((first, _)) = stuck.next().await {
        given += usize::from(first == TEXT);
    }
    // 16 MiB of its window are some 260 of these.
    assert!(given < 290, "more than its window was sent to who read nothing: {given}");
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

/// Asks for `/livez` over one connection until then; gives how long each answer took, the slowest last.
fn lives(address: SocketAddr, until: Instant) -> Vec<Duration> {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let mut took = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let (mut answer, mut piece) = (Vec::new(), [0; 1_024]);
        while !answer.ends_with(b"alive\n") {
            let read = stream.read(&mut piece).unwrap();
            answer.extend_from_slice(&piece[..read]);
        }
        took.push(began.elapsed());
        thread::park_timeout(Duration::from_millis(2));
    }
    took.sort_unstable();
    took
}

#[tokio::test]
async fn websockets_that_ask_without_end_delay_no_health_check() {
    let stage = Stage::set();
    let idle = lives(stage.address(), Instant::now() + Duration::from_secs(1));
    let ping = |id: u64| masked(TEXT, format!(r#"{{"type":"ping","id":{id}}}"#).as_bytes());
    let pings: Vec<u8> = (2..502).flat_map(ping).collect();
    let until = Instant::now() + Duration::from_secs(3);
    let mut busy = Vec::new();
    for service in ["crm", "desk"] {
        let stream = stage.greeted(service).await.stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        let (mut read, mut write, pings) = (stream.try_clone().unwrap(), stream, pings.clone());
        thread::spawn(move || while write.write_all(&pings).is_ok() {});
        busy.push(thread::spawn(move || {
            let (mut scrap, mut bytes) = (vec![0; 64 << 10], 0);
            while Instant::now() < until {
                bytes += read.read(&mut scrap).unwrap();
            }
            let _ = read.shutdown(std::net::Shutdown::Both);
            bytes
        }));
    }
    let loaded = lives(stage.address(), until);
    let bytes: usize = busy.into_iter().map(|one| one.join().unwrap()).sum();
    let at = |took: &[Duration], of_100: usize| took[took.len() * of_100 / 100];
    println!(
        "/livez: median {:?}, 98 of 100 within {:?}; beside WebSockets that were told {bytes} bytes {:?} and {:?}",
        at(&idle, 50),
        at(&idle, 98),
        at(&loaded, 50),
        at(&loaded, 98)
    );
    assert!(at(&loaded, 50) < Duration::from_millis(100), "{:?}", at(&loaded, 50));
}
