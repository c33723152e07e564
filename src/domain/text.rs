//! Short texts kept in their place: an id that travels with every message costs no allocation of its own, and stands
//! beside what is read with it.
//!
//! **Invariant:** a text that fits its room is never kept apart, so equal texts are equal however they were made.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A text with room for `ROOM` bytes in its place; longer ones are shared. `ROOM` is below 256.
#[derive(Clone)]
pub(super) struct Text<const ROOM: usize>(Kept<ROOM>);

#[derive(Clone)]
enum Kept<const ROOM: usize> {
    Here { length: u8, bytes: [u8; ROOM] },
    Apart(Arc<str>),
}

impl<const ROOM: usize> Text<ROOM> {
    /// Its bytes.
    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Kept::Here { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Kept::Apart(text) => text.as_bytes(),
        }
    }

    /// Takes bytes that are known to be a text, as ASCII is: those that fit are not looked through again.
    #[inline]
    pub(super) fn of_checked(text: &[u8]) -> Option<Self> {
        Self::here(text).or_else(|| Some(Self(Kept::Apart(Arc::from(std::str::from_utf8(text).ok()?)))))
    }

    #[inline]
    fn here(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; ROOM];
        let length = u8::try_from(text.len()).ok()?;
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self(Kept::Here { length, bytes }))
    }
}

impl<const ROOM: usize> From<&str> for Text<ROOM> {
    fn from(text: &str) -> Self {
        Self::here(text.as_bytes()).unwrap_or_else(|| Self(Kept::Apart(Arc::from(text))))
    }
}

/// Looks the bytes through once more: where that counts, they are taken as they are.
impl<const ROOM: usize> Deref for Text<ROOM> {
    type Target = str;

    fn deref(&self) -> &str {
        // They were a text when they came in.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl<const ROOM: usize> PartialEq for Text<ROOM> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            // What is left of the room is zero, so that the whole is compared at once.
            (Kept::Here { length, bytes }, Kept::Here { length: others, bytes: other }) => {
                length == others && bytes == other
            }
            _ => self.as_bytes() == other.as_bytes(),
        }
    }
}

impl<const ROOM: usize> Eq for Text<ROOM> {}

impl<const ROOM: usize> PartialOrd for Text<ROOM> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<const ROOM: usize> Ord for Text<ROOM> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl<const ROOM: usize> Hash for Text<ROOM> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_same_in_its_place_and_apart() {
        for length in [0, 1, 15, 16, 17, 300] {
            let text = "ä".repeat(length / 2) + &"x".repeat(length % 2);
            let kept: Text<16> = Text::from(text.as_str());
            assert_eq!(matches!(kept.0, Kept::Here { .. }), length <= 16, "{length}");
            assert_eq!(&*kept, text);
            assert!(kept == kept.clone());
            let longer: Text<16> = Text::from((text.clone() + "y").as_str());
            assert!(kept != longer && kept < longer, "{length}");
        }
    }

    #[test]
    fn a_text_takes_no_more_than_its_room_and_two_bytes() {
        assert_eq!(size_of::<Option<Text<30>>>(), 32);
        assert_eq!(size_of::<Option<Text<78>>>(), 80);
    }
}
