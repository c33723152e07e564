//! Pick-ups: open, pick up, release, transfer, and what a confirmation covers (R17–R20, B9–B11).

use std::sync::Arc;

use super::claiming::ServiceIndex;
use super::conversations::Conversation;
use super::standing::Slot;
use super::{Channel, Turn};
use crate::domain::claims::{Asking, Confirming, Covered, HOLDERS_MAX, Held, Open, confirmation, covered};
use crate::domain::command::{Answer, ClaimCommand, Opened, Rejection, Warned, Warning};
use crate::domain::event::{Actor, Agent, ClaimAction, ClaimChange, Event};
use crate::domain::ids::{AgentId, ConversationId, Offset, ServiceId, Timestamp};
use crate::domain::portal::{PickUpRule, Portal};

/// An agent of a subscriber, at a conversation.
struct AtConversation<'a> {
    entry: &'a Conversation,
    slot: &'a Slot,
    service: ServiceIndex,
    agent: &'a Agent,
}

impl Channel {
    /// The claims of a conversation that hold now, in the order in which they were made.
    pub(super) fn held<'a>(
        &'a self,
        portal: &'a Portal,
        entry: &'a Conversation,
        now: Timestamp,
    ) -> impl Iterator<Item = Held<'a>> {
        entry.claims().iter().filter(move |claim| self.ended(portal, claim, now).is_none()).filter_map(
            move |claim| {
                let service = &self.services.get(claim.service)?.id;
                let holder = portal.agent(service, self.agents.get(claim.agent)?)?;
                Some(Held { service, holder, since: claim.since, offset: claim.offset, origin: claim.origin })
            },
        )
    }

    fn at_conversation<'a>(
        &'a self,
        portal: &'a Portal,
        service: &ServiceId,
        conversation: ConversationId,
        agent: &AgentId,
    ) -> Result<AtConversation<'a>, Rejection> {
        self.check_subscribed(service)?;
        let index = self.services.find(service).ok_or(Rejection::NotSubscribed)?;
        let slot = self.services.get(index).ok_or(Rejection::NotSubscribed)?;
        let entry = self.find(conversation).ok_or(Rejection::NotFound)?;
        let agent = portal.agent(service, agent).ok_or(Rejection::UnknownAgent)?;
        Ok(AtConversation { entry, slot, service: index, agent })
    }

    /// Presence is told to others while it lasts; here it is only checked.
    pub(super) fn decide_presence(
        &self,
        turn: &Turn<'_>,
        service: &ServiceId,
        conversation: ConversationId,
        agent: &AgentId,
    ) -> Result<Answer, Rejection> {
        self.at_conversation(turn.portal, service, conversation, agent).map(|_| Answer::Done)
    }

    pub(super) fn decide_open(
        &self,
        turn: &mut Turn<'_>,
        service: &ServiceId,
        conversation: ConversationId,
        agent: &AgentId,
    ) -> Result<Answer, Rejection> {
        let at = self.at_conversation(turn.portal, service, conversation, agent)?;
        let held: Vec<Held<'_>> = self.held(turn.portal, at.entry, turn.now).collect();
        let asking = Asking { portal: turn.portal, service, agent: Some(agent) };
        let others = self.others_to_warn_of(turn.portal, &held, service, agent);
        let warnings = asking.warnings(&others, None, |_| false);
        let opened = Opened {
            conversation: at.entry.id,
            head: at.entry.head,
            claims: asking.claims_seen(&held),
            warned: self.warned(at.entry, Confirming::Agent(agent), warnings),
            window: self.window_of(Some(at.entry), turn.now),
            thread: self.thread_seen(at.entry, service, turn.now),
        };
        self.record_activity(turn, at.entry, at.service, agent);
        Ok(Answer::Opened(opened))
    }

    pub(super) fn decide_pick_up(
        &self,
        turn: &mut Turn<'_>,
        service: &ServiceId,
        conversation: ConversationId,
        agent: &AgentId,
        confirm: Option<&str>,
    ) -> Result<Answer, Rejection> {
        let at = self.at_conversation(turn.portal, service, conversation, agent)?;
        let held: Vec<Held<'_>> = self.held(turn.portal, at.entry, turn.now).collect();
        let own = || held.iter().filter(|claim| claim.service == service);
        if own().any(|claim| claim.holder.agent == *agent) {
            self.record_activity(turn, at.entry, at.service, agent);
            return Ok(Answer::PickedUp);
        }
        let rule = pick_up_rule(turn.portal, service);
        if rule == PickUpRule::Exclusive
            && let Some(claim) = own().next()
        {
            return Err(claimed(claim));
        }
        if rule == PickUpRule::Open && own().count() >= HOLDERS_MAX {
            return Err(Rejection::TooManyHolders);
        }
        let covered = self.covered(at.entry, Confirming::Agent(agent), confirm)?;
        let asking = Asking { portal: turn.portal, service, agent: Some(agent) };
        let others = self.others_to_warn_of(turn.portal, &held, service, agent);
        let warnings = asking.warnings(&others, None, |open| is_covered(at.entry, covered, open));
        if let Some(warned) = self.warned(at.entry, Confirming::Agent(agent), warnings) {
            return Ok(Answer::Warned(warned));
        }
        self.record_ended(turn, at.entry, at.service);
        if rule == PickUpRule::Takeover {
            for claim in own() {
                let change = change(ClaimAction::Released, &at, claim.holder);
                let taken = ClaimChange { by_agent: Some(agent.clone()), ..change };
                turn.record(Some(at.entry.id), Event::from(taken));
            }
        }
        turn.record(Some(at.entry.id), Event::from(change(ClaimAction::PickedUp, &at, at.agent)));
        Ok(Answer::PickedUp)
    }

    pub(super) fn decide_release(
        &self,
        turn: &mut Turn<'_>,
        command: &ClaimCommand,
    ) -> Result<Answer, Rejection> {
        let (entry, holder) = self.claim_meant(turn, command)?;
        let change = ClaimChange {
            action: ClaimAction::Released,
            service: command.service.clone(),
            agent: holder.agent.clone(),
            name: Some(Arc::clone(&holder.name)),
            from: None,
            by: command.by.clone(),
            by_agent: command.agent.clone().filter(|agent| *agent != holder.agent),
        };
        turn.record(Some(entry.id), Event::from(change));
        Ok(Answer::Done)
    }

    pub(super) fn decide_transfer(
        &self,
        turn: &mut Turn<'_>,
        command: &ClaimCommand,
        to: &AgentId,
    ) -> Result<Answer, Rejection> {
        let (entry, holder) = self.claim_meant(turn, command)?;
        let service = &command.service;
        let heir = turn.portal.agent(service, to).ok_or(Rejection::UnknownAgent)?;
        if holder.agent == *to {
            return Ok(Answer::PickedUp);
        }
        let by_agent = command.agent.clone().filter(|agent| *agent != holder.agent);
        let change = ClaimChange {
            action: ClaimAction::Transferred,
            service: service.clone(),
            agent: heir.agent.clone(),
            name: Some(Arc::clone(&heir.name)),
            from: Some(holder.agent.clone()),
            by: command.by.clone(),
            by_agent,
        };
        let mut held = self.held(turn.portal, entry, turn.now);
        if held.any(|claim| claim.service == service && claim.holder.agent == *to) {
            // He holds it already, beside the other: only the other's ends.
            let ended = ClaimChange { action: ClaimAction::Released, from: None, ..change };
            let ended =
                ClaimChange { agent: holder.agent.clone(), name: Some(Arc::clone(&holder.name)), ..ended };
            turn.record(Some(entry.id), Event::from(ended));
        } else {
            if let Some(index) = self.services.find(service) {
                self.record_ended(turn, entry, index);
            }
            turn.record(Some(entry.id), Event::from(change));
        }
        Ok(Answer::PickedUp)
    }

    /// The claim that a release or a transfer is about, if whoever asks may end it.
    fn claim_meant<'a>(
        &'a self,
        turn: &Turn<'a>,
        command: &ClaimCommand,
    ) -> Result<(&'a Conversation, &'a Agent), Rejection> {
        let ClaimCommand { service, by, conversation, agent, holder } = command;
        self.check_subscribed(service)?;
        let entry = self.find(*conversation).ok_or(Rejection::NotFound)?;
        let meant = match by {
            Actor::Service(asking) if asking != service => return Err(Rejection::Forbidden),
            Actor::Service(_) => {
                let agent =
                    agent.as_ref().ok_or(Rejection::BadMessage("a service asks for one of its agents"))?;
                let asking = turn.portal.agent(service, agent).ok_or(Rejection::UnknownAgent)?;
                let meant = holder.as_ref().unwrap_or(agent);
                if meant != agent && !asking.lead {
                    return Err(Rejection::Forbidden);
                }
                meant
            }
            Actor::Operator | Actor::Broker => {
                holder.as_ref().ok_or(Rejection::BadMessage("the operator names the holder"))?
            }
        };
        let mut held = self.held(turn.portal, entry, turn.now);
        let claim = held.find(|claim| claim.service == service && claim.holder.agent == *meant);
        claim.map(|claim| (entry, claim.holder)).ok_or(Rejection::NotClaimed)
    }

    /// The claims that an agent is warned of: others' in other services, and in his own one under takeover. Who holds
    /// something in another service is the same person as here.
    pub(super) fn others_to_warn_of<'a>(
        &self,
        portal: &Portal,
        held: &[Held<'a>],
        service: &ServiceId,
        agent: &AgentId,
    ) -> Vec<Held<'a>> {
        let takeover = pick_up_rule(portal, service) == PickUpRule::Takeover;
        let warned_of =
            |claim: &&Held<'_>| claim.holder.agent != *agent && (claim.service != service || takeover);
        held.iter().filter(warned_of).copied().collect()
    }

    /// What a confirmation covers; nothing without one.
    pub(super) fn covered(
        &self,
        entry: &Conversation,
        whose: Confirming<'_>,
        confirm: Option<&str>,
    ) -> Result<Covered, Rejection> {
        let Some(confirm) = confirm else {
            return Ok(Covered { conversation: entry.id, through: Offset::ZERO });
        };
        let ids = [entry.id].into_iter().chain(entry.merged().iter().map(|younger| younger.id));
        covered(&self.keys.confirm, self.id, ids, whose, confirm)
    }

    /// The warnings with what confirms them.
    pub(super) fn warned(
        &self,
        entry: &Conversation,
        whose: Confirming<'_>,
        warnings: Vec<Warning>,
    ) -> Option<Warned> {
        if warnings.is_empty() {
            return None;
        }
        let confirm = confirmation(&self.keys.confirm, self.id, entry.id, whose, entry.head);
        Some(Warned { warnings, confirm })
    }
}

/// The service's rule for pick-ups; the default for one that the configuration does not know any more.
pub(super) fn pick_up_rule(portal: &Portal, service: &ServiceId) -> PickUpRule {
    portal.service(service).map_or(PickUpRule::default(), |rules| rules.pick_up)
}

/// Whether a confirmation covers a claim or a reply. What was made in another conversation is covered only by what was
/// given after that one had become part of this: before, nobody was warned of it.
pub(super) fn is_covered(entry: &Conversation, covered: Covered, open: &Open<'_>) -> bool {
    if open.offset() > covered.through {
        return false;
    }
    let Open::Claim(claim) = open else { return true };
    let mut at = claim.origin;
    while at != covered.conversation {
        let joined = entry.merged().iter().find(|younger| younger.id == at);
        // Each step goes to an older conversation, so this ends.
        match joined.filter(|younger| younger.merged_at <= covered.through) {
            Some(younger) => at = younger.into,
            None => return false,
        }
    }
    true
}

/// The refusal that names who holds it.
pub(super) fn claimed(claim: &Held<'_>) -> Rejection {
    Rejection::Claimed { holder: claim.holder.agent.clone(), name: Some(Arc::clone(&claim.holder.name)) }
}

/// A change of a claim by the service whose it is.
fn change(action: ClaimAction, at: &AtConversation<'_>, holder: &Agent) -> ClaimChange {
    ClaimChange {
        action,
        service: at.slot.id.clone(),
        agent: holder.agent.clone(),
        name: Some(Arc::clone(&holder.name)),
        from: None,
        by: Actor::Service(at.slot.id.clone()),
        by_agent: None,
    }
}
