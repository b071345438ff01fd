//! The engine under test: the real binary as a process, in a folder of its own, seen through its HTTP interface and `/proc`.
//!
//! Limits: 60 s to become ready and to stop, 30 s an HTTP request.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{During, Failure, Result, failure};

pub const PARTITIONS: u16 = 6;
const READY_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(60);

/// What the engine reads from.
#[derive(Clone, Debug)]
pub enum BusChoice {
    Kafka { brokers: String },
    Embedded,
}

/// A data directory with its configuration.
pub struct Site {
    folder: tempfile::TempDir,
    binary: PathBuf,
    address: SocketAddr,
}

impl Site {
    /// `topics` begins the names of all topics and of the consumer group. `budgets` is TOML.
    pub fn new(binary: &Path, bus: &BusChoice, topics: &str, budgets: &str) -> Result<Site> {
        let folder = tempfile::Builder::new().prefix("costhelm-e2e-").tempdir().during("a temporary folder")?;
        let listener = TcpListener::bind("127.0.0.1:0").during("a free port")?;
        let address = listener.local_addr().during("a free port")?;
        let (kind, brokers) = match bus {
            BusChoice::Kafka { brokers } => ("kafka", brokers.as_str()),
            BusChoice::Embedded => ("embedded", "127.0.0.1:9092"),
        };
        let mut config = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            config,
            "data_dir = {:?}\n\n[bus]\nkind = \"{kind}\"\n\n[bus.kafka]\nbrokers = \"{brokers}\"\ngroup_id = \"{topics}\"\n\n\
             [bus.embedded]\npartitions = {PARTITIONS}\n\n[topics]\n",
            folder.path().join("data"),
        );
        for topic in OUT_TOPICS.iter().chain(&["events"]) {
            let _ = writeln!(config, "{topic} = \"{topics}.{topic}\"");
        }
        let _ = write!(config, "\n[http]\nlisten = \"{address}\"\n\n{budgets}");
        fs::write(folder.path().join("costhelm.toml"), config).during("the configuration")?;
        Ok(Site { folder, binary: binary.to_owned(), address })
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.args([subcommand, "--config"]).arg(self.folder.path().join("costhelm.toml"));
        // What happens to be set around us must not change what is measured.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("COSTHELM_")) {
            command.env_remove(name);
        }
        command
    }

    pub fn start(&self) -> Result<Engine> {
        let log = self.folder.path().join("engine.log");
        let file = File::create(&log).during(log.display())?;
        let started = Instant::now();
        let child = self
            .command("run")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .during(format!("cannot start {}", self.binary.display()))?;
        let mut engine = Engine { child, http: http(), address: self.address, log, started };
        loop {
            if engine.get("/healthz").is_ok() {
                return Ok(engine);
            }
            engine.check()?;
            if started.elapsed() > READY_MAX {
                return failure(format!("the engine does not answer after {READY_MAX:?}:\n{}", engine.log_tail()));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Proves the ledger; the report, once it holds, and how long the proof took.
    pub fn audit(&self) -> Result<(serde_json::Value, Duration)> {
        let started = Instant::now();
        let output = self.command("audit").arg("--json").output().during("costhelm audit")?;
        let report = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return failure(format!("the audit does not hold: {report}{}", String::from_utf8_lossy(&output.stderr)));
        }
        Ok((serde_json::from_str(&report).during("the audit's report")?, started.elapsed()))
    }
}

/// Topics that the engine writes, as the configuration and the end of their names call them.
pub const OUT_TOPICS: [&str; 3] = ["alerts", "throttle", "quarantine"];

/// An HTTP client of one connection.
pub fn http() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into()
}

/// Samples of `/metrics` by name with labels, as they are written there.
pub struct Metrics(HashMap<String, f64>);

impl Metrics {
    pub fn get(&self, name: &str) -> Result<f64> {
        self.0.get(name).copied().ok_or_else(|| Failure(format!("/metrics has no `{name}`")))
    }

    /// For counters of things.
    pub fn count(&self, name: &str) -> Result<u64> {
        Ok(self.get(name)? as u64)
    }
}

/// A running engine; killed when dropped.
pub struct Engine {
    child: Child,
    http: ureq::Agent,
    pub address: SocketAddr,
    log: PathBuf,
    pub started: Instant,
}

impl Engine {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn get(&self, path: &str) -> Result<String> {
        let mut response = self.http.get(format!("http://{}{path}", self.address)).call().during(path)?;
        let text = response.body_mut().with_config().limit(256 << 20).read_to_string().during(path)?;
        if !response.status().is_success() {
            return failure(format!("{path} answered {}: {text}", response.status()));
        }
        Ok(text)
    }

    pub fn metrics(&self) -> Result<Metrics> {
        let text = self.get("/metrics")?;
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(Metrics(samples.collect()))
    }

    pub fn committed_events(&self) -> Result<u64> {
        self.metrics()?.count("costhelm_consumed_events_total")
    }

    /// Fails when the process has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait().during("the engine's process")? {
            None => Ok(()),
            Some(status) => failure(format!("the engine ended with {status}:\n{}", self.log_tail())),
        }
    }

    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// SIGTERM, and how long the drain took.
    pub fn stop(mut self) -> Result<Duration> {
        let started = Instant::now();
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &pid]).status().during("kill")?;
        if !sent.success() {
            return failure(format!("kill -s TERM {pid}: {sent}"));
        }
        loop {
            if let Some(status) = self.child.try_wait().during("the engine's process")? {
                return if status.success() {
                    Ok(started.elapsed())
                } else {
                    failure(format!("the engine ended with {status}:\n{}", self.log_tail()))
                };
            }
            if started.elapsed() > STOP_MAX {
                return failure(format!("the engine does not stop within {STOP_MAX:?}:\n{}", self.log_tail()));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
