//! What is counted: the meters a provider bills by. They are disjoint (RATE-2): a token stands in exactly one of them.
//!
//! | meter | unit | side |
//! | --- | --- | --- |
//! | `input` | uncached text tokens | input |
//! | `cache_read` | tokens read from a prompt cache | input |
//! | `cache_write_5m`, `cache_write_1h`, `cache_write_12h` | tokens written to a prompt cache, by time to live | input |
//! | `audio_input`, `image_input`, `video` | tokens of that kind in the prompt | input |
//! | `output` | visible text tokens | output |
//! | `reasoning` | hidden thinking tokens | output |
//! | `audio_output`, `image_output` | generated tokens of that kind | output |
//! | `characters`, `pages`, `seconds` | text to speech, documents, audio or video by duration | none |
//! | `requests`, `tool_calls` | calls | none |
//! | `web_search_low`, `web_search_medium`, `web_search_high` | searches, by the size of the search context | none |

use std::fmt;

use serde::ser::{Serialize, Serializer};

/// One thing a provider counts and bills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Meter {
    Input,
    CacheRead,
    CacheWrite5m,
    CacheWrite1h,
    CacheWrite12h,
    Output,
    Reasoning,
    AudioInput,
    AudioOutput,
    ImageInput,
    ImageOutput,
    Video,
    Characters,
    Pages,
    Seconds,
    Requests,
    WebSearchLow,
    WebSearchMedium,
    WebSearchHigh,
    ToolCalls,
}

/// Which side of a request a token meter stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Input,
    Output,
}

impl Meter {
    pub const COUNT: usize = 20;

    /// All meters in the order in which they are written everywhere.
    pub const ALL: [Meter; Meter::COUNT] = [
        Meter::Input,
        Meter::CacheRead,
        Meter::CacheWrite5m,
        Meter::CacheWrite1h,
        Meter::CacheWrite12h,
        Meter::Output,
        Meter::Reasoning,
        Meter::AudioInput,
        Meter::AudioOutput,
        Meter::ImageInput,
        Meter::ImageOutput,
        Meter::Video,
        Meter::Characters,
        Meter::Pages,
        Meter::Seconds,
        Meter::Requests,
        Meter::WebSearchLow,
        Meter::WebSearchMedium,
        Meter::WebSearchHigh,
        Meter::ToolCalls,
    ];

    /// The cache-write meters, one per time to live.
    pub const CACHE_WRITES: [Meter; 3] = [Meter::CacheWrite5m, Meter::CacheWrite1h, Meter::CacheWrite12h];

    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in events, price books and the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Meter::Input => "input",
            Meter::CacheRead => "cache_read",
            Meter::CacheWrite5m => "cache_write_5m",
            Meter::CacheWrite1h => "cache_write_1h",
            Meter::CacheWrite12h => "cache_write_12h",
            Meter::Output => "output",
            Meter::Reasoning => "reasoning",
            Meter::AudioInput => "audio_input",
            Meter::AudioOutput => "audio_output",
            Meter::ImageInput => "image_input",
            Meter::ImageOutput => "image_output",
            Meter::Video => "video",
            Meter::Characters => "characters",
            Meter::Pages => "pages",
            Meter::Seconds => "seconds",
            Meter::Requests => "requests",
            Meter::WebSearchLow => "web_search_low",
            Meter::WebSearchMedium => "web_search_medium",
            Meter::WebSearchHigh => "web_search_high",
            Meter::ToolCalls => "tool_calls",
        }
    }

    /// The meter of a name, or of one of the names emitters use for it.
    ///
    /// | also accepted | is |
    /// | --- | --- |
    /// | `tokens_input`, `input_tokens`, `prompt_tokens` | `input` |
    /// | `cached`, `cached_tokens`, `cached_input`, `cached_input_tokens`, `cache_read_tokens`, `cache_hit` | `cache_read` |
    /// | `cache_write`, `cache_write_tokens`, `cache_creation` | `cache_write_5m` |
    /// | `tokens_output`, `output_tokens`, `completion_tokens` | `output` |
    /// | `reasoning_tokens`, `thinking`, `thinking_tokens` | `reasoning` |
    /// | `audio`, `audio_in`, `input_audio`, `audio_input_tokens` | `audio_input` |
    /// | `audio_out`, `output_audio`, `audio_output_tokens` | `audio_output` |
    /// | `image`, `image_in`, `input_image`, `image_input_tokens` | `image_input` |
    /// | `image_out`, `output_image`, `image_output_tokens` | `image_output` |
    /// | `video_input`, `video_tokens` | `video` |
    /// | `request`, `web_search`, `web_searches`, `tool_call`, … | the plural; searches are of medium context |
    ///
    /// Capitals and hyphens do not matter. Names that only one provider uses with its own convention
    /// (`cache_read_input_tokens`, `cache_creation_input_tokens`, …) are not accepted: there, input does *not* contain
    /// the cached tokens, so reading them here would charge wrongly. Such an object belongs in `provider_usage`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Meter> {
        Meter::from_plain_name(name).or_else(|| {
            if name.len() > 40 {
                return None;
            }
            let plain = name.to_ascii_lowercase().replace('-', "_");
            if plain == name { None } else { Meter::from_plain_name(&plain) }
        })
    }

    fn from_plain_name(name: &str) -> Option<Meter> {
        Some(match name {
            "input" | "tokens_input" | "input_tokens" | "prompt_tokens" => Meter::Input,
            "cache_read"
            | "cached"
            | "cached_tokens"
            | "cached_input"
            | "cached_input_tokens"
            | "cache_read_tokens"
            | "cache_hit" => Meter::CacheRead,
            "cache_write_5m" | "cache_write" | "cache_write_tokens" | "cache_creation" => Meter::CacheWrite5m,
            "cache_write_1h" => Meter::CacheWrite1h,
            "cache_write_12h" => Meter::CacheWrite12h,
            "output" | "tokens_output" | "output_tokens" | "completion_tokens" => Meter::Output,
            "reasoning" | "reasoning_tokens" | "thinking" | "thinking_tokens" => Meter::Reasoning,
            "audio_input" | "audio" | "audio_in" | "input_audio" | "audio_input_tokens" => Meter::AudioInput,
            "audio_output" | "audio_out" | "output_audio" | "audio_output_tokens" => Meter::AudioOutput,
            "image_input" | "image" | "image_in" | "input_image" | "image_input_tokens" => Meter::ImageInput,
            "image_output" | "image_out" | "output_image" | "image_output_tokens" => Meter::ImageOutput,
            "video" | "video_input" | "video_tokens" => Meter::Video,
            "characters" | "chars" => Meter::Characters,
            "pages" | "page" => Meter::Pages,
            "seconds" | "second" => Meter::Seconds,
            "requests" | "request" => Meter::Requests,
            "web_search_low" => Meter::WebSearchLow,
            "web_search_medium" | "web_search" | "web_searches" | "web_search_requests" => Meter::WebSearchMedium,
            "web_search_high" => Meter::WebSearchHigh,
            "tool_calls" | "tool_call" | "tools" => Meter::ToolCalls,
            _ => return None,
        })
    }

    /// The side a token meter stands on; `None` where the unit is not a token.
    #[must_use]
    pub const fn side(self) -> Option<Side> {
        match self {
            Meter::Input
            | Meter::CacheRead
            | Meter::CacheWrite5m
            | Meter::CacheWrite1h
            | Meter::CacheWrite12h
            | Meter::AudioInput
            | Meter::ImageInput
            | Meter::Video => Some(Side::Input),
            Meter::Output | Meter::Reasoning | Meter::AudioOutput | Meter::ImageOutput => Some(Side::Output),
            Meter::Characters
            | Meter::Pages
            | Meter::Seconds
            | Meter::Requests
            | Meter::WebSearchLow
            | Meter::WebSearchMedium
            | Meter::WebSearchHigh
            | Meter::ToolCalls => None,
        }
    }

    /// Whether the unit is a token (and its price usually quoted per million).
    #[must_use]
    pub const fn is_token(self) -> bool {
        self.side().is_some()
    }

    /// `input, cache_read, …`, for messages.
    #[must_use]
    pub fn known_names() -> String {
        Meter::ALL.map(Meter::name).join(", ")
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Meter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_meter_is_found_by_its_name_and_stands_at_its_index() {
        for (index, meter) in Meter::ALL.into_iter().enumerate() {
            assert_eq!(meter.index(), index);
            assert_eq!(Meter::from_name(meter.name()), Some(meter));
            assert_eq!(Meter::from_name(&meter.name().to_uppercase().replace('_', "-")), Some(meter));
        }
    }

    #[test]
    fn names_seen_in_the_wild_are_understood_and_provider_specific_ones_are_not() {
        for (name, meter) in [
            ("cache_write", Meter::CacheWrite5m),
            ("web_search", Meter::WebSearchMedium),
            ("image", Meter::ImageInput),
            ("prompt_tokens", Meter::Input),
            ("completion_tokens", Meter::Output),
        ] {
            assert_eq!(Meter::from_name(name), Some(meter), "{name}");
        }
        for name in ["cache_read_input_tokens", "cache_creation_input_tokens", "promptTokenCount", "", "total"] {
            assert_eq!(Meter::from_name(name), None, "{name}");
        }
    }
}
