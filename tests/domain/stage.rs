//! One portal and one channel, and short words to tell them things.
//!
//! The stage is the owner that the channel's doc describes: it numbers drafts, applies them at once, answers a
//! `LookUp` with the full id. After every command it replays all records into a new channel and compares.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sharedline::domain::channel::{Channel, DRAFTS_MAX, Draft, Keys, ListQuery, Standing};
use sharedline::domain::command::{
    Addressee, Answer, ClaimCommand, Command, ConversationSeen, Echo, Inbound, LookedUp, Opened, Rejection,
    ReplyCommand, SendOutcome, StandingChange, StandingCommand, StatusCommand, StatusOf, ThreadAsked,
    ThreadCommand, ThreadSeen, Warned,
};
use sharedline::domain::content::Content;
use sharedline::domain::event::{
    Actor, Agent, ClearTo, Customer, Event, Message, Record, RosterChange, Settings, Status, StatusError,
};
use sharedline::domain::ids::{
    AgentId, ChannelId, ConversationId, CustomerName, MessageId, Number, Offset, PortalId, ReplyId,
    ServiceId, Timestamp,
};
use sharedline::domain::portal::{
    BotWhenClaimed, PickUpRule, Plan, Portal, PortalRules, RosterSource, ServiceRules,
};
use sharedline::domain::recent_ids::Suspect;
use sharedline::domain::view::{Masking, View, Viewer, view};

use crate::tape::Tape;

pub(crate) const MINUTE: u64 = 60_000;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;
/// When every stage begins.
pub(crate) const START: u64 = 1_700_000_000_000;
pub(crate) const SEND_TTL: u64 = HOUR;

pub(crate) fn service(id: &str) -> ServiceId {
    id.parse().unwrap()
}

pub(crate) fn agent(id: &str) -> AgentId {
    id.parse().unwrap()
}

pub(crate) fn name(id: &str) -> CustomerName {
    id.parse().unwrap()
}

pub(crate) fn message_id(id: &str) -> MessageId {
    id.parse().unwrap()
}

pub(crate) fn number() -> Number {
    "+15550783881".parse().unwrap()
}

/// A customer by a `wa_id`, by a `user_id` (with a dot), or by both (`user+wa`).
pub(crate) fn customer(names: &str) -> Customer {
    let mut customer = Customer::default();
    for part in names.split('+') {
        let part = name(part);
        if part.is_user_id() { customer.user_id = Some(part) } else { customer.wa_id = Some(part) }
    }
    customer
}

pub(crate) fn content_of(kind: &str, body: &str) -> Content {
    let json = format!(r#"{{"type":"{kind}","{kind}":{{"body":"{body}"}}}}"#);
    let end = 9 + u32::try_from(kind.len()).unwrap();
    Content::checked(Bytes::from(json), 9..end, &[])
}

pub(crate) fn text(body: &str) -> Content {
    content_of("text", body)
}

pub(crate) fn keys() -> Keys {
    Keys { fingerprint: [1; 16], confirm: [2; 16], digest: [3; 16] }
}

pub(crate) fn rules(id: &str) -> ServiceRules {
    ServiceRules {
        service: service(id),
        family: id.to_owned(),
        masking: Masking::Broker,
        pick_up: PickUpRule::Exclusive,
        claim_ttl_ms: None,
        bot_when_claimed: BotWhenClaimed::Send,
        weight: 1,
    }
}

pub(crate) fn portal_rules(services: Vec<ServiceRules>) -> PortalRules {
    PortalRules {
        portal: "acme".parse::<PortalId>().unwrap(),
        plan: Plan::Bundle,
        rosters: RosterSource::Adapter,
        services,
        fixed_rosters: BTreeMap::new(),
    }
}

pub(crate) struct Stage {
    pub(crate) portal: Portal,
    pub(crate) channel: Channel,
    pub(crate) records: Vec<Record>,
    pub(crate) now: u64,
    /// Whether every command is followed by a replay of everything; else whoever uses it replays now and then.
    pub(crate) replays: bool,
    only: Option<ServiceId>,
    messages: u64,
}

impl Stage {
    /// crm, desk and salesiq with `exclusive`; crm alone is subscribed; ann and bob work in crm, dan and eve in desk,
    /// sid in salesiq, and zoe in all of them.
    pub(crate) fn new() -> Self {
        let mut stage = Self::empty(vec![rules("crm"), rules("desk"), rules("salesiq"), rules("books")]);
        stage.roster("crm", &["ann", "bob", "zoe"]);
        stage.roster("desk", &["dan", "eve", "zoe"]);
        stage.roster("salesiq", &["sid", "zoe"]);
        stage.create("crm");
        stage
    }

    /// The same with all three subscribed, crm first.
    pub(crate) fn shared() -> Self {
        let mut stage = Self::new();
        stage.create("desk");
        stage.create("salesiq");
        stage
    }

    pub(crate) fn empty(services: Vec<ServiceRules>) -> Self {
        Self::of(portal_rules(services), None)
    }

    pub(crate) fn of(rules: PortalRules, only: Option<ServiceId>) -> Self {
        let channel = Channel::new(ChannelId(7 << 64 | 9), number(), only.clone(), keys(), SEND_TTL);
        Self {
            portal: Portal::new(rules),
            channel,
            records: Vec::new(),
            now: START,
            replays: true,
            only,
            messages: 0,
        }
    }

    /// Changes one service's rules, as a reload of the configuration does.
    pub(crate) fn rule(&mut self, id: &str, change: impl FnOnce(&mut ServiceRules)) {
        let mut services: Vec<ServiceRules> = self.portal.services().cloned().collect();
        change(services.iter_mut().find(|rules| rules.service == service(id)).unwrap());
        self.portal = self.portal.with_rules(portal_rules(services));
    }

    /// What a service says its agents are, all of them; `lead:` before a name makes him one.
    pub(crate) fn roster(&mut self, of: &str, agents: &[&str]) {
        let agents = agents.iter().map(|id| {
            let (id, lead) = id.strip_prefix("lead:").map_or((*id, false), |id| (id, true));
            Agent { agent: agent(id), name: Arc::from(format!("Name-{id}")), lead }
        });
        let change =
            RosterChange { service: service(of), agents: agents.collect(), replace: true, remove: vec![] };
        let event = self.portal.decide_roster(&change).unwrap();
        self.portal.apply(&event);
    }

    /// A roster that an adapter changes: the channel is told, and its follow-ups are written.
    pub(crate) fn roster_changed(&mut self, of: &str, agents: &[&str]) {
        self.roster(of, agents);
        self.tell(Command::RosterChanged { service: service(of) }).unwrap();
        self.settle();
    }

    /// Decides, numbers, applies; then replays everything and compares.
    pub(crate) fn tell(&mut self, command: Command) -> Result<Answer, Rejection> {
        let answer = self.tell_unchecked(&command);
        if self.replays {
            assert_eq!(self.replayed(), self.channel, "a replay differs after {command:?}");
        }
        answer
    }

    /// Without the replay, for tests that tell thousands of commands.
    pub(crate) fn tell_unchecked(&mut self, command: &Command) -> Result<Answer, Rejection> {
        let mut drafts: Vec<Draft> = Vec::new();
        let now = Timestamp(self.now);
        let answer = self.channel.decide(&self.portal, command, now, &mut drafts);
        assert!(answer.is_ok() || drafts.is_empty(), "a refusal records nothing");
        assert!(drafts.len() <= DRAFTS_MAX);
        for Draft { conversation, event, known } in drafts {
            let record = Record { offset: self.channel.head().next(), at: now, conversation, event };
            self.channel.apply_known(&record, known);
            self.records.push(record);
        }
        answer
    }

    /// The records folded again; the state is saved and restored once, each time behind another record.
    pub(crate) fn replayed(&self) -> Channel {
        let new = || Channel::new(self.channel.id(), number(), self.only.clone(), keys(), SEND_TTL);
        let mut channel = new();
        let saved_behind = self.records.len() * 7 % (self.records.len() + 1).min(5);
        let (before, after) = self.records.split_at(self.records.len() - saved_behind);
        before.iter().for_each(|record| channel.apply(record));
        let mut tape = Tape::default();
        channel.save(&mut tape);
        let mut channel = new().restore(&mut tape).unwrap();
        assert!(tape.is_empty(), "all that was saved is restored");
        after.iter().for_each(|record| channel.apply(record));
        channel
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now += ms;
    }

    /// Ticks until nothing follows.
    pub(crate) fn settle(&mut self) {
        self.tell(Command::Tick).unwrap();
        while self.channel.has_follow_up(&self.portal) {
            self.tell(Command::Tick).unwrap();
        }
    }

    pub(crate) fn standing(&mut self, of: &str, change: StandingChange) -> Result<Answer, Rejection> {
        self.standing_with(of, change, false)
    }

    pub(crate) fn standing_with(
        &mut self,
        of: &str,
        change: StandingChange,
        backfill: bool,
    ) -> Result<Answer, Rejection> {
        let (by, service) = (Actor::Service(service(of)), service(of));
        self.tell(Command::Standing(StandingCommand { service, by, change, backfill }))
    }

    pub(crate) fn create(&mut self, of: &str) {
        self.standing(of, StandingChange::Create).unwrap();
    }

    pub(crate) fn activate(&mut self, of: &str) {
        self.standing(of, StandingChange::Activate).unwrap();
    }

    pub(crate) fn deactivate(&mut self, of: &str) {
        self.standing(of, StandingChange::Deactivate).unwrap();
    }

    pub(crate) fn delete(&mut self, of: &str) {
        self.standing(of, StandingChange::Delete).unwrap();
    }

    /// `crm* desk salesiq`: the list, the parent starred.
    pub(crate) fn list(&self) -> String {
        let star = |id: &ServiceId| {
            if self.channel.parent() == Some(id) { format!("{id}*") } else { id.to_string() }
        };
        self.channel.subscribers().iter().map(star).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn standing_of(&self, of: &str) -> Standing {
        self.channel.standing(&service(of))
    }

    pub(crate) fn inbound_of(&mut self, from: &str, body: &str) -> Inbound {
        self.messages += 1;
        Inbound::from(Message {
            message_id: message_id(&format!("wamid.{}", self.messages)),
            customer: customer(from),
            formerly: Vec::new(),
            sent_at: Timestamp(self.now),
            content: text(body),
            refers_to: None,
            clear_to: ClearTo::Everyone,
            contact: None,
        })
    }

    /// A customer's message; a suspected repeat is compared by its full id.
    pub(crate) fn receive(&mut self, mut inbound: Inbound) -> Result<Answer, Rejection> {
        let answer = self.tell(Command::Inbound(inbound.clone()))?;
        let Answer::LookUp(Suspect::At(offset)) = answer else { return Ok(answer) };
        let Event::Message(known) = &self.record(offset).event else { panic!("no message at {offset}") };
        let is_same = known.message_id == inbound.message.message_id;
        inbound.looked_up = if is_same { LookedUp::Same(offset) } else { LookedUp::Different };
        self.tell(Command::Inbound(inbound))
    }

    /// A customer writes; gives the conversation.
    pub(crate) fn writes(&mut self, from: &str, body: &str) -> ConversationId {
        let inbound = self.inbound_of(from, body);
        let Ok(Answer::Message { offset, duplicate: false }) = self.receive(inbound) else {
            panic!("not taken")
        };
        self.record(offset).conversation.unwrap()
    }

    pub(crate) fn record(&self, offset: Offset) -> &Record {
        let record = &self.records[usize::try_from(offset.0).unwrap() - 1];
        assert_eq!(record.offset, offset);
        record
    }

    pub(crate) fn last(&self) -> &Record {
        self.records.last().unwrap()
    }

    pub(crate) fn open(&mut self, of: &str, who: &str, conversation: ConversationId) -> Opened {
        match self.try_open(of, who, conversation) {
            Ok(Answer::Opened(opened)) => opened,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn try_open(
        &mut self,
        of: &str,
        who: &str,
        conversation: ConversationId,
    ) -> Result<Answer, Rejection> {
        self.tell(Command::Open { service: service(of), conversation, agent: agent(who) })
    }

    pub(crate) fn pick_up(
        &mut self,
        of: &str,
        who: &str,
        conversation: ConversationId,
    ) -> Result<Answer, Rejection> {
        self.pick_up_with(of, who, conversation, None)
    }

    pub(crate) fn pick_up_with(
        &mut self,
        of: &str,
        who: &str,
        conversation: ConversationId,
        confirm: Option<&Warned>,
    ) -> Result<Answer, Rejection> {
        let confirm = confirm.map(|warned| Arc::clone(&warned.confirm));
        self.tell(Command::PickUp { service: service(of), conversation, agent: agent(who), confirm })
    }

    /// `holder` is named where somebody acts on another's claim.
    pub(crate) fn claim(
        of: &str,
        who: Option<&str>,
        holder: Option<&str>,
        conversation: ConversationId,
    ) -> ClaimCommand {
        let by = if who.is_some() { Actor::Service(service(of)) } else { Actor::Operator };
        ClaimCommand {
            service: service(of),
            by,
            conversation,
            agent: who.map(agent),
            holder: holder.map(agent),
        }
    }

    pub(crate) fn release(
        &mut self,
        of: &str,
        who: &str,
        conversation: ConversationId,
    ) -> Result<Answer, Rejection> {
        self.tell(Command::Release(Self::claim(of, Some(who), None, conversation)))
    }

    pub(crate) fn reply_of(
        of: &str,
        who: Option<&str>,
        conversation: ConversationId,
        reply_id: &str,
    ) -> ReplyCommand {
        ReplyCommand {
            service: service(of),
            agent: who.map(agent),
            to: Addressee::Conversation(conversation),
            reply_id: ReplyId::trusted(reply_id),
            content: text(reply_id),
            callback_data: None,
            seen: None,
            confirm: None,
        }
    }

    pub(crate) fn reply(&mut self, command: ReplyCommand) -> Result<Answer, Rejection> {
        self.tell(Command::Reply(command))
    }

    /// A reply that must be accepted; gives where it stands.
    pub(crate) fn replies(
        &mut self,
        of: &str,
        who: Option<&str>,
        conversation: ConversationId,
        reply_id: &str,
    ) -> Offset {
        match self.reply(Self::reply_of(of, who, conversation, reply_id)) {
            Ok(Answer::Accepted { offset, duplicate: false, .. }) => offset,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn echo(&mut self, to: &str, id: &str, body: &str) -> Answer {
        let sent_at = Some(Timestamp(self.now.saturating_sub(1_000)));
        let echo = Echo { message_id: message_id(id), to: customer(to), content: text(body), sent_at };
        self.tell(Command::Echo(echo)).unwrap()
    }

    pub(crate) fn hand(&mut self, reply: Offset) -> Result<Answer, Rejection> {
        self.tell(Command::Hand { reply })
    }

    pub(crate) fn outcome(&mut self, reply: Offset, outcome: SendOutcome) -> Answer {
        self.tell(Command::Outcome { reply, outcome }).unwrap()
    }

    pub(crate) fn status(&mut self, of: StatusOf, status: Status) -> Answer {
        let error = (status == Status::Failed).then(|| failure("131000"));
        let command = StatusCommand { of, status, error, status_at: Timestamp(self.now), carried: None };
        self.tell(Command::Status(command)).unwrap()
    }

    pub(crate) fn configure(&mut self, of: &str, settings: Settings) -> Result<Answer, Rejection> {
        self.tell(Command::Configure { service: service(of), settings })
    }

    /// A thread taken, passed or released by a service's bot.
    pub(crate) fn thread(
        &mut self,
        of: &str,
        conversation: ConversationId,
        asked: ThreadAsked,
    ) -> Result<Answer, Rejection> {
        let of_whom = Addressee::Conversation(conversation);
        let command = ThreadCommand { service: service(of), of: of_whom, agent: None, asked };
        self.tell(Command::Thread(command))
    }

    /// Whose a thread is, as a service sees it.
    pub(crate) fn thread_seen(&self, of: &str, conversation: ConversationId) -> ThreadSeen {
        let of_whom = Addressee::Conversation(conversation);
        self.channel.thread(&service(of), &of_whom, Timestamp(self.now)).unwrap().1
    }

    /// The claims that hold, as `service agent`, from the view of a list.
    pub(crate) fn holders(&self, of: &str, conversation: ConversationId) -> Vec<String> {
        let mut holders: Vec<String> = self
            .listed(of, conversation)
            .claims
            .into_iter()
            .filter(|claim| claim.own)
            .map(|claim| claim.agent.unwrap().as_str().to_owned())
            .collect();
        holders.sort();
        holders
    }

    pub(crate) fn listed(&self, of: &str, conversation: ConversationId) -> ConversationSeen {
        let mut query =
            ListQuery { service: service(of), after: None, limit: 200, claimed: None, unanswered: None };
        loop {
            let (listed, next) = self.channel.list_conversations(&self.portal, &query, Timestamp(self.now));
            if let Some(found) = listed.into_iter().find(|listed| listed.conversation == conversation) {
                return found;
            }
            assert!(next.is_some(), "{conversation} is not in the list");
            query.after = next;
        }
    }

    /// What the service is delivered, as its span and the view say: the records that are for it.
    pub(crate) fn delivered(&self, of: &str) -> Vec<&Record> {
        let span = self.channel.delivery_span(&service(of));
        let is_due = |record: &&Record| {
            let is_receipt = matches!(record.event, Event::Receipt(_));
            record.offset > span.acknowledged
                && span.stretches.iter().any(|stretch| {
                    record.offset > stretch.after
                        && stretch.through.is_none_or(|through| record.offset <= through)
                        && (stretch.receipts || !is_receipt)
                })
        };
        self.records.iter().filter(is_due).filter(|record| self.sees(of, record).is_some()).collect()
    }

    pub(crate) fn offsets_delivered(&self, of: &str) -> Vec<u64> {
        self.delivered(of).iter().map(|record| record.offset.0).collect()
    }

    pub(crate) fn sees<'a>(&self, of: &str, record: &'a Record) -> Option<View<'a>> {
        let of = service(of);
        let masking = self.portal.service(&of).unwrap().masking;
        view(record, &Viewer { service: &of, masking }).map(|(_, view)| view)
    }
}

pub(crate) fn failure(code: &str) -> StatusError {
    StatusError { code: Arc::from(code), title: None, details: None }
}

pub(crate) fn warned(answer: Result<Answer, Rejection>) -> Warned {
    match answer {
        Ok(Answer::Warned(warned)) => warned,
        other => panic!("no warning: {other:?}"),
    }
}
