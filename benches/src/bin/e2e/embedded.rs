//! The embedded side: writing the log's file before the engine has it, reading it and nothing else, and posting to the engine.
//!
//! Limits: 16,384 records an append; a read-only run may pause for at most 30 s; a refused request is repeated for at most 30 s.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use costhelm::bus::embedded::{EmbeddedBus, EmbeddedOptions};
use costhelm::bus::{Bus as _, BusError, BusEvent, NewRecord, Positions, StartAt, SubscribeOptions, TopicPartition};
use costhelm_benches::swarm::Swarm;

use crate::ceilings::Rate;
use crate::engine::{self, PARTITIONS};
use crate::failure::{During, Failure, Result, failure};
use crate::machine;

const APPEND_RECORDS_MAX: u64 = 16_384;
const PAUSE_MAX: Duration = Duration::from_secs(30);
const REFUSED_MAX: Duration = Duration::from_secs(30);

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().during("a runtime")
}

async fn open(data: &Path) -> Result<EmbeddedBus> {
    let options = EmbeddedOptions { partitions_default: u32::from(PARTITIONS), ..EmbeddedOptions::default() };
    EmbeddedBus::open(data.join("bus.db"), options).await.during("the embedded log")
}

/// Writes the whole stream into the log of a data directory that no engine uses yet; answers its bytes.
pub fn preload(data: &Path, topic: &str, swarm: &Swarm) -> Result<u64> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let bus = open(data).await?;
        let events = swarm.config().events;
        let (mut line, mut key, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut slot = 0;
        while slot < events {
            let end = events.min(slot + APPEND_RECORDS_MAX);
            let mut records = Vec::with_capacity((end - slot) as usize);
            for slot in slot..end {
                swarm.write(slot, &mut line, &mut key);
                bytes += line.len() as u64;
                let (key, value) = (Some(key.clone()), Some(line.clone()));
                records.push(NewRecord { topic: topic.to_owned(), key, value, headers: Vec::new() });
            }
            for result in bus.append(records).await {
                result.during("appending to the embedded log")?;
            }
            slot = end;
        }
        Ok(bytes)
    })
}

/// A store that has committed nothing.
struct FromTheBeginning;

type Answer<'a> = Pin<Box<dyn Future<Output = std::result::Result<Vec<Option<i64>>, BusError>> + Send + 'a>>;

impl Positions for FromTheBeginning {
    fn next_offsets<'a>(&'a self, of: &'a [TopicPartition]) -> Answer<'a> {
        Box::pin(async move { Ok(vec![None; of.len()]) })
    }
}

/// Reads the events topic from its beginning and does nothing with it; from the first batch to the last.
pub fn consume_only(data: &Path, topic: &str, events: u64) -> Result<Rate> {
    let runtime = runtime()?;
    let rate = runtime.block_on(async {
        let bus = open(data).await?;
        let options = SubscribeOptions {
            topics: vec![topic.to_owned()],
            start_at: StartAt::Earliest,
            batch_records_max: 4_096,
            batch_bytes_max: 4 << 20,
            batch_wait: Duration::from_millis(2),
            queue_batches_max: 8,
            revoke_wait: Duration::from_secs(1),
        };
        let (began, cpu_s) = (Instant::now(), machine::process_cpu_s(std::process::id())?);
        let mut subscription = bus.subscribe(options, Arc::new(FromTheBeginning)).during("reading the embedded log")?;
        let mut seen = 0;
        while seen < events {
            match tokio::time::timeout(PAUSE_MAX, subscription.events.recv()).await {
                Ok(Some(BusEvent::Batch(batch))) => seen += batch.records.len() as u64,
                Ok(Some(_)) => {}
                Ok(None) => return failure(format!("the embedded log ended after {seen} of {events} records")),
                Err(_) => return failure(format!("{seen} of {events} records came, then none for {PAUSE_MAX:?}")),
            }
        }
        let wall_s = began.elapsed().as_secs_f64();
        Ok(Rate { events, wall_s, cpu_s: machine::process_cpu_s(std::process::id())? - cpu_s })
    });
    // The reader lets go of its lock when its task ends, which the engine that comes next must find done.
    runtime.shutdown_timeout(Duration::from_secs(5));
    rate
}

/// Posts events to an engine over one connection.
pub struct Poster {
    http: ureq::Agent,
    url: String,
}

impl Poster {
    pub fn new(address: std::net::SocketAddr) -> Poster {
        Poster { http: engine::http(), url: format!("http://{address}/v1/events") }
    }

    /// Returns once the events are durable. What the engine has no room for now is sent again; repeats of what it took the
    /// first time are recognised by their ids.
    pub fn post(&self, body: &[u8]) -> Result<()> {
        let began = Instant::now();
        loop {
            let request = self.http.post(&self.url).header("content-type", "application/x-ndjson");
            let mut response = request.send(body).during("POST /v1/events")?;
            let text = response.body_mut().read_to_string().during("POST /v1/events")?;
            match response.status().as_u16() {
                202 => return Ok(()),
                429 | 503 if began.elapsed() < REFUSED_MAX => thread::sleep(Duration::from_millis(20)),
                status => return Err(Failure(format!("POST /v1/events answered {status}: {text}"))),
            }
        }
    }
}

/// Asks every millisecond until something throttles the project; when that answer was there.
pub fn wait_for_throttle(
    http: &ureq::Agent,
    address: std::net::SocketAddr,
    project: &str,
    patience: Duration,
) -> Result<Instant> {
    let url = format!("http://{address}/v1/throttle?project_id={project}");
    let began = Instant::now();
    loop {
        let text = http.get(&url).call().during(&url)?.body_mut().read_to_string().during(&url)?;
        let at = Instant::now();
        let answer: serde_json::Value = serde_json::from_str(&text).during(&url)?;
        if answer["level"] == "critical" {
            return Ok(at);
        }
        if began.elapsed() > patience {
            return failure(format!("project {project} is not throttled after {patience:?}: {text}"));
        }
        thread::sleep(Duration::from_millis(1));
    }
}
