//! Rows of committed files, read back: for recovery, for the audit and for counters of new budgets.

use std::{fs::File, path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    datatypes::{Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use costhelm_pricing::{EventTime, Meter, Money, Usage};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use crate::{
    event::{Dim, columns::meter_column},
    fold::sums::Sums,
};

#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct ReadError {
    pub path: String,
    pub problem: String,
}

/// Calls `each` with the batches of a file; `columns` empty means all.
pub fn read(
    data_dir: &Path,
    path: &str,
    columns: &[&str],
    mut each: impl FnMut(&RecordBatch) -> Result<(), String>,
) -> Result<(), ReadError> {
    let failed = |problem: String| ReadError { path: path.to_owned(), problem };
    let file = File::open(data_dir.join(path)).map_err(|error| failed(error.to_string()))?;
    let mut builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| failed(error.to_string()))?;
    if !columns.is_empty() {
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        builder = builder.with_projection(mask);
    }
    let reader = builder.with_batch_size(8192).build().map_err(|error| failed(error.to_string()))?;
    for batch in reader {
        let batch = batch.map_err(|error| failed(error.to_string()))?;
        each(&batch).map_err(failed)?;
    }
    Ok(())
}

/// A text column, plain or dictionary-encoded, by row.
pub struct TextColumn {
    values: StringArray,
    keys: Option<Vec<i32>>,
    nulls: Option<arrow::buffer::NullBuffer>,
}

impl TextColumn {
    pub fn of(batch: &RecordBatch, name: &str) -> Result<TextColumn, String> {
        let column = column(batch, name)?;
        let nulls = column.nulls().cloned();
        if let Some(dictionary) = column.as_any_dictionary_opt() {
            let values = dictionary.values().as_string_opt::<i32>().ok_or_else(|| wrong(name, "text", column))?.clone();
            let keys = column.as_dictionary::<Int32Type>().keys().values().to_vec();
            return Ok(TextColumn { values, keys: Some(keys), nulls });
        }
        let values = column.as_string_opt::<i32>().ok_or_else(|| wrong(name, "text", column))?.clone();
        Ok(TextColumn { values, keys: None, nulls })
    }

    /// The text of a row; empty where it is null.
    pub fn get(&self, row: usize) -> &str {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return "";
        }
        match &self.keys {
            Some(keys) => self.values.value(keys[row] as usize),
            None => self.values.value(row),
        }
    }
}

fn column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef, String> {
    batch.column_by_name(name).ok_or_else(|| format!("column `{name}` is missing"))
}

fn wrong(name: &str, expected: &str, found: &ArrayRef) -> String {
    format!("column `{name}` is {}; expected {expected}", found.data_type())
}

/// A column of whole numbers by row; null reads as zero.
pub struct CountColumn(arrow::array::Int64Array);

impl CountColumn {
    pub fn of(batch: &RecordBatch, name: &str) -> Result<CountColumn, String> {
        let column = column(batch, name)?;
        let values = column.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong(name, "Int64", column))?;
        Ok(CountColumn(values.clone()))
    }

    pub fn get(&self, row: usize) -> i64 {
        if self.0.is_null(row) { 0 } else { self.0.value(row) }
    }
}

/// A money column by row.
pub struct MoneyColumn(arrow::array::Decimal128Array);

impl MoneyColumn {
    pub fn of(batch: &RecordBatch, name: &str) -> Result<MoneyColumn, String> {
        let column = column(batch, name)?;
        let values =
            column.as_primitive_opt::<Decimal128Type>().ok_or_else(|| wrong(name, "Decimal128(38, 18)", column))?;
        if values.scale() != 18 {
            return Err(wrong(name, "Decimal128(38, 18)", column));
        }
        Ok(MoneyColumn(values.clone()))
    }

    pub fn get(&self, row: usize) -> Option<Money> {
        (!self.0.is_null(row)).then(|| Money::from_atto(self.0.value(row)))
    }
}

fn times(batch: &RecordBatch, name: &str) -> Result<arrow::array::TimestampMicrosecondArray, String> {
    let column = column(batch, name)?;
    let values =
        column.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| wrong(name, "a timestamp", column))?;
    Ok(values.clone())
}

/// Times, dimensions and sums of each row of a ledger or rollup file.
pub struct SumsRows {
    times: arrow::array::TimestampMicrosecondArray,
    dims: Vec<TextColumn>,
    meters: Vec<(Meter, CountColumn)>,
    cost: MoneyColumn,
    reported_cost: MoneyColumn,
    duration_ms: CountColumn,
    mcp_overhead_ms: CountColumn,
    late: Option<arrow::array::BooleanArray>,
    counts: Option<[CountColumn; 3]>,
}

impl SumsRows {
    /// The columns that [`SumsRows::of_ledger`] needs.
    pub fn ledger_columns() -> Vec<String> {
        let mut names: Vec<String> =
            ["event_time", "cost_usd", "reported_cost_usd", "duration_ms", "mcp_overhead_ms", "late"]
                .map(str::to_owned)
                .to_vec();
        names.extend(Dim::ALL.map(|dim| dim.name().to_owned()));
        names.extend(Meter::ALL.iter().map(|meter| meter_column(*meter)));
        names
    }

    pub fn of_ledger(batch: &RecordBatch) -> Result<SumsRows, String> {
        let late = column(batch, "late")?;
        let late = late.as_boolean_opt().ok_or_else(|| wrong("late", "Boolean", late))?.clone();
        SumsRows::of(batch, "event_time", Some(late), None)
    }

    pub fn of_rollup(batch: &RecordBatch) -> Result<SumsRows, String> {
        let count = |name| CountColumn::of(batch, name);
        SumsRows::of(batch, "window_start", None, Some([count("events")?, count("unpriced")?, count("late")?]))
    }

    fn of(
        batch: &RecordBatch,
        time: &str,
        late: Option<arrow::array::BooleanArray>,
        counts: Option<[CountColumn; 3]>,
    ) -> Result<SumsRows, String> {
        let meters = Meter::ALL.iter().map(|meter| Ok((*meter, CountColumn::of(batch, &meter_column(*meter))?)));
        Ok(SumsRows {
            times: times(batch, time)?,
            dims: Dim::ALL.iter().map(|dim| TextColumn::of(batch, dim.name())).collect::<Result<_, _>>()?,
            meters: meters.collect::<Result<_, String>>()?,
            cost: MoneyColumn::of(batch, "cost_usd")?,
            reported_cost: MoneyColumn::of(batch, "reported_cost_usd")?,
            duration_ms: CountColumn::of(batch, "duration_ms")?,
            mcp_overhead_ms: CountColumn::of(batch, "mcp_overhead_ms")?,
            late,
            counts,
        })
    }

    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    pub fn time(&self, row: usize) -> EventTime {
        EventTime(self.times.value(row))
    }

    pub fn dims(&self, row: usize) -> [&str; Dim::COUNT] {
        std::array::from_fn(|dim| self.dims[dim].get(row))
    }

    pub fn sums(&self, row: usize) -> Sums {
        let mut usage = Usage::default();
        for (meter, column) in &self.meters {
            usage.set(*meter, column.get(row) as u64);
        }
        let cost = self.cost.get(row);
        let (events, unpriced, late) = match &self.counts {
            Some([events, unpriced, late]) => (events.get(row) as u64, unpriced.get(row) as u64, late.get(row) as u64),
            None => (1, u64::from(cost.is_none()), u64::from(self.late.as_ref().is_some_and(|late| late.value(row)))),
        };
        Sums {
            events,
            unpriced,
            late,
            cost: cost.unwrap_or(Money::ZERO),
            reported_cost: self.reported_cost.get(row).unwrap_or(Money::ZERO),
            usage,
            duration_ms: self.duration_ms.get(row) as u64,
            mcp_overhead_ms: self.mcp_overhead_ms.get(row) as u64,
        }
    }
}

/// The place in the log that each ledger row came from.
pub struct OriginRows {
    topic: TextColumn,
    partition: arrow::array::Int32Array,
    offset: CountColumn,
    index: arrow::array::Int32Array,
}

impl OriginRows {
    pub const COLUMNS: [&str; 4] = ["topic", "partition", "offset", "record_index"];

    pub fn of(batch: &RecordBatch) -> Result<OriginRows, String> {
        let small = |name| {
            let column = column(batch, name)?;
            column.as_primitive_opt::<Int32Type>().cloned().ok_or_else(|| wrong(name, "Int32", column))
        };
        Ok(OriginRows {
            topic: TextColumn::of(batch, "topic")?,
            partition: small("partition")?,
            offset: CountColumn::of(batch, "offset")?,
            index: small("record_index")?,
        })
    }

    pub fn topic(&self, row: usize) -> &str {
        self.topic.get(row)
    }

    pub fn partition(&self, row: usize) -> i32 {
        self.partition.value(row)
    }

    pub fn offset(&self, row: usize) -> i64 {
        self.offset.get(row)
    }

    pub fn index(&self, row: usize) -> i32 {
        self.index.value(row)
    }
}

/// Reads a file on a thread where waiting for the disk hurts nobody.
pub async fn read_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Shares a data directory with the threads that read from it.
pub type DataDir = Arc<Path>;
