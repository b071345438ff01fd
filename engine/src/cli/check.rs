//! `costhelm check`

use std::process::ExitCode;

use costhelm::{config::BusKind, engine::load_book};

use super::{ConfigFile, Failure, Outcome};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Outcome {
    let config = args.config.load()?;
    let book = load_book(&config).map_err(|error| Failure::usage(error.to_string()))?;
    let bus = match config.bus.kind {
        BusKind::Embedded => "embedded",
        BusKind::Kafka => "kafka",
    };
    if args.json {
        let budgets: Vec<_> = config.budgets.iter().map(|budget| &budget.id).collect();
        let summary = serde_json::json!({
            "ok": true, "bus": bus, "budgets": budgets, "models": book.models_len(), "price_revision": book.revision(),
        });
        println!("{summary}");
    } else {
        println!(
            "{}: ok; {bus} bus, {} budgets, {} models priced (revision {})",
            args.config.path.display(),
            config.budgets.len(),
            book.models_len(),
            book.revision()
        );
    }
    Ok(ExitCode::SUCCESS)
}
