//! What services are told at their own callback URLs: one worker each, on a thread of their own.
//!
//! ```text
//! the broker ══ Outlet ══▶ worker ─▶ lanes (one conversation's in order, several at once) ─▶ envelope ─▶ post ─▶ 200
//!                            ▲                                                                            │
//!                            └────────────────────────────── ack ◀────────────────────────────────────────┘
//! ```
//!
//! # Layout
//! - `crew`: the workers of a configuration, and of the next · `worker`: one service's connection to the broker, and what
//!   is told of each delivery · `lanes`: what may be posted when
//! - `envelope`: a delivery as Meta would tell it · `post`: one attempt · `join`: services that take part by having a URL
//!
//! # Invariants
//! - A worker is an adapter of its service like any other: what it has not posted stays in the journal and holds up nobody
//!   but its service. It is never `stalled`, so an endpoint that is down costs it no connection and no second delivery.
//! - A delivery is posted until it is answered 200, each time with the same bytes, and acknowledged only then.
//! - A reload reaches a worker under way: what it has not told yet it tells at the new URL, from where it is. One that a
//!   410 has ended begins anew.

mod crew;
mod envelope;
mod join;
mod lanes;
mod post;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use reqwest::Client;
use tokio::sync::watch;

use self::crew::{Crew, Telling};
use self::envelope::Told;
use self::post::Endpoint;
use super::Facade;
use super::auth::Who;
use crate::config::Config;

/// How long things may take; shorter in tests.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one attempt, from the first byte to the status.
    pub post_within: Duration,
    /// Before the second attempt; each further one waits twice as long, up to `retry_longest`.
    pub retry_first: Duration,
    /// Longest wait between two attempts.
    pub retry_longest: Duration,
    /// For how long a delivery is tried (Meta: 7 days).
    pub retry_for: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            post_within: Duration::from_secs(10),
            retry_first: Duration::from_secs(1),
            retry_longest: Duration::from_secs(300),
            retry_for: Duration::from_secs(7 * 86_400),
        }
    }
}

/// Who is told what, as a configuration says it.
type Wanted = BTreeMap<Who, Arc<Telling>>;

/// The workers of all services that have a callback URL. They end when the broker drains, or this is dropped.
pub struct Callbacks {
    client: Client,
    patience: Patience,
    wanted: watch::Sender<Arc<Wanted>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Callbacks {
    /// Starts them, on a thread of their own; on none where no service has a URL.
    ///
    /// # Errors
    /// When the thread or the client can not be made.
    pub fn start(facade: &Arc<Facade>, config: &Config, patience: Patience) -> io::Result<Self> {
        let client = post::client(patience.post_within).map_err(io::Error::other)?;
        let (stop, _) = watch::channel(false);
        let (wanted, _) = watch::channel(Arc::default());
        let mut callbacks = Self { client, patience, wanted, stop, thread: None };
        callbacks.reload(facade, config)?;
        Ok(callbacks)
    }

    /// Tells whom this configuration names, where it says and as it says, after the facade has taken it over.
    ///
    /// # Errors
    /// When the thread can not be made, where there was none before; then nobody is told anything.
    pub fn reload(&mut self, facade: &Arc<Facade>, config: &Config) -> io::Result<()> {
        let known = facade.known();
        let mut wanted = Wanted::new();
        for portal in &config.portals {
            let id = &portal.rules.portal;
            for (service, callback) in &portal.callbacks {
                let telling = Telling {
                    numbers: known.numbers_of(id),
                    endpoint: Endpoint::new(self.client.clone(), callback),
                    told: Told::new(callback, known.roles.of_service(id, service)),
                };
                let who = Who { portal: id.clone(), service: service.clone() };
                wanted.insert(who, Arc::new(telling));
            }
        }
        let is_first = self.thread.is_none() && !wanted.is_empty();
        self.wanted.send_replace(Arc::new(wanted));
        if is_first {
            self.thread = Some(self.begin(facade)?);
        }
        Ok(())
    }

    fn begin(&self, facade: &Arc<Facade>) -> io::Result<JoinHandle<()>> {
        let crew = Crew {
            broker: facade.broker.clone(),
            shown: Arc::clone(&facade.shown),
            patience: self.patience,
            stopped: self.stop.subscribe(),
        };
        let wanted = self.wanted.subscribe();
        let run = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(crew.run(wanted)),
            Err(error) => tracing::error!(%error, "no service is told at its callback URL"),
        };
        thread::Builder::new().name("callbacks".to_owned()).spawn(run)
    }

    /// Posts nothing more, acknowledges what was answered, and ends. Blocks until then, for a few seconds at most.
    pub fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the callbacks panicked");
        }
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        self.stop();
    }
}
