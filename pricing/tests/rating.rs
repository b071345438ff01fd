//! Usage times price: both sides of a price change, lengths, ranges, tiers, fallbacks; and what holds for any usage.

use costhelm_pricing::{Book, EventTime, Meter, Money, Plan, ServiceTier, Unpriced, Usage, recompute};
use proptest::prelude::*;

fn book(prices: &str) -> Book {
    let text = format!("provider = \"acme\"\n[[model]]\nname = \"m\"\n{prices}");
    Book::from_toml(&text, "test.toml").unwrap()
}

fn plan(prices: &str) -> std::sync::Arc<Plan> {
    book(prices).plan("acme", "m").unwrap()
}

fn usage(counts: &[(Meter, u64)]) -> Usage {
    let mut usage = Usage::ZERO;
    for (meter, count) in counts {
        usage.set(*meter, *count);
    }
    usage
}

fn at(text: &str) -> EventTime {
    EventTime::parse(text).unwrap()
}

/// The cost in mid-2026, or the code of the refusal.
fn cost(plan: &Plan, tier: ServiceTier, counts: &[(Meter, u64)]) -> String {
    match plan.rate(&usage(counts), at("2026-06-01"), tier) {
        Ok(rated) => rated.cost.to_string(),
        Err(unpriced) => unpriced.code().to_owned(),
    }
}

const STANDARD: ServiceTier = ServiceTier::Standard;
const MTOK: u64 = 1_000_000;

#[test]
fn one_token_at_fifteen_cents_a_million_costs_0_00000015_and_ten_million_rows_sum_to_1_5() {
    let plan = plan("[[model.price]]\nfrom = \"2026-01-01\"\nper_mtok = { input = \"0.15\" }");
    let row = plan.rate(&usage(&[(Meter::Input, 1)]), at("2026-06-01"), STANDARD).unwrap();
    assert_eq!(row.cost.to_string(), "0.00000015");
    let mut sum = Money::ZERO;
    for _ in 0..10_000_000 {
        sum = sum.checked_add(row.cost).unwrap();
    }
    assert_eq!(sum.to_string(), "1.5");
}

#[test]
fn an_event_is_charged_at_the_price_in_force_at_its_own_time() {
    // Listed newest first: order in the file does not matter.
    let plan = plan(
        r#"
        [[model.price]]
        from = "2026-07-01"
        per_mtok = { input = "1.00" }
        [[model.price]]
        from = "2026-03-29T01:30:00+02:00"
        per_mtok = { input = "2.00" }
        [[model.price]]
        from = "2026-01-01"
        per_mtok = { input = "3.00" }
        "#,
    );
    let price =
        |time: &str| plan.rate(&usage(&[(Meter::Input, MTOK)]), at(time), STANDARD).map(|rated| rated.cost.to_string());
    for (time, expected) in [
        ("2026-01-01T00:00:00Z", "3"),
        ("2026-03-28T23:29:59.999999Z", "3"),
        ("2026-03-28T23:30:00Z", "2"),
        ("2026-06-30T23:59:59.999999Z", "2"),
        ("2026-07-01T01:59:59.999999+02:00", "2"),
        ("2026-07-01T00:00:00Z", "1"),
        ("2036-01-01", "1"),
    ] {
        assert_eq!(price(time), Ok(expected.to_owned()), "{time}");
    }
    let refusal = price("2025-12-31T23:59:59.999999Z").unwrap_err();
    assert_eq!(refusal.code(), "no_price_at_time");
    assert!(matches!(refusal, Unpriced::NotYetPriced { first_price, .. } if first_price == at("2026-01-01")));
}

#[test]
fn a_long_request_is_charged_whole_at_its_length_and_cached_tokens_count_for_it() {
    let plan = plan(
        r#"
        [[model.price]]
        from = "2026-01-01"
        per_mtok = { input = "3.00", cache_read = "0.30", output = "15.00" }
        [[model.price.above]]
        input = 200000
        per_mtok = { input = "6.00", output = "22.50" }
        [[model.price.above]]
        input = 1000000
        per_mtok = { input = "9.00" }
        "#,
    );
    assert_eq!(cost(&plan, STANDARD, &[(Meter::Input, 200_000)]), "0.6");
    assert_eq!(cost(&plan, STANDARD, &[(Meter::Input, 200_001)]), "1.200006");
    // 1 uncached token after 200,000 cached ones: the cached rate is inherited, the others are those of the length.
    assert_eq!(
        cost(&plan, STANDARD, &[(Meter::Input, 1), (Meter::CacheRead, 200_000), (Meter::Output, 2)]),
        "0.060051"
    );
    assert_eq!(cost(&plan, STANDARD, &[(Meter::Input, MTOK + 1), (Meter::Output, 2)]), "9.000054");
    // Output has no say in the length.
    assert_eq!(cost(&plan, STANDARD, &[(Meter::Input, 10), (Meter::Output, MTOK)]), "15.00003");
}

#[test]
fn graduated_ranges_charge_only_the_units_beyond_their_start() {
    let plan = plan(
        r#"
        [[model.price]]
        from = "2026-01-01"
        per_mtok = { input = "1.00", output = "4.00" }
        [[model.price.graduated]]
        units = 1000
        per_mtok = { input = "0.50" }
        [[model.price.graduated]]
        units = 2000
        per_mtok = { input = "0.75" }
        "#,
    );
    for (count, expected) in
        [(1, "0.000001"), (1000, "0.001"), (1001, "0.0010005"), (2000, "0.0015"), (3000, "0.00225")]
    {
        assert_eq!(cost(&plan, STANDARD, &[(Meter::Input, count)]), expected, "{count}");
    }
    let long = usage(&[(Meter::Input, 3000), (Meter::Output, 10)]);
    let rated = plan.rate(&long, at("2026-06-01"), STANDARD).unwrap();
    let text = plan.unit_prices(&rated.rates);
    assert_eq!(
        text,
        r#"{"input":{"0":"0.000001","1000":"0.0000005","2000":"0.00000075"},"output":"0.000004","reasoning":"0.000004"}"#
    );
    assert_eq!(recompute(text, &long), Ok(rated.cost));
    // Cached tokens are counted apart from input, so they cannot share its ranges.
    assert_eq!(cost(&plan, STANDARD, &[(Meter::CacheRead, 1)]), "no_rate_for_meter");
}

#[test]
fn service_tiers_follow_their_table() {
    let plan = plan(
        r#"
        [[model.price]]
        from = "2026-01-01"
        per_mtok = { input = "3.00", cache_read = "0.30", output = "15.00" }
        per_unit = { web_search_medium = "0.01" }
        [[model.price.above]]
        input = 200000
        per_mtok = { input = "6.00", output = "22.50" }
        [model.price.batch]
        multiplier = "0.5"
        [model.price.flex]
        per_mtok = { input = "1.00" }
        "#,
    );
    let (batch, flex, priority) = (ServiceTier::Batch, ServiceTier::Flex, ServiceTier::Priority);
    assert_eq!(cost(&plan, batch, &[(Meter::Input, 1000), (Meter::CacheRead, 1000)]), "0.00165");
    assert_eq!(cost(&plan, batch, &[(Meter::Input, MTOK)]), "3", "the multiplier holds for long requests too");
    assert_eq!(cost(&plan, batch, &[(Meter::WebSearchMedium, 3)]), "0.03", "searches are not discounted");
    assert_eq!(cost(&plan, flex, &[(Meter::Input, 1000), (Meter::Output, 1000)]), "0.016", "output is standard");
    assert_eq!(cost(&plan, flex, &[(Meter::Input, 200_000)]), "0.2");
    assert_eq!(cost(&plan, flex, &[(Meter::Input, 200_001)]), "no_rate_for_length");
    assert_eq!(cost(&plan, priority, &[(Meter::Input, MTOK)]), "6", "a tier that is not listed is standard");
}

#[test]
fn a_tier_with_its_own_lengths_inherits_from_its_own_rates_first() {
    let plan = plan(
        r#"
        [[model.price]]
        from = "2026-01-01"
        per_mtok = { input = "3.00", output = "15.00" }
        [[model.price.above]]
        input = 200
        per_mtok = { input = "6.00", output = "30.00" }
        [model.price.batch]
        per_mtok = { input = "1.50", output = "7.50" }
        [[model.price.batch.above]]
        input = 200
        per_mtok = { input = "2.00" }
        [model.price.priority]
        multiplier = "2"
        per_mtok = { output = "20.00" }
        "#,
    );
    let short = [(Meter::Input, 100), (Meter::Output, 100)];
    let long = [(Meter::Input, 1000), (Meter::Output, 100)];
    assert_eq!(cost(&plan, ServiceTier::Batch, &short), "0.0009");
    assert_eq!(cost(&plan, ServiceTier::Batch, &long), "0.00275", "2.00 of its own length, 7.50 of its own base");
    assert_eq!(cost(&plan, ServiceTier::Priority, &short), "0.0026");
    assert_eq!(cost(&plan, ServiceTier::Priority, &long), "0.018", "twice the standard rates of that length");
}

#[test]
fn meters_that_are_not_listed_follow_their_table() {
    let bare = plan("[[model.price]]\nfrom = \"2026-01-01\"\nper_mtok = { input = \"1\", output = \"2\" }");
    for (meter, expected) in [
        (Meter::Input, "1"),
        (Meter::CacheRead, "1"),
        (Meter::CacheWrite5m, "1"),
        (Meter::CacheWrite1h, "1"),
        (Meter::CacheWrite12h, "1"),
        (Meter::Output, "2"),
        (Meter::Reasoning, "2"),
        (Meter::Requests, "0"),
        (Meter::ToolCalls, "0"),
        (Meter::AudioInput, "no_rate_for_meter"),
        (Meter::AudioOutput, "no_rate_for_meter"),
        (Meter::ImageInput, "no_rate_for_meter"),
        (Meter::ImageOutput, "no_rate_for_meter"),
        (Meter::Video, "no_rate_for_meter"),
        (Meter::Characters, "no_rate_for_meter"),
        (Meter::Pages, "no_rate_for_meter"),
        (Meter::Seconds, "no_rate_for_meter"),
        (Meter::WebSearchLow, "no_rate_for_meter"),
        (Meter::WebSearchMedium, "no_rate_for_meter"),
        (Meter::WebSearchHigh, "no_rate_for_meter"),
    ] {
        assert_eq!(cost(&bare, STANDARD, &[(meter, MTOK)]), expected, "{meter}");
    }
    let listed = plan(
        "[[model.price]]\nfrom = \"2026-01-01\"\n\
         per_mtok = { input = \"1\", output = \"2\", cache_read = \"0.1\", cache_write_5m = \"1.25\", reasoning = \"3\" }\n\
         per_unit = { requests = \"0.005\", tool_calls = \"0.01\" }",
    );
    for (meter, expected) in [
        (Meter::CacheRead, "0.1"),
        (Meter::CacheWrite5m, "1.25"),
        (Meter::CacheWrite1h, "no_rate_for_meter"),
        (Meter::Reasoning, "3"),
        (Meter::Requests, "5000"),
        (Meter::ToolCalls, "10000"),
    ] {
        assert_eq!(cost(&listed, STANDARD, &[(meter, MTOK)]), expected, "{meter}");
    }
    let search_only = plan("[[model.price]]\nfrom = \"2026-01-01\"\nper_unit = { pages = \"0.01\" }");
    assert_eq!(cost(&search_only, STANDARD, &[(Meter::Input, 1)]), "no_rate_for_meter", "never 0 for lack of a price");
}

#[test]
fn a_free_model_costs_nothing_at_any_time_and_is_priced() {
    let plan = plan("free = true");
    let rated =
        plan.rate(&usage(&[(Meter::Input, 5), (Meter::Video, 7)]), at("1999-01-01"), ServiceTier::Batch).unwrap();
    assert_eq!((rated.cost, plan.unit_prices(&rated.rates)), (Money::ZERO, "{}"));
    assert!(plan.is_free());
}

#[test]
fn a_price_of_zero_that_is_listed_is_a_price() {
    let plan = plan("[[model.price]]\nfrom = \"2026-01-01\"\nper_mtok = { input = \"0\", output = \"0.00\" }");
    assert_eq!(cost(&plan, STANDARD, &[(Meter::Input, 5), (Meter::Output, 5)]), "0");
}

#[test]
fn a_cost_that_no_amount_can_hold_is_refused() {
    let plan = plan("[[model.price]]\nfrom = \"2026-01-01\"\nper_unit = { pages = \"1000000\" }");
    assert_eq!(cost(&plan, STANDARD, &[(Meter::Pages, u64::MAX)]), "cost_overflow");
    assert_eq!(cost(&plan, STANDARD, &[(Meter::Pages, 99_999_999_999_999)]), "99999999999999000000");
    assert_eq!(cost(&plan, STANDARD, &[(Meter::Pages, 100_000_000_000_000)]), "cost_overflow");
}

#[test]
fn unit_prices_are_exact_text_in_meter_order_and_their_reference_follows_the_content() {
    let priced = book(
        "[[model.price]]\nfrom = \"2026-01-01\"\nper_mtok = { output = \"15.00\", input = \"3.00\", cache_read = \"0.30\", \
         cache_write_5m = \"3.75\" }\n",
    );
    let rated = |book: &Book| book.plan("acme", "m").unwrap().rate(&Usage::ZERO, at("2026-06-01"), STANDARD).unwrap();
    let row = rated(&priced);
    assert_eq!(
        priced.unit_prices(&row.rates),
        Some(
            "{\"input\":\"0.000003\",\"cache_read\":\"0.0000003\",\"cache_write_5m\":\"0.00000375\",\
             \"output\":\"0.000015\",\"reasoning\":\"0.000015\"}"
        )
    );
    let same = book(
        "aliases = [\"other\"]\n[[model.price]]\nfrom = \"2026-02-01\"\nper_unit = { input = \"0.000003\", cache_read = \"3e-7\", cache_write_5m = \"0.00000375\", output = \"0.000015\" }",
    );
    assert_eq!(rated(&same).rates, row.rates);
    let other = book("[[model.price]]\nfrom = \"2026-01-01\"\nper_mtok = { input = \"3.01\" }");
    assert_ne!(rated(&other).rates, row.rates);
    assert_eq!(other.unit_prices(&row.rates), None);
}

#[test]
fn unit_prices_that_are_not_are_refused_by_the_auditor() {
    for text in ["", "[]", "{\"input\":0.1}", "{\"inputs\":\"1\"}", "{\"input\":{\"x\":\"1\"}}", "{\"input\":null}"] {
        assert!(recompute(text, &Usage::ZERO).is_err(), "{text}");
    }
}

const MIXED: &str = r#"
    [[model.price]]
    from = "2026-01-01"
    per_mtok = { input = "3.00", cache_read = "0.30", cache_write_5m = "3.75", cache_write_1h = "6", cache_write_12h = "7", output = "15.00", audio_input = "32.123456789012", audio_output = "64", image_input = "5", image_output = "40", video = "0.7" }
    per_unit = { characters = "0.000015", pages = "0.001", seconds = "0.0001", requests = "0.005", web_search_low = "0.03", web_search_medium = "0.035", web_search_high = "0.05", tool_calls = "0.0025" }
"#;

fn any_usage(most: u64) -> impl Strategy<Value = Usage> {
    proptest::array::uniform20(prop_oneof![Just(0), 0..most]).prop_map(|counts| {
        let mut usage = Usage::ZERO;
        for (meter, count) in Meter::ALL.into_iter().zip(counts) {
            usage.set(meter, count);
        }
        usage
    })
}

proptest! {
    #[test]
    fn splitting_usage_over_rows_never_changes_the_sum_where_rates_are_linear(rows in proptest::collection::vec(any_usage(1_000_000_000), 1..20)) {
        let plan = plan(MIXED);
        let mut whole = Usage::ZERO;
        let mut sum = Money::ZERO;
        for row in &rows {
            whole = whole.checked_add(row).unwrap();
            sum = sum.checked_add(plan.rate(row, at("2026-06-01"), STANDARD).unwrap().cost).unwrap();
        }
        prop_assert_eq!(plan.rate(&whole, at("2026-06-01"), STANDARD).unwrap().cost, sum);
    }

    #[test]
    fn no_meter_is_charged_twice_and_none_is_left_out(usage in any_usage(1_000_000_000)) {
        let plan = plan(MIXED);
        let rated = plan.rate(&usage, at("2026-06-01"), STANDARD).unwrap();
        let mut sum = Money::ZERO;
        for (meter, count) in usage.iter() {
            let mut alone = Usage::ZERO;
            alone.set(meter, count);
            sum = sum.checked_add(plan.rate(&alone, at("2026-06-01"), STANDARD).unwrap().cost).unwrap();
        }
        prop_assert_eq!(sum, rated.cost);
        prop_assert_eq!(recompute(plan.unit_prices(&rated.rates), &usage), Ok(rated.cost));
    }

    #[test]
    fn the_ledgers_unit_prices_recompute_any_row_of_any_length_and_tier(usage in any_usage(400_000), tier in 0..4_usize) {
        let prices = format!("{MIXED}
            [[model.price.above]]\ninput = 200000\nper_mtok = {{ input = \"6\", output = \"22.5\" }}
            [[model.price.graduated]]\nunits = 1000\nper_unit = {{ characters = \"0.00001\", pages = \"0.0005\" }}
            [[model.price.graduated]]\nunits = 90000\nper_unit = {{ pages = \"0.002\" }}
            [model.price.batch]\nmultiplier = \"0.5\"
            [model.price.flex]\nper_mtok = {{ input = \"1\" }}\n[[model.price.flex.above]]\ninput = 100000\nper_mtok = {{ input = \"2\" }}");
        let plan = plan(&prices);
        let rated = plan.rate(&usage, at("2026-06-01"), ServiceTier::ALL[tier]).unwrap();
        prop_assert_eq!(recompute(plan.unit_prices(&rated.rates), &usage), Ok(rated.cost));
    }
}
