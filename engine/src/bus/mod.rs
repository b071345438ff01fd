//! The bus: where usage events come from and where alerts and throttle commands go.
//!
//! Records travel in topics, topics are cut into partitions, and a record's place in its partition is its offset. The bus
//! knows nothing of money. It moves bytes, and it never decides what has been consumed: positions belong to the store
//! (EO-1), which the bus asks when it is given a partition.
//!
//! ```text
//!             subscribe                                append
//!  Kafka  ──▶ BusEvent::Assigned / Batch / Revoked     alerts, throttles, quarantine, POST /v1/events ──▶ Kafka
//!  SQLite ──▶ through one bounded channel              answered once durable                          ──▶ SQLite
//! ```
//!
//! Limits: a batch holds at most [`SubscribeOptions::batch_records_max`] records and about
//! [`SubscribeOptions::batch_bytes_max`] bytes (one record more, where a record is larger than that); the channel holds
//! [`SubscribeOptions::queue_batches_max`] batches, and a full channel stops the reading (BOUND-1).

use std::{fmt, ops::Range, sync::Arc};

use futures::future::BoxFuture;

pub mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;

/// Where a record lives. Offsets count up by one from 0 in each partition; holes are allowed (compaction, transactions).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Consecutive records of one partition, their bytes in one arena.
///
/// `from` is the offset after the previous batch's last record, so that the ranges `[from, to)` of a partition chain
/// without gap or overlap even where offsets have holes (EO-1).
#[derive(Debug)]
pub struct Batch {
    pub at: TopicPartition,
    pub from: i64,
    pub to: i64,
    pub records: Vec<RecordRef>,
    pub arena: Vec<u8>,
}

/// One record: ranges into the arena of its [`Batch`].
#[derive(Clone, Debug)]
pub struct RecordRef {
    pub offset: i64,
    /// Milliseconds since the Unix epoch, as the bus recorded it.
    pub timestamp_ms: i64,
    pub key: Option<Range<u32>>,
    pub value: Range<u32>,
    /// Name and value of each header. Empty for most records, and then no allocation.
    pub headers: Vec<(Range<u32>, Range<u32>)>,
}

impl Batch {
    pub fn bytes(&self, range: &Range<u32>) -> &[u8] {
        &self.arena[range.start as usize..range.end as usize]
    }
}

/// What a subscription tells its reader, in order.
#[derive(Debug)]
pub enum BusEvent {
    /// These partitions are ours from now on, beginning at the given offset. Adds to what was assigned before.
    Assigned(Vec<(TopicPartition, i64)>),
    Batch(Batch),
    /// These partitions leave us. The reader commits or drops what it holds of them and then drops `done`; the bus waits
    /// for that (bounded by [`SubscribeOptions::revoke_wait`]) before it lets go.
    Revoked {
        partitions: Vec<TopicPartition>,
        done: tokio::sync::oneshot::Sender<()>,
    },
}

/// Says where reading goes on. Implemented by the store.
pub trait Positions: Send + Sync {
    /// The committed next offset of each partition, `None` where the store has never seen it.
    fn next_offsets<'a>(&'a self, of: &'a [TopicPartition]) -> BoxFuture<'a, Result<Vec<Option<i64>>, BusError>>;
}

/// Where to begin in a partition that the store has never seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    Earliest,
    Latest,
}

#[derive(Clone, Debug)]
pub struct SubscribeOptions {
    pub topics: Vec<String>,
    pub start_at: StartAt,
    pub batch_records_max: usize,
    pub batch_bytes_max: usize,
    /// How long a batch that is not full may wait for more records.
    pub batch_wait: std::time::Duration,
    pub queue_batches_max: usize,
    pub revoke_wait: std::time::Duration,
}

/// A running subscription. Dropping it stops the reading and leaves the group.
pub struct Subscription {
    pub events: tokio::sync::mpsc::Receiver<BusEvent>,
    /// Ends the reader's thread or task when dropped.
    pub(crate) _stop: tokio_util::sync::DropGuard,
}

/// A record to append.
#[derive(Clone, Debug, Default)]
pub struct NewRecord {
    pub topic: String,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone in a compacted topic.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// How the bus is doing, for `/readyz` and the metrics.
#[derive(Clone, Debug, Default)]
pub struct BusHealth {
    /// `None` when all is well; otherwise one line a person understands, naming the broker or topic and what is tried next.
    pub trouble: Option<String>,
    /// Per assigned partition: the end of the log as last seen (offset after its last record).
    pub end_offsets: Vec<(TopicPartition, i64)>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum BusError {
    /// Worth another try after a pause: the broker is away, the log is locked, a queue is full.
    #[error("{0}")]
    Retry(String),
    /// Will not get better by itself: the record is too large, the topic may not be written.
    #[error("{0}")]
    Refused(String),
}

pub trait Bus: Send + Sync {
    /// Starts reading. Troubles are retried with backoff and shown in [`Bus::health`]; they do not end the subscription.
    fn subscribe(&self, options: SubscribeOptions, positions: Arc<dyn Positions>) -> Result<Subscription, BusError>;

    /// Appends records; the answer has one result a record, in order, each `Ok` only once the record is durable.
    fn append<'a>(&'a self, records: Vec<NewRecord>) -> BoxFuture<'a, Vec<Result<(), BusError>>>;

    fn health(&self) -> BusHealth;

    /// How old the end offsets of [`Bus::health`] may be.
    fn health_delay(&self) -> std::time::Duration;
}
