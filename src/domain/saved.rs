//! A state written down field by field, and read back: what a base of the journal is made of.
//!
//! Knows no bytes: whoever keeps the state gives a [`Put`] and a [`Take`]. What can be derived from the rest is not
//! written, and what the configuration or the store's keys give is given again when it is read back.
//!
//! **Invariant:** a state that was saved and restored answers everything like the one that it was saved from.

use std::sync::Arc;

use super::buckets::{BucketMap, Spread};
use super::fingerprint::Fingerprint;
use super::ids::{
    AgentId, ChannelId, ConversationId, MessageId, Number, Offset, ReplyId, ServiceId, Timestamp,
};

/// Where a state is written.
pub trait Put {
    /// A number; small ones are short.
    fn number(&mut self, number: u64);
    /// A number of 128 bits.
    fn wide(&mut self, number: u128);
    /// Bytes, with their length.
    fn bytes(&mut self, bytes: &[u8]);
}

/// Where a state is read from, in the order in which it was written.
pub trait Take {
    /// A number.
    ///
    /// # Errors
    /// When there is none.
    fn number(&mut self) -> Result<u64, Unreadable>;
    /// A number of 128 bits.
    ///
    /// # Errors
    /// When there is none.
    fn wide(&mut self) -> Result<u128, Unreadable>;
    /// How many of something follow: no more than bytes are left.
    ///
    /// # Errors
    /// When there is no number, or more is promised than can follow.
    fn count(&mut self) -> Result<usize, Unreadable>;
    /// A text.
    ///
    /// # Errors
    /// When there is none.
    fn text(&mut self) -> Result<&str, Unreadable>;
}

/// A saved state is no such state: a newer broker wrote it, or there is a defect (its checksum matched).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a saved state can not be read: {0}")]
pub struct Unreadable(pub &'static str);

/// What can be saved and restored.
pub trait Saved: Sized {
    /// Writes it down.
    fn save(&self, out: &mut dyn Put);
    /// Reads it back.
    ///
    /// # Errors
    /// When it is not what was saved.
    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable>;
}

/// Saves and restores the named fields of a struct, in this order, which stays.
macro_rules! saved {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::domain::saved::Saved for $name {
            fn save(&self, out: &mut dyn $crate::domain::saved::Put) {
                $($crate::domain::saved::Saved::save(&self.$field, out);)*
            }

            fn restore(
                from: &mut dyn $crate::domain::saved::Take,
            ) -> Result<Self, $crate::domain::saved::Unreadable> {
                $(let $field = $crate::domain::saved::Saved::restore(from)?;)*
                Ok(Self { $($field),* })
            }
        }
    };
}
pub(super) use saved;

impl Saved for u64 {
    fn save(&self, out: &mut dyn Put) {
        out.number(*self);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        from.number()
    }
}

impl Saved for u32 {
    fn save(&self, out: &mut dyn Put) {
        out.number(u64::from(*self));
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        Self::try_from(from.number()?).map_err(|_| Unreadable("a number is too large"))
    }
}

impl Saved for bool {
    fn save(&self, out: &mut dyn Put) {
        out.number(u64::from(*self));
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        match from.number()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Unreadable("neither yes nor no")),
        }
    }
}

/// Ids that are a number.
macro_rules! numbers {
    ($($name:ident),*) => {$(
        impl Saved for $name {
            fn save(&self, out: &mut dyn Put) {
                out.number(self.0);
            }

            fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
                from.number().map($name)
            }
        }
    )*};
}
numbers!(Offset, Timestamp);

impl Saved for ConversationId {
    fn save(&self, out: &mut dyn Put) {
        // Random bits: short as eight bytes, long as a number.
        out.wide(u128::from(self.0));
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        u64::try_from(from.wide()?).map(Self).map_err(|_| Unreadable("a conversation's id is too large"))
    }
}

impl Saved for ChannelId {
    fn save(&self, out: &mut dyn Put) {
        out.wide(self.0);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        from.wide().map(Self)
    }
}

impl Saved for Fingerprint {
    fn save(&self, out: &mut dyn Put) {
        out.wide(self.as_u128());
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        from.wide().map(Self::from_u128)
    }
}

/// Ids that are a text.
macro_rules! texts {
    ($($name:ident),*) => {$(
        impl Saved for $name {
            fn save(&self, out: &mut dyn Put) {
                out.bytes(self.as_str().as_bytes());
            }

            fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
                from.text().map($name::trusted)
            }
        }
    )*};
}
texts!(AgentId, MessageId, Number, ReplyId, ServiceId);

impl Saved for Arc<str> {
    fn save(&self, out: &mut dyn Put) {
        out.bytes(self.as_bytes());
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        from.text().map(Arc::from)
    }
}

impl<T: Saved> Saved for Option<T> {
    fn save(&self, out: &mut dyn Put) {
        self.is_some().save(out);
        if let Some(some) = self {
            some.save(out);
        }
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        if bool::restore(from)? { T::restore(from).map(Some) } else { Ok(None) }
    }
}

impl<A: Saved, B: Saved> Saved for (A, B) {
    fn save(&self, out: &mut dyn Put) {
        self.0.save(out);
        self.1.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        Ok((A::restore(from)?, B::restore(from)?))
    }
}

impl<T: Saved> Saved for Vec<T> {
    fn save(&self, out: &mut dyn Put) {
        save_all(self.len(), self.iter(), out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        restore_all(from).collect()
    }
}

impl<K: Spread + Saved, V: Saved> Saved for BucketMap<K, V> {
    fn save(&self, out: &mut dyn Put) {
        out.number(self.len() as u64);
        for (key, value) in self.iter() {
            key.save(out);
            value.save(out);
        }
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let mut map = Self::new();
        for entry in restore_all(from) {
            let (key, value) = entry?;
            map.insert(key, value);
        }
        Ok(map)
    }
}

/// Saves so many, one after the other.
pub fn save_all<'a, T: Saved + 'a>(count: usize, all: impl Iterator<Item = &'a T>, out: &mut dyn Put) {
    out.number(count as u64);
    for one in all {
        one.save(out);
    }
}

/// Restores what [`save_all`] saved, one after the other; ends with the first that can not be read.
pub fn restore_all<T: Saved>(from: &mut dyn Take) -> impl Iterator<Item = Result<T, Unreadable>> + '_ {
    let (mut left, mut wrong) = match from.count() {
        Ok(count) => (count, None),
        Err(unreadable) => (0, Some(unreadable)),
    };
    std::iter::from_fn(move || {
        if let Some(unreadable) = wrong.take() {
            return Some(Err(unreadable));
        }
        left = left.checked_sub(1)?;
        let restored = T::restore(from);
        if restored.is_err() {
            left = 0;
        }
        Some(restored)
    })
}
