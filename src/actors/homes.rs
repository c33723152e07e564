//! The Arbiters that actors live on, and how many live on each.
//!
//! On two cores or fewer there is one: more would only pass work between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::{Arbiter, ArbiterHandle};

use super::completion::Completions;

/// Most Arbiters; what is beyond serves the journal, the readers and the system.
const ARBITERS_MAX: usize = 8;

#[derive(Debug)]
struct Home {
    arbiter: ArbiterHandle,
    completions: Arc<Completions>,
    actors: AtomicUsize,
}

/// The Arbiters of one broker.
#[derive(Debug)]
pub(super) struct Homes {
    homes: Vec<Home>,
}

impl Homes {
    /// So many Arbiters, or as many as the cores allow if 0. Must be called on the system's thread.
    pub(super) fn start(arbiters: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let fitting = if cores > 2 { cores - 1 } else { 1 };
        let arbiters = if arbiters == 0 { fitting } else { arbiters }.min(ARBITERS_MAX);
        let own = |arbiter: ArbiterHandle| {
            let completions = Arc::new(Completions::default());
            let hand_on = Arc::clone(&completions).hand_on();
            arbiter.spawn(hand_on);
            Home { arbiter, completions, actors: AtomicUsize::new(0) }
        };
        let mut homes = vec![own(Arbiter::current())];
        homes.extend((1..arbiters).map(|_| own(Arbiter::new().handle())));
        Self { homes }
    }

    /// Where the portals live.
    pub(super) fn first(&self) -> Arc<Completions> {
        self.homes.first().map(|home| Arc::clone(&home.completions)).unwrap_or_default()
    }

    /// The Arbiter for the next actor.
    pub(super) fn least_loaded(&self) -> (ArbiterHandle, Arc<Completions>) {
        let least = self.homes.iter().min_by_key(|home| home.actors.load(Ordering::Relaxed));
        match least {
            Some(home) => {
                home.actors.fetch_add(1, Ordering::Relaxed);
                (home.arbiter.clone(), Arc::clone(&home.completions))
            }
            None => (Arbiter::current(), Arc::default()),
        }
    }

    /// Every Arbiter, for who spreads tasks of its own.
    pub(super) fn arbiters(&self) -> Vec<ArbiterHandle> {
        self.homes.iter().map(|home| home.arbiter.clone()).collect()
    }

    /// Ends the Arbiters but the system's own.
    pub(super) fn stop(&self) {
        for home in self.homes.iter().skip(1) {
            home.arbiter.stop();
        }
    }
}
