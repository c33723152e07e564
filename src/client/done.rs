//! What an adapter has done, so that it tells what comes again from what is new.

use std::collections::{BTreeSet, VecDeque};

use crate::domain::ids::{ChannelId, Offset};
use crate::wire::message::Delivery;

/// Most deliveries that are remembered: more than the largest window, so more than can come again.
pub const DONE_MAX: usize = 1 << 17;

/// The deliveries that are done, by channel and offset; nothing else tells a repeat.
#[derive(Debug, Default)]
pub struct Done {
    places: BTreeSet<(ChannelId, Offset)>,
    /// In the order in which they were done.
    order: VecDeque<(ChannelId, Offset)>,
}

impl Done {
    /// Whether a delivery is done already.
    #[must_use]
    pub fn has(&self, delivery: &Delivery) -> bool {
        delivery.position().is_some_and(|place| self.places.contains(&place))
    }

    /// Remembers a delivery as done; past [`DONE_MAX`] the one that was done first is forgotten.
    pub fn put(&mut self, delivery: &Delivery) {
        let Some(place) = delivery.position().filter(|place| self.places.insert(*place)) else { return };
        self.order.push_back(place);
        if self.order.len() > DONE_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Timestamp;
    use crate::wire::message::{GapReason, deliveries};

    fn at(offset: u64) -> Delivery {
        let (channel, offset) = (ChannelId(7), Offset(offset));
        let (at, reason) = (Timestamp(1), GapReason::Retention);
        Delivery::Gap(deliveries::Gap { channel, offset, at, from: offset, to: offset, reason })
    }

    #[test]
    fn a_repeat_is_told_and_the_oldest_is_forgotten() {
        let mut done = Done::default();
        assert!(!done.has(&at(1)));
        for offset in 1..=DONE_MAX as u64 {
            done.put(&at(offset));
            done.put(&at(1));
        }
        assert!(done.has(&at(1)), "it was done once, and is remembered once");
        done.put(&at(DONE_MAX as u64 + 1));
        assert!(!done.has(&at(1)) && done.has(&at(2)));
    }
}
