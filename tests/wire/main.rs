//! The wire against its promises: bytes in, bytes out, no socket.
//!
//! # Layout
//! - `cases`: every variant of every message with all that can stand in it, as values
//! - `golden`: those cases as bytes, committed once and never edited
//! - `arbitrary`, `round_trip`: any message in either encoding reads back, and says the same in both
//! - `bad_input`: truncated, oversized, trailing, nested and random input for every decoder
//! - `views`: what is written straight from the domain is what a client reads as a delivery
//! - `asyncapi`: so does the AsyncAPI document, and its schemas fit what is written and read
//! - `document`: the protocol document lists what the code has

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test says what it expects in plain words; a panic is its report"
)]

mod arbitrary;
mod asyncapi;
mod bad_input;
mod cases;
mod document;
mod golden;
mod round_trip;
mod views;
