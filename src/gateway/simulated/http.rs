//! As much of HTTP/1.1 as the simulated Graph API needs: a request read whole, an answer written whole. By hand, so
//! that a connection can be dropped at any point.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Longest body of a request, in bytes: more than any message, less than what hurts.
const BODY_BYTES_MAX: usize = 16 << 20;

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Their names in lower case.
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) retry_after_s: Option<u64>,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

impl Response {
    /// An answer in JSON.
    pub(super) fn json(status: u16, retry_after_s: Option<u64>, body: &serde_json::Value) -> Self {
        let content_type = "application/json".to_owned();
        Self { status, retry_after_s, content_type, body: body.to_string().into_bytes() }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// Waits until the first bytes of a request are there; reads none of them away. False: none will come.
    pub(super) async fn begins(&mut self) -> bool {
        self.0.fill_buf().await.is_ok_and(|bytes| !bytes.is_empty())
    }

    /// The next request; none where the peer has gone or sends no request.
    pub(super) async fn read(&mut self) -> Option<Request> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        loop {
            let mut line = String::new();
            bytes += self.0.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            if bytes > HEAD_BYTES_MAX {
                return None;
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            lines.push(line.to_owned());
        }
        let mut words = lines.first()?.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let headers: Vec<(String, String)> = lines
            .iter()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut request = Request { method, path, headers, body: Vec::new() };
        let length: usize =
            request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if length > BODY_BYTES_MAX || request.header("transfer-encoding").is_some() {
            return None;
        }
        request.body.resize(length, 0);
        self.0.read_exact(&mut request.body).await.ok()?;
        Some(request)
    }

    pub(super) async fn write(&mut self, response: &Response) -> std::io::Result<()> {
        let retry = response.retry_after_s.map(|s| format!("retry-after: {s}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} As asked\r\ncontent-type: {}\r\n{retry}content-length: {}\r\n\r\n",
            response.status,
            response.content_type,
            response.body.len(),
        );
        self.0.get_mut().write_all(&[head.as_bytes(), &response.body].concat()).await
    }
}
