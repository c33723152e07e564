//! The actors on a real journal in a temporary directory, driven through the `Broker` handle as an embedding program
//! would: what is decided, what each connection gets, what is there after a restart.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is its report"
)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sharedline::actors::adapter::{Peer, Request};
use sharedline::actors::batch::BatchEntry;
use sharedline::actors::broker::{Connected, Hello, Setup};
use sharedline::actors::port::{Answered, Outgoing, Refusal};
use sharedline::actors::{Ask, Broker, Deliver, Limits};
use sharedline::domain::command::{Addressee, Command, Inbound, Rejection, ReplyCommand, SendOutcome};
use sharedline::domain::event::{Agent, ClearTo, Customer, Message, RosterChange};
use sharedline::domain::ids::{
    ChannelId, ConversationId, CustomerName, Number, Offset, ServiceId, Timestamp,
};
use sharedline::domain::portal::Plan;
use sharedline::domain::view::{Masking, View, Viewer, view};
use sharedline::journal::memory::MemoryJournal;
use sharedline::journal::{Journal, Options, StreamId};
use sharedline::wire::content::{check_inbound, check_reply};

const NUMBER: &str = "+15550783881";
const WAIT: Duration = Duration::from_secs(20);

fn service(id: &str) -> ServiceId {
    id.parse().unwrap()
}

fn setup(plan: Plan) -> Setup {
    let services = ["crm", "desk", "salesiq", "books"];
    Setup {
        portals: vec![world::portal("acme", plan, &services, &[(NUMBER, Some(world::GATEWAY))])],
        limits: Limits {
            recent_bytes_max: 4 << 20,
            ack_timeout: Duration::from_secs(60),
            arbiters: 0,
            ..Limits::default()
        },
    }
}

fn start(directory: &std::path::Path, plan: Plan) -> Broker {
    world::start(directory, &Options { segment_bytes: 256 << 10, ..Options::default() }, setup(plan))
}

/// One connection, and what came over it and was not looked at yet.
struct Connection {
    connected: Connected,
    viewer: ServiceId,
    answers: Vec<(u64, Answered)>,
    /// What it was delivered: offset, and in a word what it is.
    delivered: Vec<(Offset, String)>,
    sends: Vec<(Offset, String)>,
    next_id: u64,
    /// When every message of this connection was sent: a repeat carries the same time.
    started: Timestamp,
}

fn word(record: &sharedline::domain::event::Record, viewer: &ServiceId) -> Option<String> {
    let (_, seen) = view(record, &Viewer { service: viewer, masking: Masking::Broker })?;
    Some(match seen {
        View::Message { content, .. } => String::from_utf8(content.to_vec()).unwrap(),
        View::Reply(reply) => format!("reply {}", reply.reply_id.as_str()),
        View::MaskedReply { .. } => "masked".to_owned(),
        View::Claim { action, own } => format!("{} {}", action.as_str(), own.is_some()),
        View::Receipt(receipt) => format!("receipt {}", receipt.status.as_str()),
        View::Merged { .. } => "merged".to_owned(),
        View::Membership(membership) => format!("{} {}", membership.action.as_str(), membership.service),
        View::Notice(_) => "notice".to_owned(),
        View::Thread(thread) => format!("thread {} {}", thread.action.as_str(), thread.own),
    })
}

impl Connection {
    fn open(broker: &Broker, peer: Peer, token: &str, deliver: Deliver) -> Self {
        let viewer = match &peer {
            Peer::Service(service) => service.clone(),
            Peer::Gateway(_) => service("gateway"),
        };
        let hello = Hello {
            portal: "acme".parse().unwrap(),
            peer,
            token: token.to_owned(),
            adapter: Some("one".parse().unwrap()),
            window: 1_024,
            deliver,
        };
        let connected = broker.connect(hello).unwrap();
        let (answers, delivered, sends) = Default::default();
        Self {
            connected,
            viewer,
            answers,
            delivered,
            sends,
            next_id: 0,
            started: Timestamp(1_000 * (now_ms() / 1_000_000) * 1_000),
        }
    }

    fn service(broker: &Broker, id: &str) -> Self {
        Self::open(broker, Peer::Service(service(id)), id, Deliver::Share)
    }

    fn gateway(broker: &Broker) -> Self {
        Self::open(broker, Peer::Gateway("whatsapp".parse().unwrap()), world::GATEWAY, Deliver::Share)
    }

    async fn take(&mut self) {
        let mut out = Vec::new();
        while !self.connected.session.outlet().take(&mut out) {
            tokio::time::timeout(WAIT, self.connected.session.outlet().ready())
                .await
                .expect("something comes");
        }
        for outgoing in out {
            match outgoing {
                Outgoing::Answers(answers) => self.answers.extend(answers),
                Outgoing::Deliveries(slice) => {
                    for entry in slice.entries() {
                        if let BatchEntry::Record(record) = entry
                            && let Some(word) = word(record, &self.viewer)
                        {
                            self.delivered.push((record.offset, word));
                        }
                    }
                }
                Outgoing::Send(send) => self.sends.push((send.offset, send.reply_id.as_str().to_owned())),
                _ => {}
            }
        }
    }

    async fn ask(&mut self, request: Request) -> Answered {
        self.next_id += 1;
        let id = self.next_id;
        self.connected.session.ask(vec![(id, request)], 100).await.unwrap();
        loop {
            if let Some(at) = self.answers.iter().position(|(of, _)| *of == id) {
                return self.answers.remove(at).1;
            }
            self.take().await;
        }
    }

    /// Waits until `count` deliveries have come, and gives their words.
    async fn words(&mut self, count: usize) -> Vec<String> {
        while self.delivered.len() < count {
            self.take().await;
        }
        self.delivered.drain(..).map(|(_, word)| word).collect()
    }

    async fn create(&mut self) -> ChannelId {
        let number: Number = NUMBER.parse().unwrap();
        match self.ask(Request::Create { number, backfill: false }).await {
            Answered::Channel { seen, .. } => seen.channel,
            other => panic!("{other:?}"),
        }
    }

    async fn roster(&mut self, agents: &[&str]) {
        let agent = |id: &&str| Agent { agent: id.parse().unwrap(), name: Arc::from(*id), lead: false };
        let change = RosterChange {
            service: self.viewer.clone(),
            agents: agents.iter().map(agent).collect(),
            replace: true,
            remove: Vec::new(),
        };
        assert!(matches!(self.ask(Request::Roster(change)).await, Answered::Ok));
    }

    fn request(&self, message_id: &str, text: &str) -> Request {
        let content = Bytes::from(format!(r#"{{"type":"text","text":{{"body":"{text}"}}}}"#));
        let checked = check_inbound(&content).unwrap();
        let customer = Customer { wa_id: Some("16505551234".parse().unwrap()), ..Customer::default() };
        let inbound = Inbound::from(Message {
            message_id: message_id.parse().unwrap(),
            customer,
            formerly: Vec::new(),
            sent_at: self.started,
            content: checked.content,
            refers_to: checked.refers_to,
            clear_to: ClearTo::Everyone,
            contact: None,
        });
        Request::Inbound { number: NUMBER.parse().unwrap(), inbound }
    }

    async fn inbound(&mut self, message_id: &str, text: &str) -> Answered {
        let request = self.request(message_id, text);
        self.ask(request).await
    }

    async fn reply(&mut self, channel: ChannelId, reply_id: &str) -> Answered {
        let to = Addressee::Customer(CustomerName::read("16505551234").unwrap());
        self.reply_to(channel, to, reply_id).await
    }

    async fn reply_to(&mut self, channel: ChannelId, to: Addressee, reply_id: &str) -> Answered {
        let content =
            check_reply(&Bytes::from_static(br#"{"type":"text","text":{"body":"secret"}}"#)).unwrap();
        let reply = ReplyCommand {
            service: self.viewer.clone(),
            agent: None,
            to,
            reply_id: reply_id.parse().unwrap(),
            content: content.content,
            callback_data: None,
            seen: None,
            confirm: None,
        };
        self.ask(Request::Of(channel, Ask::from(Command::Reply(reply)))).await
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_message_reaches_every_service_and_a_reply_shows_masked_in_the_others() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let broker = start(directory.path(), Plan::Bundle);
        let mut crm = Connection::service(&broker, "crm");
        let mut desk = Connection::service(&broker, "desk");
        let mut gateway = Connection::gateway(&broker);
        let channel = crm.create().await;
        assert_eq!(desk.create().await, channel);
        let taken = gateway.inbound("wamid.1", "hello").await;
        assert!(matches!(taken, Answered::Taken { channels: 1, duplicate: false }), "{taken:?}");
        let again = gateway.inbound("wamid.1", "hello").await;
        assert!(matches!(again, Answered::Taken { channels: 1, duplicate: true }), "{again:?}");
        let hello = r#"{"type":"text","text":{"body":"hello"}}"#;
        assert_eq!(crm.words(3).await, ["subscribed crm", "subscribed desk", hello]);
        assert_eq!(desk.words(2).await, ["subscribed desk", hello]);

        let accepted = crm.reply(channel, "r1").await;
        assert!(matches!(accepted, Answered::Accepted { duplicate: false, .. }), "{accepted:?}");
        assert_eq!(desk.words(1).await, ["masked"]);
        while gateway.sends.is_empty() {
            gateway.take().await;
        }
        let (offset, reply_id) = gateway.sends.remove(0);
        assert_eq!(reply_id, "r1");
        let outcome = SendOutcome::Sent("wamid.r1".parse().unwrap());
        let sent = gateway
            .ask(Request::Of(channel, Ask::Outcome { reply: offset, outcome: Box::new(outcome) }))
            .await;
        assert!(matches!(sent, Answered::Ok));
        assert_eq!(crm.words(2).await, ["reply r1", "receipt sent"]);
        drop((crm, desk, gateway));
        broker.stop(WAIT).await.unwrap();
    });
}

#[test]
fn what_was_not_acknowledged_comes_again_after_a_restart_and_nothing_else() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let broker = start(directory.path(), Plan::Bundle);
        let mut crm = Connection::service(&broker, "crm");
        let mut gateway = Connection::gateway(&broker);
        let channel = crm.create().await;
        for at in 0..10 {
            gateway.inbound(&format!("wamid.{at}"), &format!("m{at}")).await;
        }
        while crm.delivered.len() < 11 {
            crm.take().await;
        }
        let fourth = crm.delivered[4].0;
        crm.connected.session.ask(vec![(0, Request::Of(channel, Ask::Ack(fourth)))], 1).await.unwrap();
        assert!(matches!(crm.ask(Request::Of(channel, Ask::Get)).await, Answered::Channel { .. }));
        drop((crm, gateway));
        broker.stop(WAIT).await.unwrap();

        let broker = start(directory.path(), Plan::Bundle);
        let mut crm = Connection::service(&broker, "crm");
        assert_eq!(crm.connected.channels.len(), 1);
        let words = crm.words(6).await;
        let expected: Vec<String> =
            (4..10).map(|at| format!(r#"{{"type":"text","text":{{"body":"m{at}"}}}}"#)).collect();
        assert_eq!(words, expected);
        let mut gateway = Connection::gateway(&broker);
        let again = gateway.inbound("wamid.3", "m3").await;
        assert!(matches!(again, Answered::Taken { channels: 1, duplicate: true }), "{again:?}");
        drop((crm, gateway));
        broker.stop(WAIT).await.unwrap();
    });
}

#[test]
fn of_two_agents_at_once_one_wins_and_a_roster_that_shrinks_ends_the_claim() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let broker = start(directory.path(), Plan::Bundle);
        let mut crm = Connection::service(&broker, "crm");
        let mut gateway = Connection::gateway(&broker);
        crm.roster(&["ann", "bob"]).await;
        let channel = crm.create().await;
        gateway.inbound("wamid.1", "hello").await;
        let conversation = conversation_of(&mut crm, channel).await;
        let pick_up = |agent: &str| {
            Request::Of(
                channel,
                Ask::from(Command::PickUp {
                    service: service("crm"),
                    conversation,
                    agent: agent.parse().unwrap(),
                    confirm: None,
                }),
            )
        };
        assert!(matches!(crm.ask(pick_up("ann")).await, Answered::PickedUp));
        let refused = crm.ask(pick_up("bob")).await;
        assert!(
            matches!(refused, Answered::Refused(Refusal::Rejected(Rejection::Claimed { .. }))),
            "{refused:?}"
        );
        crm.delivered.clear();
        crm.roster(&["bob"]).await;
        assert!(matches!(crm.ask(pick_up("bob")).await, Answered::PickedUp));
        let words = crm.words(2).await;
        assert!(words.ends_with(&["released true".to_owned(), "picked_up true".to_owned()]), "{words:?}");
        let open = Ask::Open {
            service: service("crm"),
            conversation,
            agent: "bob".parse().unwrap(),
            limit: 50,
            before: None,
        };
        let Answered::Conversation(timeline) = crm.ask(Request::Of(channel, open)).await else { panic!() };
        assert_eq!(timeline.entries.len(), 4);
        assert_eq!(timeline.customer.wa_id, Some("16505551234".parse().unwrap()));
        assert!(!timeline.more);
        drop((crm, gateway));
        broker.stop(WAIT).await.unwrap();
    });
}

async fn conversation_of(connection: &mut Connection, channel: ChannelId) -> ConversationId {
    let query = sharedline::domain::channel::ListQuery {
        service: connection.viewer.clone(),
        after: None,
        limit: 10,
        claimed: None,
        unanswered: None,
    };
    match connection.ask(Request::Of(channel, Ask::List(query))).await {
        Answered::Conversations { conversations, .. } => conversations[0].0.conversation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_number_whose_channel_was_closed_gets_a_new_one() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let broker = start(directory.path(), Plan::Bundle);
        let mut crm = Connection::service(&broker, "crm");
        let first = crm.create().await;
        let delete = Request::Standing {
            channel: first,
            change: sharedline::domain::command::StandingChange::Delete,
            backfill: false,
        };
        assert!(matches!(crm.ask(delete).await, Answered::Channel { .. }));
        let second = crm.create().await;
        assert_ne!(first, second);
        let mut gateway = Connection::gateway(&broker);
        gateway.inbound("wamid.1", "hello").await;
        drop((crm, gateway));
        broker.stop(WAIT).await.unwrap();
        let broker = start(directory.path(), Plan::Bundle);
        let mut crm = Connection::service(&broker, "crm");
        assert_eq!(crm.create().await, second);
        let closed = crm.ask(Request::Of(first, Ask::Get)).await;
        assert!(matches!(closed, Answered::Channel { .. }), "{closed:?}");
        drop(crm);
        broker.stop(WAIT).await.unwrap();
    });
}

#[test]
fn on_the_isolated_plan_every_service_has_its_own_channel() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let broker = start(directory.path(), Plan::Isolated);
        let mut crm = Connection::service(&broker, "crm");
        let mut desk = Connection::service(&broker, "desk");
        let mut gateway = Connection::gateway(&broker);
        let (ours, theirs) = (crm.create().await, desk.create().await);
        assert_ne!(ours, theirs);
        assert!(matches!(crm.ask(Request::Of(theirs, Ask::Get)).await, Answered::Refused(Refusal::NotFound)));
        let taken = gateway.inbound("wamid.1", "hello").await;
        assert!(matches!(taken, Answered::Taken { channels: 2, duplicate: false }), "{taken:?}");
        assert_eq!(crm.words(2).await.len(), 2);
        crm.reply(ours, "r").await;
        assert_eq!(desk.words(2).await.len(), 2);
        assert!(desk.delivered.is_empty());
        drop((crm, desk, gateway));
        broker.stop(WAIT).await.unwrap();
    });
}

#[test]
fn a_reply_of_just_now_leaves_without_a_look_at_the_journal() {
    run(async {
        let journal = Arc::new(MemoryJournal::new());
        let keys = sharedline::journal::Keys::random().unwrap();
        let broker =
            Broker::start_on(Arc::clone(&journal) as Arc<dyn Journal>, &keys, setup(Plan::Bundle)).unwrap();
        let mut crm = Connection::service(&broker, "crm");
        let mut gateway = Connection::gateway(&broker);
        let channel = crm.create().await;
        gateway.inbound("wamid.1", "hello").await;
        drop(gateway);
        let Answered::Accepted { conversation, offset: first, .. } = crm.reply(channel, "r1").await else {
            panic!()
        };
        let to = Addressee::Conversation(conversation);
        let Answered::Accepted { offset: second, .. } = crm.reply_to(channel, to, "r2").await else {
            panic!()
        };
        // Nothing of it can be read any more.
        let stream = StreamId::from(channel);
        journal.trim(stream, second.next());
        assert!(journal.read_one(stream, first).is_err());
        let mut gateway = Connection::gateway(&broker);
        for reply in [first, second] {
            while gateway.sends.is_empty() {
                gateway.take().await;
            }
            assert_eq!(gateway.sends.remove(0).0, reply);
            let outcome = Box::new(SendOutcome::Sent("wamid.r".parse().unwrap()));
            let told = gateway.ask(Request::Of(channel, Ask::Outcome { reply, outcome })).await;
            assert!(matches!(told, Answered::Ok));
        }
        broker.stop(WAIT).await.unwrap();
    });
}

#[test]
fn who_waits_for_a_replys_outcome_gets_it_and_so_does_who_asks_after_a_restart() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let broker = start(directory.path(), Plan::Bundle);
        let mut crm = Connection::service(&broker, "crm");
        let mut gateway = Connection::gateway(&broker);
        let channel = crm.create().await;
        gateway.inbound("wamid.1", "hello").await;
        let fate = |reply_id: &str, wait| Ask::Fate {
            service: service("crm"),
            reply_id: reply_id.parse().unwrap(),
            wait,
        };
        let caller = broker.caller(&"acme".parse().unwrap(), &service("crm")).unwrap();
        assert!(caller.has_gateway(&NUMBER.parse().unwrap()));
        let unknown = caller.ask(channel, fate("r1", true), 1).await;
        assert!(matches!(unknown, Answered::Refused(Refusal::NotFound)), "{unknown:?}");
        assert!(matches!(crm.reply(channel, "r1").await, Answered::Accepted { .. }));
        let waiting = tokio::spawn({
            let (caller, ask) = (caller.clone(), fate("r1", true));
            async move { caller.ask(channel, ask, 1).await }
        });
        while gateway.sends.is_empty() {
            gateway.take().await;
        }
        let Answered::Fate(open) = caller.ask(channel, fate("r1", false), 1).await else { panic!() };
        assert!(open.outcome.is_none() && !waiting.is_finished());
        let (reply, _) = gateway.sends.remove(0);
        // The second waits behind the first, and is taken back before it could leave.
        assert!(matches!(crm.reply(channel, "r2").await, Answered::Accepted { .. }));
        let why = Arc::from("too late");
        let withdraw = Ask::Withdraw { service: service("crm"), reply_id: "r2".parse().unwrap(), why };
        let Answered::Fate(withdrawn) = caller.ask(channel, withdraw, 1).await else { panic!() };
        assert!(withdrawn.is_behind);
        assert_eq!(&*withdrawn.outcome.unwrap().error.unwrap().code, "withdrawn");
        let outcome = SendOutcome::Sent("wamid.r1".parse().unwrap());
        assert!(matches!(
            gateway.ask(Request::Of(channel, Ask::Outcome { reply, outcome: Box::new(outcome) })).await,
            Answered::Ok
        ));
        let Answered::Fate(told) = waiting.await.unwrap() else { panic!() };
        let id_of = |fate: sharedline::actors::port::ReplyFate| fate.outcome.unwrap().message_id.unwrap();
        assert_eq!(id_of(*told).as_str(), "wamid.r1");
        assert!(gateway.sends.is_empty(), "what was taken back never left");
        let conversation = conversation_of(&mut crm, channel).await;
        let whom = Ask::Whom { service: service("crm"), conversation, reply: Some(reply) };
        let Answered::Whom(whom) = caller.ask(channel, whom, 1).await else { panic!() };
        assert_eq!(whom.customer.wa_id, Some("16505551234".parse().unwrap()));
        drop((crm, gateway, caller));
        broker.stop(WAIT).await.unwrap();
        let broker = start(directory.path(), Plan::Bundle);
        let caller = broker.caller(&"acme".parse().unwrap(), &service("crm")).unwrap();
        let Answered::Fate(again) = caller.ask(channel, fate("r1", true), 1).await else { panic!() };
        assert_eq!(id_of(*again).as_str(), "wamid.r1");
        let Answered::Fate(again) = caller.ask(channel, fate("r2", true), 1).await else { panic!() };
        assert_eq!(again.outcome.unwrap().error.unwrap().title.as_deref(), Some("too late"));
        drop(caller);
        broker.stop(WAIT).await.unwrap();
    });
}

#[test]
fn nothing_is_answered_before_it_is_durable_and_nothing_after_the_journal_has_failed() {
    run(async {
        let journal = Arc::new(MemoryJournal::new());
        let keys = sharedline::journal::Keys::random().unwrap();
        let broker =
            Broker::start_on(Arc::clone(&journal) as Arc<dyn Journal>, &keys, setup(Plan::Bundle)).unwrap();
        let mut crm = Connection::service(&broker, "crm");
        let mut gateway = Connection::gateway(&broker);
        let channel = crm.create().await;
        crm.words(1).await;
        journal.hold();
        let inbound = gateway.request("wamid.1", "held");
        gateway.connected.session.ask(vec![(77, inbound)], 100).await.unwrap();
        // A question that was decided after it, and needs no record of its own, waits behind it.
        gateway.connected.session.ask(vec![(78, gateway.request("wamid.1", "held"))], 100).await.unwrap();
        crm.connected.session.ask(vec![(79, Request::Of(channel, Ask::Get))], 100).await.unwrap();
        let silence = Duration::from_millis(100);
        assert!(tokio::time::timeout(silence, gateway.take()).await.is_err(), "nothing is acknowledged");
        assert!(tokio::time::timeout(silence, crm.take()).await.is_err(), "nothing is delivered or told");
        journal.release();
        while gateway.answers.len() < 2 {
            gateway.take().await;
        }
        assert!(matches!(gateway.answers[0], (77, Answered::Taken { channels: 1, duplicate: false })));
        assert!(matches!(gateway.answers[1], (78, Answered::Taken { channels: 1, duplicate: true })));
        assert_eq!(crm.words(1).await.len(), 1);

        journal.hold();
        gateway.connected.session.ask(vec![(80, gateway.request("wamid.2", "lost"))], 100).await.unwrap();
        assert!(tokio::time::timeout(silence, gateway.take()).await.is_err());
        journal.fail();
        tokio::time::timeout(WAIT, broker.halted()).await.expect("the broker says that it has halted");
        gateway.answers.clear();
        gateway.take().await;
        assert!(
            matches!(gateway.answers[0], (80, Answered::Refused(Refusal::Unavailable))),
            "{:?}",
            gateway.answers
        );
        let later = gateway.inbound("wamid.3", "later").await;
        assert!(matches!(later, Answered::Refused(Refusal::Unavailable)), "{later:?}");
        assert!(tokio::time::timeout(silence, crm.words(1)).await.is_err(), "and nothing is delivered");
        drop((crm, gateway));
        assert!(broker.stop(WAIT).await.is_err());
    });
}
