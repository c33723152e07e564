//! Errors in the shape of Meta's Graph API: what a program written for the Cloud API knows how to read.
//!
//! Codes are Meta's, the words are ours. **Invariant:** no text here holds anything that another service wrote.

use actix_web::http::StatusCode;
use serde_json::{Value, json};

use crate::actors::port::Refusal;
use crate::domain::command::Rejection;
use crate::gateway::graph::objects::ObjectError;
use crate::gateway::text::hex;

/// What the broker answers instead of what was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GraphError {
    code: i64,
    status: StatusCode,
    message: String,
    details: Option<String>,
    subcode: Option<u32>,
}

impl GraphError {
    /// With one of Meta's codes, and the status that goes with it.
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, status: status_of(code), message: message.into(), details: None, subcode: None }
    }

    /// With details.
    pub(super) fn with(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn bad_token() -> Self {
        Self::new(190, "Invalid access token")
    }

    pub(super) fn bad_parameter(details: impl Into<String>) -> Self {
        Self::new(100, "Invalid parameter").with(details)
    }

    /// Of an object that is not there, or not for who asks; which of the two is not told.
    pub(super) fn no_object() -> Self {
        let mut error = Self::new(100, "The object does not exist, or this token may not use it");
        error.subcode = Some(33);
        error
    }

    pub(super) fn forbidden(details: impl Into<String>) -> Self {
        Self::new(10, "This token may not do that").with(details)
    }

    pub(super) fn unavailable(details: impl Into<String>) -> Self {
        Self::new(131_016, "The service is not available at present").with(details)
    }

    pub(super) fn unknown_outcome(details: impl Into<String>) -> Self {
        Self::new(131_000, "Something went wrong").with(details)
    }

    /// As the body of an answer.
    pub(super) fn body(&self) -> Value {
        let mut error = json!({
            "message": format!("(#{}) {}", self.code, self.message),
            "type": "OAuthException",
            "code": self.code,
            "fbtrace_id": trace_id(),
        });
        if let (Some(fields), Some(details)) = (error.as_object_mut(), &self.details) {
            let data = json!({ "messaging_product": "whatsapp", "details": details });
            fields.insert("error_data".to_owned(), data);
        }
        if let (Some(fields), Some(subcode)) = (error.as_object_mut(), self.subcode) {
            fields.insert("error_subcode".to_owned(), json!(subcode));
        }
        json!({ "error": error })
    }
}

/// What the broker's refusal of a reply is in Meta's words.
impl From<Refusal> for GraphError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rejected(rejection) => rejected(&rejection),
            Refusal::NotFound | Refusal::NumberTaken => Self::no_object(),
            Refusal::Forbidden => Self::forbidden("the broker does not let this service do that"),
            Refusal::ChannelClosed => Self::no_object(),
            Refusal::Unavailable => Self::unavailable("the broker takes nothing now"),
            Refusal::BadMessage(text) | Refusal::TooLarge(text) => Self::bad_parameter(&*text),
            Refusal::UnknownType => Self::bad_parameter("no such request"),
            Refusal::Overloaded { .. } => Self::new(130_429, "Rate limit hit").with("too much is under way"),
        }
    }
}

/// What WhatsApp did not give, or refused: in its own words where it is the service's to mend.
impl From<ObjectError> for GraphError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Refused { code, message, details: Some(details) } => {
                Self::new(code, message).with(details)
            }
            ObjectError::Refused { code, message, details: None } => Self::new(code, message),
            ObjectError::NoMedia => Self::new(131_052, "Media download error").with(error.to_string()),
            ObjectError::NoAnswer | ObjectError::TooLong | ObjectError::Token | ObjectError::Elsewhere => {
                Self::unavailable(error.to_string())
            }
        }
    }
}

fn rejected(rejection: &Rejection) -> GraphError {
    let text = rejection.to_string();
    match rejection {
        Rejection::WindowClosed => GraphError::new(131_047, "Re-engagement message").with(text),
        Rejection::TooManyReplies => GraphError::new(130_429, "Rate limit hit").with(text),
        Rejection::NotSubscribed | Rejection::ServiceNotEligible | Rejection::NotParent => {
            GraphError::forbidden(text)
        }
        // Its own rule keeps bots out while an agent of the service has the conversation.
        Rejection::Claimed { .. } => GraphError::new(131_005, "Access denied").with(text),
        Rejection::Conflict => GraphError::bad_parameter("the Idempotency-Key is in use for another message"),
        Rejection::NotFound | Rejection::ChannelClosed => GraphError::no_object(),
        Rejection::BadMessage(_)
        | Rejection::UnknownAgent
        | Rejection::NotClaimed
        | Rejection::Forbidden
        | Rejection::StaleConfirm
        | Rejection::TooManyHolders => GraphError::bad_parameter(text),
    }
}

/// The status that goes with a code.
fn status_of(code: i64) -> StatusCode {
    match code {
        0 | 190 => StatusCode::UNAUTHORIZED,
        3 | 131_000 | 131_016 | 131_057 => StatusCode::INTERNAL_SERVER_ERROR,
        2 => StatusCode::SERVICE_UNAVAILABLE,
        10 | 200..=299 | 368 | 131_005 | 131_031 => StatusCode::FORBIDDEN,
        132_001 => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// By which one answer can be told from another.
pub(super) fn trace_id() -> String {
    let mut raw = [0; 9];
    // Without randomness it is one and the same: it only helps people to find an answer again.
    let _ = getrandom::fill(&mut raw);
    format!("A{}", hex(&raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_metas_shape() {
        let error = GraphError::new(131_047, "Re-engagement message").with("closed");
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        let body = error.body();
        let inner = &body["error"];
        assert_eq!(inner["code"], 131_047);
        assert_eq!(inner["message"], "(#131047) Re-engagement message");
        assert_eq!(inner["type"], "OAuthException");
        assert_eq!(inner["error_data"]["details"], "closed");
        assert_eq!(inner["error_data"]["messaging_product"], "whatsapp");
        assert!(inner["fbtrace_id"].as_str().is_some_and(|id| id.len() == 19));
        assert_eq!(GraphError::bad_token().status(), StatusCode::UNAUTHORIZED);
        assert_eq!(GraphError::no_object().body()["error"]["error_subcode"], 33);
    }

    #[test]
    fn every_rule_that_stops_a_reply_has_its_code() {
        let code = |rejection: Rejection| GraphError::from(Refusal::Rejected(rejection)).code;
        assert_eq!(code(Rejection::WindowClosed), 131_047);
        assert_eq!(code(Rejection::TooManyReplies), 130_429);
        assert_eq!(code(Rejection::NotSubscribed), 10);
        assert_eq!(code(Rejection::Conflict), 100);
        assert_eq!(GraphError::from(Refusal::Unavailable).code, 131_016);
    }
}
