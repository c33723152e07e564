//! A channel's state from the newest base and its records since: at start, and for the next base.
//!
//! A record whose loss would leave the state wrong makes the channel *quarantined*: it answers `unavailable` instead
//! of guessing. So does a panic while replaying, which would come again at every start.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::actors::reader::READ_BYTES;
use crate::actors::registry::NumberEntry;
use crate::domain::aside::{RunId, Shelf};
use crate::domain::channel::{Channel, Keys};
use crate::domain::event::Record;
use crate::domain::fingerprint::Key;
use crate::domain::ids::{ChannelId, Number, Offset, ServiceId};
use crate::domain::outbox::recalling::{Recall, Recalled};
use crate::domain::saved::Unreadable;
use crate::domain::senders::Senders;
use crate::journal::{Entry, Journal, RawRecord, ReadError, RunError, SavedError, StreamId, payload, state};

/// Why a channel's state can not be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::actors) enum Quarantine {
    /// A record that the state rests on is damaged.
    #[error("record {offset} is damaged ({place}, byte {position})")]
    Damaged {
        /// Which.
        offset: Offset,
        /// The file.
        place: String,
        /// Where in it.
        position: u64,
    },
    /// A record is whole and yet not understood.
    #[error("record {offset} can not be read")]
    Payload {
        /// Which.
        offset: Offset,
        /// Why.
        #[source]
        error: payload::PayloadError,
    },
    /// The disk refuses.
    #[error("the journal can not be read")]
    Read(#[from] ReadError),
    /// The disk refuses what was laid aside.
    #[error("what the channel remembers can not be read")]
    Run(#[from] RunError),
    /// The newest base does not have it, or has set it aside.
    #[error("its saved state can not be had")]
    Saved(#[from] SavedError),
    /// The state in the base is whole and yet not understood.
    #[error("its saved state can not be read")]
    State(#[from] Unreadable),
    /// Its first records are gone, and no base has their state.
    #[error("its first records are gone, and their state with them")]
    Gone,
    /// Whoever folds has stopped; the channel is as it was.
    #[error("it was stopped")]
    Stopped,
    /// Replaying panicked.
    #[error("replaying panicked")]
    Panic,
}

/// A channel's state and who sent which of its messages, from the newest base and the records behind it.
pub(in crate::actors) fn replay(
    journal: &dyn Journal,
    id: ChannelId,
    number: (&Number, &NumberEntry),
    only: Option<ServiceId>,
    keys: Keys,
) -> Result<(Channel, Senders), Quarantine> {
    let channel = Channel::new(id, number.0.clone(), only, keys, number.1.send_ttl_ms());
    let senders = Senders::new(Key::new(keys.fingerprint), id);
    let (mut channel, mut senders) = replay_with(journal, channel, senders, &mut |_, _, _| true)?;
    channel.leap_to(journal.head(StreamId::from(id)).offset);
    read_filters(journal, &mut channel, Shelf::MessageIds);
    senders.set_aside(channel.aside(Shelf::Sent).clone());
    Ok((channel, senders))
}

/// What may be in the channel's runs; of one that can not be read nothing is known, and its rows count as unseen.
fn read_filters(journal: &dyn Journal, channel: &mut Channel, shelf: Shelf) {
    let runs: Vec<RunId> = channel.aside(shelf).iter().map(|laid| laid.run).collect();
    for run in runs {
        match journal.run_filter(StreamId::from(channel.id()), run) {
            Ok(filter) => channel.aside_mut(shelf).set_filter(run, Some(filter)),
            Err(error) => tracing::error!(
                channel = %channel.id(),
                error = &error as &dyn std::error::Error,
                "a run can not be had: what is in it counts as unseen"
            ),
        }
    }
}

/// Looks into a channel's runs for what is in memory no more. Where one is damaged or missing, what is in it counts as
/// unseen. Blocks.
///
/// # Errors
/// When the disk refuses.
pub(in crate::actors) fn look(
    journal: &dyn Journal,
    stream: StreamId,
    recall: &Recall,
) -> Result<Recalled, RunError> {
    recall.look(|run, key| match journal.find_in_run(stream, run, key) {
        Err(error @ (RunError::Missing { .. } | RunError::Damaged { .. })) => {
            tracing::error!(
                %stream,
                error = &error as &dyn std::error::Error,
                "what was laid aside can not be looked up: it counts as unseen"
            );
            Ok(None)
        }
        found => found,
    })
}

/// The same into a channel before its first record; `applied` is told each record that was folded, and whether to
/// go on.
pub(in crate::actors) fn replay_with(
    journal: &dyn Journal,
    channel: Channel,
    senders: Senders,
    applied: &mut dyn FnMut(&Channel, &RawRecord, &Record) -> bool,
) -> Result<(Channel, Senders), Quarantine> {
    let fold = AssertUnwindSafe(|| fold(journal, channel, senders, applied));
    catch_unwind(fold).unwrap_or(Err(Quarantine::Panic))
}

fn fold(
    journal: &dyn Journal,
    mut channel: Channel,
    mut senders: Senders,
    applied: &mut dyn FnMut(&Channel, &RawRecord, &Record) -> bool,
) -> Result<(Channel, Senders), Quarantine> {
    let id = channel.id();
    let stream = StreamId::from(id);
    let mut from = Offset(1);
    let saved = journal.saved(stream)?;
    let mut first = journal.first(stream);
    if let Some(saved) = saved {
        (channel, senders) = state::restore_channel(&saved.state, channel, senders.key())?;
        for shelf in [Shelf::ReplyIds, Shelf::Outcomes, Shelf::Sent] {
            read_filters(journal, &mut channel, shelf);
        }
        from = saved.as_of.next();
        // What lies before is in the state, there or not.
        first = from;
    }
    if first > from {
        return Err(Quarantine::Gone);
    }
    loop {
        let found = journal.read(stream, from, READ_BYTES)?;
        for entry in found.entries {
            match entry {
                Entry::Record(raw) => {
                    let offset = raw.offset;
                    let record = payload::decode_record(&raw)
                        .map_err(|error| Quarantine::Payload { offset, error })?;
                    if let Some(recall) = channel.recall_for(&record.event) {
                        channel.outbox_mut().recalled(look(journal, stream, &recall)?);
                        channel.apply(&record);
                        channel.outbox_mut().forget_recalled();
                    } else {
                        channel.apply(&record);
                    }
                    senders.apply(&record);
                    if !applied(&channel, &raw, &record) {
                        return Err(Quarantine::Stopped);
                    }
                }
                Entry::Corrupt(damage) => {
                    return Err(Quarantine::Damaged {
                        offset: damage.from,
                        place: damage.place,
                        position: damage.position,
                    });
                }
            }
        }
        if found.next <= from {
            break;
        }
        from = found.next;
    }
    Ok((channel, senders))
}
