//! The price book: who charges what, since when. Immutable; a change of prices is a new book with another revision.
//!
//! Texts are parsed ([`crate::format`]), put together and compiled: every model to its [`Timeline`], all names to an
//! index. Books lie over each other ([`Book::overlay`]): a user's own prices over the built-in catalog.
//!
//! The [`Book::revision`] is made from the content alone, in a canonical order: the order of files, models and keys,
//! the spelling of a price (`3.0`, `3.00`) and file names do not change it; a price, a date, a source, an alias do.
//!
//! Limits: 100,000 models.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::catalog;
use crate::format::{self, BookError, MODELS_MAX};
use crate::matching::{Explanation, Index};
use crate::meter::Meter;
use crate::money::Money;
use crate::rates::{Lanes, RateSpec, RegionSpec, ServiceTier, TierSpec, WindowSpec};
use crate::rating::{Plan, RatesRef, Timeline};
use crate::time::EventTime;
use crate::unpriced::Unpriced;

/// A provider as a book names it.
#[derive(Clone, Debug)]
pub(crate) struct ProviderSpec {
    pub name: Arc<str>,
    pub aliases: Vec<String>,
    pub origin: Arc<str>,
    pub line: usize,
}

/// One model of a book, checked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ModelSpec {
    pub provider: Arc<str>,
    pub name: Arc<str>,
    pub aliases: Vec<String>,
    pub patterns: Vec<String>,
    pub free: bool,
    /// By start.
    pub prices: Vec<PriceSpec>,
    /// How many books lie below the one it came from; a higher layer's names win.
    pub layer: u32,
    #[serde(skip)]
    pub origin: Arc<str>,
    #[serde(skip)]
    pub line: usize,
}

/// One price of a model, from a time on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PriceSpec {
    pub from: EventTime,
    pub source: Option<Arc<str>>,
    pub as_of: Option<EventTime>,
    pub standard: RateSpec,
    /// Batch, flex, priority.
    pub tiers: [Option<TierSpec>; 3],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<RegionSpec>,
    /// By window (first: none), then by region (first: none); see [`PriceSpec::lanes`].
    #[serde(skip)]
    pub grid: Vec<Lanes>,
}

impl PriceSpec {
    /// Every window (none first) with every region (none first), and the lanes there.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (Option<&WindowSpec>, Option<&RegionSpec>, &Lanes)> {
        let windows = std::iter::once(None).chain(self.windows.iter().map(Some));
        let cells = windows.flat_map(|window| {
            let regions = std::iter::once(None).chain(self.regions.iter().map(Some));
            regions.map(move |region| (window, region))
        });
        cells.zip(&self.grid).map(|((window, region), lanes)| (window, region, lanes))
    }
}

/// An immutable, compiled price book.
#[derive(Clone, Debug)]
pub struct Book {
    providers: BTreeMap<String, ProviderSpec>,
    models: Vec<ModelSpec>,
    timelines: Vec<Arc<Timeline>>,
    index: Index,
    /// Where the unit prices of a [`RatesRef`] are.
    texts: HashMap<u64, Arc<str>>,
    revision: Arc<str>,
}

/// One price of one meter, for a flat list of the book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PriceEntry {
    pub provider: Arc<str>,
    pub model: Arc<str>,
    pub meter: Meter,
    pub service_tier: ServiceTier,
    /// Holds for requests with more input-side tokens than this; 0: for all up to the next entry.
    pub above_input: u64,
    /// Holds for the units of the meter beyond this; 0: from the first on.
    pub above_units: u64,
    /// Holds in these hours only, such as `mon,tue 09:00-12:00 Asia/Shanghai`; `None`: at all hours without an entry of
    /// their own.
    pub window: Option<Arc<str>>,
    /// Holds in these regions only, such as `us,eu`; `None`: wherever there is no entry of their own.
    pub region: Option<Arc<str>>,
    /// USD per single unit.
    pub unit_price: Money,
    /// `None`: always (a model declared free).
    pub valid_from: Option<EventTime>,
    /// The first instant at which it no longer holds.
    pub valid_to: Option<EventTime>,
    pub source: Option<Arc<str>>,
    pub as_of: Option<EventTime>,
}

impl Book {
    /// The catalog that is compiled in.
    ///
    /// # Errors
    /// None that a released build can meet: a test loads the same files.
    pub fn builtin() -> Result<Book, BookError> {
        let files = catalog::FILES.iter().map(|(origin, text)| format::parse(text, origin));
        Book::of(files.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The book of one text; see [`crate::format`] for the form.
    ///
    /// # Errors
    /// What is wrong, with `origin` (a file name), line, key, value and what was expected.
    pub fn from_toml(text: &str, origin: &str) -> Result<Book, BookError> {
        Book::of(format::parse(text, origin)?)
    }

    /// This book with `over` laid over it: a model of `over` replaces the same (provider, name), and where an alias or
    /// pattern of both fits, the one of `over` wins.
    #[must_use]
    pub fn overlay(self, over: Book) -> Book {
        let above = self.models.iter().map(|model| model.layer + 1).max().unwrap_or(0);
        let replaced: BTreeSet<(String, String)> = over.models.iter().map(ModelSpec::key).collect();
        let mut models: Vec<ModelSpec> =
            self.models.into_iter().filter(|model| !replaced.contains(&model.key())).collect();
        models.extend(over.models.into_iter().map(|model| ModelSpec { layer: model.layer + above, ..model }));
        let mut providers = self.providers;
        // Aliases of providers that the upper book uses otherwise go to the upper book.
        let claimed: BTreeSet<String> = over
            .providers
            .values()
            .flat_map(|provider| provider.aliases.iter().map(|alias| alias.to_ascii_lowercase()))
            .collect();
        for provider in providers.values_mut() {
            provider.aliases.retain(|alias| {
                let alias = alias.to_ascii_lowercase();
                !claimed.contains(&alias) && !over.providers.contains_key(&alias)
            });
        }
        for (key, provider) in over.providers {
            providers
                .entry(key)
                .and_modify(|below| below.aliases.extend(provider.aliases.iter().cloned()))
                .or_insert(provider);
        }
        Book::compile(providers, models)
    }

    /// The book as one text that [`Book::from_toml`] reads back to a book of the same revision. Canonical: the same
    /// content gives the same text.
    ///
    /// # Errors
    /// For a book that was laid over another: which of two names wins cannot be said in one text. Write each by itself.
    pub fn to_toml(&self) -> Result<String, BookError> {
        if self.models.iter().any(|model| model.layer != 0) {
            return Err(BookError::Overlaid);
        }
        Ok(format::write(self.providers.values(), &self.models))
    }

    /// First 16 hexadecimal digits of the SHA-256 of the content.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The price timeline of a model; see [`crate::matching`] for how it is found. Callers keep it by (provider,
    /// model).
    ///
    /// # Errors
    /// Why there is none (RATE-3).
    pub fn plan(&self, provider: &str, model: &str) -> Result<Arc<Plan>, Unpriced> {
        let found = self.index.find(provider, model, &mut |_| {})?;
        Ok(Arc::new(Plan::new(Arc::clone(&self.timelines[found.model]), found.kind)))
    }

    /// The steps that [`Book::plan`] takes, and why they end where they do.
    #[must_use]
    pub fn explain(&self, provider: &str, model: &str) -> Explanation {
        let mut steps = Vec::new();
        let found = self.index.find(provider, model, &mut |step| steps.push(step));
        let found = found.map(|found| {
            let timeline = &self.timelines[found.model];
            (timeline.provider.to_string(), timeline.model.to_string(), found.kind)
        });
        Explanation::new(provider, model, steps, found)
    }

    /// The unit prices of a rated row, if this book has them; see [`Plan::unit_prices`].
    #[must_use]
    pub fn unit_prices(&self, rates: &RatesRef) -> Option<&str> {
        self.texts.get(&rates.id()).map(|text| &**text)
    }

    /// How many models are priced.
    #[must_use]
    pub fn models_len(&self) -> usize {
        self.models.len()
    }

    /// Every price as one flat list, by provider and model as loaded, then by time. Rates that a length or tier
    /// inherits or multiplies are written out; fallbacks between meters and tiers that a model does not price are left
    /// out.
    pub fn entries(&self) -> impl Iterator<Item = PriceEntry> + '_ {
        self.models.iter().flat_map(|model| {
            let free = model.free.then_some(Meter::ALL).into_iter().flatten().map(move |meter| PriceEntry {
                provider: Arc::clone(&model.provider),
                model: Arc::clone(&model.name),
                meter,
                service_tier: ServiceTier::Standard,
                above_input: 0,
                above_units: 0,
                window: None,
                region: None,
                unit_price: Money::ZERO,
                valid_from: None,
                valid_to: None,
                source: None,
                as_of: None,
            });
            free.chain(model.prices.iter().enumerate().flat_map(move |(position, price)| {
                let valid_to = model.prices.get(position + 1).map(|next| next.from);
                let priced =
                    |tier: &ServiceTier| *tier == ServiceTier::Standard || price.tiers[*tier as usize - 1].is_some();
                price.lanes().flat_map(move |(window, region, lanes)| {
                    let window: Option<Arc<str>> = window.map(|window| window.window.to_string().into());
                    let region: Option<Arc<str>> = region.map(|region| region.names.join(",").into());
                    let lanes = ServiceTier::ALL.into_iter().filter(priced).map(|tier| (tier, &lanes[tier as usize]));
                    let rates = lanes.flat_map(|(tier, lane)| lane.rates().map(move |rate| (tier, rate)));
                    rates.map(move |(service_tier, (above_input, above_units, meter, unit_price))| PriceEntry {
                        provider: Arc::clone(&model.provider),
                        model: Arc::clone(&model.name),
                        meter,
                        service_tier,
                        above_input,
                        above_units,
                        window: window.clone(),
                        region: region.clone(),
                        unit_price,
                        valid_from: Some(price.from),
                        valid_to,
                        source: price.source.clone(),
                        as_of: price.as_of,
                    })
                })
            }))
        })
    }

    /// Puts texts of one layer together; here a name that is used twice is an error.
    fn of(files: format::Lists) -> Result<Book, BookError> {
        let mut providers: BTreeMap<String, ProviderSpec> = BTreeMap::new();
        let mut models: Vec<ModelSpec> = Vec::new();
        for (provider, mut of_provider) in files {
            let key = provider.name.to_ascii_lowercase();
            if let Some(first) = providers.get_mut(&key) {
                // A list may be split over files; its models then carry the first spelling of the provider.
                of_provider.iter_mut().for_each(|model| model.provider = Arc::clone(&first.name));
                first.aliases.extend(provider.aliases);
            } else {
                providers.insert(key, provider);
            }
            models.append(&mut of_provider);
        }
        if models.len() > MODELS_MAX {
            let message = format!("{} models, more than {MODELS_MAX}", models.len());
            return Err(BookError::TooLarge { origin: "price book".to_owned(), message });
        }
        check_providers(&providers)?;
        check_names(&models)?;
        Ok(Book::compile(providers, models))
    }

    fn compile(mut providers: BTreeMap<String, ProviderSpec>, mut models: Vec<ModelSpec>) -> Book {
        for provider in providers.values_mut() {
            provider.aliases.sort_unstable();
            provider.aliases.dedup();
        }
        models.sort_by_key(ModelSpec::key);
        let timelines: Vec<Arc<Timeline>> = models
            .iter()
            .map(|model| {
                let (provider, name) = (Arc::clone(&model.provider), Arc::clone(&model.name));
                let timeline = if model.free {
                    Timeline::free(provider, name)
                } else {
                    Timeline::new(provider, name, &model.prices)
                };
                Arc::new(timeline)
            })
            .collect();
        let sets = timelines.iter().flat_map(|timeline| timeline.sets.iter());
        let texts = sets.map(|set| (set.id, Arc::clone(&set.text))).collect();
        let index = Index::new(&providers, &models);
        let revision = revision(&providers, &models);
        Book { providers, models, timelines, index, texts, revision }
    }
}

impl ModelSpec {
    fn key(&self) -> (String, String) {
        (self.provider.to_ascii_lowercase(), self.name.to_ascii_lowercase())
    }
}

fn check_providers(providers: &BTreeMap<String, ProviderSpec>) -> Result<(), BookError> {
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for (key, provider) in providers {
        for alias in &provider.aliases {
            let alias_key = alias.to_ascii_lowercase();
            let other = providers.get(&alias_key).filter(|_| alias_key != *key).map(|other| &*other.name);
            let other =
                other.or_else(|| owners.insert(alias_key, &provider.name).filter(|owner| *owner != &*provider.name));
            if let Some(other) = other {
                return Err(BookError::Value {
                    origin: provider.origin.to_string(),
                    line: provider.line,
                    key: "provider_aliases".to_owned(),
                    value: format!("\"{alias}\""),
                    expected: format!("a name that does not already mean provider `{other}`"),
                });
            }
        }
    }
    Ok(())
}

fn check_names(models: &[ModelSpec]) -> Result<(), BookError> {
    let mut owners: HashMap<(String, String), &ModelSpec> = HashMap::new();
    for model in models {
        let provider = model.provider.to_ascii_lowercase();
        let names = std::iter::once(model.name.to_ascii_lowercase()).chain(model.aliases.iter().cloned());
        for (position, name) in names.enumerate() {
            if let Some(other) = owners.insert((provider.clone(), name.clone()), model) {
                return Err(BookError::Value {
                    origin: model.origin.to_string(),
                    line: model.line,
                    key: if position == 0 { "model.name" } else { "model.aliases" }.to_owned(),
                    value: format!("\"{name}\" (model `{}`)", model.name),
                    expected: format!(
                        "a name that does not already mean model `{}` ({}:{})",
                        other.name, other.origin, other.line
                    ),
                });
            }
        }
    }
    Ok(())
}

fn revision(providers: &BTreeMap<String, ProviderSpec>, models: &[ModelSpec]) -> Arc<str> {
    let mut hasher = Sha256::new();
    for provider in providers.values() {
        // Debug of strings quotes and escapes: no two contents give the same bytes.
        hasher.update(format!("provider {:?} {:?}\n", provider.name, provider.aliases));
    }
    for model in models {
        // The specification is strings, integers and maps with string or integer keys: JSON can write all of it.
        match serde_json::to_vec(model) {
            Ok(json) => hasher.update(json),
            Err(error) => unreachable!("RATE-1: a model specification is JSON: {error}"),
        }
        hasher.update(b"\n");
    }
    let mut hex = String::with_capacity(16);
    for byte in hasher.finalize().iter().take(8) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex.into()
}
