//! The rows about the process, its connections and its webhooks.

use super::table::{Kind, Metric, Sample, Unit, Value, count, counts, exact, flag, level, levels};

pub(super) static METRICS: &[Metric] = &[
    Metric {
        name: "build",
        kind: Kind::Info,
        unit: None,
        labels: &["version"],
        help: "What runs.",
        read: |_| {
            let labels = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
            vec![Sample { labels, value: Value::Info }]
        },
    },
    Metric {
        name: "uptime",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "How long the broker has run.",
        read: |seen| exact(seen.broker.uptime.as_secs_f64()),
    },
    Metric {
        name: "halted",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "1 when nothing is acknowledged any more, because the journal or an actor has failed.",
        read: |seen| flag(seen.broker.is_halted),
    },
    Metric {
        name: "clock_leap",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "By how much the wall clock has leapt ahead of the broker's clock (behind: negative); 0 while they agree.",
        #[expect(
            clippy::cast_precision_loss,
            reason = "a leap that loses a second is some 285,000 years long"
        )]
        read: |seen| exact(seen.broker.clock_leap_ms as f64 / 1_000.0),
    },
    Metric {
        name: "connections",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "TCP connections, those before their hello included.",
        read: |seen| level(seen.beside.connections().0),
    },
    Metric {
        name: "connections_limit",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Most TCP connections; further ones are refused.",
        read: |seen| level(seen.beside.connections().1),
    },
    Metric {
        name: "sessions",
        kind: Kind::Gauge,
        unit: None,
        labels: &["kind"],
        help: "Greeted sessions: share, watch, none (requests alone), gateway.",
        read: |seen| levels("kind", seen.broker.sessions.iter().map(|(kind, n)| (kind.as_str(), *n))),
    },
    Metric {
        name: "requests",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Requests of sessions that were understood, acknowledgements included.",
        read: |seen| count(seen.broker.counts.requests),
    },
    Metric {
        name: "requests_in_flight",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Requests of all sessions that are not answered and written.",
        read: |seen| level(seen.broker.in_flight),
    },
    Metric {
        name: "requests_in_flight_limit",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Most requests in flight of one connection; then it is not read.",
        read: |seen| level(seen.broker.in_flight_max),
    },
    Metric {
        name: "request_permits",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Bytes of requests that are not durable yet.",
        read: |seen| level(seen.broker.request_bytes),
    },
    Metric {
        name: "request_permits_limit",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Most of those; then no connection is read.",
        read: |seen| level(seen.broker.request_bytes_max),
    },
    Metric {
        name: "errors",
        kind: Kind::Counter,
        unit: None,
        labels: &["code"],
        help: "Errors that peers over TCP were told, those that end a connection included.",
        read: |seen| counts("code", seen.broker.counts.errors.iter().copied()),
    },
    Metric {
        name: "webhook_responses",
        kind: Kind::Counter,
        unit: None,
        labels: &["status"],
        help: "Answers to webhooks, by their HTTP status.",
        read: |seen| counts("status", seen.beside.webhook_responses()),
    },
    Metric {
        name: "webhook_updates",
        kind: Kind::Counter,
        unit: None,
        labels: &["fate"],
        help: "Updates in signed webhooks, by what became of them.",
        read: |seen| counts("fate", seen.beside.webhook_updates()),
    },
    Metric {
        name: "webhook_bodies",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Bodies of webhooks that are being read or worked on.",
        read: |seen| level(seen.beside.webhook_bodies_bytes().0),
    },
    Metric {
        name: "webhook_bodies_limit",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Most of those; then a webhook is answered 503.",
        read: |seen| level(seen.beside.webhook_bodies_bytes().1),
    },
];
