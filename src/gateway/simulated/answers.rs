//! Meta's answers and errors, in their shapes.

use serde_json::json;

use super::http::Response;
use super::media::Media;
use super::rules::Wrong;

pub(super) fn ok(body: &serde_json::Value) -> Response {
    Response::json(200, None, body)
}

pub(super) fn accepted(to: &str, message_id: &str) -> Response {
    ok(&json!({
        "messaging_product": "whatsapp",
        "contacts": [{"input": to, "wa_id": to}],
        "messages": [{"id": message_id, "message_status": "accepted"}],
    }))
}

pub(super) fn uploaded(media_id: &str) -> Response {
    ok(&json!({ "id": media_id }))
}

/// The bytes of media.
pub(super) fn file(media: &Media) -> Response {
    let (content_type, body) = (media.mime_type.clone(), media.bytes.clone());
    Response { status: 200, retry_after_s: None, content_type, body }
}

/// A status and nothing else.
pub(super) fn nothing(status: u16) -> Response {
    Response { status, retry_after_s: None, content_type: "text/plain".to_owned(), body: Vec::new() }
}

/// Meta's error of a code, with the status that Meta gives it.
pub(super) fn error(code: u32, retry_after_s: Option<u64>) -> Response {
    let (status, title, details) = match code {
        190 => (401, "Invalid OAuth access token", "The access token is not valid"),
        368 | 131_031 => (403, "Temporarily blocked for policies violations", "The account is restricted"),
        4 => (400, "Application request limit reached", "Too many calls of the app"),
        80_007 => (400, "Rate limit issues", "Too many calls of the account"),
        130_429 => {
            (429, "Rate limit hit", "Message failed to send because there were too many messages sent")
        }
        131_048 => (400, "Spam rate limit hit", "Too many earlier messages were blocked or flagged"),
        131_056 => (400, "Pair rate limit hit", "Too many messages to the same phone number in a short time"),
        131_047 => (400, "Re-engagement message", "More than 24 hours have passed since the customer wrote"),
        131_000 => (500, "Something went wrong", "An unknown error"),
        131_016 | 131_057 => (500, "Service unavailable", "The service is not available now"),
        2 => (503, "API Service", "Temporary downtime"),
        3 => (500, "API Method", "The capability is missing"),
        10 | 131_005 => (403, "Permission denied", "A permission is missing"),
        _ => (400, "Invalid parameter", "A parameter is not valid"),
    };
    shaped(status, code, title, details, retry_after_s)
}

/// The error of a message that is not as it must be.
pub(super) fn wrong(wrong: &Wrong) -> Response {
    let title = match wrong.code {
        131_008 => "Required parameter is missing",
        131_009 => "Parameter value is not valid",
        _ => "Invalid parameter",
    };
    shaped(400, wrong.code, title, &wrong.details, None)
}

fn shaped(status: u16, code: u32, title: &str, details: &str, retry_after_s: Option<u64>) -> Response {
    let body = json!({"error": {
        "message": format!("(#{code}) {title}"),
        "type": "OAuthException",
        "code": code,
        "error_data": {"messaging_product": "whatsapp", "details": details},
        "fbtrace_id": "Az8or2yhqkZfEZ-_4Qn_Bam",
    }});
    Response::json(status, retry_after_s, &body)
}
