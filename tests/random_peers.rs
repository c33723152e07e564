//! Peers that ask whatever comes into their heads, all at once: every request is answered, nothing panics, and the broker
//! reads its own journal back after each life.
//!
//! `SHAREDLINE_SEED` and `SHAREDLINE_REQUESTS` make it a campaign.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail as its test does"
)]

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sharedline::actors::Limits;
use sharedline::actors::broker::Setup;
use sharedline::client::{Connection, position};
use sharedline::domain::event::{Agent, Customer, Settings, Status as HowFar, StatusError};
use sharedline::domain::ids::{ChannelId, ConversationId, CustomerName, Offset, Timestamp};
use sharedline::domain::portal::{PickUpRule, Plan};
use sharedline::domain::presence::Doing;
use sharedline::domain::view::Masking;
use sharedline::journal::Options;
use sharedline::net::listener::{self, Listener};
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{
    Ack, ActivateChannel, ConfigureChannel, CreateChannel, DeactivateChannel, DeleteChannel, GetChannel,
    Hello, Inbound, ListChannels, ListConversations, Open, PickUp, Ping, Presence, Release, Reply, Roster,
    Sent, Status, ThreadControl, ThreadOwner, Transfer,
};
use sharedline::wire::message::{
    Addressee, DeliverMode, Delivery, ErrorCode, Positions, RawContent, Request, Response, SentOutcome,
    ServerBody, StatusOf, ThreadVerb, Who,
};
use tokio::task::JoinSet;

const WITHIN: Duration = Duration::from_secs(60);
const NUMBERS: [&str; 2] = ["+15550783881", "+15550783882"];
const SERVICES: [&str; 4] = ["crm", "desk", "salesiq", "chat"];
const AGENTS: [&str; 4] = ["ann", "bob", "cleo", "dan"];
const REPLIES: [&str; 2] =
    [r#"{"type":"text","text":{"body":"y"}}"#, r#"{"type":"template","template":{"name":"t"}}"#];
/// Lives of the broker, and requests of each peer in each.
const LIVES: u64 = 3;
const REQUESTS: u64 = 1_500;
/// Requests that a peer has in flight.
const IN_FLIGHT: usize = 40;

/// xorshift: a seed tells the whole run of one peer.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    fn maybe<T>(&mut self, percent: u64, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.is(percent).then(|| value(self))
    }
}

/// What all peers together have heard of.
#[derive(Default)]
struct Heard {
    channels: BTreeSet<ChannelId>,
    conversations: BTreeSet<ConversationId>,
    sends: Vec<(ChannelId, Offset)>,
}

type Shared = Arc<Mutex<Heard>>;

fn setup() -> Setup {
    let numbers = [(NUMBERS[0], Some(world::GATEWAY)), (NUMBERS[1], None)];
    let mut portal = world::portal("acme", Plan::Bundle, &SERVICES, &numbers);
    portal.rules.services[2].pick_up = PickUpRule::Takeover;
    let chat = &mut portal.rules.services[3];
    (chat.pick_up, chat.masking, chat.claim_ttl_ms) = (PickUpRule::Open, Masking::Service, Some(1_000));
    for number in &mut portal.numbers {
        number.send_ttl_ms = 1_000;
    }
    let limits = Limits {
        recent_bytes_max: 64 << 10,
        ack_timeout: Duration::from_secs(600),
        arbiters: 3,
        ..Limits::default()
    };
    Setup { portals: vec![portal], limits }
}

fn name(random: &mut Random) -> CustomerName {
    let at = random.below(40);
    let name = if random.is(60) { format!("1650555{at:04}") } else { format!("US.{at}") };
    CustomerName::read(&name).unwrap()
}

fn gateways_request(random: &mut Random, heard: &Heard) -> Request {
    let number = random.of(&NUMBERS).parse().unwrap();
    let message = |random: &mut Random| format!("o.{}", random.below(2_000)).parse().unwrap();
    match random.below(10) {
        0..6 => {
            let (one, other) = (name(random), random.maybe(30, name));
            let mut customer = Customer::default();
            for name in [Some(one), other].into_iter().flatten() {
                let slot = if name.is_user_id() { &mut customer.user_id } else { &mut customer.wa_id };
                slot.get_or_insert(name);
            }
            let contents = [
                r#"{"type":"text","text":{"body":"hello"}}"#,
                r#"{"type":"button","button":{"payload":"p","text":"Yes"},"context":{"id":"o.7"}}"#,
                r#"{"type":"reaction","reaction":{"message_id":"m.1","emoji":"x"}}"#,
            ];
            Request::Inbound(Inbound {
                number,
                message_id: format!("m.{}", random.below(2_000)).parse().unwrap(),
                customer,
                at: Timestamp(*random.of(&[1_795_000_000_000, 1_700_000_000_000])),
                content: RawContent(Bytes::from_static(random.of(&contents).as_bytes())),
                refers_to: None,
            })
        }
        6..8 => {
            let fallback = (ChannelId(7), Offset(1));
            let (channel, offset) = if heard.sends.is_empty() { fallback } else { *random.of(&heard.sends) };
            let error = StatusError { code: "131000".into(), title: None, details: None };
            let outcome = match random.below(4) {
                0 => SentOutcome::Error { error: error.clone(), definite: true },
                1 => SentOutcome::Error { error, definite: false },
                _ => SentOutcome::Sent(format!("o.{}", offset.0).parse().unwrap()),
            };
            Request::Sent(Sent { channel, offset, outcome })
        }
        _ => Request::Status(Status {
            of: StatusOf::Message(message(random)),
            number,
            status: *random.of(&[
                HowFar::Sent,
                HowFar::Delivered,
                HowFar::Read,
                HowFar::Played,
                HowFar::Failed,
            ]),
            at: Timestamp(1),
            error: None,
            details: random.of(&[None, Some(RawContent(Bytes::from_static(b"{\"pricing\":1}")))]).clone(),
        }),
    }
}

fn channels_request(random: &mut Random, channel: ChannelId) -> Request {
    let backfill = random.is(30);
    match random.below(40) {
        0..10 => {
            Request::CreateChannel(CreateChannel { number: random.of(&NUMBERS).parse().unwrap(), backfill })
        }
        10..15 => Request::ActivateChannel(ActivateChannel { channel, backfill }),
        15..17 => Request::DeactivateChannel(DeactivateChannel { channel }),
        17 => Request::DeleteChannel(DeleteChannel { channel }),
        18..22 => Request::GetChannel(GetChannel { channel }),
        22..25 => Request::ListChannels(ListChannels {
            after: None,
            limit: random.maybe(50, |random| *random.of(&[1, 2, 500])),
        }),
        25..30 => Request::ListConversations(ListConversations {
            channel,
            after: None,
            limit: Some(5),
            claimed: random.maybe(50, |random| random.is(50)),
            unanswered: random.maybe(50, |random| random.is(50)),
        }),
        30..34 => Request::ConfigureChannel(ConfigureChannel {
            channel,
            settings: Settings { reveal_service: random.is(50), reveal_kind: random.is(50) },
        }),
        _ => {
            let agent =
                |id: &&str| Agent { agent: id.parse().unwrap(), name: (*id).into(), lead: *id == "dan" };
            let end = usize::try_from(random.below(5)).unwrap();
            Request::Roster(Roster {
                agents: AGENTS[..end].iter().map(agent).collect(),
                replace: random.is(30),
                remove: random.maybe(20, |random| random.of(&AGENTS).parse().unwrap()).into_iter().collect(),
            })
        }
    }
}

fn services_request(random: &mut Random, heard: &Heard) -> Request {
    let channels: Vec<_> = heard.channels.iter().copied().collect();
    let channel = if channels.is_empty() || random.is(3) { ChannelId(7) } else { *random.of(&channels) };
    if random.is(20) {
        return channels_request(random, channel);
    }
    let conversations: Vec<_> = heard.conversations.iter().copied().collect();
    let nowhere = conversations.is_empty() || random.is(3);
    let conversation = if nowhere { ConversationId(7) } else { *random.of(&conversations) };
    let agent: sharedline::domain::ids::AgentId = random.of(&AGENTS).parse().unwrap();
    let holder = random.maybe(30, |random| random.of(&AGENTS).parse().unwrap());
    let of =
        if random.is(70) { Addressee::Conversation(conversation) } else { Addressee::Customer(name(random)) };
    match random.below(92) {
        80..88 => {
            let action = *random.of(&[ThreadVerb::Take, ThreadVerb::Pass, ThreadVerb::Release]);
            let to_service = (action == ThreadVerb::Pass).then(|| random.of(&SERVICES).parse().unwrap());
            let metadata = random
                .maybe(40, |random| "\u{fc}".repeat(*random.of(&[1, 2_000])).as_str().into())
                .filter(|_| action != ThreadVerb::Release);
            let agent = random.maybe(50, |_| agent);
            Request::ThreadControl(ThreadControl { channel, of, action, to_service, metadata, agent })
        }
        88..92 => Request::ThreadOwner(ThreadOwner { channel, of }),
        0..13 => {
            let (limit, before) =
                (*random.of(&[0, 1, 7, 60, 1_000]), random.maybe(30, |random| Offset(random.below(2_000))));
            Request::Open(Open { channel, conversation, agent, limit, before })
        }
        13..28 => Request::PickUp(PickUp {
            channel,
            conversation,
            agent,
            confirm: random.maybe(10, |_| "bad".into()),
        }),
        28..35 => Request::Release(Release { channel, conversation, agent, force: holder.is_some(), holder }),
        35..42 => {
            let to = random.of(&AGENTS).parse().unwrap();
            Request::Transfer(Transfer { channel, conversation, agent, to, force: holder.is_some(), holder })
        }
        42..72 => Request::Reply(Reply {
            channel,
            to: if random.is(50) {
                Addressee::Conversation(conversation)
            } else {
                Addressee::Customer(name(random))
            },
            agent: random.maybe(50, |_| agent),
            reply_id: format!("r.{}", random.below(2_000)).parse().unwrap(),
            content: RawContent(Bytes::from_static(random.of(&REPLIES).as_bytes())),
            seen: random.maybe(30, |random| Offset(random.below(1_000))),
            confirm: None,
        }),
        72..78 => {
            let doing = *random.of(&[Doing::Looking, Doing::Writing, Doing::Gone]);
            Request::Presence(Presence { channel, conversation, agent, doing })
        }
        _ => Request::Ping(Ping {}),
    }
}

/// One peer's life: asks, acknowledges most of what it gets, and waits until all is answered.
async fn peer(
    address: SocketAddr,
    who: &'static str,
    adapter: String,
    heard: Shared,
    mut random: Random,
    requests: u64,
) {
    let is_gateway = who == world::GATEWAY;
    let hello = Hello {
        version: 1,
        who: if is_gateway { Who::Gateway(who.parse().unwrap()) } else { Who::Service(who.parse().unwrap()) },
        portal: "acme".parse().unwrap(),
        token: who.into(),
        adapter: Some(adapter.parse().unwrap()),
        window: *random.of(&[1, 5, 100, 5_000]),
        deliver: DeliverMode::Share,
        from: Positions::default(),
        heartbeat_ms: None,
    };
    let encoding = *random.of(&[Encoding::JsonLines, Encoding::Binary]);
    let Connection { mut sender, mut receiver, .. } =
        Connection::open(address, encoding, hello).await.unwrap();
    let mut asked: BTreeMap<u64, Request> = BTreeMap::new();
    let (mut count, mut batch) = (0, Vec::new());
    while count < requests || !asked.is_empty() {
        while count < requests && asked.len() < IN_FLIGHT {
            let request = {
                let heard = heard.lock().unwrap();
                if is_gateway {
                    gateways_request(&mut random, &heard)
                } else {
                    services_request(&mut random, &heard)
                }
            };
            asked.insert(sender.put(&request).unwrap(), request);
            count += 1;
        }
        sender.flush().await.unwrap();
        let received = tokio::time::timeout(WITHIN, receiver.next_batch(&mut batch)).await;
        received
            .unwrap_or_else(|_| panic!("{who} waits for {:?}", asked.first_key_value()))
            .expect("the connection holds");
        for message in batch.drain(..) {
            let mut heard = heard.lock().unwrap();
            match &message.body {
                ServerBody::Response(response) => {
                    assert!(asked.remove(&message.id).is_some(), "{response:?} answers nothing");
                    match response {
                        Response::Channel(channel) => drop(heard.channels.insert(channel.seen.channel)),
                        Response::Error(error) => assert!(
                            !matches!(
                                error.code,
                                ErrorCode::Internal | ErrorCode::Unavailable | ErrorCode::BadMessage
                            ),
                            "{error:?}"
                        ),
                        _ => {}
                    }
                }
                ServerBody::Delivery(delivery) => {
                    match delivery {
                        Delivery::Message(message) => drop(heard.conversations.insert(message.conversation)),
                        Delivery::Send(send) => heard.sends.push((send.channel, send.offset)),
                        _ => {}
                    }
                    if let Some((channel, offset)) = position(delivery)
                        && random.is(70)
                    {
                        sender.put(&Ack { channel, offset }.into()).unwrap();
                    }
                }
            }
        }
    }
}

fn number_of(variable: &str, default: u64) -> u64 {
    let found = std::env::vars_os().find(|(name, _)| name == variable);
    found.map_or(default, |(_, value)| value.into_string().unwrap().parse().unwrap())
}

#[tokio::test]
async fn whatever_peers_ask_is_answered_and_the_journal_reads_back() {
    let directory = tempfile::tempdir().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = number_of("SHAREDLINE_SEED", u64::from(now.subsec_nanos()) + 1);
    println!("seed {seed}");
    let heard = Shared::default();
    for life in 0..LIVES {
        let options = Options { before_sync: life % 2 == 0, segment_bytes: 1 << 20, ..Options::default() };
        let broker = world::start(directory.path(), &options, setup());
        let settings = listener::Settings { ack_timeout: Duration::from_secs(600) };
        let listener = Listener::start("127.0.0.1:0".parse().unwrap(), &broker, settings).unwrap();
        let mut peers = JoinSet::new();
        let names = [("crm", 2), ("desk", 1), ("salesiq", 1), ("chat", 1), (world::GATEWAY, 1)];
        for (who, count) in names {
            for at in 0..count {
                let random = Random((seed << 8) + life * 16 + peers.len() as u64 + 1);
                let requests = number_of("SHAREDLINE_REQUESTS", REQUESTS);
                peers.spawn(peer(
                    listener.address(),
                    who,
                    format!("p{at}"),
                    Arc::clone(&heard),
                    random,
                    requests,
                ));
            }
        }
        while let Some(ended) = peers.join_next().await {
            ended.unwrap();
        }
        assert!(broker.halt_reason().is_none(), "{:?}", broker.halt_reason());
        listener.close();
        broker.stop(WITHIN).await.unwrap();
    }
}
