//! The chapters. Each one does something, shows what every service saw of it, and checks it against the rules.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::cast::{Cast, Rows};
use super::screen::Screen;
use super::stage::{NUMBER, REFUSED, SERVICES, Stage};
use super::under_way::{Acknowledged, MESSAGES_AT_THE_KILL, REPLIES_AT_THE_KILL, Replies, UnderWay};
use super::words::{
    accepted_of, agent, channel_of, exposed, list, look, message_id, note, show_rest, static_name, text_reply,
};
use crate::client::{Client, Options};
use crate::domain::command::WarningCode;
use crate::domain::event::{MembershipAction, Status};
use crate::domain::ids::ConversationId;
use crate::gateway::intent::Intent;
use crate::wire::frame::Encoding;
use crate::wire::message::requests::{
    ActivateChannel, CreateChannel, DeactivateChannel, DeleteChannel, Hello, Open, PickUp, Release, Roster,
};
use crate::wire::message::{DeliverMode, Delivery, ErrorCode, Private, Response};

/// The customer of the story.
const CUSTOMER: (&str, &str) = ("16505551234", "Maria");
/// What nobody but its sender may ever see.
const SECRET_REPLY: &str = "Your account is 4711";
/// How long nothing comes once the story is told.
const QUIET_FOR: Duration = Duration::from_millis(300);
/// How many of each have been acknowledged when the broker is killed.
const ACKNOWLEDGED_BEFORE_THE_KILL: usize = 50;

pub(super) async fn play(screen: &Screen, stage: &mut Stage, cast: &mut Cast) -> anyhow::Result<()> {
    share(screen, stage, cast).await.context("sharing the number")?;
    let conversation = write(screen, stage, cast).await.context("the customer's message")?;
    reply(screen, stage, cast, conversation).await.context("the masked reply")?;
    pick_up(screen, cast, conversation).await.context("the warnings")?;
    double_reply(screen, stage, cast, conversation).await.context("the double reply")?;
    come_and_go(screen, cast).await.context("the table of standings")?;
    kill(screen, stage, cast).await.context("the kill")
}

/// Waits until the phones have nothing more to tell of the story, which is no news to who comes now.
pub(super) async fn settle(cast: &mut Cast) -> anyhow::Result<()> {
    while let Ok(grown) = tokio::time::timeout(QUIET_FOR, grown(cast)).await {
        grown?;
        for player in &mut cast.services {
            player.rest();
        }
    }
    Ok(())
}

async fn grown(cast: &mut Cast) -> anyhow::Result<()> {
    let [one, two, three] = cast.services.as_mut_slice() else { bail!("the story has three services") };
    tokio::select! {
        () = one.grown() => {}
        () = two.grown() => {}
        () = three.grown() => {}
    }
    Ok(())
}

/// Shows what comes until the user ends it.
pub(super) async fn stay_open(screen: &Screen, cast: &mut Cast) -> anyhow::Result<()> {
    loop {
        grown(cast).await?;
        // What reaches one reaches the others within moments; shown together it is seen to be the same.
        tokio::time::sleep(Duration::from_millis(100)).await;
        show_rest(screen, cast);
    }
}

// ------------------------------------------------------------------------------------------------- chapters

async fn share(screen: &Screen, stage: &Stage, cast: &mut Cast) -> anyhow::Result<()> {
    screen.chapter(1, "Three services share one number");
    for (at, name) in SERVICES.into_iter().enumerate() {
        let player = cast.service(name)?;
        let create = CreateChannel { number: NUMBER.parse()?, backfill: false };
        let channel = channel_of(player.ask(create).await?)?;
        let (created, joined) = (at == 0, at > 0);
        ensure!(channel.created == Some(created) && channel.joined == Some(joined), "{name}: {channel:?}");
        ensure!(channel.seen.parent == Some(SERVICES[0].parse()?), "the parent is the first: {channel:?}");
        let answer =
            if created { "a new channel; crm is its parent" } else { "joined it at the end of the list" };
        screen.says(name, &format!("creates {NUMBER}"), answer);
        cast.channel = Some(channel.seen.channel);
    }
    let token = Private::from(stage.token(REFUSED));
    let greeting = Hello::service(super::stage::PORTAL.parse()?, REFUSED.parse()?, "demo".parse()?);
    let refused = Hello { token, window: 1, deliver: DeliverMode::None, ..greeting };
    let (books, _, _events) =
        Client::connect(Options { address: stage.tcp, encoding: Encoding::JsonLines, hello: refused })
            .await?;
    let error = match books.request(CreateChannel { number: NUMBER.parse()?, backfill: false }).await {
        Err(error) => error,
        Ok(response) => bail!("{REFUSED} was let in: {response:?}"),
    };
    ensure!(error.code() == Some(ErrorCode::ServiceNotEligible), "{REFUSED} was refused otherwise: {error}");
    screen.says(REFUSED, &format!("creates {NUMBER}"), "service_not_eligible: finance can not take part");
    for (name, count) in [("crm", 3), ("desk", 2), ("salesiq", 1)] {
        cast.service(name)?.next(count).await?;
    }
    screen.checked("one channel, however many create it; who joins later is told from his joining on");
    Ok(())
}

async fn write(screen: &Screen, stage: &Stage, cast: &mut Cast) -> anyhow::Result<ConversationId> {
    screen.chapter(2, "A customer writes: every service sees it");
    let webhook = cast.text_webhook(&stage.whatsapp, CUSTOMER, "Hello! Where is my order?", None);
    ensure!(stage.whatsapp.post(webhook.body.clone()).await?, "the webhook was not taken");
    screen.says(CUSTOMER.1, "\"Hello! Where is my order?\" (a signed webhook)", "200, and it is on disk");
    ensure!(stage.whatsapp.post(webhook.body).await?, "the repeated webhook was not taken");
    screen.says("Meta", "repeats the same webhook", "200, and nothing new");
    let rows = look(cast, &[1, 1, 1]).await?;
    screen.table(&rows);
    ensure!(rows.len() == 1, "one message, one offset: {rows:?}");
    let list = list(cast.channel()?);
    let conversation = match cast.service("crm")?.ask(list).await? {
        Response::Conversations(found) => found.conversations.first().map(|entry| entry.conversation),
        other => bail!("{other:?}"),
    };
    conversation.context("the message began a conversation")
}

async fn reply(
    screen: &Screen,
    stage: &Stage,
    cast: &mut Cast,
    conversation: ConversationId,
) -> anyhow::Result<()> {
    screen.chapter(3, "A reply goes out once, and shows masked everywhere else");
    // Ann works in CRM and Desk; Bob in Desk alone; Cleo in SalesIQ.
    for (service, agents) in [("crm", vec!["Ann"]), ("desk", vec!["Ann", "Bob"]), ("salesiq", vec!["Cleo"])] {
        let agents = agents.into_iter().map(agent).collect::<Result<_, _>>()?;
        let roster = Roster { agents, replace: true, remove: Vec::new() };
        ensure!(
            matches!(cast.service(service)?.ask(roster).await?, Response::Ok(_)),
            "the roster of {service}"
        );
    }
    let channel = cast.channel()?;
    let ask = text_reply(channel, conversation, Some("ann"), "r-1", SECRET_REPLY, None)?;
    let accepted = accepted_of(cast.service("crm")?.ask(ask.clone()).await?)?;
    screen.says("crm", &format!("Ann replies: \"{SECRET_REPLY}\""), "accepted");
    let again = accepted_of(cast.service("crm")?.ask(ask).await?)?;
    ensure!(again.duplicate && again.offset == accepted.offset, "the same reply_id gave {again:?}");
    screen.says("crm", "sends the same reply_id again", "the first outcome; nothing is sent again");
    let phone = stage.whatsapp.phone(CUSTOMER.0, 1).await?;
    let [got] = phone.as_slice() else { bail!("the customer got {phone:?}") };
    ensure!(got.body.pointer("/text/body").is_some_and(|text| text == SECRET_REPLY), "she got {got:?}");
    screen.says("WhatsApp", "takes it (POST /messages), and tells: delivered, read", "200");
    let crm = cast.service("crm")?;
    crm.until("that its reply was read", |seen| {
        seen.iter().any(|delivery| delivery.receipt().is_some_and(|receipt| receipt.status == Status::Read))
    })
    .await?;
    let statuses: Vec<Status> =
        crm.rest().iter().filter_map(|delivery| Some(delivery.receipt()?.status)).collect();
    ensure!(statuses.is_sorted(), "receipts went backwards: {statuses:?}");
    let mut rows = Rows::new();
    rows.entry(accepted.offset).or_default().insert("crm", format!("own reply: {SECRET_REPLY}"));
    for name in ["desk", "salesiq"] {
        let seen = cast.service(name)?.next(1).await?;
        ensure!(
            matches!(seen.as_slice(), [Delivery::MaskedReply(masked)] if masked.content.is_none()),
            "{name}: {seen:?}"
        );
        ensure!(!format!("{:?}", exposed(&seen)).contains("4711"), "{name} saw the content");
        note(&mut rows, static_name(name), &seen);
    }
    screen.table(&rows);
    screen.checked("WhatsApp got it once; CRM has its receipts; the others saw that, never what");
    let answer = cast.text_webhook(&stage.whatsapp, CUSTOMER, "Thank you!", got.message_id());
    ensure!(stage.whatsapp.post(answer.body).await?, "her answer was not taken");
    screen.says(CUSTOMER.1, "answers on her phone: \"Thank you!\"", "200");
    let rows = look(cast, &[1, 1, 1]).await?;
    screen.table(&rows);
    Ok(())
}

async fn pick_up(screen: &Screen, cast: &mut Cast, conversation: ConversationId) -> anyhow::Result<()> {
    screen.chapter(4, "Pick-ups: across services nobody is blocked, only warned");
    let channel = cast.channel()?;
    let ask = |agent: &str, confirm| {
        Ok::<_, anyhow::Error>(PickUp { channel, conversation, agent: agent.parse()?, confirm })
    };
    let picked = cast.service("crm")?.ask(ask("ann", None)?).await?;
    ensure!(matches!(picked, Response::PickedUp(_)), "{picked:?}");
    screen.says("crm", "Ann picks the conversation up", "picked_up");
    let sentences = [
        ("desk", "ann", "Ann, who works in CRM too,", None),
        (
            "desk",
            "bob",
            "Bob, who has no access to CRM,",
            Some(
                "Another agent has picked up this conversation in another service. You can still choose to pick it up here.",
            ),
        ),
    ];
    for (service, agent, who, sentence) in sentences {
        let answer = cast.service(service)?.ask(ask(agent, None)?).await?;
        match (answer, sentence) {
            (Response::Warning(warning), Some(sentence)) => {
                let texts: Vec<&str> = warning.warnings.iter().map(|warning| &*warning.text).collect();
                ensure!(texts == [sentence], "{who} was told {texts:?}");
                screen.says(service, &format!("{who} picks it up"), &format!("warning: {sentence}"));
                let confirmed = cast.service(service)?.ask(ask(agent, Some(warning.confirm))?).await?;
                ensure!(matches!(confirmed, Response::PickedUp(_)), "{confirmed:?}");
                screen.says(service, "Bob confirms", "picked_up: held in both services");
            }
            (Response::Warning(warning), None) => bail!("Ann was warned of herself: {warning:?}"),
            (Response::PickedUp(_), None) => {
                screen.says(service, &format!("{who} picks it up"), "picked_up: she is the same person");
                let release =
                    Release { channel, conversation, agent: agent.parse()?, force: false, holder: None };
                let released = cast.service(service)?.ask(release).await?;
                ensure!(matches!(released, Response::Ok(_)), "{released:?}");
                screen.says(service, "Ann lets it go there", "ok");
            }
            (other, _) => bail!("{who}: {other:?}"),
        }
    }
    // Cleo learns to work in CRM: from then on she is told by name.
    let roster = Roster { agents: vec![agent("Ann")?, agent("Cleo")?], replace: true, remove: Vec::new() };
    ensure!(matches!(cast.service("crm")?.ask(roster).await?, Response::Ok(_)), "the roster of crm");
    let answer = cast.service("salesiq")?.ask(ask("cleo", None)?).await?;
    let Response::Warning(warning) = answer else { bail!("Cleo was not warned: {answer:?}") };
    let named =
        "Ann has picked up this conversation in another service. You can still choose to pick it up here.";
    ensure!(warning.warnings.iter().any(|warning| &*warning.text == named), "Cleo was told {warning:?}");
    screen.says("salesiq", "Cleo, who works in CRM too, picks it up", &format!("warning: {named}"));
    let exclusive = cast.service("crm")?.ask(ask("cleo", None)?).await?;
    let Response::Error(error) = exclusive else { bail!("CRM's claim was not exclusive: {exclusive:?}") };
    ensure!(error.code == ErrorCode::Claimed, "{error:?}");
    screen.says("crm", "Cleo picks it up in CRM, where Ann holds it", "claimed (by Ann)");
    let rows = look(cast, &[4, 4, 4]).await?;
    screen.table(&rows);
    screen.checked("both sentences to the letter; within a service one holder, across services a warning");
    Ok(())
}

async fn double_reply(
    screen: &Screen,
    stage: &Stage,
    cast: &mut Cast,
    conversation: ConversationId,
) -> anyhow::Result<()> {
    screen.chapter(5, "A double reply is caught");
    let channel = cast.channel()?;
    let open = Open { channel, conversation, agent: "bob".parse()?, limit: 50, before: None };
    let opened = match cast.service("desk")?.ask(open).await? {
        Response::Conversation(opened) => opened,
        other => bail!("{other:?}"),
    };
    ensure!(!format!("{:?}", exposed(&opened.timeline)).contains("4711"), "the timeline shows the content");
    let masked = opened.timeline.iter().filter(|entry| matches!(entry, Delivery::MaskedReply(_))).count();
    ensure!(masked == 1, "the timeline has {masked} masked replies");
    screen.says(
        "desk",
        "Bob opens the conversation",
        &format!("{} entries, head {}", opened.timeline.len(), opened.head),
    );
    let by_cleo = text_reply(channel, conversation, Some("cleo"), "r-2", "It is on its way.", None)?;
    accepted_of(cast.service("salesiq")?.ask(by_cleo).await?)?;
    screen.says("salesiq", "Cleo replies meanwhile", "accepted");
    let by_bob =
        text_reply(channel, conversation, Some("bob"), "r-3", "It left yesterday.", Some(opened.head))?;
    let warned = cast.service("desk")?.ask(by_bob).await?;
    let Response::Warning(warning) = warned else { bail!("Bob was not warned: {warned:?}") };
    let codes: Vec<WarningCode> = warning.warnings.iter().map(|warning| warning.code).collect();
    ensure!(codes == [WarningCode::RepliedElsewhere], "Bob was warned of {codes:?}");
    let text = warning.warnings.first().map_or("", |warning| &*warning.text);
    screen.says("desk", "Bob replies to what he had seen", &format!("warning: {text}"));
    screen.tells("Bob reads it and lets his reply be: nothing of it was sent.");
    // Cleo's own service sees it, and how far it comes: sent, delivered, read.
    let rows = look(cast, &[1, 1, 4]).await?;
    screen.table(&rows);
    let phone = stage.whatsapp.phone(CUSTOMER.0, 2).await?;
    ensure!(phone.len() == 2, "the customer got {phone:?}");
    screen.checked("one reply left; the second was stopped before it did");
    Ok(())
}

async fn come_and_go(screen: &Screen, cast: &mut Cast) -> anyhow::Result<()> {
    screen.chapter(6, "Services come and go; parenthood passes on by itself");
    let channel = cast.channel()?;
    cast.service("salesiq")?.rest();
    // The article's table, to the letter: who does what, and the list after it, the parent first named.
    let steps: [(&str, &str, &[&str], &str); 4] = [
        ("desk", "deactivate", &["crm", "salesiq"], "crm"),
        ("crm", "delete", &["salesiq"], "salesiq"),
        ("desk", "activate", &["salesiq", "desk"], "salesiq"),
        ("crm", "create", &["salesiq", "desk", "crm"], "salesiq"),
    ];
    for (service, verb, subscribers, parent) in steps {
        let player = cast.service(service)?;
        let answer = match verb {
            "deactivate" => player.ask(DeactivateChannel { channel }).await?,
            "delete" => player.ask(DeleteChannel { channel }).await?,
            "activate" => player.ask(ActivateChannel { channel, backfill: false }).await?,
            _ => player.ask(CreateChannel { number: NUMBER.parse()?, backfill: false }).await?,
        };
        let answer = channel_of(answer)?;
        let list: Vec<&str> = answer.seen.subscribers.iter().map(|service| service.as_str()).collect();
        ensure!(list == subscribers, "after {verb} in {service} the list is {list:?}");
        ensure!(
            answer.seen.parent == Some(parent.parse()?),
            "after {verb} in {service}: {:?}",
            answer.seen.parent
        );
        let shown: Vec<String> = list
            .iter()
            .map(
                |service| {
                    if *service == parent { format!("{service} (parent)") } else { (*service).to_owned() }
                },
            )
            .collect();
        screen.says(service, &format!("{verb}s"), &shown.join(", "));
    }
    let salesiq = cast.service("salesiq")?;
    salesiq
        .until("that it became the parent", |seen| {
            seen.iter().any(|delivery| {
                matches!(delivery, Delivery::Membership(change) if change.action == MembershipAction::ParentChanged)
            })
        })
        .await?;
    for name in SERVICES {
        cast.service(name)?
            .until("that CRM is back", |seen| {
                matches!(seen.iter().rev().find(|delivery| matches!(delivery, Delivery::Membership(_))),
                    Some(Delivery::Membership(change)) if change.action == MembershipAction::Subscribed)
            })
            .await?;
    }
    show_rest(screen, cast);
    screen.checked("the article's table came out to the letter");
    Ok(())
}

async fn kill(screen: &Screen, stage: &mut Stage, cast: &mut Cast) -> anyhow::Result<()> {
    screen.chapter(7, "The broker is killed under way (SIGKILL), and nothing that it acknowledged is lost");
    let channel = cast.channel()?;
    let under_way = UnderWay::begin(cast, &stage.whatsapp, channel)?;
    let acknowledged = under_way.acknowledged_before(ACKNOWLEDGED_BEFORE_THE_KILL).await?;
    stage.kill().await?;
    let Acknowledged { messages, replies } = under_way.end().await;
    screen.says("broker", &format!("SIGKILL, after {acknowledged} acknowledgements"), "gone");
    let all = MESSAGES_AT_THE_KILL + REPLIES_AT_THE_KILL;
    let known = messages.len() + replies.len();
    screen.tells(&format!("{known} of {all} were acknowledged; what became of the others nobody was told"));
    stage.start().await?;
    screen.says("broker", "starts again on the same journal", "serves");
    for name in SERVICES {
        let wanted: BTreeSet<&str> = messages.iter().map(String::as_str).collect();
        cast.service(name)?
            .until("every acknowledged message", |seen| {
                let seen: BTreeSet<&str> = seen.iter().filter_map(message_id).collect();
                wanted.is_subset(&seen)
            })
            .await?;
    }
    screen
        .checked(&format!("each of {} acknowledged messages reached CRM, Desk and SalesIQ", messages.len()));
    for (reply_id, (offset, ask)) in &replies {
        let again = accepted_of(cast.service("crm")?.ask(ask.clone()).await?)?;
        ensure!(
            again.duplicate && again.offset == *offset,
            "reply {reply_id} was accepted at {offset}: {again:?}"
        );
    }
    screen.checked(&format!(
        "each of {} accepted replies is known by its reply_id, at its offset",
        replies.len()
    ));
    fates(screen, stage, cast, &replies).await
}

/// Every accepted reply is sent once, or marked `unknown`: never sent twice.
async fn fates(screen: &Screen, stage: &Stage, cast: &mut Cast, replies: &Replies) -> anyhow::Result<()> {
    let crm = cast.service("crm")?;
    crm.until("what became of every reply", |seen| {
        let known: BTreeSet<String> = seen
            .iter()
            .filter_map(|delivery| Some(delivery.receipt()?.reply_id.as_str().to_owned()))
            .collect();
        replies.keys().all(|reply_id| known.contains(reply_id.as_str()))
    })
    .await?;
    let unknown: BTreeSet<String> = crm
        .rest()
        .iter()
        .filter_map(|delivery| delivery.receipt().filter(|receipt| receipt.status == Status::Unknown))
        .map(|receipt| receipt.reply_id.as_str().to_owned())
        .collect();
    let taken = stage.whatsapp.taken();
    let twice: Vec<_> = taken.iter().filter(|(_, times)| **times > 1).collect();
    ensure!(twice.is_empty(), "customers got these twice: {twice:?}");
    let channel = cast.channel()?;
    for (reply_id, (offset, _)) in replies {
        let data = Intent { channel, reply: *offset }.to_callback_data();
        ensure!(taken.contains_key(&data) || unknown.contains(reply_id), "reply {reply_id} was forgotten");
    }
    ensure!(stage.whatsapp.graph.wrongs().is_empty(), "{:?}", stage.whatsapp.graph.wrongs());
    for name in SERVICES {
        cast.service(name)?.rest();
    }
    screen.checked(&format!(
        "no customer got a reply twice; {} whose answer was lost were marked `unknown` until WhatsApp told",
        unknown.len()
    ));
    Ok(())
}
