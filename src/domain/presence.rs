//! Who looks at or writes in one conversation just now (B15), and what of it a service may be told (R19).
//!
//! Stands beside the journaled state, never in it: held by whoever assembles the conversation for its viewers, fed
//! with what agents say, and with the time. Advice only: it refuses nothing, and losing it loses nothing.
//!
//! **Invariant:** a service is told of each of its own agents, by id and name. Of all the others together it is told
//! one thing, the most that any of them does, and only when that changes: two agents elsewhere are not told from one,
//! since R19 shows no name, id, service or count.

use std::fmt;
use std::sync::Arc;

use super::ids::{AgentId, ServiceId, Timestamp};

/// How long what an agent does holds after it was last said, in milliseconds (contract: 15 s).
pub const LAPSE_MS: u64 = 15_000;

/// Most agents of one service that are present in one conversation; as many as may hold it. A further one is not
/// noted until another has gone. Per service, so that no service can crowd out another.
pub const PRESENT_PER_SERVICE_MAX: usize = 32;

/// What an agent does in a conversation; the later one is the more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doing {
    /// Nothing any more.
    Gone,
    /// Reads.
    Looking,
    /// Writes a reply.
    Writing,
}

impl Doing {
    /// As the contract spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Looking => "looking",
            Self::Writing => "writing",
        }
    }
}

/// An agent who is present, within one service.
struct Present {
    service: ServiceId,
    agent: AgentId,
    name: Option<Arc<str>>,
    /// Never gone.
    doing: Doing,
    until: Timestamp,
}

/// The presence in one conversation.
#[derive(Default)]
pub struct Presence {
    present: Vec<Present>,
}

/// What one agent does has changed. Has no `Debug`: it holds the agent's name.
#[derive(Clone)]
pub struct PresenceChange {
    service: ServiceId,
    agent: AgentId,
    name: Option<Arc<str>>,
    doing: Doing,
    /// The most that an agent of that service did before the change, and does after it.
    before: Doing,
    after: Doing,
    /// The most that an agent of each other service does, which the change leaves as it is.
    elsewhere: Vec<(ServiceId, Doing)>,
}

/// What a service is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceSeen<'a> {
    /// What the agent does; of others, the most that any of them does.
    pub doing: Doing,
    /// The agent, when it is one of the service's own.
    pub own: Option<PresentAgent<'a>>,
}

/// An agent of the service that is told.
#[derive(Clone, PartialEq, Eq)]
pub struct PresentAgent<'a> {
    /// Who.
    pub agent: &'a AgentId,
    /// What he is called, where the roster says it.
    pub name: Option<&'a Arc<str>>,
}

/// Hides who it is, as his id does.
impl fmt::Debug for PresentAgent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

impl PresenceChange {
    /// What `viewer` is told of this change; nothing where it may see no difference.
    #[must_use]
    pub fn seen_by(&self, viewer: &ServiceId) -> Option<PresenceSeen<'_>> {
        if *viewer == self.service {
            let own = PresentAgent { agent: &self.agent, name: self.name.as_ref() };
            return Some(PresenceSeen { doing: self.doing, own: Some(own) });
        }
        let rest = self
            .elsewhere
            .iter()
            .filter(|(service, _)| service != viewer)
            .map(|(_, doing)| *doing)
            .max()
            .unwrap_or(Doing::Gone);
        let (before, after) = (rest.max(self.before), rest.max(self.after));
        (before != after).then_some(PresenceSeen { doing: after, own: None })
    }
}

impl Presence {
    /// An agent of `service` says what he does, for the first time or again. Nothing where that changes nothing: it
    /// was renewed, who is not there has gone, or the service has too many present.
    pub fn renew(
        &mut self,
        service: &ServiceId,
        agent: &AgentId,
        name: Option<&Arc<str>>,
        doing: Doing,
        now: Timestamp,
    ) -> Option<PresenceChange> {
        let at = self.present.iter().position(|one| one.service == *service && one.agent == *agent);
        if doing == Doing::Gone {
            return at.map(|at| self.end(at));
        }
        let before = self.most_in(service);
        let until = now.plus_ms(LAPSE_MS);
        match at.and_then(|at| self.present.get_mut(at)) {
            Some(one) => {
                one.until = until;
                one.name = name.cloned();
                if one.doing == doing {
                    return None;
                }
                one.doing = doing;
            }
            None => {
                let own = self.present.iter().filter(|one| one.service == *service).count();
                if own >= PRESENT_PER_SERVICE_MAX {
                    return None;
                }
                self.present.push(Present {
                    service: service.clone(),
                    agent: agent.clone(),
                    name: name.cloned(),
                    doing,
                    until,
                });
            }
        }
        Some(self.change(service.clone(), agent.clone(), name.cloned(), doing, before))
    }

    /// Ends what was not renewed in time, earliest first.
    pub fn lapse(&mut self, now: Timestamp) -> Vec<PresenceChange> {
        for one in &mut self.present {
            // A clock that was set back does not prolong anything.
            one.until = one.until.min(now.plus_ms(LAPSE_MS));
        }
        let mut changes = Vec::new();
        while let Some(at) = self.earliest().filter(|(_, until)| *until <= now).map(|(at, _)| at) {
            changes.push(self.end(at));
        }
        changes
    }

    /// The agents of `service` are no longer told of: it has left the channel.
    pub fn leave(&mut self, service: &ServiceId) -> Vec<PresenceChange> {
        let mut changes = Vec::new();
        while let Some(at) = self.present.iter().position(|one| one.service == *service) {
            changes.push(self.end(at));
        }
        changes
    }

    /// When [`Presence::lapse`] has something to end.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.earliest().map(|(_, until)| until)
    }

    /// Whether nobody is present.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// All that `viewer` may be told now, for a connection that knows nothing yet: its own agents, then one entry for
    /// all others together.
    pub fn seen_by<'a>(&'a self, viewer: &'a ServiceId) -> impl Iterator<Item = PresenceSeen<'a>> {
        let own = self.present.iter().filter(move |one| one.service == *viewer).map(|one| PresenceSeen {
            doing: one.doing,
            own: Some(PresentAgent { agent: &one.agent, name: one.name.as_ref() }),
        });
        let others = self.present.iter().filter(|one| one.service != *viewer).map(|one| one.doing).max();
        own.chain(others.map(|doing| PresenceSeen { doing, own: None }))
    }

    fn earliest(&self) -> Option<(usize, Timestamp)> {
        self.present
            .iter()
            .enumerate()
            .map(|(at, one)| (at, one.until))
            .min_by_key(|(at, until)| (*until, *at))
    }

    fn most_in(&self, service: &ServiceId) -> Doing {
        let own = self.present.iter().filter(|one| one.service == *service);
        own.map(|one| one.doing).max().unwrap_or(Doing::Gone)
    }

    fn end(&mut self, at: usize) -> PresenceChange {
        let service = self.present.get(at).map(|one| one.service.clone());
        let before = service.map_or(Doing::Gone, |service| self.most_in(&service));
        // Keeps the order of arrival: agents are told in it.
        let one = self.present.remove(at);
        self.change(one.service, one.agent, one.name, Doing::Gone, before)
    }

    fn change(
        &self,
        service: ServiceId,
        agent: AgentId,
        name: Option<Arc<str>>,
        doing: Doing,
        before: Doing,
    ) -> PresenceChange {
        let mut elsewhere: Vec<(ServiceId, Doing)> = Vec::new();
        for one in self.present.iter().filter(|one| one.service != service) {
            match elsewhere.iter_mut().find(|(other, _)| *other == one.service) {
                Some((_, most)) => *most = one.doing.max(*most),
                None => elsewhere.push((one.service.clone(), one.doing)),
            }
        }
        let after = self.most_in(&service);
        PresenceChange { service, agent, name, doing, before, after, elsewhere }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const T0: Timestamp = Timestamp(1_700_000_000_000);

    fn service(text: &str) -> ServiceId {
        text.parse().unwrap()
    }

    fn agent(text: &str) -> AgentId {
        text.parse().unwrap()
    }

    fn say(
        presence: &mut Presence,
        who: (&str, &str),
        doing: Doing,
        now: Timestamp,
    ) -> Option<PresenceChange> {
        let name: Arc<str> = Arc::from(who.1.to_uppercase());
        presence.renew(&service(who.0), &agent(who.1), Some(&name), doing, now)
    }

    /// What a service is told, as text: who if own, and what.
    fn told(change: &PresenceChange, viewer: &str) -> Option<String> {
        change.seen_by(&service(viewer)).map(|seen| match seen.own {
            Some(own) => {
                format!("{} {} {}", own.agent.as_str(), own.name.map_or("", |name| name), seen.doing.as_str())
            }
            None => seen.doing.as_str().to_owned(),
        })
    }

    #[test]
    fn the_own_service_is_told_who_and_the_others_only_that_somebody_is() {
        let mut presence = Presence::default();
        let change = say(&mut presence, ("crm", "ann"), Doing::Looking, T0).unwrap();
        assert_eq!(told(&change, "crm").as_deref(), Some("ann ANN looking"));
        assert_eq!(told(&change, "desk").as_deref(), Some("looking"));
        let change = say(&mut presence, ("crm", "ann"), Doing::Writing, T0).unwrap();
        assert_eq!(told(&change, "crm").as_deref(), Some("ann ANN writing"));
        assert_eq!(told(&change, "desk").as_deref(), Some("writing"));
        let change = say(&mut presence, ("crm", "ann"), Doing::Gone, T0).unwrap();
        assert_eq!(told(&change, "crm").as_deref(), Some("ann ANN gone"));
        assert_eq!(told(&change, "desk").as_deref(), Some("gone"));
        assert!(presence.is_empty());
        assert!(say(&mut presence, ("crm", "ann"), Doing::Gone, T0).is_none(), "nobody was there");
    }

    #[test]
    fn others_can_not_count_who_is_elsewhere() {
        let mut presence = Presence::default();
        say(&mut presence, ("crm", "ann"), Doing::Looking, T0).unwrap();
        let second = say(&mut presence, ("salesiq", "bob"), Doing::Looking, T0).unwrap();
        assert_eq!(told(&second, "desk"), None, "somebody looks already");
        assert_eq!(told(&second, "crm").as_deref(), Some("looking"), "for crm he is the first");
        let writing = say(&mut presence, ("crm", "ann"), Doing::Writing, T0).unwrap();
        assert_eq!(told(&writing, "desk").as_deref(), Some("writing"));
        let gone = say(&mut presence, ("crm", "ann"), Doing::Gone, T0).unwrap();
        assert_eq!(told(&gone, "desk").as_deref(), Some("looking"), "somebody still does");
        assert_eq!(told(&gone, "salesiq").as_deref(), Some("gone"));
        let desk = service("desk");
        assert_eq!(
            presence.seen_by(&desk).collect::<Vec<_>>(),
            [PresenceSeen { doing: Doing::Looking, own: None }]
        );
    }

    #[test]
    fn it_lapses_fifteen_seconds_after_the_last_renewal() {
        let mut presence = Presence::default();
        assert_eq!(presence.next_deadline(), None);
        say(&mut presence, ("crm", "ann"), Doing::Looking, T0).unwrap();
        assert!(say(&mut presence, ("crm", "ann"), Doing::Looking, T0.plus_ms(10_000)).is_none(), "renewed");
        let deadline = T0.plus_ms(25_000);
        assert_eq!(presence.next_deadline(), Some(deadline));
        assert!(presence.lapse(Timestamp(deadline.0 - 1)).is_empty());
        let changes = presence.lapse(deadline);
        assert_eq!(changes.len(), 1);
        assert_eq!(told(&changes[0], "crm").as_deref(), Some("ann ANN gone"));
        assert_eq!(told(&changes[0], "desk").as_deref(), Some("gone"));
        assert_eq!(presence.next_deadline(), None);
    }

    #[test]
    fn a_clock_that_is_set_back_prolongs_nothing() {
        let mut presence = Presence::default();
        say(&mut presence, ("crm", "ann"), Doing::Looking, T0.plus_ms(3_600_000)).unwrap();
        assert!(presence.lapse(T0).is_empty());
        assert_eq!(presence.next_deadline(), Some(T0.plus_ms(LAPSE_MS)));
    }

    #[test]
    fn no_service_crowds_out_another() {
        let mut presence = Presence::default();
        for nth in 0..PRESENT_PER_SERVICE_MAX {
            assert!(say(&mut presence, ("crm", &format!("a{nth}")), Doing::Looking, T0).is_some());
        }
        assert!(say(&mut presence, ("crm", "one-more"), Doing::Looking, T0).is_none());
        assert!(say(&mut presence, ("desk", "bob"), Doing::Looking, T0).is_some());
        assert!(say(&mut presence, ("crm", "a0"), Doing::Gone, T0).is_some());
        assert!(say(&mut presence, ("crm", "one-more"), Doing::Looking, T0).is_some());
    }

    #[test]
    fn who_leaves_the_channel_is_gone_for_the_others() {
        let mut presence = Presence::default();
        say(&mut presence, ("crm", "ann"), Doing::Looking, T0).unwrap();
        say(&mut presence, ("crm", "cat"), Doing::Writing, T0).unwrap();
        say(&mut presence, ("desk", "bob"), Doing::Looking, T0).unwrap();
        let changes = presence.leave(&service("crm"));
        let told: Vec<_> = changes.iter().filter_map(|change| told(change, "desk")).collect();
        assert_eq!(told, ["gone"], "still writing after the first, gone after the second");
        assert_eq!(presence.present.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// A service that only listens always knows just what it may know of the present state.
        #[test]
        fn what_is_told_adds_up_to_what_is(
            steps in proptest::collection::vec((0_usize..3, 0_usize..3, 0_usize..3, 0_u64..6_000), 0..60),
        ) {
            let services = ["crm", "desk", "salesiq"].map(service);
            let agents = ["ann", "bob", "cat"].map(agent);
            let mut presence = Presence::default();
            let mut last: BTreeMap<(usize, usize), (Doing, u64)> = BTreeMap::new();
            let mut own: BTreeMap<(usize, AgentId), Doing> = BTreeMap::new();
            let mut others = [Doing::Gone; 3];
            let mut now = T0;
            for (of, who, what, later) in steps {
                now = now.plus_ms(later);
                let doing = [Doing::Gone, Doing::Looking, Doing::Writing][what];
                let mut changes = presence.lapse(now);
                changes.extend(presence.renew(&services[of], &agents[who], None, doing, now));
                last.retain(|_, (_, until)| *until > now.0);
                last.insert((of, who), (doing, now.0 + 15_000));
                for (viewer, id) in services.iter().enumerate() {
                    for seen in changes.iter().filter_map(|change| change.seen_by(id)) {
                        match seen.own {
                            Some(who) => { own.insert((viewer, who.agent.clone()), seen.doing); }
                            None => {
                                prop_assert_ne!(others[viewer], seen.doing, "told for nothing");
                                others[viewer] = seen.doing;
                            }
                        }
                    }
                    for (nth, agent) in agents.iter().enumerate() {
                        let is = last.get(&(viewer, nth)).map_or(Doing::Gone, |(doing, _)| *doing);
                        let known = own.get(&(viewer, agent.clone())).copied().unwrap_or(Doing::Gone);
                        prop_assert_eq!(known, is);
                    }
                    let elsewhere = last.iter().filter(|((of, _), _)| *of != viewer).map(|(_, (doing, _))| *doing);
                    prop_assert_eq!(others[viewer], elsewhere.max().unwrap_or(Doing::Gone));
                }
            }
        }
    }
}
