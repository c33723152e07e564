//! Whether a value fits a schema: as much of JSON Schema as the document uses, and nothing passes that it does not know.

use serde_json::Value;

/// Says what does not fit.
pub(crate) fn fits(schema: &Value, value: &Value, whole: &Value) -> Result<(), String> {
    for (word, wants) in schema.as_object().unwrap() {
        let holds = match word.as_str() {
            "$ref" => {
                let to = whole.pointer(wants.as_str().unwrap().strip_prefix('#').unwrap()).unwrap();
                fits(to, value, whole)?;
                true
            }
            "type" => match wants.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "null" => value.is_null(),
                "integer" => value.is_u64(),
                other => panic!("type {other}"),
            },
            "const" => value == wants,
            "enum" => wants.as_array().unwrap().contains(value),
            "minimum" => value.as_u64().is_none_or(|value| value >= wants.as_u64().unwrap()),
            "maximum" => value.as_u64().is_none_or(|value| value <= wants.as_u64().unwrap()),
            "minLength" => value.as_str().is_none_or(|text| text.len() as u64 >= wants.as_u64().unwrap()),
            "maxLength" => value.as_str().is_none_or(|text| text.len() as u64 <= wants.as_u64().unwrap()),
            "pattern" => value.as_str().is_none_or(|text| follows(wants.as_str().unwrap(), text)),
            "required" => {
                wants.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "properties" => {
                for (name, schema) in wants.as_object().unwrap() {
                    if let Some(member) = value.get(name) {
                        fits(schema, member, whole).map_err(|why| format!("{name}: {why}"))?;
                    }
                }
                true
            }
            "additionalProperties" => value
                .as_object()
                .is_some_and(|members| members.values().all(|member| fits(wants, member, whole).is_ok())),
            "items" => value
                .as_array()
                .is_some_and(|items| items.iter().all(|item| fits(wants, item, whole).is_ok())),
            "anyOf" => count(wants, value, whole) >= 1,
            "oneOf" => count(wants, value, whole) == 1,
            "allOf" => count(wants, value, whole) == wants.as_array().unwrap().len(),
            "description" => true,
            other => panic!("the document uses {other}, which nobody checks"),
        };
        if !holds {
            return Err(format!("{word} {wants}, not {value}"));
        }
    }
    Ok(())
}

fn count(schemas: &Value, value: &Value, whole: &Value) -> usize {
    schemas.as_array().unwrap().iter().filter(|schema| fits(schema, value, whole).is_ok()).count()
}

/// Patterns of the shape `^prefix[class]{from,to}$`, which are all that there are.
fn follows(pattern: &str, text: &str) -> bool {
    let (prefix, rest) = pattern.strip_prefix('^').unwrap().split_once('[').unwrap();
    let (class, rest) = rest.split_once("]{").unwrap();
    let range = rest.strip_suffix("}$").unwrap();
    let (from, to) = range.split_once(',').unwrap_or((range, range));
    let Some(rest) = text.strip_prefix(&prefix.replace('\\', "")) else { return false };
    let mut classes = Vec::new();
    let letters: Vec<char> = class.chars().collect();
    let mut at = 0;
    while at < letters.len() {
        let is_range = letters.get(at + 1) == Some(&'-') && at + 2 < letters.len();
        classes.push((letters[at], if is_range { letters[at + 2] } else { letters[at] }));
        at += if is_range { 3 } else { 1 };
    }
    let length = rest.chars().count();
    (from.parse::<usize>().unwrap()..=to.parse().unwrap()).contains(&length)
        && rest.chars().all(|letter| classes.iter().any(|(from, to)| (*from..=*to).contains(&letter)))
}
