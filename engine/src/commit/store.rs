//! The store: one SQL transaction makes an epoch true (EO-2). SQLite here.
//!
//! What the compare-and-swap of a cursor finds:
//!
//! | cursor in the store | batch begins at | outcome |
//! | --- | --- | --- |
//! | none | anything | the cursor is created; the partition's chain begins here |
//! | = from | from | advanced to `to` |
//! | ≠ from | from | [`CommitError::Conflict`]: somebody else has committed; all is rolled back, memory is dropped and reloaded |
//!
//! Limits: one writing connection; a statement waits at most `BUSY_WAIT` for another process's lock.

use std::{collections::HashMap, path::Path, str::FromStr, sync::Arc, time::Duration};

use arrow::array::{Array, AsArray, RecordBatch};
use costhelm_pricing::{EventTime, Money};
use futures::future::BoxFuture;
use sqlx::{
    Row, Sqlite, SqlitePool, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    reading::{OriginRows, TextColumn},
    staging::{Dataset, StagedFile},
};
use crate::{
    budget::{Budget, Crossing, Period, Scope, Spend, ThrottleCommand, alert, alert_id, crossings, period_of},
    bus::{BusError, NewRecord, Positions, TopicPartition},
    fold::Epoch,
};

/// How long a statement waits for a lock before it gives up.
const BUSY_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Somebody else owns the partition now, or the outcome of an earlier attempt was not known and it had succeeded.
    #[error("{at}: the store's cursor is not at offset {expected} any more; another process has committed past it")]
    Conflict { at: TopicPartition, expected: i64 },
    /// Worth another try: disk full, store locked or away.
    #[error("store: {0}")]
    Store(#[from] sqlx::Error),
    #[error("store: a value cannot be read back: {0}")]
    Corrupt(String),
}

/// Topics that the outbox writes to.
#[derive(Clone, Debug)]
pub struct OutTopics {
    pub alerts: String,
    pub throttle: String,
    /// Records that could not be used, as they came.
    pub quarantine: Option<String>,
    /// Mirror of throttle commands in the squad's own shape.
    pub squad: Option<String>,
}

/// What must be known to turn spend into alerts and commands.
#[derive(Clone, Debug)]
pub struct BudgetRules {
    pub budgets: Arc<[Budget]>,
    pub topics: OutTopics,
    /// Names this engine in the `source` of what it sends.
    pub instance: String,
}

/// What a commit gave.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    pub epoch: i64,
    pub alerts: u64,
    pub throttles: u64,
}

/// A file of the manifest.
#[derive(Clone, Debug)]
pub struct ManifestFile {
    pub path: String,
    pub dataset: String,
    pub epoch: i64,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
    pub cost: Money,
    pub time_range: (EventTime, EventTime),
    /// The stream's clock when the file was committed.
    pub clock: EventTime,
    pub rolled_up: bool,
}

/// A message that must leave.
#[derive(Clone, Debug)]
pub struct OutboxMessage {
    pub id: i64,
    pub record: NewRecord,
}

#[derive(Clone, Debug)]
pub struct BudgetCounter {
    pub budget: String,
    pub period_start: EventTime,
    pub period: String,
    pub at: TopicPartition,
    pub spent: Money,
}

/// What [`crate::ledger::audit`] checks, one row a committed range.
#[derive(Clone, Debug)]
pub struct ConsumedRow {
    pub at: TopicPartition,
    pub from: i64,
    pub to: i64,
    pub epoch: i64,
    pub events: u64,
    pub ledger_rows: u64,
    pub duplicates: u64,
    pub quarantined: u64,
}

#[derive(Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the store in `data_dir`, making it where it is absent.
    pub async fn open(data_dir: &Path) -> Result<Store, CommitError> {
        let options = SqliteConnectOptions::new()
            .filename(data_dir.join("store.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_WAIT);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        migrator().run(&pool).await.map_err(|error| sqlx::Error::Migrate(Box::new(error)))?;
        Ok(Store { pool })
    }

    /// Opens an existing store for reading, whether an engine runs on it or not.
    pub async fn open_read_only(data_dir: &Path) -> Result<Store, CommitError> {
        let options =
            SqliteConnectOptions::new().filename(data_dir.join("store.db")).read_only(true).busy_timeout(BUSY_WAIT);
        Ok(Store { pool: SqlitePoolOptions::new().max_connections(1).connect_with(options).await? })
    }

    /// Commits an epoch, its files and what follows from its spend, or nothing at all.
    pub async fn commit(
        &self,
        epoch: &Epoch,
        files: &[StagedFile],
        price_revision: &str,
        rules: &BudgetRules,
        now: EventTime,
    ) -> Result<Committed, CommitError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO epoch (committed_at_us, clock_us, price_revision) VALUES ($1, $2, $3) RETURNING epoch",
        )
        .bind(now.0)
        .bind(epoch.clock.0)
        .bind(price_revision)
        .fetch_one(&mut *tx)
        .await?;
        for (at, range) in &epoch.ranges {
            advance_cursor(&mut tx, at, range.from, range.to, range.greatest).await?;
            sqlx::query(
                "INSERT INTO consumed (topic, partition, from_offset, to_offset, epoch, records, events, ledger_rows, \
                 duplicates, quarantined) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            )
            .bind(&*at.topic)
            .bind(at.partition)
            .bind(range.from)
            .bind(range.to)
            .bind(number)
            .bind(range.records as i64)
            .bind(range.events as i64)
            .bind(range.ledger_rows as i64)
            .bind(range.duplicates as i64)
            .bind(range.quarantined as i64)
            .execute(&mut *tx)
            .await?;
        }
        for file in files {
            if file.dataset == Dataset::RollupHour {
                // The rollup holds the ledger of all epochs before this one that no other rollup holds.
                sqlx::query("UPDATE file SET rolled_up_in = $1 WHERE dataset = 'ledger' AND rolled_up_in IS NULL AND epoch < $1")
                    .bind(number)
                    .execute(&mut *tx)
                    .await?;
            }
            insert_file(&mut tx, file, number).await?;
        }
        if let (Some(topic), Some(quarantine)) = (&rules.topics.quarantine, &epoch.quarantine) {
            post_quarantine(&mut tx, topic, &quarantine.batch, now).await?;
        }
        let mut touched: Vec<(usize, &Period)> = Vec::new();
        for spend in &epoch.budget_spend {
            let budget = &rules.budgets[spend.budget].id.0;
            add_spend(&mut tx, budget, &spend.period, &spend.at, spend.amount).await?;
            if !touched.iter().any(|(index, period)| *index == spend.budget && period.start == spend.period.start) {
                touched.push((spend.budget, &spend.period));
            }
        }
        let mut committed = Committed { epoch: number, ..Committed::default() };
        let mut scopes: Vec<&Scope> = Vec::new();
        for (index, period) in touched {
            let budget = &rules.budgets[index];
            let spent = spent_in(&mut tx, &budget.id.0, period.start).await?;
            committed.alerts += raise_alerts(&mut tx, rules, budget, period, spent, Some(number), now).await?;
            if period.contains(now) && !scopes.contains(&&budget.scope) {
                scopes.push(&budget.scope);
            }
        }
        for scope in scopes {
            committed.throttles += command_scope(&mut tx, rules, scope, now).await?;
        }
        tx.commit().await?;
        Ok(committed)
    }

    /// Brings alerts and throttles in line with spend, budgets and the time: after a change of the configuration, and when a
    /// period ends. A function of the state alone, so running it twice does nothing the second time (BUDGET-1, BUDGET-2).
    pub async fn reconcile(&self, rules: &BudgetRules, now: EventTime) -> Result<Committed, CommitError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let mut committed = Committed::default();
        let mut scopes: Vec<Scope> = Vec::new();
        for budget in rules.budgets.iter() {
            let period = period_of(budget.period, budget.zone, now);
            let spent = spent_in(&mut tx, &budget.id.0, period.start).await?;
            committed.alerts += raise_alerts(&mut tx, rules, budget, &period, spent, None, now).await?;
            if !scopes.contains(&budget.scope) {
                scopes.push(budget.scope.clone());
            }
        }
        // A scope that lost its last budget must be set free too.
        for command in throttles(&mut tx).await? {
            if !scopes.contains(&command.scope) {
                committed.throttles += release_scope(&mut tx, rules, &command, now).await?;
            }
        }
        for scope in &scopes {
            committed.throttles += command_scope(&mut tx, rules, scope, now).await?;
        }
        tx.commit().await?;
        Ok(committed)
    }

    pub async fn cursors(&self) -> Result<Vec<(TopicPartition, i64, Option<EventTime>)>, CommitError> {
        let rows =
            sqlx::query("SELECT topic, partition, next_offset, watermark_us FROM cursor ORDER BY topic, partition")
                .fetch_all(&self.pool)
                .await?;
        rows.iter()
            .map(|row| {
                Ok((
                    place(row)?,
                    row.try_get("next_offset")?,
                    row.try_get::<Option<i64>, _>("watermark_us")?.map(EventTime),
                ))
            })
            .collect()
    }

    /// The stream's clock at the last commit.
    pub async fn clock(&self) -> Result<Option<EventTime>, CommitError> {
        let clock: Option<i64> = sqlx::query_scalar("SELECT max(clock_us) FROM epoch").fetch_one(&self.pool).await?;
        Ok(clock.map(EventTime))
    }

    /// The number of the last commit; zero before the first.
    pub async fn last_epoch(&self) -> Result<i64, CommitError> {
        Ok(sqlx::query_scalar("SELECT coalesce(max(epoch), 0) FROM epoch").fetch_one(&self.pool).await?)
    }

    /// The manifest of a dataset, oldest file first.
    pub async fn files(&self, dataset: Dataset) -> Result<Vec<ManifestFile>, CommitError> {
        self.files_where(dataset, "TRUE", 0).await
    }

    /// Files committed while the stream's clock stood at `since` or later.
    pub async fn files_since_clock(
        &self,
        dataset: Dataset,
        since: EventTime,
    ) -> Result<Vec<ManifestFile>, CommitError> {
        self.files_where(dataset, "clock_us >= $2", since.0).await
    }

    async fn files_where(
        &self,
        dataset: Dataset,
        condition: &'static str,
        value: i64,
    ) -> Result<Vec<ManifestFile>, CommitError> {
        let sql = format!(
            "SELECT path, dataset, epoch, rows, bytes, sha256, cost_usd, min_time_us, max_time_us, clock_us, rolled_up_in \
             FROM file JOIN epoch USING (epoch) WHERE dataset = $1 AND (0 * $2 = 0) AND {condition} ORDER BY epoch, path"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(dataset.name()).bind(value).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                Ok(ManifestFile {
                    path: row.try_get("path")?,
                    dataset: row.try_get("dataset")?,
                    epoch: row.try_get("epoch")?,
                    rows: row.try_get::<i64, _>("rows")? as u64,
                    bytes: row.try_get::<i64, _>("bytes")? as u64,
                    sha256: row.try_get("sha256")?,
                    cost: money(row.try_get("cost_usd")?)?,
                    time_range: (EventTime(row.try_get("min_time_us")?), EventTime(row.try_get("max_time_us")?)),
                    clock: EventTime(row.try_get("clock_us")?),
                    rolled_up: row.try_get::<Option<i64>, _>("rolled_up_in")?.is_some(),
                })
            })
            .collect()
    }

    /// True when exactly this range has been committed: settles a commit whose outcome was not known.
    pub async fn has_committed(&self, at: &TopicPartition, from: i64, to: i64) -> Result<bool, CommitError> {
        let found: Option<i64> = sqlx::query_scalar(
            "SELECT epoch FROM consumed WHERE topic = $1 AND partition = $2 AND from_offset = $3 AND to_offset = $4",
        )
        .bind(&*at.topic)
        .bind(at.partition)
        .bind(from)
        .bind(to)
        .fetch_optional(&self.pool)
        .await?;
        Ok(found.is_some())
    }

    pub async fn consumed(&self) -> Result<Vec<ConsumedRow>, CommitError> {
        let rows =
            sqlx::query("SELECT * FROM consumed ORDER BY topic, partition, from_offset").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let count = |name: &str| Ok::<_, sqlx::Error>(row.try_get::<i64, _>(name)? as u64);
                Ok(ConsumedRow {
                    at: place(row)?,
                    from: row.try_get("from_offset")?,
                    to: row.try_get("to_offset")?,
                    epoch: row.try_get("epoch")?,
                    events: count("events")?,
                    ledger_rows: count("ledger_rows")?,
                    duplicates: count("duplicates")?,
                    quarantined: count("quarantined")?,
                })
            })
            .collect()
    }

    pub async fn budget_counters(&self) -> Result<Vec<BudgetCounter>, CommitError> {
        let rows = sqlx::query("SELECT * FROM budget_spend ORDER BY budget, period_start_us, topic, partition")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(BudgetCounter {
                    budget: row.try_get("budget")?,
                    period_start: EventTime(row.try_get("period_start_us")?),
                    period: row.try_get("period")?,
                    at: place(row)?,
                    spent: money(row.try_get("spent_usd")?)?,
                })
            })
            .collect()
    }

    /// Budgets with counters, and what these were counted for.
    pub async fn budget_definitions(&self) -> Result<HashMap<String, String>, CommitError> {
        let rows = sqlx::query("SELECT budget, definition FROM budget").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.try_get("budget")?, row.try_get("definition")?))).collect()
    }

    /// Replaces the counters of budgets that are new or count something else now.
    pub async fn replace_counters(
        &self,
        definitions: &[(String, String)],
        counters: &[BudgetCounter],
    ) -> Result<(), CommitError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for (budget, definition) in definitions {
            sqlx::query("DELETE FROM budget_spend WHERE budget = $1").bind(budget).execute(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO budget (budget, definition) VALUES ($1, $2) \
                 ON CONFLICT (budget) DO UPDATE SET definition = excluded.definition",
            )
            .bind(budget)
            .bind(definition)
            .execute(&mut *tx)
            .await?;
        }
        for counter in counters {
            let period =
                Period { start: counter.period_start, end: counter.period_start, label: counter.period.clone() };
            add_spend(&mut tx, &counter.budget, &period, &counter.at, counter.spent).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Alerts as they were sent, oldest first: CloudEvents JSON.
    pub async fn alerts(&self) -> Result<Vec<String>, CommitError> {
        Ok(sqlx::query_scalar("SELECT body FROM alert ORDER BY raised_us, alert_id").fetch_all(&self.pool).await?)
    }

    pub async fn throttles(&self) -> Result<Vec<ThrottleCommand>, CommitError> {
        let mut connection = self.pool.begin().await?;
        throttles(&mut connection).await
    }

    /// The oldest messages of a topic that have not left yet.
    pub async fn outbox(&self, topic: &str, limit: usize) -> Result<Vec<OutboxMessage>, CommitError> {
        let rows = sqlx::query(
            "SELECT id, topic, message_key, value, headers FROM outbox \
             WHERE published_us IS NULL AND topic = $1 ORDER BY id LIMIT $2",
        )
        .bind(topic)
        .bind(limit as i64)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let headers: HashMap<String, String> = serde_json::from_str(row.try_get("headers")?)
                    .map_err(|error| CommitError::Corrupt(error.to_string()))?;
                Ok(OutboxMessage {
                    id: row.try_get("id")?,
                    record: NewRecord {
                        topic: row.try_get("topic")?,
                        key: row.try_get("message_key")?,
                        value: Some(row.try_get("value")?),
                        headers: headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect(),
                    },
                })
            })
            .collect()
    }

    /// Topics that messages wait for.
    pub async fn outbox_topics(&self) -> Result<Vec<String>, CommitError> {
        let sql = "SELECT DISTINCT topic FROM outbox WHERE published_us IS NULL";
        Ok(sqlx::query_scalar(sql).fetch_all(&self.pool).await?)
    }

    pub async fn mark_published(&self, ids: &[i64], now: EventTime) -> Result<(), CommitError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for id in ids {
            sqlx::query("UPDATE outbox SET published_us = $2 WHERE id = $1")
                .bind(id)
                .bind(now.0)
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }
}

impl Positions for Store {
    fn next_offsets<'a>(&'a self, of: &'a [TopicPartition]) -> BoxFuture<'a, Result<Vec<Option<i64>>, BusError>> {
        Box::pin(async move {
            let known: HashMap<TopicPartition, i64> = self
                .cursors()
                .await
                .map_err(|error| BusError::Retry(error.to_string()))?
                .into_iter()
                .map(|(at, next, _)| (at, next))
                .collect();
            Ok(of.iter().map(|at| known.get(at).copied()).collect())
        })
    }
}

fn migrator() -> Migrator {
    const STORE: &str = include_str!("../../migrations/0001_store.sql");
    let migration = Migration::new(1, "store".into(), MigrationType::Simple, sqlx::SqlStr::from_static(STORE), false);
    Migrator::with_migrations(vec![migration])
}

fn place(row: &sqlx::sqlite::SqliteRow) -> Result<TopicPartition, sqlx::Error> {
    Ok(TopicPartition { topic: row.try_get::<&str, _>("topic")?.into(), partition: row.try_get("partition")? })
}

fn money(text: &str) -> Result<Money, CommitError> {
    Money::from_str(text).map_err(|error| CommitError::Corrupt(error.to_string()))
}

type Tx<'a> = Transaction<'a, Sqlite>;

async fn advance_cursor(
    tx: &mut Tx<'_>,
    at: &TopicPartition,
    from: i64,
    to: i64,
    watermark: Option<EventTime>,
) -> Result<(), CommitError> {
    let swapped = sqlx::query(
        "UPDATE cursor SET next_offset = $4, watermark_us = coalesce($5, watermark_us) \
         WHERE topic = $1 AND partition = $2 AND next_offset = $3",
    )
    .bind(&*at.topic)
    .bind(at.partition)
    .bind(from)
    .bind(to)
    .bind(watermark.map(|time| time.0))
    .execute(&mut **tx)
    .await?;
    if swapped.rows_affected() == 1 {
        return Ok(());
    }
    let created = sqlx::query(
        "INSERT INTO cursor (topic, partition, next_offset, watermark_us) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )
    .bind(&*at.topic)
    .bind(at.partition)
    .bind(to)
    .bind(watermark.map(|time| time.0))
    .execute(&mut **tx)
    .await?;
    match created.rows_affected() {
        1 => Ok(()),
        _ => Err(CommitError::Conflict { at: at.clone(), expected: from }),
    }
}

async fn insert_file(tx: &mut Tx<'_>, file: &StagedFile, epoch: i64) -> Result<(), CommitError> {
    sqlx::query(
        "INSERT INTO file (path, dataset, epoch, rows, bytes, sha256, cost_usd, min_time_us, max_time_us) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&file.path)
    .bind(file.dataset.name())
    .bind(epoch)
    .bind(file.rows as i64)
    .bind(file.bytes as i64)
    .bind(&file.sha256)
    .bind(file.cost.to_string())
    .bind(file.time_range.0.0)
    .bind(file.time_range.1.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// SQLite has no exact decimal to add with, so the sum is made here; the transaction holds the write lock.
async fn add_spend(
    tx: &mut Tx<'_>,
    budget: &str,
    period: &Period,
    at: &TopicPartition,
    amount: Money,
) -> Result<(), CommitError> {
    let known: Option<String> = sqlx::query_scalar(
        "SELECT spent_usd FROM budget_spend WHERE budget = $1 AND period_start_us = $2 AND topic = $3 AND partition = $4",
    )
    .bind(budget)
    .bind(period.start.0)
    .bind(&*at.topic)
    .bind(at.partition)
    .fetch_optional(&mut **tx)
    .await?;
    let known = known.as_deref().map_or(Ok(Money::ZERO), money)?;
    let spent =
        known.checked_add(amount).ok_or_else(|| CommitError::Corrupt("MONEY-2: a budget's spend overflows".into()))?;
    sqlx::query(
        "INSERT INTO budget_spend (budget, period_start_us, period, topic, partition, spent_usd) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (budget, period_start_us, topic, partition) DO UPDATE SET spent_usd = excluded.spent_usd",
    )
    .bind(budget)
    .bind(period.start.0)
    .bind(&period.label)
    .bind(&*at.topic)
    .bind(at.partition)
    .bind(spent.to_string())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn spent_in(tx: &mut Tx<'_>, budget: &str, period_start: EventTime) -> Result<Money, CommitError> {
    let parts: Vec<String> =
        sqlx::query_scalar("SELECT spent_usd FROM budget_spend WHERE budget = $1 AND period_start_us = $2")
            .bind(budget)
            .bind(period_start.0)
            .fetch_all(&mut **tx)
            .await?;
    parts.iter().try_fold(Money::ZERO, |sum, part| {
        sum.checked_add(money(part)?).ok_or_else(|| CommitError::Corrupt("MONEY-2: a budget's spend overflows".into()))
    })
}

/// Raises every alert whose threshold is reached and that was not raised before (BUDGET-1).
async fn raise_alerts(
    tx: &mut Tx<'_>,
    rules: &BudgetRules,
    budget: &Budget,
    period: &Period,
    spent: Money,
    epoch: Option<i64>,
    now: EventTime,
) -> Result<u64, CommitError> {
    let mut raised = 0;
    for crossing in crossings(budget, Money::ZERO, spent) {
        let Crossing { percent, .. } = crossing;
        let id = alert_id(&budget.id, period, percent);
        let body = json(&alert(budget, period, &crossing, spent, now, &rules.instance))?;
        let inserted = sqlx::query(
            "INSERT INTO alert (alert_id, raised_us, epoch, body) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(&id.0)
        .bind(now.0)
        .bind(epoch)
        .bind(&body)
        .execute(&mut **tx)
        .await?;
        if inserted.rows_affected() == 1 {
            post(tx, &format!("alert/{id}"), &rules.topics.alerts, &budget.id.0, &body, now).await?;
            raised += 1;
        }
    }
    Ok(raised)
}

/// Issues the scope's command if it is news.
async fn command_scope(
    tx: &mut Tx<'_>,
    rules: &BudgetRules,
    scope: &Scope,
    now: EventTime,
) -> Result<u64, CommitError> {
    let mut standing = Vec::new();
    for budget in rules.budgets.iter().filter(|budget| budget.scope == *scope) {
        let period = period_of(budget.period, budget.zone, now);
        let spent = spent_in(tx, &budget.id.0, period.start).await?;
        standing.push((budget, period, spent));
    }
    let last = throttle_of(tx, scope).await?;
    let sequence = last.as_ref().map_or(1, |last| last.sequence + 1);
    let spends = standing.iter().map(|(budget, period, spent)| Spend { budget, period, spent: *spent });
    match ThrottleCommand::for_scope(scope, spends, sequence, now) {
        Some(command) if command.is_news_after(last.as_ref()) => issue(tx, rules, &command, now).await.map(|()| 1),
        _ => Ok(0),
    }
}

/// Sets a scope free that no budget covers any more.
async fn release_scope(
    tx: &mut Tx<'_>,
    rules: &BudgetRules,
    last: &ThrottleCommand,
    now: EventTime,
) -> Result<u64, CommitError> {
    match last.release(now) {
        Some(command) => issue(tx, rules, &command, now).await.map(|()| 1),
        None => Ok(0),
    }
}

async fn issue(
    tx: &mut Tx<'_>,
    rules: &BudgetRules,
    command: &ThrottleCommand,
    now: EventTime,
) -> Result<(), CommitError> {
    let key = command.scope.key();
    sqlx::query(
        "INSERT INTO throttle (scope, sequence, body) VALUES ($1, $2, $3) \
         ON CONFLICT (scope) DO UPDATE SET sequence = excluded.sequence, body = excluded.body",
    )
    .bind(&key)
    .bind(command.sequence as i64)
    .bind(json(command)?)
    .execute(&mut **tx)
    .await?;
    let id = command.event_id();
    post(
        tx,
        &format!("throttle/{id}"),
        &rules.topics.throttle,
        &key,
        &json(&command.cloud_event(&rules.instance))?,
        now,
    )
    .await?;
    if let Some(squad) = &rules.topics.squad {
        post(tx, &format!("squad/{id}"), squad, &key, &json(&command.squad_event())?, now).await?;
    }
    Ok(())
}

async fn throttle_of(tx: &mut Tx<'_>, scope: &Scope) -> Result<Option<ThrottleCommand>, CommitError> {
    let body: Option<String> = sqlx::query_scalar("SELECT body FROM throttle WHERE scope = $1")
        .bind(scope.key())
        .fetch_optional(&mut **tx)
        .await?;
    body.map(|body| parse_throttle(&body)).transpose()
}

async fn throttles(tx: &mut Tx<'_>) -> Result<Vec<ThrottleCommand>, CommitError> {
    let bodies: Vec<String> =
        sqlx::query_scalar("SELECT body FROM throttle ORDER BY scope").fetch_all(&mut **tx).await?;
    bodies.iter().map(|body| parse_throttle(body)).collect()
}

fn parse_throttle(body: &str) -> Result<ThrottleCommand, CommitError> {
    serde_json::from_str(body).map_err(|error| CommitError::Corrupt(format!("a throttle command: {error}")))
}

fn json(value: &impl serde::Serialize) -> Result<String, CommitError> {
    serde_json::to_string(value).map_err(|error| CommitError::Corrupt(error.to_string()))
}

/// Puts a message into the outbox. The same id is put there once, whatever is repeated.
async fn post(
    tx: &mut Tx<'_>,
    id: &str,
    topic: &str,
    key: &str,
    value: &str,
    now: EventTime,
) -> Result<(), CommitError> {
    const HEADERS: &str = r#"{"content-type":"application/cloudevents+json"}"#;
    put(tx, id, topic, Some(key.as_bytes()), value.as_bytes(), HEADERS, now).await
}

async fn put(
    tx: &mut Tx<'_>,
    id: &str,
    topic: &str,
    key: Option<&[u8]>,
    value: &[u8],
    headers: &str,
    now: EventTime,
) -> Result<(), CommitError> {
    sqlx::query(
        "INSERT INTO outbox (message_id, topic, message_key, value, headers, created_us) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (message_id) DO NOTHING",
    )
    .bind(id)
    .bind(topic)
    .bind(key)
    .bind(value)
    .bind(headers)
    .bind(now.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Every quarantined record to its topic: the value as it came, what is known about it in the headers.
async fn post_quarantine(tx: &mut Tx<'_>, topic: &str, rows: &RecordBatch, now: EventTime) -> Result<(), CommitError> {
    let corrupt = |problem: String| CommitError::Corrupt(problem);
    let origins = OriginRows::of(rows).map_err(corrupt)?;
    let (codes, reasons) =
        (TextColumn::of(rows, "code").map_err(corrupt)?, TextColumn::of(rows, "reason").map_err(corrupt)?);
    let binary = |name: &str| rows.column_by_name(name).and_then(|column| column.as_binary_opt::<i32>());
    let (Some(keys), Some(values)) = (binary("key"), binary("value")) else {
        return Err(CommitError::Corrupt("quarantine rows have no key or value".into()));
    };
    for row in 0..rows.num_rows() {
        let (from, partition) = (origins.topic(row), origins.partition(row));
        let (offset, index) = (origins.offset(row), origins.index(row));
        let headers = serde_json::json!({
            "costhelm_code": codes.get(row),
            "costhelm_reason": reasons.get(row),
            "costhelm_topic": from,
            "costhelm_partition": partition.to_string(),
            "costhelm_offset": offset.to_string(),
            "costhelm_record_index": index.to_string(),
        });
        let id = format!("quarantine/{from}/{partition}/{offset}/{index}");
        let key = (!keys.is_null(row)).then(|| keys.value(row));
        put(tx, &id, topic, key, values.value(row), &headers.to_string(), now).await?;
    }
    Ok(())
}
