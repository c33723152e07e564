//! Whose turn it is among several that want the same thing, by their weights (B14).
//!
//! Start-time fair queueing: each turn costs who has it `TURN` over its weight, and who has paid least so far is next.
//! Who comes back after having wanted nothing begins where the others are: what it did not use the others have used, and
//! it is owed nothing.
//!
//! **Invariants:** of n turns in a row, those who want all of them get theirs by weight, give or take one turn of each.
//! What was paid is counted in time of its own; no clock is looked at.

use std::collections::BTreeMap;

/// What a turn costs at weight 1: so much that the largest weight still divides it well enough (to 1 in 10,000).
const TURN: u64 = 1 << 20;
/// Largest weight: beyond it the lightest would wait for seconds at WhatsApp's own rate.
pub const WEIGHT_MAX: u32 = 100;
/// The weight of who has no other.
pub const WEIGHT_DEFAULT: u32 = 1;

/// What has been paid so far.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Turns<K> {
    /// What the last turn began at.
    at: u64,
    /// What each had paid with its last turn.
    paid: BTreeMap<K, u64>,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { at: 0, paid: BTreeMap::new() }
    }
}

impl<K: Copy + Ord> Turns<K> {
    /// As they were written down: [`Turns::at`], and [`Turns::paid`] of each.
    pub(super) fn restore(at: u64, paid: impl IntoIterator<Item = (K, u64)>) -> Self {
        Self { at, paid: paid.into_iter().filter(|(_, paid)| *paid > 0).collect() }
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// What one had paid with its last turn; 0 if it had none.
    pub(super) fn paid(&self, who: K) -> u64 {
        self.paid.get(&who).copied().unwrap_or(0)
    }

    /// Of those who want the next turn it is the one's with the least; of equals the one's that had none for longest.
    pub(super) fn rank(&self, who: K) -> (u64, u64) {
        let paid = self.paid(who);
        (paid.max(self.at), paid)
    }

    /// One has had its turn.
    pub(super) fn take(&mut self, who: K, weight: u32) {
        let (begin, _) = self.rank(who);
        self.at = begin;
        self.paid.insert(who, begin.saturating_add(TURN / u64::from(weight.clamp(1, WEIGHT_MAX))));
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.paid.len()
    }

    /// Forgets who is owed nothing and owes nothing.
    pub(super) fn forget_even(&mut self) {
        self.paid.retain(|_, paid| *paid > self.at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives turns to who wants them; says how many each has had.
    fn play(
        turns: &mut Turns<usize>,
        weights: &[u32],
        rounds: usize,
        wants: impl Fn(usize, usize) -> bool,
    ) -> Vec<u64> {
        let mut had = vec![0; weights.len()];
        for round in 0..rounds {
            let wanting = (0..weights.len()).filter(|who| wants(round, *who));
            if let Some(next) = wanting.min_by_key(|who| turns.rank(*who)) {
                turns.take(next, weights[next]);
                had[next] += 1;
            }
        }
        had
    }

    proptest! {
        #[test]
        fn turns_follow_the_weights_while_all_want_them(
            weights in prop::collection::vec(1_u32..=WEIGHT_MAX, 1..6),
            before in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut turns = Turns::default();
            // Whatever was before, nobody is owed anything for it.
            play(&mut turns, &weights, before.len(), |round, who| before[round] >> who & 1 == 1);
            let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let had = play(&mut turns, &weights, 2_000, |_, _| true);
            for (had, weight) in had.into_iter().zip(&weights) {
                let due = 2_000.0 * f64::from(*weight) / sum as f64;
                let most_off = 2.0 + weights.len() as f64 * f64::from(*weight) / sum as f64;
                prop_assert!((had as f64 - due).abs() <= most_off, "{had} of {due}: {weights:?}");
            }
        }

        #[test]
        fn nobody_waits_for_longer_than_the_others_weights_say(
            weights in prop::collection::vec(1_u32..=WEIGHT_MAX, 2..6),
            wants in prop::collection::vec(any::<u8>(), 1..1_000),
        ) {
            // The first wants every turn; the others come and go.
            let mut turns = Turns::default();
            let others: u32 = weights[1..].iter().sum();
            let most = 2 * weights[1..].iter().map(|_| 1).sum::<u32>() + others.div_ceil(weights[0]);
            let mut waited = 0;
            for wants in wants {
                let wanting = (0..weights.len()).filter(|who| *who == 0 || wants >> who & 1 == 1);
                let next = wanting.min_by_key(|who| turns.rank(*who)).unwrap();
                turns.take(next, weights[next]);
                waited = if next == 0 { 0 } else { waited + 1 };
                prop_assert!(waited <= most, "{waited} turns, {weights:?}");
            }
        }
    }

    #[test]
    fn what_one_does_not_want_is_the_others_and_is_not_owed() {
        let mut turns = Turns::default();
        let weights = [3, 1, 1];
        assert_eq!(play(&mut turns, &weights, 100, |_, who| who != 0), [0, 50, 50]);
        // Back again it has its share, and no more.
        let had = play(&mut turns, &weights, 100, |_, _| true);
        assert!(had.iter().zip([60_u64, 20, 20]).all(|(had, due)| had.abs_diff(due) <= 1), "{had:?}");
    }
}
