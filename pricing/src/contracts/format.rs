//! The text of contracts: TOML in, checked entries out, by the same reader and in the same words as a price book.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::scope::Scope;
use super::{Contract, Contracts, Exchange, Local, LocalCost, Markup};
use crate::format::{BookError, Prices, Reader};
use crate::matching::normalised_provider;
use crate::money::Money;

const TEXT_MAX_BYTES: usize = 16 * 1024 * 1024;
const ENTRIES_MAX: usize = 10_000;
const MARKUP_PERCENT_MAX: i128 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    #[serde(default)]
    contract: Vec<ContractTable>,
    #[serde(default)]
    local: Vec<LocalTable>,
    #[serde(default)]
    markup: Vec<MarkupTable>,
    #[serde(default)]
    exchange: Vec<ExchangeTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContractTable {
    id: Spanned<String>,
    org_id: Option<Spanned<String>>,
    business_unit_id: Option<Spanned<String>>,
    provider: Option<Spanned<String>>,
    #[serde(default)]
    models: Vec<Spanned<String>>,
    from: Spanned<Value>,
    to: Option<Spanned<Value>>,
    currency: Option<Spanned<String>>,
    discount_percent: Option<Spanned<Value>>,
    #[serde(default)]
    per_mtok: Prices,
    #[serde(default)]
    per_unit: Prices,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LocalTable {
    id: Spanned<String>,
    org_id: Option<Spanned<String>>,
    business_unit_id: Option<Spanned<String>>,
    provider: Option<Spanned<String>>,
    #[serde(default)]
    models: Vec<Spanned<String>>,
    from: Spanned<Value>,
    to: Option<Spanned<Value>>,
    currency: Option<Spanned<String>>,
    gpu_hour: Option<Spanned<Value>>,
    gpus: Option<Spanned<u64>>,
    #[serde(default)]
    per_mtok: Prices,
    #[serde(default)]
    per_unit: Prices,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkupTable {
    id: Spanned<String>,
    org_id: Option<Spanned<String>>,
    business_unit_id: Option<Spanned<String>>,
    provider: Option<Spanned<String>>,
    #[serde(default)]
    models: Vec<Spanned<String>>,
    from: Spanned<Value>,
    to: Option<Spanned<Value>>,
    percent: Spanned<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExchangeTable {
    currency: Spanned<String>,
    from: Spanned<Value>,
    usd: Spanned<Value>,
    /// For the people who read the file.
    #[serde(default, rename = "source")]
    _source: Option<String>,
}

/// The keys of a scope, which every kind of entry has.
struct ScopeKeys<'t> {
    kind: &'static str,
    id: &'t Spanned<String>,
    org_id: Option<&'t Spanned<String>>,
    business_unit_id: Option<&'t Spanned<String>>,
    provider: Option<&'t Spanned<String>>,
    models: &'t [Spanned<String>],
    from: &'t Spanned<Value>,
    to: Option<&'t Spanned<Value>>,
}

macro_rules! scope_keys {
    ($kind:literal, $table:expr) => {
        ScopeKeys {
            kind: $kind,
            id: &$table.id,
            org_id: $table.org_id.as_ref(),
            business_unit_id: $table.business_unit_id.as_ref(),
            provider: $table.provider.as_ref(),
            models: &$table.models,
            from: &$table.from,
            to: $table.to.as_ref(),
        }
    };
}

pub(super) fn parse(text: &str, origin: &str) -> Result<Contracts, BookError> {
    let too_large = |message: String| BookError::TooLarge { origin: origin.to_owned(), message };
    if text.len() > TEXT_MAX_BYTES {
        return Err(too_large(format!("{} bytes of contracts, more than {TEXT_MAX_BYTES}", text.len())));
    }
    let reader = Reader { text, origin };
    let file: FileTable = reader.tables()?;
    let most = [file.contract.len(), file.local.len(), file.markup.len(), file.exchange.len()];
    if let Some(count) = most.into_iter().find(|count| *count > ENTRIES_MAX) {
        return Err(too_large(format!("{count} entries of one kind, more than {ENTRIES_MAX}")));
    }
    let mut contracts = Contracts::default();
    let mut rates: Vec<Exchange> = Vec::new();
    for table in &file.exchange {
        rates.push(exchange(&reader, table)?);
    }
    rates.sort_by(|a, b| (&a.currency, a.from).cmp(&(&b.currency, b.from)));
    let same = |pair: &&[Exchange]| pair[0].currency == pair[1].currency && pair[0].from == pair[1].from;
    if let (Some(twice), Some(table)) = (rates.windows(2).find(same), file.exchange.first()) {
        let expected = format!("each day of a currency once ({} from {})", twice[0].currency, twice[0].from);
        return Err(reader.error("exchange.from", &table.from, expected));
    }
    let known: Vec<Arc<str>> = rates.iter().map(|exchange| Arc::clone(&exchange.currency)).collect();
    contracts.exchange = rates.into();
    let mut ids = BTreeMap::new();
    for table in &file.contract {
        let scope = scope(&reader, &scope_keys!("contract", table), &mut ids)?;
        contracts.contracts.push(Arc::new(contract(&reader, table, scope, &known)?));
    }
    for table in &file.local {
        let scope = scope(&reader, &scope_keys!("local", table), &mut ids)?;
        contracts.locals.push(Arc::new(local(&reader, table, scope, &known)?));
    }
    for table in &file.markup {
        let scope = scope(&reader, &scope_keys!("markup", table), &mut ids)?;
        let percent = percent(&reader, "markup.percent", &table.percent, MARKUP_PERCENT_MAX)?;
        let factor = Money::from_atto(Money::ATTO_PER_USD + percent.atto() / 100);
        contracts.markups.push(Arc::new(Markup { scope, factor }));
    }
    order(&reader, &mut contracts.contracts, |contract| &contract.scope, &ids)?;
    order(&reader, &mut contracts.locals, |local| &local.scope, &ids)?;
    order(&reader, &mut contracts.markups, |markup| &markup.scope, &ids)?;
    Ok(contracts)
}

type Ids<'t> = BTreeMap<String, &'t Spanned<String>>;

/// The closest first, and none as close as another.
fn order<T>(
    reader: &Reader<'_>,
    entries: &mut [Arc<T>],
    scope: fn(&T) -> &Scope,
    ids: &Ids<'_>,
) -> Result<(), BookError> {
    entries.sort_by(|a, b| {
        let rank = |entry: &Arc<T>| {
            let scope = scope(entry);
            (scope.closeness(), scope.from)
        };
        rank(b).cmp(&rank(a)).then_with(|| scope(a).id.cmp(&scope(b).id))
    });
    for (position, entry) in entries.iter().enumerate() {
        let a = scope(entry);
        let equally_close =
            entries[position + 1..].iter().map(|entry| scope(entry)).take_while(|b| b.closeness() == a.closeness());
        for b in equally_close.filter(|b| a.collides(b)) {
            if let Some(id) = ids.get(&*b.id) {
                let expected = format!("another start or scope than `{}`, which fits the same rows equally well", a.id);
                return Err(reader.error("id", id, expected));
            }
        }
    }
    Ok(())
}

fn scope<'t>(reader: &Reader<'_>, keys: &ScopeKeys<'t>, ids: &mut Ids<'t>) -> Result<Scope, BookError> {
    let kind = keys.kind;
    let name = |key: &str, value: Option<&Spanned<String>>| {
        value.map(|value| reader.name(&format!("{kind}.{key}"), value)).transpose()
    };
    let id = reader.name(&format!("{kind}.id"), keys.id)?;
    if ids.insert(id.clone(), keys.id).is_some() {
        return Err(reader.error(format!("{kind}.id"), keys.id, "each id once in the file"));
    }
    let business_unit_id = name("business_unit_id", keys.business_unit_id)?;
    if let (Some(unit), None) = (keys.business_unit_id, keys.org_id) {
        return Err(reader.error(
            format!("{kind}.business_unit_id"),
            unit,
            "`org_id` beside it: a unit is one of an organization",
        ));
    }
    let from = reader.time(&format!("{kind}.from"), keys.from)?;
    let to = keys.to.map(|to| reader.time(&format!("{kind}.to"), to)).transpose()?;
    if let (Some(key), Some(end)) = (keys.to, to)
        && end <= from
    {
        return Err(reader.error(format!("{kind}.to"), key, "a time after `from`"));
    }
    let models =
        keys.models.iter().map(|model| Ok(reader.name(&format!("{kind}.models"), model)?.to_ascii_lowercase()));
    let mut models = models.collect::<Result<Vec<_>, BookError>>()?;
    models.sort_unstable();
    models.dedup();
    Ok(Scope {
        id: id.into(),
        org_id: name("org_id", keys.org_id)?,
        business_unit_id,
        provider: name("provider", keys.provider)?.map(|provider| normalised_provider(&provider)),
        models,
        from,
        to,
    })
}

fn contract(
    reader: &Reader<'_>,
    table: &ContractTable,
    scope: Scope,
    known: &[Arc<str>],
) -> Result<Contract, BookError> {
    let fixed = reader.listed("contract", &table.per_mtok, &table.per_unit)?;
    if fixed.is_empty() && table.discount_percent.is_none() {
        return Err(reader.error("contract.id", &table.id, "`discount_percent`, or rates under per_mtok or per_unit"));
    }
    let discount = table.discount_percent.as_ref();
    let discount = discount.map(|value| percent(reader, "contract.discount_percent", value, 100)).transpose()?;
    let remaining = Money::from_atto(Money::ATTO_PER_USD - discount.map_or(0, |percent| percent.atto() / 100));
    let currency = currency(reader, "contract.currency", table.currency.as_ref(), known)?;
    Ok(Contract { scope, remaining, fixed, currency })
}

fn local(reader: &Reader<'_>, table: &LocalTable, scope: Scope, known: &[Arc<str>]) -> Result<Local, BookError> {
    let rates = reader.listed("local", &table.per_mtok, &table.per_unit)?;
    let cost = match &table.gpu_hour {
        None if rates.is_empty() => {
            return Err(reader.error("local.id", &table.id, "`gpu_hour`, or rates under per_mtok or per_unit"));
        }
        None => match &table.gpus {
            Some(gpus) => return Err(reader.error("local.gpus", gpus, "`gpu_hour` beside it")),
            None => LocalCost::PerUnit(rates),
        },
        Some(hour) => {
            if !rates.is_empty() {
                return Err(reader.error("local.gpu_hour", hour, "either `gpu_hour` or rates, not both"));
            }
            let price = reader.decimal("local.gpu_hour", hour)?;
            let gpus = table.gpus.as_ref().map_or(1, |gpus| *gpus.get_ref());
            let together = price.checked_mul(gpus).filter(|all| !price.is_negative() && gpus > 0 && *all <= HOUR_MAX);
            LocalCost::GpuHour(together.ok_or_else(|| {
                reader.error("local.gpu_hour", hour, "a price from 0 to 10^6 an hour for at least one GPU")
            })?)
        }
    };
    let currency = currency(reader, "local.currency", table.currency.as_ref(), known)?;
    Ok(Local { scope, cost, currency })
}

/// The most an hour of all GPUs may cost.
const HOUR_MAX: Money = Money::from_atto(1_000_000 * Money::ATTO_PER_USD);

fn exchange(reader: &Reader<'_>, table: &ExchangeTable) -> Result<Exchange, BookError> {
    let usd = reader.decimal("exchange.usd", &table.usd)?;
    // From a millionth of a dollar to a million: beyond it the two sides were most likely swapped.
    let bounds = Money::from_atto(Money::ATTO_PER_USD / 1_000_000)..=Money::from_atto(1_000_000 * Money::ATTO_PER_USD);
    if !bounds.contains(&usd) {
        return Err(reader.error(
            "exchange.usd",
            &table.usd,
            "USD for one unit of the currency, from 0.000001 to 1000000",
        ));
    }
    Ok(Exchange {
        currency: code(reader, "exchange.currency", &table.currency)?,
        from: reader.time("exchange.from", &table.from)?,
        usd,
    })
}

/// The currency of an entry; USD is none.
fn currency(
    reader: &Reader<'_>,
    key: &str,
    value: Option<&Spanned<String>>,
    known: &[Arc<str>],
) -> Result<Option<Arc<str>>, BookError> {
    let Some(value) = value else { return Ok(None) };
    let code = code(reader, key, value)?;
    if &*code == "USD" {
        return Ok(None);
    }
    if !known.contains(&code) {
        return Err(reader.error(key, value, "a currency that has an [[exchange]] rate in the file"));
    }
    Ok(Some(code))
}

fn code(reader: &Reader<'_>, key: &str, value: &Spanned<String>) -> Result<Arc<str>, BookError> {
    let text = value.get_ref();
    if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        Ok(text.as_str().into())
    } else {
        Err(reader.error(key, value, "a currency code of three capitals such as \"EUR\""))
    }
}

fn percent(reader: &Reader<'_>, key: &str, value: &Spanned<Value>, most: i128) -> Result<Money, BookError> {
    let percent = reader.decimal(key, value)?;
    let in_range = (0..=most * Money::ATTO_PER_USD).contains(&percent.atto());
    if in_range && percent.atto() % 100 == 0 {
        Ok(percent)
    } else {
        Err(reader.error(key, value, format!("a percentage from 0 to {most} with at most 16 decimals")))
    }
}
