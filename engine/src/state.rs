//! What the running engine shows: committed totals, budgets, throttles, counts and troubles. Written by the pipeline, read by
//! whoever serves.
//!
//! Limits: windows by their own limit; [`SERIES_MAX`] label sets in the totals, the rest under `other` (in metrics only,
//! never in the ledger); one trouble a part of the engine.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use costhelm_pricing::{EventTime, Money};

use crate::{
    budget::ThrottleCommand,
    bus::TopicPartition,
    commit::{Timings, store::Committed},
    decode::RejectionCode,
    event::{Dim, Dims},
    fold::{
        Epoch, Folder,
        sums::{Grain, Sums},
        windows::Windows,
    },
};

/// Label sets kept in metrics; further ones are counted under `other`.
pub const SERIES_MAX: usize = 5_000;

/// The labels that totals have in metrics.
pub const METRIC_DIMS: [Dim; 6] =
    [Dim::Environment, Dim::BusinessUnitId, Dim::ProjectId, Dim::AgentRole, Dim::ModelProvider, Dim::ModelName];

pub type MetricKey = [std::sync::Arc<str>; METRIC_DIMS.len()];

/// Counts since the process started.
#[derive(Default)]
pub struct Counters {
    pub records: AtomicU64,
    pub events: AtomicU64,
    pub ledger_rows: AtomicU64,
    pub duplicates: AtomicU64,
    pub quarantined: AtomicU64,
    pub epochs: AtomicU64,
    pub conflicts: AtomicU64,
    pub alerts: AtomicU64,
    pub throttles: AtomicU64,
    pub published: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// Upper bounds of the buckets of commit times, seconds.
pub const COMMIT_BUCKETS_S: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Clone, Default)]
pub struct DurationHistogram {
    pub sum: Duration,
    pub buckets: [u64; COMMIT_BUCKETS_S.len() + 1],
}

impl DurationHistogram {
    fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = COMMIT_BUCKETS_S.iter().position(|bound| seconds <= *bound).unwrap_or(COMMIT_BUCKETS_S.len());
        self.buckets[bucket] += 1;
        self.sum += duration;
    }
}

/// How full the fold's memory is, as of the last epoch.
#[derive(Clone, Default)]
pub struct FoldGauges {
    pub dedup_ids: usize,
    pub dedup_bytes: usize,
    pub dedup_evicted: u64,
    pub watermarks: Vec<(TopicPartition, EventTime)>,
}

pub struct State {
    windows: RwLock<Windows>,
    totals: RwLock<HashMap<MetricKey, Sums>>,
    /// Committed spend by index of the budget and start of the period.
    spent: RwLock<BTreeMap<(usize, EventTime), Money>>,
    pub throttles: ArcSwap<Vec<ThrottleCommand>>,
    pub counters: Counters,
    rejections: Mutex<BTreeMap<RejectionCode, u64>>,
    stage: Mutex<DurationHistogram>,
    transaction: Mutex<DurationHistogram>,
    fold: Mutex<FoldGauges>,
    positions: Mutex<BTreeMap<TopicPartition, i64>>,
    troubles: Mutex<BTreeMap<String, String>>,
    /// Counts the commits that raised alerts or commands, and wakes whoever acts on them.
    changed: tokio::sync::watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while holding one of these ends the engine; what it leaves behind is still readable.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl State {
    pub fn new(windows: Windows) -> State {
        State {
            windows: RwLock::new(windows),
            totals: RwLock::default(),
            spent: RwLock::default(),
            throttles: ArcSwap::default(),
            counters: Counters::default(),
            rejections: Mutex::default(),
            stage: Mutex::default(),
            transaction: Mutex::default(),
            fold: Mutex::default(),
            positions: Mutex::default(),
            troubles: Mutex::default(),
            changed: tokio::sync::watch::Sender::new(0),
        }
    }

    /// Takes over what recovery read back. Totals go on from the months in memory, so that counters do not start at zero
    /// with each process.
    pub fn recovered(&self, windows: Windows, spent: impl IntoIterator<Item = (usize, EventTime, Money)>) {
        let mut totals = HashMap::new();
        for (_, dims, sums) in windows.cells_between(Grain::Month, EventTime(i64::MIN / 2), EventTime(i64::MAX)) {
            add_total(&mut totals, dims, &sums);
        }
        *write(&self.totals) = totals;
        *write(&self.spent) = spent.into_iter().map(|(budget, start, sum)| ((budget, start), sum)).collect();
        *write(&self.windows) = windows;
    }

    pub fn windows(&self) -> RwLockReadGuard<'_, Windows> {
        read(&self.windows)
    }

    pub fn totals(&self) -> RwLockReadGuard<'_, HashMap<MetricKey, Sums>> {
        read(&self.totals)
    }

    pub fn spent(&self, budget: usize, period_start: EventTime) -> Money {
        read(&self.spent).get(&(budget, period_start)).copied().unwrap_or(Money::ZERO)
    }

    pub fn rejections(&self) -> BTreeMap<RejectionCode, u64> {
        lock(&self.rejections).clone()
    }

    /// Times of staging files and of transactions.
    pub fn commit_times(&self) -> [(&'static str, DurationHistogram); 2] {
        [("stage", lock(&self.stage).clone()), ("transaction", lock(&self.transaction).clone())]
    }

    pub fn fold_gauges(&self) -> FoldGauges {
        lock(&self.fold).clone()
    }

    /// Committed next offset of each partition that this process has committed.
    pub fn positions(&self) -> BTreeMap<TopicPartition, i64> {
        lock(&self.positions).clone()
    }

    pub fn set_positions(&self, positions: impl IntoIterator<Item = (TopicPartition, i64)>) {
        *lock(&self.positions) = positions.into_iter().collect();
    }

    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What keeps the engine from working, a line each; empty when all is well.
    pub fn troubles(&self) -> Vec<String> {
        lock(&self.troubles).values().cloned().collect()
    }

    pub fn set_trouble(&self, part: &str, trouble: Option<String>) {
        let mut troubles = lock(&self.troubles);
        match trouble {
            Some(trouble) => {
                if troubles.insert(part.to_owned(), trouble.clone()).is_none() {
                    tracing::warn!("{trouble}");
                }
            }
            None => {
                if troubles.remove(part).is_some() {
                    tracing::info!("{part}: working again");
                }
            }
        }
    }
}

fn add_total(totals: &mut HashMap<MetricKey, Sums>, dims: &Dims, sums: &Sums) {
    let key: MetricKey = METRIC_DIMS.map(|dim| dims.0[dim as usize].clone());
    if let Some(known) = totals.get_mut(&key) {
        return known.add(sums);
    }
    let key = if totals.len() < SERIES_MAX { key } else { METRIC_DIMS.map(|_| "other".into()) };
    totals.entry(key).or_default().add(sums);
}

impl crate::pipeline::Observer for State {
    fn folded(&self, folder: &Folder) {
        *lock(&self.fold) = FoldGauges {
            dedup_ids: folder.dedup().len(),
            dedup_bytes: folder.dedup().memory_bytes(),
            dedup_evicted: folder.dedup().evicted(),
            watermarks: folder.watermarks().iter().map(|(at, time)| (at.clone(), time)).collect(),
        };
    }

    fn committed(&self, epoch: &Epoch, committed: &Committed, timings: Timings) {
        {
            let mut windows = write(&self.windows);
            windows.advance(epoch.clock);
            for (minute, dims, sums) in &epoch.cells {
                windows.add(*minute, dims, sums, &Grain::ALL);
            }
            windows.expire();
        }
        {
            let mut totals = write(&self.totals);
            for (_, dims, sums) in &epoch.cells {
                add_total(&mut totals, dims, sums);
            }
        }
        {
            let mut spent = write(&self.spent);
            for spend in &epoch.budget_spend {
                let sum = spent.entry((spend.budget, spend.period.start)).or_default();
                *sum = sum.checked_add(spend.amount).expect("MONEY-2: the store added the same sum");
            }
        }
        {
            let mut positions = lock(&self.positions);
            for (at, range) in &epoch.ranges {
                positions.insert(at.clone(), range.to);
                Counters::add(&self.counters.records, range.records);
                Counters::add(&self.counters.events, range.events);
                Counters::add(&self.counters.ledger_rows, range.ledger_rows);
                Counters::add(&self.counters.duplicates, range.duplicates);
                Counters::add(&self.counters.quarantined, range.quarantined);
            }
        }
        for (code, count) in &epoch.rejections {
            *lock(&self.rejections).entry(*code).or_default() += count;
        }
        Counters::add(&self.counters.epochs, 1);
        Counters::add(&self.counters.alerts, committed.alerts);
        Counters::add(&self.counters.throttles, committed.throttles);
        lock(&self.stage).observe(timings.stage);
        lock(&self.transaction).observe(timings.transaction);
        // An unknown outcome (epoch 0) may have raised alerts as well.
        if committed.alerts + committed.throttles > 0 || committed.epoch == 0 {
            self.changed.send_modify(|commits| *commits += 1);
        }
    }

    fn trouble(&self, trouble: Option<String>) {
        self.set_trouble("commit", trouble);
    }
}

impl crate::publish::relay::Observer for State {
    fn published(&self, messages: usize) {
        Counters::add(&self.counters.published, messages as u64);
    }

    fn trouble(&self, topic: &str, trouble: Option<String>) {
        self.set_trouble(&format!("topic {topic}"), trouble);
    }
}
