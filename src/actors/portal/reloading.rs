//! Another configuration for a portal under way, in two steps, so that either every portal takes it or none.
//!
//! ```text
//! Prepare ─▶ do the open channels fit? ─▶ from now on none is opened that would not ─┬─▶ Apply: rules, channels
//!                                                                                    └─▶ Withdraw: as before
//! ```

use std::sync::Arc;

use actix::{Context, Handler};
use tokio::sync::oneshot;

use super::recovery::check_kept;
use super::{Breaks, Place, PortalActor, check_place};
use crate::actors::broker::PortalSetup;
use crate::actors::port::Refusal;

/// What the configuration will say of the portal; none: it stands in it no longer. Answered with what that breaks.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Prepare {
    pub(in crate::actors) setup: Option<Arc<PortalSetup>>,
    pub(in crate::actors) fits: oneshot::Sender<Result<(), Breaks>>,
}

/// What was prepared holds. Answered when every channel has been told.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Apply(pub(in crate::actors) oneshot::Sender<()>);

/// What was prepared comes to nothing.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Withdraw;

impl PortalActor {
    /// Why no channel is opened there now, if none is.
    pub(super) fn misfit(&self, place: &Place) -> Option<Refusal> {
        let fits = |setup: Option<&Arc<PortalSetup>>| {
            check_place(&place.0, place.1.as_ref(), &self.id, setup.map(|setup| &**setup)).is_ok()
        };
        if !fits(self.setup.as_ref()) {
            // Asked before a reload that took the number away.
            return Some(Refusal::NotFound);
        }
        let pending = self.pending.as_ref();
        pending.is_some_and(|pending| !fits(pending.as_ref())).then_some(Refusal::Unavailable)
    }
}

impl Handler<Prepare> for PortalActor {
    type Result = ();

    fn handle(&mut self, prepare: Prepare, _: &mut Self::Context) {
        let fits = check_kept(&self.portal, prepare.setup.as_deref());
        if fits.is_ok() {
            self.pending = Some(prepare.setup);
        }
        // Who asked may have given up; then nothing follows but the next one.
        let _ = prepare.fits.send(fits);
    }
}

impl Handler<Apply> for PortalActor {
    type Result = ();

    fn handle(&mut self, Apply(done): Apply, _: &mut Context<Self>) {
        if let Some(setup) = self.pending.take() {
            let rules = setup
                .as_ref()
                .map_or_else(|| self.portal.rules().without_services(), |setup| setup.rules.clone());
            self.setup = setup;
            self.portal = self.portal.with_rules(rules.clone());
            self.durable = Arc::new(self.durable.with_rules(rules.clone()));
            for flight in &mut self.flights {
                flight.portal = Arc::new(flight.portal.with_rules(rules.clone()));
            }
            self.spread(true);
        }
        let _ = done.send(());
    }
}

impl Handler<Withdraw> for PortalActor {
    type Result = ();

    fn handle(&mut self, _: Withdraw, _: &mut Self::Context) {
        self.pending = None;
    }
}
