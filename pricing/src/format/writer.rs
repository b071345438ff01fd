//! A book as text, in one canonical form: providers and models by name, meters in meter order, prices by start. What is
//! read back from it has the same revision.
//!
//! Prices of tokens are written per million, which is exact: a unit price has 18 decimals and a million six.

use std::fmt::Write as _;

use crate::book::{ModelSpec, PriceSpec, ProviderSpec};
use crate::meter::Meter;
use crate::money::Money;
use crate::rates::{Listed, RateSpec, ServiceTier, TierSpec};
use crate::time::EventTime;
use crate::window::Weekdays;

/// Writing to a `String` cannot fail; this keeps the sentence in one place.
macro_rules! line {
    ($text:expr, $($format:tt)*) => {{
        let _ = writeln!($text, $($format)*);
    }};
}

pub(crate) fn write<'b>(providers: impl Iterator<Item = &'b ProviderSpec>, models: &[ModelSpec]) -> String {
    let providers: Vec<&ProviderSpec> = providers.collect();
    let mut text = String::new();
    let single = if let [provider] = providers.as_slice() { Some(provider) } else { None };
    if let Some(provider) = single {
        line!(text, "provider = {}", quoted(&provider.name));
        if !provider.aliases.is_empty() {
            line!(text, "provider_aliases = {}", list(&provider.aliases));
        }
    }
    for provider in providers.iter().filter(|_| single.is_none()) {
        line!(text, "[[providers]]\nname = {}", quoted(&provider.name));
        if !provider.aliases.is_empty() {
            line!(text, "aliases = {}", list(&provider.aliases));
        }
        line!(text, "");
    }
    for model in models {
        line!(text, "\n[[model]]");
        if single.is_none() {
            line!(text, "provider = {}", quoted(&model.provider));
        }
        line!(text, "name = {}", quoted(&model.name));
        for (key, names) in [("aliases", &model.aliases), ("patterns", &model.patterns)] {
            if !names.is_empty() {
                line!(text, "{key} = {}", list(names));
            }
        }
        if model.free {
            line!(text, "free = true");
        }
        model.prices.iter().for_each(|price| write_price(&mut text, price));
    }
    text
}

fn write_price(text: &mut String, price: &PriceSpec) {
    line!(text, "\n[[model.price]]\nfrom = {}", time(price.from));
    if let Some(source) = &price.source {
        line!(text, "source = {}", quoted(source));
    }
    if let Some(as_of) = price.as_of {
        line!(text, "as_of = {}", time(as_of));
    }
    write_rates(text, "model.price", &price.standard);
    for tier in [ServiceTier::Batch, ServiceTier::Flex, ServiceTier::Priority] {
        if let Some(spec) = &price.tiers[tier as usize - 1] {
            let key = format!("model.price.{tier}");
            line!(text, "[{key}]");
            write_tier(text, &key, spec);
        }
    }
    for spec in &price.windows {
        let (key, window) = ("model.price.window", &spec.window);
        line!(text, "[[{key}]]\nzone = {}", quoted(window.zone.name()));
        if window.days != Weekdays::EVERY {
            let days: Vec<String> = window.days.names().map(str::to_owned).collect();
            line!(text, "days = {}", list(&days));
        }
        line!(text, "from = \"{}\"\nto = \"{}\"", window.from, window.to);
        if !window.except.is_empty() {
            let days: Vec<String> = window.except.iter().map(ToString::to_string).collect();
            line!(text, "except = {}", list(&days));
        }
        write_tier(text, key, &spec.rates);
    }
    for region in &price.regions {
        line!(text, "[[model.price.region]]\nnames = {}", list(&region.names));
        line!(text, "multiplier = \"{}\"", region.multiplier);
    }
}

fn write_tier(text: &mut String, key: &str, tier: &TierSpec) {
    if let Some(multiplier) = tier.multiplier {
        line!(text, "multiplier = \"{multiplier}\"");
    }
    write_rates(text, key, &tier.rates);
}

fn write_rates(text: &mut String, key: &str, rates: &RateSpec) {
    write_listed(text, &rates.listed);
    for (threshold, listed) in &rates.above {
        line!(text, "[[{key}.above]]\ninput = {threshold}");
        write_listed(text, listed);
    }
    for (start, listed) in &rates.graduated {
        line!(text, "[[{key}.graduated]]\nunits = {start}");
        write_listed(text, listed);
    }
}

fn write_listed(text: &mut String, listed: &Listed) {
    let (mut per_mtok, mut per_unit) = (Vec::new(), Vec::new());
    for (meter, price) in listed {
        match price.checked_mul(1_000_000).filter(|_| meter.is_token()) {
            Some(price) => per_mtok.push(rate(*meter, price)),
            None => per_unit.push(rate(*meter, *price)),
        }
    }
    for (key, rates) in [("per_mtok", per_mtok), ("per_unit", per_unit)] {
        if !rates.is_empty() {
            line!(text, "{key} = {{ {} }}", rates.join(", "));
        }
    }
}

fn rate(meter: Meter, price: Money) -> String {
    format!("{meter} = \"{price}\"")
}

/// A date where the time is midnight UTC.
fn time(time: EventTime) -> String {
    let text = time.to_string();
    quoted(text.strip_suffix("T00:00:00Z").unwrap_or(&text))
}

fn list(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    format!("[{}]", names.join(", "))
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
