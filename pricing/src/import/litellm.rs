//! `model_prices_and_context_window.json` of litellm (github.com/BerriAI/litellm): an object of models, each with flat
//! cost keys.
//!
//! A cost key is a base (`input_cost_per_token`), then a length (`_above_200k_tokens`), then a service tier
//! (`_batches`, `_flex`, `_priority`), in that order or with the tier first.
//!
//! | of the source | in the book |
//! | --- | --- |
//! | the bases of [`BASES`] | their meters |
//! | `…_above_Nk_tokens` | `above` N × 1000 |
//! | `…_batches`, `…_flex`, `…_priority` | service tiers with rates of their own |
//! | `tiered_pricing` | `above`: the whole request, as the providers it is listed for bill it |
//! | `off_peak_pricing` | windows |
//! | `regional_processing_uplift_multiplier_eu`, `…_us`; `provider_specific_entry.us` | regions |
//! | `litellm_provider` | the provider; `bedrock_converse`, `vertex_ai-…`, `text-completion-…`, … are their providers |
//! | image and video tokens without a price | the price of the prompt's text, as litellm charges them |
//!
//! Every other key that speaks of cost is skipped with its reason ([`reason_to_skip`]); keys that do not are not
//! prices.

use chrono_tz::Tz;

use super::{Draft, ImportError, Place, inherit};
use crate::book::PriceSpec;
use crate::json::Json;
use crate::meter::Meter;
use crate::money::Money;
use crate::rates::{Factor, Listed, RateSpec, RegionSpec, ServiceTier, TierSpec, WindowSpec};
use crate::window::{WallTime, Weekdays, Window};

/// Base key and meter; all are prices of single units. A later base of the same meter is taken where an earlier one is
/// missing.
pub(crate) const BASES: [(&str, Meter); 20] = [
    ("input_cost_per_token", Meter::Input),
    ("output_cost_per_token", Meter::Output),
    ("cache_read_input_token_cost", Meter::CacheRead),
    ("input_cost_per_token_cache_hit", Meter::CacheRead),
    ("cache_creation_input_token_cost", Meter::CacheWrite5m),
    ("cache_creation_input_token_cost_above_1hr", Meter::CacheWrite1h),
    ("cache_creation_input_token_cost_above_12hr", Meter::CacheWrite12h),
    ("output_cost_per_reasoning_token", Meter::Reasoning),
    ("input_cost_per_audio_token", Meter::AudioInput),
    ("output_cost_per_audio_token", Meter::AudioOutput),
    ("input_cost_per_image_token", Meter::ImageInput),
    ("output_cost_per_image_token", Meter::ImageOutput),
    ("input_cost_per_video_token", Meter::Video),
    ("input_cost_per_character", Meter::Characters),
    ("output_cost_per_character", Meter::Characters),
    ("input_cost_per_second", Meter::Seconds),
    ("output_cost_per_second", Meter::Seconds),
    ("input_cost_per_query", Meter::Requests),
    ("input_cost_per_request", Meter::Requests),
    ("ocr_cost_per_page", Meter::Pages),
];

const SEARCHES: [(&str, Meter); 3] = [
    ("search_context_size_low", Meter::WebSearchLow),
    ("search_context_size_medium", Meter::WebSearchMedium),
    ("search_context_size_high", Meter::WebSearchHigh),
];

const INHERITED: [(Meter, Meter); 2] = [(Meter::ImageInput, Meter::Input), (Meter::Video, Meter::Input)];

/// Suffixes that name a tier a book has.
const TIERS: [(&str, ServiceTier); 3] =
    [("_batches", ServiceTier::Batch), ("_flex", ServiceTier::Flex), ("_priority", ServiceTier::Priority)];

pub(super) fn read(root: &Json<'_>, draft: &mut Draft<'_>) -> Result<(), ImportError> {
    if root.members().next().is_none() {
        return Err(ImportError::NotOfFormat { format: "litellm", message: "expected an object of models".to_owned() });
    }
    // Plain names first: where `x` and `provider/x` differ, each keeps the name it is called by.
    let models = || root.members().filter(|(name, _)| *name != "sample_spec");
    let mut later = Vec::new();
    for (name, model) in models() {
        draft.report.models_read += 1;
        let Some(provider) = model.get("litellm_provider").and_then(Json::text) else {
            draft.skip(Place { provider: "", model: name }, "litellm_provider", "none", "a model without a provider");
            continue;
        };
        let provider = provider_of(provider);
        match without_prefix(name, provider) {
            Some(short) => later.push((provider, name, short, model)),
            None => {
                let place = Place { provider, model: name };
                let prices = read_prices(place, model, draft);
                draft.add(place, name, prices);
            }
        }
    }
    for (provider, name, short, model) in later {
        let place = Place { provider, model: name };
        let prices = read_prices(place, model, draft);
        let same = draft.owner(provider, short).map(|owner| same_prices(&owner.prices, &prices));
        match same {
            // The same model under its full name.
            Some(true) => {
                let key = (provider.to_ascii_lowercase(), short.to_ascii_lowercase());
                if let Some(position) = draft.claimed.get(&key).copied() {
                    draft.add_alias(place, position, name);
                }
            }
            Some(false) => {
                draft.add(place, name, prices);
            }
            None => {
                if let Some(position) = draft.add(place, short, prices) {
                    draft.add_alias(place, position, name);
                }
            }
        }
    }
    Ok(())
}

/// litellm's provider without its API flavour.
fn provider_of(name: &str) -> &str {
    match name {
        "bedrock_converse" => "bedrock",
        "cohere_chat" => "cohere",
        "azure_text" => "azure",
        _ => {
            let name = name.strip_prefix("text-completion-").unwrap_or(name);
            ["vertex_ai", "fireworks_ai"]
                .into_iter()
                .find(|family| name.strip_prefix(family).is_some_and(|rest| rest.starts_with('-')))
                .unwrap_or(name)
        }
    }
}

fn without_prefix<'n>(name: &'n str, provider: &str) -> Option<&'n str> {
    name.strip_prefix(provider)?.strip_prefix('/').filter(|rest| !rest.is_empty())
}

fn same_prices(a: &[PriceSpec], b: &[PriceSpec]) -> bool {
    let content = |prices: &[PriceSpec]| {
        let mut prices = prices.to_vec();
        prices.iter_mut().for_each(|price| price.source = None);
        serde_json::to_string(&prices).ok()
    };
    content(a).is_some_and(|a| Some(a) == content(b))
}

/// A cost key taken apart.
struct CostKey {
    meter: Meter,
    base: &'static str,
    above: Option<u64>,
    tier: Option<ServiceTier>,
}

impl CostKey {
    fn parse(key: &str) -> Option<CostKey> {
        let (mut rest, mut tier, mut above) = (key.to_owned(), None, None);
        // Each at most once, in either order.
        for _ in 0..2 {
            if let Some((suffix, found)) = TIERS.iter().find(|(suffix, _)| tier.is_none() && rest.ends_with(suffix)) {
                rest.truncate(rest.len() - suffix.len());
                tier = Some(*found);
            }
            if above.is_none()
                && let Some((base, threshold)) = split_threshold(&rest)
            {
                (rest, above) = (base, Some(threshold));
            }
        }
        let (base, meter) = BASES.iter().find(|(base, _)| *base == rest)?;
        Some(CostKey { meter: *meter, base, above, tier })
    }
}

/// `x_above_200k_tokens` as `x` and 200,000.
fn split_threshold(key: &str) -> Option<(String, u64)> {
    let (base, thousands) = key.strip_suffix("k_tokens")?.rsplit_once("_above_")?;
    let thousands: u64 = thousands.parse().ok()?;
    (1..1_000_000_000).contains(&thousands).then(|| (base.to_owned(), thousands * 1000))
}

fn read_prices(place: Place<'_>, model: &Json<'_>, draft: &mut Draft<'_>) -> Vec<PriceSpec> {
    let mut standard = RateSpec::default();
    let mut tiers: [Option<TierSpec>; 3] = [None, None, None];
    let mut regions = Vec::new();
    // In the order of BASES, so that the first base of a meter is the one that is taken.
    let mut keys: Vec<(&str, &Json<'_>, Option<CostKey>)> =
        model.members().map(|(key, value)| (key, value, CostKey::parse(key))).collect();
    let rank =
        |key: &Option<CostKey>| key.as_ref().and_then(|key| BASES.iter().position(|(base, _)| *base == key.base));
    keys.sort_by_key(|(.., key)| rank(key));
    for (name, value, key) in &keys {
        match key {
            Some(key) => {
                let Some(price) = draft.price(place, name, value, 0) else {
                    continue;
                };
                let rates = match key.tier {
                    None => &mut standard,
                    Some(tier) => &mut tiers[tier as usize - 1].get_or_insert_default().rates,
                };
                let listed = key.above.map_or(&mut rates.listed, |above| rates.above.entry(above).or_default());
                put(place, name, key.meter, price, listed, draft);
            }
            None => read_other(place, name, value, &mut standard, &mut regions, draft),
        }
    }
    if standard.listed.is_empty() {
        return Vec::new();
    }
    inherit(&mut standard.listed, &INHERITED);
    let heirs: Vec<_> =
        INHERITED.into_iter().filter(|(heir, from)| standard.listed.get(heir) == standard.listed.get(from)).collect();
    standard.above.values_mut().for_each(|listed| inherit(listed, &heirs));
    let rates_of_tiers = tiers.iter_mut().flatten().map(|tier| &mut tier.rates);
    for rates in rates_of_tiers {
        rates.above.values_mut().chain([&mut rates.listed]).for_each(|listed| inherit(listed, &heirs));
    }
    let windows = model
        .get("off_peak_pricing")
        .map_or_else(Vec::new, |pricing| read_windows(place, pricing, &standard, &heirs, draft));
    let own_source = model.get("source").and_then(Json::text);
    vec![PriceSpec {
        from: draft.options.from,
        source: own_source.map(Into::into).or_else(|| draft.source()),
        as_of: draft.options.as_of,
        standard,
        tiers,
        windows,
        regions,
        grid: Vec::new(),
    }]
}

/// Lists a price; a second base of the same meter must say the same, or nothing.
fn put(place: Place<'_>, key: &str, meter: Meter, price: Money, listed: &mut Listed, draft: &mut Draft<'_>) {
    match listed.get(&meter) {
        None => {
            listed.insert(meter, price);
        }
        // Both sides of speech by the second: one of them is 0 and the other is what is charged.
        Some(first) if first.is_zero() && meter == Meter::Seconds => {
            listed.insert(meter, price);
        }
        Some(first) if *first == price || price.is_zero() => {}
        Some(_) => draft.skip(place, key, price, "another price for the same meter is listed beside it"),
    }
}

/// The keys that are not of the form of a cost key.
fn read_other(
    place: Place<'_>,
    key: &str,
    value: &Json<'_>,
    standard: &mut RateSpec,
    regions: &mut Vec<RegionSpec>,
    draft: &mut Draft<'_>,
) {
    match key {
        "search_context_cost_per_query" => {
            for (size, price) in value.members() {
                match SEARCHES.iter().find(|(known, _)| *known == size) {
                    Some((_, meter)) => {
                        if let Some(price) = draft.price(place, &format!("{key}.{size}"), price, 0) {
                            standard.listed.insert(*meter, price);
                        }
                    }
                    None => draft.skip(place, &format!("{key}.{size}"), price, "a search context of another size"),
                }
            }
        }
        "regional_processing_uplift_multiplier_eu" => read_region(place, key, "eu", value, regions, draft),
        "regional_processing_uplift_multiplier_us" => read_region(place, key, "us", value, regions, draft),
        "provider_specific_entry" => {
            for (name, value) in value.members() {
                let key = format!("{key}.{name}");
                match name {
                    "us" => read_region(place, &key, "us", value, regions, draft),
                    "fast" => draft.skip(place, &key, value, "a speed of service that is no service tier of the book"),
                    _ => {}
                }
            }
        }
        "tiered_pricing" => read_tiers(place, value, standard, draft),
        // Read once the standard rates are complete.
        "off_peak_pricing" => {}
        _ => {
            if let Some(reason) = reason_to_skip(key) {
                draft.skip(place, key, value, reason);
            }
        }
    }
}

/// Why a key that speaks of cost is not taken; `None` where a key is not a price.
pub(crate) fn reason_to_skip(key: &str) -> Option<&'static str> {
    const REASONS: [(&str, &str); 17] = [
        ("_ultrafast", "a service tier the book does not have"),
        ("_balanced", "a service tier the book does not have"),
        ("_decisions", "a service tier the book does not have"),
        ("search_free_requests", "a free allowance over a day or month, which no single event can show"),
        ("web_search_billing_unit", "how searches are counted, not what they cost"),
        ("regional_endpoint_uplift_multiplier", "it does not say in which regions"),
        ("audio_token_cost", "cached audio has no meter"),
        ("cache_read_input_image_token_cost", "cached images have no meter"),
        ("explicit_cache_read", "a second kind of cache read; the implicit one is taken"),
        ("dbu_cost", "a price in units of Databricks; the one in USD is taken"),
        ("citation_cost", "citations have no meter"),
        ("annotation_cost", "annotated pages have no meter"),
        ("maps_grounding", "grounding in maps has no meter"),
        ("_per_video", "video by the second has no meter beside audio by the second"),
        ("_image", "images by the piece have no meter"),
        ("_pixel", "images by the pixel have no meter"),
        ("_per_second_", "video by resolution has no meter"),
    ];
    let speaks_of_cost = ["cost", "pric", "uplift", "search_free_requests"].iter().any(|word| key.contains(word));
    if !speaks_of_cost && key != "web_search_billing_unit" {
        return None;
    }
    let known = REASONS.iter().find(|(part, _)| key.contains(part));
    Some(known.map_or("a unit that no meter counts", |(_, reason)| reason))
}

fn read_region(
    place: Place<'_>,
    key: &str,
    name: &str,
    value: &Json<'_>,
    regions: &mut Vec<RegionSpec>,
    draft: &mut Draft<'_>,
) {
    // A factor from 0 to 100 is a number within what a price may be.
    let Some(number) = draft.price(place, key, value, 0) else {
        return;
    };
    match Factor::new(number) {
        Some(multiplier) if !regions.iter().any(|region| region.names.iter().any(|other| other == name)) => {
            regions.push(RegionSpec { names: vec![name.to_owned()], multiplier });
        }
        _ => draft.skip(place, key, value, "not a factor, or the region's second one"),
    }
}

/// Ranges of the length of the prompt, each with its rates: Alibaba and others charge the whole request by it.
fn read_tiers(place: Place<'_>, value: &Json<'_>, standard: &mut RateSpec, draft: &mut Draft<'_>) {
    for tier in value.elements() {
        let start = tier.get("range").map_or(&[][..], Json::elements).first();
        let start = start.and_then(|start| start.number().or_else(|| start.text()));
        let start = start.and_then(|start| crate::usage::count_from_text("range", start).ok());
        let Some(start) = start else {
            draft.skip(place, "tiered_pricing", tier, "a tier without a range");
            continue;
        };
        for (name, price) in tier.members().filter(|(name, _)| *name != "range") {
            let key = format!("tiered_pricing.{name}");
            match CostKey::parse(name).filter(|key| key.above.is_none() && key.tier.is_none()) {
                Some(cost) => {
                    let Some(price) = draft.price(place, &key, price, 0) else {
                        continue;
                    };
                    let listed =
                        if start == 0 { &mut standard.listed } else { standard.above.entry(start).or_default() };
                    put(place, &key, cost.meter, price, listed, draft);
                }
                None => draft.skip(place, &key, price, "a unit that no meter counts"),
            }
        }
    }
}

fn read_windows(
    place: Place<'_>,
    pricing: &Json<'_>,
    standard: &RateSpec,
    heirs: &[(Meter, Meter)],
    draft: &mut Draft<'_>,
) -> Vec<WindowSpec> {
    let mut rates = RateSpec::default();
    for (name, value) in pricing.members() {
        let key = format!("off_peak_pricing.{name}");
        if let Some(cost) = CostKey::parse(name).filter(|key| key.tier.is_none()) {
            let Some(price) = draft.price(place, &key, value, 0) else {
                continue;
            };
            let listed = cost.above.map_or(&mut rates.listed, |above| rates.above.entry(above).or_default());
            put(place, &key, cost.meter, price, listed, draft);
        } else if let Some(reason) = reason_to_skip(name) {
            draft.skip(place, &key, value, reason);
        }
    }
    inherit(&mut rates.listed, heirs);
    if rates.listed.is_empty() || !standard.above.is_empty() && rates.above.is_empty() {
        draft.skip(place, "off_peak_pricing", pricing, "hours whose rates do not say what all requests cost");
        return Vec::new();
    }
    let day_zone = pricing.get("weekday_timezone").and_then(Json::text);
    let groups = pricing.get("windows").map_or_else(|| vec![pricing], |windows| windows.elements().iter().collect());
    let mut windows = Vec::new();
    for group in groups {
        let hours = group.get("hours_utc");
        let hours: Vec<&str> = match hours {
            Some(Json::Array(hours)) => hours.iter().filter_map(Json::text).collect(),
            Some(hours) => hours.text().into_iter().collect(),
            None => Vec::new(),
        };
        let days: Vec<u8> = group
            .get("weekdays")
            .map_or(&[][..], Json::elements)
            .iter()
            .filter_map(|day| day.number()?.parse().ok())
            .collect();
        let days = if days.is_empty() { Some(Weekdays::EVERY) } else { Weekdays::from_iso(&days) };
        for text in hours {
            let Some(found) = days.and_then(|days| windows_utc(text, days, day_zone)) else {
                draft.skip(place, "off_peak_pricing.hours_utc", text, "hours that are not windows of a day");
                continue;
            };
            windows.extend(
                found
                    .into_iter()
                    .map(|window| WindowSpec { window, rates: TierSpec { multiplier: None, rates: rates.clone() } }),
            );
        }
    }
    windows
}

/// `16:30-00:30`; a start that equals its end is the whole day. The day of the week is that of each instant, so hours
/// over midnight on some days only are two windows.
fn windows_utc(text: &str, days: Weekdays, day_zone: Option<&str>) -> Option<Vec<Window>> {
    let (from, to) = text.split_once('-')?;
    let (mut from, mut to) = (WallTime::parse(from.trim())?, WallTime::parse(to.trim())?);
    let zone = match day_zone {
        None => Tz::UTC,
        Some(zone) => zone.parse::<Tz>().ok()?,
    };
    match zone {
        Tz::UTC => {}
        // China keeps one offset all year, so hours in UTC are hours there; where clocks change they are not.
        Tz::Asia__Shanghai => (from, to) = (from.later_by_hours(8), to.later_by_hours(8)),
        _ => return None,
    }
    let window = |from, to| Window { zone, days, from, to, except: Vec::new() };
    Some(if from == to {
        vec![window(WallTime::MIDNIGHT, WallTime::END)]
    } else if from < to || days == Weekdays::EVERY {
        vec![window(from, to)]
    } else if to == WallTime::MIDNIGHT {
        vec![window(from, WallTime::END)]
    } else {
        vec![window(from, WallTime::END), window(WallTime::MIDNIGHT, to)]
    })
}
