//! A reply is posted, once; and where the line lies between "not written" and "nobody knows".

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Url};

use super::answer::{self, Limit, Posted};
use super::{Graph, Token, read, request};
use crate::actors::port::SendNow;

/// How long a request may take in all: less than the 60 s after which a reply counts as `unknown` anyway.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Most of an answer that is read, in bytes; Meta's have a few hundred.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// A number, as the Graph API knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    messages: Url,
    token: Token,
}

impl Graph {
    /// A number with the token that it sends with.
    #[must_use]
    pub fn account(&self, phone_number_id: &str, token: Token) -> Account {
        Account { messages: self.at(&[phone_number_id, "messages"]), token }
    }

    /// Posts a reply. Dropped before it resolves, its fate is unknown.
    pub async fn post(&self, account: &Account, send: &SendNow) -> Posted {
        let request = self.ask_at(Method::POST, account.messages.clone(), &account.token, ANSWER_WITHIN);
        let request = request.header(CONTENT_TYPE, "application/json").body(request::body(send));
        let mut response = match request.send().await {
            Ok(response) => response,
            // No connection, so nothing was written.
            Err(error) if error.is_connect() => {
                return Posted::Again {
                    error: answer::unreachable(),
                    limit: Limit::Unreachable,
                    retry_after: None,
                };
            }
            Err(_) => return Posted::Unknown,
        };
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(seconds);
        // Cut off or endless: its status alone can still refuse.
        let body = read(&mut response, ANSWER_BYTES_MAX).await.unwrap_or_default();
        answer::read(status, retry_after, &body)
    }
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
