//! The console: its files as they are served, and in a real browser what an operator sees and does there.

use serde_json::json;
use sharedline::console::{ASSETS, POLICY};
use sharedline::wire::message::requests::ThreadControl;
use sharedline::wire::message::{Addressee, ThreadVerb};

use crate::browser::Browser;
use crate::house::{House, TOKEN, request};
use crate::stage::{MARIA, accepted, by, inbound, pick_up, reply};

/// What [`reply`] says.
const SECRET: &str = "secret-of-the-sender";

impl House {
    fn page(&self) -> String {
        format!("http://{}/", self.address())
    }
}

async fn signed_in(house: &House) -> Browser {
    let browser = Browser::start().await;
    browser.go(&house.page()).await;
    browser.write("token", TOKEN).await;
    browser.press("Sign in").await;
    browser
}

#[tokio::test]
async fn every_file_of_the_console_says_what_it_may_do_and_holds_no_script_of_its_own() {
    let house = House::with(None);
    for asset in ASSETS {
        for method in ["GET", "HEAD"] {
            let answer = request(house.address(), method, asset.path, &[], "");
            assert_eq!(answer.status, 200, "{method} {}", asset.path);
            assert_eq!(answer.body.is_empty(), method == "HEAD", "{method} {}", asset.path);
            for header in [
                format!("content-security-policy: {POLICY}"),
                "x-content-type-options: nosniff".to_owned(),
                "referrer-policy: no-referrer".to_owned(),
            ] {
                assert!(
                    answer.head.contains(&header.to_ascii_lowercase()),
                    "{}: {}",
                    asset.path,
                    answer.head
                );
            }
        }
        assert_eq!(request(house.address(), "POST", asset.path, &[], "").status, 405, "{}", asset.path);
        let body = house.get(asset.path).body;
        assert!(!body.contains("innerHTML") && !body.contains("insertAdjacentHTML"), "{}", asset.path);
        // Whatever it names is one of its own files.
        for named in body.split(&['"', '\''][..]).filter(|text| text.starts_with("/console/")) {
            assert!(ASSETS.iter().any(|asset| asset.path == named), "{} names {named}", asset.path);
        }
    }
    assert_eq!(house.get("/console/nothing.js").status, 404);
}

#[tokio::test]
async fn who_has_no_token_sees_nothing_and_is_told_what_is_needed() {
    let house = House::open();
    let (_peers, _) = house.stage.sharing(&["crm", "desk"]).await;
    let browser = Browser::start().await;
    browser.go(&house.page()).await;
    browser.write("token", "a guess").await;
    browser.press("Sign in").await;
    browser.shows("That is not the operator's token.").await;
    assert!(!browser.text().await.contains("crm"));
    assert_eq!(browser.run("return sessionStorage.length").await, 0, "a wrong token is not kept");
    browser.write("token", TOKEN).await;
    browser.press("Sign in").await;
    browser.shows("crm, desk").await;
    browser.press("Sign out").await;
    browser.hides("crm, desk").await;
    assert_eq!(browser.run("return sessionStorage.length").await, 0, "nor one of who has left");
    browser.end().await;

    let off = House::with(None);
    let browser = signed_in(&off).await;
    browser.shows("http.admin_token_sha256").await;
    browser.shows("the admin API is off").await;
    browser.end().await;
}

#[tokio::test]
async fn b03_the_console_shows_a_conversation_as_the_chosen_service_sees_it() {
    let house = House::open();
    let (mut peers, channel) = house.stage.sharing(&["crm", "desk"]).await;
    let mut gateway = house.stage.gateway().await;
    gateway.text("wamid.1", "<img src=x onerror=document.title='taken'>").await;
    let conversation = peers[0].conversation(channel).await;
    peers[0].roster(&["ophelia"]).await;
    accepted(peers[0].ask(by("ophelia", reply(channel, conversation, "re-1"))).await);
    peers[0].ask(pick_up(channel, conversation, "ophelia")).await;
    let take = ThreadControl {
        channel,
        of: Addressee::Conversation(conversation),
        action: ThreadVerb::Take,
        to_service: None,
        metadata: None,
        agent: None,
    };
    peers[0].ask(take).await;
    let browser = signed_in(&house).await;
    browser.press(crate::stage::NUMBER).await;
    browser.shows("1, parent").await;
    let base = format!("{}#/channels/{channel}/as", house.page());
    browser.go(&format!("{base}/desk")).await;
    browser.shows("someone in another service").await;
    browser.press(MARIA).await;
    browser.shows("Another service replied").await;
    assert!(browser.text().await.contains("Thread\nanother service"), "{}", browser.text().await);
    browser.shows("<img src=x onerror").await;
    for hidden in [SECRET, "phelia"] {
        assert!(!browser.text().await.contains(hidden), "{hidden} is shown to desk");
        assert!(!browser.source().await.contains(hidden), "{hidden} is in the page of desk");
    }
    browser.go(&format!("{base}/crm/{conversation}")).await;
    browser.shows("Picked up by").await;
    browser.shows(SECRET).await;
    assert!(browser.text().await.contains("Thread\ncrm"), "{}", browser.text().await);
    assert_ne!(browser.run("return document.title").await, "taken", "what a customer writes is text");
    let inject = "const script = document.createElement('script'); script.textContent = \"document.title = 'taken'\"; \
        document.head.append(script); return document.title";
    assert_ne!(browser.run(inject).await, "taken", "and no script but its own files is run");
    // What happens meanwhile shows by itself.
    gateway
        .ask(inbound(
            "wamid.2",
            MARIA,
            &json!({"type": "text", "text": {"body": "still there?"}}).to_string(),
        ))
        .await;
    browser.shows("still there?").await;
    browser.end().await;
}

#[tokio::test]
async fn an_operator_moves_claims_and_services_in_the_console_once_confirmed() {
    let house = House::open();
    let (mut peers, channel) = house.stage.sharing(&["crm", "desk"]).await;
    let mut gateway = house.stage.gateway().await;
    gateway.text("wamid.1", "hello").await;
    let conversation = peers[0].conversation(channel).await;
    peers[0].ask(pick_up(channel, conversation, "ann")).await;
    let claims = |service: &str| {
        let path = format!("/channels/{channel}/conversations/{conversation}?as={service}");
        house.look(&path).1["claims"].clone()
    };
    let browser = signed_in(&house).await;
    let page = house.page();
    browser.go(&format!("{page}#/channels/{channel}/as/crm/{conversation}")).await;
    browser.press("Hand on").await;
    browser.write("given", "bob").await;
    browser.confirm().await;
    browser.shows("Bob has it since").await;
    assert_eq!(claims("crm")[0]["agent"], "bob");
    browser.press("Release").await;
    browser.press("Cancel").await;
    assert_eq!(claims("crm")[0]["agent"], "bob", "what was not confirmed is not done");
    browser.press("Release").await;
    browser.confirm().await;
    browser.hides("has it since").await;
    assert_eq!(claims("crm"), json!([]));

    browser.go(&format!("{page}#/channels/{channel}")).await;
    browser.shows("1, parent").await;
    let row = |service: &str| {
        format!(
            "return [...document.querySelectorAll('tr')].find(row => row.cells[0].textContent === '{service}').innerText"
        )
    };
    browser.run("[...document.querySelectorAll('tr')].find(row => row.cells[0].textContent === 'crm').querySelector('button').click()").await;
    browser.confirm().await;
    browser.shows("inactive").await;
    let desk = browser.run(&row("desk")).await;
    assert!(desk.as_str().unwrap().contains("1, parent"), "{desk}");
    assert_eq!(house.look(&format!("/channels/{channel}")).1["parent"], "desk");
    // What the rules refuse is said in the broker's words.
    browser.run("[...document.querySelectorAll('tr')].find(row => row.cells[0].textContent === 'books').querySelector('button').click()").await;
    browser.confirm().await;
    browser.shows("services of this family can not share a number").await;
    browser.end().await;
}
