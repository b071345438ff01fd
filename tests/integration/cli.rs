//! The command line as a user meets it.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::{Site, binary, event, repository};

fn price(args: &[&str]) -> (Option<i32>, String, String) {
    let output = binary().arg("price").args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn one_token_at_15_cents_a_million_costs_exactly_0_00000015() {
    let args = ["--provider", "openai", "--model", "gpt-4o-mini", "--usage", r#"{"input":1}"#, "--json"];
    let (code, out, _) = price(&args);
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &line["cost_usd"]), (Some(0), &json!("0.00000015")));
    assert_eq!(line["unit_prices"]["input"], json!("0.00000015"));
}

#[test]
fn a_usage_is_priced_at_the_time_it_is_said_to_be_of() {
    let cost = |at: &str| {
        let usage = r#"{"input":1200,"output":300}"#;
        let args =
            ["--provider", "anthropic", "--model", "claude-3-5-haiku-20241022", "--usage", usage, "--at", at, "--json"];
        let (_, out, err) = price(&args);
        serde_json::from_str::<Value>(&out).unwrap_or_else(|_| panic!("{err}"))["cost_usd"].clone()
    };
    // Launched at 1 and 5 USD a million, cut to 0.80 and 4 a month later.
    assert_eq!(cost("2024-11-10T00:00:00Z"), json!("0.0027"));
    assert_eq!(cost("2026-11-22T00:00:00Z"), json!("0.00216"));
}

#[test]
fn an_unknown_model_is_unpriced_and_never_free() {
    let args = ["--provider", "openai", "--model", "gpt-99", "--usage", r#"{"input":1}"#];
    let (code, out, err) = price(&args);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.starts_with("costhelm: unpriced: ") && err.contains("gpt-99"), "{err}");
    let (code, out, _) = price(&[&args[..], &["--json"]].concat());
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &line["status"], &line["cost_usd"]), (Some(1), &json!("unpriced"), &Value::Null));
}

#[test]
fn wrong_arguments_are_named_with_what_was_expected() {
    let (code, _, err) = price(&["--provider", "openai", "--model", "gpt-4o", "--usage", r#"{"inptu":1}"#]);
    assert_eq!(code, Some(2));
    assert!(err.contains("inptu") && err.contains("input"), "{err}");
    let (code, _, err) = price(&["--provider", "openai", "--model", "gpt-4o", "--usage", "{}", "--at", "noon"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("--at") && err.contains("noon"), "{err}");
}

#[test]
fn every_event_of_a_file_is_priced_to_one_line_each() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let cached = json!({"usage": {"cache_read": 400}, "model_name": "gpt-4o", "timestamp": "2026-11-20T10:00:00Z"});
    writeln!(file, "{}", event("plain", json!({}))).unwrap();
    writeln!(file, "{}", event("cached", cached)).unwrap();
    writeln!(file, "{}", event("unknown", json!({"model_name": "gpt-99"}))).unwrap();
    writeln!(file, "{}", event("broken", json!({"tokens_output": "many"}))).unwrap();
    writeln!(file, "{{").unwrap();
    let (code, out, _) = price(&["--events", file.path().to_str().unwrap(), "--json"]);
    assert_eq!(code, Some(0));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> = lines.iter().map(|line| json!([line["event_id"], line["status"], line["cost_usd"]])).collect();
    assert_eq!(
        seen,
        [
            json!(["plain", "priced", "0.00021"]),
            // 600 × 2.50 + 400 × 1.25 + 100 × 10 USD per million: no cached token is charged twice (RATE-2).
            json!(["cached", "priced", "0.003"]),
            json!(["unknown", "unpriced", null]),
            json!(["broken", "quarantined", null]),
            json!([null, "quarantined", null]),
        ]
    );
    assert_eq!(lines[1]["meters"], json!({"input": 600, "cache_read": 400, "output": 100, "requests": 1}));
    assert_eq!(lines[1]["unit_prices"]["cache_read"], json!("0.00000125"));
}

#[test]
fn a_book_of_ones_own_prices_alone_or_over_the_built_in_one() {
    let mut book = tempfile::NamedTempFile::new().unwrap();
    let text = "provider = \"acme\"\n[[model]]\nname = \"acme-1\"\n[[model.price]]\nfrom = \"2026-01-01\"\n\
                per_mtok = { input = \"1\", output = \"2\" }\n";
    book.write_all(text.as_bytes()).unwrap();
    let path = book.path().to_str().unwrap();
    let usage = ["--usage", r#"{"input":1000000,"output":1}"#, "--book", path];
    let (_, out, _) = price(&[&["--provider", "acme", "--model", "acme-1"], &usage[..]].concat());
    assert!(out.starts_with("1.000002 USD\n"), "{out}");
    let gpt = ["--provider", "openai", "--model", "gpt-4o"];
    assert_eq!(price(&[&gpt[..], &usage].concat()).0, Some(1));
    assert_eq!(price(&[&gpt[..], &usage, &["--builtin"]].concat()).0, Some(0));
}

#[test]
fn the_example_configuration_is_valid_and_says_what_it_sets_up() {
    let path = repository().join("costhelm.example.toml");
    let output = binary().args(["check", "--config"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.contains("ok; embedded bus, 2 budgets"), "{text}");
}

#[test]
fn a_wrong_configuration_is_refused_with_file_and_line() {
    let site = Site::new("[bus]\nkid = \"kafka\"\n");
    let output = site.output(&["check"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("costhelm.toml:7:1: unknown field `kid`, expected one of `kind`"), "{text}");
}

#[test]
fn sql_may_read_and_nothing_else() {
    let site = Site::new("");
    let engine = site.up();
    assert_eq!(engine.post("application/json", &event("1", json!({})).to_string()).0, 202);
    engine.wait_for_events(1);
    engine.stop();
    let target = site.dir.path().join("out.csv");
    for sql in [
        format!("COPY (SELECT 1) TO '{}'", target.display()),
        "CREATE TABLE t AS SELECT 1".into(),
        "INSERT INTO budgets SELECT * FROM budgets".into(),
        "DROP TABLE ledger".into(),
        "SET datafusion.execution.batch_size = 1".into(),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{}'", target.display()),
    ] {
        let output = site.output(&["query", &sql]);
        assert_eq!(output.status.code(), Some(1), "{sql}");
        assert!(!target.exists());
    }
    let output = site.output(&["query", "--format", "csv", "SELECT event_id, cost_usd, event_time FROM ledger"]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "event_id,cost_usd,event_time\n1,0.00021,2026-11-20T10:00:00.000001Z\n"
    );
    let output = site.output(&["query", "SELECT project_id, sum(cost_usd) AS cost FROM ledger GROUP BY 1"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("ravenhelm-platform") && table.contains("0.00021") && table.contains("1 row"), "{table}");
    let prices = site.query("SELECT unit_price_usd FROM prices WHERE model = 'gpt-4o-mini' AND meter = 'input' AND service_tier = 'standard'");
    assert_eq!(prices[0]["unit_price_usd"], json!("0.00000015"));
}

#[test]
fn the_engine_is_embedded_in_another_program_in_a_few_lines() {
    let text = std::fs::read_to_string(repository().join("engine/examples/embed.rs")).unwrap();
    let body = text.split("async fn main").nth(1).unwrap();
    assert!(body.lines().count() <= 21, "the example has grown to {} lines", body.lines().count());
}

#[test]
fn a_data_directory_serves_one_engine_at_a_time() {
    let site = Site::new("");
    let _first = site.up();
    let second = site.output(&["run"]);
    let text = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(text.contains("is in use by another engine"), "{text}");
}
