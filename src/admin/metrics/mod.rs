//! `GET /metrics`: the broker at this moment as OpenMetrics text.
//!
//! ```text
//! GET /metrics ─▶ Broker::observed (atomics, registry) + Beside ─▶ each row of the table ─▶ text
//! ```
//!
//! # Layout
//! - `mod.rs`: the route, the text
//! - [`table`]: what a metric is, and all of them · `traffic`, `journal`, `process`: the rows
//!
//! # Invariants
//! - A scrape reads atomics and the registry. It asks no actor and takes no time from an Arbiter: it runs on the HTTP
//!   server's thread.
//! - Labels name portals, numbers, services, and words of a fixed list; never a customer or an agent. Series are bounded
//!   by the configuration and by [`LAGS_MAX`](crate::actors::observed::LAGS_MAX).

mod journal;
mod process;
pub mod table;
mod traffic;

use std::fmt;
use std::sync::Arc;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, web};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::registry::Registry;

use self::table::{Metric, Sample, Seen, Value};
use crate::actors::Broker;

/// What the text is, as OpenMetrics names it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How the name of every metric begins.
pub const PREFIX: &str = "sharedline";
/// Where it is.
pub const PATH: &str = "/metrics";

/// What is observed beside the broker: whoever puts the program together knows it.
pub trait Beside: fmt::Debug + Send + Sync + 'static {
    /// TCP connections, and their limit.
    fn connections(&self) -> (u64, u64);
    /// Answers to webhooks, by their status.
    fn webhook_responses(&self) -> Vec<(u16, u64)>;
    /// What became of updates in webhooks, by its name.
    fn webhook_updates(&self) -> Vec<(&'static str, u64)>;
    /// Calls of the admin API that are at work, and their limit.
    fn admin_calls(&self) -> (u64, u64);
    /// Answers of the admin API, by their status.
    fn admin_responses(&self) -> Vec<(u16, u64)>;
    /// Bytes of webhooks' bodies that are being worked on, and their limit.
    fn webhook_bodies_bytes(&self) -> (u64, u64);
}

/// All that a scrape reads.
struct Source {
    broker: Broker,
    beside: Arc<dyn Beside>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// Registers the route; a part of the HTTP server's application.
pub fn routes(
    broker: Broker,
    beside: Arc<dyn Beside>,
) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Source { broker, beside }));
    let registry = Arc::new(registry);
    move |config| {
        let registry = Arc::clone(&registry);
        let scrape = move || {
            let registry = Arc::clone(&registry);
            async move { answer(&registry) }
        };
        config.service(web::resource(PATH).route(web::get().to(scrape)));
    }
}

fn answer(registry: &Registry) -> HttpResponse {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, CONTENT_TYPE))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .body(text),
        // A string takes all that is written to it.
        Err(_) => HttpResponse::new(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let seen = Seen { broker: self.broker.observed(), beside: &*self.beside };
        for metric in table::all() {
            let unit = metric.unit.map(table::Unit::of_library);
            let (name, help) = (metric.name, metric.help);
            let encoder = encoder.encode_descriptor(name, help, unit.as_ref(), metric.kind.of_library())?;
            put_samples(encoder, metric, &seen)?;
        }
        Ok(())
    }
}

fn put_samples(mut encoder: MetricEncoder<'_>, metric: &Metric, seen: &Seen<'_>) -> fmt::Result {
    for Sample { labels, value } in (metric.read)(seen) {
        if let Value::Info = value {
            encoder.encode_info(&labels)?;
        } else if labels.is_empty() {
            put_value(&mut encoder, value)?;
        } else {
            put_value(&mut encoder.encode_family(&labels)?, value)?;
        }
    }
    Ok(())
}

fn put_value(encoder: &mut MetricEncoder<'_>, value: Value) -> fmt::Result {
    match value {
        Value::Info => Ok(()),
        Value::Count(count) => encoder.encode_counter::<NoLabelSet, u64, u64>(&count, None),
        Value::Level(level) => encoder.encode_gauge(&level),
        Value::Durations { sum_seconds, buckets } => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            encoder.encode_histogram::<NoLabelSet>(sum_seconds, count, &buckets, None)
        }
    }
}
