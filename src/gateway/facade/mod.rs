//! The Cloud API facade: a program written for WhatsApp's Cloud API joins a shared number by changing its base URL and
//! its token, and nothing else.
//!
//! ```text
//! POST /vN.N/{phone_number_id}/messages ─▶ auth ─▶ message ─▶ send ─▶ Caller (the broker) ─▶ the number's gateway
//! GET, POST of media, of a number, of its account      ─▶ auth ─▶ Meta's Graph API, with the number's own token
//! the broker ─▶ callback (a worker for each service with a callback URL) ─▶ POST {url}, signed, one update each
//! ```
//!
//! # Layout
//! - `auth`: tokens to services · `errors`: Meta's shape and codes · `message`: what a body asks for
//! - `send`: a message from its acceptance to Meta's answer · `routes`: which path is whose
//! - `threads`: whose a conversation is, noted and asked for
//! - `media`: what a service was shown or uploaded · `proxies`: numbers and accounts
//! - `known`: what the configuration says · `callback`: what a service is told at its own URL
//!
//! # Invariants
//! - A service acts and sees as itself alone: all content goes out by [`view`](crate::domain::view::view).
//! - Nothing here sends to WhatsApp: replies leave by whatever gateway the number has.
//! - Of what another portal has, nobody learns that it is there.

mod auth;
mod callback;
mod errors;
mod known;
mod media;
mod message;
mod proxies;
mod routes;
mod send;
mod threads;

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::HttpRequest;
use tokio::sync::Semaphore;

use self::auth::{Who, token_of};
pub use self::callback::{Callbacks, Patience as CallbackPatience};
use self::errors::GraphError;
use self::known::FacadeNumber;
pub use self::known::Known;
use self::media::{Cache, Links, Shown, UPLOADS_AT_ONCE_MAX, Watches};
pub use self::routes::routes;
pub use self::send::SENT_WITHIN;
use crate::actors::{Broker, Caller};
use crate::config::Config;

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
    known: RwLock<Arc<Known>>,
    patience: Patience,
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
        let known = Known::of(config).map_err(io::Error::other)?;
        let keep = config.media.cache_ttl.min(config.journal.retention);
        Ok(Arc::new(Self {
            broker: broker.clone(),
            known: RwLock::new(Arc::new(known)),
            patience,
            shown: Arc::new(Shown::open(&config.data_dir, now_ms())?),
            watches: Watches::default(),
            links: Links::new().map_err(io::Error::other)?,
            cache: Cache::open(&config.data_dir, keep, config.media.cache_bytes)?,
            uploads: Semaphore::new(UPLOADS_AT_ONCE_MAX),
        }))
    }

    /// Takes over what another configuration says, and the limits of what is kept of media. Requests that are under way
    /// keep what they began with.
    pub fn reload(&self, known: Known, config: &Config) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        self.cache.set(config.media.cache_ttl.min(config.journal.retention), config.media.cache_bytes);
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes back what requests to a process before this one had under way. To be called before a gateway can connect, so
    /// that none of it leaves late.
    pub async fn take_back_interrupted(&self) {
        let known = self.known();
        for who in known.tokens.everybody() {
            for number in known.numbers.iter().filter(|number| number.portal == who.portal) {
                if let Some(caller) = self.broker.caller(&who.portal, &who.service) {
                    send::take_back_orphans(&Asking { caller, number: Arc::clone(number) }).await;
                }
            }
        }
    }

    /// Everybody that the request's token speaks for; never nobody.
    fn who(&self, known: &Known, request: &HttpRequest) -> Result<Vec<Who>, GraphError> {
        let token = token_of(request).ok_or_else(GraphError::bad_token)?;
        let mut owners = known.tokens.owners(&token);
        // A reload that is just being made may have taken it away.
        owners.retain(|who| self.broker.is_token_of(&who.portal, &who.service, &token));
        if owners.is_empty() {
            Err(GraphError::bad_token())
        } else {
            Ok(owners.into_iter().cloned().collect())
        }
    }

    /// Who asks about the number with this `phone_number_id`.
    fn asking(&self, request: &HttpRequest, id: &str) -> Result<Asking, GraphError> {
        let known = self.known();
        let who = self.who(&known, request)?;
        let of_one = |number: &Arc<FacadeNumber>| {
            let is_it = number.phone_number_id.as_deref() == Some(id);
            let who = who.iter().find(|who| is_it && who.portal == number.portal)?;
            Some((Arc::clone(number), self.broker.caller(&who.portal, &who.service)?))
        };
        let found = known.numbers.iter().find_map(of_one);
        found.map(|(number, caller)| Asking { caller, number }).ok_or_else(GraphError::no_object)
    }
}

/// The wall clock, in milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
