//! Who may ask, and how much at once.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::timeout;

use super::call::Call;
use super::reply::Refused;
use super::unread::Unread;
use super::{ANSWERED_WITHIN, Answering, BODY_BYTES_MAX, BODY_WITHIN, Desk};

/// Lets a request through to `run`, or refuses it.
pub(super) async fn pass(
    desk: Arc<Desk>,
    request: HttpRequest,
    payload: web::Payload,
    run: fn(Call) -> Answering,
) -> HttpResponse {
    let mut unread = Unread::new(payload);
    let answer = match through(&desk, request, &mut unread, run).await {
        Ok(answer) => answer,
        Err(refused) => refused.response(unread),
    };
    desk.answers.count(answer.status());
    answer
}

async fn through(
    desk: &Arc<Desk>,
    request: HttpRequest,
    unread: &mut Unread,
    run: fn(Call) -> Answering,
) -> Result<HttpResponse, Refused> {
    admit(desk, &request)?;
    let _one_of_few = desk.calls.try_acquire().map_err(|_| Refused::overloaded())?;
    let body = timeout(BODY_WITHIN, unread.read(BODY_BYTES_MAX)).await.map_err(|_| Refused::too_slow())??;
    let answering = run(Call::new(Arc::clone(desk), request, body));
    timeout(ANSWERED_WITHIN, answering).await.unwrap_or_else(|_| Err(Refused::no_answer()))
}

/// Whether who asks has the token. Without a configured one nobody has.
fn admit(desk: &Desk, request: &HttpRequest) -> Result<(), Refused> {
    let Some(wanted) = desk.token() else { return Err(Refused::not_configured()) };
    let mut given = request.headers().get_all(header::AUTHORIZATION);
    let (Some(only), None) = (given.next(), given.next()) else { return Err(Refused::unauthenticated()) };
    let Some(token) = bearer(only.as_bytes()) else { return Err(Refused::unauthenticated()) };
    // Digests are compared, in constant time: neither its bytes nor its length can be guessed by the clock.
    if bool::from(Sha256::digest(token).ct_eq(&wanted[..])) {
        Ok(())
    } else {
        Err(Refused::unauthenticated())
    }
}

/// The token of a header; the scheme is written in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::bearer;

    #[test]
    fn a_bearer_token_is_all_behind_its_scheme() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Bearer "), Some(&b""[..]));
        for wrong in [&b"Basic abc"[..], b"abc", b"", b"Bearerabc"] {
            assert_eq!(bearer(wrong), None);
        }
    }
}
