//! What functions give out, for whoever watches: the newest output of each function that is watched.
//!
//! ```text
//!   Running ── publish ──▶ Outputs ──▶ Watcher of a door: the newest output of each function it watches ── changes ──▶ door
//!   Accepted ─ ended ────▶                                which accepted calls have ended,
//!   HostBus ── replaced ─▶                                and which applications have another version, or none
//! ```
//!
//! Who calls a function, and by which door, makes no difference. An output is
//!
//! - the answer to a call from outside its sandbox, of the function that was called and of the one that gave it, which is the last of
//!   the chain; and
//! - what a function gives that runs on its own, at the end of what follows it.
//!
//! What is handed on within a chain, or back to a function that called another of its application, never comes out of its sandbox and is
//! not seen. A call that failed has no output. Of an accepted call that is watched it is told that it has ended, not its answer, which is
//! kept elsewhere.
//!
//! Invariants:
//! 1. While nothing is watched, an output costs one load. A watched one is not copied: it shares its bytes with the answer.
//! 2. A watcher holds one output for each function it watches at most, and 64 MiB in all: a slow door misses those between,
//!    never the newest, and holds nobody up.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use bytes::Bytes;
use sandbar_bus::AnswerProperties;
use tokio::sync::Notify;

use crate::call::Ticket;

/// Bytes of outputs that wait for one watcher to take them; one that would be beyond is not told.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Names what is watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Watched {
    /// The application's name.
    pub application: String,
    /// What of it.
    pub subject: Subject,
}

/// What can be watched of an application.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Its entry function, whichever that is.
    Entry,
    /// The function of this name.
    Function(String),
    /// An accepted call.
    Call(Ticket),
}

impl From<Option<String>> for Subject {
    /// The function of this name, or the entry function if none is named.
    fn from(function: Option<String>) -> Self {
        function.map_or(Self::Entry, Self::Function)
    }
}

/// What a function gave out.
#[derive(Clone, Debug)]
pub struct Output {
    /// The bytes.
    pub payload: Bytes,
    /// Their format (CoAP Content-Formats registry), if the function said one.
    pub content_format: Option<u16>,
    /// What else the function said of them.
    pub properties: AnswerProperties,
}

/// What a watcher is told.
#[derive(Clone, Debug)]
pub enum Change {
    /// A function has given out something new: the newest, and how many there were since the last that was told.
    Output(Arc<Watched>, Output, u32),
    /// An accepted call has ended, or is known no more: its answer has to be asked for.
    Call(Arc<Watched>),
    /// An application was removed, or replaced by another version: whether its functions are there has to be asked again.
    Application(String),
}

/// All watchers of a host.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Functions watched, by each watcher.
    watched: AtomicUsize,
    watchers: RwLock<Vec<Weak<Waiting>>>,
}

/// One that watches: a door. What it watches is watched no more when it is dropped.
#[derive(Debug)]
pub struct Watcher {
    outputs: Arc<Outputs>,
    waiting: Arc<Waiting>,
}

/// What a watcher has yet to take.
#[derive(Debug, Default)]
struct Waiting {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By application, then by what is watched of it.
    watched: HashMap<String, HashMap<Subject, Slot>>,
    /// Functions with something new, the first first.
    fresh: Vec<Arc<Watched>>,
    /// Accepted calls that have ended, of those that are watched.
    ended: HashSet<Arc<Watched>>,
    /// Applications that were replaced or removed.
    replaced: Vec<String>,
    bytes: usize,
    /// Outputs not told for want of room.
    missed: u64,
}

#[derive(Debug)]
struct Slot {
    watched: Arc<Watched>,
    newest: Option<Output>,
    /// Outputs since the last that was taken.
    given: u32,
}

impl Outputs {
    /// A watcher that watches nothing yet.
    #[must_use]
    pub fn watcher(self: &Arc<Self>) -> Watcher {
        let waiting = Arc::new(Waiting::default());
        let mut watchers = self.watchers.write().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(Arc::downgrade(&waiting));
        Watcher { outputs: Arc::clone(self), waiting }
    }

    /// Whether anything is watched.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        // Relaxed: whoever begins to watch is told of outputs from about now on.
        self.watched.load(Ordering::Relaxed) > 0
    }

    /// Tells what a function gave out. `entry`: it is the one that is called when none is named.
    pub fn publish(&self, application: &str, function: &str, entry: bool, output: &Output) {
        self.each(|watcher| watcher.offer(application, function, entry, output));
    }

    /// Tells that an accepted call has ended, or is known no more.
    pub fn ended(&self, application: &str, ticket: Ticket) {
        if self.is_watched() {
            self.each(|watcher| watcher.ended(application, ticket));
        }
    }

    /// Tells that an application was removed or replaced.
    pub fn replaced(&self, application: &str) {
        if self.is_watched() {
            self.each(|watcher| watcher.replaced(application));
        }
    }

    fn each(&self, tell: impl Fn(&Waiting)) {
        let watchers = self.watchers.read().unwrap_or_else(PoisonError::into_inner);
        watchers.iter().filter_map(Weak::upgrade).for_each(|watcher| tell(&watcher));
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, application: &str, function: &str, entry: bool, output: &Output) {
        let mut state = self.lock();
        let State { watched, fresh, bytes, missed, .. } = &mut *state;
        let Some(functions) = watched.get_mut(application) else { return };
        let before = fresh.len();
        let names = [Subject::Function(function.to_owned()), Subject::Entry];
        for name in &names[..1 + usize::from(entry)] {
            let Some(slot) = functions.get_mut(name) else { continue };
            let held = slot.newest.as_ref().map_or(0, |newest| newest.payload.len());
            if *bytes - held + output.payload.len() > WAITING_BYTES_MAX {
                *missed += 1;
                continue;
            }
            *bytes = *bytes - held + output.payload.len();
            slot.given = slot.given.saturating_add(1);
            if slot.newest.replace(output.clone()).is_none() {
                fresh.push(Arc::clone(&slot.watched));
            }
        }
        let told = fresh.len() > before;
        drop(state);
        if told {
            self.changed.notify_one();
        }
    }

    fn ended(&self, application: &str, ticket: Ticket) {
        let mut state = self.lock();
        let State { watched, ended, .. } = &mut *state;
        let slot = watched.get(application).and_then(|subjects| subjects.get(&Subject::Call(ticket)));
        if slot.is_some_and(|slot| ended.insert(Arc::clone(&slot.watched))) {
            drop(state);
            self.changed.notify_one();
        }
    }

    fn replaced(&self, application: &str) {
        let mut state = self.lock();
        let concerns = state.watched.contains_key(application);
        if concerns && !state.replaced.iter().any(|known| known == application) {
            state.replaced.push(application.to_owned());
            drop(state);
            self.changed.notify_one();
        }
    }
}

impl Watcher {
    /// Watches what need not exist. To watch what is watched changes nothing.
    pub fn watch(&self, watched: &Arc<Watched>) {
        let mut state = self.waiting.lock();
        let functions = state.watched.entry(watched.application.clone()).or_default();
        functions.entry(watched.subject.clone()).or_insert_with(|| {
            self.outputs.watched.fetch_add(1, Ordering::Relaxed);
            Slot { watched: Arc::clone(watched), newest: None, given: 0 }
        });
    }

    /// Watches it no more.
    pub fn unwatch(&self, watched: &Watched) {
        let mut state = self.waiting.lock();
        let Some(functions) = state.watched.get_mut(&watched.application) else { return };
        let Some(slot) = functions.remove(&watched.subject) else { return };
        if functions.is_empty() {
            state.watched.remove(&watched.application);
        }
        if let Some(newest) = slot.newest {
            state.bytes -= newest.payload.len();
            state.fresh.retain(|fresh| **fresh != *watched);
        }
        state.ended.remove(watched);
        self.outputs.watched.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits until there is something new, and takes all of it. To be awaited by one task at a time.
    pub async fn changes(&self) -> Vec<Change> {
        loop {
            let changes = self.take();
            if !changes.is_empty() {
                return changes;
            }
            self.waiting.changed.notified().await;
        }
    }

    /// Outputs that were not told since this was asked last, as too many bytes waited to be taken.
    #[must_use]
    pub fn take_missed(&self) -> u64 {
        std::mem::take(&mut self.waiting.lock().missed)
    }

    fn take(&self) -> Vec<Change> {
        let mut state = self.waiting.lock();
        let State { watched, fresh, ended, replaced, bytes, .. } = &mut *state;
        let mut changes = Vec::with_capacity(fresh.len() + ended.len() + replaced.len());
        for fresh in fresh.drain(..) {
            let slot = watched.get_mut(&fresh.application).and_then(|functions| functions.get_mut(&fresh.subject));
            let Some(slot) = slot else { continue };
            if let Some(output) = slot.newest.take() {
                changes.push(Change::Output(fresh, output, std::mem::take(&mut slot.given)));
            }
        }
        *bytes = 0;
        changes.extend(ended.drain().map(Change::Call));
        changes.extend(replaced.drain(..).map(Change::Application));
        changes
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let watched: usize = self.waiting.lock().watched.drain().map(|(_, functions)| functions.len()).sum();
        self.outputs.watched.fetch_sub(watched, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "outputs/tests.rs"]
mod tests;
