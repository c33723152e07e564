//! Gathers small pieces on the stack before they go to a connection's buffer: a message is some thirty of them, and
//! each append to the buffer costs more than the few bytes that it takes.

use bytes::BytesMut;

/// Bytes gathered before they go to the buffer: all that a message has before its content, as a rule. Content is not to
/// be copied here first.
const STAGED_BYTES: usize = 192;

/// Appends to a buffer. What was gathered is in the buffer only after [`Self::flush`], which its drop does too.
pub(super) struct Staged<'b> {
    out: &'b mut BytesMut,
    staged: [u8; STAGED_BYTES],
    length: usize,
}

impl<'b> Staged<'b> {
    #[inline]
    pub(super) fn new(out: &'b mut BytesMut) -> Self {
        Self { out, staged: [0; STAGED_BYTES], length: 0 }
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

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}
