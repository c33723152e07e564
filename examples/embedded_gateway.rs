//! A gateway that embeds the broker: one process, with a telephone network of its own in place of WhatsApp.
//!
//! ```text
//! cargo run --example embedded_gateway -- sharedline.toml 127.0.0.1:8080 acme whatsapp +15550783881
//! curl -d 'Hi' http://127.0.0.1:8080/16505551234/$(date +%s%3N)    a customer writes, now; 200 once it is durable
//! curl http://127.0.0.1:8080/16505551234                           what his telephone shows, a message object a line
//! ```
//!
//! A message is known by its id *and* its time: who sends one again gives the same.
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::{App, HttpResponse, HttpServer, error, web};
use sharedline::actors::Broker;
use sharedline::config::{Config, Overrides};
use sharedline::domain::{event::Customer, ids::CustomerName, ids::Number, ids::Timestamp};
use sharedline::net::listener::{Listener, Settings};
use sharedline::net::local::{Events, Local, LocalError};
use sharedline::wire::message::requests::{Hello, Inbound, Sent};
use sharedline::wire::message::{Delivery, RawContent, SentOutcome};

/// What each customer's telephone shows.
type Telephones = Arc<Mutex<HashMap<String, String>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, http, portal, gateway, number] = arguments.as_slice() else {
        return Err("usage: embedded_gateway CONFIG HTTP_ADDRESS PORTAL GATEWAY NUMBER".into());
    };
    let config = Config::load(Some(Path::new(config)), &Overrides::of_process(None))?;
    let broker = Broker::start(&config)?;
    // Adapters still come over TCP.
    let settings = Settings { ack_timeout: config.tcp.ack_timeout };
    let adapters = Listener::start(config.tcp.listen, &broker, settings)?;
    let (gateway, _, sends) = broker.join(Hello::gateway(portal.parse()?, gateway.parse()?))?;
    let (telephones, number) = (Telephones::default(), number.parse::<Number>()?);
    tokio::spawn(ring(gateway.clone(), sends, Arc::clone(&telephones)));
    let app = move || {
        let state = web::Data::new((gateway.clone(), number.clone(), Arc::clone(&telephones)));
        App::new()
            .app_data(state)
            .route("/{from}/{at}", web::post().to(write))
            .route("/{of}", web::get().to(show))
    };
    let server = HttpServer::new(app).workers(1).bind(http)?;
    println!("tcp {}, http {:?}", adapters.address(), server.addrs());
    tokio::select! {
        ended = server.run() => ended?, // a signal: its requests are answered
        reason = broker.halted() => return Err(reason.into()),
    }
    Ok(broker.stop(config.limits.drain_timeout).await?)
}

/// Shows what the broker sends, and says that it did; the reply is `sent` then.
async fn ring(gateway: Local, mut sends: Events, telephones: Telephones) -> Result<(), LocalError> {
    loop {
        let Delivery::Send(send) = sends.next().await? else { continue };
        let line = String::from_utf8_lossy(&send.content.0).into_owned() + "\n";
        let to = send.to.as_str().to_owned();
        telephones.lock().unwrap_or_else(PoisonError::into_inner).entry(to).or_default().push_str(&line);
        let Ok(message_id) = format!("wamid.{}.{}", send.channel, send.offset.0).parse() else { continue };
        let outcome = SentOutcome::Sent(message_id);
        gateway.ask(Sent { channel: send.channel, offset: send.offset, outcome }).await?;
    }
}

type State = web::Data<(Local, Number, Telephones)>;

/// A customer writes. Where the broker is too busy this waits; a number that nobody has in use takes nothing.
async fn write(
    path: web::Path<(String, u64)>,
    text: String,
    state: State,
) -> actix_web::Result<HttpResponse> {
    let ((from, at), (gateway, number, _)) = (path.into_inner(), &**state);
    let taken = gateway.ask(Inbound {
        number: number.clone(),
        message_id: format!("wamid.{from}.{at}").parse().map_err(error::ErrorBadRequest)?,
        customer: Customer {
            wa_id: Some(CustomerName::read(&from).map_err(error::ErrorBadRequest)?),
            ..Customer::default()
        },
        at: Timestamp(at),
        content: RawContent::text(&text),
        refers_to: None,
    });
    match taken.await.map_err(error::ErrorServiceUnavailable)?.channels {
        0 => Ok(HttpResponse::ServiceUnavailable().finish()),
        channels => Ok(HttpResponse::Ok().body(format!("{channels} channels\n"))),
    }
}

async fn show(of: web::Path<String>, state: State) -> String {
    let telephones = state.2.lock().unwrap_or_else(PoisonError::into_inner);
    telephones.get(of.as_str()).cloned().unwrap_or_default()
}
