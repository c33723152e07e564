//! `tail`: what a service sees, as it happens. It moves nothing: the service's own adapters are served as before.

use bytes::BytesMut;
use clap::Args;

use super::peer::{Peer, failure, usage};
use super::{Configured, Failure, Outcome, block_on, out};
use crate::client::{Client, Event};
use crate::wire::codec::encode_owned_delivery;
use crate::wire::frame::Encoding;
use crate::wire::message::{DeliverMode, Who};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    #[command(flatten)]
    peer: Peer,
    /// The portal.
    #[arg(long)]
    portal: String,
    /// As which service.
    #[arg(long)]
    service: String,
    /// Deliveries are printed as JSON in any case; given for likeness with other verbs.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = arguments.configured.load()?;
    let who = Who::Service(arguments.service.parse().map_err(usage)?);
    let adapter = format!("tail-{}", std::process::id());
    let options =
        arguments.peer.options(&config, &arguments.portal, who, Some(&adapter), DeliverMode::Watch)?;
    let tls = arguments.peer.tls()?;
    block_on(async {
        let (_client, _, mut events) = Client::connect_over(tls, options).await.map_err(failure)?;
        out::note("watching; end with Ctrl-C");
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = tokio::signal::ctrl_c() => return Ok(()),
            };
            match event {
                Some(Event::Delivery(delivery)) => {
                    let mut line = BytesMut::new();
                    encode_owned_delivery(Encoding::JsonLines, &delivery, &mut line)
                        .map_err(Failure::failed)?;
                    if !out::try_line(String::from_utf8_lossy(&line).trim_end()) {
                        return Ok(());
                    }
                }
                Some(Event::Reconnected(_)) => out::note("connected again"),
                Some(Event::Goaway { .. }) => out::note("the broker is about to stop"),
                Some(Event::Ended(error)) => return Err(failure(error)),
                None => return Ok(()),
            }
        }
    })
}
