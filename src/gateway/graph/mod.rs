//! A client of Meta's Graph API, as far as the built-in gateway needs it: it posts a reply and says what became of it.
//!
//! # Layout
//! - `mod.rs`: the client: connections, time limits, where the line lies between "not written" and "nobody knows"
//! - `request`: the body that is posted · [`answer`]: what the answer means
//!
//! **Invariant:** nothing in here sends a request twice, on no error.

pub mod answer;
mod request;

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Url};

use self::answer::{Limit, Posted};
use crate::actors::port::SendNow;

/// How long making a connection may take, its name looked up and its TLS agreed on.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a request may take in all: less than the 60 s after which a reply counts as `unknown` anyway.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long an unused connection is kept: shorter than servers keep theirs, so that a request is not written into one
/// that is just being closed, which would leave its fate unknown.
const IDLE_FOR: Duration = Duration::from_secs(10);
/// Most of an answer that is read, in bytes; Meta's have a few hundred.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The URL of the Graph API is none.
    #[error("graph_url is no URL that begins with https:// or http://")]
    Url,
    /// The access token holds what can not stand in a header.
    #[error("an access token holds what no token holds")]
    Token,
    /// The client can not be made.
    #[error("the client of the Graph API can not be made")]
    Client(#[from] reqwest::Error),
}

/// Chooses the one crypto provider of this process, where none was chosen. Whoever makes an HTTP client calls it before.
pub fn choose_crypto() {
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client, for every number.
#[derive(Debug, Clone)]
pub struct Graph {
    client: Client,
    url: Url,
}

/// A number, as the Graph API knows it.
#[derive(Clone)]
pub struct Account {
    messages: Url,
    authorization: HeaderValue,
}

/// A token is a secret.
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("messages", &self.messages.as_str()).finish_non_exhaustive()
    }
}

impl Graph {
    /// A client of the Graph API at this URL, its version included.
    ///
    /// # Errors
    /// When that is no URL, or the system lacks what a client needs.
    pub fn new(url: &str) -> Result<Self, GraphError> {
        choose_crypto();
        let url = Url::parse(url.trim_end_matches('/')).map_err(|_| GraphError::Url)?;
        if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
            return Err(GraphError::Url);
        }
        let client = Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .pool_idle_timeout(IDLE_FOR)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .build()?;
        Ok(Self { client, url })
    }

    /// A number with the token that it sends with.
    ///
    /// # Errors
    /// When the token can not stand in a header.
    pub fn account(&self, phone_number_id: &str, access_token: &str) -> Result<Account, GraphError> {
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {access_token}")).map_err(|_| GraphError::Token)?;
        authorization.set_sensitive(true);
        let mut messages = self.url.clone();
        messages.path_segments_mut().map_err(|()| GraphError::Url)?.extend([phone_number_id, "messages"]);
        Ok(Account { messages, authorization })
    }

    /// Posts a reply. Dropped before it resolves, its fate is unknown.
    pub async fn post(&self, account: &Account, send: &SendNow) -> Posted {
        let request = self
            .client
            .post(account.messages.clone())
            .header(AUTHORIZATION, account.authorization.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(request::body(send));
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
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_BYTES_MAX => {
                    body.extend_from_slice(&chunk)
                }
                Ok(None) => break,
                // Cut off or endless: its status alone can still refuse.
                Ok(Some(_)) | Err(_) => {
                    body.clear();
                    break;
                }
            }
        }
        answer::read(status, retry_after, &body)
    }
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
