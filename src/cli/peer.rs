//! What the verbs that talk to a running broker have in common: where it is, and what proves who asks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{EXIT_USAGE, Failure};
use crate::client::{ClientError, Options, Tls};
use crate::config::{Config, Secret};
use crate::wire::frame::Encoding;
use crate::wire::message::requests::Hello;
use crate::wire::message::{DeliverMode, Private, Who};

/// Where a broker is, and with which token.
#[derive(Debug, Args)]
pub(super) struct Peer {
    /// The broker's TCP address; else as the configuration says.
    #[arg(long, value_name = "ADDR")]
    tcp: Option<SocketAddr>,
    /// The broker's HTTP address, for verbs that talk to it; else as the configuration says.
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// A file with the token; else it stands in SHAREDLINE_TOKEN.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Speak TLS, and believe whom the authorities in this file (PEM) have signed for.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// A certificate chain (PEM) of one's own, where the broker wants one.
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The name in the broker's certificate, where it is not for its address.
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    tls_name: Option<String>,
    /// The token.
    #[arg(env = "SHAREDLINE_TOKEN", hide_env_values = true, hide = true, long = "token-from-environment")]
    token: Option<String>,
}

impl Peer {
    pub(super) fn token(&self) -> Result<Secret, Failure> {
        let missing = || {
            let text = "a token is needed: --token-file FILE, or SHAREDLINE_TOKEN in the environment";
            Failure::new(EXIT_USAGE, anyhow::anyhow!(text))
        };
        match &self.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|error| {
                    Failure::io(anyhow::Error::new(error).context(file.display().to_string()))
                })?;
                Ok(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
            }
            None => self.token.clone().map(Secret::new).ok_or_else(missing),
        }
    }

    /// How to speak TLS, if that is asked for.
    pub(super) fn tls(&self) -> Result<Option<Tls>, Failure> {
        let Some(ca) = &self.tls_ca else { return Ok(None) };
        let own = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            _ => None,
        };
        let own = own.as_ref().map(|(cert, key)| (cert.as_slice(), key.as_slice()));
        let tls = Tls::new(&read(ca)?, own).map_err(Failure::failed)?;
        match &self.tls_name {
            Some(name) => Ok(Some(tls.named(name).map_err(usage)?)),
            None => Ok(Some(tls)),
        }
    }

    /// The name in the broker's certificate, where it is not its address.
    pub(super) fn tls_name(&self) -> Option<&str> {
        self.tls_name.as_deref()
    }

    pub(super) fn address(&self, config: &Config) -> SocketAddr {
        self.tcp.unwrap_or(config.tcp.listen)
    }

    pub(super) fn http_address(&self, config: &Config) -> SocketAddr {
        self.http.unwrap_or(config.http.listen)
    }

    /// How to connect as `who`.
    pub(super) fn options(
        &self,
        config: &Config,
        portal: &str,
        who: Who,
        adapter: Option<&str>,
        deliver: DeliverMode,
    ) -> Result<Options, Failure> {
        let adapter = adapter.map(str::parse).transpose().map_err(usage)?;
        let token = Private::from(self.token()?.expose());
        let hello = Hello { token, deliver, ..Hello::of(portal.parse().map_err(usage)?, who, adapter) };
        Ok(Options { address: self.address(config), encoding: Encoding::JsonLines, hello })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file)
        .map_err(|error| Failure::io(anyhow::Error::new(error).context(file.display().to_string())))
}

/// An argument that can not be.
pub(super) fn usage(error: impl Into<anyhow::Error>) -> Failure {
    Failure::new(EXIT_USAGE, error)
}

/// What a client's error means for the process.
pub(super) fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Io(_) | ClientError::Closed | ClientError::Lost => Failure::io(error),
        _ => Failure::failed(error),
    }
}
