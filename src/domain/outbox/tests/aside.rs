//! What is laid aside changes no answer: two outboxes with the same records, one of which has runs.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::*;
use crate::domain::aside::{LaidAside, Movable, Rows, RunId, Shelf};
use crate::domain::filter::Filter;
use crate::domain::fingerprint::Key;
use crate::domain::ids::ChannelId;
use crate::domain::outbox::recalling::Recall;
use crate::domain::senders::{NumberSenders, Senders};

const NAMES: u64 = 12;
const CHANNEL: ChannelId = ChannelId(7);

/// Runs, as whoever can read them has them.
#[derive(Default)]
struct Runs(BTreeMap<RunId, Rows>);

impl Runs {
    fn write(&mut self, Movable { about, rows }: Movable, last: Offset) -> LaidAside {
        let run = RunId(self.0.len() as u64 + 1);
        let filter = Some(Filter::of(rows.keys().iter().copied(), rows.len()));
        self.0.insert(run, rows);
        LaidAside { run, last, filter, ..about }
    }

    fn value(&self, run: RunId, key: Fingerprint) -> Option<Vec<u8>> {
        self.0[&run].iter().find(|(known, _)| *known == key).map(|(_, value)| value.to_vec())
    }

    /// Looks for what is wanted, and gives it to the outbox.
    fn recall(&self, outbox: &mut Outbox, wanted: Option<Recall>) {
        if let Some(recall) = wanted {
            let found = recall.look::<Infallible>(|run, key| Ok(self.value(run, key)));
            outbox.recalled(found.unwrap_or_else(|never| match never {}));
        }
    }
}

/// All that somebody can learn of a reply.
#[derive(Debug, PartialEq)]
struct Learnt {
    known: Known,
    fate: Option<Fate>,
    reply: Option<(Offset, ConversationId, Status)>,
    status: (Answer, Vec<Draft>),
}

struct Twins {
    plain: World,
    aside: Outbox,
    senders: (Senders, NumberSenders),
    runs: Runs,
    /// What a base that is not installed yet has in runs.
    folding: Vec<(Shelf, LaidAside)>,
    /// What the last base had, and through which record.
    base: Option<(Outbox, usize)>,
}

fn name(n: u64) -> ReplyId {
    // Short ones, a UUID and a long one.
    match n % 3 {
        0 => ReplyId::trusted(&format!("r-{n}")),
        1 => ReplyId::trusted(&format!("0190b2f4-6a1c-7cde-8f01-{n:012x}")),
        _ => ReplyId::trusted(&format!("order/{n:040}/{n}")),
    }
}

impl Twins {
    fn new() -> Self {
        let key = Key::new([1; 16]);
        Self {
            plain: World::new(),
            aside: empty(),
            senders: (Senders::new(key, CHANNEL), NumberSenders::new(key)),
            runs: Runs::default(),
            folding: Vec::new(),
            base: None,
        }
    }

    /// The one without runs decides; what it records the other one takes as well.
    fn record(&mut self, act: impl FnOnce(&mut World)) {
        let before = self.plain.records.len();
        act(&mut self.plain);
        for record in &self.plain.records[before..] {
            if let Event::Receipt(receipt) = &record.event {
                let wanted = self.aside.recall_reply(receipt.reply);
                self.runs.recall(&mut self.aside, wanted);
            }
            self.aside.apply(record);
            self.aside.forget_recalled();
            self.senders.0.apply(record);
            self.senders.1.apply(CHANNEL, record);
        }
    }

    /// A base is begun: folded from the one before, with runs of all that may lie in some.
    fn begin_base(&mut self) {
        // Its owner is told of one before the next is begun.
        self.install_base();
        let mut folded = self.folded();
        let mut senders = self.senders.0.clone();
        let last = Offset(self.plain.records.len() as u64);
        let mut all = Vec::new();
        for shelf in [Shelf::ReplyIds, Shelf::Outcomes] {
            for period in folded.movable_periods(shelf, 1, None) {
                let laid = self.runs.write(folded.movable(shelf, period).unwrap(), last);
                folded.lay_aside(shelf, laid.clone());
                all.push((shelf, laid));
            }
        }
        for period in senders.movable_periods(1, None) {
            let laid = self.runs.write(senders.movable(period).unwrap(), last);
            senders.lay_aside(laid.clone());
            folded.lay_aside(Shelf::Sent, laid.clone());
            all.push((Shelf::Sent, laid));
        }
        self.base = Some((folded.clone(), self.plain.records.len()));
        self.folding = all;
    }

    fn install_base(&mut self) {
        for (shelf, laid) in std::mem::take(&mut self.folding) {
            if shelf == Shelf::Sent {
                self.senders.0.lay_aside(laid.clone());
                self.senders.1.lay_aside(CHANNEL, laid.clone());
            }
            self.aside.lay_aside(shelf, laid);
        }
    }

    /// From the last base and the records behind it, as after a crash.
    fn folded(&self) -> Outbox {
        let (mut outbox, through) = self.base.clone().unwrap_or_else(|| (empty(), 0));
        for record in &self.plain.records[through..] {
            if let Event::Receipt(receipt) = &record.event {
                let wanted = outbox.recall_reply(receipt.reply);
                self.runs.recall(&mut outbox, wanted);
            }
            outbox.apply(record);
            outbox.forget_recalled();
        }
        outbox
    }

    fn learnt(&self, outbox: &mut Outbox, n: u64, status: Status) -> Learnt {
        let (crm, now) = (service("crm"), self.plain.now);
        let wanted = outbox.recall_named(&crm, &name(n));
        self.runs.recall(outbox, wanted);
        let digest = outbox.digest(&content("text"), None);
        let known = outbox.known(&crm, &name(n), digest, Some(ConversationId(n)));
        let fate = outbox.fate(&crm, &name(n));
        outbox.forget_recalled();

        let message = MessageId::trusted(&format!("wamid.{n}"));
        let wanted = outbox.recall_message(&message);
        self.runs.recall(outbox, wanted);
        let reply = outbox.reply_of(&message).and_then(|offset| {
            let reply = outbox.reply(offset)?;
            Some((offset, reply.conversation, reply.status))
        });
        let of = StatusOf::Message(message);
        let command = StatusCommand { of, status, error: None, status_at: now, carried: None };
        let mut drafts = Vec::new();
        let answer = outbox.status(&command, now, &mut drafts);
        outbox.forget_recalled();
        Learnt { known, fate, reply, status: (answer, drafts) }
    }

    fn check(&self) {
        let (mut plain, mut aside, mut folded) =
            (self.plain.outbox.clone(), self.aside.clone(), self.folded());
        for n in 0..NAMES {
            for status in [Status::Sent, Status::Read] {
                let wanted = self.learnt(&mut plain, n, status);
                assert_eq!(self.learnt(&mut aside, n, status), wanted, "reply {n} of the one that lived");
                assert_eq!(self.learnt(&mut folded, n, status), wanted, "reply {n} after a crash");
            }
            let message = MessageId::trusted(&format!("wamid.{n}"));
            let senders = &self.senders.1;
            let found = senders.find(&message).map(|sender| sender.service).or_else(|| {
                let suspects = senders.suspects(&message)?;
                let runs = suspects.runs.into_iter().flat_map(|(_, runs)| runs);
                let value = runs.into_iter().find_map(|run| self.runs.value(run, suspects.key));
                senders.service_in(CHANNEL, &value?)
            });
            let sent = plain.reply_of(&message).map(|_| service("crm"));
            assert_eq!(found, sent, "who sent message {n}");
        }
    }
}

proptest! {
    #[test]
    fn laying_aside_changes_no_answer(
        steps in prop::collection::vec((0..9_u8, 0..NAMES, 0..4_u8, 0..3 * 3_600_000_u64), 1..60),
    ) {
        let mut twins = Twins::new();
        for (what, n, how, waited_ms) in steps {
            twins.plain.now = twins.plain.now.plus_ms(waited_ms);
            let message = MessageId::trusted(&format!("wamid.{n}"));
            let open_or_done = twins.plain.outbox.fate(&service("crm"), &name(n)).map(|fate| fate.offset);
            match (what, open_or_done) {
                (0 | 1, None) => twins.record(|world| {
                    world.named_reply("crm", &name(n), n, None, content("text"), None);
                }),
                (2, None) => twins.record(|world| {
                    // Only once: the channel would tell the repeat of an echo by its message.
                    if world.outbox.reply_of(&message).is_none() {
                        world.named_reply("crm", &name(n), n, None, content("text"), Some(message));
                    }
                }),
                (0..=3, Some(reply)) => twins.record(|world| {
                    world.hand(reply);
                    let outcome = match how {
                        0 => SendOutcome::Unknown,
                        1 => SendOutcome::Failed(failure("131026")),
                        _ => SendOutcome::Sent(message),
                    };
                    world.outcome(reply, &outcome);
                }),
                (4 | 5, _) => twins.record(|world| {
                    let status = [Status::Sent, Status::Delivered, Status::Read, Status::Failed];
                    world.status(StatusOf::Message(message), status[usize::from(how)]);
                }),
                (6, _) => twins.begin_base(),
                (7, _) => twins.install_base(),
                _ => {
                    let now = twins.plain.now;
                    twins.plain.outbox.forget(now);
                    twins.aside.forget(now);
                }
            }
            twins.check();
        }
    }
}

#[test]
fn what_lies_in_runs_leaves_memory_and_is_forgotten_in_time() {
    let mut twins = Twins::new();
    for n in 0..NAMES {
        twins.record(|world| {
            let reply = world.named_reply("crm", &name(n), n, None, content("text"), None);
            world.hand(reply);
            world.outcome(reply, &SendOutcome::Sent(MessageId::trusted(&format!("wamid.{n}"))));
        });
    }
    twins.begin_base();
    twins.install_base();
    let runs = |twins: &Twins, shelf| twins.aside.aside(shelf).unwrap().iter().count();
    for shelf in [Shelf::ReplyIds, Shelf::Outcomes, Shelf::Sent] {
        assert_eq!(runs(&twins, shelf), 1, "{shelf:?}");
        assert!(
            twins.aside.movable_periods(shelf, 1, None).is_empty(),
            "{shelf:?}: nothing is left in memory"
        );
    }
    assert!(twins.senders.1.bytes() == 0 && twins.senders.0.movable_periods(1, None).is_empty());
    twins.check();

    // One that is changed is in memory again, and no more of it than that.
    twins.record(|world| drop(world.status(StatusOf::Message(MessageId::trusted("wamid.3")), Status::Read)));
    assert_eq!(twins.aside.movable_periods(Shelf::Outcomes, 1, None).len(), 1);
    assert_eq!(twins.aside.movable_periods(Shelf::Outcomes, 2, None).len(), 0);
    twins.check();
    // It is as old as its reply, and lies aside by the next base.
    twins.begin_base();
    twins.install_base();
    assert_eq!(runs(&twins, Shelf::Outcomes), 2);
    assert_eq!(twins.aside.movable_periods(Shelf::Outcomes, 1, None).len(), 0);
    twins.check();

    let forget = |twins: &mut Twins, days| twins.aside.forget(START.plus_ms(days * DAY_MS));
    forget(&mut twins, 8);
    assert_eq!(runs(&twins, Shelf::ReplyIds), 1);
    forget(&mut twins, 9);
    assert_eq!([Shelf::ReplyIds, Shelf::Outcomes].map(|shelf| runs(&twins, shelf)), [0, 2]);
    forget(&mut twins, 31);
    assert!(twins.aside.recall_reply(Offset(1)).is_none());
    assert_eq!([Shelf::Outcomes, Shelf::Sent].map(|shelf| runs(&twins, shelf)), [0, 0]);
    assert_eq!(twins.aside.remembered_bytes(), 0);
}

#[test]
fn only_whole_periods_go_while_there_is_room_for_others() {
    let mut twins = Twins::new();
    let mut send = |days| {
        twins.plain.now = START.plus_ms(days * DAY_MS);
        twins.record(|world| {
            let reply = world.reply("crm", 1);
            world.hand(reply);
            world.sent(reply);
        });
    };
    send(0);
    send(6);
    let now = twins.plain.now;
    for shelf in [Shelf::ReplyIds, Shelf::Outcomes] {
        let all = twins.aside.movable_periods(shelf, 1, None);
        assert_eq!(all.len(), 2);
        assert_eq!(twins.aside.movable_periods(shelf, 1, Some(now)), all[..1]);
    }
    let all = twins.senders.0.movable_periods(1, None);
    assert_eq!(twins.senders.0.movable_periods(1, Some(now)), all[..1]);
}
