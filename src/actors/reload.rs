//! Another configuration for a running broker: taken whole or not at all.
//!
//! ```text
//! every portal: do its channels fit? ─▶ new portals are read ─▶ numbers, settings ─▶ portals, channels ─▶ sessions
//!         └── one does not: nothing has changed                  └── from here on the new one holds
//! ```
//!
//! **Invariants:** between the question and its answer no channel is opened that would not fit (the portals see to
//! it). A session whose token is gone is ended, whether it is listed when the settings change or a moment later; every
//! other one goes on.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::broker::{Breaks, Broker, PortalError, Setup, enter_numbers};
use super::port::EndReason;
use super::portal::{Apply, PortalActor, Prepare, Recovered, Withdraw};
use super::registry::SessionEntry;
use super::settings::Settings;
use super::shared::Halted;
use crate::domain::ids::{Number, PortalId};

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reloaded {
    /// Connections that were ended because their token, service, gateway or portal is gone.
    pub revoked: usize,
    /// Settings that differ and hold from the next start on.
    pub at_next_start: Vec<&'static str>,
}

/// Why a reload was refused. The configuration from before holds, whole.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A number stands in two portals.
    #[error("number {0} belongs to two portals")]
    NumberTwice(Number),
    /// It takes something away from channels that exist.
    #[error(transparent)]
    Breaks(#[from] Breaks),
    /// A portal that is new in it can not be read from the journal.
    #[error("a portal can not be started")]
    Portal(#[from] PortalError),
    /// The broker does nothing any more.
    #[error(transparent)]
    Halted(#[from] Halted),
}

impl SessionEntry {
    /// Lets the session go on by what the configuration says now, or ends it; says whether it goes on.
    pub(super) fn follow(&self, settings: &Settings) -> bool {
        let stays = match &self.token {
            Some(token) => settings.admit(&self.portal, &self.peer, token).is_some(),
            None => settings.has(&self.portal, &self.peer),
        };
        if !stays {
            self.stop(EndReason::Revoked);
        } else if let Some(service) = self.outlet.service() {
            self.outlet.set_masking(settings.masking(&self.portal, service));
        }
        stays
    }
}

impl Broker {
    /// Takes another configuration over: portals, services, gateways, numbers, tokens, rules, limits. A connection
    /// that is still entitled goes on; one that is not ends with `revoked`. A service that is gone is deactivated in
    /// its channels. Once begun it goes on, though the future is dropped.
    ///
    /// # Errors
    /// When it contradicts itself or takes away what channels need; then nothing has changed.
    pub async fn reload(&self, setup: Setup) -> Result<Reloaded, ReloadError> {
        let broker = self.clone();
        let whole = tokio::spawn(async move { broker.reload_whole(setup).await });
        whole.await.unwrap_or_else(|_| Err(Halted(Arc::from("the reload panicked")).into()))
    }

    async fn reload_whole(&self, setup: Setup) -> Result<Reloaded, ReloadError> {
        let _one = self.inner.reloading.lock().await;
        let shared = &self.inner.shared;
        let settings = Arc::new(Settings::new(setup).map_err(ReloadError::NumberTwice)?);
        let portals: Vec<_> = shared
            .registry
            .portals
            .iter()
            .map(|found| (found.key().clone(), found.value().clone()))
            .collect();
        let prepared = async {
            for (id, portal) in &portals {
                self.prepare(&settings, id, portal).await?;
            }
            self.recover_new(&settings).await
        };
        let recovered = match prepared.await {
            Ok(recovered) => recovered,
            Err(refused) => {
                for (_, portal) in &portals {
                    let _ = portal.try_send(Withdraw);
                }
                return Err(refused);
            }
        };
        for portal in settings.portals.values() {
            enter_numbers(shared, portal);
        }
        self.start_new(recovered).await?;
        self.exchange(&settings);
        for (_, portal) in &portals {
            let (done, applied) = oneshot::channel();
            let _ = portal.try_send(Apply(done));
            applied.await.map_err(|_| self.gone())?;
        }
        Ok(Reloaded { revoked: self.revoke(&settings), at_next_start: self.at_next_start(&settings) })
    }

    fn gone(&self) -> Halted {
        self.halt_reason().unwrap_or_else(|| Halted(Arc::from("the broker has stopped")))
    }

    async fn prepare(
        &self,
        settings: &Settings,
        id: &PortalId,
        portal: &actix::Addr<PortalActor>,
    ) -> Result<(), ReloadError> {
        let setup = settings.portals.get(id).cloned().map(Arc::new);
        let (fits, answer) = oneshot::channel();
        let _ = portal.try_send(Prepare { setup, fits });
        Ok(answer.await.map_err(|_| self.gone())??)
    }

    /// Reads the portals that the broker does not have yet; nothing of them is listed.
    async fn recover_new(&self, settings: &Arc<Settings>) -> Result<Vec<Recovered>, ReloadError> {
        let (inner, settings) = (Arc::clone(&self.inner), Arc::clone(settings));
        let read = move || {
            let is_new = |id: &PortalId| !inner.shared.registry.portals.contains_key(id);
            let new = settings.portals.iter().filter(|(id, _)| is_new(id));
            new.map(|(_, setup)| PortalActor::recover(&inner.shared, &inner.homes, setup)).collect()
        };
        let read: Result<Vec<Recovered>, PortalError> =
            spawn_blocking(read).await.map_err(|_| Halted(Arc::from("reading a portal panicked")))?;
        Ok(read?)
    }

    /// From here on the new settings hold for who connects and asks.
    fn exchange(&self, settings: &Arc<Settings>) {
        let shared = &self.inner.shared;
        shared.set_settings(Arc::clone(settings));
        shared.registry.numbers.retain(|number, entry| settings.numbers.owner(number) == Some(&entry.portal));
        shared.registry.gateways.retain(|(portal, gateway), _| {
            settings.portals.get(portal).is_some_and(|portal| portal.gateway_tokens.contains_key(gateway))
        });
    }

    async fn start_new(&self, recovered: Vec<Recovered>) -> Result<(), Halted> {
        let homes = self.inner.homes.arbiters();
        let Some(first) = homes.first() else { return Err(self.gone()) };
        let (done, started) = oneshot::channel();
        let shared = Arc::clone(&self.inner.shared);
        first.spawn_fn(move || {
            for portal in recovered {
                portal.start(&shared);
            }
            let _ = done.send(());
        });
        started.await.map_err(|_| self.gone())
    }

    /// Ends the sessions that are not entitled any more.
    fn revoke(&self, settings: &Settings) -> usize {
        // Copied first: ending one changes the list.
        let sessions: Vec<SessionEntry> =
            self.inner.shared.registry.sessions.iter().map(|found| found.value().clone()).collect();
        sessions.iter().filter(|session| !session.follow(settings)).count()
    }

    /// What differs and can not change under way.
    fn at_next_start(&self, settings: &Settings) -> Vec<&'static str> {
        let arbiters = settings.limits.arbiters != self.inner.arbiters;
        let recent = settings.limits.recent_bytes_max != self.inner.recent_bytes_max;
        [(arbiters, "limits.arbiters"), (recent, "limits.recent_bytes_max")]
            .into_iter()
            .filter_map(|(differs, what)| differs.then_some(what))
            .collect()
    }
}
