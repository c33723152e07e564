//! Any sequence of steps against a naive reading of the outbox's own records ([`Model`]), which shares no code with it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What somebody does with the outbox; numbers pick among what is there.
#[derive(Debug, Clone)]
enum Step {
    Reply { service: u8, conversation: u64, agent: bool, template: bool },
    Echo { conversation: u64 },
    Hand { limit: usize },
    Outcome { pick: usize, outcome: u8 },
    Status { pick: usize, by_message: bool, status: u8 },
    PutBack { pick: usize },
    Rest { pick: usize, seconds: u64 },
    Wait { seconds: u64 },
    Lose { max: usize },
    FailUnsent { max: usize },
    Merge { from: u64, into: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3_u8, 1..5_u64, any::<bool>(), any::<bool>()).prop_map(
            |(service, conversation, agent, template)| Step::Reply { service, conversation, agent, template }
        ),
        1 => (1..5_u64).prop_map(|conversation| Step::Echo { conversation }),
        5 => (1..4_usize).prop_map(|limit| Step::Hand { limit }),
        5 => (0..40_usize, 0..5_u8).prop_map(|(pick, outcome)| Step::Outcome { pick, outcome }),
        1 => (0..40_usize, 1..60_u64).prop_map(|(pick, seconds)| Step::Rest { pick, seconds }),
        8 => (0..40_usize, any::<bool>(), 0..7_u8)
            .prop_map(|(pick, by_message, status)| Step::Status { pick, by_message, status }),
        1 => (0..40_usize).prop_map(|pick| Step::PutBack { pick }),
        2 => prop_oneof![1..50_u64, 50..70_u64, 3_590..3_610_u64].prop_map(|seconds| Step::Wait { seconds }),
        1 => (1..3_usize).prop_map(|max| Step::Lose { max }),
        1 => (1..3_usize).prop_map(|max| Step::FailUnsent { max }),
        1 => (1..5_u64, 1..5_u64).prop_map(|(from, into)| Step::Merge { from, into }),
    ];
    prop::collection::vec(step, 0..120)
}

impl World {
    /// One of the replies that there have been.
    fn pick(&self, pick: usize) -> Option<Offset> {
        let replies: Vec<Offset> = (self.records.iter())
            .filter(|record| matches!(record.event, Event::Reply(_)))
            .map(|record| record.offset)
            .collect();
        (!replies.is_empty()).then(|| replies[pick % replies.len()])
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Reply { service, conversation, agent, template } => {
                let kind = if template { "template" } else { "text" };
                let by = ["crm", "desk", "salesiq"][service as usize];
                self.reply_with(by, conversation, agent.then_some("ann"), content(kind));
            }
            Step::Echo { conversation } => self.echo(conversation),
            Step::Hand { limit } => {
                for reply in self.outbox.next_to_hand(limit) {
                    // Only what has expired meanwhile is refused.
                    assert!(self.hand(reply) || self.tick().contains(&(reply, Status::Failed)));
                }
            }
            Step::Outcome { pick, outcome } => {
                let Some(reply) = self.pick(pick) else { return };
                let outcome = match outcome {
                    0 => SendOutcome::Unknown,
                    1 => SendOutcome::Failed(failure("131026")),
                    2 => SendOutcome::Again(failure("131056")),
                    _ => SendOutcome::Sent(message_of(reply)),
                };
                self.outcome(reply, &outcome);
            }
            Step::Status { pick, by_message, status } => {
                let Some(reply) = self.pick(pick) else { return };
                let of =
                    if by_message { StatusOf::Message(message_of(reply)) } else { StatusOf::Reply(reply) };
                self.status(of, STATUSES[status as usize]);
            }
            Step::PutBack { pick } => {
                if let Some(reply) = self.pick(pick) {
                    self.outbox.put_back(reply);
                }
            }
            Step::Rest { pick, seconds } => {
                if let Some(reply) = self.pick(pick) {
                    self.outbox.rest(reply, self.now.plus_ms(seconds * 1_000));
                }
            }
            Step::Wait { seconds } => {
                self.now = self.now.plus_ms(seconds * 1_000);
                self.tick();
                assert!(self.outbox.next_deadline().is_none_or(|due| due > self.now));
            }
            Step::Lose { max } => {
                let mut out = Vec::new();
                self.outbox.lose_handed(max, self.now, &mut out);
                self.record_all(out);
            }
            Step::FailUnsent { max } => {
                let mut out = Vec::new();
                self.outbox.fail_unsent(max, self.now, &mut out);
                self.record_all(out);
            }
            Step::Merge { from, into } => {
                let event = Event::Merged(Merged { from: ConversationId(from) });
                self.record(Draft::new(Some(ConversationId(into)), event));
            }
        }
    }

    fn echo(&mut self, conversation: u64) {
        let at = self.next_offset();
        let message = message_of(at);
        let id = ReplyId::trusted(&format!("echo:{}", message.as_str()));
        let mut out = Vec::new();
        let home = ConversationId(conversation);
        self.outbox.take_up_echo(at, &service("crm"), &id, home, &message, self.now, &mut out);
        self.named_reply("crm", &id, conversation, None, content("text"), Some(message));
        self.record_all(out);
    }
}

const STATUSES: [Status; 7] = [
    Status::Accepted,
    Status::Unknown,
    Status::Sent,
    Status::Delivered,
    Status::Read,
    Status::Played,
    Status::Failed,
];

/// A naive reading of the records: what each reply has come to, and whether every record was allowed.
#[derive(Default)]
struct Model {
    replies: BTreeMap<Offset, Seen>,
    merged: Vec<(u64, u64)>,
}

struct Seen {
    conversation: u64,
    status: Status,
    /// Handed, without outcome, and not put back.
    is_handed: bool,
    /// Handed at any time.
    was_handed: bool,
    /// Its message's id is known.
    named: bool,
    /// Was in a conversation that became part of another: two may be handed then.
    joined: bool,
}

impl Model {
    fn home(&self, conversation: u64) -> u64 {
        self.merged.iter().fold(conversation, |at, (from, into)| if at == *from { *into } else { at })
    }

    fn read(&mut self, record: &Record) {
        match &record.event {
            Event::Reply(reply) => {
                let sent = reply.echo_of.is_some();
                let seen = Seen {
                    conversation: self.home(record.conversation.unwrap().0),
                    status: if sent { Status::Sent } else { Status::Accepted },
                    is_handed: false,
                    was_handed: sent,
                    named: sent,
                    joined: false,
                };
                self.replies.insert(record.offset, seen);
            }
            Event::Handed(handed) => self.read_handed(handed.reply),
            Event::Receipt(receipt) => self.read_receipt(receipt, record.conversation),
            Event::Merged(merged) => {
                let (from, into) = (self.home(merged.from.0), self.home(record.conversation.unwrap().0));
                if from != into {
                    self.merged.push((from, into));
                }
                for seen in self.replies.values_mut() {
                    if from != into && seen.conversation == from {
                        seen.conversation = into;
                        seen.joined = true;
                    }
                }
            }
            _ => {}
        }
    }

    fn read_handed(&mut self, reply: Offset) {
        let home = self.replies[&reply].conversation;
        for (other, seen) in &self.replies {
            if seen.conversation == home && seen.status == Status::Accepted && *other != reply {
                assert!(!seen.is_handed, "two at a time");
                assert!(*other > reply, "out of order");
            }
        }
        let seen = self.replies.get_mut(&reply).unwrap();
        assert!(seen.status == Status::Accepted && !seen.is_handed);
        (seen.is_handed, seen.was_handed) = (true, true);
    }

    fn read_receipt(&mut self, receipt: &Receipt, conversation: Option<ConversationId>) {
        let seen = self.replies.get_mut(&receipt.reply).unwrap();
        assert_eq!(conversation, Some(ConversationId(seen.conversation)));
        if receipt.status == Status::Accepted {
            assert!(seen.is_handed && receipt.error.is_some(), "an attempt that was refused");
            seen.is_handed = false;
            return;
        }
        let rank = |status| STATUSES.iter().position(|other| *other == status);
        let forwards = match (seen.status, receipt.status) {
            (Status::Failed, _) => false,
            (Status::Accepted | Status::Unknown | Status::Sent, Status::Failed) => true,
            (_, Status::Failed) => false,
            (from, to) => rank(to) > rank(from),
        };
        let names = receipt.status == seen.status && !seen.named && receipt.message_id.is_some();
        assert!(forwards || names, "{:?} became {:?}", seen.status, receipt.status);
        assert!(seen.was_handed || receipt.status == Status::Failed, "nobody can have sent it");
        assert!(receipt.status != Status::Unknown || seen.is_handed, "its attempt was refused");
        assert_eq!(receipt.error.is_some(), receipt.status == Status::Failed);
        seen.status = receipt.status;
        seen.is_handed = false;
        seen.named |= receipt.message_id.is_some();
    }
}

proptest! {
    #[test]
    fn any_sequence_keeps_every_rule_and_loses_nothing(steps in steps()) {
        let mut world = World::new();
        let mut model = Model::default();
        let mut read = 0;
        for step in &steps {
            world.step(step);
            for record in &world.records[read..] {
                model.read(record);
            }
            read = world.records.len();
            if let Step::PutBack { pick } = step
                && let Some(reply) = world.pick(*pick)
            {
                model.replies.get_mut(&reply).unwrap().is_handed = false;
            }
            let open = model.replies.values().filter(|seen| seen.status == Status::Accepted).count();
            prop_assert_eq!(world.outbox.waiting_len() + world.outbox.handed_len(), open);
            let mut handed = BTreeMap::new();
            for (offset, seen) in &model.replies {
                let now = world.outbox.reply(*offset).unwrap();
                prop_assert_eq!((now.status, now.conversation.0), (seen.status, seen.conversation));
                prop_assert_eq!(world.outbox.reply_of(&message_of(*offset)), seen.named.then_some(*offset));
                if seen.is_handed && !seen.joined {
                    prop_assert_eq!(handed.insert(seen.conversation, *offset), None, "two at a time");
                }
            }
        }
        // Nothing is stuck: with a gateway that answers, every reply comes to an outcome once all have rested.
        world.outbox.forget(world.now.plus_ms(60_000));
        // What went back after its time ends first.
        world.tick();
        for _ in 0..=world.records.len() {
            for reply in world.outbox.unresolved_handed().collect::<Vec<_>>() {
                world.sent(reply);
            }
            for reply in world.outbox.next_to_hand(usize::MAX) {
                prop_assert!(world.hand(reply));
            }
        }
        prop_assert_eq!(world.outbox.waiting_len() + world.outbox.handed_len(), 0);
    }

    #[test]
    fn a_replay_equals_the_life(steps in steps(), cut in 0..200_u64) {
        let mut world = World::new();
        let mut after_crash = empty();
        for step in steps.iter().filter(|step| !matches!(step, Step::PutBack { .. } | Step::Rest { .. })) {
            world.step(step);
        }
        world.outbox.forget(world.now);
        for record in &world.records {
            after_crash.apply(record);
            if record.offset.0 == cut {
                // A restart in between: what is folded may be asked to forget at any time.
                after_crash.forget(record.at);
            }
        }
        after_crash.forget(world.now);
        prop_assert!(world.outbox == after_crash);
        prop_assert_eq!(world.outbox.next_to_hand(99), after_crash.next_to_hand(99));
    }

    #[test]
    fn no_service_starves_another(
        visits in prop::collection::vec(0..6_usize, 60),
        outcomes in prop::collection::vec(any::<bool>(), 60),
    ) {
        let mut world = World::new();
        let mut conversation = 0;
        // Four services that always have something to send, agents' and bots' in different shares.
        for (at, by) in ["a", "b", "c", "d"].into_iter().enumerate() {
            for n in 0..60 {
                conversation += 1;
                let agent = (n % (at + 1) == 0).then_some("ann");
                world.reply_with(by, conversation, agent, content("text"));
            }
        }
        let mut turns = Vec::new();
        for (visits, outcome) in visits.into_iter().zip(outcomes) {
            // A fifth comes and goes, with bursts.
            for _ in 0..visits.saturating_sub(3) {
                conversation += 1;
                world.reply("visitor", conversation);
            }
            let reply = world.outbox.next_to_hand(1)[0];
            turns.push(world.outbox.reply(reply).unwrap().service.to_string());
            prop_assert!(world.hand(reply));
            if outcome {
                world.sent(reply);
            }
        }
        for by in ["a", "b", "c", "d"] {
            for from in 0..turns.len() {
                for to in from..turns.len() {
                    let got = turns[from..to].iter().filter(|turn| *turn == by).count();
                    prop_assert!(got >= (to - from) / 5, "{by} got {got} of {}", to - from);
                }
            }
        }
    }

    #[test]
    fn the_order_asked_for_at_once_is_that_of_handing_one_by_one(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.tick();
        let at_once = world.outbox.next_to_hand(99);
        let mut one_by_one = Vec::new();
        while let [reply] = world.outbox.next_to_hand(1)[..] {
            prop_assert!(world.hand(reply));
            one_by_one.push(reply);
        }
        prop_assert_eq!(at_once, one_by_one);
    }

    #[test]
    fn any_records_at_all_are_taken_without_harm(
        records in prop::collection::vec((1..30_u64, 0..5_u8, 1..30_u64, 0..7_u8, any::<bool>()), 0..80),
    ) {
        let mut outbox = empty();
        for (offset, kind, about, status, named) in records {
            let id = ReplyId::trusted("r");
            let message = message_of(Offset(about));
            let status = STATUSES[status as usize];
            let event = match kind {
                0 => Event::from(Reply {
                    service: service("crm"),
                    agent: None,
                    reply_id: id,
                    digest: 5,
                    content: content("text"),
                    callback_data: None,
                    to: Customer::default(),
                    reveal: Settings::default(),
                    echo_of: named.then_some(message),
                    sent_at: None,
                }),
                1 => Event::Handed(Handed { reply: Offset(about), attempt: 0 }),
                2 => Event::from(Receipt {
                    reply: Offset(about),
                    service: service("desk"),
                    reply_id: id,
                    message_id: named.then_some(message),
                    status,
                    error: None,
                    status_at: START,
                    carried: None,
                }),
                3 => Event::from(StatusParked {
                    message_id: message,
                    status,
                    error: None,
                    status_at: START,
                    carried: named.then(|| carried("a")),
                }),
                _ => Event::Merged(Merged { from: ConversationId(about % 5) }),
            };
            let conversation = named.then_some(ConversationId(offset % 5));
            outbox.apply(&Record { offset: Offset(offset), at: START, conversation, event });
            let waiting = outbox.next_to_hand(99);
            prop_assert!(waiting.len() <= outbox.waiting_len());
            prop_assert_eq!(outbox.waiting_len() + outbox.handed_len(), outbox.open.len());
        }
    }
}
