//! What services are told at their own callback URLs: one worker each, on a thread of their own.
//!
//! ```text
//! the broker ══ Outlet ══▶ worker ─▶ lanes (one conversation's in order, several at once) ─▶ envelope ─▶ post ─▶ 200
//!                            ▲                                                                            │
//!                            └────────────────────────────── ack ◀────────────────────────────────────────┘
//! ```
//!
//! # Layout
//! - `worker`: one service's connection to the broker, and what is told of each delivery · `lanes`: what may be posted when
//! - `envelope`: a delivery as Meta would tell it · `post`: one attempt · `join`: services that take part by having a URL
//!
//! # Invariants
//! - A worker is an adapter of its service like any other: what it has not posted stays in the journal and holds up nobody
//!   but its service. It is never `stalled`, so an endpoint that is down costs it no connection and no second delivery.
//! - A delivery is posted until it is answered 200, each time with the same bytes, and acknowledged only then.

mod envelope;
mod join;
mod lanes;
mod post;
mod worker;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;

use self::envelope::Told;
use self::post::Endpoint;
use self::worker::Worker;
use super::auth::Who;
use super::{Facade, FacadeNumber};
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

/// The workers of all services that have a callback URL. They end when the broker drains, or this is dropped.
pub struct Callbacks {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Callbacks {
    /// Starts them, on a thread of their own; on none where no service has a URL.
    ///
    /// # Errors
    /// When the thread or the client can not be made.
    pub fn start(facade: &Facade, config: &Config, patience: Patience) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let client = post::client(patience.post_within).map_err(io::Error::other)?;
        let mut workers = Vec::new();
        for portal in &config.portals {
            let id = &portal.rules.portal;
            for (service, callback) in &portal.callbacks {
                let Some(caller) = facade.broker.caller(id, service) else { continue };
                let own: Vec<Arc<FacadeNumber>> =
                    facade.numbers.iter().filter(|number| number.portal == *id).cloned().collect();
                workers.push(Worker {
                    who: Who { portal: id.clone(), service: service.clone() },
                    shown: Arc::clone(&facade.shown),
                    caller,
                    numbers: own,
                    endpoint: Arc::new(Endpoint::new(client.clone(), callback)),
                    told: Arc::new(Told::new(callback, facade.roles.of_service(id, service))),
                    patience,
                    stopped: stopped.clone(),
                });
            }
        }
        if workers.is_empty() {
            return Ok(Self { stop, thread: None });
        }
        let run = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(async {
                let mut running = tokio::task::JoinSet::new();
                workers.into_iter().for_each(|worker| drop(running.spawn(worker.run())));
                while running.join_next().await.is_some() {}
            }),
            Err(error) => tracing::error!(%error, "no service is told at its callback URL"),
        };
        let thread = thread::Builder::new().name("callbacks".to_owned()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
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
