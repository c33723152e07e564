//! The workers of the services that have a callback URL: begun, told of changes, and ended as configurations come.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::envelope::Told;
use super::post::Endpoint;
use super::worker::{Worker, stopped};
use super::{Patience, Wanted};
use crate::actors::Broker;
use crate::gateway::facade::auth::Who;
use crate::gateway::facade::known::FacadeNumber;
use crate::gateway::facade::media::Shown;

/// Where and how one service is told, as the configuration says it.
pub(super) struct Telling {
    /// The portal's numbers.
    pub(super) numbers: Vec<Arc<FacadeNumber>>,
    pub(super) endpoint: Endpoint,
    /// How others' replies are told.
    pub(super) told: Told,
}

/// What all workers have in common.
pub(super) struct Crew {
    pub(super) broker: Broker,
    /// What services are told is shown to them, so they may fetch the media in it.
    pub(super) shown: Arc<Shown>,
    pub(super) patience: Patience,
    pub(super) stopped: watch::Receiver<bool>,
}

/// The running ones; a worker whose entry is dropped ends.
type Running = BTreeMap<Who, watch::Sender<Arc<Telling>>>;

impl Crew {
    /// Until all is stopped, and the last of them has ended.
    pub(super) async fn run(mut self, mut wanted: watch::Receiver<Arc<Wanted>>) {
        let mut running = Running::new();
        let mut workers = JoinSet::new();
        loop {
            let now = Arc::clone(&wanted.borrow_and_update());
            self.follow(&now, &mut running, &mut workers);
            loop {
                tokio::select! {
                    changed = wanted.changed() => match changed {
                        Ok(()) => break,
                        // Who could want anything else is gone; the workers go on until they are stopped.
                        Err(_) => return drain(&mut workers).await,
                    },
                    Some(_) = workers.join_next(), if !workers.is_empty() => {}
                    () = stopped(&mut self.stopped) => return drain(&mut workers).await,
                }
            }
        }
    }

    /// Lets those go that are not wanted any more, tells the others what holds now, begins the new ones.
    fn follow(&self, wanted: &Wanted, running: &mut Running, workers: &mut JoinSet<()>) {
        running.retain(|who, telling| wanted.contains_key(who) && !telling.is_closed());
        for (who, telling) in wanted {
            if let Some(running) = running.get(who) {
                running.send_replace(Arc::clone(telling));
                continue;
            }
            // None: it is not in the broker's own settings, which were exchanged before.
            let Some(caller) = self.broker.caller(&who.portal, &who.service) else { continue };
            let (sender, receiver) = watch::channel(Arc::clone(telling));
            let worker = Worker::new(caller, who.clone(), Arc::clone(&self.shown), receiver, self);
            workers.spawn(worker.run());
            running.insert(who.clone(), sender);
        }
    }
}

async fn drain(workers: &mut JoinSet<()>) {
    while workers.join_next().await.is_some() {}
}
