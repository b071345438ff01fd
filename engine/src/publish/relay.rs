//! Outbox to bus: alerts and throttle commands leave in the order they were written, at least once.
//!
//! A message is marked as published after the bus has it; a crash in between sends it again under the same id, by which a
//! reader drops the repeat (BUDGET-1). The bus being away costs nothing but delay: messages wait in the store.
//!
//! Each topic has a relay of its own, so that a topic that cannot be written keeps back nothing but its own messages.
//!
//! Limits: [`BATCH_MAX`] messages at a time and topic.

use std::{sync::Arc, time::Duration};

use costhelm_pricing::EventTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    bus::Bus,
    commit::store::{CommitError, Store},
};

/// Messages taken from the outbox at once.
pub const BATCH_MAX: usize = 500;

/// How long to sleep when nobody wakes the relay.
const IDLE: Duration = Duration::from_secs(1);

/// How long the last messages may take when the engine stops; what has not left by then leaves after the next start.
const LAST: Duration = Duration::from_secs(3);

/// What the relay tells: how many messages have left, or the trouble that keeps them.
pub trait Observer: Send + Sync {
    fn published(&self, messages: usize);
    fn trouble(&self, topic: &str, trouble: Option<String>);
}

pub async fn run(
    topic: String,
    store: Store,
    bus: Arc<dyn Bus>,
    mut changes: watch::Receiver<u64>,
    observer: Arc<dyn Observer>,
    now: fn() -> EventTime,
    stop: CancellationToken,
) {
    let mut troubled = false;
    loop {
        let pause = match drain(&topic, &store, &*bus, &*observer, now).await {
            Ok(()) => {
                if std::mem::take(&mut troubled) {
                    observer.trouble(&topic, None);
                }
                IDLE
            }
            Err(problem) => {
                troubled = true;
                observer.trouble(&topic, Some(format!("topic {topic}: {problem}; messages wait in the outbox")));
                IDLE
            }
        };
        tokio::select! {
            () = stop.cancelled() => {
                // What the last commit wrote still leaves, if the bus takes it.
                let _ = tokio::time::timeout(LAST, drain(&topic, &store, &*bus, &*observer, now)).await;
                return;
            }
            _ = changes.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Sends until the outbox is empty or something is refused for now.
async fn drain(
    topic: &str,
    store: &Store,
    bus: &dyn Bus,
    observer: &dyn Observer,
    now: fn() -> EventTime,
) -> Result<(), String> {
    let text = |error: CommitError| error.to_string();
    loop {
        let messages = store.outbox(topic, BATCH_MAX).await.map_err(text)?;
        if messages.is_empty() {
            return Ok(());
        }
        let results = bus.append(messages.iter().map(|message| message.record.clone()).collect()).await;
        crate::crash::point("relay.sent");
        // Only what left before the first failure is marked: order within a scope must hold (BUDGET-2).
        let sent = results.iter().take_while(|result| result.is_ok()).count();
        let ids: Vec<i64> = messages[..sent].iter().map(|message| message.id).collect();
        store.mark_published(&ids, now()).await.map_err(text)?;
        observer.published(sent);
        if let Some(Err(error)) = results.get(sent) {
            return Err(error.to_string());
        }
    }
}
