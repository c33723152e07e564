//! `serve`: the broker as a process. Wires journal, actors, TCP and HTTP together, and ends them in order.
//!
//! ```text
//! SIGTERM ─▶ accept nobody ─▶ goaway ─▶ finish what was accepted ─▶ sync, close ─▶ exit 0
//! a second SIGTERM ─▶ exit now (nothing acknowledged is lost)      the journal fails ─▶ exit 74
//! ```

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Configured, EXIT_CONFIG, EXIT_IO, Failure, Outcome, block_on, http, out};
use crate::actors::broker::{PortalError, StartError};
use crate::actors::{Broker, OpenBrokerError};
use crate::config::{Config, Way};
use crate::gateway::graph::Graph;
use crate::gateway::outbound::Outbound;
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
    let settings = listener::Settings { ack_timeout: config.tcp.ack_timeout };
    let tcp = Listener::start(config.tcp.listen, &broker, settings)
        .map_err(|error| bind_failure("tcp", config.tcp.listen, error))?;
    let tcp = Arc::new(tcp);
    let (mut http, http_address) = http::start(config, &broker, &tcp)?;
    let outbound = start_outbound(config, &broker)?;
    out::line(&format!(
        "sharedline {} serves: tcp {}, http {http_address}, data {}",
        env!("CARGO_PKG_VERSION"),
        tcp.address(),
        config.data_dir.display()
    ));
    for (number, why) in config.cannot_send() {
        tracing::warn!(%number, why, "a number can not send");
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
        // HTTP waits for its WebSockets to end. Webhooks that were accepted need the broker to be answered, and so do replies
        // that were posted.
        broker.end_sessions(limit).await;
        let _ = tokio::join!(tokio::time::timeout(limit, http.drain()), outbound.stop(limit));
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

/// The way out of the numbers that this process sends for itself.
fn start_outbound(config: &Config, broker: &Broker) -> Result<Outbound, Failure> {
    let graph = Graph::new(&config.whatsapp.graph_url).map_err(|error| Failure::new(EXIT_CONFIG, error))?;
    let mut numbers = Vec::new();
    for number in config.portals.iter().flat_map(|portal| &portal.numbers) {
        let token = number.access_token.as_ref().or(config.whatsapp.access_token.as_ref());
        if let (Way::Builtin, Some(id), Some(token)) = (&number.way, &number.phone_number_id, token) {
            let account =
                graph.account(id, token.expose()).map_err(|error| Failure::new(EXIT_CONFIG, error))?;
            numbers.extend(broker.sender(&number.number).map(|sender| (sender, account)));
            if number.app_secret.is_none() && config.whatsapp.app_secret.is_none() {
                tracing::warn!(number = %number.number, "without an app_secret no status of its messages is believed");
            }
        }
    }
    Ok(Outbound::start(&graph, numbers))
}

pub(super) fn bind_failure(what: &str, address: SocketAddr, error: std::io::Error) -> Failure {
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
