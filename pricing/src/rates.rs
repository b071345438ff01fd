//! From the rates a price lists to the rate sets rows are charged by.
//!
//! A price lists standard rates, larger rates for long requests (`above`), ranges of a meter (`graduated`) and service
//! tiers. When a book is loaded, it becomes one *lane* per service tier: a rate set for short
//! requests and one for each length. A rate set is complete: everything below is decided here, once, and not per row.
//!
//! | what is not listed | is charged as |
//! | --- | --- |
//! | a meter in an `above` of standard rates | the next lower length |
//! | a service tier | standard (asking for a tier the provider does not price changes nothing) |
//! | a meter in a tier with `multiplier` | the standard rate of that length; token meters times the multiplier |
//! | a meter in a tier without `multiplier` | the standard rate of that length |
//! | a length, in a tier that lists rates of its own without `multiplier` and without any `above` | [`Unpriced::NoRateForLength`]: standard rates say that length matters, the tier does not say how much |
//! | `reasoning` | `output` |
//! | `cache_read` | `input`: the provider gives no discount |
//! | `cache_write_*`, if none of the three is listed | `input`: the provider takes no surcharge |
//! | `cache_write_*`, if another of the three is listed | [`Unpriced::NoRate`] |
//! | `requests`, `tool_calls` | free |
//! | every other meter | [`Unpriced::NoRate`] where there is usage of it (RATE-3) |
//!
//! A fallback never copies a graduated rate: ranges count one meter, and two counts cannot share them.
//!
//! Some hours have rates of their own (`window`): they lie over the standard rates like a service tier
//! does, and the tiers then lie over them; so a tier's own rates hold at every hour. Regions multiply the token rates
//! that come out. The first window that holds decides; without one, and in a region that is not listed, nothing
//! changes.
//!
//! The length of a request is all its input-side tokens, cached or not. It is *above* a threshold when it is greater;
//! then the whole request is charged at that length. A graduated range charges only the units above its start.
//!
//! Limits: a unit price is at most 10⁶ USD; 16 thresholds per set; 32 windows and 16 regions a price.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::ser::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::meter::Meter;
use crate::money::Money;
#[cfg(doc)]
use crate::unpriced::Unpriced;
use crate::usage::Usage;
use crate::window::Window;

/// The class of service a request was sent with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ServiceTier {
    #[default]
    Standard,
    Batch,
    Flex,
    Priority,
}

impl ServiceTier {
    pub const COUNT: usize = 4;
    pub const ALL: [ServiceTier; ServiceTier::COUNT] =
        [ServiceTier::Standard, ServiceTier::Batch, ServiceTier::Flex, ServiceTier::Priority];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ServiceTier::Standard => "standard",
            ServiceTier::Batch => "batch",
            ServiceTier::Flex => "flex",
            ServiceTier::Priority => "priority",
        }
    }

    /// The tier of a name, in the words providers use in their responses; capitals do not matter.
    ///
    /// `default` and `on_demand` are standard. `auto` is `None`: it asks for a tier without saying which one was given.
    #[must_use]
    pub fn from_name(name: &str) -> Option<ServiceTier> {
        const NAMES: [(&str, ServiceTier); 11] = [
            ("standard", ServiceTier::Standard),
            ("default", ServiceTier::Standard),
            ("on_demand", ServiceTier::Standard),
            ("on-demand", ServiceTier::Standard),
            ("batch", ServiceTier::Batch),
            ("batches", ServiceTier::Batch),
            ("on_demand_batch", ServiceTier::Batch),
            ("flex", ServiceTier::Flex),
            ("on_demand_flex", ServiceTier::Flex),
            ("priority", ServiceTier::Priority),
            ("on_demand_priority", ServiceTier::Priority),
        ];
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, tier)| *tier)
    }
}

impl fmt::Display for ServiceTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for ServiceTier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The highest price of one unit that a book may list.
pub(crate) const UNIT_PRICE_MAX: Money = Money::from_atto(1_000_000 * Money::ATTO_PER_USD);
pub(crate) const THRESHOLDS_MAX: usize = 16;
pub(crate) const REGIONS_MAX: usize = 16;

/// Prices of one unit as listed, by meter.
pub(crate) type Listed = BTreeMap<Meter, Money>;

/// Rates as listed: for every length, and by range.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct RateSpec {
    pub listed: Listed,
    /// Rates of whole requests with more input-side tokens than the key.
    pub above: BTreeMap<u64, Listed>,
    /// Rates of the units of a meter beyond the key.
    pub graduated: BTreeMap<u64, Listed>,
}

impl RateSpec {
    fn lists_nothing(&self) -> bool {
        self.listed.is_empty() && self.above.is_empty() && self.graduated.is_empty()
    }
}

/// A service tier as listed.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct TierSpec {
    pub multiplier: Option<Factor>,
    pub rates: RateSpec,
}

/// Hours with rates of their own.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct WindowSpec {
    pub window: Window,
    pub rates: TierSpec,
}

/// Regions in which the token rates are multiplied.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct RegionSpec {
    /// In small letters, sorted.
    pub names: Vec<String>,
    pub multiplier: Factor,
}

/// The lanes of one window and one region, by service tier.
pub(crate) type Lanes = [Lane; ServiceTier::COUNT];

/// An exact decimal factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Factor {
    numerator: i128,
    denominator: i128,
}

impl Factor {
    /// Of a decimal between 0 and 100.
    pub(crate) fn new(decimal: Money) -> Option<Factor> {
        let (mut numerator, mut denominator) = (decimal.atto(), Money::ATTO_PER_USD);
        if !(0..=100 * Money::ATTO_PER_USD).contains(&numerator) {
            return None;
        }
        while denominator > 1 && numerator % 10 == 0 {
            numerator /= 10;
            denominator /= 10;
        }
        Some(Factor { numerator, denominator })
    }

    /// `None` where the product has more than 18 decimals (MONEY-2).
    fn times(self, price: Money) -> Option<Money> {
        let product = price.atto().checked_mul(self.numerator)?;
        if product % self.denominator != 0 {
            return None;
        }
        Money::try_from_atto(product / self.denominator)
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Money::from_atto(self.numerator * (Money::ATTO_PER_USD / self.denominator)).fmt(f)
    }
}

impl Serialize for Factor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The rates of one length with everything inherited, before the fallbacks between meters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Effective {
    pub flat: Listed,
    /// By meter: where a range starts (never 0: that is `flat`) and its price.
    pub graduated: BTreeMap<Meter, BTreeMap<u64, Money>>,
}

impl Effective {
    /// Lays listed rates over these; a meter that is listed anew loses its ranges.
    fn lay(&mut self, listed: &Listed) {
        for (meter, price) in listed {
            self.flat.insert(*meter, *price);
            self.graduated.remove(meter);
        }
    }

    fn lay_ranges(&mut self, ranges: &BTreeMap<u64, Listed>) {
        for (start, listed) in ranges {
            for (meter, price) in listed {
                self.graduated.entry(*meter).or_default().insert(*start, *price);
            }
        }
    }

    fn multiply(&mut self, factor: Factor) -> Result<(), Meter> {
        let ranges =
            self.graduated.iter_mut().flat_map(|(meter, ranges)| ranges.values_mut().map(|price| (*meter, price)));
        for (meter, price) in self.flat.iter_mut().map(|(meter, price)| (*meter, price)).chain(ranges) {
            // Searches, pages and the like cost the same in every tier: tiers discount tokens.
            if meter.is_token() {
                *price = factor.times(*price).ok_or(meter)?;
            }
        }
        Ok(())
    }
}

/// What one service tier charges, by length.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub base: Effective,
    pub above: BTreeMap<u64, Effective>,
    /// The length from which on the tier's rates are not known.
    pub unknown_above: Option<u64>,
}

impl Lane {
    pub(crate) fn standard(spec: &RateSpec) -> Lane {
        let mut base = Effective::default();
        base.lay(&spec.listed);
        base.lay_ranges(&spec.graduated);
        let mut above = BTreeMap::new();
        let mut length = base.clone();
        for (threshold, listed) in &spec.above {
            length.lay(listed);
            above.insert(*threshold, length.clone());
        }
        Lane { base, above, unknown_above: None }
    }

    /// The lane of a tier over the standard lane.
    ///
    /// # Errors
    /// The meter whose price times the multiplier has more than 18 decimals.
    pub(crate) fn tier(standard: &Lane, spec: &TierSpec) -> Result<Lane, Meter> {
        let mut lane = standard.clone();
        if let Some(factor) = spec.multiplier {
            lane.base.multiply(factor)?;
            lane.above.values_mut().try_for_each(|length| length.multiply(factor))?;
        } else if !spec.rates.lists_nothing() && spec.rates.above.is_empty() {
            lane.unknown_above = lane.above.keys().next().copied();
            lane.above.clear();
        } else {
            // The tier's own rates hold at every length until it lists another.
            lane.above.values_mut().for_each(|length| length.lay(&spec.rates.listed));
        }
        lane.base.lay(&spec.rates.listed);
        lane.base.lay_ranges(&spec.rates.graduated);
        let mut own = Listed::new();
        for (threshold, listed) in &spec.rates.above {
            own.extend(listed);
            if !lane.above.contains_key(threshold) {
                let below = lane.above.range(..threshold).next_back().map_or(&lane.base, |(_, length)| length).clone();
                lane.above.insert(*threshold, below);
            }
            for (_, length) in lane.above.range_mut(threshold..) {
                length.lay(&own);
            }
        }
        Ok(lane)
    }

    /// This lane with its token rates multiplied.
    ///
    /// # Errors
    /// The meter whose price times the multiplier has more than 18 decimals.
    pub(crate) fn multiplied(&self, factor: Factor) -> Result<Lane, Meter> {
        let mut lane = self.clone();
        lane.base.multiply(factor)?;
        lane.above.values_mut().try_for_each(|length| length.multiply(factor))?;
        Ok(lane)
    }

    fn lengths(&self) -> impl Iterator<Item = (u64, &Effective)> {
        std::iter::once((0, &self.base)).chain(self.above.iter().map(|(threshold, length)| (*threshold, length)))
    }

    /// `(above_input, units_above, meter, price)` of every rate, fallbacks left out.
    pub(crate) fn rates(&self) -> impl Iterator<Item = (u64, u64, Meter, Money)> {
        self.lengths().flat_map(|(threshold, length)| {
            let flat = length.flat.iter().map(move |(meter, price)| (threshold, 0, *meter, *price));
            let ranges = length.graduated.iter().flat_map(move |(meter, ranges)| {
                ranges.iter().map(move |(start, price)| (threshold, *start, *meter, *price))
            });
            flat.chain(ranges)
        })
    }
}

/// A complete set of unit prices: what a row is charged by, and what the ledger keeps beside it.
#[derive(Clone, Debug)]
pub(crate) struct RateSet {
    /// By meter, in units of 10⁻¹⁸ USD; `UNPRICED` where there is no rate.
    prices: [u128; Meter::COUNT],
    graduated: Box<[Ranges]>,
    pub text: Arc<str>,
    pub id: u64,
}

#[derive(Clone, Debug)]
struct Ranges {
    meter: Meter,
    /// (start, price) by start; the first starts at 0.
    steps: Box<[(u64, u128)]>,
}

const UNPRICED: u128 = u128::MAX;

/// Why a set cannot charge a usage.
pub(crate) enum Refused {
    NoRate(Meter),
    Overflow,
}

impl RateSet {
    pub(crate) fn new(rates: &Effective) -> RateSet {
        let mut prices = [UNPRICED; Meter::COUNT];
        for (meter, price) in &rates.flat {
            prices[meter.index()] = price.atto().unsigned_abs();
        }
        let fallback = |meter: Meter, prices: &mut [u128; Meter::COUNT], from: Meter| {
            if prices[meter.index()] == UNPRICED && !rates.graduated.contains_key(&from) {
                prices[meter.index()] = prices[from.index()];
            }
        };
        fallback(Meter::Reasoning, &mut prices, Meter::Output);
        fallback(Meter::CacheRead, &mut prices, Meter::Input);
        if Meter::CACHE_WRITES.iter().all(|meter| prices[meter.index()] == UNPRICED) {
            Meter::CACHE_WRITES.into_iter().for_each(|meter| fallback(meter, &mut prices, Meter::Input));
        }
        let graduated: Box<[Ranges]> = rates
            .graduated
            .iter()
            .map(|(meter, ranges)| {
                let first = (0, prices[meter.index()]);
                let later = ranges.iter().map(|(start, price)| (*start, price.atto().unsigned_abs()));
                Ranges { meter: *meter, steps: std::iter::once(first).chain(later).collect() }
            })
            .collect();
        let text = unit_prices_text(&prices, &graduated);
        for free_by_rule in [Meter::Requests, Meter::ToolCalls] {
            let price = &mut prices[free_by_rule.index()];
            if *price == UNPRICED {
                *price = 0;
            }
        }
        RateSet { prices, graduated, id: content_id(&text), text: text.into() }
    }

    /// Charges 0 for everything: a model declared free.
    pub(crate) fn free() -> RateSet {
        let text = "{}";
        RateSet { prices: [0; Meter::COUNT], graduated: Box::default(), id: content_id(text), text: text.into() }
    }

    #[inline]
    pub(crate) fn cost(&self, usage: &Usage) -> Result<Money, Refused> {
        let mut total = 0_u128;
        for (index, (count, price)) in usage.counts().iter().zip(&self.prices).enumerate() {
            if *count == 0 {
                continue;
            }
            if *price == UNPRICED {
                return Err(Refused::NoRate(Meter::ALL[index]));
            }
            let amount = price.checked_mul(u128::from(*count)).ok_or(Refused::Overflow)?;
            total = total.checked_add(amount).ok_or(Refused::Overflow)?;
        }
        if !self.graduated.is_empty() {
            total = self.with_ranges(total, usage).ok_or(Refused::Overflow)?;
        }
        i128::try_from(total).ok().and_then(Money::try_from_atto).ok_or(Refused::Overflow)
    }

    /// Replaces the flat charge of the graduated meters by the sum over their ranges.
    fn with_ranges(&self, flat_total: u128, usage: &Usage) -> Option<u128> {
        let mut total = flat_total;
        for Ranges { meter, steps } in &self.graduated {
            let count = usage.get(*meter);
            total = total.checked_sub(steps[0].1.checked_mul(u128::from(count))?)?;
            for (position, (start, price)) in steps.iter().enumerate() {
                let end = steps.get(position + 1).map_or(u64::MAX, |(next, _)| *next);
                let units = count.min(end).saturating_sub(*start);
                total = total.checked_add(price.checked_mul(u128::from(units))?)?;
            }
        }
        Some(total)
    }
}

fn content_id(text: &str) -> u64 {
    Sha256::digest(text.as_bytes()).iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

/// `{"input":"0.000003","output":"0.000015"}`; a graduated meter is `{"0":"0.000003","128000":"0.000006"}`.
fn unit_prices_text(prices: &[u128; Meter::COUNT], graduated: &[Ranges]) -> String {
    let usd = |price: u128| Money::from_atto(i128::try_from(price).unwrap_or_default());
    let mut text = String::from("{");
    for meter in Meter::ALL.into_iter().filter(|meter| prices[meter.index()] != UNPRICED) {
        if text.len() > 1 {
            text.push(',');
        }
        // Writing to a String cannot fail.
        let _ = match graduated.iter().find(|ranges| ranges.meter == meter) {
            None => write!(text, "\"{meter}\":\"{}\"", usd(prices[meter.index()])),
            Some(ranges) => {
                let steps = ranges.steps.iter().map(|(start, price)| format!("\"{start}\":\"{}\"", usd(*price)));
                write!(text, "\"{meter}\":{{{}}}", steps.collect::<Vec<_>>().join(","))
            }
        };
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_tiers_are_found_by_their_names_and_by_providers_words() {
        for tier in ServiceTier::ALL {
            assert_eq!(ServiceTier::from_name(&tier.name().to_uppercase()), Some(tier));
        }
        assert_eq!(ServiceTier::from_name("default"), Some(ServiceTier::Standard));
        assert_eq!(ServiceTier::from_name("ON_DEMAND_PRIORITY"), Some(ServiceTier::Priority));
        assert_eq!(ServiceTier::from_name("auto"), None);
        assert_eq!(ServiceTier::from_name(""), None);
    }

    #[test]
    fn a_factor_multiplies_exactly_or_not_at_all() {
        let half = Factor::new("0.5".parse().unwrap()).unwrap();
        assert_eq!(half.times(Money::from_atto(30)), Some(Money::from_atto(15)));
        assert_eq!(half.times(Money::from_atto(31)), None);
        assert_eq!(half.to_string(), "0.5");
        assert_eq!(Factor::new("1".parse().unwrap()).unwrap().times(UNIT_PRICE_MAX), Some(UNIT_PRICE_MAX));
        assert_eq!(Factor::new("100.1".parse().unwrap()), None);
        assert_eq!(Factor::new("-1".parse().unwrap()), None);
    }
}
