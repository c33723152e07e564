//! Keyed fingerprints: names of 16 bytes for what would be too long, or too private, to keep in memory.
//!
//! The key lies in the data directory, so nobody outside can make two texts meet. Each sort of text has fingerprints
//! of its own: the same text as a message id and as a reply id gives different ones.

use std::fmt;
use std::hash::Hasher;

use bytes::Bytes;
use siphasher::sip128::{Hasher128, SipHasher13, SipHasher24};

use super::buckets::Spread;
use super::content::Content;
use super::ids::{CustomerName, MessageId, ReplyId, ServiceId};

/// A keyed hash of 128 bits. Two halves, so that it needs no wider alignment than they do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint {
    high: u64,
    low: u64,
}

impl Fingerprint {
    /// From the number that it is.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
    pub const fn from_u128(bits: u128) -> Self {
        Self { high: (bits >> 64) as u64, low: bits as u64 }
    }

    /// As a number, for the journal.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }

    /// Its upper half.
    #[must_use]
    pub const fn upper(self) -> u64 {
        self.high
    }

    /// The lower half of its lower half.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "half of it is wanted")]
    pub const fn lower(self) -> u32 {
        self.low as u32
    }
}

impl Spread for Fingerprint {
    fn spread(&self) -> u64 {
        self.low
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.high, self.low)
    }
}

/// What fingerprints are made with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 16]);

/// A key is a secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<key>")
    }
}

/// Kept apart by the first byte that is hashed. Never changed: fingerprints are in the journal.
#[derive(Clone, Copy)]
enum Sort {
    MessageId = 1,
    ReplyId = 2,
    CustomerName = 3,
    Digest = 4,
}

impl Key {
    /// From 16 random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Of WhatsApp's id of a message.
    #[must_use]
    pub fn message_id(&self, id: &MessageId) -> Fingerprint {
        self.index(Sort::MessageId, &[id.as_bytes()])
    }

    /// Of a reply id, which is unique for its service only.
    #[must_use]
    pub fn reply_id(&self, service: &ServiceId, id: &ReplyId) -> Fingerprint {
        self.index(Sort::ReplyId, &[service.as_bytes(), id.as_bytes()])
    }

    /// Of one of a customer's names.
    #[must_use]
    pub fn customer_name(&self, name: &CustomerName) -> Fingerprint {
        self.index(Sort::CustomerName, &[name.as_bytes()])
    }

    /// Of what a reply says: its content and the service's own callback data. Whom it goes to is compared by its
    /// conversation, so that a repeat may name the customer where the first one named the conversation.
    #[must_use]
    pub fn digest(&self, content: &Content, callback_data: Option<&Bytes>) -> Fingerprint {
        let parts: &[&[u8]] = match callback_data {
            Some(data) => &[content.expose(), data],
            None => &[content.expose()],
        };
        feed(SipHasher24::new_with_key(&self.0), Sort::Digest, parts)
    }

    /// For an index: the faster hash, since a hit is confirmed or tells nothing of worth.
    fn index(&self, sort: Sort, parts: &[&[u8]]) -> Fingerprint {
        let hasher = SipHasher13::new_with_key(&self.0);
        let mut room = [0; AT_ONCE_MAX];
        match put_together(sort, parts, &mut room).and_then(|used| room.get(..used)) {
            Some(together) => {
                let (high, low) = hasher.hash(together).as_u64();
                Fingerprint { high, low }
            }
            None => feed(hasher, sort, parts),
        }
    }
}

/// Bytes that are put together and hashed at once, which is twice as fast as one after the other: enough for ids.
const AT_ONCE_MAX: usize = 128;

/// The parts as [`feed`] takes them, if they are short.
fn put_together(sort: Sort, parts: &[&[u8]], room: &mut [u8; AT_ONCE_MAX]) -> Option<usize> {
    let mut used = 0;
    let mut put = |bytes: &[u8]| {
        room.get_mut(used..used + bytes.len())?.copy_from_slice(bytes);
        used += bytes.len();
        Some(())
    };
    put(&[sort as u8])?;
    for part in parts {
        put(&(part.len() as u64).to_le_bytes())?;
        put(part)?;
    }
    Some(used)
}

/// Each part with its length before it, so that no two lists of parts are fed alike.
fn feed(mut hasher: impl Hasher + Hasher128, sort: Sort, parts: &[&[u8]]) -> Fingerprint {
    hasher.write(&[sort as u8]);
    for part in parts {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    let (high, low) = hasher.finish128().as_u64();
    Fingerprint { high, low }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(json: &'static str) -> Content {
        Content::checked(Bytes::from_static(json.as_bytes()), 0..0, &[])
    }

    #[test]
    fn fingerprints_depend_on_key_sort_and_where_a_part_ends() {
        let key = Key::new([7; 16]);
        let of =
            |service: &str, reply: &str| key.reply_id(&ServiceId::trusted(service), &ReplyId::trusted(reply));
        assert_eq!(of("crm", "1"), of("crm", "1"));
        assert_ne!(of("crm", "1"), of("cr", "m1"));
        assert_ne!(
            of("crm", "1"),
            Key::new([8; 16]).reply_id(&ServiceId::trusted("crm"), &ReplyId::trusted("1"))
        );
        let message = key.message_id(&MessageId::trusted("491"));
        assert_ne!(message, key.customer_name(&CustomerName::trusted("491")));
        assert_eq!(Fingerprint::from_u128(message.as_u128()), message);
    }

    #[test]
    fn a_digest_covers_content_and_callback_data() {
        let key = Key::new([7; 16]);
        let data = Bytes::from_static(b"42");
        let digests = [
            key.digest(&content("{\"a\":1}"), None),
            key.digest(&content("{\"a\":2}"), None),
            key.digest(&content("{\"a\":1}"), Some(&data)),
            key.digest(&content("{\"a\":1}"), Some(&Bytes::new())),
        ];
        for (at, digest) in digests.iter().enumerate() {
            assert!(!digests[..at].contains(digest));
        }
        assert_eq!(digests[0], key.digest(&content("{\"a\":1}"), None));
    }

    /// Fingerprints and digests are kept in the journal: the same key and text must give them for ever.
    #[test]
    fn fingerprints_never_change() {
        let key = Key::new(*b"0123456789abcdef");
        let golden = format!(
            "{:?} {:?} {:?} {:?}",
            key.message_id(&MessageId::trusted("wamid.1")),
            key.reply_id(&ServiceId::trusted("crm"), &ReplyId::trusted("r-1")),
            key.customer_name(&CustomerName::trusted("16505551234")),
            key.digest(&content("{\"type\":\"text\"}"), Some(&Bytes::from_static(b"x"))),
        );
        assert_eq!(
            golden,
            "11a9278fea4baa197d6fc041eea32db8 c3295f74ea41d604c3ad0c2a4e559194 \
             f3aa0117d2567eab5e89f81e9c4ef7bf fdea0161ca80992c7c9ebbf71d492f4a"
        );
    }
}
