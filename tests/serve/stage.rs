//! A broker's process, its configuration, its log, and peers that write JSON lines.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use sharedline::config::TokenHash;
use tempfile::TempDir;

use crate::serving::{self, sharedline};

pub(crate) const NUMBER: &str = "+15550783881";
pub(crate) const WITHIN: Duration = Duration::from_secs(20);

/// What becomes of a service, gateway or number: a part of the configuration.
pub(crate) fn service(id: &str, token: &str) -> String {
    format!("[[portals.services]]\nid = \"{id}\"\ntoken_sha256 = \"{}\"\n", TokenHash::of(token))
}

pub(crate) fn portal(services: &[String]) -> String {
    let gateway = format!(
        "[[portals.gateways]]\nid = \"whatsapp\"\ntoken_sha256 = \"{}\"\n",
        TokenHash::of("whatsapp")
    );
    format!(
        "[[portals]]\nid = \"acme\"\n{}{gateway}[[portals.numbers]]\nnumber = \"{NUMBER}\"\n",
        services.concat()
    )
}

pub(crate) fn usual() -> String {
    portal(&[service("crm", "crm"), service("desk", "desk")])
}

/// A directory with a configuration, and a process on it.
pub(crate) struct Stage {
    pub(crate) directory: TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `tcp` and `http`: further lines of those sections; `rest`: everything behind them.
    pub(crate) fn configure(&self, tcp: &str, http: &str, rest: &str) {
        let text = format!(
            "data_dir = {:?}\n[tcp]\nlisten = \"127.0.0.1:0\"\n{tcp}\n[http]\nlisten = \"127.0.0.1:0\"\n{http}\n{rest}",
            self.path("data"),
        );
        fs::write(self.path("sharedline.toml"), text).unwrap();
    }

    pub(crate) fn command(&self, verb: &[&str]) -> Command {
        let mut command = sharedline(verb);
        command.arg("--config").arg(self.path("sharedline.toml")).env("RUST_LOG", "info");
        command
    }

    pub(crate) fn serve(&self) -> Serving {
        self.serve_by(self.command(&["serve"]))
    }

    pub(crate) fn serve_by(&self, mut serve: Command) -> Serving {
        let mut process = serving::Serving::by(serve.stderr(Stdio::piped()));
        let log = Arc::new(Mutex::new(String::new()));
        let mut stderr = BufReader::new(process.child.stderr.take().unwrap());
        let into = Arc::clone(&log);
        thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|read| read > 0) {
                into.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Serving { tcp: process.tcp, http: process.http, process, log }
    }
}

pub(crate) struct Serving {
    process: serving::Serving,
    pub(crate) tcp: SocketAddr,
    pub(crate) http: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Serving {
    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Waits until the log has said it so many times.
    pub(crate) fn logs(&self, text: &str, times: usize) {
        let until = Instant::now() + WITHIN;
        while self.log.lock().unwrap().matches(text).count() < times {
            assert!(Instant::now() < until, "{text:?} is logged: {}", self.log.lock().unwrap());
            thread::yield_now();
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn reload(&self, times: usize) {
        self.signal("-HUP");
        self.logs("the configuration is reloaded", times);
    }

    pub(crate) fn ended(&mut self) -> i32 {
        self.process.ended()
    }

    /// A greeted connection.
    pub(crate) fn adapter(&self, service: &str, token: &str) -> Peer<TcpStream> {
        let mut peer = Peer::over(plain(self.tcp));
        assert_eq!(peer.ask(&hello(service, token))["type"], "welcome");
        peer
    }
}

pub(crate) fn plain(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    stream
}

pub(crate) fn hello(service: &str, token: &str) -> String {
    format!(
        r#"{{"type":"hello","id":1,"version":1,"portal":"acme","service":"{service}","token":"{token}","adapter":"{token}"}}"#
    )
}

/// Who writes JSON lines over anything.
pub(crate) struct Peer<S: Read>(pub(crate) BufReader<S>);

impl<S: Read + Write> Peer<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    /// The next line; null when there is none.
    pub(crate) fn next(&mut self) -> Value {
        let mut line = String::new();
        let _ = self.0.read_line(&mut line);
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }

    pub(crate) fn ask(&mut self, line: &str) -> Value {
        // Who was turned away may not be written to any more.
        let _ = self.0.get_mut().write_all(format!("{line}\n").as_bytes());
        self.next()
    }
}
