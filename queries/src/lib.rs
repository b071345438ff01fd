//! The SQL that Costhelm's users see: a read-only session over the ledger, and the views in `views/`, one statement a file.
//!
//! ```text
//!  Parquet files of the manifest ─┐
//!  small tables (budgets, …)  ────┼─▶ session ─▶ views ─▶ plan, checked: a query and nothing else ─▶ rows ─▶ table | JSON | CSV
//! ```
//!
//! Limits: [`MEMORY_BYTES_MAX`] of memory a session; beyond it sorts and groupings spill to disk or the query fails.

mod format;

use std::{path::PathBuf, sync::Arc};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{
    datasource::{
        MemTable,
        file_format::parquet::ParquetFormat,
        listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl},
    },
    error::DataFusionError,
    execution::{SessionStateBuilder, context::SQLOptions, runtime_env::RuntimeEnvBuilder},
    prelude::{SessionConfig, SessionContext},
};

pub use format::{Format, write};

/// Memory that one session's queries may use.
pub const MEMORY_BYTES_MAX: usize = 2 << 30;

/// The views, in the order they build on each other.
const VIEWS: [(&str, &str); 6] = [
    ("cost_minute", include_str!("../views/cost_minute.sql")),
    ("cost_hour", include_str!("../views/cost_hour.sql")),
    ("cost_day", include_str!("../views/cost_day.sql")),
    ("cost_month", include_str!("../views/cost_month.sql")),
    ("agent_cost_summary", include_str!("../views/agent_cost_summary.sql")),
    ("unpriced", include_str!("../views/unpriced.sql")),
];

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct QueryError(String);

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        let text = error.strip_backtrace();
        QueryError(text.strip_prefix("Error during planning: ").unwrap_or(&text).to_owned())
    }
}

/// A table of Parquet files.
pub struct FileTable {
    pub name: &'static str,
    pub schema: SchemaRef,
    pub files: Vec<PathBuf>,
}

/// What a session can see.
pub struct Sources {
    pub files: Vec<FileTable>,
    pub tables: Vec<(&'static str, SchemaRef, Vec<RecordBatch>)>,
}

/// A read-only SQL session.
pub struct Session {
    context: SessionContext,
}

impl Session {
    pub async fn new(sources: Sources) -> Result<Session, QueryError> {
        // Dictionary columns stay what they are, so that what is read is what the schema says.
        let config = SessionConfig::new()
            .with_default_catalog_and_schema("costhelm", "public")
            .with_information_schema(true)
            .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
            .set_bool("datafusion.execution.parquet.pushdown_filters", true);
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(MEMORY_BYTES_MAX, 1.0).build_arc()?;
        let state =
            SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features().build();
        let context = SessionContext::new_with_state(state);
        for table in sources.files {
            register_files(&context, table)?;
        }
        for (name, schema, batches) in sources.tables {
            context.register_table(name, Arc::new(MemTable::try_new(schema, vec![batches])?))?;
        }
        for (name, sql) in VIEWS {
            let view = context.sql(sql).await?.into_view();
            context.register_table(name, view)?;
        }
        Ok(Session { context })
    }

    /// Runs one query. Anything that is not a query (DDL, DML, `COPY`, `SET`) is refused before it is planned into action.
    pub async fn query(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        let only_queries = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = self.context.sql_with_options(sql, only_queries).await?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        Ok((schema, frame.collect().await?))
    }
}

fn register_files(context: &SessionContext, table: FileTable) -> Result<(), QueryError> {
    if table.files.is_empty() {
        let empty = MemTable::try_new(table.schema, vec![vec![]])?;
        context.register_table(table.name, Arc::new(empty))?;
        return Ok(());
    }
    let urls: Vec<ListingTableUrl> =
        table.files.iter().map(|path| ListingTableUrl::parse(path.to_string_lossy())).collect::<Result<_, _>>()?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()));
    let config = ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options).with_schema(table.schema);
    context.register_table(table.name, Arc::new(ListingTable::try_new(config)?))?;
    Ok(())
}
