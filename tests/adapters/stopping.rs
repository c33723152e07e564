//! The broker's process stops in order though a WebSocket is open.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::process::{Process, WITHIN, configuration, free_address};

#[tokio::test]
async fn sigterm_says_goaway_to_a_websocket_and_ends_with_0() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path(), free_address());
    let (mut broker, said) = Process::serving(&config);
    let http = said.split("http ").nth(1).unwrap().split(',').next().unwrap();
    let stream = tokio::net::TcpStream::connect(http).await.unwrap();
    let (mut socket, _) = client_async(format!("ws://{http}/v1/ws"), stream).await.unwrap();
    let hello = json!({"type": "hello", "id": 1, "version": 1, "portal": "acme", "service": "crm", "token": "crm", "adapter": "web"});
    socket.send(Message::text(hello.to_string())).await.unwrap();
    let welcome: Value =
        serde_json::from_str(socket.next().await.unwrap().unwrap().to_text().unwrap()).unwrap();
    assert_eq!(welcome["type"], "welcome");
    let asked = Instant::now();
    broker.signal("-TERM");
    let mut goaway = false;
    let until_closed = async {
        while let Some(Ok(message)) = socket.next().await {
            goaway |= message.is_text() && message.to_text().unwrap().contains("goaway");
        }
    };
    timeout(WITHIN, until_closed).await.unwrap();
    assert!(goaway, "it was told");
    assert_eq!(broker.ended(), Some(0));
    // HTTP's drain would have waited 15 s for it.
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}
