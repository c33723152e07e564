//! Processes of a test: `sharedline serve`, an example. Each ends with the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sharedline::config::TokenHash;

use crate::serving::sharedline;

pub(crate) const WITHIN: Duration = Duration::from_secs(60);
pub(crate) const NUMBER: &str = "+15550783881";

/// A port that was free a moment ago: a broker that is started again must be found where it was.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) fn configuration(directory: &Path, tcp: SocketAddr) -> PathBuf {
    let hash = |token: &str| TokenHash::of(token).to_string();
    let text = format!(
        "data_dir = {:?}\n[tcp]\nlisten = \"{tcp}\"\n[http]\nlisten = \"127.0.0.1:0\"\n[[portals]]\nid = \"acme\"\n\
         [[portals.services]]\nid = \"crm\"\ntoken_sha256 = \"{}\"\n\
         [[portals.services]]\nid = \"desk\"\ntoken_sha256 = \"{}\"\n[[portals.gateways]]\nid = \"whatsapp\"\n\
         token_sha256 = \"{}\"\n[[portals.numbers]]\nnumber = \"{NUMBER}\"\n",
        directory.join("data"),
        hash("crm"),
        hash("desk"),
        hash("whatsapp"),
    );
    let path = directory.join("sharedline.toml");
    fs::write(&path, text).unwrap();
    path
}

/// A process and the lines that it prints. Dropped, it is killed.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap_or_else(|error| {
            panic!("{command:?} can not be started: {error}; ./test installs what it needs")
        });
        let (to, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// `sharedline serve`, once it serves.
    pub(crate) fn serve(config: &Path) -> Self {
        Self::serving(config).0
    }

    /// `sharedline serve`, and what it says of where it serves.
    pub(crate) fn serving(config: &Path) -> (Self, String) {
        let mut command = sharedline(&["serve", "--config"]);
        let serving = Self::start(command.arg(config).env("RUST_LOG", "warn"));
        let said = serving.line_with("serves");
        (serving, said)
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Waits for its end, and gives its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// The next line that holds a text.
    pub(crate) fn line_with(&self, text: &str) -> String {
        let until = Instant::now() + WITHIN;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line with {text}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example adapters.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Language {
    Python,
    Node,
    Rust,
}

/// A Rust example's program, which `cargo test` and `cargo nextest` build beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_sharedline")).with_file_name("examples").join(name);
    assert!(path.is_file(), "{} is not built: cargo build --examples", path.display());
    path
}

impl Language {
    /// The adapter's command, but for its arguments.
    pub(crate) fn command(self) -> Command {
        let source = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let script = |interpreter: &str, name: &str| {
            let mut command = Command::new(interpreter);
            command.arg(source(name));
            command
        };
        match self {
            Self::Python => script("python3", "adapter.py"),
            Self::Node => script("node", "adapter.mjs"),
            Self::Rust => Command::new(example("adapter")),
        }
    }

    /// The adapter of CRM's Ann, against a broker.
    pub(crate) fn start(self, broker: SocketAddr) -> Process {
        let mut command = self.command();
        command.args([&broker.to_string(), "acme", "crm", NUMBER, "ann"]).env("SHAREDLINE_TOKEN", "crm");
        Process::start(&mut command)
    }
}

pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A greeted connection in JSON lines that a test drives by hand.
pub(crate) struct Peer {
    stream: BufReader<std::net::TcpStream>,
    /// What came while an answer was waited for.
    pub(crate) delivered: Vec<Value>,
    last_id: u64,
}

impl Peer {
    pub(crate) fn connect(broker: SocketAddr, kind: &str, who: &str) -> Self {
        let until = Instant::now() + WITHIN;
        let stream = loop {
            match std::net::TcpStream::connect(broker) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
        };
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        let mut peer = Self { stream: BufReader::new(stream), delivered: Vec::new(), last_id: 0 };
        let hello = json!({"type": "hello", "version": 1, "portal": "acme", kind: who, "token": who, "adapter": "test"});
        assert_eq!(peer.ask(hello)["type"], "welcome");
        peer
    }

    pub(crate) fn send(&mut self, message: &Value) {
        use std::io::Write;
        self.stream.get_mut().write_all(format!("{message}\n").as_bytes()).unwrap();
    }

    pub(crate) fn ask(&mut self, mut request: Value) -> Value {
        self.last_id += 1;
        request["id"] = json!(self.last_id);
        self.send(&request);
        loop {
            let message = self.read();
            if message["id"] == request["id"] {
                return message;
            }
            self.delivered.push(message);
        }
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the connection ended: {line:?}"))
    }

    /// The next delivery of a type; what comes before it is dropped.
    pub(crate) fn next(&mut self, kind: &str) -> Value {
        loop {
            let message = if self.delivered.is_empty() { self.read() } else { self.delivered.remove(0) };
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// A customer's message, as a gateway brings it.
    pub(crate) fn inbound(&mut self, customer: &str, message_id: &str) -> Value {
        self.ask(json!({
            "type": "inbound", "number": NUMBER, "message_id": message_id, "customer": {"id": customer},
            "at": now_ms(), "content": {"type": "text", "text": {"body": format!("Grüße, {message_id}")}},
        }))
    }

    /// The gateway's next `send`, which it says to have sent.
    pub(crate) fn send_on(&mut self) -> Value {
        let send = self.next("send");
        let message_id = format!("wamid.out.{}", send["offset"]);
        let sent = json!({"type": "sent", "channel": send["channel"], "offset": send["offset"], "message_id": message_id});
        assert_eq!(self.ask(sent)["type"], "ok");
        send
    }
}
