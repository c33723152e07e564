//! What the configuration says of services and numbers, as the facade needs it: exchanged whole on a reload.

use std::sync::Arc;

use super::auth::{Tokens, Who};
use super::errors::GraphError;
use super::threads::Roles;
use crate::config::{Config, NumberConfig, Portal, Secret};
use crate::domain::ids::{Number, PortalId};
use crate::gateway::graph::{self, Graph, Token};

/// What the configuration says; one request sees one of it from beginning to end.
pub struct Known {
    pub(super) tokens: Tokens,
    pub(super) numbers: Vec<Arc<FacadeNumber>>,
    pub(super) roles: Roles,
    pub(super) public_url: Option<String>,
    pub(super) graph: Graph,
}

impl Known {
    /// What this one says.
    ///
    /// # Errors
    /// When the Graph API can not be asked by it.
    pub fn of(config: &Config) -> Result<Self, graph::GraphError> {
        let mut tokens = Tokens::default();
        let mut numbers = Vec::new();
        let default = config.whatsapp.access_token.as_ref();
        for portal in &config.portals {
            let id = &portal.rules.portal;
            for (service, hashes) in &portal.service_tokens {
                let who = Who { portal: id.clone(), service: service.clone() };
                hashes.iter().for_each(|hash| tokens.add(hash.bytes(), who.clone()));
            }
            for number in &portal.numbers {
                numbers.push(Arc::new(FacadeNumber::of(portal, number, default)?));
            }
        }
        let graph = Graph::new(&config.whatsapp.graph_url)?;
        let (roles, public_url) = (Roles::of(config), config.http.public_url.clone());
        Ok(Self { tokens, numbers, roles, public_url, graph })
    }

    /// The numbers of one portal.
    pub(super) fn numbers_of(&self, portal: &PortalId) -> Vec<Arc<FacadeNumber>> {
        self.numbers.iter().filter(|number| number.portal == *portal).cloned().collect()
    }
}

/// A number, as programs written for the Cloud API know it.
#[derive(Debug, Clone)]
pub(super) struct FacadeNumber {
    pub(super) portal: PortalId,
    pub(super) number: Number,
    /// Meta's id of it.
    pub(super) phone_number_id: Option<String>,
    /// Meta's id of its account.
    pub(super) waba_id: Option<String>,
    /// What the Graph API is asked with about it. No service sees it.
    pub(super) access_token: Option<Token>,
}

impl FacadeNumber {
    fn of(
        portal: &Portal,
        number: &NumberConfig,
        default: Option<&Secret>,
    ) -> Result<Self, graph::GraphError> {
        Ok(Self {
            portal: portal.rules.portal.clone(),
            number: number.number.clone(),
            phone_number_id: number.phone_number_id.clone(),
            waba_id: number.waba_id.clone(),
            access_token: number.access_token.as_ref().or(default).map(Token::new).transpose()?,
        })
    }

    pub(super) fn token(&self) -> Result<&Token, GraphError> {
        self.access_token.as_ref().ok_or_else(|| GraphError::unavailable("the number has no access token"))
    }
}
