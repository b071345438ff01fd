//! Records into a Kafka topic, fast, and an answer to each of them.
//!
//! Limits: at most 200,000 records or 256 MiB wait in the producer; a record that the broker has not taken after 120 s fails
//! the run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum TopicError {
    #[error("cannot use Kafka at {brokers}: {source}")]
    Kafka { brokers: String, source: KafkaError },
    #[error("topic `{topic}` cannot be used at {brokers}: {reason}")]
    Topic { topic: String, brokers: String, reason: String },
    #[error("{failed} of {sent} records were not delivered to `{topic}`; the first: {reason}")]
    Undelivered { failed: u64, sent: u64, topic: String, reason: String },
}

/// What the broker said to each record.
#[derive(Clone, Default)]
struct Deliveries {
    failed: Arc<AtomicU64>,
    first_reason: Arc<Mutex<Option<String>>>,
}

impl Deliveries {
    fn first_reason(&self) -> String {
        let reason = self.first_reason.lock().unwrap_or_else(PoisonError::into_inner);
        reason.clone().unwrap_or_else(|| "no reason was given".to_owned())
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, record)) = result
            && self.failed.fetch_add(1, Ordering::Relaxed) == 0
        {
            let reason = format!("{error} (partition {})", record.partition());
            *self.first_reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        }
    }
}

const METADATA_TIMEOUT: Duration = Duration::from_secs(15);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(150);

/// A topic that exists, and a producer for it.
pub struct TopicSink {
    brokers: String,
    topic: String,
    producer: BaseProducer<Deliveries>,
    deliveries: Deliveries,
    sent: u64,
}

impl TopicSink {
    pub fn open(brokers: &str, topic: &str) -> Result<TopicSink, TopicError> {
        let failed = |source| TopicError::Kafka { brokers: brokers.to_owned(), source };
        let deliveries = Deliveries::default();
        let producer: BaseProducer<Deliveries> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("client.id", "costhelm-benches")
            // The only repetitions are those the seed asks for.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("linger.ms", "20")
            .set("batch.size", "1000000")
            .set("batch.num.messages", "10000")
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "262144")
            .set("delivery.timeout.ms", "120000")
            .create_with_context(deliveries.clone())
            .map_err(failed)?;
        // Asked first, so that a missing topic is one clear line and not a time-out of every record.
        let metadata = producer.client().fetch_metadata(Some(topic), METADATA_TIMEOUT).map_err(failed)?;
        let reason = match metadata.topics().first() {
            Some(found) if found.error().is_some() => {
                found.error().map_or_else(String::new, |error| RDKafkaErrorCode::from(error).to_string())
            }
            Some(found) if !found.partitions().is_empty() => String::new(),
            _ => "it has no partitions".to_owned(),
        };
        if !reason.is_empty() {
            return Err(TopicError::Topic { topic: topic.to_owned(), brokers: brokers.to_owned(), reason });
        }
        Ok(TopicSink { brokers: brokers.to_owned(), topic: topic.to_owned(), producer, deliveries, sent: 0 })
    }

    /// Hands one record over; waits while the producer is full.
    pub fn send(&mut self, line: &[u8], key: &[u8]) -> Result<(), TopicError> {
        let mut record = BaseRecord::to(&self.topic).payload(line).key(key);
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(20));
                    self.check()?;
                }
                Err((source, _)) => {
                    return Err(TopicError::Kafka { brokers: self.brokers.clone(), source });
                }
            }
        }
        self.sent += 1;
        if self.sent.is_multiple_of(4_096) {
            self.producer.poll(Duration::ZERO);
            self.check()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TopicError> {
        match self.deliveries.failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => Err(TopicError::Undelivered {
                failed,
                sent: self.sent,
                topic: self.topic.clone(),
                reason: self.deliveries.first_reason(),
            }),
        }
    }

    /// Waits until the broker has everything.
    pub fn finish(self) -> Result<(), TopicError> {
        let flushed = self.producer.flush(FLUSH_TIMEOUT);
        self.check()?;
        flushed.map_err(|source| TopicError::Kafka { brokers: self.brokers, source })
    }
}
