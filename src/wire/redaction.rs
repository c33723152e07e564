//! Where, in a message object, stands what a service wrote for machines, and what is left without it (B7).
//!
//! Invariants: the cuts are ascending and apart, and take a comma with them, so that what is left is JSON. Where it
//! is not certain what a value holds (another shape than WhatsApp's, a name that cannot be unescaped), the whole of
//! it is cut. Every member of a name is cut, however often it stands and however it is escaped.

use std::ops::Range;

use crate::wire::content::{for_each_member, piece};

/// What to do with the value of a name.
pub(super) enum Rule {
    /// It is cut, with its name.
    Cut,
    /// An object, in which rules hold. A value of another shape is cut.
    Inside(&'static [(&'static str, Rule)]),
    /// A string that holds the JSON of an object, in which rules hold. A value of another shape is cut.
    InsideText(&'static [(&'static str, Rule)]),
}

/// What a service writes for machines into its messages, and gets back with what the customer chose (B7).
pub(super) const WRITTEN_FOR_MACHINES: &[(&str, Rule)] = &[
    ("button", Rule::Inside(&[("payload", Rule::Cut)])),
    (
        "interactive",
        Rule::Inside(&[
            ("button_reply", Rule::Inside(&[("id", Rule::Cut)])),
            ("list_reply", Rule::Inside(&[("id", Rule::Cut), ("description", Rule::Cut)])),
            ("nfm_reply", Rule::Inside(&[("response_json", Rule::InsideText(&[("flow_token", Rule::Cut)]))])),
        ]),
    ),
];

/// The ranges of `object`, which begins with its brace, that the rules cut.
///
/// # Errors
/// When it is not an object, or one of its own names cannot be unescaped: the caller then cuts or refuses it whole.
pub(super) fn cuts(object: &str, rules: &[(&str, Rule)]) -> Result<Vec<Range<usize>>, serde_json::Error> {
    let mut cutter = Cutter { object, found: Vec::new(), end: 1, has_kept: false };
    for_each_member(object, |name, value| {
        let Some((_, rule)) = rules.iter().find(|(ruled, _)| *ruled == name) else {
            return cutter.keep(&value, Vec::new());
        };
        match cuts_of_value(piece(object, &value), rule) {
            Some(inner) => cutter.keep(&value, inner),
            None => cutter.cut(&value),
        }
    })?;
    Ok(cutter.finish())
}

/// What is left of `text` without the cuts.
pub(super) fn without(text: &str, cuts: &[Range<usize>]) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    for cut in cuts {
        kept.push_str(piece(text, &(from..cut.start)));
        from = cut.end;
    }
    kept.push_str(piece(text, &(from..text.len())));
    kept
}

/// The cuts within a value, or nothing where all of it is to be cut.
fn cuts_of_value(value: &str, rule: &Rule) -> Option<Vec<Range<usize>>> {
    match rule {
        Rule::Cut => None,
        Rule::Inside(rules) if value.starts_with('{') => cuts(value, rules).ok(),
        Rule::InsideText(rules) => cuts_of_text(value, rules),
        Rule::Inside(_) => None,
    }
}

/// The cuts within a JSON string whose text is the JSON of an object.
fn cuts_of_text(quoted: &str, rules: &[(&str, Rule)]) -> Option<Vec<Range<usize>>> {
    let text: String = serde_json::from_str(quoted).ok()?;
    let indent = text.len() - text.trim_start_matches([' ', '\t', '\n', '\r']).len();
    let inner = cuts(text.get(indent..)?, rules).ok()?;
    let bounds = inner.iter().flat_map(|cut| [cut.start + indent, cut.end + indent]);
    let places = places_in_quoted(quoted, &text, bounds)?;
    Some(places.chunks_exact(2).filter_map(|pair| Some(*pair.first()?..*pair.last()?)).collect())
}

/// Where the bytes at `bounds` (ascending) of the unescaped `text` stand in `quoted`.
///
/// Each character takes itself, two bytes (`\n`), or one or two `\uXXXX`, by whether UTF-16 needs a pair for it.
fn places_in_quoted(quoted: &str, text: &str, bounds: impl Iterator<Item = usize>) -> Option<Vec<usize>> {
    let raw = quoted.as_bytes();
    let mut characters = text.chars();
    let (mut at, mut place) = (0, 1);
    let mut places = Vec::new();
    for bound in bounds {
        while at < bound {
            let character = characters.next()?;
            at += character.len_utf8();
            place += match (raw.get(place)?, raw.get(place + 1)) {
                (b'\\', Some(b'u')) => 6 * character.len_utf16(),
                (b'\\', _) => 2,
                _ => character.len_utf8(),
            };
        }
        places.push(place);
    }
    Some(places)
}

/// Collects the cuts of one object, member by member.
struct Cutter<'t> {
    object: &'t str,
    found: Vec<Range<usize>>,
    /// Where the last member ended; at first, behind the brace.
    end: usize,
    /// Whether a member before this one stays: then a cut takes the comma before it, else the one behind.
    has_kept: bool,
}

impl Cutter<'_> {
    fn keep(&mut self, value: &Range<usize>, inner: Vec<Range<usize>>) {
        if !self.has_kept && self.end > 1 {
            let behind = self.object.get(self.end..).unwrap_or_default();
            let comma = behind.find(',').map_or(0, |comma| comma + 1);
            self.found.push(1..self.end + comma);
        }
        self.has_kept = true;
        self.found.extend(inner.into_iter().map(|cut| value.start + cut.start..value.start + cut.end));
        self.end = value.end;
    }

    fn cut(&mut self, value: &Range<usize>) {
        if self.has_kept {
            match self.found.last_mut() {
                Some(last) if last.end == self.end => last.end = value.end,
                _ => self.found.push(self.end..value.end),
            }
        }
        self.end = value.end;
    }

    fn finish(mut self) -> Vec<Range<usize>> {
        if !self.has_kept && self.end > 1 {
            self.found.push(1..self.end);
        }
        self.found
    }
}
