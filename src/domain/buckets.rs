//! A hash map of buckets of bounded size, so that no insertion stops an Arbiter.
//!
//! A plain hash map that grows to 20 million entries moves them all at once, for more than a second. Here a key's
//! scrambled bits choose a bucket through a directory (extendible hashing); a full bucket alone is split in two, and
//! the directory of 4-byte pointers is what doubles. An empty map holds no memory.
//!
//! **Invariant:** an insertion moves at most [`BUCKET_ENTRIES_MAX`] entries, unless so many keys agree in their first
//! [`DEPTH_MAX`] scrambled bits that a bucket has to outgrow it.

use std::fmt;

use super::dense::Dense;
use super::ids::{ConversationId, Offset};

/// Most entries of a bucket before it is split: seven eighths of 2,048 slots, which are filled before there are more.
/// A split stops an Arbiter for as long as it takes to lay out so many entries anew.
pub const BUCKET_ENTRIES_MAX: usize = 1_792;
/// Most bits that choose a bucket: 2^22 buckets hold 4 billion entries. Keys that agree in more stay together.
pub const DEPTH_MAX: u32 = 22;

/// A key that can be scattered: equal keys give equal bits, different ones nearly always different bits.
pub trait Spread: Copy + Eq {
    /// Bits that tell keys apart; they need not be uniform, the map scrambles them.
    fn spread(&self) -> u64;
}

impl Spread for u64 {
    fn spread(&self) -> u64 {
        *self
    }
}

impl Spread for ConversationId {
    fn spread(&self) -> u64 {
        self.0
    }
}

impl Spread for Offset {
    fn spread(&self) -> u64 {
        self.0
    }
}

const fn upper_half(bits: u64) -> u32 {
    (bits >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "half of it is wanted")]
const fn lower_half(bits: u64) -> u32 {
    bits as u32
}

/// A hash map whose insertions do bounded work.
#[derive(Clone)]
pub struct BucketMap<K, V> {
    /// How many leading bits of a scrambled key choose a place of the directory.
    depth: u32,
    /// For each value of those bits the number of its bucket; empty while there is one bucket at most.
    directory: Vec<u32>,
    /// Its length counts; each bucket is the target of 2^(depth − its own depth) places in a row.
    buckets: Vec<Bucket<K, V>>,
    len: usize,
    /// The most entries that one split has moved: what the tests hold the promise by.
    #[cfg(test)]
    moved_max: usize,
}

#[derive(Clone)]
struct Bucket<K, V> {
    /// How many leading bits its keys have in common.
    depth: u32,
    entries: Dense<K, V>,
}

impl<K: Spread, V> Bucket<K, V> {
    const fn new(depth: u32) -> Self {
        Self { depth, entries: Dense::new() }
    }
}

impl<K: Spread, V> BucketMap<K, V> {
    /// An empty map, which holds no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            depth: 0,
            directory: Vec::new(),
            buckets: Vec::new(),
            len: 0,
            #[cfg(test)]
            moved_max: 0,
        }
    }

    /// How many entries it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        let bits = scrambled(key);
        self.buckets.get(self.place(bits))?.entries.get(lower_half(bits), key)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let bits = scrambled(key);
        let place = self.place(bits);
        self.buckets.get_mut(place)?.entries.get_mut(lower_half(bits), key)
    }

    /// Whether the key is there.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Sets the value of a key; gives the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.buckets.is_empty() {
            self.buckets.reserve_exact(1);
            self.buckets.push(Bucket::new(0));
        }
        let bits = scrambled(&key);
        let mut place = self.place(bits);
        while self.must_split(place, bits, &key) {
            self.split(place, choice(bits));
            place = self.place(bits);
        }
        let before = self.buckets.get_mut(place)?.entries.insert(lower_half(bits), key, value, hash);
        self.len += usize::from(before.is_none());
        before
    }

    /// The value of a key, to be changed; made first where it is missing.
    ///
    /// # Panics
    /// Never: what was inserted is there.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if !self.contains_key(&key) {
            self.insert(key, make());
        }
        #[expect(clippy::expect_used, reason = "it was there, or has just been inserted")]
        self.get_mut(&key).expect("the key is in the map")
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(scrambled(key));
        let bucket = self.buckets.get_mut(place)?;
        let removed = bucket.entries.remove(key, hash)?;
        self.len -= 1;
        if bucket.entries.is_empty() {
            // What a burst took goes back; a bucket that is small anyway keeps its room.
            bucket.entries.shrink_to(EMPTY_ENTRIES_KEPT);
        }
        Some(removed)
    }

    /// All entries, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.buckets.iter().flat_map(|bucket| bucket.entries.iter())
    }

    /// Gives back the memory of at most `buckets` buckets with all that is in them, and says whether any are left.
    /// For a map that nobody reads any more: what is left in it can not be relied on.
    pub fn shed(&mut self, buckets: usize) -> bool {
        self.directory = Vec::new();
        self.depth = 0;
        let kept = self.buckets.len().saturating_sub(buckets);
        self.buckets.truncate(kept);
        self.len = self.buckets.iter().map(|bucket| bucket.entries.len()).sum();
        !self.buckets.is_empty()
    }

    /// The number of the bucket that a key of these scrambled bits belongs to.
    fn place(&self, bits: u64) -> usize {
        let place = leading(choice(bits), self.depth);
        self.directory.get(place).map_or(0, |bucket| *bucket as usize)
    }

    fn must_split(&self, place: usize, bits: u64, key: &K) -> bool {
        self.buckets.get(place).is_some_and(|bucket| {
            bucket.entries.len() >= BUCKET_ENTRIES_MAX
                && bucket.depth < DEPTH_MAX
                && bucket.entries.get(lower_half(bits), key).is_none()
        })
    }

    /// Splits the bucket of a key by the next of the bits that choose, of which the key has `chosen`; doubles the
    /// directory first where it does not tell that bit.
    fn split(&mut self, place: usize, chosen: u32) {
        let fresh = self.buckets.len();
        let Some(bucket) = self.buckets.get_mut(place) else { return };
        let shared = bucket.depth;
        let depth = shared + 1;
        let bit = 1_u32 << (32 - depth);
        let full = std::mem::replace(&mut bucket.entries, Dense::new());
        bucket.depth = depth;
        let is_lower = |key: &K| choice(scrambled(key)) & bit == 0;
        let lower = full.iter().filter(|(key, _)| is_lower(key)).count();
        bucket.entries = Dense::with_room(lower);
        let mut upper = Bucket { depth, entries: Dense::with_room(full.len() - lower) };
        #[cfg(test)]
        {
            self.moved_max = self.moved_max.max(full.len());
        }
        for (key, value) in full.into_entries() {
            let half = if is_lower(&key) { &mut bucket.entries } else { &mut upper.entries };
            half.push(hash(&key), key, value, hash);
        }
        self.buckets.push(upper);

        if depth > self.depth {
            self.directory = if self.directory.is_empty() {
                vec![0, 0]
            } else {
                self.directory.iter().flat_map(|number| [*number, *number]).collect()
            };
            self.depth = depth;
        }
        // The places of the old bucket stand in a row; the upper half of them is the new one's.
        let row = 1_usize << (self.depth - shared);
        let first = leading(chosen, shared) * row;
        #[expect(clippy::cast_possible_truncation, reason = "at most 2^DEPTH_MAX buckets")]
        let fresh = fresh as u32;
        for number in self.directory.iter_mut().skip(first + row / 2).take(row / 2) {
            *number = fresh;
        }
    }
}

impl<K: Spread, V> Default for BucketMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

/// Equal when they have the same entries, however these lie in buckets.
impl<K: Spread, V: PartialEq> PartialEq for BucketMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl<K: Spread + fmt::Debug, V: fmt::Debug> fmt::Debug for BucketMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Entries for which an emptied bucket keeps room, so that a key that comes and goes allocates nothing.
const EMPTY_ENTRIES_KEPT: usize = 28;

/// The bits by which a key chooses its bucket: the upper half of its scrambled ones, bent.
///
/// Uniform bits would fill all buckets at the same pace, so that all of them split at the same time, and right after
/// it half of the memory lies idle. Bent like log2(1 + x), some parts of the range are up to twice as dense as others:
/// at any time a few buckets are about to split, and about as much memory is in use as on average.
fn choice(bits: u64) -> u32 {
    let uniform = u64::from(upper_half(bits));
    // x + 0.34·x·(1 − x), which lies within 0.002 of log2(1 + x).
    let bent = uniform + ((uniform * ((1 << 32) - uniform)) >> 32) * 1_393 / 4_096;
    lower_half(bent)
}

/// The first `depth` bits.
fn leading(chosen: u32, depth: u32) -> usize {
    chosen.checked_shr(32 - depth).unwrap_or(0) as usize
}

/// The finaliser of splitmix64: every bit of the input moves every bit of the output.
const fn scramble(bits: u64) -> u64 {
    let mixed = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn scrambled<K: Spread>(key: &K) -> u64 {
    scramble(key.spread())
}

/// What a key is found by in its bucket: the half of its scrambled bits that did not choose the bucket.
fn hash<K: Spread>(key: &K) -> u32 {
    lower_half(scrambled(key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_million_keys_are_all_found_and_no_insertion_moves_more_than_a_bucket() {
        let mut map = BucketMap::new();
        for key in 0..1_000_000_u64 {
            assert_eq!(map.insert(key, !key), None);
        }
        assert_eq!(map.len(), 1_000_000);
        assert!(map.moved_max > BUCKET_ENTRIES_MAX / 2 && map.moved_max <= BUCKET_ENTRIES_MAX);
        assert!(map.buckets.iter().all(|bucket| bucket.entries.len() <= BUCKET_ENTRIES_MAX));
        assert!(map.buckets.len() < 1_000_000 / (BUCKET_ENTRIES_MAX / 3), "buckets are filled");
        assert!((0..1_000_000_u64).all(|key| map.get(&key) == Some(&!key)));
        assert_eq!(map.get(&1_000_000), None);
        let mut seen: Vec<u64> = map.iter().map(|(key, _)| *key).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..1_000_000));
    }

    #[test]
    fn its_buckets_are_filled_alike_however_many_entries_there_are() {
        let mut map: BucketMap<u64, u32> = BucketMap::new();
        for key in 0..800_000 {
            map.insert(key, 0);
            if key >= 200_000 && key % 10_000 == 0 {
                let room: usize = map.buckets.iter().map(|bucket| bucket.entries.capacity()).sum();
                let used = 100 * map.len() / room;
                assert!((90..100).contains(&used), "{used} % of the room is used by {key} entries");
            }
        }
    }

    #[test]
    fn an_empty_map_holds_no_memory_and_an_emptied_bucket_gives_it_back() {
        let mut map: BucketMap<u64, u64> = BucketMap::new();
        assert_eq!((map.directory.capacity(), map.buckets.capacity()), (0, 0));
        for key in 0..3_000 {
            map.insert(key, key);
        }
        for key in 0..3_000 {
            assert_eq!(map.remove(&key), Some(key));
        }
        assert!(map.is_empty());
        assert!(map.buckets[0].entries.capacity() <= 2 * EMPTY_ENTRIES_KEPT);
    }

    #[test]
    fn keys_that_can_not_be_told_apart_by_the_directory_stay_together_and_are_found() {
        /// Keys whose scrambled bits are all the same.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        struct Same(u64);
        impl Spread for Same {
            fn spread(&self) -> u64 {
                self.0 >> 40
            }
        }
        let mut map = BucketMap::new();
        // Quadratic, since they share a chain; just beyond one bucket is enough.
        for key in 0..BUCKET_ENTRIES_MAX as u64 + 2 {
            map.insert(Same(key), key);
        }
        assert_eq!(map.depth, DEPTH_MAX);
        assert_eq!(map.len(), BUCKET_ENTRIES_MAX + 2);
        assert!((0..BUCKET_ENTRIES_MAX as u64 + 2).all(|key| map.get(&Same(key)) == Some(&key)));
    }

    #[test]
    fn what_is_shed_goes_some_buckets_at_a_time() {
        let mut map = BucketMap::new();
        for key in 0..20_000_u64 {
            map.insert(key, key);
        }
        let buckets = map.buckets.len();
        let mut turns = 1;
        while map.shed(3) {
            turns += 1;
        }
        assert_eq!(turns, buckets.div_ceil(3));
        assert!(map.is_empty());
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_tree_map(
            steps in prop::collection::vec((0_u8..4, 0_u64..6_000, any::<u32>()), 0..400),
            filled in 0_u64..9_000,
        ) {
            let mut map = BucketMap::new();
            let mut model = BTreeMap::new();
            for key in 0..filled {
                map.insert(key * 3, 0);
                model.insert(key * 3, 0);
            }
            for (step, key, value) in steps {
                match step {
                    0 => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    1 => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    2 => {
                        prop_assert_eq!(
                            *map.get_or_insert_with(key, || value), *model.entry(key).or_insert(value)
                        );
                    }
                    _ => {
                        prop_assert_eq!(map.get(&key), model.get(&key));
                        if let Some(found) = map.get_mut(&key) {
                            *found = value;
                            model.insert(key, value);
                        }
                    }
                }
                prop_assert_eq!(map.len(), model.len());
            }
            let seen: BTreeMap<u64, u32> = map.iter().map(|(key, value)| (*key, *value)).collect();
            prop_assert_eq!(seen, model);
        }
    }
}
