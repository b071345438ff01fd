//! Amazon Bedrock's own objects: `usage` of Converse, the metrics of `InvokeModel`, and the bodies of Amazon's and
//! Meta's models. Models of other vendors answer `InvokeModel` in their vendor's shape.

use super::fields::{Fields, usage_of};
use super::{ProviderUsage, ProviderUsageError};
use crate::json::Json;
use crate::meter::Meter;

type Result<T> = std::result::Result<T, ProviderUsageError>;

pub(super) fn converse(shape: &'static str, object: &Json<'_>) -> Result<ProviderUsage> {
    let fields = Fields::new(shape, object);
    let input = fields.required("inputTokens")?;
    let output = fields.count_or_0("outputTokens")?;
    let read = fields.same(&["cacheReadInputTokens", "cacheReadInputTokenCount"])?.unwrap_or(0);
    let written = fields.same(&["cacheWriteInputTokens", "cacheWriteInputTokenCount"])?.unwrap_or(0);
    let parts = [("inputTokens", input), ("outputTokens", output), ("cacheRead", read), ("cacheWrite", written)];
    fields.check_total("totalTokens", &parts)?;
    let (short, long) = by_ttl(&fields, written)?;
    fields.finish()?;
    Ok(ProviderUsage::of(
        shape,
        usage_of(&[
            (Meter::Input, input),
            (Meter::CacheRead, read),
            (Meter::CacheWrite5m, short),
            (Meter::CacheWrite1h, long),
            (Meter::Output, output),
        ]),
    ))
}

/// Cache writes by time to live; what `cacheDetails` does not name was written for the default five minutes.
fn by_ttl(fields: &Fields<'_>, written: u64) -> Result<(u64, u64)> {
    let mut long = 0;
    let mut short = 0;
    for element in fields.array("cacheDetails") {
        let of_element = Fields::new(fields.shape, element);
        let count = of_element.count_or_0("inputTokens")?;
        match of_element.text("ttl") {
            Some("1h") => long += count,
            Some("5m") | None => short += count,
            Some(other) => {
                return Err(ProviderUsageError::UnknownCount {
                    shape: fields.shape,
                    field: format!("cacheDetails (ttl {other})"),
                    value: count.to_string(),
                });
            }
        }
    }
    let rest = fields.rest("cacheWriteInputTokens", written, &[("5m", short), ("1h", long)])?;
    Ok((short + rest, long))
}

/// `amazon-bedrock-invocationMetrics` at the end of a stream, and the response headers under the same names.
pub(super) fn invocation_metrics(shape: &'static str, object: &Json<'_>) -> Result<ProviderUsage> {
    let fields = Fields::new(shape, object);
    let usage = usage_of(&[
        (Meter::Input, fields.required("inputTokenCount")?),
        (Meter::Output, fields.count_or_0("outputTokenCount")?),
        (Meter::CacheRead, fields.count_or_0("cacheReadInputTokenCount")?),
        (Meter::CacheWrite5m, fields.count_or_0("cacheWriteInputTokenCount")?),
    ]);
    fields.finish()?;
    Ok(ProviderUsage::of(shape, usage))
}

/// Meta Llama's body.
pub(super) fn llama(shape: &'static str, object: &Json<'_>) -> Result<ProviderUsage> {
    let fields = Fields::new(shape, object);
    let usage = usage_of(&[
        (Meter::Input, fields.required("prompt_token_count")?),
        (Meter::Output, fields.count_or_0("generation_token_count")?),
    ]);
    fields.finish()?;
    Ok(ProviderUsage::of(shape, usage))
}

/// Amazon Titan's body: `inputTextTokenCount` and one `tokenCount` a result.
pub(super) fn titan(shape: &'static str, object: &Json<'_>) -> Result<ProviderUsage> {
    let fields = Fields::new(shape, object);
    let mut output = 0_u64;
    for result in fields.array("results") {
        let of_result = Fields::new(shape, result);
        output = output.saturating_add(of_result.count_or_0("tokenCount")?);
        of_result.finish()?;
    }
    let usage = usage_of(&[(Meter::Input, fields.required("inputTextTokenCount")?), (Meter::Output, output)]);
    fields.finish()?;
    Ok(ProviderUsage::of(shape, usage))
}
