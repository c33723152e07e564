//! The client against a broker on real sockets, in both encodings: it asks, is delivered, acknowledges, and goes on where
//! it was when the broker comes back.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test: a panic is its report")]

mod world;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use sharedline::actors::broker::Setup;
use sharedline::actors::{Broker, Limits};
use sharedline::client::{self, Client, Event, Events, position};
use sharedline::domain::event::Customer;
use sharedline::domain::ids::Timestamp;
use sharedline::domain::portal::Plan;
use sharedline::journal::Options;
use sharedline::net::listener::{Listener, Settings};
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{CreateChannel, GetChannel, Hello, Inbound};
use sharedline::wire::message::{DeliverMode, Delivery, Positions, RawContent, Response, Who};

const WAIT: Duration = Duration::from_secs(20);

fn start(directory: &Path, address: SocketAddr) -> (Broker, Listener) {
    let setup = Setup {
        portals: vec![world::portal("acme", Plan::Bundle, &["crm"], &[("+15550783881", None)])],
        limits: Limits {
            recent_bytes_max: 4 << 20,
            ack_timeout: Duration::from_secs(60),
            arbiters: 0,
            ..Limits::default()
        },
    };
    let broker = world::start(directory, &Options::default(), setup);
    let listener = Listener::start(address, &broker, Settings { ack_timeout: WAIT }).unwrap();
    (broker, listener)
}

fn hello(who: Who, token: &str) -> Hello {
    Hello {
        version: 1,
        who,
        portal: "acme".parse().unwrap(),
        token: token.into(),
        adapter: Some("one".parse().unwrap()),
        window: 1_024,
        deliver: DeliverMode::Share,
        from: Positions::default(),
        heartbeat_ms: None,
    }
}

async fn message(events: &mut Events) -> (String, Event) {
    loop {
        let event = tokio::time::timeout(WAIT, events.next()).await.expect("in time").expect("not the end");
        if let Event::Delivery(Delivery::Message(message)) = &event {
            return (message.message_id.as_str().to_owned(), event);
        }
    }
}

fn inbound(id: &str) -> Inbound {
    Inbound {
        number: "+15550783881".parse().unwrap(),
        message_id: id.parse().unwrap(),
        customer: Customer { wa_id: Some("16505551234".parse().unwrap()), ..Customer::default() },
        at: Timestamp(1_000),
        content: RawContent(Bytes::from_static(br#"{"type":"text","text":{"body":"hi"}}"#)),
        refers_to: None,
    }
}

async fn talks(encoding: Encoding) {
    let directory = tempfile::tempdir().unwrap();
    let (broker, listener) = start(directory.path(), "127.0.0.1:0".parse().unwrap());
    let address = listener.address();
    let options = |who, token| client::Options { address, encoding, hello: hello(who, token) };
    let crm = options(Who::Service("crm".parse().unwrap()), "crm");
    let (crm, welcome, mut events) = Client::connect(crm).await.unwrap();
    assert!(welcome.channels.is_empty());
    let create = CreateChannel { number: "+15550783881".parse().unwrap(), backfill: false };
    let Response::Channel(created) = crm.request(create).await.unwrap() else { panic!() };
    assert_eq!(created.created, Some(true));
    let gateway = options(Who::Gateway(world::GATEWAY.parse().unwrap()), world::GATEWAY);
    let (gateway, _, _gateway_events) = Client::connect(gateway).await.unwrap();
    for id in ["wamid.1", "wamid.2"] {
        let Response::InboundAccepted(accepted) = gateway.request(inbound(id)).await.unwrap() else {
            panic!()
        };
        assert_eq!((accepted.channels, accepted.duplicate), (1, false));
    }
    let (first, event) = message(&mut events).await;
    assert_eq!(first, "wamid.1");
    let Event::Delivery(delivery) = event else { panic!() };
    let (channel, offset) = position(&delivery).unwrap();
    crm.ack(channel, offset).await.unwrap();
    // Requests of one connection are decided in their order: with this answer the acknowledgement is taken.
    crm.request(GetChannel { channel }).await.unwrap();
    assert_eq!(message(&mut events).await.0, "wamid.2");

    listener.close();
    broker.stop(WAIT).await.unwrap();
    let (broker, listener) = start(directory.path(), address);
    // What was not acknowledged comes again, and nothing before it.
    assert_eq!(message(&mut events).await.0, "wamid.2");
    drop((crm, events, gateway));
    listener.close();
    broker.stop(WAIT).await.unwrap();
}

#[tokio::test]
async fn a_client_goes_on_where_it_was_in_json() {
    talks(Encoding::JsonLines).await;
}

#[tokio::test]
async fn a_client_goes_on_where_it_was_in_binary() {
    talks(Encoding::Binary).await;
}

#[tokio::test]
async fn a_watcher_misses_nothing_that_it_was_brought_before_it_was_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let (broker, listener) = start(directory.path(), "127.0.0.1:0".parse().unwrap());
    let address = listener.address();
    let options = |hello| client::Options { address, encoding: Encoding::Binary, hello };
    let who = || Who::Service("crm".parse().unwrap());
    let (crm, _, mut events) = Client::connect(options(hello(who(), "crm"))).await.unwrap();
    let create = CreateChannel { number: "+15550783881".parse().unwrap(), backfill: false };
    crm.request(create).await.unwrap();
    let watcher = Hello {
        adapter: Some("watcher".parse().unwrap()),
        deliver: DeliverMode::Watch,
        ..hello(who(), "crm")
    };
    let (watcher, _, mut watched) = Client::connect(options(watcher)).await.unwrap();
    let gateway = hello(Who::Gateway(world::GATEWAY.parse().unwrap()), world::GATEWAY);
    let (gateway, _, _gateway_events) = Client::connect(options(gateway)).await.unwrap();
    let ids = ["wamid.1", "wamid.2", "wamid.3"];
    for id in ids {
        gateway.request(inbound(id)).await.unwrap();
    }
    // When it has seen the first, nobody has looked at the others; they are there before the answer to a question is.
    assert_eq!(message(&mut watched).await.0, ids[0]);
    let Some(Event::Delivery(Delivery::Message(last))) = last_of(&mut events, ids[2]).await else { panic!() };
    watcher.request(GetChannel { channel: last.channel }).await.unwrap();
    listener.close();
    broker.stop(WAIT).await.unwrap();
    let (broker, listener) = start(directory.path(), address);
    gateway.request(inbound("wamid.4")).await.ok();
    watcher.request(GetChannel { channel: last.channel }).await.ok();
    for id in &ids[1..] {
        assert_eq!(message(&mut watched).await.0, *id);
    }
    drop((crm, events, watcher, watched, gateway));
    listener.close();
    broker.stop(WAIT).await.unwrap();
}

async fn last_of(events: &mut Events, id: &str) -> Option<Event> {
    loop {
        let (found, event) = message(events).await;
        if found == id {
            return Some(event);
        }
    }
}
