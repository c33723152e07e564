//! Pick-ups: exclusive, takeover, open; warnings across services to the letter; who may end whose claim; presence.

use sharedline::domain::command::WarningCode;
use sharedline::domain::ids::{ChannelId, ConversationId};
use sharedline::domain::presence::Doing;
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{PickUp, Presence, Release, Roster, Transfer};
use sharedline::wire::message::{Delivery, ErrorCode, Private, Response};

use crate::stage::{Peer, Stage, Tallied, by, error, pick_up, reply, warned, word};

const GENERIC: &str = "Another agent has picked up this conversation in another service. You can still choose to pick it up here.";
const NAMED: &str =
    "Ann has picked up this conversation in another service. You can still choose to pick it up here.";

async fn with_conversation(stage: &Stage, services: &[&str]) -> (Vec<Peer>, ChannelId, ConversationId) {
    let (mut peers, channel) = stage.sharing(services).await;
    let mut gateway = stage.gateway().await;
    gateway.text("wamid.1", "hello").await;
    for peer in &mut peers {
        peer.message().await;
    }
    let conversation = peers[0].conversation(channel).await;
    (peers, channel, conversation)
}

fn confirmed(pick_up: PickUp, confirm: &Private) -> PickUp {
    PickUp { confirm: Some(confirm.clone()), ..pick_up }
}

pub(crate) async fn within_a_service_its_own_rule_decides(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    // Exclusive.
    let (mut peers, channel, conversation) = with_conversation(&stage, &["crm"]).await;
    let crm = &mut peers[0];
    assert!(matches!(crm.ask(pick_up(channel, conversation, "ann")).await, Response::PickedUp(_)));
    assert!(matches!(crm.ask(pick_up(channel, conversation, "ann")).await, Response::PickedUp(_)));
    let refused = error(crm.ask(pick_up(channel, conversation, "bob")).await);
    assert_eq!(refused.code, ErrorCode::Claimed);
    let holder = refused.holder.unwrap();
    assert_eq!((holder.agent.as_str(), holder.name.unwrap().expose()), ("ann", "Ann"));
    assert_eq!(crm.refused(by("bob", reply(channel, conversation, "r1"))).await, ErrorCode::Claimed);
    assert_eq!(crm.words(1).await, ["picked_up own"]);
    // Takeover.
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel, conversation) = with_conversation(&stage, &["salesiq"]).await;
    let salesiq = &mut peers[0];
    assert!(matches!(salesiq.ask(pick_up(channel, conversation, "ann")).await, Response::PickedUp(_)));
    let warning = warned(salesiq.ask(pick_up(channel, conversation, "bob")).await);
    assert_eq!(warning.warnings[0].code, WarningCode::ClaimedByOther);
    let again = confirmed(pick_up(channel, conversation, "bob"), &warning.confirm);
    assert!(matches!(salesiq.ask(again).await, Response::PickedUp(_)));
    assert_eq!(salesiq.words(3).await, ["picked_up own", "released own", "picked_up own"]);
    // Open.
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel, conversation) = with_conversation(&stage, &["chat"]).await;
    for agent in ["ann", "bob"] {
        assert!(matches!(peers[0].ask(pick_up(channel, conversation, agent)).await, Response::PickedUp(_)));
    }
    let opened = peers[0].open_conversation(channel, conversation, "ann").await;
    assert_eq!(opened.claims.len(), 2);
}

pub(crate) async fn across_services_there_are_warnings_to_the_letter(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel, conversation) = with_conversation(&stage, &["crm", "desk"]).await;
    peers[0].roster(&["ann", "cleo"]).await;
    peers[1].roster(&["bob", "cleo"]).await;
    assert!(matches!(peers[0].ask(pick_up(channel, conversation, "ann")).await, Response::PickedUp(_)));
    let blind = warned(peers[1].ask(pick_up(channel, conversation, "bob")).await);
    let texts: Vec<&str> = blind.warnings.iter().map(|warning| &*warning.text).collect();
    assert_eq!(texts, [GENERIC]);
    assert!(blind.warnings[0].agent.is_none() && blind.warnings[0].service.is_none());
    let seeing = warned(peers[1].ask(pick_up(channel, conversation, "cleo")).await);
    let texts: Vec<&str> = seeing.warnings.iter().map(|warning| &*warning.text).collect();
    assert_eq!(texts, [NAMED]);
    assert_eq!(seeing.warnings[0].service.as_ref().unwrap().as_str(), "crm");
    let opened = peers[1].open_conversation(channel, conversation, "bob").await;
    assert_eq!(&*opened.warnings[0].text, GENERIC);
    assert!(opened.claims.len() == 1 && !opened.claims[0].own && opened.claims[0].agent.is_none());
    // What `open` gave confirms too.
    let again = confirmed(pick_up(channel, conversation, "bob"), opened.confirm.as_ref().unwrap());
    assert!(matches!(peers[1].ask(again).await, Response::PickedUp(_)));
    assert_eq!(peers[0].words(2).await, ["picked_up own", "picked_up"]);
    assert_eq!(peers[1].words(2).await, ["picked_up", "picked_up own"]);
    // Nobody is blocked: both reply.
    crate::stage::accepted(peers[0].ask(by("ann", reply(channel, conversation, "r1"))).await);
    crate::stage::accepted(peers[1].ask(by("bob", reply(channel, conversation, "r1"))).await);
}

pub(crate) async fn a_confirmation_covers_what_it_was_given_for(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel, conversation) = with_conversation(&stage, &["crm", "desk", "salesiq"]).await;
    peers[0].ask(pick_up(channel, conversation, "ann")).await;
    peers[1].roster(&["dan", "eve"]).await;
    let first = warned(peers[1].ask(pick_up(channel, conversation, "dan")).await);
    peers[2].roster(&["fay"]).await;
    let other = warned(peers[2].ask(pick_up(channel, conversation, "fay")).await);
    peers[2].ask(confirmed(pick_up(channel, conversation, "fay"), &other.confirm)).await;
    // Somebody new holds it now: warned anew.
    let again = warned(peers[1].ask(confirmed(pick_up(channel, conversation, "dan"), &first.confirm)).await);
    // For another agent, or unreadable.
    let stolen = confirmed(pick_up(channel, conversation, "eve"), &again.confirm);
    assert_eq!(peers[1].refused(stolen).await, ErrorCode::StaleConfirm);
    let unreadable = confirmed(pick_up(channel, conversation, "dan"), &"nonsense".into());
    assert_eq!(peers[1].refused(unreadable).await, ErrorCode::StaleConfirm);
    let passes = peers[1].ask(confirmed(pick_up(channel, conversation, "dan"), &again.confirm)).await;
    assert!(matches!(passes, Response::PickedUp(_)));
}

pub(crate) async fn claims_are_released_and_handed_on(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel, conversation) = with_conversation(&stage, &["crm"]).await;
    let crm = &mut peers[0];
    crm.roster(&["ann", "bob", "lead-lou"]).await;
    let release = |agent: &str, holder: Option<&str>| Release {
        channel,
        conversation,
        agent: agent.parse().unwrap(),
        force: holder.is_some(),
        holder: holder.map(|holder| holder.parse().unwrap()),
    };
    let transfer = |agent: &str, to: &str, holder: Option<&str>| Transfer {
        channel,
        conversation,
        agent: agent.parse().unwrap(),
        to: to.parse().unwrap(),
        force: holder.is_some(),
        holder: holder.map(|holder| holder.parse().unwrap()),
    };
    assert_eq!(crm.refused(release("ann", None)).await, ErrorCode::NotClaimed);
    crm.ask(pick_up(channel, conversation, "ann")).await;
    assert_eq!(crm.refused(release("bob", Some("ann"))).await, ErrorCode::Forbidden);
    crm.ok(release("lead-lou", Some("ann"))).await;
    crm.ask(pick_up(channel, conversation, "ann")).await;
    assert!(matches!(crm.ask(transfer("ann", "bob", None)).await, Response::PickedUp(_)));
    assert_eq!(crm.refused(transfer("ann", "bob", None)).await, ErrorCode::NotClaimed);
    assert!(matches!(crm.ask(transfer("lead-lou", "ann", Some("bob"))).await, Response::PickedUp(_)));
    assert_eq!(crm.refused(transfer("ann", "nobody", None)).await, ErrorCode::UnknownAgent);
    crm.ok(release("ann", None)).await;
    assert_eq!(crm.refused(pick_up(channel, conversation, "zoe")).await, ErrorCode::UnknownAgent);
    let words = crm.settled(channel).await.iter().map(word).collect::<Vec<_>>();
    assert_eq!(
        words,
        [
            "picked_up own",
            "released own",
            "picked_up own",
            "transferred own",
            "transferred own",
            "released own"
        ]
    );
    // Who leaves the roster loses his claims.
    crm.ask(pick_up(channel, conversation, "bob")).await;
    crm.roster(&["ann"]).await;
    assert_eq!(crm.words(2).await, ["picked_up own", "released own"]);
}

pub(crate) async fn presence_is_told_within_what_each_may_know(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel, conversation) = with_conversation(&stage, &["crm", "desk"]).await;
    let presence =
        |agent: &str, doing| Presence { channel, conversation, agent: agent.parse().unwrap(), doing };
    peers[0].ok(presence("ann", Doing::Writing)).await;
    let Delivery::Presence(own) = peers[0].next().await else { panic!() };
    assert_eq!((own.doing, own.own, own.agent.unwrap().as_str()), (Doing::Writing, true, "ann"));
    let Delivery::Presence(other) = peers[1].next().await else { panic!() };
    assert!(other.doing == Doing::Writing && !other.own && other.agent.is_none() && other.name.is_none());
    peers[0].ok(presence("ann", Doing::Gone)).await;
    assert_eq!(peers[0].words(1).await, ["presence gone own"]);
    assert_eq!(peers[1].words(1).await, ["presence gone"]);
    assert_eq!(peers[0].refused(presence("zoe", Doing::Looking)).await, ErrorCode::UnknownAgent);
    // It lapses by itself 15 s after it was last said.
    peers[1].ok(presence("bob", Doing::Looking)).await;
    assert_eq!(peers[0].words(2).await, ["presence looking", "presence gone"]);
}

pub(crate) async fn rosters_say_who_is_an_agent(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel, conversation) = with_conversation(&stage, &["crm"]).await;
    let crm = &mut peers[0];
    let more = Roster {
        agents: vec![sharedline::domain::event::Agent {
            agent: "cleo".parse().unwrap(),
            name: "Cleo".into(),
            lead: false,
        }],
        replace: false,
        remove: vec!["ann".parse().unwrap(), "nobody".parse().unwrap()],
    };
    crm.ok(more).await;
    assert_eq!(crm.refused(pick_up(channel, conversation, "ann")).await, ErrorCode::UnknownAgent);
    assert!(matches!(crm.ask(pick_up(channel, conversation, "cleo")).await, Response::PickedUp(_)));
    let mut fixed = stage.open(stage.hello("fixed", "crm", "one")).await.unwrap();
    let roster = Roster { agents: Vec::new(), replace: true, remove: Vec::new() };
    assert_eq!(fixed.refused(roster).await, ErrorCode::Forbidden);
}

pub(crate) async fn a_claim_expires_by_itself(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel, conversation) = with_conversation(&stage, &["timed", "desk"]).await;
    assert!(matches!(peers[0].ask(pick_up(channel, conversation, "ann")).await, Response::PickedUp(_)));
    assert_eq!(peers[0].words(2).await, ["picked_up own", "expired own"]);
    assert_eq!(peers[1].words(2).await, ["picked_up", "expired"]);
    assert!(matches!(peers[0].ask(pick_up(channel, conversation, "bob")).await, Response::PickedUp(_)));
}
