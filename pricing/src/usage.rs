//! From what a sender reports to disjoint meters (RATE-2).
//!
//! A report comes as totals (`tokens_input`, `tokens_output`) and finer meters, under a [`Convention`];
//! [`ReportedUsage::normalize`] turns it into a [`Usage`] in which every token stands exactly once:
//!
//! | convention | `tokens_input` contains | `tokens_output` contains |
//! | --- | --- | --- |
//! | inclusive (default) | `cache_read`, `cache_write_*`, `audio_input`, `image_input`, `video` | `reasoning`, `audio_output`, `image_output` |
//! | exclusive | nothing else: uncached text only | nothing else: visible text only |
//!
//! Under the inclusive convention the uncached input is the difference. A negative difference means that the sender
//! counts otherwise: that is an error which says what to set, never a guess.
//!
//! Limits: a count is at most 10¹⁵; a JSON object of usage at most 64 KiB.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::meter::{Meter, Side};
use crate::money::Money;

/// No real event comes near it; a larger count is a unit error or an attack, and would only poison sums.
pub const COUNT_MAX: u64 = 1_000_000_000_000_000;
const JSON_MAX_BYTES: usize = 64 * 1024;

/// Counts by meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Usage([u64; Meter::COUNT]);

impl Usage {
    pub const ZERO: Usage = Usage([0; Meter::COUNT]);

    #[must_use]
    pub const fn get(&self, meter: Meter) -> u64 {
        self.0[meter.index()]
    }

    pub const fn set(&mut self, meter: Meter, count: u64) {
        self.0[meter.index()] = count;
    }

    /// Adds to one meter.
    ///
    /// # Errors
    /// Where the sum leaves `u64`; the usage is then unchanged.
    pub fn add(&mut self, meter: Meter, count: u64) -> Result<(), UsageError> {
        let slot = &mut self.0[meter.index()];
        *slot = slot.checked_add(count).ok_or(UsageError::TooLarge { meter: meter.name(), value: u64::MAX })?;
        Ok(())
    }

    /// The sum meter by meter, or `None` where one leaves `u64`.
    #[must_use]
    pub fn checked_add(&self, other: &Usage) -> Option<Usage> {
        let mut sum = *self;
        for (slot, count) in sum.0.iter_mut().zip(other.0) {
            *slot = slot.checked_add(count)?;
        }
        Some(sum)
    }

    /// The meters that are not zero, in meter order.
    pub fn iter(&self) -> impl Iterator<Item = (Meter, u64)> + '_ {
        Meter::ALL.into_iter().zip(self.0).filter(|(_, count)| *count != 0)
    }

    /// The counts in meter order.
    #[must_use]
    pub const fn counts(&self) -> &[u64; Meter::COUNT] {
        &self.0
    }

    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; Meter::COUNT]
    }

    /// Tokens of both sides. Saturates, like the totals below; counts from a normalised report cannot get there.
    #[must_use]
    pub fn tokens_total(&self) -> u64 {
        self.input_tokens_total().saturating_add(self.output_tokens_total())
    }

    /// All tokens that went in, cached or not: what context-length tiers are decided by.
    #[must_use]
    pub fn input_tokens_total(&self) -> u64 {
        self.side_total(Side::Input)
    }

    #[must_use]
    pub fn output_tokens_total(&self) -> u64 {
        self.side_total(Side::Output)
    }

    fn side_total(&self, side: Side) -> u64 {
        let on_side = Meter::ALL.into_iter().filter(|meter| meter.side() == Some(side));
        on_side.fold(0, |sum, meter| sum.saturating_add(self.get(meter)))
    }
}

/// Whether the totals of a report contain the finer meters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Convention {
    /// As OpenAI, Gemini and most gateways count.
    #[default]
    Inclusive,
    /// As Anthropic counts its input.
    Exclusive,
}

impl Convention {
    #[must_use]
    pub fn from_name(name: &str) -> Option<Convention> {
        if name.eq_ignore_ascii_case("inclusive") {
            Some(Convention::Inclusive)
        } else if name.eq_ignore_ascii_case("exclusive") {
            Some(Convention::Exclusive)
        } else {
            None
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Convention::Inclusive => "inclusive",
            Convention::Exclusive => "exclusive",
        }
    }
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Usage as a sender reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReportedUsage {
    pub tokens_input: Option<u64>,
    pub tokens_output: Option<u64>,
    /// Finer meters as sent. `input` and `output` here mean the same as `tokens_input` and `tokens_output`; 0 is "not
    /// sent".
    pub meters: Usage,
    pub convention: Convention,
}

/// Why a report of usage cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    #[error("usage is not a JSON object of meters and counts such as {{\"input\":1200,\"output\":300}}: {message}")]
    Json { message: String },
    #[error("unknown usage meter `{name}`; known are: {}{}", Meter::known_names(), hint_for(name))]
    UnknownMeter { name: String },
    #[error("usage gives `{meter}` twice (last as `{name}`)")]
    Twice { meter: &'static str, name: String },
    #[error("usage `{name}` is {value}; expected a count, a whole number from 0")]
    NotACount { name: String, value: String },
    #[error("usage `{meter}` is {value}; expected at most {COUNT_MAX} in one event")]
    TooLarge { meter: &'static str, value: u64 },
    #[error(
        "`{total_name}` is {total} but usage `{meter}` is {count}: they are the same thing, send one or make them agree"
    )]
    Disagree { total_name: &'static str, total: u64, meter: &'static str, count: u64 },
    #[error(
        "`{total_name}` is {total}, less than its parts {parts}: under the inclusive convention (the default) {total_name} \
         contains them; if it does not, set usage_convention to \"exclusive\""
    )]
    LessThanParts { total_name: &'static str, total: u64, parts: String },
    #[error("usage_convention is {value}; expected \"inclusive\" or \"exclusive\"")]
    UnknownConvention { value: String },
}

fn hint_for(name: &str) -> &'static str {
    match name {
        "cache_read_input_tokens"
        | "cache_creation_input_tokens"
        | "prompt_tokens_details"
        | "completion_tokens_details"
        | "input_tokens_details"
        | "output_tokens_details"
        | "promptTokenCount"
        | "inputTokens" => "; a provider's own usage object belongs in `provider_usage`",
        _ => "",
    }
}

impl ReportedUsage {
    /// The report as disjoint meters. `requests` is 1 where it was not sent.
    ///
    /// # Errors
    /// Totals that disagree with each other or are smaller than what they contain, and counts beyond [`COUNT_MAX`].
    pub fn normalize(&self) -> Result<Usage, UsageError> {
        let mut usage = self.meters;
        for (meter, count) in usage.iter() {
            within_limit(meter.name(), count)?;
        }
        for (total_name, total, meter, side) in [
            ("tokens_input", self.tokens_input, Meter::Input, Side::Input),
            ("tokens_output", self.tokens_output, Meter::Output, Side::Output),
        ] {
            let sent = usage.get(meter);
            let total = match total {
                Some(total) if sent != 0 && sent != total => {
                    return Err(UsageError::Disagree { total_name, total, meter: meter.name(), count: sent });
                }
                Some(total) => total,
                // Without any total the finer meters stand for themselves.
                None if sent == 0 => continue,
                None => sent,
            };
            within_limit(total_name, total)?;
            let rest = match self.convention {
                Convention::Exclusive => total,
                Convention::Inclusive => {
                    let parts = parts_of(&usage, meter, side);
                    let contained = parts.clone().fold(0, |sum, (_, count)| sum + count);
                    total.checked_sub(contained).ok_or_else(|| UsageError::LessThanParts {
                        total_name,
                        total,
                        parts: parts.map(|(part, count)| format!("{part} {count}")).collect::<Vec<_>>().join(" + "),
                    })?
                }
            };
            usage.set(meter, rest);
        }
        if usage.get(Meter::Requests) == 0 {
            usage.set(Meter::Requests, 1);
        }
        Ok(usage)
    }
}

fn parts_of(usage: &Usage, total: Meter, side: Side) -> impl Iterator<Item = (Meter, u64)> + Clone {
    let usage = *usage;
    Meter::ALL
        .into_iter()
        .filter(move |meter| meter.side() == Some(side) && *meter != total)
        .map(move |meter| (meter, usage.get(meter)))
        .filter(|(_, count)| *count != 0)
}

fn within_limit(meter: &'static str, value: u64) -> Result<(), UsageError> {
    if value <= COUNT_MAX { Ok(()) } else { Err(UsageError::TooLarge { meter, value }) }
}

/// Reads a flat JSON object of meter names and counts, with an optional `usage_convention`.
///
/// Counts are read from their text (no float): `1200.0` and `1.2e3` are 1200, `1.5` is refused. `null` is "not sent".
/// `total`, `total_tokens` and `tokens_total` are sums, not meters: they are passed over.
///
/// # Errors
/// Anything else, with the name and the value.
pub fn usage_from_json(json: &str) -> Result<ReportedUsage, UsageError> {
    if json.len() > JSON_MAX_BYTES {
        return Err(UsageError::Json { message: format!("{} bytes, more than {JSON_MAX_BYTES}", json.len()) });
    }
    let mut problem = None;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = deserializer
        .deserialize_map(UsageObject { problem: &mut problem })
        .and_then(|report| deserializer.end().map(|()| report));
    match (read, problem) {
        (_, Some(problem)) => Err(problem),
        (Ok(report), None) => Ok(report),
        (Err(error), None) => Err(UsageError::Json { message: error.to_string() }),
    }
}

/// Fills a report from a JSON object; what is wrong beyond JSON itself is left in `problem`, since serde can carry only
/// text.
struct UsageObject<'p> {
    problem: &'p mut Option<UsageError>,
}

enum Key {
    TokensInput,
    TokensOutput,
    Meter(Meter),
    Total,
    Convention,
    Unknown,
}

struct KeySeed<'n>(&'n mut String);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a meter")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Key, E> {
        self.0.clear();
        self.0.push_str(name);
        Ok(match name {
            "tokens_input" => Key::TokensInput,
            "tokens_output" => Key::TokensOutput,
            "usage_convention" => Key::Convention,
            "total" | "total_tokens" | "tokens_total" => Key::Total,
            _ => Meter::from_name(name).map_or(Key::Unknown, Key::Meter),
        })
    }
}

impl<'de> Visitor<'de> for UsageObject<'_> {
    type Value = ReportedUsage;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of meters and counts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReportedUsage, A::Error> {
        let mut report = ReportedUsage::default();
        let mut sent = [false; Meter::COUNT];
        let mut name = String::new();
        while let Some(key) = map.next_key_seed(KeySeed(&mut name))? {
            let value = map.next_value::<&RawValue>()?.get();
            if value == "null" && !matches!(key, Key::Unknown) {
                continue;
            }
            if let Err(problem) = take(&mut report, &mut sent, &key, &name, value) {
                *self.problem = Some(problem);
                return Err(de::Error::custom("see the problem"));
            }
        }
        Ok(report)
    }
}

fn take(
    report: &mut ReportedUsage,
    sent: &mut [bool; Meter::COUNT],
    key: &Key,
    name: &str,
    value: &str,
) -> Result<(), UsageError> {
    match key {
        Key::TokensInput | Key::TokensOutput => {
            let (slot, meter) = match key {
                Key::TokensInput => (&mut report.tokens_input, "tokens_input"),
                _ => (&mut report.tokens_output, "tokens_output"),
            };
            let count = count_from_text(name, value)?;
            if slot.replace(count).is_some() {
                return Err(UsageError::Twice { meter, name: name.to_owned() });
            }
        }
        Key::Meter(meter) => {
            if std::mem::replace(&mut sent[meter.index()], true) {
                return Err(UsageError::Twice { meter: meter.name(), name: name.to_owned() });
            }
            report.meters.set(*meter, count_from_text(name, value)?);
        }
        Key::Total => {}
        Key::Convention => {
            let convention = serde_json::from_str::<String>(value).ok();
            report.convention = convention
                .and_then(|name| Convention::from_name(&name))
                .ok_or_else(|| UsageError::UnknownConvention { value: shown(value) })?;
        }
        Key::Unknown => return Err(UsageError::UnknownMeter { name: shown(name) }),
    }
    Ok(())
}

/// A whole number from the text of a JSON number.
pub(crate) fn count_from_text(name: &str, text: &str) -> Result<u64, UsageError> {
    if text.len() <= 19 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // 19 digits fit a u64.
        return Ok(text.bytes().fold(0, |count, digit| count * 10 + u64::from(digit - b'0')));
    }
    let not_a_count = || UsageError::NotACount { name: name.to_owned(), value: shown(text) };
    let number: Money = text.parse().map_err(|_| not_a_count())?;
    if number.atto() % Money::ATTO_PER_USD != 0 {
        return Err(not_a_count());
    }
    u64::try_from(number.atto() / Money::ATTO_PER_USD).map_err(|_| not_a_count())
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usage(counts: &[(Meter, u64)]) -> Usage {
        let mut usage = Usage::ZERO;
        for (meter, count) in counts {
            usage.set(*meter, *count);
        }
        usage
    }

    fn normalized(json: &str) -> Result<Usage, UsageError> {
        usage_from_json(json)?.normalize()
    }

    #[test]
    fn inclusive_totals_are_split_and_no_token_stands_twice() {
        let split = normalized(
            r#"{"tokens_input":1200,"tokens_output":300,"cache_read":1000,"cache_write":50,"reasoning":100}"#,
        );
        let expected = usage(&[
            (Meter::Input, 150),
            (Meter::CacheRead, 1000),
            (Meter::CacheWrite5m, 50),
            (Meter::Output, 200),
            (Meter::Reasoning, 100),
            (Meter::Requests, 1),
        ]);
        assert_eq!(split, Ok(expected));
        assert_eq!(
            normalized(r#"{"input":1200,"output":300,"cached_tokens":1000,"cache_write_5m":50,"reasoning":100}"#),
            Ok(expected)
        );
    }

    #[test]
    fn exclusive_counts_are_taken_as_they_are() {
        let json = r#"{"input":150,"cache_read":1000,"output":300,"reasoning":100,"usage_convention":"exclusive","requests":2}"#;
        let expected = [
            (Meter::Input, 150),
            (Meter::CacheRead, 1000),
            (Meter::Output, 300),
            (Meter::Reasoning, 100),
            (Meter::Requests, 2),
        ];
        assert_eq!(normalized(json), Ok(usage(&expected)));
    }

    #[test]
    fn finer_meters_without_any_total_stand_for_themselves() {
        let counts = [(Meter::CacheRead, 1000), (Meter::Requests, 1)];
        assert_eq!(normalized(r#"{"cache_read":1000}"#), Ok(usage(&counts)));
    }

    #[test]
    fn a_total_smaller_than_its_parts_says_what_to_set() {
        let error = normalized(r#"{"tokens_input":100,"cache_read":900,"audio_input":5}"#).unwrap_err().to_string();
        for part in ["`tokens_input` is 100", "cache_read 900 + audio_input 5", "\"exclusive\""] {
            assert!(error.contains(part), "{error}");
        }
        assert!(normalized(r#"{"tokens_input":0,"cache_read":1}"#).is_err());
    }

    #[test]
    fn two_ways_to_say_the_same_total_must_agree() {
        assert!(normalized(r#"{"tokens_input":100,"input":100}"#).is_ok());
        let error = normalized(r#"{"tokens_output":100,"output":101}"#).unwrap_err();
        assert_eq!(
            error,
            UsageError::Disagree { total_name: "tokens_output", total: 100, meter: "output", count: 101 }
        );
    }

    #[test]
    fn counts_are_read_from_their_text() {
        for (text, count) in
            [("1200", 1200), ("1200.0", 1200), ("1.2e3", 1200), ("0", 0), ("1000000000000000", COUNT_MAX)]
        {
            let report = usage_from_json(&format!("{{\"input\": {text}}}")).unwrap();
            assert_eq!(report.meters.get(Meter::Input), count, "{text}");
        }
        for text in ["1.5", "-1", "\"12\"", "true", "[1]", "{}", "1e30"] {
            let error = usage_from_json(&format!("{{\"input\": {text}}}")).unwrap_err();
            assert!(matches!(&error, UsageError::NotACount { name, .. } if name == "input"), "{text}: {error}");
        }
        assert!(matches!(normalized(r#"{"input":1000000000000001}"#), Err(UsageError::TooLarge { .. })));
    }

    #[test]
    fn unknown_repeated_and_malformed_meters_are_named() {
        let error = usage_from_json(r#"{"inputt":1}"#).unwrap_err().to_string();
        assert!(error.contains("`inputt`") && error.contains("cache_write_12h"), "{error}");
        let error = usage_from_json(r#"{"input_tokens":10,"cache_read_input_tokens":1}"#).unwrap_err().to_string();
        assert!(error.contains("provider_usage"), "{error}");
        let error = usage_from_json(r#"{"cache_write":1,"cache_write_5m":1}"#).unwrap_err();
        assert_eq!(error, UsageError::Twice { meter: "cache_write_5m", name: "cache_write_5m".into() });
        let error = usage_from_json(r#"{"input":1,"usage_convention":"both"}"#).unwrap_err();
        assert_eq!(error, UsageError::UnknownConvention { value: "\"both\"".into() });
        for json in ["", "[]", "3", "{", "{\"input\":1} x", "{\"input\":}", "null"] {
            assert!(matches!(usage_from_json(json), Err(UsageError::Json { .. })), "{json}");
        }
    }

    #[test]
    fn nulls_and_totals_are_passed_over() {
        let report =
            usage_from_json(r#"{"input":1,"reasoning":null,"total_tokens":7,"usage_convention":null}"#).unwrap();
        assert_eq!(report.meters, usage(&[(Meter::Input, 1)]));
    }

    proptest! {
        #[test]
        fn normalising_keeps_every_token_exactly_once(counts in proptest::array::uniform20(0..COUNT_MAX / 20)) {
            let true_usage = Usage(counts);
            let mut meters = true_usage;
            meters.set(Meter::Input, 0);
            meters.set(Meter::Output, 0);
            let inclusive = ReportedUsage {
                tokens_input: Some(true_usage.input_tokens_total()),
                tokens_output: Some(true_usage.output_tokens_total()),
                meters,
                convention: Convention::Inclusive,
            };
            let exclusive = ReportedUsage {
                tokens_input: Some(true_usage.get(Meter::Input)),
                tokens_output: Some(true_usage.get(Meter::Output)),
                meters,
                convention: Convention::Exclusive,
            };
            let mut expected = true_usage;
            expected.set(Meter::Requests, expected.get(Meter::Requests).max(1));
            prop_assert_eq!(inclusive.normalize(), Ok(expected));
            prop_assert_eq!(exclusive.normalize(), Ok(expected));
        }

        #[test]
        fn no_json_makes_the_reader_panic(json in "\\PC{0,60}") {
            let _ = usage_from_json(&json);
        }
    }
}
