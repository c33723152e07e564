//! B3: no byte of a masked reply's content on any path that exists in the domain.
//!
//! A canary stands in every place that a service's words can take: body, caption, file name, media id, template
//! variable, reaction, callback data, reply id, Meta's error text. Then everything that the domain can show is
//! shown to every other service, and everything that can be printed is printed.

use std::sync::Arc;

use bytes::Bytes;
use sharedline::domain::command::{Answer, Command, SendOutcome, StatusCommand, StatusOf, ThreadAsked};
use sharedline::domain::content::{Carried, Content};
use sharedline::domain::event::{Settings, Status, StatusError};
use sharedline::domain::ids::{ConversationId, Offset, ReplyId, Timestamp};
use sharedline::domain::view::{Masking, View, Viewer, view};

use crate::stage::{Stage, agent, message_id, service, warned};

const CANARY: &str = "cAnArY";

/// What a service may send, the canary in each place for words.
fn contents() -> Vec<Content> {
    let of = |kind: &str, rest: &str| {
        let json = format!(r#"{{"type":"{kind}",{}}}"#, rest.replace('@', CANARY));
        Content::checked(Bytes::from(json), 9..9 + u32::try_from(kind.len()).unwrap(), &[])
    };
    vec![
        of("text", r#""text":{"body":"@"}"#),
        of("image", r#""image":{"id":"@","caption":"@"}"#),
        of("document", r#""document":{"id":"@","filename":"@"}"#),
        of("template", r#""template":{"name":"@","components":[{"parameters":[{"text":"@"}]}]}"#),
        of("reaction", r#""reaction":{"message_id":"@","emoji":"@"}"#),
        of(
            "interactive",
            r#""interactive":{"body":{"text":"@"},"action":{"buttons":[{"reply":{"id":"@"}}]}}"#,
        ),
    ]
}

/// Everything that a viewer could write out of a view, but the bytes that the view may hold in clear.
fn written(seen: &View<'_>) -> String {
    match seen {
        View::Message { message, content, redacted } => {
            format!("{} {redacted} {message:?}", String::from_utf8_lossy(content))
        }
        View::Reply(reply) => {
            format!("{} {}", String::from_utf8_lossy(reply.content.expose()), reply.reply_id.as_str())
        }
        View::MaskedReply { service, kind, content } => {
            format!("{service:?} {kind:?} {:?}", content.map(|content| content.expose()))
        }
        View::Claim { action, own } => format!("{action:?} {:?}", own.map(|agent| agent.as_str())),
        View::Receipt(receipt) => {
            let carried = receipt.carried.as_ref().map(|carried| String::from_utf8_lossy(carried.expose()));
            format!("{receipt:?} {carried:?}")
        }
        View::Merged { from } => format!("{from}"),
        View::Membership(membership) => format!("{membership:?}"),
        View::Thread(thread) => {
            format!("{} {:?} {:?} {:?}", thread.action.as_str(), thread.agent, thread.until, thread.metadata)
        }
        View::Notice(notice) => format!("{} {notice:?}", String::from_utf8_lossy(notice.content.expose())),
    }
}

/// What else WhatsApp says of a status, which may quote what was sent.
fn carried() -> Option<Carried> {
    let json = r#"{"errors":[{"code":1},{"message":"@"}],"pricing":{"@":1},"@":"@"}"#;
    Some(Carried::checked(Bytes::from(json.replace('@', CANARY))))
}

/// A reply of crm in every kind, sent and failed with Meta's text about it, and an echo. `id` is what stands in
/// message and reply ids.
fn played(id: &str) -> (Stage, ConversationId) {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    for (n, content) in contents().into_iter().enumerate() {
        let mut command = Stage::reply_of("crm", Some("ann"), conversation, "");
        command.reply_id = ReplyId::trusted(&format!("{id}{n}"));
        command.content = content;
        command.callback_data = Some(Bytes::from(CANARY));
        let Ok(Answer::Accepted { offset, .. }) = stage.reply(command) else { panic!() };
        stage.hand(offset).unwrap();
        let error = StatusError {
            code: Arc::from("131000"),
            title: Some(Arc::from(CANARY)),
            details: Some(Arc::from(CANARY)),
        };
        if n % 2 == 0 {
            stage.outcome(offset, SendOutcome::Failed(error));
        } else {
            stage.outcome(offset, SendOutcome::Sent(message_id(&format!("wamid.{id}{n}"))));
            let of = StatusOf::Message(message_id(&format!("wamid.{id}{n}")));
            let status_at = Timestamp(stage.now);
            let failed = StatusCommand {
                of,
                status: Status::Failed,
                error: Some(error),
                status_at,
                carried: carried(),
            };
            stage.tell(Command::Status(failed)).unwrap();
        }
    }
    // One that waits for its message, and is nobody's yet.
    let of = StatusOf::Message(message_id("wamid.early"));
    let (status_at, carried) = (Timestamp(stage.now), carried());
    let early = StatusCommand { of, status: Status::Read, error: None, status_at, carried };
    assert_eq!(stage.tell(Command::Status(early)), Ok(Answer::Parked));
    stage.echo("491", &format!("wamid.{id}"), CANARY);
    stage.pick_up("crm", "ann", conversation).unwrap();
    let taken = ThreadAsked::Take { metadata: Some(Arc::from(CANARY)) };
    stage.thread("crm", conversation, taken).unwrap();
    (stage, conversation)
}

fn seen_by(stage: &Stage, of: &str, masking: Masking) -> String {
    let of = service(of);
    let viewer = Viewer { service: &of, masking };
    let seen = stage.records.iter().filter_map(|record| view(record, &viewer));
    seen.map(|(_, view)| written(&view)).collect::<Vec<_>>().join("\n")
}

#[test]
fn b03_no_view_of_another_service_holds_a_byte_of_the_content() {
    let (stage, _) = played(CANARY);
    for of in ["desk", "salesiq", "books"] {
        let seen = seen_by(&stage, of, Masking::Broker);
        assert!(!seen.contains(CANARY), "{of} sees {seen}");
    }
    assert!(seen_by(&stage, "crm", Masking::Broker).contains(CANARY), "the canary is alive");
    assert!(seen_by(&stage, "desk", Masking::Service).contains(CANARY), "trusted to mask for itself");
}

#[test]
fn b03_not_even_where_the_settings_reveal_all_that_they_can() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.configure("crm", Settings { reveal_service: true, reveal_kind: true }).unwrap();
    for (n, content) in contents().into_iter().enumerate() {
        let mut command = Stage::reply_of("crm", Some("ann"), conversation, &n.to_string());
        command.content = content;
        stage.reply(command).unwrap();
    }
    let seen = seen_by(&stage, "desk", Masking::Broker);
    assert!(seen.contains("template") && seen.contains("crm") && !seen.contains(CANARY), "{seen}");
}

/// Ids are printed, they are how a log is read: so here they have no canary, and all else has.
#[test]
fn b03_nothing_that_can_be_printed_holds_a_byte_of_the_content() {
    let (stage, conversation) = played("id");
    let mut printed = format!("{:?} {:?} {:?}", stage.channel, stage.portal, stage.records);
    for (n, content) in contents().into_iter().enumerate() {
        let mut command = Stage::reply_of("crm", Some("ann"), conversation, &n.to_string());
        command.content = content;
        command.callback_data = Some(Bytes::from(CANARY));
        printed += &format!("{command:?} {:?}", Command::Reply(command.clone()));
    }
    let at = printed.find(CANARY).map(|at| printed[at.saturating_sub(200)..at + 20].to_owned());
    assert_eq!(at, None);
    assert!(!printed.contains("Name-ann"), "nor a name");
}

#[test]
fn b03_no_answer_to_another_service_and_no_rejection_holds_a_byte_of_the_content() {
    let (mut stage, conversation) = played(CANARY);
    let opened = stage.open("desk", "dan", conversation);
    let warning = warned(stage.pick_up("desk", "dan", conversation));
    let mut late = Stage::reply_of("desk", Some("dan"), conversation, "r1");
    late.seen = Some(Offset::ZERO);
    let replied = warned(stage.reply(late.clone()));
    late.agent = Some(agent("nobody"));
    let refused = stage.reply(late).unwrap_err();
    let listed = stage.listed("desk", conversation);
    let told = format!(
        "{opened:?} {warning:?} {replied:?} {refused:?} {refused} {listed:?} {:?}",
        stage.channel.seen()
    );
    assert!(!told.contains(CANARY), "{told}");
    assert!(!told.contains("Name-ann"), "nor who it was, where he has no access: {told}");
}
