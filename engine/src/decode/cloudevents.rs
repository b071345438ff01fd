//! CloudEvents 1.0: what an envelope says about the event inside it.
//!
//! Structured mode puts everything in one JSON object; binary mode puts the attributes into headers (`ce_id` on Kafka,
//! `ce-id` over HTTP) and the event into the value. Either way the event's own fields win, and the envelope fills in
//! what the event leaves out: `id` → `event_id`, `time` → `timestamp`. `source` always comes from the envelope.

use std::borrow::Cow;

use super::{Rejection, RejectionCode};

/// The attributes of a binary-mode CloudEvent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    pub id: Option<String>,
    pub source: Option<String>,
    pub time: Option<String>,
}

impl Envelope {
    /// Reads the headers of a Kafka record (`ce_…`) or an HTTP request (`ce-…`); `None` where they are no CloudEvent.
    pub fn from_headers<'h>(headers: impl Iterator<Item = (&'h str, &'h [u8])>) -> Option<Envelope> {
        let mut envelope = Envelope::default();
        let mut specversion = false;
        for (name, value) in headers {
            let Some(attribute) =
                name.get(..3).filter(|p| p.eq_ignore_ascii_case("ce_") || p.eq_ignore_ascii_case("ce-"))
            else {
                continue;
            };
            let value = || Some(String::from_utf8_lossy(value).into_owned());
            match name[attribute.len()..].to_ascii_lowercase().as_str() {
                "specversion" => specversion = true,
                "id" => envelope.id = value(),
                "source" => envelope.source = value(),
                "time" => envelope.time = value(),
                _ => {}
            }
        }
        specversion.then_some(envelope)
    }
}

/// A structured-mode CloudEvent, taken apart.
pub(super) struct Structured<'a> {
    pub envelope: Envelope,
    /// The event inside, as JSON text.
    pub data: Cow<'a, str>,
}

/// Takes apart the members of an object that has `specversion`.
pub(super) fn structured<'a>(members: &[(Cow<'a, str>, &'a str)]) -> Result<Structured<'a>, Rejection> {
    let member =
        |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, raw)| *raw).filter(|raw| *raw != "null");
    let text = |name: &str| -> Result<Option<String>, Rejection> {
        member(name)
            .map(|raw| {
                serde_json::from_str::<String>(raw).map_err(|_| {
                    let message = format!("CloudEvents attribute `{name}` is {raw}; expected a string");
                    Rejection::new(RejectionCode::InvalidField, message)
                })
            })
            .transpose()
    };
    match text("specversion")?.as_deref() {
        Some("1.0") => {}
        other => {
            let found = other.unwrap_or("null");
            let message = format!("CloudEvents `specversion` is {found:?}; expected \"1.0\"");
            return Err(Rejection::new(RejectionCode::InvalidField, message));
        }
    }
    let envelope = Envelope { id: text("id")?, source: text("source")?, time: text("time")? };
    let data = match (member("data"), text("data_base64")?) {
        (Some(raw), None) if raw.starts_with('"') => {
            // JSON sent as a string: some SDKs do this when they take the payload for text.
            Cow::Owned(serde_json::from_str::<String>(raw).unwrap_or_default())
        }
        (Some(raw), None) => Cow::Borrowed(raw),
        (None, Some(encoded)) => Cow::Owned(decode_base64(&encoded)?),
        (Some(_), Some(_)) => {
            let message = "the CloudEvent has both `data` and `data_base64`; expected one of them";
            return Err(Rejection::new(RejectionCode::Malformed, message));
        }
        (None, None) => {
            let message = "the CloudEvent has no `data`; expected the usage event there";
            return Err(Rejection::new(RejectionCode::MissingField, message));
        }
    };
    Ok(Structured { envelope, data })
}

fn decode_base64(encoded: &str) -> Result<String, Rejection> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(encoded.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| {
            Rejection::new(RejectionCode::InvalidField, "CloudEvents `data_base64` is not base64 of UTF-8 text")
        })
}
