//! `/v1/admin/…`: the operator's API.
//!
//! ```text
//! request ─▶ gate (token, calls at once) ─▶ a row of ROUTES ─▶ Broker (operator) ─▶ Words (the protocol's JSON) ─▶ answer
//! ```
//!
//! # Layout
//! - `mod.rs`: the table of routes, and how they are registered
//! - `gate`: who may ask, and how much at once · `call`: what is asked: path, query, body
//! - `reply`: answers and errors · `tally`: how many of each · `unread`: what is left of a request that is refused
//! - `overview`: health, portals, sessions · `channels`, `conversations`
//! - `openapi.json`: all of it for programs; a test holds it to the table
//!
//! # Invariants
//! - Without a configured token everything is 403; nothing is looked at before the token is.
//! - A conversation is shown as one named service sees it. What it shows is written by [`Words`], which asks the
//!   domain's view; nothing in here reads content.

mod call;
mod channels;
mod conversations;
mod gate;
mod overview;
mod reply;
mod tally;
mod unread;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, Route as Handling, web};
use tokio::sync::Semaphore;

use self::call::Call;
use self::reply::Outcome;
use self::tally::Answers;
use crate::actors::Broker;
use crate::actors::broker::TokenSha256;
use crate::actors::operator::Told;

/// Where the API begins.
pub const PREFIX: &str = "/v1/admin";
/// Where its description is.
pub const DESCRIPTION_PATH: &str = "/v1/openapi.json";
/// Its description, in OpenAPI 3.1.
pub const DESCRIPTION: &str = include_str!("openapi.json");
/// Most calls at once; further ones are answered 503. An operator and his scripts need a few.
pub const CALLS_MAX: usize = 32;
/// Largest body, in bytes; a request names a handful of ids.
pub const BODY_BYTES_MAX: usize = 16 << 10;
/// How long a body may take to come.
pub const BODY_WITHIN: Duration = Duration::from_secs(10);
/// How long the broker may take to answer, before a call is answered 503.
pub const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// What an answer of the broker is in the protocol's JSON.
pub struct Said {
    /// One object.
    pub json: web::Bytes,
    /// The code, if it is an error.
    pub error: Option<&'static str>,
}

/// Who writes answers in the protocol's words, as their viewer may see them.
pub trait Words: Send + Sync + 'static {
    /// Writes one.
    fn say(&self, told: Told) -> Said;
}

/// What all calls share.
pub struct Desk {
    broker: Broker,
    token: RwLock<Option<TokenSha256>>,
    words: Box<dyn Words>,
    calls: Semaphore,
    answers: Answers,
}

impl Desk {
    /// Of a broker, for who has the token with this digest; for nobody without one.
    #[must_use]
    pub fn new(broker: Broker, token: Option<TokenSha256>, words: impl Words) -> Arc<Self> {
        Arc::new(Self {
            broker,
            token: RwLock::new(token),
            words: Box::new(words),
            calls: Semaphore::new(CALLS_MAX),
            answers: Answers::default(),
        })
    }

    /// Who has the token with this digest from now on.
    pub fn set_token(&self, token: Option<TokenSha256>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    fn token(&self) -> Option<TokenSha256> {
        *self.token.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that are at work now; at most [`CALLS_MAX`].
    #[must_use]
    pub fn calls(&self) -> usize {
        CALLS_MAX.saturating_sub(self.calls.available_permits())
    }

    /// Answers so far, by their status.
    #[must_use]
    pub fn answers(&self) -> Vec<(u16, u64)> {
        self.answers.counts()
    }
}

type Answering = Pin<Box<dyn Future<Output = Outcome>>>;

/// One thing that can be asked.
pub struct Route {
    /// `GET` or `POST`.
    pub method: Method,
    /// Behind [`PREFIX`], as OpenAPI writes it.
    pub path: &'static str,
    run: fn(Call) -> Answering,
}

/// Everything that can be asked.
pub static ROUTES: &[Route] = &[
    Route { method: Method::GET, path: "/health", run: |call| Box::pin(overview::health(call)) },
    Route { method: Method::GET, path: "/portals", run: |call| Box::pin(overview::portals(call)) },
    Route { method: Method::GET, path: "/sessions", run: |call| Box::pin(overview::sessions(call)) },
    Route { method: Method::GET, path: "/channels", run: |call| Box::pin(channels::list(call)) },
    Route { method: Method::POST, path: "/channels", run: |call| Box::pin(channels::create(call)) },
    Route { method: Method::GET, path: "/channels/{channel}", run: |call| Box::pin(channels::show(call)) },
    Route {
        method: Method::POST,
        path: "/channels/{channel}/activate",
        run: |call| Box::pin(channels::activate(call)),
    },
    Route {
        method: Method::POST,
        path: "/channels/{channel}/deactivate",
        run: |call| Box::pin(channels::deactivate(call)),
    },
    Route {
        method: Method::POST,
        path: "/channels/{channel}/delete",
        run: |call| Box::pin(channels::delete(call)),
    },
    Route {
        method: Method::GET,
        path: "/channels/{channel}/conversations",
        run: |call| Box::pin(conversations::list(call)),
    },
    Route {
        method: Method::GET,
        path: "/channels/{channel}/conversations/{conversation}",
        run: |call| Box::pin(conversations::show(call)),
    },
    Route {
        method: Method::POST,
        path: "/channels/{channel}/conversations/{conversation}/release",
        run: |call| Box::pin(conversations::release(call)),
    },
    Route {
        method: Method::POST,
        path: "/channels/{channel}/conversations/{conversation}/transfer",
        run: |call| Box::pin(conversations::transfer(call)),
    },
];

/// Registers the routes; a part of the HTTP server's application.
pub fn routes(desk: Arc<Desk>) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    move |config| {
        config.service(web::resource(DESCRIPTION_PATH).route(web::get().to(describe)));
        let mut paths: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
        paths.dedup();
        let mut scope = web::scope(PREFIX);
        for path in paths {
            let of_path = ROUTES.iter().filter(|route| route.path == path);
            let resource =
                of_path.fold(web::resource(path), |resource, route| resource.route(handling(&desk, route)));
            scope = scope.service(resource);
        }
        config.service(scope);
    }
}

fn handling(desk: &Arc<Desk>, route: &'static Route) -> Handling {
    let desk = Arc::clone(desk);
    web::method(route.method.clone()).to(move |request: HttpRequest, payload: web::Payload| {
        gate::pass(Arc::clone(&desk), request, payload, route.run)
    })
}

async fn describe() -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "application/json")).body(DESCRIPTION)
}
