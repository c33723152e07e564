//! A portal: what its configuration says of its services, and the fold of its own stream.
//!
//! Owns who may take part (R11), whose agents are whose (B11), and the directory of the portal's channels. A channel
//! decides against a snapshot (`Arc<Portal>`): cloning shares the rosters, so that a change costs only what it changes.
//!
//! **Invariants:** directory and told rosters come from [`PortalEvent`]s alone, rules and fixed rosters from the
//! configuration alone; `apply` is total. A closed id stays closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::command::Rejection;
use super::event::{Agent, PortalEvent, RosterChange};
use super::ids::{AgentId, ChannelId, NAME_BYTES_MAX, Number, PortalId, ServiceId};
use super::outbox::turns::WEIGHT_DEFAULT;
use super::saved::{Put, Saved, Take, Unreadable, restore_all, save_all, saved};
use super::view::Masking;

/// Most agents in one service's roster. Far more than a service's staff, and 10 MB at the very most.
pub const ROSTER_AGENTS_MAX: usize = 20_000;

/// Families that can not share a number (R11): finance, and the article's eight products. Compared without case.
pub const FAMILIES_NOT_ELIGIBLE: [&str; 9] = [
    "finance",
    "books",
    "inventory",
    "invoice",
    "subscriptions",
    "expense",
    "commerce",
    "checkout",
    "payroll",
];

/// What the portal has licensed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plan {
    /// Its services share one channel a number.
    Bundle,
    /// Every service has a channel of its own for the same number (R10).
    Isolated,
}

/// A service's own rule for pick-ups (R17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PickUpRule {
    /// One holder; a second agent is refused.
    #[default]
    Exclusive,
    /// One holder; a second agent is warned, and takes over when he confirms.
    Takeover,
    /// Any number of holders.
    Open,
}

/// What becomes of a bot's reply while an agent of its service holds the conversation (B16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BotWhenClaimed {
    /// It is sent.
    #[default]
    Send,
    /// It gets `claimed`.
    Refuse,
}

/// Who says which agents a service has (B11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RosterSource {
    /// The service itself, by its adapters.
    #[default]
    Adapter,
    /// The configuration; the request is forbidden.
    Config,
}

/// What the configuration says of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRules {
    /// Its id.
    pub service: ServiceId,
    /// The kind of product.
    pub family: String,
    /// How it receives others' replies (R14).
    pub masking: Masking,
    /// Its rule for pick-ups.
    pub pick_up: PickUpRule,
    /// How long a claim lives without activity of its holder, in milliseconds; for ever if none (B10).
    pub claim_ttl_ms: Option<u64>,
    /// What becomes of a bot's reply to a conversation that is held.
    pub bot_when_claimed: BotWhenClaimed,
    /// Its share of what a number may send, beside those of the other services: 1 to
    /// [`WEIGHT_MAX`](super::outbox::turns::WEIGHT_MAX) (B14).
    pub weight: u32,
}

impl ServiceRules {
    /// Whether a service of this family can share a number (R11).
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        !FAMILIES_NOT_ELIGIBLE.iter().any(|family| family.eq_ignore_ascii_case(self.family.trim()))
    }
}

/// What the configuration says of one portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortalRules {
    /// Its id.
    pub portal: PortalId,
    /// What it has licensed.
    pub plan: Plan,
    /// Who names the agents.
    pub rosters: RosterSource,
    /// Its services.
    pub services: Vec<ServiceRules>,
    /// The agents, with [`RosterSource::Config`]; else not looked at.
    pub fixed_rosters: BTreeMap<ServiceId, Vec<Agent>>,
}

impl PortalRules {
    /// The same for a portal that stands in the configuration no longer: it has no service.
    #[must_use]
    pub fn without_services(&self) -> Self {
        Self { services: Vec::new(), fixed_rosters: BTreeMap::new(), ..self.clone() }
    }
}

/// One service's agents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Roster {
    /// How many changes made it.
    version: u64,
    agents: BTreeMap<AgentId, Agent>,
}

impl Roster {
    fn change(&mut self, change: &RosterChange) {
        self.version += 1;
        if change.replace {
            self.agents.clear();
        }
        for gone in &change.remove {
            self.agents.remove(gone);
        }
        for agent in &change.agents {
            self.agents.insert(agent.agent.clone(), agent.clone());
        }
    }
}

/// Where an open channel is found: its number, and its one service on plan `isolated`.
type Place = (Number, Option<ServiceId>);

/// A portal's rules and the fold of its stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Portal {
    rules: Arc<PortalRules>,
    services: BTreeMap<ServiceId, ServiceRules>,
    /// What the services have said; not looked at while the configuration fixes the rosters.
    told: BTreeMap<ServiceId, Arc<Roster>>,
    /// What the configuration says.
    fixed: BTreeMap<ServiceId, Arc<Roster>>,
    open: BTreeMap<Place, ChannelId>,
    closed: Arc<BTreeSet<ChannelId>>,
}

saved!(Agent { agent, name, lead });

impl Saved for Roster {
    fn save(&self, out: &mut dyn Put) {
        self.version.save(out);
        save_all(self.agents.len(), self.agents.values(), out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let version = Saved::restore(from)?;
        let mut agents = BTreeMap::new();
        for agent in restore_all(from) {
            let agent: Agent = agent?;
            agents.insert(agent.agent.clone(), agent);
        }
        Ok(Self { version, agents })
    }
}

impl Portal {
    /// Writes down the fold of its stream; the rules are the configuration's.
    pub fn save(&self, out: &mut dyn Put) {
        out.number(self.told.len() as u64);
        for (service, roster) in &self.told {
            service.save(out);
            roster.save(out);
        }
        out.number(self.open.len() as u64);
        for (place, channel) in &self.open {
            place.save(out);
            channel.save(out);
        }
        save_all(self.closed.len(), self.closed.iter(), out);
    }

    /// Takes over what was saved of a portal; this one is new.
    ///
    /// # Errors
    /// When it is none.
    pub fn restore(&mut self, from: &mut dyn Take) -> Result<(), Unreadable> {
        for told in restore_all(from) {
            let (service, roster): (ServiceId, Roster) = told?;
            self.told.insert(service, Arc::new(roster));
        }
        self.open = restore_all(from).collect::<Result<_, _>>()?;
        self.closed = Arc::new(restore_all(from).collect::<Result<_, _>>()?);
        Ok(())
    }

    /// A portal before its first event.
    #[must_use]
    pub fn new(rules: PortalRules) -> Self {
        let mut portal = Self {
            rules: Arc::new(rules),
            services: BTreeMap::new(),
            told: BTreeMap::new(),
            fixed: BTreeMap::new(),
            open: BTreeMap::new(),
            closed: Arc::default(),
        };
        portal.take_rules();
        portal
    }

    /// The same portal under other rules: a reload.
    #[must_use]
    pub fn with_rules(&self, rules: PortalRules) -> Self {
        let mut portal = self.clone();
        portal.rules = Arc::new(rules);
        portal.take_rules();
        portal
    }

    /// What the portal's channels have to know of it: its rules and rosters, without the directory. Each of them holds
    /// it, so with the directory they would take room by the square of their number.
    #[must_use]
    pub fn for_channels(&self) -> Self {
        Self {
            rules: Arc::clone(&self.rules),
            services: self.services.clone(),
            told: self.told.clone(),
            fixed: self.fixed.clone(),
            open: BTreeMap::new(),
            closed: Arc::default(),
        }
    }

    /// What the configuration says of it.
    #[must_use]
    pub fn rules(&self) -> &PortalRules {
        &self.rules
    }

    fn take_rules(&mut self) {
        self.services =
            self.rules.services.iter().map(|rules| (rules.service.clone(), rules.clone())).collect();
        let fixed = |agents: &Vec<Agent>| {
            let agents = agents.iter().map(|agent| (agent.agent.clone(), agent.clone())).collect();
            Arc::new(Roster { version: 1, agents })
        };
        self.fixed =
            self.rules.fixed_rosters.iter().map(|(of, agents)| (of.clone(), fixed(agents))).collect();
    }

    fn roster(&self, service: &ServiceId) -> Option<&Roster> {
        let rosters = match self.rules.rosters {
            RosterSource::Adapter => &self.told,
            RosterSource::Config => &self.fixed,
        };
        rosters.get(service).map(|roster| &**roster)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &PortalId {
        &self.rules.portal
    }

    /// What it has licensed.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.rules.plan
    }

    /// The rules of one of its services.
    #[must_use]
    pub fn service(&self, service: &ServiceId) -> Option<&ServiceRules> {
        self.services.get(service)
    }

    /// How much each service weighs that does not weigh 1.
    #[must_use]
    pub fn weights(&self) -> BTreeMap<ServiceId, u32> {
        let heavy = self.services.values().filter(|rules| rules.weight != WEIGHT_DEFAULT);
        heavy.map(|rules| (rules.service.clone(), rules.weight)).collect()
    }

    /// All its services.
    pub fn services(&self) -> impl Iterator<Item = &ServiceRules> {
        self.services.values()
    }

    /// The one service that a channel which `service` may see is for: none where all share it (R10).
    #[must_use]
    pub fn only(&self, service: &ServiceId) -> Option<ServiceId> {
        match self.plan() {
            Plan::Bundle => None,
            Plan::Isolated => Some(service.clone()),
        }
    }

    /// What a service's word on its own agents becomes.
    ///
    /// # Errors
    /// `Forbidden` where the configuration names the agents, `NotFound` for a service that is not the portal's,
    /// `BadMessage` past a limit.
    pub fn decide_roster(&self, change: &RosterChange) -> Result<PortalEvent, Rejection> {
        if self.service(&change.service).is_none() {
            return Err(Rejection::NotFound);
        }
        if self.rules.rosters == RosterSource::Config {
            return Err(Rejection::Forbidden);
        }
        if change.agents.iter().any(|agent| agent.name.len() > NAME_BYTES_MAX) {
            return Err(Rejection::BadMessage("an agent's name has more than 256 bytes"));
        }
        if change.agents.len() > ROSTER_AGENTS_MAX {
            return Err(Rejection::BadMessage(TOO_MANY_AGENTS));
        }
        let mut after = self.roster(&change.service).cloned().unwrap_or_default();
        after.change(change);
        if after.agents.len() > ROSTER_AGENTS_MAX {
            return Err(Rejection::BadMessage(TOO_MANY_AGENTS));
        }
        Ok(PortalEvent::Roster(change.clone()))
    }

    /// What gives the channel for `number` its id; nothing where there is an open one already (R2).
    #[must_use]
    pub fn decide_open(
        &self,
        number: &Number,
        only: Option<&ServiceId>,
        fresh: ChannelId,
    ) -> Option<PortalEvent> {
        if self.open_channel(number, only).is_some() {
            return None;
        }
        Some(PortalEvent::ChannelOpened { channel: fresh, number: number.clone(), service: only.cloned() })
    }

    /// What writes down that a channel is closed; nothing where it is not open.
    #[must_use]
    pub fn decide_closed(&self, channel: ChannelId) -> Option<PortalEvent> {
        self.open.values().any(|open| *open == channel).then_some(PortalEvent::ChannelClosed { channel })
    }

    /// Takes an event of the portal's stream. Total.
    pub fn apply(&mut self, event: &PortalEvent) {
        match event {
            PortalEvent::Roster(change) => {
                Arc::make_mut(self.told.entry(change.service.clone()).or_default()).change(change);
            }
            PortalEvent::ChannelOpened { channel, number, service } => {
                self.open.insert((number.clone(), service.clone()), *channel);
            }
            PortalEvent::ChannelClosed { channel } => {
                self.open.retain(|_, open| open != channel);
                Arc::make_mut(&mut self.closed).insert(*channel);
            }
        }
    }

    /// An agent in a service's roster.
    #[must_use]
    pub fn agent(&self, service: &ServiceId, agent: &AgentId) -> Option<&Agent> {
        self.roster(service)?.agents.get(agent)
    }

    /// Whether the agent works in the service, so that he may see who holds what there (R18, R19).
    #[must_use]
    pub fn has_access(&self, agent: &AgentId, service: &ServiceId) -> bool {
        self.agent(service, agent).is_some()
    }

    /// How many changes made the service's roster what it is.
    #[must_use]
    pub fn roster_version(&self, service: &ServiceId) -> u64 {
        self.roster(service).map_or(0, |roster| roster.version)
    }

    /// The open channel for a number, and for one service on plan `isolated`.
    #[must_use]
    pub fn open_channel(&self, number: &Number, only: Option<&ServiceId>) -> Option<ChannelId> {
        self.open.get(&(number.clone(), only.cloned())).copied()
    }

    /// Every open channel, with its number and its one service on plan `isolated`.
    pub fn open_channels(&self) -> impl Iterator<Item = (ChannelId, &Number, Option<&ServiceId>)> {
        self.open.iter().map(|((number, only), channel)| (*channel, number, only.as_ref()))
    }

    /// Whether the id was a channel's that is closed.
    #[must_use]
    pub fn is_closed(&self, channel: ChannelId) -> bool {
        self.closed.contains(&channel)
    }
}

const TOO_MANY_AGENTS: &str = "a roster has at most 20000 agents";

/// Why a number is not a portal's to use (B1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberRefusal {
    /// It is another portal's. Nothing else is told.
    #[error("the number belongs to another portal")]
    Taken,
    /// No portal has it.
    #[error("no such number")]
    NotFound,
}

/// Which portal a number belongs to (B1): one each, by the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Numbers {
    owners: BTreeMap<Number, PortalId>,
}

impl Numbers {
    /// The directory of all portals' numbers.
    ///
    /// # Errors
    /// The number that stands in two portals.
    pub fn new(numbers: impl IntoIterator<Item = (Number, PortalId)>) -> Result<Self, Number> {
        let mut owners = BTreeMap::new();
        for (number, portal) in numbers {
            let before = owners.insert(number.clone(), portal.clone());
            if before.is_some_and(|before| before != portal) {
                return Err(number);
            }
        }
        Ok(Self { owners })
    }

    /// Whether the portal may use the number.
    ///
    /// # Errors
    /// Where it is another portal's or nobody's.
    pub fn admit(&self, portal: &PortalId, number: &Number) -> Result<(), NumberRefusal> {
        match self.owners.get(number) {
            None => Err(NumberRefusal::NotFound),
            Some(owner) if owner == portal => Ok(()),
            Some(_) => Err(NumberRefusal::Taken),
        }
    }

    /// The portal that has the number.
    #[must_use]
    pub fn owner(&self, number: &Number) -> Option<&PortalId> {
        self.owners.get(number)
    }
}
