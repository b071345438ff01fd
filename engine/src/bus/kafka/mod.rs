//! Kafka as the bus, through librdkafka.
//!
//! ```text
//!  librdkafka ──poll──▶ consume (one thread a subscription) ──▶ assembly ──▶ outbox ──▶ events channel
//!      ▲                     │ on assignment: Positions ──▶ start (offsets in the assignment itself)
//!      └── produce: append ──┘ on trouble: one line, a probe with backoff
//! ```
//!
//! The consumer group only spreads partitions. Offsets are never committed to Kafka: they come from the store through
//! [`Positions`] and are part of the assignment that librdkafka gets, never of a later seek (EO-1).
//!
//! When the events channel is full, the thread waits for it without polling, at most `STALL_MAX`: heartbeats go on
//! in librdkafka's own thread, what has been fetched stays fetched, and short stalls, the normal state of a busy engine, cost
//! nothing. After that it pauses the partitions and polls on, so that rebalances are served and `max.poll.interval.ms` is never
//! reached. Pausing at once would throw away and refetch what has been fetched with every full channel.
//!
//! Limits: librdkafka keeps up to 64 MiB of fetched records a subscription (`queued.max.messages.kbytes`) and 32 MiB of unsent
//! ones (`queue.buffering.max.kbytes`); the assembly holds a batch a partition; the outbox holds at most a batch a partition
//! and a few events.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Bus, BusError, BusHealth, NewRecord, Positions, SubscribeOptions, Subscription};

mod assembly;
mod config;
mod consume;
mod native;
mod produce;
mod rebalance;
mod start;
mod trouble;
mod worker;

/// How long dropping the bus waits for its threads to leave their groups.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaOptions {
    /// `host:port`, several with commas.
    pub brokers: String,
    /// The consumer group that spreads the partitions over processes.
    pub group_id: String,
    /// Shows up in the broker's logs and quotas.
    pub client_id: String,
    /// Properties of librdkafka, passed through. Those that exactly-once rests on are refused.
    pub properties: BTreeMap<String, String>,
}

/// The bus on a Kafka cluster.
pub struct KafkaBus {
    options: KafkaOptions,
    producer: produce::Appender,
    /// Its children are the stops of the subscriptions.
    stop: CancellationToken,
    readers: Mutex<Vec<Reader>>,
}

struct Reader {
    health: Arc<trouble::Health>,
    thread: JoinHandle<()>,
}

impl KafkaBus {
    /// Checks the options. No broker is contacted yet, so that one that is away is a trouble and not an error.
    pub fn new(options: KafkaOptions) -> Result<Self, BusError> {
        config::check(&options)?;
        let producer = produce::Appender::new(&options)?;
        Ok(Self { options, producer, stop: CancellationToken::new(), readers: Mutex::default() })
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Reader>> {
        // Only ever pushed to and filtered: a panic elsewhere cannot leave it half done.
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bus for KafkaBus {
    /// Call it within a tokio runtime: [`Positions`] is asked there.
    fn subscribe(&self, options: SubscribeOptions, positions: Arc<dyn Positions>) -> Result<Subscription, BusError> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| BusError::Refused("kafka must be read within a tokio runtime".to_owned()))?;
        if options.topics.is_empty() {
            return Err(BusError::Refused("kafka: no topic to subscribe to".to_owned()));
        }
        let config = config::consumer(&self.options)?;
        let (sender, events) = mpsc::channel(options.queue_batches_max.max(1));
        let stop = self.stop.child_token();
        let health = Arc::new(trouble::Health::new(&self.options.brokers));
        let worker = worker::Worker::new(options, positions, sender, runtime, stop.clone(), Arc::clone(&health));
        let consuming = consume::Consuming::new(config, worker);
        let thread = std::thread::Builder::new()
            .name("kafka-consumer".to_owned())
            .spawn(move || consuming.run())
            .map_err(|e| BusError::Retry(format!("kafka: cannot start the consumer's thread: {e}")))?;
        let mut readers = self.readers();
        readers.retain(|reader| !reader.thread.is_finished());
        readers.push(Reader { health, thread });
        Ok(Subscription { events, _stop: stop.drop_guard() })
    }

    fn append<'a>(&'a self, records: Vec<NewRecord>) -> BoxFuture<'a, Vec<Result<(), BusError>>> {
        Box::pin(self.producer.append(records))
    }

    fn health_delay(&self) -> Duration {
        // librdkafka learns the end of a log with each fetch, and fetches even an idle partition more often than this.
        Duration::from_secs(1)
    }

    fn health(&self) -> BusHealth {
        let readers = self.readers();
        let live = || readers.iter().filter(|reader| !reader.thread.is_finished());
        BusHealth {
            trouble: live().find_map(|reader| reader.health.trouble()).or_else(|| self.producer.trouble()),
            end_offsets: live().flat_map(|reader| reader.health.end_offsets()).collect(),
        }
    }
}

impl Drop for KafkaBus {
    fn drop(&mut self) {
        self.stop.cancel();
        let deadline = Instant::now() + LEAVE_WAIT;
        for reader in self.readers().drain(..) {
            while !reader.thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if reader.thread.is_finished() {
                // Its panic, if that is how it ended, has been printed by the panic hook.
                let _ = reader.thread.join();
            } else {
                tracing::warn!("kafka: a consumer has not left its group after {LEAVE_WAIT:?}; going on without it");
            }
        }
    }
}
