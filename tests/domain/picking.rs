//! Pick-ups: R17–R19, B9–B11, B15's check.

use sharedline::domain::claims::{CLAIMS_SHOWN_MAX, HOLDERS_MAX, WARNINGS_MAX};
use sharedline::domain::command::{Answer, Command, Rejection, WarningCode};
use sharedline::domain::event::{Actor, ClaimAction, ClaimChange, Event, RosterChange};
use sharedline::domain::ids::{ConversationId, Timestamp};
use sharedline::domain::portal::{PickUpRule, Portal, ROSTER_AGENTS_MAX, RosterSource};
use sharedline::domain::view::View;

use crate::stage::{HOUR, MINUTE, Stage, agent, portal_rules, rules, service, warned};

const NAMED: &str =
    "Name-ann has picked up this conversation in another service. You can still choose to pick it up here.";
const GENERIC: &str = "Another agent has picked up this conversation in another service. You can still choose to pick it up here.";

fn claims(stage: &Stage) -> Vec<&ClaimChange> {
    let changes = stage.records.iter().filter_map(|record| match &record.event {
        Event::Claim(change) => Some(&**change),
        _ => None,
    });
    changes.collect()
}

fn last_claim(stage: &Stage) -> &ClaimChange {
    claims(stage).last().unwrap()
}

#[test]
fn r17_exclusive_a_second_agent_gets_claimed_and_who_holds_it() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    assert_eq!(stage.pick_up("crm", "ann", conversation), Ok(Answer::PickedUp));
    let Err(Rejection::Claimed { holder, name }) = stage.pick_up("crm", "bob", conversation) else {
        panic!()
    };
    assert_eq!((holder, name.as_deref()), (agent("ann"), Some("Name-ann")));
    let records = stage.records.len();
    assert_eq!(stage.pick_up("crm", "ann", conversation), Ok(Answer::PickedUp), "who holds it already");
    assert_eq!(stage.records.len(), records, "records nothing");
}

#[test]
fn r17_takeover_a_second_agent_is_warned_and_takes_over_when_he_confirms() {
    let mut stage = Stage::shared();
    stage.rule("crm", |rules| rules.pick_up = PickUpRule::Takeover);
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "ann", conversation).unwrap();
    let warning = warned(stage.pick_up("crm", "bob", conversation));
    assert_eq!(warning.warnings[0].code, WarningCode::ClaimedByOther);
    assert_eq!(warning.warnings[0].agent, Some(agent("ann")));
    assert_eq!(stage.pick_up_with("crm", "bob", conversation, Some(&warning)), Ok(Answer::PickedUp));
    let [.., released, picked_up] = claims(&stage)[..] else { panic!() };
    assert_eq!((released.action, &released.agent), (ClaimAction::Released, &agent("ann")));
    assert_eq!(released.by_agent, Some(agent("bob")));
    assert_eq!((picked_up.action, &picked_up.agent), (ClaimAction::PickedUp, &agent("bob")));
    assert_eq!(stage.holders("crm", conversation), ["bob"]);
}

#[test]
fn r17_open_any_number_of_agents_up_to_the_limit() {
    let mut stage = Stage::shared();
    stage.rule("crm", |rules| rules.pick_up = PickUpRule::Open);
    let agents: Vec<String> = (0..=HOLDERS_MAX).map(|n| format!("agent{n:02}")).collect();
    stage.roster("crm", &agents.iter().map(String::as_str).collect::<Vec<_>>());
    let conversation = stage.writes("491", "hello");
    for who in &agents[..HOLDERS_MAX] {
        assert_eq!(stage.pick_up("crm", who, conversation), Ok(Answer::PickedUp));
    }
    assert_eq!(stage.pick_up("crm", &agents[HOLDERS_MAX], conversation), Err(Rejection::TooManyHolders));
    assert_eq!(stage.listed("crm", conversation).claims.len(), CLAIMS_SHOWN_MAX);
    assert_eq!(claims(&stage).len(), HOLDERS_MAX);
}

#[test]
fn r18_across_services_nobody_is_blocked_and_the_warning_is_to_the_letter() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "ann", conversation).unwrap();
    for (who, text) in [("zoe", NAMED), ("dan", GENERIC)] {
        let opened = stage.open("desk", who, conversation);
        let warning = opened.warned.unwrap();
        assert_eq!(warning.warnings.len(), 1);
        assert_eq!(&*warning.warnings[0].text, text);
        let again = warned(stage.pick_up("desk", who, conversation));
        assert_eq!((again.warnings, &again.confirm), (warning.warnings.clone(), &warning.confirm));
        let picked_up = stage.pick_up_with("desk", who, conversation, Some(&warning));
        assert_eq!(picked_up, Ok(Answer::PickedUp), "the token that open gave serves");
        stage.release("desk", who, conversation).unwrap();
    }
}

#[test]
fn r18_ones_own_pick_up_in_another_service_is_no_warning() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "zoe", conversation).unwrap();
    assert_eq!(stage.pick_up("desk", "zoe", conversation), Ok(Answer::PickedUp), "the same person");
}

#[test]
fn r19_without_access_there_is_one_generic_warning_and_one_bare_entry() {
    let mut stage = Stage::shared();
    stage.rule("crm", |rules| rules.pick_up = PickUpRule::Open);
    let conversation = stage.writes("491", "hello");
    for who in ["ann", "bob", "zoe"] {
        stage.pick_up("crm", who, conversation).unwrap();
    }
    let theirs = warned(stage.pick_up("salesiq", "sid", conversation));
    stage.pick_up_with("salesiq", "sid", conversation, Some(&theirs)).unwrap();
    let opened = stage.open("desk", "dan", conversation);
    let [entry] = opened.claims.as_slice() else { panic!("{:?}", opened.claims) };
    assert!(!entry.own && entry.service.is_none() && entry.agent.is_none());
    assert!(entry.name.is_none() && entry.since.is_none());
    let warning = &opened.warned.unwrap().warnings;
    let [warning] = warning.as_slice() else { panic!() };
    assert_eq!(&*warning.text, GENERIC);
    assert!(warning.agent.is_none() && warning.name.is_none() && warning.service.is_none());

    let change = stage.records.iter().find(|record| matches!(record.event, Event::Claim(_))).unwrap();
    assert!(
        matches!(stage.sees("desk", change), Some(View::Claim { own: None, .. })),
        "a service: only the change"
    );
    assert!(matches!(stage.sees("crm", change), Some(View::Claim { own: Some(_), .. })));
}

#[test]
fn r19_with_access_to_some_services_those_are_named_and_the_rest_is_one_entry() {
    let mut stage = Stage::shared();
    stage.rule("crm", |rules| rules.pick_up = PickUpRule::Open);
    let many: Vec<String> = (0..20).map(|n| format!("agent{n:02}")).collect();
    let mut crm: Vec<&str> = many.iter().map(String::as_str).collect();
    crm.push("dan");
    stage.roster("crm", &crm);
    let conversation = stage.writes("491", "hello");
    stage.pick_up("salesiq", "sid", conversation).unwrap();
    for who in &many {
        let confirm = warned(stage.pick_up("crm", who, conversation));
        stage.pick_up_with("crm", who, conversation, Some(&confirm)).unwrap();
    }
    let opened = stage.open("desk", "dan", conversation);
    assert_eq!(opened.claims.len(), CLAIMS_SHOWN_MAX);
    assert!(
        opened.claims[..7].iter().all(|claim| claim.service == Some(service("crm")) && claim.since.is_some())
    );
    assert!(opened.claims[7].service.is_none(), "that there are others is never cut off");
    let warnings = opened.warned.unwrap().warnings;
    assert_eq!(warnings.len(), WARNINGS_MAX);
    assert_eq!(&*warnings[7].text, GENERIC);
}

#[test]
fn b09_of_any_number_of_agents_exactly_one_wins() {
    let mut stage = Stage::shared();
    let agents: Vec<String> = (0..50).map(|n| format!("agent{n:02}")).collect();
    stage.roster("crm", &agents.iter().map(String::as_str).collect::<Vec<_>>());
    let conversation = stage.writes("491", "hello");
    let won =
        agents.iter().filter(|who| stage.pick_up("crm", who, conversation) == Ok(Answer::PickedUp)).count();
    assert_eq!(won, 1);
}

#[test]
fn b09_a_confirmation_covers_the_holders_that_it_was_given_for() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "ann", conversation).unwrap();
    let first = warned(stage.pick_up("desk", "dan", conversation));
    let theirs = warned(stage.pick_up("salesiq", "sid", conversation));
    stage.pick_up_with("salesiq", "sid", conversation, Some(&theirs)).unwrap();
    let anew = warned(stage.pick_up_with("desk", "dan", conversation, Some(&first)));
    stage.release("crm", "ann", conversation).unwrap();
    let some_have_gone = stage.pick_up_with("desk", "dan", conversation, Some(&anew));
    assert_eq!(some_have_gone, Ok(Answer::PickedUp));
}

#[test]
fn b09_a_transfer_gives_a_holder_that_no_earlier_confirmation_covers() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "ann", conversation).unwrap();
    let first = warned(stage.pick_up("desk", "dan", conversation));
    let claim = Stage::claim("crm", Some("ann"), None, conversation);
    assert_eq!(stage.tell(Command::Transfer { claim, to: agent("bob") }), Ok(Answer::PickedUp));
    warned(stage.pick_up_with("desk", "dan", conversation, Some(&first)));
}

#[test]
fn b09_a_confirmation_is_for_one_agent_and_one_conversation() {
    let mut stage = Stage::shared();
    let (one, two) = (stage.writes("491", "hello"), stage.writes("492", "hello"));
    for conversation in [one, two] {
        stage.pick_up("crm", "ann", conversation).unwrap();
    }
    let confirm = warned(stage.pick_up("desk", "dan", one));
    assert_eq!(stage.pick_up_with("desk", "dan", two, Some(&confirm)), Err(Rejection::StaleConfirm));
    assert_eq!(stage.pick_up_with("desk", "eve", one, Some(&confirm)), Err(Rejection::StaleConfirm));
    for unreadable in
        ["", ".", "zz", "0.0", "ffffffffffffffffff.00", &confirm.confirm[..confirm.confirm.len() - 1]]
    {
        let mut broken = confirm.clone();
        broken.confirm = unreadable.into();
        assert_eq!(stage.pick_up_with("desk", "dan", one, Some(&broken)), Err(Rejection::StaleConfirm));
    }
    // Another offset under the same MAC: whoever has a token can not make it cover more.
    let mut stretched = confirm.clone();
    let (_, mac) = confirm.confirm.split_once('.').unwrap();
    stretched.confirm = format!("ffff.{mac}").into();
    assert_eq!(stage.pick_up_with("desk", "dan", one, Some(&stretched)), Err(Rejection::StaleConfirm));
    assert_eq!(stage.pick_up_with("desk", "dan", one, Some(&confirm)), Ok(Answer::PickedUp));
}

#[test]
fn b09_a_confirmation_survives_a_restart_and_a_merge() {
    let mut stage = Stage::shared();
    let older = stage.writes("491", "hello");
    let younger = stage.writes("US.1", "hello");
    stage.pick_up("crm", "ann", younger).unwrap();
    let confirm = warned(stage.pick_up("desk", "dan", younger));
    stage.channel = stage.replayed();
    stage.writes("US.1+491", "both");
    assert_eq!(stage.pick_up_with("desk", "dan", older, Some(&confirm)), Ok(Answer::PickedUp));
}

#[test]
fn b10_a_claim_expires_without_activity_of_its_holder() {
    let mut stage = Stage::shared();
    stage.rule("crm", |rules| rules.claim_ttl_ms = Some(30 * MINUTE));
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "ann", conversation).unwrap();
    stage.pass(29 * MINUTE);
    stage.open("crm", "ann", conversation);
    stage.pass(29 * MINUTE);
    stage.replies("crm", Some("ann"), conversation, "r1");
    stage.pass(29 * MINUTE);
    stage.pick_up("crm", "ann", conversation).unwrap();
    assert_eq!(stage.channel.next_deadline(&stage.portal), Some(Timestamp(stage.now + 30 * MINUTE)));
    stage.pass(30 * MINUTE - 1);
    stage.settle();
    assert_eq!(stage.holders("crm", conversation), ["ann"]);
    stage.pass(1);
    assert!(stage.holders("crm", conversation).is_empty(), "at once, before any tick");
    stage.settle();
    assert_eq!((last_claim(&stage).action, &last_claim(&stage).by), (ClaimAction::Expired, &Actor::Broker));
}

#[test]
fn b10_an_expired_claim_makes_room_before_its_tick() {
    let mut stage = Stage::shared();
    stage.rule("crm", |rules| rules.claim_ttl_ms = Some(30 * MINUTE));
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "ann", conversation).unwrap();
    stage.pass(30 * MINUTE);
    assert_eq!(stage.release("crm", "ann", conversation), Err(Rejection::NotClaimed));
    assert_eq!(stage.pick_up("crm", "bob", conversation), Ok(Answer::PickedUp));
    let [_, expired, picked_up] = claims(&stage)[..] else { panic!() };
    assert_eq!((expired.action, picked_up.action), (ClaimAction::Expired, ClaimAction::PickedUp));
    stage.settle();
    assert_eq!(claims(&stage).len(), 3);
}

#[test]
fn b10_activity_is_recorded_at_most_once_per_tenth_of_the_time_to_live() {
    let mut stage = Stage::shared();
    stage.rule("crm", |rules| rules.claim_ttl_ms = Some(30 * MINUTE));
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "ann", conversation).unwrap();
    let records = stage.records.len();
    for _ in 0..60 {
        stage.pass(MINUTE / 10);
        stage.open("crm", "ann", conversation);
    }
    assert_eq!(stage.records.len() - records, 2, "6 minutes of 30 are two tenths");
    stage.open("desk", "dan", conversation);
    stage.open("crm", "bob", conversation);
    assert_eq!(stage.records.len() - records, 2, "only the holder's counts");
}

#[test]
fn b10_a_claim_is_released_transferred_and_survives_a_restart() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    assert_eq!(stage.release("crm", "ann", conversation), Err(Rejection::NotClaimed));
    stage.pick_up("crm", "ann", conversation).unwrap();
    stage.channel = stage.replayed();
    assert_eq!(stage.holders("crm", conversation), ["ann"]);
    let transfer = |to: &str| Command::Transfer {
        claim: Stage::claim("crm", Some("ann"), None, conversation),
        to: agent(to),
    };
    assert_eq!(stage.tell(transfer("dan")), Err(Rejection::UnknownAgent), "an agent of the same service");
    assert_eq!(stage.tell(transfer("bob")), Ok(Answer::PickedUp));
    assert_eq!(last_claim(&stage).action, ClaimAction::Transferred);
    assert_eq!((&last_claim(&stage).agent, &last_claim(&stage).from), (&agent("bob"), &Some(agent("ann"))));
    assert_eq!(stage.holders("crm", conversation), ["bob"]);
    assert_eq!(stage.tell(transfer("zoe")), Err(Rejection::NotClaimed), "ann holds nothing any more");
    assert_eq!(stage.release("crm", "bob", conversation), Ok(Answer::Done));
    assert!(stage.holders("crm", conversation).is_empty());
}

#[test]
fn b10_who_leaves_the_roster_loses_his_claims() {
    let mut stage = Stage::shared();
    let conversations: Vec<_> = (0..300).map(|n| stage.writes(&format!("49{n:03}"), "hello")).collect();
    for conversation in &conversations {
        stage.pick_up("crm", "ann", *conversation).unwrap();
    }
    let kept = stage.writes("50", "hello");
    stage.pick_up("crm", "bob", kept).unwrap();
    stage.roster("crm", &["bob", "zoe"]);
    assert!(stage.holders("crm", conversations[299]).is_empty(), "at once");
    assert_eq!(stage.pick_up("crm", "zoe", conversations[0]), Ok(Answer::PickedUp));
    let before = claims(&stage).len();
    stage.tell(Command::RosterChanged { service: service("crm") }).unwrap();
    assert_eq!(claims(&stage).len() - before, 256);
    assert!(stage.channel.has_follow_up(&stage.portal));
    stage.settle();
    assert_eq!(claims(&stage).len() - before, 299, "one was recorded when zoe picked it up");
    assert_eq!(stage.holders("crm", kept), ["bob"]);
    assert_eq!(stage.holders("crm", conversations[0]), ["zoe"]);
}

#[test]
fn b10_a_lead_or_the_operator_may_end_or_hand_over_any_claim_of_the_service() {
    let mut stage = Stage::shared();
    stage.roster("crm", &["ann", "bob", "lead:zoe"]);
    let conversation = stage.writes("491", "hello");
    stage.pick_up("crm", "ann", conversation).unwrap();
    let by = |who: Option<&str>| Stage::claim("crm", who, Some("ann"), conversation);
    assert_eq!(stage.tell(Command::Release(by(Some("bob")))), Err(Rejection::Forbidden));
    assert_eq!(
        stage.tell(Command::Transfer { claim: by(Some("bob")), to: agent("bob") }),
        Err(Rejection::Forbidden)
    );
    assert_eq!(
        stage.tell(Command::Transfer { claim: by(Some("zoe")), to: agent("bob") }),
        Ok(Answer::PickedUp)
    );
    assert_eq!(last_claim(&stage).by_agent, Some(agent("zoe")), "that is recorded");
    assert_eq!(stage.tell(Command::Release(by(None))), Err(Rejection::NotClaimed));
    let of_bob = Stage::claim("crm", None, Some("bob"), conversation);
    assert_eq!(stage.tell(Command::Release(of_bob)), Ok(Answer::Done));
    assert_eq!((&last_claim(&stage).by, &last_claim(&stage).by_agent), (&Actor::Operator, &None));
    let unnamed = Stage::claim("crm", None, None, conversation);
    assert!(matches!(stage.tell(Command::Release(unnamed)), Err(Rejection::BadMessage(_))));
}

#[test]
fn b10_a_claim_taken_again_after_a_leaving_is_not_ended_by_what_follows_from_it() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    stage.pick_up("desk", "dan", conversation).unwrap();
    stage.deactivate("desk");
    stage.activate("desk");
    assert!(stage.holders("desk", conversation).is_empty());
    stage.pick_up("desk", "dan", conversation).unwrap();
    stage.settle();
    assert_eq!(stage.holders("desk", conversation), ["dan"]);
    let actions: Vec<ClaimAction> = claims(&stage).iter().map(|change| change.action).collect();
    assert_eq!(actions, [ClaimAction::PickedUp, ClaimAction::Released, ClaimAction::PickedUp]);
}

#[test]
fn b11_who_is_not_in_the_asking_services_roster_is_refused() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    assert_eq!(stage.pick_up("crm", "dan", conversation), Err(Rejection::UnknownAgent));
    assert_eq!(stage.try_open("crm", "dan", conversation), Err(Rejection::UnknownAgent));
    assert_eq!(stage.release("crm", "dan", conversation), Err(Rejection::UnknownAgent));
    let reply = Stage::reply_of("crm", Some("dan"), conversation, "r1");
    assert_eq!(stage.reply(reply), Err(Rejection::UnknownAgent));
    let presence = |who: &str, conversation| Command::Presence {
        service: service("crm"),
        conversation,
        agent: agent(who),
    };
    assert_eq!(stage.tell(presence("dan", conversation)), Err(Rejection::UnknownAgent));
    assert_eq!(stage.pick_up("books", "ann", conversation), Err(Rejection::NotSubscribed));
    assert_eq!(stage.try_open("books", "ann", ConversationId(1)), Err(Rejection::NotSubscribed));
}

#[test]
fn b11_a_service_speaks_for_its_own_unless_the_configuration_fixes_the_rosters() {
    let mut portal = Portal::new(portal_rules(vec![rules("crm")]));
    let change = |of: &str, replace: bool, agents: &[&str], remove: &[&str]| RosterChange {
        service: service(of),
        agents: agents
            .iter()
            .map(|id| sharedline::domain::event::Agent { agent: agent(id), name: (*id).into(), lead: false })
            .collect(),
        replace,
        remove: remove.iter().map(|id| agent(id)).collect(),
    };
    assert_eq!(portal.decide_roster(&change("desk", true, &[], &[])), Err(Rejection::NotFound));
    for step in [
        change("crm", false, &["ann", "bob"], &[]),
        change("crm", false, &["zoe"], &["bob", "nobody"]),
        change("crm", true, &["eve"], &[]),
    ] {
        portal.apply(&portal.decide_roster(&step).unwrap());
    }
    assert!(portal.has_access(&agent("eve"), &service("crm")));
    assert!(!portal.has_access(&agent("ann"), &service("crm")));
    assert_eq!(portal.roster_version(&service("crm")), 3);
    let names: Vec<String> = (0..=ROSTER_AGENTS_MAX).map(|n| n.to_string()).collect();
    let too_many = change("crm", true, &names.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    assert!(matches!(portal.decide_roster(&too_many), Err(Rejection::BadMessage(_))));

    let mut fixed = portal_rules(vec![rules("crm")]);
    fixed.rosters = RosterSource::Config;
    fixed.fixed_rosters.insert(service("crm"), change("crm", true, &["ann"], &[]).agents);
    let portal = Portal::new(fixed);
    assert!(portal.has_access(&agent("ann"), &service("crm")));
    assert_eq!(portal.decide_roster(&change("crm", true, &[], &[])), Err(Rejection::Forbidden));
    let told = portal.with_rules(portal_rules(vec![rules("crm")]));
    assert!(!told.has_access(&agent("ann"), &service("crm")), "the services' own word holds again");
}

#[test]
fn b15_presence_is_checked_and_never_recorded() {
    let mut stage = Stage::shared();
    let conversation = stage.writes("491", "hello");
    let records = stage.records.len();
    let presence =
        |conversation| Command::Presence { service: service("crm"), conversation, agent: agent("ann") };
    assert_eq!(stage.tell(presence(conversation)), Ok(Answer::Done));
    assert_eq!(stage.tell(presence(ConversationId(1))), Err(Rejection::NotFound));
    assert_eq!(stage.records.len(), records);
    stage.pass(HOUR);
    assert_eq!(stage.channel.next_deadline(&stage.portal), None);
}
