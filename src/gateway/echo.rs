//! A message that was written on the phone (`smb_message_echoes`): who got it, and what it says (B17).
//!
//! Its content is the message object as it came, without what a delivery has fields of its own for and without the
//! names that address it.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::json::Object;
use super::translate::{Contact, Reason, message_id_of, name_of, reason_of, time_of};
use crate::domain::command::Echo;
use crate::domain::event::Customer;
use crate::wire::content::check_reply;

/// What is taken out of the message object.
const ENVELOPE: [&str; 8] =
    ["from", "to", "to_user_id", "recipient", "recipient_type", "messaging_product", "id", "timestamp"];

pub(super) fn echo_of(raw: &RawValue, contacts: &[Contact]) -> Result<Echo, Reason> {
    let message = Object::read(raw.get()).ok_or(Reason::Malformed("an echo is no object"))?;
    let message_id = message_id_of(&message)?;
    let mut to =
        Customer { wa_id: name_of(&message, "to")?, user_id: name_of(&message, "to_user_id")?, name: None };
    if to.user_id.is_none() && to.wa_id.as_ref().is_some_and(|name| name.is_user_id()) {
        to.user_id = to.wa_id.take();
    }
    if let Some(contact) = contacts.iter().find(|contact| contact.is(&to)) {
        contact.complete(&mut to);
    }
    if to.id().is_none() {
        return Err(Reason::Malformed("an echo says not whom it went to"));
    }
    let checked = check_reply(&Bytes::from(message.without(&ENVELOPE))).map_err(|error| reason_of(&error))?;
    // What the phone's app wrote for itself is nobody's here.
    Ok(Echo { message_id, to, content: checked.content, sent_at: time_of(&message).ok() })
}
