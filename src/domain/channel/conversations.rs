//! The conversations of a channel: one compact entry each, found by id and by fingerprints of the customer's names.
//!
//! Entries stand in the order in which the conversations began, so the lower index is the older one (B12). One that
//! proved to be an older one's customer stays as a signpost: its id and its names go on leading to the older.
//!
//! **Invariants:** a signpost points to a lower index; names and customer ids are not kept, only keyed 128-bit
//! fingerprints of them; nothing is ever moved in one go, however many conversations there are.

use std::cell::Cell;

use super::ListQuery;
use super::claiming::{AgentIndex, Claim, ServiceIndex};
use super::threads::Note;
use crate::domain::buckets::{BucketMap, Spread};
use crate::domain::event::Customer;
use crate::domain::fingerprint::{Fingerprint, Key};
use crate::domain::ids::{ConversationId, CustomerName, Offset, Timestamp};
use crate::domain::saved::{Put, Saved, Take, Unreadable, restore_all, save_all, saved};

/// Where a conversation stands among the channel's; the older has the lower one.
pub(super) type Index = u32;

/// Entries in one chunk: a chunk is allocated once, filled and never moved (320 KiB).
const CHUNK: usize = 4096;

/// Who wrote a reply, told apart from others (B5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Author {
    /// His service.
    pub(super) service: ServiceIndex,
    /// The agent; none for a bot.
    pub(super) agent: Option<AgentIndex>,
}

/// What a conversation is now. The size is held by a test.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Conversation {
    pub(super) id: ConversationId,
    /// The last record of any kind.
    pub(super) head: Offset,
    /// The record with the customer's names.
    pub(super) customer_at: Offset,
    /// The own time of the customer's newest message; the window runs from it.
    pub(super) newest_sent_at: Timestamp,
    /// The customer's last recorded message; zero if he never wrote.
    pub(super) last_message: Offset,
    /// The last reply, zero if none, and who wrote it.
    pub(super) last_reply: Offset,
    pub(super) last_author: Author,
    /// The last reply by anybody but the last author.
    pub(super) others_reply: Offset,
    names: NamesSeen,
    /// What few conversations have.
    rare: Option<Box<Rare>>,
}

/// What few conversations have.
#[derive(Debug, Clone, PartialEq, Default)]
struct Rare {
    /// The older conversation that this one has become part of.
    merged_into: Option<Index>,
    claims: Vec<Claim>,
    merged: Vec<Younger>,
    note: Option<Box<Note>>,
}

/// A conversation that became part of an older one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Younger {
    pub(super) id: ConversationId,
    /// Its last record.
    pub(super) head: Offset,
    /// The older one that it became part of, which may itself have become part of another since.
    pub(super) into: ConversationId,
    /// The record with which it did.
    pub(super) merged_at: Offset,
}

saved!(Author { service, agent });
saved!(Younger { id, head, into, merged_at });

impl Rare {
    fn save(&self, out: &mut dyn Put) {
        self.merged_into.save(out);
        self.claims.save(out);
        self.merged.save(out);
        if let Some(note) = &self.note {
            note.save(out);
        }
    }

    fn restore(is_noted: bool, from: &mut dyn Take) -> Result<Self, Unreadable> {
        Ok(Self {
            merged_into: Saved::restore(from)?,
            claims: Saved::restore(from)?,
            merged: Saved::restore(from)?,
            note: if is_noted { Some(Box::new(Note::restore(from)?)) } else { None },
        })
    }
}

impl Saved for NamesSeen {
    fn save(&self, out: &mut dyn Put) {
        out.number(self.0);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        from.number().map(Self)
    }
}

impl Saved for Conversation {
    fn save(&self, out: &mut dyn Put) {
        self.id.save(out);
        self.head.save(out);
        self.customer_at.save(out);
        self.newest_sent_at.save(out);
        self.last_message.save(out);
        self.last_reply.save(out);
        self.last_author.save(out);
        self.others_reply.save(out);
        self.names.save(out);
        // 0 where there is nothing rare, 2 where a note is part of it: a state from before there were notes reads alike.
        out.number(match &self.rare {
            None => 0,
            Some(rare) if rare.note.is_none() => 1,
            Some(_) => 2,
        });
        if let Some(rare) = &self.rare {
            rare.save(out);
        }
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        Ok(Self {
            id: Saved::restore(from)?,
            head: Saved::restore(from)?,
            customer_at: Saved::restore(from)?,
            newest_sent_at: Saved::restore(from)?,
            last_message: Saved::restore(from)?,
            last_reply: Saved::restore(from)?,
            last_author: Saved::restore(from)?,
            others_reply: Saved::restore(from)?,
            names: Saved::restore(from)?,
            rare: match from.number()? {
                0 => None,
                1 => Some(Box::new(Rare::restore(false, from)?)),
                2 => Some(Box::new(Rare::restore(true, from)?)),
                _ => return Err(Unreadable("a conversation's rare part of an unknown kind")),
            },
        })
    }
}

impl Saved for Conversations {
    fn save(&self, out: &mut dyn Put) {
        save_all(self.len(), self.chunks.iter().flatten(), out);
        self.by_name.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let mut conversations = Self::default();
        for entry in restore_all(from) {
            let entry: Conversation = entry?;
            let index = conversations.enter(entry.id).ok_or(Unreadable("too many conversations"))?;
            *conversations.get_mut(index).ok_or(Unreadable("a conversation twice"))? = entry;
        }
        conversations.by_name = Saved::restore(from)?;
        Ok(conversations)
    }
}

impl<const PIECES: usize> Saved for Packed<PIECES> {
    fn save(&self, out: &mut dyn Put) {
        out.wide(self.0.iter().fold(0, |bits, piece| bits << 32 | u128::from(*piece)));
    }

    #[expect(clippy::cast_possible_truncation, reason = "32 bits at a time are taken")]
    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        let mut bits = from.wide()?;
        let mut pieces = [0; PIECES];
        for piece in pieces.iter_mut().rev() {
            *piece = bits as u32;
            bits >>= 32;
        }
        Ok(Self(pieces))
    }
}

impl Conversation {
    fn new(id: ConversationId) -> Self {
        Self {
            id,
            head: Offset::ZERO,
            customer_at: Offset::ZERO,
            newest_sent_at: Timestamp::default(),
            last_message: Offset::ZERO,
            last_reply: Offset::ZERO,
            last_author: Author::default(),
            others_reply: Offset::ZERO,
            names: NamesSeen::default(),
            rare: None,
        }
    }

    /// The claims recorded and not yet recorded as ended; not all of them need hold.
    pub(super) fn claims(&self) -> &[Claim] {
        self.rare.as_ref().map_or(&[], |rare| &rare.claims)
    }

    /// To change the claims; [`Self::tidy`] afterwards.
    pub(super) fn claims_mut(&mut self) -> &mut Vec<Claim> {
        &mut self.rare.get_or_insert_default().claims
    }

    /// Gives back the memory of what is not there any more.
    pub(super) fn tidy(&mut self) {
        if self.rare.as_ref().is_some_and(|rare| **rare == Rare::default()) {
            self.rare = None;
        }
    }

    /// The note of whose its thread is; it need not hold.
    pub(super) fn note(&self) -> Option<&Note> {
        self.rare.as_ref().and_then(|rare| rare.note.as_deref())
    }

    pub(super) fn set_note(&mut self, note: Note) {
        self.rare.get_or_insert_default().note = Some(Box::new(note));
    }

    pub(super) fn take_note(&mut self) -> Option<Note> {
        let note = self.rare.as_mut().and_then(|rare| rare.note.take())?;
        self.tidy();
        Some(*note)
    }

    /// The younger ones that became part of it.
    pub(super) fn merged(&self) -> &[Younger] {
        self.rare.as_ref().map_or(&[], |rare| &rare.merged)
    }

    /// Whether it has become part of an older one.
    pub(super) fn is_signpost(&self) -> bool {
        self.merged_into().is_some()
    }

    fn merged_into(&self) -> Option<Index> {
        self.rare.as_ref().and_then(|rare| rare.merged_into)
    }

    /// No reply of any service since the customer's newest message.
    pub(super) fn is_unanswered(&self) -> bool {
        self.last_message > self.last_reply
    }

    /// Takes a reply.
    pub(super) fn replied(&mut self, author: Author, offset: Offset) {
        if self.last_author != author {
            self.others_reply = self.last_reply;
            self.last_author = author;
        }
        self.last_reply = offset;
    }

    /// Takes a customer's message.
    pub(super) fn written(&mut self, sent_at: Timestamp, offset: Offset) {
        self.newest_sent_at = self.newest_sent_at.max(sent_at);
        self.last_message = offset;
    }

    /// Notes where the customer's names stand, unless the record says less of him than the one noted.
    pub(super) fn named(&mut self, customer: &Customer, renamed: bool, offset: Offset) {
        let told = names_told(customer);
        if told != 0 && (renamed || told >= self.names.told()) {
            self.names.set_told(told);
            self.customer_at = offset;
        }
    }

    /// Takes over what a younger conversation was, but for its claims.
    fn absorb(&mut self, younger: &Self, merged_at: Offset) {
        self.others_reply = if self.last_author == younger.last_author {
            self.others_reply.max(younger.others_reply)
        } else if self.last_reply > younger.last_reply {
            self.others_reply.max(younger.last_reply)
        } else {
            younger.others_reply.max(self.last_reply)
        };
        if younger.last_reply > self.last_reply {
            self.last_reply = younger.last_reply;
            self.last_author = younger.last_author;
        }
        self.newest_sent_at = self.newest_sent_at.max(younger.newest_sent_at);
        self.last_message = self.last_message.max(younger.last_message);
        if younger.names.told() >= self.names.told() && younger.customer_at > self.customer_at {
            self.customer_at = younger.customer_at;
            self.names.set_told(younger.names.told());
        }
        let merged = &mut self.rare.get_or_insert_default().merged;
        merged.push(Younger { id: younger.id, head: younger.head, into: self.id, merged_at });
        merged.extend_from_slice(younger.merged());
    }
}

/// A mix of a customer's names: equal for the same names in the same order, else nearly never. Its lowest byte is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mix(u64);

/// What is remembered of a customer's names, in one word: the mix of those last seen together (while it stays, there is
/// nothing to look up), and in the lowest byte how much the record at `customer_at` says (see [`names_told`]).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct NamesSeen(u64);

/// The bits that [`NamesSeen`] keeps of a mix.
const MIX_BITS: u64 = !0xff;

impl NamesSeen {
    fn mix(self) -> Mix {
        Mix(self.0 & MIX_BITS)
    }

    fn set_mix(&mut self, mix: Mix) {
        self.0 = mix.0 | self.0 & !MIX_BITS;
    }

    fn told(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    fn set_told(&mut self, told: u8) {
        self.0 = self.mix().0 | u64::from(told);
    }
}

/// How much a record says of the customer: his `user_id` counts for more, since it is what is shown.
fn names_told(customer: &Customer) -> u8 {
    2 * u8::from(customer.user_id.is_some()) + u8::from(customer.wa_id.is_some())
}

/// The names of one customer, as one message gives them. Fingerprints are made when they are asked for: mostly the
/// first alone.
pub(super) struct Names<'a> {
    key: &'a Key,
    customer: &'a Customer,
    formerly: &'a [CustomerName],
    mix: Mix,
}

/// Most names that one message ties together: its own two, and what they were before.
const NAMES_MAX: usize = 8;

impl<'a> Names<'a> {
    /// Of the customer, and of what he was called before. What is past the limit is not tied.
    pub(super) fn of(key: &'a Key, customer: &'a Customer, formerly: &'a [CustomerName]) -> Self {
        let mut names = Self { key, customer, formerly, mix: Mix(0) };
        let mix = names.each().fold(0, |mix, name| mixed(mix, name.as_bytes()));
        names.mix = Mix(mix & MIX_BITS);
        names
    }

    /// The mix of all of them.
    pub(super) fn mix(&self) -> Mix {
        self.mix
    }

    fn each(&self) -> impl Iterator<Item = &'a CustomerName> + use<'a> {
        self.customer.names().chain(self.formerly).take(NAMES_MAX)
    }

    fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> + '_ {
        self.each().map(|name| self.key.customer_name(name))
    }
}

/// A few nanoseconds for a name. It need not withstand anybody: who makes two mixes meet hides from us that two names
/// are his.
fn mixed(mix: u64, name: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let turn = |mix: u64, word: u64| (mix.rotate_left(23) ^ word).wrapping_mul(ODD);
    let mut words = name.chunks_exact(8);
    let mut mix = turn(mix, name.len() as u64 + 1);
    for word in &mut words {
        mix = turn(mix, word.try_into().map_or(0, u64::from_le_bytes));
    }
    let rest = words.remainder().iter().fold(0, |rest: u64, byte| rest << 8 | u64::from(*byte));
    let mix = turn(mix, rest);
    mix ^ mix >> 29
}

/// The conversation found last, so that who decides and then applies looks it up once. Says nothing of its own: it
/// counts in no comparison.
#[derive(Debug, Clone, Default)]
struct FoundLast(Cell<Option<(ConversationId, Index)>>);

impl PartialEq for FoundLast {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A key in 4-byte pieces, so that with its 4-byte index it has no padding: of these there are the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed<const PIECES: usize>([u32; PIECES]);

impl<const PIECES: usize> Spread for Packed<PIECES> {
    fn spread(&self) -> u64 {
        self.0.iter().fold(0, |bits: u64, piece| bits.rotate_left(32) ^ u64::from(*piece))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
fn packed_id(id: ConversationId) -> Packed<2> {
    Packed([(id.0 >> 32) as u32, id.0 as u32])
}

#[expect(clippy::cast_possible_truncation, reason = "all quarters are taken")]
fn packed_name(name: Fingerprint) -> Packed<4> {
    let bits = name.as_u128();
    Packed([(bits >> 96) as u32, (bits >> 64) as u32, (bits >> 32) as u32, bits as u32])
}

/// A channel's conversations.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Conversations {
    chunks: Vec<Vec<Conversation>>,
    by_id: BucketMap<Packed<2>, Index>,
    by_name: BucketMap<Packed<4>, Index>,
    found_last: FoundLast,
}

impl Conversations {
    /// How many there are, signposts included.
    pub(super) fn len(&self) -> usize {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        full + self.chunks.last().map_or(0, Vec::len)
    }

    /// The entry at an index.
    pub(super) fn get(&self, index: Index) -> Option<&Conversation> {
        self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)
    }

    /// The entry at an index, to change.
    pub(super) fn get_mut(&mut self, index: Index) -> Option<&mut Conversation> {
        self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)
    }

    /// All of them, in the order of their beginning, signposts included.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Index, &Conversation)> {
        (0..).zip(self.chunks.iter().flatten())
    }

    /// Follows signposts. Ends, since each points to a lower index.
    fn resolve(&self, mut index: Index) -> Index {
        while let Some(next) =
            self.get(index).and_then(Conversation::merged_into).filter(|next| *next < index)
        {
            index = next;
        }
        index
    }

    /// Where the conversation of this id is now.
    pub(super) fn find(&self, id: ConversationId) -> Option<Index> {
        let index = match self.found_last.0.get() {
            Some((found, index)) if found == id => index,
            _ => *self.by_id.get(&packed_id(id))?,
        };
        Some(self.resolve(index))
    }

    /// Where the conversation with the customer of this name is.
    pub(super) fn find_name(&self, name: Fingerprint) -> Option<Index> {
        self.by_name.get(&packed_name(name)).map(|index| self.resolve(*index))
    }

    /// Where the conversations with the customer of these names are: the oldest, and in `younger` those that prove
    /// to be his as well.
    pub(super) fn find_names(&self, names: &Names<'_>, younger: &mut Vec<Index>) -> Option<Index> {
        let mut oldest: Option<Index> = None;
        for name in names.fingerprints() {
            let Some(index) = self.find_name(name) else { continue };
            match oldest {
                None => {
                    oldest = Some(index);
                    if self.get(index).is_some_and(|entry| entry.names.mix() == names.mix) {
                        break;
                    }
                }
                Some(known) if known == index => {}
                Some(known) => {
                    let gone = known.max(index);
                    oldest = Some(known.min(index));
                    if !younger.contains(&gone) {
                        younger.push(gone);
                    }
                }
            }
        }
        let entry = oldest.and_then(|index| Some((self.get(index)?.id, index)));
        self.found_last.0.set(entry);
        oldest
    }

    /// The entry of this id, begun if there is none.
    pub(super) fn enter(&mut self, id: ConversationId) -> Option<Index> {
        if let Some(index) = self.find(id) {
            return Some(index);
        }
        let index = Index::try_from(self.len()).ok()?;
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks.last_mut()?.push(Conversation::new(id));
        self.by_id.insert(packed_id(id), index);
        Some(index)
    }

    /// Whether names of this mix lead to the conversation already.
    pub(super) fn is_tied(&self, names: Mix, index: Index) -> bool {
        names == Mix(0) || self.get(index).is_none_or(|entry| entry.names.mix() == names)
    }

    /// Lets these names lead to the conversation.
    pub(super) fn tie(&mut self, names: &Names<'_>, index: Index) {
        if self.is_tied(names.mix, index) {
            return;
        }
        let Some(entry) = self.get_mut(index) else { return };
        entry.names.set_mix(names.mix);
        for name in names.fingerprints() {
            if self.by_name.get(&packed_name(name)).is_none() {
                self.by_name.insert(packed_name(name), index);
            }
        }
    }

    /// Makes the younger conversation part of the older and gives the younger's claims; nothing where they are one
    /// already.
    pub(super) fn merge(&mut self, older: Index, younger: Index, at: Offset) -> Option<Vec<Claim>> {
        let (older, younger) = (older.min(younger), older.max(younger));
        if older == younger || self.get(older)?.is_signpost() {
            return None;
        }
        let entry = self.get_mut(younger)?;
        let rare = Rare { merged_into: Some(older), ..Rare::default() };
        let signpost = Conversation { rare: Some(Box::new(rare)), ..Conversation::new(entry.id) };
        let mut gone = std::mem::replace(entry, signpost);
        let claims = gone.rare.as_mut().map(|rare| std::mem::take(&mut rare.claims)).unwrap_or_default();
        self.get_mut(older)?.absorb(&gone, at);
        Some(claims)
    }

    /// Those from behind `query.after` on, in order of their beginning.
    pub(super) fn behind(&self, query: &ListQuery) -> impl Iterator<Item = (Index, &Conversation)> {
        // A signpost's own index, not the older's: a list that was begun before a merge goes on where it was.
        let from = query.after.and_then(|id| self.by_id.get(&packed_id(id))).map_or(0, |index| index + 1);
        (from..).map_while(|index| Some((index, self.get(index)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ChannelId;

    /// What an idle conversation may cost, in bytes, with its index entries for two names.
    const IDLE_BYTES_MAX: usize = 200;

    fn resident_bytes() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// Counts the pages of this process, which has nothing else to do: the runner gives every test one of its own.
    #[test]
    fn an_idle_conversation_costs_at_most_200_bytes() {
        assert_eq!(size_of::<Conversation>(), 80);
        // Neither just before nor just after the buckets of the indexes split.
        let count = 350_000;
        let key = Key::new([7; 16]);
        let before = resident_bytes();
        let mut conversations = Conversations::default();
        for offset in 1..=count {
            let id = ConversationId::derive(ChannelId(7 << 64), Offset(offset as u64));
            let index = conversations.enter(id).unwrap();
            let customer = Customer {
                user_id: Some(CustomerName::trusted(&format!("US.{offset}"))),
                wa_id: Some(CustomerName::trusted(&format!("49{offset}"))),
                name: None,
            };
            conversations.tie(&Names::of(&key, &customer, &[]), index);
        }
        let each = (resident_bytes() - before) / count;
        println!("{each} bytes a conversation");
        assert!(each <= IDLE_BYTES_MAX, "{each} bytes a conversation");
        assert_eq!(conversations.len(), count);
    }
}
