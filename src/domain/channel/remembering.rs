//! What a channel remembers of ids, seen by whoever keeps it small: what may lie in runs on disk, how much memory the
//! rest takes, and what goes before its time where nothing else helps.
//!
//! **Invariant:** none of it is in a record, and laying aside changes no answer.

use super::Channel;
use crate::domain::aside::{Aside, LaidAside, Movable, Shelf};
use crate::domain::command::{Command, StatusOf};
use crate::domain::event::Event;
use crate::domain::ids::Timestamp;
use crate::domain::outbox::recalling::Recall;
use crate::domain::saved::{Put, Take, Unreadable};

impl Channel {
    /// What must be looked for in runs before a command is decided, and then be given to the outbox
    /// ([`recalled`](crate::domain::outbox::Outbox::recalled)); nothing, where all is in memory. A customer's message is
    /// [suspected](super::Received::Suspected) instead.
    #[must_use]
    pub fn recall(&self, command: &Command) -> Option<Recall> {
        match command {
            Command::Reply(reply) => self.outbox.recall_named(&reply.service, &reply.reply_id),
            Command::Withdraw { service, reply_id, .. } => self.outbox.recall_named(service, reply_id),
            Command::Echo(echo) => self.outbox.recall_message(&echo.message_id),
            Command::Status(status) => match &status.of {
                StatusOf::Message(message_id) => self.outbox.recall_message(message_id),
                StatusOf::Reply(reply) => self.outbox.recall_reply(*reply),
            },
            Command::Outcome { reply, .. } => self.outbox.recall_reply(*reply),
            _ => None,
        }
    }

    /// The same before a record is applied that was decided in another life.
    #[must_use]
    pub fn recall_for(&self, event: &Event) -> Option<Recall> {
        match event {
            Event::Receipt(receipt) => self.outbox.recall_reply(receipt.reply),
            _ => None,
        }
    }

    /// The periods of a shelf that have so many rows in memory at least. Of replies only whole periods, where `now` is
    /// given; those of senders are not the channel's.
    #[must_use]
    pub fn movable_periods(&self, shelf: Shelf, rows_min: usize, now: Option<Timestamp>) -> Vec<u64> {
        match shelf {
            Shelf::MessageIds => self.message_ids.movable_periods(rows_min).collect(),
            _ => self.outbox.movable_periods(shelf, rows_min, now),
        }
    }

    /// What may be laid aside of a period: all of it that is in memory. Looks at each.
    #[must_use]
    pub fn movable(&self, shelf: Shelf, period: u64) -> Option<Movable> {
        match shelf {
            Shelf::MessageIds => self.message_ids.movable(period),
            _ => self.outbox.movable(shelf, period),
        }
    }

    /// What comes from records up to `laid.last` in a period lies in this run from now on, or in one before.
    pub fn lay_aside(&mut self, shelf: Shelf, laid: LaidAside) {
        match shelf {
            Shelf::MessageIds => self.message_ids.lay_aside(laid),
            _ => self.outbox.lay_aside(shelf, laid),
        }
    }

    /// What was dropped and still takes memory: for who can let go of it elsewhere, at once.
    #[must_use]
    pub fn take_discarded(&mut self) -> impl Send + use<> {
        (self.message_ids.take_discarded(), self.outbox.take_discarded())
    }

    /// What lies in runs of a shelf.
    #[must_use]
    pub fn aside(&self, shelf: Shelf) -> &Aside {
        self.outbox.aside(shelf).unwrap_or_else(|| self.message_ids.aside())
    }

    /// The same, where filters become known.
    pub fn aside_mut(&mut self, shelf: Shelf) -> &mut Aside {
        match self.outbox.aside_mut(shelf) {
            Some(aside) => aside,
            None => self.message_ids.aside_mut(),
        }
    }

    /// What its ids take in memory, in bytes, about: of messages, and of replies with an outcome.
    #[must_use]
    pub fn ids_bytes(&self) -> usize {
        self.message_ids.bytes() + self.outbox.remembered_bytes()
    }

    /// Forgets the oldest ids before their time, until `bytes` of memory are free; says how many it forgot.
    pub fn drop_oldest_ids(&mut self, bytes: usize) -> usize {
        let until = self.ids_bytes().saturating_sub(bytes);
        let mut dropped = 0;
        while self.ids_bytes() > until {
            // From what takes more.
            let gone = if self.message_ids.bytes() >= self.outbox.remembered_bytes() {
                self.message_ids.drop_oldest()
            } else {
                self.outbox.drop_oldest_remembered()
            };
            if gone == 0 {
                break;
            }
            dropped += gone;
        }
        dropped
    }

    /// Writes down what [`save`](Self::save) does not: what lies in runs of a shelf.
    pub fn save_aside(&self, shelf: Shelf, out: &mut dyn Put) {
        self.aside(shelf).save(out);
    }

    /// Reads that back into a channel that was restored. No filter is known yet.
    ///
    /// # Errors
    /// When it is none.
    pub fn restore_aside(&mut self, shelf: Shelf, from: &mut dyn Take) -> Result<(), Unreadable> {
        *self.aside_mut(shelf) = Aside::restore(from)?;
        Ok(())
    }
}
