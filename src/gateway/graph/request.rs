//! The body of a request that sends a reply: the message object as the service gave it, and what the gateway adds.

use bytes::Bytes;

use super::super::intent::Intent;
use crate::actors::port::SendNow;

/// The body; nothing of the content is read or written anew. The content is an object with a `type`, and holds none of
/// the names that stand here: the edge refuses those.
pub(super) fn body(send: &SendNow) -> Bytes {
    let intent = Intent { channel: send.channel, reply: send.offset };
    let name = if send.to.is_user_id() { "recipient" } else { "to" };
    let head = format!(
        "{{\"messaging_product\":\"whatsapp\",\"recipient_type\":\"individual\",\"{name}\":{},\"biz_opaque_callback_data\":{},",
        quoted(send.to.as_str()),
        quoted(&intent.to_callback_data()),
    );
    let begin = send.content.iter().position(|byte| *byte == b'{').map_or(0, |brace| brace + 1);
    let rest = send.content.get(begin..).unwrap_or_default();
    [head.as_bytes(), rest].concat().into()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::simulated::rules;
    use super::*;
    use crate::domain::ids::{ChannelId, ConversationId, CustomerName, Offset, ReplyId};

    fn sent(to: &str, content: &str) -> Value {
        let send = SendNow {
            channel: ChannelId(7),
            offset: Offset(9),
            conversation: ConversationId(1),
            to: CustomerName::read(to).unwrap(),
            reply_id: ReplyId::trusted("r-1"),
            content: Bytes::copy_from_slice(content.as_bytes()),
        };
        serde_json::from_slice(&body(&send)).unwrap()
    }

    #[test]
    fn the_gateway_adds_what_meta_asks_for_and_the_rest_is_the_services() {
        let body = sent("16505551234", r#" {"type":"text","text":{"body":"Hi \u00e9"}}"#);
        let data = "sharedline:1:00000000000000000000000000000007:9";
        assert_eq!(
            body,
            json!({"messaging_product": "whatsapp", "recipient_type": "individual", "to": "16505551234",
                "biz_opaque_callback_data": data, "type": "text", "text": {"body": "Hi é"}})
        );
        assert_eq!(rules::check(&body), Ok(()));
    }

    #[test]
    fn who_is_known_by_his_user_id_alone_is_the_recipient() {
        let body = sent("US.13491208655302741918", r#"{"type":"text","text":{"body":"Hi"}}"#);
        assert_eq!(body["recipient"], "US.13491208655302741918");
        assert!(body.get("to").is_none());
        assert_eq!(rules::check(&body), Ok(()));
    }
}
