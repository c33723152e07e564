//! A small picture of many ids: it says *no* for certain, and *perhaps* for those that it was made of.
//!
//! ```text
//!  an id's upper half chooses a block of 256 bits; its lower half one bit in each of the block's eight words
//! ```
//!
//! A split block Bloom filter, as Parquet has it: one look touches one line of the cache. With [`FILTER_BITS`] bits an id it
//! says *perhaps* to 1 of 270 others (measured; the test holds it below 1 in 100).
//!
//! **Invariant:** it is kept in files, so what an id sets never changes.

use std::fmt;
use std::sync::Arc;

use super::fingerprint::Fingerprint;

/// Bits for each id.
pub const FILTER_BITS: usize = 12;
/// What a block takes, in bytes.
pub const FILTER_BLOCK_BYTES: usize = 32;

/// Odd numbers that spread the lower half over the words, as Parquet's format names them.
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

type Block = [u32; 8];

/// Says whether an id may be among those that it was made of. Clones share the memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Filter(Arc<[Block]>);

impl Filter {
    /// Of all these ids; `count` is how many there are.
    #[must_use]
    pub fn of(ids: impl Iterator<Item = Fingerprint>, count: usize) -> Self {
        let mut blocks =
            vec![Block::default(); (count * FILTER_BITS).div_ceil(FILTER_BLOCK_BYTES * 8).max(1)];
        for id in ids {
            let place = place(id, blocks.len());
            if let Some(block) = blocks.get_mut(place) {
                for (word, bit) in block.iter_mut().zip(bits(id)) {
                    *word |= bit;
                }
            }
        }
        Self(blocks.into())
    }

    /// Whether the id may be one of them.
    #[must_use]
    pub fn may_have(&self, id: Fingerprint) -> bool {
        let block = self.0.get(place(id, self.0.len()));
        block.is_some_and(|block| block.iter().zip(bits(id)).all(|(word, bit)| word & bit != 0))
    }

    /// What it takes, in bytes: in memory and in a file.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len() * FILTER_BLOCK_BYTES
    }

    /// As it lies in a file: its words, little-endian.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.0.iter().flatten().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }

    /// Reads it back; none where it can not be one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<4>();
        let (blocks, more) = words.as_chunks::<8>();
        let is_whole = !blocks.is_empty() && rest.is_empty() && more.is_empty();
        is_whole.then(|| Self(blocks.iter().map(|block| block.map(u32::from_le_bytes)).collect()))
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<filter of {} bytes>", self.bytes())
    }
}

/// The upper half as a fraction of all blocks: ids in order touch the blocks in order.
fn place(id: Fingerprint, blocks: usize) -> usize {
    let scaled = u128::from(id.upper()) * blocks as u128;
    usize::try_from(scaled >> 64).unwrap_or(0)
}

fn bits(id: Fingerprint) -> [u32; 8] {
    let lower = id.lower();
    SALTS.map(|salt| 1 << (lower.wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::super::fingerprint::Key;
    use super::super::ids::MessageId;
    use super::*;

    fn id(n: u64) -> Fingerprint {
        Key::new([9; 16]).message_id(&MessageId::trusted(&format!("wamid.{n}")))
    }

    #[test]
    fn it_says_perhaps_to_all_its_ids_and_no_to_nearly_all_others() {
        let filter = Filter::of((0..100_000).map(id), 100_000);
        assert!((0..100_000).all(|n| filter.may_have(id(n))));
        let others = (100_000..200_000).filter(|n| filter.may_have(id(*n))).count();
        assert!(others < 1_000, "{others} of 100,000 others");
        assert_eq!(filter.bytes(), (100_000 * FILTER_BITS).div_ceil(256) * 32);
    }

    #[test]
    fn it_reads_back_and_half_a_block_is_none() {
        let filter = Filter::of((0..1_000).map(id), 1_000);
        let mut bytes = Vec::new();
        filter.write(&mut bytes);
        assert_eq!(bytes.len(), filter.bytes());
        assert_eq!(Filter::read(&bytes), Some(filter));
        for wrong in [0, 16, 31, 33] {
            assert_eq!(Filter::read(&bytes[..wrong]), None);
        }
    }

    #[test]
    fn none_at_all_is_never_perhaps() {
        let empty = Filter::of(std::iter::empty(), 0);
        assert!((0..1_000).all(|n| !empty.may_have(id(n))));
    }

    /// Filters are kept in files: the same ids must set the same bits for ever.
    #[test]
    fn what_an_id_sets_never_changes() {
        let mut bytes = Vec::new();
        Filter::of((0..3).map(id), 3).write(&mut bytes);
        let words: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(words.concat(), "0280000402002400210000200000884000002400c00000008002000100080840");
    }
}
