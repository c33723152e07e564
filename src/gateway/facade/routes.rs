//! Which path of the Cloud API is whose, and how answers leave.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::errors::GraphError;
use super::message::{self, Wanted};
use super::{Facade, media, send};
use crate::domain::content::CONTENT_BYTES_MAX;
use crate::domain::ids::ReplyId;
use crate::gateway::body::{RefusalBody, UnreadBody};
use crate::gateway::text::hex;

/// Any version of the Graph API, and an object.
const OBJECT: &str = "/{version:v[0-9]+\\.[0-9]+}/{id}";
/// The same, and an edge of it.
const EDGE: &str = "/{version:v[0-9]+\\.[0-9]+}/{id}/{edge}";
/// Largest body of a message, in bytes: the largest content, and room for its envelope.
const MESSAGE_BYTES_MAX: usize = CONTENT_BYTES_MAX + (16 << 10);
/// How long a body may take to come.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// The name that a service gives a message, so that repeating it sends nothing.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Random bytes in a name that the broker gives, where the service gave none.
const REPLY_ID_BYTES: usize = 16;

pub(super) type Answer = Result<Value, GraphError>;

/// Registers the facade's routes; a part of the HTTP server's application.
pub fn routes(facade: Arc<Facade>) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    move |config| {
        let facade = web::Data::from(Arc::clone(&facade));
        let media = web::resource(media::LINK_PATH).app_data(facade.clone());
        let object = web::resource(OBJECT).app_data(facade.clone());
        let edge = web::resource(EDGE).app_data(facade);
        config.service(media.route(web::get().to(media::fetch_link)));
        config.service(
            object
                .route(web::get().to(get_object))
                .route(web::delete().to(delete_object))
                .route(web::post().to(change_object)),
        );
        config.service(
            edge.route(web::get().to(get_edge))
                .route(web::post().to(post_edge))
                .route(web::delete().to(change_edge)),
        );
    }
}

type Edge = web::Path<(String, String, String)>;
type Object = web::Path<(String, String)>;

async fn get_object(request: HttpRequest, facade: web::Data<Facade>, path: Object) -> HttpResponse {
    let (_, id) = path.into_inner();
    // What is no number of the portal's whose token this is may be media of it.
    said(match facade.asking(&request, &id) {
        Ok(asking) => facade.number(asking, &request, &id).await,
        Err(_) => facade.media(&request, &id).await,
    })
}

async fn delete_object(request: HttpRequest, facade: web::Data<Facade>, path: Object) -> HttpResponse {
    let (_, id) = path.into_inner();
    said(facade.delete_media(&request, &id).await)
}

async fn change_object(
    request: HttpRequest,
    payload: web::Payload,
    facade: web::Data<Facade>,
    path: Object,
) -> HttpResponse {
    respond(Err(facade.change(&request, &path.1)), UnreadBody::new(payload))
}

async fn change_edge(
    request: HttpRequest,
    payload: web::Payload,
    facade: web::Data<Facade>,
    path: Edge,
) -> HttpResponse {
    respond(Err(facade.change(&request, &path.1)), UnreadBody::new(payload))
}

async fn get_edge(request: HttpRequest, facade: web::Data<Facade>, path: Edge) -> HttpResponse {
    let (_, id, edge) = path.into_inner();
    said(match edge.as_str() {
        "thread_owner" => facade.thread_owner(&request, &id).await,
        _ => facade.account(&request, &id, &edge).await,
    })
}

async fn post_edge(
    request: HttpRequest,
    payload: web::Payload,
    facade: web::Data<Facade>,
    path: Edge,
) -> HttpResponse {
    let (_, id, edge) = path.into_inner();
    let mut unread = UnreadBody::new(payload);
    let answer = match edge.as_str() {
        "messages" => facade.messages(&request, &mut unread, &id).await,
        "media" => facade.upload(&request, &mut unread, &id).await,
        "thread_control" => facade.thread_control(&request, &mut unread, &id).await,
        "subscribed_apps" => facade.subscribe(&request, &id).await,
        _ => Err(facade.change(&request, &id)),
    };
    respond(answer, unread)
}

/// An answer to a request without a body.
fn said(answer: Answer) -> HttpResponse {
    match answer {
        Ok(value) => HttpResponse::Ok().json(value),
        Err(error) => refusal(&error),
    }
}

pub(super) fn refusal(error: &GraphError) -> HttpResponse {
    HttpResponse::build(error.status()).json(error.body())
}

fn respond(answer: Answer, unread: UnreadBody) -> HttpResponse {
    match answer {
        Ok(value) => HttpResponse::Ok().json(value),
        Err(error) => HttpResponse::build(error.status())
            .content_type("application/json")
            .body(RefusalBody::new(error.body().to_string(), unread)),
    }
}

impl Facade {
    async fn messages(&self, request: &HttpRequest, unread: &mut UnreadBody, id: &str) -> Answer {
        let asking = self.asking(request, id)?;
        let body = read_body(unread, MESSAGE_BYTES_MAX).await?;
        let Wanted::Send(wanted) = message::read(&body)? else { return Ok(json!({ "success": true })) };
        let reply_id = reply_id_of(request)?;
        let within = self.patience.sent_within;
        // In a task of its own: a program that hangs up leaves nothing that is sent later.
        let sending = async move { send::send(&asking, *wanted, reply_id, within).await };
        let sent = actix_web::rt::spawn(sending).await;
        sent.unwrap_or_else(|_| Err(GraphError::unknown_outcome("the request was broken off")))
    }
}

/// The name of the message: as the service gave it, else a random one.
fn reply_id_of(request: &HttpRequest) -> Result<ReplyId, GraphError> {
    let wrong = || GraphError::bad_parameter("the Idempotency-Key must have 1 to 128 printable characters");
    if let Some(key) = request.headers().get(IDEMPOTENCY_KEY) {
        return key.to_str().ok().and_then(|key| key.parse().ok()).ok_or_else(wrong);
    }
    let mut raw = [0; REPLY_ID_BYTES];
    getrandom::fill(&mut raw).map_err(|_| GraphError::unavailable("there is no randomness"))?;
    format!("{}{}", send::OWN_NAMES, hex(&raw)).parse().map_err(|_| wrong())
}

pub(super) async fn read_body(unread: &mut UnreadBody, bytes_max: usize) -> Result<Bytes, GraphError> {
    let read = async {
        let mut body = BytesMut::new();
        while let Some(chunk) = unread.next().await {
            let chunk = chunk.map_err(|()| GraphError::bad_parameter("the body ended early"))?;
            if body.len() + chunk.len() > bytes_max {
                return Err(GraphError::bad_parameter(format!("the body has more than {bytes_max} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    };
    let late = || Err(GraphError::bad_parameter("the body did not come in time"));
    timeout(BODY_WITHIN, read).await.unwrap_or_else(|_| late())
}
