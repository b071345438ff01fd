//! `POST /v1/events`: usage events over HTTP, onto whichever bus is configured.
//!
//! | body | `Content-Type` |
//! | --- | --- |
//! | one event, or an array of events | `application/json` |
//! | one event a line | `application/x-ndjson` |
//! | CloudEvents, structured | `application/cloudevents+json` |
//! | CloudEvents, batch | `application/cloudevents-batch+json` |
//! | CloudEvents, binary: `ce-…` headers, the event as body | `application/json` |
//!
//! 202 is answered once every accepted event is durable on the bus. An event that cannot be decoded is not put there: it
//! comes back by its index with the reason, so its sender still has it.
//!
//! Limits: `http.body_bytes_max` a request, [`crate::decode::ARRAY_EVENTS_MAX`] events, [`IN_FLIGHT_MAX`] requests at once.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State as Extract,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::problem::Problem;
use crate::{
    Engine,
    bus::{BusError, NewRecord},
    decode::{ARRAY_EVENTS_MAX, Decoded, Envelope, Rejection, RejectionCode, decode},
};

/// Requests that may be waiting for the bus at once; a further one is told to come back.
pub const IN_FLIGHT_MAX: usize = 256;

#[derive(Clone)]
pub struct Ingest {
    pub engine: Engine,
    pub room: Arc<Semaphore>,
}

pub async fn post_events(Extract(ingest): Extract<Ingest>, headers: HeaderMap, body: Body) -> Response {
    match accept(&ingest, &headers, body).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn accept(ingest: &Ingest, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let Ok(_room) = ingest.room.try_acquire() else {
        let detail = format!("{IN_FLIGHT_MAX} requests are waiting for the bus already");
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(1));
    };
    let limit = ingest.engine.config().http.body_bytes_max;
    let body = axum::body::to_bytes(body, limit).await.map_err(|_| {
        let detail = format!("the body is larger than {limit} bytes or did not arrive whole");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    })?;
    let kind = Kind::of(headers)?;
    let topic = &ingest.engine.config().topics.events;
    let (records, rejected) = records(&body, &kind, topic);
    if records.len() + rejected.len() > ARRAY_EVENTS_MAX {
        let detail = format!("the body holds more than {ARRAY_EVENTS_MAX} events");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let errors: Vec<Value> = rejected
        .iter()
        .map(|(index, rejection)| json!({"index": index, "code": rejection.code.name(), "detail": rejection.message}))
        .collect();
    if records.is_empty() {
        let detail = match rejected.first() {
            Some((_, only)) if rejected.len() == 1 => only.message.clone(),
            _ => "no event of the body can be used".to_owned(),
        };
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail).with("errors", errors.into()));
    }
    let (indexes, records): (Vec<usize>, Vec<NewRecord>) = records.into_iter().unzip();
    let results = ingest.engine.append(records).await;
    let accepted = results.iter().filter(|result| result.is_ok()).count();
    let mut errors = errors;
    for (index, result) in indexes.iter().zip(&results) {
        match result {
            Ok(()) => {}
            // The sender repeats the whole request; events that did arrive are recognised by their id.
            Err(BusError::Retry(problem)) => {
                let detail = format!("the bus cannot take events now: {problem}; send the request again");
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(1));
            }
            Err(BusError::Refused(problem)) => {
                errors.push(json!({"index": index, "code": "refused", "detail": problem}));
            }
        }
    }
    if accepted == 0 {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the bus refused every event").with("errors", errors.into()));
    }
    Ok((StatusCode::ACCEPTED, Json(json!({"accepted": accepted, "errors": errors}))).into_response())
}

/// How the body is to be read.
enum Kind {
    /// One event or an array; CloudEvents structured and batch look the same from here.
    Json,
    Lines,
    Binary(Envelope, Vec<(String, Vec<u8>)>),
}

impl Kind {
    fn of(headers: &HeaderMap) -> Result<Kind, Problem> {
        let content_type =
            headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => return Ok(Kind::Lines),
            "application/json" | "application/cloudevents+json" | "application/cloudevents-batch+json"
            // What curl sends when it is not told.
            | "application/x-www-form-urlencoded" | "text/plain" => {}
            other => {
                let detail = format!(
                    "Content-Type is {other}; expected application/json, application/x-ndjson, \
                     application/cloudevents+json or application/cloudevents-batch+json"
                );
                return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
            }
        }
        let pairs = || headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        match Envelope::from_headers(pairs()) {
            None => Ok(Kind::Json),
            Some(envelope) => {
                // As the Kafka binding names them.
                let kept = pairs()
                    .filter_map(|(name, value)| Some((format!("ce_{}", name.strip_prefix("ce-")?), value.to_vec())));
                Ok(Kind::Binary(envelope, kept.collect()))
            }
        }
    }
}

type Split = (Vec<(usize, NewRecord)>, Vec<(usize, Rejection)>);

/// Takes the body apart into one record an event, keyed by the event's id so that repeats meet in one partition.
fn records(body: &[u8], kind: &Kind, topic: &str) -> Split {
    let (mut records, mut rejected) = (Vec::new(), Vec::new());
    let mut take = |base: usize, bytes: &[u8], envelope: Option<&Envelope>, headers: &[(String, Vec<u8>)]| {
        decode(bytes, envelope, |Decoded { index, raw, event }| {
            let index = base + index as usize;
            match event {
                Ok(event) => {
                    let key = Some(event.event_id.as_bytes().to_vec());
                    let headers = headers.to_vec();
                    records
                        .push((index, NewRecord { topic: topic.to_owned(), key, value: Some(raw.to_vec()), headers }));
                }
                Err(rejection) => rejected.push((index, rejection)),
            }
        });
    };
    match kind {
        Kind::Json => take(0, body, None, &[]),
        Kind::Binary(envelope, headers) => take(0, body, Some(envelope), headers),
        Kind::Lines => {
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
            for (index, line) in lines.enumerate() {
                take(index, line, None, &[]);
            }
        }
    }
    if records.is_empty() && rejected.is_empty() {
        rejected.push((0, Rejection::new(RejectionCode::Malformed, "the body is empty; expected usage events")));
    }
    (records, rejected)
}
