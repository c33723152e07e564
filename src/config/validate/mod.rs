//! Raw to valid. Collects every problem, so that one look is enough to mend a configuration.
//!
//! # Layout
//! - `mod.rs`: the sections of the file but its portals · `portals`: portals, with what stands in them
//! - `values`: one value of each kind

mod portals;
mod values;

use std::path::Path;
use std::time::Duration;

use super::raw::{self, Raw};
use super::{Config, Durability, Http, Journal, Limits, Media, Problem, Tcp, WhatsApp};

/// Shortest and longest `ack_timeout`: less ends honest adapters, more keeps dead ones.
const ACK_TIMEOUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
/// Shortest `retention` (contract: 1 s), and the longest: ten years.
const RETENTION: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_650 * 86_400));
/// Smallest `retention_bytes`: one segment.
const RETENTION_BYTES: (u64, u64) = (64 << 20, 1 << 50);
/// Fewest and most bytes of `recent_bytes_max`.
const RECENT_BYTES: (u64, u64) = (64 << 10, 1 << 30);
/// Fewest and most bytes of `dedup_bytes_max`: less could not hold a bucket of each of a few channels.
const DEDUP_BYTES: (u64, u64) = (16 << 20, 1 << 40);
/// Shortest and longest time that media are kept.
const CACHE_TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30 * 86_400));
/// Fewest and most bytes of media that are kept.
const CACHE_BYTES: (u64, u64) = (0, 1 << 40);
/// Shortest and longest `drain_timeout`.
const DRAIN_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));
/// Most `arbiters`: what is beyond serves the journal, the readers and the system.
const ARBITERS_MAX: usize = 8;

/// What was found wrong so far, and where secrets in files are looked for.
struct Problems<'p> {
    found: Vec<Problem>,
    beside: &'p Path,
}

pub(super) fn validate(raw: Raw, beside: &Path) -> Result<Config, Vec<Problem>> {
    let default = Config::default();
    let mut problems = Problems { found: Vec::new(), beside };
    let whatsapp = problems.whatsapp(raw.whatsapp, default.whatsapp);
    let tcp_guard = (raw.tcp.tls.is_some(), raw.tcp.insecure);
    let tcp_listen = problems.listen("tcp", raw.tcp.listen, default.tcp.listen, tcp_guard);
    let http_guard = (raw.http.tls.is_some(), raw.http.insecure);
    let http_listen = problems.listen("http", raw.http.listen, default.http.listen, http_guard);
    let tcp_tls = problems.tls("tcp", raw.tcp.tls.as_ref());
    let http_tls = problems.tls("http", raw.http.tls.as_ref());
    let ack_timeout =
        problems.duration("tcp.ack_timeout", raw.tcp.ack_timeout, default.tcp.ack_timeout, ACK_TIMEOUT);
    let admin_token = problems.secret(
        "http.admin_token_sha256",
        raw.http.admin_token_sha256,
        raw.http.admin_token_sha256_file,
    );
    let admin_token = admin_token.and_then(|hash| problems.hash("http.admin_token_sha256", hash.expose()));
    let journal = problems.journal(raw.journal, &default.journal);
    let limits = problems.limits(raw.limits, &default.limits);
    let public_url = problems.url("http.public_url", raw.http.public_url);
    let media = Media {
        cache_ttl: problems.duration(
            "media.cache_ttl",
            raw.media.cache_ttl,
            default.media.cache_ttl,
            CACHE_TTL,
        ),
        cache_bytes: problems.bytes(
            "media.cache_bytes",
            raw.media.cache_bytes,
            default.media.cache_bytes,
            CACHE_BYTES,
        ),
    };
    let portals = problems.portals(raw.portals, &whatsapp);
    if !problems.found.is_empty() {
        return Err(problems.found);
    }
    Ok(Config {
        data_dir: raw.data_dir.unwrap_or(default.data_dir),
        tcp: Tcp { listen: tcp_listen, ack_timeout, tls: tcp_tls },
        http: Http { listen: http_listen, public_url, admin_token, tls: http_tls },
        journal,
        limits,
        media,
        portals,
        whatsapp,
    })
}

impl Problems<'_> {
    fn journal(&mut self, raw: raw::Journal, default: &Journal) -> Journal {
        self.word("journal.engine", raw.engine, &[("embedded", ())], ());
        let words = [("fsync", Durability::Fsync), ("os", Durability::Os)];
        Journal {
            durability: self.word("journal.durability", raw.durability, &words, default.durability),
            retention: self.duration("journal.retention", raw.retention, default.retention, RETENTION),
            retention_bytes: self.bytes(
                "journal.retention_bytes",
                raw.retention_bytes,
                default.retention_bytes,
                RETENTION_BYTES,
            ),
        }
    }

    fn limits(&mut self, raw: raw::Limits, default: &Limits) -> Limits {
        let arbiters = raw.arbiters.unwrap_or(default.arbiters);
        if arbiters > ARBITERS_MAX {
            self.add("limits.arbiters", arbiters, format!("0 to {ARBITERS_MAX}"));
        }
        Limits {
            recent_bytes_max: self.bytes(
                "limits.recent_bytes_max",
                raw.recent_bytes_max,
                default.recent_bytes_max,
                RECENT_BYTES,
            ),
            dedup_bytes_max: self.bytes(
                "limits.dedup_bytes_max",
                raw.dedup_bytes_max,
                default.dedup_bytes_max,
                DEDUP_BYTES,
            ),
            drain_timeout: self.duration(
                "limits.drain_timeout",
                raw.drain_timeout,
                default.drain_timeout,
                DRAIN_TIMEOUT,
            ),
            arbiters,
            peer_connections_per_second: self.rate(
                "limits.peer_connections_per_second",
                raw.peer_connections_per_second,
                default.peer_connections_per_second,
            ),
            peer_failed_hellos_per_minute: self.rate(
                "limits.peer_failed_hellos_per_minute",
                raw.peer_failed_hellos_per_minute,
                default.peer_failed_hellos_per_minute,
            ),
            peer_http_connections: {
                let most = u32::try_from(default.peer_http_connections).unwrap_or(u32::MAX);
                let given = self.rate("limits.peer_http_connections", raw.peer_http_connections, most);
                usize::try_from(given).unwrap_or(usize::MAX)
            },
            trusted_peers: self.networks("limits.trusted_peers", raw.trusted_peers),
        }
    }

    fn whatsapp(&mut self, raw: raw::WhatsApp, default: WhatsApp) -> WhatsApp {
        let graph_url = self.url("whatsapp.graph_url", raw.graph_url).unwrap_or(default.graph_url);
        let access_token = self.secret("whatsapp.access_token", raw.access_token, raw.access_token_file);
        self.token("whatsapp.access_token", access_token.as_ref());
        WhatsApp {
            app_secret: self.secret("whatsapp.app_secret", raw.app_secret, raw.app_secret_file),
            verify_token: self.secret("whatsapp.verify_token", raw.verify_token, raw.verify_token_file),
            access_token,
            graph_url,
        }
    }
}
