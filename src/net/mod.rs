//! What listens: the HTTP server, and the adapters' sessions.

pub mod http;
