//! The HTTP server: health, metrics, throttles, budgets, costs, and events in. Errors are problem+json.
//!
//! Limits: see [`super::ingest`]; a `window` of at most [`WINDOW_MAX`].

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State as Extract},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use super::{
    ingest::{IN_FLIGHT_MAX, Ingest, post_events},
    problem::Problem,
};
use crate::{
    Engine,
    budget::{ScopeOf, Utilization, standing},
    engine::Costs,
    event::Dim,
    fold::sums::Sums,
};

/// Longest `window` of `/v1/costs`.
pub const WINDOW_MAX: Duration = Duration::from_secs(400 * 86_400);

/// A server that listens; dropping it does not stop it, cancelling its token does.
pub struct Server {
    pub address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Binds and serves.
    pub async fn start(engine: Engine) -> std::io::Result<Server> {
        let listener = TcpListener::bind(engine.config().http.listen).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let app = router(engine);
        let task = tokio::spawn(async move {
            axum::serve(listener, app).with_graceful_shutdown(async move { stopped.cancelled().await }).await
        });
        Ok(Server { address, stop, task })
    }

    /// Answers what has been asked, then ends.
    pub async fn stop(self) {
        self.stop.cancel();
        const PATIENCE: Duration = Duration::from_secs(5);
        if tokio::time::timeout(PATIENCE, self.task).await.is_err() {
            tracing::warn!("HTTP: some clients were still connected after {} s", PATIENCE.as_secs());
        }
    }
}

pub fn router(engine: Engine) -> Router {
    let ingest = Ingest { engine: engine.clone(), room: Arc::new(Semaphore::new(IN_FLIGHT_MAX)) };
    let wrong_method = |uri: Uri| async move {
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not answer this method", uri.path()))
    };
    Router::new()
        .route("/v1/events", post(post_events))
        .with_state(ingest)
        .merge(
            Router::new()
                .route("/", get(index))
                .route("/healthz", get(|| async { "ok\n" }))
                .route("/readyz", get(readyz))
                .route("/metrics", get(metrics))
                .route("/v1/throttle", get(throttle))
                .route("/v1/budgets", get(budgets))
                .route("/v1/costs", get(costs))
                .with_state(engine),
        )
        .method_not_allowed_fallback(wrong_method)
        .fallback(|uri: Uri| async move {
            Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
        })
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a defect in Costhelm; the log says more").into_response()
        }))
}

async fn index() -> &'static str {
    "Costhelm\n\n\
     GET  /metrics                                  for Prometheus\n\
     GET  /healthz  /readyz                         is it up, is it working\n\
     GET  /v1/throttle?project_id=…&agent_role=…    what an agent must obey now\n\
     GET  /v1/budgets                               limit, spend and state of each budget\n\
     GET  /v1/costs?by=agent_role&window=24h        totals; further parameters filter\n\
     POST /v1/events                                usage events: JSON, NDJSON, CloudEvents\n"
}

async fn readyz(Extract(engine): Extract<Engine>) -> Response {
    let health = engine.health();
    let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"ready": health.ready, "troubles": health.troubles, "lag_records": engine.lag()});
    (status, Json(body)).into_response()
}

async fn metrics(Extract(engine): Extract<Engine>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], engine.prometheus_text()).into_response()
}

type Parameters = Query<HashMap<String, String>>;

/// Takes the parameters that name dimensions; an unknown parameter is an error that lists the known ones.
fn dims(parameters: HashMap<String, String>, allowed: &[Dim]) -> Result<Vec<(Dim, String)>, Problem> {
    parameters
        .into_iter()
        .map(|(name, value)| match Dim::from_name(&name).filter(|dim| allowed.contains(dim)) {
            Some(dim) => Ok((dim, value)),
            None => {
                let known: Vec<_> = allowed.iter().map(|dim| dim.name()).collect();
                let detail = format!("parameter `{name}` is not known; expected one of {}", known.join(", "));
                Err(Problem::new(StatusCode::BAD_REQUEST, detail))
            }
        })
        .collect()
}

async fn throttle(Extract(engine): Extract<Engine>, Query(parameters): Parameters) -> Result<Json<Value>, Problem> {
    const SCOPE: [Dim; 6] =
        [Dim::Environment, Dim::OrgId, Dim::BusinessUnitId, Dim::TeamId, Dim::ProjectId, Dim::AgentRole];
    let given = dims(parameters, &SCOPE)?;
    let value = |dim: Dim| given.iter().find(|(name, _)| *name == dim).map_or("", |(_, value)| value.as_str());
    let agent = ScopeOf {
        environment: value(Dim::Environment),
        org_id: value(Dim::OrgId),
        business_unit_id: value(Dim::BusinessUnitId),
        team_id: value(Dim::TeamId),
        project_id: value(Dim::ProjectId),
        agent_role: value(Dim::AgentRole),
    };
    Ok(Json(match engine.throttle(&agent) {
        Some(effective) => serde_json::to_value(&effective).unwrap_or_default(),
        None => json!({
            "level": "none", "concurrency_factor": 1, "model_substitutions": {}, "disable_noncritical": false,
            "queue_tasks": false, "budgets": [], "expires_at": null, "reasons": [],
        }),
    }))
}

async fn budgets(Extract(engine): Extract<Engine>) -> Json<Value> {
    let status = |status: crate::engine::BudgetStatus| {
        let at = standing(&status.budget, status.spent);
        json!({
            "id": status.budget.id,
            "description": status.budget.description,
            "scope": status.budget.scope,
            "period": status.period.label,
            "period_start": status.period.start.to_string(),
            "period_end": status.period.end.to_string(),
            "timezone": status.budget.zone.name(),
            "budget_usd": status.budget.amount,
            "spent_usd": status.spent,
            "utilization": Utilization::of(status.spent, status.budget.amount).to_string(),
            "level": at.level,
            "throttle": at.throttle,
        })
    };
    Json(json!({"budgets": engine.budgets().into_iter().map(status).collect::<Vec<_>>()}))
}

async fn costs(Extract(engine): Extract<Engine>, Query(mut parameters): Parameters) -> Result<Json<Value>, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
    let by = parameters.remove("by").unwrap_or_else(|| Dim::AgentRole.name().to_owned());
    let by = Dim::from_name(&by).ok_or_else(|| {
        bad(format!("parameter `by` is {by:?}; expected one of {}", Dim::ALL.map(Dim::name).join(", ")))
    })?;
    let window = parameters.remove("window").unwrap_or_else(|| "24h".to_owned());
    let window = humantime::parse_duration(&window)
        .ok()
        .filter(|window| !window.is_zero() && *window <= WINDOW_MAX)
        .ok_or_else(|| bad(format!("parameter `window` is {window:?}; expected e.g. 1h, 24h or 30d, at most 400d")))?;
    let only = dims(parameters, &Dim::ALL)?;
    let Costs { grain, from, to, rows, total } = engine.costs(by, window, &only);
    let rows: Vec<Value> = rows.iter().map(|(name, sums)| sums_json(Some((by, name)), sums)).collect();
    Ok(Json(json!({
        "by": by.name(), "from": from.to_string(), "to": to.to_string(), "grain": grain.name(),
        "total": sums_json(None, &total), "rows": rows,
    })))
}

fn sums_json(name: Option<(Dim, &str)>, sums: &Sums) -> Value {
    let usage: serde_json::Map<String, Value> =
        sums.usage.iter().map(|(meter, count)| (meter.name().to_owned(), count.into())).collect();
    let mut row = json!({
        "cost_usd": sums.cost,
        "reported_cost_usd": sums.reported_cost,
        "events": sums.events,
        "unpriced_events": sums.unpriced,
        "late_events": sums.late,
        "tokens_input": sums.usage.input_tokens_total(),
        "tokens_output": sums.usage.output_tokens_total(),
        "usage": usage,
        "duration_ms": sums.duration_ms,
        "mcp_overhead_ms": sums.mcp_overhead_ms,
    });
    if let (Some((dim, name)), Some(row)) = (name, row.as_object_mut()) {
        row.insert(dim.name().to_owned(), name.into());
    }
    row
}
