//! A broker of one's own: a child process that serves a configuration, for the demo and for the bench.
//!
//! **Invariant:** it does not outlive this process. It is stopped or killed here; where this process is killed, its
//! [`super::lifeline`] breaks and it stops by itself.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

/// How long the broker may take to start.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// How long a killed one is waited for where it is dropped. A process goes in milliseconds, but where a disk is stuck.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// A broker's process. Dropped, it is killed, and gone.
#[derive(Debug)]
pub(super) struct OwnBroker {
    process: Process,
    /// Where it serves adapters and gateways.
    pub(super) tcp: SocketAddr,
    /// Where it serves webhooks and its health.
    pub(super) http: SocketAddr,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// Not the child's, which would close it before it waits for the process's end.
    _lifeline: Option<ChildStdin>,
}

impl OwnBroker {
    /// Starts it on the configuration in `config`, its log goes to `log`, and waits until it serves.
    pub(super) async fn start(config: &Path, log: &Path) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", "--ends-with-stdin"])
            .arg("--config")
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // A Ctrl-C of the terminal is for its parent, which then stops it once and in order.
            .process_group(0)
            .spawn()
            .context("starting the broker")?;
        let stdout = child.stdout.take();
        let process = Process { _lifeline: child.stdin.take(), child };
        let stdout = stdout.context("the broker has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let line =
            timeout(START_WITHIN, lines.next_line()).await.context("the broker did not start in time")??;
        let Some(line) = line else { bail!("the broker ended while it started") };
        let address = |of: &str| {
            let rest = line.split_once(&format!("{of} ")).map(|(_, rest)| rest);
            rest.and_then(|rest| rest.split(',').next()?.parse().ok())
                .context("the broker does not say where it serves")
        };
        let (tcp, http) = (address("tcp")?, address("http")?);
        Ok(Self { process, tcp, http })
    }

    pub(super) fn process_id(&self) -> Option<u32> {
        self.process.child.id()
    }

    /// Ends it at once, as a power cut would end its process.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        // On Unix this is SIGKILL, and waits until the process is gone.
        Ok(self.process.child.kill().await?)
    }

    /// Stops it in an orderly way.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(id) = self.process.child.id() {
            Command::new("kill").arg("-TERM").arg(id.to_string()).status().await?;
        }
        match timeout(STOP_WITHIN, self.process.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(status) => bail!("the broker did not end well: {status:?}"),
            Err(_) => {
                self.process.child.kill().await?;
                bail!("the broker did not end in time")
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to kill where it was stopped.
        let _ = self.child.start_kill();
        let until = Instant::now() + GONE_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::yield_now();
        }
    }
}
