//! A hash map of some thousand entries that lie one behind the other: what a [`BucketMap`](super::buckets::BucketMap)
//! has in each of its buckets.
//!
//! A plain hash map leaves an eighth to more than half of its places empty, and a place is as large as an entry. Here
//! what has empty places is a table of two bytes each, which say where an entry lies and five bits of its key's hash:
//!
//! ```text
//!  slots    │ · │ 2 │ · │ · │ 0 │ 1 │ · │ …     linear probing; the first at the hash's place, what is taken moves on
//!  entries  │ first │ second │ third │           in the order of insertion, until one is taken out
//! ```
//!
//! **Invariant:** each of the first [`LISTED_MAX`] entries is in one slot, and no slot between there and the hash's
//! place is empty. Entries behind those are looked through: buckets split long before.

/// Entries that slots can name.
const LISTED_MAX: usize = 2_047;
/// The part of a slot that says where the entry lies, counted from 1; zero where the slot is empty.
const POSITION: u16 = 0x07ff;
/// The other part: the hash's first bits.
const TAG_SHIFT: u32 = 11;
/// Fewest slots, but for an empty map, which has none.
const SLOTS_MIN: usize = 8;
/// Fewest entries that room is made for at a time; else an eighth of what is there.
const GROW_MIN: usize = 4;

/// The map. Hashes are given by whoever owns it: the same key always comes with the same.
#[derive(Clone)]
pub(super) struct Dense<K, V> {
    entries: Vec<(K, V)>,
    /// As many as a power of two, or none.
    slots: Vec<u16>,
}

impl<K: Copy + Eq, V> Dense<K, V> {
    /// Empty; holds no memory.
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), slots: Vec::new() }
    }

    /// Empty, with room for so many and an eighth more, and the slots for as many.
    pub(super) fn with_room(entries: usize) -> Self {
        let slots = (entries.min(LISTED_MAX) * 8).div_ceil(7).max(SLOTS_MIN).next_power_of_two();
        Self { entries: Vec::with_capacity(entries + entries / 8), slots: vec![0; slots] }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries that it has room for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    pub(super) fn into_entries(self) -> Vec<(K, V)> {
        self.entries
    }

    pub(super) fn get(&self, hash: u32, key: &K) -> Option<&V> {
        self.entries.get(self.find(hash, key)?).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, hash: u32, key: &K) -> Option<&mut V> {
        let position = self.find(hash, key)?;
        self.entries.get_mut(position).map(|(_, value)| value)
    }

    /// Sets the value of a key; gives the one before. `hash_of` is asked where the slots must be laid out anew.
    pub(super) fn insert(&mut self, hash: u32, key: K, value: V, hash_of: impl Fn(&K) -> u32) -> Option<V> {
        if let Some(known) = self.get_mut(hash, &key) {
            return Some(std::mem::replace(known, value));
        }
        self.push(hash, key, value, hash_of);
        None
    }

    /// The same for a key that is known to be new.
    pub(super) fn push(&mut self, hash: u32, key: K, value: V, hash_of: impl Fn(&K) -> u32) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(GROW_MIN.max(self.entries.len() / 8));
        }
        let position = self.entries.len();
        self.entries.push((key, value));
        if position < LISTED_MAX && 8 * self.entries.len() > 7 * self.slots.len() {
            self.lay_out((2 * self.slots.len()).max(SLOTS_MIN), hash_of);
        } else {
            self.list(position, hash);
        }
    }

    /// Takes a key out; the last entry takes its place.
    pub(super) fn remove(&mut self, key: &K, hash_of: impl Fn(&K) -> u32) -> Option<V> {
        let hash = hash_of(key);
        let position = self.find(hash, key)?;
        if let Some(slot) = self.slot_of(position, hash) {
            self.empty(slot, &hash_of);
        }
        let (_, value) = self.entries.swap_remove(position);
        let last = self.entries.len();
        if let Some((moved, _)) = self.entries.get(position) {
            let hash = hash_of(moved);
            match self.slot_of(last, hash).and_then(|slot| self.slots.get_mut(slot)) {
                Some(slot) => *slot = slot_for(position, hash),
                None => self.list(position, hash),
            }
        }
        Some(value)
    }

    /// Gives back the room of an empty map, but for so many entries.
    pub(super) fn shrink_to(&mut self, entries: usize) {
        if self.is_empty() {
            self.entries.shrink_to(entries);
            self.slots.truncate((2 * entries).next_power_of_two());
            self.slots.shrink_to_fit();
        }
    }

    fn find(&self, hash: u32, key: &K) -> Option<usize> {
        let (mask, tag) = (self.slots.len().wrapping_sub(1), tag(hash));
        let mut at = hash as usize & mask;
        // An eighth of the slots are empty, where there are any.
        while let Some(slot) = self.slots.get(at).copied().filter(|slot| *slot != 0) {
            let position = usize::from(slot & POSITION) - 1;
            if slot & !POSITION == tag && self.entries.get(position).is_some_and(|(known, _)| known == key) {
                return Some(position);
            }
            at = (at + 1) & mask;
        }
        let behind = self.entries.get(LISTED_MAX..).unwrap_or_default();
        behind.iter().position(|(known, _)| known == key).map(|position| LISTED_MAX + position)
    }

    /// The slots that a hash's entry may be in, in order.
    fn way(&self, hash: u32) -> impl Iterator<Item = usize> + use<K, V> {
        let (slots, home) = (self.slots.len(), hash as usize);
        (0..slots).map(move |step| home.wrapping_add(step) & (slots - 1))
    }

    /// The slot of an entry that is listed.
    fn slot_of(&self, position: usize, hash: u32) -> Option<usize> {
        let named = u16::try_from(position + 1).ok().filter(|_| position < LISTED_MAX)?;
        self.way(hash).find(|at| self.slots.get(*at).is_some_and(|slot| slot & POSITION == named))
    }

    /// Has a slot name an entry, if it is one of those that slots can name.
    fn list(&mut self, position: usize, hash: u32) {
        if position >= LISTED_MAX {
            return;
        }
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        // An eighth of the slots are empty.
        while let Some(slot) = self.slots.get_mut(at) {
            if *slot == 0 {
                *slot = slot_for(position, hash);
                return;
            }
            at = (at + 1) & mask;
        }
    }

    fn lay_out(&mut self, slots: usize, hash_of: impl Fn(&K) -> u32) {
        self.slots = vec![0; slots];
        for position in 0..self.entries.len().min(LISTED_MAX) {
            if let Some((key, _)) = self.entries.get(position) {
                self.list(position, hash_of(key));
            }
        }
    }

    /// Empties a slot, and moves those behind it up, where they may lie nearer to their hashes' places.
    fn empty(&mut self, slot: usize, hash_of: impl Fn(&K) -> u32) {
        let mask = self.slots.len().wrapping_sub(1);
        let mut hole = slot;
        let mut at = slot;
        loop {
            at = at.wrapping_add(1) & mask;
            let behind = self.slots.get(at).copied().unwrap_or(0);
            let position = usize::from(behind & POSITION).checked_sub(1);
            let Some((key, _)) = position.and_then(|position| self.entries.get(position)) else { break };
            let home = hash_of(key) as usize;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                if let Some(place) = self.slots.get_mut(hole) {
                    *place = behind;
                }
                hole = at;
            }
        }
        if let Some(place) = self.slots.get_mut(hole) {
            *place = 0;
        }
    }
}

/// The first five bits of a hash, where a slot has them; the last ones choose the slot.
const fn tag(hash: u32) -> u16 {
    ((hash >> 27) as u16) << TAG_SHIFT
}

/// What a slot says of an entry below [`LISTED_MAX`].
fn slot_for(position: usize, hash: u32) -> u16 {
    u16::try_from(position + 1).unwrap_or(0) | tag(hash)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        // Where all hashes meet every step looks through all slots.
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn it_behaves_like_a_tree_map_even_where_hashes_meet_and_entries_are_too_many_for_the_slots(
            steps in prop::collection::vec((0_u8..5, 0_u32..2_400), 0..600),
            filled in prop::sample::select(vec![0_u32, 5, 200, 1_792, 2_040, 2_047, 2_048, 2_300]),
            hashes in prop::sample::select(vec![1_u32, 7, 1_000, u32::MAX]),
        ) {
            // At worst all have the same, and all but a few near the end of the slots.
            let hash_of = |key: &u32| (key.wrapping_mul(0x9e37_79b9) % hashes).wrapping_sub(3);
            let (mut map, mut model) = (Dense::new(), BTreeMap::new());
            for key in 0..filled {
                map.insert(hash_of(&key), key, key, hash_of);
                model.insert(key, key);
            }
            for (index, (step, key)) in (0..).zip(steps) {
                match step {
                    0 | 1 => prop_assert_eq!(map.insert(hash_of(&key), key, index, hash_of), model.insert(key, index)),
                    2 | 3 => prop_assert_eq!(map.remove(&key, hash_of), model.remove(&key)),
                    _ => prop_assert_eq!(map.get(hash_of(&key), &key), model.get(&key)),
                }
                prop_assert_eq!(map.len(), model.len());
            }
            prop_assert!((0..2_400).all(|key| map.get(hash_of(&key), &key) == model.get(&key)));
            prop_assert_eq!(map.slots.iter().filter(|slot| **slot != 0).count(), map.len().min(LISTED_MAX));
            let seen: BTreeMap<u32, u32> = map.iter().map(|(key, value)| (*key, *value)).collect();
            prop_assert_eq!(seen, model);
        }
    }
}
