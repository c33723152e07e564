//! Whose a thread is: taken, passed and released over sockets, told within what each may know, kept like all state.

use std::time::Duration;

use sharedline::domain::ids::{ChannelId, ConversationId, Timestamp};
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{DeactivateChannel, ThreadControl, ThreadOwner};
use sharedline::wire::message::{
    Addressee, DeliverMode, Delivery, ErrorCode, Private, Response, ThreadOwnership, ThreadVerb, deliveries,
    responses,
};

use crate::retention::{KEEP_MS, gone};
use crate::stage::{
    MARIA, Peer, Stage, Tallied, accepted, by, inbound, now_ms, pick_up, reply, text_content, word,
};

const DAY_MS: u64 = 86_400_000;
const LAPSES_IN_MS: u64 = 3_000;
const HANDED_ON: &str = "handed-on-with-it";

fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn control(channel: ChannelId, conversation: ConversationId, action: ThreadVerb) -> ThreadControl {
    let of = Addressee::Conversation(conversation);
    ThreadControl { channel, of, action, to_service: None, metadata: None, agent: None }
}

fn pass(channel: ChannelId, conversation: ConversationId, to: &str) -> ThreadControl {
    let to_service = Some(to.parse().unwrap());
    let metadata = Some(Private::from(HANDED_ON));
    ThreadControl { to_service, metadata, ..control(channel, conversation, ThreadVerb::Pass) }
}

fn thread(response: Response) -> responses::Thread {
    match response {
        Response::Thread(thread) => thread,
        other => panic!("{other:?}"),
    }
}

async fn owner(peer: &mut Peer, channel: ChannelId, conversation: ConversationId) -> ThreadOwnership {
    let of = Addressee::Conversation(conversation);
    thread(peer.ask(ThreadOwner { channel, of }).await).owner
}

/// The next delivery about a thread; what else comes is passed over.
async fn told(peer: &mut Peer) -> deliveries::Thread {
    loop {
        if let Delivery::Thread(thread) = peer.next().await {
            return thread;
        }
    }
}

pub(crate) async fn a_thread_is_told_within_what_each_may_know(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel) = stage.sharing(&["crm", "desk", "salesiq"]).await;
    let mut gateway = stage.gateway().await;
    gateway.text("wamid.1", "hello").await;
    let conversation = peers[0].conversation(channel).await;
    for peer in &mut peers {
        assert_eq!(owner(peer, channel, conversation).await, ThreadOwnership::Nobody);
    }

    let take = ThreadControl {
        agent: Some("ann".parse().unwrap()),
        ..control(channel, conversation, ThreadVerb::Take)
    };
    let taken = thread(peers[0].ask(take).await);
    assert_eq!((taken.conversation, taken.owner), (conversation, ThreadOwnership::Own));
    assert_eq!(taken.until.unwrap().0, now_ms() + DAY_MS, "a day from the customer's last message");
    let own = told(&mut peers[0]).await;
    assert!(own.own && !own.was_own && own.until == taken.until && own.at == taken.since.unwrap());
    assert_eq!(own.agent.unwrap().as_str(), "ann");
    for peer in &mut peers[1..] {
        let others = told(peer).await;
        assert!(!others.own && !others.was_own && others.agent.is_none() && others.until.is_none());
        assert_eq!(owner(peer, channel, conversation).await, ThreadOwnership::Another);
    }

    let of = Addressee::Customer(MARIA.parse().unwrap());
    let passed = thread(peers[0].ask(ThreadControl { of, ..pass(channel, conversation, "desk") }).await);
    assert_eq!((passed.owner, passed.since, passed.until), (ThreadOwnership::Another, None, None));
    assert!(passed.metadata.is_none());
    let [former, new, other] =
        [told(&mut peers[0]).await, told(&mut peers[1]).await, told(&mut peers[2]).await];
    assert!(former.was_own && !former.own && former.metadata.is_none());
    assert!(new.own && new.agent.is_none());
    assert_eq!(new.metadata.unwrap().expose(), HANDED_ON);
    assert!(!other.own && !other.was_own && other.metadata.is_none());
    let asked = peers[1].ask(ThreadOwner { channel, of: Addressee::Conversation(conversation) }).await;
    let asked = thread(asked);
    assert_eq!(asked.metadata.unwrap().expose(), HANDED_ON);
    assert_eq!((asked.since, asked.until), (Some(new.at), new.until));

    // Another's is not released; one's own is.
    let release = control(channel, conversation, ThreadVerb::Release);
    assert_eq!(thread(peers[0].ask(release.clone()).await).owner, ThreadOwnership::Another);
    assert_eq!(thread(peers[1].ask(release).await).owner, ThreadOwnership::Nobody);
    assert_eq!(word(&Delivery::Thread(told(&mut peers[1]).await)), "thread released lost");
    assert_eq!(word(&Delivery::Thread(told(&mut peers[2]).await)), "thread released");

    // What can not be is said, in the order of the contract.
    let refused = [
        (pass(channel, conversation, "chat"), ErrorCode::NotFound),
        (ThreadControl { to_service: None, ..pass(channel, conversation, "desk") }, ErrorCode::BadMessage),
        (control(channel, ConversationId(7), ThreadVerb::Take), ErrorCode::NotFound),
        (
            ThreadControl {
                agent: Some("zoe".parse().unwrap()),
                ..control(channel, conversation, ThreadVerb::Take)
            },
            ErrorCode::UnknownAgent,
        ),
    ];
    for (request, code) in refused {
        assert_eq!(peers[0].refused(request).await, code);
    }
    peers[2].ask(DeactivateChannel { channel }).await;
    let take = control(channel, conversation, ThreadVerb::Take);
    assert_eq!(peers[2].refused(take.clone()).await, ErrorCode::NotSubscribed);
    let of = Addressee::Conversation(conversation);
    assert_eq!(peers[2].refused(ThreadOwner { channel, of }).await, ErrorCode::NotSubscribed);
    assert_eq!(gateway.refused(take).await, ErrorCode::Forbidden);
}

pub(crate) async fn a_note_goes_with_its_conversation_and_stops_nobody(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let (mut peers, channel) = stage.sharing(&["crm", "desk"]).await;
    let mut gateway = stage.gateway().await;
    gateway.ask(inbound("wamid.1", MARIA, &text_content("by phone"))).await;
    gateway.ask(inbound("wamid.2", "US.13491208655302741918", &text_content("by name"))).await;
    let (older, younger) = (peers[0].message().await, peers[0].message().await);
    thread(peers[1].ask(control(channel, older.conversation, ThreadVerb::Take)).await);
    thread(peers[0].ask(control(channel, younger.conversation, ThreadVerb::Take)).await);
    // Nobody is blocked by it, and nobody is warned.
    let picked_up = peers[0].ask(pick_up(channel, older.conversation, "ann")).await;
    assert!(matches!(picked_up, Response::PickedUp(_)), "{picked_up:?}");
    accepted(peers[0].ask(by("ann", reply(channel, older.conversation, "r1"))).await);

    // Both prove to be one customer's: the older's goes on.
    let mut both = inbound("wamid.3", MARIA, &text_content("by both"));
    both.customer.user_id = younger.customer.user_id.clone();
    gateway.ask(both).await;
    let released = loop {
        let thread = told(&mut peers[0]).await;
        if word(&Delivery::Thread(thread.clone())) == "thread released lost" {
            break thread;
        }
    };
    assert_eq!(released.conversation, younger.conversation, "told where it was");
    for id in [older.conversation, younger.conversation] {
        assert_eq!(owner(&mut peers[1], channel, id).await, ThreadOwnership::Own);
        assert_eq!(owner(&mut peers[0], channel, id).await, ThreadOwnership::Another);
    }
    // Timelines have what they always had.
    let opened = peers[1].open_conversation(channel, older.conversation, "bob").await;
    assert!(!opened.timeline.is_empty());
    assert!(!opened.timeline.iter().any(|entry| matches!(entry, Delivery::Thread(_))));

    peers[1].ask(DeactivateChannel { channel }).await;
    assert_eq!(owner(&mut peers[0], channel, older.conversation).await, ThreadOwnership::Nobody);
}

pub(crate) async fn a_note_outlives_history_and_a_restart(encoding: Encoding, tally: &Tallied) {
    let mut stage = Stage::keeping(encoding, tally, KEEP_MS);
    let (mut peers, channel) = stage.sharing(&["crm", "desk"]).await;
    let hello = stage.hello("acme", "whatsapp", "quiet");
    let hello = sharedline::wire::message::requests::Hello { deliver: DeliverMode::None, ..hello };
    let mut gateway = stage.open(hello).await.unwrap();
    gateway.text("wamid.1", "goes-in-time").await;
    let conversation = peers[0].conversation(channel).await;
    thread(peers[0].ask(pass(channel, conversation, "desk")).await);
    gone(&stage, "goes-in-time").await;
    drop((peers, gateway));
    stage.restart().await;
    let mut desk = stage.service("desk").await;
    let kept = thread(desk.ask(ThreadOwner { channel, of: Addressee::Conversation(conversation) }).await);
    assert_eq!(kept.owner, ThreadOwnership::Own);
    assert_eq!(kept.metadata.unwrap().expose(), HANDED_ON);
    assert_eq!(kept.until.unwrap().0, now_ms() + DAY_MS);
    // With the note goes what was handed on with it.
    thread(desk.ask(control(channel, conversation, ThreadVerb::Release)).await);
    gone(&stage, HANDED_ON).await;

    // So it does where the note lapses: of a customer who wrote a day ago, but for a moment.
    let hello = stage.hello("acme", "whatsapp", "quiet");
    let hello = sharedline::wire::message::requests::Hello { deliver: DeliverMode::None, ..hello };
    let mut gateway = stage.open(hello).await.unwrap();
    let noted = loop {
        let mut late = inbound("wamid.late", "16505550000", &text_content("long ago"));
        late.at = Timestamp(wall_ms() + LAPSES_IN_MS - DAY_MS);
        late.message_id = format!("wamid.{}", late.at.0).parse().unwrap();
        gateway.ask(late).await;
        let of = || Addressee::Customer("16505550000".parse().unwrap());
        let take = ThreadControl {
            of: of(),
            metadata: Some(Private::from(HANDED_ON)),
            ..control(channel, conversation, ThreadVerb::Take)
        };
        let noted = thread(desk.ask(take).await);
        // On a machine that is too busy it has lapsed by now.
        if noted.owner == ThreadOwnership::Own {
            break noted.conversation;
        }
    };
    while owner(&mut desk, channel, noted).await != ThreadOwnership::Nobody {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gone(&stage, HANDED_ON).await;
    drop((desk, gateway));
    stage.stop().await;
}
