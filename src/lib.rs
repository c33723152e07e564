//! A message broker that lets many services share one WhatsApp number.
//!
//! # Layout
//! | module | owns | may import |
//! |---|---|---|
//! | [`domain`] | the rules as pure state machines: decide, apply, view; which connection gets which delivery | nothing of ours |
//! | [`wire`] | what travels: bytes ↔ messages in two encodings, the check of a message object; its contract is `docs/protocol.md` | `domain` |
#![cfg_attr(
    feature = "broker",
    doc = "| [`journal`] | the durable record: the trait, its written contract, the segmented log, an engine in memory | `domain` |"
)]
//!
//! Still to come, in the same picture: `actors` (portal, channel, conversation and service adapter on actix),
//! `net` (sockets and sessions), `gateway` (Meta's JSON, in and out), `cli`.
//!
//! # The way of a message
//! ```text
//!  command ──▶ Channel::decide ──▶ drafts ──▶ Channel::apply ──▶ a block of records ──▶ Journal::append
//!                                                                                          │ durable
//!  views per service ◀── domain::view ◀── ServiceCursor (who gets it) ◀── records ◀────────┘
//! ```
//!
//! # Invariants worth naming
//! - **Events are the truth.** A channel's state is the fold of its records and nothing else; replay equals live.
//! - **Decided, durable, told**, in this order: nothing is answered or delivered before its record is durable.
//! - **One way out for content:** [`domain::view::view`]. Content has no `Debug` that shows it and no `Serialize`.
//! - **A block is all or nothing.** What one decision gives lies in one block, so that a crash leaves all or none of it.
//! - **The core is alone:** without the feature `broker` the library builds without a runtime, a socket or a disk.

pub mod domain;
#[cfg(feature = "broker")]
pub mod journal;
pub mod wire;
