//! Which shape an object is: the provider says which it writes, the keys say which of them this one is.

use super::{ProviderUsageError, shown};
use crate::json::Json;
use crate::matching::normalised_provider;

/// The objects that are told apart by their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Messages,
    Chat,
    Responses,
    Transcription,
    UsageMetadata,
    Converse,
    InvocationMetrics,
    Llama,
    Titan,
    BilledUnits,
    Pages,
    Ollama,
}

impl Shape {
    pub(super) const ALL: [Shape; 12] = [
        Shape::Messages,
        Shape::Chat,
        Shape::Responses,
        Shape::Transcription,
        Shape::UsageMetadata,
        Shape::Converse,
        Shape::InvocationMetrics,
        Shape::Llama,
        Shape::Titan,
        Shape::BilledUnits,
        Shape::Pages,
        Shape::Ollama,
    ];

    /// Its name, and the keys that show it.
    pub(super) const fn described(self) -> (&'static str, &'static str) {
        match self {
            Shape::Messages => ("anthropic.messages", "input_tokens, output_tokens"),
            Shape::Chat => ("openai.chat", "prompt_tokens"),
            Shape::Responses => ("openai.responses", "input_tokens, total_tokens"),
            Shape::Transcription => ("openai.transcription", "type = duration, seconds"),
            Shape::UsageMetadata => ("google.usage_metadata", "promptTokenCount"),
            Shape::Converse => ("bedrock.converse", "inputTokens, outputTokens"),
            Shape::InvocationMetrics => ("bedrock.invocation_metrics", "inputTokenCount"),
            Shape::Llama => ("bedrock.llama", "prompt_token_count, generation_token_count"),
            Shape::Titan => ("bedrock.titan", "inputTextTokenCount"),
            Shape::BilledUnits => ("cohere.billed_units", "billed_units"),
            Shape::Pages => ("mistral.ocr", "pages_processed"),
            Shape::Ollama => ("ollama.generate", "eval_count"),
        }
    }

    /// Whether an object has the keys that show this shape. An object with nothing but `input_tokens` and
    /// `output_tokens` is both `Messages` and `Responses`, and means the same in both.
    pub(super) fn fits(self, object: &Json<'_>) -> bool {
        let has = |key: &str| object.get(key).is_some_and(|value| !value.is_null());
        let any = |keys: &[&str]| keys.iter().any(|key| has(key));
        match self {
            Shape::Messages => has("input_tokens") && has("output_tokens") && !shows_responses(object),
            Shape::Responses => has("input_tokens") && !shows_messages(object),
            Shape::Chat => has("prompt_tokens"),
            Shape::Transcription => object.get("type").and_then(Json::text) == Some("duration"),
            Shape::UsageMetadata => {
                let camel = any(&["promptTokenCount", "candidatesTokenCount", "totalTokenCount"]);
                camel || any(&["prompt_token_count", "total_token_count"]) && !has("generation_token_count")
            }
            Shape::Converse => has("inputTokens"),
            Shape::InvocationMetrics => has("inputTokenCount"),
            Shape::Llama => has("prompt_token_count") && has("generation_token_count"),
            Shape::Titan => has("inputTextTokenCount"),
            Shape::BilledUnits => has("billed_units"),
            Shape::Pages => has("pages_processed"),
            Shape::Ollama => any(&["eval_count", "prompt_eval_count"]),
        }
    }
}

fn shows_messages(object: &Json<'_>) -> bool {
    const KEYS: [&str; 6] = [
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "cache_creation",
        "inference_geo",
        "iterations",
        "speed",
    ];
    KEYS.iter().any(|key| object.get(key).is_some())
}

fn shows_responses(object: &Json<'_>) -> bool {
    const KEYS: [&str; 4] = ["total_tokens", "input_tokens_details", "input_token_details", "output_token_details"];
    let details = object.get("output_tokens_details");
    KEYS.iter().any(|key| object.get(key).is_some())
        || details.is_some_and(|details| details.get("reasoning_tokens").is_some())
}

/// A provider whose shapes are known, in the order in which they are tried.
pub(super) struct Family {
    names: &'static [&'static str],
    /// How its chat objects are called, where it has its own rules or extra keys.
    chat: &'static str,
    shapes: &'static [Shape],
}

const FAMILIES: [Family; 12] = [
    Family {
        names: &["anthropic", "claude", "anthropic_api"],
        chat: "openai.chat",
        shapes: &[Shape::Messages, Shape::Chat],
    },
    Family {
        names: &["openai", "open_ai", "openai_chat", "openai_responses"],
        chat: "openai.chat",
        shapes: &[Shape::Chat, Shape::Responses, Shape::Transcription],
    },
    Family {
        names: &["azure", "azure_openai", "azure_ai", "azure_ai_foundry", "az_ai_openai", "azure_ai_openai"],
        chat: "openai.chat",
        shapes: &[Shape::Chat, Shape::Responses, Shape::Messages, Shape::Transcription],
    },
    Family {
        names: &[
            "google",
            "gemini",
            "google_ai",
            "googleai",
            "google_ai_studio",
            "google_genai",
            "google_gemini",
            "google_gla",
            "gcp_gemini",
            "gcp_gen_ai",
            "vertex_ai",
            "vertex",
            "vertexai",
            "google_vertex",
            "google_vertexai",
            "google_vertex_ai",
            "gcp_vertex_ai",
        ],
        chat: "openai.chat",
        shapes: &[Shape::UsageMetadata, Shape::Chat, Shape::Messages],
    },
    Family {
        names: &[
            "bedrock",
            "aws",
            "aws_bedrock",
            "amazon",
            "amazon_bedrock",
            "bedrock_converse",
            "aws_bedrock_converse",
        ],
        chat: "openai.chat",
        shapes: &[
            Shape::Converse,
            Shape::InvocationMetrics,
            Shape::Messages,
            Shape::Chat,
            Shape::Responses,
            Shape::Llama,
            Shape::Titan,
            Shape::BilledUnits,
        ],
    },
    Family {
        names: &["mistral", "mistralai", "mistral_ai"],
        chat: "mistral.chat",
        shapes: &[Shape::Chat, Shape::Pages],
    },
    Family { names: &["cohere", "cohere_chat"], chat: "openai.chat", shapes: &[Shape::BilledUnits, Shape::Chat] },
    Family {
        names: &["deepseek", "deep_seek"],
        chat: "deepseek.chat",
        shapes: &[Shape::Chat, Shape::Messages, Shape::Responses],
    },
    Family {
        names: &["xai", "x_ai", "grok"],
        chat: "xai.chat",
        shapes: &[Shape::Chat, Shape::Responses, Shape::Messages],
    },
    Family {
        names: &["groq", "groqcloud", "groq_cloud"],
        chat: "groq.chat",
        shapes: &[Shape::Chat, Shape::Responses, Shape::Transcription],
    },
    Family {
        names: &["openrouter", "open_router"],
        chat: "openrouter.chat",
        shapes: &[Shape::Chat, Shape::Responses, Shape::Messages],
    },
    Family {
        names: &["ollama", "ollama_local", "ollama_chat"],
        chat: "openai.chat",
        shapes: &[Shape::Ollama, Shape::Chat, Shape::Responses, Shape::Messages],
    },
];

pub(super) fn family_of(provider: &str) -> Option<&'static Family> {
    let provider = normalised_provider(provider);
    FAMILIES.iter().find(|family| family.names.contains(&provider.as_str()))
}

pub(super) fn recognise(
    provider: &str,
    family: Option<&Family>,
    model: &str,
    object: &Json<'_>,
) -> Result<Shape, ProviderUsageError> {
    let known = family.map_or(&Shape::ALL[..], |family| family.shapes);
    let fitting: Vec<Shape> = known.iter().copied().filter(|shape| shape.fits(object)).collect();
    let keys = || {
        let keys: Vec<String> = object.members().take(12).map(|(key, _)| format!("`{}`", shown(key))).collect();
        if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
    };
    match fitting.as_slice() {
        [] => {
            let expected = known.iter().map(|shape| {
                let (name, keys) = shape.described();
                format!("{name} ({keys})")
            });
            Err(ProviderUsageError::UnknownShape {
                provider: shown(provider),
                keys: keys(),
                expected: expected.collect::<Vec<_>>().join("; "),
            })
        }
        [shape] => Ok(*shape),
        // Both read it alike; only the name of the shape differs.
        [Shape::Messages, Shape::Responses] | [Shape::Responses, Shape::Messages] => {
            Ok(if model.to_ascii_lowercase().contains("claude") { Shape::Messages } else { fitting[0] })
        }
        [shape, ..] if family.is_some() => Ok(*shape),
        several => Err(ProviderUsageError::AmbiguousShape {
            keys: keys(),
            candidates: several.iter().map(|shape| shape.described().0).collect::<Vec<_>>().join(", "),
        }),
    }
}

/// Whose chat object it is: the provider's, or that of the one provider that writes such keys.
pub(super) fn chat_name(family: Option<&Family>, object: &Json<'_>) -> &'static str {
    const OWN_KEYS: [(&str, &str); 7] = [
        ("prompt_cache_hit_tokens", "deepseek.chat"),
        ("cost_in_usd_ticks", "xai.chat"),
        ("num_sources_used", "xai.chat"),
        ("queue_time", "groq.chat"),
        ("cost_details", "openrouter.chat"),
        ("is_byok", "openrouter.chat"),
        ("prompt_audio_seconds", "mistral.chat"),
    ];
    if let Some(family) = family.filter(|family| family.chat != "openai.chat") {
        return family.chat;
    }
    if object.get("completion_tokens").is_none() {
        return "openai.embeddings";
    }
    let own = OWN_KEYS.iter().find(|(key, _)| object.get(key).is_some());
    own.map_or("openai.chat", |(_, name)| name)
}
