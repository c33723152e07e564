//! Services take part by having a callback URL: a program written for the Cloud API has no word for joining a number.
//!
//! On plan `bundle` such a service joins a number's channel as soon as another one has made it, so that being told by HTTP
//! makes nobody the parent who did not ask for it; on plan `isolated` it has a channel of its own from the start. It joins
//! each number once: who takes it out again has taken it out until the next start, or until reloads take its URL away
//! and bring it back.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::actors::Caller;
use crate::actors::port::Answered;
use crate::domain::channel::Standing;
use crate::domain::command::ChannelState;
use crate::domain::ids::Number;
use crate::gateway::facade::known::FacadeNumber;

/// How often it is looked whether a number has a channel by now.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The numbers that a service has joined, or has been in before.
#[derive(Debug, Clone, Default)]
pub(super) struct Settled(Arc<Mutex<HashSet<Number>>>);

impl Settled {
    fn numbers(&self) -> MutexGuard<'_, HashSet<Number>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Joins the portal's numbers; ends when all of them are settled.
pub(super) async fn join(caller: Caller, numbers: Vec<Arc<FacadeNumber>>, settled: Settled) {
    loop {
        for number in numbers.iter().map(|number| &number.number) {
            if settled.numbers().contains(number) || !is_to_join(&caller, number, &settled) {
                continue;
            }
            match caller.create(number).await {
                Answered::Channel { .. } => tracing::info!(service = %caller.service(), "joined a number"),
                Answered::Refused(why) => {
                    tracing::warn!(service = %caller.service(), ?why, "can not join a number");
                }
                _ => continue,
            }
            settled.numbers().insert(number.clone());
        }
        if numbers.iter().all(|number| settled.numbers().contains(&number.number)) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_to_join(caller: &Caller, number: &Number, settled: &Settled) -> bool {
    match caller.channel(number) {
        Some((_, Standing::Subscribed | Standing::Inactive)) => {
            settled.numbers().insert(number.clone());
            false
        }
        Some((seen, Standing::None)) => seen.state == ChannelState::Active,
        None => caller.is_isolated(),
    }
}
