//! Price books as people write them: what is accepted, what is refused and in which words, revisions, layers, lists.

use costhelm_pricing::{Book, BookError, EventTime, Meter, Money, PriceEntry, ServiceTier, Unpriced, Usage};

const SMALL: &str = r#"
provider = "acme"
[[model]]
name = "one"
[[model.price]]
from = "2026-01-01"
per_mtok = { input = "3.00", output = "15.00" }
"#;

fn input_cost(book: &Book, provider: &str, model: &str, at: &str) -> Result<String, Unpriced> {
    let mut usage = Usage::ZERO;
    usage.set(Meter::Input, 1_000_000);
    let rated = book.plan(provider, model)?.rate(&usage, EventTime::parse(at).unwrap(), ServiceTier::Standard)?;
    Ok(rated.cost.to_string())
}

/// What a person reads when this price line is wrong.
fn refusal(replace: &str, by: &str) -> String {
    assert!(SMALL.contains(replace));
    Book::from_toml(&SMALL.replacen(replace, by, 1), "prices/acme.toml").unwrap_err().to_string()
}

#[test]
fn a_price_as_a_number_is_refused_with_the_string_to_write() {
    let error = refusal(r#""3.00""#, "3.0");
    assert_eq!(
        error,
        "prices/acme.toml:7: `model.price.per_mtok.input` is 3.0; expected a decimal as a string, so that no digit is lost: \
         write \"3.0\""
    );
    assert!(refusal(r#""3.00""#, "3").contains("write \"3\""));
}

#[test]
fn unknown_keys_are_refused_with_file_and_line() {
    let error = refusal("from = ", "form = 1\nfrom = ");
    assert!(error.starts_with("prices/acme.toml:6: ") && error.contains("form") && error.contains("from"), "{error}");
    let error = refusal("input = ", "inputs = ");
    assert!(
        error.starts_with("prices/acme.toml:7: `model.price.per_mtok.inputs`") && error.contains("cache_read"),
        "{error}"
    );
    let error = refusal("[[model]]", "currency = \"EUR\"\n[[model]]");
    assert!(error.starts_with("prices/acme.toml:3: ") && error.contains("currency"), "{error}");
    let error = refusal("name = ", "free = \"no\"\nname = ");
    assert!(
        error.starts_with("prices/acme.toml:4: ") && error.contains("free = \"no\"") && error.contains("boolean"),
        "{error}"
    );
}

#[test]
fn every_other_mistake_names_line_key_value_and_what_was_expected() {
    for (replace, by, parts) in [
        (r#""3.00""#, r#""-3.00""#, vec![":7: ", "per_mtok.input", "\"-3.00\"", "from 0"]),
        (r#""3.00""#, r#""3,00""#, vec![":7: ", "per_mtok.input", "\"3,00\"", "decimal"]),
        (r#""3.00""#, r#""0.0000000000001""#, vec![":7: ", "at most 12 decimals"]),
        (r#""3.00""#, r#""1e13""#, vec![":7: ", "at most 1000000 USD per unit"]),
        ("input = ", "pages = ", vec![":7: ", "per_mtok.pages", "per_unit"]),
        (r#""2026-01-01""#, r#""January""#, vec![":6: ", "model.price.from", "\"January\"", "UTC date"]),
        (r#""2026-01-01""#, "20260101", vec![":6: ", "model.price.from", "20260101"]),
        (r#"name = "one""#, r#"name = """#, vec![":4: ", "model.name"]),
        (r#"name = "one""#, "name = \"one\"\nfree = true", vec![":4: ", "free"]),
        (r#"name = "one""#, "name = \"one\"\naliases = [\"ONE\"]", vec![":5: ", "model.aliases", "\"ONE\"", "once"]),
        (
            r#"name = "one""#,
            "name = \"one\"\npatterns = [\"plain\"]",
            vec![":5: ", "model.patterns", "\"plain\"", "`*`"],
        ),
        ("per_mtok = { input = \"3.00\", output = \"15.00\" }", "", vec![":6: ", "`one`", "list rates"]),
        ("per_mtok", "per_unit = { input = \"1\" }\nper_mtok", vec!["input", "once"]),
    ] {
        let error = refusal(replace, by);
        assert!(error.starts_with("prices/acme.toml:"), "{error}");
        for part in parts {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
    let appended = |tail: &str| Book::from_toml(&format!("{SMALL}{tail}"), "a.toml").unwrap_err().to_string();
    for (tail, parts) in [
        ("[[model.price.above]]\ninput = 200000\n", vec![":9: ", "above.input", "200000", "rates"]),
        ("[[model.price.above]]\ninput = 0\nper_mtok = { input = \"1\" }\n", vec![":9: ", "above.input", "from 1"]),
        (
            "[[model.price.graduated]]\nunits = 5\nper_mtok = { reasoning = \"1\" }\n",
            vec!["graduated", "`reasoning`", "too"],
        ),
        ("[model.price.batch]\nmultiplier = 0.5\n", vec![":9: ", "batch.multiplier", "write \"0.5\""]),
        ("[model.price.batch]\nmultiplier = \"1000\"\n", vec![":9: ", "batch.multiplier", "0 to 100"]),
        (
            "[model.price.batch]\nmultiplier = \"0.00000000000000001\"\n",
            vec![":9: ", "batch.multiplier", "18 decimals"],
        ),
        (
            "[[model.price]]\nfrom = \"2026-01-01T00:00:00Z\"\nper_mtok = { input = \"1\" }\n",
            vec![":9: ", "from", "each time once"],
        ),
        ("[[model]]\nname = \"two\"\n", vec![":9: ", "\"two\"", "free = true"]),
        (
            "[[model]]\nname = \"two\"\naliases = [\"One\"]\nfree = true\n",
            vec![":9: ", "\"one\"", "`two`", "already", "a.toml:4"],
        ),
    ] {
        let error = appended(tail);
        for part in parts {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
}

#[test]
fn an_alias_of_one_provider_cannot_be_the_name_of_another_use() {
    let text = SMALL.replacen("provider = \"acme\"", "provider = \"acme\"\nprovider_aliases = [\"acme-cloud\"]", 1);
    let book = Book::from_toml(&text, "acme.toml").unwrap();
    for provider in ["acme", "ACME", " acme-cloud ", "Acme_Cloud", "acme.cloud"] {
        assert_eq!(input_cost(&book, provider, "one", "2026-06-01"), Ok("3".to_owned()), "{provider}");
    }
}

#[test]
fn toml_dates_work_like_strings() {
    for from in ["2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01 01:00:00+01:00"] {
        let book = Book::from_toml(&SMALL.replacen("\"2026-01-01\"", from, 1), "a.toml").unwrap();
        let first = book.entries().next().unwrap();
        assert_eq!(first.valid_from, Some(EventTime::parse("2026-01-01T00:00:00Z").unwrap()), "{from}");
    }
}

#[test]
fn the_revision_follows_the_content_and_nothing_else() {
    let base = Book::from_toml(SMALL, "a.toml").unwrap();
    assert_eq!(base.revision().len(), 16);
    assert!(base.revision().bytes().all(|byte| byte.is_ascii_hexdigit()));
    let revision_of = |replace: &str, by: &str| {
        let text = SMALL.replacen(replace, by, 1);
        assert_ne!(text, SMALL);
        Book::from_toml(&text, "elsewhere.toml").unwrap().revision().to_owned()
    };
    for (replace, by) in [
        (r#""3.00""#, r#""3""#),
        (r#"{ input = "3.00", output = "15.00" }"#, r#"{ output = "15", input = "3.0" }"#),
        ("[[model]]", "# a comment\n[[model]]"),
        (r#""2026-01-01""#, r#""2026-01-01T01:00:00+01:00""#),
        (r#"per_mtok = { input = "3.00","#, "per_unit = { input = \"0.000003\" }\nper_mtok = {"),
    ] {
        assert_eq!(revision_of(replace, by), base.revision(), "{by}");
    }
    for (replace, by) in [
        (r#""3.00""#, r#""3.01""#),
        (r#"name = "one""#, "name = \"one\"\naliases = [\"uno\"]"),
        (r#""2026-01-01""#, r#""2026-01-02""#),
        ("from = ", "source = \"a page\"\nfrom = "),
        (r#"provider = "acme""#, "provider = \"acme\"\nprovider_aliases = [\"a\"]"),
    ] {
        assert_ne!(revision_of(replace, by), base.revision(), "{by}");
    }
    let two = |first: &str, second: &str| {
        let model = |name: &str| format!("[[model]]\nname = \"{name}\"\nfree = true\n");
        let text = format!("provider = \"acme\"\n{}{}", model(first), model(second));
        Book::from_toml(&text, "a.toml").unwrap().revision().to_owned()
    };
    assert_eq!(two("x", "y"), two("y", "x"));
}

#[test]
fn a_book_laid_over_another_replaces_its_models_and_wins_names() {
    let below = r#"
        provider = "acme"
        provider_aliases = ["a"]
        [[model]]
        name = "one"
        aliases = ["uno"]
        patterns = ["one-*"]
        [[model.price]]
        from = "2026-01-01"
        per_mtok = { input = "3.00" }
        [[model]]
        name = "two"
        aliases = ["second"]
        [[model.price]]
        from = "2026-01-01"
        per_mtok = { input = "5.00" }
    "#;
    let over = r#"
        provider = "Acme"
        provider_aliases = ["b"]
        [[model]]
        name = "One"
        [[model.price]]
        from = "2026-01-01"
        per_mtok = { input = "2.00" }
        [[model]]
        name = "ours"
        aliases = ["second"]
        patterns = ["t*"]
        [[model.price]]
        from = "2026-01-01"
        per_mtok = { input = "7.00" }
    "#;
    let below = Book::from_toml(below, "below.toml").unwrap();
    let over = Book::from_toml(over, "over.toml").unwrap();
    let book = below.clone().overlay(over.clone());
    let cost = |provider, model| input_cost(&book, provider, model, "2026-06-01");
    assert_eq!(cost("acme", "one"), Ok("2".into()));
    assert_eq!(cost("acme", "uno").unwrap_err().code(), "unknown_model", "the replaced model's aliases go with it");
    assert_eq!(cost("a", "two"), Ok("5".into()), "a name below wins over a pattern above");
    assert_eq!(cost("b", "second"), Ok("7".into()), "an alias above wins over the same alias below");
    assert_eq!(cost("acme", "three"), Ok("7".into()));
    assert_eq!(book.models_len(), 3);
    assert_eq!(book.revision(), below.clone().overlay(over.clone()).revision());
    assert_ne!(book.revision(), below.revision());
    let empty = Book::from_toml("provider = \"other\"", "other.toml").unwrap();
    assert_eq!(input_cost(&below.overlay(empty), "acme", "uno", "2026-06-01"), Ok("3".into()));
}

#[test]
fn the_flat_list_writes_out_lengths_tiers_and_times() {
    let text = r#"
        provider = "acme"
        [[model]]
        name = "one"
        [[model.price]]
        from = "2026-01-01"
        source = "a page"
        as_of = "2026-11-22"
        per_mtok = { input = "3.00", output = "15.00" }
        per_unit = { pages = "0.01" }
        [[model.price.above]]
        input = 200000
        per_mtok = { input = "6.00" }
        [[model.price.graduated]]
        units = 1000
        per_unit = { pages = "0.005" }
        [model.price.batch]
        multiplier = "0.5"
        [[model.price]]
        from = "2026-07-01"
        per_mtok = { input = "1.00" }
        [[model]]
        name = "own"
        free = true
    "#;
    let book = Book::from_toml(text, "a.toml").unwrap();
    let entries: Vec<PriceEntry> = book.entries().collect();
    let line = |entry: &PriceEntry| {
        let PriceEntry { meter, service_tier, above_input, above_units, unit_price, .. } = entry;
        let day = |time: Option<EventTime>| time.map_or("-".to_owned(), |time| time.to_string()[..10].to_owned());
        let (from, to) = (day(entry.valid_from), day(entry.valid_to));
        format!("{} {meter} {service_tier} >{above_input} >{above_units} {unit_price} {from} {to}", entry.model)
    };
    let lines: Vec<String> = entries.iter().filter(|entry| &*entry.model == "one").map(line).collect();
    assert_eq!(
        lines,
        [
            "one input standard >0 >0 0.000003 2026-01-01 2026-07-01",
            "one output standard >0 >0 0.000015 2026-01-01 2026-07-01",
            "one pages standard >0 >0 0.01 2026-01-01 2026-07-01",
            "one pages standard >0 >1000 0.005 2026-01-01 2026-07-01",
            "one input standard >200000 >0 0.000006 2026-01-01 2026-07-01",
            "one output standard >200000 >0 0.000015 2026-01-01 2026-07-01",
            "one pages standard >200000 >0 0.01 2026-01-01 2026-07-01",
            "one pages standard >200000 >1000 0.005 2026-01-01 2026-07-01",
            "one input batch >0 >0 0.0000015 2026-01-01 2026-07-01",
            "one output batch >0 >0 0.0000075 2026-01-01 2026-07-01",
            "one pages batch >0 >0 0.01 2026-01-01 2026-07-01",
            "one pages batch >0 >1000 0.005 2026-01-01 2026-07-01",
            "one input batch >200000 >0 0.000003 2026-01-01 2026-07-01",
            "one output batch >200000 >0 0.0000075 2026-01-01 2026-07-01",
            "one pages batch >200000 >0 0.01 2026-01-01 2026-07-01",
            "one pages batch >200000 >1000 0.005 2026-01-01 2026-07-01",
            "one input standard >0 >0 0.000001 2026-07-01 -",
        ]
    );
    assert_eq!(entries[0].source.as_deref(), Some("a page"));
    let free: Vec<_> = entries.iter().filter(|entry| &*entry.model == "own").collect();
    assert_eq!(free.len(), Meter::COUNT);
    assert!(free.iter().all(|entry| entry.unit_price == Money::ZERO && entry.valid_from.is_none()));
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_line() {
    let error = Book::from_toml("provider = \"acme\"\n[[model]\n", "broken.toml").unwrap_err();
    assert!(matches!(&error, BookError::Syntax { origin, line: 2, .. } if origin == "broken.toml"), "{error}");
    assert!(Book::from_toml("", "empty.toml").unwrap_err().to_string().contains("provider"));
}
