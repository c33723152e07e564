//! A bridge from JSON lines over TCP to a WebSocket at `/v1/ws`, so that peers of the scenarios need not know of it.
//!
//! The WebSocket's client is of another make than the server. A line that comes in pieces goes on in fragments, as they
//! come: so lines without an end reach the broker too.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use sharedline::actors::Broker;
use sharedline::net::http::{self, Check, Health, Limits, Server};
use sharedline::net::websocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

struct Fine;

impl Health for Fine {
    async fn checks(&self) -> Vec<Check> {
        Vec::new()
    }
}

/// The broker's HTTP server, and the bridge to it.
pub(crate) struct Bridge {
    pub(crate) address: SocketAddr,
    _server: Server,
}

impl Bridge {
    pub(crate) fn start(broker: &Broker) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server =
            http::run(listener, Limits::default(), Arc::new(Fine), websocket::routes(broker.clone()))
                .unwrap();
        let to = server.address();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, to));
            }
        });
        Self { address, _server: server }
    }
}

async fn carry(client: TcpStream, to: SocketAddr) {
    let Ok(stream) = TcpStream::connect(to).await else { return };
    let (socket, _) = client_async(format!("ws://{to}{}", websocket::PATH), stream).await.unwrap();
    let (mut up, mut down) = socket.split();
    let (mut read, mut write) = client.into_split();
    let there = async {
        let mut buffer = vec![0; 64 << 10];
        let mut has_begun = false;
        loop {
            let length = read.read(&mut buffer).await.unwrap_or(0);
            if length == 0 {
                let _ = up.send(Message::Close(None)).await;
                return std::future::pending().await;
            }
            for piece in buffer[..length].split_inclusive(|byte| *byte == b'\n') {
                let (text, is_last) = match piece.strip_suffix(b"\n") {
                    Some(text) => (text, true),
                    None => (piece, false),
                };
                let code = OpCode::Data(if has_begun { Data::Continue } else { Data::Text });
                let frame = Frame::message(text.to_vec(), code, is_last);
                if up.send(Message::Frame(frame)).await.is_err() {
                    return std::future::pending().await;
                }
                has_begun = !is_last;
            }
        }
    };
    let back = async {
        while let Some(Ok(message)) = down.next().await {
            match message {
                Message::Text(text) => {
                    let line = [text.as_bytes(), b"\n"].concat();
                    if write.write_all(&line).await.is_err() {
                        return;
                    }
                }
                Message::Close(_) => return,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}
