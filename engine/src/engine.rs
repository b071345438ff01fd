//! The embeddable face: start an engine in this process, give it events, ask it for costs, stop it.
//!
//! ```text
//!  start ─▶ lock data dir ─▶ store, bus, book ─▶ ┌─ recover ─▶ run pipeline ─┐  lost a cursor: drop memory, once more
//!                                                 └───────────◀──────────────┘
//!  stop  ─▶ drain, commit, relay what is left, release the lock
//! ```
//!
//! Limits: one engine a data directory, held by a file lock.

use std::{
    collections::BTreeSet,
    fs::File,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use costhelm_pricing::{Book, BookError, EventTime, Money};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    budget::{Budget, EffectiveThrottle, Period, ScopeOf, most_restrictive, period_of},
    bus::{
        Bus, BusError, NewRecord, StartAt, SubscribeOptions,
        embedded::{EmbeddedBus, EmbeddedOptions},
    },
    clock,
    commit::{
        Committer,
        recovery::{RecoveryError, RecoveryOptions, recover},
        store::{BudgetRules, CommitError, OutTopics, Store},
    },
    config::{BusKind, Config, Start},
    event::Dim,
    fold::{
        Folder, TimeRules,
        sums::{Grain, Sums},
        windows::{Retention, Windows},
    },
    pipeline::{self, RunError, RunOptions},
    publish::relay,
    state::State,
};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{path}: {error}")]
    DataDir { path: String, error: std::io::Error },
    #[error("{path} is in use by another engine; give each its own `data_dir`")]
    InUse { path: String },
    #[error("{0}")]
    Book(#[from] BookError),
    #[error("{0}")]
    BookFile(String),
    #[error(transparent)]
    Store(#[from] CommitError),
    #[error("recovery: {0}")]
    Recovery(#[from] RecoveryError),
    #[error("bus: {0}")]
    Bus(#[from] BusError),
    #[error("this build has no Kafka; build with the feature `kafka`, or set `bus.kind = \"embedded\"`")]
    NoKafka,
}

/// How often the embedded bus is relieved of old records.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// A running engine. Clones share it; [`Engine::stop`] ends it for all.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    book: Arc<Book>,
    store: Store,
    bus: Arc<dyn Bus>,
    /// The same bus, where it is the embedded one, whose old records are ours to remove.
    embedded: Option<Arc<EmbeddedBus>>,
    state: Arc<State>,
    rules: BudgetRules,
    stop: CancellationToken,
    running: std::sync::Mutex<Vec<JoinHandle<()>>>,
    _lock: File,
}

/// How one budget stands.
#[derive(Clone, Debug)]
pub struct BudgetStatus {
    pub budget: Budget,
    pub period: Period,
    pub spent: Money,
}

/// Totals by one dimension over a stretch of event time.
#[derive(Clone, Debug)]
pub struct Costs {
    pub grain: Grain,
    pub from: EventTime,
    pub to: EventTime,
    /// Largest cost first.
    pub rows: Vec<(String, Sums)>,
    pub total: Sums,
}

#[derive(Clone, Debug)]
pub struct Health {
    pub ready: bool,
    pub troubles: Vec<String>,
}

impl Engine {
    /// Starts an engine; returns once it has recovered and reads from the bus (or keeps trying to: see [`Engine::health`]).
    pub async fn start(config: Config) -> Result<Engine, StartError> {
        let data_dir: Arc<Path> = config.data_dir.as_path().into();
        let lock = lock_data_dir(&data_dir)?;
        let book = Arc::new(load_book(&config)?);
        let store = Store::open(&data_dir).await?;
        let (bus, embedded) = open_bus(&config, &data_dir).await?;
        let rules = BudgetRules {
            budgets: config.budgets.clone().into(),
            topics: OutTopics {
                alerts: config.topics.alerts.clone(),
                throttle: config.topics.throttle.clone(),
                quarantine: Some(config.topics.quarantine.clone()).filter(|topic| !topic.is_empty()),
                squad: Some(config.topics.squad.clone()).filter(|topic| !topic.is_empty()),
            },
            instance: config.instance.clone(),
        };
        let state = Arc::new(State::new(Windows::new(retention(&config))));
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            config,
            book,
            store,
            bus,
            embedded,
            state,
            rules,
            stop,
            running: std::sync::Mutex::default(),
            _lock: lock,
        });
        let parts = inner.recover(&data_dir).await?;
        inner.store.reconcile(&inner.rules, clock::now()).await?;
        inner.reload_throttles().await?;
        let mut tasks = vec![
            tokio::spawn(inner.clone().supervise(data_dir, parts)),
            tokio::spawn(inner.clone().keep_time()),
            tokio::spawn(inner.clone().trim_bus()),
        ];
        for topic in inner.out_topics().await? {
            tasks.push(tokio::spawn(relay::run(
                topic,
                inner.store.clone(),
                inner.bus.clone(),
                inner.state.changes(),
                inner.state.clone(),
                clock::now,
                inner.stop.child_token(),
            )));
        }
        inner.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(tasks);
        Ok(Engine { inner })
    }

    /// Commits what has been read, sends what must leave, and ends. Waits for all of it.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        let running =
            std::mem::take(&mut *self.inner.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for task in running {
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!("a part of the engine failed while stopping: {error}");
            }
        }
    }

    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    pub fn book(&self) -> &Book {
        &self.inner.book
    }

    pub fn state(&self) -> &State {
        &self.inner.state
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    pub fn bus(&self) -> &Arc<dyn Bus> {
        &self.inner.bus
    }

    /// Appends usage events, one JSON object each, to the events topic; one result an event, `Ok` once it is durable.
    pub async fn append(&self, events: Vec<NewRecord>) -> Vec<Result<(), BusError>> {
        self.inner.bus.append(events).await
    }

    pub fn budgets(&self) -> Vec<BudgetStatus> {
        let now = clock::now();
        let status = |(index, budget): (usize, &Budget)| {
            let period = period_of(budget.period, budget.zone, now);
            let spent = self.inner.state.spent(index, period.start);
            BudgetStatus { budget: budget.clone(), period, spent }
        };
        self.inner.rules.budgets.iter().enumerate().map(status).collect()
    }

    /// What an agent must obey now; `None` when nothing restricts it.
    pub fn throttle(&self, agent: &ScopeOf<'_>) -> Option<EffectiveThrottle> {
        most_restrictive(self.inner.state.throttles.load().iter(), agent, clock::now())
    }

    /// Totals over the last `window` by one dimension, for cells that have all of `only`. The window's start is rounded down
    /// to a whole window of the grain that memory holds.
    pub fn costs(&self, by: Dim, window: Duration, only: &[(Dim, String)]) -> Costs {
        let to = clock::now();
        let from = EventTime(to.0.saturating_sub(i64::try_from(window.as_micros()).unwrap_or(i64::MAX)));
        let kept = &self.inner.config.windows;
        let grain = if window <= kept.minutes_kept {
            Grain::Minute
        } else if window <= kept.hours_kept {
            Grain::Hour
        } else if window <= kept.days_kept {
            Grain::Day
        } else {
            Grain::Month
        };
        let from = EventTime(grain.window(from).0);
        let mut rows = std::collections::HashMap::<String, Sums>::new();
        let mut total = Sums::default();
        let windows = self.inner.state.windows();
        for (_, dims, sums) in windows.cells_between(grain, from, EventTime(i64::MAX)) {
            if only.iter().all(|(dim, value)| dims.get(*dim) == value) {
                rows.entry(dims.get(by).to_owned()).or_default().add(&sums);
                total.add(&sums);
            }
        }
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_by(|(a_name, a), (b_name, b)| b.cost.cmp(&a.cost).then_with(|| a_name.cmp(b_name)));
        Costs { grain, from, to, rows, total }
    }

    /// Whether the engine is doing its work, and what keeps it from it.
    pub fn health(&self) -> Health {
        let mut troubles = self.inner.state.troubles();
        troubles.extend(self.inner.bus.health().trouble);
        Health { ready: troubles.is_empty() && !self.inner.stop.is_cancelled(), troubles }
    }

    /// Records that the bus holds and that are not committed yet; `None` while nothing is assigned.
    pub fn lag(&self) -> Option<u64> {
        let ends = self.inner.bus.health().end_offsets;
        let positions = self.inner.state.positions();
        let behind = |(at, end): &(_, i64)| end.saturating_sub(positions.get(at).copied().unwrap_or(0)).max(0) as u64;
        (!ends.is_empty()).then(|| ends.iter().map(behind).sum())
    }

    /// Waits until everything on the bus is committed; false when `patience` was not enough.
    pub async fn caught_up(&self, patience: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + patience;
        // The bus tells the end of its log with some delay: twice in a row is meant.
        let mut seen = 0;
        while tokio::time::Instant::now() < deadline {
            seen = if self.lag() == Some(0) { seen + 1 } else { 0 };
            if seen == 2 {
                return true;
            }
            tokio::time::sleep(self.inner.bus.health_delay()).await;
        }
        false
    }

    pub fn prometheus_text(&self) -> String {
        crate::serve::metrics::render(self)
    }
}

/// What one run of the pipeline starts from.
struct Parts {
    folder: Folder,
    committer: Committer,
}

impl Inner {
    async fn recover(&self, data_dir: &Arc<Path>) -> Result<Parts, RecoveryError> {
        let config = &self.config;
        let options = RecoveryOptions {
            retention: retention(config),
            dedup_horizon_us: micros(config.dedup.horizon),
            dedup_ids_max: config.dedup.ids_max,
            dedup_seed: rand::random(),
            late_after_us: micros(config.time.late_after),
        };
        let started = std::time::Instant::now();
        let recovered = recover(&self.store, data_dir, &self.rules.budgets, options).await?;
        if recovered.files_read + recovered.orphans_removed > 0 {
            tracing::info!(
                "recovered from {} files in {} ms: {} event ids, {} window cells; {} orphaned files removed",
                recovered.files_read,
                started.elapsed().as_millis(),
                recovered.dedup.len(),
                recovered.windows.cells(),
                recovered.orphans_removed,
            );
        }
        self.state.set_positions(self.store.cursors().await?.into_iter().map(|(at, next, _)| (at, next)));
        self.state.recovered(recovered.windows, recovered.spent.iter().copied());
        let folder = Folder::new(
            TimeRules { future_skew_us: micros(config.time.future_skew) },
            self.book.clone(),
            self.rules.budgets.clone(),
            recovered.spent,
            recovered.dedup,
            recovered.watermarks,
            recovered.clock,
        );
        let committer = Committer::new(
            self.store.clone(),
            data_dir.clone(),
            self.rules.clone(),
            self.book.revision().to_owned(),
            config.windows.rollup_interval,
            recovered.unrolled,
            clock::now,
        );
        Ok(Parts { folder, committer })
    }

    /// Runs the pipeline until the engine is stopped, and again from what is committed whenever it ends for another reason.
    async fn supervise(self: Arc<Self>, data_dir: Arc<Path>, first: Parts) {
        let mut parts = Some(first);
        while !self.stop.is_cancelled() {
            let problem = match self.run_once(&data_dir, parts.take()).await {
                Ok(()) => continue,
                Err(problem) => problem,
            };
            self.state.counters.conflicts.fetch_add(1, Ordering::Relaxed);
            self.state.set_trouble("pipeline", Some(format!("{problem}; starting again from what is committed")));
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    async fn run_once(self: &Arc<Self>, data_dir: &Arc<Path>, parts: Option<Parts>) -> Result<(), String> {
        let Parts { folder, committer } = match parts {
            Some(parts) => parts,
            None => self.recover(data_dir).await.map_err(|error| format!("recovery: {error}"))?,
        };
        let config = &self.config;
        let options = SubscribeOptions {
            topics: vec![config.topics.events.clone()],
            start_at: match config.bus.start_at {
                Start::Earliest => StartAt::Earliest,
                Start::Latest => StartAt::Latest,
            },
            batch_records_max: 4096,
            batch_bytes_max: 4 << 20,
            batch_wait: Duration::from_millis(2),
            queue_batches_max: 8,
            revoke_wait: Duration::from_secs(10),
        };
        let subscription =
            self.bus.subscribe(options, Arc::new(self.store.clone())).map_err(|error| format!("bus: {error}"))?;
        self.state.set_trouble("pipeline", None);
        let options = RunOptions { interval: config.commit.interval, rows: config.commit.rows };
        let ran = pipeline::run(
            folder,
            committer,
            subscription,
            options,
            self.state.clone(),
            clock::now,
            self.stop.child_token(),
        );
        ran.await.map_err(|error: RunError| error.to_string())
    }

    /// Ends throttles when their period ends, and keeps what is served in step with the store.
    async fn keep_time(self: Arc<Self>) {
        let mut boundary = self.next_boundary();
        let mut changes = self.state.changes();
        loop {
            let wait = Duration::from_micros((boundary.0 - clock::now().0).clamp(0, 1_000_000) as u64);
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = changes.changed() => {}
                () = tokio::time::sleep(wait) => {
                    if clock::now() < boundary {
                        continue;
                    }
                    if let Err(error) = self.store.reconcile(&self.rules, clock::now()).await {
                        tracing::warn!("the end of a budget period could not be handled yet: {error}");
                        continue;
                    }
                    boundary = self.next_boundary();
                }
            }
            if let Err(error) = self.reload_throttles().await {
                tracing::warn!("throttles could not be read back: {error}");
            }
        }
    }

    /// The topics that are written, and those that an earlier configuration has left messages for.
    async fn out_topics(&self) -> Result<BTreeSet<String>, CommitError> {
        let OutTopics { alerts, throttle, quarantine, squad } = self.rules.topics.clone();
        let mut topics: BTreeSet<String> = self.store.outbox_topics().await?.into_iter().collect();
        topics.extend([Some(alerts), Some(throttle), quarantine, squad].into_iter().flatten());
        Ok(topics)
    }

    /// Removes records from the embedded bus that are committed and older than its retention.
    async fn trim_bus(self: Arc<Self>) {
        let Some(bus) = &self.embedded else { return };
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(TRIM_EVERY) => {}
            }
            let trimmed = match self.store.cursors().await {
                Ok(cursors) => {
                    let below: Vec<_> = cursors.into_iter().map(|(at, next, _)| (at, next)).collect();
                    bus.trim(&below, self.config.bus.embedded.retention).await.map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            match trimmed {
                Ok(0) => {}
                Ok(records) => tracing::info!("embedded bus: {records} records past their retention removed"),
                Err(problem) => tracing::warn!("embedded bus: old records could not be removed yet: {problem}"),
            }
        }
    }

    /// When the first of the running budget periods ends.
    fn next_boundary(&self) -> EventTime {
        let now = clock::now();
        let ends = self.rules.budgets.iter().map(|budget| period_of(budget.period, budget.zone, now).end);
        ends.min().unwrap_or(EventTime(i64::MAX))
    }

    async fn reload_throttles(&self) -> Result<(), CommitError> {
        self.state.throttles.store(Arc::new(self.store.throttles().await?));
        Ok(())
    }
}

fn retention(config: &Config) -> Retention {
    let windows = &config.windows;
    Retention {
        minute_us: micros(windows.minutes_kept),
        hour_us: micros(windows.hours_kept),
        day_us: micros(windows.days_kept),
        month_us: micros(windows.months_kept),
        cells_max: windows.cells_max,
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

fn lock_data_dir(data_dir: &Path) -> Result<File, StartError> {
    let failed = |error| StartError::DataDir { path: data_dir.display().to_string(), error };
    std::fs::create_dir_all(data_dir).map_err(failed)?;
    let lock = File::options().create(true).truncate(false).write(true).open(data_dir.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::InUse { path: data_dir.display().to_string() }),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The built-in prices and the books of the configuration, the later over the earlier.
pub fn load_book(config: &Config) -> Result<Book, StartError> {
    let mut book = if config.prices.builtin { Some(Book::builtin()?) } else { None };
    for path in &config.prices.books {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| StartError::BookFile(format!("{name}: {error}")))?;
        let over = Book::from_toml(&text, &name)?;
        book = Some(match book {
            Some(book) => book.overlay(over),
            None => over,
        });
    }
    book.ok_or_else(|| StartError::BookFile("no price book is configured".into()))
}

type OpenBus = (Arc<dyn Bus>, Option<Arc<EmbeddedBus>>);

async fn open_bus(config: &Config, data_dir: &Path) -> Result<OpenBus, StartError> {
    match config.bus.kind {
        BusKind::Embedded => {
            let partitions_default = u32::from(config.bus.embedded.partitions);
            let options = EmbeddedOptions { partitions_default, ..EmbeddedOptions::default() };
            let bus = Arc::new(EmbeddedBus::open(data_dir.join("bus.db"), options).await?);
            Ok((bus.clone(), Some(bus)))
        }
        #[cfg(feature = "kafka")]
        BusKind::Kafka => {
            use crate::bus::kafka::{KafkaBus, KafkaOptions};
            let kafka = &config.bus.kafka;
            let bus = KafkaBus::new(KafkaOptions {
                brokers: kafka.brokers.clone(),
                group_id: kafka.group_id.clone(),
                client_id: config.instance.clone(),
                properties: kafka.properties.clone(),
            })?;
            Ok((Arc::new(bus), None))
        }
        #[cfg(not(feature = "kafka"))]
        BusKind::Kafka => Err(StartError::NoKafka),
    }
}
