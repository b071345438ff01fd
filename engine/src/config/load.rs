//! Reading the configuration, and saying what is wrong with it by file and line.

use std::{fmt, path::Path};

use super::Config;
use crate::budget::validate_all;

/// Prefix of the environment variables that override keys; `__` separates tables: `COSTHELM_BUS__KAFKA__BROKERS`.
pub const ENV_PREFIX: &str = "COSTHELM_";
/// Variables with the prefix that are not keys.
const ENV_NOT_KEYS: [&str; 3] = ["COSTHELM_CACHE", "COSTHELM_CONFIG", "COSTHELM_LOG"];
/// Variables of the project's own tests.
const ENV_TEST_PREFIX: &str = "COSTHELM_TEST_";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `costhelm.toml:12:5`, or the name of an environment variable.
    pub place: String,
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// Reads a file and lets the environment override it.
pub fn load(path: &Path) -> Result<Config, Vec<ConfigError>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![ConfigError { place: name.clone(), problem: format!("cannot be read: {error}") }])?;
    let env = std::env::vars().filter(|(key, _)| {
        key.starts_with(ENV_PREFIX) && !key.starts_with(ENV_TEST_PREFIX) && !ENV_NOT_KEYS.contains(&key.as_str())
    });
    parse(&text, &name, env)
}

/// [`load`] with its inputs given.
pub fn parse(
    text: &str,
    name: &str,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, Vec<ConfigError>> {
    let at = |span: Option<std::ops::Range<usize>>| match span {
        Some(span) => {
            let before = &text[..span.start.min(text.len())];
            let line = before.matches('\n').count() + 1;
            let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1) + 1;
            format!("{name}:{line}:{column}")
        }
        None => name.to_owned(),
    };
    let mut config: Config = toml::from_str(text).map_err(|error| {
        vec![ConfigError { place: at(error.span()), problem: error.message().trim().replace('\n', "; ") }]
    })?;
    let env: Vec<_> = env.into_iter().collect();
    if !env.is_empty() {
        config = overridden(text, env)?;
    }
    validate(&config, text, name)?;
    Ok(config)
}

fn overridden(text: &str, env: Vec<(String, String)>) -> Result<Config, Vec<ConfigError>> {
    let mut table: toml::Table = toml::from_str(text).unwrap_or_default();
    for (variable, value) in env {
        let failed = |problem: String| vec![ConfigError { place: format!("environment variable {variable}"), problem }];
        let key = variable[ENV_PREFIX.len()..].to_ascii_lowercase();
        let keys: Vec<&str> = key.split("__").collect();
        // A value is TOML where it is valid TOML by itself, text otherwise: `4`, `true`, `["a.toml"]`, `kafka`.
        let parsed =
            toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut table| table.remove("v"));
        let attempts = parsed.into_iter().chain([toml::Value::String(value.clone())]);
        let mut problem = String::new();
        let accepted = attempts.map(|value| with_key(&table, &keys, value)).find(|candidate| {
            match Config::deserialize_table(candidate) {
                Ok(_) => true,
                Err(error) => {
                    problem = error;
                    false
                }
            }
        });
        match accepted {
            Some(next) => table = next,
            None => return Err(failed(format!("sets `{}` to {value:?}: {problem}", keys.join(".")))),
        }
    }
    Config::deserialize_table(&table).map_err(|problem| vec![ConfigError { place: "environment".into(), problem }])
}

impl Config {
    fn deserialize_table(table: &toml::Table) -> Result<Config, String> {
        table.clone().try_into().map_err(|error: toml::de::Error| error.message().trim().replace('\n', "; "))
    }
}

fn with_key(table: &toml::Table, keys: &[&str], value: toml::Value) -> toml::Table {
    let mut table = table.clone();
    let mut place = &mut table;
    for key in &keys[..keys.len() - 1] {
        let next = place.entry(*key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if !next.is_table() {
            *next = toml::Value::Table(toml::Table::new());
        }
        let toml::Value::Table(inner) = next else { unreachable!("made a table above") };
        place = inner;
    }
    place.insert(keys[keys.len() - 1].to_owned(), value);
    table
}

fn validate(config: &Config, text: &str, name: &str) -> Result<(), Vec<ConfigError>> {
    let line_of =
        |needle: &str| match text.lines().position(|line| line.split('#').next().unwrap_or("").contains(needle)) {
            Some(line) => format!("{name}:{}", line + 1),
            None => name.to_owned(),
        };
    let mut errors = Vec::new();
    let mut check = |holds: bool, key: &str, problem: String| {
        if !holds {
            errors.push(ConfigError { place: line_of(key), problem });
        }
    };
    let commit = &config.commit;
    check(
        (1..=10_000_000).contains(&commit.rows),
        "rows",
        format!("`commit.rows` is {}; expected 1 to 10000000", commit.rows),
    );
    let interval_ms = commit.interval.as_millis();
    check(
        (10..=60_000).contains(&interval_ms),
        "interval",
        format!("`commit.interval` is {interval_ms} ms; expected 10 ms to 60 s"),
    );
    check(
        config.bus.embedded.partitions >= 1 && config.bus.embedded.partitions <= 1024,
        "partitions",
        format!("`bus.embedded.partitions` is {}; expected 1 to 1024", config.bus.embedded.partitions),
    );
    check(
        config.dedup.ids_max >= 1000,
        "ids_max",
        format!("`dedup.ids_max` is {}; expected at least 1000", config.dedup.ids_max),
    );
    check(
        config.windows.cells_max >= 1000,
        "cells_max",
        format!("`windows.cells_max` is {}; expected at least 1000", config.windows.cells_max),
    );
    for (key, topic) in
        [("events", &config.topics.events), ("alerts", &config.topics.alerts), ("throttle", &config.topics.throttle)]
    {
        check(!topic.is_empty(), key, format!("`topics.{key}` is empty; expected a topic's name"));
    }
    check(
        config.prices.builtin || !config.prices.books.is_empty(),
        "builtin",
        "`prices.builtin` is false and `prices.books` is empty; expected at least one price book".into(),
    );
    if let Err(problems) = validate_all(&config.budgets) {
        errors.extend(problems.into_iter().map(|problem| ConfigError {
            place: line_of(&format!("\"{}\"", problem.budget)),
            problem: problem.to_string(),
        }));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> String {
        let errors = parse(text, "costhelm.toml", []).unwrap_err();
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    fn with_env(variable: &str, value: &str) -> Result<Config, Vec<ConfigError>> {
        parse("", "costhelm.toml", [(variable.to_owned(), value.to_owned())])
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(parse("", "costhelm.toml", []).unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_an_error_with_file_and_line() {
        let found = errors("[bus]\nkind = \"kafka\"\nbroker = \"x\"\n");
        assert!(found.starts_with("costhelm.toml:3:1: unknown field `broker`, expected"), "{found}");
    }

    #[test]
    fn a_wrong_value_is_an_error_with_file_and_line() {
        let found = errors("\n[commit]\ninterval = \"soon\"\n");
        assert!(found.starts_with("costhelm.toml:3:12: \"soon\" is no duration"), "{found}");
        let found = errors("[commit]\nrows = 0\n");
        assert_eq!(found, "costhelm.toml:2: `commit.rows` is 0; expected 1 to 10000000");
    }

    #[test]
    fn a_wrong_budget_is_an_error_at_its_line() {
        let found = errors("\n[[budget]]\nid = \"x\"\namount_usd = \"0\"\n");
        assert!(found.starts_with("costhelm.toml:3: "), "{found}");
        assert!(found.contains("amount_usd"), "{found}");
    }

    #[test]
    fn the_environment_overrides_keys_in_tables() {
        let config = with_env("COSTHELM_BUS__KAFKA__BROKERS", "10.0.0.1:9092").unwrap();
        assert_eq!(config.bus.kafka.brokers, "10.0.0.1:9092");
        let config = with_env("COSTHELM_COMMIT__ROWS", "1000").unwrap();
        assert_eq!(config.commit.rows, 1000);
        let config = with_env("COSTHELM_BUS__KIND", "kafka").unwrap();
        assert_eq!(config.bus.kind, super::super::BusKind::Kafka);
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let error = with_env("COSTHELM_COMIT__ROWS", "1000").unwrap_err().remove(0);
        assert_eq!(error.place, "environment variable COSTHELM_COMIT__ROWS");
        assert!(error.problem.contains("unknown field `comit`"), "{error}");
    }
}
