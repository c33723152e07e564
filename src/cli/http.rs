//! The HTTP server of `serve`, put together: health, webhooks, metrics, the admin API, the console, WebSockets,
//! the Cloud API facade.

use std::net::TcpListener;
use std::sync::Arc;

use super::Failure;
use super::serve::bind_failure;
use crate::actors::Broker;
use crate::actors::operator::Told;
use crate::admin::api::{self, CALLS_MAX, Desk, Said, Words};
use crate::admin::metrics::{self, Beside};
use crate::config::{Config, Secret, TokenHash};
use crate::console;
use crate::domain::view::Viewer;
use crate::gateway::Route;
use crate::gateway::facade::{self, Facade};
use crate::gateway::numbers::{Numbers, WebhookNumber};
use crate::gateway::webhook::{self, BODIES_BYTES_MAX, Patience, Settings, Webhook};
use crate::net::http::{self, Check, Health};
use crate::net::in_json::in_json;
use crate::net::listener::{self, CONNECTIONS_MAX, Listener};
use crate::net::tls::Identity;
use crate::net::websocket;

/// Ready while the broker acknowledges.
struct Ready(Broker);

impl Health for Ready {
    async fn checks(&self) -> Vec<Check> {
        vec![Check { name: "journal", failing: self.0.halt_reason().map(|reason| reason.to_string()) }]
    }
}

/// What the metrics show beside the broker.
struct Doors {
    tcp: Arc<Listener>,
    webhook: Arc<Webhook<Broker>>,
    desk: Arc<Desk>,
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl Beside for Doors {
    fn connections(&self) -> (u64, u64) {
        (self.tcp.connections() as u64, CONNECTIONS_MAX as u64)
    }

    fn webhook_responses(&self) -> Vec<(u16, u64)> {
        self.webhook.counters().responses().to_vec()
    }

    fn webhook_updates(&self) -> Vec<(&'static str, u64)> {
        self.webhook.counters().updates().to_vec()
    }

    fn admin_calls(&self) -> (u64, u64) {
        (self.desk.calls() as u64, CALLS_MAX as u64)
    }

    fn admin_responses(&self) -> Vec<(u16, u64)> {
        self.desk.answers()
    }

    fn webhook_bodies_bytes(&self) -> (u64, u64) {
        (self.webhook.bodies_bytes() as u64, BODIES_BYTES_MAX as u64)
    }
}

/// The admin API speaks as the protocol does.
struct Protocol;

impl Words for Protocol {
    fn say(&self, told: Told) -> Said {
        let Told { answered, viewer } = told;
        let viewer = viewer.as_ref().map(|(service, masking)| Viewer { service, masking: *masking });
        let (error, json) = in_json(answered, viewer.as_ref());
        Said { json, error: error.map(crate::wire::message::ErrorCode::as_str) }
    }
}

/// What of the server follows the configuration.
pub(super) struct Following {
    webhook: Arc<Webhook<Broker>>,
    desk: Arc<Desk>,
}

impl Following {
    pub(super) fn reload(&self, config: &Config) {
        self.webhook.reload(webhook_settings(config));
        self.desk.set_token(config.http.admin_token.as_ref().map(TokenHash::bytes));
    }
}

/// Starts it; gives what of it follows the configuration.
pub(super) fn start(
    config: &Config,
    tls: Option<&Identity>,
    broker: &Broker,
    tcp: &Arc<Listener>,
    facade: &Arc<Facade>,
) -> Result<(http::Server, Following), Failure> {
    let listener = TcpListener::bind(config.http.listen)
        .map_err(|error| bind_failure("http", config.http.listen, error))?;
    let webhook = Webhook::new(broker.clone(), webhook_settings(config), Patience::default());
    let token = config.http.admin_token.as_ref().map(TokenHash::bytes);
    let desk = Desk::new(broker.clone(), token, Protocol);
    let following = Following { webhook: Arc::clone(&webhook), desk: Arc::clone(&desk) };
    let doors = Doors { tcp: Arc::clone(tcp), webhook: Arc::clone(&webhook), desk: Arc::clone(&desk) };
    let (webhooks, scrapes) = (webhook::routes(webhook), metrics::routes(broker.clone(), Arc::new(doors)));
    let (calls, sockets) = (api::routes(desk), websocket::routes_guarded(broker.clone(), tcp.peers()));
    let (page, programs) = (console::routes(), facade::routes(Arc::clone(facade)));
    let routes = move |config: &mut actix_web::web::ServiceConfig| {
        webhooks(config);
        scrapes(config);
        calls(config);
        page(config);
        sockets(config);
        programs(config);
    };
    let limits = http::Limits {
        drain_within: config.limits.drain_timeout,
        sockets: listener::Settings { ack_timeout: config.tcp.ack_timeout },
        ..http::Limits::default()
    };
    let guard = http::Guard { tls: tls.cloned(), peers: tcp.peers() };
    let server = http::run_guarded(listener, guard, limits, Arc::new(Ready(broker.clone())), routes)
        .map_err(Failure::io)?;
    Ok((server, following))
}

fn webhook_settings(config: &Config) -> Settings {
    let secret = |secret: &Secret| secret.expose().as_bytes().to_vec();
    let numbers = config.portals.iter().flat_map(|portal| {
        portal.numbers.iter().map(|number| WebhookNumber {
            to: Route { portal: portal.rules.portal.clone(), number: number.number.clone() },
            phone_number_id: number.phone_number_id.clone(),
            waba_id: number.waba_id.clone(),
            app_secret: number.app_secret.as_ref().map(secret),
        })
    });
    let default = config.whatsapp.app_secret.as_ref().map(secret);
    Settings {
        numbers: Numbers::new(default.as_deref(), numbers),
        verify_token: config.whatsapp.verify_token.as_ref().map(|token| token.expose().to_owned()),
    }
}
