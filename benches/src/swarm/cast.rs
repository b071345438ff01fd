//! Who takes part: models with the prices their users believe in, agents, and the projects they work for.

use super::python::put;
use crate::random::Random;
pub(super) struct Model {
    pub provider: &'static str,
    pub name: &'static str,
    /// What the emitter believes a token costs, in 10⁻⁹ USD; its `cost_usd` is an estimate, not the price list.
    pub input_nano: u64,
    pub output_nano: u64,
}

const SONNET_4: Model =
    Model { provider: "anthropic", name: "claude-sonnet-4-20250514", input_nano: 3_000, output_nano: 15_000 };
const HAIKU_3_5: Model =
    Model { provider: "anthropic", name: "claude-3-5-haiku-20241022", input_nano: 250, output_nano: 1_250 };
const GPT_4O: Model = Model { provider: "openai", name: "gpt-4o", input_nano: 2_500, output_nano: 10_000 };
const GPT_4O_MINI: Model = Model { provider: "openai", name: "gpt-4o-mini", input_nano: 150, output_nano: 600 };
const GEMINI_1_5_PRO: Model =
    Model { provider: "google", name: "gemini-1.5-pro", input_nano: 1_250, output_nano: 5_000 };
const LLAMA_8B: Model = Model { provider: "ollama", name: "llama3.1:latest", input_nano: 0, output_nano: 0 };
const LLAMA_70B: Model = Model { provider: "ollama", name: "llama3.1:70b", input_nano: 0, output_nano: 0 };
pub(super) const UNLISTED: Model =
    Model { provider: "ravenhelm-lab", name: "huginn-experimental", input_nano: 0, output_nano: 0 };

pub(super) const WORKERS: [&str; 12] = [
    "cert_agent",
    "proxy_agent",
    "identity_agent",
    "secrets_agent",
    "database_agent",
    "observability_agent",
    "docker_agent",
    "network_agent",
    "event_bus_agent",
    "risk_agent",
    "docs_agent",
    "test_agent",
];

pub(super) struct Project {
    pub environment: &'static str,
    pub org: &'static str,
    /// Empty where the emitter knows of no business unit: the field is then null.
    pub business_unit: &'static str,
    pub team: &'static str,
    pub id: &'static str,
}

pub(super) const PROJECTS: [Project; 8] = [
    Project { environment: "prod", org: "ravenhelm", business_unit: "platform", team: "sre", id: "ravenhelm-platform" },
    Project { environment: "prod", org: "ravenhelm", business_unit: "platform", team: "identity", id: "zero-trust" },
    Project { environment: "staging", org: "ravenhelm", business_unit: "platform", team: "sre", id: "hlidskjalf" },
    Project { environment: "dev", org: "ravenhelm", business_unit: "", team: "", id: "norns-lab" },
    Project { environment: "prod", org: "ravenhelm", business_unit: "research", team: "memory", id: "muninn-recall" },
    Project { environment: "dev", org: "ravenhelm", business_unit: "research", team: "memory", id: "huginn-scout" },
    Project {
        environment: "prod",
        org: "midgard-retail",
        business_unit: "commerce",
        team: "support",
        id: "helpdesk-copilot",
    },
    Project { environment: "prod", org: "midgard-retail", business_unit: "finance", team: "", id: "invoice-reader" },
];

pub(super) fn pick_model(agent: u64, random: &mut Random) -> &'static Model {
    let dice = random.below(100);
    if agent == 0 {
        return if dice < 85 { &SONNET_4 } else { &GPT_4O };
    }
    match dice {
        0..45 => &LLAMA_8B,
        45..55 => &LLAMA_70B,
        55..70 => &HAIKU_3_5,
        70..85 => &GPT_4O_MINI,
        85..90 => &GPT_4O,
        _ => &GEMINI_1_5_PRO,
    }
}

pub(super) fn write_role(agent: u64, out: &mut Vec<u8>) {
    if agent == 0 {
        out.extend_from_slice(b"orchestrator");
        return;
    }
    let worker = agent - 1;
    let kinds = WORKERS.len() as u64;
    out.extend_from_slice(WORKERS[(worker % kinds) as usize].as_bytes());
    if worker >= kinds {
        put(out, format_args!("_{}", worker / kinds + 1));
    }
}
