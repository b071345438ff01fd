//! Two books side by side: what changed ([`diff`]), and where two sources disagree on what both price ([`verify`]).
//!
//! Books are compared by their entries, one price of one meter each. `diff` holds like against like: the same provider,
//! model, meter, tier, length, hours, region and start. `verify` asks what each book charges for the same thing at one
//! instant, and finds models in either by the rules of [`crate::matching`], so it can hold a catalog against an import.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::book::{Book, PriceEntry};
use crate::meter::Meter;
use crate::money::Money;
use crate::rates::ServiceTier;
use crate::time::EventTime;

/// What a price is a price of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PriceKey {
    pub provider: String,
    pub model: String,
    pub meter: Meter,
    pub service_tier: ServiceTier,
    pub above_input: u64,
    pub above_units: u64,
    pub window: Option<Arc<str>>,
    pub region: Option<Arc<str>>,
    pub valid_from: Option<EventTime>,
}

impl PriceKey {
    fn of(entry: &PriceEntry) -> PriceKey {
        PriceKey {
            provider: entry.provider.to_ascii_lowercase(),
            model: entry.model.to_ascii_lowercase(),
            meter: entry.meter,
            service_tier: entry.service_tier,
            above_input: entry.above_input,
            above_units: entry.above_units,
            window: entry.window.clone(),
            region: entry.region.clone(),
            valid_from: entry.valid_from,
        }
    }
}

/// One price that differs: only in the first book (`after` is `None`), only in the second, or in both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PriceChange {
    #[serde(flatten)]
    pub key: PriceKey,
    /// USD per single unit.
    pub before: Option<Money>,
    pub after: Option<Money>,
}

/// What is not the same in two books.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BookDiff {
    pub models_added: Vec<(String, String)>,
    pub models_removed: Vec<(String, String)>,
    /// In models of both books, by key.
    pub prices: Vec<PriceChange>,
    pub prices_same: usize,
}

/// The changes that lead from `before` to `after`.
#[must_use]
pub fn diff(before: &Book, after: &Book) -> BookDiff {
    let models = |book: &Book| -> BTreeSet<(String, String)> {
        book.entries().map(|entry| (entry.provider.to_ascii_lowercase(), entry.model.to_ascii_lowercase())).collect()
    };
    let prices = |book: &Book| -> BTreeMap<PriceKey, Money> {
        book.entries().map(|entry| (PriceKey::of(&entry), entry.unit_price)).collect()
    };
    let (models_before, models_after) = (models(before), models(after));
    let mut found = BookDiff {
        models_added: models_after.difference(&models_before).cloned().collect(),
        models_removed: models_before.difference(&models_after).cloned().collect(),
        ..BookDiff::default()
    };
    let (before, mut after) = (prices(before), prices(after));
    let in_both = |key: &PriceKey| {
        let model = (key.provider.clone(), key.model.clone());
        models_before.contains(&model) && models_after.contains(&model)
    };
    for (key, price) in before {
        let other = after.remove(&key);
        if other == Some(price) {
            found.prices_same += 1;
        } else if in_both(&key) {
            found.prices.push(PriceChange { key, before: Some(price), after: other });
        }
    }
    let added = after.into_iter().filter(|(key, _)| in_both(key));
    found.prices.extend(added.map(|(key, price)| PriceChange { key, before: None, after: Some(price) }));
    found.prices.sort_by(|a, b| a.key.cmp(&b.key));
    found
}

/// One thing that two sources price differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disagreement {
    pub provider: String,
    pub model: String,
    /// What the other book calls the model.
    pub other_model: String,
    pub meter: Meter,
    pub service_tier: ServiceTier,
    pub above_input: u64,
    /// USD per single unit at that instant; `None`: the book has no rate.
    pub price: Option<Money>,
    pub other_price: Option<Money>,
}

/// How far two sources agree at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Models of the first book that the other prices too.
    pub models_in_both: usize,
    /// Of those, the ones of which no price that both list differs.
    pub models_agreeing: usize,
    pub models_only_here: Vec<(String, String)>,
    pub prices_agreeing: usize,
    pub disagreements: Vec<Disagreement>,
}

/// Holds every model of `book` against `other`, at the prices in force at `at`. Rates that only one of them lists are
/// disagreements as well: it prices what the other leaves unpriced, or takes by a fallback.
#[must_use]
pub fn verify(book: &Book, other: &Book, at: EventTime) -> Verification {
    type Rates = BTreeMap<(Meter, ServiceTier, u64), Money>;
    let in_force = |book: &Book| -> BTreeMap<(Arc<str>, Arc<str>), Rates> {
        let mut models: BTreeMap<_, Rates> = BTreeMap::new();
        for entry in book.entries().filter(|entry| holds(entry, at)) {
            let rates = models.entry((Arc::clone(&entry.provider), Arc::clone(&entry.model))).or_default();
            rates.insert((entry.meter, entry.service_tier, entry.above_input), entry.unit_price);
        }
        models
    };
    let theirs = in_force(other);
    let mut found = Verification::default();
    for ((provider, model), rates) in in_force(book) {
        let plan = other.plan(&provider, &model).ok();
        let key = plan.as_ref().map(|plan| (Arc::from(plan.provider()), Arc::from(plan.model())));
        let Some((key, other_rates)) = key.and_then(|key| theirs.get(&key).map(|rates| (key, rates))) else {
            found.models_only_here.push((provider.to_string(), model.to_string()));
            continue;
        };
        found.models_in_both += 1;
        let mut agrees = true;
        let things: BTreeSet<_> = rates.keys().chain(other_rates.keys()).copied().collect();
        for thing in things {
            let (price, other_price) = (rates.get(&thing).copied(), other_rates.get(&thing).copied());
            if price == other_price {
                found.prices_agreeing += 1;
                continue;
            }
            agrees &= price.is_none() || other_price.is_none();
            let (meter, service_tier, above_input) = thing;
            found.disagreements.push(Disagreement {
                provider: provider.to_string(),
                model: model.to_string(),
                other_model: key.1.to_string(),
                meter,
                service_tier,
                above_input,
                price,
                other_price,
            });
        }
        found.models_agreeing += usize::from(agrees);
    }
    found
}

/// Whether an entry is in force at an instant, at hours and in regions without prices of their own.
fn holds(entry: &PriceEntry, at: EventTime) -> bool {
    entry.window.is_none()
        && entry.region.is_none()
        && entry.above_units == 0
        && entry.valid_from.is_none_or(|from| from <= at)
        && entry.valid_to.is_none_or(|to| at < to)
}
