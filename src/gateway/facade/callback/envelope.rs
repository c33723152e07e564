//! A delivery as Meta's webhooks would tell it: one update in Meta's envelope.
//!
//! Pure: the same delivery and the same configuration give the same bytes, so that a repeat is known by them. A message's
//! content is spliced in as it came, without the address of media at WhatsApp, which no service's token opens: a program
//! would go there instead of asking for the broker's. **Invariants:** of another service's reply nothing goes in but that
//! there was one and when, and of another service that has or had a thread, that it is another; `None` is what the Cloud
//! API has no word for.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::config::{Callback, MaskedEcho};
use crate::domain::event::{Customer, Message, Notice, Receipt, Reply, Status, StatusError};
use crate::domain::ids::{ChannelId, CustomerName, Offset, Timestamp};
use crate::gateway::facade::known::FacadeNumber;
use crate::gateway::facade::media::MEDIA_KINDS;
use crate::gateway::json::{Object, joined};
use crate::gateway::text::seconds;

/// What stands for the role of any other service.
const ANOTHER: &str = "another";
/// The type of a message that brings another one, in the place of one of before.
const EDIT: &str = "edit";

/// Where a status carries what WhatsApp said of the customer beside it.
const CONTACTS: &str = "contacts";

/// How a service is told of what others reply, and of what becomes of threads.
#[derive(Debug)]
pub(super) struct Told {
    masked_echo: MaskedEcho,
    text: String,
    /// In which role it takes part in routing, if it does: then it is told of threads that are passed and taken.
    thread_role: Option<String>,
}

/// What a service is told of a thread.
#[derive(Debug, Clone)]
pub(super) enum Handover {
    /// It was passed to the service.
    Passed {
        /// Whether it was the service's own before.
        was_own: bool,
        /// What was handed on.
        metadata: Option<Arc<str>>,
    },
    /// Another service has it now.
    Taken,
}

impl Told {
    pub(super) fn new(callback: &Callback, thread_role: Option<&str>) -> Self {
        Self {
            masked_echo: callback.masked_echo,
            text: callback.masked_echo_text.clone(),
            thread_role: thread_role.map(str::to_owned),
        }
    }

    /// Whether threads that are passed and taken are told at all.
    pub(super) fn has_handovers(&self) -> bool {
        self.thread_role.is_some()
    }

    /// A thread that was passed to the service, or taken from it. The other side is named by no role of its own.
    pub(super) fn handover(
        &self,
        number: &FacadeNumber,
        at: Timestamp,
        handover: &Handover,
        customer: &Customer,
    ) -> Option<Bytes> {
        let own = self.thread_role.as_deref()?;
        let (kind, told) = match handover {
            Handover::Passed { was_own, metadata } => {
                let mut told = Map::new();
                let previous = if *was_own { own } else { ANOTHER };
                told.insert("previous_owner_role".to_owned(), json!(previous));
                told.insert("new_owner_role".to_owned(), json!(own));
                if let Some(metadata) = metadata {
                    told.insert("metadata".to_owned(), json!(&**metadata));
                }
                ("control_passed", Value::Object(told))
            }
            Handover::Taken => {
                ("control_taken", json!({ "previous_owner_role": own, "new_owner_role": ANOTHER }))
            }
        };
        let mut sender = Map::new();
        if let Some(wa_id) = &customer.wa_id {
            sender.insert("phone_number".to_owned(), json!(wa_id.as_str()));
        }
        if let Some(user_id) = &customer.user_id {
            sender.insert("user_id".to_owned(), json!(user_id.as_str()));
        }
        let value = json!({
            "messaging_product": "whatsapp",
            "sender": sender,
            "recipient": { "phone_number_id": id_of(number), "display_phone_number": digits(number) },
            "type": kind,
            "timestamp": seconds(at),
            (kind): told,
        });
        Some(around(number, "messaging_handovers", &value.to_string()))
    }

    /// Whether others' replies are told at all.
    pub(super) fn has_echoes(&self) -> bool {
        self.masked_echo != MaskedEcho::Off
    }

    /// Another service's reply: that there was one, to whom and when.
    pub(super) fn masked_reply(
        &self,
        number: &FacadeNumber,
        (channel, offset, at): (ChannelId, Offset, Timestamp),
        customer: &Customer,
    ) -> Option<Bytes> {
        let id = format!("masked.{channel}.{}", offset.0);
        let text = json!({ "body": self.text });
        let to = customer.wa_id.as_ref().or(customer.user_id.as_ref()).map(CustomerName::as_str);
        match self.masked_echo {
            MaskedEcho::Off => None,
            MaskedEcho::Echo => {
                let mut echo = json!({
                    "from": digits(number), "id": id, "timestamp": seconds(at), "type": "text", "text": text,
                });
                address(&mut echo, customer);
                let value = json!({ "message_echoes": [echo], "contacts": [contact(customer)] });
                Some(change(number, "smb_message_echoes", value))
            }
            MaskedEcho::Standby => {
                let message = json!({
                    "to": to, "recipient_type": "individual", "type": "text", "text": text,
                });
                let echo = json!({ "id": id, "timestamp": seconds(at), "message": message });
                let value =
                    json!({ "standby": { "message_echoes": [echo], "contacts": [contact(customer)] } });
                Some(change(number, "standby", value))
            }
        }
    }
}

/// What a customer wrote. `redacted`: something that another service wrote for machines is left out, and the message says
/// so (B7).
pub(super) fn message(
    number: &FacadeNumber,
    message: &Message,
    content: &[u8],
    redacted: bool,
) -> Option<Bytes> {
    let customer = &message.customer;
    let mut head = String::from("{");
    // A message that reports a change of names came by the former ones.
    let former = |is_user_id: bool| message.formerly.iter().find(|name| name.is_user_id() == is_user_id);
    if let Some(wa_id) = former(false).or(customer.wa_id.as_ref()) {
        let _ = write!(head, "\"from\":{},", json!(wa_id.as_str()));
    }
    if let Some(user_id) = former(true).or(customer.user_id.as_ref()) {
        let _ = write!(head, "\"from_user_id\":{},", json!(user_id.as_str()));
    }
    let (id, at) = (json!(message.message_id.as_str()), json!(seconds(message.sent_at)));
    let _ = write!(head, "\"id\":{id},\"timestamp\":{at},");
    if redacted {
        head.push_str("\"redacted\":true,");
    }
    let content = without_address(message.content.kind(), content)?;
    let contact = match message.contact.as_deref() {
        Some(more) => with_more(sender(customer), std::str::from_utf8(more.expose()).ok()?)?,
        None => sender(customer).to_string(),
    };
    let value = format!("\"contacts\":[{contact}],\"messages\":[{}]", head + content.strip_prefix('{')?);
    Some(envelope(number, "messages", &value))
}

/// A message object without the `url` of its media.
fn without_address<'c>(kind: &str, content: &'c [u8]) -> Option<Cow<'c, str>> {
    let content = std::str::from_utf8(content).ok()?;
    if kind != EDIT && !MEDIA_KINDS.contains(&kind) {
        return Some(Cow::Borrowed(content));
    }
    Some(address_cut(kind, &Object::read(content)?).map_or(Cow::Borrowed(content), Cow::Owned))
}

/// The same, where there is one to cut; of a message that an edit brings, too. Goes as deep as content may be nested.
fn address_cut(kind: &str, message: &Object<'_>) -> Option<String> {
    if kind == EDIT {
        let edit = message.object(EDIT)?;
        let edited = edit.object("message")?;
        let cut = address_cut(&edited.text("type")?, &edited)?;
        return Some(message.with(EDIT, &edit.with("message", &cut)));
    }
    if !MEDIA_KINDS.contains(&kind) {
        return None;
    }
    let media = message.object(kind)?;
    media.get("url")?;
    Some(message.with(kind, &media.without(&["url"])))
}

/// A reply that was written on the phone, for who gets it in full; `at` is when the broker had it.
pub(super) fn phone_echo(number: &FacadeNumber, reply: &Reply, at: Timestamp) -> Option<Bytes> {
    let id = reply.echo_of.as_ref()?;
    let sent_at = reply.sent_at.unwrap_or(at);
    let mut head = json!({ "from": digits(number), "id": id.as_str(), "timestamp": seconds(sent_at) });
    address(&mut head, &reply.to);
    let head = head.to_string();
    let content = without_address(reply.content.kind(), reply.content.expose())?;
    let echo = format!("{},{}", head.strip_suffix('}')?, content.strip_prefix('{')?);
    let value = format!("\"contacts\":[{}],\"message_echoes\":[{echo}]", contact(&reply.to));
    Some(envelope(number, "smb_message_echoes", &value))
}

/// News of the service's own reply. One without a message's id is none that a program could know: it was answered with
/// an error, or came another way.
pub(super) fn status(
    number: &FacadeNumber,
    receipt: &Receipt,
    customer: &Customer,
    callback_data: Option<&[u8]>,
) -> Option<Bytes> {
    let status = match receipt.status {
        Status::Accepted | Status::Unknown => return None,
        Status::Sent | Status::Delivered | Status::Read | Status::Played | Status::Failed => receipt.status,
    };
    let carried = receipt.carried.as_ref().map_or(Ok("{}"), |carried| std::str::from_utf8(carried.expose()));
    let carried = Object::read(carried.ok()?)?;
    let mut told = json!({
        "id": receipt.message_id.as_ref()?.as_str(),
        "status": status.as_str(),
        "timestamp": seconds(receipt.status_at),
    });
    let fields = told.as_object_mut()?;
    if let Some(data) = callback_data.and_then(|data| std::str::from_utf8(data).ok()) {
        fields.insert("biz_opaque_callback_data".to_owned(), json!(data));
    }
    // What WhatsApp said itself stays as it is.
    let recipient = customer.wa_id.as_ref().or(customer.user_id.as_ref());
    let known = [
        ("recipient_id", recipient.map(|recipient| json!(recipient.as_str()))),
        ("recipient_user_id", customer.id().map(|id| json!(id.as_str()))),
        ("errors", receipt.error.as_ref().map(|error| json!([failure(error)]))),
    ];
    let mut replaced = Vec::new();
    let contact = match beside(&carried) {
        Some(more) => {
            replaced.push(CONTACTS);
            with_more(contact(customer), &more)?
        }
        None => contact(customer).to_string(),
    };
    for (name, known) in known.into_iter().filter(|(name, _)| carried.get(name).is_none()) {
        if let Some(known) = known {
            fields.insert(name.to_owned(), known);
            replaced.push(name);
        }
    }
    let value = format!(
        "\"contacts\":[{contact}],\"statuses\":[{}]",
        joined(&told.to_string(), &carried.without(&replaced))?
    );
    Some(envelope(number, "messages", &value))
}

/// What WhatsApp said of the customer beside a status. One that names him would be the status object's own.
fn beside(carried: &Object<'_>) -> Option<String> {
    let contacts = carried.array(CONTACTS)?;
    let [only] = contacts[..] else { return None };
    let more = Object::read(only.get())?;
    (more.get("wa_id").is_none() && more.get("user_id").is_none()).then(|| more.without(&[]))
}

/// A change that is neither message nor status nor echo, as it came.
pub(super) fn notice(number: &FacadeNumber, notice: &Notice, content: &[u8]) -> Option<Bytes> {
    let value = std::str::from_utf8(content).ok()?;
    Some(around(number, &notice.field, value))
}

fn failure(error: &StatusError) -> Value {
    let title = error.title.as_deref().unwrap_or("The message was not sent");
    let mut told = json!({
        "code": error.code.parse::<i64>().unwrap_or(131_000), "title": title, "message": title,
    });
    if let (Some(fields), Some(details)) = (told.as_object_mut(), &error.details) {
        fields.insert("error_data".to_owned(), json!({ "details": &**details }));
    }
    told
}

/// The customer as programs know him: `user_id` always, the phone in its place where Meta gave none.
fn contact(customer: &Customer) -> Value {
    let id = customer.id().map(CustomerName::as_str);
    let mut contact = json!({ "user_id": id });
    if let Some(fields) = contact.as_object_mut() {
        if let Some(name) = &customer.name {
            fields.insert("profile".to_owned(), json!({ "name": &**name }));
        }
        if let Some(wa_id) = &customer.wa_id {
            fields.insert("wa_id".to_owned(), json!(wa_id.as_str()));
        }
    }
    contact
}

/// A contact with what else WhatsApp said of the customer, which has none of its members but those of the profile.
fn with_more(mut contact: Value, more: &str) -> Option<String> {
    let more = Object::read(more)?;
    let known = contact.as_object_mut()?.remove("profile").unwrap_or_else(|| json!({}));
    let profile = match more.object("profile") {
        Some(more) => joined(&known.to_string(), &more.without(&[]))?,
        None => known.to_string(),
    };
    let profile = if profile == "{}" { profile } else { format!("{{\"profile\":{profile}}}") };
    joined(&joined(&profile, &contact.to_string())?, &more.without(&["profile"]))
}

/// Who wrote: as [`contact`], and always with a name, which Meta always gives.
fn sender(customer: &Customer) -> Value {
    let mut sender = contact(customer);
    if let (Some(fields), None, Some(id)) = (sender.as_object_mut(), &customer.name, customer.id()) {
        fields.insert("profile".to_owned(), json!({ "name": id.as_str() }));
    }
    sender
}

fn address(echo: &mut Value, customer: &Customer) {
    let Some(fields) = echo.as_object_mut() else { return };
    if let Some(to) = customer.wa_id.as_ref().or(customer.user_id.as_ref()) {
        fields.insert("to".to_owned(), json!(to.as_str()));
    }
    if let Some(user_id) = &customer.user_id {
        fields.insert("to_user_id".to_owned(), json!(user_id.as_str()));
    }
}

fn change(number: &FacadeNumber, field: &str, value: Value) -> Bytes {
    let value = value.to_string();
    envelope(
        number,
        field,
        value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default(),
    )
}

/// Puts the members of a change's value behind what every change of a number begins with.
fn envelope(number: &FacadeNumber, field: &str, members: &str) -> Bytes {
    let metadata = json!({ "display_phone_number": digits(number), "phone_number_id": id_of(number) });
    let value = format!("{{\"messaging_product\":\"whatsapp\",\"metadata\":{metadata},{members}}}");
    around(number, field, &value)
}

fn around(number: &FacadeNumber, field: &str, value: &str) -> Bytes {
    let account = json!(number.waba_id.as_deref().unwrap_or_else(|| id_of(number)));
    let field = json!(field);
    Bytes::from(format!(
        "{{\"object\":\"whatsapp_business_account\",\"entry\":[{{\"id\":{account},\"changes\":\
         [{{\"value\":{value},\"field\":{field}}}]}}]}}"
    ))
}

fn digits(number: &FacadeNumber) -> &str {
    number.number.as_str().trim_start_matches('+')
}

/// Meta's id of the number; its digits where the configuration does not say.
fn id_of(number: &FacadeNumber) -> &str {
    number.phone_number_id.as_deref().unwrap_or_else(|| digits(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::Content;
    use crate::domain::event::Settings;
    use crate::domain::ids::{MessageId, ReplyId, ServiceId};

    fn number() -> FacadeNumber {
        FacadeNumber {
            portal: "acme".parse().unwrap(),
            number: "+15550783881".parse().unwrap(),
            phone_number_id: Some("1065".to_owned()),
            waba_id: None,
            access_token: None,
        }
    }

    fn by_user_id() -> Customer {
        Customer { user_id: Some("US.1349".parse().unwrap()), ..Customer::default() }
    }

    fn value_of(body: Option<Bytes>) -> Value {
        let whole: Value = serde_json::from_slice(&body.unwrap()).unwrap();
        assert_eq!(whole["entry"][0]["id"], "1065", "without an account the number stands for it");
        let change = &whole["entry"][0]["changes"][0];
        assert_eq!(change["value"]["metadata"]["phone_number_id"], "1065");
        change["value"].clone()
    }

    #[test]
    fn media_have_no_address_wherever_they_stand_and_all_else_stays_as_it_is() {
        let told = |content: &str| {
            let kind: Value = serde_json::from_str(content).unwrap();
            without_address(kind["type"].as_str().unwrap(), content.as_bytes()).unwrap().into_owned()
        };
        let image = r#"{"id":"7","caption":"c\u00e9","n":1.0}"#;
        let with_url = image.replace(r#""n""#, r#""url":"https://x/y","n""#);
        let of = |image: &str| format!(r#"{{"type":"image","context":{{"id":"M0"}},"image":{image}}}"#);
        assert_eq!(told(&of(&with_url)), of(image));
        let edit = |message: &str| {
            format!(
                r#"{{"type":"edit","edit":{{"original_message_id":"wamid.0","message":{message},"new":[1.50]}}}}"#
            )
        };
        assert_eq!(told(&edit(&of(&with_url))), edit(&of(image)));
        assert_eq!(told(&edit(&edit(&of(&with_url)))), edit(&edit(&of(image))));
        let text = r#"{ "type" : "text","text":{"body":"b","url":"https://x/y"}}"#;
        for as_it_is in [of(image), edit(&of(image)), edit(text), text.to_owned(), edit("7")] {
            assert_eq!(told(&as_it_is), as_it_is);
        }
    }

    #[test]
    fn a_reply_that_was_written_on_the_phone_is_told_in_full() {
        let json = r#"{"type":"text","text":{"body":"from the phone"}}"#;
        let reply = Reply {
            service: ServiceId::trusted("crm"),
            agent: None,
            reply_id: ReplyId::trusted("echo:wamid.1"),
            digest: 0,
            content: Content::checked(Bytes::from(json), 9..13, &[]),
            callback_data: None,
            to: by_user_id(),
            reveal: Settings::default(),
            echo_of: Some(MessageId::trusted("wamid.1")),
            sent_at: None,
        };
        let value = value_of(phone_echo(&number(), &reply, Timestamp(1_749_416_383_999)));
        let echo = &value["message_echoes"][0];
        assert_eq!((&echo["id"], &echo["timestamp"]), (&json!("wamid.1"), &json!("1749416383")));
        assert_eq!(
            (&echo["to_user_id"], &echo["text"]["body"]),
            (&json!("US.1349"), &json!("from the phone"))
        );
        assert_eq!(value["contacts"][0]["user_id"], "US.1349");
        let timed = Reply { sent_at: Some(Timestamp(1_749_416_300_000)), ..reply.clone() };
        let value = value_of(phone_echo(&number(), &timed, Timestamp(1_749_416_383_999)));
        assert_eq!(value["message_echoes"][0]["timestamp"], "1749416300", "when it was written");
        assert!(
            phone_echo(&number(), &Reply { echo_of: None, ..reply }, Timestamp(0)).is_none(),
            "its own is no news"
        );
    }

    #[test]
    fn a_status_says_why_it_failed_and_one_that_no_program_could_know_is_not_told() {
        let receipt = |message_id: Option<MessageId>, status: Status| Receipt {
            reply: Offset(7),
            service: ServiceId::trusted("crm"),
            reply_id: ReplyId::trusted("r"),
            message_id,
            status,
            error: (status == Status::Failed).then(|| StatusError {
                code: Arc::from("131026"),
                title: Some(Arc::from("Message undeliverable")),
                details: Some(Arc::from("no such phone")),
            }),
            status_at: Timestamp(1_749_416_383_000),
            carried: None,
        };
        let id = || Some(MessageId::trusted("wamid.1"));
        let told = |receipt: &Receipt| status(&number(), receipt, &by_user_id(), Some(b"mine"));
        let value = value_of(told(&receipt(id(), Status::Failed)));
        let failed = &value["statuses"][0];
        assert_eq!((&failed["status"], &failed["recipient_user_id"]), (&json!("failed"), &json!("US.1349")));
        assert_eq!(failed["biz_opaque_callback_data"], "mine");
        let error = &failed["errors"][0];
        assert_eq!(
            (&error["code"], &error["error_data"]["details"]),
            (&json!(131_026), &json!("no such phone"))
        );
        assert!(
            told(&receipt(id(), Status::Unknown)).is_none() && told(&receipt(None, Status::Failed)).is_none()
        );
        assert_eq!(told(&receipt(id(), Status::Read)), told(&receipt(id(), Status::Read)), "the same bytes");
    }
}
