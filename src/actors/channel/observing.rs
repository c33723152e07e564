//! What a channel's actor lets others see of itself without being asked: levels, and how far each service has got.
//!
//! Relaxed stores once a batch into what the registry holds; whoever observes reads it there, so that no look at the
//! broker ever waits for an actor.

use std::sync::atomic::Ordering;

use super::ChannelActor;
use super::asks::Held;
use crate::domain::ids::Offset;

impl ChannelActor {
    /// Notes the levels, after each message that was handled.
    pub(super) fn note_levels(&self) {
        let levels = &self.entry.sight.levels;
        let outbox = self.channel.outbox();
        levels.waiting.store(outbox.waiting_len() as u64, Ordering::Relaxed);
        levels.handed.store(outbox.handed_len() as u64, Ordering::Relaxed);
        levels.parked.store(outbox.parked_len() as u64, Ordering::Relaxed);
        levels.conversations.store(self.channel.conversations_len() as u64, Ordering::Relaxed);
        levels.ids_bytes.store(self.channel.ids_bytes() as u64, Ordering::Relaxed);
        levels.claims.store(self.channel.claims_len() as u64, Ordering::Relaxed);
        levels.threads.store(self.channel.threads_len() as u64, Ordering::Relaxed);
    }

    /// Counts answers that leave.
    pub(super) fn count_answers(&self, held: &[Held]) {
        let counters = &self.shared.counters;
        for held in held {
            match held {
                Held::Answers { answers, .. } => {
                    counters.answered(answers.iter().map(|(_, answered)| answered))
                }
                Held::Answer { answered, .. } => counters.answered([answered]),
                Held::Reading { .. } => {}
            }
        }
    }

    /// Who is in the list has changed, or is known for the first time: from where each service's progress counts.
    pub(super) fn follow_progress(&self) {
        let subscribers = self.channel.subscribers();
        self.entry.sight.keep_progress(subscribers);
        for service in subscribers.iter() {
            let span = self.channel.delivery_span(service);
            let first = span.stretches.first().map_or(Offset::ZERO, |stretch| stretch.after);
            self.entry.sight.progress_of(service).store(span.acknowledged.max(first).0, Ordering::Relaxed);
        }
    }

    /// Notes how far each service has got that has connections: once a commit. What is acknowledged while nothing else
    /// happens is recorded within a second, and that is a commit.
    pub(super) fn note_progress(&self) {
        for feed in &self.feeds {
            feed.progress.store(feed.cursor.acknowledged().0, Ordering::Relaxed);
        }
    }
}
