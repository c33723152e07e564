//! Customers' messages: R12, R14–R16, B6, B7's redaction, B8, B12.

use bytes::Bytes;
use sharedline::domain::channel::ListQuery;
use sharedline::domain::claims::HOLDERS_MAX;
use sharedline::domain::command::{Addressee, Answer, LookedUp, Rejection, Window};
use sharedline::domain::content::Content;
use sharedline::domain::event::{ClaimAction, ClearTo, Event, Settings};
use sharedline::domain::ids::{MessageId, Offset, Timestamp};
use sharedline::domain::portal::PickUpRule;
use sharedline::domain::recent_ids::Suspect;
use sharedline::domain::view::{Masking, View};

use crate::stage::{DAY, HOUR, MINUTE, START, Stage, content_of, name, rules, service, warned};

#[test]
fn r12_a_customers_message_appears_in_every_subscribed_service_in_one_conversation() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    let offset = stage.last().offset.0;
    for of in ["crm", "desk", "salesiq"] {
        assert!(stage.offsets_delivered(of).contains(&offset), "{of}");
        let Some(View::Message { content, redacted: false, .. }) = stage.sees(of, stage.last()) else {
            panic!()
        };
        assert!(content.windows(5).any(|bytes| bytes == b"hello"));
    }
    assert_eq!(stage.writes("491", "again"), conversation);
    assert_ne!(stage.writes("492", "another customer"), conversation);
}

#[test]
fn r14_only_a_service_trusted_to_mask_for_itself_gets_the_content() {
    let mut stage = Stage::shared();
    stage.rule("salesiq", |rules| rules.masking = Masking::Service);
    let conversation = stage.writes("491", "hello");
    stage.replies("crm", Some("ann"), conversation, "secret");
    assert!(matches!(stage.sees("crm", stage.last()), Some(View::Reply(_))));
    assert!(matches!(stage.sees("desk", stage.last()), Some(View::MaskedReply { content: None, .. })));
    let Some(View::MaskedReply { content: Some(_), service: None, kind: None }) =
        stage.sees("salesiq", stage.last())
    else {
        panic!()
    };
}

#[test]
fn r15_whoever_opens_sees_all_of_it_though_its_service_joined_late() {
    let mut stage = Stage::new();
    stage.create("desk");
    let conversation = stage.writes("491", "hello");
    stage.replies("crm", Some("ann"), conversation, "r1");
    stage.pick_up("crm", "ann", conversation).unwrap();
    stage.create("salesiq");
    let opened = stage.open("salesiq", "zoe", conversation);
    assert_eq!(opened.head, stage.channel.conversation_head(conversation));
    assert_eq!(opened.warned.unwrap().warnings.len(), 1, "and the warnings that hold now");
    let timeline: Vec<_> =
        stage.records.iter().filter(|record| record.conversation == Some(conversation)).collect();
    let seen: Vec<_> = timeline.iter().map(|record| stage.sees("salesiq", record)).collect();
    assert!(matches!(
        seen.as_slice(),
        [Some(View::Message { .. }), Some(View::MaskedReply { .. }), Some(View::Claim { own: None, .. })]
    ));
}

#[test]
fn r16_the_state_keeps_no_content_and_no_name() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("49177777", "canarycanary");
    let mut reply = Stage::reply_of("crm", Some("ann"), conversation, "r1");
    reply.content = content_of("text", "canarycanary");
    stage.reply(reply).unwrap();
    let state = format!("{:?}", stage.channel);
    assert!(!state.contains("canary") && !state.contains("49177777"));
    // The debug form hides what hides itself, so weigh it too: 1 MiB of content must not stay.
    let retained = stage.inbound_of("49177777", "");
    let bytes = Bytes::from(vec![b'x'; 1 << 20]);
    let mut watched = retained;
    watched.message.content = Content::checked(bytes.clone(), 0..0, &[]);
    stage.receive(watched).unwrap();
    stage.records.clear();
    assert!(bytes.is_unique(), "the channel holds the content of a message");
}

#[test]
fn b06_a_repeat_is_told_by_the_full_message_id_for_8_days() {
    let mut stage = Stage::shared();
    let message = stage.inbound_of("491", "hello");
    let first = stage.receive(message.clone());
    let Ok(Answer::Message { offset, duplicate: false }) = first else { panic!() };
    stage.pass(8 * DAY - MINUTE);
    let suspected = stage.tell(sharedline::domain::command::Command::Inbound(message.clone()));
    assert_eq!(suspected, Ok(Answer::LookUp(Suspect::At(offset))), "a suspicion alone drops nothing");
    assert_eq!(stage.receive(message.clone()), Ok(Answer::Message { offset, duplicate: true }));
    let mut different = message.clone();
    different.looked_up = LookedUp::Different;
    assert!(matches!(stage.receive(different), Ok(Answer::Message { duplicate: false, .. })));
}

#[test]
fn b06_a_message_older_than_8_days_by_its_own_time_is_taken_as_new() {
    let mut stage = Stage::shared();
    let message = stage.inbound_of("491", "hello");
    stage.receive(message.clone()).unwrap();
    stage.pass(8 * DAY + MINUTE);
    assert!(matches!(stage.receive(message), Ok(Answer::Message { duplicate: false, .. })));
}

/// A tapped button as WhatsApp sends it, with what the sending service wrote for machines cut out of the copy.
fn button(payload: &str) -> Content {
    let json = format!(r#"{{"type":"button","button":{{"payload":"{payload}","text":"Yes"}}}}"#);
    let (start, end) = (json.find(r#""payload""#).unwrap(), json.find(r#""text""#).unwrap());
    let cut = u32::try_from(start).unwrap()..u32::try_from(end).unwrap();
    Content::checked(Bytes::from(json), 9..15, std::slice::from_ref(&cut))
}

#[test]
fn b07_what_a_service_wrote_for_machines_goes_to_it_alone() {
    let mut stage = Stage::shared();
    for (sender, clear) in [(Some("desk"), "desk"), (None, "crm")] {
        let mut tap = stage.inbound_of("491", "");
        tap.message.content = button("canary");
        tap.message.refers_to = Some(MessageId::trusted("wamid.sent"));
        tap.sender = sender.map(service);
        stage.receive(tap).unwrap();
        for of in ["crm", "desk", "salesiq"] {
            let Some(View::Message { content, redacted, .. }) = stage.sees(of, stage.last()) else {
                panic!()
            };
            let text = String::from_utf8(content.to_vec()).unwrap();
            assert_eq!(redacted, of != clear, "{of}");
            assert_eq!(text.contains("canary"), of == clear, "{of}");
            assert!(text.contains("Yes"), "what the customer chose is never masked");
        }
    }
    stage.writes("491", "plain");
    let Event::Message(plain) = &stage.last().event else { panic!() };
    assert_eq!(plain.clear_to, ClearTo::Everyone);
}

fn window(stage: &Stage, conversation: sharedline::domain::ids::ConversationId) -> Window {
    stage.channel.conversation(conversation, Timestamp(stage.now)).unwrap().window
}

#[test]
fn b08_the_window_runs_24_hours_from_the_newest_message_by_its_own_time() {
    let mut stage = Stage::shared();
    stage.pass(2 * DAY);
    let mut message = stage.inbound_of("491", "an hour old");
    message.message.sent_at = Timestamp(stage.now - HOUR);
    stage.receive(message).unwrap();
    let conversation = stage.last().conversation.unwrap();
    let ends = Timestamp(stage.now + 23 * HOUR);
    assert_eq!(window(&stage, conversation), Window::Open(ends));
    let mut late = stage.inbound_of("491", "two hours old, comes later");
    late.message.sent_at = Timestamp(stage.now - 2 * HOUR);
    stage.receive(late).unwrap();
    assert_eq!(window(&stage, conversation), Window::Open(ends), "the newest counts, not the last to come");
    stage.pass(23 * HOUR - 1);
    stage.replies("crm", Some("ann"), conversation, "just in time");
    stage.pass(1);
    assert_eq!(window(&stage, conversation), Window::Closed(ends));
    let late = Stage::reply_of("crm", Some("ann"), conversation, "late");
    assert_eq!(stage.reply(late.clone()), Err(Rejection::WindowClosed));
    let template = sharedline::domain::command::ReplyCommand { content: content_of("template", "t"), ..late };
    assert!(matches!(stage.reply(template), Ok(Answer::Accepted { .. })), "templates pass");
}

#[test]
fn b08_an_unseen_window_is_unknown_while_the_channel_has_not_been_active_for_24_hours() {
    let mut stage = Stage::shared();
    let to = |id: &str, reply_id: &str| {
        let mut reply =
            Stage::reply_of("crm", Some("ann"), sharedline::domain::ids::ConversationId(0), reply_id);
        reply.to = Addressee::Customer(name(id));
        reply
    };
    stage.pass(DAY - 1);
    let Ok(Answer::Accepted { conversation, .. }) = stage.reply(to("491", "r1")) else { panic!() };
    assert_eq!(window(&stage, conversation), Window::Unknown, "refuses nothing");
    stage.pass(1);
    assert_eq!(window(&stage, conversation), Window::Closed(Timestamp(START + DAY)));
    assert_eq!(stage.reply(to("492", "r2")), Err(Rejection::WindowClosed), "templates only");
    let mut template = to("492", "r3");
    template.content = content_of("template", "t");
    assert!(matches!(stage.reply(template), Ok(Answer::Accepted { .. })));
}

#[test]
fn b08_a_window_from_before_a_dormancy_is_unknown_until_the_next_message_or_24_hours() {
    let mut stage = Stage::shared();
    let (one, two) = (stage.writes("491", "hello"), stage.writes("492", "hello"));
    let seen_at = stage.now;
    for of in ["crm", "desk", "salesiq"] {
        stage.deactivate(of);
    }
    stage.pass(HOUR);
    stage.activate("crm");
    assert_eq!(window(&stage, one), Window::Unknown);
    stage.writes("491", "next");
    assert_eq!(window(&stage, one), Window::Open(Timestamp(seen_at + HOUR + DAY)));
    stage.pass(DAY - 1);
    assert_eq!(window(&stage, two), Window::Unknown);
    stage.pass(1);
    assert_eq!(window(&stage, two), Window::Closed(Timestamp(seen_at + DAY)));
}

#[test]
fn b12_names_seen_together_are_one_customer() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("US.1+491", "both names");
    assert_eq!(stage.writes("491", "by wa_id"), conversation);
    assert_eq!(stage.writes("US.1", "by user_id"), conversation);
    assert!(!conversation.to_string().contains("491"));
    let opened_at = stage.channel.conversation(conversation, Timestamp(stage.now)).unwrap().customer_at;
    let Event::Message(named) = &stage.record(opened_at).event else { panic!() };
    assert_eq!(named.customer.names().count(), 2, "the record that says most of the customer");
}

#[test]
fn b12_user_changed_moves_the_conversation() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "old number");
    let mut change = stage.inbound_of("492", "new number");
    change.message.formerly = vec![name("491")];
    stage.receive(change).unwrap();
    assert_eq!(stage.last().conversation, Some(conversation));
    assert_eq!(stage.writes("492", "from there"), conversation);
}

#[test]
fn b12_of_two_conversations_that_are_one_customers_the_older_goes_on() {
    let mut stage = Stage::shared();
    let older = stage.writes("491", "by wa_id");
    let younger = stage.writes("US.1", "by user_id");
    let younger_head = stage.last().offset;
    assert_ne!(older, younger);
    stage.replies("desk", Some("dan"), younger, "r1");
    stage.pick_up("crm", "ann", older).unwrap();
    stage.pick_up("desk", "dan", younger).unwrap();
    let both = warned(stage.pick_up("salesiq", "sid", older));
    stage.pick_up_with("salesiq", "sid", older, Some(&both)).unwrap();
    let both = warned(stage.pick_up("salesiq", "zoe", younger));
    stage.pick_up_with("salesiq", "zoe", younger, Some(&both)).unwrap();

    stage.writes("US.1+491", "both");
    let [.., released, merged, message] = stage.records.as_slice() else { panic!() };
    let Event::Claim(released_claim) = &released.event else { panic!() };
    assert_eq!(released_claim.action, ClaimAction::Released);
    assert_eq!((&released_claim.service, released.conversation), (&service("salesiq"), Some(younger)));
    assert!(matches!(&merged.event, Event::Merged(merged) if merged.from == younger));
    assert_eq!((merged.conversation, message.conversation), (Some(older), Some(older)));
    assert!(matches!(stage.sees("desk", merged), Some(View::Merged { from }) if from == younger));

    let now = stage.channel.conversation(younger, Timestamp(stage.now)).unwrap();
    assert_eq!(now.conversation, older, "the younger's id means the older");
    assert!(matches!(now.merged.as_slice(), [(id, last)] if *id == younger && *last >= younger_head));
    assert_eq!(stage.holders("crm", older), ["ann"]);
    assert_eq!(stage.holders("desk", older), ["dan"], "the younger's claim goes over");
    assert_eq!(stage.holders("salesiq", older), ["sid"], "where one held both, the younger's is released");
    assert_eq!(stage.release("desk", "dan", younger), Ok(Answer::Done));
    assert_eq!(stage.last().conversation, Some(older));
    let repeated = stage.reply(Stage::reply_of("desk", Some("dan"), younger, "r1"));
    assert!(
        matches!(repeated, Ok(Answer::Accepted { conversation, duplicate: true, .. }) if conversation == older)
    );
}

/// Ten services, each with as many holders as it can have in both: more than one decision may record.
#[test]
fn b12_a_merge_of_two_conversations_that_all_hold_is_one_decision() {
    let ids: Vec<String> = (0..10).map(|n| format!("s{n}")).collect();
    let all = ids.iter().map(|id| {
        let mut one = rules(id);
        one.pick_up = PickUpRule::Open;
        one
    });
    let mut stage = Stage::empty(all.collect());
    stage.replays = false;
    let agents: Vec<String> = (0..HOLDERS_MAX).map(|n| format!("agent{n:02}")).collect();
    for id in &ids {
        stage.roster(id, &agents.iter().map(String::as_str).collect::<Vec<_>>());
        stage.create(id);
    }
    let (older, younger) = (stage.writes("491", "by wa_id"), stage.writes("US.1", "by user_id"));
    for conversation in [older, younger] {
        for (id, who) in ids.iter().flat_map(|id| agents.iter().map(move |who| (id, who))) {
            if let Ok(Answer::Warned(warned)) = stage.pick_up(id, who, conversation) {
                stage.pick_up_with(id, who, conversation, Some(&warned)).unwrap();
            }
        }
    }
    let before = stage.records.len();
    stage.writes("US.1+491", "both");
    assert!((200..=256).contains(&(stage.records.len() - before)));
    assert_eq!(stage.replayed(), stage.channel);
    stage.settle();
    for id in &ids {
        for who in &agents {
            assert_eq!(stage.release(id, who, older), Ok(Answer::Done), "{id} {who} holds it once");
            assert_eq!(stage.release(id, who, younger), Err(Rejection::NotClaimed));
        }
    }
}

#[test]
fn b12_a_merge_keeps_what_was_replied_and_by_whom() {
    let mut stage = Stage::shared();
    let older = stage.writes("491", "a");
    let younger = stage.writes("US.1", "b");
    stage.replies("crm", Some("ann"), older, "r1");
    let seen = stage.replies("desk", Some("dan"), younger, "r2");
    stage.writes("US.1+491", "both");
    let mut reply = Stage::reply_of("crm", Some("ann"), older, "r3");
    reply.seen = Some(seen.before());
    warned(stage.reply(reply.clone()));
    reply.seen = Some(seen);
    assert!(matches!(stage.reply(reply), Ok(Answer::Accepted { .. })));
    let mut reply = Stage::reply_of("desk", Some("dan"), younger, "r4");
    reply.seen = Some(Offset::ZERO);
    warned(stage.reply(reply));
}

#[test]
fn b12_merging_goes_on_over_several_conversations_in_any_order() {
    let mut stage = Stage::shared();
    let ids: Vec<_> = ["491", "492", "493", "US.1"].iter().map(|from| stage.writes(from, "hello")).collect();
    stage.writes("US.1+493", "third and fourth");
    let mut change = stage.inbound_of("491", "first and second");
    change.message.formerly = vec![name("492")];
    stage.receive(change).unwrap();
    let mut change = stage.inbound_of("US.1", "all");
    change.message.formerly = vec![name("492")];
    stage.receive(change).unwrap();
    let now = Timestamp(stage.now);
    for id in &ids {
        assert_eq!(stage.channel.conversation(*id, now).unwrap().conversation, ids[0]);
    }
    let mut merged: Vec<_> =
        stage.channel.conversation(ids[0], now).unwrap().merged.into_iter().map(|(id, _)| id).collect();
    merged.sort();
    let mut younger = ids[1..].to_vec();
    younger.sort();
    assert_eq!(merged, younger);
    for from in ["491", "492", "493", "US.1"] {
        assert_eq!(stage.writes(from, "still here"), ids[0]);
    }
}

#[test]
fn a_list_shows_conversations_once_in_pages_and_by_filter() {
    let mut stage = Stage::shared();
    let ids: Vec<_> = (0..5).map(|n| stage.writes(&format!("49{n}"), "hello")).collect();
    stage.pick_up("crm", "ann", ids[1]).unwrap();
    stage.replies("crm", Some("ann"), ids[2], "r1");
    let mut query =
        ListQuery { service: service("desk"), after: None, limit: 2, claimed: None, unanswered: None };
    let mut listed = Vec::new();
    loop {
        let (page, next) = stage.channel.list_conversations(&stage.portal, &query, Timestamp(stage.now));
        assert!(page.len() <= 2);
        listed.extend(page);
        query.after = next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(listed.iter().map(|one| one.conversation).collect::<Vec<_>>(), ids);
    let [bare] = listed[1].claims.as_slice() else { panic!() };
    assert!(!bare.own && bare.agent.is_none() && bare.since.is_none(), "others as one bare entry");
    assert!(listed[1].unanswered && !listed[2].unanswered);
    let only = |claimed, unanswered| {
        let query = ListQuery { service: service("desk"), after: None, limit: 200, claimed, unanswered };
        let (page, next) = stage.channel.list_conversations(&stage.portal, &query, Timestamp(stage.now));
        assert_eq!(next, None);
        page.into_iter().map(|one| one.conversation).collect::<Vec<_>>()
    };
    assert_eq!(only(Some(true), None), [ids[1]]);
    assert_eq!(only(Some(false), None), [ids[0], ids[2], ids[3], ids[4]]);
    assert_eq!(only(None, Some(false)), [ids[2]]);
}

#[test]
fn b03_masked_replies_show_sender_and_kind_only_by_the_settings() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.replies("crm", Some("ann"), conversation, "r1");
    let plain = stage.last().clone();
    assert!(matches!(
        stage.sees("desk", &plain),
        Some(View::MaskedReply { service: None, kind: None, content: None })
    ));
    stage.configure("crm", Settings { reveal_service: true, reveal_kind: true }).unwrap();
    stage.replies("crm", Some("ann"), conversation, "r2");
    let Some(View::MaskedReply { service: Some(of), kind: Some("text"), content: None }) =
        stage.sees("desk", stage.last())
    else {
        panic!()
    };
    assert_eq!(of.as_str(), "crm");
    assert!(
        matches!(stage.sees("desk", &plain), Some(View::MaskedReply { service: None, .. })),
        "the settings of the time when it was sent"
    );
}
