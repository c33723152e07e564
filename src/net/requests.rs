//! What a peer asks, in the actors' words. Content is checked here, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::actors::Ask;
use crate::actors::Deliver;
use crate::actors::adapter::{CHANNELS_MAX, CONVERSATIONS_MAX, Peer, Request as Asking, list_limit};
use crate::actors::broker;
use crate::actors::outlet::WINDOW_MAX;
use crate::actors::port::{Answered, Refusal};
use crate::domain::channel::ListQuery;
use crate::domain::command::{
    self, ClaimCommand, Command, Inbound, ReplyCommand, SendOutcome, StandingChange, StatusCommand,
    ThreadAsked, ThreadCommand,
};
use crate::domain::event::{Actor, ClearTo, Message, RosterChange, Status};
use crate::domain::ids::{ECHO_PREFIX, ServiceId};
use crate::wire::content::{ContentError, check_details, check_inbound, check_reply};
use crate::wire::message::requests::Hello;
use crate::wire::message::{
    self, Addressee, DeliverMode, Private, Request, SentOutcome, StatusOf, ThreadVerb, Who,
};

/// Most entries of one `open` (contract: 200).
pub(super) const OPEN_LIMIT_MAX: usize = crate::actors::operator::TIMELINE_MAX;

/// Who is at the other end, for translating what it asks.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// The service; none for a gateway.
    pub(super) viewer: Option<ServiceId>,
    /// Whether it watches: then what is written needs no acknowledgement.
    pub(super) is_watch: bool,
}

impl Identity {
    pub(super) fn of(hello: &Hello) -> Self {
        let viewer = match &hello.who {
            Who::Service(service) => Some(service.clone()),
            Who::Gateway(_) => None,
        };
        Self { viewer, is_watch: hello.deliver == DeliverMode::Watch }
    }
}

/// What becomes of a request.
pub(super) enum Translated {
    /// It is asked of the actors.
    Ask(Asking),
    /// The session answers it itself.
    Answer(Answered),
}

/// The greeting, in the broker's words.
pub(super) fn hello(hello: &Hello) -> broker::Hello {
    let deliver = match hello.deliver {
        DeliverMode::Share => Deliver::Share,
        DeliverMode::None => Deliver::None,
        DeliverMode::Watch => Deliver::Watch(hello.from.0.iter().copied().collect::<BTreeMap<_, _>>()),
    };
    broker::Hello {
        portal: hello.portal.clone(),
        peer: match &hello.who {
            Who::Service(service) => Peer::Service(service.clone()),
            Who::Gateway(gateway) => Peer::Gateway(gateway.clone()),
        },
        token: hello.token.expose().to_owned(),
        adapter: hello.adapter.clone(),
        window: hello.window.clamp(1, WINDOW_MAX),
        deliver,
    }
}

/// A request of a greeted peer.
pub(super) fn translate(identity: &Identity, request: Request) -> Translated {
    match request {
        Request::Ping(_) => Translated::Answer(Answered::Pong),
        Request::Hello(_) => bad("hello comes once, first"),
        Request::Inbound(inbound) => translate_inbound(identity, inbound),
        Request::Status(status) => from_gateway(identity, || gateway_status(status)),
        Request::Sent(sent) => from_gateway(identity, || gateway_sent(sent)),
        request => match &identity.viewer {
            Some(service) => of_service(service, request).unwrap_or_else(refuse),
            None => refuse(Refusal::Forbidden),
        },
    }
}

/// The same for a customer's message, which is large: it is taken to pieces where it lies.
pub(super) fn translate_inbound(identity: &Identity, inbound: message::requests::Inbound) -> Translated {
    from_gateway(identity, || gateway_inbound(inbound))
}

fn bad(text: &str) -> Translated {
    refuse(Refusal::BadMessage(Arc::from(text)))
}

fn refuse(refusal: Refusal) -> Translated {
    Translated::Answer(Answered::Refused(refusal))
}

fn content_refusal(error: &ContentError) -> Refusal {
    let text = Arc::from(error.to_string());
    if error.is_too_large() { Refusal::TooLarge(text) } else { Refusal::BadMessage(text) }
}

fn from_gateway(identity: &Identity, request: impl FnOnce() -> Result<Asking, Refusal>) -> Translated {
    if identity.viewer.is_some() {
        return refuse(Refusal::Forbidden);
    }
    request().map_or_else(refuse, Translated::Ask)
}

fn gateway_inbound(inbound: message::requests::Inbound) -> Result<Asking, Refusal> {
    let checked = check_inbound(&inbound.content.0).map_err(|error| content_refusal(&error))?;
    Ok(Asking::Inbound {
        number: inbound.number,
        inbound: Inbound::from(Message {
            message_id: inbound.message_id,
            customer: inbound.customer,
            formerly: Vec::new(),
            sent_at: inbound.at,
            content: checked.content,
            refers_to: inbound.refers_to.or(checked.refers_to),
            clear_to: ClearTo::Everyone,
            contact: None,
        }),
    })
}

fn gateway_status(status: message::requests::Status) -> Result<Asking, Refusal> {
    if status.status <= Status::Unknown {
        return Err(Refusal::BadMessage(Arc::from("status is sent, delivered, read, played or failed")));
    }
    let (channel, of) = match status.of {
        StatusOf::Reply { channel, offset } => (Some(channel), command::StatusOf::Reply(offset)),
        StatusOf::Message(message_id) => (None, command::StatusOf::Message(message_id)),
    };
    let details = status.details.as_ref();
    let carried = details.map_or(Ok(None), |details| check_details(&details.0));
    let carried = carried.map_err(|error| content_refusal(&error))?;
    let number = status.number;
    let status =
        StatusCommand { of, status: status.status, error: status.error, status_at: status.at, carried };
    Ok(Asking::Status { number, channel, status: Box::new(status) })
}

fn gateway_sent(sent: message::requests::Sent) -> Result<Asking, Refusal> {
    let outcome = match sent.outcome {
        SentOutcome::Sent(message_id) => SendOutcome::Sent(message_id),
        SentOutcome::Error { error, definite: true } => SendOutcome::Failed(error),
        SentOutcome::Error { definite: false, .. } => SendOutcome::Unknown,
    };
    Ok(Asking::Of(sent.channel, Ask::Outcome { reply: sent.offset, outcome: Box::new(outcome) }))
}

fn of_service(service: &ServiceId, request: Request) -> Result<Translated, Refusal> {
    let asking = match request {
        Request::Roster(roster) => Asking::Roster(RosterChange {
            service: service.clone(),
            agents: roster.agents,
            replace: roster.replace,
            remove: roster.remove,
        }),
        Request::CreateChannel(create) => Asking::Create { number: create.number, backfill: create.backfill },
        Request::ActivateChannel(activate) => Asking::Standing {
            channel: activate.channel,
            change: StandingChange::Activate,
            backfill: activate.backfill,
        },
        Request::DeactivateChannel(deactivate) => Asking::Standing {
            channel: deactivate.channel,
            change: StandingChange::Deactivate,
            backfill: false,
        },
        Request::DeleteChannel(delete) => {
            Asking::Standing { channel: delete.channel, change: StandingChange::Delete, backfill: false }
        }
        Request::GetChannel(get) => Asking::Of(get.channel, Ask::Get),
        Request::ListChannels(list) => Asking::ListChannels {
            after: list.after,
            limit: list_limit(list.limit.map(u64::from), CHANNELS_MAX),
        },
        Request::ListConversations(list) => {
            let limit = list_limit(list.limit.map(u64::from), CONVERSATIONS_MAX);
            let query = ListQuery {
                service: service.clone(),
                after: list.after,
                limit,
                claimed: list.claimed,
                unanswered: list.unanswered,
            };
            Asking::Of(list.channel, Ask::List(query))
        }
        Request::ConfigureChannel(configure) => {
            let command = Command::Configure { service: service.clone(), settings: configure.settings };
            Asking::Of(configure.channel, Ask::from(command))
        }
        Request::Ack(ack) => Asking::Of(ack.channel, Ask::Ack(ack.offset)),
        other => return of_conversation(service, other),
    };
    Ok(Translated::Ask(asking))
}

fn of_conversation(service: &ServiceId, request: Request) -> Result<Translated, Refusal> {
    let service = service.clone();
    let asking = match request {
        Request::Open(open) => {
            let limit = usize::try_from(open.limit).unwrap_or(OPEN_LIMIT_MAX).clamp(1, OPEN_LIMIT_MAX);
            let (conversation, agent) = (open.conversation, open.agent);
            let ask = Ask::Open { service, conversation, agent, limit, before: open.before };
            Asking::Of(open.channel, ask)
        }
        Request::PickUp(pick_up) => {
            let (conversation, agent) = (pick_up.conversation, pick_up.agent);
            let confirm = pick_up.confirm.map(|confirm| confirm.0);
            let command = Command::PickUp { service, conversation, agent, confirm };
            Asking::Of(pick_up.channel, Ask::from(command))
        }
        Request::Release(release) => {
            let holder = forced(release.force, release.holder)?;
            let by = Actor::Service(service.clone());
            let (conversation, agent) = (release.conversation, Some(release.agent));
            let claim = ClaimCommand { service, by, conversation, agent, holder };
            Asking::Of(release.channel, Ask::from(Command::Release(claim)))
        }
        Request::Transfer(transfer) => {
            let holder = forced(transfer.force, transfer.holder)?;
            let by = Actor::Service(service.clone());
            let (conversation, agent) = (transfer.conversation, Some(transfer.agent));
            let claim = ClaimCommand { service, by, conversation, agent, holder };
            let command = Command::Transfer { claim, to: transfer.to };
            Asking::Of(transfer.channel, Ask::from(command))
        }
        Request::Reply(reply) => {
            let channel = reply.channel;
            Asking::Of(channel, Ask::from(Command::Reply(reply_command(service, reply)?)))
        }
        Request::ThreadControl(control) => {
            let command = ThreadCommand {
                service,
                of: addressee(control.of),
                agent: control.agent,
                asked: thread_asked(control.action, control.to_service, control.metadata)?,
            };
            Asking::Of(control.channel, Ask::from(Command::Thread(command)))
        }
        Request::ThreadOwner(owner) => {
            Asking::Of(owner.channel, Ask::ThreadOwner { service, of: addressee(owner.of) })
        }
        Request::Presence(presence) => {
            let (conversation, agent, doing) = (presence.conversation, presence.agent, presence.doing);
            Asking::Of(presence.channel, Ask::Presence { service, conversation, agent, doing })
        }
        // All others were translated before.
        _ => return Err(Refusal::Forbidden),
    };
    Ok(Translated::Ask(asking))
}

/// Another's claim needs `force` and his name; without `force` it is about the asking agent's own.
fn forced<T>(force: bool, holder: Option<T>) -> Result<Option<T>, Refusal> {
    match (force, holder) {
        (true, Some(holder)) => Ok(Some(holder)),
        (true, None) => Err(Refusal::BadMessage(Arc::from("force names the holder"))),
        (false, _) => Ok(None),
    }
}

fn addressee(to: Addressee) -> command::Addressee {
    match to {
        Addressee::Conversation(conversation) => command::Addressee::Conversation(conversation),
        Addressee::Customer(name) => command::Addressee::Customer(name),
    }
}

fn thread_asked(
    verb: ThreadVerb,
    to: Option<ServiceId>,
    metadata: Option<Private>,
) -> Result<ThreadAsked, Refusal> {
    let metadata = metadata.map(|metadata| metadata.0);
    Ok(match (verb, to) {
        (ThreadVerb::Take, _) => ThreadAsked::Take { metadata },
        (ThreadVerb::Pass, Some(to)) => ThreadAsked::Pass { to, metadata },
        (ThreadVerb::Pass, None) => {
            return Err(Refusal::BadMessage(Arc::from("a thread is passed to a service")));
        }
        (ThreadVerb::Release, _) => ThreadAsked::Release,
    })
}

fn reply_command(service: ServiceId, reply: message::requests::Reply) -> Result<ReplyCommand, Refusal> {
    if reply.reply_id.as_str().starts_with(ECHO_PREFIX) {
        return Err(Refusal::BadMessage(Arc::from("a reply_id does not begin with echo:")));
    }
    let checked = check_reply(&reply.content.0).map_err(|error| content_refusal(&error))?;
    Ok(ReplyCommand {
        service,
        agent: reply.agent,
        to: addressee(reply.to),
        reply_id: reply.reply_id,
        content: checked.content,
        callback_data: checked.callback_data,
        seen: reply.seen,
        confirm: reply.confirm.map(|confirm| confirm.0),
    })
}
