//! Who asks: a bearer token, or `?access_token=`, to the service that it belongs to.
//!
//! **Invariants:** every configured token is compared, always and in constant time; tokens are known by their SHA-256
//! alone, and none stands in a log: nothing here logs, and nothing else sees the request's query.

use std::collections::BTreeSet;

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::Query;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::domain::ids::{PortalId, ServiceId};

/// The parameter that stands for the header, for programs that can not set one.
pub(super) const TOKEN_PARAMETER: &str = "access_token";

/// A service, by its portal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Who {
    pub(super) portal: PortalId,
    pub(super) service: ServiceId,
}

/// Whose token is whose.
#[derive(Debug, Default)]
pub(super) struct Tokens(Vec<([u8; 32], Who)>);

impl Tokens {
    pub(super) fn add(&mut self, sha256: [u8; 32], who: Who) {
        self.0.push((sha256, who));
    }

    /// Everybody who has a token.
    pub(super) fn everybody(&self) -> BTreeSet<&Who> {
        self.0.iter().map(|(_, who)| who).collect()
    }

    /// Everybody whose token it is: one, unless the same was given out in two portals.
    pub(super) fn owners(&self, token: &str) -> Vec<&Who> {
        let given: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut owners = Vec::new();
        for (known, who) in &self.0 {
            if bool::from(known.ct_eq(&given)) {
                owners.push(who);
            }
        }
        owners
    }
}

/// The token that a request brings.
pub(super) fn token_of(request: &HttpRequest) -> Option<String> {
    let from_header = request.headers().get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    from_header.or_else(|| {
        let query = Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?;
        query.into_inner().into_iter().rev().find(|(key, _)| key == TOKEN_PARAMETER).map(|(_, token)| token)
    })
}

/// The parameters of a request, without its token.
pub(super) fn parameters_of(request: &HttpRequest) -> Vec<(String, String)> {
    let query = Query::<Vec<(String, String)>>::from_query(request.query_string());
    let query = query.map(Query::into_inner).unwrap_or_default();
    query.into_iter().filter(|(key, _)| key != TOKEN_PARAMETER).collect()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_token_comes_in_the_header_or_as_a_parameter() {
        let of = |request: TestRequest| token_of(&request.to_http_request());
        let header =
            |value: &str| TestRequest::get().insert_header((header::AUTHORIZATION, value.to_owned()));
        assert_eq!(of(header("Bearer abc")).as_deref(), Some("abc"));
        assert_eq!(of(header("bearer abc")).as_deref(), Some("abc"));
        assert_eq!(of(header("Basic abc")), None);
        assert_eq!(of(TestRequest::get().uri("/x?a=b&access_token=a%2Fc")).as_deref(), Some("a/c"));
        assert_eq!(of(TestRequest::get()), None);
        let request = TestRequest::get().uri("/x?access_token=secret&fields=id").to_http_request();
        assert_eq!(parameters_of(&request), [("fields".to_owned(), "id".to_owned())]);
    }

    #[test]
    fn a_token_is_its_owners_alone() {
        let who = |service: &str| Who { portal: "acme".parse().unwrap(), service: service.parse().unwrap() };
        let mut tokens = Tokens::default();
        tokens.add(Sha256::digest(b"one").into(), who("crm"));
        tokens.add(Sha256::digest(b"two").into(), who("desk"));
        assert_eq!(tokens.owners("two"), [&who("desk")]);
        assert!(tokens.owners("three").is_empty() && tokens.owners("").is_empty());
    }
}
