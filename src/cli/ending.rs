//! What ends a verb before its end: Ctrl-C, SIGTERM, the terminal that is gone. For verbs that have started processes.
//!
//! A process that a signal ends leaves its children behind. So such a verb waits for these signals itself, and ends by
//! dropping what it was at; a child that is dropped is killed.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

/// Why a verb is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// SIGINT: somebody at the terminal.
    Interrupted,
    /// SIGTERM or SIGHUP.
    Terminated,
}

/// The signals that end the process, from when it is made.
pub(super) struct Endings {
    interrupt: Signal,
    terminate: Signal,
    /// None where whoever started the process has it live on, as `nohup` does.
    hang_up: Option<Signal>,
}

impl Endings {
    pub(super) fn new() -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(Failure::io);
        let lives_on = ignores_hang_up();
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            hang_up: (!lives_on).then(|| of(SignalKind::hangup())).transpose()?,
        })
    }

    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Ending {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Ending::Interrupted,
            _ = self.terminate.recv() => Ending::Terminated,
            _ = hang_up => Ending::Terminated,
        }
    }
}

/// Does some work to its end, or drops it when the process is to end.
pub(super) async fn unless_ended<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut endings = Endings::new()?;
    tokio::select! {
        done = work => done,
        _ = endings.next() => Err(Failure::failed(anyhow::anyhow!("ended before its end"))),
    }
}

/// Whether SIGHUP does nothing to this process, as Linux tells it. Elsewhere it ends it.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("SigIgn:")).is_some_and(ignores_first_signal)
}

/// SIGHUP is signal 1, so the lowest bit of the mask.
fn ignores_first_signal(mask: &str) -> bool {
    u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hang_up_that_is_ignored_is_the_lowest_bit_of_the_mask() {
        for (mask, ignored) in [("\t0000000000001001", true), ("\t0000000000001000", false), ("none", false)]
        {
            assert_eq!(ignores_first_signal(mask), ignored, "{mask}");
        }
    }
}
