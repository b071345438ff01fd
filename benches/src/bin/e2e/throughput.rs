//! How fast a preloaded bus is worked off: everything on, each event committed exactly once.
//!
//! ```text
//!  preload ─▶ read only (ceiling) ─▶ start the engine ─▶ poll committed events ─▶ SIGTERM ─▶ audit must hold
//! ```
//!
//! Time runs from the first commit that is seen to the one that completes the stream, over the events committed in between;
//! beside it from the start of the process over all events.
//!
//! Limits: 15 minutes for the engine to work off the stream.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use costhelm_benches::swarm::Swarm;
use costhelm_benches::topic::TopicSink;

use crate::ceilings::Rate;
use crate::engine::{BusChoice, Engine, Metrics, Site};
use crate::failure::{During, Failure, Result, failure};
use crate::machine::{self, Stretch};
use crate::{embedded, kafka};

const CONSUME_MAX: Duration = Duration::from_secs(15 * 60);

pub struct Throughput {
    pub events: u64,
    pub event_bytes: f64,
    pub preload_s: f64,
    pub consume_only: Rate,
    /// Process start to `/healthz`.
    pub up_s: f64,
    /// Process start to the first commit that was seen.
    pub first_commit_s: f64,
    /// Events that this first sight showed; they are not in `events_per_s`.
    pub first_events: u64,
    pub first_to_last_s: f64,
    pub events_per_s: f64,
    pub events_per_s_from_start: f64,
    pub peak_memory_bytes: u64,
    pub cpu_s: f64,
    /// Processor seconds of the engine's busiest threads.
    pub threads: Vec<(String, f64)>,
    /// Processor seconds of everybody else meanwhile: the broker, this program, other users of the machine.
    pub others_cpu_s: f64,
    pub ledger_rows: u64,
    pub duplicates: u64,
    pub quarantined: u64,
    pub ledger_files: u64,
    pub ledger_bytes: u64,
    pub commits: u64,
    /// Mean seconds of staging files and of the transaction.
    pub stage_s: f64,
    pub transaction_s: f64,
    pub drain_s: f64,
    pub audit_s: f64,
    pub total_cost_usd: String,
}

impl Throughput {
    pub fn bytes_per_row(&self) -> f64 {
        self.ledger_bytes as f64 / self.ledger_rows.max(1) as f64
    }

    pub fn cpu_us(&self) -> f64 {
        self.cpu_s * 1e6 / self.events as f64
    }
}

pub fn measure(binary: &Path, bus: &BusChoice, prefix: &str, swarm: &Swarm) -> Result<Throughput> {
    let events = swarm.config().events;
    let topic = format!("{prefix}.events");
    let site = Site::new(binary, bus, prefix, "")?;
    let loading = Instant::now();
    let (bytes, consume_only, _topics, preload_s);
    match bus {
        BusChoice::Kafka { brokers } => {
            _topics = Some(kafka::Topics::create(brokers, prefix)?);
            bytes = preload(brokers, &topic, swarm)?;
            preload_s = loading.elapsed().as_secs_f64();
            consume_only = kafka::consume_only(brokers, prefix, events)?;
        }
        BusChoice::Embedded => {
            _topics = None;
            bytes = embedded::preload(&site.data(), &topic, swarm)?;
            preload_s = loading.elapsed().as_secs_f64();
            consume_only = embedded::consume_only(&site.data(), &topic, events)?;
        }
    }

    let stretch = Stretch::begin()?;
    let mut engine = site.start()?;
    let up_s = engine.started.elapsed().as_secs_f64();
    let (first_at, first_events, last_at) = wait_for_all(&mut engine, events)?;
    let others = stretch.busy_s()?;
    let pid = engine.pid();
    let cpu_s = machine::process_cpu_s(pid)?;
    let threads = machine::threads_cpu_s(pid)?;
    let peak_memory_bytes = machine::peak_memory_bytes(pid)?;
    let metrics = engine.metrics()?;
    let started = engine.started;
    let drain_s = engine.stop()?.as_secs_f64();
    let (report, audit) = site.audit()?;

    let ledger_rows = metrics.count("costhelm_ledger_rows_total")?;
    if report["ledger_rows"].as_u64() != Some(ledger_rows) {
        return failure(format!("the audit counts {} ledger rows, the metrics {ledger_rows}", report["ledger_rows"]));
    }
    let (ledger_files, ledger_bytes) = sizes(&site.data().join("ledger"))?;
    let first_to_last_s = (last_at - first_at).as_secs_f64();
    Ok(Throughput {
        events,
        event_bytes: bytes as f64 / events as f64,
        preload_s,
        consume_only,
        up_s,
        first_commit_s: (first_at - started).as_secs_f64(),
        first_events,
        first_to_last_s,
        events_per_s: (events - first_events) as f64 / first_to_last_s,
        events_per_s_from_start: events as f64 / (last_at - started).as_secs_f64(),
        peak_memory_bytes,
        cpu_s,
        threads,
        others_cpu_s: (others - cpu_s).max(0.0),
        ledger_rows,
        duplicates: metrics.count("costhelm_duplicate_events_total")?,
        quarantined: report["quarantined"].as_u64().unwrap_or_default(),
        ledger_files,
        ledger_bytes,
        commits: metrics.count("costhelm_epochs_total")?,
        stage_s: mean_commit_s(&metrics, "stage")?,
        transaction_s: mean_commit_s(&metrics, "transaction")?,
        drain_s,
        audit_s: audit.as_secs_f64(),
        total_cost_usd: report["total_cost_usd"].as_str().unwrap_or_default().to_owned(),
    })
}

/// Writes the whole stream into a topic; answers its bytes.
fn preload(brokers: &str, topic: &str, swarm: &Swarm) -> Result<u64> {
    let mut sink = TopicSink::open(brokers, topic).during("preloading")?;
    let (mut line, mut key, mut bytes) = (Vec::new(), Vec::new(), 0);
    for slot in 0..swarm.config().events {
        swarm.write(slot, &mut line, &mut key);
        bytes += line.len() as u64;
        sink.send(&line, &key).during("preloading")?;
    }
    sink.finish().during("preloading")?;
    Ok(bytes)
}

/// When the first commit was seen, how many events it and those before it had, and when the last was seen.
///
/// A look at `/metrics` costs the engine some milliseconds, so there are few in the middle of the stream and more towards its end.
fn wait_for_all(engine: &mut Engine, events: u64) -> Result<(Instant, u64, Instant)> {
    let mut first: Option<(Instant, u64)> = None;
    loop {
        let committed = engine.committed_events()?;
        let now = Instant::now();
        if committed > events {
            return failure(format!("{committed} events are committed, {events} were sent"));
        }
        let pause = match first {
            None if committed == 0 => Duration::from_millis(10),
            None => {
                first = Some((now, committed));
                Duration::from_millis(50)
            }
            Some((at, seen)) if committed == events => {
                return if seen < events {
                    Ok((at, seen, now))
                } else {
                    failure("all events went into the first commit that was seen; take more --events")
                };
            }
            Some((at, seen)) => {
                let rate = (committed - seen) as f64 / (now - at).as_secs_f64();
                let left_s = if rate > 0.0 { (events - committed) as f64 / rate } else { 1.0 };
                Duration::from_secs_f64((left_s / 4.0).clamp(0.01, 0.5))
            }
        };
        engine.check()?;
        if engine.started.elapsed() > CONSUME_MAX {
            return failure(format!(
                "{committed} of {events} events are committed after {CONSUME_MAX:?}:\n{}",
                engine.log_tail()
            ));
        }
        thread::sleep(pause);
    }
}

fn mean_commit_s(metrics: &Metrics, stage: &str) -> Result<f64> {
    let of = |what: &str| metrics.get(&format!("costhelm_commit_duration_seconds_{what}{{stage=\"{stage}\"}}"));
    Ok(of("sum")? / of("count")?.max(1.0))
}

/// Number and bytes of the Parquet files below a folder.
fn sizes(folder: &Path) -> Result<(u64, u64)> {
    let mut found = (0, 0);
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |error: std::io::Error| Failure(format!("{}: {error}", folder.display()));
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let metadata = entry.metadata().map_err(failed)?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "parquet") {
                found = (found.0 + 1, found.1 + metadata.len());
            }
        }
    }
    Ok(found)
}
