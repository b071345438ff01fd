//! One JSON object to one usage event.
//!
//! Members are first taken as raw text, then each field reads its own text: so numbers never pass through a float
//! (MONEY-1), and an error can quote the value as it was sent.

use std::{borrow::Cow, fmt};

use costhelm_pricing::{
    Convention, EventTime, Money, ReportedUsage, ServiceTier, Usage, normalize_provider_usage, usage_from_json,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Envelope, Rejection, RejectionCode, cloudevents};
use crate::event::{ATTRIBUTES_BYTES_MAX, COUNT_MAX, Dim, STRING_BYTES_MAX, UsageEvent};

macro_rules! fields {
    ($($variant:ident => $name:literal),+ $(,)?) => {
        /// The fields Costhelm gives a meaning to.
        #[derive(Clone, Copy)]
        #[repr(usize)]
        enum Field { $($variant),+ }
        const FIELD_NAMES: &[&str] = &[$($name),+];
        impl Field {
            fn of(name: &str) -> Option<Field> {
                match name { $($name => Some(Field::$variant),)+ _ => None }
            }
        }
    };
}

fields! {
    EventId => "event_id",
    Timestamp => "timestamp",
    Environment => "environment",
    OrgId => "org_id",
    BusinessUnitId => "business_unit_id",
    TeamId => "team_id",
    ProjectId => "project_id",
    AgentRole => "agent_role",
    ModelProvider => "model_provider",
    ModelName => "model_name",
    AgentTaskId => "agent_task_id",
    ParentAgentId => "parent_agent_id",
    UserId => "user_id",
    SessionId => "session_id",
    TokensInput => "tokens_input",
    TokensOutput => "tokens_output",
    TokensTotal => "tokens_total",
    Usage => "usage",
    UsageConvention => "usage_convention",
    ProviderUsage => "provider_usage",
    ServiceTier => "service_tier",
    CostUsd => "cost_usd",
    CostCalculation => "cost_calculation",
    DurationMs => "duration_ms",
    McpOverheadMs => "mcp_overhead_ms",
    McpTargetAgent => "mcp_target_agent",
    TraceId => "trace_id",
    SpanId => "span_id",
}

/// The fields that make up [`crate::event::Dims`], in its order, and whether an event must have them. A missing
/// organization or unit is an unattributed cost, which is still a cost; the rest is what the contract promises.
const DIM_FIELDS: [(Field, bool); Dim::COUNT] = [
    (Field::Environment, true),
    (Field::OrgId, false),
    (Field::BusinessUnitId, false),
    (Field::TeamId, false),
    (Field::ProjectId, true),
    (Field::AgentRole, true),
    (Field::ModelProvider, true),
    (Field::ModelName, true),
];

/// The members of one object: known fields by place, the others in the order they came.
#[derive(Default)]
struct Members<'a> {
    known: [Option<&'a str>; FIELD_NAMES.len()],
    others: Vec<(Cow<'a, str>, &'a str)>,
}

pub(super) fn event<'a>(text: &'a str, envelope: Option<&Envelope>) -> Result<UsageEvent<'a>, Rejection> {
    let members = members(text)?;
    if envelope.is_none() && members.others.iter().any(|(key, _)| key == "specversion") {
        let structured = cloudevents::structured(&members.others)?;
        return match &structured.data {
            Cow::Borrowed(data) => bare(data, Some(&structured.envelope)),
            Cow::Owned(data) => bare(data, Some(&structured.envelope)).map(UsageEvent::into_owned),
        };
    }
    members.event(envelope)
}

fn bare<'a>(text: &'a str, envelope: Option<&Envelope>) -> Result<UsageEvent<'a>, Rejection> {
    members(text)?.event(envelope)
}

fn members(text: &str) -> Result<Members<'_>, Rejection> {
    if !text.trim_start().starts_with('{') {
        let found = text.chars().take(40).collect::<String>();
        let message = if text.is_empty() {
            "the record is empty; expected a JSON object or an array of objects".to_owned()
        } else {
            format!("found {found:?}; expected a JSON object or an array of objects")
        };
        return Err(Rejection::new(RejectionCode::Malformed, message));
    }
    serde_json::from_str(text)
        .map_err(|error| Rejection::new(RejectionCode::Malformed, format!("the event is not valid JSON: {error}")))
}

impl<'a> Members<'a> {
    fn event(self, envelope: Option<&Envelope>) -> Result<UsageEvent<'a>, Rejection> {
        let from_envelope = |value: Option<&String>| value.map(|v| Cow::Owned(v.clone()));
        let event_id = match self.text(Field::EventId)? {
            Some(id) => id,
            None => from_envelope(envelope.and_then(|e| e.id.as_ref())).ok_or_else(|| missing(Field::EventId))?,
        };
        let timestamp = match self.text(Field::Timestamp)? {
            Some(time) => time,
            None => from_envelope(envelope.and_then(|e| e.time.as_ref())).ok_or_else(|| missing(Field::Timestamp))?,
        };
        let time = EventTime::parse(&timestamp).map_err(|_| {
            invalid("timestamp", &timestamp, "an RFC 3339 time such as 2026-11-22T10:15:00Z (no offset means UTC)")
        })?;
        let mut dims: [Cow<'a, str>; Dim::COUNT] = Default::default();
        for (slot, (field, required)) in dims.iter_mut().zip(DIM_FIELDS) {
            match self.text(field)? {
                Some(value) => *slot = value,
                None if required => return Err(missing(field)),
                None => {}
            }
        }
        let Metered { usage, service_tier, region, reported_cost, unpriceable } = self.metered(&dims)?;
        Ok(UsageEvent {
            source: from_envelope(envelope.and_then(|e| e.source.as_ref())).unwrap_or_default(),
            event_id,
            time,
            dims,
            agent_task_id: self.text(Field::AgentTaskId)?,
            parent_agent_id: self.text(Field::ParentAgentId)?,
            user_id: self.text(Field::UserId)?,
            session_id: self.text(Field::SessionId)?,
            usage,
            region,
            unpriceable,
            tokens_total: self.count(Field::TokensTotal)?,
            service_tier,
            reported_cost,
            cost_calculation: self.text(Field::CostCalculation)?,
            duration_ms: self.count(Field::DurationMs)?,
            mcp_overhead_ms: self.count(Field::McpOverheadMs)?,
            mcp_target_agent: self.text(Field::McpTargetAgent)?,
            trace_id: self.text(Field::TraceId)?,
            span_id: self.text(Field::SpanId)?,
            attributes: self.attributes()?,
        })
    }

    /// The raw text of a field; a field that is null counts as absent.
    fn raw(&self, field: Field) -> Option<&'a str> {
        self.known[field as usize].filter(|raw| *raw != "null")
    }

    /// A text field; empty counts as absent. Numbers are taken as their text: some emitters number their users.
    fn text(&self, field: Field) -> Result<Option<Cow<'a, str>>, Rejection> {
        let Some(raw) = self.raw(field) else { return Ok(None) };
        let name = FIELD_NAMES[field as usize];
        let value = match raw.as_bytes()[0] {
            b'"' => unquote(raw).ok_or_else(|| invalid(name, raw, "a string"))?,
            b'-' | b'0'..=b'9' => Cow::Borrowed(raw),
            _ => return Err(invalid(name, raw, "a string")),
        };
        if value.len() > STRING_BYTES_MAX {
            let message = format!("field `{name}` has {} bytes; at most {STRING_BYTES_MAX} are accepted", value.len());
            return Err(Rejection::new(RejectionCode::TooLarge, message));
        }
        Ok(Some(value).filter(|value| !value.is_empty()))
    }

    /// A whole number from zero up. `1200.0` and `"1200"` are taken too: both are seen, and neither is ambiguous.
    fn count(&self, field: Field) -> Result<Option<u64>, Rejection> {
        let Some(raw) = self.raw(field) else { return Ok(None) };
        let name = FIELD_NAMES[field as usize];
        let text = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw);
        let digits = match text.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|b| b == b'0') => whole,
            Some(_) => return Err(invalid(name, raw, "a whole number from 0 up")),
            None => text,
        };
        match digits.parse::<u64>() {
            Ok(count) if count <= COUNT_MAX && !digits.starts_with('+') => Ok(Some(count)),
            _ => Err(invalid(name, raw, "a whole number from 0 to 10,000,000,000")),
        }
    }

    /// What is to be charged: from the provider's own usage object where there is one, from the event's counts otherwise.
    fn metered(&self, dims: &[Cow<'a, str>; Dim::COUNT]) -> Result<Metered, Rejection> {
        let service_tier = self.service_tier()?;
        let reported_cost = self.reported_cost()?;
        let Some(raw) = self.raw(Field::ProviderUsage) else {
            let service_tier = service_tier.unwrap_or(ServiceTier::Standard);
            return Ok(Metered { usage: self.usage()?, service_tier, region: None, reported_cost, unpriceable: None });
        };
        let (provider, model) = (&dims[Dim::ModelProvider as usize], &dims[Dim::ModelName as usize]);
        match normalize_provider_usage(provider, model, raw) {
            Ok(read) => Ok(Metered {
                usage: within_limits(read.usage)?,
                service_tier: service_tier.or(read.service_tier).unwrap_or(ServiceTier::Standard),
                region: read.region.map(String::from),
                reported_cost: reported_cost.or(read.reported_cost),
                unpriceable: None,
            }),
            // Never guessed: the row shows the sender's own counts, and that they are not to be trusted for a price (RATE-3).
            Err(error) => Ok(Metered {
                usage: self.usage().unwrap_or_default(),
                service_tier: service_tier.unwrap_or(ServiceTier::Standard),
                region: None,
                reported_cost,
                unpriceable: Some(error.code()),
            }),
        }
    }

    fn usage(&self) -> Result<Usage, Rejection> {
        let reject = |error: &dyn fmt::Display| Rejection::new(RejectionCode::InvalidUsage, error.to_string());
        let mut reported = match self.raw(Field::Usage) {
            Some(raw) => usage_from_json(raw).map_err(|error| reject(&format_args!("field `usage`: {error}")))?,
            None => ReportedUsage::default(),
        };
        reported.tokens_input = self.count(Field::TokensInput)?;
        reported.tokens_output = self.count(Field::TokensOutput)?;
        if let Some(convention) = self.text(Field::UsageConvention)? {
            reported.convention = Convention::from_name(&convention)
                .ok_or_else(|| invalid("usage_convention", &convention, "\"inclusive\" or \"exclusive\""))?;
        }
        if self.raw(Field::Usage).is_none() {
            if reported.tokens_input.is_none() {
                return Err(missing(Field::TokensInput));
            }
            if reported.tokens_output.is_none() {
                return Err(missing(Field::TokensOutput));
            }
        }
        within_limits(reported.normalize().map_err(|error| reject(&error))?)
    }

    fn service_tier(&self) -> Result<Option<ServiceTier>, Rejection> {
        let Some(name) = self.text(Field::ServiceTier)? else {
            return Ok(None);
        };
        let tier = ServiceTier::from_name(&name);
        Ok(Some(tier.ok_or_else(|| invalid("service_tier", &name, "standard, batch, flex or priority"))?))
    }

    fn reported_cost(&self) -> Result<Option<Money>, Rejection> {
        let Some(raw) = self.raw(Field::CostUsd) else {
            return Ok(None);
        };
        let text = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw);
        // A float's noise past the 18th digit is not worth an event: it is rounded, and the column says "reported".
        match Money::parse_rounded(text.trim()) {
            Ok((money, _)) if money >= Money::ZERO => Ok(Some(money)),
            _ => Err(invalid("cost_usd", raw, "a decimal number of US dollars from 0 up, as a number or a string")),
        }
    }

    /// The fields without a meaning here, and the provider's usage object as it came.
    fn attributes(mut self) -> Result<Option<String>, Rejection> {
        if let Some(raw) = self.raw(Field::ProviderUsage) {
            self.others.push((Cow::Borrowed(FIELD_NAMES[Field::ProviderUsage as usize]), raw));
        }
        if self.others.is_empty() {
            return Ok(None);
        }
        let bytes = self.others.iter().map(|(key, raw)| key.len() + raw.len() + 4).sum::<usize>();
        if bytes > ATTRIBUTES_BYTES_MAX {
            let message = format!("the unknown fields have {bytes} bytes; at most {ATTRIBUTES_BYTES_MAX} are accepted");
            return Err(Rejection::new(RejectionCode::TooLarge, message));
        }
        let mut json = String::with_capacity(bytes + 2);
        for (key, raw) in &self.others {
            json.push(if json.is_empty() { '{' } else { ',' });
            json.push_str(&serde_json::Value::from(&**key).to_string());
            json.push(':');
            json.push_str(raw);
        }
        json.push('}');
        Ok(Some(json))
    }
}

/// What is to be charged for one event.
struct Metered {
    usage: Usage,
    service_tier: ServiceTier,
    region: Option<String>,
    reported_cost: Option<Money>,
    unpriceable: Option<&'static str>,
}

fn within_limits(usage: Usage) -> Result<Usage, Rejection> {
    match usage.iter().find(|(_, count)| *count > COUNT_MAX) {
        Some((meter, count)) => {
            let message = format!("meter `{}` is {count}; expected at most {COUNT_MAX}", meter.name());
            Err(Rejection::new(RejectionCode::InvalidUsage, message))
        }
        None => Ok(usage),
    }
}

fn missing(field: Field) -> Rejection {
    let name = FIELD_NAMES[field as usize];
    Rejection::new(RejectionCode::MissingField, format!("field `{name}` is missing; every usage event must have it"))
}

fn invalid(name: &str, value: &str, expected: &str) -> Rejection {
    const SHOWN_CHARS_MAX: usize = 200;
    let shown: String = value.chars().take(SHOWN_CHARS_MAX).collect();
    let more = if shown.len() < value.len() { "…" } else { "" };
    Rejection::new(RejectionCode::InvalidField, format!("field `{name}` is {shown}{more}; expected {expected}"))
}

/// The text inside a JSON string, without a copy where nothing is escaped.
fn unquote(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// A member's name, borrowed where it holds no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Members::default();
                while let Some(Key(name)) = map.next_key()? {
                    let raw = map.next_value::<&'de RawValue>()?.get();
                    match Field::of(&name) {
                        None => members.others.push((name, raw)),
                        Some(field) => {
                            if members.known[field as usize].replace(raw).is_some() {
                                return Err(A::Error::custom(format_args!("field `{name}` appears twice")));
                            }
                        }
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::FIELD_NAMES;

    #[test]
    fn the_json_schema_names_the_fields_that_are_decoded() {
        let text = include_str!("../../../docs/schemas/usage-event.schema.json");
        let schema: serde_json::Value = serde_json::from_str(text).unwrap();
        let mut names: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut decoded = FIELD_NAMES.to_vec();
        names.sort_unstable();
        decoded.sort_unstable();
        assert_eq!(names, decoded);
    }
}
