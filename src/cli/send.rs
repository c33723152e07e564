//! `send`: a customer's message, brought over TCP as a gateway would bring it.

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::peer::{Peer, failure, usage};
use super::{Configured, EXIT_CONFIG, EXIT_FAILED, Failure, Outcome, block_on, out};
use crate::client::Client;
use crate::config::{Config, Way};
use crate::domain::event::Customer;
use crate::domain::ids::{CustomerName, GatewayId, Number, Timestamp};
use crate::wire::message::requests::Inbound;
use crate::wire::message::{DeliverMode, RawContent, Response, Who};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    #[command(flatten)]
    peer: Peer,
    /// The portal.
    #[arg(long)]
    portal: String,
    /// The number that the customer writes to.
    #[arg(long)]
    number: String,
    /// Who writes: a wa_id or a user_id.
    #[arg(long, value_name = "WA_ID")]
    from: String,
    /// As which gateway; else the number's own, else the portal's only one, as the configuration says.
    #[arg(long, value_name = "ID")]
    gateway: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// What he writes.
    text: String,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = arguments.configured.load()?;
    let number: Number = arguments.number.parse().map_err(usage)?;
    let name = CustomerName::read(&arguments.from).map_err(usage)?;
    let gateway = match &arguments.gateway {
        Some(gateway) => gateway.parse().map_err(usage)?,
        None => gateway_of(&config, &arguments.portal, &number)?,
    };
    let options =
        arguments.peer.options(&config, &arguments.portal, Who::Gateway(gateway), None, DeliverMode::None)?;
    let customer = if name.is_user_id() {
        Customer { user_id: Some(name), ..Customer::default() }
    } else {
        Customer { wa_id: Some(name), ..Customer::default() }
    };
    let content = json!({"type": "text", "text": {"body": arguments.text}}).to_string();
    let message_id = fresh_message_id()?;
    let inbound = Inbound {
        number,
        message_id: message_id.parse().map_err(Failure::failed)?,
        customer,
        at: now(),
        content: RawContent(Bytes::from(content)),
        refers_to: None,
    };
    let tls = arguments.peer.tls()?;
    block_on(async {
        let (client, _, _events) = Client::connect_over(tls, options).await.map_err(failure)?;
        let Response::InboundAccepted(accepted) = client.request(inbound).await.map_err(failure)? else {
            return Err(Failure::failed(anyhow::anyhow!(
                "the broker gave another answer than was asked for"
            )));
        };
        if arguments.json {
            let report = json!({
                "message_id": message_id, "channels": accepted.channels, "duplicate": accepted.duplicate,
            });
            out::line(&report.to_string());
        } else if accepted.channels > 0 {
            out::line(&format!("accepted: {message_id} is in the journal"));
        }
        if accepted.channels == 0 {
            let text = "nobody has this number in use: the message was not taken";
            return Err(Failure::new(EXIT_FAILED, anyhow::anyhow!(text)));
        }
        Ok(())
    })
}

fn gateway_of(config: &Config, portal: &str, number: &Number) -> Result<GatewayId, Failure> {
    let wrong = |text: String| Failure::new(EXIT_CONFIG, anyhow::anyhow!(text));
    let portal = config.portals.iter().find(|known| known.rules.portal.as_str() == portal);
    let portal =
        portal.ok_or_else(|| wrong("the configuration has no such portal; name a --gateway".to_owned()))?;
    let own = portal.numbers.iter().find(|known| known.number == *number).map(|known| &known.way);
    match (own, portal.gateways.as_slice()) {
        (Some(Way::Tcp(gateway)), _) => Ok(gateway.clone()),
        (_, [(only, _)]) => Ok(only.clone()),
        _ => Err(wrong("the configuration names no gateway for this number; name a --gateway".to_owned())),
    }
}

/// An id that no message has, in WhatsApp's manner.
fn fresh_message_id() -> Result<String, Failure> {
    let mut raw = [0; 16];
    getrandom::fill(&mut raw).map_err(|error| Failure::io(std::io::Error::other(error)))?;
    Ok(raw.iter().fold("wamid.".to_owned(), |id, byte| format!("{id}{byte:02X}")))
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
