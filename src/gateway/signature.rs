//! Meta's signature on a webhook: `X-Hub-Signature-256: sha256=<hex of HMAC-SHA256(app secret, body)>`.
//!
//! Stands before everything else that reads a webhook: what is not signed is not parsed. The MAC is over the bytes
//! as they came, never over anything decoded or written anew.
//!
//! # Invariants
//! - Every configured secret is tried, always and to the end, and MACs are compared in constant time: how long it
//!   takes says nothing about which secret matched, or how far.
//! - Secrets show themselves nowhere: they are kept as keyed MAC states, and `Debug` hides even those.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use super::text::{bytes_of, hex};

/// The header's name.
pub const SIGNATURE_HEADER: &str = "x-hub-signature-256";
/// What the header's value begins with; other schemes (`sha1=`) and other spellings are refused.
const SCHEME: &[u8] = b"sha256=";
/// Length of an HMAC-SHA256, in bytes.
const MAC_BYTES: usize = 32;

/// Why a webhook is taken for a forgery. Says nothing about secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is no header, or more than one.
    #[error("the signature header is missing")]
    Missing,
    /// The header is not `sha256=` and 64 lower-case hexadecimal digits.
    #[error("the signature header is not sha256= and 64 lower-case hexadecimal digits")]
    Malformed,
    /// No configured secret signs these bytes so.
    #[error("the signature is wrong")]
    Wrong,
}

/// Names one secret of a [`Secrets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretId(usize);

/// The app secrets that may sign webhooks, each once.
#[derive(Clone, Default)]
pub struct Secrets {
    keyed: Vec<Hmac<Sha256>>,
    /// A digest of each secret, to find equal ones.
    known: Vec<[u8; MAC_BYTES]>,
}

impl Secrets {
    /// Adds a secret; one that is there already keeps its id, so that it is tried once.
    pub fn add(&mut self, secret: &[u8]) -> SecretId {
        let keyed = mac_keyed_with(secret);
        let digest: [u8; MAC_BYTES] = keyed.clone().finalize().into_bytes().into();
        if let Some(index) = self.known.iter().position(|known| *known == digest) {
            return SecretId(index);
        }
        self.keyed.push(keyed);
        self.known.push(digest);
        SecretId(self.keyed.len() - 1)
    }

    /// Which secrets sign `body` as `header` says: one at least.
    ///
    /// # Errors
    /// When the header is missing or malformed, or no secret matches.
    pub fn check(&self, header: Option<&[u8]>, body: &[u8]) -> Result<Matched, SignatureError> {
        let given = read_header(header.ok_or(SignatureError::Missing)?).ok_or(SignatureError::Malformed)?;
        let mut any = Choice::from(0);
        let mut matched = Vec::with_capacity(self.keyed.len());
        for keyed in &self.keyed {
            let mac: [u8; MAC_BYTES] = keyed.clone().chain_update(body).finalize().into_bytes().into();
            let same = mac.ct_eq(&given);
            any |= same;
            matched.push(same.into());
        }
        if any.into() { Ok(Matched(matched)) } else { Err(SignatureError::Wrong) }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} secrets>", self.keyed.len())
    }
}

/// The secrets that matched; an update counts only for numbers of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched(Vec<bool>);

impl Matched {
    /// Whether this secret did.
    #[must_use]
    pub fn has(&self, secret: SecretId) -> bool {
        self.0.get(secret.0).copied().unwrap_or(false)
    }
}

/// The header's value for a body: what Meta would send.
#[must_use]
pub fn sign(secret: &[u8], body: &[u8]) -> String {
    let mac = mac_keyed_with(secret).chain_update(body).finalize().into_bytes();
    format!("sha256={}", hex(&mac))
}

fn mac_keyed_with(secret: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    Hmac::new_from_slice(secret).expect("HMAC takes keys of any length")
}

fn read_header(value: &[u8]) -> Option<[u8; MAC_BYTES]> {
    bytes_of(value.strip_prefix(SCHEME)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(all: &[&str]) -> (Secrets, Vec<SecretId>) {
        let mut secrets = Secrets::default();
        let ids = all.iter().map(|secret| secrets.add(secret.as_bytes())).collect();
        (secrets, ids)
    }

    /// RFC 4231, test case 2: the MAC comes from elsewhere, not from the code under test.
    #[test]
    fn a_signature_made_elsewhere_is_accepted() {
        let (secrets, ids) = secrets(&["Jefe"]);
        let header = b"sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let matched = secrets.check(Some(header), b"what do ya want for nothing?").unwrap();
        assert!(matched.has(ids[0]));
        assert_eq!(sign(b"Jefe", b"what do ya want for nothing?").as_bytes(), header);
    }

    #[test]
    fn says_which_secrets_match_and_equal_ones_are_one() {
        let (secrets, ids) = secrets(&["one", "two", "one"]);
        assert_eq!(ids[0], ids[2]);
        let matched = secrets.check(Some(sign(b"two", b"{}").as_bytes()), b"{}").unwrap();
        assert!(!matched.has(ids[0]));
        assert!(matched.has(ids[1]));
    }

    #[test]
    fn what_is_not_exactly_the_header_is_refused() {
        let (secrets, _) = secrets(&["one", "two"]);
        let right = sign(b"one", b"{}");
        assert!(secrets.check(Some(right.as_bytes()), b"{}").is_ok());
        let hex = &right["sha256=".len()..];
        let refused: &[(String, SignatureError)] = &[
            (String::new(), SignatureError::Malformed),
            ("sha256=".to_owned(), SignatureError::Malformed),
            (hex.to_owned(), SignatureError::Malformed),
            (format!("SHA256={hex}"), SignatureError::Malformed),
            (format!("sha1={}", &hex[..40]), SignatureError::Malformed),
            (format!("sha1={hex}"), SignatureError::Malformed),
            (format!("sha256={}", hex.to_uppercase()), SignatureError::Malformed),
            (format!("sha256={}", &hex[..62]), SignatureError::Malformed),
            (format!("sha256={hex}00"), SignatureError::Malformed),
            (format!(" {right}"), SignatureError::Malformed),
            (format!("sha256=zz{}", &hex[2..]), SignatureError::Malformed),
            (sign(b"three", b"{}"), SignatureError::Wrong),
            (sign(b"one", b"{} "), SignatureError::Wrong),
        ];
        for (header, why) in refused {
            assert_eq!(secrets.check(Some(header.as_bytes()), b"{}"), Err(*why), "{header}");
        }
        assert_eq!(secrets.check(None, b"{}"), Err(SignatureError::Missing));
    }

    #[test]
    fn without_secrets_nothing_is_signed() {
        let secrets = Secrets::default();
        assert_eq!(secrets.check(Some(sign(b"", b"{}").as_bytes()), b"{}"), Err(SignatureError::Wrong));
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        let (secrets, _) = secrets(&["hush"]);
        assert_eq!(format!("{secrets:?}"), "<1 secrets>");
    }
}
