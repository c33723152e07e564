//! A Graph API to try the gateway against: a real HTTP server on loopback that plays Meta, for the demo and the tests.
//!
//! It checks each request by the rules of Meta's published description, answers in Meta's shapes, and misbehaves on
//! demand: errors, delays, connections that end at any point, answers that are lost. It keeps what it saw, and posts
//! webhooks as Meta would. It is nothing that WhatsApp has to do with, and no part of a running broker.
//!
//! # Layout
//! - `mod.rs`: the server, what it saw, how it is told to behave
//! - `http`: requests and answers on a socket · `rules`: what a message must look like · `media`: what it keeps of media
//! - `answers`: Meta's answers and errors · `webhooks`: what it tells the broker

mod answers;
mod http;
mod media;
pub mod rules;
mod webhooks;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use self::answers::{error, file, ok, uploaded, wrong};
use self::http::{Connection, Request, Response};
pub use self::media::Media;
use self::media::{FOLDER, Shelf, of_form, said};
pub use self::webhooks::{Customer, Echo, StatusNews, Webhooks};

/// The number that it serves, and what opens it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Meta's id of the number.
    pub phone_number_id: String,
    /// What a request must bring.
    pub access_token: String,
}

/// What it does with one request to send a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Takes the message and says so.
    Accept,
    /// Takes the message, and says so only after this long.
    Slow(Duration),
    /// Refuses with Meta's error of that code, perhaps with a `Retry-After` in seconds.
    Refuse(u32, Option<u64>),
    /// Answers with that status and no error of Meta's.
    Status(u16),
    /// Ends the connection without having read the request: it never saw the message.
    CloseUnread,
    /// Reads the request and ends the connection: it saw the message and died.
    CloseRead,
    /// Takes the message and ends the connection: the answer is lost.
    LoseAnswer,
    /// Takes the message and never answers.
    Hang,
}

/// What became of a message that it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It goes to the customer, under this id, whether the sender has learnt it or not.
    Taken(String),
    /// It was refused with that code.
    Refused(u32),
    /// It was read and forgotten.
    Forgotten,
}

/// A request to send a message.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it had been read.
    pub at: Instant,
    /// To whom: `to`, else `recipient`.
    pub to: String,
    /// All of it.
    pub body: Value,
    /// What became of it.
    pub fate: Fate,
}

impl Seen {
    /// Its `biz_opaque_callback_data`.
    #[must_use]
    pub fn callback_data(&self) -> Option<&str> {
        self.body.get("biz_opaque_callback_data")?.as_str()
    }

    /// The id of the message, if it goes to the customer.
    #[must_use]
    pub fn message_id(&self) -> Option<&str> {
        match &self.fate {
            Fate::Taken(id) => Some(id),
            Fate::Refused(_) | Fate::Forgotten => None,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    seen: Vec<Seen>,
    /// What the next requests meet, in order.
    next: VecDeque<Behaviour>,
    /// What requests to one customer meet.
    towards: BTreeMap<String, Behaviour>,
    /// What the rest meets.
    otherwise: Option<Behaviour>,
    /// Against the rules: never anything but a defect of the sender.
    wrongs: Vec<rules::Wrong>,
    media: Shelf,
    ids: u64,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    /// Where it is reached, without a path.
    base: String,
    state: Mutex<State>,
    grown: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A simulated Graph API. Dropped, it is gone, with every connection.
#[derive(Debug)]
pub struct Graph {
    shared: Arc<Shared>,
    address: SocketAddr,
    _alive: watch::Sender<()>,
}

impl Graph {
    /// Starts one on a port of loopback; 0: a free one.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16, settings: Settings) -> std::io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await?;
        let address = listener.local_addr()?;
        let base = format!("http://{address}");
        let shared = Arc::new(Shared { settings, base, state: Mutex::default(), grown: Notify::new() });
        let (alive, ended) = watch::channel(());
        tokio::spawn(serve(listener, Arc::clone(&shared), ended));
        Ok(Self { shared, address, _alive: alive })
    }

    /// What the configuration calls `graph_url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/v23.0", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next requests to send a message meet these, in order; those after them are dealt with as before.
    pub fn next(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.shared.state().next.extend(behaviours);
    }

    /// Requests that send a message to this customer meet this from now on.
    pub fn towards(&self, customer: &str, behaviour: Behaviour) {
        self.shared.state().towards.insert(customer.to_owned(), behaviour);
    }

    /// Requests for which nothing else was said meet this from now on.
    pub fn otherwise(&self, behaviour: Behaviour) {
        self.shared.state().otherwise = Some(behaviour);
    }

    /// Every request to send a message that was read, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// How many messages go to customers, each request counted.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.shared.state().seen.iter().filter(|seen| seen.message_id().is_some()).count()
    }

    /// Keeps media that a customer sent; gives their id, to be named in a webhook.
    #[must_use]
    pub fn customer_sent(&self, mime_type: &str, bytes: &[u8]) -> String {
        let media = Media { mime_type: mime_type.to_owned(), bytes: bytes.to_vec(), is_uploaded: false };
        self.shared.state().media.put(media)
    }

    /// The media with this id.
    #[must_use]
    pub fn media(&self, id: &str) -> Option<Media> {
        self.shared.state().media.get(id).cloned()
    }

    /// What was against the rules of the description.
    #[must_use]
    pub fn wrongs(&self) -> Vec<rules::Wrong> {
        self.shared.state().wrongs.clone()
    }

    /// Resolves when what was seen is as wanted; the caller bounds the wait.
    pub async fn until(&self, mut is_so: impl FnMut(&[Seen]) -> bool) {
        loop {
            let grown = self.shared.grown.notified();
            if is_so(&self.shared.state().seen) {
                return;
            }
            grown.await;
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, mut ended: watch::Receiver<()>) {
    // Dropped with this future, which ends every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Nothing is ever sent: it resolves when the `Graph` is gone.
            _ = ended.changed() => return,
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, Arc::clone(&shared)));
                }
            }
            _ = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let mut connection = Connection::new(stream);
    while connection.begins().await {
        if shared.state().next.front() == Some(&Behaviour::CloseUnread) {
            shared.state().next.pop_front();
            return;
        }
        let Some(request) = connection.read().await else { return };
        let Some(response) = answer(&shared, &request).await else { return };
        if connection.write(&response).await.is_err() {
            return;
        }
    }
}

/// What a request gets; none: the connection ends without an answer.
async fn answer(shared: &Shared, request: &Request) -> Option<Response> {
    let authorized =
        request.header("authorization") == Some(format!("Bearer {}", shared.settings.access_token).as_str());
    if !authorized {
        return Some(error(190, None));
    }
    let path = request.path.split('?').next().unwrap_or_default();
    let steps: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let is_version = |version: &str| version.starts_with('v') && version.contains('.');
    let number = shared.settings.phone_number_id.as_str();
    match (request.method.as_str(), steps.as_slice()) {
        ("POST", [version, id, "messages"]) if is_version(version) && *id == number => {
            message(shared, request).await
        }
        ("POST", [version, id, "media"]) if is_version(version) && *id == number => {
            let media = request.header("content-type").and_then(|kind| of_form(kind, &request.body));
            Some(media.map_or_else(|| error(100, None), |media| uploaded(&shared.state().media.put(media))))
        }
        ("GET", [FOLDER, id]) => Some(shared.state().media.get(id).map_or_else(|| error(100, None), file)),
        ("GET", [version, id]) if is_version(version) => {
            let known = shared.state().media.get(id).map(|media| ok(&said(id, media, &shared.base)));
            Some(known.unwrap_or_else(|| error(100, None)))
        }
        ("DELETE", [version, id]) if is_version(version) && shared.state().media.remove(id) => {
            Some(ok(&serde_json::json!({ "success": true })))
        }
        _ => Some(error(100, None)),
    }
}

async fn message(shared: &Shared, request: &Request) -> Option<Response> {
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else { return Some(error(100, None)) };
    let name = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    let to = name("to").or_else(|| name("recipient")).unwrap_or_default();
    let checked = rules::check(&body);
    let (behaviour, fate) = {
        let mut state = shared.state();
        let behaviour = match &checked {
            Err(wrong) => Behaviour::Refuse(wrong.code, None),
            Ok(()) => {
                let towards = state.towards.get(&to).cloned();
                let next = if towards.is_none() { state.next.pop_front() } else { None };
                towards.or(next).or_else(|| state.otherwise.clone()).unwrap_or(Behaviour::Accept)
            }
        };
        state.wrongs.extend(checked.as_ref().err().cloned());
        state.ids += 1;
        let fate = match behaviour {
            Behaviour::Refuse(code, _) => Fate::Refused(code),
            Behaviour::Status(_) | Behaviour::CloseRead | Behaviour::CloseUnread => Fate::Forgotten,
            Behaviour::Accept | Behaviour::Slow(_) | Behaviour::LoseAnswer | Behaviour::Hang => {
                Fate::Taken(format!("wamid.SIM{:08}", state.ids))
            }
        };
        let seen = Seen { at: Instant::now(), to: to.clone(), body, fate: fate.clone() };
        state.seen.push(seen);
        (behaviour, fate)
    };
    shared.grown.notify_waiters();
    let accepted = |fate: Fate| match fate {
        Fate::Taken(id) => Some(answers::accepted(&to, &id)),
        Fate::Refused(_) | Fate::Forgotten => None,
    };
    match behaviour {
        Behaviour::Accept => accepted(fate),
        Behaviour::Slow(time) => {
            tokio::time::sleep(time).await;
            accepted(fate)
        }
        Behaviour::Refuse(code, retry_after_s) => Some(match checked {
            Err(found) => wrong(&found),
            Ok(()) => error(code, retry_after_s),
        }),
        Behaviour::Status(status) => Some(answers::nothing(status)),
        Behaviour::CloseUnread | Behaviour::CloseRead | Behaviour::LoseAnswer => None,
        Behaviour::Hang => std::future::pending().await,
    }
}
