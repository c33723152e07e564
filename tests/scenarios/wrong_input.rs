//! What is wrong: said clearly, with the connection going on wherever the protocol lets it.

use std::time::Duration;

use bytes::BytesMut;
use sharedline::wire::codec::{decode_server, encode_request};
use sharedline::wire::frame::{BINARY_PREFACE, Encoding, Splitter};
use sharedline::wire::message::{ErrorCode, Request, Response, ServerBody, ServerMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stage::{Stage, Tallied, WITHIN};

/// A connection that sends whatever bytes it likes.
struct Raw {
    stream: TcpStream,
    encoding: Encoding,
    splitter: Splitter,
    received: BytesMut,
}

impl Raw {
    async fn greeted(stage: &Stage) -> Self {
        let mut raw = Self::strange(stage).await;
        let mut hello = BytesMut::new();
        if raw.encoding == Encoding::Binary {
            hello.extend_from_slice(&BINARY_PREFACE);
        }
        encode_request(raw.encoding, 1, &Request::Hello(stage.hello("acme", "crm", "raw")), &mut hello)
            .unwrap();
        raw.stream.write_all(&hello).await.unwrap();
        assert!(matches!(raw.next().await, Some((1, Response::Welcome(_)))));
        raw
    }

    async fn strange(stage: &Stage) -> Self {
        let stream = TcpStream::connect(stage.address()).await.unwrap();
        let splitter = Splitter::of_server(stage.encoding);
        Self { stream, encoding: stage.encoding, splitter, received: BytesMut::new() }
    }

    /// Sends a message: as a line, or with its length before it.
    async fn send(&mut self, json: &[u8], binary: &[u8]) {
        match self.encoding {
            Encoding::JsonLines => self.stream.write_all(&[json, b"\n"].concat()).await.unwrap(),
            Encoding::Binary => {
                let length = u32::try_from(binary.len()).unwrap().to_be_bytes();
                self.stream.write_all(&[&length[..], binary].concat()).await.unwrap();
            }
        }
    }

    /// The next response, with its id; nothing after the end.
    async fn next(&mut self) -> Option<(u64, Response)> {
        loop {
            if let Some(frame) = self.splitter.next_message(&mut self.received).unwrap() {
                match decode_server(self.encoding, &frame).unwrap() {
                    ServerMessage { id, body: ServerBody::Response(response) } => {
                        return Some((id, response));
                    }
                    ServerMessage { body: ServerBody::Delivery(_), .. } => continue,
                }
            }
            let read = timeout(WITHIN, self.stream.read_buf(&mut self.received)).await.expect("in time");
            if !read.is_ok_and(|read| read > 0) {
                return None;
            }
        }
    }

    async fn is_refused(&mut self, code: ErrorCode) {
        match self.next().await {
            Some((_, Response::Error(error))) => assert_eq!(error.code, code),
            other => panic!("{other:?}"),
        }
    }

    /// The error that ends it.
    async fn ends_with(mut self, code: ErrorCode) {
        self.is_refused(code).await;
        assert!(self.next().await.is_none(), "the connection ends");
    }

    async fn still_talks(&mut self) {
        self.send(br#"{"type":"ping","id":77}"#, &[77, 17]).await;
        assert!(matches!(self.next().await, Some((77, Response::Pong(_)))));
    }
}

pub(crate) async fn what_is_not_understood_is_said_and_the_connection_goes_on(
    encoding: Encoding,
    tally: &Tallied,
) {
    let stage = Stage::set(encoding, tally);
    let mut raw = Raw::greeted(&stage).await;
    // An unknown type; bytes behind the last field.
    raw.send(br#"{"type":"of_tomorrow","id":5}"#, &[5, 250]).await;
    raw.is_refused(ErrorCode::UnknownType).await;
    raw.still_talks().await;
    if encoding == Encoding::Binary {
        raw.send(&[], &[6, 17, 0]).await;
        raw.is_refused(ErrorCode::BadMessage).await;
    } else {
        raw.send(br#"{"type":"ping","id":6,"of_tomorrow":1}"#, &[]).await;
        assert!(matches!(raw.next().await, Some((6, Response::Pong(_)))));
    }
    raw.still_talks().await;
    if encoding == Encoding::JsonLines {
        for line in [
            &b"not json"[..],
            b"[]",
            b"{}",
            b"",
            b"{\"type\":5}",
            b"{\"type\":\"ping\"}",
            b"{\"type\":\"ping\",\"id\":0}",
            b"\xff\xfe",
        ] {
            raw.send(line, &[]).await;
            raw.is_refused(ErrorCode::BadMessage).await;
            raw.still_talks().await;
        }
        let deep = [&b"{\"type\":\"ping\",\"id\":9,\"x\":"[..], &b"[".repeat(10_000)].concat();
        raw.send(&deep, &[]).await;
        raw.is_refused(ErrorCode::BadMessage).await;
        raw.still_talks().await;
    }
    // Note what crossed as raw bytes.
    let mut tally = tally.lock().unwrap();
    tally.errors.insert("unknown_type");
}

pub(crate) async fn what_can_not_be_split_ends_the_connection(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    let mut raw = Raw::greeted(&stage).await;
    match encoding {
        Encoding::JsonLines => {
            let endless = vec![b'x'; (1 << 20) + 10];
            // The broker may stop reading before all is written.
            let _ = raw.stream.write_all(&endless).await;
        }
        Encoding::Binary => raw.stream.write_all(&u32::to_be_bytes((1 << 20) + 1)).await.unwrap(),
    }
    raw.ends_with(ErrorCode::TooLarge).await;
    if encoding == Encoding::Binary {
        // A frame that can not be decoded is broken: a text that claims more than is there.
        let mut raw = Raw::greeted(&stage).await;
        raw.send(&[], &[5, 2, 250, b'+', b'1']).await;
        raw.ends_with(ErrorCode::BadMessage).await;
    }
    // Before `hello`, strangers have 4 KiB.
    let mut raw = Raw::strange(&stage).await;
    let long = match encoding {
        Encoding::JsonLines => [&b"{"[..], &[b' '; 5_000]].concat(),
        Encoding::Binary => [&BINARY_PREFACE[..], &u32::to_be_bytes(5_000)].concat(),
    };
    let _ = raw.stream.write_all(&long).await;
    raw.ends_with(ErrorCode::TooLarge).await;
}

pub(crate) async fn silence_and_strangers_are_ended(encoding: Encoding, tally: &Tallied) {
    let stage = Stage::set(encoding, tally);
    // No hello within five seconds: told in the encoding that it has begun.
    let mut silent = Raw::strange(&stage).await;
    let begin: &[u8] = if encoding == Encoding::JsonLines { b"{" } else { &BINARY_PREFACE };
    silent.stream.write_all(begin).await.unwrap();
    let mut stranger = Raw::strange(&stage).await;
    stranger.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    if stage.is_over_websocket() {
        // A WebSocket has an encoding from the start: that is a bad line, and one of two.
        stranger.is_refused(ErrorCode::BadMessage).await;
        stranger.is_refused(ErrorCode::BadMessage).await;
        stranger.send(br#"{"type":"ping","id":1}"#, &[]).await;
        stranger.ends_with(ErrorCode::Unauthenticated).await;
    } else {
        let said = timeout(Duration::from_secs(4), stranger.next()).await.expect("it is ended at once");
        assert!(said.is_none(), "{said:?}");
    }
    // A request before hello.
    let mut early = Raw::strange(&stage).await;
    if encoding == Encoding::Binary {
        early.stream.write_all(&BINARY_PREFACE).await.unwrap();
    }
    early.send(br#"{"type":"ping","id":1}"#, &[1, 17]).await;
    early.ends_with(ErrorCode::Unauthenticated).await;
    silent.ends_with(ErrorCode::Unauthenticated).await;
}
