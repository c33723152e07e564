//! One service's worker: a connection of the service like any adapter's, and what is told of each delivery.
//!
//! Takes what the broker delivers, keeps of it what is to be told (never more than the window), posts what may be posted,
//! and acknowledges what is done; what the Cloud API has no word for is done when it comes. It ends when the broker drains
//! or its service has no URL any more, and rests when the service answers 410, until a reload.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::Patience;
use super::crew::{Crew, Telling};
use super::envelope::{self, Handover};
use super::join::{Settled, join};
use super::lanes::{Attempt, Lane, Lanes, Next};
use super::post::Said;
use crate::actors::adapter::Request;
use crate::actors::batch::{BatchEntry, Slice};
use crate::actors::broker::{Connected, Session};
use crate::actors::outlet::WINDOW_MAX;
use crate::actors::port::{Answered, EndReason, Outgoing};
use crate::actors::{Ask, Caller, Deliver};
use crate::domain::event::{Customer, Receipt, Record, ThreadAction};
use crate::domain::ids::{AdapterId, ChannelId, ConversationId, Offset, Timestamp};
use crate::domain::view::{Masking, ThreadView, View, Viewer, view};
use crate::gateway::facade::auth::Who;
use crate::gateway::facade::known::FacadeNumber;
use crate::gateway::facade::media::{Shown, media_of};

/// The adapter's name. It holds what no name over the wire may hold, so that nobody replaces it.
const ADAPTER: &str = "callback/url";
/// The window, in deliveries: so many may be told behind one that is refused again and again.
const WINDOW: u32 = WINDOW_MAX;
/// How long answers to what was posted are waited for when the worker is to end.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// How long to wait before connecting again, where the broker ended the connection.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// One service's worker.
pub(super) struct Worker {
    caller: Caller,
    who: Who,
    /// What it is told is shown to it, so it may fetch the media in it.
    shown: Arc<Shown>,
    /// How it is told from now on.
    telling: Arc<Telling>,
    /// The same after a reload; without a sender the service has no URL any more.
    next_telling: watch::Receiver<Arc<Telling>>,
    settled: Settled,
    patience: Patience,
    stopped: watch::Receiver<bool>,
}

/// What is to be told of a delivery.
#[derive(Debug, Clone)]
enum What {
    /// This.
    Body(Bytes),
    /// News of a reply; who the customer is must be asked.
    Receipt(Arc<FacadeNumber>, Box<Receipt>, ConversationId),
    /// Another service's reply; likewise.
    Masked(Arc<FacadeNumber>, Offset, Timestamp, ConversationId),
    /// What became of a thread; likewise.
    Handover(Arc<FacadeNumber>, Handover, Timestamp, ConversationId),
}

/// How a delivery was dealt with.
enum Dealt {
    Said(Said),
    /// There was nothing to tell after all.
    Nothing,
    /// The broker could not say what was needed.
    NotNow,
}

/// Why a connection is over.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The broker stops, or the service has no URL any more.
    Stopped,
    /// The service answered 410.
    Gone,
    Lost,
}

type Posts = JoinSet<(Lane, What, Dealt)>;
/// Up to where each channel's deliveries are done.
type Acks = BTreeMap<ChannelId, Offset>;

impl Worker {
    pub(super) fn new(
        caller: Caller,
        who: Who,
        shown: Arc<Shown>,
        mut telling: watch::Receiver<Arc<Telling>>,
        crew: &Crew,
    ) -> Self {
        let now = Arc::clone(&telling.borrow_and_update());
        Self {
            caller,
            who,
            shown,
            telling: now,
            next_telling: telling,
            settled: Settled::default(),
            patience: crew.patience,
            stopped: crew.stopped.clone(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut joining = self.join();
        loop {
            let end = match self.caller.connect(AdapterId::trusted(ADAPTER), WINDOW, Deliver::Share) {
                Ok(connected) => self.serve(&connected, &mut joining).await,
                Err(_) => End::Lost,
            };
            let goes_on = match end {
                End::Stopped => false,
                End::Gone => {
                    tracing::warn!(service = %self.caller.service(), "answered 410: it is told nothing more until a reload");
                    self.reloaded(None, &mut joining).await
                }
                End::Lost => self.reloaded(Some(AGAIN_AFTER), &mut joining).await,
            };
            if !goes_on {
                break;
            }
        }
        joining.abort();
    }

    fn join(&self) -> JoinHandle<()> {
        tokio::spawn(join(self.caller.clone(), self.telling.numbers.clone(), self.settled.clone()))
    }

    /// Waits for a reload, for so long at most; says whether it goes on.
    async fn reloaded(&mut self, at_most: Option<Duration>, joining: &mut JoinHandle<()>) -> bool {
        let wait = async {
            match at_most {
                Some(at_most) => tokio::time::sleep(at_most).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => true,
            changed = self.next_telling.changed() => {
                if changed.is_ok() {
                    self.follow(joining);
                }
                changed.is_ok()
            }
            () = stopped(&mut self.stopped) => false,
        }
    }

    async fn serve(&mut self, connected: &Connected, joining: &mut JoinHandle<()>) -> End {
        let session = &connected.session;
        let mut lanes: Lanes<What> = Lanes::new(self.patience);
        let mut posts: Posts = JoinSet::new();
        let mut out = Vec::new();
        let mut acks = Acks::new();
        let end = loop {
            let end = self.take(session, &mut out, &mut lanes, &mut acks);
            while let Some((channel, offset)) = acks.pop_first() {
                acknowledge(session, channel, offset).await;
            }
            if let Some(end) = end {
                break end;
            }
            while let Some((lane, what)) = lanes.next(Instant::now()) {
                self.start(&mut posts, lane, what);
            }
            let due = lanes.next_due().unwrap_or_else(|| Instant::now() + self.patience.retry_longest);
            tokio::select! {
                () = session.outlet().ready() => {}
                Some(dealt) = posts.join_next() => {
                    let Ok(dealt) = dealt else { break End::Lost };
                    if self.finish(session, &mut lanes, dealt).await {
                        break End::Gone;
                    }
                }
                () = tokio::time::sleep_until(due.into()) => {}
                changed = self.next_telling.changed() => match changed {
                    Ok(()) => self.take_over(&mut lanes, joining),
                    Err(_) => break End::Stopped,
                },
                () = session.draining() => break End::Stopped,
                () = stopped(&mut self.stopped) => break End::Stopped,
            }
        };
        if end == End::Stopped {
            // What was posted is acknowledged where its answer still comes; the rest comes again after the next start.
            let rest = async {
                while let Some(Ok(dealt)) = posts.join_next().await {
                    self.finish(session, &mut lanes, dealt).await;
                }
            };
            let _ = tokio::time::timeout(ANSWERED_WITHIN, rest).await;
        }
        end
    }

    /// Goes on as the configuration says now, with what is not told yet.
    fn take_over(&mut self, lanes: &mut Lanes<What>, joining: &mut JoinHandle<()>) {
        let before = self.follow(joining);
        if !self.telling.endpoint.is(&before.endpoint) {
            lanes.begin_anew(Instant::now());
        }
    }

    /// Holds to what the configuration says now, numbers to join among it; gives what held before.
    fn follow(&mut self, joining: &mut JoinHandle<()>) -> Arc<Telling> {
        let now = Arc::clone(&self.next_telling.borrow_and_update());
        let before = std::mem::replace(&mut self.telling, now);
        joining.abort();
        *joining = self.join();
        before
    }

    /// Takes what the broker delivers, and says what of it is done with that.
    fn take(
        &self,
        session: &Session,
        out: &mut Vec<Outgoing>,
        lanes: &mut Lanes<What>,
        acks: &mut Acks,
    ) -> Option<End> {
        session.outlet().take(out);
        for outgoing in out.drain(..) {
            match outgoing {
                Outgoing::Deliveries(slice) => self.take_slice(&slice, session, lanes, acks),
                Outgoing::End(EndReason::Shutdown) => return Some(End::Stopped),
                Outgoing::End(_) | Outgoing::Fail(_) => return Some(End::Lost),
                Outgoing::Answers(_)
                | Outgoing::Presence(_)
                | Outgoing::Send(_)
                | Outgoing::Goaway { .. } => {}
            }
        }
        session.outlet().is_ended().then_some(End::Lost)
    }

    fn take_slice(&self, slice: &Slice, session: &Session, lanes: &mut Lanes<What>, acks: &mut Acks) {
        let channel = slice.batch.channel();
        let number = self.number_of(channel);
        let now = Instant::now();
        for entry in slice.entries() {
            let what = match (entry, &number) {
                (BatchEntry::Record(record), Some(number)) => {
                    self.what(number, record, session.outlet().masking())
                }
                (BatchEntry::Gap { from, to, reason, .. }, _) => {
                    let (service, reason) = (self.caller.service(), reason.as_str());
                    tracing::warn!(%service, %channel, %from, %to, reason, "a service has lost what was not told yet");
                    None
                }
                (BatchEntry::Record(_), None) => None,
            };
            match what {
                Some(what) => lanes.push((channel, entry.conversation()), entry.offset(), what, now),
                None => {
                    if let Next::Ack(channel, offset) = lanes.pass(channel, entry.offset()) {
                        acks.insert(channel, offset);
                    }
                }
            }
        }
    }

    fn number_of(&self, channel: ChannelId) -> Option<Arc<FacadeNumber>> {
        let number = self.caller.number_of(channel)?;
        self.telling.numbers.iter().find(|known| known.number == number).cloned()
    }

    /// What is to be told of a record, if anything: what the service's view of it says.
    fn what(&self, number: &Arc<FacadeNumber>, record: &Record, masking: Masking) -> Option<What> {
        let viewer = Viewer { service: self.caller.service(), masking };
        let (_, seen) = view(record, &viewer)?;
        media_of(&seen).iter().for_each(|id| self.shown.show(&self.who, &number.number, id));
        let body = match (seen, record.conversation) {
            (View::Message { message, content, redacted }, _) => {
                envelope::message(number, message, &content, redacted)
            }
            (View::Notice(notice), _) => envelope::notice(number, notice, notice.content.expose()),
            // Its own: only one that was written on the phone is news to it.
            (View::Reply(reply), _) => envelope::phone_echo(number, reply, record.at),
            (View::MaskedReply { .. }, Some(conversation)) if self.telling.told.has_echoes() => {
                return Some(What::Masked(Arc::clone(number), record.offset, record.at, conversation));
            }
            (View::Receipt(receipt), Some(conversation)) if receipt.message_id.is_some() => {
                return Some(What::Receipt(Arc::clone(number), Box::new(receipt.clone()), conversation));
            }
            (View::Thread(thread), Some(conversation)) if self.telling.told.has_handovers() => {
                let handover = handover_of(&thread)?;
                return Some(What::Handover(Arc::clone(number), handover, record.at, conversation));
            }
            // What the Cloud API has no word for.
            (
                View::MaskedReply { .. }
                | View::Receipt(_)
                | View::Claim { .. }
                | View::Thread(_)
                | View::Merged { .. }
                | View::Membership(_),
                _,
            ) => None,
        };
        body.map(What::Body)
    }

    fn start(&self, posts: &mut Posts, lane: Lane, what: What) {
        let (caller, telling) = (self.caller.clone(), Arc::clone(&self.telling));
        posts.spawn(async move {
            match body_of(&caller, &telling, lane.0, &what).await {
                Ok(Some(body)) => {
                    let said = telling.endpoint.post(body.clone()).await;
                    // From now on it is these bytes, whatever becomes known of the customer.
                    (lane, What::Body(body), Dealt::Said(said))
                }
                Ok(None) => (lane, what, Dealt::Nothing),
                Err(NotNow) => (lane, what, Dealt::NotNow),
            }
        });
    }

    /// Notes how it went, and acknowledges; says whether the service wants nothing more.
    async fn finish(
        &self,
        session: &Session,
        lanes: &mut Lanes<What>,
        (lane, what, dealt): (Lane, What, Dealt),
    ) -> bool {
        let now = Instant::now();
        let next = match dealt {
            Dealt::Said(Said::Gone) => return true,
            Dealt::Said(Said::Taken) => lanes.back(lane, what, Attempt::Done, now, 0),
            Dealt::Nothing => lanes.skip(lane, now),
            Dealt::Said(Said::Refused) if lanes.is_over(lane, now) => {
                let service = self.caller.service();
                tracing::error!(%service, channel = %lane.0, "a delivery was refused for too long and is given up");
                lanes.skip(lane, now)
            }
            Dealt::Said(Said::Refused) | Dealt::NotNow => {
                lanes.back(lane, what, Attempt::Refused, now, chance())
            }
        };
        if let Next::Ack(channel, offset) = next {
            acknowledge(session, channel, offset).await;
        }
        false
    }
}

/// All of the channel up to here is done. A broker that is gone delivers it again to the next one.
async fn acknowledge(session: &Session, channel: ChannelId, offset: Offset) {
    let _ = session.ask(vec![(0, Request::Of(channel, Ask::Ack(offset)))], 1).await;
}

/// What is news of a thread to a service: what others did to it. As Meta has it, a release is none.
fn handover_of(thread: &ThreadView<'_>) -> Option<Handover> {
    match thread.action {
        ThreadAction::Passed if thread.own => {
            Some(Handover::Passed { was_own: thread.was_own, metadata: thread.metadata.cloned() })
        }
        ThreadAction::Taken | ThreadAction::Passed if thread.was_own && !thread.by_own => {
            Some(Handover::Taken)
        }
        ThreadAction::Taken | ThreadAction::Passed | ThreadAction::Released => None,
    }
}

/// The broker could not say what was needed.
struct NotNow;

/// What is posted, if anything is.
async fn body_of(
    caller: &Caller,
    telling: &Telling,
    channel: ChannelId,
    what: &What,
) -> Result<Option<Bytes>, NotNow> {
    match what {
        What::Body(body) => Ok(Some(body.clone())),
        What::Receipt(number, receipt, conversation) => {
            let (customer, data) = whom(caller, channel, *conversation, Some(receipt.reply)).await?;
            Ok(envelope::status(number, receipt, &customer, data.as_deref()))
        }
        What::Masked(number, offset, at, conversation) => {
            let (customer, _) = whom(caller, channel, *conversation, None).await?;
            Ok(telling.told.masked_reply(number, (channel, *offset, *at), &customer))
        }
        What::Handover(number, handover, at, conversation) => {
            let (customer, _) = whom(caller, channel, *conversation, None).await?;
            Ok(telling.told.handover(number, *at, handover, &customer))
        }
    }
}

async fn whom(
    caller: &Caller,
    channel: ChannelId,
    conversation: ConversationId,
    reply: Option<Offset>,
) -> Result<(Customer, Option<Bytes>), NotNow> {
    let service = caller.service().clone();
    match caller.ask(channel, Ask::Whom { service, conversation, reply }, 1).await {
        Answered::Whom(whom) => Ok((whom.customer, whom.callback_data)),
        _ => Err(NotNow),
    }
}

/// By which attempts are spread.
fn chance() -> u8 {
    let mut raw = [128];
    // Without randomness they are not spread, and come all the same.
    let _ = getrandom::fill(&mut raw);
    raw[0]
}

/// Resolves when the workers are told to stop.
pub(super) async fn stopped(stopped: &mut watch::Receiver<bool>) {
    // An error means that whoever could stop them is gone, which stops them too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
