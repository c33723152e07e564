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
