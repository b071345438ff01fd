//! Everything the engine keeps in memory, rebuilt from what was committed.
//!
//! | memory | read back from |
//! | --- | --- |
//! | positions, watermarks | cursors |
//! | hours, days, months | `rollup_hour` files, and the ledger files that no rollup holds yet |
//! | minutes | ledger files within `windows.minutes_kept` |
//! | dedup ids | ledger files committed within the horizon on the stream's clock |
//! | budget counters | the store; counted from the ledger for budgets that are new or changed |
//!
//! Files that the manifest does not list are removed: they belong to an epoch that never was.

use std::{collections::HashSet, path::Path, sync::Arc};

use costhelm_pricing::{EventTime, Money};

use super::{
    Unrolled, counters,
    reading::{ReadError, SumsRows, TextColumn, read, read_blocking},
    staging::Dataset,
    store::{CommitError, Store},
};
use crate::{
    budget::Budget,
    event::{Dims, dims::DimTable},
    fold::{
        dedup::Dedup,
        sums::{BEFORE_ALL, Grain, HOUR_US},
        watermark::Watermarks,
        windows::{Retention, Windows},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error(transparent)]
    Store(#[from] CommitError),
    #[error("a file of the ledger cannot be read back: {0}")]
    Read(#[from] ReadError),
    #[error("{path}: {error}")]
    Io { path: String, error: std::io::Error },
}

#[derive(Clone, Copy, Debug)]
pub struct RecoveryOptions {
    pub retention: Retention,
    pub dedup_horizon_us: i64,
    pub dedup_ids_max: usize,
    pub dedup_seed: u64,
    pub late_after_us: i64,
}

pub struct Recovered {
    pub clock: EventTime,
    pub windows: Windows,
    pub unrolled: Unrolled,
    pub dedup: Dedup,
    pub watermarks: Watermarks,
    /// By index of the budget and start of the period.
    pub spent: Vec<(usize, EventTime, Money)>,
    pub files_read: usize,
    pub orphans_removed: usize,
}

pub async fn recover(
    store: &Store,
    data_dir: &Arc<Path>,
    budgets: &Arc<[Budget]>,
    options: RecoveryOptions,
) -> Result<Recovered, RecoveryError> {
    let ledger = store.files(Dataset::Ledger).await?;
    let rollups = store.files(Dataset::RollupHour).await?;
    let quarantine = store.files(Dataset::Quarantine).await?;
    let listed: HashSet<String> =
        [&ledger, &rollups, &quarantine].into_iter().flatten().map(|file| file.path.clone()).collect();
    let orphans_removed = remove_orphans(data_dir, &listed)?;

    count_new_budgets(store, data_dir, budgets).await?;
    let mut spent = std::collections::BTreeMap::<(usize, EventTime), Money>::new();
    for counter in store.budget_counters().await? {
        let Some(index) = budgets.iter().position(|budget| budget.id.0 == counter.budget) else {
            continue;
        };
        let sum = spent.entry((index, counter.period_start)).or_default();
        *sum = sum
            .checked_add(counter.spent)
            .ok_or_else(|| CommitError::Corrupt("MONEY-2: a budget's spend overflows".into()))?;
    }

    let clock = store.clock().await?.unwrap_or(BEFORE_ALL);
    let mut watermarks = Watermarks::new(options.late_after_us);
    for (at, _, greatest) in store.cursors().await? {
        if let Some(greatest) = greatest {
            watermarks.advance(&at, greatest);
        }
    }
    let ids_since = EventTime(clock.0.saturating_sub(options.dedup_horizon_us.saturating_add(HOUR_US)));
    let known_ids = store.files_since_clock(Dataset::Ledger, ids_since).await?;

    let data_dir = data_dir.clone();
    read_blocking(move || {
        let mut windows = Windows::new(options.retention);
        windows.advance(clock);
        let mut files_read = 0;
        for file in &rollups {
            files_read += 1;
            read(&data_dir, &file.path, &[], |batch| {
                let rows = SumsRows::of_rollup(batch)?;
                let mut table = DimTable::default();
                for row in 0..rows.len() {
                    let number = table.intern(&rows.dims(row));
                    let start = Grain::Hour.window(rows.time(row));
                    windows.add(start, table.get(number), &rows.sums(row), &[Grain::Hour, Grain::Day, Grain::Month]);
                }
                Ok(())
            })?;
        }
        let mut unrolled = Unrolled::new();
        let minutes_since = Grain::Minute.window(EventTime(clock.0.saturating_sub(options.retention.minute_us)));
        let columns = SumsRows::ledger_columns();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        for file in &ledger {
            if file.rolled_up && file.time_range.1.0 < minutes_since.0 {
                continue;
            }
            let grains = if file.rolled_up { &Grain::ALL[..1] } else { &Grain::ALL[..] };
            files_read += 1;
            read(&data_dir, &file.path, &columns, |batch| {
                let rows = SumsRows::of_ledger(batch)?;
                let mut table = DimTable::default();
                for row in 0..rows.len() {
                    let number = table.intern(&rows.dims(row));
                    let dims: &Dims = table.get(number);
                    let sums = rows.sums(row);
                    windows.add(Grain::Minute.window(rows.time(row)), dims, &sums, grains);
                    if !file.rolled_up {
                        let hour = Grain::Hour.window(rows.time(row));
                        unrolled.entry((hour, dims.clone())).or_default().add(&sums);
                    }
                }
                Ok(())
            })?;
        }
        windows.expire();
        let mut dedup = Dedup::new(options.dedup_seed, options.dedup_horizon_us, options.dedup_ids_max);
        // The newest first, so that a full table holds the ids that repeats are most likely of.
        for file in known_ids.iter().rev() {
            if dedup.len() + file.rows as usize > options.dedup_ids_max {
                break;
            }
            files_read += 1;
            read(&data_dir, &file.path, &["source", "event_id"], |batch| {
                let (sources, ids) = (TextColumn::of(batch, "source")?, TextColumn::of(batch, "event_id")?);
                for row in 0..batch.num_rows() {
                    dedup.insert(sources.get(row), ids.get(row), file.clock);
                }
                Ok(())
            })?;
        }
        let spent = spent.into_iter().map(|((budget, start), sum)| (budget, start, sum)).collect();
        Ok(Recovered { clock, windows, unrolled, dedup, watermarks, spent, files_read, orphans_removed })
    })
    .await
}

fn remove_orphans(data_dir: &Path, listed: &HashSet<String>) -> Result<usize, RecoveryError> {
    let mut removed = 0;
    for dataset in Dataset::ALL {
        let folder = format!("{}/staged", dataset.name());
        let failed = |error| RecoveryError::Io { path: folder.clone(), error };
        let entries = match std::fs::read_dir(data_dir.join(&folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if !listed.contains(&format!("{folder}/{}", entry.file_name().to_string_lossy())) {
                std::fs::remove_file(entry.path()).map_err(failed)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// Gives new and changed budgets the counters they would have had if they had always been there (EO-4).
async fn count_new_budgets(store: &Store, data_dir: &Arc<Path>, budgets: &Arc<[Budget]>) -> Result<(), RecoveryError> {
    let known = store.budget_definitions().await?;
    let changed = |budget: &&Budget| known.get(&budget.id.0) != Some(&counters::definition(budget));
    let changed: Vec<Budget> = budgets.iter().filter(changed).cloned().collect();
    if changed.is_empty() {
        return Ok(());
    }
    let definitions: Vec<_> =
        changed.iter().map(|budget| (budget.id.0.clone(), counters::definition(budget))).collect();
    let files = store.files(Dataset::Ledger).await?;
    let data_dir = data_dir.clone();
    let counted = read_blocking(move || counters::count(&data_dir, &files, &changed)).await?;
    store.replace_counters(&definitions, &counted).await?;
    Ok(())
}
