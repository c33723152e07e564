//! The simulated Graph API itself, asked by a plain HTTP client: it is only worth something if it says no.

use reqwest::Client;
use serde_json::{Value, json};
use sharedline::gateway::graph::choose_crypto;
use sharedline::gateway::simulated::{Behaviour, Graph};

use super::stage::{ACCESS_TOKEN, PHONE_NUMBER_ID, graph_settings};

async fn post(url: &str, token: &str, body: &Value) -> (u16, Value) {
    choose_crypto();
    let request = Client::new().post(url).bearer_auth(token).body(body.to_string());
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
}

#[tokio::test]
async fn it_lets_in_who_has_the_token_and_answers_in_metas_shapes() {
    let graph = Graph::start(0, graph_settings()).await.unwrap();
    let messages = format!("{}/{PHONE_NUMBER_ID}/messages", graph.url());
    let text = json!({"messaging_product": "whatsapp", "recipient_type": "individual", "to": "16505551234",
        "type": "text", "text": {"body": "Hi"}});
    let (status, error) = post(&messages, "another token", &text).await;
    assert_eq!((status, &error["error"]["code"]), (401, &json!(190)));
    assert_eq!(graph.seen().len(), 0);
    let (status, taken) = post(&messages, ACCESS_TOKEN, &text).await;
    assert_eq!((status, &taken["messaging_product"]), (200, &json!("whatsapp")));
    assert_eq!(taken["contacts"], json!([{"input": "16505551234", "wa_id": "16505551234"}]));
    assert_eq!(taken["messages"][0]["id"].as_str(), graph.seen()[0].message_id());
    let mut wrong = text.clone();
    wrong["messaging_product"] = json!("telegram");
    let (status, error) = post(&messages, ACCESS_TOKEN, &wrong).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!(131_009)));
    assert_eq!(graph.wrongs().len(), 1);
    let other = format!("{}/999/messages", graph.url());
    assert_eq!(post(&other, ACCESS_TOKEN, &text).await.1["error"]["code"], 100);
}

#[tokio::test]
async fn media_is_uploaded_as_a_form_and_limits_say_when_to_come_again() {
    choose_crypto();
    let graph = Graph::start(0, graph_settings()).await.unwrap();
    let media = format!("{}/{PHONE_NUMBER_ID}/media", graph.url());
    let form = "--x\r\ncontent-disposition: form-data; name=\"messaging_product\"\r\n\r\nwhatsapp\r\n\
         --x\r\ncontent-disposition: form-data; name=\"file\"\r\ncontent-type: image/png\r\n\r\npicture\r\n--x--\r\n";
    let request = |kind: &str| {
        Client::new()
            .post(&media)
            .bearer_auth(ACCESS_TOKEN)
            .header("content-type", kind.to_owned())
            .body(form)
    };
    let uploaded = request("multipart/form-data; boundary=x").send().await.unwrap();
    let body: Value = serde_json::from_slice(&uploaded.bytes().await.unwrap()).unwrap();
    let id = body["id"].as_str().unwrap();
    assert!(id.bytes().all(|byte| byte.is_ascii_digit()));
    let ask = |method: reqwest::Method, url: String, token: &str| {
        Client::new().request(method, url).bearer_auth(token).send()
    };
    let object = format!("{}/{id}", graph.url());
    let known = ask(reqwest::Method::GET, object.clone(), ACCESS_TOKEN).await.unwrap();
    let known: Value = serde_json::from_slice(&known.bytes().await.unwrap()).unwrap();
    assert_eq!((&known["mime_type"], &known["file_size"]), (&json!("image/png"), &json!(7)));
    let url = known["url"].as_str().unwrap().to_owned();
    assert_eq!(ask(reqwest::Method::GET, url.clone(), "another").await.unwrap().status(), 401);
    let there = ask(reqwest::Method::GET, url.clone(), ACCESS_TOKEN).await.unwrap();
    assert_eq!(there.bytes().await.unwrap(), "picture");
    assert_eq!(ask(reqwest::Method::DELETE, object, ACCESS_TOKEN).await.unwrap().status(), 200);
    assert_eq!(ask(reqwest::Method::GET, url, ACCESS_TOKEN).await.unwrap().status(), 400);
    assert_eq!(request("text/plain").send().await.unwrap().status(), 400);
    graph.next([Behaviour::Refuse(130_429, Some(7))]);
    let messages = format!("{}/{PHONE_NUMBER_ID}/messages", graph.url());
    let text = json!({"messaging_product": "whatsapp", "recipient_type": "individual", "to": "16505551234",
        "type": "text", "text": {"body": "Hi"}});
    let limited = Client::new().post(&messages).bearer_auth(ACCESS_TOKEN).body(text.to_string());
    let limited = limited.send().await.unwrap();
    assert_eq!(limited.status(), 429);
    assert_eq!(limited.headers()["retry-after"], "7");
}
