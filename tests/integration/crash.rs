//! The process dies at each step of a commit; nothing is lost, nothing is counted twice.

use serde_json::json;

use crate::support::{Site, event, python_now, wait_for};

const BUDGET: &str = "[[budget]]\nid = \"all\"\namount_usd = \"0.005\"\nperiod = \"daily\"\n";

/// The steps that [`costhelm::crash::point`] names, and what the ledger holds right after the crash.
const POINTS: [(&str, u64); 3] = [("commit.staged", 0), ("commit.committed", 20), ("relay.sent", 20)];

#[test]
fn a_crash_at_any_step_of_the_commit_loses_nothing_and_counts_nothing_twice() {
    for (point, rows_after_crash) in POINTS {
        let site = Site::new(BUDGET);
        let mut engine = site.run_with(&[("COSTHELM_TEST_CRASH_AT", point)]);
        engine.wait_until_up();
        let calls: Vec<_> = (0..20).map(|n| event(&format!("e-{n}"), json!({"timestamp": python_now()}))).collect();
        assert_eq!(engine.post("application/json", &json!(calls).to_string()).0, 202, "{point}");
        wait_for(point, || engine.child.try_wait().unwrap());
        assert_eq!(site.ledger_rows(), rows_after_crash, "{point}: EO-2");

        let engine = site.up();
        // The sender did not hear whether its request arrived, and sends it again.
        assert_eq!(engine.post("application/json", &json!(calls).to_string()).0, 202);
        wait_for("all of it", || (site.query("SELECT count(*) AS n FROM ledger")[0]["n"] == json!(20)).then_some(()));
        engine.wait_for_events(20);
        engine.stop();
        let report = site.audit();
        assert_eq!((&report["ledger_rows"], &report["duplicates"]), (&json!(20), &json!(20)), "{point}");
        assert_eq!(report["total_cost_usd"], json!("0.0042"));
        // 84 %: one warning, whatever crashed (BUDGET-1).
        assert_eq!(site.query("SELECT severity FROM alerts"), [json!({"severity": "warning"})], "{point}");
    }
}

#[test]
fn files_that_no_commit_knows_are_removed_at_the_next_start() {
    let site = Site::new("");
    let mut engine = site.run_with(&[("COSTHELM_TEST_CRASH_AT", "commit.staged")]);
    engine.wait_until_up();
    assert_eq!(engine.post("application/json", &event("1", json!({})).to_string()).0, 202);
    wait_for("the crash", || engine.child.try_wait().unwrap());
    let staged = || std::fs::read_dir(site.data().join("ledger/staged")).unwrap().count();
    assert_eq!(staged(), 1);
    let engine = site.up();
    wait_for("the row", || (site.ledger_rows() == 1).then_some(()));
    engine.stop();
    assert_eq!(staged(), 1, "the orphan is gone, the committed file is there");
}
