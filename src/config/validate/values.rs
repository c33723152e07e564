//! Single values: durations, sizes, words, ids, secrets, addresses. What is wrong is noted under its key, and something
//! that can stand goes on, so that the rest is looked at, too.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::Problems;
use crate::config::Problem;
use crate::config::network::Network;
use crate::config::raw::{self, OneOrMany};
use crate::config::tls::{self, Tls};
use crate::config::value::{Secret, TokenHash, bytes, bytes_text, duration, duration_text};

/// Most of what one source address may be allowed in a second or a minute.
const PEER_RATE_MAX: u32 = 1_000_000;

impl Problems<'_> {
    pub(super) fn add(&mut self, key: impl Into<String>, value: impl Display, accepted: impl Into<String>) {
        self.found.push(Problem { key: key.into(), value: value.to_string(), accepted: accepted.into() });
    }

    pub(super) fn quoted(&mut self, key: impl Into<String>, value: &str, accepted: impl Into<String>) {
        self.add(key, format!("{value:?}"), accepted);
    }

    pub(super) fn duration(
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

    pub(super) fn bytes(
        &mut self,
        key: &str,
        text: Option<String>,
        default: u64,
        (least, most): (u64, u64),
    ) -> u64 {
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
    pub(super) fn url(&mut self, key: &str, text: Option<String>) -> Option<String> {
        let text = text?;
        let can_be_called = reqwest::Url::parse(&text)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !can_be_called {
            let value = format!("<{} characters>", text.chars().count());
            self.add(key, value, "a URL that begins with https:// or http://");
        }
        Some(text)
    }

    pub(super) fn word<T: Copy>(
        &mut self,
        key: &str,
        text: Option<String>,
        words: &[(&str, T)],
        default: T,
    ) -> T {
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

    pub(super) fn id<T: FromStr<Err = crate::domain::ids::IdError>>(
        &mut self,
        key: String,
        text: &str,
    ) -> Option<T> {
        match text.parse() {
            Ok(id) => Some(id),
            Err(error) => {
                self.quoted(key, text, error.to_string());
                None
            }
        }
    }

    /// A secret, in place or in a file of its own.
    pub(super) fn secret(
        &mut self,
        key: &str,
        inline: Option<String>,
        file: Option<PathBuf>,
    ) -> Option<Secret> {
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

    pub(super) fn hash(&mut self, key: &str, text: &str) -> Option<TokenHash> {
        match text.parse() {
            Ok(hash) => Some(hash),
            Err(accepted) => {
                self.add(key, format!("<{} characters>", text.chars().count()), accepted);
                None
            }
        }
    }

    pub(super) fn hashes(
        &mut self,
        key: &str,
        inline: Option<OneOrMany>,
        file: Option<PathBuf>,
    ) -> Vec<TokenHash> {
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

    pub(super) fn listen(
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

    pub(super) fn tls(&mut self, section: &str, raw: Option<&raw::Tls>) -> Option<Tls> {
        match tls::read(section, raw?, self.beside) {
            Ok(tls) => Some(tls),
            Err(problems) => {
                self.found.extend(problems);
                None
            }
        }
    }

    pub(super) fn rate(&mut self, key: &str, given: Option<u32>, default: u32) -> u32 {
        let rate = given.unwrap_or(default);
        if rate > PEER_RATE_MAX {
            self.add(key, rate, format!("0 to {PEER_RATE_MAX}; 0: without limit"));
        }
        rate
    }

    pub(super) fn networks(&mut self, key: &str, raw: Option<OneOrMany>) -> Vec<Network> {
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

    /// What can not stand in a header is no token.
    pub(super) fn token(&mut self, key: &str, token: Option<&Secret>) {
        if token.is_some_and(|token| !token.expose().bytes().all(|byte| (b' '..=b'~').contains(&byte))) {
            self.add(key, "<secret>", "printable ASCII characters");
        }
    }
}
