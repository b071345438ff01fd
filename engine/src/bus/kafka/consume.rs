//! The thread of a subscription: polls, assembles, hands over; in between it watches over the partitions.
//!
//! All that it tells the subscriber goes through one outbox, in order: a batch never overtakes its `Assigned`, and none follows
//! its `Revoked`. librdkafka's rebalance callback runs on this same thread, within `poll`.
//!
//! | a partition that is…                | is in             | and librdkafka                                      |
//! | ----------------------------------- | ----------------- | --------------------------------------------------- |
//! | ours and being read                 | `State::assembly` | has it assigned, with its offset                    |
//! | ours, its beginning not settled     | `State::held`     | does not have it; tried again every [`HELD_AGAIN`]  |
//! | not ours                            | neither           | does not have it                                    |

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::BorrowedMessage,
    types::RDKafkaRespErr,
};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    assembly::{Assembly, BatchLimits, Incoming},
    native,
    start::{self, Watermarks},
    trouble::{self, Health, Kind, Slot, TopicState},
};
use crate::bus::{BusEvent, Positions, SubscribeOptions, TopicPartition};

/// How long a full events channel is waited for before the partitions are paused.
pub(super) const STALL_MAX: Duration = Duration::from_secs(5);
/// One idle poll; also how soon a stop is seen.
const POLL_MAX: Duration = Duration::from_millis(100);
/// Between two looks at a full channel or an unanswered `Revoked`.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
const HELD_AGAIN: Duration = Duration::from_secs(3);
const END_OFFSETS_EVERY: Duration = Duration::from_secs(1);
const POSITIONS_WAIT: Duration = Duration::from_secs(10);
const WATERMARKS_WAIT: Duration = Duration::from_secs(5);
const PROBE_WAIT: Duration = Duration::from_secs(2);
const HEAR_MAX: usize = 20;
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Records between two looks at the clock for batches that have waited long enough.
const CLOCK_EVERY: u32 = 64;
/// Ranges in an arena are `u32`.
const ARENA_BYTES_MAX: usize = 1 << 30;

pub(super) struct Consuming {
    config: ClientConfig,
    worker: Arc<Worker>,
}

/// What the thread's loop and the callbacks of librdkafka share.
struct Worker {
    options: SubscribeOptions,
    positions: Arc<dyn Positions>,
    events: mpsc::Sender<BusEvent>,
    runtime: Handle,
    stop: CancellationToken,
    health: Arc<Health>,
    /// Locked by the one thread only, and never across a call into librdkafka that may call back.
    state: Mutex<State>,
}

struct State {
    assembly: Assembly,
    held: Vec<Held>,
    outbox: VecDeque<BusEvent>,
    /// The partitions are paused because the channel has been full for long.
    paused: bool,
    /// Something went wrong that a probe should look into.
    attention: bool,
}

/// A partition that the group gave us and that is not being read yet.
#[derive(Clone)]
struct Held {
    at: TopicPartition,
    /// Where it goes on, if it was being read before: the subscriber knows of it then.
    next: Option<i64>,
}

/// Why a client's life ends.
enum End {
    Stopped,
    Broken,
}

enum Pumped {
    Empty,
    Full,
    Closed,
}

impl Consuming {
    pub fn new(
        config: ClientConfig,
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
        let worker = Worker {
            options,
            positions,
            events,
            runtime,
            stop,
            health,
            state: Mutex::new(state),
        };
        Self {
            config,
            worker: Arc::new(worker),
        }
    }

    /// Runs until the subscription is dropped. A client that breaks is replaced.
    pub fn run(self) {
        let worker = &self.worker;
        let mut backoff = BACKOFF_MIN;
        while !worker.stop.is_cancelled() {
            let born = Instant::now();
            match self.config.create_with_context(Callbacks(Arc::clone(worker))) {
                Ok(consumer) => {
                    let end = Loop::new(worker, &consumer).run();
                    // Leaves the group; the callback tells the subscriber.
                    drop(consumer);
                    worker.forget_all();
                    if matches!(end, End::Stopped) {
                        return;
                    }
                }
                Err(error) => {
                    let words = format!("kafka: cannot create a consumer: {error}");
                    worker.health.set(Slot::Connection, Kind::Other, words);
                }
            }
            if born.elapsed() > BACKOFF_MAX {
                backoff = BACKOFF_MIN;
            }
            worker.sleep(backoff);
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

/// The poll loop of one client.
struct Loop<'a> {
    worker: &'a Worker,
    consumer: &'a BaseConsumer<Callbacks>,
    until_clock: u32,
    probe_at: Instant,
    probe_backoff: Duration,
    held_at: Instant,
    end_offsets_at: Instant,
}

impl<'a> Loop<'a> {
    fn new(worker: &'a Worker, consumer: &'a BaseConsumer<Callbacks>) -> Self {
        let now = Instant::now();
        Self {
            worker,
            consumer,
            until_clock: CLOCK_EVERY,
            probe_at: now,
            probe_backoff: BACKOFF_MIN,
            held_at: now,
            end_offsets_at: now,
        }
    }

    fn run(mut self) -> End {
        let topics: Vec<&str> = self.worker.options.topics.iter().map(String::as_str).collect();
        if let Err(error) = self.consumer.subscribe(&topics) {
            let words = format!("kafka: cannot subscribe to {}: {error}", topics.join(", "));
            self.worker.health.set(Slot::Connection, Kind::Other, words);
            return End::Broken;
        }
        loop {
            if let Err(end) = self.turn() {
                return end;
            }
        }
    }

    fn turn(&mut self) -> Result<(), End> {
        if self.worker.stop.is_cancelled() || self.worker.events.is_closed() {
            return Err(End::Stopped);
        }
        let consumer = self.consumer;
        match consumer.poll(Duration::ZERO) {
            Some(polled) => self.take(polled)?,
            None => {
                self.flush(Instant::now())?;
                self.watch()?;
                if let Some(polled) = consumer.poll(POLL_MAX) {
                    self.take(polled)?;
                }
            }
        }
        self.until_clock -= 1;
        if self.until_clock == 0 {
            self.until_clock = CLOCK_EVERY;
            if let Some(begun_by) = Instant::now().checked_sub(self.worker.options.batch_wait) {
                self.flush(begun_by)?;
            }
            self.watch()?;
        }
        Ok(())
    }

    fn take(&mut self, polled: Result<BorrowedMessage<'_>, KafkaError>) -> Result<(), End> {
        match polled {
            Ok(message) => {
                let full = self.worker.put(&message);
                if full { self.hand_over() } else { Ok(()) }
            }
            Err(error) => self.on_error(&error),
        }
    }

    /// Closes the batches begun by then, and hands over all that is ready.
    fn flush(&mut self, begun_by: Instant) -> Result<(), End> {
        let mut state = self.worker.state();
        let batches = state.assembly.take_begun_by(begun_by);
        state.outbox.extend(batches.into_iter().map(BusEvent::Batch));
        let nothing = state.outbox.is_empty();
        drop(state);
        if nothing { Ok(()) } else { self.hand_over() }
    }

    fn hand_over(&mut self) -> Result<(), End> {
        match self.worker.pump(Instant::now() + STALL_MAX) {
            Pumped::Empty => Ok(()),
            Pumped::Closed => Err(End::Stopped),
            Pumped::Full => self.sit_out(),
        }
    }

    /// Pauses the partitions until the subscriber takes events again, and keeps polling meanwhile.
    fn sit_out(&mut self) -> Result<(), End> {
        tracing::debug!("kafka: the engine has taken nothing for {STALL_MAX:?}; pausing");
        self.worker.state().paused = true;
        self.pause_or_resume(true);
        let end = loop {
            let consumer = self.consumer;
            match consumer.poll(POLL_MAX) {
                // A record that was on its way as the pause began.
                Some(Ok(message)) => {
                    self.worker.put(&message);
                }
                Some(Err(error)) => {
                    if let Err(end) = self.on_error(&error) {
                        break Err(end);
                    }
                }
                None => {}
            }
            match self.worker.pump(Instant::now()) {
                Pumped::Empty => break Ok(()),
                Pumped::Closed => break Err(End::Stopped),
                Pumped::Full if self.worker.stop.is_cancelled() => break Err(End::Stopped),
                Pumped::Full => {}
            }
        };
        self.worker.state().paused = false;
        self.pause_or_resume(false);
        end
    }

    fn pause_or_resume(&self, pause: bool) {
        let positions: Vec<TopicPartition> = self
            .worker
            .state()
            .assembly
            .positions()
            .map(|(at, _)| at.clone())
            .collect();
        if positions.is_empty() {
            return;
        }
        let done = start::list(positions.iter().map(|at| (at, Offset::Invalid))).and_then(|list| {
            let done = if pause {
                self.consumer.pause(&list)
            } else {
                self.consumer.resume(&list)
            };
            done.map_err(|e| e.to_string())
        });
        if let Err(error) = done {
            // Unpaused, a stalled subscription is only less polite; still paused, it would starve.
            tracing::warn!(
                "kafka: cannot {} partitions: {error}",
                if pause { "pause" } else { "resume" }
            );
            if !pause {
                self.worker.restart_all(self.consumer);
            }
        }
    }

    fn on_error(&mut self, error: &KafkaError) -> Result<(), End> {
        let Some(code) = error.rdkafka_error_code() else {
            return Ok(());
        };
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) || code == Code::Fatal {
            tracing::warn!(
                "kafka: the consumer met a fatal error and begins anew: {}",
                trouble::describe(code)
            );
            return Err(End::Broken);
        }
        match code {
            // `auto.offset.reset = error`: the position of some partition is gone from the log. The error does not say
            // which: every one is looked up and begun anew where it stood.
            Code::AutoOffsetReset | Code::OffsetOutOfRange => {
                self.worker.restart_all(self.consumer);
                self.held_at = Instant::now();
            }
            Code::GroupAuthorizationFailed => {
                let words = "kafka: the broker does not let us join the consumer group".to_owned();
                self.worker.health.set(Slot::Group, Kind::GroupDenied, words);
            }
            _ => {
                if trouble::kind_of(code).is_some() {
                    self.worker.state().attention = true;
                }
                tracing::debug!("kafka: {code}");
            }
        }
        Ok(())
    }

    /// What is due besides reading.
    fn watch(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if now >= self.end_offsets_at {
            self.end_offsets_at = now + END_OFFSETS_EVERY;
            self.worker.look_at_ends(self.consumer);
        }
        if now >= self.held_at && !self.worker.state().held.is_empty() {
            self.worker.begin_held(self.consumer);
            self.held_at = Instant::now() + HELD_AGAIN;
            self.hand_over()?;
        }
        let attention = self.worker.state().attention;
        if attention && now >= self.probe_at {
            let found = self.probe();
            if found.is_err() {
                self.hear_why()?;
            }
            let well = self.worker.health.probed(found.as_deref().map_err(|code| *code));
            self.worker.state().attention = !well;
            self.probe_backoff = if well {
                BACKOFF_MIN
            } else {
                (self.probe_backoff * 2).min(BACKOFF_MAX)
            };
            self.probe_at = Instant::now() + self.probe_backoff;
        }
        Ok(())
    }

    /// Asks the brokers for the topics. Blocks up to [`PROBE_WAIT`], and only while something is wrong.
    fn probe(&self) -> Result<Vec<(String, TopicState)>, Code> {
        let mut found = Vec::new();
        for topic in &self.worker.options.topics {
            let metadata = self
                .consumer
                .fetch_metadata(Some(topic), PROBE_WAIT)
                .map_err(|error| error.rdkafka_error_code().unwrap_or(Code::BrokerTransportFailure))?;
            let state = match metadata.topics().first() {
                Some(topic) => match topic.error() {
                    Some(error) => TopicState::Failed(error.into()),
                    None if topic.partitions().is_empty() => TopicState::Failed(Code::UnknownTopicOrPartition),
                    None => TopicState::Present,
                },
                None => TopicState::Failed(Code::UnknownTopicOrPartition),
            };
            found.push((topic.clone(), state));
        }
        Ok(found)
    }

    /// Takes the error events that have come in during a probe that failed: they give its reason.
    fn hear_why(&mut self) -> Result<(), End> {
        let consumer = self.consumer;
        for _ in 0..HEAR_MAX {
            if let Some(polled) = consumer.poll(LOOK_AGAIN) {
                self.take(polled)?;
            }
        }
        Ok(())
    }
}

impl Worker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until && !self.stop.is_cancelled() {
            thread::sleep(POLL_MAX.min(wait));
        }
    }

    /// Adds a message to its batch; `true` when that made one ready.
    fn put(&self, message: &BorrowedMessage<'_>) -> bool {
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
    fn pump(&self, deadline: Instant) -> Pumped {
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

    fn look_at_ends(&self, consumer: &BaseConsumer<Callbacks>) {
        let state = self.state();
        let known = self.health.end_offsets();
        let ends = state.assembly.positions().map(|(at, next)| {
            let seen = native::cached_end_offset(consumer.client(), &at.topic, at.partition);
            let before = || known.iter().find(|(known, _)| known == at).map(|(_, end)| *end);
            (at.clone(), seen.or_else(before).unwrap_or(next).max(next))
        });
        self.health.set_end_offsets(ends.collect());
    }

    // --- partitions come --------------------------------------------------------------------------------------------

    fn assigned(&self, consumer: &BaseConsumer<Callbacks>, list: &TopicPartitionList) {
        self.health.clear(Slot::Group);
        let come = start::partitions(list);
        tracing::debug!("kafka: assigned {}", names(&come));
        let held: Vec<Held> = come.into_iter().map(|at| Held { at, next: None }).collect();
        self.state().held.extend(held.iter().cloned());
        let begin = self.settle(consumer, &held);
        // Also with nothing to begin: the group waits for this answer.
        self.begin(consumer, begin);
    }

    /// Tries again with the partitions that could not begin.
    fn begin_held(&self, consumer: &BaseConsumer<Callbacks>) {
        let held = self.state().held.clone();
        let begin = self.settle(consumer, &held);
        if !begin.is_empty() {
            self.begin(consumer, begin);
        }
    }

    /// Finds where each of these begins; leaves out those that cannot, and says why.
    fn settle(&self, consumer: &BaseConsumer<Callbacks>, held: &[Held]) -> Vec<(Held, i64)> {
        if held.is_empty() || self.stop.is_cancelled() {
            return Vec::new();
        }
        let of: Vec<TopicPartition> = held.iter().map(|held| held.at.clone()).collect();
        let stored = match self.stored_positions(&of) {
            Ok(stored) => stored,
            Err(why) => {
                let words = format!("kafka: the store does not say where to read on: {why}");
                self.health.set(Slot::Positions, Kind::Other, words);
                return Vec::new();
            }
        };
        self.health.clear(Slot::Positions);
        let watermarks = match start::watermarks(consumer, &of, WATERMARKS_WAIT) {
            Ok(watermarks) => watermarks,
            Err(why) => {
                let words = format!("kafka: cannot look up where topics begin and end: {why}");
                self.health.set(Slot::Partitions, Kind::Unreachable, words);
                self.state().attention = true;
                return Vec::new();
            }
        };
        let mut begin = Vec::new();
        let mut standing = Vec::new();
        for ((held, stored), watermarks) in held.iter().zip(stored).zip(watermarks) {
            let Watermarks { low, high } = watermarks;
            tracing::debug!("kafka: {} stored {stored:?} low {low} high {high}", held.at);
            match start::begin_at(held.next.or(stored), watermarks, self.options.start_at) {
                Ok(next) => begin.push((held.clone(), next)),
                Err(why) => standing.push(format!("{} stands still: {why}", held.at)),
            }
        }
        if let Some(first) = standing.first() {
            let others = match standing.len() - 1 {
                0 => String::new(),
                n => format!("; so do {n} other partitions"),
            };
            self.health
                .set(Slot::Partitions, Kind::Other, format!("kafka: {first}{others}"));
        }
        begin
    }

    /// Asks the store, on the runtime, and waits for its answer.
    fn stored_positions(&self, of: &[TopicPartition]) -> Result<Vec<Option<i64>>, String> {
        let (answer, answered) = std_mpsc::sync_channel(1);
        let positions = Arc::clone(&self.positions);
        let asked = of.to_vec();
        // Spawned instead of waited for with `block_on`: a runtime that shuts down drops the task, and this thread goes on.
        let task = self.runtime.spawn(async move {
            let _ = answer.send(positions.next_offsets(&asked).await);
        });
        let deadline = Instant::now() + POSITIONS_WAIT;
        loop {
            match answered.recv_timeout(POLL_MAX) {
                Ok(Ok(stored)) if stored.len() == of.len() => return Ok(stored),
                Ok(Ok(stored)) => return Err(format!("asked for {} positions, got {}", of.len(), stored.len())),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(std_mpsc::RecvTimeoutError::Disconnected) => return Err("it is shutting down".to_owned()),
                Err(std_mpsc::RecvTimeoutError::Timeout) => {
                    if Instant::now() >= deadline || self.stop.is_cancelled() {
                        task.abort();
                        return Err(format!("no answer within {POSITIONS_WAIT:?}"));
                    }
                }
            }
        }
    }

    /// Gives librdkafka the partitions with their offsets, and tells the subscriber.
    fn begin(&self, consumer: &BaseConsumer<Callbacks>, begin: Vec<(Held, i64)>) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let assigned = {
            let state = self.state();
            // The eager protocol knows no additions: the whole assignment is given again, each partition where it stands.
            let standing: Vec<(TopicPartition, i64)> = match cooperative {
                true => Vec::new(),
                false => state
                    .assembly
                    .positions()
                    .map(|(at, next)| (at.clone(), next))
                    .collect(),
            };
            drop(state);
            let all = standing
                .iter()
                .map(|(at, next)| (at, *next))
                .chain(begin.iter().map(|(held, at)| (&held.at, *at)));
            start::list(all.map(|(at, next)| (at, Offset::Offset(next)))).and_then(|list| {
                let done = if cooperative {
                    consumer.incremental_assign(&list)
                } else {
                    consumer.assign(&list)
                };
                let done = done.map_err(|e| e.to_string());
                if self.state().paused && list.count() > 0 {
                    let _ = consumer.pause(&list);
                }
                done
            })
        };
        if let Err(why) = assigned {
            let words = format!("kafka: cannot begin with {} partitions: {why}", begin.len());
            self.health.set(Slot::Partitions, Kind::Other, words);
            return;
        }
        let mut state = self.state();
        let mut news = Vec::new();
        for (held, next) in begin {
            state.assembly.begin(&held.at, next);
            state.held.retain(|other| other.at != held.at);
            if held.next.is_none() {
                news.push((held.at, next));
            }
        }
        if !news.is_empty() {
            state.outbox.push_back(BusEvent::Assigned(news));
        }
        let all_begun = state.held.is_empty();
        drop(state);
        if all_begun {
            self.health.clear(Slot::Partitions);
        }
    }

    /// Takes every partition out of librdkafka's hands and holds it where it stands, to be looked up and begun again.
    fn restart_all(&self, consumer: &BaseConsumer<Callbacks>) {
        let mut state = self.state();
        let batches = state.assembly.take_begun_by(Instant::now());
        state.outbox.extend(batches.into_iter().map(BusEvent::Batch));
        let standing: Vec<Held> = state
            .assembly
            .positions()
            .map(|(at, next)| Held {
                at: at.clone(),
                next: Some(next),
            })
            .collect();
        for held in &standing {
            state.assembly.end(&held.at);
        }
        state.held.extend(standing.iter().cloned());
        drop(state);
        let of: Vec<TopicPartition> = standing.into_iter().map(|held| held.at).collect();
        self.unassign(consumer, &of);
    }

    fn unassign(&self, consumer: &BaseConsumer<Callbacks>, of: &[TopicPartition]) {
        let done = match consumer.rebalance_protocol() {
            // Only what it has: naming another makes librdkafka refuse the whole.
            RebalanceProtocol::Cooperative => start::list(of.iter().map(|at| (at, Offset::Invalid)))
                .and_then(|list| consumer.incremental_unassign(&list).map_err(|e| e.to_string())),
            _ => consumer.unassign().map_err(|e| e.to_string()),
        };
        if let Err(error) = done {
            tracing::warn!("kafka: cannot give up {}: {error}", names(of));
        }
    }

    // --- partitions go ----------------------------------------------------------------------------------------------

    fn revoked(&self, consumer: &BaseConsumer<Callbacks>, list: &TopicPartitionList) {
        let gone = start::partitions(list);
        tracing::debug!("kafka: revoked {}", names(&gone));
        let read = self.forget(&gone);
        self.unassign(consumer, &read);
    }

    /// Drops what is not handed over of these partitions, tells the subscriber, and waits for it. Answers those that
    /// librdkafka has assigned.
    fn forget(&self, gone: &[TopicPartition]) -> Vec<TopicPartition> {
        let mut state = self.state();
        let read: Vec<TopicPartition> = state
            .assembly
            .positions()
            .map(|(at, _)| at)
            .filter(|at| gone.contains(at))
            .cloned()
            .collect();
        // Held ones that were being read are known to the subscriber too.
        let mut known = read.clone();
        known.extend(
            state
                .held
                .iter()
                .filter(|held| held.next.is_some() && gone.contains(&held.at))
                .map(|h| h.at.clone()),
        );
        read.iter().for_each(|at| state.assembly.end(at));
        state.held.retain(|held| !gone.contains(&held.at));
        state
            .outbox
            .retain(|event| !matches!(event, BusEvent::Batch(batch) if gone.contains(&batch.at)));
        let none_held = state.held.is_empty();
        if known.is_empty() {
            drop(state);
        } else {
            let (done, mut finished) = tokio::sync::oneshot::channel();
            state.outbox.push_back(BusEvent::Revoked {
                partitions: known,
                done,
            });
            drop(state);
            let deadline = Instant::now() + self.options.revoke_wait;
            if matches!(self.pump(deadline), Pumped::Empty) {
                while matches!(
                    finished.try_recv(),
                    Err(tokio::sync::oneshot::error::TryRecvError::Empty)
                ) {
                    if Instant::now() >= deadline {
                        tracing::warn!("kafka: partitions go to another reader before the engine has committed them");
                        break;
                    }
                    thread::sleep(LOOK_AGAIN);
                }
            }
        }
        if none_held {
            self.health.clear(Slot::Partitions);
        }
        read
    }

    /// What a client left behind when it ended without giving everything back.
    fn forget_all(&self) {
        let state = self.state();
        let mut left: Vec<TopicPartition> = state.assembly.positions().map(|(at, _)| at.clone()).collect();
        left.extend(state.held.iter().map(|held| held.at.clone()));
        drop(state);
        self.forget(&left);
        let mut state = self.state();
        state.paused = false;
        state.attention = true;
        let stale = mem::take(&mut state.assembly.stale);
        if stale > 0 {
            tracing::debug!("kafka: dropped {stale} records of assignments that were over");
        }
    }
}

fn names(partitions: &[TopicPartition]) -> String {
    let names: Vec<String> = partitions.iter().take(20).map(ToString::to_string).collect();
    let more = if partitions.len() > 20 { ", …" } else { "" };
    format!("{} partitions: {}{more}", partitions.len(), names.join(", "))
}

struct Callbacks(Arc<Worker>);

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
