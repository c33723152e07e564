//! A year of traffic, in simulated time, through the running broker on a real directory: what the broker forgets it
//! forgets on time, what it must know it knows, and neither disk nor memory grows.
//!
//! Retention is 7 days; ids are known for 8, senders for 30. Half a day at a time: customers write, a service replies, the
//! gateway says what became of it, both services acknowledge. On each day the broker is asked what it remembers of
//! nearly 8 days and of nearly 30 days ago; every quarter it is stopped and started again, from its base.
//!
//! A busy channel beside it has little memory for ids: those of messages go to runs on disk, are told apart there for 8
//! days, and then the runs go. So does what is known of replies, in a channel that sends many, for 30 days.
//!
//! `SHAREDLINE_DAYS=3650 cargo test --release --test year` plays ten years.

#![cfg(feature = "broker")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is a test's report"
)]

mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sharedline::actors::adapter::{Peer, Request};
use sharedline::actors::batch::BatchEntry;
use sharedline::actors::broker::{Connected, Hello, Setup};
use sharedline::actors::port::{Answered, Outgoing, Refusal};
use sharedline::actors::{Ask, Broker, Deliver, Limits, simulate};
use sharedline::domain::command::{Addressee, Command, ReplyCommand, SendOutcome, StatusCommand, StatusOf};
use sharedline::domain::event::{ClearTo, Customer, Message, Status, StatusError};
use sharedline::domain::ids::{ChannelId, CustomerName, Offset, ServiceId, Timestamp};
use sharedline::domain::portal::Plan;
use sharedline::domain::view::{Masking, View, Viewer, view};
use sharedline::journal::{Options, Retention};
use sharedline::wire::content::{check_inbound, check_reply};

/// The simulated time is the process's: one test after the other.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const NUMBER: &str = "+15550783881";
const WAIT: Duration = Duration::from_secs(30);
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const START: Timestamp = Timestamp(1_700_000_000_000);
/// Half a day: how far time goes between two looks.
const STEP: u64 = 12 * HOUR;
/// What comes in each step.
const MESSAGES: u64 = 100;
/// What comes in each step of the busy channel, and for how many days.
const BUSY_MESSAGES: u64 = 2_000;
const BUSY_DAYS: u64 = 22;
/// What its ids may take in memory, in bytes: those of about 8 of the 16 steps of 8 days.
const BUSY_IDS_BYTES_MAX: u64 = 512 << 10;
const REPLIES: u64 = 20;
/// Replies of each step where they are many, and for how many days.
const MANY_REPLIES: u64 = 400;
const REPLYING_DAYS: u64 = 33;
/// What is remembered of these may take in memory, in bytes: all of it would be four times that.
const REPLIES_BYTES_MAX: u64 = 3 << 19;
const CUSTOMERS: u64 = 50;
/// So small that a year fills thousands of segments' worth of history, in bytes.
const SEGMENT_BYTES: u64 = 64 << 10;
/// The longest that history may stay: twice its time, and the steps about it.
const HISTORY_STEPS_MAX: u64 = (14 * DAY + DAY) / STEP;
/// More than a step's records take in the journal, and than the states in all bases, in bytes.
const STEP_BYTES_MAX: u64 = (MESSAGES + 4 * REPLIES) * 400;
const STATES_BYTES_MAX: u64 = 4 << 20;

#[expect(clippy::disallowed_methods, reason = "the length of the campaign is no configuration of the broker")]
fn days() -> u64 {
    std::env::var("SHAREDLINE_DAYS").map_or(365, |days| days.parse().unwrap())
}

/// One connection: what it was answered and what it saw.
struct Connection {
    connected: Connected,
    viewer: ServiceId,
    answers: BTreeMap<u64, Answered>,
    /// The requests that were answered, in the order of the answers.
    answered: Vec<u64>,
    /// The last offset that it was delivered.
    seen: Offset,
    /// Each message that it saw, since it was last looked at: the text of its content, and whether it was redacted.
    texts: Vec<(String, bool)>,
    sends: Vec<Offset>,
    /// The receipts that it saw: of which reply, and how far that has come.
    receipts: Vec<(String, Status)>,
    next_id: u64,
}

impl Connection {
    fn open(broker: &Broker, peer: Peer) -> Self {
        let (viewer, token): (ServiceId, String) = match &peer {
            Peer::Service(service) => (service.clone(), service.to_string()),
            Peer::Gateway(gateway) => ("gateway".parse().unwrap(), gateway.to_string()),
        };
        let hello = Hello {
            portal: "acme".parse().unwrap(),
            peer,
            token,
            adapter: Some("one".parse().unwrap()),
            window: 65_536,
            deliver: Deliver::Share,
        };
        let connected = broker.connect(hello).unwrap();
        let (answers, answered, texts, sends, receipts) = Default::default();
        let seen = Offset::ZERO;
        Self { connected, viewer, answers, answered, seen, texts, sends, receipts, next_id: 0 }
    }

    async fn take(&mut self) {
        let mut out = Vec::new();
        while !self.connected.session.outlet().take(&mut out) {
            tokio::time::timeout(WAIT, self.connected.session.outlet().ready()).await.unwrap();
        }
        for outgoing in out {
            match outgoing {
                Outgoing::Answers(answers) => {
                    self.answered.extend(answers.iter().map(|(id, _)| *id));
                    self.answers.extend(answers);
                }
                Outgoing::Send(send) => self.sends.push(send.offset),
                Outgoing::Deliveries(slice) => slice.entries().iter().for_each(|entry| self.see(entry)),
                _ => {}
            }
        }
    }

    fn see(&mut self, entry: &BatchEntry) {
        self.seen = self.seen.max(entry.offset());
        let BatchEntry::Record(record) = entry else { panic!("{entry:?}") };
        let viewer = Viewer { service: &self.viewer, masking: Masking::Broker };
        match view(record, &viewer) {
            Some((_, View::Message { content, redacted, .. })) => {
                self.texts.push((String::from_utf8(content.to_vec()).unwrap(), redacted));
            }
            Some((_, View::Receipt(receipt))) => {
                self.receipts.push((receipt.reply_id.as_str().to_owned(), receipt.status));
            }
            _ => {}
        }
    }

    /// Asks all of it at once, and gives the answers in order.
    async fn ask_all(&mut self, requests: impl IntoIterator<Item = Request>) -> Vec<Answered> {
        let first = self.next_id + 1;
        let requests: Vec<(u64, Request)> = (first..).zip(requests).collect();
        self.next_id += requests.len() as u64;
        let bytes = requests.len() * 100;
        self.connected.session.ask(requests, bytes).await.unwrap();
        let mut answers = Vec::new();
        for id in first..=self.next_id {
            while !self.answers.contains_key(&id) {
                self.take().await;
            }
            answers.extend(self.answers.remove(&id));
        }
        assert!(self.answered.is_sorted(), "one channel answers in order: {:?}", self.answered);
        self.answered.clear();
        answers
    }

    async fn ask(&mut self, request: Request) -> Answered {
        self.ask_all([request]).await.remove(0)
    }

    /// Takes deliveries up to an offset, and acknowledges them.
    async fn catch_up(&mut self, channel: ChannelId, head: Offset) {
        while self.seen < head {
            self.take().await;
        }
        let ack = Request::Of(channel, Ask::Ack(self.seen));
        self.connected.session.ask(vec![(0, ack)], 1).await.unwrap();
    }
}

fn inbound(id: &str, from: u64, sent_at: Timestamp, content: &str) -> Request {
    let checked = check_inbound(&Bytes::copy_from_slice(content.as_bytes())).unwrap();
    let wa_id = CustomerName::read(&format!("1650555{from:04}")).unwrap();
    let message = Message {
        message_id: id.parse().unwrap(),
        customer: Customer { wa_id: Some(wa_id), ..Customer::default() },
        formerly: Vec::new(),
        sent_at,
        content: checked.content,
        refers_to: checked.refers_to,
        clear_to: ClearTo::Everyone,
        contact: None,
    };
    Request::Inbound { number: NUMBER.parse().unwrap(), inbound: message.into() }
}

fn text(id: &str, from: u64, sent_at: Timestamp) -> Request {
    inbound(id, from, sent_at, &format!(r#"{{"type":"text","text":{{"body":"{id}"}}}}"#))
}

/// A button tapped on a message of the business.
fn tap(id: &str, on: &str, sent_at: Timestamp) -> Request {
    let content = format!(
        r#"{{"type":"button","button":{{"payload":"for machines","text":"Yes"}},"context":{{"id":"{on}"}}}}"#
    );
    inbound(id, 0, sent_at, &content)
}

fn reply(reply_id: &str, channel: ChannelId, to: u64) -> Request {
    let content = check_reply(&Bytes::from_static(br#"{"type":"text","text":{"body":"hello"}}"#)).unwrap();
    let command = ReplyCommand {
        service: "desk".parse().unwrap(),
        agent: None,
        to: Addressee::Customer(CustomerName::read(&format!("1650555{to:04}")).unwrap()),
        reply_id: reply_id.parse().unwrap(),
        content: content.content,
        callback_data: None,
        seen: None,
        confirm: None,
    };
    Request::Of(channel, Ask::from(Command::Reply(command)))
}

/// The broker and who is connected to it.
struct Stand {
    broker: Broker,
    crm: Connection,
    desk: Connection,
    gateway: Connection,
    channel: ChannelId,
    /// Messages of each step.
    messages: u64,
    /// Replies of each step.
    replies: u64,
}

impl Stand {
    async fn start(directory: &Path) -> Self {
        Self::start_with(directory, (MESSAGES, REPLIES), Limits::default().dedup_bytes_max).await
    }

    async fn start_with(directory: &Path, (messages, replies): (u64, u64), dedup_bytes_max: u64) -> Self {
        let retention = Retention { keep_ms: 7 * DAY, bytes_max: 64 << 20 };
        let setup = Setup {
            portals: vec![world::portal(
                "acme",
                Plan::Bundle,
                &["crm", "desk"],
                &[(NUMBER, Some(world::GATEWAY))],
            )],
            limits: Limits { recent_bytes_max: 256 << 10, dedup_bytes_max, retention, ..Limits::default() },
        };
        let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::default() };
        let broker = world::start(directory, &options, setup);
        let mut crm = Connection::open(&broker, Peer::Service("crm".parse().unwrap()));
        let mut desk = Connection::open(&broker, Peer::Service("desk".parse().unwrap()));
        let gateway = Connection::open(&broker, Peer::Gateway(world::GATEWAY.parse().unwrap()));
        let mut channels = Vec::new();
        for service in [&mut crm, &mut desk] {
            let create = Request::Create { number: NUMBER.parse().unwrap(), backfill: false };
            match service.ask(create).await {
                Answered::Channel { seen, .. } => channels.push(seen.channel),
                other => panic!("{other:?}"),
            }
        }
        Self { broker, crm, desk, gateway, channel: channels.remove(0), messages, replies }
    }

    async fn stop(self) {
        let Self { broker, crm, desk, gateway, .. } = self;
        drop((crm, desk, gateway));
        broker.stop(WAIT).await.unwrap();
    }

    /// Half a day's traffic.
    async fn live(&mut self, step: u64, now: Timestamp) {
        let messages =
            (0..self.messages).map(|at| text(&format!("wamid.{step}.{at}"), at % CUSTOMERS, now.plus_ms(at)));
        for answer in self.gateway.ask_all(messages).await {
            assert!(matches!(answer, Answered::Taken { channels: 1, duplicate: false }), "{answer:?}");
        }
        let channel = self.channel;
        let replies = (0..self.replies).map(|at| reply(&format!("r{step}.{at}"), channel, at % CUSTOMERS));
        for answer in self.desk.ask_all(replies).await {
            assert!(matches!(answer, Answered::Accepted { duplicate: false, .. }), "{answer:?}");
        }
        let mut outcomes = 0;
        while outcomes < self.replies {
            while self.gateway.sends.is_empty() {
                self.gateway.take().await;
            }
            let sent = std::mem::take(&mut self.gateway.sends).into_iter().map(|reply| {
                let id = format!("wamid.out.{step}.{outcomes}");
                outcomes += 1;
                let outcome = SendOutcome::Sent(id.parse().unwrap());
                Request::Of(channel, Ask::Outcome { reply, outcome: Box::new(outcome) })
            });
            let sent: Vec<Request> = sent.collect();
            self.gateway.ask_all(sent).await;
        }
        let head = self.marked(step, now).await;
        self.crm.catch_up(channel, head).await;
        self.desk.catch_up(channel, head).await;
    }

    /// What is handed over fails: it is not of those that the test looks at again.
    async fn lose_sends(&mut self) {
        let channel = self.channel;
        let mut failed = 0;
        while failed < 200 {
            while self.gateway.sends.is_empty() {
                self.gateway.take().await;
            }
            let sends = std::mem::take(&mut self.gateway.sends);
            failed += sends.len();
            let error = StatusError { code: "131026".into(), title: None, details: None };
            let outcome = |reply| {
                let outcome = Box::new(SendOutcome::Failed(error.clone()));
                Request::Of(channel, Ask::Outcome { reply, outcome })
            };
            self.gateway.ask_all(sends.into_iter().map(outcome)).await;
        }
    }

    /// The offset of one more message, which all get: behind everything else.
    async fn marked(&mut self, step: u64, now: Timestamp) -> Offset {
        let id = format!("wamid.mark.{step}");
        self.gateway.ask(text(&id, 0, now)).await;
        self.crm.texts.clear();
        while !self.crm.texts.iter().any(|(text, _)| text.contains(&id)) {
            self.crm.take().await;
        }
        self.crm.seen
    }

    /// What is known of nearly 8 days ago, whether its history is gone or not.
    async fn still_knows_ids(&mut self, step: u64) {
        let then = Timestamp(START.0 + step * STEP);
        let repeat = text(&format!("wamid.{step}.7"), 7, then.plus_ms(7));
        let again = self.gateway.ask(repeat).await;
        assert!(matches!(again, Answered::Taken { channels: 1, duplicate: true }), "step {step}: {again:?}");
        // What is asked behind it needs no look at the disk, and is answered behind it all the same.
        let again = reply(&format!("r{step}.3"), self.channel, 3);
        let answers = self.desk.ask_all([again, Request::Of(self.channel, Ask::Get)]).await;
        assert!(matches!(answers[0], Answered::Accepted { duplicate: true, .. }), "step {step}: {answers:?}");
    }

    /// A customer has read what the desk sent in that step, which WhatsApp tells twice: the desk learns it so many times,
    /// whether what is known of the reply is in memory or not.
    async fn read(&mut self, step: u64, at: u64, now: Timestamp, times: usize) {
        let read =
            |of| StatusCommand { of, status: Status::Read, error: None, status_at: now, carried: None };
        let of = || StatusOf::Message(format!("wamid.out.{step}.{at}").parse().unwrap());
        self.desk.receipts.clear();
        for _ in 0..2 {
            let (number, status) = (NUMBER.parse().unwrap(), Box::new(read(of())));
            let answer = self.gateway.ask(Request::Status { number, channel: None, status }).await;
            assert!(matches!(answer, Answered::Ok), "{answer:?}");
        }
        let head = self.marked(now.0 + at + times as u64, now).await;
        self.desk.catch_up(self.channel, head).await;
        let read: Vec<_> =
            self.desk.receipts.drain(..).filter(|(_, status)| *status == Status::Read).collect();
        let ids: Vec<_> = read.iter().map(|(reply_id, _)| reply_id.as_str()).collect();
        assert_eq!(ids.len(), times, "step {step}, message {at}: {ids:?}");
        assert!(ids.iter().all(|id| id.starts_with(&format!("r{step}."))), "step {step}: {ids:?}");
    }

    /// A tap on a message that the desk sent in that step; says whether the desk alone gets it in clear.
    async fn tap_goes_to_its_sender(&mut self, step: u64, now: Timestamp) -> bool {
        let id = format!("wamid.tap.{step}.{}", now.0);
        self.crm.texts.clear();
        self.desk.texts.clear();
        self.gateway.ask(tap(&id, &format!("wamid.out.{step}.0"), now)).await;
        let mut clear = Vec::new();
        for service in [&mut self.crm, &mut self.desk] {
            while !service.texts.iter().any(|(text, _)| text.contains("button")) {
                service.take().await;
            }
            let (text, redacted) = service.texts.iter().find(|(text, _)| text.contains("button")).unwrap();
            assert_eq!(text.contains("for machines"), !redacted);
            clear.push(!redacted);
        }
        assert_eq!(clear.iter().filter(|clear| **clear).count(), 1, "one service sees it in clear");
        clear.pop().unwrap()
    }
}

/// Bytes in the directory.
fn disk_bytes(directory: &Path) -> u64 {
    std::fs::read_dir(directory).unwrap().filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

/// Memory that the process holds, in bytes.
fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn a_year_leaves_disk_and_memory_as_they_were_and_forgets_on_time() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(year());
}

async fn year() {
    let directory = tempfile::tempdir().unwrap();
    let steps = days() * DAY / STEP;
    simulate(START);
    let mut stand = Stand::start(directory.path()).await;
    let (mut disk_max, mut memory) = (0, Vec::new());
    let mut taps_known = 0;
    for step in 0..steps {
        let now = Timestamp(START.0 + step * STEP);
        simulate(now);
        stand.live(step, now).await;
        if let Some(then) = step.checked_sub(8 * DAY / STEP - 1) {
            stand.still_knows_ids(then).await;
        }
        if let Some(then) = step.checked_sub(30 * DAY / STEP - 1) {
            assert!(stand.tap_goes_to_its_sender(then, now).await, "step {step}: sent 29.5 days ago");
            taps_known += 1;
        }
        if let Some(then) = step.checked_sub(36 * DAY / STEP)
            && step % 20 == 0
        {
            assert!(!stand.tap_goes_to_its_sender(then, now).await, "step {step}: sent 36 days ago");
        }
        // Twice: what a base covers may go with the next look.
        stand.broker.keep_history();
        stand.broker.keep_history();
        disk_max = disk_max.max(disk_bytes(directory.path()));
        if (step + 1) % (steps / 8).max(1) == 0 {
            stand.stop().await;
            memory.push(memory_bytes());
            println!(
                "step {step}: {} KiB on disk, {} KiB of memory",
                disk_max >> 10,
                memory.last().unwrap() >> 10
            );
            stand = Stand::start(directory.path()).await;
        }
    }
    assert!(taps_known > 0, "the year is too short");
    stand.stop().await;
    let most = HISTORY_STEPS_MAX * STEP_BYTES_MAX + STATES_BYTES_MAX;
    assert!(disk_max < most, "{disk_max} bytes on disk, of {most} at most");
    // The first eighth fills what is remembered for 8 and 30 days.
    let (then, last) = (memory.get(1).unwrap(), memory.last().unwrap());
    assert!(*last < then + then / 4 + (8 << 20), "memory grew: {memory:?}");
}

/// Whether a message of a step, told again, is known.
async fn is_known(stand: &mut Stand, step: u64, at: u64) -> bool {
    let then = Timestamp(START.0 + step * STEP);
    let repeat = text(&format!("wamid.{step}.{at}"), at % CUSTOMERS, then.plus_ms(at));
    match stand.gateway.ask(repeat).await {
        Answered::Taken { channels: 1, duplicate } => duplicate,
        other => panic!("step {step}, message {at}: {other:?}"),
    }
}

/// The runs in the directory.
fn runs(directory: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "run")).collect()
}

/// The most that there was at a time.
#[derive(Debug, Default)]
struct Kept {
    /// Memory for ids, in bytes.
    ids_bytes: u64,
    runs: usize,
}

impl Kept {
    /// Half a day's traffic, and then the keeper's looks; nothing is forgotten before its time.
    async fn live(&mut self, stand: &mut Stand, directory: &Path, step: u64) -> Timestamp {
        let now = Timestamp(START.0 + step * STEP);
        simulate(now);
        stand.live(step, now).await;
        for _ in 0..3 {
            stand.broker.keep_history();
        }
        let seen = stand.broker.observed();
        assert_eq!(seen.counts.dropped_ids, 0, "step {step}: ids were forgotten before their time");
        // What was laid aside at this look is given back by the channel's actor in its own time.
        self.ids_bytes = self.ids_bytes.max(seen.ids_bytes);
        self.runs = self.runs.max(runs(directory).len());
        now
    }
}

#[test]
fn a_busy_channel_keeps_flat_memory_and_its_ids_are_told_apart_on_disk_for_8_days() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(busy());
}

async fn busy() {
    let directory = tempfile::tempdir().unwrap();
    let start = || Stand::start_with(directory.path(), (BUSY_MESSAGES, REPLIES), BUSY_IDS_BYTES_MAX);
    simulate(START);
    let mut stand = start().await;
    let mut kept = Kept::default();
    for step in 0..BUSY_DAYS * DAY / STEP {
        kept.live(&mut stand, directory.path(), step).await;
        if let Some(then) = step.checked_sub(8 * DAY / STEP - 1) {
            for at in (0..BUSY_MESSAGES).step_by(97) {
                assert!(is_known(&mut stand, then, at).await, "step {step}: message {at} of 7.5 days ago");
            }
            // Others of that time, told late: a filter alone would take some of them for known.
            let late = Timestamp(START.0 + then * STEP);
            let late = (0..200).map(|at| text(&format!("wamid.late.{step}.{at}"), 1, late.plus_ms(at)));
            for answer in stand.gateway.ask_all(late).await {
                assert!(matches!(answer, Answered::Taken { channels: 1, duplicate: false }), "{answer:?}");
            }
        }
        if let Some(then) = step.checked_sub(8 * DAY / STEP + 1) {
            assert!(!is_known(&mut stand, then, 5).await, "step {step}: 8.5 days ago is taken as new");
        }
        if step % 12 == 11 {
            stand.stop().await;
            stand = start().await;
        }
    }
    println!("ids: {kept:?}");
    assert!(kept.runs > 0 && kept.runs < 40, "{kept:?}");
    assert!(kept.ids_bytes < BUSY_IDS_BYTES_MAX + BUSY_MESSAGES * 2 * 64, "{kept:?}");
    stand.stop().await;

    // A run that is gone, or damaged, costs its own ids and nothing else.
    let mut files = runs(directory.path());
    files.sort();
    let (gone, damaged) = (files.pop().unwrap(), files.pop().unwrap());
    std::fs::remove_file(&gone).unwrap();
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let mut stand = start().await;
    let last = BUSY_DAYS * DAY / STEP - 1;
    let mut known = 0;
    for step in last - 14..=last {
        known += u64::from(is_known(&mut stand, step, 40).await);
    }
    assert!((5..15).contains(&known), "{known} of 15 steps are known without two runs");
    stand.live(last + 1, Timestamp(START.0 + (last + 1) * STEP)).await;
    stand.stop().await;
}

#[test]
fn who_replies_much_has_little_memory_and_each_reply_is_known_for_8_days_and_its_message_for_30() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(replying());
}

async fn replying() {
    let directory = tempfile::tempdir().unwrap();
    let start = || Stand::start_with(directory.path(), (MESSAGES, MANY_REPLIES), REPLIES_BYTES_MAX);
    simulate(START);
    let mut stand = start().await;
    let mut kept = Kept::default();
    for step in 0..REPLYING_DAYS * DAY / STEP {
        let now = kept.live(&mut stand, directory.path(), step).await;
        if let Some(then) = step.checked_sub(8 * DAY / STEP - 1) {
            stand.still_knows_ids(then).await;
            // Another reply by a new name, while a filter alone would take some of them for known.
            let channel = stand.channel;
            let new = (0..200).map(|at| reply(&format!("new.{step}.{at}"), channel, at % CUSTOMERS));
            for answer in stand.desk.ask_all(new).await {
                assert!(matches!(answer, Answered::Accepted { duplicate: false, .. }), "{answer:?}");
            }
            stand.lose_sends().await;
        }
        if let Some(then) = step.checked_sub(8 * DAY / STEP) {
            stand.read(then, 17, now, 1).await;
            stand.read(then, 18, now, 1).await;
        }
        if let Some(then) = step.checked_sub(30 * DAY / STEP - 1) {
            stand.read(then, 19, now, 1).await;
            assert!(stand.tap_goes_to_its_sender(then, now).await, "step {step}: sent 29.5 days ago");
        }
        if step % 58 == 57 {
            stand.stop().await;
            stand = start().await;
            if let Some(then) = step.checked_sub(8 * DAY / STEP) {
                stand.read(then, 17, now, 0).await;
                stand.read(then, 20, now, 1).await;
            }
        }
    }
    println!("replies: {kept:?}");
    assert!(kept.runs > 0 && kept.runs < 80, "{kept:?}");
    assert!(kept.ids_bytes < REPLIES_BYTES_MAX + MANY_REPLIES * 3 * 256, "{kept:?}");

    // While the disk refuses, a name that may be in use is neither taken nor called free; what is gone counts as unseen.
    let then = REPLYING_DAYS * DAY / STEP - 14;
    let again = |stand: &Stand| reply(&format!("r{then}.3"), stand.channel, 3);
    let files = runs(directory.path());
    let away = |path: &Path| path.with_extension("away");
    for file in &files {
        std::fs::rename(file, away(file)).unwrap();
        std::fs::create_dir(file).unwrap();
    }
    let answer = stand.desk.ask(again(&stand)).await;
    assert!(matches!(answer, Answered::Refused(Refusal::Unavailable)), "{answer:?}");
    for file in &files {
        std::fs::remove_dir(file).unwrap();
        std::fs::rename(away(file), file).unwrap();
    }
    let answer = stand.desk.ask(again(&stand)).await;
    assert!(matches!(answer, Answered::Accepted { duplicate: true, .. }), "{answer:?}");
    for file in &files {
        std::fs::remove_file(file).unwrap();
    }
    let answer = stand.desk.ask(again(&stand)).await;
    assert!(matches!(answer, Answered::Accepted { duplicate: false, .. }), "{answer:?}");
    stand.stop().await;
}

#[test]
fn where_no_ids_can_be_laid_aside_the_oldest_are_forgotten_and_counted() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        simulate(START);
        // Too few of a day for a run.
        let mut stand = Stand::start_with(directory.path(), (MESSAGES, REPLIES), 16 << 10).await;
        for step in 0..8 {
            let now = Timestamp(START.0 + step * STEP);
            simulate(now);
            stand.live(step, now).await;
            for _ in 0..4 {
                stand.broker.keep_history();
            }
        }
        let seen = stand.broker.observed();
        assert!(seen.counts.dropped_ids > 0 && seen.ids_bytes < 40 << 10, "{seen:?}");
        assert!(runs(directory.path()).is_empty());
        assert!(!is_known(&mut stand, 0, 7).await, "the oldest went first");
        assert!(is_known(&mut stand, 7, 7).await);
        stand.stop().await;
    });
}
