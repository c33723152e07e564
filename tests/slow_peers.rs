//! Slow, stuck and silent peers cost their own window and their own sockets, and delay nobody else (P3).
//!
//! The broker runs in this process, so that its memory can be looked at; the peers are real sockets.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as its test does")]

mod world;

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use sharedline::actors::broker::Setup;
use sharedline::actors::{Broker, Limits};
use sharedline::client::{Connection, position};
use sharedline::domain::event::Customer;
use sharedline::domain::ids::{CustomerName, Timestamp};
use sharedline::domain::portal::Plan;
use sharedline::journal::Options;
use sharedline::net::listener::{Listener, Settings};
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{Ack, CreateChannel, Hello, Inbound};
use sharedline::wire::message::{
    DeliverMode, Delivery, Positions, RawContent, Request, Response, ServerBody, Who,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

const SERVICES: [&str; 3] = ["crm", "desk", "salesiq"];
const NUMBER: &str = "+15550783881";
/// How long nothing may happen.
const WITHIN: Duration = Duration::from_secs(60);
/// Messages that pass while two subscribers are stuck: many windows, and many times what is kept in memory.
const MESSAGES: usize = 60_000;
/// A subscriber's window.
const WINDOW: u32 = 1_024;
/// How much the process may grow meanwhile: the stuck ones' windows, the recent records, the ids of 60,000 messages, and
/// what the allocator keeps. The messages themselves are 25 MB, three times over.
const GROWTH_BYTES_MAX: usize = 48 << 20;
/// Sockets that dribble, or say nothing.
const IDLERS: usize = 1_000;
/// Files that this needs: both ends of every socket are in this process.
const FILES: &str = "8192";

struct Stand {
    _directory: tempfile::TempDir,
    broker: Broker,
    listener: Listener,
}

impl Stand {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let setup = Setup {
            portals: vec![world::portal("acme", Plan::Bundle, &SERVICES, &[(NUMBER, None)])],
            limits: Limits {
                recent_bytes_max: 1 << 20,
                ack_timeout: Duration::from_secs(600),
                arbiters: 0,
                ..Limits::default()
            },
        };
        let options = Options { before_sync: true, ..Options::default() };
        let broker = world::start(directory.path(), &options, setup);
        let settings = Settings { ack_timeout: Duration::from_secs(600) };
        let listener = Listener::start("127.0.0.1:0".parse().unwrap(), &broker, settings).unwrap();
        Self { _directory: directory, broker, listener }
    }

    async fn connect(&self, who: &str) -> Connection {
        let hello = Hello {
            version: 1,
            who: if who == "whatsapp" {
                Who::Gateway(who.parse().unwrap())
            } else {
                Who::Service(who.parse().unwrap())
            },
            portal: "acme".parse().unwrap(),
            token: who.into(),
            adapter: Some("one".parse().unwrap()),
            window: WINDOW,
            deliver: DeliverMode::Share,
            from: Positions::default(),
            heartbeat_ms: None,
        };
        Connection::open(self.listener.address(), Encoding::Binary, hello).await.unwrap()
    }

    async fn subscriber(&self, service: &str) -> Connection {
        let mut connection = self.connect(service).await;
        let create = CreateChannel { number: NUMBER.parse().unwrap(), backfill: false };
        connection.sender.put(&create.into()).unwrap();
        connection.sender.flush().await.unwrap();
        loop {
            if let ServerBody::Response(Response::Channel(_)) = connection.receiver.next().await.unwrap().body
            {
                return connection;
            }
        }
    }
}

fn inbound(at: usize) -> Request {
    let wa_id = CustomerName::read(&format!("1650{:07}", at % 100)).unwrap();
    Request::Inbound(Inbound {
        number: NUMBER.parse().unwrap(),
        message_id: format!("wamid.{at}").parse().unwrap(),
        customer: Customer { wa_id: Some(wa_id), ..Customer::default() },
        at: Timestamp(at as u64),
        content: RawContent(Bytes::from(format!(r#"{{"type":"text","text":{{"body":"{:0256}"}}}}"#, at))),
        refers_to: None,
    })
}

/// Sends messages, with many in flight, until all are accepted.
async fn produce(mut gateway: Connection, messages: usize) {
    let (mut sent, mut accepted) = (0, 0);
    while accepted < messages {
        while sent < messages && sent - accepted < 512 {
            gateway.sender.put(&inbound(sent)).unwrap();
            sent += 1;
        }
        gateway.sender.flush().await.unwrap();
        let message = timeout(WITHIN, gateway.receiver.next()).await.expect("an answer in time").unwrap();
        assert!(matches!(message.body, ServerBody::Response(Response::InboundAccepted(_))));
        accepted += 1;
    }
}

/// Takes and acknowledges messages until all are here, in order.
async fn consume(mut subscriber: Connection, messages: usize) {
    let (mut here, mut batch) = (0, Vec::new());
    while here < messages {
        timeout(WITHIN, subscriber.receiver.next_batch(&mut batch))
            .await
            .expect("deliveries in time")
            .unwrap();
        let mut last = None;
        for message in batch.drain(..) {
            let ServerBody::Delivery(delivery) = message.body else { continue };
            if let Delivery::Message(message) = &delivery {
                assert_eq!(message.message_id.as_str(), format!("wamid.{here}"));
                here += 1;
            }
            last = position(&delivery).or(last);
        }
        if let Some((channel, offset)) = last {
            subscriber.sender.put(&Ack { channel, offset }.into()).unwrap();
            subscriber.sender.flush().await.unwrap();
        }
    }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn a_stuck_subscriber_costs_its_window_and_nothing_else() {
    let stand = Stand::new();
    let quick = stand.subscriber("crm").await;
    let stuck = stand.subscriber("desk").await;
    let mut lazy = stand.subscriber("salesiq").await;
    let gateway = stand.connect("whatsapp").await;
    // Once through everything, so that what the process needs anyway is there.
    let before = resident_bytes();
    // The lazy one reads all that it gets, and acknowledges nothing: it gets its window.
    let reading = tokio::spawn(async move {
        let mut messages = 0;
        while messages < WINDOW {
            let message = timeout(WITHIN, lazy.receiver.next()).await.expect("its window in time").unwrap();
            messages += u32::from(matches!(message.body, ServerBody::Delivery(Delivery::Message(_))));
        }
        lazy
    });
    tokio::join!(produce(gateway, MESSAGES), consume(quick, MESSAGES));
    let growth = resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "the process grew by {growth} bytes");
    let mut lazy = reading.await.unwrap();
    assert!(
        timeout(Duration::from_millis(200), lazy.receiver.next()).await.is_err(),
        "no more than its window"
    );
    // And the stuck one, when it wakes up, gets everything.
    drop(lazy);
    consume(stuck, MESSAGES).await;
    stand.listener.close();
    stand.broker.stop(WITHIN).await.unwrap();
}

#[tokio::test]
async fn a_thousand_sockets_that_dribble_or_stay_silent_hold_up_nobody() {
    if std::env::vars_os().all(|(name, _)| name != "SHAREDLINE_FILES") {
        // Again, with room for all those files.
        let me = std::env::current_exe().unwrap();
        let again = format!("ulimit -n {FILES} && exec \"$0\" \"$@\"");
        let status = Command::new("sh")
            .args(["-c", &again])
            .arg(me)
            .args(["--exact", "a_thousand_sockets_that_dribble_or_stay_silent_hold_up_nobody"])
            .env("SHAREDLINE_FILES", FILES)
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let stand = Stand::new();
    let subscriber = stand.subscriber("crm").await;
    let gateway = stand.connect("whatsapp").await;
    let address = stand.listener.address();
    let mut idlers = Vec::new();
    for at in 0..IDLERS {
        let mut idler = TcpStream::connect(address).await.unwrap();
        match at % 4 {
            0 => {}
            1 => idler.write_all(b"{").await.unwrap(),
            2 => idler.write_all(b"SLN1\x00\x00\x00").await.unwrap(),
            _ => idler.write_all(br#"{"type":"hello","id":1,"version":1,"portal":"acm"#).await.unwrap(),
        }
        idlers.push(idler);
    }
    let dribble = tokio::spawn(async move {
        // A byte each, again and again; those that were ended by now are passed over.
        loop {
            for idler in &mut idlers {
                let _ = idler.try_write(b" ");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    tokio::join!(produce(gateway, 20_000), consume(subscriber, 20_000));
    assert!(stand.listener.connections() > 2, "the idlers were there meanwhile");
    // None of them says hello in time, so that all are ended.
    let until = tokio::time::Instant::now() + WITHIN;
    while stand.listener.connections() > 0 {
        assert!(tokio::time::Instant::now() < until, "{} connections are left", stand.listener.connections());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    dribble.abort();
    stand.listener.close();
    stand.broker.stop(WITHIN).await.unwrap();
}
