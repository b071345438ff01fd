//! `costhelm audit`

use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use costhelm::ledger::audit::{Report, audit};

use super::{ConfigFile, Outcome, block_on, open_store};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Outcome {
    let config = args.config.load()?;
    block_on(async {
        let store = open_store(&config.data_dir).await?;
        let report = audit(&config.data_dir, &store, &config.budgets).await?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print(&report);
        }
        Ok(if report.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })?
}

pub fn print(report: &Report) {
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.load_style(UTF8_FULL_CONDENSED).set_header(["check", "", "detail"]);
    for check in &report.checks {
        table.add_row([check.name, if check.holds { "holds" } else { "FAILS" }, &check.detail]);
    }
    println!("{table}");
    println!(
        "{}: {} ledger rows, {} unpriced, {} duplicates dropped, {} in quarantine; total {} USD",
        if report.holds { "The ledger holds" } else { "THE LEDGER DOES NOT HOLD" },
        report.ledger_rows,
        report.unpriced_rows,
        report.duplicates,
        report.quarantined,
        report.total_cost_usd
    );
}
