//! Anthropic's Messages API, wherever it is served (its own API, Bedrock `InvokeModel`, Vertex AI, Azure, gateways).

use super::fields::{Fields, usage_of};
use super::{ProviderUsage, ProviderUsageError, tier_from};
use crate::json::Json;
use crate::meter::Meter;
use crate::usage::Usage;

/// Counts that are not tokens and cost nothing by themselves: fetched pages enter as input tokens; a tool search is
/// part of the request; code execution is billed by container hour, which no usage object shows.
const FREE: [&str; 3] = [
    "server_tool_use.web_fetch_requests",
    "server_tool_use.tool_search_requests",
    "server_tool_use.code_execution_requests",
];

pub(super) fn messages(shape: &'static str, object: &Json<'_>) -> Result<ProviderUsage, ProviderUsageError> {
    let fields = Fields::new(shape, object);
    let mut usage = counts(&fields)?;
    // Iterations say how the totals came about; only what stands outside the totals is added.
    for iteration in fields.array("iterations") {
        let of_iteration = Fields::new(shape, iteration);
        match of_iteration.text("type").unwrap_or("message") {
            "message" => {}
            // Compacting the context is charged at the same rates and is not in the top-level counts.
            "compaction" => {
                let extra = counts(&of_iteration)?;
                of_iteration.finish()?;
                usage = usage.checked_add(&extra).ok_or_else(|| ProviderUsageError::NotACount {
                    shape,
                    field: "iterations".to_owned(),
                    value: "a sum beyond 64 bits".to_owned(),
                })?;
            }
            other => {
                return Err(ProviderUsageError::OtherModel {
                    shape,
                    field: format!("iterations[].type = {other}"),
                    model: of_iteration.text("model").unwrap_or("not named").to_owned(),
                });
            }
        }
    }
    // One response is one request, however many iterations it took.
    usage.set(Meter::Requests, 1);
    usage.set(Meter::WebSearchMedium, fields.count_or_0("server_tool_use.web_search_requests")?);
    fields.known(&FREE);
    if let Some(speed) = fields.text("speed").filter(|speed| *speed != "standard") {
        return Err(ProviderUsageError::UnknownServiceTier { shape, field: "speed", value: speed.to_owned() });
    }
    let service_tier = tier_from(&fields, "service_tier")?;
    let region = fields.text("inference_geo").filter(|geo| !geo.is_empty() && *geo != "not_available").map(Into::into);
    let mut read = ProviderUsage::of(shape, usage);
    super::openai::reported_cost(&fields, &mut read)?;
    fields.finish()?;
    Ok(ProviderUsage { service_tier, region, ..read })
}

/// Input, cache and output counts of the whole or of one iteration: all disjoint but for thinking, which is output.
fn counts(fields: &Fields<'_>) -> Result<Usage, ProviderUsageError> {
    let input = fields.required("input_tokens")?;
    let output = fields.required("output_tokens")?;
    let thinking = fields.count_or_0("output_tokens_details.thinking_tokens")?;
    let visible = fields.rest("output_tokens", output, &[("thinking_tokens", thinking)])?;
    let written = fields.count("cache_creation_input_tokens")?;
    let by_ttl = [
        ("cache_creation.ephemeral_5m_input_tokens", Meter::CacheWrite5m),
        ("cache_creation.ephemeral_1h_input_tokens", Meter::CacheWrite1h),
    ];
    let mut writes = Vec::new();
    for (path, meter) in by_ttl {
        writes.push((path, meter, fields.count_or_0(path)?));
    }
    let split: u64 = writes.iter().map(|(.., count)| *count).sum();
    match written {
        // Older responses give no split: then the default time to live holds, five minutes.
        Some(written) if split == 0 => writes[0].2 = written,
        Some(written) if split != written => {
            return Err(ProviderUsageError::TotalDisagrees {
                shape: fields.shape,
                total_name: "cache_creation_input_tokens".to_owned(),
                total: written,
                parts: format!("5m {} + 1h {}", writes[0].2, writes[1].2),
            });
        }
        _ => {}
    }
    Ok(usage_of(&[
        (Meter::Input, input),
        (Meter::CacheRead, fields.count_or_0("cache_read_input_tokens")?),
        (writes[0].1, writes[0].2),
        (writes[1].1, writes[1].2),
        (Meter::Output, visible),
        (Meter::Reasoning, thinking),
    ]))
}
