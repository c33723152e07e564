//! The budgets (B14) on the real thing: a campaign holds up no other service's agent, the number's rate is kept, and so
//! is what Meta lets one customer be sent.

use std::time::{Duration, Instant};

use serde_json::json;
use sharedline::domain::event::Status;

use super::stage::{Adapter, Setup, Stage};

/// How many messages a campaign of the tests has: minutes of the number's rate.
const CAMPAIGN: usize = 3_000;

#[tokio::test]
async fn a_campaign_of_thousands_delays_no_other_services_agent() {
    const RATE: u32 = 40;
    let stage = Stage::with(Setup { messages_per_second: RATE, ..Setup::default() }).await;
    let (crm, desk) = (Adapter::enter(&stage, "crm").await, Adapter::enter(&stage, "desk").await);
    let template = json!({"type": "template", "template": {"name": "sale", "language": {"code": "en"}}});
    let mut set = tokio::task::JoinSet::new();
    for n in 0..CAMPAIGN {
        let reply = crm.reply_of(&format!("1650{n:07}"), None, &format!("campaign-{n}"), &template);
        let client = crm.client();
        set.spawn(async move { client.request(reply).await.unwrap() });
    }
    while let Some(answer) = set.join_next().await {
        answer.unwrap();
    }
    assert!(stage.graph.seen().len() < CAMPAIGN / 2, "the campaign has not waited");
    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        let (to, id) = (format!("1651{n:07}"), format!("agent-{n}"));
        let began = Instant::now();
        desk.text(&to, &id).await;
        stage.until_seen(&id, |seen| seen.iter().any(|seen| seen.to == to)).await;
        slowest = slowest.max(began.elapsed());
    }
    // And so does CRM's own agent, before its campaign.
    crm.text("16520000000", "own-agent").await;
    crm.until_told(&stage, "own-agent", &[Status::Sent]).await;
    let seen = stage.graph.seen();
    assert!(seen.len() < CAMPAIGN / 2, "the campaign has not waited");
    assert!(slowest < Duration::from_secs(1), "an agent of Desk waited for {slowest:?}");
    println!(
        "beside a campaign of {CAMPAIGN} at {RATE} a second the slowest of 20 agent's replies took {slowest:?}"
    );
    keeps_to(RATE as usize, &seen.iter().map(|seen| seen.at).collect::<Vec<_>>());
    stage.end();
}

/// The rate is that of handing over; on the way through journal and socket a few come closer together.
fn keeps_to(rate: usize, at: &[Instant]) {
    for begin in at {
        let within = at.iter().filter(|at| *at >= begin && **at < *begin + Duration::from_secs(3)).count();
        assert!(within <= 4 * rate, "{within} messages in 3 seconds");
    }
}

#[tokio::test]
async fn one_customer_gets_45_at_once_and_then_one_every_6_seconds_and_others_go_on() {
    let stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    let began = Instant::now();
    for n in 0..47 {
        crm.text("16505550001", &format!("r-{n}")).await;
    }
    crm.until_told(&stage, "r-44", &[Status::Sent]).await;
    crm.text("16505550002", "other").await;
    crm.until_told(&stage, "other", &[Status::Sent]).await;
    assert!(began.elapsed() < Duration::from_secs(5), "the first 45 took {:?}", began.elapsed());
    assert_eq!(stage.seen_by("16505550001").len(), 45);
    crm.until_told(&stage, "r-46", &[Status::Sent]).await;
    let seen = stage.seen_by("16505550001");
    assert!(seen[45].at - began >= Duration::from_millis(5_500), "{:?}", seen[45].at - began);
    assert!(seen[46].at - seen[45].at >= Duration::from_millis(5_500), "{:?}", seen[46].at - seen[45].at);
    stage.end();
}

/// Everything that two services have to send to many customers is asked at once.
pub(super) async fn campaigns(of: &[&Adapter], each: usize) {
    let template = json!({"type": "template", "template": {"name": "sale", "language": {"code": "en"}}});
    let mut set = tokio::task::JoinSet::new();
    for n in 0..each {
        for (at, adapter) in of.iter().enumerate() {
            let reply = adapter.reply_of(&format!("165{at}{n:07}"), None, &format!("{at}-{n}"), &template);
            let client = adapter.client();
            set.spawn(async move { client.request(reply).await.unwrap() });
        }
    }
    while let Some(answer) = set.join_next().await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn a_heavier_service_has_more_of_the_rate_in_one_channel_and_in_channels_of_their_own() {
    for plan in ["bundle", "isolated"] {
        let setup = Setup { plan, weights: &[3, 1], messages_per_second: 40, ..Setup::default() };
        let stage = Stage::with(setup).await;
        let (crm, desk) = (Adapter::enter(&stage, "crm").await, Adapter::enter(&stage, "desk").await);
        campaigns(&[&crm, &desk], 400).await;
        let before = stage.graph.seen().len();
        stage.until_seen("its share", |seen| seen.len() >= before + 200).await;
        let seen = stage.graph.seen();
        let crms = seen[before..before + 200].iter().filter(|seen| seen.to.starts_with("1650")).count();
        assert!((140..=160).contains(&crms), "{plan}: of 200 the service of weight 3 had {crms}");
        stage.end();
    }
}

#[tokio::test]
async fn who_floods_one_customer_waits_alone_and_the_number_keeps_to_what_meta_lets_it() {
    let stage = Stage::with(Setup { plan: "isolated", ..Setup::default() }).await;
    let (crm, _desk) = (Adapter::enter(&stage, "crm").await, Adapter::enter(&stage, "desk").await);
    let (his, began) = ("16505550001", Instant::now());
    let text = |body: &str| json!({"type": "text", "text": {"body": body}});
    for n in 0..80 {
        let reply = crm.reply_of(his, None, &format!("flood-{n}"), &text(&format!("flood-{n}")));
        crm.ask(reply).await.unwrap();
    }
    crm.until_told(&stage, "flood-20", &[Status::Sent]).await;
    // Ten of Desk's come through at once though CRM has seventy that wait for the same customer.
    let flooded = Instant::now();
    for n in 0..10 {
        assert_eq!(stage.post_text("desk", his, &format!("desk-{n}")).await, (200, None), "{n}");
    }
    assert!(flooded.elapsed() < Duration::from_secs(5), "Desk waited for {:?}", flooded.elapsed());
    assert_eq!(stage.post_text("crm", his, "one more").await, (400, Some(131_056)), "behind its own");
    crm.text("16505550002", "other").await;
    crm.until_told(&stage, "other", &[Status::Sent]).await;
    let seen = stage.seen_by(his);
    let most = 45 + usize::try_from(began.elapsed().as_secs() / 6).unwrap();
    assert!(seen.len() <= most && seen.len() < 45, "{} of at most {most}", seen.len());
    stage.end();
}
