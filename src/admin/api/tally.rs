//! How often calls were answered with which status.

use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::http::StatusCode;

/// Every status that a call may be answered with.
const STATUSES: [StatusCode; 10] = [
    StatusCode::OK,
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::CONFLICT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Answers([AtomicU64; STATUSES.len()]);

impl Answers {
    pub(super) fn count(&self, status: StatusCode) {
        let found = STATUSES.iter().zip(&self.0).find(|(known, _)| **known == status);
        debug_assert!(found.is_some(), "{status} has no count");
        if let Some((_, count)) = found {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> Vec<(u16, u64)> {
        let counts = STATUSES.iter().zip(&self.0);
        counts.map(|(status, count)| (status.as_u16(), count.load(Ordering::Relaxed))).collect()
    }
}
