//! Holds `docs/promises.md` to the truth: every rule has its row, every test that a row names exists.

#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const PROMISES: &str = include_str!("../docs/promises.md");
const RULES: &str = include_str!("../docs/rules.md");

fn functions_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions_below(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let bare = |line: &'_ str| {
                line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("async ").to_owned()
            };
            let lines: Vec<String> = source.lines().map(bare).collect();
            let names = lines.iter().filter_map(|line| line.strip_prefix("fn "));
            found.extend(names.filter_map(|rest| rest.split_once('(')).map(|(name, _)| name.to_owned()));
        }
    }
}

/// The texts between back-ticks that look like a test's name: words joined by underscores.
fn tests_named() -> Vec<&'static str> {
    let quoted = PROMISES.split('`').skip(1).step_by(2);
    quoted.filter(|text| text.matches('_').count() >= 3).collect()
}

#[test]
fn every_rule_has_its_row() {
    for (family, last) in [("R", 20), ("B", 18), ("P", 5)] {
        for number in 1..=last {
            let row = format!("| {family}{number} | ");
            let line = PROMISES.lines().find(|line| line.starts_with(&row));
            let line = line.unwrap_or_else(|| panic!("{family}{number} has no row"));
            let says_something = line.contains('`') || line.contains("not yet");
            assert!(says_something, "{family}{number} names neither a test nor why there is none");
            assert!(
                RULES.contains(&format!("\n- **{family}{number}** ")),
                "{family}{number} is said nowhere"
            );
        }
    }
}

/// The first cells of the rows of a section.
fn rows_of(section: &str) -> Vec<&'static str> {
    let begin =
        PROMISES.find(&format!("\n### {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let rest = &PROMISES[begin + 1..];
    let end = rest[3..].find("\n#").map_or(rest.len(), |end| end + 3);
    rest[..end].lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect()
}

#[test]
fn every_request_and_every_delivery_of_the_protocol_has_its_row() {
    use sharedline::wire::message::{Delivery, Request};
    for (section, variants) in [("Requests", Request::variants()), ("Deliveries", Delivery::variants())] {
        let rows = rows_of(section);
        for variant in variants {
            let cell = format!("`{}`", variant.name);
            assert!(rows.contains(&cell.as_str()), "{section}: {cell} has no row");
        }
    }
}

#[test]
fn every_row_names_a_test_or_says_why_there_is_none() {
    for line in PROMISES.lines().filter(|line| line.starts_with("| ") && !line.starts_with("|---")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let is_head =
            ["rule", "point", "verb", "part", "request", "delivery", "route", "kind"].contains(&cells[0]);
        assert!(
            is_head || line.contains('`') || line.contains("not yet") || line.contains("above"),
            "{line}"
        );
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let mut found = BTreeSet::new();
    functions_below(Path::new("tests"), &mut found);
    functions_below(Path::new("src"), &mut found);
    let named = tests_named();
    assert!(named.len() > 80, "the names are not read any more: only {}", named.len());
    for name in named {
        assert!(found.contains(name), "no test is called {name}");
    }
}
