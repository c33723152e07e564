//! What the simulated Graph API tells the broker: webhooks in Meta's shapes, signed with the app's secret.

use serde_json::{Map, Value, json};

use crate::gateway::signature::{SIGNATURE_HEADER, sign};

/// Where webhooks go, and how.
#[derive(Debug, Clone)]
pub struct Webhooks {
    /// The broker's URL for them.
    pub url: String,
    /// What signs them.
    pub app_secret: String,
    /// The number that they are about.
    pub phone_number_id: String,
    /// Its digits.
    pub display_phone_number: String,
}

/// A customer, by the names that Meta gives.
#[derive(Debug, Clone, Copy)]
pub struct Customer<'a> {
    /// His phone's id.
    pub wa_id: Option<&'a str>,
    /// His business-scoped id.
    pub user_id: Option<&'a str>,
    /// His profile's name.
    pub name: &'a str,
}

/// A status of a message.
#[derive(Debug, Clone, Copy)]
pub struct StatusNews<'a> {
    /// The message.
    pub message_id: &'a str,
    /// Meta's word for it.
    pub status: &'a str,
    /// The customer that it went to.
    pub recipient: &'a str,
    /// What the request that sent it had brought.
    pub callback_data: Option<&'a str>,
    /// Why it failed: Meta's code.
    pub error: Option<u32>,
}

/// A message that was written on the phone.
#[derive(Debug, Clone, Copy)]
pub struct Echo<'a> {
    /// Its id.
    pub message_id: &'a str,
    /// To whom it went.
    pub to: &'a str,
    /// What it says.
    pub text: &'a str,
}

fn now_s() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_secs().to_string()
}

impl Webhooks {
    /// A text of a customer's.
    #[must_use]
    pub fn text(&self, customer: Customer<'_>, message_id: &str, text: &str) -> Value {
        let contact =
            json!({"profile": {"name": customer.name}, "wa_id": customer.wa_id, "user_id": customer.user_id});
        let message = json!({"from": customer.wa_id, "from_user_id": customer.user_id, "id": message_id,
            "timestamp": now_s(), "type": "text", "text": {"body": text}});
        self.body("messages", json!({"contacts": [contact], "messages": [message]}))
    }

    /// How far a message has come.
    #[must_use]
    pub fn status(&self, news: StatusNews<'_>) -> Value {
        let mut status = Map::new();
        let mut put = |name: &str, value: Value| status.insert(name.to_owned(), value);
        put("id", json!(news.message_id));
        put("status", json!(news.status));
        put("timestamp", json!(now_s()));
        put("recipient_id", json!(news.recipient));
        if let Some(data) = news.callback_data {
            put("biz_opaque_callback_data", json!(data));
        }
        if let Some(code) = news.error {
            let details = json!({"details": "So it was asked"});
            let error =
                json!({"code": code, "title": "It failed", "message": "It failed", "error_data": details});
            put("errors", json!([error]));
        }
        self.body("messages", json!({"statuses": [status]}))
    }

    /// A message that was written on the phone.
    #[must_use]
    pub fn echo(&self, echo: Echo<'_>) -> Value {
        let message = json!({"from": self.display_phone_number, "to": echo.to, "id": echo.message_id,
            "timestamp": now_s(), "type": "text", "text": {"body": echo.text}});
        self.body("smb_message_echoes", json!({"message_echoes": [message]}))
    }

    fn body(&self, field: &str, mut value: Value) -> Value {
        let metadata = json!({"display_phone_number": self.display_phone_number,
            "phone_number_id": self.phone_number_id});
        if let Some(map) = value.as_object_mut() {
            map.insert("messaging_product".to_owned(), json!("whatsapp"));
            map.insert("metadata".to_owned(), metadata);
        }
        json!({"object": "whatsapp_business_account",
            "entry": [{"id": "102290129340398", "changes": [{"field": field, "value": value}]}]})
    }

    /// Posts one, signed; gives the status of the answer.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn post(&self, client: &reqwest::Client, webhook: &Value) -> reqwest::Result<u16> {
        let body = webhook.to_string();
        let signature = sign(self.app_secret.as_bytes(), body.as_bytes());
        let request = client.post(&self.url).header("content-type", "application/json");
        let response = request.header(SIGNATURE_HEADER, signature).body(body).send().await?;
        Ok(response.status().as_u16())
    }
}
