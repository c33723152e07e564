//! The rules once more, as naively as can be: plain numbers and words, nothing of the domain. What it answers is what
//! the domain must answer.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
/// Service 0 is exclusive and its claims expire; 1 is takeover, 2 open.
pub(crate) const TTL: u64 = 30 * MINUTE;

#[derive(Debug, Clone)]
pub(crate) enum Do {
    Standing(usize, &'static str),
    Write(usize),
    WriteAs(usize, usize),
    PickUp { service: usize, agent: usize, customer: usize, confirm: bool },
    Release { service: usize, agent: usize, customer: usize },
    Transfer { service: usize, agent: usize, to: usize, customer: usize },
    Reply { service: usize, agent: Option<usize>, customer: usize, id: usize },
    Roster { service: usize, agent: usize, there: bool },
    Take { service: usize, customer: usize, words: Option<usize> },
    PassOn { service: usize, to: usize, customer: usize, words: Option<usize> },
    GiveUp { service: usize, customer: usize },
    Pass(u64),
    Tick,
}

#[derive(Clone)]
struct Claim {
    service: usize,
    agent: usize,
    made: u64,
    active: u64,
}

/// Whose a thread is, since when, and what was handed on with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Note {
    pub(crate) owner: usize,
    pub(crate) since: u64,
    pub(crate) words: Option<usize>,
}

#[derive(Default)]
struct Conversation {
    newest: Option<u64>,
    written_since_active: bool,
    claims: Vec<Claim>,
    note: Option<Note>,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) now: u64,
    count: u64,
    existed: bool,
    /// Per service: its rank while it has a record, and whether it is subscribed.
    ranks: BTreeMap<usize, u64>,
    pub(crate) list: Vec<usize>,
    pub(crate) parent: Option<usize>,
    active_since: u64,
    /// Which conversation a customer's name leads to; conversations stand in the order of their age.
    home: BTreeMap<usize, usize>,
    conversations: Vec<Conversation>,
    pub(crate) rosters: BTreeSet<(usize, usize)>,
    replies: BTreeMap<(usize, usize), usize>,
    /// What the last warning of an agent about a customer told of: the claims that were there.
    covers: BTreeMap<(usize, usize), BTreeSet<u64>>,
}

impl Model {
    fn is_there(&self) -> Result<(), &'static str> {
        match (self.existed, self.ranks.is_empty()) {
            (false, _) => Err("not_found"),
            (true, true) => Err("channel_closed"),
            (true, false) => Ok(()),
        }
    }

    fn may(&self, service: usize) -> Result<(), &'static str> {
        self.is_there()?;
        if self.list.contains(&service) { Ok(()) } else { Err("not_subscribed") }
    }

    fn holds(&self, claim: &Claim) -> bool {
        let expired = claim.service == 0 && self.now >= claim.active + TTL;
        !expired && self.list.contains(&claim.service) && self.rosters.contains(&(claim.service, claim.agent))
    }

    /// The claims that hold; all others are swept away.
    fn claims(&mut self, at: usize) -> &mut Vec<Claim> {
        let mut claims = std::mem::take(&mut self.conversations[at].claims);
        claims.retain(|claim| self.holds(claim));
        self.conversations[at].claims = claims;
        &mut self.conversations[at].claims
    }

    fn sweep(&mut self) {
        for at in 0..self.conversations.len() {
            self.claims(at);
            let Conversation { newest, note, .. } = &mut self.conversations[at];
            let lapsed = newest.is_none_or(|newest| self.now >= newest + DAY);
            *note = note.filter(|note| !lapsed && self.list.contains(&note.owner));
        }
    }

    /// The note on the conversation with a customer, and until when it holds.
    pub(crate) fn note(&mut self, customer: usize) -> Option<(Note, u64)> {
        self.sweep();
        let conversation = &self.conversations[*self.home.get(&customer)?];
        Some((conversation.note?, conversation.newest? + DAY))
    }

    fn shown(&mut self, service: usize, customer: usize) -> &'static str {
        match self.note(customer) {
            None => "none",
            Some((note, _)) if note.owner == service => "self",
            Some(_) => "another",
        }
    }

    /// `to` is nobody where the note is given up.
    fn thread(
        &mut self,
        service: usize,
        customer: usize,
        to: Option<usize>,
        words: Option<usize>,
    ) -> Result<&'static str, &'static str> {
        self.may(service)?;
        let at = self.home.get(&customer).copied().ok_or("not_found")?;
        if to.is_some_and(|to| !self.list.contains(&to)) {
            return Err("not_found");
        }
        let since = self.now;
        let note = &mut self.conversations[at].note;
        match (to, *note) {
            (None, Some(held)) if held.owner == service => *note = None,
            (None, _) => {}
            (Some(to), Some(held)) if held.owner == to && (words.is_none() || words == held.words) => {}
            (Some(owner), _) => *note = Some(Note { owner, since, words }),
        }
        Ok(self.shown(service, customer))
    }

    /// Who holds the conversation of a customer within a service.
    pub(crate) fn holders(&mut self, service: usize, customer: usize) -> Vec<usize> {
        let Some(at) = self.home.get(&customer).copied() else { return Vec::new() };
        let claims = self.claims(at).iter().filter(|claim| claim.service == service);
        let holders: BTreeSet<usize> = claims.map(|claim| claim.agent).collect();
        holders.into_iter().collect()
    }

    pub(crate) fn tell(&mut self, what: &Do) -> Result<&'static str, &'static str> {
        self.count += 1;
        self.sweep();
        match *what {
            Do::Standing(service, change) => self.standing(service, change),
            Do::Write(customer) => Ok(self.write(&[customer])),
            Do::WriteAs(customer, formerly) => Ok(self.write(&[customer, formerly])),
            Do::PickUp { service, agent, customer, confirm } => {
                self.pick_up(service, agent, customer, confirm)
            }
            Do::Release { service, agent, customer } => self.hand_on(service, agent, customer, None),
            Do::Transfer { service, agent, to, customer } => self.hand_on(service, agent, customer, Some(to)),
            Do::Reply { service, agent, customer, id } => self.reply(service, agent, customer, id),
            Do::Roster { service, agent, there } => {
                if there {
                    self.rosters.insert((service, agent));
                } else {
                    self.rosters.remove(&(service, agent));
                }
                self.sweep();
                Ok("done")
            }
            Do::Take { service, customer, words } => self.thread(service, customer, Some(service), words),
            Do::PassOn { service, to, customer, words } => self.thread(service, customer, Some(to), words),
            Do::GiveUp { service, customer } => self.thread(service, customer, None, None),
            Do::Pass(ms) => {
                self.now += ms;
                Ok("done")
            }
            Do::Tick => Ok("done"),
        }
    }

    fn standing(&mut self, service: usize, change: &str) -> Result<&'static str, &'static str> {
        let makes = !self.existed && change == "create";
        if !makes {
            self.is_there()?;
        }
        let subscribed = self.list.contains(&service);
        let known = self.ranks.contains_key(&service);
        let answer = match (change, known, subscribed) {
            ("create", _, false) if makes => "created",
            ("create", _, false) => "joined",
            ("activate", true, false) | ("deactivate", _, true) | ("delete", true, _) => "changed",
            (_, false, _) => return Err("not_subscribed"),
            _ => return Ok("unchanged"),
        };
        if matches!(change, "create" | "activate") {
            self.existed = true;
            self.ranks.entry(service).or_insert(self.count);
            if self.list.is_empty() {
                self.active_since = self.now;
                self.parent = Some(service);
                self.conversations.iter_mut().for_each(|one| one.written_since_active = false);
            }
            self.list.push(service);
        } else {
            self.list.retain(|other| *other != service);
            if change == "delete" {
                self.ranks.remove(&service);
            }
            if self.parent == Some(service) {
                self.parent = self.list.iter().copied().min_by_key(|other| self.ranks[other]);
            }
            self.sweep();
        }
        Ok(answer)
    }

    fn write(&mut self, names: &[usize]) -> &'static str {
        if self.list.is_empty() {
            return "not_taken";
        }
        let mut found: BTreeSet<usize> =
            names.iter().filter_map(|name| self.home.get(name).copied()).collect();
        let at = found.pop_first().unwrap_or_else(|| {
            self.conversations.push(Conversation::default());
            self.conversations.len() - 1
        });
        for younger in found {
            let gone = std::mem::take(&mut self.conversations[younger]);
            let held: BTreeSet<usize> = self.claims(at).iter().map(|claim| claim.service).collect();
            let moved = gone.claims.into_iter().filter(|claim| !held.contains(&claim.service));
            self.conversations[at].claims.extend(moved);
            self.conversations[at].note = self.conversations[at].note.or(gone.note);
            self.home.values_mut().filter(|home| **home == younger).for_each(|home| *home = at);
            self.replies.values_mut().filter(|home| **home == younger).for_each(|home| *home = at);
        }
        self.home.extend(names.iter().map(|name| (*name, at)));
        self.conversations[at].newest = Some(self.now);
        self.conversations[at].written_since_active = true;
        "taken"
    }

    fn pick_up(
        &mut self,
        service: usize,
        agent: usize,
        customer: usize,
        confirm: bool,
    ) -> Result<&'static str, &'static str> {
        self.may(service)?;
        let at = self.home.get(&customer).copied().ok_or("not_found")?;
        if !self.rosters.contains(&(service, agent)) {
            return Err("unknown_agent");
        }
        let (made, now) = (self.count, self.now);
        let covered = self.covers.get(&(agent, customer)).filter(|_| confirm).cloned().unwrap_or_default();
        let claims = self.claims(at);
        if let Some(own) = claims.iter_mut().find(|claim| claim.service == service && claim.agent == agent) {
            if now - own.active >= TTL / 10 {
                own.active = now;
            }
            return Ok("picked_up");
        }
        if service == 0 && claims.iter().any(|claim| claim.service == 0) {
            return Err("claimed");
        }
        let mut warned_of =
            claims.iter().filter(|claim| claim.agent != agent && (claim.service != service || service == 1));
        if warned_of.any(|claim| !covered.contains(&claim.made)) {
            let all = claims.iter().map(|claim| claim.made).collect();
            self.covers.insert((agent, customer), all);
            return Ok("warned");
        }
        claims.retain(|claim| service != 1 || claim.service != 1);
        claims.push(Claim { service, agent, made, active: now });
        Ok("picked_up")
    }

    fn hand_on(
        &mut self,
        service: usize,
        agent: usize,
        customer: usize,
        to: Option<usize>,
    ) -> Result<&'static str, &'static str> {
        self.may(service)?;
        let at = self.home.get(&customer).copied().ok_or("not_found")?;
        if !self.rosters.contains(&(service, agent)) {
            return Err("unknown_agent");
        }
        let heir = to.map(|to| self.rosters.contains(&(service, to)));
        let (made, now) = (self.count, self.now);
        let claims = self.claims(at);
        let is_of = |claim: &Claim, who: usize| claim.service == service && claim.agent == who;
        if !claims.iter().any(|claim| is_of(claim, agent)) {
            return Err("not_claimed");
        }
        match (to, heir) {
            (Some(_), Some(false)) => return Err("unknown_agent"),
            (Some(to), _) if to == agent => return Ok("picked_up"),
            _ => claims.retain(|claim| !is_of(claim, agent)),
        }
        let Some(to) = to else { return Ok("done") };
        if !claims.iter().any(|claim| is_of(claim, to)) {
            claims.push(Claim { service, agent: to, made, active: now });
        }
        Ok("picked_up")
    }

    fn reply(
        &mut self,
        service: usize,
        agent: Option<usize>,
        customer: usize,
        id: usize,
    ) -> Result<&'static str, &'static str> {
        self.is_there()?;
        let at = self.home.get(&customer).copied();
        let known = self.replies.get(&(service, id)).copied();
        let at_or = at.ok_or(if known.is_some() { "conflict" } else { "not_found" });
        if known.is_none() {
            at_or?;
        }
        self.may(service)?;
        let at = at_or?;
        if let Some(known) = known {
            return if known == at { Ok("duplicate") } else { Err("conflict") };
        }
        if agent.is_some_and(|agent| !self.rosters.contains(&(service, agent))) {
            return Err("unknown_agent");
        }
        let conversation = &self.conversations[at];
        let unknown = !conversation.written_since_active && self.now < self.active_since + DAY;
        if !unknown && conversation.newest.is_some_and(|newest| self.now >= newest + DAY) {
            return Err("window_closed");
        }
        let now = self.now;
        let claims = self.claims(at);
        let own = claims.iter_mut().find(|claim| claim.service == service && Some(claim.agent) == agent);
        if let Some(own) = own {
            own.active = now;
        } else if agent.is_some() && claims.iter().any(|claim| claim.service == service) {
            match service {
                0 => return Err("claimed"),
                1 => return Ok("warned"),
                _ => {}
            }
        }
        self.replies.insert((service, id), at);
        Ok("accepted")
    }
}
