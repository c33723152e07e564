//! One connection to a broker: a greeted socket, split into what sends and what receives.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::{ClientError, Tls};
use crate::wire::codec::{decode_server, encode_request};
use crate::wire::frame::{BINARY_PREFACE, Encoding, FrameError, Splitter};
use crate::wire::message::requests::Hello;
use crate::wire::message::responses::Welcome;
use crate::wire::message::{Request, Response, ServerBody, ServerMessage};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 256 << 10;

type Read = Either<OwnedReadHalf, tokio::io::ReadHalf<TlsStream<TcpStream>>>;
type Write = Either<OwnedWriteHalf, tokio::io::WriteHalf<TlsStream<TcpStream>>>;

/// A greeted connection.
#[derive(Debug)]
pub struct Connection {
    /// What the broker said to `hello`.
    pub welcome: Welcome,
    /// What sends.
    pub sender: Sender,
    /// What receives.
    pub receiver: Receiver,
}

impl Connection {
    /// Connects and says `hello`.
    ///
    /// # Errors
    /// When the broker can not be reached, or does not let this client in.
    pub async fn open(address: SocketAddr, encoding: Encoding, hello: Hello) -> Result<Self, ClientError> {
        Self::open_over(None, address, encoding, hello).await
    }

    /// The same over TLS, where it is given.
    ///
    /// # Errors
    /// When the broker can not be reached or believed, or does not let this client in.
    pub async fn open_over(
        tls: Option<&Tls>,
        address: SocketAddr,
        encoding: Encoding,
        hello: Hello,
    ) -> Result<Self, ClientError> {
        let stream = TcpStream::connect(address).await.map_err(ClientError::Io)?;
        stream.set_nodelay(true).map_err(ClientError::Io)?;
        let (read, write): (Read, Write) = match tls {
            None => {
                let (read, write) = stream.into_split();
                (Either::Left(read), Either::Left(write))
            }
            Some(tls) => {
                let (read, write) = tokio::io::split(tls.connect(stream, address).await?);
                (Either::Right(read), Either::Right(write))
            }
        };
        let mut buffer = BytesMut::new();
        if encoding == Encoding::Binary {
            buffer.extend_from_slice(&BINARY_PREFACE);
        }
        let mut sender = Sender { write, encoding, buffer, last_id: 0 };
        let splitter = Splitter::of_server(encoding);
        let mut receiver = Receiver { read, encoding, splitter, buffer: BytesMut::new() };
        sender.put(&Request::Hello(hello))?;
        sender.flush().await?;
        match receiver.next().await?.body {
            ServerBody::Response(Response::Welcome(welcome)) => Ok(Self { welcome, sender, receiver }),
            ServerBody::Response(Response::Error(error)) => Err(ClientError::Refused(Box::new(error))),
            _ => Err(ClientError::Protocol("the broker did not answer hello".to_owned())),
        }
    }
}

/// What sends requests.
#[derive(Debug)]
pub struct Sender {
    write: Write,
    encoding: Encoding,
    buffer: BytesMut,
    last_id: u64,
}

impl Sender {
    /// Puts a request behind those that wait to be sent, and gives its id.
    ///
    /// # Errors
    /// When it is longer than a message may be; then nothing waits that did not before.
    pub fn put(&mut self, request: &Request) -> Result<u64, ClientError> {
        let id = self.last_id + 1;
        encode_request(self.encoding, id, request, &mut self.buffer).map_err(ClientError::TooLong)?;
        self.last_id = id;
        Ok(id)
    }

    /// How many bytes wait to be sent.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Sends all that waits. Not cancel safe: cancelled, the connection is of no use any more.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.write.write_all(&self.buffer).await.map_err(ClientError::Io)?;
        // TLS may still hold some of it back.
        self.write.flush().await.map_err(ClientError::Io)?;
        self.buffer.clear();
        Ok(())
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn close(&mut self) -> Result<(), ClientError> {
        self.write.shutdown().await.map_err(ClientError::Io)
    }
}

/// What receives answers and deliveries.
#[derive(Debug)]
pub struct Receiver {
    read: Read,
    encoding: Encoding,
    splitter: Splitter,
    buffer: BytesMut,
}

impl Receiver {
    /// The next message. Cancel safe.
    ///
    /// # Errors
    /// When the connection is gone, or the broker sent what is no message.
    pub async fn next(&mut self) -> Result<ServerMessage, ClientError> {
        loop {
            if let Some(message) = self.decode_next()? {
                return Ok(message);
            }
            self.read_more().await?;
        }
    }

    /// All messages that are here, one at least. Cancel safe.
    ///
    /// # Errors
    /// When the connection is gone, or the broker sent what is no message.
    pub async fn next_batch(&mut self, into: &mut Vec<ServerMessage>) -> Result<(), ClientError> {
        into.push(self.next().await?);
        while let Some(message) = self.decode_next()? {
            into.push(message);
        }
        Ok(())
    }

    /// All frames that are here, one at least, as they came: for who looks into few of them. Cancel safe.
    ///
    /// # Errors
    /// When the connection is gone, or what the broker sends can not be split.
    pub async fn next_frames(&mut self, into: &mut Vec<Bytes>) -> Result<(), ClientError> {
        loop {
            while let Some(frame) =
                self.splitter.next_message(&mut self.buffer).map_err(ClientError::Frame)?
            {
                into.push(frame);
            }
            if !into.is_empty() {
                return Ok(());
            }
            self.read_more().await?;
        }
    }

    /// Reads a frame of [`Self::next_frames`].
    ///
    /// # Errors
    /// When it is no message.
    pub fn decode(&self, frame: &Bytes) -> Result<ServerMessage, ClientError> {
        decode_server(self.encoding, frame).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    /// Messages of an unknown type are a newer broker's, and passed over.
    fn decode_next(&mut self) -> Result<Option<ServerMessage>, ClientError> {
        use crate::wire::codec::DecodeError;
        while let Some(frame) = self.splitter.next_message(&mut self.buffer).map_err(ClientError::Frame)? {
            match decode_server(self.encoding, &frame) {
                Ok(message) => return Ok(Some(message)),
                Err(DecodeError::UnknownType) => {}
                Err(error) => return Err(ClientError::Protocol(error.to_string())),
            }
        }
        Ok(None)
    }

    async fn read_more(&mut self) -> Result<(), ClientError> {
        self.buffer.reserve(READ_BYTES);
        let read = self.read.read_buf(&mut self.buffer).await.map_err(ClientError::Io)?;
        if read == 0 {
            let broken = |_: FrameError| ClientError::Closed;
            self.splitter.finish(&self.buffer).map_err(broken)?;
            return Err(ClientError::Closed);
        }
        Ok(())
    }
}
