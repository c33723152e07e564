//! Addresses of media that carry their own permission, for programs that fetch them without a token.
//!
//! A link is one service's, for one of its media, for as long as WhatsApp's own are good. Its key is made at the start of
//! the process: after a restart a program asks for a new link, as it does when one has run out.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::ids::{PortalId, ServiceId};
use crate::gateway::facade::auth::Who;
use crate::gateway::text::{bytes_of, hex};

/// Where links lead.
pub(in crate::gateway::facade) const PATH: &str = "/facade/media/{id}";
/// How long a link is good, in milliseconds: 5 minutes, as WhatsApp's.
const GOOD_MS: u64 = 300_000;
/// Length of an HMAC-SHA256, in bytes.
const MAC_BYTES: usize = 32;

/// What signs links.
pub(in crate::gateway::facade) struct Links(Hmac<Sha256>);

impl Links {
    /// With a new key.
    pub(in crate::gateway::facade) fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        Ok(Self(Hmac::new_from_slice(&key).expect("HMAC takes keys of any length")))
    }

    /// The address, behind the broker's own.
    pub(super) fn to(&self, who: &Who, media_id: &str, now_ms: u64) -> String {
        let until = now_ms.saturating_add(GOOD_MS);
        let mac = self.mac(who, media_id, until).finalize().into_bytes();
        let signature = hex(&mac);
        let (portal, service) = (&who.portal, &who.service);
        format!(
            "/facade/media/{media_id}?portal={portal}&service={service}&until={until}&signature={signature}"
        )
    }

    /// Whose link it is, where it is one and still good.
    pub(super) fn owner(&self, parameters: &[(String, String)], media_id: &str, now_ms: u64) -> Option<Who> {
        let of = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let who = Who {
            portal: of("portal")?.parse::<PortalId>().ok()?,
            service: of("service")?.parse::<ServiceId>().ok()?,
        };
        let until: u64 = of("until")?.parse().ok()?;
        let signature: [u8; MAC_BYTES] = bytes_of(of("signature")?.as_bytes())?;
        // In constant time.
        self.mac(&who, media_id, until).verify_slice(&signature).ok()?;
        (now_ms < until).then_some(who)
    }

    fn mac(&self, who: &Who, media_id: &str, until: u64) -> Hmac<Sha256> {
        let parts = [who.portal.as_str(), who.service.as_str(), media_id, &until.to_string()];
        parts.iter().fold(self.0.clone(), |mac, part| mac.chain_update(part.as_bytes()).chain_update([0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_good_for_its_service_its_media_and_five_minutes() {
        let links = Links::new().unwrap();
        let who = Who { portal: "acme".parse().unwrap(), service: "bot".parse().unwrap() };
        let link = links.to(&who, "123", 1_000);
        let query = link.split_once('?').unwrap().1;
        let read = |query: &str| -> Vec<(String, String)> {
            let pair =
                |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
            query.split('&').filter_map(pair).collect()
        };
        assert_eq!(links.owner(&read(query), "123", 1_000 + GOOD_MS - 1), Some(who));
        assert_eq!(links.owner(&read(query), "123", 1_000 + GOOD_MS), None);
        assert_eq!(links.owner(&read(query), "124", 1_000), None);
        assert_eq!(links.owner(&read(&query.replace("bot", "crm")), "123", 1_000), None);
        assert_eq!(links.owner(&read(&query.replace("until=3", "until=4")), "123", 1_000), None);
        assert_eq!(links.owner(&read(""), "123", 1_000), None);
        assert_eq!(Links::new().unwrap().owner(&read(query), "123", 1_000), None, "another process's");
    }
}
