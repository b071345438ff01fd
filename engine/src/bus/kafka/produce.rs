//! Appending: one idempotent producer, answered once all in-sync replicas have the record.
//!
//! Limits: see the queue of [`super`]; an answer comes within `message.timeout.ms` (30 s unless set).

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord},
};

use super::{KafkaOptions, config, trouble::describe};
use crate::bus::{BusError, NewRecord};

pub(super) struct Appender {
    options: KafkaOptions,
    producer: ArcSwap<FutureProducer<Quiet>>,
    /// What the last append failed with, until one succeeds.
    trouble: Mutex<Option<String>>,
}

/// librdkafka's own lines are for the one who debugs it; results say what a user needs.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!("librdkafka producer: {facility} {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("librdkafka producer: {error}: {reason}");
    }
}

fn create(options: &KafkaOptions) -> Result<FutureProducer<Quiet>, BusError> {
    config::producer(options)?
        .create_with_context(Quiet)
        .map_err(|e| BusError::Refused(format!("kafka: cannot create a producer: {e}")))
}

impl Appender {
    pub fn new(options: &KafkaOptions) -> Result<Self, BusError> {
        Ok(Self {
            options: options.clone(),
            producer: ArcSwap::from_pointee(create(options)?),
            trouble: Mutex::default(),
        })
    }

    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<(), BusError>> {
        let producer = self.producer.load_full();
        let mut deliveries: Vec<Result<DeliveryFuture, KafkaError>> = Vec::with_capacity(records.len());
        let mut full = false;
        for record in &records {
            // Once one is turned away, so are those behind it: what is tried again keeps its order.
            let sent = if full { Err(KafkaError::MessageProduction(Code::QueueFull)) } else { send(&producer, record) };
            full |= matches!(sent, Err(KafkaError::MessageProduction(Code::QueueFull)));
            deliveries.push(sent);
        }
        let mut results = Vec::with_capacity(records.len());
        let mut fatal = false;
        for (delivery, record) in deliveries.into_iter().zip(&records) {
            let outcome = match delivery {
                Ok(delivery) => match delivery.await {
                    Ok(delivered) => delivered.map(drop).map_err(|(error, _)| error),
                    Err(_) => Err(KafkaError::Canceled),
                },
                Err(error) => Err(error),
            };
            fatal |= outcome.as_ref().err().and_then(KafkaError::rdkafka_error_code) == Some(Code::Fatal);
            results.push(outcome.map_err(|error| classify(&error, &record.topic, &self.options.brokers)));
        }
        if fatal {
            self.replace(&producer);
        }
        self.tell(&results);
        results
    }

    /// A fatal error ends an idempotent producer; whoever sees it first makes the next one.
    fn replace(&self, broken: &Arc<FutureProducer<Quiet>>) {
        match create(&self.options) {
            Ok(fresh) => {
                tracing::warn!("kafka: the producer met a fatal error; going on with a new one");
                self.producer.compare_and_swap(broken, Arc::new(fresh));
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }

    fn tell(&self, results: &[Result<(), BusError>]) {
        let failed = results.iter().find_map(|result| match result {
            Err(BusError::Retry(words)) => Some(words.clone()),
            // A refused record is its sender's matter.
            _ => None,
        });
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*trouble, &failed) {
            (None, Some(words)) => tracing::warn!("{words}; the sender may try again"),
            (Some(_), None) if results.iter().any(Result::is_ok) => tracing::info!("kafka: appending again"),
            _ => {}
        }
        if failed.is_some() || results.iter().any(Result::is_ok) {
            *trouble = failed;
        }
    }
}

fn send(producer: &FutureProducer<Quiet>, record: &NewRecord) -> Result<DeliveryFuture, KafkaError> {
    let mut out = FutureRecord::<[u8], [u8]>::to(&record.topic);
    out.key = record.key.as_deref();
    out.payload = record.value.as_deref();
    if !record.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        out.headers = Some(
            record
                .headers
                .iter()
                .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value.as_slice()) })),
        );
    }
    producer.send_result(out).map_err(|(error, _)| error)
}

fn classify(error: &KafkaError, topic: &str, brokers: &str) -> BusError {
    let retry = |what: String| BusError::Retry(format!("kafka: {what}"));
    let refused = |what: &str| BusError::Refused(format!("kafka: a record for {topic} is refused: {what}"));
    match error.rdkafka_error_code() {
        Some(Code::QueueFull) => retry("the queue of unsent records is full".to_owned()),
        Some(Code::MessageTimedOut) => {
            retry(format!("{brokers} did not take a record for {topic} within message.timeout.ms"))
        }
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => {
            retry(format!("topic {topic} does not exist on {brokers}"))
        }
        Some(code @ (Code::MessageSizeTooLarge | Code::MessageBatchTooLarge)) => {
            refused(&format!("it is too large, see message.max.bytes ({})", describe(code)))
        }
        Some(
            code @ (Code::InvalidTopic
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidMessage
            | Code::InvalidTimestamp
            | Code::InvalidRecord
            | Code::PolicyViolation
            | Code::InvalidArgument),
        ) => refused(&describe(code)),
        Some(code) => retry(format!("a record for {topic} was not taken: {}", describe(code))),
        None => retry(format!("a record for {topic} was not taken: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code) -> BusError {
        classify(&KafkaError::MessageProduction(code), "alerts", "b:1")
    }

    #[test]
    fn what_may_pass_is_retried_and_what_cannot_is_refused() {
        for code in [
            Code::QueueFull,
            Code::MessageTimedOut,
            Code::UnknownTopic,
            Code::NotEnoughReplicas,
            Code::Fatal,
            Code::PurgeQueue,
        ] {
            assert!(matches!(of(code), BusError::Retry(_)), "{code}");
        }
        for code in [Code::MessageSizeTooLarge, Code::TopicAuthorizationFailed, Code::InvalidTopic] {
            assert!(matches!(of(code), BusError::Refused(_)), "{code}");
        }
        assert_eq!(of(Code::UnknownTopic).to_string(), "kafka: topic alerts does not exist on b:1");
    }
}
