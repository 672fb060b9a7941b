//! A sandbox in service: calls go in, answers come out.
//!
//! The table of calls under way is the agent's own. What a message coming out of the sandbox says is believed only as far as it
//! names a call in the table of that very sandbox.

mod deadlines;
mod given;
mod hops;
mod outward;
mod overload;
mod silence;
mod table;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use sandbar_bus::agent::{Corrupt, PostError, Received};
use sandbar_bus::clock::now_ns;
use sandbar_bus::properties::TooLong;
use sandbar_bus::{Address, AnswerProperties, Envelope, Verdict};
use sandbar_supervisor::protocol::{Event, ReceiveError, RestStep};
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::call::{Answer, Call, CallId, Outcome, Request};
use crate::host_bus::HostBus;
use crate::log::Log;
use crate::manifest::Application;
use crate::outputs::Outputs;
use crate::sandbox::Sandbox;
use table::{Calls, Pending};

/// Messages taken out of one sandbox before others get their turn.
const TAKEN_AT_ONCE: usize = 64;
/// Bytes of a function's own error text that reach the caller.
const DIAGNOSTIC_BYTES_MAX: usize = 512;

/// A sandbox in service.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) application: Arc<Application>,
    pub(crate) sandbox: Sandbox,
    log: Arc<Log>,
    /// Calls under way; `None` once the sandbox is out of service.
    calls: Mutex<Option<Calls>>,
    /// Calls answered, with any outcome: by all sandboxes that the application has had.
    answered: Arc<AtomicU64>,
    /// When something last began or ended, in nanoseconds of `CLOCK_MONOTONIC`.
    active_ns: AtomicU64,
    /// How far it has gone to rest, by its supervisor's word.
    step: Mutex<RestStep>,
    /// How long a call may have to wait for others while more come than are served; `None`: as long as the limits on numbers let it.
    delay_max: Option<Duration>,
    /// Where calls to other applications go.
    bus: Weak<HostBus>,
    /// Where it is told what functions give out.
    outputs: Arc<Outputs>,
    /// Calls to other applications that may still begin.
    outward: Arc<Semaphore>,
    /// Told when the segment was found to make no sense.
    corrupt: Notify,
    /// Told when a deadline passes earlier than whoever keeps time knows.
    earlier: Notify,
}

/// A sandbox that is out of service: another has taken its place, or will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retired;

/// Removes a call from the table when its caller no longer waits.
struct Registered<'a> {
    running: &'a Running,
    call: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if let Some(calls) = self.running.calls().as_mut() {
            calls.remove(self.call);
        }
    }
}

impl Running {
    /// Puts a sandbox into service.
    pub(crate) fn new(
        application: Arc<Application>,
        sandbox: Sandbox,
        log: Arc<Log>,
        (delay_max, answered): (Option<Duration>, Arc<AtomicU64>),
        bus: Weak<HostBus>,
    ) -> Arc<Self> {
        let outward = Arc::new(Semaphore::new(application.limits.calls));
        Arc::new(Self {
            application,
            sandbox,
            log,
            calls: Mutex::new(Some(Calls::default())),
            delay_max,
            outputs: bus.upgrade().map(|bus| Arc::clone(&bus.outputs)).unwrap_or_default(),
            bus,
            outward,
            answered,
            active_ns: AtomicU64::new(now_ns()),
            step: Mutex::new(RestStep::Awake),
            corrupt: Notify::new(),
            earlier: Notify::new(),
        })
    }

    fn calls(&self) -> MutexGuard<'_, Option<Calls>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long no call has begun, and nothing that was under way has ended.
    pub(crate) fn quiet(&self) -> Duration {
        Duration::from_nanos(now_ns().saturating_sub(self.active_ns.load(Ordering::Relaxed)))
    }

    fn is_active(&self, now_ns: u64) {
        self.active_ns.store(now_ns, Ordering::Relaxed);
    }

    /// How far it has gone to rest.
    pub(crate) fn step(&self) -> RestStep {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes out of service if nothing is under way; true if it has.
    pub(crate) fn retire_if_idle(&self) -> bool {
        let mut calls = self.calls();
        let idle = calls.as_ref().is_none_or(Calls::is_empty) && self.sandbox.bus.is_idle();
        if idle {
            *calls = None;
        }
        idle
    }

    /// Goes out of service. Whoever waits for a call is told that the sandbox ended.
    pub(crate) fn retire(&self) {
        *self.calls() = None;
    }

    /// Makes a call to a function and waits for its end, or its deadline.
    ///
    /// # Errors
    /// When the sandbox is out of service: the call has not begun.
    pub(crate) async fn call(&self, call: Call, request: &Request, deadline_ns: u64) -> Result<Answer, Retired> {
        let Call { id, function, depth } = call;
        let began_ns = now_ns();
        let (answer, answered) = oneshot::channel();
        let pending =
            Pending { answer, function, began_ns, deadline_ns, depth, hops: Vec::new(), traced: request.trace };
        if let Err(refused) = self.register(id, pending)? {
            return Ok(Answer { call: Some(id), ..*refused });
        }
        let _registered = Registered { running: self, call: id.0 };
        let envelope = Envelope {
            call: id.0,
            deadline_ns,
            sent_ns: began_ns,
            reply_to: Address::Caller,
            content_format: request.content_format,
            verdict: None,
            function,
            traced: request.trace,
            hops: 0,
        };
        if let Err(refused) = self.post(request, &envelope) {
            return Ok(Answer { call: Some(id), ..*refused });
        }
        // Whoever keeps time answers as well, when the deadline passes.
        let ended = |_| Answer::refused(Outcome::Failed, "the application's sandbox ended before the call did");
        let answer = answered.await.unwrap_or_else(ended);
        self.answered.fetch_add(1, Ordering::Relaxed);
        Ok(Answer { call: Some(id), ..answer })
    }

    /// Enters a call into the table; the answer to it where the table has as many as the application takes, or more than it can serve.
    fn register(&self, id: CallId, pending: Pending) -> Result<Result<(), Box<Answer>>, Retired> {
        let mut table = self.calls();
        let calls = table.as_mut().ok_or(Retired)?;
        let (under_way, max) = (calls.len(), self.application.limits.calls);
        if under_way >= max {
            let diagnostic = format!("the application has {max} calls under way, as many as it takes");
            return Ok(Err(Box::new(Answer::refused(Outcome::Overloaded, diagnostic))));
        }
        if let Some(delay_max) = self.delay_max {
            let admitted = calls.overload.admit(pending.began_ns, self.sandbox.bus.waiting(), under_way, delay_max);
            if let Err(wait) = admitted {
                let diagnostic =
                    format!("more calls come than are served: this one would wait {} ms", wait.as_millis());
                let refused = Answer::refused(Outcome::Overloaded, diagnostic);
                return Ok(Err(Box::new(Answer { retry_after: Some(wait), ..refused })));
            }
        }
        self.is_active(pending.began_ns);
        let earlier = calls.insert(id.0, pending);
        drop(table);
        if earlier {
            self.earlier.notify_one();
        }
        Ok(Ok(()))
    }

    fn post(&self, request: &Request, envelope: &Envelope) -> Result<(), Box<Answer>> {
        let overloaded = |what: &str| Box::new(Answer::refused(Outcome::Overloaded, what));
        let too_long = |error: TooLong| Box::new(Answer::refused(Outcome::BadRequest, error.to_string()));
        let properties = request.properties.encode().map_err(too_long)?;
        self.sandbox.bus.post_with(&properties, &request.payload, envelope).map_err(|error| match error {
            PostError::NoBuffer => overloaded("the application's message buffers are full"),
            PostError::QueueFull => overloaded("the function's queue is full"),
            PostError::Corrupt(corrupt) => {
                self.corrupt.notify_one();
                Box::new(Answer::refused(Outcome::Failed, corrupt.to_string()))
            }
        })?;
        self.sandbox.wake_supervisor();
        Ok(())
    }

    /// Serves the sandbox until it is no more: hands answers to their callers and writes down what the supervisor tells.
    pub(crate) async fn serve(self: &Arc<Self>) {
        tokio::select! {
            end = self.hand_out() => if let Err(corrupt) = end {
                self.log.add("", &format!("the sandbox is ended: {corrupt}"));
            },
            () = self.keep_time() => {}
            () = self.corrupt.notified() => self.log.add("", "the sandbox is ended: its message memory makes no sense"),
            () = self.hear_supervisor() => {
                // What the sandbox has still answered is an answer.
                tokio::select! {
                    end = self.drain_out() => if let Err(corrupt) = end {
                        self.log.add("", &format!("the sandbox has ended: {corrupt}"));
                    },
                    () = self.keep_time() => {}
                }
            }
        }
        self.retire();
    }

    async fn hear_supervisor(&self) {
        loop {
            match self.sandbox.next_event().await {
                Ok(Event::WorkerDied { function, reason, again_ms }) => {
                    self.log.add(self.function_name(function), &format!("{reason}; started again in {again_ms} ms"));
                }
                Ok(Event::WorkerKept { function, reason }) => {
                    let said = format!("the worker could not be renewed and serves on: {reason}");
                    self.log.add(self.function_name(function), &said);
                }
                Ok(Event::Rests { step }) => *self.step.lock().unwrap_or_else(PoisonError::into_inner) = step,
                Ok(Event::Failed { reason }) => self.log.add("", &format!("the sandbox cannot go on: {reason}")),
                Ok(Event::Forked { .. } | Event::Created | Event::Ready | Event::WorkerFailed { .. }) => {}
                Err(ReceiveError::Nothing) => {}
                Err(ReceiveError::Closed) => return,
                Err(error) => {
                    self.log.add("", &format!("the sandbox is ended: its supervisor makes no sense ({error})"));
                    return;
                }
            }
        }
    }

    async fn hand_out(self: &Arc<Self>) -> Result<(), Corrupt> {
        loop {
            self.drain_out().await?;
            // Announced, then looked again: a message that came before the announcement is seen here, one that comes after wakes.
            self.sandbox.bus.sleeps(true);
            self.drain_out().await?;
            let Ok(mut ready) = self.sandbox.out_event.readable().await else { return Ok(()) };
            // The event is never read, which could block: its descriptor is shared with the sandbox, where its flags can be
            // changed. Each write to it is an edge of its own, so that what comes after this line makes it ready again.
            ready.clear_ready();
            self.sandbox.bus.sleeps(false);
        }
    }

    /// Hands on all that has come out.
    async fn drain_out(self: &Arc<Self>) -> Result<(), Corrupt> {
        let mut taken = 0;
        while let Some(received) = self.sandbox.bus.take()? {
            match received.envelope.verdict {
                Some(verdict) => self.hand_to_caller(verdict, received),
                None => self.call_out(received),
            }
            taken += 1;
            if taken % TAKEN_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn hand_to_caller(&self, verdict: Verdict, received: Received) {
        match received.envelope.reply_to {
            Address::Caller => self.complete(verdict, received),
            Address::Log | Address::Instance { .. } => self.end_unheard(verdict, received),
        }
    }

    fn complete(&self, verdict: Verdict, received: Received) {
        let Received { envelope, properties, payload } = received;
        let mut table = self.calls();
        let Some(calls) = table.as_mut() else { return };
        if calls.get_mut(envelope.call).is_some_and(|pending| pending.traced) {
            self.collect_hops(calls);
        }
        let Some(pending) = calls.remove(envelope.call) else {
            calls.silence.heard_late(envelope.call);
            drop(table);
            // The caller was told by the clock that its deadline passed, or has hung up; why, only the log still hears.
            return self.end_unheard(verdict, Received { envelope, properties, payload });
        };
        calls.silence.heard_in_time(pending.function);
        let now = now_ns();
        calls.overload.ended(now);
        self.is_active(now);
        drop(table);
        let mut hops = pending.hops;
        hops.sort_by_key(|hop| hop.taken_ns);
        let answer = if verdict == Verdict::Done {
            let payload = Bytes::from(payload);
            let (content_format, properties) = (envelope.content_format, AnswerProperties::decode(&properties));
            let answer = Answer { payload, content_format, properties, hops, ..Answer::refused(Outcome::Done, "") };
            self.tell_given([pending.function, envelope.function], || given::output_of(&answer));
            answer
        } else {
            let (outcome, diagnostic) = self.outcome(envelope.function, verdict, &payload);
            let name = self.function_name(envelope.function);
            self.log.add(name, &format!("call {}: {outcome}: {diagnostic}", CallId(envelope.call)));
            Answer { hops, ..Answer::refused(outcome, diagnostic) }
        };
        // A caller that is gone has got the answer that its deadline passed.
        let _gone = pending.answer.send(answer);
    }

    /// A message that nobody waits for has come to its end.
    fn end_unheard(&self, verdict: Verdict, received: Received) {
        let Received { envelope, properties, payload } = received;
        self.is_active(now_ns());
        let name = self.function_name(envelope.function);
        let call = CallId(envelope.call);
        if verdict == Verdict::Done {
            self.log.add(name, &format!("call {call}: done, {} bytes that nobody waits for", payload.len()));
            self.tell_given([envelope.function; 2], || given::output(payload, envelope.content_format, &properties));
        } else {
            let (outcome, diagnostic) = self.outcome(envelope.function, verdict, &payload);
            self.log.add(name, &format!("call {call}: {outcome}: {diagnostic}"));
        }
    }

    fn function_name(&self, index: usize) -> &str {
        self.application.functions.get(index).map_or("?", |function| function.name.as_str())
    }

    /// What the caller is told of a call that did not end well.
    fn outcome(&self, function: usize, verdict: Verdict, payload: &[u8]) -> (Outcome, String) {
        let text = one_line(&payload[..payload.len().min(DIAGNOSTIC_BYTES_MAX)]);
        let outcome = match verdict {
            Verdict::Done => Outcome::Done,
            Verdict::Failed | Verdict::Crashed | Verdict::OutOfMemory | Verdict::TooLarge | Verdict::Loop => {
                Outcome::Failed
            }
            Verdict::NotFound => Outcome::NotFound,
            Verdict::NotAllowed => Outcome::NotAllowed,
            Verdict::DeadlinePassed => Outcome::DeadlinePassed,
            Verdict::Overloaded => Outcome::Overloaded,
        };
        (outcome, format!("{}: {text}", self.function_name(function)))
    }
}

/// Text of a function's, fit for one line of a protocol or a terminal.
fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}
