//! A strict reader of OpenMetrics text: what is not as the standard says it is a failure.

use std::collections::{BTreeMap, BTreeSet};

/// A sample's name and labels, as written.
pub(crate) type Series = (String, String);

/// A family.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    pub(crate) help: String,
}

/// What a scrape said.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    pub(crate) families: BTreeMap<String, Family>,
    pub(crate) samples: BTreeMap<Series, f64>,
}

impl Scrape {
    /// The value of a sample; nothing where it is not there.
    pub(crate) fn find(&self, name: &str, labels: &str) -> Option<f64> {
        self.samples.get(&(name.to_owned(), labels.to_owned())).copied()
    }

    pub(crate) fn value(&self, name: &str, labels: &str) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("no {name}{{{labels}}}"))
    }
}

fn endings(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "gauge" => &[""],
        "histogram" => &["_bucket", "_sum", "_count"],
        "info" => &["_info"],
        other => panic!("a type that is not expected: {other}"),
    }
}

/// Reads a whole text.
pub(crate) fn read(text: &str) -> Scrape {
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    let mut scrape = Scrape::default();
    let mut current = String::new();
    let mut closed = BTreeSet::new();
    for line in body.lines() {
        if let Some(meta) = line.strip_prefix("# ") {
            let mut parts = meta.splitn(3, ' ');
            let (word, name, rest) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
            if name != current {
                closed.insert(std::mem::replace(&mut current, name.to_owned()));
                assert!(!closed.contains(name), "{name} stands in two places");
            }
            let family = scrape.families.entry(name.to_owned()).or_default();
            match word {
                "HELP" => family.help = rest.to_owned(),
                "TYPE" => family.kind = rest.to_owned(),
                "UNIT" => family.unit = Some(rest.to_owned()),
                other => panic!("a word that is not expected: {other}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        let kind = &scrape.families[&current].kind;
        let fits = endings(kind).iter().any(|ending| name == format!("{current}{ending}"));
        assert!(fits, "{name} does not belong to {current}, a {kind}");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let before = scrape.samples.insert((name.to_owned(), labels.to_owned()), value);
        assert!(before.is_none(), "{series} stands twice");
    }
    for (name, family) in &scrape.families {
        assert!(!family.help.is_empty() && !family.kind.is_empty(), "{name}");
        if let Some(unit) = &family.unit {
            assert!(name.ends_with(unit), "{name} ends with its unit {unit}");
        }
    }
    scrape
}
