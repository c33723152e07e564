//! Sockets: the listener, and a session for each connection, between the bytes of `wire` and the actors.
//!
//! ```text
//! TcpListener ─▶ listener (limits, socket options) ─▶ carrier ─▶ session ─┬─ reader: Splitter ─▶ decode ─▶ requests ─▶ Session::ask
//!                                                                          └─ writer: Outlet::take ─▶ answers, deliveries ─▶ one write
//! ```
//!
//! # Layout
//! - [`in_json`]: an answer of the actors as one JSON object, for who asks over HTTP
//! - [`http`]: the HTTP server, its limits and its health · `door`: who is let in to it
//! - [`listener`]: accepts, bounds, stops · [`peers`]: what one source address may do
//! - [`local`]: the same without a socket, for programs that embed the broker
//! - [`tls`]: certificates of both listeners · [`stream`]: a socket, and its handshake where there is TLS
//! - [`websocket`]: the same sessions over `/v1/ws` · `carrier`: what a session reads from and writes to
//! - `session`: one connection from its first byte to its last · `inlet`: what it has read, in room that follows its use
//! - `requests`: what a peer asks, in the actors' words · `answers`: what the actors say, in the protocol's words
//! - `writer`: whatever is ready to leave, in as few writes as it takes · `pieces`: of what that is put together
//!
//! **Invariants:** a peer that sends nothing, or reads nothing, costs its own buffers and window and nothing else. No
//! input ends anything but its own connection.

mod answers;
mod carrier;
mod door;
pub mod http;
pub mod in_json;
mod inlet;
pub mod listener;
pub mod local;
pub mod peers;
mod pieces;
mod requests;
mod session;
pub mod stream;
pub mod tls;
pub mod websocket;
mod writer;
