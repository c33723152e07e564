//! The states of channels and portals as a base holds them: bytes behind a version of their own.
//!
//! ```text
//!  version (a number, see `codec`) │ the state's fields, in the order in which the domain saves them
//! ```
//!
//! A version is never read as another one. What a later version adds, it adds by reading the older one and saving anew;
//! what has nothing of that is saved as before, so that an older broker can read it.

use bytes::Bytes;

use super::codec::{Reader, put_number};
use crate::domain::aside::Shelf;
use crate::domain::channel::Channel;
use crate::domain::fingerprint::Key;
use crate::domain::ids::{ChannelId, Number, ServiceId};
use crate::domain::portal::Portal;
use crate::domain::saved::{Put, Saved, Take, Unreadable, restore_all};
use crate::domain::senders::Senders;

/// The version that is written of a portal, and of a channel of which nothing lies in runs.
const VERSION: u64 = 1;
/// The version of a channel of which ids of customers' messages do: what is known of their runs follows.
const VERSION_WITH_RUNS: u64 = 2;
/// The version of a channel of which replies do, too: what is known of the runs of each shelf follows.
const VERSION_WITH_SHELVES: u64 = 3;

/// Where a channel is found: its number, and its one service on plan `isolated`.
pub type Place = (Number, Option<ServiceId>);

/// A channel, and who sent which of its messages.
#[must_use]
pub fn save_channel(channel: &Channel, senders: &Senders) -> Vec<u8> {
    let mut out = Vec::new();
    let version = version_of(channel);
    put_number(&mut out, version);
    channel.save(&mut out);
    senders.save(&mut out);
    for shelf in shelves_in(version) {
        channel.save_aside(*shelf, &mut out);
    }
    out
}

/// The oldest version that can say what is to be said.
fn version_of(channel: &Channel) -> u64 {
    let used = Shelf::ALL.into_iter().rfind(|shelf| !channel.aside(*shelf).is_empty());
    match used {
        None => VERSION,
        Some(Shelf::MessageIds) => VERSION_WITH_RUNS,
        Some(_) => VERSION_WITH_SHELVES,
    }
}

/// The shelves that a version tells of, in order.
const fn shelves_in(version: u64) -> &'static [Shelf] {
    match version {
        VERSION_WITH_RUNS => &[Shelf::MessageIds],
        VERSION_WITH_SHELVES => &Shelf::ALL,
        _ => &[],
    }
}

/// Reads back what was saved; `new` is the channel before its first record, and `key` that of the fingerprints.
///
/// # Errors
/// When the bytes are no channel's of this version.
pub fn restore_channel(bytes: &Bytes, new: Channel, key: Key) -> Result<(Channel, Senders), Unreadable> {
    let mut reader = Reader::new(bytes);
    let version = Take::number(&mut reader)?;
    if ![VERSION, VERSION_WITH_RUNS, VERSION_WITH_SHELVES].contains(&version) {
        return Err(UNKNOWN);
    }
    let mut channel = new.restore(&mut reader)?;
    let mut senders = Senders::new(key, channel.id());
    senders.restore(&mut reader)?;
    for shelf in shelves_in(version) {
        channel.restore_aside(*shelf, &mut reader)?;
    }
    senders.set_aside(channel.aside(Shelf::Sent).clone());
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
        _ => Err(UNKNOWN),
    }
}

const UNKNOWN: Unreadable = Unreadable("a version that this broker does not know");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::aside::{LaidAside, RunId};
    use crate::domain::channel::Keys;
    use crate::domain::content::Content;
    use crate::domain::event::{ClearTo, Customer, Event, Message, Record};
    use crate::domain::filter::Filter;
    use crate::domain::ids::{ConversationId, CustomerName, MessageId, Offset, Timestamp};

    const KEYS: Keys = Keys { fingerprint: [1; 16], confirm: [2; 16], digest: [3; 16] };

    fn new() -> Channel {
        Channel::new(ChannelId(7), Number::trusted("+15550783881"), None, KEYS, 1_000)
    }

    fn with_messages(count: u64) -> Channel {
        let mut channel = new();
        for n in 1..=count {
            let wa_id = Some(CustomerName::trusted("16505551234"));
            let event = Event::from(Message {
                message_id: MessageId::trusted(&format!("wamid.{n}")),
                customer: Customer { wa_id, ..Customer::default() },
                formerly: Vec::new(),
                sent_at: Timestamp(1_700_000_000_000 + n),
                content: Content::checked(Bytes::new(), 0..0, &[]),
                refers_to: None,
                clear_to: ClearTo::Everyone,
                contact: None,
            });
            let at = Timestamp(1_700_000_000_000 + n);
            channel.apply(&Record { offset: Offset(n), at, conversation: Some(ConversationId(1)), event });
        }
        channel
    }

    fn saved(channel: &Channel) -> Bytes {
        save_channel(channel, &Senders::new(Key::new(KEYS.fingerprint), channel.id())).into()
    }

    #[test]
    fn a_channel_without_runs_is_saved_as_ever_and_one_with_runs_comes_back_with_them() {
        let mut channel = with_messages(50);
        assert_eq!(saved(&channel).first(), Some(&1));
        let (restored, _) = restore_channel(&saved(&channel), new(), Key::new(KEYS.fingerprint)).unwrap();
        assert!(restored.aside(Shelf::MessageIds).is_empty());
        assert_eq!(restored.ids_bytes(), channel.ids_bytes());

        let shelf = Shelf::MessageIds;
        let period = channel.movable_periods(shelf, 1, None)[0];
        let movable = channel.movable(shelf, period).unwrap();
        let filter = Some(Filter::of(movable.rows.keys().iter().copied(), movable.rows.len()));
        channel.lay_aside(shelf, LaidAside { run: RunId(9), filter: filter.clone(), ..movable.about });
        let bytes = saved(&channel);
        assert_eq!(bytes.first(), Some(&2));
        assert!(bytes.len() * 3 < saved(&with_messages(50)).len(), "its ids are not in it");
        let (mut restored, _) = restore_channel(&bytes, new(), Key::new(KEYS.fingerprint)).unwrap();
        restored.aside_mut(shelf).set_filter(RunId(9), filter.clone());
        assert_eq!(restored.aside(shelf), channel.aside(shelf));
        assert_eq!(channel.aside(shelf).iter().count(), 1);
        assert_eq!(restored.ids_bytes(), channel.ids_bytes());
        let older = Bytes::from([&[4], &bytes[1..]].concat());
        assert_eq!(restore_channel(&older, new(), Key::new(KEYS.fingerprint)).err(), Some(UNKNOWN));
    }
}
