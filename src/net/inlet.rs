//! The reading side of one connection: what was read and not split into messages yet, in room that follows its use.
//!
//! **Invariant:** a connection that is silent holds [`READ_BYTES_MIN`] here, whatever it held before.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::carrier::Reading;

/// How much is read at once, in bytes, of a peer that fills what it is given.
const READ_BYTES_MAX: usize = 64 << 10;
/// How much of one that has just come, or that was silent, in bytes.
const READ_BYTES_MIN: usize = 2 << 10;
/// After so long a silence a connection gives its room back.
pub(super) const IDLE_AFTER: Duration = Duration::from_secs(1);

/// The reading side.
pub(super) struct Inlet {
    pub(super) read: Reading,
    pub(super) buffer: BytesMut,
    /// How much room the next read gets.
    read_bytes: usize,
}

impl Inlet {
    pub(super) fn new(read: Reading, buffer: BytesMut) -> Self {
        Self { read, buffer, read_bytes: READ_BYTES_MIN }
    }

    /// Reads what there is, and waits for something; 0 at the end. Cancelled, nothing is lost.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < self.read_bytes / 4 {
            self.buffer.reserve(self.read_bytes);
        }
        let mut read = None;
        if self.buffer.is_empty() && self.buffer.capacity() > READ_BYTES_MIN {
            read = timeout(IDLE_AFTER, self.read.read_buf(&mut self.buffer)).await.ok();
            if read.is_none() {
                self.read_bytes = READ_BYTES_MIN;
                self.buffer = BytesMut::with_capacity(READ_BYTES_MIN);
            }
        }
        let read = match read {
            Some(read) => read?,
            None => self.read.read_buf(&mut self.buffer).await?,
        };
        if self.buffer.len() == self.buffer.capacity() {
            self.read_bytes = (4 * self.read_bytes).min(READ_BYTES_MAX);
        }
        Ok(read)
    }
}
