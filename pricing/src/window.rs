//! Hours with prices of their own: a window of the wall clock in a zone, on some days of the week (RATE-1).
//!
//! A window is read off a clock on the wall: where a clock is set back, both passes through the hour are in the window;
//! where it is set forward, the hour that does not exist has no events. It holds from its `from` up to, and not with,
//! its `to`; a `to` at or before the `from` is on the next day, and then the day of the week is the one it began on.
//!
//! Limits: minutes; 32 windows a price; 400 excepted days a window.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike, Weekday};
use chrono_tz::Tz;
use serde::ser::{Serialize, Serializer};

use crate::time::EventTime;

const MINUTES_PER_DAY: u16 = 24 * 60;
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Minutes since midnight on the wall; 24:00 is the end of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WallTime(u16);

impl WallTime {
    pub(crate) const MIDNIGHT: WallTime = WallTime(0);
    pub(crate) const END: WallTime = WallTime(MINUTES_PER_DAY);

    /// Reads `16:30`, up to `24:00`.
    pub(crate) fn parse(text: &str) -> Option<WallTime> {
        let (hour, minute) = text.split_once(':')?;
        let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(hour) || !digits(minute) {
            return None;
        }
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        let minutes = hour * 60 + minute;
        (minute < 60 && minutes <= MINUTES_PER_DAY).then_some(WallTime(minutes))
    }
}

impl WallTime {
    /// The clock time so many hours later, on the next day where it must be.
    pub(crate) fn later_by_hours(self, hours: u16) -> WallTime {
        WallTime((self.0 + hours * 60) % MINUTES_PER_DAY)
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// Days of the week, Monday first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weekdays(u8);

impl Weekdays {
    pub(crate) const EVERY: Weekdays = Weekdays(0x7f);

    /// Of English names, of which the first three letters count: `mon`, `Monday`.
    pub(crate) fn parse<'n>(names: impl IntoIterator<Item = &'n str>) -> Option<Weekdays> {
        let mut days = Weekdays(0);
        for name in names {
            let lower = name.to_ascii_lowercase();
            let day = WEEKDAYS.iter().position(|known| lower.get(..3) == Some(known))?;
            days.0 |= 1 << day;
        }
        (days.0 != 0).then_some(days)
    }

    /// Of ISO numbers, 1 for Monday.
    pub(crate) fn from_iso(numbers: &[u8]) -> Option<Weekdays> {
        let mut days = Weekdays(0);
        for number in numbers {
            if !(1..=7).contains(number) {
                return None;
            }
            days.0 |= 1 << (number - 1);
        }
        (days.0 != 0).then_some(days)
    }

    fn contain(self, day: Weekday) -> bool {
        self.0 >> day.num_days_from_monday() & 1 == 1
    }

    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        WEEKDAYS.into_iter().enumerate().filter(move |(day, _)| self.0 >> day & 1 == 1).map(|(_, name)| name)
    }
}

/// A window of the wall clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub zone: Tz,
    pub days: Weekdays,
    pub from: WallTime,
    pub to: WallTime,
    /// Days on which the window does not begin; sorted.
    pub except: Vec<NaiveDate>,
}

impl Window {
    pub(crate) const MAX: usize = 32;
    pub(crate) const EXCEPT_MAX: usize = 400;

    /// The first of several that holds. Zones are asked once: windows of one price are mostly of one zone.
    pub(crate) fn first_holding(windows: &[Window], at: EventTime) -> Option<usize> {
        let utc = DateTime::from_timestamp_micros(at.micros())?;
        let mut on_the_wall: Option<(Tz, NaiveDateTime)> = None;
        windows.iter().position(|window| {
            let local = match on_the_wall {
                Some((zone, local)) if zone == window.zone => local,
                _ => utc.with_timezone(&window.zone).naive_local(),
            };
            on_the_wall = Some((window.zone, local));
            window.holds(local)
        })
    }

    fn holds(&self, local: NaiveDateTime) -> bool {
        // At most 1439.
        let minute = WallTime(u16::try_from(local.hour() * 60 + local.minute()).unwrap_or(0));
        let over_midnight = self.to <= self.from;
        let began = if over_midnight && minute < self.to {
            local.date().pred_opt()
        } else if self.from <= minute && (over_midnight || minute < self.to) {
            Some(local.date())
        } else {
            None
        };
        began.is_some_and(|day| self.days.contain(day.weekday()) && self.except.binary_search(&day).is_err())
    }
}

impl fmt::Display for Window {
    /// `mon,tue 09:00-12:00 Asia/Shanghai`; every day has no days.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != Weekdays::EVERY {
            let days: Vec<_> = self.days.names().collect();
            write!(f, "{} ", days.join(","))?;
        }
        write!(f, "{}-{} {}", self.from, self.to, self.zone)?;
        if !self.except.is_empty() {
            write!(f, " except")?;
        }
        for day in &self.except {
            write!(f, " {day}")?;
        }
        Ok(())
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(zone: &str, days: &[&str], from: &str, to: &str) -> Window {
        Window {
            zone: zone.parse().unwrap(),
            days: Weekdays::parse(days.iter().copied()).unwrap_or(Weekdays::EVERY),
            from: WallTime::parse(from).unwrap(),
            to: WallTime::parse(to).unwrap(),
            except: Vec::new(),
        }
    }

    fn holds(window: &Window, at: &str) -> bool {
        let at = EventTime::parse(at).unwrap();
        Window::first_holding(std::slice::from_ref(window), at).is_some()
    }

    #[test]
    fn a_window_holds_from_its_start_up_to_and_not_with_its_end() {
        let night = window("UTC", &[], "16:30", "00:30");
        for (at, expected) in [
            ("2025-03-01T16:29:59.999999Z", false),
            ("2025-03-01T16:30:00Z", true),
            ("2025-03-01T23:59:59Z", true),
            ("2025-03-02T00:00:00Z", true),
            ("2025-03-02T00:29:59.999999Z", true),
            ("2025-03-02T00:30:00Z", false),
        ] {
            assert_eq!(holds(&night, at), expected, "{at}");
        }
        let day = window("UTC", &[], "00:00", "24:00");
        assert!(holds(&day, "2025-03-02T00:00:00Z") && holds(&day, "2025-03-02T23:59:59Z"));
        let whole = window("UTC", &["sat"], "00:00", "00:00");
        assert!(holds(&whole, "2026-11-21T00:00:00Z") && holds(&whole, "2026-11-21T23:59:59Z"));
        assert!(!holds(&whole, "2026-11-22T00:00:00Z"));
    }

    #[test]
    fn over_midnight_the_day_of_the_week_is_the_one_it_began_on() {
        let friday_night = window("UTC", &["fri"], "22:00", "02:00");
        assert!(holds(&friday_night, "2026-11-20T23:00:00Z"));
        assert!(holds(&friday_night, "2026-11-21T01:59:00Z"));
        assert!(!holds(&friday_night, "2026-11-20T01:00:00Z"));
        assert!(!holds(&friday_night, "2026-11-21T22:00:00Z"));
    }

    #[test]
    fn when_the_clock_goes_back_both_passes_through_the_hour_are_in_the_window() {
        // Berlin, 2026-10-25: 03:00 CEST becomes 02:00 CET.
        let early = window("Europe/Berlin", &[], "02:00", "03:00");
        for (at, expected) in [
            ("2026-10-24T23:59:59Z", false),
            ("2026-10-25T00:00:00Z", true),
            ("2026-10-25T00:59:59Z", true),
            ("2026-10-25T01:00:00Z", true),
            ("2026-10-25T01:59:59Z", true),
            ("2026-10-25T02:00:00Z", false),
        ] {
            assert_eq!(holds(&early, at), expected, "{at}");
        }
    }

    #[test]
    fn when_the_clock_goes_forward_the_hour_that_does_not_exist_is_empty() {
        // Berlin, 2026-03-29: 02:00 CET becomes 03:00 CEST.
        let early = window("Europe/Berlin", &[], "02:00", "03:00");
        assert!(!holds(&early, "2026-03-29T00:59:59Z"));
        assert!(!holds(&early, "2026-03-29T01:00:00Z"));
        let late = window("Europe/Berlin", &[], "03:00", "04:00");
        assert!(holds(&late, "2026-03-29T01:00:00Z"));
        assert!(holds(&late, "2026-03-30T01:00:00Z"));
        assert!(holds(&late, "2026-03-28T02:00:00Z"));
    }

    #[test]
    fn excepted_days_are_days_on_which_it_does_not_begin() {
        let mut peak = window("Asia/Shanghai", &["mon", "tue", "wed", "thu", "fri"], "09:00", "12:00");
        assert!(holds(&peak, "2026-10-01T01:00:00Z"));
        peak.except = vec![NaiveDate::from_ymd_opt(2026, 10, 1).unwrap()];
        assert!(!holds(&peak, "2026-10-01T01:00:00Z"));
        assert!(holds(&peak, "2026-09-30T03:59:59Z"));
    }

    #[test]
    fn clock_times_and_days_are_read_strictly() {
        for text in ["16:30", "00:00", "24:00"] {
            assert_eq!(WallTime::parse(text).map(|time| time.to_string()).as_deref(), Some(text));
        }
        for text in ["24:01", "12:60", "1:30", "12:3", "12", "12:30:00", "+1:30", ""] {
            assert_eq!(WallTime::parse(text), None, "{text}");
        }
        let days = Weekdays::parse(["Monday", "sun"]).unwrap();
        assert_eq!(days.names().collect::<Vec<_>>(), ["mon", "sun"]);
        assert_eq!(Weekdays::from_iso(&[1, 7]), Some(days));
        assert_eq!(Weekdays::parse(["day"]), None);
        assert_eq!(Weekdays::from_iso(&[0]), None);
    }
}
