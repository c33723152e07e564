//! What an answer of the Graph API says of a message: sent, refused, refused for now, or nothing that one can know.
//!
//! Pure. It goes by status and code, never by titles. **Invariant:** only where WhatsApp says itself, or the request
//! surely did not leave, is a message "not sent"; whatever else happens is [`Posted::Unknown`].

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::domain::event::StatusError;
use crate::domain::ids::MessageId;
use crate::gateway::text::cut;

/// Longest code that is passed on, in bytes; Meta's are numbers.
const CODE_BYTES_MAX: usize = 64;
/// Longest title and details that are passed on, in bytes each; what is longer is cut.
const TEXT_BYTES_MAX: usize = 4_096;

/// What a refusal for now is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Too many messages to one customer (131056).
    Pair,
    /// Too many messages of the number (130429).
    Throughput,
    /// Too many messages of the number that customers blocked or reported (131048).
    Spam,
    /// Too many calls of the account or the app (80007, 4), or of a proxy on the way (429).
    Calls,
    /// WhatsApp could not be reached.
    Unreachable,
}

/// What became of a request.
#[derive(Debug, Clone)]
pub enum Posted {
    /// WhatsApp has the message, under this id.
    Sent(MessageId),
    /// WhatsApp has refused it, for good.
    Refused(StatusError),
    /// It surely was not sent, and may be later.
    Again {
        /// What was said.
        error: StatusError,
        /// What it is about.
        limit: Limit,
        /// How long WhatsApp asks to wait at least.
        retry_after: Option<Duration>,
    },
    /// It was written, and nobody can know what became of it.
    Unknown,
}

/// Reads an answer.
pub(super) fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Posted {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let said = json.as_ref().and_then(|json| json.get("error"));
    match (status, said) {
        (200..=299, None) => json.as_ref().and_then(message_id).map_or(Posted::Unknown, Posted::Sent),
        (500.., _) => Posted::Unknown,
        (_, Some(said)) => refused(said, status, retry_after),
        (429, None) => Posted::Again { error: bare(status), limit: Limit::Calls, retry_after },
        (400..=499, None) => Posted::Refused(bare(status)),
        // Nothing that Meta documents: it may have been taken.
        _ => Posted::Unknown,
    }
}

fn message_id(json: &Value) -> Option<MessageId> {
    json.get("messages")?.get(0)?.get("id")?.as_str()?.parse().ok()
}

fn refused(said: &Value, status: u16, retry_after: Option<Duration>) -> Posted {
    let code = said.get("code").and_then(Value::as_u64);
    let error = error_of(said, code, status);
    let limit = match code {
        Some(131_056) => Limit::Pair,
        Some(130_429) => Limit::Throughput,
        Some(131_048) => Limit::Spam,
        Some(80_007 | 4) => Limit::Calls,
        _ => return Posted::Refused(error),
    };
    Posted::Again { error, limit, retry_after }
}

fn error_of(said: &Value, code: Option<u64>, status: u16) -> StatusError {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(|text| cut(text, TEXT_BYTES_MAX));
    let code = code.map_or_else(|| status.to_string(), |code| code.to_string());
    let message = said.get("message").and_then(Value::as_str);
    // Meta writes the code before it, which a status's title has not.
    let message = message.map(|text| text.strip_prefix(&format!("(#{code}) ")).unwrap_or(text));
    StatusError {
        code: cut(&code, CODE_BYTES_MAX),
        title: text(said.get("error_user_title")).or_else(|| message.map(|text| cut(text, TEXT_BYTES_MAX))),
        details: text(said.get("error_data").and_then(|data| data.get("details"))),
    }
}

/// That of an answer which says nothing but its status.
fn bare(status: u16) -> StatusError {
    let title = format!("HTTP status {status} without an error of Meta's");
    StatusError { code: Arc::from(status.to_string()), title: Some(Arc::from(title)), details: None }
}

/// That of a request that could not be made.
pub(super) fn unreachable() -> StatusError {
    let title = Some(Arc::from("WhatsApp could not be reached"));
    StatusError { code: Arc::from("131016"), title, details: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u32) -> String {
        format!(
            r#"{{"error":{{"message":"(#{code}) A title","type":"OAuthException","code":{code},"error_data":{{"messaging_product":"whatsapp","details":"Why"}},"fbtrace_id":"A"}}}}"#
        )
    }

    #[test]
    fn what_meta_limits_is_tried_again_and_what_it_refuses_is_final() {
        for (code, limit) in [
            (131_056, Limit::Pair),
            (130_429, Limit::Throughput),
            (131_048, Limit::Spam),
            (80_007, Limit::Calls),
            (4, Limit::Calls),
        ] {
            for status in [400, 429] {
                let posted = read(status, Some(Duration::from_secs(3)), error(code).as_bytes());
                let Posted::Again { error, limit: read, retry_after } = posted else {
                    panic!("{code}: {posted:?}")
                };
                assert_eq!((read, retry_after), (limit, Some(Duration::from_secs(3))), "{code}");
                assert_eq!(&*error.code, code.to_string());
            }
        }
        for (code, status) in [(131_047, 400), (190, 401), (368, 403), (100, 400), (132_001, 404)] {
            let posted = read(status, None, error(code).as_bytes());
            let Posted::Refused(error) = posted else { panic!("{code}: {posted:?}") };
            assert_eq!(&*error.code, code.to_string());
            assert_eq!(error.title.as_deref(), Some("A title"));
            assert_eq!(error.details.as_deref(), Some("Why"));
        }
    }

    #[test]
    fn what_nobody_can_know_is_unknown() {
        let taken = r#"{"messaging_product":"whatsapp","contacts":[],"messages":[{"id":"wamid.1"}]}"#;
        assert!(matches!(read(200, None, taken.as_bytes()), Posted::Sent(id) if id.as_str() == "wamid.1"));
        for (status, body) in [
            (500, error(131_000)),
            (503, error(2)),
            (500, error(130_429)),
            (502, "<html>".to_owned()),
            (200, "{}".to_owned()),
            (200, r#"{"messages":[{"id":"#.to_owned()),
            (200, r#"{"messages":[{"id":7}]}"#.to_owned()),
            (302, String::new()),
        ] {
            let posted = read(status, None, body.as_bytes());
            assert!(matches!(posted, Posted::Unknown), "{status} {body}: {posted:?}");
        }
    }

    #[test]
    fn without_an_error_of_metas_the_status_speaks() {
        let posted = read(404, None, b"not found");
        assert!(matches!(&posted, Posted::Refused(error) if &*error.code == "404"), "{posted:?}");
        assert!(matches!(read(429, None, b""), Posted::Again { limit: Limit::Calls, .. }));
    }
}
