//! The time of an event: microseconds since the Unix epoch, UTC (RATE-1, TIME-1).
//!
//! [`EventTime::parse`] reads what emitters send. The common shapes, `2026-11-22T10:11:12.123456` with `Z`, an offset or
//! nothing (Python's `utcnow()`: then it is UTC), are read byte by byte since every event passes here; the rare ones
//! (a zone name, ISO basic form, RFC 2822) go to chrono. Both give the same microsecond; a test holds them together.
//!
//! Limits: years 0000 to 9999; fractions finer than a microsecond are cut off; text up to 64 bytes.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};
use serde::ser::{Serialize, Serializer};

const TEXT_MAX_BYTES: usize = 64;
const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub i64);

/// A text that is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a time; expected RFC 3339 such as 2026-11-22T10:11:12.123456Z, or a date such as 2026-11-22")]
pub struct TimeError {
    text: String,
}

impl EventTime {
    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339, the same with a space for the `T`, with or without an offset (none: UTC), and plain dates.
    ///
    /// A leap second (`:60`) is the first instant of the next minute, as in POSIX time.
    ///
    /// # Errors
    /// Any other text, and dates that do not exist.
    pub fn parse(text: &str) -> Result<EventTime, TimeError> {
        let trimmed = text.trim_ascii();
        if trimmed.len() <= TEXT_MAX_BYTES {
            if let Some(micros) = parse_common(trimmed.as_bytes()) {
                return Ok(EventTime(micros));
            }
            if let Some(micros) = parse_rare(trimmed) {
                return Ok(EventTime(micros));
            }
        }
        Err(TimeError { text: text.chars().take(TEXT_MAX_BYTES).collect() })
    }
}

impl std::str::FromStr for EventTime {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        EventTime::parse(text)
    }
}

impl fmt::Display for EventTime {
    /// RFC 3339 in UTC; the fraction is written only where there is one, then with six digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0.div_euclid(MICROS_PER_SECOND), self.0.rem_euclid(MICROS_PER_SECOND));
        let (days, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
        let (year, month, day) = civil_from_days(days);
        if (0..=9999).contains(&year) {
            write!(f, "{year:04}")?;
        } else {
            write!(f, "{year:+05}")?;
        }
        write!(f, "-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)?;
        if micros != 0 {
            write!(f, ".{micros:06}")?;
        }
        f.write_str("Z")
    }
}

impl Serialize for EventTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn parse_common(bytes: &[u8]) -> Option<i64> {
    let (year, month, day) = match bytes.get(..10)? {
        [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] => {
            (number(*y1, *y2)? * 100 + number(*y3, *y4)?, number(*m1, *m2)?, number(*d1, *d2)?)
        }
        _ => return None,
    };
    if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    let midnight = days_from_civil(year, month, day) * SECONDS_PER_DAY;
    if bytes.len() == 10 {
        return Some(midnight * MICROS_PER_SECOND);
    }
    let second = match bytes.get(10..19)? {
        [b'T' | b't' | b' ', h1, h2, b':', m1, m2, b':', s1, s2] => {
            let (hour, minute, second) = (number(*h1, *h2)?, number(*m1, *m2)?, number(*s1, *s2)?);
            if hour > 23 || minute > 59 || second > 60 {
                return None;
            }
            hour * 3600 + minute * 60 + second
        }
        _ => return None,
    };
    let (micros, zone) = parse_fraction(&bytes[19..])?;
    let offset = parse_offset(zone)?;
    Some((midnight + second - offset) * MICROS_PER_SECOND + micros)
}

fn parse_fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', rest @ ..] = bytes else {
        return Some((0, bytes));
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let (fraction, zone) = rest.split_at(digits);
    let mut micros = 0;
    for position in 0..6 {
        micros = micros * 10 + fraction.get(position).map_or(0, |digit| i64::from(digit - b'0'));
    }
    Some((micros, zone))
}

/// Seconds east of UTC.
fn parse_offset(zone: &[u8]) -> Option<i64> {
    let (sign, hour, minute) = match zone {
        [] | [b'Z' | b'z'] => return Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] | [sign @ (b'+' | b'-'), h1, h2, m1, m2] => {
            (sign, number(*h1, *h2)?, number(*m1, *m2)?)
        }
        [sign @ (b'+' | b'-'), h1, h2] => (sign, number(*h1, *h2)?, 0),
        _ => return None,
    };
    if hour > 23 || minute > 59 {
        return None;
    }
    let seconds = hour * 3600 + minute * 60;
    Some(if *sign == b'-' { -seconds } else { seconds })
}

fn number(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

// Both functions count years from March, so that the leap day is the last of its year, in eras of 400 years (146,097 days).

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let march_year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (march_year.div_euclid(400), march_year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn parse_rare(text: &str) -> Option<i64> {
    const WITH_OFFSET: [&str; 4] =
        ["%Y-%m-%d %H:%M:%S%.f %#z", "%Y-%m-%dT%H:%M:%S%.f %#z", "%Y%m%dT%H%M%S%.f%#z", "%Y-%m-%dT%H:%M%#z"];
    const WITHOUT_OFFSET: [&str; 4] =
        ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y%m%dT%H%M%S%.f", "%Y-%m-%dT%H:%M"];
    let zoneless =
        ["UTC", "GMT", "Z", "z"].iter().find_map(|name| text.strip_suffix(name)).map_or(text, str::trim_ascii_end);
    let time = WITHOUT_OFFSET
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(zoneless, format).ok())
        .map(|time| time.and_utc())
        .or_else(|| {
            WITH_OFFSET.iter().find_map(|format| DateTime::parse_from_str(text, format).ok()).map(|time| time.to_utc())
        })
        .or_else(|| DateTime::parse_from_rfc2822(text).ok().map(|time| time.to_utc()))
        .or_else(|| {
            NaiveDate::parse_from_str(text, "%Y%m%d")
                .ok()
                .and_then(|date| date.and_hms_opt(0, 0, 0))
                .map(|t| t.and_utc())
        })?;
    (0..=9999).contains(&time.year()).then(|| time.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use chrono::{FixedOffset, SecondsFormat, TimeZone, Utc};
    use proptest::prelude::*;

    use super::*;

    fn micros(text: &str) -> i64 {
        EventTime::parse(text).unwrap().0
    }

    #[test]
    fn a_time_without_offset_is_utc_and_an_offset_is_subtracted() {
        let utc = micros("2026-11-22T10:11:12.123456Z");
        assert_eq!(utc, 1_795_342_272_123_456);
        for same in [
            "2026-11-22T10:11:12.123456",
            "2026-11-22 10:11:12.123456",
            "2026-11-22T10:11:12.123456+00:00",
            "2026-11-22t10:11:12.123456z",
            "2026-11-22T12:11:12.123456+02:00",
            "2026-11-22T04:41:12.123456-0530",
            "2026-11-22 10:11:12.123456 +00:00",
            "2026-11-22 10:11:12.123456 UTC",
            "2026-11-22T10:11:12.123456999Z",
            "  2026-11-22T10:11:12.123456Z ",
        ] {
            assert_eq!(micros(same), utc, "{same}");
        }
        assert_eq!(micros("2026-11-22T10:11:12Z"), 1_795_342_272_000_000);
        assert_eq!(micros("2026-11-22T10:11:12.5"), 1_795_342_272_500_000);
        assert_eq!(micros("2026-11-22T10:11"), 1_795_342_260_000_000);
        assert_eq!(micros("20261122T101112Z"), 1_795_342_272_000_000);
        assert_eq!(micros("Sun, 22 Nov 2026 10:11:12 GMT"), 1_795_342_272_000_000);
        assert_eq!(micros("2026-11-22"), micros("2026-11-22T00:00:00Z"));
        assert_eq!(micros("1969-12-31T23:59:59.999999Z"), -1);
    }

    #[test]
    fn a_leap_second_is_the_first_instant_of_the_next_minute() {
        assert_eq!(micros("2016-12-31T23:59:60Z"), micros("2017-01-01T00:00:00Z"));
        assert_eq!(micros("2016-12-31T23:59:60.5Z"), micros("2017-01-01T00:00:00.5Z"));
    }

    #[test]
    fn dates_that_do_not_exist_and_other_text_are_refused() {
        for text in [
            "",
            "now",
            "2026",
            "2026-13-01",
            "2026-02-29",
            "2026-00-10",
            "2026-01-00",
            "2026-04-31T00:00:00Z",
            "1795342272",
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:60:00Z",
            "2026-11-22T10:11:61Z",
            "2026-11-22T10:11:12.Z",
            "2026-11-22T10:11:12+25:00",
            "2026-11-22T10:11:12+01:60",
            "2026-11-22T10:11:12Europe/Berlin",
            "12026-11-22T10:11:12Z",
            "2026-11-22T10:11:12ZZ",
            "２026-11-22",
            "-2026-11-22T10:11:12Z",
            "1900-02-29",
        ] {
            assert!(EventTime::parse(text).is_err(), "{text:?} was read as {}", EventTime::parse(text).unwrap());
        }
        assert!(EventTime::parse("2000-02-29").is_ok());
    }

    #[test]
    fn display_is_rfc_3339_in_utc() {
        assert_eq!(EventTime(1_795_342_272_123_456).to_string(), "2026-11-22T10:11:12.123456Z");
        assert_eq!(EventTime(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(EventTime(-1).to_string(), "1969-12-31T23:59:59.999999Z");
        assert!(EventTime(i64::MAX).to_string().starts_with("+294247-01-10T"));
    }

    proptest! {
        #[test]
        fn what_chrono_writes_is_read_to_the_same_microsecond(
            seconds in -62_167_132_800_i64..253_402_214_400, nanos in 0_u32..1_000_000_000, offset in -86_399_i32 / 60..86_399 / 60, style in 0..5,
        ) {
            let zone = FixedOffset::east_opt(offset * 60).unwrap();
            let time = zone.timestamp_opt(seconds, nanos).unwrap();
            prop_assume!((0..=9999).contains(&time.year()));
            let (text, expected) = match style {
                0 => (time.to_rfc3339_opts(SecondsFormat::Micros, true), time.timestamp_micros()),
                1 => (time.to_rfc3339_opts(SecondsFormat::Nanos, false), time.timestamp_micros()),
                2 => (time.to_utc().to_rfc3339_opts(SecondsFormat::Millis, true), time.timestamp_millis() * 1000),
                3 => (time.format("%Y-%m-%d %H:%M:%S%z").to_string(), time.timestamp() * 1_000_000),
                _ => (time.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f").to_string(), time.timestamp_micros()),
            };
            prop_assert_eq!(EventTime::parse(&text), Ok(EventTime(expected)), "{}", text);
        }

        #[test]
        fn what_chrono_reads_as_rfc_3339_is_read_alike(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][012][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,10})?(Z|z|[+-][012][0-9]:[0-6][0-9])",
        ) {
            match DateTime::parse_from_rfc3339(&text) {
                Ok(time) if (0..=9999).contains(&time.year()) =>
                    prop_assert_eq!(EventTime::parse(&text), Ok(EventTime(time.timestamp_micros()))),
                Ok(_) => {}
                Err(_) => prop_assert!(EventTime::parse(&text).is_err(), "{} is not RFC 3339", text),
            }
        }

        #[test]
        fn display_agrees_with_chrono_and_reads_back(micros in -62_167_219_200_000_000_i64..253_402_300_800_000_000) {
            let text = EventTime(micros).to_string();
            prop_assert_eq!(EventTime::parse(&text), Ok(EventTime(micros)));
            let format = if micros % 1_000_000 == 0 { SecondsFormat::Secs } else { SecondsFormat::Micros };
            prop_assert_eq!(text, Utc.timestamp_micros(micros).unwrap().to_rfc3339_opts(format, true));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,40}") {
            let _ = EventTime::parse(&text);
        }
    }
}
