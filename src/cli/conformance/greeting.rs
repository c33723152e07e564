//! The beginning of a connection: the adapter comes, says `hello`, and is welcomed.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use super::stand_in::{Link, StandIn};
use crate::actors::outlet::WINDOW_MAX;
use crate::domain::command::{ChannelSeen, ChannelState};
use crate::domain::event::Settings;
use crate::domain::ids::Offset;
use crate::wire::codec::decode_request;
use crate::wire::frame::Splitter;
use crate::wire::message::responses::Welcome;
use crate::wire::message::{DeliverMode, Flag, PROTOCOL_VERSION, Request, Response, Who};

/// How long a connection may take until its `hello` is here (contract: 5 s).
const HELLO_WITHIN: Duration = Duration::from_secs(5);

impl StandIn {
    /// Waits for the adapter, greets it and delivers again what it has not acknowledged.
    pub(super) async fn come_back(&mut self) -> bool {
        let until = Instant::now() + self.patience;
        loop {
            if Instant::now() >= until {
                self.is_gone = true;
                self.ledger.fault(format!("did not connect within {} s", self.patience.as_secs()));
                return false;
            }
            let Ok(Ok((stream, _))) = timeout_at(until, self.listener.accept()).await else { continue };
            let _ = stream.set_nodelay(true);
            let (splitter, buffer) = (Splitter::new(), BytesMut::new());
            // Overwritten once the first byte is here.
            let encoding = crate::wire::frame::Encoding::JsonLines;
            self.drop_link();
            self.ledger.begin_connection();
            let mut link = Link { stream, splitter, buffer, encoding };
            let Some((id, hello)) = self.greet(&mut link).await else { continue };
            self.link = Some(link);
            let window = hello.window.clamp(1, WINDOW_MAX);
            self.hello = Some(hello);
            let channels = if self.number.is_some() { vec![self.channel_seen()] } else { Vec::new() };
            let welcome = Welcome {
                session: "conformance".into(),
                server: concat!("sharedline ", env!("CARGO_PKG_VERSION"), " conformance").into(),
                version: PROTOCOL_VERSION,
                window,
                channels,
                more: Flag(false),
            };
            self.say(id, &Response::Welcome(welcome)).await;
            self.deliver_again().await;
            return true;
        }
    }

    /// The adapter's `hello`; nothing where the connection came to nothing.
    async fn greet(&mut self, link: &mut Link) -> Option<(u64, crate::wire::message::requests::Hello)> {
        let until = Instant::now() + HELLO_WITHIN;
        let frame = loop {
            match link.splitter.next_message(&mut link.buffer) {
                Ok(Some(frame)) => break frame,
                Ok(None) => {}
                Err(error) => {
                    self.ledger.fault(format!("the first bytes are not the protocol's: {error}"));
                    return None;
                }
            }
            match timeout_at(until, link.stream.read_buf(&mut link.buffer)).await {
                Ok(Ok(read)) if read > 0 => {}
                Ok(_) => return None,
                Err(_) => {
                    self.ledger.fault("said no hello within 5 s");
                    return None;
                }
            }
        };
        link.encoding = link.splitter.encoding()?;
        let (id, hello) = match decode_request(link.encoding, &frame) {
            Ok((id, Request::Hello(hello))) => (id, hello),
            Ok((_, other)) => {
                self.ledger.fault(format!("the first request is {}, not hello", other.name()));
                return None;
            }
            Err(refused) => {
                self.ledger.fault(format!("hello is refused: {refused}"));
                return None;
            }
        };
        link.splitter.accept_hello();
        if matches!(hello.who, Who::Gateway(_)) != self.network.is_some() {
            self.ledger.fault("an adapter says `service` in its hello; a gateway says `gateway`, and is judged by --gateway");
        }
        if hello.deliver != DeliverMode::Share {
            self.ledger.fault("only who takes a share of the deliveries can be judged");
        }
        Some((id, hello))
    }

    /// The one channel, as its subscriber sees it.
    pub(super) fn channel_seen(&self) -> ChannelSeen {
        let service = self.hello.as_ref().and_then(|hello| match &hello.who {
            Who::Service(service) => Some(service.clone()),
            Who::Gateway(_) => None,
        });
        ChannelSeen {
            channel: self.channel,
            number: self
                .number
                .clone()
                .unwrap_or_else(|| crate::domain::ids::Number::trusted("+15550783881")),
            state: ChannelState::Active,
            parent: service.clone(),
            subscribers: service.into_iter().collect(),
            settings: Settings::default(),
            head: Offset(self.last),
        }
    }

    /// The next connection is taken and ended at once; says when it came, and nothing where none does.
    pub(super) async fn turn_away(&mut self) -> Option<Instant> {
        let until = Instant::now() + self.patience;
        let accepted = timeout_at(until, self.listener.accept()).await.ok()?.ok()?;
        drop(accepted);
        Some(Instant::now())
    }
}
