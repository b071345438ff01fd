//! From money spent to what follows from it. Everything here is a function of the budget and of two sums, before and
//! after: no clock, no memory. So a replay, a second replica and a restart come to the same alerts and the same
//! throttle.
//!
//! For one threshold at the amount *t* of one budget and period (BUDGET-1):
//!
//! | spent before | spent after | alert | throttle |
//! | --- | --- | --- | --- |
//! | < t | < t | none | unchanged |
//! | < t | ≥ t | [`Crossing`]; stored under [`alert_id`], so it is sent only if the id is new | tightened if the threshold throttles |
//! | ≥ t | ≥ t | none | unchanged |
//! | ≥ t | < t (correction) | none; the alert that was sent stands | relaxed |
//! | < t again | ≥ t again | the same crossing with the same id: the store drops it | tightened again |
//! | new period | counters start at 0 | every threshold is armed again, its ids are new | released |
//!
//! Exactly *t* is reached. The throttle follows the sum alone ([`standing`], BUDGET-2), never the path to it.

use std::fmt;
use std::str::FromStr;

use costhelm_pricing::{EventTime, Money};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::period::Period;
use super::scope::Scope;
use super::throttle::CloudEvent;
use super::{Budget, BudgetId, Owners, Percent, Severity, fixed_from_text, fixed_to_text, json_number, readable};

/// One threshold passed upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossing {
    /// Position in [`Budget::thresholds`].
    pub threshold: usize,
    pub percent: Percent,
    pub severity: Severity,
    /// Whether the threshold commands a throttle as well.
    pub throttle: bool,
}

/// Every threshold with before < t ≤ after, lowest first.
pub fn crossings(budget: &Budget, before: Money, after: Money) -> Vec<Crossing> {
    budget
        .thresholds
        .iter()
        .enumerate()
        .filter(|(_, t)| !t.percent.reached(before, budget.amount) && t.percent.reached(after, budget.amount))
        .map(|(threshold, t)| Crossing { threshold, percent: t.percent, severity: t.severity, throttle: t.throttle })
        .collect()
}

/// How severe a state is; ordered, `None` lowest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    #[default]
    None,
    Warning,
    Critical,
}

impl From<Severity> for Level {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Warning => Level::Warning,
            Severity::Critical => Level::Critical,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::None => "none",
            Level::Warning => "warning",
            Level::Critical => "critical",
        })
    }
}

/// Where a budget stands at one sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The gravest severity among the thresholds reached.
    pub level: Level,
    /// The highest threshold reached.
    pub reached: Option<usize>,
    /// The gravest severity among the reached thresholds that throttle.
    pub throttle: Level,
    /// The highest reached threshold that throttles.
    pub throttled_by: Option<usize>,
}

/// Where `budget` stands when `spent` has been spent in a period.
pub fn standing(budget: &Budget, spent: Money) -> Standing {
    let mut standing = Standing::default();
    for (index, t) in budget.thresholds.iter().enumerate().filter(|(_, t)| t.percent.reached(spent, budget.amount)) {
        standing.level = standing.level.max(t.severity.into());
        standing.reached = Some(index);
        if t.throttle {
            standing.throttle = standing.throttle.max(t.severity.into());
            standing.throttled_by = Some(index);
        }
    }
    standing
}

/// Spent ÷ amount in ten-thousandths, rounded down, so that 0.9499… never reads as 0.95. Written as `0.9512`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utilization(i128);

impl Utilization {
    /// `amount` is above zero in every validated budget. A ratio beyond 128 bits saturates.
    pub fn of(spent: Money, amount: Money) -> Self {
        let beyond = if spent < Money::ZERO { i128::MIN } else { i128::MAX };
        Self(spent.parts_per_million_of(amount).unwrap_or(beyond).div_euclid(100))
    }

    /// Percent with two decimals, `95.12`.
    pub fn percent(self) -> String {
        fixed_to_text(self.0, 2, 2)
    }
}

impl fmt::Display for Utilization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&fixed_to_text(self.0, 4, 4))
    }
}

impl FromStr for Utilization {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        fixed_from_text(text, 4)
            .map(Self)
            .ok_or_else(|| format!("utilization {text:?}: expected a decimal with 4 digits"))
    }
}

/// The identity of an alert. The same budget, period and threshold give the same id on every replica and after every
/// restart (BUDGET-1); the threshold counts by its percentage, so that adding another does not send the old ones
/// again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AlertId(pub String);

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A UUID (version 8) made of SHA-256 over budget, period label and percentage.
pub fn alert_id(budget: &BudgetId, period: &Period, threshold: Percent) -> AlertId {
    let mut hash = Sha256::new();
    for part in ["costhelm.alert.v1/threshold", &budget.0, &period.label, &threshold.to_string()] {
        // The length first: no two lists of parts give the same bytes.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    AlertId(uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string())
}

/// The `data` of a `costhelm.alert.v1` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertData {
    pub alert_id: AlertId,
    /// `threshold`.
    pub kind: String,
    pub severity: Severity,
    pub budget: BudgetId,
    pub scope: Scope,
    /// The period's label, `2026-11`.
    pub period: String,
    #[serde(with = "json_number")]
    pub threshold_percent: Percent,
    /// Whether agents are throttled from here on.
    pub throttle: bool,
    #[serde(with = "json_number")]
    pub utilization: Utilization,
    pub spent_usd: Money,
    pub budget_usd: Money,
    pub recipients: Owners,
    /// One sentence for a person.
    pub message: String,
}

pub const ALERT_TYPE: &str = "costhelm.alert.v1";

/// The alert of one crossing. `instance` names this engine in the event's source; `at` is when the crossing was seen.
pub fn alert(
    budget: &Budget,
    period: &Period,
    crossing: &Crossing,
    spent: Money,
    at: EventTime,
    instance: &str,
) -> CloudEvent<AlertData> {
    let alert_id = alert_id(&budget.id, period, crossing.percent);
    let utilization = Utilization::of(spent, budget.amount);
    let follows = if crossing.throttle {
        "; agents are throttled until spend falls, the budget is raised or the period ends"
    } else {
        ""
    };
    let data = AlertData {
        kind: "threshold".to_owned(),
        severity: crossing.severity,
        budget: budget.id.clone(),
        scope: budget.scope.clone(),
        period: period.label.clone(),
        threshold_percent: crossing.percent,
        throttle: crossing.throttle,
        utilization,
        spent_usd: spent,
        budget_usd: budget.amount,
        recipients: budget.owners.clone(),
        message: format!(
            "Budget {} ({}) has spent {} of {} USD in {}: {} %, past its {} threshold of {} %{follows}.",
            budget.id,
            budget.scope.key(),
            readable(spent),
            readable(budget.amount),
            period.label,
            utilization.percent(),
            Level::from(crossing.severity),
            crossing.percent,
        ),
        alert_id: alert_id.clone(),
    };
    CloudEvent::new(alert_id.0, instance, ALERT_TYPE, at, budget.scope.key(), data)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{budget, period, usd};
    use super::*;

    fn percents(found: &[Crossing]) -> Vec<String> {
        found.iter().map(|c| c.percent.to_string()).collect()
    }

    #[test]
    fn a_threshold_is_crossed_when_exactly_reached_and_not_one_atto_before() {
        let budget = budget("2000");
        let atto = Money::from_atto(1);
        let (at_75, below) = (usd("1500"), usd("1500").checked_sub(atto).unwrap());
        assert_eq!(percents(&crossings(&budget, Money::ZERO, below)), [""; 0]);
        assert_eq!(percents(&crossings(&budget, below, at_75)), ["75"]);
        assert_eq!(percents(&crossings(&budget, at_75, usd("1899"))), [""; 0]);
        assert_eq!(Utilization::of(below, budget.amount).to_string(), "0.7499");
    }

    #[test]
    fn one_leap_over_both_thresholds_crosses_both_in_ascending_order() {
        let found = crossings(&budget("10"), Money::ZERO, usd("120"));
        assert_eq!(percents(&found), ["75", "95"]);
        assert_eq!((found[0].severity, found[0].throttle), (Severity::Warning, false));
        assert_eq!((found[1].severity, found[1].throttle), (Severity::Critical, true));
    }

    #[test]
    fn a_correction_downwards_crosses_nothing_and_a_second_rise_repeats_the_same_alert_id() {
        let (budget, period) = (budget("100"), period());
        assert!(crossings(&budget, usd("96"), usd("-5")).is_empty());
        assert!(crossings(&budget, usd("96"), usd("96")).is_empty());
        let ids = |from: &str, to: &str| -> Vec<AlertId> {
            crossings(&budget, usd(from), usd(to)).iter().map(|c| alert_id(&budget.id, &period, c.percent)).collect()
        };
        assert_eq!(ids("70", "80"), ids("60", "76"));
    }

    #[test]
    fn the_standing_falls_back_as_spend_is_corrected() {
        let budget = budget("100");
        let at = |spent: &str| standing(&budget, usd(spent));
        assert_eq!(at("74.99"), Standing::default());
        assert_eq!(at("75"), Standing { level: Level::Warning, reached: Some(0), ..Standing::default() });
        let critical =
            Standing { level: Level::Critical, reached: Some(1), throttle: Level::Critical, throttled_by: Some(1) };
        assert_eq!(at("95"), critical);
        assert_eq!(at("94.999999").throttle, Level::None);
    }

    #[test]
    fn alert_ids_differ_by_budget_period_and_threshold_and_never_change_between_releases() {
        let (id, this) = (BudgetId("platform-month".into()), period());
        let next = Period { label: "2026-12".into(), ..this.clone() };
        let percent = |text: &str| text.parse::<Percent>().unwrap();
        let first = alert_id(&id, &this, percent("75"));
        assert_eq!(first.0, "05b552d7-21dd-8519-bb24-662d0c0fde79");
        for other in [
            alert_id(&id, &next, percent("75")),
            alert_id(&id, &this, percent("7.5")),
            alert_id(&BudgetId("platform-month2".into()), &this, percent("75")),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn an_alert_is_a_cloud_event_that_a_person_and_a_program_can_read() {
        let (budget, period, at) = (budget("2000"), period(), EventTime(1_795_392_000_000_000));
        let spent = usd("1902.420000000000000001");
        let crossing = crossings(&budget, Money::ZERO, spent)[1];
        let event = alert(&budget, &period, &crossing, spent, at, "node-1");
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<CloudEvent<AlertData>>(&text).unwrap(), event);
        assert!(text.contains(r#""threshold_percent":95,"throttle":true,"utilization":0.9512,"#), "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["id"], json["data"]["alert_id"]);
        assert_eq!(json["source"], "costhelm/node-1");
        assert_eq!(json["type"], "costhelm.alert.v1");
        assert_eq!(json["time"], "2026-11-23T00:00:00Z");
        assert_eq!(json["data"]["spent_usd"], "1902.420000000000000001");
        assert_eq!(json["data"]["recipients"], serde_json::json!({"finance": "cfo@example.org"}));
        assert_eq!(
            json["data"]["message"],
            "Budget platform-month (environment=prod) has spent 1902.42 of 2000 USD in 2026-11: 95.12 %, past its critical threshold of \
             95 %; agents are throttled until spend falls, the budget is raised or the period ends."
        );
    }

    fn atto() -> impl Strategy<Value = Money> {
        (-200_i128..200_000_000_000).prop_map(|n| Money::from_atto(n * 10_000_000_000))
    }

    proptest! {
        #[test]
        fn a_rise_in_steps_crosses_what_one_leap_crosses_each_once(mut path in prop::collection::vec(atto(), 2..20)) {
            path.sort();
            let budget = budget("1000");
            let steps: Vec<Crossing> = path.windows(2).flat_map(|step| crossings(&budget, step[0], step[1])).collect();
            prop_assert_eq!(steps, crossings(&budget, path[0], path[path.len() - 1]));
        }

        #[test]
        fn crossings_are_what_the_standing_gained(before in atto(), after in atto()) {
            let budget = budget("1000");
            let found = crossings(&budget, before, after);
            let reached = |spent| standing(&budget, spent).reached.map_or(0, |index| index + 1);
            prop_assert_eq!(found.len(), reached(after).saturating_sub(reached(before)));
            if let Some(last) = found.last() {
                prop_assert_eq!(Some(last.threshold), standing(&budget, after).reached);
            }
        }
    }
}
