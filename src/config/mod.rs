//! The configuration: default < file < environment < flag, read once, validated in one place.
//!
//! # Layout
//! - `mod.rs`: what a broker runs on, as it is after validation
//! - `raw`: what may be written · `value`: durations, sizes, secrets · `network`: source addresses · `load`: file and
//!   environment
//! - `tls`: certificates and keys · `validate`: raw to valid, with every problem that there is, not the first alone
//!
//! # Invariants
//! - A key that does not exist is an error, in the file and in the environment.
//! - No secret is in a problem, in `Debug`, or anywhere but behind `expose()`.

mod load;
mod network;
mod raw;
mod tls;
mod validate;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use self::load::{LoadError, Overrides};
pub use self::network::{Network, one_peer};
pub use self::tls::Tls;
pub(crate) use self::value::bytes as bytes_of;
pub use self::value::{Secret, TokenHash};
use crate::domain::ids::{GatewayId, Number, ServiceId};
use crate::domain::portal::PortalRules;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the journal lies.
    pub data_dir: PathBuf,
    /// Adapters and gateways.
    pub tcp: Tcp,
    /// Webhooks, the Cloud API facade, the admin API and console, WebSockets, metrics, health.
    pub http: Http,
    /// The journal.
    pub journal: Journal,
    /// Limits that an operator may want to change.
    pub limits: Limits,
    /// The organisations.
    pub portals: Vec<Portal>,
    /// What is kept of media.
    pub media: Media,
    /// What the numbers of the built-in gateway have in common.
    pub whatsapp: WhatsApp,
}

/// `[tcp]`
#[derive(Debug, Clone)]
pub struct Tcp {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How long a connection may leave deliveries unacknowledged.
    pub ack_timeout: Duration,
    /// What it proves itself with; none: it speaks plain text.
    pub tls: Option<Tls>,
}

/// `[http]`
#[derive(Debug, Clone)]
pub struct Http {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where others reach it, for the addresses of media; by default as each of them has called it.
    pub public_url: Option<String>,
    /// Who may use the admin API; nobody without.
    pub admin_token: Option<TokenHash>,
    /// What it proves itself with; none: it speaks plain text.
    pub tls: Option<Tls>,
}

/// When a record counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it is synced.
    Fsync,
    /// When the operating system has it.
    Os,
}

/// `[journal]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// When a record counts as durable.
    pub durability: Durability,
    /// How long history is kept.
    pub retention: Duration,
    /// How much history is kept, in bytes.
    pub retention_bytes: u64,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A channel's newest records that are kept in memory, in bytes.
    pub recent_bytes_max: u64,
    /// What ids may take in memory, in bytes.
    pub dedup_bytes_max: u64,
    /// How long a stop may take.
    pub drain_timeout: Duration,
    /// Threads that actors and sessions live on; 0: as the cores allow.
    pub arbiters: usize,
    /// Connections that one source address may make, a second; 0: any number.
    pub peer_connections_per_second: u32,
    /// Hellos of one source address that may be refused, a minute; 0: any number.
    pub peer_failed_hellos_per_minute: u32,
    /// HTTP connections that one source address may have at once; 0: any number.
    pub peer_http_connections: usize,
    /// Source addresses that are held to none of these: proxies.
    pub trusted_peers: Vec<Network>,
}

/// `[media]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// How long media that a service has fetched are kept; never longer than history.
    pub cache_ttl: Duration,
    /// How much is kept of them, in bytes; 0: nothing.
    pub cache_bytes: u64,
}

/// What the services see of others' replies at their callback URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskedEcho {
    /// As replies that were written on the phone are told: `smb_message_echoes`.
    Echo,
    /// As replies of another partner are told: `standby`.
    Standby,
    /// Nothing.
    Off,
}

/// How a service is told by HTTP, as WhatsApp's Cloud API tells its apps.
#[derive(Debug, Clone)]
pub struct Callback {
    /// Where.
    pub url: String,
    /// What signs it.
    pub app_secret: Secret,
    /// How other services' replies are told.
    pub masked_echo: MaskedEcho,
    /// What stands in the place of what they say.
    pub masked_echo_text: String,
}

/// One `[[portals]]`.
#[derive(Debug, Clone)]
pub struct Portal {
    /// What the rules need of it.
    pub rules: PortalRules,
    /// Each service's tokens.
    pub service_tokens: Vec<(ServiceId, Vec<TokenHash>)>,
    /// The services that have a callback URL.
    pub callbacks: Vec<(ServiceId, Callback)>,
    /// The services that take part in routing as WhatsApp's Cloud API knows it, each in a role of its own.
    pub thread_roles: Vec<(ServiceId, String)>,
    /// Each TCP gateway's tokens.
    pub gateways: Vec<(GatewayId, Vec<TokenHash>)>,
    /// Its numbers.
    pub numbers: Vec<NumberConfig>,
}

/// How a number's replies leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Through this gateway over TCP.
    Tcp(GatewayId),
    /// Through the built-in gateway.
    Builtin,
    /// They wait: there is none.
    None,
}

/// One `[[portals.numbers]]`.
#[derive(Debug, Clone)]
pub struct NumberConfig {
    /// The number.
    pub number: Number,
    /// Meta's id of it.
    pub phone_number_id: Option<String>,
    /// Meta's id of the account that it belongs to.
    pub waba_id: Option<String>,
    /// How its replies leave.
    pub way: Way,
    /// How long a reply waits for its gateway.
    pub send_ttl: Duration,
    /// How many messages a second it may send.
    pub messages_per_second: u32,
    /// What signs its webhooks, where it is not `[whatsapp]`'s.
    pub app_secret: Option<Secret>,
    /// What the built-in gateway sends with, where it is not `[whatsapp]`'s.
    pub access_token: Option<Secret>,
}

/// `[whatsapp]`
#[derive(Debug, Clone)]
pub struct WhatsApp {
    /// What signs webhooks.
    pub app_secret: Option<Secret>,
    /// What Meta must say to have a subscription verified.
    pub verify_token: Option<Secret>,
    /// Where the Graph API is.
    pub graph_url: String,
    /// What the built-in gateway sends with.
    pub access_token: Option<Secret>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            tcp: Tcp {
                listen: SocketAddr::from(([127, 0, 0, 1], 7411)),
                ack_timeout: Duration::from_secs(60),
                tls: None,
            },
            http: Http {
                listen: SocketAddr::from(([127, 0, 0, 1], 7412)),
                public_url: None,
                admin_token: None,
                tls: None,
            },
            journal: Journal {
                durability: Durability::Fsync,
                retention: Duration::from_secs(7 * 86_400),
                retention_bytes: 64 << 30,
            },
            limits: Limits {
                recent_bytes_max: 4 << 20,
                dedup_bytes_max: 4 << 30,
                drain_timeout: Duration::from_secs(10),
                arbiters: 0,
                peer_connections_per_second: 100,
                peer_failed_hellos_per_minute: 60,
                peer_http_connections: 1_024,
                trusted_peers: Vec::new(),
            },
            media: Media { cache_ttl: Duration::from_secs(3_600), cache_bytes: 256 << 20 },
            portals: Vec::new(),
            whatsapp: WhatsApp {
                app_secret: None,
                verify_token: None,
                graph_url: "https://graph.facebook.com/v23.0".to_owned(),
                access_token: None,
            },
        }
    }
}

/// What stands in the place of what another service's reply says, where a service sets no text of its own.
pub const MASKED_ECHO_TEXT_DEFAULT: &str = "A reply was sent from another service.";
/// How long replies wait for their gateway where a number does not say (contract: 1 h).
pub const SEND_TTL_DEFAULT: Duration = Duration::from_secs(3_600);
/// How many messages a second a number may send where it does not say (contract: 80, WhatsApp's own default).
pub const MESSAGES_PER_SECOND_DEFAULT: u32 = 80;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `portals[0].services[1].masking`.
    pub key: String,
    /// What stands there; never a secret.
    pub value: String,
    /// What may stand there.
    pub accepted: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: accepted is {}", self.key, self.value, self.accepted)
    }
}

/// From a text as it would stand in a file; files that it names are looked for in the working directory.
///
/// ```
/// use sharedline::config::Config;
/// let config: Config = "[[portals]]\nid = 'acme'\n[[portals.numbers]]\nnumber = '+15550783881'".parse()?;
/// assert_eq!(config.portals.len(), 1);
/// assert!("[tcp]\nlisten = 'nowhere'".parse::<Config>().is_err());
/// # Ok::<(), sharedline::config::LoadError>(())
/// ```
impl FromStr for Config {
    type Err = LoadError;

    fn from_str(text: &str) -> Result<Self, LoadError> {
        load::parse(text)
    }
}

impl Config {
    /// Reads the file, if one is named, and what the environment and the flags say over it.
    ///
    /// # Errors
    /// When the file can not be read, or anything in it, in the environment or in the flags is wrong.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, LoadError> {
        load::load(file, overrides)
    }

    /// The keys that differ in `other` and hold only from the next start on.
    #[must_use]
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("data_dir", self.data_dir != other.data_dir),
            ("tcp.listen", self.tcp.listen != other.tcp.listen),
            ("http.listen", self.http.listen != other.http.listen),
            ("tcp.tls", self.tcp.tls.is_some() != other.tcp.tls.is_some()),
            ("http.tls", self.http.tls.is_some() != other.http.tls.is_some()),
            ("journal.durability", self.journal.durability != other.journal.durability),
            ("limits.recent_bytes_max", self.limits.recent_bytes_max != other.limits.recent_bytes_max),
            ("limits.drain_timeout", self.limits.drain_timeout != other.limits.drain_timeout),
            ("limits.arbiters", self.limits.arbiters != other.limits.arbiters),
        ];
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }

    /// The numbers that can not send, and why.
    #[must_use]
    pub fn cannot_send(&self) -> Vec<(Number, &'static str)> {
        let numbers = self.portals.iter().flat_map(|portal| &portal.numbers);
        let why = |number: &NumberConfig| match &number.way {
            Way::Tcp(_) | Way::Builtin => None,
            Way::None => Some("it has no gateway: its replies wait"),
        };
        numbers.filter_map(|number| Some((number.number.clone(), why(number)?))).collect()
    }
}
