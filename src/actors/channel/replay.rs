//! A channel's state from the newest base and its records since: at start, and for the next base.
//!
//! A record whose loss would leave the state wrong makes the channel *quarantined*: it answers `unavailable` instead
//! of guessing. So does a panic while replaying, which would come again at every start.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::actors::reader::READ_BYTES;
use crate::actors::registry::NumberEntry;
use crate::domain::channel::{Channel, Keys};
use crate::domain::event::Record;
use crate::domain::fingerprint::Key;
use crate::domain::ids::{ChannelId, Number, Offset, ServiceId};
use crate::domain::recent_ids::RunId;
use crate::domain::saved::Unreadable;
use crate::domain::senders::Senders;
use crate::journal::{Entry, Journal, RawRecord, ReadError, SavedError, StreamId, payload, state};

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
    let senders = Senders::new(Key::new(keys.fingerprint));
    let (mut channel, senders) = replay_with(journal, channel, senders, &mut |_, _, _| true)?;
    channel.leap_to(journal.head(StreamId::from(id)).offset);
    read_filters(journal, &mut channel);
    Ok((channel, senders))
}

/// What may be in the channel's runs; of one that can not be read nothing is known, and its ids count as unseen.
fn read_filters(journal: &dyn Journal, channel: &mut Channel) {
    let runs: Vec<RunId> = channel.ids_aside().map(|laid| laid.run).collect();
    for run in runs {
        match journal.run_filter(StreamId::from(channel.id()), run) {
            Ok(filter) => channel.set_ids_filter(run, Some(filter)),
            Err(error) => tracing::error!(
                channel = %channel.id(),
                error = &error as &dyn std::error::Error,
                "ids of a run can not be had: they count as unseen"
            ),
        }
    }
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
                    channel.apply(&record);
                    senders.apply(id, &record);
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
