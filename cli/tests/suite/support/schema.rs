//! Validates JSON by the keywords of JSON Schema that the schemas of this command use.

use serde_json::{Map, Value};

/// Panics if `value` is not what the schema of `command` describes.
#[track_caller]
pub fn check(command: &str, value: &Value) {
    let path = format!("{}/schema/{command}.json", env!("CARGO_MANIFEST_DIR"));
    let schema = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    if let Err(problem) = validate(&schema, value, "$") {
        panic!("{command}: {problem}: {value:#}");
    }
}

fn validate(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    for (keyword, wanted) in schema.as_object().unwrap() {
        let is_valid = match keyword.as_str() {
            "$schema" | "title" | "description" => true,
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|it| is_of(value, it.as_str().unwrap())),
                one => is_of(value, one.as_str().unwrap()),
            },
            "required" => match value.as_object() {
                Some(object) => {
                    let names = wanted.as_array().unwrap();
                    names
                        .iter()
                        .all(|name| object.contains_key(name.as_str().unwrap()))
                }
                None => true,
            },
            "additionalProperties" => match value.as_object() {
                Some(object) => has_only(object, schema["properties"].as_object().unwrap()),
                None => true,
            },
            "properties" => {
                for (name, schema) in wanted.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        validate(schema, value, &format!("{path}.{name}"))?;
                    }
                }
                true
            }
            "items" => {
                for (at, value) in value.as_array().unwrap().iter().enumerate() {
                    validate(wanted, value, &format!("{path}[{at}]"))?;
                }
                true
            }
            other => return Err(format!("the keyword {other} is not checked")),
        };
        if !is_valid {
            return Err(format!("{path} is not valid by {keyword}: {wanted}"));
        }
    }
    Ok(())
}

fn has_only(object: &Map<String, Value>, properties: &Map<String, Value>) -> bool {
    object.keys().all(|name| properties.contains_key(name))
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}
