//! One attempt to tell a service something: a signed POST, and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, USER_AGENT};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};

use crate::config::{Callback, Secret};
use crate::gateway::graph::{AGENT, choose_crypto};
use crate::gateway::signature::{SIGNATURE_HEADER, sign};

/// How long a connection may take to be made.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// What a service says to what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It has it: 200.
    Taken,
    /// It wants nothing more at this URL: 410.
    Gone,
    /// Anything else, or nothing.
    Refused,
}

/// A client for callbacks: it follows no redirects, so that nobody is sent to where he was not told.
pub(super) fn client(within: Duration) -> Result<Client, reqwest::Error> {
    choose_crypto();
    let client = Client::builder().redirect(Policy::none()).no_proxy();
    client.timeout(within).connect_timeout(CONNECTED_WITHIN.min(within)).build()
}

/// Where one service is told.
#[derive(Clone)]
pub(super) struct Endpoint {
    client: Client,
    url: String,
    app_secret: Secret,
}

impl Endpoint {
    pub(super) fn new(client: Client, callback: &Callback) -> Self {
        Self { client, url: callback.url.clone(), app_secret: callback.app_secret.clone() }
    }

    /// Whether it is the same place, told in the same way.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.url == other.url && self.app_secret == other.app_secret
    }

    /// Posts a body once.
    pub(super) async fn post(&self, body: Bytes) -> Said {
        let signature = sign(self.app_secret.expose().as_bytes(), &body);
        let post = self.client.post(&self.url).header(SIGNATURE_HEADER, signature);
        let post = post.header(CONTENT_TYPE, "application/json").header(USER_AGENT, AGENT);
        match post.body(body).send().await.map(|answer| answer.status()) {
            Ok(StatusCode::OK) => Said::Taken,
            Ok(StatusCode::GONE) => Said::Gone,
            Ok(_) | Err(_) => Said::Refused,
        }
    }
}
