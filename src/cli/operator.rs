//! The verbs' way to a running broker's admin API.
//!
//! What the broker refuses is exit code 1, also where the token is wrong or the API is off; a broker that can not be
//! reached is 74. With `--json` the answer is printed as it is, a refusal too.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use serde_json::Value;

use super::peer::Peer;
use super::{Configured, Failure, Outcome, block_on, out};
use crate::admin::api::PREFIX;
use crate::config::{Config, Secret};

/// How long a call may take, in all: more than the broker gives itself.
const CALL_WITHIN: Duration = Duration::from_secs(30);

/// What every verb over the admin API takes.
#[derive(Debug, Args)]
pub(super) struct Asking {
    #[command(flatten)]
    configured: Configured,
    #[command(flatten)]
    peer: Peer,
    /// Print the broker's answer as one JSON object.
    #[arg(long)]
    json: bool,
}

impl Asking {
    /// Asks, and prints the answer: as it is, or as `show` says it.
    pub(super) fn get(&self, path: &str, show: impl FnOnce(&Value)) -> Outcome {
        self.ask(Method::GET, path, None, show)
    }

    /// Tells, and prints the answer likewise.
    pub(super) fn post(&self, path: &str, body: &Value, show: impl FnOnce(&Value)) -> Outcome {
        self.ask(Method::POST, path, Some(body), show)
    }

    /// What asks, and where: over TLS where that is asked for.
    fn client(&self, config: &Config) -> Result<(Client, String), Failure> {
        let address = self.peer.http_address(config);
        // The broker is asked, and no proxy; and a broker sends nobody elsewhere with his token.
        let client = Client::builder().no_proxy().redirect(Policy::none()).timeout(CALL_WITHIN);
        let (client, base) = match (self.peer.tls()?, self.peer.tls_name()) {
            (None, _) => (client, format!("http://{address}")),
            (Some(tls), None) => {
                (client.tls_backend_preconfigured(tls.config().clone()), format!("https://{address}"))
            }
            (Some(tls), Some(name)) => {
                let client = client.tls_backend_preconfigured(tls.config().clone()).resolve(name, address);
                (client, format!("https://{name}:{}", address.port()))
            }
        };
        Ok((client.build().map_err(Failure::io)?, base))
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>, show: impl FnOnce(&Value)) -> Outcome {
        let config = self.configured.load()?;
        let token = self.peer.token()?;
        let (client, base) = self.client(&config)?;
        let answer = block_on(call(&client, method, &format!("{base}{PREFIX}{path}"), body, &token))?;
        if self.json {
            out::line(&answer.to_string());
        }
        if answer.get("type").and_then(Value::as_str) == Some("error") {
            let of = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
            return Err(Failure::failed(anyhow!("{}: {}", of("code"), of("message"))));
        }
        if !self.json {
            show(&answer);
        }
        Ok(())
    }
}

async fn call(
    client: &Client,
    method: Method,
    url: &str,
    body: Option<&Value>,
    token: &Secret,
) -> Result<Value, Failure> {
    let mut request = client.request(method, url).header(AUTHORIZATION, format!("Bearer {}", token.expose()));
    if let Some(body) = body {
        request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
    }
    let answer = request.send().await.map_err(Failure::io)?;
    let (status, text) = (answer.status(), answer.bytes().await.map_err(Failure::io)?);
    serde_json::from_slice(&text)
        .map_err(|_| Failure::failed(anyhow!("{url} is no broker's admin API: it answers {status}")))
}

/// A path, with those parameters that are given. The values are ids and numbers, which need no escaping.
pub(super) fn with_query(path: String, parameters: &[(&str, Option<String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    let given: Vec<String> = given.collect();
    if given.is_empty() { path } else { format!("{path}?{}", given.join("&")) }
}
