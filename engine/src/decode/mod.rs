//! Bytes in, usage events or a reason for quarantine out. Pure: no clock, no I/O, no money arithmetic.
//!
//! ```text
//!  record ─┬─ JSON object ── has specversion? ── CloudEvents structured ─┐
//!          ├─ JSON array ─── each element as above                       ├──▶ UsageEvent, or Rejection (EO-3)
//!          └─ any of these under ce_ headers ── CloudEvents binary ──────┘
//! ```
//!
//! Limits: a record of more than [`RECORD_BYTES_MAX`] bytes or an array of more than [`ARRAY_EVENTS_MAX`] events is
//! rejected whole.

mod cloudevents;
mod json;

use std::fmt;

pub use cloudevents::Envelope;

/// Largest record that is decoded, bytes.
pub const RECORD_BYTES_MAX: usize = 8 << 20;
/// Most events in one record.
pub const ARRAY_EVENTS_MAX: usize = 100_000;

/// Why a record, or one event of it, cannot be used. `code` is for counting, `message` for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub code: RejectionCode,
    /// Names the field, the value and what was expected.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectionCode {
    /// Not JSON, not UTF-8, or JSON of another kind than an object or an array of objects.
    Malformed,
    /// A required field is absent or null.
    MissingField,
    /// A field has a value outside its type or range.
    InvalidField,
    /// Finer meters that cannot be part of the totals sent with them.
    InvalidUsage,
    /// Larger than a stated limit.
    TooLarge,
    /// The event says it happened later than now plus the allowed skew (TIME-1).
    FutureTimestamp,
}

impl RejectionCode {
    pub const ALL: [RejectionCode; 6] = [
        RejectionCode::Malformed,
        RejectionCode::MissingField,
        RejectionCode::InvalidField,
        RejectionCode::InvalidUsage,
        RejectionCode::TooLarge,
        RejectionCode::FutureTimestamp,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            RejectionCode::Malformed => "malformed",
            RejectionCode::MissingField => "missing_field",
            RejectionCode::InvalidField => "invalid_field",
            RejectionCode::InvalidUsage => "invalid_usage",
            RejectionCode::TooLarge => "too_large",
            RejectionCode::FutureTimestamp => "future_timestamp",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Rejection {
    pub fn new(code: RejectionCode, message: impl Into<String>) -> Self {
        Rejection { code, message: message.into() }
    }
}

/// One event of a record: its place in the record's array (0 for a single event), its own bytes, and what became of it.
pub struct Decoded<'a> {
    pub index: u32,
    pub raw: &'a [u8],
    pub event: Result<crate::event::UsageEvent<'a>, Rejection>,
}

/// Decodes one record. `each` is called at least once, so that no record is lost (EO-3).
pub fn decode<'a>(value: &'a [u8], envelope: Option<&'a Envelope>, mut each: impl FnMut(Decoded<'a>)) {
    let mut whole = |code, message: String| {
        each(Decoded { index: 0, raw: value, event: Err(Rejection::new(code, message)) });
    };
    if value.len() > RECORD_BYTES_MAX {
        let message = format!("the record has {} bytes; at most {RECORD_BYTES_MAX} are accepted", value.len());
        return whole(RejectionCode::TooLarge, message);
    }
    let text = match std::str::from_utf8(value) {
        Ok(text) => text.trim_start_matches('\u{feff}').trim(),
        Err(error) => {
            let message = format!("the record is not UTF-8: byte {} is not part of a character", error.valid_up_to());
            return whole(RejectionCode::Malformed, message);
        }
    };
    if !text.starts_with('[') {
        return each(Decoded { index: 0, raw: value, event: json::event(text, envelope) });
    }
    match serde_json::from_str::<Vec<&serde_json::value::RawValue>>(text) {
        Ok(elements) if elements.is_empty() => {
            whole(RejectionCode::Malformed, "the record is an empty array; expected at least one usage event".into());
        }
        Ok(elements) if elements.len() > ARRAY_EVENTS_MAX => {
            let message =
                format!("the record holds {} events; at most {ARRAY_EVENTS_MAX} are accepted", elements.len());
            whole(RejectionCode::TooLarge, message);
        }
        // An array under one binary-mode envelope shares its source and time, but an id can only name one event.
        Ok(elements) => {
            let envelope = if elements.len() == 1 { envelope } else { None };
            for (index, element) in (0..).zip(elements) {
                let raw = element.get();
                each(Decoded { index, raw: raw.as_bytes(), event: json::event(raw, envelope) });
            }
        }
        Err(error) => whole(RejectionCode::Malformed, format!("the record is not valid JSON: {error}")),
    }
}

#[cfg(test)]
mod tests;
