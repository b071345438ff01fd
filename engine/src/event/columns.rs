//! Priced events as Arrow columns: the row format of the `ledger` dataset, and of `quarantine`.
//!
//! The schemas here are a contract with seven years of readers: columns are added at the end, never renamed, moved or
//! retyped. Money is `Decimal128(38, 18)` (MONEY-1); times are UTC microseconds; what repeats is dictionary-encoded.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, DictionaryArray, Int32Array, Int32Builder,
        Int64Builder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondBuilder,
    },
    datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit},
};
use costhelm_pricing::{EventTime, Meter, Money, ServiceTier, Usage};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::{Dim, Dims, UsageEvent};

/// Precision and scale of every money column.
pub const MONEY_TYPE: DataType = DataType::Decimal128(38, 18);

pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

pub fn dictionary_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Name of the column that holds a meter, e.g. `usage_cache_read`. Meters are disjoint (RATE-2).
pub fn meter_column(meter: Meter) -> String {
    format!("usage_{}", meter.name())
}

fn required(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn optional(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

/// One row a usage event.
pub static LEDGER_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = vec![
        required("event_id", DataType::Utf8),
        required("source", dictionary_type()),
        required("event_time", time_type()),
    ];
    fields.extend(Dim::ALL.map(|dim| required(dim.name(), dictionary_type())));
    fields.extend(
        ["agent_task_id", "parent_agent_id", "user_id", "session_id"].map(|name| optional(name, DataType::Utf8)),
    );
    fields.push(required("service_tier", dictionary_type()));
    fields.extend(["tokens_input", "tokens_output", "tokens_total"].map(|name| required(name, DataType::Int64)));
    fields.push(optional("tokens_total_reported", DataType::Int64));
    fields.extend(Meter::ALL.iter().map(|meter| required(&meter_column(*meter), DataType::Int64)));
    fields.extend([
        required("status", dictionary_type()),
        optional("unpriced_reason", dictionary_type()),
        optional("cost_usd", MONEY_TYPE),
        optional("reported_cost_usd", MONEY_TYPE),
        optional("cost_calculation", dictionary_type()),
        optional("price_model", dictionary_type()),
        required("price_revision", dictionary_type()),
        optional("unit_prices", dictionary_type()),
        optional("duration_ms", DataType::Int64),
        optional("mcp_overhead_ms", DataType::Int64),
        optional("mcp_target_agent", DataType::Utf8),
        optional("trace_id", DataType::Utf8),
        optional("span_id", DataType::Utf8),
        optional("attributes", DataType::Utf8),
        required("late", DataType::Boolean),
        required("topic", dictionary_type()),
        required("partition", DataType::Int32),
        required("offset", DataType::Int64),
        required("record_index", DataType::Int32),
    ]);
    Arc::new(Schema::new(fields))
});

/// One row a record (or array element) that could not be used, whole (EO-3).
pub static QUARANTINE_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        required("topic", dictionary_type()),
        required("partition", DataType::Int32),
        required("offset", DataType::Int64),
        required("record_index", DataType::Int32),
        required("record_time", time_type()),
        required("code", dictionary_type()),
        required("reason", DataType::Utf8),
        optional("key", DataType::Binary),
        required("value", DataType::Binary),
        optional("headers", DataType::Utf8),
    ]))
});

/// Where a row came from: its record and its place in the record's array.
#[derive(Clone, Copy, Debug)]
pub struct RowOrigin<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub index: u32,
}

/// What rating an event gave.
#[derive(Clone, Copy, Debug)]
pub enum Rating<'a> {
    Priced {
        cost: Money,
        model: &'a str,
        unit_prices: &'a str,
    },
    /// Why there is no price, as a short code.
    Unpriced(&'static str),
}

impl Rating<'_> {
    pub fn cost(&self) -> Option<Money> {
        match self {
            Rating::Priced { cost, .. } => Some(*cost),
            Rating::Unpriced(_) => None,
        }
    }
}

/// A dictionary-encoded text column that is being filled.
#[derive(Default)]
struct DictionaryColumn {
    keys: Vec<Option<i32>>,
    values: Vec<Box<str>>,
    table: HashTable<i32>,
    /// The key given last: neighbours are often equal.
    last: i32,
}

impl DictionaryColumn {
    fn push(&mut self, value: &str) {
        if let Some(last) = self.values.get(self.last as usize)
            && **last == *value
        {
            self.keys.push(Some(self.last));
            return;
        }
        let values = &mut self.values;
        let key = *self
            .table
            .entry(
                xxh3_64(value.as_bytes()),
                |key| *values[*key as usize] == *value,
                |key| xxh3_64(values[*key as usize].as_bytes()),
            )
            .or_insert_with(|| values.len() as i32)
            .get();
        if key as usize == self.values.len() {
            self.values.push(value.into());
        }
        self.last = key;
        self.keys.push(Some(key));
    }

    fn push_optional(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.push(value),
            None => self.keys.push(None),
        }
    }

    fn finish(self) -> ArrayRef {
        let values = StringArray::from_iter_values(self.values.iter().map(|value| &**value));
        dictionary(Int32Array::from(self.keys), values)
    }
}

fn dictionary(keys: Int32Array, values: StringArray) -> ArrayRef {
    Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::new(values)))
}

/// Ledger rows that are being gathered for one epoch.
pub struct LedgerRows {
    event_id: StringBuilder,
    source: DictionaryColumn,
    event_time: TimestampMicrosecondBuilder,
    dims: Vec<u32>,
    agent_task_id: StringBuilder,
    parent_agent_id: StringBuilder,
    user_id: StringBuilder,
    session_id: StringBuilder,
    service_tier: DictionaryColumn,
    tokens: [Int64Builder; 3],
    tokens_total_reported: Int64Builder,
    meters: [Int64Builder; Meter::COUNT],
    status: DictionaryColumn,
    unpriced_reason: DictionaryColumn,
    cost: Decimal128Builder,
    reported_cost: Decimal128Builder,
    cost_calculation: DictionaryColumn,
    price_model: DictionaryColumn,
    unit_prices: DictionaryColumn,
    duration_ms: Int64Builder,
    mcp_overhead_ms: Int64Builder,
    mcp_target_agent: StringBuilder,
    trace_id: StringBuilder,
    span_id: StringBuilder,
    attributes: StringBuilder,
    late: BooleanBuilder,
    topic: DictionaryColumn,
    partition: Int32Builder,
    offset: Int64Builder,
    record_index: Int32Builder,
    cost_total: Money,
    time_range: Option<(EventTime, EventTime)>,
}

impl Default for LedgerRows {
    fn default() -> Self {
        let money = || Decimal128Builder::new().with_data_type(MONEY_TYPE);
        LedgerRows {
            event_id: StringBuilder::new(),
            source: DictionaryColumn::default(),
            event_time: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            dims: Vec::new(),
            agent_task_id: StringBuilder::new(),
            parent_agent_id: StringBuilder::new(),
            user_id: StringBuilder::new(),
            session_id: StringBuilder::new(),
            service_tier: DictionaryColumn::default(),
            tokens: Default::default(),
            tokens_total_reported: Int64Builder::new(),
            meters: std::array::from_fn(|_| Int64Builder::new()),
            status: DictionaryColumn::default(),
            unpriced_reason: DictionaryColumn::default(),
            cost: money(),
            reported_cost: money(),
            cost_calculation: DictionaryColumn::default(),
            price_model: DictionaryColumn::default(),
            unit_prices: DictionaryColumn::default(),
            duration_ms: Int64Builder::new(),
            mcp_overhead_ms: Int64Builder::new(),
            mcp_target_agent: StringBuilder::new(),
            trace_id: StringBuilder::new(),
            span_id: StringBuilder::new(),
            attributes: StringBuilder::new(),
            late: BooleanBuilder::new(),
            topic: DictionaryColumn::default(),
            partition: Int32Builder::new(),
            offset: Int64Builder::new(),
            record_index: Int32Builder::new(),
            cost_total: Money::ZERO,
            time_range: None,
        }
    }
}

impl LedgerRows {
    pub fn len(&self) -> usize {
        self.dims.len()
    }

    pub fn is_empty(&self) -> bool {
        self.dims.is_empty()
    }

    pub fn cost_total(&self) -> Money {
        self.cost_total
    }

    /// The earliest and the latest event time; `None` while there is no row.
    pub fn time_range(&self) -> Option<(EventTime, EventTime)> {
        self.time_range
    }

    /// `dims` is the caller's number for the event's dimensions; [`LedgerRows::finish`] is told what it stands for.
    pub fn push(&mut self, event: &UsageEvent<'_>, dims: u32, rating: Rating<'_>, late: bool, origin: RowOrigin<'_>) {
        self.event_id.append_value(&event.event_id);
        self.source.push(&event.source);
        self.event_time.append_value(event.time.0);
        self.dims.push(dims);
        self.agent_task_id.append_option(event.agent_task_id.as_deref());
        self.parent_agent_id.append_option(event.parent_agent_id.as_deref());
        self.user_id.append_option(event.user_id.as_deref());
        self.session_id.append_option(event.session_id.as_deref());
        self.service_tier.push(tier_name(event.service_tier));
        let (input, output) = tokens_in_and_out(&event.usage);
        for (column, tokens) in self.tokens.iter_mut().zip([input, output, input + output]) {
            column.append_value(tokens);
        }
        self.tokens_total_reported.append_option(event.tokens_total.map(|tokens| tokens as i64));
        for (column, meter) in self.meters.iter_mut().zip(Meter::ALL) {
            column.append_value(event.usage.get(meter) as i64);
        }
        match rating {
            Rating::Priced { cost, model, unit_prices } => {
                self.status.push("priced");
                self.unpriced_reason.push_optional(None);
                self.cost.append_value(cost.atto());
                self.price_model.push(model);
                self.unit_prices.push(unit_prices);
                self.cost_total = self.cost_total.checked_add(cost).expect("MONEY-2: an epoch's cost fits 38 digits");
            }
            Rating::Unpriced(reason) => {
                self.status.push("unpriced");
                self.unpriced_reason.push(reason);
                self.cost.append_null();
                self.price_model.push_optional(None);
                self.unit_prices.push_optional(None);
            }
        }
        self.reported_cost.append_option(event.reported_cost.map(Money::atto));
        self.cost_calculation.push_optional(event.cost_calculation.as_deref());
        self.duration_ms.append_option(event.duration_ms.map(|ms| ms as i64));
        self.mcp_overhead_ms.append_option(event.mcp_overhead_ms.map(|ms| ms as i64));
        self.mcp_target_agent.append_option(event.mcp_target_agent.as_deref());
        self.trace_id.append_option(event.trace_id.as_deref());
        self.span_id.append_option(event.span_id.as_deref());
        self.attributes.append_option(event.attributes.as_deref());
        self.late.append_value(late);
        self.topic.push(origin.topic);
        self.partition.append_value(origin.partition);
        self.offset.append_value(origin.offset);
        self.record_index.append_value(origin.index as i32);
        let (min, max) = self.time_range.unwrap_or((event.time, event.time));
        self.time_range = Some((min.min(event.time), max.max(event.time)));
    }

    /// The rows as one batch of [`LEDGER_SCHEMA`]. `dims_of` gives what a number passed to [`LedgerRows::push`] means.
    pub fn finish<'d>(mut self, price_revision: &str, dims_of: impl Fn(u32) -> &'d Dims) -> RecordBatch {
        let rows = self.len();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(LEDGER_SCHEMA.fields().len());
        columns.push(Arc::new(self.event_id.finish()));
        columns.push(self.source.finish());
        columns.push(Arc::new(self.event_time.finish()));
        columns.extend(dim_columns(&self.dims, dims_of));
        for mut column in [self.agent_task_id, self.parent_agent_id, self.user_id, self.session_id] {
            columns.push(Arc::new(column.finish()));
        }
        columns.push(self.service_tier.finish());
        for mut column in self.tokens {
            columns.push(Arc::new(column.finish()));
        }
        columns.push(Arc::new(self.tokens_total_reported.finish()));
        for mut column in self.meters {
            columns.push(Arc::new(column.finish()));
        }
        columns.push(self.status.finish());
        columns.push(self.unpriced_reason.finish());
        columns.push(Arc::new(self.cost.finish()));
        columns.push(Arc::new(self.reported_cost.finish()));
        columns.push(self.cost_calculation.finish());
        columns.push(self.price_model.finish());
        columns.push(dictionary(Int32Array::from(vec![0; rows]), StringArray::from(vec![price_revision])));
        columns.push(self.unit_prices.finish());
        columns.push(Arc::new(self.duration_ms.finish()));
        columns.push(Arc::new(self.mcp_overhead_ms.finish()));
        for mut column in [self.mcp_target_agent, self.trace_id, self.span_id, self.attributes] {
            columns.push(Arc::new(column.finish()));
        }
        columns.push(Arc::new(self.late.finish()));
        columns.push(self.topic.finish());
        columns.push(Arc::new(self.partition.finish()));
        columns.push(Arc::new(self.offset.finish()));
        columns.push(Arc::new(self.record_index.finish()));
        RecordBatch::try_new(LEDGER_SCHEMA.clone(), columns).expect("the columns are built in the schema's order")
    }
}

/// Dictionary columns for each dimension, from numbers of dimension sets.
pub fn dim_columns<'d>(numbers: &[u32], dims_of: impl Fn(u32) -> &'d Dims) -> Vec<ArrayRef> {
    let distinct = numbers.iter().copied().max().map_or(0, |max| max as usize + 1);
    Dim::ALL
        .into_iter()
        .map(|dim| {
            // One look-up a distinct set, one copy a row.
            let mut column = DictionaryColumn::default();
            let mut key_of: Vec<i32> = vec![-1; distinct];
            let keys: Vec<i32> = numbers
                .iter()
                .map(|number| {
                    let slot = &mut key_of[*number as usize];
                    if *slot < 0 {
                        column.push(dims_of(*number).get(dim));
                        *slot = column.last;
                    }
                    *slot
                })
                .collect();
            let values = StringArray::from_iter_values(column.values.iter().map(|value| &**value));
            dictionary(Int32Array::from(keys), values)
        })
        .collect()
}

/// All tokens on the input side and all on the output side.
pub fn tokens_in_and_out(usage: &Usage) -> (i64, i64) {
    let input = usage.input_tokens_total();
    (input as i64, (usage.tokens_total() - input) as i64)
}

pub const fn tier_name(tier: ServiceTier) -> &'static str {
    match tier {
        ServiceTier::Standard => "standard",
        ServiceTier::Batch => "batch",
        ServiceTier::Flex => "flex",
        ServiceTier::Priority => "priority",
    }
}

/// Quarantine rows that are being gathered for one epoch.
pub struct QuarantineRows {
    topic: DictionaryColumn,
    partition: Int32Builder,
    offset: Int64Builder,
    record_index: Int32Builder,
    record_time: TimestampMicrosecondBuilder,
    code: DictionaryColumn,
    reason: StringBuilder,
    key: BinaryBuilder,
    value: BinaryBuilder,
    headers: StringBuilder,
    len: usize,
    time_range: Option<(EventTime, EventTime)>,
}

impl Default for QuarantineRows {
    fn default() -> Self {
        QuarantineRows {
            topic: DictionaryColumn::default(),
            partition: Int32Builder::new(),
            offset: Int64Builder::new(),
            record_index: Int32Builder::new(),
            record_time: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            code: DictionaryColumn::default(),
            reason: StringBuilder::new(),
            key: BinaryBuilder::new(),
            value: BinaryBuilder::new(),
            headers: StringBuilder::new(),
            len: 0,
            time_range: None,
        }
    }
}

/// A record, or one element of its array, that is kept as it came.
pub struct Quarantined<'a> {
    pub origin: RowOrigin<'a>,
    pub record_time: EventTime,
    pub code: &'a str,
    pub reason: &'a str,
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
    pub headers: Option<String>,
}

impl QuarantineRows {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn time_range(&self) -> Option<(EventTime, EventTime)> {
        self.time_range
    }

    pub fn push(&mut self, row: Quarantined<'_>) {
        self.topic.push(row.origin.topic);
        self.partition.append_value(row.origin.partition);
        self.offset.append_value(row.origin.offset);
        self.record_index.append_value(row.origin.index as i32);
        self.record_time.append_value(row.record_time.0);
        self.code.push(row.code);
        self.reason.append_value(row.reason);
        self.key.append_option(row.key);
        self.value.append_value(row.value);
        self.headers.append_option(row.headers);
        self.len += 1;
        let (min, max) = self.time_range.unwrap_or((row.record_time, row.record_time));
        self.time_range = Some((min.min(row.record_time), max.max(row.record_time)));
    }

    pub fn finish(mut self) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            self.topic.finish(),
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.record_index.finish()),
            Arc::new(self.record_time.finish()),
            self.code.finish(),
            Arc::new(self.reason.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.headers.finish()),
        ];
        RecordBatch::try_new(QUARANTINE_SCHEMA.clone(), columns).expect("the columns are built in the schema's order")
    }
}
