//! What SQL sees: the files of the manifest, and small tables made from store, budgets and price book.
//!
//! A session is a picture of one committed moment. It needs no running engine, and disturbs none.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{Field, Schema, SchemaRef},
};
use costhelm_pricing::{Book, EventTime, Money};
use costhelm_queries::{FileTable, QueryError, Session, Sources};

use crate::{
    budget::{Budget, CloudEvent, ThrottleCommand, period_of, rules::AlertData, standing},
    commit::{
        staging::Dataset,
        store::{CommitError, Store},
    },
    event::columns::{LEDGER_SCHEMA, MONEY_TYPE, QUARANTINE_SCHEMA},
};

#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    #[error(transparent)]
    Store(#[from] CommitError),
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Opens a session on what is committed now.
pub async fn session(
    data_dir: &Path,
    store: &Store,
    budgets: &[Budget],
    book: &Book,
    now: EventTime,
) -> Result<Session, TablesError> {
    let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let mut files = Vec::new();
    for (name, dataset, schema) in
        [("ledger", Dataset::Ledger, &*LEDGER_SCHEMA), ("quarantine", Dataset::Quarantine, &*QUARANTINE_SCHEMA)]
    {
        let listed = store.files(dataset).await?;
        let paths = listed.iter().map(|file| data_dir.join(&file.path)).collect();
        files.push(FileTable { name, schema: schema.clone(), files: paths });
    }
    let tables = [
        ("budgets", budget_rows(store, budgets, now).await?),
        ("alerts", alert_rows(&store.alerts().await?)?),
        ("throttles", throttle_rows(&store.throttles().await?, now)),
        ("prices", price_rows(book)),
    ];
    let tables = tables.map(|(name, batch)| (name, batch.schema(), vec![batch])).to_vec();
    Ok(Session::new(Sources { files, tables }).await?)
}

/// Builds a small table column by column.
#[derive(Default)]
struct Columns {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    fn add(&mut self, name: &str, array: ArrayRef) {
        self.fields.push(Field::new(name, array.data_type().clone(), true));
        self.arrays.push(array);
    }

    fn text<S: AsRef<str>>(&mut self, name: &str, values: impl IntoIterator<Item = Option<S>>) {
        self.add(name, Arc::new(values.into_iter().collect::<StringArray>()));
    }

    fn money(&mut self, name: &str, values: impl IntoIterator<Item = Money>) {
        let values = Decimal128Array::from_iter_values(values.into_iter().map(Money::atto));
        self.add(name, Arc::new(values.with_data_type(MONEY_TYPE)));
    }

    fn time(&mut self, name: &str, values: impl IntoIterator<Item = Option<EventTime>>) {
        let values: TimestampMicrosecondArray = values.into_iter().map(|time| time.map(|time| time.0)).collect();
        self.add(name, Arc::new(values.with_timezone("UTC")));
    }

    fn count(&mut self, name: &str, values: impl IntoIterator<Item = u64>) {
        self.add(name, Arc::new(Int64Array::from_iter_values(values.into_iter().map(|count| count as i64))));
    }

    fn flag(&mut self, name: &str, values: impl IntoIterator<Item = bool>) {
        self.add(name, Arc::new(values.into_iter().map(Some).collect::<BooleanArray>()));
    }

    fn finish(self) -> RecordBatch {
        let schema: SchemaRef = Arc::new(Schema::new(self.fields));
        RecordBatch::try_new(schema, self.arrays).expect("every column is made from the same rows")
    }
}

/// Each budget's running period and every earlier one with spend.
async fn budget_rows(store: &Store, budgets: &[Budget], now: EventTime) -> Result<RecordBatch, CommitError> {
    let counters = store.budget_counters().await?;
    let mut rows = Vec::new();
    for budget in budgets {
        let running = period_of(budget.period, budget.zone, now);
        let mut periods = std::collections::BTreeMap::from([(running.start, Money::ZERO)]);
        for counter in counters.iter().filter(|counter| counter.budget == budget.id.0) {
            let spent = periods.entry(counter.period_start).or_default();
            *spent = spent
                .checked_add(counter.spent)
                .ok_or_else(|| CommitError::Corrupt("MONEY-2: a budget's spend overflows".into()))?;
        }
        for (start, spent) in periods {
            rows.push((budget, period_of(budget.period, budget.zone, start), spent));
        }
    }
    let mut columns = Columns::default();
    columns.text("budget", rows.iter().map(|(budget, ..)| Some(&budget.id.0)));
    columns.text("description", rows.iter().map(|(budget, ..)| Some(&budget.description)));
    columns.text("scope", rows.iter().map(|(budget, ..)| Some(budget.scope.key())));
    columns.text("period", rows.iter().map(|(_, period, _)| Some(&period.label)));
    columns.time("period_start", rows.iter().map(|(_, period, _)| Some(period.start)));
    columns.time("period_end", rows.iter().map(|(_, period, _)| Some(period.end)));
    columns.text("timezone", rows.iter().map(|(budget, ..)| Some(budget.zone.name())));
    columns.money("budget_usd", rows.iter().map(|(budget, ..)| budget.amount));
    columns.money("spent_usd", rows.iter().map(|(.., spent)| *spent));
    columns.text("level", rows.iter().map(|(budget, _, spent)| Some(standing(budget, *spent).level.to_string())));
    columns.flag("is_current", rows.iter().map(|(_, period, _)| period.contains(now)));
    Ok(columns.finish())
}

fn alert_rows(bodies: &[String]) -> Result<RecordBatch, CommitError> {
    let alerts: Vec<CloudEvent<AlertData>> = bodies
        .iter()
        .map(|body| serde_json::from_str(body).map_err(|error| CommitError::Corrupt(format!("an alert: {error}"))))
        .collect::<Result<_, _>>()?;
    let data = || alerts.iter().map(|alert| &alert.data);
    let mut columns = Columns::default();
    columns.text("alert_id", data().map(|alert| Some(&alert.alert_id.0)));
    columns.time("raised_at", alerts.iter().map(|alert| Some(alert.time)));
    columns.text("severity", data().map(|alert| Some(crate::budget::Level::from(alert.severity).to_string())));
    columns.text("budget", data().map(|alert| Some(&alert.budget.0)));
    columns.text("scope", data().map(|alert| Some(alert.scope.key())));
    columns.text("period", data().map(|alert| Some(&alert.period)));
    columns.text("threshold_percent", data().map(|alert| Some(alert.threshold_percent.to_string())));
    columns.text("utilization", data().map(|alert| Some(alert.utilization.to_string())));
    columns.money("spent_usd", data().map(|alert| alert.spent_usd));
    columns.money("budget_usd", data().map(|alert| alert.budget_usd));
    columns.flag("throttle", data().map(|alert| alert.throttle));
    columns.text("message", data().map(|alert| Some(&alert.message)));
    Ok(columns.finish())
}

fn throttle_rows(commands: &[ThrottleCommand], now: EventTime) -> RecordBatch {
    let mut columns = Columns::default();
    columns.text("scope", commands.iter().map(|command| Some(command.scope.key())));
    columns.text("level", commands.iter().map(|command| Some(command.level.to_string())));
    columns.flag(
        "in_force",
        commands.iter().map(|command| command.expires_at > now && command.level > crate::budget::Level::None),
    );
    columns.text("concurrency_factor", commands.iter().map(|command| Some(command.concurrency_factor.to_string())));
    let substitutions = commands.iter().map(|command| serde_json::to_string(&command.model_substitutions).ok());
    columns.text("model_substitutions", substitutions);
    columns.flag("disable_noncritical", commands.iter().map(|command| command.disable_noncritical));
    columns.flag("queue_tasks", commands.iter().map(|command| command.queue_tasks));
    columns.count("sequence", commands.iter().map(|command| command.sequence));
    columns.time("issued_at", commands.iter().map(|command| Some(command.issued_at)));
    columns.time("expires_at", commands.iter().map(|command| Some(command.expires_at)));
    columns.text("reason", commands.iter().map(|command| Some(&command.reason)));
    columns.finish()
}

fn price_rows(book: &Book) -> RecordBatch {
    let entries: Vec<_> = book.entries().collect();
    let mut columns = Columns::default();
    columns.text("provider", entries.iter().map(|entry| Some(&entry.provider)));
    columns.text("model", entries.iter().map(|entry| Some(&entry.model)));
    columns.text("meter", entries.iter().map(|entry| Some(entry.meter.name())));
    columns
        .text("service_tier", entries.iter().map(|entry| Some(crate::event::columns::tier_name(entry.service_tier))));
    columns.text("window", entries.iter().map(|entry| entry.window.as_deref()));
    columns.text("region", entries.iter().map(|entry| entry.region.as_deref()));
    columns.count("above_input", entries.iter().map(|entry| entry.above_input));
    columns.count("above_units", entries.iter().map(|entry| entry.above_units));
    columns.money("unit_price_usd", entries.iter().map(|entry| entry.unit_price));
    columns.time("valid_from", entries.iter().map(|entry| entry.valid_from));
    columns.time("valid_to", entries.iter().map(|entry| entry.valid_to));
    columns.text("source", entries.iter().map(|entry| entry.source.as_deref()));
    columns.time("as_of", entries.iter().map(|entry| entry.as_of));
    columns.finish()
}
