//! A whole service adapter with the crate's own client: it picks every customer's message up and answers it, once.
//! The client connects again, and passes over what a lost connection had brought, since that comes again.
//!
//! ```text
//! SHAREDLINE_TOKEN=… cargo run --example adapter -- 127.0.0.1:7411 acme crm +15550783881 ann
//! ```
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use sharedline::client::{Client, ClientError, Done, Options};
use sharedline::domain::{event::Agent, ids::AgentId};
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{CreateChannel, Hello, Open, PickUp, Reply, Roster};
use sharedline::wire::message::responses::Warning;
use sharedline::wire::message::{Addressee, Delivery, RawContent, deliveries::Message};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, portal, service, number, agent] = arguments.as_slice() else {
        return Err("usage: adapter ADDRESS PORTAL SERVICE NUMBER AGENT".into());
    };
    #[expect(clippy::disallowed_methods, reason = "an example has no configuration")]
    let token = std::env::var("SHAREDLINE_TOKEN")?.as_str().into();
    let adapter = format!("{service}-{agent}").parse()?;
    let hello = Hello { token, ..Hello::service(portal.parse()?, service.parse()?, adapter) };
    let options = Options { address: address.parse()?, encoding: Encoding::Binary, hello };
    let (client, _, mut events) = Client::connect(options).await?;
    let agent: AgentId = agent.parse()?;
    let agents = vec![Agent { agent: agent.clone(), name: agent.as_str().into(), lead: false }];
    client.ask_patiently(Roster { agents, replace: false, remove: Vec::new() }).await?;
    // Joins, or comes back; changes nothing where it is there.
    client.ask_patiently(CreateChannel { number: number.parse()?, backfill: false }).await?;
    let mut done = Done::default();
    while let Some(delivery) = events.next_delivery().await? {
        if let Delivery::Message(message) = &delivery
            && !done.has(&delivery)
        {
            let id = message.message_id.as_str();
            match answer(&client, &agent, message).await {
                Ok(()) => println!("answered {id}"),
                // For good: claimed, window_closed, channel_closed …
                Err(ClientError::Refused(error)) => println!("not answered {id} {}", error.code.as_str()),
                Err(_) => continue, // the connection is lost, and the message comes again
            }
        }
        // One delivery after the other, and its `ack` last: it covers all that came before.
        done.put(&delivery);
        client.done(&delivery).await?;
    }
    Ok(())
}

async fn answer(client: &Client, agent: &AgentId, message: &Message) -> Result<(), ClientError> {
    let Message { channel, conversation, .. } = *message;
    let pick_up = PickUp { channel, conversation, agent: agent.clone(), confirm: None };
    client.ask_confirming(pick_up, show).await?;
    let open = Open { channel, conversation, agent: agent.clone(), limit: 1, before: None };
    let seen = Some(client.ask_patiently(open).await?.head);
    let (to, agent) = (Addressee::Conversation(conversation), Some(agent.clone()));
    let content = RawContent::text(&format!("read: {}", message.message_id.as_str()));
    // The same message always gives the same name and content: however often it is sent, it is one reply.
    let reply = Reply { channel, to, agent, reply_id: message.reply_id(), content, seen, confirm: None };
    client.ask_confirming(reply, show).await.map(drop)
}

/// A person would be shown the texts, and decide.
fn show(warning: &Warning) -> bool {
    warning.warnings.iter().for_each(|warning| println!("warned {}", warning.text));
    true
}
