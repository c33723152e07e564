//! `GET` and `POST /webhooks/whatsapp`: Meta's verification, and Meta's notifications.
//!
//! Reads a body within its limits, checks its signature before anything looks into it, has it translated and
//! submitted as one batch, and answers 200 only when all of it has its fate (P1).
//!
//! # Invariants
//! - Of a body that is not signed nothing is parsed, logged or kept; it is counted.
//! - A body is read raw. The program is built without decompression, and an encoded body is refused, so that what is
//!   signed is what came.
//! - All bodies together hold at most [`BODIES_BYTES_MAX`], however many connections dribble; the last quarter of it is for
//!   source addresses that hold less than a quarter, so that who floods keeps WhatsApp out from nowhere else.
//! - What is left out of a signed webhook is named with kind, reason and number, never with content or customer.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::timeout;

use super::body::{RefusalBody, UnreadBody};
use super::numbers::Numbers;
use super::signature::{SIGNATURE_HEADER, SignatureError};
use super::translate::{LeftOut, NotAnObject, Part, Reason, translate};
use super::{Fate, Intake, News, Route, Unavailable, Update};
use crate::config::one_peer;

/// Where Meta sends its webhooks.
pub const PATH: &str = "/webhooks/whatsapp";
/// Largest body, in bytes (contract: 3 MiB; Meta's own limit is 3 MB).
pub const BODY_BYTES_MAX: usize = 3 << 20;
/// All bodies that are being read or worked on, in bytes; beyond it a webhook is answered 503.
pub const BODIES_BYTES_MAX: usize = 64 << 20;
/// How long a body may take to come, in all: a slow sender is ended, not waited for.
pub const BODY_WITHIN: Duration = Duration::from_secs(10);
/// How long the journal may take before a webhook is answered 503, and repeated by Meta.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// Longest `hub.challenge` that is given back, in bytes; Meta's have about ten.
const CHALLENGE_BYTES_MAX: usize = 1024;
/// Most log lines for what one webhook has left out; the counters count all of it.
const LINES_PER_WEBHOOK_MAX: usize = 16;
/// What is reserved at once for a body, in bytes; it grows as bytes come, never on a sender's word.
const BODY_RESERVED_BYTES: usize = 64 << 10;

/// What the configuration says about webhooks; exchanged whole on a reload.
#[derive(Default)]
pub struct Settings {
    /// The numbers, and the secrets that sign for them.
    pub numbers: Numbers,
    /// What Meta must say to have a subscription verified; without it none is.
    pub verify_token: Option<String>,
}

/// How long things may take; shorter in tests.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a body to come: [`BODY_WITHIN`].
    pub body_within: Duration,
    /// For the journal: [`TAKEN_WITHIN`].
    pub taken_within: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { body_within: BODY_WITHIN, taken_within: TAKEN_WITHIN }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What has come in so far, since the start. Holds nothing of anybody.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64),* }

        impl Counters {
            /// Every counter by its name.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.load(Ordering::Relaxed))),*].into_iter()
            }
        }
    };
}

counters! {
    /// Webhooks answered 200.
    taken,
    /// Webhooks without a signature of ours: 401.
    unsigned,
    /// Bodies over [`BODY_BYTES_MAX`]: 413.
    too_large,
    /// Encoded bodies: 415.
    encoded,
    /// Bodies that did not come in time: 408.
    too_slow,
    /// Bodies that broke off: 400.
    broken,
    /// Webhooks beyond [`BODIES_BYTES_MAX`]: 503.
    overloaded,
    /// Signed bodies that are no JSON object: 400.
    not_an_object,
    /// Webhooks that the journal could not take: 503.
    unavailable,
    /// Customers' messages recorded.
    messages,
    /// Statuses recorded.
    statuses,
    /// Messages written on the phone, recorded.
    echoes,
    /// Notices recorded.
    notices,
    /// Updates that said nothing new.
    known,
    /// Updates for a number without an active channel.
    nowhere,
    /// Updates that the broker will never take.
    refused,
    /// Updates for a number that is not configured, or for which another secret signs.
    unknown_number,
    /// Updates of kinds that are not taken.
    unsupported,
    /// Updates without the shape that Meta documents.
    malformed,
    /// Updates over a limit.
    over_limit,
}

impl Counters {
    /// Answers to `POST`, by their status.
    #[must_use]
    pub fn responses(&self) -> [(u16, u64); 7] {
        let of = |counters: &[&AtomicU64]| counters.iter().map(|one| one.load(Ordering::Relaxed)).sum();
        [
            (200, of(&[&self.taken])),
            (400, of(&[&self.not_an_object, &self.broken])),
            (401, of(&[&self.unsigned])),
            (408, of(&[&self.too_slow])),
            (413, of(&[&self.too_large])),
            (415, of(&[&self.encoded])),
            (503, of(&[&self.overloaded, &self.unavailable])),
        ]
    }

    /// What became of updates in signed webhooks, by its name.
    #[must_use]
    pub fn updates(&self) -> [(&'static str, u64); 11] {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("message", of(&self.messages)),
            ("status", of(&self.statuses)),
            ("echo", of(&self.echoes)),
            ("notice", of(&self.notices)),
            ("known", of(&self.known)),
            ("nowhere", of(&self.nowhere)),
            ("refused", of(&self.refused)),
            ("unknown_number", of(&self.unknown_number)),
            ("unsupported", of(&self.unsupported)),
            ("malformed", of(&self.malformed)),
            ("over_limit", of(&self.over_limit)),
        ]
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Meta's way in.
pub struct Webhook<I> {
    intake: I,
    settings: RwLock<Arc<Settings>>,
    patience: Patience,
    counters: Counters,
    bodies: Bodies,
}

impl<I: Intake> Webhook<I> {
    /// Makes it; [`routes`] opens it.
    #[must_use]
    pub fn new(intake: I, settings: Settings, patience: Patience) -> Arc<Self> {
        Arc::new(Self {
            intake,
            settings: RwLock::new(Arc::new(settings)),
            patience,
            counters: Counters::default(),
            bodies: Bodies::default(),
        })
    }

    /// Exchanges the settings; webhooks that are being worked on keep the ones that they began with.
    pub fn reload(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// What has come in.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes of all bodies that are being read or worked on; the limit is [`BODIES_BYTES_MAX`].
    #[must_use]
    pub fn bodies_bytes(&self) -> usize {
        self.bodies.all.load(Ordering::Relaxed)
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Registers the two routes; a part of the HTTP server's application.
pub fn routes<I: Intake>(hook: Arc<Webhook<I>>) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    move |config| {
        config.app_data(web::Data::from(Arc::clone(&hook))).service(
            web::resource(PATH).route(web::get().to(verify::<I>)).route(web::post().to(receive::<I>)),
        );
    }
}

/// `GET`: proves to Meta that this is whom it was told of.
async fn verify<I: Intake>(request: HttpRequest, hook: web::Data<Webhook<I>>) -> HttpResponse {
    let Ok(query) = web::Query::<Vec<(String, String)>>::from_query(request.query_string()) else {
        return plain(StatusCode::BAD_REQUEST, "the query cannot be read\n");
    };
    let last = |key: &str| query.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
    let (Some(mode), Some(token), Some(challenge)) =
        (last("hub.mode"), last("hub.verify_token"), last("hub.challenge"))
    else {
        return plain(StatusCode::BAD_REQUEST, "hub.mode, hub.verify_token and hub.challenge are needed\n");
    };
    if mode != "subscribe" {
        return plain(StatusCode::BAD_REQUEST, "hub.mode must be subscribe\n");
    }
    if challenge.len() > CHALLENGE_BYTES_MAX {
        return plain(StatusCode::BAD_REQUEST, "hub.challenge is too long\n");
    }
    let settings = hook.settings();
    if !settings.verify_token.as_deref().is_some_and(|expected| same_token(expected, token)) {
        return plain(StatusCode::FORBIDDEN, "the verify token is wrong\n");
    }
    let challenge = Bytes::copy_from_slice(challenge.as_bytes());
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(challenge)
}

/// Compares in constant time; digests, so that the length is no secret's either.
fn same_token(expected: &str, given: &str) -> bool {
    Sha256::digest(expected).ct_eq(&Sha256::digest(given)).into()
}

/// `POST`: what has happened on WhatsApp.
async fn receive<I: Intake>(
    request: HttpRequest,
    payload: web::Payload,
    hook: web::Data<Webhook<I>>,
) -> HttpResponse {
    let mut unread = UnreadBody::new(payload);
    match hook.handle(&request, &mut unread).await {
        Ok(()) => {
            count(&hook.counters.taken);
            HttpResponse::Ok().finish()
        }
        Err(refusal) => {
            count(refusal.counter(&hook.counters));
            tracing::debug!(reason = %refusal, "a webhook is refused");
            HttpResponse::build(refusal.status())
                .content_type("text/plain; charset=utf-8")
                .body(RefusalBody::new(format!("{refusal}\n"), unread))
        }
    }
}

/// Why a webhook as a whole is not answered 200.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("an encoded body is not taken")]
    Encoded,
    #[error("the body is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the body did not come in time")]
    TooSlow,
    #[error("the body ended early")]
    Broken,
    #[error("too many webhooks at once")]
    Overloaded,
    #[error(transparent)]
    Unsigned(#[from] SignatureError),
    #[error(transparent)]
    NotAnObject(#[from] NotAnObject),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken | Self::NotAnObject(_) => StatusCode::BAD_REQUEST,
            Self::Unsigned(_) => StatusCode::UNAUTHORIZED,
            Self::Overloaded | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn counter<'c>(&self, counters: &'c Counters) -> &'c AtomicU64 {
        match self {
            Self::Encoded => &counters.encoded,
            Self::TooLarge => &counters.too_large,
            Self::TooSlow => &counters.too_slow,
            Self::Broken => &counters.broken,
            Self::Overloaded => &counters.overloaded,
            Self::Unsigned(_) => &counters.unsigned,
            Self::NotAnObject(_) => &counters.not_an_object,
            Self::Unavailable(_) => &counters.unavailable,
        }
    }
}

impl<I: Intake> Webhook<I> {
    async fn handle(&self, request: &HttpRequest, unread: &mut UnreadBody) -> Result<(), Refusal> {
        let body = timeout(self.patience.body_within, self.read_body(request, unread))
            .await
            .map_err(|_| Refusal::TooSlow)??;
        let settings = self.settings();
        let matched = settings.numbers.secrets().check(only_header(request), &body.bytes)?;
        let translated = translate(&body.bytes, &settings.numbers, &matched)?;
        drop(body);
        let mut left_out = Vec::new();
        let updates: Vec<Update> = translated
            .into_iter()
            .filter_map(|update| update.map_err(|out| left_out.push(out)).ok())
            .collect();
        let submitted: Vec<(Part, Arc<Route>)> =
            updates.iter().map(|update| (part_of(&update.news), Arc::clone(&update.to))).collect();
        let fates = self.take(updates).await?;
        self.report(submitted.iter().zip(fates), left_out);
        Ok(())
    }

    async fn take(&self, updates: Vec<Update>) -> Result<Vec<Fate>, Unavailable> {
        if updates.is_empty() {
            return Ok(Vec::new());
        }
        timeout(self.patience.taken_within, self.intake.take(updates)).await.unwrap_or(Err(Unavailable))
    }

    /// Reads the body as it comes, byte for byte.
    async fn read_body(&self, request: &HttpRequest, unread: &mut UnreadBody) -> Result<Body<'_>, Refusal> {
        let headers = request.headers();
        if headers.get_all(header::CONTENT_ENCODING).any(|encoding| encoding != "identity") {
            return Err(Refusal::Encoded);
        }
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: usize| length > BODY_BYTES_MAX) {
            return Err(Refusal::TooLarge);
        }
        let reserved = announced.unwrap_or(0).min(BODY_RESERVED_BYTES);
        let from = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |from| one_peer(from.ip()));
        let mut body = Body { bytes: Vec::with_capacity(reserved), from, bodies: &self.bodies };
        while let Some(chunk) = unread.next().await {
            body.push(&chunk.map_err(|_| Refusal::Broken)?)?;
        }
        Ok(body)
    }

    /// Counts, and names in the log what nobody got.
    fn report<'s>(
        &self,
        fates: impl Iterator<Item = (&'s (Part, Arc<Route>), Fate)>,
        left_out: Vec<LeftOut>,
    ) {
        let mut lines: BTreeMap<(Part, &'static str, Option<Box<str>>), u64> = BTreeMap::new();
        for ((part, to), fate) in fates {
            let (counter, unheard) = self.counters.of_fate(*part, fate);
            count(counter);
            if let Some(reason) = unheard {
                *lines.entry((*part, reason, Some(to.number.as_str().into()))).or_default() += 1;
            }
        }
        for out in left_out {
            let (counter, reason) = self.counters.of_reason(out.reason);
            count(counter);
            *lines.entry((out.part, reason, out.phone_number_id)).or_default() += 1;
        }
        for ((part, reason, number), times) in lines.iter().take(LINES_PER_WEBHOOK_MAX) {
            tracing::warn!(?part, reason, number, times, "updates of a webhook are left out");
        }
    }
}

impl Counters {
    /// What counts a fate, and what to say of it where nobody gets the update.
    fn of_fate(&self, part: Part, fate: Fate) -> (&AtomicU64, Option<&'static str>) {
        match (fate, part) {
            (Fate::Recorded, Part::Message | Part::Contact) => (&self.messages, None),
            (Fate::Recorded, Part::Status | Part::StatusDetails) => (&self.statuses, None),
            (Fate::Recorded, Part::Echo) => (&self.echoes, None),
            (Fate::Recorded, Part::Change) => (&self.notices, None),
            (Fate::Known, _) => (&self.known, None),
            (Fate::Nowhere, _) => (&self.nowhere, Some("the number has no active channel")),
            (Fate::Refused, _) => (&self.refused, Some("the broker does not take it")),
        }
    }

    fn of_reason(&self, reason: Reason) -> (&AtomicU64, &'static str) {
        match reason {
            Reason::UnknownNumber => (&self.unknown_number, "the number is not known"),
            Reason::Unsupported(why) => (&self.unsupported, why),
            Reason::Malformed(why) => (&self.malformed, why),
            Reason::OverLimit(why) => (&self.over_limit, why),
        }
    }
}

fn part_of(news: &News) -> Part {
    match news {
        News::Message(_) => Part::Message,
        News::Status(_) | News::OfReply { .. } => Part::Status,
        News::Echo(_) => Part::Echo,
        News::Notice { .. } => Part::Change,
    }
}

/// The signature header, if it stands there exactly once.
fn only_header(request: &HttpRequest) -> Option<&[u8]> {
    let mut all = request.headers().get_all(SIGNATURE_HEADER);
    match (all.next(), all.next()) {
        (Some(only), None) => Some(only.as_bytes()),
        _ => None,
    }
}

fn plain(status: StatusCode, text: &'static str) -> HttpResponse {
    HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(text)
}

/// What all bodies hold, and those of each source address. There are no more addresses than connections.
#[derive(Debug, Default)]
struct Bodies {
    all: AtomicUsize,
    of: Mutex<HashMap<IpAddr, usize>>,
}

impl Bodies {
    fn of(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts so many bytes more; says whether that is too much, in all or of this address.
    fn add(&self, from: IpAddr, bytes: usize) -> bool {
        let all = self.all.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let mut of = self.of();
        let own = of.entry(from).or_default();
        *own += bytes;
        all > BODIES_BYTES_MAX || (all > BODIES_BYTES_MAX / 4 * 3 && *own > BODIES_BYTES_MAX / 4)
    }

    fn take(&self, from: IpAddr, bytes: usize) {
        self.all.fetch_sub(bytes, Ordering::Relaxed);
        let mut of = self.of();
        if let Some(own) = of.get_mut(&from) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                of.remove(&from);
            }
        }
    }
}

/// A body that is being read, counted against all of them.
struct Body<'a> {
    bytes: Vec<u8>,
    from: IpAddr,
    bodies: &'a Bodies,
}

impl Body<'_> {
    fn push(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        if self.bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        self.bytes.extend_from_slice(chunk);
        if self.bodies.add(self.from, chunk.len()) { Err(Refusal::Overloaded) } else { Ok(()) }
    }
}

impl Drop for Body<'_> {
    fn drop(&mut self) {
        self.bodies.take(self.from, self.bytes.len());
    }
}
