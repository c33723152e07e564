//! Floods from one address cost that address and nobody else. The addresses are those of this machine's loopback net.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::stage::{Peer, Stage, WITHIN, hello, usual};

/// A connection from another address of this machine.
fn from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::from(source), 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(WITHIN)).unwrap();
    socket.into()
}

#[test]
fn a_flood_of_wrong_tokens_shuts_its_own_address_out_and_nobody_else() {
    let stage = Stage::new();
    stage.configure("", "", &format!("[limits]\npeer_failed_hellos_per_minute = 20\n{}", usual()));
    let serving = stage.serve();
    let mut honest = serving.adapter("crm", "crm");
    let flood = [127, 0, 0, 2];
    let mut refused = 0;
    for _ in 0..60 {
        let mut peer = Peer::over(from(flood, serving.tcp));
        match peer.ask(&hello("crm", "wrong"))["code"].as_str() {
            Some("unauthenticated") => refused += 1,
            // Turned away before anything was read.
            _ => break,
        }
    }
    assert!((20..40).contains(&refused), "{refused}");
    serving.logs("connections of an address are refused for a while", 1);
    let mut shut_out = Peer::over(from(flood, serving.tcp));
    assert!(shut_out.ask(&hello("desk", "desk")).is_null(), "even with the right token");
    let started = Instant::now();
    assert_eq!(honest.ask(r#"{"type":"ping","id":2}"#)["type"], "pong");
    serving.adapter("desk", "desk");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_flood_of_connections_is_turned_away_beyond_its_burst() {
    let stage = Stage::new();
    stage.configure("", "", &format!("[limits]\npeer_connections_per_second = 2\n{}", usual()));
    let serving = stage.serve();
    let mut let_in = 0;
    for _ in 0..60 {
        let mut stream = from([127, 0, 0, 3], serving.tcp);
        let _ = stream.write_all(b"x");
        // Who is let in is told that `x` is no encoding by the end of the connection, too; what counts is the welcome.
        let mut peer = Peer::over(from([127, 0, 0, 3], serving.tcp));
        if peer.ask(&hello("crm", "crm"))["type"] == "welcome" {
            let_in += 1;
        } else {
            break;
        }
        let _ = stream.read(&mut [0]);
    }
    assert!((10..30).contains(&let_in), "{let_in}");
    serving.adapter("crm", "crm");
}

/// A request over HTTP; its status, or nothing where the connection is ended before.
fn get(mut stream: TcpStream, path: &str) -> Option<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    Some(String::from_utf8_lossy(&head[9..]).into_owned())
}

#[test]
fn a_flood_of_http_connections_leaves_room_for_webhooks_and_the_operator() {
    let stage = Stage::new();
    stage.configure("", "", &format!("[limits]\npeer_http_connections = 50\n{}", usual()));
    let serving = stage.serve();
    let flood = [127, 0, 0, 5];
    // They stay as long as they may without a word, and more come than there may be in all.
    let mut silent: Vec<TcpStream> = (0..200).map(|_| from(flood, serving.http)).collect();
    serving.logs("an address has as many HTTP connections as it may", 1);
    assert_eq!(get(from(flood, serving.http), "/livez"), None);
    let started = Instant::now();
    for path in ["/livez", "/v1/admin/channels", "/webhooks/whatsapp"] {
        assert!(get(from([127, 0, 0, 1], serving.http), path).is_some(), "{path}");
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    // Those that are gone make room again.
    silent.clear();
    let until = Instant::now() + WITHIN;
    while get(from(flood, serving.http), "/livez").is_none() {
        assert!(Instant::now() < until, "the address is let in again");
    }
    // A proxy stands for many; a reload says so.
    let trusted = "[limits]\npeer_http_connections = 50\ntrusted_peers = [\"127.0.0.5\"]\n";
    stage.configure("", "", &format!("{trusted}{}", usual()));
    serving.reload(1);
    let _many: Vec<TcpStream> = (0..100).map(|_| from(flood, serving.http)).collect();
    assert_eq!(get(from(flood, serving.http), "/livez").as_deref(), Some("200"));
}

#[test]
fn who_speaks_plain_text_to_a_port_with_tls_is_named_once_a_minute_over_tcp_and_over_http() {
    let stage = Stage::new();
    crate::tls::own_certificate(&stage);
    let tls = "tls = { cert = \"server.pem\", key = \"server.key\" }";
    stage.configure(tls, tls, &usual());
    let serving = stage.serve();
    let line = "a connection was ended before its hello";
    for (at, address) in [(7, serving.http), (8, serving.tcp)] {
        for _ in 0..5 {
            assert_eq!(get(from([127, 0, 0, at], address), "/livez"), None);
        }
    }
    serving.logs(line, 2);
    let log = serving.log();
    assert_eq!(log.matches(line).count(), 2, "{log}");
    assert!(
        log.contains("127.0.0.7") && log.contains("127.0.0.8") && log.contains("does not speak tls"),
        "{log}"
    );
}

const UPGRADE: &str = "GET /v1/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

#[test]
fn beyond_its_connections_an_address_gets_429_over_websocket_and_an_end_over_tcp() {
    let stage = Stage::new();
    stage.configure("", "", &format!("[limits]\npeer_connections_per_second = 1\n{}", usual()));
    let serving = stage.serve();
    let upgrade = |source: [u8; 4]| {
        let mut stream = from(source, serving.http);
        stream.write_all(UPGRADE.as_bytes()).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (String::from_utf8_lossy(&head[9..]).into_owned(), stream)
    };
    let flood = [127, 0, 0, 6];
    let mut upgraded = Vec::new();
    let mut refused = loop {
        match upgrade(flood) {
            (status, stream) if status == "101" => upgraded.push(stream),
            (status, stream) => {
                assert_eq!(status, "429");
                break stream;
            }
        }
        assert!(upgraded.len() < 60, "there is no end of them");
    };
    assert!((10..30).contains(&upgraded.len()), "{}", upgraded.len());
    let mut rest = vec![0; 256];
    let length = refused.read(&mut rest).unwrap();
    let rest = String::from_utf8_lossy(&rest[..length]).into_owned();
    assert!(rest.contains("too many connections or wrong tokens from this address"), "{rest}");
    // The same count over TCP, which has no words for it; other requests over HTTP do not count.
    assert!(Peer::over(from(flood, serving.tcp)).ask(&hello("crm", "crm")).is_null());
    assert_eq!(get(from(flood, serving.http), "/livez").as_deref(), Some("200"));
    assert_eq!(upgrade([127, 0, 0, 1]).0, "101", "nobody else notices");
    let until = Instant::now() + WITHIN;
    while upgrade(flood).0 != "101" {
        assert!(Instant::now() < until, "a second later there is room for one");
    }
}

#[test]
fn a_flood_over_websockets_counts_as_one_over_tcp() {
    let stage = Stage::new();
    stage.configure("", "", &format!("[limits]\npeer_failed_hellos_per_minute = 3\n{}", usual()));
    let serving = stage.serve();
    let flood = [127, 0, 0, 4];
    let mut answers = Vec::new();
    for _ in 0..30 {
        let mut stream = from(flood, serving.http);
        stream.write_all(UPGRADE.as_bytes()).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        answers.push(String::from_utf8_lossy(&head[9..]).into_owned());
        if answers.last().unwrap() != "101" {
            break;
        }
        // One text frame, masked with zeros.
        let hello = hello("crm", "wrong");
        let length = u16::try_from(hello.len()).unwrap().to_be_bytes();
        stream.write_all(&[&[0x81, 0xfe], &length[..], &[0; 4], hello.as_bytes()].concat()).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert_eq!(answers.last().unwrap(), "429", "{answers:?}");
    assert!((3..8).contains(&answers.len()), "{answers:?}");
    let mut shut_out = Peer::over(from(flood, serving.tcp));
    assert!(shut_out.ask(&hello("crm", "crm")).is_null(), "and over TCP too");
    serving.adapter("crm", "crm");
}
