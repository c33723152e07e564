//! A segment: one file of the log. Filled with zeros when it is made, used once, named by its number.
//!
//! ```text
//!  byte  0               4096            8192
//!        ┌───────────────┬───────────────┬────────┬────────┬─────┬────────┬ ─ ─ ─ ─ ─ ─ ┐
//!        │ header        │ header again  │ commit │ commit │  …  │ commit │ zeros
//!        └───────────────┴───────────────┴────────┴────────┴─────┴────────┴ ─ ─ ─ ─ ─ ─ ┘
//!  the header; all that is not named is zero
//!  byte  0        8         10       12      16        32       40        48        56        64
//!        ┌────────┬─────────┬────────┬───────┬─────────┬────────┬─────────┬─────────┬─────────┬─────────┐
//!        │ magic  │ format  │ mode   │ leaps │ store   │ number │ segment │ its end │ its     │ written │
//!        │        │ u16     │ u16    │ u32   │ id u128 │ u64    │ before  │ u64     │ last    │ through │
//!        │        │         │        │       │         │        │ u64     │         │ commit  │ u64     │
//!        └────────┴─────────┴────────┴───────┴─────────┴────────┴─────────┴─────────┴─────────┴─────────┘
//!  byte  72                80                88           92       …      124
//!        ┌─────────────────┬─────────────────┬────────────┬──────────────┬─────────────┐
//!        │ features that a │ features that a │ leaps of   │ zero         │ CRC32C of   │
//!        │ reader must     │ reader may      │ what was   │              │ bytes 0–123 │
//!        │ know u64        │ ignore u64      │ rewritten  │              │             │
//!        └─────────────────┴─────────────────┴────────────┴──────────────┴─────────────┘
//! ```
//!
//! **Invariants.** A file that bears a segment's name has a header that was synced before it got the name, and
//! everything up to `written through` was synced before the header. The log is the chain from the newest segment along
//! `segment before`; what lies past `its end` there is no part of it. `mode` is 1 while the run that made the segment
//! acknowledges before the sync. `leaps` counts the unclean stops in that mode: the offsets of every stream leap once
//! for each; what recovery wrote anew, up to `written through`, is from before the last of them.

use super::record::{u32_at, u64_at, u128_at};

/// Where the log begins in a segment, in bytes.
pub(super) const CONTENT_START: u64 = 8192;
/// Where the second copy of the header lies, in bytes: in another page, so that no torn write has both.
const SECOND_HEADER: u64 = 4096;
/// Size of the header, in bytes.
pub(super) const SEGMENT_HEADER_BYTES: usize = 128;
/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u16 = 1;
/// Bits of features that this version knows; a segment that must be read with others is refused.
pub(super) const KNOWN_FEATURES: u64 = 0;
/// How far the offsets of a stream leap at an unclean stop of a broker that acknowledges before the sync: more than the
/// records that can be written between two syncs (at most [`super::log::UNSYNCED_BYTES_MAX`] and one commit).
pub const LEAP: u64 = 1 << 21;

const MAGIC: [u8; 8] = *b"\xffSLSEG\xff\x01";
const SUFFIX: &str = ".segment";

/// The copies of a segment's header: where they lie.
pub(super) const HEADER_COPIES: [u64; 2] = [0, SECOND_HEADER];

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position {
    /// The segment's number.
    pub(super) segment: u64,
    /// The byte in it.
    pub(super) byte: u64,
}

/// The fields of a segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) store: u128,
    pub(super) number: u64,
    /// Where the log goes on from; number 0 if this is its beginning.
    pub(super) before: Position,
    /// The number of the last commit before this segment.
    pub(super) last_commit: u64,
    pub(super) written_through: u64,
    pub(super) before_sync: bool,
    pub(super) leaps: u32,
    /// The leaps that had been made when what lies before `written_through` was first written.
    pub(super) leaps_of_rewritten: u32,
    pub(super) features: u64,
}

/// Why a segment's header can not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// Its checksum does not match.
    Damaged,
    /// A newer version wrote it.
    Newer(u16),
}

impl SegmentHeader {
    pub(super) fn to_bytes(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[10..12].copy_from_slice(&u16::from(self.before_sync).to_le_bytes());
        bytes[12..16].copy_from_slice(&self.leaps.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.store.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.number.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.before.segment.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.before.byte.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.last_commit.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.written_through.to_le_bytes());
        bytes[72..80].copy_from_slice(&self.features.to_le_bytes());
        bytes[88..92].copy_from_slice(&self.leaps_of_rewritten.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..124]);
        bytes[124..128].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads one copy of the header.
    pub(super) fn read(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, HeaderFault> {
        if bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..124]) != u32_at(bytes, 124) {
            return Err(HeaderFault::Damaged);
        }
        let format = u16::from_le_bytes([bytes[8], bytes[9]]);
        let features = u64_at(bytes, 72);
        if format > FORMAT || features & !KNOWN_FEATURES != 0 {
            return Err(HeaderFault::Newer(format));
        }
        Ok(Self {
            store: u128_at(bytes, 16),
            number: u64_at(bytes, 32),
            before: Position { segment: u64_at(bytes, 40), byte: u64_at(bytes, 48) },
            last_commit: u64_at(bytes, 56),
            written_through: u64_at(bytes, 64),
            before_sync: bytes[10] & 1 != 0,
            leaps: u32_at(bytes, 12),
            leaps_of_rewritten: u32_at(bytes, 88),
            features,
        })
    }
}

/// The file name of a segment.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:016x}{SUFFIX}")
}

/// The number in a segment's file name; none if it is no segment's.
pub(super) fn number_in(name: &str) -> Option<u64> {
    let hex = name.strip_suffix(SUFFIX)?;
    let number = u64::from_str_radix(hex, 16).ok()?;
    (file_name(number) == name).then_some(number)
}

/// What the checksums of a segment's commits begin with: nobody outside can know it, so nobody can write a commit into a
/// message, and a commit of another segment or store is none here.
pub(super) fn seed(store: u128, segment: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&store.to_le_bytes()), &segment.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            store: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
            number: 3,
            before: Position { segment: 2, byte: 9000 },
            last_commit: 77,
            written_through: CONTENT_START,
            before_sync: true,
            leaps: 5,
            leaps_of_rewritten: 4,
            features: 0,
        }
    }

    #[test]
    fn a_header_reads_back_and_no_flipped_bit_is_overlooked() {
        let bytes = header().to_bytes();
        assert_eq!(SegmentHeader::read(&bytes), Ok(header()));
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::read(&flipped), Err(HeaderFault::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_or_an_unknown_feature_is_refused_as_such() {
        let mut bytes = header().to_bytes();
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..124]);
        bytes[124..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::read(&bytes), Err(HeaderFault::Newer(2)));
        let featured = SegmentHeader { features: 1, ..header() };
        assert_eq!(SegmentHeader::read(&featured.to_bytes()), Err(HeaderFault::Newer(1)));
    }

    #[test]
    fn file_names_are_read_strictly() {
        assert_eq!(number_in(&file_name(0xabc)), Some(0xabc));
        for wrong in ["1.segment", "0000000000000ABC.segment", "0000000000000001.segment.tmp", "FORMAT"] {
            assert_eq!(number_in(wrong), None, "{wrong}");
        }
    }
}
