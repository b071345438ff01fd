//! The reference of all keys, generated from the structs and their comments.

use std::fmt::Write;

use serde_json::Value;

use super::Config;
use crate::budget::Budget;

pub fn schema() -> Value {
    schemars::schema_for!(Config).to_value()
}

/// One Markdown table a TOML table: key, default, meaning.
pub fn markdown() -> String {
    let schema = schema();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut out = String::from(
        "# Configuration\n\n\
         Generated from the code by `costhelm config reference`; do not edit.\n\n\
         Costhelm reads one TOML file. Every key has a default; an unknown key is an error that names file and line. The environment\n\
         overrides the file: `COSTHELM_` and the key in capitals, with `__` between tables, e.g. `COSTHELM_BUS__KAFKA__BROKERS`.\n\n",
    );
    table(&mut out, &schema, &schema, &defaults, "");
    out
}

fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    match schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#')) {
        Some(path) => root.pointer(path).unwrap_or(schema),
        None => schema,
    }
}

fn table(out: &mut String, root: &Value, schema: &Value, defaults: &Value, path: &str) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    let mut inner = Vec::new();
    let mut rows = String::new();
    for (name, property) in properties {
        let target = resolve(root, property);
        let default = defaults.get(name).unwrap_or(&Value::Null);
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let element = target.get("items").map(|items| resolve(root, items));
        if let Some(element) = element.filter(|element| element.get("properties").is_some()) {
            inner.push((format!("[[{path}]]"), path, element, element_defaults(name)));
        } else if target.get("properties").is_some() {
            inner.push((format!("[{path}]"), path, target, default.clone()));
        } else {
            let meaning = description(property).or_else(|| description(target)).unwrap_or_default();
            let default = match default {
                Value::Null => String::new(),
                value => format!("`{value}`"),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(rows, "| `{name}` | {default} | {meaning} |");
        }
    }
    if !rows.is_empty() {
        let _ = writeln!(out, "| key | default | meaning |\n| --- | --- | --- |\n{rows}");
    }
    for (heading, path, schema, defaults) in inner {
        let _ = writeln!(out, "## `{heading}`\n");
        if let Some(text) = description(schema) {
            let _ = writeln!(out, "{text}\n");
        }
        table(out, root, schema, &defaults, &path);
    }
}

/// What an entry of a list holds where it says nothing.
fn element_defaults(list: &str) -> Value {
    let shortest = match list {
        "budget" => {
            toml::from_str::<Budget>("id = \"\"\namount_usd = \"1\"").ok().and_then(|b| serde_json::to_value(b).ok())
        }
        _ => None,
    };
    let mut defaults = shortest.unwrap_or_default();
    if let Some(entries) = defaults.as_object_mut() {
        entries.remove("id");
        entries.remove("amount_usd");
    }
    defaults
}

fn description(schema: &Value) -> Option<String> {
    schema.get("description").and_then(Value::as_str).map(|text| text.replace('\n', " ").replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_the_docs_is_the_one_the_code_generates() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == markdown(), "run: cargo run -p costhelm -- config reference > docs/configuration.md");
    }

    #[test]
    fn every_key_has_a_meaning() {
        let text = markdown();
        let bare: Vec<_> = text.lines().filter(|line| line.starts_with("| `") && line.ends_with("|  |")).collect();
        assert!(bare.is_empty(), "{bare:#?}");
    }
}
