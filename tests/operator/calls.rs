//! The admin API's door: who is let in, what is said of calls that can not be, and that the description is the truth.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sharedline::admin::api::{
    BODY_BYTES_MAX, BODY_WITHIN, CALLS_MAX, DESCRIPTION, DESCRIPTION_PATH, PREFIX, ROUTES,
};

use crate::house::{House, TOKEN, request};
use crate::openmetrics;
use crate::schema::offence;
use crate::stage::{MARIA, NUMBER, SOLO_NUMBER, inbound, pick_up, text_content};

fn description() -> Value {
    serde_json::from_str(DESCRIPTION).unwrap()
}

/// A path with ids in it that nobody has.
fn concrete(path: &str) -> String {
    let channel = format!("ch-{}", "0".repeat(32));
    format!("{PREFIX}{path}").replace("{channel}", &channel).replace("{conversation}", "cv-0000000000000000")
}

#[tokio::test]
async fn without_a_configured_token_all_is_403_and_with_a_wrong_one_401() {
    let off = House::with(None);
    let house = House::open();
    let right = format!("Bearer {TOKEN}");
    let wrong: [&[(&str, &str)]; 7] = [
        &[],
        &[("authorization", "Bearer wrong")],
        &[("authorization", "Bearer ")],
        &[("authorization", TOKEN)],
        &[("authorization", "Basic dGhlIG9wZXJhdG9yJ3MgdG9rZW4=")],
        &[("authorization", "Bearer the operator's token, and more")],
        &[("authorization", &right), ("authorization", &right)],
    ];
    for route in ROUTES {
        let (method, path) = (route.method.as_str(), concrete(route.path));
        let refused = request(off.address(), method, &path, &[("authorization", &right)], "{}");
        assert_eq!(refused.status, 403, "{method} {path}");
        assert!(refused.body.contains("admin_token_sha256"), "{}", refused.body);
        for headers in wrong {
            let refused = request(house.address(), method, &path, headers, "{}");
            assert_eq!(refused.status, 401, "{method} {path} {headers:?}");
            assert!(refused.head.contains("www-authenticate: bearer"), "{}", refused.head);
            let body: Value = serde_json::from_str(&refused.body).unwrap();
            assert_eq!(
                offence(&description(), &json!({"$ref": "#/components/schemas/Error"}), &body, "error"),
                None
            );
        }
        let through = request(house.address(), method, &path, &[("authorization", &right)], "{}");
        assert!(![401, 403, 405].contains(&through.status), "{method} {path}: {through:?}");
        let lower = right.replace("Bearer", "bearer");
        assert_ne!(request(house.address(), method, &path, &[("authorization", &lower)], "{}").status, 401);
    }
    let other = request(house.address(), "DELETE", &concrete("/channels"), &[("authorization", &right)], "");
    assert_eq!(other.status, 405);
    assert_eq!(house.get("/v1/admin/nothing").status, 404);
}

#[tokio::test]
async fn the_description_is_served_and_names_the_routes_that_there_are_and_no_others() {
    let house = House::open();
    let served = house.get(DESCRIPTION_PATH);
    assert_eq!((served.status, served.body.as_str()), (200, DESCRIPTION));
    assert!(served.head.contains("content-type: application/json"));
    let document = description();
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    let mut operations = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            described.insert((method.to_uppercase(), path.clone()));
            assert!(operations.insert(operation["operationId"].as_str().unwrap()), "{operation}");
            let parts: BTreeSet<&str> =
                path.split('{').skip(1).map(|rest| rest.split_once('}').unwrap().0).collect();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let named = parameters.filter(|parameter| parameter["in"] == "path");
            let named: BTreeSet<&str> = named.map(|parameter| parameter["name"].as_str().unwrap()).collect();
            assert_eq!(named, parts, "{method} {path}");
            assert_eq!(operation["requestBody"].is_object(), method == "post", "{method} {path}");
        }
    }
    let routes: BTreeSet<(String, String)> =
        ROUTES.iter().map(|route| (route.method.to_string(), format!("{PREFIX}{}", route.path))).collect();
    assert_eq!(routes.len(), ROUTES.len());
    assert_eq!(described, routes);
    let text = DESCRIPTION;
    for reference in text.split("\"$ref\": \"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}

/// The route's answer must be as its description says; gives it back.
fn held(document: &Value, path: &str, method: &str, (status, value): (u16, Value)) -> Value {
    let described = &document["paths"][format!("{PREFIX}{path}")][method.to_lowercase()]["responses"];
    let mut response = &described[status.to_string()];
    assert!(!response.is_null(), "{method} {path}: {status} is not described: {value}");
    if let Some(reference) = response["$ref"].as_str() {
        response = document.pointer(reference.trim_start_matches('#')).unwrap();
    }
    let schema = &response["content"]["application/json"]["schema"];
    assert_eq!(offence(document, schema, &value, &format!("{method} {path}")), None);
    value
}

#[tokio::test]
async fn every_route_answers_as_its_description_says() {
    let house = House::open();
    let document = description();
    let mut asked = BTreeSet::new();
    let mut get = |template: &'static str, path: &str| {
        asked.insert(("GET", template));
        held(&document, template, "GET", house.look(path))
    };
    let (mut peers, channel) = house.stage.sharing(&["crm", "desk"]).await;
    let mut gateway = house.stage.gateway().await;
    gateway.ask(inbound("wamid.1", MARIA, &text_content("hello"))).await;
    let conversation = peers[0].conversation(channel).await;
    peers[0].ask(pick_up(channel, conversation, "ann")).await;
    peers[1].roster(&["dan"]).await;
    let health = get("/health", "/health");
    assert_eq!((&health["ready"], &health["sessions"]["share"]), (&true.into(), &2.into()));
    assert_eq!(get("/portals", "/portals")["portals"].as_array().unwrap().len(), 3);
    let sessions = get("/sessions", "/sessions?portal=acme");
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 3);
    assert_eq!(get("/sessions", "/sessions?portal=other")["sessions"], json!([]));
    let listed = get("/channels", "/channels");
    assert_eq!(listed["channels"][0]["portal"], "acme");
    let shown = get("/channels/{channel}", &format!("/channels/{channel}"));
    assert_eq!((&shown["parent"], &shown["quarantined"]), (&"crm".into(), &false.into()));
    let of_channel = "/channels/{channel}/conversations";
    let list = get(of_channel, &format!("/channels/{channel}/conversations?as=crm&claimed=true"));
    assert_eq!(list["conversations"][0]["claims"][0]["agent"], "ann");
    let one = "/channels/{channel}/conversations/{conversation}";
    let opened = get(one, &format!("/channels/{channel}/conversations/{conversation}?as=desk&limit=5"));
    assert_eq!(opened["claims"], json!([{"own": false}]));
    let mut post = |template: &'static str, path: &str, body: Value| {
        asked.insert(("POST", template));
        held(&document, template, "POST", house.tell(path, &body))
    };
    let base = format!("/channels/{channel}");
    post("/channels", "/channels", json!({"portal": "acme", "service": "salesiq", "number": NUMBER}));
    let away =
        post("/channels/{channel}/deactivate", &format!("{base}/deactivate"), json!({"service": "salesiq"}));
    assert_eq!(away["changed"], true);
    post(
        "/channels/{channel}/activate",
        &format!("{base}/activate"),
        json!({"service": "salesiq", "backfill": true}),
    );
    post("/channels/{channel}/delete", &format!("{base}/delete"), json!({"service": "salesiq"}));
    let base = format!("{base}/conversations/{conversation}");
    let transfer = "/channels/{channel}/conversations/{conversation}/transfer";
    post(transfer, &format!("{base}/transfer"), json!({"service": "crm", "holder": "ann", "to": "bob"}));
    let release = "/channels/{channel}/conversations/{conversation}/release";
    post(release, &format!("{base}/release"), json!({"service": "crm", "holder": "bob"}));
    // What is refused is described as well.
    post(release, &format!("{base}/release"), json!({"service": "crm", "holder": "bob"}));
    let routes: BTreeSet<(&str, &str)> =
        ROUTES.iter().map(|route| (route.method.as_str(), route.path)).collect();
    assert_eq!(asked, routes, "every route was asked");
}

#[tokio::test]
async fn what_can_not_be_is_refused_with_what_is_wrong() {
    let house = House::open();
    let (_peers, channel) = house.stage.sharing(&["crm"]).await;
    let base = format!("/channels/{channel}");
    let nobodys = format!("/channels/ch-{}", "0".repeat(32));
    let get = |path: &str, status: u16, says: &str| {
        let (found, value) = house.look(path);
        assert_eq!(found, status, "{path}: {value}");
        assert!(value["message"].as_str().unwrap().contains(says), "{path}: {value}");
    };
    get("/health?verbose", 400, "no parameters");
    get(&format!("{base}/conversations"), 400, "as is needed");
    get(&format!("{base}/conversations?as=crm&as=desk"), 400, "as stands twice");
    get(&format!("{base}/conversations?as=crm&claimd=true"), 400, "claimed");
    get(&format!("{base}/conversations?as=crm&claimed=perhaps"), 400, "claimed:");
    get(&format!("{base}/conversations?as=c%2Frm"), 400, "as:");
    get(&format!("{base}/conversations?as=desk"), 409, "not subscribed");
    get(&format!("{base}/conversations/cv-0000000000000000?as=crm"), 404, "not found");
    get(&format!("{base}/conversations/1?as=crm"), 404, "not found");
    get("/channels/ch-1", 404, "not found");
    get(&nobodys, 404, "not found");
    get(&format!("{nobodys}/conversations?as=crm"), 404, "not found");
    let post = |path: &str, body: &str, status: u16, code: &str| {
        let (found, value) = house.ask("POST", path, body);
        assert_eq!((found, value["code"].as_str().unwrap()), (status, code), "{path} {body}: {value}");
    };
    let create = |portal: &str, service: &str, number: &str| {
        json!({"portal": portal, "service": service, "number": number}).to_string()
    };
    post("/channels", "", 400, "bad_message");
    post("/channels", "{", 400, "bad_message");
    post("/channels", "[]", 400, "bad_message");
    post("/channels", "\u{ff}", 400, "bad_message");
    post("/channels", r#"{"portal":"acme","service":"crm"}"#, 400, "bad_message");
    let more = r#"{"portal":"acme","service":"crm","number":"+15550783881","force":true}"#;
    post("/channels", more, 400, "bad_message");
    post("/channels", &create("acme", "crm", "15550783881x"), 400, "bad_message");
    post("/channels", &create("nobody", "crm", NUMBER), 404, "not_found");
    post("/channels", &create("acme", "nobody", NUMBER), 404, "not_found");
    post("/channels", &create("acme", "crm", "+15559999999"), 404, "not_found");
    post("/channels", &create("acme", "crm", SOLO_NUMBER), 409, "number_taken");
    post("/channels", &" ".repeat(BODY_BYTES_MAX + 1), 413, "too_large");
    let activate = format!("{base}/activate");
    post(&activate, r#"{"service":"desk"}"#, 409, "not_subscribed");
    post(&format!("{base}/deactivate"), r#"{"service":"crm","backfill":true}"#, 400, "bad_message");
    post(&format!("{nobodys}/delete"), r#"{"service":"crm"}"#, 404, "not_found");
    let conversation = format!("{base}/conversations/cv-0000000000000000");
    post(&format!("{conversation}/release"), r#"{"service":"crm","holder":"ann"}"#, 404, "not_found");
    post(&format!("{conversation}/release"), r#"{"service":"crm"}"#, 400, "bad_message");
    post(&format!("{conversation}/transfer"), r#"{"service":"crm","holder":"ann"}"#, 400, "bad_message");
    assert_eq!(house.look(&base).1["subscribers"], json!(["crm"]), "nothing has changed");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408_and_ends_the_connection() {
    let house = House::open();
    let (document, began) = (description(), Instant::now());
    let mut stream = TcpStream::connect(house.address()).unwrap();
    stream.set_read_timeout(Some(3 * BODY_WITHIN)).unwrap();
    let head = format!(
        "POST {PREFIX}/channels HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 9\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(began.elapsed() >= BODY_WITHIN, "{:?}", began.elapsed());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    let said = held(&document, "/channels", "POST", (408, serde_json::from_str(body).unwrap()));
    assert_eq!(
        (&said["code"], &said["message"]),
        (&json!("bad_message"), &json!("the body did not come in time"))
    );
    assert_eq!(house.look("/channels").1["channels"], json!([]), "nothing was done");
}

#[tokio::test]
async fn a_broker_that_has_stopped_is_503_and_says_so() {
    let mut house = House::open();
    let (_peers, channel) = house.stage.sharing(&["crm"]).await;
    let document = description();
    house.stage.stop().await;
    for (template, method, (status, said)) in [
        (
            "/channels",
            "POST",
            house.tell("/channels", &json!({"portal": "acme", "service": "desk", "number": NUMBER})),
        ),
        (
            "/channels/{channel}/activate",
            "POST",
            house.tell(&format!("/channels/{channel}/activate"), &json!({"service": "crm"})),
        ),
        (
            "/channels/{channel}/conversations",
            "GET",
            house.look(&format!("/channels/{channel}/conversations?as=crm")),
        ),
    ] {
        let said = held(&document, template, method, (status, said));
        assert_eq!((status, &said["code"]), (503, &json!("unavailable")), "{method} {template}: {said}");
    }
    // What needs no channel's actor is answered all the same.
    for path in ["/health", &format!("/channels/{channel}")] {
        assert_eq!(house.look(path).0, 200, "{path}");
    }
}

#[tokio::test]
async fn calls_at_once_are_bounded_and_who_comes_later_is_told_so() {
    let house = House::open();
    let mut dawdlers = Vec::new();
    for _ in 0..CALLS_MAX {
        let mut stream = TcpStream::connect(house.address()).unwrap();
        let head = format!(
            "POST {PREFIX}/channels HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 9\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        dawdlers.push(stream);
    }
    let until = Instant::now() + Duration::from_secs(20);
    let comes_to = |wanted: u16| {
        while house.look("/health").0 != wanted {
            assert!(Instant::now() < until, "{wanted} does not come");
        }
    };
    comes_to(503);
    assert_eq!(house.look("/health").1["code"], "overloaded");
    let seen = openmetrics::read(&house.get("/metrics").body);
    assert_eq!(seen.value("sharedline_admin_calls", ""), seen.value("sharedline_admin_calls_limit", ""));
    assert!(seen.value("sharedline_admin_responses_total", "status=\"503\"") >= 1.0);
    drop(dawdlers);
    comes_to(200);
}
