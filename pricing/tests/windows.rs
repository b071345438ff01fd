//! Prices by the hour and by region (RATE-1), and the one text of a book.

use costhelm_pricing::{Book, EventTime, Meter, Plan, ServiceTier, Usage};

const BOOK: &str = r#"
provider = "acme"
[[model]]
name = "m"
[[model.price]]
from = "2026-01-01"
per_mtok = { input = "2.00", output = "4.00" }
per_unit = { web_search_medium = "0.01" }
[[model.price.above]]
input = 1000000
per_mtok = { input = "3.00" }
[model.price.batch]
multiplier = "0.5"
[[model.price.window]]
zone = "Europe/Berlin"
days = ["mon", "tue", "wed", "thu", "fri"]
from = "22:00"
to = "06:00"
multiplier = "0.25"
[[model.price.window]]
zone = "UTC"
days = ["sun"]
from = "00:00"
to = "24:00"
per_mtok = { input = "1.00" }
[[model.price.window.above]]
input = 1000000
per_mtok = { input = "1.50" }
[[model.price.region]]
names = ["us", "us-only"]
multiplier = "1.1"
"#;

fn at(text: &str) -> EventTime {
    EventTime::parse(text).unwrap()
}

fn million_of(meter: Meter) -> Usage {
    let mut usage = Usage::ZERO;
    usage.set(meter, 1_000_000);
    usage
}

fn cost(plan: &Plan, time: &str, tier: ServiceTier, region: Option<&str>) -> String {
    let rated = plan.rate_in(&million_of(Meter::Input), at(time), tier, region).unwrap();
    rated.cost.to_string()
}

#[test]
fn the_hour_the_tier_and_the_region_of_an_event_decide_together() {
    let book = Book::from_toml(BOOK, "acme.toml").unwrap();
    let plan = book.plan("acme", "m").unwrap();
    let (standard, batch) = (ServiceTier::Standard, ServiceTier::Batch);
    for (time, tier, region, expected) in [
        // Thursday, 2026-11-19, noon.
        ("2026-11-19T12:00:00Z", standard, None, "2"),
        ("2026-11-19T12:00:00Z", batch, None, "1"),
        ("2026-11-19T12:00:00Z", standard, Some("US"), "2.2"),
        ("2026-11-19T12:00:00Z", standard, Some("mars"), "2"),
        // 22:00 in Berlin is 21:00 UTC in winter and 20:00 UTC in summer.
        ("2026-11-19T20:59:59Z", standard, None, "2"),
        ("2026-11-19T21:00:00Z", standard, None, "0.5"),
        ("2026-07-16T20:00:00Z", standard, None, "0.5"),
        ("2026-07-16T19:59:59Z", standard, None, "2"),
        ("2026-11-19T21:00:00Z", batch, Some("us-only"), "0.275"),
        ("2026-11-20T04:59:59Z", standard, None, "0.5"),
        ("2026-11-20T05:00:00Z", standard, None, "2"),
        // Sunday has rates of its own, except that the night is over by then: Friday's ends on Saturday.
        ("2026-11-22T12:00:00Z", standard, None, "1"),
        ("2026-11-22T12:00:00Z", batch, None, "0.5"),
        ("2026-11-22T23:30:00Z", standard, None, "1"),
    ] {
        assert_eq!(cost(&plan, time, tier, region), expected, "{time} {tier} {region:?}");
    }
    let search = plan.rate_in(&million_of(Meter::WebSearchMedium), at("2026-11-19T22:00:00Z"), standard, Some("us"));
    assert_eq!(search.unwrap().cost.to_string(), "10000", "hours and regions change token rates only");
}

#[test]
fn an_event_on_either_side_of_a_month_boundary_has_the_price_of_its_own_month() {
    let text = r#"
provider = "acme"
[[model]]
name = "m"
[[model.price]]
from = "2026-01-01"
per_mtok = { input = "2.00" }
[[model.price]]
from = "2026-12-01"
per_mtok = { input = "3.00" }
[[model.price.window]]
zone = "UTC"
from = "23:00"
to = "01:00"
multiplier = "0.5"
"#;
    let plan = Book::from_toml(text, "acme.toml").unwrap().plan("acme", "m").unwrap();
    let standard = ServiceTier::Standard;
    assert_eq!(cost(&plan, "2026-11-30T23:59:59.999999Z", standard, None), "2");
    assert_eq!(cost(&plan, "2026-12-01T00:00:00Z", standard, None), "1.5");
    assert_eq!(cost(&plan, "2026-12-31T23:59:59Z", standard, None), "1.5");
    assert_eq!(cost(&plan, "2027-01-01T01:00:00Z", standard, None), "3");
}

#[test]
fn the_day_the_clocks_change_charges_each_instant_by_the_clock_on_the_wall() {
    let book = Book::from_toml(BOOK, "acme.toml").unwrap();
    let plan = book.plan("acme", "m").unwrap();
    // Berlin sets its clocks back on Sunday 2026-10-25 at 01:00 UTC: on Friday the night ends at 04:00 UTC, on Monday at 05:00.
    for (time, expected) in [
        ("2026-10-23T03:59:59Z", "0.5"),
        ("2026-10-23T04:00:00Z", "2"),
        ("2026-10-27T04:00:00Z", "0.5"),
        ("2026-10-27T05:00:00Z", "2"),
    ] {
        assert_eq!(cost(&plan, time, ServiceTier::Standard, None), expected, "{time}");
    }
}

#[test]
fn windows_and_regions_that_cannot_be_meant_are_refused_with_line_and_key() {
    let model = "provider = \"acme\"\n[[model]]\nname = \"m\"\n[[model.price]]\nfrom = \"2026-01-01\"\nper_mtok = { input = \"2.00\" }\n";
    for (extra, expected) in [
        (
            "[[model.price.window]]\nzone = \"Mars/Olympus\"\nfrom = \"00:00\"\nto = \"01:00\"\nmultiplier = \"0.5\"",
            ":8: `model.price.window.zone`",
        ),
        (
            "[[model.price.window]]\nzone = \"UTC\"\nfrom = \"25:00\"\nto = \"01:00\"\nmultiplier = \"0.5\"",
            ":9: `model.price.window.from`",
        ),
        ("[[model.price.window]]\nzone = \"UTC\"\nfrom = \"00:00\"\nto = \"01:00\"", "a multiplier or rates beside it"),
        (
            "[[model.price.window]]\nzone = \"UTC\"\ndays = [\"someday\"]\nfrom = \"00:00\"\nto = \"01:00\"\nmultiplier = \"0.5\"",
            "mon, tue",
        ),
        (
            "[[model.price.window]]\nzone = \"UTC\"\nexcept = [\"soon\"]\nfrom = \"00:00\"\nto = \"01:00\"\nmultiplier = \"0.5\"",
            "window.except",
        ),
        ("[[model.price.region]]\nnames = []\nmultiplier = \"1.1\"", "names beside it"),
        (
            "[[model.price.region]]\nnames = [\"us\"]\nmultiplier = \"1.1\"\n[[model.price.region]]\nnames = [\"US\"]\nmultiplier = \"1.2\"",
            "each region once",
        ),
        ("[[model.price.region]]\nnames = [\"us\"]\nmultiplier = \"1.0000000000001\"", "within 18 decimals"),
    ] {
        let error = Book::from_toml(&format!("{model}{extra}\n"), "a.toml").unwrap_err().to_string();
        assert!(error.contains(expected), "{error} lacks {expected}");
    }
    let without_length =
        BOOK.replace("[[model.price.window.above]]\ninput = 1000000\nper_mtok = { input = \"1.50\" }\n", "");
    let error = Book::from_toml(&without_length, "a.toml").unwrap_err().to_string();
    assert!(error.contains("depend on length"), "{error}");
}

#[test]
fn a_book_is_written_as_one_text_that_reads_back_to_the_same_revision() {
    let book = Book::from_toml(BOOK, "acme.toml").unwrap();
    let text = book.to_toml().unwrap();
    let again = Book::from_toml(&text, "again.toml").unwrap();
    assert_eq!(again.revision(), book.revision(), "{text}");
    assert_eq!(again.to_toml().unwrap(), text);
    let several = Book::builtin().unwrap();
    let text = several.to_toml().unwrap();
    let again = Book::from_toml(&text, "again.toml").unwrap();
    assert_eq!(again.revision(), several.revision());
    assert!(again.entries().eq(several.entries()));
    let over = several.overlay(book).to_toml().unwrap_err();
    assert!(over.to_string().contains("by itself"), "{over}");
}

#[test]
fn a_file_of_several_providers_says_whose_each_model_is() {
    let text = r#"
[[providers]]
name = "one"
aliases = ["uno"]
[[providers]]
name = "two"
[[model]]
provider = "one"
name = "m"
free = true
[[model]]
provider = "Two"
name = "m"
free = true
"#;
    let book = Book::from_toml(text, "both.toml").unwrap();
    assert_eq!(book.plan("uno", "m").unwrap().provider(), "one");
    assert_eq!(book.plan("two", "m").unwrap().provider(), "two");
    for (old, new, expected) in [
        ("provider = \"Two\"\n", "", "`provider` beside it"),
        ("provider = \"Two\"", "provider = \"three\"", "a provider that this file declares"),
        ("name = \"two\"", "name = \"One\"", "each provider once"),
    ] {
        let error = Book::from_toml(&text.replace(old, new), "both.toml").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = Book::from_toml("[[model]]\nname = \"m\"\nfree = true\n", "a.toml").unwrap_err().to_string();
    assert!(error.contains("`provider`"), "{error}");
}

#[test]
fn the_list_of_prices_shows_hours_and_regions() {
    let book = Book::from_toml(BOOK, "acme.toml").unwrap();
    let shown: Vec<String> = book
        .entries()
        .filter(|entry| {
            entry.meter == Meter::Input && entry.service_tier == ServiceTier::Standard && entry.above_input == 0
        })
        .map(|entry| format!("{:?} {:?} {}", entry.window.as_deref(), entry.region.as_deref(), entry.unit_price))
        .collect();
    assert_eq!(
        shown,
        [
            "None None 0.000002",
            "None Some(\"us,us-only\") 0.0000022",
            "Some(\"mon,tue,wed,thu,fri 22:00-06:00 Europe/Berlin\") None 0.0000005",
            "Some(\"mon,tue,wed,thu,fri 22:00-06:00 Europe/Berlin\") Some(\"us,us-only\") 0.00000055",
            "Some(\"sun 00:00-24:00 UTC\") None 0.000001",
            "Some(\"sun 00:00-24:00 UTC\") Some(\"us,us-only\") 0.0000011",
        ]
    );
}

#[test]
fn deepseek_s_nights_and_peak_hours_are_in_the_catalog() {
    let book = Book::builtin().unwrap();
    for (model, time, expected) in [
        ("deepseek-chat", "2025-02-26T16:29:59Z", "0.27"),
        ("deepseek-chat", "2025-02-26T16:30:00Z", "0.135"),
        ("deepseek-chat", "2025-06-30T23:59:59Z", "0.135"),
        ("deepseek-chat", "2025-07-01T00:29:59Z", "0.135"),
        ("deepseek-chat", "2025-07-01T00:30:00Z", "0.27"),
        ("deepseek-reasoner", "2025-07-01T16:30:00Z", "0.135"),
        ("deepseek-reasoner", "2025-07-01T12:00:00Z", "0.55"),
        // The nights ended with the price list of 2025-09-05, 16:00 UTC.
        ("deepseek-reasoner", "2025-09-05T16:30:00Z", "0.56"),
        // Saturday: peak hours were daily for a week, then on working days.
        ("deepseek-v4-pro", "2026-08-22T01:00:00Z", "1.32"),
        ("deepseek-v4-pro", "2026-08-29T01:00:00Z", "0.66"),
        ("deepseek-v4-pro", "2026-08-31T01:00:00Z", "1.32"),
        ("deepseek-v4-pro", "2026-08-31T04:00:00Z", "0.66"),
        ("deepseek-v4-pro", "2026-08-31T06:00:00Z", "1.32"),
        // National Day.
        ("deepseek-flash", "2026-10-01T02:00:00Z", "0.15"),
        ("deepseek-flash", "2026-10-08T02:00:00Z", "0.3"),
    ] {
        let plan = book.plan("deepseek", model).unwrap();
        assert_eq!(cost(&plan, time, ServiceTier::Standard, None), expected, "{model} {time}");
    }
}

#[test]
fn inference_in_one_country_costs_a_tenth_more_where_the_provider_says_so() {
    let book = Book::builtin().unwrap();
    for (provider, model, region, expected) in [
        ("anthropic", "claude-opus-4-6", None, "5"),
        ("anthropic", "claude-opus-4-6", Some("global"), "5"),
        ("anthropic", "claude-opus-4-6", Some("us"), "5.5"),
        ("anthropic", "claude-opus-4-5", Some("us"), "5"),
        ("openai", "gpt-5.4-mini", Some("EU"), "0.825"),
    ] {
        let plan = book.plan(provider, model).unwrap();
        let mut usage = Usage::ZERO;
        usage.set(Meter::Input, 100_000);
        let rated = plan.rate_in(&usage, at("2026-11-22"), ServiceTier::Standard, region).unwrap();
        let per_mtok = rated.cost.checked_mul(10).unwrap();
        assert_eq!(per_mtok.to_string(), expected, "{model} {region:?}");
    }
}
