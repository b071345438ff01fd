//! Metrics for Prometheus, made from the engine's state at each scrape, in OpenMetrics text.
//!
//! Prometheus has only floats: what is exact here (money is added up as `Money`, MONEY-1) is turned into one at the very end.
//! The exact figures are in the ledger and in SQL.
//!
//! Limits: [`crate::state::SERIES_MAX`] label sets; the rest is counted under `other`.

use std::{fmt, sync::atomic::Ordering};

use costhelm_pricing::Money;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::{
    Engine,
    budget::{Level, standing},
    clock,
    state::{COMMIT_BUCKETS_S, METRIC_DIMS, MetricKey},
};

type Labels = Vec<(&'static str, String)>;

pub fn render(engine: &Engine) -> String {
    let mut registry = Registry::with_prefix("costhelm");
    registry.register_collector(Box::new(EngineCollector(engine.clone())));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

struct EngineCollector(Engine);

impl fmt::Debug for EngineCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineCollector")
    }
}

/// One metric family with its samples.
struct Family<'e> {
    encoder: MetricEncoder<'e>,
    counter: bool,
}

impl Family<'_> {
    fn sample(&mut self, labels: Labels, value: f64) -> fmt::Result {
        let encoder = self.encoder.encode_family(&labels)?;
        encode_value(encoder, self.counter, value)
    }

    /// The only sample, without labels.
    fn plain(self, value: f64) -> fmt::Result {
        encode_value(self.encoder, self.counter, value)
    }
}

fn encode_value(encoder: MetricEncoder<'_>, counter: bool, value: f64) -> fmt::Result {
    if counter { ConstCounter::new(value).encode(encoder) } else { ConstGauge::new(value).encode(encoder) }
}

struct Families<'e>(DescriptorEncoder<'e>);

impl Families<'_> {
    fn counter<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Family<'s>, fmt::Error> {
        self.family(name, help, None, true)
    }

    fn gauge<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Family<'s>, fmt::Error> {
        self.family(name, help, None, false)
    }

    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        counter: bool,
    ) -> Result<Family<'s>, fmt::Error> {
        let kind = if counter { MetricType::Counter } else { MetricType::Gauge };
        Ok(Family { encoder: self.0.encode_descriptor(name, help, unit, kind)?, counter })
    }
}

/// To the nearest float Prometheus can hold; for display only.
fn approximate(money: Money) -> f64 {
    money.to_string().parse().unwrap_or(f64::NAN)
}

fn labels(key: &MetricKey) -> Labels {
    METRIC_DIMS.iter().zip(key).map(|(dim, value)| (dim.name(), value.to_string())).collect()
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

impl Collector for EngineCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Families(encoder);
        self.totals(&mut out)?;
        self.budgets(&mut out)?;
        self.stream(&mut out)?;
        self.engine(&mut out)
    }
}

impl EngineCollector {
    fn totals(&self, out: &mut Families<'_>) -> fmt::Result {
        let totals = self.0.state().totals();
        let mut tokens =
            out.counter("tokens", "Tokens and other units used, by disjoint meter (no token is in two)")?;
        for (key, sums) in totals.iter() {
            for (meter, count) in sums.usage.iter() {
                let mut labels = labels(key);
                labels.push(("meter", meter.name().to_owned()));
                tokens.sample(labels, count as f64)?;
            }
        }
        let mut family = out.counter("cost_usd", "Cost of priced events, US dollars")?;
        for (key, sums) in totals.iter() {
            family.sample(labels(key), approximate(sums.cost))?;
        }
        let mut family = out.counter("reported_cost_usd", "Cost as the senders reported it, US dollars")?;
        for (key, sums) in totals.iter().filter(|(_, sums)| sums.reported_cost != Money::ZERO) {
            family.sample(labels(key), approximate(sums.reported_cost))?;
        }
        let mut family = out.counter("model_calls", "Usage events in the ledger")?;
        for (key, sums) in totals.iter() {
            family.sample(labels(key), sums.events as f64)?;
        }
        let mut family =
            out.counter("unpriced_events", "Events without a price; their cost is not known, and not zero")?;
        for (key, sums) in totals.iter().filter(|(_, sums)| sums.unpriced > 0) {
            family.sample(labels(key), sums.unpriced as f64)?;
        }
        let mut family =
            out.counter("late_events", "Events that came after their partition's watermark had passed them")?;
        for (key, sums) in totals.iter().filter(|(_, sums)| sums.late > 0) {
            family.sample(labels(key), sums.late as f64)?;
        }
        let mut family = out.family("call_duration", "Time spent in model calls", Some(&Unit::Seconds), true)?;
        for (key, sums) in totals.iter().filter(|(_, sums)| sums.duration_ms > 0) {
            family.sample(labels(key), sums.duration_ms as f64 / 1e3)?;
        }
        let mut family =
            out.family("mcp_overhead", "Time spent in MCP calls between agents", Some(&Unit::Seconds), true)?;
        for (key, sums) in totals.iter().filter(|(_, sums)| sums.mcp_overhead_ms > 0) {
            family.sample(labels(key), sums.mcp_overhead_ms as f64 / 1e3)?;
        }
        Ok(())
    }

    fn budgets(&self, out: &mut Families<'_>) -> fmt::Result {
        let budgets = self.0.budgets();
        let of = |status: &crate::engine::BudgetStatus| vec![("budget", status.budget.id.to_string())];
        let mut family = out.gauge("budget_limit_usd", "Amount of the budget for one period, US dollars")?;
        for status in &budgets {
            family.sample(of(status), approximate(status.budget.amount))?;
        }
        let mut family = out.gauge("budget_spent_usd", "Spent in the running period, US dollars")?;
        for status in &budgets {
            family.sample(of(status), approximate(status.spent))?;
        }
        let mut family = out.gauge("budget_utilization_ratio", "Spent divided by the amount")?;
        for status in &budgets {
            let ppm = status.spent.parts_per_million_of(status.budget.amount).unwrap_or(0);
            family.sample(of(status), ppm as f64 / 1e6)?;
        }
        let level = |level: Level| f64::from(level as u8);
        let mut family = out.gauge("budget_level", "0 none, 1 warning, 2 critical")?;
        for status in &budgets {
            family.sample(of(status), level(standing(&status.budget, status.spent).level))?;
        }
        let mut family = out.gauge("throttle_level", "Throttle in force for a scope: 0 none, 1 warning, 2 critical")?;
        let now = clock::now();
        for command in self.0.state().throttles.load().iter() {
            let in_force = if command.expires_at > now { command.level } else { Level::None };
            family.sample(vec![("scope", command.scope.key())], level(in_force))?;
        }
        Ok(())
    }

    fn stream(&self, out: &mut Families<'_>) -> fmt::Result {
        let state = self.0.state();
        let counters = &state.counters;
        for (name, help, counter) in [
            ("consumed_records", "Records consumed from the bus and committed", &counters.records),
            ("consumed_events", "Events in those records", &counters.events),
            ("ledger_rows", "Events written to the ledger", &counters.ledger_rows),
            ("duplicate_events", "Events recognised as repeats and not counted again", &counters.duplicates),
            ("epochs", "Commits", &counters.epochs),
            ("restarts", "Times the pipeline started again from what was committed", &counters.conflicts),
            ("alerts", "Budget alerts raised", &counters.alerts),
            ("throttle_commands", "Throttle commands issued", &counters.throttles),
            ("outbox_published", "Messages that have left", &counters.published),
        ] {
            out.counter(name, help)?.plain(counter.load(Ordering::Relaxed) as f64)?;
        }
        let mut family = out.counter("quarantined_events", "Records or events that could not be used, by reason")?;
        for (code, count) in state.rejections() {
            family.sample(vec![("reason", code.name().to_owned())], count as f64)?;
        }
        let positions = state.positions();
        let mut family = out.gauge("consumer_lag_records", "Records on the bus that are not committed yet")?;
        for (at, end) in self.0.bus().health().end_offsets {
            let behind = end.saturating_sub(positions.get(&at).copied().unwrap_or(0)).max(0);
            let labels = vec![("topic", at.topic.to_string()), ("partition", at.partition.to_string())];
            family.sample(labels, behind as f64)?;
        }
        let now = clock::now();
        let gauges = state.fold_gauges();
        let mut family = out.family(
            "watermark_delay",
            "How far a partition's watermark is behind now",
            Some(&Unit::Seconds),
            false,
        )?;
        for (at, time) in &gauges.watermarks {
            let labels = vec![("topic", at.topic.to_string()), ("partition", at.partition.to_string())];
            family.sample(labels, seconds(now.0 - time.0))?;
        }
        Ok(())
    }

    fn engine(&self, out: &mut Families<'_>) -> fmt::Result {
        let state = self.0.state();
        let gauges = state.fold_gauges();
        out.gauge("dedup_ids", "Event ids remembered")?.plain(gauges.dedup_ids as f64)?;
        out.gauge("dedup_ids_limit", "Event ids that may be remembered")?
            .plain(self.0.config().dedup.ids_max as f64)?;
        out.family("dedup_memory", "Memory of the event ids", Some(&Unit::Bytes), false)?
            .plain(gauges.dedup_bytes as f64)?;
        out.counter("dedup_evicted_ids", "Event ids forgotten before their horizon for want of room")?
            .plain(gauges.dedup_evicted as f64)?;
        {
            let windows = state.windows();
            out.gauge("window_cells", "Window cells in memory")?.plain(windows.cells() as f64)?;
            out.gauge("window_cells_limit", "Window cells that may be in memory")?
                .plain(self.0.config().windows.cells_max as f64)?;
            out.counter(
                "window_beyond_memory_events",
                "Late events whose window is older than memory keeps; SQL has them",
            )?
            .plain(windows.beyond_memory() as f64)?;
            out.counter("window_evicted_cells", "Window cells given up before their time for want of room")?
                .plain(windows.evicted_cells() as f64)?;
        }
        let mut family = {
            let kind = MetricType::Histogram;
            out.0.encode_descriptor("commit_duration", "Time of the stages of a commit", Some(&Unit::Seconds), kind)?
        };
        for (stage, histogram) in state.commit_times() {
            let bounds = COMMIT_BUCKETS_S.iter().copied().chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(histogram.buckets).collect();
            let count = histogram.buckets.iter().sum();
            let labels: Labels = vec![("stage", stage.to_owned())];
            family.encode_family(&labels)?.encode_histogram::<Labels>(
                histogram.sum.as_secs_f64(),
                count,
                &buckets,
                None,
            )?;
        }
        let health = self.0.health();
        out.gauge("ready", "1 while the engine does its work, 0 while something keeps it from it")?
            .plain(f64::from(u8::from(health.ready)))?;
        if let Some(bytes) = resident_bytes() {
            out.family("resident_memory", "Memory of the process", Some(&Unit::Bytes), false)?.plain(bytes as f64)?;
        }
        let mut family = out.gauge("build_info", "Version and price book")?;
        let labels = vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("price_revision", self.0.book().revision().to_owned()),
        ];
        family.sample(labels, 1.0)?;
        Ok(())
    }
}

/// Resident memory of this process, where the system tells it the Linux way.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
