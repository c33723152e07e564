//! `/metrics`: the text, what moves which counter, what it never says, and that nobody waits for a scrape.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::Duration;

use sharedline::actors::counters::ERROR_CODES;
use sharedline::admin::metrics::table;
use sharedline::wire::message::requests::ThreadControl;
use sharedline::wire::message::{Addressee, ErrorCode, ThreadVerb, word_sets};

use crate::house::House;
use crate::openmetrics::{self, Scrape};
use crate::stage::{NUMBER, accepted, by, inbound, pick_up, reply, text_content, warned};

const DOCUMENT: &str = include_str!("../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../config/grafana-dashboard.json");

fn scrape(house: &House) -> Scrape {
    let answer = house.get("/metrics");
    assert_eq!(answer.status, 200);
    openmetrics::read(&answer.body)
}

#[tokio::test]
async fn a_scrape_is_openmetrics_text_and_says_every_metric_of_the_table_and_no_other() {
    let house = House::open();
    let (_peers, _) = house.stage.sharing(&["crm"]).await;
    let answer = house.get("/metrics");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(answer.head.contains(kind), "{}", answer.head);
    assert!(answer.body.ends_with("\n# EOF\n"));
    let found = openmetrics::read(&answer.body);
    let known: Vec<String> = table::all().map(|metric| metric.family()).collect();
    let names: BTreeSet<&String> = known.iter().collect();
    assert_eq!(names.len(), known.len(), "no name stands twice");
    assert_eq!(found.families.keys().collect::<BTreeSet<_>>(), names);
    for metric in table::all() {
        let family = &found.families[&metric.family()];
        assert_eq!(family.kind, metric.kind.as_str(), "{}", metric.name);
        assert_eq!(family.unit.as_deref(), metric.unit.map(|unit| unit.as_str()), "{}", metric.name);
        assert_eq!(family.help, metric.help);
        for sample in metric.samples() {
            let of_it: Vec<&String> =
                found.samples.keys().filter(|(name, _)| *name == sample).map(|(_, labels)| labels).collect();
            assert!(!of_it.is_empty(), "{sample} has no sample");
            for labels in of_it {
                let labels: Vec<&str> = labels
                    .split("\",")
                    .filter_map(|label| label.split_once("=\"").map(|(name, _)| name))
                    .filter(|name| *name != "le")
                    .collect();
                assert_eq!(labels, metric.labels, "{sample}");
            }
        }
    }
    assert_eq!(found.value("sharedline_webhook_responses_total", "status=\"401\""), 1.0);
    assert_eq!(found.value("sharedline_connections_limit", ""), 20_000.0);
}

#[tokio::test]
async fn what_happens_moves_the_metric_that_is_named_for_it_and_by_as_much() {
    let house = House::open();
    let (mut peers, channel) = house.stage.sharing(&["crm", "salesiq"]).await;
    let mut gateway = house.stage.gateway().await;
    let before = scrape(&house);
    gateway.text("wamid.1", "hello").await;
    gateway.text("wamid.1", "hello").await;
    gateway.ask(inbound_for("+15550783882")).await;
    for peer in &mut peers {
        let message = peer.next().await;
        peer.ack(&message).await;
    }
    let conversation = peers[0].conversation(channel).await;
    peers[0].ask(pick_up(channel, conversation, "ann")).await;
    warned(peers[1].ask(pick_up(channel, conversation, "bob")).await);
    peers[0].refused(pick_up(channel, conversation, "bob")).await;
    accepted(peers[0].ask(by("ann", reply(channel, conversation, "r1"))).await);
    accepted(peers[0].ask(by("ann", reply(channel, conversation, "r1"))).await);
    let (of, action) = (Addressee::Conversation(conversation), ThreadVerb::Take);
    let (to_service, metadata, agent) = (None, None, None);
    peers[0].ask(ThreadControl { channel, of, action, to_service, metadata, agent }).await;
    let send = gateway.send().await;
    let waiting = scrape(&house);
    gateway.sent(&send, "wamid.out").await;
    let after = scrape(&house);
    let moved = |name: &str, labels: &str| after.value(name, labels) - before.value(name, labels);
    assert_eq!(moved("sharedline_messages_total", "fate=\"recorded\""), 1.0);
    assert_eq!(moved("sharedline_messages_total", "fate=\"repeated\""), 1.0);
    assert_eq!(moved("sharedline_messages_total", "fate=\"unrouted\""), 1.0);
    assert_eq!(moved("sharedline_claims_total", "action=\"picked_up\""), 1.0);
    assert_eq!(moved("sharedline_claims_held", ""), 1.0);
    assert_eq!(moved("sharedline_threads_total", "action=\"taken\""), 1.0);
    assert_eq!(moved("sharedline_threads_noted", ""), 1.0);
    assert_eq!(moved("sharedline_warnings_total", ""), 1.0);
    assert_eq!(moved("sharedline_errors_total", "code=\"claimed\""), 1.0);
    assert_eq!(moved("sharedline_errors_total", "code=\"conflict\""), 0.0);
    assert_eq!(moved("sharedline_replies_total", ""), 1.0);
    assert_eq!(moved("sharedline_replies_repeated_total", ""), 1.0);
    assert_eq!(moved("sharedline_reply_attempts_total", ""), 1.0);
    assert_eq!(moved("sharedline_reply_outcomes_total", "status=\"sent\""), 1.0);
    assert_eq!(waiting.value("sharedline_replies_open", "state=\"handed\""), 1.0);
    assert_eq!(waiting.value("sharedline_gateway_replies", ""), 1.0);
    assert_eq!(after.value("sharedline_replies_open", "state=\"handed\""), 0.0);
    assert_eq!(moved("sharedline_conversations", ""), 1.0);
    assert_eq!(after.value("sharedline_channels", "state=\"active\""), 1.0);
    assert_eq!(after.value("sharedline_sessions", "kind=\"share\""), 2.0);
    assert_eq!(after.value("sharedline_sessions", "kind=\"gateway\""), 1.0);
    assert!(moved("sharedline_deliveries_total", "") >= 2.0);
    assert_eq!(moved("sharedline_deliveries_acknowledged_total", ""), 2.0);
    assert!(moved("sharedline_requests_total", "") >= 8.0);
    assert!(moved("sharedline_journal_commit_seconds_count", "") >= 1.0);
    assert!(moved("sharedline_journal_committed_records_total", "") >= 4.0);
    assert!(moved("sharedline_journal_committed_bytes_total", "") > 200.0);
    assert!(after.value("sharedline_journal_room_bytes", "") > 0.0);
    assert_eq!(after.value("sharedline_journal_has_room", ""), 1.0);
    let count = after.value("sharedline_journal_commit_seconds_count", "");
    assert_eq!(after.value("sharedline_journal_commit_seconds_bucket", "le=\"+Inf\""), count);
}

fn inbound_for(number: &str) -> sharedline::wire::message::requests::Inbound {
    let message = inbound("wamid.elsewhere", crate::stage::MARIA, &text_content("hello"));
    sharedline::wire::message::requests::Inbound { number: number.parse().unwrap(), ..message }
}

#[tokio::test]
async fn a_service_that_acknowledges_has_no_lag_and_one_that_does_not_has() {
    let house = House::open();
    let (mut peers, channel) = house.stage.sharing(&["crm", "desk"]).await;
    let mut gateway = house.stage.gateway().await;
    for at in 0..5 {
        gateway.text(&format!("wamid.{at}"), "hello").await;
    }
    let mut last = None;
    for _ in 0..5 {
        last = Some(peers[0].next().await);
    }
    peers[0].ack(&last.unwrap()).await;
    peers[0].settled(channel).await;
    let lag = |service: &str| {
        let labels = format!("portal=\"acme\",number=\"{NUMBER}\",service=\"{service}\"");
        scrape(&house).value("sharedline_lag_records", &labels)
    };
    // What it was not delivered, the records of acknowledgements among it, it passes by itself.
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while lag("crm") > 0.0 {
        assert!(std::time::Instant::now() < until, "its lag goes");
    }
    assert!(lag("desk") >= 5.0, "{}", lag("desk"));
    // One that is away falls behind like one that does not acknowledge.
    drop(peers.remove(0));
    gateway.text("wamid.more", "hello").await;
    while lag("crm") < 1.0 {
        assert!(std::time::Instant::now() < until, "its lag grows");
    }
}

#[tokio::test]
async fn no_scrape_holds_anything_of_a_customer_or_an_agent() {
    const CANARY: &str = "CANARY4711";
    let house = House::open();
    let (mut peers, channel) = house.stage.sharing(&["crm"]).await;
    let crm = &mut peers[0];
    let agent = format!("{CANARY}-agent");
    crm.roster(&[&agent]).await;
    let mut gateway = house.stage.gateway().await;
    let customer = format!("US.{CANARY}");
    let message = inbound(&format!("wamid.{CANARY}"), &customer, &text_content(CANARY));
    gateway.ask(message).await;
    crm.message().await;
    let conversation = crm.conversation(channel).await;
    crm.ask(pick_up(channel, conversation, &agent)).await;
    accepted(crm.ask(by(&agent, reply(channel, conversation, &format!("{CANARY}-reply")))).await);
    crm.refused(pick_up(channel, conversation, &format!("{CANARY}-stranger"))).await;
    let text = house.get("/metrics").body;
    assert!(openmetrics::read(&text).value("sharedline_claims_held", "") == 1.0, "all of that has happened");
    for secret in [CANARY, "secret-of-the-sender", &conversation.to_string()] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_scrape_waits_for_no_arbiter() {
    let house = House::open();
    let (_peers, _) = house.stage.sharing(&["crm"]).await;
    let mut held = Vec::new();
    for arbiter in house.stage.broker().arbiters() {
        let (let_go, wait) = mpsc::channel::<()>();
        let (blocked, is_blocked) = mpsc::channel();
        assert!(arbiter.spawn_fn(move || {
            blocked.send(()).unwrap();
            let _ = wait.recv_timeout(Duration::from_secs(60));
        }));
        is_blocked.recv().unwrap();
        held.push(let_go);
    }
    let found = scrape(&house);
    assert_eq!(found.value("sharedline_channels", "state=\"active\""), 1.0);
    assert_eq!(found.value("sharedline_sessions", "kind=\"share\""), 1.0);
    drop(held);
}

#[test]
fn every_error_code_of_the_protocol_is_counted() {
    let (_, words) = word_sets().iter().find(|(kind, _)| *kind == "error code").unwrap();
    let known: BTreeSet<&str> = words.iter().map(|(_, word)| *word).collect();
    assert_eq!(ERROR_CODES.iter().copied().collect::<BTreeSet<_>>(), known);
    assert!(known.contains(ErrorCode::Claimed.as_str()));
}

#[test]
fn the_documented_table_of_metrics_is_the_one_in_the_code() {
    let documented: Vec<&str> = DOCUMENT.lines().filter(|line| line.starts_with("| `sharedline_")).collect();
    let rows = table::all().map(|metric| {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let unit = metric.unit.map_or("", |unit| unit.as_str());
        let (family, kind) = (metric.family(), metric.kind.as_str());
        format!("| `{family}` | {kind} | {unit} | {} | {} |", labels.join(", "), metric.help)
    });
    let rows: Vec<String> = rows.collect();
    let described = documented.iter().filter(|line| line.matches(" | ").count() == 4).copied();
    assert_eq!(described.collect::<Vec<_>>(), rows);
}

/// Every word in a text that begins like the name of a metric.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("sharedline_"))
}

#[test]
fn every_query_of_the_dashboard_and_every_sign_to_watch_names_metrics_that_there_are() {
    let known: BTreeSet<String> = table::all().flat_map(|metric| metric.samples()).collect();
    let families: BTreeSet<String> = table::all().map(|metric| metric.family()).collect();
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets: Vec<&serde_json::Value> =
        panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten().collect();
    assert!(targets.len() > 30, "{}", targets.len());
    for target in targets {
        let query = target["expr"].as_str().unwrap();
        assert!(names_in(query).next().is_some(), "{query} asks for nothing of ours");
        for name in names_in(query) {
            assert!(known.contains(name), "{query}: there is no {name}");
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        for name in names_in(&variable["query"].to_string()) {
            assert!(known.contains(name), "there is no {name}");
        }
    }
    for name in names_in(DOCUMENT) {
        assert!(known.contains(name) || families.contains(name), "the document names {name}");
    }
    let places: BTreeSet<String> = panels.iter().map(|panel| panel["gridPos"].to_string()).collect();
    assert_eq!(places.len(), panels.len(), "no panel lies on another");
}
