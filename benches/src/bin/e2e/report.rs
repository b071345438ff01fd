//! The figures, as a plain table for a person and as JSON for a program.

use serde_json::{Value, json};

use crate::ceilings::{Ceilings, Rate};
use crate::latency::{Latency, Quantiles};
use crate::machine;
use crate::throughput::Throughput;

/// Threads that are named; the rest is one line.
const THREADS_SHOWN: usize = 6;

/// What was measured on one bus.
pub struct BusReport {
    pub name: &'static str,
    pub throughput: Throughput,
    pub latency: Option<Latency>,
}

fn heading(text: &str) {
    println!("\n{text}");
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("  {name:<44} {value}");
}

/// A whole number with separators.
fn count(number: impl Into<f64>) -> String {
    let digits = format!("{:.0}", number.into());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn rate(rate: &Rate) -> String {
    format!("{} events/s, {:.2} µs of processor time an event", count(rate.per_s()), rate.cpu_us())
}

pub fn print_ceilings(ceilings: &Ceilings) {
    heading("One stage alone, on one core, no I/O");
    row("JSON decode only", rate(&ceilings.decode));
    row("fold only (decode, dedup, price, add up, rows)", rate(&ceilings.fold));
    row("Parquet write only (zstd)", rate(&ceilings.parquet));
    row("bytes a row", format!("{:.1}", ceilings.bytes_per_row));
}

pub fn print_bus(report: &BusReport, ceilings: &Ceilings) {
    let BusReport { name, throughput: t, latency } = report;
    heading(&format!(
        "{name}: {} preloaded events of {:.0} bytes, exactly-once on",
        count(t.events as f64),
        t.event_bytes
    ));
    row("events/s, first to last commit", count(t.events_per_s));
    row(
        "  measured over",
        format!("{:.2} s, without the {} events of the first commit", t.first_to_last_s, count(t.first_events as f64)),
    );
    row("events/s, all, from the process's start", count(t.events_per_s_from_start));
    row("process start to ready / to the first commit", format!("{:.2} s / {:.2} s", t.up_s, t.first_commit_s));
    row("peak memory", mebibytes(t.peak_memory_bytes));
    row("processor time", format!("{:.2} s, {:.2} µs an event", t.cpu_s, t.cpu_us()));
    for (thread, cpu_s) in t.threads.iter().take(THREADS_SHOWN) {
        row(&format!("  thread {thread}"), format!("{cpu_s:.2} s, {:.0} %", cpu_s / t.cpu_s * 100.0));
    }
    row(
        "processor time of everybody else meanwhile",
        format!("{:.2} s on {} processors", t.others_cpu_s, machine::processors()),
    );
    row(
        "ledger",
        format!(
            "{} rows, {} in {} files, {:.1} bytes a row",
            count(t.ledger_rows as f64),
            mebibytes(t.ledger_bytes),
            t.ledger_files,
            t.bytes_per_row()
        ),
    );
    row("duplicates / in quarantine", format!("{} / {}", count(t.duplicates as f64), count(t.quarantined as f64)));
    row(
        "commits, mean",
        format!("{}: files {:.1} ms, transaction {:.1} ms", t.commits, t.stage_s * 1e3, t.transaction_s * 1e3),
    );
    row("SIGTERM to exit", format!("{:.2} s", t.drain_s));
    row("audit", format!("holds ({:.2} s); total {} USD", t.audit_s, t.total_cost_usd));
    row("preloading took", format!("{:.1} s", t.preload_s));

    heading(&format!("{name}: compared with the ceilings of this run"));
    row("read only, nothing done with it", rate(&t.consume_only));
    for (what, ceiling) in [
        ("of read only", &t.consume_only),
        ("of JSON decode only, one core", &ceilings.decode),
        ("of fold only, one core", &ceilings.fold),
        ("of Parquet write only, one core", &ceilings.parquet),
    ] {
        row(&format!("events/s {what}"), format!("{:.0} %", t.events_per_s / ceiling.per_s() * 100.0));
    }
    let stages = t.consume_only.cpu_us() + ceilings.fold.cpu_us() + ceilings.parquet.cpu_us();
    row(
        "processor time an event: stages / engine",
        format!("{stages:.2} µs read + fold + Parquet / {:.2} µs", t.cpu_us()),
    );

    let Some(l) = latency else { return };
    heading(&format!("{name}: event to throttle at half load"));
    if let Some(ingest) = l.ingest_per_s {
        row("POST /v1/events alone, to committed", format!("{} events/s", count(ingest)));
    }
    row(
        "load",
        format!(
            "{} events/s of {} wanted, backlog at most {} events{}",
            count(l.sent_per_s),
            count(l.wanted_per_s),
            count(l.backlog_max as f64),
            if l.at_half_load { "" } else { "; NOT at half load: the engine or the load fell behind" }
        ),
    );
    row(&format!("event to throttle, {} crossings", l.to_throttle.count), quantiles(&l.to_throttle));
    if let Some(to_issue) = &l.to_issue {
        row("  of it: event to command issued", quantiles(to_issue));
    }
    row(
        "processor time: engine / everybody else",
        format!("{:.1} s / {:.1} s in {:.1} s", l.engine_cpu_s, l.others_cpu_s, l.wall_s),
    );
    row("audit", format!("holds ({:.2} s)", l.audit_s));
}

fn quantiles(q: &Quantiles) -> String {
    format!("p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms", q.p50, q.p90, q.p99, q.max)
}

fn rate_json(rate: &Rate) -> Value {
    json!({"events_per_s": rate.per_s(), "cpu_us_per_event": rate.cpu_us()})
}

fn quantiles_json(q: &Quantiles) -> Value {
    json!({"count": q.count, "p50_ms": q.p50, "p90_ms": q.p90, "p99_ms": q.p99, "max_ms": q.max})
}

pub fn json(ceilings: &Ceilings, buses: &[BusReport]) -> Value {
    json!({
        "processors": machine::processors(),
        "ceilings": {
            "decode": rate_json(&ceilings.decode),
            "fold": rate_json(&ceilings.fold),
            "parquet": rate_json(&ceilings.parquet),
            "parquet_bytes_per_row": ceilings.bytes_per_row,
        },
        "buses": buses.iter().map(bus_json).collect::<Vec<_>>(),
    })
}

fn bus_json(report: &BusReport) -> Value {
    let t = &report.throughput;
    let threads: Vec<_> = t.threads.iter().map(|(name, cpu_s)| json!({"name": name, "cpu_s": cpu_s})).collect();
    json!({
        "bus": report.name,
        "events": t.events,
        "event_bytes": t.event_bytes,
        "events_per_s": t.events_per_s,
        "first_to_last_commit_s": t.first_to_last_s,
        "events_in_first_commit": t.first_events,
        "events_per_s_from_start": t.events_per_s_from_start,
        "ready_s": t.up_s,
        "first_commit_s": t.first_commit_s,
        "peak_memory_bytes": t.peak_memory_bytes,
        "cpu_s": t.cpu_s,
        "threads": threads,
        "others_cpu_s": t.others_cpu_s,
        "ledger_rows": t.ledger_rows,
        "ledger_files": t.ledger_files,
        "ledger_bytes": t.ledger_bytes,
        "bytes_per_row": t.bytes_per_row(),
        "duplicates": t.duplicates,
        "quarantined": t.quarantined,
        "commits": t.commits,
        "commit_files_mean_s": t.stage_s,
        "commit_transaction_mean_s": t.transaction_s,
        "drain_s": t.drain_s,
        "audit_s": t.audit_s,
        "total_cost_usd": t.total_cost_usd,
        "consume_only": rate_json(&t.consume_only),
        "latency": report.latency.as_ref().map(latency_json),
    })
}

fn latency_json(l: &Latency) -> Value {
    json!({
        "ingest_per_s": l.ingest_per_s,
        "wanted_per_s": l.wanted_per_s,
        "sent_per_s": l.sent_per_s,
        "backlog_max": l.backlog_max,
        "at_half_load": l.at_half_load,
        "event_to_throttle": quantiles_json(&l.to_throttle),
        "event_to_issue": l.to_issue.as_ref().map(quantiles_json),
        "engine_cpu_s": l.engine_cpu_s,
        "others_cpu_s": l.others_cpu_s,
        "wall_s": l.wall_s,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators_between_thousands() {
        assert_eq!([0.0, 999.0, 1_000.4, 1_234_567.0].map(count), ["0", "999", "1,000", "1,234,567"]);
    }
}
