//! Channel and subscribers, and who may take part: R1–R11, B1, B13.

use sharedline::domain::channel::Standing;
use sharedline::domain::command::{
    Answer, ChannelState, Command, Rejection, SendOutcome, StandingChange, StandingCommand,
};
use sharedline::domain::event::{Actor, Agent, Event, MembershipAction, RosterChange, Settings, Status};
use sharedline::domain::ids::{ChannelId, Offset};
use sharedline::domain::portal::{FAMILIES_NOT_ELIGIBLE, NumberRefusal, Numbers, Plan, Portal};

use crate::stage::{HOUR, Stage, agent, message_id, number, portal_rules, rules, service};

use StandingChange::{Activate, Create, Deactivate, Delete};

fn standing(created: bool, joined: bool, changed: bool) -> Result<Answer, Rejection> {
    Ok(Answer::Standing { created, joined, changed })
}

fn actions(stage: &Stage) -> Vec<(MembershipAction, String)> {
    let memberships = stage.records.iter().filter_map(|record| match &record.event {
        Event::Membership(membership) => Some((membership.action, membership.service.to_string())),
        _ => None,
    });
    memberships.collect()
}

#[test]
fn r01_creating_makes_the_channel_and_the_creator_its_parent() {
    let mut stage = Stage::empty(vec![rules("crm")]);
    assert!(stage.channel.is_new());
    assert_eq!(stage.standing("crm", Create), standing(true, false, true));
    assert_eq!(stage.list(), "crm*");
    assert_eq!(stage.channel.state(), ChannelState::Active);
    assert_eq!(actions(&stage), [(MembershipAction::Subscribed, "crm".to_owned())]);
}

#[test]
fn r02_creating_where_there_is_a_channel_joins_it_at_the_end() {
    let mut stage = Stage::new();
    assert_eq!(stage.standing("desk", Create), standing(false, true, true));
    assert_eq!(stage.standing("salesiq", Create), standing(false, true, true));
    assert_eq!(stage.list(), "crm* desk salesiq");
}

#[test]
fn r02_however_many_ask_there_is_one_open_channel_for_a_number() {
    let mut portal = Portal::new(portal_rules(vec![rules("crm"), rules("desk")]));
    let first = portal.decide_open(&number(), None, ChannelId(1)).unwrap();
    portal.apply(&first);
    for asking in 2..100 {
        assert_eq!(portal.decide_open(&number(), None, ChannelId(asking)), None);
    }
    assert_eq!(portal.open_channel(&number(), None), Some(ChannelId(1)));
    assert_eq!(portal.open_channels().count(), 1);
}

#[test]
fn what_channels_know_of_a_portal_does_not_grow_with_their_number() {
    let mut portal = Portal::new(portal_rules(vec![rules("crm"), rules("desk")]));
    let ann = Agent { agent: agent("ann"), name: "Ann".into(), lead: false };
    let change = RosterChange { service: service("crm"), agents: vec![ann], replace: false, remove: vec![] };
    portal.apply(&portal.decide_roster(&change).unwrap());
    let before = portal.for_channels();
    assert!(before.agent(&service("crm"), &agent("ann")).is_some(), "channels know the rosters");
    portal.apply(&portal.decide_open(&number(), None, ChannelId(1)).unwrap());
    assert!(portal.for_channels() == before && portal != before);
    portal.apply(&portal.decide_closed(ChannelId(1)).unwrap());
    assert!(portal.for_channels() == before && portal != before);
}

#[test]
fn r03_a_joiner_receives_incoming_messages_at_once() {
    let mut stage = Stage::new();
    stage.create("desk");
    stage.writes("491", "hello");
    let offset = stage.last().offset.0;
    assert_eq!(stage.offsets_delivered("desk"), [offset - 1, offset], "its own subscribed, then the message");
}

#[test]
fn r04_only_the_parent_changes_the_settings() {
    let mut stage = Stage::shared();
    let revealing = Settings { reveal_service: true, reveal_kind: false };
    assert_eq!(stage.configure("desk", revealing), Err(Rejection::NotParent));
    assert_eq!(stage.configure("crm", revealing), standing(false, false, true));
    assert_eq!(stage.channel.settings(), revealing);
    let records = stage.records.len();
    assert_eq!(stage.configure("crm", revealing), standing(false, false, false));
    assert_eq!(stage.records.len(), records, "what changes nothing records nothing");
    stage.deactivate("crm");
    assert_eq!(stage.configure("crm", Settings::default()), Err(Rejection::NotSubscribed));
    assert_eq!(
        stage.configure("desk", Settings::default()),
        standing(false, false, true),
        "desk is parent now"
    );
}

#[test]
fn r05_activating_goes_to_the_end_and_does_not_get_parenthood_back() {
    let mut stage = Stage::shared();
    stage.deactivate("crm");
    assert_eq!((stage.list(), stage.standing_of("crm")), ("desk* salesiq".to_owned(), Standing::Inactive));
    stage.activate("crm");
    assert_eq!(stage.list(), "desk* salesiq crm");
    stage.deactivate("desk");
    assert_eq!(stage.list(), "salesiq crm*", "its rank was kept: crm is the earliest created");
}

#[test]
fn r06_creating_after_deleting_is_a_new_creation() {
    let mut stage = Stage::shared();
    stage.delete("crm");
    assert_eq!(stage.standing_of("crm"), Standing::None);
    assert_eq!(stage.standing("crm", Activate), Err(Rejection::NotSubscribed));
    assert_eq!(stage.standing("crm", Create), standing(false, true, true));
    stage.delete("desk");
    assert_eq!(stage.list(), "salesiq* crm", "the new rank is later than salesiq's");
}

#[test]
fn r07_the_earliest_created_becomes_the_parent() {
    for change in [Deactivate, Delete] {
        let mut stage = Stage::shared();
        // The order of the list is not the order of creation: desk, created second, now stands last.
        stage.deactivate("desk");
        stage.activate("desk");
        assert_eq!(stage.list(), "crm* salesiq desk");
        stage.standing("crm", change).unwrap();
        assert_eq!(stage.list(), "salesiq desk*");
        let [.., left, promoted] = stage.records.as_slice() else { panic!() };
        let (Event::Membership(left), Event::Membership(promoted)) = (&left.event, &promoted.event) else {
            panic!()
        };
        assert_eq!(left.parent, Some(service("desk")), "at once");
        assert_eq!((promoted.action, &promoted.by), (MembershipAction::ParentChanged, &Actor::Broker));
        assert_eq!((&promoted.service, &promoted.parent), (&service("desk"), &Some(service("desk"))));
    }
}

#[test]
fn r07_who_is_not_parent_leaves_without_a_change_of_parent_and_history_stays() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.deactivate("desk");
    assert_eq!(actions(&stage).last().unwrap(), &(MembershipAction::Deactivated, "desk".to_owned()));
    stage.delete("crm");
    assert_eq!(stage.writes("491", "again"), conversation);
}

#[test]
fn r08_a_dormant_channel_takes_nothing_and_whoever_subscribes_first_revives_it() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.delete("salesiq");
    stage.deactivate("crm");
    stage.deactivate("desk");
    assert_eq!((stage.channel.state(), stage.list()), (ChannelState::Dormant, String::new()));
    assert_eq!(stage.channel.seen().state, ChannelState::Dormant);
    let inbound = stage.inbound_of("491", "nobody hears this");
    assert_eq!(stage.receive(inbound), Ok(Answer::NotTaken));
    assert_eq!(stage.try_open("crm", "ann", conversation), Err(Rejection::NotSubscribed));

    stage.activate("desk");
    assert_eq!((stage.channel.state(), stage.list()), (ChannelState::Active, "desk*".to_owned()));
    assert_eq!(actions(&stage).last().unwrap(), &(MembershipAction::ParentChanged, "desk".to_owned()));
    assert_eq!(stage.writes("491", "back"), conversation, "with its history");
    stage.activate("crm");
    assert_eq!(stage.list(), "desk* crm");
}

#[test]
fn r08_a_channel_without_a_record_is_closed_for_good() {
    let mut stage = Stage::new();
    let conversation = stage.writes("491", "hello");
    stage.create("desk");
    stage.deactivate("desk");
    stage.delete("crm");
    assert_eq!(stage.channel.state(), ChannelState::Dormant, "desk still has a record");
    stage.delete("desk");
    assert_eq!(stage.channel.state(), ChannelState::Closed);
    for change in [Create, Activate, Deactivate, Delete] {
        assert_eq!(stage.standing("crm", change), Err(Rejection::ChannelClosed));
    }
    assert_eq!(stage.configure("crm", Settings::default()), Err(Rejection::ChannelClosed));
    assert_eq!(stage.try_open("crm", "ann", conversation), Err(Rejection::ChannelClosed));
    assert_eq!(stage.pick_up("crm", "ann", conversation), Err(Rejection::ChannelClosed));
    assert_eq!(stage.release("crm", "ann", conversation), Err(Rejection::ChannelClosed));
    let reply = Stage::reply_of("crm", None, conversation, "1");
    assert_eq!(stage.reply(reply), Err(Rejection::ChannelClosed));
    let inbound = stage.inbound_of("491", "nobody hears this");
    assert_eq!(stage.receive(inbound), Ok(Answer::NotTaken));

    let mut portal = Portal::new(portal_rules(vec![rules("crm")]));
    portal.apply(&portal.decide_open(&number(), None, ChannelId(1)).unwrap());
    portal.apply(&portal.decide_closed(ChannelId(1)).unwrap());
    assert!(portal.is_closed(ChannelId(1)));
    portal.apply(&portal.decide_open(&number(), None, ChannelId(2)).unwrap());
    assert_eq!(portal.open_channel(&number(), None), Some(ChannelId(2)), "a new channel with a new id");
}

#[test]
fn r09_the_articles_table_to_the_letter() {
    let mut stage = Stage::new();
    stage.create("desk");
    assert_eq!(stage.list(), "crm* desk");
    stage.create("salesiq");
    assert_eq!(stage.list(), "crm* desk salesiq");
    stage.deactivate("desk");
    assert_eq!(stage.list(), "crm* salesiq");
    stage.delete("crm");
    assert_eq!(stage.list(), "salesiq*");
    stage.activate("desk");
    assert_eq!(stage.list(), "salesiq* desk");
    stage.create("crm");
    assert_eq!(stage.list(), "salesiq* desk crm");
}

/// The whole table of standings: what each change does to each standing, and whether it is recorded.
#[test]
fn the_table_of_standings() {
    let refused = || Err(Rejection::NotSubscribed);
    let table = [
        (Standing::None, Create, standing(false, true, true), Standing::Subscribed),
        (Standing::None, Activate, refused(), Standing::None),
        (Standing::None, Deactivate, refused(), Standing::None),
        (Standing::None, Delete, refused(), Standing::None),
        (Standing::Subscribed, Create, standing(false, false, false), Standing::Subscribed),
        (Standing::Subscribed, Activate, standing(false, false, false), Standing::Subscribed),
        (Standing::Subscribed, Deactivate, standing(false, false, true), Standing::Inactive),
        (Standing::Subscribed, Delete, standing(false, false, true), Standing::None),
        (Standing::Inactive, Create, standing(false, true, true), Standing::Subscribed),
        (Standing::Inactive, Activate, standing(false, false, true), Standing::Subscribed),
        (Standing::Inactive, Deactivate, standing(false, false, false), Standing::Inactive),
        (Standing::Inactive, Delete, standing(false, false, true), Standing::None),
    ];
    for (before, change, answer, after) in table {
        let mut stage = Stage::new();
        if before != Standing::None {
            stage.create("desk");
        }
        if before == Standing::Inactive {
            stage.deactivate("desk");
        }
        let records = stage.records.len();
        assert_eq!(stage.standing("desk", change), answer, "{before:?} {change:?}");
        assert_eq!(stage.standing_of("desk"), after, "{before:?} {change:?}");
        let changed = matches!(answer, Ok(Answer::Standing { changed: true, .. }));
        assert_eq!(stage.records.len(), records + usize::from(changed), "{before:?} {change:?}");
    }
    let mut stage = Stage::new();
    stage.create("desk");
    stage.deactivate("desk");
    stage.create("desk");
    assert_eq!(actions(&stage).last().unwrap(), &(MembershipAction::Activated, "desk".to_owned()));
}

#[test]
fn a_session_acts_for_its_own_service_and_the_operator_for_any() {
    let mut stage = Stage::new();
    let mut command = StandingCommand {
        service: service("desk"),
        by: Actor::Service(service("crm")),
        change: Create,
        backfill: false,
    };
    assert_eq!(stage.tell(Command::Standing(command.clone())), Err(Rejection::Forbidden));
    command.by = Actor::Operator;
    assert_eq!(stage.tell(Command::Standing(command)), standing(false, true, true));
    let Event::Membership(joined) = &stage.last().event else { panic!() };
    assert_eq!(joined.by, Actor::Operator, "the event records who did");
}

#[test]
fn r10_isolated_services_have_channels_of_their_own() {
    let mut isolated = portal_rules(vec![rules("crm"), rules("desk")]);
    isolated.plan = Plan::Isolated;
    let portal = Portal::new(isolated.clone());
    let only = portal.only(&service("crm"));
    assert_eq!(only, Some(service("crm")));
    let mut opened = portal.clone();
    opened.apply(&portal.decide_open(&number(), only.as_ref(), ChannelId(1)).unwrap());
    let desk = portal.only(&service("desk"));
    assert!(
        opened.decide_open(&number(), desk.as_ref(), ChannelId(2)).is_some(),
        "the same number, another channel"
    );

    let mut stage = Stage::of(isolated, only);
    assert_eq!(stage.standing("desk", Create), Err(Rejection::NotFound), "another service's channel");
    assert_eq!(stage.standing("crm", Create), standing(true, false, true));
    assert_eq!(stage.standing("desk", Create), Err(Rejection::NotFound));
    stage.roster("desk", &["dan"]);
    let conversation = stage.writes("491", "hello");
    assert_eq!(stage.try_open("desk", "dan", conversation), Err(Rejection::NotFound));
    assert_eq!(stage.reply(Stage::reply_of("desk", None, conversation, "1")), Err(Rejection::NotFound));
    assert_eq!(stage.list(), "crm*");
    assert_eq!(Portal::new(portal_rules(vec![])).only(&service("crm")), None, "a bundle shares it");
}

#[test]
fn r11_finance_services_can_not_share_a_number() {
    assert_eq!(FAMILIES_NOT_ELIGIBLE.len(), 9);
    let named = [
        "finance",
        "Books",
        "INVENTORY",
        "invoice",
        "subscriptions",
        "expense",
        "commerce",
        "checkout",
        "payroll",
    ];
    for family in named {
        let mut books = rules("acct");
        books.family = family.to_owned();
        assert!(!books.is_eligible(), "{family}");
        let mut stage = Stage::empty(vec![rules("crm"), books]);
        assert_eq!(stage.standing("acct", Create), Err(Rejection::ServiceNotEligible), "not even the first");
        stage.create("crm");
        assert_eq!(stage.standing("acct", Create), Err(Rejection::ServiceNotEligible));
        assert_eq!(stage.standing("acct", Activate), Err(Rejection::ServiceNotEligible));
        assert_eq!(stage.list(), "crm*");
    }
    assert!(rules("crm").is_eligible() && rules("bookshop").is_eligible());
}

#[test]
fn b01_a_number_belongs_to_one_portal() {
    let (acme, other) = ("acme".parse().unwrap(), "other".parse().unwrap());
    let numbers = Numbers::new([(number(), acme)]).unwrap();
    assert_eq!(numbers.admit(&"acme".parse().unwrap(), &number()), Ok(()));
    assert_eq!(numbers.admit(&other, &number()), Err(NumberRefusal::Taken));
    assert_eq!(numbers.admit(&other, &"+4912345678".parse().unwrap()), Err(NumberRefusal::NotFound));
    assert_eq!(NumberRefusal::Taken.to_string(), "the number belongs to another portal", "and nothing else");
    let twice = [(number(), "acme".parse().unwrap()), (number(), other)];
    assert_eq!(Numbers::new(twice), Err(number()));
}

#[test]
fn b13_the_leavers_own_membership_is_its_last_delivery() {
    let mut stage = Stage::shared();
    stage.writes("491", "before");
    let before = stage.last().offset.0;
    stage.deactivate("crm");
    stage.writes("491", "after");
    let delivered = stage.offsets_delivered("crm");
    assert_eq!(
        delivered[delivered.len() - 2..],
        [before, before + 1],
        "what lies before, then its own leaving"
    );
    let parent_changed = before + 2;
    assert!(stage.offsets_delivered("desk").contains(&parent_changed));
}

#[test]
fn b13_a_returning_service_resumes_from_its_return() {
    let mut stage = Stage::shared();
    stage.writes("491", "left from before");
    let left_over = stage.last().offset.0;
    stage.tell(Command::Acknowledge { service: service("desk"), through: Offset(left_over - 1) }).unwrap();
    stage.deactivate("desk");
    let left = stage.last().offset.0;
    stage.writes("491", "missed");
    stage.activate("desk");
    stage.writes("491", "after");
    let after = stage.last().offset.0;
    assert_eq!(stage.offsets_delivered("desk"), [left_over, left, after - 1, after]);
}

#[test]
fn b13_backfill_of_an_inactive_service_starts_at_its_leaving() {
    let mut stage = Stage::shared();
    stage.writes("491", "before");
    let before = stage.last().offset;
    stage.tell(Command::Acknowledge { service: service("desk"), through: before }).unwrap();
    let acknowledged = stage.last().offset.0;
    stage.deactivate("desk");
    stage.writes("491", "missed");
    stage.standing_with("desk", Activate, true).unwrap();
    let returned = stage.last().offset.0;
    assert_eq!(stage.offsets_delivered("desk"), [acknowledged + 1, acknowledged + 2, returned]);
}

#[test]
fn b13_after_delete_and_create_the_old_position_is_gone_and_backfill_starts_at_the_beginning() {
    let mut stage = Stage::shared();
    stage.writes("491", "early");
    let early = stage.last().offset.0;
    stage.delete("desk");
    stage.writes("491", "missed");
    let missed = stage.last().offset.0;
    stage.create("desk");
    assert_eq!(stage.offsets_delivered("desk"), [missed + 1], "its own subscribed is the first");
    stage.delete("desk");
    stage.standing_with("desk", Create, true).unwrap();
    let delivered = stage.offsets_delivered("desk");
    assert_eq!(delivered.first(), Some(&1));
    assert!(delivered.contains(&early) && delivered.contains(&missed));
}

#[test]
fn b13_replies_of_a_leaver_are_still_sent_and_receipts_while_it_is_away_are_not_delivered() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    let reply = stage.replies("desk", Some("dan"), conversation, "1");
    stage.deactivate("desk");
    assert_eq!(stage.hand(reply), Ok(Answer::Done));
    stage.outcome(reply, SendOutcome::Sent(message_id("wamid.out")));
    let receipt = stage.last().offset.0;
    assert!(matches!(&stage.last().event, Event::Receipt(receipt) if receipt.status == Status::Sent));
    stage.standing_with("desk", Activate, true).unwrap();
    assert!(!stage.offsets_delivered("desk").contains(&receipt));
    let of = sharedline::domain::command::StatusOf::Message(message_id("wamid.out"));
    stage.status(of, Status::Delivered);
    assert!(stage.offsets_delivered("desk").contains(&stage.last().offset.0), "from now on they are");
}

#[test]
fn b13_the_replies_of_a_deleted_service_are_still_its_own() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    let reply = stage.replies("desk", Some("dan"), conversation, "1");
    stage.delete("desk");
    stage.create("desk");
    let record = stage.record(reply).clone();
    assert!(matches!(stage.sees("desk", &record), Some(sharedline::domain::view::View::Reply(_))));
    let repeated = stage.reply(Stage::reply_of("desk", Some("dan"), conversation, "1"));
    assert_eq!(repeated, Ok(Answer::Accepted { offset: reply, conversation, duplicate: true }));
}

#[test]
fn b13_leaving_releases_the_claims_at_once_and_their_records_follow() {
    let mut stage = Stage::shared();
    let conversations: Vec<_> = (0..300).map(|n| stage.writes(&format!("49{n:03}"), "hello")).collect();
    for conversation in &conversations {
        stage.pick_up("desk", "dan", *conversation).unwrap();
    }
    stage.deactivate("desk");
    assert!(stage.listed("crm", conversations[299]).claims.is_empty(), "at once");
    assert!(stage.channel.has_follow_up(&stage.portal));
    let before = stage.records.len();
    stage.tell(Command::Tick).unwrap();
    assert_eq!(stage.records.len() - before, 256, "in turns");
    stage.settle();
    assert_eq!(stage.records.len() - before, 300);
    assert!(!stage.channel.has_follow_up(&stage.portal));
}

#[test]
fn b13_when_the_channel_closes_what_was_not_handed_fails() {
    let mut stage = Stage::new();
    let conversation = stage.writes("491", "hello");
    let handed = stage.replies("crm", Some("ann"), conversation, "handed");
    stage.hand(handed).unwrap();
    let waiting = stage.replies("crm", Some("ann"), conversation, "waiting");
    stage.delete("crm");
    assert_eq!(stage.hand(waiting), Err(Rejection::ChannelClosed));
    stage.settle();
    let Event::Receipt(receipt) = &stage.last().event else { panic!() };
    assert_eq!((receipt.reply, receipt.status), (waiting, Status::Failed));
    assert_eq!(&*receipt.error.as_ref().unwrap().code, "channel_closed");
    assert_eq!(
        stage.outcome(handed, SendOutcome::Sent(message_id("wamid.out"))),
        Answer::Done,
        "it was sent"
    );
    stage.pass(2 * HOUR);
    assert_eq!(stage.channel.next_deadline(&stage.portal), None);
}
