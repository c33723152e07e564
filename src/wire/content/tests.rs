//! Each refusal by example; redaction against a model that drops members from a tree; acceptance against serde_json.

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn inbound(text: &str) -> Result<CheckedInbound, ContentError> {
    check_inbound(&Bytes::copy_from_slice(text.as_bytes()))
}

fn reply(text: &str) -> Result<CheckedReply, ContentError> {
    check_reply(&Bytes::copy_from_slice(text.as_bytes()))
}

fn redacted(text: &str) -> String {
    let bytes = inbound(text).unwrap().content.redacted();
    let left = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(serde_json::from_str::<Value>(&left).is_ok(), "no json is left: {left}");
    left
}

#[test]
fn a_message_passes_as_it_came_without_a_copy() {
    let raw = Bytes::from_static(br#" {"type" : "text", "text":{"body":"Hi \ud83d\ude00"}, "new":1e999} "#);
    let checked = check_inbound(&raw).unwrap();
    assert_eq!(checked.content.kind(), "text");
    assert_eq!(checked.content.expose(), &raw.slice(1..raw.len() - 1));
    assert_eq!(checked.content.expose().as_ptr(), raw[1..].as_ptr());
    assert!(!checked.content.is_redactable());
    assert_eq!(checked.refers_to, None);
}

#[test]
fn white_space_goes_only_where_some_is_below_0x20() {
    let checked = inbound("{\r\n\t\"type\" : \"text\", \"a b\": [1,  \"c \\\" d\" ]\n}").unwrap();
    assert_eq!(checked.content.expose(), r#"{"type":"text","a b":[1,"c \" d"]}"#);
    assert_eq!(checked.content.kind(), "text");
    assert!(matches!(inbound("{\"type\":\"a\",\"n\":1\n2}"), Err(ContentError::NotJson(_))));
    assert!(matches!(inbound("{\"type\":\"a\nb\"}"), Err(ContentError::NotJson(_))));
}

#[test]
fn what_is_no_message_object_is_refused() {
    assert!(matches!(
        check_inbound(&Bytes::from_static(b"{\"type\":\"\xff\"}")),
        Err(ContentError::NotUtf8(_))
    ));
    for text in ["", " ", "[]", "null", "\"type\"", "\u{feff}{\"type\":\"a\"}"] {
        assert!(matches!(inbound(text), Err(ContentError::NotObject)), "{text}");
    }
    for text in [
        "{",
        r#"{"type":"a""#,
        r#"{"type":"a",}"#,
        r#"{"type":"a"} x"#,
        r#"{"type":"a"}{}"#,
        r#"{"type":"a","b":[}]}"#,
        r#"{"type":"a","b":NaN}"#,
        r#"{"type":"a","b":"\x"}"#,
        r#"{"type":"a","\ud800":1}"#,
    ] {
        assert!(matches!(inbound(text), Err(ContentError::NotJson(_))), "{text}");
    }
    for text in ["{}", r#"{"Type":"a"}"#, r#"{"type":null}"#, r#"{"type":1}"#, r#"{"a":{"type":"a"}}"#] {
        assert!(matches!(inbound(text), Err(ContentError::NoType)), "{text}");
    }
    assert!(matches!(inbound(r#"{"type":"t\u0065xt"}"#), Err(ContentError::EscapedType)));
    assert!(matches!(
        inbound(r#"{"type":"a","\u0074ype":"b"}"#),
        Err(ContentError::Repeated { name: "type" })
    ));
}

#[test]
fn size_and_depth_pass_at_the_limit_and_not_past_it() {
    let sized = |len: usize| format!(r#"{{"type":"a","b":"{}"}}"#, "x".repeat(len - 19));
    assert_eq!(inbound(&sized(CONTENT_BYTES_MAX)).unwrap().content.len(), CONTENT_BYTES_MAX);
    let error = inbound(&sized(CONTENT_BYTES_MAX + 1)).unwrap_err();
    assert!(matches!(error, ContentError::TooLarge { bytes } if bytes == CONTENT_BYTES_MAX + 1));
    assert!(error.is_too_large());

    let deep = |depth: usize| {
        format!(r#"{{"type":"a","b":{}"]]]"{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1))
    };
    assert!(inbound(&deep(CONTENT_DEPTH_MAX)).is_ok());
    assert!(matches!(inbound(&deep(CONTENT_DEPTH_MAX + 1)), Err(ContentError::TooDeep)));
    assert!(matches!(inbound(&deep(400_000)), Err(ContentError::TooDeep)));
}

#[test]
fn what_a_message_answers_is_found() {
    let answered = |text: &str| inbound(text).unwrap().refers_to.map(|id| id.as_str().to_owned());
    assert_eq!(answered(r#"{"type":"text","context":{"from":"1","id":"wamid.A"}}"#).unwrap(), "wamid.A");
    assert_eq!(answered(r#"{"type":"text","c\u006fntext":{"\u0069d":"wamid\u002eA"}}"#).unwrap(), "wamid.A");
    assert_eq!(answered(r#"{"type":"reaction","reaction":{"message_id":"wamid.B"}}"#).unwrap(), "wamid.B");
    for none in [r#"null"#, r#"{}"#, r#"{"id":1}"#, r#"{"id":""}"#, r#""id""#, r#"{"x":{"id":"wamid.A"}}"#] {
        assert_eq!(answered(&format!(r#"{{"type":"text","context":{none}}}"#)), None, "{none}");
    }
    for text in [
        r#"{"type":"button","context":{"id":"A"},"context":{"id":"B"}}"#,
        r#"{"type":"button","context":{"id":"A","\u0069d":"B"}}"#,
    ] {
        assert!(matches!(inbound(text), Err(ContentError::Repeated { name: "context" })), "{text}");
    }
}

#[test]
fn what_services_wrote_for_machines_is_cut_and_what_customers_chose_is_not() {
    for (whole, left) in [
        (
            r#"{"type":"button","button":{"payload":"SECRET","text":"Yes"}}"#,
            r#"{"type":"button","button":{"text":"Yes"}}"#,
        ),
        (
            r#"{"type":"button","button":{"text":"Yes" , "payload" : "SECRET" } }"#,
            r#"{"type":"button","button":{"text":"Yes" } }"#,
        ),
        (r#"{"type":"button","button":{ "payload":"SECRET" }}"#, r#"{"type":"button","button":{ }}"#),
        (
            r#"{"button":{"\u0070ayload":"SECRET","text":"Yes","payload":{"SECRET":[","]}},"type":"button"}"#,
            r#"{"button":{"text":"Yes"},"type":"button"}"#,
        ),
        (
            r#"{"type":"interactive","interactive":{"type":"button_reply","button_reply":{"id":"SECRET","title":"A"}}}"#,
            r#"{"type":"interactive","interactive":{"type":"button_reply","button_reply":{"title":"A"}}}"#,
        ),
        (
            r#"{"type":"interactive","interactive":{"list_reply":{"id":"SECRET","title":"A","description":"SECRET"}}}"#,
            r#"{"type":"interactive","interactive":{"list_reply":{"title":"A"}}}"#,
        ),
        (
            r#"{"type":"interactive","interactive":{"nfm_reply":{"response_json":"{\"flow_token\": \"SECRET\", \"a\":\"\u00e4é😀\ud83d\ude00\"}","body":"Sent"}}}"#,
            r#"{"type":"interactive","interactive":{"nfm_reply":{"response_json":"{ \"a\":\"\u00e4é😀\ud83d\ude00\"}","body":"Sent"}}}"#,
        ),
        (
            r#"{"type":"interactive","interactive":{"nfm_reply":{"response_json":" {\"a\":\"é😀\ud83d\ude00\\n\",\"\\u0066low_token\":\"SECRET\"}"}}}"#,
            r#"{"type":"interactive","interactive":{"nfm_reply":{"response_json":" {\"a\":\"é😀\ud83d\ude00\\n\"}"}}}"#,
        ),
    ] {
        assert_eq!(redacted(whole), left);
        assert!(inbound(whole).unwrap().content.is_redactable());
    }
}

#[test]
fn a_value_of_another_shape_is_cut_whole() {
    for (whole, left) in [
        (r#"{"type":"button","button":["SECRET"]}"#, r#"{"type":"button"}"#),
        (r#"{"button":"SECRET","type":"button"}"#, r#"{"type":"button"}"#),
        (r#"{"button":{"\ud800":1,"payload":"SECRET"},"type":"button"}"#, r#"{"type":"button"}"#),
        (
            r#"{"type":"i","interactive":{"list_reply":[{"id":"SECRET"}]}}"#,
            r#"{"type":"i","interactive":{}}"#,
        ),
        (
            r#"{"type":"i","interactive":{"nfm_reply":{"response_json":{"flow_token":"SECRET"},"body":"b"}}}"#,
            r#"{"type":"i","interactive":{"nfm_reply":{"body":"b"}}}"#,
        ),
        (
            r#"{"type":"i","interactive":{"nfm_reply":{"response_json":"{\"flow_token\":\"SECRET\"","body":"b"}}}"#,
            r#"{"type":"i","interactive":{"nfm_reply":{"body":"b"}}}"#,
        ),
    ] {
        assert_eq!(redacted(whole), left);
    }
}

#[test]
fn a_reply_gives_back_its_callback_data_and_brings_no_address() {
    let checked = reply(r#"{"biz_opaque_callback_d\u0061ta":"a\n\u00e4","type":"text","text":{}}"#).unwrap();
    assert_eq!(checked.callback_data.unwrap(), "a\nä");
    assert_eq!(checked.content.expose(), r#"{"type":"text","text":{}}"#);
    assert_eq!(checked.content.kind(), "text");

    let plain = reply(r#"{"type":"button","button":{"payload":"mine","to":"x"}}"#).unwrap();
    assert_eq!(plain.callback_data, None);
    assert!(!plain.content.is_redactable());

    for name in ADDRESS_NAMES.into_iter().chain(["\\u0074o"]) {
        let text = format!(r#"{{"type":"text","{name}":null}}"#);
        assert!(matches!(reply(&text), Err(ContentError::Addressed { .. })), "{name}");
        assert!(inbound(&text).is_ok(), "{name}");
    }
    let text = r#"{"type":"text","biz_opaque_callback_data":{}}"#;
    assert!(matches!(reply(text), Err(ContentError::CallbackData)));
    let text = r#"{"type":"text","biz_opaque_callback_data":"a","biz_opaque_callback_data":"b"}"#;
    assert!(matches!(reply(text), Err(ContentError::Repeated { .. })));
}

#[test]
fn an_error_shows_nothing_of_the_content() {
    for text in
        [r#"{"type":"a","b":SECRET}"#, r#"{"type":"a","SECRET\ud800":1}"#, r#""SECRET""#, r#"{"SECRET":1}"#]
    {
        assert!(!format!("{:?}", inbound(text).unwrap_err()).contains("SECRET"), "{text}");
    }
}

/// JSON as a tree that may hold a name twice, which `serde_json::Value` cannot.
#[derive(Debug, Clone)]
enum Tree {
    Text(&'static str),
    Number(i32),
    List(Vec<Tree>),
    Object(Vec<(&'static str, Tree)>),
    /// A string that holds JSON.
    Quoted(Box<Tree>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let names = [
        "button",
        "payload",
        "interactive",
        "button_reply",
        "list_reply",
        "id",
        "description",
        "nfm_reply",
        "response_json",
        "flow_token",
        "title",
        "ä",
        "",
    ];
    let texts = ["x", ",", "}", "\"", "\\", "é😀\n", "{\"flow_token\":1}"];
    let leaf = prop_oneof![
        proptest::sample::select(texts.to_vec()).prop_map(Tree::Text),
        any::<i32>().prop_map(Tree::Number)
    ];
    leaf.prop_recursive(7, 60, 5, move |inner| {
        let member = (proptest::sample::select(names.to_vec()), inner.clone());
        prop_oneof![
            6 => vec(member, 0..5).prop_map(Tree::Object),
            1 => vec(inner.clone(), 0..3).prop_map(Tree::List),
            2 => inner.prop_map(|tree| Tree::Quoted(Box::new(tree))),
        ]
    })
}

/// What a customer answered in a flow, with a token here and there: too rare among all trees.
fn flow_answer() -> impl Strategy<Value = Tree> {
    let member = (proptest::sample::select(vec!["flow_token", "ä", "a"]), tree());
    vec(member, 0..5).prop_map(|members| {
        let json = Tree::Quoted(Box::new(Tree::Object(members)));
        let answer = Tree::Object(vec![("body", Tree::Text("x")), ("response_json", json)]);
        Tree::Object(vec![("nfm_reply", answer)])
    })
}

/// Writes strings and spaces in a way that `style` decides anew each time.
fn write(tree: &Tree, style: &mut impl FnMut() -> u8, out: &mut String) {
    let space = |style: &mut dyn FnMut() -> u8, out: &mut String| {
        out.push_str(["", "", " ", "  "][usize::from(style() % 4)])
    };
    space(style, out);
    match tree {
        Tree::Text(text) => write_text(text, style, out),
        Tree::Number(number) => write!(out, "{number}").unwrap(),
        Tree::Quoted(tree) => {
            let mut inner = String::new();
            write(tree, style, &mut inner);
            write_text(&inner, style, out);
        }
        Tree::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write(item, style, out);
            }
            out.push(']');
        }
        Tree::Object(members) => {
            out.push('{');
            for (at, (name, value)) in members.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                space(style, out);
                write_text(name, style, out);
                space(style, out);
                out.push(':');
                write(value, style, out);
            }
            space(style, out);
            out.push('}');
        }
    }
    space(style, out);
}

fn write_text(text: &str, style: &mut impl FnMut() -> u8, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        if style().is_multiple_of(4) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").unwrap();
            }
        } else {
            let plain = serde_json::to_string(&character).unwrap();
            out.push_str(&plain[1..plain.len() - 1]);
        }
    }
    out.push('"');
}

/// The model: what is left of the value at `path`, or nothing.
fn model(tree: &Tree, path: &[&str]) -> Option<Tree> {
    match path {
        ["button", "payload"]
        | ["interactive", "button_reply" | "list_reply", "id"]
        | ["interactive", "list_reply", "description"]
        | ["interactive", "nfm_reply", "response_json", "flow_token"] => None,
        ["interactive", "nfm_reply", "response_json"] => match tree {
            Tree::Quoted(inner) if matches!(**inner, Tree::Object(_)) => {
                Some(Tree::Quoted(Box::new(members_left(inner, path)?)))
            }
            Tree::Text("{\"flow_token\":1}") => Some(Tree::Text("{}")),
            _ => None,
        },
        [] | ["button" | "interactive"] | ["interactive", "button_reply" | "list_reply" | "nfm_reply"] => {
            members_left(tree, path)
        }
        _ => Some(tree.clone()),
    }
}

fn members_left(tree: &Tree, path: &[&str]) -> Option<Tree> {
    let Tree::Object(members) = tree else { return None };
    let left = members.iter().filter_map(|(name, value)| {
        let path: Vec<_> = path.iter().copied().chain([*name]).collect();
        Some((*name, model(value, &path)?))
    });
    Some(Tree::Object(left.collect()))
}

/// The tree without spaces and needless escapes, names that stand twice included.
fn plain(tree: &Tree) -> String {
    let mut out = String::new();
    write(tree, &mut || 1, &mut out);
    out
}

/// The same of a text: each JSON string unescaped as far as it goes, also within what strings hold.
fn plain_text(text: &str) -> Tree {
    if text.starts_with('{') {
        let mut members = Vec::new();
        for_each_member(text, |name, value| {
            members.push((&*name.to_owned().leak(), plain_text(piece(text, &value))));
        })
        .unwrap();
        return Tree::Object(members);
    }
    match serde_json::from_str::<Value>(text).unwrap() {
        Value::String(inner) => {
            let json = inner.trim_matches(' ');
            if serde_json::from_str::<Value>(json).is_ok() {
                Tree::Quoted(Box::new(plain_text(json)))
            } else {
                Tree::Text(json.to_owned().leak())
            }
        }
        Value::Array(_) => {
            let items: Vec<&RawValue> = serde_json::from_str(text).unwrap();
            Tree::List(items.iter().map(|item| plain_text(item.get())).collect())
        }
        _ => Tree::Text(text.to_owned().leak()),
    }
}

proptest! {
    #[test]
    fn redaction_leaves_what_the_model_leaves(
        members in vec(prop_oneof![
            (proptest::sample::select(vec!["button", "interactive", "other"]), tree()),
            flow_answer().prop_map(|answer| ("interactive", answer)),
        ], 0..4),
        typed_at in 0_usize..5,
        styles in vec(any::<u8>(), 1..64),
    ) {
        let mut members = members;
        members.insert(typed_at.min(members.len()), ("type", Tree::Text("x")));
        let whole = Tree::Object(members);
        let mut turn = 0;
        let mut escaping = || { turn += 1; styles[turn % styles.len()] };
        let mut text = String::new();
        write(&whole, &mut escaping, &mut text);
        // The value of `type` alone may not be escaped.
        let text = text.replace("\"\\u0078\"", "\"x\"");
        let left = redacted(&text);
        let expected = plain_text(&plain(&model(&whole, &[]).unwrap()));
        prop_assert_eq!(plain(&plain_text(&left)), plain(&expected));
    }

    #[test]
    fn what_passes_is_what_serde_json_takes_for_an_object_with_a_type(
        tokens in vec(proptest::sample::select(vec![
            "{", "}", "[", "]", ":", ",", "\"type\"", "\"a\"", "\"b\\n\"", "1", "-0.5e3", "true", "null", " ", "\n",
            "\"type\":\"a\"", "{\"type\":\"a\"", ",\"c\":", "\"", "\\", "tru", "01",
        ]), 0..9),
        is_likely in any::<bool>(),
    ) {
        let middle = tokens.concat();
        let text = if is_likely { format!("{{\"type\":\"a\",\"b\":{middle}}}") } else { middle };
        let value = serde_json::from_str::<Value>(&text).ok();
        match inbound(&text) {
            Ok(checked) => {
                prop_assert_eq!(serde_json::from_slice::<Value>(checked.content.expose()).ok(), value.clone());
                prop_assert_eq!(&value.unwrap()["type"], checked.content.kind());
                prop_assert!(checked.content.expose().iter().all(|byte| *byte >= 0x20));
            }
            Err(ContentError::Repeated { .. } | ContentError::EscapedType) => {}
            Err(_) => prop_assert!(!value.is_some_and(|value| value["type"].is_string())),
        }
    }
}

#[test]
fn a_notice_is_any_object_within_the_limits() {
    let check = |text: &str| check_notice(&Bytes::from(text.to_owned()));
    let content = check("{\"quality\": \n\"GREEN\", \"n\": [1, 2]}").unwrap();
    assert_eq!(content.expose(), r#"{"quality":"GREEN","n":[1,2]}"#);
    assert_eq!(content.kind(), "");
    assert!(matches!(check("[1]"), Err(ContentError::NotObject)));
    assert!(matches!(check("{\"a\":}"), Err(ContentError::NotJson(_))));
    assert!(matches!(check(&"{\"a\":".repeat(65)), Err(ContentError::TooDeep)));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(CONTENT_BYTES_MAX));
    assert!(matches!(check(&large), Err(ContentError::TooLarge { .. })));
}
