//! The rules, as pure state machines: decide, apply, view.
//!
//! **Architecture invariant:** nothing in here knows I/O, a clock, randomness, actix, tokio or serde. Time is an
//! argument, randomness a key that was given at the start; what is decided is persisted before anybody hears of it.

pub mod command;
pub mod content;
pub mod delivery;
pub mod event;
pub mod ids;
pub mod presence;
pub mod view;
