//! What connects the broker to WhatsApp, and to programs that were written for it: Meta's webhooks in, the Graph API out, and
//! the Cloud API facade for services.
//!
//! ```text
//! POST /webhooks/whatsapp ─▶ webhook (body, signature) ─▶ translate (Meta's JSON) ─▶ Intake (the broker) ─▶ 200
//! Sender (the broker) ─▶ outbound ─▶ graph (POST /{phone_number_id}/messages) ─▶ what became of it ─▶ Sender
//! POST /vN.N/…/messages   ─▶ facade ─▶ Caller (the broker) ─▶ whatever gateway the number has
//! ```
//!
//! # Layout
//! - [`webhook`], [`signature`], [`numbers`], [`translate`], `echo`, `json`, `text`, `intake`: the way in
//! - [`outbound`]: each number's replies, their retries · [`graph`]: the client · [`intent`]: how a reply is found again
//! - [`simulated`]: a Graph API on loopback, for the demo and the tests
//!
//! May import `domain`, `actors`, `config`, and of `wire` only its check of content, so that a customer's message is held
//! to the same rules whichever way it comes in. The webhooks know nothing of channels or services: [`Intake`] is all that
//! they ask of the broker.

mod body;
mod echo;
pub mod facade;
pub mod graph;
mod intake;
pub mod intent;
mod json;
pub mod numbers;
pub mod outbound;
pub mod signature;
pub mod simulated;
mod text;
pub mod translate;
pub mod webhook;

use std::future::Future;
use std::sync::Arc;

use crate::domain::command::{Echo, Inbound, StatusCommand};
use crate::domain::content::Content;
use crate::domain::ids::{MessageId, Number, PortalId};

/// A number, and the portal that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The portal.
    pub portal: PortalId,
    /// The number.
    pub number: Number,
}

/// One update of a webhook, for the channels of one number.
#[derive(Debug, Clone)]
pub struct Update {
    /// Whose it is.
    pub to: Arc<Route>,
    /// What it says.
    pub news: News,
}

/// What an update says.
#[derive(Debug, Clone)]
pub enum News {
    /// A customer wrote.
    Message(Inbound),
    /// A message came further on its way, or did not.
    Status(StatusCommand),
    /// A message came further on its way, or did not, and the request that sent it had named a reply.
    OfReply {
        /// The reply.
        intent: intent::Intent,
        /// The message that it became.
        message_id: MessageId,
        /// What a status of that message says.
        status: StatusCommand,
    },
    /// Somebody replied on the phone.
    Echo(Echo),
    /// A change that is neither message nor status nor echo; for the parent.
    Notice {
        /// The webhook's field.
        field: Arc<str>,
        /// The change's value.
        content: Content,
    },
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It is in the journal of at least one channel, by this submission.
    Recorded,
    /// It says nothing new: every channel had it, or it is about a message that no channel sent.
    Known,
    /// No channel of the number is active; it is in no journal and will be in no context.
    Nowhere,
    /// The broker will never take it.
    Refused,
}

/// The journal cannot take what was submitted now. Nothing is acknowledged; what of it is recorded all the same is
/// recognised when it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot take it now")]
pub struct Unavailable;

/// The broker, as the gateway sees it.
pub trait Intake: Send + Sync + 'static {
    /// Submits what one webhook brought, in this order, and resolves when *all* of it has its fate: with one fate for
    /// each update, in the same order, every [`Fate::Recorded`] and [`Fate::Known`] durable.
    ///
    /// May be dropped at any time; what is submitted then goes on.
    ///
    /// # Errors
    /// When a record of at least one update could not be made durable.
    fn take(&self, updates: Vec<Update>) -> impl Future<Output = Result<Vec<Fate>, Unavailable>>;
}
