//! `data.json` of genai-prices (github.com/pydantic/genai-prices), both forms: an array of providers, each with its
//! models.
//!
//! | of the source | in the book |
//! | --- | --- |
//! | `input_mtok`, `output_mtok`, `cache_read_mtok`, … | the meters of the same name, per million |
//! | `cache_write_mtok`, `cache_write_5m_mtok` | `cache_write_5m`; an hour only where `cache_write_1h_mtok` is listed |
//! | `web_searches_kcount`, `requests_kcount` | per unit: a thousandth |
//! | `{base, tiers: [{start, price}]}` | `above`: the whole request, as genai-prices charges it |
//! | a list of prices with `start_date` | prices from that day on |
//! | a list of prices with `start_time` and `end_time` | a window in UTC |
//! | audio, images, video without a price | the price of text on their side, as genai-prices charges them |
//! | `equals` | name or alias |
//! | `starts_with`, `contains`, `ends_with` | patterns; there the first model of the list wins, here the longest literal |
//! | `fallback_model_providers` | those providers' models, copied, where the provider has none of that name |
//! | `regex`, `and` | skipped; most only add a dated suffix, which matching finds by itself |

use chrono_tz::Tz;

use super::{Draft, ImportError, Place, inherit};
use crate::book::{ModelSpec, PriceSpec};
use crate::json::Json;
use crate::meter::Meter;
use crate::rates::{Listed, RateSpec, TierSpec, WindowSpec};
use crate::time::EventTime;
use crate::window::{WallTime, Weekdays, Window};

/// Key, meter, power of ten of the units it prices.
const KEYS: [(&str, Meter, i32); 16] = [
    ("input_mtok", Meter::Input, 6),
    ("output_mtok", Meter::Output, 6),
    ("cache_read_mtok", Meter::CacheRead, 6),
    ("cache_write_5m_mtok", Meter::CacheWrite5m, 6),
    ("cache_write_mtok", Meter::CacheWrite5m, 6),
    ("cache_write_1h_mtok", Meter::CacheWrite1h, 6),
    ("output_reasoning_mtok", Meter::Reasoning, 6),
    ("input_audio_mtok", Meter::AudioInput, 6),
    ("output_audio_mtok", Meter::AudioOutput, 6),
    ("input_image_mtok", Meter::ImageInput, 6),
    ("output_image_mtok", Meter::ImageOutput, 6),
    ("input_video_mtok", Meter::Video, 6),
    ("web_searches_kcount", Meter::WebSearchMedium, 3),
    ("requests_kcount", Meter::Requests, 3),
    ("input_text_mtok", Meter::Input, 6),
    ("output_text_mtok", Meter::Output, 6),
];

const INHERITED: [(Meter, Meter); 5] = [
    (Meter::AudioInput, Meter::Input),
    (Meter::ImageInput, Meter::Input),
    (Meter::Video, Meter::Input),
    (Meter::AudioOutput, Meter::Output),
    (Meter::ImageOutput, Meter::Output),
];

pub(super) fn read(root: &Json<'_>, draft: &mut Draft<'_>) -> Result<(), ImportError> {
    let not_of_format =
        |message: &str| ImportError::NotOfFormat { format: "genai-prices", message: message.to_owned() };
    let providers = match root {
        Json::Array(providers) => providers.as_slice(),
        _ => root.get("providers").map_or(&[][..], Json::elements),
    };
    if providers.is_empty() {
        return Err(not_of_format("expected an array of providers"));
    }
    let mut fallbacks = Vec::new();
    for provider in providers {
        let id = provider.get("id").and_then(Json::text);
        let id = id.ok_or_else(|| not_of_format("expected each provider to have an `id`"))?;
        for model in provider.get("models").map_or(&[][..], Json::elements) {
            draft.report.models_read += 1;
            read_model(id, model, draft);
        }
        for fallback in provider.get("fallback_model_providers").map_or(&[][..], Json::elements) {
            fallbacks.push((id, fallback.text().unwrap_or_default()));
        }
    }
    let own = draft.models.clone();
    for (provider, from) in fallbacks {
        for model in own.iter().filter(|model| *model.provider == *from) {
            copy_model(provider, model, draft);
        }
    }
    Ok(())
}

fn read_model(provider: &str, model: &Json<'_>, draft: &mut Draft<'_>) {
    let id = model.get("id").and_then(Json::text).unwrap_or_default();
    let place = Place { provider, model: id };
    let prices = match model.get("prices") {
        Some(Json::Array(conditional)) => read_conditional(place, conditional, draft),
        Some(prices) => read_rates(place, prices, draft)
            .into_iter()
            .map(|rates| price_from(draft.options.from, rates, draft))
            .collect(),
        None => Vec::new(),
    };
    let Some(position) = draft.add(place, id, prices) else {
        return;
    };
    if let Some(rule) = model.get("match") {
        read_match(place, position, rule, draft);
    }
}

fn price_from(from: EventTime, standard: RateSpec, draft: &Draft<'_>) -> PriceSpec {
    PriceSpec {
        from,
        source: draft.source(),
        as_of: draft.options.as_of,
        standard,
        tiers: [None, None, None],
        windows: Vec::new(),
        regions: Vec::new(),
        grid: Vec::new(),
    }
}

/// Prices of which the last that holds is charged: dated ones become a timeline, hours become windows of all of it.
fn read_conditional(place: Place<'_>, conditional: &[Json<'_>], draft: &mut Draft<'_>) -> Vec<PriceSpec> {
    let mut timeline: Vec<PriceSpec> = Vec::new();
    let mut windows = Vec::new();
    for (position, entry) in conditional.iter().enumerate() {
        let Some(rates) = entry.get("prices").and_then(|prices| read_rates(place, prices, draft)) else {
            continue;
        };
        let constraint = entry.get("constraint").filter(|constraint| !constraint.is_null());
        let text = |key: &str| constraint.and_then(|constraint| constraint.get(key)).and_then(Json::text);
        if let Some(start) = text("start_date") {
            let Ok(from) = EventTime::parse(start) else {
                draft.skip(place, "constraint", start, "not a date");
                continue;
            };
            // A later entry takes precedence from its start on, so what starts after it and stands before it never
            // holds.
            let before = timeline.len();
            timeline.retain(|price| price.from < from);
            if timeline.len() < before {
                draft.skip(place, "prices", start, "a price that is replaced before it begins");
            }
            timeline.push(price_from(from, rates, draft));
        } else if let (Some(start), Some(end)) = (text("start_time"), text("end_time")) {
            match (clock_utc(start), clock_utc(end)) {
                (Some(from), Some(to)) if from < to => windows.push((from, to, rates)),
                _ => draft.skip(place, "constraint", format!("{start} to {end}"), "hours that are not a window in UTC"),
            }
        } else if constraint.is_none() && position == 0 {
            timeline.push(price_from(draft.options.from, rates, draft));
        } else {
            draft.skip(place, "constraint", constraint.unwrap_or(&Json::Null), "a condition that is not known");
        }
    }
    for (from, to, rates) in windows.into_iter().rev() {
        for price in &mut timeline {
            if !price.standard.above.is_empty() && rates.above.is_empty() {
                draft.skip(
                    place,
                    "constraint",
                    format!("{from} to {to}"),
                    "hours whose rates do not say what long requests cost",
                );
                continue;
            }
            price.windows.push(WindowSpec {
                window: Window { zone: Tz::UTC, days: Weekdays::EVERY, from, to, except: Vec::new() },
                rates: TierSpec { multiplier: None, rates: rates.clone() },
            });
        }
    }
    timeline
}

/// `16:30:00Z` to the minute.
fn clock_utc(text: &str) -> Option<WallTime> {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?;
    WallTime::parse(text.strip_suffix(":00").filter(|short| short.contains(':')).unwrap_or(text))
}

fn read_rates(place: Place<'_>, prices: &Json<'_>, draft: &mut Draft<'_>) -> Option<RateSpec> {
    let mut rates = RateSpec::default();
    for (key, value) in prices.members().filter(|(_, value)| !value.is_null()) {
        let Some((_, meter, power)) = KEYS.iter().find(|(known, ..)| *known == key) else {
            draft.skip(place, key, value, "no meter carries it");
            continue;
        };
        let finer = key == "cache_write_mtok" && prices.get("cache_write_5m_mtok").is_some();
        let coarser = matches!(key, "input_text_mtok" | "output_text_mtok") && rates.listed.contains_key(meter);
        if finer || coarser {
            draft.skip(place, key, value, "a price for the same meter is listed beside it");
            continue;
        }
        let base = if let Json::Object(_) = value { value.get("base").unwrap_or(&Json::Null) } else { value };
        let Some(price) = draft.price(place, key, base, *power) else {
            continue;
        };
        rates.listed.insert(*meter, price);
        for tier in value.get("tiers").map_or(&[][..], Json::elements) {
            let start = tier.get("start").and_then(Json::number).and_then(|start| start.parse::<u64>().ok());
            let price = tier.get("price").and_then(|price| draft.price(place, key, price, *power));
            match (start, price) {
                (Some(start), Some(price)) if start > 0 => {
                    rates.above.entry(start).or_default().insert(*meter, price);
                }
                _ => draft.skip(place, key, tier, "a tier without a start above 0 and a price"),
            }
        }
    }
    inherit(&mut rates.listed, &INHERITED);
    inherit_above(&mut rates);
    (!rates.listed.is_empty()).then_some(rates)
}

/// What inherits from a meter inherits its lengths as well, unless it has a price of its own.
fn inherit_above(rates: &mut RateSpec) {
    let own = |listed: &Listed, heir: Meter, from: Meter| listed.get(&heir) != listed.get(&from);
    let heirs: Vec<_> = INHERITED.into_iter().filter(|(heir, from)| !own(&rates.listed, *heir, *from)).collect();
    rates.above.values_mut().for_each(|listed| inherit(listed, &heirs));
}

fn read_match(place: Place<'_>, position: usize, rule: &Json<'_>, draft: &mut Draft<'_>) {
    for (kind, value) in rule.members() {
        if kind == "or" {
            value.elements().iter().for_each(|rule| read_match(place, position, rule, draft));
            continue;
        }
        let Some(text) = value.text() else {
            draft.skip(place, &format!("match.{kind}"), value, "several conditions at once");
            continue;
        };
        match kind {
            "equals" => draft.add_alias(place, position, text),
            "starts_with" => add_pattern(place, position, &format!("{text}*"), draft),
            "ends_with" => add_pattern(place, position, &format!("*{text}"), draft),
            "contains" => add_pattern(place, position, &format!("*{text}*"), draft),
            "regex" => {
                draft.skip(place, "match.regex", text, "a regular expression; dated suffixes are found without it")
            }
            _ => draft.skip(place, &format!("match.{kind}"), text, "a condition that is not known"),
        }
    }
}

fn add_pattern(place: Place<'_>, position: usize, pattern: &str, draft: &mut Draft<'_>) {
    let pattern = pattern.to_ascii_lowercase();
    let literal = pattern.trim_matches('*');
    if literal.is_empty() || literal.contains('*') || !super::is_plain_name(&pattern) {
        draft.skip(place, "match", pattern, "not a pattern");
        return;
    }
    let of_provider = draft.models.iter().filter(|model| *model.provider == *place.provider);
    if of_provider.flat_map(|model| &model.patterns).any(|other| *other == pattern) {
        draft.skip(place, "match", pattern, "an earlier model of this provider has the pattern");
        return;
    }
    draft.models[position].patterns.push(pattern);
}

/// A model that a provider sells under another provider's names and prices.
fn copy_model(provider: &str, model: &ModelSpec, draft: &mut Draft<'_>) {
    let place = Place { provider, model: &model.name };
    if draft.owner(provider, &model.name).is_some() {
        return;
    }
    let Some(position) = draft.add(place, &model.name, model.prices.clone()) else {
        return;
    };
    for alias in &model.aliases {
        if draft.owner(provider, alias).is_none() {
            draft.add_alias(place, position, alias);
        }
    }
    for pattern in &model.patterns {
        add_pattern(place, position, pattern, draft);
    }
}
