//! WebSocket at `/v1/ws`: the JSON messages of the protocol, one to a text frame, on the HTTP listener.
//!
//! ```text
//! upgrade ─▶ origin, room ─▶ 101 ─▶ Reading (frames ─▶ lines) ─▶ session ─▶ Writing (lines ─▶ frames) ─▶ body ─▶ HTTP
//! ```
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

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_http::ws;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};

pub(super) use self::reading::Reading;
pub(super) use self::writing::Writing;
use super::peers::Peers;
use super::{carrier, session};
use crate::actors::Broker;
use crate::wire::frame::Splitter;

/// Most WebSockets at once: half of what the HTTP listener takes.
pub const WEBSOCKETS_MAX: usize = 2_048;
/// Where they are.
pub const PATH: &str = "/v1/ws";

#[derive(Clone)]
struct Sockets {
    broker: Broker,
    open: Arc<AtomicUsize>,
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
    let sockets = Sockets { broker, open: Arc::default(), peers };
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
    let reading = Reading::new(payload, Rc::clone(&pipe));
    let writing = Writing::new(pipe);
    let (broker, peers) = (Rc::new(sockets.broker.clone()), Arc::clone(&sockets.peers));
    actix_web::rt::spawn(async move {
        let _counted = counted;
        let reading = carrier::Reading::WebSocket(reading);
        let writing = carrier::Writing::WebSocket(writing);
        session::run(reading, writing, Splitter::of_text_frames(), &broker, from.map(|from| (&*peers, from)))
            .await;
    });
    match response.message_body(body) {
        Ok(response) => HttpResponse::from(response).map_into_boxed_body(),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the connection can not be upgraded"),
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
