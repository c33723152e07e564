//! What systemd is told over its socket: ready, reloading, stopping, alive. Without such a socket nothing is told.
//!
//! Alive is said only while every Arbiter answers: a broker whose actors are stuck is restarted. The few lines that the
//! protocol takes are written out here, so that no dependency is needed for them.

use std::ffi::OsStr;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::actors::Broker;

/// Where a service manager listens (sd_notify(3)).
const SOCKET: &str = "NOTIFY_SOCKET";
/// How often it wants to hear that the process is alive, in microseconds, and which process it means.
const WATCHDOG: (&str, &str) = ("WATCHDOG_USEC", "WATCHDOG_PID");

/// The way to the service manager, if there is one.
#[derive(Debug, Clone)]
pub(super) struct Manager {
    socket: Option<Arc<UnixDatagram>>,
    /// Within this time it must hear that the process is alive.
    watchdog: Option<Duration>,
}

impl Manager {
    /// That of the process. One that can not be reached is logged, and is none.
    pub(super) fn of_process() -> Self {
        let socket = std::env::var_os(SOCKET).filter(|name| !name.is_empty()).and_then(|name| {
            let connected = connect(&name);
            connected
                .inspect_err(|error| tracing::warn!(%error, "the service manager can not be reached"))
                .ok()
        });
        let number = |name| std::env::var_os(name)?.into_string().ok()?.parse::<u64>().ok();
        let is_ours = number(WATCHDOG.1).is_none_or(|id| id == u64::from(std::process::id()));
        let watchdog = number(WATCHDOG.0).filter(|micros| is_ours && *micros > 0).map(Duration::from_micros);
        Self { socket: socket.map(Arc::new), watchdog }
    }

    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Says again and again that the process is alive, twice as often as it must, as long as it is.
    pub(super) async fn keep_alive(self, broker: Broker) {
        let Some(within) = self.watchdog.filter(|_| self.socket.is_some()) else { return };
        loop {
            if timeout(within / 2, answers(&broker)).await.is_ok_and(|answers| answers) {
                self.tell("WATCHDOG=1");
            } else {
                tracing::error!(
                    "an arbiter does not answer: the service manager is not told that all is well"
                );
            }
            sleep(within / 2).await;
        }
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            tracing::warn!(%error, "the service manager can not be told");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A manager that reads nothing does not hold the broker up.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Whether every Arbiter comes round to what it is asked.
async fn answers(broker: &Broker) -> bool {
    for arbiter in broker.arbiters() {
        let (here, answer) = oneshot::channel();
        arbiter.spawn_fn(move || {
            let _ = here.send(());
        });
        if answer.await.is_err() {
            return false;
        }
    }
    true
}
