//! Services take part by having a callback URL: a program written for the Cloud API has no word for joining a number.
//!
//! On plan `bundle` such a service joins a number's channel as soon as another one has made it, so that being told by HTTP
//! makes nobody the parent who did not ask for it; on plan `isolated` it has a channel of its own from the start. It joins
//! each number once: who takes it out again has taken it out until the next start.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::actors::Caller;
use crate::actors::port::Answered;
use crate::domain::channel::Standing;
use crate::domain::command::ChannelState;
use crate::domain::ids::Number;
use crate::gateway::facade::FacadeNumber;

/// How often it is looked whether a number has a channel by now.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Joins the portal's numbers; goes on until it is dropped.
pub(super) async fn join(caller: Caller, numbers: Vec<Arc<FacadeNumber>>) {
    let mut settled: HashSet<Number> = HashSet::new();
    loop {
        for number in numbers.iter().map(|number| &number.number) {
            if settled.contains(number) || !is_to_join(&caller, number, &mut settled) {
                continue;
            }
            match caller.create(number).await {
                Answered::Channel { .. } => tracing::info!(service = %caller.service(), "joined a number"),
                Answered::Refused(why) => {
                    tracing::warn!(service = %caller.service(), ?why, "can not join a number");
                }
                _ => continue,
            }
            settled.insert(number.clone());
        }
        if settled.len() == numbers.len() {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_to_join(caller: &Caller, number: &Number, settled: &mut HashSet<Number>) -> bool {
    match caller.channel(number) {
        Some((_, Standing::Subscribed | Standing::Inactive)) => {
            settled.insert(number.clone());
            false
        }
        Some((seen, Standing::None)) => seen.state == ChannelState::Active,
        None => caller.is_isolated(),
    }
}
