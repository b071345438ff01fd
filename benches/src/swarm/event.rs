//! One event: who sent it, for what, how many tokens, and in which of its sender's habits it is written.

use super::cast::{Model, PROJECTS, UNLISTED, WORKERS, pick_model, write_role};
use super::python::{Object, put, write_cost, write_hex_id, write_timestamp, write_uuid};
use super::{Kind, PURPOSE_EVENT, Swarm};
use crate::random::Random;

/// How an agent's program writes its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Emitter {
    /// `json.dumps(event.model_dump(), default=str)`: a space between date and time, costs as strings, nulls.
    DefaultStr,
    /// `event.model_dump_json(exclude_none=True)`: `T` between date and time, costs as strings.
    ModelDumpJson,
    /// A hand-made dict through orjson: costs were floats, and it knows of no `span_id`.
    HandMade,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    NoProject,
    NoModel,
    NoTimestamp,
    TimestampInWords,
    NegativeTokens,
    TokensInWords,
    CutOff,
    NotUtf8,
    LogLine,
    Scalar,
}

pub(super) fn write_event(swarm: &Swarm, slot: u64, fault: Fault, line: &mut Vec<u8>, key: &mut Vec<u8>) {
    let mut random = Random::new(swarm.config.seed, PURPOSE_EVENT, slot);
    let random = &mut random;
    let agent = if random.percent(8) { 0 } else { 1 + random.below(swarm.config.agents - 1) };
    let emitter = [Emitter::DefaultStr, Emitter::ModelDumpJson, Emitter::HandMade][(agent % 3) as usize];
    let kind = swarm.kind(slot);
    let model = if kind == Kind::Unpriced { &UNLISTED } else { pick_model(agent, random) };
    let tokens = Tokens::draw(agent, model, random);
    let project = &PROJECTS[random.skewed(0, PROJECTS.len() as u64 - 1) as usize];

    // Eight events or so make a task.
    let task = slot / (8 * swarm.config.agents);
    write_role(agent, key);
    let role_len = key.len();
    put(key, format_args!("-wave{}-{task:05}", 1 + task % 7));
    let (role, task_id) = (&key[..role_len], &key[..]);

    let mut object = Object::open(emitter, line);
    object.member("event_id", |out| write_uuid(random, out));
    match fault {
        Fault::NoTimestamp => {}
        Fault::TimestampInWords => object.text("timestamp", "yesterday, around noon"),
        _ => {
            let at = swarm.timestamp_us(slot, kind, random);
            let separator = if emitter == Emitter::DefaultStr { ' ' } else { 'T' };
            object.member("timestamp", |out| write_timestamp(at, separator, out));
        }
    }
    object.text("environment", project.environment);
    object.text("org_id", project.org);
    object.optional_text("business_unit_id", project.business_unit);
    object.optional_text("team_id", project.team);
    if fault != Fault::NoProject {
        object.text("project_id", project.id);
    }
    object.bytes("agent_role", role);
    object.bytes("agent_task_id", task_id);
    let parent = if agent > 0 && random.percent(50) { "orchestrator" } else { "" };
    object.optional_text("parent_agent_id", parent);
    object.text("model_provider", model.provider);
    if fault != Fault::NoModel {
        object.text("model_name", model.name);
    }
    match fault {
        Fault::NegativeTokens => object.raw("tokens_input", format_args!("-{}", tokens.input + 1)),
        Fault::TokensInWords => object.text("tokens_input", "many"),
        _ => object.number("tokens_input", tokens.input),
    }
    object.number("tokens_output", tokens.output);
    // A counter of its own in some emitters, which now and then misses a retry.
    let lost = if random.below(2_000) == 0 { random.between(1, 50) } else { 0 };
    object.number("tokens_total", tokens.input + tokens.output + lost);
    tokens.write_usage(emitter, &mut object);

    let cost_nano = tokens.input * model.input_nano + tokens.output * model.output_nano;
    let noise = random.percent(20);
    object.member("cost_usd", |out| write_cost(cost_nano, emitter, noise, out));
    object.text("cost_calculation", if random.percent(15) { "api_reported" } else { "estimated" });
    if random.percent(60) {
        object.number("duration_ms", random.skewed(80, 45_000));
    }
    object.member("trace_id", |out| write_hex_id(random, 2, out));
    if emitter == Emitter::ModelDumpJson && random.percent(80) {
        object.member("span_id", |out| write_hex_id(random, 1, out));
    }
    if random.percent(20) {
        object.number("mcp_overhead_ms", random.skewed(2, 900));
        object.text("mcp_target_agent", random.pick::<&str>(&WORKERS));
    } else {
        object.unset("mcp_overhead_ms");
        object.unset("mcp_target_agent");
    }
    if random.percent(10) {
        write_unknown_fields(&mut object, random);
    }
    object.close();
}

/// Tokens of one request, as its sender counts them.
struct Tokens {
    input: u64,
    output: u64,
    usage: Option<Usage>,
}

struct Usage {
    cache_read: u64,
    cache_write_5m: u64,
    cache_write_1h: u64,
    reasoning: u64,
    requests: u64,
    /// Input without cached tokens, output without reasoning; the default is that they are contained.
    exclusive: bool,
}

impl Tokens {
    fn draw(agent: u64, model: &Model, random: &mut Random) -> Tokens {
        let long_context = random.below(200) == 0;
        let input = match (agent, model.provider) {
            // Above the thresholds where providers charge long prompts at another price.
            (0, "anthropic") if long_context => random.between(190_000, 400_000),
            (_, "google") if long_context => random.between(120_000, 300_000),
            (0, _) => random.skewed(2_000, 60_000),
            _ => random.skewed(150, 6_000),
        };
        let output = if agent == 0 { random.skewed(200, 8_000) } else { random.skewed(20, 1_200) };
        let with_usage = random.percent(match model.provider {
            "anthropic" => 60,
            "openai" => 40,
            "google" => 30,
            _ => 5,
        });
        if !with_usage {
            return Tokens { input, output, usage: None };
        }
        let cache_read = if random.percent(80) { random.below(input * 3 / 4) } else { 0 };
        let rest = input - cache_read;
        let (mut cache_write_5m, mut cache_write_1h) = (0, 0);
        if model.provider == "anthropic" {
            cache_write_5m = if random.percent(50) { random.below(rest / 2) } else { 0 };
            cache_write_1h = if random.percent(10) { random.below(rest / 4) } else { 0 };
        }
        let reasoning = if random.percent(25) { random.below(output) } else { 0 };
        let exclusive = model.provider == "anthropic" && random.percent(20);
        let usage = Usage {
            cache_read,
            cache_write_5m,
            cache_write_1h,
            reasoning,
            requests: u64::from(random.percent(20)),
            exclusive,
        };
        if exclusive {
            let (input, output) = (rest - cache_write_5m - cache_write_1h, output - reasoning);
            return Tokens { input, output, usage: Some(usage) };
        }
        Tokens { input, output, usage: Some(usage) }
    }

    fn write_usage(&self, emitter: Emitter, object: &mut Object) {
        let Some(usage) = &self.usage else { return };
        object.member("usage", |out| {
            let mut meters = Object::open(emitter, out);
            meters.number("cache_read", usage.cache_read);
            for (name, count) in [
                ("cache_write_5m", usage.cache_write_5m),
                ("cache_write_1h", usage.cache_write_1h),
                ("reasoning", usage.reasoning),
                ("requests", usage.requests),
            ] {
                if count > 0 {
                    meters.number(name, count);
                }
            }
            meters.close();
        });
        if usage.exclusive {
            object.text("usage_convention", "exclusive");
        }
    }
}

/// Fields of the senders' own that no contract names.
fn write_unknown_fields(object: &mut Object, random: &mut Random) {
    match random.below(3) {
        0 => {
            object.text("langgraph_node", random.pick::<&str>(&["plan", "execute", "reflect"]));
            object.number("retry_count", random.below(4));
        }
        1 => object.raw(
            "labels",
            format_args!("{{\"wave\":{},\"host\":\"jotunheim-\\u00fc{}\"}}", random.below(8), random.below(20)),
        ),
        _ => object.raw("tags", format_args!("[\"nightly\",\"squad-{}\",null]", random.below(9))),
    }
}
