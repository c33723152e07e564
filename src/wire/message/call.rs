//! What each request is answered by, so that who asks gets that and nothing else.
//!
//! For who reads answers: the [client](crate::client), and programs that embed the broker. A refusal is no answer of a
//! [`Call`]: whoever asks turns it into an error.

use super::responses::{self, Warning};
use super::{Private, Request, Response, requests};

/// A request that is answered.
pub trait Call: Into<Request> {
    /// What answers it, where it is not refused.
    type Answer;

    /// Takes the answer out of a response; nothing where that answers something else.
    fn answer(response: Response) -> Option<Self::Answer>;
}

/// What is done, or what the agent is to be warned of first.
#[derive(Debug, Clone, PartialEq)]
pub enum OrWarning<T> {
    /// It is done.
    Done(T),
    /// Nothing is done: show the texts; the same request with their `confirm` does it.
    Warning(Warning),
}

impl<T> OrWarning<T> {
    /// What is done; nothing where there was a warning.
    #[must_use]
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(done) => Some(done),
            Self::Warning(_) => None,
        }
    }
}

/// A request that may be answered by a warning, and is done when it is asked again with that warning's `confirm`.
pub trait Confirmable: Call<Answer = OrWarning<Self::Done>> + Clone {
    /// What answers it where nobody is to be warned.
    type Done;

    /// The same request, confirming what a warning said.
    #[must_use]
    fn confirmed(self, confirm: Private) -> Self;
}

macro_rules! calls {
    ($( $request:ident => $response:ident ),* $(,)?) => {
        $(
            impl Call for requests::$request {
                type Answer = responses::$response;

                fn answer(response: Response) -> Option<Self::Answer> {
                    match response {
                        Response::$response(answer) => Some(answer),
                        _ => None,
                    }
                }
            }
        )*
    };
}

macro_rules! confirmable {
    ($( $request:ident => $response:ident ),* $(,)?) => {
        $(
            impl Call for requests::$request {
                type Answer = OrWarning<responses::$response>;

                fn answer(response: Response) -> Option<Self::Answer> {
                    match response {
                        Response::$response(done) => Some(OrWarning::Done(done)),
                        Response::Warning(warning) => Some(OrWarning::Warning(warning)),
                        _ => None,
                    }
                }
            }

            impl Confirmable for requests::$request {
                type Done = responses::$response;

                fn confirmed(self, confirm: Private) -> Self {
                    Self { confirm: Some(confirm), ..self }
                }
            }
        )*
    };
}

calls! {
    Roster => Ok,
    CreateChannel => Channel,
    ActivateChannel => Channel,
    DeactivateChannel => Channel,
    DeleteChannel => Channel,
    GetChannel => Channel,
    ConfigureChannel => Channel,
    ListChannels => Channels,
    ListConversations => Conversations,
    Open => Conversation,
    Release => Ok,
    Transfer => PickedUp,
    Presence => Ok,
    ThreadControl => Thread,
    ThreadOwner => Thread,
    Ping => Pong,
    Inbound => InboundAccepted,
    Status => Ok,
    Sent => Ok,
}
confirmable! {
    PickUp => PickedUp,
    Reply => Accepted,
}
