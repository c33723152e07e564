//! What WhatsApp limits: it is sent again after a while, once, and nobody is told of anything but the outcome.

use std::time::{Duration, Instant};

use sharedline::domain::event::Status;
use sharedline::gateway::simulated::{Behaviour, Fate};

use super::stage::{Adapter, Stage};

#[tokio::test]
async fn a_rate_limit_of_the_number_pauses_it_for_as_long_as_meta_asks() {
    let stage = Stage::new().await;
    let (crm, desk) = (Adapter::enter(&stage, "crm").await, Adapter::enter(&stage, "desk").await);
    stage.graph.next([Behaviour::Refuse(130_429, Some(2))]);
    let began = Instant::now();
    crm.text("16505550001", "limited").await;
    stage.until_logged("replies wait").await;
    // It is about the number: whoever else replies waits as well.
    desk.text("16505550002", "behind").await;
    crm.until_told(&stage, "limited", &[Status::Sent]).await;
    desk.until_told(&stage, "behind", &[Status::Sent]).await;
    let seen = stage.graph.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0].fate, Fate::Refused(130_429));
    assert!(seen[1..].iter().all(|seen| seen.at - began >= Duration::from_secs(2)), "{seen:?}");
    assert_eq!(crm.receipts("limited"), [(Status::Sent, None)]);
    stage.end();
}

#[tokio::test]
async fn a_limit_of_one_customer_pauses_him_alone_and_keeps_his_order() {
    let stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    stage.graph.next([Behaviour::Refuse(131_056, None)]);
    crm.text("16505550001", "first").await;
    stage.until_seen("the refused one", |seen| seen.len() == 1).await;
    crm.text("16505550001", "second").await;
    let began = Instant::now();
    for n in 2..12 {
        crm.text(&format!("1650555{n:04}"), &format!("r-{n}")).await;
        crm.until_told(&stage, &format!("r-{n}"), &[Status::Sent]).await;
    }
    assert!(began.elapsed() < Duration::from_secs(3), "others waited for {:?}", began.elapsed());
    assert_eq!(stage.seen_by("16505550001").len(), 1);
    crm.until_told(&stage, "second", &[Status::Sent]).await;
    let seen = stage.seen_by("16505550001");
    let bodies: Vec<&str> = seen.iter().map(|seen| seen.body["text"]["body"].as_str().unwrap()).collect();
    assert_eq!(bodies, ["first", "first", "second"]);
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(4), "Meta's own advice: 4^n seconds");
    stage.end();
}

#[tokio::test]
async fn every_limit_that_meta_has_is_tried_again_and_no_other_refusal() {
    let stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    for (n, code) in [80_007, 4].into_iter().enumerate() {
        stage.graph.next([Behaviour::Refuse(code, None)]);
        let id = format!("r-{code}");
        crm.text(&format!("1650555{n:04}"), &id).await;
        crm.until_told(&stage, &id, &[Status::Sent]).await;
        let seen = stage.seen_by(&format!("1650555{n:04}"));
        assert_eq!(seen.len(), 2, "{code}");
        assert!(seen[1].at - seen[0].at >= Duration::from_secs(5), "{code}");
    }
    // For complaints of customers the pause is longer than this test: it waits, and has not failed.
    stage.graph.next([Behaviour::Refuse(131_048, None)]);
    crm.text("16505550009", "spam").await;
    stage.until_logged("code=131048").await;
    crm.text("16505550010", "behind").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((crm.receipts("spam"), crm.receipts("behind")), (vec![], vec![]));
    assert_eq!(stage.seen_by("16505550009").len(), 1);
    stage.end();
}

#[tokio::test]
async fn an_outage_does_not_make_a_whole_queue_unknown() {
    const REPLIES: usize = 200;
    let stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    stage.graph.otherwise(Behaviour::Status(503));
    for n in 0..REPLIES {
        crm.text(&format!("1650555{n:04}"), &format!("r-{n}")).await;
    }
    stage.until_logged("the number waits").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.graph.otherwise(Behaviour::Accept);
    for n in 0..REPLIES {
        let id = format!("r-{n}");
        crm.until(&stage, &format!("an outcome of {id}"), |crm| !crm.receipts(&id).is_empty()).await;
    }
    let is_unknown = |n: &usize| crm.receipts(&format!("r-{n}")) == [(Status::Unknown, None)];
    let unknown = (0..REPLIES).filter(is_unknown).count();
    // At 80 a second the queue would have been gone in 2.5 seconds.
    assert!((3..60).contains(&unknown), "{unknown} of {REPLIES} are unknown");
    stage.end();
}
