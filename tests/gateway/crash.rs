//! SIGKILL at each point of a send, against a Graph API that never saw it, saw it and died, lost the answer, or was slow:
//! after the restart nothing is sent twice, and what is said of each reply is what can be known.

use std::time::Duration;

use serde_json::json;
use sharedline::domain::event::Status;
use sharedline::gateway::simulated::{Behaviour, Fate, Graph};

use super::stage::{Adapter, Setup, Stage, free_address, graph_settings};

#[tokio::test]
async fn killed_while_the_answer_is_on_its_way_a_reply_is_unknown_until_a_status_tells() {
    let mut stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    // It was taken; the answer is slow, or never comes.
    stage.graph.towards("16505550001", Behaviour::Slow(Duration::from_secs(30)));
    stage.graph.towards("16505550002", Behaviour::Hang);
    crm.text("16505550001", "slow").await;
    crm.text("16505550001", "behind").await;
    crm.text("16505550002", "hangs").await;
    stage.until_seen("both", |seen| seen.len() == 2).await;
    stage.kill();
    stage.graph.towards("16505550001", Behaviour::Accept);
    stage.start();
    crm.until_told(&stage, "slow", &[Status::Unknown]).await;
    crm.until_told(&stage, "hangs", &[Status::Unknown]).await;
    // What had only been accepted goes on as if nothing had been.
    crm.until_told(&stage, "behind", &[Status::Sent]).await;
    let seen = stage.graph.seen();
    assert_eq!(seen.len(), 3, "{seen:?}");
    stage.status(&seen[0], "delivered", true).await;
    crm.until_told(&stage, "slow", &[Status::Unknown, Status::Sent, Status::Delivered]).await;
    // A status that came while the broker was away comes again; it tells as well.
    stage.kill();
    stage.start();
    stage.status(&seen[1], "read", true).await;
    crm.until_told(&stage, "hangs", &[Status::Unknown, Status::Sent, Status::Read]).await;
    stage.end();
}

#[tokio::test]
async fn killed_after_whatsapp_saw_it_and_died_a_reply_stays_unknown_and_is_not_sent_again() {
    let mut stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    stage.graph.towards("16505550001", Behaviour::CloseRead);
    stage.graph.towards("16505550002", Behaviour::LoseAnswer);
    crm.text("16505550001", "died").await;
    crm.text("16505550002", "lost").await;
    stage.until_seen("both", |seen| seen.len() == 2).await;
    stage.kill();
    stage.start();
    crm.until_told(&stage, "died", &[Status::Unknown]).await;
    crm.until_told(&stage, "lost", &[Status::Unknown]).await;
    crm.text("16505550003", "next").await;
    crm.until_told(&stage, "next", &[Status::Sent]).await;
    assert_eq!(stage.graph.seen().len(), 3);
    stage.end();
}

#[tokio::test]
async fn killed_before_whatsapp_ever_saw_it_a_reply_leaves_once_after_the_restart() {
    // Nobody listens there: every attempt fails before anything is written, and is closed by a record.
    let port = free_address().port();
    let mut stage = Stage::with(Setup { graph_port: port, ..Setup::default() }).await;
    let crm = Adapter::enter(&stage, "crm").await;
    crm.text("16505550001", "early").await;
    crm.text("16505550001", "behind").await;
    stage.until_logged("replies wait").await;
    // Its record is durable within moments; a kill before that makes the reply unknown, which is right as well.
    tokio::time::sleep(Duration::from_millis(300)).await;
    stage.kill();
    let late = Graph::start(port, graph_settings()).await.unwrap();
    stage.start();
    crm.until_told(&stage, "behind", &[Status::Sent]).await;
    assert_eq!(crm.receipts("early"), [(Status::Sent, None)]);
    assert_eq!(late.seen().len(), 2);
    stage.end();
}

#[tokio::test]
async fn killed_while_a_limit_holds_it_back_a_reply_waits_again_and_is_not_unknown() {
    let mut stage = Stage::new().await;
    let crm = Adapter::enter(&stage, "crm").await;
    stage.graph.next([Behaviour::Refuse(131_048, None)]);
    crm.text("16505550001", "limited").await;
    stage.until_logged("replies wait").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stage.kill();
    stage.start();
    crm.until_told(&stage, "limited", &[Status::Sent]).await;
    let fates: Vec<Fate> = stage.graph.seen().into_iter().map(|seen| seen.fate).collect();
    assert_eq!(fates[0], Fate::Refused(131_048));
    assert_eq!(fates.len(), 2);
    stage.end();
}

/// A small generator of its own, so that a run can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test]
async fn killed_at_any_moment_nothing_is_sent_twice_and_every_outcome_is_true() {
    const ROUNDS: u64 = 8;
    const PER_ROUND: u64 = 40;
    let mut stage = Stage::with(Setup { messages_per_second: 400, ..Setup::default() }).await;
    let crm = Adapter::enter(&stage, "crm").await;
    let mut dice = Dice(4_711);
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let behaviours = (0..PER_ROUND).map(|_| match dice.roll(12) {
            0 => Behaviour::CloseRead,
            1 => Behaviour::LoseAnswer,
            2 => Behaviour::CloseUnread,
            3 => Behaviour::Status(500),
            4 => Behaviour::Slow(Duration::from_millis(400)),
            5 => Behaviour::Refuse(130_429, None),
            6 => Behaviour::Refuse(131_026, None),
            _ => Behaviour::Accept,
        });
        stage.graph.next(behaviours.collect::<Vec<_>>());
        let began = stage.graph.seen().len();
        // Two replies for every other customer, so that some stand behind another.
        let mut asks = Vec::new();
        for n in 0..PER_ROUND {
            let id = format!("r-{round}-{n}");
            let content = json!({"type": "text", "text": {"body": id}});
            asks.push(crm.ask(crm.reply_of(&format!("1650{round:03}{:04}", n * 2 / 3), None, &id, &content)));
            all.push(id);
        }
        let enough = began + usize::try_from(dice.roll(PER_ROUND)).unwrap();
        let accepted = async {
            for ask in asks {
                ask.await.unwrap();
            }
        };
        let killed = async {
            stage.until_seen("enough", |seen| seen.len() >= enough.min(began + 20)).await;
            tokio::time::sleep(Duration::from_millis(dice.roll(30))).await;
            stage.kill();
            stage.start();
        };
        tokio::join!(accepted, killed);
    }
    stage.graph.otherwise(Behaviour::Accept);
    for id in &all {
        crm.until(&stage, &format!("an outcome of {id}"), |crm| !crm.receipts(id).is_empty()).await;
    }
    let seen = stage.graph.seen();
    let mut unknown = 0;
    for id in &all {
        let of_it: Vec<_> = seen.iter().filter(|seen| seen.body["text"]["body"] == id.as_str()).collect();
        let taken = of_it.iter().filter(|seen| seen.message_id().is_some()).count();
        assert!(taken <= 1, "{id} was taken {taken} times");
        match crm.receipts(id).as_slice() {
            [(Status::Sent, None)] => assert_eq!(taken, 1, "{id} is sent, they say"),
            [(Status::Failed, Some(code))] => {
                assert_eq!((taken, code.as_str()), (0, "131026"), "{id} has failed, they say");
            }
            [(Status::Unknown, None)] => {
                unknown += 1;
                // Nothing came after what nobody can know.
                let last = of_it.last().map(|seen| &seen.fate);
                assert!(!matches!(last, Some(Fate::Refused(131_026))) || of_it.len() <= 1, "{id}: {of_it:?}");
            }
            other => panic!("{id}: {other:?}"),
        }
    }
    println!("{} replies, {unknown} of them unknown, {} requests, {ROUNDS} kills", all.len(), seen.len());
    // A status ends every doubt of what was taken.
    for taken in seen.iter().filter(|seen| seen.message_id().is_some()) {
        stage.status(taken, "delivered", true).await;
    }
    for taken in seen.iter().filter(|seen| seen.message_id().is_some()) {
        let id = taken.body["text"]["body"].as_str().unwrap().to_owned();
        let is_so = |crm: &Adapter| crm.receipts(&id).last().is_some_and(|last| last.0 == Status::Delivered);
        crm.until(&stage, &format!("{id} delivered"), is_so).await;
    }
    stage.end();
}
