//! The states of channels and portals as a base holds them: bytes behind a version of their own.
//!
//! ```text
//!  version (a number, see `codec`) │ the state's fields, in the order in which the domain saves them
//! ```
//!
//! A version is never read as another one. What a later version adds, it adds by reading the older one and saving anew.

use bytes::Bytes;

use super::codec::{Reader, put_number};
use crate::domain::channel::Channel;
use crate::domain::fingerprint::Key;
use crate::domain::ids::{ChannelId, Number, ServiceId};
use crate::domain::portal::Portal;
use crate::domain::saved::{Put, Saved, Take, Unreadable, restore_all};
use crate::domain::senders::Senders;

/// The version that is written, and the only one that is read.
const VERSION: u64 = 1;

/// Where a channel is found: its number, and its one service on plan `isolated`.
pub type Place = (Number, Option<ServiceId>);

/// A channel, and who sent which of its messages.
#[must_use]
pub fn save_channel(channel: &Channel, senders: &Senders) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, VERSION);
    channel.save(&mut out);
    senders.save(&mut out);
    out
}

/// Reads back what was saved; `new` is the channel before its first record, and `key` that of the fingerprints.
///
/// # Errors
/// When the bytes are no channel's of this version.
pub fn restore_channel(bytes: &Bytes, new: Channel, key: Key) -> Result<(Channel, Senders), Unreadable> {
    let mut reader = versioned(bytes)?;
    let channel = new.restore(&mut reader)?;
    let senders = Senders::restore(key, &mut reader)?;
    reader.end().map_err(|_| Unreadable("it goes on behind its end"))?;
    Ok((channel, senders))
}

/// A portal, and every channel that it ever opened.
#[must_use]
pub fn save_portal(portal: &Portal, ever: &[(ChannelId, Place)]) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, VERSION);
    portal.save(&mut out);
    out.number(ever.len() as u64);
    for (channel, place) in ever {
        channel.save(&mut out);
        place.save(&mut out);
    }
    out
}

/// Reads back what was saved into a portal before its first record.
///
/// # Errors
/// When the bytes are no portal's of this version.
pub fn restore_portal(bytes: &Bytes, portal: &mut Portal) -> Result<Vec<(ChannelId, Place)>, Unreadable> {
    let mut reader = versioned(bytes)?;
    portal.restore(&mut reader)?;
    let ever = restore_all(&mut reader).collect::<Result<_, _>>()?;
    reader.end().map_err(|_| Unreadable("it goes on behind its end"))?;
    Ok(ever)
}

fn versioned(bytes: &Bytes) -> Result<Reader<'_>, Unreadable> {
    let mut reader = Reader::new(bytes);
    match Take::number(&mut reader)? {
        VERSION => Ok(reader),
        _ => Err(Unreadable("a version that this broker does not know")),
    }
}
