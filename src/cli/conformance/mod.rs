//! `conformance`: plays the broker to an adapter that somebody has written, and says what the adapter gets wrong.
//!
//! ```text
//! adapter ═TCP═▶ stand_in (greets, delivers, answers) ─▶ ledger (what was sent, asked, acknowledged; what is wrong)
//!                   ▲ checks: one thing each, with customers of its own
//! ```
//!
//! What an adapter does for its agents nobody can see from here. So it is run in the simplest of its ways: it answers
//! every customer's message with one reply of its own, confirms what it is warned of, and acknowledges.
//!
//! # Layout
//! - `stand_in`: the broker's end of the connection · `greeting`: its beginning · `manners`: how it answers
//! - `bridge`: the same for an adapter over WebSocket
//! - `ledger`: what was seen, and what of it is wrong whatever is being checked
//! - `network`: checks of a gateway
//! - `checks`, `checks_of_ends`: the checks of an adapter · `deliveries`: what the customers and the others do

mod bridge;
mod checks;
mod checks_of_ends;
mod deliveries;
mod greeting;
mod ledger;
mod manners;
mod network;
mod stand_in;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::process::{Child, Command};

use self::checks::CHECKS;
use self::stand_in::StandIn;
use super::ending::unless_ended;
use super::{EXIT_FAILED, EXIT_USAGE, Failure, Outcome, block_on, out};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where the adapter connects to, as if the broker were there.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7411")]
    listen: SocketAddr,
    /// The adapter speaks WebSocket, at /v1/ws of that address.
    #[arg(long)]
    ws: bool,
    /// It is a gateway; run it so that whatever it is to send comes back as that customer's message.
    #[arg(long)]
    gateway: bool,
    /// How many seconds the adapter may take for each thing.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    patience: u64,
    /// Only these checks.
    #[arg(long, value_name = "CHECK")]
    only: Vec<String>,
    /// Say which checks there are.
    #[arg(long)]
    list: bool,
    /// Print one JSON object a check.
    #[arg(long)]
    json: bool,
    /// The adapter's command, to be run and ended here, with {} for the address; without one it is waited for.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What came out of a check.
#[derive(Debug)]
enum Verdict {
    Passed,
    Wrong(Vec<String>),
    NotJudged(String),
}

impl Arguments {
    fn checks(&self) -> &'static [(&'static str, &'static str)] {
        if self.gateway { network::CHECKS } else { CHECKS }
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    if arguments.list {
        arguments.checks().iter().for_each(|(name, what)| out::line(&format!("{name:<16} {what}")));
        return Ok(());
    }
    let is_known = |name: &String| arguments.checks().iter().any(|(known, _)| known == name);
    if let Some(unknown) = arguments.only.iter().find(|name| !is_known(name)) {
        return Err(Failure::new(EXIT_USAGE, anyhow::anyhow!("there is no check {unknown}; see --list")));
    }
    block_on(unless_ended(judge(arguments)))
}

async fn judge(arguments: &Arguments) -> Outcome {
    let patience = Duration::from_secs(arguments.patience.max(1));
    let within = SocketAddr::from(([127, 0, 0, 1], 0));
    let listen = if arguments.ws { within } else { arguments.listen };
    let mut stand_in = StandIn::listen(listen, patience).await.map_err(Failure::io)?;
    let address = match (arguments.ws, stand_in.address().parse()) {
        (true, Ok(behind)) => bridge::start(arguments.listen, behind).await.map_err(Failure::io)?.to_string(),
        _ => stand_in.address(),
    };
    stand_in.network = arguments.gateway.then(network::Network::default);
    let does = if arguments.gateway {
        "brings back whatever it is told to send, as that customer's message"
    } else {
        "answers every customer's message with one reply, confirms what it is warned of, and acknowledges"
    };
    out::note(&format!(
        "its broker is at {address}: any portal, name, token and number will do. Run it so that it {does}."
    ));
    let _adapter = start(&arguments.command, &address)?;
    let (mut passed, mut wrong, mut open) = (0, 0, 0);
    for (name, what) in arguments.checks() {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == name) {
            continue;
        }
        let verdict = stand_in.check(name).await;
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::Wrong(_) => wrong += 1,
            Verdict::NotJudged(_) => open += 1,
        }
        report(name, what, &verdict, arguments.json);
        // Who answers nothing can not be judged any further.
        if matches!((*name, &verdict), ("answers" | "sends", Verdict::Wrong(_))) {
            break;
        }
    }
    let summary = format!("{passed} passed, {wrong} wrong, {open} not judged");
    if wrong > 0 {
        return Err(Failure::new(EXIT_FAILED, anyhow::anyhow!(summary)));
    }
    out::note(&summary);
    Ok(())
}

fn start(command: &[String], address: &str) -> Result<Option<Child>, Failure> {
    let command: Vec<String> = command.iter().map(|word| word.replace("{}", address)).collect();
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let mut command = Command::new(program);
    // What it prints stands beside the report, not in it.
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let started = command.spawn().map_err(anyhow::Error::new);
    started.map(Some).map_err(|error| Failure::io(error.context(format!("starting {program}"))))
}

fn report(name: &str, what: &str, verdict: &Verdict, is_json: bool) {
    let (word, why): (&str, &[String]) = match verdict {
        Verdict::Passed => ("ok", &[]),
        Verdict::Wrong(why) => ("WRONG", why),
        Verdict::NotJudged(why) => ("NOT JUDGED", std::slice::from_ref(why)),
    };
    if is_json {
        let verdict = word.to_lowercase().replace(' ', "_");
        out::line(&json!({"check": name, "what": what, "verdict": verdict, "why": why}).to_string());
        return;
    }
    out::line(&format!("{word:<10} {name}: {what}"));
    why.iter().for_each(|why| out::line(&format!("           - {why}")));
}
