//! Against a real Apache Kafka.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use costhelm_benches::swarm::{Swarm, SwarmConfig};
use rdkafka::{
    ClientConfig, Message, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Headers, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};

use crate::support::{PATIENCE, Running, Site, event, prepared, python_now, repository, wait_for};

fn brokers() -> String {
    prepared("COSTHELM_TEST_KAFKA")
}

/// A broker of a test's own, which it may stop.
struct OwnBroker {
    dir: tempfile::TempDir,
    brokers: String,
}

impl OwnBroker {
    fn start() -> OwnBroker {
        let dir = tempfile::tempdir().unwrap();
        let started = kafka_sh(&["start", dir.path().to_str().unwrap()]);
        OwnBroker { brokers: started.trim().strip_prefix("bootstrap=").unwrap().to_owned(), dir }
    }

    fn sh(&self, command: &str) {
        kafka_sh(&[command, self.dir.path().to_str().unwrap()]);
    }

    fn topic(&self, name: &str) {
        kafka_sh(&["topic", self.dir.path().to_str().unwrap(), name, "2"]);
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        let _ = Command::new(prepared("COSTHELM_TEST_KAFKA_SH")).arg("stop").arg(self.dir.path()).status();
    }
}

fn kafka_sh(args: &[&str]) -> String {
    let output = Command::new(prepared("COSTHELM_TEST_KAFKA_SH")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A name that no earlier run on the same broker has used.
fn fresh(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::now_v7())
}

/// A site on topics of its own, which exist.
fn site(name: &str, partitions: u32, more: &str) -> Site {
    let dir = prepared("COSTHELM_TEST_KAFKA_DIR");
    for topic in ["events", "alerts", "throttle", "quarantine", "squad"] {
        let count = if topic == "events" { partitions } else { 1 };
        kafka_sh(&["topic", &dir, &format!("{name}.{topic}"), &count.to_string()]);
    }
    site_on(&brokers(), name, more)
}

fn site_on(brokers: &str, name: &str, more: &str) -> Site {
    Site::new(&format!(
        "[bus]\nkind = \"kafka\"\n[bus.kafka]\nbrokers = \"{brokers}\"\ngroup_id = \"{name}\"\n\
         properties = {{ \"session.timeout.ms\" = \"6000\" }}\n\
         [topics]\nevents = \"{name}.events\"\nalerts = \"{name}.alerts\"\nthrottle = \"{name}.throttle\"\n\
         quarantine = \"{name}.quarantine\"\nsquad = \"{name}.squad\"\n{more}"
    ))
}

fn producer(brokers: &str) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("queue.buffering.max.messages", "200000")
        .create()
        .unwrap()
}

fn send(producer: &BaseProducer, topic: &str, key: &[u8], value: &[u8], headers: Option<OwnedHeaders>) {
    let mut record = BaseRecord::to(topic).key(key).payload(value);
    if let Some(headers) = headers {
        record = record.headers(headers);
    }
    while let Err((error, back)) = producer.send(record) {
        assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(20));
        record = back;
    }
}

fn flush(producer: &BaseProducer) {
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// Key, value and headers of a record.
type Received = (String, Vec<u8>, Vec<(String, String)>);

/// Reads a topic's only partition from its beginning until `count` records have come.
fn read(topic: &str, count: usize) -> Vec<Received> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("group.id", "reader-of-tests")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    let started = Instant::now();
    let mut records = Vec::new();
    while records.len() < count {
        assert!(started.elapsed() < PATIENCE, "{topic}: {} of {count} records", records.len());
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else {
            continue;
        };
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
            headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
        });
        let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
        records.push((key, message.payload().unwrap_or_default().to_vec(), headers));
    }
    records
}

#[test]
fn every_form_of_record_reaches_the_ledger_and_what_cannot_be_used_its_topic_as_it_came() {
    let name = fresh("forms");
    let topic = |kind: &str| format!("{name}.{kind}");
    let site = site(&name, 3, "");
    let producer = producer(&brokers());
    let put =
        |value: &str, headers: Option<OwnedHeaders>| send(&producer, &topic("events"), b"k", value.as_bytes(), headers);
    let header =
        |headers: OwnedHeaders, key, value| headers.insert(rdkafka::message::Header { key, value: Some(value) });
    put(&event("bare", json!({})).to_string(), None);
    put(&json!([event("a-1", json!({})), event("a-2", json!({"tokens_input": "lots"}))]).to_string(), None);
    let structured = json!({
        "specversion": "1.0", "id": "ce-1", "source": "agents/x", "type": "t", "data": event("in-data", json!({})),
    });
    put(&structured.to_string(), None);
    let mut nameless = event("", json!({}));
    nameless.as_object_mut().unwrap().remove("event_id");
    let binary =
        [("ce_specversion", "1.0"), ("ce_id", "ce-2"), ("ce_source", "agents/y"), ("content-type", "application/json")];
    let binary = binary.into_iter().fold(OwnedHeaders::new(), |headers, (key, value)| header(headers, key, value));
    put(&nameless.to_string(), Some(binary));
    put("{\"event_id\": \"cut off", None);
    put(&event("bare", json!({})).to_string(), None);
    flush(&producer);

    let engine = site.up();
    engine.wait_for_events(7);
    let rows = site.query("SELECT event_id, source FROM ledger ORDER BY event_id");
    let ids: Vec<_> = rows.iter().map(|row| row["event_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a-1", "bare", "ce-2", "in-data"]);
    let quarantined = read(&topic("quarantine"), 2);
    let of = |code: &str| {
        let found = quarantined.iter().find(|(.., headers)| headers.contains(&("costhelm_code".into(), code.into())));
        found.unwrap_or_else(|| panic!("{code}: {quarantined:?}"))
    };
    let (key, value, _) = of("malformed");
    assert_eq!((key.as_str(), value.as_slice()), ("k", &b"{\"event_id\": \"cut off"[..]));
    let (_, value, headers) = of("invalid_field");
    assert_eq!(serde_json::from_slice::<Value>(value).unwrap()["event_id"], json!("a-2"));
    assert!(headers.contains(&("costhelm_record_index".into(), "1".into())), "{headers:?}");
    engine.stop();
    let report = site.audit();
    assert_eq!((&report["duplicates"], &report["quarantined"]), (&json!(1), &json!(2)));
}

#[test]
fn a_crossing_sends_alert_throttle_and_mirror_to_their_topics_once() {
    let budget = "[[budget]]\nid = \"day\"\namount_usd = \"0.001\"\nperiod = \"daily\"\n\
                  [budget.scope]\nproject_id = \"ravenhelm-platform\"\n[budget.owners]\nfinance = \"finance-ops\"\n";
    let name = fresh("crossing");
    let topic = |kind: &str| format!("{name}.{kind}");
    let site = site(&name, 1, budget);
    let engine = site.up();
    let producer = producer(&brokers());
    // 0.00096 of 0.001 USD in one call: both thresholds in one leap.
    let call = event("1", json!({"timestamp": python_now(), "tokens_input": 0, "tokens_output": 1600}));
    send(&producer, &topic("events"), b"k", call.to_string().as_bytes(), None);
    flush(&producer);
    let throttle = read(&topic("throttle"), 1).remove(0);
    let command: Value = serde_json::from_slice(&throttle.1).unwrap();
    assert_eq!(throttle.0, "project_id=ravenhelm-platform");
    assert_eq!((&command["type"], &command["specversion"]), (&json!("costhelm.throttle.v1"), &json!("1.0")));
    assert_eq!((&command["data"]["level"], &command["data"]["sequence"]), (&json!("critical"), &json!(1)));
    assert_eq!(command["data"]["concurrency_factor"], json!(0.5));
    let alerts = read(&topic("alerts"), 2);
    let severities: Vec<Value> = alerts
        .iter()
        .map(|(_, value, _)| serde_json::from_slice::<Value>(value).unwrap()["data"]["severity"].clone())
        .collect();
    assert_eq!(severities, [json!("warning"), json!("critical")]);
    let mirror: Value = serde_json::from_slice(&read(&topic("squad"), 1)[0].1).unwrap();
    assert_eq!((&mirror["event_type"], &mirror["source_agent"]), (&json!("throttle"), &json!("costhelm")));
    // Killed after everything has left: nothing is sent again, and what is sent next goes on counting.
    wait_for("the outbox to be empty", || (engine.metric("costhelm_outbox_published_total")? >= 4.0).then_some(()));
    engine.kill();
    let engine = site.up();
    send(
        &producer,
        &topic("events"),
        b"k",
        event("2", json!({"timestamp": python_now()})).to_string().as_bytes(),
        None,
    );
    flush(&producer);
    engine.wait_for_events(1);
    engine.stop();
    assert_eq!(site.query("SELECT count(*) AS n FROM alerts"), [json!({"n": 2})]);
    site.audit();
}

#[test]
fn an_unreachable_broker_and_a_missing_topic_are_told_in_one_line_and_pass_by_themselves() {
    let broker = OwnBroker::start();
    broker.sh("stop");
    let site = site_on(&broker.brokers, "late", "");
    let engine = site.up();
    let trouble = |words: &'static str| {
        wait_for(words, || {
            let (status, ready) = engine.get("/readyz");
            let troubles = ready["troubles"].to_string();
            (status == 503 && troubles.contains(words)).then_some(troubles)
        })
    };
    trouble("127.0.0.1");
    broker.sh("restart");
    trouble("late.events");
    broker.topic("late.events");
    wait_for("readiness", || (engine.get("/readyz").0 == 200).then_some(()));
    let producer = producer(&broker.brokers);
    let put = |id: &str| {
        send(&producer, "late.events", id.as_bytes(), event(id, json!({})).to_string().as_bytes(), None);
        flush(&producer);
    };
    put("before");
    engine.wait_for_events(1);
    // The broker goes and comes back in the middle of it.
    broker.sh("kill");
    trouble("127.0.0.1");
    broker.sh("restart");
    put("after");
    engine.wait_for_events(2);
    wait_for("readiness", || (engine.get("/readyz").0 == 200).then_some(()));
    let log = engine.log();
    engine.stop();
    assert_eq!(site.audit()["ledger_rows"], json!(2));
    assert!(log.lines().count() < 40, "a trouble is told once, not every second:\n{log}");
}

#[test]
fn a_topic_that_cannot_be_written_keeps_back_only_its_own_messages() {
    let name = fresh("nowhere");
    let topic = |kind: &str| format!("{name}.{kind}");
    for kind in ["events", "alerts", "throttle"] {
        kafka_sh(&["topic", &prepared("COSTHELM_TEST_KAFKA_DIR"), &topic(kind), "1"]);
    }
    let budget = "[[budget]]\nid = \"day\"\namount_usd = \"0.001\"\nperiod = \"daily\"\n";
    let site = site_on(&brokers(), &name, budget);
    let engine = site.up();
    let producer = producer(&brokers());
    send(&producer, &topic("events"), b"k", b"for the quarantine", None);
    let call = event("1", json!({"timestamp": python_now(), "tokens_input": 0, "tokens_output": 1600}));
    send(&producer, &topic("events"), b"k", call.to_string().as_bytes(), None);
    flush(&producer);
    assert_eq!(read(&topic("throttle"), 1).len(), 1);
    wait_for("the trouble", || {
        engine.get("/readyz").1["troubles"].to_string().contains(&topic("quarantine")).then_some(())
    });
    engine.stop();
    site.audit();
}

/// How many events the killing test sends; more by the environment, as the documentation says.
fn many() -> u64 {
    std::env::var("COSTHELM_TEST_EVENTS").map_or(60_000, |text| text.parse().unwrap())
}

fn write_stream(path: &Path, events: u64) -> Swarm {
    let swarm = Swarm::new(SwarmConfig {
        seed: 20_261_122,
        events,
        start: "2026-11-01T00:00:00Z".parse().unwrap(),
        span_s: 20 * 86_400,
        duplicates_per_million: 20_000,
        late_per_million: 10_000,
        malformed_per_million: 2_000,
        unpriced_per_million: 1_000,
        agents: 13,
    })
    .unwrap();
    let mut file = BufWriter::new(File::create(path).unwrap());
    let (mut line, mut key) = (Vec::new(), Vec::new());
    for slot in 0..events {
        swarm.write(slot, &mut line, &mut key);
        file.write_all(&line).unwrap();
        file.write_all(b"\n").unwrap();
    }
    file.flush().unwrap();
    swarm
}

#[test]
fn killed_five_times_on_the_way_the_totals_equal_an_independent_recomputation_to_the_last_digit() {
    let events = many();
    let budget = "[[budget]]\nid = \"month\"\namount_usd = \"100\"\n[windows]\nrollup_interval = \"200ms\"\n\
                  [commit]\ninterval = \"50ms\"\nrows = 5000\n";
    let name = fresh("killed");
    let topic = |kind: &str| format!("{name}.{kind}");
    let site = site(&name, 6, budget);
    let stream = site.dir.path().join("events.ndjson");
    let swarm = write_stream(&stream, events);

    let events_topic = topic("events");
    let sending = std::thread::spawn(move || {
        let producer = producer(&brokers());
        let (mut line, mut key) = (Vec::new(), Vec::new());
        for slot in 0..events {
            swarm.write(slot, &mut line, &mut key);
            send(&producer, &events_topic, &key, &line, None);
        }
        flush(&producer);
    });
    let mut committed = 0;
    for kill in 1..=5 {
        let engine = site.up();
        let goal = events * kill / 6;
        wait_for("progress", || {
            if site.data().join("store.db").exists() {
                committed = site.query("SELECT count(*) AS n FROM ledger")[0]["n"].as_u64().unwrap();
            }
            (committed >= goal * 9 / 10).then_some(())
        });
        engine.kill();
    }
    sending.join().unwrap();
    let engine: Running = site.up();
    wait_for("the rest", || {
        let report: Value = serde_json::from_slice(&site.output(&["audit", "--json"]).stdout).ok()?;
        let ends = ["ledger_rows", "duplicates", "quarantined"].iter().map(|end| report[end].as_u64().unwrap());
        // EO-3: every event has come to one of three ends.
        (ends.sum::<u64>() == events).then_some(())
    });
    engine.stop();

    let report = site.audit();
    let totals = |by: &str| -> Value {
        let sql = format!("SELECT {by} AS name, sum(cost_usd) AS cost FROM ledger WHERE status = 'priced' GROUP BY 1");
        site.query(&sql)
            .iter()
            .map(|row| (row["name"].as_str().unwrap().to_owned(), row["cost"].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let engine_totals = json!({
        "rows": report["ledger_rows"], "duplicates": report["duplicates"], "malformed": report["quarantined"],
        "unpriced": report["unpriced_rows"], "total": report["total_cost_usd"],
        "by_agent": totals("agent_role"), "by_project": totals("project_id"),
    });
    let path = site.dir.path().join("engine.json");
    std::fs::write(&path, engine_totals.to_string()).unwrap();
    let python = prepared("COSTHELM_TEST_PYTHON");
    let script = repository().join("tests/recompute.py");
    let output = Command::new(&python).arg(script).arg(&stream).arg("--compare").arg(&path).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{engine_totals:#}");

    let files: Vec<_> =
        std::fs::read_dir(site.data().join("ledger/staged")).unwrap().map(|file| file.unwrap().path()).collect();
    let output = Command::new(&python).arg(repository().join("tests/read_parquet.py")).args(files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&read["rows"], &read["total_cost_usd"]), (&report["ledger_rows"], &report["total_cost_usd"]));
    println!("{events} events, 5 kills: {engine_totals:#}");
}
