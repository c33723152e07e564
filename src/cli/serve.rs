//! `serve`: the broker as a process. Wires journal, actors, TCP and HTTP together, and ends them in order.
//!
//! ```text
//! SIGTERM ─▶ accept nobody ─▶ goaway ─▶ finish what was accepted ─▶ sync, close ─▶ exit 0
//! a second SIGTERM ─▶ exit now (nothing acknowledged is lost)      the journal fails ─▶ exit 74
//! ```

use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Configured, EXIT_CONFIG, EXIT_IO, Failure, Outcome, block_on, out};
use crate::actors::broker::{PortalError, StartError};
use crate::actors::{Broker, OpenBrokerError};
use crate::config::Config;
use crate::gateway::Route;
use crate::gateway::facade::{self, CallbackPatience, Callbacks, Facade};
use crate::gateway::numbers::{Numbers, WebhookNumber};
use crate::gateway::webhook::{Patience, Settings, Webhook, routes};
use crate::net::http::{self, Check, Health};
use crate::net::listener::{self, Listener};

/// When adapters are asked to come again after a stop: a restart takes about that long.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How the log is filtered unless `RUST_LOG` says otherwise.
const LOG_DEFAULT: &str = "info,actix_server=warn";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
}

/// Ready while the broker acknowledges.
struct Ready(Broker);

impl Health for Ready {
    async fn checks(&self) -> Vec<Check> {
        vec![Check { name: "journal", failing: self.0.halt_reason().map(|reason| reason.to_string()) }]
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = arguments.configured.load()?;
    start_log();
    block_on(serve(&config))
}

fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    // One was started before only if a program runs the command line twice.
    let colour = std::io::stderr().is_terminal();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(std::io::stderr)
        .try_init();
}

async fn serve(config: &Config) -> Outcome {
    // First, so that a signal that comes while the journal is read is not missed.
    let mut signals = Signals::new()?;
    let broker = Broker::open(config).map_err(open_failure)?;
    let facade = Facade::new(&broker, config, facade::Patience::default()).map_err(Failure::io)?;
    // Before a gateway can connect.
    facade.take_back_interrupted().await;
    let settings = listener::Settings { ack_timeout: config.tcp.ack_timeout };
    let tcp = Listener::start(config.tcp.listen, &broker, settings)
        .map_err(|error| bind_failure("tcp", config.tcp.listen, error))?;
    let (mut http, http_address) = start_http(config, &broker, &facade)?;
    let mut callbacks =
        Callbacks::start(&facade, config, CallbackPatience::default()).map_err(Failure::io)?;
    out::line(&format!(
        "sharedline {} serves: tcp {}, http {http_address}, data {}",
        env!("CARGO_PKG_VERSION"),
        tcp.address(),
        config.data_dir.display()
    ));
    for (number, why) in config.cannot_send() {
        tracing::warn!(%number, why, "a number can not send yet");
    }
    let asked = tokio::select! {
        () = signals.stop() => true,
        _ = broker.halted() => false,
        ended = http.ended() => {
            tracing::error!(?ended, "the HTTP server has ended");
            false
        }
    };
    tcp.close();
    if !asked {
        let reason =
            broker.halt_reason().map_or_else(|| "the HTTP server has ended".to_owned(), |r| r.to_string());
        // What the sessions still hold is of no use: nothing more is acknowledged.
        return Err(Failure::new(EXIT_IO, anyhow::anyhow!(reason)));
    }
    tracing::info!(limit = ?config.limits.drain_timeout, "stopping");
    broker.say_goaway(RETRY_AFTER);
    let stopped = async {
        let limit = config.limits.drain_timeout;
        // Webhooks that were accepted need the broker to be answered.
        let _ = tokio::time::timeout(limit, http.drain()).await;
        let callbacks = tokio::task::spawn_blocking(move || callbacks.stop());
        let _ = tokio::time::timeout(limit, callbacks).await;
        broker.stop(limit).await
    };
    tokio::select! {
        stopped = stopped => stopped.map_err(Failure::io),
        () = signals.stop() => {
            tracing::warn!("ended at once, as asked");
            std::process::exit(i32::from(super::EXIT_FAILED));
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(Failure::io);
        Ok(Self {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
            hang_up: of(SignalKind::hangup())?,
        })
    }

    /// Resolves when somebody wants the process to end.
    async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    tracing::warn!("a reload is not possible yet: the configuration stays as it is");
                }
            }
        }
    }
}

fn start_http(
    config: &Config,
    broker: &Broker,
    facade: &Arc<Facade>,
) -> Result<(http::Server, SocketAddr), Failure> {
    let listener = TcpListener::bind(config.http.listen)
        .map_err(|error| bind_failure("http", config.http.listen, error))?;
    let secret = |secret: &crate::config::Secret| secret.expose().as_bytes().to_vec();
    let numbers = config.portals.iter().flat_map(|portal| {
        portal.numbers.iter().map(|number| WebhookNumber {
            to: Route { portal: portal.rules.portal.clone(), number: number.number.clone() },
            phone_number_id: number.phone_number_id.clone(),
            app_secret: number.app_secret.as_ref().map(secret),
        })
    });
    let default = config.whatsapp.app_secret.as_ref().map(secret);
    let settings = Settings {
        numbers: Numbers::new(default.as_deref(), numbers),
        verify_token: config.whatsapp.verify_token.as_ref().map(|token| token.expose().to_owned()),
    };
    let webhook = Webhook::new(broker.clone(), settings, Patience::default());
    let facade = facade::routes(Arc::clone(facade));
    let webhook = routes(webhook);
    let all = move |application: &mut actix_web::web::ServiceConfig| {
        webhook(application);
        facade(application);
    };
    let limits = http::Limits { drain_within: config.limits.drain_timeout, ..http::Limits::default() };
    let server = http::run(listener, limits, Arc::new(Ready(broker.clone())), all).map_err(Failure::io)?;
    let address = server.address();
    Ok((server, address))
}

fn bind_failure(what: &str, address: SocketAddr, error: std::io::Error) -> Failure {
    Failure::io(anyhow::Error::new(error).context(format!("{what} can not listen on {address}")))
}

fn open_failure(error: OpenBrokerError) -> Failure {
    let code = match &error {
        OpenBrokerError::Start(StartError::NumberTwice(_) | StartError::Portal(PortalError::Breaks(_))) => {
            EXIT_CONFIG
        }
        _ => EXIT_IO,
    };
    Failure::new(code, error)
}
