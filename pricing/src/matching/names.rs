//! Names as text: what providers are called, and the parts of a model name. Pure functions, no book.

/// What providers are called elsewhere, and under which names a book may list them, best first.
///
/// OpenAI's models cost the same on Azure; Google's the same in AI Studio and Vertex AI. A book that lists `azure` or
/// `vertex_ai` itself is asked for that first.
pub const SYNONYMS: &[(&[&str], &[&str])] = &[
    (&["openai", "open_ai", "openai_chat", "openai_responses"], &["openai"]),
    (
        &["azure", "azure_openai", "azureopenai", "azure_openai_chat", "azure_ai_openai", "az_ai_openai"],
        &["azure", "azure_openai", "openai"],
    ),
    (&["anthropic", "claude", "anthropic_api"], &["anthropic"]),
    (
        &[
            "google",
            "gemini",
            "google_ai",
            "google_ai_studio",
            "google_genai",
            "google_gemini",
            "gcp_gemini",
            "gcp_gen_ai",
        ],
        &["google", "gemini"],
    ),
    (
        &["vertex_ai", "vertex", "vertexai", "google_vertex", "google_vertexai", "google_vertex_ai", "gcp_vertex_ai"],
        &["vertex_ai", "google", "gemini"],
    ),
    (
        &["bedrock", "aws", "aws_bedrock", "amazon", "amazon_bedrock", "bedrock_converse", "aws_bedrock_converse"],
        &["bedrock", "aws_bedrock", "amazon_bedrock", "aws"],
    ),
    (&["ollama", "ollama_local", "ollama_chat"], &["ollama"]),
    (&["mistral", "mistralai", "mistral_ai"], &["mistral", "mistralai"]),
    (&["cohere", "cohere_chat"], &["cohere"]),
    (&["deepseek", "deep_seek"], &["deepseek"]),
    (&["xai", "x_ai"], &["xai", "x_ai"]),
    (&["groq", "groqcloud"], &["groq"]),
    (&["openrouter", "open_router"], &["openrouter"]),
];

/// Providers through which models of other vendors are reached: their prefix says how, not whose.
pub(super) const ROUTES: [&str; 5] = ["azure", "vertex_ai", "bedrock", "openrouter", "litellm"];
/// What senders write when they do not know the provider, and proxies that are none.
pub(super) const NO_PROVIDER: [&str; 9] =
    ["", "unknown", "none", "null", "n/a", "other", "litellm", "litellm_proxy", "litellm_sdk"];
/// Cross-region inference profiles of Bedrock.
pub(super) const BEDROCK_REGIONS: [&str; 10] = ["us-gov", "global", "apac", "us", "eu", "jp", "au", "ca", "sa", "in"];
pub(super) const BEDROCK_VENDORS: [&str; 16] = [
    "ai21",
    "amazon",
    "anthropic",
    "cohere",
    "deepseek",
    "google",
    "luma",
    "meta",
    "minimax",
    "mistral",
    "moonshot",
    "nvidia",
    "openai",
    "qwen",
    "stability",
    "writer",
];

/// Provider names with `_` for `-`, `.` and space, in small letters.
pub(crate) fn normalised(provider: &str) -> String {
    let unify = |letter: char| {
        if matches!(letter, '-' | '.' | ' ') { '_' } else { letter.to_ascii_lowercase() }
    };
    provider.trim().chars().map(unify).collect()
}

/// Whether a normalised name is a common one for the first of a row of [`SYNONYMS`].
pub(super) fn is_called(name: &str, first: &str) -> bool {
    name == first || SYNONYMS.iter().any(|(names, _)| names[0] == first && names.contains(&name))
}

pub(super) fn is_route(name: &str) -> bool {
    ROUTES.iter().any(|route| is_called(name, route))
}

/// The provider that a model name speaks of.
pub(super) fn implied_provider(name: &str) -> Option<&str> {
    if name.starts_with("arn:") {
        return name.split(':').nth(2).filter(|service| *service == "bedrock");
    }
    let dotted: Vec<&str> = name.splitn(3, '.').collect();
    let is_vendor = |part: &&str| BEDROCK_VENDORS.contains(part);
    match dotted.as_slice() {
        [vendor, ..] if is_vendor(vendor) => return Some("bedrock"),
        [region, vendor, ..] if BEDROCK_REGIONS.contains(region) && is_vendor(vendor) => return Some("bedrock"),
        _ => {}
    }
    name.split_once('/').map(|(prefix, _)| prefix)
}

/// `us-east-1`, `us-gov-west-1`
pub(super) fn is_aws_region(segment: &str) -> bool {
    let parts: Vec<&str> = segment.split('-').collect();
    matches!(parts.as_slice(), [area, .., number] if parts.len() >= 3 && area.len() == 2
        && number.len() == 1 && number.bytes().all(|byte| byte.is_ascii_digit())
        && parts[..parts.len() - 1].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase())))
}

/// `claude-sonnet-4-20250514-v1:0` without its `-v1:0`.
pub(super) fn without_bedrock_version(name: &str) -> &str {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match name.rsplit_once("-v") {
        Some((model, version)) => match version.split_once(':') {
            Some((major, minor)) if digits(major) && digits(minor) => model,
            None if digits(version) => model,
            _ => name,
        },
        None => name,
    }
}

/// The names to try for a dated one.
pub(super) fn without_date(name: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some(base) =
        name.strip_suffix("-latest").or_else(|| name.strip_suffix(":latest")).or_else(|| name.strip_suffix("@latest"))
    {
        names.push(base.to_owned());
    } else if let Some((base, date)) = name.rsplit_once('@')
        && is_date(date)
    {
        names.push(format!("{base}-{date}"));
        names.push(base.to_owned());
    } else {
        for length in ["-20250514".len(), "-2025-05-14".len()] {
            // Byte positions are checked: a name need not be ASCII.
            if let Some(split) = name.len().checked_sub(length)
                && let (Some(base), Some(suffix)) = (name.get(..split), name.get(split..))
                && suffix.strip_prefix('-').is_some_and(is_date)
            {
                names.push(base.to_owned());
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// `20250514` or `2025-05-14`, of this century.
pub(super) fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (year, month, day) = match bytes {
        [y @ .., b'-', m1, m2, b'-', d1, d2] => (y, [*m1, *m2], [*d1, *d2]),
        [y1, y2, y3, y4, m1, m2, d1, d2] => (&[*y1, *y2, *y3, *y4][..], [*m1, *m2], [*d1, *d2]),
        _ => return false,
    };
    let digits = year.iter().chain(&month).chain(&day).all(u8::is_ascii_digit);
    digits
        && year.len() == 4
        && year.starts_with(b"20")
        && (*b"01"..=*b"12").contains(&month)
        && (*b"01"..=*b"31").contains(&day)
}

/// Whether a pattern with `*` for any run of characters fits the whole name.
pub(crate) fn glob_fits(glob: &str, name: &str) -> bool {
    let (glob, name) = (glob.as_bytes(), name.as_bytes());
    let (mut at_glob, mut at_name) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while at_name < name.len() {
        match glob.get(at_glob) {
            Some(b'*') => {
                last_star = Some((at_glob, at_name));
                at_glob += 1;
            }
            Some(byte) if *byte == name[at_name] => {
                at_glob += 1;
                at_name += 1;
            }
            _ => match &mut last_star {
                // Let the star take one more byte, and try again behind it.
                Some((star, taken)) => {
                    *taken += 1;
                    at_glob = *star + 1;
                    at_name = *taken;
                }
                None => return false,
            },
        }
    }
    glob[at_glob..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (glob, name, fits) in [
            ("llama3.1:70b*", "llama3.1:70b-instruct-q4", true),
            ("llama3.1:70b*", "llama3.1:70b", true),
            ("llama3.1:70b*", "llama3.1:8b", false),
            ("*-mini-*", "gpt-4o-mini-tts", true),
            ("*-mini-*", "gpt-4o-mini", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-cd", false),
            ("*", "", true),
            ("a", "", false),
        ] {
            assert_eq!(glob_fits(glob, name), fits, "{glob} {name}");
        }
    }

    #[test]
    fn only_true_dates_are_cut_off() {
        for (name, expected) in [
            ("gpt-4o-2024-08-06", vec!["gpt-4o"]),
            ("claude-sonnet-4-20250514", vec!["claude-sonnet-4"]),
            ("claude-sonnet-4@20250514", vec!["claude-sonnet-4-20250514", "claude-sonnet-4"]),
            ("llama3.1:latest", vec!["llama3.1"]),
            ("mistral-large-latest", vec!["mistral-large"]),
            ("gpt-4-0613", vec![]),
            ("mistral-large-2407", vec![]),
            ("model-20251301", vec![]),
            ("model-12345678", vec![]),
            ("llama3.1:70b", vec![]),
            ("gemini-2.5-pro-preview-05-06", vec![]),
            ("-20250514", vec![]),
            ("ö-2025-05-14", vec!["ö"]),
            ("öööööö", vec![]),
        ] {
            assert_eq!(without_date(name), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn globs_agree_with_a_plain_recursive_definition(glob in "[ab*]{0,8}", name in "[ab]{0,10}") {
            fn fits(glob: &[u8], name: &[u8]) -> bool {
                match (glob, name) {
                    ([], []) => true,
                    ([b'*', rest @ ..], _) => fits(rest, name) || (!name.is_empty() && fits(glob, &name[1..])),
                    ([a, glob @ ..], [b, name @ ..]) => a == b && fits(glob, name),
                    _ => false,
                }
            }
            prop_assert_eq!(glob_fits(&glob, &name), fits(glob.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn no_name_makes_the_rules_panic(name in "\\PC{0,40}") {
            let _ = without_date(&name);
            let _ = without_bedrock_version(&name);
            let _ = implied_provider(&name);
            let _ = is_aws_region(&name);
        }
    }
}
