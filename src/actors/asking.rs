//! What is asked of a channel's actor, and where the answer goes.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::outlet::Outlet;
use super::port::{Answered, Refusal};
use super::sender::Pause;
use crate::domain::channel::ListQuery;
use crate::domain::command::{Addressee, Command, Inbound, SendOutcome, StandingCommand};
use crate::domain::event::StatusError;
use crate::domain::ids::{AgentId, ConversationId, Offset, ReplyId, ServiceId};
use crate::domain::presence::Doing;

/// Something asked of a channel. What is large is boxed: batches of these are moved from one mailbox to the next.
#[derive(Debug)]
pub enum Ask {
    /// A customer's message.
    Inbound(Inbound),
    /// What else the domain decides as it is.
    Command(Box<Command>),
    /// A change of standing; a create may come back to the portal, which then makes a new channel.
    Standing(StandingCommand),
    /// What the channel is.
    Get,
    /// Conversations.
    List(ListQuery),
    /// Open a conversation and read its timeline.
    Open {
        /// The service within which the agent works.
        service: ServiceId,
        /// Which conversation.
        conversation: ConversationId,
        /// Who opens.
        agent: AgentId,
        /// At most so many entries.
        limit: usize,
        /// Only what lies before this offset.
        before: Option<Offset>,
    },
    /// Read a conversation's timeline as a service would see it, though none of its agents opens it.
    Look {
        /// The service.
        service: ServiceId,
        /// Which conversation.
        conversation: ConversationId,
        /// At most so many entries.
        limit: usize,
        /// Only what lies before this offset.
        before: Option<Offset>,
    },
    /// Whose a conversation's thread is.
    ThreadOwner {
        /// The service that asks.
        service: ServiceId,
        /// Which conversation.
        of: Addressee,
    },
    /// Say what an agent does.
    Presence {
        /// The service within which the agent works.
        service: ServiceId,
        /// Which conversation.
        conversation: ConversationId,
        /// Who.
        agent: AgentId,
        /// What he does.
        doing: Doing,
    },
    /// What has become of a reply. For callers in this process.
    Fate {
        /// The service that sent it.
        service: ServiceId,
        /// The name that it gave the reply.
        reply_id: ReplyId,
        /// Whether the answer waits until there is an outcome.
        wait: bool,
    },
    /// Who sent a reply waits no longer; answered with what has become of it. For callers in this process.
    Withdraw {
        /// The service that sent it.
        service: ServiceId,
        /// The name that it gave the reply.
        reply_id: ReplyId,
        /// Why it was not handed in time.
        why: Arc<str>,
    },
    /// The names of a service's replies without outcome that begin so. For callers in this process.
    OpenNames {
        /// The service that sent them.
        service: ServiceId,
        /// How they begin.
        prefix: &'static str,
    },
    /// Who the customer of a conversation is, and what the service wrote for itself into a reply of its own. For callers
    /// in this process.
    Whom {
        /// The service that asks.
        service: ServiceId,
        /// The conversation.
        conversation: ConversationId,
        /// A reply in it.
        reply: Option<Offset>,
    },
    /// A connection acknowledges.
    Ack(Offset),
    /// A gateway tells what became of a reply.
    Outcome {
        /// The reply.
        reply: Offset,
        /// What became of it.
        outcome: Box<SendOutcome>,
    },
    /// The built-in gateway was refused for now: the reply waits again.
    Again {
        /// The reply.
        reply: Offset,
        /// What WhatsApp said, or why it could not be asked.
        error: StatusError,
        /// What waits with it.
        pause: Pause,
    },
}

impl From<Command> for Ask {
    fn from(command: Command) -> Self {
        match command {
            Command::Inbound(inbound) => Self::Inbound(inbound),
            other => Self::Command(Box::new(other)),
        }
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub(super) enum ReplyTo {
    /// Nowhere.
    Nobody,
    /// To the session that asked, under its request's id.
    Session(u64),
    /// To whoever waits for it.
    Caller(oneshot::Sender<Answered>),
    /// Into an answer that several channels give together.
    Part(Arc<Gather>),
}

/// One request.
#[derive(Debug)]
pub(super) struct Asked {
    /// What is asked.
    pub ask: Ask,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
}

/// Room that a batch of requests takes up until it is durable.
#[derive(Debug)]
pub(super) struct Permits {
    /// In the whole process.
    pub(super) _process: OwnedSemaphorePermit,
    /// In the session.
    pub(super) _session: OwnedSemaphorePermit,
}

/// What one session, or one caller, asks of one channel, in order.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct Work {
    pub(super) origin: Option<Arc<Outlet>>,
    pub(super) asked: Vec<Asked>,
    pub(super) permits: Option<Arc<Permits>>,
}

/// Where a gathered answer goes.
#[derive(Debug)]
enum Whole {
    Session { outlet: Arc<Outlet>, id: u64 },
    Caller(oneshot::Sender<Answered>),
    Nobody,
}

/// One answer that several channels give together: a customer's message on plan `isolated`, a status, a roster.
#[derive(Debug)]
pub(super) struct Gather {
    left: AtomicUsize,
    channels: AtomicU32,
    /// A channel has taken it for the first time.
    fresh: AtomicBool,
    /// What is answered if nobody takes and nobody refuses.
    messages: bool,
    refused: Mutex<Option<Refusal>>,
    whole: Mutex<Whole>,
}

impl Gather {
    fn new(parts: usize, messages: bool, whole: Whole) -> Arc<Self> {
        let gather = Arc::new(Self {
            left: AtomicUsize::new(parts.max(1)),
            channels: AtomicU32::new(0),
            fresh: AtomicBool::new(false),
            messages,
            refused: Mutex::new(None),
            whole: Mutex::new(whole),
        });
        if parts == 0 {
            gather.part(Answered::Ok);
        }
        gather
    }

    /// For a session. `messages`: the parts are [`Answered::Taken`], and so is the whole; else it is `Ok`.
    #[must_use]
    pub(super) fn for_session(parts: usize, messages: bool, outlet: Arc<Outlet>, id: u64) -> Arc<Self> {
        Self::new(parts, messages, Whole::Session { outlet, id })
    }

    /// For a caller.
    #[must_use]
    pub(super) fn for_caller(parts: usize, messages: bool, caller: oneshot::Sender<Answered>) -> Arc<Self> {
        Self::new(parts, messages, Whole::Caller(caller))
    }

    /// Takes one channel's answer; the last one completes the whole.
    pub(super) fn part(&self, answered: Answered) {
        match answered {
            Answered::Taken { channels, duplicate } => {
                self.channels.fetch_add(channels, Ordering::AcqRel);
                if channels > 0 && !duplicate {
                    self.fresh.store(true, Ordering::Release);
                }
            }
            Answered::Refused(refusal) => {
                self.refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refusal);
            }
            _ => {}
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        let channels = self.channels.load(Ordering::Acquire);
        let answered = match refused {
            Some(refusal) => Answered::Refused(refusal),
            None if self.messages => {
                let duplicate = channels > 0 && !self.fresh.load(Ordering::Acquire);
                Answered::Taken { channels, duplicate }
            }
            None => Answered::Ok,
        };
        let whole =
            std::mem::replace(&mut *self.whole.lock().unwrap_or_else(PoisonError::into_inner), Whole::Nobody);
        match whole {
            Whole::Session { outlet, id } => outlet.answer(id, answered),
            Whole::Caller(caller) => drop(caller.send(answered)),
            Whole::Nobody => {}
        }
    }
}
