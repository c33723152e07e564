//! Greeting: who is let in, who pushes out whom, and how a connection ends in order.

use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{GetChannel, Ping};
use sharedline::wire::message::{DeliverMode, ErrorCode, Response};

use crate::stage::{NUMBER, Stage, Tallied, by, reply};

pub(crate) async fn tokens_and_versions_are_checked(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let code = async |change: fn(&mut sharedline::wire::message::requests::Hello)| {
        let mut hello = stage.hello("acme", "crm", "one");
        change(&mut hello);
        stage.open(hello).await.err().map(|error| error.code)
    };
    assert_eq!(code(|_| {}).await, None);
    assert_eq!(code(|hello| hello.token = "desk".into()).await, Some(ErrorCode::Unauthenticated));
    assert_eq!(
        code(|hello| hello.portal = "nowhere".parse().unwrap()).await,
        Some(ErrorCode::Unauthenticated)
    );
    assert_eq!(code(|hello| hello.version = 2).await, Some(ErrorCode::UnsupportedVersion));
    assert_eq!(code(|hello| hello.adapter = None).await, Some(ErrorCode::BadMessage));
    let mut hello = stage.hello("acme", "crm", "one");
    hello.window = 1_000_000;
    assert_eq!(stage.open(hello).await.unwrap().welcome.window, 65_536);
    let mut hello = stage.hello("acme", "crm", "one");
    hello.window = 0;
    let mut peer = stage.open(hello).await.unwrap();
    assert_eq!((peer.welcome.window, peer.welcome.version), (1, 1));
    assert!(matches!(peer.ask(Ping {}).await, Response::Pong(_)));
    assert_eq!(peer.refused(stage.hello("acme", "crm", "one")).await, ErrorCode::BadMessage);
}

pub(crate) async fn a_newer_session_of_the_same_name_replaces_the_older_before_its_welcome(
    encoding: Encoding,
    tally: &Tallied,
) {
    let stage = Stage::set(encoding, tally);
    let older = stage.service("crm").await;
    let other = stage.open(stage.hello("acme", "crm", "two")).await.unwrap();
    let mut newer = stage.service("crm").await;
    assert_eq!(older.end().await, Some(ErrorCode::Replaced));
    assert!(matches!(newer.ask(Ping {}).await, Response::Pong(_)));
    let mut other = other;
    assert!(matches!(other.ask(Ping {}).await, Response::Pong(_)));
}

pub(crate) async fn a_gateway_takes_over_and_one_that_wants_nothing_replaces_nobody(
    encoding: Encoding,
    tally: &Tallied,
) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel) = stage.sharing(&["crm"]).await;
    let mut first = stage.gateway().await;
    first.text("wamid.1", "hello").await;
    let conversation = peers[0].conversation(channel).await;
    let mut quiet = stage.hello("acme", "whatsapp", "quiet");
    quiet.deliver = DeliverMode::None;
    quiet.adapter = None;
    let mut quiet = stage.open(quiet).await.unwrap();
    quiet.text("wamid.2", "from the quiet one").await;
    peers[0].ask(by("ann", reply(channel, conversation, "r1"))).await;
    let send = first.send().await;
    first.sent(&send, "wamid.r1").await;
    let mut second = stage.gateway().await;
    assert_eq!(first.end().await, Some(ErrorCode::Replaced));
    peers[0].ask(by("ann", reply(channel, conversation, "r2"))).await;
    assert_eq!(second.send().await.reply_id.as_str(), "r2");
    // A gateway asks for none of a service's things, and a service for none of a gateway's.
    assert_eq!(second.refused(GetChannel { channel }).await, ErrorCode::Forbidden);
    let inbound = crate::stage::inbound("wamid.3", crate::stage::MARIA, &crate::stage::text_content("x"));
    assert_eq!(peers[0].refused(inbound).await, ErrorCode::Forbidden);
}

pub(crate) async fn a_promised_ping_that_does_not_come_ends_the_connection(
    encoding: Encoding,
    tally: &Tallied,
) {
    let stage = Stage::set(encoding, tally);
    let mut hello = stage.hello("acme", "crm", "one");
    hello.heartbeat_ms = Some(50);
    let mut peer = stage.open(hello).await.unwrap();
    for _ in 0..5 {
        assert!(matches!(peer.ask(Ping {}).await, Response::Pong(_)));
    }
    assert_eq!(peer.end().await, Some(ErrorCode::Timeout));
}

pub(crate) async fn a_stop_says_goaway_and_ends_in_order(encoding: Encoding, tally: &Tallied) {
    let mut stage = Stage::set(encoding, tally);
    let (mut peers, _) = stage.sharing(&["crm"]).await;
    let mut crm = peers.remove(0);
    let mut gateway = stage.gateway().await;
    gateway.text("wamid.1", "before the stop").await;
    drop(gateway);
    let ending = async {
        let retry_after_ms = crm.goaway().await;
        assert!((100..=200).contains(&retry_after_ms), "{retry_after_ms}");
        assert_eq!(crm.end().await, None);
    };
    tokio::join!(stage.stop(), ending);
    stage.restart_stopped();
    let mut crm = stage.service("crm").await;
    assert_eq!(crm.welcome.channels.len(), 1);
    assert_eq!(crm.welcome.channels[0].number.as_str(), NUMBER);
    assert_eq!(crm.words(1).await, ["message wamid.1"]);
}
