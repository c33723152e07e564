//! The embedding gateway: the broker and its telephones in one process, killed and started again.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::process::{Language, NUMBER, Process, WITHIN, configuration, example, free_address, now_ms};

fn start(config: &Path, http: &str) -> Process {
    let mut command = Command::new(example("embedded_gateway"));
    command.arg(config).args([http, "acme", "whatsapp", NUMBER]);
    let process = Process::start(&mut command);
    process.line_with("tcp ");
    process
}

/// What a telephone shows, once it shows so much.
async fn shows(http: &str, customer: &str, text: &str) -> String {
    let until = Instant::now() + WITHIN;
    loop {
        sharedline::gateway::graph::choose_crypto();
        let shown = reqwest::get(format!("http://{http}/{customer}")).await.unwrap().text().await.unwrap();
        if shown.contains(text) {
            return shown;
        }
        assert!(Instant::now() < until, "{customer} never sees {text}, but {shown}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn write(http: &str, customer: &str, at: u64) {
    sharedline::gateway::graph::choose_crypto();
    let client = reqwest::Client::new();
    let until = Instant::now() + WITHIN;
    loop {
        let sent = client.post(format!("http://{http}/{customer}/{at}")).body("Hi").send().await;
        // Until the adapter has made the channel nobody takes it.
        if sent.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        assert!(Instant::now() < until, "{at} is never taken");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_embedding_gateway_carries_a_conversation_through_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (tcp, http) = (free_address(), free_address().to_string());
    let config = configuration(directory.path(), tcp);
    let gateway = start(&config, &http);
    let adapter = Language::Rust.start(tcp);
    let (first, second) = (now_ms(), now_ms() + 1);
    write(&http, "16505551234", first).await;
    let shown = shows(&http, "16505551234", &first.to_string()).await;
    assert_eq!(shown.lines().count(), 1, "{shown}");
    // What WhatsApp repeats is known.
    write(&http, "16505551234", first).await;
    adapter.line_with(&first.to_string());
    gateway.kill();
    let _gateway = start(&config, &http);
    write(&http, "16505551234", first).await;
    write(&http, "16505551234", second).await;
    let shown = shows(&http, "16505551234", &second.to_string()).await;
    assert_eq!(shown.lines().count(), 1, "the first is not sent again: {shown}");
}
