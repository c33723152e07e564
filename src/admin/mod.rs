//! What operators see and do over HTTP.
//!
//! # Layout
//! - [`metrics`]: `GET /metrics`
//! - [`api`]: `/v1/admin/…`, and its description at `/v1/openapi.json`
//!
//! May import `actors` alone. What the command line must add from elsewhere (webhooks, the listener, the protocol's
//! JSON) it hands in.

pub mod api;
pub mod metrics;
