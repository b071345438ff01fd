//! The objects of OpenAI's APIs and of everyone who speaks them: chat completions, completions and embeddings
//! (`prompt_tokens`), responses, images, realtime and transcription (`input_tokens`).

use super::fields::{Fields, usage_of};
use super::{ProviderUsage, ProviderUsageError, tier_from};
use crate::json::Json;
use crate::meter::Meter;
use crate::money::Money;

type Result<T> = std::result::Result<T, ProviderUsageError>;

/// xAI counts dollars in ticks of 10⁻¹⁰; `Money` in units of 10⁻¹⁸.
const ATTO_PER_XAI_TICK: i128 = 100_000_000;

/// Where an object keeps what, and what is found there, by side.
struct Names {
    input: &'static str,
    output: &'static str,
    /// Objects that may detail each side; only one of them is sent.
    input_details: &'static [&'static str],
    output_details: &'static [&'static str],
}

const CHAT: Names = Names {
    input: "prompt_tokens",
    output: "completion_tokens",
    input_details: &["prompt_tokens_details", "prompt_token_details"],
    output_details: &["completion_tokens_details", "completion_token_details"],
};

const RESPONSES: Names = Names {
    input: "input_tokens",
    output: "output_tokens",
    input_details: &["input_tokens_details", "input_token_details"],
    output_details: &["output_tokens_details", "output_token_details"],
};

pub(super) fn chat(shape: &'static str, object: &Json<'_>) -> Result<ProviderUsage> {
    read(&Fields::new(shape, object), &CHAT, false)
}

/// `makes_images`: the model's output is images, and an object without details does not say so.
pub(super) fn responses(shape: &'static str, object: &Json<'_>, makes_images: bool) -> Result<ProviderUsage> {
    let fields = Fields::new(shape, object);
    fields.known(&["type"]);
    read(&fields, &RESPONSES, makes_images)
}

/// Audio billed by its length: `{"type": "duration", "seconds": 9}`.
pub(super) fn transcription(shape: &'static str, object: &Json<'_>) -> Result<ProviderUsage> {
    let fields = Fields::new(shape, object);
    let seconds = fields.required("seconds")?;
    fields.finish()?;
    Ok(ProviderUsage::of(shape, usage_of(&[(Meter::Seconds, seconds)])))
}

fn read(fields: &Fields<'_>, names: &Names, makes_images: bool) -> Result<ProviderUsage> {
    let input = fields.required(names.input)?;
    let output = fields.count_or_0(names.output)?;
    let mut counts = input_side(fields, names, input)?;
    counts.extend(output_side(fields, names, input, output, makes_images)?);
    counts.extend(tools(fields)?);
    let mut read = ProviderUsage::of(fields.shape, usage_of(&counts));
    read.service_tier = tier_from(fields, "service_tier")?;
    reported_cost(fields, &mut read)?;
    fields.finish()?;
    Ok(read)
}

fn input_side(fields: &Fields<'_>, names: &Names, input: u64) -> Result<Vec<(Meter, u64)>> {
    let of = |keys: &[&str], elsewhere: &[&str]| {
        fields.detail(names.input_details, keys, elsewhere).map(Option::unwrap_or_default)
    };
    let cached = of(
        &["cached_tokens", "cache_read"],
        &["prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens", "cache_read_input_tokens"],
    )?;
    for key in ["cached_tokens_details.audio_tokens", "cached_tokens_details.image_tokens"] {
        if of(&[key], &[])? != 0 {
            return Err(ProviderUsageError::NoMeter {
                shape: fields.shape,
                field: key.to_owned(),
                why: "cached audio and images have prices of their own, which no meter carries",
            });
        }
    }
    let audio = of(&["audio_tokens", "audio"], &[])?;
    let image = of(&["image_tokens"], &[])?;
    let video = of(&["video_tokens"], &[])?;
    let (short_writes, long_writes) = cache_writes(fields, names)?;
    let parts = [
        ("cached", cached),
        ("cache writes", short_writes + long_writes),
        ("audio", audio),
        ("image", image),
        ("video", video),
    ];
    let uncached = fields.rest(names.input, input, &parts)?;
    if let Some(missed) = fields.count("prompt_cache_miss_tokens")? {
        let total = [("prompt_cache_hit_tokens", cached), ("prompt_cache_miss_tokens", missed)];
        if cached + missed != input {
            fields.check_total(names.input, &total)?;
        }
    }
    fields.known_within(names.input_details, &["text_tokens", "cached_tokens_details.text_tokens"]);
    Ok(vec![
        (Meter::Input, uncached),
        (Meter::CacheRead, cached),
        (Meter::CacheWrite5m, short_writes),
        (Meter::CacheWrite1h, long_writes),
        (Meter::AudioInput, audio),
        (Meter::ImageInput, image),
        (Meter::Video, video),
    ])
}

/// Tokens written to a cache: for the shorter and for the longer time to live.
fn cache_writes(fields: &Fields<'_>, names: &Names) -> Result<(u64, u64)> {
    let of = |keys: &[&str], elsewhere: &[&str]| {
        fields.detail(names.input_details, keys, elsewhere).map(Option::unwrap_or_default)
    };
    let short = of(&["cache_creation_token_details.ephemeral_5m_input_tokens", "ephemeral_5m_input_tokens"], &[])?;
    let long = of(&["cache_creation_token_details.ephemeral_1h_input_tokens", "ephemeral_1h_input_tokens"], &[])?;
    let written =
        of(&["cache_write_tokens", "cache_creation_tokens", "cache_creation"], &["cache_creation_input_tokens"])?;
    match (written, short + long) {
        (written, 0) => Ok((written, 0)),
        (written, split) if written == 0 || written == split => Ok((short, long)),
        (written, _) => Err(ProviderUsageError::TotalDisagrees {
            shape: fields.shape,
            total_name: "cache writes".to_owned(),
            total: written,
            parts: format!("5m {short} + 1h {long}"),
        }),
    }
}

fn output_side(
    fields: &Fields<'_>,
    names: &Names,
    input: u64,
    output: u64,
    makes_images: bool,
) -> Result<Vec<(Meter, u64)>> {
    let of = |keys: &[&str], elsewhere: &[&str]| {
        fields.detail(names.output_details, keys, elsewhere).map(Option::unwrap_or_default)
    };
    let reasoning = of(&["reasoning_tokens", "reasoning", "thinking_tokens"], &["reasoning_tokens"])?;
    let audio = of(&["audio_tokens", "audio"], &[])?;
    let mut image = of(&["image_tokens"], &[])?;
    // Predicted tokens are output tokens, the rejected ones too.
    let contained = ["text_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"];
    fields.known_within(names.output_details, &contained);
    // The total says whether reasoning stands inside the output or beside it. Without one, the API's own documentation.
    let total = fields.count("total_tokens")?;
    let beside = match total {
        Some(total) if total == input + output => false,
        Some(total) if reasoning != 0 && total == input + output + reasoning => true,
        Some(_) => {
            fields.check_total("total_tokens", &[(names.input, input), (names.output, output)])?;
            false
        }
        None => fields.shape == "xai.chat",
    };
    let inside = if beside { 0 } else { reasoning };
    let mut visible =
        fields.rest(names.output, output, &[("reasoning", inside), ("audio", audio), ("image", image)])?;
    if makes_images && image == 0 && !fields.has("output_tokens_details.text_tokens") {
        (image, visible) = (visible, 0);
    }
    Ok(vec![
        (Meter::Output, visible),
        (Meter::Reasoning, reasoning),
        (Meter::AudioOutput, audio),
        (Meter::ImageOutput, image),
    ])
}

/// What ran on the provider's side, and Mistral's audio by its length.
fn tools(fields: &Fields<'_>) -> Result<Vec<(Meter, u64)>> {
    let searches =
        fields.same(&["server_tool_use.web_search_requests", "server_side_tool_usage_details.web_search_calls"])?;
    let mut counts = vec![
        (Meter::WebSearchMedium, searches.unwrap_or(0)),
        (Meter::ToolCalls, fields.count_or_0("server_tool_use_details.tool_calls_executed")?),
        (Meter::Seconds, fields.count_or_0("prompt_audio_seconds")?),
    ];
    // Sums of, or steps towards, what is counted elsewhere.
    fields.known(&["server_tool_use_details.tool_calls_requested", "num_server_side_tools_used"]);
    // Perplexity searches once a request, and charges by the size of the context.
    match fields.text("search_context_size") {
        Some("low") => counts.push((Meter::WebSearchLow, 1)),
        Some("medium") => counts.push((Meter::WebSearchMedium, 1)),
        Some("high") => counts.push((Meter::WebSearchHigh, 1)),
        _ => {}
    }
    Ok(counts)
}

/// The cost that the object itself states: OpenRouter's `cost`, xAI's ticks, Perplexity's `cost.total_cost`.
pub(super) fn reported_cost(fields: &Fields<'_>, read: &mut ProviderUsage) -> Result<()> {
    let mut reported = match fields.usd("cost")? {
        Some(cost) => Some(cost),
        None => fields.usd("cost.total_cost")?,
    };
    if fields.is_true("is_byok") {
        // With the customer's own key `cost` is the gateway's fee alone; the model is paid upstream.
        let upstream = fields.usd("cost_details.upstream_inference_cost")?;
        reported = match (reported, upstream) {
            (Some((fee, fee_rounded)), Some((model, model_rounded))) => {
                fee.checked_add(model).map(|sum| (sum, fee_rounded || model_rounded))
            }
            // The fee alone is not what the request cost.
            _ => None,
        };
    }
    if let Some(ticks) = fields.count("cost_in_usd_ticks")? {
        // At most 10¹⁵ ticks: below 10²³ units.
        reported = Some((Money::from_atto(i128::from(ticks) * ATTO_PER_XAI_TICK), false));
    }
    fields.known(&["cost", "cost_details", "cost_details_usd", "pydantic_ai_gateway"]);
    (read.reported_cost, read.reported_cost_rounded) = match reported {
        Some((cost, rounded)) => (Some(cost), rounded),
        None => (None, false),
    };
    Ok(())
}
