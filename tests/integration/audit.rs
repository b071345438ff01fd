//! The audit sees each kind of damage, and says what it is.

use std::path::PathBuf;

use serde_json::json;
use sqlx::{Connection, SqliteConnection};

use crate::support::{Site, event, python_now};

/// A ledger of two epochs, one duplicate, one record in quarantine and a budget; then stopped.
fn damaged_by(damage: impl FnOnce(&Site)) -> Vec<String> {
    let site = Site::new(
        "[windows]\nrollup_interval = \"10ms\"\n[[budget]]\nid = \"all\"\namount_usd = \"10\"\nperiod = \"daily\"\n",
    );
    let engine = site.up();
    let now = python_now();
    for id in ["1", "2", "3"] {
        assert_eq!(engine.post("application/json", &event(id, json!({"timestamp": now})).to_string()).0, 202);
        engine.wait_for_events(id.parse().unwrap());
    }
    let late = json!([event("1", json!({})), event("4", json!({"timestamp": "2199-01-01T00:00:00Z"}))]);
    assert_eq!(engine.post("application/json", &late.to_string()).0, 202);
    engine.wait_for_events(5);
    engine.stop();
    assert_eq!(site.failing_checks(), []);
    assert_eq!(site.audit()["quarantined"], json!(1), "the clock that is 170 years ahead");
    damage(&site);
    site.failing_checks().into_iter().map(|(name, _)| name).collect()
}

fn sql(site: &Site, statement: &'static str) {
    let url = format!("sqlite://{}", site.data().join("store.db").display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut store = SqliteConnection::connect(&url).await.unwrap();
        assert!(sqlx::query(statement).execute(&mut store).await.unwrap().rows_affected() > 0, "{statement}");
        store.close().await.unwrap();
    });
}

fn first_file(site: &Site, dataset: &str) -> PathBuf {
    let mut files: Vec<_> =
        std::fs::read_dir(site.data().join(dataset).join("staged")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.remove(0)
}

#[test]
fn a_flipped_byte_in_a_file_is_seen() {
    let failing = damaged_by(|site| {
        let path = first_file(site, "ledger");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    });
    assert!(failing.contains(&"file checksums".to_owned()), "{failing:?}");
}

#[test]
fn a_missing_file_is_seen() {
    let failing = damaged_by(|site| std::fs::remove_file(first_file(site, "ledger")).unwrap());
    for check in ["file checksums", "files readable", "ledger rows", "ledger cost", "budget counters"] {
        assert!(failing.contains(&check.to_owned()), "{check}: {failing:?}");
    }
}

#[test]
fn a_gap_in_the_offsets_is_seen() {
    let failing = damaged_by(|site| sql(site, "DELETE FROM consumed WHERE epoch = 2"));
    assert!(failing.contains(&"ledger rows".to_owned()), "{failing:?}");
    assert!(failing.contains(&"row origins".to_owned()), "{failing:?}");
}

#[test]
fn a_moved_cursor_is_seen() {
    let failing = damaged_by(|site| sql(site, "UPDATE cursor SET next_offset = next_offset + 1"));
    assert_eq!(failing, ["offset chains"]);
}

#[test]
fn events_without_an_end_are_seen() {
    let failing = damaged_by(|site| sql(site, "UPDATE consumed SET events = events + 1 WHERE epoch = 1"));
    assert_eq!(failing, ["every event"]);
}

#[test]
fn a_changed_budget_counter_is_seen() {
    let failing = damaged_by(|site| sql(site, "UPDATE budget_spend SET spent_usd = '0.00000001'"));
    assert_eq!(failing, ["budget counters"]);
}

#[test]
fn a_changed_cost_in_the_manifest_is_seen() {
    let failing = damaged_by(|site| sql(site, "UPDATE file SET cost_usd = '1' WHERE dataset = 'ledger' AND epoch = 1"));
    assert_eq!(failing, ["ledger cost"]);
}

#[test]
fn a_file_that_is_listed_twice_is_seen() {
    let failing = damaged_by(|site| {
        let path = first_file(site, "ledger");
        std::fs::copy(&path, path.with_file_name("copy.parquet")).unwrap();
        sql(
            site,
            "INSERT INTO file SELECT 'ledger/staged/copy.parquet', dataset, epoch, rows, bytes, sha256, cost_usd, min_time_us, \
             max_time_us, rolled_up_in FROM file WHERE dataset = 'ledger' ORDER BY path LIMIT 1",
        );
    });
    assert!(failing.contains(&"unique events".to_owned()), "{failing:?}");
    assert!(failing.contains(&"ledger rows".to_owned()), "{failing:?}");
}

#[test]
fn a_rollup_that_does_not_match_its_ledger_is_seen() {
    let failing = damaged_by(|site| {
        sql(site, "UPDATE file SET rolled_up_in = NULL WHERE dataset = 'ledger' AND rolled_up_in IS NOT NULL");
    });
    assert_eq!(failing, ["hourly rollups"]);
}
