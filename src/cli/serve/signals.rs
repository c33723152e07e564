//! What the operating system's signals want of the process, and a parent's end.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::Failure;
use crate::cli::lifeline::Lifeline;

/// What a signal wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// SIGTERM, SIGINT, a parent that is gone: the end.
    Stop,
    /// SIGHUP: the configuration is to be read anew.
    Reload,
}

/// The signals, from when it is made.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    lifeline: Lifeline,
}

impl Signals {
    pub(super) fn new(lifeline: Lifeline) -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(Failure::io);
        Ok(Self {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
            hang_up: of(SignalKind::hangup())?,
            lifeline,
        })
    }

    /// The next one. Cancel safe. Several of a kind that come while nobody waits are one.
    pub(super) async fn next(&mut self) -> Wanted {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Wanted::Stop,
            _ = self.interrupt.recv() => Wanted::Stop,
            () = self.lifeline.broken() => Wanted::Stop,
            _ = self.hang_up.recv() => Wanted::Reload,
        }
    }

    /// Resolves when somebody wants the process to end.
    pub(super) async fn stop(&mut self) {
        while self.next().await != Wanted::Stop {
            tracing::warn!("no reload: the broker is about to stop");
        }
    }
}
