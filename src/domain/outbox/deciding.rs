//! What the outbox decides: each puts drafts into the channel's decision and changes nothing.

use std::sync::Arc;

use super::{CHANNEL_CLOSED, EXPIRED, Facts, OUTCOME_MS, Outbox, WITHDRAWN};
use crate::domain::channel::Draft;
use crate::domain::command::{Answer, SendOutcome, StatusCommand, StatusOf};
use crate::domain::content::Carried;
use crate::domain::event::{Event, Handed, Receipt, Status, StatusError, StatusParked};
use crate::domain::ids::{ConversationId, MessageId, Offset, ReplyId, ServiceId, Timestamp};

/// What a receipt says.
struct News {
    message_id: Option<MessageId>,
    status: Status,
    error: Option<StatusError>,
    status_at: Timestamp,
    carried: Option<Carried>,
}

impl News {
    /// By the broker's clock, without a message's id.
    fn own(status: Status, code: Option<&str>, now: Timestamp) -> Self {
        let error = code.map(|code| StatusError { code: Arc::from(code), title: None, details: None });
        Self { message_id: None, status, error, status_at: now, carried: None }
    }
}

impl Outbox {
    /// A reply is about to leave: what is to be recorded, and synced, before it does. None where it may not leave:
    /// it has an outcome, has waited too long, is handed, or another one of its conversation goes first.
    #[must_use]
    pub fn hand(&self, reply: Offset, now: Timestamp) -> Option<Draft> {
        let open = self.open.get(&reply)?;
        let conversation = open.facts.conversation;
        if !self.queue.is_sendable(conversation, reply) || self.is_expired(reply, now) {
            return None;
        }
        let handed = Handed { reply, attempt: open.attempts.saturating_add(1) };
        Some(Draft::new(Some(conversation), Event::Handed(handed)))
    }

    /// A gateway tells what became of a reply; or it fails before it was handed (withdrawn, no gateway).
    ///
    /// A reply that was never handed can only fail: nobody can have sent it; and one whose attempt was refused and that
    /// waits again does not become `unknown`. `Again` closes the attempt and not the reply. `Sent` takes up the statuses that came
    /// before the message was known, and counts after `unknown`. A message's id that comes later than the status is
    /// recorded with the status that holds.
    pub fn outcome(
        &self,
        reply: Offset,
        outcome: &SendOutcome,
        now: Timestamp,
        out: &mut Vec<Draft>,
    ) -> Answer {
        let Some((facts, current, named)) = self.current(reply) else { return Answer::Ignored };
        let news = match outcome {
            SendOutcome::Failed(error) => {
                News { error: Some(error.clone()), ..News::own(Status::Failed, None, now) }
            }
            SendOutcome::Again(error) => {
                News { error: Some(error.clone()), ..News::own(Status::Accepted, None, now) }
            }
            SendOutcome::Unknown => News::own(Status::Unknown, None, now),
            SendOutcome::Sent(id) => {
                News { message_id: Some(id.clone()), ..News::own(Status::Sent, None, now) }
            }
        };
        let possible = match outcome {
            SendOutcome::Failed(_) => true,
            SendOutcome::Sent(_) => current != Status::Accepted || self.was_handed(reply),
            SendOutcome::Unknown | SendOutcome::Again(_) => self.queue.is_handed(facts.conversation, reply),
        };
        if !possible {
            return Answer::Ignored;
        }
        if matches!(outcome, SendOutcome::Again(_)) || current.may_become(news.status) {
            let message_id = news.message_id.clone();
            let status = news.status;
            self.receipt(&facts, reply, news, out);
            if let Some(id) = message_id {
                self.take_up(&facts, reply, status, &id, now, out);
            }
            return Answer::Done;
        }
        match outcome {
            SendOutcome::Sent(id) if !named && current != Status::Failed => {
                self.receipt(&facts, reply, News { status: current, ..news }, out);
                self.take_up(&facts, reply, current, id, now, out);
                Answer::Done
            }
            _ => Answer::Ignored,
        }
    }

    /// Who sent a reply waits no longer: one that is not handed fails for good, so that it is never sent after all; one
    /// that is handed may have left, and is `unknown`. Says nothing where the name is not in use.
    pub fn withdraw(
        &self,
        service: &ServiceId,
        reply_id: &ReplyId,
        why: &Arc<str>,
        now: Timestamp,
        out: &mut Vec<Draft>,
    ) -> Option<Answer> {
        let fate = self.fate(service, reply_id)?;
        let Some(open) = self.open.get(&fate.offset) else { return Some(Answer::Ignored) };
        let news = if self.queue.is_handed(open.facts.conversation, fate.offset) {
            News::own(Status::Unknown, None, now)
        } else {
            let title = Some(Arc::clone(why));
            let error = StatusError { code: Arc::from(WITHDRAWN), title, details: None };
            News { error: Some(error), ..News::own(Status::Failed, None, now) }
        };
        self.receipt(&open.facts, fate.offset, news, out);
        Some(Answer::Done)
    }

    /// A gateway or a webhook tells how far a message has come. One of a message that is not known is parked, if it
    /// says more than what is parked of it already.
    pub fn status(&self, command: &StatusCommand, now: Timestamp, out: &mut Vec<Draft>) -> Answer {
        if command.status <= Status::Unknown {
            return Answer::Ignored;
        }
        let (reply, message_id) = match &command.of {
            StatusOf::Reply(reply) => (*reply, None),
            StatusOf::Message(id) => match self.reply_of(id) {
                Some(reply) => (reply, Some(id.clone())),
                None => return self.park(id, command, now, out),
            },
        };
        let Some((facts, current, _)) = self.current(reply) else { return Answer::Ignored };
        let was_handed = current != Status::Accepted || self.was_handed(reply);
        if !was_handed || !current.may_become(command.status) {
            return Answer::Ignored;
        }
        let error = if command.status == Status::Failed { command.error.clone() } else { None };
        let (status, status_at, carried) = (command.status, command.status_at, command.carried.clone());
        let news = News { message_id, status, error, status_at, carried };
        self.receipt(&facts, reply, news, out);
        Answer::Done
    }

    /// The statuses that came before a reply written on the phone was known (B17): its receipts, to be recorded
    /// behind the reply, which will stand at `reply`.
    pub fn take_up_echo(
        &self,
        reply: Offset,
        service: &ServiceId,
        reply_id: &ReplyId,
        conversation: ConversationId,
        message_id: &MessageId,
        now: Timestamp,
        out: &mut Vec<Draft>,
    ) {
        self.for_early(Status::Sent, message_id, now, |news| {
            out.push(receipt(reply, service, reply_id, self.resolve(conversation), news));
        });
    }

    /// When something is due next: a handed reply's outcome, a waiting one's end, a parked status's.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let handed = self.queue.handed().next().map(|(at, _)| at.plus_ms(OUTCOME_MS));
        let waiting = self.queue.waiting().next().map(|(at, _)| at.plus_ms(self.send_ttl_ms));
        [handed, waiting, self.parked.next_lapse(), self.queue.next_wake()].into_iter().flatten().min()
    }

    /// What is due, for `max` replies at most: `unknown` for what was handed 60 s ago, `expired` for what has waited
    /// for `send_ttl`. Parked statuses lapse by [`Outbox::forget`], which whoever asks this calls too.
    pub fn due(&self, now: Timestamp, max: usize, out: &mut Vec<Draft>) {
        let late = self.queue.handed().take_while(|(at, _)| now >= at.plus_ms(OUTCOME_MS));
        let late = late.map(|(_, reply)| (reply, Status::Unknown, None));
        let old = self.queue.waiting().take_while(|(at, _)| now >= at.plus_ms(self.send_ttl_ms));
        let old = old.map(|(_, reply)| (reply, Status::Failed, Some(EXPIRED)));
        for (reply, status, code) in late.chain(old).take(max) {
            self.end(reply, News::own(status, code, now), out);
        }
    }

    /// The channel is closed: what was not handed fails, `max` replies at a time, until
    /// [`Outbox::waiting_len`] is 0.
    pub fn fail_unsent(&self, max: usize, now: Timestamp, out: &mut Vec<Draft>) {
        for (_, reply) in self.queue.waiting().take(max) {
            self.end(reply, News::own(Status::Failed, Some(CHANNEL_CLOSED), now), out);
        }
    }

    /// What was handed before this process began, or over a connection that is lost, is `unknown`: `max` at a time,
    /// until [`Outbox::handed_len`] is 0. For one gateway's alone: [`Outbox::outcome`] with `Unknown` for each.
    pub fn lose_handed(&self, max: usize, now: Timestamp, out: &mut Vec<Draft>) {
        for reply in self.unresolved_handed().take(max) {
            self.end(reply, News::own(Status::Unknown, None, now), out);
        }
    }

    fn end(&self, reply: Offset, news: News, out: &mut Vec<Draft>) {
        if let Some(open) = self.open.get(&reply) {
            self.receipt(&open.facts, reply, news, out);
        }
    }

    /// What is known of a reply: its facts, how far it has come, whether its message's id is known.
    fn current(&self, reply: Offset) -> Option<(Facts, Status, bool)> {
        if let Some(open) = self.open.get(&reply) {
            return Some((open.facts.clone(), Status::Accepted, false));
        }
        self.done.get(reply).map(|done| (done.facts(), done.status, done.named))
    }

    fn was_handed(&self, reply: Offset) -> bool {
        self.open.get(&reply).is_some_and(|open| open.attempts > 0)
    }

    fn is_expired(&self, reply: Offset, now: Timestamp) -> bool {
        let Some(open) = self.open.get(&reply) else { return false };
        let accepted_at = self.queue.accepted_at(open.facts.conversation, reply);
        accepted_at.is_some_and(|at| now >= at.plus_ms(self.send_ttl_ms))
    }

    fn park(&self, id: &MessageId, command: &StatusCommand, now: Timestamp, out: &mut Vec<Draft>) -> Answer {
        if !self.parked.is_news(&self.fingerprints.message_id(id), id, command.status, now) {
            return Answer::Ignored;
        }
        let parked = StatusParked {
            message_id: id.clone(),
            status: command.status,
            error: command.error.clone(),
            status_at: command.status_at,
            carried: command.carried.clone(),
        };
        out.push(Draft::new(None, Event::from(parked)));
        Answer::Parked
    }

    /// The statuses that waited for a message, as far as they go on from where its reply is.
    fn take_up(
        &self,
        facts: &Facts,
        reply: Offset,
        come_to: Status,
        id: &MessageId,
        now: Timestamp,
        out: &mut Vec<Draft>,
    ) {
        self.for_early(come_to, id, now, |news| self.receipt(facts, reply, news, out));
    }

    fn for_early(&self, come_to: Status, id: &MessageId, now: Timestamp, mut tell: impl FnMut(News)) {
        let mut come_to = come_to;
        for early in self.parked.fresh(&self.fingerprints.message_id(id), id, now) {
            if come_to.may_become(early.status) {
                come_to = early.status;
                tell(News {
                    message_id: Some(id.clone()),
                    status: early.status,
                    error: early.error.clone(),
                    status_at: early.status_at,
                    carried: early.carried.clone(),
                });
            }
        }
    }

    fn receipt(&self, facts: &Facts, reply: Offset, news: News, out: &mut Vec<Draft>) {
        if let Some(service) = self.services.get(facts.service) {
            out.push(receipt(reply, service, &facts.reply_id, self.resolve(facts.conversation), news));
        }
    }
}

fn receipt(
    reply: Offset,
    service: &ServiceId,
    reply_id: &ReplyId,
    conversation: ConversationId,
    news: News,
) -> Draft {
    let receipt = Receipt {
        reply,
        service: service.clone(),
        reply_id: reply_id.clone(),
        message_id: news.message_id,
        status: news.status,
        error: news.error,
        status_at: news.status_at,
        carried: news.carried,
    };
    Draft::new(Some(conversation), Event::from(receipt))
}
