//! The demo's agents: an expensive orchestrator, a dozen workers, and the mistakes real emitters make.
//!
//! Each agent calls models one after the other, reports each call as an event in the emitters' own shape, and obeys: under a
//! throttle it runs fewer calls at a time, uses the cheaper model it is told, queues its tasks, and stops if it is not critical.

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use costhelm::{budget::EffectiveThrottle, pricing::EventTime};

pub const ENVIRONMENT: &str = "demo";
pub const ORG: &str = "ravenhelm";
pub const PROJECT: &str = "ravenhelm-platform";

/// A member of the swarm.
pub struct Agent {
    pub role: &'static str,
    pub business_unit: &'static str,
    pub team: &'static str,
    pub provider: &'static str,
    pub model: &'static str,
    pub critical: bool,
    /// Calls a second while nothing restricts it.
    pub calls_per_s: f64,
    /// Typical tokens: input, share of it from the cache in percent, output.
    tokens: (u64, u64, u64),
}

const fn agent(
    role: &'static str,
    (business_unit, team): (&'static str, &'static str),
    (provider, model): (&'static str, &'static str),
    critical: bool,
    calls_per_s: f64,
    tokens: (u64, u64, u64),
) -> Agent {
    Agent { role, business_unit, team, provider, model, critical, calls_per_s, tokens }
}

const PLATFORM: (&str, &str) = ("engineering", "platform");
const SECURITY: (&str, &str) = ("engineering", "security");
const SUPPORT: (&str, &str) = ("operations", "support");
const SONNET: (&str, &str) = ("anthropic", "claude-sonnet-4-20250514");
const HAIKU: (&str, &str) = ("anthropic", "claude-3-5-haiku-20241022");
const GPT_4O: (&str, &str) = ("openai", "gpt-4o");
const GPT_4O_MINI: (&str, &str) = ("openai", "gpt-4o-mini");
const LLAMA_8B: (&str, &str) = ("ollama", "llama3.1:latest");
const LLAMA_70B: (&str, &str) = ("ollama", "llama3.1:70b");

pub const SWARM: [Agent; 13] = [
    agent("orchestrator", PLATFORM, SONNET, true, 6.0, (24_000, 70, 1_800)),
    agent("planner", PLATFORM, GPT_4O, true, 5.0, (9_000, 50, 900)),
    agent("code_reviewer", PLATFORM, GPT_4O, true, 5.0, (12_000, 40, 700)),
    agent("researcher", SUPPORT, GPT_4O, false, 4.0, (15_000, 20, 1_200)),
    agent("summarizer", SUPPORT, GPT_4O_MINI, false, 8.0, (6_000, 0, 500)),
    agent("classifier", SUPPORT, HAIKU, true, 8.0, (1_500, 60, 60)),
    agent("triage", SUPPORT, HAIKU, true, 6.0, (2_500, 60, 200)),
    agent("cert_agent", SECURITY, LLAMA_8B, true, 10.0, (1_200, 0, 250)),
    agent("proxy_agent", SECURITY, LLAMA_8B, true, 10.0, (900, 0, 180)),
    agent("scanner", SECURITY, LLAMA_70B, true, 6.0, (4_000, 0, 400)),
    agent("log_watcher", SECURITY, LLAMA_8B, false, 12.0, (2_000, 0, 80)),
    agent("doc_writer", PLATFORM, GPT_4O_MINI, false, 6.0, (5_000, 30, 1_500)),
    agent("test_writer", PLATFORM, HAIKU, true, 6.0, (7_000, 50, 1_100)),
];

/// What an agent does under a throttle.
pub struct Orders<'t> {
    pub rate: f64,
    pub model: &'t str,
}

/// `None`: the agent stops.
pub fn obey<'t>(agent: &'t Agent, throttle: Option<&'t EffectiveThrottle>) -> Option<Orders<'t>> {
    let Some(throttle) = throttle else {
        return Some(Orders { rate: agent.calls_per_s, model: agent.model });
    };
    if throttle.disable_noncritical && !agent.critical {
        return None;
    }
    let factor = f64::from(throttle.concurrency_factor.thousandths()) / 1_000.0;
    // Queued tasks wait: the agent finishes what it has and takes up new work at half the pace.
    let queueing = if throttle.queue_tasks { 0.5 } else { 1.0 };
    Some(Orders { rate: agent.calls_per_s * factor * queueing, model: throttle.model_for(agent.model) })
}

/// One agent's calls, the same for the same seed but for the times.
pub struct Caller {
    random: StdRng,
    calls: u64,
    last: Option<Value>,
}

impl Caller {
    pub fn new(seed: u64) -> Caller {
        Caller { random: StdRng::seed_from_u64(seed), calls: 0, last: None }
    }

    /// Seconds until the next call at a rate: Poisson arrivals.
    pub fn pause_s(&mut self, rate: f64) -> f64 {
        let uniform: f64 = self.random.random_range(f64::EPSILON..1.0);
        (-uniform.ln() / rate).min(5.0)
    }

    /// What this call puts on the bus: mostly one event, sometimes a repeat, a late one or one that is broken.
    pub fn call(&mut self, agent: &Agent, model: &str, now: EventTime) -> Vec<Vec<u8>> {
        self.calls += 1;
        let event = self.event(agent, model, now);
        let mut records = vec![event.to_string().into_bytes()];
        match self.random.random_range(0..200) {
            // The network failed after the event had arrived: the client sends it again.
            0..4 => records.extend(self.last.replace(event).map(|event| event.to_string().into_bytes())),
            // Cut off in the middle.
            4 => records.push(records[0][..records[0].len() / 2].to_vec()),
            // A sender that counts wrong.
            5 => {
                let mut broken = event;
                broken["event_id"] = json!(self.id());
                broken["tokens_input"] = json!(-1);
                records.push(broken.to_string().into_bytes());
            }
            _ => self.last = Some(event),
        }
        records
    }

    fn id(&mut self) -> String {
        let mut bytes = [0; 16];
        self.random.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    fn event(&mut self, agent: &Agent, model: &str, now: EventTime) -> Value {
        let (input, cached_percent, output) = agent.tokens;
        let spread = |random: &mut StdRng, typical: u64| typical * random.random_range(40..220) / 100;
        let input = spread(&mut self.random, input).max(1);
        let output = spread(&mut self.random, output).max(1);
        let cached = input * cached_percent / 100;
        // Most events are reported at once; a few come from a buffer that was flushed late.
        let age_ms = if self.random.random_range(0..100) == 0 { 420_000 } else { self.random.random_range(0..400) };
        let time = EventTime(now.0 - age_ms * 1_000);
        let local = agent.provider == "ollama";
        let mut event = json!({
            "event_id": self.id(),
            // As Python's datetime.utcnow() writes it: no offset.
            "timestamp": time.to_string().trim_end_matches('Z'),
            "environment": ENVIRONMENT,
            "org_id": ORG,
            "business_unit_id": agent.business_unit,
            "team_id": agent.team,
            "project_id": PROJECT,
            "agent_role": agent.role,
            "agent_task_id": format!("{}-{}", agent.role, self.calls / 8),
            "parent_agent_id": if agent.role == "orchestrator" { Value::Null } else { json!("orchestrator") },
            "model_provider": agent.provider,
            "model_name": model,
            "tokens_input": input,
            "tokens_output": output,
            "tokens_total": input + output,
            "cost_usd": if local { json!("0.0") } else { Value::Null },
            "cost_calculation": "estimated",
            "duration_ms": 200 + output * 12,
            "trace_id": self.id(),
        });
        if cached > 0 {
            event["usage"] = json!({"cache_read": cached});
        }
        if agent.role == "planner" {
            event["mcp_overhead_ms"] = json!(self.random.random_range(5..60));
            event["mcp_target_agent"] = json!("code_reviewer");
        }
        event
    }
}
