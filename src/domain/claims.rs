//! What an agent is told of others' pick-ups and replies, and what a confirmation covers (R17–R20, B5, B9).
//!
//! **Invariants:** who has no access to a service learns of its holders only that there is somebody: all of them are
//! one bare entry and one generic warning (R19). A list is cut so that this entry always stays.

use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher24};

use super::command::{ClaimSeen, Rejection, Warning, WarningCode};
use super::event::Agent;
use super::ids::{AgentId, ChannelId, ConversationId, Offset, ServiceId, Timestamp};
use super::portal::Portal;

/// Most agents of one service that hold one conversation (contract: 32).
pub const HOLDERS_MAX: usize = 32;
/// Most claims shown to an agent or in a list (contract: 8), own first.
pub const CLAIMS_SHOWN_MAX: usize = 8;
/// Most warnings in one answer (contract: 8), own first.
pub const WARNINGS_MAX: usize = 8;

/// What follows the holder in R18's two sentences.
const PICKED_UP_ELSEWHERE: &str =
    " has picked up this conversation in another service. You can still choose to pick it up here.";
/// Whom R18 names where the agent has no access.
const ANOTHER_AGENT: &str = "Another agent";
/// A holder of the same service, whose rule is takeover.
const CLAIMED_BY_OTHER: &str = " has picked up this conversation. You can still choose to go on.";
/// Somebody has replied behind what the agent had seen.
const REPLIED_ELSEWHERE: &str =
    " has replied in this conversation since you last looked. You can still choose to send your reply.";
/// Whom the sentence above names where nothing more may be told, or where it was a bot.
const SOMEONE_ELSE: &str = "Someone else";

/// A claim that holds now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held<'a> {
    /// The service within which it holds.
    pub(super) service: &'a ServiceId,
    /// The holder, as his roster names him.
    pub(super) holder: &'a Agent,
    /// Since when.
    pub(super) since: Timestamp,
    /// The record that made it: what a confirmation covers it by.
    pub(super) offset: Offset,
    /// The conversation in which it was made.
    pub(super) origin: ConversationId,
}

/// Up to where a confirmation covers, and the id that it was given for: of the conversation, or of a younger one that
/// has become part of it since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Covered {
    /// The id.
    pub(super) conversation: ConversationId,
    /// Claims and replies of it up to here.
    pub(super) through: Offset,
}

/// A reply by somebody else that the asking agent had not seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unseen<'a> {
    /// Who wrote it, as far as that is still known: the service, and the agent if it was one.
    pub(super) author: Option<(&'a ServiceId, Option<&'a AgentId>)>,
    /// Its record: what a confirmation covers it by.
    pub(super) offset: Offset,
}

/// What an agent is warned of until he confirms it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Open<'a> {
    /// That somebody holds the conversation.
    Claim(&'a Held<'a>),
    /// That somebody has replied.
    Reply(&'a Unseen<'a>),
}

impl Open<'_> {
    /// Its record.
    pub(super) fn offset(&self) -> Offset {
        match self {
            Self::Claim(claim) => claim.offset,
            Self::Reply(reply) => reply.offset,
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    /// The portal whose rosters say what he may see.
    pub(super) portal: &'a Portal,
    /// The service within which he works.
    pub(super) service: &'a ServiceId,
    /// The agent; none for a bot or a list, which see nothing of others.
    pub(super) agent: Option<&'a AgentId>,
}

impl Asking<'_> {
    /// Whether he may see who holds what in the service (R18, R19).
    fn may_see(&self, service: &ServiceId) -> bool {
        service == self.service || self.agent.is_some_and(|agent| self.portal.has_access(agent, service))
    }

    /// The claims as he may see them, own first.
    pub(super) fn claims_seen(&self, held: &[Held<'_>]) -> Vec<ClaimSeen> {
        let is_own = |claim: &&Held<'_>| claim.service == self.service;
        let own = held.iter().filter(is_own).map(|claim| shown(claim, true));
        let visible = |claim: &&Held<'_>| !is_own(claim) && self.may_see(claim.service);
        let elsewhere = held.iter().filter(visible).map(|claim| shown(claim, false));
        let somebody = held.iter().any(|claim| !self.may_see(claim.service));
        let bare = ClaimSeen { own: false, service: None, agent: None, name: None, since: None };
        let room = CLAIMS_SHOWN_MAX - usize::from(somebody);
        own.chain(elsewhere).take(room).chain(somebody.then_some(bare)).collect()
    }

    /// The warnings of these claims and of this reply, own first, unless all of them are covered.
    pub(super) fn warnings(
        &self,
        held: &[Held<'_>],
        unseen: Option<Unseen<'_>>,
        is_covered: impl Fn(&Open<'_>) -> bool,
    ) -> Vec<Warning> {
        let mut open = held.iter().map(Open::Claim).chain(unseen.as_ref().map(Open::Reply));
        if open.all(|open| is_covered(&open)) {
            return Vec::new();
        }
        let is_own = |claim: &&Held<'_>| claim.service == self.service;
        let own = held.iter().filter(is_own).map(claimed_by_other);
        let replied = unseen.map(|reply| self.replied_elsewhere(&reply));
        let visible = |claim: &&Held<'_>| !is_own(claim) && self.may_see(claim.service);
        let elsewhere = held.iter().filter(visible).map(picked_up_elsewhere);
        let somebody = held.iter().any(|claim| !self.may_see(claim.service));
        let room = WARNINGS_MAX - usize::from(somebody) - usize::from(replied.is_some());
        let named = own.chain(elsewhere).take(room);
        named.chain(replied).chain(somebody.then(generic)).collect()
    }

    fn replied_elsewhere(&self, reply: &Unseen<'_>) -> Warning {
        let seen = reply.author.filter(|(service, _)| self.may_see(service));
        let agent = seen.and_then(|(service, agent)| self.portal.agent(service, agent?));
        Warning {
            code: WarningCode::RepliedElsewhere,
            text: sentence(agent.map_or(SOMEONE_ELSE, called), REPLIED_ELSEWHERE),
            agent: agent.map(|agent| agent.agent.clone()),
            name: agent.map(|agent| Arc::clone(&agent.name)),
            service: seen.map(|(service, _)| service.clone()),
        }
    }
}

fn shown(claim: &Held<'_>, own: bool) -> ClaimSeen {
    ClaimSeen {
        own,
        service: Some(claim.service.clone()),
        agent: Some(claim.holder.agent.clone()),
        name: Some(Arc::clone(&claim.holder.name)),
        since: Some(claim.since),
    }
}

fn named(code: WarningCode, claim: &Held<'_>, rest: &str) -> Warning {
    Warning {
        code,
        text: sentence(called(claim.holder), rest),
        agent: Some(claim.holder.agent.clone()),
        name: Some(Arc::clone(&claim.holder.name)),
        service: Some(claim.service.clone()),
    }
}

fn claimed_by_other(claim: &Held<'_>) -> Warning {
    named(WarningCode::ClaimedByOther, claim, CLAIMED_BY_OTHER)
}

fn picked_up_elsewhere(claim: &Held<'_>) -> Warning {
    named(WarningCode::PickedUpElsewhere, claim, PICKED_UP_ELSEWHERE)
}

fn generic() -> Warning {
    Warning {
        code: WarningCode::PickedUpElsewhere,
        text: sentence(ANOTHER_AGENT, PICKED_UP_ELSEWHERE),
        agent: None,
        name: None,
        service: None,
    }
}

/// What an agent is called: by his name, or by his id where the roster gives none.
fn called(agent: &Agent) -> &str {
    if agent.name.is_empty() { agent.agent.as_str() } else { &agent.name }
}

fn sentence(who: &str, rest: &str) -> Arc<str> {
    [who, rest].concat().into()
}

/// Whom a confirmation is for: an agent, in whatever service, or a service's bot.
#[derive(Debug, Clone, Copy)]
pub(super) enum Confirming<'a> {
    /// The same person in every service.
    Agent(&'a AgentId),
    /// A bot.
    Bot(&'a ServiceId),
}

/// A confirmation that covers the claims and replies of a conversation up to an offset: a MAC, so that nothing is
/// remembered of it and it survives a restart.
pub(super) fn confirmation(
    key: &[u8; 16],
    channel: ChannelId,
    conversation: ConversationId,
    whose: Confirming<'_>,
    through: Offset,
) -> Arc<str> {
    let mut mac = SipHasher24::new_with_key(key);
    mac.write(&channel.0.to_le_bytes());
    mac.write(&conversation.0.to_le_bytes());
    mac.write(&through.0.to_le_bytes());
    // The name is last and of one of two kinds, so no two inputs are the same bytes.
    match whose {
        Confirming::Agent(agent) => {
            mac.write(b"a");
            mac.write(agent.as_str().as_bytes());
        }
        Confirming::Bot(service) => {
            mac.write(b"b");
            mac.write(service.as_str().as_bytes());
        }
    }
    format!("{:x}.{:032x}", through.0, mac.finish128().as_u128()).into()
}

/// What `confirm` covers, if it was given for one of these ids of the conversation.
///
/// # Errors
/// `StaleConfirm` where it is unreadable, or was given for another conversation or agent.
pub(super) fn covered(
    key: &[u8; 16],
    channel: ChannelId,
    ids: impl IntoIterator<Item = ConversationId>,
    whose: Confirming<'_>,
    confirm: &str,
) -> Result<Covered, Rejection> {
    let (through, _) = confirm.split_once('.').ok_or(Rejection::StaleConfirm)?;
    let through = u64::from_str_radix(through, 16).map(Offset).map_err(|_| Rejection::StaleConfirm)?;
    let is_ours = |id: &ConversationId| is_equal(&confirmation(key, channel, *id, whose, through), confirm);
    let conversation = ids.into_iter().find(is_ours).ok_or(Rejection::StaleConfirm)?;
    Ok(Covered { conversation, through })
}

/// Compares without telling by its time where two texts differ.
fn is_equal(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
