//! The rules, as pure state machines: decide, apply, view.
//!
//! **Architecture invariant:** nothing in here knows I/O, a clock, randomness, actix, tokio or serde. Time is an
//! argument, randomness a key that was given at the start; what is decided is persisted before anybody hears of it.

pub mod aged;
pub mod aside;
pub mod buckets;
pub mod channel;
pub mod claims;
pub mod command;
pub mod content;
pub mod delivery;
mod dense;
pub mod event;
pub mod filter;
pub mod fingerprint;
pub mod ids;
pub mod outbox;
pub mod portal;
pub mod presence;
pub mod recent_ids;
pub mod saved;
pub mod senders;
mod text;
pub mod view;
