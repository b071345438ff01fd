//! The built-in catalog loads, is complete, and holds what its readers rely on.

use std::collections::BTreeSet;
use std::path::Path;

use costhelm_pricing::{Book, EventTime, Meter, Money, ServiceTier, usage_from_json};

fn catalog_files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("catalog");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn every_catalog_file_loads_by_itself_and_is_compiled_in() {
    let mut models = 0;
    let mut problems = Vec::new();
    for (name, text) in catalog_files() {
        match Book::from_toml(&text, &name) {
            Ok(book) => models += book.models_len(),
            Err(error) => problems.push(error.to_string()),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let builtin = Book::builtin().unwrap();
    assert_eq!(builtin.models_len(), models, "src/catalog.rs does not list every file of catalog/");
    assert!(models > 100, "{models}");
}

#[test]
fn every_catalog_price_names_its_source_and_the_day_it_was_read() {
    for entry in Book::builtin().unwrap().entries().filter(|entry| entry.valid_from.is_some()) {
        let named = entry.source.as_deref().is_some_and(|source| !source.is_empty());
        assert!(named && entry.as_of.is_some(), "{} / {} from {:?}", entry.provider, entry.model, entry.valid_from);
    }
}

#[test]
fn long_requests_in_a_service_tier_are_unpriced_only_where_the_provider_publishes_no_price_for_them() {
    let book = Book::builtin().unwrap();
    let listed: BTreeSet<_> =
        book.entries().map(|entry| (entry.provider, entry.model, entry.service_tier, entry.valid_from)).collect();
    let long = usage_from_json(r#"{"input": 10000000, "output": 1}"#).unwrap().normalize().unwrap();
    let mut gaps = BTreeSet::new();
    for (provider, model, tier, from) in listed {
        if let Some(from) = from
            && let Err(unpriced) = book.plan(&provider, &model).unwrap().rate(&long, from, tier)
            && unpriced.code() == "no_rate_for_length"
        {
            gaps.insert(format!("{provider} {model} {tier}"));
        }
    }
    // The catalog says so at each of them; any other is a slip: a tier without `above` or `multiplier`.
    let known = ["openai gpt-5.4 priority", "openai gpt-5.5 priority", "openai gpt-5.5-pro flex"];
    assert_eq!(gaps, known.map(str::to_owned).into());
}

#[test]
fn the_models_that_must_be_priced_are_found_and_cost_what_their_pages_say() {
    let book = Book::builtin().unwrap();
    let at = EventTime::parse("2025-06-15T12:00:00Z").unwrap();
    let usage = usage_from_json(r#"{"input": 1000, "output": 1000}"#).unwrap().normalize().unwrap();
    for (provider, model, cost) in [
        ("anthropic", "claude-sonnet-4-20250514", "0.018"),
        ("anthropic", "claude-sonnet-4", "0.018"),
        ("anthropic", "claude-3-5-haiku-20241022", "0.0048"),
        ("anthropic", "claude-3-5-haiku", "0.0048"),
        ("openai", "gpt-4o", "0.0125"),
        ("azure_openai", "gpt-4o-mini", "0.00075"),
        ("openai", "gpt-4o-mini-2024-07-18", "0.00075"),
        ("google", "gemini-1.5-pro", "0.00625"),
        ("vertex_ai", "gemini-1.5-pro", "0.00625"),
        ("ollama", "llama3.1:8b", "0"),
        ("ollama_local", "llama3.1:latest", "0"),
        ("ollama", "llama3.1:70b", "0.0002"),
    ] {
        let rated = book.plan(provider, model).and_then(|plan| plan.rate(&usage, at, ServiceTier::Standard));
        assert_eq!(rated.map(|rated| rated.cost), Ok(cost.parse::<Money>().unwrap()), "{provider} {model}");
    }
}

#[test]
fn every_name_of_the_catalog_finds_its_own_model() {
    let book = Book::builtin().unwrap();
    let models: BTreeSet<_> = book.entries().map(|entry| (entry.provider, entry.model)).collect();
    assert!(models.len() > 100);
    for (provider, model) in models {
        let plan = book.plan(&provider, &model.to_uppercase()).unwrap();
        assert_eq!((plan.provider(), plan.model()), (&*provider, &*model));
    }
}

#[test]
fn input_and_output_are_priced_wherever_a_model_counts_them() {
    // A chat model with one of the two missing would be unpriced on every event.
    let book = Book::builtin().unwrap();
    let mut prices: std::collections::BTreeMap<_, BTreeSet<Meter>> = std::collections::BTreeMap::new();
    for entry in book.entries().filter(|entry| entry.service_tier == ServiceTier::Standard) {
        prices.entry((entry.provider, entry.model, entry.valid_from)).or_default().insert(entry.meter);
    }
    for (price, meters) in prices {
        if meters.contains(&Meter::Output) {
            assert!(meters.contains(&Meter::Input), "{price:?} has output without input");
        }
    }
}
