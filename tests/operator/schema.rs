//! As much of JSON Schema as the description uses, so that answers can be held to it. A word that is not known fails.

use serde_json::Value;

/// What in `value` is not as `schema` says, in words; nothing if all is.
pub(crate) fn offence(document: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).expect(reference);
        return offence(document, target, value, at);
    }
    for word in schema.as_object().unwrap().keys() {
        let known = [
            "type",
            "properties",
            "required",
            "additionalProperties",
            "items",
            "enum",
            "const",
            "pattern",
            "minimum",
            "description",
        ];
        assert!(known.contains(&word.as_str()), "{at}: {word} is not looked at");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().map(|one| one.as_str().unwrap()).collect(),
        other => panic!("{at}: {other}"),
    };
    if !types.iter().any(|wanted| is_of(wanted, value)) {
        return Some(format!("{at}: {value} is not of {types:?}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Some(format!("{at}: {value} is none of {allowed:?}"));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Some(format!("{at}: {value} is not {}", schema["const"]));
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !fits(pattern, text)
    {
        return Some(format!("{at}: {text} is not like {pattern}"));
    }
    if schema["minimum"] == 0 && value.as_i64().is_some_and(|number| number < 0) {
        return Some(format!("{at}: {value} is below 0"));
    }
    match value {
        Value::Array(items) if !schema["items"].is_null() => {
            let all = items.iter().enumerate();
            all.into_iter()
                .find_map(|(i, item)| offence(document, &schema["items"], item, &format!("{at}[{i}]")))
        }
        Value::Object(fields) => {
            let properties = &schema["properties"];
            let required = schema["required"].as_array().into_iter().flatten();
            for name in required.map(|name| name.as_str().unwrap()) {
                if !fields.contains_key(name) {
                    return Some(format!("{at}: {name} is missing"));
                }
            }
            fields.iter().find_map(|(name, field)| match properties.get(name) {
                Some(property) => offence(document, property, field, &format!("{at}.{name}")),
                None if schema["additionalProperties"] == false => {
                    Some(format!("{at}: {name} is not described"))
                }
                None => None,
            })
        }
        _ => None,
    }
}

fn is_of(wanted: &str, value: &Value) -> bool {
    match wanted {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("the type {other} is not known"),
    }
}

/// Ids are all that has a pattern: a prefix and so many hexadecimal digits.
fn fits(pattern: &str, text: &str) -> bool {
    let (prefix, digits) = pattern.trim_matches(['^', '$']).split_once("[0-9a-f]").unwrap();
    let digits: usize = digits.trim_matches(['{', '}']).parse().unwrap();
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.strip_prefix(prefix).is_some_and(|rest| rest.len() == digits && rest.chars().all(is_hex))
}

#[test]
fn the_reader_of_schemas_sees_what_is_wrong() {
    let document: Value = serde_json::json!({"x": {"type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {"a": {"type": "string", "pattern": "^ch-[0-9a-f]{4}$"}, "b": {"type": ["integer", "null"], "minimum": 0},
            "c": {"type": "array", "items": {"type": "string", "enum": ["one"]}}, "d": {"type": "string", "const": "d"}}}});
    let schema = serde_json::json!({"$ref": "#/x"});
    let found = |value: Value| offence(&document, &schema, &value, "it");
    assert_eq!(found(serde_json::json!({"a": "ch-00af", "b": null, "c": ["one"], "d": "d"})), None);
    for wrong in [
        serde_json::json!([]),
        serde_json::json!({"b": 1}),
        serde_json::json!({"a": "ch-00aF"}),
        serde_json::json!({"a": "ch-00af", "b": -1}),
        serde_json::json!({"a": "ch-00af", "b": "1"}),
        serde_json::json!({"a": "ch-00af", "c": ["two"]}),
        serde_json::json!({"a": "ch-00af", "d": "e"}),
        serde_json::json!({"a": "ch-00af", "e": 1}),
    ] {
        assert!(found(wrong.clone()).is_some(), "{wrong}");
    }
}
