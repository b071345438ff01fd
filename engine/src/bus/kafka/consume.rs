//! The thread of a subscription: polls, assembles, hands over; in between it looks after what is due. What it shares with
//! librdkafka's callbacks, which run on this same thread within `poll`, is the [`Worker`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Offset,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::BorrowedMessage,
};

use super::{
    start,
    trouble::{self, Kind, Slot, TopicState},
    worker::{Callbacks, LOOK_AGAIN, POLL_MAX, Pumped, Worker},
};
use crate::bus::{BusEvent, TopicPartition};

/// How long a full events channel is waited for before the partitions are paused.
pub(super) const STALL_MAX: Duration = Duration::from_secs(5);
const HELD_AGAIN: Duration = Duration::from_secs(3);
const END_OFFSETS_EVERY: Duration = Duration::from_secs(1);
const PROBE_WAIT: Duration = Duration::from_secs(2);
/// Polls for the reasons of a failed probe.
const HEAR_MAX: usize = 20;
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Records between two looks at the clock for batches that have waited long enough.
const CLOCK_EVERY: u32 = 64;

pub(super) struct Consuming {
    config: ClientConfig,
    worker: Arc<Worker>,
}

/// Why a client's life ends.
enum End {
    Stopped,
    Broken,
}

impl Consuming {
    pub fn new(config: ClientConfig, worker: Worker) -> Self {
        Self { config, worker: Arc::new(worker) }
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
        let positions: Vec<TopicPartition> =
            self.worker.state().assembly.positions().map(|(at, _)| at.clone()).collect();
        if positions.is_empty() {
            return;
        }
        let done = start::list(positions.iter().map(|at| (at, Offset::Invalid))).and_then(|list| {
            let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
            done.map_err(|e| e.to_string())
        });
        if let Err(error) = done {
            // Unpaused, a stalled subscription is only less polite; still paused, it would starve.
            tracing::warn!("kafka: cannot {} partitions: {error}", if pause { "pause" } else { "resume" });
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
            let words = format!("kafka: the consumer broke and is replaced: {}", trouble::describe(code));
            self.worker.health.set(Slot::Group, Kind::Other, words);
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
            self.probe_backoff = if well { BACKOFF_MIN } else { (self.probe_backoff * 2).min(BACKOFF_MAX) };
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
