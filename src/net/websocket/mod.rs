//! WebSocket at `/v1/ws`: the JSON messages of the protocol, one to a text frame, on the HTTP listener.
//!
//! ```text
//! upgrade ─▶ origin, room ─▶ 101 ─▶ payload ══▶ Reading (frames ─▶ lines) ─▶ session ─▶ Writing (lines ─▶ frames) ══▶ body
//! ```
//! What stands between the double lines lives on one of the broker's Arbiters, as a session over TCP does: the HTTP server's
//! thread only passes bytes on, so that a WebSocket that is never silent delays no webhook.
//!
//! Everything beyond the frames is the session's, which is the one of TCP. A text frame becomes a line: a line end
//! within it becomes a carriage return, which is as good between tokens and as bad within a text.
//!
//! # Invariants
//! - A page of another origin gets no connection: a browser would open it with whatever its user may reach.
//! - WebSockets never take all connections of the HTTP listener: webhooks and health come through.
//! - What a peer that reads nothing costs is bounded: `OUT_BYTES_MAX`, one write, its window.

mod pipe;
mod reading;
mod writing;

use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_http::ws;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc;

pub(super) use self::reading::Reading;
pub(super) use self::writing::Writing;
use super::peers::Peers;
use super::{carrier, session};
use crate::actors::Broker;
use crate::wire::frame::Splitter;

/// Most WebSockets at once: half of what the HTTP listener takes.
pub const WEBSOCKETS_MAX: usize = 2_048;
/// Pieces of what a peer sends, as HTTP reads them, that may wait for its session: one to work on, one to come.
const PIECES_MAX: usize = 2;
/// Where they are.
pub const PATH: &str = "/v1/ws";

#[derive(Clone)]
struct Sockets {
    broker: Broker,
    open: Arc<AtomicUsize>,
    /// How many there have been: they take the Arbiters in turn.
    turns: Arc<AtomicUsize>,
    peers: Arc<Peers>,
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Sockets {
    /// Runs a session on one of the Arbiters. Where those have stopped the connection ends.
    fn serve(&self, reading: Reading, writing: Writing, counted: Counted, from: Option<IpAddr>) {
        let homes = self.broker.arbiters();
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let Some(home) = homes.get(turn % homes.len().max(1)) else { return };
        let (broker, peers) = (self.broker.clone(), Arc::clone(&self.peers));
        home.spawn_fn(move || {
            actix::spawn(async move {
                let _counted = counted;
                let (reading, writing) =
                    (carrier::Reading::WebSocket(reading), carrier::Writing::WebSocket(writing));
                let from = from.map(|from| (&*peers, from));
                session::run(reading, writing, Splitter::of_text_frames(), &Rc::new(broker), from).await;
            });
        });
    }

    fn room(&self) -> Option<Counted> {
        let counted = Counted(Arc::clone(&self.open));
        (self.open.fetch_add(1, Ordering::AcqRel) < WEBSOCKETS_MAX).then_some(counted)
    }
}

/// The route, for an HTTP server whose other routes are somebody else's.
pub fn routes(broker: Broker) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    routes_guarded(broker, Arc::default())
}

/// The same, where one source address may do only so much.
pub fn routes_guarded(
    broker: Broker,
    peers: Arc<Peers>,
) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    let sockets = Sockets { broker, open: Arc::default(), turns: Arc::default(), peers };
    move |config| {
        config.app_data(web::Data::new(sockets.clone()));
        config.service(web::resource(PATH).route(web::get().to(upgrade)));
    }
}

async fn upgrade(request: HttpRequest, payload: web::Payload, sockets: web::Data<Sockets>) -> HttpResponse {
    if !is_same_host(&request) {
        return refuse(StatusCode::FORBIDDEN, "a page of another origin may not connect");
    }
    let from = request.peer_addr().map(|address| address.ip());
    if from.is_some_and(|from| !sockets.peers.lets_in(from)) {
        return refuse(
            StatusCode::TOO_MANY_REQUESTS,
            "too many connections or wrong tokens from this address",
        );
    }
    let mut response = match ws::handshake(request.head()) {
        Ok(response) => response,
        Err(error) => return refuse_handshake(error),
    };
    let Some(counted) = sockets.room() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "there are too many WebSockets");
    };
    let (pipe, body) = pipe::pipe();
    let (pass_on, pieces) = mpsc::channel(PIECES_MAX);
    actix_web::rt::spawn(pass(payload, pass_on));
    sockets.serve(Reading::new(pieces, pipe.clone()), Writing::new(pipe), counted, from);
    match response.message_body(body) {
        Ok(response) => HttpResponse::from(response).map_into_boxed_body(),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the connection can not be upgraded"),
    }
}

/// Passes on what the peer sends, as fast as its session takes it, until one of them is gone.
async fn pass(mut payload: web::Payload, pieces: mpsc::Sender<Bytes>) {
    loop {
        let next = std::future::poll_fn(|context| Pin::new(&mut payload).poll_next(context));
        let piece = tokio::select! {
            piece = next => piece,
            () = pieces.closed() => return,
        };
        let Some(Ok(piece)) = piece else { return };
        if pieces.send(piece).await.is_err() {
            return;
        }
    }
}

/// Whether who asks is no browser, or one with a page of this very host. Behind a proxy that must keep `Host`.
fn is_same_host(request: &HttpRequest) -> bool {
    let mut origins = request.headers().get_all(header::ORIGIN);
    let Some(origin) = origins.next() else { return true };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host) && origins.next().is_none(),
        _ => false,
    }
}

fn refuse_handshake(error: ws::HandshakeError) -> HttpResponse {
    let mut response = refuse(StatusCode::BAD_REQUEST, &format!("no WebSocket: {error}"));
    if matches!(error, ws::HandshakeError::NoVersionHeader | ws::HandshakeError::UnsupportedVersion) {
        let version = header::HeaderValue::from_static("13");
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
    }
    response
}

fn refuse(status: StatusCode, words: &str) -> HttpResponse {
    HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(format!("{words}\n"))
}
