//! Accepted calls: asynchronous ones, stored before they are accepted, made when their application takes them, their answers kept for whoever
//! has the [`Ticket`].
//!
//! ```text
//!                 stored                     a place is free                            done
//!   door ─ accept ───────▶ waiting ─────────────────────────▶ under way ─┬─────────────────────────────▶ done
//!                             ▲                                           │ failed, as often as is tried,
//!                             │ failed: after a pause                     │ or it can never be made
//!                             ├───────────────────────────────────────────┴─────────────────────────────▶ dead
//!                             └───────────────────────────────── replay ─────────────────────────────────────┘
//! ```
//!
//! `index` is the state machine drawn here, in memory, without payloads; `store` holds the calls on disk; `delivery` makes them.
//!
//! Invariants:
//! 1. A call is accepted when the disk has it, not before; it ends when the disk has its answer, not before. What happens to the
//!    agent in between, the call is made at least once: again by the next agent, under the same id.
//! 2. Everything is bounded, by number and by bytes, each application for itself ([`AcceptedLimits`]): what is beyond is refused as overloaded
//!    before it is stored; of answers the oldest are forgotten.
//! 3. A host on which no call was ever accepted has no store, no thread for it and no file.
//! 4. They are calls like others: admitted by the host bus, counted with their application's, and refused by it as others are. One that
//!    is refused as overloaded waits, and that is no attempt.
//!
//! It keeps no order but this: of an application's calls the first that may be made is begun first. It knows nothing of deadlines
//! beyond the function's own time-out. Source: at-least-once delivery with the call's id as idempotency key, and dead letters, are what
//! message brokers do; ProFaaStinate (Schirmer et al., WoSC 2023) answers before it stores, and loses calls.

mod delivery;
mod index;
mod limits;
mod record;
mod store;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sandbar_bus::AnswerProperties;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::call::{Answer, CallId, Outcome, Request, Ticket};
use crate::host_bus::{Caller, HostBus};
use crate::outputs::Outputs;
pub use index::NoRoom;
use index::{Forgotten, Index};
pub use limits::AcceptedLimits;
use store::Store;
pub use store::StoreError;

/// How far an accepted call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcceptedState {
    /// It has yet to be made, or made again.
    Waiting,
    /// It is being made.
    UnderWay,
    /// It was answered; the answer is kept.
    Done,
    /// It was given up. It is kept with its payload, to be replayed.
    Dead,
}

/// What a door needs to know of an accepted call before it does anything about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedCall {
    /// The function that was called; `None`: the application's entry function. Who may not call it may not ask after the call.
    pub function: Option<String>,
    /// Whether it has ended.
    pub ended: bool,
}

/// One accepted call, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedStatus {
    /// The ticket.
    pub ticket: String,
    /// The application that is called.
    pub application: String,
    /// The function that is called; absent: the entry function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// How far it is.
    pub state: AcceptedState,
    /// Attempts that have ended.
    pub attempts: u32,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_ms: u64,
    /// When it ended, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// How the last attempt ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why that is not "done"; empty if it is, or if there was none.
    pub diagnostic: String,
    /// Bytes of the payload that is kept: of one that was done, none.
    pub payload_bytes: usize,
    /// Bytes of the answer.
    pub answer_bytes: usize,
}

/// Why something was not done with accepted calls.
#[derive(Debug, thiserror::Error)]
pub enum AcceptedError {
    /// There is no such call.
    #[error("no call {0} is known: calls that have ended are kept for a time only")]
    NoSuchCall(Ticket),
    /// It is being made.
    #[error("call {0} is under way: it can be forgotten when it has ended")]
    UnderWay(Ticket),
    /// It was not given up.
    #[error("call {0} was not given up: only such a call is made again")]
    NotDead(Ticket),
    /// There are as many calls waiting as may be.
    #[error("call {0} cannot be made again now: {1}")]
    NoRoom(Ticket, NoRoom),
    /// The disk.
    #[error("the store of accepted calls failed")]
    Store(#[source] StoreError),
}

/// All accepted calls of a host.
#[derive(Debug)]
pub(crate) struct Accepted {
    limits: AcceptedLimits,
    index: Mutex<Index>,
    store: Store,
    outputs: Arc<Outputs>,
    /// Held while a call is replayed: by two at once it could be on disk what it is not in mind.
    replaying: tokio::sync::Mutex<()>,
    /// Told when there may be something to begin, or earlier than whoever begins it knows.
    changed: Notify,
    delivery: Mutex<Option<JoinHandle<()>>>,
    /// Becomes true when no call is begun any more.
    stopping: watch::Sender<bool>,
}

impl Accepted {
    /// Those that are kept in this file, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn open(
        path: PathBuf,
        limits: AcceptedLimits,
        outputs: Arc<Outputs>,
    ) -> Result<Arc<Self>, StoreError> {
        let store = Store::new(path);
        let mut index = Index::new(limits.clone());
        if store.exists() {
            index.load(store.run(record::entries).await?, Instant::now());
        }
        let (changed, delivery, stopping) = (Notify::new(), Mutex::new(None), watch::Sender::new(false));
        let (index, replaying) = (Mutex::new(index), tokio::sync::Mutex::default());
        Ok(Arc::new(Self { limits, index, store, outputs, replaying, changed, delivery, stopping }))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts a call, when it is stored; or says why not.
    pub(crate) async fn accept(self: &Arc<Self>, bus: &Arc<HostBus>, request: Request) -> Answer {
        if let Err(refused) = bus.check(Caller::Door(request.origin), &request) {
            return *refused;
        }
        if let Err(no_room) = self.index().reserve(&request.application, request.payload.len()) {
            return Answer::refused(Outcome::Overloaded, no_room.to_string());
        }
        // Without the kernel's random numbers there would be no sandbox either.
        let Ok(secret) = getrandom::u64() else {
            self.index().release(&request.application, request.payload.len());
            return Answer::refused(Outcome::Failed, "the host has no random numbers");
        };
        let ticket = Ticket { call: bus.new_id(), secret };
        // To its end, whatever becomes of who asks: what is reserved is not lost, and what is stored is not unknown.
        let (accepted, bus) = (Arc::clone(self), Arc::clone(bus));
        let stored = tokio::spawn(async move { accepted.store(&bus, ticket, request).await }).await;
        stored.unwrap_or_else(|_| Answer::refused(Outcome::Failed, "the call was given up"))
    }

    /// Stores a call for which there is room.
    async fn store(&self, bus: &HostBus, ticket: Ticket, request: Request) -> Answer {
        let request = Arc::new(request);
        let row = Arc::clone(&request);
        let stored = self.store.run(move |database| record::insert(database, ticket, &row, now_ms())).await;
        let Request { application, function, payload, .. } = &*request;
        if let Err(error) = stored {
            self.index().release(application, payload.len());
            tracing::error!(application, error = crate::chain(&error), "a call could not be stored");
            return Answer::refused(Outcome::Overloaded, "the host cannot store calls now");
        }
        self.index().enter(ticket, application, function.as_deref(), payload.len(), Instant::now());
        self.changed.notify_one();
        if bus.service(application).is_none() {
            // Removed meanwhile, and maybe before this call could be removed with it.
            self.forget_application(application).await;
            return Answer::refused(Outcome::NotFound, format!("application {application:?} was removed"));
        }
        let properties =
            AnswerProperties { location: Some(ticket.location(application)), ..AnswerProperties::default() };
        Answer { call: Some(ticket.call), properties, ..Answer::refused(Outcome::Accepted, "") }
    }

    /// What is known of a call; `None` if there is none, or no more.
    pub(crate) fn find(&self, application: &str, ticket: Ticket) -> Option<AcceptedCall> {
        self.index().find(application, ticket).map(|(call, _)| call)
    }

    /// The answer to a call, as far as it is known.
    pub(crate) async fn answer(&self, application: &str, ticket: Ticket) -> Answer {
        let unknown = || Answer::refused(Outcome::NotFound, AcceptedError::NoSuchCall(ticket).to_string());
        let Some(AcceptedCall { ended, .. }) = self.find(application, ticket) else { return unknown() };
        if !ended {
            return Answer { call: Some(ticket.call), ..Answer::not_ended() };
        }
        match self.store.run(move |database| record::answer(database, ticket.call)).await {
            Ok(Some(mut answer)) => {
                if answer.outcome == Outcome::Done {
                    // By it whoever asks tells an answer from a call that has not ended.
                    answer.properties.etag.get_or_insert_with(|| ticket.call.0.to_be_bytes().to_vec());
                }
                answer
            }
            Ok(None) => unknown(),
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "an answer cannot be read");
                Answer::refused(Outcome::Overloaded, "the host cannot read the answer now")
            }
        }
    }

    /// All calls that are known, the oldest first; of an application, or all.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) async fn list(&self, application: Option<&str>) -> Result<Vec<AcceptedStatus>, AcceptedError> {
        if !self.store.exists() {
            return Ok(Vec::new());
        }
        let application = application.map(str::to_owned);
        let listed = self.store.run(move |database| record::list(database, application.as_deref())).await;
        let index = self.index();
        let known = listed.map_err(AcceptedError::Store)?.into_iter().filter_map(|(ticket, status)| {
            let (_, state) = index.find(&status.application, ticket)?;
            Some(AcceptedStatus { state, ..status })
        });
        Ok(known.collect())
    }

    /// Has a call made again that was given up.
    ///
    /// # Errors
    /// When it was not, there is no room for it, or the disk fails.
    pub(crate) async fn replay(&self, application: &str, ticket: Ticket) -> Result<(), AcceptedError> {
        let _replaying = self.replaying.lock().await;
        let bytes = {
            let mut index = self.index();
            match index.find(application, ticket) {
                None => return Err(AcceptedError::NoSuchCall(ticket)),
                Some((_, AcceptedState::Dead)) => {}
                Some(_) => return Err(AcceptedError::NotDead(ticket)),
            }
            let bytes = index.bytes(ticket.call);
            index.reserve(application, bytes).map_err(|no_room| AcceptedError::NoRoom(ticket, no_room))?;
            bytes
        };
        let stored = self.store.run(move |database| record::replay(database, ticket.call)).await;
        let mut index = self.index();
        // Unless it was forgotten meanwhile.
        let dead = matches!(index.find(application, ticket), Some((_, AcceptedState::Dead)));
        if stored.is_err() || !dead {
            index.release(application, bytes);
            return stored.map_err(AcceptedError::Store).and(Err(AcceptedError::NoSuchCall(ticket)));
        }
        index.replay(ticket.call, Instant::now());
        drop(index);
        self.changed.notify_one();
        Ok(())
    }

    /// Forgets a call that has ended, or takes one back that has not begun.
    ///
    /// # Errors
    /// When there is none, it is under way, or the disk fails; it is forgotten until the next start then.
    pub(crate) async fn forget(&self, application: &str, ticket: Ticket) -> Result<(), AcceptedError> {
        let forgotten = {
            let mut index = self.index();
            match index.find(application, ticket) {
                None => return Err(AcceptedError::NoSuchCall(ticket)),
                Some((_, AcceptedState::UnderWay)) => return Err(AcceptedError::UnderWay(ticket)),
                Some(_) => index.forget(ticket.call),
            }
        };
        self.delete(forgotten.into_iter().collect()).await.map_err(AcceptedError::Store)
    }

    /// Forgets the calls of an application that was removed; those under way end with it.
    pub(crate) async fn forget_application(&self, application: &str) {
        let forgotten = self.index().forget_application(application);
        if let Err(error) = self.delete(forgotten).await {
            tracing::error!(
                application,
                error = crate::chain(&error),
                "accepted calls of a removed application stay behind"
            );
        }
    }

    /// Forgets what is not to be kept any longer.
    async fn expire(&self) {
        let forgotten = self.index().expire(now_ms());
        if let Err(error) = self.delete(forgotten).await {
            tracing::warn!(error = crate::chain(&error), "calls that have ended stay on disk for longer");
        }
    }

    /// Deletes what is known no more, and tells whoever observes.
    async fn delete(&self, forgotten: Vec<Forgotten>) -> Result<(), StoreError> {
        if forgotten.is_empty() {
            return Ok(());
        }
        for Forgotten { ticket, application } in &forgotten {
            self.outputs.ended(application, *ticket);
        }
        let calls: Vec<CallId> = forgotten.iter().map(|forgotten| forgotten.ticket.call).collect();
        self.store.run(move |database| record::delete(database, &calls)).await
    }

    /// Begins no call any more, and gives those under way a moment to end; the next agent makes those that have not.
    pub(crate) async fn stop(&self) {
        self.stopping.send_replace(true);
        let delivery = self.delivery.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(delivery) = delivery
            && let Err(error) = delivery.await
        {
            tracing::error!(%error, "accepted calls were not made to the end");
        }
        self.store.close().await;
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "accepted/tests.rs"]
mod tests;
