//! A subscriber under load: counts what is delivered, acknowledges it, and looks how late it came.
//!
//! It reads frames and looks into few of them, since it shares the machine with the broker that it measures: into the
//! first and the last of each read, or into all where latency is what the run is about or there are several channels.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::time::timeout;

use super::measured::Waits;
use super::target::Target;
use crate::client::{Connection, Receiver, Sender, position};
use crate::domain::ids::{ChannelId, Offset};
use crate::wire::frame::Encoding;
use crate::wire::message::requests::{Ack, CreateChannel};
use crate::wire::message::{Delivery, Request, Response, ServerBody};

/// How long nothing may happen before the run counts as failed.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(30);
/// How long nothing comes before all that was to come has come.
const QUIET_FOR: Duration = Duration::from_millis(200);
/// Bytes between two acknowledgements, at most: a quarter of what a broker hands out unacknowledged, whatever the window.
const ACK_EVERY_BYTES: usize = 4 << 20;
/// Channels that are asked for at once: fewer than the requests that a broker reads.
const CREATE_AT_ONCE: usize = 256;

/// A run: its messages' ids bear its name and when they were due.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) name: String,
    pub(super) begun: Instant,
}

impl Run {
    /// An id of this run for number `at`, which was due then.
    pub(super) fn id(&self, due: Duration, at: u64) -> String {
        format!("b.{}.{}.{at}", self.name, due.as_nanos())
    }

    /// How late what bears the id came, if it is this run's.
    pub(super) fn waited(&self, id: &str) -> Option<Duration> {
        let mut parts = id.split('.').skip(1);
        let (name, due) = (parts.next()?, parts.next()?);
        (name == self.name)
            .then(|| Some(self.begun.elapsed().saturating_sub(Duration::from_nanos(due.parse().ok()?))))?
    }
}

/// A service's connection that takes what it is given.
#[derive(Debug)]
pub(super) struct Subscriber {
    sender: Sender,
    receiver: Receiver,
    encoding: Encoding,
    looks_at_all: bool,
    ack_every: u64,
    /// Deliveries since the last acknowledgement, and their bytes.
    waiting: u64,
    waiting_bytes: usize,
    /// The newest delivery of each channel that waits for its acknowledgement.
    newest: HashMap<ChannelId, Offset>,
    frames: Vec<Bytes>,
}

impl Subscriber {
    pub(super) async fn open(target: &Target, service: &str, encoding: Encoding) -> anyhow::Result<Self> {
        Ok(Self::of(target.service(service, encoding).await?, encoding))
    }

    /// On a connection that is there.
    pub(super) fn of(connection: Connection, encoding: Encoding) -> Self {
        let Connection { welcome, sender, receiver } = connection;
        Self {
            sender,
            receiver,
            encoding,
            looks_at_all: false,
            ack_every: u64::from(welcome.window / 4).max(1),
            waiting: 0,
            waiting_bytes: 0,
            newest: HashMap::new(),
            frames: Vec::new(),
        }
    }

    /// Whether it looks into every delivery.
    pub(super) fn look_at_all(&mut self, all: bool) {
        self.looks_at_all = all;
    }

    /// Creates the numbers in its service, or finds them there.
    pub(super) async fn join(&mut self, numbers: &[String]) -> anyhow::Result<()> {
        for some in numbers.chunks(CREATE_AT_ONCE) {
            for number in some {
                let create = CreateChannel { number: number.parse()?, backfill: false };
                self.sender.put(&Request::CreateChannel(create))?;
            }
            self.sender.flush().await?;
            let mut created = 0;
            while created < some.len() {
                let message =
                    timeout(STUCK_AFTER, self.receiver.next()).await.context("no answer came")??;
                match message.body {
                    ServerBody::Response(Response::Channel(_)) => created += 1,
                    ServerBody::Response(other) => bail!("a number can not be used: {other:?}"),
                    ServerBody::Delivery(delivery) => self.note(&delivery),
                }
            }
            self.acknowledge().await?;
        }
        Ok(())
    }

    /// Takes and acknowledges what is not the load's, until nothing more comes.
    pub(super) async fn settle(&mut self) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        while let Ok(received) = timeout(QUIET_FOR, self.receiver.next_batch(&mut batch)).await {
            received?;
            for message in batch.drain(..) {
                if let ServerBody::Delivery(delivery) = message.body {
                    self.note(&delivery);
                }
            }
            self.acknowledge().await?;
        }
        Ok(())
    }

    /// Waits for what comes next, and gives how many messages it was. Cancel safe while it waits.
    pub(super) async fn take(&mut self, run: &Run, waits: &mut impl Waits) -> anyhow::Result<u64> {
        self.frames.clear();
        timeout(STUCK_AFTER, self.receiver.next_frames(&mut self.frames))
            .await
            .context("nothing was delivered for a while")??;
        let encoding = self.encoding;
        let frames = std::mem::take(&mut self.frames);
        let messages = frames.iter().filter(|frame| is_message(encoding, frame));
        let count = if self.looks_at_all {
            let mut count = 0;
            for frame in messages {
                count += 1;
                self.look(frame, run, waits)?;
            }
            count
        } else {
            let count = messages.clone().count();
            let ends = [(count > 1).then(|| messages.clone().next()).flatten(), messages.clone().next_back()];
            for frame in ends.into_iter().flatten() {
                self.look(frame, run, waits)?;
            }
            count
        };
        self.waiting += count as u64;
        self.waiting_bytes += frames.iter().map(Bytes::len).sum::<usize>();
        self.frames = frames;
        if self.waiting >= self.ack_every || self.waiting_bytes >= ACK_EVERY_BYTES {
            self.acknowledge().await?;
        }
        Ok(count as u64)
    }

    fn look(&mut self, frame: &Bytes, run: &Run, waits: &mut impl Waits) -> anyhow::Result<()> {
        let ServerBody::Delivery(delivery) = self.receiver.decode(frame)?.body else { return Ok(()) };
        if let Delivery::Message(message) = &delivery
            && let Some(waited) = run.waited(message.message_id.as_str())
        {
            waits.record(waited);
        }
        self.note(&delivery);
        Ok(())
    }

    fn note(&mut self, delivery: &Delivery) {
        if let Some((channel, offset)) = position(delivery) {
            self.newest.insert(channel, offset);
        }
    }

    /// Acknowledges all that it looked at, and with it what came before that.
    pub(super) async fn acknowledge(&mut self) -> anyhow::Result<()> {
        (self.waiting, self.waiting_bytes) = (0, 0);
        for (channel, offset) in self.newest.drain() {
            self.sender.put(&Request::Ack(Ack { channel, offset }))?;
        }
        Ok(self.sender.flush().await?)
    }
}

/// Whether a frame is a customer's message, by its first bytes.
fn is_message(encoding: Encoding, frame: &Bytes) -> bool {
    /// The number of `message` among what the broker sends, behind the id 0.
    const MESSAGE: [u8; 2] = [0, 13];
    match encoding {
        Encoding::JsonLines => frame.starts_with(br#"{"type":"message""#),
        Encoding::Binary => frame.starts_with(&MESSAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_counts_from_when_a_message_was_due_and_only_in_its_run() {
        let begun = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        let run = Run { name: "r-1".to_owned(), begun };
        assert_eq!(run.id(Duration::from_secs(2), 7), "b.r-1.2000000000.7");
        let waited = run.waited("b.r-1.2000000000.7").unwrap();
        assert!((Duration::from_secs(3)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
        assert_eq!(run.waited("b.r-1.9000000000.7"), Some(Duration::ZERO), "it is not due yet");
        for others in ["b.r-2.2000000000.7", "wamid.1", "b.r-1.soon.7", "b.r-1"] {
            assert_eq!(run.waited(others), None, "{others}");
        }
    }
}
