//! The configuration as it is written: every key that there is, all of them optional, unknown ones refused.

use std::path::PathBuf;

use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) data_dir: Option<PathBuf>,
    #[serde(default)]
    pub(super) tcp: Tcp,
    #[serde(default)]
    pub(super) http: Http,
    #[serde(default)]
    pub(super) journal: Journal,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) media: Media,
    #[serde(default)]
    pub(super) whatsapp: WhatsApp,
    #[serde(default)]
    pub(super) portals: Vec<Portal>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tcp {
    pub(super) listen: Option<String>,
    pub(super) ack_timeout: Option<String>,
    pub(super) insecure: Option<bool>,
    pub(super) tls: Option<Tls>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    pub(super) listen: Option<String>,
    pub(super) public_url: Option<String>,
    pub(super) admin_token_sha256: Option<String>,
    pub(super) admin_token_sha256_file: Option<PathBuf>,
    pub(super) insecure: Option<bool>,
    pub(super) tls: Option<Tls>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) client_ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    pub(super) engine: Option<String>,
    pub(super) durability: Option<String>,
    pub(super) retention: Option<String>,
    pub(super) retention_bytes: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) recent_bytes_max: Option<String>,
    pub(super) dedup_bytes_max: Option<String>,
    pub(super) drain_timeout: Option<String>,
    pub(super) arbiters: Option<usize>,
    pub(super) peer_connections_per_second: Option<u32>,
    pub(super) peer_failed_hellos_per_minute: Option<u32>,
    pub(super) peer_http_connections: Option<u32>,
    pub(super) trusted_peers: Option<OneOrMany>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Media {
    pub(super) cache_ttl: Option<String>,
    pub(super) cache_bytes: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhatsApp {
    pub(super) app_secret: Option<String>,
    pub(super) app_secret_file: Option<PathBuf>,
    pub(super) verify_token: Option<String>,
    pub(super) verify_token_file: Option<PathBuf>,
    pub(super) graph_url: Option<String>,
    pub(super) access_token: Option<String>,
    pub(super) access_token_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Portal {
    pub(super) id: String,
    pub(super) plan: Option<String>,
    pub(super) rosters: Option<String>,
    #[serde(default)]
    pub(super) services: Vec<Service>,
    #[serde(default)]
    pub(super) gateways: Vec<Gateway>,
    #[serde(default)]
    pub(super) numbers: Vec<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) id: String,
    pub(super) family: Option<String>,
    pub(super) token_sha256: Option<OneOrMany>,
    pub(super) token_sha256_file: Option<PathBuf>,
    pub(super) masking: Option<String>,
    pub(super) pick_up: Option<String>,
    pub(super) claim_ttl: Option<String>,
    pub(super) bot_when_claimed: Option<String>,
    pub(super) weight: Option<u32>,
    pub(super) agents: Option<Vec<Agent>>,
    pub(super) webhook: Option<Webhook>,
    pub(super) masked_echo: Option<String>,
    pub(super) masked_echo_text: Option<String>,
    pub(super) thread_role: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    pub(super) url: Option<String>,
    pub(super) app_secret: Option<String>,
    pub(super) app_secret_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    pub(super) agent: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) lead: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gateway {
    pub(super) id: String,
    pub(super) token_sha256: Option<OneOrMany>,
    pub(super) token_sha256_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Number {
    pub(super) number: String,
    pub(super) phone_number_id: Option<String>,
    pub(super) waba_id: Option<String>,
    pub(super) gateway: Option<String>,
    pub(super) send_ttl: Option<String>,
    pub(super) messages_per_second: Option<u32>,
    pub(super) app_secret: Option<String>,
    pub(super) app_secret_file: Option<PathBuf>,
    pub(super) access_token: Option<String>,
    pub(super) access_token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}
