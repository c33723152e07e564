//! The HTTP server: its limits, its health, and plain words where there is nothing to find.
//!
//! Owns the listener and the routes that are nobody else's (`/livez`, `/readyz`); every other part of the program
//! that speaks HTTP hands in a function that registers its routes, and only the command line puts them together. So
//! this file knows neither webhooks nor the admin API.
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
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::listener::{Settings, set_options};
use super::stream::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX};
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

/// A running server. Dropping it stops it at once.
pub struct Server {
    handle: ServerHandle,
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
    run_over(listener, None, limits, health, routes)
}

/// The same over TLS, where there is an identity.
///
/// # Errors
/// When the listener or the thread cannot be used.
pub fn run_over<H: Health>(
    listener: TcpListener,
    tls: Option<&Identity>,
    limits: Limits,
    health: Arc<H>,
    routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> io::Result<Server> {
    // The library puts the protocols that it speaks (HTTP/1.1 alone) into a copy of its own.
    let tls = tls.map(|identity| ServerConfig::clone(identity.config()));
    let address = listener.local_addr()?;
    let (started, has_started) = mpsc::sync_channel(1);
    let (end, ended) = oneshot::channel();
    thread::Builder::new().name("http".to_owned()).spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let server = match server(listener, tls, limits, health, routes) {
                Ok(server) => server,
                Err(error) => return drop(started.send(Err(error))),
            };
            // Nobody listens only if who started it has gone; then the server ends with its handle.
            let _ = started.send(Ok(server.handle()));
            let _ = end.send(server.await);
        });
    })?;
    let handle =
        has_started.recv().map_err(|_| io::Error::other("the HTTP server's thread ended at its start"))??;
    Ok(Server { handle, address, ended: Some(ended) })
}

fn server<H: Health>(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    limits: Limits,
    health: Arc<H>,
    routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> io::Result<actix_web::dev::Server> {
    let health = web::Data::from(health);
    let application = move || {
        App::new()
            .wrap(from_fn(in_plain_words))
            .app_data(health.clone())
            .service(web::resource("/livez").route(web::get().to(livez)))
            .service(web::resource("/readyz").route(web::get().to(readyz::<H>)))
            .configure(&routes)
    };
    let sockets = limits.sockets;
    let server = HttpServer::new(application)
        .on_connect(move |socket, _| {
            let secure = socket.downcast_ref::<TlsStream<TcpStream>>().map(|stream| stream.get_ref().0);
            if let Some(stream) = socket.downcast_ref::<TcpStream>().or(secure)
                && let Err(error) = set_options(stream, &sockets)
            {
                tracing::debug!(%error, "a connection's options can not be set");
            }
        })
        .workers(1)
        .max_connections(limits.connections_max)
        .client_request_timeout(limits.head_within)
        .client_disconnect_timeout(limits.linger_for)
        .keep_alive(limits.idle_for)
        .shutdown_timeout(limits.drain_within.as_secs())
        .tls_handshake_timeout(HANDSHAKE_TIMEOUT)
        .max_connection_rate(HANDSHAKES_MAX)
        .disable_signals();
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    Ok(server.run())
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
        self.handle.stop(true).await;
        self.ended().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The command is sent when the future is made; nobody needs to wait for its answer.
        drop(self.handle.stop(false));
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
