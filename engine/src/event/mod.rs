//! The canonical usage event, borrowed from the bytes it was decoded from, and the dimensions that totals are kept by.
//!
//! Limits: [`STRING_BYTES_MAX`] a string field, [`ATTRIBUTES_BYTES_MAX`] all unknown fields together. Longer ones go to
//! quarantine, never cut.

pub mod columns;
pub mod dims;

use std::{borrow::Cow, sync::Arc};

use costhelm_pricing::{EventTime, Money, ServiceTier, Usage};

/// Longest string accepted in one field, bytes.
pub const STRING_BYTES_MAX: usize = 4 << 10;
/// Most bytes that the unknown fields of one event may take, as JSON.
pub const ATTRIBUTES_BYTES_MAX: usize = 256 << 10;

/// Largest count of anything in one event: tokens, milliseconds, requests. Above it an event is a mistake; below it the sum of
/// 900 million of the largest possible events still fits a 64-bit column.
pub const COUNT_MAX: u64 = 10_000_000_000;

/// The dimensions of every total, from the widest to the finest. The order is that of the columns in files and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Dim {
    Environment,
    OrgId,
    BusinessUnitId,
    TeamId,
    ProjectId,
    AgentRole,
    ModelProvider,
    ModelName,
}

impl Dim {
    pub const COUNT: usize = 8;
    pub const ALL: [Dim; Dim::COUNT] = [
        Dim::Environment,
        Dim::OrgId,
        Dim::BusinessUnitId,
        Dim::TeamId,
        Dim::ProjectId,
        Dim::AgentRole,
        Dim::ModelProvider,
        Dim::ModelName,
    ];

    /// The name of the field in events, of the column in tables and of the label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Dim::Environment => "environment",
            Dim::OrgId => "org_id",
            Dim::BusinessUnitId => "business_unit_id",
            Dim::TeamId => "team_id",
            Dim::ProjectId => "project_id",
            Dim::AgentRole => "agent_role",
            Dim::ModelProvider => "model_provider",
            Dim::ModelName => "model_name",
        }
    }

    pub fn from_name(name: &str) -> Option<Dim> {
        Dim::ALL.into_iter().find(|dim| dim.name() == name)
    }
}

/// One value for each [`Dim`]; empty where the event had none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dims(pub [Arc<str>; Dim::COUNT]);

impl Dims {
    pub fn get(&self, dim: Dim) -> &str {
        &self.0[dim as usize]
    }
}

/// What an emitter reported for one call of a model, its usage already normalised to disjoint meters (RATE-2).
#[derive(Clone, Debug)]
pub struct UsageEvent<'a> {
    /// CloudEvents `source`; empty for bare events. With `event_id` it is the event's identity.
    pub source: Cow<'a, str>,
    pub event_id: Cow<'a, str>,
    pub time: EventTime,
    pub dims: [Cow<'a, str>; Dim::COUNT],
    pub agent_task_id: Option<Cow<'a, str>>,
    pub parent_agent_id: Option<Cow<'a, str>>,
    pub user_id: Option<Cow<'a, str>>,
    pub session_id: Option<Cow<'a, str>>,
    pub usage: Usage,
    /// Where the provider says the model ran; some regions cost more.
    pub region: Option<String>,
    /// Why this event cannot be priced whatever the book says: its usage object could not be read.
    pub unpriceable: Option<&'static str>,
    /// As the sender counted; kept and compared, never trusted.
    pub tokens_total: Option<u64>,
    pub service_tier: ServiceTier,
    pub reported_cost: Option<Money>,
    pub cost_calculation: Option<Cow<'a, str>>,
    pub duration_ms: Option<u64>,
    pub mcp_overhead_ms: Option<u64>,
    pub mcp_target_agent: Option<Cow<'a, str>>,
    pub trace_id: Option<Cow<'a, str>>,
    pub span_id: Option<Cow<'a, str>>,
    /// Fields that Costhelm has no meaning for, as a JSON object.
    pub attributes: Option<String>,
}

impl UsageEvent<'_> {
    pub fn into_owned(self) -> UsageEvent<'static> {
        fn own(text: Cow<'_, str>) -> Cow<'static, str> {
            Cow::Owned(text.into_owned())
        }
        UsageEvent {
            source: own(self.source),
            event_id: own(self.event_id),
            time: self.time,
            dims: self.dims.map(own),
            agent_task_id: self.agent_task_id.map(own),
            parent_agent_id: self.parent_agent_id.map(own),
            user_id: self.user_id.map(own),
            session_id: self.session_id.map(own),
            usage: self.usage,
            region: self.region,
            unpriceable: self.unpriceable,
            tokens_total: self.tokens_total,
            service_tier: self.service_tier,
            reported_cost: self.reported_cost,
            cost_calculation: self.cost_calculation.map(own),
            duration_ms: self.duration_ms,
            mcp_overhead_ms: self.mcp_overhead_ms,
            mcp_target_agent: self.mcp_target_agent.map(own),
            trace_id: self.trace_id.map(own),
            span_id: self.span_id.map(own),
            attributes: self.attributes,
        }
    }
}

impl<'a> From<&'a Dims> for crate::budget::ScopeOf<'a> {
    fn from(dims: &'a Dims) -> Self {
        crate::budget::ScopeOf {
            environment: dims.get(Dim::Environment),
            org_id: dims.get(Dim::OrgId),
            business_unit_id: dims.get(Dim::BusinessUnitId),
            team_id: dims.get(Dim::TeamId),
            project_id: dims.get(Dim::ProjectId),
            agent_role: dims.get(Dim::AgentRole),
        }
    }
}
