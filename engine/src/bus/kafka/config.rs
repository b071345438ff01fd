//! The librdkafka properties of consumer and producer: ours, then the user's on top, except those that exactly-once rests on.

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use super::KafkaOptions;
use crate::bus::BusError;

/// Properties that nobody may set through `properties`, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("enable.auto.commit", "the store owns the offsets, not the group"),
    ("auto.commit.enable", "the store owns the offsets, not the group"),
    ("auto.commit.interval.ms", "the store owns the offsets, not the group"),
    ("enable.auto.offset.store", "the store owns the offsets, not the group"),
    ("offset.store.method", "the store owns the offsets, not the group"),
    ("auto.offset.reset", "a lost position must be a trouble that is seen, not a silent jump; see `start_at`"),
    ("isolation.level", "records of aborted transactions must not be counted"),
    ("enable.idempotence", "without it a retry of the producer may repeat or reorder records"),
    ("acks", "an append is answered once all in-sync replicas have it"),
    ("request.required.acks", "an append is answered once all in-sync replicas have it"),
    ("transactional.id", "the outbox publishes at least once, with ids that tell a repeat"),
    ("enable.partition.eof", "the ends of partitions are not errors here"),
    ("group.id", "set `group_id` instead"),
    ("client.id", "set `client_id` instead"),
    ("bootstrap.servers", "set `brokers` instead"),
    ("metadata.broker.list", "set `brokers` instead"),
];

/// Checks what can be checked without a broker: forbidden, unknown and malformed properties.
pub(super) fn check(options: &KafkaOptions) -> Result<(), BusError> {
    for (name, value) in
        [("brokers", &options.brokers), ("group_id", &options.group_id), ("client_id", &options.client_id)]
    {
        if value.trim().is_empty() {
            return Err(BusError::Refused(format!("kafka: {name} is empty")));
        }
    }
    for (key, why) in FORBIDDEN {
        if options.properties.contains_key(*key) {
            return Err(BusError::Refused(format!("kafka: property {key:?} may not be set: {why}")));
        }
    }
    for (key, value) in &options.properties {
        let mut alone = ClientConfig::new();
        alone.set(key, value);
        alone.create_native_config().map_err(|e| BusError::Refused(property_error(key, &e)))?;
    }
    Ok(())
}

/// Names the key and what librdkafka says; the value may be a password.
fn property_error(key: &str, error: &rdkafka::error::KafkaError) -> String {
    match error {
        rdkafka::error::KafkaError::ClientConfig(_, description, ..) => {
            format!("kafka: property {key:?}: {description}")
        }
        _ => format!("kafka: property {key:?} is refused by librdkafka"),
    }
}

fn common(options: &KafkaOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.brokers)
        .set("client.id", &options.client_id)
        // What matters reaches the user through `trouble`; a broker that closes an idle connection does not.
        .set("log.connection.close", "false")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "5000")
        .set_log_level(RDKafkaLogLevel::Warning);
    config
}

fn with_properties(mut config: ClientConfig, options: &KafkaOptions) -> ClientConfig {
    for (key, value) in &options.properties {
        config.set(key, value);
    }
    config
}

pub(super) fn consumer(options: &KafkaOptions) -> Result<ClientConfig, BusError> {
    let mut config = common(options);
    config
        .set("group.id", &options.group_id)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        // A record is on its way within milliseconds; a backlog comes in large pieces.
        .set("fetch.wait.max.ms", "10")
        .set("fetch.min.bytes", "1")
        .set("fetch.error.backoff.ms", "100")
        .set("fetch.message.max.bytes", "4194304")
        .set("fetch.max.bytes", "33554432")
        .set("queued.min.messages", "200000")
        .set("queued.max.messages.kbytes", "65536")
        // librdkafka checks this every so often while its queue is full; the default second would show as a stutter.
        .set("fetch.queue.backoff.ms", "10")
        // New topics and partitions are seen after this; the default is five minutes.
        .set("topic.metadata.refresh.interval.ms", "10000")
        // Kafka's brokers check it themselves, and it costs a pass over every byte.
        .set("check.crcs", "false");
    // The group protocol of KIP-848 leaves the assignment to the broker and refuses this property.
    if options.properties.get("group.protocol").is_none_or(|protocol| protocol != "consumer") {
        config.set("partition.assignment.strategy", "cooperative-sticky");
    }
    let config = with_properties(config, options);
    creatable(&config)?;
    Ok(config)
}

pub(super) fn producer(options: &KafkaOptions) -> Result<ClientConfig, BusError> {
    let mut config = common(options);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "2")
        // The same partition for a key as Kafka's clients for the JVM, and as the embedded log.
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "100000")
        .set("queue.buffering.max.kbytes", "32768")
        .set("message.timeout.ms", "30000");
    let config = with_properties(config, options);
    creatable(&config)?;
    Ok(config)
}

fn creatable(config: &ClientConfig) -> Result<(), BusError> {
    config.create_native_config().map(drop).map_err(|e| BusError::Refused(format!("kafka: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(properties: &[(&str, &str)]) -> KafkaOptions {
        KafkaOptions {
            brokers: "127.0.0.1:9092".to_owned(),
            group_id: "costhelm".to_owned(),
            client_id: "costhelm-1".to_owned(),
            properties: properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    fn refusal(properties: &[(&str, &str)]) -> String {
        check(&options(properties)).expect_err("it must be refused").to_string()
    }

    #[test]
    fn every_property_that_exactly_once_rests_on_is_refused_by_name() {
        for (key, why) in FORBIDDEN {
            let error = refusal(&[(key, "true")]);
            assert!(error.contains(&format!("{key:?}")) && error.contains(why), "{error}");
        }
    }

    #[test]
    fn an_unknown_or_malformed_property_is_refused_by_name_and_a_password_is_not_repeated() {
        assert!(refusal(&[("sasl.mechanizm", "PLAIN")]).contains("\"sasl.mechanizm\""));
        let error = refusal(&[("fetch.wait.max.ms", "hunter2")]);
        assert!(error.contains("\"fetch.wait.max.ms\"") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn properties_of_one_side_and_of_security_pass_to_both() {
        let options = options(&[
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("message.timeout.ms", "5000"),
            ("partition.assignment.strategy", "range"),
        ]);
        check(&options).expect("allowed");
        let consumer = consumer(&options).expect("a consumer's config");
        assert_eq!(consumer.get("partition.assignment.strategy"), Some("range"));
        assert_eq!(consumer.get("auto.offset.reset"), Some("error"));
        let producer = producer(&options).expect("a producer's config");
        assert_eq!(producer.get("message.timeout.ms"), Some("5000"));
        assert_eq!(producer.get("enable.idempotence"), Some("true"));
    }

    #[test]
    fn the_brokers_own_group_protocol_comes_without_an_assignment_strategy() {
        let config = consumer(&options(&[("group.protocol", "consumer")])).expect("a consumer's config");
        assert_eq!(config.get("partition.assignment.strategy"), None);
    }
}
