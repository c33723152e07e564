//! The AsyncAPI document, from the code's tables of variants and words and the protocol document's table of objects.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sharedline::wire::codec::REQUEST_ID_MAX;
use sharedline::wire::message::{Delivery, Request, Response, VariantInfo, word_sets};

use crate::document::part;

/// Fields that may be left out in JSON though binary always has them: the message or object, and the field.
const WITH_DEFAULT: [(&str, &str); 10] = [
    ("hello", "window"),
    ("hello", "deliver"),
    ("hello", "from"),
    ("roster", "remove"),
    ("create_channel", "backfill"),
    ("activate_channel", "backfill"),
    ("open", "limit"),
    ("release", "force"),
    ("transfer", "force"),
    ("agent", "lead"),
];

/// What answers a request, beside `error`.
const ANSWERS: [(&str, &[&str]); 22] = [
    ("hello", &["welcome"]),
    ("roster", &["ok"]),
    ("create_channel", &["channel"]),
    ("activate_channel", &["channel"]),
    ("deactivate_channel", &["channel"]),
    ("delete_channel", &["channel"]),
    ("get_channel", &["channel"]),
    ("list_channels", &["channels"]),
    ("list_conversations", &["conversations"]),
    ("configure_channel", &["channel"]),
    ("open", &["conversation"]),
    ("pick_up", &["picked_up", "warning"]),
    ("release", &["ok"]),
    ("transfer", &["picked_up"]),
    ("reply", &["accepted", "warning"]),
    ("presence", &["ok"]),
    ("ping", &["pong"]),
    ("inbound", &["accepted.9"]),
    ("status", &["ok"]),
    ("sent", &["ok"]),
    ("thread_control", &["thread"]),
    ("thread_owner", &["thread"]),
];

/// A message's key in the document. Where two share a name the later one's has its number.
pub(crate) fn key(sort: &str, name: &str, number: u32) -> String {
    match (sort, number) {
        ("request", 23) | ("response", 9) | ("delivery", 26..=28) => format!("{sort}.{name}.{number}"),
        _ => format!("{sort}.{name}"),
    }
}

fn reference(to: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{}", to.replace(' ', "_"))})
}

/// The schemas of kinds that are one value.
fn values() -> BTreeMap<&'static str, Value> {
    let id = || json!({"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"});
    let position = || json!({"type": "integer", "minimum": 0});
    BTreeMap::from([
        ("bool", json!({"type": "boolean"})),
        ("flag", json!({"const": true, "description": "Left out where it is false."})),
        ("u32", json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})),
        ("u64", position()),
        ("text", json!({"type": "string"})),
        ("name", json!({"type": "string", "maxLength": 256, "description": "At most 256 bytes."})),
        ("offset", json!({"type": "integer", "minimum": 0, "description": "A position in a channel."})),
        (
            "time",
            json!({"type": "integer", "minimum": 0, "description": "Milliseconds since the Unix epoch, UTC."}),
        ),
        ("number", json!({"type": "string", "pattern": "^\\+[0-9]{7,15}$"})),
        ("portal id", id()),
        ("service id", id()),
        ("gateway id", id()),
        ("adapter name", id()),
        (
            "agent id",
            json!({"type": "string", "minLength": 1, "maxLength": 128, "description": "1 to 128 bytes."}),
        ),
        (
            "reply id",
            json!({"type": "string", "minLength": 1, "maxLength": 128, "description": "1 to 128 bytes; not `echo:…`."}),
        ),
        ("message id", json!({"type": "string", "minLength": 1, "maxLength": 256})),
        ("customer id", json!({"type": "string", "minLength": 1, "maxLength": 192})),
        ("channel id", json!({"type": "string", "pattern": "^ch-[0-9a-f]{32}$"})),
        ("conversation id", json!({"type": "string", "pattern": "^cv-[0-9a-f]{16}$"})),
        ("parent", json!({"anyOf": [reference("service id"), {"type": "null"}]})),
        ("positions", json!({"type": "object", "additionalProperties": reference("offset")})),
        (
            "content",
            json!({
                "type": "object", "required": ["type"], "properties": {"type": {"type": "string"}},
                "description": "A message object of WhatsApp's Cloud API, passed on as it came.",
            }),
        ),
    ])
}

/// The objects of the protocol document's last table, each with its fields.
fn objects() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    let rows = part("### Objects and choices").lines().filter_map(|line| line.strip_prefix("| "));
    let fields = |text: &'static str| -> Vec<(&'static str, &'static str)> {
        let text = text.split(". In ").next().unwrap().trim_end_matches(" |");
        text.split(", ").filter_map(|field| field.strip_prefix('`')?.split_once("`: ")).collect()
    };
    rows.filter_map(|row| row.split_once(" | "))
        .map(|(kind, text)| (kind, fields(text)))
        .filter(|(_, fields)| !fields.is_empty())
        .collect()
}

/// A schema for an object or message under construction.
struct Shape {
    properties: Map<String, Value>,
    required: Vec<String>,
    /// Of each set exactly one is there.
    choices: Vec<Value>,
}

impl Shape {
    fn new() -> Self {
        Self { properties: Map::new(), required: Vec::new(), choices: Vec::new() }
    }

    fn put(&mut self, name: &str, schema: Value, is_required: bool) {
        let schema = if is_required { schema } else { json!({"anyOf": [schema, {"type": "null"}]}) };
        self.properties.insert(name.to_owned(), schema);
        if is_required {
            self.required.push(name.to_owned());
        }
    }

    /// Alternatives, each with the fields that it has in JSON.
    fn choose(&mut self, alternatives: &[&[(&str, &str)]]) {
        for (name, kind) in alternatives.iter().copied().flatten() {
            self.properties.insert((*name).to_owned(), reference(kind));
        }
        let names = |fields: &&[(&str, &str)]| json!({"required": fields.iter().map(|(name, _)| *name).collect::<Vec<_>>()});
        self.choices.push(json!({"oneOf": alternatives.iter().map(names).collect::<Vec<_>>()}));
    }

    fn field(&mut self, of: &str, name: &str, kind: &str) {
        match kind {
            // A gateway may leave out its connection's name, a service may not.
            "who" => self.choose(&[
                &[("service", "service id"), ("adapter", "adapter name")],
                &[("gateway", "gateway id")],
            ]),
            "content" if of == "notice" => {
                self.put(name, json!({"description": "The change's value, as Meta sent it."}), true);
            }
            "content" if name == "details" => {
                let told = "The other members of WhatsApp's status object, as Meta sent them.";
                self.put(name, json!({"description": told, "type": "object"}), true);
            }
            "content" if name == "contact" => {
                let told = "The other members of WhatsApp's object about the customer, as Meta sent them.";
                self.put(name, json!({"description": told, "type": "object"}), true);
            }
            "addressee" => self.choose(&[&[("conversation", "conversation id")], &[("to", "customer id")]]),
            "status of" => self.choose(&[
                &[("channel", "channel id"), ("offset", "offset")],
                &[("message_id", "message id")],
            ]),
            "sent outcome" => self.choose(&[
                &[("message_id", "message id")],
                &[("error", "status error"), ("definite", "bool")],
            ]),
            "window" => {
                self.put("window", reference("window state"), true);
                self.put("window_expires_at", reference("time"), false);
            }
            "channel" if name == "seen" => {
                let (_, fields) = objects().into_iter().find(|(kind, _)| *kind == "channel").unwrap();
                fields.iter().for_each(|(name, kind)| self.field("channel", name, kind));
            }
            kind => {
                let plain = kind.trim_end_matches('?');
                let has_default = WITH_DEFAULT.contains(&(of, name));
                let schema = match plain.strip_prefix('[').and_then(|plain| plain.strip_suffix(']')) {
                    Some(element) => json!({"type": "array", "items": reference(element)}),
                    None => reference(plain),
                };
                self.put(name, schema, plain == kind && !has_default && kind != "flag");
            }
        }
    }

    fn schema(self) -> Value {
        let mut schema = json!({"type": "object", "required": self.required, "properties": self.properties});
        if !self.choices.is_empty() {
            schema["allOf"] = Value::from(self.choices);
        }
        schema
    }
}

fn message(sort: &str, variant: &VariantInfo) -> Value {
    let mut shape = Shape::new();
    shape.put("type", json!({"const": variant.name}), true);
    let id = json!({"type": "integer", "minimum": 1, "maximum": REQUEST_ID_MAX});
    match (sort, variant.name) {
        ("request", "ack") | ("delivery", _) | (_, "goaway") => {}
        ("response", "error") => shape.put("id", id, false),
        ("request", _) => shape.put("id", id, true),
        _ => shape.put("id", id, false),
    }
    variant.fields.iter().for_each(|field| shape.field(variant.name, field.name, &field.kind));
    json!({"name": variant.name, "x-binary-variant": variant.number, "payload": shape.schema()})
}

fn schemas() -> Map<String, Value> {
    let mut schemas: Map<String, Value> =
        values().into_iter().map(|(kind, schema)| (kind.replace(' ', "_"), schema)).collect();
    for (set, words) in word_sets() {
        let words: Vec<&str> = words.iter().map(|(_, word)| *word).collect();
        schemas.insert(set.replace(' ', "_"), json!({"type": "string", "enum": words}));
    }
    for (kind, fields) in objects() {
        let mut shape = Shape::new();
        fields.iter().for_each(|(name, of)| shape.field(kind, name, of));
        schemas.insert(kind.replace(' ', "_"), shape.schema());
    }
    let payload = |variant: &VariantInfo| {
        let key = key("delivery", variant.name, variant.number);
        json!({"$ref": format!("#/components/messages/{key}/payload")})
    };
    let deliveries: Vec<Value> = Delivery::variants().iter().map(payload).collect();
    schemas.insert("delivery".to_owned(), json!({"anyOf": deliveries}));
    schemas
}

fn operations() -> Map<String, Value> {
    let at = |key: String| json!({"$ref": format!("#/channels/session/messages/{key}")});
    let channel = || json!({"$ref": "#/channels/session"});
    let mut operations = Map::<String, Value>::new();
    for variant in Request::variants() {
        let request = at(key("request", variant.name, variant.number));
        if let Some(older) = operations.get_mut(variant.name) {
            older["messages"].as_array_mut().unwrap().push(request);
            continue;
        }
        let mut operation = json!({"action": "receive", "channel": channel(), "messages": [request]});
        // Whatever is not listed here is never answered.
        if let Some((_, answers)) = ANSWERS.iter().find(|(name, _)| *name == variant.name) {
            let answers = answers.iter().chain(&["error"]).map(|name| at(format!("response.{name}")));
            operation["reply"] = json!({"channel": channel(), "messages": answers.collect::<Vec<_>>()});
        }
        operations.insert(variant.name.to_owned(), operation);
    }
    let mut own: Vec<Value> = Delivery::variants()
        .iter()
        .map(|variant| at(key("delivery", variant.name, variant.number)))
        .collect();
    own.extend([at("response.goaway".to_owned()), at("response.error".to_owned())]);
    operations.insert("deliver".to_owned(), json!({"action": "send", "channel": channel(), "messages": own}));
    operations
}

/// The whole document.
pub(crate) fn document() -> Value {
    let sorts = [
        ("request", Request::variants()),
        ("response", Response::variants()),
        ("delivery", Delivery::variants()),
    ];
    let mut messages = Map::new();
    for (sort, variants) in &sorts {
        for variant in variants {
            messages.insert(key(sort, variant.name, variant.number), message(sort, variant));
        }
    }
    let of_channel = |key: &String| (key.clone(), json!({"$ref": format!("#/components/messages/{key}")}));
    let in_channel: Map<String, Value> = messages.keys().map(of_channel).collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "sharedline: adapters and gateways",
            "version": "1",
            "description": "The messages of docs/protocol.md, which says what they mean, in JSON: one a line over TCP, one a text frame over WebSocket. Operations are the broker's: it receives requests and sends what answers them, and deliveries. The same messages travel in binary over TCP, as the protocol document describes; x-binary-variant is a message's number there.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "tcp": {"host": "127.0.0.1:7411", "protocol": "tcp", "description": "JSON lines."},
            "websocket": {"host": "127.0.0.1:7412", "pathname": "/v1/ws", "protocol": "ws", "description": "Text frames."},
        },
        "channels": {"session": {
            "address": null,
            "description": "One connection, from hello to its end. The first message is hello.",
            "messages": in_channel,
        }},
        "operations": operations(),
        "components": {"messages": messages, "schemas": schemas()},
    })
}
