//! Calls that have been begun: each owes its peer an answer, whatever becomes of it.

use std::sync::Arc;

use sandbar_runtime::{Answer, Outcome};

use super::Shared;
use super::call::{Work, respond};
use super::datagram::Transmit;
use super::layers::Pending;
use crate::service::Service;

/// A call, until it is answered.
pub(super) struct Call<S: Service> {
    shared: Arc<Shared<S>>,
    /// `None` once it has been answered.
    pending: Option<Box<Pending>>,
}

impl<S: Service> Call<S> {
    pub(super) fn new(shared: Arc<Shared<S>>, pending: Box<Pending>) -> Self {
        Self { shared, pending: Some(pending) }
    }

    /// To its end; gives what is to be sent.
    pub(super) async fn run(mut self, work: Work) -> Option<Transmit> {
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
        shared.change(|layers, now| layers.answered(*pending, response, now))
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
