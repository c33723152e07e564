//! Golden bytes: each variant has a file in each encoding with its cases one behind the other, committed once.
//!
//! A file is never edited: a published variant never changes. A new variant gets new files, which
//! `SHAREDLINE_MAKE_GOLDEN=1 cargo nextest run --test wire` writes where there are none yet.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use sharedline::wire::codec::{
    decode_request, decode_server, encode_owned_delivery, encode_request, encode_response,
};
use sharedline::wire::frame::{BINARY_PREFACE, Encoding, Splitter};
use sharedline::wire::message::{Delivery, Request, Response, ServerBody, VariantInfo};

use crate::cases::{all_deliveries, all_requests, all_responses};

const ENCODINGS: [(Encoding, &str); 2] = [(Encoding::JsonLines, "jsonl"), (Encoding::Binary, "bin")];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wire")
}

fn file_name(side: &str, variant: &VariantInfo, ending: &str) -> String {
    format!("{side}-{:02}-{}.{ending}", variant.number, variant.name)
}

/// The messages of a file, split as a connection's bytes are.
pub(crate) fn split(encoding: Encoding, bytes: &[u8]) -> Vec<Bytes> {
    let mut buffer = BytesMut::new();
    if encoding == Encoding::Binary {
        buffer.extend_from_slice(&BINARY_PREFACE);
    }
    buffer.extend_from_slice(bytes);
    let mut splitter = Splitter::new();
    splitter.accept_hello();
    let messages = std::iter::from_fn(|| splitter.next_message(&mut buffer).unwrap()).collect();
    splitter.finish(&buffer).unwrap();
    messages
}

/// Compares the cases of every variant with its files; gives the names of the files.
fn check<M: PartialEq + Debug>(
    side: &str,
    variants: &[VariantInfo],
    cases: &[M],
    number: impl Fn(&M) -> u32,
    encode: impl Fn(Encoding, u64, &M, &mut BytesMut),
    decode: impl Fn(Encoding, &Bytes) -> (u64, M),
) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for variant in variants {
        let cases: Vec<&M> = cases.iter().filter(|case| number(case) == variant.number).collect();
        assert!(!cases.is_empty(), "{side} {} has no case", variant.name);
        for (encoding, ending) in ENCODINGS {
            let mut bytes = BytesMut::new();
            for (at, case) in cases.iter().enumerate() {
                encode(encoding, id_of(at), case, &mut bytes);
            }
            let name = file_name(side, variant, ending);
            let path = folder().join(&name);
            if std::env::var_os("SHAREDLINE_MAKE_GOLDEN").is_some() && !path.exists() {
                std::fs::write(&path, &bytes).unwrap();
            }
            let golden = std::fs::read(&path).unwrap_or_else(|_| panic!("no golden file {name}"));
            let messages = split(encoding, &golden);
            assert_eq!(messages.len(), cases.len(), "{name}");
            for (at, (case, message)) in cases.iter().zip(&messages).enumerate() {
                let (id, value) = decode(encoding, message);
                assert_eq!(value, **case, "{name}, case {at}");
                assert!(id == 0 || id == id_of(at), "{name}, case {at}");
            }
            assert!(bytes == golden, "{name}: what is written now differs from what was published");
            names.insert(name);
        }
    }
    names
}

/// Ids of one byte, and of nine.
fn id_of(case: usize) -> u64 {
    if case == 1 { (1 << 53) - 1 } else { case as u64 + 1 }
}

#[test]
fn every_variant_is_written_and_read_as_it_was_published() {
    let mut known = check(
        "request",
        &Request::variants(),
        &all_requests(),
        Request::number,
        |encoding, id, request, out| encode_request(encoding, id, request, out).unwrap(),
        |encoding, frame| decode_request(encoding, frame).unwrap(),
    );
    known.extend(check(
        "response",
        &Response::variants(),
        &all_responses(),
        Response::number,
        |encoding, id, response, out| encode_response(encoding, id, response, out).unwrap(),
        |encoding, frame| match decode_server(encoding, frame).unwrap() {
            message if message.id == 0 => panic!("the id is gone"),
            message => match message.body {
                ServerBody::Response(response) => (message.id, response),
                ServerBody::Delivery(delivery) => panic!("{delivery:?}"),
            },
        },
    ));
    known.extend(check(
        "delivery",
        &Delivery::variants(),
        &all_deliveries(),
        Delivery::number,
        |encoding, _, delivery, out| encode_owned_delivery(encoding, delivery, out).unwrap(),
        |encoding, frame| match decode_server(encoding, frame).unwrap().body {
            ServerBody::Delivery(delivery) => (0, delivery),
            ServerBody::Response(response) => panic!("{response:?}"),
        },
    ));
    let there: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, known, "files and variants are not the same");
}

#[test]
fn numbers_count_up_without_a_hole_in_each_direction() {
    let requests: Vec<u32> = Request::variants().iter().map(|variant| variant.number).collect();
    assert_eq!(requests, (0..24).collect::<Vec<_>>());
    let mut of_the_broker: Vec<u32> =
        Response::variants().iter().chain(&Delivery::variants()).map(|variant| variant.number).collect();
    // What came later has the next numbers, be it a response or a delivery.
    of_the_broker.sort_unstable();
    assert_eq!(of_the_broker, (0..29).collect::<Vec<_>>());
}

#[test]
fn every_error_code_has_the_contracts_name() {
    let named: Vec<String> = all_responses()
        .iter()
        .filter_map(|response| match response {
            Response::Error(error) => Some(error.code.as_str().to_owned()),
            _ => None,
        })
        .collect();
    let contract = "bad_message unknown_type too_large unsupported_version unauthenticated forbidden not_found \
                    number_taken service_not_eligible not_subscribed not_parent claimed not_claimed \
                    unknown_agent stale_confirm conflict window_closed channel_closed overloaded unavailable \
                    internal replaced stalled timeout revoked claimed";
    assert_eq!(named, contract.split_whitespace().collect::<Vec<_>>());
}
