//! The table of precedence in `matching`, line by line, and the models that must never be taken for one another.

use costhelm_pricing::{Book, MatchKind};

fn books() -> Book {
    let model = |name: &str, more: &str| {
        format!(
            "[[model]]\nname = \"{name}\"\n{more}\n[[model.price]]\nfrom = \"2024-01-01\"\nper_mtok = {{ input = \"1\", output = \"2\" }}\n"
        )
    };
    let texts = [
        format!(
            "provider = \"openai\"\n{}{}{}{}",
            model("gpt-4o", ""),
            model("gpt-4o-mini", ""),
            model("gpt-4o-2024-05-13", ""),
            model("gpt-5", "patterns = [\"gpt-5-*\", \"gpt-5-codex-*\"]"),
        ),
        format!(
            "provider = \"anthropic\"\nprovider_aliases = [\"claude-cloud\"]\n{}{}",
            model("claude-sonnet-4-20250514", "aliases = [\"claude-sonnet-4\", \"claude-4-sonnet\"]"),
            model("claude-3-5-haiku-20241022", "aliases = [\"claude-3-5-haiku\"]"),
        ),
        format!(
            "provider = \"bedrock\"\n{}{}{}",
            model("anthropic.claude-sonnet-4-20250514-v1:0", ""),
            model("global.anthropic.claude-sonnet-5", ""),
            model("anthropic.claude-sonnet-5", "aliases = [\"us.anthropic.claude-sonnet-5\"]"),
        ),
        format!("provider = \"google\"\n{}", model("gemini-2.5-pro", "aliases = [\"gemini-pro-latest\"]")),
        format!(
            "provider = \"ollama\"\n{}{}{}",
            model("llama3.1:8b", "aliases = [\"llama3.1\"]\npatterns = [\"llama3.1:8b-*\"]"),
            model("llama3.1:70b", "patterns = [\"llama3.1:70b-*\"]"),
            model("gpt-oss:20b", "patterns = [\"*\"]"),
        ),
        format!("provider = \"openrouter\"\n{}", model("anthropic/claude-sonnet-4", "")),
        format!("provider = \"groq\"\n{}", model("openai/gpt-oss-120b", "aliases = [\"gpt-oss-120b\", \"gpt-4o\"]")),
    ];
    let book = |text: &String| Book::from_toml(text, "test.toml").unwrap();
    texts.iter().map(book).reduce(Book::overlay).unwrap()
}

/// `provider/model by kind`, or the code of the refusal.
fn found(book: &Book, provider: &str, model: &str) -> String {
    match book.plan(provider, model) {
        Ok(plan) => format!("{} {} by {}", plan.provider(), plan.model(), plan.matched_by()),
        Err(unpriced) => unpriced.code().to_owned(),
    }
}

#[test]
fn names_are_found_in_the_documented_order() {
    let book = books();
    for (provider, model, expected) in [
        // 1 exact
        ("openai", "gpt-4o", "openai gpt-4o by exact"),
        ("OpenAI", " GPT-4o ", "openai gpt-4o by exact"),
        ("openai", "gpt-4o-2024-05-13", "openai gpt-4o-2024-05-13 by exact"),
        // 2 alias
        ("anthropic", "Claude-Sonnet-4", "anthropic claude-sonnet-4-20250514 by alias"),
        // 3 provider prefix
        ("openai", "openai/gpt-4o", "openai gpt-4o by provider_prefix"),
        ("anthropic", "anthropic/claude-sonnet-4", "anthropic claude-sonnet-4-20250514 by provider_prefix"),
        ("azure_openai", "azure/gpt-4o", "openai gpt-4o by provider_prefix"),
        ("google", "models/gemini-2.5-pro", "google gemini-2.5-pro by provider_prefix"),
        ("google", "publishers/google/models/gemini-2.5-pro", "google gemini-2.5-pro by provider_prefix"),
        (
            "vertex_ai",
            "projects/p/locations/europe-west4/publishers/google/models/gemini-2.5-pro",
            "google gemini-2.5-pro by provider_prefix",
        ),
        ("gemini", "gemini/gemini-2.5-pro", "google gemini-2.5-pro by provider_prefix"),
        ("vertex_ai", "vertex_ai/gemini-2.5-pro", "google gemini-2.5-pro by provider_prefix"),
        ("google", "gemini-pro-latest", "google gemini-2.5-pro by alias"),
        (
            "openrouter",
            "openrouter/anthropic/claude-sonnet-4",
            "openrouter anthropic/claude-sonnet-4 by provider_prefix",
        ),
        ("openrouter", "anthropic/claude-sonnet-4", "openrouter anthropic/claude-sonnet-4 by exact"),
        // Bedrock: regions, profiles, ARNs
        (
            "bedrock",
            "anthropic.claude-sonnet-4-20250514-v1:0",
            "bedrock anthropic.claude-sonnet-4-20250514-v1:0 by exact",
        ),
        (
            "aws",
            "us.anthropic.claude-sonnet-4-20250514-v1:0",
            "bedrock anthropic.claude-sonnet-4-20250514-v1:0 by provider_prefix",
        ),
        (
            "aws.bedrock",
            "bedrock/us-east-1/anthropic.claude-sonnet-4-20250514-v1:0",
            "bedrock anthropic.claude-sonnet-4-20250514-v1:0 by provider_prefix",
        ),
        (
            "amazon_bedrock",
            "bedrock/converse/us-gov-west-1/us-gov.anthropic.claude-sonnet-4-20250514-v1:0",
            "bedrock anthropic.claude-sonnet-4-20250514-v1:0 by provider_prefix",
        ),
        (
            "bedrock",
            "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-20250514-v1:0",
            "bedrock anthropic.claude-sonnet-4-20250514-v1:0 by provider_prefix",
        ),
        (
            "bedrock",
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-sonnet-5",
            "bedrock anthropic.claude-sonnet-5 by provider_prefix",
        ),
        ("bedrock", "global.anthropic.claude-sonnet-5", "bedrock global.anthropic.claude-sonnet-5 by exact"),
        ("bedrock", "us.anthropic.claude-sonnet-5", "bedrock anthropic.claude-sonnet-5 by alias"),
        ("bedrock", "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc123", "unknown_model"),
        // Who bills shows in the name, though the sender names the vendor.
        ("anthropic", "us.anthropic.claude-sonnet-5", "bedrock anthropic.claude-sonnet-5 by provider_prefix"),
        (
            "anthropic",
            "openrouter/anthropic/claude-sonnet-4",
            "openrouter anthropic/claude-sonnet-4 by provider_prefix",
        ),
        (
            "anthropic",
            "us.anthropic.claude-3-5-haiku-20241022-v1:0",
            "anthropic claude-3-5-haiku-20241022 by provider_prefix",
        ),
        ("anthropic", "vertex_ai/claude-sonnet-4@20250514", "anthropic claude-sonnet-4-20250514 by dated_suffix"),
        // 4 dated suffix
        ("openai", "gpt-4o-2024-11-20", "openai gpt-4o by dated_suffix"),
        ("openai", "gpt-4o-mini-2024-07-18", "openai gpt-4o-mini by dated_suffix"),
        ("openai", "openai/gpt-4o-2024-11-20", "openai gpt-4o by dated_suffix"),
        ("anthropic", "claude-sonnet-4@20250514", "anthropic claude-sonnet-4-20250514 by dated_suffix"),
        ("anthropic", "claude-3-5-haiku-latest", "anthropic claude-3-5-haiku-20241022 by dated_suffix"),
        ("ollama", "llama3.1:latest", "ollama llama3.1:8b by dated_suffix"),
        // 5 pattern, the longest literal first; a name, even a dated one, before any pattern
        ("openai", "gpt-5-chat", "openai gpt-5 by pattern"),
        ("openai", "gpt-5-2025-08-07", "openai gpt-5 by dated_suffix"),
        ("ollama_local", "llama3.1:70b-instruct-q4_K_M", "ollama llama3.1:70b by pattern"),
        ("ollama", "llama3.1:8b-instruct-fp16", "ollama llama3.1:8b by pattern"),
        ("ollama", "anything", "ollama gpt-oss:20b by pattern"),
        // Providers by other names
        ("claude-cloud", "claude-sonnet-4", "anthropic claude-sonnet-4-20250514 by alias"),
        ("Azure OpenAI", "gpt-4o", "openai gpt-4o by exact"),
        ("gcp.vertex_ai", "gemini-2.5-pro", "google gemini-2.5-pro by exact"),
    ] {
        assert_eq!(found(&book, provider, model), expected, "{provider} {model}\n{}", book.explain(provider, model));
    }
}

#[test]
fn a_different_model_is_never_taken() {
    let book = books();
    for (provider, model) in [
        ("openai", "gpt-4"),
        ("openai", "gpt-4o-audio-preview"),
        ("openai", "gpt-4o-mini-tts"),
        ("openai", "gpt-4o-20"),
        ("openai", "ft:gpt-4o-2024-08-06:org::id"),
        ("openai", "gpt-4o:free"),
        ("openai", "anthropic/claude-sonnet-4"),
        ("openai", "openai/openai-gpt-4o"),
        ("openai", "mygpt-4o"),
        ("azure", "azure/eu/gpt-4o"),
        ("azure", "azure/my-deployment"),
        ("anthropic", "claude-sonnet-4-5"),
        ("anthropic", "claude-3-5-haiku-20241022-fast"),
        ("anthropic", "claude"),
        ("bedrock", "bedrock/us-east-1/1-month-commitment/anthropic.claude-sonnet-5"),
        ("bedrock", "anthropic.claude-sonnet-5-mini"),
        ("openrouter", "anthropic/claude-sonnet-4:free"),
        ("google", "gemini-2.5-pro-preview-05-06"),
        ("groq", "gpt-4"),
        ("openai", ""),
        ("openai", "openai/"),
        ("openai", "/"),
    ] {
        assert_eq!(
            found(&book, provider, model),
            "unknown_model",
            "{provider} {model}\n{}",
            book.explain(provider, model)
        );
    }
    let ollama = found(&book, "ollama", "llama3.1:70b");
    assert_eq!(ollama, "ollama llama3.1:70b by exact", "llama3.1:latest is the 8B model, 70b is not");
}

#[test]
fn an_unknown_provider_is_never_replaced_by_one_that_has_the_model() {
    let book = books();
    for provider in ["together", "my-gateway", "open", "azure_ai", "fireworks"] {
        assert_eq!(found(&book, provider, "gpt-4o-mini"), "unknown_provider", "{provider}");
        assert_eq!(found(&book, provider, "openai/gpt-4o-mini"), "unknown_provider", "{provider}");
    }
}

#[test]
fn without_a_provider_the_name_must_say_it_or_be_the_only_one() {
    let book = books();
    for (model, expected) in [
        ("gpt-4o-mini", "openai gpt-4o-mini by exact"),
        ("gpt-4o-mini-2024-07-18", "openai gpt-4o-mini by dated_suffix"),
        ("claude-sonnet-4", "anthropic claude-sonnet-4-20250514 by alias"),
        ("gpt-4o", "ambiguous_provider"),
        ("openai/gpt-4o", "openai gpt-4o by provider_prefix"),
        ("azure/gpt-4o", "openai gpt-4o by provider_prefix"),
        ("anthropic/claude-sonnet-4", "anthropic claude-sonnet-4-20250514 by provider_prefix"),
        ("openrouter/anthropic/claude-sonnet-4", "openrouter anthropic/claude-sonnet-4 by provider_prefix"),
        ("us.anthropic.claude-sonnet-5", "bedrock anthropic.claude-sonnet-5 by alias"),
        (
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-sonnet-5",
            "bedrock anthropic.claude-sonnet-5 by provider_prefix",
        ),
        ("openai/gpt-oss-120b", "unknown_model"),
        ("mistral/mistral-large", "unknown_provider"),
        ("llama3.1:70b-instruct", "unknown_model"),
        ("anything", "unknown_model"),
    ] {
        for provider in ["", "unknown", " Unknown ", "litellm"] {
            assert_eq!(
                found(&book, provider, model),
                expected,
                "{provider:?} {model}\n{}",
                book.explain(provider, model)
            );
        }
    }
}

#[test]
fn patterns_that_fit_equally_well_are_ambiguous_and_not_chosen_by_chance() {
    let text = r#"
        provider = "acme"
        [[model]]
        name = "a"
        free = true
        patterns = ["x-*-1"]
        [[model]]
        name = "b"
        free = true
        patterns = ["x-y-*", "x-*"]
    "#;
    let book = Book::from_toml(text, "acme.toml").unwrap();
    assert_eq!(found(&book, "acme", "x-z-1"), "acme a by pattern");
    assert_eq!(found(&book, "acme", "x-y-2"), "acme b by pattern");
    assert_eq!(found(&book, "acme", "x-y-1"), "ambiguous_pattern");
}

#[test]
fn a_books_own_azure_list_is_asked_before_openais() {
    let azure = "provider = \"azure\"\n[[model]]\nname = \"gpt-4o\"\nfree = true\n";
    let book = books().overlay(Book::from_toml(azure, "azure.toml").unwrap());
    assert_eq!(found(&book, "azure_openai", "gpt-4o"), "azure gpt-4o by exact");
    assert_eq!(found(&book, "azure", "gpt-4o-mini"), "unknown_model");
    assert_eq!(found(&book, "openai", "gpt-4o"), "openai gpt-4o by exact");
}

#[test]
fn an_explanation_shows_each_step_and_the_end() {
    let book = books();
    let explanation = book.explain("aws", "bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0");
    assert_eq!(explanation.matched_by, Some(MatchKind::ProviderPrefix));
    assert_eq!(
        explanation.to_string(),
        "provider `aws`, model `bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0`\n  \
         provider         aws                                              price list of `bedrock`\n  \
         name             bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0 not listed\n  \
         provider prefix  us.anthropic.claude-sonnet-4-20250514-v1:0       not listed\n  \
         provider prefix  anthropic.claude-sonnet-4-20250514-v1:0          model in the list of `bedrock`\n\
         => bedrock / anthropic.claude-sonnet-4-20250514-v1:0 (by provider_prefix)"
    );
    let explanation = book.explain("openai", "gpt-6");
    assert_eq!(explanation.unpriced_code, Some("unknown_model"));
    assert!(explanation.to_string().ends_with(&format!("=> unpriced: {}", book.plan("openai", "gpt-6").unwrap_err())));
}

#[test]
fn names_without_end_are_refused_and_not_echoed_whole() {
    let book = books();
    let error = book.plan("openai", &"x".repeat(100_000)).unwrap_err();
    assert_eq!(error.code(), "unknown_model");
    assert!(error.to_string().len() < 400);
}
