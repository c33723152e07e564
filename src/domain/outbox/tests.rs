//! The outbox by its rules. A [`World`] does what a channel does with it: numbers drafts, applies them, keeps them as the
//! journal would.
//!
//! - `model`: any sequence of steps against a naive reading of the records
//! - `aside`: the same answers whether something was laid aside or not

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::domain::channel::Draft;
use crate::domain::command::{Answer, SendOutcome, StatusCommand, StatusOf};
use crate::domain::content::{CARRIED_BYTES_MAX, Carried};
use crate::domain::event::{
    Customer, Handed, Merged, PARKED_MS, Receipt, Reply, Settings, Status, StatusError, StatusParked,
};
use crate::domain::ids::AgentId;

mod aside;
mod model;

const TTL_MS: u64 = 3_600_000;
const START: Timestamp = Timestamp(1_700_000_000_000);
const DAY_MS: u64 = 86_400_000;

fn empty() -> Outbox {
    Outbox::new(&Keys { fingerprint: [1; 16], confirm: [2; 16], digest: [3; 16] }, TTL_MS)
}

fn service(name: &str) -> ServiceId {
    ServiceId::trusted(name)
}

fn content(kind: &str) -> Content {
    let json = format!(r#"{{"type":"{kind}"}}"#);
    Content::checked(Bytes::from(json), 9..9 + u32::try_from(kind.len()).unwrap(), &[])
}

fn message_of(reply: Offset) -> MessageId {
    MessageId::trusted(&format!("wamid.{reply}"))
}

fn carried(text: &str) -> Carried {
    Carried::checked(Bytes::from(format!(r#"{{"a":"{text}"}}"#)))
}

fn failure(code: &str) -> StatusError {
    StatusError { code: Arc::from(code), title: None, details: None }
}

/// An outbox in a channel: what it decides is recorded at once.
struct World {
    outbox: Outbox,
    records: Vec<Record>,
    now: Timestamp,
    /// What the statuses that come say besides.
    carried: Option<Carried>,
}

impl World {
    fn new() -> Self {
        Self { outbox: empty(), records: Vec::new(), now: START, carried: None }
    }

    fn next_offset(&self) -> Offset {
        Offset(self.records.len() as u64 + 1)
    }

    fn record(&mut self, draft: Draft) -> Offset {
        let offset = self.next_offset();
        let record = Record { offset, at: self.now, conversation: draft.conversation, event: draft.event };
        self.outbox.apply(&record);
        self.records.push(record);
        offset
    }

    fn record_all(&mut self, drafts: Vec<Draft>) -> Vec<(Offset, Status)> {
        let mut told = Vec::new();
        for draft in drafts {
            if let Event::Receipt(receipt) = &draft.event {
                told.push((receipt.reply, receipt.status));
            }
            self.record(draft);
        }
        told
    }

    fn reply_with(&mut self, by: &str, conversation: u64, agent: Option<&str>, content: Content) -> Offset {
        let reply_id = ReplyId::trusted(&format!("r-{}", self.next_offset()));
        self.named_reply(by, &reply_id, conversation, agent, content, None)
    }

    fn named_reply(
        &mut self,
        by: &str,
        reply_id: &ReplyId,
        conversation: u64,
        agent: Option<&str>,
        content: Content,
        echo_of: Option<MessageId>,
    ) -> Offset {
        let reply = Reply {
            service: service(by),
            agent: agent.map(AgentId::trusted),
            reply_id: reply_id.clone(),
            digest: self.outbox.digest(&content, None),
            content,
            callback_data: None,
            to: Customer::default(),
            reveal: Settings::default(),
            echo_of,
            sent_at: None,
        };
        self.record(Draft::new(Some(ConversationId(conversation)), Event::from(reply)))
    }

    /// An agent's text.
    fn reply(&mut self, by: &str, conversation: u64) -> Offset {
        self.reply_with(by, conversation, Some("ann"), content("text"))
    }

    fn hand(&mut self, reply: Offset) -> bool {
        let draft = self.outbox.hand(reply, self.now);
        draft.map(|draft| self.record(draft)).is_some()
    }

    fn handed(&mut self, by: &str, conversation: u64) -> Offset {
        let reply = self.reply(by, conversation);
        assert!(self.hand(reply));
        reply
    }

    fn outcome(&mut self, reply: Offset, outcome: &SendOutcome) -> Vec<(Offset, Status)> {
        let mut out = Vec::new();
        let answer = self.outbox.outcome(reply, outcome, self.now, &mut out);
        assert_eq!(answer == Answer::Ignored, out.is_empty());
        self.record_all(out)
    }

    fn sent(&mut self, reply: Offset) -> Vec<(Offset, Status)> {
        self.outcome(reply, &SendOutcome::Sent(message_of(reply)))
    }

    fn status(&mut self, of: StatusOf, status: Status) -> (Answer, Vec<(Offset, Status)>) {
        let error = (status == Status::Failed).then(|| failure("131026"));
        let command = StatusCommand { of, status, error, status_at: self.now, carried: self.carried.clone() };
        let mut out = Vec::new();
        let answer = self.outbox.status(&command, self.now, &mut out);
        (answer, self.record_all(out))
    }

    fn tick(&mut self) -> Vec<(Offset, Status)> {
        let mut told = Vec::new();
        loop {
            let mut out = Vec::new();
            self.outbox.due(self.now, 3, &mut out);
            if out.is_empty() {
                break;
            }
            assert!(out.len() <= 3);
            told.extend(self.record_all(out));
        }
        self.outbox.forget(self.now);
        told
    }

    fn replayed(&self) -> Outbox {
        let mut outbox = empty();
        for record in &self.records {
            outbox.apply(record);
        }
        outbox
    }

    fn known(&self, by: &str, reply_id: &str, content: &Content, conversation: Option<u64>) -> Known {
        let digest = self.outbox.digest(content, None);
        let conversation = conversation.map(ConversationId);
        self.outbox.known(&service(by), &ReplyId::trusted(reply_id), digest, conversation)
    }
}

#[test]
fn a_repeated_reply_id_is_the_same_or_a_conflict_and_unique_per_service() {
    let mut world = World::new();
    let text = content("text");
    let id = ReplyId::trusted("r");
    assert_eq!(world.known("crm", "r", &text, Some(7)), Known::New);
    let offset = world.named_reply("crm", &id, 7, None, text.clone(), None);
    let same = |status, outcome| Known::Same { offset, conversation: ConversationId(7), status, outcome };
    assert_eq!(world.known("crm", "r", &text, Some(7)), same(Status::Accepted, None));
    assert_eq!(world.known("crm", "r", &text, Some(8)), Known::Conflict);
    assert_eq!(world.known("crm", "r", &text, None), Known::Conflict);
    assert_eq!(world.known("crm", "r", &content("image"), Some(7)), Known::Conflict);
    assert_eq!(world.known("desk", "r", &text, Some(7)), Known::New);

    assert!(world.hand(offset));
    world.outcome(offset, &SendOutcome::Unknown);
    assert_eq!(world.known("crm", "r", &text, Some(7)), same(Status::Unknown, Some(Offset(3))));
    world.sent(offset);
    world.status(StatusOf::Reply(offset), Status::Read);
    // The outcome is the `sent`; what came after it is none.
    assert_eq!(world.known("crm", "r", &text, Some(7)), same(Status::Read, Some(Offset(4))));
    assert_eq!(world.known("crm", "r", &content("image"), Some(7)), Known::Conflict);
}

#[test]
fn a_reply_id_is_in_use_for_8_days_after_its_outcome_and_while_there_is_none() {
    let mut world = World::new();
    let text = content("text");
    world.outbox.set_send_ttl(90 * DAY_MS);
    let open = world.named_reply("crm", &ReplyId::trusted("open"), 1, None, text.clone(), None);
    let done = world.named_reply("crm", &ReplyId::trusted("done"), 2, None, text.clone(), None);
    assert!(world.hand(done));
    world.sent(done);
    world.now = START.plus_ms(REPLY_IDS_MS);
    world.outbox.forget(world.now);
    assert!(matches!(world.known("crm", "done", &text, Some(2)), Known::Same { .. }));
    world.now = START.plus_ms(REPLY_IDS_MS + 3 * DAY_MS);
    world.outbox.forget(world.now);
    assert_eq!(world.known("crm", "done", &text, Some(2)), Known::New);
    // Statuses still find it, for 30 days.
    assert_eq!(world.status(StatusOf::Message(message_of(done)), Status::Read).1, [(done, Status::Read)]);
    world.now = START.plus_ms(60 * DAY_MS);
    world.outbox.forget(world.now);
    assert!(matches!(world.known("crm", "open", &text, Some(1)), Known::Same { .. }));
    assert_eq!(world.outbox.reply(open).map(|reply| reply.status), Some(Status::Accepted));
    assert_eq!(world.outbox.reply(done), None);
    assert_eq!(world.outbox.reply_of(&message_of(done)), None);
}

#[test]
fn one_conversations_replies_leave_one_at_a_time_and_in_order() {
    let mut world = World::new();
    let bot = world.reply_with("crm", 1, None, content("text"));
    let agent = world.reply("desk", 1);
    let other = world.reply("desk", 2);
    assert_eq!(world.outbox.next_to_hand(9), [bot, other]);
    assert!(!world.hand(agent), "not before the older one");
    assert!(world.hand(bot));
    assert!(!world.hand(bot), "not twice");
    assert_eq!(world.outbox.next_to_hand(9), [other]);
    assert!(!world.hand(agent), "not while another is handed");
    world.outcome(bot, &SendOutcome::Unknown);
    // Desk has not had a turn yet; of its replies the older goes first.
    assert_eq!(world.outbox.next_to_hand(9), [agent, other]);
    assert!(world.hand(agent));
}

#[test]
fn agents_replies_go_before_bots_and_templates_of_their_service_but_never_before_another_services_turn() {
    let mut world = World::new();
    let template = world.reply_with("crm", 1, Some("ann"), content("template"));
    let bot = world.reply_with("crm", 2, None, content("text"));
    let first = world.reply("crm", 3);
    let second = world.reply("crm", 4);
    let desk = world.reply_with("desk", 5, None, content("text"));
    assert_eq!(world.outbox.next_to_hand(9), [first, desk, second, bot, template]);
    assert_eq!(world.outbox.next_to_hand(2), [first, desk]);
}

#[test]
fn who_has_filled_its_share_and_the_common_half_is_refused_and_nobody_else() {
    for services in 1..=8 {
        let mut own = vec![0_usize; services];
        let all = |own: &[usize]| own.iter().sum::<usize>();
        while has_room(all(&own), own[0], services) {
            own[0] += 1;
        }
        assert!(own[0] >= OPEN_REPLIES_MAX / 2, "alone it has half of all");
        for service in 1..services {
            let before = own[service];
            while has_room(all(&own), own[service], services) {
                own[service] += 1;
            }
            assert!(own[service] - before >= OPEN_REPLIES_MAX / 2 / services, "{service} of {services}");
            assert!(!has_room(all(&own), own[0], services), "the first is still refused");
        }
        assert!(all(&own) <= OPEN_REPLIES_MAX, "all together are bounded");
    }
    // It is counted by service, over acceptance, outcome and restart.
    let mut world = World::new();
    let reply = world.handed("crm", 1);
    world.reply("crm", 2);
    world.reply("desk", 3);
    let open_of = |outbox: &Outbox| outbox.open_of.clone().into_iter().collect::<Vec<_>>();
    assert_eq!(open_of(&world.outbox), [(0, 2), (1, 1)]);
    world.sent(reply);
    assert_eq!(open_of(&world.outbox), [(0, 1), (1, 1)]);
    assert_eq!(open_of(&world.replayed()), [(0, 1), (1, 1)]);
}

#[test]
fn a_refused_attempt_goes_back_to_its_old_place_and_a_crash_makes_it_unknown() {
    let mut world = World::new();
    let reply = world.handed("crm", 1);
    let later = world.reply("crm", 1);
    assert!(!world.outbox.put_back(later), "it was not handed");
    assert!(world.outbox.put_back(reply));
    assert_eq!(world.outbox.next_to_hand(9), [reply]);
    // What the journal knows: handed, and no outcome.
    let mut after_crash = world.replayed();
    assert_eq!(after_crash.unresolved_handed().collect::<Vec<_>>(), [reply]);
    let mut out = Vec::new();
    after_crash.lose_handed(256, world.now, &mut out);
    assert!(matches!(&out[..], [Draft { event: Event::Receipt(r), .. }] if r.status == Status::Unknown));
    for draft in out {
        after_crash.apply(&Record {
            offset: Offset(99),
            at: world.now,
            conversation: draft.conversation,
            event: draft.event,
        });
    }
    assert_eq!(after_crash.next_to_hand(9), [later]);

    assert!(world.hand(reply));
    assert_eq!(
        world.records.last().map(|record| &record.event),
        Some(&Event::Handed(Handed { reply, attempt: 2 }))
    );
    assert_eq!(world.outbox.reply(reply).map(|now| now.attempts), Some(2));
    assert_eq!(world.outbox, world.replayed());
    // A put-back one waits, and so may expire; it was refused for certain.
    assert!(world.outbox.put_back(reply));
    world.now = START.plus_ms(TTL_MS);
    assert_eq!(world.tick(), [(reply, Status::Failed), (later, Status::Failed)]);
}

#[test]
fn an_attempt_that_whatsapp_refused_for_now_is_closed_by_a_record_and_the_reply_waits_again() {
    let mut world = World::new();
    let reply = world.handed("crm", 1);
    let later = world.reply("crm", 1);
    let again = SendOutcome::Again(failure("131056"));
    assert_eq!(world.outcome(reply, &again), [(reply, Status::Accepted)]);
    assert_eq!(world.outcome(reply, &again), [], "it is not handed any more");
    assert_eq!(world.outcome(later, &again), [], "it never was");
    let mut after_crash = world.replayed();
    assert_eq!(after_crash, world.outbox);
    assert_eq!(after_crash.handed_len(), 0, "nothing is unknown: it was refused for certain");
    assert_eq!(after_crash.next_to_hand(9), [reply], "in its old place");
    after_crash.rest(reply, START.plus_ms(6_000));
    assert_eq!(after_crash.next_to_hand(9), []);
    assert_eq!(after_crash.hand(reply, START), None, "its conversation rests");
    assert_eq!(after_crash.next_deadline(), Some(START.plus_ms(6_000)));
    after_crash.forget(START.plus_ms(6_000));
    assert_eq!(after_crash.next_to_hand(9), [reply]);
}

#[test]
fn handed_without_outcome_is_unknown_after_60_seconds_and_a_late_sent_still_counts() {
    let mut world = World::new();
    let reply = world.handed("crm", 1);
    assert_eq!(world.outbox.next_deadline(), Some(START.plus_ms(OUTCOME_MS)));
    world.now = START.plus_ms(OUTCOME_MS - 1);
    assert_eq!(world.tick(), []);
    world.now = START.plus_ms(OUTCOME_MS);
    assert_eq!(world.tick(), [(reply, Status::Unknown)]);
    assert_eq!(world.outbox.next_deadline(), None);
    assert_eq!(world.outbox.handed_len(), 0);
    assert_eq!(world.sent(reply), [(reply, Status::Sent)]);
    assert_eq!(world.sent(reply), []);
}

#[test]
fn what_waits_longer_than_send_ttl_fails_as_expired_and_is_not_handed() {
    let mut world = World::new();
    let reply = world.reply("crm", 1);
    assert_eq!(world.outbox.next_deadline(), Some(START.plus_ms(TTL_MS)));
    world.now = START.plus_ms(TTL_MS);
    assert!(!world.hand(reply), "it has expired, though nobody has ticked");
    assert_eq!(world.tick(), [(reply, Status::Failed)]);
    let Some(Event::Receipt(receipt)) = world.records.last().map(|record| &record.event) else { panic!() };
    assert_eq!(receipt.error, Some(failure(EXPIRED)));
    assert_eq!(world.outbox.waiting_len(), 0);
    assert_eq!(world.sent(reply), [], "failed is final");
}

#[test]
fn when_the_channel_closes_what_was_not_handed_fails_in_turns_and_what_was_goes_on() {
    let mut world = World::new();
    let handed = world.handed("crm", 1);
    let unsent: Vec<Offset> = (1..=5).map(|conversation| world.reply("desk", conversation)).collect();
    let mut failed = Vec::new();
    while world.outbox.waiting_len() > 0 {
        let mut out = Vec::new();
        world.outbox.fail_unsent(2, world.now, &mut out);
        assert!(out.len() <= 2);
        failed.extend(world.record_all(out));
    }
    assert_eq!(failed, unsent.iter().map(|reply| (*reply, Status::Failed)).collect::<Vec<_>>());
    let Some(Event::Receipt(receipt)) = world.records.last().map(|record| &record.event) else { panic!() };
    assert_eq!(receipt.error, Some(failure(CHANNEL_CLOSED)));
    assert_eq!(world.sent(handed), [(handed, Status::Sent)]);
}

#[test]
fn what_was_never_handed_can_only_fail() {
    let mut world = World::new();
    let reply = world.reply("crm", 1);
    assert_eq!(world.sent(reply), []);
    assert_eq!(world.outcome(reply, &SendOutcome::Unknown), []);
    assert_eq!(world.status(StatusOf::Reply(reply), Status::Delivered), (Answer::Ignored, vec![]));
    assert_eq!(world.status(StatusOf::Reply(reply), Status::Failed), (Answer::Ignored, vec![]));
    let withdrawn = SendOutcome::Failed(failure(WITHDRAWN));
    assert_eq!(world.outcome(reply, &withdrawn), [(reply, Status::Failed)]);
    assert_eq!(world.outcome(reply, &withdrawn), []);
    assert_eq!(world.outcome(Offset(77), &withdrawn), [], "there is no such reply");
}

#[test]
fn a_status_before_its_message_is_known_is_parked_and_taken_up_with_sent() {
    let mut world = World::new();
    let reply = world.handed("crm", 1);
    let of = || StatusOf::Message(message_of(reply));
    assert_eq!(world.status(of(), Status::Delivered).0, Answer::Parked);
    assert_eq!(world.status(of(), Status::Delivered).0, Answer::Ignored, "a repeat says nothing new");
    assert_eq!(world.status(of(), Status::Sent).0, Answer::Ignored, "nor does what lies behind it");
    assert_eq!(world.status(of(), Status::Read).0, Answer::Parked);
    assert_eq!(world.outbox.next_deadline(), Some(START.plus_ms(PARKED_MS)));
    world.now = START.plus_ms(1);
    assert_eq!(world.sent(reply), [(reply, Status::Sent), (reply, Status::Delivered), (reply, Status::Read)]);
    let Some(Event::Receipt(receipt)) = world.records.last().map(|record| &record.event) else { panic!() };
    assert_eq!((&receipt.message_id, receipt.status_at), (&Some(message_of(reply)), START));
    let message = world.outbox.fingerprints.message_id(&message_of(reply));
    assert_eq!(world.outbox.parked.fresh(&message, &message_of(reply), START).count(), 0, "it was taken");
    assert_eq!(world.outbox.reply_of(&message_of(reply)), Some(reply));
    assert_eq!(world.status(of(), Status::Played), (Answer::Done, vec![(reply, Status::Played)]));
    assert_eq!(world.outbox, world.replayed());
}

#[test]
fn a_parked_status_lapses_after_60_seconds() {
    let mut world = World::new();
    let reply = world.handed("crm", 1);
    world.status(StatusOf::Message(message_of(reply)), Status::Read);
    world.now = START.plus_ms(PARKED_MS);
    // Nobody has ticked; it has lapsed all the same.
    assert_eq!(world.sent(reply), [(reply, Status::Sent)]);
    world.outbox.forget(world.now);
    assert_eq!(world.outbox.next_deadline(), None);
}

#[test]
fn what_a_status_says_besides_goes_into_its_receipt_and_waits_with_one_that_is_parked() {
    let mut world = World::new();
    let (known, early) = (world.handed("crm", 1), world.handed("crm", 2));
    world.sent(known);
    world.carried = Some(carried("known"));
    world.status(StatusOf::Message(message_of(known)), Status::Read);
    let told = |world: &World| match &world.records.last().unwrap().event {
        Event::Receipt(receipt) => receipt.carried.clone(),
        _ => panic!(),
    };
    assert_eq!(told(&world), Some(carried("known")));
    world.carried = Some(carried("early"));
    world.status(StatusOf::Message(message_of(early)), Status::Read);
    assert_eq!(world.outbox.parked.carried_bytes(), carried("early").expose().len());
    assert_eq!(world.outbox, world.replayed());
    world.carried = None;
    world.sent(early);
    assert_eq!(told(&world), Some(carried("early")));
    assert_eq!(world.outbox.parked.carried_bytes(), 0, "it was taken");
    assert_eq!(world.outbox, world.replayed());
}

#[test]
fn what_waits_of_that_is_bounded_and_beyond_it_a_status_waits_without() {
    let mut world = World::new();
    let reply = world.handed("crm", 1);
    let large = carried(&"x".repeat(CARRIED_BYTES_MAX - 8));
    assert_eq!(large.expose().len(), CARRIED_BYTES_MAX);
    world.carried = Some(large);
    for foreign in 0..PARKED_CARRIED_BYTES_MAX / CARRIED_BYTES_MAX {
        let id = MessageId::trusted(&format!("foreign.{foreign}"));
        assert_eq!(world.status(StatusOf::Message(id), Status::Sent).0, Answer::Parked);
    }
    assert_eq!(world.outbox.parked.carried_bytes(), PARKED_CARRIED_BYTES_MAX);
    assert_eq!(world.status(StatusOf::Message(message_of(reply)), Status::Read).0, Answer::Parked);
    assert_eq!(world.outbox.parked.carried_bytes(), PARKED_CARRIED_BYTES_MAX);
    assert_eq!(world.sent(reply), [(reply, Status::Sent), (reply, Status::Read)]);
    world.outbox.forget(START.plus_ms(PARKED_MS));
    assert_eq!(world.outbox.parked.carried_bytes(), 0, "they have lapsed");
}

#[test]
fn with_no_room_for_a_parked_status_the_oldest_goes() {
    let mut world = World::new();
    let first = world.handed("crm", 1);
    let second = world.handed("crm", 2);
    world.status(StatusOf::Message(message_of(first)), Status::Read);
    world.status(StatusOf::Message(message_of(second)), Status::Read);
    for foreign in 1..PARKED_MAX {
        let id = MessageId::trusted(&format!("foreign.{foreign}"));
        assert_eq!(world.status(StatusOf::Message(id), Status::Sent).0, Answer::Parked);
    }
    assert_eq!(world.sent(first), [(first, Status::Sent)]);
    assert_eq!(world.sent(second), [(second, Status::Sent), (second, Status::Read)]);
}

#[test]
fn a_message_id_that_comes_after_the_status_is_recorded_with_the_status_that_holds() {
    let mut world = World::new();
    let reply = world.handed("crm", 1);
    assert_eq!(world.status(StatusOf::Reply(reply), Status::Delivered).1, [(reply, Status::Delivered)]);
    assert_eq!(world.status(StatusOf::Message(message_of(reply)), Status::Read).0, Answer::Parked);
    assert_eq!(world.sent(reply), [(reply, Status::Delivered), (reply, Status::Read)]);
    assert_eq!(world.outbox.reply_of(&message_of(reply)), Some(reply));
    assert_eq!(world.sent(reply), []);
}

#[test]
fn a_status_that_is_none_of_whatsapps_says_nothing() {
    let mut world = World::new();
    let reply = world.handed("crm", 1);
    for status in [Status::Accepted, Status::Unknown] {
        assert_eq!(world.status(StatusOf::Reply(reply), status), (Answer::Ignored, vec![]));
        assert_eq!(world.status(StatusOf::Message(message_of(reply)), status), (Answer::Ignored, vec![]));
    }
}

#[test]
fn a_reply_written_on_the_phone_is_sent_already_and_takes_up_what_came_before_it() {
    let mut world = World::new();
    let message = MessageId::trusted("wamid.phone");
    let id = ReplyId::trusted("echo:wamid.phone");
    world.status(StatusOf::Message(message.clone()), Status::Delivered);
    let mut out = Vec::new();
    let at = world.next_offset();
    let home = ConversationId(4);
    world.outbox.take_up_echo(at, &service("crm"), &id, home, &message, world.now, &mut out);
    let echo = world.named_reply("crm", &id, 4, None, content("text"), Some(message.clone()));
    assert_eq!(echo, at);
    assert_eq!(world.record_all(out), [(echo, Status::Delivered)]);
    assert_eq!(world.outbox.next_to_hand(9), []);
    assert_eq!(world.outbox.reply_of(&message), Some(echo));
    assert_eq!(world.status(StatusOf::Message(message), Status::Read).1, [(echo, Status::Read)]);
    assert_eq!(world.outbox, world.replayed());
}

#[test]
fn when_two_conversations_become_one_their_replies_stand_in_one_line() {
    let mut world = World::new();
    let younger = world.reply("crm", 2);
    let older = world.reply("desk", 1);
    let merged = Event::Merged(Merged { from: ConversationId(2) });
    assert_eq!(world.outbox.next_to_hand(9), [younger, older]);
    world.record(Draft::new(Some(ConversationId(1)), merged));
    assert_eq!(world.outbox.next_to_hand(9), [younger]);
    let id = format!("r-{younger}");
    for named in [1, 2] {
        assert!(matches!(
            world.known("crm", &id, &content("text"), Some(named)),
            Known::Same { conversation: ConversationId(1), .. }
        ));
    }
    assert!(world.hand(younger));
    world.sent(younger);
    assert_eq!(world.records.last().and_then(|record| record.conversation), Some(ConversationId(1)));
    assert_eq!(world.outbox.next_to_hand(9), [older]);
    assert_eq!(world.outbox, world.replayed());
}

#[test]
fn records_that_do_not_fit_change_nothing() {
    let mut world = World::new();
    let reply = world.reply("crm", 1);
    let before = world.outbox.clone();
    let receipt = |reply, status| {
        Event::from(Receipt {
            reply,
            service: service("crm"),
            reply_id: ReplyId::trusted("r"),
            message_id: None,
            status,
            error: None,
            status_at: START,
            carried: None,
        })
    };
    for event in [
        receipt(Offset(50), Status::Sent),
        receipt(reply, Status::Accepted),
        Event::Handed(Handed { reply: Offset(50), attempt: 1 }),
        Event::Merged(Merged { from: ConversationId(1) }),
        world.records[0].event.clone(),
    ] {
        let record = Record { offset: reply, at: START, conversation: Some(ConversationId(1)), event };
        world.outbox.apply(&record);
    }
    assert_eq!(world.outbox, before);
}

#[test]
fn what_is_withdrawn_before_it_was_handed_is_never_sent_and_what_was_handed_is_unknown() {
    let mut world = World::new();
    let why: Arc<str> = Arc::from("too late");
    let withdraw = |world: &mut World, reply: Offset| {
        let reply_id = world.outbox.reply(reply).unwrap().reply_id.clone();
        let mut out = Vec::new();
        let answer = world.outbox.withdraw(&service("crm"), &reply_id, &why, world.now, &mut out).unwrap();
        (answer, world.record_all(out))
    };
    let first = world.handed("crm", 1);
    let behind = world.reply("crm", 1);
    let fate_of = |world: &World, reply: Offset| {
        let reply_id = world.outbox.reply(reply).unwrap().reply_id.clone();
        world.outbox.fate(&service("crm"), &reply_id).unwrap()
    };
    assert!(fate_of(&world, behind).is_behind && !fate_of(&world, first).is_behind);
    assert_eq!(withdraw(&mut world, behind), (Answer::Done, vec![(behind, Status::Failed)]));
    let Some(Event::Receipt(receipt)) = world.records.last().map(|record| &record.event) else { panic!() };
    let error = receipt.error.as_ref().unwrap();
    assert_eq!((&*error.code, error.title.as_deref()), (WITHDRAWN, Some("too late")));
    assert_eq!(withdraw(&mut world, first), (Answer::Done, vec![(first, Status::Unknown)]));
    assert!(!world.hand(behind), "it is never sent");
    assert_eq!(withdraw(&mut world, behind), (Answer::Ignored, vec![]));
    // A late answer of the gateway still counts for the one that may have left.
    let sent = SendOutcome::Sent(message_of(first));
    assert_eq!(world.outcome(first, &sent), vec![(first, Status::Sent)]);
    assert_eq!(withdraw(&mut world, first), (Answer::Ignored, vec![]));
    let fate = fate_of(&world, first);
    assert_eq!((fate.status, fate.outcome), (Status::Sent, Some(world.records.last().unwrap().offset)));
    let nobodys =
        world.outbox.withdraw(&service("desk"), &ReplyId::trusted("r-1"), &why, START, &mut Vec::new());
    assert_eq!(nobodys, None, "another service's name is its own");
}
