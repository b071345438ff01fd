//! Whom, what and when an entry of the contracts is for, and which of two is closer.

use std::sync::Arc;

use super::Account;
use crate::matching::{glob_fits, normalised_provider};
use crate::rating::Plan;
use crate::time::EventTime;

/// Whom, what and when an entry is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub id: Arc<str>,
    pub org_id: Option<String>,
    pub business_unit_id: Option<String>,
    /// Normalised.
    pub provider: Option<String>,
    /// In small letters; empty: every model.
    pub models: Vec<String>,
    pub from: EventTime,
    pub to: Option<EventTime>,
}

/// What a row may be called in a contract.
pub(super) struct Names {
    providers: [String; 2],
    models: [String; 2],
}

impl Names {
    pub(super) fn of(row: &Account<'_>, plan: Option<&Plan>) -> Names {
        let (provider, model) = plan.map_or((row.provider, row.model), |plan| (plan.provider(), plan.model()));
        Names {
            providers: [normalised_provider(row.provider), normalised_provider(provider)],
            models: [row.model.to_ascii_lowercase(), model.to_ascii_lowercase()],
        }
    }
}

impl Scope {
    pub(super) fn fits(&self, account: &Account<'_>, names: &Names) -> bool {
        let org = self.org_id.as_deref().is_none_or(|org| org == account.org_id);
        let unit = self.business_unit_id.as_deref();
        let unit = unit.is_none_or(|unit| account.business_unit_id == Some(unit));
        let provider = || {
            let provider = self.provider.as_ref();
            provider.is_none_or(|provider| names.providers.contains(provider))
        };
        let fits = |pattern: &String| names.models.iter().any(|model| glob_fits(pattern, model));
        org && unit && provider() && (self.models.is_empty() || self.models.iter().any(fits))
    }

    pub(super) fn holds(&self, at: EventTime) -> bool {
        self.from <= at && self.to.is_none_or(|to| at < to)
    }

    /// How close it is, less its start: whom, then what.
    pub(super) fn closeness(&self) -> (u8, usize, bool) {
        let whom = u8::from(self.org_id.is_some()) + 2 * u8::from(self.business_unit_id.is_some());
        let literal = |pattern: &String| pattern.bytes().filter(|byte| *byte != b'*').count() + 1;
        // Of several patterns the shortest: none is closer than it says.
        let what = self.models.iter().map(literal).min().unwrap_or(0);
        (whom, what, self.provider.is_some())
    }

    /// Whether both can be the closest for one row.
    pub(super) fn collides(&self, other: &Scope) -> bool {
        let same = self.org_id == other.org_id
            && self.business_unit_id == other.business_unit_id
            && self.provider == other.provider
            && self.from == other.from
            && self.closeness() == other.closeness();
        let any_model = self.models.is_empty() && other.models.is_empty();
        let meets = |model: &String| other.models.iter().any(|other| globs_meet(model.as_bytes(), other.as_bytes()));
        same && (any_model || self.models.iter().any(meets))
    }
}

/// Whether some name fits both patterns.
fn globs_meet(a: &[u8], b: &[u8]) -> bool {
    // `meets[j]`: whether what is left of `a` and b[j..] meet; rows are filled from the ends of the patterns.
    let only_stars = |rest: &[u8]| rest.iter().all(|byte| *byte == b'*');
    let mut meets: Vec<bool> = (0..=b.len()).map(|j| only_stars(&b[j..])).collect();
    for i in (0..a.len()).rev() {
        let below = meets.clone();
        meets[b.len()] = only_stars(&a[i..]);
        for j in (0..b.len()).rev() {
            meets[j] = match (a[i], b[j]) {
                (b'*', _) | (_, b'*') => below[j] || meets[j + 1],
                (x, y) => x == y && below[j + 1],
            };
        }
    }
    meets[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn two_patterns_meet_where_a_name_fits_both(a in "[ab*]{0,5}", b in "[ab*]{0,5}") {
            let mut names = vec![String::new()];
            let mut last = 0;
            for _ in 0..8 {
                let from = last;
                last = names.len();
                for position in from..last {
                    for letter in ["a", "b"] {
                        names.push(names[position].clone() + letter);
                    }
                }
            }
            let common = names.iter().any(|name| glob_fits(&a, name) && glob_fits(&b, name));
            prop_assert_eq!(globs_meet(a.as_bytes(), b.as_bytes()), common, "{} {}", a, b);
        }
    }
}
