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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn room_grows_with_what_comes_and_goes_back_after_a_silence() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (read, _write) = listener.accept().await.unwrap().0.into_split();
            let mut inlet = Inlet::new(Reading::Tcp(read), BytesMut::new());
            let sent = 4 * READ_BYTES_MAX;
            let writing = tokio::spawn(async move {
                peer.write_all(&vec![b'x'; sent]).await.unwrap();
                peer
            });
            let mut taken = 0;
            while taken < sent {
                taken += inlet.read().await.unwrap();
                inlet.buffer.clear();
            }
            assert_eq!(inlet.read_bytes, READ_BYTES_MAX, "a busy peer is read in large pieces");
            assert!(timeout(2 * IDLE_AFTER, inlet.read()).await.is_err(), "nothing comes");
            assert!(inlet.buffer.capacity() <= READ_BYTES_MIN, "{}", inlet.buffer.capacity());
            writing.await.unwrap().write_all(b"again").await.unwrap();
            assert_eq!(inlet.read().await.unwrap(), 5, "it is read on");
            assert_eq!(&inlet.buffer[..], b"again");
        });
    }
}
