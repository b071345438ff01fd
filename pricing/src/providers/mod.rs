//! From a provider's own usage object, verbatim, to disjoint meters (RATE-2): senders pass on what they were sent, and
//! nobody but this module has to know what contains what.
//!
//! The way of an object: the provider says which shapes it writes; the object's keys say which of them this one is; the
//! shape's reader takes every key it knows, holds the parts against the object's own totals, and refuses what is left
//! if it counts something. A provider that is a gateway, or unknown, writes any shape; then the keys alone must decide.
//! What cannot be read is an error with a code, and the row is unpriced for that reason: nothing is guessed (RATE-3).
//!
//! # What contains what
//!
//! | provider | shape | cached input is | cache writes are | reasoning is | also | source |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | Anthropic | `anthropic.messages` | beside `input_tokens` | beside, by time to live in `cache_creation` | in `output_tokens` | compaction iterations are beside all counts | platform.claude.com/docs/en/build-with-claude/prompt-caching, …/compaction |
//! | OpenAI | `openai.chat`, `openai.embeddings` | in `prompt_tokens` | in `prompt_tokens` | in `completion_tokens` | audio and images in their side; rejected predictions in `completion_tokens` | developers.openai.com/api/reference (chat, `usage`) |
//! | OpenAI | `openai.responses` | in `input_tokens` | in `input_tokens` | in `output_tokens` | images API and realtime alike | developers.openai.com/api/reference (responses, `usage`) |
//! | OpenAI | `openai.transcription` | – | – | – | seconds of audio | developers.openai.com/api/reference (audio) |
//! | Google | `google.usage_metadata` | in `promptTokenCount` | charged by the hour, not here | beside `candidatesTokenCount` | `toolUsePromptTokenCount` is beside the prompt and costs what it costs | ai.google.dev/api/generate-content (`UsageMetadata`) |
//! | Bedrock | `bedrock.converse` | beside `inputTokens` | beside, by time to live in `cacheDetails` | in `outputTokens` | `totalTokens` is the sum of all four | docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html |
//! | Bedrock | `bedrock.invocation_metrics`, `bedrock.llama`, `bedrock.titan` | beside | beside | in the output | | docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html |
//! | Mistral | `mistral.chat` | in `prompt_tokens` | – | in `completion_tokens` | `prompt_audio_seconds` | docs.mistral.ai/api |
//! | Mistral | `mistral.ocr` | – | – | – | pages | docs.mistral.ai/capabilities/document_ai |
//! | Cohere | `cohere.billed_units` | in `billed_units.input_tokens` | – | in `output_tokens` | `tokens` also counts Cohere's wrapping: not billed | docs.cohere.com/reference/chat |
//! | DeepSeek | `deepseek.chat` | in `prompt_tokens` = hit + miss | – | in `completion_tokens` | | api-docs.deepseek.com/api/create-chat-completion |
//! | xAI | `xai.chat` | in `prompt_tokens` | – | beside `completion_tokens` | cost in ticks of 10⁻¹⁰ USD | docs.x.ai/docs/guides/reasoning |
//! | Groq | `groq.chat` | in `prompt_tokens` | – | in `completion_tokens` | | console.groq.com/docs/api-reference |
//! | OpenRouter | `openrouter.chat` | in `prompt_tokens` | in `prompt_tokens` | in `completion_tokens` | `cost`, and the upstream cost beside it with the customer's key | openrouter.ai/docs/use-cases/usage-accounting |
//! | Ollama | `ollama.generate` | – | – | in `eval_count` | a counter that is zero is left out | github.com/ollama/ollama, docs/api.md |
//! | LangChain | `openai.responses` | in `input_tokens` | in `input_tokens` | in `output_tokens` | `usage_metadata`, `input_token_details` | reference.langchain.com (`UsageMetadata`) |
//!
//! Where a chat object has a total, the total decides whether reasoning is inside or beside. Cache writes without a
//! time to live are the short ones. A whole response is read too: its `usage` (`usageMetadata`, `meta`, …) and
//! `service_tier`.
//!
//! Known and not charged: pages fetched by Anthropic's web fetch (they enter as input), tool searches, code execution
//! (billed by container hour), sums of what is counted elsewhere, durations, and costs that a gateway estimates.
//! Refused, as no meter carries their price: cached audio, cached images of OpenAI, annotated pages; tokens of another
//! model within one answer (advisor iterations); service tiers without a name in [`ServiceTier`].
//!
//! Limits: 64 KiB; counts up to 10¹⁵.

mod anthropic;
mod bedrock;
mod fields;
mod google;
mod openai;
mod others;
mod shapes;

use self::fields::Fields;
use self::shapes::{Family, Shape, chat_name, family_of, recognise};
use crate::json::Json;
use crate::money::Money;
use crate::rates::ServiceTier;
use crate::usage::Usage;

const JSON_MAX_BYTES: usize = 64 * 1024;

/// A provider's usage object, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderUsage {
    pub usage: Usage,
    /// The tier the provider says it served; `None` where the object does not say.
    pub service_tier: Option<ServiceTier>,
    /// Where the provider says the model ran, in its own word; some regions cost more.
    pub region: Option<Box<str>>,
    /// What the object itself says the request cost, in USD.
    pub reported_cost: Option<Money>,
    /// Whether the reported cost had more than 18 decimals (MONEY-2: the caller counts these).
    pub reported_cost_rounded: bool,
    /// Which shape it was read as.
    pub shape: &'static str,
}

impl ProviderUsage {
    fn of(shape: &'static str, usage: Usage) -> ProviderUsage {
        ProviderUsage {
            usage,
            service_tier: None,
            region: None,
            reported_cost: None,
            reported_cost_rounded: false,
            shape,
        }
    }
}

/// Why a usage object cannot be turned into meters. The row is then unpriced with this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderUsageError {
    #[error("`provider_usage` is not a JSON object: {message}")]
    NotJson { message: String },
    #[error(
        "`provider_usage` of provider `{provider}` has the keys {keys}, which is no shape that provider is known to write; expected one of: {expected}"
    )]
    UnknownShape { provider: String, keys: String, expected: String },
    #[error("`provider_usage` with the keys {keys} fits several shapes ({candidates}); name the provider")]
    AmbiguousShape { keys: String, candidates: String },
    #[error("`provider_usage` read as {shape} has no `{field}`")]
    Missing { shape: &'static str, field: String },
    #[error("`provider_usage` read as {shape}: `{field}` is {value}; expected a whole number from 0 to 10^15")]
    NotACount { shape: &'static str, field: String, value: String },
    #[error("`provider_usage` read as {shape}: `{field}` is {value}; expected an amount of USD from 0")]
    NotACost { shape: &'static str, field: String, value: String },
    #[error(
        "`provider_usage` read as {shape} counts {value} in `{field}`, which is not known: it may be billed, or be part of another count"
    )]
    UnknownCount { shape: &'static str, field: String, value: String },
    #[error("`provider_usage` read as {shape}: `{field}` cannot be charged: {why}")]
    NoMeter { shape: &'static str, field: String, why: &'static str },
    #[error("`provider_usage` read as {shape}: `{total_name}` is {total}, less than what it contains ({parts})")]
    PartsExceedTotal { shape: &'static str, total_name: String, total: u64, parts: String },
    #[error("`provider_usage` read as {shape}: `{total_name}` is {total}, but its parts are {parts}")]
    TotalDisagrees { shape: &'static str, total_name: String, total: u64, parts: String },
    #[error(
        "`provider_usage` read as {shape}: `{field}` is {value} and `{other}`, which means the same, is {other_value}"
    )]
    Disagree { shape: &'static str, field: String, value: u64, other: String, other_value: u64 },
    #[error("`provider_usage` read as {shape}: `{field}` is `{value}`, a service tier whose price is not known")]
    UnknownServiceTier { shape: &'static str, field: &'static str, value: String },
    #[error(
        "`provider_usage` read as {shape} has tokens of another model ({model}) in `{field}`; send them as an event of their own"
    )]
    OtherModel { shape: &'static str, field: String, model: String },
}

impl ProviderUsageError {
    /// A stable word for metrics, SQL and JSON.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            ProviderUsageError::NotJson { .. } => "provider_usage_not_json",
            ProviderUsageError::UnknownShape { .. } => "provider_usage_unknown_shape",
            ProviderUsageError::AmbiguousShape { .. } => "provider_usage_ambiguous_shape",
            ProviderUsageError::Missing { .. } => "provider_usage_missing_field",
            ProviderUsageError::NotACount { .. } => "provider_usage_not_a_count",
            ProviderUsageError::NotACost { .. } => "provider_usage_not_a_cost",
            ProviderUsageError::UnknownCount { .. } => "provider_usage_unknown_count",
            ProviderUsageError::NoMeter { .. } => "provider_usage_no_meter",
            ProviderUsageError::PartsExceedTotal { .. } => "provider_usage_parts_exceed_total",
            ProviderUsageError::TotalDisagrees { .. } => "provider_usage_total_disagrees",
            ProviderUsageError::Disagree { .. } => "provider_usage_disagrees",
            ProviderUsageError::UnknownServiceTier { .. } => "provider_usage_unknown_tier",
            ProviderUsageError::OtherModel { .. } => "provider_usage_other_model",
        }
    }
}

/// Reads a provider's usage object: the object itself, or a whole response that carries it.
///
/// ```
/// use costhelm_pricing::{Meter, normalize_provider_usage};
///
/// let object = r#"{"input_tokens": 12, "cache_read_input_tokens": 900, "output_tokens": 34}"#;
/// let read = normalize_provider_usage("anthropic", "claude-sonnet-4-5", object)?;
/// assert_eq!(read.usage.get(Meter::Input), 12);
/// assert_eq!(read.usage.get(Meter::CacheRead), 900);
/// # Ok::<(), costhelm_pricing::ProviderUsageError>(())
/// ```
///
/// # Errors
/// What the object is not, or has too much or too little of; see [`ProviderUsageError`].
pub fn normalize_provider_usage(provider: &str, model: &str, json: &str) -> Result<ProviderUsage, ProviderUsageError> {
    if json.len() > JSON_MAX_BYTES {
        let message = format!("{} bytes, more than {JSON_MAX_BYTES}", json.len());
        return Err(ProviderUsageError::NotJson { message });
    }
    let outer = Json::parse(json).map_err(|message| ProviderUsageError::NotJson { message })?;
    let Json::Object(_) = outer else {
        let message = format!("it is {}", shown(&outer.to_string()));
        return Err(ProviderUsageError::NotJson { message });
    };
    let object = usage_within(&outer);
    let family = family_of(provider);
    let shape = recognise(provider, family, model, object)?;
    let mut read = shape_reader(shape, family, model, object)?;
    if read.service_tier.is_none() && !std::ptr::eq(object, &raw const outer) {
        // OpenAI, Groq and Bedrock say in the response which tier it was, not in its usage.
        let tier = outer.get("service_tier").or_else(|| outer.get("serviceTier"));
        let tier = tier.and_then(|tier| tier.text().or_else(|| tier.get("type")?.text()));
        read.service_tier = tier.map_or(Ok(None), |tier| tier_named(read.shape, "service_tier", tier))?;
    }
    Ok(read)
}

/// The usage in a whole response, or the object itself.
fn usage_within<'j, 't>(outer: &'j Json<'t>) -> &'j Json<'t> {
    const KEYS: [&str; 6] =
        ["usage", "usageMetadata", "usage_metadata", "usage_info", "meta", "amazon-bedrock-invocationMetrics"];
    if Shape::ALL.iter().any(|shape| shape.fits(outer)) {
        return outer;
    }
    let inner = KEYS.iter().filter_map(|key| outer.get(key));
    inner.into_iter().find(|value| value.members().next().is_some()).unwrap_or(outer)
}

fn shape_reader(
    shape: Shape,
    family: Option<&Family>,
    model: &str,
    object: &Json<'_>,
) -> Result<ProviderUsage, ProviderUsageError> {
    let name = shape.described().0;
    match shape {
        Shape::Messages => anthropic::messages(name, object),
        Shape::Chat => openai::chat(chat_name(family, object), object),
        Shape::Responses => {
            let model = model.to_ascii_lowercase();
            openai::responses(name, object, model.contains("gpt-image") || model.contains("chatgpt-image"))
        }
        Shape::Transcription => openai::transcription(name, object),
        Shape::UsageMetadata => google::usage_metadata(name, object),
        Shape::Converse => bedrock::converse(name, object),
        Shape::InvocationMetrics => bedrock::invocation_metrics(name, object),
        Shape::Llama => bedrock::llama(name, object),
        Shape::Titan => bedrock::titan(name, object),
        Shape::BilledUnits => others::cohere(name, object),
        Shape::Pages => others::pages(name, object),
        Shape::Ollama => others::ollama(name, object),
    }
}

/// The tier under a key. `auto` and the like do not say which tier was served.
fn tier_from(fields: &Fields<'_>, key: &'static str) -> Result<Option<ServiceTier>, ProviderUsageError> {
    fields.text(key).map_or(Ok(None), |name| tier_named(fields.shape, key, name))
}

fn tier_named(shape: &'static str, field: &'static str, name: &str) -> Result<Option<ServiceTier>, ProviderUsageError> {
    let unsaid =
        name.is_empty() || name.eq_ignore_ascii_case("auto") || name.to_ascii_lowercase().ends_with("unspecified");
    if unsaid {
        return Ok(None);
    }
    let tier = ServiceTier::from_name(name);
    tier.map(Some).ok_or_else(|| ProviderUsageError::UnknownServiceTier { shape, field, value: shown(name) })
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::meter::Meter;

    const NAMES: [&str; 9] =
        ["anthropic", "openai", "google", "bedrock", "mistral", "deepseek", "xai", "openrouter", "unheard-of"];

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(json in "\\PC{0,80}", provider in 0_usize..9) {
            let _ = normalize_provider_usage(NAMES[provider], "m", &json);
        }

        /// RATE-2: whatever the parts are, the sides add up to what the object says was processed.
        #[test]
        fn no_token_of_a_chat_object_is_lost_or_counted_twice(
            parts in proptest::array::uniform6(0_u64..100_000), provider in 0_usize..9, beside in any::<bool>(),
        ) {
            let [uncached, cached, written, visible, reasoning, audio] = parts;
            let (prompt, inside) = (uncached + cached + written + audio, if beside { 0 } else { reasoning });
            let json = format!(
                r#"{{"prompt_tokens":{prompt},"completion_tokens":{},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{cached},"cache_write_tokens":{written},"audio_tokens":{audio}}},"completion_tokens_details":{{"reasoning_tokens":{reasoning}}}}}"#,
                visible + inside, prompt + visible + reasoning,
            );
            let usage = normalize_provider_usage(NAMES[provider], "m", &json).unwrap().usage;
            prop_assert_eq!(usage.input_tokens_total(), prompt);
            prop_assert_eq!(usage.output_tokens_total(), visible + reasoning);
            prop_assert_eq!(usage.get(Meter::Reasoning), reasoning);
            prop_assert_eq!(usage.get(Meter::CacheRead), cached);
        }
    }
}
