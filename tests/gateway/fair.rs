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
