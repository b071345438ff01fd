use std::collections::{HashMap, HashSet};

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::bus::{Batch, BusEvent, StartAt};

const SOON: Duration = Duration::from_secs(20);

/// A store with fixed positions.
#[derive(Default)]
struct Stored(HashMap<TopicPartition, i64>);

impl Positions for Stored {
    fn next_offsets<'a>(&'a self, of: &'a [TopicPartition]) -> BoxFuture<'a, Result<Vec<Option<i64>>, BusError>> {
        Box::pin(async move { Ok(of.iter().map(|at| self.0.get(at).copied()).collect()) })
    }
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition { topic: "costs".into(), partition }
}

fn stored(positions: &[(i32, i64)]) -> Arc<dyn Positions> {
    Arc::new(Stored(positions.iter().map(|(partition, next)| (at(*partition), *next)).collect()))
}

fn options(partitions: u32) -> EmbeddedOptions {
    EmbeddedOptions { partitions_default: partitions, ..EmbeddedOptions::default() }
}

async fn open(folder: &TempDir, options: EmbeddedOptions) -> EmbeddedBus {
    EmbeddedBus::open(folder.path().join("data/bus.sqlite"), options).await.expect("the log opens")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

fn subscription() -> SubscribeOptions {
    SubscribeOptions {
        topics: vec!["costs".to_owned()],
        start_at: StartAt::Earliest,
        batch_records_max: 100,
        batch_bytes_max: 1024 * 1024,
        batch_wait: Duration::from_millis(10),
        queue_batches_max: 4,
        revoke_wait: Duration::from_secs(1),
    }
}

fn record(key: Option<&str>, value: impl ToString) -> NewRecord {
    NewRecord {
        topic: "costs".to_owned(),
        key: key.map(|key| key.as_bytes().to_vec()),
        value: Some(value.to_string().into_bytes()),
        headers: Vec::new(),
    }
}

async fn append_all(bus: &EmbeddedBus, values: std::ops::Range<usize>) {
    for result in bus.append(values.map(|value| record(None, value)).collect()).await {
        result.expect("the record is appended");
    }
}

async fn next_event(subscription: &mut Subscription) -> BusEvent {
    timeout(SOON, subscription.events.recv()).await.expect("an event comes soon").expect("the subscription lives")
}

async fn next_batch(subscription: &mut Subscription) -> Batch {
    loop {
        if let BusEvent::Batch(batch) = next_event(subscription).await {
            return batch;
        }
    }
}

async fn assignment(subscription: &mut Subscription) -> Vec<(TopicPartition, i64)> {
    match next_event(subscription).await {
        BusEvent::Assigned(assigned) => assigned,
        other => panic!("expected an assignment first, got {other:?}"),
    }
}

/// Reads until `count` records have come; checks on the way that ranges chain (EO-1).
async fn read(subscription: &mut Subscription, count: usize) -> HashMap<i32, Vec<String>> {
    let mut next: HashMap<TopicPartition, i64> = HashMap::new();
    let mut values: HashMap<i32, Vec<String>> = HashMap::new();
    let mut seen = 0;
    while seen < count {
        match next_event(subscription).await {
            BusEvent::Assigned(assigned) => next.extend(assigned),
            BusEvent::Batch(batch) => {
                let expected = next.get_mut(&batch.at).expect("assigned before its first batch");
                assert_eq!(batch.from, *expected, "{}", batch.at);
                let offsets: Vec<i64> = batch.records.iter().map(|record| record.offset).collect();
                assert_eq!(offsets, (batch.from..batch.to).collect::<Vec<_>>(), "dense offsets");
                *expected = batch.to;
                seen += batch.records.len();
                let of_partition = values.entry(batch.at.partition).or_default();
                for record in &batch.records {
                    let value = batch.bytes(&record.value);
                    of_partition.push(String::from_utf8(value.to_vec()).expect("text"));
                }
            }
            BusEvent::Revoked { .. } => panic!("the embedded log revokes nothing"),
        }
    }
    assert_eq!(seen, count);
    values
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    timeout(SOON, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_in_order_with_dense_offsets_in_batches_within_the_limits() {
    let folder = folder();
    let bus = open(&folder, options(3)).await;
    append_all(&bus, 0..1_000).await;
    append_all(&bus, 1_000..5_000).await;
    let mut subscription = bus.subscribe(subscription(), stored(&[])).expect("a subscription");
    let values = read(&mut subscription, 5_000).await;
    for partition in 0..3 {
        let expected: Vec<String> = (0..5_000).filter(|v| v % 3 == partition).map(|v: usize| v.to_string()).collect();
        assert_eq!(values[&(partition as i32)], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_keep_to_their_limits() {
    let folder = folder();
    let bus = open(&folder, options(1)).await;
    append_all(&bus, 0..5_000).await;
    let limits = SubscribeOptions { batch_records_max: 1_500, batch_bytes_max: 20_000, ..subscription() };
    let mut subscription = bus.subscribe(limits, stored(&[])).expect("a subscription");
    let mut seen = 0;
    while seen < 5_000 {
        let batch = next_batch(&mut subscription).await;
        assert!(batch.records.len() <= 1_500 && batch.arena.len() <= 20_000 + 100, "{}", batch.arena.len());
        seen += batch.records.len();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_headers_and_tombstones_arrive_as_sent_and_a_key_keeps_its_partition() {
    let folder = folder();
    let bus = open(&folder, options(5)).await;
    let mut records: Vec<NewRecord> = (0..20).map(|i| record(Some("agent-7"), i)).collect();
    records[0].headers = vec![("ce_id".to_owned(), b"1".to_vec()), ("empty".to_owned(), Vec::new())];
    records[1].value = None;
    assert!(bus.append(records).await.iter().all(Result::is_ok));
    let mut subscription = bus.subscribe(subscription(), stored(&[])).expect("a subscription");
    assert_eq!(assignment(&mut subscription).await.len(), 5);
    let batch = next_batch(&mut subscription).await;
    assert_eq!(batch.records.len(), 20, "all in one partition");
    let [first, second] = &batch.records[..2] else { panic!("two records") };
    assert_eq!(first.key.as_ref().map(|key| batch.bytes(key)), Some(&b"agent-7"[..]));
    let headers: Vec<_> = first.headers.iter().map(|(n, v)| (batch.bytes(n), batch.bytes(v))).collect();
    assert_eq!(headers, [(&b"ce_id"[..], &b"1"[..]), (&b"empty"[..], &b""[..])]);
    assert_eq!(batch.bytes(&second.value), b"");
    assert!(first.timestamp_ms > 1_600_000_000_000, "milliseconds: {}", first.timestamp_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_a_reopen_and_offsets_go_on() {
    let folder = folder();
    {
        let bus = open(&folder, options(2)).await;
        append_all(&bus, 0..10).await;
    }
    // A topic keeps the partitions it was created with.
    let bus = open(&folder, options(9)).await;
    append_all(&bus, 10..20).await;
    let mut subscription = bus.subscribe(subscription(), stored(&[(0, 3)])).expect("a subscription");
    let mut assigned = assignment(&mut subscription).await;
    assigned.sort();
    assert_eq!(assigned, [(at(0), 3), (at(1), 0)]);
    let batches = [next_batch(&mut subscription).await, next_batch(&mut subscription).await];
    let total: usize = batches.iter().map(|batch| batch.records.len()).sum();
    assert_eq!(total, 17);
    until("end offsets are shown", || bus.health().end_offsets == [(at(0), 10), (at(1), 10)]).await;
    assert_eq!(bus.health().trouble, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unseen_partition_begins_at_its_end_when_asked_to() {
    let folder = folder();
    let bus = open(&folder, options(1)).await;
    append_all(&bus, 0..10).await;
    let latest = SubscribeOptions { start_at: StartAt::Latest, ..subscription() };
    let mut subscription = bus.subscribe(latest, stored(&[])).expect("a subscription");
    assert_eq!(assignment(&mut subscription).await, [(at(0), 10)]);
    append_all(&bus, 10..11).await;
    let batch = next_batch(&mut subscription).await;
    assert_eq!((batch.from, batch.to, batch.arena.ends_with(b"10")), (10, 11, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_appenders_at_once_all_get_answers_and_lose_nothing() {
    let folder = folder();
    let bus = Arc::new(open(&folder, options(3)).await);
    // A second bus on the same file, as another process would have it.
    let other = Arc::new(open(&folder, options(3)).await);
    let mut subscription = bus.subscribe(subscription(), stored(&[])).expect("a subscription");
    let appenders: Vec<_> = (0..16)
        .map(|appender| {
            let bus = Arc::clone(if appender % 2 == 0 { &bus } else { &other });
            tokio::spawn(async move {
                for i in 0..20 {
                    let records = (0..5).map(|j| record(None, format!("{appender}-{i}-{j}"))).collect();
                    assert!(bus.append(records).await.iter().all(Result::is_ok));
                }
            })
        })
        .collect();
    let values = read(&mut subscription, 16 * 20 * 5).await;
    for appender in appenders {
        appender.await.expect("an appender");
    }
    let distinct: HashSet<&String> = values.values().flatten().collect();
    assert_eq!(distinct.len(), 1_600);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_appends_share_a_commit() {
    let folder = folder();
    let bus = open(&folder, options(1)).await;
    // Lets them wait: the file is locked meanwhile.
    let mut blocker = bus.shared.connect().await.expect("a connection");
    let transaction = blocker.begin_with("BEGIN IMMEDIATE").await.expect("the lock");
    let appends = (0..50).map(|i| bus.append(vec![record(None, i)]));
    let all = futures::future::join_all(appends);
    let release = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        transaction.rollback().await.expect("the lock is given back");
    };
    let (results, ()) = tokio::join!(all, release);
    assert!(results.iter().flatten().all(Result::is_ok));
    let chunks: i64 = sqlx::query_scalar("SELECT count(*) FROM chunks").fetch_one(&mut blocker).await.expect("a count");
    assert!(chunks <= 2, "50 appends in {chunks} commits: the first alone at most, then all that waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_retry_and_recovers() {
    let folder = folder();
    let small = EmbeddedOptions { queue_bytes_max: 10_000, ..options(1) };
    let bus = open(&folder, small).await;
    let mut blocker = bus.shared.connect().await.expect("a connection");
    let transaction = blocker.begin_with("BEGIN IMMEDIATE").await.expect("the lock");
    let one = || bus.append(vec![record(None, "x".repeat(4_000))]);
    let release = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        transaction.rollback().await.expect("the lock is given back");
    };
    let (first, second, third, ()) = tokio::join!(one(), one(), one(), release);
    assert!(first[0].is_ok() && second[0].is_ok());
    assert!(matches!(&third[0], Err(BusError::Retry(words)) if words.contains("full")), "{third:?}");
    assert!(one().await[0].is_ok(), "room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_answers_retry_and_is_a_trouble_until_it_is_free() {
    let folder = folder();
    let bus = open(&folder, options(1)).await;
    let mut blocker = bus.shared.connect().await.expect("a connection");
    let transaction = blocker.begin_with("BEGIN IMMEDIATE").await.expect("the lock");
    let results = bus.append(vec![record(None, 1)]).await;
    assert!(matches!(&results[0], Err(BusError::Retry(words)) if words.contains("locked")), "{results:?}");
    assert!(bus.health().trouble.expect("a trouble").contains("bus.sqlite"));
    transaction.rollback().await.expect("the lock is given back");
    append_all(&bus, 0..1).await;
    assert_eq!(bus.health().trouble, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_is_refused_alone() {
    let folder = folder();
    let bus = open(&folder, EmbeddedOptions { record_bytes_max: 100, ..options(1) }).await;
    let bad_topic = NewRecord { topic: "no spaces".to_owned(), ..record(None, 2) };
    let results = bus.append(vec![record(None, 0), record(None, "x".repeat(200)), bad_topic, record(None, 1)]).await;
    assert!(results[0].is_ok() && results[3].is_ok());
    assert!(matches!(&results[1], Err(BusError::Refused(words)) if words.contains("at most 100 bytes")), "{results:?}");
    assert!(matches!(&results[2], Err(BusError::Refused(words)) if words.contains("no spaces")), "{results:?}");
    let mut subscription = bus.subscribe(subscription(), stored(&[])).expect("a subscription");
    assert_eq!(read(&mut subscription, 2).await[&0], ["0", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_stops_the_reading_and_misses_nothing() {
    let folder = folder();
    let bus = open(&folder, options(1)).await;
    append_all(&bus, 0..3_000).await;
    let narrow = SubscribeOptions { queue_batches_max: 1, ..subscription() };
    let mut subscription = bus.subscribe(narrow, stored(&[])).expect("a subscription");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(subscription.events.len(), 1, "one event waits, the reader too");
    let values = read(&mut subscription, 3_000).await;
    assert_eq!(values[&0].last().map(String::as_str), Some("2999"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_may_not_read_until_the_first_ends() {
    let folder = folder();
    let bus = open(&folder, options(1)).await;
    // Another open file is to the operating system what another process would be.
    let other = open(&folder, options(1)).await;
    let first = bus.subscribe(subscription(), stored(&[])).expect("a subscription");
    let error = other.subscribe(subscription(), stored(&[])).err().expect("a second reader").to_string();
    assert!(error.contains(&std::process::id().to_string()) && error.contains("bus.sqlite.reader"), "{error}");
    bus.subscribe(subscription(), stored(&[])).expect("the same process may");
    drop(first);
    until("the lock is given back", || other.subscribe(subscription(), stored(&[])).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trimming_deletes_what_is_old_and_committed_and_nothing_else() {
    let folder = folder();
    let bus = open(&folder, options(1)).await;
    append_all(&bus, 0..10).await;
    append_all(&bus, 10..20).await;
    append_all(&bus, 20..30).await;
    let day = Duration::from_secs(86_400);
    assert_eq!(bus.trim(&[(at(0), 30)], day).await.expect("trimmed"), 0, "all are young");
    tokio::time::sleep(Duration::from_millis(5)).await;
    // Offset 25 is committed: the chunk 20..30 is still needed.
    assert_eq!(bus.trim(&[(at(0), 25)], Duration::ZERO).await.expect("trimmed"), 20);
    assert_eq!(bus.trim(&[(at(7), i64::MAX)], Duration::ZERO).await.expect("trimmed"), 0, "no such partition");
    let mut subscription = bus.subscribe(subscription(), stored(&[])).expect("a subscription");
    assert_eq!(assignment(&mut subscription).await, [(at(0), 20)]);
    assert_eq!(next_batch(&mut subscription).await.records.len(), 10);
    append_all(&bus, 30..31).await;
    assert_eq!(next_batch(&mut subscription).await.to, 31, "offsets go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_outside_of_the_log_stands_still_and_says_so() {
    let folder = folder();
    let bus = open(&folder, options(2)).await;
    append_all(&bus, 0..40).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    bus.trim(&[(at(0), 20)], Duration::ZERO).await.expect("trimmed");
    for (position, words) in [(5, "records before 20 have been deleted"), (99, "the log ends at 20")] {
        let mut subscription = bus.subscribe(subscription(), stored(&[(0, position)])).expect("a subscription");
        assert_eq!(assignment(&mut subscription).await, [(at(1), 0)], "the other partition is read");
        until("it is a trouble", || bus.health().trouble.is_some_and(|t| t.contains("costs/0") && t.contains(words)))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_another_version_is_refused() {
    let folder = folder();
    let bus = open(&folder, options(1)).await;
    let mut connection = bus.shared.connect().await.expect("a connection");
    sqlx::raw_sql("PRAGMA user_version = 7").execute(&mut connection).await.expect("another version");
    let path = bus.shared.path.clone();
    let error = EmbeddedBus::open(path, options(1)).await.err().expect("refused").to_string();
    assert!(error.contains("version 7, expected 1"), "{error}");
}
