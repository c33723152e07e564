//! The Cloud API facade: a program written for WhatsApp's Cloud API joins a shared number by changing its base URL and
//! its token, and nothing else.
//!
//! ```text
//! POST /vN.N/{phone_number_id}/messages ─▶ auth ─▶ message ─▶ send ─▶ Caller (the broker) ─▶ the number's gateway
//! GET, POST of media, of a number, of its account      ─▶ auth ─▶ graph (Meta's Graph API, with the number's own token)
//! the broker ─▶ callback (a worker for each service with a callback URL) ─▶ POST {url}, signed, one update each
//! ```
//!
//! # Layout
//! - `auth`: tokens to services · `errors`: Meta's shape and codes · `message`: what a body asks for
//! - `send`: a message from its acceptance to Meta's answer · `routes`: which path is whose
//! - `threads`: whose a conversation is, noted and asked for
//! - `graph`: what is read from Meta · `media`: what a service was shown or uploaded · `proxies`: numbers and accounts
//! - `callback`: what a service is told at its own URL
//!
//! # Invariants
//! - A service acts and sees as itself alone: all content goes out by [`view`](crate::domain::view::view).
//! - Nothing here sends to WhatsApp: replies leave by whatever gateway the number has.
//! - Of what another portal has, nobody learns that it is there.

mod auth;
mod callback;
mod errors;
mod graph;
mod media;
mod message;
mod proxies;
mod routes;
mod send;
mod threads;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::HttpRequest;
use tokio::sync::Semaphore;

use self::auth::{Tokens, Who, token_of};
pub use self::callback::{Callbacks, Patience as CallbackPatience};
use self::errors::GraphError;
use self::graph::Graph;
use self::media::{Cache, Links, Shown, UPLOADS_AT_ONCE_MAX, Watches};
pub use self::routes::routes;
pub use self::send::SENT_WITHIN;
use self::threads::Roles;
use crate::actors::{Broker, Caller};
use crate::config::{Config, Secret};
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
    /// What the Graph API is asked with about it. No service sees it.
    access_token: Option<Secret>,
}

impl FacadeNumber {
    fn token(&self) -> Result<&Secret, GraphError> {
        self.access_token.as_ref().ok_or_else(|| GraphError::unavailable("the number has no access token"))
    }
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
    roles: Roles,
    patience: Patience,
    public_url: Option<String>,
    graph: Graph,
    shown: Arc<Shown>,
    watches: Watches,
    links: Links,
    cache: Cache,
    uploads: Semaphore,
}

/// Who asks, about which number.
#[derive(Debug, Clone)]
struct Asking {
    caller: Caller,
    number: Arc<FacadeNumber>,
}

impl Facade {
    /// The facade of a broker that runs on this configuration; [`routes`] opens it.
    ///
    /// # Errors
    /// When what it keeps of media can not be read or made.
    pub fn new(broker: &Broker, config: &Config, patience: Patience) -> io::Result<Arc<Self>> {
        let mut tokens = Tokens::default();
        for portal in &config.portals {
            for (service, hashes) in &portal.service_tokens {
                let who = Who { portal: portal.rules.portal.clone(), service: service.clone() };
                hashes.iter().for_each(|hash| tokens.add(hash.bytes(), who.clone()));
            }
        }
        let keep = config.media.cache_ttl.min(config.journal.retention);
        Ok(Arc::new(Self {
            broker: broker.clone(),
            tokens,
            numbers: numbers_of(config),
            roles: Roles::of(config),
            patience,
            public_url: config.http.public_url.clone(),
            graph: Graph::new(&config.whatsapp.graph_url).map_err(io::Error::other)?,
            shown: Arc::new(Shown::open(&config.data_dir, now_ms())?),
            watches: Watches::default(),
            links: Links::new().map_err(io::Error::other)?,
            cache: Cache::open(&config.data_dir, keep, config.media.cache_bytes)?,
            uploads: Semaphore::new(UPLOADS_AT_ONCE_MAX),
        }))
    }

    /// Takes back what requests to a process before this one had under way. To be called before a gateway can connect, so
    /// that none of it leaves late.
    pub async fn take_back_interrupted(&self) {
        for who in self.tokens.everybody() {
            for number in self.numbers.iter().filter(|number| number.portal == who.portal) {
                if let Some(caller) = self.broker.caller(&who.portal, &who.service) {
                    send::take_back_orphans(&Asking { caller, number: Arc::clone(number) }).await;
                }
            }
        }
    }

    /// Everybody that the request's token speaks for; never nobody.
    fn who(&self, request: &HttpRequest) -> Result<Vec<&Who>, GraphError> {
        let token = token_of(request).ok_or_else(GraphError::bad_token)?;
        let mut owners = self.tokens.owners(&token);
        // A reload may have taken it away.
        owners.retain(|who| self.broker.is_token_of(&who.portal, &who.service, &token));
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

/// The wall clock, in milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn numbers_of(config: &Config) -> Vec<Arc<FacadeNumber>> {
    let of_portal = |portal: &crate::config::Portal| {
        let id = portal.rules.portal.clone();
        let default = config.whatsapp.access_token.clone();
        let number = move |number: &crate::config::NumberConfig| {
            Arc::new(FacadeNumber {
                portal: id.clone(),
                number: number.number.clone(),
                phone_number_id: number.phone_number_id.clone(),
                waba_id: number.waba_id.clone(),
                access_token: number.access_token.clone().or_else(|| default.clone()),
            })
        };
        portal.numbers.iter().map(number).collect::<Vec<_>>()
    };
    config.portals.iter().flat_map(of_portal).collect()
}
