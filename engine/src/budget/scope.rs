//! Whom a budget covers. A [`Scope`] names some fields of the hierarchy; an event belongs to it when every named
//! field is equal. Its [`Scope::key`] is the Kafka key of the compacted throttle topic, so one scope has exactly one
//! spelling.
//!
//! Limits: 6 fields, a value at most 256 bytes (checked by [`super::Budget::validate`]).

use std::fmt::Write as _;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The field names of a scope, outermost first: the order in which [`Scope::key`] writes them.
pub const SCOPE_FIELDS: [&str; 6] =
    ["environment", "org_id", "business_unit_id", "team_id", "project_id", "agent_role"];

/// Which events count: all given fields must match, a field left out matches anything, no field at all matches every
/// event.
// Unknown fields are refused in commands too: a reader that skipped a field it does not know would throttle too widely.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    /// Deployment environment, e.g. `prod`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
    /// Business unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub business_unit_id: Option<String>,
    /// Team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    /// Project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// Role of the agent, e.g. `worker`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_role: Option<String>,
}

/// The same six fields of one event or one agent, borrowed; an empty string means the field is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScopeOf<'a> {
    pub environment: &'a str,
    pub org_id: &'a str,
    pub business_unit_id: &'a str,
    pub team_id: &'a str,
    pub project_id: &'a str,
    pub agent_role: &'a str,
}

impl ScopeOf<'_> {
    fn values(&self) -> [&str; 6] {
        [self.environment, self.org_id, self.business_unit_id, self.team_id, self.project_id, self.agent_role]
    }
}

impl Scope {
    /// The values in the order of [`SCOPE_FIELDS`].
    pub fn values(&self) -> [Option<&str>; 6] {
        [&self.environment, &self.org_id, &self.business_unit_id, &self.team_id, &self.project_id, &self.agent_role]
            .map(|value| value.as_deref())
    }

    /// Whether an event (or agent) with these fields belongs to the scope.
    pub fn matches(&self, of: &ScopeOf<'_>) -> bool {
        self.values().iter().zip(of.values()).all(|(want, have)| want.is_none_or(|want| want == have))
    }

    /// Whether every event that matches `other` matches this scope too.
    pub fn covers(&self, other: &Scope) -> bool {
        self.values().iter().zip(other.values()).all(|(want, have)| want.is_none() || *want == have)
    }

    /// The canonical spelling: `environment=prod/project_id=x`, or `*` for everything. `%`, `/`, `=` and control
    /// characters in a value are percent-encoded, so that different scopes never share a key.
    pub fn key(&self) -> String {
        let mut key = String::new();
        for (name, value) in SCOPE_FIELDS.iter().zip(self.values()) {
            let Some(value) = value else { continue };
            if !key.is_empty() {
                key.push('/');
            }
            key.push_str(name);
            key.push('=');
            for c in value.chars() {
                if matches!(c, '%' | '/' | '=') || c.is_ascii_control() {
                    // Writing to a String cannot fail.
                    let _ = write!(key, "%{:02X}", u32::from(c));
                } else {
                    key.push(c);
                }
            }
        }
        if key.is_empty() { "*".to_owned() } else { key }
    }
}

/// A text that is not a scope key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "scope key {0:?}: expected \"*\" or name=value pairs joined by \"/\", names in the order {order}, \"%\", \"/\", \"=\" in \
     values percent-encoded",
    order = SCOPE_FIELDS.join(", ")
)]
pub struct ScopeKeyError(String);

impl FromStr for Scope {
    type Err = ScopeKeyError;

    /// Reads back what [`Scope::key`] wrote; any other spelling of the same scope is refused.
    fn from_str(key: &str) -> Result<Self, Self::Err> {
        let refuse = || ScopeKeyError(key.to_owned());
        let mut scope = Scope::default();
        if key == "*" {
            return Ok(scope);
        }
        for pair in key.split('/') {
            let (name, value) = pair.split_once('=').ok_or_else(refuse)?;
            let slot = match name {
                "environment" => &mut scope.environment,
                "org_id" => &mut scope.org_id,
                "business_unit_id" => &mut scope.business_unit_id,
                "team_id" => &mut scope.team_id,
                "project_id" => &mut scope.project_id,
                "agent_role" => &mut scope.agent_role,
                _ => return Err(refuse()),
            };
            *slot = Some(unescape(value).ok_or_else(refuse)?);
        }
        if scope.key() == key { Ok(scope) } else { Err(refuse()) }
    }
}

fn unescape(value: &str) -> Option<String> {
    let mut parts = value.split('%');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let code = u8::from_str_radix(part.get(..2)?, 16).ok()?;
        out.push(char::from(code));
        out.push_str(&part[2..]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(key: &str) -> Scope {
        key.parse().unwrap()
    }

    #[test]
    fn an_event_belongs_when_every_given_field_is_equal_and_absence_never_matches_a_given_field() {
        let event = ScopeOf { environment: "prod", org_id: "ravenhelm", agent_role: "worker", ..ScopeOf::default() };
        assert!(scope("*").matches(&event));
        assert!(scope("environment=prod/agent_role=worker").matches(&event));
        assert!(!scope("environment=prod/agent_role=orchestrator").matches(&event));
        assert!(!scope("environment=prod/team_id=core").matches(&event));
    }

    #[test]
    fn a_wider_scope_covers_a_narrower_one_and_not_the_other_way_round() {
        let (wide, narrow) = (scope("environment=prod"), scope("environment=prod/project_id=x"));
        assert!(wide.covers(&narrow) && scope("*").covers(&wide) && wide.covers(&wide));
        assert!(!narrow.covers(&wide) && !scope("environment=dev").covers(&narrow));
    }

    #[test]
    fn a_key_is_readable_and_separators_inside_values_are_escaped() {
        let tricky = Scope { org_id: Some("a/b=c%d".into()), project_id: Some("*".into()), ..Scope::default() };
        assert_eq!(tricky.key(), "org_id=a%2Fb%3Dc%25d/project_id=*");
        assert_eq!(Scope::default().key(), "*");
    }

    #[test]
    fn a_key_that_is_not_the_canonical_spelling_is_refused_with_what_was_expected() {
        for bad in [
            "",
            "prod",
            "env=prod",
            "org_id=x/environment=prod",
            "org_id=a/org_id=b",
            "org_id=%2f",
            "org_id=%4",
            "org_id=%é",
        ] {
            let message = bad.parse::<Scope>().unwrap_err().to_string();
            assert!(message.contains(&format!("{bad:?}")) && message.contains("environment, org_id"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_scope_reads_back_from_its_key(values in prop::array::uniform6(prop::option::of(any::<String>()))) {
            let [environment, org_id, business_unit_id, team_id, project_id, agent_role] = values;
            let scope = Scope { environment, org_id, business_unit_id, team_id, project_id, agent_role };
            prop_assert_eq!(scope.key().parse::<Scope>().unwrap(), scope);
        }
    }
}
