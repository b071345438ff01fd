//! What agents are told. Every budget of one scope, with what it has spent, makes one [`ThrottleCommand`] for that
//! scope; it is published under [`Scope::key`] and replaces the one before it (BUDGET-2). An agent lies in several
//! scopes: [`most_restrictive`] merges their commands into what it must obey. A release (level `none`, factor 1) is a
//! command like any other.
//!
//! How restrictions merge, whether of budgets in a command or of commands for an agent:
//!
//! | field | rule |
//! | --- | --- |
//! | level | the gravest |
//! | concurrency_factor | the smallest |
//! | disable_noncritical, queue_tasks | on if any says so |
//! | model_substitutions | all of them; where two replace the same model, the graver level wins, then the higher utilization, then the first by name; an entry that would close a circle is left out; chains a→b→c are followed, a→c |
//!
//! Limits: 64 substitutions a budget, checked by [`super::Budget::validate`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use costhelm_pricing::{EventTime, Money};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::period::Period;
use super::rules::{Level, Standing, Utilization, standing};
use super::scope::{Scope, ScopeOf};
use super::{Budget, BudgetId, Factor, decimal_schema, from_text, json_number, readable};

/// What a reached threshold with `throttle = true` commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ThrottlePolicy {
    /// Share of their usual concurrency that agents keep: 0 to 1 with at most three decimals, in quotes.
    #[serde(deserialize_with = "from_text")]
    #[schemars(schema_with = "decimal_schema")]
    pub concurrency_factor: Factor,
    /// Models to use instead, by name as in the events: `{ "gpt-4o" = "gpt-4o-mini" }`; `{}` for none.
    pub model_substitutions: BTreeMap<String, String>,
    /// Agents that call themselves non-critical stop.
    pub disable_noncritical: bool,
    /// Agents queue new tasks instead of starting them.
    pub queue_tasks: bool,
}

impl Default for ThrottlePolicy {
    fn default() -> Self {
        Self {
            concurrency_factor: Factor::HALF,
            model_substitutions: BTreeMap::from([("gpt-4o".to_owned(), "gpt-4o-mini".to_owned())]),
            disable_noncritical: true,
            queue_tasks: true,
        }
    }
}

impl ThrottlePolicy {
    /// No restriction at all.
    pub fn free() -> Self {
        Self {
            concurrency_factor: Factor::ONE,
            model_substitutions: BTreeMap::new(),
            disable_noncritical: false,
            queue_tasks: false,
        }
    }

    /// Merges restrictions, the gravest first, by the table above.
    fn merge<'a>(gravest_first: impl IntoIterator<Item = &'a ThrottlePolicy>) -> Self {
        let mut merged = Self::free();
        for policy in gravest_first {
            merged.concurrency_factor = merged.concurrency_factor.min(policy.concurrency_factor);
            merged.disable_noncritical |= policy.disable_noncritical;
            merged.queue_tasks |= policy.queue_tasks;
            for (from, to) in &policy.model_substitutions {
                if last_of_chain(&merged.model_substitutions, to) != from
                    && let Entry::Vacant(free) = merged.model_substitutions.entry(from.clone())
                {
                    free.insert(to.clone());
                }
            }
        }
        let followed = merged.model_substitutions.iter().map(|(from, to)| {
            let last = last_of_chain(&merged.model_substitutions, to);
            (from.clone(), last.to_owned())
        });
        merged.model_substitutions = followed.collect();
        merged
    }

    /// The models whose chain of substitutions comes back to them.
    pub(super) fn circular_models(&self) -> impl Iterator<Item = &str> {
        let map = &self.model_substitutions;
        map.keys().map(String::as_str).filter(|from| {
            let steps = std::iter::successors(map.get(*from), |model| map.get(*model));
            steps.take(map.len()).any(|model| model == from)
        })
    }

    /// What agents do under it, for a sentence.
    fn orders(&self) -> String {
        let mut orders = Vec::new();
        if self.concurrency_factor < Factor::ONE {
            orders.push(format!("run at {} of their concurrency", self.concurrency_factor));
        }
        orders.extend(self.model_substitutions.iter().map(|(from, to)| format!("use {to} for {from}")));
        if self.disable_noncritical {
            orders.push("stop if they are non-critical".to_owned());
        }
        if self.queue_tasks {
            orders.push("queue new tasks".to_owned());
        }
        orders.join(", ")
    }
}

/// Where a chain of substitutions that holds no circle ends.
fn last_of_chain<'a>(map: &'a BTreeMap<String, String>, model: &'a str) -> &'a str {
    std::iter::successors(Some(model), |model| map.get(*model).map(String::as_str))
        .take(map.len() + 1)
        .last()
        .unwrap_or(model)
}

/// What one budget has spent in the period that runs.
#[derive(Debug, Clone, Copy)]
pub struct Spend<'a> {
    pub budget: &'a Budget,
    pub period: &'a Period,
    pub spent: Money,
}

/// The throttle of one scope: the `data` of a `costhelm.throttle.v1` event. The one with the highest sequence alone
/// describes the state (BUDGET-2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottleCommand {
    pub level: Level,
    #[serde(with = "json_number")]
    pub concurrency_factor: Factor,
    pub model_substitutions: BTreeMap<String, String>,
    pub disable_noncritical: bool,
    pub queue_tasks: bool,
    pub scope: Scope,
    /// The budget that weighs most; period, utilization, spent and budget amount are its.
    pub budget: BudgetId,
    /// The period's label, `2026-11`.
    pub period: String,
    #[serde(with = "json_number")]
    pub utilization: Utilization,
    pub spent_usd: Money,
    pub budget_usd: Money,
    /// Every budget of the scope that throttles now, the one that weighs most first; empty in a release.
    pub budgets: Vec<BudgetId>,
    /// Rises with each command of the scope.
    pub sequence: u64,
    #[serde(deserialize_with = "from_text")]
    pub issued_at: EventTime,
    /// From this instant on the command says nothing any more.
    #[serde(deserialize_with = "from_text")]
    pub expires_at: EventTime,
    /// One sentence for a person.
    pub reason: String,
}

impl ThrottleCommand {
    /// The command of `scope` from all budgets of exactly that scope among `spends`; none if there is no such budget.
    ///
    /// It expires with the *latest* period of the budgets that throttle: if the engine is gone when a day ends, a
    /// month that is used up must not come free with it. A running engine issues the next command at each period's
    /// end.
    pub fn for_scope<'a>(
        scope: &Scope,
        spends: impl IntoIterator<Item = Spend<'a>>,
        sequence: u64,
        issued_at: EventTime,
    ) -> Option<Self> {
        let mut ranked: Vec<(Standing, Utilization, Spend<'a>)> = spends
            .into_iter()
            .filter(|spend| spend.budget.scope == *scope)
            .map(|s| (standing(s.budget, s.spent), Utilization::of(s.spent, s.budget.amount), s))
            .collect();
        ranked.sort_by_key(|(standing, utilization, s)| (Reverse((standing.throttle, *utilization)), &s.budget.id));
        let &(lead, utilization, Spend { budget, period, spent }) = ranked.first()?;
        // Those that throttle stand first; in a release all stand below every throttling threshold.
        let throttling = ranked.partition_point(|(standing, ..)| standing.throttle > Level::None);
        let policy = ThrottlePolicy::merge(ranked[..throttling].iter().map(|(_, _, s)| &s.budget.throttle));
        let counted = if throttling == 0 { &ranked[..] } else { &ranked[..throttling] };
        let expires_at = counted.iter().map(|(_, _, s)| s.period.end).max()?;
        let budgets: Vec<BudgetId> = ranked[..throttling].iter().map(|(_, _, s)| s.budget.id.clone()).collect();
        let reason = reason(&Spend { budget, period, spent }, lead, utilization, &policy, &budgets, expires_at);
        Some(Self {
            level: lead.throttle,
            concurrency_factor: policy.concurrency_factor,
            model_substitutions: policy.model_substitutions,
            disable_noncritical: policy.disable_noncritical,
            queue_tasks: policy.queue_tasks,
            scope: scope.clone(),
            budget: budget.id.clone(),
            period: period.label.clone(),
            utilization,
            spent_usd: spent,
            budget_usd: budget.amount,
            budgets,
            sequence,
            issued_at,
            expires_at,
            reason,
        })
    }

    fn policy(&self) -> ThrottlePolicy {
        ThrottlePolicy {
            concurrency_factor: self.concurrency_factor,
            model_substitutions: self.model_substitutions.clone(),
            disable_noncritical: self.disable_noncritical,
            queue_tasks: self.queue_tasks,
        }
    }

    /// Whether agents must hear of this command when `last` is what they heard last: nothing to release and nothing
    /// new are not published.
    pub fn is_news_after(&self, last: Option<&ThrottleCommand>) -> bool {
        match last {
            None => self.level > Level::None,
            Some(last) if self.level == Level::None && last.level == Level::None => false,
            Some(last) => {
                (self.level, self.expires_at, &self.budgets, self.policy())
                    != (last.level, last.expires_at, &last.budgets, last.policy())
            }
        }
    }

    /// The command that sets the scope free after this one, where no budget covers the scope any more; none if it is free already.
    pub fn release(&self, issued_at: EventTime) -> Option<Self> {
        if self.level == Level::None {
            return None;
        }
        let free = ThrottlePolicy::free();
        Some(Self {
            level: Level::None,
            concurrency_factor: free.concurrency_factor,
            model_substitutions: free.model_substitutions,
            disable_noncritical: free.disable_noncritical,
            queue_tasks: free.queue_tasks,
            budgets: Vec::new(),
            sequence: self.sequence + 1,
            issued_at,
            reason: format!("Budget {} is no longer configured: its agents run freely.", self.budget),
            ..self.clone()
        })
    }

    /// The id of its event, the same on every replica and after every restart.
    pub fn event_id(&self) -> String {
        format!("{}#{}", self.scope.key(), self.sequence)
    }

    /// The body for the throttle topic.
    pub fn cloud_event(&self, instance: &str) -> CloudEvent<ThrottleCommand> {
        CloudEvent::new(self.event_id(), instance, THROTTLE_TYPE, self.issued_at, self.scope.key(), self.clone())
    }

    /// The same command in the squad's own event shape.
    pub fn squad_event(&self) -> SquadThrottle<'_> {
        SquadThrottle {
            event_id: self.event_id(),
            event_type: "throttle",
            source_agent: "costhelm",
            target_agent: self.scope.agent_role.as_deref(),
            timestamp: self.issued_at,
            command: self,
        }
    }
}

fn reason(
    of: &Spend<'_>,
    lead: Standing,
    utilization: Utilization,
    policy: &ThrottlePolicy,
    budgets: &[BudgetId],
    expires_at: EventTime,
) -> String {
    let (id, label) = (&of.budget.id, &of.period.label);
    let (spent, amount, percent) = (readable(of.spent), readable(of.budget.amount), utilization.percent());
    let spent = format!("Budget {id} has spent {spent} of {amount} USD in {label} ({percent} %)");
    let agents = match of.budget.scope.key() {
        all if all == "*" => "all agents".to_owned(),
        some => format!("agents in {some}"),
    };
    let Some(threshold) = lead.throttled_by.map(|index| of.budget.thresholds[index].percent) else {
        return format!("{spent}, below its throttling thresholds: {agents} run freely.");
    };
    let mut also = String::new();
    for (other, lead_in) in
        budgets[1..].iter().zip(std::iter::once(" Also throttled by ").chain(std::iter::repeat(", ")))
    {
        also.push_str(lead_in);
        also.push_str(&other.0);
    }
    if !also.is_empty() {
        also.push('.');
    }
    format!(
        "{spent}, past its throttling threshold of {threshold} %: until {expires_at} {agents} {}.{also}",
        policy.orders()
    )
}

/// What one agent must obey now, merged from the commands of all scopes it lies in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveThrottle {
    pub level: Level,
    #[serde(with = "json_number")]
    pub concurrency_factor: Factor,
    pub model_substitutions: BTreeMap<String, String>,
    pub disable_noncritical: bool,
    pub queue_tasks: bool,
    /// The budgets that throttle, the one that weighs most first.
    pub budgets: Vec<BudgetId>,
    /// When the first of the merged commands expires: ask again then at the latest.
    #[serde(deserialize_with = "from_text")]
    pub expires_at: EventTime,
    /// One sentence for each command that throttles.
    pub reasons: Vec<String>,
}

impl EffectiveThrottle {
    /// The model to call where `model` was meant.
    pub fn model_for<'a>(&'a self, model: &'a str) -> &'a str {
        self.model_substitutions.get(model).map_or(model, String::as_str)
    }
}

/// Merges the commands whose scope holds `agent`. Per scope only the highest sequence counts, and only while it has
/// not expired at `now`. None if no command is left: then nothing restricts the agent.
pub fn most_restrictive<'a>(
    commands: impl IntoIterator<Item = &'a ThrottleCommand>,
    agent: &ScopeOf<'_>,
    now: EventTime,
) -> Option<EffectiveThrottle> {
    let mut latest: BTreeMap<&Scope, &ThrottleCommand> = BTreeMap::new();
    for command in commands.into_iter().filter(|command| command.scope.matches(agent)) {
        let kept = latest.entry(&command.scope).or_insert(command);
        if command.sequence > kept.sequence {
            *kept = command;
        }
    }
    let mut live: Vec<&ThrottleCommand> = latest.into_values().filter(|command| now < command.expires_at).collect();
    // Stable: equal ones stay in the order of their scopes.
    live.sort_by_key(|command| Reverse((command.level, command.utilization)));
    let level = live.first()?.level;
    let expires_at = live.iter().map(|command| command.expires_at).min()?;
    live.retain(|command| command.level > Level::None);
    let policies: Vec<ThrottlePolicy> = live.iter().map(|command| command.policy()).collect();
    let policy = ThrottlePolicy::merge(&policies);
    Some(EffectiveThrottle {
        level,
        concurrency_factor: policy.concurrency_factor,
        model_substitutions: policy.model_substitutions,
        disable_noncritical: policy.disable_noncritical,
        queue_tasks: policy.queue_tasks,
        budgets: live.iter().flat_map(|command| command.budgets.iter().cloned()).collect(),
        expires_at,
        reasons: live.iter().map(|command| command.reason.clone()).collect(),
    })
}

pub const THROTTLE_TYPE: &str = "costhelm.throttle.v1";

/// A CloudEvents 1.0 envelope in structured JSON mode. `source` and `id` together identify the event: a consumer
/// drops repeats by them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEvent<T> {
    pub specversion: String,
    pub id: String,
    pub source: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "from_text")]
    pub time: EventTime,
    /// The scope's key.
    pub subject: String,
    pub datacontenttype: String,
    pub data: T,
}

impl<T> CloudEvent<T> {
    pub fn new(id: String, instance: &str, kind: &str, time: EventTime, subject: String, data: T) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id,
            source: format!("costhelm/{instance}"),
            kind: kind.to_owned(),
            time,
            subject,
            datacontenttype: "application/json".to_owned(),
            data,
        }
    }
}

/// A throttle command as the squad's coordination topic carries events: the squad's fields first, the command's
/// beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SquadThrottle<'a> {
    pub event_id: String,
    pub event_type: &'static str,
    pub source_agent: &'static str,
    /// The scope's agent role; null where the command is for every role.
    pub target_agent: Option<&'a str>,
    pub timestamp: EventTime,
    #[serde(flatten)]
    pub command: &'a ThrottleCommand,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{budget, period, usd};
    use super::*;

    const NOW: EventTime = EventTime(1_795_392_000_000_000);

    fn policy(factor: &str, substitutions: &[(&str, &str)]) -> ThrottlePolicy {
        ThrottlePolicy {
            concurrency_factor: factor.parse().unwrap(),
            model_substitutions: substitutions.iter().map(|(from, to)| (from.to_string(), to.to_string())).collect(),
            ..ThrottlePolicy::free()
        }
    }

    fn command(scope: &str, spent: &str, policy: ThrottlePolicy, sequence: u64) -> ThrottleCommand {
        let budget = Budget {
            scope: scope.parse().unwrap(),
            throttle: policy,
            id: BudgetId(format!("of {scope}")),
            ..budget("100")
        };
        let spend = Spend { budget: &budget, period: &period(), spent: usd(spent) };
        ThrottleCommand::for_scope(&budget.scope, [spend], sequence, NOW).unwrap()
    }

    const WORKER: ScopeOf<'_> = ScopeOf {
        environment: "prod",
        org_id: "",
        business_unit_id: "",
        team_id: "",
        project_id: "x",
        agent_role: "worker",
    };

    #[test]
    fn past_95_percent_agents_are_told_to_slow_down_in_numbers_and_in_words() {
        let budget = budget("2000");
        let spend = Spend { budget: &budget, period: &period(), spent: usd("1902.42") };
        let command = ThrottleCommand::for_scope(&budget.scope, [spend], 7, NOW).unwrap();
        let text = serde_json::to_string(&command.cloud_event("node-1")).unwrap();
        assert_eq!(serde_json::from_str::<CloudEvent<ThrottleCommand>>(&text).unwrap(), command.cloud_event("node-1"));
        assert_eq!(
            text,
            concat!(
                r##"{"specversion":"1.0","id":"environment=prod#7","##,
                r##""source":"costhelm/node-1","type":"costhelm.throttle.v1","time":"2026-11-23T00:00:00Z","##,
                r##""subject":"environment=prod","datacontenttype":"application/json","##,
                r##""data":{"level":"critical","concurrency_factor":0.5,"model_substitutions":{"gpt-4o":"gpt-4o-mini"},"##,
                r##""disable_noncritical":true,"queue_tasks":true,"##,
                r##""scope":{"environment":"prod"},"budget":"platform-month","period":"2026-11","##,
                r##""utilization":0.9512,"spent_usd":"1902.42","budget_usd":"2000","##,
                r##""budgets":["platform-month"],"sequence":7,"##,
                r##""issued_at":"2026-11-23T00:00:00Z","expires_at":"2026-12-01T05:00:00Z","##,
                r##""reason":"Budget platform-month has spent 1902.42 of 2000 USD in 2026-11 (95.12 %), past its throttling threshold of 95 %: "##,
                r##"until 2026-12-01T05:00:00Z agents in environment=prod run at 0.5 of their concurrency, use gpt-4o-mini for gpt-4o, "##,
                r##"stop if they are non-critical, queue new tasks."}}"##,
            )
        );
    }

    #[test]
    fn below_the_throttling_threshold_the_command_is_a_release() {
        let release = command("environment=prod", "94.99", ThrottlePolicy::default(), 8);
        assert_eq!((release.level, release.policy()), (Level::None, ThrottlePolicy::free()));
        assert!(release.budgets.is_empty());
        assert!(
            release.reason.ends_with("below its throttling thresholds: agents in environment=prod run freely."),
            "{}",
            release.reason
        );
    }

    #[test]
    fn budgets_of_one_scope_make_one_command_that_outlasts_the_shorter_period() {
        let month = Budget { throttle: policy("0.5", &[("a", "b")]), ..budget("100") };
        let day =
            Budget { id: BudgetId("day".into()), throttle: policy("0.25", &[("a", "c"), ("b", "c")]), ..budget("10") };
        let elsewhere = Budget { scope: Scope::default(), throttle: policy("0", &[]), ..budget("1") };
        let today = Period { start: NOW, end: EventTime(NOW.0 + 86_400_000_000), label: "2026-11-23".into() };
        let issue = |month_spent: &str, day_spent: &str| {
            let spends = [
                Spend { budget: &month, period: &period(), spent: usd(month_spent) },
                Spend { budget: &day, period: &today, spent: usd(day_spent) },
                Spend { budget: &elsewhere, period: &today, spent: usd("5") },
            ];
            ThrottleCommand::for_scope(&month.scope, spends, 1, NOW).unwrap()
        };
        let both = issue("99", "9.6");
        assert_eq!((both.budget.0.as_str(), both.budgets.len()), ("platform-month", 2));
        assert_eq!(both.policy(), policy("0.25", &[("a", "c"), ("b", "c")]));
        assert_eq!(both.expires_at, period().end);
        assert!(both.reason.ends_with(" Also throttled by day."), "{}", both.reason);
        let only_day = issue("10", "12");
        assert_eq!((only_day.budget.0.as_str(), only_day.expires_at), ("day", today.end));
        assert!(only_day.is_news_after(Some(&both)) && issue("1", "1").is_news_after(Some(&only_day)));
        assert!(!issue("99.5", "9.7").is_news_after(Some(&both)));
        assert!(!issue("1", "1").is_news_after(None) && !issue("1", "1").is_news_after(Some(&issue("2", "2"))));
    }

    #[test]
    fn an_agent_obeys_the_strictest_of_the_scopes_it_lies_in_and_no_other() {
        let commands = [
            command("environment=prod", "96", policy("0.5", &[("a", "b"), ("x", "y")]), 3),
            command("agent_role=worker", "150", policy("0.2", &[("b", "c"), ("y", "x")]), 9),
            command("environment=dev", "500", policy("0", &[]), 1),
            command("project_id=x", "10", policy("0", &[]), 1),
        ];
        let effective = most_restrictive(&commands, &WORKER, NOW).unwrap();
        assert_eq!((effective.level, effective.concurrency_factor.to_string().as_str()), (Level::Critical, "0.2"));
        assert_eq!(
            effective.budgets,
            [BudgetId("of agent_role=worker".into()), BudgetId("of environment=prod".into())]
        );
        // a→b→c is followed; x→y would close a circle with y→x of the graver command.
        assert_eq!(["a", "b", "x", "y", "z"].map(|model| effective.model_for(model)), ["c", "c", "x", "x", "z"]);
        assert_eq!(effective.reasons.len(), 2);
        let text = serde_json::to_string(&effective).unwrap();
        assert_eq!(serde_json::from_str::<EffectiveThrottle>(&text).unwrap(), effective);
    }

    #[test]
    fn a_later_release_replaces_a_throttle_and_an_expired_command_says_nothing() {
        let throttle = command("environment=prod", "96", ThrottlePolicy::default(), 3);
        let release = command("environment=prod", "1", ThrottlePolicy::default(), 4);
        let freed = most_restrictive([&release, &throttle], &WORKER, NOW).unwrap();
        assert_eq!((freed.level, freed.concurrency_factor), (Level::None, Factor::ONE));
        assert!(most_restrictive([&throttle], &WORKER, EventTime(throttle.expires_at.0 - 1)).is_some());
        assert_eq!(most_restrictive([&throttle], &WORKER, throttle.expires_at), None);
        assert_eq!(most_restrictive([&throttle], &ScopeOf::default(), NOW), None);
    }

    #[test]
    fn the_squad_reads_event_type_source_and_target_beside_the_command() {
        let command = command("agent_role=cert_agent", "99", ThrottlePolicy::default(), 2);
        let json: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&command.squad_event()).unwrap()).unwrap();
        assert_eq!(
            [&json["event_type"], &json["source_agent"], &json["target_agent"]],
            ["throttle", "costhelm", "cert_agent"]
        );
        assert_eq!(json["concurrency_factor"].to_string(), "0.5");
        let everyone = super::tests::command("environment=prod", "99", ThrottlePolicy::default(), 2);
        assert!(serde_json::to_string(&everyone.squad_event()).unwrap().contains(r#""target_agent":null"#));
    }

    fn substitutions() -> impl Strategy<Value = BTreeMap<String, String>> {
        prop::collection::btree_map("[a-e]", "[a-e]", 0..5)
    }

    proptest! {
        #[test]
        fn merged_substitutions_never_lead_to_a_replaced_model(maps in prop::collection::vec(substitutions(), 1..4)) {
            let with = |map| ThrottlePolicy { model_substitutions: map, ..ThrottlePolicy::free() };
            let policies: Vec<_> = maps.into_iter().map(with).collect();
            let merged = ThrottlePolicy::merge(&policies).model_substitutions;
            for (from, to) in &merged {
                prop_assert!(from != to && !merged.contains_key(to), "{:?}", merged);
            }
        }
    }
}
