//! `bench growth`: the fan-out along one axis, and how what a delivery costs grows with it.
//!
//! Every step has a broker of its own, unless one that runs already is given. A step publishes so much that it makes
//! about as many deliveries as every other, fewer where they are large; a pass before it creates every conversation.
//!
//! *Worse than linear* is a step whose cost per delivery, beside the step before it, grew more than the axis did. Along
//! subscribers and backlog the deliveries themselves grow, so there the cost of each may not grow at all. A quarter more
//! is taken for noise.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::catch_up;
use super::load::Load;
use super::measured::Measured;
use super::options::Against;
use super::producer::Plan;
use super::report::{MIB, f64_of, grouped, ratio, table, with};
use super::target::{Needs, Target};
use crate::cli::out;
use crate::wire::frame::Encoding;

/// Each subscriber's window.
const WINDOW: u32 = 4_096;
/// Customers of all numbers together, unless conversations are what grows.
const CUSTOMERS: u64 = 10_000;
/// Deliveries of a step unless the command line says; half of them where each costs much.
const DELIVERIES: u64 = 600_000;
/// The fewest messages of a step, as a part of its deliveries: however many subscribe.
const MESSAGES_PART: u64 = 12;
/// Content that a step delivers at most, in bytes.
const CONTENT_BYTES_MAX: u64 = 1 << 30;
/// Growth of the cost that is taken for none: runs of the same differ by as much here.
const NOISE: f64 = 1.25;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Axis {
    /// Numbers that are written to in turn.
    Channels,
    /// Services that each get everything.
    Subscribers,
    /// Customers who write in turn to one number.
    Conversations,
    /// Bytes of a message's content.
    Size,
    /// Messages that a subscriber has missed and catches up on, while others go on live.
    Backlog,
}

impl Axis {
    fn word(self) -> &'static str {
        match self {
            Self::Channels => "channels",
            Self::Subscribers => "subscribers",
            Self::Conversations => "conversations",
            Self::Size => "size",
            Self::Backlog => "backlog",
        }
    }

    fn steps(self) -> &'static [u64] {
        match self {
            Self::Channels => &[1, 100, 10_000],
            Self::Subscribers => &[1, 4, 16, 64],
            Self::Conversations => &[1_000, 30_000, 1_000_000],
            Self::Size => &[64, 1_024, 16_384, 65_536],
            Self::Backlog => &[100_000, 300_000, 1_000_000],
        }
    }

    fn deliveries(self) -> u64 {
        if self == Self::Channels { DELIVERIES / 2 } else { DELIVERIES }
    }

    /// Whether a delivery's cost grew more than a whole allows that is linear, where the axis grew by `growth`.
    fn is_worse(self, growth: f64, cost_growth: f64) -> bool {
        let linear = match self {
            Self::Subscribers | Self::Backlog => 1.0,
            Self::Channels | Self::Conversations | Self::Size => growth,
        };
        cost_growth > linear.max(1.0) * NOISE
    }
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What grows.
    #[arg(long, value_enum)]
    by: Axis,
    /// The axis's steps instead of the usual ones, with commas between them.
    #[arg(long, value_delimiter = ',')]
    steps: Vec<u64>,
    /// About how many deliveries a step makes: 600,000, or 300,000 along channels.
    #[arg(long)]
    deliveries: Option<u64>,
    /// Bytes of a message's content, unless that is what grows.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// How many services subscribe, unless that is what grows.
    #[arg(long, default_value_t = 3)]
    subscribers: usize,
    /// Messages a second that go on live beside a backlog.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    #[command(flatten)]
    against: Against,
}

/// A step of the axis.
struct Row {
    value: u64,
    /// Bytes of a message's content.
    size: usize,
    measured: Measured,
    caught_up: Option<catch_up::CaughtUp>,
}

impl Row {
    fn mib_per_second(&self) -> f64 {
        self.measured.per_second() * f64_of(self.size as u64) / MIB
    }

    /// How the cost of a delivery grew since an earlier row.
    fn cost_growth(&self, since: &Self) -> Option<f64> {
        Some(ratio(self.measured.cpu_s_per_million()?, since.measured.cpu_s_per_million()?))
    }

    /// Whether the cost of a delivery grew worse than linear since the row before.
    fn is_worse(&self, axis: Axis, before: &Self) -> Option<bool> {
        let growth = ratio(f64_of(self.value), f64_of(before.value));
        Some(axis.is_worse(growth, self.cost_growth(before)?))
    }
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let usual = arguments.by.steps();
    for value in if arguments.steps.is_empty() { usual } else { &arguments.steps } {
        rows.push(step(arguments, (*value).max(1)).await?);
    }
    if arguments.against.json {
        out::line(&json_of(arguments, &rows).to_string());
    } else {
        print(arguments.by, &rows);
    }
    Ok(())
}

async fn step(arguments: &Arguments, value: u64) -> anyhow::Result<Row> {
    let axis = arguments.by;
    let as_size = usize::try_from(value)?;
    let on = |wanted: Axis, otherwise: usize| if axis == wanted { as_size } else { otherwise };
    let numbers = on(Axis::Channels, 1);
    // Behind a backlog is one, and somebody must go on live beside it.
    let fewest = if axis == Axis::Backlog { 2 } else { 1 };
    let services = on(Axis::Subscribers, arguments.subscribers.max(fewest));
    let size = on(Axis::Size, arguments.size);
    let target = Target::prepare(&arguments.against, Needs { numbers, services, window: WINDOW }).await?;
    let subscribers = services as u64;
    let fitting = CONTENT_BYTES_MAX / (size as u64).max(1);
    let deliveries = arguments.deliveries.unwrap_or(axis.deliveries()).min(fitting);
    let messages = (deliveries / subscribers).max(deliveries / MESSAGES_PART).max(1);
    let customers = match axis {
        Axis::Conversations => value,
        _ => (CUSTOMERS / numbers as u64).max(1),
    };
    let conversations = customers * numbers as u64;
    let measured = async {
        let plan = Plan::new(messages, customers, &target.numbers, size)?;
        if axis == Axis::Backlog {
            let (measured, caught_up) = catch_up::along(&target, plan, value, arguments.rate).await?;
            return Ok((measured, Some(caught_up)));
        }
        let mut load = Load::open(&target, Encoding::Binary).await?;
        // Each conversation once at least, where that is not far more than is measured.
        let before = if axis == Axis::Conversations { conversations } else { conversations.min(messages) };
        load.run(&target, Plan { messages: before, ..plan.clone() }).await?;
        Ok::<_, anyhow::Error>((load.run(&target, plan).await?, None))
    }
    .await;
    let ended = target.end().await;
    let (measured, caught_up) = measured?;
    ended?;
    Ok(Row { value, size, measured, caught_up })
}

fn json_of(arguments: &Arguments, rows: &[Row]) -> Value {
    let of_row = |at: usize, row: &Row| {
        let (first, before) = (rows.first(), at.checked_sub(1).and_then(|before| rows.get(before)));
        let rate = |row: &Row| row.measured.per_second();
        let more = json!({
            "value": row.value,
            "content_mib_per_second": row.mib_per_second(),
            "cost_growth": first.and_then(|first| row.cost_growth(first)),
            "rate_growth": first.map(|first| ratio(rate(row), rate(first))),
            "worse_than_linear": before.and_then(|before| row.is_worse(arguments.by, before)),
            "catch_up": row.caught_up.as_ref().map(catch_up::CaughtUp::json),
        });
        with(row.measured.json(), more)
    };
    json!({
        "bench": "growth",
        "by": arguments.by.word(),
        "durability": arguments.against.own_durability(),
        "size": arguments.size, "subscribers": arguments.subscribers, "rate": arguments.rate,
        "deliveries_asked": arguments.deliveries.unwrap_or(arguments.by.deliveries()),
        "rows": rows.iter().enumerate().map(|(at, row)| of_row(at, row)).collect::<Vec<_>>(),
    })
}

fn print(axis: Axis, rows: &[Row]) {
    let mut headings = vec![
        axis.word(),
        "deliveries/s",
        "beside first",
        "MiB/s",
        "CPU s/M deliveries",
        "beside first",
        "cost per delivery",
    ];
    if axis == Axis::Backlog {
        headings.extend(["caught up in s", "caught up/s", "live p99 µs"]);
    }
    let of_row = |at: usize, row: &Row| {
        let beside = |growth: Option<f64>| growth.map_or_else(|| "-".to_owned(), |of| format!("{of:.2}"));
        let first = rows.first();
        let before = at.checked_sub(1).and_then(|before| rows.get(before));
        let verdict = match before.map(|before| row.is_worse(axis, before)) {
            None => "-",
            Some(None) => "not known",
            Some(Some(true)) => "worse than linear",
            Some(Some(false)) => "not worse than linear",
        };
        let rate = |row: &Row| row.measured.per_second();
        let mut cells = vec![
            grouped(f64_of(row.value)),
            grouped(rate(row)),
            beside(first.map(|first| ratio(rate(row), rate(first)))),
            format!("{:.1}", row.mib_per_second()),
            beside(row.measured.cpu_s_per_million()),
            beside(first.and_then(|first| row.cost_growth(first))),
            verdict.to_owned(),
        ];
        if let Some(caught_up) = &row.caught_up {
            cells.extend([
                format!("{:.2}", caught_up.took.as_secs_f64()),
                grouped(caught_up.per_second()),
                caught_up.live.at(0.99).to_string(),
            ]);
        }
        cells
    };
    let cells: Vec<_> = rows.iter().enumerate().map(|(at, row)| of_row(at, row)).collect();
    table(&headings, &cells);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_may_cost_more_with_its_size_and_not_with_the_number_of_subscribers() {
        for axis in [Axis::Size, Axis::Channels, Axis::Conversations] {
            assert!(!axis.is_worse(4.0, 4.9) && axis.is_worse(4.0, 5.1), "{axis:?}");
        }
        for axis in [Axis::Subscribers, Axis::Backlog] {
            assert!(!axis.is_worse(4.0, 1.2) && axis.is_worse(4.0, 1.3), "{axis:?}");
        }
        assert!(!Axis::Size.is_worse(0.5, 1.2), "the same cost on a smaller step is noise");
    }
}
