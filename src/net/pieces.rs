//! What one connection is about to write: bytes of its own, and frames that it shares with other connections, which are
//! not copied for each. In order, as one [`Buf`] of several pieces.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use bytes::{Buf, Bytes, BytesMut};

/// Frames shorter than that together are copied, in bytes: another piece costs the system about as much.
const SHARED_BYTES_MIN: usize = 2 << 10;

/// Room of its own that a connection keeps for what comes next, in bytes: one large message does not keep its for ever.
const OWN_BYTES_KEPT: usize = 512 << 10;

/// The pieces. What was written behind [`Self::own`] is readable after [`Self::close`].
#[derive(Debug, Default)]
pub(super) struct Pieces {
    closed: VecDeque<Bytes>,
    /// Bytes in `closed`.
    closed_bytes: usize,
    own: BytesMut,
}

impl Pieces {
    /// Where the connection's own bytes go.
    pub(super) fn own(&mut self) -> &mut BytesMut {
        &mut self.own
    }

    /// Appends `piece`, a slice of `frames`.
    pub(super) fn share(&mut self, frames: &Bytes, piece: &[u8]) {
        if piece.len() < SHARED_BYTES_MIN {
            return self.own.extend_from_slice(piece);
        }
        self.close();
        self.push(frames.slice_ref(piece));
    }

    /// All bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.closed_bytes + self.own.len()
    }

    /// Makes all readable.
    pub(super) fn close(&mut self) {
        if !self.own.is_empty() {
            let own =
                if self.own.len() > OWN_BYTES_KEPT { mem::take(&mut self.own) } else { self.own.split() };
            self.push(own.freeze());
        }
    }

    fn push(&mut self, piece: Bytes) {
        self.closed_bytes += piece.len();
        self.closed.push_back(piece);
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.closed_bytes
    }

    fn chunk(&self) -> &[u8] {
        self.closed.front().map_or(&[], Bytes::chunk)
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        into.iter_mut().zip(&self.closed).map(|(place, piece)| *place = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut written: usize) {
        self.closed_bytes = self.closed_bytes.saturating_sub(written);
        while let Some(first) = self.closed.front_mut() {
            if written < first.len() {
                return first.advance(written);
            }
            written -= first.len();
            self.closed.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_in_order_however_they_are_taken() {
        let frames = Bytes::from(vec![b'f'; 3 * SHARED_BYTES_MIN]);
        for step in [1, 7, SHARED_BYTES_MIN, 1 << 20] {
            let mut pieces = Pieces::default();
            pieces.own().extend_from_slice(b"own");
            pieces.share(&frames, &frames[..SHARED_BYTES_MIN]);
            pieces.share(&frames, &frames[..2]);
            pieces.own().extend_from_slice(b"more");
            pieces.share(&frames, &frames[SHARED_BYTES_MIN..]);
            let wanted =
                [b"own", &frames[..SHARED_BYTES_MIN], b"ffmore", &frames[SHARED_BYTES_MIN..]].concat();
            assert_eq!(pieces.len(), wanted.len());
            pieces.close();
            assert_eq!(pieces.remaining(), wanted.len());
            let mut taken = Vec::new();
            while pieces.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = pieces.chunks_vectored(&mut slices);
                let seen = slices[..count].iter().flat_map(|slice| slice.to_vec());
                let some: Vec<u8> = seen.take(step).collect();
                assert!(some.starts_with(&pieces.chunk()[..pieces.chunk().len().min(some.len())]));
                taken.extend_from_slice(&some);
                pieces.advance(some.len());
            }
            assert!(taken == wanted, "in steps of {step}");
            assert_eq!((pieces.len(), pieces.closed.len()), (0, 0));
        }
    }

    #[test]
    fn room_is_used_again_but_for_that_of_a_large_message() {
        let mut pieces = Pieces::default();
        let mut written_at = |bytes: usize| {
            pieces.own().resize(bytes, b'x');
            pieces.close();
            let place = pieces.chunk().as_ptr();
            pieces.advance(bytes);
            (place, pieces.own.capacity())
        };
        let (first, _) = written_at(1_000);
        assert_eq!(written_at(1_000).0, first, "the room of what was written");
        assert_eq!(written_at(OWN_BYTES_KEPT + 1).1, 0, "given back with what it held");
    }

    #[test]
    fn long_frames_are_not_copied() {
        let frames = Bytes::from(vec![b'f'; SHARED_BYTES_MIN]);
        let mut pieces = Pieces::default();
        pieces.share(&frames, &frames);
        assert_eq!(pieces.chunk().as_ptr(), frames.as_ptr());
    }
}
