//! Whether new work is let in: not while the disk has no room for the next segment.
//!
//! A spare segment, filled with zeros, is made behind the one in use. Once making one has failed, nothing new is let in
//! until one is ready again; what is left of the segment in use, and small ones after it, is for what ends work:
//! acknowledgements, outcomes, leaving, releasing, giving up segments. So a full disk answers clearly, and frees itself.

use std::sync::atomic::{AtomicBool, Ordering};

/// What is known of the room for the next segment.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// The last try to make a spare has failed, and none has succeeded since.
    has_failed: AtomicBool,
}

impl Room {
    /// A spare is ready.
    pub(super) fn spare_is_ready(&self) {
        self.has_failed.store(false, Ordering::Release);
    }

    /// None could be made, or it was given up for something that frees more.
    pub(super) fn spare_has_failed(&self) {
        self.has_failed.store(true, Ordering::Release);
    }

    /// Whether new work is let in. It is while the first try is under way: who is faster than that waits for it.
    pub(super) fn admits(&self) -> bool {
        !self.has_failed.load(Ordering::Acquire)
    }
}
