//! Partitions come and go: where each begins, and what is told before one leaves. Called by librdkafka's rebalance
//! callback, and again for those that could not begin.

use std::{
    mem,
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, RebalanceProtocol},
};

use super::{
    start::{self, Watermarks},
    trouble::{Kind, Slot},
    worker::{Callbacks, Held, LOOK_AGAIN, POLL_MAX, Pumped, Worker},
};
use crate::bus::{BusEvent, TopicPartition};

const POSITIONS_WAIT: Duration = Duration::from_secs(10);
const WATERMARKS_WAIT: Duration = Duration::from_secs(5);

impl Worker {
    pub fn assigned(&self, consumer: &BaseConsumer<Callbacks>, list: &TopicPartitionList) {
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
    pub fn begin_held(&self, consumer: &BaseConsumer<Callbacks>) {
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
            self.health.set(Slot::Partitions, Kind::Other, format!("kafka: {first}{others}"));
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
                false => state.assembly.positions().map(|(at, next)| (at.clone(), next)).collect(),
            };
            drop(state);
            let all =
                standing.iter().map(|(at, next)| (at, *next)).chain(begin.iter().map(|(held, at)| (&held.at, *at)));
            start::list(all.map(|(at, next)| (at, Offset::Offset(next)))).and_then(|list| {
                let done = if cooperative { consumer.incremental_assign(&list) } else { consumer.assign(&list) };
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
    pub fn restart_all(&self, consumer: &BaseConsumer<Callbacks>) {
        let mut state = self.state();
        let batches = state.assembly.take_begun_by(Instant::now());
        state.outbox.extend(batches.into_iter().map(BusEvent::Batch));
        let standing: Vec<Held> =
            state.assembly.positions().map(|(at, next)| Held { at: at.clone(), next: Some(next) }).collect();
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

    pub fn revoked(&self, consumer: &BaseConsumer<Callbacks>, list: &TopicPartitionList) {
        let gone = start::partitions(list);
        tracing::debug!("kafka: revoked {}", names(&gone));
        let read = self.forget(&gone);
        self.unassign(consumer, &read);
    }

    /// Drops what is not handed over of these partitions, tells the subscriber, and waits for it. Answers those that
    /// librdkafka has assigned.
    fn forget(&self, gone: &[TopicPartition]) -> Vec<TopicPartition> {
        let mut state = self.state();
        let read: Vec<TopicPartition> =
            state.assembly.positions().map(|(at, _)| at).filter(|at| gone.contains(at)).cloned().collect();
        // Held ones that were being read are known to the subscriber too.
        let mut known = read.clone();
        known.extend(
            state.held.iter().filter(|held| held.next.is_some() && gone.contains(&held.at)).map(|h| h.at.clone()),
        );
        read.iter().for_each(|at| state.assembly.end(at));
        state.held.retain(|held| !gone.contains(&held.at));
        state.outbox.retain(|event| !matches!(event, BusEvent::Batch(batch) if gone.contains(&batch.at)));
        let none_held = state.held.is_empty();
        if known.is_empty() {
            drop(state);
        } else {
            let (done, mut finished) = tokio::sync::oneshot::channel();
            state.outbox.push_back(BusEvent::Revoked { partitions: known, done });
            drop(state);
            let deadline = Instant::now() + self.options.revoke_wait;
            if matches!(self.pump(deadline), Pumped::Empty) {
                while matches!(finished.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty)) {
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
    pub fn forget_all(&self) {
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
