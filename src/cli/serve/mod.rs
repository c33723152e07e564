//! `serve`: the broker as a process. Wires journal, actors, TCP and HTTP together, and ends them in order.
//!
//! ```text
//! SIGTERM ─▶ accept nobody ─▶ goaway ─▶ finish what was accepted ─▶ sync, close ─▶ exit 0
//! a second SIGTERM ─▶ exit now (nothing acknowledged is lost)      the journal fails ─▶ exit 74
//! SIGHUP ─▶ the configuration is read anew (`reloading`)
//! ```

mod reloading;
mod signals;
mod systemd;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use self::reloading::Reloading;
use self::signals::{Signals, Wanted};
use self::systemd::Manager;
use super::lifeline::Lifeline;
use super::{Configured, EXIT_CONFIG, EXIT_IO, Failure, Outcome, block_on, http, out};
use crate::actors::broker::{PortalError, StartError};
use crate::actors::{Broker, OpenBrokerError};
use crate::config::{Config, Tls, Way};
use crate::domain::ids::Number;
use crate::gateway::facade::{self, CallbackPatience, Callbacks, Facade};
use crate::gateway::graph::{Graph, GraphError, Token};
use crate::gateway::outbound::{Means, Outbound};
use crate::net::listener::{self, Guard, Listener};
use crate::net::peers::PeerLimits;
use crate::net::tls::Identity;

/// When adapters are asked to come again after a stop: a restart takes about that long.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How the log is filtered unless `RUST_LOG` says otherwise.
const LOG_DEFAULT: &str = "info,actix_server=warn";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// How the log is written to standard error; RUST_LOG filters it.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
    /// End as after SIGTERM when standard input ends: for a parent that holds it, and may be killed.
    #[arg(long, hide = true)]
    ends_with_stdin: bool,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line, for machines.
    Json,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = arguments.configured.load()?;
    start_log(arguments.log_format);
    let lifeline = if arguments.ends_with_stdin {
        Lifeline::of_stdin().map_err(Failure::io)?
    } else {
        Lifeline::unbound()
    };
    block_on(serve(&arguments.configured, &config, lifeline))
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    // One was started before only if a program runs the command line twice.
    let colour = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match format {
        LogFormat::Text => log.with_ansi(colour).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}

async fn serve(configured: &Configured, config: &Config, lifeline: Lifeline) -> Outcome {
    // First, so that a signal that comes while the journal is read is not missed.
    let mut signals = Signals::new(lifeline)?;
    let manager = Manager::of_process();
    let broker = Broker::start(config).map_err(open_failure)?;
    let tls = Identities::of(config)?;
    let facade = Facade::new(&broker, config, facade::Patience::default()).map_err(Failure::io)?;
    // Before a gateway can connect.
    facade.take_back_interrupted().await;
    let settings = listener::Settings { ack_timeout: config.tcp.ack_timeout };
    let guard = Guard { tls: tls.tcp.clone(), peers: peer_limits(config) };
    let tcp = Listener::start_guarded(config.tcp.listen, &broker, settings, guard)
        .map_err(|error| bind_failure("tcp", config.tcp.listen, error))?;
    let tcp = Arc::new(tcp);
    let (mut http, open) = http::start(config, tls.http.as_ref(), &broker, &tcp, &facade)?;
    let callbacks = Callbacks::start(&facade, config, CallbackPatience::default()).map_err(Failure::io)?;
    let mut outbound = Outbound::default();
    outbound.set(means_of(config).map_err(config_failure)?, |number| broker.sender(number));
    let http_address = http.address();
    out::line(&format!(
        "sharedline {} serves: tcp {}, http {http_address}, data {}",
        env!("CARGO_PKG_VERSION"),
        tcp.address(),
        config.data_dir.display()
    ));
    for (number, why) in config.cannot_send() {
        tracing::warn!(%number, why, "a number can not send");
    }
    let mut reloading = Reloading {
        configured,
        at_start: config,
        broker: &broker,
        tls: &tls,
        tcp: &tcp,
        http: &open,
        facade: &facade,
        callbacks,
        outbound,
    };
    manager.ready();
    let alive = tokio::spawn(manager.clone().keep_alive(broker.clone()));
    let asked = loop {
        tokio::select! {
            wanted = signals.next() => match wanted {
                Wanted::Stop => break true,
                Wanted::Reload => {
                    manager.reloading();
                    reloading.reload().await;
                    manager.ready();
                }
            },
            _ = broker.halted() => break false,
            ended = http.ended() => {
                tracing::error!(?ended, "the HTTP server has ended");
                break false;
            }
        }
    };
    tcp.close();
    if !asked {
        let reason =
            broker.halt_reason().map_or_else(|| "the HTTP server has ended".to_owned(), |r| r.to_string());
        // What the sessions still hold is of no use: nothing more is acknowledged.
        return Err(Failure::new(EXIT_IO, anyhow::anyhow!(reason)));
    }
    let Reloading { mut callbacks, outbound, .. } = reloading;
    manager.stopping();
    tracing::info!(limit = ?config.limits.drain_timeout, "stopping");
    broker.say_goaway(RETRY_AFTER);
    let stopped = async {
        let limit = config.limits.drain_timeout;
        // HTTP waits for its WebSockets to end. Webhooks that were accepted need the broker to be answered, and so do replies
        // that were posted.
        broker.end_sessions(limit).await;
        let callbacks = tokio::task::spawn_blocking(move || callbacks.stop());
        let _ = tokio::time::timeout(limit, callbacks).await;
        let _ = tokio::join!(tokio::time::timeout(limit, http.drain()), outbound.stop(limit));
        alive.abort();
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

/// What the listeners prove themselves with.
struct Identities {
    tcp: Option<Identity>,
    http: Option<Identity>,
}

impl Identities {
    fn of(config: &Config) -> Result<Self, Failure> {
        let of = |tls: &Option<Tls>| {
            tls.as_ref().map(Identity::new).transpose().map_err(|error| Failure::new(EXIT_CONFIG, error))
        };
        Ok(Self { tcp: of(&config.tcp.tls)?, http: of(&config.http.tls)? })
    }
}

fn peer_limits(config: &Config) -> PeerLimits {
    PeerLimits {
        connections_per_second: config.limits.peer_connections_per_second,
        failed_hellos_per_minute: config.limits.peer_failed_hellos_per_minute,
        http_connections: config.limits.peer_http_connections,
        trusted: config.limits.trusted_peers.as_slice().into(),
    }
}

/// With what the numbers are sent that this process sends for itself.
fn means_of(config: &Config) -> Result<Vec<(Number, Means)>, GraphError> {
    let graph = Graph::new(&config.whatsapp.graph_url)?;
    let mut numbers = Vec::new();
    for number in config.portals.iter().flat_map(|portal| &portal.numbers) {
        let token = number.access_token.as_ref().or(config.whatsapp.access_token.as_ref());
        if let (Way::Builtin, Some(id), Some(token)) = (&number.way, &number.phone_number_id, token) {
            let account = graph.account(id, Token::new(token)?);
            numbers.push((number.number.clone(), Means { graph: graph.clone(), account }));
            if number.app_secret.is_none() && config.whatsapp.app_secret.is_none() {
                tracing::warn!(number = %number.number, "without an app_secret no status of its messages is believed");
            }
        }
    }
    Ok(numbers)
}

fn config_failure(error: GraphError) -> Failure {
    Failure::new(EXIT_CONFIG, error)
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
