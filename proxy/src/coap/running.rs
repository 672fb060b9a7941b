//! Calls that run: begun where their request arrives, and ended with an answer whatever becomes of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt;
use sandbar_runtime::{Answer, Outcome};
use tokio::task::JoinSet;

use super::Shared;
use super::call::{Work, respond, validate};
use super::datagram::Transmit;
use super::layers::Pending;
use crate::service::Service;

/// A call that has been begun, and owes its peer an answer.
pub(super) struct Call<S: Service> {
    shared: Arc<Shared<S>>,
    /// `None` once it has been answered.
    pending: Option<Box<Pending>>,
}

impl<S: Service> Call<S> {
    pub(super) fn new(shared: Arc<Shared<S>>, pending: Box<Pending>) -> Self {
        Self { shared, pending: Some(pending) }
    }

    /// Runs as far as it goes without waiting, and is given a task if that is not to its end.
    pub(super) async fn begin(self, work: Work, calls: &mut JoinSet<()>) {
        let shared = Arc::clone(&self.shared);
        let mut run = Box::pin(self.run(work));
        // The call answers for itself when it panics; receiving goes on.
        match catch_unwind(AssertUnwindSafe(|| run.as_mut().now_or_never())) {
            Ok(Some(Some(transmit))) => shared.send(&transmit).await,
            Ok(Some(None)) => {}
            Ok(None) => {
                calls.spawn(async move {
                    if let Some(transmit) = run.await {
                        shared.send(&transmit).await;
                    }
                });
            }
            Err(_) => tracing::error!("a call panicked"),
        }
    }

    /// To its end; gives what is to be sent.
    async fn run(mut self, work: Work) -> Option<Transmit> {
        let shared = Arc::clone(&self.shared);
        let answer = work.run(&shared.service).await;
        self.answer(answer)
    }

    /// Ends the call with its answer.
    fn answer(&mut self, answer: Answer) -> Option<Transmit> {
        let pending = self.pending.take()?;
        let shared = &self.shared;
        let mut response = respond(answer, pending.method, pending.accept, &shared.config);
        shared.tagger.tag(&mut response, pending.block2);
        let response = validate(response, &pending.held);
        shared.layers.change(|layers, now| layers.answered(*pending, response, now))
    }
}

/// A task that ends without an answer, because it panicked or the door closes, still owes one.
impl<S: Service> Drop for Call<S> {
    fn drop(&mut self) {
        let answer = Answer::refused(Outcome::Failed, "the call was given up");
        if let Some(transmit) = self.answer(answer) {
            self.shared.try_send(transmit);
        }
    }
}
