//! What a report's members are: its method, its figures and which way each is better, and mere amounts.
//!
//! **Invariant:** every member of every report is known here by its name; one that is not is refused. So a report that
//! grows does not grow past a comparison unseen, and the tests compare one of each bench with itself.

use std::collections::BTreeMap;

use anyhow::bail;
use serde_json::{Map, Value};

/// How a run was made: two that differ here can not be compared.
const METHOD: &[&str] = &[
    "adapters",
    "backlog",
    "bench",
    "by",
    "connections",
    "conversations",
    "customers",
    "deliver",
    "deliveries_asked",
    "durability",
    "journal_bytes_asked",
    "messages_asked",
    "rate",
    "replies",
    "rounds",
    "services",
    "size",
    "subscribers",
    "window",
];
/// Figures that say how fast.
const MORE_IS_BETTER: &[&str] =
    &["per_second", "published_share_of_bare_relay", "published_share_of_syncing_relay"];
/// Figures that say what it took.
const LESS_IS_BETTER: &[&str] = &[
    "bytes_each",
    "cpu_seconds",
    "live_p50_over_alone",
    "live_p99_over_alone",
    "message_bytes_each",
    "p50",
    "p50_over_alone",
    "p50_over_syncing_relay",
    "p99",
    "p99_over_alone",
    "p99_over_syncing_relay",
    "ready_seconds",
    "rss_connected_bytes",
    "written_bytes",
];
/// Shown and not judged: parts and doubles of those above, and what a single event decides.
const TOLD: &[&str] = &[
    "bytes_per_second",
    "content_mib_per_second",
    "context_switches",
    "cost_growth",
    "max",
    "p90",
    "p999",
    "published_per_second",
    "rate_growth",
    "rss_after_bytes",
    "rss_before_bytes",
    "system_cpu_seconds",
    "user_cpu_seconds",
];
/// How much was measured. Texts and numbers that name a row are among them.
const AMOUNTS: &[&str] = &[
    "connects",
    "count",
    "deliveries",
    "done",
    "encoding",
    "journal_bytes",
    "messages",
    "published",
    "ready_seconds_each",
    "samples",
    "seconds",
    "value",
    "worse_than_linear",
];
/// Parts of a report that are not the broker's, or are about its rows: none of their figures is judged.
const TOLD_PARTS: &[&str] = &[
    "alone_latency_us",
    "bare_relay",
    "json_over_binary",
    "live_alone_latency_us",
    "one_customer",
    "a_customer_each",
    "syncing_relay",
];

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
    /// Neither way: it is shown.
    Told,
}

/// A report, taken apart.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) method: BTreeMap<String, Value>,
    /// Each by its way through the report, with dots.
    pub(super) figures: BTreeMap<String, (Better, f64)>,
}

impl Figures {
    pub(super) fn of(report: &Value) -> anyhow::Result<Self> {
        let Some(members) = report.as_object().filter(|members| members.contains_key("bench")) else {
            bail!("this is no report of a bench")
        };
        let method = members.iter().filter(|(name, _)| METHOD.contains(&name.as_str()));
        let method = method.map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut found = Self { method, figures: BTreeMap::new() };
        found.take(members, "", true)?;
        Ok(found)
    }

    fn take(&mut self, members: &Map<String, Value>, above: &str, is_judged: bool) -> anyhow::Result<()> {
        for (name, value) in members {
            let way = format!("{above}{name}");
            let is_judged = is_judged && !TOLD_PARTS.contains(&name.as_str());
            let is = |list: &[&str]| list.contains(&name.as_str());
            match value {
                Value::Object(inner) => self.take(inner, &format!("{way}."), is_judged)?,
                Value::Array(rows) if rows.iter().all(Value::is_object) => {
                    for row in rows.iter().filter_map(Value::as_object) {
                        let label = row.get("encoding").or_else(|| row.get("value"));
                        let label = label.map(|label| label.to_string().replace('"', "")).unwrap_or_default();
                        self.take(row, &format!("{way}[{label}]."), is_judged)?;
                    }
                }
                _ if is(AMOUNTS) || above.is_empty() && is(METHOD) => {}
                Value::Null if is(MORE_IS_BETTER) || is(LESS_IS_BETTER) || is(TOLD) || is_part(name) => {}
                Value::Number(number) => {
                    let better = match () {
                        () if is(MORE_IS_BETTER) && is_judged => Better::More,
                        () if is(LESS_IS_BETTER) && is_judged => Better::Less,
                        () if is(MORE_IS_BETTER) || is(LESS_IS_BETTER) || is(TOLD) => Better::Told,
                        () => bail!("the report's figure {way} is not known here: it is of another version"),
                    };
                    self.figures.insert(way, (better, number.as_f64().unwrap_or_default()));
                }
                _ => bail!("the report's member {way} is not known here: it is of another version"),
            }
        }
        Ok(())
    }
}

/// Parts that a report may not have.
fn is_part(name: &str) -> bool {
    TOLD_PARTS.contains(&name)
        || ["catch_up", "connection", "conversation", "used_per_million"].contains(&name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_is_taken_apart_into_method_figures_and_amounts() {
        let report = json!({
            "bench": "x", "size": 256, "rate": null, "syncing_relay": {"per_second": 5.0, "seconds": 1.0},
            "runs": [{"encoding": "json", "per_second": 2.0, "latency_us": {"p50": 3, "max": 9, "samples": 4}}],
            "bare_relay": null, "used_per_million": null,
        });
        let found = Figures::of(&report).unwrap();
        assert_eq!(found.method.keys().collect::<Vec<_>>(), ["bench", "rate", "size"]);
        let figures: Vec<_> = found.figures.iter().map(|(way, figure)| (way.as_str(), *figure)).collect();
        assert_eq!(
            figures,
            [
                ("runs[json].latency_us.max", (Better::Told, 9.0)),
                ("runs[json].latency_us.p50", (Better::Less, 3.0)),
                ("runs[json].per_second", (Better::More, 2.0)),
                ("syncing_relay.per_second", (Better::Told, 5.0)),
            ]
        );
    }

    #[test]
    fn what_is_not_known_is_refused_and_not_passed_over() {
        for unknown in [
            json!({"bench": "x", "speed": 1.0}),
            json!({"bench": "x", "latency_us": {"p42": 1}}),
            json!({"bench": "x", "latency_us": {"size": 1}}),
            json!({"bench": "x", "colour": "red"}),
            json!({"bench": "x", "nobody": null}),
            json!({"check": "answers"}),
            json!([]),
        ] {
            assert!(Figures::of(&unknown).is_err(), "{unknown}");
        }
    }
}
