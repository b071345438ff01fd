//! Price files of other projects, turned into a book (and nothing dropped silently, LOSS-1).
//!
//! The way of a file: JSON as text (no float anywhere), one reader per source that makes models and writes down
//! what it took, what it left out and why, and which numbers it had to round; the models are then written as a book's
//! text and read back by the same code that reads every book. So the text that is returned *is* the book, and importing
//! what was exported gives it again.
//!
//! A source without dates does not say since when its prices hold: [`ImportOptions::from`] does.
//!
//! Limits: 64 MiB of JSON; 100,000 models.

mod genai_prices;
mod litellm;
mod number;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use self::number::unit_price;
use crate::book::{Book, ModelSpec, PriceSpec, ProviderSpec};
use crate::format::{self, BookError, MODELS_MAX, NAME_MAX_BYTES};
use crate::json::Json;
use crate::meter::Meter;
use crate::money::Money;
use crate::rates::Listed;
use crate::time::EventTime;

const JSON_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportFormat {
    /// `model_prices_and_context_window.json` of litellm.
    Litellm,
    /// `data.json` of genai-prices, in its first form or its second.
    GenaiPrices,
}

impl ImportFormat {
    /// `litellm` or `genai-prices`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<ImportFormat> {
        match name {
            "litellm" => Some(ImportFormat::Litellm),
            "genai-prices" | "genai_prices" => Some(ImportFormat::GenaiPrices),
            _ => None,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ImportFormat::Litellm => "litellm",
            ImportFormat::GenaiPrices => "genai-prices",
        }
    }
}

/// What the file itself does not say.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Since when prices without a date hold.
    pub from: EventTime,
    /// When the file was read.
    pub as_of: Option<EventTime>,
    /// Where the file is from; for prices that name no source of their own.
    pub source: Option<String>,
}

/// An imported book and how it came about.
#[derive(Clone, Debug)]
pub struct Imported {
    pub book: Book,
    /// The book's canonical text: what `Book::from_toml` reads.
    pub toml: String,
    pub report: ImportReport,
}

/// What became of a file's contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Models in the file, and those that are in the book.
    pub models_read: usize,
    pub models_taken: usize,
    /// Numbers that became prices, by key of the source.
    pub taken: BTreeMap<String, usize>,
    /// What is not in the book, one row each.
    pub skipped: Vec<SkippedRow>,
    /// Numbers that were rounded, one row each.
    pub noise: Vec<NoiseRow>,
    /// Models all of whose prices the source gives as 0: free, or not known to the source.
    pub all_zero: Vec<(String, String)>,
}

impl ImportReport {
    /// How often each (key, reason) was left out, the most frequent first.
    #[must_use]
    pub fn skipped_by_reason(&self) -> Vec<(&str, &str, usize)> {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for row in &self.skipped {
            *counts.entry((&row.key, row.reason)).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().map(|((key, reason), count)| (key, reason, count)).collect();
        counts.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
        counts
    }
}

/// Something of the source that is not in the book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SkippedRow {
    pub provider: String,
    pub model: String,
    pub key: String,
    pub value: String,
    pub reason: &'static str,
}

/// A number that was rounded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NoiseRow {
    pub provider: String,
    pub model: String,
    pub key: String,
    /// As the source wrote it.
    pub text: String,
    /// USD per single unit, as taken.
    pub taken: Money,
}

/// Why a file cannot be imported at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error("the price file is not JSON: {message}")]
    NotJson { message: String },
    #[error("the price file is not of {format}: {message}")]
    NotOfFormat { format: &'static str, message: String },
    #[error("the imported prices are not a book: {0}")]
    NotABook(#[from] BookError),
}

/// Reads a price file of another project.
///
/// # Errors
/// A text that is not such a file. What is wrong with a single model is in the report instead.
pub fn import(format: ImportFormat, json: &str, options: &ImportOptions) -> Result<Imported, ImportError> {
    if json.len() > JSON_MAX_BYTES {
        let message = format!("{} bytes, more than {JSON_MAX_BYTES}", json.len());
        return Err(ImportError::NotJson { message });
    }
    let root = Json::parse(json).map_err(|message| ImportError::NotJson { message })?;
    let mut draft = Draft::new(options);
    match format {
        ImportFormat::Litellm => litellm::read(&root, &mut draft)?,
        ImportFormat::GenaiPrices => genai_prices::read(&root, &mut draft)?,
    }
    draft.finish(format)
}

/// The book in the making.
struct Draft<'o> {
    options: &'o ImportOptions,
    models: Vec<ModelSpec>,
    /// Provider and name or alias, in small letters, to the model that has it.
    claimed: BTreeMap<(String, String), usize>,
    report: ImportReport,
}

/// Where in the source a reader is: for the report.
#[derive(Clone, Copy)]
struct Place<'p> {
    provider: &'p str,
    model: &'p str,
}

impl Draft<'_> {
    fn new(options: &ImportOptions) -> Draft<'_> {
        Draft { options, models: Vec::new(), claimed: BTreeMap::new(), report: ImportReport::default() }
    }

    fn skip(&mut self, place: Place<'_>, key: &str, value: impl ToString, reason: &'static str) {
        let value: String = value.to_string().chars().take(120).collect();
        self.report.skipped.push(SkippedRow {
            provider: place.provider.to_owned(),
            model: place.model.to_owned(),
            key: key.to_owned(),
            value,
            reason,
        });
    }

    /// The unit price of a number that is the price of 10^`power` units; reports what it cannot take.
    fn price(&mut self, place: Place<'_>, key: &str, value: &Json<'_>, power: i32) -> Option<Money> {
        // Some files write numbers as strings.
        let Some(text) = value.number().or_else(|| value.text()) else {
            if !value.is_null() {
                self.skip(place, key, value, "not a number");
            }
            return None;
        };
        match unit_price(text, power) {
            Ok(price) => {
                *self.report.taken.entry(key.to_owned()).or_default() += 1;
                if price.rounded {
                    self.report.noise.push(NoiseRow {
                        provider: place.provider.to_owned(),
                        model: place.model.to_owned(),
                        key: key.to_owned(),
                        text: text.to_owned(),
                        taken: price.unit,
                    });
                }
                Some(price.unit)
            }
            Err(reason) => {
                self.skip(place, key, text, reason);
                None
            }
        }
    }

    /// Whether a provider's list has the name, and whose it is.
    fn owner(&self, provider: &str, name: &str) -> Option<&ModelSpec> {
        let key = (provider.to_ascii_lowercase(), name.to_ascii_lowercase());
        self.claimed.get(&key).map(|position| &self.models[*position])
    }

    /// Adds a model under a name that nobody has; reports it if it cannot stand in a book.
    fn add(&mut self, place: Place<'_>, name: &str, prices: Vec<PriceSpec>) -> Option<usize> {
        if !is_plain_name(name) || !is_plain_name(place.provider) {
            self.skip(place, "name", name, "not a name: 1 to 256 bytes without spaces around it");
            return None;
        }
        if self.owner(place.provider, name).is_some() {
            self.skip(place, "name", name, "another model of this provider has the name");
            return None;
        }
        if prices.is_empty() {
            self.skip(place, "name", name, "no price that a meter can carry");
            return None;
        }
        if self.models.len() >= MODELS_MAX {
            self.skip(place, "name", name, "beyond 100,000 models");
            return None;
        }
        let all_zero = prices.iter().all(|price| {
            let tiers = price.tiers.iter().flatten().map(|tier| &tier.rates);
            let rates = std::iter::once(&price.standard).chain(tiers);
            let mut listed = rates.flat_map(|rates| rates.above.values().chain([&rates.listed]));
            listed.all(|listed| listed.values().all(|price| price.is_zero()))
        });
        let model = ModelSpec {
            provider: place.provider.into(),
            name: name.into(),
            aliases: Vec::new(),
            patterns: Vec::new(),
            free: false,
            prices,
            layer: 0,
            origin: "import".into(),
            line: 0,
        };
        // A model that a book would refuse is reported here, so that it cannot take the others with it.
        let alone = format::write([&provider_spec(&model.provider)].into_iter(), std::slice::from_ref(&model));
        if let Err(error) = format::parse(&alone, "import") {
            self.skip(place, "name", error, "its prices cannot stand in a book");
            return None;
        }
        if all_zero {
            self.report.all_zero.push((place.provider.to_owned(), name.to_owned()));
        }
        let position = self.models.len();
        self.claimed.insert((place.provider.to_ascii_lowercase(), name.to_ascii_lowercase()), position);
        self.models.push(model);
        Some(position)
    }

    fn add_alias(&mut self, place: Place<'_>, model: usize, alias: &str) {
        let (provider, alias) = (place.provider.to_ascii_lowercase(), alias.to_ascii_lowercase());
        match self.claimed.get(&(provider.clone(), alias.clone())) {
            Some(owner) if *owner == model => {}
            Some(_) => self.skip(place, "alias", alias, "another model of this provider has the name"),
            None if !is_plain_name(&alias) => {
                self.skip(place, "alias", alias, "not a name: 1 to 256 bytes without spaces around it");
            }
            None => {
                self.claimed.insert((provider, alias.clone()), model);
                self.models[model].aliases.push(alias);
            }
        }
    }

    fn source(&self) -> Option<Arc<str>> {
        self.options.source.as_deref().map(Arc::from)
    }

    fn finish(mut self, format: ImportFormat) -> Result<Imported, ImportError> {
        if self.models.is_empty() {
            let message = "it has no model with a price".to_owned();
            return Err(ImportError::NotOfFormat { format: format.name(), message });
        }
        let mut providers: BTreeMap<String, ProviderSpec> = BTreeMap::new();
        for model in &mut self.models {
            model.aliases.sort_unstable();
            model.patterns.sort_unstable();
            providers.entry(model.provider.to_ascii_lowercase()).or_insert_with(|| provider_spec(&model.provider));
        }
        self.models.sort_by_key(|model| (model.provider.to_ascii_lowercase(), model.name.to_ascii_lowercase()));
        self.report.models_taken = self.models.len();
        let toml = format::write(providers.values(), &self.models);
        let book = Book::from_toml(&toml, "import")?;
        Ok(Imported { book, toml, report: self.report })
    }
}

fn provider_spec(name: &Arc<str>) -> ProviderSpec {
    ProviderSpec { name: Arc::clone(name), aliases: Vec::new(), origin: "import".into(), line: 0 }
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX_BYTES && name.trim() == name && !name.chars().any(char::is_control)
}

/// Prompt tokens of other kinds cost what text does where the source prices the prompt and not the kind.
fn inherit(listed: &mut Listed, heirs: &[(Meter, Meter)]) {
    for (heir, from) in heirs {
        if let Some(price) = listed.get(from).copied() {
            listed.entry(*heir).or_insert(price);
        }
    }
}
