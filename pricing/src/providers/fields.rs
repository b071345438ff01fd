//! Access to a usage object by path, which remembers what was looked at: what nobody asked for and still counts
//! something is an error in the end, so that a provider's new meter is never silently free (RATE-2, RATE-3).

use std::cell::Cell;

use super::{ProviderUsageError, shown};
use crate::json::Json;
use crate::meter::Meter;
use crate::money::Money;
use crate::usage::{COUNT_MAX, Usage, count_from_text};

type Result<T> = std::result::Result<T, ProviderUsageError>;

/// Words in the name of a key that say it counts something a provider may bill.
const COUNTING_WORDS: [&str; 17] = [
    "token",
    "count",
    "unit",
    "request",
    "search",
    "image",
    "audio",
    "video",
    "second",
    "character",
    "page",
    "call",
    "query",
    "queries",
    "citation",
    "source",
    "document",
];

pub(super) struct Fields<'j> {
    pub shape: &'static str,
    leaves: Vec<Leaf<'j>>,
}

struct Leaf<'j> {
    /// `prompt_tokens_details.cached_tokens`.
    path: String,
    value: &'j Json<'j>,
    used: Cell<bool>,
}

impl Leaf<'_> {
    /// Whether the path is one of the keys in one of the objects.
    fn is_within(&self, objects: &[&str], keys: &[&str]) -> bool {
        objects.iter().any(|object| {
            let inside = self.path.strip_prefix(object).and_then(|rest| rest.strip_prefix('.'));
            inside.is_some_and(|inside| keys.contains(&inside))
        })
    }
}

impl<'j> Fields<'j> {
    pub(super) fn new(shape: &'static str, object: &'j Json<'j>) -> Fields<'j> {
        Fields::renamed(shape, object, str::to_owned)
    }

    /// With every key passed through `rename`: SDKs write the same objects in snake and in camel case.
    pub(super) fn renamed(shape: &'static str, object: &'j Json<'j>, rename: fn(&str) -> String) -> Fields<'j> {
        let mut leaves = Vec::new();
        flatten(object, "", rename, &mut leaves);
        Fields { shape, leaves }
    }

    fn leaf(&self, path: &str) -> Option<&'j Json<'j>> {
        let leaf = self.leaves.iter().find(|leaf| leaf.path == path)?;
        leaf.used.set(true);
        Some(leaf.value).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.leaves.iter().any(|leaf| leaf.path == path && !leaf.value.is_null())
    }

    /// The count at a path; a missing key and `null` are "not sent".
    pub(super) fn count(&self, path: &str) -> Result<Option<u64>> {
        let Some(value) = self.leaf(path) else { return Ok(None) };
        let not_a_count = || ProviderUsageError::NotACount {
            shape: self.shape,
            field: path.to_owned(),
            value: shown(&value.to_string()),
        };
        let text = value.number().ok_or_else(not_a_count)?;
        let count = count_from_text(path, text).map_err(|_| not_a_count())?;
        if count > COUNT_MAX { Err(not_a_count()) } else { Ok(Some(count)) }
    }

    pub(super) fn count_or_0(&self, path: &str) -> Result<u64> {
        Ok(self.count(path)?.unwrap_or(0))
    }

    pub(super) fn required(&self, path: &str) -> Result<u64> {
        self.count(path)?.ok_or_else(|| ProviderUsageError::Missing { shape: self.shape, field: path.to_owned() })
    }

    /// One count that an object may give under several names: keys within one of some objects, and whole paths. Where
    /// it gives two, they must agree.
    pub(super) fn detail(&self, objects: &[&str], keys: &[&str], paths: &[&str]) -> Result<Option<u64>> {
        let mut first: Option<(&str, u64)> = None;
        for leaf in
            self.leaves.iter().filter(|leaf| paths.contains(&leaf.path.as_str()) || leaf.is_within(objects, keys))
        {
            let Some(count) = self.count(&leaf.path)? else { continue };
            match first {
                Some((other, value)) if value != count => {
                    return Err(ProviderUsageError::Disagree {
                        shape: self.shape,
                        field: other.to_owned(),
                        value,
                        other: leaf.path.clone(),
                        other_value: count,
                    });
                }
                _ => first = Some((&leaf.path, count)),
            }
        }
        Ok(first.map(|(_, value)| value))
    }

    pub(super) fn same(&self, paths: &[&str]) -> Result<Option<u64>> {
        self.detail(&[], &[], paths)
    }

    /// Marks keys within objects as known, as [`Fields::known`] does paths.
    pub(super) fn known_within(&self, objects: &[&str], keys: &[&str]) {
        let leaves = self.leaves.iter().filter(|leaf| leaf.is_within(objects, keys));
        leaves.for_each(|leaf| leaf.used.set(true));
    }

    pub(super) fn text(&self, path: &str) -> Option<&'j str> {
        self.leaf(path).and_then(Json::text)
    }

    pub(super) fn is_true(&self, path: &str) -> bool {
        matches!(self.leaf(path), Some(Json::Bool(true)))
    }

    pub(super) fn array(&self, path: &str) -> &'j [Json<'j>] {
        self.leaf(path).map_or(&[], Json::elements)
    }

    /// An amount of USD, rounded to 18 decimals if it is finer, and whether it was.
    pub(super) fn usd(&self, path: &str) -> Result<Option<(Money, bool)>> {
        let Some(value) = self.leaf(path) else { return Ok(None) };
        let text = value.number().or_else(|| value.text()).unwrap_or_default();
        match Money::parse_rounded(text) {
            Ok((money, rounded)) if !money.is_negative() => Ok(Some((money, rounded))),
            _ => Err(ProviderUsageError::NotACost {
                shape: self.shape,
                field: path.to_owned(),
                value: shown(&value.to_string()),
            }),
        }
    }

    /// Marks what is known and charges nothing: a path, or all below `prefix.`.
    pub(super) fn known(&self, paths: &[&str]) {
        for leaf in &self.leaves {
            let below = |path: &&str| leaf.path.strip_prefix(*path).is_some_and(|rest| rest.starts_with('.'));
            if paths.iter().any(|path| leaf.path == *path || below(path)) {
                leaf.used.set(true);
            }
        }
    }

    /// # Errors
    /// A count above zero that nobody asked for.
    pub(super) fn finish(&self) -> Result<()> {
        for leaf in self.leaves.iter().filter(|leaf| !leaf.used.get()) {
            if let Some((field, value)) = first_count(&leaf.path, leaf.value) {
                return Err(ProviderUsageError::UnknownCount { shape: self.shape, field, value });
            }
        }
        Ok(())
    }

    pub(super) fn parts_exceed(&self, total_name: &str, total: u64, parts: &[(&str, u64)]) -> ProviderUsageError {
        ProviderUsageError::PartsExceedTotal {
            shape: self.shape,
            total_name: total_name.to_owned(),
            total,
            parts: sum_text(parts),
        }
    }

    /// What of `total` is left beside its parts.
    pub(super) fn rest(&self, total_name: &str, total: u64, parts: &[(&str, u64)]) -> Result<u64> {
        let contained = parts.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        total.checked_sub(contained).ok_or_else(|| self.parts_exceed(total_name, total, parts))
    }

    /// Holds the object's own total against what was read.
    pub(super) fn check_total(&self, total_name: &str, parts: &[(&str, u64)]) -> Result<()> {
        let Some(total) = self.count(total_name)? else {
            return Ok(());
        };
        if parts.iter().map(|(_, count)| *count).fold(0, u64::saturating_add) == total {
            return Ok(());
        }
        Err(ProviderUsageError::TotalDisagrees {
            shape: self.shape,
            total_name: total_name.to_owned(),
            total,
            parts: sum_text(parts),
        })
    }
}

/// `a 1 + b 2` of the parts that are not zero.
fn sum_text(parts: &[(&str, u64)]) -> String {
    let parts: Vec<String> =
        parts.iter().filter(|(_, count)| *count != 0).map(|(name, count)| format!("{name} {count}")).collect();
    if parts.is_empty() { "0".to_owned() } else { parts.join(" + ") }
}

pub(super) fn usage_of(counts: &[(Meter, u64)]) -> Usage {
    let mut usage = Usage::ZERO;
    for (meter, count) in counts {
        // Counts are at most COUNT_MAX and there are few: the sum cannot leave u64.
        usage.set(*meter, usage.get(*meter).saturating_add(*count));
    }
    usage.set(Meter::Requests, usage.get(Meter::Requests).max(1));
    usage
}

fn flatten<'j>(value: &'j Json<'j>, path: &str, rename: fn(&str) -> String, leaves: &mut Vec<Leaf<'j>>) {
    for (key, member) in value.members() {
        let name = rename(key);
        let path = if path.is_empty() { name } else { format!("{path}.{name}") };
        if let Json::Object(_) = member {
            flatten(member, &path, rename, leaves);
        } else {
            leaves.push(Leaf { path, value: member, used: Cell::new(false) });
        }
    }
}

/// The first number above zero under a name that counts something.
fn first_count(path: &str, value: &Json<'_>) -> Option<(String, String)> {
    match value {
        Json::Number(text) => {
            let lower = path.to_ascii_lowercase();
            let counts = COUNTING_WORDS.iter().any(|word| lower.contains(word));
            let is_zero = Money::parse_rounded(text).is_ok_and(|(number, _)| number.is_zero());
            (counts && !is_zero).then(|| (shown(path), shown(text)))
        }
        Json::Array(elements) => elements.iter().find_map(|element| first_count(&format!("{path}[]"), element)),
        Json::Object(_) => value.members().find_map(|(key, member)| first_count(&format!("{path}.{key}"), member)),
        _ => None,
    }
}
