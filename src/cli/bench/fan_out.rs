//! `bench fan-out`: the broker and the relays in turn, round after round, and what share of a relay the broker reached.
//!
//! A round runs the broker in each encoding, then the relays; so a machine that grows slower in between does so for all.
//! With `--rate` latency counts from when a message was due, not from when the producer came to send it. Without, the
//! producer waits for the broker, and latency says how long a full pipeline is.

use clap::Args;
use serde_json::{Value, json};

use super::load::Load;
use super::measured::{Measured, sum};
use super::options::{Against, Encodings, encoding_word};
use super::producer::Plan;
use super::relay_load::{self, Relayed};
use super::report::{f64_of, grouped, ratio, with};
use super::schedule::Schedule;
use super::target::{Needs, Target};
use crate::cli::out;
use crate::wire::frame::Encoding;

/// Messages of a round unless the command line says, as many as are taken.
const MESSAGES: u64 = 200_000;
/// How long a round is unless the command line says, on a schedule, in seconds.
const PACED_ROUND_S: u64 = 3;
/// A warm-up before all rounds, which is not counted: one in so many messages of a round.
const WARM_UP_PART: u64 = 5;
/// How many times the broker's messages the relays get at full speed: they would be through in no time.
const BARE_TIMES: u64 = 10;
const SYNCING_TIMES: u64 = 4;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How many messages in a round: 200,000, or 3 seconds of a schedule.
    #[arg(long)]
    messages: Option<u64>,
    /// How often the broker and the relays run in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
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
    /// How messages are written.
    #[arg(long, value_enum, default_value = "binary")]
    encoding: Encodings,
    /// Leave the relays out.
    #[arg(long)]
    no_relay: bool,
    #[command(flatten)]
    against: Against,
}

/// What all rounds measured, each kind put together.
struct Found {
    runs: Vec<(Encoding, Measured)>,
    bare: Option<Measured>,
    syncing: Option<Measured>,
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let services = arguments.subscribers.max(1);
    let needs = Needs { numbers: 1, services, window: arguments.window };
    let target = Target::prepare(&arguments.against, needs).await?;
    let found = rounds(arguments, &target).await;
    let ended = target.end().await;
    let found = found?;
    ended?;
    if arguments.against.json {
        out::line(&found.json(arguments).to_string());
    } else {
        found.print(arguments);
    }
    Ok(())
}

/// Messages of a round.
fn messages_asked(arguments: &Arguments) -> u64 {
    let paced = arguments.rate.map(|rate| rate * PACED_ROUND_S);
    arguments.messages.or(paced).unwrap_or(MESSAGES).max(1)
}

async fn rounds(arguments: &Arguments, target: &Target) -> anyhow::Result<Found> {
    let messages = messages_asked(arguments);
    let schedule = Schedule::of(arguments.rate);
    let mut plan = Plan::new(messages, arguments.customers, &target.numbers, arguments.size)?;
    let relayed = |times| Relayed {
        messages: if schedule.is_paced() { messages } else { messages * times },
        size: arguments.size,
        subscribers: target.services.len(),
        schedule,
    };
    let encodings = arguments.encoding.each();
    let mut of_broker = vec![Vec::new(); encodings.len()];
    let (mut bare, mut syncing) = (Vec::new(), Vec::new());
    for round in 0..arguments.rounds.max(1) {
        for (encoding, measured) in encodings.iter().zip(&mut of_broker) {
            let mut load = Load::open(target, *encoding).await?;
            if round == 0 {
                let warm_up = Plan { messages: (messages / WARM_UP_PART).max(1), ..plan.clone() };
                load.run(target, warm_up).await?;
            }
            plan.schedule = schedule;
            measured.push(load.run(target, plan.clone()).await?);
            plan.schedule = Schedule::of(None);
        }
        if arguments.no_relay {
            continue;
        }
        // The broker is idle meanwhile, so they do not share the machine.
        if !schedule.is_paced() {
            bare.push(relay_load::run(relayed(BARE_TIMES), None).await?);
        }
        syncing.push(relay_load::run(relayed(SYNCING_TIMES), Some(target.directory())).await?);
    }
    let runs = encodings.iter().zip(&of_broker).filter_map(|(encoding, runs)| Some((*encoding, sum(runs)?)));
    Ok(Found { runs: runs.collect(), bare: sum(&bare), syncing: sum(&syncing) })
}

/// How large a latency is beside another.
fn beside(latency: &Measured, other: &Measured, share: f64) -> f64 {
    let of = |measured: &Measured| f64_of(measured.latency.at(share));
    ratio(of(latency), of(other))
}

impl Found {
    /// JSON beside binary, where both ran.
    fn json_beside_binary(&self) -> Option<(&Measured, &Measured)> {
        let of = |wanted| self.runs.iter().find(|(encoding, _)| *encoding == wanted).map(|(_, run)| run);
        of(Encoding::JsonLines).zip(of(Encoding::Binary))
    }

    fn json(&self, arguments: &Arguments) -> Value {
        let share = |run: &Measured, relay: &Option<Measured>| {
            let relay = relay.as_ref()?;
            Some(ratio(run.published_per_second(), relay.published_per_second()))
        };
        let paced = self.syncing.as_ref().filter(|_| arguments.rate.is_some());
        let of_run = |(encoding, run): &(Encoding, Measured)| {
            let beside_relays = json!({
                "encoding": encoding_word(*encoding),
                "published_share_of_bare_relay": share(run, &self.bare),
                "published_share_of_syncing_relay": share(run, &self.syncing),
                "p50_over_syncing_relay": paced.map(|relay| beside(run, relay, 0.5)),
                "p99_over_syncing_relay": paced.map(|relay| beside(run, relay, 0.99)),
            });
            with(run.json(), beside_relays)
        };
        let json_over_binary = self.json_beside_binary().map(|(json, binary)| {
            let cpu = json.cpu_s_per_million().zip(binary.cpu_s_per_million());
            json!({
                "published_per_second": ratio(json.published_per_second(), binary.published_per_second()),
                "cpu_seconds": cpu.map(|(json, binary)| ratio(json, binary)),
                "p50": beside(json, binary, 0.5),
                "p99": beside(json, binary, 0.99),
            })
        });
        let Arguments { size, subscribers, customers, window, rate, rounds, against, .. } = arguments;
        json!({
            "bench": "fan-out",
            "durability": against.own_durability(),
            "size": size, "subscribers": subscribers, "customers": customers, "window": window, "rate": rate,
            "rounds": rounds, "messages_asked": messages_asked(arguments),
            "runs": self.runs.iter().map(of_run).collect::<Vec<_>>(),
            "bare_relay": self.bare.as_ref().map(Measured::json),
            "syncing_relay": self.syncing.as_ref().map(Measured::json),
            "json_over_binary": json_over_binary,
        })
    }

    fn print(&self, arguments: &Arguments) {
        let way = if arguments.rate.is_some() { "from when each was due" } else { "through a full pipeline" };
        for (encoding, run) in &self.runs {
            let word = encoding_word(*encoding);
            print_rates(&format!("broker, {word}"), run);
            if let Some(usage) = &run.usage {
                out::line(&format!("  a million deliveries: {}", usage.per_million(run.done).text()));
            }
            out::line(&format!("  latency {way}: {}", run.latency.text()));
            for (name, relay) in [("bare", &self.bare), ("syncing", &self.syncing)] {
                let Some(relay) = relay else { continue };
                let share = 100.0 * ratio(run.published_per_second(), relay.published_per_second());
                out::line(&format!("  published: {share:.1} % of the {name} relay's messages a second"));
            }
            if let Some(relay) = self.syncing.as_ref().filter(|_| arguments.rate.is_some()) {
                let (p50, p99) = (beside(run, relay, 0.5), beside(run, relay, 0.99));
                out::line(&format!("  latency: p50 {p50:.2} times, p99 {p99:.2} times the syncing relay's"));
            }
        }
        for (name, relay) in [("bare relay", &self.bare), ("syncing relay", &self.syncing)] {
            let Some(relay) = relay else { continue };
            print_rates(name, relay);
            out::line(&format!("  latency {way}: {}", relay.latency.text()));
        }
        if let Some((json, binary)) = self.json_beside_binary() {
            let published = ratio(json.published_per_second(), binary.published_per_second());
            let (p50, p99) = (beside(json, binary, 0.5), beside(json, binary, 0.99));
            out::line(&format!(
                "JSON beside binary: {published:.2} times the messages a second, p50 {p50:.2} times, p99 {p99:.2} times"
            ));
        }
    }
}

fn print_rates(name: &str, run: &Measured) {
    out::line(&format!(
        "{name}: {} messages a second published, {} deliveries a second ({} deliveries in {:.2} s)",
        grouped(run.published_per_second()),
        grouped(run.per_second()),
        grouped(f64_of(run.done)),
        run.took.as_secs_f64()
    ));
}
