//! What one connection is about to write: bytes of its own, and frames that it shares with other connections, which are
//! not copied for each. In order, as one [`Buf`] of several pieces.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Frames shorter than that together are copied, in bytes: another piece costs the system about as much.
const SHARED_BYTES_MIN: usize = 2 << 10;

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
            let own = self.own.split().freeze();
            self.push(own);
        }
    }

    /// Gives room back that is larger than `bytes_max`. For when all is written.
    pub(super) fn shrink(&mut self, bytes_max: usize) {
        if self.own.capacity() > bytes_max {
            self.own = BytesMut::new();
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
    fn long_frames_are_not_copied() {
        let frames = Bytes::from(vec![b'f'; SHARED_BYTES_MIN]);
        let mut pieces = Pieces::default();
        pieces.share(&frames, &frames);
        assert_eq!(pieces.chunk().as_ptr(), frames.as_ptr());
    }
}
