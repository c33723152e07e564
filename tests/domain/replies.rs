//! Replies: R13, R20, B4, B5, B7's receipts, B16, B17, and the order in which a reply is looked at.

use sharedline::domain::channel::Channel;
use sharedline::domain::command::{Addressee, Answer, Rejection, SendOutcome, StatusOf, WarningCode};
use sharedline::domain::event::{Event, Status};
use sharedline::domain::ids::{ConversationId, Offset, ReplyId};
use sharedline::domain::portal::{BotWhenClaimed, PickUpRule};
use sharedline::domain::view::View;

use crate::stage::{DAY, MINUTE, Stage, failure, message_id, name, text, warned};

fn is_accepted(answer: &Result<Answer, Rejection>) -> bool {
    matches!(answer, Ok(Answer::Accepted { duplicate: false, .. }))
}

#[test]
fn r13_a_reply_goes_to_the_customer_once_and_masked_to_the_others() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    let reply = stage.replies("crm", Some("ann"), conversation, "r1");
    let record = stage.record(reply).clone();
    assert!(matches!(stage.sees("crm", &record), Some(View::Reply(_))));
    for of in ["desk", "salesiq"] {
        assert!(matches!(stage.sees(of, &record), Some(View::MaskedReply { content: None, .. })));
        assert!(stage.offsets_delivered(of).contains(&reply.0));
    }
    assert_eq!(stage.hand(reply), Ok(Answer::Done));
    assert_eq!(stage.hand(reply), Ok(Answer::Ignored), "once");
    stage.outcome(reply, SendOutcome::Sent(message_id("wamid.out")));
    assert_eq!(stage.hand(reply), Ok(Answer::Ignored), "never again");
    assert!(stage.sees("desk", stage.last()).is_none(), "a receipt is for the service that sent it");
    assert!(matches!(stage.sees("crm", stage.last()), Some(View::Receipt(_))));
}

#[test]
fn r20_after_a_pick_up_elsewhere_an_agent_may_reply_without_picking_up() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "ann", conversation).unwrap();
    stage.replies("desk", Some("dan"), conversation, "r1");
    assert!(stage.holders("desk", conversation).is_empty(), "replying takes no claim");
}

#[test]
fn b04_a_known_reply_id_is_answered_as_before_whatever_has_changed() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    let command = Stage::reply_of("crm", Some("ann"), conversation, "r1");
    let offset = stage.replies("crm", Some("ann"), conversation, "r1");
    let as_before = Ok(Answer::Accepted { offset, conversation, duplicate: true });
    assert_eq!(stage.reply(command.clone()), as_before);
    stage.pick_up("crm", "bob", conversation).unwrap();
    assert_eq!(stage.reply(command.clone()), as_before, "claimed by another now");
    stage.pass(2 * DAY);
    assert_eq!(stage.reply(command.clone()), as_before, "the window is closed now");
    stage.roster_changed("crm", &["bob"]);
    assert_eq!(stage.reply(command.clone()), as_before, "the agent is gone now");
    let mut by_name = command.clone();
    by_name.to = Addressee::Customer(name("491"));
    assert_eq!(stage.reply(by_name), as_before, "the same customer");
    stage.deactivate("crm");
    assert_eq!(stage.reply(command), Err(Rejection::NotSubscribed));
}

#[test]
fn b04_the_same_id_with_another_conversation_or_content_is_a_conflict() {
    let mut stage = Stage::shared();
    let (one, two) = (stage.writes("491", "hello"), stage.writes("492", "hello"));
    stage.replies("crm", Some("ann"), one, "r1");
    let mut other_content = Stage::reply_of("crm", Some("ann"), one, "r1");
    other_content.content = text("different");
    assert_eq!(stage.reply(other_content), Err(Rejection::Conflict));
    assert_eq!(stage.reply(Stage::reply_of("crm", Some("ann"), two, "r1")), Err(Rejection::Conflict));
    let nowhere = Stage::reply_of("crm", Some("ann"), ConversationId(1), "r1");
    assert_eq!(stage.reply(nowhere), Err(Rejection::Conflict));
    stage.replies("desk", Some("dan"), two, "r1");
}

#[test]
fn b04_an_id_is_kept_for_8_days_and_a_warning_or_a_refusal_is_no_outcome() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "ann", conversation).unwrap();
    let command = Stage::reply_of("crm", Some("bob"), conversation, "r1");
    assert!(matches!(stage.reply(command.clone()), Err(Rejection::Claimed { .. })));
    stage.release("crm", "ann", conversation).unwrap();
    assert!(is_accepted(&stage.reply(command)));
    let reply = stage.last().offset;
    stage.hand(reply).unwrap();
    stage.outcome(reply, SendOutcome::Sent(message_id("wamid.out")));
    stage.pass(8 * DAY - MINUTE);
    stage.channel.forget(sharedline::domain::ids::Timestamp(stage.now));
    let again = Stage::reply_of("crm", Some("bob"), conversation, "r1");
    let answer = stage.tell_unchecked(&sharedline::domain::command::Command::Reply(again));
    assert_eq!(answer, Ok(Answer::Accepted { offset: reply, conversation, duplicate: true }));
}

#[test]
fn b05_a_reply_to_what_somebody_else_has_answered_is_warned_and_passes_with_the_token() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    let seen = stage.channel.conversation_head(conversation);
    stage.replies("crm", Some("ann"), conversation, "r1");
    let mut command = Stage::reply_of("desk", Some("dan"), conversation, "r2");
    command.seen = Some(seen);
    let records = stage.records.len();
    let first = warned(stage.reply(command.clone()));
    assert_eq!(stage.records.len(), records, "nothing is sent");
    let [warning] = first.warnings.as_slice() else { panic!() };
    assert_eq!(warning.code, WarningCode::RepliedElsewhere);
    assert_eq!(
        (&warning.agent, &warning.name, &warning.service),
        (&None, &None, &None),
        "dan has no access to crm"
    );
    command.confirm = Some(first.confirm);
    stage.replies("crm", Some("bob"), conversation, "r3");
    let anew = warned(stage.reply(command.clone()));
    command.confirm = Some(anew.confirm);
    assert!(is_accepted(&stage.reply(command)));
}

#[test]
fn b05_ones_own_replies_are_no_double_and_another_agent_of_the_same_service_is_named() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    let seen = stage.channel.conversation_head(conversation);
    stage.replies("crm", Some("ann"), conversation, "r1");
    let mut own = Stage::reply_of("crm", Some("ann"), conversation, "r2");
    own.seen = Some(seen);
    assert!(is_accepted(&stage.reply(own)));
    let mut other = Stage::reply_of("crm", Some("bob"), conversation, "r3");
    other.seen = Some(seen);
    let first = warned(stage.reply(other.clone()));
    assert_eq!(first.warnings[0].name.as_deref(), Some("Name-ann"));
    other.confirm = Some(first.confirm);
    assert!(is_accepted(&stage.reply(other)));
    // bob's reply is the last one now; ann's own two are not what she is warned of.
    let mut own = Stage::reply_of("crm", Some("ann"), conversation, "r4");
    own.seen = Some(stage.channel.conversation_head(conversation).before());
    warned(stage.reply(own.clone()));
    own.seen = Some(stage.channel.conversation_head(conversation));
    assert!(is_accepted(&stage.reply(own)));
    let mut bob = Stage::reply_of("crm", Some("bob"), conversation, "r5");
    bob.seen = None;
    assert!(is_accepted(&stage.reply(bob)), "who does not say what he saw is not warned");
}

#[test]
fn b05_the_last_reply_by_anyone_else_counts_though_ones_own_came_later() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    let seen = stage.channel.conversation_head(conversation);
    stage.replies("desk", Some("dan"), conversation, "r1");
    stage.replies("crm", Some("ann"), conversation, "r2");
    stage.replies("crm", Some("ann"), conversation, "r3");
    let mut command = Stage::reply_of("crm", Some("ann"), conversation, "r4");
    command.seen = Some(seen);
    warned(stage.reply(command));
}

#[test]
fn b07_a_status_never_goes_backwards_and_failed_is_final() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    let reply = stage.replies("crm", Some("ann"), conversation, "r1");
    stage.hand(reply).unwrap();
    stage.outcome(reply, SendOutcome::Unknown);
    stage.outcome(reply, SendOutcome::Sent(message_id("wamid.out")));
    let of = || StatusOf::Message(message_id("wamid.out"));
    assert_eq!(stage.status(of(), Status::Read), Answer::Done);
    assert_eq!(stage.status(of(), Status::Delivered), Answer::Ignored);
    assert_eq!(stage.status(of(), Status::Failed), Answer::Ignored);
    assert_eq!(stage.status(of(), Status::Played), Answer::Done);
    let statuses: Vec<Status> = stage
        .records
        .iter()
        .filter_map(|record| match &record.event {
            Event::Receipt(receipt) => Some(receipt.status),
            _ => None,
        })
        .collect();
    assert_eq!(statuses, [Status::Unknown, Status::Sent, Status::Read, Status::Played]);

    let failed = stage.replies("crm", Some("ann"), conversation, "r2");
    stage.hand(failed).unwrap();
    stage.outcome(failed, SendOutcome::Failed(failure("131047")));
    assert_eq!(stage.status(StatusOf::Reply(failed), Status::Sent), Answer::Ignored);
}

#[test]
fn b07_a_status_before_its_message_is_kept_for_60_seconds() {
    let of = || StatusOf::Message(message_id("wamid.out"));
    for (waits, kept) in [(59, true), (61, false)] {
        let mut stage = Stage::shared();
        let conversation = stage.writes("491", "hello");
        let reply = stage.replies("crm", Some("ann"), conversation, "r1");
        assert_eq!(stage.status(of(), Status::Delivered), Answer::Parked);
        stage.pass(waits * 1000);
        stage.hand(reply).unwrap();
        stage.outcome(reply, SendOutcome::Sent(message_id("wamid.out")));
        let Event::Receipt(receipt) = &stage.last().event else { panic!() };
        assert_eq!(receipt.status, if kept { Status::Delivered } else { Status::Sent });
    }
}

#[test]
fn b16_within_a_service_its_rule_says_what_a_reply_by_another_gets() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "ann", conversation).unwrap();
    let by_bob = |id: &str| Stage::reply_of("crm", Some("bob"), conversation, id);
    let Err(Rejection::Claimed { holder, name }) = stage.reply(by_bob("r1")) else { panic!() };
    assert_eq!((holder.as_str(), name.as_deref()), ("ann", Some("Name-ann")));
    assert!(is_accepted(&stage.reply(Stage::reply_of("crm", Some("ann"), conversation, "r2"))), "the holder");

    stage.rule("crm", |rules| rules.pick_up = PickUpRule::Takeover);
    let warning = warned(stage.reply(by_bob("r3")));
    assert_eq!(warning.warnings[0].code, WarningCode::ClaimedByOther);
    let mut confirmed = by_bob("r3");
    confirmed.confirm = Some(warning.confirm);
    assert!(is_accepted(&stage.reply(confirmed)));
    assert_eq!(stage.holders("crm", conversation), ["ann"], "it takes no claim");

    stage.rule("crm", |rules| rules.pick_up = PickUpRule::Open);
    assert!(is_accepted(&stage.reply(by_bob("r4"))));
}

#[test]
fn b16_a_bot_passes_unless_its_service_refuses_bots_while_it_is_held() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "ann", conversation).unwrap();
    for rule in [PickUpRule::Exclusive, PickUpRule::Takeover, PickUpRule::Open] {
        stage.rule("crm", |rules| rules.pick_up = rule);
        stage.replies("crm", None, conversation, &format!("{rule:?}"));
    }
    stage.rule("crm", |rules| rules.bot_when_claimed = BotWhenClaimed::Refuse);
    let by_bot = Stage::reply_of("crm", None, conversation, "refused");
    assert!(matches!(stage.reply(by_bot.clone()), Err(Rejection::Claimed { .. })));
    stage.release("crm", "ann", conversation).unwrap();
    assert!(is_accepted(&stage.reply(by_bot)));
}

#[test]
fn b16_a_pick_up_in_another_service_never_stops_a_reply() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "ann", conversation).unwrap();
    for rule in [PickUpRule::Exclusive, PickUpRule::Takeover, PickUpRule::Open] {
        stage.rule("desk", |rules| rules.pick_up = rule);
        stage.replies("desk", Some("dan"), conversation, &format!("{rule:?}"));
    }
}

#[test]
fn b17_a_reply_written_on_the_phone_is_the_parents() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    let seen = stage.channel.conversation_head(conversation);
    let Answer::Accepted { offset, conversation: of, duplicate: false } =
        stage.echo("491", "wamid.phone", "hi")
    else {
        panic!()
    };
    assert_eq!(of, conversation);
    let Some(View::Reply(reply)) = stage.sees("crm", stage.record(offset)) else { panic!() };
    assert_eq!((reply.reply_id.as_str(), &reply.agent), ("echo:wamid.phone", &None));
    assert!(matches!(stage.sees("desk", stage.record(offset)), Some(View::MaskedReply { .. })));
    assert_eq!(stage.hand(offset), Ok(Answer::Ignored), "it has been sent");
    let mut late = Stage::reply_of("desk", Some("dan"), conversation, "r1");
    late.seen = Some(seen);
    warned(stage.reply(late));
    stage.deactivate("crm");
    let repeated = stage.echo("491", "wamid.phone", "hi");
    assert_eq!(
        repeated,
        Answer::Accepted { offset, conversation, duplicate: true },
        "whoever is parent by then"
    );
    assert_eq!(stage.status(StatusOf::Message(message_id("wamid.phone")), Status::Read), Answer::Done);
    let mut own = Stage::reply_of("desk", Some("dan"), conversation, "r2");
    own.reply_id = ReplyId::trusted("echo:mine");
    assert!(matches!(stage.reply(own), Err(Rejection::BadMessage(_))));
}

/// One command that is wrong in every way is told the first; put right one by one, the next.
#[test]
fn a_reply_is_looked_at_in_the_order_of_the_contract() {
    let mut stage = Stage::shared();
    stage.rule("desk", |rules| rules.pick_up = PickUpRule::Exclusive);
    let conversation = stage.writes("491", "hello");
    let seen = stage.channel.conversation_head(conversation);
    stage.pick_up("desk", "dan", conversation).unwrap();
    stage.replies("crm", Some("ann"), conversation, "r1");
    stage.deactivate("desk");
    let mut command = Stage::reply_of("desk", Some("nobody"), ConversationId(1), "echo:1");
    (command.seen, command.confirm) = (Some(seen), Some("unreadable".into()));
    assert!(matches!(stage.reply(command.clone()), Err(Rejection::BadMessage(_))));
    command.reply_id = ReplyId::trusted("2");
    assert_eq!(stage.reply(command.clone()), Err(Rejection::NotFound));
    command.to = Addressee::Conversation(conversation);
    assert_eq!(stage.reply(command.clone()), Err(Rejection::NotSubscribed));
    stage.activate("desk");
    stage.settle();
    stage.pass(2 * DAY);
    assert_eq!(stage.reply(command.clone()), Err(Rejection::UnknownAgent));
    command.agent = Some(crate::stage::agent("eve"));
    assert_eq!(stage.reply(command.clone()), Err(Rejection::WindowClosed));
    stage.writes("491", "again");
    stage.pick_up("desk", "dan", conversation).unwrap();
    assert!(matches!(stage.reply(command.clone()), Err(Rejection::Claimed { .. })));
    stage.release("desk", "dan", conversation).unwrap();
    assert_eq!(stage.reply(command.clone()), Err(Rejection::StaleConfirm));
    command.confirm = None;
    command.confirm = Some(warned(stage.reply(command.clone())).confirm);
    assert!(is_accepted(&stage.reply(command)));
}

#[test]
fn a_reply_to_a_name_starts_the_conversation() {
    let mut stage = Stage::shared();
    let mut command = Stage::reply_of("crm", None, ConversationId(0), "r1");
    command.to = Addressee::Customer(name("491"));
    let Ok(Answer::Accepted { conversation, offset, .. }) = stage.reply(command) else { panic!() };
    assert_eq!(conversation, ConversationId::derive(stage.channel.id(), offset));
    assert_eq!(stage.writes("491", "I answer"), conversation);
    let Event::Reply(reply) = &stage.record(offset).event else { panic!() };
    assert_eq!(reply.to.wa_id.as_ref().map(|name| name.as_str()), Some("491"));
}

#[test]
fn replies_that_wait_too_long_expire_and_handed_ones_without_outcome_become_unknown() {
    let mut stage = Stage::shared();
    let (one, two) = (stage.writes("491", "hello"), stage.writes("492", "hello"));
    let handed = stage.replies("crm", Some("ann"), one, "r1");
    stage.hand(handed).unwrap();
    let waiting = stage.replies("crm", Some("ann"), two, "r2");
    let deadline = |channel: &Channel, stage: &Stage| channel.next_deadline(&stage.portal).unwrap().0;
    assert_eq!(deadline(&stage.channel, &stage), stage.now + MINUTE);
    stage.pass(MINUTE);
    stage.settle();
    let Event::Receipt(receipt) = &stage.last().event else { panic!() };
    assert_eq!((receipt.reply, receipt.status), (handed, Status::Unknown));
    stage.pass(crate::stage::SEND_TTL - MINUTE);
    stage.settle();
    let Event::Receipt(receipt) = &stage.last().event else { panic!() };
    assert_eq!((receipt.reply, receipt.status), (waiting, Status::Failed));
    assert_eq!(&*receipt.error.as_ref().unwrap().code, "expired");
    assert_eq!(stage.outcome(handed, SendOutcome::Sent(message_id("wamid.late"))), Answer::Done);
    assert_ne!(Offset::ZERO, waiting);
}
