//! Raw to valid. Collects every problem, so that one look is enough to mend a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::network::Network;
use super::raw::{self, OneOrMany, Raw};
use super::tls::{self, Tls};
use super::value::{Secret, TokenHash, bytes, bytes_text, duration, duration_text};
use super::{
    Callback, Config, Durability, Http, Journal, Limits, MASKED_ECHO_TEXT_DEFAULT,
    MESSAGES_PER_SECOND_DEFAULT, MaskedEcho, Media, NumberConfig, Portal, Problem, SEND_TTL_DEFAULT, Tcp,
    Way, WhatsApp,
};
use crate::domain::event::Agent;
use crate::domain::ids::{GatewayId, NAME_BYTES_MAX, Number, PortalId, ServiceId};
use crate::domain::outbox::turns::{WEIGHT_DEFAULT, WEIGHT_MAX};
use crate::domain::portal::{
    BotWhenClaimed, PickUpRule, Plan, PortalRules, ROSTER_AGENTS_MAX, RosterSource, ServiceRules,
};
use crate::domain::view::Masking;

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
/// Longest `thread_role`, in bytes: as long as an id.
const THREAD_ROLE_BYTES_MAX: usize = 64;
/// Longest `masked_echo_text`, in bytes: WhatsApp's own longest text.
const MASKED_ECHO_TEXT_BYTES_MAX: usize = 4_096;
/// Shortest and longest `drain_timeout`.
const DRAIN_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));
/// Most `arbiters`: what is beyond serves the journal, the readers and the system.
const ARBITERS_MAX: usize = 8;
/// Most of what one source address may be allowed in a second or a minute.
const PEER_RATE_MAX: u32 = 1_000_000;
/// Shortest and longest time to live of a claim or of a waiting reply.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(365 * 86_400));

/// A service's rules, its tokens, the agents that stand in the file, and where it is told by HTTP.
type Service = (ServiceRules, Vec<TokenHash>, Vec<Agent>, Option<Callback>);

/// What was found wrong so far, and where secrets in files are looked for.
struct Problems<'p> {
    found: Vec<Problem>,
    beside: &'p Path,
}

/// Where each number and each of Meta's ids stands already, over all portals.
#[derive(Default)]
struct Known {
    numbers: BTreeMap<Number, String>,
    phone_number_ids: BTreeMap<String, String>,
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
    fn add(&mut self, key: impl Into<String>, value: impl Display, accepted: impl Into<String>) {
        self.found.push(Problem { key: key.into(), value: value.to_string(), accepted: accepted.into() });
    }

    fn quoted(&mut self, key: impl Into<String>, value: &str, accepted: impl Into<String>) {
        self.add(key, format!("{value:?}"), accepted);
    }

    fn duration(
        &mut self,
        key: &str,
        text: Option<String>,
        default: Duration,
        (least, most): (Duration, Duration),
    ) -> Duration {
        let Some(text) = text else { return default };
        match duration(&text).filter(|read| (least..=most).contains(read)) {
            Some(read) => read,
            None => {
                let range = format!("{} to {}", duration_text(least), duration_text(most));
                self.quoted(key, &text, format!("a duration from {range}, as 500ms, 60s, 30m, 1h or 7d"));
                default
            }
        }
    }

    fn bytes(&mut self, key: &str, text: Option<String>, default: u64, (least, most): (u64, u64)) -> u64 {
        let Some(text) = text else { return default };
        match bytes(&text).filter(|read| (least..=most).contains(read)) {
            Some(read) => read,
            None => {
                let range = format!("{} to {}", bytes_text(least), bytes_text(most));
                self.quoted(key, &text, format!("a size from {range}, as 4096, 64KiB, 4MiB or 64GiB"));
                default
            }
        }
    }

    /// An address that can be called; never shown whole, since it may hold a password.
    fn url(&mut self, key: &str, text: Option<String>) -> Option<String> {
        let text = text?;
        let can_be_called = reqwest::Url::parse(&text)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !can_be_called {
            let value = format!("<{} characters>", text.chars().count());
            self.add(key, value, "a URL that begins with https:// or http://");
        }
        Some(text)
    }

    fn word<T: Copy>(&mut self, key: &str, text: Option<String>, words: &[(&str, T)], default: T) -> T {
        let Some(text) = text else { return default };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => *value,
            None => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                self.quoted(key, &text, words.join(", "));
                default
            }
        }
    }

    fn id<T: FromStr<Err = crate::domain::ids::IdError>>(&mut self, key: String, text: &str) -> Option<T> {
        match text.parse() {
            Ok(id) => Some(id),
            Err(error) => {
                self.quoted(key, text, error.to_string());
                None
            }
        }
    }

    /// A secret, in place or in a file of its own.
    fn secret(&mut self, key: &str, inline: Option<String>, file: Option<PathBuf>) -> Option<Secret> {
        match (inline, file) {
            (Some(_), Some(_)) => {
                self.add(format!("{key}_file"), "<given twice>", format!("either {key} or {key}_file"));
                None
            }
            (Some(secret), None) => {
                if secret.is_empty() {
                    self.add(key, "<empty>", "something, or no such key");
                }
                Some(Secret::new(secret))
            }
            (None, Some(file)) => {
                let path = self.beside.join(&file);
                match std::fs::read_to_string(&path) {
                    Ok(text) if !text.trim_end_matches(['\r', '\n']).is_empty() => {
                        Some(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
                    }
                    Ok(_) => {
                        self.quoted(
                            format!("{key}_file"),
                            &file.display().to_string(),
                            "a file that is not empty",
                        );
                        None
                    }
                    Err(error) => {
                        let accepted = format!("a file that can be read ({error})");
                        self.quoted(format!("{key}_file"), &file.display().to_string(), accepted);
                        None
                    }
                }
            }
            (None, None) => None,
        }
    }

    fn hash(&mut self, key: &str, text: &str) -> Option<TokenHash> {
        match text.parse() {
            Ok(hash) => Some(hash),
            Err(accepted) => {
                self.add(key, format!("<{} characters>", text.chars().count()), accepted);
                None
            }
        }
    }

    fn hashes(&mut self, key: &str, inline: Option<OneOrMany>, file: Option<PathBuf>) -> Vec<TokenHash> {
        let texts = match (inline, file) {
            (Some(inline), None) => inline.into_vec(),
            (inline, file) => {
                let inline = inline.map(|_| String::new());
                let secret = self.secret(key, inline, file);
                secret.map(|secret| secret.expose().lines().map(str::to_owned).collect()).unwrap_or_default()
            }
        };
        texts
            .iter()
            .enumerate()
            .filter_map(|(at, text)| self.hash(&format!("{key}[{at}]"), text.trim()))
            .collect()
    }

    fn listen(
        &mut self,
        section: &str,
        text: Option<String>,
        default: SocketAddr,
        (has_tls, insecure): (bool, Option<bool>),
    ) -> SocketAddr {
        let key = format!("{section}.listen");
        let address = match text.as_ref().map(|text| text.parse::<SocketAddr>()) {
            None => default,
            Some(Ok(address)) => address,
            Some(Err(_)) => {
                self.quoted(
                    key,
                    text.as_deref().unwrap_or_default(),
                    "an address and a port, as 127.0.0.1:7411",
                );
                return default;
            }
        };
        if !address.ip().is_loopback() && !has_tls && insecure != Some(true) {
            let accepted = format!(
                "an address of this machine alone (127.0.0.1, [::1]), or {section}.tls = {{ cert, key }}, or \
                 {section}.insecure = true: tokens and messages would travel in plain text"
            );
            self.add(key, address, accepted);
        }
        address
    }

    fn tls(&mut self, section: &str, raw: Option<&raw::Tls>) -> Option<Tls> {
        match tls::read(section, raw?, self.beside) {
            Ok(tls) => Some(tls),
            Err(problems) => {
                self.found.extend(problems);
                None
            }
        }
    }

    fn rate(&mut self, key: &str, given: Option<u32>, default: u32) -> u32 {
        let rate = given.unwrap_or(default);
        if rate > PEER_RATE_MAX {
            self.add(key, rate, format!("0 to {PEER_RATE_MAX}; 0: without limit"));
        }
        rate
    }

    fn networks(&mut self, key: &str, raw: Option<OneOrMany>) -> Vec<Network> {
        let texts = raw.map(OneOrMany::into_vec).unwrap_or_default();
        let mut networks = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            match text.parse() {
                Ok(network) => networks.push(network),
                Err(accepted) => self.quoted(format!("{key}[{at}]"), text, accepted),
            }
        }
        networks
    }

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
        let graph_url = raw.graph_url.unwrap_or(default.graph_url);
        let is_url = reqwest::Url::parse(&graph_url)
            .is_ok_and(|url| matches!(url.scheme(), "https" | "http") && url.host().is_some());
        if !is_url {
            self.quoted("whatsapp.graph_url", &graph_url, "a URL that begins with https:// or http://");
        }
        let access_token = self.secret("whatsapp.access_token", raw.access_token, raw.access_token_file);
        self.token("whatsapp.access_token", access_token.as_ref());
        WhatsApp {
            app_secret: self.secret("whatsapp.app_secret", raw.app_secret, raw.app_secret_file),
            verify_token: self.secret("whatsapp.verify_token", raw.verify_token, raw.verify_token_file),
            access_token,
            graph_url,
        }
    }

    fn portals(&mut self, raw: Vec<raw::Portal>, whatsapp: &WhatsApp) -> Vec<Portal> {
        let mut ids = BTreeSet::new();
        let mut numbers = Known::default();
        let mut portals = Vec::new();
        for (at, portal) in raw.into_iter().enumerate() {
            let key = format!("portals[{at}]");
            let id: Option<PortalId> = self.id(format!("{key}.id"), &portal.id);
            if id.as_ref().is_some_and(|id| !ids.insert(id.clone())) {
                self.quoted(format!("{key}.id"), &portal.id, "an id that no other portal has");
            }
            portals.extend(self.portal(&key, id, portal, whatsapp, &mut numbers));
        }
        portals
    }

    fn portal(
        &mut self,
        key: &str,
        id: Option<PortalId>,
        raw: raw::Portal,
        whatsapp: &WhatsApp,
        known: &mut Known,
    ) -> Option<Portal> {
        let plans = [("bundle", Plan::Bundle), ("isolated", Plan::Isolated)];
        let plan = self.word(&format!("{key}.plan"), raw.plan, &plans, Plan::Bundle);
        let sources = [("adapter", RosterSource::Adapter), ("config", RosterSource::Config)];
        let rosters = self.word(&format!("{key}.rosters"), raw.rosters, &sources, RosterSource::Adapter);
        let mut tokens = BTreeMap::new();
        let mut services = Vec::new();
        let mut service_tokens: Vec<(ServiceId, Vec<TokenHash>)> = Vec::new();
        let mut fixed_rosters = BTreeMap::new();
        let mut callbacks = Vec::new();
        let mut thread_roles: Vec<(ServiceId, String)> = Vec::new();
        for (at, mut service) in raw.services.into_iter().enumerate() {
            let key = format!("{key}.services[{at}]");
            let role = self.thread_role(&key, service.thread_role.take(), &thread_roles);
            let Some((rules, hashes, agents, callback)) = self.service(&key, service, rosters) else {
                continue;
            };
            callbacks.extend(callback.map(|callback| (rules.service.clone(), callback)));
            thread_roles.extend(role.map(|role| (rules.service.clone(), role)));
            self.one_identity(&key, &hashes, &mut tokens);
            if service_tokens.iter().any(|(known, _)| *known == rules.service) {
                self.quoted(
                    format!("{key}.id"),
                    rules.service.as_str(),
                    "an id that no other service of the portal has",
                );
            }
            service_tokens.push((rules.service.clone(), hashes));
            fixed_rosters.insert(rules.service.clone(), agents);
            services.push(rules);
        }
        let mut gateways: Vec<(GatewayId, Vec<TokenHash>)> = Vec::new();
        for (at, gateway) in raw.gateways.into_iter().enumerate() {
            let key = format!("{key}.gateways[{at}]");
            let token_key = format!("{key}.token_sha256");
            let hashes = self.hashes(&token_key, gateway.token_sha256, gateway.token_sha256_file);
            self.one_identity(&key, &hashes, &mut tokens);
            let Some(id) = self.id::<GatewayId>(format!("{key}.id"), &gateway.id) else { continue };
            if id.as_str() == "builtin" || gateways.iter().any(|(known, _)| *known == id) {
                let accepted = "an id that no other gateway of the portal has, and not builtin";
                self.quoted(format!("{key}.id"), id.as_str(), accepted);
            }
            gateways.push((id, hashes));
        }
        let mut numbers = Vec::new();
        for (at, number) in raw.numbers.into_iter().enumerate() {
            let key = format!("{key}.numbers[{at}]");
            let Some(number) = self.number(&key, number, &gateways, whatsapp) else { continue };
            if let Some(id) = &number.phone_number_id
                && let Some(other) = known.phone_number_ids.insert(id.clone(), key.clone())
            {
                let accepted = format!("an id that stands nowhere else ({other} has it)");
                self.quoted(format!("{key}.phone_number_id"), id, accepted);
            }
            if let Some(other) = known.numbers.insert(number.number.clone(), key.clone()) {
                let accepted = format!("a number that stands nowhere else ({other} has it)");
                self.quoted(format!("{key}.number"), number.number.as_str(), accepted);
            }
            numbers.push(number);
        }
        let rules = PortalRules { portal: id?, plan, rosters, services, fixed_rosters };
        Some(Portal { rules, service_tokens, callbacks, thread_roles, gateways, numbers })
    }

    /// A role is one service's: a thread that is passed to it has one way to go.
    fn thread_role(
        &mut self,
        key: &str,
        role: Option<String>,
        known: &[(ServiceId, String)],
    ) -> Option<String> {
        let (key, role) = (format!("{key}.thread_role"), role?);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
        if role.is_empty() || role.len() > THREAD_ROLE_BYTES_MAX || !role.chars().all(is_plain) {
            self.quoted(key, &role, "1 to 64 of A-Z a-z 0-9 . _ : -");
            return None;
        }
        if known.iter().any(|(_, other)| *other == role) {
            self.quoted(key, &role, "a role that no other service of the portal has");
            return None;
        }
        Some(role)
    }

    /// The same token for two would let one speak for the other.
    fn one_identity(&mut self, key: &str, hashes: &[TokenHash], known: &mut BTreeMap<[u8; 32], String>) {
        for (at, hash) in hashes.iter().enumerate() {
            if let Some(other) = known.insert(hash.bytes(), key.to_owned()) {
                let accepted = format!("a token that stands nowhere else ({other} has it)");
                self.add(format!("{key}.token_sha256[{at}]"), "<sha256>", accepted);
            }
        }
    }

    fn service(&mut self, key: &str, raw: raw::Service, rosters: RosterSource) -> Option<Service> {
        let callback = self.callback(key, raw.webhook, raw.masked_echo, raw.masked_echo_text);
        let id: Option<ServiceId> = self.id(format!("{key}.id"), &raw.id);
        let hashes = self.hashes(&format!("{key}.token_sha256"), raw.token_sha256, raw.token_sha256_file);
        let masking = [("broker", Masking::Broker), ("service", Masking::Service)];
        let pick_up = [
            ("exclusive", PickUpRule::Exclusive),
            ("takeover", PickUpRule::Takeover),
            ("open", PickUpRule::Open),
        ];
        let bot = [("send", BotWhenClaimed::Send), ("refuse", BotWhenClaimed::Refuse)];
        let claim_ttl_ms = raw.claim_ttl.is_some().then(|| {
            let ttl = self.duration(&format!("{key}.claim_ttl"), raw.claim_ttl, TTL.0, TTL);
            u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
        });
        let masking = self.word(&format!("{key}.masking"), raw.masking, &masking, Masking::Broker);
        let pick_up = self.word(&format!("{key}.pick_up"), raw.pick_up, &pick_up, PickUpRule::Exclusive);
        let bot_when_claimed =
            self.word(&format!("{key}.bot_when_claimed"), raw.bot_when_claimed, &bot, BotWhenClaimed::Send);
        let weight = raw.weight.unwrap_or(WEIGHT_DEFAULT);
        if !(1..=WEIGHT_MAX).contains(&weight) {
            self.add(format!("{key}.weight"), weight, format!("1 to {WEIGHT_MAX}"));
        }
        if raw.agents.is_some() && rosters == RosterSource::Adapter {
            self.add(
                format!("{key}.agents"),
                "<given>",
                "no agents here, or rosters = \"config\" in the portal",
            );
        }
        let agents = self.agents(key, raw.agents.unwrap_or_default());
        let service = id?;
        let family = raw.family.unwrap_or_else(|| service.as_str().to_owned());
        Some((
            ServiceRules { service, family, masking, pick_up, claim_ttl_ms, bot_when_claimed, weight },
            hashes,
            agents,
            callback,
        ))
    }

    fn callback(
        &mut self,
        key: &str,
        webhook: Option<raw::Webhook>,
        masked_echo: Option<String>,
        text: Option<String>,
    ) -> Option<Callback> {
        let words = [("echo", MaskedEcho::Echo), ("standby", MaskedEcho::Standby), ("off", MaskedEcho::Off)];
        let masked_echo = self.word(&format!("{key}.masked_echo"), masked_echo, &words, MaskedEcho::Echo);
        let masked_echo_text = text.unwrap_or_else(|| MASKED_ECHO_TEXT_DEFAULT.to_owned());
        if masked_echo_text.is_empty() || masked_echo_text.len() > MASKED_ECHO_TEXT_BYTES_MAX {
            let value = format!("<{} bytes>", masked_echo_text.len());
            self.add(format!("{key}.masked_echo_text"), value, "1 to 4096 bytes");
        }
        let webhook = webhook?;
        if webhook.url.is_none() {
            self.add(format!("{key}.webhook.url"), "<missing>", "where the service is told");
        }
        let url = self.url(&format!("{key}.webhook.url"), webhook.url);
        let secret_key = format!("{key}.webhook.app_secret");
        let is_missing = webhook.app_secret.is_none() && webhook.app_secret_file.is_none();
        if is_missing {
            self.add(secret_key.clone(), "<missing>", "what signs what the service is told");
        }
        let app_secret = self.secret(&secret_key, webhook.app_secret, webhook.app_secret_file);
        Some(Callback { url: url?, app_secret: app_secret?, masked_echo, masked_echo_text })
    }

    fn agents(&mut self, key: &str, raw: Vec<raw::Agent>) -> Vec<Agent> {
        if raw.len() > ROSTER_AGENTS_MAX {
            self.add(format!("{key}.agents"), raw.len(), format!("at most {ROSTER_AGENTS_MAX} agents"));
        }
        let mut agents: Vec<Agent> = Vec::new();
        for (at, one) in raw.into_iter().enumerate() {
            let key = format!("{key}.agents[{at}]");
            if one.name.is_empty() || one.name.len() > NAME_BYTES_MAX {
                self.add(format!("{key}.name"), format!("<{} bytes>", one.name.len()), "1 to 256 bytes");
            }
            let Some(agent) = self.id(format!("{key}.agent"), &one.agent) else { continue };
            if agents.iter().any(|known| known.agent == agent) {
                self.quoted(format!("{key}.agent"), &one.agent, "an agent that does not stand there twice");
            }
            agents.push(Agent { agent, name: one.name.into(), lead: one.lead });
        }
        agents
    }

    fn number(
        &mut self,
        key: &str,
        raw: raw::Number,
        gateways: &[(GatewayId, Vec<TokenHash>)],
        whatsapp: &WhatsApp,
    ) -> Option<NumberConfig> {
        let number: Option<Number> = self.id(format!("{key}.number"), &raw.number);
        let app_secret = self.secret(&format!("{key}.app_secret"), raw.app_secret, raw.app_secret_file);
        let access_token =
            self.secret(&format!("{key}.access_token"), raw.access_token, raw.access_token_file);
        self.token(&format!("{key}.access_token"), access_token.as_ref());
        let way = match raw.gateway.as_deref() {
            Some("builtin") => Way::Builtin,
            Some(named) => match gateways.iter().find(|(id, _)| id.as_str() == named) {
                Some((id, _)) => Way::Tcp(id.clone()),
                None => {
                    self.quoted(format!("{key}.gateway"), named, "builtin, or a gateway of the same portal");
                    Way::None
                }
            },
            None if whatsapp.access_token.is_some() => Way::Builtin,
            None => match gateways {
                [(only, _)] => Way::Tcp(only.clone()),
                _ => Way::None,
            },
        };
        let phone_number_id = raw.phone_number_id;
        if let Some(id) = &phone_number_id
            && (id.is_empty() || id.len() > 32 || !id.bytes().all(|byte| byte.is_ascii_digit()))
        {
            self.quoted(format!("{key}.phone_number_id"), id, "1 to 32 digits, as Meta gives them");
        }
        if way == Way::Builtin {
            self.built_in(key, phone_number_id.is_some(), access_token.as_ref(), whatsapp);
        }
        if let Some(id) = &raw.waba_id
            && (id.is_empty() || id.len() > 32 || !id.bytes().all(|byte| byte.is_ascii_digit()))
        {
            self.quoted(format!("{key}.waba_id"), id, "1 to 32 digits, as Meta gives them");
        }
        let messages_per_second = raw.messages_per_second.unwrap_or(MESSAGES_PER_SECOND_DEFAULT);
        if !(1..=10_000).contains(&messages_per_second) {
            self.add(format!("{key}.messages_per_second"), messages_per_second, "1 to 10000");
        }
        let send_ttl = self.duration(&format!("{key}.send_ttl"), raw.send_ttl, SEND_TTL_DEFAULT, TTL);
        Some(NumberConfig {
            number: number?,
            phone_number_id,
            waba_id: raw.waba_id,
            way,
            send_ttl,
            messages_per_second,
            app_secret,
            access_token,
        })
    }

    /// What can not stand in a header is no token.
    fn token(&mut self, key: &str, token: Option<&Secret>) {
        if token.is_some_and(|token| !token.expose().bytes().all(|byte| (b' '..=b'~').contains(&byte))) {
            self.add(key, "<secret>", "printable ASCII characters");
        }
    }

    /// What the built-in gateway can not send without.
    fn built_in(&mut self, key: &str, has_id: bool, own_token: Option<&Secret>, whatsapp: &WhatsApp) {
        if !has_id {
            self.add(
                format!("{key}.phone_number_id"),
                "<none>",
                "Meta's id of the number: the built-in gateway sends by it",
            );
        }
        match own_token.or(whatsapp.access_token.as_ref()) {
            None => self.add(
                format!("{key}.access_token"),
                "<none>",
                "what the built-in gateway sends with, here or in [whatsapp]",
            ),
            Some(token) if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) => {
                // Named where it stands.
                let key = if own_token.is_some() {
                    format!("{key}.access_token")
                } else {
                    "whatsapp.access_token".to_owned()
                };
                self.add(key, "<secret>", "visible ASCII characters, no blanks");
            }
            Some(_) => {}
        }
    }
}
