//! The rows about channels: messages, deliveries, replies, claims, lag.

use super::table::{Kind, Metric, Sample, Value, count, counts, level, levels};

pub(super) static METRICS: &[Metric] = &[
    Metric {
        name: "channels",
        kind: Kind::Gauge,
        unit: None,
        labels: &["state"],
        help: "Channels: active, dormant, closed, quarantined (their state can not be had from the journal).",
        read: |seen| {
            let of = seen.broker.channels;
            let states = [
                ("active", of.active),
                ("dormant", of.dormant),
                ("closed", of.closed),
                ("quarantined", of.quarantined),
            ];
            levels("state", states)
        },
    },
    Metric {
        name: "conversations",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Conversations of all channels.",
        read: |seen| level(seen.broker.channels.conversations),
    },
    Metric {
        name: "messages",
        kind: Kind::Counter,
        unit: None,
        labels: &["fate"],
        help: "Customers' messages, in each channel: recorded, repeated (it had them), unrouted (nobody has the number in use).",
        read: |seen| {
            let of = &seen.broker.counts;
            let fates = [
                ("recorded", of.messages),
                ("repeated", of.repeated_messages),
                ("unrouted", of.unrouted_messages),
            ];
            counts("fate", fates)
        },
    },
    Metric {
        name: "deliveries",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Deliveries given to connections, repeats included.",
        read: |seen| count(seen.broker.counts.deliveries),
    },
    Metric {
        name: "deliveries_acknowledged",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Deliveries that count against a window and were acknowledged, or given up with their connection.",
        read: |seen| count(seen.broker.counts.acknowledged),
    },
    Metric {
        name: "deliveries_unacknowledged",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Deliveries that count against a window and are not acknowledged yet.",
        read: |seen| level(seen.broker.unacknowledged),
    },
    Metric {
        name: "lag_records",
        kind: Kind::Gauge,
        unit: None,
        labels: &["portal", "number", "service"],
        help: "Durable records of the number's channel that the service's adapters have neither acknowledged nor passed.",
        #[expect(clippy::cast_precision_loss, reason = "offsets far below 2^53 stay exact")]
        read: |seen| {
            let one = |lag: &crate::actors::observed::Lag| Sample {
                labels: vec![
                    ("portal", lag.portal.clone()),
                    ("number", lag.number.clone()),
                    ("service", lag.service.clone()),
                ],
                value: Value::Level(lag.records as f64),
            };
            seen.broker.lags.iter().map(one).collect()
        },
    },
    Metric {
        name: "lag_series_left_out",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Lags that are not shown, because there are more than 10,000.",
        read: |seen| level(seen.broker.lags_left_out),
    },
    Metric {
        name: "replies",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Replies that were accepted.",
        read: |seen| count(seen.broker.counts.replies),
    },
    Metric {
        name: "replies_repeated",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Replies that were known by their id and answered as before.",
        read: |seen| count(seen.broker.counts.repeated_replies),
    },
    Metric {
        name: "reply_attempts",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Replies handed to a gateway, each attempt.",
        read: |seen| count(seen.broker.counts.handed),
    },
    Metric {
        name: "reply_outcomes",
        kind: Kind::Counter,
        unit: None,
        labels: &["status"],
        help: "News of replies, by how far they came; sent, failed and unknown are outcomes.",
        read: |seen| counts("status", seen.broker.counts.receipts.iter().copied()),
    },
    Metric {
        name: "replies_open",
        kind: Kind::Gauge,
        unit: None,
        labels: &["state"],
        help: "Replies without outcome: waiting, or handed to their gateway.",
        read: |seen| {
            let of = seen.broker.channels;
            levels("state", [("waiting", of.replies_waiting), ("handed", of.replies_handed)])
        },
    },
    Metric {
        name: "replies_open_limit",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Most replies without outcome of one channel; then further ones are answered overloaded.",
        read: |seen| level(seen.broker.replies_open_max),
    },
    Metric {
        name: "gateway_replies",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Replies that TCP gateways have and that have no outcome.",
        read: |seen| level(seen.broker.gateway_replies),
    },
    Metric {
        name: "gateway_replies_limit",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Most of those of one gateway; then its replies wait.",
        read: |seen| level(seen.broker.gateway_replies_max),
    },
    Metric {
        name: "statuses_parked",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Messages of which statuses wait, because the messages are not known yet.",
        read: |seen| level(seen.broker.channels.statuses_parked),
    },
    Metric {
        name: "claims",
        kind: Kind::Counter,
        unit: None,
        labels: &["action"],
        help: "Changes of claims: picked_up, released, transferred, expired.",
        read: |seen| counts("action", seen.broker.counts.claims.iter().copied()),
    },
    Metric {
        name: "claims_held",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Claims that hold.",
        read: |seen| level(seen.broker.channels.claims),
    },
    Metric {
        name: "threads",
        kind: Kind::Counter,
        unit: None,
        labels: &["action"],
        help: "Changes of whose threads are: taken, passed, released.",
        read: |seen| counts("action", seen.broker.counts.threads.iter().copied()),
    },
    Metric {
        name: "threads_noted",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Conversations with a note of whose their thread is; one that has lapsed counts until it is forgotten.",
        read: |seen| level(seen.broker.channels.threads),
    },
    Metric {
        name: "warnings",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Pick-ups and replies that were answered with a warning. Those refused stand among the errors as claimed.",
        read: |seen| count(seen.broker.counts.warnings),
    },
];
