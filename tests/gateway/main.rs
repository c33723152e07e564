//! The built-in gateway: a real `serve` process between adapters on TCP and a simulated Graph API on HTTP.
//!
//! Each test looks at three ends: what the services were told, what the Graph API saw, and what it took. The rules of
//! Meta's description are checked on every request, and no test may end with one broken ([`stage::Stage::end`]).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test: a panic is its report")]
#![allow(clippy::indexing_slicing, reason = "a test: a panic is its report")]

mod crash;
mod fair;
mod phone;
mod reload;
mod retries;
mod sending;
#[path = "../world/serving.rs"]
mod serving;
mod simulated;
mod stage;
