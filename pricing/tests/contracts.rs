//! List, contracted, effective and billed cost of a row.

use costhelm_pricing::{
    Account, Book, Charge, ChargeError, Charged, Contracts, EventTime, Meter, ServiceTier, Unpriced, Usage,
};
use proptest::prelude::*;

const BOOK: &str = r#"
[[providers]]
name = "anthropic"
[[providers]]
name = "ollama"
[[model]]
provider = "anthropic"
name = "claude-x"
aliases = ["claude-latest"]
[[model.price]]
from = "2025-01-01"
per_mtok = { input = "3.00", cache_read = "0.30", output = "15.00" }
[[model.price.above]]
input = 200000
per_mtok = { input = "6.00", cache_read = "0.60", output = "22.50" }
[[model]]
provider = "ollama"
name = "llama3"
free = true
"#;

const CONTRACTS: &str = r#"
[[exchange]]
currency = "EUR"
from = "2026-01-01"
usd = "1.25"
[[exchange]]
currency = "EUR"
from = "2026-11-01"
usd = "1.10"

[[contract]]
id = "all"
from = "2026-01-01"
discount_percent = "5"
[[contract]]
id = "acme"
org_id = "acme"
provider = "Anthropic"
from = "2026-01-01"
discount_percent = "12.5"
[[contract]]
id = "acme-next"
org_id = "acme"
provider = "anthropic"
from = "2026-12-01"
discount_percent = "20"
[[contract]]
id = "research"
org_id = "acme"
business_unit_id = "research"
models = ["claude-*"]
from = "2026-06-01"
to = "2027-01-01"
currency = "EUR"
discount_percent = "10"
per_mtok = { input = "2.00", output = "10.00" }

[[local]]
id = "gpus"
provider = "ollama"
from = "2026-01-01"
gpu_hour = "1.80"
gpus = 2
[[local]]
id = "tokens"
org_id = "acme"
provider = "ollama"
models = ["llama3*"]
from = "2026-01-01"
currency = "EUR"
per_mtok = { input = "0.10", output = "0.20" }

[[markup]]
id = "fee"
org_id = "acme"
from = "2026-01-01"
percent = "8"
"#;

struct Row<'r> {
    org: &'r str,
    unit: Option<&'r str>,
    provider: &'r str,
    model: &'r str,
    counts: &'r [(Meter, u64)],
    at: &'r str,
    duration_ms: Option<u64>,
}

const ROW: Row<'static> = Row {
    org: "acme",
    unit: None,
    provider: "anthropic",
    model: "claude-x",
    counts: &[(Meter::Input, 1_000_000 / 10), (Meter::Output, 100_000), (Meter::Requests, 1)],
    at: "2026-11-22T10:00:00Z",
    duration_ms: None,
};

fn charge(row: &Row<'_>) -> Result<Charged, ChargeError> {
    let (book, contracts) =
        (Book::from_toml(BOOK, "book.toml").unwrap(), Contracts::from_toml(CONTRACTS, "contracts.toml").unwrap());
    let mut usage = Usage::ZERO;
    row.counts.iter().for_each(|(meter, count)| usage.set(*meter, *count));
    let plan = book.plan(row.provider, row.model);
    let account = Account { org_id: row.org, business_unit_id: row.unit, provider: row.provider, model: row.model };
    let charge = Charge {
        usage: &usage,
        at: EventTime::parse(row.at).unwrap(),
        tier: ServiceTier::Standard,
        region: None,
        duration_ms: row.duration_ms,
    };
    let terms = contracts.terms(&account, plan.as_deref().ok());
    terms.charge(&charge, plan.as_deref())
}

/// `list contracted effective billed (contract)`.
fn shown(row: &Row<'_>) -> String {
    match charge(row) {
        Ok(charged) => format!(
            "{} {} {} {} {}",
            charged.list.map_or("-".to_owned(), |list| list.cost.to_string()),
            charged.contracted,
            charged.effective,
            charged.billed,
            charged.contract.as_deref().unwrap_or("-")
        ),
        Err(error) => error.code().to_owned(),
    }
}

#[test]
fn the_closest_contract_of_an_organization_is_applied_and_no_other() {
    for (row, expected) in [
        (Row { org: "other", ..ROW }, "1.8 1.71 1.71 1.71 all"),
        (ROW, "1.8 1.575 1.575 1.701 acme"),
        (Row { model: "claude-latest", ..ROW }, "1.8 1.575 1.575 1.701 acme"),
        (Row { at: "2026-12-01T00:00:00Z", ..ROW }, "1.8 1.44 1.44 1.5552 acme-next"),
        (Row { at: "2026-11-30T23:59:59.999999Z", ..ROW }, "1.8 1.575 1.575 1.701 acme"),
        (Row { at: "2025-12-31T23:59:59Z", ..ROW }, "1.8 1.8 1.8 1.8 -"),
        (Row { unit: Some("sales"), ..ROW }, "1.8 1.575 1.575 1.701 acme"),
        (Row { unit: Some("research"), org: "other", ..ROW }, "1.8 1.71 1.71 1.71 all"),
    ] {
        assert_eq!(shown(&row), expected, "{} {:?} {}", row.org, row.unit, row.at);
    }
}

#[test]
fn fixed_rates_in_another_currency_are_kept_in_both_at_the_rate_of_the_day() {
    let row = Row { unit: Some("research"), ..ROW };
    // 0.1 M x 2 EUR + 0.1 M x 10 EUR = 1.2 EUR.
    let november = charge(&row).unwrap();
    let foreign = november.foreign.as_ref().unwrap();
    assert_eq!((foreign.currency.as_ref(), foreign.contracted.to_string()), ("EUR", "1.2".to_owned()));
    assert_eq!(
        (november.contracted.to_string(), foreign.usd_per_unit.to_string()),
        ("1.32".to_owned(), "1.1".to_owned())
    );
    assert!(!november.rounded);
    let october = charge(&Row { at: "2026-10-31T23:59:59Z", ..row }).unwrap();
    assert_eq!(october.contracted.to_string(), "1.5");
    // A meter without a fixed rate keeps the list price of its length, less the discount, and thinking is output.
    let counts = [(Meter::Input, 100_000), (Meter::CacheRead, 150_000), (Meter::Reasoning, 1000), (Meter::Requests, 1)];
    let long = charge(&Row { unit: Some("research"), counts: &counts, ..ROW }).unwrap();
    // EUR: 0.2 + 0.01 = 0.21; list: 150,000 x 0.0000006 = 0.09, less 10 % = 0.081.
    assert_eq!(long.contracted.to_string(), "0.312");
    assert_eq!(long.foreign.unwrap().contracted.to_string(), "0.283636363636363636");
    assert!(long.rounded);
}

#[test]
fn a_contract_prices_what_the_book_does_not_know_if_it_fixes_every_meter() {
    let row = Row { unit: Some("research"), model: "claude-secret", ..ROW };
    assert_eq!(shown(&row), "- 1.32 1.32 1.4256 research");
    let counts = [(Meter::Input, 1), (Meter::CacheRead, 1)];
    assert_eq!(shown(&Row { counts: &counts, ..row }), "unknown_model");
    assert_eq!(shown(&Row { model: "claude-secret", ..ROW }), "unknown_model");
}

#[test]
fn a_local_model_costs_its_share_of_the_machine() {
    let llama = Row { provider: "ollama", model: "llama3", ..ROW };
    // Two GPUs at 1.80 for ten minutes.
    let hours = Row { org: "other", duration_ms: Some(600_000), ..llama };
    assert_eq!(shown(&hours), "0 0 0.6 0.6 all");
    assert_eq!(shown(&Row { org: "other", ..llama }), "no_duration");
    // By token, in EUR: 0.01 + 0.02 = 0.03 EUR.
    let tokens = charge(&llama).unwrap();
    assert_eq!((tokens.effective.to_string(), tokens.local.as_deref()), ("0.033".to_owned(), Some("tokens")));
    assert_eq!(tokens.billed.to_string(), "0.03564");
    assert_eq!(tokens.foreign.unwrap().effective.to_string(), "0.03");
    let counts = [(Meter::AudioInput, 1)];
    assert_eq!(shown(&Row { counts: &counts, ..llama }), "no_rate_for_meter");
    // A model that no book lists still has its true cost.
    let unlisted = Row { model: "llama3-own", ..llama };
    assert_eq!(shown(&unlisted), "- 0.033 0.033 0.03564 all");
}

#[test]
fn a_day_before_the_first_exchange_rate_is_an_error_and_not_a_guess() {
    let text = CONTRACTS.replacen("from = \"2026-01-01\"\nusd", "from = \"2026-09-01\"\nusd", 1);
    let contracts = Contracts::from_toml(&text, "contracts.toml").unwrap();
    let mut usage = Usage::ZERO;
    usage.set(Meter::Input, 1);
    let unknown = Unpriced::UnknownModel { provider: "p".into(), model: "claude-y".into() };
    let account =
        Account { org_id: "acme", business_unit_id: Some("research"), provider: "anthropic", model: "claude-y" };
    let charge = Charge {
        usage: &usage,
        at: EventTime::parse("2026-08-01").unwrap(),
        tier: ServiceTier::Standard,
        region: None,
        duration_ms: None,
    };
    let error = contracts.terms(&account, None).charge(&charge, Err(&unknown)).unwrap_err();
    assert_eq!(error.code(), "no_exchange_rate");
    assert!(error.to_string().contains("`research` is in EUR"), "{error}");
}

#[test]
fn mistakes_in_a_contracts_file_name_line_key_value_and_what_was_expected() {
    for (text, expected) in [
        (
            "[[contract]]\nid = \"a\"\nfrom = \"2026-01-01\"\n",
            ":2: `contract.id` is \"a\"; expected `discount_percent`",
        ),
        (
            "[[contract]]\nid = \"a\"\nfrom = \"2026-01-01\"\ndiscount_percent = \"101\"\n",
            ":4: `contract.discount_percent`",
        ),
        ("[[contract]]\nid = \"a\"\nfrom = \"2026-01-01\"\ndiscount_percent = 5\n", "as a string"),
        (
            "[[contract]]\nid = \"a\"\nfrom = \"2026-01-01\"\nto = \"2026-01-01\"\ndiscount_percent = \"5\"\n",
            "a time after `from`",
        ),
        (
            "[[contract]]\nid = \"a\"\nfrom = \"2026-01-01\"\ncurrency = \"EUR\"\ndiscount_percent = \"5\"\n",
            "an [[exchange]] rate",
        ),
        (
            "[[contract]]\nid = \"a\"\nbusiness_unit_id = \"x\"\nfrom = \"2026-01-01\"\ndiscount_percent = \"5\"\n",
            "`org_id` beside it",
        ),
        ("[[contract]]\nid = \"a\"\nfrom = \"2026-01-01\"\ndiscount_percent = \"5\"\ndisount = 1\n", ":5: "),
        ("[[local]]\nid = \"a\"\nfrom = \"2026-01-01\"\n", "`gpu_hour`, or rates"),
        ("[[local]]\nid = \"a\"\nfrom = \"2026-01-01\"\ngpu_hour = \"1\"\nper_mtok = { input = \"1\" }\n", "not both"),
        ("[[local]]\nid = \"a\"\nfrom = \"2026-01-01\"\ngpu_hour = \"1\"\ngpus = 0\n", "at least one GPU"),
        ("[[markup]]\nid = \"a\"\nfrom = \"2026-01-01\"\npercent = \"-1\"\n", "from 0 to 1000"),
        ("[[exchange]]\ncurrency = \"eur\"\nfrom = \"2026-01-01\"\nusd = \"1\"\n", "three capitals"),
        ("[[exchange]]\ncurrency = \"EUR\"\nfrom = \"2026-01-01\"\nusd = \"0\"\n", "exchange.usd"),
        (
            "[[exchange]]\ncurrency = \"EUR\"\nfrom = \"2026-01-01\"\nusd = \"1\"\n[[exchange]]\ncurrency = \"EUR\"\nfrom = \"2026-01-01\"\nusd = \"2\"\n",
            "once (EUR",
        ),
        (
            "[[markup]]\nid = \"a\"\nfrom = \"2026-01-01\"\npercent = \"1\"\n[[markup]]\nid = \"a\"\nfrom = \"2026-02-01\"\npercent = \"1\"\n",
            "each id once",
        ),
        (
            "[[markup]]\nid = \"a\"\nfrom = \"2026-01-01\"\npercent = \"1\"\n[[markup]]\nid = \"b\"\nfrom = \"2026-01-01\"\npercent = \"1\"\n",
            "equally well",
        ),
        (
            "[[markup]]\nid = \"a\"\nmodels = [\"ab*\"]\nfrom = \"2026-01-01\"\npercent = \"1\"\n[[markup]]\nid = \"b\"\nmodels = [\"*ba\"]\nfrom = \"2026-01-01\"\npercent = \"1\"\n",
            "equally well",
        ),
    ] {
        let error = Contracts::from_toml(text, "contracts.toml").unwrap_err().to_string();
        assert!(error.starts_with("contracts.toml:") && error.contains(expected), "{error} lacks {expected}");
    }
    // Found however many stand between the two.
    let entry = |id: &str, org: &str| {
        format!("[[markup]]\nid = \"{id}\"\norg_id = \"{org}\"\nfrom = \"2026-01-01\"\npercent = \"1\"\n")
    };
    let text = [entry("a", "x"), entry("b", "y"), entry("c", "z"), entry("d", "x")].concat();
    assert!(Contracts::from_toml(&text, "c.toml").unwrap_err().to_string().contains("than `a`"));
    assert!(Contracts::from_toml("", "contracts.toml").unwrap().is_empty());
}

proptest! {
    #[test]
    fn a_discount_is_exact_and_splitting_a_row_changes_nothing(
        input in 0_u64..100_000, output in 0_u64..100_000, cut in 0_u64..100, unit in proptest::option::of(Just("sales")),
    ) {
        let counts = |input, output| [(Meter::Input, input), (Meter::Output, output)];
        let whole = counts(input, output);
        let first = counts(input * cut / 100, output * cut / 100);
        let second = counts(input - first[0].1, output - first[1].1);
        let [whole, first, second] = [&whole, &first, &second].map(|counts| charge(&Row { unit, counts, ..ROW }).unwrap());
        prop_assert!(!whole.rounded);
        prop_assert_eq!(first.contracted.checked_add(second.contracted), Some(whole.contracted));
        prop_assert_eq!(first.billed.checked_add(second.billed), Some(whole.billed));
        prop_assert!(whole.contracted <= whole.list.unwrap().cost);
    }
}
