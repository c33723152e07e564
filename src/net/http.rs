//! The HTTP server: its limits, its health, and plain words where there is nothing to find.
//!
//! Owns the listener and the routes that are nobody else's (`/livez`, `/readyz`); every other part of the program
//! that speaks HTTP hands in a function that registers its routes, and only the command line puts them together. So
//! this file knows neither webhooks nor the admin API.
//!
//! Connections come through the `door`, which owns who is let in.
//!
//! The server runs on a thread of its own with a runtime of its own: who starts it may live on any runtime or on
//! none, and no request, however slow to parse, takes time from an Arbiter.
//!
//! # Invariants
//! - The head of a request comes within [`Limits::head_within`] or the connection is ended; bodies are the routes' own.
//! - Bodies are never decompressed (the features are off), and HTTP/2 is not spoken.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use actix_http::{HttpService, Protocol};
use actix_service::{Service, ServiceFactory, map_config};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpRequest, HttpResponse, web};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::door::{Door, Io};
use super::listener::Settings;
use super::peers::Peers;
use super::tls::Identity;

/// How long `/readyz` waits for an answer before it says that there is none.
pub const HEALTH_WITHIN: Duration = Duration::from_secs(2);

/// What one HTTP server allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a request's head may take to come (5 s by default). The library's clock ticks every half second, so
    /// that less than one second would end honest senders.
    pub head_within: Duration,
    /// How long an idle connection is kept (30 s by default: Meta and scrapers come again sooner).
    pub idle_for: Duration,
    /// How long a refused sender is read on before its connection is cut, so that it sees the answer (2 s).
    pub linger_for: Duration,
    /// How long a graceful stop waits for requests that were accepted, in whole seconds (15 s by default).
    pub drain_within: Duration,
    /// What a WebSocket's deliveries are held to, beneath it too: see [`Settings`] (60 s by default).
    pub sockets: Settings,
    /// Most connections at once; more wait in the listener's queue (4,096 by default).
    pub connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_within: Duration::from_secs(5),
            idle_for: Duration::from_secs(30),
            linger_for: Duration::from_secs(2),
            drain_within: Duration::from_secs(15),
            sockets: Settings { ack_timeout: Duration::from_secs(60) },
            connections_max: 4096,
        }
    }
}

/// One thing that must hold for the program to be ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What it is: `journal`, `broker` …
    pub name: &'static str,
    /// Why it does not hold; nothing where it does.
    pub failing: Option<String>,
}

/// Who knows whether the program is ready.
pub trait Health: Send + Sync + 'static {
    /// All that must hold, now.
    fn checks(&self) -> impl Future<Output = Vec<Check>>;
}

/// What a server that is open to the world has on top.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Speaks TLS, and nothing else.
    pub tls: Option<Identity>,
    /// What source addresses may do; shared with who lets the same peers in another way.
    pub peers: Arc<Peers>,
}

/// How a server is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Not,
    /// When what was accepted is done.
    Drained,
    Now,
}

/// A running server. Dropping it stops it at once.
pub struct Server {
    stop: watch::Sender<Stop>,
    address: SocketAddr,
    ended: Option<oneshot::Receiver<io::Result<()>>>,
}

/// Starts a server on `listener` with `routes` beside the two of its own.
///
/// # Errors
/// When the listener or the thread cannot be used.
pub fn run<H: Health>(
    listener: TcpListener,
    limits: Limits,
    health: Arc<H>,
    routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> io::Result<Server> {
    run_guarded(listener, Guard::default(), limits, health, routes)
}

/// The same, guarded.
///
/// # Errors
/// When the listener or the thread cannot be used.
pub fn run_guarded<H: Health>(
    listener: TcpListener,
    guard: Guard,
    limits: Limits,
    health: Arc<H>,
    routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> io::Result<Server> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (started, has_started) = mpsc::sync_channel(1);
    let (end, ended) = oneshot::channel();
    let (stop, stopped) = watch::channel(Stop::Not);
    thread::Builder::new().name("http".to_owned()).spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let listener = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return drop(started.send(Err(error))),
            };
            // Nobody listens only if who started it has gone; then the server ends with its handle.
            let _ = started.send(Ok(()));
            let _ = end.send(serve(listener, guard, limits, health, routes, stopped).await);
        });
    })?;
    has_started.recv().map_err(|_| io::Error::other("the HTTP server's thread ended at its start"))??;
    Ok(Server { stop, address, ended: Some(ended) })
}

async fn serve<H: Health>(
    listener: tokio::net::TcpListener,
    guard: Guard,
    limits: Limits,
    health: Arc<H>,
    routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    mut stopped: watch::Receiver<Stop>,
) -> io::Result<()> {
    let is_secure = guard.tls.is_some();
    let health = web::Data::from(health);
    let application = App::new()
        .wrap(from_fn(in_plain_words))
        .wrap(from_fn(move |request, next| as_it_came(is_secure, request, next)))
        .app_data(health)
        .service(web::resource("/livez").route(web::get().to(livez)))
        .service(web::resource("/readyz").route(web::get().to(readyz::<H>)))
        .configure(routes);
    let draining = stopped.clone();
    let http = HttpService::<Io, _, _>::build()
        .graceful_shutdown_signal(move || drained(draining.clone()))
        .client_request_timeout(limits.head_within)
        .client_disconnect_timeout(limits.linger_for)
        .keep_alive(limits.idle_for)
        .finish(map_config(application, |()| AppConfig::default()));
    let http = ServiceFactory::<(Io, Protocol, Option<SocketAddr>)>::new_service(&http, ());
    let http = Rc::new(http.await.map_err(|()| io::Error::other("the HTTP service can not be made"))?);
    let tls = guard.tls.map(|identity| TlsAcceptor::from(Arc::clone(identity.config())));
    let door = Rc::new(Door::new(limits.connections_max, guard.peers, tls, limits.sockets));
    let stop = loop {
        tokio::select! {
            (stream, from, place) = door.next(&listener) => {
                let (http, door) = (Rc::clone(&http), Rc::clone(&door));
                actix_web::rt::spawn(async move {
                    let _place = place;
                    if let Some(io) = door.open(stream, from).await
                        && let Err(error) = http.call((io, Protocol::Http1, Some(from))).await
                    {
                        tracing::debug!(%error, "an HTTP connection has ended");
                    }
                });
            }
            // Without who could stop it, it stops at once.
            stop = stopped.wait_for(|stop| *stop != Stop::Not) => break stop.map_or(Stop::Now, |stop| *stop),
        }
    };
    drop(listener);
    if stop == Stop::Drained {
        tokio::select! {
            () = door.emptied(limits.drain_within) => {}
            _ = stopped.wait_for(|stop| *stop == Stop::Now) => {}
        }
    }
    Ok(())
}

/// Resolves when what was accepted is to be finished, and nothing more.
async fn drained(mut stopped: watch::Receiver<Stop>) {
    // Who could say so is gone only when all ends.
    let _ = stopped.wait_for(|stop| *stop != Stop::Not).await;
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resolves when the server has ended, which it does of itself only when something is wrong. Asked again after
    /// that, it says that all is well.
    ///
    /// # Errors
    /// What was wrong.
    pub async fn ended(&mut self) -> io::Result<()> {
        let Some(ended) = &mut self.ended else { return Ok(()) };
        let outcome =
            ended.await.unwrap_or_else(|_| Err(io::Error::other("the HTTP server's thread panicked")));
        self.ended = None;
        outcome
    }

    /// Stops accepting, finishes what was accepted within [`Limits::drain_within`], and ends.
    ///
    /// # Errors
    /// As [`Self::ended`].
    pub async fn drain(mut self) -> io::Result<()> {
        self.stop.send_replace(Stop::Drained);
        self.ended().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Now);
    }
}

async fn livez() -> HttpResponse {
    plain(StatusCode::OK, "alive\n".to_owned())
}

/// Ready or not, and why not; with `?verbose` also what holds.
async fn readyz<H: Health>(request: HttpRequest, health: web::Data<H>) -> HttpResponse {
    let no_answer = || vec![Check { name: "broker", failing: Some("it does not answer".to_owned()) }];
    let checks = timeout(HEALTH_WITHIN, health.checks()).await.unwrap_or_else(|_| no_answer());
    let ready = checks.iter().all(|check| check.failing.is_none());
    let verbose =
        request.query_string().split('&').any(|part| part == "verbose" || part.starts_with("verbose="));
    let mut text = String::new();
    for Check { name, failing } in &checks {
        match failing {
            Some(why) => text.push_str(&format!("not ready: {name}: {why}\n")),
            None if verbose => text.push_str(&format!("{name}: ok\n")),
            None => {}
        }
    }
    if ready {
        text.push_str("ready\n");
    }
    plain(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

fn plain(status: StatusCode, text: String) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/plain; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(text)
}

/// Lets who makes addresses know that the request came over TLS, as a proxy would, if none has said what it knows.
async fn as_it_came(
    is_secure: bool,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> actix_web::Result<ServiceResponse<BoxBody>> {
    let proto = header::HeaderName::from_static("x-forwarded-proto");
    if is_secure && !request.headers().contains_key(&proto) {
        request.headers_mut().insert(proto, header::HeaderValue::from_static("https"));
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// Says in words what an answer without a body says in a number.
async fn in_plain_words(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> actix_web::Result<ServiceResponse<BoxBody>> {
    let response = next.call(request).await?.map_into_boxed_body();
    let status = response.status();
    let is_empty = matches!(response.response().body().size(), BodySize::None | BodySize::Sized(0));
    if !is_empty || !(status.is_client_error() || status.is_server_error()) {
        return Ok(response);
    }
    let words = match status {
        StatusCode::NOT_FOUND => "there is nothing here",
        StatusCode::METHOD_NOT_ALLOWED => "this method is not allowed here",
        other => other.canonical_reason().unwrap_or("refused"),
    };
    Ok(response.map_body(|head, _| {
        let text_type = header::HeaderValue::from_static("text/plain; charset=utf-8");
        head.headers_mut().insert(header::CONTENT_TYPE, text_type);
        BoxBody::new(format!("{words}\n"))
    }))
}
