//! Price files of other projects in, a book out; and two books side by side.

use costhelm_pricing::compare::{diff, verify};
use costhelm_pricing::{
    Book, EventTime, ImportFormat, ImportOptions, Imported, Meter, Plan, ServiceTier, Usage, import,
};
use proptest::prelude::*;

fn at(text: &str) -> EventTime {
    EventTime::parse(text).unwrap()
}

fn options() -> ImportOptions {
    ImportOptions { from: at("2020-01-01"), as_of: Some(at("2026-11-22")), source: Some("a test".to_owned()) }
}

fn imported(format: ImportFormat, json: &str) -> Imported {
    let imported = import(format, json, &options()).unwrap();
    let again = Book::from_toml(&imported.toml, "again.toml").unwrap();
    assert_eq!(again.revision(), imported.book.revision());
    assert_eq!(again.to_toml().unwrap(), imported.toml, "import, export, import is the identity");
    imported
}

fn cost(plan: &Plan, counts: &[(Meter, u64)], time: &str, tier: ServiceTier) -> String {
    let mut usage = Usage::ZERO;
    counts.iter().for_each(|(meter, count)| usage.set(*meter, *count));
    match plan.rate(&usage, at(time), tier) {
        Ok(rated) => rated.cost.to_string(),
        Err(unpriced) => unpriced.code().to_owned(),
    }
}

const MTOK: u64 = 1_000_000;

const LITELLM: &str = r#"{
"sample_spec": {"input_cost_per_token": 9},
"claude-x": {"litellm_provider": "anthropic", "mode": "chat", "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05,
  "cache_read_input_token_cost": 3.0000000000000003e-07, "cache_creation_input_token_cost": 3.75e-06,
  "cache_creation_input_token_cost_above_1hr": 6e-06, "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 1.2e-05,
  "input_cost_per_token_above_200k_tokens": 6e-06, "input_cost_per_token_batches": 1.5e-06,
  "input_cost_per_token_above_200k_tokens_batches": 3e-06, "output_cost_per_token_batches": 7.5e-06,
  "search_context_cost_per_query": {"search_context_size_low": 0.01, "search_context_size_medium": 0.011, "search_context_size_high": 0.012},
  "provider_specific_entry": {"us": 1.1, "fast": 6}, "max_tokens": 8192, "output_cost_per_token_ultrafast": 1,
  "source": "https://example.org/prices"},
"bedrock/us-east-1/claude-x": {"litellm_provider": "bedrock_converse", "input_cost_per_token": 1e-06},
"gemini/g": {"litellm_provider": "gemini", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "output_cost_per_image": 0.04},
"g2": {"litellm_provider": "gemini", "input_cost_per_token": 1e-06},
"gemini/g2": {"litellm_provider": "gemini", "input_cost_per_token": 1e-06},
"gemini/g3": {"litellm_provider": "gemini", "input_cost_per_token": 1e-06},
"g3": {"litellm_provider": "gemini", "input_cost_per_token": 2e-06},
"deepseek/d": {"litellm_provider": "deepseek", "input_cost_per_token": 3e-07, "output_cost_per_token": 1e-06,
  "off_peak_pricing": {"input_cost_per_token": 1.5e-07, "weekday_timezone": "Asia/Shanghai",
    "windows": [{"hours_utc": ["00:00-01:00", "04:00-06:00", "10:00-00:00"], "weekdays": [1,2,3,4,5]}, {"hours_utc": "00:00-00:00", "weekdays": [6,7]}]}},
"qwen": {"litellm_provider": "dashscope", "tiered_pricing": [
  {"range": [0, 256000.0], "input_cost_per_token": 5e-08, "output_cost_per_token": 4e-07},
  {"range": [256000.0, 1000000.0], "input_cost_per_token": 2.5e-07, "output_cost_per_token": 2e-06}]},
"whisper": {"litellm_provider": "openai", "mode": "audio_transcription", "input_cost_per_second": 0.0001, "output_cost_per_second": 0.0},
"dall-e": {"litellm_provider": "openai", "input_cost_per_pixel": 1e-08},
"free-one": {"litellm_provider": "ollama", "input_cost_per_token": 0.0, "output_cost_per_token": 0},
"broken": {"litellm_provider": "openai", "input_cost_per_token": -1},
"odd": {"litellm_provider": "openai", "input_cost_per_token": "a lot"}
}"#;

#[test]
fn litellm_s_keys_become_meters_lengths_tiers_hours_and_regions() {
    let Imported { book, report, .. } = imported(ImportFormat::Litellm, LITELLM);
    let (standard, batch) = (ServiceTier::Standard, ServiceTier::Batch);
    let noon = "2026-11-19T12:00:00Z";
    let claude = book.plan("anthropic", "claude-x").unwrap();
    for (counts, tier, expected) in [
        (vec![(Meter::Input, 1000), (Meter::CacheRead, 1000)], standard, "0.0033"),
        (vec![(Meter::Input, 200_001)], standard, "1.200006"),
        (vec![(Meter::Input, 100), (Meter::CacheWrite1h, 300_000)], standard, "3.6006"),
        (vec![(Meter::Input, 200_000)], batch, "0.3"),
        (vec![(Meter::Input, 300_000), (Meter::Output, 2)], batch, "0.900015"),
        (vec![(Meter::CacheWrite12h, 1)], standard, "no_rate_for_meter"),
        (vec![(Meter::WebSearchHigh, 2)], standard, "0.024"),
    ] {
        assert_eq!(cost(&claude, &counts, noon, tier), expected, "{counts:?} {tier}");
    }
    let mut usage = Usage::ZERO;
    usage.set(Meter::Output, MTOK);
    let us = claude.rate_in(&usage, at(noon), standard, Some("us")).unwrap();
    assert_eq!(us.cost.to_string(), "16.5");
    let deepseek = book.plan("deepseek", "deepseek/d").unwrap();
    for (time, expected) in [
        ("2026-11-19T12:00:00Z", "0.15"),
        ("2026-11-19T02:00:00Z", "0.3"),
        ("2026-11-19T00:30:00Z", "0.15"),
        ("2026-11-21T02:00:00Z", "0.15"),
        // Sunday evening in UTC is Monday morning in China: still not a peak hour.
        ("2026-11-22T18:00:00Z", "0.15"),
        ("2026-11-23T00:59:59Z", "0.15"),
        ("2026-11-23T01:00:00Z", "0.3"),
    ] {
        assert_eq!(cost(&deepseek, &[(Meter::Input, MTOK)], time, standard), expected, "{time}");
    }
    let qwen = book.plan("dashscope", "qwen").unwrap();
    assert_eq!(cost(&qwen, &[(Meter::Input, 256_000)], noon, standard), "0.0128");
    assert_eq!(cost(&qwen, &[(Meter::Input, 256_001)], noon, standard), "0.06400025");
    let gemini = book.plan("gemini", "g").unwrap();
    assert_eq!(cost(&gemini, &[(Meter::ImageInput, MTOK)], noon, standard), "1");
    assert_eq!(cost(&gemini, &[(Meter::AudioInput, 1)], noon, standard), "no_rate_for_meter");
    assert_eq!(cost(&book.plan("openai", "whisper").unwrap(), &[(Meter::Seconds, 60)], noon, standard), "0.006");
    assert_eq!(book.plan("bedrock", "us-east-1/claude-x").unwrap().provider(), "bedrock");
    // The same model under two names is one; where their prices differ each keeps its own.
    assert_eq!(book.plan("gemini", "gemini/g2").unwrap().model(), "g2");
    assert_eq!(cost(&book.plan("gemini", "g3").unwrap(), &[(Meter::Input, MTOK)], noon, standard), "2");
    assert_eq!(cost(&book.plan("gemini", "gemini/g3").unwrap(), &[(Meter::Input, MTOK)], noon, standard), "1");

    assert_eq!(report.all_zero, [("ollama".to_owned(), "free-one".to_owned())]);
    assert_eq!(report.noise.len(), 1);
    assert_eq!(
        (report.noise[0].text.as_str(), report.noise[0].taken.to_string().as_str()),
        ("3.0000000000000003e-07", "0.0000003")
    );
    let skipped: Vec<String> =
        report.skipped.iter().map(|row| format!("{} {}: {}", row.model, row.key, row.reason)).collect();
    for expected in [
        "claude-x provider_specific_entry.fast: a speed of service",
        "claude-x output_cost_per_token_ultrafast: a service tier",
        "gemini/g output_cost_per_image: images by the piece",
        "dall-e input_cost_per_pixel: images by the pixel",
        "dall-e name: no price that a meter can carry",
        "broken input_cost_per_token: a negative price",
        "odd input_cost_per_token: not a decimal number",
    ] {
        assert!(skipped.iter().any(|row| row.starts_with(expected)), "{expected} is not in {skipped:#?}");
    }
    assert!(!skipped.iter().any(|row| row.contains("max_tokens") || row.contains("mode")), "{skipped:#?}");
    assert_eq!((report.models_read, report.models_taken), (14, 10));
    let entry = book.entries().find(|entry| &*entry.model == "claude-x").unwrap();
    assert_eq!(entry.source.as_deref(), Some("https://example.org/prices"));
}

const GENAI: &str = r#"[
{"id": "acme", "models": [
  {"id": "a-1", "match": {"or": [{"equals": "a-one"}, {"starts_with": "a-1-"}, {"regex": "^a-1-\\d{8}$"}]},
   "prices": {"input_mtok": {"base": 1.25, "tiers": [{"start": 200000, "price": 2.5}]}, "output_mtok": 10, "cache_read_mtok": 0.125,
     "cache_write_mtok": 1.5, "input_audio_mtok": 4, "web_searches_kcount": 10, "requests_kcount": 5, "cache_audio_read_mtok": 1}},
  {"id": "a-2", "match": {"contains": "-two"}, "prices": [
     {"prices": {"input_mtok": 3, "output_mtok": 15}},
     {"constraint": {"start_date": "2026-06-01"}, "prices": {"input_mtok": 2, "output_mtok": 15}}]},
  {"id": "a-3", "match": {"and": [{"contains": "x"}, {"contains": "y"}]}, "prices": [
     {"prices": {"input_mtok": 0.135}},
     {"constraint": {"start_time": "00:30:00Z", "end_time": "16:30:00Z"}, "prices": {"input_mtok": 0.27}}]},
  {"id": "a-4", "match": {"equals": "a-one"}, "prices": {"input_mtok": 1}},
  {"id": "a-5", "match": {"equals": "a-5"}, "prices": {}}
]},
{"id": "resale", "fallback_model_providers": ["acme"], "models": [
  {"id": "a-2", "match": {"equals": "a-2"}, "prices": {"input_mtok": 99}}
]}]"#;

#[test]
fn genai_prices_units_dates_hours_matches_and_fallbacks_are_taken() {
    let Imported { book, report, .. } = imported(ImportFormat::GenaiPrices, GENAI);
    let standard = ServiceTier::Standard;
    let noon = "2026-11-19T12:00:00Z";
    let one = book.plan("acme", "A-ONE").unwrap();
    for (counts, expected) in [
        (vec![(Meter::Input, 200_000)], "0.25"),
        (vec![(Meter::Input, 200_001)], "0.5000025"),
        (vec![(Meter::ImageInput, 200_001)], "0.5000025"),
        (vec![(Meter::AudioInput, 1000), (Meter::Output, 100)], "0.005"),
        (vec![(Meter::CacheRead, 1000), (Meter::CacheWrite5m, 1000)], "0.001625"),
        (vec![(Meter::CacheWrite1h, 1000)], "no_rate_for_meter"),
        (vec![(Meter::WebSearchMedium, 1), (Meter::Requests, 2)], "0.02"),
    ] {
        assert_eq!(cost(&one, &counts, noon, standard), expected, "{counts:?}");
    }
    assert_eq!(book.plan("acme", "a-1-turbo").unwrap().model(), "a-1");
    let two = book.plan("acme", "big-two").unwrap();
    assert_eq!(cost(&two, &[(Meter::Input, MTOK)], "2026-05-31T23:59:59Z", standard), "3");
    assert_eq!(cost(&two, &[(Meter::Input, MTOK)], "2026-06-01T00:00:00Z", standard), "2");
    let three = book.plan("acme", "a-3").unwrap();
    assert_eq!(cost(&three, &[(Meter::Input, MTOK)], "2026-11-19T00:29:59Z", standard), "0.135");
    assert_eq!(cost(&three, &[(Meter::Input, MTOK)], "2026-11-19T00:30:00Z", standard), "0.27");
    assert_eq!(cost(&book.plan("resale", "a-2").unwrap(), &[(Meter::Input, MTOK)], noon, standard), "99");
    assert_eq!(book.plan("resale", "a-one").unwrap().model(), "a-1");
    let skipped: Vec<String> = report.skipped.iter().map(|row| format!("{} {}", row.model, row.key)).collect();
    for expected in ["a-1 match.regex", "a-1 cache_audio_read_mtok", "a-3 match.and", "a-4 alias", "a-5 name"] {
        assert!(skipped.iter().any(|row| row == expected), "{expected} is not in {skipped:?}");
    }
    let reasons = report.skipped_by_reason();
    assert_eq!(reasons.iter().map(|(.., count)| count).sum::<usize>(), report.skipped.len());
}

#[test]
fn a_price_in_force_before_the_book_begins_replaces_the_undated_one() {
    let mut late = options();
    late.from = at("2026-11-22");
    let imported = import(ImportFormat::GenaiPrices, GENAI, &late).unwrap();
    let two = imported.book.plan("acme", "a-2").unwrap();
    assert_eq!(cost(&two, &[(Meter::Input, MTOK)], "2026-11-19", ServiceTier::Standard), "2");
    assert!(imported.report.skipped.iter().any(|row| row.reason == "a price that is replaced before it begins"));
}

#[test]
fn a_text_that_is_no_price_file_is_refused() {
    for (format, json, expected) in [
        (ImportFormat::Litellm, "", "not JSON"),
        (ImportFormat::Litellm, "[]", "an object of models"),
        (ImportFormat::Litellm, r#"{"m":{"litellm_provider":"x"}}"#, "no model with a price"),
        (ImportFormat::GenaiPrices, "{}", "an array of providers"),
        (ImportFormat::GenaiPrices, r#"[{"models":[]}]"#, "`id`"),
    ] {
        let error = import(format, json, &options()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_diff_names_every_model_and_price_that_changed() {
    let before = imported(ImportFormat::GenaiPrices, GENAI).book;
    let changed = GENAI.replace("\"output_mtok\": 10,", "\"output_mtok\": 11,").replace("\"a-3\"", "\"a-33\"");
    let after = imported(ImportFormat::GenaiPrices, &changed).book;
    assert_eq!(diff(&before, &before).prices, []);
    let found = diff(&before, &after);
    let model = |name: &str| [("acme".to_owned(), name.to_owned()), ("resale".to_owned(), name.to_owned())];
    assert_eq!(found.models_added, model("a-33"));
    assert_eq!(found.models_removed, model("a-3"));
    let prices: Vec<String> = found
        .prices
        .iter()
        .filter(|change| change.key.provider == "acme" && change.key.above_input == 0)
        .map(|change| {
            format!(
                "{} {:?} {:?}",
                change.key.meter,
                change.before.map(|p| p.to_string()),
                change.after.map(|p| p.to_string())
            )
        })
        .collect();
    assert_eq!(
        prices,
        [
            "output Some(\"0.00001\") Some(\"0.000011\")",
            "audio_output Some(\"0.00001\") Some(\"0.000011\")",
            "image_output Some(\"0.00001\") Some(\"0.000011\")",
        ]
    );
}

#[test]
fn verify_names_every_disagreement_of_two_sources() {
    let here = Book::from_toml(
        "provider = \"acme\"\n[[model]]\nname = \"a-1\"\n[[model.price]]\nfrom = \"2025-01-01\"\nper_mtok = { input = \"1.25\", output = \"12\" }\n\
         [[model]]\nname = \"only\"\n[[model.price]]\nfrom = \"2025-01-01\"\nper_mtok = { input = \"1\" }\n",
        "here.toml",
    )
    .unwrap();
    let there = imported(ImportFormat::GenaiPrices, GENAI).book;
    let found = verify(&here, &there, at("2026-11-22"));
    assert_eq!((found.models_in_both, found.models_agreeing, found.prices_agreeing), (1, 0, 1));
    assert_eq!(found.models_only_here, [("acme".to_owned(), "only".to_owned())]);
    let output = found.disagreements.iter().find(|row| row.meter == Meter::Output && row.above_input == 0).unwrap();
    assert_eq!(output.price.map(|price| price.to_string()).as_deref(), Some("0.000012"));
    assert_eq!(output.other_price.map(|price| price.to_string()).as_deref(), Some("0.00001"));
    assert!(found.disagreements.iter().any(|row| row.meter == Meter::CacheRead && row.price.is_none()));
    assert_eq!(verify(&here, &there, at("2019-01-01")).models_in_both, 0);
}

fn price() -> impl Strategy<Value = String> {
    prop_oneof![
        (0_u64..1_000_000, 0_u32..9).prop_map(|(digits, exponent)| format!("{digits}e-{exponent}")),
        (0_u64..u64::MAX, 0_u32..9).prop_map(|(digits, exponent)| format!("0.{digits:020}e-{exponent}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn import_export_import_is_the_identity(
        prices in proptest::collection::vec((price(), price(), price(), 1_u32..2000, "[a-z][a-z0-9./:@ \"\\\\é-]{0,12}"), 1..8),
    ) {
        let mut litellm = String::from("{");
        let mut genai = String::from("[{\"id\":\"p\",\"models\":[");
        for (position, (input, output, cached, thousands, name)) in prices.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            let name = serde_json::to_string(&format!("{position}{name}")).unwrap();
            litellm += &format!(
                "{comma}{name}:{{\"litellm_provider\":\"p{}\",\"input_cost_per_token\":{input},\"output_cost_per_token\":{output},\"cache_read_input_token_cost\":{cached},\"input_cost_per_token_above_{thousands}k_tokens\":{output},\"output_cost_per_token_flex\":{cached},\"regional_processing_uplift_multiplier_eu\":1.1}}",
                position % 3,
            );
            genai += &format!(
                "{comma}{{\"id\":{name},\"match\":{{\"starts_with\":{name}}},\"prices\":[{{\"prices\":{{\"input_mtok\":{{\"base\":{input},\"tiers\":[{{\"start\":{thousands},\"price\":{output}}}]}},\"cache_read_mtok\":{cached}}}}},{{\"constraint\":{{\"start_date\":\"2026-01-01\"}},\"prices\":{{\"output_mtok\":{output}}}}}]}}",
            );
        }
        litellm += "}";
        genai += "]}]";
        for (format, json) in [(ImportFormat::Litellm, litellm), (ImportFormat::GenaiPrices, genai)] {
            // A name or price that no book can hold may leave nothing to import; what is imported must be the identity.
            if let Ok(imported) = import(format, &json, &options()) {
                let again = Book::from_toml(&imported.toml, "again.toml").unwrap();
                prop_assert_eq!(again.revision(), imported.book.revision());
                prop_assert_eq!(again.to_toml().unwrap(), imported.toml);
                prop_assert!(again.entries().eq(imported.book.entries()));
            }
        }
    }
}
