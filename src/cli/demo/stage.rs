//! Where the story plays: a directory, a configuration with fresh tokens, and the broker as a child process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::whatsapp::WhatsApp;
use crate::cli::own_broker::OwnBroker;
use crate::cli::token;
use crate::config::TokenHash;

/// The portal of the story.
pub(super) const PORTAL: &str = "acme";
/// Its number.
pub(super) const NUMBER: &str = "+15550783881";
/// Meta's id of that number.
pub(super) const PHONE_NUMBER_ID: &str = "106540352242922";
/// The services that share the number, in the order in which they join.
pub(super) const SERVICES: [&str; 3] = ["crm", "desk", "salesiq"];
/// The finance service, which must be refused.
pub(super) const REFUSED: &str = "books";
/// A gateway over TCP beside the built-in one, for who wants to write as a customer by hand.
pub(super) const GATEWAY: &str = "by-hand";
/// How much of the broker's log is shown when something went wrong, in lines.
const LOG_LINES: usize = 20;

/// The directory and the broker.
pub(super) struct Stage {
    directory: PathBuf,
    /// Whether the directory is removed at the end.
    is_ours: bool,
    tokens: BTreeMap<&'static str, String>,
    app_secret: String,
    access_token: String,
    /// What stands for WhatsApp.
    pub(super) whatsapp: WhatsApp,
    pub(super) tcp: SocketAddr,
    pub(super) http: SocketAddr,
    broker: Option<OwnBroker>,
}

impl Stage {
    /// Makes the directory and starts the broker.
    pub(super) async fn set(data_dir: Option<PathBuf>) -> anyhow::Result<Self> {
        let is_ours = data_dir.is_none();
        let directory = match data_dir {
            Some(directory) => std::path::absolute(directory)?,
            None => std::env::temp_dir().join(format!("sharedline-demo-{}", std::process::id())),
        };
        std::fs::create_dir_all(directory.join("tokens"))
            .with_context(|| format!("making {}", directory.display()))?;
        let names = SERVICES.into_iter().chain([REFUSED, GATEWAY]);
        let tokens = names.map(|name| Ok((name, token::fresh()?))).collect::<std::io::Result<_>>()?;
        let (tcp, http) = free_addresses()?;
        let (app_secret, access_token) = (token::fresh()?, token::fresh()?);
        let webhook_url = format!("http://{http}/webhooks/whatsapp");
        let whatsapp = WhatsApp::start(webhook_url, &app_secret, &access_token).await?;
        let mut stage =
            Self { directory, is_ours, tokens, app_secret, access_token, whatsapp, tcp, http, broker: None };
        std::fs::write(stage.config(), stage.configuration())?;
        for (name, token) in &stage.tokens {
            std::fs::write(stage.token_file(name), token)?;
        }
        stage.start().await?;
        Ok(stage)
    }

    pub(super) fn config(&self) -> PathBuf {
        self.directory.join("sharedline.toml")
    }

    pub(super) fn token_file(&self, name: &str) -> PathBuf {
        self.directory.join("tokens").join(name)
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(super) fn is_kept(&self) -> bool {
        !self.is_ours
    }

    pub(super) fn token(&self, name: &str) -> &str {
        self.tokens.get(name).map_or("", String::as_str)
    }

    pub(super) fn process_id(&self) -> Option<u32> {
        self.broker.as_ref().and_then(OwnBroker::process_id)
    }

    fn configuration(&self) -> String {
        let mut text = format!(
            "data_dir = {:?}\n\n[tcp]\nlisten = \"{}\"\n\n[http]\nlisten = \"{}\"\n\n\
             [whatsapp]\napp_secret = \"{}\"\nverify_token = \"demo\"\naccess_token = \"{}\"\n\
             graph_url = \"{}\"\n\n[[portals]]\nid = \"{PORTAL}\"\n",
            self.data_dir(),
            self.tcp,
            self.http,
            self.app_secret,
            self.access_token,
            self.whatsapp.graph.url(),
        );
        for service in SERVICES.into_iter().chain([REFUSED]) {
            let hash = TokenHash::of(self.token(service));
            // Writing into a text does not fail.
            let _ =
                write!(text, "  [[portals.services]]\n  id = \"{service}\"\n  token_sha256 = [\"{hash}\"]\n");
        }
        let hash = TokenHash::of(self.token(GATEWAY));
        let _ = write!(text, "  [[portals.gateways]]\n  id = \"{GATEWAY}\"\n  token_sha256 = [\"{hash}\"]\n");
        let _ = write!(
            text,
            "  [[portals.numbers]]\n  number = \"{NUMBER}\"\n  phone_number_id = \"{PHONE_NUMBER_ID}\"\n  gateway = \"builtin\"\n"
        );
        text
    }

    /// Starts the broker and waits until it serves.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        self.broker = Some(OwnBroker::start(&self.config(), &self.log()).await?);
        Ok(())
    }

    /// Ends the broker at once, as a power cut would end its process.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        match self.broker.take() {
            Some(broker) => broker.kill().await,
            None => Ok(()),
        }
    }

    /// Stops the broker in an orderly way, and removes what is ours.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        let outcome = match self.broker.take() {
            Some(broker) => broker.stop().await,
            None => Ok(()),
        };
        if self.is_ours {
            // What can not be removed is in the way of nobody.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
        outcome
    }

    fn log(&self) -> PathBuf {
        self.directory.join("broker.log")
    }

    pub(super) fn log_tail(&self) -> Vec<String> {
        let text = std::fs::read_to_string(Path::new(&self.log())).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).map(|line| (*line).to_owned()).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.is_ours && self.broker.is_none() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// Two free ports. Kept over the broker's restart, so they are chosen here and not by the broker.
fn free_addresses() -> std::io::Result<(SocketAddr, SocketAddr)> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (one, other) = (TcpListener::bind(any)?, TcpListener::bind(any)?);
    Ok((one.local_addr()?, other.local_addr()?))
}
