//! A channel's state from its records, at start.
//!
//! A record whose loss would leave the state wrong makes the channel *quarantined*: it answers `unavailable` instead
//! of guessing. So does a panic while replaying, which would come again at every start.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use crate::actors::reader::READ_BYTES;
use crate::actors::registry::NumberEntry;
use crate::domain::channel::{Channel, Keys};
use crate::domain::ids::{ChannelId, Number, Offset, ServiceId};
use crate::journal::{Entry, Journal, ReadError, StreamId, payload};

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
    /// Replaying panicked.
    #[error("replaying panicked")]
    Panic,
}

/// Folds a channel's records; who sent which message goes into the number's index.
pub(in crate::actors) fn replay(
    journal: &dyn Journal,
    id: ChannelId,
    number: (&Number, &NumberEntry),
    only: Option<ServiceId>,
    keys: Keys,
) -> Result<Channel, Quarantine> {
    let channel = Channel::new(id, number.0.clone(), only, keys, number.1.send_ttl_ms);
    catch_unwind(AssertUnwindSafe(|| fold(journal, channel, number.1))).unwrap_or(Err(Quarantine::Panic))
}

fn fold(journal: &dyn Journal, mut channel: Channel, number: &NumberEntry) -> Result<Channel, Quarantine> {
    let id = channel.id();
    let stream = StreamId::from(id);
    let mut from = Offset(1);
    loop {
        let found = journal.read(stream, from, READ_BYTES)?;
        let mut senders = number.senders.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in found.entries {
            match entry {
                Entry::Record(raw) => {
                    let offset = raw.offset;
                    let record = payload::decode_record(&raw)
                        .map_err(|error| Quarantine::Payload { offset, error })?;
                    channel.apply(&record);
                    senders.apply(id, &record);
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
    channel.leap_to(journal.head(stream).offset);
    Ok(channel)
}
