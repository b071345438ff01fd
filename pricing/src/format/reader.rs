//! From the tables of a book's text to checked specifications; every error shows the value as it stands in the text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::NaiveDate;
use toml::{Spanned, Value};

use super::{
    AboveTable, BookError, FileTable, GraduatedTable, Lists, ModelTable, NAME_MAX_BYTES, PriceTable, Prices,
    RegionTable, WindowTable,
};
use crate::book::{ModelSpec, PriceSpec, ProviderSpec};
use crate::meter::Meter;
use crate::money::Money;
use crate::rates::{
    Factor, Lane, Lanes, Listed, REGIONS_MAX, RateSpec, RegionSpec, ServiceTier, THRESHOLDS_MAX, TierSpec,
    UNIT_PRICE_MAX, WindowSpec,
};
use crate::time::EventTime;
use crate::window::{WallTime, Weekdays, Window};

pub(crate) struct Reader<'a> {
    pub text: &'a str,
    pub origin: &'a str,
}

impl Reader<'_> {
    /// The text as tables.
    pub(crate) fn tables<T: serde::de::DeserializeOwned>(&self) -> Result<T, BookError> {
        toml::from_str(self.text).map_err(|error| {
            let line = error.span().map_or(1, |span| self.line(span.start));
            let shown = self.text.lines().nth(line - 1).unwrap_or("").trim();
            let shown: String = shown.chars().take(80).collect();
            BookError::Syntax {
                origin: self.origin.to_owned(),
                line,
                message: format!("{} in `{shown}`", error.message()),
            }
        })
    }

    pub(crate) fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// The providers of a file: one at its top, or several with models that say whose they are.
    pub(super) fn file(&self, file: &FileTable) -> Result<Lists, BookError> {
        let mut lists: Lists = Vec::new();
        let top = file.provider.as_ref().map(|name| (name, &file.provider_aliases));
        let several = file.providers.iter().map(|table| (&table.name, &table.aliases));
        for (name, aliases) in top.into_iter().chain(several) {
            let aliases = aliases.iter().map(|alias| self.name("provider_aliases", alias));
            let provider = ProviderSpec {
                name: self.name("provider", name)?.into(),
                aliases: aliases.collect::<Result<_, _>>()?,
                origin: self.origin.into(),
                line: self.line(name.span().start),
            };
            if lists.iter().any(|(other, _)| other.name.eq_ignore_ascii_case(&provider.name)) {
                return Err(self.error("provider", name, "each provider once in a file"));
            }
            lists.push((provider, Vec::new()));
        }
        if lists.is_empty() {
            return Err(BookError::Syntax {
                origin: self.origin.to_owned(),
                line: 1,
                message: "missing field `provider`: expected `provider = \"…\"`, or one [[providers]] each".to_owned(),
            });
        }
        for model in &file.model {
            let list = match &model.provider {
                Some(name) => {
                    let list =
                        lists.iter().position(|(provider, _)| provider.name.eq_ignore_ascii_case(name.get_ref()));
                    list.ok_or_else(|| self.error("model.provider", name, "a provider that this file declares"))?
                }
                None if file.provider.is_some() => 0,
                None => {
                    return Err(self.error(
                        "model.name",
                        &model.name,
                        "`provider` beside it, since the file has none at its top",
                    ));
                }
            };
            let model = self.model(&lists[list].0.name, model)?;
            lists[list].1.push(model);
        }
        Ok(lists)
    }

    /// An error about a value, shown as it stands in the text.
    pub(crate) fn error<T>(
        &self,
        key: impl Into<String>,
        value: &Spanned<T>,
        expected: impl Into<String>,
    ) -> BookError {
        let shown: String = self.text.get(value.span()).unwrap_or("").chars().take(80).collect();
        BookError::Value {
            origin: self.origin.to_owned(),
            line: self.line(value.span().start),
            key: key.into(),
            value: shown,
            expected: expected.into(),
        }
    }

    pub(crate) fn name(&self, key: &str, name: &Spanned<String>) -> Result<String, BookError> {
        let text = name.get_ref();
        let plain = !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control);
        if plain && text.len() <= NAME_MAX_BYTES {
            Ok(text.clone())
        } else {
            Err(self.error(key, name, format!("a name of 1 to {NAME_MAX_BYTES} bytes without spaces around it")))
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
            let second = table.price.iter().filter(same).nth(1).map_or(&table.price[0].from, |price| &price.from);
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
        let as_of = table.as_of.as_ref().map(|as_of| self.time("model.price.as_of", as_of)).transpose()?;
        let key = "model.price";
        let spec = self.rates(key, &table.per_mtok, &table.per_unit, &table.above, &table.graduated)?;
        if spec.listed.is_empty() {
            let expected = "the price to list rates under per_mtok or per_unit";
            return Err(self.error(format!("model.price.from of `{model}`"), &table.from, expected));
        }
        let windows: Vec<WindowSpec> =
            table.window.iter().map(|window| self.window(window, &spec)).collect::<Result<_, _>>()?;
        let regions: Vec<RegionSpec> =
            table.region.iter().map(|region| self.region(region)).collect::<Result<_, _>>()?;
        if windows.len() > Window::MAX || regions.len() > REGIONS_MAX {
            let expected = format!("at most {} windows and {REGIONS_MAX} regions", Window::MAX);
            return Err(self.error(format!("model.price.from of `{model}`"), &table.from, expected));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = regions.iter().flat_map(|region| &region.names).find(|name| !names.insert(*name)) {
            let expected = format!("each region once (`{twice}`)");
            return Err(self.error(format!("model.price.region.names of `{model}` from"), &table.from, expected));
        }
        let mut tiers = [None, None, None];
        for (tier, tier_table) in [
            (ServiceTier::Batch, &table.batch),
            (ServiceTier::Flex, &table.flex),
            (ServiceTier::Priority, &table.priority),
        ] {
            let Some(tier_table) = tier_table else { continue };
            let key = format!("model.price.{tier}");
            let multiplier = tier_table.multiplier.as_ref();
            let multiplier = multiplier.map(|factor| self.factor(&format!("{key}.multiplier"), factor)).transpose()?;
            let rates =
                self.rates(&key, &tier_table.per_mtok, &tier_table.per_unit, &tier_table.above, &tier_table.graduated)?;
            tiers[tier as usize - 1] = Some(TierSpec { multiplier, rates });
        }
        let source = table.source.as_deref().map(Arc::from);
        let mut price = PriceSpec { from, source, as_of, standard: spec, tiers, windows, regions, grid: Vec::new() };
        price.grid = self.grid(model, &price, table)?;
        Ok(price)
    }

    /// The lanes of every window and region of a price.
    fn grid(&self, model: &str, price: &PriceSpec, table: &PriceTable) -> Result<Vec<Lanes>, BookError> {
        let too_fine = |key: &str, factor: Option<&Spanned<Value>>, meter: Meter| {
            let expected =
                format!("a factor that keeps the price of `{meter}` within 18 decimals; list that rate instead");
            self.error(format!("model.price.{key}.multiplier of `{model}`"), factor.unwrap_or(&table.from), expected)
        };
        let tier_tables = [&table.batch, &table.flex, &table.priority];
        let always = Lane::standard(&price.standard);
        let mut grid = Vec::with_capacity((price.windows.len() + 1) * (price.regions.len() + 1));
        let windows = price.windows.iter().zip(&table.window);
        for window in std::iter::once(None).chain(windows.map(Some)) {
            let standard = match window {
                None => always.clone(),
                Some((window, table)) => Lane::tier(&always, &window.rates)
                    .map_err(|meter| too_fine("window", table.multiplier.as_ref(), meter))?,
            };
            self.check_ranges(model, &standard, &table.from)?;
            let mut lanes = [standard.clone(), standard.clone(), standard.clone(), standard.clone()];
            for tier in [ServiceTier::Batch, ServiceTier::Flex, ServiceTier::Priority] {
                let position = tier as usize - 1;
                let Some(spec) = &price.tiers[position] else { continue };
                let factor = tier_tables[position].as_ref().and_then(|table| table.multiplier.as_ref());
                let lane = Lane::tier(&standard, spec).map_err(|meter| too_fine(tier.name(), factor, meter))?;
                self.check_ranges(model, &lane, &table.from)?;
                lanes[tier as usize] = lane;
            }
            grid.push(lanes.clone());
            for (region, table) in price.regions.iter().zip(&table.region) {
                let mut there = lanes.clone();
                for lane in &mut there {
                    let multiplied = lane.multiplied(region.multiplier);
                    *lane = multiplied.map_err(|meter| too_fine("region", Some(&table.multiplier), meter))?;
                }
                grid.push(there);
            }
        }
        Ok(grid)
    }

    fn window(&self, table: &WindowTable, standard: &RateSpec) -> Result<WindowSpec, BookError> {
        let key = "model.price.window";
        let zone = table.zone.get_ref().parse();
        let zone =
            zone.map_err(|_| self.error(format!("{key}.zone"), &table.zone, "an IANA zone such as \"Asia/Shanghai\""))?;
        let clock = |name: &str, value: &Spanned<String>| {
            let expected = "a time of day such as \"16:30\", up to \"24:00\"";
            WallTime::parse(value.get_ref()).ok_or_else(|| self.error(format!("{key}.{name}"), value, expected))
        };
        let mut days = Weekdays::EVERY;
        if let Some(first) = table.days.first() {
            let names = table.days.iter().map(|day| day.get_ref().as_str());
            let expected = "days of the week: mon, tue, wed, thu, fri, sat, sun";
            days = Weekdays::parse(names).ok_or_else(|| self.error(format!("{key}.days"), first, expected))?;
        }
        let mut except = BTreeSet::new();
        for day in &table.except {
            let text = match day.get_ref() {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let date: NaiveDate =
                text.parse().map_err(|_| self.error(format!("{key}.except"), day, "a date such as \"2026-10-01\""))?;
            except.insert(date);
        }
        if except.len() > Window::EXCEPT_MAX {
            let expected = format!("at most {} excepted days", Window::EXCEPT_MAX);
            return Err(self.error(format!("{key}.except"), &table.zone, expected));
        }
        let multiplier = table.multiplier.as_ref();
        let multiplier = multiplier.map(|factor| self.factor(&format!("{key}.multiplier"), factor)).transpose()?;
        let rates = self.rates(key, &table.per_mtok, &table.per_unit, &table.above, &table.graduated)?;
        if multiplier.is_none() && !standard.above.is_empty() && rates.above.is_empty() {
            let expected = "`above` too, or a multiplier, since the standard rates depend on length";
            return Err(self.error(format!("{key}.from"), &table.from, expected));
        }
        if multiplier.is_none() && rates.listed.is_empty() {
            return Err(self.error(format!("{key}.from"), &table.from, "a multiplier or rates beside it"));
        }
        Ok(WindowSpec {
            window: Window {
                zone,
                days,
                from: clock("from", &table.from)?,
                to: clock("to", &table.to)?,
                except: except.into_iter().collect(),
            },
            rates: TierSpec { multiplier, rates },
        })
    }

    fn region(&self, table: &RegionTable) -> Result<RegionSpec, BookError> {
        let key = "model.price.region";
        let mut names = table
            .names
            .iter()
            .map(|name| Ok(self.name(&format!("{key}.names"), name)?.to_ascii_lowercase()))
            .collect::<Result<Vec<_>, BookError>>()?;
        names.sort_unstable();
        if names.is_empty() {
            return Err(self.error(format!("{key}.multiplier"), &table.multiplier, "names beside it"));
        }
        Ok(RegionSpec { names, multiplier: self.factor(&format!("{key}.multiplier"), &table.multiplier)? })
    }

    /// A range needs a price for the units below its start.
    fn check_ranges(&self, model: &str, lane: &Lane, at: &Spanned<Value>) -> Result<(), BookError> {
        match lane.base.graduated.keys().find(|meter| !lane.base.flat.contains_key(meter)) {
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
        let mut spec = RateSpec { listed: self.listed(key, per_mtok, per_unit)?, ..RateSpec::default() };
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
    pub(crate) fn listed(&self, key: &str, per_mtok: &Prices, per_unit: &Prices) -> Result<Listed, BookError> {
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

    pub(crate) fn decimal(&self, key: &str, value: &Spanned<Value>) -> Result<Money, BookError> {
        match value.get_ref() {
            Value::String(text) => text.parse().map_err(|error| self.error(key, value, format!("a decimal ({error})"))),
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
    pub(crate) fn time(&self, key: &str, value: &Spanned<Value>) -> Result<EventTime, BookError> {
        let time = match value.get_ref() {
            Value::String(text) => EventTime::parse(text).ok(),
            Value::Datetime(datetime) => EventTime::parse(&datetime.to_string()).ok(),
            _ => None,
        };
        time.ok_or_else(|| self.error(key, value, "a UTC date such as \"2026-11-22\" or an RFC 3339 time"))
    }
}
