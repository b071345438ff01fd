//! The one place that asks the system what time it is. Everything below takes the time as an argument.

use costhelm_pricing::EventTime;

/// Now, in microseconds.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> EventTime {
    EventTime(chrono::Utc::now().timestamp_micros())
}
