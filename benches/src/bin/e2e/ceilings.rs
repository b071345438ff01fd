//! What this machine can do at most with one stage alone, on one core and without I/O: decode, fold, write Parquet.
//!
//! Limits: 200,000 records in memory; each measurement repeats for at least three seconds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use costhelm::bus::{Batch, RecordRef, TopicPartition};
use costhelm::commit::staging::encode;
use costhelm::decode::decode;
use costhelm::fold::{DatasetRows, Epoch, Folder, TimeRules, dedup::Dedup, watermark::Watermarks};
use costhelm::pricing::{Book, EventTime};
use costhelm_benches::swarm::Swarm;

use crate::failure::{During, Failure, Result};
use crate::machine::this_thread_cpu_s;

const RECORDS_MAX: u64 = 200_000;
/// As the engine's pipeline asks of the bus.
const BATCH_RECORDS: u64 = 4_096;
const MEASURE_MIN: Duration = Duration::from_secs(3);

/// So many events (or rows) in this time.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub events: u64,
    pub wall_s: f64,
    pub cpu_s: f64,
}

impl Rate {
    pub fn per_s(&self) -> f64 {
        self.events as f64 / self.wall_s
    }

    /// Processor time for one event, microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.cpu_s * 1e6 / self.events as f64
    }
}

pub struct Ceilings {
    pub decode: Rate,
    pub fold: Rate,
    pub parquet: Rate,
    /// Of the Parquet that was written.
    pub bytes_per_row: f64,
}

pub fn measure(swarm: &Swarm) -> Result<Ceilings> {
    let batches = batches(swarm);
    let decode = repeat(|| {
        let mut events = 0;
        for batch in &batches {
            for record in &batch.records {
                decode(batch.bytes(&record.value), None, |decoded| {
                    events += 1;
                    let _ = black_box(decoded.event.is_ok());
                });
            }
        }
        Ok(events)
    })?;
    let book = Arc::new(Book::builtin().during("the price book")?);
    let mut folded = None;
    let fold = repeat(|| {
        let epoch = fold(&batches, &book)?;
        let events = epoch.ranges.iter().map(|(_, range)| range.events).sum();
        folded = epoch.ledger;
        Ok(events)
    })?;
    let rows: DatasetRows = folded.ok_or_else(|| Failure("no event of the swarm became a row".into()))?;
    let mut bytes = 0;
    let parquet = repeat(|| {
        bytes = black_box(encode(&rows).during("writing Parquet")?).len();
        Ok(rows.batch.num_rows() as u64)
    })?;
    Ok(Ceilings { decode, fold, parquet, bytes_per_row: bytes as f64 / rows.batch.num_rows() as f64 })
}

/// Runs `once`, which answers how many events it worked on, until there is enough to measure.
fn repeat(mut once: impl FnMut() -> Result<u64>) -> Result<Rate> {
    // The first round meets cold caches and fresh memory.
    once()?;
    let (began, cpu_s) = (Instant::now(), this_thread_cpu_s()?);
    let mut events = 0;
    while began.elapsed() < MEASURE_MIN {
        events += once()?;
    }
    Ok(Rate { events, wall_s: began.elapsed().as_secs_f64(), cpu_s: this_thread_cpu_s()? - cpu_s })
}

fn topic_partition() -> TopicPartition {
    TopicPartition { topic: "events".into(), partition: 0 }
}

fn batches(swarm: &Swarm) -> Vec<Batch> {
    let events = swarm.config().events.min(RECORDS_MAX);
    let (mut line, mut key) = (Vec::new(), Vec::new());
    let mut batches = Vec::new();
    for from in (0..events).step_by(BATCH_RECORDS as usize) {
        let to = events.min(from + BATCH_RECORDS);
        let mut arena = Vec::new();
        let mut append = |bytes: &[u8]| {
            let start = arena.len() as u32;
            arena.extend_from_slice(bytes);
            start..arena.len() as u32
        };
        let mut records = Vec::with_capacity(BATCH_RECORDS as usize);
        for slot in from..to {
            swarm.write(slot, &mut line, &mut key);
            let (key, value) = (Some(append(&key)), append(&line));
            records.push(RecordRef { offset: slot as i64, timestamp_ms: 0, key, value, headers: Vec::new() });
        }
        batches.push(Batch { at: topic_partition(), from: from as i64, to: to as i64, records, arena });
    }
    batches
}

/// One epoch of all batches, with the limits that the configuration has by default.
fn fold(batches: &[Batch], book: &Arc<Book>) -> Result<Epoch> {
    let config = costhelm::config::Config::default();
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let mut folder = Folder::new(
        TimeRules { future_skew_us: micros(config.time.future_skew) },
        book.clone(),
        Arc::new([]),
        [],
        Dedup::new(0, micros(config.dedup.horizon), config.dedup.ids_max),
        Watermarks::new(micros(config.time.late_after)),
        EventTime(0),
    );
    folder.assign([(topic_partition(), 0)]);
    let now = costhelm::clock::now();
    for batch in batches {
        folder.fold(batch, now).during("folding")?;
    }
    folder.seal().ok_or_else(|| Failure("nothing was folded".into()))
}
