//! A client of Meta's Graph API: the one way in which this program asks WhatsApp anything.
//!
//! # Layout
//! - `mod.rs`: where it is, connections, tokens, time limits, how much of an answer is read
//! - [`sends`]: replies, for the built-in gateway; `request`: their body · [`answer`]: what their answer means
//! - [`objects`]: media, numbers and accounts, for the Cloud API facade
//!
//! **Invariants:** nothing in here sends a request twice, on no error, or follows a redirect. A token goes to the Graph
//! API and to Meta's own media hosts, nowhere else; it stands in no answer and no log.

pub mod answer;
pub mod objects;
mod request;
pub mod sends;

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, Url};

use crate::config::Secret;

/// How long making a connection may take, its name looked up and its TLS agreed on.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long an unused connection is kept: shorter than servers keep theirs, so that a request is not written into one
/// that is just being closed, which would leave its fate unknown.
const IDLE_FOR: Duration = Duration::from_secs(10);
/// What the broker calls itself, to WhatsApp and at callback URLs.
pub(super) const AGENT: &str = concat!("sharedline/", env!("CARGO_PKG_VERSION"));

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
    base: Url,
}

/// An access token, as it stands in a request.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(HeaderValue);

impl Token {
    /// # Errors
    /// When it can not stand in a header.
    pub fn new(secret: &Secret) -> Result<Self, GraphError> {
        let bearer = format!("Bearer {}", secret.expose());
        let mut value = HeaderValue::from_str(&bearer).map_err(|_| GraphError::Token)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// A token is a secret.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<token>")
    }
}

impl Graph {
    /// A client of the Graph API at this URL, its version included.
    ///
    /// # Errors
    /// When that is no URL, or the system lacks what a client needs.
    pub fn new(url: &str) -> Result<Self, GraphError> {
        choose_crypto();
        let base = Url::parse(url.trim_end_matches('/')).map_err(|_| GraphError::Url)?;
        if !matches!(base.scheme(), "https" | "http") || base.host().is_none() {
            return Err(GraphError::Url);
        }
        let client = Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .pool_idle_timeout(IDLE_FOR)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .user_agent(AGENT)
            .build()?;
        Ok(Self { client, base })
    }

    /// The address of an object or an edge of one.
    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // It has a host, so it has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// A request with a token, which must be answered within this time, body included.
    fn ask_at(&self, method: Method, url: Url, token: &Token, within: Duration) -> RequestBuilder {
        self.client.request(method, url).header(AUTHORIZATION, token.0.clone()).timeout(within)
    }
}

/// Why a body was not read to its end.
enum Unread {
    TooLong,
    BrokenOff,
}

/// The body of an answer, unless it is longer than that.
async fn read(response: &mut Response, bytes_max: usize) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| Unread::BrokenOff)? {
        if body.len() + chunk.len() > bytes_max {
            return Err(Unread::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stays_within_the_graph_api_whatever_is_asked_for() {
        for base in ["http://127.0.0.1:1234/v23.0", "http://127.0.0.1:1234/v23.0/"] {
            let graph = Graph::new(base).unwrap();
            assert_eq!(graph.at(&["1", "media"]).as_str(), "http://127.0.0.1:1234/v23.0/1/media");
            assert_eq!(graph.at(&["a/../b"]).as_str(), "http://127.0.0.1:1234/v23.0/a%2F..%2Fb");
        }
        assert!(Graph::new("ftp://127.0.0.1/v23.0").is_err() && Graph::new("v23.0").is_err());
    }

    #[test]
    fn a_token_shows_itself_to_nobody() {
        let token = Token::new(&Secret::new("EAAJB".to_owned())).unwrap();
        assert_eq!(format!("{token:?}"), "<token>");
        assert!(Token::new(&Secret::new("a\nb".to_owned())).is_err());
    }
}
