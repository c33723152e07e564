//! SIGHUP under a gateway that is sending: with what, how fast and for whom it sends changes, and no reply is lost or sent
//! twice by that.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sharedline::config::TokenHash;
use sharedline::domain::event::Status;
use sharedline::gateway::simulated::{Behaviour, Graph, Settings};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::stage::{ACCESS_TOKEN, Adapter, PHONE_NUMBER_ID, Setup, Stage};

const NEXT_TOKEN: &str = "EAAJB-the-next-token";

/// The Graph API as it is after the change: elsewhere, with another token, which alone it takes.
async fn next_graph() -> Graph {
    let settings =
        Settings { phone_number_id: PHONE_NUMBER_ID.to_owned(), access_token: NEXT_TOKEN.to_owned() };
    Graph::start(0, settings).await.unwrap()
}

#[tokio::test]
async fn another_token_and_another_graph_api_hold_from_the_reload_on_and_no_reply_is_lost_or_doubled() {
    let stage = Stage::with(Setup { messages_per_second: 200, ..Setup::default() }).await;
    let crm = Adapter::enter(&stage, "crm").await;
    let next = next_graph().await;
    for n in 0..300 {
        let text = json!({"type": "text", "text": {"body": format!("r-{n}")}});
        let reply = crm.reply_of(&format!("1650{n:07}"), None, &format!("r-{n}"), &text);
        crm.ask(reply).await.unwrap();
        if n == 150 {
            stage.until_seen("some of them", |seen| seen.len() >= 20).await;
            let (old, new) = (stage.graph.address().to_string(), next.address().to_string());
            stage.reload(&[(&old, &new), (ACCESS_TOKEN, NEXT_TOKEN)]).await;
        }
    }
    for n in 0..300 {
        crm.until_told(&stage, &format!("r-{n}"), &[Status::Sent]).await;
    }
    let (before, after) = (stage.graph.seen(), next.seen());
    assert_eq!((before.len() + after.len(), stage.graph.wrongs(), next.wrongs()), (300, vec![], vec![]));
    assert!(after.len() >= 100, "{} went the new way", after.len());
    let mut all: Vec<String> = before.iter().chain(&after).map(|seen| seen.to.clone()).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 300);
    stage.end();
}

#[tokio::test]
async fn what_meta_has_refused_for_now_is_tried_again_with_the_new_token() {
    let stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    let next = next_graph().await;
    stage.graph.next([Behaviour::Refuse(130_429, Some(2))]);
    crm.text("16505551234", "waits").await;
    stage.until_seen("the attempt", |seen| !seen.is_empty()).await;
    let (old, new) = (stage.graph.address().to_string(), next.address().to_string());
    stage.reload(&[(&old, &new), (ACCESS_TOKEN, NEXT_TOKEN)]).await;
    crm.until_told(&stage, "waits", &[Status::Sent]).await;
    assert_eq!((stage.graph.seen().len(), next.seen().len()), (1, 1));
    stage.end();
}

#[tokio::test]
async fn another_rate_and_other_weights_hold_from_the_reload_on() {
    let stage = Stage::with(Setup { messages_per_second: 10, ..Setup::default() }).await;
    let (crm, desk) = (Adapter::enter(&stage, "crm").await, Adapter::enter(&stage, "desk").await);
    super::fair::campaigns(&[&crm, &desk], 300).await;
    assert!(stage.graph.seen().len() < 200);
    stage
        .reload(&[("messages_per_second = 10", "messages_per_second = 80"), ("weight = 1", "weight = 4")])
        .await;
    // Both weigh four now, which is as if both weighed one; then one of them alone.
    let desk_before = format!("id = \"desk\"\ntoken_sha256 = \"{}\"\nweight = 4", TokenHash::of("desk"));
    let desk_now = desk_before.replace("weight = 4", "weight = 1");
    stage.reload(&[(&desk_before, &desk_now)]).await;
    let (before, began) = (stage.graph.seen().len(), Instant::now());
    stage.until_seen("the rest", |seen| seen.len() >= before + 200).await;
    assert!(began.elapsed() < Duration::from_secs(10), "200 at 80 a second took {:?}", began.elapsed());
    let seen = stage.graph.seen();
    let crms = seen[before..before + 200].iter().filter(|seen| seen.to.starts_with("1650")).count();
    assert!((145..=170).contains(&crms), "of 200 the service of weight 4 had {crms}");
    stage.end();
}

/// A gateway over TCP that takes what it is sent.
struct TcpGateway(BufReader<TcpStream>);

impl TcpGateway {
    async fn enter(stage: &Stage) -> Self {
        let mut gateway = Self(BufReader::new(TcpStream::connect(stage.tcp).await.unwrap()));
        gateway
            .write(&json!({"type": "hello", "id": 1, "version": 1, "portal": "acme", "gateway": "own", "token": "own"}))
            .await;
        assert_eq!(gateway.next().await["type"], "welcome");
        gateway
    }

    async fn write(&mut self, line: &Value) {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn next(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The next reply that it is to send, which it sends.
    async fn sends(&mut self) -> String {
        loop {
            let said = self.next().await;
            if said["type"] == "send" {
                let sent = json!({"type": "sent", "id": 2, "channel": said["channel"], "offset": said["offset"],
                    "message_id": format!("wamid.{}", said["reply_id"].as_str().unwrap())});
                self.write(&sent).await;
                return said["reply_id"].as_str().unwrap().to_owned();
            }
        }
    }
}

#[tokio::test]
async fn a_number_goes_over_to_a_gateway_of_its_own_and_back_and_what_was_posted_keeps_its_outcome() {
    let stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    stage.graph.next([Behaviour::Slow(Duration::from_secs(2))]);
    crm.text("16505550001", "posted").await;
    stage.until_seen("the first", |seen| !seen.is_empty()).await;
    let gateway = format!(
        "[[portals.gateways]]\nid = \"own\"\ntoken_sha256 = \"{}\"\n[[portals.numbers]]\ngateway = \"own\"\n",
        TokenHash::of("own")
    );
    stage.reload(&[("[[portals.numbers]]\n", &gateway)]).await;
    let mut own = TcpGateway::enter(&stage).await;
    crm.text("16505550002", "over TCP").await;
    assert_eq!(own.sends().await, "over TCP");
    crm.until_told(&stage, "over TCP", &[Status::Sent]).await;
    crm.until_told(&stage, "posted", &[Status::Sent]).await;
    stage.reload(&[("gateway = \"own\"", "gateway = \"builtin\"")]).await;
    crm.text("16505550003", "posted again").await;
    crm.until_told(&stage, "posted again", &[Status::Sent]).await;
    assert_eq!(stage.graph.seen().len(), 2);
    stage.end();
}

#[tokio::test]
async fn a_configuration_that_can_not_send_is_refused_whole_and_the_one_before_goes_on_sending() {
    let stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    stage
        .reload_refused(&[
            ("graph_url = \"http://", "graph_url = \"nowhere://"),
            ("weight = 1", "weight = 9"),
        ])
        .await;
    crm.text("16505551234", "as before").await;
    crm.until_told(&stage, "as before", &[Status::Sent]).await;
    stage.end();
}
