//! How much can still be written, whatever the disk says: zero-filled bytes, which no full disk can take away.
//!
//! New work is let in while a spare segment is ready, or is being made for the first time behind the one in use. Once
//! making one has failed, nothing new is let in until one is ready again; what is left of the segment in use is for what
//! ends work: acknowledgements, outcomes, leaving, releasing. So a full disk answers clearly, and frees itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What new work must leave of the segment in use while its spare is being made, in bytes, unless the segments are
/// small: some ten thousand outcomes. A spare is made in a fraction of the time in which a segment is filled, so that
/// this is hardly ever asked for.
const ROOM_LEFT_MIN: u64 = 8 << 20;
/// The same as a part of a segment, where those are small.
const ROOM_LEFT_PART: u64 = 8;

/// The room in the segment in use and behind it.
#[derive(Debug, Default)]
pub(super) struct Room {
    left: AtomicU64,
    segment_bytes: u64,
    has_spare: AtomicBool,
    /// The last try to make a spare has failed, and none has succeeded since.
    has_failed: AtomicBool,
}

impl Room {
    pub(super) fn new(segment_bytes: u64) -> Self {
        Self { segment_bytes, ..Self::default() }
    }

    /// Notes what is left of the segment in use.
    pub(super) fn set_left(&self, bytes: u64) {
        self.left.store(bytes, Ordering::Relaxed);
    }

    /// A spare is ready.
    pub(super) fn spare_is_ready(&self) {
        self.has_spare.store(true, Ordering::Release);
        self.has_failed.store(false, Ordering::Release);
    }

    /// The spare is in use now, or was given up.
    pub(super) fn spare_is_gone(&self) {
        self.has_spare.store(false, Ordering::Release);
    }

    /// None could be made.
    pub(super) fn spare_has_failed(&self) {
        self.has_failed.store(true, Ordering::Release);
    }

    /// Whether new work may be let in while so many bytes are on their way.
    pub(super) fn admits(&self, queued: u64) -> bool {
        if self.has_spare.load(Ordering::Acquire) {
            return true;
        }
        let least = ROOM_LEFT_MIN.min(self.segment_bytes / ROOM_LEFT_PART);
        !self.has_failed.load(Ordering::Acquire) && self.left.load(Ordering::Relaxed) >= queued + least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_work_waits_for_a_spare_once_none_could_be_made() {
        let room = Room::new(64 << 20);
        room.set_left(64 << 20);
        assert!(room.admits(1 << 20), "the first spare is being made");
        room.set_left(9 << 20);
        assert!(room.admits(1 << 20) && !room.admits(2 << 20));
        room.set_left(64 << 20);
        room.spare_has_failed();
        assert!(!room.admits(0));
        room.spare_is_ready();
        assert!(room.admits(60 << 20));
        room.spare_is_gone();
        assert!(room.admits(0), "the next one is being made");
    }
}
