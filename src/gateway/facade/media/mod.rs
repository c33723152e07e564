//! Media: what a view of a service's own showed, or what it uploaded itself, proxied with the number's access token.
//!
//! ```text
//! GET /vN.N/{id} ─▶ shown? ─▶ the Graph API's word on it, its `url` exchanged for one of the broker's
//! GET that url   ─▶ signature or token ─▶ shown? ─▶ cache ─▶ WhatsApp
//! ```
//!
//! # Layout
//! - `shown`: which media a service may fetch · `watch`: finding out, from what the service is shown
//! - `link`: addresses that carry their own permission · `cache`: what was fetched, for a while, on disk
//! - `serve`: the requests

mod cache;
mod link;
mod serve;
mod shown;
mod watch;

pub(super) use self::cache::Cache;
pub(super) use self::link::{Links, PATH as LINK_PATH};
pub(super) use self::serve::{UPLOADS_AT_ONCE_MAX, fetch_link};
pub(super) use self::shown::{KINDS as MEDIA_KINDS, Shown, media_of};
pub(super) use self::watch::Watches;
