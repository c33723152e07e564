//! From a configuration to a running broker: for `serve`, and for programs that embed it.

use std::sync::Arc;

use super::broker::{Broker, NumberSetup, PortalSetup, Setup, StartError};
use super::shared::Limits;
use crate::config::{Config, Durability, TokenHash, Way};
use crate::journal::disk::RealDisk;
use crate::journal::memory::MemoryJournal;
use crate::journal::{EmbeddedJournal, Keys, OpenError, Opened, Options, Retention};

/// Why a broker was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenBrokerError {
    /// The data directory can not be used.
    #[error("the data directory {path} can not be used")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The journal can not be opened.
    #[error("the journal can not be opened")]
    Journal(#[from] OpenError),
    /// The broker can not be started on it.
    #[error("the broker can not be started")]
    Start(#[from] StartError),
}

impl Broker {
    /// Opens the data directory that the configuration names, and starts a broker on it, with threads of its own. No
    /// socket is opened: a [`Listener`](crate::net::listener::Listener) lets adapters in over TCP. Blocks while the
    /// journal is read.
    ///
    /// ```
    /// use sharedline::{actors::Broker, config::Config};
    /// # let directory = tempfile::tempdir()?;
    /// # let data = directory.path();
    /// let config: Config = format!("data_dir = {data:?}").parse()?;
    /// let broker = Broker::start(&config)?;
    /// let shared = broker.clone(); // the same broker
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the directory is in use, of a newer format, damaged, or can not be read or written; when the configuration
    /// breaks what exists in it.
    pub fn start(config: &Config) -> Result<Self, OpenBrokerError> {
        let path = config.data_dir.display().to_string();
        let disk =
            RealDisk::at(&config.data_dir).map_err(|error| OpenBrokerError::Directory { path, error })?;
        let before_sync = config.journal.durability == Durability::Os;
        let options = Options { before_sync, ..Options::default() };
        let Opened { journal, keys, unclean, found, .. } = EmbeddedJournal::open(Arc::new(disk), &options)?;
        for damage in &found {
            tracing::error!(?damage, "the journal has damage");
        }
        if unclean {
            tracing::info!("the process before did not end cleanly; the journal is recovered");
        }
        Ok(Self::start_on(Arc::new(journal), &keys, Setup::from(config))?)
    }
}

impl Broker {
    /// Starts a broker whose journal is in memory and goes with it: for the tests of programs that embed it. The
    /// configuration's `data_dir` is not looked at.
    ///
    /// ```
    /// use sharedline::{actors::Broker, config::Config};
    /// let broker = Broker::start_in_memory(&Config::default())?;
    /// assert!(broker.halt_reason().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the operating system gives no thread or no random bytes.
    pub fn start_in_memory(config: &Config) -> Result<Self, OpenBrokerError> {
        let mut keys = Keys { fingerprint: [0; 16], confirm: [0; 32], digest: [0; 16] };
        for key in [&mut keys.fingerprint[..], &mut keys.confirm, &mut keys.digest] {
            getrandom::fill(key).map_err(|error| StartError::Random(std::io::Error::other(error)))?;
        }
        Ok(Self::start_on(Arc::new(MemoryJournal::new()), &keys, Setup::from(config))?)
    }
}

impl From<&Config> for Setup {
    fn from(config: &Config) -> Self {
        let bytes = |hashes: &[TokenHash]| hashes.iter().map(TokenHash::bytes).collect::<Vec<_>>();
        let portal = |portal: &crate::config::Portal| PortalSetup {
            rules: portal.rules.clone(),
            numbers: portal
                .numbers
                .iter()
                .map(|number| NumberSetup {
                    number: number.number.clone(),
                    gateway: match &number.way {
                        Way::Tcp(gateway) => Some(gateway.clone()),
                        Way::Builtin | Way::None => None,
                    },
                    built_in: (number.way == Way::Builtin).then_some(number.messages_per_second),
                    send_ttl_ms: u64::try_from(number.send_ttl.as_millis()).unwrap_or(u64::MAX),
                })
                .collect(),
            service_tokens: portal
                .service_tokens
                .iter()
                .map(|(id, hashes)| (id.clone(), bytes(hashes)))
                .collect(),
            gateway_tokens: portal.gateways.iter().map(|(id, hashes)| (id.clone(), bytes(hashes))).collect(),
        };
        Self {
            portals: config.portals.iter().map(portal).collect(),
            limits: Limits {
                recent_bytes_max: usize::try_from(config.limits.recent_bytes_max).unwrap_or(usize::MAX),
                ack_timeout: config.tcp.ack_timeout,
                dedup_bytes_max: config.limits.dedup_bytes_max,
                retention: Retention {
                    keep_ms: u64::try_from(config.journal.retention.as_millis()).unwrap_or(u64::MAX),
                    bytes_max: config.journal.retention_bytes,
                },
                arbiters: config.limits.arbiters,
            },
        }
    }
}
