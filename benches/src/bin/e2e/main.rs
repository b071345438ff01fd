//! `e2e`: the end-to-end benchmark. Drives the real `costhelm` binary as a process and measures what a user gets: events a second
//! from a preloaded bus, the time from an event to the throttle command it causes, memory, bytes a ledger row; beside it
//! what the same machine can do at most with one stage alone.
//!
//! ```text
//!  ceilings (in this process) ─▶ each bus: preload ─▶ read only ─▶ engine ─▶ audit ─▶ latency at half load ─▶ audit
//! ```
//!
//! Limits: 100 million events; the limits of each part stand in its module. Everything is on loopback and in temporary
//! folders, and topics are deleted at the end.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Parser, ValueEnum};
use costhelm_benches::swarm::{Swarm, SwarmConfig};

use crate::engine::BusChoice;
use crate::failure::{During, Failure, Result, failure};
use crate::report::BusReport;

mod ceilings;
mod embedded;
mod engine;
mod failure;
mod kafka;
mod latency;
mod machine;
mod report;
mod throughput;

const EVENTS_MAX: u64 = 100_000_000;

/// Measure Costhelm end to end.
///
/// Example: e2e --brokers 127.0.0.1:9092 --json e2e.json
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The engine's binary [default: `costhelm` beside this program]
    #[arg(long, value_name = "PATH")]
    costhelm: Option<PathBuf>,
    /// Which bus to measure
    #[arg(long, value_enum, default_value_t = Buses::Both)]
    bus: Buses,
    /// Kafka, for `--bus kafka` and `both`: HOST:PORT, several with commas; topics are created there and deleted again
    #[arg(long, value_name = "HOST:PORT", required_if_eq_any = [("bus", "kafka"), ("bus", "both")])]
    brokers: Option<String>,
    /// Events that the bus is preloaded with
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    events: u64,
    /// Event time that they span, in seconds; a wider span makes more window cells
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    span: u64,
    /// Event time of the first of them (RFC 3339)
    #[arg(long, value_name = "TIME", default_value = "2025-09-01T00:00:00Z")]
    start: DateTime<Utc>,
    /// The same seed gives the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Budgets that are crossed to measure the time to their throttle; 0 leaves this out
    #[arg(long, value_name = "N", default_value_t = 200)]
    crossings: usize,
    /// Mean time between two crossings, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 200)]
    gap: u64,
    /// Load during the crossings, in events a second [default: half of the measured throughput]
    #[arg(long, value_name = "N")]
    load: Option<u64>,
    /// Write all figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Buses {
    Kafka,
    Embedded,
    Both,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("e2e: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let binary = binary(arguments)?;
    for (name, value, max) in [
        ("events", arguments.events, EVENTS_MAX),
        ("crossings", arguments.crossings as u64, latency::CROSSINGS_MAX as u64),
    ] {
        if value > max {
            return failure(format!("--{name} is {value}, expected at most {max}"));
        }
    }
    if !(2..=60_000).contains(&arguments.gap) {
        return failure(format!("--gap is {}, expected 2 to 60000 milliseconds", arguments.gap));
    }
    let swarm = Swarm::new(SwarmConfig {
        seed: arguments.seed,
        events: arguments.events,
        start: arguments.start,
        span_s: arguments.span,
        duplicates_per_million: 10_000,
        late_per_million: 5_000,
        malformed_per_million: 500,
        unpriced_per_million: 0,
        agents: 13,
    })
    .during("the events")?;

    println!("{} with {} processors, seed {}", binary.display(), machine::processors(), arguments.seed);
    let ceilings = ceilings::measure(&swarm)?;
    report::print_ceilings(&ceilings);
    let mut reports = Vec::new();
    for (name, bus) in buses(arguments)? {
        // Names of its own for each run: a broker may still be deleting those of the one before.
        let prefix = format!("costhelm-e2e-{}-{name}", std::process::id());
        let throughput = throughput::measure(&binary, &bus, &prefix, &swarm).during(name)?;
        let latency = match arguments.crossings {
            0 => None,
            crossings => {
                let plan = latency::Plan {
                    crossings,
                    gap: Duration::from_millis(arguments.gap),
                    seed: arguments.seed,
                    events_per_s: arguments.load.map_or(throughput.events_per_s, |load| load as f64 * 2.0),
                };
                Some(latency::measure(&binary, &bus, &format!("{prefix}-crossings"), &plan).during(name)?)
            }
        };
        let report = BusReport { name, throughput, latency };
        report::print_bus(&report, &ceilings);
        reports.push(report);
    }
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", report::json(&ceilings, &reports));
        std::fs::write(path, text).during(path.display())?;
    }
    Ok(())
}

fn binary(arguments: &Arguments) -> Result<PathBuf> {
    let path = match &arguments.costhelm {
        Some(path) => path.clone(),
        None => std::env::current_exe().during("this program's own path")?.with_file_name("costhelm"),
    };
    // Looked for before minutes of preloading.
    if path.is_file() {
        Ok(path)
    } else {
        failure(format!("{} is not there; build it, or say where with --costhelm", path.display()))
    }
}

fn buses(arguments: &Arguments) -> Result<Vec<(&'static str, BusChoice)>> {
    let mut buses = Vec::new();
    if arguments.bus != Buses::Embedded {
        let brokers =
            arguments.brokers.clone().ok_or_else(|| Failure("--brokers is needed to measure Kafka".into()))?;
        buses.push(("kafka", BusChoice::Kafka { brokers }));
    }
    if arguments.bus != Buses::Kafka {
        buses.push(("embedded", BusChoice::Embedded));
    }
    Ok(buses)
}
