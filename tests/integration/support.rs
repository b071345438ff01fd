//! What the tests share: a process of the real binary in a folder of its own, HTTP, SQL, events.

use std::{
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Longest wait for anything; generous, since it is only reached when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(40);

pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_costhelm"));
    command.env_remove("COSTHELM_CONFIG").env_remove("COSTHELM_LOG");
    command
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What `tests/run` has prepared, by the name of its variable.
pub fn prepared(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set; run the tests with tests/run"))
}

/// Waits until `ready` gives something.
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A data directory with its configuration.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
}

impl Site {
    /// `config` is TOML that stands before the tables.
    pub fn new(tables: &str) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let text = format!("data_dir = {:?}\n\n[http]\nlisten = \"{address}\"\n\n{tables}", dir.path().join("data"));
        std::fs::write(dir.path().join("costhelm.toml"), text).unwrap();
        Site { dir, address }
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("costhelm.toml")
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn run(&self) -> Running {
        self.run_with(&[])
    }

    pub fn run_with(&self, env: &[(&str, &str)]) -> Running {
        let mut command = binary();
        command.args(["run", "--config"]).arg(self.config()).envs(env.iter().copied());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (kept, stderr) = (log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Running { child, log, address: self.address }
    }

    /// Starts and waits until it answers.
    pub fn up(&self) -> Running {
        let mut running = self.run();
        running.wait_until_up();
        running
    }

    pub fn output(&self, args: &[&str]) -> Output {
        binary().arg(args[0]).arg("--config").arg(self.config()).args(&args[1..]).output().unwrap()
    }

    pub fn query(&self, sql: &str) -> Vec<Value> {
        let output = self.output(&["query", "--format", "json", sql]);
        assert!(output.status.success(), "{sql}\n{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The audit's report; it must hold.
    pub fn audit(&self) -> Value {
        let output = self.output(&["audit", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        assert!(output.status.success(), "{report:#}");
        report
    }

    /// The checks that fail, with their details.
    pub fn failing_checks(&self) -> Vec<(String, String)> {
        let output = self.output(&["audit", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let failing: Vec<_> = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|check| check["holds"] == json!(false))
            .map(|check| (check["name"].as_str().unwrap().to_owned(), check["detail"].as_str().unwrap().to_owned()))
            .collect();
        assert_eq!(output.status.code(), Some(if failing.is_empty() { 0 } else { 1 }));
        failing
    }

    pub fn ledger_rows(&self) -> u64 {
        self.query("SELECT count(*) AS n FROM ledger")[0]["n"].as_u64().unwrap()
    }
}

/// A running engine; killed when dropped.
pub struct Running {
    pub child: Child,
    log: Arc<Mutex<String>>,
    address: SocketAddr,
}

impl Running {
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn wait_until_up(&mut self) {
        wait_for("the engine to answer", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the engine ended with {status}:\n{}", self.log());
            }
            (try_get(&self.url("/healthz"))?.0 == 200).then_some(())
        });
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = try_get(&self.url(path)).expect("the engine answers");
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    pub fn post(&self, content_type: &str, body: &str) -> (u16, Value) {
        self.post_with(&[("content-type", content_type)], body.as_bytes())
    }

    pub fn post_with(&self, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
        let mut request = agent().post(self.url("/v1/events"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.send(body).expect("the engine answers");
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Waits until this many events have been committed by this process.
    pub fn wait_for_events(&self, events: u64) {
        wait_for(&format!("{events} committed events"), || {
            (self.metric("costhelm_consumed_events_total")? >= events as f64).then_some(())
        });
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = try_get(&self.url("/metrics"))?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// SIGTERM, and the end it should bring.
    pub fn stop(mut self) {
        send_signal(&self.child, "TERM");
        let status = wait_for("the engine to end", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn send_signal(child: &Child, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into()
}

pub fn try_get(url: &str) -> Option<(u16, String)> {
    let mut response = agent().get(url).call().ok()?;
    let mut text = String::new();
    response.body_mut().as_reader().read_to_string(&mut text).ok()?;
    Some((response.status().as_u16(), text))
}

/// An event in the emitters' shape; what matters to a test is replaced by `with`.
pub fn event(id: &str, with: Value) -> Value {
    let mut event = json!({
        "event_id": id,
        "timestamp": "2026-11-20T10:00:00.000001",
        "environment": "dev",
        "org_id": "ravenhelm",
        "business_unit_id": null,
        "project_id": "ravenhelm-platform",
        "agent_role": "worker",
        "agent_task_id": "task-1",
        "parent_agent_id": null,
        "model_provider": "openai",
        "model_name": "gpt-4o-mini",
        "tokens_input": 1000,
        "tokens_output": 100,
        "tokens_total": 1100,
        "cost_usd": "0.0",
        "cost_calculation": "estimated",
        "trace_id": "trace-1",
        "mcp_overhead_ms": null,
        "mcp_target_agent": null,
    });
    for (key, value) in with.as_object().unwrap() {
        event[key] = value.clone();
    }
    event
}

/// Now, as Python's `utcnow()` writes it.
pub fn python_now() -> String {
    costhelm::clock::now().to_string().trim_end_matches('Z').to_owned()
}
