//! Whose a conversation's thread is, in the words of Meta's conversation routing: `thread_control` notes it,
//! `thread_owner`, which Meta has not, says it (B18).
//!
//! **Invariants:** a note is advice, so nothing here is refused for what somebody else has noted; of another service's
//! note an answer says that there is one and no more.

use std::sync::Arc;

use actix_web::HttpRequest;
use serde_json::{Map, Value, json};

use super::auth::parameters_of;
use super::errors::{GraphError, trace_id};
use super::message::{addressee, named};
use super::routes::{Answer, read_body};
use super::{Asking, Facade};
use crate::actors::Ask;
use crate::actors::port::{Answered, Refusal};
use crate::config::Config;
use crate::domain::channel::METADATA_CHARS_MAX;
use crate::domain::command::{
    Addressee, ChannelSeen, Command, Rejection, ThreadAsked, ThreadCommand, ThreadSeen,
};
use crate::domain::ids::{CustomerName, PortalId, ServiceId};
use crate::gateway::body::UnreadBody;
use crate::gateway::json::Object;
use crate::gateway::text::seconds;

/// Largest body, in bytes: the longest metadata with every character escaped, and room for the rest.
const BODY_BYTES_MAX: usize = METADATA_CHARS_MAX * 12 + (4 << 10);
/// To whom a thread goes that is passed to nobody in particular, as Meta has it.
const ROLE_DEFAULT: &str = "escalation";

/// Which service of which portal takes part in which role.
#[derive(Debug)]
pub(super) struct Roles(Vec<(PortalId, ServiceId, String)>);

impl Roles {
    /// As the configuration says.
    pub(super) fn of(config: &Config) -> Self {
        let of_portal = |portal: &crate::config::Portal| {
            let id = portal.rules.portal.clone();
            let with_portal =
                move |(service, role): &(ServiceId, String)| (id.clone(), service.clone(), role.clone());
            portal.thread_roles.iter().map(with_portal).collect::<Vec<_>>()
        };
        Self(config.portals.iter().flat_map(of_portal).collect())
    }

    /// The role of a service.
    pub(super) fn of_service(&self, portal: &PortalId, service: &ServiceId) -> Option<&str> {
        let is_it = |entry: &&(PortalId, ServiceId, String)| entry.0 == *portal && entry.1 == *service;
        self.0.iter().find(is_it).map(|(_, _, role)| role.as_str())
    }

    fn service_in(&self, portal: &PortalId, role: &str) -> Option<&ServiceId> {
        let is_it = |entry: &&(PortalId, ServiceId, String)| entry.0 == *portal && entry.2 == role;
        self.0.iter().find(is_it).map(|(_, service, _)| service)
    }
}

/// What a body of `thread_control` asks for.
#[derive(Debug, PartialEq)]
struct Control {
    to: CustomerName,
    verb: Verb,
    metadata: Option<Arc<str>>,
}

#[derive(Debug, PartialEq)]
enum Verb {
    Take,
    Pass(Target),
    Release,
}

/// To whom a thread is passed.
#[derive(Debug, PartialEq)]
enum Target {
    Role(String),
    Service(ServiceId),
}

impl Facade {
    /// Notes whose a customer's thread is.
    pub(super) async fn thread_control(
        &self,
        request: &HttpRequest,
        unread: &mut UnreadBody,
        id: &str,
    ) -> Answer {
        let asking = self.asking(request, id)?;
        let body = read_body(unread, BODY_BYTES_MAX).await?;
        let control = read(&body)?;
        let seen = channel_of(&asking)?;
        let asked = match control.verb {
            Verb::Take => ThreadAsked::Take { metadata: control.metadata },
            Verb::Release => ThreadAsked::Release,
            Verb::Pass(target) => {
                ThreadAsked::Pass { to: self.target(&asking, &seen, target)?, metadata: control.metadata }
            }
        };
        let command = ThreadCommand {
            service: asking.caller.service().clone(),
            of: Addressee::Customer(control.to),
            agent: None,
            asked,
        };
        match asking.caller.ask(seen.channel, Ask::from(Command::Thread(command)), body.len()).await {
            Answered::Thread { .. } => {
                Ok(json!({ "messaging_product": "whatsapp", "request_id": trace_id() }))
            }
            other => Err(refused(other)),
        }
    }

    /// Says whose a customer's thread is.
    pub(super) async fn thread_owner(&self, request: &HttpRequest, id: &str) -> Answer {
        let asking = self.asking(request, id)?;
        let parameters = parameters_of(request);
        let given = parameters.iter().find(|(key, _)| matches!(key.as_str(), "to" | "recipient"));
        let (_, to) = given.ok_or_else(|| GraphError::bad_parameter("to or recipient is needed"))?;
        let of = Addressee::Customer(named(to.trim())?);
        let seen = channel_of(&asking)?;
        let ask = Ask::ThreadOwner { service: asking.caller.service().clone(), of };
        match asking.caller.ask(seen.channel, ask, 1).await {
            Answered::Thread { thread, .. } => Ok(owner(&thread)),
            other => Err(refused(other)),
        }
    }

    /// Who gets it: a subscriber of the channel.
    fn target(&self, asking: &Asking, seen: &ChannelSeen, target: Target) -> Result<ServiceId, GraphError> {
        let service = match target {
            Target::Service(service) => Some(service),
            Target::Role(role) => self.known().roles.service_in(asking.caller.portal(), &role).cloned(),
        };
        service.filter(|service| seen.subscribers.contains(service)).ok_or_else(|| {
            GraphError::bad_parameter("no service that shares the number takes part under that name")
        })
    }
}

/// The number's channel. Nobody joins one by asking whose a thread is.
fn channel_of(asking: &Asking) -> Result<ChannelSeen, GraphError> {
    asking.caller.channel(&asking.number.number).map(|(seen, _)| seen).ok_or_else(GraphError::no_object)
}

fn refused(answered: Answered) -> GraphError {
    match answered {
        Answered::Refused(Refusal::NotFound | Refusal::Rejected(Rejection::NotFound)) => {
            GraphError::no_object().with("nobody has a conversation with this customer here")
        }
        Answered::Refused(refusal) => refusal.into(),
        _ => GraphError::unavailable("the broker gave no answer"),
    }
}

fn owner(thread: &ThreadSeen) -> Value {
    let mut told = Map::from_iter([("messaging_product".to_owned(), json!("whatsapp"))]);
    let word = match thread {
        ThreadSeen::Nobody => "none",
        ThreadSeen::Another => "another",
        ThreadSeen::Own { .. } => "self",
    };
    told.insert("owner".to_owned(), json!(word));
    if let ThreadSeen::Own { since, until, metadata } = thread {
        told.insert("since".to_owned(), json!(seconds(*since)));
        told.insert("until".to_owned(), json!(seconds(*until)));
        if let Some(metadata) = metadata {
            told.insert("metadata".to_owned(), json!(&**metadata));
        }
    }
    Value::Object(told)
}

fn read(body: &[u8]) -> Result<Control, GraphError> {
    let wrong = GraphError::bad_parameter;
    let text = std::str::from_utf8(body).map_err(|_| wrong("the body is not utf-8"))?;
    let object = Object::read(text).ok_or_else(|| wrong("the body is no JSON object"))?;
    if object.text("messaging_product").as_deref() != Some("whatsapp") {
        return Err(wrong("messaging_product must be whatsapp"));
    }
    let (_, to) = addressee(&object)?;
    let verb = match object.text("action").as_deref() {
        Some("take") => Verb::Take,
        Some("release") => Verb::Release,
        Some("pass") => Verb::Pass(target_of(&object)?),
        _ => return Err(wrong("action must be pass, release or take")),
    };
    if !matches!(verb, Verb::Pass(_)) && object.get("control_pass").is_some() {
        return Err(wrong("control_pass goes with the action pass"));
    }
    let metadata = object.text("metadata");
    if object.get("metadata").is_some() && metadata.is_none() {
        return Err(wrong("metadata must be a string"));
    }
    if metadata.as_ref().is_some_and(|metadata| metadata.chars().count() > METADATA_CHARS_MAX) {
        return Err(GraphError::bad_parameter(format!(
            "metadata has at most {METADATA_CHARS_MAX} characters"
        )));
    }
    Ok(Control { to, verb, metadata: metadata.map(|metadata| Arc::from(&*metadata)) })
}

fn target_of(object: &Object<'_>) -> Result<Target, GraphError> {
    let wrong = GraphError::bad_parameter;
    let Some(pass) = object.object("control_pass") else {
        return match object.get("control_pass") {
            None => Ok(Target::Role(ROLE_DEFAULT.to_owned())),
            Some(_) => Err(wrong("control_pass must be an object")),
        };
    };
    match (pass.text("target_role"), pass.text("target_service")) {
        (Some(role), None) => Ok(Target::Role(role.into_owned())),
        (None, Some(service)) => {
            service.parse().map(Target::Service).map_err(|_| wrong("target_service is no service's id"))
        }
        (Some(_), Some(_)) | (None, None) => {
            Err(wrong("control_pass has either a target_role or a target_service"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Timestamp;

    fn with(fields: &str) -> Result<Control, GraphError> {
        read(format!(r#"{{"messaging_product":"whatsapp","to":"+1 650 555 1234",{fields}}}"#).as_bytes())
    }

    #[test]
    fn a_thread_is_taken_released_or_passed_to_a_role_or_a_service() {
        let control = |verb| Control { to: CustomerName::trusted("16505551234"), verb, metadata: None };
        assert_eq!(with(r#""action":"take""#), Ok(control(Verb::Take)));
        assert_eq!(with(r#""action":"release","control_pass":null"#), Ok(control(Verb::Release)));
        let to_role = |role: &str| control(Verb::Pass(Target::Role(role.to_owned())));
        assert_eq!(with(r#""action":"pass""#), Ok(to_role("escalation")), "as Meta has it");
        let role = r#""action":"pass","control_pass":{"target_role":"ai_agent"}"#;
        assert_eq!(with(role), Ok(to_role("ai_agent")));
        let to_service = control(Verb::Pass(Target::Service(ServiceId::trusted("desk"))));
        assert_eq!(with(r#""action":"pass","control_pass":{"target_service":"desk"}"#), Ok(to_service));
        let handed = with(r#""action":"take","metadata":"caf\u00e9","new":1"#).unwrap();
        assert_eq!(handed.metadata.as_deref(), Some("café"));
        let by_user_id = r#"{"messaging_product":"whatsapp","recipient":"US.1","action":"take"}"#;
        assert_eq!(read(by_user_id.as_bytes()).unwrap().to.as_str(), "US.1");
    }

    #[test]
    fn what_is_no_such_request_is_refused() {
        for wrong in [
            r#""x":1"#.to_owned(),
            r#""action":"request""#.to_owned(),
            r#""action":"take","control_pass":{"target_role":"ai_agent"}"#.to_owned(),
            r#""action":"pass","control_pass":"ai_agent""#.to_owned(),
            r#""action":"pass","control_pass":{}"#.to_owned(),
            r#""action":"pass","control_pass":{"target_role":"a","target_service":"b"}"#.to_owned(),
            r#""action":"pass","control_pass":{"target_service":"no id"}"#.to_owned(),
            r#""action":"take","metadata":{}"#.to_owned(),
            format!(r#""action":"take","metadata":"{}""#, "x".repeat(METADATA_CHARS_MAX + 1)),
        ] {
            assert!(with(&wrong).is_err(), "{wrong}");
        }
        for wrong in
            ["", "[]", r#"{"to":"1","action":"take"}"#, r#"{"messaging_product":"whatsapp","action":"take"}"#]
        {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(with(&format!(r#""action":"take","metadata":"{}""#, "ü".repeat(METADATA_CHARS_MAX))).is_ok());
    }

    #[test]
    fn of_anothers_thread_an_answer_says_that_it_is_anothers() {
        let own = ThreadSeen::Own {
            since: Timestamp(1_750_000_000_999),
            until: Timestamp(1_750_086_400_000),
            metadata: Some(Arc::from("m")),
        };
        let told = json!({
            "messaging_product": "whatsapp", "owner": "self", "since": "1750000000", "until": "1750086400",
            "metadata": "m",
        });
        assert_eq!(owner(&own), told);
        assert_eq!(owner(&ThreadSeen::Another), json!({"messaging_product": "whatsapp", "owner": "another"}));
        assert_eq!(owner(&ThreadSeen::Nobody), json!({"messaging_product": "whatsapp", "owner": "none"}));
    }
}
