//! What programs read of a number and its account: an allow-list, proxied with the number's own access token.
//!
//! **Invariants:** nothing here changes anything at WhatsApp. What would change a number's settings is the parent's alone
//! (R4), and the broker has no request for it. Numbers that are not the portal's are left out of every answer.

use std::sync::Arc;

use actix_web::HttpRequest;
use reqwest::Method;
use serde_json::{Value, json};

use super::auth::{Who, parameters_of};
use super::errors::GraphError;
use super::routes::Answer;
use super::{Asking, Facade, FacadeNumber};
use crate::actors::port::Answered;

/// What may be known of a number.
const NUMBER_FIELDS: [&str; 12] = [
    "id",
    "account_mode",
    "code_verification_status",
    "display_phone_number",
    "health_status",
    "messaging_limit_tier",
    "name_status",
    "platform_type",
    "quality_rating",
    "status",
    "throughput",
    "verified_name",
];
/// What may be read of an account.
const TEMPLATES: &str = "message_templates";
const NUMBERS: &str = "phone_numbers";
const APPS: &str = "subscribed_apps";

impl Facade {
    /// What is known of the number that is asked about.
    pub(super) async fn number(&self, asking: Asking, request: &HttpRequest, id: &str) -> Answer {
        let number = asking.number;
        let parameters = parameters_of(request);
        for (_, fields) in parameters.iter().filter(|(key, _)| key == "fields") {
            if let Some(other) = fields.split(',').find(|field| !NUMBER_FIELDS.contains(&field.trim())) {
                return Err(GraphError::bad_parameter(format!("fields may not name {}", other.trim())));
            }
        }
        let fields: Vec<_> = parameters.into_iter().filter(|(key, _)| key == "fields").collect();
        let mut known = self.known().graph.ask(number.token()?, Method::GET, &[id], &fields).await?;
        keep_fields(&mut known);
        Ok(known)
    }

    /// What is known of an account.
    pub(super) async fn account(&self, request: &HttpRequest, id: &str, edge: &str) -> Answer {
        let (who, numbers) = self.of_account(request, id)?;
        let Some(number) = numbers.first() else { return Err(GraphError::no_object()) };
        match edge {
            APPS => {
                let name = who.service.as_str();
                Ok(json!({ "data": [{ "whatsapp_business_api_data": { "id": name, "name": name } }] }))
            }
            TEMPLATES => {
                let known = self.known();
                Ok(known
                    .graph
                    .ask(number.token()?, Method::GET, &[id, edge], &parameters_of(request))
                    .await?)
            }
            NUMBERS => {
                let mut known =
                    self.known().graph.ask(number.token()?, Method::GET, &[id, edge], &[]).await?;
                if let Some(listed) = known.get_mut("data").and_then(Value::as_array_mut) {
                    let is_own = |one: &Value| {
                        let id = one.get("id").and_then(Value::as_str);
                        numbers.iter().any(|number| id.is_some() && number.phone_number_id.as_deref() == id)
                    };
                    listed.retain(is_own);
                    listed.iter_mut().for_each(keep_fields);
                }
                // Its pages count numbers that are not the portal's.
                Ok(json!({ "data": known.get("data").cloned().unwrap_or_else(|| json!([])) }))
            }
            _ => Err(GraphError::new(100, "The broker has no such request")),
        }
    }

    /// A program subscribes to an account's numbers, as Meta has it do before it is told anything: the service joins them.
    pub(super) async fn subscribe(&self, request: &HttpRequest, id: &str) -> Answer {
        let (who, numbers) = self.of_account(request, id)?;
        let caller = self.broker.caller(&who.portal, &who.service).ok_or_else(GraphError::no_object)?;
        for number in numbers {
            match caller.create(&number.number).await {
                Answered::Channel { .. } => {}
                Answered::Refused(refusal) => return Err(refusal.into()),
                _ => return Err(GraphError::unavailable("the broker gave no answer")),
            }
        }
        Ok(json!({ "success": true }))
    }

    /// What would change a number or its account: refused, with the reason that is the service's own.
    pub(super) fn change(&self, request: &HttpRequest, id: &str) -> GraphError {
        let number = match self.asking(request, id) {
            Ok(asking) => Ok(asking),
            Err(error) => self.of_account(request, id).map_err(|_| error).and_then(|(who, numbers)| {
                let caller = self.broker.caller(&who.portal, &who.service);
                let asking = caller.zip(numbers.into_iter().next());
                asking.map(|(caller, number)| Asking { caller, number }).ok_or_else(GraphError::no_object)
            }),
        };
        match number {
            Err(error) => error,
            Ok(Asking { caller, number }) => {
                let seen = caller.channel(&number.number);
                let is_parent = seen.is_some_and(|(seen, _)| seen.parent.as_ref() == Some(caller.service()));
                if is_parent {
                    GraphError::new(100, "The broker has no such request")
                } else {
                    GraphError::forbidden("only the parent service manages the number")
                }
            }
        }
    }

    /// Whose token it is, and the portal's numbers of the account.
    fn of_account(
        &self,
        request: &HttpRequest,
        id: &str,
    ) -> Result<(Who, Vec<Arc<FacadeNumber>>), GraphError> {
        let known = self.known();
        for who in self.who(&known, request)? {
            let own = |number: &&Arc<FacadeNumber>| {
                number.portal == who.portal && number.waba_id.as_deref() == Some(id)
            };
            let numbers: Vec<_> = known.numbers.iter().filter(own).cloned().collect();
            if !numbers.is_empty() {
                return Ok((who, numbers));
            }
        }
        Err(GraphError::no_object())
    }
}

fn keep_fields(known: &mut Value) {
    if let Some(fields) = known.as_object_mut() {
        fields.retain(|field, _| NUMBER_FIELDS.contains(&field.as_str()));
    }
}
