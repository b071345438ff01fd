//! The one task that appends: takes what waits, packs it into chunks by partition, commits, answers. And trimming.

use std::{collections::HashMap, sync::Arc};

use sqlx::{Connection, Row, SqliteConnection};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    Shared,
    chunk::{ChunkBuilder, packed_len},
    now_ms,
    placement::Placement,
};
use crate::bus::{BusError, NewRecord, TopicPartition};

const COMMIT_RECORDS_MAX: usize = 65_536;
const COMMIT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many chunks one trimming transaction takes, so that appends need not wait long for it.
const TRIM_CHUNKS_MAX: usize = 256;

pub(super) struct Request {
    pub records: Vec<NewRecord>,
    pub answer: oneshot::Sender<Result<(), BusError>>,
    /// The request's share of the queue, given back when it has been answered.
    pub _room: OwnedSemaphorePermit,
}

/// Runs until the bus is dropped and its queue is empty.
pub(super) async fn run(shared: Arc<Shared>, mut connection: SqliteConnection, mut queue: mpsc::Receiver<Request>) {
    let mut topics = Topics::default();
    while let Some(first) = queue.recv().await {
        let group = gather(first, &mut queue);
        let outcome = match commit(&mut connection, &mut topics, &shared, &group).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // Topics of the transaction that was rolled back do not exist.
                topics = Topics::default();
                if connection.ping().await.is_err()
                    && let Ok(fresh) = shared.connect().await
                {
                    connection = fresh;
                }
                Err(shared.sql_error("cannot append, the sender may try again", &error))
            }
        };
        let trouble = outcome.as_ref().err().map(ToString::to_string);
        if let Some(words) = &trouble
            && shared.state().writer_trouble.is_none()
        {
            tracing::warn!("{words}");
        }
        shared.state().writer_trouble = trouble;
        if outcome.is_ok() {
            shared.appended.notify_waiters();
        }
        for request in group {
            // A caller who has stopped waiting misses the answer and nothing else.
            let _ = request.answer.send(outcome.clone());
        }
    }
    // The last close moves the write-ahead log into the file; if it fails, the next open does.
    let _ = connection.close().await;
}

/// The first request and all that wait behind it, as far as one commit takes them.
fn gather(first: Request, queue: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    let weight = |request: &Request| {
        let bytes: usize = request.records.iter().filter_map(packed_len).sum();
        (request.records.len(), bytes)
    };
    let (mut records, mut bytes) = weight(&first);
    let mut group = vec![first];
    while records < COMMIT_RECORDS_MAX && bytes < COMMIT_BYTES_MAX {
        let Ok(next) = queue.try_recv() else { break };
        let (more_records, more_bytes) = weight(&next);
        records += more_records;
        bytes += more_bytes;
        group.push(next);
    }
    group
}

/// The topics that this writer has met: their partitions and whose turn it is. Bounded by the topics in the file.
#[derive(Default)]
struct Topics {
    by_name: HashMap<String, Topic>,
}

struct Topic {
    /// Row ids, by partition.
    partitions: Vec<i64>,
    placement: Placement,
}

async fn commit(
    connection: &mut SqliteConnection,
    topics: &mut Topics,
    shared: &Shared,
    group: &[Request],
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut open: HashMap<i64, Vec<ChunkBuilder>> = HashMap::new();
    for record in group.iter().flat_map(|request| &request.records) {
        if !topics.by_name.contains_key(&record.topic) {
            let partitions = ensure_topic(&mut transaction, &record.topic, shared.options.partitions_default).await?;
            let ids = partitions.into_iter().map(|p| p.id).collect();
            topics.by_name.insert(record.topic.clone(), Topic { partitions: ids, placement: Placement::default() });
        }
        let Some(topic) = topics.by_name.get_mut(&record.topic) else {
            continue;
        };
        let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let partition = topic.partitions[topic.placement.partition(record.key.as_deref(), count) as usize];
        let chunks = open.entry(partition).or_default();
        let len = packed_len(record).unwrap_or(usize::MAX);
        match chunks.last_mut() {
            Some(chunk) if !chunk.is_full_for(len) => chunk.push(record),
            _ => {
                let mut chunk = ChunkBuilder::default();
                chunk.push(record);
                chunks.push(chunk);
            }
        }
    }
    let timestamp_ms = now_ms();
    for (partition, chunks) in open {
        let count: usize = chunks.iter().map(|chunk| chunk.records).sum();
        let end: i64 = sqlx::query_scalar(
            "UPDATE partitions SET next_offset = next_offset + ? WHERE id = ? RETURNING next_offset",
        )
        .bind(count as i64)
        .bind(partition)
        .fetch_one(&mut *transaction)
        .await?;
        let mut from = end - count as i64;
        for chunk in chunks {
            let to = from + chunk.records as i64;
            sqlx::query(
                "INSERT INTO chunks (partition_id, from_offset, to_offset, timestamp_ms, body) VALUES (?, ?, ?, ?, ?)",
            )
            .bind(partition)
            .bind(from)
            .bind(to)
            .bind(timestamp_ms)
            .bind(chunk.body)
            .execute(&mut *transaction)
            .await?;
            from = to;
        }
    }
    transaction.commit().await
}

/// A partition as the file has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartitionRow {
    pub id: i64,
    pub partition: i32,
    pub first_offset: i64,
    pub next_offset: i64,
}

/// The partitions of a topic, in order; the topic is created where it does not exist.
pub(super) async fn ensure_topic(
    connection: &mut SqliteConnection,
    topic: &str,
    partitions_default: u32,
) -> Result<Vec<PartitionRow>, sqlx::Error> {
    let created: Option<i64> = sqlx::query_scalar(
        "INSERT INTO topics (name, partitions) VALUES (?, ?) ON CONFLICT (name) DO NOTHING RETURNING id",
    )
    .bind(topic)
    .bind(partitions_default)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(id) = created {
        for partition in 0..partitions_default {
            sqlx::query("INSERT INTO partitions (topic_id, partition) VALUES (?, ?)")
                .bind(id)
                .bind(partition)
                .execute(&mut *connection)
                .await?;
        }
    }
    partitions_of(connection, topic).await
}

pub(super) async fn partitions_of(
    connection: &mut SqliteConnection,
    topic: &str,
) -> Result<Vec<PartitionRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT p.id, p.partition, p.first_offset, p.next_offset FROM partitions p JOIN topics t ON t.id = p.topic_id
         WHERE t.name = ? ORDER BY p.partition",
    )
    .bind(topic)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(PartitionRow {
                id: row.try_get(0)?,
                partition: row.try_get(1)?,
                first_offset: row.try_get(2)?,
                next_offset: row.try_get(3)?,
            })
        })
        .collect()
}

pub(super) async fn trim(
    connection: &mut SqliteConnection,
    below: &[(TopicPartition, i64)],
    before_ms: i64,
) -> Result<u64, sqlx::Error> {
    let mut trimmed = 0;
    for (at, offset) in below {
        let partitions = partitions_of(connection, &at.topic).await?;
        let Some(partition) = partitions.iter().find(|p| p.partition == at.partition) else {
            continue;
        };
        loop {
            let went = trim_some(connection, partition.id, *offset, before_ms).await?;
            trimmed += went;
            if went == 0 {
                break;
            }
        }
    }
    if trimmed > 0 {
        sqlx::raw_sql("PRAGMA incremental_vacuum").execute(connection).await?;
    }
    Ok(trimmed)
}

async fn trim_some(
    connection: &mut SqliteConnection,
    partition: i64,
    below: i64,
    before_ms: i64,
) -> Result<u64, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let oldest: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT to_offset, timestamp_ms FROM chunks WHERE partition_id = ? AND to_offset <= ? ORDER BY to_offset LIMIT ?",
    )
    .bind(partition)
    .bind(below)
    .bind(TRIM_CHUNKS_MAX as i64)
    .fetch_all(&mut *transaction)
    .await?;
    // Only from the front, and not beyond the first young chunk: a clock that was set back must not tear a hole.
    let Some((cut, _)) = oldest.into_iter().take_while(|(_, timestamp_ms)| *timestamp_ms < before_ms).last() else {
        return Ok(0);
    };
    let first: i64 = sqlx::query_scalar("SELECT first_offset FROM partitions WHERE id = ?")
        .bind(partition)
        .fetch_one(&mut *transaction)
        .await?;
    sqlx::query("DELETE FROM chunks WHERE partition_id = ? AND to_offset <= ?")
        .bind(partition)
        .bind(cut)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("UPDATE partitions SET first_offset = ? WHERE id = ?")
        .bind(cut)
        .bind(partition)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(u64::try_from(cut - first).unwrap_or(0))
}
