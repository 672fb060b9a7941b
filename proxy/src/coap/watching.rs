//! A door that watches functions and accepted calls: what is new is told to the layers, and who may not observe any more is told so.

use std::sync::Arc;

use sandbar_runtime::outputs::{Change, Subject, Watched};
use sandbar_runtime::{Answer, Method, Outcome};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::Shared;
use super::call::{allowed, has_ended, respond};
use super::observe::Representation;
use super::response::Response;
use super::visitor::Visitor;
use crate::service::Service;

impl<S: Service> Shared<S> {
    /// Takes what is new of all that is watched, for ever.
    pub(super) async fn keep_observers(&self) {
        // There are no more in it than are watched: each is told of once, and again only if it was made again. Their answers are read one
        // after another, as memory is to hold one of them, and apart, as outputs do not wait for a disk.
        let (ended, to_tell) = unbounded_channel();
        tokio::join!(self.take_changes(ended), self.tell_ends(to_tell));
    }

    async fn take_changes(&self, ended: UnboundedSender<Arc<Watched>>) {
        loop {
            for change in self.watcher.changes().await {
                match change {
                    Change::Output(watched, output, given) => {
                        let newest = Representation::new(output, &self.tagger);
                        self.layers.change(|layers, _| layers.published(&watched, newest, given));
                    }
                    Change::Call(watched) => {
                        // Its other end is beside this.
                        if ended.send(watched).is_err() {
                            return;
                        }
                    }
                    Change::Application(name) => self.reconsider(Some(&name)).await,
                }
            }
            self.counters.outputs_too_large.add_many(self.watcher.take_missed());
            tokio::task::consume_budget().await;
        }
    }

    async fn tell_ends(&self, mut ended: UnboundedReceiver<Arc<Watched>>) {
        while let Some(watched) = ended.recv().await {
            self.tell_end(&watched).await;
        }
    }

    /// Gives the answer to an accepted call to whoever observes it, if it has ended.
    async fn tell_end(&self, watched: &Watched) {
        let Watched { application, subject: Subject::Call(ticket) } = watched else { return };
        let mut answer = self.service.accepted_answer(application, *ticket).await;
        if answer.outcome == Outcome::Accepted {
            return;
        }
        // It reads all of the answer, and so comes before the lock is taken.
        let tag = |payload: &[u8]| self.tagger.hash(payload).into_vec();
        answer.properties.etag = answer.properties.etag.or_else(|| Some(tag(&answer.payload)));
        let respond = |accept| respond(answer.clone(), Method::Get, accept, &self.config);
        loop {
            let answers = self.layers.change(|layers, now| layers.call_ended(watched, respond, now));
            if answers.is_empty() {
                return;
            }
            for transmit in answers {
                self.send(&transmit).await;
            }
        }
    }

    /// Ends the observations of an application, or all, that may not go on.
    pub(super) async fn reconsider(&self, application: Option<&str>) {
        let last =
            self.layers.change(|layers, now| layers.reconsider(application, |who, what| self.judge(who, what), now));
        for transmit in last {
            self.send(&transmit).await;
        }
    }

    /// Begun while its function was being removed, its leave taken, or the call ending, an observation would be told of nothing: whether it
    /// may be, and whether there is something to tell already, is asked once more.
    pub(super) async fn confirm(self: &Arc<Self>, visitor: &Visitor, watched: Watched, calls: &mut JoinSet<()>) {
        match self.has_ended(visitor, &watched) {
            Ok(false) => {}
            Ok(true) => {
                let shared = Arc::clone(self);
                calls.spawn(async move { shared.tell_end(&watched).await });
            }
            Err(_) => self.reconsider(Some(&watched.application)).await,
        }
    }

    /// Whether somebody may observe something, as things are now; what to say if not.
    fn judge(&self, visitor: &Visitor, watched: &Watched) -> Result<(), Response> {
        let ended = self.has_ended(visitor, watched).map(drop);
        ended.map_err(|answer| respond(*answer, Method::Get, None, &self.config))
    }

    /// Whether what somebody observes has come to its end, as accepted calls do; or why he may not observe it.
    fn has_ended(&self, visitor: &Visitor, watched: &Watched) -> Result<bool, Box<Answer>> {
        let known = match visitor {
            Visitor::Stranger(_) => None,
            Visitor::Known(identity) => self.guard.as_ref().and_then(|guard| guard.known(identity)),
        };
        let now = known.map(Visitor::Known);
        let visitor = now.as_ref().unwrap_or(visitor);
        let Watched { application, subject } = watched;
        let function = match subject {
            Subject::Entry => None,
            Subject::Function(name) => Some(name.as_str()),
            // Whoever has the ticket may know how the call ends, whatever the manifest lets others observe.
            Subject::Call(ticket) => return has_ended(&self.service, visitor, application, *ticket),
        };
        allowed(&self.service, visitor, application, function)?;
        if self.service.observable(application, function) { Ok(false) } else { Err(not_observable()) }
    }

    /// Says to all observers that the door closes.
    pub(super) fn dismiss_observers(&self) {
        for transmit in self.layers.change(|layers, _| layers.close()) {
            self.try_send(transmit);
        }
    }
}

fn not_observable() -> Box<Answer> {
    Box::new(Answer::refused(Outcome::NotAllowed, "this function may not be observed any more"))
}

/// A watcher of what the service's functions give out.
pub(super) fn watcher<S: Service>(service: &S) -> Arc<sandbar_runtime::outputs::Watcher> {
    Arc::new(service.outputs().watcher())
}
