//! A door that watches functions: what is new is told to the layers, and who may not observe any more is told so.

use std::sync::Arc;

use sandbar_runtime::outputs::{Change, Subject, Watched};
use sandbar_runtime::{Answer, Method, Outcome};

use super::Shared;
use super::call::{allowed, respond};
use super::observe::Representation;
use super::response::Response;
use super::visitor::Visitor;
use crate::service::Service;

impl<S: Service> Shared<S> {
    /// Takes what is new of the functions that are watched, for ever.
    pub(super) async fn keep_observers(&self) {
        loop {
            for change in self.watcher.changes().await {
                match change {
                    Change::Output(watched, output, given) => {
                        let newest = Representation::new(output, &self.tagger);
                        self.layers.change(|layers, _| layers.published(&watched, newest, given));
                    }
                    // TODO(accept): ask for its answer, tell it to whoever observes.
                    Change::Call(_) => {}
                    Change::Application(name) => self.reconsider(Some(&name)).await,
                }
            }
            self.counters.outputs_too_large.add_many(self.watcher.take_missed());
            tokio::task::consume_budget().await;
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

    /// Begun while its function was being removed, or its leave taken, an observation would be told of nothing: whether it
    /// may be is asked once more.
    pub(super) async fn confirm(&self, visitor: &Visitor, watched: &Watched) {
        if self.judge(visitor, watched).is_err() {
            self.reconsider(Some(&watched.application)).await;
        }
    }

    /// Whether somebody may observe a function, as things are now; what to say if not.
    fn judge(&self, visitor: &Visitor, watched: &Watched) -> Result<(), Response> {
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
            // TODO(accept): the call's own function, and not `observable`.
            Subject::Call(_) => None,
        };
        let may = allowed(&self.service, visitor, application, function)
            .and_then(|()| if self.service.observable(application, function) { Ok(()) } else { Err(not_observable()) });
        may.map_err(|answer| respond(*answer, Method::Get, None, &self.config))
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
