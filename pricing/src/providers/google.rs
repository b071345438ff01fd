//! `usageMetadata` of the Gemini API and Vertex AI.

use super::fields::{Fields, usage_of};
use super::{ProviderUsage, ProviderUsageError, tier_from, tier_named};
use crate::json::Json;
use crate::meter::Meter;

type Result<T> = std::result::Result<T, ProviderUsageError>;

/// Tokens of a side by what they are.
#[derive(Clone, Copy, Default)]
struct Modalities {
    text: u64,
    audio: u64,
    image: u64,
    video: u64,
}

impl Modalities {
    fn sum(self) -> u64 {
        self.text + self.audio + self.image + self.video
    }
}

pub(super) fn usage_metadata(shape: &'static str, object: &Json<'_>) -> Result<ProviderUsage> {
    let fields = Fields::renamed(shape, object, camel);
    let prompt = fields.count_or_0("promptTokenCount")?;
    let cached = fields.count_or_0("cachedContentTokenCount")?;
    let candidates = fields.same(&["candidatesTokenCount", "responseTokenCount"])?.unwrap_or(0);
    let thoughts = fields.count_or_0("thoughtsTokenCount")?;
    let tool_prompt = fields.count_or_0("toolUsePromptTokenCount")?;
    if !fields.has("promptTokenCount") && !fields.has("totalTokenCount") {
        return Err(ProviderUsageError::Missing { shape, field: "promptTokenCount".to_owned() });
    }
    fields.check_total(
        "totalTokenCount",
        &[
            ("promptTokenCount", prompt),
            ("candidatesTokenCount", candidates),
            ("thoughtsTokenCount", thoughts),
            ("toolUsePromptTokenCount", tool_prompt),
        ],
    )?;
    let details = if fields.has("promptTokensDetails") { "promptTokensDetails" } else { "promptTokenDetails" };
    let of_prompt = modalities(&fields, details, "promptTokenCount", prompt)?;
    let of_cache = modalities(&fields, "cacheTokensDetails", "cachedContentTokenCount", cached)?;
    if of_cache.audio != 0 {
        return Err(ProviderUsageError::NoMeter {
            shape,
            field: "cacheTokensDetails (AUDIO)".to_owned(),
            why: "cached audio has a price of its own, which no meter carries",
        });
    }
    let of_tools = modalities(&fields, "toolUsePromptTokensDetails", "toolUsePromptTokenCount", tool_prompt)?;
    let output_details =
        if fields.has("candidatesTokensDetails") { "candidatesTokensDetails" } else { "responseTokensDetails" };
    let of_output = modalities(&fields, output_details, "candidatesTokenCount", candidates)?;
    let uncached = |name: &str, all: u64, cached: u64| fields.rest(name, all, &[("cached", cached)]);
    let usage = usage_of(&[
        // What a tool put into the prompt is charged like the prompt, and stands outside promptTokenCount.
        (Meter::Input, uncached("prompt text", of_prompt.text, of_cache.text)? + of_tools.text),
        (Meter::CacheRead, cached),
        (Meter::AudioInput, of_prompt.audio + of_tools.audio),
        (Meter::ImageInput, uncached("prompt images", of_prompt.image, of_cache.image)? + of_tools.image),
        (Meter::Video, uncached("prompt video", of_prompt.video, of_cache.video)? + of_tools.video),
        (Meter::Output, of_output.text),
        (Meter::Reasoning, thoughts),
        (Meter::AudioOutput, of_output.audio),
        (Meter::ImageOutput, of_output.image + of_output.video),
    ]);
    // Legacy character counts of Vertex AI beside the token counts that are billed.
    fields.known(&["billablePromptUsage", "pydanticAiGateway"]);
    let service_tier = match tier_from(&fields, "serviceTier")? {
        Some(tier) => Some(tier),
        None => fields.text("trafficType").map_or(Ok(None), |traffic| tier_named(shape, "trafficType", traffic))?,
    };
    fields.finish()?;
    Ok(ProviderUsage { service_tier, ..ProviderUsage::of(shape, usage) })
}

/// The tokens of `total` by modality. Google sometimes details less than the total: the rest is text, which is what it
/// leaves out (parts of prompts with tools). Documents are charged as text is.
fn modalities(fields: &Fields<'_>, path: &str, total_name: &str, total: u64) -> Result<Modalities> {
    let mut found = Modalities::default();
    for element in fields.array(path) {
        let of_element = Fields::renamed(fields.shape, element, camel);
        let count = of_element.count_or_0("tokenCount")?;
        let modality = of_element.text("modality").unwrap_or("TEXT");
        let slot = match modality {
            "TEXT" | "DOCUMENT" | "MODALITY_UNSPECIFIED" => &mut found.text,
            "AUDIO" => &mut found.audio,
            "IMAGE" => &mut found.image,
            "VIDEO" => &mut found.video,
            other => {
                return Err(ProviderUsageError::UnknownCount {
                    shape: fields.shape,
                    field: format!("{path} ({other})"),
                    value: count.to_string(),
                });
            }
        };
        *slot += count;
        of_element.finish()?;
    }
    found.text += fields.rest(total_name, total, &[(path, found.sum())])?;
    Ok(found)
}

/// `prompt_token_count` as `promptTokenCount`: Google's Python SDK writes the former, the API the latter.
fn camel(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    let mut upper = false;
    for letter in key.chars() {
        if letter == '_' {
            upper = true;
        } else {
            name.push(if upper { letter.to_ascii_uppercase() } else { letter });
            upper = false;
        }
    }
    name
}
