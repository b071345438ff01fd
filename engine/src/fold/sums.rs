//! What is kept for one window and one set of dimensions, and how two of them add up.

use costhelm_pricing::{EventTime, Money, Usage};

use crate::event::UsageEvent;

/// Sums over events. Addition is checked: at [`crate::event::COUNT_MAX`] a count, a window would need 10⁸ of the largest
/// possible events before a 64-bit sum ends, and that stops the engine rather than wrap (MONEY-2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub events: u64,
    /// Events without a price; their cost is not part of `cost` (RATE-3).
    pub unpriced: u64,
    /// Events that came after their partition's watermark had passed them.
    pub late: u64,
    pub cost: Money,
    pub reported_cost: Money,
    pub usage: Usage,
    pub duration_ms: u64,
    pub mcp_overhead_ms: u64,
}

impl Sums {
    pub fn of(event: &UsageEvent<'_>, cost: Option<Money>, late: bool) -> Sums {
        Sums {
            events: 1,
            unpriced: u64::from(cost.is_none()),
            late: u64::from(late),
            cost: cost.unwrap_or(Money::ZERO),
            reported_cost: event.reported_cost.unwrap_or(Money::ZERO),
            usage: event.usage,
            duration_ms: event.duration_ms.unwrap_or(0),
            mcp_overhead_ms: event.mcp_overhead_ms.unwrap_or(0),
        }
    }

    pub fn add(&mut self, other: &Sums) {
        let fits = "MONEY-2: sums fit their columns";
        self.events += other.events;
        self.unpriced += other.unpriced;
        self.late += other.late;
        self.cost = self.cost.checked_add(other.cost).expect(fits);
        self.reported_cost = self.reported_cost.checked_add(other.reported_cost).expect(fits);
        self.usage = self.usage.checked_add(&other.usage).expect(fits);
        self.duration_ms = self.duration_ms.checked_add(other.duration_ms).expect(fits);
        self.mcp_overhead_ms = self.mcp_overhead_ms.checked_add(other.mcp_overhead_ms).expect(fits);
    }
}

/// The start of a window: an [`EventTime`] at a whole minute, hour, day or month of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowStart(pub i64);

/// Before every event: where the stream's clock stands until the first one.
pub const BEFORE_ALL: EventTime = EventTime(i64::MIN / 4);

/// The sizes of window, from the finest to the coarsest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Grain {
    Minute,
    Hour,
    Day,
    Month,
}

pub const MINUTE_US: i64 = 60_000_000;
pub const HOUR_US: i64 = 60 * MINUTE_US;
pub const DAY_US: i64 = 24 * HOUR_US;

impl Grain {
    pub const ALL: [Grain; 4] = [Grain::Minute, Grain::Hour, Grain::Day, Grain::Month];

    pub const fn name(self) -> &'static str {
        match self {
            Grain::Minute => "minute",
            Grain::Hour => "hour",
            Grain::Day => "day",
            Grain::Month => "month",
        }
    }

    /// The window that holds `time` (TIME-1). Euclidean, so that times before 1970 fall into their own window too.
    pub fn window(self, time: EventTime) -> WindowStart {
        let floor = |size: i64| WindowStart(time.0 - time.0.rem_euclid(size));
        match self {
            Grain::Minute => floor(MINUTE_US),
            Grain::Hour => floor(HOUR_US),
            Grain::Day => floor(DAY_US),
            Grain::Month => WindowStart(month_start_us(time.0)),
        }
    }
}

fn month_start_us(time_us: i64) -> i64 {
    use chrono::{DateTime, Datelike};
    let day_start = time_us - time_us.rem_euclid(DAY_US);
    // Event times are bounded by their parser to years that chrono knows.
    let day = DateTime::from_timestamp_micros(day_start).map_or(1, |date| date.day());
    day_start - i64::from(day - 1) * DAY_US
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_starts_at_or_before_its_events_even_before_1970() {
        let time = EventTime::parse("1969-12-31T23:59:30Z").unwrap();
        assert_eq!(Grain::Minute.window(time).0, -MINUTE_US);
        assert_eq!(Grain::Hour.window(time).0, -HOUR_US);
        assert_eq!(Grain::Month.window(time), WindowStart(EventTime::parse("1969-12-01").unwrap().0));
    }

    #[test]
    fn ten_million_calls_of_one_token_at_15_cents_a_million_sum_to_exactly_1_5() {
        let book = costhelm_pricing::Book::builtin().unwrap();
        let plan = book.plan("openai", "gpt-4o-mini").unwrap();
        let usage = costhelm_pricing::usage_from_json(r#"{"input": 1}"#).unwrap().normalize().unwrap();
        let at = EventTime::parse("2026-11-22T10:00:00Z").unwrap();
        let rated = plan.rate(&usage, at, costhelm_pricing::ServiceTier::Standard).unwrap();
        let call = Sums { events: 1, cost: rated.cost, usage, ..Sums::default() };
        let mut total = Sums::default();
        for _ in 0..10_000_000 {
            total.add(&call);
        }
        assert_eq!((total.cost.to_string().as_str(), total.events), ("1.5", 10_000_000));
    }

    #[test]
    fn the_last_microsecond_of_february_in_a_leap_year_is_in_february() {
        let time = EventTime::parse("2024-02-29T23:59:59.999999Z").unwrap();
        assert_eq!(Grain::Month.window(time), WindowStart(EventTime::parse("2024-02-01").unwrap().0));
        assert_eq!(Grain::Day.window(time), WindowStart(EventTime::parse("2024-02-29").unwrap().0));
    }
}
