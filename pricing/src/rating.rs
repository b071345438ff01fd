//! Usage times price (RATE-1): a [`Plan`] is one model's whole price timeline, and [`Plan::rate`] is a pure function of
//! usage, event time and service tier.
//!
//! A price is in force from its `from` until the next one's: `[from, next.from)`. The row is charged by one rate set
//! (see [`crate::rates`]); which one is returned as a [`RatesRef`], and its unit prices as text go to the ledger, so
//! that anyone can [`recompute`] the row.
//!
//! Limits: no allocation where the row is priced; a cost stays below 10²⁰ USD.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::book::PriceSpec;
use crate::matching::MatchKind;
use crate::meter::Meter;
use crate::money::Money;
use crate::rates::{Effective, Lane, Lanes, RateSet, Refused, ServiceTier};
use crate::time::EventTime;
use crate::unpriced::Unpriced;
use crate::usage::Usage;
use crate::window::Window;

/// A rated row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rated {
    pub cost: Money,
    pub rates: RatesRef,
}

/// Which unit prices a row was charged by.
///
/// Equal exactly where the unit prices are equal, in any book and any process: it is made from their content, so it can
/// key a dictionary across reloads. [`Plan::unit_prices`] and [`crate::Book::unit_prices`] give the prices themselves.
#[derive(Clone, Copy, Debug)]
pub struct RatesRef {
    id: u64,
    /// Where the set is in the plan that made this reference.
    slot: u32,
}

impl RatesRef {
    /// The first 64 bits of the SHA-256 of the unit prices' text.
    #[must_use]
    pub const fn id(self) -> u64 {
        self.id
    }
}

impl PartialEq for RatesRef {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for RatesRef {}

impl std::hash::Hash for RatesRef {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// One model's price timeline as an event's provider and model found it.
#[derive(Clone, Debug)]
pub struct Plan {
    timeline: Arc<Timeline>,
    matched_by: MatchKind,
}

impl Plan {
    pub(crate) fn new(timeline: Arc<Timeline>, matched_by: MatchKind) -> Plan {
        Plan { timeline, matched_by }
    }

    /// The provider as the price book names it.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.timeline.provider
    }

    /// The model as the price book names it.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.timeline.model
    }

    #[must_use]
    pub fn matched_by(&self) -> MatchKind {
        self.matched_by
    }

    /// Whether the model is declared free.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.timeline.periods.is_empty()
    }

    /// The cost of `usage` at the price in force at `at` (RATE-1).
    ///
    /// # Errors
    /// [`Unpriced`] where the book cannot say: before the first price, or for a meter without a rate (RATE-3).
    #[inline]
    pub fn rate(&self, usage: &Usage, at: EventTime, tier: ServiceTier) -> Result<Rated, Unpriced> {
        self.rate_in(usage, at, tier, None)
    }

    /// The same where it is known in which region the model ran, in the provider's own word; a region that the price
    /// does not list changes nothing.
    ///
    /// # Errors
    /// As [`Plan::rate`].
    #[inline]
    pub fn rate_in(
        &self,
        usage: &Usage,
        at: EventTime,
        tier: ServiceTier,
        region: Option<&str>,
    ) -> Result<Rated, Unpriced> {
        let timeline = &*self.timeline;
        let slot = if timeline.periods.is_empty() { 0 } else { timeline.slot(usage, at, tier, region)? };
        let set = &timeline.sets[slot as usize];
        match set.cost(usage) {
            Ok(cost) => Ok(Rated { cost, rates: RatesRef { id: set.id, slot } }),
            Err(Refused::NoRate(meter)) => Err(Unpriced::NoRate { model: Arc::clone(&timeline.model), meter }),
            Err(Refused::Overflow) => Err(Unpriced::Overflow { model: Arc::clone(&timeline.model) }),
        }
    }

    /// The cost of other usage at the unit prices a row was charged by: a part of the row, say.
    ///
    /// # Errors
    /// [`Unpriced`] for a meter without a rate.
    pub fn cost_at(&self, rates: &RatesRef, usage: &Usage) -> Result<Money, Unpriced> {
        let timeline = &*self.timeline;
        self.set(rates).cost(usage).map_err(|refused| match refused {
            Refused::NoRate(meter) => Unpriced::NoRate { model: Arc::clone(&timeline.model), meter },
            Refused::Overflow => Unpriced::Overflow { model: Arc::clone(&timeline.model) },
        })
    }

    /// The unit prices as a JSON object: meter to USD per single unit as an exact decimal string, in meter order.
    ///
    /// ```json
    /// {"input":"0.000003","cache_read":"0.0000003","output":{"0":"0.000015","128000":"0.00003"}}
    /// ```
    /// An object for a meter gives its ranges: the units above each key cost that. Fallbacks between meters are written
    /// out; a meter that is not there cost nothing (`requests` and `tool_calls` by rule, all of them on a free model),
    /// since a row with another such meter is unpriced.
    ///
    /// # Panics
    /// If `rates` is of a row rated by another plan, with prices that this plan does not have.
    #[must_use]
    pub fn unit_prices(&self, rates: &RatesRef) -> &str {
        &self.set(rates).text
    }

    fn set(&self, rates: &RatesRef) -> &RateSet {
        let sets = &self.timeline.sets;
        let set = sets.get(rates.slot as usize).filter(|set| set.id == rates.id);
        match set.or_else(|| sets.iter().find(|set| set.id == rates.id)) {
            Some(set) => set,
            None => panic!("RATE-1: rates {:016x} are not of the plan of `{}`", rates.id, self.timeline.model),
        }
    }
}

/// The compiled prices of a model; without periods the model is free.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    pub provider: Arc<str>,
    pub model: Arc<str>,
    /// By start.
    periods: Box<[Period]>,
    pub sets: Box<[RateSet]>,
}

#[derive(Clone, Debug)]
struct Period {
    from: EventTime,
    windows: Box<[Window]>,
    /// Names in small letters.
    regions: Box<[Box<[String]>]>,
    /// By window (first: none), then by region (first: none).
    grid: Box<[[LaneSlots; ServiceTier::COUNT]]>,
}

impl Period {
    #[inline]
    fn lanes(&self, at: EventTime, region: Option<&str>) -> &[LaneSlots; ServiceTier::COUNT] {
        if self.grid.len() == 1 { &self.grid[0] } else { self.lanes_there(at, region) }
    }

    fn lanes_there(&self, at: EventTime, region: Option<&str>) -> &[LaneSlots; ServiceTier::COUNT] {
        let window = Window::first_holding(&self.windows, at);
        let region = region.and_then(|region| {
            let named = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case(region));
            self.regions.iter().position(|names| named(names))
        });
        let (row, column) = (window.map_or(0, |window| window + 1), region.map_or(0, |region| region + 1));
        &self.grid[row * (self.regions.len() + 1) + column]
    }
}

#[derive(Clone, Debug)]
struct LaneSlots {
    base: u32,
    /// (threshold, slot), longest first.
    above: Box<[(u64, u32)]>,
    unknown_above: Option<u64>,
}

impl Timeline {
    pub(crate) fn free(provider: Arc<str>, model: Arc<str>) -> Timeline {
        Timeline { provider, model, periods: Box::default(), sets: Box::new([RateSet::free()]) }
    }

    /// `prices` is sorted by start.
    pub(crate) fn new(provider: Arc<str>, model: Arc<str>, prices: &[PriceSpec]) -> Timeline {
        let mut sets = Sets::default();
        let periods = prices.iter().map(|price| Period {
            from: price.from,
            windows: price.windows.iter().map(|window| window.window.clone()).collect(),
            regions: price.regions.iter().map(|region| region.names.clone().into()).collect(),
            grid: price.grid.iter().map(|lanes: &Lanes| lanes.each_ref().map(|lane| sets.lane(lane))).collect(),
        });
        let periods = periods.collect();
        Timeline { provider, model, periods, sets: sets.sets.into() }
    }

    #[inline]
    fn slot(&self, usage: &Usage, at: EventTime, tier: ServiceTier, region: Option<&str>) -> Result<u32, Unpriced> {
        // Nearly every event is at the latest price; timelines are short.
        let Some(period) = self.periods.iter().rev().find(|period| period.from <= at) else {
            let first_price = self.periods[0].from;
            return Err(Unpriced::NotYetPriced { model: Arc::clone(&self.model), at, first_price });
        };
        let lane = &period.lanes(at, region)[tier as usize];
        if lane.above.is_empty() && lane.unknown_above.is_none() {
            return Ok(lane.base);
        }
        let length = usage.input_tokens_total();
        if let Some(above) = lane.unknown_above.filter(|above| length > *above) {
            return Err(Unpriced::NoRateForLength { model: Arc::clone(&self.model), tier, above });
        }
        let above = lane.above.iter().find(|(threshold, _)| length > *threshold);
        Ok(above.map_or(lane.base, |(_, slot)| *slot))
    }
}

/// The rate sets of one timeline, each once.
#[derive(Default)]
struct Sets {
    sets: Vec<RateSet>,
    by_id: BTreeMap<u64, u32>,
}

impl Sets {
    fn lane(&mut self, lane: &Lane) -> LaneSlots {
        let base = self.slot(&lane.base);
        let above = lane.above.iter().rev().map(|(threshold, rates)| (*threshold, self.slot(rates))).collect();
        LaneSlots { base, above, unknown_above: lane.unknown_above }
    }

    fn slot(&mut self, rates: &Effective) -> u32 {
        let set = RateSet::new(rates);
        *self.by_id.entry(set.id).or_insert_with(|| {
            self.sets.push(set);
            u32::try_from(self.sets.len() - 1).unwrap_or(u32::MAX)
        })
    }
}

/// Why a ledger row cannot be recomputed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecomputeError {
    #[error("unit prices `{text}` are not a JSON object of meters and decimal strings: {message}")]
    NotUnitPrices { text: String, message: String },
    #[error("the recomputed cost is beyond 10^20 USD")]
    Overflow,
}

/// The cost of `usage` at unit prices as [`Plan::unit_prices`] writes them, by their text alone: the auditor's way,
/// which shares no code with [`Plan::rate`].
///
/// # Errors
/// Text that is not unit prices.
pub fn recompute(unit_prices: &str, usage: &Usage) -> Result<Money, RecomputeError> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Price {
        Flat(Money),
        Ranges(BTreeMap<String, Money>),
    }
    let bad = |message: String| RecomputeError::NotUnitPrices { text: unit_prices.to_owned(), message };
    let prices: BTreeMap<String, Price> = serde_json::from_str(unit_prices).map_err(|error| bad(error.to_string()))?;
    let mut total = Money::ZERO;
    let mut charge = |price: &Money, units: u64| -> Result<(), RecomputeError> {
        let amount = price.checked_mul(units).ok_or(RecomputeError::Overflow)?;
        total = total.checked_add(amount).ok_or(RecomputeError::Overflow)?;
        Ok(())
    };
    for (name, price) in &prices {
        let meter = Meter::ALL.into_iter().find(|meter| meter.name() == name);
        let count = usage.get(meter.ok_or_else(|| bad(format!("`{name}` is not a meter")))?);
        match price {
            Price::Flat(price) => charge(price, count)?,
            Price::Ranges(ranges) => {
                let mut steps = ranges
                    .iter()
                    .map(|(start, price)| {
                        Ok((start.parse::<u64>().map_err(|error| bad(format!("`{start}`: {error}")))?, price))
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                steps.sort_unstable_by_key(|(start, _)| std::cmp::Reverse(*start));
                let mut left = count;
                for (start, price) in steps {
                    let units = left.saturating_sub(start);
                    charge(price, units)?;
                    left -= units;
                }
            }
        }
    }
    Ok(total)
}
