//! SIGHUP: the configuration is read anew and taken whole, or refused whole with a line in the log for each reason.

use std::sync::Arc;

use super::{Identities, means_of, peer_limits};
use crate::actors::Broker;
use crate::actors::broker::Setup;
use crate::cli::Configured;
use crate::cli::http::Following;
use crate::config::{Config, LoadError, Overrides};
use crate::gateway::facade::{Callbacks, Facade, Known};
use crate::gateway::outbound::Outbound;
use crate::net::listener::{self, Listener};

/// Everything that follows the configuration.
pub(super) struct Reloading<'r> {
    /// Where it stands.
    pub(super) configured: &'r Configured,
    /// What the process was started with: what holds until the next start.
    pub(super) at_start: &'r Config,
    pub(super) broker: &'r Broker,
    pub(super) tls: &'r Identities,
    pub(super) tcp: &'r Listener,
    pub(super) http: &'r Following,
    pub(super) facade: &'r Arc<Facade>,
    pub(super) callbacks: Callbacks,
    pub(super) outbound: Outbound,
}

impl Reloading<'_> {
    /// Reloads. What is refused is logged, and what held before goes on holding.
    pub(super) async fn reload(&mut self) {
        let overrides = Overrides::of_process(self.configured.data_dir.clone());
        let config = match Config::load(self.configured.config.as_deref(), &overrides) {
            Ok(config) => config,
            Err(LoadError::Problems(problems)) => {
                for problem in &problems {
                    tracing::error!(%problem, "the configuration is wrong");
                }
                return refused("it is wrong");
            }
            Err(error) => return refused(&format!("{:#}", anyhow::Error::new(error))),
        };
        // First all that can be refused without anything having changed.
        let prepared = Known::of(&config).and_then(|known| Ok((known, means_of(&config)?)));
        let (known, means) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return refused(&format!("{:#}", anyhow::Error::new(error))),
        };
        let done = match self.broker.reload(Setup::from(&config)).await {
            Ok(done) => done,
            Err(error) => return refused(&format!("{:#}", anyhow::Error::new(error))),
        };
        self.set_certificates(&config);
        self.tcp.set_peers(peer_limits(&config));
        self.tcp.set(listener::Settings { ack_timeout: config.tcp.ack_timeout });
        self.http.reload(&config);
        self.facade.reload(known, &config);
        self.outbound.set(means, |number| self.broker.sender(number));
        if let Err(error) = self.callbacks.reload(self.facade, &config) {
            tracing::error!(%error, "no service is told at its callback URL");
        }
        for key in self.at_start.needs_restart(&config) {
            tracing::warn!(key, "this key has changed and holds from the next start on");
        }
        for (number, why) in config.cannot_send() {
            tracing::warn!(%number, why, "a number can not send yet");
        }
        tracing::info!(
            portals = config.portals.len(),
            revoked = done.revoked,
            "the configuration is reloaded"
        );
    }
}

impl Reloading<'_> {
    /// Handshakes take the new certificates from now on.
    fn set_certificates(&self, config: &Config) {
        for (holds, tls) in [(&self.tls.tcp, &config.tcp.tls), (&self.tls.http, &config.http.tls)] {
            if let (Some(holds), Some(tls)) = (holds, tls)
                && let Err(error) = holds.set(tls)
            {
                tracing::error!(%error, "new certificates are refused: those from before go on");
            }
        }
    }
}

fn refused(why: &str) {
    tracing::error!(why, "the reload is refused: the configuration stays as it was");
}
