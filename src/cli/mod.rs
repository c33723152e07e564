//! The command line: verbs, exit codes, and the only place that wires everything together (`serve`).
//!
//! # Layout
//! - `serve`: the broker as a process · `http`: its HTTP server, put together · `demo`: its story on real parts
//! - `bench`: load over real TCP, beside a relay · `own_broker`: a broker as a child process
//! - `ending`: what ends a verb early · `lifeline`: how a child learns that its parent is gone
//! - `check_config`, `store`, `token`: for operators · `tail`, `send`: a look at a running broker, and a word to it
//! - `man`: the manual, for packages
//! - `channel`, `conversation`: for operators, over the admin API · `operator`: their way there · `shown`: as people read it
//! - `ready`: for what watches over the process · `completion`: for shells
//! - `conformance`: plays the broker to somebody's adapter, and judges it
//! - `peer`: what the verbs that talk to a broker have in common · `out`: the one place that prints
//!
//! Exit codes: 0; 1 failed; 64 usage; 74 input/output; 78 configuration.

mod bench;
mod channel;
mod check_config;
mod completion;
mod conformance;
mod conversation;
mod demo;
mod ending;
mod http;
mod lifeline;
mod man;
mod operator;
mod out;
mod own_broker;
mod peer;
mod ready;
mod send;
mod serve;
mod shown;
mod store;
mod tail;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, LoadError, Overrides};

/// Something did not work.
const EXIT_FAILED: u8 = 1;
/// The command line is not understood.
const EXIT_USAGE: u8 = 64;
/// A disk, a file or a socket refused.
const EXIT_IO: u8 = 74;
/// The configuration is wrong.
const EXIT_CONFIG: u8 = 78;

/// A message broker that lets many services share one WhatsApp number.
#[derive(Debug, Parser)]
#[command(name = "sharedline", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the broker.
    Serve(serve::Arguments),
    /// Play a story on the real thing: three services, one number, a customer, a kill; then stay open for yours.
    Demo(demo::Arguments),
    /// Measure a broker under load, over real TCP, beside a raw relay of the same bytes.
    Bench(Box<bench::Arguments>),
    /// Say whether a broker on this machine acknowledges: 0 if it does, 1 if it does not, 74 if nobody answers.
    Ready(ready::Arguments),
    /// Say what is wrong with a configuration, or what it amounts to.
    CheckConfig(check_config::Arguments),
    /// Channels of a running broker, over its admin API.
    Channel(channel::Arguments),
    /// Conversations of a running broker, as a named service would see them, and their claims.
    Conversation(conversation::Arguments),
    /// Judge an adapter that you have written: play the broker to it, and say what it gets wrong.
    Conformance(conformance::Arguments),
    /// Watch what a service sees: one delivery a line, as JSON.
    Tail(tail::Arguments),
    /// Bring a customer's message, as a gateway would.
    Send(send::Arguments),
    /// Look after a data directory.
    Store(store::Arguments),
    /// Tokens for services, gateways and operators.
    Token(token::Arguments),
    /// Write the manual pages into a directory.
    #[command(hide = true)]
    Man(man::Arguments),
    /// A script that completes the command line in a shell.
    Completion(completion::Arguments),
}

/// Which configuration.
#[derive(Debug, Args)]
struct Configured {
    /// The configuration file; without one, the defaults hold.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the journal lies, whatever the configuration says.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Configured {
    fn load(&self) -> Result<Config, Failure> {
        let overrides = Overrides::of_process(self.data_dir.clone());
        Config::load(self.config.as_deref(), &overrides).map_err(Failure::from)
    }
}

/// Why a verb failed: what is printed, and how the process exits.
#[derive(Debug)]
struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into() }
    }

    fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::new(EXIT_FAILED, error)
    }

    fn io(error: impl Into<anyhow::Error>) -> Self {
        Self::new(EXIT_IO, error)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let code = if matches!(error, LoadError::Read { .. }) { EXIT_IO } else { EXIT_CONFIG };
        let LoadError::Problems(problems) = &error else { return Self::new(code, error) };
        let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
        Self::new(code, anyhow::anyhow!("the configuration is wrong:\n{}", lines.join("\n")))
    }
}

type Outcome = Result<(), Failure>;

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistakes; a terminal that is gone is nobody's.
            let is_mistake = error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if is_mistake { EXIT_USAGE } else { 0 });
        }
    };
    crate::gateway::graph::choose_crypto();
    let outcome = match cli.verb {
        Verb::Serve(arguments) => serve::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Ready(arguments) => ready::run(&arguments),
        Verb::CheckConfig(arguments) => check_config::run(&arguments),
        Verb::Channel(arguments) => channel::run(&arguments),
        Verb::Conversation(arguments) => conversation::run(&arguments),
        Verb::Conformance(arguments) => conformance::run(&arguments),
        Verb::Tail(arguments) => tail::run(&arguments),
        Verb::Send(arguments) => send::run(&arguments),
        Verb::Store(arguments) => store::run(&arguments),
        Verb::Token(arguments) => token::run(&arguments),
        Verb::Man(arguments) => man::run(&arguments),
        Verb::Completion(arguments) => completion::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out::error(&failure.error);
            ExitCode::from(failure.code)
        }
    }
}

/// Runs a verb's future on a runtime of its own.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::io)?;
    runtime.block_on(future)
}
