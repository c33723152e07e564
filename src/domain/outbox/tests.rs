//! The outbox against a naive model.
