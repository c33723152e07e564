//! Joining and leaving: the table of standings, the parent, and from where a service's deliveries go on
//! (R1–R9, R11, B13).
//!
//! **Invariants:** the parent is a subscriber; after a leaving it is the one with the lowest rank, and rank is the
//! offset of the event that made the service's record. A service's stretches ascend and do not overlap.

use std::sync::Arc;

use super::claiming::{ClaimIndex, ServiceIndex};
use super::{Channel, DeliverySpan, Standing, Stretch, Turn};
use crate::domain::command::{Answer, ChannelState, Rejection, StandingChange, StandingCommand};
use crate::domain::event::{Acknowledged, Actor, Event, Membership, MembershipAction, Record, Settings};
use crate::domain::ids::{Offset, ServiceId};
use crate::domain::saved::{Put, Saved, Take, Unreadable, saved};

/// Most stretches remembered of a service that comes and goes without acknowledging. Past it the two oldest become
/// one, with what lies between: rather something that it missed than nothing of what it is due.
pub const STRETCHES_MAX: usize = 64;

/// What the channel knows of a service that ever was in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slot {
    pub(super) id: ServiceId,
    pub(super) standing: Standing,
    /// The record that made the service's record here (R7).
    rank: Offset,
    /// When it last left the list; claims up to here do not hold.
    pub(super) left_at: Offset,
    span: DeliverySpan,
    pub(super) claims: ClaimIndex,
}

impl Slot {
    fn new(id: ServiceId) -> Self {
        Self {
            id,
            standing: Standing::None,
            rank: Offset::ZERO,
            left_at: Offset::ZERO,
            span: DeliverySpan::default(),
            claims: ClaimIndex::default(),
        }
    }

    /// It is made: an old position is gone (B13).
    fn subscribed(&mut self, at: Offset, backfill: bool) {
        self.standing = Standing::Subscribed;
        self.rank = at;
        let left_at = self.left_at;
        self.span = DeliverySpan {
            stretches: Vec::new(),
            acknowledged: if backfill { Offset::ZERO } else { at.before() },
        };
        if backfill {
            self.deliver(Stretch { after: Offset::ZERO, through: Some(left_at), receipts: true });
            self.deliver(Stretch { after: left_at, through: Some(at.before()), receipts: false });
        }
        self.deliver(Stretch { after: at.before(), through: None, receipts: true });
    }

    /// It comes back: first what was left from before, then what it missed if it asks for that.
    fn activated(&mut self, at: Offset, backfill: bool) {
        self.standing = Standing::Subscribed;
        if backfill {
            self.deliver(Stretch { after: self.left_at, through: Some(at.before()), receipts: false });
        }
        self.deliver(Stretch { after: at.before(), through: None, receipts: true });
    }

    fn deliver(&mut self, stretch: Stretch) {
        if stretch.through.is_some_and(|through| through <= stretch.after) {
            return;
        }
        let stretches = &mut self.span.stretches;
        if stretches.len() >= STRETCHES_MAX
            && let [first, second, ..] = stretches.as_mut_slice()
        {
            *second = Stretch { after: first.after, through: second.through, receipts: true };
            stretches.remove(0);
        }
        stretches.push(stretch);
    }

    /// It leaves the list: this is its last delivery.
    fn left(&mut self, at: Offset) {
        self.left_at = at;
        if let Some(last) = self.span.stretches.last_mut() {
            last.through.get_or_insert(at);
        }
        self.claims.end_all();
    }

    fn acknowledged(&mut self, through: Offset) {
        self.span.acknowledged = self.span.acknowledged.max(through);
        let acknowledged = self.span.acknowledged;
        self.span.stretches.retain(|stretch| stretch.through.is_none_or(|through| through > acknowledged));
    }
}

saved!(Stretch { after, through, receipts });
saved!(DeliverySpan { stretches, acknowledged });

impl Saved for Standing {
    fn save(&self, out: &mut dyn Put) {
        out.number(match self {
            Self::None => 0,
            Self::Subscribed => 1,
            Self::Inactive => 2,
        });
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        Ok(match from.number()? {
            0 => Self::None,
            1 => Self::Subscribed,
            2 => Self::Inactive,
            _ => return Err(Unreadable("a standing that is none")),
        })
    }
}

/// Without its claims, which stand in their conversations.
impl Saved for Slot {
    fn save(&self, out: &mut dyn Put) {
        self.id.save(out);
        self.standing.save(out);
        self.rank.save(out);
        self.left_at.save(out);
        self.span.save(out);
    }

    fn restore(from: &mut dyn Take) -> Result<Self, Unreadable> {
        Ok(Self {
            id: Saved::restore(from)?,
            standing: Saved::restore(from)?,
            rank: Saved::restore(from)?,
            left_at: Saved::restore(from)?,
            span: Saved::restore(from)?,
            claims: ClaimIndex::default(),
        })
    }
}

saved!(Services { slots });

/// The services that ever were in the channel.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Services {
    slots: Vec<Slot>,
}

impl Services {
    /// A service's index; a handful of services, so they are looked through.
    pub(super) fn find(&self, service: &ServiceId) -> Option<ServiceIndex> {
        let place = self.slots.iter().position(|slot| slot.id == *service)?;
        u16::try_from(place).ok().map(ServiceIndex)
    }

    pub(super) fn get(&self, index: ServiceIndex) -> Option<&Slot> {
        self.slots.get(usize::from(index.0))
    }

    pub(super) fn get_mut(&mut self, index: ServiceIndex) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(index.0))
    }

    /// What is known of a service.
    pub(super) fn of(&self, service: &ServiceId) -> Option<&Slot> {
        self.find(service).and_then(|index| self.get(index))
    }

    /// The service's index, given if it has none.
    pub(super) fn enter(&mut self, service: &ServiceId) -> Option<ServiceIndex> {
        if let Some(known) = self.find(service) {
            return Some(known);
        }
        let index = u16::try_from(self.slots.len()).ok()?;
        self.slots.push(Slot::new(service.clone()));
        Some(ServiceIndex(index))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }
}

impl Channel {
    /// Whether somebody is subscribed, inactive, or nobody has a record (a new one too).
    #[must_use]
    pub fn state(&self) -> ChannelState {
        if !self.subscribers.is_empty() {
            ChannelState::Active
        } else if self.services.iter().any(|slot| slot.standing == Standing::Inactive) {
            ChannelState::Dormant
        } else {
            ChannelState::Closed
        }
    }

    /// A service's standing.
    #[must_use]
    pub fn standing(&self, service: &ServiceId) -> Standing {
        self.services.of(service).map_or(Standing::None, |slot| slot.standing)
    }

    /// What the service is delivered: empty where it never was subscribed.
    #[must_use]
    pub fn delivery_span(&self, service: &ServiceId) -> DeliverySpan {
        self.services.of(service).map(|slot| slot.span.clone()).unwrap_or_default()
    }

    /// Refuses what nobody may ask: of a closed channel, of one that is not there, of another service's own one.
    pub(super) fn check_there(&self, service: &ServiceId) -> Result<(), Rejection> {
        if self.is_new() || self.only.as_ref().is_some_and(|only| only != service) {
            return Err(Rejection::NotFound);
        }
        if self.state() == ChannelState::Closed {
            return Err(Rejection::ChannelClosed);
        }
        Ok(())
    }

    /// Refuses what only a subscriber may ask.
    pub(super) fn check_subscribed(&self, service: &ServiceId) -> Result<(), Rejection> {
        self.check_there(service)?;
        if self.is_subscribed(service) { Ok(()) } else { Err(Rejection::NotSubscribed) }
    }

    pub(super) fn decide_standing(
        &self,
        turn: &mut Turn<'_>,
        command: &StandingCommand,
    ) -> Result<Answer, Rejection> {
        use StandingChange::{Activate, Create, Deactivate, Delete};
        let StandingCommand { service, by, change, backfill } = command;
        let makes =
            self.is_new() && *change == Create && self.only.as_ref().is_none_or(|only| only == service);
        if !makes {
            self.check_there(service)?;
        }
        if matches!(by, Actor::Service(asking) if asking != service) {
            return Err(Rejection::Forbidden);
        }
        if matches!(change, Create | Activate) {
            let rules = turn.portal.service(service).ok_or(Rejection::NotFound)?;
            if !rules.is_eligible() {
                return Err(Rejection::ServiceNotEligible);
            }
        }
        let joined = *change == Create && !makes;
        match (self.standing(service), change) {
            (Standing::None, Create) => {
                self.join(turn, MembershipAction::Subscribed, service, by, *backfill);
                Ok(Answer::Standing { created: makes, joined, changed: true })
            }
            (Standing::Inactive, Create | Activate) => {
                self.join(turn, MembershipAction::Activated, service, by, *backfill);
                Ok(Answer::Standing { created: false, joined, changed: true })
            }
            (Standing::Subscribed, Deactivate) => {
                self.leave(turn, MembershipAction::Deactivated, service, by);
                Ok(Answer::Standing { created: false, joined: false, changed: true })
            }
            (Standing::Subscribed | Standing::Inactive, Delete) => {
                self.leave(turn, MembershipAction::Deleted, service, by);
                Ok(Answer::Standing { created: false, joined: false, changed: true })
            }
            (Standing::Subscribed, Create | Activate) | (Standing::Inactive, Deactivate) => {
                Ok(Answer::Standing { created: false, joined: false, changed: false })
            }
            (Standing::None, Activate | Deactivate | Delete) => Err(Rejection::NotSubscribed),
        }
    }

    /// To the end of the list; the first one of an empty list is the parent.
    fn join(
        &self,
        turn: &mut Turn<'_>,
        action: MembershipAction,
        service: &ServiceId,
        by: &Actor,
        backfill: bool,
    ) {
        let subscribers: Arc<[ServiceId]> = self.subscribers.iter().chain([service]).cloned().collect();
        let membership = Membership {
            action,
            service: service.clone(),
            by: by.clone(),
            parent: self.parent.clone().or_else(|| Some(service.clone())),
            subscribers,
            settings: self.settings,
            backfill,
        };
        let revives = self.subscribers.is_empty() && !self.is_new();
        let promoted = revives.then(|| promotion(&membership, service));
        turn.record(None, Event::from(membership));
        if let Some(promoted) = promoted {
            turn.record(None, promoted);
        }
    }

    /// Out of the list; if it was the parent, the earliest created of those who stay becomes it (R7).
    fn leave(&self, turn: &mut Turn<'_>, action: MembershipAction, service: &ServiceId, by: &Actor) {
        let subscribers: Arc<[ServiceId]> =
            self.subscribers.iter().filter(|other| *other != service).cloned().collect();
        let heir = if self.parent.as_ref() == Some(service) {
            subscribers.iter().min_by_key(|other| self.services.of(other).map(|slot| slot.rank)).cloned()
        } else {
            None
        };
        let parent = if self.parent.as_ref() == Some(service) { heir.clone() } else { self.parent.clone() };
        let membership = Membership {
            action,
            service: service.clone(),
            by: by.clone(),
            parent,
            subscribers,
            settings: self.settings,
            backfill: false,
        };
        let promoted = heir.map(|heir| promotion(&membership, &heir));
        turn.record(None, Event::from(membership));
        if let Some(promoted) = promoted {
            turn.record(None, promoted);
        }
    }

    pub(super) fn decide_configure(
        &self,
        turn: &mut Turn<'_>,
        service: &ServiceId,
        settings: Settings,
    ) -> Result<Answer, Rejection> {
        self.check_subscribed(service)?;
        if self.parent.as_ref() != Some(service) {
            return Err(Rejection::NotParent);
        }
        let changed = settings != self.settings;
        if changed {
            let configured = Membership {
                action: MembershipAction::Configured,
                service: service.clone(),
                by: Actor::Service(service.clone()),
                parent: self.parent.clone(),
                subscribers: Arc::clone(&self.subscribers),
                settings,
                backfill: false,
            };
            turn.record(None, Event::from(configured));
        }
        Ok(Answer::Standing { created: false, joined: false, changed })
    }

    /// An acknowledgement counts for whoever has something to be delivered, subscribed or not: a leaver is still
    /// delivered what lies before its leaving.
    pub(super) fn decide_acknowledge(
        &self,
        turn: &mut Turn<'_>,
        service: &ServiceId,
        through: Offset,
    ) -> Answer {
        let through = through.min(self.head);
        let moves = self
            .services
            .of(service)
            .is_some_and(|slot| !slot.span.stretches.is_empty() && through > slot.span.acknowledged);
        if moves {
            turn.record(None, Event::Acknowledged(Acknowledged { service: service.clone(), through }));
        }
        Answer::Done
    }

    pub(super) fn apply_acknowledged(&mut self, acknowledged: &Acknowledged) {
        if let Some(slot) =
            self.services.find(&acknowledged.service).and_then(|index| self.services.get_mut(index))
        {
            slot.acknowledged(acknowledged.through);
        }
    }

    pub(super) fn apply_membership(&mut self, record: &Record, membership: &Membership) {
        let slot = self.services.enter(&membership.service).and_then(|index| self.services.get_mut(index));
        if let Some(slot) = slot {
            match membership.action {
                MembershipAction::Subscribed => slot.subscribed(record.offset, membership.backfill),
                MembershipAction::Activated => slot.activated(record.offset, membership.backfill),
                MembershipAction::Deactivated => {
                    slot.left(record.offset);
                    slot.standing = Standing::Inactive;
                }
                MembershipAction::Deleted => {
                    if slot.standing == Standing::Subscribed {
                        slot.left(record.offset);
                    }
                    slot.standing = Standing::None;
                }
                MembershipAction::ParentChanged | MembershipAction::Configured => {}
            }
        }
        if membership.subscribers.is_empty() {
            self.active_since = None;
        } else if self.active_since.is_none() {
            self.active_since = Some((record.offset, record.at));
        }
        self.parent.clone_from(&membership.parent);
        self.subscribers = Arc::clone(&membership.subscribers);
        self.settings = membership.settings;
    }
}

/// What says that `heir` has become the parent, with the change that made it so.
fn promotion(after: &Membership, heir: &ServiceId) -> Event {
    Event::from(Membership {
        action: MembershipAction::ParentChanged,
        service: heir.clone(),
        by: Actor::Broker,
        backfill: false,
        ..after.clone()
    })
}
