//! Why a request was refused, or why a connection ends.

use crate::domain::ids::AgentId;

use super::text::Name;

/// The code of an error; programs decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The message is not understood, or a field has a value that cannot be. Ends the connection after a broken frame.
    BadMessage,
    /// The broker does not know this `type`.
    UnknownType,
    /// Content, or a line or frame, is over its limit; the latter ends the connection.
    TooLarge,
    /// The broker does not speak the version asked for.
    UnsupportedVersion,
    /// Portal, service or token are not known together, or `hello` did not come in time. Ends the connection.
    Unauthenticated,
    /// The one who asks may not do this.
    Forbidden,
    /// There is no such thing for the one who asks.
    NotFound,
    /// The number belongs to another portal.
    NumberTaken,
    /// Services of this family can not share a number.
    ServiceNotEligible,
    /// The service is not in the channel's list.
    NotSubscribed,
    /// Only the channel's parent may do this.
    NotParent,
    /// Another agent of the service holds the conversation.
    Claimed,
    /// Nobody holds such a claim.
    NotClaimed,
    /// The agent is not in the service's roster.
    UnknownAgent,
    /// The confirmation is unreadable, or for another agent or conversation.
    StaleConfirm,
    /// The reply id is in use for another conversation or content.
    Conflict,
    /// Outside the customer-service window only templates pass.
    WindowClosed,
    /// The channel is closed for good.
    ChannelClosed,
    /// There is too much under way; later it may pass.
    Overloaded,
    /// The broker cannot do it at present.
    Unavailable,
    /// A fault of the broker's own.
    Internal,
    /// A newer connection of the same name has taken over. Ends the connection.
    Replaced,
    /// Deliveries were not acknowledged in time. Ends the connection.
    Stalled,
    /// The promised `ping` did not come. Ends the connection.
    Timeout,
    /// The token is not valid any more. Ends the connection.
    Revoked,
}

/// Who holds a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The agent.
    pub agent: AgentId,
    /// What he is called, where the roster says it.
    pub name: Option<Name>,
}
