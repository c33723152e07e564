//! The program as a person or a script meets it: verbs, exit codes, signals, files.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers fail as its test does")]

#[path = "world/serving.rs"]
mod serving;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sharedline::config::TokenHash;

use self::serving::{Serving, sharedline};

const NUMBER: &str = "+15550783881";
const WITHIN: Duration = Duration::from_secs(30);

fn run(arguments: &[&str]) -> Output {
    sharedline(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn configuration(directory: &Path) -> PathBuf {
    let hash = |token: &str| TokenHash::of(token).to_string();
    let text = format!(
        "data_dir = {:?}\n[tcp]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\nadmin_token_sha256 = \"{}\"\n[[portals]]\nid = \"acme\"\n\
         [[portals.services]]\nid = \"crm\"\ntoken_sha256 = \"{}\"\n\
         [[portals.services]]\nid = \"desk\"\ntoken_sha256 = \"{}\"\n[[portals.gateways]]\nid = \"whatsapp\"\n\
         token_sha256 = \"{}\"\n[[portals.numbers]]\nnumber = \"{NUMBER}\"\n",
        directory.join("data"),
        hash("operator"),
        hash("crm"),
        hash("desk"),
        hash("whatsapp"),
    );
    let path = directory.join("sharedline.toml");
    fs::write(&path, text).unwrap();
    path
}

fn serve(config: &Path) -> Serving {
    serve_logging(config, Stdio::null())
}

fn serve_logging(config: &Path, log: Stdio) -> Serving {
    Serving::start(config, "trace", log)
}

impl Serving {
    /// A greeted connection of CRM's in JSON lines.
    fn adapter(&self, adapter: &str) -> BufReader<TcpStream> {
        self.peer("service", "crm", adapter)
    }

    fn peer(&self, kind: &str, who: &str, adapter: &str) -> BufReader<TcpStream> {
        let mut stream = BufReader::new(TcpStream::connect(self.tcp).unwrap());
        stream.get_ref().set_read_timeout(Some(WITHIN)).unwrap();
        let hello = format!(
            r#"{{"type":"hello","id":1,"version":1,"portal":"acme","{kind}":"{who}","token":"{who}","adapter":"{adapter}"}}"#
        );
        assert_eq!(ask(&mut stream, &hello)["type"], "welcome");
        stream
    }
}

fn next(stream: &mut BufReader<TcpStream>) -> Value {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or(Value::Null)
}

fn ask(stream: &mut BufReader<TcpStream>, line: &str) -> Value {
    stream.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    next(stream)
}

fn http(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn usage_is_64_help_and_version_are_0() {
    assert_eq!(code(&run(&["--help"])), 0);
    let version = run(&["--version"]);
    assert!(said(&version).contains(env!("CARGO_PKG_VERSION")) && code(&version) == 0);
    for wrong in [&["fly"][..], &[], &["serve", "--fast"], &["token"], &["send", "--portal", "acme"]] {
        assert_eq!(code(&run(wrong)), 64, "{wrong:?}");
    }
    let no_token = ["tail", "--portal", "acme", "--service", "crm"];
    assert_eq!(code(&run(&no_token)), 64, "a token is needed");
}

#[test]
fn a_wrong_configuration_is_78_and_a_file_that_is_not_there_74() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.toml");
    let path = file.to_str().unwrap();
    assert_eq!(code(&run(&["check-config", "--config", path])), 74);
    fs::write(&file, "[journal]\ndurability = \"perhaps\"\n").unwrap();
    let wrong = run(&["check-config", "--config", path]);
    assert_eq!(code(&wrong), 78);
    let text = said(&wrong);
    assert!(
        text.contains("journal.durability") && text.contains("perhaps") && text.contains("fsync"),
        "{text}"
    );
    assert_eq!(code(&run(&["serve", "--config", path])), 78);
    let json = run(&["check-config", "--json", "--config", path]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&json["valid"], &json["problems"][0]["key"]),
        (&Value::Bool(false), &"journal.durability".into())
    );
    fs::write(&file, "[[portals]]\nid = \"acme\"\n[[portals.numbers]]\nnumber = \"+15550783881\"\n").unwrap();
    let right = run(&["check-config", "--config", path]);
    assert_eq!(code(&right), 0);
    assert!(said(&right).contains("+15550783881 can not send yet"), "{}", said(&right));
    let environment = sharedline(&["check-config"]).env("SHAREDLINE__TCP__LISTEN_ON", "x").output().unwrap();
    assert_eq!(code(&environment), 78);
}

#[test]
fn ready_is_0_where_a_broker_acknowledges_over_tls_too() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let ask =
        |http: SocketAddr| run(&["ready", "--config", config.to_str().unwrap(), "--http", &http.to_string()]);
    let mut serving = serve(&config);
    let ready = ask(serving.http);
    assert!(code(&ready) == 0 && said(&ready) == "ready\n", "{}", said(&ready));
    serving.signal("-TERM");
    assert_eq!(serving.ended(), 0);
    assert_eq!(code(&ask(serving.http)), 74, "nobody is there");

    // One that answers, and does not acknowledge.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let halted = listener.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while head.read_line(&mut line).unwrap() > 2 {}
        stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    let unready = ask(halted);
    assert!(code(&unready) == 1 && said(&unready).contains("503"), "{}", said(&unready));
    answering.join().unwrap();

    let made = rcgen::generate_simple_self_signed(["broker.example".to_owned()]).unwrap();
    fs::write(directory.path().join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let text = fs::read_to_string(&config).unwrap();
    let tls = "[http]\ntls = { cert = \"cert.pem\", key = \"key.pem\" }\n";
    fs::write(&config, text.replace("[http]\n", tls)).unwrap();
    let serving = serve(&config);
    let ready = ask(serving.http);
    assert_eq!(code(&ready), 0, "{}", said(&ready));
}

#[test]
fn a_new_token_is_known_by_its_digest() {
    let tokens = [run(&["token", "new", "--json"]), run(&["token", "new", "--json"])];
    let tokens = tokens.map(|output| serde_json::from_slice::<Value>(&output.stdout).unwrap());
    for token in &tokens {
        let hash = TokenHash::of(token["token"].as_str().unwrap()).to_string();
        assert_eq!(token["sha256"], hash.as_str());
    }
    assert_ne!(tokens[0]["token"], tokens[1]["token"]);
}

#[test]
fn a_data_directory_belongs_to_one_process_and_to_no_newer_format() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let mut serving = serve(&config);
    let path = config.to_str().unwrap();
    let second = run(&["serve", "--config", path]);
    assert_eq!(code(&second), 74);
    assert!(said(&second).contains("in use"), "{}", said(&second));
    serving.signal("-TERM");
    assert_eq!(serving.ended(), 0);
    let format = directory.path().join("data/FORMAT");
    let newer = fs::read_to_string(&format).unwrap().replace("format 1\n", "format 999\n");
    fs::write(&format, newer).unwrap();
    let refused = run(&["serve", "--config", path]);
    assert_eq!(code(&refused), 74);
    assert!(said(&refused).contains("999"), "{}", said(&refused));
}

#[test]
fn a_number_with_a_channel_can_not_vanish_from_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let mut serving = serve(&config);
    let mut adapter = serving.adapter("a");
    let created = ask(&mut adapter, &format!(r#"{{"type":"create_channel","id":2,"number":"{NUMBER}"}}"#));
    assert_eq!(created["created"], true);
    serving.signal("-TERM");
    assert_eq!(serving.ended(), 0);
    let whole = fs::read_to_string(&config).unwrap();
    for (from, to) in [
        (NUMBER, "+15550783999"),
        ("id = \"acme\"", "id = \"acme\"\nplan = \"isolated\""),
        ("\"acme\"", "\"other\""),
    ] {
        fs::write(&config, whole.replace(from, to)).unwrap();
        let refused = run(&["serve", "--config", config.to_str().unwrap()]);
        assert_eq!(code(&refused), 78, "{to}: {}", said(&refused));
        assert!(said(&refused).contains(NUMBER), "{}", said(&refused));
    }
    fs::write(&config, whole).unwrap();
    let mut serving = serve(&config);
    serving.signal("-TERM");
    assert_eq!(serving.ended(), 0);
}

#[test]
fn sigterm_finishes_what_was_accepted_and_ends_with_0() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let mut serving = serve(&config);
    assert!(http(serving.http, "/livez").starts_with("HTTP/1.1 200"));
    assert!(http(serving.http, "/readyz").starts_with("HTTP/1.1 200"));
    let mut adapter = serving.adapter("a");
    let create = format!("{{\"type\":\"create_channel\",\"id\":2,\"number\":\"{NUMBER}\"}}\n");
    adapter.get_mut().write_all(create.as_bytes()).unwrap();
    assert_eq!(next(&mut adapter)["created"], true);
    assert_eq!(next(&mut adapter)["type"], "membership");
    serving.signal("-HUP");
    serving.signal("-TERM");
    let goaway = next(&mut adapter);
    assert_eq!(goaway["type"], "goaway");
    assert!(goaway["retry_after_ms"].as_u64().unwrap() >= 1_000, "{goaway}");
    assert_eq!(next(&mut adapter), Value::Null, "then the connection ends");
    assert_eq!(serving.ended(), 0);
    let mut rest = String::new();
    serving.stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.is_empty(), "{rest}");
    assert!(TcpStream::connect(serving.tcp).is_err());
}

#[test]
fn a_customers_word_goes_in_by_send_and_is_seen_by_tail() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let serving = serve(&config);
    let (path, tcp) = (config.to_str().unwrap(), serving.tcp.to_string());
    let send = |token: &str| {
        let arguments = [
            "send",
            "--config",
            path,
            "--tcp",
            &tcp,
            "--portal",
            "acme",
            "--number",
            NUMBER,
            "--from",
            "+16505551234",
            "--json",
            "Is anybody there?",
        ];
        sharedline(&arguments).env("SHAREDLINE_TOKEN", token).output().unwrap()
    };
    let nobody = send("whatsapp");
    assert_eq!(code(&nobody), 1, "nobody has the number in use: {}", said(&nobody));
    assert_eq!(code(&send("wrong")), 1);
    let mut adapter = serving.adapter("a");
    ask(&mut adapter, &format!(r#"{{"type":"create_channel","id":2,"number":"{NUMBER}"}}"#));
    let token_file = directory.path().join("token");
    fs::write(&token_file, "crm\n").unwrap();
    let mut tail =
        sharedline(&["tail", "--config", path, "--tcp", &tcp, "--portal", "acme", "--service", "crm"])
            .args(["--token-file", token_file.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut watching = String::new();
    BufReader::new(tail.stderr.take().unwrap()).read_line(&mut watching).unwrap();
    assert!(watching.contains("watching"), "{watching}");
    // A watch begins at the head of its welcome, whenever it is attached.
    let mut line = String::new();
    let sent = send("whatsapp");
    assert_eq!(code(&sent), 0, "{}", said(&sent));
    let sent: Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert_eq!((&sent["channels"], &sent["duplicate"]), (&1.into(), &false.into()));
    BufReader::new(tail.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let seen: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&seen["type"], &seen["message_id"]), (&"message".into(), &sent["message_id"]));
    assert_eq!(seen["content"]["text"]["body"], "Is anybody there?");
    assert_eq!(seen["customer"]["id"], "16505551234");
    tail.kill().unwrap();
    tail.wait().unwrap();
}

/// Runs a verb over the admin API as the operator.
fn operate(serving: &Serving, config: &Path, arguments: &[&str]) -> Output {
    let mut command = sharedline(arguments);
    command.args(["--config", config.to_str().unwrap(), "--http", &serving.http.to_string()]);
    command.env("SHAREDLINE_TOKEN", "operator").output().unwrap()
}

#[test]
fn an_operator_manages_channels_from_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let mut serving = serve(&config);
    let json = |arguments: &[&str]| {
        let output = operate(&serving, &config, &[arguments, &["--json"]].concat());
        assert_eq!(code(&output), 0, "{arguments:?}: {}", said(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let create = ["channel", "create", "--portal", "acme", "--number", NUMBER, "--service"];
    let made = json(&[&create[..], &["crm"]].concat());
    assert_eq!((&made["created"], &made["parent"]), (&true.into(), &"crm".into()));
    let channel = made["channel"].as_str().unwrap();
    let says = |arguments: &[&str], expected: &[&str]| {
        let output = operate(&serving, &config, arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", said(&output));
        for text in expected {
            assert!(said(&output).contains(text), "{arguments:?}: {}", said(&output));
        }
    };
    says(&[&create[..], &["desk"]].concat(), &["joined", "subscribers crm, desk"]);
    says(&["channel", "list", "--portal", "acme"], &[channel, NUMBER, "active", "parent crm"]);
    says(&["channel", "show", channel], &[channel, "acme", "crm, desk", "reveal_service"]);
    says(&["channel", "deactivate", channel, "--service", "crm"], &["changed", "parent desk"]);
    says(&["channel", "deactivate", channel, "--service", "crm"], &["unchanged"]);
    assert_eq!(json(&["channel", "show", channel])["inactive"], serde_json::json!(["crm"]));
    says(&["channel", "activate", channel, "--service", "crm", "--backfill"], &["desk, crm"]);
    says(&["channel", "delete", channel, "--service", "crm"], &["changed"]);
    says(&["channel", "delete", channel, "--service", "desk"], &["closed"]);
    assert_eq!(json(&["channel", "list"])["channels"], serde_json::json!([]));
    // What goes wrong, and how it ends.
    let refused = operate(&serving, &config, &["channel", "activate", channel, "--service", "crm", "--json"]);
    assert_eq!(code(&refused), 1);
    let answer: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(answer["code"], "channel_closed");
    assert!(said(&refused).contains("channel_closed"), "{}", said(&refused));
    let listed = |token: Option<&str>, more: &[&str]| {
        let mut command = sharedline(&["channel", "list", "--config", config.to_str().unwrap()]);
        command.args(more).args(["--http", &serving.http.to_string()]);
        token.map(|token| command.env("SHAREDLINE_TOKEN", token));
        command.output().unwrap()
    };
    assert_eq!(code(&listed(None, &[])), 64, "a token is needed");
    let wrong = listed(Some("wrong"), &[]);
    assert_eq!(code(&wrong), 1);
    assert!(said(&wrong).contains("unauthenticated"), "{}", said(&wrong));
    let token_file = directory.path().join("operator");
    fs::write(&token_file, "operator\n").unwrap();
    assert_eq!(code(&listed(None, &["--token-file", token_file.to_str().unwrap()])), 0);
    assert_eq!(code(&listed(None, &["--token-file", "/nowhere"])), 74);
    for wrong in [&["channel", "show", "1"][..], &["channel"], &["channel", "delete", channel]] {
        assert_eq!(code(&operate(&serving, &config, wrong)), 64, "{wrong:?}");
    }
    serving.signal("-TERM");
    assert_eq!(serving.ended(), 0);
    assert_eq!(code(&operate(&serving, &config, &["channel", "list"])), 74, "nobody is there");
}

#[test]
fn without_a_token_in_the_configuration_the_admin_api_is_off() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let text = fs::read_to_string(&config).unwrap();
    let without = text.lines().filter(|line| !line.starts_with("admin_token")).collect::<Vec<_>>().join("\n");
    fs::write(&config, without).unwrap();
    let serving = serve(&config);
    let off = operate(&serving, &config, &["channel", "list"]);
    assert_eq!(code(&off), 1);
    assert!(said(&off).contains("admin_token_sha256"), "{}", said(&off));
    assert!(http(serving.http, "/v1/admin/health").starts_with("HTTP/1.1 403"));
    assert!(http(serving.http, "/v1/openapi.json").starts_with("HTTP/1.1 200"));
}

#[test]
fn an_operator_sees_conversations_as_a_service_would_and_ends_and_hands_on_its_claims() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let serving = serve(&config);
    let (mut crm, mut gateway) = (serving.adapter("a"), serving.peer("gateway", "whatsapp", "g"));
    let create = format!(r#"{{"type":"create_channel","id":2,"number":"{NUMBER}"}}"#);
    let channel = ask(&mut crm, &create)["channel"].as_str().unwrap().to_owned();
    let mut answer = |line: String, id: u64| {
        crm.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        loop {
            let next = next(&mut crm);
            if next["id"] == id {
                return next;
            }
        }
    };
    let agents = r#"[{"agent":"ann","name":"Ann"},{"agent":"bob","name":"Bob"}]"#;
    answer(format!(r#"{{"type":"roster","id":3,"replace":true,"agents":{agents}}}"#), 3);
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let escape = r"\u001b[2J";
    let inbound = format!(
        r#"{{"type":"inbound","id":2,"number":"{NUMBER}","message_id":"wamid.1","at":{at},"customer":{{"id":"16505551234","name":"Maria{escape}"}},"content":{{"type":"text","text":{{"body":"hello{escape}"}}}}}}"#
    );
    assert_eq!(ask(&mut gateway, &inbound)["channels"], 1);
    let list = answer(format!(r#"{{"type":"list_conversations","id":4,"channel":"{channel}"}}"#), 4);
    let conversation = list["conversations"][0]["conversation"].as_str().unwrap().to_owned();
    let of_it = format!(r#""channel":"{channel}","conversation":"{conversation}""#);
    let picked = answer(format!(r#"{{"type":"pick_up","id":5,{of_it},"agent":"ann"}}"#), 5);
    assert_eq!(picked["type"], "picked_up");
    let run = |arguments: &[&str]| operate(&serving, &config, arguments);
    let says = |arguments: &[&str], expected: &[&str]| {
        let output = run(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", said(&output));
        for text in expected {
            assert!(said(&output).contains(text), "{arguments:?}: {}", said(&output));
        }
        assert!(!said(&output).contains('\u{1b}'), "a stranger's text moves no cursor: {}", said(&output));
    };
    let show = ["conversation", "show", &channel, &conversation, "--as", "crm"];
    says(&show, &["16505551234", "Maria", "ann in crm", "hello", "picked_up"]);
    says(&["conversation", "list", &channel, "--as", "crm"], &[&conversation, "unanswered", "ann in crm"]);
    let none = run(&["conversation", "list", &channel, "--as", "crm", "--claimed", "false", "--json"]);
    let none: Value = serde_json::from_slice(&none.stdout).unwrap();
    assert_eq!(none["conversations"], serde_json::json!([]));
    let claim = [&channel, &conversation, "--service", "crm", "--holder"];
    says(&[&["conversation", "transfer"], &claim[..], &["ann", "--to", "bob"]].concat(), &["transferred"]);
    says(&show, &["bob in crm", "transferred"]);
    let gone = run(&[&["conversation", "release"], &claim[..], &["ann"]].concat());
    assert_eq!(code(&gone), 1);
    assert!(said(&gone).contains("not_claimed"), "{}", said(&gone));
    says(&[&["conversation", "release"], &claim[..], &["bob"]].concat(), &["released"]);
    says(&show, &["held by      nobody"]);
    assert_eq!(code(&run(&["conversation", "show", &channel, &conversation])), 64, "--as is needed");
    assert_eq!(code(&run(&["conversation", "show", &channel, &conversation, "--as", "desk"])), 1);
}

#[test]
fn every_shell_gets_a_completion_that_knows_the_verbs() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completion", shell]);
        assert_eq!(code(&script), 0, "{shell}");
        for verb in ["serve", "conversation", "transfer", "check-config", "completion", "catch-up", "ready"] {
            assert!(said(&script).contains(verb), "{shell}: {verb}");
        }
        assert!(!said(&script).contains("SHAREDLINE_TOKEN="), "no token of whoever asks");
    }
    assert_eq!(code(&run(&["completion", "cobol"])), 64);
}

#[test]
fn the_metrics_of_the_running_process_say_what_came_through_its_doors() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let serving = serve(&config);
    let _adapter = serving.adapter("a");
    let mut webhook = TcpStream::connect(serving.http).unwrap();
    let post =
        "POST /webhooks/whatsapp HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
    webhook.write_all(post.as_bytes()).unwrap();
    let mut answer = String::new();
    webhook.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let stranger = TcpStream::connect(serving.tcp).unwrap();
    let mut stranger = BufReader::new(stranger);
    let hello =
        r#"{"type":"hello","id":1,"version":1,"portal":"acme","service":"crm","token":"no","adapter":"b"}"#;
    assert_eq!(ask(&mut stranger, hello)["code"], "unauthenticated");
    let text = http(serving.http, "/metrics");
    for line in [
        "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8",
        "sharedline_webhook_responses_total{status=\"401\"} 1",
        "sharedline_webhook_responses_total{status=\"200\"} 0",
        "sharedline_errors_total{code=\"unauthenticated\"} 1",
        "sharedline_sessions{kind=\"share\"} 1.0",
        "sharedline_halted 0.0",
        concat!("sharedline_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

fn bench(arguments: &[&str]) -> Value {
    let output = run(&[&["bench"], arguments, &["--json"]].concat());
    assert_eq!(code(&output), 0, "{arguments:?}: {}", said(&output));
    assert_eq!(
        said(&output).lines().count(),
        1,
        "one object, and no bar without a terminal: {}",
        said(&output)
    );
    let report = serde_json::from_slice(&output.stdout).unwrap();
    // Every member of every report is known to the comparison.
    let directory = tempfile::tempdir().unwrap();
    let same = compare(directory.path(), &[&report], &[&report], &["--json"]);
    assert_eq!(code(&same), 0, "{}", said(&same));
    let same: Value = serde_json::from_slice(&same.stdout).unwrap();
    assert_eq!((&same["compare"], &same["verdict"]), (&report["bench"], &"same".into()));
    let judged = same["figures"].as_array().unwrap().iter().filter(|figure| !figure["verdict"].is_null());
    assert!(judged.count() > 0, "something of it is judged: {same}");
    report
}

/// Compares two files of reports, one report a line.
fn compare(directory: &Path, a: &[&Value], b: &[&Value], more: &[&str]) -> Output {
    let files = [("a.json", a), ("b.json", b)].map(|(name, reports)| {
        let path = directory.join(name);
        let lines = reports.iter().map(|report| format!("{report}\n")).collect::<String>();
        fs::write(&path, lines).unwrap();
        path
    });
    let [a, b] = files.each_ref().map(|path| path.to_str().unwrap());
    run(&[&["bench", "compare", a, b], more].concat())
}

fn figure(of: &Value, key: &str) -> f64 {
    of[key].as_f64().unwrap_or_else(|| panic!("{key} is a number in {of}"))
}

/// Checks what every measured run has, and that its figures agree with each other.
fn agree(run: &Value, published: u64, done: u64) {
    assert_eq!((&run["published"], &run["done"]), (&published.into(), &done.into()), "{run}");
    let seconds = figure(run, "seconds");
    assert!(seconds > 0.0);
    for (rate, count) in [("per_second", done), ("published_per_second", published)] {
        assert!((figure(run, rate) * seconds / count as f64 - 1.0).abs() < 1e-6, "{rate}: {run}");
    }
    let latency = &run["latency_us"];
    let steps = ["p50", "p90", "p99", "p999", "max"].map(|step| latency[step].as_u64().unwrap());
    assert!(steps[0] > 0 && steps.is_sorted(), "{latency}");
    assert!((1..=done).contains(&latency["samples"].as_u64().unwrap()), "{latency}");
    let used = &run["used_per_million"];
    let cpu = figure(used, "user_cpu_seconds") + figure(used, "system_cpu_seconds");
    assert!((figure(used, "cpu_seconds") - cpu).abs() < 1e-9);
    assert!(figure(used, "context_switches") > 0.0 && figure(used, "written_bytes") >= 0.0);
}

#[test]
fn a_fan_out_says_what_share_of_each_relay_was_published() {
    let found = bench(&["fan-out", "--messages", "500", "--subscribers", "2", "--rounds", "2"]);
    assert_eq!((&found["bench"], &found["durability"]), (&"fan-out".into(), &"fsync".into()));
    let run = &found["runs"][0];
    agree(run, 1_000, 2_000);
    for (relay, share) in [
        ("bare_relay", "published_share_of_bare_relay"),
        ("syncing_relay", "published_share_of_syncing_relay"),
    ] {
        let relay = &found[relay];
        agree(relay, relay["published"].as_u64().unwrap(), relay["done"].as_u64().unwrap());
        let expected = figure(run, "published_per_second") / figure(relay, "published_per_second");
        assert!((figure(run, share) / expected - 1.0).abs() < 1e-6, "{share}: {found}");
    }
    assert!(figure(&found["syncing_relay"]["used_per_million"], "written_bytes") > 0.0, "it syncs");
    assert_eq!(figure(&found["bare_relay"]["used_per_million"], "written_bytes"), 0.0, "it does not");
    assert!(run["p50_over_syncing_relay"].is_null() && found["json_over_binary"].is_null());
}

#[test]
fn a_schedule_counts_latency_from_when_messages_were_due_beside_a_relay_that_syncs() {
    let found = bench(&["--rate", "1000", "--messages", "200", "--rounds", "1", "--encoding", "both"]);
    assert_eq!((&found["rate"], &found["bare_relay"]), (&1_000.into(), &Value::Null));
    agree(&found["syncing_relay"], 200, 600);
    let runs = found["runs"].as_array().unwrap();
    assert_eq!(runs.iter().map(|run| &run["encoding"]).collect::<Vec<_>>(), ["binary", "json"]);
    for run in runs {
        agree(run, 200, 600);
        assert_eq!(run["latency_us"]["samples"], 600, "each delivery is looked at");
        assert!(figure(run, "seconds") > 0.198, "the last is due then");
        for (ratio, step) in [("p50_over_syncing_relay", "p50"), ("p99_over_syncing_relay", "p99")] {
            let of = |run: &Value| figure(&run["latency_us"], step);
            assert!((figure(run, ratio) - of(run) / of(&found["syncing_relay"])).abs() < 1e-6);
        }
    }
    let rate = |at: usize| figure(&runs[at], "published_per_second");
    let both = figure(&found["json_over_binary"], "published_per_second");
    assert!((both - rate(1) / rate(0)).abs() < 1e-6);
}

#[test]
fn growth_along_every_axis_stands_beside_its_first_step() {
    // What is delivered of 64 KiB is more than a connection's window in bytes.
    for (axis, steps, deliveries) in [
        ("channels", [1, 30], 600),
        ("subscribers", [1, 3], 600),
        ("conversations", [10, 300], 600),
        ("size", [64, 65_536], 1_200),
        ("backlog", [1_000, 2_000], 600),
    ] {
        let many = deliveries.to_string();
        let words = steps.map(|step| step.to_string()).join(",");
        let found =
            bench(&["growth", "--by", axis, "--steps", &words, "--deliveries", &many, "--rate", "500"]);
        assert_eq!((&found["bench"], &found["by"]), (&"growth".into(), &axis.into()));
        let rows = found["rows"].as_array().unwrap();
        assert_eq!(rows.iter().map(|row| row["value"].as_u64().unwrap()).collect::<Vec<_>>(), steps);
        for row in rows {
            let count = |key: &str| row[key].as_u64().unwrap();
            if axis == "backlog" {
                let late = &row["catch_up"];
                assert!(late["deliveries"].as_u64().unwrap() >= count("value"), "{row}");
                assert!(
                    count("done") >= late["deliveries"].as_u64().unwrap() && figure(late, "per_second") > 0.0
                );
                assert!(late["live_latency_us"]["samples"].is_u64());
            } else {
                agree(row, count("published"), deliveries);
                assert!(row["catch_up"].is_null());
            }
            assert!(figure(row, "content_mib_per_second") > 0.0);
            let growth = figure(row, "per_second") / figure(&rows[0], "per_second");
            assert!((figure(row, "rate_growth") / growth - 1.0).abs() < 1e-6);
        }
        assert!(rows[0]["worse_than_linear"].is_null());
        assert!(rows[1]["worse_than_linear"].is_boolean() && rows[1]["cost_growth"].is_number(), "{found}");
    }
}

#[test]
fn memory_of_idle_connections_and_conversations_is_counted_one_by_one() {
    let found = bench(&["memory", "--connections", "100", "--conversations", "100000", "--subscribers", "1"]);
    assert_eq!(found["durability"], "fsync", "by which runs are told apart");
    let (connection, conversation) = (&found["connection"], &found["conversation"]);
    let grown = |of: &Value| figure(of, "rss_after_bytes") - figure(of, "rss_before_bytes");
    assert_eq!(
        (&connection["count"], figure(connection, "bytes_each")),
        (&100.into(), grown(connection) / 100.0)
    );
    assert!(figure(connection, "bytes_each") > 0.0, "{found}");
    let (one, many) = (&conversation["one_customer"], &conversation["a_customer_each"]);
    assert_eq!(figure(conversation, "bytes_each"), (grown(many) - grown(one)) / 100_000.0);
    assert!(figure(conversation, "bytes_each") > 0.0, "{found}");
    let none = bench(&["memory", "--of", "connections", "--connections", "10", "--deliver", "none"]);
    assert!(none["conversation"].is_null() && none["connection"]["count"] == 10);
}

#[test]
fn a_restart_is_timed_from_sigkill_on_a_journal_of_the_size_wanted() {
    let found = bench(&["restart", "--journal-bytes", "8MiB", "--rounds", "2", "--subscribers", "1"]);
    let bytes = figure(&found, "journal_bytes");
    assert!((8_388_608.0..16_777_216.0).contains(&bytes), "{found}");
    let seconds = figure(&found, "ready_seconds");
    assert!(seconds > 0.0 && (figure(&found, "bytes_per_second") * seconds / bytes - 1.0).abs() < 1e-6);
    assert_eq!(found["ready_seconds_each"].as_array().unwrap().len(), 2);
    assert!(found["messages"].as_u64().unwrap() > 10_000);
    let refused = run(&["bench", "restart", "--journal-bytes", "many"]);
    assert_eq!(code(&refused), 64);
}

#[test]
fn pick_ups_are_counted_with_their_latency() {
    let picked = bench(&["pick-ups", "--messages", "300"]);
    agree(&picked, 300, 300);
    assert_eq!((&picked["bench"], &picked["latency_us"]["samples"]), (&"pick-ups".into(), &300.into()));
}

/// Checks latencies of so many, in microseconds.
fn latencies(of: &Value, samples: u64) {
    let steps = ["p50", "p90", "p99", "p999", "max"].map(|step| of[step].as_u64().unwrap());
    assert!(steps[0] > 0 && steps.is_sorted(), "{of}");
    assert_eq!(of["samples"], samples, "{of}");
}

#[test]
fn every_reply_is_timed_to_its_acceptance_to_the_gateway_and_to_its_receipt() {
    let of_run = ["replies", "--services", "2", "--conversations", "20", "--window", "16"];
    let found = bench(&[&of_run[..], &["--replies", "601", "--size", "2000"]].concat());
    assert_eq!(
        (&found["bench"], &found["services"], &found["window"]),
        (&"replies".into(), &2.into(), &16.into())
    );
    agree(&found, 601, 601);
    for (to, after) in
        [("to_accepted_us", None), ("to_gateway_us", None), ("latency_us", Some("to_gateway_us"))]
    {
        latencies(&found[to], 601);
        for step in ["p50", "p99"] {
            let earlier = after.map_or(0.0, |after| figure(&found[after], step));
            assert!(figure(&found[to], step) >= earlier, "a receipt comes after the send: {found}");
        }
    }
    let written = figure(&found["used_per_million"], "written_bytes") / 1e6;
    assert!(written > 2_000.0, "each reply is in the journal: {written} bytes");
    let paced = bench(&[&of_run[..], &["--replies", "60", "--rate", "60"]].concat());
    agree(&paced, 60, 60);
    assert!(figure(&paced, "seconds") > 0.98, "the last is due then: {paced}");
}

#[test]
fn who_was_away_catches_up_beside_live_traffic_that_was_measured_alone() {
    let found = bench(&["catch-up", "--backlog", "4000", "--rate", "1000", "--subscribers", "2"]);
    let late = &found["catch_up"];
    assert_eq!((&found["bench"], &found["backlog"]), (&"catch-up".into(), &4_000.into()));
    latencies(&found["live_alone_latency_us"], 3_000);
    let samples = late["live_latency_us"]["samples"].as_u64().unwrap();
    assert!(samples > 0, "live traffic went on: {found}");
    latencies(&late["live_latency_us"], samples);
    let delivered = late["deliveries"].as_u64().unwrap();
    assert!(delivered >= 7_000, "what was missed, and what went on live alone: {found}");
    assert!(found["done"].as_u64().unwrap() >= delivered, "{found}");
    for key in ["live_p50_over_alone", "live_p99_over_alone"] {
        let of = |of: &Value| figure(of, if key.contains("p50") { "p50" } else { "p99" });
        let expected = of(&late["live_latency_us"]) / of(&found["live_alone_latency_us"]);
        assert!((figure(&found, key) / expected - 1.0).abs() < 1e-6, "{key}: {found}");
    }
}

#[test]
fn a_storm_times_every_adapter_to_its_welcome_and_its_first_delivery_beside_a_live_flow() {
    let found = bench(&["storm", "--adapters", "50", "--services", "3", "--rounds", "2", "--rate", "500"]);
    for (storms, connects) in [("first", 50), ("again", 100)] {
        let storms = &found[storms];
        assert_eq!(storms["connects"], connects, "{found}");
        latencies(&storms["welcome_us"], connects);
        latencies(&storms["first_delivery_us"], connects);
        assert!(
            figure(&storms["welcome_us"], "p50") <= figure(&storms["first_delivery_us"], "p50"),
            "{found}"
        );
        let seconds = figure(storms, "seconds");
        assert!(seconds >= figure(&storms["welcome_us"], "max") / 1e6 * 0.99, "{found}");
        assert!((figure(storms, "per_second") * seconds / connects as f64 - 1.0).abs() < 1e-6);
    }
    assert!(figure(&found, "rss_connected_bytes") > figure(&found, "rss_before_bytes"), "{found}");
    assert!(figure(&found, "rss_after_bytes") > 0.0);
    let live = &found["live"];
    let [alone, beside] = ["alone_latency_us", "storm_latency_us"].map(|of| &live[of]);
    let count = |of: &Value| of["samples"].as_u64().unwrap();
    latencies(alone, count(alone));
    latencies(beside, count(beside));
    assert!(
        count(alone) > 200 && live["published"].as_u64().unwrap() >= count(alone) + count(beside),
        "{found}"
    );
    let over = figure(beside, "p99") / figure(alone, "p99");
    assert!((figure(live, "p99_over_alone") / over - 1.0).abs() < 1e-6, "{found}");
}

#[test]
fn two_files_of_runs_are_compared_and_worse_than_the_tolerance_is_1() {
    let directory = tempfile::tempdir().unwrap();
    let a = bench(&["pick-ups", "--messages", "200"]);
    let with = |key: &str, times: f64| {
        let mut report = a.clone();
        report[key] = (figure(&a, key) * times).into();
        report
    };
    let compared = |a: &[&Value], b: &[&Value], more: &[&str]| compare(directory.path(), a, b, more);
    let slower = with("per_second", 0.7);
    let worse = compared(&[&a], &[&slower], &[]);
    assert_eq!(code(&worse), 1, "{}", said(&worse));
    for text in ["WORSE", "0.70", "worse by more than 25 %: per_second"] {
        assert!(said(&worse).contains(text), "{text}: {}", said(&worse));
    }
    assert_eq!(code(&compared(&[&slower], &[&a], &[])), 0, "better is well");
    assert!(said(&compared(&[&slower], &[&a], &[])).contains("better"));
    assert_eq!(code(&compared(&[&a], &[&with("per_second", 0.85)], &[])), 0, "within the tolerance");
    assert_eq!(code(&compared(&[&a], &[&with("per_second", 0.85)], &["--tolerance", "10"])), 1);
    assert_eq!(code(&compared(&[&a], &[&slower], &["--tolerance", "50"])), 0);

    // Of several runs the median counts, and what lies among the other's runs is noise.
    let fast = with("per_second", 1.1);
    let json = |output: Output| serde_json::from_slice::<Value>(&output.stdout).unwrap();
    let noisy = compared(&[&a, &fast, &slower], &[&slower, &slower, &slower], &["--json"]);
    assert_eq!(code(&noisy), 0, "{}", said(&noisy));
    let noisy = json(noisy);
    assert_eq!(
        (&noisy["runs_a"], &noisy["runs_b"], &noisy["verdict"]),
        (&3.into(), &3.into(), &"same".into())
    );
    let rate = noisy["figures"].as_array().unwrap().iter().find(|of| of["figure"] == "per_second").unwrap();
    assert_eq!(rate["verdict"], "noise", "{rate}");
    assert!((figure(rate, "b_over_a") - 0.7).abs() < 1e-9, "{rate}");
    assert!(
        (figure(rate, "b_over_a_least") - 0.7 / 1.1).abs() < 1e-9 && figure(rate, "b_over_a_most") == 1.0,
        "{rate}"
    );
    let steady = compared(&[&a, &fast, &a], &[&slower, &slower, &slower], &["--json"]);
    assert_eq!((code(&steady), &json(steady)["verdict"]), (1, &"worse".into()));

    // What can not be compared.
    let refused = |b: &Value, why: &str| {
        let refused = compared(&[&a], &[b], &[]);
        assert_eq!(code(&refused), 64, "{why}: {}", said(&refused));
        assert!(said(&refused).contains(why), "{why}: {}", said(&refused));
    };
    let otherwise = |key: &str, value: Value| {
        let mut report = a.clone();
        report[key] = value;
        report
    };
    refused(&otherwise("durability", "os".into()), r#"durability is "fsync" in A and "os" in B"#);
    refused(&otherwise("messages_asked", 900.into()), "messages_asked is 200 in A and 900 in B");
    refused(&otherwise("bench", "storm".into()), r#"bench is "pick-ups" in A and "storm" in B"#);
    refused(&otherwise("speed", 1.0.into()), "speed is not known here");
    refused(&otherwise("used_per_million", Value::Null), "A has the figure used_per_million.");
    refused(&serde_json::json!({"check": "answers"}), "no report of a bench");
    assert_eq!(code(&compared(&[&a], &[], &[])), 64, "nothing in it");
    assert_eq!(code(&compared(&[&a, &otherwise("durability", "os".into())], &[&a], &[])), 64);
    assert_eq!(code(&compared(&[&a], &[&a], &["--tolerance", "-1"])), 64);
    assert_eq!(code(&run(&["bench", "compare", "/nowhere/a.json", "/nowhere/b.json"])), 74);
}

/// How often the processes of the machine are looked through.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Processes other than `but` whose command line has the text: what a verb has started there.
fn processes_that_name(text: &str, but: u32) -> Vec<u32> {
    let numbered = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().to_str()?.parse().ok();
    let names = |process: &u32| {
        // One that has ended meanwhile names nothing, and neither does one that nobody has taken note of yet.
        let words = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        *process != but && String::from_utf8_lossy(&words).contains(text)
    };
    fs::read_dir("/proc").unwrap().filter_map(numbered).filter(names).collect()
}

/// Runs a verb until it has started a process that names `what`, sends a signal, and waits for everything to end.
/// Gives the verb's exit code, and how much of its directory is left.
fn end_by(signal: &str, arguments: &[&str], what: &str) -> (Option<i32>, usize) {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().to_str().unwrap();
    let arguments: Vec<String> = arguments.iter().map(|word| word.replace("HERE", here)).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    fs::write(directory.path().join("file"), "").unwrap();
    let mut verb =
        sharedline(&words).env("TMPDIR", here).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + WITHIN;
    let what = what.replace("HERE", here);
    while processes_that_name(&what, verb.id()).is_empty() {
        assert!(Instant::now() < until && verb.try_wait().unwrap().is_none(), "{words:?} starts a process");
        std::thread::park_timeout(LOOK_EVERY);
    }
    assert!(Command::new("kill").args([signal, &verb.id().to_string()]).status().unwrap().success());
    let status = verb.wait().unwrap();
    let until = Instant::now() + WITHIN;
    loop {
        let left = processes_that_name(here, verb.id());
        if left.is_empty() {
            break;
        }
        if Instant::now() > until {
            for process in &left {
                let _ = Command::new("kill").args(["-KILL", &process.to_string()]).status();
            }
            panic!("{words:?} ended by {signal} leaves {left:?} behind");
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    fs::remove_file(directory.path().join("file")).unwrap();
    (status.code(), fs::read_dir(directory.path()).unwrap().count())
}

#[test]
fn a_bench_that_is_ended_leaves_no_process_and_no_file_behind() {
    let pick_ups = ["bench", "pick-ups", "--messages", "100000000"];
    let relays = ["bench", "fan-out", "--messages", "2000", "--rounds", "100000"];
    for (arguments, what) in
        [(&pick_ups[..], "HERE"), (&relays[..], "relay\0--subscribers\x003\0--file\0HERE")]
    {
        for signal in ["-TERM", "-HUP", "-INT"] {
            assert_eq!(end_by(signal, arguments, what), (Some(1), 0), "{arguments:?} {signal}");
        }
        // Nobody is left to remove its files.
        assert_eq!(end_by("-KILL", arguments, what).0, None, "{arguments:?}");
    }
}

#[test]
fn a_demo_and_a_conformance_run_that_are_ended_leave_no_process_behind() {
    for signal in ["-TERM", "-HUP", "-INT"] {
        assert_eq!(end_by(signal, &["demo", "--once"], "HERE"), (Some(1), 0), "{signal}");
        let conformance = ["conformance", "--listen", "127.0.0.1:0", "--", "tail", "-f", "HERE/file"];
        assert_eq!(end_by(signal, &conformance, "HERE"), (Some(1), 0), "{signal}");
    }
    assert_eq!(end_by("-KILL", &["demo", "--once"], "HERE").0, None);
}

#[test]
fn a_running_broker_is_measured_as_often_as_wanted_and_never_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut serving = serve(&configuration(directory.path()));
    for name in ["crm", "desk", "whatsapp"] {
        fs::write(directory.path().join(name), name).unwrap();
    }
    let (tcp, id) = (serving.tcp.to_string(), serving.child.id().to_string());
    let tokens = directory.path().to_str().unwrap();
    let running = [
        "--tcp",
        &tcp,
        "--pid",
        &id,
        "--portal",
        "acme",
        "--number",
        NUMBER,
        "--gateway",
        "whatsapp",
        "--service",
        "crm",
        "--service",
        "desk",
        "--tokens",
        tokens,
    ];
    for _ in 0..2 {
        let of_run = ["fan-out", "--subscribers", "2", "--rounds", "2", "--no-relay"];
        let fan_out = [&of_run[..], &["--messages", "200", "--rate", "2000"]].concat();
        let found = bench(&[&fan_out[..], &running].concat());
        agree(&found["runs"][0], 400, 800);
        assert!(found["durability"].is_null() && found["syncing_relay"].is_null());
        let growth =
            ["growth", "--by", "backlog", "--steps", "500", "--subscribers", "2", "--deliveries", "200"];
        assert_eq!(bench(&[&growth[..], &running].concat())["rows"].as_array().unwrap().len(), 1);
    }
    let memory = ["memory", "--connections", "10", "--conversations", "1000", "--subscribers", "2"];
    assert_eq!(bench(&[&memory[..], &running].concat())["connection"]["count"], 10);
    agree(&bench(&[&["pick-ups", "--messages", "100"][..], &running].concat()), 100, 100);
    let fewer = run(&[
        &["bench", "growth", "--by", "channels", "--steps", "100", "--subscribers", "2"][..],
        &running,
    ]
    .concat());
    assert!(code(&fewer) == 1 && said(&fewer).contains("takes 100 --number"), "{}", said(&fewer));
    let refused = run(&[&["bench", "restart"][..], &running].concat());
    assert!(code(&refused) == 1 && said(&refused).contains("is not killed"), "{}", said(&refused));
    serving.signal("-TERM");
    assert_eq!(serving.ended(), 0, "it was running all the time");
}

#[test]
fn the_demos_story_plays_to_its_end_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let played = sharedline(&["demo", "--once"]).env("TMPDIR", directory.path()).output().unwrap();
    assert_eq!(code(&played), 0, "{}", said(&played));
    assert!(said(&played).contains("every check held"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "its directory is gone");
}

/// A process that is asked to end when the test does, so that it takes its own children with it.
struct Ending(Child);

impl Ending {
    fn end(&mut self, signal: &str) -> Option<i32> {
        let asked = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(asked.unwrap().success());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.end("-TERM");
        }
    }
}

#[test]
fn the_demo_stays_open_for_the_curl_line_that_it_prints_and_shows_what_comes_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept");
    let mut demo = sharedline(&["demo", "--data-dir", kept.to_str().unwrap()]);
    let mut demo = Ending(demo.stdout(Stdio::piped()).spawn().unwrap());
    let (told, lines) = mpsc::channel();
    let stdout = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    std::thread::spawn(move || stdout.map_while(Result::ok).try_for_each(|line| told.send(line)));
    let mut shown = String::new();
    let next = |shown: &mut String| {
        let line = lines.recv_timeout(WITHIN).unwrap_or_else(|error| panic!("{error}: {shown}"));
        *shown += &format!("{line}\n");
        line
    };
    let line = loop {
        let line = next(&mut shown);
        if line.trim_start().starts_with("curl ") {
            break line;
        }
    };
    let curl = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(curl.status.success(), "{}", said(&curl));
    let answer: Value = serde_json::from_slice(&curl.stdout).unwrap();
    assert_eq!(answer["contacts"][0]["wa_id"], "16505550000", "{answer}");
    assert!(answer["messages"][0]["id"].as_str().is_some_and(|id| id.starts_with("wamid.")), "{answer}");
    // Desk's own reply, which the two others see masked; that it was read; the customer's answer, which all three see.
    let times = |shown: &str, text: &str| shown.matches(text).count();
    let is_shown = |shown: &str| {
        times(shown, "own reply: Hello from curl") == 1
            && times(shown, "a reply in another service") == 2
            && times(shown, "receipt: read") > 0
            && times(shown, "Customer: Thank you, got it!") == 3
    };
    shown.clear();
    while !is_shown(&shown) {
        next(&mut shown);
    }
    assert_eq!(demo.end("-INT"), Some(0));
    assert!(kept.join("data/FORMAT").exists(), "its store stays where it was asked for");
}

#[test]
fn b03_no_path_of_the_running_broker_shows_another_services_content() {
    const CANARY: &str = "CANARY-4711";
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let log = directory.path().join("log");
    let mut serving = serve_logging(&config, Stdio::from(fs::File::create(&log).unwrap()));
    let (mut crm, mut desk) = (serving.adapter("a"), serving.peer("service", "desk", "a"));
    let mut gateway = serving.peer("gateway", "whatsapp", "g");
    let create = format!(r#"{{"type":"create_channel","id":2,"number":"{NUMBER}"}}"#);
    let channel = ask(&mut crm, &create)["channel"].as_str().unwrap().to_owned();
    ask(&mut desk, &create);
    ask(&mut desk, r#"{"type":"roster","id":3,"replace":true,"agents":[{"agent":"bob","name":"Bob"}]}"#);
    let inbound = format!(
        r#"{{"type":"inbound","id":2,"number":"{NUMBER}","message_id":"wamid.1","at":{},"customer":{{"id":"16505551234"}},"content":{{"type":"text","text":{{"body":"hello"}}}}}}"#,
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
    );
    assert_eq!(ask(&mut gateway, &inbound)["channels"], 1);
    let contents = [
        format!(r#"{{"type":"text","text":{{"body":"{CANARY}"}}}}"#),
        format!(
            r#"{{"type":"document","document":{{"id":"{CANARY}","filename":"{CANARY}.pdf","caption":"{CANARY}"}}}}"#
        ),
        format!(
            r#"{{"type":"template","template":{{"name":"{CANARY}","components":[{{"text":"{CANARY}"}}]}}}}"#
        ),
        format!(r#"{{"type":"reaction","reaction":{{"message_id":"wamid.1","emoji":"{CANARY}"}}}}"#),
        format!(r#"{{"type":"text","text":{{"body":"x"}},"biz_opaque_callback_data":"{CANARY}"}}"#),
    ];
    for (at, content) in contents.iter().enumerate() {
        let reply = format!(
            r#"{{"type":"reply","id":{},"channel":"{channel}","to":"16505551234","reply_id":"{CANARY}-{at}","content":{content}}}"#,
            at + 10
        );
        crm.get_mut().write_all(format!("{reply}\n").as_bytes()).unwrap();
        let send = next(&mut gateway);
        assert_eq!(send["type"], "send", "{send}");
        let sent = format!(
            r#"{{"type":"sent","id":{},"channel":"{channel}","offset":{},"error":{{"code":"131000","title":"{CANARY}","details":"{CANARY}"}},"definite":true}}"#,
            at + 10,
            send["offset"]
        );
        assert_eq!(ask(&mut gateway, &sent)["type"], "ok");
    }
    // A refused one, for the log: what is wrong with it is named, not what it says.
    let wrong = format!(
        r#"{{"type":"reply","id":90,"channel":"{channel}","to":"16505551234","reply_id":"w","content":{{"to":"{CANARY}","type":"text"}}}}"#
    );
    crm.get_mut().write_all(format!("{wrong}\n").as_bytes()).unwrap();
    let mut own = Vec::new();
    while own.last().is_none_or(|last: &Value| last["id"] != 90) {
        own.push(next(&mut crm));
    }
    assert!(!own.last().unwrap().to_string().contains(CANARY), "{own:?}");
    let seen_by_crm = format!("{own:?}");
    assert!(seen_by_crm.contains(CANARY), "the sender sees its own");
    // All that Desk can get at: what it was delivered, the conversation, the list.
    let list = format!(r#"{{"type":"list_conversations","id":50,"channel":"{channel}"}}"#);
    desk.get_mut().write_all(format!("{list}\n").as_bytes()).unwrap();
    let mut theirs = Vec::new();
    while theirs.last().is_none_or(|last: &Value| last["id"] != 50) {
        theirs.push(next(&mut desk));
    }
    let conversation =
        theirs.last().unwrap()["conversations"][0]["conversation"].as_str().unwrap().to_owned();
    let open = format!(
        r#"{{"type":"open","id":51,"channel":"{channel}","conversation":"{conversation}","agent":"bob"}}"#
    );
    theirs.push(ask(&mut desk, &open));
    let masked = theirs.iter().filter(|seen| seen["type"] == "masked_reply").count();
    assert_eq!(masked, contents.len(), "{theirs:?}");
    let timeline = theirs.last().unwrap()["timeline"].as_array().unwrap();
    assert_eq!(timeline.len(), 1 + contents.len(), "{timeline:?}");
    for seen in &theirs {
        assert!(!seen.to_string().contains(CANARY), "{seen}");
    }
    for path in ["/livez", "/readyz?verbose", "/metrics"] {
        assert!(!http(serving.http, path).contains(CANARY));
    }
    for asked in [
        vec!["conversation", "show", &channel, &conversation, "--as", "desk"],
        vec!["conversation", "list", &channel, "--as", "desk"],
        vec!["channel", "show", &channel],
        vec!["channel", "list"],
    ] {
        for json in [&[][..], &["--json"]] {
            let shown = operate(&serving, &config, &[&asked, json].concat());
            assert_eq!(code(&shown), 0, "{}", said(&shown));
            assert!(!said(&shown).contains(CANARY), "{asked:?}: {}", said(&shown));
        }
    }
    let own = operate(&serving, &config, &["conversation", "show", &channel, &conversation, "--as", "crm"]);
    assert!(said(&own).contains(CANARY), "its own service sees it: {}", said(&own));
    serving.signal("-TERM");
    assert_eq!(serving.ended(), 0);
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("stopping"), "the log was written");
    assert!(!log.contains(CANARY), "the log, with all that it can say");
}

#[test]
fn a_stopped_brokers_store_is_verified_and_its_damage_named_by_file_and_place() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let verify = || run(&["store", "verify", "--json", "--config", config.to_str().unwrap()]);
    let missing = verify();
    assert_eq!(code(&missing), 74, "{}", said(&missing));
    assert!(!directory.path().join("data").exists(), "looking makes nothing");

    let mut serving = serve(&config);
    let mut crm = serving.adapter("one");
    let created = ask(&mut crm, &format!(r#"{{"type":"create_channel","id":2,"number":"{NUMBER}"}}"#));
    assert_eq!(created["created"], true, "{created}");
    let running = verify();
    assert_eq!(code(&running), 74, "{}", said(&running));
    assert!(said(&running).contains("in use"), "{}", said(&running));
    serving.signal("-TERM");
    assert_eq!(serving.ended(), 0);

    let whole = verify();
    assert_eq!(code(&whole), 0, "{}", said(&whole));
    let report: Value = serde_json::from_slice(&whole.stdout).unwrap();
    assert_eq!((&report["whole"], &report["damage"]), (&true.into(), &serde_json::json!([])));
    assert!(report["records"].as_u64().unwrap() >= 2, "{report}");

    // A byte of the record that names the service.
    let files = fs::read_dir(directory.path().join("data")).unwrap().map(|file| file.unwrap().path());
    let segment =
        files.into_iter().find(|path| path.extension().is_some_and(|end| end == "segment")).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(3).position(|window| window == b"crm").unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let damaged = verify();
    assert_eq!(code(&damaged), 1, "{}", said(&damaged));
    let report: Value = serde_json::from_slice(&damaged.stdout).unwrap();
    let damage = &report["damage"][0];
    assert_eq!(damage["file"], segment.canonicalize().unwrap().to_str().unwrap());
    let named = damage["byte"].as_u64().unwrap();
    assert!(named <= at as u64 && at as u64 - named < 200, "byte {named} is named, {at} was flipped");
    assert_eq!(fs::read(&segment).unwrap(), bytes, "looking changes nothing");
}
