//! What is read from Meta's Graph API on behalf of services, with the number's own access token: media, and what may be
//! known of a number and its account. Nothing is sent to customers here.
//!
//! **Invariants:** the token goes to the Graph API and to Meta's own media hosts, nowhere else and never by a redirect;
//! it stands in no answer and no log.

use std::time::Duration;

use bytes::Bytes;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde_json::Value;

use super::errors::GraphError;
use crate::config::Secret;

/// How long Meta may take for an answer that is JSON.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// How long media may take to come or to go.
const MEDIA_WITHIN: Duration = Duration::from_secs(120);
/// How long a connection may take to be made.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
/// Largest answer that is JSON, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Where Meta keeps media, beside the Graph API's own host.
const MEDIA_HOSTS: [&str; 4] = [".facebook.com", ".fbsbx.com", ".fbcdn.net", ".whatsapp.net"];

/// The Graph API.
pub(super) struct Graph {
    client: Client,
    base: Url,
}

impl Graph {
    /// The Graph API at this address, version included.
    ///
    /// # Errors
    /// When the address or the client can not be made.
    pub(super) fn new(base: &str) -> Result<Self, String> {
        crate::gateway::graph::choose_crypto();
        let client = Client::builder().redirect(Policy::none()).no_proxy().connect_timeout(CONNECTED_WITHIN);
        let base =
            Url::parse(&format!("{}/", base.trim_end_matches('/'))).map_err(|error| error.to_string())?;
        Ok(Self { client: client.build().map_err(|error| error.to_string())?, base })
    }

    /// Asks for an object or an edge of one.
    pub(super) async fn ask(
        &self,
        token: &Secret,
        method: Method,
        path: &[&str],
        parameters: &[(String, String)],
    ) -> Result<Value, GraphError> {
        let mut url = self.at(path)?;
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        let request = self.client.request(method, url).bearer_auth(token.expose()).timeout(ANSWERED_WITHIN);
        answer(request.send().await).await
    }

    /// Uploads a body as it came.
    pub(super) async fn upload(
        &self,
        token: &Secret,
        path: &[&str],
        content_type: &str,
        body: Bytes,
    ) -> Result<Value, GraphError> {
        let request = self.client.post(self.at(path)?).bearer_auth(token.expose()).timeout(MEDIA_WITHIN);
        answer(request.header("content-type", content_type).body(body).send().await).await
    }

    /// Fetches media from where the Graph API says that they are.
    pub(super) async fn media(&self, token: &Secret, url: &str) -> Result<Response, GraphError> {
        let url = Url::parse(url).ok().filter(|url| self.is_metas(url));
        let url =
            url.ok_or_else(|| GraphError::unavailable("the media are where the broker does not look"))?;
        let request = self.client.get(url).bearer_auth(token.expose()).timeout(MEDIA_WITHIN);
        match request.send().await {
            Ok(answer) if answer.status() == StatusCode::OK => Ok(answer),
            Ok(_) => {
                Err(GraphError::new(131_052, "Media download error").with("WhatsApp does not give the media"))
            }
            Err(_) => Err(no_answer()),
        }
    }

    fn at(&self, path: &[&str]) -> Result<Url, GraphError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| GraphError::unavailable("the Graph API has no address"))?
            .pop_if_empty()
            .extend(path);
        Ok(url)
    }

    fn is_metas(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let is_here = url.host_str() == self.base.host_str() && url.port() == self.base.port();
        let is_safe = url.scheme() == "https" || (is_here && url.scheme() == self.base.scheme());
        is_safe && (is_here || MEDIA_HOSTS.iter().any(|end| host.ends_with(end)))
    }
}

fn no_answer() -> GraphError {
    GraphError::unavailable("WhatsApp gave no answer")
}

/// An answer that is JSON; Meta's own error, as it said it, where it is one.
async fn answer(answer: Result<Response, reqwest::Error>) -> Result<Value, GraphError> {
    let mut answer = answer.map_err(|_| no_answer())?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|_| no_answer())? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(GraphError::unavailable("WhatsApp's answer is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    let value: Value = serde_json::from_slice(&body).map_err(|_| no_answer())?;
    if status.is_success() { Ok(value) } else { Err(metas(&value)) }
}

fn metas(value: &Value) -> GraphError {
    let error = value.get("error");
    let of = |key: &str| error.and_then(|error| error.get(key));
    let code = of("code").and_then(Value::as_i64).unwrap_or(131_016);
    if code == 190 {
        // The number's token, not the service's: that is the operator's to mend.
        return GraphError::unavailable("WhatsApp does not take the number's access token");
    }
    let message = of("message").and_then(Value::as_str).unwrap_or("WhatsApp refused");
    let message = message.strip_prefix(&format!("(#{code}) ")).unwrap_or(message);
    let details = of("error_data").and_then(|data| data.get("details")).and_then(Value::as_str);
    let error = GraphError::new(code, message);
    match details {
        Some(details) => error.with(details),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_to_meta_alone() {
        let graph = Graph::new("https://graph.facebook.com/v23.0").unwrap();
        let is_metas = |url: &str| graph.is_metas(&Url::parse(url).unwrap());
        assert!(is_metas("https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1"));
        assert!(is_metas("https://graph.facebook.com/v23.0/x"));
        for wrong in [
            "http://lookaside.fbsbx.com/x",
            "https://fbsbx.com.evil.example/x",
            "https://evilfbsbx.com/x",
            "https://169.254.169.254/x",
            "http://127.0.0.1/x",
        ] {
            assert!(!is_metas(wrong), "{wrong}");
        }
        let here = Graph::new("http://127.0.0.1:1234/v23.0/").unwrap();
        assert!(here.is_metas(&Url::parse("http://127.0.0.1:1234/media/1").unwrap()));
        assert!(!here.is_metas(&Url::parse("http://127.0.0.1:1235/media/1").unwrap()));
        assert_eq!(here.at(&["1", "media"]).unwrap().as_str(), "http://127.0.0.1:1234/v23.0/1/media");
        assert_eq!(here.at(&["a/../b"]).unwrap().as_str(), "http://127.0.0.1:1234/v23.0/a%2F..%2Fb");
    }
}
