//! `sharedline conformance`: it passes the three examples, and names what is wrong with each adapter that is made wrong.
//!
//! The wrong ones are the example in Python with one thing changed each.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::process::{Language, NUMBER};

/// Seconds that what is right may take for each thing, on a machine that has other things to do.
const PATIENCE: &str = "40";

/// The verdict of each check, and why.
fn verdicts(adapter: &Command, further: &[&str]) -> BTreeMap<String, (String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sharedline"));
    command.args(["conformance", "--listen", "127.0.0.1:0", "--json"]).args(further).arg("--");
    command.arg(adapter.get_program()).args(adapter.get_args()).args(["{}", "acme", "crm", NUMBER, "ann"]);
    judged(&mut command)
}

fn judged(command: &mut Command) -> BTreeMap<String, (String, String)> {
    let output = command.env("SHAREDLINE_TOKEN", "any").output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let verdict = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        (text("check"), (text("verdict"), line["why"].to_string()))
    };
    let verdicts: BTreeMap<_, _> = lines.lines().map(verdict).collect();
    let is_wrong = verdicts.values().any(|(verdict, _)| verdict == "wrong");
    assert_eq!(output.status.code(), Some(i32::from(is_wrong)), "{verdicts:?}");
    verdicts
}

fn passes(language: Language) {
    are_right(&verdicts(&language.command(), &["--patience", PATIENCE]));
}

fn are_right(verdicts: &BTreeMap<String, (String, String)>) {
    assert_eq!(verdicts.len(), 19, "{verdicts:?}");
    for (check, (verdict, why)) in verdicts {
        // The examples promise no heartbeat.
        let expected = if check == "heartbeat" { "not_judged" } else { "ok" };
        assert_eq!(verdict, expected, "{check}: {why}");
    }
}

#[test]
fn an_adapter_in_binary_that_was_written_from_the_document_alone_is_found_right() {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/adapters/binary.py"));
    are_right(&verdicts(&command, &["--patience", PATIENCE]));
}

#[test]
fn the_python_adapter_is_found_right() {
    passes(Language::Python);
}

#[test]
fn the_node_adapter_is_found_right() {
    passes(Language::Node);
}

#[test]
fn the_rust_adapter_is_found_right() {
    passes(Language::Rust);
}

/// What is changed in the example, from and to; the check that must name it, with these words.
const WRONGS: &[(&str, &str, &str, &str)] = &[
    (
        "                place = delivery[\"channel\"], offset\n",
        "                place = delivery[\"channel\"], offset\n                send(type=\"ack\", channel=place[0], offset=offset)\n",
        "ack_after_work",
        "before its reply was accepted",
    ),
    (
        "                while not waiting:\n                    take()\n",
        "                while not waiting:\n                    take()\n                if len(waiting) > 1: waiting.rotate(-1)\n",
        "reconnect",
        "covers message",
    ),
    (
        "                send(type=\"ack\", channel=place[0], offset=offset)\n",
        "",
        "answers",
        "was not acknowledged",
    ),
    ("f\"{message['channel']}:{message['offset']}\"", "str(random.random())", "retry", "under a new name"),
    (
        " and place not in done:",
        ":\n                    message_ids = globals().setdefault('n', []); message_ids.append(1); delivery['offset'] += len(message_ids) / 1000",
        "repeat",
        "",
    ),
    ("if response[\"type\"] == \"warning\":", "if False:", "reply_warning", "before its reply was accepted"),
    (" | {\"confirm\": response[\"confirm\"]})", ")", "pick_up_warning", "without its `confirm`"),
    (
        "        return ask(**request | {\"confirm\": response[\"confirm\"]})",
        "        request.setdefault(\"confirm\", response[\"confirm\"]); return ask(**request)",
        "reply_warning",
        "of an earlier warning",
    ),
    ("response.get(\"retry_after_ms\", 1000) / 1000", "0", "later", "asked for 600"),
    ("if response.get(\"code\") in AGAIN:", "if \"code\" in response:", "refusal", "window_closed"),
    ("lines.readline()", "peer.recv(1 << 16)", "split_bytes", ""),
    (
        "    elif \"id\" not in message and \"channel\" in message:",
        "    elif message[\"type\"] == \"of_tomorrow\":\n        sys.exit(1)\n    elif \"id\" not in message and \"channel\" in message:",
        "unknown",
        "did not connect",
    ),
    (
        "                done[place] = True\n",
        "                if delivery[\"type\"] != \"message\":\n                    continue\n                done[place] = True\n",
        "others",
        "was not acknowledged",
    ),
    (
        " and place not in done:\n",
        " and place not in done:\n                    done[place] = True\n",
        "retry",
        "before its reply was accepted",
    ),
    (
        "        waiting.append(message)\n",
        "        waiting.append(message)\n        message.get(\"offset\") == 2 and send(type=\"ack\", channel=message[\"channel\"], offset=message[\"offset\"])\n",
        "ack_in_order",
        "covers message",
    ),
    (
        "f\"{message['channel']}:{message['offset']}\"",
        "globals().update(done=type(\"Never\", (collections.OrderedDict,), {\"__contains__\": lambda *_: False})()) or str(random.random())",
        "repeat_later",
        "replied to a message twice",
    ),
    (
        "        waiting.append(message)\n",
        "        len(waiting) < 50 and waiting.append(message)\n",
        "burst",
        "",
    ),
    (
        "        print(\"lost:\", error, file=sys.stderr, flush=True)\n",
        "        sys.exit(1)\n",
        "reconnect",
        "did not connect",
    ),
    ("max(retry_after, ", "max(0, ", "goaway", "goaway asked for 1500"),
    ("min(pause * 2, 10)", "0", "back_off", "without a pause"),
    ("min(pause * 2, 10)", "pause", "back_off", "do not grow"),
    (", window=256)", ", window=256, heartbeat_ms=500)", "heartbeat", "promised a ping"),
    ("\"replaced\", ", "", "replaced", "came back"),
];

fn made_wrong(directory: &Path, from: &str, to: &str) -> Command {
    let source = include_str!("../../examples/adapter.py");
    assert_eq!(source.matches(from).count(), 1, "the example does not have once: {from}");
    let path = directory.join("adapter.py");
    std::fs::write(&path, source.replace(from, to)).unwrap();
    let mut command = Command::new("python3");
    command.arg(path);
    command
}

fn is_named(wrongs: &[(&str, &str, &str, &str)]) {
    let mut missed = Vec::new();
    for (from, to, check, words) in wrongs {
        let directory = tempfile::tempdir().unwrap();
        let adapter = made_wrong(directory.path(), from, to);
        let verdicts = verdicts(&adapter, &["--only", check, "--patience", "3"]);
        match &verdicts[*check] {
            (verdict, why) if verdict == "wrong" && why.contains(words) => {}
            other => missed.push(format!("{check} says {other:?} of an adapter with {to:?} for {from:?}")),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn what_is_wrong_with_an_adapter_is_named() {
    let (first, second) = WRONGS.split_at(WRONGS.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| is_named(first));
        is_named(second);
    });
}

#[test]
fn who_answers_nothing_is_judged_no_further() {
    let directory = tempfile::tempdir().unwrap();
    let adapter =
        made_wrong(directory.path(), "                    answer(delivery)\n", "                    pass\n");
    let verdicts = verdicts(&adapter, &["--patience", "2"]);
    assert_eq!(verdicts.len(), 1);
    assert!(verdicts["answers"].1.contains("before its reply was accepted"), "{verdicts:?}");
}

/// Carries the lines of an adapter as text frames: an adapter over WebSocket is one that has this in it.
async fn over_websocket(mut lines: TcpStream, kit: String) -> Option<()> {
    let stream = TcpStream::connect(&kit).await.ok()?;
    stream.set_nodelay(true).ok()?;
    lines.set_nodelay(true).ok()?;
    let (socket, _) = client_async(format!("ws://{kit}/v1/ws"), stream).await.ok()?;
    let (mut to_kit, mut from_kit) = socket.split();
    let (read, mut write) = lines.split();
    let mut read = BufReader::new(read).lines();
    loop {
        tokio::select! {
            line = read.next_line() => to_kit.send(Message::text(line.ok()??)).await.ok()?,
            frame = from_kit.next() => match frame?.ok()? {
                Message::Text(text) => write.write_all(format!("{text}\n").as_bytes()).await.ok()?,
                Message::Close(_) => return None,
                _ => {}
            },
        }
    }
}

#[tokio::test]
async fn an_adapter_over_websocket_is_judged_as_one_over_tcp() {
    let kit = crate::process::free_address();
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = relay.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((lines, _)) = relay.accept().await {
            tokio::spawn(over_websocket(lines, kit.to_string()));
        }
    });
    let judge = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sharedline"));
        command.args([
            "conformance",
            "--ws",
            "--json",
            "--patience",
            PATIENCE,
            "--listen",
            &kit.to_string(),
            "--",
        ]);
        let adapter = Language::Python.command();
        command.arg(adapter.get_program()).args(adapter.get_args()).args([&to, "acme", "crm", NUMBER, "ann"]);
        judged(&mut command)
    };
    are_right(&tokio::task::spawn_blocking(judge).await.unwrap());
}

/// The example gateway, with something changed in it; judged by these checks.
fn gateway(
    directory: &Path,
    change: Option<(&str, &str)>,
    only: Option<&str>,
) -> BTreeMap<String, (String, String)> {
    let source = include_str!("../../examples/gateway.py");
    let (from, to) = change.unwrap_or_default();
    assert!(from.is_empty() || source.matches(from).count() == 1, "the example does not have once: {from}");
    let path = directory.join("gateway.py");
    std::fs::write(&path, if from.is_empty() { source.to_owned() } else { source.replace(from, to) })
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sharedline"));
    command.args(["conformance", "--gateway", "--listen", "127.0.0.1:0", "--json"]);
    match only {
        Some(check) => command.args(["--only", check, "--patience", "3"]),
        None => command.args(["--patience", PATIENCE]),
    };
    command.args(["--", "python3"]).arg(path).args(["{}", "acme", "whatsapp", NUMBER, "--echo"]);
    judged(&mut command)
}

#[test]
fn the_example_gateway_is_found_right() {
    let directory = tempfile::tempdir().unwrap();
    let verdicts = gateway(directory.path(), None, None);
    assert_eq!(verdicts.len(), 13, "{verdicts:?}");
    for (check, (verdict, why)) in &verdicts {
        let expected = if check == "heartbeat" { "not_judged" } else { "ok" };
        assert_eq!(verdict, expected, "{check}: {why}");
    }
}

#[test]
fn what_is_wrong_with_a_gateway_is_named() {
    let wrongs = [
        ("offset=message[\"offset\"]", "offset=message[\"offset\"] + 1", "sends", "never handed"),
        (
            "        if ECHO:\n",
            "        ask(type=\"sent\", channel=message[\"channel\"], offset=message[\"offset\"], message_id=\"wamid.2\")\n        if ECHO:\n",
            "sends",
            "told twice",
        ),
        (
            "        ask(type=\"sent\",",
            "        len(asked) and 0 or dict(type=\"sent\",",
            "sends",
            "not answered by `sent`",
        ),
        (
            "                            send(request)\n",
            "                            request.get(\"type\") == \"inbound\" and request.update(message_id=f\"wamid.{uuid.uuid4()}\")\n                            send(request)\n",
            "inbound_again",
            "was not brought again",
        ),
        (
            "                            send(request)\n",
            "                            request.get(\"type\") == \"inbound\" and request.update(at=request[\"at\"] + 1)\n                            send(request)\n",
            "inbound_again",
            "another time",
        ),
        ("message.get(\"retry_after_ms\", 1000) / 1000", "0", "later", "asked for 600"),
        (
            "        if code:  # for good",
            "        if code: asked[message[\"id\"]] = request; send(request)\n        if code:  # for good",
            "refusal",
            "that was answered",
        ),
        ("min(pause * 2, 10)", "0", "back_off", "without a pause"),
        ("\"replaced\", ", "", "replaced", "came back"),
    ];
    let mut missed = Vec::new();
    for (from, to, check, words) in wrongs {
        let directory = tempfile::tempdir().unwrap();
        let verdicts = gateway(directory.path(), Some((from, to)), Some(check));
        match &verdicts[check] {
            (verdict, why) if verdict == "wrong" && why.contains(words) => {}
            other => missed.push(format!("{check} says {other:?} of a gateway with {to:?} for {from:?}")),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
