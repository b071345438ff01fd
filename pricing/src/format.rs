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
//! ```
//!
//! A price is text, since a TOML float has lost digits before anyone could look. Errors name the file, the line, the key,
//! the value and what was expected; unknown keys are errors.
//!
//! Limits: 64 MiB of text, names of 1 to 256 bytes, 100,000 models a book.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use toml::{Spanned, Value};

use crate::book::{ModelSpec, PriceSpec, ProviderSpec};
use crate::meter::Meter;
use crate::money::Money;
use crate::rates::{Factor, Lane, Listed, RateSpec, ServiceTier, THRESHOLDS_MAX, TierSpec, UNIT_PRICE_MAX};
use crate::time::EventTime;

const TEXT_MAX_BYTES: usize = 64 * 1024 * 1024;
const NAME_MAX_BYTES: usize = 256;
pub(crate) const MODELS_MAX: usize = 100_000;

/// Why a price book cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// The text is not TOML, or not a book: unknown keys, missing keys, wrong types.
    #[error("{origin}:{line}: {message}")]
    Syntax {
        origin: String,
        line: usize,
        message: String,
    },
    #[error("{origin}:{line}: `{key}` is {value}; expected {expected}")]
    Value {
        origin: String,
        line: usize,
        key: String,
        value: String,
        expected: String,
    },
    #[error("{origin}: {message}")]
    TooLarge { origin: String, message: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    provider: Spanned<String>,
    #[serde(default)]
    provider_aliases: Vec<Spanned<String>>,
    #[serde(default)]
    model: Vec<ModelTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelTable {
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

type Prices = BTreeMap<String, Spanned<Value>>;

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

/// Reads one book text.
pub(crate) fn parse(text: &str, origin: &str) -> Result<(ProviderSpec, Vec<ModelSpec>), BookError> {
    if text.len() > TEXT_MAX_BYTES {
        let message = format!("{} bytes of prices, more than {TEXT_MAX_BYTES}", text.len());
        return Err(BookError::TooLarge {
            origin: origin.to_owned(),
            message,
        });
    }
    let reader = Reader { text, origin };
    let file: FileTable = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| reader.line(span.start));
        let shown: String = text
            .lines()
            .nth(line - 1)
            .unwrap_or("")
            .trim()
            .chars()
            .take(80)
            .collect();
        BookError::Syntax {
            origin: origin.to_owned(),
            line,
            message: format!("{} in `{shown}`", error.message()),
        }
    })?;
    if file.model.len() > MODELS_MAX {
        let message = format!("{} models, more than {MODELS_MAX}", file.model.len());
        return Err(BookError::TooLarge {
            origin: origin.to_owned(),
            message,
        });
    }
    let provider = ProviderSpec {
        name: reader.name("provider", &file.provider)?.into(),
        aliases: file
            .provider_aliases
            .iter()
            .map(|alias| reader.name("provider_aliases", alias))
            .collect::<Result<_, _>>()?,
        origin: origin.into(),
        line: reader.line(file.provider.span().start),
    };
    let models = file
        .model
        .iter()
        .map(|model| reader.model(&provider.name, model))
        .collect::<Result<_, _>>()?;
    Ok((provider, models))
}

struct Reader<'a> {
    text: &'a str,
    origin: &'a str,
}

impl Reader<'_> {
    fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// An error about a value, shown as it stands in the text.
    fn error<T>(&self, key: impl Into<String>, value: &Spanned<T>, expected: impl Into<String>) -> BookError {
        let shown: String = self.text.get(value.span()).unwrap_or("").chars().take(80).collect();
        BookError::Value {
            origin: self.origin.to_owned(),
            line: self.line(value.span().start),
            key: key.into(),
            value: shown,
            expected: expected.into(),
        }
    }

    fn name(&self, key: &str, name: &Spanned<String>) -> Result<String, BookError> {
        let text = name.get_ref();
        let plain = !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control);
        if plain && text.len() <= NAME_MAX_BYTES {
            Ok(text.clone())
        } else {
            Err(self.error(
                key,
                name,
                format!("a name of 1 to {NAME_MAX_BYTES} bytes without spaces around it"),
            ))
        }
    }

    fn model(&self, provider: &Arc<str>, table: &ModelTable) -> Result<ModelSpec, BookError> {
        let name = self.name("model.name", &table.name)?;
        let mut aliases = BTreeSet::new();
        for alias in &table.aliases {
            let text = self.name("model.aliases", alias)?;
            if text.eq_ignore_ascii_case(&name) || !aliases.insert(text.to_ascii_lowercase()) {
                return Err(self.error("model.aliases", alias, "each name once; capitals do not matter"));
            }
        }
        let mut patterns = BTreeSet::new();
        for pattern in &table.patterns {
            let text = self.name("model.patterns", pattern)?;
            if !text.contains('*') {
                return Err(self.error(
                    "model.patterns",
                    pattern,
                    "a pattern with `*` in it; a plain name is an alias",
                ));
            }
            patterns.insert(text.to_ascii_lowercase());
        }
        match (table.free, table.price.is_empty()) {
            (true, false) => {
                let expected = "a free model to have no [[model.price]], or `free` to be left out";
                return Err(self.error("model.free = true on model.name", &table.name, expected));
            }
            (false, true) => {
                let expected = "a model to have at least one [[model.price]], or free = true";
                return Err(self.error("model.name", &table.name, expected));
            }
            _ => {}
        }
        let mut prices = Vec::with_capacity(table.price.len());
        for price in &table.price {
            prices.push(self.price(&name, price)?);
        }
        prices.sort_by_key(|price: &PriceSpec| price.from);
        if let Some(twice) = prices.windows(2).find(|pair| pair[0].from == pair[1].from) {
            let same = |price: &&PriceTable| self.time("", &price.from).is_ok_and(|from| from == twice[0].from);
            let second = table
                .price
                .iter()
                .filter(same)
                .nth(1)
                .map_or(&table.price[0].from, |price| &price.from);
            return Err(self.error(format!("model.price.from of `{name}`"), second, "each time once"));
        }
        Ok(ModelSpec {
            provider: Arc::clone(provider),
            name: name.into(),
            aliases: aliases.into_iter().collect(),
            patterns: patterns.into_iter().collect(),
            free: table.free,
            prices,
            layer: 0,
            origin: self.origin.into(),
            line: self.line(table.name.span().start),
        })
    }

    fn price(&self, model: &str, table: &PriceTable) -> Result<PriceSpec, BookError> {
        let from = self.time("model.price.from", &table.from)?;
        let as_of = table
            .as_of
            .as_ref()
            .map(|as_of| self.time("model.price.as_of", as_of))
            .transpose()?;
        let key = "model.price";
        let spec = self.rates(key, &table.per_mtok, &table.per_unit, &table.above, &table.graduated)?;
        if spec.listed.is_empty() {
            let expected = "the price to list rates under per_mtok or per_unit";
            return Err(self.error(format!("model.price.from of `{model}`"), &table.from, expected));
        }
        let standard = Lane::standard(&spec);
        self.check_ranges(model, &standard, &table.from)?;
        let mut tiers = [None, None, None];
        let mut lanes = [standard.clone(), standard.clone(), standard.clone(), standard.clone()];
        for (tier, table_of_tier) in [
            (ServiceTier::Batch, &table.batch),
            (ServiceTier::Flex, &table.flex),
            (ServiceTier::Priority, &table.priority),
        ] {
            let Some(tier_table) = table_of_tier else { continue };
            let key = format!("model.price.{tier}");
            let multiplier = tier_table.multiplier.as_ref();
            let multiplier = multiplier
                .map(|factor| self.factor(&format!("{key}.multiplier"), factor))
                .transpose()?;
            let rates = self.rates(
                &key,
                &tier_table.per_mtok,
                &tier_table.per_unit,
                &tier_table.above,
                &tier_table.graduated,
            )?;
            let spec = TierSpec { multiplier, rates };
            let lane = Lane::tier(&standard, &spec).map_err(|meter| match tier_table.multiplier.as_ref() {
                Some(factor) => self.error(
                    format!("{key}.multiplier of `{model}`"),
                    factor,
                    format!("a factor that keeps the price of `{meter}` within 18 decimals; list that rate instead"),
                ),
                None => self.error(key.clone(), &table.from, "rates within 18 decimals"),
            })?;
            self.check_ranges(model, &lane, &table.from)?;
            lanes[tier as usize] = lane;
            tiers[tier as usize - 1] = Some(spec);
        }
        let source = table.source.as_deref().map(Arc::from);
        Ok(PriceSpec {
            from,
            source,
            as_of,
            standard: spec,
            tiers,
            lanes,
        })
    }

    /// A range needs a price for the units below its start.
    fn check_ranges(&self, model: &str, lane: &Lane, at: &Spanned<Value>) -> Result<(), BookError> {
        match lane
            .base
            .graduated
            .keys()
            .find(|meter| !lane.base.flat.contains_key(meter))
        {
            None => Ok(()),
            Some(meter) => Err(self.error(
                format!("model.price.graduated of `{model}` from"),
                at,
                format!("`{meter}` to have a rate under per_mtok or per_unit too, for the units before the range"),
            )),
        }
    }

    fn rates(
        &self,
        key: &str,
        per_mtok: &Prices,
        per_unit: &Prices,
        above: &[AboveTable],
        graduated: &[GraduatedTable],
    ) -> Result<RateSpec, BookError> {
        let mut spec = RateSpec {
            listed: self.listed(key, per_mtok, per_unit)?,
            ..RateSpec::default()
        };
        for table in above {
            let key = format!("{key}.above");
            let listed = self.listed(&key, &table.per_mtok, &table.per_unit)?;
            self.threshold(&format!("{key}.input"), &table.input, listed, &mut spec.above)?;
        }
        for table in graduated {
            let key = format!("{key}.graduated");
            let listed = self.listed(&key, &table.per_mtok, &table.per_unit)?;
            self.threshold(&format!("{key}.units"), &table.units, listed, &mut spec.graduated)?;
        }
        Ok(spec)
    }

    fn threshold(
        &self,
        key: &str,
        threshold: &Spanned<u64>,
        listed: Listed,
        into: &mut BTreeMap<u64, Listed>,
    ) -> Result<(), BookError> {
        if listed.is_empty() {
            return Err(self.error(key, threshold, "rates under per_mtok or per_unit beside it"));
        }
        if *threshold.get_ref() == 0
            || into.insert(*threshold.get_ref(), listed).is_some()
            || into.len() > THRESHOLDS_MAX
        {
            return Err(self.error(
                key,
                threshold,
                format!("at most {THRESHOLDS_MAX} thresholds from 1 on, each once"),
            ));
        }
        Ok(())
    }

    /// Prices of one unit.
    fn listed(&self, key: &str, per_mtok: &Prices, per_unit: &Prices) -> Result<Listed, BookError> {
        let mut listed = Listed::new();
        for (table, prices, per) in [("per_mtok", per_mtok, 1_000_000), ("per_unit", per_unit, 1)] {
            for (name, price) in prices {
                let key = format!("{key}.{table}.{name}");
                // Only the names themselves: a book is no place for aliases.
                let Some(meter) = Meter::ALL.into_iter().find(|meter| meter.name() == name) else {
                    return Err(self.error(key, price, format!("a meter, one of: {}", Meter::known_names())));
                };
                if per > 1 && !meter.is_token() {
                    return Err(self.error(
                        key,
                        price,
                        "a token meter; others stand under per_unit, in USD per single unit",
                    ));
                }
                if listed.insert(meter, self.unit_price(&key, price, per)?).is_some() {
                    return Err(self.error(key, price, "each meter once, under per_mtok or per_unit"));
                }
            }
        }
        Ok(listed)
    }

    fn unit_price(&self, key: &str, price: &Spanned<Value>, per: i128) -> Result<Money, BookError> {
        let amount = self.decimal(key, price)?;
        if amount.is_negative() {
            return Err(self.error(key, price, "a price from 0"));
        }
        // MONEY-2: a price per million tokens is divided exactly or not at all.
        if amount.atto() % per != 0 {
            return Err(self.error(key, price, "at most 12 decimals per million tokens (18 per token)"));
        }
        let unit_price = Money::from_atto(amount.atto() / per);
        if unit_price > UNIT_PRICE_MAX {
            return Err(self.error(key, price, format!("at most {UNIT_PRICE_MAX} USD per unit")));
        }
        Ok(unit_price)
    }

    fn factor(&self, key: &str, factor: &Spanned<Value>) -> Result<Factor, BookError> {
        Factor::new(self.decimal(key, factor)?).ok_or_else(|| self.error(key, factor, "a factor from 0 to 100"))
    }

    fn decimal(&self, key: &str, value: &Spanned<Value>) -> Result<Money, BookError> {
        match value.get_ref() {
            Value::String(text) => text
                .parse()
                .map_err(|error| self.error(key, value, format!("a decimal ({error})"))),
            Value::Integer(_) | Value::Float(_) => {
                let number = self.text.get(value.span()).unwrap_or("3.00");
                Err(self.error(
                    key,
                    value,
                    format!("a decimal as a string, so that no digit is lost: write \"{number}\""),
                ))
            }
            _ => Err(self.error(key, value, "a decimal as a string such as \"3.00\"")),
        }
    }

    /// A date or time, as a string or as TOML's own type.
    fn time(&self, key: &str, value: &Spanned<Value>) -> Result<EventTime, BookError> {
        let time = match value.get_ref() {
            Value::String(text) => EventTime::parse(text).ok(),
            Value::Datetime(datetime) => EventTime::parse(&datetime.to_string()).ok(),
            _ => None,
        };
        time.ok_or_else(|| self.error(key, value, "a UTC date such as \"2026-11-22\" or an RFC 3339 time"))
    }
}
