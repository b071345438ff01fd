//! The embedded log: the bus of one machine that needs no broker, in one SQLite file.
//!
//! Appends from all callers meet in a bounded queue. One writer task takes whatever waits there, writes it in one transaction
//! and answers after COMMIT (WAL, `synchronous = FULL`), so that a thousand waiting callers share one sync. A subscription is a
//! task that walks its partitions from their positions, chunk by chunk, straight into the arenas of its batches. It is woken by
//! the writer, and looks every [`EmbeddedOptions::poll`] for what another process has appended.
//!
//! Any number of processes may append: SQLite serialises their transactions, and offsets are given inside of those. One process
//! reads: the first subscription locks `<path>.reader`, and a second process is told so. The lock is the operating system's and
//! ends with the process that holds it.
//!
//! Limits: the queue holds [`EmbeddedOptions::queue_bytes_max`] bytes and [`EmbeddedOptions::queue_requests_max`] requests, and
//! answers `Retry` beyond them; a record holds at most [`EmbeddedOptions::record_bytes_max`] bytes; a commit takes at most
//! 65,536 records or 16 MiB; a locked file is waited for 2 s, then the answer is `Retry`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::future::BoxFuture;
use sqlx::{
    ConnectOptions, Connection,
    sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Bus, BusError, BusHealth, NewRecord, Positions, SubscribeOptions, Subscription, TopicPartition};

mod chunk;
mod placement;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

/// What `schema.sql` builds. A file of another version is refused.
const SCHEMA_VERSION: i64 = 1;
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
const TOPIC_NAME_MAX: usize = 249;
/// What a record weighs in the queue besides its bytes.
const RECORD_OVERHEAD: usize = 64;

#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Partitions of a topic that is created by its first append or subscription. A topic keeps the count it was created with.
    pub partitions_default: u32,
    /// A larger record (key, value and headers) is refused.
    pub record_bytes_max: usize,
    pub queue_bytes_max: usize,
    pub queue_requests_max: usize,
    /// How often a reader looks for appends of other processes.
    pub poll: Duration,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            partitions_default: 4,
            record_bytes_max: 1024 * 1024,
            queue_bytes_max: 32 * 1024 * 1024,
            queue_requests_max: 4_096,
            poll: Duration::from_millis(25),
        }
    }
}

/// The bus in one SQLite file.
pub struct EmbeddedBus {
    shared: Arc<Shared>,
    requests: mpsc::Sender<writer::Request>,
    /// Bytes that may still wait in the queue.
    room: Arc<Semaphore>,
}

/// What the bus, its writer and its readers have in common.
struct Shared {
    path: PathBuf,
    options: EmbeddedOptions,
    /// Told after every commit of this process.
    appended: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    writer_trouble: Option<String>,
    /// Keyed by the number of the subscription.
    readers: BTreeMap<u64, ReaderHealth>,
    readers_started: u64,
    /// Held while any subscription of this bus runs.
    reader_lock: Weak<ReaderLock>,
}

#[derive(Default)]
struct ReaderHealth {
    trouble: Option<String>,
    end_offsets: Vec<(TopicPartition, i64)>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is a single assignment: a panic elsewhere cannot leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self, what: impl std::fmt::Display) -> String {
        format!("embedded log {}: {what}", self.path.display())
    }

    fn sql_error(&self, doing: &str, error: &sqlx::Error) -> BusError {
        BusError::Retry(self.trouble(format_args!("{doing}: {error}")))
    }

    async fn connect(&self) -> Result<SqliteConnection, BusError> {
        connect(&self.path).await.map_err(|e| self.sql_error("cannot open the file", &e))
    }
}

async fn connect(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        // Chunks are large: larger pages make shorter overflow chains.
        .page_size(16 * 1024)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL, not NORMAL: an answered append must survive a loss of power.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("journal_size_limit", "67108864")
        .disable_statement_logging()
        .connect()
        .await
}

impl EmbeddedBus {
    /// Opens the log, and creates it with its folder where there is none. Call it within a tokio runtime: the writer is a task.
    pub async fn open(path: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Self, BusError> {
        let path = path.as_ref().to_owned();
        if options.partitions_default == 0 {
            return Err(BusError::Refused("partitions_default is 0, expected at least 1".to_owned()));
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| {
                BusError::Refused(format!("embedded log {}: cannot create its folder: {e}", path.display()))
            })?;
        }
        let queue_bytes_max = options.queue_bytes_max.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let (requests, queue) = mpsc::channel(options.queue_requests_max.max(1));
        let shared = Arc::new(Shared { path, options, appended: Notify::new(), state: Mutex::new(State::default()) });
        let mut connection = shared.connect().await?;
        prepare_schema(&shared, &mut connection).await?;
        tokio::spawn(writer::run(Arc::clone(&shared), connection, queue));
        Ok(Self { shared, requests, room: Arc::new(Semaphore::new(queue_bytes_max)) })
    }

    /// Deletes the chunks of each named partition that lie wholly below its offset and are older than `older_than`. Name a topic
    /// that nobody reads through positions with `i64::MAX`. Answers how many records went.
    ///
    /// Unnamed partitions keep everything: what has not been committed is never deleted.
    pub async fn trim(&self, below: &[(TopicPartition, i64)], older_than: Duration) -> Result<u64, BusError> {
        let before_ms = now_ms().saturating_sub(i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX));
        let mut connection = self.shared.connect().await?;
        let trimmed =
            writer::trim(&mut connection, below, before_ms).await.map_err(|e| self.shared.sql_error("cannot trim", &e));
        // Closing without this leaves the checkpoint to chance; the error would only repeat the one above.
        let _ = connection.close().await;
        trimmed
    }

    /// Checks a record and says what it weighs in the queue.
    fn weigh(&self, record: &NewRecord) -> Result<usize, BusError> {
        check_topic(&record.topic)?;
        let max = self.shared.options.record_bytes_max;
        match chunk::packed_len(record) {
            Some(len) if len <= max => Ok(len + RECORD_OVERHEAD),
            Some(len) => Err(BusError::Refused(format!(
                "a record for {} is {len} bytes, expected at most {max} bytes",
                record.topic
            ))),
            None => Err(BusError::Refused(format!(
                "a record for {} has more than 65,535 headers, a header name of more than 65,535 bytes, or 4 GiB in one field",
                record.topic
            ))),
        }
    }

    /// Hands the records to the writer, or says why not.
    fn enqueue(
        &self,
        records: Vec<NewRecord>,
        bytes: usize,
    ) -> Result<oneshot::Receiver<Result<(), BusError>>, BusError> {
        let full = |what| BusError::Retry(self.shared.trouble(format_args!("the queue of appends is full: {what}")));
        // A request larger than the whole queue is let in when it is alone, or it never would be.
        let bytes = bytes.min(self.shared.options.queue_bytes_max).min(u32::MAX as usize) as u32;
        let room = Arc::clone(&self.room)
            .try_acquire_many_owned(bytes)
            .map_err(|_| full(format!("{bytes} bytes do not fit into what is left")))?;
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(writer::Request { records, answer, _room: room }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => {
                full(format!("{} requests wait", self.shared.options.queue_requests_max))
            }
            mpsc::error::TrySendError::Closed(_) => {
                BusError::Retry(self.shared.trouble("its writer has ended with its runtime"))
            }
        })?;
        Ok(answered)
    }

    fn lock_for_reading(&self) -> Result<Arc<ReaderLock>, BusError> {
        let mut state = self.shared.state();
        if let Some(lock) = state.reader_lock.upgrade() {
            return Ok(lock);
        }
        let lock = Arc::new(ReaderLock::take(&self.shared)?);
        state.reader_lock = Arc::downgrade(&lock);
        Ok(lock)
    }
}

impl Bus for EmbeddedBus {
    /// `Retry` when another process reads this log; call it within a tokio runtime.
    fn subscribe(&self, options: SubscribeOptions, positions: Arc<dyn Positions>) -> Result<Subscription, BusError> {
        options.topics.iter().try_for_each(|topic| check_topic(topic))?;
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| BusError::Refused("the embedded log must be read within a tokio runtime".to_owned()))?;
        let lock = self.lock_for_reading()?;
        let (sender, events) = mpsc::channel(options.queue_batches_max.max(1));
        let stop = CancellationToken::new();
        let number = {
            let mut state = self.shared.state();
            state.readers_started += 1;
            let number = state.readers_started;
            state.readers.insert(number, ReaderHealth::default());
            number
        };
        let reader = reader::Reader::new(Arc::clone(&self.shared), number, options, positions, sender);
        runtime.spawn(reader.run(stop.clone(), lock));
        Ok(Subscription { events, _stop: stop.drop_guard() })
    }

    fn append<'a>(&'a self, records: Vec<NewRecord>) -> BoxFuture<'a, Vec<Result<(), BusError>>> {
        Box::pin(async move {
            let weights: Vec<_> = records.iter().map(|record| self.weigh(record)).collect();
            let bytes = weights.iter().flatten().sum();
            let good = records.into_iter().zip(&weights).filter(|(_, weight)| weight.is_ok()).map(|(r, _)| r).collect();
            let outcome = match self.enqueue(good, bytes) {
                Ok(answered) => answered.await.unwrap_or_else(|_| {
                    Err(BusError::Retry(self.shared.trouble("its writer ended before it answered")))
                }),
                Err(error) => Err(error),
            };
            weights.into_iter().map(|weight| weight.and_then(|_| outcome.clone())).collect()
        })
    }

    fn health_delay(&self) -> Duration {
        self.shared.options.poll * 2
    }

    fn health(&self) -> BusHealth {
        let state = self.shared.state();
        let reader_trouble = || state.readers.values().find_map(|reader| reader.trouble.clone());
        BusHealth {
            trouble: state.writer_trouble.clone().or_else(reader_trouble),
            end_offsets: state.readers.values().flat_map(|reader| reader.end_offsets.clone()).collect(),
        }
    }
}

/// Builds the tables in a new file, and checks the version of an old one.
async fn prepare_schema(shared: &Shared, connection: &mut SqliteConnection) -> Result<(), BusError> {
    let failed = |e: sqlx::Error| shared.sql_error("cannot prepare its tables", &e);
    // IMMEDIATE: of two processes that create the file at once, one waits and then finds the tables.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *transaction).await.map_err(failed)?;
    match version {
        SCHEMA_VERSION => Ok(()),
        0 => {
            sqlx::raw_sql(include_str!("schema.sql")).execute(&mut *transaction).await.map_err(failed)?;
            // `SCHEMA_VERSION`: a pragma takes no parameters.
            sqlx::raw_sql("PRAGMA user_version = 1").execute(&mut *transaction).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)
        }
        other => Err(BusError::Refused(shared.trouble(format_args!(
            "its tables have version {other}, expected {SCHEMA_VERSION}: another release of costhelm wrote it"
        )))),
    }
}

/// The same names that Kafka takes.
fn check_topic(name: &str) -> Result<(), BusError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=TOPIC_NAME_MAX).contains(&name.len()) && name.bytes().all(legal) && name != "." && name != ".." {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    Err(BusError::Refused(format!(
        "topic {shown:?}: expected 1 to {TOPIC_NAME_MAX} of the characters a-z A-Z 0-9 . _ -"
    )))
}

fn now_ms() -> i64 {
    crate::clock::now().0.div_euclid(1000)
}

/// The right to read the log, one process at a time.
struct ReaderLock {
    /// The lock ends when the file is closed, by whatever end the process meets.
    _file: File,
}

impl ReaderLock {
    fn take(shared: &Shared) -> Result<Self, BusError> {
        let mut name = shared.path.clone().into_os_string();
        name.push(".reader");
        let path = PathBuf::from(name);
        let failed =
            |e: std::io::Error| BusError::Retry(shared.trouble(format_args!("cannot lock {}: {e}", path.display())));
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = (&file).take(20).read_to_string(&mut holder);
                return Err(BusError::Retry(shared.trouble(format_args!(
                    "process {} reads it already, and only one process may ({} is locked)",
                    holder.trim(),
                    path.display()
                ))));
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(failed(e)),
        }
        // Only for the message above; the lock stands without it.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}
