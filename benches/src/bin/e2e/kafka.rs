//! The Kafka side: topics of this run, reading one as fast as librdkafka can, trigger events, and the throttle topic's reader.
//!
//! Limits: 15 s for an answer of the broker; a consume-only run may pause for at most 30 s.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::ceilings::Rate;
use crate::engine::{OUT_TOPICS, PARTITIONS};
use crate::failure::{During, Failure, Result, failure};
use crate::latency::Arrival;
use crate::machine;

const ANSWER_MAX: Duration = Duration::from_secs(15);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The topics of one engine, deleted when dropped.
pub struct Topics {
    admin: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
    names: Vec<String>,
}

impl Topics {
    pub fn create(brokers: &str, prefix: &str) -> Result<Topics> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().during("a runtime")?;
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", brokers).create().during("a Kafka admin client")?;
        let mut wanted = vec![(format!("{prefix}.events"), i32::from(PARTITIONS))];
        wanted.extend(OUT_TOPICS.map(|name| (format!("{prefix}.{name}"), 1)));
        let new: Vec<_> = wanted
            .iter()
            .map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(1)))
            .collect();
        let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX)).operation_timeout(Some(ANSWER_MAX));
        let created = runtime
            .block_on(admin.create_topics(&new, &options))
            .during(format!("cannot create topics at {brokers}"))?;
        for result in created {
            result.map_err(|(name, code)| Failure(format!("topic {name} was not created: {code}")))?;
        }
        Ok(Topics { admin, runtime, names: wanted.into_iter().map(|(name, _)| name).collect() })
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX));
        // A broker that is gone has taken them along.
        let _ = self.runtime.block_on(self.admin.delete_topics(&names, &options));
    }
}

fn reader(brokers: &str, topic: &str, partitions: i32) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // Required by librdkafka; partitions are assigned by hand and nothing is stored.
        .set("group.id", "costhelm-e2e")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("fetch.wait.max.ms", "10")
        .set("fetch.message.max.bytes", "4194304")
        .set("queued.min.messages", "200000")
        .set("queued.max.messages.kbytes", "65536")
        .set("fetch.queue.backoff.ms", "10")
        .set("check.crcs", "false")
        .create()
        .during("a Kafka consumer")?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).during(topic)?;
    }
    consumer.assign(&list).during(topic)?;
    Ok(consumer)
}

/// Reads the events topic from its beginning and does nothing with it; from the first record to the last.
pub fn consume_only(brokers: &str, prefix: &str, events: u64) -> Result<Rate> {
    let topic = format!("{prefix}.events");
    let consumer = reader(brokers, &topic, i32::from(PARTITIONS))?;
    let mut seen = 0;
    let mut first = None;
    let mut last = Instant::now();
    let mut bytes = 0;
    while seen < events {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                if seen == 0 {
                    first = Some((Instant::now(), machine::process_cpu_s(std::process::id())?));
                }
                bytes += record.payload_len();
                seen += 1;
                if seen % 1_024 == 0 {
                    last = Instant::now();
                }
            }
            Some(Err(error)) => return failure(format!("{topic}: {error}")),
            None if last.elapsed() > PAUSE_MAX => {
                return failure(format!("{topic}: {seen} of {events} records came, then none for {PAUSE_MAX:?}"));
            }
            None => {}
        }
    }
    std::hint::black_box(bytes);
    let Some((began, cpu_s)) = first else {
        return failure(format!("{topic} is empty"));
    };
    let wall_s = began.elapsed().as_secs_f64();
    Ok(Rate { events, wall_s, cpu_s: machine::process_cpu_s(std::process::id())? - cpu_s })
}

/// Sends one record at a time, at once.
pub struct Trigger {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
}

impl Trigger {
    pub fn new(brokers: &str, prefix: &str) -> Result<Trigger> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("acks", "all")
            .set("linger.ms", "0")
            .create()
            .during("a Kafka producer")?;
        Ok(Trigger { producer, topic: format!("{prefix}.events") })
    }

    pub fn send(&self, key: &str, event: &str) -> Result<()> {
        let record = BaseRecord::to(&self.topic).key(key).payload(event);
        self.producer.send(record).map_err(|(error, _)| Failure(format!("{}: {error}", self.topic)))
    }
}

/// Reads the throttle topic until `stop`, and notes when each command was there.
pub fn listen(brokers: &str, prefix: &str, arrivals: &SyncSender<Arrival>, stop: &Arc<AtomicBool>) -> Result<()> {
    let topic = format!("{prefix}.throttle");
    let consumer = reader(brokers, &topic, 1)?;
    while !stop.load(Ordering::Relaxed) {
        let record = match consumer.poll(Duration::from_millis(100)) {
            None => continue,
            Some(record) => record.during(&topic)?,
        };
        let at = Instant::now();
        let Some(payload) = record.payload() else { continue };
        let command: serde_json::Value = serde_json::from_slice(payload).during(&topic)?;
        let data = &command["data"];
        let project = data["scope"]["project_id"].as_str().unwrap_or_default().to_owned();
        let issued_us = data["issued_at"]
            .as_str()
            .and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok())
            .map(|time| time.timestamp_micros());
        // The other end has stopped listening only when it has all it wants.
        if arrivals.send(Arrival { project, at, issued_us }).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
