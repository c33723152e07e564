//! A gateway that embeds the broker: one process, plain hyper, with a telephone network of its own in place of WhatsApp.
//!
//! ```text
//! SHAREDLINE_TOKEN=… cargo run --example embedded_gateway -- sharedline.toml 127.0.0.1:8080 acme whatsapp +15550783881
//! curl -d 'Hi' http://127.0.0.1:8080/16505551234/$(date +%s%3N)    a customer writes, now; 200 once it is durable
//! curl http://127.0.0.1:8080/16505551234                           what his telephone shows, a message object a line
//! ```
//!
//! A message is known by its id *and* its time: who sends one again gives the same.

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use sharedline::actors::adapter::{Peer, Request as Asking};
use sharedline::actors::broker::{Hello, Session, Submission};
use sharedline::actors::port::{Answered, Outgoing};
use sharedline::actors::{Ask, Broker, Deliver};
use sharedline::config::{Config, Overrides};
use sharedline::domain::command::SendOutcome;
use sharedline::domain::event::{ClearTo, Customer, Message};
use sharedline::domain::ids::{CustomerName, Number, Timestamp};
use sharedline::net::listener::{Listener, Settings};
use sharedline::wire::content::check_inbound;
use tokio::net::TcpListener;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
/// What each customer's telephone shows.
type Telephones = Arc<Mutex<HashMap<String, String>>>;
/// Longest text of a customer, in bytes.
const TEXT_BYTES_MAX: usize = 64 << 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, http, portal, gateway, number] = arguments.as_slice() else {
        return Err("usage: embedded_gateway CONFIG HTTP_ADDRESS PORTAL GATEWAY NUMBER".into());
    };
    #[expect(clippy::disallowed_methods, reason = "an example has no configuration of its own")]
    let token = std::env::var("SHAREDLINE_TOKEN")?;
    let config = Config::load(Some(Path::new(config)), &Overrides::of_process(None))?;
    let broker = Broker::open(&config)?;
    let settings = Settings { ack_timeout: config.tcp.ack_timeout };
    let adapters = Listener::start(config.tcp.listen, &broker, settings)?;
    let peer = Peer::Gateway(gateway.parse()?);
    let hello =
        Hello { portal: portal.parse()?, peer, token, adapter: None, window: 1_024, deliver: Deliver::Share };
    let telephones = Telephones::default();
    tokio::spawn(ring(broker.connect(hello)?.session, Arc::clone(&telephones)));
    let listener = TcpListener::bind(http).await?;
    println!("tcp {}, http {}", adapters.address(), listener.local_addr()?);
    let number: Number = number.parse()?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (broker, number, telephones) = (broker.clone(), number.clone(), Arc::clone(&telephones));
        let answer = service_fn(move |request| {
            answer(request, broker.clone(), number.clone(), Arc::clone(&telephones))
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(5));
        tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
    }
}

/// Shows what the broker sends, and says that it did; the reply is `sent` then.
async fn ring(session: Session, telephones: Telephones) {
    let mut taken = Vec::new();
    while !session.outlet().is_ended() {
        session.outlet().ready().await;
        session.outlet().take(&mut taken);
        for outgoing in taken.drain(..) {
            let Outgoing::Send(send) = outgoing else { continue };
            let line = String::from_utf8_lossy(&send.content).into_owned() + "\n";
            let to = send.to.as_str().to_owned();
            telephones.lock().unwrap_or_else(PoisonError::into_inner).entry(to).or_default().push_str(&line);
            let Ok(message_id) = format!("wamid.{}.{}", send.channel, send.offset.0).parse() else {
                continue;
            };
            let outcome =
                Ask::Outcome { reply: send.offset, outcome: Box::new(SendOutcome::Sent(message_id)) };
            if session.ask(vec![(0, Asking::Of(send.channel, outcome))], 1).await.is_err() {
                return;
            }
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    broker: Broker,
    number: Number,
    telephones: Telephones,
) -> Outcome<Response<Full<Bytes>>> {
    let path = request.uri().path().to_owned();
    let (status, text) = match (request.method(), path.trim_matches('/').split_once('/')) {
        (&Method::GET, None) => {
            let telephones = telephones.lock().unwrap_or_else(PoisonError::into_inner);
            (StatusCode::OK, telephones.get(path.trim_matches('/')).cloned().unwrap_or_default())
        }
        (&Method::POST, Some((from, sent_at))) => {
            let body = Limited::new(request.into_body(), TEXT_BYTES_MAX).collect().await?.to_bytes();
            let text = serde_json::json!({"type": "text", "text": {"body": String::from_utf8_lossy(&body)}});
            let message = Message {
                message_id: format!("wamid.{from}.{sent_at}").parse()?,
                customer: Customer { wa_id: Some(CustomerName::read(from)?), ..Customer::default() },
                formerly: Vec::new(),
                sent_at: Timestamp(sent_at.parse()?),
                content: check_inbound(&Bytes::from(text.to_string()))?.content,
                refers_to: None,
                clear_to: ClearTo::Everyone,
            };
            let submitted =
                broker.submit(&number, &Submission::Message(message.into())).ok_or("no such number")?;
            let answers = submitted.answers().await;
            let is_taken =
                !answers.is_empty() && answers.iter().all(|answer| !matches!(answer, Answered::Refused(_)));
            let status = if is_taken { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, format!("{} channels\n", answers.len()))
        }
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    Ok(Response::builder().status(status).body(Full::from(text))?)
}
