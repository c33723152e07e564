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

#[test]
fn a_flood_over_websockets_counts_as_one_over_tcp() {
    let stage = Stage::new();
    stage.configure("", "", &format!("[limits]\npeer_failed_hellos_per_minute = 3\n{}", usual()));
    let serving = stage.serve();
    let flood = [127, 0, 0, 4];
    let upgrade = "GET /v1/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let mut answers = Vec::new();
    for _ in 0..30 {
        let mut stream = from(flood, serving.http);
        stream.write_all(upgrade.as_bytes()).unwrap();
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
