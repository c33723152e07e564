//! Programs that were written for WhatsApp's Cloud API, on libraries that know nothing of the broker and are used as they
//! are published: pywa in one service, @kapso/whatsapp-cloud-api in another, on one number of the built-in gateway. The
//! simulated Graph API says what came to WhatsApp, the programs say what their library told them.
//!
//! `tests/clients` has the programs; the libraries are installed below `target/clients` by the script there.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use sharedline::gateway::simulated::{Customer, StatusNews, Webhooks};

use crate::media::WABA;
use crate::stand::{Broker, CUSTOMER, ID, Lines, NUMBER, SECRET, WAIT, WhatsApp, now_ms};
use crate::webhooks::{MEDIA, payloads};

/// What one program is told of the other's messages, whatever they are.
const MASKED: &str = "A reply was sent from another service.";

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

impl Program {
    /// What it said so far of this sort, whatever was waited for; it is not said again.
    fn said_of(&mut self, event: &str) -> Vec<Value> {
        self.kept.extend(self.said.try_iter());
        let (of_it, rest) = self.kept.drain(..).partition(|said| said["event"] == event);
        self.kept = rest;
        of_it
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

fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(install)
}

fn install() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let into = here.join("target/clients");
    let script = here.join("tests/clients/install");
    let status = Command::new("bash").arg(script).arg(&into).status().unwrap();
    assert!(status.success(), "the clients' libraries can not be installed");
    into
}

/// Two programs that share a number, and WhatsApp.
struct Play {
    whatsapp: WhatsApp,
    broker: Broker,
    webhooks: Webhooks,
    py: Program,
    js: Program,
    messages: usize,
    _desk: Lines,
}

impl Play {
    fn start() -> Self {
        let libraries = installed();
        let whatsapp = WhatsApp::start();
        let (py_port, js_port) = (free_port(), free_port());
        let webhook = |port: u16| {
            format!("webhook = {{ url = \"http://127.0.0.1:{port}/hook\", app_secret = \"{SECRET}\" }}")
        };
        let services = [("desk", String::new()), ("py", webhook(py_port)), ("js", webhook(js_port))];
        let broker = Broker::start_builtin(&services, &whatsapp.graph.url());
        let bot = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(path);
        let mut python = Command::new(libraries.join("pywa/bin/python"));
        python.arg(bot("pywa/bot.py"));
        let mut py = Program::start(python, &broker, "py", py_port, "/v23.0");
        let mut node = Command::new("node");
        node.arg(libraries.join("kapso/bot.mjs"));
        let mut js = Program::start(node, &broker, "js", js_port, "");
        py.says(&json!({ "event": "ready" }));
        js.says(&json!({ "event": "ready" }));
        let mut desk = Lines::service(&broker, "desk");
        let channel = desk.create();
        desk.until_joined(&channel, 3);
        let webhooks = Webhooks {
            url: String::new(),
            app_secret: String::new(),
            phone_number_id: ID.to_owned(),
            display_phone_number: NUMBER.trim_start_matches('+').to_owned(),
        };
        Self { whatsapp, broker, webhooks, py, js, messages: 0, _desk: desk }
    }

    fn program(&mut self, name: &str) -> &mut Program {
        if name == "py" { &mut self.py } else { &mut self.js }
    }

    /// A customer writes; gives the id of his message.
    fn text(&mut self, text: &str) -> String {
        self.messages += 1;
        let id = format!("wamid.customer.{}", self.messages);
        let customer = Customer { wa_id: Some(CUSTOMER), user_id: None, name: "Pablo" };
        self.broker.webhook(&self.webhooks.text(customer, &id, text));
        id
    }

    /// A customer does something else; gives the id of that.
    fn message(&mut self, content: Value) -> String {
        self.messages += 1;
        let id = format!("wamid.customer.{}", self.messages);
        let customer = Customer { wa_id: Some(CUSTOMER), user_id: None, name: "Pablo" };
        let mut webhook = self.webhooks.text(customer, &id, "");
        let message = &mut webhook["entry"][0]["changes"][0]["value"]["messages"][0];
        message.as_object_mut().unwrap().remove("text");
        for (key, value) in content.as_object().unwrap() {
            message[key] = value.clone();
        }
        self.broker.webhook(&webhook);
        id
    }

    /// A program is asked to send something; gives the id of what it sent.
    fn send(&mut self, name: &str, what: &str) -> String {
        self.text(&format!("{name} {what}"));
        let sent = self.program(name).says(&json!({ "event": "sent", "what": what }));
        sent["id"].as_str().unwrap().to_owned()
    }

    fn status(&self, message_id: &str, status: &str, error: Option<u32>) {
        let seen = self.whatsapp.graph.seen();
        let seen = seen.iter().find(|seen| seen.message_id() == Some(message_id)).unwrap();
        let news = StatusNews {
            message_id,
            status,
            recipient: &seen.to,
            callback_data: seen.callback_data(),
            error,
        };
        self.broker.webhook(&self.webhooks.status(news));
    }
}

fn other(name: &str) -> &'static str {
    if name == "py" { "js" } else { "py" }
}

/// What Meta must get when a program is asked to send something: what its library writes, and nothing else.
fn content(who: &str, what: &str, asked_by: &str, media: &str) -> Value {
    let (answer, secret) = (format!("{who}-answer"), format!("{who}-secret"));
    let link = |end: &str| format!("https://example.com/{answer}{end}");
    let is_py = who == "py";
    let interactive = |kind: &str, action: Value| {
        json!({ "type": "interactive",
            "interactive": { "type": kind, "body": { "text": answer }, "action": action } })
    };
    match what {
        "text" => json!({ "type": "text", "text": { "body": answer, "preview_url": true },
            "context": { "message_id": asked_by } }),
        "buttons" => {
            let reply = json!({ "id": secret, "title": "Yes" });
            interactive("button", json!({ "buttons": [{ "type": "reply", "reply": reply }] }))
        }
        "list" => {
            let rows = json!([{ "id": secret, "title": "By the door", "description": answer }]);
            let sections = json!([{ "title": "Inside", "rows": rows }]);
            interactive("list", json!({ "button": "Choose", "sections": sections }))
        }
        "link" => {
            let parameters = json!({ "display_text": "Menu", "url": link("") });
            interactive("cta_url", json!({ "name": "cta_url", "parameters": parameters }))
        }
        "flow" => {
            let mut parameters = json!({ "flow_message_version": "3", "flow_id": "1104", "flow_cta": "Book",
                "flow_token": secret, "flow_action": "navigate", "flow_action_payload": { "screen": "FIRST" } });
            if is_py {
                parameters["mode"] = json!("published");
            }
            interactive("flow", json!({ "name": "flow", "parameters": parameters }))
        }
        "image" | "video" => json!({ "type": what, what: { "id": media, "caption": answer } }),
        "document" => json!({ "type": what,
            what: { "link": link(".pdf"), "filename": format!("{answer}.pdf"), "caption": answer } }),
        "voice" => json!({ "type": "audio", "audio": { "id": media, "voice": true } }),
        "sticker" => json!({ "type": what, what: { "id": media } }),
        "location" => {
            json!({ "type": what, what: { "latitude": 59.9139, "longitude": 10.7522, "name": answer,
            "address": "Street 1" } })
        }
        "contacts" => {
            let mut card = json!({ "name": { "formatted_name": answer, "first_name": "Ada" },
                "phones": [{ "phone": "+47 400 00 001", "type": "WORK" }] });
            if is_py {
                // pywa says of everything that it is not there.
                for part in ["last_name", "middle_name", "prefix", "suffix"] {
                    card["name"][part] = Value::Null;
                }
                card["phones"][0]["wa_id"] = Value::Null;
                for part in ["birthday", "org"] {
                    card[part] = Value::Null;
                }
                for part in ["emails", "urls", "addresses"] {
                    card[part] = json!([]);
                }
            }
            json!({ "type": what, what: [card] })
        }
        "reaction" => json!({ "type": what, what: { "message_id": asked_by, "emoji": "👍" } }),
        "template" => {
            let name = |name: &str| if is_py { name.to_uppercase() } else { name.to_owned() };
            let image = json!({ "type": "image", "image": { "link": link(".png") } });
            let text = json!({ "type": "text", "text": answer });
            let payload = json!({ "type": "payload", "payload": secret });
            let index = if is_py { json!(0) } else { json!("0") };
            let components = json!([
                { "type": name("header"), "parameters": [image] },
                { "type": name("body"), "parameters": [text] },
                { "type": "button", "sub_type": name("quick_reply"), "index": index, "parameters": [payload] },
            ]);
            json!({ "type": what, what: { "name": "booking", "language": { "code": "en_US" },
                "components": components } })
        }
        _ => panic!("nobody sends {what}"),
    }
}

const KINDS: [&str; 14] = [
    "text", "buttons", "list", "link", "flow", "image", "document", "voice", "video", "sticker", "location",
    "contacts", "reaction", "template",
];

#[test]
fn every_kind_of_message_leaves_as_its_library_writes_it_and_the_other_program_learns_only_that_it_was_sent()
{
    let mut play = Play::start();
    for (at, what) in KINDS.into_iter().enumerate() {
        for (of_two, name) in ["py", "js"].into_iter().enumerate() {
            let asked_by = play.text(&format!("{name} {what}"));
            let sent = play.program(name).says(&json!({ "event": "sent", "what": what }));
            let seen = play.whatsapp.seen(2 * at + of_two + 1).pop().unwrap();
            assert_eq!(sent["id"].as_str(), seen.message_id());
            let mut body = seen.body;
            let kind = body["type"].as_str().unwrap().to_owned();
            let media = body[&kind]["id"].as_str().unwrap_or_default().to_owned();
            if !media.is_empty() {
                let uploaded = play.whatsapp.graph.media(&media).unwrap();
                assert_eq!(uploaded.bytes, format!("a picture of {name}").into_bytes(), "{what}");
                assert_eq!(uploaded.mime_type, "image/png", "{what}");
            }
            let data = body.as_object_mut().unwrap().remove("biz_opaque_callback_data").unwrap();
            assert!(data.as_str().unwrap().starts_with("sharedline:1:"), "{data}");
            let mut expected = content(name, what, &asked_by, &media);
            for (key, value) in
                [("messaging_product", "whatsapp"), ("recipient_type", "individual"), ("to", CUSTOMER)]
            {
                expected[key] = json!(value);
            }
            assert_eq!(body, expected, "{name}: {what}");
            play.program(name).says(&json!({ "event": "status", "id": sent["id"], "status": "sent" }));
            play.program(other(name)).says(&json!({ "event": "echo", "text": MASKED }));
        }
    }
    assert_eq!(play.whatsapp.graph.wrongs(), []);
    for name in ["py", "js"] {
        let program = play.program(name);
        assert_eq!(program.said_of("echo"), [] as [Value; 0], "one for each of the other's");
        let said = format!("{:?}", program.kept);
        let others = ["answer", "secret", "tracker"].map(|word| format!("{}-{word}", other(name)));
        assert!(!others.iter().any(|word| said.contains(word)), "{said}");
        assert!(!["forged", "\"error\"", "complaint"].iter().any(|event| said.contains(event)), "{said}");
    }
}

#[test]
fn each_program_follows_its_own_messages_and_gets_back_alone_what_it_wrote_for_machines() {
    let mut play = Play::start();
    for name in ["py", "js"] {
        let tracker = format!("{name}-tracker");
        let read = play.send(name, "text");
        for status in ["delivered", "read"] {
            play.status(&read, status, None);
        }
        for status in ["sent", "delivered", "read"] {
            let told = json!({ "event": "status", "id": read, "status": status, "tracker": tracker });
            let told = play.program(name).says(&told);
            assert_eq!(told["error"], Value::Null);
        }
        let failed = play.send(name, "image");
        play.program(name).says(&json!({ "event": "status", "id": failed, "status": "sent" }));
        play.status(&failed, "failed", Some(131_026));
        let told = play.program(name).says(&json!({ "event": "status", "id": failed, "status": "failed" }));
        let error = match name {
            "py" => json!({ "type": "MessageUndeliverable", "code": 131_026, "details": "So it was asked" }),
            _ => json!({ "code": 131_026, "title": "It failed", "message": "It failed",
                "errorData": { "details": "So it was asked" } }),
        };
        assert_eq!(told["error"], error);
        assert_eq!(told["tracker"], json!(tracker));
        assert_eq!(play.program(other(name)).said_of("status"), [] as [Value; 0]);
    }

    let to = |id: &str| json!({ "from": NUMBER.trim_start_matches('+'), "id": id });
    let sent: Vec<_> = ["py", "js"]
        .iter()
        .flat_map(|name| ["buttons", "list", "template", "flow"].map(|what| (*name, what)))
        .map(|(name, what)| (name, what, play.send(name, what)))
        .collect();
    let mut taps = Vec::new();
    for (name, what, id) in sent {
        let (secret, answer) = (format!("{name}-secret"), format!("{name}-answer"));
        let content = match what {
            "buttons" => json!({ "type": "interactive", "interactive": { "type": "button_reply",
                "button_reply": { "id": secret, "title": "Yes" } } }),
            "list" => json!({ "type": "interactive", "interactive": { "type": "list_reply",
                "list_reply": { "id": secret, "title": "By the door", "description": answer } } }),
            "template" => json!({ "type": "button", "button": { "payload": secret, "text": "Yes" } }),
            _ => json!({ "type": "interactive", "interactive": { "type": "nfm_reply", "nfm_reply": {
                "name": "flow", "body": "Sent",
                "response_json": json!({ "flow_token": secret, "seats": 2 }).to_string() } } }),
        };
        let mut message = content.clone();
        message["context"] = to(&id);
        let tap = play.message(message);
        let own = match (name, what) {
            ("py", "buttons" | "template") => {
                json!({ "event": "button", "data": secret, "title": "Yes", "to": id })
            }
            ("py", "list") => {
                json!({ "event": "chosen", "data": secret, "title": "By the door", "description": answer })
            }
            ("py", _) => json!({ "event": "flow", "token": secret, "response": { "seats": 2 } }),
            (_, "buttons") => {
                json!({ "event": "interactive", "id": tap, "buttonReply": { "id": secret, "title": "Yes" } })
            }
            (_, "list") => json!({ "event": "interactive", "id": tap,
                "listReply": { "id": secret, "title": "By the door", "description": answer } }),
            (_, "template") => {
                json!({ "event": "button", "button": { "payload": secret, "text": "Yes" }, "to": id })
            }
            (_, _) => {
                json!({ "event": "interactive", "id": tap, "flow": { "flowToken": secret, "seats": 2 } })
            }
        };
        let told = play.program(name).says(&own);
        assert_eq!(told.get("redacted"), None, "to its own service it is whole");
        // What the other sees: that the customer chose, and what he read when he did (B7).
        let mut others = match (other(name), what) {
            ("js", "buttons") => {
                json!({ "event": "interactive", "id": tap, "buttonReply": { "title": "Yes" } })
            }
            ("js", "list") => {
                json!({ "event": "interactive", "id": tap, "listReply": { "title": "By the door" } })
            }
            ("js", "template") => json!({ "event": "button", "button": { "text": "Yes" }, "to": id }),
            ("js", _) => json!({ "event": "interactive", "id": tap, "flow": { "seats": 2 } }),
            (_, "buttons") => json!({ "event": "raw", "id": tap,
                "interactive": { "type": "button_reply", "button_reply": { "title": "Yes" } } }),
            (_, "list") => json!({ "event": "raw", "id": tap,
                "interactive": { "type": "list_reply", "list_reply": { "title": "By the door" } } }),
            (_, "template") => json!({ "event": "raw", "id": tap, "button": { "text": "Yes" } }),
            (_, _) => json!({ "event": "flow", "token": null, "response": { "seats": 2 } }),
        };
        let says_so = others["event"] != "flow";
        if says_so {
            others["redacted"] = json!(true);
        }
        play.program(other(name)).says(&others);
        taps.push((name, tap));
    }
    // pywa has no type for a tap without its data: it takes the update (200), says so in its log, and has it for handlers
    // of raw updates alone. It is not told again, and what comes after is told as ever. Answers of flows without their
    // token it knows from some phones.
    let complaints = play.py.said_of("complaint");
    let (taps_of_others, flows): (Vec<_>, Vec<_>) =
        complaints.iter().partition(|complaint| complaint["error"] == "KeyError");
    assert_eq!((taps_of_others.len(), flows.len()), (3, 1), "{complaints:?}");
    let is_that =
        |complaint: &&Value| complaint["text"].as_str().unwrap().contains("Failed to construct update");
    assert!(taps_of_others.iter().all(is_that), "{complaints:?}");
    assert!(flows[0]["text"].as_str().unwrap().contains("without flow token"), "{complaints:?}");
    let raw: Vec<Value> = play.py.said_of("raw").into_iter().map(|said| said["id"].clone()).collect();
    let once: BTreeSet<String> = raw.iter().map(Value::to_string).collect();
    assert_eq!(once.len(), raw.len(), "each once");
    play.text("still there");
    play.py.says(&json!({ "event": "text", "text": "still there", "name": "Pablo", "wa_id": CUSTOMER }));
    play.js.says(&json!({ "event": "text", "text": "still there", "from": CUSTOMER }));
    for (name, words) in [("py", ["js-answer", "js-secret"]), ("js", ["py-answer", "py-secret"])] {
        let said = format!("{:?}", play.program(name).kept);
        assert!(!words.iter().any(|word| said.contains(word)), "{said}");
    }
}

#[test]
fn whatever_customers_send_both_libraries_take_it_but_for_what_was_left_out_of_taps() {
    let mut play = Play::start();
    let mut complained = Vec::new();
    for (name, mut webhook) in payloads() {
        let change = &mut webhook["entry"][0]["changes"][0];
        if change["field"] != "messages" || change["value"]["messages"].is_null() {
            continue;
        }
        let message = &mut change["value"]["messages"][0];
        for kind in MEDIA {
            if message[kind].is_object() {
                message[kind]["id"] = json!(play.whatsapp.graph.customer_sent("image/png", b"something"));
            }
        }
        let id = message["id"].clone();
        play.broker.webhook(&webhook);
        for program in [&mut play.py, &mut play.js] {
            program.says(&json!({ "event": "raw", "id": id }));
            assert_eq!(program.said_of("error"), [] as [Value; 0], "{name}");
        }
        complained.extend(play.py.said_of("complaint").iter().map(|_| name.clone()));
    }
    let taps = ["button", "interactive_button_reply", "interactive_list_reply", "interactive_nfm_reply"];
    assert_eq!(complained, taps);
    // Typed, by each library's own words.
    play.py.says(&json!({ "event": "number", "old": "12025550173", "new": "12025550199" }));
    for kind in ["location", "contacts", "order", "reaction", "unsupported"] {
        play.py.says(&json!({ "event": "message", "kind": kind }));
        play.js.says(&json!({ "event": "message", "kind": kind }));
    }
}

#[test]
fn media_go_both_ways_and_read_marks_are_answered() {
    let mut play = Play::start();
    for (kind, mime) in [
        ("image", "image/png"),
        ("audio", "audio/ogg"),
        ("video", "video/mp4"),
        ("document", "application/pdf"),
        ("sticker", "image/webp"),
    ] {
        let bytes = format!("a customer's {kind}");
        let id = play.whatsapp.graph.customer_sent(mime, bytes.as_bytes());
        // Where WhatsApp has it: an address that no service's token opens, and that no program must go to.
        let url = format!("{}/media/{id}", play.whatsapp.graph.url().replace("/v23.0", ""));
        let known = json!({ "id": id, "mime_type": mime, "url": url, "sha256": "x" });
        play.message(json!({ "type": kind, kind: known }));
        let sha256 = sharedline::config::TokenHash::of(&bytes).to_string();
        play.py.says(&json!({ "event": "media", "kind": kind, "sha256": sha256 }));
        play.js.says(&json!({ "event": "media", "kind": kind, "sha256": sha256 }));
    }
    for name in ["py", "js"] {
        play.text(&format!("{name} read"));
        play.program(name).says(&json!({ "event": "read", "read": true, "typing": true }));
        play.text(&format!("{name} delete"));
        play.program(name).says(&json!({ "event": "deleted", "deleted": true }));
        play.program(name).says(&json!({ "event": "gone", "code": 100, "http": 400 }));
        assert_eq!(play.program(name).said_of("complaint"), [] as [Value; 0]);
    }
    assert_eq!(play.whatsapp.graph.seen().len(), 0, "read marks go no further");
}

#[test]
fn what_is_refused_is_an_error_of_the_librarys_own_with_metas_code_and_details() {
    let mut play = Play::start();
    let mut old = play.webhooks.text(
        Customer { wa_id: Some("16505550000"), user_id: None, name: "Vera" },
        "wamid.old",
        "long ago",
    );
    let at = (now_ms() / 1_000 - 25 * 3_600).to_string();
    old["entry"][0]["changes"][0]["value"]["messages"][0]["timestamp"] = json!(at);
    play.broker.webhook(&old);
    let too_long = "message.text.body: is too short or too long";
    // pywa takes what is no number for the name of a group.
    let nobody = [
        "groups are not supported: recipient_type must be individual",
        "to is neither a phone number nor a user's id",
    ];
    // What is asked, pywa's own class, the other library's category, the code, the status, the details.
    for (what, class, category, code, http, details) in [
        ("too late", "ReEngagementMessage", "reengagementWindow", 131_047, 400, None),
        ("bad token", "ExpiredAccessToken", "authorization", 190, 401, Some(Value::Null)),
        ("nobody", "WhatsAppError", "parameter", 100, 400, Some(json!(nobody))),
        ("too long", "InvalidParameter", "parameter", 131_009, 400, Some(json!(too_long))),
        ("not theirs", "WhatsAppError", "parameter", 100, 400, Some(Value::Null)),
    ] {
        for name in ["py", "js"] {
            play.text(&format!("{name} {what}"));
            let told = play.program(name).says(&json!({ "event": what, "code": code, "http": http }));
            match name {
                "py" => assert_eq!(told["type"], class, "{told}"),
                _ => assert_eq!(
                    (&told["type"], &told["category"]),
                    (&json!("GraphApiError"), &json!(category))
                ),
            }
            match &details {
                Some(Value::Array(details)) => {
                    assert_eq!(told["details"], details[usize::from(name == "js")], "{told}");
                }
                Some(details) => assert_eq!(told.get("details").unwrap_or(&Value::Null), details, "{told}"),
                None => assert!(told["details"].as_str().is_some_and(|text| !text.is_empty()), "{told}"),
            }
        }
    }
    assert_eq!(play.whatsapp.graph.taken(), 0);
}

#[test]
fn what_a_program_fails_once_comes_again_as_it_was_and_is_handled_once() {
    let mut play = Play::start();
    for text in ["py fails before", "py fails after", "js fails"] {
        play.text(text);
    }
    for how in ["before", "after"] {
        let tries = [0, 1].map(|_| play.py.says(&json!({ "event": "fails", "how": how })));
        assert_eq!(tries[0], tries[1], "the same bytes");
    }
    let tries = [0, 1].map(|_| play.js.says(&json!({ "event": "fails" })));
    assert_eq!(tries[0], tries[1], "the same bytes");
    // Behind it, so that everything before has come.
    play.text("behind");
    let handled = ["js fails", "py fails after", "py fails before"];
    for name in ["py", "js"] {
        play.program(name).says(&json!({ "event": "text", "text": "behind" }));
        let texts = play.program(name).said_of("text");
        let mut texts: Vec<&str> = texts.iter().map(|said| said["text"].as_str().unwrap()).collect();
        // pywa answers before it handles, and handles in several threads.
        texts.sort_unstable();
        assert_eq!(texts, handled, "{name}: each once");
    }
}
