//! A small async client for adapters and gateways: connects again by itself, resumes, acknowledges.
//!
//! ```text
//! Client::request ─▶ commands ─▶ task ─▶ Connection ═TCP═ broker
//! Events::next    ◀─ events   ◀──┘  └─ lost: back off, hello again; what was not acknowledged comes again
//! ```
//!
//! [`Connection`] beneath it is one greeted socket without any of that, for who wants to send and receive in bulk.
//!
//! # Invariants
//! - A request is answered once, or fails with [`ClientError::Lost`] because the connection was lost before its answer
//!   came: then it may have been done. Asking again is safe for all but bots' replies without a fixed `reply_id`, and
//!   the same `reply_id` makes those safe too.
//! - After a reconnection deliveries go on where this adapter's service had acknowledged: what the lost connection had
//!   brought and nobody has looked at yet is passed over, since it comes again; so it is never done and acknowledged out
//!   of turn. A watcher's go on behind what it was brought, and nothing is passed over.

mod connection;
mod done;
mod tls;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use self::connection::{Connection, Receiver, Sender};
pub use self::done::{DONE_MAX, Done};
pub use self::tls::{Tls, TlsError};
use crate::domain::ids::{ChannelId, Offset};
use crate::wire::codec::EncodeError;
use crate::wire::frame::{Encoding, FrameError};
use crate::wire::message::requests::{Ack, Hello};
use crate::wire::message::responses::{Error, Warning, Welcome};
use crate::wire::message::{
    Call, Confirmable, DeliverMode, Delivery, ErrorCode, OrWarning, Positions, Request, Response, ServerBody,
    ServerMessage,
};

/// How long to wait where the broker asks to be asked again and does not say when.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Commands and events that wait; whoever brings more waits itself.
const QUEUE_MAX: usize = 4_096;
/// How long the first pause before connecting again is.
pub const RECONNECT_AFTER: Duration = Duration::from_millis(50);
/// How long the longest such pause is; each is twice the one before, less up to half of it by chance, so that many
/// clients do not come at once.
pub const RECONNECT_AFTER_MAX: Duration = Duration::from_secs(5);

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection failed.
    #[error("the connection to the broker failed")]
    Io(#[source] io::Error),
    /// The broker closed the connection.
    #[error("the broker closed the connection")]
    Closed,
    /// The connection was lost before the answer came.
    #[error("the connection was lost before the answer came")]
    Lost,
    /// The broker refused.
    #[error("refused: {}: {}", .0.code.as_str(), .0.message)]
    Refused(Box<Error>),
    /// A request is too long.
    #[error("the request is too long")]
    TooLong(#[source] EncodeError),
    /// What the broker sent can not be split into messages.
    #[error("the broker's bytes can not be read")]
    Frame(#[source] FrameError),
    /// What the broker sent is not what it should.
    #[error("{0}")]
    Protocol(String),
}

impl ClientError {
    /// The code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// The broker's TCP address.
    pub address: SocketAddr,
    /// How messages are written.
    pub encoding: Encoding,
    /// Who this is.
    pub hello: Hello,
}

/// What happens on a connection by itself.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are deliveries, and a box each would cost their reader"
)]
#[derive(Debug)]
pub enum Event {
    /// Something is delivered.
    Delivery(Delivery),
    /// The connection was lost and is there again.
    Reconnected(Box<Welcome>),
    /// The broker is about to stop, and says when to come again.
    Goaway {
        /// In milliseconds.
        retry_after_ms: u64,
    },
    /// The end: the broker does not want this client any more.
    Ended(ClientError),
}

enum Do {
    Ask(Request, oneshot::Sender<Result<Response, ClientError>>),
    Tell(Request),
}

/// A client. Clones share the connection; it ends when all are gone.
#[derive(Debug, Clone)]
pub struct Client {
    commands: mpsc::Sender<Do>,
}

/// What happens by itself, in order.
#[derive(Debug)]
pub struct Events {
    /// Each with how many connections were lost before the one that brought it.
    events: mpsc::Receiver<(u64, Event)>,
    /// How many connections were lost.
    lost: Arc<AtomicU64>,
}

impl Events {
    /// The next event; none after the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let (of, event) = self.events.recv().await?;
            let is_stale = of < self.lost.load(Ordering::Acquire);
            if !(is_stale && matches!(event, Event::Delivery(_))) {
                return Some(event);
            }
        }
    }

    /// The next delivery, over as many connections as it takes; none after the end. Cancel safe.
    ///
    /// # Errors
    /// When the broker does not want this client any more.
    pub async fn next_delivery(&mut self) -> Result<Option<Delivery>, ClientError> {
        while let Some(event) = self.next().await {
            match event {
                Event::Delivery(delivery) => return Ok(Some(delivery)),
                Event::Ended(error) => return Err(error),
                Event::Reconnected(_) | Event::Goaway { .. } => {}
            }
        }
        Ok(None)
    }
}

impl Client {
    /// Connects, and keeps connected from then on.
    ///
    /// # Errors
    /// When the first connection can not be made or is refused.
    pub async fn connect(options: Options) -> Result<(Self, Welcome, Events), ClientError> {
        Self::connect_over(None, options).await
    }

    /// The same over TLS, where it is given.
    ///
    /// # Errors
    /// When the first connection can not be made or is refused.
    pub async fn connect_over(
        tls: Option<Tls>,
        options: Options,
    ) -> Result<(Self, Welcome, Events), ClientError> {
        let hello = options.hello.clone();
        let connection =
            Connection::open_over(tls.as_ref(), options.address, options.encoding, hello).await?;
        let welcome = connection.welcome.clone();
        let (commands, asked) = mpsc::channel(QUEUE_MAX);
        let (told, events) = mpsc::channel(QUEUE_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let task = Task {
            lost: Arc::clone(&lost),
            options,
            tls,
            asked,
            told,
            watched: BTreeMap::new(),
            pending: HashMap::new(),
            retry_after: None,
        };
        tokio::spawn(task.run(connection));
        Ok((Self { commands }, welcome, Events { events, lost }))
    }

    /// Asks, and waits for just what answers this request. Cancel safe in that nothing is left behind; what was asked may
    /// be done all the same.
    ///
    /// # Errors
    /// When the broker refuses, or the connection is lost before the answer comes.
    pub async fn ask<C: Call>(&self, call: C) -> Result<C::Answer, ClientError> {
        let unexpected = || ClientError::Protocol("the answer is to something else".to_owned());
        C::answer(self.request(call).await?).ok_or_else(unexpected)
    }

    /// Asks, and asks again for as long as the broker says that it may work later (`overloaded`, `unavailable`,
    /// `internal`), each time after as long as it says. Cancel safe as [`ask`](Self::ask) is.
    ///
    /// # Errors
    /// When the broker refuses for good, or the connection is lost before the answer comes.
    pub async fn ask_patiently<C: Call + Clone>(&self, call: C) -> Result<C::Answer, ClientError> {
        loop {
            match self.ask(call.clone()).await {
                Err(ClientError::Refused(error)) if may_work_later(error.code) => {
                    let wait = error.retry_after_ms.map_or(ASK_AGAIN_AFTER, Duration::from_millis);
                    tokio::time::sleep(wait).await;
                }
                answered => return answered,
            }
        }
    }

    /// Asks patiently, and where there is a warning asks `shall_go_on`, who shows its texts to whom it concerns: yes
    /// confirms it and does what was asked, no gives nothing and does nothing. Cancel safe as [`ask`](Self::ask) is.
    ///
    /// # Errors
    /// When the broker refuses for good, or the connection is lost before the answer comes.
    pub async fn ask_confirming<C: Confirmable>(
        &self,
        call: C,
        mut shall_go_on: impl FnMut(&Warning) -> bool,
    ) -> Result<Option<C::Done>, ClientError> {
        let mut asked = call.clone();
        loop {
            match self.ask_patiently(asked).await? {
                OrWarning::Done(done) => return Ok(Some(done)),
                OrWarning::Warning(warning) if shall_go_on(&warning) => {
                    asked = call.clone().confirmed(warning.confirm);
                }
                OrWarning::Warning(_) => return Ok(None),
            }
        }
    }

    /// Acknowledges a delivery, and all that came before it for its channel; nothing for what needs none. Say it when the
    /// work is done. Cancel safe.
    ///
    /// # Errors
    /// When the client has ended.
    pub async fn done(&self, delivery: &Delivery) -> Result<(), ClientError> {
        match delivery.position() {
            Some((channel, offset)) => self.ack(channel, offset).await,
            None => Ok(()),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the broker refuses, or the connection is lost before the answer comes.
    pub async fn request(&self, request: impl Into<Request>) -> Result<Response, ClientError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Do::Ask(request.into(), answer)).await.map_err(|_| ClientError::Closed)?;
        match answered.await.map_err(|_| ClientError::Lost)?? {
            Response::Error(error) => Err(ClientError::Refused(Box::new(error))),
            response => Ok(response),
        }
    }

    /// Acknowledges a delivery, and all that came before it for this channel.
    ///
    /// # Errors
    /// When the client has ended.
    pub async fn ack(&self, channel: ChannelId, offset: Offset) -> Result<(), ClientError> {
        let ack = Request::Ack(Ack { channel, offset });
        self.commands.send(Do::Tell(ack)).await.map_err(|_| ClientError::Closed)
    }
}

/// Why a connection's turn is over.
enum Over {
    /// Every client is gone.
    Wanted,
    /// It was lost; connect again.
    Lost,
    /// The broker has ended it for good.
    Ended(ClientError),
}

struct Task {
    options: Options,
    tls: Option<Tls>,
    asked: mpsc::Receiver<Do>,
    told: mpsc::Sender<(u64, Event)>,
    /// How many connections were lost: an event is of the one that it came over.
    lost: Arc<AtomicU64>,
    /// For a watcher: where each channel goes on.
    watched: BTreeMap<ChannelId, Offset>,
    pending: HashMap<u64, oneshot::Sender<Result<Response, ClientError>>>,
    /// What `goaway` asked for.
    retry_after: Option<Duration>,
}

impl Task {
    async fn run(mut self, mut connection: Connection) {
        loop {
            let over = self.turn(connection).await;
            // Before anybody hears of it.
            self.lost.fetch_add(1, Ordering::AcqRel);
            for (_, waiting) in self.pending.drain() {
                let _ = waiting.send(Err(ClientError::Lost));
            }
            match over {
                Over::Wanted => return,
                Over::Ended(error) => {
                    let _ = self.tell(Event::Ended(error)).await;
                    return;
                }
                Over::Lost => {}
            }
            match self.again().await {
                Some(next) => connection = next,
                None => return,
            }
        }
    }

    /// Connects again, with growing pauses, until it works or nobody wants it any more.
    async fn again(&mut self) -> Option<Connection> {
        let mut pause = RECONNECT_AFTER;
        // What `goaway` asks for has its chance in it.
        let mut until = Instant::now() + self.retry_after.take().unwrap_or_else(|| jittered(pause));
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                // What is asked meanwhile is lost at once: who asks decides whether to ask again.
                asked = self.asked.recv() => match asked {
                    Some(Do::Ask(_, answer)) => {
                        let _ = answer.send(Err(ClientError::Lost));
                        continue;
                    }
                    Some(Do::Tell(_)) => continue,
                    None => return None,
                },
            }
            let mut hello = self.options.hello.clone();
            if hello.deliver == DeliverMode::Watch {
                let mut from: BTreeMap<_, _> = hello.from.0.iter().copied().collect();
                from.extend(self.watched.iter().map(|(channel, next)| (*channel, *next)));
                hello.from = Positions(from.into_iter().collect());
            }
            let Options { address, encoding, .. } = self.options;
            match Connection::open_over(self.tls.as_ref(), address, encoding, hello).await {
                Ok(connection) => {
                    let welcome = Box::new(connection.welcome.clone());
                    self.tell(Event::Reconnected(welcome)).await.ok()?;
                    return Some(connection);
                }
                Err(error) if is_final(&error) => {
                    let _ = self.tell(Event::Ended(error)).await;
                    return None;
                }
                Err(_) => pause = (pause * 2).min(RECONNECT_AFTER_MAX),
            }
            until = Instant::now() + jittered(pause);
        }
    }

    async fn turn(&mut self, connection: Connection) -> Over {
        let Connection { mut sender, mut receiver, .. } = connection;
        let mut messages = Vec::new();
        loop {
            tokio::select! {
                received = receiver.next_batch(&mut messages) => {
                    if received.is_err() {
                        return Over::Lost;
                    }
                    for message in messages.drain(..) {
                        if let Err(over) = self.take(message).await {
                            return over;
                        }
                    }
                }
                asked = self.asked.recv() => {
                    let Some(first) = asked else { return Over::Wanted };
                    self.put(&mut sender, first);
                    while let Ok(more) = self.asked.try_recv() {
                        self.put(&mut sender, more);
                    }
                    if sender.flush().await.is_err() {
                        return Over::Lost;
                    }
                }
            }
        }
    }

    fn put(&mut self, sender: &mut Sender, asked: Do) {
        match asked {
            Do::Tell(request) => drop(sender.put(&request)),
            Do::Ask(request, answer) => match sender.put(&request) {
                Ok(id) => drop(self.pending.insert(id, answer)),
                Err(error) => drop(answer.send(Err(error))),
            },
        }
    }

    async fn take(&mut self, message: ServerMessage) -> Result<(), Over> {
        match message.body {
            ServerBody::Response(Response::Goaway(goaway)) => {
                let retry_after_ms = goaway.retry_after_ms;
                self.retry_after = Some(Duration::from_millis(retry_after_ms));
                self.tell(Event::Goaway { retry_after_ms }).await
            }
            ServerBody::Response(Response::Error(error)) if message.id == 0 => {
                let error = ClientError::Refused(Box::new(error));
                if is_final(&error) { Err(Over::Ended(error)) } else { Ok(()) }
            }
            ServerBody::Response(response) => {
                if let Some(waiting) = self.pending.remove(&message.id) {
                    let _ = waiting.send(Ok(response));
                }
                Ok(())
            }
            ServerBody::Delivery(delivery) => {
                if self.options.hello.deliver == DeliverMode::Watch
                    && let Some((channel, offset)) = position(&delivery)
                {
                    self.watched.insert(channel, offset.next());
                }
                self.tell(Event::Delivery(delivery)).await
            }
        }
    }

    async fn tell(&self, event: Event) -> Result<(), Over> {
        // A watcher goes on behind what it was brought, so that nothing of it comes again.
        let comes_again = self.options.hello.deliver != DeliverMode::Watch;
        let of = if comes_again { self.lost.load(Ordering::Acquire) } else { u64::MAX };
        self.told.send((of, event)).await.map_err(|_| Over::Wanted)
    }
}

/// Between half of a pause and all of it.
fn jittered(pause: Duration) -> Duration {
    let mut chance = [0];
    // Without chance all of it is as good.
    let part = getrandom::fill(&mut chance).map_or(u32::from(u8::MAX), |()| u32::from(chance[0]));
    pause / 2 + pause / 2 * part / u32::from(u8::MAX)
}

/// Whether connecting again would come to nothing, or push out who has taken over.
fn is_final(error: &ClientError) -> bool {
    let end = [
        ErrorCode::Unauthenticated,
        ErrorCode::Replaced,
        ErrorCode::Revoked,
        ErrorCode::UnsupportedVersion,
        ErrorCode::BadMessage,
        ErrorCode::TooLarge,
    ];
    error.code().is_some_and(|code| end.contains(&code))
}

/// Whether the same request may work later.
fn may_work_later(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Overloaded | ErrorCode::Unavailable | ErrorCode::Internal)
}

/// Where a delivery stands: what to acknowledge. None for what is not acknowledged.
#[must_use]
pub fn position(delivery: &Delivery) -> Option<(ChannelId, Offset)> {
    delivery.position()
}
