//! A message's content: WhatsApp's own JSON object, as bytes that nobody in the broker reads again.
//!
//! It was checked once, at the edge, which also noted where its `type` stands and which bytes were written for
//! machines by the service that sent the message referred to (B7). It has no `Debug` that shows it and no
//! `Serialize`: the only way out is [`crate::domain::view`].

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

/// Largest content, in bytes (contract: 1 MiB − 16 KiB), so that a frame with its other fields fits 1 MiB.
pub const CONTENT_BYTES_MAX: usize = (1 << 20) - (16 << 10);
/// Deepest nesting of content (contract: 64).
pub const CONTENT_DEPTH_MAX: usize = 64;
/// Largest object that is carried through beside what the broker has fields for, in bytes: Meta's have some hundreds,
/// and an error's details are texts.
pub const CARRIED_BYTES_MAX: usize = 16 << 10;

/// Largest contact that is carried through with a customer's message, in bytes: the message's content may have all but
/// 16 KiB of a frame, and its other fields take up to 4 KiB.
pub const CONTACT_BYTES_MAX: usize = 4 << 10;

/// The members of an object of WhatsApp's that the broker has no fields for, as one JSON object: checked once, at the
/// edge, carried through, and read by nobody. As with [`Content`], the only way out is [`crate::domain::view`].
#[derive(Clone, PartialEq, Eq)]
pub struct Carried(Bytes);

impl Carried {
    /// Takes an object that the edge has checked, or that was checked before it was written to the journal.
    #[must_use]
    pub fn checked(object: Bytes) -> Self {
        Self(object)
    }

    /// Size in bytes; of what is not there, 0.
    #[must_use]
    pub fn size_of(carried: Option<&Self>) -> usize {
        carried.map_or(0, |carried| carried.0.len())
    }

    /// The object, for the journal and for a view that shows it.
    #[must_use]
    pub fn expose(&self) -> &Bytes {
        &self.0
    }
}

/// It may quote the content (B3).
impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<carried, {} bytes>", self.0.len())
    }
}

/// A checked message object. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    bytes: Bytes,
    kind: Range<u32>,
    cuts: Option<Arc<[Range<u32>]>>,
}

impl Content {
    /// Takes content that the edge has checked, or that was checked before it was written to the journal.
    ///
    /// `kind` is where the value of `type` stands, without its quotes. `cuts` are the byte ranges that a redacted
    /// copy leaves out, ascending and apart; what is left must again be a JSON object. Ranges that do not lie in
    /// `bytes` count as empty.
    #[must_use]
    pub fn checked(bytes: Bytes, kind: Range<u32>, cuts: &[Range<u32>]) -> Self {
        Self { bytes, kind, cuts: (!cuts.is_empty()).then(|| Arc::from(cuts)) }
    }

    /// The whole object, for the journal and for a view that shows it in clear.
    #[must_use]
    pub fn expose(&self) -> &Bytes {
        &self.bytes
    }

    /// The object without what the sending service wrote for machines.
    #[must_use]
    pub fn redacted(&self) -> Bytes {
        let Some(cuts) = &self.cuts else { return self.bytes.clone() };
        let mut kept = Vec::with_capacity(self.bytes.len());
        let mut from = 0;
        for cut in cuts.iter() {
            kept.extend_from_slice(self.bytes.get(from..cut.start as usize).unwrap_or_default());
            from = cut.end as usize;
        }
        kept.extend_from_slice(self.bytes.get(from..).unwrap_or_default());
        Bytes::from(kept)
    }

    /// The value of `type`: `text`, `image`, `template` …
    #[must_use]
    pub fn kind(&self) -> &str {
        let range = self.kind.start as usize..self.kind.end as usize;
        self.bytes.get(range).and_then(|raw| std::str::from_utf8(raw).ok()).unwrap_or_default()
    }

    /// Where the value of `type` stands, for the journal.
    #[must_use]
    pub fn kind_range(&self) -> Range<u32> {
        self.kind.clone()
    }

    /// The ranges that a redacted copy leaves out, for the journal.
    #[must_use]
    pub fn cuts(&self) -> &[Range<u32>] {
        self.cuts.as_deref().unwrap_or_default()
    }

    /// Whether the sending service wrote something for machines into it.
    #[must_use]
    pub fn is_redactable(&self) -> bool {
        self.cuts.is_some()
    }

    /// Size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never, for checked content: the smallest is `{"type":""}`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<content, {} bytes>", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redacted_copy_leaves_out_just_the_cuts_and_debug_shows_nothing() {
        let json = r#"{"type":"button","button":{"payload":"secret","text":"Yes"}}"#;
        let start = u32::try_from(json.find(r#""payload""#).unwrap()).unwrap();
        let end = u32::try_from(json.find(r#""text""#).unwrap()).unwrap();
        let content = Content::checked(Bytes::from(json), 9..15, std::slice::from_ref(&(start..end)));
        assert_eq!(content.kind(), "button");
        assert_eq!(content.redacted(), r#"{"type":"button","button":{"text":"Yes"}}"#);
        assert!(!format!("{content:?}").contains("secret"));
    }
}
