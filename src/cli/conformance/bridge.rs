//! For an adapter over WebSocket: its text frames are lines for the stand-in, whose lines are text frames for it.
//!
//! What breaks RFC 6455 or the protocol's use of it becomes a line that is no message, so that the ledger has it.

use std::io;
use std::net::SocketAddr;

use actix_http::ws::{OpCode, Parser, hash_key};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::net::websocket::PATH;
use crate::wire::frame::FRAME_BYTES_MAX;

/// Longest request to upgrade, in bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Listens for WebSockets and connects each with the stand-in; gives where.
pub(super) async fn start(listen: SocketAddr, stand_in: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // What goes wrong ends this connection, which both sides see.
            tokio::spawn(async move { carry(stream, stand_in).await });
        }
    });
    Ok(address)
}

async fn carry(mut socket: TcpStream, stand_in: SocketAddr) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut from_adapter = BytesMut::new();
    if !upgrade(&mut socket, &mut from_adapter).await? {
        return Ok(());
    }
    let mut lines = TcpStream::connect(stand_in).await?;
    lines.set_nodelay(true)?;
    let (mut from_stand_in, mut out, mut message) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
    loop {
        while let Some(end) = from_stand_in.iter().position(|byte| *byte == b'\n') {
            let line = from_stand_in.split_to(end + 1);
            Parser::write_message(&mut out, line.get(..end).unwrap_or_default(), OpCode::Text, true, false);
        }
        let goes_on = take_frames(&mut from_adapter, &mut message, &mut out, &mut lines).await?;
        socket.write_all(&out).await?;
        out.clear();
        if !goes_on {
            return Ok(());
        }
        tokio::select! {
            read = socket.read_buf(&mut from_adapter) => if read? == 0 { return Ok(()) },
            read = lines.read_buf(&mut from_stand_in) => if read? == 0 { return Ok(()) },
        }
    }
}

/// Hands on every frame that is here; says whether the connection goes on.
async fn take_frames(
    from: &mut BytesMut,
    message: &mut BytesMut,
    out: &mut BytesMut,
    lines: &mut TcpStream,
) -> io::Result<bool> {
    loop {
        let (is_last, code, payload) = match Parser::parse(from, true, FRAME_BYTES_MAX) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(true),
            Err(error) => {
                lines.write_all(format!("a frame that breaks RFC 6455: {error}\n").as_bytes()).await?;
                return Ok(false);
            }
        };
        let payload = payload.unwrap_or_default();
        match code {
            OpCode::Text | OpCode::Continue => {
                message.extend(payload.iter().map(|byte| if *byte == b'\n' { b'\r' } else { *byte }));
                if is_last {
                    message.extend_from_slice(b"\n");
                    lines.write_all(message).await?;
                    message.clear();
                }
            }
            OpCode::Ping => Parser::write_message(out, payload, OpCode::Pong, true, false),
            OpCode::Close => {
                Parser::write_close(out, None, false);
                return Ok(false);
            }
            OpCode::Pong => {}
            OpCode::Binary | OpCode::Bad => lines.write_all(b"a binary frame\n").await?,
        }
    }
}

/// Answers the request to upgrade; says whether it was one.
async fn upgrade(socket: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<bool> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if buffer.len() > HEAD_BYTES_MAX || socket.read_buf(buffer).await? == 0 {
            return Ok(false);
        }
    };
    let head = String::from_utf8_lossy(&buffer.split_to(end)).into_owned();
    let key = head.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| hash_key(value.trim().as_bytes()))
    });
    let is_there = head.strip_prefix("GET ").is_some_and(|rest| rest.split([' ', '?']).next() == Some(PATH));
    let (Some(key), true) = (key, is_there) else {
        let no = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        socket.write_all(no).await?;
        return Ok(false);
    };
    let yes = [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ",
        &key[..],
        b"\r\n\r\n",
    ];
    socket.write_all(&yes.concat()).await?;
    Ok(true)
}
