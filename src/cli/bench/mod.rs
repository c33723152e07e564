//! `bench`: load over real TCP against a broker of its own or a running one, beside a raw relay of the same bytes.
//!
//! # Layout
//! - `mod.rs`: arguments, the runs, what is reported
//! - `target`: the broker under load · `fan_out`, `pick_ups`: the two kinds of load · `relay`: this machine's limit
//!
//! Latency is free of coordinated omission where `--rate` gives a schedule: it counts from when a message was due, not
//! from when the generator came to send it. Without a rate the generator waits for the broker, and latency says how long
//! a full pipeline is.

mod fan_out;
mod pick_ups;
mod relay;
mod target;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use self::target::Target;
use super::{Failure, Outcome, block_on, out};

/// What kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Load {
    /// A gateway's messages to every subscriber.
    FanOut,
    /// Agents who pick up and let go.
    PickUps,
    /// The relay alone (as its own process, for the other two).
    #[value(hide = true)]
    Relay,
}

/// When a record counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Durability {
    Fsync,
    Os,
}

impl Durability {
    fn word(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What kind of load.
    #[arg(value_enum, default_value = "fan-out")]
    load: Load,
    /// How many messages, or pick-ups.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Bytes of a message's content.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// How many services subscribe.
    #[arg(long, default_value_t = 3)]
    subscribers: usize,
    /// How many customers write.
    #[arg(long, default_value_t = 1_000)]
    customers: u64,
    /// Each subscriber's window.
    #[arg(long, default_value_t = 4_096)]
    window: u32,
    /// Messages a second, on a schedule; else as many as are taken.
    #[arg(long)]
    rate: Option<u64>,
    /// JSON lines instead of binary.
    #[arg(long)]
    json_lines: bool,
    /// When the own broker acknowledges.
    #[arg(long, value_enum, default_value = "fsync")]
    durability: Durability,
    /// Leave the relay out.
    #[arg(long)]
    no_relay: bool,
    /// Where the own broker's journal, and the relay's file, lie; else in the system's temporary directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A running broker instead of an own one.
    #[arg(long, value_name = "ADDR", requires_all = ["portal", "number", "gateway", "tokens"])]
    tcp: Option<SocketAddr>,
    /// The running broker's portal.
    #[arg(long)]
    portal: Option<String>,
    /// Its number.
    #[arg(long)]
    number: Option<String>,
    /// Its gateway.
    #[arg(long)]
    gateway: Option<String>,
    /// Its services; named again for each.
    #[arg(long = "service")]
    services: Vec<String>,
    /// A directory with a file for each service's and the gateway's token, named as they are.
    #[arg(long, value_name = "DIR")]
    tokens: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The relay's file, for the relay's own process.
    #[arg(long, hide = true)]
    relay_file: Option<PathBuf>,
}

/// What a run measured.
#[derive(Debug)]
struct Measured {
    /// What was done so often.
    what: &'static str,
    done: u64,
    took: Duration,
    /// Processor time of the broker's process, where it is our child.
    cpu: Option<Duration>,
    latency_us: Histogram<u64>,
}

impl Measured {
    fn per_second(&self) -> f64 {
        rate(self.done, self.took)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn rate(done: u64, took: Duration) -> f64 {
    done as f64 / took.as_secs_f64().max(1e-9)
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    block_on(async {
        if arguments.load == Load::Relay {
            return relay::serve(arguments.subscribers, arguments.relay_file.as_deref())
                .await
                .map_err(Failure::io);
        }
        measure(arguments).await.map_err(Failure::failed)
    })
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let mut target = Target::prepare(arguments).await?;
    let measured = match arguments.load {
        Load::FanOut => fan_out::run(arguments, &target).await,
        Load::PickUps | Load::Relay => pick_ups::run(arguments, &target).await,
    };
    let directory = target.directory().to_owned();
    let relayed = match (&measured, arguments.load, arguments.no_relay) {
        (Ok(measured), Load::FanOut, false) => {
            // The broker is idle by now, so the two do not share the machine.
            Some(relay::run(arguments, measured.done, &directory).await?)
        }
        _ => None,
    };
    target.end().await?;
    let measured = measured?;
    report(arguments, &measured, relayed);
    Ok(())
}

fn report(arguments: &Arguments, measured: &Measured, relayed: Option<f64>) {
    let percentile = |of: f64| measured.latency_us.value_at_quantile(of);
    let cpu_per_million = measured.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / f64_of(measured.done));
    let share = relayed.map(|relayed| measured.per_second() / relayed);
    if arguments.json {
        let report = json!({
            "load": measured.what,
            "done": measured.done,
            "seconds": measured.took.as_secs_f64(),
            "per_second": measured.per_second(),
            "relay_per_second": relayed,
            "share_of_relay": share,
            "cpu_seconds_per_million": cpu_per_million,
            "durability": if arguments.tcp.is_some() { Value::Null } else { json!(arguments.durability.word()) },
            "encoding": if arguments.json_lines { "json" } else { "binary" },
            "size": arguments.size,
            "subscribers": arguments.subscribers,
            "open_loop": arguments.rate.is_some(),
            "latency_us": {
                "p50": percentile(0.5), "p90": percentile(0.9), "p99": percentile(0.99), "p999": percentile(0.999),
                "max": measured.latency_us.max(), "samples": measured.latency_us.len(),
            },
        });
        out::line(&report.to_string());
        return;
    }
    let seconds = measured.took.as_secs_f64();
    out::line(&format!(
        "{} {} in {seconds:.2} s: {:.0} a second",
        measured.done,
        measured.what,
        measured.per_second()
    ));
    if let (Some(relayed), Some(share)) = (relayed, share) {
        let share = share * 100.0;
        out::line(&format!(
            "relay of the same bytes: {relayed:.0} a second; the broker reached {share:.0} % of it"
        ));
    }
    if let Some(cpu) = cpu_per_million {
        out::line(&format!("processor time of the broker: {cpu:.2} s a million"));
    }
    let way = if arguments.rate.is_some() { "from when each was due" } else { "through a full pipeline" };
    out::line(&format!(
        "latency {way}: p50 {} µs, p90 {} µs, p99 {} µs, p99.9 {} µs, most {} µs ({} samples)",
        percentile(0.5),
        percentile(0.9),
        percentile(0.99),
        percentile(0.999),
        measured.latency_us.max(),
        measured.latency_us.len()
    ));
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn f64_of(count: u64) -> f64 {
    (count as f64).max(1.0)
}

/// A bar on a terminal, nothing elsewhere.
fn progress(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what);
    bar
}

/// From a microsecond to a minute, three digits exact.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}
