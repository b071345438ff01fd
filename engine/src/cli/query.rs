//! `costhelm query`

use std::{io::Write, process::ExitCode};

use clap::ValueEnum;
use costhelm::{clock, engine::load_book, ledger::tables};
use costhelm_queries::{Format, write};

use super::{ConfigFile, Outcome, block_on, open_store};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// How rows are printed.
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    format: OutputFormat,
    /// The same as `--format json`.
    #[arg(long)]
    json: bool,
    /// One query. Tables: ledger, quarantine, cost_minute|hour|day|month, agent_cost_summary, unpriced, budgets, alerts,
    /// throttles, prices.
    sql: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum OutputFormat {
    Table,
    Json,
    Csv,
}

pub fn run(args: Args) -> Outcome {
    let config = args.config.load()?;
    let book = load_book(&config)?;
    let format = match args.format {
        _ if args.json => Format::Json,
        OutputFormat::Table => Format::Table,
        OutputFormat::Json => Format::Json,
        OutputFormat::Csv => Format::Csv,
    };
    block_on(async {
        let store = open_store(&config.data_dir).await?;
        let session = tables::session(&config.data_dir, &store, &config.budgets, &book, clock::now()).await?;
        let (schema, rows) = session.query(&args.sql).await?;
        let mut out = std::io::stdout().lock();
        match write(&mut out, format, &schema, &rows).and_then(|()| out.flush()) {
            // A reader such as `head` has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(ExitCode::SUCCESS),
        }
    })?
}
