//! Providers' usage objects as they are sent, and the meters they become (RATE-2).

use costhelm_pricing::{Meter, Money, ProviderUsageError, ServiceTier, normalize_provider_usage};

/// The meters that are not zero, as `input=1 output=2`; one request is left out.
fn meters(provider: &str, model: &str, json: &str) -> Result<String, ProviderUsageError> {
    let read = normalize_provider_usage(provider, model, json)?;
    let shown = read
        .usage
        .iter()
        .filter(|(meter, count)| *meter != Meter::Requests || *count != 1)
        .map(|(meter, count)| format!("{meter}={count}"));
    Ok(shown.collect::<Vec<_>>().join(" "))
}

fn code(provider: &str, json: &str) -> &'static str {
    match normalize_provider_usage(provider, "m", json) {
        Ok(read) => panic!("{json} was read as {read:?}"),
        Err(error) => error.code(),
    }
}

#[test]
fn every_provider_says_in_its_own_way_what_contains_what() {
    for (provider, object, expected) in [
        (
            "anthropic",
            r#"{"input_tokens":10,"cache_creation_input_tokens":300,"cache_read_input_tokens":4000,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":200},"output_tokens":50,"server_tool_use":{"web_search_requests":2,"web_fetch_requests":1},"service_tier":"standard"}"#,
            "input=10 cache_read=4000 cache_write_5m=100 cache_write_1h=200 output=50 web_search_medium=2",
        ),
        (
            "anthropic",
            r#"{"input_tokens":10,"cache_creation_input_tokens":300,"output_tokens":50,"output_tokens_details":{"thinking_tokens":30}}"#,
            "input=10 cache_write_5m=300 output=20 reasoning=30",
        ),
        (
            "openai",
            r#"{"prompt_tokens":1000,"completion_tokens":500,"total_tokens":1500,"prompt_tokens_details":{"cached_tokens":600,"audio_tokens":100},"completion_tokens_details":{"reasoning_tokens":200,"audio_tokens":50,"accepted_prediction_tokens":20,"rejected_prediction_tokens":30}}"#,
            "input=300 cache_read=600 output=250 reasoning=200 audio_input=100 audio_output=50",
        ),
        (
            "openai",
            r#"{"input_tokens":1000,"input_tokens_details":{"cached_tokens":600,"cache_write_tokens":300},"output_tokens":500,"output_tokens_details":{"reasoning_tokens":200},"total_tokens":1500}"#,
            "input=100 cache_read=600 cache_write_5m=300 output=300 reasoning=200",
        ),
        ("openai", r#"{"prompt_tokens":8,"total_tokens":8}"#, "input=8"),
        ("openai", r#"{"type":"duration","seconds":9}"#, "seconds=9"),
        (
            "google",
            r#"{"promptTokenCount":1000,"cachedContentTokenCount":600,"candidatesTokenCount":100,"thoughtsTokenCount":40,"toolUsePromptTokenCount":25,"totalTokenCount":1165,"promptTokensDetails":[{"modality":"TEXT","tokenCount":700},{"modality":"AUDIO","tokenCount":50},{"modality":"IMAGE","tokenCount":250}],"cacheTokensDetails":[{"modality":"TEXT","tokenCount":500},{"modality":"IMAGE","tokenCount":100}],"trafficType":"ON_DEMAND"}"#,
            "input=225 cache_read=600 output=100 reasoning=40 audio_input=50 image_input=150",
        ),
        (
            "vertex_ai",
            r#"{"prompt_token_count":10,"candidates_token_count":5,"total_token_count":15,"prompt_tokens_details":[{"modality":"TEXT","token_count":10}]}"#,
            "input=10 output=5",
        ),
        (
            "bedrock",
            r#"{"inputTokens":3,"outputTokens":288,"totalTokens":2365,"cacheReadInputTokens":0,"cacheWriteInputTokens":2074,"cacheReadInputTokenCount":0,"cacheWriteInputTokenCount":2074,"cacheDetails":[{"ttl":"1h","inputTokens":2000},{"ttl":"5m","inputTokens":74}],"serverToolUsage":{}}"#,
            "input=3 cache_write_5m=74 cache_write_1h=2000 output=288",
        ),
        (
            "aws",
            r#"{"inputTokenCount":7,"outputTokenCount":8,"invocationLatency":900,"firstByteLatency":100}"#,
            "input=7 output=8",
        ),
        (
            "aws.bedrock",
            r#"{"generation":"…","prompt_token_count":7,"generation_token_count":8,"stop_reason":"stop"}"#,
            "input=7 output=8",
        ),
        (
            "bedrock",
            r#"{"inputTextTokenCount":5,"results":[{"tokenCount":3,"outputText":"…","completionReason":"FINISH"}]}"#,
            "input=5 output=3",
        ),
        (
            "mistral",
            r#"{"prompt_tokens":70,"completion_tokens":12,"total_tokens":82,"num_cached_tokens":69,"prompt_audio_seconds":null}"#,
            "input=1 cache_read=69 output=12",
        ),
        ("mistral", r#"{"pages_processed":3,"doc_size_bytes":3000}"#, "pages=3"),
        (
            "cohere",
            r#"{"billed_units":{"input_tokens":41,"output_tokens":28},"tokens":{"input_tokens":1442,"output_tokens":29},"cached_tokens":1040}"#,
            "input=41 output=28",
        ),
        ("cohere", r#"{"api_version":{"version":"2"},"billed_units":{"search_units":2}}"#, "requests=2"),
        (
            "deepseek",
            r#"{"prompt_tokens":563,"completion_tokens":116,"total_tokens":679,"prompt_cache_hit_tokens":512,"prompt_cache_miss_tokens":51,"prompt_tokens_details":{"cached_tokens":512},"completion_tokens_details":{"reasoning_tokens":60}}"#,
            "input=51 cache_read=512 output=56 reasoning=60",
        ),
        (
            "xai",
            r#"{"prompt_tokens":100,"completion_tokens":20,"total_tokens":170,"prompt_tokens_details":{"text_tokens":100,"cached_tokens":40},"completion_tokens_details":{"reasoning_tokens":50}}"#,
            "input=60 cache_read=40 output=20 reasoning=50",
        ),
        (
            "xai",
            r#"{"prompt_tokens":100,"completion_tokens":70,"total_tokens":170,"completion_tokens_details":{"reasoning_tokens":50}}"#,
            "input=100 output=20 reasoning=50",
        ),
        (
            "xai",
            r#"{"prompt_tokens":100,"completion_tokens":20,"completion_tokens_details":{"reasoning_tokens":50}}"#,
            "input=100 output=20 reasoning=50",
        ),
        (
            "groq",
            r#"{"queue_time":0.1,"prompt_tokens":18,"prompt_time":0.01,"completion_tokens":5,"completion_time":0.2,"total_tokens":23,"total_time":0.21}"#,
            "input=18 output=5",
        ),
        (
            "openrouter",
            r#"{"prompt_tokens":14,"completion_tokens":4,"total_tokens":18,"cost":0.000102,"is_byok":false,"prompt_tokens_details":{"cached_tokens":2,"cache_write_tokens":5,"audio_tokens":0},"server_tool_use":{"web_search_requests":1}}"#,
            "input=7 cache_read=2 cache_write_5m=5 output=4 web_search_medium=1",
        ),
        (
            "ollama",
            r#"{"model":"llama3.1","done":true,"total_duration":5043500667,"prompt_eval_count":26,"prompt_eval_duration":130079000,"eval_count":259,"eval_duration":4232710000,"context":[1,2,3]}"#,
            "input=26 output=259",
        ),
        ("ollama", r#"{"eval_count":5,"done":true}"#, "output=5"),
        (
            "langchain",
            r#"{"input_tokens":350,"output_tokens":240,"total_tokens":590,"input_token_details":{"audio":10,"cache_creation":200,"cache_read":100},"output_token_details":{"audio":10,"reasoning":200}}"#,
            "input=40 cache_read=100 cache_write_5m=200 output=30 reasoning=200 audio_input=10 audio_output=10",
        ),
        (
            "perplexity",
            r#"{"prompt_tokens":14,"completion_tokens":4,"total_tokens":18,"search_context_size":"low","cost":{"total_cost":0.005}}"#,
            "input=14 output=4 web_search_low=1",
        ),
    ] {
        assert_eq!(meters(provider, "m", object).as_deref(), Ok(expected), "{provider}: {object}");
    }
}

#[test]
fn a_gateway_s_object_is_recognised_by_its_keys() {
    for (object, shape) in [
        (r#"{"input_tokens":1,"output_tokens":2,"cache_read_input_tokens":3}"#, "anthropic.messages"),
        (r#"{"input_tokens":1,"output_tokens":2}"#, "anthropic.messages"),
        (r#"{"input_tokens":1,"output_tokens":2,"total_tokens":3}"#, "openai.responses"),
        (
            r#"{"prompt_tokens":1,"completion_tokens":2,"prompt_cache_hit_tokens":0,"prompt_cache_miss_tokens":1}"#,
            "deepseek.chat",
        ),
        (r#"{"prompt_tokens":1,"completion_tokens":2,"cost_in_usd_ticks":5}"#, "xai.chat"),
        (r#"{"promptTokenCount":1}"#, "google.usage_metadata"),
        (r#"{"inputTokens":1,"outputTokens":1}"#, "bedrock.converse"),
        (r#"{"billed_units":{"input_tokens":1}}"#, "cohere.billed_units"),
    ] {
        for provider in ["", "litellm", "portkey"] {
            let read = normalize_provider_usage(provider, "m", object).unwrap();
            assert_eq!(read.shape, shape, "{object}");
        }
    }
    let both = r#"{"prompt_tokens":1,"input_tokens":1,"output_tokens":1,"total_tokens":2}"#;
    assert_eq!(code("litellm", both), "provider_usage_ambiguous_shape");
}

#[test]
fn litellm_s_object_for_claude_contains_the_cache_in_prompt_tokens() {
    let object = r#"{"prompt_tokens":1000,"completion_tokens":10,"total_tokens":1010,"cache_creation_input_tokens":300,"cache_read_input_tokens":600,"prompt_tokens_details":{"cached_tokens":600,"cache_creation_tokens":300,"cache_creation_token_details":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":200}}}"#;
    let expected = "input=100 cache_read=600 cache_write_5m=100 cache_write_1h=200 output=10";
    assert_eq!(meters("anthropic", "claude", object).as_deref(), Ok(expected));
}

#[test]
fn a_whole_response_is_read_with_its_service_tier() {
    let response = r#"{"id":"chatcmpl-1","model":"gpt-5","service_tier":"flex","usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
    let read = normalize_provider_usage("openai", "gpt-5", response).unwrap();
    assert_eq!((read.usage.tokens_total(), read.service_tier), (15, Some(ServiceTier::Flex)));
    let gemini = r#"{"candidates":[],"usageMetadata":{"promptTokenCount":10,"totalTokenCount":10,"trafficType":"ON_DEMAND_PRIORITY"}}"#;
    let read = normalize_provider_usage("google", "gemini", gemini).unwrap();
    assert_eq!((read.usage.tokens_total(), read.service_tier), (10, Some(ServiceTier::Priority)));
}

#[test]
fn the_tier_and_the_region_are_those_the_provider_served() {
    let object = r#"{"input_tokens":1,"output_tokens":2,"service_tier":"batch","inference_geo":"us"}"#;
    let read = normalize_provider_usage("anthropic", "claude", object).unwrap();
    assert_eq!((read.service_tier, read.region.as_deref()), (Some(ServiceTier::Batch), Some("us")));
    let object = r#"{"input_tokens":1,"output_tokens":2,"service_tier":null,"inference_geo":"not_available"}"#;
    let read = normalize_provider_usage("anthropic", "claude", object).unwrap();
    assert_eq!((read.service_tier, read.region), (None, None));
}

#[test]
fn tiers_that_cost_otherwise_and_have_no_price_are_refused() {
    for (provider, object) in [
        ("anthropic", r#"{"input_tokens":1,"output_tokens":2,"speed":"fast"}"#),
        ("openai", r#"{"service_tier":"scale","usage":{"prompt_tokens":10,"completion_tokens":5}}"#),
        ("google", r#"{"promptTokenCount":10,"trafficType":"PROVISIONED_THROUGHPUT"}"#),
    ] {
        assert_eq!(code(provider, object), "provider_usage_unknown_tier");
    }
}

#[test]
fn a_cost_that_the_object_states_is_returned_exactly() {
    let cost = |provider: &str, object: &str| {
        let read = normalize_provider_usage(provider, "m", object).unwrap();
        (read.reported_cost.map(|cost| cost.to_string()), read.reported_cost_rounded)
    };
    let some = |text: &str| Some(text.to_owned());
    let object = r#"{"prompt_tokens":1,"completion_tokens":1,"cost":4.1400000000000003e-05}"#;
    assert_eq!(cost("openrouter", object), (some("0.0000414"), true));
    let object = r#"{"prompt_tokens":1,"completion_tokens":1,"cost_in_usd_ticks":37756000}"#;
    assert_eq!(cost("xai", object), (some("0.0037756"), false));
    let own_key = r#"{"prompt_tokens":1,"completion_tokens":1,"cost":0.01,"is_byok":true,"cost_details":{"upstream_inference_cost":0.2}}"#;
    assert_eq!(cost("openrouter", own_key), (some("0.21"), false));
    let fee_alone = r#"{"prompt_tokens":1,"completion_tokens":1,"cost":0.01,"is_byok":true}"#;
    assert_eq!(cost("openrouter", fee_alone), (None, false));
    let object = r#"{"prompt_tokens":1,"completion_tokens":1,"cost":-1}"#;
    assert_eq!(code("openrouter", object), "provider_usage_not_a_cost");
    assert_eq!(Money::ZERO.to_string(), "0");
}

#[test]
fn compaction_is_added_and_an_advisor_s_tokens_are_refused() {
    let object = r#"{"input_tokens":180,"output_tokens":8,"iterations":[{"type":"compaction","input_tokens":100,"output_tokens":82,"cache_creation_input_tokens":55096,"cache_creation":{"ephemeral_5m_input_tokens":55096,"ephemeral_1h_input_tokens":0}},{"type":"message","input_tokens":180,"output_tokens":8}]}"#;
    assert_eq!(meters("anthropic", "claude", object).as_deref(), Ok("input=280 cache_write_5m=55096 output=90"));
    let object = r#"{"input_tokens":1,"output_tokens":2,"iterations":[{"type":"advisor_message","model":"claude-opus-4-8","input_tokens":9,"output_tokens":9}]}"#;
    let error = normalize_provider_usage("anthropic", "claude", object).unwrap_err();
    assert_eq!(error.code(), "provider_usage_other_model");
    assert!(error.to_string().contains("claude-opus-4-8"), "{error}");
}

#[test]
fn counts_nobody_knows_are_never_silently_free() {
    for (provider, object, field) in [
        ("openai", r#"{"prompt_tokens":1,"completion_tokens":1,"hologram_tokens":7}"#, "hologram_tokens"),
        (
            "anthropic",
            r#"{"input_tokens":1,"output_tokens":1,"server_tool_use":{"dig_requests":1}}"#,
            "server_tool_use.dig_requests",
        ),
        ("google", r#"{"promptTokenCount":1,"smellTokenCount":1}"#, "smellTokenCount"),
        ("google", r#"{"promptTokenCount":1,"promptTokensDetails":[{"modality":"SMELL","tokenCount":1}]}"#, "SMELL"),
        (
            "bedrock",
            r#"{"inputTokens":1,"outputTokens":1,"cacheWriteInputTokens":2,"cacheDetails":[{"ttl":"7d","inputTokens":2}]}"#,
            "7d",
        ),
        ("perplexity", r#"{"prompt_tokens":1,"completion_tokens":1,"citation_tokens":90}"#, "citation_tokens"),
    ] {
        let error = normalize_provider_usage(provider, "m", object).unwrap_err();
        assert_eq!(error.code(), "provider_usage_unknown_count", "{object}");
        assert!(error.to_string().contains(field), "{error}");
    }
    // Zero counts, words and times cost nothing.
    let object = r#"{"prompt_tokens":1,"completion_tokens":1,"hologram_tokens":0,"note":"x","wall_time":3.5}"#;
    assert!(meters("openai", "m", object).is_ok());
}

#[test]
fn parts_and_totals_that_disagree_are_named() {
    for (provider, object, expected) in [
        (
            "openai",
            r#"{"prompt_tokens":35,"completion_tokens":12,"total_tokens":109}"#,
            "provider_usage_total_disagrees",
        ),
        (
            "openai",
            r#"{"prompt_tokens":35,"completion_tokens":12,"prompt_tokens_details":{"cached_tokens":36}}"#,
            "provider_usage_parts_exceed_total",
        ),
        (
            "anthropic",
            r#"{"input_tokens":1,"output_tokens":1,"cache_creation_input_tokens":5,"cache_creation":{"ephemeral_5m_input_tokens":6}}"#,
            "provider_usage_total_disagrees",
        ),
        (
            "google",
            r#"{"promptTokenCount":5,"candidatesTokenCount":5,"totalTokenCount":11}"#,
            "provider_usage_total_disagrees",
        ),
        (
            "google",
            r#"{"promptTokenCount":5,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":6}]}"#,
            "provider_usage_parts_exceed_total",
        ),
        ("bedrock", r#"{"inputTokens":1,"outputTokens":1,"totalTokens":9}"#, "provider_usage_total_disagrees"),
        (
            "bedrock",
            r#"{"inputTokens":1,"outputTokens":1,"cacheReadInputTokens":9,"cacheReadInputTokenCount":8}"#,
            "provider_usage_disagrees",
        ),
        (
            "deepseek",
            r#"{"prompt_tokens":10,"completion_tokens":1,"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":4}"#,
            "provider_usage_total_disagrees",
        ),
    ] {
        assert_eq!(code(provider, object), expected, "{object}");
    }
}

#[test]
fn what_has_no_meter_is_refused_with_the_reason() {
    for (provider, object) in [
        (
            "openai",
            r#"{"input_tokens":10,"output_tokens":1,"total_tokens":11,"input_token_details":{"cached_tokens":5,"cached_tokens_details":{"audio_tokens":5,"text_tokens":0}}}"#,
        ),
        (
            "google",
            r#"{"promptTokenCount":5,"cachedContentTokenCount":5,"cacheTokensDetails":[{"modality":"AUDIO","tokenCount":5}]}"#,
        ),
        ("mistral", r#"{"pages_processed":5,"pages_processed_annotation":2}"#),
    ] {
        assert_eq!(code(provider, object), "provider_usage_no_meter");
    }
}

#[test]
fn an_object_of_no_known_shape_is_an_error_that_names_its_keys() {
    let error = normalize_provider_usage("anthropic", "claude", r#"{"promptTokenCount":5}"#).unwrap_err();
    assert_eq!(error.code(), "provider_usage_unknown_shape");
    for part in ["`promptTokenCount`", "anthropic.messages", "`anthropic`"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(code("nobody", "{}"), "provider_usage_unknown_shape");
    for text in ["", "[]", "7", "{", "null", "\"x\""] {
        assert_eq!(code("openai", text), "provider_usage_not_json");
    }
    assert_eq!(code("openai", &format!("{{\"a\":\"{}\"}}", "x".repeat(70_000))), "provider_usage_not_json");
    assert_eq!(code("openai", r#"{"prompt_tokens":1.5}"#), "provider_usage_not_a_count");
    assert_eq!(code("openai", r#"{"prompt_tokens":-1}"#), "provider_usage_not_a_count");
    assert_eq!(code("openai", r#"{"prompt_tokens":"12"}"#), "provider_usage_not_a_count");
    assert_eq!(code("bedrock", r#"{"inputTokens":99999999999999999}"#), "provider_usage_not_a_count");
}

#[test]
fn an_image_model_s_output_is_images() {
    let object = r#"{"input_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40},"output_tokens":100,"total_tokens":150}"#;
    assert_eq!(meters("openai", "gpt-image-1", object).as_deref(), Ok("input=10 image_input=40 image_output=100"));
}

#[test]
fn counts_written_as_floats_are_read_if_they_are_whole() {
    assert_eq!(meters("cohere", "m", r#"{"billed_units":{"input_tokens":4.0}}"#).as_deref(), Ok("input=4"));
}

#[test]
fn bedrock_says_the_tier_beside_its_usage() {
    let response = r#"{"output":{},"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3},"serviceTier":{"type":"priority"},"metrics":{"latencyMs":7}}"#;
    let read = normalize_provider_usage("bedrock", "m", response).unwrap();
    assert_eq!(read.service_tier, Some(ServiceTier::Priority));
}
