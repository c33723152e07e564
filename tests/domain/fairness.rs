//! B14, played in simulated time: the outbox and a number's budget as a channel's actor uses them, a WhatsApp that takes
//! its time, and services that send in very different ways. The same seed gives the same run.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sharedline::domain::channel::{Draft, Keys};
use sharedline::domain::command::SendOutcome;
use sharedline::domain::event::{Customer, Event, Record, Reply, Settings};
use sharedline::domain::ids::{
    AgentId, ChannelId, ConversationId, MessageId, Offset, ReplyId, ServiceId, Timestamp,
};
use sharedline::domain::outbox::Outbox;
use sharedline::domain::outbox::budget::{Asking, Budget, PAIR_BURST, PAIR_EVERY_MS, Say};
use sharedline::wire::content::check_reply;

const START: Timestamp = Timestamp(1_700_000_000_000);
const HERE: ChannelId = ChannelId(1);
const TEMPLATE: &str = r#"{"type":"template","template":{"name":"sale"}}"#;
const TEXT: &str = r#"{"type":"text","text":{"body":"Hi"}}"#;

/// A generator of its own, so that a run can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

struct World {
    outbox: Outbox,
    budget: Budget,
    now: Timestamp,
    dice: Dice,
    last: Offset,
    /// What is to come: at which time an outcome of which reply.
    outcomes: BTreeSet<(Timestamp, Offset)>,
    accepted: BTreeMap<Offset, (Timestamp, ConversationId)>,
    /// In the order of leaving.
    left: Vec<(Timestamp, Offset)>,
}

impl World {
    fn new(per_second: u32, seed: u64) -> Self {
        let keys = Keys { fingerprint: [1; 16], confirm: [2; 16], digest: [3; 16] };
        Self {
            outbox: Outbox::new(&keys, 24 * 3_600_000),
            budget: Budget::of_number(usize::MAX, per_second),
            now: START,
            dice: Dice(seed),
            last: Offset::ZERO,
            outcomes: BTreeSet::new(),
            accepted: BTreeMap::new(),
            left: Vec::new(),
        }
    }

    fn record(&mut self, draft: Draft) -> Offset {
        self.last = self.last.next();
        let record =
            Record { offset: self.last, at: self.now, conversation: draft.conversation, event: draft.event };
        self.outbox.apply(&record);
        self.last
    }

    fn reply(&mut self, service: &str, agent: Option<&str>, customer: u64, content: &'static str) -> Offset {
        let content = check_reply(&Bytes::from_static(content.as_bytes())).unwrap().content;
        let reply = Reply {
            service: ServiceId::trusted(service),
            agent: agent.map(AgentId::trusted),
            reply_id: ReplyId::trusted(&format!("r-{}", self.last)),
            digest: 0,
            content,
            callback_data: None,
            to: Customer::default(),
            reveal: Settings::default(),
            echo_of: None,
            sent_at: None,
        };
        let conversation = ConversationId(customer);
        let offset = self.record(Draft::new(Some(conversation), Event::from(reply)));
        self.accepted.insert(offset, (self.now, conversation));
        offset
    }

    /// Hands over what may be; says when to come again.
    fn pump(&mut self) -> Option<Timestamp> {
        self.outbox.forget(self.now);
        loop {
            let mut rested = false;
            for reply in self.outbox.next_to_hand(16) {
                let now = self.outbox.reply(reply).unwrap();
                let (conversation, weight) = (now.conversation, self.outbox.weight(now.service));
                match self.budget.ask(&Asking { channel: HERE, conversation, weight }, self.now) {
                    Say::Go => {
                        let draft = self.outbox.hand(reply, self.now).unwrap();
                        self.record(draft);
                        self.left.push((self.now, reply));
                        let takes = 40 + self.dice.roll(400);
                        self.outcomes.insert((self.now.plus_ms(takes), reply));
                    }
                    Say::Pair(until) => {
                        self.outbox.rest(reply, until);
                        rested = true;
                    }
                    Say::Number(until) => return Some(until),
                    Say::Full => unreachable!("there are places for all"),
                }
            }
            if !rested {
                return None;
            }
        }
    }

    /// Until then; whatever happens meanwhile happens in its time.
    fn run_until(&mut self, end: Timestamp) {
        loop {
            let again = self.pump();
            let outcome = self.outcomes.first().map(|(at, _)| *at);
            let next = [again, outcome, self.outbox.next_deadline()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            while let Some((_, reply)) = self.outcomes.first().copied().filter(|(at, _)| *at <= self.now) {
                self.outcomes.pop_first();
                let mut drafts = Vec::new();
                let sent = SendOutcome::Sent(MessageId::trusted(&format!("wamid.{reply}")));
                self.outbox.outcome(reply, &sent, self.now, &mut drafts);
                for draft in drafts {
                    self.record(draft);
                }
            }
        }
        self.now = end;
    }

    fn waited_ms(&self, reply: Offset) -> u64 {
        let (at, _) = self.left.iter().find(|(_, left)| *left == reply).unwrap();
        at.since_ms(self.accepted[&reply].0)
    }
}

#[test]
fn a_campaign_delays_another_services_agent_by_a_few_messages_and_not_by_the_campaign() {
    for seed in 0..5 {
        let mut world = World::new(80, seed);
        for customer in 0..5_000 {
            world.reply("crm", None, customer, TEMPLATE);
        }
        let mut agents = Vec::new();
        let mut own = Vec::new();
        for n in 0..200 {
            let pause = 20 + world.dice.roll(400);
            world.run_until(world.now.plus_ms(pause));
            agents.push(world.reply("desk", Some("ann"), 10_000 + n, TEXT));
            if n % 3 == 0 {
                world.reply("salesiq", None, 20_000 + n, TEXT);
                own.push(world.reply("crm", Some("bob"), 30_000 + n, TEXT));
            }
        }
        assert!(world.outbox.waiting_len() > 500, "the campaign is still under way");
        world.run_until(world.now.plus_ms(5_000));
        // Three services and one message in 12.5 ms: two others' turns and its own, and a burst that was borrowed.
        let slowest = agents.iter().map(|reply| world.waited_ms(*reply)).max().unwrap();
        assert!(slowest <= 100, "an agent waited for {slowest} ms");
        let slowest = own.iter().map(|reply| world.waited_ms(*reply)).max().unwrap();
        assert!(slowest <= 100, "the campaign's own agent waited for {slowest} ms");
        world.run_until(world.now.plus_ms(120_000));
        assert_eq!(world.outbox.waiting_len() + world.outbox.handed_len(), 0);
        let (first, last) = (world.left[0].0, world.left.last().unwrap().0);
        let rate = world.left.len() as u64 * 1_000 / last.since_ms(first);
        assert!((76..=81).contains(&rate), "nothing of the rate is wasted: {rate} a second");
    }
}

#[test]
fn a_customer_who_may_not_be_sent_more_holds_up_nobody_and_gets_his_in_order() {
    let mut world = World::new(80, 7);
    for _ in 0..60 {
        world.reply("crm", None, 1, TEXT);
    }
    // More who may not be sent anything than are looked at in one go.
    for customer in 100..400 {
        for _ in 0..3 {
            world.reply("crm", None, customer, TEXT);
        }
    }
    world.run_until(START.plus_ms(30_000));
    let others = world.left.iter().filter(|(_, reply)| world.accepted[reply].1 != ConversationId(1)).count();
    assert_eq!(others, 900, "all of them");
    world.run_until(START.plus_ms(200_000));
    let his: Vec<_> =
        world.left.iter().filter(|(_, reply)| world.accepted[reply].1 == ConversationId(1)).collect();
    assert_eq!(his.len(), 60);
    assert!(his.is_sorted_by_key(|(_, reply)| *reply), "in order");
    for (n, (at, _)) in his.iter().enumerate().skip(PAIR_BURST as usize) {
        let least = (n as u64 + 1 - PAIR_BURST) * PAIR_EVERY_MS;
        assert!(at.since_ms(START) >= least, "message {n} left after {} ms", at.since_ms(START));
    }
}

/// How many of a service's replies left between two times.
fn left_of(world: &World, service: &str, from: Timestamp, to: Timestamp) -> u64 {
    let is_its = |reply: &Offset| world.outbox.reply(*reply).unwrap().service.as_str() == service;
    let left = world.left.iter().filter(|(at, reply)| (from..to).contains(at) && is_its(reply));
    left.count() as u64
}

#[test]
fn shares_follow_the_weights_an_idle_services_share_is_the_others_and_agents_go_first_all_the_same() {
    let mut world = World::new(80, 3);
    let weights = [("crm", 1), ("desk", 3), ("salesiq", 4)];
    world.outbox.set_weights(weights.map(|(service, weight)| (ServiceId::trusted(service), weight)).into());
    // Each has more to send than will leave, and SalesIQ comes later.
    for n in 0..3_000 {
        world.reply("crm", None, n, TEMPLATE);
        world.reply("desk", None, 10_000 + n, TEMPLATE);
    }
    world.run_until(START.plus_ms(20_000));
    for n in 0..3_000 {
        world.reply("salesiq", None, 20_000 + n, TEMPLATE);
    }
    let (both, all) = (START.plus_ms(20_000), START.plus_ms(40_000));
    world.run_until(all);
    let near = |found: u64, due: u64| assert!(found.abs_diff(due) <= 20, "{found} left, {due} were due");
    near(left_of(&world, "crm", START, both), 400);
    near(left_of(&world, "desk", START, both), 1_200);
    // Of eight parts one, three and four; and nothing is made up for the time before it came.
    near(left_of(&world, "crm", both, all), 200);
    near(left_of(&world, "desk", both, all), 600);
    near(left_of(&world, "salesiq", both, all), 800);
    // The lightest service's agent waits for the others' turns, not for anybody's campaign.
    let agents: Vec<Offset> = (0..50)
        .map(|n| {
            world.run_until(world.now.plus_ms(150));
            world.reply("crm", Some("bob"), 30_000 + n, TEXT)
        })
        .collect();
    world.run_until(world.now.plus_ms(1_000));
    let slowest = agents.iter().map(|reply| world.waited_ms(*reply)).max().unwrap();
    assert!(slowest <= 250, "an agent of the lightest service waited for {slowest} ms");
    // Without campaigns all of the rate is the last one's.
    world.run_until(START.plus_ms(200_000));
    assert_eq!(world.outbox.waiting_len() + world.outbox.handed_len(), 0);
    let (first, last) = (world.left[0].0, world.left.last().unwrap().0);
    let rate = world.left.len() as u64 * 1_000 / last.since_ms(first);
    assert!((78..=81).contains(&rate), "nothing of the rate is wasted: {rate} a second");
}
