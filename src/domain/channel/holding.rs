//! How claims live and end: activity, time, leaving; what the records of it do to the state (B10).
//!
//! A claim that has ended (its time is over, its service left, its agent left the roster) counts as ended at once;
//! its record is made by the next decision about the same service's claims there, or by `Tick`.

use std::sync::Arc;

use super::claiming::{Claim, ServiceIndex};
use super::conversations::{Conversation, Index};
use super::standing::Slot;
use super::{Channel, Standing, Turn};
use crate::domain::event::{Actor, ClaimAction, ClaimActivity, ClaimChange, Event, Record};
use crate::domain::ids::{AgentId, ConversationId, Offset, ServiceId, Timestamp};
use crate::domain::portal::Portal;

/// A claim's activity is recorded at most once per this part of its time to live (B10).
const ACTIVITY_PARTS: u64 = 10;

impl Channel {
    /// Whether and how a claim has ended, though no record says so yet.
    pub(super) fn ended(&self, portal: &Portal, claim: &Claim, now: Timestamp) -> Option<ClaimAction> {
        let Some(slot) = self.services.get(claim.service) else { return Some(ClaimAction::Released) };
        if slot.standing != Standing::Subscribed || claim.offset <= slot.left_at {
            return Some(ClaimAction::Released);
        }
        if self.agents.get(claim.agent).and_then(|agent| portal.agent(&slot.id, agent)).is_none() {
            return Some(ClaimAction::Released);
        }
        let ttl_ms = portal.service(&slot.id).and_then(|rules| rules.claim_ttl_ms)?;
        (claim.active_at.plus_ms(ttl_ms) <= now).then_some(ClaimAction::Expired)
    }

    /// Records that the holder was active, if he is one whose claim can expire and a tenth of its time is over.
    pub(super) fn record_activity(
        &self,
        turn: &mut Turn<'_>,
        entry: &Conversation,
        service: ServiceIndex,
        agent: &AgentId,
    ) {
        let Some(slot) = self.services.get(service) else { return };
        let Some(ttl_ms) = turn.portal.service(&slot.id).and_then(|rules| rules.claim_ttl_ms) else { return };
        let own = |claim: &&Claim| claim.service == service && self.agents.get(claim.agent) == Some(agent);
        let Some(claim) = entry.claims().iter().find(own) else { return };
        let is_due =
            turn.now.since_ms(claim.active_at) >= ttl_ms / ACTIVITY_PARTS && turn.now > claim.active_at;
        if is_due && self.ended(turn.portal, claim, turn.now).is_none() {
            let active = ClaimActivity { service: slot.id.clone(), agent: agent.clone() };
            turn.record(Some(entry.id), Event::from(active));
        }
    }

    /// Records the end of those claims of a service in a conversation that have ended.
    pub(super) fn record_ended(&self, turn: &mut Turn<'_>, entry: &Conversation, service: ServiceIndex) {
        for claim in entry.claims().iter().filter(|claim| claim.service == service) {
            if let Some(action) = self.ended(turn.portal, claim, turn.now) {
                self.record_end(turn, entry.id, claim, action);
            }
        }
    }

    /// Records that a claim ended with nobody acting.
    pub(super) fn record_end(
        &self,
        turn: &mut Turn<'_>,
        conversation: ConversationId,
        claim: &Claim,
        action: ClaimAction,
    ) {
        let Some(service) = self.services.get(claim.service).map(|slot| slot.id.clone()) else { return };
        let Some(agent) = self.agents.get(claim.agent).cloned() else { return };
        let name = turn.portal.agent(&service, &agent).map(|agent| Arc::clone(&agent.name));
        let by = Actor::Broker;
        let change = ClaimChange { action, service, agent, name, from: None, by, by_agent: None };
        turn.record(Some(conversation), Event::from(change));
    }

    /// Records ends of claims that are due: of services that left, of agents out of the roster, of time.
    pub(super) fn record_due_ends(&self, turn: &mut Turn<'_>) {
        for slot in self.services.iter() {
            for (offset, index) in slot.claims.ended() {
                if turn.room() == 0 {
                    return;
                }
                self.record_end_at(turn, index, offset, ClaimAction::Released);
            }
            self.record_leavers(turn, slot);
            let Some(ttl_ms) = turn.portal.service(&slot.id).and_then(|rules| rules.claim_ttl_ms) else {
                continue;
            };
            for (active_at, offset, index) in slot.claims.idle() {
                if turn.room() == 0 || turn.now < active_at.plus_ms(ttl_ms) {
                    break;
                }
                self.record_end_at(turn, index, offset, ClaimAction::Expired);
            }
        }
    }

    /// Records that the claims of those end who are not in the service's roster any more.
    pub(super) fn record_leavers(&self, turn: &mut Turn<'_>, slot: &Slot) {
        for (agent, held) in slot.claims.holders() {
            if self.agents.get(agent).is_some_and(|agent| turn.portal.agent(&slot.id, agent).is_some()) {
                continue;
            }
            for index in held {
                if turn.room() == 0 {
                    return;
                }
                let of_agent = |claim: &&Claim| self.is_of(claim, slot) && claim.agent == agent;
                let claim =
                    self.conversations.get(*index).and_then(|entry| entry.claims().iter().find(of_agent));
                if let Some(claim) = claim {
                    self.record_end_at(turn, *index, claim.offset, ClaimAction::Released);
                }
            }
        }
    }

    fn is_of(&self, claim: &Claim, slot: &Slot) -> bool {
        self.services.get(claim.service).is_some_and(|of| of.id == slot.id)
    }

    /// Records the end of the claim that was made at `offset`. What would end by its time though its agent is out of
    /// the roster was recorded as released.
    fn record_end_at(&self, turn: &mut Turn<'_>, index: Index, offset: Offset, action: ClaimAction) {
        let Some(entry) = self.conversations.get(index) else { return };
        let Some(claim) = entry.claims().iter().find(|claim| claim.offset == offset) else { return };
        let as_meant =
            action == ClaimAction::Released || self.ended(turn.portal, claim, turn.now) == Some(action);
        if as_meant {
            self.record_end(turn, entry.id, claim, action);
        }
    }

    /// When the first claim ends by its time.
    pub(super) fn claim_deadline(&self, portal: &Portal) -> Option<Timestamp> {
        let deadline = |slot: &Slot| {
            let ttl_ms = portal.service(&slot.id)?.claim_ttl_ms?;
            slot.claims.idle().next().map(|(active_at, ..)| active_at.plus_ms(ttl_ms))
        };
        self.services.iter().filter_map(deadline).min()
    }

    pub(super) fn apply_claim(&mut self, record: &Record, index: Index, change: &ClaimChange) {
        let Some(service) = self.services.enter(&change.service) else { return };
        let Some(agent) = self.agents.enter(&change.agent) else { return };
        self.end_claim(index, service, &change.agent);
        if let Some(before) = &change.from {
            self.end_claim(index, service, before);
        }
        if matches!(change.action, ClaimAction::PickedUp | ClaimAction::Transferred) {
            let Some(origin) = self.conversations.get(index).map(|entry| entry.id) else { return };
            let (offset, at) = (record.offset, record.at);
            self.put_claim(index, Claim { service, agent, offset, origin, since: at, active_at: at }, false);
        }
    }

    /// Puts a claim into its conversation and into its service's index.
    pub(super) fn put_claim(&mut self, index: Index, claim: Claim, ended: bool) {
        let Some(entry) = self.conversations.get_mut(index) else { return };
        let Some(slot) = self.services.get_mut(claim.service) else { return };
        entry.claims_mut().push(claim);
        if ended {
            slot.claims.add_ended(&claim, index);
        } else {
            slot.claims.add(&claim, index);
        }
    }

    fn end_claim(&mut self, index: Index, service: ServiceIndex, agent: &AgentId) {
        let Some(agent) = self.agents.find(agent) else { return };
        let Some(entry) = self.conversations.get_mut(index) else { return };
        let Some(place) =
            entry.claims().iter().position(|claim| claim.service == service && claim.agent == agent)
        else {
            return;
        };
        let claim = entry.claims_mut().remove(place);
        entry.tidy();
        if let Some(slot) = self.services.get_mut(service) {
            slot.claims.remove(&claim, index);
        }
    }

    /// Takes note that a holder was active.
    pub(super) fn apply_activity(
        &mut self,
        index: Index,
        service: &ServiceId,
        agent: &AgentId,
        at: Timestamp,
    ) {
        let Some(service) = self.services.find(service) else { return };
        let Some(agent) = self.agents.find(agent) else { return };
        let Some(entry) = self.conversations.get_mut(index) else { return };
        let Some(slot) = self.services.get_mut(service) else { return };
        let Some(place) =
            entry.claims().iter().position(|claim| claim.service == service && claim.agent == agent)
        else {
            return;
        };
        let Some(claim) = entry.claims_mut().get_mut(place) else { return };
        let ended = slot.claims.remove(claim, index);
        claim.active_at = claim.active_at.max(at);
        if ended {
            slot.claims.add_ended(claim, index);
        } else {
            slot.claims.add(claim, index);
        }
    }
}
