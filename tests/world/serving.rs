//! `sharedline serve` as a process of a test: started, found by what it says, ended with the test.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as its test does, and not every test uses all of them"
)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long its end may take.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// The process. Dropped, it is killed.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) stdout: BufReader<ChildStdout>,
    pub(crate) tcp: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// The program's own command, without the environment's token.
pub(crate) fn sharedline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sharedline"));
    command.args(arguments).stdin(Stdio::null()).env_remove("SHAREDLINE_TOKEN");
    command
}

impl Serving {
    /// Serves on this configuration; what it logs, so filtered, goes where it is told.
    pub(crate) fn start(config: &Path, filter: &str, log: impl Into<Stdio>) -> Self {
        let mut serve = sharedline(&["serve", "--config"]);
        serve.arg(config).env("RUST_LOG", filter).stderr(log);
        Self::by(&mut serve)
    }

    /// By a command that serves.
    ///
    /// # Panics
    /// When it does not, with what it says instead.
    pub(crate) fn by(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let _ = stdout.read_line(&mut line);
        let address = |of: &str| {
            let rest = line.split_once(&format!("{of} ")).map(|(_, rest)| rest.split(',').next());
            let found = rest.flatten().and_then(|address| address.parse().ok());
            found.unwrap_or_else(|| panic!("{command:?} said {line:?}"))
        };
        Self { tcp: address("tcp"), http: address("http"), child, stdout }
    }

    /// Sends a signal, as `-HUP`.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success(), "{signal}");
    }

    /// SIGKILL, as a power cut would end it; waits until it is gone.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// Waits for its end, and gives its exit code; -1 where a signal ended it.
    pub(crate) fn ended(&mut self) -> i32 {
        let until = Instant::now() + ENDS_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < until, "it ends in time");
            std::thread::yield_now();
        }
    }

    /// SIGTERM, and its end; gives its exit code.
    pub(crate) fn terminate(&mut self) -> i32 {
        self.signal("-TERM");
        self.ended()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
