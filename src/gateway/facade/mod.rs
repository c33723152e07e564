//! The Cloud API facade: a program written for WhatsApp's Cloud API joins a shared number by changing its base URL and
//! its token, and nothing else.
//!
//! ```text
//! POST /vN.N/{phone_number_id}/messages ─▶ auth ─▶ message ─▶ send ─▶ Caller (the broker) ─▶ the number's gateway
//! the broker ─▶ callback (a worker for each service with a callback URL) ─▶ POST {url}, signed, one update each
//! ```
//!
//! # Layout
//! - `auth`: tokens to services · `errors`: Meta's shape and codes · `message`: what a body asks for
//! - `send`: a message from its acceptance to Meta's answer · `routes`: which path is whose
//! - `callback`: what a service is told at its own URL
//!
//! # Invariants
//! - A service acts and sees as itself alone: all content goes out by [`view`](crate::domain::view::view).
//! - Nothing here sends to WhatsApp: replies leave by whatever gateway the number has.
//! - Of what another portal has, nobody learns that it is there.

mod auth;
mod callback;
mod errors;
mod message;
mod routes;
mod send;

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;

use self::auth::{Tokens, Who, token_of};
pub use self::callback::{Callbacks, Patience as CallbackPatience};
use self::errors::GraphError;
pub use self::routes::routes;
pub use self::send::SENT_WITHIN;
use crate::actors::{Broker, Caller};
use crate::config::Config;
use crate::domain::ids::{Number, PortalId};

/// A number, as programs written for the Cloud API know it.
#[derive(Debug, Clone)]
struct FacadeNumber {
    portal: PortalId,
    number: Number,
    /// Meta's id of it.
    phone_number_id: Option<String>,
    /// Meta's id of its account.
    waba_id: Option<String>,
}

/// How long things may take; shorter in tests.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For Meta's answer to a message: [`SENT_WITHIN`].
    pub sent_within: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { sent_within: SENT_WITHIN }
    }
}

/// The facade of one broker.
pub struct Facade {
    broker: Broker,
    tokens: Tokens,
    numbers: Vec<Arc<FacadeNumber>>,
    patience: Patience,
}

/// Who asks, about which number.
#[derive(Debug, Clone)]
struct Asking {
    caller: Caller,
    number: Arc<FacadeNumber>,
}

impl Facade {
    /// The facade of a broker that runs on this configuration; [`routes`] opens it.
    #[must_use]
    pub fn new(broker: &Broker, config: &Config, patience: Patience) -> Arc<Self> {
        let mut tokens = Tokens::default();
        for portal in &config.portals {
            for (service, hashes) in &portal.service_tokens {
                let who = Who { portal: portal.rules.portal.clone(), service: service.clone() };
                hashes.iter().for_each(|hash| tokens.add(hash.bytes(), who.clone()));
            }
        }
        Arc::new(Self { broker: broker.clone(), tokens, numbers: numbers_of(config), patience })
    }

    /// Everybody that the request's token speaks for; never nobody.
    fn who(&self, request: &HttpRequest) -> Result<Vec<&Who>, GraphError> {
        let owners = token_of(request).map(|token| self.tokens.owners(&token)).unwrap_or_default();
        if owners.is_empty() { Err(GraphError::bad_token()) } else { Ok(owners) }
    }

    /// Who asks about the number with this `phone_number_id`.
    fn asking(&self, request: &HttpRequest, id: &str) -> Result<Asking, GraphError> {
        let who = self.who(request)?;
        let of_one = |number: &Arc<FacadeNumber>| {
            let is_it = number.phone_number_id.as_deref() == Some(id);
            let who = who.iter().find(|who| is_it && who.portal == number.portal)?;
            Some((Arc::clone(number), self.broker.caller(&who.portal, &who.service)?))
        };
        let found = self.numbers.iter().find_map(of_one);
        found.map(|(number, caller)| Asking { caller, number }).ok_or_else(GraphError::no_object)
    }
}

fn numbers_of(config: &Config) -> Vec<Arc<FacadeNumber>> {
    let of_portal = |portal: &crate::config::Portal| {
        let id = portal.rules.portal.clone();
        let number = move |number: &crate::config::NumberConfig| {
            Arc::new(FacadeNumber {
                portal: id.clone(),
                number: number.number.clone(),
                phone_number_id: number.phone_number_id.clone(),
                waba_id: number.waba_id.clone(),
            })
        };
        portal.numbers.iter().map(number).collect::<Vec<_>>()
    };
    config.portals.iter().flat_map(of_portal).collect()
}
