//! The text form of a price book: TOML in, checked specifications out.
//!
//! ```toml
//! provider = "anthropic"
//! provider_aliases = ["claude"]
//! [[model]]
//! name = "claude-sonnet-4-20250514"        # as the provider's API names it
//! aliases = ["claude-sonnet-4"]            # exact, capitals do not matter
//! patterns = ["claude-sonnet-4-2025*"]     # tried last, the longest literal first
//! free = false                             # true: no prices, everything costs 0
//! [[model.price]]
//! from = "2025-05-22"                      # UTC date, or an RFC 3339 time
//! source = "https://…"                     # where the price was read
//! as_of = "2026-11-22"                     # and when
//! per_mtok = { input = "3.00", cache_read = "0.30", output = "15.00" }   # USD per million tokens, as strings
//! per_unit = { web_search_medium = "0.01" }                              # USD per single unit
//! [[model.price.above]]                    # the whole request, when its input-side tokens are more than …
//! input = 200000
//! per_mtok = { input = "6.00", output = "22.50" }
//! [[model.price.graduated]]                # only the units of a meter beyond …
//! units = 1000000
//! per_mtok = { output = "12.00" }
//! [model.price.batch]                      # batch, flex or priority
//! multiplier = "0.5"                       # of the standard rates of token meters; and/or rates of its own
//! [[model.price.window]]                   # hours with rates of their own; the first that holds decides
//! zone = "Asia/Shanghai"                   # IANA zone whose clock counts
//! days = ["mon", "fri"]                    # on which it begins; left out: every day
//! from = "22:00"
//! to = "06:00"                             # up to, not with; at or before `from`: on the next day
//! except = ["2026-10-01"]                  # days on which it does not begin
//! multiplier = "0.5"                       # and/or rates of its own, as a tier has
//! [[model.price.region]]                   # where the model ran, in the words of provider and sender
//! names = ["us"]
//! multiplier = "1.1"                       # of all token rates
//! ```
//!
//! A book of several providers has, instead of `provider` and `provider_aliases`, one `[[providers]]` each (`name`,
//! `aliases`), and every `[[model]]` says whose it is (`provider = "anthropic"`).
//!
//! A price is text, since a TOML float has lost digits before anyone could look. Errors name the file, the line, the
//! key, the value and what was expected; unknown keys are errors.
//!
//! Limits: 64 MiB of text, names of 1 to 256 bytes, 100,000 models a book.

mod reader;
mod writer;

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Spanned, Value};

pub(crate) use self::reader::Reader;
pub(crate) use self::writer::write;
use crate::book::{ModelSpec, ProviderSpec};

const TEXT_MAX_BYTES: usize = 64 * 1024 * 1024;
pub(crate) const NAME_MAX_BYTES: usize = 256;
pub(crate) const MODELS_MAX: usize = 100_000;

/// Why a price book cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// The text is not TOML, or not a book: unknown keys, missing keys, wrong types.
    #[error("{origin}:{line}: {message}")]
    Syntax { origin: String, line: usize, message: String },
    #[error("{origin}:{line}: `{key}` is {value}; expected {expected}")]
    Value { origin: String, line: usize, key: String, value: String, expected: String },
    #[error("a book that was laid over another has no single text; write each of them by itself")]
    Overlaid,
    #[error("{origin}: {message}")]
    TooLarge { origin: String, message: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    provider: Option<Spanned<String>>,
    #[serde(default)]
    provider_aliases: Vec<Spanned<String>>,
    #[serde(default)]
    providers: Vec<ProviderTable>,
    #[serde(default)]
    model: Vec<ModelTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderTable {
    name: Spanned<String>,
    #[serde(default)]
    aliases: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelTable {
    provider: Option<Spanned<String>>,
    name: Spanned<String>,
    #[serde(default)]
    aliases: Vec<Spanned<String>>,
    #[serde(default)]
    patterns: Vec<Spanned<String>>,
    #[serde(default)]
    free: bool,
    #[serde(default)]
    price: Vec<PriceTable>,
}

pub(crate) type Prices = BTreeMap<String, Spanned<Value>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceTable {
    from: Spanned<Value>,
    source: Option<String>,
    as_of: Option<Spanned<Value>>,
    #[serde(default)]
    per_mtok: Prices,
    #[serde(default)]
    per_unit: Prices,
    #[serde(default)]
    above: Vec<AboveTable>,
    #[serde(default)]
    graduated: Vec<GraduatedTable>,
    batch: Option<TierTable>,
    flex: Option<TierTable>,
    priority: Option<TierTable>,
    #[serde(default)]
    window: Vec<WindowTable>,
    #[serde(default)]
    region: Vec<RegionTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowTable {
    zone: Spanned<String>,
    #[serde(default)]
    days: Vec<Spanned<String>>,
    from: Spanned<String>,
    to: Spanned<String>,
    #[serde(default)]
    except: Vec<Spanned<Value>>,
    multiplier: Option<Spanned<Value>>,
    #[serde(default)]
    per_mtok: Prices,
    #[serde(default)]
    per_unit: Prices,
    #[serde(default)]
    above: Vec<AboveTable>,
    #[serde(default)]
    graduated: Vec<GraduatedTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionTable {
    names: Vec<Spanned<String>>,
    multiplier: Spanned<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AboveTable {
    input: Spanned<u64>,
    #[serde(default)]
    per_mtok: Prices,
    #[serde(default)]
    per_unit: Prices,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GraduatedTable {
    units: Spanned<u64>,
    #[serde(default)]
    per_mtok: Prices,
    #[serde(default)]
    per_unit: Prices,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TierTable {
    multiplier: Option<Spanned<Value>>,
    #[serde(default)]
    per_mtok: Prices,
    #[serde(default)]
    per_unit: Prices,
    #[serde(default)]
    above: Vec<AboveTable>,
    #[serde(default)]
    graduated: Vec<GraduatedTable>,
}

/// Providers with their models.
pub(crate) type Lists = Vec<(ProviderSpec, Vec<ModelSpec>)>;

/// Reads one book text.
pub(crate) fn parse(text: &str, origin: &str) -> Result<Lists, BookError> {
    if text.len() > TEXT_MAX_BYTES {
        let message = format!("{} bytes of prices, more than {TEXT_MAX_BYTES}", text.len());
        return Err(BookError::TooLarge { origin: origin.to_owned(), message });
    }
    let reader = Reader { text, origin };
    let file: FileTable = reader.tables()?;
    if file.model.len() > MODELS_MAX {
        let message = format!("{} models, more than {MODELS_MAX}", file.model.len());
        return Err(BookError::TooLarge { origin: origin.to_owned(), message });
    }
    reader.file(&file)
}
