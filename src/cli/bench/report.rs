//! How figures are shown: a bar while a load runs, numbers and tables for people.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::cli::out;

/// Bytes of a MiB.
pub(super) const MIB: f64 = 1_048_576.0;
/// How often the bar moves.
const SHOW_EVERY: Duration = Duration::from_millis(100);

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn f64_of(count: u64) -> f64 {
    count as f64
}

/// How often `of` goes into `what`; what is nothing goes into it a finite number of times.
pub(super) fn ratio(what: f64, of: f64) -> f64 {
    what / of.max(1e-9)
}

/// A whole number, in groups of three digits.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are far below 2^53")]
pub(super) fn grouped(number: f64) -> String {
    HumanCount(number.round() as u64).to_string()
}

/// A report with further fields.
pub(super) fn with(mut report: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (report.as_object_mut(), more) {
        fields.extend(more);
    }
    report
}

/// A bar on a terminal, nothing elsewhere. It follows `done` until it is dropped.
pub(super) struct Bar {
    bar: ProgressBar,
    follows: tokio::task::JoinHandle<()>,
}

impl Bar {
    pub(super) fn follow(total: u64, what: &'static str, done: Arc<AtomicU64>) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        let shown = bar.clone();
        let follows = tokio::spawn(async move {
            loop {
                tokio::time::sleep(SHOW_EVERY).await;
                shown.set_position(done.load(Ordering::Relaxed));
            }
        });
        Self { bar, follows }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.follows.abort();
        self.bar.finish_and_clear();
    }
}

/// Prints rows under their headings, every column as wide as it must be.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain(headings.get(at).map(|heading| heading.chars().count())).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        out::line(&padded.collect::<Vec<_>>().join("  "));
    };
    line(headings.to_vec());
    rows.iter().for_each(|row| line(row.iter().map(String::as_str).collect()));
}
