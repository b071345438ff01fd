//! Calendar periods in a budget's time zone (TIME-2). An instant is given, the period that holds it comes back as a
//! half-open range of instants and a label; periods of one kind and zone tile time without gap or overlap.
//!
//! A period starts at the *first* instant at which the zone's clock shows its date or a later one. So days have 23 or
//! 25 hours where clocks change; a midnight skipped by the change (Beirut, Cairo) gives a day that starts at 01:00; a
//! midnight shown twice (St. John's until 2011) starts at its first showing; a date skipped whole (Apia, 2011-12-30)
//! has no period.
//!
//! Limits: instants before 0001-01-02 or after 9998-12-31 (UTC) count to the period of that day; no event is accepted
//! so far out.

use chrono::{
    DateTime, Datelike, Days, MappedLocalTime, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc,
};
use chrono_tz::Tz;
use costhelm_pricing::EventTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a budget's amount lasts, on the calendar of the budget's time zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PeriodKind {
    /// From midnight to midnight.
    Daily,
    /// From the first of a month to the first of the next.
    #[default]
    Monthly,
}

/// One period: `[start, end)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Period {
    pub start: EventTime,
    pub end: EventTime,
    /// `2026-11` for a month, `2026-11-22` for a day: unique within a kind and zone, and sorts as time does.
    pub label: String,
}

impl Period {
    pub fn contains(&self, at: EventTime) -> bool {
        self.start.0 <= at.0 && at.0 < self.end.0
    }
}

/// 0001-01-02 and 9998-12-31, midnight UTC.
const EARLIEST: i64 = -62_135_510_400_000_000;
const LATEST: i64 = 253_370_678_400_000_000;

/// The period of `kind` on `zone`'s calendar that holds `at`.
pub fn period_of(kind: PeriodKind, zone: Tz, at: EventTime) -> Period {
    let micros = at.0.clamp(EARLIEST, LATEST);
    let utc = DateTime::<Utc>::from_timestamp_micros(micros).unwrap_or_default();
    let mut first = kind.first_day(utc.with_timezone(&zone).date_naive());
    // Where clocks fall back over midnight, yesterday's date is shown again after today has begun: then step on.
    loop {
        let next = kind.following(first);
        let end = start_of(zone, next);
        if micros < end.0 {
            return Period { start: start_of(zone, first), end, label: kind.label(first) };
        }
        first = next;
    }
}

impl PeriodKind {
    fn first_day(self, date: NaiveDate) -> NaiveDate {
        match self {
            PeriodKind::Daily => date,
            PeriodKind::Monthly => date - Days::new(u64::from(date.day0())),
        }
    }

    fn following(self, first: NaiveDate) -> NaiveDate {
        match self {
            PeriodKind::Daily => first + Days::new(1),
            PeriodKind::Monthly => first + Months::new(1),
        }
    }

    fn label(self, first: NaiveDate) -> String {
        let format = match self {
            PeriodKind::Daily => "%Y-%m-%d",
            PeriodKind::Monthly => "%Y-%m",
        };
        first.format(format).to_string()
    }
}

/// The first instant at which the zone's clock shows `date` or later.
fn start_of(zone: Tz, date: NaiveDate) -> EventTime {
    let midnight = date.and_time(NaiveTime::MIN);
    let utc = match zone.from_local_datetime(&midnight) {
        MappedLocalTime::Single(instant) => instant.naive_utc(),
        MappedLocalTime::Ambiguous(one, other) => one.min(other).naive_utc(),
        MappedLocalTime::None => end_of_gap(zone, midnight),
    };
    EventTime(utc.and_utc().timestamp_micros())
}

/// The instant (UTC) at which a clock that skips `midnight` jumps over it.
fn end_of_gap(zone: Tz, midnight: NaiveDateTime) -> NaiveDateTime {
    // Offsets are below 24 hours: a day before, the clock cannot yet show midnight; a day after, it has passed it.
    let (mut before, mut after) = (-86_400_i64, 86_400_i64);
    while after - before > 1 {
        let middle = before.midpoint(after);
        if zone.from_utc_datetime(&(midnight + TimeDelta::seconds(middle))).naive_local() < midnight {
            before = middle;
        } else {
            after = middle;
        }
    }
    midnight + TimeDelta::seconds(after)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(rfc3339: &str) -> EventTime {
        EventTime(DateTime::parse_from_rfc3339(rfc3339).unwrap().timestamp_micros())
    }

    fn period(kind: PeriodKind, zone: &str, instant: &str) -> (String, String, String) {
        let found = period_of(kind, zone.parse().unwrap(), at(instant));
        (found.label.clone(), found.start.to_string(), found.end.to_string())
    }

    fn hours(zone: &str, instant: &str) -> f64 {
        let day = period_of(PeriodKind::Daily, zone.parse().unwrap(), at(instant));
        (day.end.0 - day.start.0) as f64 / 3.6e9
    }

    fn expect(kind: PeriodKind, zone: &str, instant: &str, label: &str, start: &str, end: &str) {
        assert_eq!(
            period(kind, zone, instant),
            (label.to_owned(), start.to_owned(), end.to_owned()),
            "{zone} {instant}"
        );
    }

    use PeriodKind::{Daily, Monthly};

    #[test]
    fn months_turn_at_local_midnight_across_the_year_end_in_kolkata_new_york_and_auckland() {
        expect(
            Monthly,
            "Asia/Kolkata",
            "2026-12-31T18:29:59.999999Z",
            "2026-12",
            "2026-11-30T18:30:00Z",
            "2026-12-31T18:30:00Z",
        );
        expect(
            Monthly,
            "Asia/Kolkata",
            "2026-12-31T18:30:00Z",
            "2027-01",
            "2026-12-31T18:30:00Z",
            "2027-01-31T18:30:00Z",
        );
        expect(
            Monthly,
            "America/New_York",
            "2027-01-01T04:59:59Z",
            "2026-12",
            "2026-12-01T05:00:00Z",
            "2027-01-01T05:00:00Z",
        );
        expect(
            Monthly,
            "America/New_York",
            "2027-01-01T05:00:00Z",
            "2027-01",
            "2027-01-01T05:00:00Z",
            "2027-02-01T05:00:00Z",
        );
        expect(
            Monthly,
            "Pacific/Auckland",
            "2026-12-31T10:59:59Z",
            "2026-12",
            "2026-11-30T11:00:00Z",
            "2026-12-31T11:00:00Z",
        );
        expect(
            Monthly,
            "Pacific/Auckland",
            "2026-12-31T11:00:00Z",
            "2027-01",
            "2026-12-31T11:00:00Z",
            "2027-01-31T11:00:00Z",
        );
    }

    #[test]
    fn a_month_with_a_clock_change_keeps_both_local_midnights() {
        expect(
            Monthly,
            "America/New_York",
            "2026-11-22T12:00:00Z",
            "2026-11",
            "2026-11-01T04:00:00Z",
            "2026-12-01T05:00:00Z",
        );
        expect(
            Monthly,
            "Pacific/Auckland",
            "2026-09-10T00:00:00Z",
            "2026-09",
            "2026-08-31T12:00:00Z",
            "2026-09-30T11:00:00Z",
        );
    }

    #[test]
    fn days_have_23_or_25_hours_where_clocks_change_and_24_elsewhere() {
        assert_eq!(hours("America/New_York", "2026-03-08T12:00:00Z"), 23.0);
        assert_eq!(hours("America/New_York", "2026-11-01T12:00:00Z"), 25.0);
        assert_eq!(hours("Pacific/Auckland", "2026-04-05T00:00:00Z"), 25.0);
        assert_eq!(hours("Pacific/Auckland", "2026-09-27T00:00:00Z"), 23.0);
        assert_eq!(hours("Asia/Kolkata", "2026-11-01T12:00:00Z"), 24.0);
        assert_eq!(hours("Australia/Lord_Howe", "2026-04-04T20:00:00Z"), 24.5);
    }

    #[test]
    fn a_day_whose_midnight_is_skipped_starts_when_the_clock_jumps() {
        expect(
            Daily,
            "America/Sao_Paulo",
            "2018-11-04T12:00:00Z",
            "2018-11-04",
            "2018-11-04T03:00:00Z",
            "2018-11-05T02:00:00Z",
        );
        expect(
            Daily,
            "Asia/Beirut",
            "2024-03-31T12:00:00Z",
            "2024-03-31",
            "2024-03-30T22:00:00Z",
            "2024-03-31T21:00:00Z",
        );
        expect(
            Daily,
            "Africa/Cairo",
            "2024-04-26T12:00:00Z",
            "2024-04-26",
            "2024-04-25T22:00:00Z",
            "2024-04-26T21:00:00Z",
        );
    }

    #[test]
    fn a_midnight_that_is_shown_twice_starts_the_day_at_its_first_showing() {
        // 00:01 falls back to 23:01 of the day before: that hour belongs to the day that has begun already.
        expect(
            Daily,
            "America/St_Johns",
            "2010-11-07T02:45:00Z",
            "2010-11-07",
            "2010-11-07T02:30:00Z",
            "2010-11-08T03:30:00Z",
        );
        // 01:00 falls back to 00:00 of the same day.
        expect(
            Daily,
            "America/Havana",
            "2024-11-03T05:30:00Z",
            "2024-11-03",
            "2024-11-03T04:00:00Z",
            "2024-11-04T05:00:00Z",
        );
        // Midnight falls back to 23:00: the day that ends has 25 hours.
        expect(
            Daily,
            "America/Sao_Paulo",
            "2019-02-17T02:30:00Z",
            "2019-02-16",
            "2019-02-16T02:00:00Z",
            "2019-02-17T03:00:00Z",
        );
    }

    #[test]
    fn a_date_that_a_zone_skipped_has_no_period() {
        expect(
            Daily,
            "Pacific/Apia",
            "2011-12-30T09:59:59Z",
            "2011-12-29",
            "2011-12-29T10:00:00Z",
            "2011-12-30T10:00:00Z",
        );
        expect(
            Daily,
            "Pacific/Apia",
            "2011-12-30T10:00:00Z",
            "2011-12-31",
            "2011-12-30T10:00:00Z",
            "2011-12-31T10:00:00Z",
        );
    }

    #[test]
    fn instants_beyond_the_calendar_count_to_its_first_or_last_period() {
        for zone in ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
            let zone = zone.parse().unwrap();
            assert_eq!(period_of(Monthly, zone, EventTime(i64::MIN)).label, "0001-01");
            assert_eq!(period_of(Monthly, zone, EventTime(i64::MAX)).label, "9998-12");
        }
    }

    fn zone() -> impl Strategy<Value = Tz> {
        prop::sample::select(chrono_tz::TZ_VARIANTS.to_vec())
    }

    fn kind() -> impl Strategy<Value = PeriodKind> {
        prop::sample::select(vec![Daily, Monthly])
    }

    /// From 1906 to 2096.
    fn micros() -> impl Strategy<Value = i64> {
        -2_000_000_000_000_000..4_000_000_000_000_000_i64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn periods_tile_time_in_every_zone(kind in kind(), zone in zone(), micros in micros()) {
            let here = period_of(kind, zone, EventTime(micros));
            prop_assert!(here.contains(EventTime(micros)));
            prop_assert_eq!(&period_of(kind, zone, here.start), &here);
            prop_assert_eq!(&period_of(kind, zone, EventTime(here.end.0 - 1)), &here);
            let next = period_of(kind, zone, here.end);
            prop_assert_eq!(next.start, here.end);
            prop_assert_eq!(period_of(kind, zone, EventTime(here.start.0 - 1)).end, here.start);
            prop_assert!(here.label < next.label);
        }

        #[test]
        fn a_day_lies_within_one_month(zone in zone(), micros in micros()) {
            let (day, month) = (period_of(Daily, zone, EventTime(micros)), period_of(Monthly, zone, EventTime(micros)));
            prop_assert!(month.start <= day.start && day.end <= month.end && day.label.starts_with(&month.label));
        }
    }
}
