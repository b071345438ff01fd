//! The commit: staged files, one SQL transaction, then what it made true becomes visible.
//!
//! ```text
//!  Epoch ─▶ Parquet, synced ─▶ BEGIN … cursors, manifest, budgets, alerts, outbox … COMMIT ─▶ windows, metrics, relay
//!           crash here: orphan files     crash here: nothing happened                 crash here: recovery reads it back
//! ```
//!
//! A commit that fails for want of disk or of the store is tried again, with a pause, until it succeeds; meanwhile the
//! stream waits (BOUND-1) and `/readyz` says why. One that lost its cursor to somebody else ends the run: memory is dropped
//! and read back (EO-1).
//!
//! Limits: one epoch in flight; between retries at most [`RETRY_WAIT_MAX`].

pub mod counters;
pub mod reading;
pub mod recovery;
pub mod staging;
pub mod store;

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use costhelm_pricing::{EventTime, Money};
use tokio::time::Instant;

use self::{
    staging::{Dataset, StagedFile},
    store::{BudgetRules, CommitError, Committed, Store},
};
use crate::{
    event::{Dims, dims::DimTable},
    fold::{
        DatasetRows, Epoch,
        sums::{Grain, Sums, WindowStart},
        windows::window_batch,
    },
};

/// Longest pause before a failed commit is tried again.
pub const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// Where the time of a commit went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    pub stage: Duration,
    pub transaction: Duration,
}

/// Hourly totals of committed ledger rows that no rollup file holds yet.
pub type Unrolled = HashMap<(WindowStart, Dims), Sums>;

pub struct Committer {
    store: Store,
    data_dir: Arc<Path>,
    rules: BudgetRules,
    price_revision: String,
    rollup_interval: Duration,
    unrolled: Unrolled,
    rolled_up_at: Instant,
    now: fn() -> EventTime,
}

impl Committer {
    pub fn new(
        store: Store,
        data_dir: Arc<Path>,
        rules: BudgetRules,
        price_revision: String,
        rollup_interval: Duration,
        unrolled: Unrolled,
        now: fn() -> EventTime,
    ) -> Committer {
        Committer {
            store,
            data_dir,
            rules,
            price_revision,
            rollup_interval,
            unrolled,
            rolled_up_at: Instant::now(),
            now,
        }
    }

    /// Commits an epoch, trying again while the trouble is one that passes; `trouble` hears of it, and of its end.
    pub async fn commit(
        &mut self,
        epoch: Arc<Epoch>,
        mut trouble: impl FnMut(Option<String>),
    ) -> Result<(Committed, Timings), CommitError> {
        let started = Instant::now();
        let mut pause = Pause::default();
        let rollup = self.rollup_due().map(Arc::new);
        let files = loop {
            let (data_dir, epoch, rollup) = (self.data_dir.clone(), epoch.clone(), rollup.clone());
            match reading::read_blocking(move || stage_all(&data_dir, &epoch, rollup.as_deref())).await {
                Ok(files) => break files,
                Err(error) => pause.after(&format!("{}: {error}", self.data_dir.display()), &mut trouble).await,
            }
        };
        let stage = started.elapsed();
        crate::crash::point("commit.staged");
        let committed = loop {
            let error = match self.store.commit(&epoch, &files, &self.price_revision, &self.rules, (self.now)()).await {
                Ok(committed) => break committed,
                Err(error) => error,
            };
            // The connection may have been lost after the COMMIT took effect: then the store knows, and nothing is repeated.
            let (at, range) = &epoch.ranges[0];
            match self.store.has_committed(at, range.from, range.to).await {
                Ok(true) if pause.tried || matches!(error, CommitError::Store(_)) => break Committed::default(),
                _ if matches!(error, CommitError::Store(_)) => pause.after(&error.to_string(), &mut trouble).await,
                _ => {
                    for file in &files {
                        // What cannot be removed now is not in the manifest, so recovery removes it.
                        let _ = std::fs::remove_file(self.data_dir.join(&file.path));
                    }
                    return Err(error);
                }
            }
        };
        crate::crash::point("commit.committed");
        if pause.tried {
            trouble(None);
        }
        if rollup.is_some() {
            self.unrolled.clear();
            self.rolled_up_at = started;
        }
        for (minute, dims, sums) in &epoch.cells {
            let hour = Grain::Hour.window(EventTime(minute.0));
            self.unrolled.entry((hour, dims.clone())).or_default().add(sums);
        }
        Ok((committed, Timings { stage, transaction: started.elapsed() - stage }))
    }

    /// The hourly totals of earlier epochs, when it is time to write them. They go with an epoch, so that the manifest can
    /// say in the same transaction which ledger files they stand for.
    fn rollup_due(&self) -> Option<DatasetRows> {
        if self.unrolled.is_empty() || self.rolled_up_at.elapsed() < self.rollup_interval {
            return None;
        }
        Some(rollup_rows(&self.unrolled))
    }
}

/// The pause between attempts, longer each time.
#[derive(Default)]
struct Pause {
    tried: bool,
    next: Duration,
}

impl Pause {
    async fn after(&mut self, problem: &str, trouble: &mut impl FnMut(Option<String>)) {
        self.tried = true;
        self.next = (self.next * 2).clamp(Duration::from_millis(50), RETRY_WAIT_MAX);
        trouble(Some(format!("commit: {problem}; trying again in {} ms", self.next.as_millis())));
        tokio::time::sleep(self.next).await;
    }
}

fn rollup_rows(unrolled: &Unrolled) -> DatasetRows {
    let mut table = DimTable::default();
    let mut cells: Vec<_> = unrolled.iter().map(|((hour, dims), sums)| (*hour, table.intern(&dims.0), *sums)).collect();
    cells.sort_by_key(|(hour, dims, _)| (*hour, *dims));
    let fits = "MONEY-2: an hour's cost fits 38 digits";
    let cost = cells.iter().fold(Money::ZERO, |sum, (_, _, sums)| sum.checked_add(sums.cost).expect(fits));
    let first = cells.first().map_or(0, |cell| cell.0.0);
    let last = cells.last().map_or(0, |cell| cell.0.0);
    DatasetRows {
        batch: window_batch(&cells, |number| table.get(number)),
        cost,
        time_range: (EventTime(first), EventTime(last)),
    }
}

fn stage_all(data_dir: &Path, epoch: &Epoch, rollup: Option<&DatasetRows>) -> std::io::Result<Vec<StagedFile>> {
    let datasets = [
        (Dataset::Ledger, epoch.ledger.as_ref()),
        (Dataset::Quarantine, epoch.quarantine.as_ref()),
        (Dataset::RollupHour, rollup),
    ];
    let mut files = Vec::new();
    for (dataset, rows) in datasets {
        let Some(rows) = rows else { continue };
        files.push(staging::stage(data_dir, dataset, rows)?);
    }
    Ok(files)
}
