//! Each request: what the domain says to it, in the words of the port, held until it is durable.

use std::sync::Arc;

use super::fates::HeldWhom;
use super::{Answer, ChannelActor, Command, ConversationActor, Rejection};
use crate::actors::asking::{Ask, Asked, ReplyTo};
use crate::actors::conversation::{ReadTimeline, Renew, customer_in};
use crate::actors::outlet::Outlet;
use crate::actors::port::{Answered, Outgoing, Refusal};
use crate::actors::portal::Recreate;
use crate::domain::channel::{ConversationNow, ListQuery};
use crate::domain::command::{
    ConversationSeen, Opened, StandingChange, StandingCommand, ThreadAsked, ThreadCommand,
};
use crate::domain::event::Customer;
use crate::domain::ids::{AgentId, ConversationId, Offset, ServiceId, Timestamp};
use crate::domain::outbox::Fate;
use crate::domain::presence::Doing;
use crate::domain::view::Masking;
use crate::journal::StreamId;

/// What waits until what it was decided on is durable.
#[derive(Debug)]
pub(super) enum Held {
    /// Answers for one connection, under their requests' ids, which leave together.
    Answers { to: Arc<Outlet>, answers: Vec<(u64, Answered)> },
    /// One for somebody else.
    Answer { origin: Option<Arc<Outlet>>, reply_to: ReplyTo, answered: Answered },
    /// One for which something is to be read first.
    Reading { origin: Option<Arc<Outlet>>, reply_to: ReplyTo, what: HeldWhat },
}

impl Held {
    /// What it waits for will never be durable.
    pub(super) fn refuse(self) {
        let refused = || Answered::Refused(Refusal::Unavailable);
        match self {
            Self::Answers { to, answers } => {
                to.put(Outgoing::Answers(answers.into_iter().map(|(id, _)| (id, refused())).collect()));
            }
            Self::Answer { origin, reply_to, .. } | Self::Reading { origin, reply_to, .. } => {
                answer(origin.as_ref(), reply_to, refused());
            }
        }
    }
}

/// What is to be read for an answer.
#[derive(Debug)]
pub(super) enum HeldWhat {
    Open(Box<HeldOpen>),
    List(HeldList),
    Fate(Fate),
    Whom(HeldWhom),
}

/// An `open` that was decided.
#[derive(Debug)]
pub(super) struct HeldOpen {
    pub(super) opened: Opened,
    pub(super) now: ConversationNow,
    pub(super) service: ServiceId,
    pub(super) masking: Masking,
    pub(super) limit: usize,
    pub(super) before: Option<Offset>,
}

/// A list whose customers are to be read.
#[derive(Debug)]
pub(super) struct HeldList {
    conversations: Vec<ConversationSeen>,
    next: Option<ConversationId>,
}

/// Gives one answer where it belongs.
pub(in crate::actors) fn answer(origin: Option<&Arc<Outlet>>, reply_to: ReplyTo, answered: Answered) {
    match reply_to {
        ReplyTo::Nobody => {}
        ReplyTo::Session(id) => {
            if let Some(outlet) = origin {
                outlet.answer(id, answered);
            }
        }
        // Who does not wait any more needs no answer.
        ReplyTo::Caller(caller) => drop(caller.send(answered)),
        ReplyTo::Part(gather) => gather.part(answered),
    }
}

/// Whether it begins something: refused while the disk is full, so that what ends something has room.
fn is_new_work(ask: &Ask) -> bool {
    match ask {
        Ask::Inbound(_) => true,
        Ask::Command(command) => matches!(
            **command,
            Command::Inbound(_)
                | Command::Reply(_)
                | Command::Echo(_)
                | Command::PickUp { .. }
                | Command::Transfer { .. }
                | Command::Configure { .. }
                | Command::Notice { .. }
                | Command::Thread(ThreadCommand {
                    asked: ThreadAsked::Take { .. } | ThreadAsked::Pass { .. },
                    ..
                })
        ),
        Ask::Standing(standing) => {
            matches!(standing.change, StandingChange::Create | StandingChange::Activate)
        }
        Ask::Get | Ask::List(_) | Ask::Open { .. } | Ask::Look { .. } => false,
        Ask::ThreadOwner { .. } | Ask::Presence { .. } => false,
        Ask::Ack(_) | Ask::Outcome { .. } | Ask::Again { .. } => false,
        // Ends something.
        Ask::Withdraw { .. } | Ask::Fate { .. } | Ask::OpenNames { .. } | Ask::Whom { .. } => false,
    }
}

impl ChannelActor {
    /// Holds an answer until what it was decided on is durable.
    pub(super) fn hold(&mut self, origin: Option<&Arc<Outlet>>, reply_to: ReplyTo, answered: Answered) {
        let about = self.answers_before;
        let held = self.held();
        match (origin, reply_to) {
            (_, ReplyTo::Nobody) | (None, ReplyTo::Session(_)) => {}
            (Some(outlet), ReplyTo::Session(id)) => match held.last_mut() {
                Some(Held::Answers { to, answers }) if Arc::ptr_eq(to, outlet) => {
                    answers.push((id, answered))
                }
                _ => {
                    // Room ahead is for one connection only: where there are many, each has few.
                    let mut answers = Vec::with_capacity(if held.is_empty() { about } else { 1 });
                    answers.push((id, answered));
                    held.push(Held::Answers { to: Arc::clone(outlet), answers });
                }
            },
            (origin, reply_to) => held.push(Held::Answer { origin: origin.cloned(), reply_to, answered }),
        }
    }

    /// Holds an answer for which something is to be read once what it was decided on is durable.
    pub(super) fn hold_reading(&mut self, origin: Option<&Arc<Outlet>>, reply_to: ReplyTo, what: HeldWhat) {
        self.held().push(Held::Reading { origin: origin.cloned(), reply_to, what });
    }

    pub(super) fn ask(&mut self, origin: Option<&Arc<Outlet>>, asked: Asked, now: Timestamp) {
        if is_new_work(&asked.ask) && !self.shared.journal.has_room() {
            self.hold(origin, asked.reply_to, Answered::Refused(Refusal::Unavailable));
        } else {
            self.ask_in_turn(origin, asked, now);
        }
    }

    /// Decides what needs no look at the journal any more.
    pub(super) fn ask_now(&mut self, origin: Option<&Arc<Outlet>>, asked: Asked, now: Timestamp) {
        let Asked { ask, reply_to } = asked;
        match ask {
            Ask::Ack(offset) => {
                if let Some(outlet) = origin {
                    self.ack(outlet, offset);
                }
            }
            Ask::Inbound(_) => self.ask_in_turn(origin, Asked { ask, reply_to }, now),
            Ask::Command(command) => {
                let answered = match (self.decide(&command, now), *command) {
                    (Ok(Answer::Accepted { offset, conversation, duplicate }), Command::Reply(reply)) => {
                        Answered::Accepted { offset, conversation, reply_id: reply.reply_id, duplicate }
                    }
                    (decided, _) => self.answered(decided),
                };
                self.hold(origin, reply_to, answered);
            }
            Ask::Fate { service, reply_id, wait } => {
                self.fate(origin, (&service, &reply_id), wait, reply_to);
            }
            Ask::Withdraw { service, reply_id, why } => {
                self.withdraw(origin, (service, reply_id), why, reply_to, now);
            }
            Ask::OpenNames { service, prefix } => {
                let names = self.channel.outbox().open_names(&service, prefix);
                self.hold(origin, reply_to, Answered::Names(names));
            }
            Ask::Whom { service, conversation, reply } => {
                self.whom(origin, service, (conversation, reply), reply_to, now);
            }
            Ask::Standing(standing) => self.standing(origin, standing, reply_to, now),
            Ask::Get => {
                let answered = if self.channel.is_new() {
                    Answered::Refused(Refusal::NotFound)
                } else {
                    Answered::Channel {
                        seen: Box::new(self.channel.seen()),
                        created: None,
                        joined: None,
                        changed: Some(false),
                    }
                };
                self.hold(origin, reply_to, answered);
            }
            Ask::List(query) => self.list(origin, &query, reply_to, now),
            Ask::Open { service, conversation, agent, limit, before } => {
                let command = Command::Open { service: service.clone(), conversation, agent };
                match self.decide(&command, now) {
                    Ok(Answer::Opened(opened)) => {
                        self.hold_open(origin, reply_to, opened, service, (limit, before), now);
                    }
                    decided => {
                        let answered = self.answered(decided);
                        self.hold(origin, reply_to, answered);
                    }
                }
            }
            Ask::Look { service, conversation, limit, before } => {
                match self.channel.look(&self.portal, &service, conversation, now) {
                    Ok(opened) => self.hold_open(origin, reply_to, opened, service, (limit, before), now),
                    Err(rejection) => self.hold(origin, reply_to, Answered::Refused(rejection.into())),
                }
            }
            Ask::ThreadOwner { service, of } => {
                let seen = self.channel.thread(&service, &of, now);
                let seen = seen.map(|(conversation, thread)| Answer::Thread { conversation, thread });
                let answered = self.answered(seen);
                self.hold(origin, reply_to, answered);
            }
            Ask::Presence { service, conversation, agent, doing } => {
                let command =
                    Command::Presence { service: service.clone(), conversation, agent: agent.clone() };
                let decided = self.decide(&command, now);
                if decided.is_ok() {
                    self.renew_presence(service, conversation, agent, doing, now);
                }
                let answered = self.answered(decided);
                self.hold(origin, reply_to, answered);
            }
            Ask::Outcome { reply, outcome } => {
                let decided = self.decide(&Command::Outcome { reply, outcome: *outcome }, now);
                let answered = match decided {
                    Ok(_) => Answered::Ok,
                    Err(rejection) => Answered::Refused(rejection.into()),
                };
                self.hold(origin, reply_to, answered);
            }
            Ask::Again { reply, error, pause } => self.send_again(reply, error, pause, now),
        }
    }

    /// What the domain's answer is in the words of the port.
    pub(super) fn answered(&self, decided: Result<Answer, Rejection>) -> Answered {
        match decided {
            Ok(Answer::Standing { created, joined, changed }) => Answered::Channel {
                seen: Box::new(self.channel.seen()),
                created: Some(created),
                joined: Some(joined),
                changed: Some(changed),
            },
            Ok(Answer::Message { duplicate, .. }) => Answered::Taken { channels: 1, duplicate },
            // Replies of services are answered where they are decided; this is one that was written on the phone.
            Ok(Answer::Accepted { duplicate, .. }) => Answered::Taken { channels: 1, duplicate },
            Ok(Answer::NotTaken) => Answered::Taken { channels: 0, duplicate: false },
            Ok(Answer::PickedUp) => Answered::PickedUp,
            Ok(Answer::Warned(warned)) => Answered::Warned(warned),
            Ok(Answer::Thread { conversation, thread }) => Answered::Thread { conversation, thread },
            // `open`, replies and look-ups are answered where they are decided.
            Ok(_) => Answered::Ok,
            Err(rejection) => Answered::Refused(rejection.into()),
        }
    }

    fn standing(
        &mut self,
        origin: Option<&Arc<Outlet>>,
        standing: StandingCommand,
        reply_to: ReplyTo,
        now: Timestamp,
    ) {
        let creates = standing.change == StandingChange::Create;
        let command = Command::Standing(standing);
        let decided = self.decide(&command, now);
        if let (Err(Rejection::ChannelClosed), true, Command::Standing(standing)) =
            (&decided, creates, command)
        {
            // The number is free again: the portal makes a new channel for it, once this one's end is durable.
            let asked = Asked { ask: Ask::Standing(standing), reply_to };
            let recreate = Recreate {
                closed: self.channel.id(),
                number: self.channel.number().clone(),
                only: self.entry.only.clone(),
                origin: origin.cloned(),
                asked,
            };
            let _ = self.portal_actor.try_send(recreate);
            return;
        }
        let answered = match self.answered(decided) {
            Answered::Channel { seen, created, joined, .. } if creates => {
                Answered::Channel { seen, created, joined, changed: None }
            }
            Answered::Channel { seen, changed, .. } => {
                Answered::Channel { seen, created: None, joined: None, changed }
            }
            other => other,
        };
        self.hold(origin, reply_to, answered);
        if self.channel.has_follow_up(&self.portal) {
            self.tick(now);
        }
    }

    fn hold_open(
        &mut self,
        origin: Option<&Arc<Outlet>>,
        reply_to: ReplyTo,
        opened: Opened,
        service: ServiceId,
        (limit, before): (usize, Option<Offset>),
        now: Timestamp,
    ) {
        let Some(conversation) = self.channel.conversation(opened.conversation, now) else {
            self.hold(origin, reply_to, Answered::Refused(Refusal::NotFound));
            return;
        };
        let masking = self.portal.service(&service).map(|rules| rules.masking).unwrap_or_default();
        let open = HeldOpen { opened, now: conversation, service, masking, limit, before };
        self.hold_reading(origin, reply_to, HeldWhat::Open(Box::new(open)));
    }

    fn list(&mut self, origin: Option<&Arc<Outlet>>, query: &ListQuery, reply_to: ReplyTo, now: Timestamp) {
        let refused = if self.channel.is_new() {
            Some(Refusal::NotFound)
        } else if self.channel.state() == crate::domain::command::ChannelState::Closed {
            Some(Refusal::ChannelClosed)
        } else if !self.channel.is_subscribed(&query.service) {
            Some(Refusal::Rejected(Rejection::NotSubscribed))
        } else {
            None
        };
        if let Some(refusal) = refused {
            self.hold(origin, reply_to, Answered::Refused(refusal));
            return;
        }
        let (conversations, next) = self.channel.list_conversations(&self.portal, query, now);
        let list = HeldList { conversations, next };
        self.hold_reading(origin, reply_to, HeldWhat::List(list));
    }

    /// Reads the customers of a list, off the Arbiter, and answers.
    pub(super) fn read_customers(&mut self, origin: Option<Arc<Outlet>>, reply_to: ReplyTo, list: HeldList) {
        let stream = StreamId::from(self.channel.id());
        self.shared.readers.read(move |journal| {
            let with_customer = |seen: ConversationSeen| {
                let customer: Customer = customer_in(journal, stream, seen.customer_at);
                (seen, customer)
            };
            let conversations = list.conversations.into_iter().map(with_customer).collect();
            answer(origin.as_ref(), reply_to, Answered::Conversations { conversations, next: list.next });
        });
    }

    /// Has the conversation's actor read the timeline, and answer.
    pub(super) fn read_timeline(
        &mut self,
        origin: Option<Arc<Outlet>>,
        reply_to: ReplyTo,
        open: Box<HeldOpen>,
    ) {
        let conversation = open.now.conversation;
        let HeldOpen { opened, now, service, masking, limit, before } = *open;
        let read = ReadTimeline { opened, now, service, masking, limit, before, origin, reply_to };
        self.tell_conversation(conversation, read);
    }

    fn renew_presence(
        &mut self,
        service: ServiceId,
        conversation: ConversationId,
        agent: AgentId,
        doing: Doing,
        now: Timestamp,
    ) {
        let name = self.portal.agent(&service, &agent).map(|agent| Arc::clone(&agent.name));
        // A younger conversation's id means the older one.
        let Some(found) = self.channel.conversation(conversation, now) else { return };
        self.tell_conversation(found.conversation, Renew { service, agent, name, doing });
    }

    /// Tells the conversation's actor something; starts it where there is none.
    pub(super) fn tell_conversation<M>(&mut self, conversation: ConversationId, message: M)
    where
        M: actix::Message<Result = ()> + Send + 'static,
        ConversationActor: actix::Handler<M>,
    {
        use actix::Actor;
        let (shared, channel, me) = (&self.shared, self.channel.id(), &self.me);
        let (actor, told) = self.conversations.entry(conversation).or_insert_with(|| {
            (ConversationActor::new(Arc::clone(shared), channel, conversation, me.clone()).start(), 0)
        });
        *told += 1;
        // Its mailbox has no limit: what is told it was let in by permits, or is bounded by the outbox.
        let _ = actor.try_send(message);
    }
}
