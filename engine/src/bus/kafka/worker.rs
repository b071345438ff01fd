//! What a subscription's thread and the callbacks of its client share: the partitions as they stand, and the outbox.
//!
//! All that the subscriber is told goes through one outbox, in order: a batch never overtakes its `Assigned`, and none
//! follows its `Revoked`.
//!
//! | a partition that is…            | is in             | and librdkafka                                  |
//! | ------------------------------- | ----------------- | ----------------------------------------------- |
//! | ours and being read             | `State::assembly` | has it assigned, with its offset                |
//! | ours, its beginning not settled | `State::held`     | does not have it; tried again every few seconds |
//! | not ours                        | neither           | does not have it                                |

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::BorrowedMessage,
    types::RDKafkaRespErr,
};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    assembly::{Assembly, BatchLimits, Incoming},
    native,
    trouble::{self, Health, Kind},
};
use crate::bus::{BusEvent, Positions, SubscribeOptions, TopicPartition};

/// One idle poll; also how soon a stop is seen.
pub(super) const POLL_MAX: Duration = Duration::from_millis(100);
/// Between two looks at a full channel or an unanswered `Revoked`.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Ranges in an arena are `u32`.
const ARENA_BYTES_MAX: usize = 1 << 30;

/// What the thread's loop and the callbacks of librdkafka share.
pub(super) struct Worker {
    pub options: SubscribeOptions,
    pub positions: Arc<dyn Positions>,
    pub events: mpsc::Sender<BusEvent>,
    pub runtime: Handle,
    pub stop: CancellationToken,
    pub health: Arc<Health>,
    /// Locked by the one thread only, and never across a call into librdkafka that may call back.
    state: Mutex<State>,
}

pub(super) struct State {
    pub assembly: Assembly,
    pub held: Vec<Held>,
    pub outbox: VecDeque<BusEvent>,
    /// The partitions are paused because the channel has been full for long.
    pub paused: bool,
    /// Something went wrong that a probe should look into.
    pub attention: bool,
}

/// A partition that the group gave us and that is not being read yet.
#[derive(Clone)]
pub(super) struct Held {
    pub at: TopicPartition,
    /// Where it goes on, if it was being read before: the subscriber knows of it then.
    pub next: Option<i64>,
}

pub(super) enum Pumped {
    Empty,
    Full,
    Closed,
}

impl Worker {
    pub fn new(
        options: SubscribeOptions,
        positions: Arc<dyn Positions>,
        events: mpsc::Sender<BusEvent>,
        runtime: Handle,
        stop: CancellationToken,
        health: Arc<Health>,
    ) -> Self {
        let limits = BatchLimits {
            records_max: options.batch_records_max.max(1),
            bytes_max: options.batch_bytes_max.clamp(1, ARENA_BYTES_MAX),
        };
        let state = State {
            assembly: Assembly::new(limits),
            held: Vec::new(),
            outbox: VecDeque::new(),
            paused: false,
            attention: true,
        };
        Self { options, positions, events, runtime, stop, health, state: Mutex::new(state) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until && !self.stop.is_cancelled() {
            thread::sleep(POLL_MAX.min(wait));
        }
    }

    /// Adds a message to its batch; `true` when that made one ready.
    pub fn put(&self, message: &BorrowedMessage<'_>) -> bool {
        let record = Incoming {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key(),
            value: message.payload().unwrap_or_default(),
            headers: native::headers(message),
        };
        let mut state = self.state();
        match state.assembly.push(record, Instant::now()) {
            Some(batch) => {
                state.outbox.push_back(BusEvent::Batch(batch));
                true
            }
            None => false,
        }
    }

    /// Hands over what is in the outbox, in order, waiting for room until the deadline.
    pub fn pump(&self, deadline: Instant) -> Pumped {
        loop {
            let Some(event) = self.state().outbox.pop_front() else {
                return Pumped::Empty;
            };
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Closed(_)) => return Pumped::Closed,
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.state().outbox.push_front(event);
                    if Instant::now() >= deadline || self.stop.is_cancelled() {
                        return Pumped::Full;
                    }
                    thread::sleep(LOOK_AGAIN);
                }
            }
        }
    }

    pub fn look_at_ends(&self, consumer: &BaseConsumer<Callbacks>) {
        let state = self.state();
        let known = self.health.end_offsets();
        let ends = state.assembly.positions().map(|(at, next)| {
            let seen = native::cached_end_offset(consumer.client(), &at.topic, at.partition);
            let before = || known.iter().find(|(known, _)| known == at).map(|(_, end)| *end);
            (at.clone(), seen.or_else(before).unwrap_or(next).max(next))
        });
        self.health.set_end_offsets(ends.collect());
    }
}

pub(super) struct Callbacks(pub Arc<Worker>);

impl ClientContext for Callbacks {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!("librdkafka consumer: {facility} {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("librdkafka consumer: {error}: {reason}");
        let Some(code) = error.rdkafka_error_code() else { return };
        if let Some(kind @ (Kind::Unreachable | Kind::Tls | Kind::Credentials)) = trouble::kind_of(code) {
            // "All brokers are down" says less than the error before it.
            if code != Code::AllBrokersDown {
                self.0.health.hint(kind, reason);
            }
        }
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.0.assigned(consumer, list),
            _ => self.0.revoked(consumer, list),
        }
    }

    fn main_queue_min_poll_interval(&self) -> rdkafka::util::Timeout {
        rdkafka::util::Timeout::After(POLL_MAX)
    }
}
