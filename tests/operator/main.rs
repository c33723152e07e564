//! What operators see and do over HTTP, over real sockets beside real peers: metrics, the admin API, the console
//! in a real browser.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail as its test does"
)]

mod admin;
#[path = "../scenarios/bridge.rs"]
#[allow(dead_code, reason = "made for the scenarios, whose stage needs it")]
mod bridge;
mod browser;
mod calls;
mod console;
mod house;
mod masking;
mod metrics;
mod openmetrics;
mod schema;
#[path = "../scenarios/stage.rs"]
#[allow(dead_code, reason = "made for the scenarios, which need more of it")]
mod stage;
#[path = "../world/mod.rs"]
#[allow(dead_code, reason = "made for several tests")]
mod world;
