//! A whole service adapter with the crate's own client: it picks every customer's message up and answers it, once.
//!
//! ```text
//! SHAREDLINE_TOKEN=… cargo run --example adapter -- 127.0.0.1:7411 acme crm +15550783881 ann
//! ```

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use sharedline::client::{Client, ClientError, Event, Options, position};
use sharedline::domain::event::Agent;
use sharedline::domain::ids::AgentId;
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::{CreateChannel, Hello, Open, PickUp, Reply, Roster};
use sharedline::wire::message::{
    Addressee, DeliverMode, Delivery, ErrorCode, Positions, Private, RawContent, Request, Response, Who,
    deliveries,
};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, portal, service, number, agent] = arguments.as_slice() else {
        return Err("usage: adapter ADDRESS PORTAL SERVICE NUMBER AGENT".into());
    };
    #[expect(clippy::disallowed_methods, reason = "an example has no configuration")]
    let token = std::env::var("SHAREDLINE_TOKEN")?;
    let hello = Hello {
        version: 1,
        who: Who::Service(service.parse()?),
        portal: portal.parse()?,
        token: token.as_str().into(),
        adapter: Some(format!("{service}-{agent}").parse()?),
        window: 256,
        deliver: DeliverMode::Share,
        from: Positions::default(),
        heartbeat_ms: None,
    };
    let options = Options { address: address.parse()?, encoding: Encoding::Binary, hello };
    let (client, _, mut events) = Client::connect(options).await?;
    let agent: AgentId = agent.parse()?;
    let agents = vec![Agent { agent: agent.clone(), name: agent.as_str().into(), lead: false }];
    client.request(Roster { agents, replace: false, remove: Vec::new() }).await?;
    // Joins, or comes back; changes nothing where it is there.
    client.request(CreateChannel { number: number.parse()?, backfill: false }).await?;
    let mut adapter = Adapter { client, agent, done: BTreeSet::new(), is_lost: false };
    while let Some(event) = events.next().await {
        match event {
            Event::Delivery(delivery) => adapter.work(delivery).await?,
            Event::Reconnected(_) => adapter.is_lost = false,
            Event::Goaway { .. } => {}
            Event::Ended(error) => return Err(error.into()),
        }
    }
    Ok(())
}

struct Adapter {
    client: Client,
    agent: AgentId,
    /// Channel and offset of all that is done: how a repeat is told. Grows for as long as this example runs.
    done: BTreeSet<(String, u64)>,
    /// What is left of a lost connection comes again, so that nothing of it is done and acknowledged out of turn.
    is_lost: bool,
}

impl Adapter {
    /// One delivery after the other, and its `ack` last: it covers all that came before.
    async fn work(&mut self, delivery: Delivery) -> Outcome {
        let Some((channel, offset)) = position(&delivery) else { return Ok(()) };
        if self.is_lost {
            return Ok(());
        }
        let place = (channel.to_string(), offset.0);
        if let Delivery::Message(message) = &delivery
            && !self.done.contains(&place)
        {
            let id = message.message_id.as_str();
            match self.answer(message).await {
                Ok(()) => println!("answered {id}"),
                // For good: claimed, window_closed, channel_closed …
                Err(ClientError::Refused(error)) => println!("not answered {id} {}", error.code.as_str()),
                Err(_) => {
                    self.is_lost = true;
                    return Ok(());
                }
            }
        }
        self.done.insert(place);
        Ok(self.client.ack(channel, offset).await?)
    }

    async fn answer(&self, message: &deliveries::Message) -> Result<(), ClientError> {
        let (channel, conversation, agent) = (message.channel, message.conversation, &self.agent);
        let pick_up = |confirm| PickUp { channel, conversation, agent: agent.clone(), confirm };
        self.ask_confirmed(|confirm| pick_up(confirm).into()).await?;
        let open = Open { channel, conversation, agent: agent.clone(), limit: 1, before: None };
        let Response::Conversation(opened) = self.ask(open.into()).await? else {
            return Err(ClientError::Protocol("open was not answered by a conversation".to_owned()));
        };
        // The same message always gives the same name and content: however often it is sent, it is one reply.
        let reply_id = format!("{channel}:{}", message.offset.0);
        let reply_id = reply_id.parse().map_err(|_| ClientError::Protocol("no reply id".to_owned()))?;
        let content =
            format!(r#"{{"type":"text","text":{{"body":"read: {}"}}}}"#, message.message_id.as_str());
        let reply = Reply {
            channel,
            to: Addressee::Conversation(conversation),
            agent: Some(agent.clone()),
            reply_id,
            content: RawContent(Bytes::from(content)),
            seen: Some(opened.head),
            confirm: None,
        };
        self.ask_confirmed(|confirm| Reply { confirm, ..reply.clone() }.into()).await
    }

    /// Asks, and confirms what it is warned of; a person would be shown the texts, and decide.
    async fn ask_confirmed(&self, request: impl Fn(Option<Private>) -> Request) -> Result<(), ClientError> {
        let mut response = self.ask(request(None)).await?;
        while let Response::Warning(warning) = response {
            warning.warnings.iter().for_each(|warning| println!("warned {}", warning.text));
            response = self.ask(request(Some(warning.confirm))).await?;
        }
        Ok(())
    }

    /// Asks, again where the broker says that it may work later.
    async fn ask(&self, request: Request) -> Result<Response, ClientError> {
        loop {
            let refused = match self.client.request(request.clone()).await {
                Err(ClientError::Refused(error)) => error,
                answered => return answered,
            };
            if !matches!(refused.code, ErrorCode::Overloaded | ErrorCode::Unavailable | ErrorCode::Internal) {
                return Err(ClientError::Refused(refused));
            }
            tokio::time::sleep(Duration::from_millis(refused.retry_after_ms.unwrap_or(1_000))).await;
        }
    }
}
