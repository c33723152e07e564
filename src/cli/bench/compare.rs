//! `bench compare`: two files of reports, the figures of one beside those of the other, and whether it is worse.
//!
//! A file holds one report or several of the same method, as `--json` printed them, one after the other. Of several runs
//! the median counts. A figure is better or worse when the medians differ by more than the tolerance and neither lies
//! among the other file's runs: what a file's own runs differ by is noise. A single run has none to show, so run each
//! some times, in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use super::figures::{Better, Figures};
use super::report::{grouped, ratio, table};
use crate::cli::{EXIT_USAGE, Failure, Outcome, out};

/// What is shown of a ratio that is left to the reader.
const NOT_JUDGED: &str = "·";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Reports to compare with: what a bench printed with --json, once or several times.
    #[arg(value_name = "A.json")]
    a: PathBuf,
    /// Reports that are compared.
    #[arg(value_name = "B.json")]
    b: PathBuf,
    /// By how many percent a figure may be worse, or better, without being called so.
    #[arg(long, value_name = "PERCENT", default_value_t = 25.0)]
    tolerance: f64,
    /// Show figures that are not judged, too: parts of others, the longest latencies, the relays'.
    #[arg(long)]
    all: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What a figure did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Better,
    Same,
    /// The medians differ by more than the tolerance, but no more than the runs of a file among themselves.
    Noise,
    Worse,
    NotJudged,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Same => "same",
            Self::Noise => "noise",
            Self::Worse => "WORSE",
            Self::NotJudged => NOT_JUDGED,
        }
    }
}

/// A figure's values over the runs of a file, in order.
#[derive(Debug, Clone, PartialEq)]
struct Values(Vec<f64>);

impl Values {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    fn least(&self) -> f64 {
        self.0.first().copied().unwrap_or_default()
    }

    fn most(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }

    /// Of an even number the mean of the two in the middle.
    fn median(&self) -> f64 {
        let at = |at: usize| self.0.get(at).copied().unwrap_or_default();
        let middle = self.0.len() / 2;
        if self.0.len().is_multiple_of(2) {
            f64::midpoint(at(middle.saturating_sub(1)), at(middle))
        } else {
            at(middle)
        }
    }

    fn spans(&self, value: f64) -> bool {
        (self.least()..=self.most()).contains(&value)
    }
}

/// A figure of both files.
#[derive(Debug)]
struct Compared {
    name: String,
    better: Better,
    a: Values,
    b: Values,
}

impl Compared {
    fn ratio(&self) -> f64 {
        over(self.b.median(), self.a.median())
    }

    /// The least and the most that B's runs are over A's.
    fn spread(&self) -> (f64, f64) {
        (over(self.b.least(), self.a.most()), over(self.b.most(), self.a.least()))
    }

    /// A tolerance of 0.25 lets what should be less grow to 1.25 times, and what should be more shrink to 1 / 1.25.
    fn verdict(&self, tolerance: f64) -> Verdict {
        let gain = match self.better {
            Better::More => self.ratio(),
            Better::Less => 1.0 / self.ratio(),
            Better::Told => return Verdict::NotJudged,
        };
        let beyond = 1.0 + tolerance;
        if (1.0 / beyond..=beyond).contains(&gain) {
            Verdict::Same
        } else if self.a.spans(self.b.median()) || self.b.spans(self.a.median()) {
            Verdict::Noise
        } else if gain > 1.0 {
            Verdict::Better
        } else {
            Verdict::Worse
        }
    }
}

/// What nothing is over nothing is as much.
fn over(b: f64, a: f64) -> f64 {
    if a == b { 1.0 } else { ratio(b, a) }
}

/// A file's runs.
#[derive(Debug)]
struct Runs {
    count: usize,
    method: BTreeMap<String, Value>,
    figures: BTreeMap<String, (Better, Values)>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let Arguments { a, b, tolerance, all, json } = arguments;
    let usage = |error| Failure::new(EXIT_USAGE, error);
    if !(tolerance.is_finite() && *tolerance >= 0.0) {
        return Err(usage(anyhow::anyhow!("--tolerance is a number of percent, 0 or more")));
    }
    let [a, b] = [a, b].map(|path| {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string());
        let text = text.map_err(Failure::io)?;
        runs_of(&text).with_context(|| path.display().to_string()).map_err(usage)
    });
    let (a, b) = (a?, b?);
    let compared = compare(&a, &b).map_err(usage)?;
    let tolerance = tolerance / 100.0;
    if *json {
        out::line(&json_of(&a, &b, &compared, tolerance).to_string());
    } else {
        print(&a, &b, &compared, tolerance, *all);
    }
    let worse = named(&compared, tolerance, Verdict::Worse);
    if worse.is_empty() {
        return Ok(());
    }
    let percent = tolerance * 100.0;
    Err(Failure::failed(anyhow::anyhow!("worse by more than {percent} %: {}", worse.join(", "))))
}

/// Reads a file's reports.
fn runs_of(text: &str) -> anyhow::Result<Runs> {
    let mut method = None;
    let mut figures: BTreeMap<String, (Better, Vec<f64>)> = BTreeMap::new();
    let mut count = 0;
    for report in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let found = Figures::of(&report.context("this is no JSON")?)?;
        count += 1;
        let method = method.get_or_insert_with(|| found.method.clone());
        same_method(method, &found.method, "the first run", "a later one")?;
        for (name, (better, value)) in found.figures {
            figures.entry(name).or_insert((better, Vec::new())).1.push(value);
        }
    }
    let Some(method) = method else { bail!("there is no report in it") };
    if let Some((name, _)) = figures.iter().find(|(_, (_, values))| values.len() != count) {
        bail!("not every run in it has the figure {name}");
    }
    let figures = figures.into_iter().map(|(name, (better, values))| (name, (better, Values::of(values))));
    Ok(Runs { count, method, figures: figures.collect() })
}

fn same_method(
    one: &BTreeMap<String, Value>,
    other: &BTreeMap<String, Value>,
    of_one: &str,
    of_other: &str,
) -> anyhow::Result<()> {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    // `bench` says more than what follows from it.
    let names = names.iter().filter(|name| **name == "bench").chain(&names);
    for name in names {
        let shown = |of: Option<&Value>| of.map_or_else(|| "not said".to_owned(), Value::to_string);
        let (one, other) = (one.get(*name), other.get(*name));
        if one != other {
            let (one, other) = (shown(one), shown(other));
            bail!(
                "these were measured in different ways: {name} is {one} in {of_one} and {other} in {of_other}"
            );
        }
    }
    Ok(())
}

fn compare(a: &Runs, b: &Runs) -> anyhow::Result<Vec<Compared>> {
    same_method(&a.method, &b.method, "A", "B")?;
    let only = |one: &Runs, other: &Runs| {
        one.figures.keys().find(|name| !other.figures.contains_key(*name)).cloned()
    };
    for (missing, has, has_not) in [(only(a, b), "A", "B"), (only(b, a), "B", "A")] {
        if let Some(name) = missing {
            bail!("these were measured in different ways: {has} has the figure {name} and {has_not} has not");
        }
    }
    let pairs = a.figures.iter().filter_map(|(name, of_a)| Some((name, of_a, b.figures.get(name)?)));
    Ok(pairs
        .map(|(name, (better, a), (_, b))| Compared {
            name: name.clone(),
            better: *better,
            a: a.clone(),
            b: b.clone(),
        })
        .collect())
}

fn named(compared: &[Compared], tolerance: f64, verdict: Verdict) -> Vec<&str> {
    let wanted = compared.iter().filter(|figure| figure.verdict(tolerance) == verdict);
    wanted.map(|figure| figure.name.as_str()).collect()
}

fn json_of(a: &Runs, b: &Runs, compared: &[Compared], tolerance: f64) -> Value {
    let of_figure = |figure: &Compared| {
        let (least, most) = figure.spread();
        let verdict = figure.verdict(tolerance);
        json!({
            "figure": figure.name, "a": figure.a.median(), "b": figure.b.median(),
            "b_over_a": figure.ratio(), "b_over_a_least": least, "b_over_a_most": most,
            "verdict": (verdict != Verdict::NotJudged).then(|| verdict.word().to_lowercase()),
        })
    };
    let any = |verdict| !named(compared, tolerance, verdict).is_empty();
    let verdict = match () {
        () if any(Verdict::Worse) => "worse",
        () if any(Verdict::Better) => "better",
        () => "same",
    };
    json!({
        "compare": a.method.get("bench"), "tolerance": tolerance, "runs_a": a.count, "runs_b": b.count,
        "verdict": verdict, "figures": compared.iter().map(of_figure).collect::<Vec<_>>(),
    })
}

fn print(a: &Runs, b: &Runs, compared: &[Compared], tolerance: f64, all: bool) {
    let shown: Vec<&Compared> = compared.iter().filter(|of| all || of.better != Better::Told).collect();
    let width = shown.iter().map(|figure| figure.name.len()).max().unwrap_or_default();
    let row = |figure: &&Compared| {
        let (least, most) = figure.spread();
        vec![
            format!("{:<width$}", figure.name),
            number(figure.a.median()),
            number(figure.b.median()),
            format!("{:.2}", figure.ratio()),
            if a.count + b.count > 2 { format!("{least:.2} to {most:.2}") } else { NOT_JUDGED.to_owned() },
            figure.verdict(tolerance).word().to_owned(),
        ]
    };
    let headings = [&format!("{:<width$}", "figure"), "A", "B", "B over A", "spread", ""];
    table(&headings, &shown.iter().map(row).collect::<Vec<_>>());
    let runs =
        |runs: &Runs| if runs.count == 1 { "1 run".to_owned() } else { format!("{} runs", runs.count) };
    out::line(&format!(
        "{} of A, {} of B; more than {} % is called better or worse",
        runs(a),
        runs(b),
        tolerance * 100.0
    ));
    if a.count.min(b.count) < 2 {
        out::line("one run shows no noise: run each some times, in turn, and append what they print");
    }
}

/// With some four digits.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 => grouped(value),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.6}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(better: Better, a: &[f64], b: &[f64]) -> Verdict {
        let of = |values: &[f64]| Values::of(values.to_vec());
        Compared { name: String::new(), better, a: of(a), b: of(b) }.verdict(0.25)
    }

    #[test]
    fn worse_is_beyond_the_tolerance_and_beyond_what_the_runs_differ_by() {
        for (better, a, b, expected) in [
            (Better::More, &[100.0][..], &[79.0][..], Verdict::Worse),
            (Better::More, &[100.0], &[81.0], Verdict::Same),
            (Better::More, &[100.0], &[124.0], Verdict::Same),
            (Better::More, &[100.0], &[126.0], Verdict::Better),
            (Better::Less, &[100.0], &[126.0], Verdict::Worse),
            (Better::Less, &[100.0], &[79.0], Verdict::Better),
            (Better::Told, &[100.0], &[900.0], Verdict::NotJudged),
            (Better::Less, &[90.0, 100.0, 200.0], &[150.0, 150.0, 150.0], Verdict::Noise),
            (Better::Less, &[100.0, 100.0, 100.0], &[90.0, 150.0, 200.0], Verdict::Noise),
            (Better::Less, &[90.0, 100.0, 110.0], &[140.0, 150.0, 200.0], Verdict::Worse),
            (Better::Less, &[0.0], &[0.0], Verdict::Same),
        ] {
            assert_eq!(verdict(better, a, b), expected, "{better:?} {a:?} {b:?}");
        }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_and_the_spread_is_the_farthest_apart() {
        let of = |values: &[f64]| Values::of(values.to_vec());
        assert_eq!(of(&[4.0, 1.0, 2.0, 8.0]).median(), 3.0);
        let compared = Compared {
            name: String::new(),
            better: Better::Less,
            a: of(&[2.0, 1.0, 4.0]),
            b: of(&[8.0, 3.0, 4.0]),
        };
        assert_eq!((compared.ratio(), compared.spread()), (2.0, (0.75, 8.0)));
    }
}
