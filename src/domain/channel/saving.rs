//! A channel's state written down and read back, and which records it still rests on.

use std::collections::BTreeSet;

use super::Channel;
use super::claiming::Claim;
use super::conversations::Index;
use super::threads::Noted;
use crate::domain::event::Settings;
use crate::domain::ids::{ConversationId, Offset};
use crate::domain::saved::{Put, Saved, Take, Unreadable, restore_all, saved};

/// A record that must be readable for as long as the state names it, however old it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rests {
    /// Its customer's ids; the rest of it is history.
    OnCustomer(Offset),
    /// The whole of it: a reply without outcome.
    OnReply(Offset),
}

saved!(Settings { reveal_service, reveal_kind });

impl Channel {
    /// Writes the state down, but for what it was made with.
    pub fn save(&self, out: &mut dyn Put) {
        self.head.save(out);
        self.services.save(out);
        self.agents.save(out);
        self.parent.save(out);
        self.subscribers.to_vec().save(out);
        self.settings.save(out);
        self.active_since.save(out);
        self.conversations.save(out);
        let ended: Vec<(Offset, u32)> = self
            .claims()
            .filter(|(index, claim)| {
                self.services.get(claim.service).is_some_and(|slot| slot.claims.has_ended(claim, *index))
            })
            .map(|(index, claim)| (claim.offset, index))
            .collect();
        ended.save(out);
        self.message_ids.save(out);
        self.outbox.save(out);
    }

    /// Takes over what was saved of a channel that was made with the same; this one is new.
    ///
    /// # Errors
    /// When it is none.
    pub fn restore(mut self, from: &mut dyn Take) -> Result<Self, Unreadable> {
        self.head = Saved::restore(from)?;
        self.services = Saved::restore(from)?;
        self.agents = Saved::restore(from)?;
        self.parent = Saved::restore(from)?;
        self.subscribers = Vec::restore(from)?.into();
        self.settings = Saved::restore(from)?;
        self.active_since = Saved::restore(from)?;
        self.conversations = Saved::restore(from)?;
        self.noted = Noted::of(&self.conversations);
        let ended: BTreeSet<(Offset, u32)> = restore_all(from).collect::<Result<_, _>>()?;
        let claims: Vec<(Index, Claim)> = self.claims().map(|(index, claim)| (index, *claim)).collect();
        for (index, claim) in claims {
            let slot = self.services.get_mut(claim.service);
            let slot = slot.ok_or(Unreadable("a claim in a service that is none"))?;
            if ended.contains(&(claim.offset, index)) {
                slot.claims.add_ended(&claim, index);
            } else {
                slot.claims.add(&claim, index);
            }
        }
        self.message_ids = Saved::restore(from)?;
        self.outbox.restore(from)?;
        Ok(self)
    }

    /// The records that the state rests on beside what is saved of it, in no order.
    pub fn rests(&self) -> impl Iterator<Item = Rests> + '_ {
        let customers = self.conversations.iter().map(|(_, entry)| entry.customer_at);
        let customers = customers.filter(|offset| *offset > Offset::ZERO).map(Rests::OnCustomer);
        customers.chain(self.outbox.open_replies().map(Rests::OnReply))
    }

    /// Where the names of a conversation's customer stand; zero where there are none.
    #[must_use]
    pub fn customer_at(&self, conversation: ConversationId) -> Offset {
        self.find(conversation).map_or(Offset::ZERO, |entry| entry.customer_at)
    }

    fn claims(&self) -> impl Iterator<Item = (Index, &Claim)> {
        self.conversations
            .iter()
            .flat_map(|(index, entry)| entry.claims().iter().map(move |claim| (index, claim)))
    }
}
