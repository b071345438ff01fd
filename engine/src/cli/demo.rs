//! `costhelm demo`: the whole engine on embedded defaults, and a swarm that spends its budget and obeys.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use costhelm::{
    Engine,
    budget::{Level, ScopeOf, Utilization, standing},
    bus::NewRecord,
    clock,
    config::{Config, load},
    event::Dim,
    ledger::audit::audit,
    pricing::Money,
    serve::http::Server,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Failure, Outcome, block_on,
    run::wait_for_signal,
    swarm::{Caller, ENVIRONMENT, ORG, PROJECT, SWARM, obey},
};

#[derive(clap::Args)]
pub struct Args {
    /// How long the swarm runs; Ctrl-C ends it earlier.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    seconds: u64,
    /// Folder for the demo's data and its configuration. What an earlier demo left there is replaced.
    #[arg(long, value_name = "DIR", default_value = "costhelm-demo")]
    dir: PathBuf,
}

/// Marks a folder as the demo's own, to be replaced by the next.
const MARKER: &str = ".costhelm-demo";

pub fn run(args: Args) -> Outcome {
    let config_file = prepare(&args)?;
    let mut config = load::load(&config_file)
        .map_err(|errors| Failure::new(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    if std::net::TcpListener::bind(config.http.listen).is_err() {
        config.http.listen.set_port(0);
    }
    block_on(demo(config, config_file, Duration::from_secs(args.seconds)))?
}

/// Makes the folder and the configuration, which the user can go on with.
fn prepare(args: &Args) -> Result<PathBuf, Failure> {
    let failed = |path: &Path, error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    if args.dir.exists() {
        if !args.dir.join(MARKER).exists() {
            let message =
                format!("{} exists and is not from an earlier demo; name another with --dir", args.dir.display());
            return Err(Failure::usage(message));
        }
        std::fs::remove_dir_all(&args.dir).map_err(|error| failed(&args.dir, error))?;
    }
    std::fs::create_dir_all(&args.dir).map_err(|error| failed(&args.dir, error))?;
    std::fs::write(args.dir.join(MARKER), "").map_err(|error| failed(&args.dir, error))?;
    // A budget that the swarm reaches after about three fifths of the time.
    let cents_per_s = 165;
    let cents = cents_per_s * args.seconds * 3 / 5;
    let text = format!(
        "# Made by `costhelm demo`.\n\
         data_dir = {data_dir:?}\n\n\
         [[budget]]\n\
         id = \"platform-today\"\n\
         description = \"What the platform's agents may spend in a day\"\n\
         amount_usd = \"{dollars}.{cents:02}\"\n\
         period = \"daily\"\n\n\
         [budget.scope]\n\
         environment = \"{ENVIRONMENT}\"\n\
         project_id = \"{PROJECT}\"\n\n\
         [budget.throttle]\n\
         concurrency_factor = \"0.5\"\n\
         disable_noncritical = true\n\
         queue_tasks = true\n\
         model_substitutions = {{ \"gpt-4o\" = \"gpt-4o-mini\", \"claude-sonnet-4-20250514\" = \"claude-3-5-haiku-20241022\" }}\n",
        data_dir = args.dir.join("data").display().to_string(),
        dollars = cents / 100,
        cents = cents % 100,
    );
    let path = args.dir.join("costhelm.toml");
    std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
    Ok(path)
}

/// What the swarm has done so far.
#[derive(Default)]
struct Sent {
    records: AtomicU64,
    refused: AtomicU64,
}

async fn demo(config: Config, config_file: PathBuf, length: Duration) -> Outcome {
    let engine = Engine::start(config).await?;
    let server = match Server::start(engine.clone()).await {
        Ok(server) => server,
        Err(error) => {
            engine.stop().await;
            return Err(Failure::new(format!("HTTP: {error}")));
        }
    };
    introduce(&engine, server.address);
    let sent = Arc::new(Sent::default());
    let stop = CancellationToken::new();
    let mut agents = Vec::new();
    for seed in 0..SWARM.len() {
        agents.push(tokio::spawn(live(engine.clone(), seed, sent.clone(), stop.clone())));
    }
    watch(&engine, &sent, length).await?;
    stop.cancel();
    for agent in agents {
        // An agent that panicked has said so on stderr; the ledger of the others is still worth the audit.
        let _ = agent.await;
    }
    println!("\nThe swarm has stopped; draining…");
    engine.caught_up(Duration::from_secs(20)).await;
    by_agent(&engine);
    server.stop().await;
    engine.stop().await;
    let report = audit(&engine.config().data_dir, engine.store(), &engine.config().budgets).await?;
    super::audit::print(&report);
    let config_file = config_file.display();
    println!(
        "\nLook further:\n  \
         Parquet   {data}/ledger/staged/*.parquet\n  \
         SQL       costhelm query --config {config_file} \"SELECT agent_role, model_name, sum(cost_usd) AS cost, count(*) AS calls \
         FROM ledger GROUP BY 1, 2 ORDER BY cost DESC\"\n  \
         alerts    costhelm query --config {config_file} \"SELECT raised_at, severity, message FROM alerts\"\n  \
         audit     costhelm audit --config {config_file}\n  \
         go on     costhelm run --config {config_file}\n\
         (from a checkout, `cargo run --no-default-features --` stands for `costhelm`)",
        data = engine.config().data_dir.display(),
    );
    Ok(if report.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn introduce(engine: &Engine, address: SocketAddr) {
    println!("Costhelm {}: {} agents, one budget, embedded bus, no broker\n", env!("CARGO_PKG_VERSION"), SWARM.len());
    println!("  metrics    curl -s http://{address}/metrics");
    println!("  throttle   curl -s 'http://{address}/v1/throttle?environment={ENVIRONMENT}&project_id={PROJECT}'");
    println!("  costs      curl -s 'http://{address}/v1/costs?by=agent_role&window=1h'");
    println!("  data       {}\n", engine.config().data_dir.display());
}

/// One agent's life: ask what to obey, call a model, report it.
async fn live(engine: Engine, index: usize, sent: Arc<Sent>, stop: CancellationToken) {
    let agent = &SWARM[index];
    let mut caller = Caller::new(index as u64);
    let scope = ScopeOf {
        environment: ENVIRONMENT,
        org_id: ORG,
        business_unit_id: agent.business_unit,
        team_id: agent.team,
        project_id: PROJECT,
        agent_role: agent.role,
    };
    loop {
        let throttle = engine.throttle(&scope).filter(|throttle| throttle.level > Level::None);
        let (pause, model) = match obey(agent, throttle.as_ref()) {
            Some(orders) => (caller.pause_s(orders.rate), Some(orders.model.to_owned())),
            None => (0.5, None),
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs_f64(pause)) => {}
        }
        let Some(model) = model else { continue };
        let records: Vec<NewRecord> = caller
            .call(agent, &model, clock::now())
            .into_iter()
            .map(|value| NewRecord {
                topic: engine.config().topics.events.clone(),
                key: Some(agent.role.as_bytes().to_vec()),
                value: Some(value),
                headers: Vec::new(),
            })
            .collect();
        sent.records.fetch_add(records.len() as u64, Ordering::Relaxed);
        let refused = engine.append(records).await.iter().filter(|result| result.is_err()).count();
        sent.refused.fetch_add(refused as u64, Ordering::Relaxed);
    }
}

/// Prints how spend goes until the time is over or somebody wants it to end.
async fn watch(engine: &Engine, sent: &Sent, length: Duration) -> Result<(), Failure> {
    let live = std::io::stdout().is_terminal();
    let started = Instant::now();
    let (mut last, mut last_at, mut level) = (Money::ZERO, started, Level::None);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    let signal = wait_for_signal();
    tokio::pin!(signal);
    loop {
        tokio::select! {
            signal = &mut signal => {
                println!("\n{}", signal?);
                return Ok(());
            }
            _ = ticks.tick() => {}
        }
        let Some(status) = engine.budgets().into_iter().next() else {
            return Ok(());
        };
        let elapsed = last_at.elapsed();
        let rate = per_second(status.spent, last, elapsed);
        (last, last_at) = (status.spent, Instant::now());
        let at = standing(&status.budget, status.spent);
        if at.level > level {
            level = at.level;
            announce(&status.budget.id.0, level, live);
        }
        let line = format!(
            "{:>4} s   {:>7} records   spent {:>9} of {} USD  {:>6} %  {rate:>8} USD/s  {}",
            started.elapsed().as_secs(),
            sent.records.load(Ordering::Relaxed),
            cents(status.spent),
            status.budget.amount,
            Utilization::of(status.spent, status.budget.amount).percent(),
            match at.throttle {
                Level::None => "running freely",
                _ => "throttled",
            },
        );
        if live {
            print!("\r\x1b[2K{line}");
            std::io::stdout().flush()?;
        } else {
            println!("{line}");
        }
        if started.elapsed() >= length {
            if live {
                println!();
            }
            return Ok(());
        }
    }
}

fn announce(budget: &str, level: Level, live: bool) {
    let newline = if live { "\n" } else { "" };
    match level {
        Level::None => {}
        Level::Warning => println!("{newline}  75 % of {budget}: warning sent"),
        Level::Critical => println!(
            "{newline}  95 % of {budget}: critical alert and throttle sent; agents run at half, on cheaper models, the non-critical stop"
        ),
    }
}

/// To whole cents, for the display.
fn cents(money: Money) -> String {
    const ATTO_PER_CENT: i128 = 10_000_000_000_000_000;
    let cents = money.atto() / ATTO_PER_CENT;
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn per_second(now: Money, before: Money, elapsed: Duration) -> String {
    let micros = i128::try_from(elapsed.as_micros()).unwrap_or(1).max(1);
    let atto = (now.atto() - before.atto()).saturating_mul(1_000_000) / micros;
    cents(Money::from_atto(atto))
}

fn by_agent(engine: &Engine) {
    use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
    let costs = engine.costs(Dim::AgentRole, Duration::from_secs(3600), &[]);
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["agent", "calls", "tokens in", "tokens out", "cost USD"]);
    for index in 1..=4 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for (agent, sums) in costs.rows.iter().map(|(agent, sums)| (agent.as_str(), sums)).chain([("total", &costs.total)])
    {
        table.add_row([
            agent.to_owned(),
            sums.events.to_string(),
            sums.usage.input_tokens_total().to_string(),
            sums.usage.output_tokens_total().to_string(),
            sums.cost.to_string(),
        ]);
    }
    println!("{table}");
}
