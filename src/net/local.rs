//! A connection within the process: what a session is for a socket, for a program that embeds the broker.
//!
//! It carries the protocol's own messages, so that whatever `docs/protocol.md` says of a connection holds here: the
//! window, sharing, repeats, warnings. Only what a socket needs falls away: bytes, tokens, heartbeats, `stalled`.
//!
//! ```text
//! Local::ask ──▶ codec (what a socket could not bring is refused) ─▶ Session::ask
//! answer     ◀── whoever waits takes what is in the Outlet: answers to who asked, deliveries in their order
//! Events::next ◀──────────┘
//! ```
//!
//! # Invariants
//! - No task runs for it: its futures work on any runtime, or none, and what they drop half-way loses nothing.
//! - What lies here is bounded: requests by [`IN_FLIGHT_MAX`] and the session's bytes, deliveries by the window.
//! - A delivery is written by the functions that write it for a socket, and read back: nothing else shows content.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::answers::{ended, gap, greeting, response, write_conversation};
use super::requests::{self, Identity, Translated};
use crate::actors::batch::{BatchEntry, Slice};
use crate::actors::broker::{ConnectError, Session};
use crate::actors::outlet::{IN_FLIGHT_MAX, Outlet, PRESENCE_QUEUED_MAX};
use crate::actors::port::{Answered, Outgoing, PresenceTold, Timeline};
use crate::actors::{Broker, Halted};
use crate::domain::ids::{ChannelId, Offset};
use crate::domain::presence::{PresenceSeen, PresentAgent};
use crate::domain::view::{Viewer, view};
use crate::wire::codec::{EncodeError, decode_request, decode_server, encode_owned_delivery, encode_request};
use crate::wire::delivery::{encode_delivery, encode_gap, encode_presence};
use crate::wire::frame::{Encoding, FRAME_HEAD_BYTES, Splitter};
use crate::wire::message::requests::{Ack, Hello};
use crate::wire::message::responses::{Error, Welcome};
use crate::wire::message::{
    Call, Delivery, ErrorCode, RawContent, Request, Response, ServerBody, deliveries,
};

/// How messages are checked on their way in, and written on their way out.
const ENCODING: Encoding = Encoding::Binary;

/// Why nobody is let in.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum JoinError {
    /// The configuration has no such portal, service or gateway.
    #[error("there is no such portal, service or gateway")]
    Unknown,
    /// The greeting is one that a socket could not bring: a service without `adapter`, for instance.
    #[error("refused: {}", .0.message)]
    Refused(Box<Error>),
    /// The broker is about to stop, or has stopped.
    #[error("the broker has stopped")]
    Stopped,
    /// The broker has halted.
    #[error(transparent)]
    Halted(#[from] Halted),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LocalError {
    /// The broker says no, by a code of the protocol.
    #[error("refused: {}: {}", .0.code.as_str(), .0.message)]
    Refused(Box<Error>),
    /// The broker has ended this connection: a newer one has its name, or its service is gone from the configuration.
    #[error("the connection has ended: {}", .0.message)]
    Ended(Box<Error>),
    /// The broker is about to stop, or has stopped.
    #[error("the broker has stopped")]
    Stopped,
    /// The broker has halted. What had no answer may be there after the next start, or not.
    #[error(transparent)]
    Halted(#[from] Halted),
}

impl LocalError {
    /// The code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }
}

impl Broker {
    /// Joins as a service's adapter or a gateway without a socket: gives what asks, what the broker said, and what happens
    /// by itself. Who runs the program is trusted, so that no token is looked at. An older connection of the same name is
    /// ended. Does not wait, and works on any runtime.
    ///
    /// ```
    /// use sharedline::wire::message::requests::{CreateChannel, Hello};
    /// # use sharedline::{actors::Broker, config::Config};
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # runtime.block_on(async {
    /// # let directory = tempfile::tempdir()?;
    /// # let text = "[[portals]]\nid = 'acme'\n[[portals.services]]\nid = 'crm'\n[[portals.numbers]]\nnumber = '+15550783881'";
    /// # let config: Config = format!("data_dir = {:?}\n{text}", directory.path()).parse()?;
    /// # let broker = Broker::start(&config)?;
    /// let (crm, welcome, mut events) = broker.join(Hello::service("acme".parse()?, "crm".parse()?, "desk-1".parse()?))?;
    /// assert!(welcome.channels.is_empty());
    /// let made = crm.ask(CreateChannel { number: "+15550783881".parse()?, backfill: false }).await?;
    /// assert_eq!(made.created, Some(true));
    /// let first = events.next().await?; // its own `subscribed`
    /// assert_eq!(first.position().map(|(channel, _)| channel), Some(made.seen.channel));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the configuration has no such peer, or the broker takes nobody.
    pub fn join(&self, hello: Hello) -> Result<(Local, Welcome, Events), JoinError> {
        if let Some(halted) = self.halt_reason() {
            return Err(halted.into());
        }
        let Request::Hello(hello) = checked(hello.into()).map_err(JoinError::Refused)?.0 else {
            return Err(JoinError::Unknown);
        };
        let connected = self.connect_within(requests::hello(&hello)).map_err(|error| match error {
            ConnectError::Unauthenticated => JoinError::Unknown,
            ConnectError::Unavailable => self.halt_reason().map_or(JoinError::Stopped, JoinError::Halted),
        })?;
        let outlet = connected.session.outlet();
        let (number, window) = (outlet.connection().0, outlet.credit().window());
        let Response::Welcome(welcome) = greeting(number, window, connected.channels, connected.more) else {
            return Err(JoinError::Stopped);
        };
        let seat = Arc::new(Seat {
            broker: self.clone(),
            session: connected.session,
            identity: Identity::of(&hello),
            state: Mutex::default(),
            arrived: Notify::new(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
        });
        Ok((Local { seat: Arc::clone(&seat) }, welcome, Events { seat }))
    }
}

/// What asks. Clones are the same connection; it ends when they and its [`Events`] are gone. The broker runs as long.
#[derive(Debug, Clone)]
pub struct Local {
    seat: Arc<Seat>,
}

impl Local {
    /// Asks, and waits for the answer: then it is durable, for good. Waits before that while too much is under way that is
    /// not ([`IN_FLIGHT_MAX`] requests or some MiB of this connection, or 256 MiB of the process). What one task asks one
    /// after the other is decided in that order for each channel.
    ///
    /// Cancel safe in that nothing is left behind; what was asked may be done all the same, and asking it again is as
    /// safe as over a socket.
    ///
    /// ```
    /// use std::time::SystemTime;
    /// use sharedline::domain::event::Customer;
    /// use sharedline::wire::message::{RawContent, requests::{CreateChannel, Hello, Inbound}};
    /// # use sharedline::{actors::Broker, config::Config};
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    /// # runtime.block_on(async {
    /// # let directory = tempfile::tempdir()?;
    /// # let text = "[[portals]]\nid = 'acme'\n[[portals.services]]\nid = 'crm'\n[[portals.gateways]]\nid = 'sms'\n\
    /// # token_sha256 = ['0000000000000000000000000000000000000000000000000000000000000000']\n\
    /// # [[portals.numbers]]\nnumber = '+15550783881'";
    /// # let config: Config = format!("data_dir = {:?}\n{text}", directory.path()).parse()?;
    /// # let broker = Broker::start(&config)?;
    /// # let (crm, _, _events) = broker.join(Hello::service("acme".parse()?, "crm".parse()?, "one".parse()?))?;
    /// # crm.ask(CreateChannel { number: "+15550783881".parse()?, backfill: false }).await?;
    /// let (gateway, _, _sends) = broker.join(Hello::gateway("acme".parse()?, "sms".parse()?))?;
    /// let message = Inbound {
    ///     number: "+15550783881".parse()?,
    ///     message_id: "wamid.1".parse()?,
    ///     customer: Customer { wa_id: Some("16505551234".parse()?), ..Customer::default() },
    ///     at: SystemTime::now().into(),
    ///     content: RawContent::text("Is anybody there?"),
    ///     refers_to: None,
    /// };
    /// let taken = gateway.ask(message.clone()).await?;
    /// assert_eq!((taken.channels, taken.duplicate), (1, false));
    /// assert!(gateway.ask(message).await?.duplicate); // the same id and time: known
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the broker refuses, has ended this connection, has stopped or has halted.
    pub async fn ask<C: Call>(&self, call: C) -> Result<C::Answer, LocalError> {
        let unexpected = || refusal(ErrorCode::Internal, "the answer is to something else");
        C::answer(self.request(call).await?).ok_or_else(unexpected)
    }

    /// The same for a request that is known only while the program runs; its answer is one of many.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    pub async fn request(&self, request: impl Into<Request>) -> Result<Response, LocalError> {
        let seat = &self.seat;
        let (request, bytes) = checked(request.into()).map_err(LocalError::Refused)?;
        let asking = match requests::translate(&seat.identity, request) {
            Translated::Ask(asking) => asking,
            Translated::Answer(answered) => {
                seat.still()?;
                return refused_or(seat.read(0, answered));
            }
        };
        let room = seat.or_over(Arc::clone(&seat.in_flight).acquire_owned()).await?;
        let room = room.map_err(|_| LocalError::Stopped)?;
        let (answer, mut answered) = oneshot::channel();
        let mut waiting = Waiting { seat, id: seat.expect(answer, room), is_asked: false };
        let asked = seat.or_over(seat.session.ask(vec![(waiting.id, asking)], bytes)).await?;
        asked.map_err(|_| seat.over())?;
        waiting.is_asked = true;
        loop {
            seat.take_all();
            tokio::select! {
                biased;
                response = &mut answered => return seat.told(response.map_err(|_| seat.over())?),
                () = seat.outlet().ready() => {}
                halted = seat.broker.halted() => return Err(halted.into()),
            }
        }
    }

    /// Acknowledges a delivery, and all that came before it for its channel; nothing for what needs none. Say it when the
    /// work is done: what is not acknowledged comes again. It is recorded within a second and in a stop; after a kill
    /// the last may come again. Cancel safe.
    ///
    /// # Errors
    /// When the broker has ended this connection, has stopped or has halted.
    pub async fn done(&self, delivery: &Delivery) -> Result<(), LocalError> {
        match delivery.position() {
            Some((channel, offset)) => self.ack(channel, offset).await,
            None => Ok(()),
        }
    }

    /// The same, by the delivery's place.
    ///
    /// # Errors
    /// As for [`done`](Self::done).
    pub async fn ack(&self, channel: ChannelId, offset: Offset) -> Result<(), LocalError> {
        let seat = &self.seat;
        seat.still()?;
        let ack = Request::Ack(Ack { channel, offset });
        if let Translated::Ask(asking) = requests::translate(&seat.identity, ack) {
            let asked = seat.or_over(seat.session.ask(vec![(0, asking)], 1)).await?;
            asked.map_err(|_| seat.over())?;
        }
        Ok(())
    }
}

/// What happens by itself: deliveries of a service, `send` of a gateway. At most a window of it waits here.
#[derive(Debug)]
pub struct Events {
    seat: Arc<Seat>,
}

impl Events {
    /// The next delivery, in its order. What was not acknowledged when the program ended comes again: the same
    /// channel and offset is the same delivery. Cancel safe.
    ///
    /// # Errors
    /// When the broker has ended this connection, has stopped or has halted, after the last that there was.
    pub async fn next(&mut self) -> Result<Delivery, LocalError> {
        let seat = &self.seat;
        loop {
            seat.take_all();
            if let Some(delivery) = seat.next_delivery() {
                return Ok(delivery);
            }
            seat.still()?;
            tokio::select! {
                () = seat.outlet().ready() => {}
                () = seat.arrived.notified() => {}
                _ = seat.broker.halted() => {}
            }
        }
    }
}

/// Both ends of the connection.
struct Seat {
    broker: Broker,
    session: Session,
    identity: Identity,
    state: Mutex<State>,
    /// There may be deliveries that somebody else has taken out.
    arrived: Notify,
    in_flight: Arc<Semaphore>,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("session", &self.session).finish_non_exhaustive()
    }
}

struct State {
    last_id: u64,
    waiting: HashMap<u64, (oneshot::Sender<Response>, Room)>,
    undelivered: VecDeque<Outgoing>,
    /// How many of these are presence.
    presences: usize,
    /// Deliveries, written.
    frames: BytesMut,
    splitter: Splitter,
    /// Why the connection has ended; nothing to say where the broker stops.
    ended: Option<Option<Error>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            last_id: 0,
            waiting: HashMap::new(),
            undelivered: VecDeque::new(),
            presences: 0,
            frames: BytesMut::new(),
            splitter: Splitter::of_server(ENCODING),
            ended: None,
        }
    }
}

/// The room of a request that has no answer yet.
struct Room {
    outlet: Arc<Outlet>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.outlet.requests_end(1);
    }
}

/// A request that is not asked yet, and is forgotten when it is dropped so.
struct Waiting<'a> {
    seat: &'a Seat,
    id: u64,
    is_asked: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_asked {
            self.seat.state().waiting.remove(&self.id);
        }
    }
}

impl Seat {
    fn outlet(&self) -> &Arc<Outlet> {
        self.session.outlet()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, answer: oneshot::Sender<Response>, permit: OwnedSemaphorePermit) -> u64 {
        self.outlet().requests_begin(1);
        let room = Room { outlet: Arc::clone(self.outlet()), _permit: permit };
        let mut state = self.state();
        state.last_id += 1;
        let id = state.last_id;
        state.waiting.insert(id, (answer, room));
        id
    }

    /// Why nothing more will come.
    fn over(&self) -> LocalError {
        if let Some(halted) = self.broker.halt_reason() {
            return halted.into();
        }
        match &self.state().ended {
            Some(Some(error)) => LocalError::Ended(Box::new(error.clone())),
            _ => LocalError::Stopped,
        }
    }

    /// That the connection is still there.
    fn still(&self) -> Result<(), LocalError> {
        let has_ended = self.state().ended.is_some();
        if has_ended || self.broker.halt_reason().is_some() { Err(self.over()) } else { Ok(()) }
    }

    /// What an answer says. A refusal because the broker has halted says that, whichever is heard of first.
    fn told(&self, response: Response) -> Result<Response, LocalError> {
        match refused_or(response) {
            Err(LocalError::Refused(error)) if error.code == ErrorCode::Unavailable => {
                Err(self.broker.halt_reason().map_or(LocalError::Refused(error), LocalError::Halted))
            }
            told => told,
        }
    }

    /// Waits for something, as long as the connection is there.
    async fn or_over<T>(&self, wanted: impl Future<Output = T>) -> Result<T, LocalError> {
        self.still()?;
        tokio::pin!(wanted);
        loop {
            tokio::select! {
                biased;
                done = &mut wanted => return Ok(done),
                () = self.outlet().ready() => self.take_all(),
                halted = self.broker.halted() => return Err(halted.into()),
            }
            self.still()?;
        }
    }

    /// Takes everything out of the outlet: answers to who waits for them, deliveries to where [`Events`] finds them.
    fn take_all(&self) {
        let mut taken = Vec::new();
        let mut state = self.state();
        self.outlet().take(&mut taken);
        let has_any = !taken.is_empty();
        for outgoing in taken {
            match outgoing {
                Outgoing::Answers(answers) => {
                    for (id, answered) in answers {
                        let response = self.read(id, answered);
                        if let Some((answer, _room)) = state.waiting.remove(&id) {
                            // Who waited may have gone.
                            let _ = answer.send(response);
                        }
                    }
                }
                Outgoing::End(reason) => state.ended = Some(ended(reason)),
                // There is nothing that can not be read, and nobody to come again.
                Outgoing::Fail(_) | Outgoing::Goaway { .. } => {}
                Outgoing::Presence(_) if state.presences >= PRESENCE_QUEUED_MAX => {}
                outgoing => {
                    state.presences += usize::from(matches!(outgoing, Outgoing::Presence(_)));
                    state.undelivered.push_back(outgoing);
                }
            }
        }
        if state.ended.is_some() {
            // What has no answer by now gets none.
            state.waiting.clear();
        }
        drop(state);
        if has_any {
            self.arrived.notify_one();
        }
    }

    fn next_delivery(&self) -> Option<Delivery> {
        let mut state = self.state();
        loop {
            let State { splitter, frames, .. } = &mut *state;
            // What was written here can be split.
            if let Ok(Some(frame)) = splitter.next_message(frames) {
                match decode_server(ENCODING, &frame) {
                    Ok(message) => {
                        if let ServerBody::Delivery(delivery) = message.body {
                            return Some(delivery);
                        }
                    }
                    Err(error) => tracing::error!(%error, "a delivery can not be read"),
                }
                continue;
            }
            let outgoing = state.undelivered.pop_front()?;
            if matches!(outgoing, Outgoing::Presence(_)) {
                state.presences -= 1;
            }
            if let Err(error) = self.write(outgoing, &mut state.frames) {
                tracing::error!(%error, "a delivery can not be written");
            }
        }
    }

    /// A response as a client reads it.
    fn read(&self, id: u64, answered: Answered) -> Response {
        let response = match response(answered) {
            Ok(response) => response,
            Err(timeline) => self.read_timeline(id, *timeline).unwrap_or_else(|| {
                let text = "the answer does not fit in one message; ask for less";
                Response::Error(Error::new(ErrorCode::TooLarge, text))
            }),
        };
        if let Response::Error(error) = &response {
            self.outlet().told_error(error.code.as_str());
        }
        response
    }

    fn read_timeline(&self, id: u64, timeline: Timeline) -> Option<Response> {
        let service = self.identity.viewer.as_ref()?;
        let viewer = Viewer { service, masking: self.outlet().masking() };
        let mut out = BytesMut::new();
        write_conversation(ENCODING, id, timeline, &viewer, &mut out).ok()?;
        match decode_server(ENCODING, &body_of(out)).ok()?.body {
            ServerBody::Response(response) => Some(response),
            ServerBody::Delivery(_) => None,
        }
    }

    fn write(&self, outgoing: Outgoing, out: &mut BytesMut) -> Result<(), EncodeError> {
        match outgoing {
            Outgoing::Deliveries(slice) => self.write_slice(&slice, out),
            Outgoing::Presence(told) => write_presence(&told, out),
            Outgoing::Send(send) => {
                let delivery = Delivery::Send(deliveries::Send {
                    channel: send.channel,
                    offset: send.offset,
                    conversation: send.conversation,
                    to: send.to,
                    reply_id: send.reply_id,
                    content: RawContent(send.content),
                });
                encode_owned_delivery(ENCODING, &delivery, out)
            }
            // Dealt with when they were taken.
            Outgoing::Answers(_) | Outgoing::Goaway { .. } | Outgoing::End(_) | Outgoing::Fail(_) => Ok(()),
        }
    }

    fn write_slice(&self, slice: &Slice, out: &mut BytesMut) -> Result<(), EncodeError> {
        let Some(service) = &self.identity.viewer else { return Ok(()) };
        let viewer = Viewer { service, masking: self.outlet().masking() };
        let channel = slice.batch.channel();
        for entry in slice.entries() {
            match entry {
                BatchEntry::Record(record) => {
                    if let Some((_, seen)) = view(record, &viewer) {
                        encode_delivery(ENCODING, channel, record, &seen, out)?;
                    }
                }
                BatchEntry::Gap { .. } => {
                    if let Some(gap) = gap(channel, entry) {
                        encode_gap(ENCODING, &gap, out)?;
                    }
                }
            }
        }
        if self.identity.is_watch {
            let (deliveries, bytes) = slice.weight();
            self.outlet().written(deliveries, bytes);
        }
        Ok(())
    }
}

fn write_presence(told: &PresenceTold, out: &mut BytesMut) -> Result<(), EncodeError> {
    let own = told.agent.as_ref().map(|(agent, name)| PresentAgent { agent, name: name.as_ref() });
    let seen = PresenceSeen { doing: told.doing, own };
    encode_presence(ENCODING, told.channel, told.conversation, told.at, &seen, out)
}

fn refusal(code: ErrorCode, text: &str) -> LocalError {
    LocalError::Refused(Box::new(Error::new(code, text)))
}

fn refused_or(response: Response) -> Result<Response, LocalError> {
    match response {
        Response::Error(error) => Err(LocalError::Refused(Box::new(error))),
        response => Ok(response),
    }
}

/// A frame without its length.
fn body_of(mut frame: BytesMut) -> Bytes {
    frame.split_off(FRAME_HEAD_BYTES.min(frame.len())).freeze()
}

/// A request as it would come out of a socket, and how long it is there: names, limits and lengths are looked at.
fn checked(request: Request) -> Result<(Request, usize), Box<Error>> {
    let mut out = BytesMut::new();
    let too_long = |error: EncodeError| Box::new(Error::new(ErrorCode::TooLarge, &error.to_string()));
    encode_request(ENCODING, 1, &request, &mut out).map_err(too_long)?;
    let frame = body_of(out);
    let (_, request) = decode_request(ENCODING, &frame).map_err(|refused| Box::new(refused.error()))?;
    Ok((request, frame.len()))
}
