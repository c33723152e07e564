//! The broker's end of the connection: reads what the adapter asks, delivers, ends it, and waits for it to come back.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::ledger::Ledger;
use super::manners::Manner;
use super::network::Network;
use crate::client::position;
use crate::domain::ids::{ChannelId, ConversationId};
use crate::wire::codec::{decode_request, encode_owned_delivery, encode_response};
use crate::wire::frame::{Encoding, Splitter};
use crate::wire::message::requests::Hello;
use crate::wire::message::{Delivery, Request, Response};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 64 << 10;

/// A connection with the adapter.
pub(super) struct Link {
    pub(super) stream: TcpStream,
    pub(super) splitter: Splitter,
    pub(super) buffer: BytesMut,
    pub(super) encoding: Encoding,
}

pub(super) struct StandIn {
    pub(super) listener: TcpListener,
    /// How long the adapter may take for each thing.
    pub(super) patience: Duration,
    pub(super) link: Option<Link>,
    /// What the adapter said of itself the last time.
    pub(super) hello: Option<Hello>,
    pub(super) ledger: Ledger,
    pub(super) channel: ChannelId,
    pub(super) number: Option<crate::domain::ids::Number>,
    /// Counts offsets, customers and conversations.
    pub(super) last: u64,
    /// How replies in a conversation are answered, one after the other; then they are accepted.
    pub(super) manners: BTreeMap<ConversationId, VecDeque<Manner>>,
    /// Warnings that a pick-up in a conversation gets first, by their confirmations.
    pub(super) pick_up_warnings: BTreeMap<ConversationId, String>,
    /// Pick-ups that were asked for.
    pub(super) pick_ups: usize,
    /// The adapter did not come back in time: nothing more can be judged.
    pub(super) is_gone: bool,
    /// The adapter may end the connection: it was asked to.
    pub(super) may_end: bool,
    /// What is seen of a gateway, where it is one that is judged.
    pub(super) network: Option<Network>,
    /// Replies whose answer is held back: the request's id, and their place in the ledger.
    pub(super) held: Vec<(u64, usize)>,
}

/// What became of waiting for the adapter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Took,
    /// The connection is over, by whom ever.
    Over,
    Quiet,
}

impl StandIn {
    pub(super) async fn listen(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let mut raw = [0; 16];
        getrandom::fill(&mut raw).map_err(io::Error::other)?;
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            patience,
            link: None,
            hello: None,
            ledger: Ledger::default(),
            // An adapter that remembers what it did for another run's channel is no worse for it.
            channel: ChannelId(u128::from_be_bytes(raw)),
            number: None,
            last: 0,
            manners: BTreeMap::new(),
            pick_up_warnings: BTreeMap::new(),
            pick_ups: 0,
            is_gone: false,
            may_end: false,
            network: None,
            held: Vec::new(),
        })
    }

    pub(super) fn address(&self) -> String {
        self.listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
    }

    /// Ends the connection as a killed broker does.
    pub(super) fn drop_link(&mut self) {
        self.link = None;
        self.held.clear();
    }

    /// Says it, if somebody is there.
    pub(super) async fn say(&mut self, id: u64, response: &Response) {
        let Some(link) = &mut self.link else { return };
        let mut out = BytesMut::new();
        if encode_response(link.encoding, id, response, &mut out).is_ok() {
            // Who is gone is seen when it is read.
            let _ = timeout(self.patience, link.stream.write_all(&out)).await;
        }
    }

    /// The bytes of a delivery, which counts as delivered from now on.
    pub(super) fn frame(&mut self, delivery: &Delivery, is_done: bool) -> BytesMut {
        let mut out = BytesMut::new();
        let Some(link) = &self.link else { return out };
        if encode_owned_delivery(link.encoding, delivery, &mut out).is_err() {
            return out;
        }
        if let Some((_, offset)) = position(delivery) {
            self.ledger.delivered(offset, delivery, is_done);
        } else if let (Delivery::Send(send), Some(network)) = (delivery, &mut self.network) {
            network.handed(send.offset);
        }
        out
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        if let Some(link) = &mut self.link {
            let _ = timeout(self.patience, link.stream.write_all(bytes)).await;
        }
    }

    pub(super) async fn deliver(&mut self, delivery: &Delivery, is_done: bool) {
        let frame = self.frame(delivery, is_done);
        self.write(&frame).await;
    }

    /// Delivers again what has no acknowledgement, in its order, as the broker does on a new connection.
    pub(super) async fn deliver_again(&mut self) {
        for delivery in self.ledger.unacknowledged() {
            self.deliver(&delivery, true).await;
        }
    }

    /// Takes what the adapter asks until something holds, and brings it back where the connection ends meanwhile.
    pub(super) async fn until(&mut self, within: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let until = Instant::now() + within;
        loop {
            if holds(self) {
                return true;
            }
            if self.link.is_none() {
                if !self.come_back().await {
                    return false;
                }
                continue;
            }
            match self.turn(until).await {
                Turn::Took | Turn::Over => {}
                Turn::Quiet => return holds(self),
            }
        }
    }

    /// Takes what comes for a while, to see that nothing wrong does.
    pub(super) async fn watch(&mut self, while_: Duration) {
        self.until(while_, |_| false).await;
    }

    /// A thing to be done: a customer's message, or for a gateway a reply.
    pub(super) fn work(&mut self) -> Delivery {
        if self.network.is_some() { self.reply_to_send() } else { self.message().1 }
    }

    /// Waits until everything is acknowledged, and told of.
    pub(super) async fn settle(&mut self) {
        let untold = |stand_in: &Self| stand_in.network.as_ref().map(Network::untold).unwrap_or_default();
        self.until(self.patience, |stand_in| untold(stand_in).is_empty()).await;
        for offset in untold(self) {
            self.ledger.fault(format!("`send` {offset} was not answered by `sent` in time"));
        }
        if !self.until(self.patience, |stand_in| stand_in.ledger.is_settled()).await {
            let open: Vec<String> =
                self.ledger.sent.iter().filter(|sent| !sent.is_acked).map(missing).collect();
            for text in open {
                self.ledger.fault(text);
            }
        }
    }

    /// The next request, answered.
    pub(super) async fn turn(&mut self, until: Instant) -> Turn {
        match self.next_request(until).await {
            Some(Ok((id, request))) => {
                self.answer(id, request).await;
                Turn::Took
            }
            Some(Err(())) => {
                self.drop_link();
                Turn::Over
            }
            None => Turn::Quiet,
        }
    }

    /// The next request; nothing in time, or an error where the adapter has ended the connection.
    pub(super) async fn next_request(&mut self, until: Instant) -> Option<Result<(u64, Request), ()>> {
        loop {
            let Some(link) = &mut self.link else { return Some(Err(())) };
            match link.splitter.next_message(&mut link.buffer) {
                Ok(Some(frame)) => match decode_request(link.encoding, &frame) {
                    Ok(request) => return Some(Ok(request)),
                    Err(refused) => {
                        self.ledger.fault(format!("sent what is no request: {refused}"));
                        let (id, error) = (refused.id, Response::Error(refused.error()));
                        self.say(id, &error).await;
                        continue;
                    }
                },
                Ok(None) => {}
                Err(error) => {
                    self.ledger.fault(format!("sent what can not be split into messages: {error}"));
                    return Some(Err(()));
                }
            }
            link.buffer.reserve(READ_BYTES);
            match timeout_at(until, link.stream.read_buf(&mut link.buffer)).await {
                Err(_) => return None,
                Ok(Ok(read)) if read > 0 => {}
                Ok(_) => {
                    if !self.may_end {
                        self.ledger.fault("ended the connection, for no reason that it was given");
                    }
                    return Some(Err(()));
                }
            }
        }
    }
}

fn missing(sent: &super::ledger::Sent) -> String {
    let (offset, name) = (sent.offset, sent.delivery.name());
    let why = if sent.is_done { "" } else { " and not answered" };
    format!("{name} {offset} was not acknowledged{why} in time")
}
