//! Bad input gets a clear answer that shows none of it, and never a panic; only a broken frame ends the connection.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use sharedline::wire::codec::{
    DecodeError, REQUEST_ID_MAX, Refused, decode_request, decode_server, encode_owned_delivery,
    encode_request, encode_response,
};
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::{ErrorCode, Request, requests};

use crate::arbitrary;
use crate::cases::{CHANNEL, all_deliveries, all_requests, all_responses};
use crate::golden::split;
use crate::round_trip::inbound;

const ENCODINGS: [Encoding; 2] = [Encoding::JsonLines, Encoding::Binary];

fn frame_of(encoding: Encoding, request: &Request) -> Bytes {
    let mut out = BytesMut::new();
    encode_request(encoding, 7, request, &mut out).unwrap();
    split(encoding, &out).remove(0)
}

fn server_frames(encoding: Encoding) -> Vec<Bytes> {
    let mut out = BytesMut::new();
    for response in all_responses() {
        encode_response(encoding, 7, &response, &mut out).unwrap();
    }
    for delivery in all_deliveries() {
        encode_owned_delivery(encoding, &delivery, &mut out).unwrap();
    }
    split(encoding, &out)
}

fn refused(line: &str) -> Refused {
    decode_request(Encoding::JsonLines, &Bytes::from(line.to_owned())).unwrap_err()
}

/// The line's refusal: `bad_message`, with this id, naming this, going on.
fn assert_bad(line: &str, id: u64, names: &str) {
    let refused = refused(line);
    assert_eq!(
        (refused.code, refused.id, refused.ends_connection),
        (ErrorCode::BadMessage, id, false),
        "{line}"
    );
    assert!(refused.text.contains(names), "{line}: {}", refused.text);
}

#[test]
fn a_frame_cut_off_at_any_byte_is_refused() {
    for request in all_requests() {
        let line = frame_of(Encoding::JsonLines, &request);
        for end in 0..line.len() {
            let refused = decode_request(Encoding::JsonLines, &line.slice(..end)).unwrap_err();
            assert_eq!((refused.code, refused.ends_connection), (ErrorCode::BadMessage, false));
        }
        let frame = frame_of(Encoding::Binary, &request);
        for end in 0..frame.len() {
            let refused = decode_request(Encoding::Binary, &frame.slice(..end)).unwrap_err();
            assert_eq!(
                (refused.code, refused.ends_connection),
                (ErrorCode::BadMessage, true),
                "{request:?} {end}"
            );
            let expected = if end == 0 || matches!(request, Request::Ack(_)) { 0 } else { 7 };
            assert_eq!(refused.id, expected, "{request:?} {end}");
        }
    }
    for encoding in ENCODINGS {
        for frame in server_frames(encoding) {
            for end in 0..frame.len() {
                assert!(decode_server(encoding, &frame.slice(..end)).is_err());
            }
        }
    }
}

#[test]
fn bytes_behind_the_last_field_are_refused_and_the_connection_goes_on() {
    for request in all_requests() {
        let frame = frame_of(Encoding::Binary, &request);
        let longer = Bytes::from([&frame[..], &[0]].concat());
        let refused = decode_request(Encoding::Binary, &longer).unwrap_err();
        let id = if matches!(request, Request::Ack(_)) { 0 } else { 7 };
        assert_eq!((refused.code, refused.id, refused.ends_connection), (ErrorCode::BadMessage, id, false));
        let line = frame_of(Encoding::JsonLines, &request);
        for behind in [&b"x"[..], b"{}", b"\x00"] {
            let longer = Bytes::from([&line[..], behind].concat());
            let refused = decode_request(Encoding::JsonLines, &longer).unwrap_err();
            assert_eq!((refused.code, refused.ends_connection), (ErrorCode::BadMessage, false));
        }
    }
    for frame in server_frames(Encoding::Binary) {
        let longer = Bytes::from([&frame[..], &[0]].concat());
        assert!(matches!(decode_server(Encoding::Binary, &longer), Err(DecodeError::Bad(_))));
    }
}

#[test]
fn an_unknown_type_is_told_with_its_id_and_the_connection_goes_on() {
    let unknown =
        |frame: &[u8]| decode_request(Encoding::Binary, &Bytes::copy_from_slice(frame)).unwrap_err();
    for frame in
        [&[7_u8, 24][..], &[7, 250], &[7, 251, 0, 1], &[7, 252, 255, 255, 255, 255], &[7, 24, 1, 2, 3]]
    {
        let refused = unknown(frame);
        assert_eq!((refused.code, refused.id, refused.ends_connection), (ErrorCode::UnknownType, 7, false));
    }
    // No variant has a number of 64 bits: that frame is broken.
    assert!(unknown(&[7, 253, 0, 0, 0, 0, 1, 0, 0, 0]).ends_connection);

    for (line, id) in [
        (r#"{"type":"fly","id":7}"#, 7),
        (r#"{"id":7,"x":[1],"type":"HELLO"}"#, 7),
        (r#"{"type":"fly"}"#, 0),
        (r#"{"type":"welcome","id":"7"}"#, 0),
        (r#"{"type":"","id":7}"#, 7),
    ] {
        let refused = refused(line);
        assert_eq!(
            (refused.code, refused.id, refused.ends_connection),
            (ErrorCode::UnknownType, id, false),
            "{line}"
        );
    }
    for encoding in ENCODINGS {
        let frame = match encoding {
            Encoding::JsonLines => Bytes::from_static(br#"{"type":"fly"}"#),
            Encoding::Binary => Bytes::from_static(&[0, 29, 1]),
        };
        assert_eq!(decode_server(encoding, &frame), Err(DecodeError::UnknownType));
    }
}

#[test]
fn a_line_that_is_no_object_with_a_string_type_is_refused_and_the_connection_goes_on() {
    for line in
        ["", " ", "null", "[]", "7", "\"hello\"", "{", "{}", "{\"a\":1", "{]", "{\"type\":}", "\u{feff}{}"]
    {
        assert_bad(line, 0, "");
    }
    for (line, id) in [
        (r#"{"id":7}"#, 7),
        (r#"{"id":7,"type":null}"#, 7),
        (r#"{"id":7,"type":5}"#, 7),
        (r#"{"id":7,"type":["ping"]}"#, 7),
        (r#"{"id":7,"type":"\ud800"}"#, 7),
    ] {
        assert_bad(line, id, "type");
    }
    let not_utf8 = Bytes::from_static(b"{\"type\":\"ping\",\"id\":7,\"x\":\"\xff\"}");
    let refused = decode_request(Encoding::JsonLines, &not_utf8).unwrap_err();
    assert_eq!((refused.code, refused.ends_connection), (ErrorCode::BadMessage, false));
}

#[test]
fn an_id_that_is_none_is_refused() {
    for id in [
        "0",
        "9007199254740992",
        "18446744073709551616",
        "-1",
        "1.5",
        "1.0",
        "1e2",
        "\"7\"",
        "null",
        "true",
        "[7]",
    ] {
        assert_bad(&format!(r#"{{"type":"ping","id":{id}}}"#), 0, "id");
    }
    assert_bad(r#"{"type":"ping"}"#, 0, "id");
    for id in ["1", "9007199254740991"] {
        let line = Bytes::from(format!(r#"{{"type":"ping","id":{id}}}"#));
        assert_eq!(decode_request(Encoding::JsonLines, &line).unwrap().0, id.parse::<u64>().unwrap());
    }
    for id in [0, REQUEST_ID_MAX + 1, u64::MAX] {
        let mut out = BytesMut::new();
        encode_request(Encoding::Binary, id, &requests::Ping {}.into(), &mut out).unwrap();
        let frame = split(Encoding::Binary, &out).remove(0);
        let refused = decode_request(Encoding::Binary, &frame).unwrap_err();
        assert_eq!((refused.code, refused.id, refused.ends_connection), (ErrorCode::BadMessage, 0, false));
    }
}

#[test]
fn an_ack_needs_no_id_and_one_that_it_has_counts_for_nothing() {
    for id in ["", r#""id":0,"#, r#""id":7,"#, r#""id":"x","#] {
        let line = Bytes::from(format!(r#"{{"type":"ack",{id}"channel":"{CHANNEL}","offset":3}}"#));
        let (id, request) = decode_request(Encoding::JsonLines, &line).unwrap();
        assert_eq!((id, request.name()), (0, "ack"));
    }
    // One of a channel that never was is ignored like any offset that is not outstanding.
    let line = Bytes::from_static(br#"{"type":"ack","channel":"no-such-channel","offset":3}"#);
    assert!(matches!(decode_request(Encoding::JsonLines, &line), Ok((0, Request::Ack(_)))));
    assert_bad(r#"{"type":"ack","channel":"ch-1","offset":-3}"#, 0, "offset");
}

#[test]
fn the_field_and_its_limit_are_named_and_never_the_value() {
    let reply = |fields: &str| {
        format!(
            r#"{{"type":"reply","id":7,"channel":"{CHANNEL}","to":"16505551234","content":{{"type":"text"}},{fields}}}"#
        )
    };
    let long = "s3cret".repeat(30);
    for (line, names) in [
        (reply(&format!(r#""reply_id":"{long}""#)), "128"),
        (reply(r#""reply_id":"""#), "reply_id"),
        (reply(r#""agent":"ann""#), "reply_id"),
        (reply(r#""reply_id":"r","agent":"s3cret\u0000""#), "agent"),
        (reply(r#""reply_id":"r","agent":{"s3cret":1}"#), "agent"),
        (reply(r#""reply_id":"r","seen":"s3cret""#), "seen"),
        (reply(r#""reply_id":"r","confirm":5"#), "confirm"),
        (reply(r#""reply_id":"r","conversation":"cv-0123456789abcdef""#), "exactly one of `conversation`, `to`"),
        (reply(r#""reply_id":"r","seen":1,"seen":2"#), "twice"),
        (format!(r#"{{"type":"get_channel","id":7,"channel":"s3cret/{long}"}}"#), "channel"),
        (r#"{"type":"create_channel","id":7,"number":"s3cret"}"#.to_owned(), "number"),
        (r#"{"type":"create_channel","id":7,"number":"+15550783881","backfill":"s3cret"}"#.to_owned(), "backfill"),
        (r#"{"type":"roster","id":7,"agents":[{"agent":"ann"}],"replace":true}"#.to_owned(), "name"),
        (r#"{"type":"roster","id":7,"agents":{"s3cret":1},"replace":true}"#.to_owned(), "agents"),
        (r#"{"type":"roster","id":7,"agents":["s3cret"],"replace":true}"#.to_owned(), "agents"),
        (r#"{"type":"roster","id":7,"agents":[],"remove":[]}"#.to_owned(), "replace"),
        (
            format!(r#"{{"type":"roster","id":7,"agents":[{{"agent":"ann","name":"{}"}}],"replace":true}}"#, "s3".repeat(129)),
            "256",
        ),
        (
            r#"{"type":"roster","id":7,"agents":[{"agent":"ann","name":"a","name":"b"}],"replace":true}"#.to_owned(),
            "twice",
        ),
        (
            format!(r#"{{"type":"presence","id":7,"channel":"{CHANNEL}","conversation":"cv-0","agent":"a","doing":"s3cret"}}"#),
            "writing",
        ),
        (
            format!(r#"{{"type":"status","id":7,"channel":"{CHANNEL}","offset":1,"number":"+15550783881","status":"unknown","at":1}}"#),
            "status",
        ),
        (
            r#"{"type":"hello","id":7,"version":1,"portal":"acme","service":"crm","gateway":"g","token":"s3cret","adapter":"a"}"#.to_owned(),
            "exactly one of `service`, `gateway`",
        ),
        (
            r#"{"type":"hello","id":7,"version":1,"portal":"acme","service":"crm","token":"s3cret"}"#.to_owned(),
            "adapter",
        ),
        (
            r#"{"type":"hello","id":7,"version":1,"portal":"acme","service":"crm","token":"s3cret","adapter":"a","deliver":"s3cret"}"#.to_owned(),
            "share, none, watch",
        ),
        (
            format!(r#"{{"type":"sent","id":7,"channel":"{CHANNEL}","offset":1}}"#),
            "exactly one of `message_id`, `error`",
        ),
        (
            format!(r#"{{"type":"sent","id":7,"channel":"{CHANNEL}","offset":1,"error":{{"code":"1"}}}}"#),
            "definite",
        ),
    ] {
        assert_bad(&line, 7, names);
        assert!(!refused(&line).text.contains("s3"), "{line}: {}", refused(&line).text);
    }
}

#[test]
fn a_customer_has_one_phone_and_it_has_no_dot() {
    let inbound = |customer: &str| {
        format!(
            r#"{{"type":"inbound","id":7,"number":"+15550783881","message_id":"wamid.1","at":1,"content":{{}},"customer":{customer}}}"#
        )
    };
    for (customer, names) in [
        (r#"{"id":"16505551234","phone":"16505559999"}"#, "phone"),
        (r#"{"id":"US.1","phone":"US.2"}"#, "phone"),
        (r#"{"phone":"16505551234"}"#, "id"),
        (r#"{"id":"16505551234/"}"#, "id"),
        (r#""16505551234""#, "customer"),
    ] {
        assert_bad(&inbound(customer), 7, names);
        assert!(!refused(&inbound(customer)).text.contains("1650"));
    }
    // A leading `+` is dropped, so these are the same phone.
    let line = Bytes::from(inbound(r#"{"id":"+16505551234","phone":"16505551234"}"#));
    let (_, Request::Inbound(read)) = decode_request(Encoding::JsonLines, &line).unwrap() else { panic!() };
    assert_eq!(read.customer.id().unwrap().as_str(), "16505551234");
}

#[test]
fn a_window_expires_exactly_when_it_is_known() {
    let opened = |window: &str| {
        let line = format!(
            r#"{{"type":"conversation","id":7,"conversation":"cv-0123456789abcdef","head":1,"customer":{{"id":"1650"}},{window},"claims":[],"warnings":[],"timeline":[],"more":false}}"#
        );
        decode_server(Encoding::JsonLines, &Bytes::from(line))
    };
    assert!(opened(r#""window":"unknown""#).is_ok());
    assert!(opened(r#""window":"closed","window_expires_at":5"#).is_ok());
    for wrong in [r#""window":"unknown","window_expires_at":5"#, r#""window":"open""#, r#""window":"ajar""#] {
        assert!(matches!(opened(wrong), Err(DecodeError::Bad(_))), "{wrong}");
    }
}

#[test]
fn watching_from_a_channel_that_never_was_begins_nowhere() {
    let hello = |from: &str| {
        let line = format!(
            r#"{{"type":"hello","id":7,"version":1,"portal":"acme","service":"crm","token":"t","adapter":"a","deliver":"watch","from":{from}}}"#
        );
        decode_request(Encoding::JsonLines, &Bytes::from(line))
    };
    let read = hello(&format!(r#"{{"nope":3,"{CHANNEL}":4}}"#)).unwrap().1;
    let Request::Hello(read) = read else { panic!() };
    assert_eq!(read.from.0, [(CHANNEL, sharedline::domain::ids::Offset(4))]);
    for wrong in [r#"{"no such":3}"#, r#"{"nope":"3"}"#, "[]", "5"] {
        let refused = hello(wrong).unwrap_err();
        assert_eq!((refused.code, refused.id), (ErrorCode::BadMessage, 7), "{wrong}");
    }
}

#[test]
fn an_id_that_the_broker_never_gave_out_is_not_found() {
    for line in [
        r#"{"type":"get_channel","id":7,"channel":"nope"}"#,
        r#"{"type":"pick_up","id":7,"channel":"ch-00c0ffee0123456789abcdef00000001","conversation":"c.1","agent":"a"}"#,
        r#"{"type":"deactivate_channel","id":7,"channel":"ch-00C0FFEE0123456789ABCDEF00000001"}"#,
    ] {
        let refused = refused(line);
        assert_eq!(
            (refused.code, refused.id, refused.ends_connection),
            (ErrorCode::NotFound, 7, false),
            "{line}"
        );
    }
    // What is wrong comes first.
    assert_bad(r#"{"type":"pick_up","id":7,"channel":"nope","conversation":"c.1"}"#, 7, "agent");
}

#[test]
fn a_value_that_cannot_be_in_a_whole_frame_lets_the_connection_go_on() {
    let mut out = BytesMut::new();
    let frame = frame_of(
        Encoding::Binary,
        &requests::CreateChannel { number: "+15550783881".parse().unwrap(), backfill: true }.into(),
    );
    out.extend_from_slice(&frame);
    // The `+` of the number, behind id, variant and length.
    assert_eq!(out[3], b'+');
    out[3] = b'-';
    let refused = decode_request(Encoding::Binary, &out.clone().freeze()).unwrap_err();
    assert_eq!((refused.code, refused.id, refused.ends_connection), (ErrorCode::BadMessage, 7, false));
    assert!(refused.text.contains("number"));
    // A text that is no UTF-8, and a truth that is neither, are broken.
    out[3] = 0xff;
    assert!(decode_request(Encoding::Binary, &out.clone().freeze()).unwrap_err().ends_connection);
    let mut out = BytesMut::from(&frame[..]);
    let last = out.len() - 1;
    out[last] = 2;
    let refused = decode_request(Encoding::Binary, &out.freeze()).unwrap_err();
    assert!(refused.ends_connection && refused.text.contains("backfill"), "{refused:?}");
}

#[test]
fn a_huge_length_within_a_frame_is_refused_at_once() {
    let huge: [&[u8]; 4] = [
        &[251, 255, 255],
        &[252, 255, 255, 255, 255],
        &[253, 255, 255, 255, 255, 255, 255, 255, 255],
        &[250],
    ];
    for length in huge {
        // A text, a list, a list whose elements are lists, and content.
        for begin in [&[7_u8, 2][..], &[7, 1], &[0, 3]] {
            let frame = Bytes::from([begin, length].concat());
            assert!(decode_request(Encoding::Binary, &frame).is_err());
            assert!(decode_server(Encoding::Binary, &frame).is_err());
        }
        // The list of a roster: 2^64 agents announced, one there.
        let frame = Bytes::from([&[7_u8, 1][..], length, &[1, b'a', 1, b'b', 0]].concat());
        let refused = decode_request(Encoding::Binary, &frame).unwrap_err();
        assert!(refused.ends_connection);
    }
}

#[test]
fn nesting_is_followed_nowhere() {
    let deep = 200_000;
    let nested = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
    // Unknown: passed over, however deep.
    let line = Bytes::from(format!(r#"{{"type":"ping","id":7,"x":{nested}}}"#));
    assert!(decode_request(Encoding::JsonLines, &line).is_ok());
    // Content: kept as it is, for its own check.
    let line = Bytes::from(format!(
        r#"{{"type":"reply","id":7,"channel":"{CHANNEL}","to":"16505551234","reply_id":"r","content":{nested}}}"#
    ));
    let (_, Request::Reply(reply)) = decode_request(Encoding::JsonLines, &line).unwrap() else { panic!() };
    assert!(sharedline::wire::content::check_reply(&reply.content.0).is_err());
    // Where something else belongs, refused.
    for field in ["agents", "replace", "remove"] {
        let line = Bytes::from(format!(r#"{{"type":"roster","id":7,"{field}":{nested}}}"#));
        assert!(decode_request(Encoding::JsonLines, &line).is_err());
    }
    let open = Bytes::from(format!(r#"{{"type":"ping","id":7,"x":{}"#, "{\"a\":".repeat(deep)));
    assert!(decode_request(Encoding::JsonLines, &open).is_err());
}

#[test]
fn many_members_cost_no_more_than_one_look_each() {
    let mut line = String::from(r#"{"type":"ping""#);
    while line.len() < (1 << 20) - 100 {
        line.push_str(r#","":0"#);
    }
    line.push_str(r#","id":7}"#);
    let begin = std::time::Instant::now();
    assert_eq!(decode_request(Encoding::JsonLines, &Bytes::from(line)), Ok((7, requests::Ping {}.into())));
    // Quadratic work on 200,000 members would take minutes; this bound is for the slowest machine.
    assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
}

#[test]
fn another_version_is_told_so_whatever_its_other_fields_are() {
    let mut later = BytesMut::new();
    let request = all_requests().into_iter().find(|request| matches!(request, Request::Hello(_))).unwrap();
    let Request::Hello(hello) = request else { panic!() };
    encode_request(Encoding::Binary, 7, &requests::Hello { version: 2, ..hello }.into(), &mut later).unwrap();
    let later = split(Encoding::Binary, &later).remove(0);
    for (encoding, frame) in [
        (Encoding::JsonLines, Bytes::from_static(br#"{"type":"hello","id":7,"who":["crm"],"version":2}"#)),
        (Encoding::Binary, later.slice(..4)),
        (Encoding::Binary, later),
    ] {
        let refused = decode_request(encoding, &frame).unwrap_err();
        let expected = (ErrorCode::UnsupportedVersion, 7, false);
        assert_eq!((refused.code, refused.id, refused.ends_connection), expected);
        let error = refused.error();
        assert_eq!(error.versions, Some(vec![1]));
    }
    assert_bad(r#"{"type":"hello","id":7,"version":"2"}"#, 7, "version");
    assert_bad(r#"{"type":"hello","id":7}"#, 7, "version");
    assert_bad(
        r#"{"type":"hello","id":7,"id":8,"version":1,"portal":"acme","service":"crm","token":"t","adapter":"a"}"#,
        7,
        "twice",
    );
}

#[test]
fn a_refusal_makes_the_error_that_answers_it() {
    let refused = refused(r#"{"type":"get_channel","id":7,"channel":5}"#);
    let error = refused.error();
    assert_eq!((error.code, &*error.message), (ErrorCode::BadMessage, &*refused.text));
}

#[test]
fn debug_shows_no_token_content_customer_or_agent() {
    let texts = [
        format!("{:?}", all_requests()),
        format!("{:?}", all_responses()),
        format!("{:?}", all_deliveries()),
    ];
    for text in texts {
        for hidden in
            ["s3cret", "16505551234", "US.1349", "Eve", "ann@", "Ann", "c0nf1rm", "Undeliverable", "no\""]
        {
            assert!(!text.contains(hidden), "{hidden}");
        }
    }
    assert!(format!("{:?}", inbound()).contains("wamid"));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), begin in any::<bool>()) {
        let bytes = if begin { [&b"{\"type\":"[..], &bytes].concat() } else { bytes };
        let frame = Bytes::from(bytes);
        for encoding in ENCODINGS {
            let _ = decode_request(encoding, &frame);
            let _ = decode_server(encoding, &frame);
        }
    }

    #[test]
    fn a_message_with_bytes_changed_never_panics_and_what_it_then_says_reads_back(
        request in arbitrary::request(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for encoding in ENCODINGS {
            let mut frame = frame_of(encoding, &request).to_vec();
            for (at, byte) in &changes {
                let at = at.index(frame.len());
                frame[at] = *byte;
            }
            if let Ok((id, read)) = decode_request(encoding, &Bytes::from(frame)) {
                let mut out = BytesMut::new();
                encode_request(encoding, id, &read, &mut out).unwrap();
                let again = decode_request(encoding, &split(encoding, &out)[0]);
                prop_assert_eq!(again, Ok((id, read)));
            }
        }
    }

    #[test]
    fn a_response_with_bytes_changed_never_panics(
        response in arbitrary::response(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for encoding in ENCODINGS {
            let mut out = BytesMut::new();
            encode_response(encoding, 7, &response, &mut out).unwrap();
            let mut frame = split(encoding, &out).remove(0).to_vec();
            for (at, byte) in &changes {
                let at = at.index(frame.len());
                frame[at] = *byte;
            }
            let _ = decode_server(encoding, &Bytes::from(frame));
        }
    }
}

#[test]
fn a_threads_metadata_has_2000_characters_and_only_a_pass_names_a_service() {
    let control = |fields: &str| {
        decode_request(
            Encoding::JsonLines,
            &Bytes::from(format!(
                r#"{{"type":"thread_control","id":7,"channel":"ch-00c0ffee0123456789abcdef00000001","to":"1650",{fields}}}"#
            )),
        )
    };
    let with = |action: &str, length: usize| {
        control(&format!(r#""action":"{action}","metadata":"{}""#, "\u{fc}".repeat(length)))
    };
    assert!(with("take", 2_000).is_ok());
    for refused in
        [with("take", 2_001), with("release", 1), control(r#""action":"take","to_service":"desk""#)]
    {
        assert_eq!(refused.unwrap_err().code, ErrorCode::BadMessage);
    }
}
