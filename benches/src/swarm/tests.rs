use std::collections::HashSet;

use serde_json::Value;

use super::event::Emitter;
use super::python::write_cost;
use super::*;

fn config() -> SwarmConfig {
    SwarmConfig {
        seed: 11,
        events: 20_000,
        start: DateTime::from_timestamp(1_756_684_800, 0).expect("2025-09-01"),
        span_s: 3_600,
        duplicates_per_million: 20_000,
        late_per_million: 10_000,
        malformed_per_million: 5_000,
        unpriced_per_million: 1_000,
        agents: 13,
    }
}

fn lines(config: SwarmConfig) -> Vec<(Slot, Vec<u8>, Vec<u8>)> {
    let swarm = Swarm::new(config).expect("a valid config");
    (0..swarm.config().events)
        .map(|slot| {
            let (mut line, mut key) = (Vec::new(), Vec::new());
            let what = swarm.write(slot, &mut line, &mut key);
            (what, line, key)
        })
        .collect()
}

#[test]
fn a_seed_gives_these_lines_for_ever() {
    let lines = lines(config());
    for (expected, (_, line, _)) in include_str!("first_lines_of_seed_11.ndjson").lines().zip(&lines) {
        assert_eq!(String::from_utf8_lossy(line), expected);
    }
}

#[test]
fn a_slot_does_not_depend_on_the_slots_written_before() {
    let all = lines(config());
    let swarm = Swarm::new(config()).expect("a valid config");
    let (mut line, mut key) = (Vec::new(), Vec::new());
    for slot in [19_999, 3, 12_345] {
        swarm.write(slot, &mut line, &mut key);
        assert_eq!((&line, &key), (&all[slot as usize].1, &all[slot as usize].2));
    }
}

#[test]
fn another_seed_gives_other_events() {
    let all = |seed| -> HashSet<Vec<u8>> {
        lines(SwarmConfig { seed, malformed_per_million: 0, ..config() }).into_iter().map(|(_, line, _)| line).collect()
    };
    assert_eq!(all(1).intersection(&all(2)).count(), 0);
}

#[test]
fn a_repetition_has_the_bytes_and_the_key_of_an_earlier_event() {
    let lines = lines(config());
    let mut repeated = 0;
    for (slot, (what, line, key)) in lines.iter().enumerate() {
        if let Slot::Duplicate { of } = *what {
            assert!(of < slot as u64, "slot {slot} repeats slot {of}, which comes later");
            assert!(slot as u64 - of <= REPEAT_DISTANCE_MAX);
            assert_eq!((line, key), (&lines[of as usize].1, &lines[of as usize].2), "slot {slot}");
            repeated += 1;
        }
    }
    assert!((300..500).contains(&repeated), "{repeated} repetitions among 20000 slots, expected about 400");
}

#[test]
fn event_ids_are_unique_but_for_repetitions() {
    let mut seen = HashSet::new();
    for (what, line, _) in lines(config()) {
        if matches!(what, Slot::Event | Slot::Late | Slot::Unpriced) {
            let event: Value = serde_json::from_slice(&line).expect("an event is JSON");
            assert!(seen.insert(event["event_id"].to_string()), "{} twice", event["event_id"]);
        }
    }
    assert!(seen.len() > 19_000);
}

#[test]
fn events_have_what_the_contract_requires_and_malformed_lines_lack_it() {
    let required_text = [
        "event_id",
        "timestamp",
        "environment",
        "org_id",
        "project_id",
        "agent_role",
        "agent_task_id",
        "model_provider",
        "model_name",
    ];
    let mut malformed = 0;
    for (what, line, key) in lines(config()) {
        assert!(!key.is_empty() && !line.contains(&b'\n') && line.len() < 1_100);
        let event = serde_json::from_slice::<Value>(&line).unwrap_or_default();
        let complete =
            required_text.iter().all(|name| event[name].as_str().is_some_and(|text| text != "yesterday, around noon"))
                && ["tokens_input", "tokens_output", "tokens_total"].iter().all(|name| event[name].is_u64());
        assert_eq!(complete, what != Slot::Malformed, "{}", String::from_utf8_lossy(&line));
        malformed += usize::from(what == Slot::Malformed);
        if complete {
            assert_eq!(event["agent_task_id"].as_str().map(str::as_bytes), Some(&key[..]));
            let cost = event["cost_usd"].as_str().map_or_else(|| event["cost_usd"].to_string(), str::to_owned);
            assert!(cost.parse::<f64>().is_ok(), "cost_usd is {cost}");
        }
    }
    assert!((60..150).contains(&malformed), "{malformed} malformed lines among 20000 slots, expected about 100");
}

#[test]
fn inclusive_usage_is_contained_in_the_totals() {
    for (what, line, _) in lines(config()) {
        if what == Slot::Malformed {
            continue;
        }
        let event: Value = serde_json::from_slice(&line).expect("an event is JSON");
        if event["usage_convention"] == "exclusive" {
            continue;
        }
        let meter = |name: &str| event["usage"][name].as_u64().unwrap_or(0);
        let cached = meter("cache_read") + meter("cache_write_5m") + meter("cache_write_1h");
        assert!(
            Some(cached) <= event["tokens_input"].as_u64()
                && Some(meter("reasoning")) <= event["tokens_output"].as_u64()
        );
    }
}

#[test]
fn a_line_is_about_as_long_as_in_the_wild() {
    let lines = lines(config());
    let mean = lines.iter().map(|(_, line, _)| line.len()).sum::<usize>() / lines.len();
    assert!((500..600).contains(&mean), "lines have {mean} bytes on average");
}

#[test]
fn costs_are_written_as_python_writes_them() {
    let written = |nano, emitter| {
        let mut out = Vec::new();
        write_cost(nano, emitter, false, &mut out);
        String::from_utf8(out).expect("ASCII")
    };
    assert_eq!(written(0, Emitter::DefaultStr), "\"0.0\"");
    assert_eq!(written(12_345_000, Emitter::ModelDumpJson), "\"0.012345\"");
    assert_eq!(written(2_000_000_000, Emitter::DefaultStr), "\"2.0\"");
    assert_eq!(written(0, Emitter::HandMade), "0.0");
    assert_eq!(written(1_020_000_000, Emitter::HandMade), "1.02");
    assert_eq!(written(75_000, Emitter::HandMade), "7.5e-05");
    assert_eq!(written(80_000, Emitter::HandMade), "8e-05");
    assert_eq!(written(100_500, Emitter::HandMade), "0.0001005");
}

#[test]
fn a_config_out_of_range_is_refused_with_the_field_and_the_value() {
    let error = Swarm::new(SwarmConfig { agents: 1, ..config() }).expect_err("one agent is no swarm");
    assert_eq!(error.to_string(), "`agents` is 1, expected 2 to 10000 (one orchestrator and its workers)");
    let all = SwarmConfig { duplicates_per_million: 900_000, late_per_million: 200_000, ..config() };
    assert_eq!(Swarm::new(all).expect_err("more than all"), SwarmError::MoreThanAll(1_106_000));
}
