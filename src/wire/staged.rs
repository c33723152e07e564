//! Gathers small pieces on the stack before they go to a connection's buffer: a message is some thirty of them, and
//! each append to the buffer costs more than the few bytes that it takes.

use bytes::BytesMut;

/// Appends to a buffer. What was gathered is in the buffer only after [`Self::flush`], which its drop does too.
///
/// `ROOM` bytes are gathered before they go to the buffer: enough for all that a message has before its content, as a rule.
/// Content is not to be copied here first.
pub(super) struct Staged<'b, const ROOM: usize> {
    out: &'b mut BytesMut,
    staged: [u8; ROOM],
    length: usize,
}

impl<'b, const ROOM: usize> Staged<'b, ROOM> {
    #[inline]
    pub(super) fn new(out: &'b mut BytesMut) -> Self {
        Self { out, staged: [0; ROOM], length: 0 }
    }

    /// Appends `bytes`.
    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        match self.staged.get_mut(self.length..end) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.length = end;
            }
            None => self.push_beyond(bytes),
        }
    }

    #[inline(never)]
    fn push_beyond(&mut self, bytes: &[u8]) {
        self.flush();
        self.out.extend_from_slice(bytes);
    }

    /// The byte appended last.
    #[inline]
    pub(super) fn last(&self) -> Option<u8> {
        match self.length.checked_sub(1) {
            Some(last) => self.staged.get(last).copied(),
            None => self.out.last().copied(),
        }
    }

    /// Hands over what was gathered, so that the buffer holds all of it.
    #[inline]
    pub(super) fn flush(&mut self) {
        self.out.extend_from_slice(self.staged.get(..self.length).unwrap_or_default());
        self.length = 0;
    }
}

impl<const ROOM: usize> Drop for Staged<'_, ROOM> {
    fn drop(&mut self) {
        self.flush();
    }
}
