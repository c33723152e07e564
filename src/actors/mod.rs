//! The actors: a thin shell of actix around the domain. They translate, hold what must wait, and own one thing each.
//!
//! ```text
//! Broker (handle)
//!  └─ PortalActor, one a portal: its stream (rosters, directory of channels)
//!      └─ ChannelActor, one a channel: its stream, feeds, outbox
//!          └─ ConversationActor, while somebody looks at the conversation: timelines, presence, hand-over
//!  └─ ServiceAdapterActor, one a connection: routes what it asks ─▶ PortalActor, ChannelActor
//!         Outlet, one a connection: answers and deliveries leave past its actor
//! ```
//!
//! # Layout
//! - [`broker`]: the handle; starting, stopping · `session`: connections · `submission`: what comes without one ·
//!   `reload`: another configuration, under way
//! - `settings`: what the configuration says now
//! - [`operator`]: the operator's way in
//! - `caller`: a service, as callers in this process speak for it
//! - [`port`]: what a session and the actors say to each other · [`outlet`]: a connection's end of it
//! - [`sender`]: replies that this process sends itself
//! - [`batch`]: records on their way out
//! - [`adapter`], `portal`, `channel`, `conversation`: the actors
//! - `asking`: requests of a channel and where their answers go · `registry`: who is where
//! - `homes`: Arbiters · `completion`: from the journal's writer back to the actors · `reader`: history, off the Arbiters
//! - `keeper`: bases, and history whose time has come
//! - [`counters`]: what is counted, once a batch · [`observed`]: the broker at one moment, without asking an actor
//!
//! # What is in order, and what is not
//! Requests of one connection are decided in their order per channel, since one mailbox is a queue; answers of one
//! channel leave in that order too, of two channels in any.
//!
//! # When something fails
//! A supervisor does not survive a panic, so none is used: a panic in a portal's or a channel's actor, like a failed
//! append, halts the broker (nothing more is acknowledged; the process starts again from the journal). One in a
//! connection's actor ends that connection.
//!
//! **Architecture invariant:** nothing here decides what the rules say, and nothing waits: a request carries where its
//! answer goes. Mailboxes have no limit of their own; permits taken before a request is sent bound them.

pub mod adapter;
mod asking;
pub mod batch;
pub mod broker;
mod caller;
mod channel;
mod clock;
mod completion;
mod conversation;
pub mod counters;
mod homes;
mod keeper;
pub mod observed;
pub mod operator;
pub mod outlet;
pub mod port;
mod portal;
mod reader;
mod registry;
mod reload;
pub mod sender;
mod session;
mod settings;
mod setup;
mod shared;
mod submission;

pub use asking::Ask;
pub use broker::Broker;
pub use caller::Caller;
#[doc(hidden)]
pub use clock::simulate;
pub use registry::Deliver;
pub use reload::{ReloadError, Reloaded};
pub use setup::OpenBrokerError;
pub use shared::{Halted, Limits};
