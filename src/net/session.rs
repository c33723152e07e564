//! One connection from its first byte to its last: greeting, then reader and writer side by side.
//!
//! The reader decodes all that one read brought and asks it in one go; it stops reading while too many requests are in
//! flight. The writer takes whatever is ready. The connection ends when either does, or when the broker says so.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::answers::{greeting, refused};
use super::carrier::{self, Reading, Writing};
use super::inlet::Inlet;
use super::peers::Peers;
use super::requests::{self, Identity, Translated};
use super::writer::Writer;
use crate::actors::Broker;
use crate::actors::broker::{ConnectError, Connected, Session};
use crate::actors::outlet::{IN_FLIGHT_MAX, Outlet};
use crate::actors::port::{Answered, EndReason, Refusal};
use crate::wire::codec;
use crate::wire::frame::{Encoding, FrameError, Splitter};
use crate::wire::message::requests::Hello;
use crate::wire::message::responses::Error;
use crate::wire::message::{ErrorCode, Request, Response};

/// How long a connection may take until its `hello` is here (contract: 5 s).
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a promised `ping` may be late, as a multiple of its interval (contract: three times).
const HEARTBEATS_MISSED: u32 = 3;
/// How long an ended connection has to take what was written to it.
const END_GRACE: Duration = Duration::from_secs(1);
/// How much of what an ended peer still sends is read at once, in bytes.
const DISCARD_BYTES: usize = 16 << 10;
/// How long answers are still written after the peer has closed its side.
const LINGER: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LINGER_LOOK_EVERY: Duration = Duration::from_millis(5);

/// Runs a connection until its end. A hello that is refused or does not come is its address's, where that is given.
pub(super) async fn run(
    read: Reading,
    write: Writing,
    splitter: Splitter,
    broker: &Rc<Broker>,
    from: Option<(&Peers, IpAddr)>,
) {
    let mut greeting = Greeting { read, write, splitter, buffer: BytesMut::new(), failed: false };
    let Some((hello, id, connected)) = greeting.run(broker).await else {
        if let Some((peers, from)) = from.filter(|_| greeting.failed) {
            peers.failed(from, std::time::Instant::now());
        }
        let _ = timeout(END_GRACE, greeting.write.shutdown()).await;
        return discard(&mut greeting.read).await;
    };
    let Greeting { read, write, splitter, buffer, .. } = greeting;
    let Some(encoding) = splitter.encoding() else { return };
    let Connected { session, channels, more } = connected;
    let outlet = Arc::clone(session.outlet());
    let identity = Identity::of(&hello);
    let mut writer =
        Writer::new(write, encoding, Arc::clone(&outlet), identity.viewer.clone(), identity.is_watch);
    if writer.greet(id, &greeting_response(&outlet, channels, more)).is_err() {
        return;
    }
    let heartbeat =
        hello.heartbeat_ms.map(|ms| Duration::from_millis(ms.max(1)).saturating_mul(HEARTBEATS_MISSED));
    let mut reader = Reader {
        inlet: Inlet::new(read, buffer),
        splitter,
        session,
        identity,
        encoding,
        heartbeat,
        request_bytes: usize::MAX,
    };
    tokio::select! {
        () = writer.run() => {}
        () = reader.run() => linger(&mut writer, &outlet).await,
        () = forced_end(&outlet) => {}
    }
    if outlet.is_ended() {
        discard(&mut reader.inlet.read).await;
    }
}

/// Reads and throws away what a peer still sends after it was told that the connection ends: a socket that is closed
/// with bytes unread resets the connection, and the peer might never see why.
async fn discard(read: &mut Reading) {
    let mut scrap = BytesMut::with_capacity(DISCARD_BYTES);
    let until_closed = async {
        while read.read_buf(&mut scrap).await.is_ok_and(|read| read > 0) {
            scrap.clear();
        }
    };
    // Who goes on and on is cut off.
    let _ = timeout(END_GRACE, until_closed).await;
}

fn greeting_response(
    outlet: &Outlet,
    channels: Vec<crate::domain::command::ChannelSeen>,
    more: bool,
) -> Response {
    greeting(outlet.connection().0, outlet.credit().window(), channels, more)
}

/// After the reader has stopped: a connection that the broker ends still says why, and what a peer has asked that closed
/// its side is still answered.
async fn linger(writer: &mut Writer, outlet: &Outlet) {
    if outlet.is_ended() {
        let _ = timeout(END_GRACE, writer.run()).await;
        return;
    }
    let answered = async {
        while outlet.requests_in_flight() > 0 {
            sleep(LINGER_LOOK_EVERY).await;
        }
    };
    tokio::select! {
        () = writer.run() => {}
        _ = timeout(LINGER, answered) => {}
    }
}

/// The broker has ended the connection, and the peer takes nothing.
async fn forced_end(outlet: &Outlet) {
    outlet.ended().await;
    sleep(END_GRACE).await;
}

/// A connection before its `hello`.
struct Greeting {
    read: Reading,
    write: Writing,
    splitter: Splitter,
    buffer: BytesMut,
    /// Whether the peer was refused, and has not just gone.
    failed: bool,
}

impl Greeting {
    /// Reads until a `hello` is let in; nothing when the connection is over.
    async fn run(&mut self, broker: &Broker) -> Option<(Hello, u64, Connected)> {
        let until = Instant::now() + HELLO_TIMEOUT;
        loop {
            match self.splitter.next_message(&mut self.buffer) {
                Ok(Some(frame)) => {
                    if let Some(greeted) = self.take(&frame, broker).await? {
                        return Some(greeted);
                    }
                }
                Ok(None) => match timeout_at(until, self.read.read_buf(&mut self.buffer)).await {
                    Ok(Ok(read)) if read > 0 => {}
                    Ok(Ok(_)) => return None,
                    Ok(Err(error)) => {
                        if let Some(refusal) = carrier::refusal(&error) {
                            self.say(broker, 0, refused(refusal)).await;
                        }
                        return None;
                    }
                    Err(_) => {
                        let error = Error::new(ErrorCode::Unauthenticated, "no hello within 5 s");
                        self.say(broker, 0, error).await;
                        return None;
                    }
                },
                Err(error) => {
                    self.say(broker, 0, refused(frame_refusal(&error))).await;
                    return None;
                }
            }
        }
    }

    /// One message before the greeting is done. The outer nothing ends the connection.
    async fn take(&mut self, frame: &Bytes, broker: &Broker) -> Option<Option<(Hello, u64, Connected)>> {
        let encoding = self.splitter.encoding()?;
        let (id, request) = match codec::decode_request(encoding, frame) {
            Ok(decoded) => decoded,
            Err(refused) => {
                let ends = refused.ends_connection;
                self.say(broker, refused.id, refused.error()).await;
                return if ends { None } else { Some(None) };
            }
        };
        let Request::Hello(hello) = request else {
            self.say(broker, id, Error::new(ErrorCode::Unauthenticated, "the first request is hello")).await;
            return None;
        };
        match broker.connect(requests::hello(&hello)) {
            Ok(connected) => {
                self.splitter.accept_hello();
                self.read.accept_hello();
                Some(Some((hello, id, connected)))
            }
            Err(error @ ConnectError::Unauthenticated) => {
                self.say(broker, id, Error::new(ErrorCode::Unauthenticated, &error.to_string())).await;
                None
            }
            Err(error @ ConnectError::Unavailable) => {
                self.say(broker, id, Error::new(ErrorCode::Unavailable, &error.to_string())).await;
                Some(None)
            }
        }
    }

    async fn say(&mut self, broker: &Broker, id: u64, error: Error) {
        self.failed |= error.code != ErrorCode::Unavailable;
        broker.told_error(error.code.as_str());
        let Some(encoding) = self.splitter.encoding() else { return };
        let mut out = BytesMut::new();
        if codec::encode_response(encoding, id, &Response::Error(error), &mut out).is_ok() {
            // Who does not take it within the time is not told.
            let write = async {
                self.write.write_all(&out).await?;
                self.write.flush().await
            };
            let _ = timeout(END_GRACE, write).await;
        }
    }
}

/// Why the bytes of a connection can not be split any further.
fn frame_refusal(error: &FrameError) -> Refusal {
    let text = Arc::from(error.to_string());
    match error {
        FrameError::TooLong { .. } => Refusal::TooLarge(text),
        FrameError::UnknownEncoding { .. } | FrameError::BadPreface | FrameError::Truncated { .. } => {
            Refusal::BadMessage(text)
        }
    }
}

/// Why a message can not be decoded: these three are all that the codecs say.
fn refusal(code: ErrorCode, text: &str) -> Refusal {
    match code {
        ErrorCode::UnknownType => Refusal::UnknownType,
        ErrorCode::TooLarge => Refusal::TooLarge(Arc::from(text)),
        _ => Refusal::BadMessage(Arc::from(text)),
    }
}

struct Reader {
    inlet: Inlet,
    splitter: Splitter,
    session: Session,
    identity: Identity,
    encoding: Encoding,
    /// How long nothing may come, where the peer has promised something.
    heartbeat: Option<Duration>,
    /// What a request had last on average, in bytes: about as much have those that come next.
    request_bytes: usize,
}

impl Reader {
    /// Reads until the peer closes, or what it sends can not be read any further.
    async fn run(&mut self) {
        loop {
            let outlet = Arc::clone(self.session.outlet());
            outlet.request_room().await;
            match self.ask_what_is_here(&outlet).await {
                Progress::Asked => continue,
                Progress::NeedsMore => {}
                Progress::Over => {
                    outlet.ended().await;
                    return;
                }
            }
            let silence = async {
                match self.heartbeat {
                    Some(heartbeat) => sleep(heartbeat).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                read = self.inlet.read() => match read {
                    Ok(read) if read > 0 => {}
                    Ok(_) => return,
                    Err(error) => {
                        let Some(refusal) = carrier::refusal(&error) else { return };
                        outlet.fail(refusal);
                        return outlet.ended().await;
                    }
                },
                () = self.session.draining() => {
                    // Nothing more is read; the writer ends the connection when all is answered.
                    outlet.ended().await;
                    return;
                }
                () = silence => {
                    outlet.end(EndReason::Timeout);
                    return outlet.ended().await;
                }
            }
        }
    }

    /// Asks all that is complete in the buffer, as far as requests may be in flight.
    async fn ask_what_is_here(&mut self, outlet: &Outlet) -> Progress {
        let room = IN_FLIGHT_MAX.saturating_sub(outlet.requests_in_flight());
        let about = self.inlet.buffer.len() / self.request_bytes.max(1);
        let mut asked = Vec::with_capacity(about.saturating_add(1).min(room));
        let mut bytes = 0;
        let mut over = None;
        let mut answered = 0;
        while answered < room {
            let frame = match self.splitter.next_message(&mut self.inlet.buffer) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    over = Some(frame_refusal(&error));
                    break;
                }
            };
            bytes += frame.len();
            let translated = codec::decode_request_into(
                self.encoding,
                &frame,
                |inbound| requests::translate_inbound(&self.identity, inbound),
                |request| requests::translate(&self.identity, request),
            );
            match translated {
                Ok((id, Translated::Ask(request))) => {
                    answered += usize::from(id != 0);
                    asked.push((id, request));
                }
                Ok((id, Translated::Answer(answer))) => {
                    answered += 1;
                    outlet.requests_begin(1);
                    outlet.answer(id, answer);
                }
                Err(refused) if refused.ends_connection => {
                    over = Some(refusal(refused.code, &refused.text));
                    break;
                }
                Err(refused) => {
                    answered += 1;
                    outlet.requests_begin(1);
                    outlet.answer(refused.id, Answered::Refused(refusal(refused.code, &refused.text)));
                }
            }
        }
        self.request_bytes = bytes.checked_div(asked.len()).unwrap_or(self.request_bytes);
        let is_more = !asked.is_empty() || answered > 0;
        if !asked.is_empty() {
            outlet.requests_begin(asked.iter().filter(|(id, _)| *id != 0).count());
            if self.session.ask(asked, bytes).await.is_err() {
                return Progress::Over;
            }
        }
        match over {
            Some(error) => {
                outlet.fail(error);
                Progress::Over
            }
            None if is_more => Progress::Asked,
            None => Progress::NeedsMore,
        }
    }
}

enum Progress {
    /// Something was asked; there may be more in the buffer.
    Asked,
    /// The buffer holds no whole message.
    NeedsMore,
    /// Nothing more is read.
    Over,
}
