//! The domain against the rules of the specification: no socket, no disk, no clock.
//!
//! # Layout
//! - `stage`: one portal and one channel that a test tells commands; after each of them the records so far are
//!   replayed into a second channel, which is saved and restored on its way (`tape`) and must equal the first
//! - `channel`, `messages`, `replies`, `picking`, `threads`: the rules, each test named after its own (`r07_…`, `b05_…`)
//! - `fairness`: services that send in very different ways, played in simulated time (B14)
//! - `canary`: no byte of a masked reply on any path of the domain (B3)
//! - `properties`, `model`: any sequence of commands against a naive model that knows nothing of the domain

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test says what it expects in plain words; a panic is its report"
)]

mod canary;
mod channel;
mod fairness;
mod messages;
mod model;
mod picking;
mod properties;
mod replies;
mod stage;
mod tape;
mod threads;
