//! `costhelm price`: one usage, or every event of a file, through the price book. No state, no engine.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use costhelm::{
    clock,
    decode::{Decoded, decode},
    event::{Dim, UsageEvent},
    pricing::{Book, EventTime, Plan, Rated, ServiceTier, Unpriced, Usage, usage_from_json},
};
use serde_json::{Map, Value, json, value::RawValue};

use super::{Failure, Outcome};

#[derive(clap::Args)]
pub struct Args {
    /// Provider, e.g. `anthropic`.
    #[arg(long, required_unless_present = "events")]
    provider: Option<String>,
    /// Model, as the provider names it.
    #[arg(long, required_unless_present = "events")]
    model: Option<String>,
    /// What was used, by meter: '{"input":1200,"cache_read":1000,"output":300}'. `input` contains cached tokens and `output`
    /// reasoning, unless "usage_convention":"exclusive" says otherwise.
    #[arg(long, value_name = "JSON", required_unless_present_any = ["events", "explain"])]
    usage: Option<String>,
    /// When it was used. Default: now.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// standard, batch, flex or priority.
    #[arg(long, value_name = "TIER", default_value = "standard")]
    service_tier: String,
    /// Price with this book instead of the built-in one. May be given more than once; later ones win.
    #[arg(long, value_name = "FILE")]
    book: Vec<PathBuf>,
    /// Lay the books over the built-in one.
    #[arg(long, requires = "book")]
    builtin: bool,
    /// Price every usage event of a file, one JSON value a line; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["provider", "model", "usage", "at", "explain"])]
    events: Option<PathBuf>,
    /// Say why the model matched, or why not.
    #[arg(long)]
    explain: bool,
    /// Print JSON; with --events one line an event.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Outcome {
    let book = book(&args)?;
    match &args.events {
        Some(path) => price_events(&book, path, args.json),
        None => price_one(&book, &args),
    }
}

fn book(args: &Args) -> Result<Book, Failure> {
    let mut book = if args.book.is_empty() || args.builtin { Some(Book::builtin()?) } else { None };
    for path in &args.book {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
        let over = Book::from_toml(&text, &name).map_err(|error| Failure::usage(error.to_string()))?;
        book = Some(match book {
            Some(book) => book.overlay(over),
            None => over,
        });
    }
    book.ok_or_else(|| Failure::usage("no price book"))
}

/// What pricing gave, ready to print.
enum Priced<'p> {
    Cost { rated: Rated, model: &'p str, unit_prices: &'p str },
    Unpriced { code: &'static str, detail: String },
}

impl<'p> Priced<'p> {
    fn of(plan: &'p Result<Arc<Plan>, Unpriced>, rate: impl FnOnce(&'p Plan) -> Result<Rated, Unpriced>) -> Priced<'p> {
        let rated = plan.as_ref().map_err(Clone::clone).and_then(|plan| Ok((plan, rate(plan)?)));
        match rated {
            Ok((plan, rated)) => {
                Priced::Cost { rated, model: plan.model(), unit_prices: plan.unit_prices(&rated.rates) }
            }
            Err(unpriced) => Priced::Unpriced { code: unpriced.code(), detail: unpriced.to_string() },
        }
    }
}

fn price_one(book: &Book, args: &Args) -> Outcome {
    // clap has seen to it that both are there.
    let (provider, model) = (args.provider.as_deref().unwrap_or_default(), args.model.as_deref().unwrap_or_default());
    if args.explain {
        println!("{}", book.explain(provider, model));
    }
    let Some(usage) = &args.usage else {
        return Ok(ExitCode::SUCCESS);
    };
    let reported = usage_from_json(usage).map_err(|error| Failure::usage(format!("--usage: {error}")))?;
    let usage = reported.normalize().map_err(|error| Failure::usage(format!("--usage: {error}")))?;
    let at = match &args.at {
        Some(text) => EventTime::parse(text).map_err(|error| Failure::usage(format!("--at: {error}")))?,
        None => clock::now(),
    };
    let tier = ServiceTier::from_name(&args.service_tier).ok_or_else(|| {
        Failure::usage(format!("--service-tier is {:?}; expected standard, batch, flex or priority", args.service_tier))
    })?;
    let plan = book.plan(provider, model);
    let priced = Priced::of(&plan, |plan| plan.rate(&usage, at, tier));
    let status = if matches!(priced, Priced::Cost { .. }) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if args.json {
        let mut line = Map::new();
        line.insert("provider".into(), json!(provider));
        line.insert("model".into(), json!(model));
        line.insert("at".into(), json!(at.to_string()));
        fill(&mut line, &priced, &usage, book)?;
        println!("{}", Value::Object(line));
        return Ok(status);
    }
    match &priced {
        Priced::Cost { rated, model, unit_prices } => {
            println!("{} USD", rated.cost);
            println!("  model  {model}   at {at}   price book {}", book.revision());
            let prices: Map<String, Value> = serde_json::from_str(unit_prices)?;
            for (meter, count) in usage.iter() {
                match prices.get(meter.name()).and_then(Value::as_str) {
                    Some(price) => println!("  {:<16} {count:>12} x {price} USD", meter.name()),
                    None => println!("  {:<16} {count:>12}   not charged", meter.name()),
                }
            }
        }
        Priced::Unpriced { detail, .. } => return Err(Failure::new(format!("unpriced: {detail}"))),
    }
    Ok(status)
}

/// Status, cost, meters and unit prices of one line.
fn fill(line: &mut Map<String, Value>, priced: &Priced<'_>, usage: &Usage, book: &Book) -> Result<(), Failure> {
    let meters: Map<String, Value> =
        usage.iter().map(|(meter, count)| (meter.name().to_owned(), count.into())).collect();
    match priced {
        Priced::Cost { rated, model, unit_prices } => {
            line.insert("status".into(), json!("priced"));
            line.insert("cost_usd".into(), json!(rated.cost));
            line.insert("price_model".into(), json!(model));
            line.insert("unit_prices".into(), serde_json::from_str(unit_prices)?);
        }
        Priced::Unpriced { code, detail } => {
            line.insert("status".into(), json!("unpriced"));
            line.insert("cost_usd".into(), Value::Null);
            line.insert("unpriced_reason".into(), json!(code));
            line.insert("detail".into(), json!(detail));
            line.insert("unit_prices".into(), json!({}));
        }
    }
    line.insert("meters".into(), Value::Object(meters));
    line.insert("price_revision".into(), json!(book.revision()));
    Ok(())
}

fn price_events(book: &Book, path: &PathBuf, as_json: bool) -> Outcome {
    let reader: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        Box::new(BufReader::new(file))
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut problem = None;
    for line in reader.split(b'\n') {
        let line = line?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        decode(&line, None, |Decoded { raw, event, .. }| {
            let printed = match event {
                Ok(event) => print_event(&mut out, book, &event, as_json),
                Err(rejection) => print_rejected(&mut out, raw, &rejection.message, rejection.code.name(), as_json),
            };
            if let Err(failure) = printed {
                problem = Some(failure);
            }
        });
        if let Some(failure) = problem {
            return Err(failure);
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn print_event(out: &mut impl Write, book: &Book, event: &UsageEvent<'_>, as_json: bool) -> Result<(), Failure> {
    let plan = book.plan(&event.dims[Dim::ModelProvider as usize], &event.dims[Dim::ModelName as usize]);
    let rate = |plan: &Plan| plan.rate_in(&event.usage, event.time, event.service_tier, event.region.as_deref());
    let priced = match event.unpriceable {
        Some(code) => Priced::Unpriced { code, detail: "`provider_usage` cannot be read".to_owned() },
        None => Priced::of(&plan, rate),
    };
    if as_json {
        let mut line = Map::new();
        line.insert("event_id".into(), json!(event.event_id));
        fill(&mut line, &priced, &event.usage, book)?;
        if let Some(reported) = event.reported_cost {
            line.insert("reported_cost_usd".into(), json!(reported));
        }
        writeln!(out, "{}", Value::Object(line))?;
    } else {
        match &priced {
            Priced::Cost { rated, model, .. } => writeln!(out, "{}\t{} USD\t{model}", event.event_id, rated.cost)?,
            Priced::Unpriced { detail, .. } => writeln!(out, "{}\tunpriced\t{detail}", event.event_id)?,
        }
    }
    Ok(())
}

fn print_rejected(out: &mut impl Write, raw: &[u8], message: &str, code: &str, as_json: bool) -> Result<(), Failure> {
    /// The id of an event that cannot be used, where it can be made out.
    #[derive(serde::Deserialize)]
    struct OnlyId<'a> {
        #[serde(borrow)]
        event_id: Option<&'a RawValue>,
    }
    let id = serde_json::from_slice::<OnlyId>(raw)
        .ok()
        .and_then(|only| serde_json::from_str::<String>(only.event_id?.get()).ok());
    if as_json {
        let line = json!({
            "event_id": id, "status": "quarantined", "cost_usd": null, "reason": code, "detail": message,
            "meters": {}, "unit_prices": {},
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "{}\tquarantined\t{message}", id.as_deref().unwrap_or("?"))?;
    }
    Ok(())
}
