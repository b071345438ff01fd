//! Windowed totals: one-minute panes, and the hours, days and months they roll up to.
//!
//! ```text
//!  committed epoch ──▶ (minute, dims, sums)… ──▶ minute pane ┐
//!                                                hour pane   ├─ columns, copied out as Arrow record batches
//!                                                day pane    │
//!                                                month pane  ┘
//! ```
//!
//! Windows hold committed rows only, so that they always equal the ledger (EO-4). A late row changes the pane it belongs to;
//! one that is older than what a level keeps lives in the ledger and in SQL alone, and is counted in `beyond_memory`.
//!
//! Limits: at most `cells_max` cells over all levels; when there are more, the oldest panes of the finest level go first.
//! A cell takes about 100 bytes where few meters are used and at most 260.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use costhelm_pricing::{EventTime, Meter, Money, Usage};

use super::sums::{BEFORE_ALL, Grain, Sums, WindowStart};
use crate::event::{
    Dim, Dims,
    columns::{MONEY_TYPE, dictionary_type, dim_columns, meter_column, time_type},
    dims::DimTable,
};

/// How long each grain is kept in memory, behind the stream's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub minute_us: i64,
    pub hour_us: i64,
    pub day_us: i64,
    pub month_us: i64,
    pub cells_max: usize,
}

impl Retention {
    pub fn of(&self, grain: Grain) -> i64 {
        match grain {
            Grain::Minute => self.minute_us,
            Grain::Hour => self.hour_us,
            Grain::Day => self.day_us,
            Grain::Month => self.month_us,
        }
    }
}

/// One window's cells as columns. A meter's column stays empty until something is counted in it.
#[derive(Default)]
struct Pane {
    row_of: HashMap<u32, usize>,
    dims: Vec<u32>,
    events: Vec<i64>,
    unpriced: Vec<i64>,
    late: Vec<i64>,
    cost: Vec<i128>,
    reported_cost: Vec<i128>,
    meters: [Vec<i64>; Meter::COUNT],
    duration_ms: Vec<i64>,
    mcp_overhead_ms: Vec<i64>,
}

impl Pane {
    /// Adds to a cell; true when the cell is new.
    fn add(&mut self, dims: u32, sums: &Sums) -> bool {
        let next = self.dims.len();
        let row = *self.row_of.entry(dims).or_insert(next);
        if row == next {
            self.dims.push(dims);
            for column in
                [&mut self.events, &mut self.unpriced, &mut self.late, &mut self.duration_ms, &mut self.mcp_overhead_ms]
            {
                column.push(0);
            }
            self.cost.push(0);
            self.reported_cost.push(0);
        }
        let rows = self.dims.len();
        self.events[row] += sums.events as i64;
        self.unpriced[row] += sums.unpriced as i64;
        self.late[row] += sums.late as i64;
        self.duration_ms[row] += sums.duration_ms as i64;
        self.mcp_overhead_ms[row] += sums.mcp_overhead_ms as i64;
        let fits = "MONEY-2: a window's cost fits 38 digits";
        self.cost[row] = self.cost[row].checked_add(sums.cost.atto()).expect(fits);
        self.reported_cost[row] = self.reported_cost[row].checked_add(sums.reported_cost.atto()).expect(fits);
        for (meter, count) in sums.usage.iter() {
            let column = &mut self.meters[meter as usize];
            if column.len() < rows {
                column.resize(rows, 0);
            }
            column[row] += count as i64;
        }
        row == next
    }

    fn sums(&self, row: usize) -> Sums {
        let mut usage = Usage::default();
        for (column, meter) in self.meters.iter().zip(Meter::ALL) {
            usage.set(meter, column.get(row).copied().unwrap_or(0) as u64);
        }
        Sums {
            events: self.events[row] as u64,
            unpriced: self.unpriced[row] as u64,
            late: self.late[row] as u64,
            cost: Money::from_atto(self.cost[row]),
            reported_cost: Money::from_atto(self.reported_cost[row]),
            usage,
            duration_ms: self.duration_ms[row] as u64,
            mcp_overhead_ms: self.mcp_overhead_ms[row] as u64,
        }
    }
}

/// Columns of a window as users see it, in SQL and in the `rollup_hour` dataset.
pub fn window_schema() -> SchemaRef {
    let mut fields = vec![Field::new("window_start", time_type(), false)];
    fields.extend(Dim::ALL.map(|dim| Field::new(dim.name(), dictionary_type(), false)));
    fields.extend(["events", "unpriced", "late"].map(|name| Field::new(name, DataType::Int64, false)));
    fields.extend(["cost_usd", "reported_cost_usd"].map(|name| Field::new(name, MONEY_TYPE, false)));
    fields.extend(Meter::ALL.iter().map(|meter| Field::new(meter_column(*meter), DataType::Int64, false)));
    fields.extend(["duration_ms", "mcp_overhead_ms"].map(|name| Field::new(name, DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

/// Cells as one batch of [`window_schema`]; `dims_of` gives what a number stands for.
pub fn window_batch<'d>(cells: &[(WindowStart, u32, Sums)], dims_of: impl Fn(u32) -> &'d Dims) -> RecordBatch {
    let numbers: Vec<u32> = cells.iter().map(|(_, dims, _)| *dims).collect();
    let counts = |of: &dyn Fn(&Sums) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(cells.iter().map(|(_, _, sums)| of(sums) as i64)))
    };
    let money = |of: &dyn Fn(&Sums) -> Money| -> ArrayRef {
        let values = Decimal128Array::from_iter_values(cells.iter().map(|(_, _, sums)| of(sums).atto()));
        Arc::new(values.with_data_type(MONEY_TYPE))
    };
    let starts = cells.iter().map(|(start, _, _)| start.0);
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(TimestampMicrosecondArray::from_iter_values(starts).with_timezone("UTC"))];
    columns.extend(dim_columns(&numbers, dims_of));
    columns.extend([counts(&|s| s.events), counts(&|s| s.unpriced), counts(&|s| s.late)]);
    columns.extend([money(&|s| s.cost), money(&|s| s.reported_cost)]);
    columns.extend(Meter::ALL.iter().map(|meter| counts(&|s| s.usage.get(*meter))));
    columns.extend([counts(&|s| s.duration_ms), counts(&|s| s.mcp_overhead_ms)]);
    RecordBatch::try_new(window_schema(), columns).expect("the columns are built in the schema's order")
}

pub struct Windows {
    retention: Retention,
    dims: DimTable,
    levels: [BTreeMap<WindowStart, Pane>; Grain::ALL.len()],
    cells: usize,
    /// The greatest window start seen; retention is measured from here.
    clock: EventTime,
    beyond_memory: u64,
    evicted_cells: u64,
}

impl Windows {
    pub fn new(retention: Retention) -> Windows {
        Windows {
            retention,
            dims: DimTable::default(),
            levels: Default::default(),
            cells: 0,
            clock: BEFORE_ALL,
            beyond_memory: 0,
            evicted_cells: 0,
        }
    }

    /// Adds one cell's sums to the levels given (all of them for a minute of a new epoch; hour and above for a rollup).
    pub fn add(&mut self, start: WindowStart, dims: &Dims, sums: &Sums, grains: &[Grain]) {
        let number = self.dims.intern(&dims.0);
        self.clock = self.clock.max(EventTime(start.0));
        for grain in grains {
            let window = grain.window(EventTime(start.0));
            if window.0 < self.oldest_kept(*grain) {
                self.beyond_memory += sums.events;
                continue;
            }
            self.cells += usize::from(self.levels[*grain as usize].entry(window).or_default().add(number, sums));
        }
    }

    /// Tells how far the stream has come, before older windows are read back.
    pub fn advance(&mut self, clock: EventTime) {
        self.clock = self.clock.max(clock);
    }

    /// Drops what is past its retention or over the cell limit. Called once an epoch.
    pub fn expire(&mut self) {
        for grain in Grain::ALL {
            let oldest = self.oldest_kept(grain);
            while let Some(entry) = self.levels[grain as usize].first_entry()
                && entry.key().0 < oldest
            {
                self.cells -= entry.remove().dims.len();
            }
        }
        while self.cells > self.retention.cells_max {
            let Some(level) = self.levels.iter_mut().find(|level| level.len() > 1) else {
                break;
            };
            let Some((_, pane)) = level.pop_first() else { break };
            self.cells -= pane.dims.len();
            self.evicted_cells += pane.dims.len() as u64;
        }
    }

    fn oldest_kept(&self, grain: Grain) -> i64 {
        grain.window(EventTime(self.clock.0.saturating_sub(self.retention.of(grain)).max(i64::MIN / 2))).0
    }

    /// The earliest window of a grain that is held whole.
    pub fn kept_since(&self, grain: Grain) -> Option<WindowStart> {
        self.levels[grain as usize].first_key_value().map(|(start, _)| *start)
    }

    pub fn cells(&self) -> usize {
        self.cells
    }

    /// Sets of dimensions known; together with [`Windows::cells`] this bounds the memory.
    pub fn dim_sets(&self) -> usize {
        self.dims.len()
    }

    pub fn evicted_cells(&self) -> u64 {
        self.evicted_cells
    }

    /// Events whose window was older than memory reaches.
    pub fn beyond_memory(&self) -> u64 {
        self.beyond_memory
    }

    /// Cells of the windows `[from, to)` of a grain, oldest window first.
    pub fn cells_between(
        &self,
        grain: Grain,
        from: EventTime,
        to: EventTime,
    ) -> impl Iterator<Item = (WindowStart, &Dims, Sums)> {
        self.levels[grain as usize].range(WindowStart(from.0)..WindowStart(to.0)).flat_map(move |(start, pane)| {
            (0..pane.dims.len()).map(move |row| (*start, self.dims.get(pane.dims[row]), pane.sums(row)))
        })
    }

    /// The windows of a grain as Arrow, whole.
    pub fn to_arrow(&self, grain: Grain) -> RecordBatch {
        let cells: Vec<_> = self.levels[grain as usize]
            .iter()
            .flat_map(|(start, pane)| (0..pane.dims.len()).map(|row| (*start, pane.dims[row], pane.sums(row))))
            .collect();
        window_batch(&cells, |number| self.dims.get(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::sums::{DAY_US, HOUR_US, MINUTE_US};

    const RETENTION: Retention = Retention {
        minute_us: 2 * HOUR_US,
        hour_us: 2 * DAY_US,
        day_us: 40 * DAY_US,
        month_us: 400 * DAY_US,
        cells_max: 1000,
    };

    fn dims(agent: &str) -> Dims {
        Dims(["prod", "org", "", "", "p", agent, "openai", "gpt-4o"].map(Into::into))
    }

    fn sums(atto: i128) -> Sums {
        let mut usage = Usage::default();
        usage.set(Meter::Input, 10);
        Sums { events: 1, cost: Money::from_atto(atto), usage, ..Sums::default() }
    }

    fn minute(time: &str) -> WindowStart {
        Grain::Minute.window(EventTime::parse(time).unwrap())
    }

    #[test]
    fn every_grain_adds_up_to_the_same_sum() {
        let mut windows = Windows::new(RETENTION);
        for (n, time) in ["2026-11-22T10:00:00Z", "2026-11-22T10:59:59Z", "2026-11-22T11:00:00Z"].iter().enumerate() {
            windows.add(minute(time), &dims("worker"), &sums(10i128.pow(n as u32)), &Grain::ALL);
        }
        let all = (EventTime(0), EventTime(i64::MAX));
        for grain in Grain::ALL {
            let total: i128 = windows.cells_between(grain, all.0, all.1).map(|(_, _, sums)| sums.cost.atto()).sum();
            assert_eq!(total, 111, "{grain:?}");
        }
        assert_eq!(windows.to_arrow(Grain::Hour).num_rows(), 2);
    }

    #[test]
    fn a_late_row_changes_the_window_it_belongs_to_and_one_beyond_memory_is_counted() {
        let mut windows = Windows::new(RETENTION);
        windows.add(minute("2026-11-22T10:00:00Z"), &dims("worker"), &sums(1), &Grain::ALL);
        windows.add(minute("2026-11-22T09:30:00Z"), &dims("worker"), &sums(2), &Grain::ALL);
        assert_eq!(windows.levels[0].len(), 2);
        assert_eq!(windows.beyond_memory(), 0);
        windows.add(minute("2026-11-22T01:00:00Z"), &dims("worker"), &sums(4), &Grain::ALL);
        assert_eq!(windows.beyond_memory(), 1, "its minute is gone; its hour, day and month are not");
        let day = windows.cells_between(Grain::Day, EventTime(0), EventTime(i64::MAX)).next().unwrap();
        assert_eq!(day.2.cost.atto(), 7);
    }

    #[test]
    fn memory_is_bounded_by_giving_up_the_oldest_minutes_first() {
        let mut windows = Windows::new(Retention { cells_max: 50, ..RETENTION });
        let start = minute("2026-11-22T10:00:00Z").0;
        for n in 0..100 {
            windows.add(WindowStart(start + n * MINUTE_US), &dims("worker"), &sums(1), &Grain::ALL);
            windows.expire();
        }
        assert!(windows.cells() <= 50);
        assert!(windows.evicted_cells() > 0);
        let month: i128 =
            windows.cells_between(Grain::Month, EventTime(0), EventTime(i64::MAX)).map(|c| c.2.cost.atto()).sum();
        assert_eq!(month, 100);
    }
}
