//! A small store of format 1, committed as it was written, must open for ever and yield exactly its records.
//!
//! It has every kind of record that its day knew (later ones stand in `src/journal/payload/tests.rs`), two streams, a trim, a deleted stream, several segments, and an unclean stop of a broker
//! that answers before the sync, with what recovery wrote anew. Never edit it. A new format gets a store of its own beside
//! it, made by `SHAREDLINE_MAKE_GOLDEN=tests/golden/store-2 cargo nextest run --test journal_golden`. `store-runs` is such
//! a one: its base is of format 2, with runs of ids (`SHAREDLINE_MAKE_GOLDEN_RUNS`). Channels' states are beside them
//! (`SHAREDLINE_MAKE_GOLDEN_STATE_1`, `_2`).

#![cfg(feature = "broker")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sharedline::domain::aside::{LaidAside, Rows, RunId, Shelf};
use sharedline::domain::channel::{Channel, Keys};
use sharedline::domain::content::{Carried, Content};
use sharedline::domain::event::{
    Acknowledged, Actor, Agent, ClaimAction, ClaimActivity, ClaimChange, ClearTo, Customer, Event, Handed,
    Membership, MembershipAction, Merged, Message, Notice, PortalEvent, Receipt, Record, Reply, RosterChange,
    Settings, Status, StatusError, StatusParked, ThreadAction, ThreadChange,
};
use sharedline::domain::fingerprint::{Fingerprint, Key};
use sharedline::domain::ids::{
    AgentId, ChannelId, ConversationId, CustomerName, MessageId, Number, Offset, PortalId, ReplyId,
    ServiceId, Timestamp,
};
use sharedline::domain::senders::Senders;
use sharedline::journal::disk::{Disk, RealDisk};
use sharedline::journal::sim_disk::SimDisk;
use sharedline::journal::{
    BlockBuilder, Completed, CompletionSink, Durability, EmbeddedJournal, Entry, Head, Journal, Kept, LEAP,
    Options, Outcome, RecordMeta, RunOf, Sink, StreamId, payload, state,
};

const GOLDEN: &str = "tests/golden/store";
const GOLDEN_RUNS: &str = "tests/golden/store-runs";
const GOLDEN_VALUES: &str = "tests/golden/store-values";
/// The state of a channel, as a base of format 1 has it.
const GOLDEN_STATE: &str = "tests/golden/channel-1.state";
/// The same as a base of format 2 has it.
const GOLDEN_STATE_WITH_RUNS: &str = "tests/golden/channel-2.state";
const GOLDEN_STATE_WITH_SHELVES: &str = "tests/golden/channel-3.state";
const CHANNEL: ChannelId = ChannelId(0x00c0_ffee_0000_0000_0000_0000_0000_0001);
const CONVERSATION: ConversationId = ConversationId(0x0123_4567_89ab_cdef);
/// The channel's records before this one were trimmed.
const FIRST: u64 = 2;

fn crm() -> ServiceId {
    ServiceId::trusted("crm")
}

fn portal() -> StreamId {
    StreamId::of_portal(&PortalId::trusted("acme"))
}

fn content(text: &str) -> Content {
    let json = format!(r#"{{"type":"text","text":{{"body":"{text}"}}}}"#);
    Content::checked(Bytes::from(json), 9..13, &[])
}

fn customer() -> Customer {
    Customer {
        user_id: Some(CustomerName::trusted("US.13491208655302741918")),
        wa_id: Some(CustomerName::trusted("16505551234")),
        name: Some(Arc::from("Eve")),
    }
}

/// What happens in the channel, one record after the other.
fn events() -> Vec<Event> {
    let ann = || AgentId::trusted("ann");
    let error =
        || StatusError { code: Arc::from("131047"), title: Some(Arc::from("Re-engagement")), details: None };
    vec![
        Event::from(Membership {
            action: MembershipAction::Subscribed,
            service: crm(),
            by: Actor::Service(crm()),
            parent: Some(crm()),
            subscribers: Arc::from([crm()]),
            settings: Settings::default(),
            backfill: false,
        }),
        Event::from(Message {
            message_id: MessageId::trusted("wamid.HBgLMTY1MDU1NTEyMzQVAgASGBQzQTdC"),
            customer: customer(),
            formerly: Vec::new(),
            sent_at: Timestamp(1_700_000_000_000),
            content: content("hello"),
            refers_to: None,
            clear_to: ClearTo::Everyone,
            contact: None,
        }),
        Event::from(ClaimChange {
            action: ClaimAction::PickedUp,
            service: crm(),
            agent: ann(),
            name: Some(Arc::from("Ann")),
            from: None,
            by: Actor::Service(crm()),
            by_agent: None,
        }),
        Event::from(Reply {
            service: crm(),
            agent: Some(ann()),
            reply_id: ReplyId::trusted("r-1"),
            digest: 77,
            content: content("how can we help?"),
            callback_data: Some(Bytes::from_static(b"\xff\x00own")),
            to: customer(),
            reveal: Settings { reveal_service: true, reveal_kind: false },
            echo_of: None,
            sent_at: None,
        }),
        Event::Handed(Handed { reply: Offset(4), attempt: 1 }),
        Event::from(StatusParked {
            message_id: MessageId::trusted("wamid.later"),
            status: Status::Delivered,
            error: None,
            status_at: Timestamp(1_700_000_001_000),
            carried: None,
        }),
        Event::from(Receipt {
            reply: Offset(4),
            service: crm(),
            reply_id: ReplyId::trusted("r-1"),
            message_id: Some(MessageId::trusted("wamid.later")),
            status: Status::Failed,
            error: Some(error()),
            status_at: Timestamp(1_700_000_002_000),
            carried: None,
        }),
        Event::from(ClaimActivity { service: crm(), agent: ann() }),
        Event::Merged(Merged { from: ConversationId(5) }),
        Event::Acknowledged(Acknowledged { service: crm(), through: Offset(7) }),
        Event::from(Notice { field: Arc::from("account_update"), content: content("n"), parent: crm() }),
    ]
}

fn portal_events() -> Vec<PortalEvent> {
    vec![
        PortalEvent::Roster(RosterChange {
            service: crm(),
            agents: vec![Agent { agent: AgentId::trusted("ann"), name: Arc::from("Ann"), lead: true }],
            replace: true,
            remove: vec![AgentId::trusted("bob")],
        }),
        PortalEvent::ChannelOpened {
            channel: CHANNEL,
            number: Number::trusted("+15550783881"),
            service: None,
        },
        PortalEvent::ChannelClosed { channel: ChannelId(9) },
    ]
}

/// The offset of the n-th event: the last one was appended after an unclean stop.
fn offset_of(index: usize) -> Offset {
    let plain = index as u64 + 1;
    Offset(if index + 1 == events().len() { plain + LEAP } else { plain })
}

fn record_of(index: usize, event: Event) -> Record {
    let conversation = (index > 0).then_some(CONVERSATION);
    Record { offset: offset_of(index), at: Timestamp(1_700_000_000_000 + index as u64), conversation, event }
}

#[derive(Debug, Default)]
struct Answers(Mutex<Vec<Completed>>);

impl CompletionSink for Answers {
    fn complete(&self, finished: &mut Vec<Completed>) {
        self.0.lock().unwrap().append(finished);
    }
}

fn append(journal: &EmbeddedJournal, stream: StreamId, meta: RecordMeta, encode: impl FnOnce(&mut Vec<u8>)) {
    let expected = journal.head(stream);
    let mut builder = BlockBuilder::new(stream);
    builder.push(expected.offset.next(), meta, encode).unwrap();
    let answers = Arc::new(Answers::default());
    let sink: Sink = Arc::clone(&answers) as Sink;
    journal.append(stream, expected, builder.take().unwrap(), Durability::Configured, &sink);
    journal.turn();
    assert!(matches!(answers.0.lock().unwrap().first().unwrap().outcome, Outcome::Durable(_)));
}

fn append_event(journal: &EmbeddedJournal, index: usize, event: &Event) {
    let record = record_of(index, event.clone());
    let meta = RecordMeta {
        conversation: record.conversation,
        previous: Offset(index.saturating_sub(1) as u64),
        at: record.at,
        kind: payload::kind_of(event),
    };
    append(journal, CHANNEL.into(), meta, |out| payload::encode(event, out));
}

/// Writes the store, on a simulated disk so that its id comes out the same, and copies it to `directory`.
fn make(directory: &Path) {
    let disk = SimDisk::new(42);
    let options = Options { segment_bytes: 9 << 10, threads: false, ..Options::default() };
    let open = |options: &Options| EmbeddedJournal::open(Arc::new(disk.clone()), options).unwrap().journal;
    let meta = |kind| RecordMeta { conversation: None, previous: Offset::ZERO, at: Timestamp(7), kind };
    let events = events();
    let (last, first) = events.split_last().unwrap();

    let journal = open(&options);
    for event in portal_events() {
        append(&journal, portal(), meta(payload::portal_kind_of(&event)), |out| {
            payload::encode_portal(&event, out)
        });
    }
    append(&journal, StreamId(3), meta(payload::kind::MERGED), |out| out.push(1));
    for (index, event) in first.iter().enumerate().take(6) {
        append_event(&journal, index, event);
    }
    journal.trim(CHANNEL.into(), Offset(FIRST));
    journal.delete(StreamId(3));
    journal.turn();
    journal.close().unwrap();
    drop(journal);

    let before_sync = Options { before_sync: true, ..options.clone() };
    let journal = open(&before_sync);
    for (index, event) in first.iter().enumerate().skip(6) {
        append_event(&journal, index, event);
    }
    drop(journal);
    disk.kill();
    let journal = open(&before_sync);
    append_event(&journal, first.len(), last);
    journal.close().unwrap();
    for (name, bytes) in disk.snapshot() {
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join(name), bytes).unwrap();
    }
}

/// Holds a store against what `make` wrote.
fn check(disk: Arc<dyn Disk>, options: &Options) {
    let opened = EmbeddedJournal::open(disk, options).unwrap();
    assert!(!opened.new && !opened.unclean && opened.found.is_empty(), "{opened:?}");
    let journal = opened.journal;
    let mut streams = journal.streams();
    streams.sort_by_key(|(stream, _)| *stream != portal());
    let events = events();
    let end = Head { offset: offset_of(events.len() - 1), token: 0 };
    assert_eq!(streams, [(portal(), Head { offset: Offset(3 + LEAP), token: 0 }), (CHANNEL.into(), end)]);

    let batch = journal.read(portal(), Offset(1), 1 << 20).unwrap();
    let read: Vec<PortalEvent> = batch
        .entries
        .iter()
        .map(|entry| match entry {
            Entry::Record(raw) => payload::decode_portal(raw.kind, &raw.payload).unwrap(),
            Entry::Corrupt(damage) => panic!("{damage:?}"),
        })
        .collect();
    assert_eq!(read, portal_events());

    let batch = journal.read(CHANNEL.into(), Offset(1), 1 << 20).unwrap();
    assert_eq!(batch.first, Offset(FIRST));
    let wanted: Vec<Record> =
        events.into_iter().enumerate().map(|(index, event)| record_of(index, event)).skip(1).collect();
    let read: Vec<Record> = batch
        .entries
        .iter()
        .map(|entry| match entry {
            Entry::Record(raw) => payload::decode_record(raw).unwrap(),
            Entry::Corrupt(damage) => panic!("{damage:?}"),
        })
        .collect();
    assert_eq!(read, wanted);
}

/// The run of the golden store that has some.
const RUN: RunId = RunId(1 << 16);
/// Ids in it, each from the record of the next offset: more than a page.
const RUN_IDS: u64 = 400;

fn id(n: u64) -> Fingerprint {
    Key::new(*b"0123456789abcdef").message_id(&MessageId::trusted(&format!("wamid.{n}")))
}

/// Ids, each with the record that it comes from.
fn records() -> Rows {
    Rows::of_records((0..RUN_IDS).map(|n| (id(n), Offset(n + 1))).collect())
}

/// The same ids, each with a longer value.
fn values() -> Rows {
    let mut ids: Vec<_> = (0..RUN_IDS).map(|n| (id(n), n)).collect();
    ids.sort_unstable();
    let mut rows = Rows::new(20, ids.len());
    ids.into_iter().for_each(|(id, n)| rows.push(id, format!("value {n}").as_bytes()));
    rows
}

/// Writes a store whose base names a run.
fn make_with_a_run(rows: &Rows) -> SimDisk {
    let disk = SimDisk::new(43);
    let options = Options { segment_bytes: 9 << 10, threads: false, ..Options::default() };
    let journal = EmbeddedJournal::open(Arc::new(disk.clone()), &options).unwrap().journal;
    append_event(&journal, 0, &events()[0]);
    let written = journal.write_base(&mut |base| {
        let of = RunOf { stream: CHANNEL.into(), from: Timestamp(5), to: Timestamp(6), rows };
        let (run, _) = base.run(&of)?;
        base.names_run(CHANNEL.into(), run);
        base.section(CHANNEL.into(), Offset(1), b"the state", &Kept::default())
    });
    written.unwrap();
    journal.close().unwrap();
    disk
}

fn check_the_run(disk: Arc<dyn Disk>, rows: &Rows) {
    let opened = EmbeddedJournal::open(disk, &Options::default()).unwrap();
    assert!(!opened.new && !opened.unclean && opened.found.is_empty(), "{opened:?}");
    let journal = opened.journal;
    assert_eq!(journal.saved(CHANNEL.into()).unwrap().unwrap().state, &b"the state"[..]);
    let filter = journal.run_filter(CHANNEL.into(), RUN).unwrap();
    for (id, value) in rows.iter() {
        assert!(filter.may_have(id));
        assert_eq!(journal.find_in_run(CHANNEL.into(), RUN, id).unwrap().as_deref(), Some(value));
    }
    assert_eq!(journal.find_in_run(CHANNEL.into(), RUN, id(RUN_IDS)).unwrap(), None);
}

#[test]
fn the_golden_store_with_a_run_opens_and_finds_its_ids_and_a_run_is_written_so_today() {
    hold_to(GOLDEN_RUNS, "SHAREDLINE_MAKE_GOLDEN_RUNS", &records());
}

#[test]
fn the_golden_store_with_a_run_of_values_opens_and_finds_them_and_it_is_written_so_today() {
    hold_to(GOLDEN_VALUES, "SHAREDLINE_MAKE_GOLDEN_VALUES", &values());
}

/// Holds a golden store with a run to its bytes; writes it where the variable asks for that.
fn hold_to(golden: &str, make: &str, rows: &Rows) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(golden);
    #[expect(clippy::disallowed_methods, reason = "asked for by hand, for a new format alone")]
    if std::env::var(make).is_ok() {
        std::fs::create_dir_all(&golden).unwrap();
        for (name, bytes) in make_with_a_run(rows).snapshot() {
            std::fs::write(golden.join(name), bytes).unwrap();
        }
        return;
    }
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&golden).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    check_the_run(Arc::new(RealDisk::at(copy.path()).unwrap()), rows);
    // The disk's seed gives the store's id, so that every byte must come out the same.
    let written = make_with_a_run(rows).snapshot();
    for ending in [".run", ".base"] {
        let (name, bytes) = written.iter().find(|(name, _)| name.ends_with(ending)).unwrap();
        assert_eq!(*bytes, std::fs::read(golden.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn the_golden_store_opens_and_yields_its_records() {
    #[expect(clippy::disallowed_methods, reason = "asked for by hand, for a new format alone")]
    if let Ok(directory) = std::env::var("SHAREDLINE_MAKE_GOLDEN") {
        make(Path::new(&directory));
        return;
    }
    // A copy: opening a store begins a new segment.
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    for options in
        [Options::default(), Options { before_sync: true, segment_bytes: 9 << 10, ..Options::default() }]
    {
        check(Arc::new(RealDisk::at(copy.path()).unwrap()), &options);
    }
}

#[test]
fn what_is_written_today_reads_like_the_golden_store() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    check(Arc::new(RealDisk::at(directory.path()).unwrap()), &Options::default());
}

/// A channel with a claim that holds, and a conversation that became part of another.
fn channel() -> Channel {
    let mut channel = new_channel();
    let mut younger = events().swap_remove(1);
    if let Event::Message(message) = &mut younger {
        message.customer = Customer { wa_id: Some(CustomerName::trusted("4917")), ..Customer::default() };
        message.message_id = MessageId::trusted("wamid.other");
    }
    let merged = Event::Merged(Merged { from: ConversationId(6) });
    let more = [(ConversationId(6), younger), (CONVERSATION, merged)];
    let first = events().into_iter().enumerate().map(|(index, event)| record_of(index, event));
    first.for_each(|record| channel.apply(&record));
    for (conversation, event) in more {
        let offset = channel.head().next();
        channel.apply(&Record { offset, at: Timestamp(9), conversation: Some(conversation), event });
    }
    channel
}

fn new_channel() -> Channel {
    let keys = Keys { fingerprint: [1; 16], confirm: [2; 16], digest: [3; 16] };
    Channel::new(CHANNEL, Number::trusted("+15550783881"), None, keys, 3_600_000)
}

#[test]
fn a_state_of_format_1_reads_for_ever() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN_STATE);
    let senders = || Senders::new(Key::new([1; 16]), CHANNEL);
    #[expect(clippy::disallowed_methods, reason = "asked for by hand, for a new format alone")]
    if std::env::var("SHAREDLINE_MAKE_GOLDEN_STATE_1").is_ok() {
        std::fs::write(&path, state::save_channel(&channel(), &senders())).unwrap();
    }
    let golden = std::fs::read(path).unwrap();
    let (read, known) =
        state::restore_channel(&golden.clone().into(), new_channel(), senders().key()).unwrap();
    assert_eq!(but_for_turns(&read), but_for_turns(&channel()));
    assert_eq!(state::save_channel(&read, &known), golden, "what has nothing new is written as it was");
}

/// The same channel with all that came later: a note of whose a thread is, a status that came early with what it carries, a
/// bot's reply that waits, and ids that lie in a run.
fn channel_of_today() -> Channel {
    let mut channel = channel();
    let mut waiting = events().swap_remove(3);
    if let Event::Reply(reply) = &mut waiting {
        (reply.agent, reply.reply_id) = (None, ReplyId::trusted("r-2"));
    }
    let mut early = events().swap_remove(5);
    if let Event::StatusParked(parked) = &mut early {
        parked.message_id = MessageId::trusted("wamid.early");
        parked.carried = Some(Carried::checked(Bytes::from_static(br#"{"pricing":{"billable":true}}"#)));
    }
    let noted = Event::from(ThreadChange {
        action: ThreadAction::Passed,
        by: Actor::Service(crm()),
        agent: None,
        owner: Some(crm()),
        previous: None,
        until: Some(Timestamp(1_700_086_400_000)),
        metadata: Some(Arc::from("wants a refund")),
    });
    for (conversation, event) in [(Some(CONVERSATION), waiting), (None, early), (Some(CONVERSATION), noted)] {
        let offset = channel.head().next();
        channel.apply(&Record { offset, at: Timestamp(1_700_000_003_000), conversation, event });
    }
    lay_aside(&mut channel, Shelf::MessageIds, RunId(9));
    channel
}

/// The same with its reply in runs as well.
fn channel_with_replies_in_runs() -> (Channel, Senders) {
    let mut channel = channel_of_today();
    lay_aside(&mut channel, Shelf::ReplyIds, RunId(10));
    lay_aside(&mut channel, Shelf::Outcomes, RunId(11));
    let mut senders = Senders::new(Key::new([1; 16]), CHANNEL);
    events().into_iter().enumerate().for_each(|(index, event)| senders.apply(&record_of(index, event)));
    let movable = senders.movable(senders.movable_periods(1, None)[0]).unwrap();
    let laid = LaidAside { run: RunId(12), ..movable.about };
    senders.lay_aside(laid.clone());
    channel.lay_aside(Shelf::Sent, laid);
    (channel, senders)
}

#[test]
fn a_state_with_replies_in_runs_reads_for_ever() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN_STATE_WITH_SHELVES);
    let (channel, senders) = channel_with_replies_in_runs();
    #[expect(clippy::disallowed_methods, reason = "asked for by hand, for a new format alone")]
    if std::env::var("SHAREDLINE_MAKE_GOLDEN_STATE_3").is_ok() {
        std::fs::write(&path, state::save_channel(&channel, &senders)).unwrap();
    }
    let golden = std::fs::read(path).unwrap();
    let (read, known) = state::restore_channel(&golden.clone().into(), new_channel(), senders.key()).unwrap();
    assert_eq!((&read, &known), (&channel, &senders));
    assert_eq!(state::save_channel(&read, &known), golden);
}

/// Lays what a shelf has aside: it is all of one period.
fn lay_aside(channel: &mut Channel, shelf: Shelf, run: RunId) {
    let periods = channel.movable_periods(shelf, 1, None);
    let [period] = periods[..] else { panic!("one period, not {periods:?}") };
    let movable = channel.movable(shelf, period).unwrap();
    channel.lay_aside(shelf, LaidAside { run, ..movable.about });
}

#[test]
fn a_state_with_runs_reads_for_ever() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN_STATE_WITH_RUNS);
    let senders = || Senders::new(Key::new([1; 16]), CHANNEL);
    #[expect(clippy::disallowed_methods, reason = "asked for by hand, for a new format alone")]
    if std::env::var("SHAREDLINE_MAKE_GOLDEN_STATE_2").is_ok() {
        std::fs::write(&path, state::save_channel(&channel_of_today(), &senders())).unwrap();
    }
    let golden = std::fs::read(path).unwrap();
    let (read, known) =
        state::restore_channel(&golden.clone().into(), new_channel(), senders().key()).unwrap();
    assert_eq!(read, channel_of_today());
    assert_eq!(state::save_channel(&read, &known), golden);
}

/// All of a channel but whose turn it is to send: that was counted otherwise before services had weights, so that after an
/// upgrade the first turns alone may come in another order. And but for which records said what is remembered: that is
/// not saved.
fn but_for_turns(channel: &Channel) -> String {
    let shown = format!("{channel:?}");
    let (before, turns) = shown.split_once("turns: Turns {").unwrap();
    let (_, after) = turns.split_once("} }").unwrap();
    let mut shown = format!("{before}{after}");
    for what in [" last: Offset(", " changed: Offset("] {
        let mut parts = shown.split(what);
        let first = parts.next().unwrap().to_owned();
        let rest = parts.map(|part| part.split_once(')').unwrap().1);
        shown = rest.fold(first, |shown, part| shown + what + ")" + part);
    }
    shown
}
