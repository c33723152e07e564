//! The broker under load: a child process on a fresh journal, or one that runs already.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::Arguments;
use crate::cli::own_broker::OwnBroker;
use crate::cli::token;
use crate::client::Connection;
use crate::config::TokenHash;
use crate::wire::frame::Encoding;
use crate::wire::message::requests::Hello;
use crate::wire::message::{DeliverMode, Positions, Private, Who};

/// The own broker's portal, number and gateway.
const PORTAL: &str = "bench";
const NUMBER: &str = "+15550783881";
const GATEWAY: &str = "load";
/// Ticks of processor time a second: what Linux counts in, on every platform that it runs on.
const TICKS_PER_SECOND: u64 = 100;

/// The broker under load, and who may connect.
pub(super) struct Target {
    own: Option<OwnBroker>,
    directory: PathBuf,
    address: SocketAddr,
    encoding: Encoding,
    window: u32,
    portal: String,
    pub(super) number: String,
    gateway: String,
    pub(super) services: Vec<String>,
    tokens: PathBuf,
}

impl Target {
    pub(super) async fn prepare(arguments: &Arguments) -> anyhow::Result<Self> {
        let above = arguments.data_dir.clone().unwrap_or_else(std::env::temp_dir);
        let directory = above.join(format!("sharedline-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let encoding = if arguments.json_lines { Encoding::JsonLines } else { Encoding::Binary };
        let (window, word) = (arguments.window, |text: &Option<String>| text.clone().unwrap_or_default());
        if let (Some(address), Some(tokens)) = (arguments.tcp, &arguments.tokens) {
            return Ok(Self {
                own: None,
                directory,
                address,
                encoding,
                window,
                portal: word(&arguments.portal),
                number: word(&arguments.number),
                gateway: word(&arguments.gateway),
                services: arguments.services.clone(),
                tokens: tokens.clone(),
            });
        }
        let services: Vec<String> =
            (1..=arguments.subscribers.max(1)).map(|at| format!("service-{at}")).collect();
        let tokens = directory.join("tokens");
        std::fs::create_dir_all(&tokens)?;
        let mut hashes = Vec::new();
        for name in services.iter().map(String::as_str).chain([GATEWAY]) {
            let token = token::fresh()?;
            std::fs::write(tokens.join(name), &token)?;
            hashes.push(TokenHash::of(&token));
        }
        let config = directory.join("bench.toml");
        std::fs::write(&config, configuration(arguments, &directory, &services, &hashes))?;
        let own = OwnBroker::start(&config, &directory.join("broker.log")).await?;
        let address = own.tcp;
        Ok(Self {
            own: Some(own),
            directory,
            address,
            encoding,
            window,
            portal: PORTAL.to_owned(),
            number: NUMBER.to_owned(),
            gateway: GATEWAY.to_owned(),
            services,
            tokens,
        })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    fn hello(&self, who: Who, name: &str, deliver: DeliverMode) -> anyhow::Result<Hello> {
        let path = self.tokens.join(name);
        let token = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Hello {
            version: 1,
            who,
            portal: self.portal.parse()?,
            token: Private::from(token.trim_end()),
            adapter: Some(format!("bench-{name}").parse()?),
            window: self.window,
            deliver,
            from: Positions::default(),
            heartbeat_ms: None,
        })
    }

    /// A connection of a service's adapter.
    pub(super) async fn service(&self, name: &str) -> anyhow::Result<Connection> {
        let hello = self.hello(Who::Service(name.parse()?), name, DeliverMode::Share)?;
        Ok(Connection::open(self.address, self.encoding, hello).await?)
    }

    /// A connection of the gateway; it is handed nothing to send.
    pub(super) async fn gateway(&self) -> anyhow::Result<Connection> {
        let hello = self.hello(Who::Gateway(self.gateway.parse()?), &self.gateway, DeliverMode::None)?;
        Ok(Connection::open(self.address, self.encoding, hello).await?)
    }

    /// Processor time that the own broker has used so far.
    pub(super) fn cpu(&self) -> Option<Duration> {
        let id = self.own.as_ref()?.process_id()?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name of the program, in brackets, may hold blanks; user and system time are the 12th and 13th after it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
    }

    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        let ended = match self.own.take() {
            Some(own) => own.stop().await,
            None => Ok(()),
        };
        // What can not be removed is in the way of nobody.
        let _ = std::fs::remove_dir_all(&self.directory);
        ended
    }
}

fn configuration(
    arguments: &Arguments,
    directory: &Path,
    services: &[String],
    hashes: &[TokenHash],
) -> String {
    let mut text = format!(
        "data_dir = {:?}\n[tcp]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [journal]\ndurability = \"{}\"\n[[portals]]\nid = \"{PORTAL}\"\n",
        directory.join("data"),
        arguments.durability.word()
    );
    for (service, hash) in services.iter().zip(hashes) {
        // Writing into a text does not fail.
        let _ = write!(text, "[[portals.services]]\nid = \"{service}\"\ntoken_sha256 = \"{hash}\"\n");
    }
    if let Some(hash) = hashes.last() {
        let _ = write!(text, "[[portals.gateways]]\nid = \"{GATEWAY}\"\ntoken_sha256 = \"{hash}\"\n");
    }
    let _ = write!(text, "[[portals.numbers]]\nnumber = \"{NUMBER}\"\n");
    text
}
