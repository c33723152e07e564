//! A full disk: new work is refused with a clear error, what ends work goes on, nothing acknowledged is lost, and the
//! broker goes on by itself once there is room. On a real small file system, which the test mounts; where mounting is
//! not allowed, on the real disk behind a quota, which the test says.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test fails as it says")]

mod world;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sharedline::actors::broker::Setup;
use sharedline::actors::{Broker, Limits};
use sharedline::client::{Connection, position};
use sharedline::domain::event::{Agent, Customer};
use sharedline::domain::ids::{ChannelId, CustomerName, Offset, Timestamp};
use sharedline::domain::portal::Plan;
use sharedline::journal::disk::{Disk, DiskFile, DiskLock, RealDisk};
use sharedline::journal::{EmbeddedJournal, Options, Retention};
use sharedline::net::listener::{Listener, Settings};
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{
    Ack, CreateChannel, DeactivateChannel, Hello, Inbound, ListConversations, Open, PickUp, Release, Roster,
};
use sharedline::wire::message::{
    DeliverMode, Delivery, ErrorCode, Positions, RawContent, Request, Response, ServerBody, Who,
};
use tokio::time::timeout;

const NUMBER: &str = "+15550783881";
const WITHIN: Duration = Duration::from_secs(60);
/// The file system, in bytes.
const DISK_BYTES: u64 = 40 << 20;
const SEGMENT_BYTES: u64 = 4 << 20;
/// What every message says, in bytes.
const MESSAGE_BYTES: usize = 4 << 10;

/// A directory with little room.
struct SmallDisk {
    directory: PathBuf,
    mounted: bool,
    _above: tempfile::TempDir,
}

impl SmallDisk {
    fn new() -> Self {
        let above = tempfile::tempdir().unwrap();
        let directory = above.path().join("data");
        fs::create_dir(&directory).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs"])
            .arg(&directory)
            .output();
        let mounted = mount.is_ok_and(|mount| mount.status.success());
        println!(
            "{}",
            if mounted { "on a mounted tmpfs" } else { "behind a quota: nothing can be mounted here" }
        );
        Self { directory, mounted, _above: above }
    }

    fn disk(&self) -> Arc<dyn Disk> {
        let real = RealDisk::at(&self.directory).unwrap();
        if self.mounted {
            Arc::new(real)
        } else {
            Arc::new(Quota { real, directory: self.directory.clone() })
        }
    }

    /// Leaves so many bytes free.
    fn fill(&self, free: u64) {
        let filler = fs::File::create(self.directory.join("filler")).unwrap();
        let used = used(&self.directory);
        let zeros = vec![0; 1 << 16];
        let mut left = DISK_BYTES.saturating_sub(used + free);
        while left > 0 {
            use std::io::Write;
            let some = usize::try_from(left).unwrap().min(zeros.len());
            if (&filler).write_all(zeros.get(..some).unwrap()).is_err() {
                return;
            }
            left -= some as u64;
        }
    }

    fn empty(&self) {
        fs::remove_file(self.directory.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a broker that a failed test has left behind still has files open.
            let _ = Command::new("umount").arg("-l").arg(&self.directory).status();
        }
    }
}

fn used(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).unwrap();
    files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum()
}

/// The real disk, with less room than it has.
#[derive(Debug)]
struct Quota {
    real: RealDisk,
    directory: PathBuf,
}

#[derive(Debug)]
struct QuotaFile {
    real: Arc<dyn DiskFile>,
    directory: PathBuf,
}

impl Disk for Quota {
    fn lock(&self) -> io::Result<Option<DiskLock>> {
        self.real.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.real.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let real = self.real.open(name)?;
        Ok(Arc::new(QuotaFile { real, directory: self.directory.clone() }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let real = self.real.create(name)?;
        Ok(Arc::new(QuotaFile { real, directory: self.directory.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.real.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.real.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.real.sync_directory()
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.real.entropy(bytes)
    }

    fn place(&self, name: &str) -> String {
        self.real.place(name)
    }
}

impl DiskFile for QuotaFile {
    fn length(&self) -> io::Result<u64> {
        self.real.length()
    }

    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        self.real.read_at(bytes, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let grows = (position + bytes.len() as u64).saturating_sub(self.real.length()?);
        if grows > 0 && used(&self.directory) + grows > DISK_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.real.write_at(bytes, position)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        let grows = length.saturating_sub(self.real.length()?);
        if used(&self.directory) + grows > DISK_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.real.reserve(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.real.sync()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.real.set_length(length)
    }
}

struct Stand {
    broker: Broker,
    listener: Listener,
}

impl Stand {
    fn start(disk: &SmallDisk, retention: Retention) -> Self {
        let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::default() };
        let opened = EmbeddedJournal::open(disk.disk(), &options).unwrap();
        let setup = Setup {
            portals: vec![world::portal("acme", Plan::Bundle, &["crm", "desk"], &[(NUMBER, None)])],
            limits: Limits { recent_bytes_max: 1 << 20, retention, ..Limits::default() },
        };
        let broker = Broker::start_on(Arc::new(opened.journal), &opened.keys, setup).unwrap();
        let settings = Settings { ack_timeout: Duration::from_secs(600) };
        let listener = Listener::start("127.0.0.1:0".parse().unwrap(), &broker, settings).unwrap();
        Self { broker, listener }
    }

    async fn connect(&self, who: &str, deliver: DeliverMode) -> Peer {
        let hello = Hello {
            version: 1,
            who: if who == "whatsapp" {
                Who::Gateway(who.parse().unwrap())
            } else {
                Who::Service(who.parse().unwrap())
            },
            portal: "acme".parse().unwrap(),
            token: who.into(),
            adapter: Some("one".parse().unwrap()),
            window: 16_384,
            deliver,
            from: Positions::default(),
            heartbeat_ms: None,
        };
        let connection = Connection::open(self.listener.address(), Encoding::Binary, hello).await.unwrap();
        Peer { connection, delivered: Vec::new() }
    }

    async fn stop(self) {
        assert!(self.broker.halt_reason().is_none(), "{:?}", self.broker.halt_reason());
        self.listener.close();
        self.broker.stop(WITHIN).await.unwrap();
    }
}

struct Peer {
    connection: Connection,
    delivered: Vec<Delivery>,
}

impl Peer {
    async fn ask(&mut self, request: impl Into<Request>) -> Response {
        let id = self.connection.sender.put(&request.into()).unwrap();
        self.connection.sender.flush().await.unwrap();
        loop {
            let next = timeout(WITHIN, self.connection.receiver.next());
            let message = next.await.expect("an answer in time").unwrap();
            match message.body {
                ServerBody::Response(response) if message.id == id => return response,
                ServerBody::Delivery(delivery) => self.delivered.push(delivery),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn ok(&mut self, request: impl Into<Request>) {
        let response = self.ask(request).await;
        assert!(!matches!(response, Response::Error(_)), "{response:?}");
    }

    /// Whether a message was taken.
    async fn inbound(&mut self, at: u64) -> bool {
        let wa_id = CustomerName::read(&format!("1650{:07}", at % 10)).unwrap();
        let body = format!("{at:0width$}", width = MESSAGE_BYTES);
        let inbound = Inbound {
            number: NUMBER.parse().unwrap(),
            message_id: format!("wamid.{at}").parse().unwrap(),
            customer: Customer { wa_id: Some(wa_id), ..Customer::default() },
            at: Timestamp(1_700_000_000_000 + at),
            content: RawContent(Bytes::from(format!(r#"{{"type":"text","text":{{"body":"{body}"}}}}"#))),
            refers_to: None,
        };
        match self.ask(inbound).await {
            Response::InboundAccepted(accepted) => {
                assert_eq!(accepted.channels, 1);
                true
            }
            Response::Error(error) if error.code == ErrorCode::Unavailable => false,
            other => panic!("{other:?}"),
        }
    }

    async fn create(&mut self) -> ChannelId {
        let create = CreateChannel { number: NUMBER.parse().unwrap(), backfill: false };
        match self.ask(create).await {
            Response::Channel(channel) => channel.seen.channel,
            other => panic!("{other:?}"),
        }
    }
}

/// Sends from `at` on until one is refused; gives the number of the next.
async fn until_refused(gateway: &mut Peer, mut at: u64) -> u64 {
    while gateway.inbound(at).await {
        at += 1;
        assert!(at < 100_000, "the disk never fills");
    }
    at
}

#[tokio::test]
async fn a_full_disk_refuses_new_work_serves_the_rest_and_goes_on_by_itself() {
    let disk = SmallDisk::new();
    let keep = Limits::default().retention;
    let stand = Stand::start(&disk, keep);
    let mut crm = stand.connect("crm", DeliverMode::Share).await;
    let channel = crm.create().await;
    let mut desk = stand.connect("desk", DeliverMode::None).await;
    assert_eq!(desk.create().await, channel);
    let agent = Agent { agent: "ann".parse().unwrap(), name: "Ann".into(), lead: false };
    crm.ok(Roster { agents: vec![agent], replace: true, remove: Vec::new() }).await;
    let mut gateway = stand.connect("whatsapp", DeliverMode::None).await;
    assert!(gateway.inbound(0).await);
    let list = || ListConversations { channel, after: None, limit: None, claimed: None, unanswered: None };
    let Response::Conversations(found) = crm.ask(list()).await else { panic!("a list") };
    let conversation = found.conversations.first().unwrap().conversation;
    let ann = || "ann".parse().unwrap();
    crm.ok(PickUp { channel, conversation, agent: ann(), confirm: None }).await;

    disk.fill(SEGMENT_BYTES / 2);
    let taken = until_refused(&mut gateway, 1).await;
    println!("{taken} messages were taken before the disk was full");
    // What is refused is refused clearly, again and again, and what reads or ends something goes on.
    assert!(!gateway.inbound(taken).await);
    let refused = desk.ask(PickUp { channel, conversation, agent: ann(), confirm: None }).await;
    assert!(
        matches!(&refused, Response::Error(error) if error.code == ErrorCode::Unavailable),
        "{refused:?}"
    );
    crm.ok(list()).await;
    crm.ok(Open { channel, conversation, agent: ann(), limit: 5, before: None }).await;
    let last = crm.delivered.iter().rev().find_map(position).unwrap();
    crm.connection.sender.put(&Ack { channel, offset: last.1 }.into()).unwrap();
    crm.ok(Release { channel, conversation, agent: ann(), force: false, holder: None }).await;
    desk.ok(DeactivateChannel { channel }).await;
    assert!(stand.broker.halt_reason().is_none());

    disk.empty();
    let since = Instant::now();
    while !gateway.inbound(taken).await {
        assert!(since.elapsed() < WITHIN, "it goes on by itself");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop((crm, desk, gateway));
    stand.stop().await;

    // Nothing that was acknowledged is lost.
    let stand = Stand::start(&disk, keep);
    let mut watcher = stand.connect("crm", DeliverMode::None).await;
    let mut gateway = stand.connect("whatsapp", DeliverMode::None).await;
    let Response::Channel(seen) =
        watcher.ask(sharedline::wire::message::requests::GetChannel { channel }).await
    else {
        panic!("a channel")
    };
    assert!(seen.seen.head > Offset(taken), "{:?}", seen.seen);
    assert!(gateway.inbound(taken + 1).await);
    drop((watcher, gateway));
    stand.stop().await;
}

#[tokio::test]
async fn a_small_disk_carries_many_times_its_size_where_history_may_go() {
    let disk = SmallDisk::new();
    let keep = Retention { keep_ms: 86_400_000, bytes_max: 2 * SEGMENT_BYTES };
    let stand = Stand::start(&disk, keep);
    let mut crm = stand.connect("crm", DeliverMode::None).await;
    crm.create().await;
    let mut gateway = stand.connect("whatsapp", DeliverMode::None).await;
    let messages = 2 * DISK_BYTES / MESSAGE_BYTES as u64;
    let mut refused = 0_u64;
    let mut at = 0;
    while at < messages {
        if gateway.inbound(at).await {
            at += 1;
        } else {
            refused += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(refused < 10_000, "history goes");
    }
    println!("{messages} messages, {refused} times refused meanwhile, {} bytes used", used(&disk.directory));
    assert!(used(&disk.directory) <= DISK_BYTES);
    drop((crm, gateway));
    stand.stop().await;
}
