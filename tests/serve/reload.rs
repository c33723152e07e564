//! SIGHUP.

use crate::stage::{NUMBER, Stage, portal, service, usual};

#[test]
fn sighup_takes_tokens_and_services_over_without_a_break_for_who_is_entitled() {
    let stage = Stage::new();
    stage.configure("", "", &usual());
    let serving = stage.serve();
    let (mut crm, mut desk) = (serving.adapter("crm", "crm"), serving.adapter("desk", "desk"));
    let created = crm.ask(&format!(r#"{{"type":"create_channel","id":2,"number":"{NUMBER}"}}"#));
    assert_eq!(created["created"], true);
    assert_eq!(crm.next()["type"], "membership");
    let joined = desk.ask(&format!(r#"{{"type":"create_channel","id":2,"number":"{NUMBER}"}}"#));
    assert_eq!(joined["joined"], true);
    assert_eq!(crm.next()["service"], "desk");
    stage.configure("", "", &portal(&[service("crm", "crm"), service("salesiq", "fresh")]));
    serving.reload(1);
    let (mut end, mut error) = (desk.next(), String::new());
    while !end.is_null() {
        if end["type"] == "error" {
            error = end["code"].as_str().unwrap().to_owned();
        }
        end = desk.next();
    }
    assert_eq!(error, "revoked");
    let left = crm.next();
    assert_eq!((&left["action"], &left["service"]), (&"deactivated".into(), &"desk".into()));
    assert_eq!(crm.ask(r#"{"type":"ping","id":3}"#)["type"], "pong");
    serving.adapter("salesiq", "fresh");
}

#[test]
fn what_is_wrong_or_breaks_what_exists_is_refused_and_logged_and_everything_stays() {
    let stage = Stage::new();
    stage.configure("", "", &usual());
    let serving = stage.serve();
    let mut crm = serving.adapter("crm", "crm");
    crm.ask(&format!(r#"{{"type":"create_channel","id":2,"number":"{NUMBER}"}}"#));
    crm.next();
    let refused = "the reload is refused";
    stage.configure("ack_timeout = \"never\"", "", &portal(&[]));
    serving.signal("-HUP");
    serving.logs(refused, 1);
    serving.logs("tcp.ack_timeout = \"never\"", 1);
    stage.configure("", "", &portal(&[service("crm", "crm")]).replace(NUMBER, "+15550783999"));
    serving.signal("-HUP");
    serving.logs(refused, 2);
    serving.logs(&format!("number {NUMBER} has a channel in portal acme"), 1);
    assert_eq!(crm.ask(r#"{"type":"ping","id":3}"#)["type"], "pong");
    serving.adapter("desk", "desk");
    stage.configure("", "", &format!("[journal]\ndurability = \"os\"\n{}", usual()));
    serving.reload(1);
    serving.logs("journal.durability", 1);
    assert!(!serving.log().contains("panicked"), "{}", serving.log());
}

#[test]
fn a_second_sigterm_ends_it_now() {
    let stage = Stage::new();
    stage.configure("", "", &format!("[limits]\ndrain_timeout = \"10m\"\n{}", usual()));
    let mut serving = stage.serve();
    // A webhook that never comes to its end keeps the drain from ending.
    let mut stuck = crate::stage::plain(serving.http);
    std::io::Write::write_all(
        &mut stuck,
        b"POST /webhooks/whatsapp HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
    )
    .unwrap();
    let peer = serving.adapter("crm", "crm");
    serving.signal("-TERM");
    serving.logs("stopping", 1);
    serving.signal("-TERM");
    assert_eq!(serving.ended(), 1);
    drop((stuck, peer));
}
