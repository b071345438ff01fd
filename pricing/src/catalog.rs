//! The price books that are compiled in: one file per provider, each price with its source and the day it was read.

/// (file name, text) of every file in `catalog/`; a test holds this list and the folder together.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("catalog/anthropic.toml", include_str!("../catalog/anthropic.toml")),
    ("catalog/bedrock.toml", include_str!("../catalog/bedrock.toml")),
    ("catalog/cohere.toml", include_str!("../catalog/cohere.toml")),
    ("catalog/deepseek.toml", include_str!("../catalog/deepseek.toml")),
    ("catalog/google.toml", include_str!("../catalog/google.toml")),
    ("catalog/groq.toml", include_str!("../catalog/groq.toml")),
    ("catalog/mistral.toml", include_str!("../catalog/mistral.toml")),
    ("catalog/ollama.toml", include_str!("../catalog/ollama.toml")),
    ("catalog/openai.toml", include_str!("../catalog/openai.toml")),
    ("catalog/xai.toml", include_str!("../catalog/xai.toml")),
];
