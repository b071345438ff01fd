//! What rating a row costs, warm, on one core: the budget is 200 ns.
//!
//! The rows are real: the usage objects of `fixtures/pricing/`, rated from the imported book and from the built-in
//! catalog. `plan` and `read` are not on that path (callers keep plans by provider and model, and most events carry
//! counts), and are measured for comparison.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use costhelm_pricing::{
    Account, Book, Charge, Contracts, EventTime, Plan, ServiceTier, Usage, normalize_provider_usage,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

struct Row {
    provider: String,
    model: String,
    json: String,
    usage: Usage,
    plan: Arc<Plan>,
}

fn at(text: &str) -> EventTime {
    EventTime::parse(text).unwrap()
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures/pricing")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

/// Every real object that the book can rate at `time`, for the provider it is of.
fn rows(book: &Book, time: EventTime) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in fixture("genai_prices_usages.jsonl").lines() {
        let mut object: serde_json::Value = serde_json::from_str(line).unwrap();
        let expected = object.as_object_mut().unwrap().remove("expected").unwrap();
        let (provider, model) = (
            expected[0][0].as_str().unwrap().to_owned(),
            object["model"].as_str().unwrap().to_owned(),
        );
        let json = object.to_string();
        let Ok(read) = normalize_provider_usage(&provider, &model, &json) else {
            continue;
        };
        let Ok(plan) = book.plan(&provider, &model) else {
            continue;
        };
        if plan.rate(&read.usage, time, ServiceTier::Standard).is_ok() {
            rows.push(Row {
                provider,
                model,
                json,
                usage: read.usage,
                plan,
            });
        }
    }
    rows
}

fn rating(criterion: &mut Criterion) {
    let time = at("2026-11-22T10:00:00Z");
    let imported = Book::from_toml(&fixture("genai_prices_book.toml"), "genai_prices_book.toml").unwrap();
    let builtin = Book::builtin().unwrap();
    let mut group = criterion.benchmark_group("rating");
    for (name, book) in [("imported", &imported), ("builtin", &builtin)] {
        let rows = rows(book, time);
        assert!(rows.len() > 300, "{} rows", rows.len());
        group.throughput(Throughput::Elements(rows.len() as u64));
        group.bench_function(format!("rate/{name}"), |bencher| {
            bencher.iter(|| {
                for row in &rows {
                    black_box(row.plan.rate(black_box(&row.usage), time, ServiceTier::Standard)).ok();
                }
            });
        });
    }
    let deepseek = builtin.plan("deepseek", "deepseek-flash").unwrap();
    let rows = rows(&imported, time);
    group.throughput(Throughput::Elements(1));
    group.bench_function("rate/peak_hours", |bencher| {
        bencher.iter(|| black_box(deepseek.rate(black_box(&rows[0].usage), time, ServiceTier::Standard)).ok());
    });
    let contracts = Contracts::from_toml(
        "[[contract]]\nid = \"a\"\norg_id = \"acme\"\nfrom = \"2026-01-01\"\ndiscount_percent = \"12.5\"\n\
         [[markup]]\nid = \"b\"\nfrom = \"2026-01-01\"\npercent = \"8\"\n",
        "contracts.toml",
    )
    .unwrap();
    let row = &rows[0];
    let account = Account {
        org_id: "acme",
        business_unit_id: None,
        provider: &row.provider,
        model: &row.model,
    };
    let terms = contracts.terms(&account, Some(&row.plan));
    let charge = Charge {
        usage: &row.usage,
        at: time,
        tier: ServiceTier::Standard,
        region: None,
        duration_ms: None,
    };
    group.bench_function("charge/discount_and_markup", |bencher| {
        bencher.iter(|| black_box(terms.charge(black_box(&charge), Ok(&row.plan))).ok());
    });
    group.throughput(Throughput::Elements(rows.len() as u64));
    group.bench_function("plan", |bencher| {
        bencher.iter(|| {
            for row in &rows {
                black_box(imported.plan(black_box(&row.provider), &row.model)).ok();
            }
        });
    });
    group.bench_function("read_provider_usage", |bencher| {
        bencher.iter(|| {
            for row in &rows {
                black_box(normalize_provider_usage(
                    &row.provider,
                    &row.model,
                    black_box(&row.json),
                ))
                .ok();
            }
        });
    });
    group.finish();
}

criterion_group!(benches, rating);
criterion_main!(benches);
