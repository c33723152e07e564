//! Whatever can be said reads back, in either encoding, and says the same in both.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use sharedline::domain::command::ChannelSeen;
use sharedline::domain::ids::{ChannelId, ConversationId, ServiceId};
use sharedline::wire::codec::{
    EncodeError, decode_request, decode_server, encode_owned_delivery, encode_request, encode_response,
};
use sharedline::wire::frame::{Encoding, FRAME_BYTES_MAX};
use sharedline::wire::message::{
    ConversationEntry, Flag, RawContent, Request, Response, ServerBody, requests,
};

use crate::arbitrary;
use crate::cases::{all_requests, all_responses, content};
use crate::golden::split;

const ENCODINGS: [Encoding; 2] = [Encoding::JsonLines, Encoding::Binary];

/// The one message that the bytes hold.
fn one(encoding: Encoding, out: &BytesMut) -> Bytes {
    let mut messages = split(encoding, out);
    assert_eq!(messages.len(), 1, "a message is one line or one frame");
    messages.pop().unwrap()
}

fn json_of(request: &Request) -> Bytes {
    let mut out = BytesMut::new();
    encode_request(Encoding::JsonLines, 7, request, &mut out).unwrap();
    one(Encoding::JsonLines, &out)
}

proptest! {
    #[test]
    fn a_request_reads_back_in_either_encoding(request in arbitrary::request(), id in 1..=(1_u64 << 53) - 1) {
        let expected = if matches!(request, Request::Ack(_)) { 0 } else { id };
        for encoding in ENCODINGS {
            let mut out = BytesMut::new();
            encode_request(encoding, id, &request, &mut out).unwrap();
            let read = decode_request(encoding, &one(encoding, &out));
            prop_assert_eq!(read, Ok((expected, request.clone())));
        }
    }

    #[test]
    fn a_response_reads_back_in_either_encoding(response in arbitrary::response(), id in 0..=(1_u64 << 53) - 1) {
        for encoding in ENCODINGS {
            let mut out = BytesMut::new();
            encode_response(encoding, id, &response, &mut out).unwrap();
            let read = decode_server(encoding, &one(encoding, &out)).unwrap();
            prop_assert_eq!((read.id, read.body), (id, ServerBody::Response(response.clone())));
        }
    }

    #[test]
    fn a_delivery_reads_back_in_either_encoding(delivery in arbitrary::delivery()) {
        for encoding in ENCODINGS {
            let mut out = BytesMut::new();
            encode_owned_delivery(encoding, &delivery, &mut out).unwrap();
            let read = decode_server(encoding, &one(encoding, &out)).unwrap();
            prop_assert_eq!((read.id, read.body), (0, ServerBody::Delivery(delivery.clone())));
        }
    }

    #[test]
    fn json_to_binary_to_json_gives_the_same_line(request in arbitrary::request()) {
        let line = json_of(&request);
        let (id, read) = decode_request(Encoding::JsonLines, &line).unwrap();
        let mut out = BytesMut::new();
        encode_request(Encoding::Binary, id, &read, &mut out).unwrap();
        let (_, read) = decode_request(Encoding::Binary, &one(Encoding::Binary, &out)).unwrap();
        prop_assert_eq!(json_of(&read), line);
    }

    #[test]
    fn a_line_is_json_as_others_read_it_whatever_the_texts_are(response in arbitrary::response()) {
        let mut out = BytesMut::new();
        encode_response(Encoding::JsonLines, 1, &response, &mut out).unwrap();
        let line = one(Encoding::JsonLines, &out);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(&value["type"], response.name());
        prop_assert!(line.iter().all(|byte| *byte >= 0x20));
    }

    #[test]
    fn the_order_of_names_and_unknown_names_do_not_matter(
        request in arbitrary::request(),
        turn in 0_usize..12,
    ) {
        let line = json_of(&request);
        let text = std::str::from_utf8(&line).unwrap();
        let object: std::collections::BTreeMap<&str, &serde_json::value::RawValue> =
            serde_json::from_str(text).unwrap();
        let mut members: Vec<String> =
            object.iter().map(|(name, value)| format!("\"{name}\" : {value}")).collect();
        members.push(r#""fancy":{"type":[1,2,{}],"id":null}"#.to_owned());
        let turn = turn % members.len();
        members.rotate_left(turn);
        let turned = Bytes::from(format!(" {{ {} }} ", members.join(" , ")));
        prop_assert_eq!(
            decode_request(Encoding::JsonLines, &turned),
            decode_request(Encoding::JsonLines, &line)
        );
    }
}

#[test]
fn an_optional_field_may_be_null() {
    let line = br#"{"type":"pick_up","id":1,"channel":"ch-00c0ffee0123456789abcdef00000001","conversation":"cv-0123456789abcdef","agent":"ann","confirm":null}"#;
    let (_, request) = decode_request(Encoding::JsonLines, &Bytes::from_static(line)).unwrap();
    assert!(matches!(request, Request::PickUp(requests::PickUp { confirm: None, .. })));
    let line = br#"{"type":"hello","id":1,"version":1,"portal":"acme","service":"crm","gateway":null,"token":"t","adapter":"a","window":null,"deliver":null,"from":null,"heartbeat_ms":null}"#;
    let (_, request) = decode_request(Encoding::JsonLines, &Bytes::from_static(line)).unwrap();
    let Request::Hello(hello) = request else { panic!("{request:?}") };
    assert_eq!((hello.window, hello.from.0.len()), (1024, 0));
}

#[test]
fn content_laid_out_over_lines_stays_on_one_line() {
    let laid_out = RawContent(Bytes::from_static(b"{\n\t\"type\":\"text\",\r\n\"text\":{\"body\":\"Hi\"}}"));
    let request: Request = requests::Inbound { content: laid_out, ..inbound() }.into();
    let line = json_of(&request);
    assert!(line.iter().all(|byte| *byte >= 0x20));
    let (_, read) = decode_request(Encoding::JsonLines, &line).unwrap();
    let Request::Inbound(read) = read else { panic!("{read:?}") };
    let value: serde_json::Value = serde_json::from_slice(&read.content.0).unwrap();
    assert_eq!(value, serde_json::json!({"type": "text", "text": {"body": "Hi"}}));
}

pub(crate) fn inbound() -> requests::Inbound {
    let found = all_requests().into_iter().find_map(|request| match request {
        Request::Inbound(inbound) => Some(inbound),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn content_is_a_slice_of_the_frame_that_it_came_in() {
    for encoding in ENCODINGS {
        let mut out = BytesMut::new();
        encode_request(encoding, 1, &inbound().into(), &mut out).unwrap();
        let frame = one(encoding, &out);
        let (_, Request::Inbound(read)) = decode_request(encoding, &frame).unwrap() else { panic!() };
        assert_eq!(read.content, content());
        assert!(frame.as_ptr_range().contains(&read.content.0.as_ptr()), "copied");
    }
}

#[test]
fn a_message_that_would_be_too_long_leaves_the_buffer_as_it_was() {
    for encoding in ENCODINGS {
        let head = if encoding == Encoding::Binary { 4 } else { 1 };
        let with_content = |length: usize, out: &mut BytesMut| {
            let content = RawContent(Bytes::from(vec![b'x'; length]));
            encode_request(encoding, 1, &requests::Inbound { content, ..inbound() }.into(), out)
        };
        let mut out = BytesMut::from(&b"before"[..]);
        let some = FRAME_BYTES_MAX - 2000;
        with_content(some, &mut out).unwrap();
        let beside = out.len() - 6 - head - some;
        out.truncate(6);

        with_content(FRAME_BYTES_MAX - beside, &mut out).unwrap();
        assert_eq!(out.len(), 6 + head + FRAME_BYTES_MAX);
        out.truncate(6);
        let refused = with_content(FRAME_BYTES_MAX - beside + 1, &mut out);
        assert_eq!(refused, Err(EncodeError::TooLong { bytes: FRAME_BYTES_MAX + 1 }));
        assert_eq!(&out[..], b"before");
    }
}

#[test]
fn a_page_that_would_be_too_long_is_cut_and_says_where_to_go_on() {
    let find = |wanted: fn(&Response) -> bool| all_responses().into_iter().find(wanted).unwrap();
    let Response::Conversations(mut page) = find(|one| matches!(one, Response::Conversations(_))) else {
        panic!()
    };
    let (entry, claim) = (page.conversations[0].clone(), page.conversations[0].claims[0].clone());
    page.conversations = (1..=200_u64)
        .map(|number| ConversationEntry {
            conversation: ConversationId(number),
            claims: vec![claim.clone(); 300],
            ..entry.clone()
        })
        .collect();
    page.next = None;
    let Response::Channels(mut channels) = find(|one| matches!(one, Response::Channels(_))) else { panic!() };
    let subscribers: std::sync::Arc<[ServiceId]> = vec!["x".repeat(64).parse().unwrap(); 100].into();
    let channel = ChannelSeen { subscribers, ..channels.channels[0].clone() };
    channels.channels =
        (1..=500_u128).map(|number| ChannelSeen { channel: ChannelId(number), ..channel.clone() }).collect();
    channels.next = None;
    let Response::Welcome(mut welcome) = find(|one| matches!(one, Response::Welcome(_))) else { panic!() };
    (welcome.channels, welcome.more) = (channels.channels.clone(), Flag(false));

    for encoding in ENCODINGS {
        let read = |response: Response| {
            let mut out = BytesMut::new();
            encode_response(encoding, 7, &response, &mut out).unwrap();
            match decode_server(encoding, &one(encoding, &out)).unwrap().body {
                ServerBody::Response(response) => response,
                ServerBody::Delivery(delivery) => panic!("{delivery:?}"),
            }
        };
        let Response::Conversations(told) = read(page.clone().into()) else { panic!() };
        let count = told.conversations.len();
        assert!((1..200).contains(&count), "{count}");
        assert_eq!(told.conversations[..], page.conversations[..count]);
        assert_eq!(told.next, Some(ConversationId(count as u64)));

        let Response::Channels(told) = read(channels.clone().into()) else { panic!() };
        let count = told.channels.len();
        assert!((1..500).contains(&count), "{count}");
        assert_eq!(told.next, Some(ChannelId(count as u128)));
        let Response::Welcome(told) = read(welcome.clone().into()) else { panic!() };
        assert_eq!((told.channels.len(), told.more), (count, Flag(true)));
    }
}
