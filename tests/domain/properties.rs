//! Any sequence of commands: the domain answers as the naive model does; a replay equals what lived, and what is
//! replayed goes on in its place; one holder at most where the rule is exclusive; the parent is whom the model says;
//! no masked view holds a byte of the content; offsets have no holes.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use sharedline::domain::command::{Answer, Command, Rejection, StandingChange, ThreadAsked, ThreadSeen};
use sharedline::domain::event::{Agent, Event, RosterChange};
use sharedline::domain::ids::{ConversationId, Offset, Timestamp};
use sharedline::domain::portal::PickUpRule;
use sharedline::domain::view::View;

use crate::model::{Do, MINUTE, Model, TTL};
use crate::stage::{Stage, agent, name, rules, service, text};

const SERVICES: [&str; 3] = ["s0", "s1", "s2"];
const AGENTS: [&str; 3] = ["a0", "a1", "a2"];
const CUSTOMERS: [&str; 4] = ["490", "491", "492", "493"];
/// After so many commands the broker restarts.
const RESTART_EVERY: usize = 20;
const CANARY: &str = "cAnArY";

/// The domain, driven by the model's plain commands.
struct Driven {
    stage: Stage,
    /// The conversation that each customer first had: perhaps a younger one's id by now.
    ids: BTreeMap<usize, ConversationId>,
    tokens: BTreeMap<(usize, usize), Arc<str>>,
}

impl Driven {
    fn new() -> Self {
        let mut all = SERVICES.map(rules).to_vec();
        all[0].claim_ttl_ms = Some(TTL);
        all[1].pick_up = PickUpRule::Takeover;
        all[2].pick_up = PickUpRule::Open;
        let mut stage = Stage::empty(all);
        SERVICES.iter().for_each(|of| stage.roster(of, &AGENTS));
        stage.replays = false;
        Self { stage, ids: BTreeMap::new(), tokens: BTreeMap::new() }
    }

    fn conversation(&self, customer: usize) -> ConversationId {
        self.ids.get(&customer).copied().unwrap_or(ConversationId(1))
    }

    fn tell(&mut self, what: &Do) -> Result<&'static str, &'static str> {
        let command = match *what {
            Do::Standing(of, change) => {
                let change = match change {
                    "create" => StandingChange::Create,
                    "activate" => StandingChange::Activate,
                    "deactivate" => StandingChange::Deactivate,
                    _ => StandingChange::Delete,
                };
                return told(self.stage.standing(SERVICES[of], change));
            }
            Do::Write(customer) => return self.write(customer, None),
            Do::WriteAs(customer, formerly) => return self.write(customer, Some(formerly)),
            Do::PickUp { service: of, agent: who, customer, confirm } => {
                let confirm = self.tokens.get(&(who, customer)).filter(|_| confirm).cloned();
                let conversation = self.conversation(customer);
                let command = Command::PickUp {
                    service: service(SERVICES[of]),
                    conversation,
                    agent: agent(AGENTS[who]),
                    confirm,
                };
                let answer = self.stage.tell(command);
                if let Ok(Answer::Warned(warned)) = &answer {
                    self.tokens.insert((who, customer), Arc::clone(&warned.confirm));
                }
                return told(answer);
            }
            Do::Release { service: of, agent: who, customer } => Command::Release(Stage::claim(
                SERVICES[of],
                Some(AGENTS[who]),
                None,
                self.conversation(customer),
            )),
            Do::Transfer { service: of, agent: who, to, customer } => Command::Transfer {
                claim: Stage::claim(SERVICES[of], Some(AGENTS[who]), None, self.conversation(customer)),
                to: agent(AGENTS[to]),
            },
            Do::Reply { service: of, agent: who, customer, id } => {
                let who = who.map(|who| AGENTS[who]);
                let mut reply =
                    Stage::reply_of(SERVICES[of], who, self.conversation(customer), &format!("r{id}"));
                reply.content = text(&format!("{CANARY}{id}"));
                Command::Reply(reply)
            }
            Do::Roster { service: of, agent: who, there } => return self.roster(of, who, there),
            Do::Take { service: of, customer, words } => {
                return self.thread(of, customer, ThreadAsked::Take { metadata: metadata(words) });
            }
            Do::PassOn { service: of, to, customer, words } => {
                let asked = ThreadAsked::Pass { to: service(SERVICES[to]), metadata: metadata(words) };
                return self.thread(of, customer, asked);
            }
            Do::GiveUp { service: of, customer } => return self.thread(of, customer, ThreadAsked::Release),
            Do::Pass(ms) => {
                self.stage.pass(ms);
                return Ok("done");
            }
            Do::Tick => Command::Tick,
        };
        told(self.stage.tell(command))
    }

    fn thread(
        &mut self,
        of: usize,
        customer: usize,
        asked: ThreadAsked,
    ) -> Result<&'static str, &'static str> {
        let conversation = self.conversation(customer);
        told(self.stage.thread(SERVICES[of], conversation, asked))
    }

    fn write(&mut self, customer: usize, formerly: Option<usize>) -> Result<&'static str, &'static str> {
        let mut inbound = self.stage.inbound_of(CUSTOMERS[customer], "hello");
        inbound.message.formerly = formerly.iter().map(|name_of| name(CUSTOMERS[*name_of])).collect();
        let answer = self.stage.receive(inbound);
        if let Ok(Answer::Message { offset, .. }) = &answer {
            let conversation = self.stage.record(*offset).conversation.unwrap();
            for known in [Some(customer), formerly].into_iter().flatten() {
                self.ids.entry(known).or_insert(conversation);
            }
        }
        told(answer)
    }

    fn roster(&mut self, of: usize, who: usize, there: bool) -> Result<&'static str, &'static str> {
        let change = RosterChange {
            service: service(SERVICES[of]),
            agents: there
                .then(|| Agent { agent: agent(AGENTS[who]), name: AGENTS[who].into(), lead: false })
                .into_iter()
                .collect(),
            replace: false,
            remove: if there { vec![] } else { vec![agent(AGENTS[who])] },
        };
        let event = self.stage.portal.decide_roster(&change).unwrap();
        self.stage.portal.apply(&event);
        let answer = self.stage.tell(Command::RosterChanged { service: service(SERVICES[of]) });
        self.stage.settle();
        told(answer)
    }
}

/// What is handed on, with a canary in it.
fn metadata(words: Option<usize>) -> Option<Arc<str>> {
    words.map(|words| format!("{CANARY}{words}").into())
}

/// An answer in the model's words.
fn told(answer: Result<Answer, Rejection>) -> Result<&'static str, &'static str> {
    Ok(match answer {
        Ok(Answer::Done) => "done",
        Ok(Answer::Standing { created: true, .. }) => "created",
        Ok(Answer::Standing { joined: true, .. }) => "joined",
        Ok(Answer::Standing { changed: true, .. }) => "changed",
        Ok(Answer::Standing { .. }) => "unchanged",
        Ok(Answer::Message { .. }) => "taken",
        Ok(Answer::NotTaken) => "not_taken",
        Ok(Answer::PickedUp) => "picked_up",
        Ok(Answer::Warned(_)) => "warned",
        Ok(Answer::Thread { thread: ThreadSeen::Nobody, .. }) => "none",
        Ok(Answer::Thread { thread: ThreadSeen::Another, .. }) => "another",
        Ok(Answer::Thread { thread: ThreadSeen::Own { .. }, .. }) => "self",
        Ok(Answer::Accepted { duplicate: false, .. }) => "accepted",
        Ok(Answer::Accepted { duplicate: true, .. }) => "duplicate",
        Err(Rejection::NotFound) => return Err("not_found"),
        Err(Rejection::ChannelClosed) => return Err("channel_closed"),
        Err(Rejection::NotSubscribed) => return Err("not_subscribed"),
        Err(Rejection::UnknownAgent) => return Err("unknown_agent"),
        Err(Rejection::WindowClosed) => return Err("window_closed"),
        Err(Rejection::Claimed { .. }) => return Err("claimed"),
        Err(Rejection::NotClaimed) => return Err("not_claimed"),
        Err(Rejection::Conflict) => return Err("conflict"),
        other => panic!("an answer that the model does not know: {other:?}"),
    })
}

fn doing() -> impl Strategy<Value = Do> {
    let (service, agent, customer) = (0..3_usize, 0..3_usize, 0..4_usize);
    let words = || proptest::option::of(0..2_usize);
    let change = prop_oneof![
        4 => Just("create"), 3 => Just("activate"), 2 => Just("deactivate"), 1 => Just("delete")
    ];
    prop_oneof![
        3 => (service.clone(), change).prop_map(|(service, change)| Do::Standing(service, change)),
        5 => customer.clone().prop_map(Do::Write),
        2 => (customer.clone(), customer.clone()).prop_map(|(customer, was)| Do::WriteAs(customer, was)),
        9 => (service.clone(), agent.clone(), customer.clone(), any::<bool>())
            .prop_map(|(service, agent, customer, confirm)| Do::PickUp { service, agent, customer, confirm }),
        2 => (service.clone(), agent.clone(), customer.clone())
            .prop_map(|(service, agent, customer)| Do::Release { service, agent, customer }),
        2 => (service.clone(), agent.clone(), agent.clone(), customer.clone())
            .prop_map(|(service, agent, to, customer)| Do::Transfer { service, agent, to, customer }),
        5 => (service.clone(), proptest::option::of(agent.clone()), customer.clone(), 0..6_usize)
            .prop_map(|(service, agent, customer, id)| Do::Reply { service, agent, customer, id }),
        1 => (service.clone(), agent, any::<bool>())
            .prop_map(|(service, agent, there)| Do::Roster { service, agent, there }),
        3 => (service.clone(), customer.clone(), words())
            .prop_map(|(service, customer, words)| Do::Take { service, customer, words }),
        3 => (service.clone(), service.clone(), customer.clone(), words())
            .prop_map(|(service, to, customer, words)| Do::PassOn { service, to, customer, words }),
        1 => (service.clone(), customer.clone())
            .prop_map(|(service, customer)| Do::GiveUp { service, customer }),
        2 => prop_oneof![Just(MINUTE), Just(3 * MINUTE), Just(29 * MINUTE), Just(30 * MINUTE), Just(23 * 60 * MINUTE)]
            .prop_map(Do::Pass),
        1 => Just(Do::Tick),
    ]
}

fn check(model: &mut Model, driven: &Driven) -> Result<(), TestCaseError> {
    let stage = &driven.stage;
    let list: Vec<&str> = model.list.iter().map(|of| SERVICES[*of]).collect();
    let seen: Vec<&str> = stage.channel.subscribers().iter().map(|of| of.as_str()).collect();
    prop_assert_eq!(seen, list);
    prop_assert_eq!(stage.channel.parent().map(|of| of.as_str()), model.parent.map(|of| SERVICES[of]));
    for (customer, first) in &driven.ids {
        let Some(now) = stage.channel.conversation(*first, Timestamp(stage.now)) else {
            return Err(TestCaseError::fail("a conversation is lost"));
        };
        for (of, id) in SERVICES.iter().enumerate() {
            let held: Vec<&str> = model.holders(of, *customer).into_iter().map(|who| AGENTS[who]).collect();
            prop_assert!(of != 0 || held.len() <= 1, "one holder at most where the rule is exclusive");
            prop_assert_eq!(stage.holders(id, now.conversation), held);
        }
        let note = model.note(*customer);
        for (of, id) in SERVICES.iter().enumerate().filter(|(of, _)| model.list.contains(of)) {
            let expected = match note {
                None => ThreadSeen::Nobody,
                Some((note, until)) if note.owner == of => ThreadSeen::Own {
                    since: Timestamp(note.since),
                    until: Timestamp(until),
                    metadata: metadata(note.words),
                },
                Some(_) => ThreadSeen::Another,
            };
            prop_assert!(stage.thread_seen(id, *first) == expected, "{} of {}: {:?}", id, customer, note);
        }
    }
    Ok(())
}

fn check_records(stage: &Stage) -> Result<(), TestCaseError> {
    for (at, record) in stage.records.iter().enumerate() {
        prop_assert_eq!(record.offset, Offset(at as u64 + 1), "offsets have no holes");
        for of in SERVICES {
            if let Some(View::MaskedReply { service, kind, content }) = stage.sees(of, record) {
                let shown = format!("{service:?}{kind:?}{:?}", content.map(|content| content.expose()));
                prop_assert!(!shown.contains(CANARY));
            }
            if let (Event::Thread(change), Some(View::Thread(seen))) = (&record.event, stage.sees(of, record))
            {
                let is_owner = change.owner == Some(service(of));
                prop_assert_eq!(seen.metadata.is_some(), is_owner && change.metadata.is_some());
                prop_assert_eq!(seen.until.is_some(), is_owner);
            }
        }
    }
    prop_assert_eq!(stage.channel.head(), Offset(stage.records.len() as u64));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_commands_comes_out_as_the_naive_model_says(
        commands in proptest::collection::vec(doing(), 1..120)
    ) {
        let mut driven = Driven::new();
        let mut model = Model::default();
        model.now = driven.stage.now;
        model.rosters = (0..3).flat_map(|of| (0..3).map(move |who| (of, who))).collect();
        // Most sequences are about a channel that is there.
        for of in 0..2 {
            let create = Do::Standing(of, "create");
            prop_assert_eq!(driven.tell(&create), model.tell(&create));
        }
        for (at, command) in commands.iter().enumerate() {
            let expected = model.tell(command);
            prop_assert_eq!(driven.tell(command), expected, "at {} of {:?}", at, &commands[..=at]);
            check(&mut model, &driven)?;
            if at % RESTART_EVERY == RESTART_EVERY - 1 {
                let replayed = driven.stage.replayed();
                prop_assert_eq!(&replayed, &driven.stage.channel, "a replay differs from what lived");
                driven.stage.channel = replayed;
            }
        }
        prop_assert_eq!(&driven.stage.replayed(), &driven.stage.channel);
        check_records(&driven.stage)?;
    }
}
