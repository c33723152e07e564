//! `serve` as an operator meets it: a configuration that changes under way, certificates, floods, systemd. Every test
//! starts the real process and talks to it over real sockets and signals.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: a panic is its report")]

mod first_message;
mod floods;
mod packaging;
mod reload;
#[path = "../world/serving.rs"]
mod serving;
mod stage;
mod systemd;

mod tls;
