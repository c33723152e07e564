//! The operator's way in: what is there, what a named service would see, and what is changed on a service's behalf.
//!
//! It stands where a session's actor stands for a service. What it changes is recorded as the operator's; what it shows
//! of a conversation is what the named service would see, which whoever writes it asks
//! [`view`](crate::domain::view::view) for.
//!
//! **Invariant:** a conversation is shown as one service sees it, never whole.

use tokio::sync::oneshot;

use super::asking::{Ask, Asked, ReplyTo, Work};
use super::broker::{Broker, PortalSetup};
use super::port::{Answered, Refusal};
use super::portal::Create;
use super::registry::ChannelEntry;
use crate::domain::channel::ListQuery;
use crate::domain::command::{ChannelSeen, ChannelState, ClaimCommand, Command, StandingCommand};
use crate::domain::event::Actor as By;
use crate::domain::ids::{AgentId, ChannelId, ConversationId, Number, Offset, PortalId, ServiceId};
use crate::domain::portal::{NumberRefusal, Plan};
use crate::domain::view::Masking;

pub use crate::domain::command::{StandingChange, ThreadSeen};

/// Most entries of a timeline in one answer (contract: 200).
pub const TIMELINE_MAX: usize = 200;
/// Entries of a timeline where nobody says how many (contract: 50).
pub const TIMELINE_DEFAULT: usize = 50;
/// Most channels in one answer (contract: 500).
pub use super::adapter::CHANNELS_MAX;
/// Most conversations in one answer (contract: 200).
pub use super::adapter::CONVERSATIONS_MAX;

/// An answer, and the service through whose eyes it is to be written.
#[derive(Debug)]
pub struct Told {
    /// What is answered.
    pub answered: Answered,
    /// As whom; nobody where the answer shows no conversation.
    pub viewer: Option<(ServiceId, Masking)>,
}

impl Told {
    fn plain(answered: Answered) -> Self {
        Self { answered, viewer: None }
    }
}

/// What the configuration says of a portal, in names alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortalSeen {
    /// Its id.
    pub portal: String,
    /// `bundle` or `isolated`.
    pub plan: &'static str,
    /// Its services.
    pub services: Vec<String>,
    /// Its numbers.
    pub numbers: Vec<String>,
    /// Its gateways over TCP.
    pub gateways: Vec<String>,
}

/// A channel, and what beside it an operator may want to know.
#[derive(Debug, Clone)]
pub struct ChannelListed {
    /// The channel, as its services see it.
    pub seen: ChannelSeen,
    /// Its portal.
    pub portal: String,
    /// The services that have left its list and may come back.
    pub inactive: Vec<String>,
    /// Its state can not be had from the journal: it answers nothing.
    pub is_quarantined: bool,
}

/// Which conversations a list shall have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Page {
    /// Behind this one.
    pub after: Option<ConversationId>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Only those held in any service, or in none.
    pub claimed: Option<bool>,
    /// Only those without, or with, a reply since the customer's newest message.
    pub unanswered: Option<bool>,
}

/// A claim of a service.
#[derive(Debug, Clone)]
pub struct ClaimOf {
    /// The service within which it holds.
    pub service: ServiceId,
    /// Who holds it.
    pub holder: AgentId,
}

impl Broker {
    /// What the configuration says of every portal.
    #[must_use]
    pub fn portals_seen(&self) -> Vec<PortalSeen> {
        self.inner.shared.settings().portals.values().map(portal_seen).collect()
    }

    /// The channels that are not closed, behind `after`; and the `after` of the next call, if there are more.
    #[must_use]
    pub fn channels_listed(
        &self,
        portal: Option<&PortalId>,
        after: Option<ChannelId>,
        limit: Option<usize>,
    ) -> (Vec<ChannelListed>, Option<ChannelId>) {
        let limit = limit.unwrap_or(CHANNELS_MAX).clamp(1, CHANNELS_MAX);
        let all = self.inner.shared.registry.channels.iter().map(|entry| entry.value().clone());
        let wanted = |entry: &ChannelEntry| {
            portal.is_none_or(|portal| entry.portal == *portal) && after.is_none_or(|after| entry.id > after)
        };
        let mut listed: Vec<ChannelListed> = all
            .filter(wanted)
            .map(|entry| listed(&entry))
            .filter(|listed| listed.is_quarantined || listed.seen.state != ChannelState::Closed)
            .collect();
        listed.sort_unstable_by_key(|listed| listed.seen.channel);
        let next =
            if listed.len() > limit { listed.get(limit - 1).map(|one| one.seen.channel) } else { None };
        listed.truncate(limit);
        (listed, next)
    }

    /// One channel, a closed one too.
    #[must_use]
    pub fn channel_listed(&self, channel: ChannelId) -> Option<ChannelListed> {
        let entry = self.entry(channel)?;
        (entry.addr.is_none() || entry.sight.head() > Offset::ZERO).then(|| listed(&entry))
    }

    /// Creates a number in a service. Cancelled, it is done all the same.
    pub async fn create_for(
        &self,
        portal: &PortalId,
        service: ServiceId,
        number: Number,
        backfill: bool,
    ) -> Told {
        let refused = |refusal| Told::plain(Answered::Refused(refusal));
        let settings = self.inner.shared.settings();
        let Some(setup) = settings.portals.get(portal) else {
            return refused(Refusal::NotFound);
        };
        if !setup.rules.services.iter().any(|rules| rules.service == service) {
            return refused(Refusal::NotFound);
        }
        match settings.numbers.admit(portal, &number) {
            Ok(()) => {}
            Err(NumberRefusal::Taken) => return refused(Refusal::NumberTaken),
            Err(NumberRefusal::NotFound) => return refused(Refusal::NotFound),
        }
        let only = (setup.rules.plan == Plan::Isolated).then(|| service.clone());
        let Some(actor) = self.inner.shared.registry.portals.get(portal).map(|actor| actor.value().clone())
        else {
            return refused(Refusal::Unavailable);
        };
        let change = StandingChange::Create;
        let standing = StandingCommand { service, by: By::Operator, change, backfill };
        let (answer, answered) = oneshot::channel();
        let asked = Asked { ask: Ask::Standing(standing), reply_to: ReplyTo::Caller(answer) };
        // A closed mailbox drops the answer's sender, which is told below.
        let _ = actor.try_send(Create { number, only, origin: None, asked });
        Told::plain(answered.await.unwrap_or(Answered::Refused(Refusal::Unavailable)))
    }

    /// Changes a service's standing in a channel. Cancelled, it is done all the same.
    pub async fn stand_for(
        &self,
        channel: ChannelId,
        service: ServiceId,
        change: StandingChange,
        backfill: bool,
    ) -> Told {
        let Some(entry) = self.entry_for(channel, &service) else {
            return Told::plain(Answered::Refused(Refusal::NotFound));
        };
        let standing = StandingCommand { service, by: By::Operator, change, backfill };
        Told::plain(ask(&entry, Ask::Standing(standing)).await)
    }

    /// Conversations of a channel, as a service would list them. Cancel safe.
    pub async fn conversations_as(&self, channel: ChannelId, service: ServiceId, page: Page) -> Told {
        let query = ListQuery {
            service: service.clone(),
            after: page.after,
            limit: page.limit.unwrap_or(CONVERSATIONS_MAX).clamp(1, CONVERSATIONS_MAX),
            claimed: page.claimed,
            unanswered: page.unanswered,
        };
        self.look(channel, service, Ask::List(query)).await
    }

    /// A conversation, as a service would see it; of its timeline what lies before this offset. Cancel safe.
    pub async fn conversation_as(
        &self,
        channel: ChannelId,
        conversation: ConversationId,
        service: ServiceId,
        limit: Option<usize>,
        before: Option<u64>,
    ) -> Told {
        let limit = limit.unwrap_or(TIMELINE_DEFAULT).clamp(1, TIMELINE_MAX);
        let before = before.map(Offset);
        let look = Ask::Look { service: service.clone(), conversation, limit, before };
        self.look(channel, service, look).await
    }

    /// Ends any claim of a service (B10). Cancelled, it is done all the same.
    pub async fn release_for(
        &self,
        channel: ChannelId,
        conversation: ConversationId,
        claim: ClaimOf,
    ) -> Told {
        let service = claim.service.clone();
        let release = Command::Release(of_operator(conversation, claim));
        self.look(channel, service, Ask::from(release)).await
    }

    /// Hands any claim of a service to another agent of it (B10). Cancelled, it is done all the same.
    pub async fn transfer_for(
        &self,
        channel: ChannelId,
        conversation: ConversationId,
        claim: ClaimOf,
        to: AgentId,
    ) -> Told {
        let service = claim.service.clone();
        let transfer = Command::Transfer { claim: of_operator(conversation, claim), to };
        self.look(channel, service, Ask::from(transfer)).await
    }

    /// Asks a channel something within a service, and says through whose eyes the answer is to be written.
    async fn look(&self, channel: ChannelId, service: ServiceId, what: Ask) -> Told {
        let Some(entry) = self.entry_for(channel, &service) else {
            return Told::plain(Answered::Refused(Refusal::NotFound));
        };
        let masking = self.masking_of(&entry.portal, &service);
        Told { answered: ask(&entry, what).await, viewer: Some((service, masking)) }
    }

    fn masking_of(&self, portal: &PortalId, service: &ServiceId) -> Masking {
        self.inner.shared.settings().masking(portal, service)
    }

    fn entry(&self, channel: ChannelId) -> Option<ChannelEntry> {
        self.inner.shared.registry.channels.get(&channel).map(|entry| entry.value().clone())
    }

    /// A channel that the service may know of (R10).
    fn entry_for(&self, channel: ChannelId, service: &ServiceId) -> Option<ChannelEntry> {
        self.entry(channel).filter(|entry| entry.is_for(&entry.portal, Some(service)))
    }
}

async fn ask(entry: &ChannelEntry, ask: Ask) -> Answered {
    let Some(addr) = &entry.addr else { return Answered::Refused(Refusal::Unavailable) };
    let (answer, answered) = oneshot::channel();
    let asked = vec![Asked { ask, reply_to: ReplyTo::Caller(answer) }];
    let _ = addr.try_send(Work { origin: None, asked, permits: None });
    // Who will not answer any more drops what he would answer with.
    answered.await.unwrap_or(Answered::Refused(Refusal::Unavailable))
}

fn of_operator(conversation: ConversationId, claim: ClaimOf) -> ClaimCommand {
    let ClaimOf { service, holder } = claim;
    ClaimCommand { service, by: By::Operator, conversation, agent: None, holder: Some(holder) }
}

fn listed(entry: &ChannelEntry) -> ChannelListed {
    ChannelListed {
        seen: entry.sight.seen(),
        portal: entry.portal.to_string(),
        inactive: entry.sight.inactive().iter().map(ToString::to_string).collect(),
        is_quarantined: entry.addr.is_none(),
    }
}

fn portal_seen(setup: &PortalSetup) -> PortalSeen {
    PortalSeen {
        portal: setup.rules.portal.to_string(),
        plan: match setup.rules.plan {
            Plan::Bundle => "bundle",
            Plan::Isolated => "isolated",
        },
        services: setup.rules.services.iter().map(|rules| rules.service.to_string()).collect(),
        numbers: setup.numbers.iter().map(|number| number.number.to_string()).collect(),
        gateways: setup.gateway_tokens.keys().map(ToString::to_string).collect(),
    }
}
