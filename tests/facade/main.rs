//! The Cloud API facade of a real `sharedline serve`, over real sockets: programs that send, a gateway over TCP that
//! plays WhatsApp, and HTTP servers that play the services' callback URLs (up, down, slow, gone).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail as its test does"
)]
#![allow(dead_code, reason = "not every helper is used by every test")]

mod callback;
mod clients;
mod kill;
mod media;
mod messages;
mod reload;
mod send;
#[path = "../world/serving.rs"]
mod serving;
mod stand;
mod threads;
mod webhooks;
