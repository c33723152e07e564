//! `bench`: load over real TCP against a broker of its own or a running one, beside relays of the same bytes.
//!
//! # Layout
//! - loads: `fan_out` (beside the relays) · `growth`, `catch_up` (along an axis) · `pick_ups` · `memory` · `restart`,
//!   `journal_bytes`
//! - what they are made of: `load`, `producer`, `subscriber`, `schedule` · `relay`, `relay_load`: this machine's limit
//! - the broker under load: `target`, `configuration` · `usage`: what its process uses
//! - what comes and goes: `options` · `measured`, `report`
//!
//! Every load is a real one: sockets, frames, acknowledgements. The generator shares the machine with the broker, so it
//! looks into few frames; the processor time a million deliveries is the broker's alone.

mod catch_up;
mod configuration;
mod fan_out;
mod growth;
mod journal_bytes;
mod load;
mod measured;
mod memory;
mod options;
mod pick_ups;
mod producer;
mod relay;
mod relay_load;
mod report;
mod restart;
mod schedule;
mod subscriber;
mod target;
mod usage;

use clap::{Args, Subcommand};

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
    /// Memory of an idle connection and of an idle conversation.
    Memory(memory::Arguments),
    /// Time from a start after SIGKILL until the broker is ready, on a full journal.
    Restart(restart::Arguments),
    /// Agents who pick up and let go.
    PickUps(pick_ups::Arguments),
    /// The relay alone, as its own process.
    #[command(hide = true)]
    Relay(relay::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    block_on(async {
        match &arguments.kind {
            None => fan_out::run(&arguments.fan_out).await,
            Some(Kind::FanOut(arguments)) => fan_out::run(arguments).await,
            Some(Kind::Growth(arguments)) => growth::run(arguments).await,
            Some(Kind::Memory(arguments)) => memory::run(arguments).await,
            Some(Kind::Restart(arguments)) => restart::run(arguments).await,
            Some(Kind::PickUps(arguments)) => pick_ups::run(arguments).await,
            Some(Kind::Relay(arguments)) => return relay::serve(arguments).await.map_err(Failure::io),
        }
        .map_err(Failure::failed)
    })
}
