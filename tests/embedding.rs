//! The broker inside another program, from outside the crate, as a stranger would use it: by [`Broker::start`],
//! [`Broker::join`] and the protocol's messages alone.
//!
//! Most of it runs on a journal in memory that can be held, as by a slow disk, and that can fail, as a dying one does.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test: a panic is its report")]

mod world;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use sharedline::actors::Broker;
use sharedline::actors::broker::Setup;
use sharedline::actors::observed::Kind;
use sharedline::config::Config;
use sharedline::domain::event::{Agent, Customer};
use sharedline::domain::ids::{ChannelId, ConversationId, Timestamp};
use sharedline::domain::portal::Plan;
use sharedline::journal::memory::MemoryJournal;
use sharedline::journal::{Journal, Keys};
use sharedline::net::local::{Events, JoinError, Local, LocalError};
use sharedline::wire::message::requests::{
    CreateChannel, GetChannel, Hello, Inbound, Open, PickUp, Ping, Reply, Roster, Sent,
};
use sharedline::wire::message::{
    Addressee, DeliverMode, Delivery, ErrorCode, OrWarning, RawContent, SentOutcome, deliveries,
};
use tokio::time::timeout;

const NUMBER: &str = "+15550783881";
/// Within which everything that is to happen does.
const WITHIN: Duration = Duration::from_secs(30);
/// When every message was written: a repeat carries the same time.
static WRITTEN: LazyLock<Timestamp> = LazyLock::new(|| SystemTime::now().into());
/// For how long nothing happens where nothing is to.
const A_WHILE: Duration = Duration::from_millis(200);

#[test]
fn the_handle_and_what_joins_by_it_may_be_shared_by_every_thread() {
    const fn is_shared<T: Clone + Send + Sync + 'static>() {}
    const fn is_sent<T: Send + 'static>() {}
    const {
        is_shared::<Broker>();
        is_shared::<Local>();
        is_sent::<Events>();
    }
    fn its_futures_may_be_spawned(broker: Broker, local: Local, mut events: Events) {
        fn is_spawned(_: impl Future + Send + 'static) {}
        let (other, another) = (broker.clone(), broker.clone());
        is_spawned(async move { broker.halted().await });
        is_spawned(async move { other.stop(WITHIN).await });
        is_spawned(async move { another.end_sessions(WITHIN).await });
        is_spawned(async move { (local.ask(Ping {}).await, events.next().await) });
    }
    let _ = its_futures_may_be_spawned;
}

fn setup() -> Setup {
    let portal = world::portal("acme", Plan::Bundle, &["crm", "desk"], &[(NUMBER, Some(world::GATEWAY))]);
    Setup { portals: vec![portal], limits: Default::default() }
}

fn keys() -> Keys {
    Keys { fingerprint: [7; 16], confirm: [8; 32], digest: [9; 16] }
}

/// A broker on a journal in memory, and that journal.
fn in_memory() -> (Broker, Arc<MemoryJournal>) {
    let journal = Arc::new(MemoryJournal::new());
    let broker = Broker::start_on(Arc::clone(&journal) as Arc<dyn Journal>, &keys(), setup()).unwrap();
    (broker, journal)
}

/// A broker on a directory, by a configuration.
fn on_disk(directory: &Path) -> Broker {
    let zeros = "0".repeat(64);
    let text = format!(
        "data_dir = {directory:?}\n[[portals]]\nid = 'acme'\n[[portals.services]]\nid = 'crm'\n\
         [[portals.services]]\nid = 'desk'\n[[portals.gateways]]\nid = 'whatsapp'\ntoken_sha256 = '{zeros}'\n\
         [[portals.numbers]]\nnumber = '{NUMBER}'"
    );
    Broker::start(&text.parse::<Config>().unwrap()).unwrap()
}

fn service(id: &str) -> Hello {
    Hello::service("acme".parse().unwrap(), id.parse().unwrap(), "one".parse().unwrap())
}

fn gateway() -> Hello {
    Hello::gateway("acme".parse().unwrap(), world::GATEWAY.parse().unwrap())
}

fn join(broker: &Broker, hello: Hello) -> (Local, Events) {
    let (local, _, events) = broker.join(hello).unwrap();
    (local, events)
}

async fn create(local: &Local) -> ChannelId {
    let create = CreateChannel { number: NUMBER.parse().unwrap(), backfill: false };
    local.ask(create).await.unwrap().seen.channel
}

fn message(id: usize, body: &str) -> Inbound {
    Inbound {
        number: NUMBER.parse().unwrap(),
        message_id: format!("wamid.{id}").parse().unwrap(),
        customer: Customer { wa_id: Some("16505551234".parse().unwrap()), ..Customer::default() },
        at: *WRITTEN,
        content: RawContent::text(body),
        refers_to: None,
    }
}

fn reply(of: &deliveries::Message, reply_id: &str) -> Reply {
    Reply {
        channel: of.channel,
        to: Addressee::Conversation(of.conversation),
        agent: None,
        reply_id: reply_id.parse().unwrap(),
        content: RawContent::text("We are on it."),
        seen: None,
        confirm: None,
    }
}

async fn next(events: &mut Events) -> Delivery {
    timeout(WITHIN, events.next()).await.expect("something comes").unwrap()
}

/// The next customer's message; what comes before it is acknowledged.
async fn next_message(local: &Local, events: &mut Events) -> deliveries::Message {
    loop {
        let delivery = next(events).await;
        local.done(&delivery).await.unwrap();
        if let Delivery::Message(message) = delivery {
            return message;
        }
    }
}

async fn next_send(events: &mut Events) -> deliveries::Send {
    loop {
        if let Delivery::Send(send) = next(events).await {
            return send;
        }
    }
}

/// A whole conversation: two services, a gateway, claims, a warning, a masked reply, a receipt.
async fn a_conversation(broker: Broker) {
    let (crm, mut of_crm) = join(&broker, service("crm"));
    let (desk, mut of_desk) = join(&broker, service("desk"));
    let (whatsapp, mut sends) = join(&broker, gateway());
    let channel = create(&crm).await;
    assert_eq!(create(&desk).await, channel);
    let roster = |agent: &str| Roster {
        agents: vec![Agent { agent: agent.parse().unwrap(), name: agent.into(), lead: false }],
        replace: true,
        remove: Vec::new(),
    };
    crm.ask(roster("ann")).await.unwrap();
    desk.ask(roster("dan")).await.unwrap();
    let taken = whatsapp.ask(message(1, "Is anybody there?")).await.unwrap();
    assert_eq!((taken.channels, taken.duplicate), (1, false));
    let asked = next_message(&crm, &mut of_crm).await;
    assert_eq!(next_message(&desk, &mut of_desk).await.offset, asked.offset);
    assert!(String::from_utf8_lossy(&asked.content.0).contains("Is anybody there?"));

    let conversation = asked.conversation;
    let pick_up =
        |agent: &str| PickUp { channel, conversation, agent: agent.parse().unwrap(), confirm: None };
    assert!(matches!(crm.ask(pick_up("ann")).await.unwrap(), OrWarning::Done(_)));
    assert!(matches!(desk.ask(pick_up("dan")).await.unwrap(), OrWarning::Warning(_)));
    let accepted = crm.ask(reply(&asked, "r-1")).await.unwrap().done().expect("no warning");
    let send = next_send(&mut sends).await;
    assert_eq!((send.offset, send.reply_id.as_str()), (accepted.offset, "r-1"));
    let outcome = SentOutcome::Sent("wamid.out".parse().unwrap());
    whatsapp.ask(Sent { channel, offset: send.offset, outcome }).await.unwrap();

    let open = Open { channel, conversation, agent: "dan".parse().unwrap(), limit: 50, before: None };
    let opened = desk.ask(open).await.unwrap();
    assert!(opened.timeline.iter().any(|entry| matches!(entry, Delivery::MaskedReply(_))));
    assert!(!opened.timeline.iter().any(|entry| matches!(entry, Delivery::Reply(_))));
    let receipt = async {
        loop {
            if let Delivery::Receipt(receipt) = next(&mut of_crm).await {
                return receipt;
            }
        }
    };
    assert_eq!(receipt.await.status.as_str(), "sent");
    let masked = async {
        loop {
            if let Delivery::MaskedReply(masked) = next(&mut of_desk).await {
                return masked;
            }
        }
    };
    assert!(masked.await.content.is_none(), "desk is shown that crm has replied, never what");
    let wrong = GetChannel { channel: ChannelId(1) };
    assert_eq!(desk.ask(wrong).await.unwrap_err().code(), Some(ErrorCode::NotFound));
    assert_eq!(desk.ask(message(2, "no gateway")).await.unwrap_err().code(), Some(ErrorCode::Forbidden));
    broker.stop(WITHIN).await.unwrap();
}

#[test]
fn a_conversation_is_carried_from_a_current_thread_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(a_conversation(in_memory().0));
}

#[test]
fn a_conversation_is_carried_from_a_multi_thread_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    runtime.block_on(runtime.spawn(a_conversation(on_disk(directory.path())))).unwrap();
}

#[test]
fn several_runtimes_use_one_broker_at_once() {
    const EACH: usize = 50;
    let (broker, _journal) = in_memory();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let here = runtime();
    let (crm, mut events) = join(&broker, service("crm"));
    here.block_on(create(&crm));
    // One connection, shared by threads that each have a runtime of their own.
    let (whatsapp, _sends) = join(&broker, gateway());
    let threads = [0, 1, 2].map(|thread| {
        let whatsapp = whatsapp.clone();
        std::thread::spawn(move || {
            runtime().block_on(async {
                for id in 0..EACH {
                    whatsapp.ask(message(thread * EACH + id, "Hi")).await.unwrap();
                }
            });
        })
    });
    let mut seen = BTreeSet::new();
    here.block_on(async {
        while seen.len() < 3 * EACH {
            seen.insert(next_message(&crm, &mut events).await.message_id);
        }
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    // A runtime that has ended takes nothing with it.
    drop(here);
    runtime().block_on(async {
        whatsapp.ask(message(1_000, "Hi")).await.unwrap();
        assert_eq!(next_message(&crm, &mut events).await.message_id.as_str(), "wamid.1000");
        broker.stop(WITHIN).await.unwrap();
    });
}

#[tokio::test]
async fn a_journal_that_fails_halts_every_method_and_the_process_lives_on() {
    let (broker, journal) = in_memory();
    let (crm, mut events) = join(&broker, service("crm"));
    let channel = create(&crm).await;
    let (whatsapp, _sends) = join(&broker, gateway());
    whatsapp.ask(message(1, "before")).await.unwrap();
    let watching = tokio::spawn({
        let broker = broker.clone();
        async move { broker.halted().await }
    });
    // One is under way when it fails, and one waits for what happens.
    journal.hold();
    let under_way = tokio::spawn({
        let whatsapp = whatsapp.clone();
        async move { whatsapp.ask(message(2, "under way")).await }
    });
    tokio::time::sleep(A_WHILE).await;
    assert!(!under_way.is_finished() && !watching.is_finished());
    journal.fail();
    let halted = |error: LocalError| assert!(matches!(error, LocalError::Halted(_)), "{error:?}");
    halted(timeout(WITHIN, under_way).await.unwrap().unwrap().unwrap_err());
    let reason = timeout(WITHIN, watching).await.unwrap().unwrap();
    assert!(reason.to_string().contains("told to fail"), "{reason}");
    assert_eq!(broker.halt_reason(), Some(reason));

    halted(whatsapp.ask(message(3, "after")).await.unwrap_err());
    halted(crm.ask(GetChannel { channel }).await.unwrap_err());
    halted(crm.ask(Ping {}).await.unwrap_err());
    // What was durable is still there to be read; then it says so here too.
    let mut last = Ok(());
    while last.is_ok() {
        last = match timeout(WITHIN, events.next()).await.unwrap() {
            Ok(delivery) => {
                assert!(!matches!(&delivery, Delivery::Message(of) if of.message_id.as_str() != "wamid.1"));
                Ok(())
            }
            Err(error) => Err(error),
        };
    }
    halted(last.unwrap_err());
    assert!(matches!(broker.join(service("desk")), Err(JoinError::Halted(_))));
    let place = Delivery::Gap(deliveries::Gap {
        channel,
        offset: sharedline::domain::ids::Offset(1),
        at: Timestamp(1),
        from: sharedline::domain::ids::Offset(1),
        to: sharedline::domain::ids::Offset(1),
        reason: sharedline::wire::message::GapReason::Corrupt,
    });
    halted(crm.done(&place).await.unwrap_err());
    assert!(timeout(WITHIN, broker.stop(WITHIN)).await.unwrap().is_err());
}

#[tokio::test]
async fn who_sends_faster_than_the_disk_waits_in_bounded_memory_and_loses_nothing() {
    /// 48 MiB in all: six times what one connection may have under way.
    const MESSAGES: usize = 768;
    const BODY_BYTES: usize = 64 << 10;
    let (broker, journal) = in_memory();
    let (crm, mut events) = join(&broker, service("crm"));
    create(&crm).await;
    let (whatsapp, _sends) = join(&broker, gateway());
    journal.hold();
    let body = "x".repeat(BODY_BYTES);
    let senders: Vec<_> = (0..MESSAGES)
        .map(|id| {
            let (whatsapp, message) = (whatsapp.clone(), message(id, &body));
            tokio::spawn(async move { whatsapp.ask(message).await })
        })
        .collect();
    let mut queued = 0;
    for _ in 0..10 {
        tokio::time::sleep(A_WHILE / 4).await;
        queued = queued.max(journal.queued_bytes());
    }
    assert!(queued > 0, "some of it is under way");
    assert!(queued < 9 << 20, "{queued} bytes are under way");
    assert!(senders.iter().all(|sender| !sender.is_finished()), "nobody is answered");
    journal.release();
    for sender in senders {
        assert_eq!(timeout(WITHIN, sender).await.unwrap().unwrap().unwrap().channels, 1);
    }
    let mut seen = BTreeSet::new();
    while seen.len() < MESSAGES {
        assert!(seen.insert(next_message(&crm, &mut events).await.message_id), "each comes once");
    }
    broker.stop(WITHIN).await.unwrap();
}

#[tokio::test]
async fn a_future_that_is_dropped_half_way_leaves_nothing_behind() {
    let (broker, journal) = in_memory();
    let (crm, mut events) = join(&broker, service("crm"));
    create(&crm).await;
    let (whatsapp, _sends) = join(&broker, gateway());
    journal.hold();
    // More than can be in flight, and more bytes: had one of them kept its room, the rest could not be asked.
    let body = "x".repeat(64 << 10);
    for id in 0..3_000 {
        let asked = timeout(Duration::from_micros(1), whatsapp.ask(message(id % 200, &body))).await;
        assert!(asked.is_err(), "nothing is durable");
        assert!(timeout(Duration::from_micros(1), events.next()).await.is_err() || id == 0);
    }
    journal.release();
    // What was dropped may have been done; asking it again says so, or does it.
    for id in 0..200 {
        assert_eq!(timeout(WITHIN, whatsapp.ask(message(id, &body))).await.unwrap().unwrap().channels, 1);
    }
    let gateways = broker.sessions_seen().into_iter().filter(|seen| seen.kind == Kind::Gateway);
    assert_eq!(gateways.map(|seen| seen.in_flight).collect::<Vec<_>>(), [0], "none has kept its room");
    let mut seen = BTreeSet::new();
    while seen.len() < 200 {
        assert!(seen.insert(next_message(&crm, &mut events).await.message_id), "each comes once");
    }
    broker.stop(WITHIN).await.unwrap();
}

#[tokio::test]
async fn a_stop_finishes_or_refuses_what_is_under_way_and_reopening_has_everything() {
    let directory = tempfile::tempdir().unwrap();
    let broker = on_disk(directory.path());
    let (crm, mut events) = join(&broker, service("crm"));
    create(&crm).await;
    let (whatsapp, _sends) = join(&broker, gateway());
    let first = whatsapp.ask(message(0, "Hi")).await.unwrap();
    assert_eq!(first.channels, 1);
    let seen = next_message(&crm, &mut events).await;
    let under_way: Vec<_> = (1..200)
        .map(|id| {
            let whatsapp = whatsapp.clone();
            tokio::spawn(async move { whatsapp.ask(message(id, "Hi")).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let asked = Instant::now();
    broker.stop(WITHIN).await.unwrap();
    assert!(asked.elapsed() < WITHIN / 2, "it waits for nobody who does not look");
    let mut acknowledged = BTreeSet::new();
    for (id, asked) in (1..200).zip(under_way) {
        match timeout(WITHIN, asked).await.unwrap().unwrap() {
            Ok(accepted) => assert!(accepted.channels == 1 && acknowledged.insert(format!("wamid.{id}"))),
            Err(error) => assert_eq!(error, LocalError::Stopped),
        }
    }
    // Again, and everything else: it has stopped.
    broker.stop(WITHIN).await.unwrap();
    assert_eq!(whatsapp.ask(message(1_000, "Hi")).await.unwrap_err(), LocalError::Stopped);
    assert_eq!(broker.join(service("desk")).map(drop).unwrap_err(), JoinError::Stopped);
    while let Ok(delivery) = timeout(WITHIN, events.next()).await.unwrap() {
        assert!(delivery.position().is_some());
    }

    let broker = on_disk(directory.path());
    let (crm, mut events) = join(&broker, service("crm"));
    // The first was acknowledged and does not come again; every other that was acknowledged to its sender does.
    while !acknowledged.is_empty() {
        let again = next_message(&crm, &mut events).await;
        assert_ne!(again.offset, seen.offset);
        acknowledged.remove(again.message_id.as_str());
    }
    broker.stop(WITHIN).await.unwrap();
}

#[tokio::test]
async fn the_last_handle_that_is_dropped_frees_the_directory_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let broker = on_disk(directory.path());
        let (crm, mut events) = join(&broker, service("crm"));
        create(&crm).await;
        let (whatsapp, sends) = join(&broker, gateway());
        // What joined keeps it running.
        drop(broker);
        for id in 0..=round {
            let taken = whatsapp.ask(message(id, "Hi")).await.unwrap();
            assert_eq!((taken.channels, taken.duplicate), (1, id < round));
        }
        if round == 0 {
            assert_eq!(next_message(&crm, &mut events).await.message_id.as_str(), "wamid.0");
        }
        drop((crm, events, whatsapp, sends));
    }
}

#[tokio::test]
async fn a_newer_connection_of_the_name_ends_the_older_and_says_so() {
    let (broker, _journal) = in_memory();
    let (older, mut events) = join(&broker, service("crm"));
    create(&older).await;
    let (newer, _events) = join(&broker, service("crm"));
    let is_replaced = |error: LocalError| match error {
        LocalError::Ended(error) => assert_eq!(error.code, ErrorCode::Replaced),
        other => panic!("{other:?}"),
    };
    let ended = async {
        loop {
            if let Err(error) = events.next().await {
                return error;
            }
        }
    };
    is_replaced(timeout(WITHIN, ended).await.unwrap());
    is_replaced(older.ask(Ping {}).await.unwrap_err());
    create(&newer).await;
    assert_eq!(broker.join(service("books")).map(drop).unwrap_err(), JoinError::Unknown);
    broker.stop(WITHIN).await.unwrap();
}

#[tokio::test]
async fn a_watcher_needs_no_acknowledgement_and_holds_no_more_than_its_window() {
    let (broker, _journal) = in_memory();
    let (crm, _events) = join(&broker, service("crm"));
    let channel = create(&crm).await;
    let (whatsapp, _sends) = join(&broker, gateway());
    let hello = Hello {
        adapter: Some("eye".parse().unwrap()),
        window: 8,
        deliver: DeliverMode::Watch,
        ..service("crm")
    };
    let (watcher, mut seen) = join(&broker, hello);
    for id in 0..100 {
        whatsapp.ask(message(id, "Hi")).await.unwrap();
        // Asking takes what has come out of the broker, and must not let more in.
        watcher.ask(GetChannel { channel }).await.unwrap();
    }
    let of_watcher =
        || broker.sessions_seen().into_iter().find(|seen| seen.adapter.as_deref() == Some("eye"));
    let held = of_watcher().unwrap();
    assert_eq!((held.unacknowledged, held.in_flight), (8, 0), "its window is full until it looks");
    for id in 0..100 {
        let Delivery::Message(message) = next(&mut seen).await else { panic!("only messages") };
        assert_eq!(message.message_id.as_str(), format!("wamid.{id}"));
    }
    broker.stop(WITHIN).await.unwrap();
}

#[tokio::test]
async fn what_a_socket_could_not_bring_is_refused() {
    let (broker, _journal) = in_memory();
    let (crm, _events) = join(&broker, service("crm"));
    let channel = create(&crm).await;
    let code = |error: LocalError| error.code().unwrap();
    let name = "n".repeat(300);
    let agents = vec![Agent { agent: "ann".parse().unwrap(), name: name.as_str().into(), lead: false }];
    let roster = Roster { agents, replace: false, remove: Vec::new() };
    assert_eq!(code(crm.ask(roster).await.unwrap_err()), ErrorCode::BadMessage);
    let of = |content: &str| Reply {
        channel,
        to: Addressee::Conversation(ConversationId(1)),
        agent: None,
        reply_id: "r".parse().unwrap(),
        content: RawContent(content.to_owned().into()),
        seen: None,
        confirm: None,
    };
    assert_eq!(code(crm.ask(of("no object")).await.unwrap_err()), ErrorCode::BadMessage);
    let long = format!(r#"{{"type":"text","text":{{"body":"{}"}}}}"#, "x".repeat(2 << 20));
    assert_eq!(code(crm.ask(of(&long)).await.unwrap_err()), ErrorCode::TooLarge);
    assert_eq!(code(crm.request(service("crm")).await.unwrap_err()), ErrorCode::BadMessage);
    let nameless = Hello { adapter: None, ..service("crm") };
    assert!(
        matches!(broker.join(nameless), Err(JoinError::Refused(error)) if error.code == ErrorCode::BadMessage)
    );
    broker.stop(WITHIN).await.unwrap();
}
