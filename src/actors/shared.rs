//! What every actor of one broker shares: the journal, the registry, keys, limits, and the one way to halt.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};

use super::counters::Counters;
use super::reader::Readers;
use super::registry::Registry;
use super::settings::Settings;
use crate::domain::channel::Keys;
use crate::journal::{Journal, Retention};

/// Most bytes of requests in the whole process that are not durable yet.
pub(super) const PROCESS_BYTES_MAX: u32 = 256 << 20;
/// Most bytes of one session's requests that are not durable yet: a few of the largest messages.
pub(super) const SESSION_BYTES_MAX: u32 = 8 << 20;

/// Most messages in a mailbox: more than permits, connections and the outbox ever let in, so that none is lost for want
/// of room; and so far below actix's own counters that any number of addresses fits beside it.
pub(super) const MAILBOX_MESSAGES_MAX: usize = 1 << 24;

/// What of the configuration the actors need themselves.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A channel's newest records that are kept in memory for those who keep up, in bytes.
    pub recent_bytes_max: usize,
    /// How long a connection may leave deliveries unacknowledged.
    pub ack_timeout: Duration,
    /// What ids may take in memory, in bytes: of messages, of replies with an outcome, of who sent what. Beyond it
    /// messages' ids are laid aside in runs; where that is not enough, the oldest are forgotten.
    pub dedup_bytes_max: u64,
    /// How long history stays.
    pub retention: Retention,
    /// Arbiters that actors and sessions live on; 0: as the cores allow.
    pub arbiters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            recent_bytes_max: 4 << 20,
            ack_timeout: Duration::from_secs(60),
            dedup_bytes_max: 4 << 30,
            retention: Retention { keep_ms: 7 * 86_400_000, bytes_max: 64 << 30 },
            arbiters: 0,
        }
    }
}

/// Why a broker acknowledges nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the broker has halted: {0}")]
pub struct Halted(pub Arc<str>);

/// The one way to stop acknowledging, for good.
#[derive(Clone)]
pub(super) struct HaltSwitch(watch::Sender<Option<Halted>>);

impl fmt::Debug for HaltSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HaltSwitch").field(&self.reason()).finish()
    }
}

impl HaltSwitch {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Halts; the first reason stays.
    pub(super) fn halt(&self, reason: impl Into<Arc<str>>) {
        let reason = Halted(reason.into());
        self.0.send_if_modified(|halted| {
            let first = halted.is_none();
            if first {
                tracing::error!(reason = %reason.0, "halted: nothing more is acknowledged");
                *halted = Some(reason);
            }
            first
        });
    }

    pub(super) fn reason(&self) -> Option<Halted> {
        self.0.borrow().clone()
    }

    pub(super) fn is_halted(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Resolves with the reason when the broker halts; at once if it has.
    pub(super) async fn halted(&self) -> Halted {
        let mut watching = self.0.subscribe();
        loop {
            if let Some(reason) = watching.borrow_and_update().clone() {
                return reason;
            }
            if watching.changed().await.is_err() {
                return Halted(Arc::from("the broker is gone"));
            }
        }
    }
}

/// Shared by all actors of a broker.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) readers: Readers,
    pub(super) keys: Keys,
    /// What the configuration says now.
    pub(super) settings: RwLock<Arc<Settings>>,
    pub(super) halt: HaltSwitch,
    /// [`PROCESS_BYTES_MAX`], as permits.
    pub(super) process_bytes: Arc<Semaphore>,
    /// Whether the broker is about to stop.
    pub(super) draining: watch::Sender<bool>,
    pub(super) counters: Arc<Counters>,
    pub(super) started: Instant,
}

impl Shared {
    /// What the configuration says now; a reload exchanges it.
    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Exchanges it.
    pub(super) fn set_settings(&self, settings: Arc<Settings>) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}
