//! The record of who holds what: claims in their conversations, and an index of them for each service.
//!
//! **Invariants:** a claim stands in its conversation and in its service's index, or in neither. That a claim is
//! recorded does not say that it holds: it ends with its service's leaving, with its agent's leaving the roster and
//! with its time at once, and the record of that follows.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use super::conversations::Index;
use crate::domain::ids::{AgentId, ConversationId, Offset, Timestamp};
use crate::domain::saved::{Put, Saved, Take, Unreadable, restore_all, saved};

/// A service, as the channel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct ServiceIndex(pub(super) u16);

/// An agent, as the channel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AgentIndex(NonZeroU32);

/// The agents that the channel's records have named.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Agents {
    ids: Vec<AgentId>,
    index: BTreeMap<AgentId, AgentIndex>,
}

impl Agents {
    pub(super) fn get(&self, index: AgentIndex) -> Option<&AgentId> {
        self.ids.get(index.0.get() as usize - 1)
    }

    pub(super) fn find(&self, agent: &AgentId) -> Option<AgentIndex> {
        self.index.get(agent).copied()
    }

    /// The agent's index, given if he has none.
    pub(super) fn enter(&mut self, agent: &AgentId) -> Option<AgentIndex> {
        if let Some(known) = self.find(agent) {
            return Some(known);
        }
        let index = u32::try_from(self.ids.len() + 1).ok().and_then(NonZeroU32::new).map(AgentIndex)?;
        self.ids.push(agent.clone());
        self.index.insert(agent.clone(), index);
        Some(index)
    }
}

impl Saved for ServiceIndex {
    fn save(&self, out: &mut dyn Put) {
        out.number(u64::from(self.0));
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        u16::try_from(from.number()?).map(Self).map_err(|_| Unreadable("a service's index is too large"))
    }
}

impl Saved for AgentIndex {
    fn save(&self, out: &mut dyn Put) {
        self.0.get().save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        NonZeroU32::new(u32::restore(from)?).map(Self).ok_or(Unreadable("an agent's index is zero"))
    }
}

impl Saved for Agents {
    fn save(&self, out: &mut dyn Put) {
        self.ids.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let mut agents = Self::default();
        for agent in restore_all(from) {
            agents.enter(&agent?);
        }
        Ok(agents)
    }
}

saved!(Claim { service, agent, offset, origin, since, active_at });

/// That an agent picked a conversation up within a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) service: ServiceIndex,
    pub(super) agent: AgentIndex,
    /// The record that made it.
    pub(super) offset: Offset,
    /// The conversation in which it was made, which may have become part of another since.
    pub(super) origin: ConversationId,
    pub(super) since: Timestamp,
    /// When its holder was last seen to be active.
    pub(super) active_at: Timestamp,
}

/// A claim in an index: by the activity of its holder, the longest idle first.
type Entry = (Timestamp, Offset, Index);

fn entry(claim: &Claim, conversation: Index) -> Entry {
    (claim.active_at, claim.offset, conversation)
}

/// One service's claims.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ClaimIndex {
    by_activity: BTreeSet<Entry>,
    by_agent: BTreeMap<AgentIndex, BTreeSet<Index>>,
    /// Those that ended when the service left, whose records are due.
    ended: BTreeSet<Entry>,
}

impl ClaimIndex {
    pub(super) fn add(&mut self, claim: &Claim, conversation: Index) {
        self.by_activity.insert(entry(claim, conversation));
        self.by_agent.entry(claim.agent).or_default().insert(conversation);
    }

    /// Takes a claim out; says whether it had ended when its service left.
    pub(super) fn remove(&mut self, claim: &Claim, conversation: Index) -> bool {
        if self.ended.remove(&entry(claim, conversation)) {
            return true;
        }
        self.by_activity.remove(&entry(claim, conversation));
        if let Some(held) = self.by_agent.get_mut(&claim.agent) {
            held.remove(&conversation);
            if held.is_empty() {
                self.by_agent.remove(&claim.agent);
            }
        }
        false
    }

    /// Puts a claim that ended when its service left under another conversation.
    pub(super) fn add_ended(&mut self, claim: &Claim, conversation: Index) {
        self.ended.insert(entry(claim, conversation));
    }

    /// Whether a claim has ended when its service left.
    pub(super) fn has_ended(&self, claim: &Claim, conversation: Index) -> bool {
        self.ended.contains(&entry(claim, conversation))
    }

    /// All of them end: the service leaves.
    pub(super) fn end_all(&mut self) {
        let mut ended = std::mem::take(&mut self.by_activity);
        self.ended.append(&mut ended);
        self.by_agent.clear();
    }

    /// Conversations with a claim that ended when the service left.
    pub(super) fn ended(&self) -> impl Iterator<Item = (Offset, Index)> + '_ {
        self.ended.iter().map(|(_, offset, conversation)| (*offset, *conversation))
    }

    /// Who holds something.
    pub(super) fn holders(&self) -> impl Iterator<Item = (AgentIndex, &BTreeSet<Index>)> {
        self.by_agent.iter().map(|(agent, held)| (*agent, held))
    }

    /// How many claims hold; what has ended by its time counts until that is recorded.
    pub(super) fn len(&self) -> usize {
        self.by_activity.len()
    }

    /// The claims from the longest idle on.
    pub(super) fn idle(&self) -> impl Iterator<Item = (Timestamp, Offset, Index)> + '_ {
        self.by_activity.iter().copied()
    }
}
