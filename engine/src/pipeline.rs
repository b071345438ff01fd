//! The stream in motion: bus → fold → commit, with a bounded queue between each two.
//!
//! ```text
//!  bus thread ── batches (bounded) ──▶ fold thread ── one epoch at a time ──▶ committer ──▶ windows, metrics, relay
//! ```
//!
//! The fold thread goes on gathering while the committer writes; when the next epoch is full as well, it waits, and so does
//! the bus (BOUND-1). An epoch closes after `commit.interval`, with `commit.rows`, at once when a budget crosses a threshold,
//! when partitions leave, and at the end.
//!
//! Limits: one epoch in flight; at most twice `commit.rows` rows gathered behind it.

use std::{sync::Arc, time::Duration};

use costhelm_pricing::EventTime;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{BusEvent, Subscription},
    commit::{
        Committer, Timings,
        store::{CommitError, Committed},
    },
    fold::{Epoch, Folder, OutOfOrder},
};

/// Why a run of the pipeline ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
    #[error("the bus stopped delivering")]
    BusEnded,
}

#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    pub interval: Duration,
    pub rows: usize,
}

/// Hears of what happens in a run.
pub trait Observer: Send + Sync + 'static {
    fn folded(&self, folder: &Folder);
    fn committed(&self, epoch: &Epoch, committed: &Committed, timings: Timings);
    fn trouble(&self, trouble: Option<String>);
}

struct Work {
    epoch: Arc<Epoch>,
    /// Given back when the epoch is committed: there is one.
    permit: OwnedSemaphorePermit,
}

/// Runs until `stop`, then drains: what has been folded is committed before this returns.
pub async fn run<O: Observer>(
    folder: Folder,
    committer: Committer,
    subscription: Subscription,
    options: RunOptions,
    observer: Arc<O>,
    now: fn() -> EventTime,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let (epochs, queue) = mpsc::channel(1);
    let idle = Arc::new(Semaphore::new(1));
    let committing = tokio::spawn(commit_all(committer, queue, idle.clone(), observer.clone()));
    let worker = Worker { folder, epochs, idle, options, observer, now, since: Instant::now() };
    let runtime = tokio::runtime::Handle::current();
    // Folding is work for a processor, not waiting: it gets a thread of its own.
    let folding = tokio::task::spawn_blocking(move || runtime.block_on(worker.run(subscription, stop)));
    let folded = match folding.await {
        Ok(folded) => folded,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    match committing.await {
        Ok(Ok(())) => folded,
        Ok(Err(error)) => Err(error.into()),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn commit_all<O: Observer>(
    mut committer: Committer,
    mut queue: mpsc::Receiver<Work>,
    idle: Arc<Semaphore>,
    observer: Arc<O>,
) -> Result<(), CommitError> {
    while let Some(Work { epoch, permit }) = queue.recv().await {
        match committer.commit(epoch.clone(), |trouble| observer.trouble(trouble)).await {
            Ok((committed, timings)) => observer.committed(&epoch, &committed, timings),
            Err(error) => {
                idle.close();
                return Err(error);
            }
        }
        drop(permit);
    }
    Ok(())
}

struct Worker<O> {
    folder: Folder,
    epochs: mpsc::Sender<Work>,
    idle: Arc<Semaphore>,
    options: RunOptions,
    observer: Arc<O>,
    now: fn() -> EventTime,
    /// When the epoch that is being gathered began.
    since: Instant,
}

/// The committer has stopped; its own error says why.
struct Stopped;

impl<O: Observer> Worker<O> {
    async fn run(mut self, mut subscription: Subscription, stop: CancellationToken) -> Result<(), RunError> {
        let mut due = false;
        loop {
            let full = self.folder.pending_rows() >= 2 * self.options.rows;
            let deadline = self.since + self.options.interval;
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                permit = self.idle.clone().acquire_owned(), if due => {
                    due = false;
                    let Ok(permit) = permit else { return Ok(()) };
                    if self.hand_over(permit).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                event = subscription.events.recv(), if !full => event,
                () = tokio::time::sleep_until(deadline), if !due && self.folder.has_pending() => {
                    due = true;
                    continue;
                }
            };
            match event {
                None => return Err(RunError::BusEnded),
                Some(BusEvent::Assigned(partitions)) => self.folder.assign(partitions),
                Some(BusEvent::Batch(batch)) => {
                    if !self.folder.has_pending() {
                        self.since = Instant::now();
                    }
                    let urgent = self.folder.fold(&batch, (self.now)())?;
                    due |= urgent
                        || self.folder.pending_rows() >= self.options.rows
                        || self.since.elapsed() >= self.options.interval;
                }
                Some(BusEvent::Revoked { partitions, done }) => {
                    if self.flush().await.is_err() {
                        return Ok(());
                    }
                    due = false;
                    self.folder.revoke(&partitions);
                    drop(done);
                }
            }
        }
        let _ = self.flush().await;
        Ok(())
    }

    async fn hand_over(&mut self, permit: OwnedSemaphorePermit) -> Result<(), Stopped> {
        let Some(epoch) = self.folder.seal() else { return Ok(()) };
        self.since = Instant::now();
        self.observer.folded(&self.folder);
        self.epochs.send(Work { epoch: Arc::new(epoch), permit }).await.map_err(|_| Stopped)
    }

    /// Commits what is pending and waits until it is committed.
    async fn flush(&mut self) -> Result<(), Stopped> {
        let permit = self.idle.clone().acquire_owned().await.map_err(|_| Stopped)?;
        self.hand_over(permit).await?;
        self.idle.acquire().await.map(drop).map_err(|_| Stopped)
    }
}
