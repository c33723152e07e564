//! `/`: the operator's page.
//!
//! Files that are part of the program, and nothing else: all that the page shows and does goes over the admin API with
//! the operator's token, which the page keeps for as long as its tab lives. So it shows a conversation only as a named
//! service would see it, like the API itself.
//!
//! # Layout
//! - `page/index.html`, `page/style.css`: the frame
//! - `page/app.js`: which view stands for which address, and when it is looked at again · `page/api.js`: calls
//! - `page/views.js`: what each view shows · `page/dom.js`: how elements are made
//!
//! # Invariants
//! - No page of another origin may load, frame or feed it: its policy lets in its own files alone, and no inline script.
//! - Text of customers and services becomes text nodes, never markup.

use actix_web::http::header;
use actix_web::{HttpResponse, web};

/// What the browser may do with the page: load its own files, ask its own origin, and nothing else.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One file of the page.
#[derive(Debug)]
pub struct Asset {
    /// Where it is.
    pub path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

/// All that the page is made of.
pub static ASSETS: &[Asset] = &[
    Asset { path: "/", content_type: "text/html; charset=utf-8", body: include_str!("page/index.html") },
    Asset {
        path: "/console/style.css",
        content_type: "text/css; charset=utf-8",
        body: include_str!("page/style.css"),
    },
    script("/console/api.js", include_str!("page/api.js")),
    script("/console/app.js", include_str!("page/app.js")),
    script("/console/dom.js", include_str!("page/dom.js")),
    script("/console/views.js", include_str!("page/views.js")),
    Asset { path: "/console/mark.svg", content_type: "image/svg+xml", body: include_str!("page/mark.svg") },
];

const fn script(path: &'static str, body: &'static str) -> Asset {
    Asset { path, content_type: "text/javascript; charset=utf-8", body }
}

/// Registers the page's files.
pub fn routes() -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    |config| {
        for asset in ASSETS {
            let answer = move || async move { asset.answer() };
            let resource =
                web::resource(asset.path).route(web::get().to(answer)).route(web::head().to(answer));
            config.service(resource);
        }
    }
}

impl Asset {
    fn answer(&self) -> HttpResponse {
        HttpResponse::Ok()
            .content_type(self.content_type)
            // A newer program has newer files under the same names.
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((header::REFERRER_POLICY, "no-referrer"))
            .body(self.body)
    }
}
