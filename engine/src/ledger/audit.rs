//! The audit: proof that nothing was lost or counted twice (EO-4), as a table of checks with the exact difference where one fails.
//!
//! | check | compares |
//! | --- | --- |
//! | offset chains | each partition's committed ranges, one after the other, up to its cursor (EO-1) |
//! | every event | events = ledger rows + duplicates + quarantined, in each range (EO-3) |
//! | file checksums | SHA-256 and size of each file with the manifest |
//! | ledger rows, quarantine rows | rows in the files = rows in the manifest = rows in the ranges |
//! | files readable | each file opens and its columns are what they should be |
//! | row origins | each row within a committed range of its own epoch, none twice |
//! | ledger cost | Σ of the rows = Σ of the manifest |
//! | recomputed cost | each row's meters × its own unit prices = its cost (RATE-1) |
//! | unique events | no (source, event_id) twice |
//! | hourly rollups | rollup files = the ledger files they stand for |
//! | budget counters | each counter = the ledger rows of its scope, period and partition |
//!
//! Limits: memory for one 128-bit hash a ledger row.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use costhelm_pricing::{EventTime, Money, recompute};
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    budget::Budget,
    bus::TopicPartition,
    commit::{
        counters::Tally,
        reading::{MoneyColumn, OriginRows, SumsRows, TextColumn, read},
        staging::{Dataset, sha256_hex},
        store::{CommitError, ConsumedRow, ManifestFile, Store},
    },
    event::{Dims, dims::DimTable},
    fold::sums::{Grain, Sums, WindowStart},
};

/// Problems that are named one by one; the rest is counted.
const PROBLEMS_SHOWN_MAX: usize = 5;

#[derive(Clone, Debug, serde::Serialize)]
pub struct Check {
    pub name: &'static str,
    pub holds: bool,
    /// What was compared, in figures, or the exact difference.
    pub detail: String,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    pub holds: bool,
    pub checks: Vec<Check>,
    pub ledger_rows: u64,
    pub unpriced_rows: u64,
    pub duplicates: u64,
    pub quarantined: u64,
    pub total_cost_usd: Money,
}

/// What one check has found wrong.
#[derive(Default)]
struct Problems {
    shown: Vec<String>,
    count: usize,
}

impl Problems {
    fn add(&mut self, problem: impl FnOnce() -> String) {
        if self.shown.len() < PROBLEMS_SHOWN_MAX {
            self.shown.push(problem());
        }
        self.count += 1;
    }

    fn check(self, name: &'static str, holds: impl FnOnce() -> String) -> Check {
        if self.count == 0 {
            return Check { name, holds: true, detail: holds() };
        }
        let more = match self.count - self.shown.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Check { name, holds: false, detail: format!("{}{more}", self.shown.join("; ")) }
    }
}

/// Everything the store says, read at one moment.
struct Books {
    consumed: Vec<ConsumedRow>,
    cursors: Vec<(TopicPartition, i64)>,
    ledger: Vec<ManifestFile>,
    quarantine: Vec<ManifestFile>,
    rollups: Vec<ManifestFile>,
    counters: BTreeMap<(String, EventTime, TopicPartition), Money>,
    counted_budgets: Vec<Budget>,
}

/// Audits a data directory. The engine may run: what is committed while the audit reads is not part of it.
pub async fn audit(data_dir: &Path, store: &Store, budgets: &[Budget]) -> Result<Report, CommitError> {
    let books = read_books(store, budgets).await?;
    let data_dir = data_dir.to_owned();
    Ok(crate::commit::reading::read_blocking(move || check_all(&data_dir, &books)).await)
}

/// Reads the store until no commit has come in between, so that all of it is of one moment.
async fn read_books(store: &Store, budgets: &[Budget]) -> Result<Books, CommitError> {
    loop {
        let epoch = store.last_epoch().await?;
        let known = store.budget_definitions().await?;
        let counters = store.budget_counters().await?;
        let counted = |budget: &&Budget| known.get(&budget.id.0) == Some(&crate::commit::counters::definition(budget));
        let books = Books {
            consumed: store.consumed().await?,
            cursors: store.cursors().await?.into_iter().map(|(at, next, _)| (at, next)).collect(),
            ledger: store.files(Dataset::Ledger).await?,
            quarantine: store.files(Dataset::Quarantine).await?,
            rollups: store.files(Dataset::RollupHour).await?,
            counters: counters.into_iter().map(|c| ((c.budget, c.period_start, c.at), c.spent)).collect(),
            counted_budgets: budgets.iter().filter(counted).cloned().collect(),
        };
        if store.last_epoch().await? == epoch {
            return Ok(books);
        }
    }
}

fn check_all(data_dir: &Path, books: &Books) -> Report {
    let mut checks = vec![chains(books), every_event(books), checksums(data_dir, books)];
    let ledger = LedgerFacts::read(data_dir, books);
    checks.push(rows_check(
        "ledger rows",
        ledger.rows,
        &books.ledger,
        books.consumed.iter().map(|row| row.ledger_rows).sum(),
    ));
    let (quarantined, unreadable) = count_rows(data_dir, &books.quarantine);
    checks.push(rows_check(
        "quarantine rows",
        quarantined,
        &books.quarantine,
        books.consumed.iter().map(|row| row.quarantined).sum(),
    ));
    let LedgerFacts { rows, unpriced, cost, mut unreadable_files, origins, recomputed, repeated, hours, spent, .. } =
        ledger;
    for problem in unreadable {
        unreadable_files.add(|| problem);
    }
    checks.push(unreadable_files.check("files readable", || {
        format!("{} files", books.ledger.len() + books.quarantine.len() + books.rollups.len())
    }));
    checks.push(
        origins.check("row origins", || format!("{rows} rows, each within a committed range of its epoch, none twice")),
    );
    let manifest = sum(books.ledger.iter().map(|file| file.cost));
    let mut costs = Problems::default();
    if Some(cost) != manifest {
        costs.add(|| {
            format!("rows {cost} USD, manifest {} USD", manifest.map_or("overflows".into(), |m| m.to_string()))
        });
    }
    checks.push(costs.check("ledger cost", || format!("{cost} USD")));
    checks.push(recomputed.check("recomputed cost", || format!("{} rows from their own unit prices", rows - unpriced)));
    checks.push(repeated.check("unique events", || format!("{rows} (source, event_id)")));
    checks.push(rollups(data_dir, books, hours));
    checks.push(budget_counters(books, spent));
    Report {
        holds: checks.iter().all(|check| check.holds),
        checks,
        ledger_rows: rows,
        unpriced_rows: unpriced,
        duplicates: books.consumed.iter().map(|row| row.duplicates).sum(),
        quarantined,
        total_cost_usd: cost,
    }
}

fn sum(mut amounts: impl Iterator<Item = Money>) -> Option<Money> {
    amounts.try_fold(Money::ZERO, Money::checked_add)
}

fn chains(books: &Books) -> Check {
    let mut problems = Problems::default();
    let mut ends: BTreeMap<&TopicPartition, i64> = BTreeMap::new();
    for row in &books.consumed {
        if row.to < row.from {
            problems.add(|| format!("{}: range [{}, {}) runs backwards", row.at, row.from, row.to));
        }
        if let Some(end) = ends.insert(&row.at, row.to)
            && end != row.from
        {
            let what = if end < row.from { "gap" } else { "overlap" };
            problems.add(|| format!("{}: {what} between offset {end} and {}", row.at, row.from));
        }
    }
    for (at, next) in &books.cursors {
        if ends.get(at) != Some(next) {
            let end = ends.get(at).map_or("none".to_owned(), i64::to_string);
            problems.add(|| format!("{at}: the cursor is at {next}, the ranges end at {end}"));
        }
    }
    problems.check("offset chains", || format!("{} partitions, {} ranges", ends.len(), books.consumed.len()))
}

fn every_event(books: &Books) -> Check {
    let mut problems = Problems::default();
    let mut events = 0;
    for row in &books.consumed {
        events += row.events;
        let ends = row.ledger_rows + row.duplicates + row.quarantined;
        if row.events != ends {
            problems.add(|| {
                format!("{} [{}, {}): {} events in, {ends} accounted for", row.at, row.from, row.to, row.events)
            });
        }
    }
    problems.check("every event", || format!("{events} events: ledger, duplicate or quarantine"))
}

fn checksums(data_dir: &Path, books: &Books) -> Check {
    let mut problems = Problems::default();
    let files = [&books.ledger, &books.quarantine, &books.rollups];
    for file in files.into_iter().flatten() {
        match std::fs::read(data_dir.join(&file.path)) {
            Ok(bytes) if bytes.len() as u64 != file.bytes => {
                problems.add(|| format!("{}: {} bytes, manifest {}", file.path, bytes.len(), file.bytes));
            }
            Ok(bytes) => {
                let found = sha256_hex(&bytes);
                if found != file.sha256 {
                    problems.add(|| format!("{}: SHA-256 {found}, manifest {}", file.path, file.sha256));
                }
            }
            Err(error) => problems.add(|| format!("{}: {error}", file.path)),
        }
    }
    problems.check("file checksums", || format!("{} files", files.iter().map(|files| files.len()).sum::<usize>()))
}

fn rows_check(name: &'static str, found: u64, files: &[ManifestFile], ranges: u64) -> Check {
    let manifest: u64 = files.iter().map(|file| file.rows).sum();
    let mut problems = Problems::default();
    if found != manifest || manifest != ranges {
        problems.add(|| format!("files {found}, manifest {manifest}, ranges {ranges}"));
    }
    problems.check(name, || format!("{found} rows in {} files", files.len()))
}

fn count_rows(data_dir: &Path, files: &[ManifestFile]) -> (u64, Vec<String>) {
    let (mut rows, mut unreadable) = (0, Vec::new());
    for file in files {
        let counted = read(data_dir, &file.path, &["offset"], |batch| {
            rows += batch.num_rows() as u64;
            Ok(())
        });
        if let Err(error) = counted {
            unreadable.push(error.to_string());
        }
    }
    (rows, unreadable)
}

/// What one pass over the ledger's rows finds.
struct LedgerFacts {
    rows: u64,
    unpriced: u64,
    cost: Money,
    unreadable_files: Problems,
    origins: Problems,
    recomputed: Problems,
    repeated: Problems,
    /// Hourly totals of the files that rollups stand for.
    hours: HashMap<(WindowStart, Dims), Sums>,
    spent: BTreeMap<(String, EventTime, TopicPartition), Money>,
}

impl LedgerFacts {
    fn read(data_dir: &Path, books: &Books) -> LedgerFacts {
        let mut ranges: HashMap<i64, Vec<&ConsumedRow>> = HashMap::new();
        for row in &books.consumed {
            ranges.entry(row.epoch).or_default().push(row);
        }
        let mut facts = LedgerFacts {
            rows: 0,
            unpriced: 0,
            cost: Money::ZERO,
            unreadable_files: Problems::default(),
            origins: Problems::default(),
            recomputed: Problems::default(),
            repeated: Problems::default(),
            hours: HashMap::new(),
            spent: BTreeMap::new(),
        };
        let mut tally = Tally::new(&books.counted_budgets);
        let mut ids = HashSet::<u128>::new();
        for file in &books.ledger {
            let ranges = ranges.get(&file.epoch).map_or(&[][..], Vec::as_slice);
            let pass = read(data_dir, &file.path, &[], |batch| facts.batch(batch, file, ranges, &mut tally, &mut ids));
            if let Err(error) = pass {
                facts.unreadable_files.add(|| error.to_string());
            }
        }
        facts.spent = tally.finish().into_iter().map(|c| ((c.budget, c.period_start, c.at), c.spent)).collect();
        facts
    }

    fn batch(
        &mut self,
        batch: &arrow::array::RecordBatch,
        file: &ManifestFile,
        ranges: &[&ConsumedRow],
        tally: &mut Tally<'_>,
        ids: &mut HashSet<u128>,
    ) -> Result<(), String> {
        let (rows, origins, costs) =
            (SumsRows::of_ledger(batch)?, OriginRows::of(batch)?, MoneyColumn::of(batch, "cost_usd")?);
        let (sources, event_ids) = (TextColumn::of(batch, "source")?, TextColumn::of(batch, "event_id")?);
        let unit_prices = TextColumn::of(batch, "unit_prices")?;
        let mut table = DimTable::default();
        let mut previous: Option<(TopicPartition, i64, i32)> = None;
        for row in 0..rows.len() {
            self.rows += 1;
            let at = TopicPartition { topic: origins.topic(row).into(), partition: origins.partition(row) };
            let (offset, index) = (origins.offset(row), origins.index(row));
            if !ranges.iter().any(|range| range.at == at && range.from <= offset && offset < range.to) {
                self.origins
                    .add(|| format!("{}: {at} offset {offset} lies in no range of epoch {}", file.path, file.epoch));
            }
            // Within a file a partition's rows stand in the order of the log, so a repeat stands behind its twin.
            let place = (at.clone(), offset, index);
            if previous.as_ref() == Some(&place) {
                self.origins.add(|| format!("{}: {at} offset {offset} index {index} appears twice", file.path));
            }
            previous = Some(place);
            let (dims, sums) = (rows.dims(row), rows.sums(row));
            match costs.get(row) {
                None => self.unpriced += 1,
                Some(cost) => {
                    self.cost = self.cost.checked_add(cost).ok_or("MONEY-2: the ledger's cost overflows")?;
                    match recompute(unit_prices.get(row), &sums.usage) {
                        Ok(again) if again == cost => {}
                        Ok(again) => self.recomputed.add(|| {
                            format!("{} (offset {offset}): row {cost} USD, recomputed {again} USD", event_ids.get(row))
                        }),
                        Err(error) => {
                            self.recomputed.add(|| format!("{} (offset {offset}): {error}", event_ids.get(row)))
                        }
                    }
                    tally.add(rows.time(row), &dims, &at, cost)?;
                }
            }
            let (source, id) = (sources.get(row), event_ids.get(row));
            let identity = format!("{}:{source}{id}", source.len());
            if !ids.insert(xxh3_128(identity.as_bytes())) {
                self.repeated.add(|| format!("{source:?} {id:?} is in the ledger more than once"));
            }
            if file.rolled_up {
                let number = table.intern(&dims);
                let hour = Grain::Hour.window(rows.time(row));
                self.hours.entry((hour, table.get(number).clone())).or_default().add(&sums);
            }
        }
        Ok(())
    }
}

fn rollups(data_dir: &Path, books: &Books, ledger: HashMap<(WindowStart, Dims), Sums>) -> Check {
    let mut problems = Problems::default();
    let mut rolled = HashMap::<(WindowStart, Dims), Sums>::new();
    for file in &books.rollups {
        let pass = read(data_dir, &file.path, &[], |batch| {
            let rows = SumsRows::of_rollup(batch)?;
            let mut table = DimTable::default();
            for row in 0..rows.len() {
                let number = table.intern(&rows.dims(row));
                let hour = Grain::Hour.window(rows.time(row));
                rolled.entry((hour, table.get(number).clone())).or_default().add(&rows.sums(row));
            }
            Ok(())
        });
        if let Err(error) = pass {
            problems.add(|| error.to_string());
        }
    }
    let empty = Sums::default();
    for (key, sums) in &rolled {
        let rows = ledger.get(key).unwrap_or(&empty);
        if rows != sums {
            problems.add(|| difference(key, sums, rows));
        }
    }
    for (key, rows) in ledger.iter().filter(|(key, _)| !rolled.contains_key(*key)) {
        problems.add(|| difference(key, &empty, rows));
    }
    problems.check("hourly rollups", || format!("{} cells in {} files", rolled.len(), books.rollups.len()))
}

fn difference((hour, dims): &(WindowStart, Dims), rollup: &Sums, ledger: &Sums) -> String {
    format!(
        "{} {}: rollup {} events {} USD, ledger {} events {} USD",
        EventTime(hour.0),
        dims.0.join("/"),
        rollup.events,
        rollup.cost,
        ledger.events,
        ledger.cost
    )
}

fn budget_counters(books: &Books, ledger: BTreeMap<(String, EventTime, TopicPartition), Money>) -> Check {
    let mut problems = Problems::default();
    let audited = |budget: &str| books.counted_budgets.iter().any(|known| known.id.0 == budget);
    let counters = books.counters.iter().filter(|((budget, ..), _)| audited(budget));
    let mut compared = 0;
    for ((budget, start, at), counter) in counters {
        compared += 1;
        let rows = ledger.get(&(budget.clone(), *start, at.clone())).copied().unwrap_or(Money::ZERO);
        if rows != *counter {
            problems.add(|| format!("{budget} from {start}, {at}: counter {counter} USD, ledger {rows} USD"));
        }
    }
    for ((budget, start, at), rows) in ledger.iter().filter(|(key, _)| !books.counters.contains_key(*key)) {
        problems.add(|| format!("{budget} from {start}, {at}: no counter, ledger {rows} USD"));
    }
    problems.check("budget counters", || format!("{compared} counters of {} budgets", books.counted_budgets.len()))
}
