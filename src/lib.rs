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
#![cfg_attr(
    feature = "broker",
    doc = "| [`actors`] | actix: portal, channel, conversation, service adapter; the registry; the `Broker` handle | `domain`, `journal`, `config` |"
)]
#![cfg_attr(
    feature = "broker",
    doc = "| [`net`] | the listener and its sessions, and `Broker::join`, which needs no socket | `wire`, `actors`, `domain`, `config` |"
)]
#![cfg_attr(
    feature = "broker",
    doc = "| [`gateway`] | what connects to WhatsApp: Meta's webhooks in, the Graph API out, and a simulated one to try it against | `actors`, `domain`, `wire`, `config` |"
)]
#![cfg_attr(
    feature = "broker",
    doc = "| [`admin`] | what operators see and do over HTTP: metrics, the admin API | `actors` |"
)]
#![cfg_attr(
    feature = "broker",
    doc = "| [`console`] | the operator's page, which asks the admin API | nothing of ours |"
)]
#![cfg_attr(
    feature = "broker",
    doc = "| [`config`] | default < file < environment < flag, validated in one place | `domain` |"
)]
#![cfg_attr(
    feature = "broker",
    doc = "| [`cli`] | the command line; `serve` wires everything together | all |"
)]
#![cfg_attr(feature = "broker", doc = "| [`client`] | a small async client | `wire`, `domain` |")]
//!
//!
//! # The way of a message
//! ```text
//!  adapter, gateway ══TCP══▶ net::session ─▶ wire ─┐
//!  Meta's webhook ═══HTTP══▶ gateway::webhook ─────┼─▶ ChannelActor ─▶ Channel::decide ─▶ drafts ─▶ Channel::apply
//!  embedding program ──────▶ Broker ───────────────┘                                          │
//!                                                          Journal::append ◀── a block of records
//!                                                                 │ durable
//!  adapter ◀══ net::writer ◀─ domain::view ◀─ ServiceCursor ◀─────┘──▶ held answers, sends: to a gateway over TCP, or
//!                                                                      gateway::outbound ══HTTPS══▶ the Graph API
//! ```
//!
//! # Invariants worth naming
//! - **Events are the truth.** A channel's state is the fold of its records and nothing else; replay equals live.
//! - **Decided, durable, told**, in this order: nothing is answered or delivered before its record is durable.
//! - **One way out for content:** [`domain::view::view`]. Content has no `Debug` that shows it and no `Serialize`.
//! - **A block is all or nothing.** What one decision gives lies in one block, so that a crash leaves all or none of it.
//! - **The core is alone:** without the feature `broker` the library builds without a runtime, a socket or a disk.
//!
#![cfg_attr(feature = "broker", doc = include_str!("../docs/library.md"))]

#[cfg(feature = "broker")]
pub mod actors;
#[cfg(feature = "broker")]
pub mod admin;
#[cfg(feature = "broker")]
pub mod cli;
#[cfg(feature = "broker")]
pub mod client;
#[cfg(feature = "broker")]
pub mod config;
#[cfg(feature = "broker")]
pub mod console;
pub mod domain;
#[cfg(feature = "broker")]
pub mod gateway;
#[cfg(feature = "broker")]
pub mod journal;
#[cfg(feature = "broker")]
pub mod net;
pub mod wire;
