//! The command line: one file a command.
//!
//! Exit status: 0 when all is well, 1 when a command failed or an audit does not hold, 2 when arguments or the configuration
//! are wrong.

mod audit;
mod check;
mod config;
mod demo;
mod price;
mod query;
mod run;
mod swarm;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};
use costhelm::config::{Config, load};

/// Prices the token usage of AI agents as it happens, keeps an exact ledger, and throttles agents that run out of budget.
#[derive(Parser)]
#[command(name = "costhelm", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    /// How log lines look. What is logged is set by COSTHELM_LOG, e.g. `debug` or `costhelm=debug,warn`.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run the engine until it is told to stop (SIGTERM or Ctrl-C): then it drains, commits and ends.
    Run(run::Args),
    /// See it work: an engine on embedded defaults and a simulated swarm of agents that spends its budget and obeys.
    Demo(demo::Args),
    /// Check a configuration file and everything it refers to.
    Check(check::Args),
    /// Price one usage, or every event of a file, without an engine.
    Price(price::Args),
    /// Ask the ledger in SQL, whether an engine runs or not.
    Query(query::Args),
    /// Prove that the ledger is whole: chains, sums, checksums, budgets. Exit status 0 only when everything holds.
    Audit(audit::Args),
    /// Print the reference of all configuration keys, or the defaults.
    Config(config::Args),
}

/// The configuration file that most commands take.
#[derive(clap::Args)]
struct ConfigFile {
    /// Configuration file.
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "COSTHELM_CONFIG", default_value = "costhelm.toml")]
    path: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, Failure> {
        load::load(&self.path)
            .map_err(|errors| Failure::usage(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
    }
}

/// Why a command did not succeed; the message is for a person.
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// Arguments or configuration are wrong.
    fn usage(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 2 }
    }

    fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 1 }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::new(error.to_string())
    }
}

type Outcome = Result<ExitCode, Failure>;

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let default_level = if matches!(cli.command, Command::Run(_)) { "info" } else { "warn" };
    init_log(cli.log_format, default_level);
    let outcome = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(args),
        Command::Price(args) => price::run(args),
        Command::Query(args) => query::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Config(args) => config::run(args),
    };
    match outcome {
        Ok(code) => code,
        Err(Failure { message, code }) => {
            for line in message.lines() {
                eprintln!("costhelm: {line}");
            }
            ExitCode::from(code)
        }
    }
}

fn init_log(format: LogFormat, default_level: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("COSTHELM_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("{default_level},librdkafka=off,rdkafka=error,sqlx=warn")));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Runs a command that waits for things.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("the runtime cannot be started: {error}")))?;
    Ok(runtime.block_on(work))
}

/// The store of a data directory, for reading.
async fn open_store(data_dir: &Path) -> Result<costhelm::commit::store::Store, Failure> {
    if !data_dir.join("store.db").exists() {
        let message = format!("{}: there is no ledger here yet; `costhelm run` makes one", data_dir.display());
        return Err(Failure::new(message));
    }
    Ok(costhelm::commit::store::Store::open_read_only(data_dir).await?)
}
