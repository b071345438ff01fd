//! A subscription's task: asks for positions, then goes round its partitions, a batch from each that has something new.
//!
//! | stored position                   | what happens                                                          |
//! | --------------------------------- | --------------------------------------------------------------------- |
//! | none                              | begins at the first or the next offset, as `start_at` says            |
//! | within first_offset..=next_offset | begins there                                                          |
//! | elsewhere                         | the partition stands still, `health` says why, asked again every 5 s  |
//!
//! A batch never waits for more records: while the reader of the events is busy, commits pile up and the next batch is larger.

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use sqlx::{Connection, Row, SqliteConnection};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    ReaderLock, Shared,
    chunk::{CHUNK_BYTES_MAX, ChunkPlace, Room, unpack},
    writer::{PartitionRow, ensure_topic, partitions_of},
};
use crate::bus::{Batch, BusError, BusEvent, Positions, StartAt, SubscribeOptions, TopicPartition};

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often a partition that stands still is looked at again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Rows one query may bring; small chunks are read many at a time.
const CHUNKS_MAX: usize = 1_024;
/// Ranges in an arena are `u32`.
const ARENA_BYTES_MAX: usize = 1 << 30;

pub(super) struct Reader {
    shared: Arc<Shared>,
    number: u64,
    options: SubscribeOptions,
    positions: Arc<dyn Positions>,
    events: mpsc::Sender<BusEvent>,
    partitions: Vec<Reading>,
    trouble: Option<String>,
    ask_again: Option<Instant>,
}

struct Reading {
    id: i64,
    at: TopicPartition,
    /// Offset of the next record, once that is settled.
    next: Option<i64>,
    end: i64,
    /// Why it stands still.
    stuck: Option<String>,
    /// Bytes in a chunk, as last seen: says how many rows make a batch.
    chunk_bytes: usize,
}

/// Why the reading ended.
enum End {
    /// Nobody listens any more.
    Stopped,
    Failed(BusError),
}

impl From<BusError> for End {
    fn from(error: BusError) -> Self {
        Self::Failed(error)
    }
}

impl Reader {
    pub fn new(
        shared: Arc<Shared>,
        number: u64,
        options: SubscribeOptions,
        positions: Arc<dyn Positions>,
        events: mpsc::Sender<BusEvent>,
    ) -> Self {
        Self { shared, number, options, positions, events, partitions: Vec::new(), trouble: None, ask_again: None }
    }

    pub async fn run(mut self, stop: CancellationToken, lock: Arc<ReaderLock>) {
        stop.run_until_cancelled_owned(self.read_for_ever()).await;
        self.shared.state().readers.remove(&self.number);
        // The lock must outlast the last read.
        drop(lock);
    }

    async fn read_for_ever(&mut self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let before = Instant::now();
            match self.read().await {
                End::Stopped => return,
                End::Failed(error) => self.tell(Some(error.to_string())),
            }
            if before.elapsed() > BACKOFF_MAX {
                backoff = BACKOFF_MIN;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Shows the trouble, or that there is none; logs a change.
    fn tell(&mut self, trouble: Option<String>) {
        if self.trouble == trouble {
            return;
        }
        match &trouble {
            Some(words) => tracing::warn!("{words}; trying again"),
            None => tracing::info!("{}", self.shared.trouble("reading again")),
        }
        self.trouble.clone_from(&trouble);
        if let Some(health) = self.shared.state().readers.get_mut(&self.number) {
            health.trouble = trouble;
        }
    }

    async fn read(&mut self) -> End {
        match self.connect_and_read().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn connect_and_read(&mut self) -> Result<std::convert::Infallible, End> {
        let shared = Arc::clone(&self.shared);
        let mut connection = shared.connect().await?;
        if self.partitions.is_empty() {
            self.find_partitions(&mut connection).await?;
        }
        loop {
            let appended = shared.appended.notified();
            tokio::pin!(appended);
            // From here on no append of this process goes unnoticed, whatever is looked at meanwhile.
            appended.as_mut().enable();
            self.refresh(&mut connection).await?;
            self.settle().await?;
            let mut found = false;
            for i in 0..self.partitions.len() {
                found |= self.read_batch(&mut connection, i).await?;
            }
            let stuck = self.partitions.iter().find_map(|reading| reading.stuck.clone());
            self.tell(stuck);
            if !found {
                tokio::select! {
                    () = appended => {}
                    () = tokio::time::sleep(shared.options.poll) => {}
                    () = self.events.closed() => return Err(End::Stopped),
                }
            }
        }
    }

    async fn find_partitions(&mut self, connection: &mut SqliteConnection) -> Result<(), End> {
        let failed = |e: sqlx::Error| self.shared.sql_error("cannot look up topics", &e);
        let mut found = Vec::new();
        for topic in &self.options.topics {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            let rows = ensure_topic(&mut transaction, topic, self.shared.options.partitions_default).await;
            let rows = rows.map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
            let name: Arc<str> = topic.as_str().into();
            found.extend(rows.into_iter().map(|row| Reading {
                id: row.id,
                at: TopicPartition { topic: Arc::clone(&name), partition: row.partition },
                next: None,
                end: row.next_offset,
                stuck: None,
                chunk_bytes: CHUNK_BYTES_MAX,
            }));
        }
        self.partitions = found;
        Ok(())
    }

    /// Looks where the partitions end by now.
    async fn refresh(&mut self, connection: &mut SqliteConnection) -> Result<(), End> {
        let mut changed = false;
        for topic in &self.options.topics {
            let rows = partitions_of(connection, topic)
                .await
                .map_err(|e| self.shared.sql_error("cannot look for new records", &e))?;
            for row in rows {
                if let Some(reading) = self.partitions.iter_mut().find(|reading| reading.id == row.id) {
                    changed |= reading.end != row.next_offset;
                    reading.end = row.next_offset;
                }
            }
        }
        if let Some(health) = self.shared.state().readers.get_mut(&self.number)
            && (changed || health.end_offsets.is_empty())
        {
            health.end_offsets = self.partitions.iter().map(|reading| (reading.at.clone(), reading.end)).collect();
        }
        Ok(())
    }

    /// Finds where to begin in each partition that has not begun, and tells the subscriber.
    async fn settle(&mut self) -> Result<(), End> {
        if self.partitions.iter().all(|reading| reading.next.is_some())
            || self.ask_again.is_some_and(|at| Instant::now() < at)
        {
            return Ok(());
        }
        let waiting: Vec<TopicPartition> =
            self.partitions.iter().filter(|r| r.next.is_none()).map(|r| r.at.clone()).collect();
        let stored = self.positions.next_offsets(&waiting).await?;
        if stored.len() != waiting.len() {
            let (asked, got) = (waiting.len(), stored.len());
            return Err(BusError::Retry(format!("asked for {asked} positions, the store gave {got}")).into());
        }
        let mut connection = self.shared.connect().await?;
        let mut begun = Vec::new();
        for (at, stored) in waiting.into_iter().zip(stored) {
            // Looked up after the positions: a commit cannot be ahead of what is read here.
            let rows = partitions_of(&mut connection, &at.topic)
                .await
                .map_err(|e| self.shared.sql_error("cannot look up offsets", &e))?;
            let Some(row) = rows.into_iter().find(|row| row.partition == at.partition) else {
                continue;
            };
            let Some(reading) = self.partitions.iter_mut().find(|reading| reading.at == at) else {
                continue;
            };
            match begin_at(&row, stored, self.options.start_at) {
                Ok(next) => {
                    reading.next = Some(next);
                    reading.stuck = None;
                    begun.push((at, next));
                }
                Err(why) => reading.stuck = Some(self.shared.trouble(format_args!("{at} stands still: {why}"))),
            }
        }
        let _ = connection.close().await;
        self.ask_again =
            self.partitions.iter().any(|reading| reading.next.is_none()).then(|| Instant::now() + ASK_AGAIN);
        if !begun.is_empty() {
            self.events.send(BusEvent::Assigned(begun)).await.map_err(|_| End::Stopped)?;
        }
        Ok(())
    }

    /// Sends one batch of partition `i`; `false` when it has nothing new.
    async fn read_batch(&mut self, connection: &mut SqliteConnection, i: usize) -> Result<bool, End> {
        let reading = &mut self.partitions[i];
        let Some(from) = reading.next.filter(|next| *next < reading.end) else {
            return Ok(false);
        };
        let records_max = self.options.batch_records_max.max(1);
        let bytes_max = self.options.batch_bytes_max.clamp(1, ARENA_BYTES_MAX);
        // Room before the query: the subscriber sets the pace (BOUND-1).
        let permit = self.events.reserve().await.map_err(|_| End::Stopped)?;
        let limit = (bytes_max / reading.chunk_bytes.max(1) + 1).min(CHUNKS_MAX);
        let expected_records = usize::try_from(reading.end - from).unwrap_or(usize::MAX).min(records_max);
        let mut batch = Batch {
            at: reading.at.clone(),
            from,
            to: from,
            records: Vec::with_capacity(expected_records.min(65_536)),
            arena: Vec::with_capacity((limit * reading.chunk_bytes).min(bytes_max.saturating_add(CHUNK_BYTES_MAX))),
        };
        let failed = |e: sqlx::Error| self.shared.sql_error("cannot read", &e);
        let mut rows = sqlx::query(
            "SELECT from_offset, to_offset, timestamp_ms, body FROM chunks
             WHERE partition_id = ? AND to_offset > ? ORDER BY to_offset LIMIT ?",
        )
        .bind(reading.id)
        .bind(from)
        .bind(limit as i64)
        .fetch(&mut *connection);
        while batch.records.len() < records_max && batch.arena.len() < bytes_max {
            let Some(row) = rows.try_next().await.map_err(failed)? else {
                break;
            };
            let place = ChunkPlace {
                from: row.try_get(0).map_err(failed)?,
                to: row.try_get(1).map_err(failed)?,
                timestamp_ms: row.try_get(2).map_err(failed)?,
            };
            if place.from > batch.to {
                let words = format!("{}: records {}..{} are missing", reading.at, batch.to, place.from);
                return Err(BusError::Retry(self.shared.trouble(words)).into());
            }
            let body: &[u8] = row.try_get(3).map_err(failed)?;
            reading.chunk_bytes = (reading.chunk_bytes * 3 + body.len()) / 4;
            let room = Room { records: records_max - batch.records.len(), bytes: bytes_max - batch.arena.len() };
            batch.to = unpack(body, place, batch.to, room, &mut batch.arena, &mut batch.records)
                .map_err(|e| BusError::Retry(self.shared.trouble(format_args!("{}: {e}", reading.at))))?;
        }
        drop(rows);
        if batch.to == from {
            let words = format!("{}: records {from}..{} are missing", reading.at, reading.end);
            return Err(BusError::Retry(self.shared.trouble(words)).into());
        }
        reading.next = Some(batch.to);
        permit.send(BusEvent::Batch(batch));
        Ok(true)
    }
}

/// The table at the top of this file.
fn begin_at(row: &PartitionRow, stored: Option<i64>, start_at: StartAt) -> Result<i64, String> {
    let PartitionRow { first_offset, next_offset, .. } = *row;
    match stored {
        None if start_at == StartAt::Earliest => Ok(first_offset),
        None => Ok(next_offset),
        Some(next) if (first_offset..=next_offset).contains(&next) => Ok(next),
        Some(next) if next < first_offset => {
            Err(format!("its committed offset is {next}, but records before {first_offset} have been deleted"))
        }
        Some(next) => Err(format!(
            "its committed offset is {next}, but the log ends at {next_offset}: the log is not the one that was committed from"
        )),
    }
}
