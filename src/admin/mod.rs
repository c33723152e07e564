//! What operators see and do over HTTP.
//!
//! # Layout
//! - [`metrics`]: `GET /metrics`
//!
//! May import `actors` alone. What the command line must add from elsewhere (webhooks, the listener) it hands in.

pub mod metrics;
