//! The broker under load: a child process on a fresh journal, or one that runs already.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};

use super::configuration::{self, GATEWAY, PORTAL, Written};
use super::options::Against;
use super::usage::{self, Usage};
use crate::cli::own_broker::OwnBroker;
use crate::client::Connection;
use crate::wire::frame::Encoding;
use crate::wire::message::requests::Hello;
use crate::wire::message::{DeliverMode, Private, Who};

/// Tells the directories of one process's brokers apart.
static BROKERS: AtomicU32 = AtomicU32::new(0);

/// What a load needs of a broker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs {
    pub(super) numbers: usize,
    pub(super) services: usize,
    /// Each connection's window.
    pub(super) window: u32,
}

/// The broker under load, and who may connect.
pub(super) struct Target {
    /// Before its directory, so that it is gone when that is removed.
    own: Option<OwnBroker>,
    process: Option<u32>,
    directory: Directory,
    door: Door,
    /// The own broker's journal and configuration.
    own_files: Option<(PathBuf, PathBuf)>,
    pub(super) numbers: Vec<String>,
    pub(super) services: Vec<String>,
}

/// A directory that goes with what is in it.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // What can not be removed is in the way of nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The way in.
#[derive(Debug, Clone)]
pub(super) struct Door {
    address: SocketAddr,
    window: u32,
    portal: String,
    gateway: String,
    tokens: PathBuf,
}

impl Target {
    pub(super) async fn prepare(against: &Against, needs: Needs) -> anyhow::Result<Self> {
        let above = against.data_dir.clone().unwrap_or_else(std::env::temp_dir);
        let of_process = BROKERS.fetch_add(1, Ordering::Relaxed);
        let directory = above.join(format!("sharedline-bench-{}-{of_process}", std::process::id()));
        std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let directory = Directory(directory);
        match against.tcp {
            Some(address) => Self::running(against, needs, address, directory),
            None => Self::start(against, needs, directory).await,
        }
    }

    fn running(
        against: &Against,
        needs: Needs,
        address: SocketAddr,
        directory: Directory,
    ) -> anyhow::Result<Self> {
        let (numbers, services) =
            (against.number.get(..needs.numbers), against.service.get(..needs.services));
        let (Some(numbers), Some(services)) = (numbers, services) else {
            bail!("this load takes {} --number and {} --service", needs.numbers, needs.services);
        };
        Ok(Self {
            own: None,
            process: against.pid,
            directory,
            door: Door {
                address,
                window: needs.window,
                portal: against.portal.clone().unwrap_or_default(),
                gateway: against.gateway.clone().unwrap_or_default(),
                tokens: against.tokens.clone().unwrap_or_default(),
            },
            own_files: None,
            numbers: numbers.to_vec(),
            services: services.to_vec(),
        })
    }

    async fn start(against: &Against, needs: Needs, directory: Directory) -> anyhow::Result<Self> {
        let Written { file, tokens, data_dir, numbers, services } =
            configuration::write(&directory.0, against.durability, needs.numbers, needs.services)?;
        let own = OwnBroker::start(&file, &directory.0.join("broker.log")).await?;
        Ok(Self {
            process: own.process_id(),
            door: Door {
                address: own.tcp,
                window: needs.window,
                portal: PORTAL.to_owned(),
                gateway: GATEWAY.to_owned(),
                tokens,
            },
            own: Some(own),
            directory,
            own_files: Some((data_dir, file)),
            numbers,
            services,
        })
    }

    /// Where files of the load may lie; removed at the end.
    pub(super) fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// The own broker's journal.
    pub(super) fn data_dir(&self) -> anyhow::Result<&Path> {
        self.own_files.as_ref().map(|(data_dir, _)| data_dir.as_path()).context("the broker is not our own")
    }

    /// The way in, for who connects from another thread.
    pub(super) fn door(&self) -> Door {
        self.door.clone()
    }

    /// A connection of a service's adapter that is handed its share.
    pub(super) async fn service(&self, name: &str, encoding: Encoding) -> anyhow::Result<Connection> {
        self.door.service(name, encoding).await
    }

    /// A connection of an adapter of a service.
    pub(super) async fn adapter(
        &self,
        service: &str,
        adapter: &str,
        encoding: Encoding,
        deliver: DeliverMode,
    ) -> anyhow::Result<Connection> {
        self.door.adapter(service, adapter, encoding, deliver).await
    }

    /// A connection of the gateway; it is handed nothing to send.
    pub(super) async fn gateway(&self, encoding: Encoding) -> anyhow::Result<Connection> {
        self.door.gateway(encoding, DeliverMode::None).await
    }

    /// What the broker has used so far, where its process is known.
    pub(super) fn usage(&self) -> Option<Usage> {
        Usage::of(self.process?)
    }

    /// How much of the broker is in memory, in bytes.
    pub(super) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let process = self.process.context("the broker's --pid is not given")?;
        usage::resident_bytes(process).context("the memory of the broker's process can not be read")
    }

    /// Kills the own broker.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.own.take().context("the broker is not our own")?.kill().await
    }

    /// Starts the own broker again, on the same journal.
    pub(super) async fn start_again(&mut self) -> anyhow::Result<&OwnBroker> {
        let (_, config) = self.own_files.as_ref().context("the broker is not our own")?;
        let own = OwnBroker::start(config, &self.directory.0.join("broker.log")).await?;
        (self.process, self.door.address) = (own.process_id(), own.tcp);
        Ok(self.own.insert(own))
    }

    /// Stops the own broker and removes what it left behind.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        let ended = match self.own.take() {
            Some(own) => own.stop().await,
            None => Ok(()),
        };
        drop(self);
        ended
    }
}

impl Door {
    /// The same for connections with another window.
    pub(super) fn with_window(&self, window: u32) -> Self {
        Self { window, ..self.clone() }
    }

    fn hello(&self, who: Who, name: &str, adapter: &str, deliver: DeliverMode) -> anyhow::Result<Hello> {
        let path = self.tokens.join(name);
        let token = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let token = Private::from(token.trim_end());
        let greeting = Hello::of(self.portal.parse()?, who, Some(adapter.parse()?));
        Ok(Hello { token, window: self.window, deliver, ..greeting })
    }

    /// A connection of a service's adapter that is handed its share.
    pub(super) async fn service(&self, name: &str, encoding: Encoding) -> anyhow::Result<Connection> {
        self.adapter(name, &format!("bench-{name}"), encoding, DeliverMode::Share).await
    }

    /// A connection of an adapter of a service.
    pub(super) async fn adapter(
        &self,
        service: &str,
        adapter: &str,
        encoding: Encoding,
        deliver: DeliverMode,
    ) -> anyhow::Result<Connection> {
        let hello = self.hello(Who::Service(service.parse()?), service, adapter, deliver)?;
        Ok(Connection::open(self.address, encoding, hello).await?)
    }

    /// A connection of the gateway: handed nothing, or all that is to be sent.
    pub(super) async fn gateway(
        &self,
        encoding: Encoding,
        deliver: DeliverMode,
    ) -> anyhow::Result<Connection> {
        let who = Who::Gateway(self.gateway.parse()?);
        let hello = self.hello(who, &self.gateway, "bench-gateway", deliver)?;
        Ok(Connection::open(self.address, encoding, hello).await?)
    }
}
