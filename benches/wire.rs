//! How many messages a second one core writes and reads, in either encoding. `cargo bench --bench wire`.
//!
//! Deliveries are written straight from the domain's view, as a session does; requests are read from one frame.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a program that prints figures for people, and ends where anything is wrong"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use sharedline::domain::content::Content;
use sharedline::domain::event::{ClearTo, Customer, Event, Message, Record};
use sharedline::domain::ids::{ChannelId, ConversationId, Offset, ServiceId, Timestamp};
use sharedline::domain::view::{Masking, Viewer, view};
use sharedline::wire::codec::{decode_request, encode_request};
use sharedline::wire::delivery::encode_delivery;
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::{RawContent, Request, requests};

/// Size of a message object, in bytes: with its other fields an `inbound` in binary has about 350.
const CONTENT_BYTES: usize = 256;
/// How long each figure is measured.
const DURATION: Duration = Duration::from_secs(2);
/// Messages between two looks at the clock; as many as a session may write before it sends.
const BATCH: u64 = 256;

fn content() -> Bytes {
    let frame = r#"{"type":"text","text":{"body":""}}"#.len();
    let body = "x".repeat(CONTENT_BYTES - frame);
    Bytes::from(format!(r#"{{"type":"text","text":{{"body":"{body}"}}}}"#))
}

fn customer() -> Customer {
    Customer {
        user_id: Some("US.13491208655302741918".parse().unwrap()),
        wa_id: Some("16505551234".parse().unwrap()),
        name: Some("Eve Example".into()),
    }
}

fn measure(what: &str, mut batch: impl FnMut() -> usize) {
    let begin = Instant::now();
    let (mut messages, mut bytes) = (0_u64, 0_usize);
    while begin.elapsed() < DURATION {
        bytes += batch();
        messages += BATCH;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let rate = messages as f64 / seconds / 1e6;
    let volume = bytes as f64 / seconds / 1e6;
    println!("{what:<40} {rate:>7.2} M/s {:>7.0} ns {volume:>8.0} MB/s", 1e3 / rate);
}

fn main() {
    let channel = ChannelId(0x00c0_ffee_0123_4567_89ab_cdef_0000_0001);
    let record = Record {
        offset: Offset(1_000_000),
        at: Timestamp(1_772_000_000_000),
        conversation: Some(ConversationId(0x0123_4567_89ab_cdef)),
        event: Event::from(Message {
            message_id: "wamid.HBgLMTY1MDU1NTEyMzQVAgASGBQzQTdCNzg5".parse().unwrap(),
            customer: customer(),
            formerly: Vec::new(),
            sent_at: Timestamp(1_771_999_999_000),
            content: Content::checked(content(), 9..13, &[]),
            refers_to: None,
            clear_to: ClearTo::Everyone,
            contact: None,
        }),
    };
    let service: ServiceId = "crm".parse().unwrap();
    let viewer = Viewer { service: &service, masking: Masking::Broker };
    for (encoding, name) in [(Encoding::Binary, "binary"), (Encoding::JsonLines, "json")] {
        let mut out = BytesMut::with_capacity(1 << 20);
        measure(&format!("message delivery, view to {name}"), || {
            for _ in 0..BATCH {
                let (_, seen) = view(black_box(&record), &viewer).unwrap();
                encode_delivery(encoding, channel, &record, &seen, &mut out).unwrap();
            }
            let bytes = out.len();
            black_box(&out);
            out.clear();
            bytes
        });
    }
    for (encoding, name) in [(Encoding::Binary, "binary"), (Encoding::JsonLines, "json")] {
        let request: Request = requests::Inbound {
            number: "+15550783881".parse().unwrap(),
            message_id: "wamid.HBgLMTY1MDU1NTEyMzQVAgASGBQzQTdCNzg5".parse().unwrap(),
            customer: customer(),
            at: Timestamp(1_771_999_999_000),
            content: RawContent(content()),
            refers_to: None,
        }
        .into();
        let mut out = BytesMut::new();
        encode_request(encoding, 1_000_000, &request, &mut out).unwrap();
        match encoding {
            Encoding::Binary => out.advance(4),
            Encoding::JsonLines => out.truncate(out.len() - 1),
        }
        let frame = out.freeze();
        measure(&format!("inbound, {name} to request"), || {
            for _ in 0..BATCH {
                black_box(decode_request(encoding, black_box(&frame)).unwrap());
            }
            frame.len() * usize::try_from(BATCH).unwrap()
        });
    }
}
