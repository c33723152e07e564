//! A connection's socket, and its handshake where there is TLS.

use std::io;
use std::time::Duration;

use tokio::io::split;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::carrier::{Reading, Writing};

/// How long a TLS handshake may take, waiting for its turn included.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most handshakes that are under way; the others wait. One takes about 50 KiB, and most of a millisecond with RSA.
pub const HANDSHAKES_MAX: usize = 256;
/// What every TLS connection begins with: a handshake record.
const TLS_FIRST_BYTE: u8 = 0x16;

/// Why there is no TLS with a peer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("the peer does not speak tls")]
    PlainText,
    #[error("the peer has left")]
    Gone,
    #[error("the handshake took too long")]
    TooSlow,
    #[error("the handshake failed: {0}")]
    Failed(#[from] io::Error),
}

/// A socket as it is.
pub(super) fn plain(stream: TcpStream) -> (Reading, Writing) {
    let (read, write) = stream.into_split();
    (Reading::Tcp(read), Writing::Tcp(write))
}

/// The two sides of a socket with TLS.
pub(super) async fn tls(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    turns: &Semaphore,
) -> Result<(Reading, Writing), HandshakeError> {
    let (read, write) = split(shake_hands(stream, acceptor, turns).await?);
    Ok((Reading::Tls(read), Writing::Tls(write)))
}

/// Shakes hands. A peer that says anything but TLS is told apart by its first byte and ended at once.
pub(super) async fn shake_hands(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    turns: &Semaphore,
) -> Result<TlsStream<TcpStream>, HandshakeError> {
    let shake = async {
        let mut first = [0];
        match stream.peek(&mut first).await? {
            0 => return Err(HandshakeError::Gone),
            _ if first != [TLS_FIRST_BYTE] => return Err(HandshakeError::PlainText),
            _ => {}
        }
        // Only who has begun takes a turn. The turns are never closed.
        let _turn = turns.acquire().await.map_err(|_| HandshakeError::Gone)?;
        Ok(acceptor.accept(stream).await?)
    };
    timeout(HANDSHAKE_TIMEOUT, shake).await.unwrap_or(Err(HandshakeError::TooSlow))
}
