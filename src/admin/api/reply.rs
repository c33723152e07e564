//! Answers and errors: the protocol's objects, under the status that HTTP has for them.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use super::unread::{RefusalBody, Unread};
use super::{Desk, Said};
use crate::actors::operator::Told;

/// What becomes of a call.
pub(super) type Outcome = Result<HttpResponse, Refused>;

/// Why a call is refused before the broker is asked, or because it does not answer.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refused {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// Something in the call can not be.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_message", message)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "not found")
    }

    pub(super) fn not_configured() -> Self {
        let text = "the admin API is off: the configuration has no http.admin_token_sha256";
        Self::new(StatusCode::FORBIDDEN, "forbidden", text)
    }

    pub(super) fn unauthenticated() -> Self {
        let text = "a bearer token is needed: the one whose SHA-256 is http.admin_token_sha256";
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", text)
    }

    pub(super) fn overloaded() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "there are too many calls at once")
    }

    pub(super) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "bad_message", "the body did not come in time")
    }

    pub(super) fn too_large(max: usize) -> Self {
        let text = format!("a body has at most {max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text)
    }

    pub(super) fn no_answer() -> Self {
        let text = "the broker did not answer in time; what was asked may have been done";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text)
    }

    /// The answer; `unread` is what is left of the request.
    pub(super) fn response(self, unread: Unread) -> HttpResponse {
        let body = json!({"type": "error", "code": self.code, "message": self.message}).to_string();
        let mut response = HttpResponse::build(self.status);
        response.insert_header((header::CONTENT_TYPE, "application/json"));
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"sharedline\""));
        }
        no_store(&mut response).body(RefusalBody::new(body, unread))
    }
}

fn no_store(response: &mut actix_web::HttpResponseBuilder) -> &mut actix_web::HttpResponseBuilder {
    response.insert_header((header::CACHE_CONTROL, "no-store"))
}

fn put(status: StatusCode, body: web::Bytes) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    response.insert_header((header::CONTENT_TYPE, "application/json"));
    no_store(&mut response).body(body)
}

/// An object of ours.
pub(super) fn object(value: &Value) -> Outcome {
    Ok(put(StatusCode::OK, value.to_string().into()))
}

/// What the broker answers, as it is.
pub(super) fn told(desk: &Desk, told: Told) -> Outcome {
    let Said { json, error } = desk.words.say(told);
    Ok(put(error.map_or(StatusCode::OK, status_of), json))
}

/// What the broker answers, with more in it where it is no error.
pub(super) fn told_with(desk: &Desk, told: Told, more: impl FnOnce(&mut Value)) -> Outcome {
    let Said { json, error } = desk.words.say(told);
    if let Some(code) = error {
        return Ok(put(status_of(code), json));
    }
    match serde_json::from_slice::<Value>(&json) {
        Ok(mut value) => {
            more(&mut value);
            object(&value)
        }
        // What was written can be read.
        Err(_) => Ok(put(StatusCode::INTERNAL_SERVER_ERROR, json)),
    }
}

/// HTTP's word for an error of the protocol.
fn status_of(code: &str) -> StatusCode {
    match code {
        "bad_message" | "unknown_type" => StatusCode::BAD_REQUEST,
        "forbidden" => StatusCode::FORBIDDEN,
        "not_found" => StatusCode::NOT_FOUND,
        "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "overloaded" | "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "internal" => StatusCode::INTERNAL_SERVER_ERROR,
        // The rules refuse it, as things are.
        _ => StatusCode::CONFLICT,
    }
}
