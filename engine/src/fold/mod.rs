//! Batches of records to one epoch: decoded, told from repeats, priced, and added up.
//!
//! ```text
//!  Batch ─▶ decode ─┬─ rejected ───────────────────────────▶ quarantine rows ┐
//!                   └─ event ─ seen? ─ yes ─▶ counted        ledger rows     ├─▶ Epoch ─▶ commit
//!                               └ no ─▶ rate ───────────────▶ minute cells   │
//!                                         └─ cells × budgets ▶ budget spend  ┘
//! ```
//!
//! Pure: time comes in as an argument, and nothing here waits. Everything gathered since the last epoch lives in `Pending`;
//! dropping the [`Folder`] drops exactly what is not committed yet (EO-2).
//!
//! Limits: [`DIM_SETS_MAX`] sets of dimensions are remembered between epochs; the rows of an epoch are bounded by the
//! pipeline, which seals it; the dedup table by its own limit.

pub mod dedup;
pub mod sums;
pub mod watermark;
pub mod windows;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::array::RecordBatch;
use costhelm_pricing::{Book, EventTime, Money};

use self::{
    dedup::Dedup,
    sums::{Grain, Sums, WindowStart},
    watermark::Watermarks,
};
use crate::{
    budget::{Budget, Period, crossings, period_of},
    bus::{Batch, RecordRef, TopicPartition},
    decode::{Decoded, Envelope, RejectionCode, decode},
    event::{
        Dims, UsageEvent,
        columns::{LedgerRows, QuarantineRows, Quarantined, RowOrigin},
        dims::DimTable,
    },
    rate::Rater,
};

/// Sets of dimensions that are remembered from one epoch to the next.
pub const DIM_SETS_MAX: usize = 200_000;

/// What became of the records of one partition in one epoch: `events = ledger_rows + duplicates + quarantined` (EO-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumedRange {
    pub from: i64,
    pub to: i64,
    pub records: u64,
    pub events: u64,
    pub ledger_rows: u64,
    pub duplicates: u64,
    pub quarantined: u64,
    /// The partition's greatest event time, this range included.
    pub greatest: Option<EventTime>,
}

/// Rows of one dataset, ready to be written.
#[derive(Debug)]
pub struct DatasetRows {
    pub batch: RecordBatch,
    /// Σ `cost_usd`; zero where the dataset has no such column.
    pub cost: Money,
    pub time_range: (EventTime, EventTime),
}

/// Spend to add to one budget's counter of one period and partition (EO-2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetSpend {
    /// Index into the engine's budgets.
    pub budget: usize,
    pub period: Period,
    pub at: TopicPartition,
    pub amount: Money,
}

/// Everything that one commit makes true at once.
#[derive(Debug)]
pub struct Epoch {
    pub ranges: Vec<(TopicPartition, ConsumedRange)>,
    pub ledger: Option<DatasetRows>,
    pub quarantine: Option<DatasetRows>,
    pub cells: Vec<(WindowStart, Dims, Sums)>,
    pub budget_spend: Vec<BudgetSpend>,
    pub rejections: BTreeMap<RejectionCode, u64>,
    /// The greatest event time accepted so far, by the whole stream.
    pub clock: EventTime,
}

/// A batch that does not go on where the last one of its partition ended (EO-1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: the next batch begins at offset {found}, expected {expected}")]
pub struct OutOfOrder {
    pub at: TopicPartition,
    pub expected: i64,
    pub found: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct TimeRules {
    /// How far ahead of now an event may be; further goes to quarantine (TIME-1).
    pub future_skew_us: i64,
}

/// What has been gathered since the last epoch.
#[derive(Default)]
struct Pending {
    ranges: BTreeMap<TopicPartition, ConsumedRange>,
    ledger: LedgerRows,
    quarantine: QuarantineRows,
    cells: HashMap<(WindowStart, u32), Sums>,
    budget_spend: Vec<BudgetSpend>,
    rejections: BTreeMap<RejectionCode, u64>,
}

/// A budget with the period its last event fell into: neighbours mostly share it.
struct BudgetTrack {
    period: Option<Period>,
    /// Spend by period start, committed and pending; only a hint to seal an epoch early, the store decides.
    spent: BTreeMap<EventTime, Money>,
}

pub struct Folder {
    rules: TimeRules,
    budgets: Arc<[Budget]>,
    tracks: Vec<BudgetTrack>,
    rater: Rater,
    dims: DimTable,
    /// The budgets each set of dimensions counts towards.
    budgets_of: Vec<Option<Box<[usize]>>>,
    dedup: Dedup,
    watermarks: Watermarks,
    positions: HashMap<TopicPartition, i64>,
    clock: EventTime,
    pending: Pending,
    /// Kept between batches for its capacity.
    batch_cells: HashMap<(WindowStart, u32), Sums>,
}

impl Folder {
    pub fn new(
        rules: TimeRules,
        book: Arc<Book>,
        budgets: Arc<[Budget]>,
        spent: impl IntoIterator<Item = (usize, EventTime, Money)>,
        dedup: Dedup,
        watermarks: Watermarks,
        clock: EventTime,
    ) -> Folder {
        let mut tracks: Vec<_> = budgets.iter().map(|_| BudgetTrack { period: None, spent: BTreeMap::new() }).collect();
        for (budget, period_start, amount) in spent {
            tracks[budget].spent.insert(period_start, amount);
        }
        Folder {
            rules,
            budgets,
            tracks,
            rater: Rater::new(book),
            dims: DimTable::default(),
            budgets_of: Vec::new(),
            dedup,
            watermarks,
            positions: HashMap::new(),
            clock,
            pending: Pending::default(),
            batch_cells: HashMap::new(),
        }
    }

    /// These partitions are ours, beginning at these offsets.
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = (TopicPartition, i64)>) {
        self.positions.extend(partitions);
    }

    /// These partitions are not ours any more; their pending rows have been committed by now or go with the folder.
    pub fn revoke(&mut self, partitions: &[TopicPartition]) {
        for at in partitions {
            self.positions.remove(at);
        }
    }

    pub fn pending_rows(&self) -> usize {
        self.pending.ledger.len() + self.pending.quarantine.len()
    }

    /// True while there is anything to commit, be it only offsets.
    pub fn has_pending(&self) -> bool {
        !self.pending.ranges.is_empty()
    }

    pub fn dedup(&self) -> &Dedup {
        &self.dedup
    }

    pub fn watermarks(&self) -> &Watermarks {
        &self.watermarks
    }

    /// Folds one batch. True when it took a budget over a threshold, so that the epoch should close at once.
    pub fn fold(&mut self, batch: &Batch, now: EventTime) -> Result<bool, OutOfOrder> {
        match self.positions.get_mut(&batch.at) {
            Some(position) if *position == batch.from => *position = batch.to,
            Some(position) => {
                return Err(OutOfOrder { at: batch.at.clone(), expected: *position, found: batch.from });
            }
            // A partition that left us while its batch was in the queue: its new owner reads these records.
            None => return Ok(false),
        }
        let greatest = self.watermarks.greatest(&batch.at);
        let mut partition = PartitionFold {
            latest_us: now.0.saturating_add(self.rules.future_skew_us),
            greatest,
            counts: ConsumedRange { from: batch.from, to: batch.to, ..ConsumedRange::default() },
        };
        for record in &batch.records {
            self.fold_record(batch, record, &mut partition);
        }
        let PartitionFold { greatest, mut counts, .. } = partition;
        counts.greatest = greatest;
        debug_assert_eq!(counts.events, counts.ledger_rows + counts.duplicates + counts.quarantined, "EO-3");
        if let Some(greatest) = greatest {
            self.watermarks.advance(&batch.at, greatest);
        }
        match self.pending.ranges.get_mut(&batch.at) {
            Some(range) => range.extend(&counts),
            None => {
                self.pending.ranges.insert(batch.at.clone(), counts);
            }
        }
        Ok(self.merge_batch(&batch.at))
    }

    fn fold_record(&mut self, batch: &Batch, record: &RecordRef, partition: &mut PartitionFold) {
        partition.counts.records += 1;
        let value = batch.bytes(&record.value);
        let envelope = if record.headers.is_empty() {
            None
        } else {
            let headers = record.headers.iter().map(|(name, value)| (batch.bytes(name), batch.bytes(value)));
            Envelope::from_headers(headers.filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value))))
        };
        decode(value, envelope.as_ref(), |Decoded { index, raw, event }| {
            partition.counts.events += 1;
            let origin =
                RowOrigin { topic: &batch.at.topic, partition: batch.at.partition, offset: record.offset, index };
            let rejection = match event {
                Ok(event) if event.time.0 > partition.latest_us => crate::decode::Rejection::new(
                    RejectionCode::FutureTimestamp,
                    format!(
                        "field `timestamp` is {}; expected a time at most {} s ahead of now",
                        event.time,
                        self.rules.future_skew_us / 1_000_000
                    ),
                ),
                Ok(event) => return self.fold_event(&event, origin, partition),
                Err(rejection) => rejection,
            };
            partition.counts.quarantined += 1;
            *self.pending.rejections.entry(rejection.code).or_default() += 1;
            self.pending.quarantine.push(Quarantined {
                origin,
                record_time: EventTime(record.timestamp_ms.saturating_mul(1000)),
                code: rejection.code.name(),
                reason: &rejection.message,
                key: record.key.as_ref().map(|key| batch.bytes(key)),
                value: raw,
                headers: headers_json(batch, record),
            });
        });
    }

    fn fold_event(&mut self, event: &UsageEvent<'_>, origin: RowOrigin<'_>, partition: &mut PartitionFold) {
        // The clock first: an id is remembered from the time the stream has reached with it.
        self.clock = self.clock.max(event.time);
        if !self.dedup.insert(&event.source, &event.event_id, self.clock) {
            partition.counts.duplicates += 1;
            return;
        }
        partition.counts.ledger_rows += 1;
        let late = self.watermarks.is_late(partition.greatest, event.time);
        partition.greatest = Some(partition.greatest.map_or(event.time, |greatest| greatest.max(event.time)));
        let number = self.dims.intern(&event.dims);
        let rating = self.rater.rate(number, self.dims.get(number), event);
        let sums = Sums::of(event, rating.cost(), late);
        self.pending.ledger.push(event, number, rating, late, origin);
        self.batch_cells.entry((Grain::Minute.window(event.time), number)).or_default().add(&sums);
    }

    /// Adds the batch's cells to the epoch and to the budgets they count towards.
    fn merge_batch(&mut self, at: &TopicPartition) -> bool {
        let mut crossed = false;
        for ((window, number), sums) in self.batch_cells.drain() {
            self.pending.cells.entry((window, number)).or_default().add(&sums);
            if self.budgets.is_empty() || sums.cost == Money::ZERO {
                continue;
            }
            let slot = number as usize;
            if self.budgets_of.len() <= slot {
                self.budgets_of.resize(slot + 1, None);
            }
            let scope = self.dims.get(number);
            let covering = self.budgets_of[slot].get_or_insert_with(|| {
                (0..self.budgets.len()).filter(|b| self.budgets[*b].scope.matches(&scope.into())).collect()
            });
            for budget in covering.iter().copied() {
                let (rule, track) = (&self.budgets[budget], &mut self.tracks[budget]);
                let time = EventTime(window.0);
                let period = match &track.period {
                    Some(period) if period.start <= time && time < period.end => period.clone(),
                    _ => track.period.insert(period_of(rule.period, rule.zone, time)).clone(),
                };
                let spent = track.spent.entry(period.start).or_default();
                let after = spent.checked_add(sums.cost).expect("MONEY-2: a budget's spend fits 38 digits");
                crossed |= !crossings(rule, *spent, after).is_empty();
                *spent = after;
                add_spend(
                    &mut self.pending.budget_spend,
                    BudgetSpend { budget, period, at: at.clone(), amount: sums.cost },
                );
            }
        }
        crossed
    }

    /// Closes the epoch; `None` when nothing has been consumed since the last one.
    pub fn seal(&mut self) -> Option<Epoch> {
        if !self.has_pending() {
            return None;
        }
        let pending = std::mem::take(&mut self.pending);
        let dims = &self.dims;
        let ledger = pending.ledger.time_range().map(|time_range| DatasetRows {
            cost: pending.ledger.cost_total(),
            time_range,
            batch: pending.ledger.finish(self.rater.book().revision(), |number| dims.get(number)),
        });
        let quarantine = pending.quarantine.time_range().map(|time_range| DatasetRows {
            cost: Money::ZERO,
            time_range,
            batch: pending.quarantine.finish(),
        });
        let cells = pending
            .cells
            .into_iter()
            .map(|((window, number), sums)| (window, dims.get(number).clone(), sums))
            .collect();
        if self.dims.len() > DIM_SETS_MAX {
            self.dims = DimTable::default();
            self.rater.clear();
            self.budgets_of.clear();
        }
        Some(Epoch {
            ranges: pending.ranges.into_iter().collect(),
            ledger,
            quarantine,
            cells,
            budget_spend: pending.budget_spend,
            rejections: pending.rejections,
            clock: self.clock,
        })
    }
}

struct PartitionFold {
    latest_us: i64,
    greatest: Option<EventTime>,
    counts: ConsumedRange,
}

impl ConsumedRange {
    /// Appends the range that follows this one.
    fn extend(&mut self, next: &ConsumedRange) {
        assert_eq!(self.to, next.from, "EO-1: ranges of a partition chain");
        self.to = next.to;
        self.records += next.records;
        self.events += next.events;
        self.ledger_rows += next.ledger_rows;
        self.duplicates += next.duplicates;
        self.quarantined += next.quarantined;
        self.greatest = self.greatest.max(next.greatest);
    }
}

/// Few budgets and partitions meet in one epoch, so a look along the list is quicker than a map.
fn add_spend(spends: &mut Vec<BudgetSpend>, spend: BudgetSpend) {
    let same = |known: &&mut BudgetSpend| {
        known.budget == spend.budget && known.period.start == spend.period.start && known.at == spend.at
    };
    match spends.iter_mut().rev().find(same) {
        Some(known) => {
            known.amount = known.amount.checked_add(spend.amount).expect("MONEY-2: an epoch's spend fits 38 digits");
        }
        None => spends.push(spend),
    }
}

fn headers_json(batch: &Batch, record: &RecordRef) -> Option<String> {
    if record.headers.is_empty() {
        return None;
    }
    let headers = record.headers.iter().map(|(name, value)| {
        let text = |range| String::from_utf8_lossy(batch.bytes(range)).into_owned();
        (text(name), serde_json::Value::from(text(value)))
    });
    Some(serde_json::Value::Object(headers.collect()).to_string())
}
