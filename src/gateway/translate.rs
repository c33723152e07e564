//! Meta's JSON to what the broker is asked: every entry, change, message and status of a webhook.
//!
//! Stands behind the signature and before [`super::Intake`]; pure. A message's content is the message object as it
//! came, without the four keys that a delivery has fields of its own for: `from`, `from_user_id`, `id`, `timestamp`.
//! Everything else stays, known or not: `type` and its object, `context`, `referral`, `errors`, `group_id` … What `contacts`
//! says of a customer beyond his names goes with his message, and with a status as its member `contacts`.
//!
//! # Invariants
//! - One wrong update costs only itself: each is read by itself, and what is left out is told with its reason.
//! - What comes out has the order of what came in.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::echo::echo_of;
use super::intent::Intent;
use super::json::{Object, joined};
use super::numbers::Numbers;
use super::signature::Matched;
use super::text::cut;
use super::{News, Route, Update};
use crate::domain::command::{Inbound, StatusCommand, StatusOf};
use crate::domain::content::{CARRIED_BYTES_MAX, CONTACT_BYTES_MAX, Carried, Content};
use crate::domain::event::{ClearTo, Customer, Message, Status, StatusError};
use crate::domain::ids::{CustomerName, MessageId, NAME_BYTES_MAX, Timestamp};
use crate::wire::content::{ContentError, OF_STATUS, check_inbound, check_notice};

/// The `object` of every webhook of WhatsApp's.
const OBJECT: &str = "whatsapp_business_account";
/// What is taken out of a message object: a delivery says it in fields of its own.
const ENVELOPE: [&str; 4] = ["from", "from_user_id", "id", "timestamp"];
/// Longest code of an error, in bytes; Meta's are numbers of six digits.
const ERROR_CODE_BYTES_MAX: usize = 64;
/// Longest title and details of an error, in bytes each; what is longer is cut. Meta's have about a hundred.
const ERROR_TEXT_BYTES_MAX: usize = 4096;

/// The body is no JSON object: nobody can say what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is no JSON object")]
pub struct NotAnObject;

/// An update that is left out, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// What it is.
    pub part: Part,
    /// Why.
    pub reason: Reason,
    /// The number that it names, where it is one that Meta could have given; business's own, nothing of a customer's.
    pub phone_number_id: Option<Box<str>>,
}

/// What kind of thing an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// A customer's message.
    Message,
    /// What is said of a customer beside his message beyond what the broker has fields for; the message itself is taken.
    Contact,
    /// A status.
    Status,
    /// What a status says beyond what the broker has fields for; the status itself is taken.
    StatusDetails,
    /// A message that was written on the phone.
    Echo,
    /// A whole change, or an entry that can not be read as changes.
    Change,
}

/// Why an update is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The number is not configured, or who signed does not speak for it.
    UnknownNumber,
    /// It is of a kind that the broker does not take.
    Unsupported(&'static str),
    /// It has not the shape that Meta documents.
    Malformed(&'static str),
    /// It is over a limit.
    OverLimit(&'static str),
}

/// Every update of a webhook's body, in order.
///
/// # Errors
/// When the body is no JSON object.
pub fn translate(
    body: &[u8],
    numbers: &Numbers,
    matched: &Matched,
) -> Result<Vec<Result<Update, LeftOut>>, NotAnObject> {
    let text = std::str::from_utf8(body).map_err(|_| NotAnObject)?;
    let envelope = Object::read(text).ok_or(NotAnObject)?;
    let mut translation = Translation { numbers, matched, out: Vec::new() };
    if envelope.text("object").is_some_and(|object| object == OBJECT) {
        translation.entries(&envelope);
    } else {
        translation.leave_out(Part::Change, Reason::Unsupported("the webhook is not of a WhatsApp account"));
    }
    Ok(translation.out)
}

struct Translation<'n> {
    numbers: &'n Numbers,
    matched: &'n Matched,
    out: Vec<Result<Update, LeftOut>>,
}

impl Translation<'_> {
    fn leave_out(&mut self, part: Part, reason: Reason) {
        self.out.push(Err(LeftOut { part, reason, phone_number_id: None }));
    }

    fn entries(&mut self, envelope: &Object<'_>) {
        let Some(entries) = envelope.array("entry") else {
            return self.leave_out(Part::Change, Reason::Malformed("entry is no array"));
        };
        for entry in entries {
            let entry = Object::read(entry.get());
            let Some(changes) = entry.as_ref().and_then(|entry| entry.array("changes")) else {
                self.leave_out(Part::Change, Reason::Malformed("an entry has no array of changes"));
                continue;
            };
            let account = entry.as_ref().and_then(|entry| entry.text_or_number("id")).unwrap_or_default();
            for change in changes {
                self.change(change, &account);
            }
        }
    }

    fn change(&mut self, change: &RawValue, account: &str) {
        let Some(change) = Object::read(change.get()) else {
            return self.leave_out(Part::Change, Reason::Malformed("a change is no object"));
        };
        let (Some(field), Some(value)) = (change.text("field"), change.object("value")) else {
            return self.leave_out(Part::Change, Reason::Malformed("a change lacks field or value"));
        };
        let named = self.named(&value);
        match &*field {
            "messages" => self.messages(&field, &value, named.unwrap_or(Err(None)).as_ref()),
            "smb_message_echoes" | "message_echoes" => {
                self.echoes(&value, named.unwrap_or(Err(None)).as_ref())
            }
            _ => match named {
                Some(to) => self.notice(&field, &value, &[], to.as_ref()),
                None => self.account_notice(&field, &value, account),
            },
        }
    }

    /// Whose a change is that names a number: by `metadata.phone_number_id`, else in the other ways of changes outside
    /// of conversations. Nothing where it names none.
    fn named(&self, value: &Object<'_>) -> Option<Result<Arc<Route>, Option<Box<str>>>> {
        let (metadata, recipient) = (value.object("metadata"), value.object("recipient"));
        let within = metadata.as_ref().or(recipient.as_ref()).unwrap_or(value);
        if let Some(id) = within.text_or_number("phone_number_id") {
            let found = self.numbers.by_phone_number_id(&id, self.matched);
            let plain_id = is_plain_id(&id).then(|| Box::from(&*id));
            return Some(found.cloned().ok_or(plain_id));
        }
        let display = value.text_or_number("display_phone_number")?;
        Some(self.numbers.by_display_number(&display, self.matched).cloned().ok_or(None))
    }

    /// A change of an account, which names no number (its templates, its standing): every number of it is told.
    fn account_notice(&mut self, field: &str, value: &Object<'_>, account: &str) {
        let named = value.object("waba_info").and_then(|info| info.text_or_number("waba_id"));
        let account = named.as_deref().unwrap_or(account);
        let all: Vec<_> = self.numbers.of_account(account, self.matched).cloned().collect();
        for to in &all {
            self.notice(field, value, &[], Ok(to));
        }
        if all.is_empty() {
            self.notice(field, value, &[], Err(&None));
        }
    }

    fn messages(&mut self, field: &str, value: &Object<'_>, to: Result<&Arc<Route>, &Option<Box<str>>>) {
        let contacts = Contact::all(value);
        let messages = self.elements(value, "messages", Part::Message);
        let statuses = self.elements(value, "statuses", Part::Status);
        for message in &messages {
            let mut carried = Ok(());
            self.push(Part::Message, to, || message_of(message, &contacts, &mut carried).map(News::Message));
            if let Err(reason) = carried {
                self.leave_out(Part::Contact, reason);
            }
        }
        for status in &statuses {
            let mut carried = Ok(());
            self.push(Part::Status, to, || {
                let status = Object::read(status.get()).ok_or(Reason::Malformed("a status is no object"))?;
                let rest = carried_of(details_of(&status, &contacts), CARRIED_BYTES_MAX);
                carried = rest.as_ref().map(drop).map_err(Clone::clone);
                status_of(&status, rest.ok().flatten())
            });
            if let Err(reason) = carried {
                self.leave_out(Part::StatusDetails, reason);
            }
        }
        // Errors of the account come beside messages; and whatever Meta may add here later goes to the parent too.
        let errors = value.array("errors").unwrap_or_default();
        if !errors.is_empty() || (messages.is_empty() && statuses.is_empty()) {
            self.notice(field, value, &["messages", "statuses", "contacts"], to);
        }
    }

    fn echoes(&mut self, value: &Object<'_>, to: Result<&Arc<Route>, &Option<Box<str>>>) {
        let contacts = Contact::all(value);
        for echo in self.elements(value, "message_echoes", Part::Echo) {
            self.push(Part::Echo, to, || echo_of(echo, &contacts).map(News::Echo));
        }
    }

    fn elements<'a>(&mut self, value: &Object<'a>, key: &str, part: Part) -> Vec<&'a RawValue> {
        value.array(key).unwrap_or_else(|| {
            self.leave_out(part, Reason::Malformed("messages, statuses or echoes is no array"));
            Vec::new()
        })
    }

    fn notice(
        &mut self,
        field: &str,
        value: &Object<'_>,
        left_out: &[&str],
        to: Result<&Arc<Route>, &Option<Box<str>>>,
    ) {
        self.push(Part::Change, to, || {
            if field.len() > NAME_BYTES_MAX {
                return Err(Reason::OverLimit("the field's name is too long"));
            }
            let content = checked_value(value.without(left_out))?;
            Ok(News::Notice { field: Arc::from(field), content })
        });
    }

    fn push(
        &mut self,
        part: Part,
        to: Result<&Arc<Route>, &Option<Box<str>>>,
        read: impl FnOnce() -> Result<News, Reason>,
    ) {
        self.out.push(match to {
            Err(id) => Err(LeftOut { part, reason: Reason::UnknownNumber, phone_number_id: id.clone() }),
            Ok(to) => match read() {
                Ok(news) => Ok(Update { to: Arc::clone(to), news }),
                Err(reason) => Err(LeftOut { part, reason, phone_number_id: None }),
            },
        });
    }
}

/// Whether it may stand in a log: ids of Meta's are digits.
fn is_plain_id(id: &str) -> bool {
    (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit())
}

/// Who a customer is, as `contacts[]` says it.
pub(super) struct Contact {
    wa_id: Option<CustomerName>,
    user_id: Option<CustomerName>,
    name: Option<Arc<str>>,
    /// The other members of the contact and of its profile, an object.
    more: String,
}

impl Contact {
    fn all(value: &Object<'_>) -> Vec<Self> {
        value.array("contacts").unwrap_or_default().into_iter().filter_map(Self::read).collect()
    }

    fn read(raw: &RawValue) -> Option<Self> {
        let contact = Object::read(raw.get())?;
        let profile = contact.object("profile");
        let name = profile.as_ref().and_then(|profile| Some(cut(&profile.text("name")?, NAME_BYTES_MAX)));
        let of_profile = profile.map(|profile| profile.without(&["name"])).filter(|rest| rest != "{}");
        let more = match of_profile {
            Some(rest) => Object::read(&contact.with("profile", &rest))?.without(&["wa_id", "user_id"]),
            None => contact.without(&["wa_id", "user_id", "profile"]),
        };
        Some(Self {
            more,
            wa_id: name_of(&contact, "wa_id").ok().flatten(),
            user_id: name_of(&contact, "user_id").ok().flatten(),
            name: name.filter(|name| !name.is_empty()),
        })
    }

    pub(super) fn is(&self, customer: &Customer) -> bool {
        let same = |mine: &Option<CustomerName>, his: &Option<CustomerName>| mine.is_some() && mine == his;
        same(&self.wa_id, &customer.wa_id) || same(&self.user_id, &customer.user_id)
    }

    /// Gives a customer the names that he lacks.
    pub(super) fn complete(&self, customer: &mut Customer) {
        customer.wa_id = customer.wa_id.take().or_else(|| self.wa_id.clone());
        customer.user_id = customer.user_id.take().or_else(|| self.user_id.clone());
        customer.name = self.name.clone();
    }
}

pub(super) fn name_of(object: &Object<'_>, key: &str) -> Result<Option<CustomerName>, Reason> {
    let text = object.text_or_number(key).filter(|text| !text.is_empty());
    text.map(|text| CustomerName::read(&text).map_err(|_| Reason::Malformed("a customer's id is none")))
        .transpose()
}

/// A message; `carried` says why what its contact says besides is not taken.
fn message_of(
    raw: &RawValue,
    contacts: &[Contact],
    carried: &mut Result<(), Reason>,
) -> Result<Inbound, Reason> {
    let message = Object::read(raw.get()).ok_or(Reason::Malformed("a message is no object"))?;
    let message_id = message_id_of(&message)?;
    let sent_at = time_of(&message)?;
    let (customer, formerly, contact) = who(&message, contacts)?;
    let (content, refers_to) = checked_message(message.without(&ENVELOPE))?;
    let clear_to = ClearTo::Everyone;
    let more = contact.map_or(Ok(None), |contact| carried_of(contact.more.clone(), CONTACT_BYTES_MAX));
    *carried = more.as_ref().map(drop).map_err(Clone::clone);
    let contact = more.ok().flatten().map(Box::new);
    let message = Message { message_id, customer, formerly, sent_at, content, refers_to, clear_to, contact };
    Ok(message.into())
}

/// Who wrote, by all names that the message and its contact give, who he was before a change that it reports, and the
/// contact.
fn who<'c>(
    message: &Object<'_>,
    contacts: &'c [Contact],
) -> Result<(Customer, Vec<CustomerName>, Option<&'c Contact>), Reason> {
    let mut customer =
        Customer { wa_id: name_of(message, "from")?, user_id: name_of(message, "from_user_id")?, name: None };
    if customer.user_id.is_none() && customer.wa_id.as_ref().is_some_and(CustomerName::is_user_id) {
        customer.user_id = customer.wa_id.take();
    }
    let nameless = customer.id().is_none();
    let contact = match contacts {
        [only] if nameless => Some(only),
        _ => contacts.iter().find(|contact| contact.is(&customer)),
    };
    if let Some(contact) = contact {
        contact.complete(&mut customer);
    }
    let formerly = match change_of_names(message)? {
        Some(change) => renamed(&mut customer, change),
        None => Vec::new(),
    };
    if customer.id().is_none() {
        return Err(Reason::Malformed("a message says not who wrote it"));
    }
    Ok((customer, formerly, contact))
}

/// What a `user_changed_*` message says.
struct NameChange {
    wa_id: Option<CustomerName>,
    user_id: Option<CustomerName>,
    previous_user_id: Option<CustomerName>,
}

fn change_of_names(message: &Object<'_>) -> Result<Option<NameChange>, Reason> {
    let Some(system) = message.object("system") else { return Ok(None) };
    let is_system = message.text("type").is_some_and(|kind| kind == "system");
    let is_change = system.text("type").is_some_and(|kind| kind.starts_with("user_changed_"));
    if !is_system || !is_change {
        return Ok(None);
    }
    Ok(Some(NameChange {
        wa_id: name_of(&system, "wa_id")?,
        user_id: name_of(&system, "user_id")?,
        previous_user_id: name_of(&system, "previous_user_id")?,
    }))
}

/// Gives the customer his new names; what he had of the same sort before is former, but not lost.
fn renamed(customer: &mut Customer, change: NameChange) -> Vec<CustomerName> {
    let mut formerly = Vec::new();
    let mut replace = |name: &mut Option<CustomerName>, new: Option<CustomerName>| {
        if let Some(new) = new {
            formerly.extend(name.replace(new));
        }
    };
    replace(&mut customer.wa_id, change.wa_id);
    replace(&mut customer.user_id, change.user_id);
    formerly.extend(change.previous_user_id);
    formerly.retain(|name| !customer.names().any(|now| now == name));
    formerly.dedup();
    formerly
}

/// A status; with the reply that it is of, where a request of this broker's had named it.
fn status_of(status: &Object<'_>, carried: Option<Carried>) -> Result<News, Reason> {
    let message_id = message_id_of(status)?;
    let status_at = time_of(status)?;
    let how_far = match &*status.text("status").ok_or(Reason::Malformed("a status says not which"))? {
        "sent" => Status::Sent,
        "delivered" => Status::Delivered,
        "read" => Status::Read,
        "played" => Status::Played,
        "failed" => Status::Failed,
        _ => return Err(Reason::Unsupported("the status is not known")),
    };
    let error = status.array("errors").unwrap_or_default().into_iter().find_map(error_of);
    let intent = status.text("biz_opaque_callback_data").and_then(|data| Intent::read(&data));
    let of = StatusOf::Message(message_id.clone());
    let status = StatusCommand { of, status: how_far, error, status_at, carried };
    Ok(match intent {
        Some(intent) => News::OfReply { intent, message_id, status },
        None => News::Status(status),
    })
}

/// What a status says besides, and what is said of its recipient beside it. A status object that has such a member of its
/// own keeps that.
fn details_of(status: &Object<'_>, contacts: &[Contact]) -> String {
    let rest = status.without(&OF_STATUS);
    let named = |key| name_of(status, key).ok().flatten();
    let recipient =
        Customer { wa_id: named("recipient_id"), user_id: named("recipient_user_id"), name: None };
    let contact = contacts.iter().find(|contact| contact.is(&recipient) && contact.more != "{}");
    match contact.filter(|_| status.get("contacts").is_none()) {
        Some(contact) => joined(&rest, &format!("{{\"contacts\":[{}]}}", contact.more)).unwrap_or(rest),
        None => rest,
    }
}

/// What is carried through of an object, if there is anything.
fn carried_of(object: String, bytes_max: usize) -> Result<Option<Carried>, Reason> {
    if object == "{}" {
        return Ok(None);
    }
    if object.len() > bytes_max {
        return Err(Reason::OverLimit("what it says besides is too large"));
    }
    Ok(Some(Carried::checked(checked_value(object)?.expose().clone())))
}

fn error_of(raw: &RawValue) -> Option<StatusError> {
    let error = Object::read(raw.get())?;
    let text = |text: Option<std::borrow::Cow<'_, str>>| text.map(|text| cut(&text, ERROR_TEXT_BYTES_MAX));
    let details = error.object("error_data").and_then(|data| text(data.text("details")));
    Some(StatusError {
        code: cut(&error.text_or_number("code")?, ERROR_CODE_BYTES_MAX),
        title: text(error.text("title")),
        details: details.or_else(|| text(error.text("message"))),
    })
}

pub(super) fn message_id_of(object: &Object<'_>) -> Result<MessageId, Reason> {
    let id = object.text("id").ok_or(Reason::Malformed("a message or status has no id"))?;
    id.parse().map_err(|_| Reason::OverLimit("a message id is empty, too long or not printable"))
}

/// Meta's seconds since the Unix epoch, as text or number.
pub(super) fn time_of(object: &Object<'_>) -> Result<Timestamp, Reason> {
    object
        .text_or_number("timestamp")
        .and_then(|seconds| seconds.parse::<u64>().ok()?.checked_mul(1000))
        .map(Timestamp)
        .ok_or(Reason::Malformed("a timestamp is not in seconds"))
}

/// The message object, held to the rules that hold for every way in, and the message that it refers to.
fn checked_message(json: String) -> Result<(Content, Option<MessageId>), Reason> {
    let checked = check_inbound(&Bytes::from(json)).map_err(|error| reason_of(&error))?;
    Ok((checked.content, checked.refers_to))
}

fn checked_value(json: String) -> Result<Content, Reason> {
    check_notice(&Bytes::from(json)).map_err(|error| reason_of(&error))
}

pub(super) fn reason_of(error: &ContentError) -> Reason {
    match error {
        ContentError::TooLarge { .. } => Reason::OverLimit("its content is too large"),
        ContentError::TooDeep => Reason::OverLimit("its content is nested too deeply"),
        _ => Reason::Malformed("its content is no message object"),
    }
}
