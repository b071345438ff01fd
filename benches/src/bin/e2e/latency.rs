//! How long a throttle command takes from the event that caused it, while the engine is at half of its load.
//!
//! ```text
//!  swarm, at a fixed rate ────────────▶ bus ─▶ engine ─▶ throttle topic / GET /v1/throttle
//!  now and then one event that spends       │                 │
//!  a budget of its own in full ─────────────┘                 │
//!  └──────────────── measured from before the send to here ───┘
//! ```
//!
//! With the embedded bus events come in over HTTP, so the same process writes and reads the log. What it can take that way is
//! measured first, and half of the smaller of the two rates is the load.
//!
//! Limits: [`CROSSINGS_MAX`] crossings; each must be seen within 30 s; the load keeps at most four seconds of a backlog, or the run
//! says that it was not at half load.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use costhelm_benches::random::Random;
use costhelm_benches::swarm::{Swarm, SwarmConfig};
use costhelm_benches::topic::TopicSink;

use crate::embedded::{self, Poster};
use crate::engine::{self, BusChoice, Engine, Site};
use crate::failure::{During, Failure, Result, failure};
use crate::kafka;
use crate::machine::{self, Stretch};

pub const CROSSINGS_MAX: usize = 5_000;
const SEEN_MAX: Duration = Duration::from_secs(30);
const WARM_UP: Duration = Duration::from_secs(5);
const PROBE: Duration = Duration::from_secs(6);
const POSTERS: u64 = 2;
const BACKLOG_S_MAX: f64 = 4.0;

/// A command that was read from the throttle topic.
pub struct Arrival {
    pub project: String,
    pub at: Instant,
    /// When the engine says it issued it, microseconds since the Unix epoch.
    pub issued_us: Option<i64>,
}

pub struct Plan {
    pub crossings: usize,
    /// Mean time between two crossings.
    pub gap: Duration,
    pub seed: u64,
    /// The load is half of this.
    pub events_per_s: f64,
}

pub struct Latency {
    /// What `POST /v1/events` could take, engine and all; only with the embedded bus.
    pub ingest_per_s: Option<f64>,
    pub wanted_per_s: f64,
    pub sent_per_s: f64,
    /// Most events that were sent and not committed yet.
    pub backlog_max: u64,
    pub at_half_load: bool,
    pub to_throttle: Quantiles,
    /// Send to the command's own `issued_at`, which is inside the transaction; only where the command itself is read.
    pub to_issue: Option<Quantiles>,
    pub engine_cpu_s: f64,
    pub others_cpu_s: f64,
    pub wall_s: f64,
    pub audit_s: f64,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantiles {
    pub count: usize,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Quantiles {
    /// By nearest rank; `None` of nothing.
    fn of(mut millis: Vec<f64>) -> Option<Quantiles> {
        millis.sort_by(f64::total_cmp);
        let max = *millis.last()?;
        let rank = |percent: usize| millis[(millis.len() * percent).div_ceil(100).max(1) - 1];
        Some(Quantiles { count: millis.len(), p50: rank(50), p90: rank(90), p99: rank(99), max })
    }
}

fn project(number: usize) -> String {
    format!("e2e-crossing-{number}")
}

/// One budget a crossing. A million input tokens of gpt-4o-mini cost more than the whole amount.
fn budgets(crossings: usize) -> String {
    let mut toml = String::new();
    for number in 0..crossings {
        let project = project(number);
        // Writing to a String cannot fail.
        let _ = write!(
            toml,
            "[[budget]]\nid = \"{project}\"\namount_usd = \"0.1\"\nperiod = \"daily\"\nscope = {{ project_id = \"{project}\" }}\n\n"
        );
    }
    toml
}

#[allow(clippy::disallowed_methods, reason = "throttles are about the present: a trigger must happen now")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

fn trigger_event(prefix: &str, number: usize) -> String {
    serde_json::json!({
        "event_id": format!("{prefix}-{number}"),
        "timestamp": now().to_rfc3339_opts(SecondsFormat::Micros, true),
        "environment": "prod",
        "org_id": "ravenhelm",
        "project_id": project(number),
        "agent_role": "worker",
        "agent_task_id": "e2e",
        "model_provider": "openai",
        "model_name": "gpt-4o-mini",
        "tokens_input": 1_000_000,
        "tokens_output": 0,
        "tokens_total": 1_000_000,
        "trace_id": "e2e",
    })
    .to_string()
}

/// A swarm that happens now, at `rate` events a second for at most `seconds`.
fn load(seed: u64, rate: f64, seconds: u64) -> Result<Swarm> {
    Swarm::new(SwarmConfig {
        seed,
        events: ((rate * seconds as f64) as u64).max(1),
        start: now(),
        span_s: seconds,
        duplicates_per_million: 10_000,
        late_per_million: 5_000,
        // Over HTTP they would be turned away and never be committed.
        malformed_per_million: 0,
        unpriced_per_million: 0,
        agents: 13,
    })
    .during("the load")
}

/// What the threads of a run share.
#[derive(Clone, Default)]
struct Shared {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

pub fn measure(binary: &Path, bus: &BusChoice, prefix: &str, plan: &Plan) -> Result<Latency> {
    let site = Site::new(binary, bus, prefix, &budgets(plan.crossings))?;
    let _topics = match bus {
        BusChoice::Kafka { brokers } => Some(kafka::Topics::create(brokers, prefix)?),
        BusChoice::Embedded => None,
    };
    let mut engine = site.start()?;
    let ingest_per_s = match bus {
        BusChoice::Kafka { .. } => None,
        BusChoice::Embedded => Some(probe_ingest(&mut engine, plan.seed)?),
    };
    let wanted_per_s = ingest_per_s.map_or(plan.events_per_s, |ingest| ingest.min(plan.events_per_s)) / 2.0;
    let committed_before = engine.committed_events()?;

    let shared = Shared::default();
    let seconds = WARM_UP.as_secs() + (plan.gap.as_secs_f64() * plan.crossings as f64 * 2.0) as u64 + 60;
    let swarm = load(plan.seed + 1, wanted_per_s, seconds)?;
    let stretch = Stretch::begin()?;
    let cpu_before = machine::process_cpu_s(engine.pid())?;
    let run = thread::scope(|scope| {
        let loading = {
            let (shared, swarm, address) = (shared.clone(), &swarm, engine.address);
            scope.spawn(move || match bus {
                BusChoice::Kafka { brokers } => produce(brokers, prefix, swarm, wanted_per_s, &shared),
                BusChoice::Embedded => post_paced(address, swarm, wanted_per_s, &shared),
            })
        };
        let crossed = match bus {
            BusChoice::Kafka { brokers } => {
                cross_over_kafka(brokers, prefix, plan, &mut engine, &shared, committed_before)
            }
            BusChoice::Embedded => cross_over_http(prefix, plan, &mut engine, &shared, committed_before),
        };
        shared.stop.store(true, Ordering::Relaxed);
        let loaded = join(loading);
        // The load's own error explains a crossing that did not come.
        loaded.and_then(|sent_per_s| Ok((sent_per_s, crossed?)))
    });
    let (sent_per_s, crossed) = run?;
    let wall_s = stretch.elapsed().as_secs_f64();
    let engine_cpu_s = machine::process_cpu_s(engine.pid())? - cpu_before;
    let others_cpu_s = (stretch.busy_s()? - engine_cpu_s).max(0.0);
    engine.stop()?;
    let (_, audit) = site.audit()?;
    let to_throttle = Quantiles::of(crossed.to_throttle_ms).ok_or_else(|| Failure("no crossing was made".into()))?;
    let at_half_load = (crossed.backlog_max as f64) < wanted_per_s * BACKLOG_S_MAX && sent_per_s > wanted_per_s * 0.95;
    Ok(Latency {
        ingest_per_s,
        wanted_per_s,
        sent_per_s,
        backlog_max: crossed.backlog_max,
        at_half_load,
        to_throttle,
        to_issue: Quantiles::of(crossed.to_issue_ms),
        engine_cpu_s,
        others_cpu_s,
        wall_s,
        audit_s: audit.as_secs_f64(),
    })
}

fn join<T>(handle: thread::ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[derive(Default)]
struct Crossed {
    to_throttle_ms: Vec<f64>,
    to_issue_ms: Vec<f64>,
    backlog_max: u64,
}

/// Times of the crossings, drawn so that they do not keep step with commits.
struct Schedule {
    random: Random,
    next: Instant,
    gap_us: u64,
}

impl Schedule {
    fn new(plan: &Plan) -> Schedule {
        let gap_us = plan.gap.as_micros() as u64;
        Schedule { random: Random::new(plan.seed, 1_000, 0), next: Instant::now() + WARM_UP, gap_us }
    }

    fn wait(&mut self) {
        thread::sleep(self.next.saturating_duration_since(Instant::now()));
        self.next = self.next.max(Instant::now());
        self.next += Duration::from_micros(self.random.between(self.gap_us / 2, self.gap_us * 3 / 2));
    }
}

/// Looks now and then at how much of what was sent is not committed.
struct BacklogWatch {
    next: Instant,
    before: u64,
    max: u64,
}

impl BacklogWatch {
    fn new(before: u64) -> BacklogWatch {
        BacklogWatch { next: Instant::now() + WARM_UP, before, max: 0 }
    }

    fn look(&mut self, engine: &mut Engine, sent: &AtomicU64) -> Result<()> {
        if Instant::now() < self.next {
            return Ok(());
        }
        engine.check()?;
        let sent = sent.load(Ordering::Relaxed);
        let committed = engine.committed_events()? - self.before;
        self.max = self.max.max(sent.saturating_sub(committed));
        self.next = Instant::now() + Duration::from_secs(5);
        Ok(())
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn cross_over_kafka(
    brokers: &str,
    prefix: &str,
    plan: &Plan,
    engine: &mut Engine,
    shared: &Shared,
    before: u64,
) -> Result<Crossed> {
    let (arrive, arrivals) = sync_channel::<Arrival>(1_024);
    let stop = Arc::new(AtomicBool::new(false));
    let trigger = kafka::Trigger::new(brokers, prefix)?;
    thread::scope(|scope| {
        let listening = {
            let stop = stop.clone();
            scope.spawn(move || kafka::listen(brokers, prefix, &arrive, &stop))
        };
        let mut watch = BacklogWatch::new(before);
        let mut cross = || {
            let mut schedule = Schedule::new(plan);
            let mut sent = Vec::with_capacity(plan.crossings);
            for number in 0..plan.crossings {
                schedule.wait();
                let event = trigger_event(prefix, number);
                sent.push((Instant::now(), now().timestamp_micros()));
                trigger.send(&project(number), &event)?;
                watch.look(engine, &shared.sent)?;
            }
            let mut crossed = Crossed::default();
            let mut open: std::collections::HashMap<String, usize> =
                (0..plan.crossings).map(|n| (project(n), n)).collect();
            while !open.is_empty() {
                let arrival = arrivals.recv_timeout(SEEN_MAX).map_err(|error| {
                    Failure(match error {
                        RecvTimeoutError::Timeout => {
                            format!("{} throttle commands did not come within {SEEN_MAX:?}", open.len())
                        }
                        RecvTimeoutError::Disconnected => "the throttle topic's reader has ended".to_owned(),
                    })
                })?;
                let Some(number) = open.remove(&arrival.project) else {
                    continue;
                };
                let (at, at_us) = sent[number];
                crossed.to_throttle_ms.push(millis(arrival.at - at));
                crossed.to_issue_ms.extend(arrival.issued_us.map(|issued_us| (issued_us - at_us) as f64 / 1e3));
            }
            Ok(crossed)
        };
        let crossed = cross();
        stop.store(true, Ordering::Relaxed);
        drop(arrivals);
        join(listening)?;
        let mut crossed = crossed?;
        crossed.backlog_max = watch.max;
        Ok(crossed)
    })
}

fn cross_over_http(prefix: &str, plan: &Plan, engine: &mut Engine, shared: &Shared, before: u64) -> Result<Crossed> {
    let http = engine::http();
    let poster = Poster::new(engine.address);
    let mut schedule = Schedule::new(plan);
    let mut watch = BacklogWatch::new(before);
    let mut crossed = Crossed::default();
    for number in 0..plan.crossings {
        schedule.wait();
        let project = project(number);
        let event = trigger_event(prefix, number);
        let address = engine.address;
        let (sent, seen) = thread::scope(|scope| {
            let waiting = scope.spawn(|| embedded::wait_for_throttle(&http, address, &project, SEEN_MAX));
            let sent = Instant::now();
            poster.post(event.as_bytes())?;
            Ok((sent, join(waiting)?))
        })?;
        crossed.to_throttle_ms.push(millis(seen - sent));
        watch.look(engine, &shared.sent)?;
    }
    crossed.backlog_max = watch.max;
    Ok(crossed)
}

/// Sends the load into a topic, in step with the clock; answers the rate that came of it.
fn produce(brokers: &str, prefix: &str, swarm: &Swarm, rate: f64, shared: &Shared) -> Result<f64> {
    let mut sink = TopicSink::open(brokers, &format!("{prefix}.events")).during("the load")?;
    let (mut line, mut key) = (Vec::new(), Vec::new());
    let began = Instant::now();
    let mut slot = 0;
    while !shared.stopped() && slot < swarm.config().events {
        let due = ((began.elapsed().as_secs_f64() * rate) as u64).min(swarm.config().events);
        while slot < due && !shared.stopped() {
            swarm.write(slot, &mut line, &mut key);
            sink.send(&line, &key).during("the load")?;
            slot += 1;
        }
        shared.sent.store(slot, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(2));
    }
    let rate = slot as f64 / began.elapsed().as_secs_f64();
    sink.finish().during("the load")?;
    Ok(rate)
}

/// Slots `from..to` as one NDJSON body.
fn body(swarm: &Swarm, from: u64, to: u64, out: &mut Vec<u8>) {
    let (mut line, mut key) = (Vec::new(), Vec::new());
    out.clear();
    for slot in from..to {
        swarm.write(slot, &mut line, &mut key);
        out.extend_from_slice(&line);
        out.push(b'\n');
    }
}

/// Posts the load, in step with the clock, from [`POSTERS`] connections in turns; answers the rate that came of it.
fn post_paced(address: std::net::SocketAddr, swarm: &Swarm, rate: f64, shared: &Shared) -> Result<f64> {
    const TURN: Duration = Duration::from_millis(50);
    const BODY_EVENTS_MAX: u64 = 8_192;
    let began = Instant::now();
    let taken = AtomicU64::new(0);
    let post = || {
        let poster = Poster::new(address);
        let mut text = Vec::new();
        while !shared.stopped() {
            let due = ((began.elapsed().as_secs_f64() * rate) as u64).min(swarm.config().events);
            let claim = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < due).then(|| due.min(taken + BODY_EVENTS_MAX))
            });
            if let Ok(from) = claim {
                let to = due.min(from + BODY_EVENTS_MAX);
                body(swarm, from, to, &mut text);
                poster.post(&text)?;
                shared.sent.fetch_add(to - from, Ordering::Relaxed);
            }
            thread::sleep(TURN);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let posters: Vec<_> = (0..POSTERS).map(|_| scope.spawn(post)).collect();
        posters.into_iter().try_for_each(join)
    })?;
    Ok(shared.sent.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}

/// Posts as fast as the engine answers for some seconds, then waits until all of it is committed; events a second over both.
fn probe_ingest(engine: &mut Engine, seed: u64) -> Result<f64> {
    const BODY_EVENTS: u64 = 4_096;
    let swarm = load(seed + 2, 1_000_000.0, PROBE.as_secs())?;
    let (address, next) = (engine.address, AtomicU64::new(0));
    let began = Instant::now();
    let post = || {
        let poster = Poster::new(address);
        let mut text = Vec::new();
        while began.elapsed() < PROBE {
            let from = next.fetch_add(BODY_EVENTS, Ordering::Relaxed);
            body(&swarm, from, from + BODY_EVENTS, &mut text);
            poster.post(&text)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let posters: Vec<_> = (0..POSTERS).map(|_| scope.spawn(post)).collect();
        posters.into_iter().try_for_each(join)
    })?;
    // Lines that are no event are turned away by index and never reach the log.
    let mut committed = 0;
    loop {
        thread::sleep(Duration::from_millis(100));
        let lag: serde_json::Value = serde_json::from_str(&engine.get("/readyz")?).during("/readyz")?;
        let seen = engine.committed_events()?;
        if lag["lag_records"] == 0 && seen == committed && seen > 0 {
            return Ok(seen as f64 / began.elapsed().as_secs_f64());
        }
        committed = seen;
        engine.check()?;
        if began.elapsed() > PROBE + SEEN_MAX {
            return failure(format!(
                "{committed} posted events are committed after {:?}, and the rest is not",
                began.elapsed()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let quantiles = Quantiles::of((1..=200).rev().map(f64::from).collect());
        assert_eq!(quantiles, Some(Quantiles { count: 200, p50: 100.0, p90: 180.0, p99: 198.0, max: 200.0 }));
        assert_eq!(Quantiles::of(vec![7.0]).map(|one| (one.p50, one.p99)), Some((7.0, 7.0)));
        assert_eq!(Quantiles::of(Vec::new()), None);
    }
}
