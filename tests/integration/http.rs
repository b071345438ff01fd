//! Events in over HTTP, and what is served.

use serde_json::{Value, json};

use crate::support::{Site, event, python_now, wait_for};

fn committed(site: &Site, rows: u64) {
    wait_for("the rows to be committed", || {
        (site.data().join("store.db").exists() && site.ledger_rows() == rows).then_some(())
    });
}

#[test]
fn every_form_of_body_reaches_the_ledger_once() {
    let site = Site::new("");
    let engine = site.up();
    let bare = event("bare", json!({}));
    let structured = json!({
        "specversion": "1.0", "id": "ce-1", "source": "agents/worker", "type": "cost.tracked",
        "time": "2026-11-20T10:00:00Z", "data": event("structured", json!({})),
    });
    let mut nameless = event("", json!({}));
    nameless.as_object_mut().unwrap().remove("event_id");
    nameless.as_object_mut().unwrap().remove("timestamp");

    let accepted = |(status, body): (u16, Value), count: u64| {
        assert_eq!((status, body["accepted"].as_u64()), (202, Some(count)), "{body}");
    };
    accepted(engine.post("application/json", &bare.to_string()), 1);
    accepted(
        engine.post("application/json", &json!([event("a-1", json!({})), event("a-2", json!({}))]).to_string()),
        2,
    );
    let lines = format!("{}\n\n{}\n", event("l-1", json!({})), event("l-2", json!({})));
    accepted(engine.post("application/x-ndjson", &lines), 2);
    accepted(engine.post("application/cloudevents+json; charset=utf-8", &structured.to_string()), 1);
    let batch = json!([{
        "specversion": "1.0", "id": "ce-2", "source": "agents/worker", "type": "cost.tracked",
        "time": "2026-11-20T10:00:00Z", "data": nameless,
    }]);
    accepted(engine.post("application/cloudevents-batch+json", &batch.to_string()), 1);
    let headers = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "ce-3"),
        ("ce-source", "agents/binary"),
        ("ce-time", "2026-11-20T11:00:00Z"),
    ];
    accepted(engine.post_with(&headers, nameless.to_string().as_bytes()), 1);
    // The same again: repeats are recognised, whatever form they come in.
    accepted(engine.post("application/json", &json!([bare, event("l-1", json!({}))]).to_string()), 2);

    engine.wait_for_events(10);
    let rows = site.query("SELECT event_id, source, cost_usd FROM ledger ORDER BY event_id");
    let found: Vec<_> =
        rows.iter().map(|row| (row["event_id"].as_str().unwrap(), row["source"].as_str().unwrap())).collect();
    assert_eq!(
        found,
        [
            ("a-1", ""),
            ("a-2", ""),
            ("bare", ""),
            ("ce-2", "agents/worker"),
            ("ce-3", "agents/binary"),
            ("l-1", ""),
            ("l-2", ""),
            ("structured", "agents/worker"),
        ]
    );
    // 1,000 × 0.15 + 100 × 0.60 USD per million.
    assert!(rows.iter().all(|row| row["cost_usd"] == json!("0.00021")), "{rows:?}");
    assert_eq!(site.audit()["duplicates"], json!(2));
    engine.stop();
}

#[test]
fn errors_are_told_by_index_and_nothing_that_was_refused_is_on_the_bus() {
    let site = Site::new("");
    let engine = site.up();
    let batch = json!([
        event("good", json!({})),
        event("negative", json!({"tokens_input": -5})),
        event("when", json!({"timestamp": "yesterday"})),
        event("bare-bones", json!({"model_name": null})),
        42,
    ]);
    let (status, body) = engine.post("application/json", &batch.to_string());
    assert_eq!((status, &body["accepted"]), (202, &json!(1)));
    let errors: Vec<_> = body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            format!("{} {} {}", error["index"], error["code"].as_str().unwrap(), error["detail"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        errors,
        [
            "1 invalid_field field `tokens_input` is -5; expected a whole number from 0 to 10,000,000,000",
            "2 invalid_field field `timestamp` is yesterday; expected an RFC 3339 time such as 2026-11-22T10:15:00Z (no offset means UTC)",
            "3 missing_field field `model_name` is missing; every usage event must have it",
            "4 malformed found \"42\"; expected a JSON object or an array of objects",
        ]
    );
    let (status, body) = engine.post("application/json", "{\"event_id\": ");
    assert_eq!((status, &body["title"]), (400, &json!("Bad Request")));
    assert!(body["detail"].as_str().unwrap().starts_with("the event is not valid JSON"), "{body}");
    let (status, _) = engine.post("application/json", "");
    assert_eq!(status, 400);
    let (status, _) = engine.post("image/png", "{}");
    assert_eq!(status, 415);
    engine.wait_for_events(1);
    committed(&site, 1);
    assert_eq!(site.audit()["quarantined"], json!(0));
    engine.stop();
}

#[test]
fn a_body_over_the_limit_is_413_and_an_unknown_path_404_both_as_problems() {
    let site = Site::new("");
    let text = std::fs::read_to_string(site.config()).unwrap().replace("[http]\n", "[http]\nbody_bytes_max = 1000\n");
    std::fs::write(site.config(), text).unwrap();
    let engine = site.up();
    let (status, body) = engine.post("application/json", &format!("[{}]", " ".repeat(2000)));
    assert_eq!((status, &body["status"]), (413, &json!(413)));
    let (status, body) = engine.get("/v1/nothing");
    assert_eq!((status, &body["detail"]), (404, &json!("there is nothing at /v1/nothing")));
    let (status, body) = engine.get("/v1/events");
    assert_eq!((status, &body["status"]), (405, &json!(405)));
    let (status, body) = engine.get("/v1/costs?by=colour");
    assert_eq!(status, 400);
    assert!(
        body["detail"].as_str().unwrap().starts_with("parameter `by` is \"colour\"; expected one of environment"),
        "{body}"
    );
    let (status, body) = engine.get("/v1/throttle?projekt_id=x");
    assert_eq!(status, 400);
    assert!(body["detail"].as_str().unwrap().contains("parameter `projekt_id` is not known"), "{body}");
}

const BUDGET: &str = "[[budget]]\nid = \"platform-day\"\namount_usd = \"1\"\nperiod = \"daily\"\n\
    [budget.scope]\nproject_id = \"ravenhelm-platform\"\n\
    [budget.throttle]\nmodel_substitutions = { \"gpt-4o\" = \"gpt-4o-mini\" }\n";

#[test]
fn a_budget_warns_at_75_percent_and_throttles_at_95_and_a_restart_keeps_both() {
    let site = Site::new(BUDGET);
    let engine = site.up();
    // 1 USD of gpt-4o-mini output is 1,666,666.67 tokens: 0.6 USD a million.
    let spend = |engine: &crate::support::Running, id: &str, tokens: u64| {
        let call = event(id, json!({"timestamp": python_now(), "tokens_input": 0, "tokens_output": tokens}));
        assert_eq!(engine.post("application/json", &call.to_string()).0, 202);
    };
    let throttle = |engine: &crate::support::Running| {
        engine.get("/v1/throttle?environment=dev&project_id=ravenhelm-platform&agent_role=worker").1
    };
    spend(&engine, "a", 1_000_000);
    engine.wait_for_events(1);
    assert_eq!(throttle(&engine)["level"], json!("none"));
    assert_eq!(site.query("SELECT * FROM alerts").len(), 0);

    spend(&engine, "b", 300_000);
    wait_for("the warning", || (site.query("SELECT * FROM alerts").len() == 1).then_some(()));
    assert_eq!(throttle(&engine)["level"], json!("none"), "75 % warns, it does not throttle");

    spend(&engine, "c", 300_000);
    let in_force =
        wait_for("the throttle", || Some(throttle(&engine)).filter(|throttle| throttle["level"] == json!("critical")));
    assert_eq!(in_force["concurrency_factor"], json!(0.5));
    assert_eq!(in_force["model_substitutions"], json!({"gpt-4o": "gpt-4o-mini"}));
    assert_eq!(in_force["disable_noncritical"], json!(true));
    assert_eq!(in_force["queue_tasks"], json!(true));
    let alerts = site.query("SELECT severity, threshold_percent, spent_usd FROM alerts ORDER BY threshold_percent");
    assert_eq!(alerts[0], json!({"severity": "warning", "threshold_percent": "75", "spent_usd": "0.78"}));
    assert_eq!(alerts[1], json!({"severity": "critical", "threshold_percent": "95", "spent_usd": "0.96"}));

    let (_, budgets) = engine.get("/v1/budgets");
    assert_eq!(budgets["budgets"][0]["spent_usd"], json!("0.96"));
    let other = engine.get("/v1/throttle?project_id=another").1;
    assert_eq!(other["level"], json!("none"), "the throttle is for its scope alone");
    engine.kill();

    let engine = site.up();
    assert_eq!(throttle(&engine)["level"], json!("critical"));
    assert_eq!(engine.get("/v1/budgets").1["budgets"][0]["spent_usd"], json!("0.96"));
    spend(&engine, "d", 10_000);
    engine.wait_for_events(1);
    assert_eq!(site.query("SELECT * FROM alerts").len(), 2, "BUDGET-1: once a threshold, whatever restarts");
    // The budget is raised: the throttle goes, in the same period.
    engine.stop();
    let text = std::fs::read_to_string(site.config()).unwrap().replace("amount_usd = \"1\"", "amount_usd = \"10\"");
    std::fs::write(site.config(), text).unwrap();
    let engine = site.up();
    assert_eq!(throttle(&engine)["level"], json!("none"));
    engine.stop();
    let sequence = site.query("SELECT level, sequence FROM throttles");
    assert_eq!(sequence, [json!({"level": "none", "sequence": 2})]);
    site.audit();
}

#[test]
fn costs_are_served_by_dimension_and_window_and_survive_a_restart() {
    let site = Site::new("[windows]\nrollup_interval = \"50ms\"\n");
    let engine = site.up();
    for (id, agent) in [("1", "planner"), ("2", "worker"), ("3", "worker")] {
        let call = event(id, json!({"timestamp": python_now(), "agent_role": agent}));
        assert_eq!(engine.post("application/json", &call.to_string()).0, 202);
        // One epoch each, so that the hourly rollup is written on the way.
        engine.wait_for_events(id.parse().unwrap());
    }
    let check = |engine: &crate::support::Running| {
        for window in ["1h", "24h", "30d"] {
            let (_, costs) = engine.get(&format!("/v1/costs?by=agent_role&window={window}"));
            assert_eq!(costs["total"]["cost_usd"], json!("0.00063"), "{window}");
            assert_eq!(costs["rows"][0]["agent_role"], json!("worker"));
            assert_eq!(costs["rows"][0]["cost_usd"], json!("0.00042"));
            assert_eq!(costs["rows"][0]["usage"]["input"], json!(2000));
        }
        let (_, only) = engine.get("/v1/costs?by=model_name&window=1h&agent_role=planner");
        assert_eq!(only["total"]["events"], json!(1));
    };
    check(&engine);
    assert_eq!(
        site.query("SELECT sum(cost_usd) AS c, sum(events) AS n FROM cost_hour"),
        [json!({"c": "0.00063", "n": 3})]
    );
    engine.stop();
    let engine = site.up();
    check(&engine);
    let (status, ready) = engine.get("/readyz");
    assert_eq!((status, &ready["ready"]), (200, &json!(true)));
    let (_, metrics) = engine.get("/metrics");
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("costhelm_cost_usd_total{environment=\"dev\",business_unit_id=\"\",project_id=\"ravenhelm-platform\",agent_role=\"worker\",model_provider=\"openai\",model_name=\"gpt-4o-mini\"} 0.00042"), "{metrics}");
    site.audit();
}
