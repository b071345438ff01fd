//! Budgets: how much a scope may spend in a calendar period, and what follows when it does.
//!
//! An event falls into every budget whose [`scope`] matches, and there into the [`period`] that holds its time. The
//! sum before and after goes to [`rules`], which names the thresholds crossed and where the budget stands; from the
//! standing of all budgets of a scope, [`throttle`] makes the command that agents obey. All of it is pure: sums,
//! times and sequences come from outside.
//!
//! Limits: 20,000 budgets, 16 thresholds and 64 model substitutions a budget, ids of 128 bytes, scope values and
//! model names of 256, descriptions of 1,024.

pub mod period;
pub mod rules;
pub mod scope;
pub mod throttle;

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use chrono_tz::Tz;
use costhelm_pricing::Money;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use period::{Period, PeriodKind, period_of};
pub use rules::{AlertId, Crossing, Level, Standing, Utilization, alert, alert_id, crossings, standing};
pub use scope::{Scope, ScopeOf};
pub use throttle::{CloudEvent, EffectiveThrottle, Spend, ThrottleCommand, ThrottlePolicy, most_restrictive};

pub const BUDGETS_MAX: usize = 20_000;
pub const THRESHOLDS_MAX: usize = 16;
pub const SUBSTITUTIONS_MAX: usize = 64;
const ID_BYTES_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 256;
const DESCRIPTION_BYTES_MAX: usize = 1_024;

/// The name of a budget; alerts and counters are kept under it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct BudgetId(pub String);

impl fmt::Display for BudgetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An amount that a scope may spend in each period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Unique name: letters, digits, `.`, `_`, `-`. A budget that is renamed starts at zero.
    pub id: BudgetId,
    /// Amount for one period in USD, above zero: in quotes where it has decimals.
    #[serde(rename = "amount_usd", deserialize_with = "from_text")]
    #[schemars(schema_with = "decimal_schema")]
    pub amount: Money,
    /// `daily` or `monthly`. Default `monthly`.
    #[serde(default)]
    pub period: PeriodKind,
    /// IANA time zone whose midnights bound the periods, e.g. `America/New_York`. Default `UTC`.
    #[serde(rename = "timezone", default = "utc", deserialize_with = "from_text", serialize_with = "zone_name")]
    #[schemars(with = "String")]
    pub zone: Tz,
    /// Which events count. Default: all.
    #[serde(default)]
    pub scope: Scope,
    /// What happens at which share of the amount, lowest first. Default: 75 % warning; 95 % critical with throttle.
    #[serde(rename = "threshold", default = "default_thresholds")]
    pub thresholds: Vec<Threshold>,
    /// What a throttling threshold commands.
    #[serde(default)]
    pub throttle: ThrottlePolicy,
    /// Who is told.
    #[serde(default)]
    pub owners: Owners,
    /// What the budget is for, in a sentence.
    #[serde(default)]
    pub description: String,
}

/// A share of the amount that raises an alert when spend reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// Percent of the amount, above 0 to 1000 with at most one decimal, which goes in quotes: `75`, `"99.5"`.
    #[serde(deserialize_with = "from_text")]
    #[schemars(schema_with = "decimal_schema")]
    pub percent: Percent,
    /// `warning` or `critical`.
    pub severity: Severity,
    /// Whether agents are throttled while spend is at or above it. Default `false`.
    #[serde(default)]
    pub throttle: bool,
}

/// How grave an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Warning,
    Critical,
}

/// The people behind a budget, as the alert's recipients: e-mail addresses, handles or names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Owners {
    /// Who runs the agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub technical: Option<String>,
    /// Who answers for the money.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finance: Option<String>,
}

fn utc() -> Tz {
    Tz::UTC
}

fn default_thresholds() -> Vec<Threshold> {
    vec![
        Threshold { percent: Percent(750), severity: Severity::Warning, throttle: false },
        Threshold { percent: Percent(950), severity: Severity::Critical, throttle: true },
    ]
}

/// One wrong value: whose, where, what it is and what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("budget \"{budget}\": {key} = {value}: expected {expected}")]
pub struct BudgetError {
    pub budget: BudgetId,
    /// Path of the key below `[[budget]]`, `threshold[1].percent`.
    pub key: String,
    pub value: String,
    pub expected: String,
}

impl Budget {
    /// Everything that is wrong with it.
    pub fn validate(&self) -> Vec<BudgetError> {
        let mut errors = Vec::new();
        let mut expect = |holds: bool, key: &str, value: &dyn fmt::Debug, expected: &str| {
            if !holds {
                let (key, value) = (key.to_owned(), format!("{value:?}"));
                errors.push(BudgetError { budget: self.id.clone(), key, value, expected: expected.to_owned() });
            }
        };
        let id = &self.id.0;
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        expect(
            plain && (1..=ID_BYTES_MAX).contains(&id.len()),
            "id",
            id,
            "1 to 128 letters, digits, \".\", \"_\" or \"-\"",
        );
        expect(self.amount > Money::ZERO, "amount_usd", &self.amount.to_string(), "an amount above 0");
        expect(self.description.len() <= DESCRIPTION_BYTES_MAX, "description", &self.description, "at most 1024 bytes");
        for (name, value) in scope::SCOPE_FIELDS.iter().zip(self.scope.values()) {
            expect(value.is_none_or(is_name), &format!("scope.{name}"), &value.unwrap_or_default(), NAME_EXPECTED);
        }
        for (name, owner) in [("technical", &self.owners.technical), ("finance", &self.owners.finance)] {
            let owner = owner.as_deref();
            expect(owner.is_none_or(is_name), &format!("owners.{name}"), &owner.unwrap_or_default(), NAME_EXPECTED);
        }

        let count = self.thresholds.len();
        expect(
            (1..=THRESHOLDS_MAX).contains(&count),
            "threshold",
            &count,
            "1 to 16 thresholds, or none of the tables for the defaults",
        );
        let mut below = Percent(0);
        for (index, threshold) in self.thresholds.iter().enumerate() {
            let (key, percent) = (format!("threshold[{index}].percent"), threshold.percent);
            expect(
                (1..=10_000).contains(&percent.0),
                &key,
                &percent.to_string(),
                "a percentage above 0 and at most 1000",
            );
            expect(
                index == 0 || percent > below,
                &key,
                &percent.to_string(),
                &format!("more than {below}, the threshold before it"),
            );
            below = percent;
        }

        let policy = &self.throttle;
        let factor = policy.concurrency_factor;
        expect(factor <= Factor::ONE, "throttle.concurrency_factor", &factor.to_string(), "a number from 0 to 1");
        let count = policy.model_substitutions.len();
        expect(count <= SUBSTITUTIONS_MAX, "throttle.model_substitutions", &count, "at most 64 entries");
        for (from, to) in &policy.model_substitutions {
            expect(is_name(from) && is_name(to), &format!("throttle.model_substitutions.{from:?}"), to, NAME_EXPECTED);
        }
        for from in policy.circular_models() {
            let key = format!("throttle.model_substitutions.{from:?}");
            expect(
                false,
                &key,
                &policy.model_substitutions[from],
                "a model that does not lead back to the replaced one",
            );
        }
        let commands = *policy != ThrottlePolicy::free() || !self.thresholds.iter().any(|threshold| threshold.throttle);
        expect(commands, "throttle", &"", "a restriction, because a threshold has throttle = true");
        errors
    }
}

/// Checks each budget, that ids are unique, and that there are not too many.
pub fn validate_all(budgets: &[Budget]) -> Result<(), Vec<BudgetError>> {
    let mut errors: Vec<BudgetError> = budgets.iter().flat_map(Budget::validate).collect();
    let mut seen = HashSet::new();
    for (index, budget) in budgets.iter().enumerate() {
        let expected = match () {
            () if index == BUDGETS_MAX => format!("at most {BUDGETS_MAX} budgets, found {}", budgets.len()),
            () if !seen.insert(&budget.id) => "an id that no other budget has".to_owned(),
            () => continue,
        };
        errors.push(BudgetError {
            budget: budget.id.clone(),
            key: "id".to_owned(),
            value: format!("{:?}", budget.id.0),
            expected,
        });
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

const NAME_EXPECTED: &str = "1 to 256 bytes without control characters";

fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Percent of an amount, exact to a tenth: counted in thousandths of the amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u32);

impl Percent {
    /// Whether `spent` is at least this share of `amount`.
    pub fn reached(self, spent: Money, amount: Money) -> bool {
        spent.at_least_fraction_of(amount, self.0)
    }
}

/// A share between 0 and 1, exact to a thousandth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Factor(u32);

impl Factor {
    pub const ONE: Self = Self(1_000);
    pub const HALF: Self = Self(500);

    pub fn thousandths(self) -> u32 {
        self.0
    }
}

macro_rules! decimal_text {
    ($name:ident, $digits:literal, $expected:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&fixed_to_text(self.0.into(), $digits, 0))
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let value = fixed_from_text(text, $digits).and_then(|value| u32::try_from(value).ok());
                value.map(Self).ok_or_else(|| format!("expected {}", $expected))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

decimal_text!(Percent, 1, "a percentage with at most one decimal, such as 75 or \"99.5\"");
decimal_text!(Factor, 3, "a factor with at most three decimals, such as \"0.5\"");

/// Reads a decimal with at most `digits` decimals as a count of 10^-digits. No float on the way (MONEY-1).
fn fixed_from_text(text: &str, digits: usize) -> Option<i128> {
    let (sign, unsigned) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, decimals) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !numeric(whole) || !numeric(decimals) {
        return None;
    }
    let decimals = decimals.trim_end_matches('0');
    if decimals.len() > digits {
        return None;
    }
    format!("{whole}{decimals:0<digits$}").parse::<i128>().ok()?.checked_mul(sign)
}

/// Writes a count of 10^-digits as a decimal with at least `digits_min` decimals.
fn fixed_to_text(value: i128, digits: usize, digits_min: usize) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let mut text = format!("{:0>width$}", value.unsigned_abs(), width = digits + 1);
    let decimals = text.split_off(text.len() - digits);
    let kept = decimals.trim_end_matches('0').len().max(digits_min);
    if kept == 0 { format!("{sign}{text}") } else { format!("{sign}{text}.{}", &decimals[..kept]) }
}

/// Money for a sentence: whole cents, rounded towards zero, from one dollar on.
fn readable(money: Money) -> String {
    const CENT: i128 = 10_i128.pow(16);
    let atto = money.atto();
    if atto.unsigned_abs() < 10_u128.pow(18) {
        money.to_string()
    } else {
        Money::from_atto(atto - atto % CENT).to_string()
    }
}

/// Reads a value from a string or an integer; a float is refused, for its digits are not those that were written.
fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(deserializer: D) -> Result<T, D::Error> {
    struct Text<T>(PhantomData<T>);

    impl<T: FromStr<Err: fmt::Display>> de::Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value in quotes or an integer")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(|error| E::custom(format_args!("{text:?}: {error}")))
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
            Err(E::custom(format_args!(
                "{number}: expected decimals in quotes, so that they are read exactly: \"{number}\""
            )))
        }
    }

    deserializer.deserialize_any(Text(PhantomData))
}

fn decimal_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "integer"], "pattern": "^[0-9]+(\\.[0-9]+)?$", "minimum": 0 })
}

fn zone_name<S: Serializer>(zone: &Tz, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(zone.name())
}

/// An exact decimal as a JSON number, written and read as text. JSON only.
mod json_number {
    use serde::{de, ser};
    use serde_json::value::RawValue;

    use super::*;

    pub fn serialize<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(value.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }

    pub fn deserialize<'de, T: FromStr<Err: fmt::Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        text.get().parse().map_err(|error| de::Error::custom(format_args!("{}: {error}", text.get())))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use costhelm_pricing::EventTime;

    use super::*;

    pub(crate) fn usd(text: &str) -> Money {
        text.parse().unwrap()
    }

    /// A monthly budget for `environment=prod` with the default thresholds and policy.
    pub(crate) fn budget(amount_usd: &str) -> Budget {
        let rest = "scope.environment = \"prod\"\nowners.finance = \"cfo@example.org\"";
        parse(&format!("id = \"platform-month\"\namount_usd = \"{amount_usd}\"\n{rest}")).unwrap()
    }

    /// November 2026 in New York.
    pub(crate) fn period() -> Period {
        period_of(PeriodKind::Monthly, Tz::America__New_York, EventTime(1_795_392_000_000_000))
    }

    fn parse(toml: &str) -> Result<Budget, String> {
        toml::from_str(toml).map_err(|error| error.to_string())
    }

    #[derive(Deserialize)]
    struct File {
        budget: Vec<Budget>,
    }

    const FULL: &str = r#"
        [[budget]]
        id = "platform-month"
        amount_usd = 2000
        period = "daily"
        timezone = "America/New_York"
        description = "What the platform may spend"
        owners = { technical = "ops@example.org" }
        [budget.scope]
        environment = "prod"
        project_id = "ravenhelm-platform"
        [[budget.threshold]]
        percent = 75
        severity = "warning"
        [[budget.threshold]]
        percent = "99.5"
        severity = "critical"
        throttle = true
        [budget.throttle]
        concurrency_factor = "0.25"
        model_substitutions = { "claude-sonnet-4-20250514" = "claude-3-5-haiku-20241022" }
        queue_tasks = false
    "#;

    #[test]
    fn a_budget_reads_from_toml_exactly_and_writes_back_the_same() {
        let [budget] = &toml::from_str::<File>(FULL).unwrap().budget[..] else { panic!("one budget") };
        assert_eq!(budget.amount, usd("2000"));
        assert_eq!((budget.zone, budget.period), (Tz::America__New_York, PeriodKind::Daily));
        assert_eq!(budget.scope.key(), "environment=prod/project_id=ravenhelm-platform");
        assert_eq!(
            budget.thresholds[1],
            Threshold { percent: Percent(995), severity: Severity::Critical, throttle: true }
        );
        assert_eq!(budget.throttle.concurrency_factor.thousandths(), 250);
        assert!(budget.throttle.disable_noncritical && !budget.throttle.queue_tasks);
        assert_eq!(budget.validate(), []);
        assert_eq!(parse(&toml::to_string(budget).unwrap()).unwrap(), *budget);
    }

    #[test]
    fn what_is_left_out_is_the_policy_of_75_and_95_percent_per_month_in_utc() {
        let budget = parse("id = \"all\"\namount_usd = \"0.5\"").unwrap();
        assert_eq!((budget.zone, budget.period, budget.scope.key().as_str()), (Tz::UTC, PeriodKind::Monthly, "*"));
        let percents: Vec<String> =
            budget.thresholds.iter().map(|t| format!("{}{:?}{}", t.percent, t.severity, t.throttle)).collect();
        assert_eq!(percents, ["75Warningfalse", "95Criticaltrue"]);
        assert_eq!(budget.throttle, ThrottlePolicy::default());
        assert_eq!(budget.validate(), []);
    }

    #[test]
    fn a_wrong_type_key_or_digit_is_refused_with_its_value_and_what_was_expected() {
        let with = |line: &str| parse(&format!("id = \"x\"\namount_usd = \"1\"\n{line}")).unwrap_err();
        assert!(with("thresholds = []").contains("unknown field `thresholds`"));
        assert!(with("throttle.concurrency_factor = 0.5").contains("0.5: expected decimals in quotes"));
        assert!(
            with("throttle.concurrency_factor = \"0.1234\"")
                .contains("\"0.1234\": expected a factor with at most three decimals")
        );
        assert!(
            with("threshold = [{ percent = \"99.55\", severity = \"warning\" }]")
                .contains("\"99.55\": expected a percentage")
        );
        assert!(with("timezone = \"New York\"").contains("\"New York\""));
        assert!(with("period = \"hourly\"").contains("expected `daily` or `monthly`"));
    }

    #[test]
    fn validation_names_the_budget_the_key_the_value_and_what_was_expected() {
        let wrong = parse(
            r#"
            id = "no spaces please"
            amount_usd = "0"
            scope.team_id = ""
            threshold = [
                { percent = 95, severity = "critical" },
                { percent = 75, severity = "warning", throttle = true },
                { percent = "1000.1", severity = "warning" },
            ]
            throttle = { concurrency_factor = "1.5", model_substitutions = { a = "b", b = "a", c = "a" } }
            "#,
        );
        let errors: Vec<String> = wrong
            .unwrap()
            .validate()
            .iter()
            .map(|e| e.to_string().replace("budget \"no spaces please\": ", ""))
            .collect();
        assert_eq!(
            errors,
            [
                r#"id = "no spaces please": expected 1 to 128 letters, digits, ".", "_" or "-""#,
                r#"amount_usd = "0": expected an amount above 0"#,
                r#"scope.team_id = "": expected 1 to 256 bytes without control characters"#,
                r#"threshold[1].percent = "75": expected more than 95, the threshold before it"#,
                r#"threshold[2].percent = "1000.1": expected a percentage above 0 and at most 1000"#,
                r#"throttle.concurrency_factor = "1.5": expected a number from 0 to 1"#,
                r#"throttle.model_substitutions."a" = "b": expected a model that does not lead back to the replaced one"#,
                r#"throttle.model_substitutions."b" = "a": expected a model that does not lead back to the replaced one"#,
            ]
        );
        let (one, two) = (budget("1"), budget("2"));
        let error = validate_all(&[one.clone(), two]).unwrap_err().remove(0).to_string();
        assert_eq!(error, r#"budget "platform-month": id = "platform-month": expected an id that no other budget has"#);
        assert_eq!(validate_all(&[one]), Ok(()));
    }

    #[test]
    fn the_schema_documents_every_key_of_a_budget() {
        let schema = serde_json::to_value(schemars::schema_for!(Budget)).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        let keys: Vec<&str> = properties.keys().map(String::as_str).collect();
        let mut expected =
            ["id", "amount_usd", "period", "timezone", "scope", "threshold", "throttle", "owners", "description"];
        expected.sort_unstable();
        assert_eq!(
            {
                let mut keys = keys;
                keys.sort_unstable();
                keys
            },
            expected
        );
        assert!(properties.values().all(|key| key["description"].is_string()), "{schema:#}");
        assert_eq!(properties["timezone"]["default"], "UTC");
        assert_eq!(properties["threshold"]["default"][1]["percent"], "95");
    }

    #[test]
    fn decimals_keep_their_digits_both_ways() {
        for (text, value) in
            [("0", 0), ("0.5", 500), ("1.000", 1_000), ("12.345", 12_345), ("-0.001", -1), ("7.0000", 7_000)]
        {
            assert_eq!(fixed_from_text(text, 3), Some(value), "{text}");
        }
        for text in ["", ".5", "1.", "1e3", "0.0001", "+1", "--1", "1.2.3", "١"] {
            assert_eq!(fixed_from_text(text, 3), None, "{text}");
        }
        assert_eq!([-1, 0, 500, 12_345].map(|value| fixed_to_text(value, 3, 0)), ["-0.001", "0", "0.5", "12.345"]);
        assert_eq!(
            [readable(usd("1912.349")), readable(usd("-1912.349")), readable(usd("0.0005"))],
            ["1912.34", "-1912.34", "0.0005"]
        );
    }
}
