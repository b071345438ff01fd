//! Shapes that only one provider writes: Cohere's billed units, Mistral's pages, Ollama's counters.

use super::fields::{Fields, usage_of};
use super::{ProviderUsage, ProviderUsageError};
use crate::json::Json;
use crate::meter::Meter;

type Result<T> = std::result::Result<T, ProviderUsageError>;

/// `billed_units` is what Cohere charges; `tokens` and `cached_tokens` also count its own wrapping of the prompt.
pub(super) fn cohere(shape: &'static str, object: &Json<'_>) -> Result<ProviderUsage> {
    let fields = Fields::new(shape, object);
    let searches = fields.count_or_0("billed_units.search_units")?;
    let classifications = fields.count_or_0("billed_units.classifications")?;
    let usage = usage_of(&[
        (Meter::Input, fields.count_or_0("billed_units.input_tokens")?),
        (Meter::ImageInput, fields.count_or_0("billed_units.image_tokens")?),
        (Meter::Output, fields.count_or_0("billed_units.output_tokens")?),
        // Rerank and classify have no tokens: their unit of billing is the price book's `requests`.
        (Meter::Requests, searches.saturating_add(classifications)),
    ]);
    fields.known(&["tokens", "cached_tokens", "api_version"]);
    fields.finish()?;
    Ok(ProviderUsage::of(shape, usage))
}

/// `usage_info` of document reading.
pub(super) fn pages(shape: &'static str, object: &Json<'_>) -> Result<ProviderUsage> {
    let fields = Fields::new(shape, object);
    let pages = fields.required("pages_processed")?;
    let annotated = fields.count_or_0("pages_processed_annotation")?;
    if annotated != 0 {
        return Err(ProviderUsageError::NoMeter {
            shape,
            field: "pages_processed_annotation".to_owned(),
            why: "annotated pages have a price of their own, which no meter carries",
        });
    }
    fields.known(&["doc_size_bytes"]);
    fields.finish()?;
    Ok(ProviderUsage::of(shape, usage_of(&[(Meter::Pages, pages)])))
}

/// Ollama leaves out a counter that is zero: a prompt that was wholly in its cache has no `prompt_eval_count`.
pub(super) fn ollama(shape: &'static str, object: &Json<'_>) -> Result<ProviderUsage> {
    let fields = Fields::new(shape, object);
    let usage = usage_of(&[
        (Meter::Input, fields.count_or_0("prompt_eval_count")?),
        (Meter::Output, fields.count_or_0("eval_count")?),
    ]);
    // The rest of Ollama's answer is text and durations in nanoseconds.
    fields.known(&["context", "message", "logprobs", "embeddings", "embedding", "response"]);
    fields.finish()?;
    Ok(ProviderUsage::of(shape, usage))
}
