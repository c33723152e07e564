//! Replies and echoes: the order in which a reply is looked at, and what stops it (R13, R20, B4, B5, B8, B16, B17).

use super::conversations::{Author, Conversation, Index, Names};
use super::picking::{claimed, is_covered, pick_up_rule};
use super::{Channel, Turn};
use crate::domain::claims::{Asking, Confirming, Held, Unseen};
use crate::domain::command::{Addressee, Answer, ChannelState, Echo, Rejection, ReplyCommand, Window};
use crate::domain::event::{Customer, Event, Record, Reply};
use crate::domain::ids::{AgentId, ConversationId, ECHO_PREFIX, Offset, ReplyId, ServiceId};
use crate::domain::outbox::Known;
use crate::domain::portal::{BotWhenClaimed, PickUpRule};

/// What passes outside the customer-service window.
const TEMPLATE: &str = "template";

impl Channel {
    /// A known `reply_id` is answered before agent, window, claims and warnings are looked at (B4); the rest is in the
    /// order of the contract.
    pub(super) fn decide_reply(
        &self,
        turn: &mut Turn<'_>,
        command: &ReplyCommand,
    ) -> Result<Answer, Rejection> {
        let ReplyCommand { service, reply_id, .. } = command;
        if reply_id.as_str().starts_with(ECHO_PREFIX) {
            return Err(Rejection::BadMessage("a reply id may not begin with echo:"));
        }
        self.check_there(service)?;
        let digest = self.outbox.digest(&command.content, command.callback_data.as_ref());
        let entry = self.addressed(&command.to);
        let known = self.outbox.known(service, reply_id, digest, entry.map(|entry| entry.id));
        if known == Known::New && entry.is_none() && matches!(command.to, Addressee::Conversation(_)) {
            return Err(Rejection::NotFound);
        }
        self.check_subscribed(service)?;
        match known {
            Known::New => {}
            Known::Same { offset, conversation, .. } => {
                return Ok(Answer::Accepted { offset, conversation, duplicate: true });
            }
            Known::Conflict => return Err(Rejection::Conflict),
        }
        if command.agent.as_ref().is_some_and(|agent| turn.portal.agent(service, agent).is_none()) {
            return Err(Rejection::UnknownAgent);
        }
        let closed = matches!(self.window_of(entry, turn.now), Window::Closed(_));
        if closed && command.content.kind() != TEMPLATE {
            return Err(Rejection::WindowClosed);
        }
        if let Some(entry) = entry
            && let Some(warned) = self.stopped(turn, command, entry)?
        {
            return Ok(warned);
        }
        if !self.outbox.has_room(service) {
            return Err(Rejection::TooManyReplies);
        }
        Ok(self.accept(turn, command, entry, digest))
    }

    /// The conversation that a reply goes to, if it has begun.
    pub(super) fn addressed(&self, to: &Addressee) -> Option<&Conversation> {
        match to {
            Addressee::Conversation(id) => self.find(*id),
            Addressee::Customer(name) => {
                let index = self.conversations.find_name(self.fingerprints.customer_name(name))?;
                self.conversations.get(index)
            }
        }
    }

    /// What the claims of the service and others' replies say to it: a refusal, a warning or nothing (B16, B5).
    fn stopped(
        &self,
        turn: &Turn<'_>,
        command: &ReplyCommand,
        entry: &Conversation,
    ) -> Result<Option<Answer>, Rejection> {
        let ReplyCommand { service, agent, .. } = command;
        let agent = agent.as_ref();
        let of_service = |claim: &Held<'_>| claim.service == service;
        let held: Vec<Held<'_>> = self.held(turn.portal, entry, turn.now).filter(of_service).collect();
        let holds_it = held.iter().any(|claim| Some(&claim.holder.agent) == agent);
        let refuses_bots = turn
            .portal
            .service(service)
            .is_some_and(|rules| rules.bot_when_claimed == BotWhenClaimed::Refuse);
        let rule = pick_up_rule(turn.portal, service);
        let stops = if agent.is_some() { rule == PickUpRule::Exclusive && !holds_it } else { refuses_bots };
        if stops && let Some(claim) = held.first() {
            return Err(claimed(claim));
        }
        let whose = agent.map_or(Confirming::Bot(service), Confirming::Agent);
        let covered = self.covered(entry, whose, command.confirm.as_deref())?;
        let warns_of_claims = agent.is_some() && rule == PickUpRule::Takeover && !holds_it;
        let others: &[Held<'_>] = if warns_of_claims { &held } else { &[] };
        let asking = Asking { portal: turn.portal, service, agent };
        let unseen = self.unseen(command, entry);
        let warnings = asking.warnings(others, unseen, |open| is_covered(entry, covered, open));
        Ok(self.warned(entry, whose, warnings).map(Answer::Warned))
    }

    /// The last reply by anybody else behind what the agent had seen.
    fn unseen<'a>(&'a self, command: &ReplyCommand, entry: &Conversation) -> Option<Unseen<'a>> {
        let seen = command.seen?;
        let asking = self.author(&command.service, command.agent.as_ref());
        let is_last = asking != Some(entry.last_author);
        let offset = if is_last { entry.last_reply } else { entry.others_reply };
        if offset <= seen {
            return None;
        }
        let last = entry.last_author;
        let service = self.services.get(last.service).map(|slot| &slot.id).filter(|_| is_last);
        let agent = last.agent.and_then(|agent| self.agents.get(agent));
        Some(Unseen { author: service.map(|service| (service, agent)), offset })
    }

    /// As whom somebody replies, if he ever did anything here.
    fn author(&self, service: &ServiceId, agent: Option<&AgentId>) -> Option<Author> {
        let service = self.services.find(service)?;
        let agent = match agent {
            Some(agent) => Some(self.agents.find(agent)?),
            None => None,
        };
        Some(Author { service, agent })
    }

    fn accept(
        &self,
        turn: &mut Turn<'_>,
        command: &ReplyCommand,
        entry: Option<&Conversation>,
        digest: u128,
    ) -> Answer {
        if let Some((entry, service)) = entry.zip(self.services.find(&command.service)) {
            // A reply counts as activity of its agent's claim, so one that has ended must not be there any more.
            self.record_ended(turn, entry, service);
        }
        let offset = turn.next_offset();
        let conversation = entry.map_or_else(|| ConversationId::derive(self.id, offset), |entry| entry.id);
        let to = match &command.to {
            // Who he is stands in the conversation's own records: `customer_at`.
            Addressee::Conversation(_) => Customer::default(),
            Addressee::Customer(name) if name.is_user_id() => {
                Customer { user_id: Some(name.clone()), ..Customer::default() }
            }
            Addressee::Customer(name) => Customer { wa_id: Some(name.clone()), ..Customer::default() },
        };
        let reply = Reply {
            service: command.service.clone(),
            agent: command.agent.clone(),
            reply_id: command.reply_id.clone(),
            digest,
            content: command.content.clone(),
            callback_data: command.callback_data.clone(),
            to,
            reveal: self.settings,
            echo_of: None,
            sent_at: None,
        };
        turn.record(Some(conversation), Event::from(reply));
        Answer::Accepted { offset, conversation, duplicate: false }
    }

    /// A reply written on the phone is the parent's. A repeat is told by the message id, whoever is parent by now.
    pub(super) fn decide_echo(&self, turn: &mut Turn<'_>, echo: &Echo) -> Result<Answer, Rejection> {
        let Some(parent) = self.parent.clone().filter(|_| self.state() == ChannelState::Active) else {
            return Ok(Answer::NotTaken);
        };
        if echo.to.id().is_none() {
            return Err(Rejection::BadMessage("an echo names its customer"));
        }
        let known = self.outbox.reply_of(&echo.message_id);
        if let Some((offset, reply)) = known.and_then(|offset| Some((offset, self.outbox.reply(offset)?))) {
            return Ok(Answer::Accepted { offset, conversation: reply.conversation, duplicate: true });
        }
        let names = Names::of(&self.fingerprints, &echo.to, &[]);
        let conversation = self.conversation_with(turn, &names);
        let reply = Reply {
            service: parent,
            agent: None,
            reply_id: ReplyId::trusted(&[ECHO_PREFIX, echo.message_id.as_str()].concat()),
            digest: self.outbox.digest(&echo.content, None),
            content: echo.content.clone(),
            callback_data: None,
            to: echo.to.clone(),
            reveal: self.settings,
            echo_of: Some(echo.message_id.clone()),
            sent_at: echo.sent_at,
        };
        let offset = turn.next_offset();
        let (service, reply_id) = (reply.service.clone(), reply.reply_id.clone());
        turn.record(Some(conversation), Event::from(reply));
        let now = turn.now;
        self.outbox.take_up_echo(offset, &service, &reply_id, conversation, &echo.message_id, now, turn.out);
        Ok(Answer::Accepted { offset, conversation, duplicate: false })
    }

    /// A reply leaves: not from a closed channel.
    pub(super) fn decide_hand(&self, turn: &mut Turn<'_>, reply: Offset) -> Result<Answer, Rejection> {
        if self.state() == ChannelState::Closed {
            return Err(Rejection::ChannelClosed);
        }
        let Some(handed) = self.outbox.hand(reply, turn.now) else { return Ok(Answer::Ignored) };
        turn.out.push(handed);
        Ok(Answer::Done)
    }

    /// What is due: ends of claims first, then what a closed channel or time makes of replies.
    pub(super) fn decide_tick(&self, turn: &mut Turn<'_>) {
        self.record_due_ends(turn);
        let (now, room) = (turn.now, turn.room());
        if self.has_replies_to_fail() {
            self.outbox.fail_unsent(room, now, turn.out);
        } else {
            self.outbox.due(now, room, turn.out);
        }
    }

    pub(super) fn apply_reply(&mut self, record: &Record, index: Index, reply: &Reply) {
        let names = Names::of(&self.fingerprints, &reply.to, &[]);
        self.conversations.tie(&names, index);
        let Some(service) = self.services.enter(&reply.service) else { return };
        let agent = reply.agent.as_ref().and_then(|agent| self.agents.enter(agent));
        if let Some(entry) = self.conversations.get_mut(index) {
            entry.replied(Author { service, agent }, record.offset);
            entry.named(&reply.to, false, record.offset);
        }
        if let Some(agent) = &reply.agent {
            self.apply_activity(index, &reply.service, agent, record.at);
        }
    }
}
