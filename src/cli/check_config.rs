//! `check-config`: every problem of a configuration, or what it amounts to.

use clap::Args;
use serde_json::json;

use super::{Configured, EXIT_CONFIG, Failure, Outcome, out};
use crate::config::{Config, LoadError, Overrides};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let overrides = Overrides::of_process(arguments.configured.data_dir.clone());
    match Config::load(arguments.configured.config.as_deref(), &overrides) {
        Ok(config) => {
            report(&config, arguments.json);
            Ok(())
        }
        Err(LoadError::Problems(problems)) if arguments.json => {
            let problems: Vec<_> = problems
                .iter()
                .map(|problem| json!({"key": problem.key, "value": problem.value, "accepted": problem.accepted}))
                .collect();
            out::line(&json!({"valid": false, "problems": problems}).to_string());
            Err(Failure::new(EXIT_CONFIG, anyhow::anyhow!("the configuration is wrong")))
        }
        Err(error) => Err(error.into()),
    }
}

fn report(config: &Config, as_json: bool) {
    let services = config.portals.iter().map(|portal| portal.rules.services.len()).sum::<usize>();
    let numbers = config.portals.iter().map(|portal| portal.numbers.len()).sum::<usize>();
    let waiting = config.cannot_send();
    if as_json {
        let waiting: Vec<_> =
            waiting.iter().map(|(number, why)| json!({"number": number.as_str(), "why": why})).collect();
        let report = json!({
            "valid": true,
            "portals": config.portals.len(),
            "services": services,
            "numbers": numbers,
            "cannot_send": waiting,
        });
        out::line(&report.to_string());
        return;
    }
    out::line(&format!(
        "the configuration is valid: {} portals, {services} services, {numbers} numbers",
        config.portals.len()
    ));
    for (number, why) in waiting {
        out::line(&format!("  {number} can not send yet: {why}"));
    }
}
