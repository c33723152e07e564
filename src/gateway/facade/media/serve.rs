//! The requests about media.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, ReadBuf};

use super::cache::Kept;
use crate::actors::Caller;
use crate::gateway::body::UnreadBody;
use crate::gateway::facade::auth::{Who, parameters_of};
use crate::gateway::facade::errors::GraphError;
use crate::gateway::facade::known::FacadeNumber;
use crate::gateway::facade::routes::{Answer, read_body, refusal};
use crate::gateway::facade::{Asking, Facade, now_ms};
use crate::gateway::graph::Token;

/// Largest media, in bytes: WhatsApp's own largest, a document of 100 MB, and what a form has around it.
const MEDIA_BYTES_MAX: usize = (100 << 20) + (64 << 10);
/// Most uploads at once, so that they hold no more memory than so many of the largest media.
pub(in crate::gateway::facade) const UPLOADS_AT_ONCE_MAX: usize = 2;
/// What is read of a file at once, in bytes.
const READ_BYTES: usize = 64 << 10;

/// Media that a service may fetch.
struct Permitted {
    who: Who,
    number: Arc<FacadeNumber>,
    uploaded: bool,
}

impl Permitted {
    fn token(&self) -> Result<&Token, GraphError> {
        self.number.token()
    }

    fn number_id(&self) -> &str {
        self.number.phone_number_id.as_deref().unwrap_or_default()
    }
}

impl Facade {
    /// What is known of media, with an address of the broker's own.
    pub(in crate::gateway::facade) async fn media(&self, request: &HttpRequest, id: &str) -> Answer {
        let permitted = self.permitted_to(request, id).await?;
        let mut known = self.ask_of(&permitted, id).await?;
        if let Some(fields) = known.as_object_mut() {
            let base = self.base_of(request);
            let url = format!("{base}{}", self.links.to(&permitted.who, id, now_ms()));
            fields.insert("url".to_owned(), json!(url));
        }
        Ok(known)
    }

    /// Deletes media that the service uploaded; those of customers are everybody's.
    pub(in crate::gateway::facade) async fn delete_media(&self, request: &HttpRequest, id: &str) -> Answer {
        let permitted = self.permitted_to(request, id).await?;
        if !permitted.uploaded {
            return Err(GraphError::forbidden("only who uploaded media deletes them"));
        }
        Ok(self.known().graph.ask(permitted.token()?, Method::DELETE, &[id], &[]).await?)
    }

    /// Uploads media for a number of the service's.
    pub(in crate::gateway::facade) async fn upload(
        &self,
        request: &HttpRequest,
        unread: &mut UnreadBody,
        id: &str,
    ) -> Answer {
        let Asking { caller, number } = self.asking(request, id)?;
        let token = number.token()?.clone();
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let content_type = content_type.ok_or_else(|| GraphError::bad_parameter("Content-Type is needed"))?;
        let _turn = self.uploads.try_acquire().map_err(|_| {
            GraphError::new(130_429, "Rate limit hit").with("as many uploads as there may be are under way")
        })?;
        let body = read_body(unread, MEDIA_BYTES_MAX).await?;
        let answer = self.known().graph.upload(&token, &[id, "media"], content_type, body).await?;
        if let Some(media_id) = answer.get("id").and_then(Value::as_str) {
            let who = Who { portal: caller.portal().clone(), service: caller.service().clone() };
            let (shown, media_id) = (Arc::clone(&self.shown), media_id.to_owned());
            // Off the server's thread, which must not wait for a disk.
            let note = move || shown.upload(&who, &number.number, &media_id, now_ms());
            let noted = web::block(note).await;
            if !matches!(noted, Ok(Ok(()))) {
                return Err(GraphError::unavailable("the broker can not note the upload"));
            }
        }
        Ok(answer)
    }

    async fn permitted_to(&self, request: &HttpRequest, id: &str) -> Result<Permitted, GraphError> {
        for who in self.who(&self.known(), request)? {
            if let Some(permitted) = self.permitted(&who, id).await {
                return Ok(permitted);
            }
        }
        Err(GraphError::no_object())
    }

    async fn permitted(&self, who: &Who, id: &str) -> Option<Permitted> {
        // Meta's ids are digits: nothing else goes into an address.
        if id.is_empty() || id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let caller: Caller = self.broker.caller(&who.portal, &who.service)?;
        let found = self.watches.find(&self.shown, (&caller, who), &self.known().numbers, id).await;
        found.map(|(number, uploaded)| Permitted { who: who.clone(), number, uploaded })
    }

    async fn ask_of(&self, permitted: &Permitted, id: &str) -> Answer {
        let of_number = [("phone_number_id".to_owned(), permitted.number_id().to_owned())];
        let parameters: &[_] = if permitted.number_id().is_empty() { &[] } else { &of_number };
        Ok(self.known().graph.ask(permitted.token()?, Method::GET, &[id], parameters).await?)
    }

    /// Where the program that asks reaches the broker.
    fn base_of(&self, request: &HttpRequest) -> String {
        match &self.known().public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => {
                let connection = request.connection_info();
                format!("{}://{}", connection.scheme(), connection.host())
            }
        }
    }

    async fn fetch(&self, request: &HttpRequest, id: &str) -> Result<HttpResponse, GraphError> {
        let permitted = match self.links.owner(&parameters_of(request), id, now_ms()) {
            Some(who) => self.permitted(&who, id).await.ok_or_else(GraphError::no_object)?,
            None => self.permitted_to(request, id).await?,
        };
        let known = self.ask_of(&permitted, id).await?;
        let kind = known.get("mime_type").and_then(Value::as_str).unwrap_or("application/octet-stream");
        let kept = match self.cache.find(permitted.number_id(), id).await {
            Some(kept) => kept,
            None => self.download(&permitted, id, &known).await?,
        };
        let body = FileBody { file: tokio::fs::File::from_std(kept.file), left: kept.bytes };
        // What a customer sent is never shown as a page of the broker's own.
        Ok(HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, kind))
            .insert_header((header::CONTENT_DISPOSITION, "attachment"))
            .insert_header((header::CONTENT_SECURITY_POLICY, "sandbox"))
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((header::CACHE_CONTROL, "private, no-store"))
            .body(body))
    }

    async fn download(&self, permitted: &Permitted, id: &str, known: &Value) -> Result<Kept, GraphError> {
        let disk = |_| GraphError::unavailable("the media can not be kept on disk");
        let url = known.get("url").and_then(Value::as_str);
        let url = url.ok_or_else(|| GraphError::unavailable("WhatsApp says not where the media are"))?;
        let mut answer = self.known().graph.media(permitted.token()?, url).await?;
        let broken = || GraphError::new(131_052, "Media download error").with("the download broke off");
        let mut growing = self.cache.begin().await.map_err(disk)?;
        let mut bytes = 0;
        while let Some(chunk) = answer.chunk().await.map_err(|_| broken())? {
            bytes += chunk.len();
            if bytes > MEDIA_BYTES_MAX {
                return Err(GraphError::new(131_052, "Media download error").with("the media are too large"));
            }
            growing.write(&chunk).await.map_err(disk)?;
        }
        let expected = known.get("sha256").and_then(Value::as_str).filter(|digest| digest.len() == 64);
        if expected.is_some_and(|expected| !expected.eq_ignore_ascii_case(&growing.sha256())) {
            return Err(broken());
        }
        self.cache.keep(growing, permitted.number_id(), id).await.map_err(disk)
    }
}

/// `GET` of a link.
pub(in crate::gateway::facade) async fn fetch_link(
    request: HttpRequest,
    facade: web::Data<Facade>,
    path: web::Path<String>,
) -> HttpResponse {
    match facade.fetch(&request, &path).await {
        Ok(response) => response,
        Err(error) => refusal(&error),
    }
}

/// A file, a piece at a time.
struct FileBody {
    file: tokio::fs::File,
    left: u64,
}

impl MessageBody for FileBody {
    type Error = std::io::Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.left)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let mut piece = vec![0; READ_BYTES];
        let mut read = ReadBuf::new(&mut piece);
        match Pin::new(&mut self.file).poll_read(context, &mut read) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Ready(Ok(())) => {
                let length = read.filled().len();
                piece.truncate(length);
                Poll::Ready((length > 0).then(|| Ok(Bytes::from(piece))))
            }
        }
    }
}
