//! `bench`: load over real TCP against a broker of its own or a running one, beside relays of the same bytes.
//!
//! # Layout
//! - loads: `fan_out` (beside the relays) · `growth` (along an axis) · `catch_up` · `replies` · `pick_ups` · `storm`,
//!   `live_flow` · `memory` · `restart`, `journal_bytes`
//! - what they are made of: `load`, `producer`, `subscriber`, `schedule` · `relay`, `relay_load`: this machine's limit
//! - `compare`, `figures`: two reports, and what of them differs
//! - the broker under load: `target`, `configuration` · `usage`: what its process uses
//! - what comes and goes: `options` · `measured`, `report`
//!
//! Every load is a real one: sockets, frames, acknowledgements. The generator shares the machine with the broker, so it
//! looks into few frames; the processor time a million deliveries is the broker's alone.

mod catch_up;
mod compare;
mod configuration;
mod fan_out;
mod figures;
mod growth;
mod journal_bytes;
mod live_flow;
mod load;
mod measured;
mod memory;
mod options;
mod pick_ups;
mod producer;
mod relay;
mod relay_load;
mod replies;
mod report;
mod restart;
mod schedule;
mod storm;
mod subscriber;
mod target;
mod usage;

use clap::{Args, Subcommand};

use super::ending::unless_ended;
use super::{Failure, Outcome, block_on};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[group(skip)]
pub(super) struct Arguments {
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    fan_out: fan_out::Arguments,
}

/// What kind of load; `fan-out` where none is named.
#[derive(Debug, Subcommand)]
enum Kind {
    /// A gateway's messages to every subscriber, beside relays of the same bytes.
    FanOut(fan_out::Arguments),
    /// The fan-out along an axis, and how what a delivery costs grows with it.
    Growth(growth::Arguments),
    /// A subscriber that was away catches up while others go on live, and what that does to them.
    ///
    /// All but the last service go on live, by a schedule, alone at first; then the last one comes back to what it has
    /// missed. Measured are its deliveries a second, what all deliveries cost, and the others' latency from when each
    /// message was due, beside what it was alone.
    CatchUp(catch_up::Arguments),
    /// Agents' replies, from the agent over the gateway to the receipt.
    ///
    /// The bench plays the agents of some services and the number's gateway, which answers each `send` at once. Measured
    /// are replies a second with their receipt back, what a reply costs, and the latency from a reply to `accepted`, to the
    /// gateway's `send`, and to the receipt.
    Replies(replies::Arguments),
    /// Adapters that all connect at once, are all cut off and all come back at once.
    ///
    /// Each has one message waiting. Measured from when the storm broke: connects a second, the latency until `welcome` and
    /// until that message, memory; and the latency of a live flow beside it, during the storms and alone.
    Storm(storm::Arguments),
    /// Memory of an idle connection and of an idle conversation.
    Memory(memory::Arguments),
    /// Time from a start after SIGKILL until the broker is ready, on a full journal.
    Restart(restart::Arguments),
    /// Agents who pick up and let go.
    PickUps(pick_ups::Arguments),
    /// Two files of reports, and whether the second is worse.
    ///
    /// A file holds what a bench printed with --json, once or several times; of several runs the median counts. Exits 0
    /// where nothing is worse, 1 where a figure is worse by more than the tolerance and by more than runs of the same differ
    /// by, 64 where the files were measured in different ways or are no reports, 74 where one can not be read.
    Compare(compare::Arguments),
    /// The relay alone, as its own process.
    #[command(hide = true)]
    Relay(relay::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    block_on(unless_ended(async {
        match &arguments.kind {
            None => fan_out::run(&arguments.fan_out).await,
            Some(Kind::FanOut(arguments)) => fan_out::run(arguments).await,
            Some(Kind::Growth(arguments)) => growth::run(arguments).await,
            Some(Kind::Memory(arguments)) => memory::run(arguments).await,
            Some(Kind::Restart(arguments)) => restart::run(arguments).await,
            Some(Kind::PickUps(arguments)) => pick_ups::run(arguments).await,
            Some(Kind::CatchUp(arguments)) => catch_up::run(arguments).await,
            Some(Kind::Replies(arguments)) => replies::run(arguments).await,
            Some(Kind::Storm(arguments)) => storm::run(arguments).await,
            Some(Kind::Compare(arguments)) => return compare::run(arguments),
            Some(Kind::Relay(arguments)) => return relay::serve(arguments).await.map_err(Failure::io),
        }
        .map_err(Failure::failed)
    }))
}
