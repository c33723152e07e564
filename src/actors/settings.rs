//! What the configuration says, as the actors need it: exchanged whole at a reload, read by everybody.
//!
//! **Invariant:** whoever decides something by it takes one snapshot and stays with it; a session is looked at again
//! after it is listed, so that a token that was taken away meanwhile lets nobody in.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::adapter::Peer;
use super::broker::{PortalSetup, Setup, TokenSha256};
use super::shared::Limits;
use crate::domain::ids::{Number, PortalId, ServiceId};
use crate::domain::portal::{Numbers, Plan};
use crate::domain::view::Masking;

/// A configuration that contradicts itself nowhere.
#[derive(Debug)]
pub(super) struct Settings {
    /// Whose each number is.
    pub(super) numbers: Numbers,
    pub(super) portals: BTreeMap<PortalId, PortalSetup>,
    pub(super) limits: Limits,
}

impl Settings {
    /// # Errors
    /// The number that stands in two portals.
    pub(super) fn new(setup: Setup) -> Result<Self, Number> {
        let all = setup.portals.iter().flat_map(|portal| {
            portal.numbers.iter().map(|number| (number.number.clone(), portal.rules.portal.clone()))
        });
        let numbers = Numbers::new(all)?;
        let portals = setup.portals.into_iter().map(|portal| (portal.rules.portal.clone(), portal)).collect();
        Ok(Self { numbers, portals, limits: setup.limits })
    }

    /// Whether portal, peer and a token of this digest belong together; gives the portal.
    pub(super) fn admit(&self, portal: &PortalId, peer: &Peer, token: &TokenSha256) -> Option<&PortalSetup> {
        let portal = self.portals.get(portal)?;
        let known = match peer {
            Peer::Service(service) => portal.service_tokens.get(service)?,
            Peer::Gateway(gateway) => portal.gateway_tokens.get(gateway)?,
        };
        // Every one is compared, so that the time says nothing.
        let found =
            known.iter().fold(subtle::Choice::from(0), |found, known| found | token[..].ct_eq(&known[..]));
        bool::from(found).then_some(portal)
    }

    /// Whether there is such a peer.
    pub(super) fn has(&self, portal: &PortalId, peer: &Peer) -> bool {
        self.portals.get(portal).is_some_and(|portal| match peer {
            Peer::Service(service) => portal.rules.services.iter().any(|rules| rules.service == *service),
            Peer::Gateway(gateway) => portal.gateway_tokens.contains_key(gateway),
        })
    }

    pub(super) fn plan(&self, portal: &PortalId) -> Option<Plan> {
        self.portals.get(portal).map(|portal| portal.rules.plan)
    }

    /// How a service receives others' replies.
    pub(super) fn masking(&self, portal: &PortalId, service: &ServiceId) -> Masking {
        let portal = self.portals.get(portal);
        let rules = portal.and_then(|portal| portal.rules.services.iter().find(|of| of.service == *service));
        rules.map(|rules| rules.masking).unwrap_or_default()
    }
}

/// The digest of what a peer says that its token is.
pub(super) fn digest(token: &str) -> TokenSha256 {
    Sha256::digest(token.as_bytes()).into()
}
