//! Holds `docs/protocol.md` to the code: its tables list what there is, and its examples are messages.

use bytes::{Bytes, BytesMut};
use sharedline::wire::codec::{
    decode_request, decode_server, encode_owned_delivery, encode_request, encode_response,
};
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::{Delivery, Request, Response, ServerBody, VariantInfo, word_sets};

use crate::cases::{all_deliveries, all_requests, all_responses};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// The part of the document below a heading, up to the next heading of the same or a higher level.
pub(crate) fn part(heading: &str) -> &'static str {
    let (_, below) = DOCUMENT.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let level = heading.split(' ').next().unwrap();
    let ends = [format!("\n{level} "), "\n## ".to_owned()];
    ends.iter().filter_map(|end| below.find(end.as_str())).min().map_or(below, |end| &below[..end])
}

/// The rows of a part's table that begin with a number.
fn numbered_rows(heading: &str) -> Vec<&'static str> {
    let row = |line: &&str| {
        line.strip_prefix("| ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    part(heading).lines().filter(row).collect()
}

fn row(variant: &VariantInfo) -> String {
    let fields: Vec<String> =
        variant.fields.iter().map(|field| format!("`{}`: {}", field.name, field.kind)).collect();
    format!("| {} | `{}` | {} |", variant.number, variant.name, fields.join(", "))
}

/// The lines of every fenced block of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let blocks = DOCUMENT.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap());
    blocks.flat_map(str::lines).collect()
}

#[test]
fn the_document_lists_every_variant_with_its_fields_in_order() {
    for (heading, variants) in [
        ("### Requests", Request::variants()),
        ("### Responses, error, goaway", Response::variants()),
        ("### Deliveries", Delivery::variants()),
    ] {
        let expected: Vec<String> = variants.iter().map(row).collect();
        assert_eq!(numbered_rows(heading), expected, "{heading}");
    }
}

#[test]
fn the_document_lists_every_word_with_its_number() {
    let words = part("### Words");
    let listed = words.lines().filter(|line| line.starts_with("| ")).count();
    assert_eq!(listed, word_sets().len() + 1, "one row for each, and the heading");
    for (set, words_of_set) in word_sets() {
        let numbered: Vec<String> =
            words_of_set.iter().map(|(number, word)| format!("{number} `{word}`")).collect();
        let row = format!("| {set} | {} |", numbered.join(", "));
        assert!(words.lines().any(|line| line == row), "{row}");
        let numbers: Vec<u32> = words_of_set.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (0..numbers.len() as u32).collect::<Vec<_>>(), "{set} has a hole");
    }
}

#[test]
fn the_document_says_what_to_do_about_every_error_code() {
    let (_, codes) = word_sets().iter().find(|(set, _)| *set == "error code").unwrap();
    for (_, code) in *codes {
        assert!(part("## 9. Errors").contains(&format!("`{code}`")), "{code}");
    }
}

#[test]
fn the_document_describes_every_kind_that_is_more_than_one_value() {
    let kinds = part("### Objects and choices");
    let described = |kind: &str| kinds.lines().any(|line| line.starts_with(&format!("| {kind} |")));
    let of_one_value = [
        "bool",
        "u32",
        "u64",
        "text",
        "name",
        "content",
        "offset",
        "time",
        "number",
        "portal id",
        "service id",
        "gateway id",
        "adapter name",
        "agent id",
        "reply id",
        "message id",
        "customer id",
        "channel id",
        "conversation id",
        "delivery",
    ];
    let variants = [Request::variants(), Response::variants(), Delivery::variants()].concat();
    for kind in variants.iter().flat_map(|variant| &variant.fields).map(|field| &field.kind) {
        let plain = kind.trim_end_matches('?').trim_start_matches('[').trim_end_matches(']');
        let is_word = word_sets().iter().any(|(set, _)| *set == plain);
        assert!(of_one_value.contains(&plain) || is_word || described(plain), "{kind}");
    }
}

#[test]
fn every_example_is_a_message_and_all_sorts_of_them_are_there() {
    let examples = blocks("json");
    assert!(examples.len() > 30, "the examples are not read any more: only {}", examples.len());
    let (mut asked, mut answered) = (0, 0);
    for example in examples {
        let line = Bytes::from_static(example.as_bytes());
        if decode_request(Encoding::JsonLines, &line).is_ok() {
            asked += 1;
        } else {
            let read = decode_server(Encoding::JsonLines, &line);
            assert!(read.is_ok(), "{example}: {read:?}");
            answered += 1;
        }
    }
    assert!(asked > 10 && answered > 15, "{asked} requests, {answered} of the broker's");
}

/// The lines of each block of bytes, each beside the message on the same line of the block of JSON before it.
fn messages_with_bytes() -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    for (at, _) in DOCUMENT.match_indices("```hex\n") {
        let (_, messages) = DOCUMENT[..at].rsplit_once("```json\n").unwrap();
        let messages: Vec<&str> = messages.split("\n```").next().unwrap().lines().collect();
        let bytes = DOCUMENT[at..].lines().skip(1).take_while(|line| *line != "```");
        let bytes: Vec<String> = bytes.map(|line| line.replace(' ', "")).collect();
        assert_eq!(messages.len(), bytes.len(), "{messages:?}");
        pairs.extend(messages.into_iter().zip(bytes));
    }
    pairs
}

#[test]
fn the_binary_examples_are_the_bytes_of_the_messages_beside_them() {
    let pairs = messages_with_bytes();
    assert!(pairs.len() >= 8, "the examples are not read any more: only {}", pairs.len());
    for (message, bytes) in pairs {
        let line = Bytes::from_static(message.as_bytes());
        let mut out = BytesMut::new();
        if let Ok((id, request)) = decode_request(Encoding::JsonLines, &line) {
            encode_request(Encoding::Binary, id, &request, &mut out).unwrap();
            let frame = Bytes::copy_from_slice(&out[4..]);
            assert_eq!(decode_request(Encoding::Binary, &frame).unwrap(), (id, request), "{message}");
        } else {
            let read = decode_server(Encoding::JsonLines, &line).unwrap();
            match &read.body {
                ServerBody::Response(response) => {
                    encode_response(Encoding::Binary, read.id, response, &mut out).unwrap();
                }
                ServerBody::Delivery(delivery) => {
                    encode_owned_delivery(Encoding::Binary, delivery, &mut out).unwrap();
                }
            }
            let frame = Bytes::copy_from_slice(&out[4..]);
            assert_eq!(decode_server(Encoding::Binary, &frame).unwrap(), read, "{message}");
        }
        let written: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, written, "{message}");
    }
}

/// A reader written from the document alone: section 10, for texts, varints and options.
mod by_the_document {
    pub(super) struct Reader<'a>(pub(super) &'a [u8]);

    impl<'a> Reader<'a> {
        pub(super) fn take(&mut self, length: usize) -> &'a [u8] {
            let (taken, rest) = self.0.split_at(length);
            self.0 = rest;
            taken
        }

        pub(super) fn varint(&mut self) -> u128 {
            let length = match self.take(1)[0] {
                small @ 0..=250 => return u128::from(small),
                251 => 2,
                252 => 4,
                253 => 8,
                254 => 16,
                255 => panic!("255 begins nothing"),
            };
            let mut value = [0; 16];
            value[..length].copy_from_slice(self.take(length));
            u128::from_le_bytes(value)
        }

        pub(super) fn text(&mut self) -> String {
            let length = usize::try_from(self.varint()).unwrap();
            String::from_utf8(self.take(length).to_vec()).unwrap()
        }

        pub(super) fn option<T>(&mut self, value: impl Fn(&mut Self) -> T) -> Option<T> {
            match self.take(1)[0] {
                0 => None,
                1 => Some(value(self)),
                other => panic!("option {other}"),
            }
        }
    }
}

#[test]
fn who_follows_the_document_alone_reads_a_message_delivery() {
    let golden = include_bytes!("../golden/wire/delivery-13-message.bin");
    let length = u32::from_be_bytes(*golden.first_chunk().unwrap()) as usize;
    let mut reader = by_the_document::Reader(&golden[4..4 + length]);
    assert_eq!((reader.varint(), reader.varint()), (0, 13));
    assert_eq!(format!("ch-{:032x}", reader.varint()), "ch-00c0ffee0123456789abcdef00000001");
    assert_eq!(reader.varint(), 251);
    assert_eq!(format!("cv-{:016x}", reader.varint()), "cv-0123456789abcdef");
    assert_eq!(reader.varint(), 1_772_000_000_123);
    assert_eq!(reader.text(), "wamid.HBgLMTY1MDU1NTEyMzQ=");
    assert_eq!(reader.text(), "US.13491208655302741918");
    let text = |reader: &mut by_the_document::Reader<'_>| reader.text();
    assert_eq!(reader.option(text).as_deref(), Some("16505551234"));
    assert_eq!(reader.option(text).as_deref(), Some("Eve \"E\" Ünal\\\n\u{1}"));
    assert!(reader.text().starts_with(r#"{"type":"text""#));
    assert_eq!(reader.take(1), [0]);
    assert!(reader.0.is_empty());
}

#[test]
fn the_document_names_every_type() {
    let cases: std::collections::BTreeSet<&str> = all_requests()
        .iter()
        .map(Request::name)
        .chain(all_responses().iter().map(Response::name))
        .chain(all_deliveries().iter().map(Delivery::name))
        .collect();
    for name in cases {
        assert!(DOCUMENT.contains(&format!("`{name}`")), "{name}");
    }
}
