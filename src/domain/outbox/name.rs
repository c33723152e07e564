//! A reply's id as it is kept for weeks: in its place, where it is as short as most are, or a UUID.

use crate::domain::ids::ReplyId;
use crate::domain::saved::{Put, Saved, Take, Unreadable};

/// Room for an id in its place, in bytes: with its length and what tells the sorts apart, three words.
const ROOM: usize = 22;
/// A UUID as most write it: 32 digits in five groups.
const UUID_TEXT_BYTES: usize = 36;
/// Before which of its bytes a UUID has a hyphen.
const HYPHEN_BEFORE: [usize; 4] = [4, 6, 8, 10];

/// An id; equal ones are kept alike.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Name {
    /// One of up to [`ROOM`] bytes.
    Short { length: u8, bytes: [u8; ROOM] },
    /// A UUID in small letters.
    Uuid([u8; 16]),
    /// Any other.
    Long(ReplyId),
}

impl Name {
    /// How many bytes the id has.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Short { length, .. } => usize::from(*length),
            Self::Uuid(_) => UUID_TEXT_BYTES,
            Self::Long(id) => id.as_bytes().len(),
        }
    }

    /// The id.
    pub(super) fn id(&self) -> ReplyId {
        match self {
            Self::Short { length, bytes } => {
                let text = bytes.get(..usize::from(*length)).unwrap_or_default();
                // It was a text when it came in.
                ReplyId::trusted(std::str::from_utf8(text).unwrap_or_default())
            }
            Self::Uuid(uuid) => ReplyId::trusted(&uuid_text(uuid)),
            Self::Long(id) => id.clone(),
        }
    }
}

impl From<&ReplyId> for Name {
    fn from(id: &ReplyId) -> Self {
        let text = id.as_bytes();
        let mut bytes = [0; ROOM];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(text);
                Self::Short { length, bytes }
            }
            _ => uuid(text).map_or_else(|| Self::Long(id.clone()), Self::Uuid),
        }
    }
}

/// The UUID that a text is, if it is written as [`uuid_text`] writes it.
fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != UUID_TEXT_BYTES {
        return None;
    }
    let digits = text.iter().filter(|byte| **byte != b'-').map(|byte| char::from(*byte).to_digit(16));
    let mut uuid = [0; 16];
    for (count, digit) in digits.enumerate() {
        let byte = uuid.get_mut(count / 2)?;
        *byte = *byte << 4 | u8::try_from(digit?).ok()?;
    }
    // Capitals, and hyphens elsewhere, are other texts.
    (uuid_text(&uuid).as_bytes() == text).then_some(uuid)
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(UUID_TEXT_BYTES);
    for (index, byte) in uuid.iter().enumerate() {
        if HYPHEN_BEFORE.contains(&index) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text
}

impl Saved for Name {
    fn save(&self, out: &mut dyn Put) {
        self.id().save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        ReplyId::restore(from).map(|id| Self::from(&id))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_ids_and_uuids_are_kept_in_their_place_of_three_words() {
        assert_eq!(size_of::<Name>(), 24);
        let sort = |text: &str| match Name::from(&ReplyId::trusted(text)) {
            Name::Short { .. } => "short",
            Name::Uuid(_) => "uuid",
            Name::Long(_) => "long",
        };
        assert_eq!(sort("order-4711/1"), "short");
        assert_eq!(sort("1234567890123456789012"), "short");
        assert_eq!(sort("0190b2f4-6a1c-7cde-8f01-23456789abcd"), "uuid");
        assert_eq!(sort("0190B2F4-6A1C-7CDE-8F01-23456789ABCD"), "long");
        assert_eq!(sort("0190b2f46-a1c-7cde-8f01-23456789abcd"), "long");
        assert_eq!(sort("0190b2f4-6a1c-7cde-8f01-23456789abc-"), "long");
        assert_eq!(sort("12345678901234567890123"), "long");
    }

    proptest! {
        #[test]
        fn an_id_is_what_it_was(
            text in "[ -~é]{1,64}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-fA-F-]{36}",
        ) {
            let id = ReplyId::trusted(&text);
            prop_assert_eq!(Name::from(&id).len(), text.len());
            prop_assert_eq!(Name::from(&id).id(), id);
        }
    }
}
