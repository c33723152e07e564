//! The process is killed while services are told: what was not taken comes again with the same bytes, and what was taken
//! well before does not.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use crate::stand::{
    Broker, CUSTOMER, Callback, Gateway, ID, Lines, by_body, http as request, pause, sent, text_to, webhook,
};

#[test]
fn what_was_not_taken_when_the_process_was_killed_comes_again_as_it_was() {
    let server = Callback::start(|_| 200);
    let broker = Broker::start(&[("crm", String::new()), ("bot", webhook(&server))]);
    let mut crm = Lines::service(&broker, "crm");
    let channel = crm.create();
    crm.until_joined(&channel, 2);
    let gateway = Gateway::start(&broker, sent);
    let mut bringer = Lines::bringer(&broker);
    bringer.text("wamid.before", CUSTOMER, "before");
    assert_eq!(broker.post_as("bot", "r", &text_to(CUSTOMER, "answer")).0, 200);
    server.taken(2);
    // What is acknowledged is recorded once a second.
    pause(2_000);
    server.answer_with(|_| 503);
    for at in 0..10 {
        bringer.text(&format!("wamid.{at}"), &format!("165055500{at:02}"), &format!("m{at}"));
    }
    bringer.status("wamid.r", "delivered");
    server.until("each was tried", |told| {
        let tried: BTreeSet<&[u8]> =
            told.iter().filter(|told| told.answered == 503).map(|told| &*told.body).collect();
        tried.len() == 11
    });
    drop((gateway, crm, bringer));
    let broker = broker.kill_and_restart();
    server.until("they are tried again", |told| told.len() > 20);
    server.answer_with(|_| 200);
    let told =
        server.until("all were taken", |told| told.iter().filter(|told| told.answered == 200).count() >= 13);
    let counts = by_body(&told);
    assert_eq!(counts.len(), 13, "a repeat is the same bytes, also after a restart");
    let first: Vec<_> = told.iter().filter(|told| told.answered == 200).take(2).collect();
    assert!(first.iter().all(|told| counts[&told.body] == 1), "what was taken is not told again");
    drop(broker);
}

#[test]
fn what_an_interrupted_request_had_under_way_is_never_sent() {
    let broker = Broker::start(&[("crm", String::new()), ("bot", String::new())]);
    Lines::service(&broker, "crm").create();
    let http = broker.http;
    // The connection ends with the process.
    let posting = thread::spawn(move || {
        let body = text_to(CUSTOMER, "interrupted").to_string();
        let path = format!("/v23.0/{ID}/messages");
        std::panic::catch_unwind(|| {
            request(http, "POST", &path, &[("authorization", "Bearer bot")], body.as_bytes())
        })
    });
    pause(1_500);
    let broker = broker.kill_and_restart();
    assert!(posting.join().unwrap().is_err(), "it got no answer");
    let gateway = Gateway::start(&broker, sent);
    assert_eq!(broker.post_as("bot", "next", &text_to(CUSTOMER, "next")).0, 200);
    let names: Vec<_> = gateway.sends().iter().map(|send| send["reply_id"].clone()).collect();
    assert_eq!(names, ["next"]);
}

#[test]
fn a_stop_waits_for_no_endpoint_and_loses_nothing() {
    let server = Callback::start(|_| 0);
    let broker = Broker::start(&[("crm", String::new()), ("bot", webhook(&server))]);
    let mut crm = Lines::service(&broker, "crm");
    let channel = crm.create();
    crm.until_joined(&channel, 2);
    Lines::bringer(&broker).text("wamid.1", CUSTOMER, "still there");
    server.until("it is being told", |told| told.len() == 1);
    let (_broker, took) = broker.stop_and_restart();
    assert!(took < Duration::from_secs(8), "{took:?}");
    server.answer_with(|_| 200);
    assert_eq!(server.taken(1)[0]["value"]["messages"][0]["text"]["body"], "still there");
}
