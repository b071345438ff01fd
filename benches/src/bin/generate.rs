//! `generate`: writes a seeded stream of usage events to a file, to standard output, to a Kafka topic, or to a file and a topic
//! at once. The same options give the same bytes, so a total can be recomputed from the file while the engine reads the
//! topic.
//!
//! Limits: those of [`Swarm`] and of [`TopicSink`].

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use clap::Parser;
use costhelm_benches::swarm::{Slot, Swarm, SwarmConfig, SwarmError};
use costhelm_benches::topic::{TopicError, TopicSink};
use thiserror::Error;

/// Generate usage events as agents in the wild send them.
///
/// Example: generate --events 1000000 --seed 7 --out events.ndjson --brokers 127.0.0.1:9092 --topic ravenhelm.cost.events
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Lines to write: events, their repetitions and malformed lines together
    #[arg(long, default_value_t = 100_000)]
    events: u64,
    /// The same seed gives the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Event time of the first event (RFC 3339)
    #[arg(long, value_name = "TIME", default_value = "2025-09-01T00:00:00Z")]
    start: DateTime<Utc>,
    /// Event time between the first event and the last: a number with s, m, h or d
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_seconds)]
    span: u64,
    /// Lines of a million that repeat an earlier event, byte for byte
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    duplicates_per_million: u32,
    /// Lines of a million whose event time is one minute to six hours behind
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    late_per_million: u32,
    /// Lines of a million that are no usage event
    #[arg(long, value_name = "N", default_value_t = 500)]
    malformed_per_million: u32,
    /// Lines of a million with a model that no price list knows
    #[arg(long, value_name = "N", default_value_t = 0)]
    unpriced_per_million: u32,
    /// One orchestrator and its workers
    #[arg(long, value_name = "N", default_value_t = 13)]
    agents: u64,
    /// Write one event a line here; `-` is standard output
    #[arg(long, value_name = "FILE", required_unless_present = "brokers")]
    out: Option<PathBuf>,
    /// Send the events to Kafka: HOST:PORT, several with commas
    #[arg(long, value_name = "HOST:PORT", requires = "topic")]
    brokers: Option<String>,
    /// The topic, which must exist
    #[arg(long, requires = "brokers")]
    topic: Option<String>,
}

fn parse_seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no duration; expected a whole number with s, m, h or d, such as 24h");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    count.checked_mul(factor).ok_or_else(wrong)
}

#[derive(Debug, Error)]
enum GenerateError {
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    #[error("cannot write {path}: {source}")]
    Write { path: String, source: io::Error },
    #[error(transparent)]
    Topic(#[from] TopicError),
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has seen enough.
        Err(GenerateError::Write { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("generate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), GenerateError> {
    let swarm = Swarm::new(SwarmConfig {
        seed: arguments.seed,
        events: arguments.events,
        start: arguments.start,
        span_s: arguments.span,
        duplicates_per_million: arguments.duplicates_per_million,
        late_per_million: arguments.late_per_million,
        malformed_per_million: arguments.malformed_per_million,
        unpriced_per_million: arguments.unpriced_per_million,
        agents: arguments.agents,
    })?;
    let mut file = arguments.out.as_ref().map(FileSink::open).transpose()?;
    let mut topic = match (&arguments.brokers, &arguments.topic) {
        (Some(brokers), Some(topic)) => Some(TopicSink::open(brokers, topic)?),
        _ => None,
    };

    let began = Instant::now();
    let mut tally = Tally::default();
    let (mut line, mut key) = (Vec::with_capacity(1_024), Vec::with_capacity(64));
    for slot in 0..arguments.events {
        let what = swarm.write(slot, &mut line, &mut key);
        tally.count(what, line.len());
        if let Some(file) = &mut file {
            file.line(&line)?;
        }
        if let Some(topic) = &mut topic {
            topic.send(&line, &key)?;
        }
    }
    if let Some(file) = file {
        file.finish()?;
    }
    if let Some(topic) = topic {
        topic.finish()?;
    }
    tally.report(began.elapsed());
    Ok(())
}

#[derive(Default)]
struct Tally {
    lines: u64,
    bytes: u64,
    duplicates: u64,
    late: u64,
    malformed: u64,
    unpriced: u64,
}

impl Tally {
    fn count(&mut self, what: Slot, bytes: usize) {
        self.lines += 1;
        self.bytes += bytes as u64;
        match what {
            Slot::Event => {}
            Slot::Late => self.late += 1,
            Slot::Unpriced => self.unpriced += 1,
            Slot::Duplicate { .. } => self.duplicates += 1,
            Slot::Malformed => self.malformed += 1,
        }
    }

    fn report(&self, elapsed: Duration) {
        let Tally { lines, bytes, duplicates, late, malformed, unpriced } = self;
        let seconds = elapsed.as_secs_f64();
        eprintln!(
            "{lines} lines of {} bytes on average in {seconds:.2} s ({:.0} a second): {duplicates} duplicates, {late} late, \
             {malformed} malformed, {unpriced} unpriced",
            bytes / lines.max(&1),
            *lines as f64 / seconds
        );
    }
}

struct FileSink {
    path: String,
    out: BufWriter<Box<dyn Write>>,
}

impl FileSink {
    fn open(path: &PathBuf) -> Result<FileSink, GenerateError> {
        let name = path.display().to_string();
        let out: Box<dyn Write> = if name == "-" {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(path).map_err(|source| GenerateError::Write { path: name.clone(), source })?)
        };
        Ok(FileSink { path: name, out: BufWriter::with_capacity(1 << 20, out) })
    }

    fn line(&mut self, line: &[u8]) -> Result<(), GenerateError> {
        let written = self.out.write_all(line).and_then(|()| self.out.write_all(b"\n"));
        written.map_err(|source| GenerateError::Write { path: self.path.clone(), source })
    }

    fn finish(mut self) -> Result<(), GenerateError> {
        self.out.flush().map_err(|source| GenerateError::Write { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_with_a_unit() {
        assert_eq!(parse_seconds("90s"), Ok(90));
        assert_eq!(parse_seconds("30d"), Ok(2_592_000));
        for wrong in ["", "h", "1.5h", "10", "5y", "-1s", "1ü", "99999999999999999d"] {
            assert!(parse_seconds(wrong).is_err(), "`{wrong}` was taken");
        }
    }
}
