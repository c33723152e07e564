//! Programs that were written for WhatsApp's Cloud API, on libraries that know nothing of the broker and are used as they
//! are published: pywa in one service, @kapso/whatsapp-cloud-api in another, on one number.
//!
//! `tests/clients` has the programs; the libraries are installed below `target/clients` by the script there.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::media::{Meta, PICTURE_SHA256, WABA};
use crate::stand::{Broker, CUSTOMER, Gateway, ID, Lines, SECRET, WAIT, now_ms, sent};

/// One of the programs, and what it says.
struct Program {
    child: Child,
    said: mpsc::Receiver<Value>,
    kept: Vec<Value>,
}

impl Program {
    fn start(mut command: Command, broker: &Broker, token: &str, port: u16, base: &str) -> Self {
        let mut child = command
            .env("BASE_URL", format!("http://{}{base}", broker.http))
            .env("TOKEN", token)
            .env("PORT", port.to_string())
            .env("PHONE_NUMBER_ID", ID)
            .env("WABA_ID", WABA)
            .env("APP_SECRET", SECRET)
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, said) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = serde_json::from_str(&line).map(|said| tell.send(said));
            }
        });
        Self { child, said, kept: Vec::new() }
    }

    /// Waits until it says this, whatever else it says meanwhile.
    fn says(&mut self, event: &Value) -> Value {
        let is_it =
            |said: &Value| event.as_object().unwrap().iter().all(|(key, value)| said.get(key) == Some(value));
        let until = Instant::now() + WAIT;
        loop {
            if let Some(at) = self.kept.iter().position(is_it) {
                return self.kept.remove(at);
            }
            let left = until.saturating_duration_since(Instant::now());
            let said = self.said.recv_timeout(left);
            self.kept.push(said.unwrap_or_else(|_| panic!("{event} was not said, but {:?}", self.kept)));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn installed() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let into = here.join("target/clients");
    let script = here.join("tests/clients/install");
    let status = Command::new("bash").arg(script).arg(&into).status().unwrap();
    assert!(status.success(), "the clients' libraries can not be installed");
    into
}

#[test]
fn two_programs_on_unmodified_libraries_share_a_number() {
    let libraries = installed();
    let meta = Meta::start();
    let (py_port, js_port) = (free_port(), free_port());
    let webhook = |port: u16| {
        format!("webhook = {{ url = \"http://127.0.0.1:{port}/hook\", app_secret = \"{SECRET}\" }}")
    };
    let services = [("desk", String::new()), ("py", webhook(py_port)), ("js", webhook(js_port))];
    let broker = Broker::start_with(&services, &meta.config());
    let mut desk = Lines::service(&broker, "desk");
    let channel = desk.create();
    desk.until_joined(&channel, 3);
    let gateway = Gateway::start(&broker, sent);
    let mut bringer = Lines::bringer(&broker);
    let bot = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(path);
    let mut python = Command::new(libraries.join("pywa/bin/python"));
    python.arg(bot("pywa/bot.py"));
    let mut py = Program::start(python, &broker, "py", py_port, "/v23.0");
    let mut node = Command::new("node");
    node.arg(libraries.join("kapso/bot.mjs"));
    let mut js = Program::start(node, &broker, "js", js_port, "");
    py.says(&json!({ "event": "ready" }));
    js.says(&json!({ "event": "ready" }));

    // Both hear the customer; one answers, and the other learns that there was an answer.
    bringer.text("wamid.1", CUSTOMER, "py hello");
    py.says(&json!({ "event": "text", "text": "py hello", "wa_id": CUSTOMER, "name": "Pablo" }));
    js.says(&json!({ "event": "text", "text": "py hello", "from": CUSTOMER }));
    let py_id = py.says(&json!({ "event": "sent" }))["id"].as_str().unwrap().to_owned();
    let masked = json!({ "event": "echo", "text": "A reply was sent from another service." });
    js.says(&masked);
    assert_eq!(gateway.sends()[0]["content"]["interactive"]["body"]["text"], "py-answer");
    py.says(&json!({ "event": "status", "id": py_id, "status": "sent", "tracker": "py-tracker" }));
    bringer.status(&py_id, "read");
    py.says(&json!({ "event": "status", "id": py_id, "status": "read", "tracker": "py-tracker" }));

    // The other way round.
    bringer.text("wamid.2", CUSTOMER, "js hello");
    let js_id = js.says(&json!({ "event": "sent" }))["id"].as_str().unwrap().to_owned();
    py.says(&masked);
    js.says(&json!({ "event": "status", "id": js_id, "status": "sent", "tracker": "js-tracker", "user": CUSTOMER }));

    // What each wrote for itself into a button comes back to it alone.
    let tap = |reply: Value, to: &str| {
        json!({ "type": "interactive", "interactive": { "type": "button_reply", "button_reply": reply },
            "context": { "from": "15550783881", "id": to } })
    };
    bringer.inbound("wamid.3", CUSTOMER, tap(json!({ "id": "py-secret", "title": "Yes" }), &py_id));
    py.says(&json!({ "event": "button", "data": "py-secret" }));
    js.says(&json!({ "event": "button", "reply": { "title": "Yes" } }));
    bringer.inbound("wamid.4", CUSTOMER, tap(json!({ "id": "js-secret", "title": "Go" }), &js_id));
    js.says(&json!({ "event": "button", "reply": { "id": "js-secret", "title": "Go" } }));

    // Media: one library fetches them with its token, the other without.
    let image = json!({ "type": "image", "image": { "id": "777", "mime_type": "image/png",
        "sha256": PICTURE_SHA256 } });
    bringer.inbound("wamid.5", CUSTOMER, image);
    py.says(&json!({ "event": "image", "sha256": PICTURE_SHA256 }));
    js.says(&json!({ "event": "image", "sha256": PICTURE_SHA256 }));

    // An error is one that the library knows.
    let old = json!({ "type": "text", "text": { "body": "long ago" } });
    bringer.inbound_at("wamid.6", "16505550000", old, now_ms() - 25 * 3_600_000);
    bringer.text("wamid.7", CUSTOMER, "old");
    py.says(&json!({ "event": "refused", "code": 131_047 }));

    for (program, others) in
        [(&py, ["js-answer", "js-secret", "js-tracker"]), (&js, ["py-answer", "py-secret", "py-tracker"])]
    {
        let said = format!("{:?}", program.kept);
        assert!(others.iter().all(|word| !said.contains(word)), "{said}");
        assert!(!said.contains("forged") && !said.contains("error"), "{said}");
    }
    assert_eq!(gateway.sends().len(), 2);
}
