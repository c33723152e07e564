//! What can be asked of conversations without changing anything: one of them, and lists.

use super::conversations::{Conversation, Index};
use super::{Channel, ConversationNow, ListQuery};
use crate::domain::claims::{Asking, Held};
use crate::domain::command::{ConversationSeen, Opened, Rejection};
use crate::domain::ids::{ConversationId, Offset, ServiceId, Timestamp};
use crate::domain::portal::Portal;

/// Most conversations in one answer (contract: `limit` is at most 200).
pub const LIST_MAX: usize = 200;
/// Most conversations that one call looks at, so that a filter that few pass stops nobody else.
pub const LIST_LOOKED_AT_MAX: usize = 10_000;

impl Channel {
    /// The entry of a conversation, by its id or by that of a younger one.
    pub(super) fn find(&self, id: ConversationId) -> Option<&Conversation> {
        self.conversations.find(id).and_then(|index| self.conversations.get(index))
    }

    /// A conversation, by its id or by that of a younger one that became part of it.
    #[must_use]
    pub fn conversation(&self, id: ConversationId, now: Timestamp) -> Option<ConversationNow> {
        let entry = self.find(id)?;
        Some(ConversationNow {
            conversation: entry.id,
            head: entry.head,
            customer_at: entry.customer_at,
            window: self.window_of(Some(entry), now),
            merged: entry.merged().iter().map(|younger| (younger.id, younger.head)).collect(),
        })
    }

    /// What a service would see of a conversation that none of its agents opens: no warnings, and all others' claims as
    /// one bare entry, as in a list. Counts as nobody's activity.
    ///
    /// # Errors
    /// When there is no such conversation, or the service is not subscribed.
    pub fn look(
        &self,
        portal: &Portal,
        service: &ServiceId,
        conversation: ConversationId,
        now: Timestamp,
    ) -> Result<Opened, Rejection> {
        self.check_subscribed(service)?;
        let entry = self.find(conversation).ok_or(Rejection::NotFound)?;
        let held: Vec<Held<'_>> = self.held(portal, entry, now).collect();
        Ok(Opened {
            conversation: entry.id,
            head: entry.head,
            claims: Asking { portal, service, agent: None }.claims_seen(&held),
            warned: None,
            window: self.window_of(Some(entry), now),
            thread: self.thread_seen(entry, service, now),
        })
    }

    /// The last offset of a conversation, zero if there is none: where the chain of its records goes on.
    #[must_use]
    pub fn conversation_head(&self, id: ConversationId) -> Offset {
        self.find(id).map_or(Offset::ZERO, |entry| entry.head)
    }

    /// Conversations in the order in which they began, and the `after` of the next call if there may be more.
    ///
    /// A call looks at no more than [`LIST_LOOKED_AT_MAX`] of them, so it may give fewer than `limit` though there
    /// are more.
    #[must_use]
    pub fn list_conversations(
        &self,
        portal: &Portal,
        query: &ListQuery,
        now: Timestamp,
    ) -> (Vec<ConversationSeen>, Option<ConversationId>) {
        let limit = query.limit.clamp(1, LIST_MAX);
        let mut listed = Vec::new();
        let mut last: Option<(Index, ConversationId)> = None;
        for (index, entry) in self.conversations.behind(query).take(LIST_LOOKED_AT_MAX) {
            if listed.len() == limit {
                break;
            }
            last = Some((index, entry.id));
            listed.extend(self.listed(portal, query, entry, now));
        }
        let next =
            last.filter(|(index, _)| (*index as usize) + 1 < self.conversations.len()).map(|(_, id)| id);
        (listed, next)
    }

    fn listed(
        &self,
        portal: &Portal,
        query: &ListQuery,
        entry: &Conversation,
        now: Timestamp,
    ) -> Option<ConversationSeen> {
        let unanswered = entry.is_unanswered();
        if entry.is_signpost() || query.unanswered.is_some_and(|wanted| wanted != unanswered) {
            return None;
        }
        let held: Vec<Held<'_>> = self.held(portal, entry, now).collect();
        if query.claimed.is_some_and(|wanted| wanted == held.is_empty()) {
            return None;
        }
        let asking = Asking { portal, service: &query.service, agent: None };
        Some(ConversationSeen {
            conversation: entry.id,
            customer_at: entry.customer_at,
            head: entry.head,
            window: self.window_of(Some(entry), now),
            claims: asking.claims_seen(&held),
            unanswered,
            thread: self.thread_seen(entry, &query.service, now),
        })
    }
}
